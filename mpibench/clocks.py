"""How far the clocks of ranks on other hosts are from rank 0's: repeated ping-pong, least round trip."""

import time

import numpy
from mpi4py import MPI

ROUNDS = 200


def offset(comm, rounds=ROUNDS, everywhere=False):
    """(offset, round trip) of this rank's `time.perf_counter_ns` to rank 0's, in ns; all ranks call this.

    Ranks of one host read the same clock: there it is 0, unless measured `everywhere`. The error of an offset is at
    most half its round trip.
    """
    hosts = comm.allgather(MPI.Get_processor_name())
    others = [r for r in range(1, comm.size) if everywhere or hosts[r] != hosts[0]]
    stamp = numpy.zeros(1, numpy.int64)
    found = numpy.zeros(2, numpy.int64)
    for other in others:
        if comm.rank == 0:
            best = None
            for _ in range(rounds):
                sent = time.perf_counter_ns()
                comm.Send(stamp, other)
                comm.Recv(stamp, other)
                back = time.perf_counter_ns()
                if best is None or back - sent < best[1]:
                    best = int(stamp[0]) - (sent + back) // 2, back - sent
            comm.Send(numpy.array(best), other)
        elif comm.rank == other:
            for _ in range(rounds):
                comm.Recv(stamp, 0)
                stamp[0] = time.perf_counter_ns()
                comm.Send(stamp, 0)
            comm.Recv(found, 0)
    return int(found[0]), int(found[1])
