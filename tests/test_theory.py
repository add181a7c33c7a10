"""The papers' bounds by their printed and by hand-computed figures, and event counts against counting one by one."""

import itertools
import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpibench import event_counts, theory

H = [1.0, 2.0, 4.0, 8.0]
UNIT = (1.0, 1.0, 1.0, 0.1)  # L, D, σ², ε
speeds = st.lists(st.integers(1, 60), min_size=1, max_size=7)  # in nanoseconds: full of ties
few = settings(deadline=None, max_examples=200)

# Times to a target.


def test_the_printed_figures():
    assert theory.minibatch_seconds(H, *UNIT) == pytest.approx(280)
    assert theory.m_sync_seconds(H, *UNIT) == (pytest.approx(110), 1)
    assert theory.asgd_seconds(H, *UNIT) == pytest.approx(74.6667, abs=5e-5)
    assert theory.rennala_seconds(H, *UNIT) == (pytest.approx(74.2857, abs=5e-5), 3)
    assert theory.malenia_seconds(H, *UNIT) == pytest.approx(173.75)


def test_bounds_do_not_depend_on_the_order_of_workers():
    for bound in (theory.minibatch_seconds, theory.m_sync_seconds, theory.rennala_seconds, theory.malenia_seconds):
        assert bound([4, 8, 1, 2], *UNIT) == bound(H, *UNIT)


def test_one_worker_is_a_worker_alone():
    alone = theory.single_seconds(3.0, 2.0, 5.0, 0.7, 0.1)  # 3 * 100 * 8
    assert alone == pytest.approx(2400)
    case = ([3.0], 2.0, 5.0, 0.7, 0.1)
    assert theory.minibatch_seconds(*case) == pytest.approx(alone)
    assert theory.m_sync_seconds(*case) == (pytest.approx(alone), 1)
    assert theory.asgd_seconds(*case) == pytest.approx(alone)
    assert theory.rennala_seconds(*case) == (pytest.approx(alone), 1)
    assert theory.malenia_seconds(*case) == pytest.approx(alone)


@few
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30), st.floats(0, 1000))
def test_who_is_faster_than_whom(h, ratio):
    case = (h, 1.0, 1.0, ratio, 1.0)
    (optimal, useful), (m_sync, quorum) = theory.rennala_seconds(*case), theory.m_sync_seconds(*case)
    assert optimal <= min(theory.asgd_seconds(*case), m_sync) * (1 + 1e-9)
    assert m_sync <= theory.minibatch_seconds(*case) * (1 + 1e-9)
    assert max(theory.asgd_seconds(*case), optimal) <= theory.malenia_seconds(*case) * (1 + 1e-9)
    # the best m is within a harmonic number of the optimum, which is tight for h_i = i
    assert m_sync <= theory.m_sync_excess(useful) * optimal * (1 + 1e-9)
    assert theory.useful_workers(h, ratio, 1.0) == useful and theory.quorum(h, ratio, 1.0) == quorum


def test_the_excess_of_m_sync_is_attained_where_worker_i_takes_i():
    h = numpy.arange(1.0, 11)
    assert theory.harmonic_number(4) == pytest.approx(25 / 12)
    assert theory.m_sync_excess(10) <= 1 + math.log(10)
    assert theory.m_sync_seconds(h, 1, 1, 1e9, 1)[0] == pytest.approx(
        theory.m_sync_excess(10) * theory.rennala_seconds(h, 1, 1, 1e9, 1)[0]
    )


# With links.

d, ω = 100, 99.0  # one coordinate a message
UP = numpy.array([10.0, 20, 40, 80])  # seconds of a vector
SEND = UP / d


