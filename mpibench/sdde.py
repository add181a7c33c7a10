"""Asynchronous SGD as a stochastic delay differential equation: how fast it converges, and how many workers help.

The view is that of S. Yu, W. Chen, H. V. Poor, "Distributed Stochastic Gradient Descent with Staleness: A Stochastic
Delay Differential Equation Based Framework", IEEE Transactions on Signal Processing 2025, arXiv 2406.11159: along an
eigenvector of the Hessian with eigenvalue h, P active workers and the stepsize η,

    dx(t) = -a x(t - τ) dt + sqrt(η² Λ) σ dB(t),        a = η Λ h,        Λ = P/T̄,

where T, of mean T̄, are the seconds between reading a point and applying its gradient, and Λ is the number of updates
per second. The mean path decays like exp(-r t), r = -max Re s over the roots of s + a E[exp(-s τ)] = 0. All formulas
here are derived from this equation, so their symbols may differ from the paper's, and none is a statement of the paper.

Among P workers the mean staleness is P - 1 for any law of T. A difference x^{k+1} - x^k belongs to the middle between
both, so a gradient that is s updates old is delayed by s + 1/2: E[τ] = T̄ (P - 1/2)/P. With z = a E[τ] = η h (P - 1/2)

constant     r = -Re W(-z)/E[τ] with Lambert's W; stable iff z < π/2; best z = 1/e, where r E[τ] = 1
exponential  never unstable; from z = 1/4 on r E[τ] = 1/2: more workers buy nothing
lognormal    E[exp(-s T)] is infinite wherever Re s < 0: whoever runs for long enough meets a delay that spoils any
             exponential rate. `Lognormal` leaves out the times beyond a rare quantile. Where it matters which, there
             is no rate and `root` refuses; a staleness threshold makes one.

The rate is that of the mean of x over runs as a function of k T̄/P, k the number of updates. As a function of the
seconds themselves, a mean over runs also averages over their different numbers of updates: for exponential times that
changes r by a share of (z - 1/2)/P, for constant times not at all. The equation itself says nothing finer than 1/P.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import NormalDist

import numpy

from mpibench.errors import InvalidInput

POINTS = 400  # of a quadrature
FINEST = 1e-12  # roots are polished to this relative size
HIGHEST = 200.0  # frequency up to which a spectrum is integrated, over 1/τ
CANDIDATES = 8  # rightmost eigenvalues among which the rightmost root is
TOLERANCE = 0.01  # most relative change of a rate when ten times rarer times are left out


class Law:
    """A law of seconds; `points(most)` are (seconds, weights) of a quadrature of its part up to `most` seconds."""

    def within(self, seconds):
        """Probability of at most so many seconds."""
        return float(self.points(seconds)[1].sum())

    def scaled(self, factor):
        """The law of `factor` times these seconds."""
        return replace(self, mean_seconds=self.mean_seconds * factor)


@dataclass(frozen=True)
class Constant(Law):
    """Always the same seconds."""

    mean_seconds: float

    def points(self, most=math.inf):
        seconds = numpy.array([self.mean_seconds])
        return seconds, (seconds <= most).astype(float)


@dataclass(frozen=True)
class Uniform(Law):
    """Uniform on mean_seconds * [1 - width, 1 + width]."""

    mean_seconds: float
    width: float = 1.0

    def points(self, most=math.inf):
        least, largest = self.mean_seconds * (1 - self.width), self.mean_seconds * (1 + self.width)
        seconds, weights = interval(least, min(most, largest))
        return seconds, weights / (largest - least)


@dataclass(frozen=True)
class Erlang(Law):
    """The sum of `shape` exponential variables; shape = 1 is exponential."""

    mean_seconds: float
    shape: int = 1  # k

    def points(self, most=math.inf):
        from scipy.stats import gamma

        law = gamma(self.shape, scale=self.mean_seconds / self.shape)
        seconds, weights = interval(0.0, min(most, law.isf(1e-18)))
        return seconds, weights * law.pdf(seconds)


@dataclass(frozen=True)
class Lognormal(Law):
    """mean_seconds * exp(σ Z - σ²/2), Z ~ N(0, 1), without the share `rare` of longest times."""

    mean_seconds: float
    sigma: float  # σ
    rare: float = 1e-6

    def points(self, most=math.inf):
        law, σ = NormalDist(), self.sigma
        largest = -law.inv_cdf(self.rare)
        if 0 < most < math.inf:
            largest = min(largest, (math.log(most / self.mean_seconds) + σ**2 / 2) / σ)
        z, weights = interval(-9.0, largest if most > 0 else -9.0)
        weights = weights * numpy.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) / (1 - self.rare)
        return self.mean_seconds * numpy.exp(σ * z - σ**2 / 2), weights


@dataclass(frozen=True, eq=False)
class Discrete(Law):
    """These seconds with these weights, whose sum is one; also the quadrature of any other law."""

    seconds: numpy.ndarray
    weights: numpy.ndarray

    @property
    def mean_seconds(self):
        return float(self.seconds @ self.weights)

    def points(self, most=math.inf):
        return self.seconds, self.weights * (self.seconds <= most)

    def scaled(self, factor):
        return Discrete(self.seconds * factor, self.weights)


def interval(least, most):
    """(points, weights) of the integral from `least` to `most`, where that is more."""
    x, weights = numpy.polynomial.legendre.leggauss(POINTS)
    half = max(0.0, (most - least) / 2)
    return least + half * (1 + x), half * weights


@dataclass(frozen=True)
class Arrivals:
    """How updates come to a server: P active workers whose gradients take times of this law."""

    law: Law
    active: int  # P
    threshold: float = math.inf  # s_max: gradients that are more updates old are dropped
    trigger: float = 1.0  # probability that a worker has something to say; else it sends a header only
    service_seconds: float = 0.0  # T_c: a link to the server that carries one gradient in so many seconds

    def __post_init__(self):
        if self.active < 1:
            raise InvalidInput(f"{self.active} workers are active; at least 1 must be")
        if not 0 < self.trigger <= 1:
            raise InvalidInput(f"gradients are sent with probability {self.trigger}; it must be > 0 and at most 1")

    @property
    def cycle_seconds(self):
        """From one point that a worker reads to its next, on average. Above the knee P = T̄/T_c gradients queue."""
        return max(self.law.mean_seconds, self.active * self.service_seconds)

    @property
    def waiting_seconds(self):
        """What the queue adds to each of its times, on average."""
        return self.cycle_seconds - self.law.mean_seconds

    def most_seconds(self, share):
        """Time in which the threshold's number of updates comes, if this share of the gradients becomes an update."""
        others = (self.active - 1) * share
        return (self.threshold + 0.5) * self.cycle_seconds / others if others else math.inf

    @cached_property
    def share(self):
        """Share of the gradients that become updates: what is dropped makes no update, hence nothing else stale."""
        from scipy.optimize import brentq

        if self.threshold == math.inf:
            return self.trigger
        used = lambda p: self.trigger * self.law.within(self.most_seconds(p) - self.waiting_seconds)  # noqa: E731
        if used(self.trigger) >= self.trigger * (1 - 1e-9):
            return self.trigger
        return brentq(lambda p: used(p) - p, 1e-9, self.trigger)

    @property
    def rate(self):
        """Λ, updates per second."""
        return self.active * self.share / self.cycle_seconds

    @cached_property
    def delay(self):
        """The law of τ: the time of a gradient that is used, corrected for the size of a step."""
        law, P = self.law, self.active
        if self.threshold < math.inf or (self.waiting_seconds and not isinstance(law, Constant)):
            most = self.most_seconds(self.share) * (1 + 1e-9)
            seconds, weights = law.points(most - self.waiting_seconds)
            law = Discrete(seconds + self.waiting_seconds, weights / weights.sum())
        elif self.waiting_seconds:
            law = Constant(self.cycle_seconds)
        return law.scaled((P - 1) / P + 1 / (2 * self.rate * law.mean_seconds))

    def damping(self, stepsize, curvature):
        """a = η Λ h, per second."""
        return stepsize * self.rate * curvature

    def decay(self, stepsize, curvature):
        """r, per second; negative where the mean path grows."""
        return -root(self.damping(stepsize, curvature), self.delay).real

    def seconds_to(self, accuracy, distance, stepsize, curvatures):
        """Seconds in which the mean path comes from `distance` to `accuracy`; inf where it does not."""
        slowest = min(self.decay(stepsize, h) for h in curvatures)
        if accuracy >= distance:
            return 0.0
        return math.log(distance / accuracy) / slowest if slowest > 0 else math.inf

    def variance(self, stepsize, curvature, noise):
        """Stationary variance of x where one gradient has the variance `noise` in this direction; inf if unstable."""
        a, delay = self.damping(stepsize, curvature), self.delay
        if root(a, delay).real >= 0:
            return math.inf
        if isinstance(delay, Constant):
            z = a * delay.mean_seconds
            return stepsize * noise * (1 + math.sin(z)) / (2 * curvature * math.cos(z))
        return stepsize**2 * self.rate * noise * power(a, delay)


