"""One run: build its parts from a cell and a seed, hand them to an engine, and gather what is to be recorded."""

import hashlib
import math
import os
import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy

from mpibench import ledger
from mpibench.allocation import keep_memory
from mpibench.journal import Journal, events_of
from mpibench.measuring import WARM_UP_GRADIENTS
from mpibench.node import COMPUTED, NEVER, RECEIVED, SECOND, STOPPED, Cluster
from mpibench.peers import Collector, PeerWatch, collect, together
from mpibench.provenance import clock_resolution, peak_memory_bytes
from mpibench.restart import Point, Signal, joined
from mpibench.seeds import Purpose, generator
from mpibench.steps import delays_of, steps_of
from mpibench.watch import Watch, seconds_of_ages

WALL_OF_A_LINK = 1e-3  # wall seconds that an emulated message should have at least to travel, doubled on shared cores
WALL_OF_A_MESSAGE = 2e-4  # wall seconds of a core that a message costs, both ends together
LOAD = 0.25  # share of the cores that an emulation may keep busy: others want them, and waking takes time
JOURNAL_NS = 50_000_000  # resolution of the journal of a native run
ATTEMPTS = 6  # at an emulation without order violations, each at half the pace of the last


@dataclass
class Result:
    """What a run leaves, by the groups of its file (`mpibench.record`)."""

    attrs: dict
    trace: dict
    metrics: dict  # name -> "lower" or "higher"
    updates: dict
    ranks: dict
    ledger: dict  # column -> one value for each edge and tag, see `mpibench.ledger`
    received: numpy.ndarray  # (edges, 3): source, destination, messages that have arrived
    ages: numpy.ndarray  # (edges, 5): source, destination, how often something came, sum and largest of its ages
    ages_seconds: numpy.ndarray  # (edges, 5): the same with ages in seconds
    data: dict  # provenance of the problem
    clock: dict = field(default_factory=dict)
    fidelity: dict = field(default_factory=dict)
    phases: dict = field(default_factory=dict)  # seconds of what a run over MPI is made of, on rank 0
    steps: tuple = ()  # columns and attributes of /steps
    delays: tuple = ()  # the same of /delays
    events: dict = field(default_factory=dict)  # with record_events
    tags: dict = field(default_factory=dict)  # their names by number
    interrupted: list = field(default_factory=list)  # seconds of the run at which it was, and went on
    points: list = field(default_factory=list)  # where a run that has just been interrupted can go on

    @classmethod
    def empty(cls, cell, seed):
        """One without anything."""
        problem = cell.problem.prepare(cell.workers, seed)
        metrics = problem.metrics | ({"consensus": "lower"} if of_the_mean(cell) else {})
        nothing = numpy.zeros((0, 5), numpy.int64)
        return cls({}, {}, metrics, {}, {}, {}, nothing[:, :3], nothing, nothing.astype(float), problem.provenance)

    @property
    def edges(self):
        """(edges, 4): source, destination, messages, bytes."""
        return ledger.by_edge(self.ledger, "messages", "serialised")

    def time_to(self, metric, value):
        """Seconds to the first snapshot at or past this value; inf where there is none."""
        column = numpy.asarray(self.trace[metric])
        hit = column <= value if self.metrics[metric] == "lower" else column >= value
        return float(self.trace["time"][hit.argmax()]) if hit.any() else math.inf


class Interrupted(Exception):
    """A signal has ended a run that is made anew."""


@dataclass
class Tally:
    """What one rank has counted when the run ends."""

    gradients: float
    stopped: int
    busy_seconds: float
    fingerprint: int
    kinds: list  # (source, destination, name of the tag, messages, of which lost, bits, bytes, bytes for MPI)
    received: list  # (source, destination, messages)
    handed_to_mpi: int = 0


class Speed(NamedTuple):
    """What is known of a worker before the run, see `Node.speed`."""

    mean_seconds: float
    least_seconds: float
    within: object  # seconds -> probability


