"""The table of laws: what every algorithm promises, a row for each way to run it.

A new algorithm is one file in mpibench/algorithms and one row here; `test_algorithms.py` holds every row to the laws of
all. The parameters of a row must reach the target of `test_algorithms.SMALL` (four workers, a noisy quadratic in six
dimensions, strong convexity 0.1). `sent` says what the algorithm's docstring says: for each tag how many messages of it
leave in a run, as a function of what the run did, and how many bytes each has, as a function of the dimension.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Did(NamedTuple):
    """What a run did, on links that take no time: its number of workers, gradients used and discarded in all, and the
    rank behind each update."""

    n: int
    used: int
    discarded: int
    sources: tuple[int, ...]

    @property
    def settled(self):
        return self.used + self.discarded


@dataclass(frozen=True)
class Row:
    """A way to run an algorithm, and what it promises there."""

    name: str  # the file in mpibench/algorithms
    parameters: Mapping[str, object]  # as in an experiment
    sent: Mapping[str, tuple[Callable[[Did], int], Callable[[int], int]]]  # tag -> messages of a run, bytes of each
    refused: Mapping[str, tuple]  # parameter -> values that an experiment must not have, for each parameter
    newest_only: tuple[str, ...] = ()  # tags of which only the newest message matters
    tolerates_loss: bool = False
    inbox: Callable[[int], int] = lambda n: 0  # most messages of a tag that are unread on one rank, with n workers
    waiting: int | None = 0  # most messages that wait for one link while it carries another; None: no bound

    def __str__(self):
        return "-".join([self.name, *(str(value) for key, value in self.parameters.items() if key != "stepsize")])


def numbered_vector(d):
    """Bytes of a counter and a float64 vector."""
    return 8 + 8 * d


def stopped(did, R):
    """How many workers were behind by R updates when an update was made, by counting the delay of each worker."""
    delay = dict.fromkeys(range(1, did.n + 1), 0)
    stops = 0
    for source in did.sources:
        delay = {j: d + 1 for j, d in delay.items()} | {source: 0}
        behind = [j for j, d in delay.items() if d >= R]
        delay |= dict.fromkeys(behind, 0)
        stops += len(behind)
    return stops


POSITIVE = (0, -0.1, math.inf, math.nan, True, "fast")
GRADIENT = (lambda did: did.settled, numbered_vector)
ANSWER = (lambda did: did.n + did.settled, numbered_vector)  # a point for everybody, and one for each gradient
ASYNC = {"sent": {"MODEL": ANSWER, "GRADIENT": GRADIENT}}
ASYNC |= {"refused": {"stepsize": POSITIVE, "rule": ("delay-adaptive", "", 1, True)}}
THRESHOLD = (0, -1, 1.5, -math.inf, math.nan, True, "16")
RINGMASTER = {"newest_only": ("MODEL",)}
RINGMASTER |= {"refused": {"stepsize": POSITIVE, "threshold": THRESHOLD, "stop_stale": (0, 1, "yes")}}


def ringmaster_with_stops(stepsize, R):
    """A point for everybody, one for each gradient used and one for each worker stopped. A worker goes on by itself, so
    it may make gradients faster than a slow link carries them."""
    sent = {"MODEL": (lambda did: did.n + did.used + stopped(did, R), numbered_vector), "GRADIENT": GRADIENT}
    parameters = {"stepsize": stepsize, "threshold": R, "stop_stale": True}
    return Row("ringmaster", parameters, sent, waiting=None, **RINGMASTER)


LAWS = [
    Row(
        "minibatch_sgd",
        {"stepsize": 0.5},
        sent={"MODEL": (lambda did: did.settled, numbered_vector), "GRADIENT": GRADIENT},
        refused={"stepsize": POSITIVE},
        inbox=lambda n: n - 1,  # all but the slowest, if the server reads that one first
    ),
    Row("async_sgd", {"stepsize": 0.1}, **ASYNC),
    Row("async_sgd", {"stepsize": 0.1, "rule": "delay_adaptive"}, **ASYNC),
    Row("async_sgd", {"stepsize": 0.1, "rule": "drop"}, **ASYNC),
    Row("async_sgd", {"stepsize": 0.1, "rule": "drop_counted"}, **ASYNC),
    Row("ringmaster", {"stepsize": 0.2, "threshold": 2}, sent={"MODEL": ANSWER, "GRADIENT": GRADIENT}, **RINGMASTER),
    ringmaster_with_stops(0.2, 1),
    ringmaster_with_stops(0.2, 3),
    ringmaster_with_stops(0.1, math.inf),
]
