"""Stochastic gradient push in its forms: runs written out by hand, special cases that must coincide, the mass at every
event, what a loss of messages does, and an independent reference.

By hand: one dimension, f_i(x) = x^2/2 + ξ_i x with a fixed ξ_i, so that a gradient is the point plus a number of its
worker. A row is (rank, seconds, iteration, model) of everything that a rank shows.
"""

import math
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from heapq import heappop
from itertools import pairwise

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_traces import NOISY, noisy
from toy import NEVER, Toy, cells
from tree_references import END, Ranks

import mpibench.engines.simulation
from mpibench.engines.simulation import Simulation
from mpibench.errors import InvalidInput
from mpibench.node import SECOND, Engine, Link, Mailbox
from mpibench.runner import simulate
from mpibench.watch import Watch

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=40)
NAMES = ("sgp", "osgp", "osgp_running_sums")
OVERLAPPED = NAMES[1:]
X0 = {"metric": "x0", "values": [NEVER], "headline": NEVER}


def of_workers(*numbers):
    """A toy whose gradients are x plus a number of their worker 1, 2, ..."""
    return Toy(sample=lambda i, number: float(numbers[i - 1]))


def cell_of(name, parameters, seconds, links=None, updates=3, toy=None, graph=None, **more):
    """The cell of a toy, with ranks of these seconds per gradient."""
    tables = {"heterogeneity": {"links": links or {}}, "targets": X0, "stop": {"updates": updates}} | more
    if graph is not None:
        tables["graph"] = graph
    (cell,) = cells(name, {"stepsize": 0.5} | parameters, seconds, **tables)
    return replace(cell, problem=toy or Toy())


def shown(cell, seed=0):
    """(rank, seconds, iteration, model) of everything that the ranks of a run show to their watches, and its Result."""
    rows, call = [], Watch.__call__

    def noting(watch, k, x):
        rows.append((watch.node.rank, watch.engine.time / SECOND, k, float(x[0])))
        return call(watch, k, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watch, "__call__", noting)
        return rows, simulate(cell, seed)


def run(name, parameters, seconds, **more):
    return shown(cell_of(name, parameters, seconds, **more))[0]


def by_rank(rows):
    """rank -> [(seconds, model)] of its updates."""
    ranks = defaultdict(list)
    for rank, now, k, z in rows:
        if k:
            ranks[rank].append((now, z))
    return dict(ranks)


# By hand.


def test_sgp_by_hand():
    # Zero links, gradients x, x + 8, x - 16 in 1, 1, 4 s; rank i pushes to i + 1, i + 2, i + 1, ...
    # Step 0: numerators 32, 28, 40. Step 1, from models 36, 30, 34: 18, 11, 25. Step 2, from 14.5, 18, 21.5: 7.25, 5,
    # 18.75. Rank 1 is through with step 0 at 1 and pushes to rank 0 at 2, while that waits for step 0 of rank 2: what
    # comes from a later step is not mixed in
    rows = by_rank(run("sgp", {}, [1, 1, 4], updates=4, toy=of_workers(0, 8, -16)))
    assert rows[0][:3] == [(4, (32 + 40) / 2), (5, (18 + 11) / 2), (12, (7.25 + 18.75) / 2)]
    assert rows[1] == [(1, (28 + 32) / 2), (8, (11 + 25) / 2), (9, (5 + 7.25) / 2)]
    assert rows[2] == [(4, (40 + 28) / 2), (8, (25 + 18) / 2), (12, (18.75 + 5) / 2)]


