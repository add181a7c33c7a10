"""Parts of killed runs made readable, results of several places together, and drift between two sets."""

import json
import shutil

import h5py
import numpy
import pytest
from click.testing import CliRunner

from analysis import __main__ as command_line
from analysis import drift
from analysis.errors import InvalidInput as Refused
from analysis.races import load as races
from mpibench import gathering, record
from mpibench.__main__ import cli
from mpibench.campaign import Alone, Campaign
from mpibench.errors import InvalidInput
from mpibench.experiment import load
from mpibench.verify import verify, verify_set

JOB = """
schema = 1
[experiment]
name = "gathered"
workers = 2
seeds = [0, 1]
stop = { updates = 40 }
snapshot = { updates = 5 }
record_events = true
targets = { metric = "loss", values = [0.2], headline = 0.2 }
[problem]
name = "quadratic"
dimension = 3
noise = 0.001
[heterogeneity]
compute = { profile = "sqrt" }
links = { latency_seconds = 0.1 }
[[algorithm]]
name = "async_sgd"
stepsize = 0.2
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.4
"""


def run(folder, *pairs, seeds=None):
    """The results of JOB with these replacements, in this folder."""
    text = JOB
    for old, new in pairs:
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "job.toml").write_text(text)
    experiment = load(folder / "job.toml", [f"experiment.seeds={seeds}"] if seeds else [])
    done = Campaign(Alone(), experiment, folder / "results", say=lambda text: None).run(experiment.cells())
    return folder / "results", [path for path, _ in done]


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return run(tmp_path_factory.mktemp("once") / "a")


@pytest.fixture
def results(once, tmp_path):
    return shutil.copytree(once[0], tmp_path / "results")


def resealed(path, change):
    with h5py.File(path, "r+") as file:
        change(file)
    path.write_bytes(record.seal(path.read_bytes()[512:]))


