"""How an experiment says it is measured, and what holds of every run: /config/measuring, the attribute `clock_rule`.

    [measuring]         says nothing that is computed, so it is no part of a cell's hash
    scaling             "none" (one number of workers), "weak" or "strong"
    held_constant       what does not change with it, or between methods: ["batch of a worker", "data in all", ...]
    shown               why these methods, problems and numbers of workers, and what was left out
    targets_from        the procedure by which the targets were fixed before the runs
    limitations         what varies that could not be controlled
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy

from mpibench.seeds import Purpose, generator

WARM_UP_GRADIENTS = 3  # of every rank before the clock of a run over MPI starts; none of its own steps is dropped
PATH_JOBS, PATH_WORKERS = 8, 64  # whose times go into the hash of a delay path

INSIDE = ("gradients", "the method's own arithmetic", "encoding and decoding", "messages", "waiting")
OUTSIDE = ("imports", "start of MPI", "data", "warm-up", "evaluation of snapshots", "writing of files")
RULE = {
    "virtual": "modelled seconds; snapshots are evaluated between events, which takes none of them",
    "emulated": "modelled seconds of each event, which happens when the wall clock has reached it; snapshots are kept "
    "and evaluated after the run; ends of runs are the last event that counts",
    "native": "seconds of one monotonic clock a rank from a common instant; snapshots are kept and evaluated after the "
    "run; the end is the first rank's to return",
}


@dataclass(frozen=True)
class Measuring:
    """The table [measuring]."""

    scaling: Literal["none", "weak", "strong"] = "none"
    held_constant: tuple[str, ...] = ()
    shown: str = ""
    targets_from: str = ""
    limitations: tuple[str, ...] = ()


def rules(cell, seeds):
    """What /config/measuring says beside the experiment's own words; `seeds`: those of the experiment."""
    return {
        "inside_the_clock": list(INSIDE),
        "outside_the_clock": list(OUTSIDE),
        "warmup_gradients": WARM_UP_GRADIENTS if cell.engine == "mpi" else 0,
        "warmup_steps_dropped": 0,
        "outliers": "kept: every run is a point of the figures and a member of the intervals",
        "stopping": {"rule": "fixed number of repetitions", "repetitions": len(seeds)},
        "gpu_timing": "sync",
    }


def pairing(cell, seed):
    """Hashes of what all methods of a seed have in common: the start, the first sample of each worker (hence its data
    and its stream), and the times of its first gradients."""
    problem = cell.problem.prepare(cell.workers, seed)
    workers = range(1, min(cell.workers, PATH_WORKERS) + 1)
    delays = []
    if cell.compute is not None:
        for i in workers:
            durations = cell.compute.durations(i, cell.workers, generator(seed, Purpose.COMPUTE, i))
            delays += [durations(1.0, 0) for _ in range(PATH_JOBS)]
    return {
        "start": digest(problem.start()),
        "sampling": digest(*(problem.objective(i).sample() for i in workers)),
        "compute": digest(numpy.array(delays, numpy.int64)),
    }


def digest(*parts):
    """16 hex digits of these arrays, tensors, numbers, or tuples of them."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, (tuple, list)):
            found.update(digest(*part).encode())
        else:
            found.update(numpy.ascontiguousarray(part.cpu().numpy() if hasattr(part, "cpu") else part).tobytes())
    return found.hexdigest()[:16]
