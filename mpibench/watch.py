"""`while watch(k, x):` is observer, stopwatch and stopping rule in one.

A watch takes references to points, never evaluates them on the run's clock, and says when to stop: after so many
updates or gradients, or (where it is given `evaluate`) when a snapshot has reached a value of a metric. The limit in
seconds is the engine's.
"""

import math
from array import array
from collections import deque
from dataclasses import dataclass, field

from mpibench.node import SECOND

HISTORY = 64  # calls that a rank of an emulation can take back
MOST_HEARD = 1 << 17  # from one rank
OPEN_BIN = 1 << 16  # staleness from here on is counted in one bin


@dataclass
class Snapshot:
    """A point of the run: seconds on its clock, iteration, model updates, gradients used and discarded so far."""

    seconds: float
    iteration: int
    updates: int
    settled: tuple[int, int]
    point: object
    position: int = 0  # entries of the rank's journal until here
    counters: tuple = ()  # gradients, messages, bytes over all ranks, where they can be read at once
    metrics: dict = field(default_factory=dict)


class Heard:
    """When something was taken in, and in which iteration it was made; of very many every 2nd, 4th, ..."""

    def __init__(self):
        self.instants, self.stamps, self.every, self.count = array("q"), array("q"), 1, 0

    def note(self, now, stamp):
        """One more."""
        self.count += 1
        if self.count % self.every == 0:
            self.instants.append(now)
            self.stamps.append(stamp)
            if len(self.instants) > MOST_HEARD:
                del self.instants[::2], self.stamps[::2]
                self.every *= 2

    def until(self, limit, rank):
        """Those that count, up to the last event (time, rank) of the run."""
        counted = Heard()
        count = sum((now, rank) <= limit for now in self.instants)
        counted.instants, counted.stamps = self.instants[:count], self.stamps[:count]
        return counted


def seconds_of_ages(everybodys):
    """(source, rank) -> (mean, largest) of the ages in seconds of what rank took in from source, since the iteration in
    which it was made began; from each rank's (since, heard)."""
    found = {}
    for rank, (_, heard) in enumerate(everybodys):
        for (source, whose), each in heard.items():
            began = everybodys[whose][0]
            made = (began[min(max(stamp, 0), len(began) - 1)] for stamp in each.stamps)
            ages = [max(0, now - then) / SECOND for now, then in zip(each.instants, made, strict=True)]
            if ages:
                found[source, rank] = sum(ages) / len(ages), max(ages)
    return found


