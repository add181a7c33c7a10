"""Shortest paths, spanning trees, centre and pivot: meshes by hand, networkx, and the paper's listing."""

import networkx
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpibench import graphs
from mpibench.errors import InvalidInput
from mpibench.network import Network, equilibrium_seconds
from mpibench.topology import Graph, Link, roots

MESH = graphs.mesh(9, 3, 3)


def network(graph, ns=1, seconds=1.0):
    """Every edge takes `ns`, or what a dict says of it; every rank `seconds`."""
    times = ns if isinstance(ns, dict) else dict.fromkeys(graph.edges, ns)
    return Network(graph, times, [seconds] * graph.size)


@pytest.mark.parametrize("ns", [1, 1_000_000_007])
def test_trees_of_a_mesh_by_hand(ns):
    made = network(MESH, ns)
    parents = {
        4: (1, 4, 1, 4, None, 4, 3, 4, 5),
        0: (None, 0, 1, 0, 1, 2, 3, 4, 5),
        8: (1, 2, 5, 4, 5, 8, 7, 8, None),
    }
    for root, each in parents.items():
        down, up = made.tree_from(root), made.tree_to(root)
        assert down.parents == up.parents == each
        assert down.root == up.root == root
        assert set(down.edges) == {(p, i) for i, p in enumerate(each) if p is not None}
        assert set(up.edges) == {(i, p) for i, p in enumerate(each) if p is not None}
    assert made.tree_from(4).depths == (2, 1, 2, 1, 0, 1, 2, 1, 2)
    assert made.tree_from(4).children(4) == (1, 3, 5, 7) and made.tree_to(4).children(1) == (0, 2)
    assert made.distance(0, 8) == 4 * ns and made.distance(4, 4) == 0


def test_trees_of_unequal_directions_differ():
    ns = {(0, 1): 1, (1, 0): 10, (0, 2): 10, (2, 0): 1, (1, 2): 1, (2, 1): 10}
    made = network(graphs.complete(3), ns)
    assert made.tree_from(0).parents == (None, 0, 1)  # 0 -> 1 -> 2
    assert made.tree_to(0).parents == (None, 2, 0)  # 1 -> 2 -> 0
    assert (made.distance(0, 2), made.distance(2, 0), made.distance(1, 0), made.distance(2, 1)) == (2, 1, 2, 2)
    assert made.round_trips.tolist() == [[0, 3, 3], [3, 0, 3], [3, 3, 0]]


def test_edges_without_time_are_ordered_by_the_numbers_of_ranks():
    # settled in the order 8, 5, 2, 1, 0, 3, 4, 6, 7: the lowest-numbered rank that can be reached comes next
    assert network(MESH, 0).tree_from(8).parents == (1, 2, 5, 0, 1, 8, 3, 4, None)
    assert network(graphs.complete(4), 0).tree_to(2).parents == (2, 0, None, 0)
    mixed = {(0, 1): 5, (0, 2): 5, (1, 3): 0, (2, 3): 0, (3, 1): 0, (2, 1): 0, (1, 2): 0}
    assert network(Graph(4, dict.fromkeys(mixed)), mixed).tree_from(0).parents == (None, 0, 0, 1)


def test_the_lowest_parent_is_one_of_shortest_paths_only():
    ns = {(0, 1): 3, (0, 2): 1, (2, 3): 1, (1, 3): 1, (0, 3): 3}
    assert network(Graph(4, dict.fromkeys(ns)), ns).tree_from(0).parents == (None, 0, 0, 2)


def test_trees_keep_the_times_of_their_edges():
    graph = Graph(3, {(0, 1): Link(latency_seconds=1), (1, 2): None, (2, 1): Link(latency_seconds=2), (1, 0): None})
    made = network(graph)
    assert dict(made.tree_from(0).edges) == {(0, 1): Link(latency_seconds=1), (1, 2): None}
    assert dict(made.tree_to(0).edges) == {(1, 0): None, (2, 1): Link(latency_seconds=2)}
    assert made.tree_from(0).hash != network(graphs.line(3)).tree_from(0).hash


@st.composite
def networks(draw, least):
    """Random digraphs of up to 9 ranks, all of which rank 0 reaches and is reached by; times of `least` ns or more."""
    n = draw(st.integers(2, 9))
    order = draw(st.permutations(range(1, n)))
    circle = [0, *order]
    edges = {(i, j) for i, j in zip(circle, [*order, 0], strict=True)}
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    edges |= draw(st.sets(pairs, max_size=4 * n))
    ns = {edge: draw(st.integers(least, 4)) for edge in sorted(edges)}
    seconds = draw(st.lists(st.floats(0.1, 10), min_size=n, max_size=n))
    return Network(Graph(n, dict.fromkeys(ns)), ns, seconds)


