"""IA²SGD: asynchronous SGD along the mean of a table that holds every worker's latest gradient.

Incremental aggregated asynchronous SGD, the baseline of A. Maranjyan, P. Richtárik, "Ringleader ASGD", ICLR 2026,
arXiv 2509.22860. The point stays at x^0 until every worker has delivered a gradient; workers go on there meanwhile,
and of each the latest counts. The arrival that completes the table makes no update, the next one does.

Messages per gradient: one GRADIENT (k' and d numbers) up, and one answer: CONTINUE (nothing) until the table is
complete, then MODEL (k and d numbers). At the start n MODEL. Nobody is interrupted. The server keeps n vectors.

Heterogeneous data. Rows of slow workers are old: the step size must fit the largest delay.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    CONTINUE = 1  # server to worker: nothing; compute again at the point you hold
    GRADIENT = 2  # worker to server: k', ∇f_i(x^k'; ξ)


@dataclass(frozen=True)
class IA2SGD(Centralized):
    stepsize: Positive  # γ, per update

    async def server(self, node, x, watch):
        n = len(node.workers)
        k = watch.kept("k", 0)
        T, version, M = watch.kept("table", ({}, {}, 0))  # latest gradients, the iterations of their points, their mean
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x, table=(T, version, M)):
            i, (computed_at, g) = await node.recv(Tag.GRADIENT)
            if len(T) < n:  # warm-up
                if i in T:
                    watch.discarded(i, delay=0)
                T[i], version[i] = g, 0
                if len(T) == n:
                    M = sum(T[j] for j in node.workers) / n
                    for j in node.workers:
                        watch.used(j, delay=0)
                node.send(i, Tag.CONTINUE)
                continue
            watch.used(i, k - computed_at)
            M = M + (g - T[i]) / n
            T[i], version[i] = g, computed_at
            watch.reused(k - min(version.values()))
            x = x - self.stepsize * M
            k += 1
            node.send(i, Tag.MODEL, k, x)
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
            await node.recv(Tag.CONTINUE)
