"""Sign: +1 where x >= 0, and -1 elsewhere; with `zero` also 0 where x is 0. Bits: d, with zeros 2 d.

Biased, and no contraction: how long a step is, the step size says. J. Bernstein, Y.-X. Wang, K. Azizzadenesheli, A.
Anandkumar, "signSGD: Compressed Optimisation for Non-Convex Problems", ICML 2018, arXiv 1802.04434.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench import packing
from mpibench.compressors import Compressor
from mpibench.compressors._parts import TERNARY, pack_signs, unpack_signs, unpack_ternary


@dataclass(frozen=True)
class Sign(Compressor):
    zero: bool = False  # the sign of 0 is 0
    name: Literal["sign"] = "sign"

    def pack(self, x, rng, shared):
        if not self.zero:
            return pack_signs(x)
        return packing.pack((x != 0).astype(numpy.uint8) + (x < 0), TERNARY)

    def unpack(self, data, like, shared):
        one = like.dtype.type(1)
        return unpack_ternary(data, one, len(like)) if self.zero else unpack_signs(data, one, len(like))

    def bits(self, d, width=32):
        return TERNARY * d if self.zero else d
