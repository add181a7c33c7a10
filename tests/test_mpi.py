"""Both clocks of the MPI engine, and the wire, under real ranks:

    timeout -k 10 300 mpiexec -n 3 python -m mpi4py -m pytest --with-mpi tests/test_mpi.py

Every rank runs every test; whether it passes is agreed on by all (`all_assert`), since a rank that fails alone would
leave the others waiting in the next test.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest

from mpibench.algorithms.async_sgd import AsyncSGD
from mpibench.algorithms.minibatch_sgd import MinibatchSGD
from mpibench.algorithms.ringmaster import Ringmaster
from mpibench.collectives import barrier, broadcast, ring_all_reduce, tree_all_reduce
from mpibench.engines.simulation import Simulation
from mpibench.layout import wire_bytes
from mpibench.node import SECOND, Packed, Timer
from mpibench.problems.quadratic import Quadratic

A, B = 0, 1  # tags
MS = SECOND // 1000
ROOT = Path(__file__).parent.parent

mpi = pytest.mark.mpi(min_size=2)


@pytest.fixture
def comm():
    """A communicator of the test's own, over all ranks."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD.Dup()
    yield comm
    comm.Free()


@pytest.fixture
def all_assert(comm):
    """A function that fails on every rank if its condition is false on any; all ranks call it."""

    def check(condition, message="is false"):
        failed = [(rank, text) for rank, text in enumerate(comm.allgather(None if condition else str(message))) if text]
        assert not failed, "; ".join(f"rank {rank}: {text}" for rank, text in failed)

    return check


@pytest.fixture
def engine(comm):
    """A function that makes an engine for one run; a run that hangs ends after 20 s."""
    from mpibench.engines.mpi import MPIEngine

    return lambda clock, **options: MPIEngine(comm, clock, **{"stall_seconds": 20.0} | options)


@pytest.fixture
def emulate(comm, engine):
    """A function that emulates and gives (engine, what the run has left), with patience for a busy machine: a run
    whose events were not in order is repeated at half the pace. `make()` gives the program, and a place for results."""

    def run(cluster, make, time_scale, **options):
        for attempt in range(4):
            emulation = engine("emulated", time_scale=time_scale * 2**attempt, **options)
            program, left = make()
            emulation.ended_by = emulation.run(cluster, program)
            if comm.allreduce(emulation.order_violations) == 0:
                break
        return emulation, left

    return run


def simulate(cluster, make):
    """The same in virtual time, on this rank alone."""
    simulation = Simulation()
    program, left = make()
    simulation.ended_by = simulation.run(cluster, program)
    return simulation, left


def same_events(emulation, simulation, rank):
    """Whether this rank's events were those of the simulation, up to the end of the run."""
    return (emulation.fingerprint(), emulation.end, emulation.limit[1] % (1 << 62)) == (
        simulation.nodes[rank].fingerprint,
        simulation.time,
        0 if simulation.ended_by is None else simulation.ended_by,
    )


@mpi
def test_the_library_is_the_one_that_is_meant(comm, all_assert):
    from mpi4py import MPI

    version, meant = MPI.Get_library_version(), os.environ.get("MPIBENCH_EXPECT_MPI", "")
    all_assert(meant in version, f"{meant} is meant, {version} is loaded")
    ranks = int(os.environ.get("MPIBENCH_EXPECT_RANKS", comm.size))
    all_assert(ranks == comm.size, f"{ranks} ranks are meant, there are {comm.size}")


# The wire


@pytest.fixture
def wire(comm):
    """A wire of two communicators over all ranks; when the test ends, all that was sent must have been received."""
    from mpibench.engines.wire import Wire

    second = comm.Dup()
    wire = Wire(comm)
    wire.comms.append(second)
    yield wire
    while wire.progress():
        assert wire.poll() == []
    second.Free()


def receive(wire, count):
    """The next messages, as many as that."""
    arrived = []
    while len(arrived) < count:
        wire.progress()
        arrived += wire.poll()
    return arrived


def bits(array):
    """All that an array says, to the last bit; not what lies in the unused bytes of extended precision."""
    return repr(array.tolist()) if array.dtype in (numpy.longdouble, numpy.clongdouble) else array.tobytes()


