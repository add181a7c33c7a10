"""Rand-k: k coordinates drawn without replacement, every subset alike, and scaled by d/k.

Scaled, it is unbiased with ω = d/k - 1. With `scaled = false` it is a contraction with δ = k/d, for error feedback,
with which the scaled one diverges. With `shared = true` all ranks draw the same subset of a step, from the run's seed,
and no places are sent. Bits: 32 k, and min(k ceil(log2 d), d) for the places where they are not shared.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors._sparse import Sparse, pack_places, places_bits, scatter, unpack_places


@dataclass(frozen=True)
class RandK(Sparse):
    name: Literal["rand_k"] = "rand_k"
    scaled: bool = True
    shared: bool = False  # the subset, by all ranks

    shares = property(lambda self: self.shared)

    def subset(self, d, rng):
        """k of d places, ascending."""
        return numpy.sort(rng.choice(d, self.kept(d), replace=False, shuffle=False))

    def pack(self, x, rng, shared):
        d = len(x)
        places = self.subset(d, numpy.random.default_rng(shared) if self.shared else rng)
        values = x[places]
        if self.scaled:
            values = self.in_range(values * values.dtype.type(d / len(values)))
        data = values.view(numpy.uint8)
        return data if self.shared else numpy.concatenate([data, pack_places(places, d)])

    def unpack(self, data, like, shared):
        d, k = len(like), self.kept(len(like))
        end = k * like.itemsize
        places = self.subset(d, numpy.random.default_rng(shared)) if self.shared else unpack_places(data[end:], k, d)
        return scatter(data[:end].view(like.dtype), places, like)

    def bits(self, d, width=32):
        return width * self.kept(d) + (0 if self.shared else places_bits(self.kept(d), d))

    def omega(self, d):
        return d / self.kept(d) - 1 if self.scaled else None

    def delta(self, d):
        return super().delta(d) if self.scaled else self.kept(d) / d
