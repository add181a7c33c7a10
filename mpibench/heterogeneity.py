"""What differs between workers: seconds per gradient, links, and loss of messages.

Everything here is a model: it says how long something takes, as a whole number of nanoseconds, and waits for nothing.
Random times come from a generator that the caller keys by seed, purpose and worker, so that two methods of one seed
meet the same times.

A compute profile gives `durations(worker, workers, rng)`: a function of (cost, now_ns) that returns the nanoseconds of
the worker's next job, where worker = 1..n, cost = 1.0 is one gradient and now_ns is when the job begins. A random
profile draws once a job, whatever the job costs. `mean_seconds(workers)` (array of n) and `smallest_seconds(workers)`
tell how fast an emulation can go.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

import numpy
from annotated_types import Ge, Le, Lt

from mpibench.errors import InvalidInput
from mpibench.parameters import Count

LONGEST = 1e9  # seconds, 31 years: sums of such times fit 64 bits of nanoseconds
Seconds = Annotated[float, Ge(1e-9), Le(LONGEST)]  # never 0 ns: a job without duration would stop the clock
SecondsOrNone = Annotated[float, Ge(0), Le(LONGEST)]
BytesPerSecond = Annotated[float, Ge(1), Le(1e15)]
Exponent = Annotated[float, Ge(0), Le(10)]
Sigma = Annotated[float, Ge(0), Le(5)]

QUANTILE = 0.01  # random times: `smallest_seconds` is undercut by this share of the jobs


def nanoseconds(seconds):
    """Modelled time is a whole number of nanoseconds."""
    return round(seconds * 1e9)


class Constant:
    """A profile in which every gradient of worker i takes `seconds_of(i)`."""

    def mean_seconds(self, workers):
        return numpy.array([self.seconds_of(i) for i in range(1, workers + 1)])

    def smallest_seconds(self, workers):
        return float(self.mean_seconds(workers).min())

    def durations(self, worker, workers, rng):
        return constant(self.seconds_of(worker))


def constant(seconds):
    """Durations that depend on nothing but the cost."""
    one = nanoseconds(seconds)
    return lambda cost, now_ns: one if cost == 1.0 else nanoseconds(cost * seconds)


@dataclass(frozen=True)
class Equal(Constant):
    """h_i = unit_seconds."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i):
        return self.unit_seconds


@dataclass(frozen=True)
class Fixed(Constant):
    """h_i = seconds[i - 1], one number for each worker."""

    seconds: tuple[Seconds, ...]

    def seconds_of(self, i):
        return self.seconds[i - 1]

    def mean_seconds(self, workers):
        self.check(workers)
        return super().mean_seconds(workers)

    def durations(self, worker, workers, rng):
        self.check(workers)
        return super().durations(worker, workers, rng)

    def check(self, workers):
        """Refuse a list that is not as long as there are workers."""
        if len(self.seconds) != workers:
            raise InvalidInput(
                f"compute profile 'fixed' has {len(self.seconds)} seconds for {workers} workers; give one for each"
            )


@dataclass(frozen=True)
class Sqrt(Constant):
    """h_i = unit_seconds * sqrt(i)."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i):
        return self.unit_seconds * math.sqrt(i)


@dataclass(frozen=True)
class Linear(Constant):
    """h_i = unit_seconds * i."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i):
        return self.unit_seconds * i


@dataclass(frozen=True)
class Power(Constant):
    """h_i = unit_seconds * i^exponent."""

    exponent: Exponent
    unit_seconds: Seconds = 1.0

    def seconds_of(self, i):
        return self.unit_seconds * i**self.exponent


@dataclass(frozen=True)
class Exponential:
    """Exponential times of mean unit_seconds, drawn afresh for every job of every worker."""

    unit_seconds: Seconds = 1.0

    def mean_seconds(self, workers):
        return numpy.full(workers, self.unit_seconds)

    def smallest_seconds(self, workers):
        return -self.unit_seconds * math.log1p(-QUANTILE)

    def durations(self, worker, workers, rng):
        unit, draw = self.unit_seconds, rng.standard_exponential
        return lambda cost, now_ns: nanoseconds(cost * unit * draw())


@dataclass(frozen=True)
class Lognormal:
    """unit_seconds * exp(σ Z - σ²/2), Z ~ N(0, 1): mean unit_seconds.

    By default Z is drawn afresh for every job, so that workers differ from job to job and are equal in the long run.
    With `persistent` every worker draws one Z and keeps it: workers differ for good, by the seed.
    """

    sigma: Sigma = 1.1  # σ
    unit_seconds: Seconds = 1.0
    persistent: bool = False

    def seconds(self, z):
        return self.unit_seconds * math.exp(self.sigma * z - self.sigma**2 / 2)

    def mean_seconds(self, workers):
        """Expected values, over seeds where the times are persistent."""
        return numpy.full(workers, self.unit_seconds)

    def smallest_seconds(self, workers):
        # persistent: in the share QUANTILE of seeds the fastest of the workers is faster than this
        level = 1 - (1 - QUANTILE) ** (1 / workers) if self.persistent else QUANTILE
        return self.seconds(NormalDist().inv_cdf(level))

    def durations(self, worker, workers, rng):
        draw, seconds = rng.standard_normal, self.seconds
        if self.persistent:
            return constant(seconds(draw()))
        return lambda cost, now_ns: nanoseconds(cost * seconds(draw()))


@dataclass(frozen=True)
class Papaya:
    """Client times of a federated system: persistent stratified lognormal, and a jitter for every job.

    Worker i of n has the quantile (i - 1/2)/n of unit_seconds * exp(σ Z - σ²/2), whatever the seed, so worker 1 is
    the fastest; each of its jobs takes exp(jitter * Z') times as long, Z' ~ N(0, 1). The default σ is calibrated: the
    slowest of 1,000 random draws takes 21 times the mean, about what D. Huba et al., "Papaya: Practical, Private, and
    Scalable Federated Learning", MLSys 2022, arXiv 2111.04877, report.
    """

    sigma: Sigma = 1.1  # σ, between workers
    unit_seconds: Seconds = 1.0  # mean of the law, which n quantiles approach from below
    jitter: Sigma = 0.1  # between the jobs of a worker

    def seconds_of(self, i, workers):
        """Median seconds of worker i = 1..n."""
        z = NormalDist().inv_cdf((i - 0.5) / workers)
        return self.unit_seconds * math.exp(self.sigma * z - self.sigma**2 / 2)

    def mean_seconds(self, workers):
        medians = numpy.array([self.seconds_of(i, workers) for i in range(1, workers + 1)])
        return medians * math.exp(self.jitter**2 / 2)

    def smallest_seconds(self, workers):
        return self.seconds_of(1, workers) * math.exp(self.jitter * NormalDist().inv_cdf(QUANTILE))

    def durations(self, worker, workers, rng):
        median, jitter, draw, exp = self.seconds_of(worker, workers), self.jitter, rng.standard_normal, math.exp
        return lambda cost, now_ns: nanoseconds(cost * median * exp(jitter * draw()))


PROFILES = {
    "equal": Equal,
    "fixed": Fixed,
    "sqrt": Sqrt,
    "linear": Linear,
    "power": Power,
    "lognormal": Lognormal,
    "exponential": Exponential,
    "papaya": Papaya,
}


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
