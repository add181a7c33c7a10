"""Runs that are interrupted before a time limit and go on later: their restart points, and two parts as one run.

SIGUSR1 ends a run over MPI at the next event of a rank, on all ranks as any end does. What each rank has last shown to
its watch is the restart point: its model, its counter, and what the method declares there (momentum, tables). On the
native clock it is kept in the part of the result file, in /restart; elsewhere a run is deterministic, and made anew. A
run that goes on starts from each rank's model. What a method does not declare begins anew, as do messages under way and
what only workers know; workers draw the samples that come next. The file says how often that was, and when.
"""

import re
from dataclasses import dataclass, replace

import h5py
import numpy

from mpibench import ledger
from mpibench.errors import InvalidInput

ADDED = ("updates", "gradients", "discarded", "messages", "bytes", "bits")  # columns of a trace that go on counting


class Signal:
    """Whether SIGUSR1 has come, and the engine that it shall end."""

    heeded = False  # by a run over MPI
    asked = False
    engine = None

    @classmethod
    def come(cls):
        """End what runs at its next safe point, and begin nothing more."""
        cls.asked = True
        if cls.engine is not None:
            cls.engine.interrupted = True


@dataclass
class Point:
    """What one rank has last shown: iteration and model (None where it shows nothing), and what was declared."""

    iteration: int
    x: object
    declared: dict


@dataclass
class Restart:
    """Where an interrupted run goes on."""

    seconds: float  # of the run so far
    times: list  # seconds of the run at all its interruptions
    points: list  # a Point for each rank
    begun: list  # computations that each rank has begun so far
    settled: int  # gradients used or discarded so far
    before: object  # the Result so far

    @property
    def updates(self):
        """Of the observer's model so far."""
        return int(self.before.trace["updates"][-1])


def write(file, result, points):
    """Put the restart point into a RunFile that has the groups of `result`."""
    ranks, times = result.ranks, [*result.interrupted, result.attrs["seconds"]]
    begun = numpy.ceil(ranks["gradients"] + ranks["stopped"]).astype(int)
    settled = int((ranks["used"] + ranks["discarded"]).sum())
    file.put("restart", {"begun": begun, "times": times}, {"seconds": times[-1], "settled": settled})
    for rank, point in enumerate(points):
        put(file, f"restart/{rank}", {"x": point.x, "declared": point.declared})
        file.put(f"restart/{rank}", attrs={"iteration": point.iteration})


def put(file, group, values):
    """A dict of numbers, vectors and dicts, lists or tuples of such; keys are texts or ranks."""
    file.put(group, attrs={"kind": type(values).__name__})
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        name = f"{type(key).__name__}:{key}"
        if isinstance(value, (dict, list, tuple)):
            put(file, f"{group}/{name}", value)
        elif value is not None:
            tensor = hasattr(value, "untyped_storage")
            array = value.detach().cpu() if tensor else value
            if tensor and "bfloat16" in str(value.dtype):
                raise InvalidInput("models of bfloat16 cannot be kept in a file; run this on float32")
            file.put_exactly(group, name, numpy.asarray(array), str(value.device) if tensor else "")


def get(node):
    """What `put` has written."""
    if isinstance(node, h5py.Dataset):
        value = node[()]
        if where := node.attrs["device"]:
            import torch

            return torch.as_tensor(value, device=where)
        return value if node.shape else value.item()
    keys = {name: {"str": str, "int": int}[name.partition(":")[0]](name.partition(":")[2]) for name in node}
    found = {key: get(node[name]) for name, key in keys.items()}
    kind = node.attrs["kind"]
    return found if kind == "dict" else {"list": list, "tuple": tuple}[kind](found[k] for k in sorted(found))


