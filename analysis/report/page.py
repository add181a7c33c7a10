"""All of a report: the page, and what lies beside it for a paper."""

import base64
import gzip
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis import (
    agreement,
    charts,
    ledger,
    links,
    network,
    plots,
    predicted,
    profiles,
    sheets,
    staleness,
    steps,
    tables,
    timeline,
    typeset,
)
from analysis.errors import Absent, InvalidInput
from analysis.notes import provenance
from analysis.report import facts, figures, verdict

HERE = Path(__file__).parent
TIMELINES = 8  # methods of a race whose timelines are shown
INTERVAL = re.compile(r"^(.*\S)\s+(\[[^\]]*\])$")


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a section: a figure or none, tables, and a sentence for where there is nothing to show."""

    key: str
    heading: str
    figure: figures.Figure | None = None
    sheets: tuple = ()
    lead: str = ""
    folded: bool = False  # whether the tables are shown only when asked for


@dataclass(frozen=True, eq=False)
class Section:
    """All that is said of one race; `verdict` is None where its experiment names no target."""

    key: str
    race: object
    verdict: verdict.Verdict | None
    blocks: tuple[Block, ...]
    limits: tuple[str, ...]
    facts: tuple = ()
    look: dict = field(default_factory=dict)

    @property
    def chips(self):
        """What must be seen at first sight."""
        runs = self.race.runs
        seeds = len({run.seed for run in runs})
        return (
            f"{self.race.clock} clock",
            {"mpi": "real ranks over MPI", "simulation": "simulation"}[self.race.engine],
            f"{runs[0].workers} workers",
            f"{seeds} seed{'s' * (seeds > 1)}",
            f"{len(self.race.methods)} method{'s' * (len(self.race.methods) > 1)}",
        )


class Material:
    """Races, and what both the page and the files beside it are made of; `base` as in `tables.tabulate`."""

    def __init__(self, races, base=None):
        self.races, self.base = races, base

    @cached_property
    def tables(self):
        """The table of each race that has targets."""
        return {race: tables.tabulate(race, base=self.base) for race in self.races if race.targets}

    @cached_property
    def lines(self):
        """The timelines of each race."""
        return {race: _or_nothing(timeline.load, [race], most=TIMELINES) for race in self.races}

    @cached_property
    def profiles(self):
        """Profiles over experiments, where a clock has several, else over the targets of a race."""
        return _or_nothing(profiles.load, self.races)


def _or_nothing(load, *arguments, **more):
    """What it loads, an empty list where the files do not hold it."""
    try:
        return load(*arguments, **more)
    except Absent:
        return []


def build(made, command, warning=""):
    """The page of this `Material`, as text; `warning`: why it should not be published, where it should not."""
    sections = [_section(f"s{place}", race, made) for place, race in enumerate(made.races)]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=_title(sections),
            warning=warning,
            sections=sections,
            across=[*_across(made), *_engines(made.races)],
            command=command,
            style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
            script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
            plotly=Markup(_plotly()),
            picture=Markup(_picture(made.races)),
        )
    )


def of_sheets(made, command):
    """A page of tables alone."""
    return (
        _environment()
        .get_template("tables.html.j2")
        .render(
            sheets=made,
            looks=[figures.looks([method.label for method in sheet.race.methods]) for sheet in made],
            command=command,
            style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        )
    )


def _title(sections):
    names = list(dict.fromkeys(section.race.experiment for section in sections))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if names[4:] else "")


def _section(key, race, made):
    look = figures.looks([method.label for method in race.methods])
    table = made.tables.get(race)
    said = verdict.of_table(table) if table else None
    blocks = [
        *([_times(key, table, look)] if table else []),
        _curves(key, race, look),
        *([_profile(key, race, made, look)] if table else []),
        _theory(key, race, table),
        _when(key, race, made.lines[race], look),
        _staleness(key, race, look),
        *_traffic(key, race),
        *_ranks(key, race),
    ]
    nothing = (verdict.CLOCKS[race.clock], "This experiment names no target: no time is compared.")
    limits = said.limits if said else nothing
    said_of_runs = [sentence for sentence in provenance(race) if sentence.startswith(("Emulated", "BIASED"))]
    measured, limitations = facts.how_it_was_measured(race)
    known = (*measured, *facts.of_race(race))
    failed = [f"CHECKS of runs: {value}." for name, value in known if name == "checks" and "FAILED" in value]
    limits = (limits[0], *failed, *said_of_runs, *limits[1:], *limitations)
    return Section(key, race, said, tuple(filter(None, blocks)), tuple(limits), known, look)


def _times(key, table, look):
    sheet = typeset.sheet(table, _is_predicted(table))
    return Block(f"{key}-times", "Time to target", figures.times(f"{key}-times", table, look), (sheet,))


def _curves(key, race, look):
    metric = race.targets.metric if race.targets else next(iter(sorted(race.runs[0].better)), None)
    figure = metric and figures.curves(f"{key}-curves", race, metric, look, race.targets)
    if not figure:
        return Block(f"{key}-curves", "Curves", lead="Every run failed before it was evaluated; there is no curve.")
    return Block(f"{key}-curves", f"{metric.replace('_', ' ').capitalize()} over the run", figure)


def _profile(key, race, made, look):
    own = [each for each in made.profiles if each.over == "targets" and each.races == (race,)]
    own = own or _or_nothing(profiles.load, [race], "targets")
    if not own or len(own[0].problems) < 2:
        return None
    figure = figures.profile(f"{key}-profile", own[0], look)
    return Block(f"{key}-profile", "Performance profile over the targets", figure, (profiles.sheet(own[0]),))


def _theory(key, race, table):
    if not any(run.prediction for run in race.runs):
        lead = "These files hold no prediction: there is no formula for these methods, or they are of an older version."
        return Block(f"{key}-theory", "Beside theory", lead=lead)
    return Block(f"{key}-theory", "Beside theory", sheets=(predicted.sheet(predicted.compare(race, table=table)),))


def _when(key, race, lines, look):
    key, heading = f"{key}-timeline", "Where the time went"
    of_steps = tuple(steps.sheet(made) for made in _or_nothing(steps.load, [race]))
    if not lines:
        lead = "No run recorded events; with --set experiment.record_events=true there is a timeline of each rank here."
        return Block(key, heading, figures.busy(key, race, look), of_steps, lead)
    lead = f"The {TIMELINES} methods that were first at the headline target." if len(race.methods) > TIMELINES else ""
    figure, shown = figures.timelines(key, lines), (*timeline.sheets(lines), *of_steps)
    return Block(key, heading, figure, shown, lead, folded=True)


def _staleness(key, race, look):
    for made in _or_nothing(staleness.load, [race]):
        figure = figures.staleness(f"{key}-staleness", made, look)
        return Block(f"{key}-staleness", "Staleness of gradients", figure, (staleness.sheet(made),))
    return None


def _traffic(key, race):
    for made in _or_nothing(ledger.load, [race]):
        yield Block(f"{key}-bytes", "Bytes", sheets=(ledger.sheet(made),))
    for made in _or_nothing(links.load, [race]):
        yield Block(f"{key}-links", "Links", figures.link_map(f"{key}-links", made), (links.sheet(made),), folded=True)


def _ranks(key, race):
    for made in _or_nothing(network.load, [race]):
        yield Block(f"{key}-network", "Ranks of network methods", sheets=(network.sheet(made),))


def _across(made):
    """Profiles over several experiments of one clock, where there are such."""
    for each in made.profiles:
        if each.over == "experiments":
            key = f"across-{each.races[0].clock}"
            figure = figures.profile(key, each, figures.looks(each.labels))
            yield Block(key, f"Performance profile: {each.title}", figure, (profiles.sheet(each),))


def _engines(races):
    """What the simulation says of an experiment beside what real ranks did, where files hold both."""
    same = {}
    for race in races:
        same.setdefault((race.experiment, race.setting), {})[race.clock] = race
    for place, by_clock in enumerate(same.values()):
        virtual = by_clock.pop("virtual", None)
        for other in by_clock.values():
            rows = agreement.rows(virtual, other) if virtual else ()
            if len(rows):
                yield Block(
                    f"engines-{place}-{other.clock}",
                    f"Simulation beside real ranks: {virtual.experiment}",
                    sheets=(agreement.sheet(virtual, other),),
                )


def _environment():
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "json": _json, "slug": _slug, "groups": _groups, "tied": _tied}
    return environment


def _cell(text):
    """A cell, its interval set apart."""
    parts = INTERVAL.match(str(text))
    if not parts:
        return escape(text)
    return Markup('{} <span class="interval">{}</span>').format(parts[1], parts[2])


def _tied(text):
    """A sentence whose relations, numbers with units, and intervals no line breaks."""
    text = re.sub(r"\[[^\]]*\]", lambda bracket: bracket[0].replace(" ", "\u00a0"), text)
    text = re.sub(r"(?<=\d) (?=(s|ms|MB|%|pairs|runs|seeds|workers)\b)", "\u00a0", text)
    return re.sub(r" ([=≤≥]) ", "\u00a0\\1\u00a0", text)


def _slug(name):
    """A column's name as a class."""
    return re.sub(r"[^a-z0-9]+", "-", str(name).lower()).strip("-")