@pytest.mark.parametrize(
    ("links", "seconds"),
    [
        ({"vector_seconds": 0.25}, (1, 2, 3, 4)),  # there before the next gradient ends
        ({"latency_seconds": 0.75}, (1, 2, 3, 4)),
        # sent at 1, there at 2.5, when step 1 may end; sent at 2, leaves at 2.5, there at 4
        ({"vector_seconds": 1.5}, (1, 2.5, 4, 5.5)),
        # sent at 1, there at 2.5; sent at 2, there at 3.5; sent at 3.5, there at 5, when step 3 may end
        ({"latency_seconds": 1.5}, (1, 2.5, 3.5, 5)),
    ],
)
@pytest.mark.parametrize("name", OVERLAPPED)
def test_what_is_pushed_at_a_step_is_added_at_the_next(name, links, seconds):
    # Numerators and weights after each step, of ranks 0 and 1 with gradients z and z + 8 and messages ->:
    # k = 0: 64 - 32 = 32, -> 16, 1/2;           64 - 36 = 28, -> 14, 1/2;   models 32, 28
    # k = 1: 16 - 16 = 0,  -> 0, 1/4, + 14, 1/2; 14 - 18 = -4, -> -2, 1/4, + 16, 1/2: both 14, 3/4
    # k = 2: 14 - 28/3 = 14/3, -> 7/3, 3/8, - 2, 1/4; 14 - 40/3 = 2/3, -> 1/3, 3/8, + 0, 1/4: both 1/3, 5/8
    # k = 3: 1/3 - 4/15 = 1/15, -> 1/30, 5/16, + 1/3, 3/8: 11/30, 11/16; 1/3 - 64/15 = -59/15, -> -59/30, + 7/3: both
    rows = by_rank(run(name, {"overlap": 1}, [1, 1], links=links, updates=4, toy=of_workers(0, 8)))
    for rank, first in ((0, 32), (1, 28)):
        if rank == 0:  # the first to end the run
            assert [now for now, _ in rows[rank]] == list(seconds)
        expected = [first, 14 / (3 / 4), (1 / 3) / (5 / 8), (11 / 30) / (11 / 16)]
        assert [z for _, z in rows[rank]] == pytest.approx(expected[: len(rows[rank])], rel=1e-14)
    assert len(rows[1]) >= 3


@pytest.mark.parametrize("name", OVERLAPPED)
def test_three_ranks_with_overlap_by_hand(name):
    # Gradients are 0, except the first: x = 64 - 32 = 32, 64 - 64 = 0 and 64 + 64 = 128. Rank i pushes half to i + 1 at
    # k = 0, and to i + 2 at k = 1; of k = 0 it has the message of i - 1 at k = 1, of k = 1 that of i - 2 at k = 2
    first = Toy(curvature=(0.0,), sample=lambda i, number: 2.0 * (32, 64, -64)[i - 1] if number == 0 else 0.0)
    rows, result = shown(cell_of(name, {}, [1, 1, 1], links={"latency_seconds": 0.5}, toy=first))
    expected = {
        # keeps 16, 0, 64; then 8, 0, 32 and adds 64, 16, 0; weights 3/4; then 36, 8, 16 and adds the 0, 32, 8 of
        # ranks 1, 2, 0: weights 3/8 + 1/4
        0: [32, (8 + 64) / 0.75, (36 + 0) / 0.625],
        1: [0, (0 + 16) / 0.75, (8 + 32) / 0.625],
        2: [128, (32 + 0) / 0.75, (16 + 8) / 0.625],
    }
    for rank, models in by_rank(rows).items():
        assert [z for _, z in models] == pytest.approx(expected[rank][: len(models)], rel=1e-14)
        assert [now for now, _ in models] == [1, 2, 3][: len(models)]
    assert (result.ages[:, 3] == result.ages[:, 2]).all() and (result.ages[:, 4] == 1).all()  # all of age 1


@pytest.mark.parametrize("name", OVERLAPPED)
def test_with_overlap_2_every_second_step_pushes(name):
    # k = 0: 32, -> 16, 1/2 and 28, -> 14, 1/2. Messages take 1.5 s: there at 2.5, added at k = 2 at the latest
    # k = 1: 16 - 16 = 0 and 14 - 18 = -4, weights 1/2: models 0 and -8
    # k = 2: 0 - 0, -> 0, 1/4, + 14, 1/2: 14, 3/4;  -4 - 0 = -4, -> -2, 1/4, + 16, 1/2: 14, 3/4
    rows = by_rank(run(name, {"overlap": 2}, [1, 1], links={"latency_seconds": 1.5}, toy=of_workers(0, 8)))
    assert rows[0] == [(1, 32), (2, 0), (3, 14 / 0.75)]
    assert rows[1] == [(1, 28), (2, -8)]


