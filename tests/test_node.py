"""The laws of the kernel, on the simulation engine: what happens when, in which order, and what is caught.

Times are written out by hand. Where links take time, a message of size 1000 takes 1 s (1e6 ns a byte).
"""

import subprocess
import sys
import weakref
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpibench.engines.simulation import Simulation
from mpibench.graphs import star
from mpibench.journal import Journal
from mpibench.node import ANY, SECOND, Cluster, Communicator, Deadlock, Mailboxes, Message
from mpibench.topology import Graph

A, B, C = 0, 1, 2  # tags
SLOW = 10**6  # ns per byte
EXACT = settings(deadline=None, derandomize=True, max_examples=150)


async def forever(node):
    await node.recv(tag=99)


async def note(log, name, request):
    """Wait for this and write down that it has come."""
    await request
    log.append(name)


async def collect(log, communicator, tag):
    """Write down (seconds, source, first item) of every message of this tag."""
    while True:
        source, body = await communicator.recv(tag)
        log.append((communicator.node.now(), source, *body[:1]))


def sending(*messages):
    """A program that sends to rank 1 at the given seconds: (seconds, tag, body, size), and then waits."""

    async def program(node):
        for seconds, tag, body, size in messages:
            if seconds > node.now():
                await node.sleep(seconds - node.now())
            node.send(1, tag, body, size=size)
        await node.sleep(1000)

    return program


def collecting(log, *tags):
    """A program that writes down what arrives under these tags, in the order of arrival."""

    async def program(node):
        for tag in tags:
            node.start(collect(log, node, tag))
        await forever(node)

    return program


# Order at one instant (law 8)


def test_arrivals_come_first_then_links_then_what_was_begun_in_order_of_age(simulate):
    log = []

    async def rank0(node):
        node.send(1, A, size=0)  # arrives at 2 s
        await node.sleep(3)

    async def rank1(node):  # everything happens at 2 s, and is begun in the reverse order
        node.start(note(log, "computation", node.compute(len, ())))
        node.start(note(log, "sleep", node.sleep(2)))
        node.start(note(log, "link", node.send(0, B, size=2000)))
        node.start(note(log, "arrival", node.recv(A)))
        await forever(node)

    simulate(rank0, rank1, seconds=2.0, ns_per_byte=SLOW, edges={(0, 1): (2 * SECOND, 0)})
    assert log == ["arrival", "link", "computation", "sleep"]


def test_simultaneous_arrivals_come_by_source_and_not_in_the_order_sent(simulate):
    log = []

    async def late(node):
        await node.sleep(1)
        node.send(0, A)
        await forever(node)

    async def early(node):
        node.send(0, A)
        await forever(node)

    async def sink(node):
        first, second = await node.recv(A), await node.recv(A)
        log.extend([first.source, second.source])

    engine = simulate(sink, late, early, edges={(1, 0): (SECOND, 0), (2, 0): (2 * SECOND, 0)})
    assert (log, engine.time) == ([1, 2], 2 * SECOND)


def test_simultaneous_arrivals_from_one_source_come_in_the_order_sent(simulate):
    log = []
    source = sending((0, B, "first", 0), (0, A, "second", 0), (0, B, "third", 0))
    simulate(source, collecting(log, A, B), latency_ns=SECOND)
    assert log == [(1.0, 0, "first"), (1.0, 0, "second"), (1.0, 0, "third")]


def test_simultaneous_events_of_different_ranks_come_by_rank(simulate):
    log = []

    def resting(*naps):
        async def program(node):
            for nap in naps:
                await node.sleep(nap)
            log.append((node.rank, node.now()))
            await node.sleep(1)

        return program

    engine = simulate(resting(1.0, 0.5, 0.5), resting(2.0), resting(0.5, 1.5))
    assert log == [(0, 2.0), (1, 2.0), (2, 2.0)]
    assert engine.ended_by == 0


def test_a_computation_is_as_old_as_its_begin_and_not_as_its_request(simulate):
    log = []

    async def program(node):
        node.start(note(log, "first", node.compute(len, ())))  # 0 s to 1 s
        node.start(note(log, "second", node.compute(len, ())))  # 1 s to 2 s
        node.start(note(log, "sleep", node.sleep(2)))  # begun at 0 s
        await node.sleep(3)

    simulate(program)
    assert log == ["first", "sleep", "second"]


def test_what_waits_for_the_processor_begins_before_the_rank_goes_on(simulate):
    log = []

    async def first(node):
        await node.compute(len, ())
        node.start(note(log, "sleep", node.sleep(1)))  # begun at 1 s, after the second computation

    async def program(node):
        node.start(first(node))
        node.start(note(log, "second", node.compute(len, ())))
        await node.sleep(3)

    simulate(program)
    assert log == ["second", "sleep"]


