"""SGDone: the fastest worker alone, which sends nothing: the baseline for links that are too slow for any method.

A. Tyurin, M. Pozzi, I. Ilin, P. Richtárik, "Shadowheart SGD", NeurIPS 2024, arXiv 2402.04785. The speeds must be known;
of equally fast workers it is the one with the lowest number. The server and all others do nothing, and the points of
the fastest worker are the trace.

Messages: none. Homogeneous data: it sees its own part alone.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from mpibench.algorithm import Centralized, Positive


class Tag(IntEnum):
    """There are no messages."""


@dataclass(frozen=True)
class SGDOne(Centralized):
    stepsize: Positive  # γ, per gradient

    homogeneous = True
    final_model: ClassVar[str] = "the fastest worker's"

    def observer(self, place):
        return min(range(1, place.size), key=lambda i: place.speed(i).mean_seconds)

    def program(self, node, x, f, watch):
        return self.alone(node, x, f, watch) if node.rank == self.observer(node) else self.idle(node)

    async def alone(self, node, x, f, watch):
        k = 0
        while watch(k, x):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            x = x - self.stepsize * g
            k += 1
        return x

    async def idle(self, node):
        await node.recv(None)  # never comes: the fastest ends the run
