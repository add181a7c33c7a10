"""Experiments: what a file expands to, and the one sentence for each thing that is wrong with it."""

import hashlib
import json
import math
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace

import pytest

from mpibench import catalogue
from mpibench.algorithm import Centralized, Decentralized, Positive
from mpibench.algorithms.async_sgd import AsyncSGD
from mpibench.algorithms.ringmaster import Ringmaster
from mpibench.errors import InvalidInput
from mpibench.experiment import Experiment, cell_hash, load
from mpibench.heterogeneity import Links, Way
from mpibench.problems.quadratic import Quadratic
from mpibench.profiles import Sqrt

JOB = """
schema = 1
[experiment]
name = "demo"
workers = 8
seeds = [0, 1, 2]
stop = { seconds = 500.0, loss = 1e-3 }
snapshot = { seconds = 5.0 }
targets = { metric = "loss", values = [1e-1, 1e-2, 1e-3], headline = 1e-2 }
[problem]
name = "quadratic"
dimension = 29
noise = 0.01
[heterogeneity]
compute = { profile = "sqrt", unit_seconds = 1.0 }
links = { latency_seconds = 0.0, vector_seconds = 0.1, down = { vector_seconds = 0.0 } }
[[algorithm]]
name = "ringmaster"
stepsize = [0.01, 0.1]
threshold = [16, 64, inf]
exclude = [{ stepsize = 0.1, threshold = 64 }]
[[algorithm]]
name = "async_sgd"
stepsize = 1
"""
TUNING = "[tuning]\nseeds = [100, 101]\n"
GRAPH = '[graph]\nname = "star"\n'


@pytest.fixture
def job(tmp_path):
    """`job(text, ...)` loads an experiment; replacements (old, new) are made in JOB first."""

    def make(*replacements, more="", overrides=()):
        text = JOB + more
        for old, new in replacements:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        path = tmp_path / "job.toml"
        path.write_text(text)
        return load(path, overrides)

    return make


def points(cells):
    return [(cell.label, cell.algorithm) for cell in cells]


RINGMASTERS = [Ringmaster(0.01, 16), Ringmaster(0.01, 64), Ringmaster(0.01, math.inf), Ringmaster(0.1, 16)]
RINGMASTERS += [Ringmaster(0.1, math.inf)]


def test_a_grid_is_the_product_of_its_lists_without_what_is_excluded(job):
    cells = job().cells()
    assert points(cells) == [("ringmaster", r) for r in RINGMASTERS] + [("async_sgd", AsyncSGD(1.0))]


def test_a_cell_holds_what_the_file_says(job):
    cell = job(more=GRAPH).cells()[0]
    assert cell.problem == Quadratic(dimension=29, noise=0.01) and cell.compute == Sqrt(1.0)
    assert cell.links == Links(vector_seconds=0.1, down=Way(vector_seconds=0.0)) and cell.loss.probability == 0
    assert (cell.name, cell.engine, cell.clock, cell.workers, cell.ranks) == ("demo", "simulation", "virtual", 8, 9)
    assert cell.graph.size == 9 and cell.seeds == (0, 1, 2) and not cell.record_updates
    assert (cell.stop.seconds, cell.stop.updates, cell.stop.metrics) == (500.0, None, {"loss": 1e-3})
    assert cell.targets.values == (0.1, 0.01, 0.001) and cell.targets.version == 1
    assert cell.parameters == {"stepsize": 0.01, "threshold": 16, "stop_stale": False}
    assert cell.resolved["experiment"]["stop"] == {"seconds": 500.0, "loss": 1e-3}
    assert cell.resolved["heterogeneity"]["compute"] == {"profile": "sqrt", "unit_seconds": 1.0}
    assert cell.resolved["graph"] == {"name": "star"} and cell.resolved["tuning"] is None


