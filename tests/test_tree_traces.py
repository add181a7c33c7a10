"""The methods on spanning trees: runs written out by hand, special cases that must coincide, invariants, and the
references of `tree_references.py`, which know nothing of mpibench.

By hand: one dimension, f(x) = x^2/2, so that a gradient is the point it is computed at, plus a number of its worker
where it matters who made it. A row is (seconds, gradients, ranks that made them, point after the update).
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import tree_references
from hypothesis import given, settings
from hypothesis import strategies as st
from test_traces import NOISELESS, NOISY, STEPSIZE, noisy
from toy import NEVER, Toy, cells
from tree_references import METHODS, Ranks

from mpibench.graphs import directed_ring
from mpibench.network import Network
from mpibench.node import SECOND, Link
from mpibench.runner import simulate as simulated

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=40)
BATCHED = ["fragile", "fragile_accelerated", "amelie"]
UPDATES = 12


def both_ways(*times):
    """Edges of a line 0 - 1 - 2 - ..., where a vector takes these seconds in either direction."""
    return {edge: s for i, s in enumerate(times) for edge in ((i, i + 1), (i + 1, i))}


def complete(n):
    """Edges between all ranks that take no time."""
    return {(i, j): 0.0 for i in range(n) for j in range(n) if i != j}


def table(n, edges):
    """The [graph] of these edges."""
    return {"size": n, "edges": [{"source": i, "to": j, "vector_seconds": s} for (i, j), s in edges.items()]}


def run(name, parameters, seconds, edges, updates=3, toy=None, stepsize=0.5):
    """The Result of a toy on a network in virtual time; edges: (source, to) -> seconds of a vector, or a [graph]."""
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    graph = edges if "name" in edges else table(len(seconds), edges)
    parameters = {"stepsize": stepsize, "pivot": 0} | parameters
    (cell,) = cells(name, parameters, seconds, graph=graph, stop={"updates": updates}, targets=targets)
    return simulated(replace(cell, problem=toy or Toy()), seed=0)


def by_server(name, parameters, seconds, updates, toy):
    """The Result of a server method on links that take no time, with workers of these speeds."""
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    (cell,) = cells(name, {"stepsize": STEPSIZE} | parameters, seconds, stop={"updates": updates}, targets=targets)
    return simulated(replace(cell, problem=toy), seed=0)


def rows(result):
    """(seconds, gradients, ranks that made them, point) of every update."""
    columns = [result.updates[name].tolist() for name in ("time", "gradients", "workers")]
    return list(zip(*columns, result.trace["x0"][1:].tolist(), strict=True))


def reference(name, parameters, seconds, edges, updates=UPDATES, trees=tree_references.trees):
    """The reference's run of the noisy toy with this pivot, a rank."""
    others = {key: value for key, value in parameters.items() if key != "pivot"}
    down, up = trees(len(seconds), edges, parameters["pivot"])
    return METHODS[name](Ranks(seconds, edges, noisy), down, up, 3.0, STEPSIZE, updates, **others).run()


def of_workers(*numbers):
    """A toy whose gradients are x plus a number of their worker 1, 2, ..."""
    return Toy(sample=lambda i, number: float(numbers[i - 1]))


def count(result, what):
    return result.ranks[what].tolist()


# By hand: Fragile.

LINE = both_ways(1.0, 1.0)  # 0 - 1 - 2
OF_THREE = of_workers(0, 8, -16)


@pytest.mark.parametrize(
    ("batch", "step", "ranks", "shift", "discarded"),
    [
        # x^0 is at ranks 0, 1, 2 at 0, 1, 2 s. Gradients end at 4, 8 (rank 0); 4, 7 (rank 1); 4, 6, 8 (rank 2)
        # The pivot has its own at 4, rank 1's at 5, rank 2's by way of rank 1 at 6. Rank 1's second waits for rank 2's
        # second from 7 to 8, when that is at the pivot
        (2, 5, 2, 4.0, [1, 1, 0]),  # rank 2's first is dropped at the pivot at 6, its second by rank 1 at 7
        (3, 6, 3, -8 / 3, [0, 1, 0]),  # rank 2's second is dropped by rank 1 at 7, which has had x^1 from rank 0 first
        (4, 8, 3, -6.0, [1, 1, 0]),  # rank 1's second is dropped at the pivot at 9, rank 2's third by rank 1 at 9
    ],
)
def test_fragile_by_hand(batch, step, ranks, shift, discarded):
    # g = x, x + 8, x - 16. Every step is like the first. The runs end before what is dropped of the last step
    result = run("fragile", {"batch": batch}, [4, 3, 2], LINE, 4, OF_THREE)
    x, expected = 64.0, []
    for k in range(1, 5):
        x = x - (x + shift) / 2
        expected.append((k * step, batch, ranks, x))
    assert [row[:3] for row in rows(result)] == [row[:3] for row in expected]
    assert [row[3] for row in rows(result)] == pytest.approx([row[3] for row in expected], rel=1e-14)
    assert count(result, "discarded") == [3 * dropped for dropped in discarded]
    # each has a job under way when the next point comes; rank 0's of the step of 8 s ends as x^1 is made
    assert count(result, "stopped") == [3, 3, 3]
    assert result.updates["source"].tolist() == [0] * 4 and result.updates["staleness"].tolist() == [0] * 4


