"""Snapshots, stopping rules, staleness and counters, against what was worked out by hand."""

from types import SimpleNamespace

import numpy
import pytest
from toy import Toy, cells, toy_cell

from mpibench import campaign
from mpibench.engines.simulation import Simulation
from mpibench.experiment import Snapshot, Stop
from mpibench.node import SECOND, Node
from mpibench.runner import simulate
from mpibench.watch import HISTORY, OPEN_BIN, Watch


@pytest.fixture
def make_watch(toy_cluster):
    """`make_watch(stop, snapshot, ...)` watches rank 0 of a cluster in which nothing happens by itself."""

    def make(stop=None, snapshot=None, better=None, **more):
        node = Node(Simulation(), 0, toy_cluster(3))
        return Watch(node, stop or Stop(), snapshot or Snapshot(updates=1), better or {}, **more)

    return make


def at(watch, seconds, k, x):
    """Show point x of iteration k at this instant; whether to go on."""
    watch.engine.time = round(seconds * SECOND)
    return watch(k, x)


def point(value=0.0):
    return numpy.array([value])


def show_all(watch, *instants):
    """Show a new point at each of these instants, until told to stop; how many were shown."""
    for k, seconds in enumerate(instants):
        if not at(watch, seconds, k, point(k)):
            return k + 1
    return len(instants)


def kept(watch):
    return [(snapshot.seconds, snapshot.updates) for snapshot in watch.snapshots]


# When a point is kept.


def test_the_first_point_at_or_after_each_multiple_of_the_period_is_kept(make_watch):
    watch = make_watch(snapshot=Snapshot(seconds=2.0))
    show_all(watch, 0, 0.5, 1.9, 2.0, 2.1, 5.9, 6.0, 6.0, 7.9)
    assert kept(watch) == [(0.0, 0), (2.0, 3), (5.9, 5), (6.0, 6)]


def test_a_period_that_is_no_binary_fraction_does_not_drift(make_watch):
    watch = make_watch(snapshot=Snapshot(seconds=0.1))
    show_all(watch, *(tenth / 10 for tenth in range(1001)))
    assert kept(watch) == [(tenth / 10, tenth) for tenth in range(1001)]


def test_every_third_update_is_kept_and_the_last(make_watch):
    watch = make_watch(stop=Stop(updates=10), snapshot=Snapshot(updates=3))
    assert show_all(watch, *range(20)) == 11
    assert kept(watch) == [(0, 0), (3, 3), (6, 6), (9, 9), (10, 10)]


def test_the_last_point_is_not_kept_twice(make_watch):
    watch = make_watch(stop=Stop(updates=9), snapshot=Snapshot(updates=3))
    show_all(watch, *range(20))
    assert kept(watch) == [(0, 0), (3, 3), (6, 6), (9, 9)]


def test_iterations_without_an_update_are_no_updates(make_watch):
    watch = make_watch(snapshot=Snapshot(updates=1), record_updates=True)
    x = point(1.0)
    for k in range(4):  # k grows while x stays: dropped gradients that are counted
        assert at(watch, k, k, x)
    at(watch, 4, 4, point(2.0))
    assert [(s.seconds, s.iteration, s.updates) for s in watch.snapshots] == [(0, 0, 0), (4, 4, 1)]
    assert list(watch.recorded["time"]) == [4]


def test_an_equal_point_that_is_another_object_is_an_update(make_watch):
    watch = make_watch()
    show = [at(watch, k, k, point(1.0)) for k in range(3)]
    assert all(show) and watch.updates == 2


def test_a_kept_point_is_a_reference_that_nobody_writes(make_watch):
    watch = make_watch()
    x = point(1.0)
    at(watch, 0, 0, x)
    assert watch.snapshots[0].point is x and not x.flags.writeable


def test_a_snapshot_is_evaluated_when_it_is_taken_and_not_otherwise(make_watch):
    evaluated = []

    def evaluate(x):
        evaluated.append(x[0])
        return {"loss": float(x[0])}

    watch = make_watch(snapshot=Snapshot(updates=2), better={"loss": "lower"}, evaluate=evaluate)
    show_all(watch, *range(6))
    assert evaluated == [0, 2, 4]
    assert [s.metrics["loss"] for s in watch.snapshots] == [0, 2, 4] and watch.snapshots[0].point is None


# When a run ends.


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_a_run_stops_at_exactly_so_many_updates(make_watch, limit):
    watch = make_watch(stop=Stop(updates=limit))
    assert show_all(watch, *range(20)) == limit + 1 and watch.updates == limit


