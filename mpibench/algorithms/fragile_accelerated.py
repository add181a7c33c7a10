"""Accelerated Fragile SGD: Fragile SGD for convex functions, with an accelerated step at the pivot.

A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous Optimization",
NeurIPS 2024, arXiv 2405.16218, the accelerated variant: with α = 2/(k + 2) and γ_{k+1} = γ (k + 1)

    y = (1 - α) x + α u,   u <- u - γ_{k+1} g(y),   x <- (1 - α) x + α u

where g(y) is the mean of S gradients at y, collected as in `fragile`, whose processes these are.

Messages: POINT (k and d numbers, y in place of x) on every edge of the tree from the pivot, SUM (k, how many gradients,
of how many workers that had sent none at y^k, and d numbers) on the tree to it. Homogeneous data.
"""

from dataclasses import dataclass

from mpibench.algorithms.fragile import Fragile, Tag

__all__ = ["FragileAccelerated", "Tag"]


@dataclass(frozen=True)
class FragileAccelerated(Fragile):
    async def process_0(self, node, down, x, watch):
        k, u = watch.kept("k", 0), watch.kept("u", x)
        while watch(k, x, u=u):
            α = 2 / (k + 2)
            y = (1 - α) * x + α * u
            g = await self.collect(node, down, watch, k, y)
            u = u - self.stepsize * (k + 1) * g
            x = (1 - α) * x + α * u
            k += 1
        return x