@pytest.mark.parametrize(("latency_ns", "evaluated"), [(SECOND - 1, 0), (SECOND, 0), (SECOND + 1, 1)])
def test_a_job_that_would_end_when_a_newer_message_arrives_is_never_evaluated(simulate, latency_ns, evaluated):
    calls, reported = [], []

    async def work(node):
        reported.append(await node.compute(calls.append, "gradient"))

    async def worker(node):
        job = node.start(work(node))
        await node.recv(A)
        job.cancel()
        await forever(node)

    engine = simulate(sending((0, A, None, 0)), worker, latency_ns=latency_ns, until=5 * SECOND)
    assert (len(calls), len(reported)) == (evaluated, evaluated)
    assert (engine.nodes[1].gradients, engine.nodes[1].stopped) == (evaluated, 1 - evaluated)
    assert engine.nodes[1].busy == min(latency_ns, SECOND)


def test_nanoseconds_are_exact(simulate):
    log = []

    async def tenths(node):
        for _ in range(10):
            await node.sleep(0.1)
        log.append("ten tenths")

    async def program(node):
        assert 0.1 + 0.2 != 0.3
        node.start(note(log, "0.3", node.sleep(0.3)))
        await node.sleep(0.1)
        node.start(note(log, "0.1 + 0.2", node.sleep(0.2)))
        node.start(tenths(node))
        await node.sleep(1.0)
        assert node.engine.time == 1_100_000_000
        await node.sleep(3e8 - 1.1)  # nine years: float seconds would be good for 60 ns
        await node.sleep(1e-9)
        assert int(1.001 * SECOND) == 1_000_999_999
        await node.sleep(1.001)

    engine = simulate(program)
    assert log == ["0.3", "0.1 + 0.2", "ten tenths"]
    assert engine.time == 3 * 10**17 + 1_001_000_001


def test_a_sleep_into_the_past_is_refused(simulate):
    async def program(node):
        await node.sleep(1)
        await node.sleep(-0.5)

    with pytest.raises(ValueError):
        simulate(program)


# Links (law 9)


