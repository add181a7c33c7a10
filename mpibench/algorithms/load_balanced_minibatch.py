"""Load-balanced Minibatch SGD: a step's batch is divided so that all workers need about the same time for their share.

Worker i computes b_i gradients, b_i proportional to 1/h_i, where h_i are the mean seconds of its gradients. The
synchronous baseline that knows the speeds: a reviewers' request to A. Maranjyan, P. Richtárik, "Ringleader ASGD", ICLR
2026, arXiv 2509.22860. No paper states it as an algorithm of its own.

`average` says how the gradients of workers are put together:

gradients  the mean over all of the batch, for homogeneous data. A worker whose share is zero sits out.
workers    the mean over workers of their means, for heterogeneous data. Nobody sits out: a share that would be zero
           becomes one gradient, taken from the largest share.

Messages per step: one MODEL (k, b_i and d numbers) down and one SUM (k and d numbers) up for each worker that takes
part.

Shares are rounded by largest remainder, and sums are added in the order of ranks.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import floor
from typing import Literal

from mpibench.algorithm import Centralized, Count, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, b_i, x^k
    SUM = 1  # worker to server: k, sum of its b_i gradients at x^k


@dataclass(frozen=True)
class LoadBalancedMinibatch(Centralized):
    stepsize: Positive  # γ, per step
    batch: Count  # gradients a step, of all workers
    average: Literal["gradients", "workers"] = "gradients"

    def is_biased(self, workers):
        return self.average == "gradients"

    def check(self, workers, graph=None):
        if self.average == "workers" and self.batch < workers:
            raise ValueError(f"batch = {self.batch} is less than one gradient for each of {workers} workers")

    def shares(self, seconds):
        """b_i for workers of these mean seconds per gradient."""
        total = sum(1 / h for h in seconds)
        quotas = [self.batch / h / total for h in seconds]
        shares = [floor(quota + 1e-9) for quota in quotas]
        remainders = [round(quota - share, 9) for quota, share in zip(quotas, shares, strict=True)]
        largest_first = sorted(range(len(seconds)), key=lambda i: -remainders[i])
        for i in largest_first[: self.batch - sum(shares)]:
            shares[i] += 1
        while self.average == "workers" and 0 in shares:
            shares[shares.index(max(shares))] -= 1
            shares[shares.index(0)] = 1
        return shares

    async def server(self, node, x, watch):
        shares = self.shares([node.speed(i).mean_seconds for i in node.workers])
        b = {i: share for i, share in zip(node.workers, shares, strict=True) if share}
        k = 0
        while watch(k, x):
            for i in b:
                node.send(i, Tag.MODEL, k, b[i], x)
            g = {}
            while len(g) < len(b):
                i, (_, total) = await node.recv(Tag.SUM)
                watch.used(i, delay=0, count=b[i])
                g[i] = total
            if self.average == "gradients":
                x = x - self.stepsize * (sum(g[i] for i in b) / self.batch)
            else:
                x = x - self.stepsize * (sum(g[i] / b[i] for i in b) / len(b))
            k += 1
        return x

    async def worker(self, node, f):
        while True:
            _, (k, b, x) = await node.recv(Tag.MODEL)
            total = 0
            for _ in range(b):
                total = total + await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.SUM, k, total)
