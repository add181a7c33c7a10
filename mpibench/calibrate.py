"""Links and gradients as runs on the native clock meet them, measured by programs on the same engine.

Between two messages ranks wait as long as methods do, so a latency holds what the library, Python and looking for
messages take. The topology that is written lets a simulation predict this very machine.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy

from mpibench.collectives import barrier

ROUNDS, LARGE_ROUNDS = 24, 8
LARGE_BYTES = 1 << 20
MOST_PAIRS = 300  # of ranks; beyond, the median of links of the same kind stands for the rest
GRADIENT_SECONDS, LEAST_GRADIENTS, MOST_GRADIENTS = 3.0, 20, 2000


class Tag(IntEnum):
    BARRIER = 0
    SMALL = 1  # when it was sent
    LARGE = 2  # when it was sent, and a vector
    GO = 3  # the other one's turn


@dataclass
class Calibration:
    """What `measure` gives on rank 0."""

    links: dict  # (source, destination) -> (latency in seconds, bytes per second)
    hosts: list  # of each rank
    overlap: float  # share of an exchange that a computation beside it hides; NaN with one rank
    times: list  # of each rank but 0, the seconds of its gradients one after another; [] without a problem
    library: str


def measure(comm, problem=None, say=lambda text: None):
    """The Calibration of the ranks of `comm`, on rank 0; `problem`: a prepared one, whose gradients are timed on all
    ranks but 0 at once, as worker 1, 2, ..."""
    from mpi4py import MPI

    hosts = comm.allgather(MPI.Get_processor_name())
    pairs = [(i, j) for i in range(comm.size) for j in range(i + 1, comm.size)]
    step = -(-len(pairs) // MOST_PAIRS) if pairs else 1
    say(f"timing {len(pairs[::step])} of {len(pairs)} pairs of ranks")
    delays = run(comm, lambda node: exchange_all(node, pairs[::step]))
    everybodys = comm.gather(delays)
    overlap = comm.bcast(run(comm, overlapped)) if comm.size > 1 else float("nan")
    times = []
    if problem is not None and comm.size > 1:
        say("timing gradients")
        times = comm.gather(run(comm, lambda node: gradients(node, problem)))
    if comm.rank:
        return None
    library = " ".join(MPI.Get_library_version().strip("\0\n ").splitlines()[0].split())
    return Calibration(links_of(everybodys, hosts), hosts, overlap, (times or [None])[1:], library)


def run(comm, program):
    """What `program(node)` returns on this rank, on the native clock."""
    from mpibench import clocks
    from mpibench.engines.mpi import MPIEngine
    from mpibench.node import Cluster

    found = []

    async def noting(node):
        found.append(await program(node))
        await barrier(node, Tag.BARRIER)
        if node.rank:
            await node.recv(Tag.GO, source=0)  # rank 0 ends the run
        else:
            for other in range(1, node.size):
                await node.send(other, Tag.GO)
            await node.sleep(0.01)

    engine = MPIEngine(comm, "native", offset=clocks.offset(comm)[0])
    nothing = lambda *_: None  # noqa: E731
    engine.run(Cluster(comm.size, nothing, nothing, nothing, nothing), noting)
    return found[0] if found else None


async def exchange_all(node, pairs):
    """(source, destination) -> (seconds of small messages, seconds of large ones), of what has come here."""
    found = {}
    vector = numpy.ones(LARGE_BYTES // 8)
    for i, j in pairs:
        await barrier(node, Tag.BARRIER)
        if node.rank in (i, j):
            other = i + j - node.rank
            small, large = [], []
            for turn in range(2 * (ROUNDS + LARGE_ROUNDS)):
                sends_large = turn >= 2 * ROUNDS
                tag, body = (Tag.LARGE, (vector,)) if sends_large else (Tag.SMALL, ())
                if turn % 2 == (node.rank == i):
                    await node.sleep(0.001 * (1 + turn % 7))
                    node.send(other, tag, node.now(), *body)
                else:
                    _, (sent, *_) = await node.recv(tag, source=other)
                    (large if sends_large else small).append(node.now() - sent)
            found[other, node.rank] = small, large
    return found


async def overlapped(node):
    """The share of the shorter of a computation and an exchange of large vectors that is hidden behind the other."""
    matrix = numpy.ones((200, 200))
    vector = numpy.ones(8 * LARGE_BYTES // 8)

    def work():
        for _ in range(20):
            matrix @ matrix

    async def talk():
        for other in range(node.size):
            if other != node.rank:
                node.send(other, Tag.LARGE, vector)
        for _ in range(node.size - 1):
            await node.recv(Tag.LARGE)

    async def timed(*what):
        await barrier(node, Tag.BARRIER)
        began = node.now()
        for each in what:
            await each
        return node.now() - began

    for _ in range(3):
        await node.compute(work)  # from the third on in the helper thread
    alone, exchange = await timed(node.compute(work)), await timed(talk())
    both = await timed(node.compute(work), talk())
    return max(0.0, min(1.0, (alone + exchange - both) / max(1e-9, min(alone, exchange))))


async def gradients(node, problem):
    """Seconds of this rank's gradients, as worker number rank; none on rank 0."""
    times = []
    if node.rank:
        f, x = problem.objective(node.rank), problem.start()
        for _ in range(5):
            await node.compute(f.gradient, x, f.sample())
    await barrier(node, Tag.BARRIER)
    began = node.now()
    while node.rank and len(times) < MOST_GRADIENTS:
        if len(times) >= LEAST_GRADIENTS and node.now() - began > GRADIENT_SECONDS:
            break
        before = node.now()
        await node.compute(f.gradient, x, f.sample())
        times.append(node.now() - before)
    return times


