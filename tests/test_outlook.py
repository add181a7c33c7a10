"""`predict`: what it prints, what runs record of it, and its warnings."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy
import pytest
from click.testing import CliRunner

from mpibench import outlook, prediction, theory
from mpibench.__main__ import cli
from mpibench.campaign import Alone, Campaign
from mpibench.errors import InvalidInput
from mpibench.experiment import load
from mpibench.forms import FORMS
from mpibench.problems import quadratic

# `predict` and the files of runs.

ROOT = Path(__file__).parent.parent
JOB = """
schema = 1
[experiment]
name = "race"
workers = 40
seeds = [0, 1]
stop = { updates = 4 }
snapshot = { updates = 4 }
targets = { metric = "gap", values = [0.5, 0.05], headline = 0.05 }
[problem]
name = "quadratic"
dimension = 20
noise = 0.5
[heterogeneity]
compute = { profile = "sqrt" }
[[algorithm]]
name = "rennala"
stepsize = [0.5, 1.0]
batch = [5, 50]
[[algorithm]]
name = "minibatch_sgd"
stepsize = [0.5, 1.0]
[[algorithm]]
name = "picky_sgd"
stepsize = 0.5
radius = 1.0
"""


@pytest.fixture
def viewed(tmp_path):
    """A function that gives the Outlook of JOB with replacements (old, new)."""

    def of(*replacements, overrides=()):
        text = JOB
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "job.toml").write_text(text)
        return outlook.outlook(load(tmp_path / "job.toml", overrides))

    return of


def invoke(*arguments):
    """What a command prints."""
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_predict_prints_a_row_for_each_method_and_grid_point(viewed, tmp_path):
    viewed(("sqrt", "linear"))
    lines = invoke("predict", tmp_path / "job.toml").splitlines()
    assert lines[0] == "race: 40 workers, seed 0, 1 to 40 s from gradient to gradient"
    assert lines[1].startswith("problem: L = 0.9888") and lines[1].endswith("(exact)")
    # h_m (1 + σ²/(m ε)) = m + 50.56; (m + 50.56) / (1 + 1/2 + ... + 1/m) is 19.617, 19.608, 19.614 from m = 18 on
    numbers = "ε = 0.09888, σ²/ε = 50.56; best m of m-synchronous SGD 1, useful workers 19"
    assert lines[2] == f"target: gap 0.05, {numbers}"
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in lines}
    # grid points that differ by their step sizes share a row
    methods = ("rennala", "minibatch_sgd", "picky_sgd")
    assert [line.split()[:2] for line in lines if line.startswith(methods)] == [
        ["rennala", "theory:"],
        ["rennala", "batch=5"],
        ["rennala", "batch=50"],
        ["minibatch_sgd", "theory:"],
        ["minibatch_sgd", "40"],
        ["picky_sgd", "radius=1"],
    ]
    assert rows["rennala", "theory:"] == ["batch=51", "stepsize=0.5056"]
    assert rows["minibatch_sgd", "40"][:2] == ["40", "40"]  # least, expected, most
    assert rows["rennala", "batch=5"][-1] == "1" or rows["rennala", "batch=50"][-1] == "1"  # the best
    assert rows["picky_sgd", "radius=1"][1:] == ["-"] * 6


def test_predict_as_json_is_what_runs_record(viewed, tmp_path, monkeypatch):
    viewed()
    job = tmp_path / "job.toml"
    shown = json.loads(invoke("predict", job, "--json"))
    assert shown["headline"]["best_quorum"] >= 1 and shown["constants"]["exact"] is True
    assert shown["own_parameters"].keys() == {"rennala", "minibatch_sgd"}
    assert shown["own_parameters"]["rennala"] == {"batch": 51, "stepsize": pytest.approx(0.50565, rel=1e-4)}
    assert [cell["algorithm"] for cell in shown["cells"]] == ["rennala"] * 4 + ["minibatch_sgd"] * 2 + ["picky_sgd"]
    for cell in shown["cells"]:
        found = cell["prediction"]
        assert found["update_seconds"]["least"] > 0
        assert [target["eps"] for target in found["targets"]] == pytest.approx([0.98883, 0.098883], rel=1e-4)
    ours = Campaign(Alone(), load(job), out=tmp_path / "out", say=lambda text: None)
    recorded = []
    for path, _ in ours.run(ours.experiment.cells()):
        with h5py.File(path) as file:
            recorded.append((file.attrs["seed"], file.attrs["cell"], json.loads(file["prediction"][()])))
    assert len(recorded) == 14
    expected = {cell["hash"]: cell["prediction"] for cell in shown["cells"]}
    assert all(there == expected[cell] for seed, cell, there in recorded if seed == 0)


def test_a_run_without_a_formula_has_no_prediction(viewed, tmp_path, monkeypatch):
    monkeypatch.delitem(FORMS, "picky_sgd")
    view = viewed()
    assert view.predictions[-1] is None and view.predictions[0] is not None
    assert "no prediction" in outlook.text_of(view)
    ours = Campaign(Alone(), view.experiment, out=tmp_path / "out", say=lambda text: None)
    ((path, _),) = ours.run(view.cells[-1:], progress=None)[:1]
    with h5py.File(path) as file:
        assert "prediction" not in file and file.attrs["complete"] == 1


def test_a_prediction_that_fails_ends_the_run_before_it_begins(viewed, tmp_path, monkeypatch):
    def broken(algorithm, machine):
        raise ZeroDivisionError

    view = viewed()
    monkeypatch.setitem(FORMS, "picky_sgd", broken)
    ours = Campaign(Alone(), view.experiment, out=tmp_path / "out", say=lambda text: None)
    with pytest.raises(ZeroDivisionError):
        ours.run(view.cells[-1:])
    assert not list(tmp_path.rglob("*.h5*"))


def test_predict_needs_neither_mpi_nor_torch_nor_files(viewed, tmp_path):
    viewed()
    loaded = "print(sorted({'mpi4py', 'torch', 'h5py', 'sklearn'} & set(sys.modules)))"
    text = f"""
