"""What a file says in its own favour: checks, what is stated, what methods of a seed have in common, steps."""

import json
import math
from dataclasses import replace

import h5py
import numpy
import pytest
from toy import toy_cell

from mpibench import checks, measuring, record, runner, steps
from mpibench.experiment import Experiment, load
from mpibench.measuring import Measuring
from mpibench.node import COMPUTED, SECOND, STOPPED

JOB = """
schema = 1
[experiment]
name = "said"
workers = 4
seeds = [0, 1]
stop = { updates = 60 }
snapshot = { updates = 10 }
targets = { metric = "loss", values = [1.0], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 5
[heterogeneity]
compute = { profile = "sqrt" }
links = { latency_seconds = 0.1 }
[[algorithm]]
name = "ringmaster"
stepsize = 0.3
threshold = 4
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.3
[measuring]
scaling = "weak"
held_constant = ["batch of a worker"]
"""


@pytest.fixture
def cells(tmp_path):
    (tmp_path / "job.toml").write_text(JOB)
    return load(tmp_path / "job.toml").cells()


@pytest.mark.parametrize(("name", "parameters"), [
    ("ringmaster", {"stepsize": 7.0, "threshold": 3}),  # whatever step size suits the problem of the experiment
    ("minibatch_sgd", {"stepsize": 1e-4}),
    ("rennala", {"stepsize": 0.5, "batch": 6}),
])  # fmt: skip
def test_methods_that_minimise_are_where_the_oracle_is(name, parameters):
    row = checks.oracle(toy_cell(name, parameters, [1, 2, 3]), 10)
    assert row["passed"] == 1 and row["value"] <= row["tolerance"] == checks.CLOSE


def test_an_attempt_lasts_longer_where_links_are_slow():
    cell = toy_cell("minibatch_sgd", {"stepsize": 0.5}, [1, 2, 3], links={"vector_seconds": 200.0})
    row = checks.oracle(cell, 10)  # 19 steps of 403 s
    assert (row["passed"], row["note"]) == (1, "")


def test_a_method_that_goes_uphill_fails_its_check():
    cell = toy_cell("minibatch_sgd", {"stepsize": 0.5}, [1, 2, 3])
    wrong = type(cell.algorithm)

    class Uphill(wrong):
        async def worker(self, node, f):
            class Turned:
                sample = f.sample

                @staticmethod
                def gradient(x, ξ):
                    return -f.gradient(x, ξ)

            await super().worker(node, Turned)

    assert checks.oracle(replace(cell, algorithm=Uphill(0.5)), 10)["passed"] == 0


def test_a_method_that_cannot_run_there_is_not_decided():
    cell = toy_cell("minibatch_sgd", {"stepsize": 0.5}, [1, 2])

    class Native(type(cell.algorithm)):
        async def server(self, node, x, watch):
            await node.all_reduce(x)

    row = checks.oracle(replace(cell, algorithm=Native(0.5)), 10)
    assert row["passed"] == -1 and math.isnan(row["value"]) and "cannot run in virtual time" in row["note"]


def test_invariants_hold_of_a_run_and_their_breach_is_seen(cells):
    result = runner.simulate(cells[0], 0)
    rows = checks.invariants(cells[0], result)
    assert {row["name"] for row in rows} >= {"messages sent have a fate", "gradients used were computed"}
    assert all(row["passed"] == 1 for row in rows)
    result.ranks["messages_received"][0] += 1
    result.ranks["used"][1] += 1000
    result.updates["staleness"] = numpy.array([0, 4])
    broken = {row["name"] for row in checks.invariants(cells[0], result) if row["passed"] == 0}
    assert broken == {"messages sent have a fate", "gradients used were computed",
                      "accepted delays are below the threshold"}  # fmt: skip


def test_the_band_is_that_of_the_trials_and_nobody_is_below_the_minimum(cells):
    result = runner.simulate(cells[0], 0)
    end, least = result.trace["loss"][-1], min(result.trace["loss"])
    tuned = {"chosen": {"a": 1}, "trials": [{"parameters": {"a": 1}, "last": [end, end + 0.1, end - 0.1]}]}
    inside, above = checks.band(cells[0], result, tuned, least - 1)
    assert (inside["name"], inside["passed"], above["name"], above["passed"]) == ("band", 1, "minimum", 1)
    tuned["trials"][0]["last"] = [end + 9.0, end + 9.1, end + 9.2]
    outside, below = checks.band(cells[0], result, tuned, least + 1)
    assert (outside["passed"], below["passed"]) == (0, 0)
    stopped = replace(cells[0], stop=replace(cells[0].stop, metrics={"loss": end + 9.0}))
    missed, _ = checks.band(stopped, result, tuned, least)  # a miss is no error: trials ended at the stop
    assert missed["passed"] == 1 and "at the start" in missed["note"]
    start, _ = checks.band(cells[0], result, None, least)
    assert start["passed"] == 1
    result.attrs["outcome"] = "diverged"
    assert [row["name"] for row in checks.band(cells[0], result, None, least)] == ["minimum"]


