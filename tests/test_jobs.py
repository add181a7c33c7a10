"""The experiments in jobs/: all can be run, and each has a form for nine ranks that takes under a minute."""

import importlib.util
from pathlib import Path

import pytest

from mpibench.experiment import load

JOBS = {path.stem: path for path in sorted((Path(__file__).parent.parent / "jobs").glob("*.toml"))}
SMALL = 9  # ranks that a laptop runs at an emulated pace
LONG = 60.0  # modelled seconds of all runs of a small form together


@pytest.fixture(scope="module")
def experiments():
    """stem -> the validated experiment; those that need what is not installed are left out."""
    torch = importlib.util.find_spec("torch") is not None
    return {stem: load(path) for stem, path in JOBS.items() if torch or '"mlp"' not in path.read_text()}


def ranks(experiment):
    return max(cell.ranks for cell in experiment.cells())


def runs(experiment):
    methods = experiment.methods if experiment.tuning else experiment.cells()
    return len(methods) * len(experiment.settings.seeds)


def small_form(stem, experiments):
    """The nearest of a-b-mpi and a-mpi for a-b."""
    parts = stem.split("-")
    names = ["-".join([*parts[:end], "mpi"]) for end in range(len(parts), 0, -1)]
    return next((experiments[name] for name in names if name in experiments), None)


def test_every_job_is_small_or_has_a_small_form(experiments):
    large = {stem for stem, experiment in experiments.items() if ranks(experiment) > SMALL}
    assert large
    for stem in large:
        small = small_form(stem, experiments)
        assert small is not None and ranks(small) <= SMALL, stem


def test_a_small_form_has_the_methods_of_its_job(experiments):
    pairs = [(experiments[stem], experiments[f"{stem}-mpi"]) for stem in experiments if f"{stem}-mpi" in experiments]
    assert pairs
    for large, small in pairs:
        assert type(small.problem) is type(large.problem)
        assert {m.label for m in small.methods} == {m.label for m in large.methods}


def test_small_forms_are_for_mpi_and_short(experiments):
    small = {stem: experiment for stem, experiment in experiments.items() if stem.endswith("-mpi")}
    assert small
    for stem, experiment in small.items():
        settings, links = experiment.settings, experiment.links
        assert (settings.engine, settings.clock) == ("mpi", "emulated"), stem
        assert runs(experiment) * settings.stop.seconds <= LONG, stem
        assert experiment.tuning.engine == "simulation", stem
        # without links that take time, ranks are not promised to agree on simultaneous events
        assert links.latency_seconds or links.bandwidth_bytes_per_second or links.vector_seconds, stem


def test_results_are_named_after_the_file(experiments):
    for stem, experiment in experiments.items():
        assert experiment.settings.name == stem


def test_each_file_says_first_what_it_is():
    for stem, path in JOBS.items():
        assert path.read_text(encoding="utf-8").startswith("# "), stem


def test_seeds_are_enough_for_intervals(experiments):
    for stem, experiment in experiments.items():
        assert len(experiment.settings.seeds) >= (6 if stem.endswith("-mpi") else 10), stem
