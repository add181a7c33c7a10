"""Methods that compress: their parents with the identity, their recursions written in another way, and traces by hand.

Randomness is known: worker i draws from generator(seed, METHOD, i), all ranks at step k from (seed, COMPRESSION, 0, k).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy
import pytest
from toy import NEVER, Toy, cells

from mpibench import catalogue, experiment
from mpibench.algorithms.fo_sgd import FOSGD
from mpibench.algorithms.qsgd import QSGD
from mpibench.algorithms.sign_sgd import SignSGD
from mpibench.campaign import at_the_edge
from mpibench.compressors import Memoryless, WrongMessage
from mpibench.compressors.identity import Identity
from mpibench.errors import InvalidInput
from mpibench.node import Communicator, Packed
from mpibench.runner import simulate
from mpibench.seeds import Purpose, generator

STEPS = 12
SEED = 4
NOISY = {
    "problem": {"name": "quadratic", "dimension": 7, "strong_convexity": 0.1, "noise": 0.1, "shift": 0.1},
    "heterogeneity": {"compute": {"profile": "exponential", "unit_seconds": 1.0}},
}


@dataclass(frozen=True)
class Different(Toy):
    """Every worker has its own slope: ∇f_i(x; ξ) = c x - i + ξ."""

    def objective(self, i):
        f = super().objective(i)
        gradient = f.gradient
        f.gradient = lambda x, ξ: gradient(x, ξ) - i
        return f


TOY = Different(
    x=(4.0, -2.0, 0.5, 7.0, -1.0),
    curvature=(0.5, 1.5, 1.0, 0.25, 2.0),
    sample=lambda i, number: ((5 * i + 3 * number) % 7 - 3) / 8,
)


def noisy(name, workers=5, **parameters):
    (cell,) = cells(name, parameters, workers=workers, stop={"updates": 30}, **NOISY)
    return simulate(cell, SEED)


def on_toy(name, n=3, toy=TOY, steps=STEPS, **parameters):
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    (cell,) = cells(name, parameters, [1.0 + i for i in range(n)], targets=targets, stop={"updates": steps})
    return simulate(replace(cell, problem=toy), SEED)


def points(result, toy=TOY):
    """(steps + 1, d): the points of a run."""
    return numpy.stack([result.trace[name] for name in toy.metrics], axis=1)


def gradient(x, i, t, toy=TOY):
    """Of worker i in its step t = 0, 1, ..."""
    return numpy.array(toy.curvature) * x + toy.sample(i, t) - i


def private(n):
    """The generators of workers or peers 1..n."""
    return {i: generator(SEED, Purpose.METHOD, i) for i in range(n + 1)}


def shared(k):
    return SEED, Purpose.COMPRESSION, 0, k


def make(name, **parameters):
    return catalogue.load("compressor", name)(**parameters)


# The identity.


def same(one, other):
    assert one.attrs["model_hash"] == other.attrs["model_hash"]
    assert one.trace["loss"].tolist() == other.trace["loss"].tolist()
    assert one.trace["time"].tolist() == other.trace["time"].tolist()


@pytest.mark.parametrize(
    ("name", "parameters", "parent"),
    [
        ("compressed_minibatch", {"stepsize": 0.3, "compressor": {"name": "identity"}}, "minibatch_sgd"),
        (
            "compressed_minibatch",
            {"stepsize": 0.3, "compressor": {"name": "identity"}, "error_feedback": "step_outside"},
            "minibatch_sgd",
        ),
        # γ moves to the other side of a sum, which is exact for a power of 2
        (
            "compressed_minibatch",
            {"stepsize": 0.25, "compressor": {"name": "identity"}, "error_feedback": "step_inside"},
            "minibatch_sgd",
        ),
        ("power_sgd", {"stepsize": 0.3, "rank": 7}, "ring_all_reduce"),
        ("one_bit_adam", {"stepsize": 0.01, "warmup": 100}, None),
    ],
)
def test_without_compression_a_method_is_its_parent(name, parameters, parent):
    if parent is None:  # in its warm-up 1-bit Adam is Adam, whatever comes later
        other = {"compressor": {"name": "identity"}, "beta2": 0.999}
        same(noisy(name, **parameters), noisy(name, **parameters, **other))
        return
    same(noisy(name, **parameters), noisy(parent, stepsize=parameters["stepsize"]))


def test_with_the_identity_in_the_place_of_their_code_methods_are_minibatch_sgd(monkeypatch):
    identity = Memoryless(Identity())
    monkeypatch.setattr(QSGD, "Q", identity)
    same(noisy("qsgd", stepsize=0.3, levels=1), noisy("minibatch_sgd", stepsize=0.3))
    monkeypatch.setattr(FOSGD, "one_bit", lambda self, rho: identity)
    for both_ways in (False, True):  # blocks of one coordinate: the rotation is a sign, and exact
        found = noisy("fo_sgd", stepsize=0.3, block_bits=0, both_ways=both_ways)
        same(found, noisy("minibatch_sgd", stepsize=0.3))
    rotated = noisy("fo_sgd", stepsize=0.3, block_bits=2).trace["loss"]
    assert rotated == pytest.approx(noisy("minibatch_sgd", stepsize=0.3).trace["loss"], rel=1e-12)
    monkeypatch.setattr(SignSGD, "up", identity)
    monkeypatch.setattr(SignSGD, "down", lambda self, n: identity)
    found = noisy("sign_sgd", workers=4, stepsize=0.125)  # the sum of four is four times their mean
    same(found, noisy("minibatch_sgd", workers=4, stepsize=0.5))


def test_one_bit_adam_with_the_identity_is_adam_whose_variance_is_frozen():
    n, γ, β1, β2, ε, λ, warmup = 3, 0.05, 0.9, 0.99, 1e-8, 0.01, 4
    found = on_toy("one_bit_adam", stepsize=γ, warmup=warmup, beta2=β2, weight_decay=λ, compressor={"name": "identity"})
    x, m, v = numpy.array(TOY.x), numpy.zeros(5), numpy.zeros(5)
    expected = [x]
    for t in range(STEPS):
        g = [gradient(x, i, t) for i in range(1, n + 1)]
        if t < warmup:
            mean = sum(g) / n
            m, v = β1 * m + (1 - β1) * mean, β2 * v + (1 - β2) * mean**2
        else:
            m = sum((β1 * m + (1 - β1) * g_i) / n for g_i in g)
        x = x - γ * (m / (numpy.sqrt(v) + ε) + λ * x)
        expected.append(x)
    numpy.testing.assert_allclose(points(found), expected, rtol=1e-12)


# Recursions.


@pytest.mark.parametrize("error_feedback", ["none", "step_inside", "step_outside"])
@pytest.mark.parametrize(
    "compressor",
    [
        {"name": "top_k", "k": 2},
        {"name": "rand_k", "k": 2},
        {"name": "rand_k", "fraction": 0.4, "scaled": False, "shared": True},
        {"name": "scaled_sign"},
        {"name": "qsgd", "levels": 1},
        {"name": "flattened_one_bit", "block_bits": 2},
        {"name": "threshold", "level": 1.0},
    ],
    ids=str,
)
def test_compressed_minibatch_is_its_recursion(compressor, error_feedback):
    n, γ = 3, 0.15
    found = on_toy("compressed_minibatch", stepsize=γ, compressor=compressor, error_feedback=error_feedback)
    C = make(**compressor)
    draws, e = private(n), {i: numpy.zeros(5) for i in range(1, n + 1)}
    damping = 1.0
    if error_feedback != "none" and (C.omega(5) or 0) >= 1:
        damping = 1 / (1 + C.omega(5))
    x, expected = numpy.array(TOY.x), [numpy.array(TOY.x)]
    for k in range(STEPS):
        total = 0
        for i in range(1, n + 1):
            u = gradient(x, i, k) * (γ if error_feedback == "step_inside" else 1)
            u = u + e[i] if error_feedback != "none" else u
            q = C.decode(C.encode(u, draws[i], shared(k)), u, shared(k)) * damping
            e[i] = u - q
            total = total + q
        x = x - (1 if error_feedback == "step_inside" else γ) * total / n
        expected.append(x)
    numpy.testing.assert_allclose(points(found), expected, rtol=1e-9, atol=1e-12)


def test_both_error_feedbacks_are_one_where_the_step_is_constant():
    inside, outside, none = (
        points(on_toy("compressed_minibatch", stepsize=0.15, compressor={"name": "top_k", "k": 1}, error_feedback=kind))
        for kind in ("step_inside", "step_outside", "none")
    )
    numpy.testing.assert_allclose(inside, outside, rtol=1e-9)
    assert numpy.abs(inside - none).max() > 0.1


def test_error_feedback_by_hand():
    # f_1 = x^2/2 in both coordinates and γ = 1/2; of (4, 3) /2 = (2, 1.5) only 2 is sent, then 1.5 + 1.5, ...
    toy = Toy(x=(4.0, 3.0), curvature=(1.0, 1.0))
    parameters = {"stepsize": 0.5, "compressor": {"name": "top_k", "k": 1}, "error_feedback": "step_inside"}
    found = points(on_toy("compressed_minibatch", n=1, toy=toy, steps=3, **parameters), toy)
    assert found.tolist() == [[4, 3], [2, 3], [2, 0], [0, 0]]


def test_ranks_that_share_a_subset_move_it_alone():
    parameters = {"stepsize": 0.1, "compressor": {"name": "rand_k", "k": 2, "shared": True}}
    moved = numpy.diff(points(on_toy("compressed_minibatch", **parameters)), axis=0) != 0
    assert (moved.sum(axis=1) == 2).all() and len({tuple(row) for row in moved}) > 3
    parameters["compressor"]["shared"] = False
    assert (numpy.diff(points(on_toy("compressed_minibatch", **parameters)), axis=0) != 0).sum(axis=1).max() > 2


def test_qsgd_is_compressed_minibatch_with_its_quantiser():
    one = on_toy("qsgd", stepsize=0.2, levels=3, bucket=2)
    other = on_toy("compressed_minibatch", stepsize=0.2, compressor={"name": "qsgd", "levels": 3, "bucket": 2})
    assert points(one).tolist() == points(other).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_sign_sgd_is_its_recursion(n):
    η, β, λ = 0.25, 0.5, 0.1
    found = on_toy("sign_sgd", n=n, stepsize=η, momentum=β, weight_decay=λ)
    x, v = numpy.array(TOY.x), {i: numpy.zeros(5) for i in range(1, n + 1)}
    expected = [x]
    for k in range(STEPS):
        for i in v:
            v[i] = β * v[i] + (1 - β) * gradient(x, i, k)
        vote = numpy.sign(sum(numpy.where(v_i >= 0, 1.0, -1.0) for v_i in v.values()))
        x = x - η * (vote + λ * x)
        expected.append(x)
    assert points(found).tolist() == [row.tolist() for row in expected]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_tied_vote_is_no_step_and_the_sign_of_zero_is_one(library):
    # two workers of slopes x - 1 and x - 2 agree beyond both, differ between them, and at 1 the first says +1
    toy = Different(x=(4.0, 1.5, 1.0, -1.0), curvature=(1.0,) * 4, library=pytest.importorskip(library))
    two = points(on_toy("sign_sgd", n=2, toy=toy, steps=3, stepsize=0.5), toy)
    # at 2, both say +1 (the second has 0); at 1.5 and 1 they differ
    assert two.T.tolist() == [[4, 3.5, 3, 2.5], [1.5] * 4, [1.0] * 4, [-1, -0.5, 0, 0.5]]
    # three of slopes x - 1, x - 2, x - 3: the majority is where x is from 2, and there is no tie
    three = points(on_toy("sign_sgd", n=3, toy=toy, steps=3, stepsize=0.5), toy)
    assert three.T.tolist() == [[4, 3.5, 3, 2.5], [1.5, 2, 1.5, 2], [1, 1.5, 2, 1.5], [-1, -0.5, 0, 0.5]]


def test_one_worker_of_sign_sgd_is_the_sign():
    one = on_toy("sign_sgd", n=1, stepsize=0.25)
    other = on_toy("compressed_minibatch", n=1, stepsize=0.25, compressor={"name": "sign"})
    assert points(one).tolist() == points(other).tolist()
    assert one.trace["bits"][-1] < other.trace["bits"][-1]  # the way down has a bit a coordinate too


def flattened(rho, bits):
    return make("flattened_one_bit", rho=rho, block_bits=bits)


@pytest.mark.parametrize("bits", [16, 1])
def test_fo_sgd_up_only_is_compressed_minibatch_with_flattened_bits(bits):
    # averaging in the rotated domain or after it is one, up to rounding
    one = on_toy("fo_sgd", stepsize=0.02, rho=2.0, block_bits=bits)
    other = on_toy("compressed_minibatch", stepsize=0.02, compressor=flattened_table(2.0, bits))
    numpy.testing.assert_allclose(points(one), points(other), rtol=1e-9)


def flattened_table(rho, bits):
    return {"name": "flattened_one_bit", "rho": rho, "block_bits": bits}


def walsh_hadamard(n):
    return numpy.array([[(-1) ** bin(i & j).count("1") for j in range(n)] for i in range(n)]) / math.sqrt(n)


@pytest.mark.parametrize("both_ways", [False, True])
def test_fo_sgd_is_its_recursion(both_ways):
    n, γ, ρ, ρ_S = 3, 0.02, 2.0, 1.5
    found = on_toy("fo_sgd", stepsize=γ, rho=ρ, rho_server=ρ_S, both_ways=both_ways)
    draws, H = private(n), walsh_hadamard(8)

    def bits(y, rho, rng):
        level = rho * math.sqrt(sum(y**2)) / math.sqrt(8)
        u = level * (2 * rng.random(8) - 1)
        return numpy.where(y + u >= 0, level, -level)

    x, expected = numpy.array(TOY.x), [numpy.array(TOY.x)]
    for k in range(STEPS):
        byte = numpy.random.default_rng(shared(k)).bytes(1)
        s = numpy.array([1.0 if byte[0] >> c & 1 else -1.0 for c in range(8)])
        y = [H @ (s * numpy.pad(gradient(x, i, k), (0, 3))) for i in range(1, n + 1)]
        mean = sum(bits(y_i, ρ, draws[i]) for i, y_i in enumerate(y, 1)) / n
        if both_ways:
            mean = bits(mean, ρ_S, draws[0])
        x = x - γ * (s * (H @ mean))[:5]
        expected.append(x)
    numpy.testing.assert_allclose(points(found), expected, rtol=1e-9)


def test_the_estimate_of_fo_sgd_is_unbiased():
    # the mean step over many seeds is γ times the mean gradient, its variance about ρ^2/n times that squared
    toy, steps = replace(TOY, sample=lambda i, number: 0.0), []
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    (cell,) = cells("fo_sgd", {"stepsize": 1.0}, [1.0, 1.0], targets=targets, stop={"updates": 1})
    for seed in range(800):
        path = points(simulate(replace(cell, problem=toy), seed), toy)
        steps.append(path[0] - path[1])
    g = [gradient(numpy.array(toy.x), i, 0, toy) for i in (1, 2)]
    mean, deviation = numpy.mean(steps, axis=0), numpy.std(steps, axis=0) / math.sqrt(800)
    assert (numpy.abs(mean - sum(g) / 2) < 4.5 * deviation).all()
    second = sum(9 * sum(g_i**2) for g_i in g) / 4 * 5 / 8  # of 8 coordinates 5 are kept
    assert numpy.var(steps, axis=0).sum() == pytest.approx(second - sum((sum(g) / 2) ** 2) * 5 / 8, rel=0.15)


def sign(y):
    return numpy.where(y >= 0, 1.0, -1.0)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_one_bit_adam_is_its_recursion(n):
    γ, β1, β2, ε, warmup, d = 0.01, 0.8, 0.9, 1e-6, 4, 5
    found = on_toy("one_bit_adam", n=n, stepsize=γ, warmup=warmup, beta1=β1, beta2=β2, epsilon=ε)
    x, m, v = numpy.array(TOY.x), numpy.zeros(d), numpy.zeros(d)
    e, e_server = {i: numpy.zeros(d) for i in range(1, n + 1)}, numpy.zeros(d)
    owners = min(n, d)
    pieces = [slice(d * j // owners, d * (j + 1) // owners) for j in range(owners)]
    expected = [x]
    for t in range(STEPS):
        g = {i: gradient(x, i, t) for i in e}
        if t < warmup:
            mean = sum(g.values()) / n
            m, v = β1 * m + (1 - β1) * mean, β2 * v + (1 - β2) * mean**2  # v stays from here on
        else:
            a = numpy.zeros(d)
            for i in e:
                c = β1 * m + (1 - β1) * g[i] + e[i]
                q = math.sqrt(sum(c**2) / d) * sign(c)  # of the whole vector
                e[i] = c - q
                a += q / n
            a += e_server
            m = numpy.zeros(d)
            for piece in pieces:
                m[piece] = math.sqrt(sum(a[piece] ** 2) / len(a[piece])) * sign(a[piece])
            e_server = a - m
        x = x - γ * m / (numpy.sqrt(v) + ε)
        expected.append(x)
    numpy.testing.assert_allclose(points(found), expected, rtol=1e-9)


def test_where_the_variance_is_zero_one_bit_adam_does_not_move():
    toy = Toy(x=(4.0, 3.0), curvature=(1.0, 0.0))
    found = points(on_toy("one_bit_adam", n=2, toy=toy, stepsize=0.01, warmup=3), toy)
    assert (found[:, 1] == 3.0).all() and (numpy.diff(found[:, 0]) < 0).all()


def test_all_ranks_of_one_bit_adam_and_power_sgd_hold_one_model():
    for name, parameters in (("one_bit_adam", {"warmup": 5}), ("power_sgd", {"rank": 1})):
        targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
        settings = {"stop": {"seconds": 40.5}, "snapshot": {"seconds": 4.0}, "targets": targets}
        (cell,) = cells(name, {"stepsize": 0.01} | parameters, [1.0, 2.0, 3.0, 4.0], **settings)
        assert (simulate(replace(cell, problem=TOY), SEED).trace["consensus"] == 0).all(), name


@dataclass(frozen=True)
class Shaped(Different):
    """A toy whose vector is a 6 x 4 matrix and two numbers."""

    shapes: ClassVar = ((6, 4), (2,))

    def objective(self, i):
        f = super().objective(i)
        f.shapes = self.shapes
        return f


@pytest.mark.parametrize("rank", [1, 2])
def test_power_sgd_is_its_recursion(rank):
    # with the QR of LAPACK in the place of Gram and Schmidt: the same but for signs of columns, which cancel
    draw = numpy.random.default_rng(0)
    x0, curvature = tuple(4 * draw.standard_normal(26)), tuple(0.2 + draw.random(26))
    toy = Shaped(x=x0, curvature=curvature, sample=TOY.sample)
    n, γ, λ = 3, 0.1, 0.5
    found = points(on_toy("power_sgd", toy=toy, stepsize=γ, rank=rank, momentum=λ), toy)
    x, m, e = numpy.array(x0), numpy.zeros(26), {i: numpy.zeros((6, 4)) for i in range(1, n + 1)}
    Q = numpy.random.default_rng(shared(0)).standard_normal(4 * rank).reshape(4, rank)
    expected = [x]
    for t in range(STEPS):
        g = {i: gradient(x, i, t, toy) for i in e}
        G = {i: g[i][:24].reshape(6, 4) + e[i] for i in e}
        P = numpy.linalg.qr(sum(G[i] @ Q for i in e) / n)[0]
        Q = sum(G[i].T @ P for i in e) / n  # and with it the next step begins
        mean = P @ Q.T
        e = {i: G[i] - mean for i in e}
        step = numpy.concatenate([mean.reshape(-1), sum(g_i[24:] for g_i in g.values()) / n])
        m = λ * m + step
        x = x - γ * (step + λ * m)
        expected.append(x)
    # another rank ends the run before rank 0 makes its last step
    numpy.testing.assert_allclose(found[:STEPS], expected[:STEPS], rtol=1e-5, atol=1e-6)


def test_the_warm_start_of_power_sgd_finds_what_has_low_rank():
    # a gradient of rank 1 that hardly changes: one step of the power method with last step's Q is exact
    toy = Shaped(x=(0.0,) * 26, curvature=(0.0,) * 26, sample=lambda i, number: RANK_ONE)
    found = points(on_toy("power_sgd", n=2, toy=toy, steps=4, stepsize=1.0, rank=1), toy)
    numpy.testing.assert_allclose(numpy.diff(found, axis=0)[1:], numpy.tile(1.5 - RANK_ONE, (3, 1)), rtol=1e-6)


RANK_ONE = 1.5 + numpy.append(
    numpy.outer([1.0, -2.0, 0.5, 3.0, 0.0, 1.0], [2.0, 1.0, -1.0, 4.0]).ravel(), [0.25, -0.75]
)


def test_power_sgd_takes_shapes_from_the_problem_or_as_they_are_given():
    toy = Shaped(x=tuple(range(26)), curvature=(1.0,) * 26, sample=TOY.sample)
    own = on_toy("power_sgd", toy=toy, stepsize=0.1, rank=1)
    given = on_toy("power_sgd", toy=replace(TOY, x=toy.x, curvature=toy.curvature), stepsize=0.1, rank=1,
                   shapes=[[6, 4], [2]])  # fmt: skip
    assert points(own, toy).tolist() == points(given, toy).tolist()
    square = on_toy("power_sgd", toy=replace(TOY, x=toy.x, curvature=toy.curvature), stepsize=0.1, rank=1)
    assert own.trace["bits"][-1] / square.trace["bits"][-1] == pytest.approx((6 + 4 + 2) / (6 + 5), rel=0.05)


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_objectives_say_the_shapes_of_their_tensors(name):
    if name == "mlp":
        pytest.importorskip("torch")
    problem = catalogue.load("problem", name)().prepare(2, seed=0)
    shapes = problem.objective(1).shapes
    assert sum(math.prod(shape) for shape in shapes) == problem.dimension and len(shapes[0]) == 2


# What is counted.


@pytest.mark.parametrize(
    ("name", "parameters", "up", "down"),
    [
        ("compressed_minibatch", {"compressor": {"name": "top_k", "k": 2}}, 2 * 64 + 5, 64 * 5),
        ("compressed_minibatch", {"compressor": {"name": "natural"}}, 12 * 5, 64 * 5),
        ("qsgd", {"levels": 4, "bucket": 2}, 4 * 5 + 64 * 3, 64 * 5),
        ("fo_sgd", {}, 8 + 64, 64 * 5),
    ],
)
def test_the_bits_of_a_step_are_those_of_the_paper(name, parameters, up, down):
    steps = 6
    result = on_toy(name, n=3, steps=steps, stepsize=0.01, **parameters)
    assert result.trace["bits"][-1] == 3 * steps * (up + down)


def test_signs_go_both_ways_and_the_model_once():
    assert on_toy("sign_sgd", n=3, steps=6, stepsize=0.01).trace["bits"][-1] == 3 * (64 * 5 + 6 * (5 + 5))
    assert on_toy("sign_sgd", n=4, steps=6, stepsize=0.01).trace["bits"][-1] == 4 * (64 * 5 + 6 * (5 + 2 * 5))
    both = on_toy("fo_sgd", n=3, steps=6, stepsize=0.01, both_ways=True)
    assert both.trace["bits"][-1] == 3 * (64 * 5 + 6 * 2 * (8 + 64))


# Bad input.


@pytest.mark.parametrize(
    ("name", "parameters", "tag", "source"),
    [
        ("compressed_minibatch", {"compressor": {"name": "top_k", "k": 2}}, "GRADIENT", 1),
        ("compressed_minibatch", {"compressor": {"name": "sign"}, "error_feedback": "step_inside"}, "GRADIENT", 1),
        ("qsgd", {"levels": 3}, "GRADIENT", 1),
        ("sign_sgd", {}, "SIGNS", 1),
        ("sign_sgd", {}, "VOTE", 0),
        ("fo_sgd", {}, "BITS", 1),
        ("fo_sgd", {"both_ways": True}, "STEP", 0),
        ("one_bit_adam", {"warmup": 0}, "PIECE", 1),
        ("one_bit_adam", {"warmup": 0}, "MEAN", 1),
    ],
)
def test_a_wrong_message_names_sender_and_tag(monkeypatch, name, parameters, tag, source):
    send = Communicator.send

    def cutting(self, to, with_tag, *body):
        """A byte of what is packed gets lost."""
        if with_tag.name == tag and self.node.rank == source:
            body = [Packed(part.data[:-1], part.bits) if type(part) is Packed else part for part in body]
        return send(self, to, with_tag, *body)

    monkeypatch.setattr(Communicator, "send", cutting)
    with pytest.raises(
        WrongMessage, match=f"^message {tag} from rank {source}, to .* bytes and .* for . numbers of 64 bits"
    ):
        on_toy(name, stepsize=0.1, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("compressed_minibatch", {"compressor": {"name": "top_k", "k": 2}}),
        ("compressed_minibatch", {"compressor": {"name": "terngrad"}, "error_feedback": "step_inside"}),
        ("qsgd", {"levels": 4}),
        ("fo_sgd", {}),
        ("fo_sgd", {"both_ways": True}),
        ("power_sgd", {"rank": 1}),
    ],
)
def test_a_run_that_diverges_is_a_result(name, parameters):
    toy = replace(TOY, curvature=(1e60,) * 5)
    result = on_toy(name, toy=toy, stepsize=1.0, steps=30, **parameters)
    assert result.trace["updates"][-1] >= 29 and not numpy.isfinite(points(result)[-1]).all()


JOB = """
schema = 1
[experiment]
name = "compressors"
workers = 2
seeds = [0]
stop = { updates = 3 }
snapshot = { updates = 1 }
targets = { metric = "gap", values = [1.0], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 10
[heterogeneity]
compute = { profile = "equal" }
[[algorithm]]
name = "compressed_minibatch"
stepsize = [0.1, 0.2]
compressor = COMPRESSOR
"""


def job(tmp_path, compressor):
    file = tmp_path / "job.toml"
    file.write_text(JOB.replace("COMPRESSOR", compressor))
    return experiment.load(file)


def test_a_list_of_compressors_is_a_grid(tmp_path):
    loaded = job(tmp_path, '[{ name = "top_k", k = 3 }, { name = "qsgd", levels = 4 }, { name = "identity" }]')
    found = loaded.cells()
    assert len(found) == 6 and len({cell.hash for cell in found}) == 6
    assert found[0].parameters["compressor"] == {"name": "top_k", "k": 3}
    assert {cell.algorithm.compressor for cell in found} == {make("top_k", k=3), make("qsgd", levels=4), Identity()}
    again = experiment.Experiment.from_resolved(loaded.resolved).cells()
    assert [cell.hash for cell in again] == [cell.hash for cell in found]


@pytest.mark.parametrize(
    ("compressor", "text"),
    [
        ('"top_k"', 'compressor = "top_k" must be a table'),
        ("{ k = 3 }", "compressed_minibatch.compressor lacks `name`, that of a compressor"),
        ('{ name = "topk", k = 3 }', "there is no compressor `topk`; did you mean `top_k`?"),
        ('{ name = "top_k", n = 3 }', "compressed_minibatch.compressor has no key `n`"),
        ('{ name = "top_k", k = 0 }', "k = 0 must be a whole number >= 1"),
        ('{ name = "top_k", k = 11 }', "compressor: top_k with k = 11 cannot keep more than the 10 coordinates"),
        ('{ name = "top_k" }', "compressed_minibatch.compressor top_k needs `k` or `fraction`, and not both"),
        ('{ name = "top_k", fraction = 1.1 }', "fraction = 1.1 must be a number > 0 and <= 1"),
        ('{ name = "qsgd" }', "lacks `levels`"),
        ('{ name = "_sparse", k = 3 }', "there is no compressor `_sparse`"),
        ('{ name = "low_rank", rank = 1, shapes = [[3, 4]] }', "have 12 numbers, and the vector has 10"),
    ],
)
def test_a_wrong_compressor_is_refused_in_one_sentence(tmp_path, compressor, text):
    with pytest.raises(InvalidInput) as refusal:
        job(tmp_path, compressor)
    assert text in str(refusal.value) and "\n" not in str(refusal.value)


def test_pieces_too_short_for_a_compressor_are_refused(tmp_path):
    text = JOB.replace(
        'name = "compressed_minibatch"\nstepsize = [0.1, 0.2]', 'name = "one_bit_adam"\nstepsize = 0.1\nwarmup = 1'
    )
    file = tmp_path / "job.toml"
    file.write_text(text.replace("COMPRESSOR", '{ name = "top_k", k = 6 }'))
    with pytest.raises(InvalidInput, match="cannot keep more than the 5 coordinates"):
        experiment.load(file)


def test_compressors_are_described():
    text = catalogue.describe("top_k")
    assert text.startswith("top_k (compressor)") and "fraction" in text
    assert "a table with the `name` of a compressor; required" in catalogue.describe("compressed_minibatch")
    assert 'default { scale = "l2", name = "scaled_sign" }' in catalogue.describe("one_bit_adam")
    both = catalogue.describe("qsgd")
    assert "qsgd (algorithm)" in both and "qsgd (compressor)" in both


def test_a_table_is_never_at_the_edge_of_a_grid():
    tried = [{"stepsize": s, "compressor": {"name": "top_k", "k": k}} for s in (1.0, 2.0, 4.0) for k in (1, 2)]
    assert at_the_edge(tried[0], tried) == ["stepsize"] and at_the_edge(tried[2], tried) == []
