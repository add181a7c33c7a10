"""What each rank of a run over MPI did step by step, and how its delays came out: /steps and /delays.

A step of a rank is a computation and what came before it. Of a native run one row may stand for all that ended within
the resolution of its journal; its seconds are then means.
"""

import numpy

from mpibench.node import COMPUTED, SECOND, STOPPED

MOST_ROWS = 400  # that are kept, evenly spaced; percentiles are of all
PERCENTILES = (50, 95, 99)


def steps_of(journals, warm_up, evaluation_seconds):
    """(columns, attributes) of /steps from each rank's rows of its journal and its seconds per gradient before the
    clock.

    start_seconds, compute_seconds, wait_seconds (since the last computation ended: messages and idleness), messages
    (sent meanwhile), off_clock and is_warmup (0/1): rows before the clock, whose start is NaN, and evaluation.
    """
    found, all_rows = [], []
    for rank, rows in enumerate(journals):
        ended = rows[(rows[:, 1] == COMPUTED) | (rows[:, 1] == STOPPED)]
        sent = rows[rows[:, 1] >= 0]
        if len(ended) == 0:
            continue
        each = numpy.maximum(ended[:, 2], 1)
        compute = ended[:, 3] / each
        start = ended[:, 0] - compute
        wait = numpy.maximum(0, start - numpy.concatenate([[0], ended[:-1, 0]])) / each
        counted = numpy.concatenate([[0], numpy.cumsum(sent[:, 2])])[numpy.searchsorted(sent[:, 0], ended[:, 0])]
        columns = (numpy.full(len(ended), rank), start / SECOND, compute / SECOND, wait / SECOND)
        all_rows.append(numpy.stack([*columns, numpy.diff(counted, prepend=0)], axis=1))
    table = numpy.concatenate(all_rows) if all_rows else numpy.zeros((0, 5))
    every = -(-len(table) // MOST_ROWS) or 1
    kept = table[::every]
    found = [(rank, numpy.nan, seconds, 0.0, 0, 1, 1) for rank, seconds in enumerate(warm_up) if seconds]
    found += [(*row, 0, 0) for row in kept.tolist()]
    columns = numpy.array(found).reshape(-1, 7).T
    names = ("rank", "start_seconds", "compute_seconds", "wait_seconds", "messages", "off_clock", "is_warmup")
    whole = {"rank", "messages", "off_clock", "is_warmup"}
    attrs = {"steps": len(table), "every": every, "evaluation_seconds_off_clock": evaluation_seconds}
    for name, column in (("compute", table[:, 2]), ("wait", table[:, 3])):
        for percent in PERCENTILES if len(table) else ():
            attrs[f"{name}_p{percent}_seconds"] = float(numpy.percentile(column, percent))
    return {n: c.astype(int) if n in whole else c for n, c in zip(names, columns, strict=True)}, attrs


def delays_of(busy_seconds, late, model, seed):
    """(columns, attributes) of /delays.

    requested_seconds: what the model gave each rank for its computations in all; realised_seconds: the same and by how
    much wall time, in modelled seconds, their ends were late. `late`: (number of ends, seconds late in all) a rank.
    """
    requested = numpy.asarray(busy_seconds, float)
    columns = {
        "requested_seconds": requested,
        "realised_seconds": requested + [seconds for _, seconds in late],
        "computations": numpy.array([count for count, _ in late]),
    }
    return columns, {"model": model, "seed": seed, "contention": "links carry one message at a time; hosts share none"}
