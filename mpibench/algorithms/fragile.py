"""Fragile SGD: on a network, points go down one spanning tree and sums of gradients up another, as far as links allow.

A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous Optimization",
NeurIPS 2024, arXiv 2405.16218, algorithms 1 to 4. A pivot collects S gradients at x^k, from whoever is near and fast
enough. The wait for a busy link is what aggregates. Sums of an older point are dropped where they meet a newer one.
Differs from the paper: no empty sum is sent; own gradients are added when the link is free, the same up to rounding.

Messages: POINT (k and d numbers) on the edges of the tree of shortest paths from the pivot, SUM (k, how many gradients,
of how many workers that had sent none at x^k, and d numbers) on those to it. Homogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Count, Positive, Rank, Rooted


class Tag(IntEnum):
    POINT = 0  # from the pivot: k, x^k
    SUM = 1  # to the pivot: k, number of gradients, number of workers of whom they are the first, their sum at x^k


class Process:
    """Process i, on every rank; what it holds is for the newest iteration that it has heard of."""

    def __init__(self, node, down, up, f, watch):
        self.node, self.down, self.up, self.f, self.watch = node, down, up, f, watch
        self.k, self.s, self.workers, self.g = -1, 0, 0, 0
        self.of, self.job, self.dropping, self.sent = -1, None, None, None
        self.to, self.channel = (up.destinations[0], up) if up.destinations else (node.rank, node)
        self.sending = node.start(self.link())
        down.on(Tag.POINT, self.point), up.on(Tag.SUM, self.add)

    def point(self, _, body):
        """Activity 1: a point arrives; it goes on to all children, and here its gradients are computed."""
        k, x = body
        for child in self.down.children:
            self.down.send(child, Tag.POINT, k, x)
        self.take()
        [each.cancel() for each in (self.dropping, self.job) if each]
        self.of, self.new, self.dropping = k, 1, None
        self.job = self.work(k, x) if k >= self.k else None  # else a sum was here before
        self.add(None, (k, 0, 0, 0))

    def work(self, k, x):
        return self.node.repeat(self.f, x)

    def take(self):
        """Own gradients that have ended are added, or dropped where a newer iteration was heard of."""
        own, v = self.job.take() if self.job else (0, 0)
        if own and self.of == self.k:
            self.g = self.g + v if self.s else v
            self.s, self.workers, self.new = self.s + own, self.workers + self.new, 0
        elif own:
            self.watch.discarded(self.node.rank, self.k - self.of, own)

    def add(self, _, body):
        """Activity 2: a sum arrives from a child; it is added, or what is of an older iteration is dropped."""
        k, s, workers, g = body
        if k > self.k:
            self.watch.discarded(self.node.rank, k - self.k, self.s)
            self.k, self.s, self.workers, self.g = k, s, workers, g
        elif s and k == self.k:
            self.g = self.g + g if self.s else g
            self.s, self.workers = self.s + s, self.workers + workers
        elif s:
            self.watch.discarded(self.node.rank, self.k - k, s)
        if not self.sent or self.sent.done:  # the link is free
            self.sending.cancel()
            self.sending = self.node.start(self.link())
        if self.of < self.k and self.job and not self.dropping:
            self.dropping = self.node.start(self.drop())

    async def drop(self):  # own gradients that nobody wants, until the point comes that a sum has overtaken
        while True:
            await self.job.ready()
            self.take()

    async def link(self):
        """Activity 3: whenever the link to the next rank is free, all there is leaves, or the next own gradient."""
        while True:
            self.take()
            if self.s:
                self.sent = self.channel.send(self.to, Tag.SUM, self.k, self.s, self.workers, self.g)
                self.s, self.workers, self.g = 0, 0, 0
                await self.sent
            elif self.job and self.of == self.k:
                await self.job.ready()
            else:
                return


@dataclass(frozen=True)
class Fragile(Rooted):
    stepsize: Positive  # γ, per step
    batch: Count  # S, gradients that a step waits for
    pivot: Rank | Literal["centre", "least_time"] = "centre"  # j*; the least t* is theorem 5's, for S gradients
    stop_stale, homogeneous, newest_only, process = True, True, frozenset({Tag.POINT}), Process

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
