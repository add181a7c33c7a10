"""Minibatch SGD: every step waits for one gradient from each worker.

The synchronous baseline of every asynchronous method; its time per step is that of the slowest worker. Stated, with
its time complexity, in A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic
Asynchronous Optimization", NeurIPS 2024, arXiv 2405.16218, equations (4) to (6).

Messages per step: n MODEL (k and d numbers) down, n GRADIENT (k and d numbers) up.

Gradients are added in the order of ranks, whoever arrives first, so that the sum always has the same bits.
Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k, ∇f_i(x^k; ξ)


@dataclass(frozen=True)
class MinibatchSGD(Centralized):
    stepsize: Positive  # γ, per step

    async def server(self, node, x, watch):
        n = len(node.workers)
        k = 0
        while watch(k, x):
            for i in node.workers:
                node.send(i, Tag.MODEL, k, x)
            g = {}
            while len(g) < n:
                i, (_, g_i) = await node.recv(Tag.GRADIENT)
                watch.used(i, delay=0)
                g[i] = g_i
            x = x - self.stepsize * (sum(g[i] for i in node.workers) / n)
            k += 1
        return x

    async def worker(self, node, f):
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, g)
