"""Generators of graphs: neighbours by hand, the graphs of networkx, and sizes that do not fit."""

import math

import networkx
import pytest

from mpibench import graphs, topology
from mpibench.errors import InvalidInput


def build(name, ranks, **parameters):
    return topology.build({"name": name, **parameters}, ranks)


def destinations(graph):
    return [graph.destinations(rank) for rank in range(graph.size)]


@pytest.mark.parametrize(
    ("name", "ranks", "parameters", "rank", "to"),
    [
        ("ring", 5, {}, 0, (1, 4)),
        ("ring", 2, {}, 0, (1,)),  # both ways round, one neighbour
        ("ring", 1, {}, 0, ()),
        ("directed_ring", 4, {}, 3, (0,)),
        ("line", 4, {}, 0, (1,)),
        ("line", 4, {}, 2, (1, 3)),
        ("line", 4, {"direction": "down"}, 2, (3,)),
        ("line", 4, {"direction": "up"}, 2, (1,)),
        ("mesh", 6, {"rows": 2, "columns": 3}, 4, (1, 3, 5)),  # rank = column + columns * row
        ("mesh", 6, {"rows": 2, "columns": 3}, 2, (1, 5)),  # no slots beyond the border
        ("torus", 12, {"rows": 3, "columns": 4}, 0, (1, 3, 4, 8)),
        ("torus", 8, {"rows": 2, "columns": 4}, 0, (1, 3, 4)),  # 4 is above and below, once
        ("torus", 4, {"rows": 2, "columns": 2}, 3, (1, 2)),
        ("torus", 4, {"rows": 1, "columns": 4}, 0, (1, 3)),
        ("hypercube", 8, {}, 5, (1, 4, 7)),
        ("hypercube", 1, {}, 0, ()),
        ("exponential", 6, {}, 3, (1, 4, 5)),
        ("exponential", 5, {}, 0, (1, 2, 4)),
        ("exponential", 9, {}, 0, (1, 2, 4, 8)),
        ("bipartite_exponential", 32, {}, 0, (1, 3, 5, 9, 15, 17, 23, 27, 29, 31)),
        ("bipartite_exponential", 6, {}, 1, (0, 2, 4)),
        ("bipartite_exponential", 2, {}, 1, (0,)),
        ("star", 4, {"centre": 2}, 2, (0, 1, 3)),
        ("star", 4, {"centre": 2}, 3, (2,)),
        ("star", 4, {"direction": "up"}, 0, ()),
        ("star", 4, {"direction": "down"}, 0, (1, 2, 3)),
        ("binary_tree", 7, {}, 1, (0, 3, 4)),
        ("binary_tree", 7, {"direction": "down"}, 1, (3, 4)),
        ("binary_tree", 7, {"direction": "up"}, 1, (0,)),
        ("double_binary_tree", 7, {}, 0, (1, 2, 4)),  # 0-1, 0-2, and 6-5, 6-4, 5-3, 5-2, 4-1, 4-0
        ("double_binary_tree", 7, {}, 3, (1, 5)),
        ("caterpillar", 6, {}, 1, (0, 2, 4)),
        ("caterpillar", 6, {}, 5, (2,)),
        ("caterpillar", 5, {}, 2, (1,)),  # of an odd number the last of the spine has no leg
        ("complete", 4, {}, 1, (0, 2, 3)),
        ("two_clusters", 5, {"bridges": 2}, 0, (1, 2, 3)),
        ("two_clusters", 5, {"bridges": 2}, 4, (1, 3)),
        ("two_clusters", 5, {}, 4, (3,)),
    ],
)
def test_neighbours_by_hand(name, ranks, parameters, rank, to):
    assert build(name, ranks, **parameters).destinations(rank) == to


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (build("mesh", 35, rows=5, columns=7), networkx.grid_2d_graph(5, 7)),
        (build("torus", 35, rows=5, columns=7), networkx.grid_2d_graph(5, 7, periodic=True)),
        (build("hypercube", 32), networkx.hypercube_graph(5)),
        (build("ring", 11), networkx.cycle_graph(11)),
        (build("line", 11), networkx.path_graph(11)),
        (build("complete", 6), networkx.complete_graph(6)),
        (build("star", 6), networkx.star_graph(5)),
        (build("binary_tree", 20), networkx.full_rary_tree(2, 20)),
        (build("two_clusters", 12), networkx.barbell_graph(6, 0)),
        (build("social", 32), networkx.davis_southern_women_graph()),
        (build("bipartite_exponential", 40), networkx.circulant_graph(40, [1, 3, 5, 9, 17, 33])),
    ],
    ids=str,
)
def test_the_graphs_of_networkx(ours, theirs):
    assert ours.undirected
    mine = networkx.Graph(list(ours.edges))
    assert len(mine.edges) == len(ours.edges) // 2 and networkx.is_isomorphic(mine, theirs)


@pytest.mark.parametrize("name", sorted(graphs.GENERATORS))
@pytest.mark.parametrize("ranks", [1, 2, 16, 32])
def test_every_generator_makes_a_connected_graph_of_the_size_asked_for(name, ranks):
    own = {"mesh": {"rows": ranks, "columns": 1}, "torus": {"rows": 1, "columns": ranks}}.get(name, {})
    if name == "random_regular":
        own = {"degree": min(3, ranks - 1)}
    if (name, ranks) in {("bipartite_exponential", 1), ("two_clusters", 1), ("random_regular", 1)}:
        ranks = 16
        own = {"degree": 3} if own else {}
    graph = build(name, 32 if name == "social" else ranks, **own)
    directed = name in {"directed_ring", "exponential", "one_peer_exponential"} and ranks > 2
    assert graph.undirected is not directed
    assert topology.roots(graph) == tuple(range(graph.size))  # also of a directed one, each reaches all


