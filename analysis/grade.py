"""The grade of a set of results: each of the 60 items scored 0, 1 or 2 on the evidence found, at most 120 in all.

The written rules are in `analysis.rules`, one for each item. A gate below 2 means that no table may be published:
`table` and `report` refuse (`refuse`), unless they are told --ungated, and then say so. From 75 a set is credible.

An item that binds only clocks which are not in the results is met where every file says on which clock it is, and 0
where one does not: the maximum is always 120.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from analysis import sheets, tables, typeset
from analysis.errors import InvalidInput
from analysis.evidence import facts
from analysis.rules import ALL, ITEMS
from analysis.time_to_target import time_to_target

CREDIBLE, MOST = 75, 2 * len(ITEMS)
GATES = frozenset(number for number, (_, _, gate, _) in ITEMS.items() if gate)


@dataclass(frozen=True)
class Score:
    """What an item was given, and why."""

    number: int
    title: str
    gate: bool
    score: int
    evidence: str

    @property
    def closed(self):
        """Whether it is a gate that no table may pass."""
        return self.gate and self.score < 2


class Results:
    """What rules look at. `files`: the Facts of complete runs on the clocks that the rule binds; `counted`: those of
    them that bear on numbers; `tables`, `text`: the tables of all races with targets, and how readers see them;
    `parts`: what killed runs have left and nobody collected."""

    def __init__(self, races, made, parts=(), only_for_gates=False):
        self.races, self.tables, self.parts = races, made, list(parts)
        self.all = [facts(run.path, only_for_gates) for race in races for run in race.runs if run.complete]
        self.files = self.counted = self.all
        self.text = sheets.markdown([typeset.sheet(table) for table in made], "...")

    def on(self, clocks):
        """The same, of files on these clocks."""
        view = object.__new__(Results)
        view.__dict__.update(self.__dict__)
        view.files = view.counted = [f for f in self.all if f.clock in clocks]
        return view

    @staticmethod
    def process(f):
        """What tells the process of a run from others."""
        starts, hosts = f.column("provenance/ranks/process_started"), f.column("provenance/ranks/process")
        return tuple(starts[:1].tolist()), tuple(hosts[:1].tolist()), f.root.get("cell")

    @cached_property
    def processes(self):
        """How many runs of a cell each process has made."""
        return Counter(map(self.process, self.all))

    @cached_property
    def profiles(self):
        """(performance profiles, why there are none)."""
        from analysis import profiles

        try:
            return profiles.load(self.races), ""
        except InvalidInput as error:
            return [], str(error)

    @cached_property
    def axes(self):
        """The labels of the axes of the figure of curves."""
        from analysis import plots

        try:
            figure = plots.figure(self.races)
        except InvalidInput:
            return []
        return [text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel()) if text]

    @cached_property
    def twins(self):
        """Relative errors of virtual seconds to the headline target against those of the same run over MPI."""
        times = {}
        for race in self.races:
            for method in race.methods if race.targets else ():
                for run in method.counted:
                    key = race.experiment, race.setting, method.label, run.seed
                    times.setdefault(key, {})[run.clock] = time_to_target(run, race.targets.headline).seconds
        both = [
            (t["virtual"], t[other]) for t in times.values() for other in t if "virtual" in t and other != "virtual"
        ]
        return [abs(a - b) / max(a, b) if max(a, b) else 0.0 for a, b in both]


def grade(races, parts=(), only=frozenset(ITEMS), made=None):
    """The Scores of these items for these races; `made`: their tables, where there are some."""
    made = [tables.tabulate(race) for race in races if race.targets] if made is None else made
    results = Results(races, made, parts, only_for_gates=set(only) <= GATES)
    clocks = {f.clock for f in results.all}
    scores = []
    for number, (title, bound, gate, rule) in sorted(ITEMS.items()):
        if number not in only:
            continue
        if results.all and not clocks & bound:
            named = clocks <= ALL
            evidence = f"asks for nothing on the {' and '.join(sorted(map(str, clocks)))} clock, which all files name"
            scores.append(Score(number, title, gate, 2 if named else 0, evidence if named else "files name no clock"))
        else:
            scores.append(Score(number, title, gate, *rule(results.on(bound))))
    return scores


def refuse(races, made, ungated):
    """Raise InvalidInput where a gate is closed; with `ungated` a sentence that says so instead, or ""."""
    closed = [score for score in grade(races, only=GATES, made=made) if score.closed]
    if not closed:
        return ""
    why = "; ".join(f"{score.number} {score.title} ({score.evidence})" for score in closed)
    if not ungated:
        raise InvalidInput(f"these results may not be published, for gates are not passed: {why}. --ungated shows them")
    return f"UNGATED, not to be published. Gates not passed: {why}."


def marked(sheet, warning):
    """The sheet with this sentence as its first note, where there is one."""
    return replace(sheet, notes=(warning, *sheet.notes)) if warning else sheet


def total(scores):
    """The sum of all scores."""
    return sum(score.score for score in scores)


def verdict(scores):
    """The sum and what it means, in a sentence."""
    closed = [str(score.number) for score in scores if score.closed]
    said = "credible" if total(scores) >= CREDIBLE and not closed else "not credible"
    gates = f"gates below 2: {', '.join(closed)}, so no table may be published" if closed else "all gates passed"
    return f"{total(scores)} of {MOST}: {said}; {gates}."


def markdown(scores):
    """The scores as a table for a terminal."""
    lines = [verdict(scores), "", "| item | score | requirement | evidence |", "|---|---|---|---|"]
    for score in scores:
        mark = " G" if score.gate else ""
        lines.append(f"| {score.number}{mark} | {score.score} | {score.title} | {score.evidence} |")
    return "\n".join(lines) + "\n"
