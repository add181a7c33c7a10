"""Adaptive Shadowheart SGD: workers compute and send all the time, and a step ends when its estimate is good enough.

For Shadowheart SGD (A. Tyurin, M. Pozzi, I. Ilin, P. Richtárik, NeurIPS 2024, arXiv 2402.04785) where times are not
known, or change. On each worker one process adds gradients at x^k to a sum G, and another sends C(G) as often as its
link allows. Of worker i the server has m_i messages, their sum S_i, and of the numbers of gradients behind them the sum
a_i and the sum of squares q_i. With w_i = 1/(ω q_i/a_i + (ω + m_i) σ²/ε) a step ends when Σ w_i a_i >= 1, with the
estimate Σ w_i S_i / Σ w_i a_i. If durations do not depend on samples it is unbiased, with a variance of at most
||∇f||^2 + ε; where all messages have the same number of gradients, its weights are Shadowheart's (derived).

Messages: MODEL (k and d numbers) down to everybody at each step, which stops what is computed; MESSAGES (k, how many
gradients, how many of them are new, and what is packed) up. `packed` messages of one sum go as one, and the link is
charged for so many times the K numbers of RandK, whose places are free. A sum is sent until its messages are as long as
the vector; then its worker waits for another gradient. SUM (a number and d numbers) stays on its rank.

With the identity a sum takes the place of the one before it: Rennala SGD with stops and S = σ²/ε. Homogeneous data.
Differs from the paper, whose listing was not at hand: the construction is derived.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

from mpibench.algorithm import Centralized, Count, NonNegative, Positive
from mpibench.compressors import Compressor
from mpibench.compressors._repeated import charged_bytes, check_unbiased, sender


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    MESSAGES = 1  # worker to server: k', number of gradients, how many are new, compressed sum of them at x^k'
    SUM = 2  # from a worker's first process to its second: number of gradients, their sum G


class Received:
    """What the server has of a worker in a step."""

    m = a = q = S = 0

    def add(self, m, b, S):
        self.m, self.a, self.q, self.S = self.m + m, self.a + m * b, self.q + m * b * b, self.S + S

    def weight(self, omega, noise_ratio):
        return 1 / (omega * self.q / self.a + (omega + self.m) * noise_ratio or 1)


@dataclass(frozen=True)
class AdaptiveShadowheart(Centralized):
    stepsize: Positive  # γ, per step
    noise_ratio: NonNegative  # σ²/ε, variance of a gradient over the squared gradient norm that is aimed at
    compressor: Compressor  # C
    packed: Count = 1  # messages of one sum that go as one

    homogeneous = True
    stop_stale: ClassVar[bool] = True
    newest_only = frozenset({Tag.MODEL, Tag.SUM})

    def check_dimension(self, d, workers):
        super().check_dimension(d, workers)
        check_unbiased(self.compressor, d)

    def size(self, d, vector_bytes):
        """Bytes that a link is charged for a message."""
        return self.packed * charged_bytes(self.compressor, d, vector_bytes)

    async def server(self, node, x, watch):
        k = 0
        while watch(k, x):
            for i in node.workers:
                node.send(i, Tag.MODEL, k, x)
            x = x - self.stepsize * await self.estimate(node, watch, k, x)
            k += 1
        return x

    async def estimate(self, node, watch, k, x):
        """Of ∇f(x^k), as soon as it is good enough."""
        codec, omega = sender(self.compressor, self.packed), self.compressor.omega(len(x))
        received, w, precision = {}, {}, 0.0
        while precision < 1 - 1e-12:
            i, (computed_at, b, new, packed) = await node.recv(Tag.MESSAGES)
            if computed_at < k:
                watch.discarded(i, k - computed_at, new)
                continue
            watch.used(i, 0, new)
            before = w[i] * received[i].a if i in w else 0.0
            if i not in w or omega == 0:  # what is exact takes the place of what it was added to
                received[i] = Received()
            received[i].add(self.packed, b, codec.decode(packed, x, source=i, tag=Tag.MESSAGES))
            w[i] = received[i].weight(omega, self.noise_ratio)
            precision += w[i] * received[i].a - before
        w = {i: w[i] / max(w.values()) for i in w}  # whose scale cancels
        return sum(w[i] * received[i].S for i in w) / sum(w[i] * received[i].a for i in w)

    async def worker(self, node, f):
        _, (k, x) = await node.recv(Tag.MODEL)
        while True:
            work, link = node.start(self.work(node, f, x)), node.start(self.link(node, k, x))
            _, (k, x) = await node.recv(Tag.MODEL)
            work.cancel()
            link.cancel()
            node.drain(Tag.SUM)  # of the older point

    async def work(self, node, f, x):
        b = G = 0
        while True:
            G, b = G + await node.compute(f.gradient, x, f.sample()), b + 1
            node.send(node.rank, Tag.SUM, b, G)

    async def link(self, node, k, x):
        codec, size = sender(self.compressor, self.packed), self.size(len(x), x.nbytes)
        b = known = left = 0  # gradients in G, those that the server knows of, and what messages of G lack to a vector
        while True:
            newest = node.drain(Tag.SUM) if left > 0 else [await node.recv(Tag.SUM)]
            if newest:
                (b, G), left = newest[0].body, x.nbytes
            message, known, left = (k, b, b - known, codec.encode(G, node.rng)), b, left - size
            await node.send(0, Tag.MESSAGES, *message, size=size)
