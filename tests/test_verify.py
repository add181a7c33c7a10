"""The linter of result files: silent about a good file, and one line about each thing that is wrong."""

import json
import textwrap

import h5py
import numpy as np
import pytest

from mpibench.experiment import load
from mpibench.record import RunFile, is_sealed, place, seal
from mpibench.verify import verify, verify_set

JOB = """
    schema = 1
    [experiment]
    name = "demo"
    workers = 2
    seeds = [0, 1]
    stop = { seconds = 10.0 }
    snapshot = { seconds = 5.0 }
    targets = { metric = "loss", values = [1e-1, 1e-2], headline = 1e-2 }
    [problem]
    name = "quadratic"
    dimension = 3
    [heterogeneity]
    compute = { profile = "equal" }
    [[algorithm]]
    name = "ringmaster"
    stepsize = 0.5
    threshold = inf
"""
MPI = ("experiment.engine=mpi",)
NATIVE = (*MPI, "experiment.clock=native")


def write(folder, seed=0, overrides=(), tuning_seeds=(100,), run_id=None):
    """A file as a run of this job would leave it."""
    (folder / "job.toml").write_text(textwrap.dedent(JOB))
    (cell,) = load(folder / "job.toml", overrides).cells()
    run_id = run_id or f"run-{seed}"
    attrs = {"run_id": run_id, "experiment": cell.name, "algorithm": cell.label, "parameters": cell.parameters}
    attrs |= {"engine": cell.engine, "clock": cell.clock, "workers": 2, "ranks": 3, "seed": seed}
    attrs |= {"cell": cell.hash[:16], "final_model": "the server's", "budget_seconds": 10.0}
    config = {"resolved": cell.resolved, "raw": JOB, "seeds": list(cell.seeds), "hash": cell.hash}
    config["tuning"] = {"trials": [], "seeds": list(tuning_seeds)}
    provenance = {name: {} for name in ("code", "packages", "env", "data", "mpi")}
    provenance["ranks"] = [{"rank": rank, "host": "a"} for rank in range(3)]
    path = place(folder, cell.name, cell.label, cell.hash, seed, run_id)
    with RunFile(path, attrs, config, provenance) as file:
        trace = {"time": [0.0, 5.0, 10.0], "iteration": [0, 4, 9], "loss": [1.0, 0.5, 0.05]}
        trace |= {name: [0, 4, 9] for name in ("updates", "gradients", "discarded", "messages", "bytes", "bits")}
        file.append("trace", trace)
        file.put("trace/loss", attrs={"direction": "lower"})
        file.put("ranks", {"gradients": [0, 5, 5], "messages_sent": [10, 4, 4], "messages_received": [8, 5, 4]})
        file.put("ranks", {"messages_lost": [0, 0, 0], "messages_in_flight": [1, 0, 0]})
        if cell.engine == "mpi":
            file.put("clock", {"resolution_seconds": [1e-9] * 3, "overhead_seconds": [5e-8] * 3})
            file.put("fidelity", attrs={"good": 1, "lateness_p99_seconds": 1e-4})
        file.finish(outcome="budget", seconds=10.0, event_hash="ab", model_hash="cd")
    return path


@pytest.mark.parametrize("overrides", [(), MPI, NATIVE], ids=["virtual", "emulated", "native"])
def test_a_good_file_has_no_findings(tmp_path, overrides):
    assert verify(write(tmp_path, overrides=overrides)) == []
    assert verify_set([write(tmp_path, 1, overrides), *tmp_path.rglob("seed-0*.h5")]) == []


def sealed_again(path):
    """What was changed shall not be found by the seal."""
    content = path.read_bytes()
    path.write_bytes(seal(content[512 * is_sealed(content) :]))
    return path


def replace(name, value):
    def change(file):
        attrs = dict(file[name].attrs)
        del file[name]
        file[name] = value
        file[name].attrs.update(attrs)

    return change


def attribute(name, value, of="/"):
    return lambda file: file[of].attrs.__setitem__(name, value)


def delete(name):
    return lambda file: file.__delitem__(name)


def delete_attribute(name, of="/"):
    return lambda file: file[of].attrs.__delitem__(name)


