"""Speeds that change: durations by hand, the work of a job between its beginning and its end, and what is refused."""

import math
from fractions import Fraction

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy import integrate

from mpibench.errors import InvalidInput
from mpibench.profiles import Equal, Exponential, Fixed, Linear, Sqrt
from mpibench.speeds import FORMS, ONE, Drifting, OnOff, Piecewise, Sinusoidal

SECOND = 10**9


def rng(key=0):
    return numpy.random.default_rng(key)


def job(speed, seconds=1.0, worker=1, workers=1):
    """(cost, begin in seconds) -> seconds of a job of a worker that needs `seconds` at factor 1."""
    duration = Equal(seconds, speed=speed).durations(worker, workers, rng())
    return lambda cost, begin=0.0: duration(cost, round(begin * SECOND)) / SECOND


def course(speed, worker=1, workers=1, key=0):
    return speed.of(worker, workers, lambda i: 1.0).path(rng(key))


# By hand.


def test_piecewise_by_hand():
    once = job(Piecewise(seconds=(10.0, 20.0), factors=(1.0, 0.25, 2.0)), seconds=2.0)
    assert once(1.0) == 2.0 and once(0.5, 3.0) == 1.0
    assert once(1.0, 8.0) == 2.0  # ends where the factor changes
    assert once(1.0, 9.0) == 1.0 + 4.0  # 1 s of work before the change, 1 s at a quarter
    assert once(1.0, 10.0) == 8.0
    assert once(1.0, 15.0) == 5.0 + 0.75 / 2  # 1.25 s of work before the second change
    assert once(4.0, 9.0) == 1.0 + 10.0 + (8.0 - 1.0 - 2.5) / 2  # across all three
    assert once(3.0, 1e6) == 3.0


def test_factors_of_zero_halt():
    once = job(Piecewise(seconds=(1.0, 4.0), factors=(1.0, 0.0, 1.0)))
    assert once(1.0, 0.0) == 1.0  # done before the halt
    assert once(1.0, 0.5) == 0.5 + 3.0 + 0.5
    assert once(1.0, 2.0) == 2.0 + 1.0  # begun in it
    never_at_first = job(Piecewise(seconds=(5.0,), factors=(0.0, 1.0)))
    assert never_at_first(2.0) == 7.0


def test_a_period_begins_again():
    once = job(Piecewise(seconds=(1.0, 2.0), factors=(1.0, 0.0, 2.0), period_seconds=4.0))  # 1 + 0 + 4 s of work
    assert once(1.0) == 1.0
    assert once(5.0) == 4.0 and once(5.0, 1.5) == 3.5 and once(5.0, 1.0) == 4.0
    assert once(17.0) == 3 * 4.0 + 1.0 + 1.0 + 0.5
    assert once(1.0, 4e6 + 0.5) == 0.5 + 1.0 + 0.25
    assert once(5e6 + 1.0) == 4e6 + 1.0  # many periods are one division
    assert once(5e6) == 4e6
    trailing = job(Piecewise(seconds=(1.0,), factors=(1.0, 0.0), period_seconds=3.0))
    assert [trailing(1.0), trailing(2.0), trailing(3.0)] == [1.0, 4.0, 7.0]  # ends before the halt, not after it


