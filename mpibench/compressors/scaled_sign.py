"""Scaled sign: the sign of every coordinate, and one number for how long the vector is. The sign of 0 is +1.

With scale "l1", ||x||_1 / d, it is the nearest vector of its signs and a contraction, with δ = ||x||_1^2 / (d
||x||_2^2) of a vector and 1/d of all: EF-signSGD. With "l2", ||x||_2 / sqrt(d), as in 1-bit Adam, it is as long as x,
and its error can be longer than that. Bits: 32 for the scale, and d. S. P. Karimireddy, Q. Rebjock, S. U. Stich, M.
Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, arXiv 1901.09847.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors import Compressor
from mpibench.compressors._parts import norm, numbers_and_rest, pack_signs, parts, unpack_signs, with_numbers


@dataclass(frozen=True)
class ScaledSign(Compressor):
    scale: Literal["l1", "l2"] = "l1"
    name: Literal["scaled_sign"] = "scaled_sign"

    def length(self, x):
        """The scale, in one place."""
        d = len(x)
        if self.scale == "l2":
            length = norm(x) / math.sqrt(d)
        else:
            length = sum(float(numpy.abs(x[part]).sum(dtype=numpy.float64)) / d for part in parts(d))
        return self.in_range(numpy.array([length]).astype(x.dtype))

    def pack(self, x, rng, shared):
        return with_numbers(self.length(x), pack_signs(x))

    def pack_pieces(self, x, places, rng, shared):
        length = self.length(x)  # of the whole, for each piece
        return [with_numbers(length, pack_signs(x[place])) for place in places]

    def unpack(self, data, like, shared):
        (scale,), packed = numbers_and_rest(data, 1, like)
        return unpack_signs(packed, scale, len(like))

    def bits(self, d, width=32):
        return d + width

    def delta(self, d):
        return 1 / d if self.scale == "l1" else None
