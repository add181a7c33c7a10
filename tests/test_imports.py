"""Who may import what, held over every file; what must work without MPI and torch; and how large files may be."""

import ast
import io
import os
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path

import h5py
import pytest

from mpibench import experiment
from mpibench.runner import simulate

ROOT = Path(__file__).parent.parent
FILES = {
    path.relative_to(ROOT).with_suffix("").as_posix(): path
    for folder in ("mpibench", "analysis")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

# The standard library is open to all but algorithms. Of other packages and of this one: what a module may import when
# it is imported itself, and what only inside functions, when it is needed. A folder's row holds for each file in it
# that has no row of its own, and `mpibench.x` allows `mpibench.x` alone. What is not named is forbidden.
LIGHT = {"annotated_types", "mpibench.errors", "mpibench.parameters"}
MAY_IMPORT = {  # module: (at the top, inside functions)
    "mpibench/__init__": (set(), set()),
    "mpibench/__main__": (
        {"click", "mpibench", "mpibench.errors"},  # `--help` and `list` start with these alone
        {"mpibench.calibrate", "mpibench.campaign", "mpibench.catalogue", "mpibench.doctor", "mpibench.experiment"}
        | {"mpibench.gathering", "mpibench.outlook", "mpibench.verify"}
        | {"mpibench.batch", "mpibench.sites", "mpibench.standing", "mpi4py", "rich"},
    ),
    "mpibench/node": ({"numpy"}, set()),
    "mpibench/algorithm": ({"mpibench.parameters", "mpibench.topology"}, set()),
    "mpibench/collectives": (set(), set()),
    "mpibench/parameters": ({"annotated_types"}, set()),
    "mpibench/errors": (set(), set()),
    "mpibench/seeds": (set(), {"numpy"}),
    "mpibench/catalogue": (LIGHT, {"pydantic", "mpibench.graphs", "mpibench.portrait", "mpibench.topology"}),
    "mpibench/topology": (LIGHT | {"mpibench.catalogue"}, {"networkx", "mpibench.graphs"}),
    "mpibench/graphs": (LIGHT | {"mpibench.topology"}, {"numpy", "networkx"}),
    "mpibench/weights": ({"numpy", "mpibench.errors", "mpibench.graphs"}, set()),
    "mpibench/lattice": (LIGHT | {"numpy", "mpibench.packing"}, set()),
    "mpibench/network": ({"numpy", "mpibench.errors", "mpibench.topology"}, {"scipy"}),
    "mpibench/portrait": (
        {"numpy", "mpibench.errors", "mpibench.graphs", "mpibench.network", "mpibench.topology", "mpibench.weights"},
        {"matplotlib", "networkx", "scipy"},
    ),
    "mpibench/heterogeneity": (LIGHT, set()),
    "mpibench/jitter": (LIGHT | {"mpibench.heterogeneity"}, {"scipy"}),
    "mpibench/speeds": (LIGHT | {"mpibench.heterogeneity"}, {"scipy"}),
    "mpibench/stragglers": (LIGHT | {"mpibench.heterogeneity"}, set()),
    "mpibench/profiles": (
        LIGHT | {"numpy", "mpibench.heterogeneity", "mpibench.jitter", "mpibench.speeds", "mpibench.stragglers"},
        set(),
    ),
    "mpibench/packing": ({"numpy"}, set()),
    "mpibench/compressors/_repeated": (
        {"numpy", "mpibench.compressors", "mpibench.compressors._sparse", "mpibench.compressors.identity"}
        | {"mpibench.compressors.rand_k", "mpibench.errors"},
        set(),
    ),
    "mpibench/compressors": (
        LIGHT
        | {"numpy", "mpibench.compressors", "mpibench.compressors._parts", "mpibench.compressors._sparse"}
        | {"mpibench.lattice", "mpibench.node", "mpibench.packing"},
        {"torch"},
    ),
    "mpibench/schedule": ({"numpy", "mpibench.errors"}, set()),
    "mpibench/theory": ({"numpy", "mpibench.network", "mpibench.schedule"}, set()),
    "mpibench/ledger": ({"numpy"}, set()),
    "mpibench/doctor": ({"mpibench.provenance"}, {"mpi4py", "mpibench.clocks"}),
    "mpibench/calibrate": (
        {"numpy", "mpibench.collectives"},
        {"mpi4py", "mpibench.clocks", "mpibench.engines.mpi", "mpibench.node"},
    ),
    "mpibench/restart": ({"h5py", "numpy", "mpibench.errors", "mpibench.ledger"}, {"torch"}),
    "mpibench/journal": ({"numpy", "mpibench.layout", "mpibench.node"}, set()),
    "mpibench/layout": ({"numpy", "mpibench.node"}, {"torch"}),
    "mpibench/event_counts": ({"numpy"}, set()),
    "mpibench/sdde": ({"numpy", "mpibench.errors"}, {"scipy"}),
    "mpibench/machine": (
        {"numpy", "mpibench.algorithm", "mpibench.event_counts", "mpibench.seeds"},
        {"mpibench.graphs", "mpibench.network"},
    ),
    "mpibench/forms": ({"numpy", "mpibench.event_counts", "mpibench.theory"}, set()),
    "mpibench/prediction": ({"mpibench.forms", "mpibench.machine", "mpibench.theory"}, set()),
    "mpibench/outlook": (
        {"numpy", "mpibench.compressors._repeated", "mpibench.event_counts", "mpibench.forms", "mpibench.machine"}
        | {"mpibench.prediction", "mpibench.theory"},
        set(),
    ),
    "mpibench/constants": (set(), set()),
    "mpibench/datasets": (LIGHT | {"numpy", "mpibench.seeds"}, {"sklearn"}),
    "mpibench/provenance": ({"mpibench"}, {"threadpoolctl"}),
    "mpibench/record": ({"h5py", "numpy", "mpibench.errors"}, set()),
    "mpibench/sites": (LIGHT | {"mpibench.catalogue"}, set()),
    "mpibench/batch": ({"mpibench", "mpibench.catalogue", "mpibench.errors", "mpibench.sites"}, {"jinja2"}),
    "mpibench/standing": ({"h5py", "mpibench.batch", "mpibench.record"}, set()),
    "mpibench/trials": ({"mpibench.errors", "mpibench.record"}, set()),
    "mpibench/checks": (
        {"numpy", "mpibench.experiment", "mpibench.heterogeneity", "mpibench.node", "mpibench.profiles"}
        | {"mpibench.runner", "mpibench.weights"},
        set(),
    ),
    "mpibench/steps": ({"numpy", "mpibench.node"}, set()),
    "mpibench/verify": ({"mpibench", "h5py", "numpy", "mpibench.experiment", "mpibench.record"}, set()),
    "mpibench/experiment": (
        LIGHT
        | {"mpibench.catalogue", "mpibench.topology"}
        | {"mpibench.heterogeneity", "mpibench.measuring", "mpibench.profiles", "mpibench.speeds"},
        set(),
    ),
    "mpibench/gathering": ({"h5py", "mpibench", "mpibench.errors", "mpibench.record", "mpibench.verify"}, set()),
    "mpibench/measuring": ({"numpy", "mpibench.seeds"}, set()),
    "mpibench/watch": ({"mpibench.node"}, set()),
    "mpibench/peers": ({"mpibench.node", "mpibench.watch"}, set()),
    "mpibench/watchdog": ({"mpibench.node"}, set()),
    "mpibench/allocation": (set(), set()),
    "mpibench/doorbell": (set(), set()),
    "mpibench/reduction": ({"numpy", "mpibench.node"}, {"torch"}),
    "mpibench/shared_memory": ({"numpy"}, {"mpi4py", "torch"}),
    "mpibench/runner": (
        {"numpy", "mpibench.journal", "mpibench.ledger", "mpibench.node", "mpibench.peers", "mpibench.provenance"}
        | {"mpibench.measuring", "mpibench.steps"}
        | {"mpibench.allocation", "mpibench.restart", "mpibench.seeds", "mpibench.watch"},
        {"mpibench.engines.simulation", "mpibench.engines.mpi", "mpibench.clocks"}
        | {"mpibench.graphs", "mpibench.network"},
    ),
    "mpibench/campaign": (
        {"numpy", "mpibench.errors", "mpibench.experiment", "mpibench.ledger", "mpibench.restart", "mpibench.seeds"}
        | {"mpibench.checks", "mpibench.measuring", "mpibench.verify"}
        | {"mpibench.prediction", "mpibench.provenance", "mpibench.record", "mpibench.runner", "mpibench.trials"},
        {"mpi4py"},
    ),
    "mpibench/engines/__init__": (set(), set()),
    "mpibench/agenda": (set(), set()),
    "mpibench/repetition": ({"mpibench.node"}, set()),
    "mpibench/engines/simulation": (
        {"numpy", "mpibench.agenda", "mpibench.node", "mpibench.repetition", "mpibench.shared_memory"},
        set(),
    ),
    "mpibench/engines/mpi": (
        {"numpy", "mpi4py", "mpibench.doorbell", "mpibench.node", "mpibench.reduction", "mpibench.shared_memory"}
        | {"mpibench.repetition", "mpibench.watchdog", "mpibench.engines.wire"},
        set(),
    ),
    "mpibench/engines/wire": ({"numpy", "mpi4py", "mpibench.layout"}, set()),
    "mpibench/clocks": ({"numpy", "mpi4py"}, set()),
    "mpibench/algorithms": (
        {"mpibench.algorithm", "mpibench.collectives", "mpibench.compressors", "mpibench.lattice", "mpibench.topology"}
        | {"mpibench.compressors._repeated", "mpibench.schedule", "mpibench.weights"},
        set(),
    ),
    "mpibench/compressors/flattened_one_bit": (
        LIGHT | {"numpy", "mpibench.compressors", "mpibench.compressors.dithered_one_bit", "mpibench.packing"},
        set(),
    ),
    **{
        f"mpibench/algorithms/{name}": (
            {"mpibench.algorithm", "mpibench.collectives", "mpibench.compressors"}
            | {f"mpibench.compressors.{part}" for part in parts},
            set(),
        )
        for name, parts in {
            "qsgd": ["qsgd"],
            "sign_sgd": ["sign"],
            "fo_sgd": ["dithered_one_bit", "flattened_one_bit"],
            "one_bit_adam": ["scaled_sign"],
            "power_sgd": ["low_rank"],
        }.items()
    },
    # variants that their paper states as a change of Fragile SGD have its processes
    "mpibench/algorithms/fragile_accelerated": ({"mpibench.algorithms.fragile"}, set()),
    "mpibench/algorithms/ad_psgd_bipartite": ({"mpibench.algorithms.ad_psgd"}, set()),
    "mpibench/algorithms/tree_minibatch_eager": ({"mpibench.algorithm", "mpibench.algorithms.fragile"}, set()),
    "mpibench/algorithms/swarm_sgd_blocking": ({"mpibench.algorithms.swarm_sgd"}, set()),
    # the matrix of one is that of the other
    "mpibench/problems/quadratics": (LIGHT | {"numpy", "mpibench.problems.quadratic", "mpibench.seeds"}, set()),
    "mpibench/problems": (
        LIGHT | {"numpy", "mpibench.constants", "mpibench.datasets", "mpibench.seeds"},
        {"sklearn", "torch"},
    ),
    "analysis/__main__": ({"click", "analysis"}, set()),  # `--help` starts without pandas and matplotlib
    "analysis": ({"numpy", "h5py", "pandas", "scipy", "matplotlib", "jinja2", "analysis"}, {"rich"}),
    "analysis/report": ({"numpy", "h5py", "jinja2", "markupsafe", "analysis"}, set()),  # it reads plotly's script
}
PLANNED = set()  # rows whose files are still to come
OF_ALGORITHMS = {"dataclasses", "enum", "math", "typing"}  # all that these may have of the standard library


def row_of(module):
    """The row of the table that holds for a module, or None."""
    return module if module in MAY_IMPORT else next((m for m in MAY_IMPORT if m == module.rpartition("/")[0]), None)


def imports_of(text):
    """(imported module, whether inside a function, line) for everything that is imported."""
    found = []

    def visit(node, late):
        late = late or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(node, ast.Import):
            found.extend((alias.name, late, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:  # `from mpibench import watch` imports a module
                inner = f"{node.module}.{alias.name}"
                is_module = any((ROOT / inner.replace(".", "/")).with_suffix(end).exists() for end in ("", ".py"))
                found.append((inner if is_module else node.module, late, node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child, late)

    visit(ast.parse(text), False)
    return found


def allows(allowed, name):
    """Whether an imported name is one of these: a package of others with all in it, of this project the module alone;
    "analysis" stands for all of its modules."""
    top = name.partition(".")[0]
    return name in allowed if top == "mpibench" else top in allowed


def trespasses(module, text):
    """What a module's text imports against the table: lines of (module, line, name)."""
    top, late = MAY_IMPORT[row_of(module)]
    library = OF_ALGORITHMS if module.startswith("mpibench/algorithms/") else sys.stdlib_module_names
    return [
        f"{module}:{line} imports {name}{' in a function' if inside else ''}"
        for name, inside, line in imports_of(text)
        if name.partition(".")[0] not in library and not allows(top | late if inside else top, name)
    ]


def test_every_file_has_its_row_and_every_row_a_file():
    assert {module for module in FILES if row_of(module) is None} == set()
    assert set(MAY_IMPORT) - {row_of(module) for module in FILES} <= PLANNED


@pytest.mark.parametrize("module", FILES)
def test_a_module_imports_what_it_may(module):
    assert trespasses(module, FILES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        *(("mpibench/algorithms/new", f"import {name}") for name in ("numpy", "torch", "time", "random", "threading")),
        ("mpibench/algorithms/new", "from mpibench.algorithms.async_sgd import AsyncSGD"),
        ("mpibench/algorithms/new", "from mpibench import watch"),
        ("mpibench/algorithms/new", "from mpibench.node import Node"),
        ("mpibench/problems/new", "import torch"),
        ("mpibench/problems/new", "def f():\n    import mpi4py.MPI"),
        ("mpibench/problems/new", "from mpibench.engines import simulation"),
        ("mpibench/engines/simulation", "import mpi4py"),
        ("mpibench/engines/mpi", "from mpibench import experiment"),
        ("mpibench/node", "from mpibench.errors import InvalidInput"),
        ("mpibench/campaign", "from mpi4py import MPI"),
        ("mpibench/__main__", "import numpy as np"),
        ("mpibench/record", "def f():\n    from mpibench.algorithms import ringmaster"),
        ("analysis/curves", "class A:\n    def f(self):\n        from mpibench.record import SCHEMA"),
    ],
)
def test_the_table_refuses(module, text):
    assert len(trespasses(module, text)) == 1


def test_modules_are_named_where_they_are_imported():
    # importlib and __import__ would pass the table by; the catalogue finds algorithms and problems by file
    hidden = {"importlib", "__import__", "import_module", "exec", "eval"}
    for module in set(FILES) - {"mpibench/catalogue"}:
        tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
        assert not {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & hidden, module


# Without MPI and torch.

WATCHED = {"numpy", "mpi4py", "torch", "pydantic", "h5py", "pandas", "matplotlib", "networkx"}
LOADED = """
import atexit, runpy, sys
atexit.register(lambda: print("loaded:", *sorted({watched} & set(sys.modules))))
sys.argv[:] = {arguments}
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mpi4py", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
"""
JOB = """
schema = 1
[experiment]
name = "small"
workers = 3
seeds = [0]
stop = { seconds = 20.0 }
snapshot = { seconds = 1.0 }
targets = { metric = "loss", values = [1.0], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 5
[heterogeneity]
compute = { profile = "sqrt" }
[[algorithm]]
name = "ringmaster"
stepsize = 0.3
threshold = 4
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.3
"""


def python(*arguments, path=None):
    """Run Python in the project's folder; its output."""
    environment = dict(os.environ) | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded(*arguments):
    """Which of WATCHED a command has imported when it ends."""
    out = python("-c", LOADED.format(watched=WATCHED, arguments=list(map(str, arguments))))
    return set(out.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("argument", ["--help", "list"])
def test_the_command_line_starts_light(argument):
    assert loaded("mpibench", argument) == set()


def test_help_of_the_analysis_starts_light():
    assert loaded("analysis", "--help") == set()


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    file = tmp_path_factory.mktemp("job") / "small.toml"
    file.write_text(JOB)
    return file


def test_a_simulation_imports_neither_mpi_nor_torch(job, tmp_path):
    assert loaded("mpibench", "run", job, "-q", "--out", tmp_path) == {"numpy", "pydantic", "h5py"}


def test_simulation_and_analysis_work_where_neither_mpi_nor_torch_can_be_imported(job, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    refusing = "import importlib\nfor name in ('mpi4py', 'torch'):\n    try: importlib.import_module(name)\n"
    refusing += "    except ModuleNotFoundError: print('none')"
    assert python("-c", refusing, path=tmp_path) == "none\nnone\n"
    python("-m", "mpibench", "run", job, "-q", "--out", tmp_path / "results", path=tmp_path)
    for cell in experiment.load(job).cells():  # what another process with all packages computes has the same bits
        (file,) = (tmp_path / "results").rglob(f"{cell.label}-*/seed-0-*.h5")
        here = simulate(cell, seed=0)
        with h5py.File(file) as there:
            assert all(there.attrs[name] == here.attrs[name] for name in ("event_hash", "model_hash"))
            assert there["trace/loss"][:].tolist() == here.trace["loss"].tolist()
    assert "Usage" in python("-m", "analysis", "--help", path=tmp_path)
    table = python("-m", "analysis", "table", "--ungated", tmp_path / "results", path=tmp_path)
    assert "ringmaster" in table and "minibatch_sgd" in table


# Size and words.

ALGORITHMS = [FILES[m] for m in FILES if m.startswith("mpibench/algorithms/") and not m.endswith("__init__")]
LOG = r"(?<!math\.)log(?! [nd]\b)|logs|logg\w+"
FOREIGN = rf"\b(engines?|mpi|simulations?|emulat\w+|{LOG}|print\w*|shut ?down|finali[sz]e)\b"


@pytest.mark.parametrize("path", ALGORITHMS, ids=lambda path: path.stem)
def test_an_algorithm_is_short_and_speaks_of_nothing_else(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno + 1 < 40, f"{node.name} is too long"
    assert [found[0] for found in re.finditer(FOREIGN, text, re.IGNORECASE)] == []


def lines_of_code(text):
    """Number of lines that are neither blank nor comment nor docstring."""
    nothing = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            lines.update(range(token.start[0], token.end[0] + 1))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node):
            lines.difference_update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_lines_of_code_are_counted_without_blanks_comments_and_docstrings():
    text = '''
    """A docstring
    of two lines."""

    # a comment
    def f(x):  # counted
        """Another."""
        return g(
            x,
        )
    '''
    assert lines_of_code(textwrap.dedent(text)) == 4


def test_node_and_engines_stay_small():
    kernel = [module for module in FILES if module == "mpibench/node" or module.startswith("mpibench/engines/")]
    lines = {module: lines_of_code(FILES[module].read_text(encoding="utf-8")) for module in kernel}
    assert len(kernel) >= 5 and sum(lines.values()) <= 990, lines
