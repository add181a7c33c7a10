"""Graphs: neighbours, hashes, trees, roots, and what is read from a topology's table or refused in it."""

import subprocess
import sys
from pathlib import Path

import networkx
import pytest

from mpibench import experiment, topology
from mpibench.errors import InvalidInput
from mpibench.graphs import binary_tree, exponential, line, ring, star
from mpibench.heterogeneity import Links
from mpibench.topology import Graph, Link, Tree

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
    assert graph.hash != Graph(3, {(0, 1): None, (2, 1): slow}).hash
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


def test_a_topology_gives_times_to_edges_that_say_nothing():
    slow = {"source": 1, "to": 2, "latency_seconds": 9}
    table = {"name": "ring", "latency_seconds": 1, "vector_seconds": 3, "exceptions": [slow]}
    graph = topology.build(table, 4)
    assert graph.link(1, 2) == Link(latency_seconds=9, vector_seconds=3)
    assert {link for edge, link in graph.edges.items() if edge != (1, 2)} == {Link(1, None, 3)}
    edges = [{"source": 0, "to": 1, "bandwidth_bytes_per_second": 5}, {"source": 1, "to": 0}]
    graph = topology.build({"size": 2, "edges": edges, "latency_seconds": 1, "vector_seconds": 3}, 2)
    assert dict(graph.edges) == {(0, 1): Link(1, 5, None), (1, 0): Link(1, None, 3)}  # one of the two, never both


def test_what_a_topology_does_not_say_the_experiment_says():
    graph = topology.build({"name": "line", "exceptions": [{"source": 0, "to": 1, "latency_seconds": 2}]}, 3)
    links = Links(latency_seconds=1.0, vector_seconds=4.0)
    times = {edge: links.edge(*edge, None, 80, graph) for edge in graph.edges}
    assert {edge: (t.latency_ns, t.transmission(80, 0)) for edge, t in times.items()} == {
        **dict.fromkeys(graph.edges, (1_000_000_000, 4_000_000_000)),
        (0, 1): (2_000_000_000, 4_000_000_000),
    }


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.toml")), ids=lambda path: path.name)
def test_every_file_of_topologies_is_a_graph_of_its_size_or_of_any(path):
    table = topology.read(path)
    assert path.read_text().startswith("# ")
    own = topology.size_of(table)
    for size in [own] if own else [6, 16]:
        graph = topology.build(table, size, where=str(path))
        assert graph.size == size and topology.roots(graph) == tuple(range(size))


@pytest.mark.parametrize(
    ("table", "size"),
    [
        ({"name": "ring"}, None),
        ({"name": "ring", "size": 8}, 8),
        ({"name": "mesh", "rows": 3, "columns": 4}, 12),
        ({"name": "mesh", "rows": 3}, None),
        ({"name": "social"}, 32),
        ({"size": 3, "edges": []}, 3),
        ({"size": "3"}, None),
    ],
)
def test_the_size_that_a_table_is_for(table, size):
    assert topology.size_of(table) == size


JOB = """
schema = 1
[experiment]
name = "round-trip"
workers = 8
seeds = [0]
stop = { seconds = 1.0 }
snapshot = { seconds = 1.0 }
targets = { metric = "loss", values = [1.0], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 3
[heterogeneity]
compute = { profile = "sqrt" }
[[algorithm]]
name = "ringmaster"
stepsize = 0.3
threshold = 4
[graph]
"""
MESH = """
name = "mesh"
rows = 3
columns = 3
vector_seconds = 0.1
exceptions = [{ source = 0, to = 3, vector_seconds = 1.0 }]
"""


