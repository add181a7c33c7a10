"""What starts mpibench: jobs/local.sh, the Makefile, what is installed. Launchers are stand-ins."""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / ".ci" / "run", ROOT / "jobs" / "local.sh"]
HYDRA = "HYDRA build details:\n    Version: 5.0.2"
OPEN_MPI = "mpiexec (Open MPI) 5.0.11"
RUN = ["python", "-m", "mpi4py", "-m", "mpibench", "run"]
AS_ROOT = ["--allow-run-as-root"] if os.geteuid() == 0 else []  # what Open MPI has to be told

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name):
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


PINS = {
    canonical(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)
    return path


def launcher(path, version):
    """A stand-in for mpiexec: tells its version, or prints the threads of BLAS and then its arguments, one a line."""
    return program(
        path,
        f"""[[ $1 != --version ]] || exec echo '{version}'
echo "$OMP_NUM_THREADS $OPENBLAS_NUM_THREADS $MKL_NUM_THREADS"
printf '%s\\n' "$@"
""",
    )


@pytest.fixture
def environment(tmp_path):
    """A folder with the programs of a Python environment; its mpibench answers --dry-run alone: 9 ranks, or code 2."""
    program(
        tmp_path / "a venv" / "bin" / "python",
        f"""[[ $2 == mpibench ]] || exec '{sys.executable}' "$@"
[[ $4 != unknown.toml ]] || exit 2
[[ $* == *" --engine mpi --dry-run --json" ]] && echo '{json.dumps({"cells": [], "ranks": 9})}'
""",
    )
    return tmp_path / "a venv"


def local(environment, *arguments, **variables):
    inherited = {k: v for k, v in os.environ.items() if not re.match(r"MPIEXEC|MPIBENCH|VIRTUAL_ENV|.*_NUM_THREADS", k)}
    return subprocess.run(
        [ROOT / "jobs" / "local.sh", *arguments],
        env=inherited | {"MPIBENCH_VENV": str(environment)} | variables,
        capture_output=True,
        text=True,
    )


def test_local_asks_for_the_ranks_that_the_experiment_needs(environment):
    launcher(environment / "bin" / "mpiexec", HYDRA)
    done = local(environment, "a job.toml", "--resume", "--set", "problem.noise = 0.1")
    command = ["-n", "9", *RUN, "a job.toml", "--resume", "--set", "problem.noise = 0.1", "--engine", "mpi"]
    assert done.stdout.splitlines() == ["1 1 1", *command]
    assert done.returncode == 0


@pytest.mark.parametrize(("cores", "flags"), [(2, ["--map-by", ":OVERSUBSCRIBE"]), (9, [])])
def test_local_tells_open_mpi_what_it_refuses_otherwise(environment, cores, flags):
    launcher(environment / "bin" / "mpiexec", OPEN_MPI)
    python = environment / "bin" / "python"
    program(python, python.read_text().replace("#!/bin/bash\n", f"[[ $2 != *siblings* ]] || exec echo {cores}\n"))
    assert local(environment, "job.toml").stdout.splitlines()[1:] == [
        *(*AS_ROOT, *flags, "-n", "9"),
        *(*RUN, "job.toml", "--engine", "mpi"),
    ]


@pytest.mark.parametrize(("given", "flags"), [("--bind-to  core -v", ["--bind-to", "core", "-v"]), ("", [])])
def test_local_honours_the_variables_of_the_launcher(environment, tmp_path, given, flags):
    own = launcher(tmp_path / "own launcher", OPEN_MPI)
    variables = {"MPIEXEC": str(own), "MPIEXEC_FLAGS": given, "MPIEXEC_NUMPROC_FLAG": "-np"}
    done = local(environment, "job.toml", OMP_NUM_THREADS="3", **variables)
    assert done.stdout.splitlines() == ["3 1 1", *flags, "-np", "9", *RUN, "job.toml", "--engine", "mpi"]


def test_local_ends_with_the_code_of_the_launcher(environment):
    program(environment / "bin" / "mpiexec", "[[ $1 == --version ]] || exit 3")
    assert local(environment, "job.toml").returncode == 3


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        ([], {}, "the experiment's file comes first"),
        (["--resume", "job.toml"], {}, "the experiment's file comes first"),
        (["job.toml"], {"MPIEXEC": "no-such-mpiexec"}, "there is no no-such-mpiexec"),
        (["job.toml"], {"MPIBENCH_VENV": "/nowhere"}, "MPIBENCH_VENV=/nowhere holds no bin/python"),
        (["unknown.toml"], {}, ""),  # mpibench has said what is wrong
    ],
)
def test_local_refuses_with_code_2_and_starts_nothing(environment, arguments, variables, sentence):
    launcher(environment / "bin" / "mpiexec", HYDRA)
    done = local(environment, *arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == bool(sentence)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_can_be_started(script):
    assert os.access(script, os.X_OK)


def test_make_has_the_documented_targets():
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    documented = set(re.findall(r"^make (\S+) +\S", listed, re.MULTILINE))
    assert documented == {"env", "demo", "test", "test-mpi", "test-slurm", "chromium", "bench", "lint", "clean"}


def test_clean_touches_neither_results_nor_environments(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = [tmp_path / "results" / "demo" / "run.h5", tmp_path / ".venv" / "lib" / "__pycache__" / "kept.pyc"]
    gone = [tmp_path / "mpibench" / "__pycache__" / "node.pyc", tmp_path / "build" / "lib" / "node.py"]
    for path in kept + gone:
        path.parent.mkdir(parents=True)
        path.touch()
    subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)
    assert [path.exists() for path in kept + gone] == [True, True, False, False]


def requirements():
    """(extra or "", package) of everything that pyproject.toml asks for."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return [(extra, canonical(re.match(r"[\w.-]+", line)[0])) for extra, lines in groups.items() for line in lines]


def test_constraints_pin_all_requirements_and_what_they_require_in_turn():
    asked = [line for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for line in lines]
    refused, seen = [], set()
    while asked:
        requirement = Requirement(asked.pop())
        name = canonical(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in PINS or not requirement.specifier.contains(PINS[name]):
            refused.append(str(requirement))
        elif name not in seen:
            seen.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):  # an extra that is not installed here
                if name != "torch" or metadata.version(name).endswith("+cpu"):  # others name a CUDA of their own
                    asked += metadata.requires(name) or []
    assert not refused


def imported(package):
    """The packages from elsewhere that a package's modules import."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / package).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {name.partition(".")[0] for name in names}
    return {canonical({"sklearn": "scikit-learn"}.get(name, name)) for name in names - sys.stdlib_module_names}


def test_what_is_imported_is_required_and_what_is_required_is_imported():
    core = {name for extra, name in requirements() if not extra}
    used = (imported("mpibench") | imported("analysis") | {"plotly"}) - {"mpibench", "analysis"}  # its script is read
    assert core == used - {"mpi4py", "torch"}  # these two are extras: the core does without


@pytest.mark.mpi
def test_the_mpi_library_and_the_ranks_are_those_meant():
    if "MPIBENCH_EXPECT_MPI" not in os.environ:
        pytest.skip("MPIBENCH_EXPECT_MPI and MPIBENCH_EXPECT_RANKS say what `make test-mpi` means")
    from mpi4py import MPI

    assert os.environ["MPIBENCH_EXPECT_MPI"] in MPI.Get_library_version()  # a wheel may load any library it finds
    assert MPI.COMM_WORLD.size == int(os.environ["MPIBENCH_EXPECT_RANKS"])  # a foreign launcher starts single processes
