"""A metric against time, or what else a run spends: the median over seeds at every instant, with its interval.

Between snapshots a run keeps the value of its last one, so nothing is interpolated. A run that has ended keeps its last
value; one that diverged, and a value that is not a number, count as the worst possible.
"""

import numpy as np
import pandas as pd

from analysis import statistics

AGAINST = {"seconds": "time", "bytes": "bytes", "gradients": "gradients"}  # and its column in /trace
INSTANTS = 1000  # at most so many points a curve; more than a printed line can show


def median_curve(runs, metric, against="seconds", instants=INSTANTS):
    """A frame with time, median, low, high: the median over `runs` with its 95 % interval at that time.

    `against` "bytes" or "gradients" has these in the column `time` instead. The curve ends where half of the runs have
    ended, for what they would have done later is unknown. low and high are nan below 6 runs.
    """
    sign = 1.0 if runs[0].better[metric] == "lower" else -1.0
    times = [run.trace[AGAINST[against]].to_numpy() for run in runs]
    ends = [np.inf if run.outcome == "diverged" else time[-1] for run, time in zip(runs, times, strict=True)]
    horizon = statistics.median(ends)
    union = np.unique(np.concatenate(times))
    union = union[(union >= max(time[0] for time in times)) & (union <= horizon)]
    grid = union[np.unique(np.linspace(0, union.size - 1, min(union.size, instants)).round().astype(int))]
    values = np.empty((len(runs), grid.size))
    for value, run, time in zip(values, runs, times, strict=True):
        own = sign * run.trace[metric].to_numpy()
        value[:] = np.where(np.isnan(own), np.inf, own)[np.searchsorted(time, grid, side="right") - 1]
        if run.outcome == "diverged":
            value[grid > time[-1]] = np.inf
    low, high = statistics.median_interval(np.arange(len(runs)))  # which order statistics
    ordered = np.sort(values, axis=0)
    unknown = np.full(grid.size, np.nan)
    ends = [unknown if np.isnan(rank) else sign * ordered[int(rank)] for rank in (low, high)]
    low, high = ends if sign > 0 else reversed(ends)
    return pd.DataFrame({"time": grid, "median": sign * statistics.median(values, axis=0), "low": low, "high": high})