def alike(sent, received):
    """The same value of the same type, to the last bit; an array of no dimensions comes as a number."""
    if isinstance(sent, tuple):
        return type(received) is tuple and len(sent) == len(received) and all(map(alike, sent, received))
    if isinstance(sent, numpy.ndarray | numpy.generic):
        return (
            type(received) is (numpy.ndarray if sent.shape else sent.dtype.type)
            and (sent.dtype, sent.shape, bits(sent)) == (received.dtype, received.shape, bits(received))
            and not (received.shape and received.flags.writeable and not sent.dtype.names)  # those are pickled
        )
    if hasattr(sent, "untyped_storage"):
        import torch

        return (sent.dtype, sent.shape, sent.device) == (received.dtype, received.shape, received.device) and bool(
            torch.equal(sent, received)
        )
    if isinstance(sent, Packed):
        return type(received) is Packed and sent.bits == received.bits and alike(sent.data, received.data)
    return type(sent) is type(received) and (sent == received or sent != sent)


def round_trip(wire, comm, bodies):
    """Send every body to the next rank, and say which come from the rank before otherwise than they went."""
    for k, body in enumerate(bodies):
        before = wire.bytes
        wire.send(k % 2, (comm.rank + 1) % comm.size, k, 10**15 + k, body)
        assert wire.bytes - before == wire_bytes(body)  # what the ledger reckons
    arrived = receive(wire, len(bodies))
    before = (comm.rank - 1) % comm.size
    wrong = [row for k, row in enumerate(arrived) if row[:4] != (before, k % 2, k, 10**15 + k)]
    return wrong + [(body, row[4]) for body, row in zip(bodies, arrived, strict=True) if not alike(body, row[4])]


BODIES = [
    (),
    (0, -1, 2**63 - 1, -(2**63)),
    (0.1, -0.0, float("inf"), float("nan"), 5e-324),
    (True, False, None, 1, 1.0),
    ((), (1, (None, (True, 2.5)), ()), 3),
    ("text", b"bytes", "", b"", [1, [2.0]], {"a": (1, None)}),
    (2**80, A, complex(1, 2)),
]
VECTORS = [
    *[(numpy.arange(6).astype(kind),) for kind in "?bBhHiIlLqQefdgFD"],
    (numpy.arange(5, dtype=">f8"), numpy.array(["ab", "c"]), numpy.array(["2020-01-01"], "M8[D]")),
    (numpy.array(3.5), numpy.float64(2.5), numpy.int16(-7), numpy.bool_(True)),
    (numpy.ones(0), numpy.ones((0, 3), numpy.float32), numpy.ones((3, 0), int)),
    (numpy.arange(24.0).reshape(4, 6)[::2, ::-3], numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3))),
    (1, numpy.arange(24.0).reshape(2, 3, 4), (None, (numpy.ones(3), 2.0)), numpy.ones(1)),
    (7, numpy.arange(5000.0), None, numpy.ones(0), (numpy.arange(3.0), "text")),
    (numpy.arange(300_000.0)[::3],),
    (numpy.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),),
    (1, Packed(numpy.arange(5, dtype=numpy.uint8), 37), 2, (Packed(numpy.ones(40_000, numpy.uint8), 320_000), 3)),
]


@mpi
def test_numbers_and_whatever_can_be_pickled_come_as_they_went(wire, comm, all_assert):
    wrong = round_trip(wire, comm, BODIES)
    all_assert(not wrong, wrong)


@mpi
def test_arrays_come_as_they_went_and_cannot_be_written(wire, comm, all_assert):
    wrong = round_trip(wire, comm, VECTORS)
    all_assert(not wrong, wrong)


@mpi
def test_tensors_come_as_they_went(wire, comm, all_assert):
    torch = pytest.importorskip("torch")
    x = torch.arange(6.0)
    kinds = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool]
    bodies = [
        *[(x.to(kind),) for kind in kinds],
        (torch.tensor(3.5), 1, torch.tensor(7)),
        (x.reshape(2, 3).T, x[::2], (x, (x[1:],))),
        (torch.arange(50_000.0), 5, torch.arange(3.0)),
        (torch.ones(0), torch.ones(2, 0, dtype=torch.bfloat16)),
    ]
    wrong = round_trip(wire, comm, bodies)
    all_assert(not wrong, wrong)


