"""AD-PSGD on a bipartite graph: odd ranks are active and only ask, even ranks are passive and only answer.

X. Lian, W. Zhang, C. Zhang, J. Liu, "Asynchronous Decentralized Parallel Stochastic Gradient Descent", ICML 2018,
arXiv 1710.06952: the form in which nobody waits for each other in a circle, as ranks might that neither answer nor
change their models while they wait for an answer. `ad_psgd`, whose coroutines these are, does not need it.

Every edge of the graph joins an even and an odd rank, as in the code of Stochastic Gradient Push (arXiv 1811.10792),
whose graph is `bipartite_exponential`. Without a graph, or on a complete one, those edges are used that do.

Messages per gradient of an odd rank: one REQUEST (d numbers) to an even neighbour drawn uniformly, and one ANSWER
(d numbers) from it; none if the last one has not been answered. Even ranks begin none. All must arrive.

Updates, delays and the limit with heterogeneous data are those of `ad_psgd`.

Differs from that code, where partners have a fixed rotation, on both sides, so that an active rank may wait for a
passive one that waits for another, and averagings follow each other: here a passive rank answers whoever asks, at once,
and an active one asks once per gradient, at most.
"""

from dataclasses import dataclass

from mpibench.algorithms.ad_psgd import ADPSGD, Tag

__all__ = ["ADPSGDBipartite", "Tag"]


@dataclass(frozen=True)
class ADPSGDBipartite(ADPSGD):
    def check(self, workers, graph=None):
        super().check(workers, graph)
        if graph is None or (graph.size > 3 and len(graph.edges) == graph.size * (graph.size - 1)):
            return  # complete, and no ring
        for i, j in graph.edges:
            if (i - j) % 2 == 0:
                raise ValueError(
                    f"edge {i} - {j} joins two {'odd' if i % 2 else 'even'} ranks, but even ranks only answer and odd "
                    "ones only ask; an even ring, a line or bipartite_exponential would be right"
                )

    def asked_by(self, rank, neighbours):
        return [j for j in neighbours if j % 2 == 0] if rank % 2 else []
