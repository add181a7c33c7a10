"""What differs between links, loss of messages, and the modelled time that these and compute profiles are told in.

Everything here is a model: it says how long something takes, as a whole number of nanoseconds, and waits for nothing.
Loss comes from a generator that the caller keys by seed, purpose and edge, so that two methods of one seed meet the
same. How long computations take is in `mpibench.profiles`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, Lt

from mpibench.errors import InvalidInput
from mpibench.parameters import Count

LONGEST = 1e9  # seconds, 31 years: sums of such times fit 64 bits of nanoseconds
Seconds = Annotated[float, Ge(1e-9), Le(LONGEST)]  # never 0 ns: a job without duration would stop the clock
SecondsOrNone = Annotated[float, Ge(0), Le(LONGEST)]
BytesPerSecond = Annotated[float, Ge(1), Le(1e15)]


def nanoseconds(seconds):
    """Modelled time is a whole number of nanoseconds."""
    return round(seconds * 1e9)


@dataclass(frozen=True)
class Way:
    """What a message costs in one direction; without bandwidth and vector_seconds it is transmitted in no time.

    Latency is added to the arrival and does not occupy the link; the transmission does.
    """

    latency_seconds: SecondsOrNone = 0.0
    bandwidth_bytes_per_second: BytesPerSecond | None = None  # every modelled byte is charged
    vector_seconds: SecondsOrNone | None = None  # of a full model vector; vectors by their share, all else is free

    def __post_init__(self):
        if self.bandwidth_bytes_per_second is not None and self.vector_seconds is not None:
            raise InvalidInput("links take bandwidth_bytes_per_second or vector_seconds, not both")


@dataclass(frozen=True)
class Links(Way):
    """All links; messages from the server take `down` where it is given, which is complete in itself: keys that it
    lacks have their defaults, not the values of the other direction."""

    down: Way | None = None

    def edge(self, source, to, server, model_bytes, graph=None):
        """The Edge from rank `source` to rank `to`.

        server: the server's rank, or None; model_bytes: size of a full model vector; graph: a `topology.Graph`, whose
        times for this edge replace those given here.
        """
        way = self.down if self.down is not None and source == server else self
        own = graph.link(source, to) if graph is not None else None
        latency, bandwidth, vector = way.latency_seconds, way.bandwidth_bytes_per_second, way.vector_seconds
        if own is not None and own.latency_seconds is not None:
            latency = own.latency_seconds
        if own is not None and (own.bandwidth_bytes_per_second, own.vector_seconds) != (None, None):
            bandwidth, vector = own.bandwidth_bytes_per_second, own.vector_seconds
        if bandwidth is not None:
            return Edge(nanoseconds(latency), False, lambda vectors, other: nanoseconds((vectors + other) / bandwidth))
        if vector:
            return Edge(nanoseconds(latency), False, lambda vectors, other: nanoseconds(vectors / model_bytes * vector))
        return Edge(nanoseconds(latency), True, lambda vectors, other: 0)


@dataclass(frozen=True, slots=True)
class Edge:
    """The times of one directed edge."""

    latency_ns: int
    instant: bool  # whether transmission always takes 0
    transmission: Callable[[int, int], int]  # (vector_bytes, other_bytes) of one message -> nanoseconds


@dataclass(frozen=True)
class Loss:
    """Messages get lost independently with `probability`, on every edge at most `max_consecutive` in a row."""

    probability: Annotated[float, Ge(0), Lt(1)] = 0.0
    max_consecutive: Count | None = None

    def edge(self, rng):
        """A function for one edge that says of each of its messages, in the order sent, whether it gets lost."""
        probability, limit, draw = self.probability, self.max_consecutive or math.inf, rng.random
        if probability == 0:
            return lambda: False
        lost_in_a_row = 0

        def lost():
            nonlocal lost_in_a_row
            unlucky = draw() < probability  # drawn also where the limit decides, so that the path does not shift
            lost_in_a_row = lost_in_a_row + 1 if unlucky and lost_in_a_row < limit else 0
            return lost_in_a_row > 0

        return lost
