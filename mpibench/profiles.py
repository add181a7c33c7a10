"""Compute profiles: how long a gradient takes each worker, job by job.

    [heterogeneity]
    compute = { profile = "sqrt", unit_seconds = 1.0 }

A profile says what the workers i = 1..n need, h_i or a law that is the same for all. Those of h_i take the table
`jitter` for what differs from job to job (`mpibench.jitter`), and all take the table `speed` for what changes in time
(`mpibench.speeds`) and the tables `straggler` and `stall` for workers that are slow for good, or now and then
(`mpibench.stragglers`). Everything here is a model: it says how long something takes, as a whole number of nanoseconds,
and waits for nothing. Random times come from a generator that the caller keys by seed, purpose and worker, so that two
methods of one seed meet the same times.

`durations(worker, workers, rng)` is a function of (cost, now_ns) that returns the nanoseconds of the worker's next job,
where cost = 1.0 is one gradient and now_ns is when the job begins. A random profile draws once a job, whatever the job
costs, so that the times do not depend on when jobs begin; a speed depends on that alone, and a job that stalls is so
much longer.

Before the run there is known of n workers, without their seed:

    mean_seconds(n)        (n,) expected seconds of a gradient, at the mean speed of the long run
    least_seconds(n)       (n,) the infimum of the seconds of a gradient, at the greatest speed, which may be too
                           short for a gradient to attain it
    smallest_seconds(n)    what the share QUANTILE of the fastest worker's jobs undercut, at the greatest speed: tells
                           how fast an emulation can go
    within(i, n, seconds)  probability that a job of worker i takes at most `seconds`; under a speed, when it begins at
                           any time of the long run; to about 0.001 where jitter, speed or stalls are added up
    rate(i, n)             seconds on the clock -> gradients a second: the factor of the speed over the mean seconds at
                           factor 1; what stalls take is spread over the long run
    work(i, n)             seconds on the clock -> gradients from time 0, the integral of the rate

Times that a worker draws once, by the seed, are taken over seeds, and so are halts at random and stalls.
"""

import csv
import itertools
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy
from annotated_types import Ge, Le, MinLen

from mpibench import jitter as laws
from mpibench.errors import InvalidInput
from mpibench.heterogeneity import LONGEST, Seconds, SecondsOrNone, nanoseconds
from mpibench.jitter import NORMAL, Exponent, Job, Law, Sigma, Tail, Width
from mpibench.parameters import Count
from mpibench.speeds import ONE, Speed, Steps
from mpibench.stragglers import Stall, Straggler

QUANTILE = 0.01  # random times: `smallest_seconds` is undercut by this share of the jobs
OPTIONS = 100  # times drawn once, with jitter: `within` takes their law at so many levels
ENTRIES = 100_000  # times in a trace, which travels with the experiment and into every file
STEADY = Steps([0], [1.0])  # the course of a worker whose speed does not change


