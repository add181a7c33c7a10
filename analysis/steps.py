"""How long single steps took: seconds of a gradient, of waiting for the next one, and of a message under way.

Percentiles are those of a run, over all of its ranks, and summarised over runs: the tail is what a synchronous method
waits for. From the events of a run where it recorded them, else from the percentiles of its steps.
"""

import math
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from analysis import statistics
from analysis.columns import of_method, summary, with_interval
from analysis.errors import Absent
from analysis.notes import provenance
from analysis.races import Race
from analysis.sheets import Sheet

SENT, COMPUTED = 0, 2  # kinds of /events
PERCENTILES = (50, 95, 99)
KINDS = {"compute": "a gradient", "wait": "waiting for the next", "message": "a message under way"}
NAMES = tuple(f"{kind}_p{percent}" for kind in KINDS for percent in PERCENTILES)


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a race: `rows` has one row a method, its columns are those of the CSV."""

    race: Race
    rows: pd.DataFrame


def load(races):
    """The `Steps` of each race that has some. Raises Absent where no file has events or steps."""
    made = [Steps(race, pd.DataFrame([_row(race, method) for method in race.methods])) for race in races]
    made = [steps for steps in made if steps.rows["n"].any()]
    if not made:
        names = ", ".join(sorted({method.label for race in races for method in race.methods}))
        raise Absent(f"no result file has steps (/steps) or events (/events), of {names}")
    return made


def of_run(run):
    """NAMES to seconds, nan where it is not known; None where the file has neither events nor steps."""
    with h5py.File(run.path, "r") as file:
        if "events/t" in file and len(file["events/t"]):
            events = {name: file["events"][name][()] for name in ("t", "until", "rank", "kind")}
            return _of_events(events)
        if "steps" not in file:
            return None
        said = file["steps"].attrs
        return {name: float(said.get(f"{name}_seconds", math.nan)) for name in NAMES}


def _of_events(events):
    took = events["until"] - events["t"]
    computed = events["kind"] == COMPUTED
    waits = [np.diff(pair) for pair in _gaps(events, computed)]
    of_kind = {
        "compute": took[computed],
        "wait": np.concatenate(waits).ravel() if waits else np.empty(0),
        "message": took[(events["kind"] == SENT) & ~np.isnan(took)],
    }
    return {
        f"{kind}_p{percent}": _quantile(seconds, percent / 100)
        for kind, seconds in of_kind.items()
        for percent in PERCENTILES
    }


def _quantile(seconds, q):
    return float(np.quantile(seconds, q, method="inverted_cdf")) if len(seconds) else math.nan


def _gaps(events, computed):
    """For each rank the pairs (a computation ended, the next one began)."""
    for rank in np.unique(events["rank"][computed]):
        own = computed & (events["rank"] == rank)
        ends, starts = events["until"][own][:-1], events["t"][own][1:]
        yield np.maximum(np.column_stack([ends, starts]), ends[:, None])


def _row(race, method):
    found = pd.DataFrame([said for run in method.counted if (said := of_run(run))], columns=NAMES)
    return {
        **of_method(race, method),
        "n": len(found),
        **{key: value for name in NAMES for key, value in summary(name, found[name].dropna().to_numpy()).items()},
    }


def sheet(steps):
    """What is shown of `Steps`."""
    rows = [row for _, row in steps.rows.iterrows() if row.n]
    lines = [(row, kind) for row in rows for kind in KINDS if not math.isnan(row[f"{kind}_p50"])]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row, _ in lines]
    shown[f"{steps.race.clock} seconds of"] = [KINDS[kind] for _, kind in lines]
    shown["n"] = [str(row.n) for row, _ in lines]
    for percent in PERCENTILES:
        shown[f"p{percent}"] = [with_interval(row, f"{kind}_p{percent}") for row, kind in lines]
    return Sheet(steps.race, f"Steps: {steps.race.title}", (shown,), tuple(_notes(steps.race)), steps.rows)


def _notes(race):
    yield (
        f"Seconds of the {race.clock} clock: percentiles over the steps of all ranks of a run, then the median over "
        "seeds. Waiting: from the end of a computation to the beginning of the next one on its rank. A message is "
        "under way from the call that sends it to its arrival, where events were recorded."
    )
    yield f"95 % intervals: medians over runs, order statistics, none below {statistics.POINTS_MEDIAN} runs."
    yield from provenance(race)
