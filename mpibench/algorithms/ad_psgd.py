"""AD-PSGD: after a gradient a rank takes the mean of its model and a random neighbour's, while it computes the next.

X. Lian, W. Zhang, C. Zhang, J. Liu, "Asynchronous Decentralized Parallel Stochastic Gradient Descent", ICML 2018,
arXiv 1710.06952. Rank i asks neighbour j, and with what each has told the other

    x_i <- x_i + (x_j - x_i) / 2,   x_j <- x_j + (x_i - x_j) / 2

Nobody waits: j answers at once, whatever it is doing, and i subtracts gradients meanwhile. As both add differences,
what has happened in between is kept, and the sum of models changes by gradients only. So every rank may ask and be
asked; `ad_psgd_bipartite` is the published form, in which a rank does one or the other.

Messages per gradient: one REQUEST (d numbers) to a neighbour drawn uniformly, and one ANSWER (d numbers) from it; none
if the last REQUEST of this rank has not been answered. All must arrive.

An update of a rank's model is a gradient or an averaging, begun or answered; so the delay of a gradient is the number
of averagings since it began. The age of what is mixed in is the number of own updates since the own model that was sent
for it: 0 where a rank answers. On one rank it is SGD.

Fast ranks make more gradients, so with heterogeneous data the limit is that of the sum of f_i / seconds_i, up to γ.

Differs from the paper, where both models become their mean, and from the code of Stochastic Gradient Push (arXiv
1811.10792), which averages all the time: here it is once per gradient, at most.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, Positive


class Tag(IntEnum):
    REQUEST = 0  # to a neighbour: x_i
    ANSWER = 1  # back: x_j, before what was asked is mixed in


class Model:
    """x of a rank after t updates, which may come from any of its coroutines; `over` ends with the last one."""

    def __init__(self, node, x, watch):
        self.t, self.x, self.watch = 0, x, watch
        self.over = node.start(forever(node))

    def add(self, v):
        """One more update; whether to go on."""
        self.x = self.x + v
        self.t += 1
        going = self.watch(self.t, self.x)
        if not going:
            self.over.cancel()
        return going


async def forever(node):
    await node.recv(None)  # never comes


@dataclass(frozen=True)
class ADPSGD(Decentralized):
    stepsize: Positive  # γ, per gradient

    homogeneous = True

    def check(self, workers, graph=None):
        if graph is not None and not graph.undirected:
            i, j = next((i, j) for i, j in graph.edges if (j, i) not in graph.edges)
            raise ValueError(f"pairs take the mean of both, but edge {i} -> {j} has no way back; add {j} -> {i}")

    def asked_by(self, rank, neighbours):
        """Those of its neighbours that this rank asks."""
        return neighbours

    async def peer(self, node, x, f, watch):
        if not watch(0, x):
            return x
        model, edges = Model(node, x, watch), node.join(node.network().graph)
        node.start(self.answers(edges, model))
        node.start(self.gradients(node, edges, model, f))
        await model.over
        return model.x

    async def gradients(self, node, edges, model, f):
        partners, averaging = self.asked_by(node.rank, edges.destinations), None
        while True:
            t = model.t
            g = await node.compute(f.gradient, model.x, f.sample())
            model.watch.used(node.rank, model.t - t)
            if not model.add(-self.stepsize * g):
                return
            if partners and (averaging is None or averaging.done):
                j = partners[int(node.rng.integers(len(partners)))]
                averaging = node.start(self.average(edges, model, j))

    async def average(self, edges, model, j):
        """Rank i's side."""
        t, sent = model.t, model.x
        edges.send(j, Tag.REQUEST, sent)
        _, (x_j,) = await edges.recv(Tag.ANSWER, source=j)
        model.watch.mixed(j, model.t - t)
        model.add((x_j - sent) / 2)

    async def answers(self, edges, model):
        """Rank j's side."""
        while True:
            i, (x_i,) = await edges.recv(Tag.REQUEST)
            sent = model.x
            edges.send(i, Tag.ANSWER, sent)
            model.watch.mixed(i, 0)
            model.add((x_i - sent) / 2)
