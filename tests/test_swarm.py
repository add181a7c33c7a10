"""SwarmSGD: runs written out by hand, special cases, the mean and what is in flight at every event, no deadlock, the
lattice beside full precision, and the references of `swarm_references.py`, which know nothing of mpibench.

By hand: one dimension, f(x) = x^2/2, so that a gradient is the point it is computed at, plus a number of its worker
where it matters who made it. A row is (seconds, rank, model after the update).
"""

import math
import random
from collections import Counter, defaultdict
from dataclasses import replace

import numpy
import pytest
import swarm_references
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import NEVER, Toy, cells

from mpibench.algorithms.swarm_sgd import Process
from mpibench.algorithms.swarm_sgd_blocking import Process as Blocking
from mpibench.graphs import GENERATORS, directed_ring, ring
from mpibench.lattice import Codec, Lattice
from mpibench.node import Communicator, Link, Mailbox, Timer
from mpibench.packing import unpack
from mpibench.runner import simulate
from mpibench.watch import Watch

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=60)
NAMES = ["swarm_sgd", "swarm_sgd_blocking"]
TARGETS = {"targets": {"metric": "x0", "values": [NEVER], "headline": NEVER}}


def network(n, edges):
    """The [graph] of these edges: (i, j) -> (seconds of a vector, latency)."""
    times = {e: {"vector_seconds": busy, "latency_seconds": latency} for e, (busy, latency) in edges.items()}
    return {"size": n, "edges": [{"source": i, "to": j} | times[i, j] for i, j in edges]}


def run(name, parameters, seconds, toy=None, seed=0, **settings):
    """(Result, rows of all ranks)."""
    (cell,) = cells(name, {"stepsize": 0.5} | parameters, seconds, **({"stop": {"updates": 5}} | TARGETS | settings))
    rows, update = [], Process.update

    def noting(process, x):
        rows.append((process.node.now(), process.node.rank, float(x[0])))
        return update(process, x)

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(Process, "update", noting)
        return simulate(replace(cell, problem=toy or Toy()), seed), rows


def of_workers(*numbers):
    """A toy whose gradients are x plus a number of their worker 1, 2, ..."""
    return Toy(sample=lambda i, number: float(numbers[i - 1]))


# By hand.


def test_two_ranks_by_hand():
    result, rows = run("swarm_sgd", {}, [2, 3])
    assert rows[:10] == [
        (2, 1, 64),  # asked: both have 64
        (2, 0, 32),  # 64 + 0 - 64/2
        (3, 0, 48),  # asked: 32 + (64 - 32)/2
        (3, 1, 16),  # 64 + (32 - 64)/2 - 64/2, computed at 64
        (4, 1, 32),  # 16 + (48 - 16)/2
        (4, 0, 16),  # 48 + (16 - 48)/2 - 32/2: its live copy knew nothing of 48
        (6, 1, 24),  # 32 + (16 - 32)/2; both end at 6, the lower rank is first
        (6, 0, 16),  # 16 + (32 - 16)/2 - 16/2
        (6, 0, 20),  # 16 + (24 - 16)/2
    ]
    assert len(rows) == 9 and result.trace["updates"][-1] == 5  # which ends the run, before rank 1 has its answer
    assert result.ranks["gradients"].tolist() == [3, 2] and result.ranks["used"].tolist() == [3, 1]
    # rank 0: at 2, at 4 with one update since it began, at 6 with none; rank 1: with one, that of 2
    assert result.updates["staleness_histogram"].tolist() == [2, 2]
    assert result.updates["gradients"].tolist() == [1, 0, 1, 1, 0]
    assert result.ages.tolist() == [[1, 0, 5, 0, 0], [0, 1, 4, 0, 0]]