@pytest.mark.parametrize("name", OVERLAPPED)
def test_who_loses_patience_goes_on(name):
    # All from rank 1 to rank 0 is lost. Rank 0 waits at k = 1 from 2 to 2.75 and at k = 2 from 3.75 to 4.5
    # weights 1/2, 1/4, 1/8: numerators 32 -> 16; 16 - 16 = 0. Rank 1 has all of rank 0's messages in time
    with loss_of(lambda source, to, number: source == 1):
        rows = by_rank(run(name, {"patience_seconds": 0.75}, [1, 1], links={"latency_seconds": 0.5}, toy=Toy()))
    assert rows[0][:2] == [(1, 32), (2.75, 0)]
    # 32 -> 16; at k = 1 at 2: 0, + 16, 1/2: 16, 3/4; at k = 2 at 3: 16 - 32/3 = 16/3, -> 8/3, 3/8. Rank 0 has sent its
    # message of k = 1, which is 0 and 1/4, at 2: there at 2.5
    assert [now for now, _ in rows[1]] == [1, 2, 3]
    assert [z for _, z in rows[1]] == pytest.approx([32, 64 / 3, (8 / 3) / (5 / 8)], rel=1e-14)


def loss_of(lost):
    """A context in which link (source, to) loses its message `number` = 0, 1, ... where lost(source, to, number)."""

    def link(engine, node, to):
        numbers = iter(range(10**9))
        return Link(node, to, node.cluster.edge(node.rank, to), lambda: lost(node.rank, to, next(numbers)))

    patch = pytest.MonkeyPatch()
    patch.setattr(Engine, "link", link)
    return Restoring(patch)


class Restoring:
    def __init__(self, patch):
        self.patch = patch

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.patch.undo()


# Special cases.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("peers", ["one_peer", "graph"])
def test_one_rank_alone_is_sgd(name, peers):
    toy = Toy(sample=lambda i, number: noisy(0.0, i, number))
    alone = run(name, {"stepsize": 0.25, "peers": peers}, [2], updates=9, toy=toy)
    assert alone == run("minibatch_sgd", {"stepsize": 0.25}, [2], updates=9, toy=toy)


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_sgp_on_a_complete_graph_is_minibatch_sgd(n):
    toy = Toy(sample=noise)
    ranks = by_rank(run("sgp", {"peers": "graph"}, [1] * n, updates=9, toy=toy))
    ((times, points),) = [
        zip(*rows, strict=True) for rows in by_rank(run("minibatch_sgd", {}, [1] * n, updates=9, toy=toy)).values()
    ]
    assert len(ranks) == n
    for rows in ranks.values():
        assert len(rows) >= 8  # the first rank to have 9 ends the run
        assert [now for now, _ in rows] == list(times[: len(rows)])
        assert [z for _, z in rows] == pytest.approx(points[: len(rows)], rel=1e-13)


def noise(i, number):
    """A sample that has a mean of its own for each worker."""
    return float(8 * i + (5 * i + 3 * number) % 7)


