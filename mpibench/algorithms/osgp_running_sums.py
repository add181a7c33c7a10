"""Overlap SGP with running sums: what is sent is the total of all that was ever pushed, so that no loss is for good.

The loop of `osgp` (M. Assran, N. Loizou, N. Ballas, M. Rabbat, "Stochastic Gradient Push for Distributed Deep
Learning", ICML 2019, arXiv 1811.10792) with the messages of robust push-sum. At every τ-th step rank i adds equal
shares of its numerator x_i and weight w_i to the totals of the edges along which it pushes, and sends these. Who gets
them adds what they exceed the last ones by, so the mass of lost messages comes with the next one. Mass is float64: as
totals grow with every push, what float32 rounds away would soon be seen in the models.

A rank waits only where a message would be more than τ of its own steps late, for `patience_seconds` at most; at 0 it
never does, as in robust push-sum. An experiment with loss must set these, as a lost message looks like a late one.

`peers` = "one_peer": the k-th push of rank i is half of all, to rank i + 2^(k mod L), L = floor(log2(n - 1)) + 1,
modulo n; "graph": equal parts for itself and all ranks to which the experiment's graph has an edge.

Messages: one TOTAL (k, w and d numbers in float64) to each of these at every τ-th step; a newer one replaces an older.
Homogeneous or heterogeneous data; where ranks hardly wait, faster ones weigh more, and γ / w_i may get large.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Count, Decentralized, NonNegative, Positive
from mpibench.topology import roots
from mpibench.weights import one_peer_hop


class Tag(IntEnum):
    TOTAL = 0  # to a peer: k, sum of P_ji x_i and of P_ji w_i over all pushes until now


class Mass:
    """The mass that a rank holds; of each edge the totals sent or heard, two sums, and the step of the last heard."""

    def __init__(self, node, watch, x):
        self.node, self.watch = node, watch
        self.x = x.double() if hasattr(x, "double") else x.astype(float)
        self.w, self.k, self.newest, self.sent, self.heard = 1.0, 0, {}, {}, {}

    def push(self, to):
        share = 1 / (1 + len(to))
        self.x, self.w = share * self.x, share * self.w
        for j in to:
            v, u = self.sent.get(j, (0, 0))
            self.sent[j] = v + self.x, u + self.w
            self.node.send(j, Tag.TOTAL, self.k, *self.sent[j])

    def add(self, j, body):
        k, *totals = body  # never older than the last: messages between two ranks keep their order
        v, u = self.heard.get(j, (0, 0))
        self.x, self.w = self.x + (totals[0] - v), self.w + (totals[1] - u)
        self.newest[j], self.heard[j] = k, totals
        self.watch.mixed(j, age=max(0, self.k - k), stamp=k)

    async def hear(self, sources, k):
        """Add what arrives until each of these ranks has been heard of with its step k, or with a later one."""
        while any(self.newest.get(j, -1) < k for j in sources):
            self.add(*await self.node.recv(Tag.TOTAL))
        return True

    async def wait(self, sources, k, seconds):
        """Hear these ranks, but for so long at most, if there is an end to it."""
        hearing = self.node.start(self.hear(sources, k))
        clock = None if hearing.done or seconds is None else self.node.start(self.give_up(hearing, seconds))
        if await hearing and clock is not None:
            clock.cancel()

    async def give_up(self, hearing, seconds):
        await self.node.sleep(seconds)
        hearing.cancel()  # who waits for it gets None


@dataclass(frozen=True)
class OSGPRunningSums(Decentralized):
    stepsize: Positive  # γ, per step
    overlap: Count = 1  # τ, in steps
    patience_seconds: NonNegative | None = None  # None: no end
    peers: Literal["one_peer", "graph"] = "one_peer"

    tolerates_loss = True
    newest_only = frozenset({Tag.TOTAL})

    def __post_init__(self):  # without an end to patience a lost message would stop all ranks
        object.__setattr__(self, "tolerates_loss", self.patience_seconds is not None)

    def check(self, workers, graph=None):
        if graph is not None and self.peers == "graph" and len(roots(graph)) < graph.size:
            raise ValueError("needs a strongly connected graph, on which every rank can reach every other")
        hops = [one_peer_hop(workers, k) for k in range((workers - 1).bit_length())]
        pairs = {(i, (i + hop) % workers) for i in range(workers) for hop in hops}
        if graph is not None and self.peers == "one_peer" and (missing := sorted(pairs - graph.edges.keys())):
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
            for j, body in node.drain(Tag.TOTAL):
                mass.add(j, body)
            if not late and push:
                await mass.wait(self.neighbours(node, push - 1)[1], mass.k - τ, self.patience_seconds)
            z = z * 1  # of the model's precision, and so it remains
            z[:] = mass.x / mass.w
            mass.k += 1
        return z

    def neighbours(self, node, k):
        """The ranks that this one pushes to, and those it hears from, at the k-th push."""
        if self.peers == "graph":
            graph = node.network().graph
            return graph.destinations(node.rank), graph.sources(node.rank)
        hop = one_peer_hop(node.size, k)
        return ([(node.rank + hop) % node.size], [(node.rank - hop) % node.size]) if hop else ([], [])
