"""What the tables of a race have in common: which method a row is of, and medians with their intervals."""

import json
import math

from analysis import statistics
from analysis.rounding import interval, number


def of_method(race, method):
    """The columns that say which method a row of the CSV is of."""
    run = method.runs[0]
    return {
        "experiment": race.experiment,
        "engine": race.engine,
        "clock": race.clock,
        "setting": race.setting,
        "method": method.label,
        "algorithm": run.algorithm,
        "cell": run.cell,
        "parameters": json.dumps(run.parameters),
        "biased": int(method.biased),
    }


def summary(name, values):
    """The median over runs and its interval, as columns; nan where there are no values."""
    low, high = statistics.median_interval(values) if len(values) else (math.nan, math.nan)
    middle = float(statistics.median(values)) if len(values) else math.nan
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def with_interval(row, name, shown=number, ends=None):
    """The median over runs, with its interval where there is one; the note says from how many runs on."""
    if math.isnan(row[name]):
        return ""
    middle, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(low):
        return shown(middle)
    return f"{shown(middle)} {ends(low, high) if ends else f'[{shown(low)}, {shown(high)}]'}"


def with_open_interval(row, name):
    """The same; an end at 0 or infinity is called open."""
    return with_interval(row, name, ends=interval)
