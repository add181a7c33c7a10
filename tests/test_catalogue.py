"""Names are files: what is found, what is said about it, and what a table of values is held to."""

import math
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Lt, MinLen

from mpibench import catalogue
from mpibench.algorithms.minibatch_sgd import MinibatchSGD
from mpibench.errors import InvalidInput
from mpibench.parameters import Count, Finite, NonNegative, Positive, Probability, Threshold


@pytest.mark.parametrize("kind", ["algorithm", "problem", "compressor"])
def test_every_file_is_found_summed_up_loaded_and_described(kind):
    files = {p.stem for p in catalogue.FOLDERS[kind].glob("*.py") if p.stem[0] != "_"}
    assert set(catalogue.names(kind)) == files and files
    for name in files:
        summary = catalogue.summary(kind, name)
        cls = catalogue.load(kind, name)
        assert summary == sys.modules[cls.__module__].__doc__.splitlines()[0] != ""
        text = catalogue.describe(name, kind)
        assert text.startswith(f"{name} ({kind})\n\n{summary}")
        for parameter in fields(cls):
            assert f"\n  {parameter.name} " in text


def test_a_class_is_found_whatever_the_case_of_its_name():
    assert catalogue.load("algorithm", "minibatch_sgd") is MinibatchSGD


def test_topologies_are_files_too():
    assert "star" in catalogue.names("topology")
    first = (catalogue.FOLDERS["topology"] / "star.toml").read_text().splitlines()[0]
    assert f"# {catalogue.summary('topology', 'star')}" == first
    assert 'name = "star"' in catalogue.describe("star")


def test_a_topology_is_described_with_its_facts():
    assert catalogue.describe("ring-8").endswith(
        "spectral gap  0.1953 with Metropolis weights\ncentre        rank 0\nroots         every rank"
    )
    assert "With 16 ranks, for example (--size N for another number):\n\nsize          16 nodes" in catalogue.describe(
        "line"
    )
    assert "example" not in (text := catalogue.describe("line", size=5)) and "5 nodes, 4 edges both ways" in text


