"""The convex quadratic on which the papers of asynchronous SGD compare their methods.

f(x) = x'Ax/2 - b'x with A = tridiag(-1, 2, -1)/4, its diagonal shifted so that its smallest eigenvalue is μ,
b = (-1, 0, .., 0)/4 and x^0 = (sqrt(d), 0, .., 0); L is about 1. A. Tyurin, P. Richtárik, "On the Optimal Time
Complexities in Decentralized Stochastic Asynchronous Optimization", NeurIPS 2024, arXiv 2405.16218, appendix J; the
shift is that of the authors' code.

`noise_model` says how the stochastic gradient differs from ∇f_i(x):

additive_scalar   one number noise * N(0, 1) is added to all coordinates: what the authors' code does. It lies in the
                  direction of (1, .., 1), close to the flattest direction of A.
additive_vector   a vector of independent noise * N(0, 1) is added: what the papers write.
progress          coordinates behind the last non-zero one of x are multiplied by ξ/p, ξ ~ Bernoulli(p), one coin a
                  gradient. Needs exact zeros: any dense perturbation of x turns this noise off.

Both additive models have the total variance d noise^2, and the results differ.

Metrics: loss f(x), gap f(x) - f*, gradient_norm_squared ||∇f(x)||^2.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Annotated, Literal

import numpy
from annotated_types import Ge, Gt, Le

from mpibench.errors import InvalidInput
from mpibench.parameters import NonNegative, Positive
from mpibench.seeds import Purpose, generator


@dataclass(frozen=True)
class Quadratic:
    dimension: Annotated[int, Ge(1), Le(10**7)] = 1729  # d
    strong_convexity: Positive = 1e-6  # μ, the smallest eigenvalue of A
    noise_model: Literal["additive_scalar", "additive_vector", "progress"] = "additive_scalar"
    noise: NonNegative = 0.0  # σ of one coordinate, for the additive models
    probability: Annotated[float, Gt(0), Le(1)] = 1.0  # p, for the progress model
    shift: NonNegative = 0.0  # root mean square over workers of ||∇f_i - ∇f||; 0: all workers share f

    def __post_init__(self):
        if self.noise_model == "progress" and self.noise != 0:
            raise InvalidInput(f"noise = {self.noise} is for the additive models; 'progress' takes probability")
        if self.noise_model != "progress" and self.probability != 1:
            raise InvalidInput(f"probability = {self.probability} is for 'progress'; {self.noise_model!r} takes noise")

    @property
    def heterogeneous(self):
        """Whether the f_i differ."""
        return self.shift > 0

    def prepare(self, workers, seed):
        """The problem for this number of workers and this seed."""
        return Prepared(self, workers, seed)


class Prepared:
    """f, its minimum and the f_i of n workers. Vectors are numpy float64 of length `dimension`."""

    metrics = {"loss": "lower", "gap": "lower", "gradient_norm_squared": "lower"}

    def __init__(self, parameters, workers, seed):
        d = parameters.dimension
        self.parameters = parameters
        self.seed = seed
        self.dimension = d
        self.model_bytes = 8 * d
        smallest = 1 / 2 - 1 / 2 * math.cos(math.pi / (d + 1))  # eigenvalue of tridiag(-1, 2, -1)/4
        self.diagonal = 0.5 + (parameters.strong_convexity - smallest)
        self.minimiser = minimiser(d, self.diagonal)
        self.minimum = 0.125 * float(self.minimiser[0])  # f* = -b'x*/2
        self.shifts = draw_shifts(parameters.shift, workers, d, seed) if parameters.shift > 0 else None
        self.newest = [None, None]  # x and `at(x)` of all workers that share f
        self.provenance = {
            "name": "quadratic",
            "version": "computed",
            "licence": "not applicable",
            "checksum": "not applicable",
            "partition": "shared" if self.shifts is None else f"shifted({parameters.shift})",
            "seed": seed,
        }

    def start(self):
        """x^0 = (sqrt(d), 0, .., 0)."""
        x = numpy.zeros(self.dimension)
        x[0] = math.sqrt(self.dimension)
        return x

    def objective(self, i):
        """f_i of worker i = 1..n, at the beginning of its stream of samples: f_i(x) = f(x) + <shift_i, x>."""
        shift = None if self.shifts is None else self.shifts[i - 1]
        rng = generator(self.seed, Purpose.SAMPLING, i)
        newest = self.newest if shift is None else [None, None]
        return OBJECTIVES[self.parameters.noise_model](self.parameters, self.diagonal, shift, rng, newest)

    def constants(self):
        """What theory asks for (`mpibench.constants`), exact but for the variance of the progress model.

        L is the largest eigenvalue, 1/2 + cos(pi/(d+1))/2 and the shift. The additive models have the variance
        d noise^2 everywhere; the progress model's, (1/p - 1) times the squared norm of the gradient behind the last
        non-zero coordinate, is taken at the start.
        """
        d, p, x = self.dimension, self.parameters, self.start()
        hidden = gradient(self.diagonal, x)[progress(x) :]
        return {
            "smoothness": self.diagonal + 0.5 * math.cos(math.pi / (d + 1)),
            "gap": half_form(self.diagonal, x - self.minimiser),
            "variance": d * p.noise**2 + (1 / p.probability - 1) * float(hidden @ hidden),
            "minimum": self.minimum,
            "exact": p.probability == 1,
        }

    def evaluate(self, x):
        """Loss, gap and squared gradient norm at x.

        The gap is (x - x*)'A(x - x*)/2, because f(x) - f* would lose everything below 1e-16 |f*|.
        """
        with numpy.errstate(over="ignore", invalid="ignore"):  # a diverged x gives inf or nan, quietly
            g = gradient(self.diagonal, x)
            return {
                "loss": half_form(self.diagonal, x) + 0.25 * float(x[0]),
                "gap": half_form(self.diagonal, x - self.minimiser),
                "gradient_norm_squared": float(g @ g),
            }


class Objective:
    """f_i: `sample()` draws ξ, which carries all randomness; `gradient(x, ξ)` only computes; `at(x)` is the function
    ξ -> gradient(x, ξ) that computes but once what gradients at x have in common; `samples(n)`, where offered, draws as
    n calls of `sample()` do."""

    def __init__(self, parameters, diagonal, shift, rng, newest):
        self.dimension = parameters.dimension
        self.noise = parameters.noise
        self.probability = parameters.probability
        self.diagonal = diagonal
        self.shift = shift
        self.rng = rng
        self.newest = newest

    def at(self, x):
        if self.newest[0] is not x:  # the point of many workers is one vector in a simulation
            self.newest[:] = x, self.function_at(x)
        return self.newest[1]

    def function_at(self, x):
        common = gradient(self.diagonal, x, self.shift)
        return lambda ξ: common + ξ


class AdditiveScalar(Objective):
    def sample(self):
        return self.noise * self.rng.standard_normal()

    def gradient(self, x, ξ):
        g = gradient(self.diagonal, x, self.shift)
        g += ξ
        return g


class AdditiveVector(Objective):
    def sample(self):
        # one job's noise takes as much memory as a model; without noise none is drawn
        return self.noise * self.rng.standard_normal(self.dimension) if self.noise > 0 else 0.0

    def gradient(self, x, ξ):
        g = gradient(self.diagonal, x, self.shift)
        g += ξ
        return g


class Progress(Objective):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tosses = self.toss()

    def toss(self):
        """ξ after ξ. One by one would be slow: virtual time draws thousands that nobody wants."""
        while True:
            for lucky in (self.rng.random(64) < self.probability).tolist():
                yield 1.0 / self.probability if lucky else 0.0

    def sample(self):
        return next(self.tosses)

    def samples(self, n):
        return islice(self.tosses, n)

    def gradient(self, x, ξ):
        g = gradient(self.diagonal, x, self.shift)
        g[progress(x) :] *= ξ
        return g

    def function_at(self, x):
        common, behind = gradient(self.diagonal, x, self.shift), progress(x)

        @cache  # a coin has two sides
        def gradient_at(ξ):
            g = common.copy()
            g[behind:] *= ξ
            g.setflags(write=False)
            return g

        return gradient_at


OBJECTIVES = {"additive_scalar": AdditiveScalar, "additive_vector": AdditiveVector, "progress": Progress}


def gradient(diagonal, x, shift=None):
    """A x - b + shift, a new vector."""
    g = product(diagonal, 0.25, x)
    g[0] += 0.25
    if shift is not None:
        g += shift
    return g


def product(diagonal, beside, x):
    """tridiag(-beside, diagonal, -beside) x, a new vector; whole-vector operations only, because simulations evaluate
    it 100,000 times."""
    aside = beside * x
    g = diagonal * x
    g[1:] -= aside[:-1]
    g[:-1] -= aside[1:]
    return g


def half_form(diagonal, e):
    """e'Ae/2 as a sum of squares, in which next to nothing cancels."""
    padded = numpy.zeros(len(e) + 2)  # quicker than numpy.diff, which can pad, too
    padded[1:-1] = e
    differences = padded[1:] - padded[:-1]
    return 0.125 * float(differences @ differences) + 0.5 * (diagonal - 0.5) * float(e @ e)


