"""What an iteration of R-FAST costs on 8 ranks with models of 1 MB, beside the same method written by hand with mpi4py.

    python benchmarks/r_fast.py    or    mpiexec -n 8 python -m mpi4py benchmarks/r_fast.py

Ours is a run as users start it, on the native clock: engine, watch and journal are in it. The loop by hand is the same
method: gradients, graphs, weights and step, V right after the descent, totals with stamps after the push, one message
of each kind on an edge at a time, of which the newest waits. It has posted receives with a spare buffer and arithmetic
in place. Both run for so many seconds, in turns, in the same processes. CPU is that of all ranks, from the first
iteration until everything that was sent has been received: where ranks share cores, who waits for one is not overhead.

How many messages an iteration has is the loop's doing, so both do the same. `thread`: gradients are computed in a
helper thread while messages are kept moving, as in the listing, with pauses from 20 us to 1 ms. `inline`: nobody looks
after messages during a gradient, so a large one, which needs both ends, often has not left when the next comes to wait:
half of what goes out with the thread. mpibench chooses the thread where gradients take more than a millisecond.

Gradients are those of least squares with 16 rows of 125,000 numbers a rank, a minibatch, some milliseconds. `--bare`
has those of `quadratic` instead, some tenths of a millisecond, which next to nothing that is trained has at this size.
"""

import contextlib
import functools
import itertools
import math
import queue
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
from harness import Figure, Row, arguments, in_turn, ratio, show, under_mpi

from mpibench.algorithms.r_fast import RFAST
from mpibench.problems.quadratic import Quadratic
from mpibench.weights import step_factor, uniform_column, uniform_row

RANKS, DIMENSION, STEPSIZE = 8, 125_000, 1e-3
GRAPHS = {"binary tree": ('name = "binary_tree"', 0), "directed ring": ('name = "directed_ring"', None),
          "exponential": ('name = "exponential"', None)}  # fmt: skip
BAR = 1.15
UNITS = {
    "ms of CPU an iteration": lambda iterations, cpu, messages, seconds: 1e3 * cpu / iterations,
    "ms of CPU a message": lambda iterations, cpu, messages, seconds: 1e3 * cpu / messages,
    "iterations a second and rank": lambda iterations, cpu, messages, seconds: iterations / seconds / RANKS,
    "messages an iteration": lambda iterations, cpu, messages, seconds: messages / iterations,
}
EXPERIMENT = """
schema = 1
[experiment]
name = "r-fast-iterations"
engine = "mpi"
clock = "native"
workers = {ranks}
seeds = [0]
stop = {{ seconds = {seconds} }}
snapshot = {{ seconds = {seconds} }}
targets = {{ metric = "gap", values = [1e-9], headline = 1e-9 }}
[problem]
name = "quadratic"
dimension = {dimension}
[graph]
{graph}
[[algorithm]]
name = "r_fast"
stepsize = {stepsize}
{root}
"""
V, R = 0, 1  # tags
ROWS = 16


@dataclass(frozen=True)
class LeastSquares(Quadratic):
    """The quadratic with gradients of another cost: of ||Ax||^2/2, A with rows of length 1, of each rank its own."""

    def prepare(self, workers, seed):
        problem = super().prepare(workers, seed)
        problem.objective = functools.cache(Rows)
        return problem


class Rows:
    """f of one rank."""

    def __init__(self, i):
        self.A = numpy.random.default_rng(i).standard_normal((ROWS, DIMENSION)) / DIMENSION**0.5

    def sample(self):
        return None

    def gradient(self, x, ξ):
        return (self.A @ x) @ self.A


@dataclass(frozen=True)
class Timed(RFAST):
    """R-FAST that notes the seconds of CPU of its rank, from its first gradient on."""

    async def peer(self, node, x, f, watch):
        began = None

        def watching(t, x):
            nonlocal began
            if t == 1:
                began = time.process_time()
            return watch(t, x)

        watching.used, watching.mixed = watch.used, watch.mixed
        try:
            return await super().peer(node, x, f, watching)
        finally:  # also of who is ended by another rank
            self.spent.append(time.process_time() - began)

    @property
    def spent(self):
        return SPENT


