"""LAQ grid: every coordinate goes to the nearest of 2^b points, at equal distances from -max|x| to max|x|.

Its error is at most R/(2^b - 1) in every coordinate, R = max|x|: a contraction where d < (2^b - 1)^2, with δ = 1 -
d/(2^b - 1)^2. LAQ has it for the difference of a gradient to the last one sent, which receiver and sender keep. Bits:
32 for R, and b d. J. Sun, T. Chen, G. B. Giannakis, Z. Yang, "Communication-Efficient Distributed Learning via Lazily
Aggregated Quantized Gradients", NeurIPS 2019, arXiv 1909.07588.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Le

from mpibench import packing
from mpibench.compressors import Compressor
from mpibench.compressors._parts import numbers_and_rest, parts, with_numbers


@dataclass(frozen=True)
class LAQ(Compressor):
    bits_per_coordinate: Annotated[int, Ge(1), Le(16)]  # b
    name: Literal["laq"] = "laq"

    def pack(self, x, rng, shared):
        top = 2**self.bits_per_coordinate - 1
        R = numpy.abs(x).max(keepdims=True)
        codes = numpy.empty(len(x), packing.word(self.bits_per_coordinate))
        for part in parts(len(x)):
            level = x[part] / (R if R[0] else 1)  # in [-1, 1]
            level += 1
            level *= top / 2
            level += 0.5
            codes[part] = numpy.minimum(numpy.floor(level, out=level), top, out=level)
        return with_numbers(R, packing.pack(codes, self.bits_per_coordinate))

    def unpack(self, data, like, shared):
        (R,), packed = numbers_and_rest(data, 1, like)
        x = packing.unpack(packed, self.bits_per_coordinate, len(like)).astype(like.dtype)
        for part in parts(len(x)):
            y = x[part]
            y *= 2 / (2**self.bits_per_coordinate - 1)
            y -= 1
            y *= R
        return x

    def bits(self, d, width=32):
        return self.bits_per_coordinate * d + width

    def delta(self, d):
        δ = 1 - d / (2**self.bits_per_coordinate - 1) ** 2
        return δ if δ > 0 else None
