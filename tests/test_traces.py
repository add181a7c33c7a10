"""Runs of the server methods written out by hand, their special cases, and an independent reference for all of them.

By hand: one dimension, f(x) = x^2/2, so that a stochastic gradient is the point it is computed at, and a start and a
stepsize with which all numbers are exact. A row is (seconds, source, staleness, point after the update).
"""

import math
from heapq import heappop, heappush

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import NEVER, Toy, toy_cell

from mpibench.problems.quadratic import Quadratic
from mpibench.runner import simulate

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=40)
RULES = ("constant", "delay_adaptive", "drop", "drop_counted")


def run(name, parameters, seconds, updates=5, **more):
    """The Result of a toy in virtual time."""
    return simulate(toy_cell(name, parameters, seconds, stop={"updates": updates}, **more), seed=0)


def rows(result):
    """(seconds, source, staleness, point) of every update."""
    columns = [result.updates[name] for name in ("time", "source", "staleness")]
    return list(zip(*map(list, columns), result.trace["x0"][1:].tolist(), strict=True))


def same(one, other):
    """Whether two runs have the same updates and points, bit for bit."""
    return rows(one) == rows(other) and numpy.array_equal(one.trace["time"], other.trace["time"])


# By hand.


def test_minibatch_by_hand():
    result = run("minibatch_sgd", {"stepsize": 0.5}, [3, 2])
    # the message of worker 1, the slower one, triggers every update
    assert rows(result) == [(3, 1, 0, 32), (6, 1, 0, 16), (9, 1, 0, 8), (12, 1, 0, 4), (15, 1, 0, 2)]
    assert result.ranks["used"].tolist() == [0, 5, 5]


def test_minibatch_by_hand_with_links():
    # down 0.25 s, then 3 s or 2 s, then up 0.5 s: 3.75 s a step
    links = {"vector_seconds": 0.5, "down": {"vector_seconds": 0.25}}
    result = run("minibatch_sgd", {"stepsize": 0.5}, [3, 2], links=links)
    assert [row[0] for row in rows(result)] == [3.75, 7.5, 11.25, 15.0, 18.75]
    assert [row[3] for row in rows(result)] == [32, 16, 8, 4, 2]
    assert result.updates["staleness_seconds"].tolist() == [3.75] * 5


def test_asynchronous_by_hand():
    result = run("async_sgd", {"stepsize": 0.25}, [2, 3])
    assert rows(result) == [
        (2, 1, 0, 48),  # 64 - 64/4
        (3, 2, 1, 32),  # 48 - 64/4: computed at x^0
        (4, 1, 1, 20),  # 32 - 48/4: computed at x^1
        (6, 1, 0, 15),  # 20 - 20/4: computed at x^3; at one instant the lower rank is first
        (6, 2, 2, 7),  #  15 - 32/4: computed at x^2
    ]
    assert result.updates["staleness_seconds"].tolist() == [2, 3, 2, 2, 3]
    assert result.updates["staleness_histogram"].tolist() == [2, 2, 1]
    assert result.attrs["seconds"] == 6


