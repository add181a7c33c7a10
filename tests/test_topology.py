"""Graphs: neighbours, hashes, and what is refused in a topology's table."""

import subprocess
import sys
from pathlib import Path

import networkx
import pytest

from mpibench import topology
from mpibench.errors import InvalidInput
from mpibench.topology import Graph, Link

TOPOLOGIES = Path(__file__).parent.parent / "topologies"


def test_star_is_the_graph_of_networkx():
    graph = topology.build({"name": "star"}, 6)
    assert set(graph.edges) == set(networkx.star_graph(5).to_directed().edges)
    assert graph.sources(0) == graph.destinations(0) == (1, 2, 3, 4, 5)
    assert graph.sources(4) == graph.destinations(4) == (0,)


def test_neighbours_of_directed_edges_are_sorted():
    graph = Graph(4, {(3, 0): None, (1, 0): None, (0, 2): None})
    assert [graph.sources(r) for r in range(4)] == [(1, 3), (), (0,), ()]
    assert [graph.destinations(r) for r in range(4)] == [(2,), (0,), (), (0,)]


def test_hash_depends_on_the_graph_and_not_on_the_order_or_process():
    slow = Link(latency_seconds=1)
    graph = Graph(3, {(0, 1): slow, (2, 1): None})
    assert graph.hash == Graph(3, {(2, 1): None, (0, 1): Link(latency_seconds=1.0)}).hash
    assert graph.hash != Graph(4, {(0, 1): slow, (2, 1): None}).hash
    assert graph.hash != Graph(3, {(0, 1): Link(vector_seconds=1.0), (2, 1): None}).hash
    assert graph.hash != Graph(3, {(1, 0): slow, (2, 1): None}).hash
    program = "from mpibench.topology import *; print(Graph(3, {(0, 1): Link(latency_seconds=1), (2, 1): None}).hash)"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == graph.hash


def test_a_graph_cannot_be_changed():
    edges = {(0, 1): None}
    graph = Graph(2, edges)
    edges[1, 0] = None
    assert list(graph.edges) == [(0, 1)]
    with pytest.raises(TypeError):
        graph.edges[1, 0] = None


def test_listed_edges_carry_their_times():
    edges = [{"source": 1, "to": 0, "latency_seconds": 2}, {"source": 0, "to": 1}]
    graph = topology.build({"size": 2, "edges": edges}, 2)
    assert graph.link(1, 0) == Link(latency_seconds=2.0)
    assert graph.link(0, 1) is None


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.name)
def test_every_file_of_topologies_is_a_graph(path):
    graph = topology.build(topology.read(path), 9, where=str(path))
    assert graph.size == 9 and graph.edges


EDGE = {"source": 0, "to": 1}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "stra"}, "did you mean 'star'?"),
        ({"name": ["star"]}, "no generator ['star']"),
        ({"name": "star", "rows": 2}, "unknown key 'rows'; known: name"),
        ({"nme": "star"}, "unknown key 'nme', did you mean 'name'?"),
        ({}, "name of a generator"),
        ({"size": True, "edges": []}, "a size of 1 or more"),
        ({"size": 4, "edges": [EDGE]}, "4 nodes for 3 ranks"),
        ({"size": 3, "edges": [{"source": 0, "to": 3}]}, "edge 0 -> 3 leaves the graph, whose nodes are 0 to 2"),
        ({"size": 3, "edges": [{"source": -1, "to": 2}]}, "edge -1 -> 2 leaves the graph"),
        ({"size": 3, "edges": [{"source": 1, "to": 1}]}, "edge 1 -> 1 is a loop"),
        ({"size": 3, "edges": [EDGE, EDGE]}, "edge 0 -> 1 is there twice"),
        ({"size": 3, "edges": [{"source": 0}]}, "must be a table with the ranks source and to"),
        ({"size": 3, "edges": [{**EDGE, "latency": 1}]}, "did you mean 'latency_seconds'?"),
        ({"size": 3, "edges": [{**EDGE, "latency_seconds": -1.0}]}, "latency_seconds = -1.0"),
        ({"size": 3, "edges": [{**EDGE, "latency_seconds": float("nan")}]}, "latency_seconds = nan"),
        ({"size": 3, "edges": [{**EDGE, "vector_seconds": float("inf")}]}, "vector_seconds = inf"),
        ({"size": 3, "edges": [{**EDGE, "vector_seconds": True}]}, "vector_seconds = True"),
        ({"size": 3, "edges": [{**EDGE, "bandwidth_bytes_per_second": 0}]}, "bandwidth_bytes_per_second = 0"),
        ({"size": 3, "edges": [{**EDGE, "bandwidth_bytes_per_second": 9, "vector_seconds": 1}]}, "not both"),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(table, said):
    with pytest.raises(InvalidInput) as error:
        topology.build(table, 3, where="mesh.toml")
    assert str(error.value).startswith("mesh.toml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", None])
def test_unreadable_files_are_refused(tmp_path, content):
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match="broken.toml"):
        topology.read(path)
