"""R-FAST: runs written out by hand, its conservation law at every event, references that know nothing of mpibench, and
what loss, stragglers and topologies do to it.

The lock-step reference is the listing with all ranks in step; the event-driven one has ranks of fixed seconds and links
that take time, lose messages and let newer ones take the place of older ones.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from heapq import heappop
from typing import NamedTuple

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import NEVER, Toy, cells
from tree_references import LINK, Ranks, trees

import mpibench.algorithms.r_fast as r_fast
from mpibench import graphs
from mpibench.engines.simulation import Simulation
from mpibench.errors import InvalidInput
from mpibench.journal import Journal
from mpibench.node import Link, Mailbox, Task
from mpibench.runner import cluster_of, simulate
from mpibench.watch import Watch
from mpibench.weights import Weights, step_factor, uniform_column, uniform_row

EXACT = settings(deadline=None, derandomize=True, database=None, max_examples=60)
N = 8
TO_A_HUNDREDTH = {"metric": "gap", "values": [1e-2], "headline": 1e-2}
ARCHITECTURES = {  # [graph], and the parameters that make it pull and push
    "binary tree": ({"name": "binary_tree"}, {"root": 0}),
    "line": ({"name": "line"}, {"root": 0}),
    "star": ({"name": "star"}, {"root": 0}),
    "directed ring": ({"name": "directed_ring"}, {}),
    "exponential": ({"name": "exponential"}, {}),
    "ring": ({"name": "ring"}, {}),
    "mesh": ({"name": "mesh", "rows": 2, "columns": 4}, {}),
    "torus": ({"name": "torus", "rows": 2, "columns": 4}, {}),
    "both ways of a tree": ({"name": "binary_tree"}, {}),
}
SPECIAL = ["binary tree", "directed ring", "mesh"]
JITTERED = {"profile": "exponential", "unit_seconds": 1.0}
EXACT_GRADIENTS = {"name": "quadratic", "dimension": 3, "strong_convexity": 0.7, "shift": 1.0}


def cell_of(stepsize, architecture, heterogeneity, workers=N, problem=EXACT_GRADIENTS, **settings_):
    """The cell of an architecture, or of a [graph] and parameters."""
    graph, parameters = ARCHITECTURES.get(architecture, architecture) if isinstance(architecture, str) else architecture
    targets = {"metric": "gap", "values": [1e-9], "headline": 1e-9}
    tables = {"graph": graph, "heterogeneity": heterogeneity, "problem": problem, "targets": targets}
    tables |= {"record_updates": False, "snapshot": {"seconds": 1.0}}
    (cell,) = cells("r_fast", {"stepsize": stepsize} | parameters, workers=workers, **(tables | settings_))
    return cell


class Shown(NamedTuple):
    """What a rank shows at an instant."""

    rank: int
    seconds: float
    t: int
    x: float


def test_ages_in_seconds_by_hand():
    # The two ranks below: a V of t was made at the instant of its stamp, an R of t in the iteration that began then.
    # Rank 0 took in V 1 of rank 1 (made at 3) at 4, V 2 (6) and R 1 (3) at 8, R 2 (6) at 10: 1 + 2 + 5 + 4
    # Rank 1 took in V 1 (2) at 3, V 2 (4) and R 1 (2) at 6, V 3 (6) and R 3 (6) at 9: 1 + 2 + 4 + 3 + 3
    cell = toy_on(toy(0, 32), 0.5, {}, [2, 3], PAIR, 5, {"vector_seconds": 1.0})
    result = simulate(cell, seed=0)
    rows = result.ages_seconds.tolist()
    assert [row[:3] for row in rows] == [row[:3] for row in result.ages.tolist()]
    assert {tuple(row[:2]): row[2:] for row in rows} == {(1, 0): [4, 12, 5], (0, 1): [5, 13, 4]}


class Run:
    """A cell in virtual time, with all that its ranks show; `lost`: (source, to) -> () -> bool."""

    def __init__(self, cell, lost=None, coordinate=0):
        problem = cell.problem.prepare(cell.workers, 0)
        cluster = cluster_of(cell, 0, problem, journal=lambda rank: Journal(rows=False))
        self.engine, self.shown, self.watches = Simulation(), [], {}

        class Noting(Watch):
            def __call__(watch, t, x):
                self.shown.append(Shown(watch.node.rank, watch.node.now(), t, float(x[coordinate])))
                return super().__call__(t, x)

        def program(node):
            watch = self.watches[node.rank] = Noting(node, cell.stop, None, problem.metrics)
            return cell.algorithm.program(node, problem.start(), problem.objective(node.rank + 1), watch)

        self.engine.run(replace(cluster, lost=lost) if lost else cluster, program)

    def of(self, rank):
        """(seconds, t, x) of a rank."""
        return [row[1:] for row in self.shown if row.rank == rank]

    def messages(self):
        """{(source, to): how many have left}."""
        nodes = self.engine.nodes
        counts = Counter()
        for node in nodes:
            for kind in node.journal.kinds.values():
                counts[node.rank, kind.to] += kind.messages
        return dict(counts)

    def ages(self):
        """{(source, to): [how often, sum, largest]}."""
        return {(j, i): ages for i, watch in self.watches.items() for j, ages in watch.ages.items()}


def toy(*numbers, x=64.0):
    """f_i(x) = x^2/2 + number_i x."""
    return Toy(x=(x,), sample=lambda i, number: float(numbers[i - 1]))


def toy_on(problem, stepsize, parameters, seconds, graph, updates=5, links=None):
    """The cell of a toy on a graph."""
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    heterogeneity = {"links": links or {}}
    tables = {"graph": graph, "heterogeneity": heterogeneity, "stop": {"updates": updates}, "targets": targets}
    (cell,) = cells("r_fast", {"stepsize": stepsize} | parameters, seconds, **tables)
    return replace(cell, problem=problem)


# By hand.

PAIR = {"name": "complete"}


def test_two_ranks_by_hand():
    # Gradients x in 2 s and x + 32 in 3 s, a vector takes 1 s on each of the two links; all weights 1/2, γ = 1/2.
    #  2 rank 0: z = g = 64, v = 64 - 32 = 32 leaves; x = (32 + 64)/2
    #  3 rank 1: z = g = 96, v = 64 - 48 = 16 leaves; v_0 = 32 arrives now: x = (16 + 32)/2
    #  4 rank 0: v_1 = 16; g = 48, z = 64 - 64 + 48; of it 24 remain and ρ = 24 leaves until 5; v = 48 - 12 = 36, which
    #            leaves at 5; x = (36 + 16)/2
    #  6 rank 0: g = 26, z = 24 - 48 + 26 = 2: 1 remains, ρ = 25 until 7; v = 26 - 1/2, from 7; x = (25.5 + 16)/2
    #  6 rank 1: v_0 = 36; ρ~ = 24 has come at 5; g = 56, z = 96 - 96 + 56 + 24 = 80: 40 remain, ρ = 40 until 7;
    #            v = 24 - 20 = 4, from 7; x = (4 + 36)/2
    #  8 rank 0: ρ~ = 40, v_1 = 4; g = 20.75, z = 1 - 26 + 20.75 + 40 = 35.75: 17.875 remain, ρ = 42.875 until 9;
    #            v = 20.75 - 8.9375; x = (11.8125 + 4)/2
    #  9 rank 1: v_0 = 25.5; ρ = 42.875 arrives now, and nobody has read the 25 of 7: 18.875 are new. g = 52,
    #            z = 40 - 56 + 52 + 18.875 = 54.875: 27.4375 remain; v = 20 - 13.71875; x = (6.28125 + 25.5)/2
    # 10 rank 0: nothing new: rank 1's ρ = 67.4375 is on its way until 10, and here it is. g = 7.90625,
    #            z = 17.875 - 20.75 + 7.90625 + 27.4375 = 32.46875: half remains; v_1 is 4; v = 7.90625 - 8.1171875
    cell = toy_on(toy(0, 32), 0.5, {}, [2, 3], PAIR, 5, {"vector_seconds": 1.0})
    run = Run(cell)
    points = {0: [64, 48, 26, 20.75, 7.90625, (7.90625 - 8.1171875 + 4) / 2], 1: [64, 24, 20, (6.28125 + 25.5) / 2]}
    for rank, times in {0: [0, 2, 4, 6, 8, 10], 1: [0, 3, 6, 9]}.items():
        assert [row[:2] for row in run.of(rank)] == list(zip(times, range(len(times)), strict=True))
        assert [row[2] for row in run.of(rank)] == pytest.approx(points[rank], rel=1e-14)
    # at 10 rank 0's R has left and its V waits; rank 1's V of 9 still waits, too: the run ends first
    assert run.messages() == {(0, 1): 1 + 2 + 2 + 2 + 1, (1, 0): 1 + 2 + 1}
    # rank 0 had V 1 at its iteration 2, V 2 at 4, R 1 at 3, R 2 at 4; rank 1 had V and R 1, V 2, V 3, and R 3 at 2
    assert run.ages() == {(1, 0): [4, 1 + 2 + 2 + 2, 2], (0, 1): [5, -1, 0]}
    assert [watch.used_by for watch in run.watches.values()] == [{0: 5}, {1: 3}]
    assert [watch.histogram for watch in run.watches.values()] == [[5], [3]]


def test_a_tree_of_two_by_hand():
    # The pull graph is 0 -> 1, the push graph 1 -> 0; n u.p = 2, so γ = 1/4. Gradients x in 1 s, x + 32 in 3 s; links
    # of 2 s. The root keeps all its mass and its own model: until 7 it goes down its own gradient.
    #  1, 2, ... rank 0: v = x = 48, 36, 27, 20.25, ...; v of 1 travels until 3, of 2 until 5; then that of 4 leaves
    #  3 rank 1: z = g = 96 stays; v = 64 - 24 = 40; v_0 = 48 arrives now: x = 44
    #  6 rank 1: g = 76, z = 76, of which 38 remain and ρ = 38 travels until 8; v = 44 - 9.5 = 34.5; v_0 is 36
    #  8 rank 0: z = g + 38
    cell = toy_on(toy(0, 32), 0.5, {"root": 0}, [1, 3], PAIR, 8, {"vector_seconds": 2.0})
    run = Run(cell)
    x = [64 * 0.75**t for t in range(8)]
    assert [row[2] for row in run.of(0)] == [*x, x[7] - (x[7] + 38) / 4]
    assert run.of(1) == [(0, 0, 64), (3, 1, 44), (6, 2, (34.5 + 36) / 2)]
    # v leaves at 1, 3, 5, 7
    assert run.messages() == {(0, 1): 4, (1, 0): 1}


def test_one_worker_is_sgd_bit_for_bit():
    tables = {"workers": 1, "stop": {"updates": 50}, "heterogeneity": {"compute": JITTERED}, "snapshot": {"updates": 1}}
    problem = {"name": "quadratic", "dimension": 5, "strong_convexity": 0.1, "noise": 0.3}
    (one, other) = (
        simulate(cells(name, {"stepsize": 0.3}, problem=problem, **tables)[0], seed=4)
        for name in ("r_fast", "minibatch_sgd")
    )
    for column in ("time", "loss", "iteration", "gradients"):
        assert one.trace[column].tolist() == other.trace[column].tolist()
    assert one.attrs["model_hash"] == other.attrs["model_hash"] and len(one.trace["time"]) == 51


# The conservation law, at every event.


def watched(monkeypatch, look):
    """Call `look(engine)` after all that can happen: a coroutine's step, an arrival, a link that becomes free."""
    engines = []  # the one that runs

    def noting(happen, engine_of):
        def happens(what, *arguments):
            happen(what, *arguments)
            if engine_of is not None:
                engines[:] = [engine_of(what)]
            for engine in engines:
                look(engine)

        return happens

    monkeypatch.setattr(Task, "step", noting(Task.step, lambda task: task.node.engine))
    monkeypatch.setattr(Link, "happen", noting(Link.happen, lambda link: link.engine))
    monkeypatch.setattr(Mailbox, "put", noting(Mailbox.put, None))


