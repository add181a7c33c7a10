"""Messages as bytes: one pooled buffer holds a small header, the numbers and the vectors, so nothing can be split.

    header     modelled arrival (ns, int64), serial number on its edge (int64), tag (int32), bytes of the signature
    signature  types and shapes of the body as text; a layout is made from it once
    numbers    8 bytes each, then the vectors, each at a multiple of 64

A body whose vectors exceed `INLINE` bytes goes as header and numbers first and then each vector from its own memory,
without a copy: what has been handed over is frozen, so MPI may read it there. Tensors on a GPU are staged through host
memory after their stream is synchronised. Numbers and vectors need no pickle; anything else is pickled.
"""

import ast
import pickle
import struct
import sys
from collections import defaultdict

import numpy
from mpi4py import MPI

HEADER = struct.Struct("<qqii")
INLINE = 32 * 1024
MESSAGE, PAYLOAD = 1, 2  # MPI tags
CODES = {"i": "q", "f": "d", "b": "q", "n": ""}  # int, float, bool and None in a signature and in a struct


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
        self.signature = signature
        self.text = repr(signature).encode()
        numbers, self.vectors = [], []
        self.collect(signature, numbers)
        self.head = struct.Struct(f"{HEADER.format}{len(self.text)}s")
        self.numbers = struct.Struct("<" + "".join(numbers))
        self.size = self.head.size + self.numbers.size
        self.inline = sum(size for _, size in self.vectors) <= INLINE
        self.places = []
        for _, size in self.vectors if self.inline else ():
            start = -(-self.size // 64) * 64
            self.places.append(slice(start, start + size))
            self.size = start + size

    def collect(self, signature, numbers):
        """Codes of the numbers, and (dtype, bytes) of the vectors."""
        for item in signature:
            if isinstance(item, str):
                numbers.append(CODES[item])
            elif item[0] == "(":
                self.collect(item[1:], numbers)
            else:
                dtype = numpy.dtype(item[1])
                self.vectors.append((dtype, dtype.itemsize * int(numpy.prod(item[2], dtype=int))))

    def build(self, numbers, vectors, signature=None):
        """The body, from iterators over its numbers and over the buffers that hold its vectors."""
        body = []
        for item in self.signature if signature is None else signature:
            if isinstance(item, str):
                body.append(None if item == "n" else bool(next(numbers)) if item == "b" else next(numbers))
            elif item[0] == "(":
                body.append(self.build(numbers, vectors, item[1:]))
            elif item[0] == "a":
                vector = next(vectors).view(item[1]).reshape(item[2])
                vector.setflags(write=False)
                body.append(vector if item[2] else vector[()])
            elif item[0] == "p":
                body.append(pickle.loads(next(vectors)))
            else:
                import torch

                vector, dtype = next(vectors), getattr(torch, item[0])
                flat = torch.frombuffer(vector, dtype=dtype) if vector.size else torch.empty(0, dtype=dtype)
                body.append(flat.reshape(item[3]).to(item[4]))
        return tuple(body)


def describe(body, numbers, vectors):
    """The signature of a body; its numbers and its vectors (contiguous arrays) are appended to the two lists."""
    signature = []
    for item in body:
        kind = type(item)
        if kind is int and -(1 << 63) <= item < 1 << 63:
            signature.append("i")
            numbers.append(item)
        elif (kind is numpy.ndarray or isinstance(item, numpy.generic)) and item.dtype.kind not in "OV":
            signature.append(("a", item.dtype.str, item.shape))
            vectors.append(numpy.ascontiguousarray(item))
        elif kind is float:
            signature.append("f")
            numbers.append(item)
        elif kind is bool:
            signature.append("b")
            numbers.append(item)
        elif item is None:
            signature.append("n")
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
        self.early = [{} for _ in range(comm.size)]  # by source: serial -> what is not complete, or before its turn
        self.bytes = 0  # handed to MPI

    def send(self, index, to, tag, arrival, body, finished=None):
        """Begin to send on communicator `index`; `finished()` is called once the send is complete."""
        numbers, vectors = [], []
        signature = describe(body, numbers, vectors)
        layout = self.layouts.get(signature)
        if layout is None:
            layout = self.layouts[signature] = Layout(signature)
        buffer = self.pool.take(layout.size)
        layout.head.pack_into(buffer, 0, arrival, self.sent[to], tag, len(layout.text), layout.text)
        layout.numbers.pack_into(buffer, layout.head.size, *numbers)
        for place, vector in zip(layout.places, vectors, strict=False):
            buffer[place] = vector.reshape(-1).view(numpy.uint8)
        comm = self.comms[index]
        requests = [comm.Isend([buffer, layout.size, MPI.BYTE], to, MESSAGE)]
        self.bytes += layout.size
        if not layout.inline:
            for vector in vectors:
                requests.append(comm.Isend([vector, vector.nbytes, MPI.BYTE], to, PAYLOAD))
                self.bytes += vector.nbytes
        self.sent[to] += 1
        self.sending.append((requests, finished))

    def progress(self):
        """Let sends complete; true while some are under way."""
        if self.sending:
            sending, self.sending = self.sending, []  # what is called may send: that is looked at the next time
            for entry in sending:
                if not MPI.Request.Testall(entry[0]):
                    self.sending.append(entry)
                elif entry[1] is not None:
                    entry[1]()
        return bool(self.sending)

    def poll(self):
        """What has arrived: a list of (source, communicator, tag, modelled arrival, body)."""
        arrived = []
        status = self.status
        for index, comm in enumerate(self.comms):
            while (message := comm.Improbe(MPI.ANY_SOURCE, MESSAGE, status)) is not None:
                size, source = status.Get_count(MPI.BYTE), status.Get_source()
                buffer = self.pool.take(size)
                message.Recv([buffer, size, MPI.BYTE])
                arrival, serial, tag, length = HEADER.unpack_from(buffer)
                start = HEADER.size + length
                text = buffer[HEADER.size : start].tobytes()
                layout = self.layouts.get(text)
                if layout is None:
                    layout = self.layouts[text] = Layout(ast.literal_eval(text.decode()))
                numbers = layout.numbers.unpack_from(buffer, start)
                if layout.inline:
                    requests, vectors = (), [buffer[place] for place in layout.places]
                else:
                    vectors = [self.pool.take(size)[:size] for _, size in layout.vectors]
                    requests = [comm.Irecv([vector, MPI.BYTE], source, PAYLOAD) for vector in vectors]
                self.early[source][serial] = (requests, index, tag, arrival, layout, numbers, vectors)
                self.release(source, arrived)
        for source, entries in enumerate(self.early):
            if entries:
                self.release(source, arrived)
        return arrived

    def release(self, source, arrived):
        """Move what is complete and has its turn to `arrived`."""
        entries = self.early[source]
        while (entry := entries.get(self.received[source])) is not None:
            requests, index, tag, arrival, layout, numbers, vectors = entry
            if requests and not MPI.Request.Testall(requests):
                return
            del entries[self.received[source]]
            self.received[source] += 1
            arrived.append((source, index, tag, arrival, layout.build(iter(numbers), iter(vectors))))
