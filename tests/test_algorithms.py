"""The laws that every algorithm keeps, over the rows of `laws.LAWS`, and that all meet the same randomness."""

import importlib
import math
import random
from collections import Counter, defaultdict
from dataclasses import MISSING, dataclass, fields, replace
from enum import IntEnum
from pathlib import Path

import numpy
import pytest
from laws import LAWS, Did
from toy import Toy, cells, toy_cell

import mpibench.algorithms
from mpibench import catalogue, experiment
from mpibench.algorithm import Algorithm, Centralized, Decentralized
from mpibench.errors import InvalidInput
from mpibench.node import Link, Mailbox, Node
from mpibench.runner import simulate

FILES = {path.stem for path in Path(mpibench.algorithms.__file__).parent.glob("*.py")} - {"__init__"}
N = 4
TARGET = {"metric": "gap", "values": [1e-3], "headline": 1e-3}
SMALL = {
    "workers": N,
    "problem": {"name": "quadratic", "dimension": 6, "strong_convexity": 0.1, "noise": 0.01, "shift": 0.1},
    "heterogeneity": {"compute": {"profile": "exponential", "unit_seconds": 1.0}},
    "stop": {"updates": 40},
}
LINKS = {
    "none": {},
    "latency": {"latency_seconds": 1e-3},
    "vector_seconds": {"vector_seconds": 0.1},
    "bandwidth": {"latency_seconds": 0.01, "bandwidth_bytes_per_second": 1000.0},  # a message takes 0.056 s
    "down": {"vector_seconds": 0.1, "down": {"latency_seconds": 0.3, "vector_seconds": 2.0}},
}

rows = pytest.mark.parametrize("row", [row for row in LAWS if row.virtual], ids=str)


def small(row, **changes):
    """The cell of a row on a small quadratic with random times."""
    tables = SMALL | changes
    tables["heterogeneity"] = tables["heterogeneity"] | {"links": slow_enough(row, tables["heterogeneity"])}
    (cell,) = cells(row.name, dict(row.parameters), **tables)
    return cell


def slow_enough(row, modelled):
    """The links, which take time where the row needs that."""
    links = modelled.get("links", {})
    timed = links.keys() & {"vector_seconds", "bandwidth_bytes_per_second"}
    return links | ({"vector_seconds": 0.1} if row.needs_link_times and not timed else {})


def all_of(result):
    """A run's result as plain values, to be compared."""
    columns = {f"trace/{k}": v for k, v in result.trace.items()} | {f"ranks/{k}": v for k, v in result.ranks.items()}
    columns |= {f"updates/{k}": v for k, v in result.updates.items()} | {"edges": result.edges}
    return {k: numpy.asarray(v).tolist() for k, v in columns.items()} | result.attrs


def test_every_algorithm_has_a_row_and_every_row_an_algorithm():
    assert {row.name for row in LAWS} == FILES == set(catalogue.names("algorithm"))


@rows
def test_a_row_speaks_of_all_parameters_and_all_tags(row):
    cls = catalogue.load("algorithm", row.name)
    module = importlib.import_module(cls.__module__)
    assert issubclass(cls, Algorithm) and cls.__dataclass_params__.frozen
    assert set(row.refused) == {field.name for field in fields(cls)}
    assert set(row.sent) == set(module.Tag.__members__)
    assert {tag.name for tag in cls.newest_only} == set(row.newest_only)
    assert cls.tolerates_loss == row.tolerates_loss
    messages = module.__doc__.partition("Messages")[2]
    assert all(tag in messages for tag in row.sent), "the docstring says what messages there are"


@rows
def test_it_reaches_its_target(row):
    shared = {"problem": SMALL["problem"] | ({"shift": 0.0} if row.active == 1 else {})}  # one alone sees its own data
    cell = small(row, stop={"updates": 2000, "gap": 1e-3}, targets=TARGET, record_updates=False, **shared)
    result = simulate(cell, seed=0)
    gap = result.trace["gap"]
    assert result.attrs["outcome"] == "reached"
    assert gap[0] > 100 * gap[-1] and gap[-1] <= 1e-3 < gap[-2]


