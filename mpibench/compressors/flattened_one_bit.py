"""Flattened one bit: a random rotation makes all coordinates alike, then each is one dithered bit, as in FO-SGD.

x is cut into blocks, the last padded with zeros to a power of 2. In a block of n coordinates y = H (s x) with H the
Walsh-Hadamard matrix over sqrt(n) and s random signs, which all ranks have in common at a step; b = sign(y + u) with u
uniform in [-λ, λ], λ = ρ ||x||_2 / sqrt(n), and the receiver takes s H (λ b). ω = ρ^2 - 1, whatever the shape of x, and
unbiased but for what of y is beyond λ, little from ρ = 3 on. Bits: 32 and n for each block.

T. Stollenwerk, L. Jacques, "Flattened one-bit stochastic gradient descent: compressed distributed optimization with
controlled variance", arXiv 2405.11095.
"""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Le

from mpibench import packing
from mpibench.compressors import Compressor, like_vector, on_host
from mpibench.compressors.dithered_one_bit import DitheredOneBit
from mpibench.parameters import Positive

RADIX = 32  # the Walsh-Hadamard matrix of this size is multiplied with as it is

BlockBits = Annotated[int, Ge(0), Le(24)]


@dataclass(frozen=True)
class FlattenedOneBit(Compressor):
    rho: Positive = 3.0  # ρ
    block_bits: BlockBits = 16  # a block has 2^block_bits coordinates
    name: Literal["flattened_one_bit"] = "flattened_one_bit"

    shares = True

    @property
    def quantiser(self):
        """The one bit of a flattened vector."""
        return DitheredOneBit(rho=self.rho, bucket=1 << self.block_bits)

    def pack(self, x, rng, shared):
        return self.quantiser.pack(self.in_range(flatten(x, self.block_bits, shared)), rng, None)

    def unpack(self, data, like, shared):
        y = self.quantiser.unpack(data, numpy.empty(padded_length(len(like), self.block_bits), like.dtype), None)
        return restore(y, like, self.block_bits, shared)

    def bits(self, d, width=32):
        return self.quantiser.bits(padded_length(d, self.block_bits), width)

    def omega(self, d):
        return self.rho**2 - 1


def flatten(x, block_bits, shared):
    """The rotated blocks of a vector x, one after the other: a vector like x, the last block padded."""
    values = on_host(x)
    y = numpy.zeros(padded_length(len(values), block_bits), values.dtype)
    y[: len(values)] = values
    y *= signs(len(y), shared, y.dtype)
    return like_vector(x, hadamard(y, block_bits))


def restore(y, like, block_bits, shared):
    """The vector like `like` whose rotated blocks are y."""
    values = on_host(y)
    x = hadamard(values, block_bits)
    x *= signs(len(x), shared, x.dtype)
    return like_vector(y, x[: len(like)])


def flat_zeros(x, block_bits):
    """Zeros as long as x is when it has been flattened."""
    values = on_host(x)
    return like_vector(x, numpy.zeros(padded_length(len(values), block_bits), values.dtype))


def padded_length(d, block_bits):
    """The length of d coordinates when the last block has been padded."""
    size = 1 << block_bits
    return (d - 1) // size * size + (1 << ((d - 1) % size).bit_length())


def signs(n, shared, dtype):
    """n random numbers +1 and -1, the same for the same seed."""
    rng = numpy.random.default_rng(shared)
    bits = packing.unpack(numpy.frombuffer(rng.bytes(-(-n // 8)), numpy.uint8), 1, n)
    return bits * dtype.type(2) - dtype.type(1)


@cache
def sylvester(n, dtype):
    """The (n, n) Walsh-Hadamard matrix of +1 and -1, n a power of 2."""
    H = numpy.ones((1, 1), dtype)
    while len(H) < n:
        H = numpy.block([[H, H], [H, -H]])
    return H


def hadamard(x, block_bits):
    """A new vector: H of each block of x, over the root of its length."""
    size = 1 << block_bits
    whole = len(x) // size * size
    y = numpy.empty_like(x)
    for start, n in [*((start, size) for start in range(0, whole, size)), (whole, len(x) - whole)]:
        if n:
            y[start : start + n] = transformed(x[start : start + n]) * x.dtype.type(1 / numpy.sqrt(n))
    return y


def transformed(block):
    """The Walsh-Hadamard transform of a block, RADIX sums and differences at a time."""
    n = len(block)
    right = n
    while right > 1:
        radix = min(RADIX, right)
        right //= radix
        H = sylvester(radix, block.dtype)
        block = block.reshape(-1, radix) @ H if right == 1 else H @ block.reshape(-1, radix, right)
    return block.reshape(n)
