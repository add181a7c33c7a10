"""QSGD: random rounding of |x| to multiples of ||x||_2 / s, in each bucket by its own norm.

Q(x_i) = ||x|| sign(x_i) z_i / s, where z_i is s |x_i| / ||x|| rounded up with the probability of its fraction. Unbiased
with ω = min(B/s^2, sqrt(B)/s) for buckets of B coordinates. Bits: d (1 + ceil(log2(s + 1))) + 32 ceil(d/B), of fixed
length; Elias codes, which are shorter for small s, are not used. D. Alistarh, D. Grubic, J. Li, R. Tomioka, M.
Vojnovic, "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017, arXiv 1610.02132.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Le

from mpibench import packing
from mpibench.compressors import Compressor
from mpibench.compressors._parts import norms, numbers_and_rest, of_buckets, parts, uniform, with_numbers
from mpibench.parameters import Count

Levels = Annotated[int, Ge(1), Le(32767)]


@dataclass(frozen=True)
class QSGD(Compressor):
    levels: Levels  # s
    bucket: Count | None = None  # B, coordinates; the whole vector if there is none
    name: Literal["qsgd"] = "qsgd"

    def buckets(self, d):
        """(coordinates of a bucket, number of buckets)."""
        size = min(self.bucket or d, d)
        return size, -(-d // size)

    @property
    def each(self):
        """Bits of a coordinate."""
        return 1 + self.levels.bit_length()

    def pack(self, x, rng, shared):
        d, size = len(x), self.buckets(len(x))[0]
        scale = self.in_range(norms(x, size))
        units = numpy.where(scale > 0, scale, 1).astype(x.dtype)  # a bucket of zeros stays one
        codes = numpy.empty(d, packing.word(self.each))
        for part in parts(d, size):
            y = x[part]
            a = numpy.abs(y) / of_buckets(units, size, part)
            a *= self.levels
            z = numpy.floor(a)
            a -= z
            z += uniform(rng, y) < a
            numpy.minimum(z, self.levels, out=z)  # a norm that was rounded down
            z *= 2
            z += y < 0
            codes[part] = z
        return with_numbers(scale, packing.pack(codes, self.each))

    def unpack(self, data, like, shared):
        d, (size, count) = len(like), self.buckets(len(like))
        scale, packed = numbers_and_rest(data, count, like)
        codes = packing.unpack(packed, self.each, d)
        x = numpy.empty_like(like)
        for part in parts(d, size):
            y, code = x[part], codes[part]
            numpy.multiply(code >> 1, like.dtype.type(1 / self.levels), out=y)
            y *= 1 - 2 * (code & 1).astype(like.dtype)
            y *= of_buckets(scale, size, part)
        return x

    def bits(self, d, width=32):
        return d * self.each + width * self.buckets(d)[1]

    def omega(self, d):
        size = self.buckets(d)[0]
        return min(size / self.levels**2, size**0.5 / self.levels)