class Watch:
    """What one rank shows of its run.

    stop      `updates`, `gradients` (numbers or None) and `metrics` (name to value), as in `mpibench.experiment.Stop`
    snapshot  `seconds` or `updates` between snapshots; None: none but the last
    evaluate  point -> metrics, called at each snapshot (simulation: off its clock); None: later, by the runner
    counters  () -> (gradients, messages, bytes) over all ranks now; None: later, from journals
    better    metric -> "lower" or "higher"
    """

    def __init__(self, node, stop, snapshot, better, record_updates=False, evaluate=None, counters=None, show=None):
        self.node, self.engine = node, node.engine
        self.stop, self.better = stop, better
        self.most_updates = stop.updates or math.inf
        self.most_gradients = stop.gradients or math.inf
        self.period = round(snapshot.seconds * SECOND) if snapshot and snapshot.seconds else None  # ns
        self.every = snapshot.updates if snapshot else math.inf  # updates
        self.evaluate, self.counters, self.show = evaluate, counters, show
        self.next_time, self.next_update = 0, 0 if snapshot else math.inf
        self.iteration, self.point, self.updates = 0, None, -1
        self.snapshots = []
        self.reached = False
        self.since = array("q")  # since[k]: when iteration k began, in ns
        self.source, self.staleness = -1, 0  # of the update that comes next
        self.used_by, self.discarded_by = {}, {}
        self.used_total = self.discarded_total = 0
        self.settled = [0]  # gradients used or discarded; in simulation the list is that of all ranks
        self.histogram = [0]
        self.recorded = {"time": array("d"), "source": array("q"), "staleness": array("q"),
                         "staleness_seconds": array("d"), "gradients": array("q"),
                         "workers": array("q")} if record_updates else None  # fmt: skip
        self.batch, self.sources, self.unnamed = 0, set(), 0  # of the update that comes next
        self.ages = {}  # rank -> [how often, sum, largest] of the ages of what came from there
        self.fallbacks = 0  # exchanges that a lattice could not hold
        self.heard = {}  # (rank, whose iterations are counted) -> Heard
        emulated = self.engine.clock == "emulated"  # then the end of the run is heard of late, and taken back
        self.log = array("q") if emulated else None  # what was said of gradients, with instants
        self.declared, self.restored, self.offset = {}, {}, 0
        self.shown = deque(maxlen=HISTORY if emulated else 1)  # (instant, state) of the last calls

    def used(self, i, delay, count=1, workers=None):
        """A gradient of rank i (or the sum of `count` of them), computed `delay` updates ago, is used.

        `workers`: where the sum is of ranks that rank i does not name, how many of them are new in this update.
        """
        self.source = i
        if delay > self.staleness:
            self.staleness = delay
        if self.recorded is not None:
            self.batch += count
            if workers is None:
                self.sources.add(i)
            else:
                self.unnamed += workers
        self.used_by[i] = self.used_by.get(i, 0) + count
        self.used_total += count
        self.settled[0] += count
        self.histogram[delay if delay < len(self.histogram) else self.bin_of(delay)] += count
        if self.log is not None:
            self.log.extend((self.engine.time, i, delay, count, 1))

    def reused(self, delay):
        """The update that comes uses a gradient again that was computed `delay` updates ago."""
        if delay > self.staleness:
            self.staleness = delay

    def mixed(self, j, age, stamp=None):
        """Something from rank j has entered this rank's state; it was made `age` iterations ago, by the stamps: in
        iteration `stamp` of rank j, or without that in one of this rank."""
        self.source = j
        row = self.ages.setdefault(j, [0, 0, 0])
        row[0], row[1], row[2] = row[0] + 1, row[1] + age, max(row[2], age)
        key = (j, self.node.rank if stamp is None else j)
        heard = self.heard.get(key)
        if heard is None:
            heard = self.heard[key] = Heard()
        heard.note(self.engine.time, self.iteration - age if stamp is None else stamp)
        if self.log is not None:
            self.log.extend((self.engine.time, j, age, 1, 2))

    def fell_back(self, i):
        """Rank i is too far away for the lattice: it is asked once more, in full precision."""
        self.fallbacks += 1
        if self.log is not None:
            self.log.extend((self.engine.time, i, 0, 1, 3))

    def discarded(self, i, delay, count=1):
        """A gradient of rank i that was computed `delay` updates ago is not used."""
        self.discarded_by[i] = self.discarded_by.get(i, 0) + count
        self.discarded_total += count
        self.settled[0] += count
        self.histogram[delay if delay < len(self.histogram) else self.bin_of(delay)] += count
        if self.log is not None:
            self.log.extend((self.engine.time, i, delay, count, 0))

    def bin_of(self, delay):
        """The place of a long delay in the histogram, which has every gradient, used or not."""
        delay = min(delay, OPEN_BIN)
        self.histogram.extend([0] * (delay + 1 - len(self.histogram)))
        return delay

    def tallies(self, limit):
        """What became of the gradients that this rank has spoken of, up to the last event (time, rank) of the run: used
        and discarded by rank, the histogram, the ages of what came from others, what gives them in seconds, and how
        often it fell back. A rank of an emulation hears of the end when it has gone beyond it."""
        if self.log is None or not self.log or (self.log[-5], self.node.rank) <= limit:
            return self.used_by, self.discarded_by, self.histogram, self.ages, (self.since, self.heard), self.fallbacks
        counted = Watch(self.node, self.stop, None, self.better)
        counted.log = None
        for at in range(0, len(self.log), 5):
            now, i, delay, count, kind = self.log[at : at + 5]
            if (now, self.node.rank) <= limit:
                if kind == 2:
                    counted.mixed(i, delay)
                elif kind == 3:
                    counted.fell_back(i)
                else:
                    (counted.discarded, counted.used)[kind](i, delay, count)
        heard = {key: each.until(limit, self.node.rank) for key, each in self.heard.items()}
        return *counted.tallies(limit)[:4], (self.since, heard), counted.fallbacks

    def forgotten(self, limit):
        """Whether this rank of an emulation has gone so far beyond the end that it cannot take it all back."""
        full = self.log is not None and len(self.shown) == self.shown.maxlen
        return full and (self.shown[0][0], self.node.rank) > limit

    def begin(self, x):
        """The run begins with this point, whenever it is shown."""

    def kept(self, name, default):
        """What the method had declared under this name, or k, when a run that goes on was interrupted; or this."""
        if name == "k":
            self.offset = 0
        return self.restored.get(name, default)

    def go_on(self, iteration, declared, updates, settled):
        """The run goes on from here: its limits count what was before. `kept` gives what was declared."""
        self.offset, self.restored = iteration, declared | {"k": iteration}
        self.most_updates -= updates
        self.settled[0] += settled

    def __call__(self, k, x, **declared):
        """Iteration k is at point x. True: go on. `declared`: what else a run that goes on needs, for `kept`."""
        now = self.engine.time
        self.declared = declared
        if x is not self.point:
            self.updated(now, x)
        if k >= len(self.since):
            self.since.extend([now] * (k + 1 - len(self.since)))
        self.iteration = k
        if self.log is not None:
            self.shown.append((now, (k, self.updates, self.used_total, self.discarded_total, x)))
        due = now >= self.next_time if self.every is None else self.updates >= self.next_update
        if due:
            self.take(now)
            if self.every is None:
                self.next_time = now - now % self.period + self.period
            else:
                self.next_update = self.updates - self.updates % self.every + self.every
        if not (self.reached or self.updates >= self.most_updates or self.settled[0] >= self.most_gradients):
            return True
        if not due:
            self.take(now)
        return False

    def updated(self, now, x):
        """The point has changed."""
        self.node.freeze((x,))
        self.point = x
        self.updates += 1
        if self.recorded is not None and self.updates:
            began = self.since[max(0, self.iteration - self.staleness)]
            row = (now / SECOND, self.source, self.staleness, (now - began) / SECOND, self.batch)
            for column, value in zip(self.recorded.values(), (*row, len(self.sources) + self.unnamed), strict=True):
                column.append(value)
            self.batch, self.sources, self.unnamed = 0, set(), 0
        self.staleness = 0

    def take(self, now):
        """Keep this point."""
        settled = (self.used_total, self.discarded_total)
        snapshot = Snapshot(now / SECOND, self.iteration, self.updates, settled, self.point)
        if self.node.journal is not None:
            snapshot.position = len(self.node.journal)
        if self.counters is not None:
            snapshot.counters = self.counters()
        if self.evaluate is not None:
            snapshot.metrics, snapshot.point = self.evaluate(self.point), None
            self.reached = any(self.past(snapshot.metrics[name], name) for name in self.stop.metrics)
            if self.show is not None:
                self.show(snapshot)
        self.snapshots.append(snapshot)

    def past(self, value, name):
        """Whether a metric is where it stops the run, or will never come there."""
        limit = self.stop.metrics[name]
        return not math.isfinite(value) or (value <= limit if self.better[name] == "lower" else value >= limit)

    def close(self, limit):
        """Time, or another rank, ends the run with the event (time, rank) `limit`: keep the point as it was then."""
        if self.point is None:
            return
        counted = [state for now, state in self.shown if (now, self.node.rank) <= limit]
        if self.log is not None and counted:
            self.iteration, self.updates, self.used_total, self.discarded_total, self.point = counted[-1]
        self.snapshots = [s for s in self.snapshots if (round(s.seconds * SECOND), self.node.rank) <= limit]
        self.take(limit[0])