BY_RULE = {  # worker 1 takes 1 s, worker 2 takes 4 s: its gradient comes with a delay of 4, and n = 2
    "constant": [(4, 2, 4, 17.0), (5, 1, 1, -3.25)],  # 81 - 256/4, 17 - 81/4
    "delay_adaptive": [(4, 2, 4, 49.0), (5, 1, 1, 28.75)],  # 81 - 256/8, 49 - 81/4
    "drop": [(5, 1, 0, 60.75), (6, 1, 0, 45.5625)],  # 81 - 81/4, 60.75 - 60.75/4
    "drop_counted": [(5, 1, 1, 60.75), (6, 1, 0, 45.5625)],  # the dropped one counts as an iteration
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rules_of_asynchronous_sgd_by_hand(rule):
    result = run("async_sgd", {"stepsize": 0.25, "rule": rule}, [1, 4], updates=6, toy=Toy(x=(256.0,)))
    start = [(1, 1, 0, 192), (2, 1, 0, 144), (3, 1, 0, 108), (4, 1, 0, 81)]
    assert rows(result) == start + BY_RULE[rule]
    dropped = rule.startswith("drop")
    assert result.ranks["used"].tolist() == [0, 6, 0] if dropped else [0, 5, 1]
    assert result.ranks["discarded"].tolist() == [0, 0, int(dropped)]
    # iterations: at the sixth update k = 6, or 7 where the dropped gradient is counted
    assert result.trace["iteration"].tolist() == [0, 1, 2, 3, 4, *((6, 7) if rule == "drop_counted" else (5, 6))]
    assert result.updates["staleness_histogram"][4] == 1


def test_asynchronous_by_hand_with_links():
    # the first points arrive at 0.25; worker 1 reports after 2 + 0.5 s and has its answer 0.25 s later
    links = {"vector_seconds": 0.5, "down": {"vector_seconds": 0.25}}
    result = run("async_sgd", {"stepsize": 0.25}, [2, 3], links=links)
    assert rows(result) == [
        (2.75, 1, 0, 48),  # next: 3.0 + 2.5
        (3.75, 2, 1, 32),  # next: 4.0 + 3.5
        (5.5, 1, 1, 20),  # 32 - 48/4; next: 5.75 + 2.5
        (7.5, 2, 1, 12),  # 20 - 32/4
        (8.25, 1, 1, 7),  # 12 - 20/4
    ]
    assert result.updates["staleness_seconds"].tolist() == [2.75, 3.75, 2.75, 3.75, 2.75]


RINGMASTER = {
    "R=1": [(2, 1, 0, 48), (4, 1, 0, 36), (6, 1, 0, 27), (8, 1, 0, 20.25), (10, 1, 0, 15.1875)],
    "R=2": [(2, 1, 0, 48), (3, 2, 1, 32), (4, 1, 1, 20), (6, 1, 0, 15), (8, 1, 0, 11.25), (9, 2, 1, 7.5)],
    "R=3": [(2, 1, 0, 48), (3, 2, 1, 32), (4, 1, 1, 20), (6, 1, 0, 15), (6, 2, 2, 7), (8, 1, 1, 3.25)],
}
DISCARDED = {"R=1": (0, 0, 3), "R=2": (0, 0, 1), "R=3": (0, 0, 0)}  # at 3, 6 and 9; at 6; never
STOPS = {"R=1": 5, "R=2": 1, "R=3": 0}  # worker 2 at every update; at 6, when its job would have ended; never


@pytest.mark.parametrize("stop_stale", [False, True])
@pytest.mark.parametrize("R", RINGMASTER)
def test_ringmaster_by_hand(R, stop_stale):
    # workers of 2 s and 3 s: stopped or discarded, the same updates
    expected = RINGMASTER[R]
    parameters = {"stepsize": 0.25, "threshold": int(R[-1]), "stop_stale": stop_stale}
    result = run("ringmaster", parameters, [2, 3], updates=len(expected))
    assert rows(result) == expected
    n, accepted = 2, len(expected)
    if stop_stale:
        assert result.ranks["discarded"].tolist() == [0, 0, 0]
        assert result.ranks["messages_sent"][0] == n + accepted + STOPS[R]
    else:
        assert tuple(result.ranks["discarded"]) == DISCARDED[R]
        assert result.ranks["messages_sent"][0] == n + accepted + sum(DISCARDED[R])


def test_ringmaster_stops_three_workers_by_hand():
    parameters = {"stepsize": 0.25, "threshold": 3, "stop_stale": True}
    result = run("ringmaster", parameters, [2, 3, 7], updates=6)
    assert rows(result) == [
        (2, 1, 0, 48),  # 64 - 64/4
        (3, 2, 1, 32),  # 48 - 64/4
        (4, 1, 1, 20),  # 32 - 48/4; worker 3 at x^0 is 3 behind and restarts at x^3
        (6, 1, 0, 15),  # 20 - 20/4
        (6, 2, 2, 7),  # 15 - 32/4
        (8, 1, 1, 3.25),  # 7 - 15/4; worker 3 at x^3 is 3 behind and restarts at x^6
    ]
    assert result.ranks["messages_sent"].tolist() == [3 + 6 + 2, 4, 2, 0]
    assert result.ranks["gradients"].tolist() == [0, 4, 2, 0]


def test_a_stale_gradient_that_was_under_way_is_dropped_and_not_answered():
    # links of 0.5 s both ways and R = 1: worker 1 reports at 0.5 + 2 and is heard at 3.0; x^1 reaches both at 3.5, but
    # worker 2 has reported at 0.5 + 2.25 and is heard at 3.25. So it goes on every 3 s.
    parameters = {"stepsize": 0.25, "threshold": 1, "stop_stale": True}
    result = run("ringmaster", parameters, [2, 2.25], links={"vector_seconds": 0.5})
    assert rows(result) == [(3, 1, 0, 48), (6, 1, 0, 36), (9, 1, 0, 27), (12, 1, 0, 20.25), (15, 1, 0, 15.1875)]
    assert result.ranks["discarded"].tolist() == [0, 0, 4]  # at 3.25, 6.25, 9.25 and 12.25
    assert result.ranks["messages_sent"].tolist() == [2 + 5 * 2, 5, 5]


def test_a_job_that_ends_when_a_newer_point_arrives_is_never_reported():
    # as before, but worker 2 takes 3 s: its jobs begin at 0.5, 3.5, 6.5, ... and end when the next point arrives
    parameters = {"stepsize": 0.25, "threshold": 1, "stop_stale": True}
    result = run("ringmaster", parameters, [2, 3], links={"vector_seconds": 0.5})
    assert [row[:2] for row in rows(result)] == [(3, 1), (6, 1), (9, 1), (12, 1), (15, 1)]
    assert result.ranks["messages_sent"][2] == 0 and result.ranks["gradients"][2] == 0
    assert result.ranks["discarded"].sum() == 0


def test_a_worker_goes_on_at_its_point_and_a_newer_point_replaces_one_that_has_not_left():
    # one worker of 1 s; a point takes 10 s to it, nothing takes time back; R = 3
    parameters = {"stepsize": 0.25, "threshold": 3, "stop_stale": True}
    result = run("ringmaster", parameters, [1], links={"down": {"vector_seconds": 10}})
    assert rows(result) == [
        (11, 1, 0, 48),  # x^0 is there at 10; x^1 leaves now
        (12, 1, 1, 32),  # the worker has gone on at x^0; x^2 waits for the link
        (13, 1, 2, 16),  # and again; x^3 takes the place of x^2
        (22, 1, 2, 4),  # 16 - 48/4: x^1 is there at 21, and x^3 leaves; x^4 waits
        (32, 1, 1, 0),  # 4 - 16/4: x^3 is there at 31
    ]
    # at 14, ..., 20 and 23, ..., 30; what would end at 21 and 31 is stopped by what arrives
    assert result.ranks["discarded"][1] == 7 + 8
    assert result.ranks["gradients"][1] == 5 + 15
    assert result.ranks["messages_sent"][0] == 4  # x^0, x^1, x^3, x^4: x^2 has never left
    assert result.updates["staleness_seconds"].tolist() == [11, 12, 13, 11, 19]


def test_a_sample_is_drawn_when_its_job_begins_and_a_stopped_job_has_used_its_number():
    # ξ is the number of the job over 1024. R = 1, links of 0.5 s, workers of 2 s and 5 s: worker 1 reports job 0,
    # begins job 1 at once, which x^1 stops 1 s later, reports job 2, and so on. Worker 2 is stopped each time.
    toy = Toy(x=(0.0,), sample=lambda i, number: number / 1024)
    parameters = {"stepsize": 1, "threshold": 1, "stop_stale": True}
    result = run("ringmaster", parameters, [2, 5], toy=toy, links={"vector_seconds": 0.5})
    # x^{k+1} = x^k - (x^k + ξ) = -ξ
    assert [row[3] * 1024 for row in rows(result)] == [0, -2, -4, -6, -8]


# An independent reference: the pseudocode with a heap, for fixed seconds and links that take no time.


def reference_rounds(seconds, x, gradient, stepsize, updates):
    """Minibatch SGD: rows like those of `rows`."""
    n, found = len(seconds), []
    slowest = max(range(1, n + 1), key=lambda i: (seconds[i - 1], i))
    for k in range(updates):
        total = 0.0
        for i in range(1, n + 1):
            total = total + gradient(x, i, k)
        x = x - stepsize * (total / n)
        found.append(((k + 1) * max(seconds), slowest, 0, x))
    return found


def reference_asynchronous(seconds, x, gradient, step, updates, restart=math.inf, drops_count=False):
    """What a server does that updates at every gradient: (rows, points sent, gradients dropped, last k).

    step(delay): 0 drops; restart: the delay at which a worker is stopped and gets the newest point.
    """
    n, k = len(seconds), 0
    held = dict.fromkeys(range(1, n + 1), (0, x))  # version and point that each worker computes at
    job = dict.fromkeys(held, 0)
    ends = sorted((seconds[i - 1], i, 0) for i in held)  # in the order of time, then worker
    found, sent, dropped = [], n, 0
    while len(found) < updates:
        now, i, number = heappop(ends)
        if number != job[i]:
            continue  # it was stopped
        version, point = held[i]
        delay, answered = k - version, [i]
        if step(delay) > 0:
            x = x - step(delay) * gradient(point, i, number)
            k += 1
            found.append((now, i, delay, x))
            answered += [j for j in held if j != i and k - held[j][0] >= restart]
        else:
            dropped += 1
            k += drops_count
        for j in answered:
            held[j] = k, x
            job[j] += 1
            heappush(ends, (now + seconds[j - 1], j, job[j]))
            sent += 1
    return found, sent, dropped, k


def steps(rule, stepsize, n):
    """Step by delay, for each rule of asynchronous SGD."""
    if rule == "delay_adaptive":
        return lambda delay: stepsize * n / max(n, delay)
    return lambda delay: stepsize if delay <= n or rule == "constant" else 0.0


SPEEDS = st.lists(st.integers(1, 12).map(lambda quarter: quarter / 4), min_size=1, max_size=5)
STEPSIZE, UPDATES, CURVATURE = 0.1, 40, 0.7


def sample(i, number):
    return ((7 * i + 3 * number) % 11 - 5) / 16


def noisy(point, i, number):
    return CURVATURE * point + sample(i, number)


def noiseless(point, i, number):
    return CURVATURE * point


NOISY = Toy(x=(3.0,), curvature=(CURVATURE,), sample=sample)
NOISELESS = Toy(x=(3.0,), curvature=(CURVATURE,))


@given(seconds=SPEEDS)
@EXACT
def test_minibatch_is_its_reference(seconds):
    result = run("minibatch_sgd", {"stepsize": STEPSIZE}, seconds, UPDATES, toy=NOISY)
    expected = reference_rounds(seconds, 3.0, noisy, STEPSIZE, UPDATES)
    assert [(row[0], *row[2:]) for row in rows(result)] == [(row[0], *row[2:]) for row in expected]


@given(seconds=SPEEDS)
@EXACT
def test_the_source_of_a_minibatch_update_is_who_came_last(seconds):
    result = run("minibatch_sgd", {"stepsize": STEPSIZE}, seconds, 3, toy=NOISY)
    expected = reference_rounds(seconds, 3.0, noisy, STEPSIZE, 3)
    assert [row[1] for row in rows(result)] == [row[1] for row in expected]


@pytest.mark.parametrize("rule", RULES)
@given(seconds=SPEEDS)
@EXACT
def test_asynchronous_sgd_is_its_reference(rule, seconds):
    step = steps(rule, STEPSIZE, len(seconds))
    counted = rule == "drop_counted"
    result = run("async_sgd", {"stepsize": STEPSIZE, "rule": rule}, seconds, UPDATES, toy=NOISY)
    expected, sent, dropped, k = reference_asynchronous(seconds, 3.0, noisy, step, UPDATES, drops_count=counted)
    found = rows(result)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    points = [row[3] for row in expected]
    if rule == "delay_adaptive":  # the step may be rounded in two ways
        assert [row[3] for row in found] == pytest.approx(points, rel=1e-12, abs=1e-15)
    else:
        assert [row[3] for row in found] == points
    assert result.ranks["messages_sent"][0] == sent and result.ranks["discarded"].sum() == dropped
    assert result.trace["iteration"][-1] == k


@pytest.mark.parametrize("stop_stale", [False, True])
@given(seconds=SPEEDS, R=st.sampled_from([1, 2, 3, 5, 8, math.inf]))
@EXACT
def test_ringmaster_is_its_reference(stop_stale, seconds, R):
    toy, gradient = (NOISELESS, noiseless) if stop_stale else (NOISY, noisy)
    parameters = {"stepsize": STEPSIZE, "threshold": R, "stop_stale": stop_stale}
    result = run("ringmaster", parameters, seconds, UPDATES, toy=toy)
    restart = R if stop_stale else math.inf
    step = lambda delay: STEPSIZE if delay < R else 0.0  # noqa: E731
    expected, sent, dropped, k = reference_asynchronous(seconds, 3.0, gradient, step, UPDATES, restart)
    assert rows(result) == expected
    assert result.ranks["messages_sent"][0] == sent and result.ranks["discarded"].sum() == dropped
    assert result.trace["iteration"][-1] == k == UPDATES


LINKS = st.sampled_from([{}, {"latency_seconds": 0.3}, {"vector_seconds": 0.2, "down": {"vector_seconds": 0.7}}])


@pytest.mark.parametrize("stop_stale", [False, True])
@given(seconds=SPEEDS, R=st.integers(1, 6), links=LINKS)
@EXACT
def test_ringmaster_accepts_no_delay_of_R_and_drops_do_not_advance_k(stop_stale, seconds, R, links):
    parameters = {"stepsize": STEPSIZE, "threshold": R, "stop_stale": stop_stale}
    result = run("ringmaster", parameters, seconds, UPDATES, toy=NOISY, links=links)
    assert max(result.updates["staleness"]) < R
    assert numpy.array_equal(result.trace["iteration"], numpy.arange(UPDATES + 1))
    assert result.updates["staleness_histogram"][:R].sum() == UPDATES
    assert result.updates["staleness_histogram"][R:].sum() == result.ranks["discarded"].sum()
    if stop_stale and not links:  # "delta < R is guaranteed" where no link takes time
        assert result.ranks["discarded"].sum() == 0


# Special cases that must coincide, bit for bit.


@given(seconds=SPEEDS, links=LINKS)
@EXACT
def test_ringmaster_without_threshold_is_asynchronous_sgd(seconds, links):
    one = run("ringmaster", {"stepsize": STEPSIZE, "threshold": math.inf}, seconds, toy=NOISY, links=links)
    other = run("async_sgd", {"stepsize": STEPSIZE}, seconds, toy=NOISY, links=links)
    assert same(one, other) and one.attrs == other.attrs


@given(seconds=SPEEDS)
@EXACT
def test_ringmaster_that_stops_nobody_is_asynchronous_sgd_where_links_take_no_time(seconds):
    parameters = {"stepsize": STEPSIZE, "threshold": math.inf, "stop_stale": True}
    one = run("ringmaster", parameters, seconds, toy=NOISELESS)
    other = run("async_sgd", {"stepsize": STEPSIZE}, seconds, toy=NOISELESS)
    assert same(one, other) and one.attrs["model_hash"] == other.attrs["model_hash"]


def test_with_one_worker_every_method_is_sequential_sgd():
    x, expected = 3.0, []
    for k in range(20):
        x = x - STEPSIZE * noisy(x, 1, k)
        expected.append((2.0 * (k + 1), 1, 0, x))
    for name, parameters in (
        *(("async_sgd", {"rule": rule}) for rule in RULES),
        *(("ringmaster", {"threshold": R}) for R in (1, 2, math.inf)),
        ("minibatch_sgd", {}),
    ):
        assert rows(run(name, {"stepsize": STEPSIZE} | parameters, [2], 20, toy=NOISY)) == expected, (name, parameters)


@pytest.mark.parametrize("R", [1, 2, math.inf])
def test_with_one_worker_ringmaster_with_stops_is_gradient_descent(R):
    parameters = {"stepsize": STEPSIZE, "threshold": R, "stop_stale": True}
    one = run("ringmaster", parameters, [2], 20, toy=NOISELESS)
    other = run("minibatch_sgd", {"stepsize": STEPSIZE}, [2], 20, toy=NOISELESS)
    assert same(one, other)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_minibatch_is_gradient_descent_where_there_is_no_noise(workers):
    quadratic = Quadratic(dimension=7, strong_convexity=0.1)
    targets = {"metric": "loss", "values": [NEVER], "headline": NEVER}
    result = run("minibatch_sgd", {"stepsize": 0.9}, [1.0] * workers, 30, toy=quadratic, targets=targets)
    d, matrix = 7, numpy.zeros((7, 7))
    smallest = 0.5 - 0.5 * math.cos(math.pi / (d + 1))
    for c in range(d):
        matrix[c, c] = 0.5 + 0.1 - smallest
        matrix[c, c - 1 if c else 1] = matrix[c, c + 1 if c + 1 < d else c - 1] = -0.25
    b = numpy.array([-0.25] + [0.0] * 6)
    x = numpy.array([math.sqrt(d)] + [0.0] * 6)
    losses = [x @ matrix @ x / 2 - b @ x]
    for _ in range(30):
        x = x - 0.9 * (matrix @ x - b)
        losses.append(x @ matrix @ x / 2 - b @ x)
    assert result.trace["loss"] == pytest.approx(losses, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("stepsize", [0.25, 0.1, 0.3, 1 / 3])
@pytest.mark.parametrize("workers", [2, 3, 5, 7])
def test_delay_adaptive_steps_are_constant_where_delays_are_at_most_n(stepsize, workers):
    # equal workers: delays are at most n - 1
    one, other = (
        run("async_sgd", {"stepsize": stepsize, "rule": rule}, [1.0] * workers, 30, toy=NOISY)
        for rule in ("delay_adaptive", "constant")
    )
    assert max(one.updates["staleness"]) == workers - 1
    assert same(one, other)


BOUNDARY = {0: 2.0, 1: 1.0, 5: 0.2846, 10: 0.1495}  # of gamma lambda, by delay


@pytest.mark.parametrize("delay", BOUNDARY)
def test_delayed_gradient_descent_is_stable_up_to_its_boundary(delay):
    # equal workers: after the first round every delay is n - 1
    boundary = 2 * math.sin(math.pi / (2 * (2 * delay + 1)))
    assert boundary == pytest.approx(BOUNDARY[delay], abs=5e-5)
    late = {}
    for factor in (0.97, 1.03):
        toy = Toy(x=(1.0,), curvature=(1.0,))
        result = run("async_sgd", {"stepsize": factor * boundary}, [1.0] * (delay + 1), 1200, toy=toy)
        assert set(result.updates["staleness"][delay:]) == {delay}
        size = numpy.abs(result.trace["x0"])
        late[factor] = size[-100:].max() / size[100:200].max()
    assert late[0.97] < 0.3 and late[1.03] > 3


def test_the_boundary_on_two_curvatures():
    # f = x^2 + 5 y^2 with a delay of 5: stable below 0.02846, where without delay 0.2 would do
    size = {}
    for stepsize in (0.0276, 0.0293):
        result = run("async_sgd", {"stepsize": stepsize}, [1.0] * 6, 1200, toy=Toy((1.0, 1.0), (2.0, 10.0)))
        size[stepsize] = numpy.abs(result.trace["x1"][-100:]).max()
    assert size[0.0276] < 0.1 and size[0.0293] > 10
