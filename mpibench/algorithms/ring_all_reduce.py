"""Ring-AllReduce SGD: all ranks hold the same model, and add up their gradients on a ring at every step.

The synchronous baseline of decentralized methods: data-parallel SGD with the all-reduce of P. Patarasuk, X. Yuan,
"Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations", J. Parallel and Distributed Computing 69 (2009),
written in `mpibench.collectives`, so that it is the same with every library. A step lasts as long as its slowest rank.

Messages per step: 2 n (n - 1) PIECE, each to the next rank of the ring; a rank sends 2 (n - 1)/n of a vector.

Every rank has the bits of the same sum, so all models are equal. Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive
from mpibench.collectives import ring_all_reduce


class Tag(IntEnum):
    PIECE = 0  # to the next rank: a part of a sum of gradients


@dataclass(frozen=True)
class RingAllReduce(Decentralized):
    stepsize: Positive  # γ, per step

    async def peer(self, node, x, f, watch):
        t = 0
        while watch(t, x):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            x = x - self.stepsize * (await ring_all_reduce(node, Tag.PIECE, g) / node.size)
            t += 1
        return x
