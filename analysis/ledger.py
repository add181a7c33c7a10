"""The byte ledger: what a method's messages were worth, from bits as its paper counts them to what MPI was handed.

Levels are never mixed: a is compared with papers, b with other encodings, c with the network. Every number is that of a
run, then summarised over runs.
"""

import math
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from analysis import statistics
from analysis.columns import of_method, summary, with_interval
from analysis.errors import Absent, InvalidInput
from analysis.notes import provenance
from analysis.races import Race
from analysis.rounding import number
from analysis.sheets import Sheet
from analysis.time_to_target import time_to_target

LEVELS = {"algorithmic": "a", "serialised": "b", "mpi": "c", "nic": "d"}
UNIT = {"algorithmic": 8e6}  # bits to MB; the other levels are bytes
WAYS = ("up", "down", "edges")
KINDS = ("source", "destination", "tag", "messages", "lost")


@dataclass(frozen=True, eq=False)
class Ledger:
    """A race's traffic: `rows` has one row a method, `kinds` one a method and tag; the columns of `rows` are those of
    the CSV. MB are 10^6 bytes."""

    race: Race
    rows: pd.DataFrame
    kinds: pd.DataFrame


def load(races):
    """The `Ledger` of each race. Raises InvalidInput where no file holds one, or a file's ledger is damaged."""
    made = [_ledger(race) for race in races]
    if not any(ledger.rows["n"].any() for ledger in made):
        names = ", ".join(sorted({method.label for race in races for method in race.methods}))
        raise Absent(f"no result file has a byte ledger (/bytes), of {names}; give files of complete runs")
    return made


def of_run(run):
    """(MB by level and way, e.g. "mpi_up"; "messages" and "lost"; by tag a frame of messages and MB) of a run.

    A way that the method does not tell apart, and a level that was not counted, is nan.
    """
    with h5py.File(run.path, "r") as file:
        group = file.get("bytes", {})
        found = {}
        for level in LEVELS:
            scale = UNIT.get(level, 1e6)
            for way in WAYS:
                name = f"{level}/{way}"
                known = name in group and isinstance(group[name], h5py.Dataset)
                found[f"{level}_{way}"] = float(np.sum(group[name][()])) / scale if known else math.nan
        if math.isnan(found["serialised_edges"]) and "edges/bytes" in group:
            found["serialised_edges"] = float(group["edges/bytes"][()].sum()) / 1e6
        for column in ("messages", "lost"):
            known = f"edges/{column}" in group
            found[column] = float(group[f"edges/{column}"][()].sum()) if known else math.nan
        kinds = {name: dataset[()] for name, dataset in group["kinds"].items()} if "kinds" in group else {}
    if kinds and len({len(column) for column in kinds.values()} | {len(kinds.get(KINDS[0], ()))}) > 1:
        raise InvalidInput(f"the columns of /bytes/kinds in {run.path} differ in length; the file is damaged")
    return found, _by_tag(kinds)


def _by_tag(kinds):
    if not kinds:
        return pd.DataFrame(columns=["tag", "messages", "lost", *LEVELS])
    frame = pd.DataFrame({name: kinds[name] for name in kinds if name not in ("source", "destination")})
    frame["tag"] = [tag.decode() if isinstance(tag, bytes) else str(tag) for tag in frame["tag"]]
    for level in LEVELS:
        frame[level] = frame[level] / UNIT.get(level, 1e6) if level in frame else math.nan
    return frame.groupby("tag", as_index=False, sort=False).sum(min_count=1)


def _ledger(race):
    rows, kinds = [], []
    for method in race.methods:
        found = [of_run(run) for run in method.counted if run.complete]
        found = [(totals, tags) for totals, tags in found if not math.isnan(totals["serialised_edges"])]
        rows.append(_row(race, method, [totals for totals, _ in found]))
        tags = pd.concat([tags.assign(run=k) for k, (_, tags) in enumerate(found)]) if found else pd.DataFrame()
        for tag, of_tag in tags.groupby("tag", sort=False) if len(tags) else ():
            kinds.append(
                {"method": method.label, "tag": tag, "n": len(of_tag)}
                | {k: v for name in ("messages", "lost", *LEVELS) for k, v in _summary(name, of_tag[name]).items()}
            )
    return Ledger(race, pd.DataFrame(rows), pd.DataFrame(kinds))


