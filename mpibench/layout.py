"""Messages as bytes: where the numbers and the vectors of a body lie.

    header     modelled arrival (ns, int64), serial number on its edge (int64), tag (int32), bytes of the signature
    signature  types and shapes of the body as text; a layout is made from it once
    numbers    8 bytes each, then the vectors, each at a multiple of 64

A body whose vectors exceed `INLINE` bytes goes as header and numbers first and then each vector from its own memory,
without a copy: what has been handed over is frozen, so MPI may read it there. Tensors on a GPU are staged through host
memory after their stream is synchronised. Numbers and vectors need no pickle; anything else is pickled.
"""

import math
import pickle
import struct
from functools import cache, lru_cache

import numpy

from mpibench.node import Packed

HEADER = struct.Struct("<qqii")
INLINE = 32 * 1024
PACKED = "q"
FORMATS = {int: "q", float: "d", bool: "?7x"}  # of numbers, 8 bytes each, in a signature as in a struct


class Layout:
    """Where the parts of a body of this signature lie."""

    def __init__(self, signature):
        self.text = repr(signature).encode()
        self.formats, self.vectors = [], []
        self.parts = [self.part(item) for item in signature]
        self.numbers = struct.Struct("<" + "".join(self.formats))
        self.start = HEADER.size + len(self.text)  # of the numbers
        self.inline = sum(vector.size for vector in self.vectors) <= INLINE
        message, end = [HEADER.format, f"{len(self.text)}s", *self.formats], self.start + self.numbers.size
        for vector in self.vectors if self.inline else ():
            vector.start = -(-end // 64) * 64
            message.append(f"{vector.start - end}x{vector.size}s")
            end = vector.start + vector.size
        self.message = struct.Struct("".join(message))  # header, signature, numbers and what is inline

    def part(self, item):
        """What an item of the signature stands for: None, the format of a number, a Vector, or a list of parts."""
        if isinstance(item, str):
            self.formats.append(item)
        if item is None or isinstance(item, str):
            return item
        if item[0] == "(":
            return [self.part(inner) for inner in item[1:]]
        if item[0] == PACKED:
            self.formats.append("q")  # its bits
        self.vectors.append(Vector(*item))
        return self.vectors[-1]

    def build(self, parts, numbers, buffers):
        """The body, from iterators over its numbers and over the buffers in which its vectors lie."""
        body = []
        for part in parts:
            kind = type(part)
            if kind is str:
                body.append(next(numbers))
            elif kind is Vector:
                vector = part.read(next(buffers))
                body.append(Packed(vector, next(numbers)) if part.kind == PACKED else vector)
            else:
                body.append(None if part is None else self.build(part, numbers, buffers))
        return tuple(body)


class Vector:
    """An array in a message, a tensor of which it holds the bytes, or an object of which it holds the pickle."""

    def __init__(self, kind, dtype, shape, *of_tensor):
        self.kind, self.dtype, self.shape, self.of_tensor = kind, numpy.dtype(dtype), shape, of_tensor
        self.size = self.dtype.itemsize * math.prod(shape)  # bytes
        self.start = 0  # in its buffer

    def read(self, buffer):
        """What this buffer holds."""
        array = numpy.ndarray(self.shape, self.dtype, buffer, self.start)
        if self.kind in "aq":
            array.setflags(write=False)
            return array if self.shape else array[()]
        if self.kind == "p":
            return pickle.loads(array)
        import torch

        (shape, device), dtype = self.of_tensor, getattr(torch, self.kind)
        flat = torch.frombuffer(array, dtype=dtype) if array.size else torch.empty(0, dtype=dtype)
        return flat.reshape(shape).to(device)


@cache
def name_of(dtype):
    """The text of a numpy dtype; None if it does not say all."""
    return None if dtype.kind in "OV" else dtype.str


def describe(body, numbers, vectors):
    """The signature of a body; its numbers and its vectors (arrays) are appended to the two lists."""
    signature = []
    for item in body:
        kind = type(item)
        if (kind is int and -(1 << 63) <= item < 1 << 63) or kind is float or kind is bool:
            signature.append(FORMATS[kind])
            numbers.append(item)
        elif (kind is numpy.ndarray or isinstance(item, numpy.generic)) and (name := name_of(item.dtype)):
            signature.append(("a", name, item.shape))
            vectors.append(item)
        elif item is None:
            signature.append(None)
        elif kind is Packed:
            signature.append((PACKED, "|u1", item.data.shape))
            numbers.append(item.bits)
            vectors.append(item.data)
        elif kind is tuple:
            signature.append(("(", *describe(item, numbers, vectors)))
        elif hasattr(item, "deferred"):  # in simulation only, of one message of each kind
            signature.extend(describe((item.value,), numbers, vectors))
        elif hasattr(item, "untyped_storage"):
            import torch

            host = item.detach().contiguous().cpu()  # cpu() waits for the stream that computes the tensor
            vectors.append(host.reshape(-1).view(torch.uint8).numpy())
            name, shape = str(item.dtype).removeprefix("torch."), tuple(item.shape)
            signature.append((name, "|u1", (vectors[-1].size,), shape, item.device.type))
        else:
            vectors.append(numpy.frombuffer(pickle.dumps(item), numpy.uint8))
            signature.append(("p", "|u1", vectors[-1].shape))
    return tuple(signature)


@lru_cache(2000)
def size_of(signature):
    """The bytes that MPI is handed for a body of this signature."""
    layout = Layout(signature)
    return layout.message.size + (0 if layout.inline else sum(vector.size for vector in layout.vectors))


def wire_bytes(body):
    """The bytes that MPI is handed for a message, all of its header included."""
    return size_of(describe(body, [], []))