def speed_by(cell, measured):
    """worker -> Speed: as the model has it, or from the seconds `measured` on each rank where nothing is modelled."""
    if cell.clock == "native":
        seconds = {cell.algorithm.worker_number(rank): s for rank, s in enumerate(measured or ())}
        return lambda i: Speed(seconds[i], seconds[i], lambda limit: float(limit >= seconds[i]))

    @cache
    def of_all():
        return cell.compute.mean_seconds(cell.workers), cell.compute.least_seconds(cell.workers)

    def speed(i):
        mean, least = of_all()
        within = lambda limit: cell.compute.within(i, cell.workers, limit)  # noqa: E731
        return Speed(float(mean[i - 1]), float(least[i - 1]), within)

    return speed


def cluster_of(cell, seed, problem, measured=None, journal=None, restart=None):
    """The modelled machine of a run; `measured`: on the native clock, seconds per gradient of each rank; `journal`:
    rank -> what counts its messages and computations; `restart`: where the run goes on, with other random numbers."""
    again, before = ((len(restart.times),), restart.seconds) if restart is not None else ((), 0.0)
    algorithm, workers = cell.algorithm, cell.workers
    number = algorithm.worker_number
    server = 0 if number(0) == 0 else None

    def durations(rank):
        i = number(rank)
        if i == 0 or cell.compute is None:  # a server's own arithmetic is free
            return lambda cost, now: 0
        return cell.compute.durations(i, workers, generator(seed, Purpose.COMPUTE, i))

    def edge(source, to):
        return cell.links.edge(source, to, server, problem.model_bytes, cell.graph)

    speed = speed_by(cell, measured)

    @cache
    def network():
        from mpibench.graphs import complete
        from mpibench.network import Network

        graph = cell.graph or complete(cell.ranks)
        size = problem.model_bytes, 0
        ns = {pair: e.latency_ns + e.transmission(*size) for pair in graph.edges for e in [edge(*pair)]}
        return Network(graph, ns, [speed(number(rank)).mean_seconds for rank in range(cell.ranks)])

    def held_up(rank):
        """On the native clock, where else nothing is modelled: what stragglers and stalls add to a computation."""
        i = number(rank)
        factor, stall = cell.compute.factor(i), cell.compute.stall_of(i)
        wait = stall.sampler(generator(seed, Purpose.COMPUTE, i, *again)) if stall else lambda: 0
        return lambda seconds: (factor - 1) * seconds + wait() / SECOND

    def lost(source, to):
        return cell.loss.edge(generator(seed, Purpose.LOSS, source, to, *again)) if cell.loss.on(source, to) else None

    return Cluster(
        size=cell.ranks,
        durations=durations,
        edge=edge,
        lost=lost,
        random=lambda rank: generator(seed, Purpose.METHOD, number(rank), *again),
        network=network,
        speed=speed,
        held_up=held_up if cell.clock == "native" and cell.disturbed else None,
        shared_seed=lambda k: (seed, Purpose.COMPRESSION, 0, k),
        newest_only=algorithm.newest_only,
        journal=journal,
        until=round((cell.stop.seconds - before) * SECOND) if cell.stop.seconds else None,
    )


def program_of(cell, problem, watches, watch_of, restart=None):
    """What every rank runs, from its place at `restart` if that is given; its watch, `watch_of(node)`, is put into
    `watches`."""
    settled = [0]

    def program(node):
        i = cell.algorithm.worker_number(node.rank)
        objective = problem.objective(i) if i else None
        watch, x = watch_of(node), problem.start()
        watches[node.rank], watch.settled = watch, settled
        if restart is not None:
            point = restart.points[node.rank]
            watch.go_on(point.iteration, point.declared, restart.updates, restart.settled)
            x = x if point.x is None else point.x
            for _ in range(restart.begun[node.rank] if i else 0):
                objective.sample()  # these were used
        watch.begin(x)
        return cell.algorithm.program(node, x, objective, watch)

    return program


def of_the_mean(cell):
    """Whether the trace is of the mean over ranks, which needs instants that all ranks have in common."""
    return cell.algorithm.averaged and cell.snapshot.seconds is not None


def observing(cell, problem, observer, **watching):
    """The function that makes each rank's watch where one rank's points are the trace."""

    def watch_of(node):
        if node.rank == observer:
            return Watch(node, cell.stop, cell.snapshot, problem.metrics, cell.record_updates, **watching)
        return Watch(node, cell.stop, None, problem.metrics)

    return watch_of


