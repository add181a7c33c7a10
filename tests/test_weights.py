"""Mixing weights: entries by hand, sums of rows and columns, closed forms of spectral gaps, Perron vectors."""

import math
from math import cos, pi

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpibench import graphs, weights
from mpibench.errors import InvalidInput
from mpibench.topology import Graph
from mpibench.weights import Weights

EVEN = [*range(2, 13, 2), 16, 22, 34]  # numbers of ranks


def metropolis_gap(graph):
    return weights.spectral_gap(weights.metropolis(graph))


@pytest.mark.parametrize("n", [4, 5, 8, 9, 16])
def test_gaps_of_rings_and_lines(n):
    assert metropolis_gap(graphs.ring(n)) == pytest.approx(2 / 3 * (1 - cos(2 * pi / n)), abs=1e-12)
    assert metropolis_gap(graphs.line(n)) == pytest.approx(2 / 3 * (1 - cos(pi / n)), abs=1e-12)
    directed = weights.uniform_row(graphs.directed_ring(n))
    assert weights.spectral_gap(directed) == pytest.approx(1 - cos(pi / n), abs=1e-12)


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_gaps_of_tori_and_meshes(k):
    assert metropolis_gap(graphs.torus(k * k, k, k)) == pytest.approx(2 / 5 * (1 - cos(2 * pi / k)), abs=1e-12)
    formula = 2 / 5 * (1 - cos(pi / k))
    assert formula < metropolis_gap(graphs.mesh(k * k, k, k)) < 1.2 * formula


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_gaps_of_hypercubes(n):
    assert metropolis_gap(graphs.hypercube(n)) == pytest.approx(2 / (1 + math.log2(n)), abs=1e-12)


@pytest.mark.parametrize("n", EVEN)
def test_gaps_of_exponential_graphs_of_even_size(n):
    gap = weights.spectral_gap(weights.uniform_row(graphs.exponential(n)))
    assert gap == pytest.approx(2 / (1 + math.ceil(math.log2(n))), abs=1e-12)


@pytest.mark.parametrize("n", [3, 7, 20])
def test_gaps_of_stars_and_complete_graphs(n):
    assert metropolis_gap(graphs.star(n)) == pytest.approx(1 / n, abs=1e-12)
    assert metropolis_gap(graphs.complete(n)) == pytest.approx(1, abs=1e-12)


def test_gaps_that_have_no_closed_form_are_of_the_order_of_the_table():
    for n in (15, 31, 63):
        assert 0.28 < n * metropolis_gap(graphs.binary_tree(n)) < 0.4
    assert (128**2) * metropolis_gap(graphs.caterpillar(128)) == pytest.approx(5, rel=0.1)
    limit = 1 - (1 + 2 * math.sqrt(3)) / 5
    assert metropolis_gap(graphs.random_regular(400, 4)) == pytest.approx(limit, rel=0.15)
    assert metropolis_gap(graphs.ring(1)) == 1


def test_the_gap_of_what_is_only_stochastic_by_rows_is_that_of_its_second_eigenvalue():
    path = weights.uniform_row(graphs.line(3))  # similar to a symmetric matrix: eigenvalues 1, 1/2, -1/6
    assert not path.doubly_stochastic
    assert weights.spectral_gap(path) == pytest.approx(1 / 2, abs=1e-12)
    # directed and doubly stochastic, not normal: the norm tells less than the eigenvalues promise
    matrix = numpy.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5]])
    norm = numpy.linalg.norm(matrix - 1 / 3, 2)
    assert norm > 0.3 and weights.spectral_gap(Weights.of(matrix)) == pytest.approx(1 - norm, abs=1e-12)


