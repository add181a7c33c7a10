"""Natural compression: |x| is rounded to one of the two powers of 2 around it, so that only sign and exponent are sent.

Up with probability |x| / 2^floor - 1: a random number is added to the mantissa, and what carries over is the rounding.
Unbiased with ω = 1/8, but for numbers below the least normal one, which become 0 or that one. Bits: 9 d, and 12 d for
float64. S. Horváth, C.-Y. Ho, Ľ. Horváth, A. N. Sahu, M. Canini, P. Richtárik, "Natural Compression for Distributed
Deep Learning", MSML 2022, arXiv 1905.10988.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench import packing
from mpibench.compressors import Compressor
from mpibench.compressors._parts import parts

MANTISSA = {32: 23, 64: 52}  # bits


@dataclass(frozen=True)
class Natural(Compressor):
    name: Literal["natural"] = "natural"

    def pack(self, x, rng, shared):
        width = 8 * x.itemsize
        word, mantissa = packing.word(width), MANTISSA[width]
        codes = numpy.empty(len(x), numpy.uint16)
        beyond = (1 << (width - 1 - mantissa)) - 1  # the exponent of infinity
        for part in parts(len(x)):
            patterns = x[part].view(word)
            up = rng.integers(1 << mantissa, size=len(patterns), dtype=word)
            numpy.right_shift(patterns + up, word(mantissa), out=codes[part], casting="unsafe")
            if (codes[part] & beyond).max() == beyond:
                self.in_range(x.dtype.type(numpy.inf))
        return packing.pack(codes, width - mantissa)

    def unpack(self, data, like, shared):
        width = 8 * like.itemsize
        word, mantissa = packing.word(width), MANTISSA[width]
        return (packing.unpack(data, width - mantissa, len(like)).astype(word) << word(mantissa)).view(like.dtype)

    def bits(self, d, width=32):
        return (width - MANTISSA[width]) * d

    def omega(self, d):
        return 1 / 8
