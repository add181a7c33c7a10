"""Mixing weights on graphs, and what says how fast they mix.

In the matrix of all weights the row is the rank that receives and the column the rank that sends: W[i, j] is the weight
that rank i gives to what it has from rank j, or the share of rank j's mass that goes to rank i. Rows that sum to 1
(`row_stochastic`) average models; columns that sum to 1 (`column_stochastic`) keep the sum of mass.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from types import MappingProxyType

import numpy

from mpibench.errors import InvalidInput
from mpibench.graphs import one_peer_hop

ROUNDING = 1e-9  # that a sum of weights may differ from 1, and the largest eigenvalue too


@dataclass(frozen=True)
class Weights:
    """(receiver, sender) -> weight > 0, also of a rank with itself; what is not named is 0.

    All rows or all columns sum to 1; InvalidInput, one sentence, if they do not.
    """

    size: int
    entries: Mapping[tuple[int, int], float]

    def __post_init__(self):
        for (receiver, sender), weight in self.entries.items():
            if not (0 <= receiver < self.size and 0 <= sender < self.size):
                text = f"a weight joins ranks {sender} and {receiver}, but there are ranks 0 to {self.size - 1}"
                raise InvalidInput(text)
            if not 0 < weight < math.inf:
                raise InvalidInput(f"the weight {weight!r} of rank {receiver} for rank {sender} must be a number > 0")
        ordered = {edge: float(weight) for edge, weight in sorted(self.entries.items())}
        object.__setattr__(self, "entries", MappingProxyType(ordered))
        if not (self.row_stochastic or self.column_stochastic):
            (row, rows), (column, columns) = (
                max(enumerate(sums), key=lambda item: abs(item[1] - 1)) for sums in self._sums
            )
            raise InvalidInput(
                f"the weights are not stochastic: row {row} sums to {rows:.9g} and column {column} to {columns:.9g}; "
                "all rows or all columns must sum to 1"
            )

    @classmethod
    def of(cls, matrix):
        """The Weights in a square matrix, row i of receiver i."""
        matrix = numpy.asarray(matrix, float)
        if matrix.ndim != 2 or len(matrix) != len(matrix.T):
            raise InvalidInput(f"weights have shape {matrix.shape}; a square matrix would be right")
        return cls(len(matrix), {(int(i), int(j)): float(matrix[i, j]) for i, j in numpy.argwhere(matrix)})

    def into(self, rank):
        """{sender: weight} of all that this rank receives from, itself included, ascending: its row."""
        return self._by_rank[0][rank]

    def out_of(self, rank):
        """{receiver: weight} of all that this rank sends to, itself included, ascending: its column."""
        return self._by_rank[1][rank]

    @property
    def matrix(self):
        """(size, size) float64, dense."""
        matrix = numpy.zeros((self.size, self.size))
        for edge, weight in self.entries.items():
            matrix[edge] = weight
        return matrix

    @cached_property
    def row_stochastic(self):
        """Whether all rows sum to 1."""
        return all(abs(total - 1) <= ROUNDING for total in self._sums[0])

    @cached_property
    def column_stochastic(self):
        """Whether all columns sum to 1."""
        return all(abs(total - 1) <= ROUNDING for total in self._sums[1])

    @property
    def doubly_stochastic(self):
        """Whether all rows and all columns sum to 1."""
        return self.row_stochastic and self.column_stochastic

    @cached_property
    def _by_rank(self):
        rows, columns = ([{} for _ in range(self.size)] for _ in range(2))
        for (receiver, sender), weight in self.entries.items():
            rows[receiver][sender] = columns[sender][receiver] = weight
        return rows, columns

    @cached_property
    def _sums(self):
        return tuple([math.fsum(weights.values()) for weights in side] for side in self._by_rank)


def once(weights_of):
    """Weights of a graph are computed once, however many ranks ask."""

    @wraps(weights_of)
    def kept(graph):
        known = vars(graph).setdefault("_weights", {})
        if weights_of not in known:
            known[weights_of] = weights_of(graph)
        return known[weights_of]

    return kept


@once
def metropolis(graph):
    """W[i, j] = 1 / (1 + max(degree i, degree j)), the rest for oneself; doubly stochastic, on undirected graphs."""
    refuse_directed(graph, "Metropolis")
    degree = [len(graph.sources(rank)) for rank in range(graph.size)]
    return with_the_rest(graph, {(i, j): 1 / (1 + max(degree[i], degree[j])) for i, j in graph.edges})


@once
def max_degree(graph):
    """W = I - Laplacian / (1 + largest degree); doubly stochastic, on undirected graphs."""
    refuse_directed(graph, "max-degree")
    largest = max(len(graph.sources(rank)) for rank in range(graph.size))
    return with_the_rest(graph, dict.fromkeys(graph.edges, 1 / (1 + largest)))


@once
def uniform_row(graph):
    """W[i, j] = 1 / (1 + in-degree of i) for each source j and for oneself; row-stochastic."""
    return Weights(
        graph.size,
        {(i, j): 1 / (1 + len(graph.sources(i))) for i in range(graph.size) for j in (i, *graph.sources(i))},
    )


@once
def uniform_column(graph):
    """A[j, i] = 1 / (1 + out-degree of i) for each destination j and for oneself; column-stochastic."""
    return Weights(
        graph.size,
        {(j, i): 1 / (1 + len(graph.destinations(i))) for i in range(graph.size) for j in (i, *graph.destinations(i))},
    )


def lazy(weights):
    """(I + W) / 2: no eigenvalue is negative, and a gap that the second largest one decides is halved."""
    halved = {edge: weight / 2 for edge, weight in weights.entries.items()}
    return Weights(weights.size, halved | {(i, i): halved.get((i, i), 0.0) + 0.5 for i in range(weights.size)})


def pairwise(size, i, j):
    """Ranks i and j take the mean of both, the others keep what they have: I - (e_i - e_j)(e_i - e_j)^T / 2."""
    for rank in (i, j):
        if not 0 <= rank < size:
            raise InvalidInput(f"rank {rank} cannot average: there are ranks 0 to {size - 1}")
    if i == j:
        raise InvalidInput(f"rank {i} cannot average with itself")
    alone = {(rank, rank): 1.0 for rank in range(size)}
    return Weights(size, alone | dict.fromkeys([(i, i), (i, j), (j, i), (j, j)], 0.5))


def one_peer(size, step):
    """The one-peer exponential graph's weights at this step: 1/2 for oneself, 1/2 to the peer; doubly stochastic."""
    if size == 1:
        return Weights(1, {(0, 0): 1.0})
    hop = one_peer_hop(size, step)
    own = {(i, i): 0.5 for i in range(size)}
    return Weights(size, own | {((i + hop) % size, i): 0.5 for i in range(size)})


