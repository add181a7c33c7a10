"""Many messages of one vector, each with randomness of its own, as one: who receives them needs no more than their sum.

Shadowheart SGD sends thousands of messages of one coordinate a step. Of these only the coordinates that were drawn are
sent, with the sum of their values.
"""

from dataclasses import dataclass

import numpy

from mpibench.compressors import Compressor, Memoryless
from mpibench.compressors._sparse import Sparse, pack_places, places_bits, scatter, unpack_places
from mpibench.compressors.identity import Identity
from mpibench.compressors.rand_k import RandK
from mpibench.errors import InvalidInput

COUNT = 4  # bytes that say how many coordinates follow


@dataclass(frozen=True)
class Repeated(Compressor):
    """C_1(x) + .. + C_times(x). Its bits are those of what is serialised; what links are charged, its sender says."""

    of: Compressor  # unbiased, with messages of one length, not of randomness in common
    times: int

    name = property(lambda self: f"{self.times} times {self.of.name}")

    def check(self, d):
        self.of.check(d)

    def pack(self, x, rng, shared):
        if not isinstance(self.of, RandK):
            return numpy.concatenate([self.of.pack(x, rng, shared) for _ in range(self.times)])
        d, k = len(x), self.of.kept(len(x))
        drawn = self.drawn(d, k, rng)
        places = numpy.flatnonzero(drawn)
        values = self.in_range(x[places] * x.dtype.type(d / k) * drawn[places].astype(x.dtype))
        count = numpy.array([len(places)], "<u4").view(numpy.uint8)
        return numpy.concatenate([count, values.view(numpy.uint8), pack_places(places, d)])

    def drawn(self, d, k, rng):
        """(d,) how many of the messages have a coordinate."""
        if k == 1:
            return numpy.bincount(rng.integers(d, size=self.times), minlength=d)
        return numpy.bincount(numpy.concatenate([self.of.subset(d, rng) for _ in range(self.times)]), minlength=d)

    def unpack(self, data, like, shared):
        if not isinstance(self.of, RandK):
            total = 0
            for part in data.reshape(self.times, -1):
                total = total + self.of.unpack(part, like, shared)
            return self.in_range(total)
        count = int(data[:COUNT].view("<u4")[0])
        end = COUNT + count * like.itemsize
        places = data[end:]
        if places.size != -(-places_bits(count, len(like)) // 8):
            raise ValueError(f"has {data.size} bytes, another length than of {count} coordinates")
        return scatter(data[COUNT:end].copy().view(like.dtype), unpack_places(places, count, len(like)), like)

    def bits(self, d, width=32):
        return None  # what is serialised depends on what is drawn

    def possible(self, size, d, width):
        if isinstance(self.of, RandK):
            return size > COUNT
        return size == self.times * -(-self.of.bits(d, width) // 8)

    def omega(self, d):
        return self.of.omega(d) / self.times  # of the mean


def sender(compressor, times):
    """What packs so many messages of a vector and unpacks their sum; for 0 messages it is the vector itself."""
    return Memoryless(Repeated(compressor, times) if times else Identity())


def charged_bytes(compressor, d, vector_bytes):
    """The bytes of one message that a link is charged, which may be a fraction: numbers are as long as in the vector,
    and the places of coordinates that are kept are free, as in the papers' times of RandK."""
    width = 8 * vector_bytes // d
    kept = isinstance(compressor, Sparse)
    return (width * compressor.kept(d) if kept else compressor.bits(d, width)) / 8


def check_unbiased(compressor, d):
    """InvalidInput where a compressor of d coordinates is none whose messages can be repeated."""
    if compressor.omega(d) is None:
        raise InvalidInput(f"compressor {compressor.name} is biased, and the mean of its messages is another vector")
    if compressor.shares or compressor.bits(d) is None:
        what = "draws alike on all ranks and at every message" if compressor.shares else "has messages of any length"
        raise InvalidInput(f"compressor {compressor.name} {what}, and cannot be repeated")
