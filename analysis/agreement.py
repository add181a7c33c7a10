"""What the simulation says beside what real ranks did: the same events, and how far their times are apart."""

import math

import h5py
import numpy as np
import pandas as pd

from analysis import statistics
from analysis.notes import provenance
from analysis.rounding import number
from analysis.sheets import Sheet
from analysis.time_to_target import time_to_target


def rows(virtual, other):
    """One row a method that both races have, over the seeds of both: how many runs have the same events, by their hash,
    and medians of seconds to the headline target on either clock, with the largest departure of a seed."""
    found = []
    theirs = {method.label: method for method in other.methods}
    for method in virtual.methods:
        if method.label not in theirs:
            continue
        mine = {run.seed: run for run in method.counted}
        real = {run.seed: run for run in theirs[method.label].counted}
        seeds = sorted(mine.keys() & real.keys())
        if not seeds:
            continue
        times = [np.array([_seconds(runs[seed]) for seed in seeds]) for runs in (mine, real)]
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(np.where(times[0] == times[1], 1.0, times[1] / times[0]) - 1.0)
        found.append(
            {
                "experiment": virtual.experiment,
                "setting": virtual.setting,
                "clock": other.clock,
                "method": method.label,
                "seeds": len(seeds),
                "same_events": sum(_hash(mine[seed]) == _hash(real[seed]) != "" for seed in seeds),
                "virtual_seconds": float(statistics.median(times[0])),
                "other_seconds": float(statistics.median(times[1])),
                "largest_departure": float(apart.max()),
                "of_seeds": " ".join(map(str, seeds)),
            }
        )
    return pd.DataFrame(found)


def _seconds(run):
    return time_to_target(run, run.targets.headline).time if run.targets else run.seconds


def _hash(run):
    with h5py.File(run.path, "r") as file:
        return str(file.attrs.get("event_hash", ""))


def sheet(virtual, other):
    """What is shown of it."""
    made = rows(virtual, other)
    shown = pd.DataFrame()
    shown["method"] = made["method"]
    shown["seeds of both"] = [str(count) for count in made["seeds"]]
    shown["same events"] = [f"{row.same_events}/{row.seeds}" for row in made.itertuples()]
    shown["virtual seconds"] = [_said(value) for value in made["virtual_seconds"]]
    shown[f"{other.clock} seconds"] = [_said(value) for value in made["other_seconds"]]
    shown["largest departure of a seed"] = [
        "undefined" if math.isnan(value) else f"{number(100 * value)} %" for value in made["largest_departure"]
    ]
    notes = [
        (
            "The same experiment in simulation and by real ranks, over the seeds that both ran. Same events: runs "
            "whose hash of all events is equal, hence the same iterates; seconds: median to the headline target; "
            f"departure: {other.clock} over virtual seconds of a seed, minus 1. They are shown side by side and never "
            "pooled."
        ),
        *provenance(other),
    ]
    heading = f"Simulation beside real ranks: {virtual.experiment}"
    return Sheet(virtual, heading, (shown,), tuple(notes), made, (other,))


def _said(value):
    return "missed" if math.isinf(value) else number(value)