def root(damping, delay):
    """The root with the largest real part, of two the upper one, of s + a E[exp(-s τ)] = 0: complex, in 1/s.

    a is `damping`, and `delay` is the law of τ.
    """
    z = damping * delay.mean_seconds
    if isinstance(delay, Constant):
        from scipy.special import lambertw

        s = complex(lambertw(-z))
        if math.isnan(s.real):  # SciPy has no value where two branches meet, at z = 1/e
            s = -1 + 0j
    elif isinstance(delay, Erlang):
        k = delay.shape  # w = 1 + s τ̄/k turns the equation into k (w - 1) w^k + z = 0
        w = numpy.roots([k, -k, *[0.0] * (k - 1), z])
        s = max(k * (w - 1), key=lambda s: s.real)
    else:
        s = rightmost(z, *in_means(delay))
    if isinstance(delay, Lognormal):
        rarer = rightmost(z, *in_means(replace(delay, rare=delay.rare / 10)))
        if not abs(s.real - rarer.real) < TOLERANCE * abs(s):
            raise InvalidInput(
                f"lognormal times with sigma = {delay.sigma:g} have no decay rate at z = {z:g}: it hangs on the rare "
                "longest of them; give a staleness threshold, or smaller steps"
            )
    return complex(s.real, abs(s.imag)) / delay.mean_seconds