class Profile:
    """What is the same for all profiles: all that follows from `own`, `between_jobs`, `speed`, `straggler`, `stall`."""

    between_jobs = None  # the law of `mpibench.jitter` by which the jobs of a worker differ
    speed = straggler = stall = None
    kept = False  # whether a worker draws from `own` once

    def own(self, worker, workers):
        """The Job of a worker, before jitter and unless it is a straggler."""
        return Job(self.seconds_of(worker, workers))

    def check(self, workers):
        """Refuse what does not fit the number of workers."""
        for name in ("straggler", "stall"):
            table = getattr(self, name)
            if foreign := [i for i in (table and table.workers) or () if i > workers]:
                text = f"has worker {foreign[0]} in `{name}` for {workers} workers"
                raise InvalidInput(f"{text}; they are 1 to {workers}, and rank r of a network method is worker r + 1")

    def factor(self, worker):
        """What all times of a worker are multiplied by."""
        return self.straggler.factor if self.straggler is not None and worker in self.straggler.workers else 1.0

    def stall_of(self, worker):
        """The Stall that a worker is subject to, or None."""
        return self.stall if self.stall is not None and worker in (self.stall.workers or (worker,)) else None

    def jobs(self, worker, workers):
        """Equally likely Jobs of a worker at factor 1: one, unless it draws its time once and has jitter beside it."""
        own = self.own(worker, workers)
        if self.between_jobs is None:
            return (slower(own, self.factor(worker)),)
        levels = [(k + 0.5) / OPTIONS for k in range(OPTIONS)] if self.kept else [0.5]
        return tuple(self.around(own.quantile(level), worker) for level in levels)

    def around(self, seconds, worker):
        """The Job of a worker whose own time is `seconds`."""
        job = Job(seconds) if self.between_jobs is None else self.between_jobs.job(seconds, worker)
        return slower(job, self.factor(worker))

    def nominal(self, worker, workers):
        """Expected seconds at factor 1."""
        return self.around(self.own(worker, workers).mean, worker).mean

    def course(self, worker, workers):
        """The Course of a worker's speed."""
        if self.speed is None:
            return STEADY
        return self.speed.of(worker, workers, lambda i: self.own(i, workers).mean * self.factor(i))

    def of_each(self, of, workers):
        """(n,) of(worker, course of its speed)."""
        self.check(workers)
        return numpy.array([of(i, self.course(i, workers)) for i in range(1, workers + 1)])

    def mean_seconds(self, workers):
        def mean(i, course):
            stall = self.stall_of(i)
            return self.nominal(i, workers) / course.long_run + (stall.mean if stall else 0.0)

        return self.of_each(mean, workers)

    def least_seconds(self, workers):
        return self.of_each(partial(self.least, workers), workers)

    def least(self, workers, worker, course):
        """The infimum of a worker's seconds."""
        return self.around(self.own(worker, workers).least, worker).least / course.fastest

    def smallest_seconds(self, workers):
        # drawn once: in the share QUANTILE of seeds the fastest of the workers is faster than this
        level = 1 - (1 - QUANTILE) ** (1 / workers) if self.kept else QUANTILE

        def small(i, course):
            own, stall = self.own(i, workers), self.stall_of(i)
            if stall is None:
                return self.around(own.quantile(level), i).quantile(QUANTILE) / course.fastest
            afresh = self.between_jobs is None and not self.kept
            job = slower(own, self.factor(i)) if afresh else self.around(own.quantile(level), i)
            return stall.quantile(QUANTILE, slower(job, 1 / course.fastest))

        return float(self.of_each(small, workers).min())

    def within(self, worker, workers, seconds):
        self.check(workers)
        course, stall = self.course(worker, workers), self.stall_of(worker)
        undisturbed = partial(course.within, self.jobs(worker, workers))
        return (
            stall.within(undisturbed, self.least(workers, worker, course), seconds) if stall else undisturbed(seconds)
        )

    def rate(self, worker, workers):
        course, mean = self.at_factor_1(worker, workers)
        return lambda seconds: course.factor(nanoseconds(seconds)) / mean

    def work(self, worker, workers):
        course, mean = self.at_factor_1(worker, workers)
        return lambda seconds: course.work(nanoseconds(seconds)) / (mean * 1e9 * ONE)

    def at_factor_1(self, worker, workers):
        """(Course of a worker, the seconds that give its mean ones when they are divided by the mean factor)."""
        self.check(workers)
        course, stall = self.course(worker, workers), self.stall_of(worker)
        return course, self.nominal(worker, workers) + (stall.mean * course.long_run if stall else 0.0)

    def durations(self, worker, workers, rng):
        self.check(workers)
        stall = self.stall_of(worker)
        # a path and stalls have generators of their own, so that jobs take from `rng` what they take without these
        of_path, of_stalls = rng.spawn(2) if rng and (self.speed or stall) else (None, None)
        undisturbed = self.undisturbed(worker, workers, rng, of_path)
        if stall is None:
            return undisturbed
        wait = stall.sampler(of_stalls)
        return lambda cost, now_ns: undisturbed(cost, now_ns) + wait()

    def undisturbed(self, worker, workers, rng, of_path):
        """`durations` without stalls."""
        path = self.course(worker, workers).path(of_path) if self.speed else None
        job = self.own(worker, workers)
        if self.kept:
            job = Job(job.sampler(rng)())
        job = slower(job, self.factor(worker)) if self.between_jobs is None else self.around(job.shift, worker)
        following = job.sampler(rng)
        if path is not None:
            return lambda cost, now_ns: path.duration(cost * following(), now_ns)
        if job.law is None:
            return steady(nanoseconds(job.shift) or 1, job.shift)
        return lambda cost, now_ns: nanoseconds(cost * following()) or 1  # never 0: the clock would stop