def killed(path, **attrs):
    """Make of a result the part that a killed run would have left."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(path.read_bytes()[512:])
    path.unlink()
    with h5py.File(part, "r+") as file:
        for name in ("outcome", "seconds", "event_hash", "model_hash", "verified"):
            del file.attrs[name]
        del file["ranks"]
        file["provenance/ranks/process"][...] = 1 << 22  # no such process
        file.attrs.update({"complete": 0, **attrs})
    return part


def test_a_part_becomes_a_failed_run_that_names_the_reason(results):
    path = next(results.rglob("seed-1-*.h5"))
    part = killed(path)
    done = gathering.collect([results])
    assert not part.exists() and path.exists() and done.findings == []
    assert len(done.lines) == 1 and "killed before it had ended; without ranks" in done.lines[0]
    with h5py.File(path) as file:
        assert (file.attrs["complete"], file.attrs["outcome"]) == (0, "fault")
    (finding,) = verify(path)  # it is sealed
    assert finding.check == "complete" and "killed before it had ended" in finding.text
    (race,) = races([results])
    (failed,) = [run for run in race.runs if run.stopped_from_outside]
    assert "killed before" in failed.error
    done = CliRunner().invoke(command_line.main, ["table", "--ungated", str(results)])
    assert "killed before it had ended" in " ".join(done.stdout.split())


def test_a_reason_that_the_part_names_is_kept(results):
    path = next(results.rglob("*.h5"))
    killed(path, outcome="walltime", error="ended by signal 15")
    gathering.collect([results])
    with h5py.File(path) as file:
        assert file.attrs["outcome"] == "walltime" and file.attrs["error"].startswith("ended by signal 15")


def test_a_run_that_still_writes_or_can_go_on_is_left(results):
    first, second, *_ = sorted(results.rglob("*.h5"))
    part = killed(first)
    with h5py.File(part, "r+") as file:
        file.create_group("restart")
    still = second.with_name(second.name + ".part")
    still.write_bytes(second.read_bytes()[512:])  # by this process
    second.unlink()
    lines = gathering.collect([results]).lines
    assert any("can go on" in line for line in lines) and any("still runs" in line for line in lines)
    assert part.exists() and still.exists()
    gathering.collect([results], also_restartable=True)
    assert first.exists() and not part.exists() and still.exists()


def test_the_status_of_a_collected_run_is_failed(results, once):
    path = next(results.rglob("seed-0-*.h5"))
    killed(path, outcome="fault", error="ValueError: no")
    gathering.collect([results])
    said = CliRunner().invoke(cli, ["status", str(once[0].parent / "job.toml"), "--out", str(results)])
    assert said.exception is None and "ValueError: no" in said.output and "failed" in said.output


def test_a_collected_run_is_run_again_by_resume(results, once):
    path = next(results.rglob("seed-0-*.h5"))
    killed(path)
    gathering.collect([results])
    experiment = load(once[0].parent / "job.toml")
    done = Campaign(Alone(), experiment, results, say=lambda text: None).run(experiment.cells(), resume=True)
    assert len(done) == 1 and done[0][0].parent == path.parent and path.exists()


def test_results_of_two_places_come_together(once, tmp_path):
    other, theirs = run(tmp_path / "b", seeds=[2, 3])
    copy = shutil.copytree(once[0], tmp_path / "copy")
    done = gathering.merge([once[0], other, copy], tmp_path / "all")
    assert len(list((tmp_path / "all").rglob("*.h5"))) == len(once[1]) + len(theirs) == 8 and done.findings == []
    assert sum("duplicate of" in line for line in done.lines) == 4
    assert verify_set(sorted((tmp_path / "all").rglob("*.h5"))) == []
    for path in once[1]:
        assert (tmp_path / "all" / path.relative_to(once[0])).read_bytes() == path.read_bytes()
    again = gathering.merge([other], tmp_path / "all")
    assert all("duplicate of" in line for line in again.lines)


def test_other_targets_are_refused_and_nothing_is_written(once, tmp_path):
    other, _ = run(tmp_path / "b", ("headline = 0.2", "headline = 0.2, version = 2"))
    with pytest.raises(InvalidInput, match=r"differ between .*version 1\) and .*version 2"):
        gathering.merge([once[0], other], tmp_path / "all")
    assert not (tmp_path / "all").exists()
    gathering.merge([once[0]], tmp_path / "all")
    with pytest.raises(InvalidInput, match="only results with the same targets"):
        gathering.merge([other], tmp_path / "all")


def test_damaged_files_and_two_that_claim_one_run_are_not_merged(once, results, tmp_path):
    path = next(results.rglob("*.h5"))
    resealed(path, lambda file: file.attrs.__setitem__("note", "another"))
    with pytest.raises(InvalidInput, match="claim to be the run"):
        gathering.merge([once[0], results], tmp_path / "all")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = gathering.merge([results], tmp_path / "all")
    assert len(done.findings) == 1 and ": seal: " in done.findings[0] and not (tmp_path / "all").exists()
    with pytest.raises(InvalidInput, match="there is no file or folder"):
        gathering.merge([tmp_path / "absent"], tmp_path / "all")


def rewritten(name, change):
    """Change the values of a dataset."""

    def what(file):
        values = change(file[name][()])
        del file[name]
        file[name] = values

    return what


WRONG = {
    "an arrival before its departure": (rewritten("events/until", lambda v: numpy.r_[v[0] - 9, v[1:]]), "events"),
    "an event of no rank": (rewritten("events/rank", lambda v: v + 2), "events"),
    "a failed check": (rewritten("checks/passed", lambda v: 0 * v), "checks"),
    "too fast": (lambda f: f.attrs.__setitem__("plausibility", "faster than theory allows"), "plausibility"),
    "more received than sent": (rewritten("bytes/edges/received", lambda v: v + 100), "ledger"),
    "ways that do not add up": (rewritten("bytes/mpi/up", lambda v: v + 1), "ledger"),
    "headers without bytes": (rewritten("bytes/mpi/edges", lambda v: v // 2), "ledger"),
    "phases that do not add up": (
        rewritten("provenance/phases", lambda v: json.dumps({"measured": 1.0, "total": 3.0})), "phases",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_verify_finds_what_does_not_fit_together(results, name):
    change, check = WRONG[name]
    path = next(results.rglob("*.h5"))
    assert verify(path) == []
    resealed(path, change)
    assert check in {finding.check for finding in verify(path)}


def test_verify_finds_methods_that_did_not_meet_the_same_delays(results):
    paths = sorted(results.rglob("*.h5"))
    assert verify_set(paths) == []

    def other(file):
        said = json.loads(file["config/pairing"].asstr()[()])
        del file["config/pairing"]
        file["config/pairing"] = json.dumps(said | {"compute": "0" * 16})

    resealed(paths[-1], other)
    (finding,) = verify_set(paths)
    assert finding.check == "pairing" and finding.text.startswith("compute of seed 1")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return run(tmp_path_factory.mktemp("many") / "a", seeds=list(range(10)))[0]


def test_the_same_results_have_not_drifted(many):
    found = drift.compare(races([many]), races([many]))
    assert not found.drifted and found.changed == () and set(found.rows["ratio"]) == {1.0}
    assert CliRunner().invoke(command_line.main, ["drift", str(many), str(many)]).exit_code == 0


def test_slower_runs_and_other_events_are_flagged(many, tmp_path):
    slower = shutil.copytree(many, tmp_path / "slower")
    for path in slower.rglob("*.h5"):
        if "async" in path.parent.name:
            resealed(path, rewritten("trace/time", lambda time: 2 * time))
    path = next(p for p in slower.rglob("*.h5") if "minibatch" in p.parent.name)
    resealed(path, lambda file: file.attrs.__setitem__("event_hash", "another"))
    found = drift.compare(races([many]), races([slower]))
    flags = dict(zip(found.rows["method"], found.rows["flag"], strict=True))
    assert flags == {"async_sgd": "slower", "minibatch_sgd": "other events in 1 of 10 runs"}
    done = CliRunner().invoke(command_line.main, ["drift", str(many), str(slower)])
    assert done.exit_code == 1 and "2 of 2 comparisons have drifted" in done.stdout


def test_what_the_new_results_were_made_with_is_said(many, tmp_path):
    new = shutil.copytree(many, tmp_path / "new")

    def other(file):
        said = json.loads(file["provenance/packages"].asstr()[()])
        del file["provenance/packages"]
        file["provenance/packages"] = json.dumps(said | {"python": "9.9"})

    for path in new.rglob("*.h5"):
        resealed(path, other)
        if "minibatch" in path.parent.name:
            path.unlink()
    found = drift.compare(races([many]), races([new]))
    assert any(text.startswith("Python: ") and text.endswith("9.9 now") for text in found.changed)
    assert found.only == ("gathered simulation minibatch_sgd: only old",)


def test_results_with_nothing_in_common_are_refused(many, tmp_path):
    other, _ = run(tmp_path / "b", ('name = "gathered"', 'name = "other"'))
    with pytest.raises(Refused, match="no method of the same experiment"):
        drift.compare(races([many]), races([other]))