@pytest.mark.parametrize("apart", [False, True])
def test_an_experiment_makes_the_same_graph_on_every_rank(tmp_path, apart):
    (tmp_path / "mesh.toml").write_text(MESH)
    (tmp_path / "job.toml").write_text(JOB + ('file = "mesh.toml"' if apart else MESH))
    made = experiment.load(tmp_path / "job.toml")
    there = experiment.Experiment.from_resolved(made.resolved)
    graphs = [each.cells()[0].graph for each in (made, there)]
    assert graphs[0].hash == graphs[1].hash and graphs[0] == graphs[1]
    assert graphs[0].destinations(4) == (1, 3, 5, 7)
    assert (graphs[0].link(0, 3), graphs[0].link(3, 0)) == (Link(vector_seconds=1.0), Link(vector_seconds=0.1))


def test_an_experiment_refuses_a_graph_of_another_size_by_its_table(tmp_path):
    (tmp_path / "job.toml").write_text(JOB.replace("workers = 8", "workers = 7") + MESH)
    with pytest.raises(InvalidInput, match=r"job.toml: \[graph\]: a mesh of 3 rows .* has 9 nodes, not 8$"):
        experiment.load(tmp_path / "job.toml")


def test_a_tree_knows_parents_children_and_depths():
    slow = Link(latency_seconds=1)
    graph = Graph(5, {(2, 0): slow, (2, 4): None, (4, 1): None, (1, 3): None, (0, 3): None})
    down = Tree.of((2, 4, None, 1, 2), outward=True, graph=graph)
    assert down.root == 2 and dict(down.edges) == {(1, 3): None, (2, 0): slow, (2, 4): None, (4, 1): None}
    assert [down.parent(rank) for rank in range(5)] == [2, 4, None, 1, 2]
    assert [down.children(rank) for rank in range(5)] == [(), (3,), (0, 4), (), (1,)]
    assert down.depths == (1, 2, 0, 3, 1) and down.depth == 3
    up = Tree.of((2, 4, None, 1, 2), outward=False)
    assert list(up.edges) == [(0, 2), (1, 4), (3, 1), (4, 2)]
    assert all(
        up.children(rank) == up.sources(rank) and down.children(rank) == down.destinations(rank) for rank in range(5)
    )
    assert up.depths == down.depths and up.hash != down.hash
    assert Tree.of((None,), outward=True).depth == 0


def test_a_circle_of_parents_is_no_tree():
    with pytest.raises(InvalidInput, match="rank 1 does not hang on root 0, so this is no tree"):
        Tree.of((None, 2, 1), outward=True)


def test_a_graph_turned_round_and_whether_it_goes_both_ways():
    slow = Link(latency_seconds=1)
    graph = Graph(3, {(0, 1): slow, (1, 2): None})
    assert graph.reversed() == Graph(3, {(1, 0): slow, (2, 1): None})
    assert not graph.undirected and Graph(2, {(0, 1): slow, (1, 0): None}).undirected


@pytest.mark.parametrize(
    ("graph", "roots"),
    [
        (line(4, direction="down"), (0,)),
        (line(4, direction="up"), (3,)),
        (exponential(6), (0, 1, 2, 3, 4, 5)),
        (Graph(5, {(0, 1): None, (1, 2): None, (2, 0): None, (2, 3): None, (3, 4): None, (4, 3): None}), (0, 1, 2)),
        (Graph(3, {(0, 2): None, (1, 2): None}), ()),  # two sources
        (Graph(3, {(0, 1): None}), ()),
        (Graph(1, {}), (0,)),
    ],
)
def test_roots_are_the_ranks_from_which_all_can_be_reached(graph, roots):
    reached = networkx.DiGraph(list(graph.edges))
    reached.add_nodes_from(range(graph.size))
    assert topology.roots(graph) == roots
    assert roots == tuple(r for r in range(graph.size) if len(networkx.descendants(reached, r)) == graph.size - 1)