def steady(one, seconds):
    """The durations of jobs that take the same every time; `steady` says how many ns one of cost 1 takes."""

    def duration(cost, now_ns):
        return one if cost == 1.0 else nanoseconds(cost * seconds)

    duration.steady = one
    return duration


def slower(job, factor):
    """A Job whose times are multiplied by this."""
    return replace(job, shift=job.shift * factor, scale=job.scale * factor)


@dataclass(frozen=True)
class Varying(Profile):
    """A profile whose speed may change in time, and some of whose workers may be slow."""

    speed: Speed | None = field(default=None, kw_only=True)
    straggler: Straggler | None = field(default=None, kw_only=True)
    stall: Stall | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Lasting(Varying):
    """A profile whose worker i takes h_i = seconds_of(i, n), and whose jobs may differ around that."""

    jitter: Law | None = field(default=None, kw_only=True)

    @property
    def between_jobs(self):
        return self.jitter


@dataclass(frozen=True)
class Equal(Lasting):
    """h_i = unit_seconds."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i, workers):
        return self.unit_seconds


@dataclass(frozen=True)
class Fixed(Lasting):
    """h_i = seconds[i - 1], one number for each worker."""

    seconds: tuple[Seconds, ...]

    def seconds_of(self, i, workers):
        return self.seconds[i - 1]

    def check(self, workers):
        super().check(workers)
        if len(self.seconds) != workers:
            raise InvalidInput(
                f"compute profile 'fixed' has {len(self.seconds)} seconds for {workers} workers; give one for each"
            )


@dataclass(frozen=True)
class Sqrt(Lasting):
    """h_i = unit_seconds * sqrt(i)."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i, workers):
        return self.unit_seconds * math.sqrt(i)


