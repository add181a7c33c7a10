"""Virtual time: all ranks in one process, deterministic; time jumps from event to event."""

from heapq import heappop

import numpy

from mpibench.agenda import Agenda
from mpibench.node import ENDS, LINKS, NEVER, Deadlock, Engine, Node, Task, different_graphs
from mpibench.repetition import REPEATED, DeferredRepetition, Repetition, Samples
from mpibench.shared_memory import SharedModel


class Simulation(Agenda, Engine):
    """An engine that runs a program on every rank of a cluster.

    After `run`, `nodes` hold each rank's counters and `time` the instant of the end, in nanoseconds.
    """

    clock = "virtual"
    shared = None
    front = -1  # the last rank by the order of law 8 that something has happened to at this instant

    carry = Agenda.at  # a message travels, and arrives then

    def run(self, cluster, program):
        """Run `program(node)` on every rank until the first returns, or until the cluster's last instant.

        Returns the rank that ended the run, or None if time did. Raises Deadlock at once when nothing can happen any
        more.
        """
        self.graphs = {}  # by index of the communicator, their hash
        self.samples = {}  # of the ranks that repeat gradients
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
        present, added, time = self.present, self.added, self.time
        while True:
            if present and not (added and added[0] < present[-1]):
                rank, kind, _, event = present.pop()
            elif added:
                rank, kind, _, event = heappop(added)
            elif self.instants:
                time = heappop(self.instants)
                if time > until:
                    self.time, self.front = until, len(nodes)
                    return None
                self.time, self.front = time, -1
                entry = self.events.pop(time)
                if type(entry) is list:
                    present = self.present = entry
                    present.sort(reverse=True)
                    entry = present.pop()
                rank, kind, _, event = entry
            else:
                raise Deadlock(nodes)
            if kind >= ENDS and event.cancelled:
                self.dead -= 1
                continue
            if rank > self.front:
                self.front = rank
            node = nodes[rank]
            if kind != REPEATED:
                node.fingerprint = hash((node.fingerprint, time, kind))
            if kind < LINKS:  # a message arrives; its kind is its source
                node.inboxes[event.communicator.index][event.tag].put(kind, event.body)
            else:
                event.happen()
            if programs[rank].done:
                return rank

    def travelling(self):
        """The messages that have left and not arrived."""
        entries = *(entry for _, entry in self.later()), *self.present, *self.added
        return [event for _, kind, _, event in entries if kind < LINKS]

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