def test_other_ranks_rebuild_the_same_cells_from_the_plain_dict(job):
    first = job(more=TUNING + GRAPH, overrides=["problem.dimension=31"])
    second = Experiment.from_resolved(json.loads(json.dumps(first.resolved)))
    assert second.cells() == first.cells() and second.trials() == first.trials()
    assert [cell.hash for cell in second.cells()] == [cell.hash for cell in first.cells()]
    assert first.cells()[0].problem.dimension == 31


def test_a_graph_file_is_relative_to_the_experiment_and_travels_with_it(job, tmp_path):
    (tmp_path / "graphs").mkdir()
    ring = [{"source": i, "to": (i + 1) % 9} for i in range(9)]
    edges = ", ".join(f"{{ source = {e['source']}, to = {e['to']} }}" for e in ring)
    (tmp_path / "graphs" / "ring.toml").write_text(f"size = 9\nedges = [{edges}]\n")
    made = job(more='[graph]\nfile = "graphs/ring.toml"\n')
    (tmp_path / "graphs" / "ring.toml").unlink()
    assert Experiment.from_resolved(made.resolved).cells()[0].graph.destinations(8) == (0,)
    assert made.cells()[0].resolved["graph"] == {"size": 9, "edges": ring}


def test_tuning_runs_every_point_on_its_own_seeds_and_then_one_of_each(job):
    made = job(more=TUNING)
    trials = made.trials()
    assert points(trials) == [("ringmaster", r) for r in RINGMASTERS]  # async_sgd has nothing to choose
    assert {trial.seeds for trial in trials} == {(100, 101)} and {trial.clock for trial in trials} == {"virtual"}
    chosen = made.cells({"ringmaster": trials[3]})
    assert points(chosen) == [("ringmaster", RINGMASTERS[3]), ("async_sgd", AsyncSGD(1.0))]
    assert {cell.seeds for cell in chosen} == {(0, 1, 2)}
    assert chosen[0].resolved["tuning"] == {"seeds": [100, 101], "engine": "simulation"}
    assert job().trials() == ()


def test_tuning_in_simulation_for_runs_under_mpi(job):
    made = job(more=TUNING, overrides=["experiment.engine=mpi"])
    assert {(cell.engine, cell.clock) for cell in made.cells()} == {("mpi", "emulated")}
    assert {(cell.engine, cell.clock) for cell in made.trials()} == {("simulation", "virtual")}


def test_the_native_clock_needs_no_model(job):
    compute = ('compute = { profile = "sqrt", unit_seconds = 1.0 }', "")
    made = job(compute, overrides=["experiment.engine=mpi", "experiment.clock=native"])
    assert made.cells()[0].compute is None and made.cells()[0].clock == "native"


def test_the_hash_is_of_what_is_computed(job):
    made = job()
    one = made.cells()[0]
    assert one.hash == job(("[0, 1, 2]", "[7]")).cells()[0].hash == job(more=TUNING).cells()[0].hash
    assert one.hash == job(("500.0", "500")).cells()[0].hash == made.cells({"ringmaster": one})[0].hash
    assert one.hash == cell_hash(json.loads(json.dumps(one.resolved)))
    assert one.hash == job(("noise = 0.01", "noise = 0.01\nshift = 0.0")).cells()[0].hash  # a default spelled out
    others = [job(("29", "30")), job(("500.0", "501.0")), job(("= 0.1, down", "= 0.2, down")), job(more=GRAPH)]
    hashes = {cell.hash for cell in made.cells()} | {other.cells()[0].hash for other in others}
    assert len(hashes) == len(made.cells()) + len(others)
    assert all(len(h) == 64 and int(h, 16) >= 0 for h in hashes)


def test_the_hash_is_pinned():
    """Results are found again by it: a change of the canonical form is a decision, not an accident."""
    resolved = {"experiment": {"name": "a", "seeds": [1]}, "problem": {"x": 1.0}, "tuning": {"seeds": [2]}}
    text = '{"experiment":{"name":"a"},"problem":{"x":1}}'
    assert cell_hash(resolved) == hashlib.sha256(text.encode()).hexdigest()


