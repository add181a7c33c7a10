"""The command line in one process: what it prints, its exit codes, and what it leaves on the disk."""

import contextlib
import gzip
import hashlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy
import pytest

import mpibench
import mpibench.algorithms
import mpibench.problems
from mpibench import catalogue
from mpibench.__main__ import main
from mpibench.problems import quadratic
from mpibench.verify import verify_set

ROOT = Path(mpibench.__file__).parent.parent
LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")  # what they set in the environment of a rank

JOB = """
schema = 1
[experiment]
name = "demo"
workers = 2
seeds = [0, 1]
stop = { updates = 40 }
snapshot = { updates = 10 }
targets = { metric = "loss", values = [3.0, 1.0, 0.2], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 29
noise = 0.01
[heterogeneity]
compute = { profile = "sqrt", unit_seconds = 1.0 }
links = { latency_seconds = 0.0, vector_seconds = 0.1 }
[[algorithm]]
name = "ringmaster"
stepsize = [0.5, 1.0]
threshold = 4
[[algorithm]]
name = "minibatch_sgd"
stepsize = 1.0
"""
ONE_CELL = [("stepsize = [0.5, 1.0]", "stepsize = 0.5"), (JOB[JOB.rindex("[[") :], "")]
TUNING = "[tuning]\nseeds = [100, 101]\n"
MINIBATCH = JOB[: JOB.index("[[")].replace("noise = 0.01", "noise = 0.0") + '[[algorithm]]\nname = "minibatch_sgd"\n'


@dataclass
class Done:
    """What a command has left."""

    code: int
    out: str
    err: str

    def refused(self, *texts, code=2):
        """It was refused in one sentence that holds these texts."""
        assert self.code == code, self
        assert self.err.startswith("mpibench: ") and self.err.count("\n") == 1 == self.err.count("mpibench: "), self.err
        for text in texts:
            assert text in self.err


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """A function that runs `mpibench` with these arguments in this process, in the folder `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)  # `main` would finalise it for all other tests
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mpibench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capsys.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def job(tmp_path):
    """A function that writes `job.toml`: JOB with replacements (old, new)."""

    def write(*replacements, text=JOB, more=""):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "job.toml"
        path.write_text(text + more)
        return path

    return write


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A function that puts a file into `mpibench.algorithms` or `.problems` as long as the test runs."""

    def put(kind, name, text):
        module = {"algorithm": mpibench.algorithms, "problem": mpibench.problems}[kind]
        folder = tmp_path / "more" / catalogue.FOLDERS[kind].name
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        for file in catalogue.FOLDERS[kind].glob("[a-z]*.py"):
            (folder / file.name).symlink_to(file)
        monkeypatch.setitem(catalogue.FOLDERS, kind, folder)
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(folder)])
        monkeypatch.delitem(sys.modules, f"{module.__name__}.{name}", raising=False)
        return folder / f"{name}.py"

    return put


def python(*arguments, **options):
    """A Python process that finds mpibench."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHERS} | {"PYTHONPATH": paths}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def ended(process, seconds=30):
    """Wait for a process, as Done."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Done(process.returncode, out, err)


def results(folder):
    """(algorithm, stepsize, seed) -> path of every complete file; nothing else may carry the name of a result."""
    found = {}
    for path in folder.rglob("*.h5"):
        with h5py.File(path) as file:
            assert file.attrs["complete"] == 1
            found[
                file.attrs["algorithm"], json.loads(file.attrs["parameters"])["stepsize"], int(file.attrs["seed"])
            ] = path
    assert len(found) == len(list(folder.rglob("*.h5")))
    return found


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def digests(paths):
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in paths}


# list, describe, help


def test_list_names_every_file_with_its_first_line(command):
    done = command("list")
    assert (done.code, done.err) == (0, "")
    as_json = command("list", "--json")
    found = json.loads(as_json.out)
    assert as_json.code == 0 and set(found) == {"algorithm", "problem", "compressor", "topology"}
    lines = [line.split(maxsplit=1) for line in done.out.splitlines() if line.startswith("  ")]
    assert dict(lines) == {name: text for group in found.values() for name, text in group.items()}
    for kind in found:
        suffix = "toml" if kind == "topology" else "py"
        files = {path.stem for path in catalogue.FOLDERS[kind].glob(f"*.{suffix}") if path.stem[0] != "_"}
        assert set(found[kind]) == files and all(found[kind].values())


