"""Threshold: the coordinates with |x| >= λ, however many they are.

Its error is absolute, ||C(x) - x||^2 < d λ^2, and there is no δ. Bits: 64 for each coordinate sent, 32 for its value
and 32 for its place; how many says the length of the message.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors import Compressor
from mpibench.compressors._parts import numbers_and_rest, with_numbers
from mpibench.compressors._sparse import scatter
from mpibench.parameters import Positive


@dataclass(frozen=True)
class Threshold(Compressor):
    level: Positive  # λ
    name: Literal["threshold"] = "threshold"

    def pack(self, x, rng, shared):
        places = numpy.flatnonzero(numpy.abs(x) >= self.level)
        return with_numbers(x[places], places.astype(numpy.uint32).view(numpy.uint8))

    def unpack(self, data, like, shared):
        values, places = numbers_and_rest(data, data.size // (like.itemsize + 4), like)
        return scatter(values, places.view(numpy.uint32), like)

    def bits(self, d, width=32):
        return None

    def possible(self, size, d, width):
        return size % (width // 8 + 4) == 0 and size <= d * (width // 8 + 4)