def test_overrides_come_in_order_and_reach_everything(job):
    overrides = ["experiment.workers=3", "experiment.workers=4", "problem.name=logistic", "problem.data=digits"]
    overrides += ["algorithm.ringmaster.threshold=[1, 2]", "algorithm.async_sgd.rule=drop", "experiment.stop.updates=5"]
    removed = [("dimension = 29\nnoise = 0.01\n", ""), ("exclude = [{ stepsize = 0.1, threshold = 64 }]\n", "")]
    made = job(*removed, overrides=overrides)
    assert made.settings.workers == 4 and made.settings.stop.updates == 5
    assert made.cells()[0].resolved["problem"]["name"] == "logistic"
    assert [cell.algorithm.threshold for cell in made.cells()[:4]] == [1, 2, 1, 2]
    assert made.cells()[4].algorithm == AsyncSGD(1.0, "drop")
    assert made.resolved["overrides"] == overrides and 'name = "quadratic"' in made.resolved["raw"]


def test_one_algorithm_stands_twice_by_labels(job):
    more = '[[algorithm]]\nname = "async_sgd"\nlabel = "dropping"\nstepsize = 1\nrule = "drop"\n'
    made = job(more=more)
    assert points(made.cells())[-2:] == [("async_sgd", AsyncSGD(1.0)), ("dropping", AsyncSGD(1.0, "drop"))]
    last = made.cells()[-1]
    assert last.algorithm_name == "async_sgd" and last.resolved["algorithm"]["label"] == "dropping"
    assert last.parameters == {"stepsize": 1.0, "rule": "drop"}
    by_label = job(more=more, overrides=["algorithm.dropping.stepsize=2"]).cells()
    assert [cell.algorithm.stepsize for cell in by_label[-2:]] == [1.0, 2.0]
    by_name = job(more=more, overrides=["algorithm.async_sgd.stepsize=2"]).cells()
    assert [cell.algorithm.stepsize for cell in by_name[-2:]] == [2.0, 2.0]


@dataclass(frozen=True)
class Peers(Decentralized):
    weights: tuple[Positive, ...]
    stepsize: Positive = 1.0


@dataclass(frozen=True)
class Tolerant(Centralized):
    tolerates_loss = True


@pytest.fixture
def fakes(monkeypatch):
    known = {"peers": Peers, "tolerant": Tolerant}
    real = catalogue.load
    monkeypatch.setattr(catalogue, "load", lambda kind, name: known.get(name) or real(kind, name))


def test_a_list_is_no_grid_where_the_field_is_a_list(job, fakes):
    made = job(more='[[algorithm]]\nname = "peers"\nweights = [1, 2]\nstepsize = [1.0, 2.0]\n')
    assert points(made.cells())[-2:] == [("peers", Peers((1.0, 2.0), 1.0)), ("peers", Peers((1.0, 2.0), 2.0))]
    assert made.cells()[-1].resolved["algorithm"]["weights"] == [1.0, 2.0]


def test_a_graph_is_built_for_the_ranks_of_each_algorithm(job, fakes):
    made = job(more='[[algorithm]]\nname = "peers"\nweights = [1]\n' + GRAPH)
    assert [made.cells()[k].graph.size for k in (0, -1)] == [9, 8] == [made.cells()[k].ranks for k in (0, -1)]


def test_loss_is_only_for_those_who_tolerate_it(job, fakes):
    start = JOB.index("[[algorithm]]")
    only_tolerant = (JOB[start:], '[[algorithm]]\nname = "tolerant"\n')
    loss = ("links = {", "loss = { probability = 0.1 }\nlinks = {")
    assert job(loss, only_tolerant).cells()[0].loss.probability == 0.1
    with pytest.raises(InvalidInput, match=r"ringmaster needs every message, but .* probability = 0\.1"):
        job(loss)


