"""The byte ledger of a run.

Levels: `algorithmic` bits as the paper counts them (vectors by their bytes, what a compressor has packed by its
formula, numbers and flags not at all), `serialised` bytes of the bodies, `mpi` the bytes that MPI is handed for them,
headers included, or in simulation would be. The three meters of papers are made of these: rounds (a message with a
vector, upwards where there is a server), their bits, and bytes on the wire both ways.
"""

import numpy

COLUMNS = ("source", "destination", "tag", "messages", "lost", "algorithmic", "serialised", "mpi")
LEVELS = COLUMNS[-3:]


def together(rows):
    """The ledger of all ranks, column to values, from a list of rows."""
    columns = {name: numpy.array([row[place] for row in rows]) for place, name in enumerate(COLUMNS)}
    return columns if rows else dict.fromkeys(COLUMNS, numpy.zeros(0, int))


def by_edge(ledger, *columns):
    """(edges, 2 + columns): source, destination, and the sums of these columns of a ledger over all tags."""
    pairs = numpy.stack([ledger["source"], ledger["destination"]], axis=1).astype(numpy.int64).reshape(-1, 2)
    edges, places = numpy.unique(pairs, axis=0, return_inverse=True)
    sums = [numpy.bincount(places.ravel(), ledger[name], len(edges)) for name in columns]
    return numpy.column_stack([edges, *sums]).astype(numpy.int64)


def tables(ledger, received, server=None):
    """What of it is written: group below /bytes ("" for itself) to (datasets, attributes).

    received  (edges, 3): source, destination, messages that have arrived
    server    the rank to and from which ways are told apart, if any
    """
    edges = by_edge(ledger, "messages", "lost", *LEVELS)
    arrived = {(source, to): count for source, to, count in received.tolist()}
    columns = dict(zip(("source", "destination", "messages", "lost"), edges.T, strict=False))
    columns["received"] = [arrived.get(pair, 0) for pair in map(tuple, edges[:, :2].tolist())]
    ups, found = edges[:, 0] != server, {"edges": (columns | {"bytes": edges[:, 5]}, {}), "kinds": (ledger, {})}
    for level, amount in zip(LEVELS, edges[:, 4:].T, strict=True):
        ways = {} if server is None else {"up": int(amount[ups].sum()), "down": int(amount[~ups].sum())}
        found[level] = ways | {"edges": amount}, {}
    rising = (ledger["source"] != server) & (ledger["algorithmic"] > 0)
    rounds, bits = (int(ledger[name][rising].sum()) for name in ("messages", "algorithmic"))
    return found | {"": ({}, {"rounds": rounds, "payload_bits": bits, "wire_bytes": int(edges[:, 6].sum())})}


def added(first, second):
    """The ledger of two runs together."""
    rows = {}
    for each in (first, second):
        for source, to, tag, *amounts in zip(*(numpy.asarray(each[name]).tolist() for name in COLUMNS), strict=True):
            rows[source, to, tag] = [a + b for a, b in zip(rows.get((source, to, tag), [0] * 5), amounts, strict=True)]
    return together([(*key, *amounts) for key, amounts in sorted(rows.items())])
