"""The byte ledger and the events of a run, by hand and by identities."""

from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest
from toy import Toy, toy_cell

from mpibench import ledger
from mpibench.heterogeneity import Loss
from mpibench.journal import MOST_ROWS, WIDTH, Journal, events_of
from mpibench.layout import HEADER, wire_bytes
from mpibench.node import COMPUTED, LOST, SECOND, UNKNOWN, Node, Packed
from mpibench.runner import simulate


def message(to, tag, body, index=0):
    sizes = Node.freeze(None, body)
    link, communicator = SimpleNamespace(to=to), SimpleNamespace(index=index)
    return SimpleNamespace(link=link, communicator=communicator, tag=tag, body=body, sizes=sizes, charged=sizes)


def test_a_ledger_by_hand():
    journal, x = Journal(rows=False), numpy.ones(3)
    for now, arrival in ((0, 5), (7, LOST), (9, 12)):
        journal.sent(now, message(1, 4, (2, x)), arrival, arrival == LOST)
    journal.sent(3, message(1, 4, (2, Packed(numpy.zeros(2, numpy.uint8), 11))), 4, False)
    journal.sent(3, message(2, 5, ()), 3, False)
    assert journal.totals == (5, 3 * 32 + 10, 3 * 192 + 11) and journal.arriving() == {1: 3, 2: 1}
    large, small, empty = wire_bytes((2, x)), wire_bytes((2, Packed(numpy.zeros(2, numpy.uint8), 11))), wire_bytes(())
    assert journal.ledger(0) == [
        (0, 1, "4", 4, 1, 3 * 192 + 11, 3 * 32 + 10, 3 * large + small),
        (0, 2, "5", 1, 0, 0, 0, empty),
    ]
    assert empty == HEADER.size + 2  # the signature ()


def test_the_kind_of_the_last_message_is_taken_only_for_one_like_it():
    x, y, packed = numpy.ones(3), numpy.ones(4), Packed(numpy.zeros(2, numpy.uint8), 11)
    messages = [(4, (2, x), 0, False), (4, (2, x), 0, True), (5, (2, x), 0, False), (4, (2, y), 0, False)]
    messages += [(4, (2, x), 1, False), (4, (2, packed), 0, False), (4, (2, x), 0, False), (4, (2, x), 0, False)]
    once, again = Journal(rows=False), Journal(rows=False)
    last = None
    for now, (tag, body, index, lost) in enumerate(messages):
        sent = message(1, tag, body, index)
        once.sent(now, sent, LOST if lost else now, lost)
        last = again.sent(now, sent, LOST if lost else now, lost, last)
    assert [kind.messages for kind in again.kinds.values()] == [3, 1, 1, 1, 1, 1]
    assert (once.ledger(0), once.totals, once.arriving()) == (again.ledger(0), again.totals, again.arriving())
    assert sum(row[4] for row in again.ledger(0)) == 1  # lost


def test_the_bytes_for_mpi_are_header_signature_numbers_and_vectors_at_multiples_of_64():
    signature = "('q', ('a', '<f8', (3,)))"
    assert wire_bytes((2, numpy.ones(3))) == 64 + 24 and HEADER.size + len(signature) + 8 <= 64
    large = numpy.ones(10_000)  # goes from its own memory
    assert wire_bytes((2, large)) == HEADER.size + len("('q', ('a', '<f8', (10000,)))") + 8 + 80_000


LINKS = {"vector_seconds": 0.25, "latency_seconds": 0.125}


@pytest.fixture
def result():
    cell = toy_cell("async_sgd", {"stepsize": 0.5}, [1, 3], links=LINKS, stop={"seconds": 3.0}, record_events=True)
    return simulate(cell, seed=0)


def test_asynchronous_sgd_by_hand(result):
    # x^0 leaves at 0 and is at the workers at 0.375; worker 1's gradients are there at 1.75, next point at 2.125, its
    # job ends at 3.125; worker 2's is under way when the run ends, at 3
    rows = [dict(zip(ledger.COLUMNS, row, strict=True)) for row in zip(*result.ledger.values(), strict=True)]
    found = [(row["source"], row["destination"], row["tag"], row["messages"], row["algorithmic"]) for row in rows]
    assert found == [(0, 1, "MODEL", 2, 128), (0, 2, "MODEL", 1, 64), (1, 0, "GRADIENT", 1, 64)]
    assert [row["serialised"] for row in rows] == [32, 16, 16]  # a counter beside each vector
    assert result.received.tolist() == [[0, 1, 2], [0, 2, 1], [1, 0, 1]]
    groups = ledger.tables(result.ledger, result.received, server=0)
    assert groups[""][1] == {"rounds": 1, "payload_bits": 64, "wire_bytes": 4 * wire_bytes((0, numpy.ones(1)))}
    assert [groups[level][0]["up"] for level in ledger.LEVELS[:2]] == [64, 16]
    assert [groups[level][0]["down"] for level in ledger.LEVELS[:2]] == [192, 48]
    assert result.trace["bits"][-1] == 256 and result.trace["bytes"][-1] == 64


def test_events_by_hand(result):
    rows = list(zip(*(result.events[name].tolist() for name in ("t", "until", "rank", "kind", "peer")), strict=True))
    assert rows == [
        (0.0, 0.375, 0, 0, 1),
        (0.0, 0.375, 0, 0, 2),
        (0.375, 1.375, 1, 2, -1),
        (1.375, 1.75, 1, 0, 0),
        (1.75, 2.125, 0, 0, 1),
    ]
    assert [result.tags.get(tag, "") for tag in result.events["tag"]] == ["MODEL", "MODEL", "", "GRADIENT", "MODEL"]
    assert result.events["bytes"].tolist() == [16, 16, 0, 16, 16]


def test_what_is_sent_arrives_is_lost_or_is_in_flight():
    cell = toy_cell("r_fast", {"stepsize": 0.01}, [1, 2, 3], stop={"seconds": 20.1}, toy=Toy(), links=LINKS)
    ranks = simulate(replace(cell, loss=Loss(probability=0.3)), seed=3).ranks
    fates = [ranks[f"messages_{fate}"] for fate in ("sent", "received", "lost", "in_flight")]
    assert all(fate.min() >= 0 and fate.sum() > 0 for fate in fates)
    assert fates[0].sum() == sum(fate.sum() for fate in fates[1:])


def test_lost_messages_and_unknown_arrivals_have_no_end():
    journal = Journal()
    journal.sent(5, message(1, 4, ()), LOST, True)
    journal.sent(6, message(1, 4, ()), UNKNOWN, False)
    events, _ = events_of([(journal.kinds.values(), journal.until((SECOND, 0), 0))])
    assert events["kind"].tolist() == [1, 0] and numpy.isnan(events["until"]).all()


def test_a_journal_gets_coarser_when_it_is_long(monkeypatch):
    monkeypatch.setattr("mpibench.journal.MOST_ROWS", 10)
    journal = Journal()
    for now in range(1000):
        journal.note(now, COMPUTED, 1, 1)
    assert len(journal) < 20 and sum(journal.rows[2::WIDTH]) == sum(journal.rows[4::WIDTH]) == 1000
    assert MOST_ROWS > 10