def links_of(delays, hosts):
    """(source, destination) -> (latency, bandwidth), from each rank's `exchange_all`. Between hosts both directions
    have the mean of the two, as their clocks are known to half a round trip only."""
    measured = {pair: seconds_of(*values) for found in delays for pair, values in found.items()}
    links = {}
    for (i, j), (latency, transmission) in measured.items():
        if hosts[i] != hosts[j]:
            latency, transmission = numpy.mean([measured[i, j], measured[j, i]], axis=0).tolist()
        links[i, j] = max(latency, 1e-9), LARGE_BYTES / transmission
    for i in range(len(hosts)):
        for j in range(len(hosts)):
            if i != j and (i, j) not in links:
                alike = [v for (a, b), v in links.items() if (hosts[a] == hosts[b]) == (hosts[i] == hosts[j])]
                links[i, j] = tuple(numpy.median(alike or list(links.values()), axis=0).tolist())
    return links


def seconds_of(small, large):
    """(latency, transmission of LARGE_BYTES): the mean of the middle four fifths of the small messages, and by how much
    the fastest of the large ones was slower than the fastest of the small, or a tenth of it where that says nothing."""
    ordered, cut = numpy.sort(small), len(small) // 10
    transmission = max(min(large) - min(small), min(large) / 10, 1e-9)
    return float(ordered[cut : len(ordered) - cut].mean()), transmission


def topology_text(found, when):
    """A file of topologies/: the complete graph of the ranks, each edge with what was measured."""
    n = len(found.hosts)
    shares = ", ".join(f"{host} has ranks {ranks_of(found.hosts, host)}" for host in dict.fromkeys(found.hosts))
    lines = [
        f"# Links of {n} ranks as methods on the native clock meet them, measured {when} with {found.library}.",
        f"# {shares}. A computation hides {found.overlap:.0%} of an exchange beside it.",
        "# Written by `mpibench doctor --calibrate`.",
        "",
        f"size = {n}",
        "edges = [",
    ]
    for (i, j), (latency, bandwidth) in sorted(found.links.items()):
        times = f"latency_seconds = {latency:.4g}, bandwidth_bytes_per_second = {bandwidth:.4g}"
        lines.append(f"    {{ source = {i}, to = {j}, {times} }},")
    return "\n".join([*lines, "]", ""])


def ranks_of(hosts, host):
    """The ranks of a host as text, 0-3 or 0, 2."""
    ranks = [rank for rank, each in enumerate(hosts) if each == host]
    return f"{ranks[0]}-{ranks[-1]}" if len(ranks) > 2 and ranks[-1] - ranks[0] == len(ranks) - 1 else str(ranks)[1:-1]


def times_text(found):
    """The seconds of gradients as a CSV file for the compute profile `trace`: a row for each job of each worker."""
    rows = [f"{i},{seconds:.9f}" for i, times in enumerate(found.times, 1) for seconds in times]
    return "\n".join(["worker,seconds", *rows, ""])
