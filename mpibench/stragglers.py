"""Workers that are slow, whatever their profile: for good, or now and then.

    compute = { profile = "sqrt", straggler = { workers = [1], factor = 4.0 } }
    compute = { profile = "sqrt", stall = { probability = 0.1, mean_seconds = 5.0 } }                 optional: workers

Workers are numbered from 1: the server is rank 0 and worker i is rank i, and in a network method rank r is worker
r + 1. All jobs of a straggler take `factor` times as long, jitter included, as if its profile said so: a speed slows it
down or up beside that, and one that ends "mirrored" gives its time to the opposite worker.

A job that stalls takes the seconds that it takes anyhow, and then waits. It is busy all the time, and neither what the
job costs nor a speed changes how long it waits. A worker draws twice for each of its jobs, whether it stalls or not, so
that with a smaller probability fewer of the same jobs stall, for as long, and with a longer mean the same for longer.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from mpibench.errors import InvalidInput
from mpibench.heterogeneity import Seconds, nanoseconds
from mpibench.parameters import Count, Probability

LEVELS = 500  # of the waiting time, at so many of which `within` takes its law where all jobs stall

Workers = Annotated[tuple[Count, ...], MinLen(1)]


def refuse_twice(workers):
    """Refuse a list that holds a worker twice."""
    if twice := [i for i in workers or () if workers.count(i) > 1]:
        raise InvalidInput(f"workers = {list(workers)} hold worker {twice[0]} twice")


@dataclass(frozen=True, kw_only=True)
class Straggler:
    """All jobs of these workers take `factor` times as long."""

    workers: Workers  # numbers from 1
    factor: Annotated[float, Ge(1), Le(1e6)]

    def __post_init__(self):
        refuse_twice(self.workers)


@dataclass(frozen=True, kw_only=True)
class Stall:
    """With `probability` a job waits for an exponential time of mean `mean_seconds` beside what it takes."""

    probability: Probability
    mean_seconds: Seconds
    workers: Workers | None = None  # numbers from 1; all by default

    def __post_init__(self):
        refuse_twice(self.workers)

    @property
    def mean(self):
        """Expected seconds that a job waits."""
        return self.probability * self.mean_seconds

    def sampler(self, rng):
        """() -> nanoseconds that the next job waits."""
        probability, mean, draw, share = self.probability, self.mean_seconds, rng.random, rng.standard_exponential

        def wait():
            stalls, shares = draw() < probability, share()
            return nanoseconds(mean * shares) if stalls else 0

        return wait

    def within(self, undisturbed, least, seconds):
        """Probability that a job takes at most `seconds`; undisturbed(seconds): the same without stalls, which is 0
        below `least` seconds."""
        # the wait must be shorter than this, and is then taken at equally likely levels
        short = -math.expm1(-max(0.0, seconds - least) / self.mean_seconds)
        levels = math.ceil(LEVELS * self.probability * short)
        waits = (-self.mean_seconds * math.log1p(-short * (k + 0.5) / levels) for k in range(levels))
        stalled = math.fsum(undisturbed(seconds - wait) for wait in waits) * short / max(1, levels)
        return (1 - self.probability) * undisturbed(seconds) + self.probability * stalled

    def quantile(self, level, job):
        """Seconds that the share `level` of the jobs do not exceed; `job`: the `jitter.Job` without stalls."""
        # no less than without stalls, and no more than where job and wait both have this greater level
        both = level**0.4
        low, high = job.quantile(level), job.quantile(both) - self.mean_seconds * math.log1p(-both)
        instants = range(nanoseconds(low), nanoseconds(high) + 1)

        def reached(ns):
            return self.within(job.within, job.least, ns / 1e9)

        return instants[bisect_left(instants, level, key=reached)] / 1e9
