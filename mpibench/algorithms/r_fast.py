"""R-FAST: gradient tracking without rounds, in which every message repeats all that went before, so that loss is delay.

Z. Zhu, Y. Tian, Y. Huang, J. Xu, S. He, "R-FAST: Robust Fully-Asynchronous Stochastic Gradient Tracking over General
Topology", IEEE Trans. Signal and Information Processing over Networks 2024, arXiv 2307.11617. Models are pulled along
one graph and averaged; gradient mass z is pushed along another and added up. What left on an edge is sent as its total
since the start, ρ, and the receiver remembers how much of that it has had, ρ~. So at every instant, whatever got lost,

    Σ_i z_i + Σ_edges (ρ at its source - ρ~ at its end) = Σ_i g_i,    g_i the newest gradient of rank i.

Some rank must be a root of both graphs: reach all others along the one, and be reached by all along the other. On
trees only iterations of the root move the common model, so a slow root slows the run, and a slow leaf hardly. Nobody
ever waits. Heterogeneous data.

Messages per iteration: V (t and d numbers) along every edge from this rank in the pull graph, as soon as the new v is
there; then, with the gradient, R (t and d numbers in float64) along every edge in the push graph. A newer one replaces
one that waits. The first gradient is not pushed: no R of iteration 0.

`stepsize` is that of the mean objective for one iteration of all ranks, without delays: γ = stepsize / (n u.p), with
the Perron vectors u, p of the weights; n u.p is n on trees, 1 if both are doubly stochastic. Where there are cycles,
what is on its way makes it shorter, up to 5 times on a ring: tune it for each topology. Weights are uniform, by
in-degree to pull and by out-degree to push. Mass is float64: what is rounded away would be missed for ever.

A reconstruction: the order within an iteration has not been checked against the paper.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive, Rank
from mpibench.topology import common_roots, roots
from mpibench.weights import step_factor, sum_of, uniform_column, uniform_row


class Tag(IntEnum):
    V = 0  # along the pull graph: t, v_i that leads to x_i^t
    R = 1  # along the push graph: t, ρ_ji with the mass of x_i^t


def float64(g):
    """This vector in float64."""
    return g.double() if hasattr(g, "double") else g.astype(float)


class Mass:
    """What rank i has pushed and received on the edges of the push graph."""

    def __init__(self, push):
        self.push = push
        self.pushed = dict.fromkeys(push.destinations, 0)  # ρ_ji
        self.received = dict.fromkeys(push.sources, 0)  # ρ~_ij

    def news(self, t, watch):
        """The mass that is here and has not been consumed, by edge. Of one edge, what comes later is newer."""
        for j, (stamp, total) in self.push.drain(Tag.R):
            watch.mixed(j, t - stamp, stamp)
            yield total - self.received[j]
            self.received[j] = total

    def send(self, t, share):
        """Everybody's share leaves."""
        for j in self.push.destinations:
            self.pushed[j] = self.pushed[j] + share
            self.push.send(j, Tag.R, t, self.pushed[j])


@dataclass(frozen=True)
class RFAST(Decentralized):
    stepsize: Positive  # γ_eff = γ n (u.p), per iteration of all ranks
    root: Rank | None = None  # of two trees of shortest paths; without it both graphs are the network's

    newest_only = frozenset({Tag.V, Tag.R})
    tolerates_loss = True

    def check(self, workers, graph=None):
        if self.root is None:
            if graph is not None:
                common_roots(graph, graph)
        elif self.root >= workers:
            raise ValueError(f"root = {self.root} is none of the ranks 0 to {workers - 1}")
        elif graph is not None and self.root not in roots(graph):
            raise ValueError(f"root = {self.root} does not reach every rank, so models cannot spread from it")
        elif graph is not None and self.root not in roots(graph.reversed()):
            raise ValueError(f"root = {self.root} is not reached by every rank, so mass cannot gather there")

    def graphs(self, network):
        """The pull graph and the push graph."""
        if self.root is None:
            return network.graph, network.graph
        return network.tree_from(self.root), network.tree_to(self.root)

    async def peer(self, node, x, f, watch):
        i, (pull_graph, push_graph) = node.rank, self.graphs(node.network())
        W, A = uniform_row(pull_graph), uniform_column(push_graph)
        γ = self.stepsize / step_factor(W, A)
        W, share = W.into(i), A.out_of(i)[i]  # A_ji is the same for all j, i itself among them
        pull, mass = node.join(pull_graph), Mass(node.join(push_graph))
        v = dict.fromkeys(W, x)  # the newest v_j that is here
        t, z, g = 0, 0, 0
        while watch(t, x):
            g_new = await node.compute(f.gradient, x, f.sample())
            watch.used(i, 0)
            if t == 0:
                z = float64(g_new)
            else:
                z = z - g + g_new + sum_of(mass.news(t, watch))  # in this order: one rank alone has z - g = 0
                z *= share
                mass.send(t, z)
            g = g_new
            t += 1
            v[i] = x * 1  # of the model's precision, and so it remains
            v[i] -= γ * z
            for j in pull.destinations:
                pull.send(j, Tag.V, t, v[i])
            for j, (stamp, v_j) in pull.drain(Tag.V):
                watch.mixed(j, t - stamp, stamp)
                v[j] = v_j
            x = sum_of(weight * v[j] for j, weight in W.items())
        return x
