"""Asynchronous SGD that plans how many workers are active, which gradients are too old, and which are worth sending.

S. Yu, W. Chen, H. V. Poor, "Distributed Stochastic Gradient Descent with Staleness: A Stochastic Delay Differential
Equation Based Framework", IEEE Transactions on Signal Processing 2025, arXiv 2406.11159. With P active workers the
points follow a delay differential equation, governed by z = η h_max (P - 1/2): damping times delay. The roots behind
it, and the best P, are in `mpibench.sdde`. Here P workers are active and the others parked: they get no answer until
they are activated. P = n without threshold and trigger is asynchronous SGD with constant steps. Homogeneous data.

Messages: at the start P MODEL; then, per job, one GRADIENT up (k' and d numbers; k' alone where the trigger is silent),
and one MODEL down (k and d numbers), but for parked workers. Where the curvature is measured, once in W updates, never
two at a time: one PROBE (empty) down ahead of a MODEL, and one CURVATURE (a number, which costs 21 gradients) up.

Differs from the paper, which plans P, s_max and the trigger before the run: every W updates the slowest workers are
parked until z <= 0.6, or parked ones are activated (untried ones first, then the fastest) until z >= 0.3. Times are
those of the last jobs, and h_max is a power method's on differences of gradients of one sample. The trigger compares
with c ||g||, not with c. Without noise all workers may fall silent for ever: give a limit in seconds or gradients.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Count, NonNegative, Positive, Threshold

ITERATIONS = 20  # of the power method
LEAST, MOST = 0.3, 0.6  # z that calls for no change


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k', and ∇f(x^k'; ξ) if it is news
    PROBE = 2  # server to worker: measure the curvature at the next point
    CURVATURE = 3  # worker to server: h_max


@dataclass(frozen=True)
class SDDEASGD(Centralized):
    stepsize: Positive  # η, per update
    active: Count  # P, how many workers are active at the start, the first ones
    threshold: Threshold = math.inf  # s_max, the largest staleness of a gradient that is used
    trigger: NonNegative = 0.0  # c: a gradient is sent iff ||g - g_last|| > c ||g||; 0: always
    period: Threshold = math.inf  # W, updates between two plans; inf: the first P workers remain active
    curvature: NonNegative = 0.0  # h_max, for plans; 0: it is measured

    homogeneous = True

    def check(self, workers, graph=None):
        if self.active > workers:
            raise ValueError(f"active = {self.active} must be at most the number of workers, {workers}")

    async def server(self, node, x, watch):
        k, planned, probed = 0, 0, None  # probed: a worker that measures the curvature
        active, since = set(node.workers[: self.active]), {}  # since when a worker computes
        seconds = dict.fromkeys(node.workers, 0.0)  # of a worker's last job
        for i in sorted(active):
            node.send(i, Tag.MODEL, k, x)
            since[i] = node.now()
        while watch(k, x):
            i, (computed_at, *g) = await node.recv(Tag.GRADIENT)
            delay, h_max, began = k - computed_at, 0.0, since.pop(i)
            if g and delay <= self.threshold:
                watch.used(i, delay)
                x = x - self.stepsize * g[0]
                k += 1
            else:
                watch.discarded(i, delay)
            if i == probed:
                _, (h_max,) = await node.recv(Tag.CURVATURE, i)
                probed = None
            else:
                seconds[i] = node.now() - began
                if probed is None and k - planned >= self.period and (self.curvature > 0 or i in active):
                    planned, h_max = k, self.curvature
                    if h_max == 0:
                        node.send(i, Tag.PROBE)
                        probed = i
            answered = [i] if i in active else []
            if h_max > 0:
                by_now = {j: max(seconds[j], node.now() - then) for j, then in since.items()}
                active = self.plan(h_max, active, seconds | by_now)
                answered = sorted(active - since.keys())
            for j in answered:
                node.send(j, Tag.MODEL, k, x)
                since[j] = node.now()
        return x

    def plan(self, h_max, active, seconds):
        """The workers to be active from now on, by the seconds that each needs."""
        n, step = len(seconds), self.stepsize * h_max
        least, most = (min(n, z / step + 0.5) for z in (LEAST, MOST))  # z = step (P - 1/2)
        P = max(1, min(max(len(active), math.ceil(least)), math.floor(most)))
        fastest = lambda group: sorted(group, key=lambda i: (seconds[i], i))  # noqa: E731
        return {*(fastest(active) + fastest(seconds.keys() - active))[:P]}

    async def worker(self, node, f):
        last = None
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            ξ = f.sample()
            if node.drain(Tag.PROBE):
                node.send(0, Tag.CURVATURE, await node.compute(largest_curvature, f, x, ξ, cost=ITERATIONS + 1.0))
            g = await node.compute(f.gradient, x, ξ)
            if self.trigger == 0 or last is None or (g - last) @ (g - last) > self.trigger**2 * (g @ g):
                node.send(0, Tag.GRADIENT, k, g)
                last = g
            else:
                node.send(0, Tag.GRADIENT, k)


def largest_curvature(f, x, ξ):
    """The largest size of an eigenvalue of the Hessian at x for the sample ξ; 0 where the gradient is zero."""
    g = f.gradient(x, ξ)
    v, step = g, 1e-3 * (1 + float(x @ x) ** 0.5)
    for _ in range(ITERATIONS):
        length = float(v @ v) ** 0.5
        if length == 0:
            break
        v = (f.gradient(x + step / length * v, ξ) - g) / step
    return float(v @ v) ** 0.5