@pytest.mark.parametrize("n", range(2, 18))
def test_one_peer_mixing_is_exact_after_log2_n_steps_if_n_is_a_power_of_2(n):
    # after the first gradient rank i has a numerator of 64 - i^2, and then there are no gradients
    first = Toy(curvature=(0.0,), sample=lambda i, number: 2.0 * (i - 1) ** 2 if number == 0 else 0.0)
    steps = (n - 1).bit_length()
    rows = run("sgp", {}, [1] * n, updates=steps + 1, toy=first)
    models = {rank: z for rank, _, k, z in rows if k == steps}
    mean = 64 - sum(i * i for i in range(n)) / n
    assert len(models) == n
    if n & (n - 1):
        assert max(abs(z - mean) for z in models.values()) > 0.1
    else:
        assert set(models.values()) == {mean}


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_found_on_a_directed_graph_whose_weights_keep_differing(name):
    # 0 -> 1 -> 2 -> 3 -> 0 and 0 -> 2; after the first gradients there are none
    edges = [{"source": i, "to": j} for i, j in ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2))]
    first = Toy(curvature=(0.0,), sample=lambda i, number: 2.0 * (i - 1) ** 2 if number == 0 else 0.0)
    graph = {"size": 4, "edges": edges}
    held_by = []

    def look(engine):
        held_by.append([held(node) for node in engine.nodes])

    watched(cell_of(name, {"peers": "graph"}, [1, 2, 1, 3], updates=100, toy=first, graph=graph), look)
    weights = [float(w) for _, w in held_by[-1]]
    assert max(weights) > 1.5 * min(weights)
    assert [float(x / w) for x, w in held_by[-1]] == pytest.approx([64 - (0 + 1 + 4 + 9) / 4] * 4, rel=1e-12)


@pytest.mark.parametrize(
    "parameters", [{}, {"overlap": 2}, {"overlap": 3, "peers": "graph"}, {"patience_seconds": 0.5}]
)
def test_without_loss_running_sums_change_nothing(parameters):
    # up to rounding, and as long as no message has to wait for its link
    plain, sums = (random_run(name, parameters, seed=1)[0] for name in OVERLAPPED)
    assert [row[:3] for row in plain] == [row[:3] for row in sums]
    assert [row[3] for row in plain] == pytest.approx([row[3] for row in sums], rel=1e-11, abs=1e-11)


class Single(Toy):
    """A toy of float32 vectors."""

    def vector(self, numbers):
        make = self.library.array if self.library is numpy else self.library.tensor
        return make(numbers, dtype=self.library.float32)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_totals_lose_no_mass_where_models_are_float32(library, monkeypatch):
    # a total of 2000 pushes is 1000 times as long as a model, and float32 would round it by 1e-4 of that at every push
    toy = Single((1.0,), (0.0,), library=pytest.importorskip(library))
    types, call = set(), Watch.__call__

    def noting(watch, k, x):
        types.add(str(x.dtype).removeprefix("torch."))
        return call(watch, k, x)

    monkeypatch.setattr(Watch, "__call__", noting)
    rows, _ = shown(cell_of("osgp_running_sums", {}, [1] * 4, updates=2000, toy=toy))
    assert max(abs(z - 1) for _, _, _, z in rows) < 1e-6
    assert types == {"float32"}


RANDOM = {"compute": {"profile": "exponential", "unit_seconds": 1.0}}


def random_cell(name, parameters, n=5, links=None, loss=0.0, updates=40, graph=None):
    """The cell of a toy with random times of computing and workers that disagree."""
    tables = {"heterogeneity": RANDOM | {"links": links or {}, "loss": {"probability": loss}}}
    if graph is not None:
        tables["graph"] = graph
    parameters = {"stepsize": 0.0625} | parameters
    (cell,) = cells(name, parameters, workers=n, targets=X0, stop={"updates": updates}, **tables)
    return replace(cell, problem=Toy(sample=noise))


def random_run(name, parameters, seed, **more):
    return shown(random_cell(name, parameters, **more), seed)


# Mass.


def watched(cell, look, seed=0):
    """The Result of a run in which look(engine) is called before every event."""
    engines = []
    loop, pop = Simulation.loop, mpibench.engines.simulation.heappop

    def noting(engine, *args):
        engines.append(engine)
        return loop(engine, *args)

    def looking(events):
        look(engines[-1])
        return pop(events)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Simulation, "loop", noting)
        patch.setattr(mpibench.engines.simulation, "heappop", looking)
        return simulate(cell, seed)


