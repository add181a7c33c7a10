"""Picky SGD: asynchronous SGD that takes a gradient only if the point has not moved far since it was asked for.

A. Cohen, A. Daniely, Y. Drori, T. Koren, M. Schain, "Asynchronous Stochastic Optimization Robust to Arbitrary Delays",
NeurIPS 2021, arXiv 2106.11879. A gradient computed at x^k' is applied iff ||x^k - x^k'|| <= radius; otherwise it is
dropped and k stays. The paper's radius is ε/(2β) for the norm ε of the gradient that is aimed at and a smoothness β
(unverified).

radius = inf is not allowed: that is asynchronous SGD. The server keeps each worker's point.

Messages per gradient: one GRADIENT (k' and d numbers) up, one MODEL (k and d numbers) down, dropped or not. At the
start n MODEL. Nobody is interrupted. Homogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, NonNegative, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k', ∇f(x^k'; ξ)


@dataclass(frozen=True)
class PickySGD(Centralized):
    stepsize: Positive  # γ, per update
    radius: NonNegative  # the largest ||x^k - x^k'||

    homogeneous = True

    async def server(self, node, x, watch):
        k = 0
        held = {}  # the point that each worker computes at
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
            held[i] = x
        while watch(k, x):
            i, (computed_at, g) = await node.recv(Tag.GRADIENT)
            moved = x - held[i]
            if not moved @ moved > self.radius**2:  # a NaN is not too far: a run that diverges must end
                watch.used(i, k - computed_at)
                x = x - self.stepsize * g
                k += 1
            else:
                watch.discarded(i, k - computed_at)
            node.send(i, Tag.MODEL, k, x)
            held[i] = x
        return x

    async def worker(self, node, f):
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, g)
