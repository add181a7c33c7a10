"""Experiments on a real Slurm: arrays under srun with both libraries, requeues, failures, and what is collected.

`make test-slurm` runs these: it installs Slurm where it is missing (tests/slurm.py) and names a Python with Open MPI.
"""

import hashlib
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy
import pytest
import slurm

from mpibench.verify import verify_set

ROOT = Path(__file__).parent.parent
PYTHONS = {"pmi2": sys.executable, "pmix": os.environ.get("MPIBENCH_OPENMPI_PYTHON")}
LIBRARY = {"pmi2": "MPICH", "pmix": "Open MPI"}
PATIENCE = 120.0  # seconds that the jobs of a test may take

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif("MPIBENCH_TEST_SLURM" not in os.environ, reason="starts a Slurm: `make test-slurm` does"),
]

JOB = """
schema = 1
[experiment]
name = "small"
engine = "mpi"
workers = 2
seeds = [0, 1]
stop = { seconds = 0.3 }
snapshot = { seconds = 0.05 }
targets = { metric = "loss", values = [4.0, 3.0], headline = 3.0 }
[problem]
name = "quadratic"
dimension = 29
noise = 0.01
[heterogeneity]
compute = { profile = "sqrt", unit_seconds = 0.005 }
links = { latency_seconds = 0.002 }
"""
THREE = """
[[algorithm]]
name = "async_sgd"
stepsize = [0.1, 0.2]
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.5
"""
BROKEN = '''
"""A worker that fails after some gradients."""

from dataclasses import dataclass

from mpibench.algorithms.async_sgd import AsyncSGD


@dataclass(frozen=True)
class Broken(AsyncSGD):
    async def worker(self, node, f):
        await node.recv(0)
        await node.sleep(0.1)
        raise ArithmeticError("this one is broken")
'''


@pytest.fixture(scope="module")
def conf():
    """The path of the configuration of a Slurm that runs."""
    slurm.install()
    with slurm.running() as path:
        yield path


def complete(path):
    """Whether a result is of a run that has ended; what `collect` makes of a part is not."""
    with h5py.File(path) as file:
        return file.attrs["complete"] == 1


