"""The modelled cluster of a cell as theory sees it: seconds per gradient, ways of messages, and counting with them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from mpibench import event_counts
from mpibench.algorithm import Rooted
from mpibench.event_counts import SECOND
from mpibench.seeds import Purpose, generator

ENOUGH_JOBS, ENOUGH_UPDATES = 20_000, 16  # counting ends with both; as many jobs more for every thousand workers


@dataclass(frozen=True)
class Machine:
    """The workers of a cell and seed, in the order 1..n, and their links to the server, or on trees to the pivot."""

    cell: Any
    seed: int
    model_bytes: int
    dimension: int = 1  # of a model vector

    @property
    def n(self):
        return self.cell.workers

    @cached_property
    def known(self):
        """(n,) mean seconds per gradient, as methods know them before the run."""
        return numpy.asarray(self.cell.compute.mean_seconds(self.n), float)

    @cached_property
    def kept(self):
        """Whether every worker draws its time once, by the seed."""
        compute = self.cell.compute
        return compute.kept and compute.between_jobs is None and compute.speed is None and compute.stall is None

    @cached_property
    def h(self):
        """(n,) seconds per gradient in this run, mean ones where they differ from job to job."""
        return numpy.array([self.job(place)(0) / SECOND for place in range(self.n)]) if self.kept else self.known

    @cached_property
    def fixed(self):
        """Whether every gradient of a worker takes the same time."""
        return self.kept or bool(numpy.all(self.h == self.cell.compute.least_seconds(self.n)))

    def way(self, up, vectors):
        """(n,) int64 ns from the server to each worker, or back, of a message with or without a vector."""
        if self.on_trees:
            return self.tree_way(up, vectors, numbers=vectors)
        if self.server is None:
            return numpy.zeros(self.n, numpy.int64)
        edges = [self.edge(i, 0) if up else self.edge(0, i) for i in range(1, self.n + 1)]
        return numpy.array([e.latency_ns + e.transmission(vectors * self.model_bytes, 8 * vectors) for e in edges])

    @property
    def server(self):
        """The server's rank, or None."""
        return 0 if self.cell.algorithm.worker_number(0) == 0 else None

    def edge(self, source, to):
        """The modelled link from one rank to another."""
        return self.cell.links.edge(source, to, self.server, self.model_bytes, self.cell.graph)

    def link_seconds(self, i, size):
        """Seconds for which a message of `size` bytes occupies the link from rank i to the server, as methods know."""
        return self.edge(i, 0).transmission(size * SECOND, 0) / SECOND**2

    @property
    def on_trees(self):
        """Whether the method has a pivot and two trees."""
        return isinstance(self.cell.algorithm, Rooted)

    def network(self):
        """The graph with its times, as methods see it."""
        return self._network

    @cached_property
    def _network(self):
        from mpibench.graphs import complete
        from mpibench.network import Network

        graph = self.cell.graph or complete(self.cell.ranks)
        size = self.model_bytes, 0
        ns = {pair: e.latency_ns + e.transmission(*size) for pair in graph.edges for e in [self.edge(*pair)]}
        return Network(graph, ns, self.known)

    @property
    def seconds_between(self):
        """(n, n) seconds of a vector from rank i to rank j, in row i and column j."""
        return self.network().distances / SECOND

    @cached_property
    def trees(self):
        """(the Tree from the pivot, the Tree to it)."""
        pivot = self.cell.algorithm.observer(self)
        return self.network().tree_from(pivot), self.network().tree_to(pivot)

    @cached_property
    def shared_edges(self):
        """The edges of both trees, on which points and sums wait for each other."""
        down, up = self.trees
        return down.edges.keys() & up.edges.keys()

    def tree_way(self, up, vectors, numbers, waits=(0, 0)):
        """(n,) int64 ns of a message of so many vectors and numbers from the pivot to each rank, or back.

        waits: how many like it each edge has to carry first, where it is of one tree and where it is of both.
        """
        tree, ns = self.trees[up], numpy.zeros(self.n, numpy.int64)
        size = vectors * self.model_bytes, 8 * numbers
        for rank in sorted(range(self.n), key=tree.depths.__getitem__):
            parent = tree.parent(rank)
            if parent is not None:
                pair = (rank, parent) if up else (parent, rank)
                edge, turns = self.edge(*pair), 1 + waits[pair in self.shared_edges]
                ns[rank] = ns[parent] + edge.latency_ns + turns * edge.transmission(*size)
        return ns

    def point_ahead(self, numbers=1):
        """(n,) int64 ns that the point takes, with so many numbers, on the edge that a rank's sums need, if it does."""
        ns = numpy.zeros(self.n, numpy.int64)
        for rank, parent in self.shared_edges:
            ns[rank] = self.edge(rank, parent).transmission(self.model_bytes, 8 * numbers)
        return ns

    @cached_property
    def up(self):
        return self.way(up=True, vectors=1)

    @cached_property
    def down(self):
        return self.way(up=False, vectors=1)

    @cached_property
    def brief(self):
        return self.way(up=False, vectors=0)

    @property
    def linked(self):
        """Whether links take time."""
        return bool(self.up.any() or self.down.any())

    @property
    def ways(self):
        """(n,) seconds of a point on its way to each worker and of a gradient on its way back."""
        return (self.up + self.down) / SECOND

    @property
    def cycles(self):
        """(n,) seconds from one report of a worker to the next, where it is answered with a point."""
        return self.h + self.ways

    @property
    def brief_cycles(self):
        """(n,) the same where it is told to go on at the point it has."""
        return self.h + (self.up + self.brief) / SECOND

    @property
    def free_cycles(self):
        """(n,) the same where it goes on by itself, as fast as its link takes the gradients."""
        edges = [self.edge(i, 0) for i in range(1, self.n + 1)]
        return numpy.maximum(self.h, [e.transmission(self.model_bytes, 8) / SECOND for e in edges])

    @property
    def crowded(self):
        """Whether workers that go on by themselves make gradients faster than a link takes them."""
        return bool((self.free_cycles > self.h).any())

    def count(self, form):
        """Seconds per update of a `mpibench.forms.Form`, counted from the workers' times."""
        places = range(self.n) if form.members is None else form.members
        jobs = [self.job(place) for place in places]
        if form.jobs is not None:
            jobs = [form.jobs(place, job) for place, job in zip(places, jobs, strict=True)]
        ways = [way[list(places)].tolist() * form.linked or None for way in (self.up, self.down, self.brief)]
        seconds = self.cell.stop.seconds
        until = round(seconds * SECOND) if seconds else event_counts.FOREVER
        workers = event_counts.Workers(jobs, *ways, until=until)
        enough = ENOUGH_JOBS * (1 + len(jobs) / 1000)
        instants = []
        for instant in form.instants(workers):
            instants.append(instant)
            if workers.begun >= enough and len(instants) >= ENOUGH_UPDATES:
                break
        return event_counts.seconds_per_update(instants)

    def job(self, place):
        """The times of a worker's gradients: ns at which one begins -> how many ns it takes."""
        durations = self.cell.compute.durations(place + 1, self.n, generator(self.seed, Purpose.COMPUTE, place + 1))
        return lambda now: durations(1.0, now)
