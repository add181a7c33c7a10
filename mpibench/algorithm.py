"""What an algorithm is: a frozen dataclass of the paper's parameters, and one coroutine for each role.

`Centralized` methods have a server on rank 0 and workers 1..n on ranks 1..n; in `Decentralized` ones every rank is a
peer, and rank r is worker r + 1. A coroutine sees the world through four things only:

node    what it may do: send, recv, on, drain, compute, repeat, sleep, start, join (`mpibench.node.Node`)
x       the start, a vector: a numpy array or a torch tensor, never written, only replaced (`x = x - γ * g`)
f       this worker's objective: `ξ = f.sample()` draws a sample, `f.gradient(x, ξ)` is its stochastic gradient, to be
        handed to `node.compute`; where x consists of tensors, `f.shapes` are theirs, one after the other
watch   `while watch(k, x):` shows iteration k and its point and asks whether to go on. `watch.used(i, delay)` and
        `watch.discarded(i, delay)` say what became of a gradient of rank i that was computed `delay` updates ago,
        `watch.reused(delay)` that the next update uses one so old once more, and `watch.mixed(j, age, stamp)` that
        something from rank j, `age` iterations old by its stamp, has entered this rank's state; without a stamp the
        iteration in which it was made is one of this rank. `watch.fell_back(i)` counts what a lattice was too coarse or
        too small for. `watch(k, x, v=v)` declares
        what a run that was interrupted needs besides its point to go on, and `v = watch.kept("v", 0)` gives it then,
        or what it is at the start; so does `watch.kept("k", 0)`

The first coroutine to return ends the run on every rank, so no algorithm has shutdown code.
"""

from dataclasses import fields
from typing import ClassVar

from mpibench.parameters import Count, Finite, Limit, NonNegative, Positive, Probability, Rank, Threshold
from mpibench.topology import roots

__all__ = ["Centralized", "Count", "Decentralized", "Finite", "Limit", "NonNegative", "Positive", "Probability", "Rank",
           "Rooted", "Threshold"]  # fmt: skip


class Algorithm:
    """What engines must know of a method beside its text."""

    newest_only: ClassVar[frozenset] = frozenset()  # tags of which only the newest message to a rank matters
    tolerates_loss: ClassVar[bool] = False  # whether an experiment may lose this method's messages
    averaged: ClassVar[bool] = False  # every rank has a model, and the run's is their mean
    needs_link_times: ClassVar[bool] = False  # whether it is defined only where what workers send takes time
    clocks: ClassVar[frozenset] = frozenset({"virtual", "emulated", "native"})  # on which it can run
    homogeneous: ClassVar[bool] = False  # whether some workers weigh more, say fast ones, so that data must be alike

    def observer(self, place):
        """The rank whose points are the run's trace; `place.network()` is the graph with its times."""
        return 0

    def is_biased(self, workers):
        """Whether it does not minimise the mean of these workers' objectives where they differ."""
        return self.homogeneous

    def check(self, workers, graph=None):
        """Raise ValueError, one sentence, where these parameters make no sense for this number of workers, or on this
        graph of all ranks; None is the complete one."""

    def check_dimension(self, d, workers):
        """The same for vectors of d coordinates and this number of workers."""
        for field in fields(self):
            if hasattr(value := getattr(self, field.name), "catalogued"):  # a compressor
                try:
                    value.check(d)
                except ValueError as error:
                    raise ValueError(f"{field.name}: {error}") from error


class Centralized(Algorithm):
    """A server on rank 0 and workers on ranks 1..n; write `server(node, x, watch)` and `worker(node, f)`."""

    @staticmethod
    def ranks(workers):
        """Number of ranks that `workers` workers need."""
        return workers + 1

    @staticmethod
    def worker_number(rank):
        """The worker 1..n on this rank; 0 is the server."""
        return rank

    def program(self, node, x, f, watch):
        """The coroutine of this rank."""
        return self.server(node, x, watch) if node.rank == 0 else self.worker(node, f)


class Decentralized(Algorithm):
    """Every rank is a peer; write `peer(node, x, f, watch)`."""

    averaged = True

    @staticmethod
    def ranks(workers):
        """Number of ranks that `workers` workers need."""
        return workers

    @staticmethod
    def worker_number(rank):
        """The worker 1..n on this rank."""
        return rank + 1

    def program(self, node, x, f, watch):
        """The coroutine of this rank."""
        return self.peer(node, x, f, watch)


class Rooted(Decentralized):
    """Peers on two trees of shortest paths, from a pivot and to it; the pivot's points are the trace. The field `pivot`
    is a rank, "centre": the rank from which the farthest is nearest, or "least_time": that with the least equilibrium
    time for `batch` gradients.

    Give `process`, a function or a class that starts with (node, down, up, f, watch) what every rank does on its places
    on the two trees, which are communicators, and `process_0(node, down, x, watch)`, the coroutine that runs beside it
    on the pivot.
    """

    averaged = False

    def check(self, workers, graph=None):
        if not isinstance(self.pivot, str) and self.pivot >= workers:
            raise ValueError(f"pivot = {self.pivot} is none of the ranks 0 to {workers - 1}")
        if graph is not None and len(found := roots(graph)) < graph.size:
            rank = next(rank for rank in range(graph.size) if rank not in found)
            raise ValueError(f"needs a way from every rank to every other, but rank {rank} cannot reach all")

    def observer(self, place):
        if self.pivot == "least_time":
            return place.network().pivot(self.batch)
        return place.network().centre() if self.pivot == "centre" else self.pivot

    async def peer(self, node, x, f, watch):
        pivot = self.observer(node)
        down, up = node.join(node.network().tree_from(pivot)), node.join(node.network().tree_to(pivot))
        self.process(node, down, up, f, watch)
        if node.rank == pivot:
            return await self.process_0(node, down, x, watch)
        await node.recv(None)  # never comes: the pivot ends the run