def in_means(delay):
    """(times over their mean, weights) of a law's quadrature."""
    seconds, weights = delay.points()
    return seconds / delay.mean_seconds, weights


def rightmost(a, τ, weights):
    """The root with the largest real part of s + a Σ weights exp(-s τ) = 0.

    The eigenvalues of the equation's generator, discretised by collocation in Chebyshev points (D. Breda, S. Maset, R.
    Vermiglio, SIAM Journal on Scientific Computing 27 (2005) 482-495), come near all roots on the right; Newton's
    method does the rest.
    """
    from numpy.polynomial import chebyshev

    longest = float(τ.max())
    degree = min(160, 40 + 4 * math.ceil(longest))
    points = numpy.cos(numpy.pi * numpy.arange(degree + 1) / degree)  # from now, 1, to the longest delay ago, -1
    coefficients = numpy.linalg.inv(chebyshev.chebvander(points, degree))
    generator = 2 / longest * chebyshev.chebvander(points, degree - 1) @ chebyshev.chebder(coefficients)
    generator[0] = -a * weights @ chebyshev.chebvander(1 - 2 * τ / longest, degree) @ coefficients
    found = []
    with numpy.errstate(over="ignore", invalid="ignore"):
        for s in sorted(numpy.linalg.eigvals(generator), key=lambda s: -s.real)[:CANDIDATES]:
            for _ in range(50):
                part = a * weights * numpy.exp(-s * τ)
                step = (s + part.sum()) / (1 - part @ τ)
                s = s - step
                if not abs(step) > FINEST * abs(s):
                    found.append(complex(s))
                    break
    found = [s for s in found if math.isfinite(s.real)]
    return max(found, key=lambda s: (s.real, s.imag), default=complex("nan"))


def power(a, delay):
    """The integral of |i ω + a E[exp(-i ω τ)]|^-2 dω/(2π) over all ω, in seconds."""
    from scipy.integrate import quad

    z, (τ, weights) = a * delay.mean_seconds, in_means(delay)
    density = lambda ω: 1 / abs(1j * ω + z * (weights @ numpy.exp(-1j * ω * τ))) ** 2 / math.pi  # noqa: E731
    far = 1 / (math.pi * HIGHEST)  # there nothing of the delayed part is left
    return (quad(density, 0, HIGHEST, limit=2000)[0] + far) * delay.mean_seconds


def best_active(law, workers, stepsize, curvatures, **more):
    """(P, r): the number of active workers among 1..workers whose slowest direction decays fastest, and its rate.

    `more` goes to `Arrivals`. Of equal ones the least: what brings no speed costs messages.
    """
    rates = {}
    for P in range(1, workers + 1):
        arrivals = Arrivals(law, P, **more)
        rates[P] = min(arrivals.decay(stepsize, h) for h in curvatures)
    most = max(rates.values())
    return next((P, rate) for P, rate in rates.items() if rate >= most - 1e-9 * abs(most))


def knee(law, service_seconds):
    """P = T̄/T_c, above which the link to the server is busy all the time and more workers only wait."""
    return law.mean_seconds / service_seconds


def largest_stepsize(curvature, staleness):
    """Gradient descent whose gradients are all `staleness` updates old converges below this stepsize: exact, for whole
    numbers."""
    return 2 * math.sin(math.pi / (2 * (2 * staleness + 1))) / curvature
