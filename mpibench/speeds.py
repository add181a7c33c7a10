"""How the speed of a worker changes in time: the table `speed` of a compute profile.

The universal computation model of A. Tyurin, "Tight Time Complexities in Parallel Stochastic Optimization with
Arbitrary Computation Dynamics", ICLR 2025, arXiv 2408.04929: worker i has the rate p_i(t), and a job of c gradients
that begins at t0 ends at the smallest t at which the integral of p_i from t0 is c. Here p_i(t) is a factor s_i(t) over
the seconds of the worker's next gradient, so that a job of w seconds ends when the integral of s_i has grown by w.

    speed = { form = "piecewise", seconds = [100.0, 200.0], factors = [1.0, 0.25, 2.0] }      optional: period_seconds
    speed = { form = "sinusoidal", amplitude = 0.8, period_seconds = 60.0 }                   optional: phase, staggered
    speed = { form = "on_off", on_seconds = 8.0, off_seconds = 2.0 }                  optional: phase, staggered, random
    speed = { form = "drifting", span_seconds = 500.0, end = 0.1 }                           optional: start, geometric

`of(worker, workers, own)` gives the Course of one worker, where own(i) is the seconds of worker i at factor 1. A job is
a whole number of nanoseconds at factor 1, and work is counted in whole numbers, ONE to each of these, so that steps and
linear drifts are exact however long a run is; sinusoidal and geometric courses are computed in double precision, which
is exact to a nanosecond up to about a day of period or span.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, Lt

from mpibench.errors import InvalidInput
from mpibench.heterogeneity import Seconds, nanoseconds

ONE = 10**12  # units of work in a nanosecond at factor 1; factors are whole multiples of 1 / ONE
ENDLESS = 10**30  # nanoseconds: a course that does not repeat has a period that is never reached
BEGINS = 1000  # instants, evenly over a period, at which `within` lets jobs begin
LEVELS = 200  # quantiles of a job's seconds, at which `within` takes the law of random halts
SWITCHES = 10**5  # how often a random worker may be expected to halt within one gradient
BLOCK = 64  # switches of a random worker drawn at once

SMALLEST, GREATEST = 1e-6, 1e6
Factor = Annotated[float, Ge(SMALLEST), Le(GREATEST)]
FactorOrZero = Annotated[float, Ge(0), Le(GREATEST)]
Phase = Annotated[float, Ge(0), Lt(1)]


def nearest(units, rate):
    """units / rate as the nearest whole number; of two the greater, so that who begins later never ends earlier."""
    return (2 * units + rate) // (2 * rate)


class Course:
    """The factor s(t) of one worker, and W(t), its integral from 0, which jobs use up.

    `fastest` is the greatest factor, `long_run` the mean factor in the long run.
    """

    def path(self, rng):
        """The course itself, or a random one's path by this generator: factor(t_ns), work(t_ns) and when(units)."""
        return self

    def duration(self, seconds, now_ns):
        """Nanoseconds that a job of these seconds at factor 1 takes when it begins at now_ns: at least one."""
        return max(1, self.when(self.work(now_ns) + (nanoseconds(seconds) or 1) * ONE) - now_ns)

    def available(self, seconds):
        """Seconds of work that can be done within `seconds`, for equally likely instants to begin."""
        return (seconds * self.long_run,)

    def within(self, jobs, seconds):
        """Probability that a job takes at most `seconds` when it begins at any time; `jobs`: equally likely laws."""
        options = self.available(seconds)
        return math.fsum(job.within(work) for work in options for job in jobs) / (len(options) * len(jobs))