@mpi
def test_a_tensor_that_came_can_be_computed_with_by_operators(wire, comm, all_assert):
    torch = pytest.importorskip("torch")
    wire.send(0, (comm.rank + 1) % comm.size, A, 0, (torch.ones(5, requires_grad=True) * 2,))
    [(_, _, _, _, (x,))] = receive(wire, 1)
    all_assert(torch.equal(x - 0.5 * x, torch.ones(5)) and not x.requires_grad)


@mpi
def test_small_and_large_messages_keep_their_order(wire, comm, all_assert):
    """Sizes around what goes inline (32 KiB) and around what MPI sends eagerly, on both communicators, to all ranks."""
    count, draw = 60, random.Random(comm.rank)
    others = [rank for rank in range(comm.size) if rank != comm.rank]
    for k in range(count):
        for to in others:
            size = draw.choice([0, 1, 100, 4095, 4096, 4097, 10_000, 100_000])
            wire.send(draw.randrange(2), to, A, k, (k, numpy.full(size, comm.rank + k / 64)))
    arrived = receive(wire, count * len(others))
    for source in others:
        own = [row for row in arrived if row[0] == source]
        all_assert([row[3] for row in own] == [row[4][0] for row in own] == list(range(count)), f"order from {source}")
        all_assert(all((row[4][1] == source + row[4][0] / 64).all() for row in own), f"content from {source}")


@mpi
def test_a_buffer_is_not_used_again_while_anything_refers_to_it(comm, wire, all_assert):
    to, kept = (comm.rank + 1) % comm.size, []
    for k in range(200):
        wire.send(0, to, A, 0, (numpy.full(50, k), numpy.full(5000 * (k % 2), -k)))
        [(_, _, _, _, (small, large))] = receive(wire, 1)
        if k % 20 == 0:
            kept.append((k, small[10:20]))  # a view of a view of the buffer
        if k % 20 == 1:
            kept.append((-k, large.reshape(-1, 5).T))
        del small, large
        comm.Barrier()
    all_assert(len(kept) == 20 and all((view == k).all() for k, view in kept), kept)
    buffers, pooled = sum(map(len, wire.pool.shelves.values())), sum(k < 0 for k, _ in kept)
    all_assert(pooled <= buffers <= pooled + 12, f"{buffers} buffers for {pooled} kept views of them")


@mpi
def test_a_pool_gives_a_buffer_again_once_nobody_refers_to_it(comm, all_assert):
    from mpibench.engines.wire import Pool

    pool = Pool()
    first = pool.take(1000)
    place = first.ctypes.data
    view = first[8:16].view(numpy.float64)
    del first
    second = pool.take(1000)
    all_assert(second.ctypes.data != place, "a view still lives")
    del view, second
    again = {pool.take(1000).ctypes.data for _ in range(3)}
    all_assert(place in again and len(again) <= 2, "both are free")
    all_assert(pool.take(0).size >= 0 and pool.take(257).size >= 257 and pool.take(256).size >= 256)


# Emulated clock: programs have the same events and see the same times as in virtual time


class Watching:
    """What an algorithm shows to `watch`, and its end after so many updates."""

    def __init__(self, updates):
        self.updates = updates
        self.settled = []
        self.x = None

    def used(self, i, delay):
        self.settled.append((i, delay))

    def discarded(self, i, delay):
        self.settled.append((i, delay, "discarded"))

    def __call__(self, k, x):
        self.x = x
        return k < self.updates


def racing(algorithm, workers, updates, dimension=20):
    """A function that makes a run of this algorithm on the quadratic problem."""

    def make():
        problem = Quadratic(dimension=dimension, noise=0.1).prepare(workers, seed=0)
        watch = Watching(updates)

        def program(node):
            objective = problem.objective(node.rank) if node.rank else None
            return algorithm.program(node, problem.start(), objective, watch)

        return program, watch

    return make


def gradient_seconds(size):
    """Worker i takes about 10 sqrt(i) ms, and no two events fall on one instant by accident."""
    return [0.0, *(0.01 * i**0.5 + 1.234e-6 * i for i in range(1, size))]


