"""Overlap SGP: stochastic gradient push whose messages travel while gradients are computed, up to τ steps late.

M. Assran, N. Loizou, N. Ballas, M. Rabbat, "Stochastic Gradient Push for Distributed Deep Learning", ICML 2019, arXiv
1811.10792. Rank i holds a numerator x_i and a weight w_i = 1; its model is z_i = x_i / w_i. A step subtracts γ times
the gradient at z_i from x_i. At every τ-th step equal shares of x_i and w_i are pushed, and have left. What has
arrived is added, whatever its step. With τ = 1 what was pushed at step k is added at k + 1, a gradient later. A rank
waits only where a message would be more than τ of its own steps late: at step k for those of step k - τ.

It fails where messages get lost, and visibly: their mass is gone for good. As the weights shrink, γ acts on z_i as
γ / w_i, so that the models first get worse and then diverge; `osgp_running_sums` does not. A lost message cannot be
told from a late one before a newer one comes from the same rank, so a rank gives it up after `patience_seconds`. An
experiment with loss must set these; without them a rank waits for as long as it takes.

`peers` = "one_peer": the k-th push of rank i is half of all, to rank i + 2^(k mod L), L = floor(log2(n - 1)) + 1,
modulo n; "graph": equal parts for itself and all ranks to which the experiment's graph has an edge.

Messages: one PUSH (k, w and d numbers) to each of these at every τ-th step.

Differs from the paper, whose counter makes a rank wait at every (τ + 1)-th step only, so that a message may be 2 τ
steps late. Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Count, Decentralized, NonNegative, Positive
from mpibench.topology import roots
from mpibench.weights import one_peer_hop


class Tag(IntEnum):
    PUSH = 0  # to a peer: k, P_ji x_i, P_ji w_i


class Mass:
    """The part of all mass that a rank holds, and the step of the newest message from each other rank."""

    def __init__(self, node, watch, x):
        self.node, self.watch = node, watch
        self.x, self.w, self.k, self.newest = x, 1.0, 0, {}

    def push(self, to):
        share = 1 / (1 + len(to))
        self.x, self.w = share * self.x, share * self.w
        for j in to:
            self.node.send(j, Tag.PUSH, self.k, self.x, self.w)

    def add(self, j, body):
        k, v, u = body
        self.x, self.w = self.x + v, self.w + u
        self.newest[j] = k
        self.watch.mixed(j, age=max(0, self.k - k), stamp=k)

    async def hear(self, sources, k):
        """Add what arrives until each of these ranks has been heard of with its step k, or with a later one."""
        while any(self.newest.get(j, -1) < k for j in sources):
            self.add(*await self.node.recv(Tag.PUSH))
        return True

    async def wait(self, sources, k, seconds):
        """Hear these ranks, but for so long at most, if there is an end to it."""
        hearing = self.node.start(self.hear(sources, k))
        clock = None if hearing.done or seconds is None else self.node.start(self.give_up(hearing, seconds))
        if await hearing and clock is not None:
            clock.cancel()

    async def give_up(self, hearing, seconds):
        await self.node.sleep(seconds)
        hearing.cancel()  # who waits for it goes on with None


@dataclass(frozen=True)
class OSGP(Decentralized):
    stepsize: Positive  # γ, per step
    overlap: Count = 1  # τ, in steps
    patience_seconds: NonNegative | None = None  # None: no end
    peers: Literal["one_peer", "graph"] = "one_peer"

    tolerates_loss = True  # not that it converges: that an experiment can show how it fails

    def __post_init__(self):  # without an end to patience a lost message would stop all ranks
        object.__setattr__(self, "tolerates_loss", self.patience_seconds is not None)

    def check(self, workers, graph=None):
        if graph is None:
            return
        if self.peers == "graph" and len(roots(graph)) < graph.size:
            raise ValueError("needs a strongly connected graph, on which every rank can reach every other")
        hops = [one_peer_hop(workers, k) for k in range((workers - 1).bit_length())]
        pairs = {(i, (i + hop) % workers) for i in range(workers) for hop in hops}
        if self.peers == "one_peer" and (missing := sorted(pairs - graph.edges.keys())):
            i, j = missing[0]
            raise ValueError(f'pushes along {i} -> {j}, which the graph lacks; peers = "graph" keeps to its edges')

    async def peer(self, node, x, f, watch):
        z, τ, mass = x, self.overlap, Mass(node, watch, x)
        while watch(mass.k, z):
            g = await node.compute(f.gradient, z, f.sample())
            watch.used(node.rank, delay=0)
            mass.x = mass.x - self.stepsize * g
            push, late = divmod(mass.k, τ)
            if not late:
                mass.push(self.neighbours(node, push)[0])
            for j, body in node.drain(Tag.PUSH):
                mass.add(j, body)
            if not late and push:
                await mass.wait(self.neighbours(node, push - 1)[1], mass.k - τ, self.patience_seconds)
            z = mass.x / mass.w
            mass.k += 1
        return z

    def neighbours(self, node, k):
        """The ranks that this one pushes to, and those it hears from, at the k-th push."""
        if self.peers == "graph":
            graph = node.network().graph
            return graph.destinations(node.rank), graph.sources(node.rank)
        hop = one_peer_hop(node.size, k)
        return ([(node.rank + hop) % node.size], [(node.rank - hop) % node.size]) if hop else ([], [])