def test_loading_needs_neither_torch_nor_mpi(job, tmp_path):
    job()
    code = """
        import sys
        sys.modules["torch"] = sys.modules["mpi4py"] = None
        from mpibench.experiment import load
        print(len(load(sys.argv[1]).cells()))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "job.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "6\n", done.stderr


COMPUTE = 'compute = { profile = "sqrt", unit_seconds = 1.0 }'
STOP = "stop = { seconds = 500.0, loss = 1e-3 }"
LIST = "stepsize = [0.01, 0.1]"
FEW_POINTS = [("stepsize = [0.01, 0.1]", "stepsize = 1"), ("threshold = [16, 64, inf]", "threshold = 1")]
FEW_POINTS += [("exclude = [{ stepsize = 0.1, threshold = 64 }]\n", "")]
WRONG = {
    "unknown key": ([("seeds = [0", "seed = [0")], "[experiment] has no key `seed`; did you mean `seeds`?"),
    "unknown table": ([("[problem]", "[problm]")], "job.toml has no table `problm`; did you mean `problem`?"),
    "unknown top key": ([("schema = 1", "schema = 1\nfile = 2")], "has no table `file`"),
    "no schema": ([("schema = 1", "")], "must begin with `schema = 1`"),
    "newer schema": ([("schema = 1", "schema = 2")], "must begin with `schema = 1`"),
    "no algorithm": ([(JOB[JOB.index("[[") :], "")], "needs `algorithm` as a table, written [[algorithm]]"),
    "one pair of brackets": ([(JOB[JOB.index("[[") :], "[algorithm]")], "needs `algorithm` as a table, written [[alg"),
    "no TOML": ([("workers = 8", "workers =")], "is not TOML: Invalid value (at line 5"),
    "negative count": ([("= 8", "= -8")], "[experiment] workers = -8 must be a whole number >= 1 and <= 1e+06"),
    "bool for a count": ([("= 8", "= true")], "[experiment] workers = true must be a whole number"),
    "text for a count": ([("= 8", '= "8"')], '[experiment] workers = "8" must be a whole number'),
    "missing key": ([("workers = 8", "")], "[experiment] lacks `workers`, a whole number >= 1"),
    "a path as name": ([('"demo"', '"../demo"')], 'name = "../demo" names a folder of results; use letters'),
    "unknown problem": ([("quadratic", "quadratc")], "there is no problem `quadratc`; did you mean `quadratic`?"),
    "nameless problem": ([('name = "quadratic"', "")], "[problem] lacks `name`"),
    "unknown parameter": ([("dimension", "dimenson")], "[problem] has no key `dimenson`; did you mean `dimension`?"),
    "infinite parameter": ([("noise = 0.01", "noise = inf")], "[problem] noise = inf must be a finite number >= 0"),
    "what the problem refuses": ([("noise = 0.01", "probability = 0.5")], "[problem] probability = 0.5 is for"),
    "negative time": ([("unit_seconds = 1.0", "unit_seconds = -1.0")], "[heterogeneity.compute] unit_seconds = -1.0"),
    "unknown profile": ([('"sqrt"', '"sqrrt"')], "there is no such profile; did you mean `sqrt`?"),
    "too few seconds": ([(COMPUTE, 'compute = {profile = "fixed", seconds = [1.0]}')], "1 seconds for 8 workers"),
    "unknown key deep inside": ([("down = { v", "down = { w")], "links.down] has no key `wector_seconds`"),
    "both link models": ([("links = { ", "links = { bandwidth_bytes_per_second = 1e9, ")], "not both"),
    "no table of links": ([("links = {", "links = 3 # {")], "[heterogeneity] links = 3 must be a table"),
    "a path as label": ([('"async_sgd"', '"async_sgd"\nlabel = "a/b"')], 'label = "a/b" names a folder of results'),
    "no compute": ([(COMPUTE, "")], "[heterogeneity] lacks `compute`, for example"),
    "negative step size": ([(LIST, "stepsize = [0.1, -0.1]")], "ringmaster stepsize = -0.1 must be a finite"),
    "infinite step size": ([(LIST, "stepsize = inf")], "[[algorithm]] ringmaster stepsize = inf must be a finite"),
    "step size NaN": ([(LIST, "stepsize = nan")], "[[algorithm]] ringmaster stepsize = nan must be a finite"),
    "half a threshold": ([("[16, 64, inf]", "1.5")], "threshold = 1.5 must be a whole number >= 1, or inf"),
    "empty grid": ([(LIST, "stepsize = []")], "a grid without points"),
    "a point twice": ([(LIST, "stepsize = [0.1, 0.01, 0.1]")], "a point of its grid twice: { stepsize = 0.1"),
    "useless exclude": ([("threshold = 64 }", "threshold = 65 }")], "{ stepsize = 0.1, threshold = 65 } matches no"),
    "total exclude": ([("{ stepsize = 0.1, threshold = 64 }", "{ stop_stale = false }")], "matches all points"),
    "exclude of nothing": ([("{ stepsize = 0.1, threshold = 64 }", "{ treshold = 1 }")], "did you mean `threshold`?"),
    "a label twice": ([('"async_sgd"', '"ringmaster"\nthreshold = 3')], "ringmaster stands twice; give each"),
    "unknown algorithm": ([('"async_sgd"', '"asyncsgd"')], "[[algorithm]] asyncsgd name = "),
    "nameless algorithm": ([('name = "async_sgd"\n', "")], "[[algorithm]] number 2 lacks `name`"),
    "a seed twice": ([("[0, 1, 2]", "[0, 1, 1]")], "[experiment] seeds = [0, 1, 1] holds 1 twice"),
    "no seeds": ([("[0, 1, 2]", "[]")], "[experiment] seeds = [] must be a list of at least 1"),
    "negative seed": ([("[0, 1, 2]", "[-1]")], "[experiment] seeds = [-1] must be a list"),
    "endless": ([(STOP, "stop = {}")], "[experiment] stop is empty and no run would end"),
    "unknown metric to stop": ([("loss = 1e-3 }", "los = 1e-3 }")], "[experiment.stop] has no key `los`; did you"),
    "stop at a text": ([("loss = 1e-3 }", 'loss = "a" }')], '[experiment.stop] loss = "a" must be a finite number'),
    "stops too early": ([("loss = 1e-3 }", "loss = 0.1 }")], "loss = 0.1 would end every run before the"),
    "no table to stop": ([(STOP, "stop = 5")], "[experiment] stop = 5 must be a table"),
    "no time between snapshots": ([("seconds = 5.0", "seconds = 0.0")], "[experiment.snapshot] seconds = 0.0 must be"),
    "two snapshot rules": ([("seconds = 5.0", "seconds = 5.0, updates = 3")], "[experiment.snapshot] takes either"),
    "foreign metric": ([('metric = "loss"', 'metric = "accuracy"')], 'metric = "accuracy" is none of this problem'),
    "headline beside the ladder": ([("headline = 1e-2", "headline = 0.5")], "headline = 0.5 must be one of values"),
    "a rung twice": ([("values = [1e-1", "values = [1e-2")], "values = [0.01, 0.01, 0.001] holds 0.01 twice"),
    "unknown engine": ([("workers", 'engine = "mip"\nworkers')], 'engine = "mip" must be one of "simulation", "mpi"'),
    "metrics only under MPI": ([("workers", 'engine = "mpi"\nworkers'), (STOP, "stop = { loss = 0.0 }")], "metrics"),
    "gradients of a network under MPI": (
        [("workers", 'engine = "mpi"\nworkers'), (STOP, "stop = { gradients = 9 }"), ('"async_sgd"', '"d_psgd"')],
        "[[algorithm]] d_psgd has no rank that knows the gradients of all",
    ),
    "ways to no server": (
        [('"async_sgd"', '"d_psgd"'), ("links = { ", "links = { exponent = 0.5, ")],
        "[[algorithm]] d_psgd has no server, and `exponent` in [heterogeneity.links] is for ways to one",
    ),
    "a tree on a one-way graph": (
        [('"async_sgd"', '"fragile"\nbatch = 4'), ("[[alg", '[graph]\nname = "line"\ndirection = "down"\n[[alg')],
        "[[algorithm]] fragile needs a way from every rank to every other",
    ),
    "graph of another size": ([("[[alg", "[graph]\nsize = 3\nedges = []\n[[alg")], "3 nodes for 9 ranks"),
    "graph file and more": ([("[[alg", '[graph]\nfile = "a"\nsize = 3\n[[alg')], "[graph] has no key `size`"),
    "no graph file": ([("[[alg", '[graph]\nfile = "a.toml"\n[[alg')], "a.toml cannot be read"),
    "no data": ([('"quadratic"\ndimension = 29\nnoise = 0.01', '"logistic"\ndata = "a.svm"')], "a.svm' cannot be read"),
    "tuned on reported seeds": ([("[0, 1, 2]", "[0, 100]"), ("\n[heter", f"\n{TUNING}[heter")], "seed 100 of"),
    "nothing to tune": ([*FEW_POINTS, ("\n[heter", f"\n{TUNING}[heter")], "nothing to"),
    "tuning without seeds": ([("\n[heter", "\n[tuning]\n[heter")], "[tuning] lacks `seeds`, a list of at least 1"),
}


@pytest.mark.parametrize(("replacements", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_in_one_sentence(job, replacements, text):
    with pytest.raises(InvalidInput) as refusal:
        job(*replacements)
    assert text in str(refusal.value) and "\n" not in str(refusal.value) and "job.toml" in str(refusal.value)


WRONG_SETS = {
    "problem.dimension=-1": "job.toml with --set problem.dimension=-1: [problem] dimension = -1 must be",
    "problem.dimensoin=1": "[problem] has no key `dimensoin`; did you mean `dimension`?",
    "problm.dimension=1": "--set problm.dimension=1: there is no table `problm`; did you mean `problem`?",
    "algorithm.ringmastr.stepsize=1": "there is no [[algorithm]] `ringmastr`; did you mean `ringmaster`?",
    "algorithm.ringmaster.stepsiz=1": "[[algorithm]] ringmaster has no key `stepsiz`; did you mean `stepsize`?",
    "algorithm.ringmaster=1": "write algorithm.NAME.key=value",
    "problem.dimension": "--set problem.dimension: write table.key=value",
    "=3": "write table.key=value",
    "experiment.stop.seconds=-2": "[experiment.stop] seconds = -2 must be a number >= 1e-09 and <= 1e+09",
    "experiment.seeds.a=1": "`experiment.seeds` is a value, not a table",
    "experiment.engine=mip": 'with --set experiment.engine=mip: [experiment] engine = "mip" must be one of',
    "algorithm.ringmaster.stepsize=abc": '[[algorithm]] ringmaster stepsize = "abc" must be a finite number > 0',
}


@pytest.mark.parametrize(("override", "text"), WRONG_SETS.items())
def test_a_wrong_override_is_refused_in_one_sentence(job, override, text):
    with pytest.raises(InvalidInput) as refusal:
        job(overrides=[override])
    assert text in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"absent\.toml cannot be read: No such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"binary\.toml is not TOML"):
        load(tmp_path / "binary.toml")


def test_a_trial_differs_from_its_cell_in_seeds_only(job):
    made = job(more=TUNING)
    trial, cell = made.trials()[0], made.cells()[0]
    assert replace(trial, seeds=cell.seeds, resolved=cell.resolved) == cell
    assert trial.hash == cell.hash