def states(engine):
    """The local variables of every rank."""
    frames = [task.coroutine.cr_frame for node in engine.nodes for task in node.tasks]
    return {frame.f_locals["i"]: frame.f_locals for frame in frames if frame is not None}


def imbalance(engine):
    """|Σ z + Σ (ρ - ρ~) - Σ g|, and the largest |term| of these sums."""
    ranks = states(engine)
    terms = [state["z"] for state in ranks.values()] + [-1.0 * state["g"] for state in ranks.values()]
    for i, state in ranks.items():
        for j, pushed in state["mass"].pushed.items():
            terms += [pushed, -1.0 * ranks[j]["mass"].received[i]] if j in ranks else [pushed]
    terms = [numpy.asarray(term, float) for term in terms]
    return float(numpy.abs(sum(terms)).max()), max(float(numpy.abs(term).max()) for term in terms)


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("architecture", SPECIAL)
def test_mass_is_conserved_at_every_event(architecture, loss, monkeypatch):
    links = {"latency_seconds": 0.3, "vector_seconds": 0.4}  # on the mesh they are too slow for all that is sent
    heterogeneity = {"compute": JITTERED, "links": links, "loss": {"probability": loss}}
    noisy = EXACT_GRADIENTS | {"noise": 0.1}
    cell = cell_of(0.2, architecture, heterogeneity, problem=noisy, stop={"seconds": 60.0})
    seen = []

    def look(engine):
        if len(states(engine)) == N:  # the last step of a rank leaves no frame
            seen.append(imbalance(engine))

    with monkeypatch.context() as patch:
        watched(patch, look)
        result = simulate(cell, seed=0)
    assert len(seen) > 1000 > result.trace["gradients"][-1] > 400
    assert max(error / (1 + largest) for error, largest in seen) < 1e-14
    assert max(largest for _, largest in seen) > 3


