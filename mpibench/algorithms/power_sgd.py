"""PowerSGD: gradients as matrices of low rank, whose factors are averaged by two all-reduces a step.

T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization", NeurIPS 2019, arXiv 1905.13727, algorithms 1 and 2. For each matrix G of gradient and memory, of n rows
and m columns: P = mean of G Q, orthonormalised; Q = mean of G^T P, with which the next step begins (warm start); the
step is made with P Q^T, which is all ranks' best guess of the mean of G, and each keeps what it lacks of its own G in
its memory. Since P and Q are linear in G, sums are all that is sent. Vectors, and matrices that would not be shorter,
are sent as they are.

`shapes` are those of the tensors in the vector, one after the other; if not given, those of the problem, or else one
nearly square matrix. A tensor of more axes is a matrix of its first and the others. `momentum` is Nesterov's, applied
after decompression, as in the authors' runs.

Messages per step, on a ring of n ranks: 2 n (n - 1) LEFT, in all 2 (n - 1) times r n and what is not factored, and
2 n (n - 1) RIGHT, 2 (n - 1) times r m.

All ranks hold the same model. With a rank for which nothing is shorter it is Ring-AllReduce SGD.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Count, Decentralized, Positive, Probability
from mpibench.collectives import ring_all_reduce
from mpibench.compressors.low_rank import Factors, Shapes


class Tag(IntEnum):
    LEFT = 0  # to the next rank: a part of a sum of G Q, and of what is not factored
    RIGHT = 1  # to the next rank: a part of a sum of G^T P


@dataclass(frozen=True)
class PowerSGD(Decentralized):
    stepsize: Positive  # γ, per step
    rank: Count  # r
    momentum: Probability = 0.0  # λ
    shapes: Shapes | None = None

    def check_dimension(self, d, workers):
        if self.shapes:
            Factors(d, self.rank, self.shapes)

    async def peer(self, node, x, f, watch):
        n, λ = node.size, self.momentum
        factors = Factors(len(x), self.rank, self.shapes or getattr(f, "shapes", None))
        Q = watch.kept("Q", factors.start(node.shared_seed(0), x))
        e, m = watch.kept("e", 0 * x), watch.kept("m", 0 * x)
        t = 0
        while watch(t, x, Q=Q, e=e, m=m):
            g = await node.compute(f.gradient, x, f.sample())
            watch.used(node.rank, delay=0)
            u = g + e
            P = factors.orthonormal(await ring_all_reduce(node, Tag.LEFT, factors.left(u, Q)) / n)
            if factors.matrices:
                Q = await ring_all_reduce(node, Tag.RIGHT, factors.right(u, P)) / n
            mean = factors.product(P, Q, x)
            e = factors.factored(u - mean)
            m = λ * m + mean
            x = x - self.stepsize * (mean + λ * m)
            t += 1
        return x