def test_the_cost_table_of_links_by_hand():
    case = (2.0, 5.0, 4.0, 0.1)  # LD/eps = 100, σ²/eps = 40, n = 4
    assert theory.linked_minibatch_seconds(H, UP, *case) == pytest.approx(88 * 100 * 11)
    assert theory.qsgd_seconds(H, SEND, ω, *case) == pytest.approx(8.8 * 100 * (25.75 + 1000))
    assert theory.linked_asgd_seconds(H, UP, *case) == pytest.approx(4 / (1.875 / 11) * 100 * 11)
    # 80 / (1/1 + 1/2 + 1/4) = 45.7 with the first three, 42.7 with all, but then 80 s for a vector
    assert theory.linked_rennala_seconds(H, UP, *case) == pytest.approx(100 * 80 / 1.75)
    assert theory.linked_rennala_seconds(H, 0 * UP, *case) == pytest.approx(100 * 80 / 1.875)
    assert theory.sgd_one_seconds(H, *case) == pytest.approx(1 * 100 * 41)
    # alone the first has s² = (2 τω + 2 * 40) s + 4 τω * 40
    a = theory.shadowheart_seconds([1.0], [0.1], ω, *case)
    assert a == pytest.approx(100 * (99.8 + math.sqrt(99.8**2 + 4 * 1584)) / 2)
    assert theory.shadowheart_seconds(H, SEND, ω, *case) < a


def test_equal_workers_with_links():
    case = (1.0, 1.0, 4.0, 0.1)
    t = theory.equal_equilibrium_seconds(5, 2.0, 0.1, ω, 40.0)  # A = (9.9 + 80)/5
    assert t == pytest.approx(17.98 + math.sqrt(17.98**2 + 4 * 0.1 * 2 * ω * 8))
    assert theory.shadowheart_seconds([2.0] * 5, [0.1] * 5, ω, *case) == pytest.approx(10 * t)
    order = max(2, 0.1, 9.9 / 5, 16, math.sqrt(0.1 * 2 * ω * 8))
    assert order <= t <= 5 * order
    # h (1 + 8) + 0.1 (20 + 1) + sqrt(100 * 0.1 * 2 * 8), 3 s for a vector down
    assert theory.batch_qsgd_seconds(5, d, 2.0, 0.1, *case) == pytest.approx(10 * (18 + 2.1 + math.sqrt(160)))
    assert theory.batch_qsgd_seconds(5, d, 2.0, 0.1, *case, down=0.03) == pytest.approx(10 * (23.1 + math.sqrt(160)))
    assert theory.two_way_lower_seconds(5, d, 2.0, 0.03, *case) == pytest.approx(10 * (2 * 9 + 3))
    assert theory.two_way_lower_seconds(5, d, 2.0, 3.0, *case) == pytest.approx(10 * 2 * 41)


@few
@given(st.lists(st.tuples(*[st.floats(0.01, 100)] * 3), min_size=1, max_size=6), st.floats(1, 100), st.floats(0, 1000))
def test_compression_gains_nothing_once_the_way_down_is_as_slow_as_the_way_up(workers, factor, ratio):
    h, up, down = map(numpy.array, zip(*workers, strict=True))
    assert theory.compression_gain(h, up, numpy.maximum(up, down), up / factor, factor - 1, ratio, 1.0) <= 1 + 1e-9
    free = theory.compression_gain(h, up, 0 * down, up / factor, factor - 1, ratio, 1.0)
    assert free >= 1 / 5  # nor loses more than a constant


def test_compression_gains_where_the_way_up_is_slow_and_the_way_down_is_not():
    h, up = numpy.ones(100), numpy.full(100, 1000.0)
    gain = theory.compression_gain(h, up, 0 * up, up / d, ω, 1e3, 1.0)
    assert gain == pytest.approx(1000 / theory.equal_equilibrium_seconds(100, 1.0, 10.0, ω, 1e3))
    assert gain > 2 and theory.compression_gain(h, up, 1e-3 * up, up / d, ω, 1e3, 1.0) == pytest.approx(gain)


# Parameters and numbers of updates.


@pytest.mark.parametrize(("s2", "eps", "S"), [(0.0, 0.1, 1), (0.05, 0.1, 1), (1.0, 0.5, 2), (1.0, 0.3, 4)])
def test_batches_and_thresholds(s2, eps, S):
    assert theory.batch(s2, eps) == theory.threshold(s2, eps) == S
    assert theory.malenia_batch(3, s2, eps) == max(S, 3)


