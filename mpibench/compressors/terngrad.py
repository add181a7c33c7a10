"""TernGrad: every coordinate is -max|x|, 0 or max|x|, the last two with probability |x_i| / max|x|.

Unbiased; for a vector x with ω = max|x| ||x||_1 / ||x||_2^2 - 1, and for all with (sqrt(d) - 1)/2. Bits: 32 for max|x|,
and 2 d. W. Wen, C. Xu, F. Yan, C. Wu, Y. Wang, Y. Chen, H. Li, "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NeurIPS 2017, arXiv 1705.07878.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench import packing
from mpibench.compressors import Compressor
from mpibench.compressors._parts import TERNARY, numbers_and_rest, parts, uniform, unpack_ternary, with_numbers


@dataclass(frozen=True)
class TernGrad(Compressor):
    name: Literal["terngrad"] = "terngrad"

    def pack(self, x, rng, shared):
        largest = numpy.abs(x).max(keepdims=True)
        codes = numpy.empty(len(x), numpy.uint8)
        for part in parts(len(x)):
            y, code = x[part], codes[part]
            numpy.less(uniform(rng, y) * largest, numpy.abs(y), out=code, casting="unsafe")
            code += code & (y < 0)
        return with_numbers(largest, packing.pack(codes, TERNARY))

    def unpack(self, data, like, shared):
        (largest,), packed = numbers_and_rest(data, 1, like)
        return unpack_ternary(packed, largest, len(like))

    def bits(self, d, width=32):
        return TERNARY * d + width

    def omega(self, d):
        return (math.sqrt(d) - 1) / 2
