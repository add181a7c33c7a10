"""Malenia SGD: a step collects gradients at its point until every worker has one and their counts B_i are good enough.

A. Tyurin, P. Richtárik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed
Computation Model", NeurIPS 2023, arXiv 2305.12387. Each worker's gradients are averaged first, then the workers, so the
estimate is unbiased for heterogeneous data; its variance is at most σ²/S, because a step ends when the harmonic mean of
the B_i is S/n or more.

`stop_stale = false`: a worker that is late finishes, its gradient is discarded, and it gets the point of the step that
runs then. `stop_stale = true`: the next point goes to all workers and stops what they compute.

Messages per gradient: one GRADIENT (k' and d numbers) up. It is answered by CONTINUE (nothing) where its worker holds
the newest point already and by MODEL (k and d numbers) where not; with stops only by a MODEL for each worker at every
step. At the start n MODEL.

With stops a worker goes on by itself at its point. Where a gradient takes longer to send than to compute, stale ones
then fill the way up, and every step takes longer than the last.

The test is n² (1 + 1e-12) >= S Σ 1/B_i, so that rounding does not decide at equality, which ends the step. Every S <=
n is the rule of `malenia_parameter_free`.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import fsum

from mpibench.algorithm import Centralized, Count, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    CONTINUE = 1  # server to worker: nothing; compute again at the point you hold
    GRADIENT = 2  # worker to server: k', ∇f_i(x^k'; ξ)


@dataclass(frozen=True)
class Malenia(Centralized):
    stepsize: Positive  # γ, per step
    batch: Count  # S, n times the harmonic mean of the B_i that a step waits for
    stop_stale: bool = False

    newest_only = frozenset({Tag.MODEL})

    def is_enough(self, B, inverses):
        """Whether these counts end a step; the running sum of their inverses has gathered a little rounding."""
        square = len(B) ** 2
        if square * (1 + 1e-9) < self.batch * inverses:
            return False
        return square * (1 + 1e-12) >= self.batch * fsum(1 / b for b in B.values())

    async def server(self, node, x, watch):
        n = len(node.workers)
        k = 0
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            G, B = {}, {}  # by worker: sum of its gradients at x^k, and their number
            inverses = 0.0  # Σ 1/B_i over the workers that have one
            while True:
                i, (computed_at, v) = await node.recv(Tag.GRADIENT)
                if computed_at < k:
                    watch.discarded(i, k - computed_at)
                    if not self.stop_stale:
                        node.send(i, Tag.MODEL, k, x)
                    continue
                watch.used(i, delay=0)
                G[i], B[i] = G.get(i, 0) + v, B.get(i, 0) + 1
                inverses += 1 / B[i] - (1 / (B[i] - 1) if B[i] > 1 else 0)
                if len(B) == n and self.is_enough(B, inverses):
                    break
                if not self.stop_stale:
                    node.send(i, Tag.CONTINUE)
            x = x - self.stepsize * (sum(G[j] / B[j] for j in node.workers) / n)
            k += 1
            for j in node.workers if self.stop_stale else [i]:
                node.send(j, Tag.MODEL, k, x)
        return x

    async def worker(self, node, f):
        _, (k, x) = await node.recv(Tag.MODEL)
        while True:
            job = node.start(self.work(node, f, k, x))
            _, (k, x) = await node.recv(Tag.MODEL)
            job.cancel()

    async def work(self, node, f, k, x):
        while True:
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, g)
            if not self.stop_stale:
                await node.recv(Tag.CONTINUE)