def test_stepsizes_by_hand():
    assert theory.batch_stepsize(4, L=2.0, s2=1.0, eps=0.5) == 0.25  # b eps/σ² = 2
    assert theory.batch_stepsize(1, L=2.0, s2=1.0, eps=0.5) == 0.125
    assert theory.batch_stepsize(1, L=2.0, s2=0.0, eps=0.5) == 0.25
    assert theory.ringmaster_stepsize(5, L=2.0, s2=1.0, eps=0.5) == 0.05  # 1/(2RL) = 1/20, eps/(4Lσ²) = 1/16
    assert theory.ringmaster_stepsize(3, L=2.0, s2=1.0, eps=0.5) == 0.0625
    assert theory.ringmaster_stepsize(3, L=2.0, s2=0.0, eps=0.5) == pytest.approx(1 / 12)
    # h = 1, 2, 4, 8: h_n / (2 mean(h)) = 8/7.5
    assert theory.ringleader_counts(H) == pytest.approx(8 / 7.5) and theory.ringleader_counts([1.0, 1.0]) == 1
    assert theory.ringleader_stepsize(H, L=2.0, s2=0.1, eps=0.5) == pytest.approx(1 / 64)
    assert theory.ringleader_stepsize(H, L=2.0, s2=10.0, eps=0.5) == pytest.approx(0.5 * (8 / 7.5) / 200)


def test_numbers_of_updates_are_those_of_the_theorems():
    L, D, s2, eps = 2.0, 3.0, 1.0, 0.25  # LD/eps = 24, σ²/eps = 4
    assert theory.updates(L, D, s2, eps, delay=5) == 8 * 5 * 24 + 16 * 4 * 24  # Ringmaster with R = 5
    assert theory.updates(L, D, s2, eps, batch=4) == 24 * 24  # Rennala with S = σ²/eps
    assert theory.updates(L, D, 0.0, 0.251) == math.ceil(8 * 6 / 0.251)


# Steps that all begin together.