def test_the_wait_for_the_link_is_what_aggregates():
    # x^0 is at rank 1 at 4; a gradient every second. The first leaves at 5 and is at the pivot at 9. At 9 those of 6,
    # 7, 8 leave, and the one that ends at that instant waits; at 13 those of 9 to 12. At 17 there are 1 + 3 + 4.
    # g = x + 8 times the number of the job, and x^0 has 0, ..., 7
    toy = Toy(sample=lambda i, number: 8.0 * number)
    result = run("fragile", {"batch": 8}, [100, 1], both_ways(4.0), 2, toy)
    # x^1 is at rank 1 at 21. Until then: at 17 the gradients of 13 to 16 have left, for nothing; those of 17 to 20 are
    # dropped by rank 1, and the job that ends at 21 is stopped: number 16. x^1 has 17, ..., 24
    assert rows(result) == [
        (17, 8, 1, 32 - 8 * 3.5 / 2),
        (34, 8, 1, 9 - 8 * 20.5 / 2),
    ]
    assert count(result, "gradients") == [0, 16 + 12]  # 5, ..., 20 and 22, ..., 33
    assert count(result, "discarded") == [4, 4] and count(result, "stopped") == [1, 1]
    assert count(result, "messages_sent") == [2, 4 + 3]  # at 5, 9, 13, 17 and 22, 26, 30; the pivot ends the run at 34


# Rank 0 reaches 1 in 5 s and 2 in 10 s, though 2 might be reached by way of 1 in 11 s; 1's way back is by 2.
TRIANGLE = {(0, 1): 5.0, (0, 2): 10.0, (1, 2): 6.0, (2, 0): 4.0, (1, 0): 40.0}


def test_a_sum_may_overtake_its_point():
    # The pivot makes an update every 6 s, alone. x^0 is at rank 1 at 5, x^1 at 11, x^2 at 17, x^3 at 23; it is at
    # rank 2 at 10, x^1 at 20; x^2 waits there for the link from 12 on, and x^3 takes its place at 18.
    # Rank 1: the gradient of 6 is at rank 2 at 12; the four of 7 to 10 are dropped at 11; that of 12 is at rank 2 at
    # 18; four are dropped at 17 (13 to 16); that of 18 leaves; four are dropped at 23 (19 to 22).
    # Rank 2, one in 4 s: at 12 rank 1's x^0 leaves and is dropped at the pivot at 16. Its own of 14 waits until 16 and
    # is dropped there at 20. At 18 it hears of x^1, before its own next one at x^0 ends, which it drops; at 20 x^1
    # comes, is computed at, and leaves the sum that waits for the link; this is dropped at the pivot at 24
    result = run("fragile", {"batch": 1}, [6, 1, 4], TRIANGLE, 4)
    assert rows(result) == [(6, 1, 1, 32), (12, 1, 1, 16), (18, 1, 1, 8), (24, 1, 1, 4)]
    assert count(result, "discarded") == [3, 12, 1]
    assert count(result, "gradients") == [4, 15, 2]
    assert count(result, "stopped") == [3, 3, 1]
    assert count(result, "messages_sent") == [4 + 3, 3, 3]


def test_an_older_point_is_forwarded_and_not_computed_at():
    # Rank 3 is 100 s away, by way of 1 as by way of 2; rank 4 hangs on it. The pivot makes an update every 24 s, alone.
    # 0 -> 1: x^0 until 40, x^1 until 80, x^3 until 120, x^4 until 160. 1 -> 3: x^0 until 100, x^1 until 160.
    # 0 -> 2: x^0 until 50, x^2 until 100, x^4 until 150. 2 -> 3: the gradients of 51 at x^0, 101 at x^2, 151 at x^4.
    # So rank 3 has x^0 at 100, hears of x^2 at 151, and x^1 at 160 is for rank 4 alone: it stops the job
    # at x^0 that would end then, the one after that of 130, and rank 3 is idle until x^4 comes, at 220
    edges = {(0, 1): 40.0, (1, 3): 60.0, (0, 2): 50.0, (2, 3): 50.0, (3, 0): 5.0, (3, 4): 1.0, (4, 3): 1.0}
    result = run("fragile", {"batch": 1}, [24, 1000, 1, 30, 1000], edges, 8)
    assert [row[:3] for row in rows(result)] == [(24 * k, 1, 1) for k in range(1, 9)]
    assert count(result, "gradients") == [8, 0, 49 + 49 + 41, 1, 0]
    assert count(result, "discarded") == [3, 0, 48 + 48, 0, 0]  # at the pivot those of 101, 130 and 151
    assert count(result, "stopped") == [7, 3, 2, 1, 1]
    assert count(result, "messages_sent") == [5 + 4, 3, 3, 2 + 3, 0]


