"""m-synchronous SGD: every step waits for the first m gradients at its point, and for nobody else.

G. Begunov, A. Tyurin, "Do We Need Asynchronous SGD? On the Near-Optimality of Synchronous Methods", arXiv 2602.03802.
With m tuned its time complexity is that of the optimal methods up to a logarithm at most (for fixed speeds a harmonic
number of at most n, by our derivation), so it belongs beside them in every comparison. With m = n it is Minibatch SGD.

Each worker computes one gradient a step. `stop_stale = false`: who is late finishes, its gradient is discarded, and it
gets the point of the step that runs then. `stop_stale = true`: the next point stops who is late.

Messages per step: MODEL (k and d numbers) down, to those that have reported, or with stops to all n; one GRADIENT (k'
and d numbers) up for every computation that ends.

Gradients are added in the order of ranks, whoever arrives first. Homogeneous data: with m < n slow workers are left
out.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Count, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k', ∇f(x^k'; ξ)


@dataclass(frozen=True)
class MSyncSGD(Centralized):
    stepsize: Positive  # γ, per step
    quorum: Count  # m, gradients that a step waits for
    stop_stale: bool = False

    newest_only = frozenset({Tag.MODEL})

    def is_biased(self, workers):
        return self.quorum < workers

    def check(self, workers, graph=None):
        if self.quorum > workers:
            raise ValueError(f"quorum = {self.quorum} is more than there are workers; at most {workers}")

    async def server(self, node, x, watch):
        k = 0
        free = node.workers
        while watch(k, x):
            for i in free:
                node.send(i, Tag.MODEL, k, x)
            g = {}
            while len(g) < self.quorum:
                i, (computed_at, g_i) = await node.recv(Tag.GRADIENT)
                if computed_at == k:
                    watch.used(i, delay=0)
                    g[i] = g_i
                else:
                    watch.discarded(i, k - computed_at)
                    if not self.stop_stale:
                        node.send(i, Tag.MODEL, k, x)
            x = x - self.stepsize * (sum(g[i] for i in sorted(g)) / self.quorum)
            k += 1
            free = node.workers if self.stop_stale else sorted(g)
        return x

    async def worker(self, node, f):
        _, (k, x) = await node.recv(Tag.MODEL)
        while True:
            job = node.start(self.work(node, f, k, x))
            _, (k, x) = await node.recv(Tag.MODEL)
            job.cancel()

    async def work(self, node, f, k, x):
        g = await node.compute(f.gradient, x, f.sample())
        node.send(0, Tag.GRADIENT, k, g)
