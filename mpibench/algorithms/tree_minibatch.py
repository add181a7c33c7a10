"""Minibatch SGD on a network with an ideal reduction: every rank sends one sum, when all of its subtree is in it.

The baseline of A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous
Optimization", NeurIPS 2024, arXiv 2405.16218, equations (4) to (6). A step has one gradient of every rank. Points go
down the tree of shortest paths from the pivot, sums up that to it; `tree_minibatch_eager` is the form of the authors'
code.

Messages per step: n - 1 POINT (k and d numbers) down, n - 1 SUM (k and d numbers) up.

Sums are added in the order of ranks, the rank's own gradient first. Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Positive, Rank, Rooted


class Tag(IntEnum):
    POINT = 0  # from the pivot: k, x^k
    SUM = 1  # to the pivot: k, sum of the gradients of a subtree at x^k


@dataclass(frozen=True)
class TreeMinibatch(Rooted):
    stepsize: Positive  # γ, per step
    pivot: Rank | Literal["centre"] = "centre"

    def process(self, node, down, up, f, watch):
        node.start(self.points(node, down, up, f))

    async def points(self, node, down, up, f):
        to, channel = (up.destinations[0], up) if up.destinations else (node.rank, node)
        while True:
            _, (k, x) = await down.recv(Tag.POINT)
            for child in down.children:
                down.send(child, Tag.POINT, k, x)
            g = await node.compute(f.gradient, x, f.sample())
            for child in up.sources:
                g = g + (await up.recv(Tag.SUM, source=child)).body[1]
            channel.send(to, Tag.SUM, k, g)

    async def process_0(self, node, down, x, watch):
        k = 0
        while watch(k, x):
            down.send(node.rank, Tag.POINT, k, x)
            _, (_, g) = await node.recv(Tag.SUM)
            watch.used(node.rank, 0, node.size, workers=node.size)
            x = x - self.stepsize * (g / node.size)
            k += 1
        return x