# On a ring that has one direction, 0 -> 1 -> 2 -> 0, the two trees share the edge 1 -> 2.
RING = {(0, 1): 4.0, (1, 2): 4.0, (2, 0): 4.0}


def test_a_sum_behind_a_point_grows_no_more():
    # x^0 is at rank 1 at 4, and on its way to rank 2 until 8. The gradient of 5 was handed over and waits behind it,
    # alone: those of 6 to 11 follow at 12, when it is at rank 2. At the pivot: rank 2's first (of 9) at 13; at 17 what
    # rank 2 has at 13, rank 1's first and its own of 10, 11, 12; at 21 rank 1's six, at rank 2 at 16, and its own of 13
    # to 16. Had the sum grown behind the point, three of rank 1 would be at the pivot at 17, and end the step
    result = run("fragile", {"batch": 6}, [100, 1, 1], RING, 1)
    assert rows(result) == [(21, 1 + 4 + 10, 2, 32)]
    assert count(result, "gradients") == [0, 16, 12]  # those of 21 s come after the pivot's end of the run


def test_accelerated_fragile_by_hand():
    # one rank, g = x, stepsize 1/4; alpha = 1, 2/3, 1/2, 2/5. y = (1 - alpha) x + alpha u
    result = run("fragile_accelerated", {"batch": 1}, [1], {}, 4, stepsize=0.25)
    points = [
        48,  # y = 64: u = 64 - 64/4
        32,  # y = 48: u = 48 - 2 * 48/4 = 24, x = 48/3 + 2 * 24/3
        17.5,  # y = (32 + 24)/2 = 28: u = 24 - 3 * 28/4 = 3, x = (32 + 3)/2
        7.02,  # y = 0.6 * 17.5 + 0.4 * 3 = 11.7: u = 3 - 11.7 = -8.7, x = 10.5 - 3.48
    ]
    assert [row[3] for row in rows(result)] == pytest.approx(points, rel=1e-14)
    assert [row[:3] for row in rows(result)] == [(k, 1, 1) for k in range(1, 5)]


# By hand: tree Minibatch.


@pytest.mark.parametrize(
    ("name", "steps", "messages"),
    [
        # x^0 is at 1 and 2 at 1 and 2. Rank 2's gradient is at rank 1 at 4
        ("tree_minibatch", {4: 6, 3.5: 5.5, 2: 5}, {4: 4, 3.5: 4, 2: 4}),  # rank 1 sends both when its own ends
        # rank 2's goes on at once, until 5: rank 1's of 4.5 has to wait. Its gradient of 3 leaves alone, until 4
        ("tree_minibatch_eager", {4: 6, 3.5: 6, 2: 5}, {4: 5, 3.5: 5, 2: 5}),
    ],
)
@pytest.mark.parametrize("second", [4, 3.5, 2])
def test_tree_minibatch_by_hand(name, steps, messages, second):
    result = run(name, {}, [1, second, 1], LINE, 3, OF_THREE)
    x, expected = 64.0, []
    for k in range(1, 4):
        x = x - (x - 8 / 3) / 2
        expected.append((k * steps[second], 3, 3, x))
    assert [row[:3] for row in rows(result)] == [row[:3] for row in expected]
    assert [row[3] for row in rows(result)] == pytest.approx([row[3] for row in expected], rel=1e-14)
    assert count(result, "gradients") == [3, 3, 3] and count(result, "discarded") == [0, 0, 0]
    assert result.trace["messages"].tolist() == [k * messages[second] for k in range(4)]


def test_eager_sums_that_wait_for_the_link_are_merged():
    # a star whose centre, rank 1, is one away from the pivot: 0 - 1 - {2, 3, 4}. Sums are at rank 1 at 3.25, 3.5 and
    # 3.75 (ranks 2, 3, 4); the first goes on at once; the others and its own of 3.75 leave together at 4.25
    edges = both_ways(1.0) | {edge: 1.0 for i in (2, 3, 4) for edge in ((1, i), (i, 1))}
    result = run("tree_minibatch_eager", {}, [1, 2.75, 0.25, 0.5, 0.75], edges, 1)
    assert [row[:3] for row in rows(result)] == [(5.25, 5, 5)]
    assert result.trace["messages"].tolist() == [0, 4 + 3 + 2]
    ideal = run("tree_minibatch", {}, [1, 2.75, 0.25, 0.5, 0.75], edges, 1)
    assert [row[:3] for row in rows(ideal)] == [(4.75, 5, 5)]