class Cluster:
    """A folder with a site, and mpibench as users have it there."""

    def __init__(self, folder, conf, pmi):
        self.folder, self.python, self.code = folder, PYTHONS[pmi], ROOT
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
        self.environment["SLURM_CONF"] = str(conf)
        self.site(pmi)

    def site(self, pmi="pmi2", **more):
        """Write site.toml."""
        lines = {"pmi": pmi, "cores_per_node": slurm.CPUS, "time": "00:05:00", "warning_seconds": 60, "cap": 2}
        lines |= {"exclusive": False, "longest": "01:00:00", "partition": "main"} | more
        kernels = {k: v for k, v in self.environment.items() if k.startswith("OPENBLAS_")}  # which last bits depend on
        variables = "[environment]\n" + "".join(
            f"{key} = {json.dumps(str(value))}\n" for key, value in {"PYTHONPATH": self.code, **kernels}.items()
        )
        (self.folder / "site.toml").write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()) + variables
        )

    def __call__(self, *arguments, codes=(0,), module="mpibench"):
        """Run a command; what it prints."""
        environment = self.environment | {"PYTHONPATH": str(self.code)}
        done = subprocess.run(
            [self.python, "-m", module, *arguments], cwd=self.folder, env=environment, timeout=60,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode in codes, (done.stdout, done.stderr, self.logs())
        return done.stdout + done.stderr

    def slurm(self, *command):
        """Run a command of Slurm; what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30)
        assert command[0] == "scancel" or done.returncode == 0, done
        return done.stdout

    def submit(self, text, *arguments):
        """Submit an experiment; the id of its array."""
        (self.folder / "job.toml").write_text(text)
        said = self("submit", "job.toml", "--site", "site.toml", *arguments)
        return re.match(r"job (\d+):", said)[1]

    def wait(self, condition=None):
        """Wait for the condition, or until the queue is empty; the logs explain what did not come."""
        until = time.monotonic() + PATIENCE
        while not (condition() if condition else not self.slurm("squeue", "-h")):
            if time.monotonic() > until:
                pytest.fail(f"in {PATIENCE:g} s: {self.slurm('squeue')}, {self.logs()}")
            time.sleep(0.1)

    def go_on(self, job):
        """Let a job that has been requeued begin when what is left of it has gone, not in two minutes; wait for all."""
        self.wait(lambda: "BeginTime" in self.slurm("squeue", "-h", "-o", "%r"))
        self.wait(lambda: not slurm.steps(job))
        time.sleep(1.1)  # what is launched in the second in which the job was killed is taken for that one, and refused
        self.slurm("scontrol", "update", f"JobId={job}_0", "StartTime=now")
        self.wait()

    def files(self, pattern="*.h5"):
        """The complete result files, or those of another pattern, sorted."""
        found = sorted((self.folder / "results").rglob(pattern))
        return [path for path in found if complete(path)] if pattern == "*.h5" else found

    def logs(self):
        """What the jobs have printed."""
        daemons = sorted(Path(self.environment["SLURM_CONF"]).parent.glob("slurm*.log"))
        said = [f"{path.name}: {path.read_text()[-1500:]}" for path in daemons]
        return "\n".join([*(f"{path.name}: {path.read_text()}" for path in self.files("*.out")), *said])


@pytest.fixture
def cluster(tmp_path, conf):
    """A function that gives a Cluster whose srun starts MPI in this way."""

    def of(pmi="pmi2"):
        if PYTHONS[pmi] is None:
            pytest.skip("MPIBENCH_OPENMPI_PYTHON names no Python with Open MPI")
        return Cluster(tmp_path, conf, pmi)

    return of


def content(path):
    """What a run has computed, apart from when and where: attributes, trace, counters."""
    found = {}
    with h5py.File(path) as file:
        names = ("algorithm", "parameters", "seed", "cell", "outcome", "seconds", "event_hash", "model_hash")
        found |= {name: file.attrs[name] for name in names}
        for group in ("trace", "updates", "ranks", "bytes"):
            file[group].visititems(
                lambda name, node, group=group: (
                    found.update({f"{group}/{name}": node[()]}) if isinstance(node, h5py.Dataset) else None
                )
            )
    return found


def same(one, other):
    """Whether two files hold the same run."""
    one, other = content(one), content(other)
    assert one.keys() == other.keys()
    for name in one:
        numpy.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_native_run_is_warned_and_goes_on_after_a_requeue(cluster):
    here = cluster()
    text = JOB.replace('engine = "mpi"', 'engine = "mpi"\nclock = "native"').replace("0.3", "4.0").replace("0, 1", "0")
    text = text[: text.index("[heterogeneity]")] + '[[algorithm]]\nname = "async_sgd"\nstepsize = 0.1\n'
    array = here.submit(text)
    here.wait(lambda: here.files("*.part"))
    time.sleep(1.0)
    here.slurm("scancel", "--signal=USR1", f"{array}_0")  # as --signal does before the time limit
    here.go_on(array)
    (path,) = here.files()
    with h5py.File(path) as file:
        assert file.attrs["restarts"] == 1 and file.attrs["seconds"] == pytest.approx(4.0)
        assert 0 < file["faults/seconds"][0] < 4.0
    assert "goes on after" in here.logs()


@pytest.mark.parametrize("number", ["KILL", "requeue"])
def test_a_batch_job_that_is_killed_is_readable_and_goes_on(cluster, number):
    """At random instants, as often as MPIBENCH_KILLS says; `requeue` is what a node's failure does."""
    here, generator = cluster(), random.Random(number)
    for attempt in range(int(os.environ.get("MPIBENCH_KILLS", "2"))):
        shutil.rmtree(here.folder / "results", ignore_errors=True)
        array = here.submit(JOB + THREE, "--cells-per-job", "3", "--no-collect")
        here.wait(lambda: here.files("*.out"))  # it has begun on the node
        time.sleep(generator.uniform(0.2, 4.0))
        if number == "KILL":
            here.slurm("scancel", "--full", "--signal=KILL", f"{array}_0")
        else:
            here.slurm("scontrol", "requeue", f"{array}_0")
            here.go_on(array)
        here.wait()
        for part in here.files("*.part"):
            with h5py.File(part) as file:
                assert file.attrs["complete"] == 0 and "resolved" in file["config"]
        if len(here.files()) < 6:
            assert number == "KILL", here.logs()  # what was requeued has gone on by itself
            here.submit(JOB + THREE, "--cells-per-job", "3", "--no-collect")
            here.wait()
        assert len(here.files()) == 6, (attempt, here.logs())
        assert verify_set(here.files()) == []


@pytest.mark.parametrize("pmi", PYTHONS)
def test_an_array_of_cells_under_srun(cluster, pmi):
    here = cluster(pmi)
    array = here.submit(JOB + THREE)
    here.wait()
    assert len(here.files()) == 6, here.logs()
    assert here.files("*.part") == []
    for path in here.files():
        with h5py.File(path) as file:
            facts = {name: json.loads(file[f"provenance/{name}"].asstr()[()]) for name in ("mpi", "scheduler")}
            assert LIBRARY[pmi] in facts["mpi"]["library"]
            assert facts["scheduler"]["array_job_id"] == array
            assert f"-{array}-" in file.attrs["run_id"]
            assert "begun_before" not in file.attrs
    table = (here.folder / "results" / "small" / "table.md").read_text()  # the job that collects has made it
    assert "async_sgd" in table and "minibatch_sgd" in table
    assert "<html" in (here.folder / "results" / "small" / "report.html").read_text()
    assert re.findall(r"^ +(\d)  2 done", here("status", "job.toml"), re.MULTILINE) == ["0", "1", "2"]


def test_a_requeue_keeps_what_is_finished_and_ends_with_the_same_files(cluster):
    here = cluster()
    text = JOB.replace('"mpi"', '"simulation"').replace("0, 1", "0, 1, 2, 3")
    text = text.replace("seconds = 0.3", "updates = 12_000")
    text = text.replace("snapshot = { seconds = 0.05 }", "snapshot = { updates = 600 }")
    text += '[[algorithm]]\nname = "async_sgd"\nstepsize = [0.1, 0.05]\n[tuning]\nseeds = [100]\n'
    text = text.replace('[tuning]\n', '[[algorithm]]\nname = "minibatch_sgd"\nstepsize = 0.5\n[tuning]\n')
    array = here.submit(text, "--cells-per-job", "2")

    def under_way():
        return len(here.files()) >= 2 and len(here.files("*.part")) == 1

    here.wait(under_way)
    finished = {path: hashlib.sha256(path.read_bytes()).digest() for path in here.files()}
    here.slurm("scancel", "--signal=USR1", f"{array}_0")  # as --signal does before the time limit
    here.go_on(array)
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in finished} == finished
    assert len(here.files()) == 8, here.logs()
    restarted = {path: h5py.File(path).attrs.get("begun_before", 0) for path in here.files()}
    assert sum(restarted.values()) == 1 and not any(restarted[path] for path in finished)
    (again,) = (path for path, count in restarted.items() if count)
    with h5py.File(again) as file:
        assert json.loads(file["provenance/scheduler"].asstr()[()])["restart_count"] == "1"
    kept = here.files("*.jsonl")
    assert len(kept) == 1 and len(kept[0].read_text().splitlines()) == 2  # tuning was not done again
    assert "has a result" in here.logs()
    here("run", "job.toml", "--out", "whole")  # the experiment without an interruption
    whole = sorted((here.folder / "whole").rglob("*.h5"))
    key = lambda path: (path.parent.name, path.name.partition("-2")[0])  # noqa: E731
    for one, other in zip(sorted(here.files(), key=key), sorted(whole, key=key), strict=True):
        assert key(one) == key(other)
        same(one, other)


