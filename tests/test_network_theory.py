"""Theory on networks: the papers' bounds by hand and by their closed forms, and predictions of the methods on trees
beside simulated runs."""

import itertools
import math
from dataclasses import replace
from itertools import pairwise

import numpy
import pytest
import tree_references
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tree_traces import CASES, EIGHTHS, LINE, RING, table
from toy import NEVER, Toy, cells

from mpibench import graphs, outlook, prediction, theory
from mpibench.experiment import load
from mpibench.forms import FORMS
from mpibench.machine import Machine
from mpibench.network import Network, equilibrium_seconds
from mpibench.runner import simulate

METHODS = list(tree_references.METHODS)
BATCHED = ["fragile", "fragile_accelerated", "amelie"]
few = settings(deadline=None, derandomize=True, database=None, max_examples=100)


def ways_of(graph, edge_seconds):
    """(n, n) seconds between the ranks of a graph all of whose edges take the same time."""
    return Network(graph, dict.fromkeys(graph.edges, 10**9), [1.0] * graph.size).distances / 1e9 * edge_seconds


LATTICE = ways_of(graphs.mesh(100, 10, 10), 1.0)

# Bounds.


def test_a_star_of_five():
    # from the centre and back are 20 s: t*(120, [1] * 5, [0, 20, 20, 20, 20]) = max(20, 120/5); from a leaf it is 40 s
    ways = ways_of(graphs.star(5), 10.0)
    assert theory.fragile_step_seconds(120, [1.0] * 5, ways) == (24.0, 5, 0)
    case = ([1.0] * 5, ways, 2.0, 3.0, 12.0, 0.1)  # LD/eps = 60
    assert theory.fragile_seconds(*case) == pytest.approx(60 * 24)
    # one way: 10 s to the centre, with which all five are there in 24 s; 20 s to a leaf are enough as well
    assert theory.fragile_lower_seconds(*case) == pytest.approx(60 * 24 / (math.log(5) + 1))
    assert theory.amelie_seconds(*case) == pytest.approx(60 * 24)  # max(20, 1, 120/5)
    assert theory.tree_minibatch_seconds(*case) == pytest.approx(60 * 20 * (1 + 24))


def test_ways_have_directions():
    # 0 -> 1 in 3 s, 1 -> 0 in 40 s
    ways = [[0.0, 3.0], [40.0, 0.0]]
    assert theory.fragile_step_seconds(60, [1.0, 1.0], ways) == (43.0, 2, 0)
    assert theory.fragile_lower_seconds([1.0, 1.0], ways, 1, 1, 60, 1) == pytest.approx(30 / (math.log(2) + 1))
    assert theory.fragile_lower_seconds([1.0, 9.0], ways, 1, 1, 60, 1) == pytest.approx(54 / (math.log(2) + 1))
    # a gradient in 9 s beside one in 1 s: 60 / (1 + 1/9) is more than the way
    assert theory.fragile_step_seconds(60, [9.0, 1.0], ways) == (pytest.approx(54.0), 2, 0)


@pytest.mark.parametrize(
    ("rho", "seconds", "useful"),
    [
        # Within 0, 1, 2, ... edges of rank 44 there are 1, 5, 13, 25, 41, 59, 75, 87, 95, 99, 100 ranks.
        (10.0, 24.0, 5),  # 20 s for 1 edge there and back: 120/5; 40 s for 2 are more
        (1.0, 6.0, 20),  # 6 s for 3 edges: then 20 of the 25 ranks are enough; 13 need 120/13
        (0.1, 1.4, 86),  # 1.4 s for 7 edges: 86 of 87 are enough; 75 need 1.6
    ],
)
def test_the_mesh_of_e_fragile(rho, seconds, useful):
    ways = LATTICE * rho
    time, many = equilibrium_seconds(120, [1.0] * 100, ways[44] + ways[:, 44])
    assert (time, many) == (pytest.approx(seconds), useful)
    best, _, pivot = theory.fragile_step_seconds(120, [1.0] * 100, ways)
    assert best == pytest.approx(seconds)  # no rank is better than the centre
    # the lowest-numbered rank that is as good: one with four neighbours is enough on the slowest links
    assert pivot == {10.0: 11, 1.0: pivot, 0.1: pivot}[rho] <= 44


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@few
@given(
    side=st.integers(1, 6),
    edge_seconds=st.floats(-4, 4).map(lambda e: 10**e),
    seconds=st.floats(-2, 2).map(lambda e: 10**e),
    noise_ratio=st.floats(-2, 6).map(lambda e: 10**e),
)
def test_closed_forms_of_meshes_are_the_equilibrium_within_a_constant(
    dimensions, side, edge_seconds, seconds, noise_ratio
):
    side = side * 20 if dimensions == 1 else side
    place = numpy.array(list(itertools.product(range(side), repeat=dimensions)))
    ways = abs(place[:, None] - place).sum(-1) * edge_seconds
    n = len(place)
    time = theory.fragile_step_seconds(noise_ratio, [seconds] * n, ways)[0]
    closed = theory.mesh_seconds(n, dimensions, seconds, edge_seconds, 1, 1, noise_ratio, 1)
    assert closed / 2.5 <= time <= 2.5 * closed


