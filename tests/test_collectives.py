"""Collectives on the simulation engine: values, order of summation to the last bit, messages and bytes."""

from functools import reduce
from math import ceil, floor, log2
from operator import add

import numpy
import pytest

from mpibench.collectives import barrier, broadcast, ring_all_reduce, tree_all_reduce
from mpibench.node import SECOND

A = 0  # the tag
RANKS = [1, 2, 3, 4, 5, 8, 13]
LENGTHS = [0, 1, 2, 7, 64]


def vector(rank, length, dtype=numpy.float64):
    """A vector whose sums over ranks round differently in every order."""
    return numpy.random.default_rng([rank, length]).standard_normal(length).astype(dtype)


def ring_sum(vectors):
    """Piece c is added from rank c onwards."""
    n, length = len(vectors), len(vectors[0])
    pieces = []
    for c in range(n):
        place = slice(length * c // n, length * (c + 1) // n)
        pieces.append(reduce(add, [vectors[(c + j) % n][place] for j in range(n)]))
    return numpy.concatenate(pieces)


def tree_sum(vectors):
    """By halves of the next power of two."""
    if len(vectors) == 1:
        return vectors[0]
    half = 2 ** (ceil(log2(len(vectors))) - 1)
    return tree_sum(vectors[:half]) + tree_sum(vectors[half:])


SUMS = {ring_all_reduce: ring_sum, tree_all_reduce: tree_sum}
all_reduces = pytest.mark.parametrize("all_reduce", SUMS, ids=lambda function: function.__name__)


@pytest.fixture
def collective(simulate, together):
    """A function that runs `body(node)` on n ranks until all are done; returns the results by rank, and the engine."""

    def run(n, body, **modelled):
        results = {}
        engine = simulate(*[together(body, results)] * n, **modelled)
        assert sorted(results) == list(range(n))
        return [results[rank] for rank in range(n)], engine

    return run


def sent(engine):
    """Messages and bytes between all ranks, without those with which `together` ends the run."""
    messages, size, _ = map(sum, zip(*(node.journal.totals for node in engine.nodes), strict=True))
    return messages - (len(engine.nodes) - 1), size


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("length", LENGTHS)
@all_reduces
def test_all_reduce_adds_in_the_order_it_states_on_every_rank(collective, all_reduce, length, n):
    vectors = [vector(rank, length) for rank in range(n)]

    async def body(node):
        return await all_reduce(node, A, vectors[node.rank])

    results, _ = collective(n, body)
    expected = SUMS[all_reduce](vectors)
    for total in results:
        assert total.dtype == expected.dtype
        assert total.tobytes() == expected.tobytes()


def test_the_orders_of_summation_differ_in_their_bits():
    """Otherwise the test above could not tell them apart."""
    vectors = [vector(rank, 64) for rank in range(5)]
    sums = [ring_sum(vectors), tree_sum(vectors), reduce(add, vectors), reduce(add, vectors[::-1])]
    assert len({total.tobytes() for total in sums}) == len(sums)


@all_reduces
def test_the_order_of_summation_does_not_depend_on_who_arrives_first(collective, all_reduce):
    n = 5

    def delays(seed):
        async def body(node):
            await node.sleep(float(numpy.random.default_rng([seed, node.rank]).random()))
            return await all_reduce(node, A, vector(node.rank, 33))

        return body

    edges = {(source, to): (10**8 * ((source * to) % 4), 10**6) for source in range(n) for to in range(n)}
    bits = {total.tobytes() for seed in range(5) for total in collective(n, delays(seed), edges=edges)[0]}
    assert len(bits) == 1


@all_reduces
def test_all_reduce_takes_single_precision_and_tensors(collective, all_reduce):
    torch = pytest.importorskip("torch")
    vectors = [vector(rank, 10, numpy.float32) for rank in range(3)]

    def with_vectors(of):
        async def body(node):
            return await all_reduce(node, A, of(vectors[node.rank]))

        return collective(3, body)[0]

    arrays, tensors = with_vectors(lambda v: v), with_vectors(lambda v: torch.from_numpy(v.copy()))
    for array, tensor in zip(arrays, tensors, strict=True):
        assert (array.dtype, tensor.dtype) == (numpy.float32, torch.float32)
        assert array.tobytes() == tensor.numpy().tobytes() == SUMS[all_reduce](vectors).tobytes()


@all_reduces
def test_all_reduces_may_follow_each_other_without_a_barrier(collective, all_reduce):
    """Each total is handed over again, and is not what was handed over before."""
    n = 3

    async def body(node):
        x = vector(node.rank, 7)
        totals = []
        for k in range(4):
            await node.sleep(0.1 * ((node.rank + k) % n))
            total = await all_reduce(node, A, x)
            totals.append(total)
            x = total * 0.5 + k * node.rank
        return totals

    results, _ = collective(n, body, latency_ns=10**7)
    x = [vector(rank, 7) for rank in range(n)]
    for k in range(4):
        total = SUMS[all_reduce](x)
        assert all(result[k].tobytes() == total.tobytes() for result in results)
        x = [total * 0.5 + k * rank for rank in range(n)]


def test_different_collectives_may_share_a_tag(collective):
    n = 6

    async def body(node):
        values = []
        for k in range(3):
            values.append(await broadcast(node, A, 10 * k + node.rank, root=k))
            await barrier(node, A)
            values.append(await tree_all_reduce(node, A, node.rank + k))
            values.append((await ring_all_reduce(node, A, numpy.full(n, node.rank))).tolist())
        return values

    results, _ = collective(n, body, latency_ns=10**6, seconds=[0.1 * rank for rank in range(n)])
    assert results == [[value for k in range(3) for value in (11 * k, 15 + n * k, [15] * n)]] * n


@pytest.mark.parametrize("n", RANKS)
def test_broadcast_brings_what_the_root_has(collective, n):
    for root in {0, n // 2, n - 1}:

        async def body(node, root=root):
            return await broadcast(node, A, (node.rank, vector(node.rank, 5), None), root=root)

        results, engine = collective(n, body, latency_ns=SECOND, ns_per_byte=0)
        assert all(rank == root and x.tobytes() == vector(root, 5).tobytes() for rank, x, _ in results)
        assert sent(engine) == (n - 1, (n - 1) * (5 * 8 + 16))


@pytest.mark.parametrize("n", RANKS)
def test_nobody_leaves_a_barrier_before_everybody_has_come(collective, n):
    for last in range(n):

        async def body(node, last=last):
            await node.sleep(5.0 if node.rank == last else 0.1 * node.rank)
            await barrier(node, A)
            return node.now()

        left, engine = collective(n, body, latency_ns=10**6)
        assert min(left) >= 5.0
        assert sent(engine) == (n * ceil(log2(n)), 0)


CHAIN = {
    barrier: lambda n: ceil(log2(n)),
    broadcast: lambda n: floor(log2(n)),
    tree_all_reduce: lambda n: 2 * floor(log2(n)),
    ring_all_reduce: lambda n: 2 * (n - 1),
}


@pytest.mark.parametrize("n", RANKS)
@pytest.mark.parametrize("operation", CHAIN, ids=lambda function: function.__name__)
def test_the_longest_chain_of_messages_is_as_stated(collective, operation, n):
    async def body(node):
        await operation(node, A, *[vector(node.rank, 13)][: operation is not barrier])
        return node.now()

    left, _ = collective(n, body, latency_ns=SECOND)
    assert max(left) == CHAIN[operation](n)


@pytest.mark.parametrize("n", RANKS)
def test_the_messages_and_bytes_of_all_reduce_are_as_stated(collective, n):
    length = 60
    bytes_of_a_vector = 8 * length

    async def tree(node):
        await tree_all_reduce(node, A, vector(node.rank, length))

    async def ring(node):
        await ring_all_reduce(node, A, vector(node.rank, length))

    assert sent(collective(n, tree)[1]) == (2 * (n - 1), 2 * (n - 1) * bytes_of_a_vector)
    engine = collective(n, ring)[1]
    assert sent(engine) == (2 * n * (n - 1), 2 * (n - 1) * bytes_of_a_vector)
    for node in engine.nodes if n > 2 else ():
        assert abs(node.journal.bytes - 2 * bytes_of_a_vector * (n - 1) / n) <= 2 * 8


@all_reduces
def test_all_reduce_writes_to_nothing_that_was_handed_over(collective, all_reduce):
    """The engine refuses a write (law 3); here also what an algorithm keeps beside it stays as it was."""
    torch = pytest.importorskip("torch")

    async def body(node):
        x = torch.arange(6.0) * (node.rank + 1)
        view = x[2:4]
        kept = x.clone()
        first = await all_reduce(node, A, x)
        second = await all_reduce(node, A, x)
        assert torch.equal(x, kept) and torch.equal(view, kept[2:4])
        return first.tolist(), second.tolist()

    results, _ = collective(4, body, latency_ns=1000)
    assert all(result == ([10.0 * k for k in range(6)],) * 2 for result in results)
