"""What the tests of node, engines and collectives share: small modelled clusters, and ways to run programs on them."""

from dataclasses import dataclass

import numpy
import pytest

from mpibench.engines.simulation import Simulation
from mpibench.journal import Journal
from mpibench.node import SECOND, Cluster


@dataclass(frozen=True)
class Edge:
    """A modelled link of a toy cluster; every modelled byte, of vectors or not, takes the same time."""

    latency_ns: int
    ns_per_byte: int

    @property
    def instant(self):
        return self.ns_per_byte == 0

    def transmission(self, vector_bytes, other_bytes):
        return self.ns_per_byte * (vector_bytes + other_bytes)


@pytest.fixture
def toy_cluster():
    """A function that makes a cluster of `size` ranks.

    `seconds` of a gradient: one number, or one a rank; `latency_ns` and `ns_per_byte` of every edge, unless
    edges = {(source, to): (latency_ns, ns_per_byte)} says otherwise; lost = {(source, to): [False, True, ...]} says of
    each message that leaves whether it gets lost.
    """

    def cluster(
        size, seconds=1.0, latency_ns=0, ns_per_byte=0, edges=None, lost=None, newest_only=(), until=None, seed=0
    ):
        each = seconds if hasattr(seconds, "__getitem__") else [seconds] * size
        edges = edges or {}
        return Cluster(
            size=size,
            durations=lambda rank: lambda cost, now: round(each[rank] * cost * SECOND),
            edge=lambda source, to: Edge(*edges.get((source, to), (latency_ns, ns_per_byte))),
            lost=lambda source, to: iter(lost[source, to]).__next__ if (source, to) in (lost or {}) else None,
            random=lambda rank: numpy.random.default_rng([seed, rank]),
            newest_only=frozenset(newest_only),
            journal=lambda rank: Journal(rows=False),
            until=until,
        )

    return cluster


@pytest.fixture
def simulate(toy_cluster):
    """A function that runs one program a rank in virtual time, on a cluster with the given keywords.

    Returns the engine; its `ended_by` is the rank that ended the run.
    """

    def run(*programs, **modelled):
        engine = Simulation()
        cluster = toy_cluster(len(programs), **modelled)
        engine.ended_by = engine.run(cluster, lambda node: programs[node.rank](node))
        return engine

    return run


@pytest.fixture
def together():
    """A function that makes programs of `body(node)`: every rank puts what its body returns into `results`, and the run
    ends when all have. Tag 1000 is taken."""

    def program_of(body, results):
        done = 1000

        async def program(node):
            results[node.rank] = await body(node)
            if node.rank == 0:
                for rank in node.workers:
                    await node.recv(done, source=rank)
            else:
                node.send(0, done)
                await node.recv(done)

        return program

    return program_of


@pytest.fixture
def edges():
    """A class of directed graphs for `node.join`, from a list of (source, to)."""

    class Edges:
        def __init__(self, *pairs):
            self.pairs = pairs

        def sources(self, rank):
            return [source for source, to in self.pairs if to == rank]

        def destinations(self, rank):
            return [to for source, to in self.pairs if source == rank]

    return Edges
