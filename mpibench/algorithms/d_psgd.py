"""D-PSGD: every rank averages its model with its neighbours' and subtracts its gradient at the unmixed one.

X. Lian, C. Zhang, H. Zhang, C.-J. Hsieh, W. Zhang, J. Liu, "Can Decentralized Algorithms Outperform Centralized
Algorithms?", NeurIPS 2017, arXiv 1705.09056, algorithm 1: combine, then adapt (CTA)

    x_i^{t+1} = Σ_j W_ij x_j^t - γ ∇f_i(x_i^t; ξ)

The exchange of models is overlapped with the gradient. W has Metropolis weights on the experiment's graph, symmetric
and doubly stochastic. `d_psgd_atc` is the form that adapts first.

Messages per step: one MODEL (d numbers) on every directed edge of the graph. A step waits for the neighbours' models.

Homogeneous data, or a limit that is biased by γ and the heterogeneity.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive
from mpibench.weights import metropolis


class Tag(IntEnum):
    MODEL = 0  # to the neighbours: x_i^t


@dataclass(frozen=True)
class DPSGD(Decentralized):
    stepsize: Positive  # γ, per step

    def check(self, workers, graph=None):
        if graph is not None:
            metropolis(graph)

    async def peer(self, node, x, f, watch):
        graph = node.network().graph
        neighbours, W = node.join(graph), metropolis(graph).into(node.rank)
        t = 0
        while watch(t, x):
            for j in neighbours.destinations:
                neighbours.send(j, Tag.MODEL, x)
            g = await node.compute(f.gradient, x, f.sample())
            mixed = W[node.rank] * x
            for j in neighbours.sources:
                mixed = mixed + W[j] * (await neighbours.recv(Tag.MODEL, source=j)).body[0]
                watch.mixed(j, age=0)
            watch.used(node.rank, delay=0)
            x = mixed - self.stepsize * g
            t += 1
        return x