import atexit, runpy, sys
atexit.register(lambda: {loaded})
sys.argv[:] = ["mpibench", "predict", {str(tmp_path / "job.toml")!r}]
runpy.run_module("mpibench", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("race: 40 workers") and done.stdout.endswith("\n[]\n")


def test_bad_input_is_refused_as_by_run(tmp_path):
    (tmp_path / "job.toml").write_text(JOB.replace("workers = 40", "workers = 0"))
    with pytest.raises(InvalidInput, match="workers = 0 must be"):
        invoke("predict", tmp_path / "job.toml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        invoke("predict", tmp_path / "none.toml")


# Warnings.


def method(name, **parameters):
    """Its table."""
    return f'[[algorithm]]\nname = "{name}"\nstepsize = 0.1\n' + "".join(f"{k} = {v}\n" for k, v in parameters.items())


ASGD, MINIBATCH, M_SYNC = method("async_sgd"), method("minibatch_sgd"), method("m_sync_sgd", quorum=7)
RENNALA, RINGMASTER = method("rennala", batch=5), method("ringmaster", threshold=5)
NOISY, CALM = {"problem__noise": 0.5}, {"problem__noise": 0.02}  # σ²/ε = 50.6 and 0.081, for 40 workers
FAR = {"heterogeneity__compute": '{profile="power", exponent=2.0}', "problem__noise": 0.15}  # σ²/ε = 4.55
EQUAL = {"heterogeneity__compute": '{profile="equal"}'}


@pytest.fixture
def warned(tmp_path):
    """A function that gives the warnings of an experiment with these methods; other arguments are of --set."""

    def of(*methods, **overrides):
        (tmp_path / "job.toml").write_text(JOB[: JOB.index("[[")] + "".join(methods))
        given = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
        return outlook.warnings(outlook.outlook(load(tmp_path / "job.toml", given)))

    return of


def test_an_experiment_that_separates_its_methods_has_no_warning(warned):
    assert warned(RENNALA, MINIBATCH, ASGD, **FAR) == []
    assert warned(MINIBATCH, **NOISY) == []


def test_methods_with_equal_times_are_named(warned):
    (text,) = warned(RENNALA, MINIBATCH, RINGMASTER, **FAR)
    assert text.startswith("Theory cannot separate ringmaster and rennala at gap 0.05: it gives them 6.52e+04 to ")
    assert text.endswith("7.83e+04 s, a factor 1.20, and its constants are not sharper than 1.3.")


def test_three_methods_with_equal_times_are_one_sentence(warned):
    other = 'label = "other"\n'
    (text,) = warned(RENNALA, RINGMASTER, RINGMASTER + other, MINIBATCH, **FAR)
    assert "separate ringmaster, other and rennala at" in text


def test_asgd_is_as_good_where_noise_wants_all_workers(warned):
    # with s = 50.6 the least (m + s) / Σ 1/sqrt(i) is at m = 40
    (text,) = [text for text in warned(RENNALA, ASGD, **NOISY) if "behind" in text]
    assert text.startswith("rennala can leave async_sgd behind only where")
    assert text.endswith("with 40 and σ²/ε = 50.6 the bounds differ by a factor 1.00.")
    assert not any("behind" in text for text in warned(RENNALA, MINIBATCH, **NOISY) + warned(ASGD, MINIBATCH, **NOISY))


def test_one_worker_may_be_enough(warned):
    (text,) = warned(RENNALA, MINIBATCH, **FAR | CALM)
    assert text.startswith("One worker is enough at gap 0.05, where σ²/ε = 0.0809:")
    assert warned(RENNALA, **FAR | CALM, experiment__workers=1) == []


def test_m_sync_may_be_minibatch(warned):
    (text,) = warned(M_SYNC, **NOISY)  # sqrt(m) (1 + 50.6/m) falls until 50
    assert text.startswith("m_sync_sgd does best with all 40 workers at gap 0.05, where σ²/ε = 50.6:")
    assert warned(RENNALA, **NOISY) == warned(M_SYNC, **FAR) == warned(M_SYNC, **NOISY, **EQUAL) == []


def test_equal_workers_show_nothing(warned):
    (text,) = [text for text in warned(ASGD, MINIBATCH, **EQUAL) if "equally fast" in text]
    assert text == "All workers are equally fast: what these methods do about slow workers cannot show."
    random = {"heterogeneity__compute": '{profile="exponential"}'}  # equal in the long run, not from job to job
    other = warned(MINIBATCH, **EQUAL) + warned(ASGD, MINIBATCH, **random)
    assert not any("equally fast" in text for text in other)


def test_targets_of_which_theory_says_nothing(warned, tmp_path):
    (text,) = warned(RENNALA, MINIBATCH, experiment__targets='{metric="loss", values=[-1e9], headline=-1e9}')
    assert text.startswith("The target loss -1e+09 lies below what is taken for the minimum")
    job = JOB[: JOB.index("[[")] + RENNALA + MINIBATCH
    for old, new in (("quadratic", "logistic"), ("dimension = 20\nnoise = 0.5", ""), ('"gap"', '"accuracy"')):
        job = job.replace(old, new)
    (tmp_path / "digits.toml").write_text(job)
    view = outlook.outlook(load(tmp_path / "digits.toml"))
    (text,) = outlook.warnings(view)
    assert text == "The target accuracy 0.05 has no ε: theory says nothing about the time to it."
    assert view.predictions[0]["update_seconds"]["least"] > 0 and view.own == {}


def test_a_problem_that_does_not_tell_its_constants(viewed, monkeypatch):
    monkeypatch.delattr(quadratic.Prepared, "constants")
    prediction.constants_of.cache_clear()
    view = viewed()
    prediction.constants_of.cache_clear()
    (text,) = outlook.warnings(view)
    assert text == "The problem does not tell its constants: theory says nothing about the time to a target."
    assert "problem:" not in outlook.text_of(view) and view.best() == {} == view.own
    assert json.loads(json.dumps(outlook.plain(view)))["headline"]["eps"] is None


def test_without_modelled_speeds_or_formulas(viewed):
    view = viewed()
    native = replace(view, machine=None, cells=tuple(replace(cell, clock="native") for cell in view.cells))
    assert outlook.warnings(native) == ["The native clock models no speeds, so theory says nothing before the run."]
    assert outlook.warnings(replace(view, machine=None)) == ["There is no formula for any of these methods."]


# With links.

SHADOWHEART = """
[[algorithm]]
name = "shadowheart"
stepsize = 0.5
noise_ratio = [5.0, 50.0]
compressor = { name = "rand_k", k = 1 }
"""
SLOW = (
    'compute = { profile = "sqrt" }',
    'compute = { profile = "sqrt" }\nlinks = { vector_seconds = 5000.0, down = {} }',
)


def test_the_cost_table_of_links_is_printed_where_messages_are_compressed(viewed, tmp_path):
    view = viewed(SLOW, ('[[algorithm]]\nname = "picky', SHADOWHEART + '[[algorithm]]\nname = "picky'))
    h, case = numpy.sqrt(numpy.arange(1, 41)), [view.constants[key] for key in ("smoothness", "gap", "variance")]
    case, up, tau = [*case, view.eps], numpy.full(40, 5000.0), numpy.full(40, 250.0)
    assert view.link_bounds == {
        "shadowheart": theory.shadowheart_seconds(h, tau, 19.0, *case),
        "rennala": theory.linked_rennala_seconds(h, up, *case),
        "qsgd": theory.qsgd_seconds(h, tau, 19.0, *case),
        "minibatch": theory.linked_minibatch_seconds(h, up, *case),
        "asgd": theory.linked_asgd_seconds(h, up, *case),
        "sgd_one": theory.sgd_one_seconds(h, *case),
        "gain": theory.compression_gain(h, up, 0 * up, tau, 19.0, *case[2:]),
    }
    lines = invoke("predict", tmp_path / "job.toml").splitlines()
    (line,) = [line for line in lines if line.startswith("with links")]
    assert line.startswith("with links, seconds to gap 0.05 up to a constant: sgd_one ") and "qsgd" in line
    assert any(line.split()[:3] == ["shadowheart", "noise_ratio=5", "compressor=rand_k(k=1)"] for line in lines)
    shown = json.loads(invoke("predict", tmp_path / "job.toml", "--json"))
    assert shown["link_bounds"] == view.link_bounds
    assert shown["own_parameters"]["shadowheart"].keys() == {"noise_ratio", "stepsize"}


def test_there_is_no_such_table_without_links_or_compression(viewed):
    assert viewed().link_bounds == viewed(SLOW).link_bounds == {}
    assert viewed(SLOW, ('"picky_sgd"', '"malenia_parameter_free"'), ("radius = 1.0", "")).link_bounds == {}


@pytest.mark.parametrize(
    ("links", "said"),
    [
        ("vector_seconds = 5000.0, down = {}", None),
        ("vector_seconds = 100.0", "the way down is as slow as the way up; the best bound with it is 1."),
        ("vector_seconds = 2e5, down = {}", "links are too fast, or one worker alone is best; the best bound with it"),
        ("vector_seconds = 0.1, down = {}", "links are too fast, or one worker alone is best; the best bound with it"),
    ],
)
def test_predict_says_when_compression_cannot_help(viewed, links, said):
    slow = SLOW[0], SLOW[1].replace("vector_seconds = 5000.0, down = {}", links)
    more_noise = ("noise = 0.5", "noise = 5.0")
    view = viewed(slow, more_noise, ('[[algorithm]]\nname = "picky', SHADOWHEART + '[[algorithm]]\nname = "picky'))
    found = [text for text in outlook.warnings(view) if text.startswith("Compression cannot help at gap 0.05")]
    assert [said is not None and said in text for text in found] == ([True] if said else [])