@rows
def test_same_seed_same_run_and_another_seed_differs(row):
    cell = small(row)
    first, again, other = (all_of(simulate(cell, seed)) for seed in (5, 5, 6))
    assert first == again
    for name in ("event_hash", "model_hash", "trace/loss", "trace/time"):
        assert first[name] != other[name], name


def any_links(rng):
    """A graph in which every edge between two ranks has times of its own."""
    edges = []
    for source in range(N + 1):
        for to in {*range(N + 1)} - {source}:
            times = {"latency_seconds": rng.choice([0.0, 0.01, 0.5]), "vector_seconds": rng.choice([0.0, 0.05, 0.3])}
            edges.append({"source": source, "to": to} | times)
    return {"size": N + 1, "edges": edges}


@pytest.mark.parametrize("links", [*LINKS, "any"])
@rows
def test_no_deadlock_and_bounded_inboxes(row, links, monkeypatch):
    if links != "any":
        modelled = {"heterogeneity": SMALL["heterogeneity"] | {"links": LINKS[links]}}
    unread, waiting = [], []  # after each arrival, and each message handed to a link
    put, submit = Mailbox.put, Link.submit

    def counting_put(box, source, body):
        put(box, source, body)
        unread.append(sum(item[1] is not None for item in box.queue))

    def counting_submit(link, send):
        submit(link, send)
        waiting.append(len(link.waiting))

    monkeypatch.setattr(Mailbox, "put", counting_put)
    monkeypatch.setattr(Link, "submit", counting_submit)
    for seed in range(20):
        if links == "any":
            graph = any_links(random.Random(seed))
            size = catalogue.load("algorithm", row.name).ranks(N)
            edges = [edge for edge in graph["edges"] if max(edge["source"], edge["to"]) < size]
            if row.needs_link_times:
                edges = [edge | {"vector_seconds": edge["vector_seconds"] or 0.01} for edge in edges]
            modelled = {"graph": {"size": size, "edges": edges}}
        cell = small(row, snapshot={"updates": 1000}, record_updates=False, **modelled)
        result = simulate(cell, seed)  # a deadlock would be an exception
        updates = result.trace["updates"][-1]  # of rank 0; in network methods another may be the first to end the run
        assert updates == 40 or (not issubclass(type(cell.algorithm), Centralized) and 0 < updates < 40)
    assert max(unread, default=0) <= row.inbox(N)
    assert row.waiting is None or max(waiting, default=0) <= row.waiting


@rows
def test_messages_and_bytes_are_those_of_the_docstring(row, monkeypatch):
    count, size, sums = Counter(), defaultdict(set), Counter()
    depart = Link.depart

    def counting(link, send):
        charged = sum(send.charged[:2])
        count[send.tag.name] += 1
        size[send.tag.name].add(charged)
        sums.update(charged=charged, serialised=sum(send.sizes[:2]))
        depart(link, send)

    monkeypatch.setattr(Link, "depart", counting)
    # no two gradients come at one instant, so none is under way when the run ends
    compute = {"profile": "fixed", "seconds": [math.sqrt(p) for p in (2, 3, 5, 67)]}
    result = simulate(small(row, heterogeneity={"compute": compute}), seed=0)
    used, discarded = int(result.ranks["used"].sum()), int(result.ranks["discarded"].sum())
    did = Did(N, used, discarded, tuple(map(int, result.ranks["gradients"])), tuple(result.updates["source"]))
    dimension = SMALL["problem"]["dimension"]
    assert dict(count) == {tag: messages(did) for tag, (messages, _) in row.sent.items() if messages(did)}
    sizes = {tag: each(dimension) for tag, (messages, each) in row.sent.items() if messages(did)}
    assert size == {tag: set(each) if isinstance(each, list) else {each} for tag, each in sizes.items()}
    assert result.trace["messages"][-1] == result.edges[:, 2].sum() == count.total()
    in_turn = {tag: sum(each) / len(each) if isinstance(each, list) else each for tag, each in sizes.items()}
    expected = sum(row.sent[tag][0](did) * each for tag, each in in_turn.items())
    unfinished = sum(sum(each) for each in sizes.values() if isinstance(each, list))  # parts whose number is cut off
    assert abs(sums["charged"] - expected) <= unfinished
    assert sums["charged"] == sums["serialised"] or row.charged
    assert result.trace["bytes"][-1] == result.edges[:, 3].sum() == sums["serialised"]