def held(node):
    """(numerator, weight) of a rank's suspended coroutine."""
    variables = next(iter(node.tasks)).coroutine.cr_frame.f_locals
    state = variables.get("mass")
    x, w = (state.x, state.w) if state is not None else (variables["x"], variables["w"])
    return Fraction(float(x[0])), Fraction(w)


def under_way(engine):
    """(numerator, weight) of each message that waits for its link, travels or is unread."""
    bodies = [send.body for send in engine.travelling()]
    for node in engine.nodes:
        bodies += [send.body for link in node.links.values() for send in link.waiting]
        bodies += [body for boxes in node.inboxes.values() for box in boxes.values() for _, body in box.queue if body]
    return [(Fraction(float(x[0])), Fraction(w)) for _, x, w in bodies]


def not_added(engine):
    """(numerator, weight) of each edge by which its totals exceed what was added of them."""
    states = [next(iter(node.tasks)).coroutine.cr_frame.f_locals["mass"] for node in engine.nodes]
    for i, state in enumerate(states):
        for j, (x, w) in state.sent.items():
            v, u = states[j].heard.get(i, ((0.0,), 0.0))
            yield Fraction(float(x[0])) - Fraction(float(v[0])), Fraction(w) - Fraction(u)


SLOW = {
    "none": {},
    "latency": {"latency_seconds": 0.7},
    "busy": {"latency_seconds": 0.1, "vector_seconds": 0.6},
}


@pytest.mark.parametrize("links", SLOW)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sgp", {}),
        ("sgp", {"peers": "graph"}),
        ("osgp", {}),
        ("osgp", {"overlap": 3}),
        ("osgp", {"patience_seconds": 0.2}),
        ("osgp_running_sums", {}),
        ("osgp_running_sums", {"overlap": 2}),
        ("osgp_running_sums", {"patience_seconds": 0.2}),
    ],
)
def test_without_loss_the_weights_and_what_is_under_way_sum_to_n(name, parameters, links):
    n, sums, seen = (4 if name == "sgp" else 5), name == "osgp_running_sums", []

    def look(engine):
        rest = list(not_added(engine) if sums else under_way(engine))
        seen.append((sum(held(node)[1] for node in engine.nodes) + sum(w for _, w in rest), bool(rest)))
        assert all(len(node.tasks) <= 3 for node in engine.nodes)  # no clocks are left of waits that have ended

    # shares of 1/2 and 1/4 are exact in binary, and so are sums of them, for as long as a weight needs 53 bits at most
    watched(random_cell(name, parameters, n, SLOW[links], updates=24), look, seed=2)
    assert len(seen) > 100 and any(rest for _, rest in seen)
    assert {total for total, _ in seen} == {n}


def test_the_mass_of_lost_messages_is_gone_unless_totals_are_sent():
    # the first gradients make numerators of 64 - i^2, and then there are none
    first = Toy(curvature=(0.0,), sample=lambda i, number: 2.0 * (i - 1) ** 2 if number == 0 else 0.0)
    n, totals, models = 5, {name: [] for name in OVERLAPPED}, {}
    for name in OVERLAPPED:

        def look(engine, name=name):
            rest = list(not_added(engine) if name == "osgp_running_sums" else under_way(engine))
            whole = [held(node) for node in engine.nodes] + rest
            totals[name].append([float(sum(part)) for part in zip(*whole, strict=True)])

        parameters = {"stepsize": 0.5, "patience_seconds": 0.5}
        cell = random_cell(name, parameters, n, {"latency_seconds": 0.1}, loss=0.3, updates=60)
        result = watched(replace(cell, problem=first), look)
        assert result.attrs["outcome"] == "budget"
        models[name] = result.trace["x0"][-1]
    mass = 64 * n - sum(i * i for i in range(n))
    weights = [w for _, w in totals["osgp"]]
    assert weights[0] == n and all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(weights))
    assert weights[-1] < n / 50 and totals["osgp"][-1][0] < mass / 50
    assert all(w == pytest.approx(n, rel=1e-12) for _, w in totals["osgp_running_sums"])
    assert totals["osgp_running_sums"][-1][0] == pytest.approx(mass, rel=1e-12)
    assert models["osgp_running_sums"] == pytest.approx(mass / n, rel=1e-4)
    assert abs(models["osgp"] - mass / n) > 0.05  # what was lost took another share of each rank's start


