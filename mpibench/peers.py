"""Network methods in which every rank has a model: what all of them have last shown at the instants of a common grid.

The trace of such a run is of the mean over ranks: at instant g of the grid the model of a rank is the one that it last
showed to its watch at or before g, and so are its counters. `consensus` is (1/n) Σ ||x_i - mean||².
"""

from dataclasses import replace

from mpibench.node import SECOND
from mpibench.watch import Snapshot, Watch


class PeerWatch(Watch):
    """What one of many ranks shows. `keep(rank, snapshot)` takes its state at each instant of the grid, in order;
    `over()` says whether the metrics of the mean have ended the run."""

    def __init__(self, node, stop, snapshot, better, record_updates, keep, over=lambda: False):
        super().__init__(node, stop, None, better, record_updates)
        self.period, self.next_time = round(snapshot.seconds * SECOND), 0
        self.keep, self.over = keep, over

    def begin(self, x):
        """All ranks have a state at the first instant, also those that compute before they show anything."""
        self(0, x)

    def __call__(self, k, x, **declared):
        """Iteration k is at point x. True: go on."""
        now = self.engine.time
        self.declared = declared
        self.keep_until(now)
        if x is not self.point:
            self.updated(now, x)
        if k >= len(self.since):
            self.since.extend([now] * (k + 1 - len(self.since)))
        self.iteration = k
        counters = self.node.gradients, *self.node.journal.totals
        settled = self.used_total, self.discarded_total
        self.shown.append((now, Snapshot(now / SECOND, k, self.updates, settled, x, counters=counters)))
        return not (self.over() or self.updates >= self.most_updates or self.settled[0] >= self.most_gradients)

    def keep_until(self, end):
        """Keep what was shown last for all instants of the grid before `end`."""
        while self.next_time < end:
            self.keep(self.node.rank, replace(self.shown[-1][1], seconds=self.next_time / SECOND))
            self.next_time += self.period

    def last(self, limit):
        """The state at the end of the run, whose last event is that of `limit` (time, rank)."""
        self.keep_until(limit[0])
        counted = [state for now, state in self.shown if (now, self.node.rank) <= limit]
        return replace((counted or [self.shown[0][1]])[-1], seconds=limit[0] / SECOND)


def together(states, evaluate):
    """The Snapshot of the mean over ranks, from the state of each, in their order."""
    n = len(states)
    mean = sum(state.point for state in states) / n
    apart = [state.point - mean for state in states]
    metrics = evaluate(mean) | {"consensus": sum(float(e @ e) for e in apart) / n}
    counters = tuple(map(sum, zip(*(state.counters for state in states), strict=True)))
    settled = tuple(map(sum, zip(*(state.settled for state in states), strict=True)))
    return replace(states[0], point=mean, metrics=metrics, counters=counters, settled=settled)


class Collector:
    """In simulation: puts states together as soon as all ranks have shown theirs, and says when metrics end the run."""

    def __init__(self, ranks, evaluate, past, show=None):
        self.ranks, self.evaluate, self.past, self.show = ranks, evaluate, past, show
        self.pending = {}  # instant -> states
        self.snapshots = []
        self.reached = False

    def keep(self, rank, state):
        """The state of a rank at an instant."""
        states = self.pending.setdefault(state.seconds, {})
        states[rank] = state
        if len(states) == self.ranks:
            self.add(together([states[r] for r in range(self.ranks)], self.evaluate))
            del self.pending[state.seconds]

    def add(self, snapshot):
        """One more snapshot of the mean, whose point is no longer needed unless it is the last."""
        self.reached = self.reached or self.past(snapshot.metrics)
        if self.snapshots:
            self.snapshots[-1].point = None
        self.snapshots.append(snapshot)
        if self.show is not None:
            self.show(snapshot)


def collect(part, states, evaluate):
    """Under MPI: the snapshots of the mean on rank 0 of `part`, an empty list on others, from each rank's states at the
    same instants. Evaluated on all ranks in turn; only the last has its point."""
    ours = []
    for number, state in enumerate(states):
        root = number % part.size
        gathered = part.gather(state, root)
        if part.rank == root:
            snapshot = together(gathered, evaluate)
            ours.append(snapshot if number == len(states) - 1 else replace(snapshot, point=None))
    everybodys = part.gather(ours, 0) or []
    return sorted((snapshot for some in everybodys for snapshot in some), key=lambda snapshot: snapshot.seconds)