# By hand: Amelie. g = x, x + 8, x - 16 of ranks 0, 1, 2: a step of 1/2 along the mean over ranks leads to x/2 + 4/3.


@pytest.mark.parametrize(
    ("batch", "step", "gradients", "counters"),
    [
        # x^0 is at the pivot, rank 1, at 0 and at the others at 1. Rank 0 ends at 2, 3, 4, ..., rank 1 at 2, 4, 6, ...,
        # rank 2 at 5, 9, ...; all counters but rank 2's are there before 5
        (3, 5, (4, 2, 1), 4 + 1),  # at 5: 1/4 + 1/2 + 1 <= 9/3
        (6, 7, (6, 3, 1), 6 + 1),  # not 1/5 + 1/3 + 1 at 6, but 1/6 + 1/3 + 1 = 9/6 at 7
    ],
)
def test_amelie_by_hand(batch, step, gradients, counters):
    # all hear of the end at once, and what runs, or has just begun, is stopped; the means are there a second later
    result = run("amelie", {"batch": batch, "pivot": 1}, [1, 2, 4], LINE, 3, OF_THREE)
    x, expected = 64.0, []
    for k in range(1, 4):
        x = x - (x - 8 / 3) / 2
        expected.append((k * (step + 1), sum(gradients), 3, x))
    assert [row[:3] for row in rows(result)] == [row[:3] for row in expected]
    assert [row[3] for row in rows(result)] == pytest.approx([row[3] for row in expected], rel=1e-14)
    assert count(result, "gradients") == [3 * s for s in gradients]
    assert count(result, "stopped") == [3, 3, 3] and count(result, "discarded") == [0, 0, 0]
    assert result.trace["messages"].tolist() == [k * (2 + counters + 2 + 2) for k in range(4)]


def test_amelie_freezes_hop_by_hop_by_hand():
    # 0 - 1 - 2, rank 0 is the pivot. Rank 1 has a gradient at 3 and says nothing, as it knows nothing of rank 2; that
    # ends at 3, too, and the word of it makes 1 + 1, and with the pivot's 1/3 less than 9/3. The means are at rank 1 at
    # 4 and, with its own, at rank 0 at 5
    result = run("amelie", {"batch": 3}, [1, 2, 1], LINE, 2, OF_THREE)
    assert [row[:3] for row in rows(result)] == [(5, 3 + 1 + 1, 3), (10, 5, 3)]
    assert result.trace["messages"].tolist() == [0, 8, 16]  # 2 points, 2 counters, 2 of the end, 2 sums


def test_a_counter_may_overtake_its_point():
    # 0 -> 1 in 1 s, 0 -> 2 in 10 s; rank 1's way back is by rank 2. Its gradient of 9 is known at rank 2 before x^0
    # comes at 10, and must not be forgotten then: it is valid, and the next would end at 17. Rank 2's ends at 11, when
    # the pivot has 11: 1/11 + 1 + 1 <= 9. Rank 1's mean is at rank 2 at 21, both are at the pivot at 22
    edges = {(0, 1): 1.0, (0, 2): 10.0, (1, 2): 10.0, (2, 0): 1.0, (1, 0): 20.0}
    result = run("amelie", {"batch": 1}, [1, 8, 1], edges, 2)
    assert rows(result) == [(22, 11 + 1 + 1, 3, 32), (44, 13, 3, 16)]


# The references.


@dataclass(frozen=True)
class Case:
    """Ranks of fixed seconds, edges with their own seconds, a pivot."""

    seconds: list
    edges: dict
    pivot: int

    @property
    def n(self):
        return len(self.seconds)


EIGHTHS = st.integers(1, 16).map(lambda eighth: eighth / 8)


@st.composite
def random_cases(draw):
    """Connected graphs both of whose directions exist, each with its own time: the two trees may differ."""
    n = draw(st.integers(1, 6))
    slowest = draw(st.sampled_from([4, 16, 60]))  # eighths: links faster than a gradient, or much slower
    pairs = {(draw(st.integers(0, j - 1)), j) for j in range(1, n)}
    pairs |= {(i, j) for i in range(n) for j in range(i + 1, n) if draw(st.booleans())}
    edges = {edge: draw(st.integers(1, slowest)) / 8 for i, j in sorted(pairs) for edge in ((i, j), (j, i))}
    return Case(draw(st.lists(EIGHTHS, min_size=n, max_size=n)), edges, draw(st.integers(0, n - 1)))


