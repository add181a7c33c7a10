"""What compressors that keep some coordinates have in common: how many, and which, in few bits."""

from dataclasses import dataclass
from typing import Annotated

import numpy
from annotated_types import Gt, Le

from mpibench import packing
from mpibench.compressors import Compressor
from mpibench.errors import InvalidInput
from mpibench.parameters import Count

Fraction = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class Sparse(Compressor):
    """k of the coordinates, or a fraction of them: k = max(1, floor(fraction d + 1e-9))."""

    k: Count | None = None
    fraction: Fraction | None = None

    def __post_init__(self):
        if (self.k is None) == (self.fraction is None):
            raise InvalidInput(f"{self.name} needs `k` or `fraction`, and not both")

    def kept(self, d):
        """k for d coordinates."""
        return self.k or max(1, int(self.fraction * d + 1e-9))

    def check(self, d):
        super().check(d)
        if self.kept(d) > d:
            raise InvalidInput(f"{self.name} with k = {self.k} cannot keep more than the {d} coordinates there are")


def index_bits(d):
    """ceil(log2 d), of one index."""
    return (d - 1).bit_length()


def places_bits(k, d):
    """Bits that say which k of d coordinates: k indices, or a bitmap where that is smaller."""
    return min(k * index_bits(d), d)


def pack_places(places, d):
    """Ascending places as a uint8 array, in the smaller of the two forms."""
    bits = index_bits(d)
    if len(places) * bits <= d:
        return packing.pack(places, bits) if bits else numpy.empty(0, numpy.uint8)
    bitmap = numpy.zeros(d, bool)
    bitmap[places] = True
    return numpy.packbits(bitmap, bitorder="little")


def unpack_places(data, k, d):
    """The k places of `pack_places`; none of them is beyond d."""
    bits = index_bits(d)
    if k * bits > d:
        return numpy.flatnonzero(numpy.unpackbits(data, bitorder="little", count=d))
    return packing.unpack(data, bits, k).astype(numpy.int64) if bits else numpy.zeros(k, numpy.int64)


def scatter(values, places, like):
    """A vector like `like` that is zero but at these ascending places."""
    if len(places) != len(values) or (len(places) and places[-1] >= len(like)):
        raise ValueError(f"names places that {len(values)} of {len(like)} coordinates cannot have")
    x = numpy.zeros_like(like)
    x[places] = values
    return x
