"""D-PSGD, adapt then combine: every rank makes its step and averages what has become of its model with its neighbours'.

The form of X. Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?", NeurIPS 2017, arXiv
1705.09056, in which the models are exchanged after the step (ATC)

    x_i^{t+1} = Σ_j W_ij (x_j^t - γ ∇f_j(x_j^t; ξ))

Communication is not hidden behind the gradient; in return the bias under heterogeneous data is smaller than that of
`d_psgd`. On the complete graph it is Minibatch SGD. W has Metropolis weights on the experiment's graph.

Messages per step: one MODEL (d numbers) on every directed edge of the graph. A step waits for the neighbours' models.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive
from mpibench.weights import metropolis


class Tag(IntEnum):
    MODEL = 0  # to the neighbours: x_i^t - γ ∇f_i(x_i^t; ξ)


@dataclass(frozen=True)
class DPSGDATC(Decentralized):
    stepsize: Positive  # γ, per step

    def check(self, workers, graph=None):
        if graph is not None:
            metropolis(graph)

    async def peer(self, node, x, f, watch):
        graph = node.network().graph
        neighbours, W = node.join(graph), metropolis(graph).into(node.rank)
        t = 0
        while watch(t, x):
            y = x - self.stepsize * await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            for j in neighbours.destinations:
                neighbours.send(j, Tag.MODEL, y)
            x = W[node.rank] * y
            for j in neighbours.sources:
                x = x + W[j] * (await neighbours.recv(Tag.MODEL, source=j)).body[0]
                watch.mixed(j, age=0)
            t += 1
        return x