def with_the_rest(graph, entries):
    """Weights of these edges, and for oneself what is missing to a row's sum of 1."""
    own = {
        (i, i): 1 - math.fsum(entries[i, j] for j in graph.sources(i))  # fsum: not more than 1 by rounding
        for i in range(graph.size)
    }
    return Weights(graph.size, entries | own)


def refuse_directed(graph, name):
    """Refuse a graph in which an edge has no way back."""
    if not graph.undirected:
        i, j = next((i, j) for i, j in graph.edges if (j, i) not in graph.edges)
        raise InvalidInput(f"{name} weights need edges both ways, but {i} -> {j} has no way back; uniform ones do not")


def spectral_gap(weights):
    """How much closer to agreement one step of mixing brings, between 0 and 1.

    1 - ||W - 11^T / n||_2 of doubly stochastic W; 1 - |second largest eigenvalue| of others. Dense: O(n^3).
    """
    matrix, n = weights.matrix, weights.size
    if n == 1:
        return 1.0
    if weights.doubly_stochastic and numpy.array_equal(matrix, matrix.T):
        values = numpy.linalg.eigvalsh(matrix)  # ascending, the last is 1
        return float(1 - max(abs(values[0]), abs(values[-2])))
    if weights.doubly_stochastic:
        return float(1 - numpy.linalg.norm(matrix - 1 / n, 2))
    return float(1 - numpy.sort(numpy.abs(numpy.linalg.eigvals(matrix)))[-2])


def left_perron(weights):
    """u >= 0 with u^T W = u^T and sum 1, (size,): what each rank's start weighs in the model that all agree upon."""
    return perron(weights, weights.matrix.T)


def right_perron(weights):
    """p >= 0 with A p = p and sum 1, (size,): the share of all mass that each rank ends up with."""
    return perron(weights, weights.matrix)


def perron(weights, matrix):
    """The non-negative vector v of sum 1 with matrix v = v; InvalidInput where there are several."""
    n = weights.size
    system = numpy.vstack([matrix - numpy.eye(n), numpy.ones(n)])
    vector, _, rank, _ = numpy.linalg.lstsq(system, numpy.r_[numpy.zeros(n), 1.0], rcond=1e-13 * n)
    if rank < n:
        raise InvalidInput("the weights have several Perron vectors: their graph has no root")
    vector = numpy.where(vector > ROUNDING / n, vector, 0.0)
    return vector / vector.sum()


def step_factor(pull, push):
    """n (u . p): by how much a topology lengthens the steps of gradient tracking with these two matrices.

    u is the left Perron vector of the row-stochastic `pull`, p the right one of the column-stochastic `push`; the step
    that the mean objective sees is this factor times the step size: 1 where both are doubly stochastic, n where u and p
    both sit on the root of a tree.
    """
    if pull.doubly_stochastic and push.doubly_stochastic:
        return 1.0
    known = vars(pull).setdefault("_step_factors", {})  # all ranks ask
    if id(push) not in known:
        known[id(push)] = push, float(pull.size * (left_perron(pull) @ right_perron(push)))
    return known[id(push)][1]


def sum_of(terms):
    """The sum of what an iterator gives, in its order; 0 if that is nothing. `sum` would add the first vector to 0."""
    return sum(terms, next(terms, 0))
