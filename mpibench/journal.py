"""What a rank has sent and computed, and when it was, for counters that are wanted after the run."""

from array import array
from dataclasses import dataclass

import numpy

from mpibench.layout import wire_bytes
from mpibench.node import LOST, RECEIVED, SECOND, STOPPED, UNKNOWN

WIDTH = 6
MOST_ROWS = 1_000_000  # at full resolution


@dataclass(slots=True)
class Kind:
    """Messages of one tag and layout on one edge that all got lost or all did not, and how many a rank has sent."""

    number: int  # in the order of their first
    to: int
    tag: int
    bytes: int
    bits: int
    mpi: int
    lost: bool
    like: tuple  # what its messages have in common beside the rank that they go to
    messages: int = 0


class Journal:
    """What a rank has sent and computed.

    `rows`: keep when, so that counters can be read at any instant of the run. A row is (instant in ns, number of its
    Kind or COMPUTED, STOPPED or RECEIVED - source, how many, bytes or nanoseconds, cost in gradients, arrival in ns or
    LOST or UNKNOWN). Rows of one kind within `resolution` ns are one, so that a long native run does not fill memory.
    """

    def __init__(self, rows=True, resolution=0):
        self.resolution = resolution
        self.rows = array("d") if rows else None
        self.last = {}  # kind -> (instant, place) of its last row
        self.kinds = {}
        self.messages = self.bytes = self.bits = 0

    def sent(self, now, send, arrival, lost, last=None):
        """A message has left for good, or has got lost. Returns its Kind; `last` is that of the last one to this rank,
        mostly the same."""
        like = send.communicator.index, send.tag, send.sizes, send.charged, lost
        kind = last if last is not None and last.like == like else self.kind_of(send, like)
        kind.messages += 1
        self.messages += 1
        self.bytes += kind.bytes
        self.bits += kind.bits
        if self.rows is not None:
            self.note(now, kind.number, kind.bytes, 0, arrival)
        return kind

    def kind_of(self, send, like):
        """The Kind of this message, which is new if there was no such one."""
        key = send.link.to, like
        kind = self.kinds.get(key)
        if kind is None:
            (vectors, others, _), (counted, _, padding) = send.sizes, send.charged
            size, bits = vectors + others, round(8 * counted) - padding
            kind = Kind(len(self.kinds), key[0], send.tag, size, bits, wire_bytes(send.body), like[-1], like)
            self.kinds[key] = kind
        return kind

    def note(self, now, kind, amount, cost, arrival=UNKNOWN):
        """Count a message or a computation."""
        if self.rows is None:
            return
        if self.resolution:
            began, place = self.last.get(kind, (-self.resolution, 0))
            if now < began + self.resolution:
                self.rows[place] += 1
                self.rows[place + 1] += amount
                self.rows[place + 2] += cost
                return
            self.last[kind] = now, len(self.rows) + 2
        elif len(self.rows) > WIDTH * MOST_ROWS:
            self.resolution = 50_000_000
        self.rows.extend((now, kind, 1, amount, cost, arrival))

    def __len__(self):
        return len(self.rows) // WIDTH if self.rows is not None else 0

    def until(self, limit, rank):
        """The rows (r, 6) of this rank up to the last event that counts, `limit` = (instant, rank)."""
        rows = numpy.array(self.rows).reshape(-1, WIDTH)
        return rows[(rows[:, 0] < limit[0]) | ((rows[:, 0] == limit[0]) & (rank <= limit[1]))]

    @property
    def totals(self):
        """Messages, bytes and bits that were sent so far."""
        return self.messages, self.bytes, self.bits

    def arriving(self):
        """destination -> messages sent that do not get lost."""
        sums = {}
        for kind in self.kinds.values():
            sums[kind.to] = sums.get(kind.to, 0) + (0 if kind.lost else kind.messages)
        return sums

    def ledger(self, rank, counts=None):
        """A row for each edge of this rank and tag, with the columns of `mpibench.ledger`; `counts`: how many messages
        of each kind count, where these are not all."""
        rows = {}
        for kind in self.kinds.values():
            count = kind.messages if counts is None else int(counts[kind.number])
            row = rows.setdefault((kind.to, name_of(kind.tag)), [0] * 5)
            for place, amount in enumerate((1, kind.lost, kind.bits, kind.bytes, kind.mpi)):
                row[place] += count * amount
        return [(rank, to, tag, *row) for (to, tag), row in sorted(rows.items()) if row[0]]


def name_of(tag):
    """What an algorithm calls this tag."""
    return getattr(tag, "name", str(tag))


def events_of(journals):
    """(columns of /events, names of tags by number) from each rank's (Kinds, rows). A message leaves at `t` and arrives
    at `until`, NaN where that is not known or does not happen; a computation begins and ends; in seconds. Kinds are 0
    sent, 1 lost, 2 computed, 3 stopped."""
    found, names = [], {}
    for rank, (kinds, rows) in enumerate(journals):
        names |= {int(kind.tag): name_of(kind.tag) for kind in kinds}
        rows = rows[rows[:, 1] > RECEIVED]
        number, sent = rows[:, 1].astype(int), rows[:, 1] >= 0
        facts = numpy.array([*((kind.to, kind.tag, kind.lost) for kind in kinds), (-1, -1, 0)], int)
        peer, tag, lost = facts[numpy.where(sent, number, -1)].T
        arrival = numpy.where((rows[:, 5] >= 0) & (rows[:, 5] < LOST), rows[:, 5], numpy.nan)
        columns = {
            "t": numpy.where(sent, rows[:, 0], rows[:, 0] - rows[:, 3]) / SECOND,
            "until": numpy.where(sent, arrival, rows[:, 0]) / SECOND,
            "rank": numpy.full(len(rows), rank),
            "kind": numpy.where(sent, lost, numpy.where(number == STOPPED, 3, 2)),
            "peer": peer,
            "tag": tag,
            "bytes": numpy.where(sent, rows[:, 3], 0).astype(int),
        }
        found.append(columns)
    columns = {name: numpy.concatenate([each[name] for each in found]) for name in found[0]}
    order = numpy.argsort(columns["t"], kind="stable")
    return {name: column[order] for name, column in columns.items()}, names
