"""MindFlayer SGD: workers make a fixed number of trials at a gradient and give up each that takes too long.

A. Maranjyan, O. Shaikh Omar, P. Richtárik, "MindFlayer SGD: Efficient Parallel SGD in the Presence of Heterogeneous
and Random Worker Compute Times", UAI 2025, arXiv 2410.04285. A gradient of worker i takes h_i + η_i seconds, η_i
random and maybe heavy-tailed. A trial is cut off after h_i + t seconds and succeeds with p_i = P(η_i <= t). A step
has B_i trials of worker i and estimates the gradient by the sum of what has come over Σ p_i B_i. As in the authors'
code

    t(m) = (S + Σ_{j<=m} p_j) / Σ_{j<=m} p_j/(h_j + t),   B_i = ceil(t(m*)/(h_i + t) - 1) for i <= m* = argmin t(m)

h_i and p_i must be known: they come from the model of the cluster, or from what was measured before the run.
Homogeneous data.

Messages per step: one MODEL (k, B_i, the seconds of a trial and d numbers) down to each worker with trials, one SUM
(k, how many and d numbers) up when its trials are over.

Differs from the paper: one t for all workers, which the authors optimise for each from the known law of η_i; and a
worker sends the sum of its gradients, which gives the same step, instead of each of them.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf

from mpibench.algorithm import Centralized, Count, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, B_i, h_i + t, x^k
    SUM = 1  # worker to server: k, number of trials that succeeded, sum of their gradients at x^k


@dataclass(frozen=True)
class MindFlayer(Centralized):
    stepsize: Positive  # γ, per step
    batch: Count  # S, max(1, σ²/ε) in the paper
    patience_seconds: Positive  # t, that a trial may take beyond h_i

    homogeneous = True

    def trials(self, seconds, p):
        """B_i of each worker from the seconds h_i + t of its trials and their probability p_i of success."""
        gain = rate = 0.0
        best, used = inf, []
        order = sorted((i for i in seconds if p[i] > 0), key=seconds.get)
        for m, i in enumerate(order, 1):
            gain, rate = gain + p[i], rate + p[i] / seconds[i]
            if (self.batch + gain) / rate < best * (1 - 1e-12):
                best, used = (self.batch + gain) / rate, order[:m]
        if not used:
            raise ValueError(f"patience_seconds = {self.patience_seconds} lets no gradient end in time; give more")
        return {i: ceil(best / seconds[i] - 1 - 1e-9) for i in sorted(used)}  # rounding adds no trial

    async def server(self, node, x, watch):
        speed = {i: node.speed(i) for i in node.workers}
        seconds = {i: speed[i].least_seconds + self.patience_seconds for i in node.workers}
        p = {i: speed[i].within(seconds[i]) for i in node.workers}
        B = {i: trials for i, trials in self.trials(seconds, p).items() if trials}
        expected = sum(p[i] * B[i] for i in B)
        k = 0
        while watch(k, x):
            for i in B:
                node.send(i, Tag.MODEL, k, B[i], seconds[i], x)
            g = {}
            while len(g) < len(B):
                i, (_, b, total) = await node.recv(Tag.SUM)
                watch.used(i, delay=0, count=b)
                g[i] = total
            x = x - self.stepsize * (sum(g[i] for i in B) / expected)
            k += 1
        return x

    async def worker(self, node, f):
        while True:
            _, (k, trials, seconds, x) = await node.recv(Tag.MODEL)
            b, total = 0, 0 * x
            for _ in range(trials):
                trial = node.start(self.work(node, f, x))
                clock = node.start(self.cut_off(node, trial, seconds))
                g = await trial
                if g is not None:
                    clock.cancel()
                    b, total = b + 1, total + g
            node.send(0, Tag.SUM, k, b, total)

    async def work(self, node, f, x):
        return await node.compute(f.gradient, x, f.sample())

    async def cut_off(self, node, trial, seconds):
        await node.sleep(seconds)
        trial.cancel()  # who waits for it gets None
