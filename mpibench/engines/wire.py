"""Messages as bytes: one buffer holds a small header, the numbers and the vectors, so nothing can be split.

    header     modelled arrival (ns, int64), serial number on its edge (int64), tag (int32), bytes of the signature
    signature  types and shapes of the body as text; a layout is made from it once
    numbers    8 bytes each, then the vectors, each at a multiple of 64

A body whose vectors exceed `INLINE` bytes goes as header and numbers first and then each vector from its own memory,
without a copy: what has been handed over is frozen, so MPI may read it there. Tensors on a GPU are staged through host
memory after their stream is synchronised. Numbers and vectors need no pickle; anything else is pickled.
"""

import ast
import math
import pickle
import struct
import sys
from collections import defaultdict
from functools import cache
from itertools import repeat

import numpy
from mpi4py import MPI

HEADER = struct.Struct("<qqii")
INLINE = 32 * 1024
MESSAGE, PAYLOAD = 1, 2  # MPI tags
MOST_LAYOUTS = 2000
FORMATS = {int: "q", float: "d", bool: "?7x"}  # of numbers, 8 bytes each, in a signature as in a struct


class Pool:
    """Byte buffers that are used again once nobody refers to them, so that large ones are not mapped anew."""

    def __init__(self):
        self.shelves = defaultdict(list)

    def take(self, size):
        """A buffer (uint8 array) of at least `size` bytes."""
        bits = max(size - 1, 255).bit_length()
        shelf = self.shelves[bits]
        for place in range(len(shelf)):
            if sys.getrefcount(shelf[place]) == 2:  # the shelf and the argument
                shelf.append(shelf.pop(place))  # the longest unused stand first
                return shelf[-1]
        shelf.append(numpy.empty(1 << bits, numpy.uint8))
        return shelf[-1]


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
                body.append(part.read(next(buffers)))
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
        if self.kind == "a":
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
        elif kind is tuple:
            signature.append(("(", *describe(item, numbers, vectors)))
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


def complete(requests):
    """Whether all of these MPI requests are complete."""
    while requests and requests[-1].Test():
        requests.pop()
    return not requests


class Wire:
    """Bodies between the ranks of a communicator, first in first out from each source. Never blocks."""

    def __init__(self, comm):
        self.comms = [comm]
        self.status = MPI.Status()
        self.pool = Pool()
        self.layouts = {}
        self.sending = []  # [MPI requests, what to call when they are complete]
        self.sent = [0] * comm.size  # by destination; the serial number of the next message
        self.received = [0] * comm.size  # by source
        self.early = defaultdict(dict)  # by source: serial -> what is not complete, or before its turn
        self.bytes = 0  # handed to MPI

    def send(self, index, to, tag, arrival, body, finished=None):
        """Begin to send on communicator `index`; `finished()` is called once the send is complete."""
        numbers, vectors = [], []
        signature = describe(body, numbers, vectors)
        layout = self.layouts.get(signature) or self.learn(signature, signature)
        if layout.inline:
            numbers += [vector.tobytes() for vector in vectors]
        data = layout.message.pack(arrival, self.sent[to], tag, len(layout.text), layout.text, *numbers)
        comm = self.comms[index]
        requests = [comm.Isend([data, MPI.BYTE], to, MESSAGE)]
        self.bytes += len(data)
        if not layout.inline:
            for vector in map(numpy.ascontiguousarray, vectors):
                requests.append(comm.Isend([vector, vector.nbytes, MPI.BYTE], to, PAYLOAD))
                self.bytes += vector.nbytes
        self.sent[to] += 1
        self.sending.append((requests, finished))

    def learn(self, key, signature):
        """The layout of a signature, kept under `key`; bodies of ever new sizes do not fill the memory."""
        if len(self.layouts) >= MOST_LAYOUTS:
            self.layouts.clear()
        layout = self.layouts[key] = Layout(signature)
        return layout

    def progress(self):
        """Let sends complete; true while some are under way."""
        if self.sending:
            sending, self.sending = self.sending, []  # what is called may send: that is looked at the next time
            for entry in sending:
                if not complete(entry[0]):
                    self.sending.append(entry)
                elif entry[1] is not None:
                    entry[1]()
        return bool(self.sending)

    def poll(self):
        """What has arrived: a list of (source, communicator, tag, modelled arrival, body)."""
        arrived, status = [], self.status
        for index, comm in enumerate(self.comms):
            while (message := comm.Improbe(MPI.ANY_SOURCE, MESSAGE, status)) is not None:
                source, data = status.source, bytearray(status.count)
                message.Recv([data, MPI.BYTE])
                arrival, serial, tag, length = HEADER.unpack_from(data)
                text = bytes(data[HEADER.size : HEADER.size + length])
                layout = self.layouts.get(text) or self.learn(text, ast.literal_eval(text.decode()))
                requests, buffers = (), repeat(data)
                if not layout.inline:
                    requests, buffers = [], []
                    for vector in layout.vectors:
                        buffers.append(self.pool.take(vector.size))
                        requests.append(comm.Irecv([buffers[-1], vector.size, MPI.BYTE], source, PAYLOAD))
                numbers = layout.numbers.unpack_from(data, layout.start)
                entry = requests, index, tag, arrival, layout, iter(numbers), iter(buffers)
                if requests or serial != self.received[source]:
                    self.early[source][serial] = entry
                else:
                    self.deliver(source, entry, arrived)
        if self.early:
            self.release(arrived)
        return arrived

    def release(self, arrived):
        """Deliver what is complete by now and has its turn."""
        for source, entries in list(self.early.items()):
            while (entry := entries.get(self.received[source])) is not None and complete(entry[0]):
                del entries[self.received[source]]
                self.deliver(source, entry, arrived)
            if not entries:
                del self.early[source]

    def deliver(self, source, entry, arrived):
        """Move a message to `arrived`."""
        _, index, tag, arrival, layout, numbers, buffers = entry
        self.received[source] += 1
        arrived.append((source, index, tag, arrival, layout.build(layout.parts, numbers, buffers)))