def edit_resolved(file):
    resolved = json.loads(file["config/resolved"].asstr()[()])
    resolved["algorithm"]["stepsize"] = 0.7
    replace("config/resolved", json.dumps(resolved))(file)


WRONG = {
    "newer schema": (attribute("schema", 2), "schema", "schema is 2"),
    "killed": (attribute("complete", 0), "complete", "not been finished"),
    "failed": (lambda f: f.attrs.update({"complete": 0, "error": "Oh: no"}), "complete", "Oh: no"),
    "attribute missing": (delete_attribute("outcome"), "attributes", "`outcome` is missing"),
    "unknown outcome": (attribute("outcome", "won"), "attributes", "'won'"),
    "clock of the other engine": (attribute("clock", "native"), "attributes", "'native'"),
    "changed configuration": (edit_resolved, "hash", "/config/resolved has the hash"),
    "changed cell": (attribute("cell", "0" * 16), "hash", "0" * 16),
    "no JSON": (replace("config/resolved", "{"), "config", "no JSON"),
    "no resolved configuration": (delete("config/resolved"), "config", "/config/resolved is missing"),
    "no raw configuration": (delete("config/raw"), "config", "/config/raw is missing"),
    "other workers": (attribute("workers", 3), "config", "workers is 3, but 2"),
    "other parameters": (attribute("parameters", '{"stepsize": 9.0}'), "config", "parameters is"),
    "foreign seed": (attribute("seed", 7), "seeds", "seed 7 is none of [0, 1]"),
    "tuned on the reported seed": (replace("config/tuning", '{"seeds": [1, 100]}'), "tuning", "[1]"),
    "provenance missing": (delete("provenance/code"), "provenance", "/provenance/code"),
    "a rank without counters": (replace("ranks/gradients", [1, 9]), "ranks", "/ranks/gradients has 2 values"),
    "unequal lengths": (replace("trace/loss", [1.0, 0.5]), "trace", "unequal lengths [2, 3]"),
    "time goes back": (replace("trace/time", [0.0, 6.0, 5.0]), "trace", "/trace/time decreases"),
    "counter goes back": (replace("trace/bytes", [0, 4, 3]), "trace", "/trace/bytes decreases"),
    "time beyond the run": (replace("trace/time", [0.0, 5.0, 11.0]), "trace", "beyond a run of 10.0"),
    "column missing": (delete("trace/iteration"), "trace", "lacks iteration"),
    "no direction": (delete_attribute("direction", "trace/loss"), "trace", "/trace/loss does not say"),
    "hidden NaN": (replace("trace/loss", [1.0, np.nan, 0.05]), "numbers", "/trace/loss is NaN 1 times"),
    "hidden infinity": (replace("trace/loss", [1.0, 0.1, np.inf]), "numbers", "infinite 1 times among 3"),
    "NaN in time": (replace("trace/time", [0.0, np.nan, 10.0]), "numbers", "/trace/time is NaN"),
    "more gradients than computed": (replace("trace/gradients", [0, 4, 11]), "ledger", "above 10"),
    "a message got nowhere": (replace("ranks/messages_lost", [0, 0, 1]), "ledger", "18 messages were sent"),
}
WRONG_MPI = {
    "a rank without provenance": (replace("provenance/ranks/rank", [0, 2]), "ranks", "2 values for 3 ranks"),
    "no rows of ranks": (delete("provenance/ranks"), "provenance", "/provenance/ranks is missing"),
    "one row of ranks": (replace("provenance/ranks/host", ["a"]), "ranks", "/provenance/ranks/host has 1 values"),
    "no MPI": (delete("provenance/mpi"), "provenance", "/provenance/mpi"),
    "no clock": (delete("clock"), "clock", "lacks resolution_seconds, overhead_seconds"),
    "coarse clock": (replace("clock/resolution_seconds", [1e-9, 0.6, 1e-9]), "clock", "10 resolutions of 0.6"),
    "slow clock": (replace("clock/overhead_seconds", [1e-9, 0.3, 1e-9]), "clock", "takes 0.3 s"),
}
WRONG_EMULATED = {
    "no fidelity": (delete("fidelity"), "fidelity", "does not say"),
    "poor fidelity": (attribute("good", 0, "fidelity"), "fidelity", "lateness_p99_seconds 0.0001"),
}
CASES = [(name, (), *case) for name, case in WRONG.items()]
CASES += [(name, NATIVE, *case) for name, case in WRONG_MPI.items()]
CASES += [(name, MPI, *case) for name, case in WRONG_EMULATED.items()]