def test_a_run_stops_at_so_many_gradients_used_or_discarded(make_watch):
    watch = make_watch(stop=Stop(gradients=6))
    assert at(watch, 0, 0, point())
    watch.used(1, 0, count=3)
    watch.discarded(2, 5, count=2)
    assert at(watch, 1, 1, point())  # 5 so far
    watch.discarded(2, 7)
    assert not at(watch, 2, 1, watch.point)  # the sixth, though no update
    assert (watch.used_total, watch.discarded_total) == (3, 3)


@pytest.mark.parametrize(("better", "values"), [("lower", (3, 2.5, 2, 1)), ("higher", (-3, 1.9, 2, 4))])
def test_a_metric_that_equals_its_limit_has_reached_it(make_watch, better, values):
    watch = make_watch(Stop(metrics={"m": 2}), better={"m": better}, evaluate=lambda x: {"m": float(x[0])})
    assert [at(watch, k, k, point(value)) for k, value in enumerate(values)] == [True, True, False, False]


def test_any_of_several_metrics_ends_a_run(make_watch):
    metrics, better = {"loss": 0.5, "accuracy": 0.9}, {"loss": "lower", "accuracy": "higher"}
    watch = make_watch(Stop(metrics=metrics), better=better, evaluate=lambda x: {"loss": 1.0, "accuracy": float(x[0])})
    assert at(watch, 0, 0, point(0.8)) and not at(watch, 1, 1, point(0.9))


def test_metrics_are_looked_at_in_snapshots_only(make_watch):
    stop, snapshot = Stop(metrics={"m": 2}), Snapshot(updates=3)
    watch = make_watch(stop, snapshot, {"m": "higher"}, evaluate=lambda x: {"m": float(x[0])})
    assert show_all(watch, *range(9)) == 4  # the point 2 is not kept, the point 3 is
    assert kept(watch) == [(0, 0), (3, 3)]


@pytest.mark.parametrize(("seconds", "updates"), [(5.999, 3), (6.0, 5), (6.5, 5)])
def test_what_happens_at_the_last_instant_counts(seconds, updates):
    # workers of 2 s and 3 s: updates at 2, 3, 4, 6, 6, 8
    result = simulate(toy_cell("async_sgd", {"stepsize": 0.25}, [2, 3], stop={"seconds": seconds}), seed=0)
    assert result.trace["updates"][-1] == updates == len(result.updates["time"])
    assert result.attrs["seconds"] == seconds == result.trace["time"][-1]
    assert result.trace["x0"][-1] == [64, 48, 32, 20, 15, 7][updates]


def test_the_first_of_several_limits_ends_a_run():
    for stop, seconds in (
        ({"seconds": 9.0, "updates": 4}, 6.0),
        ({"seconds": 5.0, "updates": 4}, 5.0),
        ({"seconds": 5.0, "gradients": 2}, 3.0),
        ({"seconds": 5.0, "x0": 30.0}, 4.0),
    ):
        result = simulate(toy_cell("async_sgd", {"stepsize": 0.25}, [2, 3], stop=stop), seed=0)
        assert result.attrs["seconds"] == seconds, stop


def test_a_target_that_the_start_has_reached_ends_a_run_at_once():
    targets = {"metric": "x0", "values": [64.0], "headline": 64.0}
    stop = {"seconds": 5.0, "x0": 64.0}
    result = simulate(toy_cell("async_sgd", {"stepsize": 0.25}, [2, 3], stop=stop, targets=targets), seed=0)
    assert result.attrs["outcome"] == "reached" and result.time_to("x0", 64.0) == 0
    assert result.attrs["seconds"] == 0 and result.trace["gradients"].tolist() == [0]


# Staleness.


def test_the_staleness_of_an_update_is_the_largest_of_its_gradients(make_watch):
    watch = make_watch(record_updates=True)
    at(watch, 0.0, 0, point())
    watch.used(1, 0)
    at(watch, 1.5, 1, point())
    watch.used(2, 1)
    at(watch, 4.0, 2, point())
    watch.used(2, 0)
    watch.used(3, 2)  # computed at x^0
    watch.discarded(4, 9)  # not used: not the update's
    watch.used(1, 1)  # its message triggers the update
    at(watch, 4.25, 3, point())
    watch.used(1, 1)  # computed at x^2
    at(watch, 6.0, 4, point())
    found = list(zip(*watch.recorded.values(), strict=True))
    assert list(watch.recorded) == ["time", "source", "staleness", "staleness_seconds", "gradients", "workers"]
    # the last two columns: gradients in the update, and workers that they are of
    assert found == [(1.5, 1, 0, 1.5, 1, 1), (4.0, 2, 1, 4.0, 1, 1), (4.25, 1, 2, 4.25, 3, 3), (6.0, 1, 1, 2.0, 1, 1)]


