"""Drift between two sets of results: what changed from the old to the new, method by method and target by target.

Seeds that both have are paired. A time has drifted where the interval of the ratio of medians, new over old, leaves out
1 and Holm's p over all comparisons is below 0.05. On clocks that are modelled the same cell and seed must also have the
same events: where they differ, the computation itself is another one.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis import statistics
from analysis.errors import InvalidInput
from analysis.evidence import facts
from analysis.rounding import number
from analysis.time_to_target import time_to_target

SIGNIFICANT = 0.05


@dataclass(frozen=True, eq=False)
class Drift:
    """`rows`: one for each experiment, method and target; `changed`: what differs in the provenance; `only`: methods
    that one side lacks."""

    rows: pd.DataFrame
    changed: tuple[str, ...]
    only: tuple[str, ...]

    @property
    def drifted(self):
        """Whether anything is flagged."""
        return bool((self.rows["flag"] != "").any())


def compare(old, new):
    """The Drift from the races `old` to the races `new`; InvalidInput where they have no method in common."""
    sides = [{_key(race, method): (race, method) for race in races for method in race.methods} for races in (old, new)]
    common = [key for key in sides[0] if key in sides[1]]
    if not common:
        raise InvalidInput("the two sets of results have no method of the same experiment and clock in common")
    rows = [row for key in common for row in _rows(key, *sides[0][key], *sides[1][key])]
    if not rows:
        raise InvalidInput("the two sets of results have no seed and target of the same method in common")
    frame = pd.DataFrame(rows)
    frame["p_holm"] = statistics.holm(frame["p"])
    frame["flag"] = [_flag(row) for _, row in frame.iterrows()]
    only = [f"{' '.join(map(str, key[:2]))} {key[4]}: only {side}" for key, side in _lonely(*sides)]
    return Drift(frame, tuple(_changed(old, new)), tuple(only))


def _key(race, method):
    return race.experiment, race.engine, race.clock, race.setting, method.label


def _lonely(old, new):
    return [(key, "old") for key in old if key not in new] + [(key, "new") for key in new if key not in old]


def _rows(key, old_race, old, new_race, new):
    both = old_race.targets and new_race.targets
    ladder = set(old_race.targets.values) & set(new_race.targets.values) if both else ()
    same = {run.seed: run for run in old.counted}
    pairs = [(same[run.seed], run) for run in new.counted if run.seed in same]
    other = sum(_hash(a) != _hash(b) for a, b in pairs) if key[2] != "native" else 0
    for target in sorted(ladder) if pairs else ():
        a, b = (np.array([time_to_target(run, target).time for run in side]) for side in zip(*pairs, strict=True))
        ratio, low, high = statistics.ratio_interval(b, a)
        yield {
            "experiment": key[0], "clock": key[2], "method": key[4], "target": target, "pairs": len(pairs),
            "old_seconds": float(statistics.median(a)), "new_seconds": float(statistics.median(b)),
            "ratio": ratio, "ratio_low": low, "ratio_high": high, "p": statistics.paired_test(b, a),
            "other_events": other,
        }  # fmt: skip


def _hash(run):
    root = facts(run.path).root
    return run.cell, root.get("event_hash"), root.get("model_hash")


def _flag(row):
    said = []
    if row.p_holm < SIGNIFICANT and not row.ratio_low <= 1 <= row.ratio_high:
        said.append("slower" if row.ratio > 1 else "faster")
    if row.other_events:
        said.append(f"other events in {row.other_events} of {row.pairs} runs")
    return ", ".join(said)


def _changed(old, new):
    """What differs between the provenance of all old and of all new files."""
    said = [[facts(run.path) for race in races for run in race.runs] for races in (old, new)]
    asked = {
        "version": lambda f: f.provenance("code").get("version"),
        "commit": lambda f: f.provenance("code").get("commit"),
        "source": lambda f: (f.provenance("code").get("source_hash") or "")[:12],
        "Python": lambda f: f.provenance("packages").get("python"),
        "MPI": lambda f: (f.provenance("mpi").get("library") or "").partition("\n")[0],
        "packages": lambda f: (f.provenance("agreement").get("packages") or "")[:12],
    }
    for name, ask in asked.items():
        a, b = (", ".join(sorted({str(ask(f)) for f in side})) for side in said)
        if a != b:
            yield f"{name}: {a} before, {b} now"


def markdown(drift):
    """The comparison as a table for a terminal."""
    lines = [
        f"{(drift.rows['flag'] != '').sum()} of {len(drift.rows)} comparisons have drifted.",
        "",
        "| experiment | method | target | clock | old seconds | new seconds | ratio | pairs | drift |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for _, row in drift.rows.iterrows():
        ends = "" if math.isnan(row.ratio_low) else f" [{number(row.ratio_low)}, {number(row.ratio_high)}]"
        times = " | ".join(number(t) if math.isfinite(t) else "missed" for t in (row.old_seconds, row.new_seconds))
        ratio = "n too small" if math.isnan(row.ratio_low) else f"{number(row.ratio)}{ends}"
        cells = f"{row.experiment} | {row.method} | {row.target:g} | {row.clock} | {times} | {ratio} | {row.pairs}"
        lines.append(f"| {cells} | {row.flag or 'none shown'} |")
    notes = [f"- {text}" for text in (*drift.changed, *drift.only)]
    return "\n".join([*lines, "", *(notes or ["- Code, packages and MPI are the same."])]) + "\n"