# Loss.


def lossy(name, parameters, probability, updates=400):
    """The Result of eight ranks with random times on a quadratic, the trace that of the mean model."""
    (cell,) = cells(
        name,
        {"stepsize": 0.1} | parameters,
        workers=8,
        problem={"name": "quadratic", "dimension": 10, "strong_convexity": 0.1, "noise": 0.01},
        heterogeneity=RANDOM | {"links": {"latency_seconds": 0.1}, "loss": {"probability": probability}},
        stop={"updates": updates},
        snapshot={"seconds": 10.0},
        record_updates=False,
        targets={"metric": "gap", "values": [1e-9], "headline": 1e-9},
    )
    return simulate(cell, seed=0)


@pytest.mark.parametrize("probability", [0.1, 0.3])
def test_under_loss_plain_osgp_fails_and_running_sums_do_not(probability):
    for name in OVERLAPPED:
        result = lossy(name, {"patience_seconds": 2.0}, probability)
        gap = result.trace["gap"]
        if name == "osgp":
            assert result.attrs["outcome"] == "diverged"
            assert not max(gap) < 1e6 * gap[0]  # nan also
        else:
            assert result.attrs["outcome"] == "budget"
            assert gap[-1] < 1e-3 * gap[0] and max(gap) == gap[0]
            assert gap[-1] < 20 * lossy(name, {"patience_seconds": 2.0}, 0.0).trace["gap"][-1]


@pytest.mark.parametrize("name", OVERLAPPED)
def test_loss_needs_an_end_to_patience_and_sgp_has_none(name):
    for method, parameters in (("sgp", {}), (name, {})):
        with pytest.raises(InvalidInput, match="needs every message"):
            random_cell(method, parameters, loss=0.1)
    assert random_cell(name, {"patience_seconds": 0.5}, loss=0.1).algorithm.tolerates_loss


# Waiting.


@given(
    name=st.sampled_from(OVERLAPPED),
    n=st.integers(2, 6),
    tau=st.integers(1, 4),
    peers=st.sampled_from(["one_peer", "graph"]),
    links=st.sampled_from(sorted(SLOW)),
    seed=st.integers(0, 99),
)
@EXACT
def test_no_message_is_added_more_than_tau_steps_late(name, n, tau, peers, links, seed):
    result = random_run(name, {"overlap": tau, "peers": peers}, seed, n=n, links=SLOW[links], updates=12)[1]
    assert len(result.ages) and result.ages[:, 4].max() <= tau


def test_without_patience_messages_come_as_late_as_they_are():
    late = random_run("osgp", {"patience_seconds": 0.0}, 0, links={"latency_seconds": 5.0})[1]
    assert late.ages[:, 4].max() > 3


@pytest.mark.parametrize(
    ("name", "parameters", "most"),
    [
        ("osgp", {}, 4),  # what the others push before they have to wait for its next push, or for one who waits for it
        ("osgp_running_sums", {}, 2),  # one message of each of two sources
        ("osgp_running_sums", {"patience_seconds": 0.0}, 2),
    ],
)
def test_a_rank_that_is_100_times_slower_is_not_flooded(name, parameters, most, monkeypatch):
    unread, put = [], Mailbox.put

    def counting(box, source, body):
        put(box, source, body)
        unread.append(sum(item[1] is not None for item in box.queue))

    monkeypatch.setattr(Mailbox, "put", counting)
    links = {"vector_seconds": 0.5}
    result = simulate(
        cell_of(name, parameters, [1, 1, 1, 100], links=links, updates=None, stop={"seconds": 1000}), seed=0
    )
    assert max(unread) == most
    assert result.ranks["gradients"][3] == 10
    assert (result.ranks["gradients"][0] > 900) == bool(parameters)