def test_a_topology_is_also_a_path_or_a_generator(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('name = "mesh"\nrows = 2\ncolumns = 5\n')
    text = catalogue.describe(str(file))
    assert text.startswith("own (topology)\n\nname = ") and "10 nodes, 13 edges both ways" in text
    assert "  rows     a whole number >= 1; required\n  columns  a" in catalogue.describe("mesh")
    text = catalogue.describe("two_clusters", size=6)
    assert "  bridges  a whole number >= 1; default 1\n" in text and "6 nodes, 7 edges both ways" in text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: catalogue.load("algorithm", "ringmastr"), "no algorithm `ringmastr`; did you mean `ringmaster`?"),
        (lambda: catalogue.summary("problem", "quadratix"), "no problem `quadratix`; did you mean `quadratic`?"),
        (lambda: catalogue.load("problem", "xyz"), "known: `logistic`, `mlp`, `quadratic`, `quadratics`"),
        (lambda: catalogue.load("algorithm", "../seeds"), "no algorithm `../seeds`"),
        (lambda: catalogue.load("algorithm", "__init__"), "no algorithm `__init__`"),
        (lambda: catalogue.describe("async_sgdd"), "compressor or topology `async_sgdd`; did you mean"),
        (lambda: catalogue.describe("torrus"), "compressor or topology `torrus`; did you mean `torus`?"),
        (lambda: catalogue.describe("torrus", kind="problem"), "there is no problem `torrus`; known:"),
        (
            lambda: catalogue.describe("quadratic", size=3),
            "`quadratic` is no topology, so it has no size and no picture",
        ),
        (lambda: catalogue.describe("ring-8", size=9), "ring-8: the graph has 8 nodes for 9 ranks"),
        (lambda: catalogue.describe("hypercube-8", size=6), "hypercube-8: the graph has 8 nodes for 6 ranks"),
        (lambda: catalogue.describe("nowhere.toml"), "topology nowhere.toml cannot be read"),
        (lambda: catalogue.describe("mesh", picture="a.png"), "mesh has no picture without rows and columns"),
        (lambda: catalogue.describe("ring", picture="a.jpg"), "the picture a.jpg would be a PNG"),
        (
            lambda: catalogue.describe("ring", picture="no/folder/a.png"),
            "the picture no/folder/a.png cannot be written",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(call, text):
    with pytest.raises(InvalidInput) as refusal:
        call()
    assert text in str(refusal.value)


def test_listing_imports_no_library_and_no_algorithm():
    code = """
        import sys
        from mpibench import catalogue
        for kind in catalogue.FOLDERS:
            for name in catalogue.names(kind):
                assert catalogue.summary(kind, name)
        heavy = {"numpy", "pydantic", "torch", "h5py", "networkx", "mpi4py", "mpibench.algorithms.ringmaster"}
        print(sorted(heavy & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Positive, "a finite number > 0"),
        (NonNegative, "a finite number >= 0"),
        (Finite, "a finite number"),
        (Probability, "a number >= 0 and <= 1"),
        (Count, "a whole number >= 1"),
        (Count | None, "a whole number >= 1"),
        (Threshold, "a whole number >= 1, or inf"),
        (bool, "true or false"),
        (str, "a text"),
        (Literal["a", "b"], 'one of "a", "b"'),
        (tuple[Positive, ...], "a list, each a finite number > 0"),
        (Annotated[tuple[int, ...], MinLen(1)], "a list of at least 1, each a whole number"),
        (Annotated[float, Ge(0), Lt(0.5)], "a number >= 0 and < 0.5"),
        (dict[str, float], "a table, each a number"),
    ],
)
def test_ranges_in_words(annotation, text):
    assert catalogue.words(annotation) == text


@dataclass(frozen=True)
class Inner:
    seconds: NonNegative = 0.0


@dataclass(frozen=True)
class Base:
    stepsize: Positive  # γ, per update


@dataclass(frozen=True)
class Method(Base):
    # how many
    # are enough
    batch: Count = 4
    weights: tuple[Positive, ...] = (1.0, 0.5)  # w, relative
    rule: Literal["a", "b"] = "a"
    inner: Inner | None = None
    limit: Threshold = math.inf
    extra: dict[str, Finite] = field(default_factory=dict)

    def __post_init__(self):
        if self.batch == 13:
            raise ValueError("batch = 13 brings bad luck")


def test_comments_are_read_behind_and_above_fields_and_from_bases():
    assert catalogue.field_comments(Method) == {
        "stepsize": "γ, per update",
        "batch": "how many are enough",
        "weights": "w, relative",
        "rule": "",
        "inner": "",
        "limit": "",
        "extra": "",
    }


def refuse(at, text, key=None):
    raise InvalidInput(f"{'.'.join(at)} {text}")


def read(table):
    return catalogue.read(Method, table, ("m",), refuse)


def test_a_table_becomes_an_object_with_numbers_of_the_declared_types():
    table = {"stepsize": 1, "weights": [1, 2.5], "inner": {"seconds": 2}, "limit": 16, "extra": {"a": 1}}
    method = read(table)
    assert method == Method(1.0, 4, (1.0, 2.5), "a", Inner(2.0), 16, {"a": 1.0})
    assert type(method.stepsize) is float and type(method.limit) is int and type(method.inner.seconds) is float
    assert read({"stepsize": 0.5}) == Method(0.5)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({}, "m lacks `stepsize`, a finite number > 0"),
        ({"stepsize": 1.0, "bach": 3}, "m has no key `bach`; did you mean `batch`?"),
        ({"stepsize": -1.0}, "m stepsize = -1.0 must be a finite number > 0"),
        ({"stepsize": math.inf}, "m stepsize = inf must be a finite number > 0"),
        ({"stepsize": math.nan}, "m stepsize = nan must be a finite number > 0"),
        ({"stepsize": "1"}, 'm stepsize = "1" must be a finite number > 0'),
        ({"stepsize": True}, "m stepsize = true must be a finite number > 0"),
        ({"stepsize": 1.0, "batch": 2.0}, "m batch = 2.0 must be a whole number >= 1"),
        ({"stepsize": 1.0, "batch": True}, "m batch = true must be a whole number >= 1"),
        ({"stepsize": 1.0, "batch": 13}, "m batch = 13 brings bad luck"),
        ({"stepsize": 1.0, "limit": 1.5}, "m limit = 1.5 must be a whole number >= 1, or inf"),
        ({"stepsize": 1.0, "limit": math.nan}, "m limit = nan must be a whole number >= 1, or inf"),
        ({"stepsize": 1.0, "rule": "c"}, 'm rule = "c" must be one of "a", "b"'),
        ({"stepsize": 1.0, "weights": [1.0, 0.0]}, "m weights = [1.0, 0.0] must be a list, each a finite number > 0"),
        ({"stepsize": 1.0, "inner": {"second": 1.0}}, "m.inner has no key `second`; did you mean `seconds`?"),
        ({"stepsize": 1.0, "inner": {"seconds": -1.0}}, "m.inner seconds = -1.0 must be a finite number >= 0"),
        ({"stepsize": 1.0, "inner": 3}, "m inner = 3 must be a table"),
        ({"stepsize": 1.0, "extra": {"a": "b"}}, 'm a = "b" must be a finite number'),
        ({"stepsize": 1.0, "extra": 7}, "m extra = 7 must be a table"),
    ],
)
def test_what_is_wrong_in_a_table_is_one_sentence(table, text):
    with pytest.raises(InvalidInput) as refusal:
        read(table)
    assert str(refusal.value) == text


def test_long_values_are_cut():
    with pytest.raises(InvalidInput) as refusal:
        read({"stepsize": 1.0, "weights": [0.0] * 10_000})
    assert len(str(refusal.value)) < 200
