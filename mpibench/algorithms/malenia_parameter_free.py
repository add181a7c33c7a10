"""Malenia SGD without a batch size: a step ends when every worker has delivered one gradient at its point.

The rule under which "Malenia SGD" stands in the experiments of A. Maranjyan, P. Richtárik, "Ringleader ASGD", ICLR
2026, arXiv 2509.22860, and in the network experiment of A. Tyurin, "Bridging the gap between homogeneous and
heterogeneous asynchronous optimization", ICLR 2026. It is the published method (`malenia`, arXiv 2305.12387) with any
S <= n: fast workers go on while the slowest finishes its first gradient, and each worker's gradients are averaged
before the workers.

`stop_stale = false`: a worker that is late finishes, its gradient is discarded, and it gets the point of the step that
runs then. `stop_stale = true`: the next point goes to all workers and stops what they compute.

Messages per gradient: one GRADIENT (k' and d numbers) up. It is answered by CONTINUE (nothing) where its worker holds
the newest point already and by MODEL (k and d numbers) where not; with stops only by a MODEL for each worker at every
step. At the start n MODEL.

With stops a worker goes on by itself at its point. Where a gradient takes longer to send than to compute, stale ones
then fill the way up, and every step takes longer than the last.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    CONTINUE = 1  # server to worker: nothing; compute again at the point you hold
    GRADIENT = 2  # worker to server: k', ∇f_i(x^k'; ξ)


@dataclass(frozen=True)
class MaleniaParameterFree(Centralized):
    stepsize: Positive  # γ, per step
    stop_stale: bool = False

    newest_only = frozenset({Tag.MODEL})

    async def server(self, node, x, watch):
        n = len(node.workers)
        k = 0
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            G, B = {}, {}  # by worker: sum of its gradients at x^k, and their number
            while True:
                i, (computed_at, v) = await node.recv(Tag.GRADIENT)
                if computed_at < k:
                    watch.discarded(i, k - computed_at)
                    if not self.stop_stale:
                        node.send(i, Tag.MODEL, k, x)
                    continue
                watch.used(i, delay=0)
                G[i], B[i] = G.get(i, 0) + v, B.get(i, 0) + 1
                if len(B) == n:
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
