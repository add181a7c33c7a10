"""What differs between links, loss of messages, and the modelled time that these and compute profiles are told in.

Everything here is a model: it says how long something takes, as a whole number of nanoseconds, and waits for nothing.
Loss comes from a generator that the caller keys by seed, purpose and edge, so that two methods of one seed meet the
same. How long computations take is in `mpibench.profiles`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen

from mpibench.errors import InvalidInput
from mpibench.parameters import Count, Rank

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
    exponent: Annotated[float, Ge(-3), Le(3)] | None = None  # worker i's transmissions take i^exponent times as long

    def __post_init__(self):
        if self.bandwidth_bytes_per_second is not None and self.vector_seconds is not None:
            raise InvalidInput("links take bandwidth_bytes_per_second or vector_seconds, not both")


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Ranks 0..ranks - 1 share a host, the next `ranks` another one, and so on. Each host's way to the others has a
    bandwidth, of which every rank has an equal part, whether the others use theirs or not. The part limits each edge of
    the rank by itself: one that sends along several edges at once may have it on each of them."""

    ranks: Count
    bandwidth_bytes_per_second: BytesPerSecond

    def part(self, source, to):
        """Bytes per second that an edge may have at most."""
        return self.bandwidth_bytes_per_second / self.ranks if source // self.ranks != to // self.ranks else math.inf


@dataclass(frozen=True)
class Links(Way):
    """All links; messages from the server take `down` where it is given, which is complete in itself: keys that it
    lacks have their defaults, not the values of the other direction. `hosts` limits what leaves a host."""

    down: Way | None = None
    hosts: Hosts | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.hosts is not None and any(way is not None and way.vector_seconds for way in (self, self.down)):
            raise InvalidInput("links with hosts take bandwidth_bytes_per_second, not vector_seconds")

    @property
    def uneven(self):
        """Whether workers have different ways to and from a server."""
        return any(way is not None and way.exponent for way in (self, self.down))

    def edge(self, source, to, server, model_bytes, graph=None):
        """The Edge from rank `source` to rank `to`.

        server: the server's rank, or None; model_bytes: size of a full model vector; graph: a `topology.Graph`, whose
        times for this edge replace those given here.
        """
        way = self.down if self.down is not None and source == server else self
        own = graph.link(source, to) if graph is not None else None
        latency, bandwidth, vector = way.latency_seconds, way.bandwidth_bytes_per_second, way.vector_seconds
        if way.exponent and server is not None:
            factor = max(source, to) ** way.exponent  # the server is rank 0
            bandwidth, vector = bandwidth and bandwidth / factor, vector and vector * factor
        if own is not None and own.latency_seconds is not None:
            latency = own.latency_seconds
        if own is not None and (own.bandwidth_bytes_per_second, own.vector_seconds) != (None, None):
            bandwidth, vector = own.bandwidth_bytes_per_second, own.vector_seconds
        if self.hosts is not None and not vector:
            bandwidth = min(bandwidth or math.inf, self.hosts.part(source, to))
        if bandwidth is not None and bandwidth < math.inf:
            return timed(latency, lambda vectors, other: nanoseconds((vectors + other) / bandwidth))
        if vector:
            return timed(latency, lambda vectors, other: nanoseconds(vectors / model_bytes * vector))
        return Edge(nanoseconds(latency), True, lambda vectors, other: 0)


@dataclass(frozen=True, slots=True)
class Edge:
    """The times of one directed edge."""

    latency_ns: int
    instant: bool  # whether transmission always takes 0
    transmission: Callable[[int, int], int]  # (vector_bytes, other_bytes) of one message -> nanoseconds


def timed(latency, transmission):
    """An Edge where transmission takes time, which is computed once for messages of one size."""
    return Edge(nanoseconds(latency), False, lru_cache(16)(transmission))