def test_closed_forms_by_hand():
    # (LD/eps) (h + X), hσ²/eps = 72
    def line(edge_seconds, n=5):
        return theory.line_seconds(n, 2.0, edge_seconds, L=1.0, D=3.0, s2=18.0, eps=0.5)

    assert line(72.0) == line(100.0) == 6 * (2 + 72)  # one rank alone
    assert line(8.0) == pytest.approx(6 * (2 + 24))  # sqrt(8 * 72)
    assert line(72 / 25) == line(1.0) == pytest.approx(6 * (2 + 72 / 5))  # all of them
    mesh = theory.mesh_seconds(1000, 2, 2.0, 9.0, L=1.0, D=3.0, s2=18.0, eps=0.5)
    assert mesh == pytest.approx(6 * (2 + (81 * 72) ** (1 / 3)))
    # at the two switches the cases are equal
    for n, edge_seconds in ((5, 72.0), (1000, 72 / 1000**1.5)):
        two = [theory.mesh_seconds(n, 2, 2.0, edge_seconds * (1 + d), 1, 1, 36.0, 1) for d in (-1e-9, 1e-9)]
        assert two[0] == pytest.approx(two[1])


@st.composite
def networks(draw):
    """(h, ways, σ²/eps) of up to 6 ranks; edges of both directions that take any time, or none."""
    case = draw(CASES)
    scale = draw(st.sampled_from([0.0, 0.01, 1.0, 100.0]))
    ways = numpy.array(tree_references.distances(case.n, case.edges), float) * scale
    return case.seconds, ways, draw(st.floats(0, 1000))


@few
@given(networks())
def test_who_is_faster_than_whom_on_a_network(network):
    h, ways, ratio = network
    case = (h, ways, 2.0, 3.0, ratio, 1.0)
    fragile, amelie, minibatch = (
        bound(*case) for bound in (theory.fragile_seconds, theory.amelie_seconds, theory.tree_minibatch_seconds)
    )
    rounding = 1 + 1e-9
    assert theory.fragile_lower_seconds(*case) <= fragile * rounding
    assert fragile <= theory.single_seconds(min(h), 2.0, 3.0, ratio, 1.0) * rounding
    assert fragile <= 2 * amelie * rounding  # a way there and back is at most twice the longest way
    assert amelie <= minibatch * rounding
    # where data may differ, everybody is waited for: never less than the bound for equal data
    assert theory.fragile_lower_seconds(*case) <= amelie * rounding


@few
@given(networks(), st.floats(1, 10))
def test_slower_links_and_more_noise_take_longer(network, factor):
    h, ways, ratio = network
    for bound in (
        theory.fragile_seconds,
        theory.fragile_lower_seconds,
        theory.amelie_seconds,
        theory.tree_minibatch_seconds,
    ):
        now = bound(h, ways, 2.0, 3.0, ratio, 1.0)
        assert now <= bound(h, factor * ways, 2.0, 3.0, ratio, 1.0) * (1 + 1e-9)
        assert now <= bound(h, ways, 2.0, 3.0, factor * ratio, 1.0) * (1 + 1e-9)


@few
@given(networks())
def test_links_without_time_are_no_network(network):
    h, ways, ratio = network
    case = (h, 0 * ways, 2.0, 3.0, ratio, 1.0)
    by_server = (h, 2.0, 3.0, ratio, 1.0)
    assert theory.tree_minibatch_seconds(*case) == pytest.approx(theory.minibatch_seconds(*by_server))
    # max{h_m, s / Σ} is between half of (m + s) / Σ and, with the workers of m that it needs, ln n + 1 times it
    fragile, rennala = theory.fragile_seconds(*case), theory.rennala_seconds(*by_server)[0]
    assert rennala / 2 <= fragile * (1 + 1e-9) and fragile <= rennala * (1 + math.log(len(h))) * (1 + 1e-9)
    amelie, malenia = theory.amelie_seconds(*case), theory.malenia_seconds(*by_server)
    assert malenia / 2 <= amelie * (1 + 1e-9) and amelie <= malenia * (1 + 1e-9)