@pytest.mark.parametrize(("overrides", "change", "check", "text"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_fault_is_found_in_one_line(tmp_path, overrides, change, check, text):
    path = write(tmp_path, overrides=overrides)
    with h5py.File(path, "r+") as file:
        change(file)
    lines = [str(finding) for finding in verify(sealed_again(path)) if finding.check == check]
    assert any(text in line for line in lines), lines
    assert all("\n" not in line and line.startswith(f"{path}: {check}: ") for line in lines)


def test_a_diverged_run_may_have_infinite_metrics_but_no_lost_times(tmp_path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["outcome"] = "diverged"
        replace("trace/loss", [1.0, np.inf, np.nan])(file)
    assert verify(sealed_again(path)) == []
    with h5py.File(path, "r+") as file:
        file.attrs["outcome"] = "reached"
        replace("trace/loss", [0.001, np.inf, np.nan])(file)  # after its target
    assert verify(sealed_again(path)) == []
    with h5py.File(path, "r+") as file:
        replace("trace/time", [0.0, np.nan, 10.0])(file)
    assert [finding.check for finding in verify(sealed_again(path))] == ["numbers"]


def test_what_is_no_result_file(tmp_path):
    (tmp_path / "a.h5").write_text("hello")
    seal, finding = verify(tmp_path / "a.h5")
    assert seal.check == "seal" and finding.check == "schema" and "cannot be read" in finding.text
    (finding,) = verify(tmp_path / "absent.h5")
    assert "cannot be read" in finding.text
    with h5py.File(tmp_path / "b.h5", "w"):
        pass
    _, finding = verify(tmp_path / "b.h5")
    assert finding.text == "schema is None, and this version reads 1"


def test_the_part_of_a_killed_run_is_only_unfinished(tmp_path):
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        for name in ("outcome", "seconds", "event_hash", "model_hash"):
            del file.attrs[name]
        del file["trace"], file["ranks"]
        file.attrs["complete"] = 0
    assert [finding.check for finding in verify(sealed_again(path))] == ["complete"]


def test_what_only_a_set_shows(tmp_path):
    first, second = write(tmp_path, 0), write(tmp_path, 1)
    assert verify_set([first, second]) == []
    again = write(tmp_path, 1, run_id="again")
    (finding,) = verify_set([first, second, again])
    assert (finding.check, finding.path) == ("seeds", str(again)) and "seed 1" in finding.text
    with h5py.File(again, "r+") as file:
        file.attrs.update({"seed": 0, "run_id": "run-1", "cell": "f" * 16})
    assert [finding.check for finding in verify_set([second, sealed_again(again)])] == ["hash", "runs"]


def test_tuning_seeds_of_one_file_are_reported_in_another(tmp_path):
    tuned = write(tmp_path, 5, ["experiment.seeds=[5]"], tuning_seeds=[1])
    reported = write(tmp_path, 1)
    assert verify(tuned) == verify(reported) == []
    (finding,) = verify_set([tuned, reported])
    assert finding.check == "tuning" and finding.path == str(reported) and "seed 1" in finding.text


def test_a_changed_byte_is_found_wherever_it_is(tmp_path):
    """One byte in each of many places, also in what HDF5 keeps for itself."""
    path = write(tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place_ in [0, 100, 511, 512, len(content) - 1, *rng.integers(len(content), size=300)]:
        damaged = bytearray(content)
        damaged[place_] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        findings = verify(path)
        assert [finding.check for finding in findings] == ["seal"], place_
        assert all("\n" not in str(finding) for finding in findings)
    path.write_bytes(content)
    assert verify(path) == []


def test_a_file_that_was_cut_or_written_by_something_else_has_no_seal(tmp_path):
    path = write(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    assert {finding.check for finding in verify(path)} == {"seal"}
    path.write_bytes(content[512:])  # the HDF5 file alone, whatever made it
    assert [finding.check for finding in verify(path)] == ["seal"]
