"""Virtual time: all ranks in one process, deterministic; time jumps from event to event."""

from heapq import heappop, heappush

import numpy

from mpibench.node import LINKS, NEVER, Agenda, Deadlock, Node, Task, different_graphs
from mpibench.repetition import REPEATED, DeferredRepetition, Repetition, Samples
from mpibench.shared_memory import SharedModel


class Simulation(Agenda):
    """An engine that runs a program on every rank of a cluster.

    After `run`, `nodes` hold each rank's counters and `time` the instant of the end, in nanoseconds.
    """

    clock = "virtual"
    shared = None
    front = -1  # the last rank by the order of law 8 that something has happened to at this instant

    def run(self, cluster, program):
        """Run `program(node)` on every rank until the first returns, or until the cluster's last instant.

        Returns the rank that ended the run, or None if time did. Raises Deadlock at once when nothing can happen any
        more.
        """
        self.graphs = {}  # by index of the communicator, their hash
        self.samples = {}  # of the ranks that repeat gradients
        self.arrivals = []  # the events of messages that arrive at this very instant: a heap that stays small
        nodes = self.nodes = [Node(self, rank, cluster) for rank in range(cluster.size)]
        programs = []
        for node in nodes:
            programs.append(Task(node, program(node)))
            if programs[-1].done:
                return node.rank
        try:
            return self.loop(nodes, programs, NEVER if cluster.until is None else cluster.until)
        finally:
            self.catch_up()
            self.frozen.check_all()
            for node in nodes:
                for task in list(node.tasks):
                    task.coroutine.close()

    def loop(self, nodes, programs, until):
        """Let event after event happen."""
        events, arrivals = self.events, self.arrivals
        while True:  # `while events or arrivals` would not be specialised by Python 3.11, which makes it half as fast
            if arrivals and not (events and events[0] < arrivals[0]):
                time, rank, kind, _, event = heappop(arrivals)
                if rank > self.front:
                    self.front = rank
            elif events:
                time, rank, kind, _, event = heappop(events)
                if time > until:
                    self.time, self.front = until, len(nodes)
                    return None
                if event.cancelled:
                    self.dead -= 1
                    continue
                if time > self.time or rank > self.front:
                    self.time, self.front = time, rank
            else:
                raise Deadlock(nodes)
            node = nodes[rank]
            if kind != REPEATED:
                node.fingerprint = hash((node.fingerprint, time, kind))
            if kind < LINKS:  # a message arrives; its kind is its source
                node.inboxes[event.communicator.index][event.tag].put(kind, event.body)
            else:
                event.happen()
            if programs[rank].done:
                return rank

    def carry(self, send, arrival):
        """A message travels: it arrives at this instant."""
        self.age += 1
        events = self.events if arrival > self.time else self.arrivals
        heappush(events, (arrival, send.link.to, send.communicator.node.rank, self.age, send))

    def travelling(self):
        """The messages that have left and not arrived."""
        return [event for *_, kind, _, event in (*self.events, *self.arrivals) if kind < LINKS]

    def forget(self, event):
        """This computation or sleep will be skipped; until then it shall not keep a point alive."""
        event.function = event.args = None
        super().forget(event)

    def repeat(self, node, f, x):
        """Gradients of f at x, one after another; where all events are recorded, each of them is one."""
        if node.journal is not None and node.journal.rows is not None:
            return Repetition(node, f, x)
        if node.rank not in self.samples:
            self.samples[node.rank] = Samples(f)
        return DeferredRepetition(node, self.samples[node.rank], x)

    def catch_up(self):
        """Count the repeated gradients that have ended by now."""
        for rank in self.samples:
            if isinstance(self.nodes[rank].running, DeferredRepetition):
                self.nodes[rank].running.catch_up()

    def join(self, communicator, graph_hash):
        """A communicator of its own needs nothing here but one graph for all."""
        if self.graphs.setdefault(communicator.index, graph_hash) != graph_hash:
            raise RuntimeError(different_graphs(communicator))

    def share(self, node, x):
        """One process: one vector."""
        if self.shared is None:
            self.shared = x * 1, numpy.zeros(node.size, numpy.int64)
        return SharedModel(*self.shared, node.rank)
