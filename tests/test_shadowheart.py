"""Shadowheart SGD, its adaptive form and SGDone: runs written out by hand, their parents, and the errors of estimates.

By hand: f(x) = x^2/2 as in `test_server_traces`. A row is (seconds, source, staleness, point after the update).
"""

import math
from dataclasses import replace

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_server_traces import counted, of_workers
from test_traces import rows, run
from toy import Toy, cells, toy_cell

from mpibench.campaign import final_model
from mpibench.compressors._repeated import Repeated, charged_bytes, sender
from mpibench.compressors.identity import Identity
from mpibench.compressors.rand_k import RandK
from mpibench.errors import InvalidInput
from mpibench.experiment import load
from mpibench.runner import simulate
from mpibench.schedule import schedule

RAND_1, IDENTITY = {"name": "rand_k", "k": 1}, {"name": "identity"}
UP = {"vector_seconds": 1.0, "down": {}}


def shadowheart(compressor=RAND_1, noise_ratio=4.0, **more):
    return {"stepsize": 0.5, "noise_ratio": noise_ratio, "compressor": compressor} | more


# By hand.


def test_shadowheart_by_hand():
    # one dimension, in which RandK is the identity: t* = max(2, 8 / (1/1 + 1/2)) = 16/3: 5 and 2 gradients, and the
    # vector once; they end after 6 s and 5 s. g = x + 14 or x - 7: x - (7 x + 5 * 14 - 2 * 7)/14 = x/2 - 4
    toy = of_workers(14, -7)
    result = run("shadowheart", shadowheart(), [1, 2], 3, toy=toy, links=UP)
    assert rows(result) == [(6, 1, 0, 28), (12, 1, 0, 10), (18, 1, 0, 1)]
    assert counted(result) == [15, 6]
    late = run("shadowheart", shadowheart(), [1, 2], 3, toy=toy, links={"vector_seconds": 1.0})  # down as well
    assert rows(late) == [(7, 1, 0, 28), (14, 1, 0, 10), (21, 1, 0, 1)]


def test_who_is_too_slow_or_too_far_away_sits_out():
    # alone the first has s = 8; with the second 16/3 of gradients, but then a vector takes it 9 s
    far = [{"source": 1, "to": 0, "vector_seconds": 1}, {"source": 2, "to": 0, "vector_seconds": 9}]
    far = {"size": 3, "edges": [*far, {"source": 0, "to": 1}, {"source": 0, "to": 2}]}
    settings = {"heterogeneity": {}, "graph": far, "targets": {"metric": "x0", "values": [0.0], "headline": 0.0}}
    (cell,) = cells("shadowheart", shadowheart(), [1, 2], **settings)
    result = simulate(replace(cell, problem=Toy()), 0)
    assert counted(result) == [40, 0] and rows(result)[0] == (9, 1, 0, 32)
    assert result.edges[:, :3].tolist() == [[0, 1, 5], [1, 0, 5]]


def test_messages_are_charged_their_numbers_and_their_places_are_free():
    # 2 τ ω = 2 * 3/4, 2 h σ²/ε = 8: s² = 9.5 s + 12: t* = 10.63, b = 10 and m = 42 messages of 1/4 s, the vector is 1 s
    toy = Toy((64.0, 1.0, 1.0, 1.0), (1.0,) * 4)
    for limit, up, bits in (("none", 10.5, 42 * 64), ("clip", 1.0, 4 * 64), ("dense", 1.0, 256)):
        result = run("shadowheart", shadowheart(limit=limit), [1], 2, toy=toy, links=UP)
        assert [row[0] for row in rows(result)] == [10 + up, 20 + 2 * up]
        (algorithmic,) = result.ledger["algorithmic"][numpy.array(result.ledger["source"]) == 1]
        assert algorithmic == 2 * bits
    # with 2 of 4 numbers a message: ω = 1, 2 τ ω + 8 = 9, 4 τ ω 4 = 8: s² = 9 s + 8: t* = 9.8, m = 19 of half a second
    result = run("shadowheart", shadowheart({"name": "rand_k", "k": 2}, limit="none"), [1], 1, toy=toy, links=UP)
    assert rows(result)[0][0] == 9 + 9.5