@few
@given(CASES, st.floats(0, 1000))
def test_the_best_pivot_is_the_one_that_methods_find(case, ratio):
    graph = graph_of(case.n, case.edges)
    (cell,) = cells("fragile", {"stepsize": 0.1, "batch": 1}, case.seconds, graph=graph)
    machine = Machine(cell, 0, 8)
    _, _, pivot = theory.fragile_step_seconds(ratio, machine.known, machine.seconds_between)
    assert pivot == machine.network().pivot(ratio)


# Predictions beside simulated runs.


def graph_of(n, edges):
    return table(n, edges)


def cell_of(name, parameters, seconds, graph, updates=8, problem=None, **tables):
    """The cell of a toy on a graph, {(source, to): seconds of a vector} or a [graph]."""
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    graph = graph if "size" in graph or "name" in graph else graph_of(len(seconds), graph)
    parameters = {"stepsize": 0.5} | ({"batch": 5} if name in BATCHED else {}) | parameters
    (cell,) = cells(name, parameters, seconds, graph=graph, stop={"updates": updates}, targets=targets, **tables)
    return replace(cell, problem=problem or Toy())


def predicted(cell, seed=0):
    """Least, expected and most seconds per update."""
    found = prediction.predict(cell, seed)["update_seconds"]
    return [found[key] for key in ("least", "expected", "most")]


def steps(cell, seed=0):
    """Seconds of every step of a simulated run."""
    return [after - before for before, after in pairwise([0.0, *simulate(cell, seed).updates["time"].tolist()])]


BYTES = {"size": 3, "edges": [{"source": i, "to": j, "bandwidth_bytes_per_second": 2.0} for i, j in RING]}


def test_every_method_on_trees_has_its_form():
    assert set(METHODS) <= FORMS.keys()


@pytest.mark.parametrize(
    ("name", "parameters", "seconds", "graph", "expected"),
    [
        # x^0 is at ranks 0, 1, 2 at 0, 1, 2 s; gradients are at the pivot at 4, 8; 5, 8; 6, 8 if they never wait, and
        # at 4, 8; 7, 10; 10, 12 if every link makes them wait
        ("fragile", {"batch": 1, "pivot": 0}, [4, 3, 2], LINE, [4, 4, 4]),
        ("fragile", {"batch": 2, "pivot": 0}, [4, 3, 2], LINE, [5, None, 7]),
        ("fragile", {"batch": 3, "pivot": 0}, [4, 3, 2], LINE, [6, None, 8]),
        ("fragile_accelerated", {"batch": 4, "pivot": 0}, [4, 3, 2], LINE, [8, None, 10]),
        # both trees have the edge 1 -> 2 of 4 s. x^0 is at rank 1 at 4 and 8, and at rank 2 at 8 and 8 + 12; the first
        # gradients of a second are at the pivot at 4 + 1 + 8 and 8 + 1 + 4, or 8 + 1 + 16 + 8 and 20 + 1 + 8
        ("fragile", {"batch": 1, "pivot": 0}, [100, 1, 1], RING, [13, None, 29]),
        ("tree_minibatch", {"pivot": 0}, [1, 4, 1], LINE, [6, 6, 6]),
        ("tree_minibatch", {"pivot": 0}, [1, 2, 1], LINE, [5, 5, 5]),
        ("tree_minibatch_eager", {"pivot": 0}, [1, 3.5, 1], LINE, [5.5, None, 7.5]),
        # the sum of rank 1 leaves behind the point, at 8, and is at rank 2 at 12
        ("tree_minibatch", {"pivot": 0}, [1, 1, 1], RING, [16, 16, 16]),
        ("tree_minibatch_eager", {"pivot": 0}, [1, 1, 1], RING, [16, None, 24]),
        ("amelie", {"batch": 3, "pivot": 1}, [1, 2, 4], LINE, [6, 6, 6]),  # at 5: 1/4 + 1/2 + 1 <= 9/3
        ("amelie", {"batch": 6, "pivot": 1}, [1, 2, 4], LINE, [8, 8, 8]),
        ("amelie", {"batch": 3, "pivot": 0}, [1, 2, 1], LINE, [5, 5, 5]),
        # rank 1's counter of 5 leaves behind the point, at 8; rank 2's is there at 9, and the sums 8 later
        ("amelie", {"batch": 1, "pivot": 0}, [1, 1, 1], RING, [17, 17, 17]),
        # A point and a counter are 16 bytes, FREEZE 8, a sum 24, at 2 bytes a second. x^0 is at rank 1 at 8, and its
        # counter behind it: 16 + 16; FREEZE is at rank 1 at 36 and the sum 24 later. With 40 bytes more in front of
        # each message these are 28, 28 + 28 + 56 and 112 + 24 + 64
        ("amelie", {"batch": 1, "pivot": 0}, [1, 1, 1], BYTES, [60, None, 200]),
    ],
)
def test_seconds_per_update_by_hand(name, parameters, seconds, graph, expected):
    assert predicted(cell_of(name, parameters, seconds, graph)) == expected


