"""The delay differential equation of asynchronous SGD: its roots against values known otherwise, the decay that runs on
quadratics show against these roots, and runs of `sdde_asgd` written out by hand (rows as in `test_traces.py`)."""

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import Toy, toy_cell

from mpibench.algorithms.sdde_asgd import SDDEASGD, largest_curvature
from mpibench.errors import InvalidInput
from mpibench.runner import simulate
from mpibench.sdde import (
    Arrivals,
    Constant,
    Discrete,
    Erlang,
    Lognormal,
    Uniform,
    best_active,
    knee,
    largest_stepsize,
    power,
    rightmost,
    root,
)

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=25)


def rate(z, law):
    """r for the law of τ, per mean delay."""
    return -root(z, law).real


# Roots.


def test_constant_delay():
    law = Constant(1.0)
    assert root(math.pi / 2, law) == pytest.approx(1j * math.pi / 2)  # s + a exp(-s) = 0 at s = iπ/2, a = π/2
    assert rate(math.pi / 2 - 1e-3, law) > 0 > rate(math.pi / 2 + 1e-3, law)
    assert rate(1 / math.e, law) == pytest.approx(1.0, abs=1e-6)  # the double root s = -1
    assert max(rate(z, law) for z in numpy.linspace(0.3, 0.45, 151)) < 1 + 1e-6
    assert rate(0.632, law) > 0.632 and rate(0.634, law) < 0.634  # with delay faster below, slower above
    assert root(0.3 / 7, Constant(7.0)) == pytest.approx(root(0.3, law) / 7)


@pytest.mark.parametrize("z", [0.01, 0.1, 0.24, 0.26, 1.0, 30.0])
def test_exponential_delay(z):
    # s² + s + z = 0: never unstable, and from z = 1/4 on no faster
    assert rate(z, Erlang(1.0)) == pytest.approx((1 - math.sqrt(max(0.0, 1 - 4 * z))) / 2)


@pytest.mark.parametrize(
    ("k", "best", "fastest", "stable"), [(2, 8 / 27, 0.67, 4.0), (4, 0.328, 0.80, 2.27), (16, 0.357, 0.94, 1.70)]
)
def test_erlang_delay(k, best, fastest, stable):
    law, z = Erlang(1.0, k), numpy.linspace(0.28, 0.37, 901)
    r = [rate(each, law) for each in z]
    # two real roots meet at s = -k/(k+1): the equation and its derivative vanish
    meet = k / (k + 1) * (k / (k + 1)) ** k
    assert z[numpy.argmax(r)] == pytest.approx(meet, abs=1e-4) and meet == pytest.approx(best, abs=6e-4)
    assert max(r) == pytest.approx(k / (k + 1), abs=0.02) and round(max(r), 2) == fastest
    # on the imaginary axis the phases π/2 + k atan(ω/k) add up to π
    edge = k * math.tan(math.pi / (2 * k)) / math.cos(math.pi / (2 * k)) ** k
    assert edge == pytest.approx(stable, abs=5e-3)
    assert rate(edge - 0.01, law) > 0 > rate(edge + 0.01, law)


def test_the_best_product_of_damping_and_delay_for_erlang_2_is_8_27():
    assert rate(8 / 27, Erlang(1.0, 2)) == pytest.approx(2 / 3, abs=1e-6)


def test_uniform_delay():
    # s² + z (1 - exp(-2s))/2 = 0 at s = iπ/2, z = π²/4
    assert root(math.pi**2 / 4, Uniform(1.0)) == pytest.approx(1j * math.pi / 2)
    narrow = root(0.5, Uniform(1.0, width=1e-6))
    assert narrow == pytest.approx(root(0.5, Constant(1.0)), rel=1e-6)


@pytest.mark.parametrize("z", [0.05, 0.2, 0.5, 1.2, 2.0])
def test_collocation_finds_the_roots_that_are_known(z):
    for law in (Constant(1.0), Erlang(1.0, 2), Erlang(1.0, 16)):
        found = rightmost(z, *law.points())
        assert complex(found.real, abs(found.imag)) == pytest.approx(root(z, law), rel=1e-6), law


