"""What `describe` says of a topology, and its picture."""

import subprocess
import sys

import numpy
import pytest
from matplotlib import image

from mpibench import catalogue, graphs, portrait, topology
from mpibench.topology import Graph, Link

PNG = b"\x89PNG\r\n\x1a\n"


def rows(graph):
    """The facts as {name: text}."""
    return {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in portrait.facts(graph).splitlines()}


def test_facts_of_a_mesh():
    assert rows(graphs.mesh(100, 10, 10)) == {
        "size": "100 nodes, 180 edges both ways",
        "degree": "2 to 4",
        "diameter": "18 edges",
        "spectral gap": "0.02053 with Metropolis weights",
        "centre": "rank 44",
        "roots": "every rank",
    }


def test_facts_of_directed_graphs():
    assert rows(graphs.exponential(6)) == {
        "size": "6 nodes, 18 directed edges",
        "degree": "3 out, 3 in",
        "diameter": "2 edges",
        "spectral gap": "0.5 with uniform weights, doubly stochastic",
        "centre": "rank 0",
        "roots": "every rank",
    }
    assert rows(graphs.star(5, direction="down")) == {
        "size": "5 nodes, 4 directed edges",
        "degree": "0 to 4 out, 0 to 1 in",
        "diameter": "none: not every rank can reach every other",
        "spectral gap": "0.5 with uniform weights, stochastic by rows only",
        "roots": "rank 0",
    }
    assert rows(Graph(3, {(0, 2): None, (1, 2): None}))["roots"] == "none: no rank can reach all others"


def test_facts_of_times():
    told = rows(topology.build(topology.read(catalogue.path("topology", "two-clusters-16")), 16))
    assert (told["latency_seconds"], told["bandwidth_bytes_per_second"]) == ("0.0001 to 0.001", "1e+08 to 1e+09")
    graph = Graph(3, {(0, 1): Link(vector_seconds=2), (1, 2): None, (2, 0): Link(latency_seconds=0)})
    told = rows(graph)
    assert told["vector_seconds"] == "2 on 1 of 3 directed edges" and told["latency_seconds"].startswith("0 on 1")


def test_facts_of_a_large_graph_leave_out_what_takes_all_pairs():
    told = rows(graphs.ring(5000))
    assert told["diameter"] == "not computed, nor the spectral gap: more than 2000 nodes"
    assert told["roots"] == "every rank" and "spectral gap" not in told


@pytest.mark.parametrize("name", sorted(graphs.GENERATORS))
def test_every_rank_has_a_place_of_its_own(name):
    table = {"name": name} | {"mesh": {"rows": 4, "columns": 8}, "torus": {"rows": 4, "columns": 8}}.get(name, {})
    places = numpy.array(portrait.layout(topology.build(table, 32), table), float)
    assert places.shape == (32, 2)
    assert portrait.nearest_distance(places) > 0.02 * (places.max(axis=0) - places.min(axis=0)).max()


def test_places_look_like_the_graph():
    mesh = {"name": "mesh", "rows": 2, "columns": 3}
    places = portrait.layout(topology.build(mesh, 6), mesh)
    assert places == [(0, 0), (1, 0), (2, 0), (0, -1), (1, -1), (2, -1)]
    ring = numpy.array(portrait.layout(graphs.ring(4), {"name": "ring"}))
    assert ring == pytest.approx(numpy.array([(0, 1), (1, 0), (0, -1), (-1, 0)]), abs=1e-15)
    tree = numpy.array(portrait.layout(graphs.binary_tree(12), {"name": "binary_tree"}))
    for parent, child in graphs.heap(12):  # below, left and right
        assert tree[child, 1] < tree[parent, 1] and (tree[child, 0] > tree[parent, 0]) == (child % 2 == 0)
    assert tree[1, 0] == pytest.approx((tree[3, 0] + tree[4, 0]) / 2)
    star = portrait.layout(graphs.star(5, centre=2), {"name": "star", "centre": 2})
    assert star[2] == (0, 0) and all(numpy.hypot(*place) == pytest.approx(1) for i, place in enumerate(star) if i != 2)


@pytest.mark.parametrize(
    "name", ["ring-8", "mesh-3x3", "torus-4x4", "two-clusters-16", "exponential", "unequal-links-6"]
)
def test_pictures_are_png_with_lines_and_ranks(name, tmp_path):
    catalogue.describe(name, picture=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    colours = {tuple(c) for c in (image.imread(tmp_path / "a.png")[:, :, :3].reshape(-1, 3) * 255).round().astype(int)}

    def has(colour):
        return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5)) in colours

    assert has(portrait.INK) and has(portrait.LINES) and has(portrait.PARTICULAR) is (name == "two-clusters-16")


def test_the_command_describes_and_draws(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mpibench",
        "describe",
        "hypercube",
        "--size",
        "4",
        "--draw",
        tmp_path / "cube.png",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "4 nodes, 4 edges both ways" in done.stdout, done.stderr
    assert (tmp_path / "cube.png").read_bytes().startswith(PNG)
    done = subprocess.run([*command[:6], "6"], capture_output=True, text=True, timeout=60)
    assert (
        done.returncode == 2
        and done.stderr == "mpibench: hypercube: a hypercube has 1, 2, 4, 8, 16, ... nodes, not 6\n"
    )