def minimiser(d, diagonal):
    """x* = A^-1 b, by elimination from the last row upwards.

    With x_0 = -1 and x_{d+1} = 0 every row of A x = b reads -x_{k-1}/4 + a x_k - x_{k+1}/4 = 0, so the ratio
    r_k = x_k / x_{k-1} follows from the one below it: r_k = 1 / (4a - r_{k+1}).
    """
    ratios = numpy.empty(d)
    ratio = 0.0
    for k in reversed(range(d)):
        ratio = ratios[k] = 1.0 / (4.0 * diagonal - ratio)
    return -numpy.cumprod(ratios)


def progress(x):
    """1 + the index of the last non-zero coordinate of x; 0 if there is none."""
    nonzero = x[::-1] != 0
    behind = int(nonzero.argmax())
    return len(x) - behind if nonzero[behind] else 0


def draw_shifts(size, workers, d, seed):
    """(n, d): shift_i with sum zero and mean squared norm size^2; zero for a single worker, who differs from nobody."""
    shifts = numpy.stack([generator(seed, Purpose.DATA, i).standard_normal(d) for i in range(1, workers + 1)])
    shifts -= shifts.mean(axis=0)
    norm = math.sqrt((shifts**2).sum() / workers)
    return shifts * (size / norm) if norm > 0 else shifts
