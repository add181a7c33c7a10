"""What a message costs beside raw mpi4py with the same wire format, in ping-pong between two ranks.

    python benchmarks/wire.py        or        mpiexec -n 2 python -m mpi4py benchmarks/wire.py

Raw is what one would write by hand for exactly these bytes: Isend and Irecv from and into numpy buffers made
beforehand, and a header packed and unpacked by `struct`, since the receiver needs it. It knows what comes, from whom
and how long it is, and waits inside MPI; `mpibench.engines.wire.Wire` knows none of it, gives back a body of fresh
arrays, and never blocks. Rounds of both take turns.

Latency is half a round trip, of a body of one number alone and with a vector of 8 bytes, and ends when the body has
been built. Bandwidth counts the bytes of the vector.
"""

import gc
import math
import statistics
import struct
import time

from harness import Figure, Row, arguments, in_turn, ratio, show, under_mpi

HEADER = struct.Struct("<qqii")  # arrival, serial number, tag, length of the signature
SMALL = {"number": 0, "number, 8-byte vector": 8}
LARGE = {"1 MB": 1 << 20, "8 MB": 1 << 23}
MOST_OVERHEAD = 5.0  # µs for a message
LEAST_BANDWIDTH = 0.9  # of raw
MESSAGE, PAYLOAD = 101, 102  # MPI tags


class OfMpibench:
    """Ping-pong through a Wire."""

    def __init__(self, comm, size):
        import numpy

        from mpibench.engines.wire import Wire

        self.rank, self.other = comm.rank, 1 - comm.rank
        self.wire = Wire(comm)
        self.vector = (numpy.ones(size // 8),) if size else ()

    def send(self, k):
        """A message leaves."""
        self.wire.send(0, self.other, 0, 0, (k, *self.vector))

    def receive(self):
        """Poll as the engine does, until the body is here."""
        while True:
            self.wire.progress()
            for _, _, _, _, body in self.wire.poll():
                return body

    def finish(self):
        """What has been sent must live until it has left."""
        while self.wire.progress():
            pass


class Raw:
    """The same bytes by hand, in one message or in two."""

    def __init__(self, comm, size, parts):
        import numpy
        from mpi4py import MPI

        self.rank, self.other = comm.rank, 1 - comm.rank
        self.comm, self.BYTE = comm, MPI.BYTE
        self.leaving = [numpy.ones(part, numpy.uint8) for part in parts]
        self.arriving = [numpy.ones(part, numpy.uint8) for part in parts]
        self.tags = (MESSAGE, PAYLOAD)[: len(parts)]
        self.pending = []

    def send(self, k):
        """The header is packed; the rest lies in its place."""
        HEADER.pack_into(self.leaving[0], 0, 0, k, 0, 40)
        for buffer, tag in zip(self.leaving, self.tags, strict=True):
            self.pending.append(self.comm.Isend([buffer, self.BYTE], self.other, tag))

    def receive(self):
        """Wait for all parts."""
        for buffer, tag in zip(self.arriving, self.tags, strict=True):
            self.comm.Irecv([buffer, self.BYTE], self.other, tag).Wait()
        self.finish()
        return HEADER.unpack_from(self.arriving[0])

    def finish(self):
        """A buffer must not be written before it has left."""
        for request in self.pending:
            request.Wait()
        self.pending.clear()


def half_round_trip(comm, side, rounds):
    """Seconds for one way, mean over so many rounds."""
    comm.Barrier()
    start = time.perf_counter()
    for k in range(rounds):
        if side.rank == 0:
            side.send(k)
            side.receive()
        else:
            side.receive()
            side.send(k)
    seconds = (time.perf_counter() - start) / rounds / 2
    side.finish()
    return seconds


def parts_of(comm, size):
    """Bytes of the MPI messages that a Wire makes of a body with a vector of so many bytes."""
    side = OfMpibench(comm, size)
    half_round_trip(comm, side, 1)
    total = side.wire.bytes
    return [total] if size < 1 << 15 else [total - size, size]


def compare(comm, size, rounds, repetitions):
    """Seconds for one way of both sides, as two lists; entries at the same place were measured together."""
    sides = {"raw": Raw(comm, size, parts_of(comm.Dup(), size)), "ours": OfMpibench(comm.Dup(), size)}
    cases = {name: lambda side=side: half_round_trip(comm, side, rounds) for name, side in sides.items()}
    gc.collect()
    in_turn(cases, 2)  # buffers, layouts and connections are made
    times = in_turn(cases, repetitions)
    return times["ours"], times["raw"]


def main():
    given = arguments(__doc__, repetitions=60)
    comm = under_mpi(2, __file__, 120)
    rows = []
    for case, size in SMALL.items():
        ours, raw = compare(comm, size, 200, given.repetitions)
        figures = [Figure.of([1e6 * value for value in times]) for times in (ours, raw)]
        rows.append(Row(case, "µs for one way", *figures, ratio(*figures)))
        over = Figure.of([1e6 * (a - b) for a, b in zip(ours, raw, strict=True)])
        rows.append(Row(case, "µs above raw", over, bar=f"<= {MOST_OVERHEAD:g}", met=over.median <= MOST_OVERHEAD))
    for case, size in LARGE.items():
        ours, raw = compare(comm, size, max(2, (20 << 20) // size), math.ceil(given.repetitions / 2))
        figures = [Figure.of([size / value / 1e6 for value in times]) for times in (ours, raw)]
        share = statistics.median(b / a for a, b in zip(ours, raw, strict=True))
        row = Row(case, "MB/s", *figures, share, f">= {LEAST_BANDWIDTH:g} of raw", share >= LEAST_BANDWIDTH)
        rows.append(row)
    if comm.rank == 0:
        show("messages between two ranks", rows, given.json, peer="raw mpi4py")


if __name__ == "__main__":
    main()
