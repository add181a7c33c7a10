"""Shadowheart's equilibrium time and schedule, against the published definition written out and by hand."""

import math

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpibench.errors import InvalidInput
from mpibench.schedule import equilibrium_seconds, schedule

seconds = st.one_of(st.floats(1e-3, 1e3), st.integers(1, 6).map(float))  # whole ones have ties
workers = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=9)
ratios = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))
few = settings(deadline=None, max_examples=300)


# As published, a worker at a time.


def published_root(omega, ratio, pairs):
    """s*: the s >= 0 with (Σ 1/(2 τ ω + 4 τ h ω (σ²/ε)/s + 2 h σ²/ε))^-1 = s."""

    def sides(s):
        return 1 / sum(1 / (2 * t * omega + 4 * t * h * omega * ratio / s + 2 * h * ratio) for h, t in pairs) - s

    if any(t * omega == 0 and h * ratio == 0 for h, t in pairs):
        return 0.0
    low = high = 1.0
    while sides(high) > 0:
        high *= 2
    while sides(low) < 0:
        low /= 2
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if sides(middle) > 0 else (low, middle)
    return high


def published_equilibrium(omega, ratio, h, tau):
    """t*, by all prefixes."""
    order = sorted(zip(h, tau, strict=True), key=max)
    return min(max(*order[j - 1], published_root(omega, ratio, order[:j])) for j in range(1, len(order) + 1))


def published_schedule(omega, ratio, h, tau, t):
    """(b, m, w, Z) of t*."""
    floor = lambda q: math.floor(q * (1 + 1e-12))  # noqa: E731
    b, m, w = [], [], []
    for each, message in zip(h, tau, strict=True):
        gradients, messages = floor(t / each), floor(t / message)
        if not gradients or not messages:
            gradients = messages = 0
        b.append(gradients)
        m.append(messages)
        weight = 1.0 if omega == 0 == ratio else 1 / (gradients * omega + omega * ratio + messages * ratio or math.inf)
        w.append(weight if gradients else 0.0)
    return b, m, w, sum(map(math.prod, zip(w, m, b, strict=True)))


@few
@given(ratios, ratios, workers)
@example(3.0, 1.0, [(1.0, 0.5), (2.0, 1e3), (1.0, 0.5)])
def test_the_schedule_is_the_published_one(omega, ratio, pairs):
    h, tau = map(list, zip(*pairs, strict=True))
    made = schedule(omega, ratio, h, tau)
    assert made.seconds == equilibrium_seconds(omega, ratio, h, tau)
    assert made.seconds == pytest.approx(published_equilibrium(omega, ratio, h, tau), rel=1e-12)
    b, m, w, Z = published_schedule(omega, ratio, h, tau, made.seconds)
    assert (made.b.tolist(), made.m.tolist()) == (b, m)
    assert made.w == pytest.approx(w, rel=1e-12) and pytest.approx(Z, rel=1e-12) == made.Z
    assert made.parts.sum() == pytest.approx(1)


@few
@given(ratios, ratios, workers)
def test_the_estimate_is_good_enough_and_in_time(omega, ratio, pairs):
    h, tau = map(numpy.array, zip(*pairs, strict=True))
    made = schedule(omega, ratio, h, tau)
    assert made.Z >= 1 - 1e-9
    assert (made.b * h + made.m * tau).max() <= 2 * made.seconds * (1 + 1e-11)
    # κ ||∇f||² + ν σ² is at most (||∇f||² + ε)/Z
    κ, ν = made.variance
    assert max(κ, ν * ratio) <= (1 + 1e-9) / made.Z
    # the vector itself in place of many messages is no longer and no worse
    for whole in (1, 2.5, 40):
        dense = schedule(omega, ratio, h, tau, whole, "dense")
        long = made.m >= whole
        assert ratio == 0 or dense.m.tolist() == numpy.where(long, 1, made.m).tolist()
        assert (dense.dense == long).all()
        assert (dense.b * h + numpy.where(long, whole, dense.m) * tau).max() <= 2 * dense.seconds * (1 + 1e-11)
        assert dense.Z >= 1 - 1e-9
        assert ratio == 0 or dense.Z >= made.Z * (1 - 1e-9)


def test_many_workers_with_the_papers_times():
    """h_i = sqrt(i), τ_i = sqrt(i)/d, one coordinate of d = 7850 a message."""
    h = numpy.sqrt(numpy.arange(1, 1001))
    assert schedule(7849, 1, h, h / 7850).m[0] == 17_553
    assert schedule(7849, 100, h, h / 7850).m[0] == 111_292
    assert schedule(7849, 1, h, h / 7850).m.tolist()[5:] == [0] * 995  # who takes longer than t* sits out
    h = h[:40]
    assert equilibrium_seconds(7849, 1, h, h / 7850) == pytest.approx(published_equilibrium(7849, 1, h, h / 7850))


