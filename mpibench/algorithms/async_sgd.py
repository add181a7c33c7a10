"""Asynchronous SGD: a gradient is applied when it arrives, and only its worker gets the new point.

Nobody waits for anybody; the price is the delay δ = k - k' between the point x^k' at which a gradient was computed and
the point x^k to which it is applied. `rule` says what the step does about it:

constant        γ, whatever the delay (A. Agarwal, J. Duchi, "Distributed Delayed Stochastic Optimization", NeurIPS
                2011, arXiv 1104.5525)
delay_adaptive  γ n / max(n, δ) (K. Mishchenko, F. Bach, M. Even, B. Woodworth, "Asynchronous SGD Beats Minibatch SGD
                Under Arbitrary Delays", NeurIPS 2022, arXiv 2206.07638; this is the step of the authors' code)
drop            γ if δ <= n, else the gradient is dropped and k stays (A. Koloskova, S. Stich, M. Jaggi, "Sharper
                Convergence Guarantees for Asynchronous SGD", NeurIPS 2022, arXiv 2206.08307, with concurrency n)
drop_counted    the same, but k advances also when a gradient is dropped: the "Asynchronous SGD" baseline in the
                authors' code of arXiv 2305.12387 and 2405.16218. Delays then count arrivals, not updates.

Messages per gradient: one GRADIENT (k' and d numbers) up, one MODEL (k and d numbers) down. Nobody is interrupted.
Homogeneous data: under heterogeneous data fast workers are over-represented.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Centralized, Positive


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k', ∇f(x^k'; ξ)


@dataclass(frozen=True)
class AsyncSGD(Centralized):
    stepsize: Positive  # γ, per update
    rule: Literal["constant", "delay_adaptive", "drop", "drop_counted"] = "constant"

    homogeneous = True

    def step(self, delay, n):
        """Step size for a gradient of this delay among n workers; 0 drops it."""
        if self.rule == "constant":
            return self.stepsize
        if self.rule == "delay_adaptive":
            return self.stepsize * (n / max(n, delay))
        return self.stepsize if delay <= n else 0.0

    async def server(self, node, x, watch):
        n = len(node.workers)
        k = 0
        for i in node.workers:
            node.send(i, Tag.MODEL, k, x)
        while watch(k, x):
            i, (computed_at, g) = await node.recv(Tag.GRADIENT)
            delay = k - computed_at
            step = self.step(delay, n)
            if step > 0:
                watch.used(i, delay)
                x = x - step * g
                k += 1
            else:
                watch.discarded(i, delay)
                if self.rule == "drop_counted":
                    k += 1
            node.send(i, Tag.MODEL, k, x)
        return x

    async def worker(self, node, f):
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, g)
