"""What theory predicted beside what was measured: seconds per model update, and times to the targets.

Seconds per update follow from the parameters and the speeds alone and can be compared as they are. A time to a target
is theory's number of updates times that, and holds up to a constant that may differ between methods: what can be
compared are ratios between methods, and how the time grows from target to target.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics, tables, typeset
from analysis.columns import of_method, summary, with_open_interval
from analysis.errors import InvalidInput
from analysis.notes import provenance
from analysis.races import Race
from analysis.rounding import number
from analysis.sheets import Sheet
from analysis.time_to_target import time_to_target

CONSTANTS = {"smoothness": "L", "gap": "Δ", "variance": "σ²"}  # of the problem, and the letters papers have for them


@dataclass(frozen=True, eq=False)
class Comparison:
    """A race beside theory: `paces` has one row a method, `targets` one a target and method (none without targets).

    `table` are the measured times to the targets, or None. The columns of both frames are those of the CSV.
    """

    race: Race
    table: tables.Table | None
    paces: pd.DataFrame
    targets: pd.DataFrame


def seconds_per_update(run):
    """(seconds, updates): the mean time of a model update after the first one, and how many it is the mean of.

    From the recorded updates, else from the snapshots; (nan, 0) where there are not two updates.
    """
    recorded = run.updates
    if "time" in recorded:
        times, counts = recorded["time"].to_numpy(), np.arange(len(recorded))
    else:
        ended = run.trace["time"] >= run.budget_seconds  # the snapshot that the clock took, at no update
        seen = run.trace[(run.trace["updates"] > 0) & ~ended]
        seen = seen.drop_duplicates("updates")  # the first snapshot of an update: later ones show no new one
        times, counts = seen["time"].to_numpy(), seen["updates"].to_numpy()
    if len(counts) < 2:
        return math.nan, 0
    updates = int(counts[-1] - counts[0])
    return float(times[-1] - times[0]) / updates, updates


def compare(race, base=None, table=None):
    """The `Comparison` of `race`, with ratios to the method called `base` as in `tables.tabulate`, whose `table` of all
    targets may be given."""
    if table is None and race.targets:
        table = tables.tabulate(race, base=base)
    targets = _targets(table) if table else pd.DataFrame()
    order = list(dict.fromkeys(table.rows["method"])) if table else [method.label for method in race.methods]
    methods = sorted(race.methods, key=lambda method: order.index(method.label))
    return Comparison(race, table, pd.DataFrame([_pace(race, method) for method in methods]), targets)


def require(races):
    """Raises InvalidInput where no run of any race has a prediction."""
    if not any(run.prediction for race in races for run in race.runs):
        names = ", ".join(sorted({method.label for race in races for method in race.methods}))
        raise InvalidInput(
            f"no result file has a prediction (/prediction), of {names}; run a method for which there is a formula, "
            "with a version of mpibench that records it"
        )


def _pace(race, method):
    """One row of the paces: what a model update takes, measured and by theory, and the constant of the method."""
    runs = [(run, *seconds_per_update(run)) for run in method.counted]
    runs = [(run, seconds, updates) for run, seconds, updates in runs if updates]
    measured = [seconds for _, seconds, _ in runs]
    updates = min((updates for *_, updates in runs), default=0)
    said = [run.prediction for run in method.counted if run.prediction]
    least, expected, most = (_middle([getattr(p, name) for p in said]) for name in ("least", "expected", "most"))
    ratios = [seconds / run.prediction.expected for run, seconds, _ in runs if run.prediction]
    return {
        **of_method(race, method),
        "n": len(runs),
        "predicted": len(said),
        **summary("update_seconds", measured),
        "counted_updates": updates,
        "least": least,
        "expected": expected,
        "most": most,
        **summary("update_seconds_to_expected", [ratio for ratio in ratios if not math.isnan(ratio)]),
        "outside": _outside(runs, least, most),
        **_constant(method),
        **{name: _middle([p.constants.get(name, math.nan) for p in said]) for name in CONSTANTS},
        "exact": all(p.constants.get("exact", False) for p in said) if said else None,
        "source": "; ".join(dict.fromkeys(p.source for p in said if p.source)),
        "seeds": " ".join(str(run.seed) for run, *_ in runs),
        "update_seconds_of_seeds": " ".join(map(str, measured)),
    }


def _middle(values):
    """The median of what is known."""
    known = [value for value in values if not math.isnan(value)]
    return float(statistics.median(known)) if known else math.nan


def _outside(runs, least, most):
    """Which bound the measured seconds per update break, if any: with their whole interval (all runs, where they are
    too few for one), and by more than what a run shows of a long-run mean.

    A run begins and ends with up to one gradient a worker in the making, so its updates are known to within one, or
    within the share that these gradients are of all.
    """
    if not runs:
        return ""
    measured = [seconds for _, seconds, _ in runs]
    low, high = statistics.median_interval(measured)
    if math.isnan(low):
        low, high = min(measured), max(measured)
    slack = max(max(1 / updates, run.workers / run.trace["gradients"].max()) for run, _, updates in runs)
    if high < least * (1 - slack):
        return "below least"
    return "above most" if low > most * (1 + slack) else ""


def _constant(method):
    """The factor by which measured times to the targets exceed predicted ones, fitted to all targets of a method.

    For each run the geometric mean of measured / predicted over the targets that every run met, then the median over
    runs; `constant_error` is the largest factor by which a target's median departs from it. nan below two targets.
    """
    nothing = summary("constant", []) | {"constant_targets": 0, "constant_error": math.nan}
    runs = [run for run in method.counted if run.prediction]
    if not runs or runs[0].targets is None:
        return nothing
    ratios = []  # a row a target, a column a run
    for target in runs[0].targets.values:
        times = np.array([time_to_target(run, target).time for run in runs])
        predicted = np.array([run.prediction.seconds.get(target, math.nan) for run in runs])
        if np.isfinite(times).all() and np.isfinite(predicted).all() and (times > 0).all() and (predicted > 0).all():
            ratios.append(times / predicted)
    if len(ratios) < 2:
        return nothing
    fitted = summary("constant", np.exp(np.log(ratios).mean(axis=0)))
    departures = np.abs(np.log(statistics.median(np.array(ratios)) / fitted["constant"]))
    return fitted | {"constant_targets": len(ratios), "constant_error": float(np.exp(departures.max()))}


def _targets(table):
    """Measured and predicted times to the targets, and their ratios to those of the base."""
    names = ["target", "headline", "method", "n", "reached", "median_seconds", "median_seconds_low"]
    names += ["median_seconds_high", "predicted_updates", "predicted_seconds"]
    rows = table.rows[names].copy()
    rows["measured_to_predicted"] = rows["median_seconds"] / rows["predicted_seconds"]
    if table.base:
        for name in ("base", "pairs", "ratio", "ratio_low", "ratio_high"):
            rows[name] = table.rows[name]
        of_base = rows[rows["method"] == table.base].set_index("target")["predicted_seconds"]
        rows["predicted_ratio"] = rows["predicted_seconds"] / rows["target"].map(of_base)
        rows.loc[rows["method"] == table.base, "predicted_ratio"] = math.nan
    return rows


def sheet(comparison):
    """What is shown of a `Comparison`."""
    paces, targets = comparison.paces, comparison.targets
    frames = [_pace_cells(comparison)]
    if targets.size and targets["predicted_seconds"].notna().any():
        frames += [_target_cells(comparison), _constant_cells(comparison)]
    rows = paces.merge(targets.drop(columns="n"), on="method", how="left") if targets.size else paces
    heading = f"Measured beside predicted: {comparison.race.title}"
    return Sheet(comparison.race, heading, tuple(frames), tuple(_notes(comparison, len(frames) > 1)), rows)


def _pace_cells(comparison):
    """Seconds per update as text."""
    rows = [row for _, row in comparison.paces.iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["n"] = [str(row.n) for row in rows]
    shown[f"{comparison.race.clock} seconds per update"] = [_measured(row) for row in rows]
    shown["expected"] = [_or_blank(row.expected) if row.predicted else "no prediction" for row in rows]
    shown["least to most"] = [_bounds(row) for row in rows]
    shown["measured / expected"] = [with_open_interval(row, "update_seconds_to_expected") for row in rows]
    shown["bounds"] = [row.outside.upper() or ("kept" if _bounds(row) and row.n else "") for row in rows]
    return shown


def _measured(row):
    if not row.n:
        return "no two updates"
    if row.n < statistics.POINTS_MEDIAN:
        return (
            f"{', '.join(number(float(point)) for point in row.update_seconds_of_seeds.split())}; {typeset.TOO_SMALL}"
        )
    return with_open_interval(row, "update_seconds")


def _bounds(row):
    if math.isnan(row.least) and math.isnan(row.most):
        return ""
    return f"{_or_blank(row.least) or 'none'} to {_or_blank(row.most) or 'none'}"


def _or_blank(value):
    return "" if math.isnan(value) else number(value)


def _target_cells(comparison):
    """Times to the targets as text."""
    table = comparison.table
    measured = typeset.cells(table)
    rows = [row for _, row in comparison.targets.iterrows()]
    shown = measured[["target", "method", f"{table.race.clock} seconds"]].copy()
    shown["predicted"] = [_or_blank(row.predicted_seconds) for row in rows]
    shown["factor"] = [
        _or_blank(row.measured_to_predicted) if math.isfinite(row.median_seconds) else "" for row in rows
    ]
    if table.base:
        shown[f"ratio to {table.base}"] = measured[f"ratio to {table.base}"]
        shown["predicted ratio"] = [_or_blank(row.predicted_ratio) for row in rows]
    return shown


def _constant_cells(comparison):
    """The fitted constants and what went into the theory, as text, of the methods that have a prediction."""
    rows = [row for _, row in comparison.paces.iterrows() if row.predicted]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["constant"] = [with_open_interval(row, "constant") for row in rows]
    shown["targets"] = [str(row.constant_targets) if row.constant_targets else "" for row in rows]
    shown["off by at most"] = [
        "" if math.isnan(row.constant_error) else f"x{number(row.constant_error)}" for row in rows
    ]
    for name, letter in CONSTANTS.items():
        shown[f"{name} {letter}"] = [_or_blank(row[name]) for row in rows]
    shown["known"] = ["exactly" if row.exact else "estimated" for row in rows]
    return shown


def _notes(comparison, timed):
    """How the numbers were made and what may be concluded from them."""
    race, paces = comparison.race, comparison.paces
    yield (
        f"Seconds per update: {race.clock} clock, the mean over a run from its first model update seen to its last, "
        "missed targets or not; median over seeds. Expected, least and most: theory at the run's parameters and "
        "speeds, without a free constant. Bounds: whether the interval (all runs, where n is too small) lies outside "
        "least to most by more than one update, or one gradient a worker, among those counted."
    )
    if timed:
        yield (
            "Predicted: theory's number of updates to the target, for its own step sizes and the hardest problem of "
            "these constants, times the expected seconds per update. It holds up to a constant that may differ between "
            "methods: compare ratios to another method and the growth from target to target, not seconds. Factor: "
            "measured / predicted. Constant: one factor for each method, fitted as the geometric mean over the targets "
            "that all its runs met (two at least); off by: how far at most a target departs from that fit, x1 where "
            "theory has the right shape."
        )
    yield (
        f"95 % intervals: medians, order statistics, none below {statistics.POINTS_MEDIAN} runs; ratio of medians, "
        f"percentile bootstrap over pairs of one seed, none below {statistics.PAIRS_RATIO} pairs. Predictions: the "
        "median over seeds."
    )
    without = ", ".join(paces[paces["predicted"] == 0]["method"])
    if without:
        yield f"No prediction is recorded for: {without}."
    sources = "; ".join(f"{row.method}, {row.source}" for _, row in paces.iterrows() if row.source)
    if sources:
        yield f"Theory: {sources}."
    yield from provenance(race)
