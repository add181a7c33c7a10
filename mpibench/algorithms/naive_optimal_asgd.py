"""Naive Optimal ASGD: asynchronous SGD on the fastest workers only; the others never compute.

A. Maranjyan, A. Tyurin, P. Richtárik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity", ICML
2025, arXiv 2501.16168, where it motivates Ringmaster ASGD: with m* = argmin_m H_m (1 + σ²/(m ε)) workers, H_m the
harmonic mean of the m smallest seconds per gradient, asynchronous SGD has the optimal time complexity too, but the
speeds must be known and stay as they are. (The formula is read from the abstract and from the authors' line of papers.)

Messages per gradient: one GRADIENT (k' and d numbers) up, one MODEL (k and d numbers) down. At the start m* MODEL.
Nobody is interrupted. Homogeneous data.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, NonNegative, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k', ∇f(x^k'; ξ)


@dataclass(frozen=True)
class NaiveOptimalASGD(Centralized):
    stepsize: Positive  # γ, per update
    noise_ratio: NonNegative  # σ²/ε, variance of a gradient over the squared gradient norm that is aimed at

    homogeneous = True

    def fastest(self, seconds):
        """The m* workers to use, given the mean seconds per gradient of workers 1..n."""
        order = sorted(seconds, key=seconds.get)
        best, used, rate = math.inf, 0, 0.0
        for m, i in enumerate(order, 1):
            rate += 1 / seconds[i]
            each = (m + self.noise_ratio) / rate  # H_m (1 + σ²/(m ε))
            if each < best * (1 - 1e-12):  # of equally good ones the smaller, whatever rounding says
                best, used = each, m
        return sorted(order[:used])

    async def server(self, node, x, watch):
        k = 0
        for i in self.fastest({i: node.speed(i).mean_seconds for i in node.workers}):
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            i, (computed_at, g) = await node.recv(Tag.GRADIENT)
            watch.used(i, k - computed_at)
            x = x - self.stepsize * g
            k += 1
            node.send(i, Tag.MODEL, k, x)
        return x

    async def worker(self, node, f):
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, g)
