"""Iallreduce SGD: data-parallel SGD with the all-reduce of the library that connects the ranks. Clock: native.

The highly tuned synchronous baseline, beside `ring_all_reduce`, whose ring is the same everywhere: which algorithm adds
up the gradients here is the library's choice, and the sum's order too. One nonblocking all-reduce of the whole gradient
a step; nothing else is computed meanwhile.

Messages: none that could be counted here; the library's own, about 2 (n - 1)/n of a vector from each rank and step.

Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive


class Tag(IntEnum):
    """There are no messages."""


@dataclass(frozen=True)
class IallreduceSGD(Decentralized):
    stepsize: Positive  # γ, per step

    clocks = frozenset({"native"})

    async def peer(self, node, x, f, watch):
        t = 0
        while watch(t, x):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            x = x - self.stepsize * (await node.all_reduce(g) / node.size)
            t += 1
        return x