@pytest.mark.parametrize(
    ("omega", "ratio", "h", "tau", "t", "b", "m", "w"),
    [
        # nothing is noisy: the fastest worker is enough
        (0, 0, [2, 1], [1, 3], 2, [1, 0], [2, 0], [1, 0]),
        # no compression: s = 2 (σ²/ε) / Σ 1/h_i is 8/1.5 for both, 8 for the first alone
        (0, 4, [1, 2], [2, 2], 16 / 3, [5, 2], [2, 2], [1 / 8, 1 / 8]),
        # no noise in gradients: s = 2ω / Σ 1/τ_i = 6/1.5
        (3, 0, [4, 4], [1, 2], 4, [1, 1], [4, 2], [1 / 3, 1 / 3]),
        # alone: s² = (2 + 2) s + 4, s = 2 + sqrt(8)
        (1, 1, [1], [1], 2 + math.sqrt(8), [4], [4], [1 / 9]),
        # floors of exact ratios: 0.3/0.1 is three, whatever floats say
        (0, 0, [0.3], [0.1], 0.3, [1], [3], [1]),
        # who cannot send sits out: s = 2 + 2 = 4
        (1, 1, [1, 0.1], [1, math.inf], 2 + math.sqrt(8), [4, 0], [4, 0], [1 / 9, 0]),
    ],
)
def test_by_hand(omega, ratio, h, tau, t, b, m, w):
    made = schedule(omega, ratio, h, tau)
    assert made.seconds == pytest.approx(t, rel=1e-14)
    assert (made.b.tolist(), made.m.tolist(), made.w.tolist()) == (b, m, pytest.approx(w))


def test_what_becomes_of_many_messages_by_hand():
    # s²= (2 τ ω + 2 h) s + 4 τ h ω with one worker, τ = 1/2, h = 1, ω = 3: s² = 5 s + 6, s = 6: b = 6, m = 12
    none = schedule(3, 1, [1], [0.5])
    assert (none.seconds, none.b[0], none.m[0]) == (6, 6, 12)
    assert none.w[0] == pytest.approx(1 / (18 + 3 + 12)) and pytest.approx(72 / 33) == none.Z
    for whole, clipped in ((4, 4), (3.5, 4), (12, 12)):
        clip = schedule(3, 1, [1], [0.5], whole, "clip")
        assert (clip.b[0], clip.m[0], clip.dense[0]) == (6, clipped, False)
        assert clip.w[0] == pytest.approx(1 / (18 + 3 + clipped))
        dense = schedule(3, 1, [1], [0.5], whole, "dense")
        assert (dense.b[0], dense.m[0], dense.dense[0], dense.w[0], dense.Z) == (6, 1, True, 1, 6)
    for limit in ("clip", "dense"):
        assert schedule(3, 1, [1], [0.5], 12.5, limit).m[0] == 12
    # clipping may break the bound: all of m = 4 messages have ω/m = 3/4 of the gradient, and Z = 24/25
    assert pytest.approx(24 / 25) == schedule(3, 1, [1], [0.5], 4, "clip").Z


def test_without_noise_who_sends_vectors_needs_nobody_else():
    # the first sends 4 messages as long as two vectors, the second 1; no gradient has noise
    made = schedule(3, 0, [4, 4], [1, 4], 2, "dense")
    assert made.b.tolist() == made.w.tolist() == made.parts.tolist() == [1, 0] and made.variance == (0, 1)


@few
@given(st.integers(1, 200), st.floats(0.01, 100), st.floats(0.001, 100), ratios, ratios)
def test_equal_workers_have_a_formula(n, h, tau, omega, ratio):
    A = (tau * omega + h * ratio) / n
    expected = max(h, tau, A + math.sqrt(A * A + 4 * tau * h * omega * ratio / n))
    assert equilibrium_seconds(omega, ratio, [h] * n, [tau] * n) == pytest.approx(expected)


@few
@given(ratios, ratios, workers, st.floats(0.01, 100))
def test_times_scale_and_do_not_depend_on_the_order_of_workers(omega, ratio, pairs, factor):
    h, tau = map(numpy.array, zip(*pairs, strict=True))
    t = equilibrium_seconds(omega, ratio, h, tau)
    assert equilibrium_seconds(omega, ratio, h[::-1], tau[::-1]) == pytest.approx(t, rel=1e-12)
    assert equilibrium_seconds(omega, ratio, factor * h, factor * tau) == pytest.approx(factor * t, rel=1e-12)
    more = equilibrium_seconds(omega, ratio, [*h, 5.0], [*tau, 0.01])
    assert more <= t * (1 + 1e-12)  # a worker more never costs time
    assert equilibrium_seconds(omega, ratio, h, tau, 2 * numpy.maximum(h, tau)) >= t


@pytest.mark.parametrize(
    ("omega", "ratio", "h", "tau", "said"),
    [
        (1, 1, [1, 0], [1, 1], "worker 2 takes 0 s for a gradient"),
        (1, 1, [1, 1], [0, 1], "worker 1 takes 0 s for a message"),
        (1, 1, [1, -1], [1, 1], "worker 2 takes -1 s for a gradient"),
        (1, 1, [1, 1], [1, math.nan], "worker 2 takes nan s for a message"),
        (1, 1, [1, math.inf], [math.inf, 1], "no worker has finite seconds"),
        (-1, 1, [1], [1], "omega = -1"),
        (1, math.inf, [1], [1], "noise_ratio = inf"),
    ],
)
def test_times_that_have_no_schedule_are_refused(omega, ratio, h, tau, said):
    with pytest.raises(InvalidInput, match=said):
        schedule(omega, ratio, h, tau)


def test_the_equilibrium_has_a_limit_where_links_or_gradients_take_no_time():
    assert equilibrium_seconds(5, 4, [1, 2], [0, 0]) == pytest.approx(8 / 1.5)  # as without compression
    assert equilibrium_seconds(3, 0, [0, 0], [1, 2]) == pytest.approx(4)
    assert equilibrium_seconds(5, 4, [0, 2], [0, 2]) == 0
    assert equilibrium_seconds(0, 4, [0, 2], [3, 2]) == 3  # alone the second needs 16 s