def weighted(made, back=False):
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(made.graph.size))
    graph.add_weighted_edges_from((i, j, ns) for (i, j), ns in made.edge_ns.items())
    return graph.reverse() if back else graph


@given(networks(least=0), st.data())
@settings(max_examples=150)
def test_trees_hold_shortest_paths(made, data):
    root = data.draw(st.integers(0, made.graph.size - 1))
    for tree, back in ((made.tree_from(root), False), (made.tree_to(root), True)):
        shortest = networkx.single_source_dijkstra_path_length(weighted(made, back), root)
        assert set(tree.edges) <= set(made.graph.edges) and len(tree.edges) == tree.size - 1
        for rank in range(tree.size):
            way, ns = rank, 0
            while tree.parent(way) is not None:
                edge = (way, tree.parent(way)) if back else (tree.parent(way), way)
                ns, way = ns + made.edge_ns[edge], tree.parent(way)
            assert way == root and ns == shortest[rank]
            assert ns == (made.distance(rank, root) if back else made.distance(root, rank))
            assert made.distances[(rank, root) if back else (root, rank)] == ns
        assert roots(tree if not back else tree.reversed()) == (root,)


@given(networks(least=1), st.data())
@settings(max_examples=100)
def test_the_parent_is_the_lowest_numbered_on_any_shortest_path(made, data):
    root = data.draw(st.integers(0, made.graph.size - 1))
    shortest = networkx.single_source_dijkstra_path_length(weighted(made), root)
    for rank in set(range(made.graph.size)) - {root}:
        before = [i for (i, j), ns in made.edge_ns.items() if j == rank and shortest[i] + ns == shortest[rank]]
        assert made.tree_from(root).parent(rank) == min(before)


def test_distances_are_exact_however_long():
    year = 3 * 10**16  # ns; four of them are beyond the whole numbers of float64 in nanoseconds
    made = network(MESH, year + 1)
    assert made.distance(0, 8) == 4 * (year + 1)
    assert made.round_trips[0, 8] == float(8 * (year + 1))
    assert (made.distances == network(MESH, 1).distances * (year + 1)).all()


@pytest.mark.parametrize("ns", [0, 7])
@pytest.mark.parametrize(
    ("graph", "centre"),
    [
        (graphs.mesh(100, 10, 10), 44),
        (MESH, 4),
        (graphs.line(5), 2),
        (graphs.line(6), 2),
        (graphs.star(6, centre=3), 3),
        (graphs.ring(6), 0),
        (graphs.directed_ring(6), 0),
        (graphs.caterpillar(10), 2),
        (Graph(1, {}), 0),
    ],
)
def test_centres(graph, centre, ns):
    assert network(graph, ns).centre() == centre


def test_the_centre_counts_time_and_not_edges():
    path = graphs.line(5)
    slow = dict.fromkeys(path.edges, 1) | {(3, 4): 100}  # one way
    assert network(path, slow).centre() == 3  # the longest round trips: 107, 105, 103, 101, 107
    slow = dict.fromkeys(path.edges, 1) | {(1, 0): 3, (3, 4): 3}
    assert network(path, slow).centre() == 2  # 12, 8, 6, 8, 12


