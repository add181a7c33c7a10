"""Low rank: every matrix G of the vector as P Q^T with r columns, by a step of the power method from random columns.

P = orthonormal(G Q), Q = G^T P. Biased, a projection of each matrix, so its error is never longer than the vector, but
there is no δ for all vectors; `power_sgd` keeps Q from step to step. Bits: 32 r (n + m) for each n x m matrix; vectors,
and matrices that would not be shorter, go as they are. T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical
Low-Rank Gradient Compression for Distributed Optimization", NeurIPS 2019, arXiv 1905.13727.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy
from annotated_types import MinLen

from mpibench.compressors import Compressor, like_vector, on_host
from mpibench.compressors._parts import numbers_and_rest, with_numbers
from mpibench.errors import InvalidInput
from mpibench.parameters import Count

Shapes = Annotated[tuple[Annotated[tuple[Count, ...], MinLen(1)], ...], MinLen(1)]
EPSILON = 1e-8  # added to the length of a column before it is divided by it


@dataclass(frozen=True)
class LowRank(Compressor):
    rank: Count  # r
    shapes: Shapes | None = None  # of the tensors that the vector consists of; one nearly square matrix if not given
    name: Literal["low_rank"] = "low_rank"

    def check(self, d):
        super().check(d)
        Factors(d, self.rank, self.shapes)

    def pack(self, x, rng, shared):
        factors = Factors(len(x), self.rank, self.shapes)
        P = factors.orthonormal(factors.left(x, factors.start(rng, x)))
        return with_numbers(numpy.concatenate([P, self.in_range(factors.right(x, P))]), numpy.empty(0, numpy.uint8))

    def unpack(self, data, like, shared):
        factors = Factors(len(like), self.rank, self.shapes)
        numbers, _ = numbers_and_rest(data, factors.of_left + factors.of_right, like)
        return factors.product(numbers[: factors.of_left], numbers[factors.of_left :], like)

    def bits(self, d, width=32):
        factors = Factors(d, self.rank, self.shapes)
        return width * (factors.of_left + factors.of_right)


class Factors:
    """The matrices of a vector of d coordinates and their factors of rank r, all of a kind in one vector.

    A tensor of more than two axes is a matrix of its first axis and the rest. What is not factored, because that would
    not be shorter, stands behind the left factors as it is. Vectors are numpy's or torch's.
    """

    def __init__(self, d, rank, shapes=None):
        if shapes is None:  # nearly square: as many rows as make the fewest numbers, padded with zeros
            rows = math.isqrt(d - 1) + 1
            shapes = [(rows, -(-d // rows))]
        elif (total := sum(math.prod(shape) for shape in shapes)) != d:
            raise InvalidInput(f"the tensors of `shapes` have {total} numbers, and the vector has {d}")
        self.d, self.rank = d, rank
        self.matrices = []  # (where it is in the vector, rows, columns)
        self.whole = []  # where what is not factored is
        start = 0
        for shape in shapes:
            rows, columns = shape[0], math.prod(shape[1:])
            place = slice(start, min(start + rows * columns, d))
            start = place.stop
            if len(shape) > 1 and rank * (rows + columns) < place.stop - place.start:
                self.matrices.append((place, rows, columns))
            else:
                self.whole.append(place)
        self.of_right = rank * sum(columns for _, _, columns in self.matrices)
        self.of_left = rank * sum(rows for _, rows, _ in self.matrices) + sum(p.stop - p.start for p in self.whole)

    def start(self, rng, like):
        """Random Q, in one vector like `like`; rng is a numpy Generator, or a seed."""
        values = on_host(like)
        return like_vector(like, numpy.random.default_rng(rng).standard_normal(self.of_right, dtype=values.dtype))

    def left(self, x, Q):
        """G Q of all matrices, and what is not factored."""
        values, Q = on_host(x), self.split(on_host(Q), side=2)
        parts = [matrix(values, m) @ q for m, q in zip(self.matrices, Q, strict=True)]
        return like_vector(x, joined([*parts, *(values[place] for place in self.whole)], values))

    def orthonormal(self, P):
        """The left factors with orthonormal columns, by Gram and Schmidt; the rest as it is.

        Twice: of a column that depends on others rounding is left, which the first time becomes long and not normal.
        """
        values = on_host(P).copy()
        for p in 2 * self.split(values, side=1):
            for c in range(self.rank):
                p[:, c] /= math.sqrt(float(p[:, c] @ p[:, c])) + EPSILON
                p[:, c + 1 :] -= numpy.outer(p[:, c], p[:, c] @ p[:, c + 1 :])
        return like_vector(P, values)

    def right(self, x, P):
        """G^T P of all matrices."""
        values = on_host(x)
        P = self.split(on_host(P), side=1)
        parts = [matrix(values, m).T @ p for m, p in zip(self.matrices, P, strict=True)]
        return like_vector(x, joined(parts, values))

    def product(self, P, Q, like):
        """P Q^T of all matrices, and the rest: a vector like `like`."""
        left, right = on_host(P), on_host(Q)
        x = numpy.empty(self.d, left.dtype)
        pairs = zip(self.matrices, self.split(left, side=1), self.split(right, side=2), strict=True)
        for (place, _, _), p, q in pairs:
            x[place] = (p @ q.T).reshape(-1)[: place.stop - place.start]
        start = self.rank * sum(rows for _, rows, _ in self.matrices)
        for place in self.whole:
            x[place] = left[start : start + place.stop - place.start]
            start += place.stop - place.start
        return like_vector(like, x)

    def factored(self, x):
        """x with zeros where it is not factored."""
        values = on_host(x).copy()
        for place in self.whole:
            values[place] = 0
        return like_vector(x, values)

    def split(self, vector, side):
        """The (rows or columns, r) factors of all matrices in a numpy vector, as views."""
        found, start = [], 0
        for m in self.matrices:
            end = start + self.rank * m[side]
            found.append(vector[start:end].reshape(m[side], self.rank))
            start = end
        return found


def matrix(vector, place_and_shape):
    """A matrix of a numpy vector, padded with zeros where it ends early."""
    place, rows, columns = place_and_shape
    part = vector[place]
    if len(part) < rows * columns:
        part = numpy.pad(part, (0, rows * columns - len(part)))
    return part.reshape(rows, columns)


def joined(parts, like):
    """Arrays one after the other in a vector."""
    return numpy.concatenate([*(part.reshape(-1) for part in parts), numpy.empty(0, like.dtype)])
