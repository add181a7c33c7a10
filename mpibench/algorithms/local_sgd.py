"""Local SGD: every rank makes H steps of its own, then all models are averaged.

S. U. Stich, "Local SGD Converges Fast and Communicates Little", ICLR 2019, arXiv 1805.09767, algorithm 1; with many
steps and heterogeneous data it is FedAvg with all clients (H. B. McMahan et al., AISTATS 2017, arXiv 1602.05629).
Minibatch SGD with as many rounds and as many gradients belongs beside it (B. Woodworth et al., ICML 2020, arXiv
2002.07839).

`momentum` is β of a heavy ball on every rank; at an average its buffers are kept, reset or averaged too, as
`at_average` says: three methods in the literature, so a table must name it.

Messages per H steps: 2 n (n - 1) PIECE, each to the next rank of a ring, and as many of momentum where it is averaged.
Everybody waits for the slowest at an average. H = 1 without momentum is Minibatch SGD up to rounding.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Count, Decentralized, Positive, Probability
from mpibench.collectives import ring_all_reduce


class Tag(IntEnum):
    PIECE = 0  # to the next rank: a part of a sum of models, or of momentum


@dataclass(frozen=True)
class LocalSGD(Decentralized):
    stepsize: Positive  # γ, per local step
    local_steps: Count  # H
    momentum: Probability = 0.0  # β
    at_average: Literal["keep", "reset", "average"] = "keep"  # what becomes of momentum

    async def peer(self, node, x, f, watch):
        t = 0
        m = watch.kept("m", 0 * x)
        while watch(t, x, m=m):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            m = self.momentum * m + g
            x = x - self.stepsize * m
            t += 1
            if t % self.local_steps == 0:
                x = await ring_all_reduce(node, Tag.PIECE, x) / node.size
                if self.at_average == "average":
                    m = await ring_all_reduce(node, Tag.PIECE, m) / node.size
                elif self.at_average == "reset":
                    m = 0 * m
        return x
