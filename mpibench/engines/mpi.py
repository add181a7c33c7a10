"""Real ranks: the same events as in the simulation, when the wall clock has reached them (`emulated`), or whatever this
machine does (`native`).

Emulated: every rank carries its own modelled time. A message brings its modelled arrival; it is delivered in the order
of law 8, not before the wall clock has come there, and the receiver goes on at the modelled instant, so lateness does
not add up. A message that comes after later events of its receiver is an order violation: a run without one has every
rank's events in the order of the simulation, hence its iterates.

Native: gradients longer than a millisecond are computed in a helper thread, while the main thread, the only one that
calls MPI, keeps messages moving.
"""

import time
from array import array
from collections import deque
from heapq import heappop, heappush
from queue import SimpleQueue
from threading import Event, Thread

import numpy
from mpi4py import MPI

from mpibench.doorbell import Doorbell
from mpibench.engines.wire import Wire
from mpibench.node import ENDS, LOST, NEVER, RECEIVED, SECOND, UNKNOWN, Engine, Link, Node, Task, different_graphs
from mpibench.reduction import Reductions
from mpibench.repetition import REPEATED, Repetition
from mpibench.shared_memory import window
from mpibench.watchdog import Watchdog

RUNG_NS = 50_000_000  # ns between two polls, at most, where ranks ring for each other
INLINE_SECONDS = 1e-3  # native: a longer gradient is computed in the helper thread


def patiently(request):
    """Wait for a nonblocking collective without keeping a core busy."""
    pause = 1e-5
    while not request.Test():
        time.sleep(pause)
        pause = min(2 * pause, 2e-3)


class Arrival:
    """A message that has come over MPI."""

    __slots__ = ("body", "mailbox", "source")
    cancelled = False

    def __init__(self, mailbox, source, body):
        self.mailbox, self.source, self.body = mailbox, source, body

    def happen(self):
        """It is delivered."""
        self.mailbox.put(self.source, self.body)


class NativeLink(Link):
    """Nothing is modelled: a send is done when MPI says so."""

    __slots__ = ("leaving_tags", "pending")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.leaving_tags, self.pending = set(), {}

    def submit(self, send):
        """Send this now; of a `newest_only` tag only one message is under way, and the newest waits."""
        key = send.communicator.index, send.tag
        if key in self.leaving_tags:
            older = send.replaced = self.pending.get(key)
            if older is not None:
                older.body = None
            self.pending[key] = send
            return
        engine, lost = self.node.engine, self.lost is not None and self.lost()
        if self.node.journal is not None:
            self.node.journal.sent(engine.time, send, LOST if lost else UNKNOWN, lost)
        if lost:
            return send.finish()
        if send.tag in self.node.newest_only:
            self.leaving_tags.add(key)
        engine.wire.send(send.communicator.index, self.to, send.tag, 0, send.body, lambda: self.complete(key, send))

    def complete(self, key, send):
        """MPI has sent it."""
        if self.node.engine.stopping:  # nobody goes on after the end
            return
        self.leaving_tags.discard(key)
        if key in self.pending:
            self.submit(self.pending.pop(key))
        while send is not None:
            send.finish()
            send = send.replaced


class Helper:
    """A thread that calls `function(job)` for one job after another; `failed(error)` where that fails."""

    def __init__(self, function, failed):
        self.function, self.failed, self.jobs = function, failed, SimpleQueue()
        self.thread = Thread(target=self.work)
        self.thread.start()

    def work(self):
        """Until there are no more."""
        for job in iter(self.jobs.get, None):
            try:
                self.function(job)
            except BaseException as error:
                self.failed(error)

    def close(self):
        """End after the job under way."""
        self.jobs.put(None)
        self.thread.join()


