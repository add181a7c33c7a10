"""The generated quadratics: the recipe in dense matrices, its minimiser, interpolation, and streams."""

import math

import numpy
import pytest
from scipy import linalg, stats

from mpibench.problems.quadratic import Quadratic
from mpibench.problems.quadratics import Quadratics
from mpibench.seeds import Purpose, generator


def recipe(n, d, s, λ, seed):
    """The A_i and b_i of the published generator, dense."""
    ξ = generator(seed, Purpose.DATA).standard_normal((n, 2))
    tridiagonal = (2 * numpy.eye(d) - numpy.eye(d, k=1) - numpy.eye(d, k=-1)) / 4
    A, b = [], []
    for first, second in ξ:
        scale = 1 + s * first
        A.append(scale * tridiagonal)
        b.append(scale / 4 * (-1 + s * second) * numpy.eye(d)[0])
    lowest = linalg.eigvalsh(numpy.mean(A, axis=0))[0]
    return [matrix + (λ - lowest) * numpy.eye(d) for matrix in A], b


def dense(problem, i):
    """A_i and b_i, read off the gradient: A_i e_j = ∇f_i(e_j) - ∇f_i(0), b_i = -∇f_i(0)."""
    f = problem.objective(i)
    at_zero = f.gradient(numpy.zeros(problem.dimension), 0.0)
    columns = [f.gradient(e, 0.0) - at_zero for e in numpy.eye(problem.dimension)]
    return numpy.array(columns).T, -at_zero


def negative(workers, s):
    """A seed with which the mean of the scales is below zero."""
    mean = lambda seed: 1 + s * generator(seed, Purpose.DATA).standard_normal((workers, 2))[:, 0].mean()  # noqa: E731
    return next(seed for seed in range(100) if mean(seed) < 0)


CASES = [(1, 5, 0.0, 0.1, 0), (3, 1, 1.0, 0.01, 1), (4, 2, 3.0, 0.3, 2), (7, 30, 3.0, 1e-3, 3)]
CASES += [(2, 1, 3.0, 0.2, negative(2, 3.0)), (2, 9, 3.0, 1e-2, negative(2, 3.0)), (3, 30, 5.0, 1, negative(3, 5.0))]


@pytest.mark.parametrize(("n", "d", "s", "λ", "seed"), CASES)
def test_matrices_and_right_sides_are_those_of_the_recipe(n, d, s, λ, seed):
    problem = Quadratics(dimension=d, heterogeneity=s, strong_convexity=λ).prepare(n, seed)
    A, b = recipe(n, d, s, λ, seed)
    for i in range(1, n + 1):
        own_A, own_b = dense(problem, i)
        assert own_A == pytest.approx(A[i - 1], abs=1e-12)
        assert own_b == pytest.approx(b[i - 1], abs=1e-14)
    assert linalg.eigvalsh(numpy.mean(A, axis=0))[0] == pytest.approx(λ, abs=1e-12)
    assert problem.start().tolist() == [math.sqrt(d)] + [0.0] * (d - 1)


@pytest.mark.parametrize("interpolation", [False, True])
@pytest.mark.parametrize(("n", "d", "s", "λ", "seed"), CASES)
def test_minimum_and_metrics_are_those_of_a_dense_solver(n, d, s, λ, seed, interpolation):
    parameters = Quadratics(dimension=d, heterogeneity=s, strong_convexity=λ, interpolation=interpolation)
    problem = parameters.prepare(n, seed)
    A, b = (numpy.mean(part, axis=0) for part in recipe(n, d, s, λ, seed))
    best = linalg.solve(A, b, assume_a="pos")
    assert problem.minimiser == pytest.approx(best, rel=1e-7, abs=1e-12)
    assert problem.minimum == pytest.approx(-b @ best / 2, rel=1e-7)
    for x in (problem.start(), numpy.random.default_rng(0).standard_normal(d)):
        values = problem.evaluate(x)
        assert values["loss"] == pytest.approx(x @ A @ x / 2 - b @ x, rel=1e-9)
        assert values["gap"] == pytest.approx(values["loss"] - problem.minimum, rel=1e-7)
        assert values["gradient_norm_squared"] == pytest.approx((A @ x - b) @ (A @ x - b), rel=1e-9)
        mean = sum(problem.objective(i).gradient(x, 0.0) for i in range(1, n + 1)) / n
        assert mean == pytest.approx(A @ x - b, abs=1e-10)


def test_the_cases_hold_negative_mean_scales():
    means = [1 + s * generator(seed, Purpose.DATA).standard_normal((n, 2))[:, 0].mean() for n, _, s, _, seed in CASES]
    assert sum(mean < 0 for mean in means) == 3


