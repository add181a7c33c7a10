"""The synchronous network methods against their recursions in matrices, and against Minibatch SGD.

f_i(x) = c_i x^2/2 - b_i x with a noise that depends on worker and job only, so that all of it can be written in numpy.
"""

from dataclasses import dataclass, replace

import numpy
import pytest
from toy import NEVER, Toy, cells

from mpibench import topology, weights
from mpibench.errors import InvalidInput
from mpibench.runner import simulate

STEPS = 12
GRAPHS = {
    "complete": {"name": "complete"},
    "ring": {"name": "ring"},
    "line": {"name": "line"},
    "star": {"name": "star"},
    "exponential": {"name": "exponential"},
}


@dataclass(frozen=True)
class Different(Toy):
    """Every worker has its own slope: ∇f_i(x; ξ) = c x - i + ξ."""

    def objective(self, i):
        f = super().objective(i)
        gradient = f.gradient
        f.gradient = lambda x, ξ: gradient(x, ξ) - i
        return f


TOY = Different(x=(4.0, -2.0), curvature=(0.5, 1.5), sample=lambda i, number: ((5 * i + 3 * number) % 7 - 3) / 8)


def run(name, parameters, graph, n=5, seconds=None, toy=TOY, **settings):
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    settings = {"stop": {"seconds": STEPS + 0.5}, "snapshot": {"seconds": 1.0}} | settings
    (cell,) = cells(name, parameters, seconds or [1.0] * n, graph=graph, targets=targets, **settings)
    return simulate(replace(cell, problem=toy), seed=0)


def gradient(X, t):
    """(n, d): the gradients of all ranks at their models, in step t."""
    noise = numpy.array([[TOY.sample(i, t)] for i in range(1, len(X) + 1)])
    return X * numpy.array(TOY.curvature) + noise - numpy.arange(1, len(X) + 1)[:, None]


def start(n):
    return numpy.tile(numpy.array(TOY.x), (n, 1))


def means(found):
    """(steps + 1, d): the mean model at the whole seconds, when a step of one second has just been made."""
    return numpy.stack([found.trace["x0"], found.trace["x1"]], axis=1)[: STEPS + 1]