SPENT = []


def mpibench(comm, cell, inline):
    """(iterations, CPU seconds, messages, seconds) of all ranks together, or of the run."""
    from mpibench import runner
    from mpibench.engines import mpi

    mpi.INLINE_SECONDS = math.inf if inline else 0.0
    SPENT.clear()
    result, _ = runner.emulate(comm, cell, 0)
    cpu = comm.reduce(SPENT[0])
    if comm.rank:
        return None
    return result.ranks["gradients"].sum(), cpu, result.ranks["messages_sent"].sum(), result.attrs["seconds"]


class Edge:
    """One kind of message on one edge, written by hand: out of a buffer, one under way, or into two, one to read."""

    def __init__(self, comm, peer, tag, out):
        self.comm, self.peer, self.tag = comm, peer, tag
        self.buffer, self.spare = numpy.zeros(1 + DIMENSION), numpy.zeros(1 + DIMENSION)
        self.request, self.waits, self.count = None, None, 0
        if not out:
            self.post()

    def post(self):
        self.request = self.comm.Irecv(self.spare, self.peer, self.tag)

    def send(self, t, vector):
        """Now, or when what is under way has left, if nothing newer comes."""
        if self.request is not None and not self.request.Test():
            self.waits = t, vector
            return
        self.waits = None
        self.buffer[0], self.buffer[1:] = t, vector
        self.request = self.comm.Isend(self.buffer, self.peer, self.tag)
        self.count += 1

    def push_on(self):
        """True when nothing is under way or waits."""
        if self.waits is not None:
            self.send(*self.waits)
        return self.waits is None and (self.request is None or self.request.Test())

    def receive(self):
        """True if something newer has come into the buffer."""
        news = False
        while self.request.Test():
            self.buffer, self.spare = self.spare, self.buffer
            self.count += 1
            self.post()
            news = True
        return news


def in_a_thread(helper, out, into, x, ξ):
    """The gradient, while messages are kept moving as in the listing."""
    helper.jobs.put((x, ξ))
    pause = 2e-5
    while True:
        with contextlib.suppress(queue.Empty):
            return helper.results.get(timeout=pause)
        moved = False
        for edge in out:
            edge.push_on()
        for edge in into:
            moved |= edge.receive()
        pause = 2e-5 if moved else min(2 * pause, 1e-3)


class Helper:
    """A thread that calls a function."""

    def __init__(self, function):
        self.jobs, self.results = queue.SimpleQueue(), queue.SimpleQueue()

        def work():
            while True:
                self.results.put(function(*self.jobs.get()))

        threading.Thread(target=work, daemon=True).start()


def by_hand(comm, cell, inline):
    """The same of the loop by hand."""
    from mpibench import runner

    problem = cell.problem.prepare(RANKS, 0)
    i, f, x = comm.rank, problem.objective(comm.rank + 1), problem.start()
    pull, push = cell.algorithm.graphs(runner.cluster_of(cell, 0, problem, [1e-3] * RANKS).network())
    W, A = uniform_row(pull), uniform_column(push)
    γ = STEPSIZE / step_factor(W, A)
    W, A = W.into(i), A.out_of(i)
    v_in = {j: Edge(comm, j, V, False) for j in pull.sources(i)}
    r_in = {j: Edge(comm, j, R, False) for j in push.sources(i)}
    v_out = [Edge(comm, j, V, True) for j in pull.destinations(i)]
    r_out = {j: Edge(comm, j, R, True) for j in push.destinations(i)}
    for edge in v_in.values():
        edge.buffer[1:] = x
    rho = {j: numpy.zeros(DIMENSION) for j in r_out}
    rtil, stamps = {j: numpy.zeros(DIMENSION) for j in r_in}, dict.fromkeys(r_in, 0)
    g = f.gradient(x, f.sample())
    z, t = g.copy(), 0
    out, into = [*v_out, *r_out.values()], [*v_in.values(), *r_in.values()]
    gradient = f.gradient if inline else functools.partial(in_a_thread, Helper(f.gradient), out, into)
    comm.Barrier()
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < cell.stop.seconds:
        v = x - γ * z
        t += 1
        for edge in v_out:
            edge.send(t, v)
        x = W[i] * v
        for j, edge in v_in.items():
            edge.receive()
            x += W[j] * edge.buffer[1:]
        for edge in r_out.values():
            edge.push_on()
        g_new = gradient(x, f.sample())
        for edge in v_out:
            edge.push_on()
        z += g_new
        z -= g
        for j, edge in r_in.items():
            edge.receive()
            if edge.buffer[0] > stamps[j]:
                stamps[j] = edge.buffer[0]
                z += edge.buffer[1:]
                z -= rtil[j]
                rtil[j][:] = edge.buffer[1:]
        g = g_new
        for j, edge in r_out.items():
            rho[j] += A[j] * z
            edge.send(t, rho[j])
        z *= A[i]
    finish(comm, out, into)
    spent = time.process_time() - cpu
    total = comm.reduce(numpy.array([t, spent, sum(edge.count for edge in out)]))
    return None if i else (*total, cell.stop.seconds)