# Graphs.


def test_graphs_that_do_not_fit_are_refused():
    ring = {"name": "ring"}
    line = {"size": 3, "edges": [{"source": 0, "to": 1}, {"source": 1, "to": 2}]}
    for name in NAMES:
        with pytest.raises(InvalidInput, match=r'pushes along 0 -> 2, which the graph lacks; peers = "graph"'):
            cell_of(name, {}, [1] * 5, graph=ring)
        with pytest.raises(InvalidInput, match="strongly connected"):
            cell_of(name, {"peers": "graph"}, [1] * 3, graph=line)
        cell_of(name, {"peers": "graph"}, [1] * 5, graph=ring)
        cell_of(name, {}, [1] * 5, graph={"name": "one_peer_exponential"})
        cell_of(name, {}, [1] * 3, graph=ring)  # rank i pushes to i + 1 and i + 2


# An independent reference.


class PushSum(Ranks):
    """The three methods in scalars, event by event, from the listings: x and w are what a rank holds, z is its model.

    to(i, k) -> ranks that get push k = 0, 1, ... of rank i; lost(source, to, number) of the messages of an edge in the
    order sent. `shown` are (rank, seconds, iteration, model).
    """

    def __init__(self, name, n, seconds, edges, z, stepsize, tau, patience, to, lost, updates):
        super().__init__(seconds, edges, noisy)
        self.name, self.stepsize, self.tau, self.patience = name, stepsize, tau, patience
        self.to, self.lost, self.updates = to, lost, updates
        self.x, self.w, self.z, self.k = [z] * n, [1.0] * n, [z] * n, [0] * n
        self.inbox = [[] for _ in range(n)]  # [source, step, numerator, weight]
        self.missing = [None] * n  # {source: step} of what a rank waits for
        self.waits = [0] * n
        self.newest = [{} for _ in range(n)]
        self.pushed, self.added = defaultdict(lambda: (0.0, 0.0)), defaultdict(lambda: (0.0, 0.0))  # by edge
        self.arrived = defaultdict(int)
        self.shown, self.over = [], False
        for i in range(n):
            self.show(i)
        while not self.over:
            self.now, _, _, _, happen, args = heappop(self.events)
            happen(*args)

    def show(self, i):
        self.shown.append((i, self.now, self.k[i], self.z[i]))
        if self.k[i] == self.updates:
            self.over = True
        else:
            self.begin(i, self.descend)

    def descend(self, i, number):
        k = self.k[i]
        self.x[i] -= self.stepsize * self.gradient(self.z[i], i + 1, number)
        if k % self.tau == 0:
            to = self.to(i, k // self.tau)
            p = 1 / (1 + len(to))
            self.x[i], self.w[i] = p * self.x[i], p * self.w[i]
            for j in to:
                x, w = self.x[i], self.w[i]
                if self.name == "osgp_running_sums":
                    x, w = self.pushed[i, j] = self.pushed[i, j][0] + x, self.pushed[i, j][1] + w
                self.send(i, j, self.arrive, (k, x, w), newest_only=self.name == "osgp_running_sums")
        if self.name == "sgp":
            self.missing[i] = {j: k for j in range(self.n) if i in self.to(j, k)}
            self.collect(i)
            return
        messages, self.inbox[i] = self.inbox[i], []
        for message in messages:
            self.add(i, *message)
        self.missing[i] = {}
        if k >= self.tau and k % self.tau == 0:
            due = k - self.tau
            self.missing[i] = {j: due for j in range(self.n) if i in self.to(j, due // self.tau)}
        self.proceed(i, first=True)

    def arrive(self, i, j, k, x, w):
        self.arrived[j, i] += 1
        if self.lost(j, i, self.arrived[j, i] - 1):
            return
        if self.name == "sgp" or self.missing[i] is None:
            older = [message for message in self.inbox[i] if message[0] == j]
            if self.name == "osgp_running_sums" and older:
                older[0][1:] = k, x, w
            else:
                self.inbox[i].append([j, k, x, w])
            if self.name == "sgp" and self.missing[i] is not None:
                self.collect(i)
        else:
            self.add(i, j, k, x, w)
            self.proceed(i)

    def collect(self, i):
        """SGP: all messages of this step together, in the order of ranks."""
        ours = sorted(m for m in self.inbox[i] if self.missing[i].get(m[0]) == m[1])
        if len(ours) == len(self.missing[i]):
            for message in ours:
                self.inbox[i].remove(message)
                self.add(i, *message)
            self.finish(i)

    def add(self, i, j, k, x, w):
        v, u = self.added[j, i]
        self.x[i] += x - v
        self.w[i] += w - u
        self.newest[i][j] = k
        if self.name == "osgp_running_sums":
            self.added[j, i] = x, w

    def proceed(self, i, first=False):
        if all(self.newest[i].get(j, -1) >= k for j, k in self.missing[i].items()):
            self.finish(i)
        elif first and self.patience is not None:
            self.at(self.now + self.patience, i, END, self.enough, i, self.waits[i])

    def enough(self, i, number):
        if self.waits[i] == number:
            self.finish(i)

    def finish(self, i):
        self.waits[i] += 1
        self.missing[i] = None
        self.z[i] = self.x[i] / self.w[i]
        self.k[i] += 1
        self.show(i)


def one_peer(n):
    """(i, k) -> the rank that gets push k = 0, 1, ... of rank i."""
    length = int(math.log2(n - 1)) + 1
    return lambda i, k: [(i + 2 ** (k % length)) % n]


QUARTERS = st.integers(1, 16).map(lambda quarters: quarters / 4)


@given(data=st.data(), name=st.sampled_from(NAMES), n=st.integers(2, 6))
@settings(EXACT, max_examples=150)
def test_as_the_reference_bit_for_bit(data, name, n):
    seconds = data.draw(st.lists(QUARTERS, min_size=n, max_size=n))
    times = st.integers(0, 20).map(lambda quarters: quarters / 4)
    peers = data.draw(st.sampled_from(["one_peer", "graph"]))
    # a ring, and any other edges: weights differ in the long run, too
    present = [(i, j) for i in range(n) for j in range(n) if i != j and (j == (i + 1) % n or data.draw(st.booleans()))]
    if peers == "one_peer":
        present = [(i, j) for i in range(n) for j in range(n) if i != j]
    edges = {edge: data.draw(times) for edge in present}
    parameters, modulus = {"stepsize": 0.25, "peers": peers}, None
    if name != "sgp":
        patience = data.draw(st.none() | st.integers(0, 8).map(lambda quarters: quarters / 4))
        parameters |= {"overlap": data.draw(st.integers(1, 3)), "patience_seconds": patience}
        modulus = None if patience is None else data.draw(st.sampled_from([None, 2, 3, 5]))
        parameters = {key: value for key, value in parameters.items() if value is not None}

    def lost(source, to, number):
        return modulus is not None and (3 * source + 5 * to + number + number // 3) % modulus == 0

    graph = {"size": n, "edges": [{"source": i, "to": j, "vector_seconds": s} for (i, j), s in edges.items()]}
    cell = cell_of(name, parameters, seconds, updates=12, toy=NOISY, graph=graph)
    with loss_of(lost):
        rows, _ = shown(cell)
    tau, patience = parameters.get("overlap", 1), parameters.get("patience_seconds")
    to = one_peer(n) if peers == "one_peer" else lambda i, k: [j for j in range(n) if (i, j) in edges]
    reference = PushSum(name, n, seconds, edges, 3.0, 0.25, tau, patience, to, lost, updates=12)
    assert rows == reference.shown