def averaging(cell, problem, keep, over=lambda: False):
    """The function that makes each rank's watch where the trace is of the mean."""

    def watch_of(node):
        record = cell.record_updates and node.rank == 0
        return PeerWatch(node, cell.stop, cell.snapshot, problem.metrics, record, keep, over)

    return watch_of


@dataclass
class Seen:
    """What the watches of a run have seen."""

    snapshots: list
    point: object  # the final model
    recorded: dict  # of every update of the observer
    tallies: list  # of each rank: what `Watch.tallies` gives


def simulate(cell, seed, show=None):
    """The Result of this cell and seed in virtual time. `show(snapshot)` is called at each snapshot."""
    from mpibench.engines.simulation import Simulation

    problem = cell.problem.prepare(cell.workers, seed)
    engine, watches = Simulation(), {}
    cluster = cluster_of(cell, seed, problem, journal=lambda rank: Journal(rows=cell.record_events))
    observer = cell.algorithm.observer(cluster)

    def counters():
        engine.catch_up()
        return tuple(map(sum, zip(*((node.gradients, *node.journal.totals) for node in engine.nodes), strict=True)))

    def past(metrics):
        return any(watches[observer].past(metrics[name], name) for name in cell.stop.metrics)

    if of_the_mean(cell):
        collector = Collector(cell.ranks, problem.evaluate, past, show)
        watch_of = averaging(cell, problem, collector.keep, lambda: collector.reached)
    else:
        watch_of = observing(cell, problem, observer, evaluate=problem.evaluate, counters=counters, show=show)
    with numpy.errstate(over="ignore", invalid="ignore"):  # a run that diverges is a result
        ended_by = engine.run(cluster, program_of(cell, problem, watches, watch_of))
        limit = engine.time, NEVER if ended_by is None else ended_by
        watch = watches[observer]
        if of_the_mean(cell):
            states = [watches[rank].last(limit) for rank in range(cell.ranks)]
            collector.add(replace(together(states, problem.evaluate), counters=counters()))
            snapshots, point = collector.snapshots, collector.snapshots[-1].point
        else:
            if ended_by != observer:
                watch.close(limit)
            snapshots, point = watch.snapshots, watch.point
    seen = Seen(snapshots, point, watch.recorded, [each.tallies(limit) for each in watches.values()])
    travelling = Counter((send.communicator.node.rank, send.link.to) for send in engine.travelling())
    tallies = [
        Tally(
            node.gradients,
            node.stopped,
            node.busy / SECOND,
            node.fingerprint,
            node.journal.ledger(node.rank),
            [(node.rank, to, sent - travelling[node.rank, to]) for to, sent in node.journal.arriving().items()],
        )
        for node in engine.nodes
    ]
    result = result_of(cell, problem, seen, tallies, engine.time / SECOND)
    if cell.record_events:
        journals = [(node.journal.kinds.values(), node.journal.until(limit, node.rank)) for node in engine.nodes]
        result.events, result.tags = events_of(journals)
    return result