@st.composite
def linked(draw):
    """(case, [graph]): links by their vector's seconds, with and without a latency, or by their bandwidth; a vector of
    the toy is one number, so that numbers take as long as it does then."""
    case = draw(CASES)
    kind = draw(st.sampled_from(["vector", "latency", "bandwidth"]))
    edges = []
    for (i, j), s in case.edges.items():
        link = {"bandwidth_bytes_per_second": 8 / s} if kind == "bandwidth" else {"vector_seconds": s}
        if kind == "latency" or (kind == "bandwidth" and draw(st.booleans())):
            link["latency_seconds"] = draw(EIGHTHS)
        edges.append({"source": i, "to": j} | link)
    return case, {"size": case.n, "edges": edges}, kind


@pytest.mark.parametrize("name", METHODS)
@settings(few, max_examples=60)
@given(linked(), st.integers(1, 40))
def test_every_step_takes_between_least_and_most(name, network, batch):
    case, graph, kind = network
    parameters = {"pivot": case.pivot} | ({"batch": batch} if name in BATCHED else {})
    cell = cell_of(name, parameters, case.seconds, graph)
    least, expected, most = predicted(cell)
    ns = 1e-9 * 6 * case.n  # times are whole nanoseconds on every edge
    for seconds in steps(cell):
        assert least - ns <= seconds <= most + ns
        assert expected is None or seconds == pytest.approx(expected, abs=ns)
    exact = name == "tree_minibatch" or (name == "amelie" and kind != "bandwidth")
    assert (expected is not None) == (exact or least == most)


@settings(few)
@given(CASES, st.integers(1, 40))
def test_a_step_of_fragile_takes_a_constant_times_the_equilibrium(case, batch):
    cell = cell_of("fragile", {"pivot": case.pivot, "batch": batch}, case.seconds, case.edges)
    least, _, most = predicted(cell)
    machine = Machine(cell, 0, 8)
    ways = machine.seconds_between
    time, useful = equilibrium_seconds(batch, case.seconds, ways[case.pivot] + ways[:, case.pivot])
    constant = 6 if machine.shared_edges else 4
    assert time <= least * (1 + 1e-9) and most <= constant * time * (1 + 1e-9) and 1 <= useful <= case.n


@pytest.mark.parametrize("name", ["fragile", "amelie", "tree_minibatch", "tree_minibatch_eager"])
def test_ten_networks_with_ten_speed_vectors(name):
    rng = numpy.random.default_rng(5)
    for number in range(10):
        seconds = rng.integers(1, 5, 9).tolist() if number % 2 else numpy.round(rng.uniform(0.2, 4, 9), 9).tolist()
        graph = {"name": "mesh", "rows": 3, "columns": 3, "vector_seconds": [0.0, 0.3, 2.0, 20.0][number % 4]}
        cell = cell_of(name, {"batch": 20} if name in BATCHED else {}, seconds, graph, updates=20)
        least, expected, most = predicted(cell)
        mean = numpy.mean(steps(cell))
        assert least * (1 - 1e-6) <= mean <= most * (1 + 1e-6)
        if number % 4 == 0:  # links take no time: nothing waits
            assert mean == pytest.approx(expected, rel=1e-6)


RANDOM = {
    "afresh": {"profile": "exponential", "unit_seconds": 2.0},
    "kept": {"profile": "lognormal", "sigma": 0.7, "persistent": True},
    "changing": {"profile": "sqrt", "speed": {"form": "sinusoidal", "amplitude": 0.8, "period_seconds": 30.0}},
}