def test_closed_forms_of_diameters():
    for n in (4, 7, 8):
        assert network(graphs.ring(n)).distances.max() == n // 2
        assert network(graphs.directed_ring(n)).distances.max() == network(graphs.line(n)).distances.max() == n - 1
        assert network(graphs.star(n)).distances.max() == 2
        assert network(graphs.complete(n)).distances.max() == 1
        assert network(graphs.caterpillar(2 * n)).distances.max() == n + 1
        assert network(graphs.torus(n * n, n, n)).distances.max() == 2 * (n // 2)
        assert network(graphs.mesh(n * n, n, n)).distances.max() == 2 * (n - 1)
    for k in (2, 3, 4):
        assert network(graphs.hypercube(2**k)).distances.max() == k
        assert network(graphs.exponential(2**k)).distances.max() == k
        assert network(graphs.binary_tree(2**k - 1)).distances.max() == 2 * (k - 1)


def t_star(s, h, tb):
    """The paper's formula, worker by worker."""
    workers = sorted(range(len(h)), key=lambda i: max(h[i], tb[i]))
    times = []
    for k in range(1, len(h) + 1):
        rate = sum(1 / h[i] for i in workers[:k])
        times.append(max(h[workers[k - 1]], tb[workers[k - 1]], s / rate))
    return min(times), times.index(min(times)) + 1


def test_the_equilibrium_time_of_the_specification():
    assert equilibrium_seconds(120, [1] * 5, [0, 20, 20, 20, 20]) == (24.0, 5)
    assert equilibrium_seconds(0, [3, 2], [0, 0]) == (2.0, 1)  # one gradient of the fastest
    assert equilibrium_seconds(10, [1, 1], [0, 50]) == (10.0, 1)  # too far to be useful
    times, useful = equilibrium_seconds(10, [1, 1], [[0, 50], [50, 0], [0, 6]])
    assert times.tolist() == [10, 10, 6] and useful.tolist() == [1, 1, 2]


@given(networks(least=0), st.floats(0, 1e3))
@settings(max_examples=100)
def test_the_pivot_is_where_the_equilibrium_time_is_least(made, noise_ratio):
    n = made.graph.size
    ways = [[(made.distance(i, j) + made.distance(j, i)) / 1e9 for i in range(n)] for j in range(n)]
    expected = [t_star(noise_ratio, made.seconds.tolist(), tb) for tb in ways]
    times, useful = made.equilibria(noise_ratio)
    assert times == pytest.approx([t for t, _ in expected], rel=1e-12)
    assert useful.tolist() == [k for _, k in expected]
    best = min(times)
    assert made.pivot(noise_ratio) == next(j for j in range(n) if times[j] <= best * (1 + 1e-12))


def test_pivots_by_hand():
    second = 10**9
    path = graphs.line(3)
    made = network(path, 5 * second)  # round trips of 10 s and 20 s, a gradient a second
    assert made.pivot(0) == 0  # whoever is alone needs 1 s
    assert made.equilibria(33)[0].tolist() == [16.5, 11, 16.5] and made.pivot(33) == 1
    assert made.pivot(90) == 0  # 30 s: all are useful wherever they are
    fast = Network(path, dict.fromkeys(path.edges, 5 * second), [1.0, 1.0, 0.01])
    assert fast.pivot(33) == 2
    assert network(graphs.mesh(100, 10, 10), second).pivot(1000) == 44


def test_ranks_that_cannot_be_reached_are_refused_in_one_sentence():
    made = network(graphs.line(4, direction="down"))
    assert made.tree_from(0).depth == 3
    for ask, said in [
        (lambda: made.tree_to(0), "no path leads from rank 1 to rank 0, so no tree to rank 0 spans all"),
        (lambda: made.tree_from(2), "no path leads from rank 2 to rank 0, so no tree from rank 2 spans all"),
        (lambda: made.distance(3, 1), "no path leads from rank 3 to rank 1"),
        (made.centre, "no path leads from rank 1 to rank 0, so no rank can lead all others"),
        (lambda: made.pivot(1.0), "no path leads from rank 1 to rank 0, so no rank can lead all others"),
        (lambda: made.tree_from(4), "rank 4 is outside the graph, whose ranks are 0 to 3"),
        (lambda: made.tree_to(-1), "rank -1 is outside the graph, whose ranks are 0 to 3"),
        (lambda: made.distance(0, 9), "rank 9 is outside the graph, whose ranks are 0 to 3"),
    ]:
        with pytest.raises(InvalidInput) as error:
            ask()
        assert str(error.value) == said
    assert numpy.isinf(made.distances[1, 0]) and made.distances[0, 3] == 3


@pytest.mark.parametrize(
    ("ns", "seconds", "said"),
    [
        ({(0, 1): 1}, [1.0, 1.0], "edge 1 -> 0 has a time or an edge, but not both"),
        ({(0, 1): 1, (1, 0): 1.5}, [1.0, 1.0], "edge 1 -> 0 takes 1.5 ns; a whole number >= 0"),
        ({(0, 1): -1, (1, 0): 1}, [1.0, 1.0], "edge 0 -> 1 takes -1 ns; a whole number >= 0"),
        ({(0, 1): 1, (1, 0): 1}, [1.0], "the 2 ranks of a network need as many seconds per gradient, each > 0"),
        ({(0, 1): 1, (1, 0): 1}, [1.0, 0.0], "the 2 ranks of a network need as many seconds per gradient, each > 0"),
    ],
)
def test_a_network_takes_one_time_for_each_edge_and_rank(ns, seconds, said):
    with pytest.raises(InvalidInput) as error:
        Network(graphs.line(2), ns, seconds)
    assert said in str(error.value)


@pytest.mark.parametrize("noise_ratio", [-1.0, float("nan"), float("inf")])
def test_a_noise_ratio_is_a_finite_number(noise_ratio):
    with pytest.raises(InvalidInput, match="noise ratio .* must be a finite number >= 0"):
        network(MESH).pivot(noise_ratio)