def test_adaptive_by_hand():
    # the identity: sums of gradients at 1 2 3 .. and 1.5 3 .., each on its way for a quarter of a second; 3 are enough:
    # 1 at 1.25, 1 more at 1.75 and the second of worker 1 at 2.25
    parameters = {"stepsize": 0.5, "noise_ratio": 3.0, "compressor": IDENTITY}
    links = {"vector_seconds": 0.25, "down": {}}
    result = run("adaptive_shadowheart", parameters, [1, 1.5], 2, toy=of_workers(8, -16), links=links)
    assert rows(result) == [
        (2.25, 1, 0, 32),  # 64 - (3 * 64 + 2 * 8 - 16)/6
        (4.5, 1, 0, 16),  # everybody begins again at 2.25
    ]
    assert counted(result) == [4, 2] and counted(result, "stopped") == [1, 1]


def test_adaptive_repeats_a_sum_until_it_is_as_long_as_the_vector():
    # four numbers of 1/4 s: after the first gradient, at 4, four messages of one each at 4.25 4.5 4.75 5, then none
    # until 8; with one gradient w a = m/(3 + (3 + m)/2): 0.2 0.36 0.5 0.62
    parameters = {"stepsize": 0.5, "noise_ratio": 0.5, "compressor": RAND_1}
    toy = Toy((64.0,) * 4, (1.0,) * 4)
    result = run("adaptive_shadowheart", parameters, [4], 1, toy=toy, links=UP)
    # with four of two gradients more, m = 5 6 7 8, a = 6 8 10 12, q = 8 12 16 20: w a = a / (3 q/a + (3 + m)/2)
    precision = [a / (3 * q / a + (3 + m) / 2) for m, a, q in ((5, 6, 8), (6, 8, 12), (7, 10, 16), (8, 12, 20))]
    assert precision[0] < 1 > 0.9 and [round(p, 3) for p in precision[:2]] == [0.75, 0.889]
    assert precision[1] < 1 < precision[2]
    assert rows(result)[0][:3] == (8.75, 1, 0)
    assert result.edges[:, 2].tolist() == [1, 7] and counted(result) == [2]
    # two at a time: two messages of two each, then at 8.5 m = 6, a = 8, q = 12, and at 9 m = 8, a = 12
    result = run("adaptive_shadowheart", parameters | {"packed": 2}, [4], 1, toy=toy, links=UP)
    assert rows(result)[0][0] == 9 and result.edges[:, 2].tolist() == [1, 4]


def test_sgd_one_by_hand():
    # the second of three is the fastest: 64 -> 64 - (64 + 4)/2
    result = run("sgd_one", {"stepsize": 0.5}, [3, 2, 5], 3, toy=of_workers(1, 4, 9), links=UP)
    assert rows(result) == [(2, 2, 0, 30), (4, 2, 0, 13), (6, 2, 0, 4.5)]
    assert counted(result) == [0, 3, 0] and result.trace["messages"][-1] == 0
    assert counted(run("sgd_one", {"stepsize": 0.5}, [2, 2], 3)) == [3, 0]
    assert final_model(toy_cell("sgd_one", {"stepsize": 0.5}, [2, 2])) == "the fastest worker's"


# Parents.


