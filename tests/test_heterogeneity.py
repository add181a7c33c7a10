"""Profiles, links and loss: exact values, rounding, laws, and the same path for the same generator."""

import math

import numpy
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from mpibench.errors import InvalidInput
from mpibench.heterogeneity import PROFILES, Fixed, Links, Lognormal, Loss, Papaya, Power, Way
from mpibench.topology import Graph, Link

EXAMPLES = {
    "equal": {"unit_seconds": 0.25},
    "fixed": {"seconds": (1.0, 2.3, 4.1)},
    "sqrt": {"unit_seconds": 2.0},
    "linear": {"unit_seconds": 0.1},
    "power": {"unit_seconds": 0.5, "exponent": 0.25},
    "lognormal": {},
    "exponential": {"unit_seconds": 3.0},
    "papaya": {"unit_seconds": 10.0},
}
RANDOM = ("lognormal", "exponential", "papaya")


def rng(key=0):
    return numpy.random.default_rng(key)


def test_every_profile_has_an_example():
    assert EXAMPLES.keys() == PROFILES.keys()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("equal", [250_000_000, 250_000_000, 250_000_000]),
        ("fixed", [1_000_000_000, 2_300_000_000, 4_100_000_000]),
        ("sqrt", [2_000_000_000, 2_828_427_125, 3_464_101_615]),
        ("linear", [100_000_000, 200_000_000, 300_000_000]),
        ("power", [500_000_000, 594_603_558, 658_037_006]),
    ],
)
def test_constant_profiles_take_their_formula_in_whole_nanoseconds(name, expected):
    profile = PROFILES[name](**EXAMPLES[name])
    jobs = [profile.durations(i, 3, rng()) for i in (1, 2, 3)]
    assert [job(1.0, 0) for job in jobs] == expected
    assert [type(job(0.5, 7)) for job in jobs] == [int] * 3
    assert [job(2.5, 7) for job in jobs] == pytest.approx([2.5 * ns for ns in expected], abs=3)
    assert profile.mean_seconds(3) == pytest.approx(numpy.array(expected) / 1e9, abs=1e-9)
    assert profile.smallest_seconds(3) == pytest.approx(min(expected) / 1e9, abs=1e-9)


def test_costs_are_rounded_once():
    job = Fixed(seconds=(1.4e-9,)).durations(1, 1, rng())
    assert [job(cost, 0) for cost in (1.0, 2.0, 3.0)] == [1, 3, 4]  # 1.4, 2.8 and 4.2 ns


def test_fixed_needs_one_number_for_each_worker():
    for use in (lambda p: p.mean_seconds(4), lambda p: p.smallest_seconds(4), lambda p: p.durations(1, 4, rng())):
        with pytest.raises(InvalidInput, match="3 seconds for 4 workers"):
            use(Fixed(seconds=(1.0, 2.0, 3.0)))


@pytest.mark.parametrize("name", RANDOM)
def test_random_profiles_are_paired_by_their_generator(name):
    profile = PROFILES[name](**EXAMPLES[name])
    one, same, other = (profile.durations(2, 5, rng(key)) for key in (1, 1, 2))
    path = [one(1.0, now) for now in range(20)]
    assert [same(1.0, 10 * now) for now in range(20)] == path
    assert [other(1.0, now) for now in range(20)] != path
    assert len(set(path)) == 20 and all(type(ns) is int and ns >= 0 for ns in path)
    double = profile.durations(2, 5, rng(1))
    assert [double(2.0, 0) for _ in range(20)] == pytest.approx([2 * ns for ns in path], abs=2)


def drawn(profile, jobs=4000):
    job = profile.durations(2, 5, rng(3))
    return numpy.array([job(1.0, 0) for _ in range(jobs)]) / 1e9


