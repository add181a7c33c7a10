"""What each rank did when: computing, waiting for a message that was under way, or idle, from the events of a run.

A rank communicates while it does not compute and a message of its own, or for it, is under way; it is idle otherwise. A
computation that was stopped counts as computing up to then. Runs that recorded no events have the busy seconds of their
ranks and nothing more.
"""

import json
import math
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from analysis.columns import of_method
from analysis.errors import Absent, InvalidInput
from analysis.notes import provenance
from analysis.races import Method, Race
from analysis.read import Run
from analysis.rounding import number
from analysis.sheets import Sheet
from analysis.time_to_target import time_to_target

SENT, LOST, COMPUTED, STOPPED = range(4)  # kinds of /events
COLUMNS = ("t", "until", "rank", "kind", "peer", "tag", "bytes")
STATES = ("compute", "communicate", "idle")
MOST_ROWS = 32  # ranks in a table for readers


@dataclass(frozen=True, eq=False)
class Timeline:
    """One run of a method: `events` as recorded (kinds by number, tags by name), `spans` of all ranks (rank, state,
    start, stop), without those of idleness, and `rows`, one a rank: seconds and shares of each state."""

    race: Race
    method: Method
    run: Run
    events: pd.DataFrame
    spans: pd.DataFrame
    rows: pd.DataFrame


def load(races, seed=None, most=None):
    """A `Timeline` for each method of each race that recorded events: of the run of this seed, by default of the one
    whose time to the headline target is the median; of each race at most so many, those with the least such times.

    Raises Absent where no run did, InvalidInput where a file is damaged.
    """
    made = []
    for race in races:
        chosen = [
            (method, _chosen([run for run in method.counted if _has_events(run)], seed)) for method in race.methods
        ]
        chosen = [(method, run) for method, run in chosen if run]
        if most is not None and len(chosen) > most:
            first = sorted(chosen, key=lambda pair: _time(pair[1]))[:most]
            chosen = [pair for pair in chosen if pair in first]
        made += [timeline(race, method, run) for method, run in chosen]
    if not made:
        which = "" if seed is None else f" of seed {seed}"
        raise Absent(f"no result file{which} has events; run with --set experiment.record_events=true")
    return made


def has_events(race):
    """Whether some run of the race recorded events."""
    return any(_has_events(run) for method in race.methods for run in method.counted)


def _has_events(run):
    with h5py.File(run.path, "r") as file:
        return "events/t" in file and len(file["events/t"]) > 0


