"""Runs that a signal interrupts and that go on: what is kept, what is joined, and whole launches."""

import os
import signal
import time
import uuid
from dataclasses import replace
from pathlib import Path

import h5py
import numpy
import pytest
from test_launch import JOB, NATIVE, RUN, alive, ended, pytestmark, results, start
from toy import toy_cell

from mpibench import record, restart
from mpibench.restart import Point, Restart, Signal, joined
from mpibench.runner import Result, simulate
from mpibench.verify import verify_set

launched = [*pytestmark]
pytestmark = []


def kept(tmp_path, values):
    with record.RunFile(tmp_path / "run.h5", {}, {}, {}) as file:
        restart.put(file, "restart", values)
    with h5py.File(tmp_path / "run.h5.part") as file:
        return restart.get(file["restart"])


def test_what_is_declared_comes_back_as_it_was(tmp_path):
    x = numpy.arange(3, dtype=numpy.float32)
    values = {"x": x, "declared": {"k": 7, "table": ({2: x, 1: 2 * x}, {1: 4}, 0.5), "flag": True, "none": {}}}
    found = kept(tmp_path, values)
    assert found["declared"] == {"k": 7, "table": found["declared"]["table"], "flag": True, "none": {}}
    table, versions, mean = found["declared"]["table"]
    assert list(versions.items()) == [(1, 4)] and mean == 0.5 and sorted(table) == [1, 2]
    assert found["x"].dtype == numpy.float32 and (table[1] == 2 * x).all()


def test_tensors_come_back_as_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    found = kept(tmp_path, {"x": torch.arange(3.0)})
    assert found["x"].dtype == torch.float32 and torch.equal(found["x"], torch.arange(3.0))


def test_two_halves_are_one_run(tmp_path):
    """A method without a state of its own, interrupted at the end of an update, computes what it does in one go."""
    cell = toy_cell("minibatch_sgd", {"stepsize": 0.5}, [1, 3], links={"vector_seconds": 0.5}, stop={"updates": 6})
    whole, first = simulate(cell, 0), simulate(replace(cell, stop=replace(cell.stop, updates=2)), 0)
    point = first.trace["x0"][-1]
    second = simulate(
        replace(cell, stop=replace(cell.stop, updates=4), problem=replace(cell.problem, x=(float(point),))), 0
    )
    points = [Point(2, numpy.array([point]), {}), Point(0, None, {}), Point(0, None, {})]
    found = joined(Restart(first.attrs["seconds"], [first.attrs["seconds"]], points, [], 4, first), second, offset=2)
    for name, column in whole.trace.items():
        twice = numpy.concatenate([column[:3], column[2:]])  # the restart point is the end and the beginning
        apart = 2 if name == "messages" else 0  # of one go: x^2 is sent and received once
        if apart or name in ("bytes", "bits"):
            assert found.trace[name][-1] >= column[-1]
        else:
            numpy.testing.assert_array_equal(found.trace[name], twice, name)
    assert found.attrs["seconds"] == whole.attrs["seconds"] and found.interrupted == [first.attrs["seconds"]]
    for name in ("gradients", "used", "busy_seconds"):
        assert found.ranks[name].tolist() == whole.ranks[name].tolist()
    assert found.ledger["messages"].sum() == first.ledger["messages"].sum() + second.ledger["messages"].sum()
    assert found.updates["staleness_histogram"].tolist() == whole.updates["staleness_histogram"].tolist()


def test_a_watch_that_goes_on_counts_what_was_before(monkeypatch):
    from mpibench.experiment import Stop
    from mpibench.watch import Watch

    class Engine:
        clock, time = "native", 0

    class Node:
        engine, journal = Engine, None

        def freeze(self, items):
            pass

    watch = Watch(Node(), Stop(updates=10, gradients=100), None, {})
    watch.go_on(7, {"v": 3.0}, updates=6, settled=90)
    assert (watch.offset, watch.kept("v", 0), watch.kept("w", 5)) == (7, 3.0, 5)
    shown = [watch(k, numpy.ones(1) * k) for k in range(5)]
    assert shown == [True] * 4 + [False]  # 4 of the 10 updates were left
    assert watch.kept("k", 0) == 7 and watch.offset == 0  # who asks for it counts on by itself


METHODS = {
    "async_sgd": ("stepsize = 0.05", 3, 0),
    "ia2_sgd": ("stepsize = 0.05", 3, 0),
    "local_sgd": ("stepsize = 0.05\nlocal_steps = 4\nmomentum = 0.5", 2, None),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_native_run_is_interrupted_by_a_signal_to_one_rank_and_goes_on(tmp_path, monkeypatch, name):
    for mark in launched:
        if mark.args[0]:
            pytest.skip(mark.kwargs["reason"])
    parameters, ranks, _ = METHODS[name]
    monkeypatch.chdir(tmp_path)
    text = JOB.replace("{ updates = 20 }", "{ seconds = 2.0 }").replace("{ updates = 5 }", "{ seconds = 0.1 }")
    text = text[: text.index("[heterogeneity]")] + f'[[algorithm]]\nname = "{name}"\n{parameters}\n'
    Path("job.toml").write_text(text)
    mark = uuid.uuid4().hex
    process = start((ranks, *RUN, "job.toml", *NATIVE), mark=mark)
    until = time.monotonic() + 50
    while not list(Path("results").rglob("*.part")) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.7)
    commands = {p: Path(f"/proc/{p}/cmdline").read_bytes().split(b"\0") for p in alive(mark)}
    os.kill(next(p for p, words in commands.items() if b"mpibench" in words and b"-n" not in words), signal.SIGUSR1)
    done = ended(process, mark, until)
    assert done.code == 75 and done.err.count("goes on") == 1, done
    [part] = Path("results").rglob("*.part")
    with h5py.File(part) as file:
        assert file.attrs["complete"] == 0 and file.attrs["outcome"] == "walltime"
        before, x = float(file["restart"].attrs["seconds"]), file["restart/0/str:x"][()]
        assert 0 < before < 2 and numpy.isfinite(x).all()
        if name == "ia2_sgd":
            assert len(file["restart/0/str:declared/str:table/int:0"]) == ranks - 1
    done = ended(start((ranks, *RUN, "job.toml", *NATIVE, "--resume"), mark=mark), mark, time.monotonic() + 50)
    done.went_well()
    assert "goes on after" in done.out
    [path] = results(Path("results")).values()
    with h5py.File(path) as file:
        assert file.attrs["restarts"] == 1 and file["faults/seconds"][()].tolist() == [before]
        assert file.attrs["seconds"] == pytest.approx(2.0, abs=1e-9)
        times, loss = file["trace/time"][()], file["trace/loss"][()]
        assert (numpy.diff(times) >= 0).all() and (numpy.diff(file["trace/updates"][()]) >= 0).all()
        seam = int((times <= before).sum())
        assert loss[seam] < loss[0] and loss[-1] < loss[0]  # it went on from its model
    assert not verify_set([path])


def test_signals_are_noted_where_they_are_heeded(monkeypatch):
    monkeypatch.setattr(Signal, "asked", False)
    monkeypatch.setattr(Signal, "engine", None)
    Signal.come()
    assert Signal.asked
    assert Result.empty(toy_cell("d_psgd", {"stepsize": 0.1}, [1, 1], snapshot={"seconds": 1.0}), 0).metrics == {
        "x0": "lower",
        "consensus": "lower",
    }