def test_staleness_in_seconds_goes_back_to_when_the_iteration_began(make_watch):
    watch = make_watch(record_updates=True)
    x = point()
    at(watch, 0, 0, x)
    watch.discarded(1, 0)
    at(watch, 2, 1, x)  # a drop that is counted: iteration 1 begins
    watch.used(1, 0)
    at(watch, 5, 2, point())
    watch.used(2, 2)  # computed at iteration 0
    at(watch, 6, 3, point())
    watch.used(2, 1)  # computed at iteration 2
    at(watch, 7, 4, point())
    assert list(watch.recorded["staleness_seconds"]) == [3, 6, 2]


def test_the_histogram_counts_every_gradient_and_its_last_bin_is_open(make_watch):
    watch = make_watch()
    watch.used(1, 0, count=4)
    watch.used(1, 2)
    watch.discarded(2, 2)
    assert watch.histogram == [4, 0, 2]
    watch.used(1, OPEN_BIN - 1)
    assert len(watch.histogram) == OPEN_BIN
    watch.discarded(1, OPEN_BIN)
    watch.used(1, OPEN_BIN + 1, count=2)
    watch.used(1, 10**9)
    assert len(watch.histogram) == OPEN_BIN + 1 and watch.histogram[-2:] == [1, 4]


@pytest.mark.parametrize(("longest", "is_open"), [(OPEN_BIN - 1, 0), (OPEN_BIN, 1), (OPEN_BIN + 5, 1)])
def test_the_file_says_whether_the_last_bin_is_open(make_watch, tmp_path, longest, is_open):
    watch = make_watch()
    watch.used(1, longest)
    put = {}
    file = SimpleNamespace(
        put=lambda group, values=(), attrs=(): put.update({group: dict(attrs) | dict(values)}),
        append=lambda *_: None,
        finish=lambda *_, **__: None,
    )
    cell = toy_cell("async_sgd", {"stepsize": 0.25}, [2, 3])
    result = simulate(cell, seed=0)
    result.updates["staleness_histogram"] = numpy.array(watch.histogram)
    campaign.finish(file, cell, result)
    assert put["updates/staleness_histogram"]["open"] == is_open


# Counters.


def test_gradients_are_counted_for_the_rank_that_computed_them(make_watch):
    watch = make_watch()
    at(watch, 0, 0, point())
    watch.used(1, 0)
    watch.used(2, 3, count=5)
    watch.discarded(2, 4)
    watch.discarded(2, 4, count=2)
    at(watch, 1, 1, point())
    assert watch.used_by == {1: 1, 2: 5} and watch.discarded_by == {2: 3}
    assert [snapshot.settled for snapshot in watch.snapshots] == [(0, 0), (6, 3)]


def test_the_discarded_gradients_of_a_trace_by_hand():
    # Ringmaster with R = 1, workers of 2 s and 3 s: updates at 2, 4, 6, 8, 10; discarded at 3, 6 (after the update), 9
    result = simulate(toy_cell("ringmaster", {"stepsize": 0.25, "threshold": 1}, [2, 3], stop={"updates": 5}), seed=0)
    assert result.trace["time"].tolist() == [0, 2, 4, 6, 8, 10]
    assert result.trace["discarded"].tolist() == [0, 0, 1, 1, 2, 3]
    # computed: at 4 those of 2, 3, 4; at 6 worker 1's, as worker 2 is served after it; at 10 all but worker 2's next
    assert result.trace["gradients"].tolist() == [0, 1, 3, 4, 6, 8]
    # points sent: two, then one for every gradient; and the gradients themselves
    assert result.trace["messages"].tolist() == [2, 2 + 2 * 1, 2 + 2 * 3, 2 + 2 * 4, 2 + 2 * 6, 2 + 2 * 8]
    assert result.trace["bytes"].tolist() == [16 * m for m in result.trace["messages"]]


CELLS = {
    "by updates": {"stop": {"updates": 23}},
    "by gradients": {"stop": {"gradients": 23}},
    "between events": {"stop": {"seconds": 7.3}},
    "at an instant of many events": {"stop": {"seconds": 6.0}},
    "while workers compute": {"stop": {"seconds": 6.0}, "links": {"latency_seconds": 1.0}, "seconds": [1, 5]},
    "while messages travel": {"stop": {"seconds": 8.0}, "links": {"vector_seconds": 0.5}},
}