def result_of(cell, problem, seen, tallies, seconds):
    """Put together what a run has left."""
    snapshots, n = seen.snapshots, len(tallies)
    metrics = problem.metrics | ({"consensus": "lower"} if of_the_mean(cell) else {})
    trace = {
        "time": numpy.array([s.seconds for s in snapshots]),
        "iteration": numpy.array([s.iteration for s in snapshots]),
        "updates": numpy.array([s.updates for s in snapshots]),
        "discarded": numpy.array([s.settled[1] for s in snapshots]),
    }
    for place, name in enumerate(("gradients", "messages", "bytes", "bits")):
        trace[name] = numpy.array([round(s.counters[place]) for s in snapshots], numpy.int64)
    for name in metrics:
        trace[name] = numpy.array([s.metrics[name] for s in snapshots], float)
    sent = ledger.together([row for tally in tallies for row in tally.kinds])
    received = numpy.array([row for tally in tallies for row in tally.received], numpy.int64).reshape(-1, 3)
    sums = lambda ends, values: numpy.bincount(ends, values, n).astype(int)  # noqa: E731
    used, discarded, histogram = Counter(), Counter(), Counter()
    ages = []
    for rank, (used_by, discarded_by, delays, by_source, *_) in enumerate(seen.tallies):
        ages += [(source, rank, *row) for source, row in sorted(by_source.items())]
        used.update(used_by)
        discarded.update(discarded_by)
        histogram.update(dict(enumerate(delays)))
    ranks = {
        "gradients": numpy.array([tally.gradients for tally in tallies]),
        "used": numpy.array([used[rank] for rank in range(n)]),
        "discarded": numpy.array([discarded[rank] for rank in range(n)]),
        "stopped": numpy.array([tally.stopped for tally in tallies]),
        "busy_seconds": numpy.array([tally.busy_seconds for tally in tallies]),
        "messages_sent": sums(sent["source"], sent["messages"]),
        "messages_received": sums(received[:, 1], received[:, 2]),
        "messages_lost": sums(sent["source"], sent["lost"]),
        "bytes_sent": sums(sent["source"], sent["serialised"]),
    }
    if getattr(cell.algorithm, "bits", 0):
        ranks["lattice_fallbacks"] = numpy.array([tally[5] for tally in seen.tallies])
    arrived = sums(received[:, 0], received[:, 2])
    ranks["messages_in_flight"] = ranks["messages_sent"] - ranks["messages_lost"] - arrived
    ranks["idle_seconds"] = numpy.maximum(0.0, seconds - ranks["busy_seconds"])
    staleness = numpy.array([histogram[delay] for delay in range(len(histogram))])
    updates = dict(seen.recorded or {}) | {"staleness_histogram": staleness}
    point = model_bytes(seen.point)
    events = hashlib.sha256(numpy.array([tally.fingerprint for tally in tallies], numpy.int64).tobytes())
    for values in (*(trace[name].tobytes() for name in metrics), point):  # what happened, and what it led to
        events.update(values)
    model = hashlib.sha256(point)
    attrs = {"seconds": seconds, "event_hash": events.hexdigest()[:16], "model_hash": model.hexdigest()[:16]}
    of_edge = seconds_of_ages([tally[4] for tally in seen.tallies])
    in_seconds = [(*row[:3], row[2] * of_edge[row[:2]][0], of_edge[row[:2]][1]) for row in ages]
    in_seconds, ages = (numpy.array(r, kind).reshape(-1, 5) for r, kind in ((in_seconds, float), (ages, numpy.int64)))
    result = Result(attrs, trace, metrics, updates, ranks, sent, received, ages, in_seconds, problem.provenance)
    attrs["outcome"] = outcome_of(result, cell.targets)
    return result


def outcome_of(result, targets):
    """How a run that has come to its end ended."""
    finite = all(numpy.isfinite(result.trace[name]).all() for name in result.metrics)
    reached = result.time_to(targets.metric, targets.headline) < math.inf
    return "reached" if reached else "budget" if finite else "diverged"


def model_bytes(point):
    """The bytes of a vector, numpy or torch."""
    return numpy.ascontiguousarray(point.cpu().numpy() if hasattr(point, "cpu") else point).tobytes()


# Under MPI: all ranks of `comm` call these together.


def emulate(comm, cell, seed, slower=1.0, restart=None):
    """This cell and seed over MPI, emulated or native: (Result on rank 0, how much slower than reckoned the next run
    should begin). A native one goes on at `restart` where it is given, and where SIGUSR1 interrupts it its Result has
    `points`; one that is emulated ends in `Interrupted`.

    An emulation with an order violation is given up and run again at half the pace. One that succeeds at once lets the
    next begin at twice its own, up to the reckoned one: a machine is not busy for ever.
    """
    began = time.perf_counter()
    problem = cell.problem.prepare(cell.workers, seed)
    staged = time.perf_counter()
    measured = comm.allgather(rehearse(comm, cell, problem))
    first = last = time.perf_counter()
    before = {"staging": staged - began, "warm_up": first - staged}
    if cell.clock == "native":
        result = once(comm, cell, seed, problem, measured, restart=restart)[0]
        if result is not None:
            result.phases = before | result.phases | {"total": time.perf_counter() - began}
        return result, slower
    pace = pace_of(comm, cell, problem, measured[0])
    for attempt in range(1, ATTEMPTS + 1):
        scaled = pace | {"time_scale": pace["time_scale"] * slower, "strict": attempt < ATTEMPTS}
        last = time.perf_counter()
        result, violations = once(comm, cell, seed, problem, measured, scaled)
        if violations == 0 or attempt == ATTEMPTS:
            break
        slower *= 2
    if attempt == 1:
        slower = max(1.0, slower / 2)
    if result is not None:
        result.fidelity |= {"attempts": attempt, "good": int(violations == 0)}
        result.phases = before | {"given_up": last - first} | result.phases | {"total": time.perf_counter() - began}
    return result, slower