JOB = """
schema = 1
[experiment]
name = "laws"
workers = 4
seeds = [0]
stop = {{ updates = 1 }}
snapshot = {{ updates = 1 }}
targets = {{ metric = "gap", values = [1.0], headline = 1.0 }}
[problem]
name = "quadratic"
dimension = 1
[heterogeneity]
compute = {{ profile = "equal" }}
links = {{ vector_seconds = 1.0 }}
[[algorithm]]
name = "{name}"
{parameters}
"""


@rows
def test_parameters_out_of_range_are_refused_in_one_sentence(row, tmp_path):
    file = tmp_path / "job.toml"

    def load(parameters):
        lines = [f"{key} = {catalogue.as_toml(value)}" for key, value in parameters.items()]
        file.write_text(JOB.format(name=row.name, parameters="\n".join(lines)))
        return experiment.load(file)

    load(row.parameters)
    refusals = [({key: value}, key) for key, values in row.refused.items() for value in values]
    for changes, key in [*refusals, ({"stepsizes": 0.1}, "stepsizes")]:
        with pytest.raises(InvalidInput) as refusal:
            load({**row.parameters, **changes})
        text = str(refusal.value)
        assert f"[[algorithm]] {row.name}" in text and key in text and str(file) in text
        assert "\n" not in text and len(text) < 300
    for field in fields(catalogue.load("algorithm", row.name)):
        if field.default is MISSING:
            with pytest.raises(InvalidInput, match=f"lacks `{field.name}`"):
                load({key: value for key, value in row.parameters.items() if key != field.name})


def noise(i, number):
    """A sample of three numbers."""
    return numpy.array([((7 * i + 3 * number + c) % 11 - 5) / 16 for c in range(3)])


def three_dimensional(row, library):
    """The cell of a row on a toy of numpy or torch vectors."""
    sample = noise if library is numpy else lambda i, number: library.from_numpy(noise(i, number))
    toy = Toy((3.0, -1.0, 0.1), (0.2, 1.0, 0.7), sample, library)
    links = slow_enough(row, {})
    return toy_cell(row.name, dict(row.parameters), [1.0, 2.5, 3.1, 0.7], toy, links=links, stop={"updates": 30})


@rows
def test_numpy_and_torch_vectors_give_the_same_run(row):
    torch = pytest.importorskip("torch")
    one, other = (all_of(simulate(three_dimensional(row, library), seed=0)) for library in (numpy, torch))
    assert one == other
    assert one["trace/x0"][-1] != one["trace/x0"][0]


def copies_of_what_is_handed_over(cell, monkeypatch):
    """Run a cell; (vector, its copy at that time) for every vector given to send, compute or watch."""
    handed_over = []
    freeze = Node.freeze

    def noting(node, items):
        handed_over.extend((item, item * 1) for item in items if hasattr(item, "shape"))
        return freeze(node, items)

    with monkeypatch.context() as patch:
        patch.setattr(Node, "freeze", noting)
        simulate(cell, seed=0)
    return handed_over


@pytest.mark.parametrize("library", ["numpy", "torch"])
@rows
def test_what_was_handed_over_is_never_written(row, library, monkeypatch):
    vectors = copies_of_what_is_handed_over(three_dimensional(row, pytest.importorskip(library)), monkeypatch)
    assert len(vectors) > 60
    for vector, copy in vectors:
        assert bool((vector == copy).all())
        assert library == "torch" or not vector.flags.writeable


class Tag(IntEnum):
    MODEL = 0
    GRADIENT = 1


@dataclass(frozen=True)
class InPlace(Centralized):
    """An algorithm that breaks the law."""

    async def server(self, node, x, watch):
        k = 0
        while watch(k, x):
            node.send(1, Tag.MODEL, k, x)
            _, (_, g) = await node.recv(Tag.GRADIENT)
            x -= 0.1 * g
            k += 1

    async def worker(self, node, f):
        while True:
            _, (k, x) = await node.recv(Tag.MODEL)
            node.send(0, Tag.GRADIENT, k, await node.compute(f.gradient, x, f.sample()))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_an_algorithm_that_writes_to_what_it_handed_over_is_caught(library):
    cell = replace(three_dimensional(LAWS[0], pytest.importorskip(library)), algorithm=InPlace())
    with pytest.raises(ValueError, match=r"read-only|written after it had been handed over"):
        simulate(cell, seed=0)