def finish(comm, out, into):
    """Everything that was sent is received; then nobody is sent to any more."""
    for edge in out:
        edge.waits = None
    while sum(not edge.push_on() for edge in out):  # all are asked
        for edge in into:
            edge.receive()
    over = comm.Ibarrier()
    while not over.Test():
        for edge in into:
            edge.receive()
    sent = numpy.zeros((comm.size, 2), int)
    for edge in out:
        sent[edge.peer, edge.tag] = edge.count
    expected = numpy.empty_like(sent)
    comm.Alltoall(sent, expected)
    while any(edge.count < expected[edge.peer, edge.tag] for edge in into):
        for edge in into:
            edge.receive()
    for edge in into:
        edge.request.Cancel()
        edge.request.Wait()


def cells(comm, seconds):
    """Graph -> cell."""
    from mpibench import experiment

    made = {}
    for name, (graph, root) in GRAPHS.items():
        resolved = None
        if comm.rank == 0:
            with tempfile.TemporaryDirectory() as folder:
                job = Path(folder, "job.toml")
                values = {"graph": graph, "root": "" if root is None else f"root = {root}", "stepsize": STEPSIZE}
                job.write_text(EXPERIMENT.format(ranks=RANKS, seconds=seconds, dimension=DIMENSION, **values))
                resolved = experiment.load(job).resolved
        (made[name],) = experiment.Experiment.from_resolved(comm.bcast(resolved)).cells()
    return made


def main():
    from dataclasses import replace

    flags = {"seconds": (float, 2.0, "of each run (default: %(default)s)"), "bare": (bool, False, "cheap gradients")}
    given = arguments(__doc__, 5, **flags)
    comm = under_mpi(RANKS, __file__, 600)
    rows = []
    for (name, cell), inline in itertools.product(cells(comm, given.seconds).items(), (False, True)):
        if not given.bare:
            cell = replace(cell, problem=LeastSquares(dimension=DIMENSION))
        timed = replace(cell, algorithm=Timed(STEPSIZE, cell.algorithm.root))
        turns = {"ours": functools.partial(mpibench, comm, timed, inline),
                 "peer": functools.partial(by_hand, comm, cell, inline)}  # fmt: skip
        runs = in_turn(turns, given.repetitions)
        if comm.rank:
            continue
        case = f"{name}, {'inline' if inline else 'thread'}"
        for unit, value in UNITS.items():
            ours, peer = (Figure.of([value(*run) for run in runs[who]]) for who in ("ours", "peer"))
            rows.append(Row(case, unit, ours, peer, ratio(ours, peer)))
            if unit == "ms of CPU an iteration" and not given.bare:
                rows[-1].bar, rows[-1].met = f"<= {BAR:g} of it", rows[-1].ratio <= BAR
    if comm.rank == 0:
        gradients = "quadratic" if given.bare else f"{ROWS} rows of least squares"
        show(f"R-FAST, {RANKS} ranks, models of 1 MB, gradients of {gradients}", rows, given.json, peer="by hand")


if __name__ == "__main__":
    main()