def test_describe_tells_of_every_name_its_parameters(command):
    for group in json.loads(command("list", "--json").out).values():
        for name, text in group.items():
            done = command("describe", name)
            assert done.code == 0 and name in done.out and text in done.out
    described = command("describe", "ringmaster").out
    assert "threshold" in described and "a whole number >= 1, or inf; required" in described


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["list"], ["numpy", "pydantic", "h5py", "scipy", "sklearn", "torch", "mpi4py", "networkx"]),
        (["--help"], ["numpy", "pydantic", "h5py", "scipy", "sklearn", "torch", "mpi4py", "networkx"]),
        (["describe", "minibatch_sgd"], ["torch", "mpi4py"]),
        (["run", "job.toml", "--out", "new"], ["torch", "mpi4py"]),
    ],
    ids=lambda value: value[0],
)
def test_what_a_command_does_not_load(job, tmp_path, arguments, absent):
    job(*ONE_CELL)
    code = """
        import sys
        from mpibench.__main__ import main
        try:
            main()
        except SystemExit as end:
            print(" ".join({name.partition(".")[0] for name in sys.modules}))
            raise
    """
    done = ended(python("-c", textwrap.dedent(code), *arguments, cwd=tmp_path))
    assert (done.code, done.err) == (0, "")
    assert not set(absent) & set(done.out.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Commands:"),
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument 'JOB'"),
        (["run", "job.toml", "--sed", "3"], "No such option"),
        (["run", "job.toml", "--seed", "x"], "'x' is not a valid integer"),
        (["run", "job.toml", "--engine", "mip"], "'mip' is not one of"),
        (["verify"], "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_code_2(command, job, tmp_path, arguments, text):
    job()
    done = command(*arguments)
    assert done.code == 2 and text in done.err + done.out and "Traceback" not in done.err
    assert left(tmp_path) == ["job.toml"]


def test_an_unknown_name_is_refused_with_the_nearest(command):
    command("describe", "ringmastr").refused("`ringmastr`", "did you mean `ringmaster`?")


# run


def test_a_dry_run_lists_the_cells_and_writes_nothing(command, job, tmp_path):
    job(more=TUNING)
    done = command("run", "job.toml", "--dry-run")
    plan = json.loads(command("run", "job.toml", "--dry-run", "--json").out)
    assert done.code == 0 and done.err == "" and left(tmp_path) == ["job.toml"]
    assert [(cell["algorithm"], cell["parameters"]["stepsize"]) for cell in plan["cells"]] == [
        ("ringmaster", 0.5),
        ("ringmaster", 1.0),
        ("minibatch_sgd", 1.0),
    ]
    assert [cell["cell"] for cell in plan["cells"]] == [0, 0, 1]  # tuning leaves one cell of each algorithm
    assert (plan["runs"], plan["trials"], plan["engine"], plan["clock"]) == (4, 4, "simulation", "virtual")
    assert "3 cells, 4 runs after 4 of tuning" in done.out
    assert all(cell["hash"] in done.out for cell in plan["cells"])
    under_mpi = json.loads(
        command("run", "job.toml", "--dry-run", "--json", "--engine", "mpi", "--clock", "native").out
    )
    assert (under_mpi["engine"], under_mpi["clock"], under_mpi["ranks"]) == ("mpi", "native", 3)


def test_a_run_leaves_a_file_for_each_cell_and_seed(command, job, tmp_path):
    job()
    plan = json.loads(command("run", "job.toml", "--dry-run", "--json").out)
    done = command("run", "job.toml", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, done.err, len(rows)) == (0, "", plan["runs"])
    assert {row["outcome"] for row in rows} == {"reached"}
    order = []
    for row in rows:
        with h5py.File(row["file"]) as file:
            assert (file.attrs["complete"], file.attrs["outcome"]) == (1, row["outcome"])
            order.append((file.attrs["cell"], int(file.attrs["seed"])))
            assert Path(row["file"]).parent == Path("results", "demo", f"{file.attrs['algorithm']}-{order[-1][0][:8]}")
    hashes = [cell["hash"] for cell in plan["cells"]]
    assert order == [(h, 0) for h in hashes] + [
        (h, 1) for h in reversed(hashes)
    ]  # drift of the machine meets all alike
    assert left(tmp_path) == sorted(["job.toml", *(Path(row["file"]).name for row in rows)])
    verified = command("verify", "results")
    assert verified.code == 0 and verified.out == f"{len(rows)} files, 0 findings\n"


def test_what_people_are_told(command, job):
    job(*ONE_CELL)
    done = command("run", "job.toml")
    first, *runs, last = done.out.splitlines()
    assert first == "demo: virtual time, seeds 0..1, into results"
    assert [line.partition(":")[0] for line in runs] == ["ringmaster seed 0", "ringmaster seed 1"]
    for line in runs:
        with h5py.File(line.rpartition("; ")[2]) as file:
            hit = numpy.flatnonzero(file["trace/loss"][()] <= 1.0)[0]
            assert f"loss 1 after {file['trace/time'][hit]:.6g} s" in line
    assert last == "2 runs, 0 without the headline target"
    quiet = command("run", "job.toml", "--out", "quiet", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_missed_target_is_code_3_and_a_result(command, job, tmp_path):
    job(*ONE_CELL, ("headline = 1.0", "headline = 0.2"), ("= { updates = 40 }", "= { updates = 40, seconds = 3.0 }"))
    done = command("run", "job.toml")
    assert (done.code, done.err) == (3, "")
    assert done.out.count("censored (budget) at 3 s") == 2 and "2 runs, 2 without the headline target" in done.out
    found = results(tmp_path / "results")
    assert len(found) == 2
    for path in found.values():
        with h5py.File(path) as file:
            assert (file.attrs["outcome"], file.attrs["budget_seconds"], file.attrs["seconds"]) == ("budget", 3.0, 3.0)
    assert command("verify", "results").code == 0


def test_a_run_that_diverges_is_a_result(command, job, tmp_path):
    job(*ONE_CELL, ("stepsize = 0.5", "stepsize = 1e300"))
    done = command("run", "job.toml")
    assert (done.code, done.err) == (3, "") and done.out.count("censored (diverged)") == 2
    assert len(results(tmp_path / "results")) == 2 and command("verify", "results").code == 0


def test_set_is_the_same_as_writing_it(command, job, tmp_path):
    job(*ONE_CELL)
    overrides = ["problem.dimension=7", "algorithm.ringmaster.threshold=inf", "experiment.stop.updates=12"]
    flags = [flag for text in overrides for flag in ("--set", text)]
    assert command("run", "job.toml", "--out", "set", *flags).code == 0
    job(
        *ONE_CELL,
        ("dimension = 29", "dimension = 7"),
        ("threshold = 4", "threshold = inf"),
        ("updates = 40", "updates = 12"),
    )
    assert command("run", "job.toml", "--out", "written").code == 0
    pairs = zip(sorted((tmp_path / "set").rglob("*.h5")), sorted((tmp_path / "written").rglob("*.h5")), strict=True)
    for one, other in pairs:
        with h5py.File(one) as a, h5py.File(other) as b:
            for name in ("cell", "seed", "event_hash", "model_hash", "parameters"):
                assert a.attrs[name] == b.attrs[name]
            assert json.loads(a["config/overrides"].asstr()[()]) == overrides
            assert json.loads(b["config/overrides"].asstr()[()]) == []
            assert "dimension = 29" in a["config/raw"].asstr()[()] and "dimension = 7" in b["config/raw"].asstr()[()]


def test_a_seed_and_a_cell_alone(command, job, tmp_path):
    job()
    assert command("run", "job.toml", "--seed", "7", "--cell", "1").code == 0
    assert set(results(tmp_path / "results")) == {("ringmaster", 1.0, 7)}
    assert command("run", "job.toml", "--cell", "2").code == 0
    assert set(results(tmp_path / "results")) == {
        ("ringmaster", 1.0, 7),
        ("minibatch_sgd", 1.0, 0),
        ("minibatch_sgd", 1.0, 1),
    }


def test_a_cell_is_what_is_left_by_tuning(command, job, tmp_path):
    job(more=TUNING)
    assert command("run", "job.toml", "--cell", "1").code == 0
    assert set(results(tmp_path / "results")) == {("minibatch_sgd", 1.0, 0), ("minibatch_sgd", 1.0, 1)}


def test_what_has_a_result_is_kept_skipped_or_run_beside(command, job, tmp_path):
    job()
    out = tmp_path / "results"
    assert command("run", "job.toml", "--seed", "1").code == 0
    first = digests(results(out).values())
    command("run", "job.toml").refused("3 of 6 runs have a result in results", "--resume", "--force", "--out")
    assert digests(out.rglob("*.h5")) == first and not list(out.rglob("*.part*"))
    resumed = command("run", "job.toml", "--resume", "--json")
    assert resumed.code == 0 and len(resumed.out.splitlines()) == 3
    assert len(results(out)) == 6 and digests(first) == first
    again = command("run", "job.toml", "--resume")
    assert (
        again.code == 0
        and again.out.count("has a result") == 6
        and again.out.endswith("0 runs, 0 without the headline target\n")
    )
    everything = digests(out.rglob("*.h5"))
    assert command("run", "job.toml", "--force", "--seed", "1").code == 0
    new = set(out.rglob("*.h5")) - set(everything)
    assert len(new) == 3 and digests(everything) == everything
    for path in new:  # the same run again, under a name of its own
        (old,) = [other for other in first if other.parent == path.parent]
        with h5py.File(path) as a, h5py.File(old) as b:
            assert a.attrs["run_id"] != b.attrs["run_id"]
            assert all(a.attrs[name] == b.attrs[name] for name in ("seed", "cell", "event_hash", "model_hash"))


def test_the_part_of_a_killed_run_is_no_result(command, job, tmp_path):
    job(*ONE_CELL)
    assert command("run", "job.toml", "--seed", "0").code == 0
    (path,) = results(tmp_path / "results").values()
    path.rename(path.with_name(path.name + ".part"))
    done = command("run", "job.toml")
    assert done.code == 0 and len(results(tmp_path / "results")) == 2


# bad input

LOGISTIC = 'name = "quadratic"\ndimension = 29\nnoise = 0.01', 'name = "logistic"\ndata = "data.svm"'
WRONG = {
    "unknown key": ([("seeds", "seed")], ["job.toml", "[experiment]", "`seed`", "did you mean `seeds`?"]),
    "unknown table": ([("[problem]", "[problm]")], ["did you mean `problem`?"]),
    "unknown parameter": ([("threshold = 4", "treshold = 4")], ["ringmaster", "did you mean `threshold`?"]),
    "unknown algorithm": ([('"ringmaster"', '"ringmastr"')], ["did you mean `ringmaster`?"]),
    "unknown problem": ([('"quadratic"', '"quadratik"')], ["did you mean `quadratic`?"]),
    "unknown metric": ([('metric = "loss"', 'metric = "los"')], ["did you mean `loss`?"]),
    "text for a number": ([("= 29", '= "29"')], ["[problem] dimension", '"29"', "a whole number >= 1"]),
    "number for a text": ([('"demo"', "3")], ["[experiment] name = 3 must be a text"]),
    "date for a text": ([('"demo"', "2024-05-17")], ["[experiment] name = 2024-05-17 must be a text"]),
    "truth value for the schema": ([("schema = 1", "schema = true")], ["must begin with `schema = 1`"]),
    "negative step size": ([("= [0.5, 1.0]", "= -0.5")], ["ringmaster stepsize = -0.5 must be a finite number > 0"]),
    "infinite step size": ([("= [0.5, 1.0]", "= inf")], ["ringmaster stepsize = inf must be a finite number > 0"]),
    "no number as step size": ([("= [0.5, 1.0]", "= [0.5, nan]")], ["ringmaster stepsize = nan must be a finite"]),
    "negative time": ([("unit_seconds = 1.0", "unit_seconds = -1.0")], ["unit_seconds = -1.0 must be"]),
    "infinite time": ([("unit_seconds = 1.0", "unit_seconds = inf")], ["unit_seconds = inf must be"]),
    "no number as time": ([("latency_seconds = 0.0", "latency_seconds = nan")], ["latency_seconds = nan must be"]),
    "no time": ([("updates = 40", "seconds = 0.0")], ["[experiment.stop] seconds = 0.0 must be"]),
    "an infinite budget": ([("updates = 40", "seconds = inf")], ["[experiment.stop] seconds = inf must be"]),
    "a budget beyond the clock": (
        [("updates = 40", "seconds = 1e300")],
        ["[experiment.stop] seconds = 1e+300 must be"],
    ),
    "negative latency": ([("latency_seconds = 0.0", "latency_seconds = -1")], ["latency_seconds = -1 must be"]),
    "speeds that do not fit": (
        [('"sqrt", unit_seconds = 1.0', '"fixed", seconds = [1.0, 2.0, 3.0]')],
        ["3 seconds for 2 workers"],
    ),
    "times beyond the clock": (
        [('"sqrt", unit_seconds = 1.0', '"power", exponent = 10, unit_seconds = 1e9'), ("workers = 2", "workers = 20")],
        ["[heterogeneity.compute]", "1.024e+22", "at most 1e+09"],
    ),
    "a graph that does not fit": ([("[[", "[graph]\nsize = 2\nedges = []\n[[")], ["2 nodes for 3 ranks"]),
    "an edge that does not fit": ([("[[", "[graph]\nsize = 3\nedges = [{ source = 0, to = 3 }]\n[[")], ["0 -> 3"]),
    "a dimension that does not fit": ([("= 29", "= 1000000000000")], ["dimension = 1000000000000 must be"]),
    "a batch that does not fit": (
        [LOGISTIC, ("[het", "batch = 1000000000000\n[het")],
        ["batch = 1000000000000 must be"],
    ),
    "a network that does not fit": (
        [LOGISTIC, ("logistic", "mlp"), ("[het", "hidden = 1000000000000\n[het")],
        ["hidden = 1000000000000 must be"],
    ),
    "shares that do not fit": ([LOGISTIC, ("[het", 'split = "dirichlet"\n[het')], ["[problem]", "alpha"]),
    "no data": ([LOGISTIC, ("data.svm", "absent.svm")], ["absent.svm", "cannot be read (No such file"]),
    "a folder as data": ([LOGISTIC, ("data.svm", ".")], ["data folder .", "has no file train-images"]),
    "text as data": ([LOGISTIC, ("data.svm", "text.svm")], ["text.svm is not in LIBSVM format"]),
    "bytes as data": ([LOGISTIC, ("data.svm", "bytes.svm")], ["bytes.svm"]),
    "empty data": ([LOGISTIC, ("data.svm", "empty.svm")], ["empty.svm holds no sample"]),
    "data cut off": ([LOGISTIC, ("data.svm", "cut.svm.gz")], ["cut.svm.gz cannot be read"]),
    "data without classes": ([LOGISTIC, ("data.svm", "regression.svm")], ["regression.svm", "not whole numbers"]),
    "infinite data": ([LOGISTIC, ("data.svm", "infinite.svm")], ["infinite.svm holds values that are infinite"]),
    "data for fewer workers": ([LOGISTIC, ("workers = 2", "workers = 9")], ["too few for 9 workers"]),
    "no TOML": ([("workers = 2", "workers =")], ["job.toml is not TOML", "line 5"]),
    "too deep a list": ([("workers = 2", f"workers = {'[' * 5000}")], ["job.toml is not TOML"]),
    "a graph that is no TOML": ([("[[", '[graph]\nfile = "bytes.svm"\n[[')], ["[graph]", "bytes.svm is not TOML"]),
    "too long a number": ([("workers = 2", f"workers = {'9' * 5000}")], ["job.toml is not TOML"]),
    "tuning on reported seeds": ([("[[", "[tuning]\nseeds = [1, 100]\n[[")], ["seed 1 of [experiment]"]),
}


@pytest.fixture
def data(tmp_path):
    """LIBSVM files: data.svm is good, all others are not."""
    good = "".join(f"{k % 2} 1:{k}.5 3:{-k}\n" for k in range(8))
    (tmp_path / "data.svm").write_text(good)
    (tmp_path / "text.svm").write_text("Dear Sir or Madam,\n")
    (tmp_path / "bytes.svm").write_bytes(bytes(range(256)))
    (tmp_path / "empty.svm").touch()
    (tmp_path / "cut.svm.gz").write_bytes(gzip.compress(good.encode() * 100)[:-20])
    (tmp_path / "regression.svm").write_text("0.5 1:1\n1.25 1:2\n")
    (tmp_path / "infinite.svm").write_text("0 1:inf\n1 1:2\n0 1:3\n1 1:4\n")


def test_the_good_data_are_good(command, job, data):
    job(LOGISTIC)
    assert command("run", "job.toml", "--dry-run").code == 0


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
@pytest.mark.parametrize(("replacements", "texts"), WRONG.values(), ids=WRONG.keys())
def test_bad_input_is_refused_in_one_sentence(command, job, data, tmp_path, replacements, texts, dry):
    job(*replacements)
    before = left(tmp_path)
    done = command("run", "job.toml", *dry)
    done.refused(*texts)
    assert done.out == "" and left(tmp_path) == before


def test_a_bad_flag_is_refused_in_one_sentence(command, job, tmp_path):
    job(more=TUNING)
    (tmp_path / "file").touch()
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    before = left(tmp_path)
    command("run", "absent.toml").refused("absent.toml cannot be read: No such file")
    command("run", ".").refused("cannot be read: Is a directory")
    command("run", "bytes.toml").refused("bytes.toml is not TOML")
    command("run", "job.toml", "--resume", "--force").refused("--resume", "--force")
    command("run", "job.toml", "--set", "problem.dimensoin=3").refused("`dimensoin`; did you mean `dimension`?")
    command("run", "job.toml", "--set", "algorithm.ringmaster.stepsize=-inf").refused("stepsize = -inf must be")
    command("run", "job.toml", "--seed", "-1").refused("seeds = [-1] must be")
    command("run", "job.toml", "--seed", "100").refused("seed 100 of [experiment]")  # one of those for tuning
    command("run", "job.toml", "--cell", "3").refused("--cell 3")
    command("run", "job.toml", "--cell", "-1").refused("--cell -1")
    command("run", "job.toml", "--out", "file").refused("file/demo", "--out")
    assert left(tmp_path) == before


def test_a_wrong_cell_is_refused_before_any_work(command, job):
    job(more=TUNING)
    assert command("run", "job.toml", "--cell", "3").out == ""


def test_a_problem_that_does_not_fit_into_memory_is_refused(command, job, monkeypatch):
    def prepare(self, workers, seed):
        raise MemoryError("Unable to allocate 745. GiB for an array with shape (1000, 100000000)")

    monkeypatch.setattr(quadratic.Quadratic, "prepare", prepare)
    job()
    command("run", "job.toml").refused("[problem] Unable to allocate 745. GiB")


def test_without_mpi4py_the_engine_mpi_is_refused(command, job, tmp_path, monkeypatch):
    job()
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    command("run", "job.toml", "--engine", "mpi").refused("engine mpi needs mpi4py and an MPI library")
    assert command("run", "job.toml", "--seed", "0").code == 0  # the simulation does not


# verify


def test_verify_tells_good_files_from_bad_ones(command, job, tmp_path):
    job(*ONE_CELL)
    command("run", "job.toml")
    command("verify", "absent.h5").refused("there is no file or folder absent.h5")
    (tmp_path / "none").mkdir()
    command("verify", "none").refused("there is no result file (*.h5) in none")
    good, bad = sorted((tmp_path / "results").rglob("*.h5"))
    bad.write_bytes(bad.read_bytes()[:1000])
    done = command("verify", good, bad)
    *findings, last = done.out.splitlines()
    assert (done.code, done.err, last) == (1, "", "2 files, 1 findings")
    assert len(findings) == 1 and findings[0].startswith(f"{bad}: seal: ")
    (row,) = json.loads(command("verify", "--json", "results").out)
    assert f"{row['path']}: {row['check']}: {row['text']}" == findings[0].replace(
        str(bad), str(bad.relative_to(tmp_path))
    )
    assert json.loads(command("verify", "--json", good).out) == []


# a disk that is full, a run that is killed


def limited(bytes_of_a_file):
    """For `preexec_fn`: a process that can write no larger file, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_a_file, bytes_of_a_file))


def test_a_full_disk_is_code_1_and_leaves_no_result(command, job, tmp_path):
    longer = ("updates = 40", "updates = 20000")
    job(*ONE_CELL, longer, ("{ updates = 10 }", "{ updates = 5000 }\nrecord_updates = true"))
    assert command("run", "job.toml", "--out", "whole", "--seed", "0").code == 0
    (whole,) = results(tmp_path / "whole").values()
    arguments = ["-m", "mpibench", "run", "job.toml", "--out"]
    at_the_start = python(*arguments, "start", preexec_fn=limited(4096), cwd=tmp_path)
    underway = python(*arguments, "underway", preexec_fn=limited(whole.stat().st_size - 10_000), cwd=tmp_path)
    ended(at_the_start).refused("no space left to write start/demo", "--out", code=1)
    assert left(tmp_path / "start") == []
    ended(underway).refused("no space left to write underway/demo", "--out", code=1)
    (part,) = left(tmp_path / "underway")
    assert part.startswith("seed-0-") and part.endswith(".h5.part")
    with h5py.File(next((tmp_path / "underway").rglob(part))) as file, h5py.File(whole) as reference:
        assert file.attrs["complete"] == 0
        assert numpy.array_equal(file["trace/loss"], reference["trace/loss"]) and len(file["trace/loss"]) == 5
    assert command("run", "job.toml", "--out", "underway", "--resume").code == 0
    assert len(results(tmp_path / "underway")) == 2


HELD = """
    # mpibench whose run of seed 1 stands still at its fourth snapshot
    import sys, time
    from mpibench.__main__ import main
    from mpibench.problems import quadratic

    evaluate, seen = quadratic.Prepared.evaluate, []

    def held(self, x):
        seen.append(self.seed)
        while seen.count(1) == 4:
            time.sleep(0.01)
        return evaluate(self, x)

    quadratic.Prepared.evaluate = held
    main()
"""


def test_a_killed_run_leaves_what_it_had_and_is_resumed(command, job, tmp_path):
    job(*ONE_CELL)
    (tmp_path / "held.py").write_text(textwrap.dedent(HELD))
    out = tmp_path / "results"
    parts, finished = set(), None
    for number, code, outcome in (
        (signal.SIGTERM, 128 + signal.SIGTERM, "walltime"),
        (signal.SIGINT, 128 + signal.SIGINT, "fault"),
        (signal.SIGKILL, -signal.SIGKILL, None),
    ):
        process = python("held.py", "run", "job.toml", "--resume", cwd=tmp_path)
        part = wait_for_rows(process, out, 3, parts)
        process.send_signal(number)
        done = ended(process)
        assert done.code == code and "Traceback" not in done.err
        parts.add(part)
        with h5py.File(part) as file:
            assert (file.attrs["complete"], file.attrs.get("outcome")) == (0, outcome)
            assert outcome != "walltime" or file.attrs["error"] == "ended by signal 15"
            assert file["trace/updates"][()].tolist() == [0, 10, 20]
        assert set(out.rglob("*.part*")) == parts
        finished = finished or digests(out.rglob("*.h5"))
        assert len(finished) == 1 and digests(out.rglob("*.h5")) == finished
    assert command("verify", *parts).code == 1
    done = command("run", "job.toml", "--resume", "--json")
    assert done.code == 0 and len(done.out.splitlines()) == 1
    found = results(out)
    assert {seed for _, _, seed in found} == {0, 1} and digests(finished) == finished
    assert verify_set(found.values()) == []
    with h5py.File(found["ringmaster", 0.5, 1]) as whole:
        for part in parts:  # nobody touches what a killed run had
            with h5py.File(part) as file:
                assert numpy.array_equal(file["trace/loss"], whole["trace/loss"][:3])


def wait_for_rows(process, out, rows, old):
    """The part that is not among the old ones, when it has so many snapshots."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        for part in set(out.rglob("*.h5.part")) - old:
            with contextlib.suppress(OSError, KeyError), h5py.File(part) as file:
                if file.attrs["seed"] == 1 and len(file["trace/time"]) == rows:
                    return part
        time.sleep(0.01)
    process.kill()
    raise AssertionError(f"no part with {rows} snapshots: {process.communicate()}")


# tuning


def tuned(path):
    """(parameters of the run, /config/tuning) of a file."""
    with h5py.File(path) as file:
        return json.loads(file.attrs["parameters"]), json.loads(file["config/tuning"].asstr()[()])


def test_tuning_takes_the_point_that_is_first_at_the_target(command, job, tmp_path):
    """Without noise 1e-9 stays at the start, 1 comes down and 1e9 goes up."""
    job(text=MINIBATCH, more="stepsize = [1e-9, 1.0, 1e9]\n" + TUNING)
    done = command("run", "job.toml")
    assert done.code == 0 and "tuning: 3 trials on 2 other seeds" in done.out
    found = results(tmp_path / "results")
    assert set(found) == {("minibatch_sgd", 1.0, 0), ("minibatch_sgd", 1.0, 1)}  # no tuning seed among the results
    for path in found.values():
        parameters, tuning = tuned(path)
        assert parameters == tuning["chosen"] == {"stepsize": 1.0} and tuning["seeds"] == [100, 101]
        assert [trial["parameters"]["stepsize"] for trial in tuning["trials"]] == [1e-9, 1.0, 1e9]
        lost, hit, _ = (trial["seconds"] for trial in tuning["trials"])
        assert lost == [math.inf, math.inf] and max(hit) < math.inf and tuning["core_seconds"] > 0
    assert command("verify", "results").code == 0


def test_tuning_takes_the_best_last_value_where_no_point_reaches_the_target(command, job, tmp_path):
    """Gradient descent on a quadratic with L about 1 and no noise: up to 1, the longer the step the lower the loss."""
    job(("values = [3.0, 1.0, 0.2], headline = 1.0", "values = [-9.0], headline = -9.0"), text=MINIBATCH)
    job(text=(tmp_path / "job.toml").read_text(), more="stepsize = [0.01, 0.1, 1.0, 0.5]\n" + TUNING)
    assert command("run", "job.toml").code == 3
    for path in results(tmp_path / "results").values():
        parameters, tuning = tuned(path)
        assert parameters == {"stepsize": 1.0}
        last = [trial["last"][0] for trial in tuning["trials"]]
        assert sorted(last, reverse=True) == [last[0], last[1], last[3], last[2]]


def test_a_trial_is_a_run(command, job, tmp_path):
    """What tuning says of a point and a seed is what a run of this cell with this seed says."""
    job(more=TUNING)
    command("run", "job.toml", "--out", "tuned")
    job(("seeds = [0, 1]", "seeds = [100, 101]"))
    command("run", "job.toml", "--out", "plain")
    plain, found = results(tmp_path / "plain"), results(tmp_path / "tuned")
    (chosen,) = {stepsize for name, stepsize, _ in found if name == "ringmaster"}
    _, tuning = tuned(found["ringmaster", chosen, 0])
    for trial in tuning["trials"]:
        for seed, seconds, last in zip((100, 101), trial["seconds"], trial["last"], strict=True):
            with h5py.File(plain["ringmaster", trial["parameters"]["stepsize"], seed]) as file:
                loss = file["trace/loss"][()]
                assert seconds == file["trace/time"][numpy.flatnonzero(loss <= 1.0)[0]] and last == loss[-1]
    assert tuned(found["minibatch_sgd", 1.0, 0])[1] == {}  # no grid, nothing to choose


HILL = '''
    """A hill of one dimension with its top at 1, to be climbed."""

    from dataclasses import dataclass

    import numpy


    @dataclass(frozen=True)
    class Hill:
        def prepare(self, workers, seed):
            return Prepared()


    class Prepared:
        dimension, model_bytes, metrics, provenance = 1, 8, {"height": "higher"}, {}

        def start(self):
            return numpy.zeros(1)

        def objective(self, i):
            return self

        def sample(self):
            return None

        def gradient(self, x, ξ):
            return x - 1.0

        def evaluate(self, x):
            return {"height": -float((x[0] - 1.0) ** 2)}
'''


TOPS = 'metric = "height", values = [-0.5, -0.1], headline = -0.1'


def test_higher_is_better_where_the_problem_says_so(command, job, package, tmp_path):
    package("problem", "hill", HILL)
    text = MINIBATCH.replace('name = "quadratic"\ndimension = 29\nnoise = 0.0', 'name = "hill"')
    text = text.replace('metric = "loss", values = [3.0, 1.0, 0.2], headline = 1.0', TOPS)
    job(text=text, more="stepsize = [0.001, 0.5, 0.01]\n" + TUNING)
    assert command("run", "job.toml").code == 0
    assert set(results(tmp_path / "results")) == {("minibatch_sgd", 0.5, seed) for seed in (0, 1)}
    job(("[-0.5, -0.1], headline = -0.1", "[1.0], headline = 1.0"), text=(tmp_path / "job.toml").read_text())
    assert command("run", "job.toml", "--out", "never").code == 3
    assert set(results(tmp_path / "never")) == {("minibatch_sgd", 0.5, seed) for seed in (0, 1)}


# a deadlock

STUCK = '''
    """A server that waits for gradients it has not asked for."""

    from dataclasses import dataclass

    from mpibench.algorithm import Centralized, Positive


    @dataclass(frozen=True)
    class Stuck(Centralized):
        stepsize: Positive

        async def server(self, node, x, watch):
            watch(0, x)
            await node.recv(1)  # server

        async def worker(self, node, f):
            await node.recv(0)  # worker
'''


@pytest.mark.parametrize("more", ["stepsize = 1.0\n", "stepsize = [1.0, 2.0]\n" + TUNING], ids=["run", "tuning"])
def test_a_deadlock_is_shown_at_once_as_a_table(command, job, package, tmp_path, more):
    path = package("algorithm", "stuck", STUCK)
    job(text=JOB[: JOB.index("[[")], more=f'[[algorithm]]\nname = "stuck"\n{more}')
    began = time.monotonic()
    done = command("run", "job.toml")
    assert time.monotonic() - began < 10 and done.code == 124 and "Traceback" not in done.err
    lines = path.read_text().splitlines()
    server, worker = (1 + k for word in ("# server", "# worker") for k, line in enumerate(lines) if line.endswith(word))
    first, *rows = done.err.splitlines()
    assert first == "mpibench: deadlock: nothing can happen any more"
    for rank, (row, name, line) in enumerate(
        zip(rows, ("server", "worker", "worker"), (server, worker, worker), strict=True)
    ):
        assert row.startswith(f"  rank {rank}: ") and name in row and f"stuck.py:{line}" in row
    assert results(tmp_path / "results") == {}
    for part in (tmp_path / "results").rglob("*.part"):
        with h5py.File(part) as file:
            assert (file.attrs["complete"], file.attrs["outcome"]) == (0, "fault")
            assert file.attrs["error"].startswith("Deadlock: deadlock: ")