@dataclass(frozen=True, kw_only=True)
class Burst:
    """When an edge is in a burst, in which it loses messages with another probability: it begins and ends at random,
    message by message, so that the number of messages in a burst is geometric, of mean 1 / end."""

    begin: Annotated[float, Gt(0), Le(1)]  # probability that one begins after a message outside of one
    end: Annotated[float, Gt(0), Le(1)]  # probability that it ends after a message in it
    probability: Annotated[float, Gt(0), Le(1)] = 1.0  # that a message in it gets lost

    def unlucky(self, outside, draw):
        """() -> whether the next message would get lost; `outside`: the probability of that outside of bursts."""
        inside = draw() < self.begin / (self.begin + self.end)

        def unlucky():
            nonlocal inside
            lost = draw() < (self.probability if inside else outside)
            inside = inside != (draw() < (self.end if inside else self.begin))
            return lost

        return unlucky


@dataclass(frozen=True)
class Loss:
    """Messages get lost, on each directed edge by its own draws, in the order in which they leave.

        loss = { probability = 0.1, max_consecutive = 10 }
        loss = { burst = { begin = 0.01, end = 0.25 } }          optional: probability, in the burst (1) and outside (0)
        loss = { probability = 0.3, edges = [[0, 1], [1, 0]] }

    Without `burst` each gets lost with `probability` p, of at most B = max_consecutive in a row the share
    p (1 - p^B) / (1 - p^(B+1)) of all in the long run.

    With `burst` this is the channel of two states of E. N. Gilbert, "Capacity of a Burst-Noise Channel", Bell System
    Technical Journal 39, 1960, and E. O. Elliott, "Estimates of Error Rates for Codes on Burst-Noise Channels", Bell
    System Technical Journal 42, 1963. From the first message on it is stationary: the share begin / (begin + end) of
    the messages is in bursts, and (end * probability + begin * burst.probability) / (begin + end) get lost. Where all
    in bursts get lost and no others, that is 1 / end in a row in the mean. max_consecutive makes both less.

    What a rank sends to itself is no message and does not get lost, nor does anything by which an engine ends a run.
    All else may, the steps of a collective, too: so only methods that tolerate it are run with loss.
    """

    probability: Annotated[float, Ge(0), Lt(1)] = 0.0  # outside of bursts
    max_consecutive: Count | None = None  # what comes after so many lost ones on an edge arrives
    burst: Burst | None = None
    edges: Annotated[tuple[tuple[Rank, Rank], ...], MinLen(1)] | None = None  # [source, destination]; all by default

    def __post_init__(self):
        for edge in self.edges or ():
            if edge[0] == edge[1]:
                raise InvalidInput(
                    f"edges = {list(map(list, self.edges))} name {list(edge)}, but no rank has a link to itself"
                )
            if self.edges.count(edge) > 1:
                raise InvalidInput(f"edges = {list(map(list, self.edges))} name {list(edge)} twice")

    @property
    def possible(self):
        """Whether any message may get lost."""
        return self.probability > 0 or self.burst is not None

    def on(self, source, to):
        """Whether messages from rank `source` to rank `to` may get lost."""
        return self.possible and (self.edges is None or (source, to) in self.edges)

    def foreign(self, ranks, graph=None):
        """The first of `edges` that is none among so many ranks, or of this graph of theirs; None if there is none."""
        known = (lambda edge: edge in graph.edges) if graph is not None else (lambda edge: max(edge) < ranks)
        return next((edge for edge in self.edges or () if not known(edge)), None)

    def edge(self, rng):
        """A function for one edge that says of each of its messages, in the order sent, whether it gets lost."""
        probability, limit, draw = self.probability, self.max_consecutive or math.inf, rng.random
        if not self.possible:
            return lambda: False
        unlucky = self.burst.unlucky(probability, draw) if self.burst else lambda: draw() < probability
        lost_in_a_row = 0

        def lost():
            nonlocal lost_in_a_row
            # drawn also where the limit decides, so that the path does not shift
            lost_in_a_row = lost_in_a_row + 1 if unlucky() and lost_in_a_row < limit else 0
            return lost_in_a_row > 0

        return lost