def test_a_link_carries_one_message_at_a_time_whatever_the_communicator(simulate, edges):
    arrived, left = [], []
    graph = edges((0, 1))

    async def source(node):
        communicators = [node.join(graph), node, node.join(graph)]
        await node.sleep(1)
        for request in [communicator.send(1, A, size=1000) for communicator in communicators]:
            await request
            left.append(node.now())
        await node.sleep(10)

    async def sink(node):
        for communicator in (node.join(graph), node, node.join(graph)):
            node.start(collect(arrived, communicator, A))
        await forever(node)

    simulate(source, sink, ns_per_byte=SLOW, latency_ns=SECOND // 4)
    assert left == [2.0, 3.0, 4.0]  # latency adds to the arrival and occupies nothing
    assert [seconds for seconds, _ in arrived] == [2.25, 3.25, 4.25]


def test_other_edges_do_not_wait(simulate):
    log = []

    async def peer(node):
        for to in range(3):
            if to != node.rank:
                node.send(to, A, size=1000)
        node.start(collect(log, node, A))
        await node.sleep(5)

    simulate(peer, peer, peer, ns_per_byte=SLOW)
    assert [seconds for seconds, _ in log] == [1.0] * 6


def test_a_send_on_an_instant_link_is_done_at_once(simulate):
    async def source(node):
        for _ in range(1000):
            await node.send(1, A)
        assert node.now() == 0.0
        await node.sleep(1)

    log = []
    simulate(source, collecting(log, A), latency_ns=7)
    assert log == [(7e-9, 0)] * 1000


def test_modelled_bytes_are_those_of_vectors_and_of_all_else(simulate):
    charged = []
    cluster = Cluster(
        2,
        durations=lambda rank: None,
        edge=lambda source, to: SimpleNamespace(
            latency_ns=0, instant=False, transmission=lambda *sizes: charged.append(sizes) or 0
        ),
        lost=lambda source, to: None,
        random=lambda rank: None,
        journal=lambda rank: Journal(rows=False),
    )

    async def program(node):
        if node.rank == 0:
            node.send(1, A, 3, 0.5, numpy.ones(10), (numpy.ones(5, numpy.float32), (7,)))
            node.send(1, A, numpy.ones((2, 3)), size=17)
            node.send(1, A)
            await node.sleep(1)
        await forever(node)

    engine = Simulation()
    with pytest.raises(Deadlock):
        engine.run(cluster, program)
    assert charged == [(10 * 8 + 5 * 4, 3 * 8), (17, 0), (0, 0)]
    journal = engine.nodes[0].journal
    assert journal.totals == (3, 124 + 48, 8 * 100 + 8 * 17)  # bytes as serialised; bits follow `size`


def test_the_seconds_of_a_link_are_known_without_latency_and_not_rounded(simulate):
    known = []

    async def program(node):
        known.append([node.link_seconds(1, 0, size) for size in (0, 1, 2.5, 1e-6)])
        assert node.now() == 0

    simulate(program, program, latency_ns=10**9, edges={(1, 0): (7, 3)})
    assert known[0] == [0, 3e-9, 7.5e-9, 3e-15]


def test_a_newer_message_takes_the_place_of_one_that_has_not_left(simulate):
    arrived, left = [], []

    async def stamp(node, name, request):
        await request
        left.append((name, node.now()))

    async def source(node):
        for name, tag in [("leaving", A), ("old", A), ("other", B), ("last", B), ("new", A)]:
            node.start(stamp(node, name, node.send(1, tag, name, size=1000)))
        await node.sleep(10)

    engine = simulate(source, collecting(arrived, A, B), ns_per_byte=SLOW, newest_only=[A])
    assert arrived == [(1.0, 0, "leaving"), (2.0, 0, "new"), (3.0, 0, "other"), (4.0, 0, "last")]
    assert sorted(left) == [("last", 4.0), ("leaving", 1.0), ("new", 2.0), ("old", 2.0), ("other", 3.0)]
    assert engine.nodes[0].journal.totals[:2] == (4, 4 * 8)  # of the bodies; what was replaced was never sent


def test_a_newer_message_replaces_only_on_its_own_communicator_and_edge(simulate, edges):
    log = []
    graph = edges((0, 1), (0, 2))

    async def source(node):
        other = node.join(graph)
        await node.sleep(1)
        for send in (node.send, other.send):
            for to in (1, 2):
                send(to, A, "leaves", size=1000)
                send(to, A, "waits", size=1000)
        await node.sleep(10)

    async def sink(node):
        for communicator in (node, node.join(graph)):
            node.start(collect(log, communicator, A))
        await forever(node)

    simulate(source, sink, sink, ns_per_byte=SLOW, newest_only=[A])
    # per edge: "leaves" departs, "waits" waits; on the other communicator "waits" replaces "leaves" and nothing else
    assert Counter(log) == {(2.0, 0, "leaves"): 2, (3.0, 0, "waits"): 2, (4.0, 0, "waits"): 2}


def test_replaced_messages_are_not_kept(simulate):
    kept = []

    async def source(node):
        for k in range(100):
            x = numpy.full(100, float(k))
            kept.append(weakref.ref(x))
            node.send(1, A, x)
        del x
        assert sum(reference() is not None for reference in kept) == 2  # one on its way, the newest waits
        await node.sleep(1)

    simulate(source, forever, ns_per_byte=SLOW, newest_only=[A])


def test_a_newer_message_replaces_one_that_has_not_been_read_and_keeps_its_place(simulate):
    async def reader(node):
        await node.sleep(10)
        assert node.drain(A) == [Message(1, ("new",)), Message(2, ("x",))]
        assert node.drain(A) == []
        assert [message.body for message in node.drain(B)] == [("b",), ("c",)]

    def writer(*messages):
        async def program(node):
            for seconds, tag, body in messages:
                await node.sleep(seconds)
                node.send(0, tag, body)
            await forever(node)

        return program

    engine = simulate(
        reader, writer((1, A, "old"), (2, A, "new"), (1, B, "b"), (0, B, "c")), writer((2, A, "x")), newest_only=[A]
    )
    assert engine.ended_by == 0


def test_what_arrives_is_seen_before_a_link_that_becomes_free_is_used(simulate):
    log = []

    async def origin(node):
        node.send(1, A, "tick", size=0)  # arrives when the link from 1 to 2 becomes free
        await node.sleep(10)

    async def middle(node):
        node.send(2, B, "first", size=1000)
        node.send(2, A, "old", size=1000)
        await node.recv(A)
        assert node.now() == 1.0
        node.send(2, A, "new", size=1000)
        await forever(node)

    simulate(origin, middle, collecting(log, A, B), ns_per_byte=SLOW, edges={(0, 1): (SECOND, 0)}, newest_only=[A])
    assert log == [(1.0, 1, "first"), (2.0, 1, "new")]


def test_what_is_sent_at_the_instant_at_which_a_link_becomes_free_leaves_at_once(simulate):
    log, done = [], []

    async def stamp(node, request):
        await request
        done.append(node.now())

    async def source(node):
        node.start(stamp(node, node.send(1, A, "first", size=1000)))
        await node.recv(B)  # arrives at 1 s, before the link is free as an event
        node.start(stamp(node, node.send(1, A, "second", size=1000)))
        node.start(stamp(node, node.send(1, A, "third", size=1000)))
        await node.sleep(5)

    async def sink(node):
        node.send(0, B, size=0)
        await collect(log, node, A)

    simulate(source, sink, ns_per_byte=SLOW, edges={(1, 0): (SECOND, 0)})
    assert log == [(1.0, 0, "first"), (2.0, 0, "second"), (3.0, 0, "third")]
    assert done == [1.0, 2.0, 3.0]


def test_a_send_that_nobody_queues_behind_is_done_when_its_link_is_free(simulate):
    done = []

    async def stamp(node, request):
        await request
        done.append(node.now())

    async def source(node):
        node.start(stamp(node, node.send(1, A, size=1000)))
        await node.recv(B)  # arrives at 1 s, before the link is free as an event
        node.start(stamp(node, node.send(1, A, size=500)))
        await node.sleep(5)

    async def sink(node):
        node.send(0, B, size=0)
        await forever(node)

    simulate(source, sink, ns_per_byte=SLOW, edges={(1, 0): (SECOND, 0)})
    assert done == [1.0, 1.5]


def test_a_lost_message_has_occupied_its_link(simulate):
    log = []
    source = sending((0, A, "lost", 1000), (0, A, "replaced", 1000), (0, A, "comes", 1000), (3, A, "gone", 1000))
    lost = {(0, 1): [True, False, True]}
    engine = simulate(source, collecting(log, A), ns_per_byte=SLOW, lost=lost, newest_only=[A])
    assert log == [(2.0, 0, "comes")]
    assert engine.nodes[0].journal.messages == 3  # chance was asked once for each of these


def test_a_send_may_be_awaited_after_another_who_waited_was_cancelled(simulate):
    log = []

    async def wait_and_sleep(node, request):
        await request
        log.append(node.now())
        await node.sleep(5)
        log.append(node.now())

    async def source(node):
        request = node.send(1, A, size=1000)
        first = node.start(note(log, "cancelled", request))
        await node.sleep(0.5)
        first.cancel()
        await node.start(wait_and_sleep(node, request))

    simulate(source, forever, ns_per_byte=SLOW)
    assert log == [1.0, 6.0]


# Mailboxes (law 4)


def test_first_in_first_out_per_source_tag_and_communicator(simulate, edges):
    graph = edges((1, 0), (2, 0))

    async def source(node):
        other = node.join(graph)
        await node.sleep(node.rank)
        for k in range(2):
            node.send(0, A, f"{node.rank}A{k}")
            node.send(0, B, f"{node.rank}B{k}")
            other.send(0, A, f"{node.rank}other{k}")
        await forever(node)

    async def sink(node):
        other = node.join(graph)
        await node.sleep(5)
        read = [await node.recv(B, source=2), await other.recv(A), await node.recv(A), await node.recv(A, source=2)]
        assert [body for _, (body,) in read] == ["2B0", "1other0", "1A0", "2A0"]
        assert [source for source, _ in read] == [2, 1, 1, 2]
        assert [body for _, (body,) in node.drain(A)] == ["1A1", "2A1"]
        assert [body for _, (body,) in node.drain(B)] == ["1B0", "1B1", "2B1"]
        assert [body for _, (body,) in other.drain(A)] == ["1other1", "2other0", "2other1"]

    assert simulate(sink, source, source).ended_by == 0


def test_who_has_waited_longest_gets_the_message(simulate):
    log = []

    async def sink(node):
        waits = [("two", 2), ("any 1", ANY), ("one", 1), ("any 2", ANY)]
        for name, source in waits:
            node.start(note(log, name, node.recv(A, source)))
        await node.sleep(10)

    def at(*instants):
        async def program(node):
            for seconds in instants:
                await node.sleep(seconds)
                node.send(0, A)
            await forever(node)

        return program

    simulate(sink, at(1, 1, 1), at(4))
    assert log == ["any 1", "one", "any 2", "two"]


def test_a_cancelled_receive_takes_no_message(simulate):
    log = []

    async def sink(node):
        first = node.start(note(log, "cancelled", node.recv(A)))
        node.start(note(log, "second", node.recv(A)))
        await node.sleep(0.5)
        first.cancel()
        await node.sleep(1)

    async def source(node):
        await node.sleep(1)
        node.send(0, A)
        await forever(node)

    simulate(sink, source)
    assert log == ["second"]


def test_a_graph_is_a_message_space_of_its_own_with_its_neighbours(simulate, edges):
    tree = edges((0, 1), (0, 2), (1, 3))

    async def program(node):
        down, again = node.join(tree), node.join(tree)
        assert down.children == down.destinations == {0: (1, 2), 1: (3,), 2: (), 3: ()}[node.rank]
        assert (down.parent, down.sources) == {0: (None, ()), 1: (0, (0,)), 2: (0, (0,)), 3: (1, (1,))}[node.rank]
        if down.parent is not None:
            source, (text,) = await down.recv(A)
            assert (source, text, node.drain(A), again.drain(A)) == (down.parent, "down", [], [])
        for child in down.children:
            down.send(child, A, "down")
        if node.rank == 2:
            with pytest.raises(ValueError, match="rank 2 has no edge to rank 3"):
                down.send(3, A, "down")
        await node.sleep(1)

    simulate(program, program, program, program)


def test_a_message_may_be_sent_before_its_receiver_has_begun(simulate, edges):
    graph = edges((0, 1))

    async def first(node):
        node.join(graph).send(1, A, "at once")
        await node.sleep(1)

    async def second(node):
        assert (await node.join(graph).recv(A)).body == ("at once",)

    assert simulate(first, second).ended_by == 1


def test_ranks_that_join_different_graphs_are_refused(simulate):
    async def one(node):
        node.join(star(2))
        await forever(node)

    async def other(node):
        node.join(Graph(2, {(0, 1): None}))
        await forever(node)

    with pytest.raises(RuntimeError, match="ranks join different graphs as communicator 1"):
        simulate(one, other)


def test_what_a_rank_sends_to_itself_comes_at_once_and_is_no_message(simulate, edges):
    log = []

    async def program(node):
        on_the_tree = node.join(edges((0, 1)))
        sent = node.send(0, A, "world")
        on_the_tree.send(0, A, "tree")
        await sent
        await node.compute(str.upper, "x")
        node.send(0, A, "after a second")
        log.extend([(await on_the_tree.recv(A)).body, (await node.recv(A)).body, node.now()])
        log.extend([await node.recv(A), node.now()])

    async def other(node):
        node.join(edges((0, 1)))
        await forever(node)

    engine = simulate(program, other, latency_ns=5, ns_per_byte=7)
    assert log == [("tree",), ("world",), 1.0, (0, ("after a second",)), 1.0]
    assert engine.nodes[0].journal.totals == (0, 0, 0) and list(engine.nodes[0].links) == [0]


@pytest.mark.parametrize("to", [2, -1])
def test_nobody_sends_to_nobody(simulate, to):
    async def program(node):
        node.send(to, A)

    with pytest.raises(ValueError, match=f"rank 0 cannot send to rank {to}: there are ranks 0 to 1"):
        simulate(program, forever)


# Computations and tasks (law 2)


def test_a_rank_computes_one_thing_at_a_time(simulate):
    log = []

    async def work(node, name, cost):
        log.append((await node.compute(str.upper, name, cost=cost), node.now()))

    async def program(node):
        for name, cost in [("a", 1.0), ("b", 0.5), ("c", 2.0)]:
            node.start(work(node, name, cost))
        await node.sleep(10)

    engine = simulate(program, seconds=2.0)
    assert log == [("A", 2.0), ("B", 3.0), ("C", 7.0)]
    assert (engine.nodes[0].gradients, engine.nodes[0].busy) == (3.5, 7 * SECOND)


def test_cancel_frees_the_processor_at_once_and_the_backlog_goes_on(simulate):
    log, calls = [], []

    async def work(node, name):
        await node.compute(calls.append, name)
        log.append((name, node.now()))

    async def program(node):
        jobs = [node.start(work(node, name)) for name in "abcd"]
        await node.sleep(0.25)
        jobs[2].cancel()  # waits for its turn: never runs
        jobs[0].cancel()  # runs: b begins now
        await jobs[3]

    engine = simulate(program)
    assert log == [("b", 1.25), ("d", 2.25)]
    assert calls == ["b", "d"]
    node = engine.nodes[0]
    assert (node.gradients, node.stopped, node.busy) == (2, 1, 2.25 * SECOND)


def test_who_waits_for_a_task_that_is_cancelled_goes_on(simulate):
    log = []

    async def program(node):
        job = node.start(forever(node))
        node.start(note(log, "waiter", job))
        await node.sleep(1.0)
        job.cancel()
        log.append(("canceller", node.now()))
        await node.sleep(1.0)

    simulate(program)
    assert log == ["waiter", ("canceller", 1.0)]


def test_what_was_taken_behind_an_unread_message_is_forgotten():
    node = SimpleNamespace(inboxes=[Mailboxes(set())])
    communicator = Communicator(node, 0, None, None)
    box = communicator.mailboxes[A]
    box.put(1, ("unread",))
    for k in range(5000):
        box.put(2, (k,))
        assert communicator.recv(A, 2).value == Message(2, (k,))
    box.put(2, ("last",))
    assert len(box.queue) < 250
    assert communicator.drain(A) == [Message(1, ("unread",)), Message(2, ("last",))]


def test_a_cancelled_sleep_never_ends(simulate):
    log = []

    async def program(node):
        task = node.start(note(log, "woke", node.sleep(1)))
        await node.sleep(0.5)
        task.cancel()
        task.cancel()  # again: nothing
        await node.sleep(1)

    assert (simulate(program).time, log) == (1.5 * SECOND, [])


def test_a_function_is_called_with_each_message_at_once_and_in_order(simulate):
    log = []

    async def listener(node):
        await node.sleep(2.5)  # what has come before is not lost
        node.on(A, lambda source, body: log.append((node.now(), source, *body)))
        with pytest.raises(ValueError, match="rank 0 receives messages of tag 0 already"):
            node.on(A, print)
        with pytest.raises(ValueError, match="rank 0 cannot receive messages of tag 0: a function gets them"):
            node.recv(A)
        node.start(collect(log, node, B))
        with pytest.raises(ValueError, match="rank 0 receives messages of tag 1 already"):
            node.on(B, print)
        await node.sleep(10)

    def writer(*instants):
        async def program(node):
            for k, seconds in enumerate(instants):
                await node.sleep(seconds - node.now())
                node.send(0, A, k)
                node.send(0, B, "b")
            await forever(node)

        return program

    simulate(listener, writer(1, 3, 4), writer(2, 3))
    assert [row for row in log if row[2] != "b"] == [(2.5, 1, 0), (2.5, 2, 0), (3, 1, 1), (3, 2, 1), (4, 1, 2)]
    rest = [(2.5, 1), (2.5, 2), (3, 1), (3, 2), (4, 1)]
    assert [row for row in log if row[2] == "b"] == [(*row, "b") for row in rest]


def test_a_function_may_follow_who_has_received(simulate):
    log = []

    async def listener(node):
        log.append((await node.recv(A, source=1)).body)
        node.on(A, lambda _, body: log.append(body))
        await node.sleep(10)

    async def writer(node):
        for k in range(3):
            await node.sleep(1)
            node.send(0, A, k)
        await forever(node)

    simulate(listener, writer)
    assert log == [(0,), (1,), (2,)]


def test_many_cancelled_events_are_forgotten_and_the_others_happen(simulate):
    log = []

    async def program(node):
        for k in range(0, 1000, 2):
            node.start(note(log, k, node.sleep(1 + k)))
        for _ in range(30_000):
            node.start(note(log, "cancelled", node.sleep(100))).cancel()
        assert len(list(node.engine.later())) < 25_000
        for k in range(1, 1000, 2):
            node.start(note(log, k, node.sleep(1 + k)))
        await node.sleep(2000)

    simulate(program)
    assert log == list(range(1000))


def test_computations_and_sleeps_hand_back_control_even_when_they_take_no_time(simulate):
    log = []

    async def computing(node):
        value = await node.compute(max, 1, 2)
        log.append(f"computed {value}")

    async def spinning(node):
        for turn in range(100):
            if "set" in log:
                log.append(turn)
                return
            await node.sleep(0)

    async def setting(node):
        await node.sleep(0)
        await node.sleep(0)
        log.append("set")

    async def program(node):
        node.start(computing(node))
        node.start(spinning(node))
        node.start(setting(node))
        log.append("begun")
        await node.sleep(1)

    simulate(program, seconds=0.0)
    assert log == ["begun", "computed 2", "set", 3]


def test_a_task_runs_at_once_until_its_first_wait_and_gives_what_it_returns(simulate):
    log = []

    async def square(node, x):
        log.append("begun")
        await node.sleep(x)
        return x * x

    async def nothing():
        return "immediate"

    async def program(node):
        task = node.start(square(node, 3))
        log.append("started")
        assert await node.start(nothing()) == "immediate"
        assert (await task, node.now()) == (9, 3.0)
        assert await task == 9

    simulate(program)
    assert log == ["begun", "started"]


def test_two_coroutines_cannot_wait_for_one_request(simulate):
    async def program(node):
        request = node.sleep(1)
        node.start(note([], "first", request))
        node.start(note([], "second", request))

    with pytest.raises(RuntimeError, match="two coroutines of rank 0 wait for the same request"):
        simulate(program)


# The end of a run (law 6)


def test_the_first_program_to_return_ends_the_run_on_every_rank(simulate):
    ticks, closed = [], []

    async def ticking(node):
        try:
            while True:
                await node.sleep(1)
                ticks.append((node.rank, node.now()))
        finally:
            closed.append(node.rank)

    async def ending(node):
        await node.sleep(2)

    engine = simulate(ticking, ending, ticking)
    assert (engine.ended_by, engine.time) == (1, 2 * SECOND)
    assert ticks == [(0, 1.0), (2, 1.0), (0, 2.0)]  # of the same instant, what comes before rank 1
    assert sorted(closed) == [0, 2]


def test_at_one_instant_the_lowest_rank_ends_the_run(simulate):
    async def ending(node):
        await node.sleep(node.rank % 2 or 0.5)  # ranks 0 and 2 at 0.5 s, ranks 1 and 3 at 1 s

    assert simulate(forever, ending, ending, ending, ending).ended_by == 2


def test_a_program_that_returns_without_waiting_ends_the_run(simulate):
    async def ending(node):
        return

    engine = simulate(forever, ending)
    assert (engine.ended_by, engine.time) == (1, 0)


def test_an_exception_of_a_program_comes_out(simulate):
    async def failing(node):
        await node.compute(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        simulate(forever, failing)


@pytest.mark.parametrize(("until", "ticks"), [(3 * SECOND - 1, 2), (3 * SECOND, 3), (3 * SECOND + 1, 3)])
def test_until_is_the_last_instant_that_counts(simulate, until, ticks):
    log = []

    async def ticking(node):
        while True:
            await node.sleep(1)
            log.append(node.now())

    engine = simulate(ticking, until=until)
    assert (len(log), engine.time, engine.ended_by) == (ticks, until, None)


def test_a_deadlock_is_a_table_of_rank_coroutine_file_and_line(simulate):
    async def server(node):
        await node.recv(A, source=1)

    async def deep(node):
        await node.sleep(1)
        await node.recv(B)

    async def worker(node):
        await deep(node)

    with pytest.raises(Deadlock) as caught:
        simulate(server, worker)
    line = {f: f.__code__.co_firstlineno for f in (server, deep)}
    assert str(caught.value).splitlines() == [
        "deadlock: nothing can happen any more",
        f"  rank 0: {server.__qualname__} at {__file__}:{line[server] + 1}: recv of tag 0 from rank 1",
        f"  rank 1: {deep.__qualname__} at {__file__}:{line[deep] + 2}: recv of tag 1 from any rank",
    ]


def test_the_table_of_a_large_deadlock_is_cut(simulate):
    with pytest.raises(Deadlock) as caught:
        simulate(*[forever] * 25)
    rows = str(caught.value).splitlines()
    assert len(rows) == 22
    assert rows[-1].strip() == "... and 5 more"


# Handed over means frozen (law 3)


@pytest.mark.parametrize(
    "hand_over",
    [
        lambda node, x: node.send(1, A, x),
        lambda node, x: node.send(1, A, 7, (None, (x,))),
        lambda node, x: node.send(1, A, x[:2]),
        lambda node, x: node.compute(numpy.sum, x),
    ],
    ids=["sent", "sent in a tuple", "a part was sent", "computed with"],
)
def test_writing_to_an_array_that_was_handed_over_fails_at_the_write(simulate, hand_over):
    async def writer(node):
        x = numpy.ones(3)
        hand_over(node, x)
        y = x - 1.0  # a new one: fine
        y[0] = 5.0
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 5.0
        with pytest.raises(ValueError, match="read-only"):
            x -= 1.0

    simulate(writer, forever)


def test_writing_to_an_array_that_was_received_fails_at_the_write(simulate):
    async def writer(node):
        _, (x,) = await node.recv(A)
        with pytest.raises(ValueError, match="read-only"):
            x += 1.0

    assert simulate(sending((0, A, numpy.ones(3), 0)), writer).ended_by == 1


WRITTEN = "a tensor was written after it had been handed over"


def test_writing_to_a_tensor_is_caught_when_it_is_handed_over_again(simulate):
    torch = pytest.importorskip("torch")

    async def writer(node):
        x = torch.ones(3)
        while True:
            node.send(1, A, x)
            await node.sleep(1)
            x += 1.0

    with pytest.raises(ValueError, match=WRITTEN):
        simulate(writer, collecting([], A))


@pytest.mark.parametrize("guilty", ["sender, on the way", "sender, after the arrival", "receiver"])
def test_writing_to_a_tensor_is_caught_at_the_latest_at_the_end(simulate, guilty):
    torch = pytest.importorskip("torch")

    async def sender(node):
        x = torch.ones(3)
        node.send(1, A, (1, x))
        await node.sleep({"sender, on the way": 0.5, "sender, after the arrival": 1.5}.get(guilty, 5))
        if guilty != "receiver":
            x[0] = 2.0
        await node.sleep(5)

    async def receiver(node):
        _, ((_, x),) = await node.recv(A)
        if guilty == "receiver":
            x.mul_(2.0)
        await node.recv(B)
        return x

    with pytest.raises(ValueError, match=WRITTEN):
        simulate(sender, receiver, latency_ns=SECOND)


def test_tensors_that_are_only_replaced_are_fine(simulate):
    torch = pytest.importorskip("torch")

    async def program(node):
        x = torch.ones(3)
        x *= 2.0  # before it is handed over
        for _ in range(50):
            node.send(1, A, x)
            g = await node.compute(torch.mul, x, 0.5)
            x = x - 0.1 * g
        return x

    assert simulate(program, collecting([], A)).ended_by == 0


# Determinism

RANDOM_RUN = """
import sys
import numpy
from mpibench.engines.simulation import Simulation
from mpibench.node import Cluster

class Edge:
    latency_ns, instant = 1000, False
    def transmission(self, vectors, others):
        return 10 * (vectors + others)

def cluster(seed):
    def durations(rank):
        random = numpy.random.default_rng([seed, rank])
        return lambda cost, now: int(random.integers(1000, 9999))
    random = lambda rank: numpy.random.default_rng([seed, 9, rank])
    return Cluster(5, durations, lambda s, t: Edge(), lambda s, t: None, random)

async def peer(node):
    for k in range(40):
        await node.compute(str, k)
        node.send((node.rank + 1 + int(node.rng.integers(4))) % 5, 0, k)
        node.drain(0)

engine = Simulation()
ended_by = engine.run(cluster(int(sys.argv[1])), peer)
print(ended_by, engine.time, [node.fingerprint for node in engine.nodes])
"""


def test_same_seed_same_events_in_two_processes_and_another_seed_differs():
    def run(seed, hash_seed):
        return subprocess.Popen(
            [sys.executable, "-c", RANDOM_RUN, str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={"PYTHONHASHSEED": hash_seed},
        )

    processes = [run(0, "1"), run(0, "2"), run(1, "1")]
    first, again, other = (process.communicate(timeout=60)[0] for process in processes)
    assert all(process.returncode == 0 for process in processes)
    assert first == again
    assert first != other
    assert len(set(first.split("[")[1].split(","))) == 5  # every rank has a history of its own


def test_a_rank_has_one_generator_of_its_own(simulate):
    drawn = {}

    async def program(node):
        drawn[node.rank] = [node.rng.integers(10**9) for _ in range(3)]
        await node.sleep(1)

    simulate(program, program, seed=5)
    for rank in (0, 1):
        assert drawn[rank] == list(numpy.random.default_rng([5, rank]).integers(10**9, size=3))


# Against naive models

MAILBOX_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2)),
        st.tuples(st.just("recv"), st.integers(-1, 2)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("drain"), st.just(0)),
    ),
    max_size=40,
)