@pytest.mark.parametrize("profile", RANDOM)
@pytest.mark.parametrize("graph", ["line", "directed_ring"])
def test_tree_minibatch_is_counted_with_the_times_of_the_seed(profile, graph):
    heterogeneity = {"compute": RANDOM[profile], "links": {"vector_seconds": 1.5}}
    settings = {"workers": 5, "heterogeneity": heterogeneity, "graph": {"name": graph}}
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    for name in ("tree_minibatch", "fragile"):
        parameters = {"stepsize": 0.5} | ({"batch": 5} if name in BATCHED else {})
        (cell,) = cells(name, parameters, stop={"updates": 60}, targets=targets, **settings)
        cell = replace(cell, problem=Toy())
        least, expected, most = predicted(cell, seed=3)
        assert (least is not None) == (most is not None) == (profile == "kept")  # times that stay as they are
        if name == "fragile":
            assert expected is None or profile == "kept"
            continue
        form, machine = prediction.form_of(cell, 3)
        counted = []

        def first(workers, form=form, counted=counted):
            counted.extend(itertools.islice(form.instants(workers), 60))
            return counted

        assert machine.count(replace(form, instants=first)) == pytest.approx(expected, rel=0.2)
        assert counted == [round(t * 1e9) for t in simulate(cell, 3).updates["time"].tolist()]


def test_e_fragile_takes_what_is_predicted_and_gains_where_links_are_slow():
    ratios = []
    for rho in (0.1, 1.0, 10.0):
        graph = {"name": "mesh", "rows": 10, "columns": 10, "vector_seconds": rho}
        cell = cell_of("fragile", {"batch": 120}, [1.0] * 100, graph, updates=3)
        least, _, most = predicted(cell)
        seconds = steps(cell)
        assert least <= min(seconds) and max(seconds) <= most <= 2 * least
        other = cell_of("tree_minibatch", {}, [1.0] * 100, graph, updates=2)
        (_, expected, _) = predicted(other)
        assert steps(other) == pytest.approx([expected] * 2) == [1 + 20 * rho] * 2  # 10 edges there and back
        ratios.append(numpy.mean(seconds) / expected)
    assert 1 > ratios[0] > 1.5 * ratios[1] > 3 * ratios[2]


# Predictions on paper: targets, parameters and warnings.

JOB = """
schema = 1
[experiment]
name = "mesh"
workers = 100
seeds = [0]
stop = { updates = 4 }
snapshot = { updates = 4 }
targets = { metric = "gap", values = [0.05], headline = 0.05 }
[problem]
name = "quadratic"
dimension = 20
noise = 0.5
[heterogeneity]
compute = { profile = "equal" }
links = { vector_seconds = 10.0 }
"""
MESH = """
[graph]
name = "mesh"
rows = 10
columns = 10
"""
FRAGILE, IDEAL, EAGER, AMELIE, RENNALA = (
    f'[[algorithm]]\nname = "{name}"\nstepsize = 0.1\n' + (f"batch = {batch}\n" if batch else "")
    for name, batch in [("fragile", 40), ("tree_minibatch", 0), ("tree_minibatch_eager", 0), ("amelie", 200),
                        ("rennala", 40)]
)  # fmt: skip


@pytest.fixture
def viewed(tmp_path):
    """A function that gives the Outlook of these methods on the mesh, with settings of --set."""

    def of(*methods, graph=MESH, **overrides):
        (tmp_path / "job.toml").write_text(JOB + graph + "".join(methods))
        given = [f"{key.replace('__', '.')}={value}" for key, value in overrides.items()]
        return outlook.outlook(load(tmp_path / "job.toml", given))

    return of


SLOW, FAST, CALM = {}, {"heterogeneity__links__vector_seconds": 0.01}, {"problem__noise": 0.02}