def test_weights_by_hand():
    path, half, third = graphs.line(3), 1 / 2, 1 / 3
    by_hand = [
        (weights.metropolis(path), [[2 / 3, third, 0], [third, third, third], [0, third, 2 / 3]]),
        (weights.uniform_row(path), [[half, half, 0], [third, third, third], [0, half, half]]),
        (weights.uniform_column(path), [[half, third, 0], [half, third, half], [0, third, half]]),
        (weights.max_degree(graphs.star(3)), [[third, third, third], [third, 2 / 3, 0], [third, 0, 2 / 3]]),
        (weights.pairwise(3, 2, 0), [[half, 0, half], [0, 1, 0], [half, 0, half]]),
        (weights.one_peer(3, 1), [[half, half, 0], [0, half, half], [half, 0, half]]),  # rank i to i + 2
    ]
    for made, matrix in by_hand:
        assert made.matrix == pytest.approx(numpy.array(matrix), abs=1e-15)


def test_the_weights_of_directed_trees_are_those_of_the_table():
    pull = weights.uniform_row(graphs.binary_tree(7, "down"))  # W[0,0] = 1, W[c,c] = W[c,p] = 1/2
    assert pull.into(0) == {0: 1.0} and pull.into(5) == {2: 0.5, 5: 0.5}
    push = weights.uniform_column(graphs.binary_tree(7, "up"))  # A[0,0] = 1, A[c,c] = A[p,c] = 1/2
    assert push.out_of(0) == {0: 1.0} and push.out_of(5) == {2: 0.5, 5: 0.5}
    assert push.into(2) == {2: 0.5, 5: 0.5, 6: 0.5}
    exponential = weights.uniform_row(graphs.exponential(6))
    assert exponential.into(0) == dict.fromkeys((0, 2, 4, 5), 1 / 4)  # and whom it receives from, not sends to
    assert list(exponential.into(0)) == [0, 2, 4, 5]


GRAPHS = st.one_of(
    st.integers(2, 12).map(graphs.ring),
    st.integers(2, 12).map(graphs.binary_tree),
    st.integers(2, 12).map(graphs.caterpillar),
    st.tuples(st.integers(5, 12), st.integers(0, 50)).map(lambda n_seed: graphs.erdos_renyi(n_seed[0], seed=n_seed[1])),
    st.integers(2, 12).map(graphs.exponential),
)


@given(GRAPHS)
@settings(max_examples=60)
def test_rows_and_columns_sum_to_one_and_follow_the_edges(graph):
    n = graph.size
    made = [weights.uniform_row(graph), weights.uniform_column(graph)]
    if graph.undirected:
        made += [weights.metropolis(graph), weights.max_degree(graph), weights.lazy(weights.metropolis(graph))]
        assert all(each.doubly_stochastic and (each.matrix == each.matrix.T).all() for each in made[2:])
        assert numpy.linalg.eigvalsh(made[4].matrix).min() > -1e-12
    assert made[0].matrix.sum(axis=1) == pytest.approx(numpy.ones(n)) and made[0].row_stochastic
    assert made[1].matrix.sum(axis=0) == pytest.approx(numpy.ones(n)) and made[1].column_stochastic
    for each in made:
        assert {(sender, receiver) for receiver, sender in each.entries if receiver != sender} == set(graph.edges)
        for rank in range(n):
            row, column = each.matrix[rank], each.matrix[:, rank]
            assert each.into(rank) == {int(j): row[j] for j in numpy.flatnonzero(row)}
            assert each.out_of(rank) == {int(j): column[j] for j in numpy.flatnonzero(column)}
            assert set(each.into(rank)) == {rank, *graph.sources(rank)}
        assert Weights.of(each.matrix) == each


def test_lazy_weights_halve_the_gap_that_the_second_largest_eigenvalue_decides():
    plain = weights.metropolis(graphs.ring(9))
    assert (weights.lazy(plain).matrix == (numpy.eye(9) + plain.matrix) / 2).all()
    assert weights.spectral_gap(weights.lazy(plain)) == pytest.approx(weights.spectral_gap(plain) / 2)
    swap = Weights(2, {(0, 1): 1.0, (1, 0): 1.0})  # nobody keeps anything, the eigenvalue -1 never mixes
    assert weights.spectral_gap(swap) == 0 and weights.spectral_gap(weights.lazy(swap)) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 8, 12, 16])