class NaiveReceive:
    def __init__(self, source):
        self.source, self.value = source, None


class NaiveMailbox:
    """Messages in a list and receivers in a list."""

    def __init__(self, newest_only):
        self.newest_only = newest_only
        self.messages, self.waiting = [], []

    def put(self, source, body):
        for receiver in self.waiting:
            if receiver.source in (ANY, source):
                self.waiting.remove(receiver)
                receiver.value = (source, (body,))
                return
        for message in self.messages:
            if self.newest_only and message[0] == source:
                message[1] = (body,)
                return
        self.messages.append([source, (body,)])

    def recv(self, source):
        receiver = NaiveReceive(source)
        for message in self.messages:
            if source in (ANY, message[0]):
                self.messages.remove(message)
                receiver.value = tuple(message)
                return receiver
        self.waiting.append(receiver)
        return receiver

    def drain(self):
        messages, self.messages = self.messages, []
        return [tuple(message) for message in messages]


@EXACT
@given(MAILBOX_STEPS, st.booleans())
def test_a_mailbox_is_a_list(steps, newest_only):
    node = SimpleNamespace(inboxes=[Mailboxes({A} if newest_only else set())])
    communicator, naive = Communicator(node, 0, None, None), NaiveMailbox(newest_only)
    pairs = []
    for k, (verb, number) in enumerate(steps):
        if verb == "put":
            communicator.mailboxes[A].put(number, (k,))
            naive.put(number, k)
        elif verb == "recv":
            pairs.append((communicator.recv(A, number), naive.recv(number)))
        elif verb == "drain":
            assert communicator.drain(A) == naive.drain()
        else:
            waiting = [pair for pair in pairs if not pair[0].done and pair[1] in naive.waiting]
            if number < len(waiting):
                waiting[number][0].cancel()
                naive.waiting.remove(waiting[number][1])
        assert [request.value for request, _ in pairs] == [receiver.value for _, receiver in pairs]
    assert communicator.drain(A) == naive.drain()


