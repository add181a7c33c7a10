"""Hogwild!: all ranks add their gradients to one model in shared memory, without a lock. Clocks: virtual and native.

F. Niu, B. Recht, C. Ré, S. J. Wright, "Hogwild!: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent",
NeurIPS 2011, arXiv 1106.5730, algorithm 1. A rank reads the model, computes a gradient and subtracts γ times its
non-zero components, while others read and write. The delay of a gradient is the number of additions since the model
was read.

The model lies in memory that the processes of one host share, so all ranks must run there. In virtual time reading and
adding take no time and are never torn: what is left of the method is its delay, which is that of asynchronous SGD on
links that take no time.

Messages: none.

Differs from the paper, which has atomic additions of components: additions are loads and stores, as in the authors'
code, so of two additions to a component at one moment one may be lost. Homogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive


class Tag(IntEnum):
    """There are no messages."""


@dataclass(frozen=True)
class Hogwild(Decentralized):
    stepsize: Positive  # γ, per gradient

    averaged = False
    homogeneous = True
    clocks = frozenset({"virtual", "native"})

    async def peer(self, node, x, f, watch):
        model = node.share(x)
        k, x = model.read()
        while watch(k, x):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, model.additions - k)
            model.add(-self.stepsize * g)
            k, x = model.read()
        return x
