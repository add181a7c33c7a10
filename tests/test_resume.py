"""An experiment that is cut off goes on: after a warning of the time limit, amid tuning, after runs that have failed,
and after its launcher or a rank has been killed at any instant."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import h5py
import numpy
import pytest
import test_launch

from mpibench.trials import Trials
from mpibench.verify import verify_set

ROOT = Path(__file__).parent.parent
TRIES = int(os.environ.get("MPIBENCH_KILLS", "4"))  # of each kind of victim
JOB = """
schema = 1
[experiment]
name = "demo"
workers = 2
seeds = [0, 1]
stop = { seconds = 0.4 }
snapshot = { seconds = 0.05 }
targets = { metric = "loss", values = [3.0], headline = 3.0 }
[problem]
name = "quadratic"
dimension = 29
noise = 0.01
[heterogeneity]
compute = { profile = "sqrt", unit_seconds = 0.005 }
links = { latency_seconds = 0.002 }
[[algorithm]]
name = "async_sgd"
stepsize = [0.05, 0.1]
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.5
"""
TUNING = "[tuning]\nseeds = [100, 101]\n"

# mpibench that stands still where the environment says: at the HOLD-th evaluation of seed HOLD_SEED; the first trial of
# tuning and every run say their seed
HELD = """
    import os, time
    from mpibench import runner
    from mpibench.__main__ import main
    from mpibench.problems import quadratic

    evaluate, simulate, seen = quadratic.Prepared.evaluate, runner.simulate, []

    def held(self, x):
        seen.append(str(self.seed))
        while seen.count(os.environ.get("HOLD_SEED")) == 3:
            open("held", "w").close()
            time.sleep(0.01)
        return evaluate(self, x)

    def counted(cell, seed, show=None):
        with open("simulated" if cell.problem.__class__ is quadratic.Quadratic else os.devnull, "a") as file:
            file.write(f"{cell.label} {cell.parameters['stepsize']} {seed}\\n")
        return simulate(cell, seed, show)

    quadratic.Prepared.evaluate, runner.simulate = held, counted
    main()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of the test, which is the current one, with job.toml and held.py in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.toml").write_text(JOB)
    (tmp_path / "held.py").write_text(textwrap.dedent(HELD))
    return tmp_path