@pytest.mark.parametrize("ranks", [2, 3, 5, 6, 8, 9, 12, 17, 33])
def test_one_peer_hops_are_those_of_the_paper_in_turns_and_make_the_exponential_graph(ranks):
    period = math.floor(math.log2(ranks - 1)) + 1
    hops = [graphs.one_peer_hop(ranks, step) for step in range(2 * period)]
    assert hops == [2 ** (step % period) % ranks for step in range(2 * period)]
    union = {(i, (i + hop) % ranks) for i in range(ranks) for hop in hops}
    assert union == set(build("one_peer_exponential", ranks).edges) == set(build("exponential", ranks).edges)


@pytest.mark.parametrize("ranks", [2, 4, 10, 16, 34])
def test_the_bipartite_graph_joins_even_ranks_to_odd_ones_only(ranks):
    assert all((i + j) % 2 for i, j in build("bipartite_exponential", ranks).edges)


def test_directed_trees_are_each_other_turned_round():
    for name in ("line", "star", "binary_tree"):
        down, up = (build(name, 9, direction=way) for way in ("down", "up"))
        assert down.reversed() == up and topology.roots(down) == (0,)
        assert {**down.edges, **up.edges} == dict(build(name, 9).edges)


def test_random_graphs_depend_on_their_seed_alone():
    for name, ranks in (("random_regular", 20), ("erdos_renyi", 20)):
        first, again, other = (build(name, ranks, seed=seed) for seed in (3, 3, 4))
        assert first.hash == again.hash != other.hash


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_a_random_regular_graph_is_regular_and_connected(degree):
    for seed in range(10):
        graph = build("random_regular", 12, degree=degree, seed=seed)  # of degree 2 most draws are disconnected
        assert {len(to) for to in destinations(graph)} == {degree}


def test_erdos_renyi_draws_until_it_is_connected_and_has_about_n_log_n_edges():
    counts = []
    for seed in range(30):
        graph = build("erdos_renyi", 30, seed=seed)
        assert networkx.is_connected(networkx.Graph(list(graph.edges)))
        counts.append(len(graph.edges) / 2)
    expected = 29 * math.log(30)  # n (n - 1) / 2 pairs, 2 ln n / n each
    assert abs(sum(counts) / 30 - expected) < 4 * math.sqrt(expected / 30)
    assert len(build("erdos_renyi", 12, probability=1).edges) == 12 * 11


@pytest.mark.parametrize(
    ("name", "ranks", "parameters", "said"),
    [
        ("hypercube", 6, {}, "a hypercube has 1, 2, 4, 8, 16, ... nodes, not 6"),
        ("mesh", 8, {"rows": 3, "columns": 3}, "a mesh of 3 rows and 3 columns has 9 nodes, not 8"),
        ("torus", 8, {"rows": 3, "columns": 3}, "a torus of 3 rows and 3 columns has 9 nodes, not 8"),
        ("bipartite_exponential", 7, {}, "an even number of nodes, not 7"),
        ("star", 4, {"centre": 4}, "centre = 4 is no rank of a star of 4, whose ranks are 0 to 3"),
        ("two_clusters", 5, {"bridges": 3}, "two clusters of 5 nodes have room for 2 bridges, not 3"),
        ("two_clusters", 1, {}, "room for 0 bridges, not 1"),
        (
            "random_regular",
            9,
            {"degree": 3},
            "the degree of a regular graph of 9 nodes is an even number below 9, not 3",
        ),
        ("random_regular", 4, {"degree": 4}, "the degree of a regular graph of 4 nodes is below 4, not 4"),
        ("random_regular", 8, {"degree": 1}, "none of 1000 random graphs of 8 nodes with degree = 1 is connected"),
        ("erdos_renyi", 40, {"probability": 0.001}, "with probability = 0.001 is connected"),
        ("complete", 10_000, {}, "a complete graph of 10000 nodes has too many edges"),
        ("social", 31, {}, "the social graph has 32 nodes, not 31"),
        ("mesh", 9, {"rows": 3}, "mesh lacks `columns`, a whole number >= 1"),
        ("mesh", 9, {"rows": 3.0, "columns": 3}, "rows = 3.0 must be a whole number >= 1"),
        ("mesh", 9, {"rows": -3, "columns": -3}, "rows = -3 must be a whole number >= 1"),
        ("line", 9, {"direction": "left"}, 'direction = "left" must be one of "both", "down", "up"'),
        ("erdos_renyi", 9, {"probability": 1.5}, "probability = 1.5 must be a number > 0 and <= 1"),
        ("erdos_renyi", 9, {"seed": -1}, "seed = -1 must be a whole number >= 0"),
        ("star", 9, {"center": 1}, "no key `center` here; did you mean `centre`?"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(name, ranks, parameters, said):
    with pytest.raises(InvalidInput) as error:
        build(name, ranks, **parameters)
    assert said in str(error.value) and "\n" not in str(error.value)
