"""ATA: the B gradients of a step are given to workers by what was learnt of their speeds, so that little is wasted.

A. Maranjyan, E. M. Saad, P. Richtárik, F. Orabona, "ATA: Adaptive Task Allocation for Efficient Resource Management in
Distributed Machine Learning", ICML 2025, arXiv 2502.00775. A bandit allocation: step k gives a_i gradients to worker i,
Σ a_i = B, minimising max a_i s_i for the optimistic scores (those of the authors' code)

    s_i = μ_i - 4 e α (sqrt(ln(2 k²)/N_i) + ln(2 k²)/N_i)

with μ_i the mean seconds of the N_i gradients that worker i has computed and α a bound on their sub-exponential norm.
A score that is not positive, or of a worker not yet seen, counts as zero, so that such workers are explored first,
evenly. Compare what it costs by seconds and by the workers' total busy seconds.

Messages per step: one MODEL (k, a_i and d numbers) down, one SUM (k, seconds of computing and d numbers) up for each
worker that has a share. Homogeneous data.

μ_i, N_i and Euler's number e are those of the code; the paper was not checked for them. Differs from the code, which
takes the k of the step before, gives a worker not yet seen one gradient before others, and draws among equal ones.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Count, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, a_i, x^k
    SUM = 1  # worker to server: k, seconds that its gradients took, their sum at x^k


@dataclass(frozen=True)
class ATA(Centralized):
    stepsize: Positive  # γ, per step
    batch: Count  # B, gradients a step
    alpha: Positive | None = None  # α, in seconds; none: 2 μ_i, the empirical variant

    homogeneous = True

    def score(self, step, jobs, seconds):
        """s_i of a worker whose `jobs` gradients have taken `seconds` in all, at step 1, 2, ...; at least 0."""
        if jobs == 0:
            return 0.0
        mean = seconds / jobs
        width = math.log(2 * step**2) / jobs
        return max(0.0, mean - 4 * math.e * (self.alpha or 2 * mean) * (math.sqrt(width) + width))

    def allocation(self, scores, jobs):
        """a_i: one gradient after another to who would then have the least a_i s_i, then to who has had the fewest."""
        a = dict.fromkeys(scores, 0)
        for _ in range(self.batch):
            i = min(a, key=lambda j: ((a[j] + 1) * scores[j], jobs[j] + a[j], j))
            a[i] += 1
        return a

    async def server(self, node, x, watch):
        jobs, seconds = dict.fromkeys(node.workers, 0), dict.fromkeys(node.workers, 0.0)
        k = 0
        while watch(k, x):
            scores = {i: self.score(k + 1, jobs[i], seconds[i]) for i in node.workers}
            a = {i: share for i, share in self.allocation(scores, jobs).items() if share}
            for i in a:
                node.send(i, Tag.MODEL, k, a[i], x)
            g = {}
            while len(g) < len(a):
                i, (_, busy, total) = await node.recv(Tag.SUM)
                watch.used(i, delay=0, count=a[i])
                jobs[i], seconds[i] = jobs[i] + a[i], seconds[i] + busy
                g[i] = total
            x = x - self.stepsize * (sum(g[i] for i in a) / self.batch)
            k += 1
        return x

    async def worker(self, node, f):
        while True:
            _, (k, a, x) = await node.recv(Tag.MODEL)
            began, total = node.now(), 0
            for _ in range(a):
                total = total + await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.SUM, k, node.now() - began, total)