@pytest.mark.parametrize(
    ("profile", "law"),
    [
        (PROFILES["exponential"](unit_seconds=3.0), stats.expon(scale=3.0)),
        (Lognormal(sigma=0.8, unit_seconds=2.0), stats.lognorm(s=0.8, scale=2.0 * math.exp(-0.32))),
        (Papaya(), stats.lognorm(s=0.1, scale=Papaya().seconds_of(2, 5))),
    ],
)
def test_random_times_follow_their_law(profile, law):
    assert stats.kstest(drawn(profile), law.cdf).pvalue > 0.01
    assert profile.mean_seconds(5)[1] == pytest.approx(law.mean())


def test_smallest_seconds_is_the_one_percent_quantile_of_a_job():
    assert PROFILES["exponential"]().smallest_seconds(5) == pytest.approx(stats.expon.ppf(0.01))
    per_job = Lognormal(sigma=0.8)
    assert per_job.smallest_seconds(5) == pytest.approx(stats.lognorm(s=0.8, scale=math.exp(-0.32)).ppf(0.01))
    persistent = Lognormal(sigma=0.8, persistent=True)  # of the fastest worker: P(all 50 slower) = 0.99
    assert stats.lognorm(s=0.8, scale=math.exp(-0.32)).sf(persistent.smallest_seconds(50)) ** 50 == pytest.approx(0.99)
    assert (drawn(Papaya()) > Papaya().smallest_seconds(5)).all()


def test_lognormal_is_drawn_for_every_job_or_kept():
    kept = Lognormal(persistent=True).durations(1, 4, rng(0))
    assert len({kept(1.0, now) for now in range(10)}) == 1
    afresh = Lognormal().durations(1, 4, rng(0))
    assert afresh(1.0, 0) == kept(1.0, 0)  # the same draw of the same stream
    assert afresh(1.0, 0) != kept(1.0, 0)


def test_papaya_is_stratified():
    law = stats.lognorm(s=1.1, scale=7.0 * math.exp(-1.1**2 / 2))
    profile = Papaya(unit_seconds=7.0, jitter=0.0)
    quantiles = law.ppf((numpy.arange(1, 9) - 0.5) / 8)
    assert profile.mean_seconds(8) == pytest.approx(quantiles)
    for seed in (0, 1):  # the same workers whatever the seed
        times = [profile.durations(i, 8, rng(seed))(1.0, 0) for i in range(1, 9)]
        assert times == [round(q * 1e9) for q in profile.mean_seconds(8)]
    thousand = profile.mean_seconds(1000)
    assert thousand.mean() == pytest.approx(7.0, rel=0.01)
    assert thousand.max() / thousand.mean() > 15  # the spread that was reported: about 21 expected of random draws


def test_links_charge_latency_and_nothing_else_by_default():
    edge = Links(latency_seconds=1e-3).edge(0, 1, 0, 800)
    assert (edge.latency_ns, edge.instant, edge.transmission(800, 16)) == (1_000_000, True, 0)


def test_vector_seconds_charge_vectors_by_their_share():
    edge = Links(vector_seconds=0.1).edge(1, 0, 0, 800)
    assert not edge.instant
    assert edge.transmission(800, 10**6) == 100_000_000
    assert edge.transmission(1600, 0) == 200_000_000
    assert edge.transmission(1, 0) == 125_000
    assert edge.transmission(0, 16) == 0
    assert Links(vector_seconds=1e-9).edge(1, 0, 0, 3).transmission(2, 0) == 1  # 2/3 ns, rounded once
    assert Links(vector_seconds=0.0).edge(1, 0, 0, 800).instant


def test_bandwidth_charges_every_byte():
    edge = Links(bandwidth_bytes_per_second=1e9).edge(1, 0, 0, 800)
    assert not edge.instant
    assert (edge.transmission(800, 16), edge.transmission(0, 16), edge.transmission(0, 0)) == (816, 16, 0)