@pytest.mark.parametrize(("n", "d", "s", "λ", "seed"), CASES)
def test_constants_are_those_of_the_dense_mean(n, d, s, λ, seed):
    problem = Quadratics(dimension=d, heterogeneity=s, strong_convexity=λ, noise=0.3).prepare(n, seed)
    A, b = (numpy.mean(part, axis=0) for part in recipe(n, d, s, λ, seed))
    x = problem.start()
    minimum = -b @ linalg.solve(A, b) / 2
    assert problem.constants() == {
        "smoothness": pytest.approx(linalg.eigvalsh(A)[-1]),
        "gap": pytest.approx(x @ A @ x / 2 - b @ x - minimum, rel=1e-7),
        "variance": pytest.approx(d * 0.09),
        "minimum": pytest.approx(minimum, rel=1e-7),
        "exact": True,
    }


def test_with_interpolation_all_gradients_vanish_at_the_common_minimiser():
    parameters = Quadratics(dimension=20, heterogeneity=3.0, interpolation=True)
    problem, apart = parameters.prepare(6, 4), Quadratics(dimension=20, heterogeneity=3.0).prepare(6, 4)
    assert (problem.minimiser == apart.minimiser).all()
    for i in range(1, 7):
        assert problem.objective(i).gradient(problem.minimiser, 0.0).tolist() == [0.0] * 20
        assert (abs(apart.objective(i).gradient(problem.minimiser, 0.0)) > 1e-3).any()
        assert dense(problem, i)[0] == pytest.approx(dense(apart, i)[0], abs=1e-12)
    x = problem.start()
    assert problem.evaluate(x) == apart.evaluate(x)


def test_without_heterogeneity_all_workers_have_the_common_quadratic():
    problem = Quadratics(dimension=40, heterogeneity=0.0, strong_convexity=1e-6).prepare(3, 9)
    common = Quadratic(dimension=40, strong_convexity=1e-6).prepare(3, 9)
    x = numpy.random.default_rng(1).standard_normal(40)
    for i in (1, 2, 3):
        assert problem.objective(i).gradient(x, 0.0) == pytest.approx(common.objective(i).gradient(x, 0.0), abs=1e-15)
    assert problem.evaluate(x) == pytest.approx(common.evaluate(x))


def test_single_quadratics_may_be_indefinite_and_their_mean_is_not():
    problem = Quadratics(dimension=12, heterogeneity=3.0).prepare(20, 0)
    matrices = [dense(problem, i)[0] for i in range(1, 21)]
    assert sum(linalg.eigvalsh(A)[0] < -0.1 for A in matrices) >= 3
    assert linalg.eigvalsh(sum(matrices) / 20)[0] == pytest.approx(1e-3, abs=1e-12)


def test_noise_is_independent_in_every_coordinate_and_of_the_workers_stream():
    f = Quadratics(dimension=20, noise=0.5).prepare(2, 3).objective(2)
    x = numpy.random.default_rng(0).standard_normal(20)
    exact = f.gradient(x, 0.0)
    noise = numpy.array([f.gradient(x, f.sample()) - exact for _ in range(3000)])
    assert noise[0] == pytest.approx(0.5 * generator(3, Purpose.SAMPLING, 2).standard_normal(20), abs=1e-14)
    assert stats.kstest(noise.ravel(), stats.norm(scale=0.5).cdf).pvalue > 0.01
    assert abs(numpy.corrcoef(noise.T) - numpy.eye(20)).max() < 0.1


def test_a_workers_draws_do_not_depend_on_how_many_there_are():
    few, many = (Quadratics(dimension=6, heterogeneity=2.0).prepare(n, 5) for n in (3, 50))
    assert few.scales.tolist() == many.scales[:3].tolist()
    assert few.firsts.tolist() == many.firsts[:3].tolist()
    other = Quadratics(dimension=6, heterogeneity=2.0).prepare(3, 6)
    assert not set(other.scales) & set(few.scales)


def test_gap_keeps_its_digits_near_the_minimiser():
    problem = Quadratics(heterogeneity=3.0).prepare(100, 0)
    A = numpy.mean(recipe(100, 100, 3.0, 1e-3, 0)[0], axis=0)
    e = 1e-8 * numpy.random.default_rng(0).standard_normal(100)
    assert problem.evaluate(problem.minimiser + e)["gap"] == pytest.approx(e @ A @ e / 2, rel=1e-6, abs=0)


def test_a_problem_seed_fixes_the_problem_and_nothing_else():
    one, other = (Quadratics(dimension=6, noise=1.0, problem_seed=7).prepare(4, seed) for seed in (0, 1))
    own = Quadratics(dimension=6, noise=1.0).prepare(4, 7)
    assert one.scales.tolist() == other.scales.tolist() == own.scales.tolist()
    assert one.firsts.tolist() == other.firsts.tolist() == own.firsts.tolist()
    assert one.provenance["seed"] == 7
    assert one.objective(2).sample().tolist() == generator(0, Purpose.SAMPLING, 2).standard_normal(6).tolist()
    assert other.objective(2).sample().tolist() == generator(1, Purpose.SAMPLING, 2).standard_normal(6).tolist()
