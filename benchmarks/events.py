"""Virtual events per second of the simulation, beside the same parameter server written in SimPy.

The program is `mpibench.algorithms.async_sgd` as it stands, on workers of sqrt speeds, with gradients that cost
nothing: f.gradient(x, ξ) is x, a Python float or an array of one element. What is left is the engine, and the
arithmetic of the update.

An event is what a simulation of this system cannot do without: a computation ends, or a message arrives. Both programs
have the same ones, three for every update, and are timed from nothing to the last update, with the making of the
workers. SimPy's is written for speed: processes for the server and the workers, Stores as mailboxes, puts that nobody
waits for, and a process for a message only where links take time.
"""

import gc
import time

import numpy
from harness import Figure, Row, arguments, in_turn, ratio, show

from mpibench.algorithms.async_sgd import AsyncSGD
from mpibench.engines.simulation import Simulation
from mpibench.heterogeneity import Links
from mpibench.node import Cluster
from mpibench.profiles import Sqrt

WORKERS = (10, 100, 1000, 10_000)
VECTORS = {"float": lambda: 1.0, "array of 1": lambda: numpy.ones(1)}
STEPSIZE = 1e-9
BAR = 300_000  # events per second of CPU


class Objective:
    """Gradients that cost nothing."""

    def sample(self):
        return 0

    def gradient(self, x, ξ):
        return x


class Watch:
    """Goes on for so many iterations, and looks at nothing."""

    def __init__(self, updates):
        self.most = updates

    def __call__(self, k, x):
        return k < self.most

    def used(self, i, delay):
        pass

    discarded = used


def mpibench(workers, updates, x, latency_seconds):
    """(events, seconds of CPU, seconds of wall) of the engine."""
    f, watch, algorithm = Objective(), Watch(updates), AsyncSGD(STEPSIZE)
    compute, links = Sqrt(1.0), Links(latency_seconds)
    cluster = Cluster(
        size=workers + 1,
        durations=lambda rank: compute.durations(rank, workers, None) if rank else None,
        edge=lambda source, to: links.edge(source, to, 0, 8),
        lost=lambda source, to: None,
        random=lambda rank: None,
    )
    engine = Simulation()
    cpu, wall = time.process_time(), time.perf_counter()
    engine.run(cluster, lambda node: algorithm.program(node, x, f, watch))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return engine.age - len(list(engine.later())), cpu, wall


def simpy(workers, updates, x, latency_seconds):
    """The same of the parameter server in SimPy."""
    import simpy

    f, watch = Objective(), Watch(updates)
    events = 0

    def send(box, message):
        """A link without latency is a put into the mailbox; one with latency needs a process."""
        if latency_seconds:
            env.process(travel(box, message))
        else:
            box.put(message)

    def travel(box, message):
        yield env.timeout(latency_seconds)
        box.put(message)

    def server(x):
        nonlocal events
        k = 0
        for box in boxes[1:]:
            send(box, (k, x))
        while watch(k, x):
            i, computed_at, g = yield inbox.get()
            events += 1
            watch.used(i, k - computed_at)
            x = x - STEPSIZE * g
            k += 1
            send(boxes[i], (k, x))

    def worker(i, box, seconds):
        nonlocal events
        while True:
            k, x = yield box.get()
            events += 1
            ξ = f.sample()
            yield env.timeout(seconds)
            events += 1
            send(inbox, (i, k, f.gradient(x, ξ)))

    cpu, wall = time.process_time(), time.perf_counter()
    env = simpy.Environment()
    inbox = simpy.Store(env)
    boxes = [None, *(simpy.Store(env) for _ in range(workers))]
    for i in range(1, workers + 1):
        env.process(worker(i, boxes[i], i**0.5))
    env.run(until=env.process(server(x)))
    return events, time.process_time() - cpu, time.perf_counter() - wall


def compare(case, workers, vector, latency_seconds, repetitions, bar):
    """Two rows: events per second of CPU and of wall."""
    updates = max(10_000, 6 * workers)

    def timed(function):
        gc.collect()
        return function(workers, updates, vector(), latency_seconds)

    runs = in_turn({name: lambda f=f: timed(f) for name, f in (("ours", mpibench), ("peer", simpy))}, repetitions)
    counts = {name: [run[0] for run in of] for name, of in runs.items()}
    if abs(counts["ours"][0] - counts["peer"][0]) > 2 * workers + 1:  # what is under way at the end is counted or not
        raise RuntimeError(f"{case}: not the same work: {counts['ours'][0]} and {counts['peer'][0]} events")
    rows = []
    for place, unit in ((1, "events/s of CPU"), (2, "events/s of wall")):
        ours, peer = (Figure.of([run[0] / run[place] for run in runs[name]]) for name in ("ours", "peer"))
        row = Row(case, unit, ours, peer, ratio(ours, peer))
        if bar and place == 1:
            row.bar, row.met = f">= {BAR:,}", ours.median >= BAR
        rows.append(row)
    return rows


def main():
    given = arguments(__doc__, repetitions=5)
    rows = []
    for workers in WORKERS:
        for name, vector in VECTORS.items():
            rows += compare(f"{workers:,} workers, {name}", workers, vector, 0.0, given.repetitions, workers <= 1000)
    rows += compare("100 workers, float, links of 1 ms", 100, VECTORS["float"], 1e-3, given.repetitions, True)
    show("virtual events per second", rows, given.json, peer="SimPy")


if __name__ == "__main__":
    main()
