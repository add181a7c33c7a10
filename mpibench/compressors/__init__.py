"""Compressors: vectors as messages of few bits. One file each, whose name is the one that experiments use.

A compressor is a frozen dataclass of its parameters. `encode(x, rng, shared)` packs a vector into real bytes and
`decode(packed, like, shared)` makes the vector C(x) of them. Neither keeps anything: what goes over from message to
message is its sender's (`ErrorFeedback`). Unbiased compressors have `omega(d)`, with E C(x) = x and E||C(x) - x||^2 <=
ω ||x||^2; contractions have `delta(d)`, with E||C(x) - x||^2 <= (1 - δ) ||x||^2; d is the number of coordinates.

`bits(d, width)` is the paper's formula, in which a number that is sent as it is has as many bits as in the vector:
`width` is 32 for float32, as in papers, and 64 for float64. A message has these bits, padded to whole bytes at its end.

Vectors have one axis, of float32 or float64, and are numpy arrays or torch tensors; those on a GPU are staged through
host memory. All arithmetic is numpy's, in the vector's type, so that libraries agree in every bit.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy

from mpibench.errors import InvalidInput
from mpibench.node import Packed

TYPES = (numpy.dtype("float32"), numpy.dtype("float64"))


class NotFinite(InvalidInput):
    """A vector with NaN or infinity, or too long for a number of its type to say how long."""


class WrongMessage(InvalidInput):
    """A message that its compressor cannot have made."""


@dataclass(frozen=True)
class Compressor:
    """What all compressors have. A new one writes `pack`, `unpack`, `bits`, and `omega` or `delta`."""

    catalogued: ClassVar[str] = "compressor"  # the kind of file, for a parameter that is one of these
    shares: ClassVar[bool] = False  # whether sender and receiver need randomness in common

    def encode(self, x, rng, shared=None):
        """The vector x as a Packed; x is only read. rng: numpy Generator of this rank alone; shared: a seed (ints) that
        the receiver has too, say node.shared_seed(k) at step k. NotFinite where x has NaN or infinity."""
        (packed,) = self.encode_pieces(x, [slice(0, len(on_host(x)))], rng, shared)
        return packed

    def encode_pieces(self, x, places, rng, shared=None):
        """The parts of x at these slices, which cover it, each as a Packed that is decoded alone."""
        values = on_host(x)
        self.check_shared(shared)
        for place in places:
            self.check(place.stop - place.start)
        if not finite(values):
            place = int(numpy.isfinite(values).argmin())
            raise NotFinite(f"{self.name} cannot compress NaN or infinity: coordinate {place} is {values[place]}")
        with numpy.errstate(over="ignore", invalid="ignore"):
            pieces = self.pack_pieces(values, places, rng, shared)
        lengths = [self.bits(place.stop - place.start, 8 * values.itemsize) for place in places]
        return [Packed(p, 8 * p.size if bits is None else bits) for p, bits in zip(pieces, lengths, strict=True)]

    def decode(self, packed, like, shared=None, source=None, tag=None):
        """The vector that a message stands for, of the length, type, library and place of `like`.

        `source` and `tag` are named where the message cannot be one of this compressor (WrongMessage)."""
        values = on_host(like)
        d, width = len(values), 8 * values.itemsize
        self.check_shared(shared)
        if not isinstance(packed, Packed):
            raise self.wrong(f"has no packed vector but {type(packed).__name__}", source, tag)
        size, bits = packed.data.size, self.bits(d, width)
        if bits is None:
            right, here = packed.bits == 8 * size and self.possible(size, d, width), "which none of it can have"
        else:
            right, here = (size, packed.bits) == (-(-bits // 8), bits), f"in place of {-(-bits // 8)} and {bits}"
        if not right:
            text = f"has {size} bytes and {packed.bits} bits, {here}, for {d} numbers of {width} bits"
            raise self.wrong(text, source, tag)
        try:
            return like_vector(like, self.unpack(packed.data, values, shared))
        except ValueError as error:
            raise self.wrong(str(error), source, tag) from error

    def wrong(self, text, source, tag):
        """The error about a message."""
        name = "a message" if tag is None else f"message {getattr(tag, 'name', tag)}"
        return WrongMessage(f"{name}{'' if source is None else f' from rank {source}'}, to {self.name}, {text}")

    def check(self, d):
        """InvalidInput where these parameters make no sense for d coordinates."""
        if d < 1:
            raise InvalidInput(f"{self.name} compresses vectors of at least one coordinate, and this has none")

    def check_shared(self, shared):
        """InvalidInput where randomness in common is needed and there is none."""
        if self.shares and shared is None:
            raise InvalidInput(f"{self.name} needs a seed that sender and receiver have in common, and there is none")

    def in_range(self, numbers):
        """These numbers; NotFinite where one of them is beyond what its type can hold."""
        if not numpy.isfinite(numbers).all():
            raise NotFinite(f"{self.name} cannot compress a vector whose code leaves the range of {numbers.dtype}")
        return numbers

    def pack(self, x, rng, shared):
        """x, a finite numpy vector, as a uint8 array."""
        raise NotImplementedError

    def pack_pieces(self, x, places, rng, shared):
        """The same for each of these slices."""
        return [self.pack(x[place], rng, shared) for place in places]

    def unpack(self, data, like, shared):
        """A new numpy vector of the length and type of `like`, the receiver's vector, from the bytes of `pack`, which
        are only read. ValueError, what is wrong with the message, where `pack` cannot have made them."""
        raise NotImplementedError

    def bits(self, d, width=32):
        """Bits of a message by the paper's formula; None where they depend on the vector."""
        raise NotImplementedError

    def possible(self, size, d, width):
        """Whether a message whose length depends on the vector can have this many bytes."""
        return True

    def omega(self, d):
        """ω of an unbiased compressor, the least that holds for all x; None for a biased one."""
        return None

    def delta(self, d):
        """δ of a contraction, the largest that holds for all x; None where it is none."""
        omega = self.omega(d)
        return None if omega is None or omega >= 1 else 1 - omega


