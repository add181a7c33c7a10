"""Compressed Minibatch SGD: workers send C(gradient), by any compressor, with or without error feedback.

Minibatch SGD whose way up is compressed. With an unbiased C it is distributed SGD with a variance that is larger by
1 + ω/n for equal gradients. With error feedback a worker adds to what it sends what it has left out before, with the
step size inside its memory (A) or outside (B):

A   u = γ g + e, e = u - C(u), x <- x - mean C(u)
B   u = g + e, e = u - C(u), x <- x - γ mean C(u)

A is MEM-SGD with many workers (S. U. Stich, J.-B. Cordonnier, M. Jaggi, "Sparsified SGD with Memory", NeurIPS 2018,
arXiv 1809.07599) and, with scaled signs, EF-signSGD (S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, ICML 2019,
arXiv 1901.09847). As γ is constant, A and B are the same up to rounding. An unbiased C with ω >= 1 is divided by 1 + ω
in error feedback, without which its errors would grow. Randomness that workers share is drawn anew at every step.

Messages per step: n MODEL (k and d numbers) down, n GRADIENT (k and the bits of C) up.

Sums in the order of ranks. Homogeneous or heterogeneous data. With identity it is Minibatch SGD.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mpibench.algorithm import Centralized, Positive
from mpibench.compressors import Compressor, ErrorFeedback, Memoryless


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    GRADIENT = 1  # worker to server: k, C(u)


@dataclass(frozen=True)
class CompressedMinibatch(Centralized):
    stepsize: Positive  # γ, per step
    compressor: Compressor  # C
    error_feedback: Literal["none", "step_inside", "step_outside"] = "none"

    @property
    def sender(self):
        """What a worker keeps between its messages; a new one for each."""
        return (Memoryless if self.error_feedback == "none" else ErrorFeedback)(self.compressor)

    async def server(self, node, x, watch):
        n, γ = len(node.workers), 1 if self.error_feedback == "step_inside" else self.stepsize
        up = self.sender
        k = watch.kept("k", 0)  # a run that goes on does not draw again what it shares
        while watch(k, x):
            for i in node.workers:
                node.send(i, Tag.MODEL, k, x)
            q = {}
            while len(q) < n:
                i, (_, message) = await node.recv(Tag.GRADIENT)
                watch.used(i, delay=0)
                q[i] = up.decode(message, x, node.shared_seed(k), i, Tag.GRADIENT)
            x = x - γ * (sum(q[i] for i in node.workers) / n)
            k += 1
        return x

    async def worker(self, node, f):
        γ = self.stepsize if self.error_feedback == "step_inside" else 1
        up = self.sender
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            g = await node.compute(f.gradient, x, f.sample())
            node.send(0, Tag.GRADIENT, k, up.encode(γ * g, node.rng, node.shared_seed(k)))
