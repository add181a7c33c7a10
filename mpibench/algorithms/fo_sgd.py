"""FO-SGD: one bit for each coordinate of a randomly rotated gradient, up alone or up and down.

T. Stollenwerk, L. Jacques, "Flattened one-bit stochastic gradient descent: compressed distributed optimization with
controlled variance", arXiv 2405.11095. At step k all ranks know random signs s. A worker rotates its gradient: y = H (s
g), with the Walsh-Hadamard matrix H over sqrt(n), has n coordinates that are all alike. It sends sign(y + u), u uniform
in [-λ, λ], and λ = ρ ||g|| / sqrt(n). The server takes the mean of λ sign(y + u), which stays in the rotated domain,
and makes a step of s H of it. `both_ways` it sends one bit of each coordinate of that mean, with a λ of its own, and
all ranks make the same step.

The estimate has the second moment ρ^2 ||g||^2, also for sparse g, and the bias of what |y| > λ cuts off. The second
stage of `both_ways` does not average out over workers.

Messages per step: n MODEL (k and d numbers) down, n BITS (k; 1 bit for each coordinate, and λ of each block) up.
`both_ways` n MODEL at the beginning only, and per step n STEP down, as long as BITS.

Differs from the paper: the choice of λ is ours; so are blocks of 2^`block_bits` coordinates, the last one padded to a
power of 2, each with its λ, which keep the padding small. Homogeneous or heterogeneous data.
"""

from dataclasses import dataclass
from enum import IntEnum

from mpibench.algorithm import Centralized, Positive
from mpibench.compressors import Memoryless
from mpibench.compressors.dithered_one_bit import DitheredOneBit
from mpibench.compressors.flattened_one_bit import BlockBits, flat_zeros, flatten, restore


class Tag(IntEnum):
    MODEL = 0  # server to worker: k, x^k
    BITS = 1  # worker to server: k, sign(y_i + u) and λ_i
    STEP = 2  # server to worker: k, sign(mean y + u) and λ


@dataclass(frozen=True)
class FOSGD(Centralized):
    stepsize: Positive  # γ, per step
    rho: Positive = 3.0  # ρ
    both_ways: bool = False
    rho_server: Positive = 3.0  # ρ of the server's bits
    block_bits: BlockBits = 16  # a block has 2^block_bits coordinates

    def one_bit(self, rho):
        return Memoryless(DitheredOneBit(rho=rho, bucket=1 << self.block_bits))

    def step(self, x, y, shared):
        return x - self.stepsize * restore(y, x, self.block_bits, shared)

    async def server(self, node, x, watch):
        n, up, down = len(node.workers), self.one_bit(self.rho), self.one_bit(self.rho_server)
        flat = flat_zeros(x, self.block_bits)
        k = first = watch.kept("k", 0)  # a run that goes on does not draw its signs again
        while watch(k, x):
            if k == first or not self.both_ways:
                for i in node.workers:
                    node.send(i, Tag.MODEL, k, x)
            y = {}
            while len(y) < n:
                i, (_, message) = await node.recv(Tag.BITS)
                watch.used(i, delay=0)
                y[i] = up.decode(message, flat, source=i, tag=Tag.BITS)
            mean = sum(y[i] for i in node.workers) / n
            if self.both_ways:
                bits = down.encode(mean, node.rng)
                for i in node.workers:
                    node.send(i, Tag.STEP, k, bits)
                mean = down.decode(bits, flat)
            x = self.step(x, mean, node.shared_seed(k))
            k += 1
        return x

    async def worker(self, node, f):
        up, down = self.one_bit(self.rho), self.one_bit(self.rho_server)
        _, (k, x) = await node.recv(Tag.MODEL)
        while True:
            g = await node.compute(f.gradient, x, f.sample())
            y = flatten(g, self.block_bits, node.shared_seed(k))
            node.send(0, Tag.BITS, k, up.encode(y, node.rng))
            if self.both_ways:
                _, (k, bits) = await node.recv(Tag.STEP)
                x = self.step(x, down.decode(bits, y, source=0, tag=Tag.STEP), node.shared_seed(k))
                k += 1
            else:
                _, (k, x) = await node.recv(Tag.MODEL)
