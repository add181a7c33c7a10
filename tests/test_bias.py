"""Methods for workers with equal objectives, where these differ: what they converge to, and who says so."""

import csv
import json

import h5py
import numpy
import pytest
from click.testing import CliRunner
from laws import LAWS
from toy import Toy, cells, toy_cell

from analysis.__main__ import main as analysis
from mpibench import outlook
from mpibench.__main__ import cli
from mpibench.campaign import Alone, Campaign
from mpibench.experiment import load
from mpibench.problems.logistic import Logistic
from mpibench.problems.mlp import MLP
from mpibench.problems.quadratic import Quadratic
from mpibench.problems.quadratics import Quadratics
from mpibench.runner import simulate

MINIMISERS = (6.0, -2.0, -2.0, -2.0)  # of four workers' parabolas, the first being the fastest; that of the mean is 0
AND = {
    "fedbuff": {"stepsize": 1.0, "local_stepsize": 0.02},
    "ata": {"alpha": 1e-3},  # it knows who is fast
    "fo_sgd": {"rho": 1.0, "rho_server": 1.0},  # in one dimension exact
}
# where OSGP gives up waiting it depends on the links who weighs how much
MEASURED = [row for row in LAWS if row.virtual and not ("osgp" in row.name and "patience_seconds" in row.parameters)]


@pytest.mark.parametrize("row", MEASURED, ids=str)
def test_a_method_is_biased_if_it_comes_to_rest_elsewhere_than_at_the_minimum_of_the_mean(row):
    toy = Toy(x=(0.0,), sample=lambda i, number: -MINIMISERS[i - 1])
    parameters = dict(row.parameters) | {"stepsize": 0.02} | AND.get(row.name, {})
    links = {"vector_seconds": 0.1} if row.needs_link_times else {}
    cell = toy_cell(row.name, parameters, [1, 2, 4, 8], toy, links, stop={"updates": 1000}, record_updates=False)
    x = simulate(cell, 0).trace["x0"]
    at_rest = abs(numpy.mean(x[len(x) // 2 :]))
    said = "`homogeneous`, or `is_biased`, says otherwise"
    assert at_rest > 0.6 if cell.algorithm.is_biased(4) else at_rest < 0.3, said


# Which problems have workers that differ.


def mean_gradients(problem):
    """Of three workers at one point, the noise left out."""
    prepared = problem.prepare(3, 0)
    x = prepared.start() + 1.0
    return [prepared.objective(i).gradient(x, 0.0) for i in (1, 2, 3)]


@pytest.mark.parametrize(
    ("problem", "differ"),
    [
        (Quadratic(dimension=5), False),
        (Quadratic(dimension=5, shift=0.1), True),
        (Quadratics(dimension=5), True),
        (Quadratics(dimension=5, interpolation=True), True),
        (Quadratics(dimension=5, heterogeneity=0.0), False),
    ],
)
def test_quadratics_whose_workers_differ(problem, differ):
    first, *others = mean_gradients(problem)
    assert problem.heterogeneous == differ
    assert all(numpy.allclose(first, other) != differ for other in others)


@pytest.mark.parametrize("cls", [Logistic, MLP])
def test_data_that_are_not_split_evenly_differ(cls):
    assert not cls().heterogeneous
    assert cls(split="label").heterogeneous and cls(split="dirichlet", alpha=0.1).heterogeneous


def test_one_worker_does_not_differ_and_not_every_problem_tells():
    shifted = {"name": "quadratic", "dimension": 2, "shift": 0.1}
    (alone,) = cells("rennala", {"stepsize": 0.1, "batch": 2}, [1], problem=shifted)
    (two,) = cells("rennala", {"stepsize": 0.1, "batch": 2}, [1, 2], problem=shifted)
    toy = toy_cell("rennala", {"stepsize": 0.1, "batch": 2}, [1, 2])
    assert [cell.biased for cell in (alone, two, toy)] == [False, True, False]


# What is said of it.

JOB = """
schema = 1
[experiment]
name = "race"
workers = 3
seeds = [0]
stop = { updates = 4 }
snapshot = { updates = 1 }
targets = { metric = "gap", values = [1.0], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 4
noise = 0.1
shift = 0.1
[heterogeneity]
compute = { profile = "linear" }
[[algorithm]]
name = "rennala"
stepsize = 0.5
batch = 2
[[algorithm]]
name = "m_sync_sgd"
stepsize = 0.5
quorum = [2, 3]
[[algorithm]]
name = "malenia"
stepsize = 0.5
batch = 4
"""


@pytest.fixture
def race(tmp_path, monkeypatch):
    """A function that runs JOB with these overrides into `out`: (what is said meanwhile, its files)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)

    def run(*overrides):
        said = []
        ours = Campaign(Alone(), load("job.toml", overrides), out="out", say=said.append)
        return said, [path for path, _ in ours.run(ours.experiment.cells())]

    return run


def shown(*arguments):
    done = CliRunner().invoke(analysis, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0
    return " ".join(done.stdout.split())


SENTENCE = "BIASED: m_sync_sgd, quorum = 2; rennala. The objectives of workers differ here;"


def test_it_runs_and_the_files_and_tables_say_that_it_is_biased(race):
    said, paths = race()
    assert said[0].startswith("biased on this problem") and said[0].endswith(": rennala, m_sync_sgd")
    found = {}
    for path in paths:
        with h5py.File(path) as file:
            assert file.attrs["complete"] == file.attrs["heterogeneous"] == 1
            found[file.attrs["algorithm"], json.loads(file.attrs["parameters"]).get("quorum")] = file.attrs["biased"]
    assert found == {("rennala", None): 1, ("m_sync_sgd", 2): 1, ("m_sync_sgd", 3): 0, ("malenia", None): 0}
    table = shown("table", "--ungated", "out")
    assert "| rennala (biased) |" in table and "| malenia |" in table and "| m_sync_sgd, quorum = 3 |" in table
    assert SENTENCE in table
    assert "rennala (biased)" in shown("table", "--ungated", "out", "--format", "latex")
    done = CliRunner().invoke(analysis, ["table", "--ungated", "out", "--format", "csv"])
    rows = csv.DictReader(done.stdout.splitlines())
    assert {row["method"]: row["biased"] for row in rows if row["method"]}["rennala"] == "1"
    for command in (["curves", "--out", "c.png"], ["predicted"], ["staleness", "--figure", "s.png"]):
        assert SENTENCE in shown(command[0], "out", *command[1:]), command


def test_nothing_is_said_where_workers_are_equal(race):
    said, paths = race("problem.shift=0.0")
    with h5py.File(paths[0]) as file:
        assert (file.attrs["heterogeneous"], file.attrs["biased"]) == (0, 0)
    assert not any("biased" in text.lower() for text in (*said, shown("table", "--ungated", "out")))


def test_predict_warns(race):
    text, *_ = outlook.warnings(outlook.outlook(load("job.toml")))
    assert text.startswith("The objectives of workers differ, and rennala and m_sync_sgd are biased there:")
    text, *_ = outlook.warnings(outlook.outlook(load("job.toml", ["algorithm.m_sync_sgd.quorum=3"])))
    assert text.startswith("The objectives of workers differ, and rennala is biased there:")
    printed = CliRunner().invoke(cli, ["predict", "job.toml", "--set", "problem.shift=0.0"]).stdout
    assert "biased" not in printed