class MPIEngine(Engine):
    """Runs a program on the first ranks of a communicator; the others sit out. All ranks of `comm` call `run`.

    `clock` is "emulated" or "native"; `time_scale` wall seconds per modelled second (emulated); `margin_seconds` what a
    delivery waits beyond its instant, so that what is late can still be put in order; `pause_seconds` the longest time
    between two polls; `offset` of this rank's clock to rank 0's in ns; `strict`: give up at the first order violation.
    After `run`: `node` (None on ranks that sit out), `end` (ns), `lateness` (seconds, a value per delivery),
    `order_violations`, `overruns` (computations that took longer than modelled).
    """

    def __init__(self, comm, clock="emulated", time_scale=1.0, margin_seconds=0.0, pause_seconds=1e-3,
                 stall_seconds=300.0, offset=0, strict=False):  # fmt: skip
        super().__init__()
        self.world = comm
        self.clock = clock
        self.scale = time_scale
        self.margin = round(margin_seconds * SECOND)
        self.longest_pause = round(pause_seconds * SECOND)
        self.stall_seconds = stall_seconds
        self.offset = offset  # of this rank's wall clock to rank 0's, in ns
        self.strict = strict
        self.time = self.age = 0  # modelled, in ns, and of the newest event
        self.events = []  # a heap
        self.stopping = False
        self.interrupted = False  # set by a signal: end at the next event
        self.limit = (NEVER, NEVER)  # (time, rank) of the last event that counts
        self.lateness = array("d")
        self.order_violations = self.overruns = 0
        self.ends = self.ends_late = 0  # ends of computations and sleeps, and ns by which they were late in all
        self.last = (-1, -1)
        self.marks = (array("q"), array("q"))  # time and fingerprint after each event
        self.windows = []
        self.finished, self.done = deque(), Event()  # native: (computation, seconds) of those that have been done
        self.helper = None
        self.recent = deque([0.0], maxlen=9)  # seconds of the last computations
        self.node = None

    def at(self, time_, rank, kind, event):
        """Let this event happen."""
        self.age += 1
        heappush(self.events, (time_, rank, kind, self.age, event))

    def forget(self, event):
        """It will be skipped when its time has come, and until then shall not keep a vector alive. Its function stays:
        the helper thread may be about to call it."""
        event.value = None

    def wall(self):
        """Nanoseconds since the common origin, on the modelled clock."""
        return int((time.perf_counter_ns() - self.origin) / self.scale)

    def run(self, cluster, program):
        """Run `program(node)` until the first rank's returns, or until the cluster's last instant.

        Returns the rank that ended the run, or None if time did.
        """
        patiently(self.world.Ibarrier())
        part = self.world.Split(0 if self.world.rank < cluster.size else MPI.UNDEFINED)
        if part != MPI.COMM_NULL:  # the others sit out
            self.comm = part
            self.wire = Wire(part)
            self.bell = Doorbell(part)
            self.reductions = Reductions(part.Dup())  # apart: who begins one may not know yet that the run has ended
            node = self.node = Node(self, part.rank, cluster)
            self.held_up = cluster.held_up and cluster.held_up(part.rank)
            if cluster.until is not None:
                self.limit = (cluster.until, NEVER)
            self.heartbeat = time.perf_counter_ns()
            watchdog = Watchdog(self, node, self.stall_seconds)
            watchdog.start()
            try:
                self.begin_together()
                self.started = max(0, time.perf_counter_ns() - self.origin)  # emulated: the start is modelled
                self.loop(Task(node, program(node)))
                self.stopped = time.perf_counter_ns() - self.origin
                self.drain()
                self.frozen.check_all()
            finally:
                watchdog.over.set()
                self.bell.close()
                if self.helper is not None:
                    self.helper.close()
                for task in list(node.tasks):
                    task.coroutine.close()
            for handle in [*self.windows, self.reductions.comm, *reversed(self.wire.comms)]:
                handle.Free()
        patiently(self.world.Ibarrier())
        return self.limit[1] if self.limit[1] < NEVER else None

    def begin_together(self):
        """Agree on one instant a little in the future; leaving a barrier is no common start."""
        now = numpy.array([time.perf_counter_ns() - self.offset])
        self.comm.Allreduce(MPI.IN_PLACE, now, MPI.MAX)
        self.origin = int(now[0]) + self.offset + 5_000_000 + 200_000 * self.comm.size
        if self.clock == "native":
            while time.perf_counter_ns() < self.origin:
                time.sleep(max(0, self.origin - time.perf_counter_ns()) / 2 / SECOND)

    def loop(self, program):
        """Let event after event happen, each when its time has come."""
        events, rank, pause = self.events, self.node.rank, 0
        while not (program.done or self.interrupted):
            moved = self.progress()
            wall = self.wall()
            pending = events and (events[0][0], rank) <= self.limit
            if pending and self.due(events[0]) <= wall:
                self.step(*heappop(events), wall)
                pause = 0
            elif moved:
                pause = 0
            elif self.stopping and self.clock == "native":
                return
            elif wall > self.limit[0] + self.margin / self.scale and not pending:
                self.time = max(self.time, min(self.limit[0], wall))
                return
            else:
                pause = self.rest(pause, wall)
        self.tell((self.time, rank))

    def tell(self, limit):
        """The last event that counts is this one, for all ranks."""
        self.limit = min(self.limit, limit)
        for other in range(self.comm.size):
            if other != self.node.rank:
                self.transport(0, other, -1, 0, limit)

    def due(self, event):
        """When this event may happen, on the wall."""
        return event[0] + self.margin / self.scale if event[2] < self.comm.size else event[0]

    def step(self, time_, rank, kind, _, event, wall):
        """One event happens."""
        if event.cancelled:
            return
        self.heartbeat = time.perf_counter_ns()
        if self.clock == "native":
            self.time = max(self.time, min(wall, self.limit[0]))
        else:
            if kind < self.comm.size:
                self.lateness.append((wall - self.due((time_, rank, kind))) * self.scale / SECOND)
            elif kind >= ENDS:
                self.ends, self.ends_late = self.ends + 1, self.ends_late + wall - time_
            if (time_, kind) < self.last and not (time_ == self.last[0] and self.takes_no_time(kind)):
                self.order_violations += 1
                if self.strict:
                    self.tell((-1, rank))
            self.last = max(self.last, (time_, kind))
            self.time = max(self.time, time_)
            if kind != REPEATED:
                self.node.fingerprint = hash((self.node.fingerprint, time_, kind))
            self.marks[0].append(time_)
            self.marks[1].append(self.node.fingerprint)
        if kind < self.comm.size and kind != rank and self.node.journal is not None:
            self.node.journal.note(self.time, RECEIVED - kind, 0, 0)
        event.happen()

    def takes_no_time(self, source):
        """Whether messages from this rank arrive when they leave; then simultaneous events have no promised order."""
        edge = self.node.cluster.edge(source, self.node.rank) if source != self.node.rank else None
        return edge is None or (edge.instant and edge.latency_ns == 0)

    @property
    def end(self):
        """The instant in ns at which the run ended."""
        return self.limit[0] if self.limit[0] < NEVER else self.time

    def fingerprint(self):
        """Of this rank's events that count."""
        times = numpy.array(self.marks[0], numpy.int64)
        counted = (times < self.limit[0]) | ((times == self.limit[0]) & (self.node.rank <= self.limit[1]))
        return self.marks[1][int(counted.nonzero()[0][-1])] if counted.any() else 0

    def rest(self, pause, wall):
        """Nothing to do: sleep until somebody rings or to the next known instant.

        Where nobody can ring, or somebody did and nothing has come, look again, each time after twice as long. Returns
        the pause from which to go on.
        """
        ringing = self.clock == "emulated" and self.bell.everybody and not (self.wire.sending or self.wire.early)
        if ringing and (pause == 0 or pause >= self.longest_pause):
            asked, pause = RUNG_NS, 0
        else:
            asked = pause = min(max(2 * pause, 20_000), self.longest_pause)
        if self.events:
            self.heartbeat = time.perf_counter_ns()  # a planned wait is no stall
            next_ns = (self.due(self.events[0]) - wall) * self.scale
            if next_ns < 30_000:  # too short for a sleep
                return pause
            asked = min(asked, next_ns - 20_000)
        if self.clock == "native":  # nobody rings, but the helper thread may have done its work
            if self.done.wait(asked / SECOND):  # a SimpleQueue may wait for ever for what was to take 20 us
                self.done.clear()
            return pause
        return 1 if self.bell.wait(asked / SECOND) else pause

    def progress(self):
        """Move messages; what arrives becomes events. True if anything came."""
        wire = self.wire
        wire.progress()
        arrived = wire.poll()
        for source, index, tag, arrival, body in arrived:
            if tag < 0:
                self.limit = min(self.limit, body)
                self.stopping = True
            elif not self.stopping or self.clock == "emulated":
                delivery = Arrival(self.node.inboxes[index][tag], source, body)
                self.at(self.wall() if self.clock == "native" else arrival, self.node.rank, source, delivery)
        while (reduction := self.reductions.ended()) is not None:
            self.at(self.wall(), self.node.rank, ENDS, reduction)
            arrived = True
        while self.finished:
            self.computed(*self.finished.popleft())
            arrived = True
        return bool(arrived)

    def computed(self, computation, seconds):
        """Native: a computation has been done."""
        if isinstance(computation, BaseException):
            raise computation
        self.recent.append(seconds)
        self.at(self.wall(), self.node.rank, ENDS, computation)

    def carry(self, arrival, to, rank, send):
        """A message leaves with its modelled arrival."""
        index = send.communicator.index
        if to == rank:
            self.at(arrival, rank, rank, Arrival(self.node.inboxes[index][send.tag], rank, send.body))
        else:
            self.transport(index, to, send.tag, arrival, send.body)

    def transport(self, index, to, *message):
        """Send, and wake the receiver: at once, for large vectors wait for it, and when all has left."""
        self.wire.send(index, to, *message, lambda: self.bell.ring(to))
        self.bell.ring(to)

    def begin(self, computation):
        """A computation begins: emulated, evaluate at once and let it end when it should; native, compute."""
        if self.clock == "emulated":
            computation.evaluate()
            self.overruns += self.wall() > super().begin(computation)
        elif sorted(self.recent)[len(self.recent) // 2] > INLINE_SECONDS:  # the median: a rank may have lost its core
            if self.helper is None:
                self.helper = Helper(self.measure, lambda error: self.has_done(error, 0.0))
            self.helper.jobs.put(computation)
        else:
            self.measure(computation)

    def measure(self, computation):
        """Native: evaluate and put the result where `progress` finds it."""
        start = time.perf_counter()
        if not computation.cancelled:
            computation.evaluate()
            if self.held_up is not None:
                time.sleep(self.held_up(time.perf_counter() - start))
        self.has_done(computation, time.perf_counter() - start)

    def has_done(self, computation, seconds):
        """Native: put it where `progress` finds it, and wake who waits for it."""
        self.finished.append((computation, seconds))
        self.done.set()

    def link(self, node, to):
        """A modelled link, or one that is just MPI."""
        if self.clock == "native":
            return NativeLink(node, to, None, node.cluster.lost(node.rank, to))
        return super().link(node, to)

    def repeat(self, node, f, x):
        """Gradients of f at x, one after another."""
        return Repetition(node, f, x)

    def join(self, communicator, graph_hash):
        """The graph becomes an MPI communicator, if all ranks have the same."""
        if len(set(self.comm.allgather(graph_hash))) > 1:
            raise RuntimeError(different_graphs(communicator))
        sources, destinations = communicator.sources, communicator.destinations
        self.wire.comms.append(self.comm.Create_dist_graph_adjacent(sources, destinations, reorder=False))

    def share(self, node, x):
        """A shared-memory window."""
        memory, model = window(self.comm, x)
        self.windows.append(memory)
        return model

    def all_reduce(self, x):
        """By the library."""
        return self.reductions.begin(x)

    def drain(self):
        """Receive everything that was sent (never cancel a send), and count what came too late to be in its order."""
        self.stopping = True
        while self.wire.progress():
            self.late(self.wire.poll())
            self.bell.wait(1e-3)
        barrier = self.comm.Ibarrier()
        while not barrier.Test():
            self.late(self.wire.poll())
            self.bell.wait(1e-3)
        expected = self.comm.alltoall(self.wire.sent)
        while self.wire.received != expected:
            self.late(self.wire.poll())
        self.reductions.finish()

    def abort(self, code):
        """End all ranks with this code, where a thread may call MPI."""
        if MPI.Query_thread() == MPI.THREAD_MULTIPLE:
            MPI.COMM_WORLD.Abort(code)

    def late(self, arrived):
        """Messages that came after this rank's last event."""
        for _, _, tag, arrival, body in arrived:
            if tag < 0:
                self.limit = min(self.limit, body)
            elif self.clock == "emulated" and (arrival, self.node.rank) <= self.limit:
                self.order_violations += 1