class Single(Toy):
    """A toy of float32 vectors."""

    def vector(self, numbers):
        make = self.library.array if self.library is numpy else self.library.tensor
        return make(numbers, dtype=self.library.float32)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_mass_is_conserved_in_float64_where_models_are_float32(library, monkeypatch):
    library = pytest.importorskip(library)
    problem = Single((3.0, -1.0), (0.3, 1.0), lambda i, number: ((7 * i + 3 * number) % 11 - 5) / 17, library)
    cell = toy_on(problem, 0.3, {}, [1.0, 1.3, 0.7], {"name": "directed_ring"}, 500)
    seen, types = [], set()
    send = r_fast.Mass.send

    def sending(mass, t, share):
        send(mass, t, share)
        engine = mass.push.node.engine
        types.update(("R", str(pushed.dtype)) for pushed in mass.pushed.values())
        types.update(("V", str(v.dtype)) for v in states(engine)[mass.push.node.rank]["v"].values())
        types.add(("x", str(states(engine)[mass.push.node.rank]["x"].dtype)))

    def look(engine):
        if len(states(engine)) == 3:
            seen.append(imbalance(engine))

    with monkeypatch.context() as patch:
        patch.setattr(r_fast.Mass, "send", sending)
        watched(patch, look)
        simulate(cell, seed=0)
    assert len(seen) > 2000 and max(error / (1 + largest) for error, largest in seen) < 1e-13
    assert {(name, kind.removeprefix("torch.")) for name, kind in types} == {
        ("R", "float64"),
        ("V", "float32"),
        ("x", "float32"),
    }


