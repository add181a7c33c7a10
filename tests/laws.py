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

import swarm_references

from mpibench import schedule


class Did(NamedTuple):
    """What a run did, on links that take no time: its number of workers, gradients used and discarded in all, gradients
    finished on each rank, and the rank behind each update."""

    n: int
    used: int
    discarded: int
    finished_on: tuple[int, ...]
    sources: tuple[int, ...]

    @property
    def finished(self):
        return sum(self.finished_on)

    @property
    def sent_up(self):
        """Gradients finished elsewhere than on rank 0."""
        return self.finished - self.finished_on[0]

    @property
    def updates(self):
        return len(self.sources)

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
    virtual: bool = True  # whether it runs in virtual time, where the laws are held
    waiting: int | None = 0  # most messages that wait for one link while it carries another; None: no bound
    needs_link_times: bool = False  # whether it is defined only where links take time
    charged: bool = False  # whether the bytes of `sent` are what links are charged, and others are serialised
    active: int = 2  # fewest workers of four that compute

    def __str__(self):
        values = [value for key, value in self.parameters.items() if key != "stepsize"]
        values = [part for value in values for part in (value.values() if isinstance(value, dict) else [value])]
        return "-".join([self.name, *map(str, values)])


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


def numbers_and_vector(count):
    """Bytes of so many numbers and a float64 vector."""
    return lambda d: 8 * count + 8 * d


def nothing(d):
    """Bytes of a message that says only what its tag says."""
    return 0


BOOLEAN = (0, 1, "yes")
COUNT = (0, -1, 1.5, math.inf, True, "16")
STEPS = {"refused": {"stepsize": POSITIVE, "stop_stale": BOOLEAN}, "newest_only": ("MODEL",)}
BATCHES = STEPS | {"refused": STEPS["refused"] | {"batch": COUNT}}


def one_point_a_step(name, parameters, **more):
    """A method whose steps collect gradients at one point. Who holds that point gets CONTINUE, who does not MODEL. With
    stops everybody gets MODEL at every step, and goes on alone meanwhile, faster perhaps than its link carries."""
    if parameters.get("stop_stale"):
        point = (lambda did: did.n * (1 + did.updates), numbered_vector)
        more |= {"sent": {"MODEL": point, "CONTINUE": (lambda did: 0, nothing)}, "waiting": None}
    else:
        point = (lambda did: did.n + did.updates + did.discarded, numbered_vector)
        more |= {"sent": {"MODEL": point, "CONTINUE": (lambda did: did.used - did.updates, nothing)}}
    more["sent"]["GRADIENT"] = GRADIENT
    return Row(name, parameters, **more)


def m_sync(m, stop_stale):
    """With stops everybody gets every point, and without them those that have reported."""
    points = lambda did: did.n + m * (did.updates - 1) + did.discarded  # noqa: E731
    if stop_stale:
        points = lambda did: did.n * did.updates  # noqa: E731
    parameters = {"stepsize": 0.3, "quorum": m, "stop_stale": stop_stale}
    return Row(
        "m_sync_sgd",
        parameters,
        sent={"MODEL": (points, numbered_vector), "GRADIENT": GRADIENT},
        refused={"stepsize": POSITIVE, "stop_stale": BOOLEAN, "quorum": (*COUNT, 5)},  # of four workers
        newest_only=("MODEL",),
        waiting=None if stop_stale else 0,
    )


def shares(name, parameters, takes_part, numbers, **more):
    """A method in which each of `takes_part` workers gets a point a step and sends the sum of its gradients there."""
    each = lambda did: takes_part * did.updates  # noqa: E731
    down, up = map(numbers_and_vector, numbers)
    return Row(name, parameters, sent={"MODEL": (each, down), "SUM": (each, up)}, **more)


def on_trees(name, parameters, up):
    """A method on trees, here on a complete graph, whose tree is a star around rank 0: a step has a point for
    everybody else and what goes up."""
    refused = {"stepsize": POSITIVE, "batch": COUNT, "pivot": (-1, 4, 1.5, "center", True)}
    return Row(
        name,
        parameters,
        sent={"POINT": (lambda did: (did.n - 1) * did.updates, numbered_vector), **up},
        refused={key: refused[key] for key in ("stepsize", *(["batch"] if "batch" in parameters else []), "pivot")},
        newest_only=("POINT",) if "fragile" in name or "eager" in name else (),
        inbox=lambda n: n,
        waiting=None,
    )


