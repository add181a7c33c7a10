"""signSGD with majority vote: one bit a coordinate up, and one down, of which most workers agree.

J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: Compressed Optimisation for Non-Convex Problems",
ICML 2018, arXiv 1802.04434; J. Bernstein, J. Zhao, K. Azizzadenesheli, A. Anandkumar, "signSGD with Majority Vote is
Communication Efficient and Fault Tolerant", ICLR 2019, arXiv 1810.05291: with `momentum` β it is Signum, whose workers
send the sign of v <- β v + (1 - β) g.

All ranks get the model once and then make the same steps x <- x - η (vote + λ x): every coordinate moves by η, which
is also how near it can come. The sign of 0 is +1, and a tied vote is 0: no step. Biased, and no small step repairs it:
where the noise is skewed, or workers' data differ, it may go the wrong way.

Messages: n MODEL (d numbers) down at the beginning. Per step n SIGNS (k and d bits) up, n VOTE (k and d bits; 2 d bits
for an even number of workers, as ties must be told) down.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, NonNegative, Positive, Probability
from mpibench.compressors import Memoryless
from mpibench.compressors.sign import Sign


class Tag(IntEnum):
    MODEL = 0  # server to worker: x^0
    SIGNS = 1  # worker to server: k, sign(v_i)
    VOTE = 2  # server to worker: k, sign(sum_i sign(v_i))


@dataclass(frozen=True)
class SignSGD(Centralized):
    stepsize: Positive  # η
    momentum: Probability = 0.0  # β
    weight_decay: NonNegative = 0.0  # λ

    homogeneous = True
    up = Memoryless(Sign())

    @staticmethod
    def down(n):
        """The code of a vote of n workers."""
        return Memoryless(Sign(zero=n % 2 == 0))

    def step(self, x, vote):
        return x - self.stepsize * (vote + self.weight_decay * x)

    async def server(self, node, x, watch):
        n, down = len(node.workers), self.down(len(node.workers))
        for i in node.workers:
            node.send(i, Tag.MODEL, x)
        k = 0
        while watch(k, x):
            b = {}
            while len(b) < n:
                i, (_, message) = await node.recv(Tag.SIGNS)
                watch.used(i, delay=0)
                b[i] = self.up.decode(message, x, source=i, tag=Tag.SIGNS)
            vote = down.encode(sum(b[i] for i in node.workers), node.rng)
            for i in node.workers:
                node.send(i, Tag.VOTE, k, vote)
            x = self.step(x, down.decode(vote, x))
            k += 1
        return x

    async def worker(self, node, f):
        down = self.down(len(node.workers))
        _, (x,) = await node.recv(Tag.MODEL)
        k, v = 0, 0 * x
        while True:
            g = await node.compute(f.gradient, x, f.sample())
            v = self.momentum * v + (1 - self.momentum) * g
            node.send(0, Tag.SIGNS, k, self.up.encode(v, node.rng))
            _, (k, vote) = await node.recv(Tag.VOTE)
            x = self.step(x, down.decode(vote, x, source=0, tag=Tag.VOTE))
            k += 1