def rehearse(comm, cell, problem):
    """Compute a gradient on every rank that will, so that nothing is loaded inside the clock. Returns its seconds."""
    seconds = 0.0
    if comm.rank < cell.ranks:
        i = max(1, cell.algorithm.worker_number(comm.rank))
        objective, x = problem.objective(i), problem.start()
        for _ in range(WARM_UP_GRADIENTS):
            began = time.perf_counter()
            x + 1e-3 * objective.gradient(x, objective.sample())
            seconds = time.perf_counter() - began
    problem.evaluate(problem.start())
    return seconds


def pace_of(comm, cell, problem, gradient_seconds):
    """The pace of an emulation that this machine can keep: wall seconds per modelled second, the margin of deliveries
    and the longest pause between two polls."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    crowd = max(1.0, comm.size / cores)
    cluster = cluster_of(cell, 0, problem)
    pairs = [(0, 1), (1, 0)] if cell.ranks > 1 else []
    if cell.graph is not None:
        pairs = [(source, to) for source in range(cell.ranks) for to in cell.graph.destinations(source)]
    links = [cluster.edge(*pair) for pair in pairs]
    link = min((e.latency_ns + e.transmission(problem.model_bytes, 0) for e in links), default=0) / SECOND
    means = cell.compute.mean_seconds(cell.workers)
    shortest = float(numpy.min(cell.compute.smallest_seconds(cell.workers)))
    work = gradient_seconds + 4 * WALL_OF_A_MESSAGE
    scales = [
        float(numpy.sum(work / means)) / (LOAD * cores),  # all ranks together
        float(numpy.sum(1 / means)) * 2 * WALL_OF_A_MESSAGE / LOAD,  # the server alone
        2 * (gradient_seconds + WALL_OF_A_MESSAGE) * min(crowd, 2.0) / (shortest + link),
        WALL_OF_A_LINK * min(crowd, 2.0) / link if link else 4 * WALL_OF_A_LINK / shortest,
    ]
    scale = max(scales)
    # What may a delivery wait? Where workers do nothing until the server answers, as long as a computation can make up
    # for; elsewhere nothing, unless a message without a vector takes no time.
    answers = cell.algorithm.worker_number(0) == 0 and not getattr(cell.algorithm, "stop_stale", False)
    margin = min(5 * WALL_OF_A_LINK, shortest * scale / 4) if answers else 0.0
    if not all(e.latency_ns for e in links):
        margin = max(margin, WALL_OF_A_LINK)
    return {"time_scale": scale, "margin_seconds": margin, "pause_seconds": min(1e-3, max(1e-4, link * scale / 3))}


def once(comm, cell, seed, problem, measured, pace=None, restart=None):
    """One attempt, after a gradient has taken `measured` seconds on each rank. Returns (Result on rank 0, order
    violations)."""
    from mpibench import clocks
    from mpibench.engines.mpi import MPIEngine

    began = time.perf_counter()
    keep_memory()
    offset, round_trip = clocks.offset(comm)
    longest = max(*measured, float(numpy.max(cell.compute.mean_seconds(cell.workers))) if pace else 0.0)
    still = max(300.0, 50 * longest * (pace or {}).get("time_scale", 1.0))  # above any planned delay
    engine, watches = MPIEngine(comm, cell.clock, offset=offset, stall_seconds=still, **(pace or {})), {}
    journal = Journal(resolution=JOURNAL_NS if cell.clock == "native" and not cell.record_events else 0)
    cluster = cluster_of(cell, seed, problem, measured, lambda rank: journal, restart)
    root = cell.algorithm.observer(cluster)  # all is put together there
    states = []
    if of_the_mean(cell):
        watch_of = averaging(cell, problem, lambda rank, state: states.append(state))
    else:
        watch_of = observing(cell, problem, root)
    Signal.engine = engine
    prepared = time.perf_counter()
    with numpy.errstate(over="ignore", invalid="ignore"):
        ended_by = engine.run(cluster, program_of(cell, problem, watches, watch_of, restart))
    Signal.engine = None
    ran = time.perf_counter()
    ended_by = comm.bcast(ended_by)
    interrupted = any(comm.allgather(engine.interrupted))
    if interrupted and cell.clock == "emulated":
        raise Interrupted
    local, watch = None, watches.get(comm.rank)
    limit = engine.end, NEVER if ended_by is None else ended_by
    violations = comm.allreduce(engine.order_violations + int(watch is not None and watch.forgotten(limit)))
    if violations and engine.strict:
        return None, violations
    drift = clocks.offset(comm)[0] - offset
    if engine.node is not None:
        rows = journal.until(engine.limit, comm.rank)
        tally = tally_of(comm.rank, journal, rows, engine.fingerprint(), engine.wire.bytes)
        rows = rows if cell.record_events else numpy.delete(rows, 5, axis=1)
        clock = dict(zip(("resolution_seconds", "overhead_seconds"), clock_resolution(), strict=True))
        clock |= {"start_seconds": engine.started / SECOND, "stop_seconds": engine.stopped / SECOND}
        clock |= {"offset_seconds": offset / SECOND, "round_trip_seconds": round_trip / SECOND}
        clock["drift"] = drift / max(1, engine.stopped)
        late = numpy.array(engine.lateness)
        kinds = list(journal.kinds.values())
        point = Point(watch.iteration + watch.offset, watch.point, watch.declared) if interrupted else None
        tallies = watch.tallies(limit)
        ends = engine.ends, engine.ends_late / SECOND
        local = (tally, (kinds, rows), late, engine.overruns, clock, tallies, peak_memory_bytes(), point, ends)
    everybody = [entry for entry in comm.gather(local, root) or [] if entry is not None]
    gathered = time.perf_counter()
    if of_the_mean(cell):
        snapshots = snapshots_of_the_mean(comm, cell, problem, watch, states, limit)
        point = snapshots[-1].point if snapshots else None
    else:
        if comm.rank == root:
            if ended_by != root:
                watch.close(limit)
            end = engine.end if ended_by != root else math.inf
            read_counters(watch.snapshots, [entry[1] for entry in everybody], end, root)
        snapshots = watch.snapshots if comm.rank == root else []
        evaluate(comm, problem, snapshots, root)
        point = watch.point if watch is not None else None
    if comm.rank != root:
        return (comm.recv(source=root) if comm.rank == 0 else None), violations
    recorded = watch.recorded and until(watch.recorded, engine.end / SECOND)
    seen = Seen(snapshots, point, recorded, [entry[5] for entry in everybody])
    tallies = [entry[0] for entry in everybody]
    if of_the_mean(cell):  # the counters at the end, as in the simulation: of all that has happened
        kinds = [kind for tally in tallies for kind in tally.kinds]
        totals = (sum(kind[place] for kind in kinds) for place in (3, 6, 5))
        snapshots[-1] = replace(snapshots[-1], counters=(sum(tally.gradients for tally in tallies), *totals))
    result = result_of(cell, problem, seen, tallies, engine.end / SECOND)
    result.ranks["bytes_handed_to_mpi"] = numpy.array([tally.handed_to_mpi for tally in tallies])
    result.ranks["peak_memory_bytes"] = numpy.array([entry[6] for entry in everybody])  # of the process so far
    result.clock = {name: numpy.array([entry[4][name] for entry in everybody]) for name in everybody[0][4]}
    result.clock["start_spread_seconds"] = float(numpy.ptp(result.clock["start_seconds"]))
    evaluated = time.perf_counter()
    result.phases = {"clocks": prepared - began, "measured": ran - prepared}
    result.phases |= {"gathering": gathered - ran, "evaluation": evaluated - gathered}
    result.steps = steps_of([entry[1][1] for entry in everybody], measured[: cell.ranks], evaluated - gathered)
    if cell.clock == "emulated":
        late = numpy.concatenate([entry[2] for entry in everybody] + [[0.0]])
        result.fidelity = {
            "lateness_median_seconds": float(numpy.median(late)),
            "lateness_p99_seconds": float(numpy.quantile(late, 0.99)),
            "lateness_max_seconds": float(late.max()),
            "order_violations": violations,
            "overruns": sum(entry[3] for entry in everybody),
            "time_scale": pace["time_scale"],
            "margin_seconds": pace["margin_seconds"],
        }
        model = {name: cell.resolved["heterogeneity"].get(name) for name in ("compute", "links")}
        busy = result.ranks["busy_seconds"]
        result.delays = delays_of(busy, [entry[8] for entry in everybody], model, seed)
    if cell.record_events:
        result.events, result.tags = events_of([entry[1] for entry in everybody])
    if interrupted:
        result.points = [entry[7] for entry in everybody]
    if restart is not None:
        result = joined(restart, result, watch.offset)
        result.attrs["outcome"] = outcome_of(result, cell.targets)
    if root != 0:
        comm.send(result, 0)
        return None, violations
    return result, violations


def snapshots_of_the_mean(comm, cell, problem, watch, states, limit):
    """On rank 0 the snapshots of the mean at the instants of the grid before the end, and at the end."""
    part = comm.Split(0 if comm.rank < cell.ranks else 1)
    snapshots = []
    if comm.rank < cell.ranks:
        last = watch.last(limit)
        before = [state for state in states if state.seconds < limit[0] / SECOND]
        snapshots = collect(part, [*before, last], problem.evaluate)
    part.Free()
    return snapshots


def until(recorded, seconds):
    """The rows of recorded updates that are not later than this."""
    count = bisect_right(recorded["time"], seconds)
    return {name: column[:count] for name, column in recorded.items()}


def tally_of(rank, journal, rows, fingerprint, handed_to_mpi):
    """A rank's Tally from those rows of its journal that count."""
    computed, stopped = rows[:, 1] == COMPUTED, rows[:, 1] == STOPPED
    sent, arrived = rows[rows[:, 1] >= 0], rows[rows[:, 1] <= RECEIVED]
    counts = numpy.bincount(sent[:, 1].astype(int), sent[:, 2], len(journal.kinds)).astype(int)
    sources = numpy.bincount((RECEIVED - arrived[:, 1]).astype(int), arrived[:, 2]).astype(int)
    received = [(source, rank, int(count)) for source, count in enumerate(sources) if count]
    busy, gradients = rows[computed | stopped, 3].sum() / SECOND, rows[:, 4].sum()
    kinds = journal.ledger(rank, counts)
    return Tally(gradients, int(rows[stopped, 2].sum()), busy, fingerprint, kinds, received, handed_to_mpi)


