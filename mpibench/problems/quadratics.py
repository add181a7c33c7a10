"""Quadratics of different scale and right side, one a worker: the generated problem on which Rennala and Malenia part.

f = (1/n) sum f_i with f_i(x) = x'A_i x/2 - b_i'x. For worker i two numbers ξ, ξ' ~ N(0, 1) are drawn; with
ν_i = 1 + s ξ and ν'_i = s ξ'

    A_i = ν_i tridiag(-1, 2, -1)/4 + (λ - λ_0) I      b_i = ν_i (-1 + ν'_i, 0, .., 0)/4      x^0 = (sqrt(d), 0, .., 0)

where λ_0 is the smallest eigenvalue of the mean of the ν_i tridiag(-1, 2, -1)/4. So the mean matrix has the smallest
eigenvalue λ, and f is strongly convex; the single f_i need not be convex: where ν_i < 0, most eigenvalues of A_i are
negative. A. Tyurin, "Bridging the Gap Between Homogeneous and Heterogeneous Asynchronous Optimization is Surprisingly
Difficult", ICLR 2026, Algorithm 3.

With `interpolation` b_i = A_i x* is put in place of the b_i, x* being the minimiser of f, which stays the same: then
all ∇f_i vanish at x*, and x* minimises those f_i that are convex.

A stochastic gradient is ∇f_i(x) plus a vector of independent noise * N(0, 1), of total variance d noise^2. The scales
and right sides come from the stream Purpose.DATA: every seed has its own problem, unless `problem_seed` is given, and
worker i's ξ and ξ' do not depend on the number of workers.

Metrics: loss f(x), gap f(x) - f*, gradient_norm_squared ||∇f(x)||^2.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy
from annotated_types import Ge, Le, Lt

from mpibench.parameters import NonNegative, Positive
from mpibench.problems import quadratic
from mpibench.seeds import Purpose, generator


@dataclass(frozen=True)
class Quadratics:
    dimension: Annotated[int, Ge(1), Le(10**7)] = 100  # d
    heterogeneity: NonNegative = 1.0  # s, how much the workers differ; 0: all share f
    strong_convexity: Positive = 1e-3  # λ, the smallest eigenvalue of the mean of the A_i
    noise: NonNegative = 0.0  # σ of one coordinate
    interpolation: bool = False  # b_i = A_i x*: all ∇f_i vanish at x*
    problem_seed: Annotated[int, Ge(0), Lt(2**63)] | None = None  # in place of the run's seed: one problem for all runs

    @property
    def heterogeneous(self):
        """Whether the f_i differ, with interpolation too: away from x* their gradients do."""
        return self.heterogeneity > 0

    def prepare(self, workers, seed):
        """The problem for this number of workers and this seed."""
        return Prepared(self, workers, seed)


class Prepared:
    """f, its minimum and the f_i of n workers. Vectors are numpy float64 of length `dimension`."""

    metrics = {"loss": "lower", "gap": "lower", "gradient_norm_squared": "lower"}

    def __init__(self, parameters, workers, seed):
        d, s, λ = parameters.dimension, parameters.heterogeneity, parameters.strong_convexity
        self.parameters = parameters
        self.seed = seed
        self.dimension = d
        self.model_bytes = 8 * d
        drawn_by = seed if parameters.problem_seed is None else parameters.problem_seed
        ξ = generator(drawn_by, Purpose.DATA).standard_normal((workers, 2))
        self.scales = 1 + s * ξ[:, 0]  # ν_i
        self.firsts = self.scales * (-1 + s * ξ[:, 1]) / 4  # first coordinate of b_i, the others are 0
        self.scale = float(self.scales.mean())
        self.first = float(self.firsts.mean())
        # The eigenvalues of tridiag(-1, 2, -1)/4 lie between `smallest` and 1 - `smallest`.
        smallest = 1 / 2 - 1 / 2 * math.cos(math.pi / (d + 1))
        self.shift = λ - self.scale * (smallest if self.scale > 0 else 1 - smallest)  # λ - λ_0
        # The mean matrix is |scale| times the matrix of `mpibench.problems.quadratic` with this diagonal. Should the
        # mean of the ν_i be negative, it is so in coordinates every second of which has changed its sign.
        self.diagonal = 0.5 + (λ / abs(self.scale) - smallest)
        self.signs = numpy.where(numpy.arange(d) % 2 == 1, math.copysign(1.0, self.scale), 1.0)
        minimiser = quadratic.minimiser(d, self.diagonal)  # for the right side (-1, 0, .., 0)/4
        self.minimiser = self.signs * minimiser * (-4 * self.first / abs(self.scale))
        self.minimum = -0.5 * self.first * float(self.minimiser[0])  # f* = -b'x*/2
        kind = "interpolation" if parameters.interpolation else "generated"
        self.provenance = {
            "name": "quadratics",
            "version": "computed",
            "licence": "not applicable",
            "checksum": "not applicable",
            "partition": f"{kind}({s})",
            "seed": drawn_by,
        }

    def start(self):
        """x^0 = (sqrt(d), 0, .., 0)."""
        x = numpy.zeros(self.dimension)
        x[0] = math.sqrt(self.dimension)
        return x

    def objective(self, i):
        """f_i of worker i = 1..n, at the beginning of its stream of samples."""
        return Objective(self, i)

    def constants(self):
        """What theory asks for (`mpibench.constants`), exact: L is the largest eigenvalue of the mean matrix."""
        largest = self.diagonal + 0.5 * math.cos(math.pi / (self.dimension + 1))
        return {
            "smoothness": abs(self.scale) * largest,
            "gap": self.evaluate(self.start())["gap"],
            "variance": self.dimension * self.parameters.noise**2,
            "minimum": self.minimum,
            "exact": True,
        }

    def evaluate(self, x):
        """Loss, gap and squared gradient norm at x; the gap is (x - x*)'A(x - x*)/2, which keeps its digits near x*."""
        with numpy.errstate(over="ignore", invalid="ignore"):  # a diverged x gives inf or nan, quietly
            g = product(self.scale, self.shift, x)
            g[0] -= self.first
            return {
                "loss": self.half_form(x) - self.first * float(x[0]),
                "gap": self.half_form(x - self.minimiser),
                "gradient_norm_squared": float(g @ g),
            }

    def half_form(self, e):
        """e'Ae/2 with the mean matrix A."""
        return abs(self.scale) * quadratic.half_form(self.diagonal, self.signs * e)


class Objective:
    """f_i: `sample()` draws ξ, which carries all randomness; `gradient(x, ξ)` only computes."""

    def __init__(self, problem, i):
        self.dimension = problem.dimension
        self.noise = problem.parameters.noise
        self.scale = float(problem.scales[i - 1])
        self.shift = problem.shift
        self.first = float(problem.firsts[i - 1])
        self.centre = problem.minimiser if problem.parameters.interpolation else None
        self.rng = generator(problem.seed, Purpose.SAMPLING, i)

    def sample(self):
        # one job's noise takes as much memory as a model; without noise none is drawn
        return self.noise * self.rng.standard_normal(self.dimension) if self.noise > 0 else 0.0

    def gradient(self, x, ξ):
        if self.centre is not None:
            g = product(self.scale, self.shift, x - self.centre)  # A_i x - A_i x*
        else:
            g = product(self.scale, self.shift, x)
            g[0] -= self.first
        g += ξ
        return g


def product(scale, shift, x):
    """(scale tridiag(-1, 2, -1)/4 + shift I) x, a new vector."""
    return quadratic.product(scale / 2 + shift, scale / 4, x)
