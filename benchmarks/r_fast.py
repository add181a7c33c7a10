"""What an iteration of R-FAST costs on 8 ranks with models of 1 MB, beside the same method written by hand with mpi4py.

    python benchmarks/r_fast.py    or    mpiexec -n 8 python -m mpi4py benchmarks/r_fast.py

Ours is a run as users start it, on the native clock: engine, watch and journal are in it. The loop by hand has the same
gradients, graphs, weights and step, one message of each kind on an edge at a time, of which the newest waits, posted
receives with a spare buffer, arithmetic in place where it can be, and it looks after its messages before and after a
gradient. Both run for so many seconds, in turns, in the same processes. CPU is that of all ranks, from the first
iteration until everything that was sent has been received. Where ranks share cores it is what is left to compare: who
waits for a core is not overhead, and neither is who sends more; so both say how many messages an iteration has.

Gradients are those of least squares with 16 rows of 125,000 numbers a rank, a minibatch, some milliseconds. `--bare`
has those of `quadratic` instead, some tenths of a millisecond, which next to nothing that is trained has at this size.
"""

import functools
import tempfile
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
    """R-FAST that notes the seconds of CPU of its rank."""

    async def peer(self, node, x, f, watch):
        began = time.process_time()
        try:
            return await super().peer(node, x, f, watch)
        finally:  # also of who is ended by another rank
            self.spent.append(time.process_time() - began)

    @property
    def spent(self):
        return SPENT


SPENT = []


def mpibench(comm, cell):
    """(iterations, CPU seconds, messages, seconds) of all ranks together, or of the run."""
    from mpibench import runner

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
        """True if something newer is in the buffer."""
        news = False
        while self.request.Test():
            self.buffer, self.spare = self.spare, self.buffer
            self.count += 1
            self.post()
            news = True
        return news


def by_hand(comm, cell):
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
    rtil = {j: numpy.zeros(DIMENSION) for j in r_in}
    g = f.gradient(x, f.sample())
    z, t = g.copy(), 0
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
        g_new = f.gradient(x, f.sample())
        for edge in v_out:
            edge.push_on()
        z += g_new
        z -= g
        for j, edge in r_in.items():
            if edge.receive():
                z += edge.buffer[1:]
                z -= rtil[j]
                rtil[j][:] = edge.buffer[1:]
        g = g_new
        for j, edge in r_out.items():
            rho[j] += A[j] * z
            edge.send(t, rho[j])
        z *= A[i]
    out = [*v_out, *r_out.values()]
    finish(comm, out, [*v_in.values(), *r_in.values()])
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
    for name, cell in cells(comm, given.seconds).items():
        if not given.bare:
            cell = replace(cell, problem=LeastSquares(dimension=DIMENSION))
        timed = replace(cell, algorithm=Timed(STEPSIZE, cell.algorithm.root))
        turns = {"ours": lambda timed=timed: mpibench(comm, timed), "peer": lambda cell=cell: by_hand(comm, cell)}
        runs = in_turn(turns, given.repetitions)
        if comm.rank:
            continue
        for unit, value in (
            ("ms of CPU an iteration", lambda run: 1e3 * run[1] / run[0]),
            ("iterations a second and rank", lambda run: run[0] / run[3] / RANKS),
            ("messages an iteration", lambda run: run[2] / run[0]),
        ):
            ours, peer = (Figure.of([value(run) for run in runs[who]]) for who in ("ours", "peer"))
            rows.append(Row(name, unit, ours, peer, ratio(ours, peer)))
            if unit.startswith("ms") and not given.bare:
                rows[-1].bar, rows[-1].met = f"<= {BAR:g} of it", rows[-1].ratio <= BAR
    if comm.rank == 0:
        gradients = "quadratic" if given.bare else f"{ROWS} rows of least squares"
        show(f"R-FAST, {RANKS} ranks, models of 1 MB, gradients of {gradients}", rows, given.json, peer="by hand")


if __name__ == "__main__":
    main()