class Repeating(Course):
    """A course of a period, begun `shift` nanoseconds after the beginning of one.

    Subclasses give `period` and `total` (the work of a period), `level(u)` (the work of its first u nanoseconds) and
    `instant(units)`, where level(instant) is `units`, for 0 < units <= total.
    """

    shift = 0
    repeats = True

    @cached_property
    def base(self):
        return self.level(self.shift)

    @property
    def long_run(self):
        return self.total / self.period / ONE

    def work(self, t_ns):
        """W(t) in units."""
        periods, u = divmod(t_ns + self.shift, self.period)
        return periods * self.total + self.level(u) - self.base

    def when(self, units):
        """The smallest t in whole nanoseconds at which W is `units` >= 1, to the nearest."""
        periods, rest = divmod(units + self.base - 1, self.total)
        return periods * self.period + self.instant(rest + 1) - self.shift

    def available(self, seconds):
        if not self.repeats:
            return super().available(seconds)
        length = nanoseconds(seconds)
        begins = [(2 * k + 1) * self.period // (2 * BEGINS) for k in range(BEGINS)]
        return [(self.work(t + length) - self.work(t)) / ONE / 1e9 for t in begins]


class Steps(Repeating):
    """Factors that hold from each of `starts` (ns, the first 0) to the next, the last one to the end of the period."""

    def __init__(self, starts, factors, period=None, shift=0):
        self.repeats, self.period, self.shift = period is not None, period or ENDLESS, shift
        self.starts, self.rates = list(starts), [round(f * ONE) for f in factors]
        self.done = [0]  # the work at `starts`
        for rate, (begin, end) in zip(self.rates, pairwise([*self.starts, self.period]), strict=True):
            self.done.append(self.done[-1] + rate * (end - begin))
        self.total = self.done.pop()

    @property
    def fastest(self):
        return max(self.rates) / ONE

    def factor(self, t_ns):
        return self.rates[bisect_right(self.starts, (t_ns + self.shift) % self.period) - 1] / ONE

    def level(self, u):
        j = bisect_right(self.starts, u) - 1
        return self.done[j] + self.rates[j] * (u - self.starts[j])

    def instant(self, units):
        j = bisect_left(self.done, units) - 1
        return self.starts[j] + nearest(units - self.done[j], self.rates[j])


class Wave(Repeating):
    """s(t) = 1 + amplitude sin(2π t / period), whose integral is t + (1 - cos(2π t / period)) amplitude period / 2π."""

    def __init__(self, amplitude, period, shift):
        self.amplitude, self.period, self.shift = amplitude, period, shift
        self.total = period * ONE
        self.omega = 2 * math.pi / period
        self.fastest = 1 + amplitude

    def factor(self, t_ns):
        return 1 + self.amplitude * math.sin(self.omega * ((t_ns + self.shift) % self.period))

    def level(self, u):
        return u * ONE + round(ONE * self.excess(u))

    def excess(self, u):
        """W(u) - u, as the square of a sine, which does not cancel where u is small."""
        return 2 * self.amplitude / self.omega * math.sin(self.omega * u / 2) ** 2

    def instant(self, units):
        work = units / ONE
        low, high = max(0.0, work - 2 * self.amplitude / self.omega), min(float(self.period), work)
        u = (low + high) / 2
        for _ in range(100):  # Newton's steps, or halves of the interval that holds the root where they leave it
            miss = u + self.excess(u) - work
            low, high = (low, u) if miss > 0 else (u, high)
            last, u = u, u - miss / (1 + self.amplitude * math.sin(self.omega * u))
            if not low <= u <= high:
                u = (low + high) / 2
            if abs(u - last) <= 1e-3 + 1e-15 * u:
                break
        return math.floor(u + 0.5)


class Telegraph(Course):
    """On and off for exponential times of these means (ns), begun on with the probability that it is on at any time."""

    fastest = 1.0

    def __init__(self, on, off):
        self.on, self.off = on, off

    @property
    def long_run(self):
        return self.on / (self.on + self.off)

    def path(self, rng):
        return Switches(self, rng)

    # what is expected of a worker whose path is not known

    def factor(self, t_ns):
        return self.long_run

    def work(self, t_ns):
        return t_ns * ONE * self.on // (self.on + self.off)

    def within(self, jobs, seconds):
        # A job of w seconds meets N ~ Poisson(w / on) halts, one more if it begins in one, and they fit into the
        # seconds that are left if as many end there, M ~ Poisson((seconds - w) / off): the law of N - M is Skellam's.
        from scipy.stats import skellam

        levels = [(k + 0.5) / LEVELS for k in range(LEVELS)]
        works = [job.quantile(level) for job in jobs for level in (levels if job.law else levels[:1])]
        fitting = [w for w in works if nanoseconds(w) <= nanoseconds(seconds)]
        if not fitting:
            return 0.0
        halts = [w * 1e9 / self.on for w in fitting]
        ends = [max(1e-12, (seconds - w) * 1e9 / self.off) for w in fitting]  # Skellam's law needs more than 0
        begun_on, begun_off = (float(sum(skellam.cdf(most, halts, ends))) for most in (0, -1))
        return (self.long_run * begun_on + (1 - self.long_run) * begun_off) / len(works)


class Switches(Course):
    """One path of a Telegraph, drawn as far as it is asked for, and the same whatever is asked first."""

    def __init__(self, telegraph, rng):
        self.rng, self.means = rng, (telegraph.on, telegraph.off)
        self.starts, self.done = [0], [0]  # instants at which it changes, and the work done until then
        self.first_off = int(rng.random() >= telegraph.long_run)

    def draw(self):
        """More of the path."""
        for share in self.rng.standard_exponential(BLOCK):
            off = (len(self.starts) - 1 + self.first_off) % 2
            length = max(1, round(share * self.means[off]))
            self.starts.append(self.starts[-1] + length)
            self.done.append(self.done[-1] + (0 if off else length * ONE))

    def factor(self, t_ns):
        return float(self.is_on(self.segment(t_ns)))

    def segment(self, t_ns):
        while self.starts[-1] <= t_ns:
            self.draw()
        return bisect_right(self.starts, t_ns) - 1

    def is_on(self, j):
        return (j + self.first_off) % 2 == 0

    def work(self, t_ns):
        j = self.segment(t_ns)
        return self.done[j] + (ONE * (t_ns - self.starts[j]) if self.is_on(j) else 0)

    def when(self, units):
        while self.done[-1] < units:
            self.draw()
        j = bisect_left(self.done, units) - 1
        return self.starts[j] + nearest(units - self.done[j], ONE)


class Drift(Repeating):
    """From factor `start` at time 0 to factor `end` at `span` (ns), which stays: by equal steps or by equal factors."""

    repeats, period = False, ENDLESS

    def __init__(self, start, end, span, geometric):
        self.start, self.end, self.span = round(start * ONE), round(end * ONE), span
        self.log = math.log(self.end / self.start) if geometric else 0.0
        self.steady = self.start == self.end
        self.drifted = self.drifting(span)
        self.total = self.drifted + self.end * (ENDLESS - span)

    @property
    def fastest(self):
        return max(self.start, self.end) / ONE

    @property
    def long_run(self):
        return self.end / ONE

    def factor(self, t_ns):
        share = min(1.0, t_ns / self.span)
        if self.log:
            return self.start / ONE * math.exp(share * self.log)
        return (self.start + (self.end - self.start) * share) / ONE

    def drifting(self, u):
        """The work of the first u <= span nanoseconds."""
        if self.log:
            return round(self.start * (self.span / self.log) * math.expm1(u / self.span * self.log))
        return self.start * u + (self.end - self.start) * u * u // (2 * self.span)

    def level(self, u):
        return self.drifting(u) if u <= self.span else self.drifted + self.end * (u - self.span)

    def instant(self, units):
        if units > self.drifted:
            return self.span + nearest(units - self.drifted, self.end)
        if self.steady:
            return nearest(units, self.start)
        if self.log:
            exact = self.span / self.log * math.log1p(units * self.log / (self.start * self.span))
            return math.floor(exact + 0.5)
        # the root of (end - start) t² + 2 span start t = 2 span units, in the form that does not cancel
        a = self.start * self.span
        root = math.isqrt(a * a + 2 * self.span * units * (self.end - self.start))
        return nearest(2 * self.span * units, a + root)


@dataclass(frozen=True, kw_only=True)
class Piecewise:
    """Factors that change at given instants; rows of factors go to as many groups of workers, equal but for one worker.

    With two rows the first half of the workers has the first, with as many rows as workers each has its own.
    """

    form: Literal["piecewise"] = "piecewise"
    seconds: tuple[Seconds, ...]  # rising: when the factor changes
    factors: tuple[FactorOrZero, ...] | tuple[tuple[FactorOrZero, ...], ...]  # one more than `seconds`
    period_seconds: Seconds | None = None  # from the beginning again, after the last of `seconds`

    def __post_init__(self):
        end = (self.period_seconds,) if self.period_seconds is not None else ()
        instants = [0, *map(nanoseconds, (*self.seconds, *end))]
        if any(after <= before for before, after in pairwise(instants)):
            raise InvalidInput(
                f"seconds = {list(self.seconds)} must rise, to less than period_seconds where it repeats"
            )
        for row in self.rows:
            if len(row) != len(self.seconds) + 1:
                text = f"{len(row)} factors for {len(self.seconds)} changes; give one more than `seconds`"
                raise InvalidInput(f"has {text}, for the time before the first")
            if any(0 < f < SMALLEST for f in row):
                raise InvalidInput(f"factors = {list(row)} must be 0 or at least {SMALLEST:g}")
            if not (any(row) if end else row[-1]):
                text = "halt a worker for ever; let the last one be positive, or any with period_seconds"
                raise InvalidInput(f"factors = {list(row)} {text}")

    @property
    def rows(self):
        return self.factors if self.factors and isinstance(self.factors[0], tuple) else (self.factors,)

    def of(self, worker, workers, own):
        if len(self.rows) > workers:
            text = f"has a speed of {len(self.rows)} rows of factors for {workers} workers"
            raise InvalidInput(f"{text}; give at most one for each")
        row = self.rows[(worker - 1) * len(self.rows) // workers]
        period = nanoseconds(self.period_seconds) if self.period_seconds is not None else None
        return Steps([0, *map(nanoseconds, self.seconds)], row, period)


def shifted(period, phase, staggered, worker, workers):
    """How many nanoseconds of a period have passed at time 0."""
    share = (phase + (worker - 1) / workers if staggered else phase) % 1
    return round(share * period) % period


@dataclass(frozen=True, kw_only=True)
class Sinusoidal:
    """Factor 1 + amplitude sin(2π (t / period + phase)), of mean one."""

    form: Literal["sinusoidal"] = "sinusoidal"
    amplitude: Annotated[float, Ge(0), Le(0.99)]
    period_seconds: Seconds
    phase: Phase = 0.0  # share of a period that has passed at time 0
    staggered: bool = False  # worker i = 1..n has passed (i - 1) / n of a period more

    def of(self, worker, workers, own):
        period = nanoseconds(self.period_seconds)
        return Wave(self.amplitude, period, shifted(period, self.phase, self.staggered, worker, workers))


@dataclass(frozen=True, kw_only=True)
class OnOff:
    """Factor 1 for on_seconds, 0 for off_seconds, and again; a job that is halted goes on where it was.

    With `random` these are the means of exponential times, drawn by each worker for itself, by the seed; whether it is
    on at time 0 is drawn with the probability on / (on + off).
    """

    form: Literal["on_off"] = "on_off"
    on_seconds: Seconds
    off_seconds: Seconds
    phase: Phase = 0.0  # share of a period that has passed at time 0
    staggered: bool = False  # worker i = 1..n has passed (i - 1) / n of a period more
    random: bool = False

    def __post_init__(self):
        if self.random and (self.phase or self.staggered):
            raise InvalidInput("has random = true, where workers begin anywhere; leave out phase and staggered")

    def of(self, worker, workers, own):
        on, off = nanoseconds(self.on_seconds), nanoseconds(self.off_seconds)
        if self.random:
            if own(worker) > SWITCHES * self.on_seconds:
                text = f"halts worker {worker} more than {SWITCHES} times in a gradient of {own(worker):g} seconds"
                raise InvalidInput(f"has a random speed that {text}; make on_seconds = {self.on_seconds:g} longer")
            return Telegraph(on, off)
        return Steps([0, on], [1.0, 0.0], on + off, shifted(on + off, self.phase, self.staggered, worker, workers))


@dataclass(frozen=True, kw_only=True)
class Drifting:
    """The factor goes from `start` at time 0 to `end` after span_seconds, and stays.

    A list has a factor for each worker. With end = "mirrored" fast and slow workers change places: worker i ends as
    fast as worker n + 1 - i would be at factor 1.
    """

    form: Literal["drifting"] = "drifting"
    span_seconds: Seconds
    end: Factor | tuple[Factor, ...] | Literal["mirrored"]
    start: Factor | tuple[Factor, ...] = 1.0
    geometric: bool = False  # equal factors in equal times instead of equal steps

    def of(self, worker, workers, own):
        ends = []
        for name, value in (("start", self.start), ("end", self.end)):
            if isinstance(value, tuple):
                if len(value) != workers:
                    text = f"has a speed of {len(value)} factors in `{name}` for {workers} workers"
                    raise InvalidInput(f"{text}; give one number for all or one for each")
                value = value[worker - 1]
            elif value == "mirrored":
                value = own(worker) / own(workers + 1 - worker)
                if not SMALLEST <= value <= GREATEST:
                    text = f"changes the speed of worker {worker} by a factor of {value:g}"
                    raise InvalidInput(f'end = "mirrored" {text}; {SMALLEST:g} to {GREATEST:g} are possible')
            ends.append(value)
        return Drift(*ends, nanoseconds(self.span_seconds), self.geometric)


Speed = Piecewise | Sinusoidal | OnOff | Drifting  # what `speed` may be, told apart by `form`
FORMS = tuple(cls.form for cls in get_args(Speed))
