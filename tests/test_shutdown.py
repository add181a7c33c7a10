"""Runs that end at random instants, under real ranks: nothing hangs, and all that was sent has been received.

    timeout -k 10 300 mpiexec -n 4 python -m mpi4py -m pytest --with-mpi tests/test_shutdown.py

MPIBENCH_SHUTDOWNS says how many runs: 200 takes a minute or two.
"""

import os
import random

import numpy
import pytest
from toy import cells

from mpibench.journal import Journal
from mpibench.node import SECOND
from mpibench.runner import averaging, cluster_of, program_of

RUNS = int(os.environ.get("MPIBENCH_SHUTDOWNS", "24"))
METHODS = [
    ("r_fast", {}, True),
    ("ad_psgd", {}, False),
    ("osgp", {"peers": "graph", "patience_seconds": 0.01}, True),
    ("osgp_running_sums", {"peers": "graph", "patience_seconds": 0.01}, True),
    ("sgp", {"peers": "graph"}, False),
    ("swarm_sgd", {"bits": 8, "bound": 100.0}, False),
    ("swarm_sgd_blocking", {}, False),
    ("d_psgd", {}, False),
    ("ring_all_reduce", {}, False),
]


def drawn(number, ranks):
    """(cell, clock) of a run, the same on all ranks: method, size of messages, loss and instant of the end vary."""
    draw = random.Random(number)
    name, parameters, tolerates_loss = METHODS[number % len(METHODS)]
    clock = draw.choice(["emulated", "native"])
    longest = 0.3 if clock == "emulated" else 0.06
    stop = draw.choice([{"seconds": draw.uniform(0.001, longest)}, {"updates": draw.randint(1, 20)}])
    (cell,) = cells(
        name,
        {"stepsize": 1e-3} | parameters,
        workers=ranks,
        problem={"name": "quadratic", "dimension": draw.choice([5, 3000, 50_000])},  # inline, eager, and neither
        graph={"name": "complete"},
        heterogeneity={
            "compute": {"profile": "exponential", "unit_seconds": 0.01},
            "links": {"latency_seconds": 0.002, "vector_seconds": 0.003},
            "loss": {"probability": draw.choice([0.0, 0.3]) if tolerates_loss else 0.0, "max_consecutive": 5},
        },
        stop=stop,
        snapshot={"seconds": 0.01},
        record_updates=False,
        targets={"metric": "gap", "values": [1e-9], "headline": 1e-9},
    )
    return cell, clock


@pytest.mark.mpi(min_size=2)
def test_runs_with_random_ends_receive_all_that_was_sent():
    from mpi4py import MPI

    from mpibench.engines.mpi import MPIEngine

    comm, ends, messages = MPI.COMM_WORLD.Dup(), [], 0
    for number in range(RUNS):
        cell, clock = drawn(number, comm.size)
        problem, watches = cell.problem.prepare(comm.size, number), {}
        journal = Journal(resolution=0)
        cluster = cluster_of(cell, number, problem, [1e-3] * comm.size, lambda rank, journal=journal: journal)
        engine = MPIEngine(comm, clock, stall_seconds=25.0)  # a hang ends all ranks with code 124
        program = program_of(cell, problem, watches, averaging(cell, problem, lambda rank, state: None))
        ends.append(engine.run(cluster, program))
        sent = numpy.array(comm.allgather(engine.wire.sent))
        received = numpy.array(comm.allgather(engine.wire.received))
        left = comm.allgather(len(engine.wire.sending) + len(engine.wire.early))
        wrong = [text for text, bad in (("received", (received != sent.T).any()), ("left", any(left))) if bad]
        assert comm.allgather(wrong) == [[]] * comm.size, (number, cell.label, clock, sent, received, left)
        limits = comm.allgather(engine.limit)
        assert len(set(limits)) == 1, (number, cell.label, clock, limits)
        if cell.stop.seconds:
            assert limits[0][0] <= cell.stop.seconds * SECOND + 1, (number, cell.label, clock, limits)
        messages += int(sent.sum())
    total = comm.bcast(messages)
    if comm.rank == 0:
        by_time = ends.count(None)
        print(f"\n{RUNS} runs on {comm.size} ranks, {by_time} ended by time, {total} messages sent and received")
    assert total > 50 * RUNS or RUNS < 10
    comm.Free()
