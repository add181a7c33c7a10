"""The cubic lattice as a code for models: b bits a coordinate, for a receiver that has a vector nearby.

The error of a norm-based code grows with the vector; models that agree are long and close to each other. Here it
depends on their distance alone: with side s and q = 2^b colours, x goes to the lattice point z = floor(x/s + u), with u
uniform in [0, 1), and only the colours z mod q are sent. The receiver takes the point of these colours that is nearest
to its reference y. It is z wherever |x - y| < (q/2 - 1) s in every coordinate; beyond, from about half the period q s
on, it is wrong by a multiple of q, which is no noise: a 64-bit hash of z, sent along, tells. s z is an unbiased
estimate of x, with an error below s.

P. Davies, V. Gurunathan, N. Moshrefi, S. Ashkboos, D. Alistarh, "New Bounds For Distributed Mean Estimation and
Variance Reduction", ICLR 2021. Everything is computed in float64 on the host, so that numpy and torch vectors of one
type have the same points.
"""

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated

import numpy
from annotated_types import Ge, Le

from mpibench.errors import InvalidInput
from mpibench.packing import pack, unpack

Bits = Annotated[int, Ge(0), Le(16)]  # per coordinate; 0 for full precision
EXACT = 2.0**52  # whole numbers below this are exact, also with a fraction of 1/2


@dataclass(frozen=True)
class Lattice:
    """The lattice of this side and its 2^bits colours."""

    bits: int  # b, from 1 to 16
    side: float  # s > 0

    def __post_init__(self):
        if not 1 <= self.bits <= 16 or not 0 < self.side < math.inf:
            text = f"a lattice of {self.bits} bits and side {self.side} is none: bits go from 1 to 16, the side is > 0"
            raise InvalidInput(text)

    @classmethod
    def within(cls, bits, bound):
        """The finest lattice for all x with |x - y| <= bound in every coordinate, of side 2 bound / (q - 2)."""
        if bits < 2:
            raise InvalidInput(f"bits = {bits} cannot tell points within a bound apart; from 2 on they can")
        return cls(bits, 2 * bound / (2**bits - 2))

    def bytes(self, dimension):
        """The length of the packed colours; the hash has 8 more."""
        return -(-self.bits * dimension // 8)

    def holds(self, x):
        """Whether all of x are numbers, and not so large that no fraction of the side is left of them."""
        return bool((numpy.abs(on_host(x) / self.side) < EXACT).all())  # false for NaN

    def encode(self, x, rng):
        """((packed colours, hash), the point s z as a vector like x); rng: numpy Generator of the dither u.

        InvalidInput where x has a coordinate that is not finite, or has no point.
        """
        if not self.holds(x):
            text = f"cannot round to a lattice of side {self.side}: all coordinates must be finite and below 2^52 sides"
            raise InvalidInput(text)
        values = on_host(x)
        z = numpy.floor(values / self.side + rng.random(values.shape)).astype(numpy.int64)
        return (pack(z & (2**self.bits - 1), self.bits), hash_of(z)), like(x, z * self.side)

    def decode(self, message, y):
        """The point of these colours nearest to y, as a vector like y; None if that is not the one of the hash."""
        if not self.holds(y):
            return None
        colours, q = unpack(message[0], self.bits, len(y)).astype(numpy.int64), 2**self.bits
        z = colours + q * numpy.rint((on_host(y) / self.side - colours) / q).astype(numpy.int64)
        return like(y, z * self.side) if hash_of(z) == message[1] else None


class Codec:
    """Vectors as messages, for one rank: in colours on a lattice, or as they are where there is none.

    bits: 0 for full precision, else per coordinate; side: of the lattice, or bound: on the distance of two models in
    any coordinate, from which the side follows. A vector that the lattice does not hold, as in a run that diverges,
    goes as it is. InvalidInput where these do not fit together.
    """

    def __init__(self, bits, side=None, bound=None):
        if bits == 0 and (side, bound) != (None, None):
            raise InvalidInput("a side or a bound is of a lattice, whose bits must be from 1 to 16; none are given")
        if bits and (side is None) == (bound is None):
            raise InvalidInput(f"bits = {bits} needs the lattice's side, or a bound that gives it, and not both")
        self.lattice = None
        if bits:
            self.lattice = Lattice(bits, side) if bound is None else Lattice.within(bits, bound)

    def encode(self, x, rng):
        """(what to send, the vector that it stands for)."""
        if self.lattice is None or not self.lattice.holds(x):
            return x, x
        return self.lattice.encode(x, rng)

    def decode(self, message, y):
        """The vector that a message stands for, for a receiver that has y; None if that is too far away to say."""
        return self.lattice.decode(message, y) if is_packed(message) else message

    def answer(self, message, x, rng):
        """(what to answer with x, the vector that the message stands for, the one that the answer stands for).

        The answer is of the message's kind. All None, for full precision, where the message cannot be decoded with x,
        or the answer could not be with what the message stands for.
        """
        theirs = self.decode(message, x)
        if theirs is not None:
            answer, own = self.encode(x, rng) if is_packed(message) else (x, x)
            if self.decode(answer, theirs) is not None:
                return answer, theirs, own
        return None, None, None


def is_packed(message):
    """Whether a Codec's message is in colours."""
    return type(message) is tuple


def hash_of(z):
    """64 bits of these whole numbers, as a signed integer."""
    return int.from_bytes(blake2b(z.astype("<i8").tobytes(), digest_size=8).digest(), "little", signed=True)


def on_host(x):
    """A vector, numpy or torch, as a numpy array of float64."""
    return numpy.asarray(x.detach().cpu() if hasattr(x, "cpu") else x, numpy.float64)


def like(x, values):
    """A numpy array as a vector of x's kind, type and place."""
    return x.new_tensor(values) if hasattr(x, "new_tensor") else values.astype(x.dtype)
