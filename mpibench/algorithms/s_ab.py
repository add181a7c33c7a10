"""S-AB: synchronous gradient tracking on a directed graph, with a row-stochastic and a column-stochastic matrix.

R. Xin, A. K. Sahu, U. A. Khan, S. Kar, "Distributed Stochastic Optimization with Gradient Tracking over
Strongly-Connected Networks", CDC 2019, arXiv 1903.07266

    x_i^{t+1} = Σ_j W_ij x_j^t - γ y_i^t
    y_i^{t+1} = Σ_j A_ij y_j^t + ∇f_i(x_i^{t+1}; ξ^{t+1}) - ∇f_i(x_i^t; ξ^t),    y_i^0 = ∇f_i(x_i^0; ξ^0)

W is uniform by rows and A uniform by columns of the experiment's graph. What asynchrony costs R-FAST is measured
against it. The sum of the y_i is that of the last gradients, always.

Messages per step: one PAIR (2 d numbers) on every directed edge: x_i^t and A_ji y_i^t. A step waits for all sources.

Heterogeneous data: without noise the limit is exact. The step size is not scaled by the topology: it is that of the
mean objective where all ranks have equally many edges, and acts more or less strongly elsewhere (see `r_fast`).
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive
from mpibench.topology import roots
from mpibench.weights import uniform_column, uniform_row


class Tag(IntEnum):
    PAIR = 0  # along the edges: x_i^t, A_ji y_i^t


@dataclass(frozen=True)
class SAB(Decentralized):
    stepsize: Positive  # γ, per step

    def check(self, workers, graph=None):
        if graph is not None and len(roots(graph)) < graph.size:
            raise ValueError("needs a strongly connected graph, on which every rank can reach every other")

    async def peer(self, node, x, f, watch):
        graph = node.network().graph
        edges, W = node.join(graph), uniform_row(graph).into(node.rank)
        A = uniform_column(graph).out_of(node.rank)
        t, y, g, tracked = 0, 0, 0, 0
        while watch(t, x):
            g_new = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            y, g = tracked + g_new - g, g_new
            for j in edges.destinations:
                edges.send(j, Tag.PAIR, x, A[j] * y)
            mixed, tracked = W[node.rank] * x, A[node.rank] * y
            for j in edges.sources:
                _, (x_j, y_j) = await edges.recv(Tag.PAIR, source=j)
                mixed, tracked = mixed + W[j] * x_j, tracked + y_j
                watch.mixed(j, age=0)
            x = mixed - self.stepsize * y
            t += 1
        return x