@pytest.mark.parametrize("ends", CELLS)
@pytest.mark.parametrize("stop_stale", [False, True])
def test_the_counters_of_the_last_snapshot_are_those_of_all_ranks(ends, stop_stale):
    settings = {"seconds": [1, 2, 3]} | CELLS[ends]
    parameters = {"stepsize": 0.01, "threshold": 3, "stop_stale": stop_stale}
    result = simulate(toy_cell("ringmaster", parameters, settings.pop("seconds"), **settings), seed=0)
    trace, ranks = result.trace, result.ranks
    for name in ("time", "iteration", "updates", "gradients", "discarded", "messages", "bytes"):
        assert (numpy.diff(trace[name]) >= 0).all(), name
    assert trace["gradients"][-1] == ranks["gradients"].sum()
    assert trace["discarded"][-1] == ranks["discarded"].sum()
    assert trace["messages"][-1] == ranks["messages_sent"].sum() == result.edges[:, 2].sum()
    assert trace["bytes"][-1] == ranks["bytes_sent"].sum() == result.edges[:, 3].sum()
    assert trace["updates"][-1] == ranks["used"].sum() == len(result.updates["time"])
    assert result.updates["staleness_histogram"].sum() == ranks["used"].sum() + ranks["discarded"].sum()
    assert trace["time"][-1] == result.attrs["seconds"]


def test_a_rank_that_has_gone_too_far_beyond_the_end_says_so(make_watch, monkeypatch):
    monkeypatch.setattr(Simulation, "clock", "emulated")
    watch = make_watch()
    show_all(watch, *range(HISTORY))
    assert not watch.forgotten((0, 0)) and not watch.forgotten((5 * SECOND, 0))
    at(watch, HISTORY, HISTORY, point())
    assert watch.forgotten((0, 0)) and not watch.forgotten((SECOND, 0))


@pytest.mark.parametrize("snapshot", [{"seconds": 2.0}, {"updates": 2}])
def test_a_network_stops_at_so_many_gradients_of_all_its_ranks(snapshot):
    cell = toy_cell("r_fast", {"stepsize": 0.01}, [1, 2, 3], stop={"gradients": 11}, snapshot=snapshot)
    result = simulate(cell, seed=0)
    assert result.attrs["seconds"] == 6
    assert result.ranks["used"].tolist() == [6, 3, 2] and result.trace["gradients"][-1] == 11


def test_busy_and_idle_seconds_by_hand():
    # Minibatch, workers of 3 s and 2 s, 0.5 s each way, 3 steps of 4 s
    cell = toy_cell("minibatch_sgd", {"stepsize": 0.5}, [3, 2], stop={"updates": 3}, links={"vector_seconds": 0.5})
    result = simulate(cell, seed=0)
    assert result.attrs["seconds"] == 12
    assert result.ranks["busy_seconds"].tolist() == [0, 9, 6]
    assert result.ranks["idle_seconds"].tolist() == [12, 3, 6]


def test_a_stopped_job_was_busy_until_it_was_stopped():
    # Ringmaster with stops, R = 1, links of 0.5 s, workers of 2 s and 5 s: x^0 is there at 0.5, x^1 at 3.5, x^2 at 6.5;
    # the run ends at 9. Worker 1 goes on after each gradient; worker 2's jobs are stopped at 3.5 and 6.5.
    parameters = {"stepsize": 0.25, "threshold": 1, "stop_stale": True}
    cell = toy_cell("ringmaster", parameters, [2, 5], stop={"updates": 3}, links={"vector_seconds": 0.5})
    result = simulate(cell, seed=0)
    assert result.attrs["seconds"] == 9
    assert result.ranks["gradients"].tolist() == [0, 3, 0]  # at 2.5, 5.5 and 8.5
    assert result.ranks["stopped"].tolist() == [0, 2, 2]
    assert result.ranks["busy_seconds"].tolist() == [0, 3 * 2 + 2 * 1, 3 + 3]


def test_a_run_that_diverges_says_so():
    (cell,) = cells(
        "minibatch_sgd",
        {"stepsize": 1e6},
        [1.0, 1.0],
        problem={"name": "quadratic", "dimension": 3},
        stop={"updates": 100},
    )
    assert simulate(cell, seed=0).attrs["outcome"] == "diverged"


def test_a_metric_that_will_never_come_back_ends_a_run():
    stop = {"updates": 10**6, "x0": -1.0}
    cell = toy_cell("minibatch_sgd", {"stepsize": 1e200}, [1.0], Toy(x=(1e100,)), stop=stop)
    result = simulate(cell, seed=0)
    assert result.trace["updates"][-1] < 5
