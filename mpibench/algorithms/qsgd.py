"""QSGD: Minibatch SGD whose gradients are rounded at random to s levels of their norm on the way up.

D. Alistarh, D. Grubic, J. Li, R. Tomioka, M. Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and
Encoding", NeurIPS 2017, arXiv 1610.02132, with a server in place of the broadcast to all. The quantiser is that of
`mpibench describe qsgd`: unbiased, so nothing is kept from step to step, and a step's variance is larger by 1 + ω/n for
equal gradients, ω = min(B/s^2, sqrt(B)/s) for buckets of B coordinates.

Messages per step: n MODEL (k and d numbers) down, n GRADIENT (k; d (1 + ceil(log2(s + 1))) bits, and a number for each
bucket) up. Published codes have fixed length, as here, or are Elias's, which are shorter for small s.

Sums in the order of ranks. Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Count, Positive
from mpibench.compressors import Memoryless
from mpibench.compressors.qsgd import QSGD as Quantiser
from mpibench.compressors.qsgd import Levels


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k, Q(∇f_i(x^k; ξ))


@dataclass(frozen=True)
class QSGD(Centralized):
    stepsize: Positive  # γ, per step
    levels: Levels  # s
    bucket: Count | None = None  # B, coordinates; the whole vector if there is none

    @property
    def Q(self):
        return Memoryless(Quantiser(self.levels, self.bucket))

    async def server(self, node, x, watch):
        n, Q = len(node.workers), self.Q
        k = 0
        while watch(k, x):
            for i in node.workers:
                node.send(i, Tag.MODEL, k, x)
            g = {}
            while len(g) < n:
                i, (_, message) = await node.recv(Tag.GRADIENT)
                watch.used(i, delay=0)
                g[i] = Q.decode(message, x, source=i, tag=Tag.GRADIENT)
            x = x - self.stepsize * (sum(g[i] for i in node.workers) / n)
            k += 1
        return x

    async def worker(self, node, f):
        Q = self.Q
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, Q.encode(g, node.rng))
