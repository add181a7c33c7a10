"""Half precision: every number in 16 bits, as float16 or as bfloat16, rounded to the nearest or at random.

The error of a number is at most 2^-11 of it in float16 and 2^-8 in bfloat16: to the nearest δ = 1 - 2^-22 and 1 -
2^-16; at random, unbiased with ω = 2^-22 and 2^-16. float16 has no numbers above 65504 and few below 6e-5: with
`scaled` a vector goes times the power of 2 that brings its largest coordinate near the top. Bits: 16 d, and 16 for that
power.
"""

from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.compressors import Compressor
from mpibench.compressors._parts import parts, uniform

TOP = 15  # the largest coordinate is scaled to below 2^TOP


@dataclass(frozen=True)
class HalfPrecision(Compressor):
    type: Literal["float16", "bfloat16"] = "float16"
    stochastic: bool = False  # rounded at random
    scaled: bool = False
    name: Literal["half_precision"] = "half_precision"

    def pack(self, x, rng, shared):
        power = TOP - int(numpy.frexp(numpy.abs(x).max())[1]) if self.scaled else 0
        codes = numpy.empty(len(x) + self.scaled, numpy.uint16)
        for part in parts(len(x)):
            y = numpy.ldexp(x[part], power) if power else x[part]
            codes[part] = CODES[self.type](y, rng if self.stochastic else None)
        beyond = 0x7C00 if self.type == "float16" else 0x7F80  # the exponent of infinity
        if ((codes[: len(x)] & beyond) == beyond).any():
            self.in_range(numpy.float16(numpy.inf))
        if self.scaled:
            codes[-1:].view(numpy.int16)[0] = power
        return codes.view(numpy.uint8)

    def unpack(self, data, like, shared):
        codes = data.view(numpy.uint16)[: len(like)]
        if self.type == "float16":
            x = codes.view(numpy.float16).astype(like.dtype)
        else:
            x = (codes.astype(numpy.uint32) << numpy.uint32(16)).view(numpy.float32).astype(like.dtype, copy=False)
        return numpy.ldexp(x, -int(data[-2:].view(numpy.int16)[0])) if self.scaled else x

    def bits(self, d, width=32):
        return 16 * (d + self.scaled)

    @property
    def relative(self):
        """The square of the largest error of a number that is 1 or more."""
        return 2.0**-22 if self.type == "float16" else 2.0**-16

    def omega(self, d):
        return self.relative if self.stochastic else None

    def delta(self, d):
        return 1 - self.relative


def to_float16(x, rng):
    """Codes of x, to the nearest where rng is None."""
    codes = x.astype(numpy.float16).view(numpy.uint16)
    if rng is None:
        return codes
    magnitude = numpy.abs(x)
    below = codes - (of_float16(codes, x) > magnitude)  # towards 0
    low, high = of_float16(below, x), of_float16(below + numpy.uint16(1), x)
    return below + (uniform(rng, x) * (high - low) < magnitude - low)


def of_float16(codes, x):
    """The magnitudes that these codes stand for, in the type of x."""
    return numpy.abs(codes.view(numpy.float16)).astype(x.dtype)


def to_bfloat16(x, rng):
    """The same: the upper half of float32."""
    patterns = x.astype(numpy.float32).view(numpy.uint32)
    half = numpy.uint32(16)
    if rng is None:
        patterns = patterns + (((patterns >> half) & 1) + numpy.uint32(0x7FFF))
    else:
        patterns = patterns + rng.integers(1 << 16, size=len(x), dtype=numpy.uint32)
    return patterns >> half


CODES = {"float16": to_float16, "bfloat16": to_bfloat16}