SENDS = st.lists(
    st.tuples(
        st.integers(0, 12),  # ns after the one before
        st.sampled_from([A, B]),  # A is newest_only
        st.integers(0, 1),  # communicator
        st.integers(0, 8),  # bytes, 1 ns each
        st.booleans(),  # whether somebody waits for it
        st.booleans(),  # lost
    ),
    max_size=25,
)


def naive_link(sends, latency_ns):
    """When each send is done, and what arrives when, by walking through the sends with a list as the queue."""
    clock, free, queue, done, arrivals, lost = 0, 0, [], {}, [], iter([send[5] for send in sends])

    def depart(now, members):
        nonlocal free
        _, tag, communicator, size, *_ = sends[members[-1]]
        free = now + size
        done.update(dict.fromkeys(members, free))
        if not next(lost):
            arrivals.append((free + latency_ns, communicator, tag, members[-1]))

    def leave_until(now):
        while queue and free <= now:
            depart(free, queue.pop(0))

    for k, (gap, tag, communicator, *_) in enumerate(sends):
        clock += gap
        leave_until(clock)
        same = [members for members in queue if sends[members[-1]][1:3] == (A, communicator)]
        if not queue and free <= clock:
            depart(clock, [k])
        elif tag == A and same:
            same[0].append(k)
        else:
            queue.append([k])
    leave_until(10**6)
    return done, arrivals


