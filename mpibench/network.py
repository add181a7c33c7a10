"""Times across a graph: shortest paths, the spanning trees along them, and the rank from which to lead.

Distances are whole nanoseconds that a full model vector takes, from rank to rank, on links that carry nothing else.
"""

import heapq
import math
from functools import cached_property

import numpy

from mpibench.errors import InvalidInput
from mpibench.topology import Tree

SECOND = 10**9  # ns
EQUAL = 1 + 1e-12  # times that differ by rounding only are equal


class Network:
    """A graph with the times of its edges and ranks.

    graph: a `mpibench.topology.Graph`; edge_ns: {(source, to): whole nanoseconds that a full model vector takes over
    this edge, latency and transmission}, for every edge; seconds: (n,) mean seconds per gradient of each rank.
    """

    def __init__(self, graph, edge_ns, seconds):
        if edge_ns.keys() != graph.edges.keys():
            i, j = min(edge_ns.keys() ^ graph.edges.keys())
            raise InvalidInput(f"edge {i} -> {j} has a time or an edge, but not both; every edge takes one time")
        for (i, j), ns in edge_ns.items():
            if not isinstance(ns, int) or ns < 0:
                raise InvalidInput(f"edge {i} -> {j} takes {ns!r} ns; a whole number >= 0 would be right")
        self.graph, self.edge_ns = graph, dict(edge_ns)
        self.seconds = numpy.array(seconds, float)
        if self.seconds.shape != (graph.size,) or not (self.seconds > 0).all():
            raise InvalidInput(f"the {graph.size} ranks of a network need as many seconds per gradient, each > 0")
        self._paths = {}  # (root, outward) -> distances and parents
        self._trees = {}  # (root, outward) -> Tree

    def distance(self, i, j):
        """Nanoseconds of the shortest path from rank i to rank j."""
        self._refuse_outside(j)
        ns = self._shortest(i, outward=True)[0][j]
        if ns is None:
            raise InvalidInput(f"no path leads from rank {i} to rank {j}")
        return ns

    def tree_from(self, root):
        """The Tree of shortest paths from this rank to all others; its edges go from parent to child."""
        return self._tree(root, outward=True)

    def tree_to(self, root):
        """The Tree of shortest paths from all ranks to this one; its edges go from child to parent.

        Where the two directions of edges take different times, it is not `tree_from` turned round.
        """
        return self._tree(root, outward=False)

    def centre(self):
        """The rank whose longest way to another rank and back is shortest, in time; where no edge takes time, in edges.
        The lowest-numbered of several."""
        if any(self.edge_ns.values()):
            return int(self.round_trips.max(axis=0).argmin())
        return int(self._two_ways(unweighted=True).max(axis=0).argmin())

    def pivot(self, noise_ratio):
        """The rank whose equilibrium time is least, the lowest-numbered of several.

        noise_ratio: σ²/eps. argmin_j t*(σ²/eps, h, [τ_{i->j} + τ_{j->i}]_i) with h_i seconds per gradient and τ the
        distances (A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous
        Optimization", NeurIPS 2024, arXiv 2405.16218).
        """
        times, _ = self.equilibria(noise_ratio)
        return int((times <= times.min() * EQUAL).argmax())

    def equilibria(self, noise_ratio):
        """(equilibrium seconds with each rank as the pivot (n,), number of useful workers (n,))."""
        return equilibrium_seconds(noise_ratio, self.seconds, self.round_trips.T / SECOND)

    @cached_property
    def round_trips(self):
        """(n, n) float64: nanoseconds from rank i to rank j and back, in row i and column j; n^2 memory.

        InvalidInput where there is no way.
        """
        return self._two_ways(unweighted=False)

    @cached_property
    def distances(self):
        """(n, n) float64: nanoseconds of the shortest path from rank i to rank j, inf where there is none; n^2 memory.

        Exact as long as they are below 2^53 of the edges' greatest common divisor.
        """
        return self._all_pairs(unweighted=False)

    def _two_ways(self, unweighted):
        ways = self._all_pairs(unweighted) if unweighted else self.distances
        if not numpy.isfinite(ways).all():
            i, j = numpy.argwhere(~numpy.isfinite(ways))[0]
            raise InvalidInput(f"no path leads from rank {i} to rank {j}, so no rank can lead all others")
        return ways + ways.T

    def _all_pairs(self, unweighted):
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import shortest_path

        unit = math.gcd(*self.edge_ns.values()) or 1
        times = numpy.array([ns // unit for ns in self.edge_ns.values()], float)
        ends = numpy.array(list(self.edge_ns), int).reshape(-1, 2)
        matrix = csr_array((times, ends.T), shape=(self.graph.size, self.graph.size))  # keeps edges of no time
        return shortest_path(matrix, method="D", unweighted=unweighted) * (1 if unweighted else unit)

    def _tree(self, root, outward):
        if (root, outward) not in self._trees:  # the same for all ranks that ask
            self._trees[root, outward] = self._new_tree(root, outward)
        return self._trees[root, outward]

    def _new_tree(self, root, outward):
        _, parents = self._shortest(root, outward)
        alone = [rank for rank, parent in enumerate(parents) if parent is None and rank != root]
        if alone:
            i, j, tree = (root, alone[0], "from") if outward else (alone[0], root, "to")
            raise InvalidInput(f"no path leads from rank {i} to rank {j}, so no tree {tree} rank {root} spans all")
        return Tree.of(parents, outward, self.graph)

    def _shortest(self, root, outward):
        """(nanoseconds between the root and each rank, the next rank towards the root); None where there is no path.

        Dijkstra's algorithm. Ranks are settled by (distance, number); the parent is the lowest-numbered rank on a
        shortest path that was settled before. So among equal paths it is the lowest-numbered one, if edges take time.
        """
        self._refuse_outside(root)
        if (root, outward) in self._paths:
            return self._paths[root, outward]
        graph, size = self.graph, self.graph.size
        neighbours = graph.destinations if outward else graph.sources
        distances, parents, settled = [None] * size, [None] * size, [False] * size
        distances[root], heap = 0, [(0, root)]
        while heap:
            ns, rank = heapq.heappop(heap)
            if settled[rank]:
                continue
            settled[rank] = True
            for other in neighbours(rank):
                if settled[other]:
                    continue
                way = ns + self.edge_ns[(rank, other) if outward else (other, rank)]
                if distances[other] is None or way < distances[other]:
                    distances[other], parents[other] = way, rank
                    heapq.heappush(heap, (way, other))
                elif way == distances[other] and rank < parents[other]:
                    parents[other] = rank
        return self._paths.setdefault((root, outward), (distances, parents))

    def _refuse_outside(self, rank):
        if not (isinstance(rank, int) and 0 <= rank < self.graph.size):
            raise InvalidInput(f"rank {rank!r} is outside the graph, whose ranks are 0 to {self.graph.size - 1}")


def equilibrium_seconds(s, h, tb):
    """(t*, number of useful workers): min_k max{max(tb_k, h_k), s / Σ_{i<=k} 1/h_i}, workers sorted by max(tb_i, h_i).

    s: noise ratio σ²/eps; h: (n,) seconds per gradient; tb: (n,) seconds from each worker to the pivot and back, or
    (m, n) for m pivots, which gives two arrays (m,). The time of one step's worth of work of Fragile SGD, up to a
    constant (arXiv 2405.16218).
    """
    if not 0 <= s < math.inf:
        raise InvalidInput(f"the noise ratio {s!r} must be a finite number >= 0")
    h, tb = numpy.asarray(h, float), numpy.asarray(tb, float)
    reached = numpy.maximum(tb, h)
    order = numpy.argsort(reached, axis=-1, kind="stable")
    rates = numpy.cumsum(1 / h[order], axis=-1)
    times = numpy.maximum(numpy.take_along_axis(reached, order, axis=-1), s / rates)
    best = times.argmin(axis=-1)
    if tb.ndim == 1:
        return float(times[best]), int(best) + 1
    return numpy.take_along_axis(times, best[:, None], axis=-1)[:, 0], best + 1
