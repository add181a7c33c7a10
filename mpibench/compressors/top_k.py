"""Top-k: the k coordinates of largest magnitude; of equal ones those of lowest index.

A contraction with δ = k/d, and far better than that where few coordinates are large. Bits: 32 k for the values and
min(k ceil(log2 d), d) for their places, as ascending indices or as a bitmap. S. U. Stich, J.-B. Cordonnier, M. Jaggi,
"Sparsified SGD with Memory", NeurIPS 2018, arXiv 1809.07599.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors._sparse import Sparse, pack_places, places_bits, scatter, unpack_places

SAMPLE = 1 << 14  # coordinates that guess where the k-th largest is


@dataclass(frozen=True)
class TopK(Sparse):
    name: Literal["top_k"] = "top_k"

    def pack(self, x, rng, shared):
        places = largest(x, self.kept(len(x)))
        return numpy.concatenate([x[places].view(numpy.uint8), pack_places(places, len(x))])

    def unpack(self, data, like, shared):
        end = self.kept(len(like)) * like.itemsize
        values = data[:end].view(like.dtype)
        return scatter(values, unpack_places(data[end:], len(values), len(like)), like)

    def bits(self, d, width=32):
        return width * self.kept(d) + places_bits(self.kept(d), d)

    def delta(self, d):
        return self.kept(d) / d


def largest(x, k):
    """The places of the k largest |x|, ascending; of equal ones the first.

    Most of a long vector is below a bound that a sample of it gives; only what is not is sorted any further.
    """
    magnitude = numpy.abs(x)
    places = None
    if len(x) > 8 * SAMPLE and 8 * k < len(x):
        sample = magnitude[:: len(x) // SAMPLE]
        rank = int(len(sample) * min(1.0, 1.2 * k / len(x) + 50 / len(sample)))
        places = numpy.flatnonzero(magnitude >= numpy.partition(sample, len(sample) - rank)[len(sample) - rank])
    if places is None or len(places) < k:
        places = numpy.arange(len(x))
    else:
        magnitude = magnitude[places]
    least = numpy.partition(magnitude, len(places) - k)[len(places) - k]
    above = magnitude > least
    equal = numpy.flatnonzero(magnitude == least)[: k - int(above.sum())]
    above[equal] = True
    return places[above]