@st.composite
def one_way_cases(draw):
    """A ring of one direction and some edges across it: the two trees differ and share edges, where sums wait behind
    points."""
    n = draw(st.integers(2, 6))
    slowest = draw(st.sampled_from([4, 16, 60]))
    pairs = {(i, (i + 1) % n) for i in range(n)}
    pairs |= {(i, j) for i in range(n) for j in range(n) if i != j and draw(st.integers(0, 3)) == 3}
    edges = {edge: draw(st.integers(1, slowest)) / 8 for edge in sorted(pairs)}
    return Case(draw(st.lists(EIGHTHS, min_size=n, max_size=n)), edges, draw(st.integers(0, n - 1)))


MESH = [(i, j) for i in range(9) for j in range(i) if abs(i % 3 - j % 3) + abs(i // 3 - j // 3) == 1]
SHAPES = {"line": [(0, 1), (1, 2)], "star": [(0, 1), (0, 2), (0, 3)], "mesh": MESH}


@st.composite
def regular_cases(draw):
    """A line of 3, a star of 4, a mesh of 3 x 3, all of whose links are alike: ties are common."""
    pairs, rho = SHAPES[draw(st.sampled_from(list(SHAPES)))], draw(EIGHTHS)
    n = 1 + max(max(pair) for pair in pairs)
    seconds = draw(st.one_of(EIGHTHS.map(lambda h: [h] * n), st.lists(EIGHTHS, min_size=n, max_size=n)))
    edges = {edge: rho for i, j in pairs for edge in ((i, j), (j, i))}
    return Case(seconds, edges, draw(st.integers(0, n - 1)))


CASES = st.one_of(random_cases(), one_way_cases(), regular_cases())
BATCH = st.integers(1, 12)


def with_batch(name, batch):
    return {"batch": batch} if name in BATCHED else {}


def agree(result, trace):
    """A run is its reference's."""
    assert [row[:3] for row in rows(result)] == [row[:3] for row in trace.rows]
    assert [row[3] for row in rows(result)] == pytest.approx([row[3] for row in trace.rows], rel=1e-12, abs=1e-13)
    assert count(result, "gradients") == trace.ranks.finished
    assert count(result, "stopped") == trace.ranks.stopped
    assert count(result, "discarded") == trace.discarded
    assert result.trace["messages"].tolist() == [0, *trace.messages]
    assert count(result, "messages_sent") == [
        sum(edge[0] == i for _, edge, _, _ in trace.ranks.departures) for i in range(trace.ranks.n)
    ]
    assert set(result.updates["source"]) == {trace.pivot} and set(result.updates["staleness"]) == {0}
    assert sum(count(result, "used")) == sum(row[1] for row in trace.rows)


@pytest.mark.parametrize("name", METHODS)
@given(case=CASES, batch=BATCH)
@settings(EXACT, max_examples=100)
def test_it_is_its_reference(name, case, batch):
    parameters = {"pivot": case.pivot} | with_batch(name, batch)
    result = run(name, parameters, case.seconds, case.edges, UPDATES, NOISY, STEPSIZE)
    agree(result, reference(name, parameters, case.seconds, case.edges))


@st.composite
def tree_cases(draw):
    """Trees, some of whose links take no time, so that whole subtrees hear of each other at the same instants."""
    n = draw(st.integers(2, 6))
    pairs = [(draw(st.integers(0, j - 1)), j) for j in range(1, n)]
    times = st.sampled_from([0.0, 0.0, 0.5, 1.0])
    edges = {edge: draw(times) for i, j in pairs for edge in ((i, j), (j, i))}
    return Case(draw(st.lists(EIGHTHS, min_size=n, max_size=n)), edges, draw(st.integers(0, n - 1)))


def only_trees(n, edges, pivot):
    """Parents down and up where the graph is a tree."""
    parents, found = [None] * n, [pivot]
    for i in found:
        for j in range(n):
            if (i, j) in edges and j not in found:
                parents[j] = i
                found.append(j)
    return parents, parents


@pytest.mark.parametrize("name", METHODS)
@given(case=tree_cases(), batch=BATCH)
@EXACT
def test_it_is_its_reference_where_links_take_no_time(name, case, batch):
    parameters = {"pivot": case.pivot} | with_batch(name, batch)
    result = run(name, parameters, case.seconds, case.edges, UPDATES, NOISY, STEPSIZE)
    agree(result, reference(name, parameters, case.seconds, case.edges, trees=only_trees))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pivot", [4, 5, "centre"])
def test_a_mesh_by_name(name, pivot):
    # one speed and one link: nearly everything happens at the same instants
    graph = {"name": "mesh", "rows": 3, "columns": 3, "vector_seconds": 0.5}
    edges = {edge: 0.5 for i, j in MESH for edge in ((i, j), (j, i))}
    result = run(name, {"pivot": pivot} | with_batch(name, 20), [1.0] * 9, graph, UPDATES, NOISY, STEPSIZE)
    pivot = 4 if pivot == "centre" else pivot
    agree(result, reference(name, {"pivot": pivot} | with_batch(name, 20), [1.0] * 9, edges))


@pytest.mark.parametrize("name", METHODS)
@given(case=CASES, batch=BATCH, data=st.data())
@settings(EXACT, max_examples=15)
def test_pivots_by_name(name, case, batch, data):
    kinds = ["centre", "least_time"] if name.startswith("fragile") else ["centre"]
    pivot = data.draw(st.sampled_from(kinds))
    parameters = with_batch(name, batch)
    result = run(name, {"pivot": pivot} | parameters, case.seconds, case.edges, 3, NOISY, STEPSIZE)
    if pivot == "centre":
        rank = tree_references.centre(case.n, case.edges)
    else:
        rank = tree_references.least_time(case.n, case.edges, case.seconds, batch)
    agree(result, reference(name, {"pivot": rank} | parameters, case.seconds, case.edges, 3))


# Special cases that must coincide.


SPEEDS = st.lists(st.integers(1, 12).map(lambda quarter: quarter / 4), min_size=1, max_size=5)


@given(n=st.integers(1, 5), h=EIGHTHS, batch=BATCH, toy=st.sampled_from([NOISY, NOISELESS]))
@EXACT
def test_amelie_on_equal_speeds_and_instant_links_is_malenia_with_stops(n, h, batch, toy):
    one = run("amelie", {"batch": batch}, [h] * n, complete(n), UPDATES, toy, STEPSIZE)
    other = by_server("malenia", {"batch": batch, "stop_stale": True}, [h] * n, UPDATES, toy)
    assert [(row[0], row[1], row[3]) for row in rows(one)] == [(row[0], row[1], row[3]) for row in rows(other)]
    assert count(one, "gradients") == count(other, "gradients")[1:]


@given(seconds=SPEEDS, batch=BATCH)
@EXACT
def test_amelie_on_instant_links_is_malenia_with_stops(seconds, batch):
    # also where speeds differ: the pivot is the lowest rank, so that it hears of others as a server does
    one = run("amelie", {"batch": batch}, seconds, complete(len(seconds)), UPDATES, NOISY, STEPSIZE)
    other = by_server("malenia", {"batch": batch, "stop_stale": True}, seconds, UPDATES, NOISY)
    assert [(row[0], row[1], row[3]) for row in rows(one)] == [(row[0], row[1], row[3]) for row in rows(other)]


@given(n=st.integers(1, 6), h=EIGHTHS, batch=BATCH)
@EXACT
def test_fragile_on_equal_speeds_and_instant_links_is_rennala_with_stops(n, h, batch):
    # the pivot is the lowest rank: what ends at one instant is heard in the order of ranks, as by a server
    one = run("fragile", {"batch": batch}, [h] * n, complete(n), UPDATES, NOISY, STEPSIZE)
    other = by_server("rennala", {"batch": batch, "stop_stale": True}, [h] * n, UPDATES, NOISY)
    assert rows(one) == rows(other)
    for what in ("gradients", "discarded", "stopped"):
        assert count(one, what) == count(other, what)[1:], what


@given(seconds=SPEEDS, batch=BATCH, data=st.data())
@EXACT
def test_any_tree_is_as_good_where_links_take_no_time(seconds, batch, data):
    # whatever the pivot: at ties another rank's gradient may be the last one, but times and batches are Rennala's
    pivot = data.draw(st.integers(0, len(seconds) - 1))
    parameters = {"batch": batch, "pivot": pivot}
    one = run("fragile", parameters, seconds, complete(len(seconds)), UPDATES, NOISELESS, STEPSIZE)
    other = by_server("rennala", {"batch": batch, "stop_stale": True}, seconds, UPDATES, NOISELESS)
    assert [row[:2] for row in rows(one)] == [row[:2] for row in rows(other)]
    assert [row[3] for row in rows(one)] == pytest.approx([row[3] for row in rows(other)], rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_fragile_of_one_rank_is_sequential_minibatch(batch):
    one = run("fragile", {"batch": batch}, [2], {}, 20, NOISY, STEPSIZE)
    x, number, expected = 3.0, 0, []
    for k in range(1, 21):
        x = x - STEPSIZE * sum(noisy(x, 1, number + job) for job in range(batch)) / batch
        number += batch + 1  # the next job has begun when the batch is complete
        expected.append((2.0 * batch * k, batch, 1, x))
    assert [row[:3] for row in rows(one)] == [row[:3] for row in expected]
    assert [row[3] for row in rows(one)] == pytest.approx([row[3] for row in expected], rel=1e-13)
    parameters = {"batch": batch, "average": "gradients"}
    other = by_server("load_balanced_minibatch", parameters, [2], 20, NOISELESS)
    one = run("fragile", {"batch": batch}, [2], {}, 20, NOISELESS, STEPSIZE)
    assert rows(one) == rows(other)


@pytest.mark.parametrize("name", ["tree_minibatch", "tree_minibatch_eager"])
@given(seconds=SPEEDS)
@EXACT
def test_tree_minibatch_on_instant_links_is_minibatch(name, seconds):
    one = run(name, {}, seconds, complete(len(seconds)), UPDATES, NOISY, STEPSIZE)
    other = by_server("minibatch_sgd", {}, seconds, UPDATES, NOISY)
    if name == "tree_minibatch":  # bit for bit
        assert rows(one) == rows(other)
    else:  # sums are added as they come
        assert [row[:3] for row in rows(one)] == [row[:3] for row in rows(other)]
        assert [row[3] for row in rows(one)] == pytest.approx([row[3] for row in rows(other)], rel=1e-12, abs=1e-13)


@given(case=CASES, batch=BATCH)
@EXACT
def test_accelerated_fragile_takes_the_time_of_fragile(case, batch):
    one, other = (
        run(name, {"batch": batch, "pivot": case.pivot}, case.seconds, case.edges, UPDATES, NOISY, STEPSIZE)
        for name in ("fragile", "fragile_accelerated")
    )
    assert [row[:3] for row in rows(one)] == [row[:3] for row in rows(other)]
    assert one.trace["messages"].tolist() == other.trace["messages"].tolist()
    assert rows(one)[0] == rows(other)[0]  # the first step is the same: alpha = 1


# Invariants.


def seconds_up(case):
    """The longest way to the pivot."""
    ways = tree_references.distances(case.n, case.edges)
    return max(way[case.pivot] for way in ways)


@given(case=CASES)
@EXACT
def test_eager_sums_are_never_earlier_and_at_most_a_way_up_later(case):
    # a gradient that would have left at once may find the link busy with a part of what would have left with it
    ideal, eager = (
        run(name, {"pivot": case.pivot}, case.seconds, case.edges, UPDATES, NOISY, STEPSIZE)
        for name in ("tree_minibatch", "tree_minibatch_eager")
    )
    assert [row[1:3] for row in rows(ideal)] == [row[1:3] for row in rows(eager)] == [(case.n, case.n)] * UPDATES
    assert [row[3] for row in rows(ideal)] == pytest.approx([row[3] for row in rows(eager)], rel=1e-12, abs=1e-13)
    steps = [[after - before for before, after in pairwise([0, *(row[0] for row in rows(r))])] for r in (ideal, eager)]
    for of_ideal, of_eager in zip(*steps, strict=True):
        assert of_ideal <= of_eager <= of_ideal + seconds_up(case)
    # one sum a rank and step; eager ones travel alone at worst
    assert ideal.trace["messages"].tolist() == [k * 2 * (case.n - 1) for k in range(UPDATES + 1)]
    _, up = tree_references.trees(case.n, case.edges, case.pivot)
    most = case.n - 1 + sum(hops(up, i) for i in range(case.n))
    assert ideal.trace["messages"][-1] <= eager.trace["messages"][-1] <= UPDATES * most


def hops(parents, i):
    """Number of edges from rank i to the root."""
    return 0 if parents[i] is None else 1 + hops(parents, parents[i])


@given(case=CASES, batch=BATCH)
@EXACT
def test_what_is_not_used_nor_dropped_is_on_its_way(case, batch):
    parameters = {"batch": batch, "pivot": case.pivot}
    result = run("fragile", parameters, case.seconds, case.edges, UPDATES, NOISY, STEPSIZE)
    trace = reference("fragile", parameters, case.seconds, case.edges)
    held = sum(c for _, c, _ in trace.sum)
    queued = [body for queue in trace.ranks.waiting.values() for handler, body, *_ in queue if handler == trace.add]
    flying = [args[2:] for *_, happen, args in trace.ranks.events if happen == trace.add]
    flying += [args for *_, happen, args in trace.ranks.events if happen == trace.heard]  # at the last instant
    left = held + sum(gradients for _, _, gradients, _ in queued + flying)
    assert sum(count(result, "gradients")) - sum(count(result, "used")) - sum(count(result, "discarded")) == left
    assert all(batch <= row[1] for row in rows(result))


@given(case=CASES, batch=BATCH)
@EXACT
def test_amelie_divides_by_what_there_is_and_uses_everything(case, batch):
    # every gradient is a number of its worker, so that a mean over the right count is this number, whatever the count
    toy = Toy(x=(0.0,), curvature=(0.0,), sample=lambda i, number: 2.0 ** (i % 5) * (-1) ** i)
    result = run("amelie", {"batch": batch, "pivot": case.pivot}, case.seconds, case.edges, UPDATES, toy, STEPSIZE)
    step = STEPSIZE / case.n * sum(2.0 ** (i % 5) * (-1) ** i for i in range(1, case.n + 1))
    points = [-k * step for k in range(1, UPDATES + 1)]
    assert [row[3] for row in rows(result)] == pytest.approx(points, rel=1e-12, abs=1e-12)
    assert all(max(batch, case.n) <= row[1] and row[2] == case.n for row in rows(result))  # a harmonic mean is less
    assert sum(count(result, "gradients")) == sum(row[1] for row in rows(result))  # nobody computes while sums travel
    assert sum(count(result, "discarded")) == 0


@pytest.mark.parametrize("name", METHODS)
@given(case=CASES, batch=BATCH)
@settings(EXACT, max_examples=15)
def test_an_edge_carries_one_vector_at_a_time_and_no_sum_is_empty(name, case, batch):
    departures, depart = [], Link.depart

    def seen(link, send):
        departures.append(
            (link.engine.time, (link.node.rank, link.to), send.charged[0], send.communicator, send.body)
        )
        depart(link, send)

    parameters = {"pivot": case.pivot} | with_batch(name, batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "depart", seen)
        result = run(name, parameters, case.seconds, case.edges, UPDATES, NOISY, STEPSIZE)
    assert len(departures) == result.trace["messages"][-1]
    free_at = {}
    for time, edge, size, _, _ in departures:
        assert free_at.get(edge, 0) <= time
        free_at[edge] = time + (round(case.edges[edge] * SECOND) if size else 0)
    down, up = tree_references.trees(case.n, case.edges, case.pivot)
    for _, (source, to), size, communicator, body in departures:
        upwards = communicator.index == 2  # all join the tree from the pivot first, then the one to it
        assert to == up[source] if upwards else source == down[to]
        if upwards and size and name != "tree_minibatch":  # a sum: its version, how many gradients it has, ...
            assert body[1] >= 1


# The trees are communicators.


def test_a_message_on_one_tree_is_never_received_on_the_other(simulate):
    # on a ring of one direction both trees of rank 0 have the edge 1 -> 2: down 0 -> 1 -> 2, up 1 -> 2 -> 0
    graph = directed_ring(3)
    network = Network(graph, dict.fromkeys(graph.edges, 1), [1.0] * 3)
    tag, heard = 7, []

    async def peer(node):
        down, up = node.join(network.tree_from(0)), node.join(network.tree_to(0))
        if node.rank == 1:
            down.send(2, tag, "down")
            await node.sleep(1)
            up.send(2, tag, "up")
            down.send(2, tag, "down again")
        elif node.rank == 2:
            waiting = up.recv(tag)
            await node.sleep(0.5)
            heard.append((waiting.done, [m.body for m in up.drain(tag)], [m.body for m in node.drain(tag)]))
            heard.append((await waiting, node.now()))
            heard.append([m.body for m in down.drain(tag)])
            await node.sleep(1)
            heard.append(([m.body for m in down.drain(tag)], up.drain(tag), node.drain(tag)))
            for wrong in (down, up):  # rank 2 is a leaf of the one, and has no edge to rank 1 on the other
                with pytest.raises(ValueError, match="no edge to rank 1"):
                    wrong.send(1, tag, "neither")
            return
        await node.recv(None)

    simulate(peer, peer, peer)
    assert heard == [
        (False, [], []),
        ((1, ("up",)), 1.0),
        [("down",)],
        ([("down again",)], [], []),
    ]


def test_neither_tree_takes_the_other_s_messages_for_a_rank_that_waits_on_both(simulate):
    # whichever receive is older, each gets what was sent on its own tree
    graph = directed_ring(3)
    network = Network(graph, dict.fromkeys(graph.edges, 1), [1.0] * 3)
    heard = {}

    def program(older):
        async def peer(node):
            trees = {"down": node.join(network.tree_from(0)), "up": node.join(network.tree_to(0))}
            if node.rank == 1:
                for name in ("up", "down"):
                    trees[name].send(2, 0, name)
            elif node.rank == 2:
                names = sorted(trees, key=lambda name: name != older)
                waiting = {name: trees[name].recv(0, source=1) for name in names}
                heard[older] = {name: (await waiting[name]).body for name in names}
                return
            await node.recv(None)

        return peer

    for older in ("down", "up"):
        simulate(*[program(older)] * 3)
    assert heard["down"] == heard["up"] == {"down": ("down",), "up": ("up",)}
