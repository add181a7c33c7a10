"""The all-reduce of the MPI library, for the baseline that is named after it: `Node.all_reduce`, native clock only."""

import numpy

from mpibench.node import Request


class Reduction(Request):
    """A sum over all ranks under way; its value is like the vector that was given."""

    __slots__ = ("handle", "like", "total")
    cancelled = False

    def __init__(self, comm, x):
        self.done = False
        self.task = self.value = None
        self.like = x
        vector = numpy.ascontiguousarray(x.cpu().numpy() if hasattr(x, "cpu") else x)
        self.total = numpy.empty_like(vector)
        self.handle = comm.Iallreduce(vector, self.total)

    def happen(self):
        """The library has finished."""
        if hasattr(self.like, "cpu"):
            import torch

            self.finish(torch.from_numpy(self.total).to(self.like.device))
        else:
            self.finish(self.total)

    def __repr__(self):
        return "all-reduce"


class Reductions:
    """Those of one rank, in their order."""

    def __init__(self, comm):
        self.comm = comm
        self.begun = 0
        self.pending = []

    def begin(self, x):
        """One more."""
        self.begun += 1
        self.pending.append(Reduction(self.comm, x))
        return self.pending[-1]

    def ended(self):
        """The oldest one if it has ended, or None."""
        return self.pending.pop(0) if self.pending and self.pending[0].handle.Test() else None

    def finish(self):
        """All ranks: where some have begun one more than others when the run ended, these take part in it."""
        begun = self.comm.allgather((self.begun, self.pending[-1].like * 0 if self.pending else None))
        most, zeros = max(begun, key=lambda entry: entry[0])
        while self.begun < most:
            self.begin(zeros)
        for reduction in self.pending:
            reduction.handle.Wait()