def _chosen(runs, seed):
    if seed is not None:
        return next((run for run in runs if run.seed == seed), None)
    if not runs:
        return None
    if runs[0].targets is None:
        return runs[0]
    order = sorted(runs, key=lambda run: (_time(run), run.seed))
    return order[(len(order) - 1) // 2]


def _time(run):
    return time_to_target(run, run.targets.headline).time if run.targets else run.seconds


def events_of(run):
    """The events of a run, in the order of time. Raises InvalidInput where their columns are not those of a result."""
    with h5py.File(run.path, "r") as file:
        group = file["events"]
        if not set(COLUMNS) <= set(group):
            raise InvalidInput(f"/events in {run.path} must have the columns {', '.join(COLUMNS)}; the file is damaged")
        columns = {name: group[name][()] for name in COLUMNS}
        names = json.loads(group.attrs.get("tags", "{}"))
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidInput(f"the columns of /events in {run.path} differ in length; the file is damaged")
    events = pd.DataFrame(columns)
    events["tag"] = [names.get(str(tag), "") if tag >= 0 else "" for tag in events["tag"]]
    return events


def timeline(race, method, run):
    """The `Timeline` of a run that has events."""
    events = events_of(run)
    ranks = int(max(events["rank"].max(), events["peer"].max())) + 1
    end = run.seconds
    worked = events[events["kind"].isin([COMPUTED, STOPPED])]
    travelled = events[(events["kind"] == SENT) & events["until"].notna()]
    spans, rows = [], []
    for rank in range(ranks):
        own = worked[worked["rank"] == rank]
        computing = _union(own[["t", "until"]].to_numpy(), end)
        with_it = travelled[(travelled["rank"] == rank) | (travelled["peer"] == rank)]
        under_way = _without(_union(with_it[["t", "until"]].to_numpy(), end), computing)
        for state, intervals in (("compute", computing), ("communicate", under_way)):
            spans += [(rank, state, start, stop) for start, stop in intervals]
        compute, communicate = (float((x[:, 1] - x[:, 0]).sum()) for x in (computing, under_way))
        rows.append(
            {
                **of_method(race, method),
                "seed": run.seed,
                "rank": rank,
                "compute_seconds": compute,
                "communicate_seconds": communicate,
                "idle_seconds": max(0.0, end - compute - communicate),
                "computations": int((own["kind"] == COMPUTED).sum()),
                "stopped": int((own["kind"] == STOPPED).sum()),
                "messages_sent": int(((events["rank"] == rank) & events["kind"].isin([SENT, LOST])).sum()),
                "messages_lost": int(((events["rank"] == rank) & (events["kind"] == LOST)).sum()),
                "seconds": end,
            }
        )
    frame = pd.DataFrame(spans, columns=["rank", "state", "start", "stop"])
    return Timeline(race, method, run, events, frame, pd.DataFrame(rows))


def _union(intervals, end):
    """Disjoint intervals (m, 2), in order, that cover the same up to `end`."""
    intervals = np.asarray(intervals, float).reshape(-1, 2)
    intervals = np.clip(intervals, 0.0, end)
    intervals = intervals[intervals[:, 1] > intervals[:, 0]]
    if not len(intervals):
        return intervals
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.append(True, intervals[1:, 0] > reach[:-1])
    last = np.append(first[1:], True)
    return np.column_stack([intervals[first, 0], reach[last]])


def _without(intervals, others):
    """What of disjoint `intervals` no one of the disjoint `others` covers, both in order."""
    edges = np.unique(np.concatenate([intervals.ravel(), others.ravel()]))
    if edges.size < 2:
        return intervals
    middle = (edges[:-1] + edges[1:]) / 2
    kept = _covers(intervals, middle) & ~_covers(others, middle)
    return _union(np.column_stack([edges[:-1], edges[1:]])[kept], math.inf)


def _covers(intervals, points):
    if not len(intervals):
        return np.zeros(points.shape, bool)
    place = np.searchsorted(intervals[:, 0], points, side="right") - 1
    return (place >= 0) & (points < intervals[np.maximum(place, 0), 1])


def chrome(timelines):
    """The timelines as a trace for Chrome's tracing page and Perfetto, a dict for JSON: a process a method, a thread a
    rank, microseconds of the run's clock; messages are arrows."""
    made = []
    for process, line in enumerate(timelines):
        title = f"{line.method.label}, seed {line.run.seed} ({line.race.title})"
        made.append(_event("M", process, 0, name="process_name", args={"name": title}))
        ranks = range(len(line.rows))
        made += [_event("M", process, rank, name="thread_name", args={"name": f"rank {rank}"}) for rank in ranks]
        for number_, event in enumerate(line.events.itertuples()):
            at, until = 1e6 * event.t, 1e6 * event.until
            if event.kind in (COMPUTED, STOPPED):
                name = "compute" if event.kind == COMPUTED else "stopped"
                made.append(_event("X", process, event.rank, name=name, ts=at, dur=max(0.0, until - at), cat="compute"))
                continue
            what = {"name": event.tag or "message", "cat": "message", "args": {"bytes": int(event.bytes)}}
            lost = {"name": f"{what['name']} lost"} if event.kind == LOST else {}
            made.append(_event("X", process, event.rank, ts=at, dur=0.0, **what | lost))
            if event.kind == SENT and not math.isnan(until):
                made.append(_event("s", process, event.rank, ts=at, id=number_, **what))
                made.append(_event("f", process, event.peer, ts=until, id=number_, bp="e", **what))
                made.append(_event("X", process, event.peer, ts=until, dur=0.0, **what))
    about = {line.method.label: {"clock": line.race.clock, "sha256": line.run.digest} for line in timelines}
    return {"traceEvents": made, "displayTimeUnit": "ms", "otherData": about}


def _event(phase, process, rank, **rest):
    return {"ph": phase, "pid": process, "tid": int(rank), **rest}


def sheets(timelines):
    """What is shown of timelines: one `Sheet` a race."""
    races = list(dict.fromkeys(line.race for line in timelines))
    return [_sheet(race, [line for line in timelines if line.race is race]) for race in races]


def _sheet(race, timelines):
    rows = pd.concat([line.rows for line in timelines], ignore_index=True)
    frames = tuple(_cells(line) for line in timelines)
    return Sheet(race, f"Timeline: {race.title}", frames, tuple(_notes(race, timelines)), rows)


def _cells(line):
    rows = [row for _, row in line.rows.head(MOST_ROWS).iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["rank"] = [str(row["rank"]) for row in rows]
    for state in STATES:
        shown[f"{state} s"] = [number(row[f"{state}_seconds"]) for row in rows]
    for state in STATES:
        shown[f"{state} %"] = [number(100 * row[f"{state}_seconds"] / row.seconds, 3) for row in rows]
    shown["computations"] = [str(row.computations) for row in rows]
    if line.rows["stopped"].any():
        shown["stopped"] = [str(row.stopped) for row in rows]
    shown["sent"] = [str(row.messages_sent) for row in rows]
    if line.rows["messages_lost"].any():
        shown["lost"] = [str(row.messages_lost) for row in rows]
    return shown


def _notes(race, timelines):
    seeds = "; ".join(f"{line.method.label} seed {line.run.seed}" for line in timelines)
    yield (
        f"Of one run a method, the one whose time to the headline target is the median unless told otherwise: {seeds}. "
        f"Seconds of the {race.clock} clock. Compute: a gradient in the making, stopped ones included; communicate: "
        "none is, and a message of the rank or for it is under way; idle: the rest. What had not "
        "ended at the end of the run is no computation. One run has no interval."
    )
    cut = "; ".join(f"{line.method.label} {len(line.rows)}" for line in timelines if len(line.rows) > MOST_ROWS)
    if cut:
        yield f"Shown are the first {MOST_ROWS} ranks; the CSV has all: {cut}."
    yield from provenance(race)