class Memoryless:
    """A sender that keeps nothing: what goes out is C(v). A vector without a code, because the run diverges, goes as it
    is, so that such a run ends as it would without compression."""

    def __init__(self, compressor):
        self.compressor = compressor

    def encode(self, v, rng, shared=None):
        """The message of this vector."""
        (message,) = self.encode_pieces(v, [slice(0, len(v))], rng, shared)
        return message

    def encode_pieces(self, v, places, rng, shared=None):
        """A message for each of these slices, which cover the vector."""
        try:
            return self.compressor.encode_pieces(v, places, rng, shared)
        except NotFinite:
            return [v[place] for place in places]

    def decode(self, message, like, shared=None, source=None, tag=None):
        """What a message of such a sender stands for."""
        diverged = hasattr(message, "shape") and message.shape == like.shape and not finite(on_host(message))
        return message if diverged else self.compressor.decode(message, like, shared, source, tag)


class ErrorFeedback(Memoryless):
    """A sender that adds to a vector what the messages before have left out: u = v + e, C(u) goes out, e = u - C(u).

    With the step inside, v = γ g and the receiver does x - mean(C(u)) (A, as in MEM-SGD and EF-signSGD); with the step
    outside, v = g and it does x - γ mean(C(u)) (B, as in PowerSGD). They are the same for constant γ only.

    An unbiased compressor whose error may be longer than the vector (ω >= 1) would make e grow without end: of such a
    one sender and receiver take C(u) / (1 + ω), which is a contraction with δ = 1/(1 + ω).
    """

    e = None  # zero

    def encode_pieces(self, v, places, rng, shared=None):
        u = v if self.e is None else v + self.e
        messages = super().encode_pieces(u, places, rng, shared)
        q = u * 1  # a new vector like u, all of which is replaced
        for place, message in zip(places, messages, strict=True):
            q[place] = self.decode(message, u[place], shared)
        self.e = u - q
        return messages

    def decode(self, message, like, shared=None, source=None, tag=None):
        omega, x = self.compressor.omega(len(like)), super().decode(message, like, shared, source, tag)
        return x if omega is None or omega < 1 else x / (1 + omega)


def on_host(x):
    """A vector, numpy or torch, as a numpy array, which is not to be written; InvalidInput where it is no vector."""
    values = x.detach().cpu().numpy() if hasattr(x, "detach") else x
    if not isinstance(values, numpy.ndarray) or values.ndim != 1 or values.dtype not in TYPES:
        what = f"{values.dtype} of shape {values.shape}" if hasattr(values, "shape") else type(x).__name__
        raise InvalidInput(f"compressors take vectors of float32 or float64 with one axis, not {what}")
    return numpy.ascontiguousarray(values)


def like_vector(like, values):
    """A new numpy array as a vector of the library and place of `like`."""
    if isinstance(like, numpy.ndarray):
        return values
    import torch

    return torch.from_numpy(values).to(like.device)


def finite(x):
    """Whether all of a numpy vector are numbers."""
    with numpy.errstate(over="ignore", invalid="ignore"):
        return bool(numpy.isfinite(x @ x) or numpy.isfinite(x).all())