def start(*arguments, hold=""):
    """mpibench as a process of its own, held at an evaluation of this seed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "MPI_LOCAL", "SLURM_"))}
    environment |= {"PYTHONPATH": str(ROOT), "HOLD_SEED": str(hold)}
    command = [sys.executable, "held.py", "run", "job.toml", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def interrupted(number, *arguments, hold):
    """The exit code of a process that gets a signal when it is held."""
    Path("held").unlink(missing_ok=True)
    process = start(*arguments, hold=hold)
    until = time.monotonic() + 60
    while not Path("held").exists():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=30)
    return process.returncode


def finished(*arguments):
    """What a process says that goes to its end."""
    process = start(*arguments)
    out = process.communicate(timeout=100)[0]
    assert process.returncode in (0, 3), out
    return out


def runs(folder):
    """(algorithm, parameters, seed) -> path of every result."""
    found = {}
    for path in Path(folder).rglob("*.h5"):
        with h5py.File(path) as file:
            assert file.attrs["complete"] == 1
            found[file.attrs["algorithm"], file.attrs["parameters"], int(file.attrs["seed"])] = path
    assert len(found) == len(list(Path(folder).rglob("*.h5")))
    return found


def same(one, other):
    """Hold two folders to the same runs with the same bits."""
    one, other = runs(one), runs(other)
    assert one.keys() == other.keys()
    for run in one:
        with h5py.File(one[run]) as a, h5py.File(other[run]) as b:
            assert (a.attrs["event_hash"], a.attrs["model_hash"]) == (b.attrs["event_hash"], b.attrs["model_hash"])
            assert numpy.array_equal(a["trace/loss"], b["trace/loss"])


def test_a_warned_simulation_asks_for_another_go_and_its_file_says_so(here):
    assert interrupted(signal.SIGUSR1, hold=1) == 75
    (part,) = here.rglob("*.part")
    with h5py.File(part) as file:
        assert (file.attrs["outcome"], file.attrs["error"]) == ("walltime", "ended by signal 10")
    assert interrupted(signal.SIGUSR1, "--resume", hold=1) == 75
    finished("--resume")
    finished("--out", "whole")
    same("results", "whole")
    assert verify_set(runs("results").values()) == []
    again = {(path.parent.name, seed): 0 for (_, _, seed), path in runs("results").items()}
    for (_, _, seed), path in runs("results").items():
        with h5py.File(path) as file:
            again[path.parent.name, seed] = int(file.attrs.get("begun_before", 0))
    assert again.pop((part.parent.name, 1)) == 2 and set(again.values()) == {0}


def test_tuning_that_was_cut_off_goes_on_and_chooses_the_same(here):
    Path("job.toml").write_text(JOB + TUNING)
    assert interrupted(signal.SIGKILL, hold=101) == -signal.SIGKILL
    (kept,) = here.rglob("*.jsonl")
    kept.write_text(kept.read_text() + '["torn')  # as a kill amid a write leaves it
    known = len(Trials.read(here / "results" / "demo"))
    assert known >= 1
    Path("simulated").unlink()
    out = finished("--resume", "--cell", "0")
    assert f"{known} runs of them known" in out
    tuned = [line for line in Path("simulated").read_text().splitlines() if line.endswith(("100", "101"))]
    assert len(tuned) == 4 - known
    Path("simulated").unlink()
    finished("--resume")  # nothing is tuned again, for whatever cell
    assert not [line for line in Path("simulated").read_text().splitlines() if line.endswith(("100", "101"))]
    finished("--out", "whole")
    same("results", "whole")
    tunings = []
    for folder in ("results", "whole"):
        for path in runs(folder).values():
            with h5py.File(path) as file:
                if file.attrs["algorithm"] == "async_sgd":
                    tuning = json.loads(file["config/tuning"].asstr()[()])
                    assert tuning.pop("core_seconds") > 0
                    tunings.append(tuning)
    assert len(tunings) == 4 and all(tuning == tunings[0] for tuning in tunings)


def test_without_resume_tuning_is_done_anew(here):
    Path("job.toml").write_text(JOB + TUNING)
    finished("--cell", "0")
    finished("--cell", "0", "--force")
    assert Path("simulated").read_text().count("async_sgd 0.05 100") == 2


def test_some_cells_of_a_job_are_interleaved(here):
    finished("--cell", "1", "--cells-per-job", "2")
    assert Path("simulated").read_text().splitlines() == [
        "async_sgd 0.1 0", "minibatch_sgd 0.5 0", "minibatch_sgd 0.5 1", "async_sgd 0.1 1",
    ]  # fmt: skip


def test_what_has_failed_is_left_out_if_asked(here):
    text = (here / "held.py").read_text()
    fails = '    if (cell.label, seed) == ("minibatch_sgd", 0):\n        raise ArithmeticError("broken")\n'
    (here / "held.py").write_text(text.replace("    return simulate(", f"{fails}    return simulate("))
    process = start()
    assert "ArithmeticError: broken" in process.communicate(timeout=60)[0] and process.returncode == 1
    out = finished("--resume", "--skip-failed")
    assert "minibatch_sgd seed 0: has failed before" in out
    assert len(runs("results")) == 5


# Killed at random instants.


@pytest.mark.skipif(test_launch.LAUNCHER is None, reason="there is no mpiexec beside this Python")
@pytest.mark.parametrize("victim", ["launcher", "rank", "one process"])
def test_what_is_killed_at_any_instant_is_readable_and_goes_on(here, victim):
    """Emulated or simulated; where everything has a result, another folder is begun."""
    generator = random.Random(f"{victim} {os.environ.get('MPIBENCH_KILLS_SEED', 0)}")
    out, hits, longest = 0, 0, 3.0
    for _ in range(TRIES):
        mark, began = uuid.uuid4().hex, time.monotonic()
        arguments = ["run", "job.toml", "--resume", "--out", str(out)]
        if victim == "one process":
            process = test_launch.start((1, "-m", "mpibench", *arguments), mark=mark)
        else:
            process = test_launch.start((3, *test_launch.RUN, *arguments[1:], "--engine", "mpi"), mark=mark)
        instant = began + generator.uniform(0.2, longest)
        while time.monotonic() < instant and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is not None:  # too late: it takes no longer than that
            longest = max(0.3, time.monotonic() - began)
        ranks = [number for number in test_launch.alive(mark) if is_rank(number)]
        if ranks:
            hits += 1
            chosen = process.pid if victim == "launcher" else generator.choice(ranks)
            with contextlib.suppress(ProcessLookupError):
                os.kill(chosen, signal.SIGKILL)
        process.communicate(timeout=60)
        until = time.monotonic() + 20
        while test_launch.alive(mark):
            assert time.monotonic() < until, "ranks are left behind"
            time.sleep(0.05)
        for part in here.rglob("*.part"):
            with h5py.File(part) as file:
                assert file.attrs["complete"] == 0 and "resolved" in file["config"]
        if len(runs(str(out)) if Path(str(out)).exists() else {}) == 6:
            out += 1
    assert hits >= TRIES // 4
    mark = uuid.uuid4().hex
    last = ["job.toml", "--resume", "--out", str(out)]
    if victim != "one process":
        test_launch.ended(
            test_launch.start((3, *test_launch.RUN, *last, "--engine", "mpi"), mark=mark), mark, time.monotonic() + 100
        ).went_well()
    else:
        finished(*last[1:])
    assert len(runs(str(out))) == 6 and verify_set(runs(str(out)).values()) == []
    if victim == "one process":
        finished("--out", "whole")
        same(str(out), "whole")


def is_rank(number):
    """Whether a process runs mpibench and starts no others."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        return b"python" in words[0] and b"run" in words
    return False
