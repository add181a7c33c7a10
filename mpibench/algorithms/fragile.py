"""Fragile SGD: on a network, points go down one spanning tree and sums of gradients up another, as far as links allow.

A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous Optimization",
NeurIPS 2024, arXiv 2405.16218, algorithms 1 to 4. A pivot collects S gradients at x^k, from whoever is near and fast
enough; who is not contributes nothing, by design. Both trees have the shortest paths, from the pivot and to it. While
the link to the next rank is busy, what arrives is added up: the wait for the link is what aggregates. Empty sums are
never sent. Sums of an older point are dropped wherever they meet a newer one. A newer point stops what is computed.

Messages: POINT (k and d numbers) on every edge of the tree from the pivot, SUM (k, how many gradients, of how many
workers that had sent none at x^k, and d numbers) on the tree to it.

`pivot` is a rank, "centre", the nearest to its farthest, as in the authors' code, or "least_time", with the least t*
(theorem 5) for S gradients. It knows how many workers contribute to a step, not which. Homogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Literal

from mpibench.algorithm import Count, Positive, Rank, Rooted


class Tag(IntEnum):
    POINT = 0  # from the pivot: k, x^k
    SUM = 1  # to the pivot: k, number of gradients, number of workers of whom they are the first, their sum at x^k


class Process:
    """Process i, on every rank; what it holds is for the newest iteration that it has seen."""

    def __init__(self, node, down, up, f, watch):
        self.node, self.down, self.up, self.f, self.watch = node, down, up, f, watch
        self.k, self.s, self.workers, self.g = -1, 0, 0, 0
        self.job, self.link_is_free = None, True
        self.to, self.channel = (up.destinations[0], up) if up.destinations else (node.rank, node)
        node.start(self.points())
        node.start(self.sums())

    async def points(self):
        """Activity 1: a point arrives; it goes on to all children, and here its gradients are computed."""
        while True:
            _, (k, x) = await self.down.recv(Tag.POINT)
            for child in self.down.children:
                self.down.send(child, Tag.POINT, k, x)
            if self.job is not None:
                self.job.cancel()
            self.see(k)
            if k == self.k:  # else a newer sum was here before it
                self.job = self.node.start(self.work(k, x))

    async def work(self, k, x):
        first = 1
        while True:
            self.add(k, 1, first, await self.node.compute(self.f.gradient, x, self.f.sample()))
            first = 0

    async def sums(self):
        """Activity 2: a sum arrives from a child."""
        while True:
            self.add(*(await self.up.recv(Tag.SUM)).body)

    def see(self, k):
        """Iteration k is there: what belongs to an older one is dropped."""
        if k > self.k:
            self.watch.discarded(self.node.rank, k - self.k, self.s)
            self.k, self.s, self.workers, self.g = k, 0, 0, 0

    def add(self, k, s, workers, g):
        self.see(k)
        if k < self.k:
            self.watch.discarded(self.node.rank, self.k - k, s)
        else:
            self.s, self.workers, self.g = self.s + s, self.workers + workers, self.g + g
            if self.link_is_free:
                self.node.start(self.link())

    async def link(self):
        """Activity 3: whenever the link to the next rank is free, all there is leaves."""
        self.link_is_free = False
        while self.s:
            sent = self.channel.send(self.to, Tag.SUM, self.k, self.s, self.workers, self.g)
            self.s, self.workers, self.g = 0, 0, 0
            await sent
        self.link_is_free = True


@dataclass(frozen=True)
class Fragile(Rooted):
    stepsize: Positive  # γ, per step
    batch: Count  # S, gradients that a step waits for
    pivot: Rank | Literal["centre", "least_time"] = "centre"  # j*

    stop_stale: ClassVar[bool] = True
    homogeneous = True
    newest_only = frozenset({Tag.POINT})
    process = Process

    def observer(self, place):
        return place.network().pivot(self.batch) if self.pivot == "least_time" else super().observer(place)

    async def process_0(self, node, down, x, watch):
        k = 0
        while watch(k, x):
            x = x - self.stepsize * await self.collect(node, down, watch, k, x)
            k += 1
        return x

    async def collect(self, node, down, watch, k, x):
        """The mean of S gradients at x^k, or of more: the last sum may hold several."""
        down.send(node.rank, Tag.POINT, k, x)
        g = s = 0
        while s < self.batch:
            _, (computed_at, count, workers, v) = await node.recv(Tag.SUM)
            if computed_at == k:
                watch.used(node.rank, 0, count, workers)
                g, s = g + v, s + count
            else:
                watch.discarded(node.rank, k - computed_at, count)
        return g / s
