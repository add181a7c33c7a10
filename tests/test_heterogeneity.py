"""Links and loss: exact values, rounding, and the same path for the same generator."""

import math

import numpy
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from mpibench.errors import InvalidInput
from mpibench.heterogeneity import Links, Loss, Way
from mpibench.topology import Graph, Link


def rng(key=0):
    return numpy.random.default_rng(key)


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
    [(Links, {key: bad}) for key in ("latency_seconds", "vector_seconds", "bandwidth_bytes_per_second")
       for bad in (-1.0, math.inf, math.nan)]
    + [(Links, {"bandwidth_bytes_per_second": 0.0}), (Links, {"down": {"latency_seconds": -1.0}})]
    + [(Loss, {"probability": p}) for p in (-0.1, 1.0, math.nan)]
    + [(Loss, {"probability": 0.1, "max_consecutive": 0})],
)  # fmt: skip
def test_impossible_numbers_are_out_of_range(cls, table):
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(table)