@pytest.mark.parametrize("limit", ["dense", "clip"])
@pytest.mark.parametrize(
    ("seconds", "noise_ratio"),
    [([1, 1, 1], 3.0), ([1, 1, 1], 11.3), ([1, 2, 4, 4], 0.7), ([1, 2, 4, 4], 5.0), ([0.3, 0.6, 0.6, 1.2, 6], 11.3)],
)
def test_with_the_identity_it_is_load_balanced_minibatch(seconds, noise_ratio, limit):
    """To the last bit, where the shares of that method are the b_i."""
    toy = Toy((3.0, -1.0, 0.1), (0.2, 1.0, 0.7), lambda i, number: numpy.sin([i, number, i * number]))
    b = schedule(0, noise_ratio, seconds, [0.25] * len(seconds)).b.tolist()
    parent = {"stepsize": 0.1, "batch": sum(b)}
    assert toy_cell("load_balanced_minibatch", parent, seconds).algorithm.shares(seconds) == b
    own = shadowheart(IDENTITY, noise_ratio, limit=limit, stepsize=0.1)
    both = [
        run(name, parameters, seconds, 20, toy=toy, links={"vector_seconds": 0.25})
        for name, parameters in (("shadowheart", own), ("load_balanced_minibatch", parent))
    ]
    assert rows(both[0]) == rows(both[1]) and len(rows(both[0])) == 20
    assert both[0].attrs["model_hash"] == both[1].attrs["model_hash"]
    assert counted(both[0]) == counted(both[1])


@pytest.mark.parametrize("batch", [1, 3, 4, 9])
def test_with_the_identity_the_adaptive_one_is_rennala_with_stops(batch):
    """Binary fractions, as the order of additions is another; links on which a sum is away before the next is there."""
    toy = Toy((64.0, 8.0), (0.5, 1.0), lambda i, number: float(i + number % 3))
    settings = {"seconds": [1, 1.5, 2.25], "links": {"vector_seconds": 0.125, "down": {}}, "toy": toy, "updates": 8}
    adaptive = {"stepsize": 2.0**-4 * batch, "noise_ratio": float(batch), "compressor": IDENTITY}
    rennala = {"stepsize": 2.0**-4 * batch, "batch": batch, "stop_stale": True}
    ours, parent = run("adaptive_shadowheart", adaptive, **settings), run("rennala", rennala, **settings)
    for mine, theirs in zip(rows(ours), rows(parent), strict=True):
        assert mine[:3] == theirs[:3] and mine[3] == pytest.approx(theirs[3], abs=1e-13)
    assert batch in (3, 9) or rows(ours) == rows(parent)  # a third is rounded
    assert ours.ranks["gradients"].tolist() == parent.ranks["gradients"].tolist()


# Steps.

