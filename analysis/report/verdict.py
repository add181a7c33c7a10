"""What a race was to find out, what it found, and what may not be claimed from it."""

import math
from dataclasses import dataclass

from analysis import pairs, statistics
from analysis.claims import TOO_SMALL, cannot
from analysis.columns import with_open_interval
from analysis.rounding import RELATION, number
from analysis.tables import direction

SHOWN = 8  # comparisons with the leader that are printed

CLOCKS = {
    "virtual": (
        "Virtual seconds are those of a modelled cluster, in a simulation: no machine noise, and nothing of what a "
        "real network does beyond the model. Intervals cover seeds only."
    ),
    "emulated": (
        "Emulated seconds are those of a modelled cluster to which real ranks and messages were paced. Intervals cover "
        "seeds; the error of the pacing is stated, not averaged in."
    ),
    "native": (
        "Native seconds were measured on this machine. Intervals cover seeds, order and what else the machine did in "
        "these runs; another allocation, or another machine, is not covered."
    ),
}


@dataclass(frozen=True, eq=False)
class Verdict:
    """`question` and `answer` in a sentence each, `because` the numbers behind it, `limits` what cannot be claimed."""

    question: str
    answer: str
    because: tuple[str, ...]
    limits: tuple[str, ...]


def of_table(table):
    """The `Verdict` of the headline target of a `tables.Table` that shows it."""
    race = table.race
    rows = [row for _, row in table.rows[table.rows["headline"]].iterrows()]
    goal = f"{race.targets.metric.replace('_', ' ')} {RELATION[direction(race)]} {race.targets.headline:g}"
    where = f"with {race.runs[0].workers} workers"
    if len(rows) == 1:
        question = f"How long does {rows[0].method} take to {goal} {where}?"
    else:
        question = f"Which of {len(rows)} methods is first to reach {goal} {where}?"
    comparisons = _against_all(race, rows)
    return Verdict(
        question,
        _answer(rows, comparisons, goal),
        tuple(_because(rows, comparisons)),
        tuple(_limits(table, comparisons)),
    )


def _against_all(race, rows):
    """The leader's comparison with every other method, at the headline, adjusted for their number."""
    if len(rows) < 2 or not rows[0].reached:
        return []
    labels = {method.label: method for method in race.methods}
    leader = labels[rows[0].method]
    found = [pairs.row(race, leader, labels[row.method], race.targets.headline) for row in rows[1:]]
    adjusted = statistics.holm([row["p"] for row in found])
    family = int(sum(not math.isnan(row["p"]) for row in found))
    return [row | {"p_holm": p, "comparisons": family} for row, p in zip(found, adjusted, strict=True)]


def behind(comparison):
    """Whether it is shown that the method compared is slower than the leader: by the interval of the ratio (below ten
    pairs of the paired ratios), and by the adjusted test."""
    low = comparison["factor_low"]
    if math.isnan(low):
        low = comparison["paired_factor_low"]
    return bool(low > 1 and comparison["p_holm"] <= 0.05)


def _answer(rows, comparisons, goal):
    runs = min(row.n for row in rows)
    if not any(row.n for row in rows):
        return "Nothing can be said: every run was stopped from outside."
    if not any(row.reached for row in rows):
        return f"None: no run reached {goal}."
    leader = rows[0].method
    if runs < statistics.POINTS_FRACTION:
        count = "one seed" if runs == 1 else f"{runs} seeds"
        return f"Not to be said from {count}." + (f" {leader} was first in them." if len(rows) > 1 and runs else "")
    if len(rows) == 1:
        return _time(rows[0])
    if runs < statistics.PAIRS_TEST:
        return f"Not to be said from {runs} seeds. {leader} has the lowest median."
    level = [row["against"] for row in comparisons if not behind(row)]
    if not level:
        return f"{leader} is first."
    if len(level) == len(comparisons):
        return f"{leader} has the lowest median, but no difference to any other method is shown."
    named = [leader, *level[:3], *(["others"] if len(level) > 3 else [])]
    return f"{', '.join(named[:-1])} and {named[-1]} are ahead; between them no difference is shown."


def _time(row):
    return f"{row.method}: {said_seconds(row)}."


def said_seconds(row):
    """The median of a row of the table, its interval, and how many runs met the target, in words."""
    if not row.n:
        return "no run counts"
    if row.n < statistics.POINTS_FRACTION:
        return f"{row.reached} of {row.n} runs; {TOO_SMALL} for a median"
    if math.isinf(row.median_seconds):
        return f"missed by the median run, {row.reached} of {row.n} runs"
    return f"median {with_open_interval(row, 'median_seconds')} {row.clock} s, {row.reached} of {row.n} runs"


def _because(rows, comparisons):
    for comparison in comparisons[:SHOWN]:
        yield f"{comparison['method']} against {comparison['against']}: {pairs.text(_Row(comparison))}."
    if len(comparisons) > SHOWN:
        yield f"{len(comparisons) - SHOWN} more methods are in the table."


class _Row(dict):
    """A dict read as the row of a frame."""

    __getattr__ = dict.__getitem__


def _limits(table, comparisons):
    race, rows = table.race, table.rows
    yield CLOCKS[race.clock]
    yield from cannot(int(rows["n"].min()), len(comparisons) or 1)
    missed = rows[(rows["reached"] < rows["n"]) & rows["headline"]]
    if len(missed):
        counts = "; ".join(f"{row.method} {row.n - row.reached} of {row.n}" for row in missed.itertuples())
        yield (
            f"Misses count: {counts} at the headline target. A median is a bound where half of the runs or more missed."
        )
    lost = rows[rows["target_lost"] > 0]
    if len(lost):
        yield "A target that is met once stays met: some runs lost theirs again later, which the table's notes count."
    spacing = rows["granularity_seconds"].max()
    if spacing > 0:
        yield f"Times are those of snapshots, at most {number(spacing)} s apart, not of the instant between two."
    if not any(method.runs[0].tuning.get("trials") for method in race.methods):
        yield "Parameters are as given; no method was tuned in this experiment, so a ranking is one of parameters."
    yield "One problem and one setting: another model, data set or number of workers may rank otherwise."