def test_three_ranks_on_a_line_by_hand():
    edges = dict.fromkeys(((0, 1), (1, 0), (1, 2), (2, 1)), (0.5, 0.0))
    _, rows = run("swarm_sgd", {}, [2, 100, 3], graph=network(3, edges), stop={"updates": 5})
    assert rows == [
        (2.5, 1, 64),
        (3, 0, 32),  # 64 - 64/2; computes until 5
        (3.5, 1, 64),
        (4, 2, 32),  # 64 - 64/2; computes until 7
        (5.5, 1, 48),  # 64 + (32 - 64)/2
        (6, 0, 32),  # 32 + (64 - 32)/2 - 32/2
        (7.5, 1, 40),  # 48 + (32 - 48)/2
        (8, 2, 24),  # 32 + (48 - 32)/2 - 32/2
        (8.5, 1, 36),  # 40 + (32 - 40)/2, the fifth of rank 1
    ]


def test_both_ask_at_once_by_hand():
    # the answer to what was asked of X_i = 32 comes when X_i is 24: differences keep that
    result, rows = run("swarm_sgd", {}, [2, 2], of_workers(0, 32), heterogeneity={"links": {"vector_seconds": 0.5}})
    assert rows == [
        (2.5, 0, 64),
        (2.5, 1, 64),
        (3, 0, 32),  # 64 - 64/2
        (3, 1, 16),  # 64 - (64 + 32)/2
        (5.5, 0, 24),  # asked with 16: 32 + (16 - 32)/2
        (5.5, 1, 24),  # asked with 32: 16 + (32 - 16)/2
        (6, 0, 0),  # 24 + (16 - 32)/2 - 32/2
        (6, 1, 8),  # 24 + (32 - 16)/2 - (16 + 32)/2
        (8.5, 0, 4),  # 0 + (8 - 0)/2
    ]
    assert result.ages.tolist() == [[1, 0, 5, 2, 1], [0, 1, 4, 2, 1]]


def test_two_local_steps_by_hand():
    _, rows = run("swarm_sgd", {"local_steps": 2}, [2, 3], stop={"updates": 3})
    assert rows == [
        (4, 1, 64),
        (4, 0, 16),  # 64 - 64/2 - 32/2
        (6, 0, 40),  # 16 + (64 - 16)/2
        (6, 1, -8),  # 64 + (16 - 64)/2 - 48
        (8, 1, 16),  # -8 + (40 + 8)/2, the third of rank 1
    ]


def test_blocking_by_hand():
    # rank 0 is ready first and waits; rank 1 calls it
    _, rows = run("swarm_sgd_blocking", {}, [2, 3], of_workers(0, 32), stop={"updates": 2})
    assert rows == [(3, 0, 24), (3, 1, 24), (6, 0, 4)]  # (32 + 16)/2; (12 - 4)/2
    links = {"vector_seconds": 0.5}
    result, rows = run("swarm_sgd_blocking", {}, [2, 3], of_workers(0, 32), heterogeneity={"links": links})
    # called at 3, answered at 3.5; rank 0 is ready again at 5.5, rank 1 at 7
    assert rows[:4] == [(3.5, 0, 24), (4, 1, 24), (7.5, 0, 4), (8, 1, 4)]
    assert result.updates["staleness_histogram"].tolist() == [9]


def test_a_cycle_of_simultaneous_wishes_by_hand(monkeypatch):
    # 0 wishes for 1, 1 for 2 and 2 for 0, at one instant; so 1 calls 0, 2 calls 1 and 0 calls 2, at one instant
    monkeypatch.setattr(Process, "partner", lambda process: (process.node.rank + 1) % 3)
    log, submit = [], Link.submit

    def noting(link, send):
        log.append((link.engine.time / 1e9, link.node.rank, send.tag.name, link.to))
        assert len(log) < 1000, "they refuse each other for ever"
        submit(link, send)

    monkeypatch.setattr(Link, "submit", noting)
    links = {"latency_seconds": 0.25}
    _, rows = run("swarm_sgd_blocking", {}, [1, 1, 1], of_workers(0, 32, 64), heterogeneity={"links": links})
    assert [entry for entry in log if entry[0] < 2.5] == [
        *((1, i, "WISH", (i + 1) % 3) for i in range(3)),
        *((1.25, i, "CALL", (i - 1) % 3) for i in range(3)),
        (1.5, 2, "BUSY", 0),  # by who is calling, to a lower one; 0 and 1 let the higher ones wait
        (1.75, 0, "ANSWER", 1),
        (2.0, 1, "BUSY", 2),  # by who computes
        (2.25, 2, "CALL", 0),  # whom it refused
    ]
    assert rows[:2] == [(1.75, 0, 24), (2.0, 1, 24)]  # (32 + 16)/2
    assert {rank for _, rank, _ in rows} == {0, 1, 2}


