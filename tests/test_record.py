"""The file of a run: what was written is read back, and nothing that goes wrong leaves half a result."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest

from mpibench import provenance, record
from mpibench.errors import DiskFull, InvalidInput
from mpibench.record import RunFile, place, run_id

ATTRS = {"run_id": "r", "algorithm": "ringmaster", "parameters": {"stepsize": 0.1}, "seed": 3, "budget_seconds": np.inf}
CONFIG = {"resolved": {"experiment": {"name": "demo"}}, "raw": "schema = 1\n", "seeds": [3]}
PROVENANCE = {
    "code": {"commit": "abc"},
    "ranks": [{"rank": 0, "host": "a", "gpu": None, "memory": 5}, {"rank": 1, "host": "b", "affinity": [0, 2]}],
}


def begin(path):
    return RunFile(path, ATTRS, CONFIG, PROVENANCE)


def left(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "deep" / "run.h5"
    with begin(path) as file:
        file.append("trace", {"time": [0.0, 0.5], "iteration": [0, 4]})
        file.append("trace", {"time": [1.25], "iteration": [7]})
        file.put("trace/time", attrs={"unit": "seconds"})
        file.put("ranks", {"gradients": [3, 4]})
        file.put("fidelity", attrs={"good": True})
        assert left(tmp_path) == ["run.h5.part"]
        file.finish(outcome="reached", seconds=1.25)
    assert left(tmp_path) == ["run.h5"]
    with h5py.File(path) as file:
        attrs = dict(file.attrs)
        assert (attrs["schema"], attrs["complete"], attrs["outcome"], attrs["seconds"]) == (1, 1, "reached", 1.25)
        assert attrs["budget_seconds"] == np.inf and json.loads(attrs["parameters"]) == {"stepsize": 0.1}
        assert json.loads(file["config/resolved"].asstr()[()]) == CONFIG["resolved"]
        assert file["config/raw"].asstr()[()] == "schema = 1\n"
        assert json.loads(file["provenance/code"].asstr()[()]) == {"commit": "abc"}
        ranks = file["provenance/ranks"]
        assert list(ranks["host"].asstr()) == ["a", "b"] and list(ranks["affinity"].asstr()) == ["", "[0, 2]"]
        assert ranks["memory"][0] == 5 and np.isnan(ranks["memory"][1])
        assert list(file["trace/time"]) == [0.0, 0.5, 1.25] and file["trace/time"].dtype == np.float64
        assert list(file["trace/iteration"]) == [0, 4, 7] and file["trace/iteration"].dtype == np.int64
        assert file["trace/time"].attrs["unit"] == "seconds" and file["fidelity"].attrs["good"] == 1


@pytest.mark.parametrize(
    "second",
    [{"time": [1.0], "iteration": [1, 2]}, {"time": [1.0]}, {"time": [1.0], "iteration": [1.5]}],
    ids=["unequal lengths", "a column less", "would be rounded"],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, second):
    with begin(tmp_path / "run.h5") as file:
        file.append("trace", {"time": [0.0], "iteration": [0]})
        with pytest.raises(ValueError, match="/trace"):
            file.append("trace", second)


def test_an_existing_file_is_never_written_over(tmp_path):
    path = tmp_path / "run.h5"
    path.write_text("precious")
    with pytest.raises(InvalidInput, match=r"run\.h5 exists"):
        begin(path)
    assert left(tmp_path) == ["run.h5"]
    path.unlink()
    with pytest.raises(InvalidInput, match="exists"), begin(path) as file:
        path.write_text("precious")
        file.finish()
    assert path.read_text() == "precious"
    with h5py.File(tmp_path / "run.h5.part") as file:  # the run is not lost
        assert file.attrs["complete"] == 0
    with pytest.raises(InvalidInput, match="exists"):
        begin(path)


def test_two_runs_cannot_share_a_part(tmp_path):
    with begin(tmp_path / "run.h5"):
        pass
    with pytest.raises(InvalidInput, match="its part exists"):
        begin(tmp_path / "run.h5")


def test_an_exception_is_recorded_and_goes_on(tmp_path):
    with pytest.raises(ZeroDivisionError), begin(tmp_path / "run.h5") as file:
        file.append("trace", {"time": [0.0]})
        file.put("ranks", {"gradients": [1]})
        1 / 0  # noqa: B018
    assert left(tmp_path) == ["run.h5.part"]
    with h5py.File(tmp_path / "run.h5.part") as file:
        assert (file.attrs["complete"], file.attrs["outcome"]) == (0, "fault")
        assert file.attrs["error"] == "ZeroDivisionError: division by zero"
        assert list(file["ranks/gradients"]) == [1]


def test_a_reason_that_is_known_better_is_kept(tmp_path):
    with pytest.raises(SystemExit), begin(tmp_path / "run.h5") as file:
        file.put("/", attrs={"outcome": "walltime", "error": "ended by signal 15"})
        sys.exit(143)
    with h5py.File(tmp_path / "run.h5.part") as file:
        assert (file.attrs["outcome"], file.attrs["error"]) == ("walltime", "ended by signal 15")


def test_an_interruption_right_after_the_end_leaves_no_part_that_claims_to_be_complete(tmp_path, monkeypatch):
    def interrupt(self, missing_ok=False):
        raise SystemExit(143)

    with pytest.raises(SystemExit), begin(tmp_path / "run.h5") as file:
        monkeypatch.setattr(type(tmp_path), "unlink", interrupt)
        file.finish(outcome="reached")
    assert left(tmp_path) == ["run.h5", "run.h5.part"]
    with h5py.File(tmp_path / "run.h5") as whole, h5py.File(tmp_path / "run.h5.part") as part:
        assert (whole.attrs["complete"], part.attrs["complete"]) == (1, 0)


def test_a_killed_run_leaves_a_readable_part(tmp_path):
    """kill -9 while a child does nothing but write."""
    child = """
        import sys
        from mpibench.record import RunFile
        with RunFile(sys.argv[1], {"run_id": "r"}, {"raw": "x" * 100_000}, {}) as file:
            k = 0
            while True:
                file.append("trace", {"time": [k + i / 7 for i in range(7)], "iteration": [k] * 7, "loss": [1.0] * 7})
                k += 1
                print(k, flush=True)
    """
    for attempt in range(4):
        path = tmp_path / f"{attempt}.h5"
        command = [sys.executable, "-c", textwrap.dedent(child), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "1\n"
            time.sleep(0.02 + 0.037 * attempt)
            process.send_signal(signal.SIGKILL)
            promised = int((["1"] + process.stdout.read().split("\n")[:-1])[-1])  # appends that had returned
        assert not path.exists()
        with h5py.File(tmp_path / f"{attempt}.h5.part") as file:
            assert file.attrs["complete"] == 0 and len(file["config/raw"].asstr()[()]) == 100_000
            trace = {name: dataset[()] for name, dataset in file["trace"].items()}
        n = len(trace["time"]) // 7
        assert promised <= n <= promised + 1
        assert np.array_equal(trace["iteration"], np.repeat(np.arange(n), 7))
        assert np.array_equal(trace["loss"], np.ones(7 * n)) and np.all(np.diff(trace["time"]) > 0)


def full_after(bytes_left, code, path):
    """Run `code` in a child that may not write a file of more than so many bytes; (exit status, what it printed)."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, bytes_left))

    program = ["import sys", "from mpibench.record import RunFile", "from mpibench.errors import DiskFull", "try:"]
    program += [textwrap.indent(textwrap.dedent(code), "    ")]
    program += ["except DiskFull as error:", "    print(error)", "    sys.exit(1)"]
    command = [sys.executable, "-c", "\n".join(program), str(path)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_a_disk_full_at_the_start_leaves_nothing(tmp_path):
    status, text = full_after(4096, 'RunFile(sys.argv[1], {}, {"raw": "x" * 10_000}, {})', tmp_path / "run.h5")
    assert status == 1 and text.count("\n") == 1 and "no space left" in text
    assert left(tmp_path) == []


def test_a_disk_full_while_appending_keeps_what_was_there(tmp_path):
    code = """
        with RunFile(sys.argv[1], {}, {}, {}) as file:
            for k in range(1000):
                file.append("trace", {"time": [float(k)] * 100})
    """
    status, text = full_after(100_000, code, tmp_path / "run.h5")
    assert status == 1 and text.count("\n") == 1 and "no space left" in text
    assert left(tmp_path) == ["run.h5.part"]
    with h5py.File(tmp_path / "run.h5.part") as file:
        assert file.attrs["complete"] == 0 and len(file["trace/time"]) % 100 == 0 < len(file["trace/time"])


def test_a_disk_full_at_the_end_leaves_no_final_file(tmp_path):
    code = """
        import random
        with RunFile(sys.argv[1], {}, {}, {}) as file:
            file.put("updates", {"time": [random.random() for _ in range(100_000)]})
            file.finish(outcome="reached")
    """
    status, text = full_after(100_000, code, tmp_path / "run.h5")
    assert status == 1 and text.count("\n") == 1 and "no space left" in text
    assert left(tmp_path) == ["run.h5.part"]
    with h5py.File(tmp_path / "run.h5.part") as file:
        assert file.attrs["complete"] == 0


def test_a_disk_that_refuses_to_sync_is_full_too(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(record.errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match="no space left"), begin(tmp_path / "run.h5") as file:
        monkeypatch.setattr(os, "fsync", refuse)
        file.finish()
    assert left(tmp_path) == ["run.h5.part"]


def test_a_folder_that_cannot_be_made_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot write"):
        begin(tmp_path / "file" / "run.h5")


def test_a_part_is_never_empty(tmp_path, monkeypatch):
    """Whenever a process is killed, even as it begins, what carries the name of a part can be read."""
    seen = []

    def look(self, *arguments, write=record.RunFile._write, **keywords):
        seen.extend(part.read_bytes()[:4] for part in tmp_path.glob("*.h5.part"))
        write(self, *arguments, **keywords)

    monkeypatch.setattr(record.RunFile, "_write", look)
    with begin(tmp_path / "run.h5") as file:
        file.append("trace", {"time": [0.0]})
        file.finish()
    assert seen == [b"\x89HDF"] * 2  # none before the first


def test_large_files_are_published_rarely_and_small_ones_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "SMALL_BYTES", 50_000)
    published = []
    monkeypatch.setattr(os, "replace", lambda a, b, replace=os.replace: (published.append(b), replace(a, b)))
    with begin(tmp_path / "run.h5") as file:
        for _ in range(3):
            file.append("trace", {"time": [0.0]})
        assert len(published) == 3  # the first part is no replacement
        file.append("trace", {"time": np.zeros(100_000)})
        for _ in range(20):
            file.append("trace", {"time": [0.0]})
        assert len(published) < 15
        file.finish()
    with h5py.File(tmp_path / "run.h5") as file:
        assert len(file["trace/time"]) == 100_023


def test_places_and_run_ids():
    path = place("results", "demo", "ringmaster", "0123456789abcdef", 7, "now-local-ff")
    assert str(path) == "results/demo/ringmaster-01234567/seed-7-now-local-ff.h5"
    assert len({run_id({}) for _ in range(100)}) == 100
    assert "-local-" in run_id({})
    assert "-81-4-" in run_id({"SLURM_JOB_ID": "85", "SLURM_ARRAY_JOB_ID": "81", "SLURM_ARRAY_TASK_ID": "4"})


def test_the_environment_is_kept_by_an_allow_list_and_without_secrets():
    kept = {
        "OMP_NUM_THREADS": "1",
        "UCX_TLS": "tcp,self",
        "PYTHONPATH": "/a/long/" + "path/" * 20,
        "NCCL_DEBUG": "INFO",
    }
    dropped = {
        "HOME": "/home/someone",
        "OMPI_MCA_API_TOKEN": "abc",
        "PYTHON_KEYRING": "x",
        "FI_PROVIDER_URL": "https://me:word@host/",
        "MPICH_SESSION": "0123456789abcdef" * 4,
    }
    assert provenance.environment(kept | dropped) == {"LOADEDMODULES": ""} | kept


def test_the_batch_job_is_named_without_account_and_user():
    variables = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ACCOUNT": "a", "SLURM_JOB_USER": "me"}
    assert provenance.scheduler(variables) == {"system": "slurm", "job_id": "7", "array_task_id": "2"}
    assert provenance.scheduler({"PATH": "/bin"}) == {"system": "none"}


def test_provenance_of_this_process_goes_into_the_file_and_comes_back(tmp_path):
    rows = [provenance.rank(number) for number in range(2)]
    facts = {"code": provenance.code(), "packages": provenance.packages(), "ranks": rows}
    with RunFile(tmp_path / "run.h5", ATTRS, CONFIG, facts) as file:
        file.finish()
    with h5py.File(tmp_path / "run.h5") as file:
        assert json.loads(file["provenance/code"].asstr()[()]) == facts["code"]
        versions = json.loads(file["provenance/packages"].asstr()[()])["distributions"]
        assert versions["h5py"].split()[0] == h5py.__version__ and versions["numpy"].split()[0] == np.__version__
        assert list(file["provenance/ranks/rank"]) == [0, 1]
        assert file["provenance/ranks/clock_resolution_seconds"][0] > 0
        assert file["provenance/ranks/affinity"].asstr()[0] == ",".join(map(str, sorted(os.sched_getaffinity(0))))
    assert 10e6 < provenance.peak_memory_bytes() < 100e9


def test_the_hash_of_the_source_is_of_names_and_contents(tmp_path, monkeypatch):
    hashes = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("b.txt", "2")):
        folder = tmp_path / str(len(hashes))
        folder.mkdir()
        (folder / name).write_text(text)
        monkeypatch.setattr(provenance, "__file__", str(folder / "provenance.py"))
        hashes.add(provenance.source_hash.__wrapped__())
    assert len(hashes) == 4


def test_a_finished_file_is_small_and_says_its_hash_in_its_first_lines(tmp_path):
    path = tmp_path / "run.h5"
    with begin(path) as file:
        for k in range(60):
            file.append("trace", {"time": [float(k)], "iteration": [k], "updates": [k], "loss": [1 / (k + 1)]})
        part = (tmp_path / "run.h5.part").stat().st_size
        file.put("updates", {"staleness_histogram": np.arange(10_000)})
        file.finish(lambda file: {"findings": int(file.attrs["complete"])}, outcome="reached")
    content = path.read_bytes()
    first, second, *_ = content.split(b"\n")
    assert b"SHA-256" in first and second.decode() == hashlib.sha256(content[512:]).hexdigest()
    assert record.broken_seal(content) is None
    assert len(content) < part  # although a long column was added, which is compressed
    with h5py.File(path) as file:
        assert json.loads(file.attrs["verified"]) == {"findings": 1}
        assert list(file["trace/iteration"]) == list(range(60))
        assert file["updates/staleness_histogram"][9_999] == 9_999