times = st.lists(st.tuples(st.floats(0.05, 20), st.floats(0.05, 40)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(times, st.floats(0, 50), st.sampled_from(["dense", "clip", "none"]), st.integers(1, 5))
def test_a_step_never_lasts_longer_than_twice_the_equilibrium_time(pairs, noise_ratio, limit, k):
    h, up = map(list, zip(*[(round(s, 9), round(v, 9)) for s, v in pairs], strict=True))
    edges = [{"source": i, "to": 0, "vector_seconds": v} for i, v in enumerate(up, 1)]
    edges += [{"source": 0, "to": i} for i in range(1, len(h) + 1)]
    more = {"heterogeneity": {}, "graph": {"size": len(h) + 1, "edges": edges}, "stop": {"updates": 3}}
    more |= {"problem": {"name": "quadratic", "dimension": 5}}
    (cell,) = cells("shadowheart", shadowheart({"name": "rand_k", "k": k}, noise_ratio, limit=limit), h, **more)
    t = schedule(5 / k - 1, noise_ratio, h, [v * k / 5 for v in up]).seconds
    ends = numpy.array([0, *simulate(cell, 0).updates["time"]])
    assert len(ends) == 4 and numpy.diff(ends).max() <= 2 * t * (1 + 1e-9) + 1e-8  # of rounding to nanoseconds


# Estimates.


def draws(plan, gradient, σ, d, k, count, rng):
    """(count, d) estimates of a schedule, RandK and Gaussian noise written out anew."""
    total = numpy.zeros((count, d))
    for b, m, w, dense in zip(plan.b, plan.m, plan.w, plan.dense, strict=True):
        G = b * gradient + math.sqrt(b) * σ / math.sqrt(d) * rng.standard_normal((count, d))
        for _ in range(m):
            C = G
            if not dense:
                kept = rng.random((count, d)).argsort(axis=1) < k
                C = d / k * G * kept
            total += w * C
    return total / plan.Z


@pytest.mark.parametrize("limit", ["none", "dense"])
@pytest.mark.parametrize(("d", "k", "ratio"), [(5, 1, 2.0), (5, 2, 0.3), (3, 1, 0.0)])
def test_the_estimate_is_unbiased_with_the_variance_of_the_theory(d, k, ratio, limit):
    gradient, ε, count = numpy.arange(1.0, d + 1), 4.0, 100_000
    plan = schedule(d / k - 1, ratio, [1, 2, 5], [0.5, 3.0, 0.7], d / k, limit)
    σ = math.sqrt(ratio * ε)
    g = draws(plan, gradient, σ, d, k, count, numpy.random.default_rng(3))
    variance = ((g - gradient) ** 2).sum(axis=1)
    standard = g.std(axis=0) / math.sqrt(count)
    assert (abs(g.mean(axis=0) - gradient) <= 5 * standard + 1e-12).all()
    κ, ν = plan.variance
    exact = κ * gradient @ gradient + ν * σ**2  # of RandK, whose ω is attained
    assert variance.mean() == pytest.approx(exact, rel=0.02, abs=1e-12)
    assert variance.mean() <= (gradient @ gradient + ε) / plan.Z * 1.01


def steps(name, parameters, seconds, gradient, σ, updates, links):
    """(updates, d) estimates behind the steps of a run: f is linear, so they do not depend on the point."""
    d = len(gradient)
    noise = numpy.random.default_rng(8).standard_normal((len(seconds), 40 * updates, d)) * σ / math.sqrt(d)
    toy = Toy((0.0,) * d, (0.0,) * d, lambda i, number: gradient + noise[i - 1, number])
    result = run(name, parameters | {"stepsize": 1.0}, seconds, updates, toy=toy, links=links)
    x = numpy.array([result.trace[f"x{c}"] for c in range(d)]).T
    return -numpy.diff(x, axis=0)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("shadowheart", {"limit": "none"}),
        ("shadowheart", {"limit": "dense"}),
        ("adaptive_shadowheart", {}),
        ("adaptive_shadowheart", {"packed": 2}),
    ],
)
def test_runs_have_such_estimates(name, more):
    gradient, ε, ratio, seconds = numpy.array([1.0, -2.0, 3.0, 0.5]), 4.0, 1.5, [1.0, 2.3, 5.1]
    count = 5000 if name == "shadowheart" else 1000
    g = steps(name, shadowheart(RAND_1, ratio, **more), seconds, gradient, math.sqrt(ratio * ε), count, UP)
    standard = g.std(axis=0) / math.sqrt(len(g))
    assert (abs(g.mean(axis=0) - gradient) <= 4 * standard).all() and (standard > 0).all()
    variance = ((g - gradient) ** 2).sum(axis=1).mean()
    bound = gradient @ gradient + ε
    assert 0.05 * bound < variance <= bound
    if name == "shadowheart":
        plan = schedule(3, ratio, seconds, [0.25] * 3, 4, more["limit"])
        κ, ν = plan.variance
        assert variance == pytest.approx(κ * gradient @ gradient + ν * ratio * ε, rel=0.1)


# What is packed.


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("times", [1, 3, 50])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_the_sum_of_messages_survives_its_bytes(kind, times, k):
    rng, x = numpy.random.default_rng(5), numpy.random.default_rng(6).standard_normal(7).astype(kind)
    codec = Repeated(RandK(k=k), times)
    packed = codec.encode(x, rng)
    y = codec.decode(packed, x)
    assert packed.bits == 8 * packed.data.size and y.dtype == x.dtype
    counts = y / x * k / 7  # how often a coordinate was drawn
    assert counts == pytest.approx(numpy.round(counts), abs=1e-4) and round(counts.sum()) == times * k
    assert counts.max() < times + 0.1 and (k < 7 or (y == times * x).all() or kind == "float32")
    assert charged_bytes(RandK(k=k), 7, x.nbytes) == k * x.itemsize


