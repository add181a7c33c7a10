"""Links and loss: exact values, rounding, and the same path for the same generator."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy
import pytest
import toy
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from mpibench import catalogue
from mpibench.algorithm import Decentralized
from mpibench.engines.simulation import Simulation
from mpibench.errors import InvalidInput
from mpibench.experiment import plain
from mpibench.heterogeneity import Burst, Hosts, Links, Loss, Way
from mpibench.runner import cluster_of
from mpibench.seeds import Purpose, generator
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


def test_workers_may_have_different_ways_to_the_server():
    links = Links(latency_seconds=0.5, vector_seconds=0.1, exponent=0.5, down=Way(bandwidth_bytes_per_second=8e9))
    assert links.uneven and not Links(vector_seconds=0.1).uneven
    up = [links.edge(i, 0, 0, 8).transmission(8, 0) for i in (1, 4, 9)]
    assert up == [100_000_000, 200_000_000, 300_000_000]
    assert links.edge(4, 0, 0, 8).latency_ns == 500_000_000
    assert links.edge(0, 4, 0, 8).transmission(16, 0) == 2
    down = Links(down=Way(bandwidth_bytes_per_second=8e9, exponent=2.0))
    assert down.uneven and [down.edge(0, i, 0, 8).transmission(16, 0) for i in (1, 3)] == [2, 18]
    own = Graph(5, {(4, 0): Link(vector_seconds=0.3), (3, 0): None})
    assert [links.edge(i, 0, 0, 8, own).transmission(8, 0) for i in (4, 3)] == [300_000_000, 173_205_081]


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


def path_of(loss, messages, key=5):
    lost = loss.edge(rng(key))
    return numpy.array([lost() for _ in range(messages)])


@pytest.mark.parametrize(("p", "limit"), [(0.5, 1), (0.5, 3), (0.9, 2), (0.3, 10), (0.3, None)])
def test_a_limit_has_the_share_that_the_docstring_says(p, limit):
    """Of losses in a row up to an arrival, L, the mean is p (1 - p^B) / (1 - p), and the share is E[L] / (E[L] + 1)."""
    share = p * (1 - p**limit) / (1 - p ** (limit + 1)) if limit else p
    assert (p, limit) != (0.5, 1) or share == pytest.approx(1 / 3)  # every other time there is none to lose
    rows = [min(k, limit or math.inf) for k in range(200)]  # by another way: the law of L
    law = [(1 - p) * p**k for k in range(199)] + [p**199]
    mean = sum(w * row for w, row in zip(law, rows, strict=True))
    assert share == pytest.approx(mean / (mean + 1), rel=1e-6)
    variance = sum(w * row**2 for w, row in zip(law, rows, strict=True)) - mean**2
    path = path_of(Loss(probability=p, max_consecutive=limit), 40_000)
    deviation = math.sqrt(variance / (mean + 1) ** 3 / len(path))  # of a renewal process, whose cycle is L + 1
    assert abs(path.mean() - share) < 5 * deviation


class Scripted:
    """A generator that says what is written."""

    def __init__(self, *numbers):
        self.random = iter(numbers).__next__


def test_bursts_by_hand():
    """begin 1/4, end 1/2: in a burst at first with probability 1/3; then two draws a message, lost and changes."""
    burst = Burst(begin=0.25, end=0.5, probability=0.75)
    draws = [0.4]  # >= 1/3: outside
    draws += [0.0, 0.25]  # not lost, since nothing is outside; 1/4 is no beginning
    draws += [0.9, 0.2]  # not lost; a burst begins
    draws += [0.7, 0.5]  # lost, and it goes on
    draws += [0.75, 0.49]  # not lost though inside; it ends
    draws += [0.1, 0.9]
    lost = Loss(burst=burst).edge(Scripted(*draws))
    assert [lost() for _ in range(5)] == [False, False, True, False, False]
    lost = Loss(probability=0.2, burst=burst).edge(Scripted(0.3, 0.74, 0.1, 0.19, 0.9, 0.2, 0.9))  # inside at first
    assert [lost() for _ in range(3)] == [True, True, False]
    draws = [0.3, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9]
    lost = Loss(burst=burst, max_consecutive=2).edge(Scripted(*draws))  # lost, lost, the limit, lost; the burst ends
    assert [lost() for _ in range(5)] == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("begin", "end", "inside", "outside"), [(0.02, 0.2, 1.0, 0.0), (0.05, 0.1, 0.7, 0.05), (0.5, 0.9, 1.0, 0.1)]
)
def test_bursts_have_their_stationary_rate(begin, end, inside, outside):
    loss = Loss(probability=outside, burst=Burst(begin=begin, end=end, probability=inside))
    rate = (end * outside + begin * inside) / (begin + end)
    n, memory, share = 100_000, 1 - begin - end, begin / (begin + end)
    # variance of the mean: of one message, and of the pairs, whose covariance falls by `memory` with each message
    pairs = (inside - outside) ** 2 * share * (1 - share) * memory / (1 - memory)
    path = path_of(loss, n)
    assert abs(path.mean() - rate) < 5 * math.sqrt((rate * (1 - rate) + 2 * pairs) / n)
    firsts = numpy.array([loss.edge(rng(key))() for key in range(4000)])  # stationary from the beginning
    assert abs(firsts.mean() - rate) < 5 * math.sqrt(rate * (1 - rate) / len(firsts))
    # and so it is with a limit that is never met
    assert path.tolist() == path_of(replace(loss, max_consecutive=n), n).tolist()


def test_bursts_have_their_mean_length():
    """All in bursts and no others: what gets lost in a row is geometric of mean 1 / end."""
    path = path_of(Loss(burst=Burst(begin=0.05, end=0.2)), 100_000)
    rows = numpy.array([len(list(row)) for is_lost, row in itertools.groupby(path) if is_lost][1:-1])
    assert abs(rows.mean() - 5.0) < 5 * math.sqrt((1 - 0.2) / 0.2**2 / len(rows))
    for k in (1, 3, 8):
        share = (1 - 0.2) ** k  # longer than k
        assert abs((rows > k).mean() - share) < 5 * math.sqrt(share * (1 - share) / len(rows))
    limited = path_of(Loss(burst=Burst(begin=0.05, end=0.2), max_consecutive=3), 100_000)
    assert max(len(list(row)) for is_lost, row in itertools.groupby(limited) if is_lost) == 3
    assert (path | ~limited).all()  # the limit saves some, and the draws after it stay where they were


# On edges, and in an experiment.


@dataclass(frozen=True)
class Talk(Decentralized):
    """All say 0, 1, 2, ... to all, once a second."""

    tolerates_loss = True

    async def peer(self, node, x, f, watch):
        for number in itertools.count():
            for to in range(node.size):
                node.send(to, 0, number)
            await node.sleep(1.0)


@pytest.fixture
def talk(monkeypatch):
    """A function that makes the cells of an experiment in which three ranks talk, with this table of losses."""
    real = catalogue.load
    monkeypatch.setattr(catalogue, "load", lambda kind, name: Talk if name == "talk" else real(kind, name))

    def made(loss, name="talk", **tables):
        compute = {"profile": "equal"}
        heterogeneity = {"compute": compute, "loss": loss}
        parameters = {} if name == "talk" else {"stepsize": 0.1}
        return toy.cells(name, parameters, workers=3, heterogeneity=heterogeneity, **tables)

    return made


def heard(cell, seed, seconds=300):
    """(source, to) -> the numbers that came through."""
    numbers = {}

    def program(node):
        async def listen():
            while True:
                message = await node.recv(0)
                numbers.setdefault((message.source, node.rank), []).append(message.body[0])

        node.start(listen())
        return cell.algorithm.peer(node, None, None, None)

    cluster = replace(cluster_of(cell, seed, toy.Toy()), until=seconds * 10**9)
    Simulation().run(cluster, program)
    return numbers


@pytest.mark.parametrize(
    "table", [{"probability": 0.4, "max_consecutive": 3}, {"burst": {"begin": 0.1, "end": 0.3}, "max_consecutive": 10}]
)
def test_each_edge_has_its_own_losses_in_the_order_of_its_messages(talk, table):
    (cell,) = talk(table)
    numbers = heard(cell, 7)
    for source, to in itertools.product(range(3), repeat=2):
        lost = cell.loss.edge(generator(7, Purpose.LOSS, source, to))
        expected = [k for k in range(301) if source == to or not lost()]  # to oneself is no message
        assert numbers[source, to] == expected
        assert (len(expected) < 301) == (source != to)
    assert numbers[0, 1] != numbers[1, 0] != numbers[2, 0] and heard(cell, 8)[0, 1] != numbers[0, 1]


def test_only_named_edges_lose(talk):
    (everywhere,), (cell,) = talk({"probability": 0.4}), talk({"probability": 0.4, "edges": [[0, 1], [2, 0]]})
    all_numbers, numbers = heard(everywhere, 7), heard(cell, 7)
    for edge in itertools.product(range(3), repeat=2):
        named = edge in ((0, 1), (2, 0))
        assert numbers[edge] == (all_numbers[edge] if named else list(range(301)))


def test_losses_are_in_an_experiment_and_absent_ones_in_no_hash(talk):
    table = {"probability": 0.1, "max_consecutive": 3, "burst": {"begin": 0.1, "end": 0.5, "probability": 0.9}}
    table |= {"edges": [[0, 1], [1, 0]]}
    (cell,) = talk(table)
    assert cell.loss == Loss(0.1, 3, Burst(begin=0.1, end=0.5, probability=0.9), ((0, 1), (1, 0)))
    assert cell.resolved["heterogeneity"]["loss"] == table
    assert plain(Loss()) == {"probability": 0.0} and plain(Loss(0.1, 3)) == {"probability": 0.1, "max_consecutive": 3}


@pytest.mark.parametrize(
    ("loss", "name", "words"),
    [
        ({"probability": 1.0}, "talk", "[heterogeneity.loss] probability = 1.0 must be a number >= 0 and < 1"),
        ({"burst": {"begin": 0.1}}, "talk", "[heterogeneity.loss.burst] lacks `end`, a number > 0 and <= 1"),
        ({"burst": {"begin": 0.0, "end": 1}}, "talk", "[heterogeneity.loss.burst] begin = 0.0 must be a number > 0"),
        ({"burst": {"beginn": 0.1}}, "talk", "has no key `beginn`; did you mean `begin`?"),
        ({"edges": []}, "talk", "[heterogeneity.loss] edges = [] must be a list of at least 1"),
        ({"edges": [[0, 1, 2]]}, "talk", "[heterogeneity.loss] edges = [[0, 1, 2]] must be a list"),
        ({"edges": [[0, 0]]}, "talk", "[heterogeneity.loss] edges = [[0, 0]] name [0, 0], but no rank has a link to"),
        ({"edges": [[0, 1], [0, 1]]}, "talk", "[heterogeneity.loss] edges = [[0, 1], [0, 1]] name [0, 1] twice"),
        ({"edges": [[0, 3]]}, "talk", "[heterogeneity.loss] edges name [0, 3], and the ranks 0 to 2 of talk have no"),
        ({"probability": 0.1}, "minibatch_sgd", "needs every message, but [heterogeneity.loss] has probability = 0.1"),
        ({"burst": {"begin": 0.1, "end": 1}}, "minibatch_sgd", "but [heterogeneity.loss] has a burst; lose nothing"),
    ],
)
def test_what_is_wrong_with_losses_is_refused_in_one_sentence(talk, loss, name, words):
    with pytest.raises(InvalidInput) as refusal:
        talk(loss, name)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_edge_that_the_graph_lacks_is_refused(talk):
    ring = {"name": "directed_ring"}
    (cell,) = talk({"probability": 0.1, "edges": [[0, 1]]}, graph=ring)
    assert (0, 1) in cell.graph.edges and (1, 0) not in cell.graph.edges
    with pytest.raises(InvalidInput, match=r"edges name \[1, 0\]"):
        talk({"probability": 0.1, "edges": [[0, 1], [1, 0]]}, graph=ring)


@pytest.mark.parametrize(
    ("cls", "table"),
    [(Links, {key: bad}) for key in ("latency_seconds", "vector_seconds", "bandwidth_bytes_per_second")
       for bad in (-1.0, math.inf, math.nan)]
    + [(Links, {"bandwidth_bytes_per_second": 0.0}), (Links, {"down": {"latency_seconds": -1.0}})]
    + [(Loss, {"probability": p}) for p in (-0.1, 1.0, math.nan)]
    + [(Loss, {"probability": 0.1, "max_consecutive": 0}), (Loss, {"edges": [(0, -1)]})]
    + [(Burst, {"begin": p, "end": 0.5}) for p in (-0.1, 0.0, 1.1, math.nan)]
    + [(Burst, {"begin": 0.5, "end": p}) for p in (0.0, 1.1)]
    + [(Burst, {"begin": 0.5, "end": 0.5, "probability": p}) for p in (0.0, 1.1)],
)  # fmt: skip
def test_impossible_numbers_are_out_of_range(cls, table):
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(table)


def test_hosts_share_what_leaves_them():
    hosts = Hosts(ranks=4, bandwidth_bytes_per_second=4e6)
    links = Links(latency_seconds=1e-3, hosts=hosts)
    inside, outside = (links.edge(0, to, None, 8) for to in (3, 4))
    assert (inside.latency_ns, inside.instant) == (10**6, True)
    assert (outside.latency_ns, outside.instant, outside.transmission(1000, 0)) == (10**6, False, 10**6)  # at 1 MB/s
    slower = Links(bandwidth_bytes_per_second=5e5, hosts=hosts)
    assert [slower.edge(2, to, None, 8).transmission(1000, 0) for to in (1, 7)] == [2 * 10**6] * 2
    faster = Links(bandwidth_bytes_per_second=1e8, hosts=hosts)
    assert [faster.edge(5, to, None, 8).transmission(1000, 0) for to in (6, 0)] == [10**4, 10**6]


def test_hosts_go_with_bandwidth_only():
    with pytest.raises(InvalidInput, match="links with hosts take bandwidth_bytes_per_second, not vector_seconds"):
        Links(vector_seconds=1.0, hosts=Hosts(ranks=2, bandwidth_bytes_per_second=1e6))
