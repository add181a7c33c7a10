"""The table of times to target: every number of one race, one row for each target and method, at full precision.

A comparison with the base rests on pairs of runs of one seed.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.columns import summary
from analysis.errors import InvalidInput
from analysis.races import Race
from analysis.time_to_target import time_to_target

UNKNOWN = (math.nan, math.nan, math.nan)
SYNCHRONOUS = "minibatch_sgd"  # what asynchronous methods are measured against where no base is named


@dataclass(frozen=True, eq=False)
class Table:
    """A race in numbers.

    `rows` has one row for each target (from easy to hard) and method (fastest at the headline first), times in seconds
    on the race's clock, +inf where a median run missed; its columns are those of the CSV. `hits` are the
    `TimeToTarget` of the counted runs by (label, target), each a dict by seed.
    """

    race: Race
    base: str | None
    rows: pd.DataFrame
    hits: dict

    @property
    def targets(self):
        """The targets shown, from easy to hard."""
        return list(dict.fromkeys(self.rows["target"]))


def tabulate(race, targets=(), base=None):
    """The `Table` of `race` at these `targets` (default: all), with ratios to the method called `base`.

    Without `base` minibatch SGD is the base where the race has it once. Raises InvalidInput where the experiment has
    no targets or not these: they are fixed before the runs. Where the race has no method `base`, there are no ratios.
    """
    chosen = ladder(race, targets)
    base = named(race, base) if base else _default_base(race)
    everywhere = {*chosen, race.targets.headline}
    hits = {
        (method.label, target): {run.seed: time_to_target(run, target) for run in method.counted}
        for method in race.methods
        for target in everywhere
    }

    def at_headline(method):
        times = [hit.time for hit in hits[method.label, race.targets.headline].values()]
        return (statistics.median(times) if times else math.inf), method.label

    methods = sorted(race.methods, key=at_headline)
    rows = pd.DataFrame([_row(race, method, target, base, hits) for target in chosen for method in methods])
    if base:
        rows["p_holm"] = statistics.holm(rows["p"])
        rows["comparisons"] = int(rows["p"].notna().sum())
    return Table(race, base.label if base else None, rows, hits)


def ladder(race, chosen=()):
    """The targets of a race, or those of them that are chosen, from easy to hard. Raises InvalidInput as `tabulate`."""
    if race.targets is None:
        raise InvalidInput(f"experiment {race.experiment} names no targets; add `targets` to it and run it again")
    for target in chosen:
        if target not in race.targets.values:
            raise InvalidInput(
                f"{target:g} is no target of {race.experiment}, whose targets for {race.targets.metric} were fixed "
                f"before the runs: {', '.join(f'{value:g}' for value in race.targets.values)}"
            )
    return sorted(set(chosen) or race.targets.values, reverse=direction(race) == "lower")


def direction(race):
    """Whether "lower" or "higher" values of the targets' metric are better."""
    return next((run.better[race.targets.metric] for run in race.runs if run.complete), "lower")


def named(race, name):
    """The method called `name` by its label, or by its algorithm where that has one cell only, or None.

    Raises InvalidInput where several cells have this algorithm.
    """
    for method in race.methods:
        if method.label == name:
            return method
    same = [method for method in race.methods if method.runs[0].algorithm == name]
    if len(same) > 1:
        labels = "; ".join(f'"{method.label}"' for method in same)
        raise InvalidInput(f"{name} stands for {len(same)} methods of {race.experiment}; name one: {labels}")
    return same[0] if same else None


def _default_base(race):
    """Minibatch SGD where the race has it once."""
    try:
        return named(race, SYNCHRONOUS)
    except InvalidInput:
        return None