def test_one_round_of_one_peer_weights_averages_exactly_if_n_is_a_power_of_two(n):
    steps = [weights.one_peer(n, step) for step in range(10)]
    assert all(each.doubly_stochastic for each in steps)
    period = math.ceil(math.log2(n))
    product = numpy.eye(n)
    for each in steps[:period]:
        product = each.matrix @ product
    assert numpy.allclose(product, 1 / n, rtol=0, atol=1e-15) is (n & (n - 1) == 0)
    assert n == 1 or steps[period] == steps[0]


def test_pairwise_weights_keep_the_sum_and_agree():
    x = numpy.array([4.0, 0.0, 8.0])
    assert (weights.pairwise(3, 0, 2).matrix @ x == [6, 0, 6]).all()
    assert weights.pairwise(3, 0, 2) == weights.pairwise(3, 2, 0)


@pytest.mark.parametrize("n", [3, 7, 8])
def test_perron_vectors_and_the_factor_of_the_step(n):
    for name in ("line", "star", "binary_tree"):  # u and p both sit on the root
        pull = weights.uniform_row(getattr(graphs, name)(n, direction="down"))
        push = weights.uniform_column(getattr(graphs, name)(n, direction="up"))
        assert weights.left_perron(pull).tolist() == weights.right_perron(push).tolist() == [1.0] + [0.0] * (n - 1)
        assert weights.step_factor(pull, push) == pytest.approx(n)
    for graph in (graphs.directed_ring(n), graphs.exponential(n)):
        factor = weights.step_factor(weights.uniform_row(graph), weights.uniform_column(graph))
        assert factor == pytest.approx(1)
    path = graphs.line(n)  # reversible: u is proportional to 1 + degree, and so is p
    expected = numpy.array([2, *[3] * (n - 2), 2]) / (3 * n - 2)
    assert weights.left_perron(weights.uniform_row(path)) == pytest.approx(expected)
    assert weights.right_perron(weights.uniform_column(path)) == pytest.approx(expected)


def test_weights_of_a_graph_without_a_root_have_no_single_perron_vector():
    with pytest.raises(InvalidInput, match="several Perron vectors: their graph has no root"):
        weights.left_perron(weights.uniform_row(Graph(3, {(0, 2): None, (1, 2): None})))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Weights.of([[0.5, 0.4], [0.5, 0.5]]),
            "row 0 sums to 0.9 and column 1 to 0.9; all rows or all columns",
        ),
        (lambda: Weights.of([[1.5, -0.5], [0.0, 1.0]]), "the weight -0.5 of rank 0 for rank 1 must be a number > 0"),
        (lambda: Weights.of([[math.nan, 1.0], [0.0, 1.0]]), "the weight nan of rank 0 for rank 0"),
        (lambda: Weights.of([[1.0, 0.0]]), "weights have shape (1, 2); a square matrix"),
        (lambda: Weights(2, {(0, 0): 1.0}), "row 1 sums to 0 and column 1 to 0"),
        (lambda: Weights(2, {(0, 0): 1.0, (2, 1): 1.0}), "joins ranks 1 and 2, but there are ranks 0 to 1"),
        (lambda: weights.metropolis(graphs.directed_ring(3)), "Metropolis weights need edges both ways, but 0 -> 1"),
        (lambda: weights.max_degree(graphs.line(3, "up")), "max-degree weights need edges both ways, but 1 -> 0"),
        (lambda: weights.pairwise(3, 1, 1), "rank 1 cannot average with itself"),
        (lambda: weights.pairwise(3, 1, 3), "rank 3 cannot average: there are ranks 0 to 2"),
    ],
)
def test_what_is_no_weights_is_refused_in_one_sentence(make, said):
    with pytest.raises(InvalidInput) as error:
        make()
    assert said in str(error.value) and "\n" not in str(error.value)
