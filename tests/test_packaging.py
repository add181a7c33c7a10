"""The files for Apptainer, ReFrame, Ramble, Spack and modules are sound, and fit the project."""

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.__main__ import main as analysis
from mpibench.__main__ import cli

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "jobs" / "packaging"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
RUN_LINE = "async_sgd seed 3: accuracy 0.9 after 0.52 s; results/demo/async_sgd-1/seed-3-x.h5"
MISSED_LINE = "async_sgd seed 3: censored (budget) at 9 s; results/demo/async_sgd-1/seed-3-x.h5"


def text(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def python_calls(name):
    """The calls at the top of the class in this file: name to (arguments, keywords) of each."""
    found = {}
    for node in ast.walk(ast.parse(text(name))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            try:
                arguments = [ast.literal_eval(each) for each in node.args]
                keywords = {each.arg: ast.literal_eval(each.value) for each in node.keywords}
            except ValueError:
                continue
            found.setdefault(node.func.id, []).append((arguments, keywords))
    return found


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".py"], ids=lambda path: path.name)
def test_python_files_are_python(path):
    compile(path.read_text(encoding="utf-8"), str(path), "exec")


def commands():
    """(where, words) of every command line of mpibench and analysis in these files."""
    for path in FILES:
        for line in path.read_text(encoding="utf-8").replace("-m\n  mpibench", "-m mpibench").splitlines():
            for match in re.finditer(r"(?:-m |^\s*)(mpibench|analysis) ((?:run|verify|table|doctor)[^\"'`|;(]*)", line):
                yield pytest.param(match[1], shlex.split(match[2]), id=f"{path.name}: {match[0].strip()[:40]}")


@pytest.mark.parametrize(("program", "words"), list(commands()))
def test_command_lines_parse(program, words):
    """Every option is one that the command has: what is refused is a file that is not there, never a word."""
    words = [re.sub(r"\{clock\}", "native", word) for word in words]
    command = (cli if program == "mpibench" else analysis).commands[words[0]]
    with command.make_context(words[0], words[1:], resilient_parsing=False):
        pass
    assert CliRunner().invoke(command, ["--help"]).exit_code == 0


def test_there_are_command_lines_to_parse():
    assert len(list(commands())) >= 5


def test_recipe_copies_all_that_the_project_installs():
    recipe = text("mpibench.def")
    copied = dict(re.findall(r"^    (\S+) /opt/mpibench/(\S+)$", recipe, re.MULTILINE))
    assert all((ROOT / name).exists() and name == to for name, to in copied.items())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(copied)


def test_spack_knows_the_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = text("spack/packages/py-mpibench/package.py")
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)[0]
        assert f'"{name}' in recipe or f'"py-{name}' in recipe, requirement
    assert project["license"] in recipe


def test_ramble_and_reframe_read_what_a_run_says():
    calls = python_calls("ramble/applications/mpibench/application.py")
    names = {arguments[0] for arguments, _ in calls["executable"]}
    assert set(calls["workload"][0][1]["executables"]) == names
    regex = calls["figure_of_merit"][0][1]["fom_regex"]
    assert re.search(regex, RUN_LINE)["seconds"] == "0.52" and not re.search(regex, MISSED_LINE)
    context = calls["figure_of_merit_context"][0][1]["regex"]
    assert re.search(context, RUN_LINE).groupdict() == {"method": "async_sgd", "seed": "3"}
    assert re.search(calls["success_criteria"][0][1]["match"], MISSED_LINE)
    line = re.search(r'line = rf"(.*)"', text("reframe_mpibench.py"))[1].replace("{method}", "async_sgd")
    assert re.search(line, RUN_LINE)["seconds"] == "0.52" and re.search(line, MISSED_LINE)["seconds"] is None