def _groups(frame):
    """The rows of a frame as lists of dicts, one list for each target, or one for all."""
    if "target" not in frame:
        return [frame.to_dict("records")]
    return [group.to_dict("records") for _, group in frame.groupby("target", sort=False)]


def _json(value):
    """JSON that may stand in a script element."""
    return Markup(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


@cache
def _plotly():
    """plotly's script, packed; its Python package brings it, and nothing else of that is used."""
    found = find_spec("plotly")
    script = Path(found.submodule_search_locations[0], "package_data", "plotly.min.js") if found else None
    if script is None or not script.is_file():
        raise InvalidInput("a report needs plotly's script; install it with `pip install plotly`")
    return base64.b64encode(gzip.compress(script.read_bytes(), 9, mtime=0)).decode()


def _picture(races):
    """The curves as a picture, for readers without scripts, as the data of an image; empty where there is none."""
    try:
        content = plots.image(plots.figure(races[:4]), "png", "curves", dpi=110)
    except Absent:
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def beside(made, command):
    """What a paper needs, {suffix: bytes}: the table as LaTeX and CSV, and the figures as PDF."""
    files = {}
    if made.tables:
        shown = [typeset.sheet(table, _is_predicted(table)) for table in made.tables.values()]
        files["-table.tex"] = sheets.latex(shown, command).encode()
        files["-table.csv"] = sheets.csv(shown, command).encode()
    drawn = {}
    with suppress(Absent):
        drawn["curves"] = plots.figure(made.races), plots.description(made.races, None, command)
    if made.profiles:
        of, said = [race for each in made.profiles for race in each.races], map(profiles.described, made.profiles)
        drawn["profile"] = charts.profile_figure(made.profiles), charts.description(of, "\n".join(said), command)
    if lines := [line for of_race in made.lines.values() for line in of_race]:
        of, said = list(dict.fromkeys(line.race for line in lines)), charts.timeline_caption(lines)
        drawn["timeline"] = charts.timeline_figure(lines), charts.description(of, said, command)
    return files | {f"-{name}.pdf": plots.image(figure, "pdf", text) for name, (figure, text) in drawn.items()}


def _is_predicted(table):
    return bool(table.rows["predicted_seconds"].notna().any())
