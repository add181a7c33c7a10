"""Minibatch SGD on a network, its gradients added up on a spanning tree as far as they have come when a link is free.

The baseline of A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous
Optimization", NeurIPS 2024, arXiv 2405.16218, equations (4) to (6), as the authors' code has it: a rank begins when
the point reaches it, computes one gradient, and partial sums travel to the pivot by the processes of `fragile`; what
waits for a link is added up. A step has one gradient of every rank.

Messages per step: n - 1 POINT (k and d numbers) down the tree; up at least n - 1 SUM (k, how many gradients, of how
many workers, and d numbers), and more where a sum does not wait for what comes behind it.

Gradients are added as they come. Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from typing import Literal

from mpibench.algorithm import Positive, Rank, Rooted
from mpibench.algorithms.fragile import Fragile, Process, Tag

__all__ = ["Tag", "TreeMinibatchEager"]


class OneGradient(Process):
    """Process i of a method in which every rank computes one gradient a step."""

    def work(self, k, x):
        self.node.start(self.compute(k, x))  # ends before the step does

    async def compute(self, k, x):
        self.add(None, (k, 1, 1, await self.node.compute(self.f.gradient, x, self.f.sample())))


@dataclass(frozen=True)
class TreeMinibatchEager(Rooted):
    stepsize: Positive  # γ, per step
    pivot: Rank | Literal["centre"] = "centre"

    newest_only = Fragile.newest_only

    process = OneGradient

    async def process_0(self, node, down, x, watch):
        return await Fragile(self.stepsize, node.size).process_0(node, down, x, watch)