def test_a_cell_that_fails_stops_no_other(cluster, tmp_path):
    here = cluster()
    here.code = tmp_path / "code"
    for name in ("mpibench", "analysis", "jobs"):
        shutil.copytree(ROOT / name, here.code / name, ignore=shutil.ignore_patterns("__pycache__"))
    (here.code / "mpibench" / "algorithms" / "broken.py").write_text(BROKEN)
    here.site()
    broken = '[[algorithm]]\nname = "broken"\nstepsize = 0.1\n'
    here.submit(JOB + broken + THREE, "--cells-per-job", "3")  # in the first job the broken one, too
    here.wait()
    assert len(here.files()) == 6, here.logs()
    collected = [path for path in (here.folder / "results").rglob("*.h5") if not complete(path)]
    assert [path.parent.name.partition("-")[0] for path in collected] == ["broken"] * 2
    status = here("status", "job.toml")
    assert "2 failed" in status and "2 done" in status
    assert "broken" in (here.folder / "results" / "small" / "table.md").read_text()


def test_a_library_that_srun_does_not_start_is_refused_once(cluster):
    here = cluster("pmix")
    (here.folder / "job.toml").write_text(JOB + THREE)
    environment = here.environment | {"PYTHONPATH": str(ROOT)}
    for pmi, python in (("none", PYTHONS["pmi2"]), ("pmi2", PYTHONS["pmix"])):
        command = ["srun", f"--mpi={pmi}", "-n", "3", python, "-m", "mpi4py", "-m", "mpibench", "run", "job.toml"]
        done = subprocess.run(command, cwd=here.folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.count("3 processes were started, and each is alone") == 1, done
    assert not (here.folder / "results").exists()


def test_from_a_clone_to_a_report_in_the_four_commands_of_the_readme(cluster):
    here = cluster()
    (block,) = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    clone, env, submit, report = block.splitlines()
    folder = here.folder / "mpibench"
    environment = {k: v for k, v in here.environment.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def shell(command, cwd=folder):
        done = subprocess.run(
            ["bash", "-ec", command], cwd=cwd, env=environment, timeout=150,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:], here.logs())
        return done.stdout

    shell(clone.replace("ADDRESS", shlex.quote(str(ROOT))), here.folder)
    here.folder = folder  # where its logs are
    # packages are those of this environment, so that `make env` finds them and installs but the clone
    subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
    packages = next((folder / ".venv" / "lib").glob("python*")) / "site-packages"
    (packages / "borrowed.pth").write_text(f"{Path(numpy.__file__).parent.parent}\n")
    for library in set(Path(sys.prefix, "lib").iterdir()) - set(Path(sys.prefix, "lib").glob("python*")):  # MPI
        (folder / ".venv" / "lib" / library.name).symlink_to(library)
    shell(f'{env} PYTHON="{sys.executable}"')
    short = {"workers": 2, "stop.seconds": 0.4, "seeds": "[0,1]", "snapshot.seconds": 0.02}
    short = "".join(f" --set experiment.{k}={v}" for k, v in short.items())
    said = shell(f"{submit} {short} --set tuning.seeds=[100] --cells-per-job 3")
    assert said.count("job ") == 2
    here.wait()
    shell(f"{report} --ungated")  # for two seeds support no claim
    assert "ringmaster" in (folder / report.split()[-1]).read_text()
    assert len(here.files()) == 6, here.logs()


def test_slurm_is_asked_before_anything_is_submitted(cluster):
    here = cluster()
    (here.folder / "job.toml").write_text(JOB + THREE)
    many = JOB + f'[[algorithm]]\nname = "async_sgd"\nstepsize = {[0.001 * k for k in range(1, 30)]}\n'
    (here.folder / "many.toml").write_text(many)
    for job, arguments, sentence in (
        ("job.toml", ["--partition", "mian"], "there is no partition `mian`; did you mean `main`?"),
        ("job.toml", ["--pmi", "pmi3"], "srun has no --mpi=pmi3; did you mean `pmi"),
        ("job.toml", ["--time", "2:00:00"], "the time limit 2:00:00 is above the site's longest, 01:00:00"),
        ("many.toml", [], "29 jobs are more than the 21 that an array may have on this site; --cells-per-job 2"),
    ):
        said = here("submit", job, "--site", "site.toml", *arguments, codes=(2,))
        assert sentence in said and len(said.splitlines()) == 1
    assert here.slurm("squeue", "-h") == "" and not (here.folder / "results").exists()
