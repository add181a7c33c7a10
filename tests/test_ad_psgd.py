"""AD-PSGD and its bipartite form: runs written out by hand, the sum of models at every event, deadlocks and their cure,
and an independent reference.

By hand: one dimension, f(x) = x^2/2 unless it says otherwise, so that a gradient is the point it is computed at. A row
is (seconds, rank, own updates so far, model) of every update of every rank, the starts left out.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_traces import CURVATURE, NOISY, noisy, rows
from test_traces import run as run_on_a_server
from toy import NEVER, Toy, ToyObjective, cells

from mpibench import topology
from mpibench.algorithms.ad_psgd import ADPSGD, Tag
from mpibench.errors import InvalidInput
from mpibench.node import SECOND, Communicator, Deadlock
from mpibench.peers import PeerWatch
from mpibench.runner import simulate as simulated
from mpibench.seeds import Purpose, generator
from mpibench.watch import Watch

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=60)
BOTH = pytest.mark.parametrize("name", ["ad_psgd", "ad_psgd_bipartite"])
FLAT = (0.0,)  # the curvature of a function whose gradients are its samples


def cell_of(name, seconds, graph=None, links=None, toy=None, stepsize=0.25, compute=None, **tables):
    """The cell of a toy on a graph; `seconds` of a gradient of rank 0, 1, ..., or a `compute` profile."""
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    compute = compute or {"profile": "fixed", "seconds": [float(s) for s in seconds]}
    tables = {"workers": len(seconds), "targets": targets, "stop": {"updates": 5}} | tables
    tables |= {"heterogeneity": {"compute": compute, "links": links or {}}} | ({"graph": graph} if graph else {})
    (cell,) = cells(name, {"stepsize": stepsize}, **tables)
    return replace(cell, problem=toy or Toy())


@dataclass
class Seen:
    """What a run did: rows of updates, (seconds, source, to, tag) of every message given to a link, and its Result."""

    rows: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    result: object = None

    def asked(self, rank):
        """Whom this rank has asked, in order."""
        return [to for _, source, to, tag in self.sent if (source, tag) == (rank, Tag.REQUEST)]


def seen(cell, seed=0, each=lambda watch: None):
    """Run a cell and look; `each(watch)` is called at every update of any rank."""
    found, send = Seen(), Communicator.send

    def noting(show):
        def note(watch, k, x):
            if k:
                found.rows.append((watch.engine.time / SECOND, watch.node.rank, k, float(x[0])))
                each(watch)
            return show(watch, k, x)

        return note

    def noting_send(edges, to, tag, *body, **more):
        found.sent.append((edges.node.engine.time / SECOND, edges.node.rank, to, tag))
        return send(edges, to, tag, *body, **more)

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Watch, PeerWatch):
            patch.setattr(kind, "__call__", noting(kind.__call__))
        patch.setattr(Communicator, "send", noting_send)
        found.result = simulated(cell, seed)
    return found


def of_ranks(*numbers):
    """A flat toy: the first gradient of rank 0, 1, ... is this number, all others are 0."""
    return Toy(curvature=FLAT, sample=lambda i, number: 0.0 if number else float(numbers[i - 1]))


# By hand.

TWO = [  # ranks of 2 s and 3 s; a vector takes 0.5 s either way
    (2.0, 0, 1, 48.0),  # 64 - 64/4; sends 48
    (2.5, 1, 1, 56.0),  # 64 + (48 - 64)/2; sends 64
    (3.0, 0, 2, 56.0),  # 48 + (64 - 48)/2
    (3.0, 1, 2, 40.0),  # 56 - 64/4: it began before 56 was there; sends 40
    (3.5, 0, 3, 48.0),  # 56 + (40 - 56)/2; sends 56
    (4.0, 0, 4, 36.0),  # 48 - 48/4; sends 36
    (4.0, 1, 3, 48.0),  # 40 + (56 - 40)/2
    (4.5, 1, 4, 42.0),  # 48 + (36 - 48)/2; sends 48
    (5.0, 0, 5, 42.0),  # 36 + (48 - 36)/2
    (6.0, 0, 6, 33.0),  # 42 - 36/4; sends 33, while
    (6.0, 1, 5, 32.0),  # 42 - 40/4; sends 32
    (6.5, 0, 7, 32.5),  # 33 + (32 - 33)/2; sends 33, what it has sent before
    (6.5, 1, 6, 32.5),  # 32 + (33 - 32)/2; sends 32
    (7.0, 0, 8, 32.0),  # 32.5 + (32 - 33)/2: requests that cross make two averagings, which exchange the models
    (7.0, 1, 7, 33.0),  # 32.5 + (33 - 32)/2
]


def test_two_ranks_by_hand():
    found = seen(cell_of("ad_psgd", [2, 3], links={"vector_seconds": 0.5}, stop={"seconds": 7.25}))
    assert found.rows == TWO
    assert found.sent == [
        *[(2.0, 0, 1, Tag.REQUEST), (2.5, 1, 0, Tag.ANSWER), (3.0, 1, 0, Tag.REQUEST), (3.5, 0, 1, Tag.ANSWER)],
        *[(4.0, 0, 1, Tag.REQUEST), (4.5, 1, 0, Tag.ANSWER), (6.0, 0, 1, Tag.REQUEST), (6.0, 1, 0, Tag.REQUEST)],
        *[(6.5, 0, 1, Tag.ANSWER), (6.5, 1, 0, Tag.ANSWER)],
    ]
    # delays: at 2 and 6 of rank 0, which has taken means at 3 and 3.5 before 4, at 5 before 6; at 3 and 6 of rank 1
    assert found.result.updates["staleness"].tolist() == [0, 0, 0, 2, 0, 1, 0, 0]
    assert found.result.updates["staleness_seconds"].tolist()[3] == 2  # since the gradient began
    assert found.result.updates["staleness_histogram"].tolist() == [1, 2, 2]
    assert found.result.ranks["used"].tolist() == [3, 2]
    # from rank 1 to 0: answers at 3, 5 and 7, and only the last has been overtaken, by a request; requests at 3.5 and
    # 6.5. From rank 0 to 1: answers at 4 and 7, the last overtaken; requests at 2.5, 4.5 and 6.5
    assert found.result.ages.tolist() == [[1, 0, 5, 1, 1], [0, 1, 5, 1, 1]]


@pytest.mark.parametrize(("updates", "messages"), list(enumerate([0, 2, 4, 4, 6, 6, 9, 10], 1)))
def test_a_run_ends_with_the_first_rank_at_its_last_update_whatever_made_it(updates, messages):
    found = seen(cell_of("ad_psgd", [2, 3], links={"vector_seconds": 0.5}, stop={"updates": updates}))
    ends = next(place for place, row in enumerate(TWO) if row[2] == updates)
    assert found.rows == TWO[: ends + 1]
    assert found.result.attrs["seconds"] == TWO[ends][0]
    assert found.result.trace["updates"][-1] == updates  # of rank 0
    assert found.result.ranks["messages_sent"].sum() == len(found.sent) == messages  # none after the end


@BOTH
def test_a_run_that_is_at_its_target_ends_at_once(name):
    cell = cell_of(name, [1, 1])
    found = seen(replace(cell, stop=replace(cell.stop, metrics={"x0": 100.0})))
    assert (found.rows, found.sent, found.result.attrs["seconds"]) == ([], [], 0)


def test_two_ranks_of_the_bipartite_form_by_hand():
    found = seen(cell_of("ad_psgd_bipartite", [2, 3], links={"vector_seconds": 1.25}, stop={"updates": 5}))
    assert found.rows == [
        (2.0, 0, 1, 48.0),  # 64 - 64/4
        (3.0, 1, 1, 48.0),  # 64 - 64/4; sends 48, to nobody's surprise
        (4.0, 0, 2, 36.0),  # 48 - 48/4
        (4.25, 0, 3, 42.0),  # 36 + (48 - 36)/2; sends 36
        (5.5, 1, 2, 42.0),  # 48 + (36 - 48)/2
        (6.0, 0, 4, 33.0),  # 42 - 36/4: it began before 42 was there
        (6.0, 1, 3, 30.0),  # 42 - 48/4; sends 30
        (7.25, 0, 5, 31.5),  # 33 + (30 - 33)/2
    ]
    assert found.result.updates["staleness"].tolist() == [0, 0, 0, 1, 0]
    assert found.result.ages.tolist() == [[1, 0, 2, 0, 0], [0, 1, 1, 0, 0]]


def seed_with(draws):
    """A seed with which rank 0, 1, ... draws this one of its two neighbours first."""
    first = lambda seed: [int(generator(seed, Purpose.METHOD, rank + 1).integers(2)) for rank in range(len(draws))]  # noqa: E731
    return next(seed for seed in count() if first(seed) == draws)


def test_three_ranks_that_ask_in_a_circle_by_hand():
    # gradients 16, 32, 64 end at 1 s: models -4, -8, -16, and rank 0 asks 1, which asks 2, which asks 0
    cell = cell_of("ad_psgd", [1, 1, 1], toy=replace(of_ranks(16, 32, 64), x=(0.0,)), links={"latency_seconds": 0.25})
    found = seen(replace(cell, stop=replace(cell.stop, updates=3)), seed=seed_with([0, 1, 0]))
    assert [found.asked(rank) for rank in range(3)] == [[1], [2], [0]]
    assert found.rows[:-1] + [(1.5, 0, 3, -12.0)] == [
        *[(1.0, 0, 1, -4.0), (1.0, 1, 1, -8.0), (1.0, 2, 1, -16.0)],
        (1.25, 0, 2, -10.0),  # -4 + (-16 + 4)/2, asked by rank 2
        (1.25, 1, 2, -6.0),  # -8 + (-4 + 8)/2, asked by rank 0
        (1.25, 2, 2, -12.0),  # -16 + (-8 + 16)/2, asked by rank 1
        (1.5, 0, 3, -12.0),  # -10 + (-8 + 4)/2: what rank 1 had, less what rank 0 had
    ]
    assert found.rows[-1] == (1.5, 0, 3, -12.0)


# Deadlocks.


class Blocking(IntEnum):
    REQUEST = 0
    ANSWER = 1


def test_without_answers_while_waiting_three_ranks_hang_in_a_circle_and_two_that_ask_each_other(simulate):
    def waits(asks):
        async def program(node):
            node.send(asks, Blocking.REQUEST, node.rank)
            await node.recv(Blocking.ANSWER)  # and only then is it there for others
            i, _ = await node.recv(Blocking.REQUEST)
            node.send(i, Blocking.ANSWER, node.rank)

        return program

    async def passive(node):
        i, _ = await node.recv(Blocking.REQUEST)
        node.send(i, Blocking.ANSWER, node.rank)

    with pytest.raises(Deadlock, match=r"rank 2: .* recv of tag <Blocking.ANSWER"):
        simulate(waits(1), waits(2), waits(0))
    with pytest.raises(Deadlock):
        simulate(waits(1), waits(0))
    assert simulate(waits(1), passive).ended_by is not None


@pytest.mark.parametrize(("draws", "circle"), [([0, 1, 0], [1, 2, 0]), ([1, 0, 1], [2, 0, 1])])
def test_ad_psgd_does_not_hang_in_a_circle(draws, circle):
    cell = cell_of("ad_psgd", [1, 1, 1], {"name": "ring"}, {"vector_seconds": 0.25}, stop={"updates": 90})
    found = seen(cell, seed=seed_with(draws))
    assert found.sent[:3] == [(1.0, rank, circle[rank], Tag.REQUEST) for rank in range(3)]
    assert max(row[2] for row in found.rows) == 90


# The sum of models.


@dataclass(frozen=True)
class Adding(Toy):
    """A toy that adds up the gradients that it gives."""

    total: list = field(default_factory=lambda: [0.0])

    def objective(self, i):
        return AddingObjective(self, i)


class AddingObjective(ToyObjective):
    def gradient(self, x, ξ):
        g = super().gradient(x, ξ)
        self.toy.total[0] += float(g[0])
        return g


def coroutines(node, name):
    """The coroutines of this name on a rank."""
    return [task.coroutine for task in node.tasks if task.coroutine.cr_code.co_name == name]


class Balance:
    """Σ x_i and what is still to come from answers under way, (x_j - x_i) / 2 as sent, at every update of any rank:
    nothing but gradients may change it."""

    def __init__(self, toy, stepsize=0.25, rounding=0.0):
        self.toy, self.stepsize, self.rounding = toy, stepsize, rounding
        self.updates = self.under_way = 0
        self.answers = {}  # rank that waits -> x_j

    def __call__(self, watch):
        nodes = watch.engine.nodes
        models = [of.cr_frame.f_locals["model"].x for node in nodes for of in coroutines(node, "answers")]
        pending = []
        for node in nodes:
            for waits in coroutines(node, "average"):
                x_j = self.answers.get(node.rank)
                if x_j is not None and not waits.cr_running:  # one that runs has added it
                    pending.append((x_j - float(waits.cr_frame.f_locals["sent"][0])) / 2)
        expected = len(nodes) * self.toy.x[0] - self.stepsize * self.toy.total[0]
        assert len(models) == len(nodes)
        assert abs(sum(float(x[0]) for x in models) + sum(pending) - expected) <= self.rounding
        self.updates += 1
        self.under_way += len(pending)

    def run(self, cell, seed=0):
        """The run of a cell, watched."""
        send = Communicator.send

        def noting(edges, to, tag, *body, **more):
            self.answers |= {edges.node.rank: None} if tag == Tag.REQUEST else {to: float(body[0][0])}
            return send(edges, to, tag, *body, **more)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Communicator, "send", noting)
            return seen(cell, seed, each=self)


UNEVEN = {  # a line of four with links of its own
    "size": 4,
    "edges": [
        {"source": i, "to": j, "vector_seconds": tx, "latency_seconds": latency}
        for i, j, tx, latency in (
            *[(0, 1, 0.5, 0.0), (1, 0, 1.75, 0.25), (1, 2, 0.0, 0.5)],
            *[(2, 1, 0.25, 0.0), (2, 3, 3.0, 0.0), (3, 2, 0.0, 0.0)],
        )
    ],
}


@BOTH
def test_averaging_keeps_the_sum_of_models_to_the_last_bit(name):
    # only the first gradient of a rank is not 0; the models are dyadic fractions, exact for 40 averagings
    toy = Adding((0.0,), FLAT, of_ranks(16, 32, -64, 128).sample)
    balance = Balance(toy)
    found = balance.run(cell_of(name, [1, 1.5, 0.75, 2], UNEVEN, toy=toy, stop={"updates": 20}))
    averagings = sum(tag == Tag.ANSWER for *_, tag in found.sent)
    assert 5 < averagings < 40 and balance.under_way > 5 and balance.updates == len(found.rows) > 30
    assert toy.total == [112.0]


@BOTH
@pytest.mark.parametrize("seed", range(4))
def test_gradients_alone_change_the_sum_of_models(name, seed):
    toy = Adding((3.0,), (CURVATURE,), NOISY.sample)
    balance = Balance(toy, rounding=1e-11)
    profile = {"profile": "exponential", "unit_seconds": 1.0}
    found = balance.run(cell_of(name, [1] * 4, UNEVEN, toy=toy, compute=profile, stop={"updates": 200}), seed)
    assert balance.updates == len(found.rows) > 400 and balance.under_way > 100


@dataclass(frozen=True)
class Overwriting(ADPSGD):
    """The mean takes the place of the models, whatever has happened meanwhile."""

    async def average(self, edges, model, j):
        sent = model.x
        edges.send(j, Tag.REQUEST, sent)
        _, (x_j,) = await edges.recv(Tag.ANSWER, source=j)
        model.add((x_j + sent) / 2 - model.x)


def test_where_the_mean_overwrites_a_model_the_sum_is_not_kept():
    toy = Adding((3.0,), (CURVATURE,), NOISY.sample)
    cell = replace(cell_of("ad_psgd", [1] * 4, UNEVEN, toy=toy), algorithm=Overwriting(0.25))
    with pytest.raises(AssertionError, match=r"<= 1e-11"):
        Balance(toy, rounding=1e-11).run(replace(cell, stop=replace(cell.stop, updates=200)))


def test_the_trace_of_the_mean_moves_by_gradients_only():
    # links take no time, so at the instants of the grid nothing is under way; -1/4 of a gradient, 1/4 of four ranks
    toy = Toy((0.0,), FLAT, lambda i, number: 16.0 * i)
    cell = cell_of("ad_psgd", [1, 2, 3, 4], toy=toy, snapshot={"seconds": 0.75}, stop={"seconds": 12.1})
    result = simulated(cell, seed=1)
    times = result.trace["time"].tolist()
    of_gradients = [-sum(i * (t // i) for i in (1, 2, 3, 4)) for t in times]
    assert len(times) == 18 and result.trace["consensus"].max() > 1
    assert result.trace["x0"].tolist() == of_gradients


# What the method promises.


@BOTH
def test_a_rank_has_at_most_one_request_that_is_not_answered(name):
    # 1.25 s there and back: asked at 1, answered at 3.5, asked again with the gradient of 4, and so on
    cell = cell_of(name, [100, 1], links={"vector_seconds": 1.25}, stop={"seconds": 11.5})
    found = seen(cell)
    assert [time for time, source, *_, tag in found.sent if (source, tag) == (1, Tag.REQUEST)] == [1, 4, 7, 10]
    assert found.result.ranks["used"].tolist() == [0, 11]


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_partners_are_drawn_uniformly_by_the_ranks_own_randomness(name, seed):
    graph = {"name": "bipartite_exponential"}
    neighbours = topology.build(graph, 8).destinations
    fast, slow = (
        seen(cell_of(name, seconds, graph, links, stop={"updates": 150}), seed)
        for seconds, links in (([1] * 8, {}), ([1, 3, 2, 1, 5, 1, 2, 2], {"latency_seconds": 0.7}))
    )
    for rank in range(8):
        active = name == "ad_psgd" or rank % 2
        rng = generator(seed, Purpose.METHOD, rank + 1)
        drawn = [neighbours(rank)[int(rng.integers(len(neighbours(rank))))] for _ in range(60 if active else 0)]
        for found in (fast, slow):
            asked = found.asked(rank)
            assert asked[:60] == drawn[: len(asked)] and (len(asked) > 5 if active else not asked)
            assert len(asked) < 30 or set(asked) == set(neighbours(rank))


def test_odd_ranks_ask_and_even_ones_answer():
    cell = cell_of("ad_psgd_bipartite", [1, 2, 3, 1, 2], links={"vector_seconds": 0.3}, stop={"updates": 60})
    found = seen(cell)  # on the complete graph
    assert len(found.sent) > 60
    assert {(source % 2, to % 2) for _, source, to, tag in found.sent if tag == Tag.REQUEST} == {(1, 0)}
    assert {(source % 2, to % 2) for _, source, to, tag in found.sent if tag == Tag.ANSWER} == {(0, 1)}
    assert {to for rank in (1, 3) for to in found.asked(rank)} == {0, 2, 4}


@BOTH
def test_one_rank_is_sgd(name):
    ours = simulated(cell_of(name, [2], toy=NOISY, stepsize=0.1, stop={"updates": 30}), seed=0)
    server = run_on_a_server("minibatch_sgd", {"stepsize": 0.1}, [2], updates=30, toy=NOISY)
    assert [row[0::3] for row in rows(ours)] == [row[0::3] for row in rows(server)]
    assert ours.ranks["messages_sent"].tolist() == [0]


@BOTH
def test_a_straggler_does_not_slow_the_others_and_is_taken_along(name):
    seconds = [1, 1, 100, 1]
    cell = cell_of(name, seconds, stop={"seconds": 50.5}, snapshot={"seconds": 10.0}, links={"vector_seconds": 0.1})
    found = seen(cell)
    assert found.result.ranks["gradients"].tolist() == found.result.ranks["used"].tolist() == [50, 50, 0, 50]
    last = {rank: x for _, rank, _, x in found.rows}
    assert set(last) == {0, 1, 2, 3} and max(map(abs, last.values())) < 1  # from 64, rank 2 by averaging alone


@BOTH
def test_the_mean_converges_where_ranks_have_functions_of_their_own(name):
    # f_i(x) = x^2/2 + a_i x with a = 1, 2, ..., 8: the minimum of the mean is at -4.5
    toy = Toy((64.0,), (1.0,), lambda i, number: float(i))
    profile = {"profile": "exponential", "unit_seconds": 1.0}
    graph, links = {"name": "ring"}, {"vector_seconds": 0.2}
    settings_ = {"stop": {"seconds": 2000.0}, "snapshot": {"seconds": 1.0}}
    result = simulated(cell_of(name, [1] * 8, graph, links, toy, 0.02, profile, **settings_), seed=0)
    tail = slice(1000, None)
    assert result.trace["x0"][0] == 64
    assert result.trace["x0"][tail].mean() == pytest.approx(-4.5, abs=0.05)
    assert abs(result.trace["x0"][tail] + 4.5).max() < 0.5
    assert result.trace["consensus"][tail].mean() < 0.1 * 5.25  # of the minima of the ranks


def test_fast_ranks_count_more():
    # minima 8 and -8, gradients in 1 s and 3 s: the common one is where 3 (x - 8) + (x + 8) = 0
    toy = Toy((0.0,), (1.0,), lambda i, number: -8.0 if i == 1 else 8.0)
    settings_ = {"stop": {"seconds": 3000.5}, "snapshot": {"seconds": 1.0}}
    result = simulated(cell_of("ad_psgd", [1, 3], toy=toy, stepsize=0.01, **settings_), seed=0)
    assert result.trace["x0"][-600:].mean() == pytest.approx(4.0, abs=0.1)


# What is refused.


@pytest.mark.parametrize(
    ("name", "graph", "n", "says"),
    [
        ("ad_psgd", {"name": "directed_ring"}, 4, r"edge 0 -> 1 has no way back; add 1 -> 0"),
        ("ad_psgd_bipartite", {"name": "directed_ring"}, 4, r"edge 0 -> 1 has no way back"),
        ("ad_psgd_bipartite", {"name": "ring"}, 3, r"edge 0 - 2 joins two even ranks.*an even ring, a line or"),
        ("ad_psgd_bipartite", {"name": "ring"}, 5, r"edge 0 - 4 joins two even ranks, but even ranks only answer"),
        ("ad_psgd_bipartite", {"name": "star", "centre": 1}, 4, r"edge 1 - 3 joins two odd ranks"),
        ("ad_psgd_bipartite", {"name": "exponential"}, 4, r"has no way back"),
    ],
)
def test_graphs_that_are_refused(name, graph, n, says):
    with pytest.raises(InvalidInput, match=rf"\[\[algorithm\]\] {name}.*{says}") as refusal:
        cell_of(name, [1] * n, graph)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("graph", "n"),
    [(None, 1), (None, 3), (None, 4), ({"name": "line"}, 5), ({"name": "ring"}, 6), ({"name": "complete"}, 5)]
    + [({"name": "bipartite_exponential"}, n) for n in (2, 4, 10)],
)
def test_graphs_on_which_the_bipartite_form_runs(graph, n):
    found = seen(cell_of("ad_psgd_bipartite", [1] * n, graph, {"vector_seconds": 0.5}, stop={"updates": 100}))
    edges = topology.build(graph or {"name": "complete"}, n).edges
    pairs = {(source, to) for _, source, to, _ in found.sent}
    assert pairs == {edge for edge in edges if sum(edge) % 2}


# An independent reference.


class Reference:
    """AD-PSGD with fixed seconds: a list of events and a few arrays.

    edges (source, to) -> (transmission, latency) seconds; `asks(rank)` the ranks that it may ask; `draw(rank, m)` its
    next number below m. An event is (seconds, rank, kind), where arrivals have their source for a kind and are before
    ends of gradients.
    """

    END = 1 << 20

    def __init__(self, seconds, edges, asks, draw, x, stepsize, updates):
        n = len(seconds)
        self.events, self.age, self.free_at = [], count(), defaultdict(float)
        self.x, self.t, self.sent, self.t_sent = [x] * n, [0] * n, [None] * n, [0] * n
        self.rows, self.delays, self.ages = [], defaultdict(int), defaultdict(list)
        self.edges, number = edges, [0] * n
        began = [(0, x)] * n
        for rank in range(n):
            self.at(seconds[rank], rank, self.END, "gradient", None)
        while max(self.t) < updates:
            now, i, kind, _, what, y = heappop(self.events)
            if what == "gradient":
                (t, point), g = began[i], None
                g = noisy(point, i + 1, number[i])
                number[i] += 1
                self.delays[self.t[i] - t] += 1
                if self.update(now, i, -stepsize * g) == updates:
                    break
                if asks(i) and self.sent[i] is None:
                    self.sent[i], self.t_sent[i] = self.x[i], self.t[i]
                    self.send(now, i, asks(i)[draw(i, len(asks(i)))], "request", self.x[i])
                began[i] = self.t[i], self.x[i]
                self.at(now + seconds[i], i, self.END, "gradient", None)
            elif what == "request":
                self.send(now, i, kind, "answer", self.x[i])
                self.ages[kind, i].append(0)
                self.update(now, i, (y - self.x[i]) / 2)
            else:
                mine, self.sent[i] = self.sent[i], None
                self.ages[kind, i].append(self.t[i] - self.t_sent[i])
                self.update(now, i, (y - mine) / 2)

    def at(self, *event):
        heappush(self.events, (*event[:3], next(self.age), *event[3:]))

    def send(self, now, i, j, what, vector):
        transmission, latency = self.edges[i, j]
        self.free_at[i, j] = max(now, self.free_at[i, j]) + transmission  # first in, first out
        self.at(self.free_at[i, j] + latency, j, i, what, vector)

    def update(self, now, i, v):
        self.x[i] += v
        self.t[i] += 1
        self.rows.append((now, i, self.t[i], self.x[i]))
        return self.t[i]


QUARTERS = st.integers(0, 6).map(lambda quarter: quarter / 4)
GRAPHS = {
    "ad_psgd": ("line", "ring", "star", "complete"),
    "ad_psgd_bipartite": ("line", "complete"),
}


@st.composite
def clusters(draw, name):
    """(seconds of each rank, edges with their times)."""
    seconds = draw(st.lists(st.integers(1, 12).map(lambda quarter: quarter / 4), min_size=1, max_size=6))
    kind = draw(st.sampled_from(GRAPHS[name]))
    if name == "ad_psgd_bipartite" and kind == "complete" and len(seconds) == 3:
        kind = "line"
    pairs = topology.build({"name": kind}, len(seconds)).edges
    return seconds, {edge: (draw(QUARTERS), draw(QUARTERS)) for edge in pairs}


@BOTH
@given(data=st.data(), seed=st.integers(0, 99))
@EXACT
def test_it_is_the_reference(name, data, seed):
    seconds, edges = data.draw(clusters(name))
    table = [
        {"source": i, "to": j, "vector_seconds": transmission, "latency_seconds": latency}
        for (i, j), (transmission, latency) in edges.items()
    ]
    graph = {"size": len(seconds), "edges": table} if table else None
    found = seen(cell_of(name, seconds, graph, toy=NOISY, stepsize=0.1, stop={"updates": 40}), seed)
    rngs = [generator(seed, Purpose.METHOD, rank + 1) for rank in range(len(seconds))]
    active = (lambda i: True) if name == "ad_psgd" else (lambda i: i % 2)
    usable = lambda i, j: name == "ad_psgd" or (i - j) % 2  # noqa: E731
    asks = lambda i: [j for j in range(len(seconds)) if (i, j) in edges and active(i) and usable(i, j)]  # noqa: E731
    draw = lambda i, m: int(rngs[i].integers(m))  # noqa: E731
    expected = Reference(seconds, edges, asks, draw, NOISY.x[0], 0.1, 40)
    assert found.rows == expected.rows
    histogram = found.result.updates["staleness_histogram"]
    assert {delay: times for delay, times in enumerate(histogram) if times} == expected.delays
    assert {(i, j): rest for i, j, *rest in found.result.ages.tolist()} == {
        edge: [len(ages), sum(ages), max(ages)] for edge, ages in expected.ages.items()
    }
    assert all(one <= other for one, other in pairwise(row[0] for row in found.rows))
