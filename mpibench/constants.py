"""The constants of a problem that theory asks for, estimated at its start where no formula has them.

A prepared problem's `constants()` is a dict: smoothness (L), gap (D = f(x^0) - f*), variance (σ², of a stochastic
gradient, summed over coordinates), minimum (f*, or a lower bound of it, from which the gap is taken) and exact (whether
all of them are). Works for numpy and torch vectors; nothing is drawn but what the problem's own streams give.
"""

import math

STEP = 1e-2  # of differences of gradients: far above rounding also in single precision
ITERATIONS = 30
PAIRS = 128


def estimated(problem, gradient, minimum=0.0):
    """The constants of a prepared problem with full gradient gradient(x) and f >= minimum, as they are at its start."""
    x = problem.start()
    return {
        "smoothness": smoothness(gradient, x, problem.objective(1)),
        "gap": problem.evaluate(x)["loss"] - minimum,
        "variance": variance(problem, x),
        "minimum": minimum,
        "exact": False,
    }


def smoothness(gradient, x, objective):
    """The largest absolute eigenvalue of the Hessian at x, by power iteration on differences of the full gradient."""
    v = objective.gradient(x, objective.sample())  # noisy, so it has a part in every direction
    for _ in range(ITERATIONS):
        step = (STEP / max(norm(v), 1e-30)) * v
        v = (gradient(x + step) - gradient(x - step)) / (2 * STEP)
    return norm(v)


def variance(problem, x):
    """σ² at x: half the mean squared difference of two gradients of a worker, over the first 128 workers in turn."""
    workers = min(len(problem.data.parts), PAIRS)
    objectives = [problem.objective(i) for i in range(1, workers + 1)]
    total = 0.0
    for pair in range(PAIRS):
        f = objectives[pair % workers]
        total += norm(f.gradient(x, f.sample()) - f.gradient(x, f.sample())) ** 2 / 2
    return total / PAIRS


def norm(v):
    """||v||, a float."""
    return math.sqrt(float(v @ v))
