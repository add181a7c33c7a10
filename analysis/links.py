"""The link map: what went over each directed edge, and how long messages were under way there.

Bytes, messages and losses are those that the ledger counts; seconds under way are the events', where a run recorded
them, and latency and bandwidth those that the experiment models or a calibration has measured.
"""

import json
import math
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from analysis import statistics
from analysis.columns import of_method, summary, with_interval
from analysis.errors import Absent, InvalidInput
from analysis.notes import provenance
from analysis.races import Race, flat, in_words
from analysis.rounding import number
from analysis.sheets import Sheet

SENT, LOST = 0, 1  # kinds of /events
MOST = 24  # edges of a method in a table for readers; the CSV has all of them


@dataclass(frozen=True, eq=False)
class Links:
    """The edges of a race's methods: `rows` has one row a method and edge, its columns are those of the CSV;
    `calibrated` is what a calibration says of the network, or nothing."""

    race: Race
    rows: pd.DataFrame
    calibrated: dict

    def matrix(self, method, column="megabytes"):
        """(ranks, ranks): this column of a method, row the source, column the destination, nan where no edge is."""
        own = self.rows[self.rows["method"] == method]
        size = int(own[["source", "destination"]].to_numpy().max()) + 1
        found = np.full((size, size), math.nan)
        found[own["source"], own["destination"]] = own[column]
        return found


def load(races):
    """The `Links` of each race that has edges. Raises InvalidInput where none has, or a file is damaged."""
    made = []
    for race in races:
        rows = pd.DataFrame([row for method in race.methods for row in _rows(race, method)])
        if len(rows):
            made.append(Links(race, rows, _calibration(race)))
    if not made:
        names = ", ".join(sorted({method.label for race in races for method in race.methods}))
        raise Absent(f"no result file counts what went over its edges (/bytes/edges), of {names}")
    return made


def edges_of(run):
    """A frame with source, destination, messages, lost, megabytes, seconds (median under way; nan if unknown)."""
    with h5py.File(run.path, "r") as file:
        columns = {name: dataset[()] for name, dataset in file.get("bytes/edges", {}).items()}
        events = {name: file["events"][name][()] for name in ("t", "until", "rank", "kind", "peer")
                  if "events" in file and name in file["events"]}  # fmt: skip
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidInput(f"the columns of /bytes/edges in {run.path} differ in length; the file is damaged")
    frame = pd.DataFrame(columns)
    if not len(frame):
        return pd.DataFrame(columns=["source", "destination", "messages", "lost", "megabytes", "seconds"])
    frame["megabytes"] = frame["bytes"] / 1e6
    frame["lost"] = frame.get("lost", math.nan)
    frame["seconds"] = math.nan
    if len(events) == 5:
        sent = pd.DataFrame(events)
        sent = sent[(sent["kind"] == SENT) & sent["until"].notna()]
        under_way = (sent["until"] - sent["t"]).groupby([sent["rank"], sent["peer"]]).quantile(0.5, "lower")
        index = pd.MultiIndex.from_frame(frame[["source", "destination"]])
        frame["seconds"] = under_way.reindex(index).to_numpy()
    return frame[["source", "destination", "messages", "lost", "megabytes", "seconds"]]


def _rows(race, method):
    found = [edges_of(run) for run in method.counted if run.complete]
    found = [frame for frame in found if len(frame)]
    if not found:
        return
    every = pd.concat(found)
    for (source, destination), of_edge in every.groupby(["source", "destination"]):
        yield {
            **of_method(race, method),
            "source": int(source),
            "destination": int(destination),
            "n": len(of_edge),
            **{
                key: value
                for name in ("messages", "lost", "megabytes", "seconds")
                for key, value in summary(name, of_edge[name].dropna().to_numpy()).items()
            },
        }


def _calibration(race):
    """What /provenance/network of the first run says of a calibration."""
    with h5py.File(race.runs[0].path, "r") as file:
        if "provenance/network" not in file:
            return {}
        try:
            said = json.loads(file["provenance/network"].asstr()[()])
        except (json.JSONDecodeError, TypeError):
            return {}
    return said.get("calibration") or {} if isinstance(said, dict) else {}


def sheet(links):
    """What is shown of `Links`: of each method the edges that carried most."""
    frames = tuple(_cells(links, method) for method in links.rows["method"].unique())
    return Sheet(links.race, f"Links: {links.race.title}", frames, tuple(_notes(links)), links.rows)


def _cells(links, method):
    own = links.rows[links.rows["method"] == method].sort_values("megabytes", ascending=False, kind="stable")
    rows = [row for _, row in own.head(MOST).iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["from"] = [str(row.source) for row in rows]
    shown["to"] = [str(row.destination) for row in rows]
    shown["messages"] = [with_interval(row, "messages", lambda count: f"{count:.0f}") for row in rows]
    if own["lost"].fillna(0).any():
        shown["lost"] = [with_interval(row, "lost", lambda count: f"{count:.0f}") for row in rows]
    shown["MB"] = [with_interval(row, "megabytes") for row in rows]
    if own["seconds"].notna().any():
        shown[f"{links.race.clock} seconds under way"] = [with_interval(row, "seconds") for row in rows]
    return shown


def _notes(links):
    race = links.race
    counts = links.rows.groupby("method", sort=False).size()
    yield (
        "Of each directed edge in all of a run, serialised bodies; MB: 10^6 bytes; seconds under way: the median over "
        "a run's messages, where events were recorded. Each run's, then the median over seeds; 95 % intervals by order "
        f"statistics, none below {statistics.POINTS_MEDIAN} runs."
    )
    cut = "; ".join(f"{method} {count}" for method, count in counts.items() if count > MOST)
    if cut:
        yield f"Shown are the {MOST} edges that carried most; the CSV has all: {cut}."
    modelled = flat(race.runs[0].resolved.get("heterogeneity", {}).get("links") or {})
    if modelled and race.clock != "native":
        yield f"Modelled links: {in_words(modelled)}."
    if links.calibrated:
        known = {name: value for name, value in flat(links.calibrated).items() if isinstance(value, (int, float))}
        yield "Calibrated: " + ", ".join(f"{name} {number(value)}" for name, value in known.items()) + "."
    yield from provenance(race)