def check(found, expected, atol=1e-12):
    numpy.testing.assert_allclose(means(found), [X.mean(axis=0) for X in expected], atol=atol, rtol=1e-12)
    consensus = [((X - X.mean(axis=0)) ** 2).sum() / len(X) for X in expected]
    numpy.testing.assert_allclose(found.trace["consensus"][: STEPS + 1], consensus, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("name", ["d_psgd", "d_psgd_atc"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_d_psgd_is_its_recursion(name, graph):
    if graph == "exponential":
        with pytest.raises(InvalidInput, match=f"{name} Metropolis weights need edges both ways"):
            run(name, {"stepsize": 0.25}, GRAPHS[graph])
        return
    W = weights.metropolis(topology.build(GRAPHS[graph], 5)).matrix
    expected = [start(5)]
    for t in range(STEPS):
        X = expected[-1]
        G = 0.25 * gradient(X, t)
        expected.append(W @ X - G if name == "d_psgd" else W @ (X - G))
    check(run(name, {"stepsize": 0.25}, GRAPHS[graph]), expected)


@pytest.mark.parametrize("graph", GRAPHS)
def test_s_ab_is_its_recursion_and_tracks_the_sum_of_gradients(graph):
    built = topology.build(GRAPHS[graph], 5)
    W, A = weights.uniform_row(built).matrix, weights.uniform_column(built).matrix
    X = start(5)
    Y = G = gradient(X, 0)
    expected = [X]
    for t in range(STEPS):
        X, tracked = W @ X - 0.1 * Y, A @ Y
        new = gradient(X, t + 1)
        Y, G = tracked + new - G, new
        numpy.testing.assert_allclose(Y.sum(axis=0), G.sum(axis=0))
        expected.append(X)
    # a gradient takes a second, and a point is shown as soon as it is there, before its own gradient
    check(run("s_ab", {"stepsize": 0.1}, GRAPHS[graph]), expected)


@pytest.mark.parametrize("root", [None, 0, 2])
def test_push_pull_is_its_recursion(root):
    graph = topology.build({"name": "line"}, 5)
    pull = push = graph
    if root is not None:  # the trees of a line
        towards = {(a, b): None for a, b in graph.edges if abs(b - root) < abs(a - root)}
        push = topology.Graph(5, towards)
        pull = topology.Graph(5, {(b, a): None for a, b in towards})
    W, A = weights.uniform_row(pull).matrix, weights.uniform_column(push).matrix
    X = start(5)
    Y = G = gradient(X, 0)
    expected = [X]
    for t in range(STEPS):
        X, tracked = W @ (X - 0.05 * Y), A @ Y
        new = gradient(X, t + 1)
        Y, G = tracked + new - G, new
        expected.append(X)
    parameters = {"stepsize": 0.05} | ({} if root is None else {"root": root})
    check(run("push_pull", parameters, {"name": "line"}), expected)


@pytest.mark.parametrize("name", ["s_ab", "push_pull"])
def test_a_graph_without_ways_back_is_refused(name):
    with pytest.raises(InvalidInput, match=f"{name} needs a strongly connected graph"):
        run(name, {"stepsize": 0.1}, {"name": "line", "direction": "down"})


def test_push_pull_refuses_a_root_that_is_no_rank():
    with pytest.raises(InvalidInput, match=r"root = 5 is none of the ranks 0 to 4"):
        run("push_pull", {"stepsize": 0.1, "root": 5}, {"name": "ring"})


@pytest.mark.parametrize("at_average", ["keep", "reset", "average"])
@pytest.mark.parametrize(("H", "momentum"), [(1, 0.0), (3, 0.0), (3, 0.5), (4, 0.9)])
def test_local_sgd_is_its_recursion(H, momentum, at_average):
    expected, M = [start(5)], 0.0
    for t in range(STEPS):
        X = expected[-1]
        M = momentum * M + gradient(X, t)
        X = X - 0.125 * M
        if (t + 1) % H == 0:
            X = numpy.tile(X.mean(axis=0), (5, 1))
            M = {"keep": M, "reset": 0 * M, "average": numpy.tile(M.mean(axis=0), (5, 1))}[at_average]
        expected.append(X)
    parameters = {"stepsize": 0.125, "local_steps": H, "momentum": momentum, "at_average": at_average}
    check(run("local_sgd", parameters, GRAPHS["complete"]), expected)


@pytest.mark.parametrize("seconds", [[1.0] * 5, [0.5, 1.0, 0.25, 0.75, 1.0]])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ring_all_reduce", {}), ("d_psgd_atc", {}), ("local_sgd", {"local_steps": 1}), ("tree_minibatch", {})],
)
def test_on_the_complete_graph_they_are_minibatch_sgd(name, parameters, seconds):
    # on links that take no time a step lasts as long as its slowest rank
    found = run(name, {"stepsize": 0.25, **parameters}, GRAPHS["complete"], seconds=seconds)
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    settings = {"stop": {"seconds": STEPS + 0.5}, "snapshot": {"seconds": 1.0}, "targets": targets}
    (cell,) = cells("minibatch_sgd", {"stepsize": 0.25}, seconds, **settings)
    minibatch = simulate(replace(cell, problem=TOY), seed=0)
    numpy.testing.assert_allclose(means(found), means(minibatch), atol=1e-12)


def test_without_neighbours_they_are_sgd():
    for name in ("ring_all_reduce", "d_psgd", "d_psgd_atc", "s_ab", "push_pull"):
        found = run(name, {"stepsize": 0.25}, GRAPHS["complete"], n=1, stop={"updates": 5}, snapshot={"updates": 1})
        x = start(1)
        for t in range(6):
            assert numpy.array_equal([found.trace["x0"][t], found.trace["x1"][t]], x[0]), name
            if t < 5:
                x = x - 0.25 * gradient(x, t)


def test_all_ranks_of_an_all_reduce_have_the_same_bits():
    found = run("ring_all_reduce", {"stepsize": 0.25}, GRAPHS["complete"])
    assert (found.trace["consensus"] < 1e-30).all()
