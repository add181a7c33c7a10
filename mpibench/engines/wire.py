"""Bodies between ranks, laid out as bytes (`mpibench.layout`), first in first out from each source; never blocks."""

import ast
import sys
from collections import defaultdict
from itertools import repeat

import numpy
from mpi4py import MPI

from mpibench.layout import HEADER, Layout, describe

MESSAGE, PAYLOAD = 1, 2  # MPI tags
MOST_LAYOUTS = 2000


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