def test_theory_takes_its_own_pivot_and_batch(viewed):
    # σ²/ε = 20 * 0.25 / (2 * 0.98883 * 0.05) = 50.56: 20 s for five ranks, 50.56/3 for three
    view = viewed(FRAGILE, IDEAL, AMELIE)
    assert view.own == {
        "fragile": {"batch": 51, "pivot": 0, "stepsize": pytest.approx(0.50565, rel=1e-4)},
        "tree_minibatch": {"stepsize": pytest.approx(0.50565, rel=1e-4)},  # 100 gradients are more than 51
        "amelie": {"batch": 100, "stepsize": pytest.approx(0.50565, rel=1e-4)},
    }
    # rank 0 has two neighbours: 20 s there and back, 50.56 / 3 until there are enough
    assert view.equilibrium == (20.0, 3, 0)
    shown = outlook.plain(view)["headline"]
    assert (shown["best_pivot"], shown["useful_ranks"], shown["equilibrium_seconds"]) == (0, 3, 20.0)
    assert shown["best_quorum"] is None and shown["useful_workers"] is None
    assert shown["noise_ratio"] == pytest.approx(50.56, rel=1e-3)
    lines = outlook.text_of(view).splitlines()
    assert lines[0] == "mesh: 100 workers, seed 0, 1 to 1 s a gradient, up to 180 s from rank to rank"
    assert lines[2].endswith("σ²/ε = 50.56; best pivot 0 with 3 useful ranks, t* = 20 s")


def test_a_server_beside_trees_has_its_own_numbers(viewed):
    # without a [graph] every rank has an edge to every other: 20 s there and back, until then the pivot is alone
    view = viewed(FRAGILE, RENNALA, graph="", experiment__workers=9)
    shown = outlook.plain(view)["headline"]
    assert (shown["best_pivot"], shown["useful_ranks"], shown["equilibrium_seconds"]) == (0, 3, 20.0)
    assert shown["useful_workers"] == shown["best_quorum"] == 9  # they are all 21 s away
    assert "best m of m-synchronous SGD 9, useful workers 9; best pivot 0 with 3 useful" in outlook.text_of(view)
    assert "21 to 21 s from gradient to gradient, up to 10 s from rank to rank" in outlook.text_of(view)
    alone = viewed(RENNALA, graph="")
    assert alone.on_trees is None and "pivot" not in outlook.text_of(alone)
    assert outlook.plain(alone)["headline"]["best_pivot"] is None


def test_targets_have_steps_and_exact_methods_have_seconds(viewed):
    view = viewed(FRAGILE, IDEAL, EAGER, AMELIE)
    by_label = {cell.label: found["targets"][0] for cell, found in zip(view.cells, view.predictions, strict=True)}
    L, D, s2, eps = *(view.constants[key] for key in ("smoothness", "gap", "variance")), view.eps
    assert by_label["fragile"]["updates"] == theory.updates(L, D, s2, eps, batch=40)
    assert by_label["fragile"]["seconds"] is None  # between bounds
    assert by_label["tree_minibatch"]["seconds"] == theory.updates(L, D, s2, eps, batch=100) * 201
    assert by_label["tree_minibatch_eager"]["updates"] == theory.updates(L, D, s2, eps, batch=100)
    assert by_label["amelie"]["updates"] == theory.updates(L, D, s2, eps, batch=200)
    accelerated = viewed(FRAGILE.replace("fragile", "fragile_accelerated"))
    assert accelerated.predictions[0]["targets"][0]["updates"] is None and accelerated.own == {}
    assert accelerated.predictions[0]["update_seconds"] == view.predictions[0]["update_seconds"]


def test_fast_links_separate_nothing(viewed):
    (text,) = outlook.warnings(viewed(FRAGILE, EAGER, IDEAL, **FAST))
    # max(0.18, 1) (1 + 50.56/100) against max(1, 50.56/100)
    assert text == (
        "fragile can leave tree_minibatch and tree_minibatch_eager behind only where links are slow, or ranks far "
        "apart in speed: with 51 of 100 ranks useful at σ²/ε = 50.6, the bounds differ by a factor 1.51."
    )
    assert outlook.warnings(viewed(FRAGILE, EAGER, IDEAL, **SLOW)) == []
    assert outlook.warnings(viewed(FRAGILE, **FAST)) == outlook.warnings(viewed(IDEAL, **FAST)) == []


def test_the_pivot_may_be_enough(viewed):
    # σ²/ε = 0.081
    (text,) = outlook.warnings(viewed(FRAGILE, IDEAL, **CALM))
    assert text.startswith("The pivot is enough at gap 0.05, where σ²/ε = 0.0809:")
    assert not any("pivot" in text for text in outlook.warnings(viewed(IDEAL, AMELIE, **CALM)))


def test_equal_ranks_differ_by_their_distance(viewed):
    none = {"heterogeneity__links__vector_seconds": 0.0}
    assert any("equally fast" in text for text in outlook.warnings(viewed(FRAGILE, AMELIE, **none)))
    assert not any("equally fast" in text for text in outlook.warnings(viewed(FRAGILE, AMELIE, **SLOW)))