def to_all_others(did):
    """Of synchronous methods on a complete graph: one message on every directed edge at every step."""
    return did.n * (did.n - 1) * did.updates


def pieces(d):
    """Bytes of the parts of a vector that four ranks reduce on a ring, equally often."""
    return [8 * (d * (c + 1) // 4 - d * c // 4) for c in range(4)]


def pushes(parameters):
    """At every τ-th gradient of a rank, the first included, one message to one peer or to three."""
    peers, tau = 3 if "peers" in parameters else 1, parameters.get("overlap", 1)
    return lambda did: peers * sum(-(-g // tau) for g in did.finished_on)


def of_swarm(parameters):
    """What is refused beside these: also a side and a bound, or one of them without bits."""
    refused = {"stepsize": POSITIVE, "local_steps": COUNT, "geometric": BOOLEAN, "bits": (-1, 17, 1.5, True, "8")}
    return refused | {key: POSITIVE if key in parameters else (*POSITIVE, 0.1) for key in ("side", "bound")}


def local_phases(steps):
    """How often a rank has finished so many local steps."""
    return lambda did: sum(g // steps for g in did.finished_on)


def packed(bits):
    """Bytes of a vector in so many bits a coordinate, and of a hash."""
    return lambda d: 8 + math.ceil(bits * d / 8)


def of_code(bits):
    """Bytes of a counter and a packed vector of float64, of so many bits by its formula."""
    return lambda d: 8 + math.ceil(bits(d) / 8)


def compressed(name, parameters, bits, refused):
    """Minibatch SGD whose way up is compressed to so many bits."""
    sent = {"MODEL": (lambda did: did.settled, numbered_vector), "GRADIENT": (lambda did: did.settled, of_code(bits))}
    return Row(name, parameters, sent, refused={"stepsize": POSITIVE} | refused, inbox=lambda n: n - 1)


COMPRESSOR = (3, "top_k", {}, {"name": "topk"}, {"name": "top_k"}, {"name": "top_k", "k": 0}, {"name": "top_k", "k": 7},
              {"name": "qsgd", "levels": 0}, {"name": "qsgd", "s": 1})  # fmt: skip


def in_pairs(tag, parameters):
    """How many messages of this tag it takes to find all pairs, by a reference. A pair uses the local steps of both; at
    the last one the run may end before the second says so."""
    steps, dither = parameters.get("local_steps", 1), 6 if "bits" in parameters else 0
    return lambda did: swarm_references.messages(math.ceil(did.used / (2 * steps)), steps, dither)[tag]


RAND_1 = {"name": "rand_k", "k": 1}
COMPRESSORS = ("rand_k", {"name": "rand_q", "k": 1}, {"name": "rand_k"}, {"name": "rand_k", "k": 0})
UNBIASED = (*COMPRESSORS, {"name": "top_k", "k": 1}, {"name": "rand_k", "k": 1, "shared": True})


def in_equilibrium(limit, compressor):
    """Shadowheart on links of 0.1 s a vector. The test of messages has workers of sqrt(2), sqrt(3), sqrt(5) and
    sqrt(67) seconds and six coordinates; there all four take part."""
    h = [math.sqrt(p) for p in (2, 3, 5, 67)]

    def messages(d):
        """Bytes of each worker's, one number a message."""
        if compressor["name"] == "identity":
            return [8 * d]
        made = schedule.schedule(d - 1, 30.0, h, [0.1 / d] * 4, d, limit)
        return [8 * d if vector else 8 * int(m) for m, vector in zip(made.m, made.dense, strict=True)]

    each = lambda did: did.n * did.updates  # noqa: E731
    refused = {"stepsize": POSITIVE, "noise_ratio": (-1, math.inf, math.nan, True), "compressor": UNBIASED}
    return Row(
        "shadowheart",
        {"stepsize": 0.3, "noise_ratio": 30.0, "compressor": compressor, "limit": limit},
        sent={"MODEL": (each, numbers_and_vector(3)), "MESSAGES": (each, messages)},
        refused=refused | {"limit": ("dens", 1, True)},
        needs_link_times=True,
        charged=True,
    )


def adaptive(compressor, packed, each):
    """Adaptive Shadowheart, which sends `each` messages per gradient on links that take no time, to each of which
    `packed` ones are charged."""
    size = lambda d: 8 * (d if compressor["name"] == "identity" else 1) * packed  # noqa: E731
    refused = {"stepsize": POSITIVE, "noise_ratio": (-1, math.inf, math.nan, True), "compressor": UNBIASED}
    return Row(
        "adaptive_shadowheart",
        {"stepsize": 0.3, "noise_ratio": 2.0, "compressor": compressor, "packed": packed},
        sent={
            "MODEL": (lambda did: did.n * did.updates, numbered_vector),
            "MESSAGES": (lambda did: each * did.finished, size),
            "SUM": (lambda did: 0, nothing),
        },
        refused=refused | {"packed": COUNT},
        newest_only=("MODEL", "SUM"),
        inbox=lambda n: 1,
        waiting=1,
        charged=True,
    )


LAWS = [
    *(in_equilibrium(limit, RAND_1) for limit in ("dense", "clip", "none")),
    in_equilibrium("dense", {"name": "identity"}),
    adaptive(RAND_1, 2, 3),
    adaptive({"name": "identity"}, 1, 1),
    Row("sgd_one", {"stepsize": 0.1}, sent={}, refused={"stepsize": POSITIVE}, active=1),
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
    m_sync(3, stop_stale=False),
    m_sync(3, stop_stale=True),
    m_sync(4, stop_stale=True),
    *(
        one_point_a_step(name, {"stepsize": 0.5} | parameters | {"stop_stale": stop_stale}, **more)
        for stop_stale in (False, True)
        for name, parameters, more in (
            ("rennala", {"batch": 1}, BATCHES),
            ("rennala", {"batch": 6}, BATCHES),
            ("malenia", {"batch": 6}, BATCHES),
            ("malenia_parameter_free", {}, STEPS),
        )
    ),
    Row(
        "rennala_all_reduce",
        {"stepsize": 0.5, "batch": 6},
        sent={
            "MODEL": (lambda did: did.n, numbers_and_vector(0)),
            "TOKEN": (lambda did: did.used, lambda d: 8),
            "FREEZE": (lambda did: did.n * did.updates, nothing),
            # the run ends when the root of the last COUNT has told its own neighbours on the tree
            "SUM": (lambda did: 2 * did.n * did.updates, numbers_and_vector(0)),
            "COUNT": (lambda did: 2 * did.n * did.updates - (did.n - did.n.bit_length()), lambda d: 8),
        },
        refused={"stepsize": POSITIVE, "batch": COUNT},
        inbox=lambda n: 4 * n,  # tokens, of what ends while FREEZE is on a slow link
        waiting=None,
    ),
    Row("hogwild", {"stepsize": 0.1}, sent={}, refused={"stepsize": POSITIVE}),
    Row(
        "ringleader",
        {"stepsize": 0.1},
        sent={
            "MODEL": (lambda did: did.n + did.updates - 1, numbered_vector),
            "CONTINUE": (lambda did: did.finished - did.updates, nothing),
            "GRADIENT": (lambda did: did.finished, numbered_vector),
        },
        refused={"stepsize": POSITIVE},
    ),
    Row(
        "ia2_sgd",
        {"stepsize": 0.1},
        sent={
            "MODEL": (lambda did: did.n + did.updates, numbered_vector),
            "CONTINUE": (lambda did: did.settled - did.updates, nothing),
            "GRADIENT": GRADIENT,
        },
        refused={"stepsize": POSITIVE},
    ),
    Row(
        "picky_sgd",
        {"stepsize": 0.2, "radius": 0.5},
        sent={"MODEL": ANSWER, "GRADIENT": GRADIENT},
        refused={"stepsize": POSITIVE, "radius": (-1, math.inf, math.nan, True, "far")},
    ),
    Row(
        "naive_optimal_asgd",
        {"stepsize": 0.1, "noise_ratio": 2.0},
        sent={"MODEL": (lambda did: 3 + did.settled, numbered_vector), "GRADIENT": GRADIENT},  # m* = 3
        refused={"stepsize": POSITIVE, "noise_ratio": (-1, math.inf, math.nan, True, "low")},
    ),
    Row(
        "fedbuff",
        {"stepsize": 1.0, "local_stepsize": 0.1, "local_steps": 2, "buffer": 3, "max_staleness": 2},
        sent={
            "MODEL": (lambda did: did.n + did.settled // 2, numbered_vector),
            "UPDATE": (lambda did: did.settled // 2, numbered_vector),
        },
        refused={
            **dict.fromkeys(("stepsize", "local_stepsize"), POSITIVE),
            **dict.fromkeys(("local_steps", "buffer"), COUNT),
            "max_staleness": (-1, 0.5, -math.inf, math.nan, True, "2"),
        },
    ),
    *(
        shares(
            "load_balanced_minibatch",
            {"stepsize": 0.5, "batch": 8 if average == "workers" else 5, "average": average},
            takes_part=4 if average == "workers" else 3,
            numbers=(2, 1),
            refused={"stepsize": POSITIVE, "batch": COUNT, "average": ("mean", "", True)},
            inbox=lambda n: n - 1,
        )
        for average in ("gradients", "workers")
    ),
    shares(
        "mindflayer",
        {"stepsize": 0.5, "batch": 8, "patience_seconds": 1.0},
        takes_part=4,
        numbers=(3, 2),
        refused={"stepsize": POSITIVE, "batch": COUNT, "patience_seconds": POSITIVE},
        inbox=lambda n: n - 1,
    ),
    Row(
        "ata",
        {"stepsize": 0.5, "batch": 8},
        sent={
            "MODEL": (lambda did: 4 * did.updates, numbers_and_vector(2)),
            "SUM": (lambda did: 4 * did.updates, numbers_and_vector(2)),
        },
        refused={"stepsize": POSITIVE, "batch": COUNT, "alpha": POSITIVE},
        inbox=lambda n: n - 1,
    ),
    *(
        on_trees(name, {"stepsize": stepsize, "batch": 6}, {"SUM": (lambda did: did.sent_up, numbers_and_vector(3))})
        for name, stepsize in (("fragile", 0.5), ("fragile_accelerated", 0.1))
    ),
    on_trees("tree_minibatch", {"stepsize": 0.5}, {"SUM": (lambda did: did.sent_up, numbers_and_vector(1))}),
    on_trees("tree_minibatch_eager", {"stepsize": 0.5}, {"SUM": (lambda did: did.sent_up, numbers_and_vector(3))}),
    on_trees(
        "amelie",
        {"stepsize": 0.5, "batch": 6},
        {
            "COUNTER": (lambda did: did.sent_up, lambda d: 16),
            "FREEZE": (lambda did: (did.n - 1) * did.updates, lambda d: 8),
            "SUM": (lambda did: (did.n - 1) * did.updates, numbers_and_vector(2)),
        },
    ),
    *(
        Row(
            "sdde_asgd",
            {"stepsize": 0.1} | parameters,
            sent={
                "MODEL": (points, numbered_vector),
                "GRADIENT": GRADIENT,
                "PROBE": (asked, nothing),
                "CURVATURE": (lambda did, asked=asked: min(1, asked(did)), lambda d: 8),  # the second is on its way
            },
            refused=dict.fromkeys(("threshold", "period"), THRESHOLD)
            | dict.fromkeys(("trigger", "curvature"), (-1, math.inf, math.nan, True, "much"))
            | {"stepsize": POSITIVE, "active": (*COUNT, 5)},  # of four workers
            inbox=lambda n: 1,  # PROBE, until MODEL comes behind it; CURVATURE, until its worker's gradient comes
            waiting=1,  # MODEL behind PROBE, GRADIENT behind CURVATURE
        )
        for parameters, points, asked in (
            ({"active": 4, "threshold": 2}, ANSWER[0], lambda did: 0),
            # the others are activated after five updates: z = 0.15 becomes 0.35
            ({"active": 2, "period": 5, "curvature": 1.0}, ANSWER[0], lambda did: 0),
            # or when one of two workers has told the curvature, which takes it half of the run
            ({"active": 2, "period": 18}, ANSWER[0], lambda did: did.updates // 18),
        )
    ),
    Row(
        "ring_all_reduce",
        {"stepsize": 0.5},
        sent={"PIECE": (lambda did: 24 * did.finished // 4 - 3, pieces)},  # one rank ends before three others
        refused={"stepsize": POSITIVE},
        inbox=lambda n: 2 * n,
        waiting=6,
    ),
    Row("iallreduce_sgd", {"stepsize": 0.5}, sent={}, refused={"stepsize": POSITIVE}, virtual=False),
    *(
        Row(
            name,
            {"stepsize": stepsize},
            sent={tag: (messages, numbers_and_vector(0)) for tag in tags},
            refused={"stepsize": POSITIVE} | ({"root": (-1, 4, 1.5, True, "first")} if name == "push_pull" else {}),
            inbox=lambda n: 2 * n,
            waiting=3,
        )
        for name, stepsize, tags, messages in (
            ("d_psgd", 0.5, ("MODEL",), to_all_others),
            ("d_psgd_atc", 0.5, ("MODEL",), lambda did: 3 * did.finished),
            ("push_pull", 0.2, ("MODEL", "TRACKER"), lambda did: 3 * did.finished),
        )
    ),
    Row(
        "s_ab",
        {"stepsize": 0.2},
        sent={"PAIR": (lambda did: 3 * did.finished, lambda d: 16 * d)},
        refused={"stepsize": POSITIVE},
        inbox=lambda n: 2 * n,
        waiting=2,
    ),
    *(
        Row(
            "local_sgd",
            {"stepsize": 0.2, "local_steps": 3, "momentum": 0.5, "at_average": at_average},
            sent={"PIECE": (lambda did, each=each: each * (did.updates // 3), pieces)},
            refused={
                "stepsize": POSITIVE,
                "local_steps": COUNT,
                "momentum": (-0.1, 1.1, math.nan, True, "half"),
                "at_average": ("drop", "", 1, True),
            },
            inbox=lambda n: 2 * n,
            waiting=6,
        )
        for at_average, each in (("keep", 24), ("reset", 24), ("average", 48))
    ),
    *(
        Row(
            "r_fast",
            {"stepsize": 0.2} | parameters,
            # a gradient sends V, and R too unless it is the first of its rank
            sent={
                "V": (lambda did, on=pulled: sum(on[r] * g for r, g in enumerate(did.finished_on)), numbered_vector),
                "R": (
                    lambda did, on=pushed: sum(on[r] * max(0, g - 1) for r, g in enumerate(did.finished_on)),
                    numbered_vector,
                ),
            },
            refused={"stepsize": POSITIVE, "root": (-1, 4, 1.5, math.inf, True, "first")},
            newest_only=("V", "R"),
            tolerates_loss=True,
            inbox=lambda n: n - 1,
            waiting=2,
        )
        for parameters, pulled, pushed in (({}, (3, 3, 3, 3), (3, 3, 3, 3)), ({"root": 0}, (3, 0, 0, 0), (0, 1, 1, 1)))
    ),
    *(
        Row(
            name,
            {"stepsize": 0.1},
            sent=dict.fromkeys(("REQUEST", "ANSWER"), (asked, numbers_and_vector(0))),
            refused={"stepsize": POSITIVE},
            waiting=1,  # an answer behind a request, or a request behind an answer
        )
        for name, asked in (
            ("ad_psgd", lambda did: did.finished - 1),  # the gradient that ends the run begins no averaging
            ("ad_psgd_bipartite", lambda did: sum(did.finished_on[1::2])),  # odd ranks
        )
    ),
    *(
        Row(
            name,
            {"stepsize": 0.2} | parameters,
            sent={tag: (pushes(parameters), numbers_and_vector(2))},
            refused={"stepsize": POSITIVE, "peers": ("ring", "", 1, True)}
            | ({"overlap": COUNT, "patience_seconds": (-1, math.inf, math.nan, True, "much")} if name != "sgp" else {}),
            newest_only=("TOTAL",) if tag == "TOTAL" else (),
            tolerates_loss=name != "sgp",
            inbox=inbox,
            waiting=waiting,
        )
        for name, tag, parameters, inbox, waiting in (
            ("sgp", "PUSH", {}, lambda n: n, 1),
            ("sgp", "PUSH", {"peers": "graph"}, lambda n: 2 * n, 1),
            ("osgp", "PUSH", {}, lambda n: 2 * n, 2),
            ("osgp", "PUSH", {"overlap": 2}, lambda n: 2 * n, 2),
            # who does not wait for long pushes up to 40 times while another computes
            ("osgp", "PUSH", {"patience_seconds": 0.5, "peers": "graph"}, lambda n: 40 * n, None),
            ("osgp_running_sums", "TOTAL", {}, lambda n: n - 1, 1),
            ("osgp_running_sums", "TOTAL", {"patience_seconds": 0.0}, lambda n: n - 1, 1),
        )
    ),
    *(
        Row(
            "swarm_sgd",
            {"stepsize": 0.1} | parameters,
            sent=dict.fromkeys(("REQUEST", "ANSWER"), (local_phases(parameters.get("local_steps", 1)), each)),
            refused=of_swarm(parameters),
            waiting=1,  # an answer behind a request, or a request behind an answer
        )
        for parameters, each in (
            ({}, numbers_and_vector(0)),
            ({"local_steps": 2}, numbers_and_vector(0)),
            ({"bits": 8, "side": 0.02}, packed(8)),
            ({"bits": 11, "bound": 4.0}, packed(11)),
        )
    ),
    *(
        Row(
            "swarm_sgd_blocking",
            {"stepsize": 0.1} | parameters,
            sent={
                "WISH": (in_pairs("WISH", parameters), nothing),
                "CALL": (in_pairs("CALL", parameters), each),
                "ANSWER": (in_pairs("ANSWER", parameters), each),
                "BUSY": (in_pairs("BUSY", parameters), nothing),
                "FAR": (lambda did: 0, nothing),
            },
            refused=of_swarm(parameters),
            waiting=None,
        )
        for parameters, each in (
            ({}, numbers_and_vector(0)),
            ({"local_steps": 2}, numbers_and_vector(0)),
            ({"bits": 8, "side": 0.02}, packed(8)),
        )
    ),
    *(
        compressed(
            "compressed_minibatch",
            {"stepsize": stepsize, "compressor": compressor} | parameters,
            bits,
            {"compressor": COMPRESSOR, "error_feedback": ("both", "", True, 1)},
        )
        for stepsize, compressor, parameters, bits in (
            (0.5, {"name": "identity"}, {}, lambda d: 64 * d),
            (0.3, {"name": "rand_k", "fraction": 0.5, "shared": True}, {}, lambda d: 64 * (d // 2)),
            (0.5, {"name": "top_k", "fraction": 0.5}, {"error_feedback": "step_inside"}, lambda d: 64 * (d // 2) + d),
            (0.3, {"name": "scaled_sign"}, {"error_feedback": "step_outside"}, lambda d: 64 + d),
        )
    ),
    compressed(
        "qsgd",
        {"stepsize": 0.5, "levels": 4, "bucket": 4},
        lambda d: 64 * math.ceil(d / 4) + 4 * d,
        {"levels": (*COUNT, 32768), "bucket": COUNT},
    ),
    Row(
        "sign_sgd",
        {"stepsize": 0.01, "momentum": 0.5},
        sent={
            "MODEL": (lambda did: did.n, numbers_and_vector(0)),
            "SIGNS": (lambda did: did.settled, of_code(lambda d: d)),
            "VOTE": (lambda did: did.settled, of_code(lambda d: 2 * d)),
        },
        refused={
            "stepsize": POSITIVE,
            "momentum": (-0.1, 1.1, math.nan, True, "half"),
            "weight_decay": (-0.1, math.inf, math.nan, True),
        },
        inbox=lambda n: n - 1,
    ),
    *(
        Row(
            "fo_sgd",
            {"stepsize": 0.1, "block_bits": 2, "both_ways": both_ways},
            sent={
                "MODEL": (lambda did, both=both_ways: did.n if both else did.settled, numbered_vector),
                "BITS": (lambda did: did.settled, of_code(lambda d: d + 128)),
                "STEP": (lambda did, both=both_ways: did.settled if both else 0, of_code(lambda d: d + 128)),
            },
            refused={"block_bits": (-1, 25, 1.5, True), "both_ways": BOOLEAN}
            | dict.fromkeys(("stepsize", "rho", "rho_server"), POSITIVE),
            inbox=lambda n: n - 1,
        )
        for both_ways in (False, True)
    ),
    Row(
        "one_bit_adam",
        {"stepsize": 0.02, "warmup": 10},
        sent={
            "GRADIENT": (lambda did: 240, pieces),
            "PIECE": (lambda did: 12 * (did.finished // 4 - 10), lambda d: 9),
            "MEAN": (lambda did: 12 * (did.finished // 4 - 10), lambda d: 9),
        },
        refused={
            **dict.fromkeys(("stepsize", "epsilon"), POSITIVE),
            **dict.fromkeys(("beta1", "beta2"), (-0.1, 1.1, math.nan, True)),
            "warmup": (-1, 1.5, math.inf, True),
            "weight_decay": (-0.1, math.inf, math.nan, True),
            "compressor": COMPRESSOR,
        },
        inbox=lambda n: 2 * n,
        waiting=6,
    ),
    Row(
        "power_sgd",
        {"stepsize": 0.3, "rank": 1, "momentum": 0.5},
        sent={
            "LEFT": (lambda did: 24 * did.finished // 4, lambda d: pieces(3)),
            "RIGHT": (lambda did: 24 * did.finished // 4 - 3, lambda d: pieces(2)),
        },
        refused={
            "stepsize": POSITIVE,
            "rank": COUNT,
            "momentum": (-0.1, 1.1, math.nan, True),
            "shapes": ([], [[]], [[2, 3]], [3.5], 7),
        },
        inbox=lambda n: 2 * n,
        waiting=6,
    ),
]
