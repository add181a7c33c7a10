"""1-bit Adam: Adam for some steps, then its variance is frozen and ranks average momentum in one bit a coordinate.

H. Tang, S. Gan, A. A. Awan, S. Rajbhandari, C. Li, X. Lian, J. Liu, C. Zhang, Y. He, "1-bit Adam: Communication
Efficient Large-Scale Training with Adam's Convergence Speed", ICML 2021, arXiv 2102.02888, algorithm 1. In the first
`warmup` steps ranks average gradients g, m <- β1 m + (1 - β1) g and v <- β2 v + (1 - β2) g^2. From then on v stays, and
in place of g they average m_i = β1 m + (1 - β1) g_i. The vector is cut into n pieces, one for each rank:

rank i  c = m_i + e, e <- c - C(c); sends piece j of C(c) to rank j
rank j  a = mean of what has come + e', e' <- a - C(a); sends C(a) to all, and m is what these are together

Both errors go into the next step. C is the sign times ||c||_2 / sqrt(d), of the whole vector in the first stage and of
the piece in the second, or another `compressor`. x <- x - γ (m / (sqrt(v) + ε) + λ x), without bias correction, as in
the authors' code. Where v is 0 nothing moves: a sign cannot say 0, and 1/ε is large. Where v is small, as of a feature
that is seldom there, a bit is a long step: on `mlp` with digits runs diverge with ε = 1e-8 that with 1e-4 do not.

Messages per step of warm-up: 2 n (n - 1) GRADIENT on a ring, 2 (n - 1)/n of a vector from each rank. Then n (n - 1)
PIECE and n (n - 1) MEAN, each of d/n bits and a number.

Differs from the paper: pieces are as long as they are, without padding. All ranks hold the same model.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Decentralized, NonNegative, Positive, Probability, Rank
from mpibench.collectives import ring_all_reduce
from mpibench.compressors import Compressor, ErrorFeedback
from mpibench.compressors.scaled_sign import ScaledSign


class Tag(IntEnum):
    GRADIENT = 0  # to the next rank: a part of a sum of gradients
    PIECE = 1  # to rank j: piece j of C(m_i + e)
    MEAN = 2  # to all ranks: C(a), of this rank's piece


ONE_BIT = ScaledSign("l2")


@dataclass(frozen=True)
class OneBitAdam(Decentralized):
    stepsize: Positive  # γ
    warmup: Rank  # steps of Adam before the variance is frozen
    beta1: Probability = 0.9  # β1
    beta2: Probability = 0.999  # β2
    epsilon: Positive = 1e-8  # ε
    weight_decay: NonNegative = 0.0  # λ
    compressor: Compressor = ONE_BIT  # C

    def check_dimension(self, d, workers):
        super().check_dimension(d // min(workers, d), workers)  # of the shortest piece

    async def peer(self, node, x, f, watch):
        β1, β2 = self.beta1, self.beta2
        mean = Mean(node, self.compressor, len(x))
        m, v = watch.kept("m", 0 * x), watch.kept("v", 0 * x)
        t = 0  # a run that goes on warms up again, as ranks may have been a step apart
        while watch(t, x, m=m, v=v):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            if t < self.warmup:
                g = await ring_all_reduce(node, Tag.GRADIENT, g) / node.size
                m = β1 * m + (1 - β1) * g
                v = β2 * v + (1 - β2) * (g * g)
            else:
                m = (v > 0) * await mean.of(β1 * m + (1 - β1) * g, node.shared_seed(t))
            x = x - self.stepsize * (m / (v**0.5 + self.epsilon) + self.weight_decay * x)
            t += 1
        return x


class Mean:
    """The compressed mean over ranks, and what this rank owes as a worker and as the owner of a piece."""

    def __init__(self, node, compressor, d):
        self.node, self.owners = node, range(min(node.size, d))
        self.places = [slice(d * j // len(self.owners), d * (j + 1) // len(self.owners)) for j in self.owners]
        self.worker, self.owner = ErrorFeedback(compressor), ErrorFeedback(compressor)

    async def of(self, m, shared):
        node, places = self.node, self.places
        for j, message in zip(self.owners, self.worker.encode_pieces(m, places, node.rng, shared), strict=True):
            node.send(j, Tag.PIECE, message)
        if node.rank in self.owners:
            a = 0
            for i in range(node.size):
                _, (message,) = await node.recv(Tag.PIECE, source=i)
                a = a + self.worker.decode(message, m[places[node.rank]], shared, i, Tag.PIECE) / node.size
            message = self.owner.encode(a, node.rng, shared)
            for i in range(node.size):
                node.send(i, Tag.MEAN, message)
        total = m * 1  # a new vector like m, all of which is replaced
        for j, place in zip(self.owners, places, strict=True):
            _, (message,) = await node.recv(Tag.MEAN, source=j)
            total[place] = self.owner.decode(message, m[place], shared, j, Tag.MEAN)
        return total
