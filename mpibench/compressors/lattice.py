"""Lattice: random rounding to a cubic lattice, of which only colours are sent; the receiver has a vector nearby.

Unbiased, with an error below the side s in every coordinate, however long x is, so no ω; the receiver's vector y must
have |x - y| < (2^b/2 - 1) s. What is too far away is found by a hash of 64 bits. Bits: b d + 64. `mpibench.lattice`
says more.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Le

from mpibench import lattice
from mpibench.compressors import Compressor, NotFinite
from mpibench.errors import InvalidInput
from mpibench.parameters import Positive


@dataclass(frozen=True)
class Lattice(Compressor):
    bits_per_coordinate: Annotated[int, Ge(1), Le(16)]  # b
    side: Positive  # s
    name: Literal["lattice"] = "lattice"

    def pack(self, x, rng, shared):
        try:
            (colours, hashed), _ = lattice.Lattice(self.bits_per_coordinate, self.side).encode(x, rng)
        except InvalidInput as error:
            raise NotFinite(str(error)) from error
        return numpy.concatenate([colours, numpy.array([hashed]).view(numpy.uint8)])

    def unpack(self, data, like, shared):
        (hashed,) = data[-8:].view(numpy.int64)
        if (x := lattice.Lattice(self.bits_per_coordinate, self.side).decode((data[:-8], int(hashed)), like)) is None:
            raise ValueError("is of a vector too far away from that of its receiver")
        return x

    def bits(self, d, width=32):
        return self.bits_per_coordinate * d + 64