def roots_to_the_right(z, law, s, apart=0.02):
    """How many roots have a real part that is larger than that of s by more than `apart`: the argument principle on a
    box that holds them all, for there |s| <= z E[exp(-s τ)], which falls with the real part."""
    seconds, weights = law.points()
    left = s.real + apart
    far = 1 + z * (weights @ numpy.exp(-left * seconds))
    side = numpy.linspace(0, 1, 2000, endpoint=False)
    corners = [left - 1j * far, far - 1j * far, far + 1j * far, left + 1j * far]
    turns = 0.0
    for here, there in zip(corners, corners[1:] + corners[:1], strict=True):
        path = numpy.append(here + side * (there - here), there)
        image = path + z * (numpy.exp(-numpy.outer(path, seconds)) @ weights)
        steps = numpy.angle(image[1:] / image[:-1])
        assert numpy.abs(steps).max() < 1
        turns += steps.sum() / (2 * math.pi)
    assert turns == pytest.approx(round(turns), abs=1e-6)
    return round(turns)


THRESHOLDED = Arrivals(Lognormal(1.0, 1.1), 32, threshold=40).delay
MIXED = Discrete(numpy.array([0.2, 0.7, 2.4]), numpy.array([0.3, 0.4, 0.3]))


@pytest.mark.parametrize("z", [0.05, 0.3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "law", [Uniform(1.0), Uniform(1.0, 0.5), Lognormal(1.0, 0.3), MIXED, THRESHOLDED], ids=range(5)
)
def test_the_root_is_one_and_none_is_farther_right(law, z):
    s = root(z / law.mean_seconds, law)
    seconds, weights = law.points()
    a = z / law.mean_seconds
    assert abs(s + a * (weights @ numpy.exp(-s * seconds))) < 1e-9
    assert roots_to_the_right(a, law, s) == 0
    assert roots_to_the_right(a, law, s - 0.04) >= 1  # the counter counts


@pytest.mark.parametrize("law", [Constant(3.0), Uniform(3.0), Uniform(3.0, 0.3), Erlang(3.0), Erlang(3.0, 4)], ids=str)
def test_laws_are_normed_and_have_their_mean(law):
    seconds, weights = law.points()
    assert (weights.sum(), weights @ seconds) == pytest.approx((1, 3), rel=1e-6)
    assert law.within(1e9) == pytest.approx(1) and law.within(0) == 0
    assert law.scaled(2).mean_seconds == 6


def test_parts_of_laws():
    assert Uniform(1.0).within(0.5) == pytest.approx(0.25)
    assert Erlang(2.0).within(1.0) == pytest.approx(1 - math.exp(-0.5))
    assert Lognormal(1.0, 0.5).within(math.exp(-0.125)) == pytest.approx(0.5, rel=2e-6)  # the median
    assert (Constant(1.0).within(0.99), Constant(1.0).within(1.0)) == (0, 1)
    assert MIXED.within(1.0) == pytest.approx(0.7) and MIXED.mean_seconds == pytest.approx(1.06)


def test_lognormal_times_with_a_heavy_tail_have_a_rate_only_for_small_steps_or_with_a_threshold():
    law = Lognormal(1.0, 1.1)
    assert rate(0.05, law) == pytest.approx(0.053, abs=5e-4)
    with pytest.raises(
        InvalidInput, match=r"lognormal times with sigma = 1.1 have no decay rate at z = 0.5: .* threshold"
    ):
        root(0.5, law)
    assert Arrivals(law, 32, threshold=48).decay(0.5 / 31.5, 1.0) > 0.5
    with pytest.raises(InvalidInput, match="no decay rate"):
        best_active(law, 8, 0.1, [1.0])


# Arrivals, and what to do about them.


def test_arrivals_without_threshold():
    arrivals = Arrivals(Constant(2.0), 8)
    assert (arrivals.share, arrivals.rate) == (1, 4)
    assert arrivals.delay.mean_seconds == pytest.approx(2 * 7.5 / 8)  # staleness 7, and 1/2
    assert arrivals.damping(0.1, 3.0) == pytest.approx(1.2)
    assert arrivals.decay(0.1, 3.0) == pytest.approx(rate(1.2, Constant(1.875)))
    assert Arrivals(Erlang(2.0), 1).delay.mean_seconds == pytest.approx(1.0)


def test_a_threshold_drops_what_is_old_and_slows_the_others():
    # times uniform on [0, 2], P = 11 and s_max = 4: in t seconds come 10 p t updates, and p = P(T < 4.5/(10 p)) =
    # 4.5/(20 p)
    arrivals = Arrivals(Uniform(1.0), 11, threshold=4)
    p = math.sqrt(4.5 / 20)
    assert arrivals.share == pytest.approx(p) and arrivals.rate == pytest.approx(11 * p)
    # what is used took between 0 and 4.5/(10 p) = 2p seconds; its staleness has the mean 10 p · p, and 1/2 is added
    assert arrivals.delay.mean_seconds * arrivals.rate == pytest.approx(10 * p * p + 0.5)
    # constant times: of ten that come in a round, the version has gone on by 4.5/9 of nine
    assert Arrivals(Constant(1.0), 10, threshold=4).share == pytest.approx(0.5, rel=1e-6)
    assert Arrivals(Constant(1.0), 10, threshold=9).share == 1
    assert Arrivals(Lognormal(1.0, 1.1), 1, threshold=1).share == 1


def test_a_trigger_makes_fewer_updates_and_less_staleness():
    silent = Arrivals(Constant(1.0), 9, trigger=0.25)
    assert silent.rate == pytest.approx(2.25)
    assert silent.delay.mean_seconds * silent.rate == pytest.approx(8 * 0.25 + 0.5)
    for wrong in (0, 1.5):
        with pytest.raises(InvalidInput, match="must be > 0 and at most 1"):
            Arrivals(Constant(1.0), 9, trigger=wrong)
    with pytest.raises(InvalidInput, match="at least 1"):
        Arrivals(Constant(1.0), 0)


@pytest.mark.parametrize("law", [Constant(2.0), Uniform(2.0), Erlang(2.0)], ids=str)
def test_above_the_knee_workers_only_wait(law):
    assert knee(law, 0.25) == 8
    below, at, above = (Arrivals(law, P, service_seconds=0.25) for P in (4, 8, 16))
    assert (below.rate, at.rate, above.rate) == (2, 4, 4)
    assert below.delay.mean_seconds == pytest.approx(Arrivals(law, 4).delay.mean_seconds)
    assert above.delay.mean_seconds == pytest.approx(16 * 0.25 * 15.5 / 16)
    assert above.decay(0.06, 1.0) < at.decay(0.06, 1.0)  # z = 0.45 and 0.93


def test_seconds_to_an_accuracy():
    arrivals = Arrivals(Constant(1.0), 8)
    fast, slow = arrivals.decay(0.05, 1.0), arrivals.decay(0.05, 0.3)
    assert slow < fast
    assert arrivals.seconds_to(1e-3, 5.0, 0.05, [1.0, 0.3]) == pytest.approx(math.log(5000) / slow)
    assert arrivals.seconds_to(1.0, 0.5, 0.05, [1.0]) == 0
    assert arrivals.seconds_to(1e-3, 5.0, 0.5, [1.0]) == math.inf  # z = 3.75


def test_the_best_number_of_workers():
    # constant times: fastest at z = 1/e, P = 1/(e η h) + 1/2 = 18.9; exponential: nothing beyond z = 1/4, P = 13
    assert best_active(Constant(1.0), 64, 0.02, [1.0])[0] == 19
    assert best_active(Erlang(1.0), 64, 0.02, [1.0]) == (13, pytest.approx(13 / 12.5 / 2))
    assert best_active(Constant(1.0), 10, 0.02, [1.0])[0] == 10
    # the flat direction wants more, until the stiff one has become as slow
    P, r = best_active(Constant(1.0), 100, 0.02, [1.0, 0.2])
    stiff, flat = ([Arrivals(Constant(1.0), P + d).decay(0.02, h) for d in (0, 1)] for h in (1.0, 0.2))
    assert 19 < P < 79 and r == min(stiff[0], flat[0])
    assert flat[0] <= stiff[0] or flat[1] > flat[0]
    assert min(stiff[1], flat[1]) < r


@pytest.mark.parametrize(("staleness", "bound"), [(0, 2.0), (1, 1.0), (5, 0.2846), (10, 0.1495)])
def test_the_largest_stepsize(staleness, bound):
    assert largest_stepsize(1.0, staleness) == pytest.approx(bound, abs=5e-5)
    assert largest_stepsize(4.0, staleness) == pytest.approx(bound / 4, abs=5e-5)
    # where the delay is long, the equation agrees: z = η h (s + 1/2) < π/2
    assert largest_stepsize(1.0, 200) * 200.5 == pytest.approx(math.pi / 2, rel=1e-5)


def test_stationary_variance_where_it_is_known():
    constant, exponential = Arrivals(Constant(1.0), 16), Arrivals(Erlang(1.0), 16)
    z = 0.02 * 15.5
    assert constant.variance(0.02, 1.0, 4.0) == pytest.approx(0.02 * 4 * (1 + math.sin(z)) / (2 * math.cos(z)))
    integrated = 0.02**2 * 16 * 4 * power(0.02 * 16, constant.delay)
    assert constant.variance(0.02, 1.0, 4.0) == pytest.approx(integrated, rel=1e-6)
    # dx = -a y dt + noise, dy = (x - y)/τ dt: E[xy] = E[y²] = q/(2a) and E[x²] = E[xy] + a τ E[y²]
    assert exponential.variance(0.02, 1.0, 4.0) == pytest.approx(0.02 * 4 * (1 + z) / 2, rel=1e-6)
    assert Arrivals(Constant(1.0), 16).variance(0.2, 1.0, 4.0) == math.inf


# Runs on quadratics.


@dataclass(frozen=True)
class Renewal:
    """Times of every job of every worker, which has been at work for long when the run begins.

    What is left of the job that is under way has the density P(T > t)/E[T]: a uniform share of a time drawn with a
    weight proportional to it. Workers that all begin at once come in waves, which uniform times keep up for several
    means. Constant times begin evenly staggered, so that the updates come one by one.
    """

    draw: Callable  # rng -> seconds, of mean one
    left: Callable  # rng, share of the workers before this one -> seconds

    def durations(self, worker, workers, rng):
        first = [self.left(rng, worker / workers)]
        return lambda cost, now_ns: max(1, round(1e9 * (first.pop() if first else self.draw(rng))))

    def mean_seconds(self, workers):
        return numpy.ones(workers)

    least_seconds = smallest_seconds = mean_seconds


def lognormal(σ):
    return Renewal(
        lambda rng: math.exp(σ * rng.standard_normal() - σ**2 / 2),
        lambda rng, share: rng.random() * math.exp(σ * rng.standard_normal() + σ**2 / 2),
    )


TIMES = {
    Constant(1.0): Renewal(lambda rng: 1.0, lambda rng, share: share),
    Uniform(1.0): Renewal(lambda rng: 2 * rng.random(), lambda rng, share: rng.random() * 2 * math.sqrt(rng.random())),
    Erlang(1.0): Renewal(lambda rng: rng.standard_exponential(), lambda rng, share: rng.standard_exponential()),
    Lognormal(1.0, 0.5): lognormal(0.5),
    Lognormal(1.0, 1.1): lognormal(1.1),
}
TIME = numpy.arange(2, 7.01, 0.25)  # means of the times: before, faster motions are in the way
STARTS = (1.0, 0.75), (1.0, 0.15), (2.0, 1.1), (2.0, 0.2)  # two swinging motions, two pairs of real ones


def mean_path(arrivals, zs, jobs, clock="updates"):
    """Seconds (t,), and the mean of x over runs and its standard error, (t, len(zs)), in directions whose ηh(P - 1/2)
    are zs: after so many seconds, or after Λ times as many updates. One worker more is there and parked.

    `jobs`: runs times active workers; constant times need one run only.
    """
    P, runs = arrivals.active, 1 if isinstance(arrivals.law, Constant) else jobs // arrivals.active
    number = numpy.rint(TIME * arrivals.rate).astype(int)
    cell = toy_cell(
        "sdde_asgd",
        {"stepsize": 1 / (P - 0.5), "active": P, "threshold": arrivals.threshold},
        [1.0] * (P + 1),
        Toy((1.0,) * len(zs), tuple(zs)),
        stop={"updates": int(number[-1])} if clock == "updates" else {"seconds": float(TIME[-1])},
        record_updates=False,
    )
    cell = replace(cell, compute=TIMES[arrivals.law])
    paths = []
    for seed in range(runs):
        trace = simulate(cell, seed).trace
        at = number if clock == "updates" else numpy.searchsorted(trace["time"], TIME, side="right") - 1
        paths.append(numpy.stack([trace[f"x{c}"][at] for c in range(len(zs))], axis=1))
    mean = numpy.mean(paths, axis=0)
    error = numpy.maximum(numpy.std(paths, axis=0) / math.sqrt(runs), 1e-6 * numpy.abs(mean))
    return number / arrivals.rate if clock == "updates" else TIME, mean, error


def measured(t, mean, error):
    """The decay of a mean path: of the larger of the two motions exp(s t), real or swinging, that fit it best."""
    from scipy.optimize import least_squares

    def motions(p, q):
        κ = cmath.sqrt(p * p / 4 - q)  # the roots of s² + p s + q = 0
        s = numpy.array([-p / 2 + κ, -p / 2 - κ])
        weighted = numpy.exp(numpy.outer(t - t[0], s)) / error[:, None]
        size = numpy.linalg.lstsq(weighted, mean / error)[0]
        return s, size, (weighted @ size).real - mean / error

    fits = [least_squares(lambda pq: motions(*pq)[-1], start) for start in STARTS]
    s, size, _ = motions(*min(fits, key=lambda fit: fit.cost).x)
    return -s[numpy.argmax(numpy.abs(size))].real


def decays(arrivals, zs, jobs=0, clock="updates"):
    """Measured decay, for each z."""
    t, mean, error = mean_path(arrivals, zs, jobs, clock)
    return numpy.array([measured(t, mean[:, c], error[:, c]) for c in range(len(zs))])


# Within 3 % from P = 8 on and for z up to 3/4. Beyond, uniform times with P = 8 are 4 % off at z = 1 and 8 % at 5/4; at
# z = 1/e, where r has a cusp, constant ones with P = 8 are 4 % off. All of this falls at least like 1/P.


def ratios(arrivals, zs, jobs=0, clock="updates"):
    """Measured over predicted decay, for each z."""
    predicted = [arrivals.decay(1 / (arrivals.active - 0.5), z) for z in zs]
    return decays(arrivals, zs, jobs, clock) / predicted


SLOW_AND_SWINGING = 0.1, 0.2, 0.5, 0.75  # z on both sides of where two real roots meet


@pytest.mark.parametrize("P", [8, 16, 32])
@pytest.mark.parametrize("law", [Uniform(1.0), Erlang(1.0), Lognormal(1.0, 0.5)], ids=str)
def test_random_times_decay_like_their_root_says(law, P):
    assert ratios(Arrivals(law, P), SLOW_AND_SWINGING, jobs=5000) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("P", [8, 16, 32, 64])
def test_constant_times_decay_like_their_root_says(P):
    zs = (0.1, 0.2, 0.3, 0.34, 0.36, 0.38, 0.4, 0.5, 0.75, 1.0, 1.25)
    assert ratios(Arrivals(Constant(1.0), P), zs) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("law", [Constant(1.0), Uniform(1.0), Erlang(1.0), Lognormal(1.0, 0.5)], ids=str)
def test_the_decay_in_seconds_is_that_in_updates_where_there_are_many_workers(law):
    # here runs differ also in how far they are, which costs accuracy, and shifts r by (z - 1/2)/P
    assert ratios(Arrivals(law, 32), (0.1, 0.5, 0.75), 6000, "seconds") == pytest.approx(1, abs=0.03)


def test_a_threshold_makes_a_rate_where_times_have_a_heavy_tail():
    arrivals = Arrivals(Lognormal(1.0, 1.1), 32, threshold=48)
    assert ratios(arrivals, SLOW_AND_SWINGING, jobs=4000) == pytest.approx(1, abs=0.03)


def test_where_the_prediction_is_rough():
    # two roots meet at z = 1/e: r has a cusp there, and an error of 1/P² in z is one of 1/P in r
    cusp = 1 / math.e
    off = [abs(ratios(Arrivals(Constant(1.0), P), [cusp])[0] - 1) for P in (4, 8, 16, 32)]
    assert off == sorted(off, reverse=True) and off[1] > 0.03 and off[2] < 0.03
    # exponential times: every update takes a worker at random, so the means of x and of the points that workers hold
    # follow [[1, -b], [1/P, 1 - (1 + b)/P]], b = η h. With an eigenvalue λ of it, s = Λ ln λ if updates are counted and
    # s = Λ(λ - 1) in seconds: where they swing, r = (1 + b)/(2T̄), and not (1 + 1/(2P))/(2T̄)
    P, z = 8, 1.0
    b = z / (P - 0.5)
    λ = numpy.linalg.eigvals([[1, -b], [1 / P, 1 - (1 + b) / P]])
    assert max((P * (λ - 1)).real) == pytest.approx(-(1 + b) / 2)
    by_update = -P * math.log(abs(λ[0]))
    assert Arrivals(Erlang(1.0), P).decay(1 / (P - 0.5), z) == pytest.approx(by_update, rel=2e-3)


def test_without_the_half_the_prediction_is_off_by_a_tenth_near_the_optimum():
    (r,) = decays(Arrivals(Constant(1.0), 8), [0.4])
    assert r / Arrivals(Constant(1.0), 8).decay(1 / 7.5, 0.4) == pytest.approx(1, abs=0.005)
    assert r / rate(0.4 * 8 / 7.5, Constant(1.0)) > 1.1


def test_more_workers_help_until_the_best_number():
    # η h = 0.02 throughout; the best number is 19
    r = {}
    for P in (4, 8, 12, 19, 30, 48, 72):
        (r[P],) = decays(Arrivals(Constant(1.0), P), [0.02 * (P - 0.5)])
        assert r[P] == pytest.approx(Arrivals(Constant(1.0), P).decay(0.02, 1.0), rel=0.03)
    assert max(r, key=r.get) == best_active(Constant(1.0), 72, 0.02, [1.0])[0] == 19
    assert r[4] < r[8] < r[12] < r[19] > r[30] > r[48] > r[72]


@pytest.mark.parametrize("law", [Constant(1.0), Erlang(1.0)], ids=str)
def test_stationary_variance_of_runs(law):
    P, h, updates = 16, 1.0, 20_000
    noise = numpy.random.default_rng(1).standard_normal((P, updates))
    toy = Toy((0.0,), (h,), sample=lambda i, number: noise[i - 1, number])
    cell = toy_cell(
        "sdde_asgd",
        {"stepsize": 0.03, "active": P},
        [1.0] * P,
        toy,
        stop={"updates": updates},
        record_updates=False,
    )
    x = simulate(replace(cell, compute=TIMES[law]), 0).trace["x0"][1000:]
    assert (x**2).mean() == pytest.approx(Arrivals(law, P).variance(0.03, h, 1.0), rel=0.08)


# The algorithm by hand: f(x) = x²/2, stepsize 1/4.


def run(parameters, seconds, updates, name="sdde_asgd", **more):
    settings = {"stop": {"updates": updates}} | more
    return simulate(toy_cell(name, {"stepsize": 0.25} | parameters, seconds, **settings), seed=0)


def rows(result):
    """(seconds, source, staleness, point) of every update."""
    columns = [result.updates[name] for name in ("time", "source", "staleness")]
    points = result.trace["x0"][numpy.unique(result.trace["updates"], return_index=True)[1]]
    return list(zip(*map(list, columns), points[1:].tolist(), strict=True))


def test_parked_workers_never_compute():
    result = run({"active": 2}, [2, 3, 1], 5)
    assert rows(result) == [
        (2, 1, 0, 48),  # 64 - 64/4
        (3, 2, 1, 32),  # 48 - 64/4
        (4, 1, 1, 20),  # 32 - 48/4
        (6, 1, 0, 15),  # 20 - 20/4
        (6, 2, 2, 7),  #  15 - 32/4
    ]
    assert result.ranks["messages_sent"].tolist() == [2 + 4 + 1, 3, 2, 0]
    assert result.ranks["gradients"].tolist() == [0, 3, 2, 0]


def test_a_threshold_by_hand():
    # worker 2 reports at 2.5, where it is 2 updates old, and at 5, where it is 3 or 2
    strict = run({"active": 2, "threshold": 1}, [1, 2.5], 6, toy=Toy(x=(256.0,)))
    assert rows(strict) == [
        (1, 1, 0, 192),
        (2, 1, 0, 144),
        (3, 1, 0, 108),  # what worker 2 sent at 2.5 was dropped, and made nobody staler
        (4, 1, 0, 81),
        (5, 1, 0, 60.75),  # and at 5, from x^2, 3 updates old
        (6, 1, 0, 45.5625),
    ]
    assert strict.ranks["discarded"].tolist() == [0, 0, 2]
    assert strict.ranks["messages_sent"].tolist() == [2 + 5 + 2 + 1, 6, 2]
    assert strict.updates["staleness_histogram"].tolist() == [6, 0, 1, 1]
    loose = run({"active": 2, "threshold": 2}, [1, 2.5], 6, toy=Toy(x=(256.0,)))
    assert rows(loose) == [
        (1, 1, 0, 192),
        (2, 1, 0, 144),
        (2.5, 2, 2, 80),  # 144 - 256/4
        (3, 1, 1, 44),  # 80 - 144/4
        (4, 1, 0, 33),
        (5, 1, 0, 24.75),
    ]


def test_a_trigger_by_hand():
    # c = 0.4; a gradient is the point at which it is computed
    result = run({"active": 2, "trigger": 0.4}, [2, 3], 6)
    assert rows(result) == [
        (2, 1, 0, 48),  # the first one is always news
        (3, 2, 1, 32),  # 48 - 64/4
        # at 4 worker 1 has 48 after 64, and 16 is not more than 0.4 · 48: it says so and gets x^2 = 32 again
        (6, 1, 0, 24),  # 32 after 64, which was the last sent
        (6, 2, 1, 16),  # 32 after 64: 24 - 32/4
        # at 8 worker 1 has 24 after 32: 8 is not more than 9.6
        (9, 2, 0, 12),  # 16 after 32: 16 - 16/4
        (10, 1, 1, 8),  # 16 after 32: 12 - 16/4
    ]
    assert result.ranks["discarded"].tolist() == [0, 2, 0] and result.ranks["used"].tolist() == [0, 3, 3]
    # of worker 1 three reports have a number and a gradient, two a number
    assert result.ranks["bytes_sent"].tolist() == [16 * (2 + 8), 3 * 16 + 2 * 8, 3 * 16]
    assert result.updates["staleness_histogram"].tolist() == [3, 3 + 2]


def test_a_trigger_may_be_silent_for_ever():
    # alone, x goes from 64 to 48, and 16 is no more than 48/3: x stays, and so does the gradient
    stuck = run({"active": 1, "trigger": 0.34}, [1], None, stop={"gradients": 10})
    assert rows(stuck) == [(1, 1, 0, 48)] and stuck.attrs["seconds"] == 10
    assert stuck.ranks["discarded"].tolist() == [0, 9]
    assert len(rows(run({"active": 1, "trigger": 0.33}, [1], 10))) == 10


def test_the_slowest_is_parked():
    # z = 0.625 with three workers, 0.375 with two
    result = run({"active": 3, "period": 2, "curvature": 1.0}, [1, 2, 4], 8)
    assert rows(result) == [
        (1, 1, 0, 48),
        (2, 1, 0, 36),  # plan: worker 1 took 1 s, workers 2 and 3 are at it for 2 s, and the last is parked
        (2, 2, 2, 20),  # 36 - 64/4
        (3, 1, 1, 11),  # 20 - 36/4
        (4, 1, 0, 8.25),
        (4, 2, 2, 3.25),  # 8.25 - 20/4
        (4, 3, 6, -12.75),  # 3.25 - 64/4: it is used, and not answered
        (5, 1, 2, -14.8125),  # -12.75 - 8.25/4
    ]
    assert result.ranks["messages_sent"].tolist() == [3 + 7, 5, 2, 1]


def test_a_worker_is_activated():
    # z = 0.125 with one worker, 0.375 with two, and 0.625 with three would be too many
    result = run({"active": 1, "period": 2, "curvature": 1.0}, [1, 2, 4], 5)
    assert rows(result) == [
        (1, 1, 0, 48),
        (2, 1, 0, 36),  # plan: worker 2 gets x^2, too
        (3, 1, 0, 27),
        (4, 1, 0, 20.25),
        (4, 2, 2, 11.25),  # 20.25 - 36/4
    ]


def test_the_curvature_is_measured_by_a_worker():
    # as before, but worker 1 is asked after two updates and needs 21 s more before its third
    result = run({"active": 1, "period": 2}, [1, 2, 4], 5)
    assert rows(result) == [
        (1, 1, 0, 48),
        (2, 1, 0, 36),
        (24, 1, 0, 27),  # plan: workers 1 and 2 get x^3
        (25, 1, 0, 20.25),  # worker 1 is asked again
        (26, 2, 1, 13.5),  # 20.25 - 27/4
    ]
    assert result.ranks["gradients"].tolist() == [0, 4 + 21, 1, 0]
    assert result.ranks["used"].tolist() == [0, 4, 1, 0]
    assert result.ranks["messages_sent"].tolist() == [1 + 1 + 2 + 2 + 2 + 1, 4 + 1, 1, 0]


@pytest.mark.parametrize(
    ("h_max", "planned"),
    [
        (0.5, {1, 2, 3}),  # z = 0.3125: as it should be
        (1.0, {1, 3}),  # 0.375 instead of 0.625
        (100.0, {1}),  # one is the least
        (math.inf, {1}),
        (0.4, {1, 2, 3, 4}),  # 0.35 instead of 0.25, and 4 is the fastest that is parked
        (0.01, {1, 2, 3, 4, 5}),  # all
        (1e-320, {1, 2, 3, 4, 5}),
    ],
)
def test_a_plan_parks_the_slowest_and_activates_the_fastest(h_max, planned):
    method = SDDEASGD(stepsize=0.25, active=3, period=1)
    assert method.plan(h_max, {1, 2, 3}, {1: 1.0, 2: 3.0, 3: 2.0, 4: 0.5, 5: 4.0}) == planned


@pytest.mark.parametrize("curvature", [(3.0, 1.0, 0.1), (-3.0, 1.0, 2.0)])
def test_the_power_method(curvature):
    f = Toy((1.0, 1.0, 1.0), curvature, sample=lambda i, number: 0.3).objective(1)
    assert largest_curvature(f, numpy.array([1.0, -2.0, 5.0]), f.sample()) == pytest.approx(3.0, rel=1e-3)
    assert largest_curvature(f, numpy.zeros(3), 0.0) == 0


def test_more_active_workers_than_there_are_are_refused():
    SDDEASGD(stepsize=1.0, active=3).check(3)
    with pytest.raises(ValueError, match="active = 4 must be at most the number of workers, 3"):
        SDDEASGD(stepsize=1.0, active=4).check(3)


def noise(i, number):
    return ((7 * i + 3 * number) % 11 - 5) / 16


NOISY = Toy((3.0,), (0.7,), noise)
SPEEDS = st.lists(st.integers(1, 12).map(lambda quarter: quarter / 4), min_size=1, max_size=5)
LINKS = st.sampled_from([{}, {"latency_seconds": 0.3}, {"vector_seconds": 0.2, "down": {"vector_seconds": 0.7}},
                         {"bandwidth_bytes_per_second": 50.0}])  # fmt: skip


@given(seconds=SPEEDS, links=LINKS)
@EXACT
def test_with_all_workers_active_it_is_asynchronous_sgd(seconds, links):
    one = run({"active": len(seconds)}, seconds, 40, toy=NOISY, links=links)
    other = run({"rule": "constant"}, seconds, 40, name="async_sgd", toy=NOISY, links=links)
    assert rows(one) == rows(other) and one.attrs == other.attrs


@given(seconds=SPEEDS, R=st.integers(2, 6), links=LINKS)
@EXACT
def test_with_a_threshold_it_is_ringmaster_which_takes_delays_below_R(seconds, R, links):
    one = run({"active": len(seconds), "threshold": R - 1}, seconds, 40, toy=NOISY, links=links)
    other = run({"threshold": R}, seconds, 40, name="ringmaster", toy=NOISY, links=links)
    assert rows(one) == rows(other) and one.attrs == other.attrs


@given(
    seconds=SPEEDS, trigger=st.sampled_from([0.0, 0.3, 1.0, 1.5]), period=st.sampled_from([1, 3, math.inf]), links=LINKS
)
@EXACT
def test_every_report_is_settled_and_answered_unless_its_worker_is_parked(seconds, trigger, period, links):
    n = len(seconds)
    parameters = {"active": (n + 1) // 2, "trigger": trigger, "period": period, "threshold": 2}
    result = run(parameters, seconds, None, toy=NOISY, links=links, stop={"gradients": 60})
    ranks = result.ranks
    assert ranks["used"].sum() + ranks["discarded"].sum() == 60
    assert max(result.updates["staleness"], default=0) <= 2
    assert len(rows(result)) == ranks["used"].sum()
    if trigger == 0 and period == math.inf:
        assert ranks["messages_sent"][0] == parameters["active"] + 60
        assert not ranks["gradients"][1 + parameters["active"] :].any()