@dataclass(frozen=True)
class Linear(Lasting):
    """h_i = unit_seconds * i."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i, workers):
        return self.unit_seconds * i


@dataclass(frozen=True)
class Log(Lasting):
    """h_i = unit_seconds * ln(1 + i)."""

    unit_seconds: Seconds = 1.0

    def seconds_of(self, i, workers):
        return self.unit_seconds * math.log1p(i)


@dataclass(frozen=True)
class Power(Lasting):
    """h_i = offset_seconds + unit_seconds * (i + first - 1)^exponent: worker 1 has the number `first`."""

    exponent: Exponent
    unit_seconds: Seconds = 1.0
    offset_seconds: SecondsOrNone = 0.0
    first: Annotated[int, Ge(0), Le(1)] = 1  # 0 where a published program counts from 0, which needs an offset

    def __post_init__(self):
        if self.first == 0 and self.exponent > 0 and self.offset_seconds < 1e-9:
            raise InvalidInput("first = 0 gives worker 1 no time; set offset_seconds >= 1e-9, or first = 1")

    def seconds_of(self, i, workers):
        return self.offset_seconds + self.unit_seconds * (i + self.first - 1) ** self.exponent


@dataclass(frozen=True)
class Permutation(Lasting):
    """h_i = unit_seconds * π(i), π a random permutation of 1..n that belongs to the experiment, not to its seeds."""

    unit_seconds: Seconds = 1.0
    permutation_seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0

    def seconds_of(self, i, workers):
        return self.unit_seconds * int(permutation(self.permutation_seed, workers)[i - 1])


@lru_cache(maxsize=8)
def permutation(seed, workers):
    """(n,) the numbers 1..n in random order."""
    return numpy.random.default_rng(seed).permutation(workers) + 1


@dataclass(frozen=True)
class Stratified(Lasting):
    """h_i is the quantile (i - 1/2)/n of unit_seconds * exp(σ Z - σ²/2), Z ~ N(0, 1), whatever the seed.

    Worker 1 is the fastest. The mean of the law is unit_seconds, which that of n quantiles approaches from below.
    """

    sigma: Sigma = 1.1  # σ
    unit_seconds: Seconds = 1.0

    def seconds_of(self, i, workers):
        z = NORMAL.inv_cdf((i - 0.5) / workers)
        return self.unit_seconds * math.exp(self.sigma * z - self.sigma**2 / 2)


@dataclass(frozen=True)
class Lognormal(Lasting):
    """unit_seconds * exp(σ Z - σ²/2), Z ~ N(0, 1): mean unit_seconds.

    By default Z is drawn afresh for every job, so that workers differ from job to job and are equal in the long run.
    With `persistent` every worker draws one Z and keeps it: workers differ for good, by the seed.
    """

    sigma: Sigma = 1.1  # σ
    unit_seconds: Seconds = 1.0
    persistent: bool = False

    def __post_init__(self):
        if self.jitter is not None and not self.persistent:
            raise InvalidInput("draws every job afresh and takes no jitter; set persistent = true, or leave jitter out")

    @property
    def kept(self):
        return self.persistent

    def own(self, worker, workers):
        return Job(0.0, self.unit_seconds, laws.Lognormal(sigma=self.sigma))


class Afresh(Varying):
    """A profile whose workers are equal, and whose every job is drawn afresh, of mean unit_seconds."""

    def own(self, worker, workers):
        law = self.law
        return Job(0.0, self.unit_seconds / law.mean, law)


@dataclass(frozen=True)
class Exponential(Afresh):
    """Exponential times of mean unit_seconds, drawn afresh for every job of every worker."""

    law: ClassVar = laws.Exponential()

    unit_seconds: Seconds = 1.0


@dataclass(frozen=True)
class Uniform(Afresh):
    """Times uniform on unit_seconds * [1 - width, 1 + width], drawn afresh for every job of every worker."""

    width: Width = 1.0
    unit_seconds: Seconds = 1.0

    @property
    def law(self):
        return laws.Uniform(width=self.width)


@dataclass(frozen=True)
class Erlang(Afresh):
    """Sums of `shape` equal exponential times, of mean unit_seconds together, drawn afresh for every job."""

    shape: Count  # k
    unit_seconds: Seconds = 1.0

    @property
    def law(self):
        return laws.Erlang(shape=self.shape)


@dataclass(frozen=True)
class Pareto(Afresh):
    """Heavy-tailed times of mean unit_seconds: P(longer than t) falls as t^-shape; drawn afresh for every job.

    For shape <= 2, a stress test, the variance is infinite.
    """

    shape: Tail = 1.5
    unit_seconds: Seconds = 1.0

    @property
    def law(self):
        return laws.Pareto(shape=self.shape)


@dataclass(frozen=True)
class HalfNormal(Afresh):
    """unit_seconds * √(π/2) |Z|, Z ~ N(0, 1): mean unit_seconds, drawn afresh for every job of every worker."""

    law: ClassVar = laws.HalfNormal()

    unit_seconds: Seconds = 1.0


@dataclass(frozen=True)
class Papaya(Varying):
    """Client times of a federated system: persistent stratified lognormal, and a jitter for every job.

    Worker i of n has the quantile (i - 1/2)/n of unit_seconds * exp(σ Z - σ²/2), whatever the seed, so worker 1 is
    the fastest; each of its jobs takes exp(jitter * Z') times as long, Z' ~ N(0, 1). The default σ is calibrated: the
    slowest of 1,000 random draws takes 21 times the mean, about what D. Huba et al., "Papaya: Practical, Private, and
    Scalable Federated Learning", MLSys 2022, arXiv 2111.04877, report.
    """

    sigma: Sigma = 1.1  # σ, between workers
    unit_seconds: Seconds = 1.0  # mean of the law, which n quantiles approach from below
    jitter: Sigma = 0.1  # between the jobs of a worker

    @property
    def between_jobs(self):
        return laws.Lognormal(sigma=self.jitter)

    def seconds_of(self, i, workers):
        """Mean seconds of worker i = 1..n, whose median is a quantile of the law."""
        return Stratified(self.sigma, self.unit_seconds).seconds_of(i, workers) * math.exp(self.jitter**2 / 2)


@dataclass(frozen=True)
class Recorded:
    """Y of a list of times, one after the other and from the beginning again."""

    times: tuple[float, ...]

    @property
    def mean(self):
        return math.fsum(self.times) / len(self.times)

    @property
    def least(self):
        return min(self.times)

    def sampler(self, rng):
        return itertools.cycle(self.times).__next__

    def within(self, y):
        return sum(nanoseconds(time) <= nanoseconds(y) for time in self.times) / len(self.times)

    def quantile(self, level):
        return float(numpy.quantile(self.times, level, method="inverted_cdf"))


@dataclass(frozen=True)
class Trace(Varying):
    """Recorded times: job k of worker i takes seconds[i - 1][k - 1], and after its last one it begins again.

    In a file, `file = "times.csv"` stands for `seconds`: the times of a CSV file, relative to the experiment's own,
    with a column for each worker, or with the header `worker,seconds` and a row for each job (`read_times`).
    """

    seconds: Annotated[tuple[Annotated[tuple[Seconds, ...], MinLen(1)], ...], MinLen(1)]  # a list for each worker

    def __post_init__(self):
        if sum(map(len, self.seconds)) > ENTRIES:
            raise InvalidInput(f"compute profile 'trace' has more than {ENTRIES} times, which every result would hold")

    def check(self, workers):
        super().check(workers)
        if len(self.seconds) != workers:
            text = f"the times of {len(self.seconds)} workers for {workers} workers"
            raise InvalidInput(f"compute profile 'trace' has {text}; give a column for each")

    def own(self, worker, workers):
        return Job(0.0, 1.0, Recorded(self.seconds[worker - 1]))


def read_times(path):
    """The `seconds` of a Trace from a CSV file: lists of times, one for each worker.

    With the header `worker,seconds` each row is a job, in the order of the rows, of a worker 1..n. Otherwise each
    column is a worker, under a header or none, and columns may end early.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(c.strip() for c in row)]
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidInput(f"file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not rows:
        raise InvalidInput(f"file {path} holds no times")
    header = [cell.strip().lower() for cell in rows[0][1]]
    times = {}

    def add(worker, text, number):
        where = f"file {path}, line {number}"
        try:
            seconds = float(text)
        except ValueError:
            raise InvalidInput(f"{where}: {text.strip()!r} is no number of seconds") from None
        if not 1e-9 <= seconds <= LONGEST:
            raise InvalidInput(f"{where}: {seconds:g} seconds are no time of a job; 1e-9 to {LONGEST:g} are possible")
        times.setdefault(worker, []).append(seconds)

    if header == ["worker", "seconds"]:
        for number, row in rows[1:]:
            if len(row) != 2 or not row[0].strip().isdecimal() or not 1 <= int(row[0]) <= ENTRIES:
                raise InvalidInput(f"file {path}, line {number}: write a worker 1..n and its seconds, as in 3,0.25")
            add(int(row[0]), row[1], number)
    else:
        ended = {}
        for number, row in rows[not all(map(is_number, header)) :]:
            for worker, text in enumerate(row, 1):
                if not text.strip():
                    ended[worker] = number
                elif worker in ended:
                    text = f"worker {worker} has a time after an empty cell in line {ended[worker]}"
                    raise InvalidInput(f"file {path}, line {number}: {text}; only the end of a column may be empty")
                else:
                    add(worker, text, number)
    workers = max(times, default=0)
    if missing := set(range(1, workers + 1)) - times.keys() or ({1} if not workers else set()):
        raise InvalidInput(f"file {path} holds no time of worker {min(missing)}")
    return [times[i] for i in range(1, workers + 1)]


def is_number(text):
    """Whether a cell may be a time, or is empty."""
    try:
        return not text or math.isfinite(float(text))
    except ValueError:
        return False


PROFILES = {
    "equal": Equal,
    "fixed": Fixed,
    "sqrt": Sqrt,
    "linear": Linear,
    "log": Log,
    "power": Power,
    "permutation": Permutation,
    "stratified": Stratified,
    "lognormal": Lognormal,
    "exponential": Exponential,
    "uniform": Uniform,
    "erlang": Erlang,
    "pareto": Pareto,
    "halfnormal": HalfNormal,
    "papaya": Papaya,
    "trace": Trace,
}