def one_by_one(h, enough):
    """The least t at which the counts B_i = floor(t/h_i) are enough, over all instants at which one of them changes."""
    for t in sorted({j * x for x in h for j in range(1, 400)}):
        if enough([t // x for x in h]):
            return t
    raise AssertionError("never")


@few
@given(speeds, st.integers(1, 40))
def test_collecting_ends_when_counting_says_so(h, S):
    t = one_by_one(h, lambda B: sum(B) >= S)
    assert event_counts.collect_seconds(numpy.array(h) * 1e-9, S) == t / 1e9
    # the bound is for whole gradients too, and the step is not shorter than the mean rate allows
    assert S / sum(1 / x for x in h) <= t * (1 + 1e-12) and t <= theory.collect_bound(h, S) * (1 + 1e-12)


@few
@given(speeds, st.integers(1, 40))
def test_malenia_ends_when_counting_says_so(h, S):
    n = len(h)

    def enough(B):  # in whole numbers
        product = math.prod(B)
        return product > 0 and n * n * product >= S * sum(product // b for b in B)

    t = one_by_one(h, enough)
    assert event_counts.malenia_step_seconds(numpy.array(h) * 1e-9, S) == t / 1e9
    assert max(h) <= t <= theory.malenia_bound(h, max(S, n)) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("h", "S", "seconds"),
    [
        ([1, 2, 3], 1, 1),
        ([1, 2, 3], 2, 2),  # 2, 1, 0: three at once
        ([1, 2, 3], 3, 2),
        ([1, 2, 3], 4, 3),
        ([0.1, 0.2, 0.3], 6, 0.4),  # 4, 2, 1: at 0.3, which floats miss by rounding, there are only 5
        ([0.1, 0.3], 4, 0.3),
        ([5], 7, 35),
    ],
)
def test_collecting_by_hand(h, S, seconds):
    assert event_counts.collect_seconds(h, S) == seconds


@pytest.mark.parametrize(
    ("h", "S", "seconds"),
    [
        ([1, 2], 1, 2),  # everybody has one
        ([1, 2], 2, 2),  # counts 2, 1: 4 >= 2 * 1.5
        ([1, 2], 3, 3),  # at 2: 4 < 4.5; at 3: counts 3, 1, and 4 = 3 * 4/3 is enough
        ([1, 2], 4, 4),  # at 3: 4 < 4 * 4/3
        ([0.1, 0.1, 0.1], 9, 0.3),  # equality with thirds
    ],
)
def test_malenia_by_hand(h, S, seconds):
    assert event_counts.malenia_step_seconds(h, S) == seconds


def test_links_delay_first_gradients_only():
    # first gradients at 1.5 and 4, then every 1 and 2 seconds: 1.5 2.5 3.5 4 4.5 5.5 6
    ends = [event_counts.collect_seconds([1, 2], S, first=[1.5, 4]) for S in range(1, 8)]
    assert ends == [1.5, 2.5, 3.5, 4, 4.5, 5.5, 6]
    assert event_counts.malenia_step_seconds([1, 2], 1, first=[1.5, 4]) == 4
    # at 4: counts 3, 1; at 6: 5, 2, and 4 >= 5 * 0.7
    assert event_counts.malenia_step_seconds([1, 2], 5, first=[1.5, 4]) == 6


def test_ten_thousand_workers_and_gradients():
    h = numpy.sqrt(numpy.arange(1, 10_001))
    t = event_counts.collect_seconds(h, 10_000)
    period = numpy.rint(h * 1e9).astype(int)
    now = round(t * 1e9)
    assert (now // period).sum() >= 10_000 > ((now - 1) // period).sum()


def test_bounds_of_steps_by_hand():
    # min (S + m) / Σ: S = 3: 4/1, 5/1.5, 6/1.75, 7/1.875
    assert theory.collect_bound(H, 3) == pytest.approx(10 / 3)
    assert theory.ringmaster_bound(H, 3) == pytest.approx(20 / 3)
    assert theory.malenia_bound(H, 8) == 2 * (8 + 3.75 * 2)
    assert theory.ringleader_bound(H) == 16


# Speeds that change.


@few
@given(speeds, st.integers(1, 40), st.floats(0, 50))
def test_constant_speeds_are_a_special_case_of_changing_ones(h, S, start):
    seconds = numpy.array(h, float)
    work = lambda begin, end: (end - begin) / seconds  # noqa: E731
    collect = event_counts.collect_seconds(seconds, S)
    assert theory.rennala_step_end(work, S, start) - start == pytest.approx(collect, rel=1e-9)
    malenia = event_counts.malenia_step_seconds(seconds, S)
    assert theory.malenia_step_end(work, S, start) - start == pytest.approx(malenia, rel=1e-9)


def test_a_step_over_a_change_of_speed_by_hand():
    # worker 1 makes a gradient a second until 10, then none; worker 2 one every 4 seconds
    work = lambda begin, end: numpy.array([min(end, 10.0) - min(begin, 10.0), (end - begin) / 4])  # noqa: E731
    assert theory.rennala_step_end(work, 3, start=0.0) == pytest.approx(3)
    assert theory.rennala_step_end(work, 3, start=8.0) == pytest.approx(12)  # 9, 10, 12
    assert theory.rennala_step_end(work, 2, start=10.0) == pytest.approx(18)
    # of R = 2 updates at the latest: floors of quarters, worker 1 has 4 seconds of work left and worker 2 needs 16 each
    assert theory.rennala_step_end(work, 2, start=6.0, share=1 / 4) == pytest.approx(22)
    assert theory.malenia_step_end(work, 1, start=8.0) == pytest.approx(12)
    # S = 3 needs 4 >= 3 (1/N_1 + 1/N_2): with N_1 = 2 that is N_2 = 2
    assert theory.malenia_step_end(work, 3, start=8.0) == pytest.approx(16)
    assert theory.malenia_step_end(work, 1, start=9.5) == math.inf  # worker 1 never ends another gradient


# Update instants, by hand. Two workers of 2 and 3 seconds report at 2 3 4 6 6 8 9 10 12 12 ...


def instants(method, h, count, *arguments):
    """The first update instants of a method of `event_counts`, with workers of fixed whole seconds."""
    workers = event_counts.Workers([lambda now, x=x: x for x in h])
    return list(itertools.islice(method(workers, *arguments), count))


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        (event_counts.asynchronous, (), [2, 3, 4, 6, 6, 8]),
        # delay 0 only: worker 2's gradients are old at 3, 6 (after worker 1's at 6) and 9
        (event_counts.asynchronous, (lambda delay: delay < 1,), [2, 4, 6, 8, 10]),
        (event_counts.m_sync, (2, False), [3, 6, 9]),
        # worker 2 is late at 3, gets the point of 2, is late again at 6: worker 1 makes all steps
        (event_counts.m_sync, (1, False), [2, 4, 6]),
        (event_counts.m_sync, (1, True), [2, 4, 6]),
        (event_counts.rennala, (3, True), [4, 8, 12]),
        # the step from 4: worker 1 at 6 and 8; worker 2's gradient of 6 began at 3, that of 9 counts
        (event_counts.rennala, (3, False), [4, 9]),
        (event_counts.malenia, (1, True), [3, 6, 9]),
        # after 3 worker 1's gradient of 4 is late and that of 6 counts; after 6 that of 8 is late and that of 10 counts
        (event_counts.malenia, (1, False), [3, 6, 10]),
        (event_counts.ringmaster, (1, False), [2, 4, 6, 8]),
        (event_counts.ringmaster, (1, True), [2, 4, 6, 8]),
        # R = 2: worker 2 at 3 (delay 1), then 1 at 4; at 6 worker 1 has delay 0, worker 2 delay 2 is too old
        (event_counts.ringmaster, (2, False), [2, 3, 4, 6, 8]),
        # table complete at 3, which makes no update
        (event_counts.ia2, (), [4, 6, 6, 8, 9]),
        # phase 1 ends at 3, where worker 2 makes the update, worker 1 at 4; the next at 6, worker 2 again, then 1 at 8
        (event_counts.ringleader, (), [3, 4, 6, 8]),
        (event_counts.fedbuff, (2, math.inf), [3, 6, 8, 10]),
    ],
)
def test_update_instants_by_hand(method, arguments, expected):
    assert instants(method, [2, 3], len(expected), *arguments) == expected


def test_workers_report_in_the_order_of_time_and_number():
    workers = event_counts.Workers(
        [lambda now, x=x: x for x in (2, 3, 1)], up=[1, 0, 0], down=[0, 0, 4], brief=[0, 0, 2]
    )
    workers.start_all()
    reports = iter(workers)
    assert [next(reports) for _ in range(2)] == [(3, 0), (3, 1)]  # 2 + 1, 3
    workers.go_on(0, 3)  # began at 2
    assert next(reports) == (5, 0)  # before worker 2, whose job begins at 4
    workers.start(1, 5)
    assert next(reports) == (5, 2)
    workers.carry_on(2, 5)
    workers.start(1, 6)  # what was begun at 5 is given up
    assert [next(reports) for _ in range(2)] == [(8, 2), (9, 1)]
    assert next(reports, None) is None


def test_counting_ends():
    endless = lambda **limits: event_counts.asynchronous(event_counts.Workers([lambda now: 5], **limits))  # noqa: E731
    assert list(endless(most=4)) == [5, 10, 15]
    assert list(endless(until=20)) == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("ns", "seconds"),
    [
        ([], None),
        ([7], 7e-9),
        ([7, 7, 7], 7e-9 / 3),
        ([7, 15], 7.5e-9),
        ([10, 20, 30, 40, 50], 10e-9),
        ([1, 20, 30, 40, 50], 10e-9),  # the first quarter is left out
        ([10, 10, 20, 20, 30, 30, 40], 5e-9),  # two at once; of those at 40 the second may be missing
    ],
)
def test_the_mean_time_of_an_update(ns, seconds):
    assert event_counts.seconds_per_update(ns) == (seconds and pytest.approx(seconds))
