"""What the README shows works: its files are put into a copy of the project, its commands are run there."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpibench import catalogue

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = {m[1]: body for _, body in BLOCKS if (m := re.match(r"# (\S+/\S+)\n", body))}
COMMANDS = [shlex.split(line, comments=True) for kind, body in BLOCKS if kind == "sh" for line in body.splitlines()]
SHORT = ["--set", "experiment.stop.seconds=0.5", "--set", "tuning.seeds=[100]", "--seed", "0"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the README's files in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("mpibench", "analysis", "topologies", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, body in FILES.items():
        assert not (folder / name).exists(), f"{name} is there already: the example adds nothing"
        (folder / name).write_text(body, encoding="utf-8")
    return folder


def run(project, *arguments, codes=(0,)):
    """Run a module of the copy."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=100)
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def test_there_is_an_example_of_each_kind():
    assert {Path(name).parent.name for name in FILES} == {"algorithms", "problems", "topologies", "jobs"}


def test_the_new_files_are_found_and_run(project):
    listed = run(project, "mpibench", "list")
    for name in FILES:
        if "jobs" not in name:
            assert Path(name).stem in listed
            assert run(project, "mpibench", "describe", Path(name).stem)
    out = run(project, "mpibench", "run", "jobs/bowl.toml", "--out", "new")
    assert "12 runs, 0 without the headline target" in out
    assert "0 findings" in run(project, "mpibench", "verify", "new")
    table = run(project, "analysis", "table", "--ungated", "new")
    assert re.search(r"heavy_ball +\|.*\| 6 ", table)


def test_the_new_topology_carries_the_new_algorithm(project):
    graph = ["--set", 'graph.file="../topologies/relay.toml"', "--set", "experiment.workers=2"]
    done = run(project, "mpibench", "run", "jobs/bowl.toml", "--dry-run", *graph)
    assert "heavy_ball" in done
    refused = [sys.executable, "-m", "mpibench", "run", "jobs/bowl.toml", "--dry-run", *graph[:2]]
    done = subprocess.run(refused, cwd=project, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "3 nodes for 9 ranks" in done.stderr


def test_commands_run_as_they_stand(project):
    ran = 0
    for words in COMMANDS:
        if words[:2] == ["mpibench", "run"]:
            run(project, *words, *(SHORT if "--dry-run" not in words else []), codes=(0, 3))
        elif words[:1] == ["mpibench"]:
            run(project, *words)
        elif words[:2] == ["python", "-m"]:  # of too few runs
            shown = ["--ungated"] if words[3] in ("table", "report") else []
            run(project, *words[2:], *shown, codes=(0, 1) if words[3] == "grade" else (0,))
        elif words and words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:  # launchers: what they are given exists, and their arguments are a plan
            job = next(word for word in words if word.endswith(".toml"))
            script = next((word for word in words if word.startswith("jobs/") and word != job), None)
            assert script is None or (ROOT / script).exists()
            options = words[words.index(job) + 1 :]
            run(project, "mpibench", "run", job, *options, "--dry-run")
        ran += bool(words)
    assert ran >= 10


@pytest.mark.parametrize("path", sorted(ROOT.glob("topologies/*.toml")), ids=lambda path: path.stem)
def test_every_topology_is_described(path):  # the jobs are in test_jobs.py
    assert "edges" in catalogue.describe(path.stem)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