def test_down_is_the_way_from_the_server_and_complete_in_itself():
    links = Links(latency_seconds=0.5, vector_seconds=0.1, down=Way(vector_seconds=0.2))
    down, up = links.edge(0, 3, 0, 8), links.edge(3, 0, 0, 8)
    assert (down.latency_ns, down.transmission(8, 0)) == (0, 200_000_000)
    assert (up.latency_ns, up.transmission(8, 0)) == (500_000_000, 100_000_000)
    among_peers = links.edge(0, 3, None, 8)
    assert (among_peers.latency_ns, among_peers.transmission(8, 0)) == (500_000_000, 100_000_000)


def test_an_edge_of_the_graph_replaces_what_it_names():
    links = Links(latency_seconds=0.5, vector_seconds=0.1)
    own = {
        (0, 1): Link(latency_seconds=0.25),
        (1, 0): Link(bandwidth_bytes_per_second=1e9),
        (1, 2): Link(vector_seconds=0.0),
        (2, 1): None,
    }
    times = []
    for source, to in own:
        edge = links.edge(source, to, None, 8, Graph(3, own))
        times.append((edge.latency_ns, edge.instant, edge.transmission(8, 8)))
    assert times == [
        (250_000_000, False, 100_000_000),
        (500_000_000, False, 16),
        (500_000_000, True, 0),
        (500_000_000, False, 100_000_000),
    ]


def test_bandwidth_and_vector_seconds_exclude_each_other():
    for cls in (Way, Links):
        with pytest.raises(InvalidInput, match="not both"):
            cls(bandwidth_bytes_per_second=1e9, vector_seconds=1.0)


def test_loss_has_its_probability_and_its_limit():
    lost = Loss(probability=0.3).edge(rng(5))
    path = [lost() for _ in range(5000)]
    assert stats.binomtest(sum(path), 5000, 0.3).pvalue > 0.01
    same = Loss(probability=0.3).edge(rng(5))
    assert [same() for _ in range(5000)] == path

    limited = Loss(probability=0.9, max_consecutive=2).edge(rng(5))
    text = "".join("L" if limited() else "." for _ in range(2000))
    assert "LL" in text and "LLL" not in text
    # what the limit saves would have been lost, and the draws after it stay where they were
    free = Loss(probability=0.9).edge(rng(5))
    unlucky = "".join("L" if free() else "." for _ in range(2000))
    assert all(u == "L" for t, u in zip(text, unlucky, strict=True) if t == "L")
    assert "LLL" in unlucky


def test_no_loss_draws_nothing():
    generator = rng(0)
    lost = Loss().edge(generator)
    assert not any(lost() for _ in range(10))
    assert generator.random() == rng(0).random()


@pytest.mark.parametrize(
    ("cls", "table"),
    [(PROFILES[name], {**EXAMPLES[name], "unit_seconds": bad}) for name in PROFILES if name != "fixed"
     for bad in (0.0, -1.0, math.inf, math.nan, 1e10)]
    + [(Fixed, {"seconds": [1.0, bad]}) for bad in (0.0, -1.0, math.inf, math.nan)]
    + [(Links, {key: bad}) for key in ("latency_seconds", "vector_seconds", "bandwidth_bytes_per_second")
       for bad in (-1.0, math.inf, math.nan)]
    + [(Links, {"bandwidth_bytes_per_second": 0.0}), (Links, {"down": {"latency_seconds": -1.0}})]
    + [(Loss, {"probability": p}) for p in (-0.1, 1.0, math.nan)]
    + [(Loss, {"probability": 0.1, "max_consecutive": 0}), (Power, {"exponent": -1.0}), (Papaya, {"jitter": -0.1})],
)  # fmt: skip
def test_impossible_numbers_are_out_of_range(cls, table):
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(table)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_in_range(name):
    profile = PROFILES[name](**EXAMPLES[name])
    assert TypeAdapter(PROFILES[name]).validate_python(EXAMPLES[name]) == profile
