"""Push-pull: synchronous gradient tracking that pulls models along one graph and pushes gradients along another.

S. Pu, W. Shi, J. Xu, A. Nedić, "Push-Pull Gradient Methods for Distributed Optimization in Networks", IEEE TAC 2021,
arXiv 1810.06653; R. Xin, U. A. Khan, IEEE L-CSS 2018, arXiv 1803.02503

    x_i^{t+1} = Σ_j W_ij (x_j^t - γ y_j^t)
    y_i^{t+1} = Σ_j A_ij y_j^t + ∇f_i(x_i^{t+1}; ξ^{t+1}) - ∇f_i(x_i^t; ξ^t),    y_i^0 = ∇f_i(x_i^0; ξ^0)

With `root` models are pulled along the tree of shortest paths from it and gradients are pushed along the tree to it;
without, both go along the experiment's graph. W is uniform by rows, A by columns. The synchronous ancestor of R-FAST.

Messages per step: one MODEL (d numbers) on every edge that is pulled along, one TRACKER (d numbers) on every edge
that is pushed along. A step waits for all sources.

The step size is not scaled by the topology: on trees it acts n times as strongly as on a ring.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive, Rank
from mpibench.topology import roots
from mpibench.weights import uniform_column, uniform_row


class Tag(IntEnum):
    MODEL = 0  # pull: x_i^t - γ y_i^t
    TRACKER = 1  # push: A_ji y_i^t


@dataclass(frozen=True)
class PushPull(Decentralized):
    stepsize: Positive  # γ, per step
    root: Rank | None = None

    def check(self, workers, graph=None):
        if self.root is not None and self.root >= workers:
            raise ValueError(f"root = {self.root} is none of the ranks 0 to {workers - 1}")
        if graph is not None and len(roots(graph)) < graph.size:
            raise ValueError("needs a strongly connected graph, on which every rank can reach every other")

    async def peer(self, node, x, f, watch):
        pull, push = self.graphs(node.network())
        models, trackers = node.join(pull), node.join(push)
        W, A = uniform_row(pull).into(node.rank), uniform_column(push).out_of(node.rank)
        t, y, g = 0, 0, 0
        while watch(t, x):
            g_new = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            y = A[node.rank] * y
            for j in trackers.sources if t else ():
                y = y + (await trackers.recv(Tag.TRACKER, source=j)).body[0]
            y, g = y + g_new - g, g_new
            stepped = x - self.stepsize * y
            for j in models.destinations:
                models.send(j, Tag.MODEL, stepped)
            for j in trackers.destinations:
                trackers.send(j, Tag.TRACKER, A[j] * y)
            x = W[node.rank] * stepped
            for j in models.sources:
                x = x + W[j] * (await models.recv(Tag.MODEL, source=j)).body[0]
                watch.mixed(j, age=0)
            t += 1
        return x

    def graphs(self, network):
        """The graph along which models are pulled, and the one along which gradients are pushed."""
        if self.root is None:
            return network.graph, network.graph
        return network.tree_from(self.root), network.tree_to(self.root)
