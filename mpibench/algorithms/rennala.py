"""Rennala SGD: a step collects S gradients at its point, from whoever is fast, and no stale ones.

A. Tyurin, P. Richtárik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a Fixed
Computation Model", NeurIPS 2023, arXiv 2305.12387. `stop_stale = false`: a worker that is late finishes, its gradient
is discarded, and it gets the point of the step that runs then. `stop_stale = true`: the next point goes to all
workers and stops what they compute.

S = 1 is Ringmaster ASGD with R = 1. Homogeneous data: with heterogeneous data fast workers are over-represented, and
the method does not converge.

Messages per gradient: one GRADIENT (k' and d numbers) up. It is answered by CONTINUE (nothing) where its worker holds
the newest point already and by MODEL (k and d numbers) where not; with stops only by a MODEL for each worker at every
step. At the start n MODEL.

With stops a worker goes on by itself at its point. Where a gradient takes longer to send than to compute, stale ones
then fill the way up, and every step takes longer than the last.

The step ends at S, not beyond.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Count, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    CONTINUE = 1  # server to worker: nothing; compute again at the point you hold
    GRADIENT = 2  # worker to server: k', ∇f(x^k'; ξ)


@dataclass(frozen=True)
class Rennala(Centralized):
    stepsize: Positive  # γ, per step
    batch: Count  # S, gradients a step
    stop_stale: bool = False

    homogeneous = True
    newest_only = frozenset({Tag.MODEL})

    async def server(self, node, x, watch):
        k = 0
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            g, b = 0, 0
            while True:
                i, (computed_at, v) = await node.recv(Tag.GRADIENT)
                if computed_at < k:
                    watch.discarded(i, k - computed_at)
                    if not self.stop_stale:
                        node.send(i, Tag.MODEL, k, x)
                    continue
                watch.used(i, delay=0)
                g, b = g + v, b + 1
                if b == self.batch:
                    break
                if not self.stop_stale:
                    node.send(i, Tag.CONTINUE)
            x = x - self.stepsize * (g / self.batch)
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