def test_who_is_faster_than_theory_allows_is_flagged(cells):
    result = runner.simulate(cells[0], 0)
    per_update = result.attrs["seconds"] / result.trace["updates"][-1]
    said, (row,) = checks.plausibility(result, {"update_seconds": {"least": per_update * 0.9}})
    assert said == "as theory allows" and row["passed"] == 1
    said, (row,) = checks.plausibility(result, {"update_seconds": {"least": per_update * 1.1}})
    assert said == "faster than theory allows" and row["passed"] == 0
    assert checks.plausibility(result, None) == ("theory says nothing of it", [])


def test_what_is_stated_is_no_part_of_the_hash(cells, tmp_path):
    assert cells[0].resolved["measuring"]["scaling"] == "weak"
    (tmp_path / "other.toml").write_text(JOB.partition("[measuring]")[0])
    other = load(tmp_path / "other.toml")
    assert other.measuring == Measuring() and other.cells()[0].hash == cells[0].hash
    assert Experiment.from_resolved(load(tmp_path / "job.toml").resolved).measuring.held_constant == (
        "batch of a worker",
    )


def test_methods_of_a_seed_have_the_start_samples_and_delays_in_common(cells):
    ringmaster, minibatch = cells
    assert measuring.pairing(ringmaster, 0) == measuring.pairing(minibatch, 0)
    noisy = replace(ringmaster, problem=replace(ringmaster.problem, noise=0.1))
    first, second = measuring.pairing(noisy, 0), measuring.pairing(noisy, 1)
    assert first["sampling"] != second["sampling"] and first["start"] == second["start"]


def test_steps_and_delays_by_hand():
    rows = numpy.array([
        [2.0 * SECOND, COMPUTED, 1, 1.5 * SECOND, 1],  # began at 0.5
        [2.0 * SECOND, 1, 1, 40, 0],  # a message
        [5.0 * SECOND, STOPPED, 1, 2.0 * SECOND, 0],  # began at 3, after 1 of waiting
    ])  # fmt: skip
    columns, attrs = steps.steps_of([rows, rows[:0]], [0.25, 0.0], 0.125)
    assert columns["rank"].tolist() == [0, 0, 0] and columns["is_warmup"].tolist() == [1, 0, 0]
    assert columns["off_clock"].tolist() == [1, 0, 0] and math.isnan(columns["start_seconds"][0])
    assert columns["start_seconds"][1:].tolist() == [0.5, 3.0]
    assert columns["compute_seconds"].tolist() == [0.25, 1.5, 2.0]
    assert columns["wait_seconds"].tolist() == [0.0, 0.5, 1.0]
    assert columns["messages"].tolist() == [0, 0, 1]
    assert (attrs["steps"], attrs["every"], attrs["evaluation_seconds_off_clock"]) == (2, 1, 0.125)
    assert attrs["compute_p50_seconds"] == 1.75
    columns, attrs = steps.delays_of([3.5, 0.0], [(2, 0.01), (0, 0.0)], {}, 7)
    assert columns["realised_seconds"].tolist() == [3.51, 0.0] and attrs["seed"] == 7


def test_long_runs_are_thinned():
    rows = numpy.array([[(k + 1) * SECOND, COMPUTED, 1, SECOND, 1] for k in range(5000)], float)
    columns, attrs = steps.steps_of([rows], [0.0], 0.0)
    assert len(columns["rank"]) <= steps.MOST_ROWS and attrs["steps"] == 5000 and attrs["every"] == 13


def test_a_file_of_a_run_says_it_all(cells, tmp_path):
    from mpibench.campaign import Alone, Campaign

    (tmp_path / "job.toml").write_text(JOB)
    campaign = Campaign(Alone(), load(tmp_path / "job.toml"), tmp_path / "results", say=lambda text: None)
    (path, _), *_ = campaign.run(cells)
    assert record.broken_seal(path.read_bytes()) is None
    with h5py.File(path) as file:
        assert json.loads(file.attrs["verified"])["findings"] == []
        assert file.attrs["plausibility"] == "as theory allows" and "modelled" in file.attrs["clock_rule"]
        assert set(file["checks/name"].asstr()) >= {"oracle", "band", "minimum"} and min(file["checks/passed"]) == 1
        said = json.loads(file["config/measuring"].asstr()[()])
        assert said["scaling"] == "weak" and said["stopping"]["repetitions"] == 2
        assert json.loads(file["config/order"].asstr()[()]) == {"block": 0, "position": 0}
        assert json.loads(file["provenance/scheduler"].asstr()[()])
        assert numpy.array_equal(file["delays/requested_seconds"], file["delays/realised_seconds"])
        assert file["faults"].attrs["messages_lost"] == 0
