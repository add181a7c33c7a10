"""The command line under a launcher: ranks that agree, compute what the simulation computes, and all go in the end."""

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy
import pytest
from laws import LAWS

import mpibench
from mpibench import catalogue
from mpibench.__main__ import MISSED
from mpibench.campaign import Alone, Campaign
from mpibench.experiment import load
from mpibench.verify import verify_set

ROOT = Path(mpibench.__file__).parent.parent
LAUNCHER = shutil.which(os.environ.get("MPIEXEC") or Path(sys.executable).with_name("mpiexec"))
MARK = "MPIBENCH_TEST_LAUNCH"  # in the environment of all that a test starts
RUN = ["-m", "mpi4py", "-m", "mpibench", "run"]  # as users type it
MPI = ["--engine", "mpi"]
SECONDS = 50.0  # that a test may take on a crowded machine; a hang is a launch that takes longer

pytestmark = [
    pytest.mark.skipif(LAUNCHER is None, reason="there is no mpiexec beside this Python, and MPIEXEC names none"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
]

JOB = """
schema = 1
[experiment]
name = "demo"
workers = 2
seeds = [0]
stop = { updates = 20 }
snapshot = { updates = 5 }
record_updates = true
targets = { metric = "loss", values = [3.0, 2.0, 0.2], headline = 2.0 }
[problem]
name = "quadratic"
dimension = 29
noise = 0.01
[heterogeneity]
compute = { profile = "sqrt", unit_seconds = 1.0 }
links = { vector_seconds = 0.5 }
"""
RINGMASTER = '[[algorithm]]\nname = "ringmaster"\nstepsize = 0.5\nthreshold = 2\nstop_stale = true\n'
MINIBATCH = '[[algorithm]]\nname = "minibatch_sgd"\nstepsize = 1.0\n'
MLP = ('name = "quadratic"\ndimension = 29\nnoise = 0.01', 'name = "mlp"\nhidden = 4')
NATIVE = [*MPI, "--clock", "native"]


@dataclass
class Done:
    """What a launch has left."""

    code: int
    out: str
    err: str
    seconds: float

    def went_well(self):
        """All runs are there, whether they reached their target or not; launchers may say much of a code beside 0."""
        assert self.code in (0, MISSED) and "Traceback" not in self.err and "mpibench:" not in self.err, self

    def refused(self, *texts, code=2):
        """All ranks were refused in one sentence that holds these texts."""
        assert self.code == code, self
        sentences = [line for line in self.err.splitlines() if "mpibench: " in line]  # launchers add words of their own
        assert len(sentences) == 1 and "Traceback" not in self.err, self.err
        for text in texts:
            assert text in sentences[0]


@functools.cache
def launcher():
    """The launcher with its flags; the variables are those of jobs/local.sh."""
    if "MPIEXEC_FLAGS" in os.environ:
        return [LAUNCHER, *os.environ["MPIEXEC_FLAGS"].split()]
    version = subprocess.run([LAUNCHER, "--version"], capture_output=True, text=True, timeout=20).stdout
    return [LAUNCHER, "--map-by", ":OVERSUBSCRIBE"] if "Open MPI" in version else [LAUNCHER]


def start(*programs, mark):
    """Start programs, each a number of ranks and the arguments of Python, as one job."""
    command = launcher()
    for number, (ranks, *arguments) in enumerate(programs):
        command = [*command, *([":"] if number else []), os.environ.get("MPIEXEC_NUMPROC_FLAG", "-n"), str(ranks)]
        command += [sys.executable, *map(str, arguments)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {MARK: mark, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def alive(mark):
    """The processes that a launch has started and that are still there."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def ended(process, mark, until):
    """Wait for the end of a launch, as Done; a hang and a rank that is left behind are failures."""
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=max(1.0, until - began))
        done = Done(process.returncode, out, err, time.monotonic() - began)
        while (behind := alive(mark)) and time.monotonic() < began + done.seconds + 5:
            time.sleep(0.05)
        assert not behind, f"left behind: {behind}"
        return done
    except subprocess.TimeoutExpired as hang:
        pytest.fail(f"a hang: {hang}, having said {hang.stdout} and {hang.stderr}")
    finally:
        for number in alive(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.kill()
        process.communicate()


@pytest.fixture
def launch(monkeypatch, tmp_path):
    """A function that runs programs, each (ranks, arguments of Python), under the launcher in the folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    until = time.monotonic() + SECONDS

    def run(*programs):
        mark = uuid.uuid4().hex
        return ended(start(*programs, mark=mark), mark, until)

    return run


@pytest.fixture
def job(tmp_path):
    """A function that writes an experiment, JOB with replacements (old, new) and these methods."""

    def write(*replacements, methods=RINGMASTER, name="job.toml", more=""):
        text = JOB + methods + more
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def script(tmp_path):
    """A function that writes a program that is mpibench with something put before it."""

    def write(text):
        text = textwrap.dedent(text) + "\nfrom mpibench.__main__ import main\n\nmain()\n"
        (tmp_path / "script.py").write_text(text)
        return ["-m", "mpi4py", "script.py", "run"]

    return write


def emulated(launch):
    """The results of `job.toml` under MPI; again, where the files say that this machine did not keep the pace."""
    while True:
        done = launch((3, *RUN, "job.toml", *MPI))
        assert (done.code, done.err) == (0, "") and "\x1b" not in done.out  # nor a progress bar among the lines
        found = results(Path("results"))
        if all(finding.check != "fidelity" for finding in verify_set(found.values())):
            return found
        shutil.rmtree("results")


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def results(folder):
    """(algorithm, seed) -> path of every file with the name of a result."""
    found = {}
    for path in folder.rglob("*.h5"):
        with h5py.File(path) as file:
            assert file.attrs["complete"] == 1
            found[file.attrs["algorithm"], int(file.attrs["seed"])] = path
    assert len(found) == len(list(folder.rglob("*.h5")))
    return found


def simulated(path, out, **changes):
    """The results of the experiment in virtual time, in this process."""
    overrides = ["experiment.engine=simulation", *(f"experiment.{key}={value}" for key, value in changes.items())]
    experiment = load(path, overrides)
    Campaign(Alone(), experiment, out, say=lambda text: None).run(experiment.cells())
    return results(out)


def same(
    path, reference, groups=("trace", "updates", "bytes", "ranks"), but=("bytes_handed_to_mpi", "peak_memory_bytes")
):
    """The two files hold the same bits in these groups, and the same hashes of events and model."""
    with h5py.File(path) as a, h5py.File(reference) as b:
        for name in ("event_hash", "model_hash", "outcome", "seconds", "seed", "parameters"):
            assert a.attrs[name] == b.attrs[name], name
        for group in groups:
            columns = {}
            for file in (a, b):
                columns[file] = []
                file[group].visititems(
                    lambda name, item, found=columns[file]: (
                        found.append(name) if isinstance(item, h5py.Dataset) else None
                    )
                )
            assert set(columns[a]) - set(but) == set(columns[b]) - set(but) and columns[b]
            for name in columns[b]:
                assert numpy.array_equal(a[group][name][()], b[group][name][()]), f"/{group}/{name}"


# refusals


def test_fewer_ranks_than_needed_are_refused(launch, job, tmp_path):
    job(("workers = 2", "workers = 3"))
    launch((2, *RUN, "job.toml", *MPI)).refused("needs 4 ranks for 3 workers, and there are 2", "`mpirun -n 4`")
    assert left(tmp_path) == ["job.toml"]


def test_fewer_ranks_than_needed_are_refused_before_tuning(launch, job, tmp_path):
    job(("stepsize = 0.5", "stepsize = [0.5, 1.0]"), methods=RINGMASTER + MINIBATCH, more="[tuning]\nseeds = [100]\n")
    done = launch((1, "-m", "mpibench", "run", "job.toml", *MPI))
    done.refused("needs 3 ranks for 2 workers, and there is 1")
    assert done.out == "" and left(tmp_path) == ["job.toml"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a.toml", *MPI], ["b.toml", *MPI]),
        (["a.toml", *MPI, "--set", "problem.dimension=5"], ["a.toml", *MPI]),
        (["a.toml", *MPI, "--cell", "0"], ["a.toml", *MPI, "--cell", "1"]),
        (["a.toml", *MPI, "--resume"], ["a.toml", *MPI]),
        (["a.toml", *MPI], ["a.toml"]),
    ],
    ids=["file", "set", "cell", "resume", "engine"],
)
def test_ranks_that_disagree_are_refused(launch, job, tmp_path, one, other):
    job(methods=RINGMASTER + MINIBATCH, name="a.toml")
    job(methods=RINGMASTER + MINIBATCH, name="b.toml")
    launch((1, *RUN, *one), (2, *RUN, *other)).refused("ranks disagree about the command line", "rank 1, 2")
    assert left(tmp_path) == ["a.toml", "b.toml"]


def test_bad_input_is_refused_once(launch, job, tmp_path):
    job(("workers = 2", "workers ="))
    launch((3, *RUN, "job.toml", *MPI)).refused("job.toml is not TOML", "line 5")
    job(("workers = 2", 'workers = 2\nengine = "mpi"'), ("dimension", "dimensoin"))
    launch((3, *RUN, "job.toml")).refused("`dimensoin`; did you mean `dimension`?")
    assert left(tmp_path) == ["job.toml"]


def test_a_simulation_is_refused_once(launch, job, tmp_path):
    job()
    launch((3, *RUN, "job.toml")).refused("engine simulation is one process", "--engine mpi")
    assert left(tmp_path) == ["job.toml"]


FULL = """
    # rank 0 cannot write a larger file, as on a disk that is full
    import resource
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""


@pytest.mark.parametrize(("limit", "files"), [(4096, 0), (50_000, 1)], ids=["start", "end"])
def test_a_full_disk_ends_all_ranks(launch, job, script, tmp_path, limit, files):
    job()
    done = launch((3, *script(FULL.format(limit)), "job.toml", *MPI))
    done.refused("no space left to write results/demo", "--out", code=1)
    parts = left(tmp_path / "results")
    assert len(parts) == files
    for part in parts:
        assert part.endswith(".h5.part")
        with h5py.File(next((tmp_path / "results").rglob(part))) as file:
            assert file.attrs["complete"] == 0


# what goes wrong on one rank

RAISES = """
    import mpibench.algorithms.ringmaster as ringmaster
    from mpi4py import MPI

    work = ringmaster.Ringmaster.work

    async def broken(self, node, f, k, x):
        if k > 0 and node.rank == 2:
            raise ZeroDivisionError("of rank 2")
        await work(self, node, f, k, x)

    ringmaster.Ringmaster.work = broken
"""


@pytest.mark.parametrize("guarded", [True, False], ids=["with mpi4py's guard", "without"])
def test_an_exception_on_one_rank_ends_all(launch, job, script, tmp_path, guarded):
    job(("threshold = 2", "threshold = inf"))
    arguments = script(RAISES)
    done = launch((3, *(arguments if guarded else arguments[2:]), "job.toml", *MPI))
    assert done.code not in (0, 2, 3) and done.seconds < 20
    assert "ZeroDivisionError: of rank 2" in done.err
    assert [name.endswith(".h5.part") for name in left(tmp_path / "results")] == [True]


STUCK = """
    import mpibench.algorithms.minibatch_sgd as minibatch_sgd

    async def server(self, node, x, watch):
        watch(0, x)
        if self.stepsize > 1:
            await node.recv(minibatch_sgd.Tag.GRADIENT)
        return x

    minibatch_sgd.MinibatchSGD.server = server
"""


def test_a_deadlock_in_tuning_ends_all_ranks(launch, job, script, tmp_path):
    """The trials are shared out over the ranks, and one of them meets it."""
    job(("stepsize = 1.0", "stepsize = [0.5, 2.0]"), methods=MINIBATCH, more="[tuning]\nseeds = [100]\n")
    done = launch((3, *script(STUCK), "job.toml", *MPI))
    assert done.code not in (0, 2, 3) and done.seconds < 20
    assert "deadlock: nothing can happen any more" in done.err and "rank 0: " in done.err
    assert not list((tmp_path / "results").rglob("*.h5*"))


# runs


def test_an_emulated_run_is_the_simulated_one(launch, job, tmp_path):
    path = job(methods=RINGMASTER + MINIBATCH)
    found, reference = emulated(launch), simulated(path, tmp_path / "simulated")
    assert set(found) == set(reference) == {("ringmaster", 0), ("minibatch_sgd", 0)}
    assert verify_set(found.values()) == [] and not list(tmp_path.rglob("*.part*"))
    for key, file in found.items():
        same(file, reference[key])
    before = {file: file.read_bytes() for file in found.values()}
    launch((3, *RUN, "job.toml", *MPI)).refused("2 of 2 runs have a result in results", "--resume", "--force")
    assert {file: file.read_bytes() for file in results(Path("results")).values()} == before


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_an_emulated_run_of_a_network_is_the_simulated_one(launch, job, tmp_path):
    path = job(MLP, ("[3.0, 2.0, 0.2], headline = 2.0", "[3.0], headline = 3.0"))
    (file,), (reference,) = emulated(launch).values(), simulated(path, tmp_path / "simulated").values()
    assert verify_set([file]) == []
    same(file, reference)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_synchronous_method_has_the_same_bits_on_the_native_clock(launch, job, tmp_path, workers):
    path = job(("workers = 2", f"workers = {workers}"), methods=MINIBATCH)
    done = launch((workers + 1, *RUN, "job.toml", *NATIVE))
    assert (done.code, done.err) == (0, "")
    (file,), (reference,) = results(tmp_path / "results").values(), simulated(path, tmp_path / "simulated").values()
    assert verify_set([file]) == []
    with h5py.File(file) as a, h5py.File(reference) as b:
        assert a.attrs["model_hash"] == b.attrs["model_hash"] and a.attrs["clock"] == "native"
        for name in ("loss", "gap", "updates", "iteration"):
            assert numpy.array_equal(a["trace"][name][()], b["trace"][name][()]), name
        assert numpy.array_equal(a["ranks/used"][()], b["ranks/used"][()])


CODES = """
    # every rank writes down its exit code
    import sys
    from mpi4py import MPI

    rank, leave = MPI.COMM_WORLD.rank, sys.exit

    def noted(code):
        with open(f"code-{rank}", "w") as file:
            print(code, file=file)
        leave(code)

    sys.exit = noted
"""


def test_a_missed_target_is_code_3_on_all_ranks_and_more_ranks_than_needed_sit_out(launch, job, script, tmp_path):
    job(("headline = 2.0", "headline = 0.2"), ("stop = { updates = 20 }", "stop = { seconds = 4.0 }"))
    done = launch((4, *script(CODES), "job.toml", *MPI))
    assert (done.code, "censored (budget) at 4 s" in done.out) == (3, True)
    assert [(tmp_path / f"code-{rank}").read_text() for rank in range(4)] == ["3\n"] * 4
    (file,) = results(tmp_path / "results").values()
    with h5py.File(file) as run:
        assert (run.attrs["outcome"], run.attrs["ranks"]) == ("budget", 3)


def test_what_has_a_result_is_skipped_by_all_ranks(launch, job, tmp_path):
    job(("seeds = [0]", "seeds = [0, 1]"), methods=RINGMASTER + MINIBATCH)
    assert launch((3, *RUN, "job.toml", *NATIVE, "--seed", "1", "--cell", "1")).code == 0
    (first,) = results(tmp_path / "results").values()
    before = first.read_bytes()
    done = launch((3, *RUN, "job.toml", *NATIVE, "--resume", "--json"))
    assert (done.code, done.err) == (0, "")
    assert [json.loads(line)["outcome"] for line in done.out.splitlines()] == ["reached"] * 3
    found = results(tmp_path / "results")
    assert len(found) == 4 and found["minibatch_sgd", 1] == first and first.read_bytes() == before
    assert verify_set(found.values()) == []


def test_tuning_in_simulation_is_shared_out_and_chooses_as_one_process_does(launch, job, tmp_path):
    path = job(
        ("stepsize = 1.0", "stepsize = [1e-9, 1.0, 1e9]"), methods=MINIBATCH, more="[tuning]\nseeds = [100, 101]\n"
    )
    assert launch((3, *RUN, "job.toml", *MPI)).code == 0
    experiment = load(path)
    alone = Campaign(Alone(), experiment, tmp_path / "alone", say=lambda text: None)
    alone.tune()
    (file,) = results(tmp_path / "results").values()
    with h5py.File(file) as run:
        tuning = json.loads(run["config/tuning"].asstr()[()])
    reference = json.loads(json.dumps(alone.tuned["minibatch_sgd"]))
    assert tuning["chosen"] == {"stepsize": 1.0} and str(tuning["trials"]) == str(reference["trials"])


# signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_to_the_launcher_ends_all_ranks_and_leaves_what_can_be_read(job, monkeypatch, tmp_path, number):
    monkeypatch.chdir(tmp_path)
    job(("stop = { updates = 20 }", "stop = { seconds = 600.0 }"))
    mark, until = uuid.uuid4().hex, time.monotonic() + SECONDS
    process = start((3, *RUN, "job.toml", *NATIVE), mark=mark)
    while not list(tmp_path.rglob("*.part")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.5)  # the run has begun
    assert len(alive(mark)) >= 4  # the launcher and three ranks: `ended` would see them
    process.send_signal(number)
    done = ended(process, mark, until)
    assert done.code != 0 and done.seconds < 15
    (part,) = (path for path in tmp_path.rglob("*") if ".h5" in path.name)
    with h5py.File(part) as file:
        assert part.name.endswith(".h5.part") and file.attrs["complete"] == 0
        assert json.loads(file["config/resolved"].asstr()[()])["experiment"]["clock"] == "native"


# Every method on nine ranks.

RACE = (
    ("workers = 2", "workers = 8"),
    ("updates = 20", "updates = 24"),
    ('{ profile = "sqrt", unit_seconds = 1.0 }', '{ profile = "linear", unit_seconds = 0.01 }'),
    ("vector_seconds = 0.5", "latency_seconds = 0.002"),
)


MESH = """
[graph]
name = "mesh"
rows = 3
columns = 3
exceptions = [{ source = 4, to = 1, vector_seconds = 0.03 }, { source = 0, to = 1, vector_seconds = 0.02 }]
"""
PARTS = 13  # of all rows, so that a test ends before its timeout on a crowded machine
ON_TREES = ("fragile", "fragile_accelerated", "tree_minibatch", "tree_minibatch_eager", "amelie")


def table_of(row):
    """The [[algorithm]] table of a row of laws."""
    lines = [f"{key} = {catalogue.as_toml(value)}" for key, value in row.parameters.items()]
    return "\n".join(["[[algorithm]]", f'name = "{row.name}"', f'label = "{row}"', *lines, ""])


def compare_on_nine_ranks(path, folder, count):
    """Run this experiment over MPI and in virtual time: the same bits."""
    mark = uuid.uuid4().hex
    done = ended(start((9, *RUN, path, *MPI), mark=mark), mark, time.monotonic() + 110)
    done.went_well()
    found, expected = results(Path("results")), simulated(path, folder)
    assert set(found) == set(expected) and len(found) == count
    for run, file in found.items():
        same(file, expected[run])


@pytest.mark.parametrize("part", range(PARTS))
def test_every_method_on_nine_ranks_computes_what_the_simulation_computes(job, tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    rows = [row for row in LAWS if "emulated" in catalogue.load("algorithm", row.name).clocks]
    rows = [row for row in rows if not row.needs_link_times][part::PARTS]
    path = job(*RACE, methods="\n".join(map(table_of, rows)))
    compare_on_nine_ranks(path, tmp_path / "virtual", len(rows))


def test_methods_that_need_links_on_nine_ranks(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row for row in LAWS if row.needs_link_times or row.name == "adaptive_shadowheart"]
    links = "latency_seconds = 0.002, vector_seconds = 0.008"
    fewer = (RACE[0], ("updates = 20", "updates = 8"), RACE[2], ("vector_seconds = 0.5", links))
    path = job(*fewer, methods="\n".join(map(table_of, rows)))
    compare_on_nine_ranks(path, tmp_path / "virtual", len(rows))


@pytest.mark.parametrize("name", ON_TREES)
def test_methods_on_trees_on_a_mesh_of_nine_ranks(job, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    rows = [row for row in LAWS if row.name == name]
    # Amelie's counters take no time but latency. The two slow edges make the trees to and from the pivot differ
    links = "latency_seconds = 0.002, vector_seconds = 0.008"
    slow_links = (*RACE[:-1], ("workers = 8", "workers = 9"), ("vector_seconds = 0.5", links))
    path = job(*slow_links, methods="\n".join(map(table_of, rows)) + MESH)
    compare_on_nine_ranks(path, tmp_path / "virtual", len(rows))


ASYNCHRONOUS = ("r_fast", "ad_psgd", "ad_psgd_bipartite", "osgp", "osgp_running_sums", "sgp", "swarm_sgd")
STRAGGLER = ("unit_seconds = 0.01 }", "unit_seconds = 0.01, straggler = { workers = [2], factor = 4.0 } }")
OF_THE_MEAN = ("snapshot = { updates = 5 }", "snapshot = { seconds = 0.05 }")
METHODS_OF_THE_RING = ("iallreduce_sgd", "ring_all_reduce")
NO_PATIENCE = {"patience_seconds": 0.1}  # seconds that OSGP waits for what may be lost


IN_STEP = ("ring_all_reduce", "d_psgd", "d_psgd_atc", "s_ab", "push_pull", "local_sgd", "swarm_sgd_blocking")


def with_a_straggler(job, folder, ranks, rows, updates=24, probability=0.0):
    """Run these rows on so many ranks, one of them four times slower, where messages may get lost."""
    links = "latency_seconds = 0.002, vector_seconds = 0.003"
    shape = (("workers = 2", f"workers = {ranks}"), ("updates = 20", f"updates = {updates}"), RACE[2])
    loss = f"loss = {{ probability = {probability}, max_consecutive = 5 }}\n"
    methods = loss + '[graph]\nname = "complete"\n' + "\n".join(map(table_of, rows))
    path = job(*shape, ("vector_seconds = 0.5", links), STRAGGLER, OF_THE_MEAN, methods=methods)
    compare_on_nine_ranks(path, folder, len(rows))


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("ranks", [7, 8])
def test_asynchronous_network_methods_with_a_straggler_and_loss(job, tmp_path, monkeypatch, ranks, probability):
    monkeypatch.chdir(tmp_path)
    rows = [row for row in LAWS if row.name in ASYNCHRONOUS and not (row.name.endswith("bipartite") and ranks % 2)]
    if probability:
        rows = [replace(row, parameters=dict(row.parameters) | (NO_PATIENCE if "osgp" in row.name else {}))
                for row in rows if row.tolerates_loss]  # fmt: skip
        rows = list({str(row): row for row in rows}.values())
    with_a_straggler(job, tmp_path / "virtual", ranks, rows, probability=probability)


@pytest.mark.parametrize("ranks", [7, 8])
def test_methods_that_keep_step_or_wait_for_a_pair_with_a_straggler(job, tmp_path, monkeypatch, ranks):
    monkeypatch.chdir(tmp_path)
    rows = {row.name: row for row in reversed(LAWS) if row.name in IN_STEP}  # the first of each
    assert len(rows) == len(IN_STEP)
    with_a_straggler(job, tmp_path / "virtual", ranks, list(rows.values()), updates=12)


def test_native_ranks_share_the_model_of_hogwild(launch, job):
    hogwild = '[[algorithm]]\nname = "hogwild"\nstepsize = 0.05\n'
    job(("workers = 2", "workers = 3"), ("updates = 20", "seconds = 0.5"), methods=hogwild)
    done = launch((4, *RUN, "job.toml", *NATIVE))
    done.went_well()
    (path,) = results(Path("results")).values()
    with h5py.File(path) as file:
        used, iterations = file["ranks/used"][:], file["trace/iteration"][:]
        assert (used > 100).all() and (numpy.diff(iterations) >= 0).all()
        # rank 0 counts everybody's additions, up to those that came after its last look
        assert sum(used) - 1000 < iterations[-1] <= sum(used)
        assert file["trace/loss"][-1] < file["trace/loss"][0] - 1
        assert file["ranks/messages_sent"][:].sum() == 0


@pytest.mark.parametrize("stop", ["updates = 30", "seconds = 0.5"])
def test_the_librarys_all_reduce_sums_the_gradients_of_all_ranks(launch, job, tmp_path, stop):
    iallreduce, ring = (f'[[algorithm]]\nname = "{n}"\nstepsize = 0.5\n' for n in METHODS_OF_THE_RING)
    job(("workers = 2", "workers = 3"), ("updates = 20", stop), methods=iallreduce + ring)
    launch((3, *RUN, "job.toml", *NATIVE)).went_well()
    found = results(Path("results"))
    with h5py.File(found["iallreduce_sgd", 0]) as file, h5py.File(found["ring_all_reduce", 0]) as reference:
        gradients = file["ranks/gradients"][:]
        assert gradients.min() >= 30 and numpy.ptp(gradients) <= 1
        steps = min(len(file["trace/loss"]), len(reference["trace/loss"])) - 1  # the last is where the end fell
        numpy.testing.assert_allclose(file["trace/loss"][:steps], reference["trace/loss"][:steps], rtol=1e-12)
        assert file["trace/loss"][steps - 1] < file["trace/loss"][0] - 1 and file["ranks/messages_sent"][:].sum() == 0


def test_a_rank_a_hundred_times_slower_is_not_flooded(launch, job):
    # models of 2 MB: what the fast ranks send in the meantime would be gigabytes
    methods = [("r_fast", "stepsize = 0.01\n"), ("ad_psgd", "stepsize = 0.01\n"),
               ("osgp", 'stepsize = 0.01\npeers = "graph"\n')]  # fmt: skip
    tables = [f'[[algorithm]]\nname = "{name}"\n{more}' for name, more in methods]
    slow = 'compute = { profile = "equal", straggler = { workers = [2], factor = 100.0 } }'
    profile = 'compute = { profile = "sqrt", unit_seconds = 1.0 }'
    shape = (
        ("workers = 2", "workers = 3"),
        ("updates = 20", "seconds = 2.0"),
        ("dimension = 29", "dimension = 250_000"),
    )
    job(*shape, (profile, slow), methods='[graph]\nname = "ring"\n' + "".join(tables))
    done = launch((3, *RUN, "job.toml", *NATIVE))
    done.went_well()
    for (name, _), path in results(Path("results")).items():
        with h5py.File(path) as file:
            gradients, memory = file["ranks/gradients"][:], file["ranks/peak_memory_bytes"][:]
            edges = zip(file["bytes/edges/destination"], file["bytes/edges/messages"], strict=True)
            to_the_slow_one = sum(int(count) for to, count in edges if to == 1)
        if name != "osgp":  # which waits for its neighbours, the slow one too
            assert gradients[0] > 5 * gradients[1]
        assert memory[1] < min(memory[0], memory[2]) + 100e6, (name, memory)
        assert to_the_slow_one <= 2 * (gradients[0] + gradients[2]) + 10  # R-FAST has two kinds of messages


CONSERVING = """
    # mpibench that holds R-FAST's law on every rank at every iteration: what a rank has of the mass, and has pushed
    # beyond what it received, is its gradient. Summed over ranks it is the law with all that is under way.
    import os, sys
    import numpy
    from mpibench.peers import PeerWatch

    call, seen = PeerWatch.__call__, []

    def checked(self, t, x):
        names = sys._getframe(1).f_locals
        if names.get("t"):
            mass = names["mass"]
            terms = [names["z"], *mass.pushed.values(), *(-1.0 * r for r in mass.received.values()), -1.0 * names["g"]]
            terms = [numpy.asarray(term, float) for term in terms]
            largest = max(float(numpy.abs(term).max()) for term in terms)
            assert float(numpy.abs(sum(terms)).max()) <= 1e-12 * largest, (self.node.rank, t)
            seen.append(t)
            with open(f"seen-{self.node.rank}", "w") as file:
                file.write(str(len(seen)))
        return call(self, t, x)

    PeerWatch.__call__ = checked
"""


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_r_fast_conserves_its_mass_over_mpi(launch, job, script, tmp_path, probability):
    loss = f'loss = {{ probability = {probability}, max_consecutive = 5 }}\n[graph]\nname = "ring"\n'
    links = ("vector_seconds = 0.5", "latency_seconds = 0.002, vector_seconds = 0.003")
    shape = (("workers = 2", "workers = 4"), ("updates = 20", "updates = 40"), OF_THE_MEAN, links)
    job(
        *shape,
        ("unit_seconds = 1.0", "unit_seconds = 0.01"),
        methods=loss + '[[algorithm]]\nname = "r_fast"\nstepsize = 0.3\n',
    )
    done = launch((4, *script(CONSERVING), "job.toml", *MPI))
    done.went_well()
    counts = [int((tmp_path / f"seen-{rank}").read_text()) for rank in range(4)]
    assert counts[0] >= 40 and min(counts) >= 15
    (path,) = results(Path("results")).values()
    with h5py.File(path) as file:
        assert (file["ranks/messages_lost"][:].sum() > 0) == (probability > 0)
