"""One vector that the ranks of a host read and add to without a lock: `Node.share`."""

import numpy


class SharedModel:
    """A rank's view of the vector; `counts` holds, in the same memory, how often each rank has added to it."""

    def __init__(self, vector, counts, rank):
        self.vector, self.counts, self.rank = vector, counts, rank

    @property
    def additions(self):
        """How many there have been, of all ranks."""
        return int(self.counts.sum())

    def read(self):
        """(additions so far, a copy of the vector), into which others may be writing meanwhile."""
        return self.additions, self.vector * 1

    def add(self, v):
        """Add v where it is not zero; another rank's addition to the same component meanwhile may get lost."""
        touched = v != 0
        if touched.all():
            self.vector += v
        else:
            self.vector[touched] += v[touched]
        self.counts[self.rank] += 1


def window(comm, x):
    """(window, SharedModel) with the value of x, in a shared-memory window of a communicator whose ranks share a host.

    RuntimeError where they do not. All ranks call it; free the window when the run has ended.
    """
    from mpi4py import MPI

    host = comm.Split_type(MPI.COMM_TYPE_SHARED)
    apart = host.size < comm.size
    host.Free()
    if comm.allreduce(apart, MPI.LOR):
        raise RuntimeError("ranks of several hosts cannot share memory; start all of them on one host")
    start = numpy.ascontiguousarray(x.cpu().numpy() if hasattr(x, "cpu") else x)
    room = -start.nbytes % 8 + start.nbytes
    memory = MPI.Win.Allocate_shared(room + 8 * comm.size if comm.rank == 0 else 0, 1, comm=comm)
    buffer, _ = memory.Shared_query(0)
    vector = numpy.ndarray(start.shape, start.dtype, buffer)
    counts = numpy.ndarray(comm.size, numpy.int64, buffer, offset=room)
    if comm.rank == 0:
        vector[...], counts[...] = start, 0
    memory.Fence()
    if hasattr(x, "cpu"):
        import torch

        vector = torch.from_numpy(vector)
    return memory, SharedModel(vector, counts, comm.rank)