def read(path, empty):
    """The Restart of a part, or None where it holds none; `empty`: the Result to fill with what it has."""
    with h5py.File(path) as file:
        if "restart" not in file:
            return None
        node = file["restart"]
        points = []
        for rank in sorted((name for name in node if re.fullmatch(r"\d+", name)), key=int):
            values = get(node[rank])
            points.append(Point(int(node[rank].attrs["iteration"]), values.get("x"), values.get("declared", {})))
        before = replace(
            empty,
            attrs={"seconds": float(node.attrs["seconds"])},
            trace={name: dataset[()] for name, dataset in file["trace"].items()},
            updates={name: dataset[()] for name, dataset in file["updates"].items()},
            ranks={name: dataset[()] for name, dataset in file["ranks"].items()},
            ledger={name: texts(file["bytes/kinds"][name]) for name in ledger.COLUMNS},
            received=numpy.stack([file["bytes/edges"][n][()] for n in ("source", "destination", "received")], axis=1),
            ages=ages(file, "age", empty.ages),
            ages_seconds=ages(file, "seconds", empty.ages_seconds),
            events={name: dataset[()] for name, dataset in file["events"].items()} if "events" in file else {},
        )
        times = [float(t) for t in node["times"][()]]
        return Restart(times[-1], times, points, node["begun"][()].tolist(), int(node.attrs["settled"]), before)


def ages(file, unit, empty):
    """The columns of /ages in the order of a Result, of ages in iterations (`age`) or in `seconds`."""
    names = "source", "destination", "count", f"{unit}_sum", f"{unit}_max"
    return numpy.stack([file["ages"][name][()] for name in names], axis=1) if "ages" in file else empty


def texts(dataset):
    """A column, its texts as str."""
    return dataset.asstr()[()] if dataset.dtype.kind == "O" else dataset[()]


def joined(restart, after, offset):
    """The Result of the whole run; `offset`: the iteration from which the method went on counting at 0."""
    before, seconds = restart.before, restart.seconds
    trace = {}
    for name, column in after.trace.items():
        more = column + (seconds if name == "time" else offset if name == "iteration" else 0)
        more = more + (before.trace[name][-1] if name in ADDED else 0)
        trace[name] = numpy.concatenate([before.trace[name], more])
    updates = {}
    for name, column in after.updates.items():
        old, new = before.updates.get(name, numpy.zeros(0)), numpy.asarray(column)
        if name == "staleness_histogram":
            updates[name] = numpy.bincount(numpy.r_[range(len(old)), range(len(new))], numpy.r_[old, new]).astype(int)
        else:
            updates[name] = numpy.concatenate([old, new + seconds if name == "time" else new])
    ranks = {name: column + before.ranks[name] for name, column in after.ranks.items()}
    if "peak_memory_bytes" in ranks:
        ranks["peak_memory_bytes"] = numpy.maximum(after.ranks["peak_memory_bytes"], before.ranks["peak_memory_bytes"])
    events = {}
    for name, column in after.events.items():
        more = column + (seconds if name in ("t", "until") else 0)
        events[name] = numpy.concatenate([before.events[name], more]) if before.events else more
    return replace(
        after,
        attrs=after.attrs | {"seconds": seconds + after.attrs["seconds"]},
        trace=trace,
        updates=updates,
        ranks=ranks,
        ledger=ledger.added(before.ledger, after.ledger),
        received=by_pair(numpy.vstack([before.received, after.received]), 2),
        ages=by_pair(numpy.vstack([before.ages, after.ages]), 2),
        ages_seconds=by_pair(numpy.vstack([before.ages_seconds, after.ages_seconds]), 2),
        events=events,
        interrupted=restart.times,
    )


def by_pair(rows, keys):
    """Rows of the same first `keys` columns as one: their sums, and of a fifth column the largest."""
    if not len(rows):
        return rows
    pairs, places = numpy.unique(rows[:, :keys], axis=0, return_inverse=True)
    sums = numpy.zeros((len(pairs), rows.shape[1] - keys), rows.dtype)
    numpy.add.at(sums, places.ravel(), rows[:, keys:])
    if rows.shape[1] == 5:
        sums[:, 2] = 0
        numpy.maximum.at(sums[:, 2], places.ravel(), rows[:, 4])
    return numpy.hstack([pairs, sums])