# Sample paths are paired.


@dataclass(frozen=True)
class Gossip(Decentralized):
    """A network method: rank r is worker r + 1."""

    async def peer(self, node, x, f, watch):
        t = 0
        while watch(t, x):
            g = await node.compute(f.gradient, x, f.sample())
            node.send((node.rank + 1) % node.size, Tag.MODEL, x)
            _, (y,) = await node.recv(Tag.MODEL)
            x = (x + y) / 2 - 0.1 * g
            t += 1


class Noting:
    """Wraps a problem and a compute profile; notes what each worker meets."""

    def __init__(self, cell):
        self.problem, self.compute = cell.problem, cell.compute
        self.starts, self.samples, self.seconds, self.splits = [], defaultdict(list), defaultdict(list), {}

    def prepare(self, workers, seed):
        prepared = self.problem.prepare(workers, seed)
        start, objective = prepared.start, prepared.objective

        def noting_start():
            self.starts.append(start().tolist())
            return start()

        def noting_objective(i):
            f = objective(i)
            sample = f.sample
            self.splits[i] = f.gradient(start(), 0.0).tolist()

            def noting_sample():
                self.samples[i].append(sample())
                return self.samples[i][-1]

            f.sample = noting_sample
            return f

        prepared.start, prepared.objective = noting_start, noting_objective
        return prepared

    def __getattr__(self, name):  # what a method may know of the speeds
        return getattr(self.compute, name)

    def durations(self, worker, workers, rng):
        duration = self.compute.durations(worker, workers, rng)

        def noting_duration(cost, now):
            ns = duration(cost, now)
            self.seconds[worker].append(ns if cost == 1 else None)  # of a longer job, whatever its time
            return ns

        return noting_duration


def noted(row, seed, algorithm=None):
    """What the workers meet in a run of this row, or of this algorithm in its place."""
    cell = small(row, stop={"seconds": 25.0})
    notes = Noting(cell)
    simulate(replace(cell, problem=notes, compute=notes, **({"algorithm": algorithm} if algorithm else {})), seed)
    return notes


def agree(one, other):
    """Whether one list is the beginning of the other, and both are not short."""
    shared = min(len(one), len(other))
    pairs = zip(one[:shared], other[:shared], strict=True)
    return shared > 3 and all(a == b or None in (a, b) for a, b in pairs)


def test_all_algorithms_of_a_seed_meet_the_same_start_data_samples_and_times():
    first = noted(LAWS[0], seed=3)
    workers = range(1, N + 1)
    assert len({tuple(first.splits[i]) for i in workers}) == len({tuple(first.samples[i]) for i in workers}) == N
    for row, algorithm in [*((row, None) for row in LAWS[1:] if row.virtual), (LAWS[0], Gossip())]:
        notes = noted(row, 3, algorithm)
        assert set(map(tuple, notes.starts)) == set(map(tuple, first.starts))
        assert notes.splits == first.splits
        active = [i for i in workers if notes.samples[i]]  # some methods leave slow workers out
        assert len(active) >= row.active
        for i in active:
            assert agree(notes.samples[i], first.samples[i]) and agree(notes.seconds[i], first.seconds[i])
    other = noted(LAWS[0], seed=4)
    assert other.splits != first.splits
    for i in workers:
        assert not agree(other.samples[i], first.samples[i]) and not agree(other.seconds[i], first.seconds[i])


def test_rank_r_of_a_network_method_is_worker_r_plus_1():
    cell = replace(toy_cell("async_sgd", {"stepsize": 0.1}, [1, 2, 3, 4]), algorithm=Gossip())
    ranks = simulate(cell, seed=0).ranks
    assert (ranks["busy_seconds"] / ranks["gradients"]).tolist() == [1, 2, 3, 4]
