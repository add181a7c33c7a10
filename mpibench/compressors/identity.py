"""Identity: the vector as it is. Bits: 32 d.

Every compressed method with it is the one that it was made of.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors import Compressor


@dataclass(frozen=True)
class Identity(Compressor):
    name: Literal["identity"] = "identity"

    def pack(self, x, rng, shared):
        return numpy.ascontiguousarray(x).view(numpy.uint8).copy()

    def unpack(self, data, like, shared):
        return data.view(like.dtype).copy()

    def bits(self, d, width=32):
        return width * d

    def omega(self, d):
        return 0.0
