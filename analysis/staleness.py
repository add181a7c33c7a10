"""How stale the gradients of each method were: by how many model updates, and how long, the point they were computed at
was behind when the server took them up or threw them away.

Percentiles are those of a run, and summarised over runs; the histogram pools the gradients of all runs.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.columns import of_method, summary, with_interval
from analysis.errors import Absent
from analysis.notes import provenance
from analysis.races import Race
from analysis.sheets import Sheet

LIMITS = ("threshold", "max_staleness")  # parameters that limit staleness


@dataclass(frozen=True, eq=False)
class Staleness:
    """A race's staleness: `rows` has one row a method, its columns are those of the CSV; `histograms` has by label the
    number of gradients with staleness 0, 1, 2, ..., of all runs together."""

    race: Race
    rows: pd.DataFrame
    histograms: dict

    @property
    def limits(self):
        """By label the staleness from which a method treats gradients differently, where it has such a parameter."""
        limits = dict(zip(self.rows["method"], self.rows["limit"], strict=True))
        return {method: limit for method, limit in limits.items() if math.isfinite(limit)}


def percentile(histogram, percent):
    """The least staleness that at least so many percent of the gradients do not exceed; nan without gradients."""
    cumulated = np.cumsum(np.asarray(histogram, np.int64))
    if not cumulated.size or not cumulated[-1]:
        return math.nan
    return float(np.argmax(100 * cumulated >= percent * cumulated[-1]))


def load(races):
    """The `Staleness` of each race. Raises InvalidInput where no run of any has counted a gradient."""
    made = [Staleness(race, pd.DataFrame([_row(race, m) for m in race.methods]), _histograms(race)) for race in races]
    if not any(staleness.histograms for staleness in made):
        names = ", ".join(sorted({method.label for race in races for method in race.methods}))
        raise Absent(
            f"no result file counts a gradient in /updates/staleness_histogram, of {names}; give files of complete runs"
        )
    return made


def _runs(method):
    return [run for run in method.counted if run.staleness.sum()]


def _histograms(race):
    """The pooled histogram of each method that has one."""
    pooled = {}
    for method in race.methods:
        counts = [run.staleness for run in _runs(method)]
        if counts:
            length = max(map(len, counts))
            pooled[method.label] = sum(np.pad(count, (0, length - len(count))) for count in counts)
            pooled[method.label] = np.trim_zeros(pooled[method.label], "b")
    return pooled


def _row(race, method):
    """One row of the CSV."""
    runs = _runs(method)
    first = method.runs[0]
    limit = next((first.parameters[name] for name in LIMITS if name in first.parameters), None)
    waited = [seconds for run in runs if len(seconds := run.updates.get("staleness_seconds", ()))]
    largest = [int(np.flatnonzero(run.staleness)[-1]) for run in runs]
    return {
        **of_method(race, method),
        "limit": math.nan if limit is None else float(limit),
        "n": len(runs),
        "gradients": sum(int(run.staleness.sum()) for run in runs),
        **summary("staleness_median", [percentile(run.staleness, 50) for run in runs]),
        **summary("staleness_p99", [percentile(run.staleness, 99) for run in runs]),
        "staleness_max": max(largest, default=math.nan),
        "open_from": min((len(run.staleness) - 1 for run in runs if run.staleness_open), default=math.inf),
        **summary("discarded_share", [run.trace["discarded"].iloc[-1] / run.staleness.sum() for run in runs]),
        "updates_recorded": len(waited),
        **summary("staleness_seconds_median", [_quantile(seconds, 0.5) for seconds in waited]),
        **summary("staleness_seconds_p99", [_quantile(seconds, 0.99) for seconds in waited]),
        "seeds": " ".join(str(run.seed) for run in runs),
    }


def _quantile(values, q):
    """As `percentile`: no interpolation."""
    return float(np.quantile(values, q, method="inverted_cdf"))


def sheet(staleness):
    """What is shown of a `Staleness`."""
    frames = (_cells(staleness), *([_seconds(staleness)] if staleness.rows["updates_recorded"].any() else []))
    heading = f"Staleness of gradients: {staleness.race.title}"
    return Sheet(staleness.race, heading, frames, tuple(_notes(staleness)), staleness.rows)


def _cells(staleness):
    """The table as text, rounded for readers."""
    rows = [row for _, row in staleness.rows.iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["n"] = [str(row.n) for row in rows]
    if staleness.rows["limit"].notna().any():
        shown["threshold"] = ["" if math.isnan(row.limit) else f"{row.limit:g}" for row in rows]
    shown["gradients"] = [str(row.gradients) for row in rows]
    for name in ("median", "p99"):
        shown[name] = [with_interval(row, f"staleness_{name}", _updates(row)) for row in rows]
    shown["max"] = [_updates(row)(row.staleness_max) for row in rows]
    shown["discarded share"] = [with_interval(row, "discarded_share") for row in rows]
    return shown


def _seconds(staleness):
    """Staleness in seconds as text, of the methods whose updates were recorded."""
    rows = [row for _, row in staleness.rows.iterrows() if row.updates_recorded]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["n"] = [str(row.updates_recorded) for row in rows]
    for name in ("median", "p99"):
        title = f"{staleness.race.clock} seconds, {name}"
        shown[title] = [with_interval(row, f"staleness_seconds_{name}") for row in rows]
    return shown


def _updates(row):
    """How this row's numbers of updates are shown: whole; what is counted in an open bin is at least so large."""
    return lambda value: "" if math.isnan(value) else f"{'≥ ' if value >= row.open_from else ''}{value:g}"


def _notes(staleness):
    """What was counted and how it is summarised."""
    race, rows = staleness.race, staleness.rows
    yield (
        "Staleness of a gradient: model updates between the point it was computed at and the update that uses or the "
        "moment that discards it; all gradients count. Median and p99: of each run, then the median over seeds; max: "
        "over all runs; gradients: of all runs; discarded share: of each run's gradients."
    )
    if rows["updates_recorded"].any():
        yield f"Seconds: {race.clock} clock, in each recorded model update the age of the point of its oldest gradient."
    yield f"95 % intervals: medians over runs, order statistics, none below {statistics.POINTS_MEDIAN} runs."
    without = ", ".join(rows[rows["n"] == 0]["method"])
    if without:
        yield f"No gradient is counted in the runs of: {without}."
    yield from provenance(race)
