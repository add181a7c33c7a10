"""Dithered one bit: the sign of x + u with u uniform in [-λ, λ], which stands for λ or -λ.

Unbiased where |x| <= λ in every coordinate; what is beyond is cut off. With λ = max|x| of each bucket, for a vector in
one bucket ω = d max|x|^2 / ||x||_2^2 - 1, for all B - 1. With `rho` λ = ρ ||x||_2 / sqrt(B), of each bucket of B
coordinates; with a fixed `level` λ everybody knows it; these two have no ω. Bits: d, and 32 for each bucket unless the
level is fixed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors import Compressor
from mpibench.compressors._parts import norms, numbers_and_rest, of_buckets, parts, uniform, unpack_signs, with_numbers
from mpibench.errors import InvalidInput
from mpibench.parameters import Count, Positive


@dataclass(frozen=True)
class DitheredOneBit(Compressor):
    level: Positive | None = None  # λ
    rho: Positive | None = None  # ρ, of λ = ρ ||x||_2 / sqrt(B)
    bucket: Count | None = None  # B, coordinates; the whole vector if there is none
    name: Literal["dithered_one_bit"] = "dithered_one_bit"

    def __post_init__(self):
        if self.level is not None and (self.rho, self.bucket) != (None, None):
            raise InvalidInput(f"{self.name} has a fixed `level`, or one of each bucket, and not both")

    def buckets(self, d):
        """(coordinates of a bucket, number of levels that are sent)."""
        size = min(self.bucket or d, d)
        return size, 0 if self.level is not None else -(-d // size)

    def levels(self, x):
        """λ of each bucket."""
        d, (size, count) = len(x), self.buckets(len(x))
        if self.level is not None:
            return numpy.array([self.level], x.dtype)
        if self.rho is None:
            return numpy.maximum.reduceat(numpy.abs(x), numpy.arange(0, d, size))
        lengths = numpy.full(count, size)
        lengths[-1] = d - size * (count - 1)
        return self.in_range((norms(x, size) * (self.rho / numpy.sqrt(lengths))).astype(x.dtype))

    def pack(self, x, rng, shared):
        levels, (size, count) = self.levels(x), self.buckets(len(x))
        signs = numpy.empty(len(x), bool)
        for part in parts(len(x), size):
            u = uniform(rng, x[part])
            u *= 2
            u -= 1
            u *= of_buckets(levels, size, part)
            u += x[part]
            numpy.greater_equal(u, 0, out=signs[part])
        return with_numbers(levels[:count], numpy.packbits(signs, bitorder="little"))

    def unpack(self, data, like, shared):
        size, count = self.buckets(len(like))
        levels, packed = numbers_and_rest(data, count, like)
        x = unpack_signs(packed, like.dtype.type(1), len(like))
        for part in parts(len(x), size):
            x[part] *= of_buckets(levels, size, part) if count else self.level
        return x

    def bits(self, d, width=32):
        return d + width * self.buckets(d)[1]

    def omega(self, d):
        return self.buckets(d)[0] - 1 if (self.level, self.rho) == (None, None) else None