# The lock-step form of the listing.


def noisy(x, worker, number):
    """A gradient of ((worker + 3)/8) x^2/2 with a number of its worker and job."""
    return (worker + 3) / 8 * x + ((7 * worker + 3 * number) % 11 - 5) / 16


class Unequal(Toy):
    """The problem whose gradients are `noisy`."""

    def objective(self, i):
        objective = super().objective(i)
        number = objective.sample
        objective.sample = lambda: (number(), objective.begun - 1)[1]
        objective.gradient = lambda x, number: noisy(x, i, number)
        return objective


UNEQUAL = Unequal(x=(3.0,))


def dense(architecture):
    """(W, A) of an architecture."""
    graph, parameters = ARCHITECTURES[architecture]
    others = {key: value for key, value in graph.items() if key != "name"}
    graph, root = graphs.GENERATORS[graph["name"]](N, **others), parameters.get("root")
    if root is None:
        return uniform_row(graph).matrix, uniform_column(graph).matrix
    down, up = trees(N, dict.fromkeys(graph.edges, 1.0), root)
    W, A = numpy.eye(N), numpy.eye(N)
    for child in range(N):
        if child != root:
            W[child, [child, down[child]]] = 0.5
            A[[child, up[child]], child] = 0.5
    return W, A


def lock_step(W, A, gradient, x, γ, rounds, instant):
    """x_i of all ranks, round by round. All do the same at the same time, and what they send is there in the next
    round; where it is there at once (`instant`), ranks see what lower-numbered ones have sent in this round."""
    n = len(W)
    own = numpy.eye(n)
    now = own + (numpy.tri(n, k=-1) if instant else 0)  # 1 where rank i sees this round's of rank j

    def mixed(matrix, latest, last):
        return (matrix * now) @ latest + (matrix * (1 - now)) @ last

    X = V_last = numpy.full(n, x)
    G = Z = numpy.array([gradient(X[i], i + 1, 0) for i in range(n)])
    H_last = numpy.zeros(n)  # z before it is pushed
    shown = [X]
    for k in range(1, rounds + 1):
        V = X - γ * Z
        X, V_last = mixed(W, V, V_last), V
        shown.append(X)
        G, before = numpy.array([gradient(X[i], i + 1, k) for i in range(n)]), G
        H = numpy.zeros(n)
        for i in range(n):  # in this order: what lower ranks push is there
            shares = A[i] * (1 - own[i])
            H[i] = Z[i] + G[i] - before[i] + shares @ (now[i] * H + (1 - now[i]) * H_last)
        Z, H_last = numpy.diag(A) * H, H
    return numpy.array(shown)


