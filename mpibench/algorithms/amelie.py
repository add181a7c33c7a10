"""Amelie SGD: Malenia SGD on a network; counters travel up a spanning tree all the time, vectors once a step.

A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous Optimization",
NeurIPS 2024, arXiv 2405.16218, algorithms 5 to 7. Rank i computes s_i gradients at x^k. A counter, Σ 1/s_j over its
subtree and infinite while one of these has none, goes up whenever it has changed and the link is free. When the
harmonic mean of all s_i is S/n or more, as far as the pivot knows, a wave of FREEZE goes down; it ends the
computations, so every rank knows which s_i to divide by. Then the means g_i/s_i are added up the tree, and the next
point goes down.

What the pivot knows is old, so its counter is too large rather than too small: the step ends late rather than early.

Messages: POINT (k and d numbers) on every edge of the tree from the pivot, COUNTER (k and one number) on the tree to
it, FREEZE (k) on every edge from the pivot, SUM (k, how many gradients and d numbers) on every edge to it.
Heterogeneous data.

Differs from the paper, whose listing says "run all reduce": FREEZE is what tells the ranks to. Sums are added in the
order of ranks, the rank's own mean first. The test is n² (1 + 1e-12) >= S Σ 1/s_i, so that rounding does not decide.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import inf
from typing import ClassVar, Literal

from mpibench.algorithm import Count, Positive, Rank, Rooted


class Tag(IntEnum):
    POINT = 0  # from the pivot: k, x^k
    COUNTER = 1  # to the pivot: k, Σ 1/s_j over a subtree
    FREEZE = 2  # from the pivot: k; the step ends
    SUM = 3  # to the pivot: k, Σ s_j and Σ g_j/s_j over a subtree


class Process:
    """Process i, on every rank; what it holds is for iteration k."""

    def __init__(self, node, down, up, f, watch):
        self.node, self.down, self.up, self.f = node, down, up, f
        self.to, self.channel = (up.destinations[0], up) if up.destinations else (node.rank, node)
        self.k, self.frozen, self.link_is_free = -1, True, True
        self.below = dict.fromkeys(up.sources, (-1, inf))  # counters of the children, and their iterations
        down.on(Tag.POINT, self.point), up.on(Tag.COUNTER, self.hear)
        node.start(self.freezes())

    def point(self, _, body):
        self.k, x = body
        for child in self.down.children:
            self.down.send(child, Tag.POINT, self.k, x)
        self.g, self.s, self.told = 0, 0, inf
        self.frozen = False
        self.job = self.node.start(self.work(x))

    async def work(self, x):
        while True:
            self.g = self.g + await self.node.compute(self.f.gradient, x, self.f.sample())
            self.s += 1
            self.count()

    def hear(self, child, counter):
        self.below[child] = counter  # maybe of a point that is still under way to this rank
        self.count()

    def count(self):
        if self.link_is_free:
            self.node.start(self.link())

    def counter(self):
        """Σ 1/s_j over the subtree, infinite where a counter is of another iteration."""
        return 1 / self.s + sum(b if k == self.k else inf for k, b in self.below.values())

    async def link(self):
        """Whenever the link to the next rank is free, the counter leaves, if it is another than the last."""
        self.link_is_free = False
        while not self.frozen and self.s and (b := self.counter()) != self.told:
            self.told = b
            await self.channel.send(self.to, Tag.COUNTER, self.k, b)
        self.link_is_free = True

    async def freezes(self):
        while True:
            _, (k,) = await self.down.recv(Tag.FREEZE)
            self.job.cancel()
            self.frozen = True
            for child in self.down.children:
                self.down.send(child, Tag.FREEZE, k)
            total, s = self.g / self.s, self.s
            for child in self.up.sources:
                _, (_, count, g) = await self.up.recv(Tag.SUM, source=child)
                total, s = total + g, s + count
            self.channel.send(self.to, Tag.SUM, k, s, total)


@dataclass(frozen=True)
class Amelie(Rooted):
    stepsize: Positive  # γ, per step
    batch: Count  # S, n times the harmonic mean of the s_i that a step waits for
    pivot: Rank | Literal["centre"] = "centre"  # j*

    stop_stale: ClassVar[bool] = True

    process = Process

    async def process_0(self, node, down, x, watch):
        n, k = node.size, 0
        while watch(k, x):
            down.send(node.rank, Tag.POINT, k, x)
            computed_at, b = k, inf
            while computed_at < k or n * n * (1 + 1e-12) < self.batch * b:
                _, (computed_at, b) = await node.recv(Tag.COUNTER)
            down.send(node.rank, Tag.FREEZE, k)
            _, (_, s, g) = await node.recv(Tag.SUM)
            watch.used(node.rank, 0, s, workers=n)
            x = x - self.stepsize * (g / n)
            k += 1
        return x
