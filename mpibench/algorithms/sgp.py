"""Stochastic gradient push: every rank pushes shares of its mass along directed edges; what it trains is their ratio.

M. Assran, N. Loizou, N. Ballas, M. Rabbat, "Stochastic Gradient Push for Distributed Deep Learning", ICML 2019, arXiv
1811.10792. Rank i holds a numerator x_i and a weight w_i = 1; its model is z_i = x_i / w_i

    x_i <- x_i - γ ∇f_i(z_i; ξ),   x_i <- Σ_j P_ij x_j,   w_i <- Σ_j P_ij w_j,   z_i = x_i / w_i

The columns of P sum to 1, so that no mass is made or lost, whatever the rows sum to. A step waits for what the other
ranks push in the same step.

`peers` = "one_peer": at step k all goes half to oneself, half to rank i + 2^(k mod L), L = floor(log2(n - 1)) + 1,
modulo n; "graph": in equal parts to oneself and to all ranks to which the experiment's graph has an edge.

Messages per step: one PUSH (k, w and d numbers) to each of these, a vector and its weight always together. Shares are
added in the order of ranks, the rank's own first.

Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Decentralized, Positive
from mpibench.topology import roots
from mpibench.weights import one_peer_hop


class Tag(IntEnum):
    PUSH = 0  # to a peer: k, P_ji x_i, P_ji w_i


@dataclass(frozen=True)
class SGP(Decentralized):
    stepsize: Positive  # γ, per step
    peers: Literal["one_peer", "graph"] = "one_peer"

    def check(self, workers, graph=None):
        if graph is None:
            return
        if self.peers == "graph" and len(roots(graph)) < graph.size:
            raise ValueError("needs a strongly connected graph, on which every rank can reach every other")
        hops = [one_peer_hop(workers, k) for k in range((workers - 1).bit_length())]
        pairs = {(i, (i + hop) % workers) for i in range(workers) for hop in hops}
        if self.peers == "one_peer" and (missing := sorted(pairs - graph.edges.keys())):
            i, j = missing[0]
            raise ValueError(f'pushes along {i} -> {j}, which the graph lacks; peers = "graph" keeps to its edges')

    async def peer(self, node, x, f, watch):
        z, w, k = x, 1.0, 0
        while watch(k, z):
            g = await node.compute(f.gradient, z, f.sample())
            watch.used(node.rank, delay=0)
            to, sources = self.neighbours(node, k)
            share = 1 / (1 + len(to))
            x, w = share * (x - self.stepsize * g), share * w
            for j in to:
                node.send(j, Tag.PUSH, k, x, w)
            for j in sources:  # its messages come in order: a faster rank's next one waits for the next step
                _, (s, v, u) = await node.recv(Tag.PUSH, source=j)
                watch.mixed(j, age=k - s, stamp=s)
                x, w = x + v, w + u
            z = x / w
            k += 1
        return z

    def neighbours(self, node, k):
        """The ranks that this one pushes to, and those it hears from, at the k-th push."""
        if self.peers == "graph":
            graph = node.network().graph
            return graph.destinations(node.rank), graph.sources(node.rank)
        hop = one_peer_hop(node.size, k)
        return ([(node.rank + hop) % node.size], [(node.rank - hop) % node.size]) if hop else ([], [])