def read_counters(snapshots, journals, end, root=0):
    """Fill in the counters over all ranks at each snapshot of rank `root`, in the order of law 8: at the same instant
    lower ranks come first, but all is counted at `end`."""
    totals = []
    for kinds, rows in journals:
        sent = rows[:, 1] >= 0
        bits = numpy.array([*(kind.bits for kind in kinds), 0])[numpy.where(sent, rows[:, 1], -1).astype(int)]
        counts = numpy.stack([rows[:, 4], rows[:, 2] * sent, rows[:, 3] * sent, rows[:, 2] * bits], axis=1)
        totals.append((rows[:, 0], numpy.vstack([numpy.zeros(4), numpy.cumsum(counts, axis=0)])))
    for snapshot in snapshots:
        now = round(snapshot.seconds * SECOND)
        all_of_it = now == end and snapshot is snapshots[-1]
        places = [
            snapshot.position
            if rank == root and not all_of_it
            else numpy.searchsorted(times, now, "right" if rank < root or all_of_it else "left")
            for rank, (times, _) in enumerate(totals)
        ]
        snapshot.counters = tuple(sum(total[place] for (_, total), place in zip(totals, places, strict=True)))


def evaluate(comm, problem, snapshots, root=0):
    """Evaluate rank `root`'s snapshots, shared out over all ranks, after the run."""
    shares = [snapshots[rank :: comm.size] for rank in range(comm.size)] if comm.rank == root else None
    points = comm.scatter(shares and [[s.point for s in share] for share in shares], root)
    found = comm.gather([problem.evaluate(point) for point in points], root)
    for share, metrics in zip(shares or [], found or [], strict=True):
        for snapshot, values in zip(share, metrics, strict=True):
            snapshot.metrics = values
