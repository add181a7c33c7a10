"""Gradients that are repeated until nobody wants them: each a computation, or counted and computed when they are asked
for, which must be the same."""

from functools import reduce
from operator import add

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tree_traces import BATCH, CASES, EXACT, STEPSIZE, UPDATES, count, table
from toy import NEVER, cells

from mpibench.runner import simulate as simulated

SECOND = 10**9


class Numbers:
    """Sample 0, 1, 2, ...; the gradient at x is x plus the sample."""

    def __init__(self):
        self.drawn = 0

    def sample(self):
        self.drawn += 1
        return self.drawn - 1

    def gradient(self, x, ξ):
        return x + ξ


X = numpy.array([100.0])
PROFILES = st.sampled_from([None, {"profile": "exponential", "unit_seconds": 0.7}, {"profile": "sqrt"}])


@pytest.mark.parametrize("name", ["fragile", "fragile_accelerated"])
@given(case=CASES, batch=BATCH, profile=PROFILES)
@settings(EXACT, max_examples=60)
def test_what_is_counted_late_is_what_single_computations_are(name, case, batch, profile):
    runs = []
    for record in (True, False):  # where events are recorded, each gradient is one
        targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
        given_ = {"graph": table(case.n, case.edges), "stop": {"updates": UPDATES}, "targets": targets}
        if profile is not None:
            given_ |= {"heterogeneity": {"compute": profile}, "workers": case.n}
        parameters = {"stepsize": STEPSIZE, "batch": batch, "pivot": case.pivot}
        seconds = case.seconds if profile is None else None
        (cell,) = cells(name, parameters, seconds, problem={"name": "quadratic", "dimension": 3, "noise": 0.5},
                        record_events=record, **given_ | {"targets": targets | {"metric": "loss"}})  # fmt: skip
        runs.append(simulated(cell, seed=4))
    one, other = runs
    assert one.attrs["event_hash"] == other.attrs["event_hash"] and one.attrs["model_hash"] == other.attrs["model_hash"]
    for column in one.trace:
        assert numpy.array_equal(one.trace[column], other.trace[column]), column
    for what in ("gradients", "used", "discarded", "stopped", "busy_seconds", "messages_sent", "bytes_sent"):
        assert count(one, what) == pytest.approx(count(other, what), rel=1e-12), what
    assert list(one.updates["staleness_histogram"]) == list(other.updates["staleness_histogram"])
    assert len(rows_of(one)) == UPDATES and rows_of(one) == rows_of(other)


def rows_of(result):
    columns = [result.updates[name].tolist() for name in ("time", "gradients", "workers")]
    return list(zip(*columns, strict=True))


def test_gradients_are_taken_with_those_that_ended_before(simulate):
    log, f = [], Numbers()

    async def program(node):
        job = node.repeat(f, X)
        log.append(job.take())
        await node.sleep(2.5)
        n, g = job.take()  # of 1 and 2 s
        log.append((n, float((g * 1.0)[0])))
        await job.ready()
        log.append(node.now())
        n, g = job.take()
        log.append((n, float((g / 1)[0])))
        await node.sleep(1.0)  # to 4 s, when one ends: sleeps that began earlier come first
        await job.ready()
        log.append((node.now(), job.take()[0]))
        await node.sleep(1.25)
        job.cancel()
        x = await node.compute(f.gradient, X, f.sample())
        log.append((node.now(), x[0]))

    engine = simulate(program)
    # samples 0, 1; 2; 3 of 4 s; 4 of 5 s is never taken, 5 was stopped; none of the last three is ever drawn
    assert log == [(0, 0), (2, 201.0), 3.0, (1, 102.0), (4.0, 1), (6.25, 103.0)]
    assert (engine.nodes[0].gradients, engine.nodes[0].stopped, engine.nodes[0].busy) == (6, 1, 6.25 * SECOND)


def test_a_rank_that_computes_cannot_repeat(simulate):
    async def program(node):
        node.compute(len, ())
        with pytest.raises(ValueError, match="rank 0 computes already, so it cannot repeat gradients"):
            node.repeat(Numbers(), X)

    simulate(program)


def test_samples_belong_to_gradients_and_not_to_the_order_in_which_they_are_computed(simulate):
    f, sums = Numbers(), []

    async def program(node):
        for x, seconds in ((X, (2.5, 2.0)), (X, (3.5,)), (2 * X, (1.5, 1.0))):  # some end after each of these
            job = node.repeat(f, x)
            for each in seconds:
                await node.sleep(each)
                sums.append(job.take()[1])
            job.cancel()

    simulate(program)
    first, second, lost, third, fourth = sums  # samples 0, 1; 2, 3; 5 to 7; 9; 10. 4 and 8 were stopped
    sums.clear()
    del lost
    assert third.value == 209 and f.drawn == 10
    assert second.value == 205 and first.value == 201 and f.drawn == 10  # they were kept, 5 to 8 are nobody's
    assert fourth.value == 210 and f.drawn == 11


def test_sums_are_added_when_they_are_used_however_long_they_are(simulate):
    f, chunks = Numbers(), []

    async def program(node):
        job = node.repeat(f, X)
        await node.sleep(0.5)
        for _ in range(5000):  # more than Python may recurse
            await node.sleep(1.0)
            chunks.append(job.take()[1])
        await node.sleep(2.0)
        chunks.append(job.take()[1])

    simulate(program)
    nested = chunks[-1] + reduce(add, chunks[:-1])
    assert f.drawn == 0 and nested.nbytes == 8
    assert float((nested / 2)[0]) == (5002 * 100 + 5001 * 5002 / 2) / 2
    assert (X - nested)[0] == 100 - nested.value[0] and (nested - X)[0] == nested.value[0] - 100
    assert nested @ X == X @ nested == 100 * nested.value[0] and (2 * nested)[0] == 2 * nested.value[0]
    assert (X + nested)[0] == (nested + X)[0] == 100 + nested.value[0]


class Common(Numbers):
    """The same, where what gradients at a point have in common is computed once, and samples are drawn together."""

    def samples(self, n):
        return [super(Common, self).sample() for _ in range(n)]

    sample = None

    def at(self, x):
        self.points = [*getattr(self, "points", []), float(x[0])]
        return lambda ξ: x + ξ

    gradient = None


def test_what_gradients_at_a_point_have_in_common_is_asked_for_once(simulate):
    f, sums = Common(), []

    async def program(node):
        for x in (X, 2 * X, 3 * X):
            job = node.repeat(f, x)
            for _ in range(2):
                await node.sleep(2.5)
                sums.append(job.take()[1])
            job.cancel()

    simulate(program)
    assert [float(g.value[0]) for g in (*sums[:2], *sums[4:])] == [201.0, 205.0, 621.0, 625.0]
    assert f.points == [100.0, 300.0]