def test_one_message_is_the_message_of_the_compressor_and_none_is_the_vector():
    x = numpy.arange(5.0)
    one = Repeated(RandK(k=2), 1)
    y = one.decode(one.encode(x, numpy.random.default_rng(1)), x)
    assert (y == RandK(k=2).decode(RandK(k=2).encode(x, numpy.random.default_rng(1)), x)).all()
    whole = sender(RandK(k=2), 0)
    assert (whole.decode(whole.encode(x, None), x) == x).all() and whole.encode(x, None).bits == 5 * 64
    three = Repeated(Identity(), 3)
    packed = three.encode(x, None)
    assert (three.decode(packed, x) == 3 * x).all() and packed.bits == 3 * 5 * 64 == 8 * packed.data.size


def test_a_vector_that_diverged_goes_as_it_is():
    codec, x = sender(RandK(k=1), 4), numpy.array([1.0, math.inf])
    assert codec.decode(codec.encode(x, numpy.random.default_rng(0)), x)[1] == math.inf


def test_a_sum_that_nobody_can_have_sent_is_refused_with_its_sender():
    codec, x = sender(RandK(k=1), 4), numpy.ones(5)
    packed = codec.encode(x, numpy.random.default_rng(0))
    for data in (packed.data[:-1], packed.data[:3], numpy.concatenate([packed.data, packed.data])):
        with pytest.raises(InvalidInput, match="message 1 from rank 3, to 4 times rand_k, has"):
            codec.decode(replace(packed, data=data), x, source=3, tag=1)


# Refused.

JOB = """
schema = 1
[experiment]
name = "links"
workers = 3
seeds = [0]
stop = { updates = 2 }
snapshot = { updates = 1 }
targets = { metric = "loss", values = [1.0], headline = 1.0 }
[problem]
name = "quadratic"
dimension = 5
[heterogeneity]
compute = { profile = "equal" }
links = { vector_seconds = 1.0 }
[[algorithm]]
name = "shadowheart"
stepsize = 0.1
noise_ratio = 1.0
compressor = { name = "rand_k", k = 1 }
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "vector_seconds = 1.0",
            "vector_seconds = 0.0",
            "shadowheart needs links that take time, and the one from rank 1",
        ),
        ("vector_seconds = 1.0", "latency_seconds = 1.0", "shadowheart needs links that take time"),
        ("vector_seconds = 1.0", "down = { vector_seconds = 1.0 }", "shadowheart needs links that take time"),
        ('profile = "equal"', 'profile = "fixed", seconds = [1.0, 0.0, 1.0]', "compute] seconds"),
        ("k = 1 }", "k = 6 }", "cannot keep more than the 5 coordinates"),
        ("k = 1 }", "k = 1, scaled = false }", "compressor rand_k is biased"),
        ("k = 1 }", "k = 1, shared = true }", "draws alike on all ranks"),
        ('"links"', '"links"\nengine = "mpi"\nclock = "native"', "shadowheart cannot run on the native clock"),
    ],
)
def test_what_has_no_schedule_is_refused_before_anything_starts(tmp_path, old, new, said):
    assert old in JOB
    (tmp_path / "job.toml").write_text(JOB)
    load(tmp_path / "job.toml")
    (tmp_path / "job.toml").write_text(JOB.replace(old, new))
    with pytest.raises(InvalidInput) as refusal:
        load(tmp_path / "job.toml")
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_links_of_a_graph_are_looked_at_one_by_one(tmp_path):
    graph = "\n".join(
        ["[graph]", "size = 4", "edges = ["]
        + [f"{{ source = 0, to = {i} }}, {{ source = {i}, to = 0, vector_seconds = {3 - i}.0 }}," for i in (1, 2, 3)]
        + ["]", "[[algorithm]]"]
    )
    (tmp_path / "job.toml").write_text(JOB.replace("[[algorithm]]", graph))
    with pytest.raises(InvalidInput, match="the one from rank 3 to the server takes none"):
        load(tmp_path / "job.toml")