# Special cases.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 3])
def test_one_rank_is_sgd_that_shows_every_local_phase(name, steps):
    noise = lambda i, number: ((5 * number) % 7 - 3) / 4  # noqa: E731
    result, rows = run(name, {"local_steps": steps, "stepsize": 0.25}, [2], Toy(sample=noise), stop={"updates": 8})
    x, points = 64.0, []
    for number in range(8 * steps):
        x = x - 0.25 * (x + noise(1, number))
        points.append(x)
    assert [row[0] for row in rows] == [2 * steps * (k + 1) for k in range(8)]
    assert [row[2] for row in rows] == pytest.approx(points[steps - 1 :: steps], rel=1e-13)
    assert result.ranks["messages_sent"].tolist() == [0] and result.ranks["used"].tolist() == [8 * steps]


@pytest.mark.parametrize("name", NAMES)
def test_geometric_steps_have_the_mean(name):
    parameters = {"local_steps": 5, "geometric": True}
    result, rows = run(name, parameters, [1], stop={"updates": 4000})
    seconds = numpy.diff([0] + [row[0] for row in rows])
    assert seconds.min() == 1 and seconds.max() > 20
    assert abs(seconds.mean() - 5) < 5 * math.sqrt(20 / 4000)  # the variance is (1 - p) / p^2 = 20
    assert result.ranks["used"][0] == seconds.sum()
    always, _ = run(name, {"local_steps": 1, "geometric": True}, [1], stop={"updates": 50})
    assert always.ranks["used"][0] == 50


def test_partners_are_uniform_among_neighbours():
    result, _ = run("swarm_sgd", {}, [1] + [1e6] * 4, stop={"seconds": 4000})
    asked = {int(to): int(count) for source, to, count, _ in result.edges if source == 0}
    assert set(asked) == {1, 2, 3, 4} and all(abs(count - 1000) < 5 * math.sqrt(750) for count in asked.values())


# The references.

DYADIC = st.sampled_from([0.25, 0.5, 0.75, 1.0, 1.25, 2.0, 3.5])


def noisy(point, worker, number):
    return point + ((7 * worker + 3 * number) % 11 - 5) / 16


NOISY = Toy(x=(3.0,), sample=lambda i, number: noisy(0.0, i, number))


@EXACT
@given(st.data(), st.integers(2, 4), st.integers(1, 3), st.booleans(), st.integers(0, 50))
def test_non_blocking_equals_its_reference(data, n, steps, geometric, seed):
    seconds = data.draw(st.lists(DYADIC, min_size=n, max_size=n))
    pairs = [(i, j) for i in range(n) for j in range(i)]
    kept = [pair for pair in pairs if pair[0] == pair[1] + 1 or data.draw(st.booleans())]  # a line and more
    times = st.sampled_from([0.0, 0.25, 0.5, 1.5])
    edges = {edge: (data.draw(times), data.draw(times)) for i, j in kept for edge in ((i, j), (j, i))}
    parameters = {"local_steps": steps, "geometric": geometric, "stepsize": 0.25}
    graph = network(n, edges)
    _, rows = run("swarm_sgd", parameters, seconds, NOISY, seed, graph=graph, stop={"updates": 15})
    neighbours = [sorted(j for i, j in edges if i == rank) for rank in range(n)]
    random = swarm_references.generators(n, seed)
    local = swarm_references.Local(seconds, neighbours, random, 3.0, 0.25, steps, geometric, noisy)
    busy, latency = ({edge: time[place] for edge, time in edges.items()} for place in (0, 1))
    assert rows == swarm_references.non_blocking(local, busy, latency, 15)