def test_rows_of_factors_go_to_groups_of_workers():
    speed = Piecewise(seconds=(), factors=((1.0,), (0.5,), (0.25,)))
    seconds = [job(speed, 1.0, i, 7)(1.0) for i in range(1, 8)]
    assert seconds == [1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert Linear(speed=speed).mean_seconds(3).tolist() == pytest.approx([1.0, 4.0, 12.0])


def test_on_off_by_hand():
    once = job(OnOff(on_seconds=3.0, off_seconds=2.0))
    assert [once(1.0, t) for t in (0.0, 2.0, 2.5, 3.0, 4.0, 5.0)] == [1.0, 1.0, 3.0, 3.0, 2.0, 1.0]
    assert once(3.0) == 3.0 and once(6.0) == 8.0 and once(9.5) == 15.5
    late = OnOff(on_seconds=3.0, off_seconds=2.0, phase=0.8)  # 4 s have passed: off for another second
    assert [job(late)(1.0, t) for t in (0.0, 1.0, 4.0)] == [2.0, 1.0, 3.0]
    staggered = OnOff(on_seconds=3.0, off_seconds=2.0, phase=0.8, staggered=True)
    assert [job(staggered, 1.0, i, 5)(1.0) for i in range(1, 6)] == [2.0, 1.0, 1.0, 1.0, 3.0]


def test_sinusoids_by_hand():
    amplitude, period = 0.5, 8.0
    once = job(Sinusoidal(amplitude=amplitude, period_seconds=period))
    excess = amplitude * period / math.pi  # of a half period in which it is fast
    assert once(4.0 + excess) == pytest.approx(4.0, abs=1e-9)
    assert once(4.0 - excess, 4.0) == pytest.approx(4.0, abs=1e-9)
    assert once(8.0, 1.23) == once(8e5, 1.23) / 1e5 == 8.0
    assert once(2.0 + excess / 2) == pytest.approx(2.0, abs=1e-9)
    assert once(80.0 + 2.0 + excess / 2, 16.0) == pytest.approx(82.0, abs=1e-9)
    quarter = job(Sinusoidal(amplitude=amplitude, period_seconds=period, phase=0.25))
    assert quarter(4.0) == pytest.approx(4.0, abs=1e-9)  # cos is even: as much faster as slower
    assert quarter(2.0 + excess / 2) == pytest.approx(2.0, abs=1e-9)
    shifted = Sinusoidal(amplitude=amplitude, period_seconds=period, staggered=True)
    assert job(shifted, 1.0, 3, 4)(4.0 - excess) == pytest.approx(4.0, abs=1e-9)
    assert job(Sinusoidal(amplitude=0.0, period_seconds=1.0))(2.5, 0.3) == 2.5


def test_linear_drift_by_hand():
    once = job(Drifting(span_seconds=10.0, end=3.0))  # work t + t²/10, 20 s of it until 10
    assert once(20.0) == 10.0 and once(23.0) == 11.0
    assert once(2.4) == 2.0  # 2 + 4/10
    assert once(5.6 - 2.4, 2.0) == 2.0  # 4 + 16/10
    assert once(20.0 + 3.0 - 5.6, 4.0) == 7.0 and once(3.0, 1e6) == 1.0
    slower = job(Drifting(span_seconds=10.0, start=2.0, end=0.5))  # 2 t - 0.075 t²
    assert slower(3.7) == pytest.approx(2.0, abs=1e-9) and slower(12.5) == 10.0 and slower(13.0) == 11.0
    assert job(Drifting(span_seconds=10.0, start=0.5, end=0.5))(2.0, 9.0) == 4.0


def test_geometric_drift_by_hand():
    once = job(Drifting(span_seconds=10.0, end=4.0, geometric=True))  # work 10 (4^(t/10) - 1) / ln 4
    assert once(10 / math.log(4)) == pytest.approx(5.0, abs=1e-9)
    assert once(20 / math.log(4), 5.0) == pytest.approx(5.0, abs=1e-9)
    assert once(30 / math.log(4) + 8.0) == pytest.approx(12.0, abs=1e-9)
    slower = job(Drifting(span_seconds=10.0, end=0.25, geometric=True))
    assert slower(5 / math.log(4)) == pytest.approx(5.0, abs=1e-9)
    assert job(Drifting(span_seconds=10.0, start=2.0, end=2.0, geometric=True))(3.0) == 1.5


def test_fast_and_slow_workers_change_places():
    speed = Drifting(span_seconds=100.0, end="mirrored")
    profile = Linear(speed=speed)
    assert profile.mean_seconds(4) == pytest.approx([4.0, 3.0, 2.0, 1.0])  # in the long run
    for worker, first, last in ((1, 1.0, 4.0), (2, 2.0, 3.0), (4, 4.0, 1.0)):
        rate = profile.rate(worker, 4)
        assert [1 / rate(0.0), 1 / rate(1e4)] == pytest.approx([first, last])
        assert rate(50.0) == pytest.approx((1 / first + 1 / last) / 2)
        assert profile.durations(worker, 4, rng())(1.0, 100 * SECOND) == pytest.approx(last * SECOND, abs=5)
    each = Drifting(span_seconds=100.0, start=(1.0, 2.0), end=(0.5, 4.0))
    assert Fixed((1.0, 1.0), speed=each).mean_seconds(2).tolist() == pytest.approx([2.0, 0.25])
    assert Fixed((1.0, 1.0), speed=each).rate(2, 2)(0.0) == 2.0


# What holds for all.

seconds = st.integers(1, 10**13).map(lambda ns: ns / 1e9)  # up to 10,000 s
factors = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
positive = st.floats(1e-2, 1e2)


@st.composite
def piecewise(draw):
    instants = sorted(draw(st.sets(st.integers(1, 10**13), max_size=5)))
    period = draw(st.none() | st.integers(1, 10**13))
    row = [*draw(st.lists(factors, min_size=len(instants), max_size=len(instants))), draw(positive)]
    end = None if period is None else ((instants or [0])[-1] + period) / 1e9
    return Piecewise(seconds=tuple(ns / 1e9 for ns in instants), factors=tuple(row), period_seconds=end)


exact = st.one_of(
    piecewise(),
    st.builds(OnOff, on_seconds=seconds, off_seconds=seconds, phase=st.floats(0, 0.999), staggered=st.booleans()),
    st.builds(OnOff, on_seconds=st.floats(1.0, 1e4), off_seconds=seconds, random=st.just(True)),
    st.builds(Drifting, span_seconds=seconds, start=positive, end=positive),
)
smooth = st.one_of(
    st.builds(Sinusoidal, amplitude=st.floats(0, 0.9), period_seconds=seconds, phase=st.floats(0, 0.999)),
    st.builds(Drifting, span_seconds=seconds, start=positive, end=positive, geometric=st.just(True)),
)
begins = st.integers(0, 10**14)
works = st.integers(1, 10**13).map(lambda ns: ns / 1e9)


@settings(deadline=None, max_examples=200)
@given(st.one_of(exact, smooth), begins, works)
def test_the_integral_from_begin_to_end_is_the_work_of_the_job(speed, begin, work):
    path = course(speed, 2, 3)
    units = round(work * 1e9) * ONE
    duration = path.duration(work, begin)
    assert type(duration) is int and duration >= 1
    # the end is the nearest nanosecond: one before it the work is not done, one after it there is more
    before, after = path.work(begin + duration - 1), path.work(begin + duration + 1)
    assert before - path.work(begin) <= units or duration == 1
    assert after - path.work(begin) >= units


@settings(deadline=None, max_examples=200)
@given(st.one_of(exact, smooth), begins, st.integers(0, 10**4) | begins, works)
def test_who_begins_later_ends_no_earlier_and_more_work_takes_no_less(speed, begin, later, work):
    path = course(speed, 2, 3)
    early, late = path.duration(work, begin), path.duration(work, begin + later)
    assert begin + early <= begin + later + late
    assert early <= path.duration(work * 1.25, begin)


@settings(deadline=None, max_examples=100)
@given(piecewise(), begins, works)
def test_steps_are_exact(speed, begin, work):
    """Against sums of fractions, step by step."""
    path, todo, t = course(speed), Fraction(round(work * 1e9)), begin
    starts = [0, *(round(s * 1e9) for s in speed.seconds)]
    period = round(speed.period_seconds * 1e9) if speed.period_seconds else None
    rates = [Fraction(round(f * ONE), ONE) for f in speed.factors]
    for _ in range(300):
        u = t % period if period else t
        j = max(k for k, start in enumerate(starts) if start <= u)
        ends = [*starts[1:], period]
        if ends[j] is None or todo <= rates[j] * (ends[j] - u):
            break
        todo -= rates[j] * (ends[j] - u)
        t += ends[j] - u
    else:
        return  # many periods: the laws above hold for them
    end = t + todo / rates[j] if rates[j] else t
    assert begin + path.duration(work, begin) == max(begin + 1, math.floor(end + Fraction(1, 2)))


@settings(deadline=None, max_examples=50)
@given(st.one_of(exact, smooth), st.lists(st.tuples(begins, works), min_size=2, max_size=6))
def test_a_job_takes_the_same_whatever_was_asked_before(speed, jobs):
    path, other = course(speed, 1, 2, key=5), course(speed, 1, 2, key=5)
    forwards = [path.duration(work, begin) for begin, work in jobs]
    assert [other.duration(work, begin) for begin, work in reversed(jobs)] == forwards[::-1]


@pytest.mark.parametrize(
    "speed",
    [
        Piecewise(seconds=(3.0, 7.5), factors=(1.0, 0.25, 2.0), period_seconds=11.0),
        Sinusoidal(amplitude=0.9, period_seconds=7.0, phase=0.4, staggered=True),
        OnOff(on_seconds=3.0, off_seconds=2.0, phase=0.3, staggered=True),
        OnOff(on_seconds=3.0, off_seconds=2.0, random=True),
        Drifting(span_seconds=30.0, start=2.0, end=0.25),
        Drifting(span_seconds=30.0, start=0.5, end=3.0, geometric=True),
        Drifting(span_seconds=30.0, end="mirrored"),
    ],
)
def test_the_work_is_the_integral_of_the_rate(speed):
    profile = Sqrt(2.0, speed=speed)
    for worker in (1, 3):
        rate, work = profile.rate(worker, 4), profile.work(worker, 4)
        times = numpy.linspace(0.0, 40.0, 40_001)
        sums = integrate.cumulative_trapezoid([rate(t) for t in times], times, initial=0.0)
        assert [work(t) for t in times[::4000]] == pytest.approx(sums[::4000], abs=5e-3)
        path = course(speed, worker, 4)
        sums = integrate.cumulative_trapezoid([path.factor(round(t * 1e9)) for t in times], times, initial=0.0)
        if speed.form != "drifting":
            assert [path.work(round(t * 1e9)) / ONE / 1e9 for t in times[::4000]] == pytest.approx(
                sums[::4000], abs=0.02
            )


@pytest.mark.parametrize("speed", [OnOff(on_seconds=3.0, off_seconds=1.0, random=True)])
def test_random_halts_differ_by_generator_and_are_stationary(speed):
    one, same, other = (course(speed, key=key) for key in (1, 1, 2))
    instants = [k * SECOND // 2 for k in range(200)]
    assert [one.factor(t) for t in instants] == [same.factor(t) for t in reversed(instants)][::-1]
    assert [one.factor(t) for t in instants] != [other.factor(t) for t in instants]
    for instant in (0, 10 * SECOND):  # on with probability 3/4 at any time
        on = sum(course(speed, key=key).factor(instant) for key in range(2000)) / 2000
        assert abs(on - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 2000)
    path, lengths = course(speed, key=3), []
    path.work(20_000 * SECOND)
    lengths = numpy.diff(path.starts) / 1e9
    on, off = lengths[path.first_off :: 2], lengths[1 - path.first_off :: 2]
    assert abs(on.mean() - 3.0) < 5 * 3.0 / math.sqrt(len(on)) and abs(off.mean() - 1.0) < 5 / math.sqrt(len(off))


def test_jobs_in_a_row_take_the_mean_of_the_long_run():
    for speed in (
        Piecewise(seconds=(3.0, 7.5), factors=(1.0, 0.25, 2.0), period_seconds=11.0),
        Sinusoidal(amplitude=0.9, period_seconds=7.0),
        OnOff(on_seconds=3.0, off_seconds=2.0),
        Drifting(span_seconds=30.0, start=0.5, end=3.0),
    ):
        profile = Exponential(speed=speed)
        following, now = profile.durations(1, 1, rng(6)), 0
        for _ in range(20_000):
            now += following(1.0, now)
        assert now / 1e9 / 20_000 == pytest.approx(profile.mean_seconds(1)[0], rel=5 / math.sqrt(20_000))


# What is refused.


@pytest.mark.parametrize(
    ("cls", "table"),
    [(Sinusoidal, {"amplitude": a, "period_seconds": 1.0}) for a in (-0.1, 1.0, math.nan)]
    + [(Sinusoidal, {"amplitude": 0.5, "period_seconds": p}) for p in (0.0, -1.0, math.inf)]
    + [(OnOff, {"on_seconds": a, "off_seconds": b}) for a, b in ((0.0, 1.0), (1.0, 0.0), (math.nan, 1.0))]
    + [(OnOff, {"on_seconds": 1.0, "off_seconds": 1.0, "phase": p}) for p in (-0.1, 1.0)]
    + [(Drifting, {"span_seconds": s, "end": e}) for s, e in ((0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, "swap"))]
    + [(Piecewise, {"seconds": [1.0], "factors": f}) for f in ([1.0, -1.0], [1.0, 1e7], [1.0, math.nan])]
    + [(Piecewise, {"seconds": [0.0], "factors": [1.0, 1.0]})],
)  # fmt: skip
def test_impossible_numbers_are_out_of_range(cls, table):
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(table)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Piecewise(seconds=(1.0,), factors=(1.0, 0.0)), "halt a worker for ever"),
        (lambda: Piecewise(seconds=(1.0,), factors=(0.0, 0.0), period_seconds=2.0), "halt a worker for ever"),
        (lambda: Piecewise(seconds=(1.0,), factors=((1.0, 1.0), (1.0, 0.0))), "halt a worker for ever"),
        (lambda: Piecewise(seconds=(1.0,), factors=(1.0,)), "1 factors for 1 changes; give one more"),
        (lambda: Piecewise(seconds=(), factors=()), "0 factors for 0 changes; give one more"),
        (lambda: Piecewise(seconds=(2.0, 2.0), factors=(1.0, 1.0, 1.0)), "must rise"),
        (lambda: Piecewise(seconds=(2.0, 1.0), factors=(1.0, 1.0, 1.0)), "must rise"),
        (lambda: Piecewise(seconds=(2.0,), factors=(1.0, 1.0), period_seconds=2.0), "less than period_seconds"),
        (lambda: Piecewise(seconds=(2.0,), factors=(1.0, 1e-7)), "must be 0 or at least 1e-06"),
        (lambda: OnOff(on_seconds=1.0, off_seconds=1.0, phase=0.5, random=True), "leave out phase and staggered"),
        (lambda: OnOff(on_seconds=1.0, off_seconds=1.0, staggered=True, random=True), "leave out phase and staggered"),
        (
            lambda: Equal(speed=Piecewise(seconds=(), factors=((1.0,), (1.0,)))).mean_seconds(1),
            "2 rows of factors for 1 workers",
        ),
        (
            lambda: Equal(speed=Drifting(span_seconds=1.0, end=(1.0, 2.0))).mean_seconds(3),
            "2 factors in `end` for 3 workers",
        ),
        (
            lambda: Fixed((1e-3, 1e6), speed=Drifting(span_seconds=1.0, end="mirrored")).mean_seconds(2),
            "changes the speed of worker 1 by a factor of 1e-09",
        ),
        (
            lambda: Equal(1e3, speed=OnOff(on_seconds=1e-3, off_seconds=1.0, random=True)).mean_seconds(1),
            "halts worker 1 more than 100000 times in a gradient of 1000 seconds",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(make, words):
    with pytest.raises(InvalidInput) as refusal:
        make()
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_forms_have_their_names():
    assert FORMS == ("piecewise", "sinusoidal", "on_off", "drifting")
