"""Rennala SGD with an all-reduce: gradients stay where they are until S of them are there, then all ranks add them up.

The method is Rennala SGD with stops (A. Tyurin, P. Richtárik, NeurIPS 2023, arXiv 2305.12387); A. Tyurin, D. Sivtsov,
"Birch SGD", ICLR 2026, arXiv 2505.09218, list it among those that an all-reduce can serve. This listing is ours. A
worker adds up its gradients at x^k and says of each only that it is there. At S the server freezes the step, which
stops what is being computed, all ranks join two reductions, of the sums and of their counts, and every rank makes the
step.

A worker needs one vector up and one down a step, whatever S is. What ends while the word of the end is under way still
counts, so the batch b is S or more, and the step divides by b.

Messages: n MODEL (d numbers) at the start. A step: one TOKEN (k) up for each of its b gradients, n FREEZE (nothing)
down, and on a binomial tree over all ranks n SUM (d numbers) and n COUNT (one number) up, and as many down.

Homogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from mpibench.algorithm import Centralized, Count, Positive
from mpibench.collectives import broadcast, tree_all_reduce


class Tag(IntEnum):
    MODEL = 0  # down the tree: x^0
    TOKEN = 1  # worker to server: k; one more gradient at x^k is here
    FREEZE = 2  # server to worker: nothing; the step ends
    SUM = 3  # on the tree: sum of gradients at x^k
    COUNT = 4  # on the tree: how many


@dataclass(frozen=True)
class RennalaAllReduce(Centralized):
    stepsize: Positive  # γ, per step
    batch: Count  # S, gradients that a step waits for

    stop_stale: ClassVar[bool] = True
    homogeneous = True

    async def step(self, node, x, g, b):
        """x^{k+1} from this rank's sum of b gradients at x^k; the same bits on every rank."""
        g = await tree_all_reduce(node, Tag.SUM, g)
        b = await tree_all_reduce(node, Tag.COUNT, b)
        return x - self.stepsize * (g / b)

    async def server(self, node, x, watch):
        await broadcast(node, Tag.MODEL, x)
        k = 0
        while watch(k, x):
            there = 0
            while there < self.batch:
                i, (computed_at,) = await node.recv(Tag.TOKEN)
                watch.used(i, delay=0)  # also what came after the end of its step was in its sum
                there += computed_at == k
            for i in node.workers:
                node.send(i, Tag.FREEZE)
            x = await self.step(node, x, 0 * x, 0)
            k += 1
        return x

    async def worker(self, node, f):
        x = await broadcast(node, Tag.MODEL, None)
        k = 0
        while True:
            gradients = []
            job = node.start(self.work(node, f, k, x, gradients))
            await node.recv(Tag.FREEZE)
            job.cancel()
            x = await self.step(node, x, sum(gradients, 0 * x), len(gradients))
            k += 1

    async def work(self, node, f, k, x, gradients):
        while True:
            gradients.append(await node.compute(f.gradient, x, f.sample()))
            node.send(0, Tag.TOKEN, k)