@pytest.mark.parametrize(
    ("pull", "push", "common"),
    [
        (binary_tree(7, direction="down"), binary_tree(7, direction="up"), (0,)),
        (line(5, direction="down"), line(5, direction="up"), (0,)),
        (star(5, direction="down"), star(5, direction="up"), (0,)),
        (ring(5), ring(5), (0, 1, 2, 3, 4)),
        (exponential(5), exponential(5), (0, 1, 2, 3, 4)),
        (binary_tree(7, direction="down"), ring(7), (0,)),
        (ring(7), star(7, centre=3, direction="up"), (3,)),
    ],
)
def test_common_roots_of_the_architectures(pull, push, common):
    assert topology.common_roots(pull, push) == common


@pytest.mark.parametrize(
    ("pull", "push", "said"),
    [
        (
            line(5, direction="down"),
            line(5, direction="down"),
            "models spread from rank 0 of the pull graph, but mass gathers at rank 4",
        ),
        (Graph(3, {(0, 2): None, (1, 2): None}), ring(3), "the pull graph has no root"),
        (ring(3), Graph(3, {(2, 0): None, (2, 1): None}), "the push graph has no root"),
    ],
)
def test_graphs_without_a_common_root_are_refused(pull, push, said):
    with pytest.raises(InvalidInput) as error:
        topology.common_roots(pull, push)
    assert said in str(error.value) and "\n" not in str(error.value)


EDGE = {"source": 0, "to": 1}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "stra"}, "no generator 'stra'; did you mean `star`?"),
        ({"name": ["star"]}, "no generator ['star']"),
        ({"name": "star", "rows": 2}, "there is no key `rows` here; known: `name`, `centre`"),
        ({"nme": "star"}, "there is no key `nme` here; did you mean `name`?"),
        ({"name": "ring", "size": 4}, "4 nodes for 3 ranks"),
        ({"name": "ring", "size": 0}, "size = 0 must be a whole number from 1"),
        ({"name": "ring", "size": 3.0}, "size = 3.0 must be a whole number"),
        ({"name": "ring", "edges": []}, "there is no key `edges` here"),
        ({"name": "ring", "latency_seconds": -1}, "latency_seconds = -1"),
        ({"name": "ring", "bandwidth_bytes_per_second": 0}, "bandwidth_bytes_per_second = 0"),
        ({"name": "ring", "bandwidth_bytes_per_second": 1, "vector_seconds": 1}, "not both"),
        ({"name": "ring", "exceptions": {"source": 0}}, "exceptions = {'source': 0} must be a list of tables"),
        ({"name": "ring", "exceptions": [{"source": 0, "to": 3}]}, "edge 0 -> 3, which this ring does not have"),
        ({"name": "directed_ring", "exceptions": [{"source": 1, "to": 0}]}, "edge 1 -> 0, which this directed_ring"),
        ({"name": "ring", "exceptions": [EDGE, EDGE]}, "edge 0 -> 1 is there twice"),
        ({"size": 3, "edges": [EDGE]}, "the graph is disconnected: no edges join rank 2 to rank 0"),
        ({"size": 10**12, "edges": []}, "a size from 1 to 1000001"),
        ({}, "name of a generator"),
        ({"size": True, "edges": []}, "a size from 1 to 1000001"),
        ({"size": 4, "edges": [EDGE]}, "4 nodes for 3 ranks"),
        ({"size": 3, "edges": [{"source": 0, "to": 3}]}, "edge 0 -> 3 leaves the graph, whose nodes are 0 to 2"),
        ({"size": 3, "edges": [{"source": -1, "to": 2}]}, "edge -1 -> 2 leaves the graph"),
        ({"size": 3, "edges": [{"source": 1, "to": 1}]}, "edge 1 -> 1 is a loop"),
        ({"size": 3, "edges": [EDGE, EDGE]}, "edge 0 -> 1 is there twice"),
        ({"size": 3, "edges": [{"source": 0}]}, "must be a table with the ranks source and to"),
        ({"size": 3, "edges": [{**EDGE, "latency": 1}]}, "did you mean `latency_seconds`?"),
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