def _row(race, method, found):
    totals = pd.DataFrame(found, columns=[*(f"{level}_{way}" for level in LEVELS for way in WAYS), "messages", "lost"])
    a, b, c, d = (totals[f"{level}_edges"] for level in LEVELS)
    ratios = {"encoding": b / a, "protocol": c / b, "algorithmic_to_nic": a / d}
    return {
        **of_method(race, method),
        "n": len(totals),
        **{key: value for name in totals for key, value in _summary(name, totals[name]).items()},
        **{
            key: value
            for name, ratio in ratios.items()
            for key, value in _summary(name, ratio.replace([math.inf, -math.inf], math.nan)).items()
        },
        **summary("bits_to_target", _bits_to_target(method)),
        "seeds": " ".join(str(run.seed) for run in method.counted),
    }


def _summary(name, values):
    return summary(name, values.dropna().to_numpy())


def _bits_to_target(method):
    """Bits as the paper counts them up to the headline target, a miss +inf, of the runs that count bits."""
    found = []
    for run in method.counted:
        if run.targets and "bits" in run.trace:
            hit = time_to_target(run, run.targets.headline)
            place = np.searchsorted(run.trace["time"], hit.seconds)
            found.append(math.inf if hit.censored else float(run.trace["bits"].iloc[place]))
    return found


def sheet(ledger):
    """What is shown of a `Ledger`."""
    frames = [_levels(ledger)]
    if len(ledger.kinds):
        frames.append(_kinds(ledger))
    heading = f"Bytes: {ledger.race.title}"
    return Sheet(ledger.race, heading, tuple(frames), tuple(_notes(ledger)), ledger.rows)


def _levels(ledger):
    rows = [row for _, row in ledger.rows.iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["n"] = [str(row.n) for row in rows]
    for level, letter in LEVELS.items():
        for way in WAYS:
            name = f"{level}_{way}"
            if ledger.rows[name].notna().any() and (way != "edges" or ledger.rows[f"{level}_up"].isna().any()):
                title = {"up": "up", "down": "down", "edges": "all"}[way]
                shown[f"{letter} {level} MB, {title}"] = [with_interval(row, name) for row in rows]
    shown["b:a"] = [with_interval(row, "encoding") for row in rows]
    shown["c:b"] = [with_interval(row, "protocol") for row in rows]
    if ledger.rows["algorithmic_to_nic"].notna().any():
        shown["a:d"] = [with_interval(row, "algorithmic_to_nic") for row in rows]
    if ledger.rows["bits_to_target"].notna().any():
        headline = ledger.race.targets.headline
        shown[f"a MB to {headline:g}"] = [
            with_interval(row, "bits_to_target", lambda bits: number(bits / 8e6) if bits < math.inf else "not reached")
            for row in rows
        ]
    return shown


def _kinds(ledger):
    rows = [row for _, row in ledger.kinds.iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["message"] = [row.tag for row in rows]
    shown["number"] = [with_interval(row, "messages", lambda count: f"{count:.0f}") for row in rows]
    if ledger.kinds["lost"].fillna(0).any():
        shown["lost"] = [with_interval(row, "lost", lambda count: f"{count:.0f}") for row in rows]
    for level, letter in LEVELS.items():
        if ledger.kinds[level].notna().any():
            shown[f"{letter} {level} MB"] = [with_interval(row, level) for row in rows]
    return shown


def _notes(ledger):
    race, rows = ledger.race, ledger.rows
    known = [level for level in LEVELS if rows[f"{level}_edges"].notna().any()]
    yield (
        "MB: 10^6 bytes, of all of the run; each run's, then the median over seeds. a: as the paper counts, in bits, "
        "/ 8; b: what was serialised, encoded and padded; c: what MPI was handed for it, headers included (in "
        "simulation, would be); d: counters of the network card. b:a is what encoding costs, c:b what the protocol "
        "does. Up: to the server; down: from it; all: every edge."
    )
    absent = [f"{LEVELS[level]} ({level})" for level in LEVELS if level not in known]
    if absent:
        yield f"Not counted in these files, and not estimated: {', '.join(absent)}."
    yield f"95 % intervals: medians over runs, order statistics, none below {statistics.POINTS_MEDIAN} runs."
    without = ", ".join(rows[rows["n"] == 0]["method"])
    if without:
        yield f"No ledger in the runs of: {without}."
    yield from provenance(race)