@EXACT
@given(SENDS, st.integers(0, 5))
def test_a_link_is_a_queue(sends, latency_ns):
    done, arrivals = {}, []
    graph = SimpleNamespace(sources=lambda rank: [0][:rank], destinations=lambda rank: [1][rank:])
    cluster = Cluster(
        2,
        durations=lambda rank: None,
        edge=lambda source, to: SimpleNamespace(latency_ns=latency_ns, instant=False, transmission=lambda v, o: v),
        lost=lambda source, to: iter([send[5] for send in sends]).__next__,
        random=lambda rank: None,
        newest_only=frozenset({A}),
    )

    async def wait(node, k, request):
        await request
        done[k] = node.engine.time

    async def listen(node, index, communicator, tag):
        while True:
            _, (k,) = await communicator.recv(tag)
            arrivals.append((node.engine.time, index, tag, k))

    async def program(node):
        communicators = [node, node.join(graph)]
        if node.rank == 1:
            for index, communicator in enumerate(communicators):
                for tag in (A, B):
                    node.start(listen(node, index, communicator, tag))
            await forever(node)
        await node.sleep(1e-9)  # rank 1 has joined
        for k, (gap, tag, index, size, awaited, _) in enumerate(sends):
            if gap:
                await node.sleep(gap * 1e-9)
            request = communicators[index].send(1, tag, k, size=size)
            if awaited:
                node.start(wait(node, k, request))
        await node.sleep(1e-3)

    engine = Simulation()
    engine.run(cluster, program)
    expected_done, expected_arrivals = naive_link(sends, latency_ns)
    assert done == {k: instant + 1 for k, instant in expected_done.items() if sends[k][4]}
    assert arrivals == [(instant + 1, *rest) for instant, *rest in expected_arrivals]
