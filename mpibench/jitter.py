"""How the jobs of one worker differ: laws of a job's time around the time of its worker.

A law is that of a variable Y >= 0, drawn afresh for every job. In an experiment it is the table `jitter` of a compute
profile, whose worker i = 1..n takes h_i seconds:

    jitter = { law = "lognormal", sigma = 0.1 }                              h_i Y / E[Y]: the mean stays h_i
    jitter = { law = "halfnormal", add_seconds = 2.0, exponent = 1.0 }       h_i + 2 i Y
    jitter = { law = "exponential", add_share = 1.0 }                        h_i + 1.0 h_i Y

Y has the mean one, but for `halfnormal`, whose Y = |Z|, Z ~ N(0, 1), is what programs draw and has the mean √(2/π).
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from mpibench.errors import InvalidInput
from mpibench.heterogeneity import Seconds, nanoseconds
from mpibench.parameters import Count

Exponent = Annotated[float, Ge(0), Le(10)]
Sigma = Annotated[float, Ge(0), Le(5)]
Width = Annotated[float, Gt(0), Le(1)]
Tail = Annotated[float, Gt(1), Le(100)]
Share = Annotated[float, Gt(0), Le(1e6)]

NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Job:
    """A job of cost 1 takes shift + scale * Y seconds; without a law always `shift`."""

    shift: float
    scale: float = 0.0
    law: Any = None

    @property
    def mean(self):
        """Expected seconds."""
        return self.shift + (self.scale * self.law.mean if self.law else 0.0)

    @property
    def least(self):
        """Infimum of the seconds."""
        return self.shift + (self.scale * self.law.least if self.law else 0.0)

    def quantile(self, level):
        """Seconds that the share `level` of the jobs do not exceed."""
        return self.shift + (self.scale * self.law.quantile(level) if self.law else 0.0)

    def within(self, seconds):
        """Probability of at most these seconds, to the nanosecond that modelled times are rounded to."""
        if self.law is None:
            return float(nanoseconds(seconds) >= nanoseconds(self.shift))
        return self.law.within((seconds - self.shift) / self.scale)

    def sampler(self, rng):
        """() -> seconds of the next job."""
        shift, scale = self.shift, self.scale
        if self.law is None:
            return lambda: shift
        draw = self.law.sampler(rng)
        return lambda: shift + scale * draw()


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """What is the same for all laws: how Y changes the time of a worker."""

    mean: ClassVar[float] = 1.0
    least: ClassVar[float] = 0.0

    add_seconds: Seconds | None = None  # a job takes h_i + add_seconds * i^exponent * Y
    exponent: Exponent | None = None  # 0 where it is not given
    add_share: Share | None = None  # a job takes h_i + add_share * h_i * Y

    def __post_init__(self):
        if self.add_seconds is not None and self.add_share is not None:
            raise InvalidInput("takes add_seconds or add_share, not both; with neither the law multiplies")
        if self.exponent is not None and self.add_seconds is None:
            raise InvalidInput("has an exponent, which goes with add_seconds; give both or leave it out")

    def job(self, h, i):
        """The Job of worker i = 1..n whose own time is `h` seconds."""
        if self.add_seconds is not None:
            return Job(h, self.add_seconds * i ** (self.exponent or 0.0), self)
        if self.add_share is not None:
            return Job(h, self.add_share * h, self)
        return Job(0.0, h / self.mean, self)


@dataclass(frozen=True)
class Uniform(Jitter):
    """Y uniform on [1 - width, 1 + width]."""

    law: Literal["uniform"] = "uniform"
    width: Width = 1.0

    @property
    def least(self):
        return 1 - self.width

    def sampler(self, rng):
        least, spread, draw = self.least, 2 * self.width, rng.random
        return lambda: least + spread * draw()

    def within(self, y):
        return min(1.0, max(0.0, (y - self.least) / (2 * self.width)))

    def quantile(self, level):
        return self.least + 2 * self.width * level


@dataclass(frozen=True)
class Exponential(Jitter):
    """Y exponential of mean one."""

    law: Literal["exponential"] = "exponential"

    def sampler(self, rng):
        return rng.standard_exponential

    def within(self, y):
        return -math.expm1(-max(0.0, y))

    def quantile(self, level):
        return -math.log1p(-level)


@dataclass(frozen=True)
class Erlang(Jitter):
    """Y the mean of `shape` exponential variables of mean one: variance 1 / shape."""

    law: Literal["erlang"] = "erlang"
    shape: Count = field(kw_only=True)  # k

    def sampler(self, rng):
        shape, draw = self.shape, rng.standard_gamma
        return lambda: draw(shape) / shape

    def within(self, y):
        from scipy.special import gammainc

        return float(gammainc(self.shape, self.shape * max(0.0, y)))

    def quantile(self, level):
        from scipy.special import gammaincinv

        return float(gammaincinv(self.shape, level)) / self.shape


@dataclass(frozen=True)
class Pareto(Jitter):
    """P(Y > y) = (least / y)^shape above least = (shape - 1) / shape; the variance is infinite for shape <= 2."""

    law: Literal["pareto"] = "pareto"
    shape: Tail = field(kw_only=True)  # 1.5 to 2 is a stress test

    @property
    def least(self):
        return (self.shape - 1) / self.shape

    def sampler(self, rng):
        least, power, draw, exp = self.least, 1 / self.shape, rng.standard_exponential, math.exp
        return lambda: least * exp(power * draw())

    def within(self, y):
        return 1 - (self.least / y) ** self.shape if y > self.least else 0.0

    def quantile(self, level):
        return self.least * (1 - level) ** (-1 / self.shape)


@dataclass(frozen=True)
class Lognormal(Jitter):
    """Y = exp(σ Z - σ²/2), Z ~ N(0, 1)."""

    law: Literal["lognormal"] = "lognormal"
    sigma: Sigma = field(kw_only=True)  # σ

    @property
    def least(self):
        return 0.0 if self.sigma else 1.0

    def sampler(self, rng):
        sigma, half, draw, exp = self.sigma, self.sigma**2 / 2, rng.standard_normal, math.exp
        return lambda: exp(sigma * draw() - half)

    def within(self, y):
        if y <= 0 or not self.sigma:
            return float(y >= 1)
        return NORMAL.cdf((math.log(y) + self.sigma**2 / 2) / self.sigma)

    def quantile(self, level):
        return math.exp(self.sigma * NORMAL.inv_cdf(level) - self.sigma**2 / 2)


@dataclass(frozen=True)
class HalfNormal(Jitter):
    """Y = |Z|, Z ~ N(0, 1), of mean √(2/π)."""

    mean: ClassVar[float] = math.sqrt(2 / math.pi)

    law: Literal["halfnormal"] = "halfnormal"

    def sampler(self, rng):
        draw = rng.standard_normal
        return lambda: abs(draw())

    def within(self, y):
        return math.erf(max(0.0, y) / math.sqrt(2))

    def quantile(self, level):
        return NORMAL.inv_cdf((1 + level) / 2)


Law = Uniform | Exponential | Erlang | Pareto | Lognormal | HalfNormal  # what `jitter` may be, told apart by `law`