def _row(race, method, target, base, hits):
    """One row of the CSV: `method` at `target`, beside `base` (or None)."""
    own = hits[method.label, target]
    times = np.array([hit.time for hit in own.values()])
    reached = int(np.isfinite(times).sum())
    run = method.runs[0]
    reached_low, reached_high = statistics.fraction_interval(reached, len(times))
    row = {
        "experiment": race.experiment,
        "engine": race.engine,
        "clock": race.clock,
        "setting": race.setting,
        "metric": race.targets.metric,
        "direction": direction(race),
        "target": target,
        "headline": target == race.targets.headline,
        "targets_version": race.targets.version,
        "method": method.label,
        "algorithm": run.algorithm,
        "cell": run.cell,
        "parameters": json.dumps(run.parameters),
        "final_model": run.final_model,
        "biased": int(method.biased),
        "n": len(times),
        "reached": reached,
        "reached_low": reached_low,
        "reached_high": reached_high,
        **summary("median_seconds", times),
        "granularity_seconds": max(
            (hit.granularity_seconds for hit in own.values() if not hit.censored), default=math.nan
        ),
        **summary("median_gradients", [hit.gradients for hit in own.values()]),
        **summary("median_bytes", [hit.bytes for hit in own.values()]),
        **_misses_counted(method, target, own),
        **{f"predicted_{unit}": predicted(method, unit, target) for unit in ("updates", "seconds")},
        "target_lost": sum(hit.target_lost for hit in own.values()),
        "stopped_from_outside": len(method.runs) - len(times),
        "poor_fidelity": sum(run.poor_fidelity for run in method.runs),
        "time_scale": max((run.fidelity.get("time_scale", math.nan) for run in method.counted), default=math.nan),
        "lateness_max_seconds": max(
            (run.fidelity.get("lateness_max_seconds", math.nan) for run in method.counted), default=math.nan
        ),
        "seeds": _listed(own),
        "seconds": _listed(times),
        "stored_seconds": _listed(hit.seconds for hit in own.values()),
        "reasons": _listed(hit.reason for hit in own.values()),
    }
    return row | (_comparison(method, base, target, hits) if base else {})


def _misses_counted(method, target, own):
    """The columns that count misses by what they took: expected running time, survival, and the tail over runs.

    Survival has runs that were stopped from outside, too, censored at that instant.
    """
    stored = [hit.seconds for hit in own.values()]
    ert = statistics.expected_running_time(stored, [not hit.censored for hit in own.values()]) if own else UNKNOWN
    known = [time_to_target(run, target) for run in method.runs]
    known = [hit for hit in known if not math.isnan(hit.seconds)]
    median, events = UNKNOWN, 0
    if known:
        survival = statistics.survival([hit.seconds for hit in known], [hit.censored for hit in known])
        median, events = (survival.median, survival.median_low, survival.median_high), survival.events
    tail = statistics.percentile_95([hit.time for hit in own.values()]) if own else UNKNOWN[:2]
    return {
        **dict(zip(("ert_seconds", "ert_seconds_low", "ert_seconds_high"), ert, strict=True)),
        "cost_seconds": float(sum(stored)),
        **dict(zip(("survival_seconds", "survival_seconds_low", "survival_seconds_high"), median, strict=True)),
        "survival_runs": len(known),
        "survival_events": events,
        "tail_seconds": tail[0],  # the 95th percentile, below 59 runs the maximum
        "tail_seconds_bound": tail[1],
    }


def predicted(method, unit, target):
    """The "updates" or "seconds" to the target by theory, up to its constant: the median over seeds, nan if unknown."""
    said = [getattr(run.prediction, unit).get(target, math.nan) for run in method.counted if run.prediction]
    said = [value for value in said if not math.isnan(value)]
    return float(statistics.median(said)) if said else math.nan


def _comparison(method, base, target, hits):
    """The columns that compare `method` with `base` over the seeds that both ran; nan where nothing is compared."""
    tried = {run.seed for run in (*method.runs, *base.runs)}
    seeds, a, b = paired_times(hits[method.label, target], hits[base.label, target])
    ratio = paired = won = UNKNOWN
    p = math.nan
    if seeds and method is not base:
        ratio, paired, won = statistics.ratio_interval(a, b), statistics.paired_ratio(a, b), statistics.wins(a, b)
        p = statistics.paired_test(a, b)
    return {
        "base": base.label,
        "pairs": len(seeds),
        "pairs_left_out": len(tried) - len(seeds),
        **dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True)),
        **dict(zip(("paired_ratio", "paired_ratio_low", "paired_ratio_high"), paired, strict=True)),
        **dict(zip(("wins", "win_fraction_low", "win_fraction_high"), won, strict=True)),
        "win_fraction": won[0] / len(seeds) if seeds else math.nan,
        "p": p,
    }


def paired_times(own, other):
    """(seeds, a, b): the seeds that both have a `TimeToTarget` of, and the times (pairs,) of each, misses +inf."""
    seeds = sorted(own.keys() & other.keys())
    return seeds, *(np.array([side[seed].time for seed in seeds]) for side in (own, other))


def _listed(values):
    return " ".join(str(value) for value in values)