@pytest.mark.parametrize("instant", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_step_it_is_the_listing(architecture, instant):
    graph, parameters = ARCHITECTURES[architecture]
    links = {} if instant else {"latency_seconds": 0.25, "vector_seconds": 0.25}  # V is there 1/2 s later, R 3/4 s
    run = Run(toy_on(UNEQUAL, 0.1, parameters, [1.0] * N, graph, 30, links))
    W, A = dense(architecture)
    γ = 0.1 / (N * float(perron(W.T) @ perron(A)))
    expected = lock_step(W, A, noisy, 3.0, γ, 30, instant)
    for rank in range(N):
        rows = run.of(rank)
        assert [row[:2] for row in rows] == [(t, t) for t in range(31 if rank == 0 else 30)]
        assert [row[2] for row in rows] == pytest.approx(expected[: len(rows), rank].tolist(), rel=1e-12, abs=1e-13)


def perron(matrix):
    """The vector of sum 1 that the matrix keeps, by iteration."""
    vector = numpy.linalg.matrix_power(matrix, 1 << 16) @ numpy.full(len(matrix), 1 / len(matrix))
    return vector / vector.sum()


# Ranks of fixed seconds, and links that take time.


class Lossy(Ranks):
    """Ranks whose links have latency and lose messages: `lost(source, to, number)` of their 0th, 1st, ... message."""

    def __init__(self, seconds, edges, latency, lost):
        super().__init__(seconds, edges, noisy)
        self.latency, self.lost = latency, lost

    def depart(self, edge, message):
        handler, body, _, _ = message
        number = sum(earlier[1] == edge for earlier in self.departures)
        self.departures.append((self.now, edge, handler.__name__, body))
        self.free_at[edge] = self.now + self.edges[edge]
        self.at(self.free_at[edge], edge[0], LINK, self.free, edge, None)
        if not self.lost(*edge, number):
            self.at(self.free_at[edge] + self.latency[edge], edge[1], edge[0], handler, edge[1], edge[0], *body)


class Listing:
    """Every rank follows the listing; it reads V at its pull and R right before it sums."""

    def __init__(self, ranks, W, A, x, γ, updates):
        self.ranks, self.W, self.A, self.γ, self.updates = ranks, W, A, γ, updates
        n = ranks.n
        self.x, self.z, self.g, self.t = [x] * n, [None] * n, [None] * n, [0] * n
        self.vbuf = [dict.fromkeys(range(n), x) for _ in range(n)]
        self.rho, self.rin, self.rtil = (defaultdict(float) for _ in range(3))  # by edge
        self.unread = defaultdict(dict)  # (rank, kind) -> {source: (stamp, vector)}
        self.shown = [[(0.0, 0, x)] for _ in range(n)]
        self.ages = defaultdict(lambda: [0, 0, 0])

    def run(self):
        for i in range(self.ranks.n):
            self.ranks.begin(i, self.ended)
        while max(self.t) < self.updates:
            self.ranks.now, _, _, _, happen, args = heappop(self.ranks.events)
            happen(*args)
        return self

    def v_arrives(self, i, j, stamp, v):
        self.unread[i, "V"][j] = stamp, v

    def r_arrives(self, i, j, stamp, r):
        self.unread[i, "R"][j] = stamp, r

    def read(self, i, kind):
        for j, (stamp, vector) in self.unread.pop((i, kind), {}).items():
            row, age = self.ages[j, i], self.t[i] - stamp
            row[:] = row[0] + 1, row[1] + age, max(row[2], age)
            yield j, vector

    def send(self, i, matrix, handler, vector_for):
        for j in range(self.ranks.n):
            if j != i and matrix[j, i]:
                self.ranks.send(i, j, handler, (self.t[i], vector_for(j)), newest_only=True)

    def ended(self, i, number):
        g = noisy(self.x[i], i + 1, number)
        if self.z[i] is None:
            self.z[i] = g
        else:
            for j, r in self.read(i, "R"):
                self.rin[j, i] = r
            into = [j for j in range(self.ranks.n) if j != i and self.A[i, j]]
            h = self.z[i] + sum(self.rin[j, i] - self.rtil[j, i] for j in into) + g - self.g[i]
            for j in into:
                self.rtil[j, i] = self.rin[j, i]
            self.z[i] = self.A[i, i] * h
            for j in range(self.ranks.n):
                self.rho[i, j] += self.A[j, i] * h
            self.send(i, self.A, self.r_arrives, lambda j: self.rho[i, j])
        self.g[i] = g
        self.t[i] += 1
        v = self.vbuf[i][i] = self.x[i] - self.γ * self.z[i]
        self.send(i, self.W, self.v_arrives, lambda j: v)
        self.vbuf[i].update(self.read(i, "V"))
        self.x[i] = sum(self.W[i, j] * self.vbuf[i][j] for j in range(self.ranks.n))
        self.shown[i].append((self.ranks.now, self.t[i], self.x[i]))
        if self.t[i] < self.updates:
            self.ranks.begin(i, self.ended)


@dataclass(frozen=True)
class Case:
    """Ranks of fixed seconds; edges with the seconds of a vector and of latency; which tenth of messages is lost."""

    seconds: list
    edges: dict
    latency: dict
    root: int | None
    lost: int

    @property
    def graph(self):
        times = {
            edge: {"vector_seconds": self.edges[edge], "latency_seconds": self.latency[edge]} for edge in self.edges
        }
        edges = [{"source": i, "to": j} | times[i, j] for i, j in self.edges]
        return {"size": len(self.seconds), "edges": edges}

    def loses(self, source, to, number):
        return (7 * number + 3 * source + 5 * to) % 10 < self.lost


EIGHTHS = st.integers(1, 16).map(lambda eighth: eighth / 8)


@st.composite
def cases(draw):
    """Graphs with a cycle through all ranks, and with other edges, one way or both."""
    n = draw(st.integers(1, 5))
    slowest = draw(st.sampled_from([4, 16, 60]))  # eighths: links faster than a gradient, or much slower
    edges = {(i, (i + 1) % n) for i in range(n) if n > 1}
    edges |= {(i, j) for i in range(n) for j in range(n) if i != j and draw(st.booleans())}
    edges = {edge: draw(st.integers(1, slowest)) / 8 for edge in sorted(edges)}
    latency = {edge: draw(st.integers(0, 8)) / 8 for edge in edges}
    seconds = draw(st.one_of(EIGHTHS.map(lambda h: [h] * n), st.lists(EIGHTHS, min_size=n, max_size=n)))
    root = draw(st.one_of(st.none(), st.integers(0, n - 1)))
    return Case(seconds, edges, latency, root, draw(st.sampled_from([0, 3, 5])))


def weights_of(case):
    """(W, A) of a case, dense."""
    n = len(case.seconds)
    pull = push = case.edges
    if case.root is not None:
        down, up = trees(n, {edge: case.edges[edge] + case.latency[edge] for edge in case.edges}, case.root)
        pull = [(down[i], i) for i in range(n) if i != case.root]
        push = [(i, up[i]) for i in range(n) if i != case.root]
    W, A = numpy.eye(n), numpy.eye(n)
    for i, j in pull:
        W[j, i] = 1
    for i, j in push:
        A[j, i] = 1
    return W / W.sum(axis=1, keepdims=True), A / A.sum(axis=0)


@given(case=cases())
@EXACT
def test_it_is_its_reference(case):
    W, A = weights_of(case)
    n, updates = len(case.seconds), 12
    γ = 0.2 / (n * float(perron(W.T) @ perron(A)))
    reference = Listing(Lossy(case.seconds, case.edges, case.latency, case.loses), W, A, 3.0, γ, updates).run()
    parameters = {} if case.root is None else {"root": case.root}

    def lost(source, to):
        numbers = iter(range(10**6))
        return lambda: case.loses(source, to, next(numbers))

    run = Run(toy_on(UNEQUAL, 0.2, parameters, case.seconds, case.graph, updates), lost=lost)
    for i, rows in enumerate(reference.shown):
        assert [row[:2] for row in run.of(i)] == [row[:2] for row in rows]
        assert [row[2] for row in run.of(i)] == pytest.approx([row[2] for row in rows], rel=1e-11, abs=1e-12)
    departures = [departure[1] for departure in reference.ranks.departures]
    assert run.messages() == {edge: departures.count(edge) for edge in set(departures)}
    assert run.ages() == reference.ages


# What the paper claims, on heterogeneous quadratics with exact gradients.

SLOW_LINKS = {"vector_seconds": 0.1}
CONVERGES = {  # stepsize, and the gap after 600 s: depth times delay limits the steps of trees and of the directed ring
    "binary tree": (0.1, 1e-18),
    "line": (0.03, 1e-9),
    "star": (0.2, 1e-24),
    "directed ring": (0.05, 1e-3),
    "exponential": (1.0, 1e-24),
    "ring": (1.0, 1e-24),
    "mesh": (1.0, 1e-24),
    "torus": (1.0, 1e-24),
    "both ways of a tree": (0.5, 1e-7),
}


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_finds_the_optimum_of_all_whatever_gets_lost(architecture, loss):
    stepsize, least = CONVERGES[architecture]
    heterogeneity = {"compute": JITTERED, "links": SLOW_LINKS, "loss": {"probability": loss}}
    gap = simulate(cell_of(stepsize, architecture, heterogeneity, stop={"seconds": 600.0}), seed=0).trace["gap"]
    assert gap[0] > 1 and gap[-1] < least
    assert gap[-1] < gap[300] / 8 < gap[150] / 64


class Mixed(r_fast.RFAST):
    """Models go down a tree, mass goes round a ring: rank 0 is the one root of both."""

    def graphs(self, network):
        return network.tree_from(0), graphs.directed_ring(network.graph.size)


def test_the_two_graphs_may_be_of_different_kinds():
    cell = cell_of(
        0.03, ({"name": "complete"}, {}), {"compute": JITTERED, "links": SLOW_LINKS}, stop={"seconds": 600.0}
    )
    gap = simulate(replace(cell, algorithm=Mixed(0.03)), seed=0).trace["gap"]
    assert gap[-1] < 1e-5 < 1 < gap[0] and gap[-1] < gap[300] / 100


class Increments(r_fast.Mass):
    """Sends what is new, not the totals."""

    def news(self, t, watch):
        for j, (_, increment) in self.push.drain(r_fast.Tag.R):
            yield increment
            self.received[j] = self.received[j] + increment

    def send(self, t, share):
        for j in self.push.destinations:
            self.pushed[j] = self.pushed[j] + share
            self.push.send(j, r_fast.Tag.R, t, share * 1)


class OfIncrements(r_fast.RFAST):
    """None of them may be replaced."""

    newest_only = frozenset({r_fast.Tag.V})


@pytest.mark.parametrize("architecture", ["binary tree", "exponential"])
def test_lost_increments_leave_a_permanent_error_and_lost_totals_do_not(architecture, monkeypatch):
    stepsize, least = CONVERGES[architecture]

    def gap(loss, increments):
        heterogeneity = {"compute": JITTERED, "links": SLOW_LINKS, "loss": {"probability": loss}}
        cell = cell_of(stepsize, architecture, heterogeneity, stop={"seconds": 600.0})
        if not increments:
            return simulate(cell, seed=0).trace["gap"]
        with monkeypatch.context() as patch:
            patch.setattr(r_fast, "Mass", Increments)
            algorithm = OfIncrements(cell.algorithm.stepsize, cell.algorithm.root)
            return simulate(replace(cell, algorithm=algorithm), seed=0).trace["gap"]

    assert max(gap(0.0, increments=True)[-1], gap(0.3, increments=False)[-1]) < least
    wrong = gap(0.3, increments=True)
    assert wrong[-1] > 1e-2 and wrong[-1] == pytest.approx(wrong[300], rel=0.05)


def test_on_a_tree_a_slow_root_slows_the_run_and_a_slow_leaf_hardly():
    def seconds(architecture, slow=None):
        """Until the gap of rank 0's model is 1e-9."""
        times = [5.0 if rank == slow else 1.0 for rank in range(N)]
        heterogeneity = {"compute": {"profile": "fixed", "seconds": times}, "links": SLOW_LINKS}
        stop = {"seconds": 1000.0, "gap": 1e-9}
        cell = cell_of(CONVERGES[architecture][0], architecture, heterogeneity, stop=stop, snapshot={"updates": 1})
        return simulate(cell, seed=0).time_to("gap", 1e-9)

    for architecture, least in (("binary tree", 3), ("star", 3)):
        nobody, leaf, root = (seconds(architecture, slow) for slow in (None, N - 1, 0))
        assert leaf < 1.1 * nobody and least * nobody < root < 5 * nobody
    # where all ranks are roots, it does not matter who is slow
    nobody, one, other = (seconds("exponential", slow) for slow in (None, N - 1, 0))
    assert 1.05 * nobody < one < 1.5 * nobody and other == pytest.approx(one, rel=0.1)


# The scale of steps.


def rounds(W, A, γ):
    """Rounds of the recursion without any delay until the mean of models is within 1e-3 of the optimum."""
    n = len(W)
    X, G = numpy.ones(n), 0.3 * numpy.ones(n) + numpy.linspace(-1, 1, n)  # f_i = 0.15 x^2 + b_i x, x* = 0
    Z = G
    for k in range(1, 100_000):
        X = W @ (X - γ * Z)
        before, G = G, 0.3 * X + numpy.linspace(-1, 1, n)
        Z = A @ (Z + G - before)
        if abs(X.mean()) < 1e-3:
            return k
    raise AssertionError("it does not converge")


def test_without_delay_all_topologies_need_nearly_the_same_number_of_rounds_at_one_scaled_step():
    scaled, unscaled = {}, {}
    for architecture in ARCHITECTURES:
        W, A = dense(architecture)
        scaled[architecture] = rounds(W, A, 0.01 / step_factor(Weights.of(W), Weights.of(A)))
        unscaled[architecture] = rounds(W, A, 0.005)
    assert max(scaled.values()) < 1.05 * min(scaled.values())
    assert unscaled["directed ring"] == pytest.approx(N * unscaled["binary tree"], rel=0.15)


def test_what_is_on_its_way_makes_steps_shorter_where_there_are_cycles():
    # In step, with links faster than a gradient, a rank's z is the share A_ii of the mass that it pushes and keeps, and
    # a round's models are half new: with V = X - γ Z, u.V + Σ_{i != j} u_i W_ij V_j^last moves by γ u.z in a round and
    # has the weight 1 + Σ u_i (1 - W_ii). So the step is γ n Σ u_i A_ii p_i / (1 + Σ u_i (1 - W_ii)), on trees γ n
    seconds, shorter = {}, {}
    for architecture in ARCHITECTURES:
        W, A = dense(architecture)
        u, p = perron(W.T), perron(A)
        shorter[architecture] = float(u @ (numpy.diag(A) * p)) / float(u @ p) / (2 - float(u @ numpy.diag(W)))
        heterogeneity = {"compute": {"profile": "equal"}, "links": {"latency_seconds": 0.25, "vector_seconds": 0.25}}
        stop = {"seconds": 3000.0, "gap": 1e-2}
        cell = cell_of(0.005 / shorter[architecture], architecture, heterogeneity, stop=stop, targets=TO_A_HUNDREDTH)
        seconds[architecture] = simulate(cell, seed=0).time_to("gap", 1e-2)
    assert shorter["line"] == pytest.approx(1) and shorter["ring"] == pytest.approx(1 / 5)
    assert max(seconds.values()) < 1.06 * min(seconds.values())


# What is refused.


def edges(n, *pairs):
    """The [graph] of these edges."""
    return {"size": n, "edges": [{"source": i, "to": j} for i, j in pairs]}


@pytest.mark.parametrize(
    ("graph", "parameters", "text"),
    [
        ({"name": "line", "direction": "down"}, {}, "no common root: models spread from rank 0 .* at rank 2 "),
        (edges(3, (0, 1), (2, 1)), {}, "the pull graph has no root"),
        (edges(3, (1, 0), (1, 2)), {}, "the push graph has no root"),
        ({"name": "line", "direction": "up"}, {"root": 0}, "root = 0 does not reach every rank"),
        ({"name": "line", "direction": "down"}, {"root": 0}, "root = 0 is not reached by every rank"),
        (edges(3, (0, 1), (1, 0), (1, 2)), {"root": 2}, "root = 2 does not reach every rank"),
        ({"name": "complete"}, {"root": 3}, "root = 3 is none of the ranks 0 to 2"),
        (None, {"root": 3}, "root = 3 is none of the ranks 0 to 2"),
    ],
)
def test_a_graph_without_a_common_root_is_refused(graph, parameters, text):
    tables = {"graph": graph} if graph else {}
    with pytest.raises(InvalidInput, match=text) as refusal:
        cells("r_fast", {"stepsize": 0.1} | parameters, [1, 1, 1], **tables)
    assert "[[algorithm]] r_fast" in str(refusal.value) and "\n" not in str(refusal.value)


def test_graphs_with_a_common_root_are_not_refused():
    for graph, parameters in (
        ({"name": "directed_ring"}, {}),
        ({"name": "directed_ring"}, {"root": 2}),
        (edges(3, (0, 1), (1, 0), (1, 2), (2, 1)), {"root": 1}),
    ):
        assert cells("r_fast", {"stepsize": 0.1} | parameters, [1, 1, 1], graph=graph)
    assert cells("r_fast", {"stepsize": 0.1, "root": 2}, [1, 1, 1])
