"""Ringmaster ASGD: asynchronous SGD that ignores gradients with a delay of R updates or more.

A. Maranjyan, A. Tyurin, P. Richtárik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity",
ICML 2025, arXiv 2501.16168. `stop_stale = false` is Algorithm 4 (without stops): a worker finishes, and what is too
old is discarded. `stop_stale = true` is Algorithm 5 (with stops): a worker whose delay reaches R gets the newest point,
which stops its running computation.

R = 1 is sequential SGD driven by whoever finishes first, R = inf is asynchronous SGD. The largest accepted delay is
R - 1. Homogeneous data.

Messages per gradient: one GRADIENT (k' and d numbers) up, one MODEL (k and d numbers) down; with stops one MODEL more
for each worker that is stopped, and none for a gradient that is discarded.

Differs from the paper: with stops a worker goes on at its point until a newer one arrives, so a link that takes time
can bring a gradient with δ >= R. It is discarded and not answered: the newer point is already on its way. Where a
gradient takes longer to send than to compute, such gradients fill the way up, and stops slow the method down.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Positive, Threshold


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k', ∇f(x^k'; ξ)


@dataclass(frozen=True)
class Ringmaster(Centralized):
    stepsize: Positive  # γ, per update
    threshold: Threshold  # R, in updates
    stop_stale: bool = False

    homogeneous = True
    newest_only = frozenset({Tag.MODEL})

    def server(self, node, x, watch):
        return self.server_with_stops(node, x, watch) if self.stop_stale else self.server_without_stops(node, x, watch)

    async def server_without_stops(self, node, x, watch):
        k = 0
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            i, (computed_at, g) = await node.recv(Tag.GRADIENT)
            delay = k - computed_at
            if delay < self.threshold:
                watch.used(i, delay)
                x = x - self.stepsize * g
                k += 1
            else:
                watch.discarded(i, delay)
            node.send(i, Tag.MODEL, k, x)
        return x

    async def server_with_stops(self, node, x, watch):
        k = 0
        version = dict.fromkeys(node.workers, 0)  # version[j]: iteration of the point last sent to worker j
        holders = {0: list(node.workers)}  # the same, by iteration
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            i, (computed_at, g) = await node.recv(Tag.GRADIENT)
            delay = k - computed_at
            if delay >= self.threshold:
                watch.discarded(i, delay)
                continue
            watch.used(i, delay)
            x = x - self.stepsize * g
            k += 1
            version[i] = k
            delayed = [j for j in holders.pop(k - self.threshold, ()) if k - version[j] >= self.threshold]
            holders[k] = [i, *delayed]
            for j in holders[k]:
                version[j] = k
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
                return