RACES = {
    "async_sgd": (AsyncSGD(0.01), 30, None),
    "ringmaster": (Ringmaster(0.01, threshold=2), 30, None),
    "ringmaster-stops": (Ringmaster(0.01, threshold=2, stop_stale=True), 30, None),
    "ringmaster-until": (Ringmaster(0.01, threshold=3), 10**9, 200 * MS),
    "minibatch_sgd": (MinibatchSGD(0.01), 8, None),
}
LINKS = {  # 1 ms, as latency or as transmission of a model
    "latency": {"latency_ns": MS},
    "transmission": {"ns_per_byte": MS // 160},
}


@mpi
@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("race", RACES)
def test_an_emulated_race_is_the_simulated_one_to_the_last_bit(comm, all_assert, emulate, toy_cluster, race, links):
    algorithm, updates, until = RACES[race]
    cluster = toy_cluster(
        comm.size, gradient_seconds(comm.size), newest_only=algorithm.newest_only, until=until, **LINKS[links]
    )
    make = racing(algorithm, comm.size - 1, updates)
    emulation, watch = emulate(cluster, make, time_scale=4.0, pause_seconds=5e-4)
    simulation, expected = simulate(cluster, make)
    all_assert(emulation.order_violations == 0, "the machine is too busy for the slowest emulation")
    all_assert(same_events(emulation, simulation, comm.rank), "other events than in the simulation")
    all_assert(emulation.ended_by == simulation.ended_by == (0 if until is None else None))
    server = comm.rank == 0
    all_assert(not server or watch.settled == expected.settled, "other gradients were used than in the simulation")
    all_assert(not server or watch.x.tobytes() == expected.x.tobytes(), "another model than in the simulation")
    all_assert(not server or len(expected.settled) > 5)


@mpi
def test_links_that_take_no_time_need_a_margin_and_then_agree(comm, all_assert, emulate, toy_cluster):
    """Models and gradients do; whether another rank's event at the last instant has been before it, nobody promises."""
    cluster = toy_cluster(comm.size, gradient_seconds(comm.size))
    make = racing(AsyncSGD(0.01), comm.size - 1, 20)
    emulation, watch = emulate(cluster, make, time_scale=4.0, margin_seconds=2e-3, pause_seconds=3e-4)
    simulation, expected = simulate(cluster, make)
    all_assert(emulation.end == simulation.time)
    all_assert(comm.rank != 0 or watch.settled == expected.settled, "other gradients than in the simulation")
    all_assert(comm.rank != 0 or watch.x.tobytes() == expected.x.tobytes(), "another model than in the simulation")


def of_this_rank(logs, emulation, rank):
    """What the rank has logged up to the last event that counts."""
    return [entry for entry in logs.get(rank, []) if (round(entry[1] * SECOND), rank) <= emulation.limit]


def logging(*programs):
    """A function that makes a run of programs (node, log); further ranks rest. Leaves the logs by rank."""

    def make():
        logs = {}

        def program(node):
            log = logs[node.rank] = []
            return programs[node.rank](node, log) if node.rank < len(programs) else forever(node)

        return program, logs

    return make


async def forever(node):
    await node.recv(tag=99)


async def note(node, log, name, request):
    value = await request
    log.append((name, node.now(), value))


async def ties_0(node, log):
    node.send(1, A, size=0)  # arrives at 20 ms
    await node.sleep(0.03)


async def ties_1(node, log):
    """At 20 ms: an arrival, a link that becomes free, and the ends of a computation and of a sleep."""
    node.start(note(node, log, "computation", node.compute(max, 1, 2)))
    node.start(note(node, log, "sleep", node.sleep(0.02)))
    node.start(note(node, log, "link", node.send(0, B, size=2000)))
    node.start(note(node, log, "arrival", node.recv(A)))
    await forever(node)


async def queue_0(node, log):
    """One message leaves, two wait, of which one is replaced, and the last gets lost."""
    for name, tag in [("leaves", A), ("old", A), ("other", B), ("new", A), ("lost", B)]:
        node.start(note(node, log, name, node.send(1, tag, name, size=1000)))
    await node.sleep(0.1)


async def queue_1(node, log):
    for tag in (A, A, B):
        node.start(note(node, log, "arrival", node.recv(tag)))
    await node.sleep(0.08)
    log.append(("drained", node.now(), node.drain(B)))
    await forever(node)


async def stops_1(node, log):
    """A job that would end when a message arrives is stopped, and the backlog goes on at that instant."""
    running = node.start(note(node, log, "stopped", node.compute(max, 1, 2)))
    node.start(note(node, log, "next", node.compute(max, 3, 4)))
    waiting = node.start(note(node, log, "never begun", node.compute(max, 5, 6)))
    await node.recv(A)
    waiting.cancel()
    running.cancel()
    log.append(("arrival", node.now(), node.stopped))
    await forever(node)


async def ticks(node, log):
    while True:
        await node.sleep(0.01)
        log.append(("tick", node.now()))


async def ends_at_30_ms(node, log):
    await node.sleep(0.03)


TOYS = {
    "ties": ([ties_0, ties_1], {"seconds": 0.02, "edges": {(0, 1): (20 * MS, 0), (1, 0): (0, 10**4)}}),
    "queue": (
        [queue_0, queue_1],
        {"latency_ns": 5 * MS, "ns_per_byte": 10**4, "newest_only": [A], "lost": {(0, 1): [False] * 3 + [True]}},
    ),
    "stops": ([ties_0, stops_1], {"seconds": 0.02, "latency_ns": 20 * MS, "until": 60 * MS}),
    "end": ([ticks, ends_at_30_ms, ticks], {}),  # at 30 ms rank 0 ticks once more, rank 2 does not
    "until": ([ticks] * 4, {"until": 30 * MS}),
}


@mpi
@pytest.mark.parametrize("toy", TOYS)
def test_an_emulated_toy_sees_what_the_simulated_one_sees(comm, all_assert, emulate, toy_cluster, toy):
    programs, modelled = TOYS[toy]
    cluster, make = toy_cluster(comm.size, **modelled), logging(*programs)
    emulation, logs = emulate(cluster, make, time_scale=4.0)
    simulation, expected = simulate(cluster, make)
    log = of_this_rank(logs, emulation, comm.rank)
    all_assert(log == expected[comm.rank], f"{log} instead of {expected[comm.rank]}")
    all_assert(same_events(emulation, simulation, comm.rank), "other events than in the simulation")
    all_assert(emulation.ended_by == simulation.ended_by)
    all_assert(any(comm.allgather(log)))


@mpi
def test_a_graph_is_a_message_space_of_its_own(comm, all_assert, emulate, toy_cluster, edges):
    """Rank 0 sends the same tag to all, by two graphs and by none; small and large."""
    star = edges(*[(0, rank) for rank in range(1, comm.size)])

    async def peer(node, log):
        spaces = {"node": node, "first": node.join(star), "second": node.join(star)}
        if node.rank == 0:
            for k in range(3):
                for name in ("second", "node", "first"):
                    for to in node.workers:
                        spaces[name].send(to, A, name, k, numpy.full(10_000 * (name == "first"), k), size=100)
            await node.sleep(0.3)
            return
        for name, space in spaces.items():
            for _ in range(3):
                source, (said, number, x) = await space.recv(A)
                log.append((name, node.now(), (source, said, number, float(x.sum()))))
        await forever(node)

    cluster, make = toy_cluster(comm.size, ns_per_byte=10**5), logging(*[peer] * comm.size)
    emulation, logs = emulate(cluster, make, time_scale=2.0)
    log = of_this_rank(logs, emulation, comm.rank)
    heard = [(0, name, k, 10_000.0 * k * (name == "first")) for name in ("node", "first", "second") for k in range(3)]
    all_assert([entry[2] for entry in log] == (heard if comm.rank else []), log)
    simulation, expected = simulate(cluster, make)
    all_assert(log == expected[comm.rank], f"{log} instead of {expected[comm.rank]}")
    all_assert(same_events(emulation, simulation, comm.rank), "other events than in the simulation")


@mpi
def test_ranks_that_are_not_needed_sit_out_and_may_be_needed_in_the_next_run(comm, all_assert, engine, toy_cluster):
    for size in (1, 2, comm.size):
        ran = []

        async def program(node, ran=ran):
            ran.append((node.rank, node.size))
            await node.sleep(0.01 if node.rank == 0 else 1)

        run = engine("emulated")
        run.run(toy_cluster(size), program)
        all_assert(ran == ([(comm.rank, size)] if comm.rank < size else []), ran)
        all_assert((run.node is not None) == (comm.rank < size))


@mpi
@pytest.mark.parametrize("margin_seconds", [0.0, 0.1])
def test_nothing_happens_before_its_instant_on_the_wall(comm, all_assert, engine, toy_cluster, margin_seconds):
    """Half a modelled second is one of the wall's, and a delivery waits for the margin besides."""
    early = []

    async def program(node):
        def check(extra_ns):
            ahead = node.engine.time + extra_ns - node.engine.wall()
            if ahead > 0:
                early.append(ahead)

        if node.rank == 0:
            node.send(1, A)  # arrives at once
            node.send(1, B)
            await node.sleep(0.02)
            check(0)
            await node.compute(len, ())
            check(0)
            node.send(1, A)
            await node.recv(B)
            return
        if node.rank == 1:
            for _ in range(2):
                await node.recv(A)
                check(margin_seconds * SECOND / 2)
            node.send(0, B)
        await forever(node)

    run = engine("emulated", time_scale=2.0, margin_seconds=margin_seconds)
    run.run(toy_cluster(comm.size, seconds=0.01), program)
    all_assert(not early, f"{early} ns too early")


@mpi
def test_a_rank_that_is_late_does_nothing_beyond_the_last_instant(comm, all_assert, engine, toy_cluster):
    """The clock of the wall has long passed the end when this rank comes to its events."""
    import time

    log = []

    async def program(node):
        await node.compute(time.sleep, 0.2)
        while True:
            await node.sleep(0.01)
            log.append(round(node.now() * 1000))

    ended_by = engine("emulated").run(toy_cluster(comm.size, seconds=0.01, until=30 * MS), program)
    all_assert((ended_by, log) == (None, [20, 30]), log)


@mpi
def test_a_rank_that_is_late_for_the_last_instant_ends_too(comm, all_assert, engine, toy_cluster):
    """Rank 0 ends the run at 50 ms; rank 1 hears of it before it comes to an event of its own at that very instant,
    which no longer counts."""
    import time

    async def program(node):
        if node.rank == 0:
            await node.sleep(0.05)
            return
        await node.compute(time.sleep, 0.3)
        for _ in range(4):
            await node.sleep(0.01)
        await forever(node)

    run = engine("emulated", stall_seconds=8.0)
    ended_by = run.run(toy_cluster(comm.size, seconds=0.01), program)
    all_assert((ended_by, run.limit) == (0, (50 * MS, 0)))


# Collectives, on both clocks


async def all_collectives(node):
    n, random = node.size, numpy.random.default_rng([7, node.rank])
    values = []
    for k in range(2):
        await node.sleep(random.integers(1, 9) / 1000)
        for length in (1, 7, 9000):
            x = random.standard_normal(length)
            values.append(await ring_all_reduce(node, A, x))
            values.append(await tree_all_reduce(node, A, x))
        values.append(await broadcast(node, A, (node.rank, x), root=(k + 1) % n))
        await barrier(node, A)
    return values


@mpi
@pytest.mark.parametrize("clock", ["emulated", "native"])
def test_collectives_give_the_same_bits_as_in_the_simulation(
    comm, all_assert, emulate, engine, toy_cluster, together, clock
):
    cluster = toy_cluster(comm.size, latency_ns=MS)

    def make():
        results = {}
        return together(all_collectives, results), results

    simulation, expected = simulate(cluster, make)
    if clock == "emulated":
        emulation, results = emulate(cluster, make, time_scale=3.0)
        all_assert(same_events(emulation, simulation, comm.rank), "other events than in the simulation")
    else:
        program, results = make()
        engine("native").run(cluster, program)
    all_assert(sorted(results) == [comm.rank])
    own = [v if isinstance(v, tuple) else (v,) for v in results[comm.rank]]
    simulated = [v if isinstance(v, tuple) else (v,) for v in expected[comm.rank]]
    all_assert(len(own) == len(simulated) == 14 and all(map(alike_in_bits, own, simulated)), "other bits")


def alike_in_bits(one, other):
    """Tuples of vectors and numbers, to the last bit."""
    return all(numpy.asarray(a).tobytes() == numpy.asarray(b).tobytes() for a, b in zip(one, other, strict=True))


# Native clock


@mpi
def test_a_native_synchronous_method_gives_the_bits_of_the_simulation(comm, all_assert, engine, toy_cluster):
    cluster, make = toy_cluster(comm.size), racing(MinibatchSGD(0.01), comm.size - 1, updates=50, dimension=5000)
    program, watch = make()
    ended_by = engine("native").run(cluster, program)
    _, expected = simulate(cluster, make)
    all_assert(ended_by == 0)
    all_assert(comm.rank != 0 or watch.x.tobytes() == expected.x.tobytes(), "another model than in the simulation")
    all_assert(comm.rank != 0 or len(watch.settled) == len(expected.settled) == 50 * (comm.size - 1))


@mpi
def test_a_native_long_computation_leaves_messages_moving(comm, all_assert, engine, toy_cluster):
    """While a gradient of 0.4 s is computed in the helper thread, the rank answers; what is stopped is not reported."""
    import time

    log = []

    async def computing(node):
        for k in range(3):
            await node.compute(time.sleep, 0.4)
            log.append(k)

    async def program(node):
        if node.rank == 0:
            for _ in range(20):
                node.send(1, A)
                await node.recv(B)
            node.send(1, B)
            await node.recv(B)
            return
        if node.rank == 1:
            await node.compute(time.sleep, 0.02)  # so that gradients are known to be long
            job = node.start(computing(node))
            for _ in range(20):
                await node.recv(A)
                log.append("answer")
                node.send(0, B)
            await node.recv(B)
            job.cancel()
            node.send(0, B)
        await forever(node)

    run = engine("native")
    run.run(toy_cluster(comm.size), program)
    stopped = comm.bcast(run.node.stopped, root=1)
    all_assert(stopped == 1, f"{stopped} jobs were stopped")
    all_assert(comm.rank != 1 or (log.count("answer") == 20 and 2 not in log), log)


@mpi
@pytest.mark.parametrize("length", [1, 100_000])
def test_a_native_rank_that_only_sends_hears_of_the_end(comm, all_assert, engine, toy_cluster, length):
    async def program(node):
        if node.rank == 0:
            for _ in range(5):
                await node.recv(A)
            return
        while True:
            await node.send(0, A, numpy.ones(length))

    ended_by = engine("native", stall_seconds=8.0).run(toy_cluster(comm.size), program)
    all_assert(ended_by == 0)


@mpi
def test_a_native_rank_reads_the_newest_of_what_was_sent_last(comm, all_assert, engine, toy_cluster):
    """Of a `newest_only` tag one message leaves and the newest waits; all of another tag come, in their order."""
    read = {A: [], B: []}

    async def program(node):
        if node.rank == 0:
            for k in range(100):
                node.send(1, A, k, numpy.ones(20_000))
                node.send(1, B, k)
            await node.recv(B)
        elif node.rank == 1:
            while 99 not in read[A]:
                read[A].append((await node.recv(A)).body[0])
            while 99 not in read[B]:
                read[B].append((await node.recv(B)).body[0])
            node.send(0, B)
            await forever(node)
        else:
            await forever(node)

    run = engine("native")
    run.run(toy_cluster(comm.size, newest_only=[A]), program)
    all_assert(comm.rank != 0 or run.node.journal.messages == 102)
    all_assert(comm.rank != 1 or read == {A: [0, 99], B: list(range(100))}, read)


@mpi
def test_a_native_run_is_cut_by_until(comm, all_assert, engine, toy_cluster):
    log = []

    async def program(node):
        while True:
            await node.sleep(0.01)
            log.append(node.now())

    run = engine("native")
    ended_by = run.run(toy_cluster(comm.size, until=100 * MS), program)
    all_assert(ended_by is None and run.end == 100 * MS)
    all_assert(log and max(log) <= 0.1, log)


@mpi
def test_signals_do_not_make_a_rank_wait_for_ever(comm, all_assert, engine, toy_cluster):
    # a wait for the helper thread that a signal cuts short must still end in time
    async def program(node):
        while True:
            await node.sleep(0.003)

    former = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    try:
        ended_by = engine("native").run(toy_cluster(comm.size, until=300 * MS), program)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    all_assert(ended_by is None, ended_by)


@mpi
@pytest.mark.parametrize("until", [None, 50 * MS])
def test_an_all_reduce_that_not_all_ranks_have_begun_does_not_keep_a_run_from_its_end(
    comm, all_assert, engine, toy_cluster, until
):
    totals = []

    async def program(node):
        totals.append(await node.all_reduce(numpy.ones(3)))
        if node.rank == 0:
            await node.sleep(0.05 if until is None else 60.0)
        else:
            totals.append(await node.all_reduce(numpy.ones(3)))

    run = engine("native")
    ended_by = run.run(toy_cluster(comm.size, until=until), program)
    all_assert(ended_by == (0 if until is None else None))
    all_assert([total.tolist() for total in totals] == [[comm.size] * 3], totals)


# Ends that are no ends: whole jobs under a launcher, from a plain process

JOB = """
import sys, time
from mpi4py import MPI
from mpibench.engines.mpi import MPIEngine
from mpibench.node import Cluster

class Edge:
    latency_ns, instant = 1000, True

async def waits(node):
    await node.compute(len, ())
    await node.recv(7, source=1 - node.rank)

async def raises(node):
    if node.rank == 1:
        await node.compute(time.sleep, 0.01)  # so the next one is computed in the helper thread of the native clock
        await node.compute(lambda: 1 / 0)
    await node.recv(7)

async def writes(node):
    import torch
    if node.rank == 1:
        x = torch.ones(3)
        node.send(0, 7, x)
        await node.sleep(0.01)
        x += 1.0
    else:
        await node.recv(7)
        await node.sleep(0.05)
        return
    await node.recv(7)

cluster = Cluster(2, lambda rank: lambda cost, now: 10**6, lambda s, t: Edge(), lambda s, t: None, lambda rank: None)
engine = MPIEngine(MPI.COMM_WORLD, sys.argv[1], stall_seconds=1.0 if sys.argv[2] == "waits" else 30.0)
engine.run(cluster, {"waits": waits, "raises": raises, "writes": writes}[sys.argv[2]])
print("not reached")
"""


def launch(*arguments):
    """Run JOB on two ranks; gives the exit code and all that was printed."""
    pytest.importorskip("mpi4py")
    beside = Path(sys.executable).parent
    launcher = shutil.which("mpiexec", path=beside) or shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("there is no mpiexec")
    job = subprocess.run(
        [launcher, "-n", "2", sys.executable, "-m", "mpi4py", "-c", JOB, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=25,
        cwd=ROOT,
        env=os.environ
        | {"PATH": f"{Path(launcher).parent}:{os.environ['PATH']}"}
        | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"},  # as in a container
    )
    return job.returncode, job.stdout


@pytest.mark.mpi_skip
@pytest.mark.parametrize("clock", ["emulated", "native"])
def test_a_deadlock_ends_with_code_124_and_says_who_waits_where(clock):
    code, text = launch(clock, "waits")
    line = JOB.splitlines().index("    await node.recv(7, source=1 - node.rank)") + 1
    assert code == 124
    assert f"waits at <string>:{line}: recv of tag 7 from rank" in text
    assert "not reached" not in text


@pytest.mark.mpi_skip
@pytest.mark.parametrize("clock", ["emulated", "native"])
def test_an_exception_on_one_rank_ends_all_of_them(clock):
    code, text = launch(clock, "raises")
    assert code not in (0, 124)
    assert "ZeroDivisionError" in text
    assert "not reached" not in text


@pytest.mark.mpi_skip
def test_a_tensor_that_is_written_after_it_was_handed_over_is_caught_at_the_latest_at_the_end():
    pytest.importorskip("torch")
    code, text = launch("emulated", "writes")
    assert code not in (0, 124)
    assert "a tensor was written after it had been handed over" in text


@mpi
def test_what_is_cancelled_while_the_helper_thread_begins_it_is_no_error():
    from mpibench.engines.mpi import MPIEngine

    class Racing(Timer):
        """Cancelled by the main thread as soon as the helper thread has seen that it is not."""

        __slots__ = ()

        @property
        def cancelled(self):
            MPIEngine.forget(None, self)
            return False

        @cancelled.setter
        def cancelled(self, value):
            pass

    done = []
    engine = SimpleNamespace(held_up=None, has_done=lambda computation, seconds: done.append(computation.value))
    MPIEngine.measure(engine, Racing(None, lambda: 5, (), 1.0))
    assert done == [5]