@EXACT
@given(st.permutations([2, 3, 5, 7, 11, 67]), st.integers(2, 6), st.integers(1, 3), st.booleans(), st.integers(0, 50))
def test_blocking_equals_its_reference_on_links_that_take_no_time(primes, n, steps, geometric, seed):
    seconds = [round(math.sqrt(prime), 6) for prime in primes[:n]]
    parameters = {"local_steps": steps, "geometric": geometric, "stepsize": 0.25}
    result, rows = run("swarm_sgd_blocking", parameters, seconds, NOISY, seed, stop={"updates": 15})
    random = swarm_references.generators(n, seed)
    neighbours = swarm_references.complete(n)
    local = swarm_references.Local(seconds, neighbours, random, 3.0, 0.25, steps, geometric, noisy)
    expected, messages = swarm_references.blocking(local, -(-len(rows) // 2))
    assert [row[1:] for row in rows] == [row[1:] for row in expected][: len(rows)]
    assert [row[0] for row in rows] == pytest.approx([row[0] for row in expected][: len(rows)], rel=1e-7)
    assert result.ranks["messages_sent"].sum() == messages.total()


# The mean at every event.


class Ledger:
    """Beside a run: Σ X, what answers on their way will add to it, and what the local steps that are in it took off."""

    def __init__(self, patches, blocking):
        self.processes, self.pending, self.steps, self.taken = {}, {}, {}, 0.0
        self.checked = self.answers = self.refusals = 0
        process_of = Blocking if blocking else Process
        begin, local_steps = process_of.begin, Process.local_steps
        used, answer, send = Watch.used, Codec.answer, Communicator.send

        def noting_begin(process):
            self.processes[process.node.rank] = process
            self.start = process.x
            begin(process)

        async def noting_local_steps(process):
            x = process.x
            h, y = await local_steps(process)
            self.steps[process.node.rank] = x - y
            if blocking:
                self.taken = self.taken + (x - y)
            return h, y

        def noting_used(watch, i, *args):
            self.pending.pop(i, None)
            if not blocking:
                self.taken = self.taken + self.steps[i]
            used(watch, i, *args)

        def noting_answer(codec, *args):
            self.told = answer(codec, *args)
            return self.told

        def noting_send(edges, to, tag, *body):
            if tag.name == "ANSWER" and body[0] is not None:
                _, theirs, own = self.told
                self.pending[to] = (own - theirs) / 2
                self.answers += 1
            self.refusals += tag.name == "FAR" or (tag.name == "ANSWER" and body[0] is None)
            return send(edges, to, tag, *body)

        patches.setattr(process_of, "begin", noting_begin)
        patches.setattr(Process, "local_steps", noting_local_steps)
        patches.setattr(Watch, "used", noting_used)
        patches.setattr(Codec, "answer", noting_answer)
        patches.setattr(Communicator, "send", noting_send)
        for cls, name in ((Mailbox, "put"), (Timer, "happen"), (Link, "happen")):
            patches.setattr(cls, name, self.checking(getattr(cls, name)))

    def checking(self, event):
        def checked(*args):
            event(*args)
            total = sum(process.x for process in self.processes.values()) + sum(self.pending.values())
            due = len(self.processes) * self.start - self.taken
            assert numpy.abs(total - due).max() < 1e-10 * numpy.abs(self.start).max()
            self.checked += 1

        return checked


PRECISIONS = {
    "full": {},
    "8 bits": {"bits": 8, "bound": 100.0},
    "far at times": {"bits": 4, "side": 0.5},
    "far always": {"bits": 1, "side": 1e-3},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_mean_moves_by_local_steps_only_at_every_event(name, precision, monkeypatch):
    parameters = {"stepsize": 0.2, "local_steps": 2, "geometric": True} | PRECISIONS[precision]
    toy = Toy((64.0, -3.0, 10.0), (1.0, 0.1, 0.5), lambda i, number: float((7 * i + 3 * number) % 11 - 5 + 3 * i))
    links = {"latency_seconds": 0.3, "vector_seconds": 0.4}
    for seed in range(3):
        with monkeypatch.context() as patches:
            ledger = Ledger(patches, blocking=name.endswith("blocking"))
            (cell,) = cells(name, parameters, [1.0, 2.3, 0.7, 1.9, 5.2], heterogeneity={"links": links},
                            stop={"updates": 90}, **TARGETS)  # fmt: skip
            simulate(replace(cell, problem=toy), seed)
        assert ledger.checked > 500 and ledger.answers > 100
        if precision == "far at times":
            assert 5 < ledger.refusals < ledger.answers
        elif precision == "far always":
            assert ledger.refusals > 0.9 * ledger.answers
        else:
            assert ledger.refusals == 0


# No deadlock.


@pytest.mark.parametrize("precision", ["full", "far at times"])
@pytest.mark.parametrize("graph", ["complete", "ring", "pair", "star"])
@pytest.mark.parametrize("name", NAMES)
def test_no_deadlock_where_all_ask_at_once(name, graph, precision):
    n = {"complete": 5, "ring": 7, "pair": 2, "star": 5}[graph]
    edges = GENERATORS[graph](n).edges if graph != "pair" else [(0, 1), (1, 0)]
    parameters = {"stepsize": 0.3} | PRECISIONS[precision]
    for seed in range(20):
        draw = random.Random(seed)
        times = [0.0, 0.0, 0.25, 1.0] if seed % 2 else [0.0]  # also no time at all
        jittered = {edge: (draw.choice(times), draw.choice(times)) for edge in edges}
        parameters["local_steps"] = 1 + seed % 3
        toy = of_workers(*(40 * i for i in range(n)))
        _, rows = run(name, parameters, [1.0] * n, toy, seed, graph=network(n, jittered), stop={"updates": 30})
        updates = Counter(rank for _, rank, _ in rows)
        assert set(updates) == set(range(n)) and max(updates.values()) == 30 and min(updates.values()) > 2


def test_who_waits_for_a_slow_rank():
    seconds = [1.0, 1.1, 1.2, 1000.0]
    _, rows = run("swarm_sgd", {}, seconds, stop={"seconds": 900})
    updates = Counter(rank for _, rank, _ in rows)
    # nobody: each has its own updates, and is asked; the slow one is asked only, by three who ask one of three
    assert min(updates[rank] for rank in range(3)) > 1.5 * 900 / 1.2 and updates[3] > 700
    _, rows = run("swarm_sgd_blocking", {}, seconds, stop={"seconds": 900})
    assert {rank for _, rank, _ in rows} <= {0, 1, 2} and len(rows) < 100  # in the end everybody who wishes for it


# The lattice in a run.


def sizes(name, parameters, monkeypatch, **settings):
    """{tag: Counter of the bytes of its messages} of a run."""
    seen, depart = defaultdict(Counter), Link.depart

    def noting(link, send):
        seen[send.tag.name][send.charged[:2]] += 1
        depart(link, send)

    with monkeypatch.context() as patches:
        patches.setattr(Link, "depart", noting)
        result, _ = run(name, parameters, [1.0, 1.3, 0.7], **settings)
    return seen, result


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_packed_messages_are_charged_by_their_bits(bits, monkeypatch):
    toy = Toy(x=tuple(range(1, 22)), curvature=(1.0,) * 21)
    parameters = {"bits": bits, "side": 1e3}
    seen, result = sizes("swarm_sgd", parameters, monkeypatch, toy=toy, stop={"updates": 20})
    one = (math.ceil(bits * 21 / 8), 8)
    assert {tag: set(counts) for tag, counts in seen.items()} == {"REQUEST": {one}, "ANSWER": {one}}
    assert result.trace["bytes"][-1] == sum(one) * result.trace["messages"][-1]


def test_who_is_too_far_away_is_asked_again_in_full_precision(monkeypatch):
    toy = of_workers(0, 200, -300)
    far = {"bits": 4, "side": 4.0}
    seen, result = sizes("swarm_sgd", far, monkeypatch, toy=toy, stop={"updates": 40})
    packed, refused, full = (1, 8), (0, 8), (8, 0)
    assert seen["ANSWER"][refused] == seen["ANSWER"][full] == seen["REQUEST"][full] > 5
    assert seen["REQUEST"][packed] == seen["ANSWER"].total() - seen["ANSWER"][full] > seen["ANSWER"][refused]
    assert result.ranks["lattice_fallbacks"].sum() == seen["REQUEST"][full]
    asked = seen["REQUEST"][packed]
    assert result.trace["messages"][-1] == 2 * asked + 2 * seen["ANSWER"][refused]
    links = {"latency_seconds": 0.5}
    _, slow = run("swarm_sgd", {"bits": 1, "side": 1e-6}, [1, 1], heterogeneity={"links": links}, stop={"updates": 1})
    _, rows = run("swarm_sgd", {}, [1, 1], heterogeneity={"links": links}, stop={"updates": 1})
    assert rows[0][0] == 1.5 and slow[0][0] in (1.5, 2.5)


def final_error(name, parameters):
    """The mean over ranks of |x_i - x*|^2, averaged over the second half of three runs on heterogeneous data."""
    offset = (-6.0, 1.0, 2.0, 3.0)
    draws = numpy.random.default_rng(0).normal(size=(5, 4000, 3)) / 10
    toy = Toy((1.0, 2.0, 3.0), (1.0, 0.5, 0.2), lambda i, number: draws[i, number] + offset[i - 1])
    settings = {"stop": {"seconds": 1000.0}, "snapshot": {"seconds": 5.0}, "record_updates": False}
    errors = []
    for seed in range(3):
        parameters = {"stepsize": 0.05, "local_steps": 2} | parameters
        result, _ = run(name, parameters, [1.0, 1.01, 1.02, 1.03], toy, seed, **settings)
        square = sum(result.trace[f"x{c}"] ** 2 for c in range(3)) + result.trace["consensus"]
        errors.append(square[100:].mean())
    return numpy.mean(errors)


@pytest.mark.parametrize("name", NAMES)
def test_eight_bits_cost_no_accuracy_and_a_side_that_is_too_small_would(name, monkeypatch):
    full = final_error(name, {})
    assert final_error(name, {"bits": 8, "bound": 4.0}) == pytest.approx(full, rel=0.2)
    small = {"bits": 8, "side": 1e-3}
    assert final_error(name, small) == pytest.approx(full, rel=0.2)  # by full precision

    def believing(lattice, message, y):
        """Without the hash."""
        colours, q = unpack(message[0], lattice.bits, len(y)), 2**lattice.bits
        return lattice.side * (colours + q * numpy.rint((y / lattice.side - colours) / q))

    monkeypatch.setattr(Lattice, "decode", believing)
    assert not final_error(name, small) < 3 * full


@pytest.mark.parametrize("name", NAMES)
def test_a_lattice_run_that_diverges_is_a_result(name):
    parameters = {"stepsize": 4.0, "bits": 8, "side": 1.0}
    result, rows = run(name, parameters, [1.0, 1.1], stop={"updates": 1500}, snapshot={"updates": 100})
    assert result.attrs["outcome"] == "diverged" and not math.isfinite(rows[-1][2])


# What is refused.


@pytest.mark.parametrize("name", NAMES)
def test_an_edge_without_a_way_back_is_refused(name):
    (cell,) = cells(name, {"stepsize": 0.1}, [1, 2, 3])
    cell.algorithm.check(3, ring(3))
    with pytest.raises(ValueError, match="without a way back"):
        cell.algorithm.check(3, directed_ring(3))
    with pytest.raises(ValueError, match="needs the lattice's side"):
        replace(cell.algorithm, bits=8).check(3)
