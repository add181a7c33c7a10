"""The node: the few verbs that an algorithm has, and the mechanics behind them that all engines share.

A verb is a plain function that begins an operation and returns a request; `await` waits for it. Whatever happens to a
rank is an event with a modelled time in whole nanoseconds. Events are ordered by (time, rank, kind, age), where the
kind puts first what arrives (by source), then links that become free, then computations and sleeps that end. An engine
says how time passes between events and how a message travels; the rest is here, so it is the same everywhere.
"""

import math
import weakref
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy

ANY = -1
NEVER = 1 << 62  # an instant, in ns
SECOND = 1_000_000_000
LINKS, ENDS = 1 << 28, 1 << 29  # kinds of events after arrivals, whose kind is their source
COMPUTED, STOPPED, RECEIVED = -1, -2, -3  # rows of a journal that are no messages sent; RECEIVED - i: from rank i
NUMBERS = frozenset({int, float})
LOST, UNKNOWN = 1 << 62, -1  # in a journal, in the place of an arrival


@dataclass(frozen=True, slots=True)
class Packed:
    """A vector in a message as a compressor has packed it: a uint8 array, and how many bits its paper counts."""

    data: numpy.ndarray
    bits: int


class Message(NamedTuple):
    """What `recv` and `drain` give: the sending rank and what it sent."""

    source: int
    body: tuple


class Request:
    """An operation under way; `await` gives its value.

    Kinds that come by the million have no `__init__`, and what `finish` does is written out where they end: both make
    the simulation faster.
    """

    __slots__ = ("done", "task", "value")

    def __await__(self):
        if not self.done:
            yield self
        return self.value

    def finish(self, value=None):
        """The operation has ended: wake who waits for it."""
        if self.done:
            return
        self.done = True
        self.value = value
        if self.task is not None:
            self.task.step()

    def cancel(self):
        """Nobody wants the value any more."""
        self.task = None


class Task(Request):
    """A coroutine that runs on a rank. `await task` gives what it returns."""

    __slots__ = ("coroutine", "node", "waits_for")

    def __init__(self, node, coroutine):
        self.done = False
        self.task = self.value = self.waits_for = None
        self.node = node
        self.coroutine = coroutine
        node.tasks[self] = None
        self.step()

    def step(self):
        """Run until the next wait."""
        try:
            request = self.coroutine.send(None)
        except StopIteration as end:
            self.waits_for = None
            del self.node.tasks[self]
            self.finish(end.value)
        else:
            if request.task is not None:
                raise RuntimeError(f"two coroutines of rank {self.node.rank} wait for the same request")
            self.waits_for = request
            request.task = self

    def cancel(self):
        """End the coroutine where it waits; the computation it waits for is stopped and never reported."""
        if self.done:
            return
        self.coroutine.close()
        if self.waits_for is not None:
            self.waits_for.cancel()
        self.node.tasks.pop(self, None)
        self.finish()  # who waits for it goes on with None

    def __repr__(self):
        return f"task {self.coroutine.cr_code.co_qualname}"

    def where(self):
        """File, line and name of the coroutine's innermost wait."""
        inner = self.coroutine
        while getattr(inner.cr_await, "cr_frame", None) is not None:
            inner = inner.cr_await
        return f"{inner.cr_code.co_qualname} at {inner.cr_code.co_filename}:{inner.cr_frame.f_lineno}"


class Receive(Request):
    """A receive that waits in a mailbox."""

    __slots__ = ("age", "mailbox", "source")

    def cancel(self):
        super().cancel()
        if not self.done:
            self.mailbox.forget(self)

    def __repr__(self):
        source = "any rank" if self.source == ANY else f"rank {self.source}"
        return f"recv of tag {self.mailbox.tag!r} from {source}"


class Send(Request):
    """A message under way; done when its link is free again. `sizes` are what `Node.freeze` gives of its body,
    `charged` what its link and the ledger's bits are charged instead."""

    __slots__ = ("body", "charged", "communicator", "free_at", "link", "replaced", "sizes", "tag")
    cancelled = False

    def __await__(self):
        if not self.done and self.free_at is not None:  # it has left: an event only if somebody waits for it
            self.link.call_when_free(self)
        return iter(() if self.done else (self,))  # of a tuple, for there is no value: quicker than a generator

    def __repr__(self):
        return f"link to rank {self.link.to}"


class Timer(Request):
    """A sleep, or a computation that may be evaluated at any time between its begin and its end."""

    __slots__ = ("args", "began", "cancelled", "cost", "function", "node")
    kind = ENDS

    def __init__(self, node, function, args, cost):
        self.done = self.cancelled = False
        self.task = self.value = None
        self.node = node
        self.function = function
        self.args = args
        self.cost = cost

    def evaluate(self):
        """The value, computed once."""
        self.value = self.function(*self.args)
        self.function = self.args = None

    def happen(self):
        """The end has come."""
        node = self.node
        if node.running is self:
            node.gradients += self.cost
            node.end(self, COMPUTED, self.cost)
        if self.function is not None:
            self.evaluate()
        self.done = True
        if self.task is not None:
            self.task.step()

    def cancel(self):
        super().cancel()
        node = self.node
        if self.done or self.cancelled:
            return
        if node.running is self:
            node.stopped += 1
            node.end(self, STOPPED, 0)
        elif self in node.backlog:
            node.backlog.remove(self)
            return
        self.cancelled = True  # its event will be skipped
        node.engine.forget(self)

    def __repr__(self):
        return "sleep" if self.function is None and self.value is None else "compute"


class Mailbox:
    """Messages of one tag on one communicator of a rank, and who waits for them; first in, first out by source."""

    __slots__ = ("age", "anybodys", "by_source", "listener", "newest_only", "queue", "tag", "taken", "waiting")

    def __init__(self, tag, newest_only):
        self.tag = tag
        self.newest_only = newest_only
        self.listener = None  # a function that is called with each
        self.age = 0
        self.queue = ()  # [source, body], in order of arrival; body is None once it has been taken
        self.taken = 0  # entries of the queue whose body is None
        self.by_source = None  # made, like the queue, when a message has to wait: most never do
        self.anybodys = []  # receives that wait for any source
        self.waiting = {}  # receives that wait for one source, by source

    def put(self, source, body):
        """A message arrives."""
        if self.listener is not None:
            self.listener(source, body)
            return
        first = self.anybodys
        if self.waiting:
            ours = self.waiting.get(source)
            if ours and not (first and first[0].age < ours[0].age):
                first = ours
        if first:
            request = first.pop(0)
            request.done = True
            request.value = tuple.__new__(Message, (source, body))
            if request.task is not None:
                request.task.step()
            return
        if self.by_source is None:
            self.queue, self.by_source = deque(), defaultdict(deque)
        earlier = self.by_source[source]
        if self.newest_only and earlier:
            earlier[-1][1] = body
            return
        item = [source, body]
        earlier.append(item)
        self.queue.append(item)

    def take(self, source):
        """The first message from this source, or None."""
        if not self.queue:
            return None
        earlier = self.by_source.get(self.queue[0][0] if source == ANY else source)
        if not earlier:
            return None
        item = earlier.popleft()
        message = tuple.__new__(Message, item)
        item[1] = None
        self.taken += 1
        while self.queue and self.queue[0][1] is None:
            self.queue.popleft()
            self.taken -= 1
        if self.taken > 100 and 2 * self.taken > len(self.queue):  # behind a message that nobody reads
            self.queue = deque(item for item in self.queue if item[1] is not None)
            self.taken = 0
        return message

    def forget(self, request):
        """This receive waits no longer."""
        (self.anybodys if request.source == ANY else self.waiting[request.source]).remove(request)


class Mailboxes(dict):
    """A rank's mailboxes of one communicator by tag, made at first use."""

    __slots__ = ("newest_only",)

    def __init__(self, newest_only):
        self.newest_only = newest_only

    def __missing__(self, tag):
        box = self[tag] = Mailbox(tag, tag in self.newest_only)
        return box


class Link:
    """A directed edge that carries one message at a time; what comes meanwhile waits for it to be free.

    A lost message has occupied its link. Latency adds to the arrival and occupies nothing.
    """

    __slots__ = ("called", "edge", "engine", "free_at", "kind", "leaving", "lost", "node", "rank", "to",
                 "waiting")  # fmt: skip
    cancelled = False

    def __init__(self, node, to, edge, lost):
        self.node, self.rank, self.engine = node, node.rank, node.engine
        self.to, self.edge, self.lost = to, edge, lost
        self.free_at = 0
        self.waiting = []
        self.leaving = []
        self.called = False
        self.kind = None  # of the last message, in the journal

    def submit(self, send):
        """Send this, now or when the link is free."""
        if self.free_at <= self.engine.time and not self.waiting:
            self.depart(send)
            return
        if send.tag in self.node.newest_only:
            for place, older in enumerate(self.waiting):
                if older.tag == send.tag and older.communicator is send.communicator:
                    send.replaced, older.body = older, None
                    self.waiting[place] = send
                    return
        self.waiting.append(send)
        self.call_when_free()

    def depart(self, send):
        """The message occupies the link from now on."""
        engine, edge = self.engine, self.edge
        now = free_at = engine.time
        if not edge.instant:
            transmission = edge.transmission  # a function; called as a method it is slower
            vectors, others, _ = send.charged
            free_at = self.free_at = now + transmission(vectors, others)
        arrival = free_at + edge.latency_ns
        if lost := self.lost is not None and self.lost():
            arrival = LOST
        else:
            engine.carry(arrival, self.to, self.rank, send)
        if self.node.journal is not None:
            self.kind = self.node.journal.sent(now, send, arrival, lost, self.kind)
        while send is not None:
            if free_at == now:
                send.done = True
                if send.task is not None:
                    send.task.step()
            else:
                send.free_at = free_at
                if send.task is not None:
                    self.call_when_free(send)
            send = send.replaced

    def call_when_free(self, request=None):
        """Let what waits depart when the link is free, and finish this send when its own message has left."""
        if request is not None:
            if request.free_at <= self.engine.time:
                request.finish()
                return
            self.leaving.append(request)
        if not self.called:
            self.called = True
            self.engine.at(self.free_at, self.rank, LINKS, self)

    def happen(self):
        """The link is free, unless something that arrived at this instant has used it already."""
        self.called = False
        now = self.engine.time
        if self.free_at <= now:
            left, self.leaving = self.leaving, []
            if self.waiting:
                self.depart(self.waiting.pop(0))
        else:
            left = [request for request in self.leaving if request.free_at <= now]
            self.leaving = [request for request in self.leaving if request.free_at > now]
        if self.waiting or self.leaving:
            self.call_when_free()
        for request in left:
            request.finish()


class Loopback(Link):
    """From a rank to itself: no link, no time, and not counted."""

    __slots__ = ()

    def submit(self, send):
        """It arrives now."""
        self.engine.carry(self.engine.time, self.to, self.rank, send)
        send.finish()


class Communicator:
    """Messages over the edges of a graph, in a space of their own."""

    __slots__ = ("destinations", "index", "links", "mailboxes", "node", "sources")

    def __init__(self, node, index, sources, destinations):
        self.node = node
        self.index = index
        self.sources = sources
        self.destinations = destinations
        self.links = {}  # those that it has used, by destination
        self.mailboxes = node.inboxes[index]

    @property
    def parent(self):
        """The one rank that this one receives from, on a tree that points down; None at the root."""
        return self.sources[0] if self.sources else None

    @property
    def children(self):
        """The ranks that this one sends to, on a tree that points down."""
        return self.destinations

    def send(self, to, tag, *body, size=None):
        """Send `body` (numbers, vectors, Packed, None, or tuples of them) to `to`; done when the link is free again.

        `size` is the bytes that the link is charged where the paper's message is not what is serialised; the bits of
        the ledger are then these, too. What is sent is frozen. A rank may send to itself, which is no message.
        """
        link = self.links.get(to) or self.open_link(to)
        request = Send()
        request.done = False
        request.task = request.free_at = request.replaced = None  # when it leaves, and whose place it took
        request.communicator = self
        request.tag = tag
        request.body = body
        request.sizes = request.charged = self.node.freeze(body)
        if size is not None:
            request.charged = size, 0, 0
        request.link = link
        link.submit(request)
        return request

    def open_link(self, to):
        """The rank's link to another, at its first use here."""
        node = self.node
        if to not in self.destinations and to != node.rank:
            raise ValueError(f"rank {node.rank} has no edge to rank {to} in this graph")
        link = self.links[to] = node.links.get(to) or node.open_link(to)
        return link

    def recv(self, tag, source=ANY):
        """Receive a message of this tag; the request's value is Message(source, body)."""
        request, box = Receive(), self.mailboxes[tag]
        if box.listener is not None:
            raise ValueError(f"rank {self.node.rank} cannot receive messages of tag {tag!r}: a function gets them")
        request.task = request.value = None
        if box.queue and (message := box.take(source)):
            request.done, request.value = True, message
            return request
        request.done = False
        request.mailbox, request.source = box, source
        request.age = box.age = box.age + 1
        if source == ANY:
            box.anybodys.append(request)
        else:
            box.waiting.setdefault(source, []).append(request)
        return request

    def on(self, tag, function):
        """From now on call function(source, body) with each message of this tag, as soon as it is here."""
        box = self.mailboxes[tag]
        if box.listener or box.anybodys or any(box.waiting.values()):
            raise ValueError(f"rank {self.node.rank} receives messages of tag {tag!r} already")
        box.listener = function
        for message in self.drain(tag):
            function(*message)

    def drain(self, tag):
        """The messages of this tag that have arrived, without waiting."""
        box = self.mailboxes[tag]
        return list(iter(lambda: box.take(ANY), None))


@dataclass(frozen=True)
class Cluster:
    """What a run takes from its experiment, by rank; the runner makes it, engines and nodes read it."""

    size: int
    durations: Callable[[int], Callable]  # rank -> (cost, now in ns) -> ns
    edge: Callable[[int, int], Any]  # source, destination -> latency_ns, instant, transmission(vector and other bytes)
    lost: Callable[[int, int], Callable | None]  # source, destination -> () -> bool
    random: Callable[[int], Any]  # rank -> Generator, the method's own randomness
    network: Callable[[], Any] | None = None  # the graph of all ranks, with what is known of its times
    speed: Callable[[int], Any] | None = None  # worker -> mean_seconds, least_seconds, within(seconds): see Node.speed
    held_up: Callable[[int], Callable | None] | None = None  # native: rank -> (seconds computed) -> seconds more
    shared_seed: Callable[[int], Any] | None = None  # step -> ints, the same for all ranks: see Node.shared_seed
    newest_only: frozenset = frozenset()
    journal: Callable[[int], Any] | None = None  # rank -> what counts its messages and computations
    until: int | None = None  # no event after this instant, in ns


class Node(Communicator):
    """A rank as its algorithm sees it; itself the communicator that joins all ranks."""

    __slots__ = ("_rng", "backlog", "busy", "cluster", "duration", "engine", "fingerprint", "gradients", "inboxes",
                 "joined", "journal", "newest_only", "rank", "running", "size", "stopped", "tasks",
                 "workers")  # fmt: skip

    def __init__(self, engine, rank, cluster):
        self.newest_only = cluster.newest_only
        self.inboxes = defaultdict(partial(Mailboxes, self.newest_only))  # by index of the communicator
        super().__init__(self, 0, None, None)
        self.engine = engine
        self.rank = rank
        self.cluster = cluster
        self.size = cluster.size
        self.workers = range(1, cluster.size)  # the ranks other than a server's
        self.duration = cluster.durations(rank)
        self.joined = [self]
        self.tasks = {}
        self.running = None
        self.backlog = []
        self.gradients = self.stopped = self.busy = 0
        self.journal = cluster.journal and cluster.journal(rank)
        self.fingerprint = 0
        self._rng = None

    @property
    def rng(self):
        """This rank's randomness for the method's own choices."""
        if self._rng is None:
            self._rng = self.cluster.random(self.rank)
        return self._rng

    def shared_seed(self, k):
        """The seed, as ints, of what all ranks of the run draw alike at step k."""
        return self.cluster.shared_seed(k)

    def now(self):
        """Seconds on the run's clock."""
        return self.engine.time / SECOND

    def speed(self, i):
        """What is known before the run of the seconds that worker i = 1..n needs for a gradient: `mean_seconds`,
        `least_seconds`, and `within(seconds)`, the probability of no more than these. By the model, or as measured."""
        return self.cluster.speed(i)

    def link_seconds(self, source, to, size):
        """Seconds for which a message of `size` bytes, which may be a fraction, occupies the link between these ranks,
        by the model: without its latency, and not rounded to nanoseconds."""
        return self.cluster.edge(source, to).transmission(size * SECOND, 0) / SECOND**2

    def network(self):
        """The experiment's graph with its times: trees and pivots, see `mpibench.network.Network`."""
        return self.cluster.network()

    def compute(self, function, *args, cost=1.0):
        """Compute function(*args), which takes the time of `cost` gradients of this rank, one after another."""
        self.freeze(args)
        request = Timer(self, function, args, cost)
        if self.running is None:
            self.begin(request)
        else:
            self.backlog.append(request)
        return request

    def repeat(self, f, x):
        """Gradients of f at x, one after another, each at a sample of its own, until it is cancelled.
        `take()` gives how many have ended since the last time and their sum, `await ready()` waits for the next one.

        Until then this rank computes nothing else, and nobody else draws samples of f.
        """
        if self.running is not None:
            raise ValueError(f"rank {self.rank} computes already, so it cannot repeat gradients")
        self.freeze((x,))
        return self.engine.repeat(self, f, x)

    def begin(self, request):
        """This computation is the one that runs."""
        self.running = request
        request.began = self.engine.time
        self.engine.begin(request)

    def end(self, computation, kind, cost):
        """This computation has ended or was stopped: account for its time, and begin the next."""
        now = self.engine.time
        self.busy += now - computation.began
        if self.journal is not None:
            self.journal.note(now, kind, now - computation.began, cost)
        self.running = None
        if self.backlog:
            self.begin(self.backlog.pop(0))

    def sleep(self, seconds):
        """Do nothing for so long."""
        if not 0 <= seconds < math.inf:
            raise ValueError(f"rank {self.rank} cannot sleep for {seconds} s")
        request = Timer(self, None, None, 0)
        self.engine.at(self.engine.time + round(seconds * SECOND), self.rank, ENDS, request)
        return request

    def start(self, coroutine):
        """Run another coroutine on this rank, at once until its first wait."""
        return Task(self, coroutine)

    def join(self, graph):
        """A communicator of this graph's edges (`graph.sources(rank)`, `graph.destinations(rank)`); all ranks call it,
        in the same order, with the same graph."""
        sources, destinations = tuple(graph.sources(self.rank)), tuple(graph.destinations(self.rank))
        communicator = Communicator(self, len(self.joined), sources, destinations)
        self.joined.append(communicator)
        self.engine.join(communicator, getattr(graph, "hash", None))
        return communicator

    def share(self, x):
        """One model in memory that all ranks share, x at the start: see `mpibench.shared_memory.SharedModel`. All ranks
        call it, once a run; not on the emulated clock."""
        return self.engine.share(self, x)

    def all_reduce(self, x):
        """The sum of x over all ranks by the library that connects them; on the native clock only."""
        return self.engine.all_reduce(x)

    def open_link(self, to):
        """The link to this rank, at its first use."""
        if not 0 <= to < self.size:
            raise ValueError(f"rank {self.rank} cannot send to rank {to}: there are ranks 0 to {self.size - 1}")
        link = self.links[to] = Loopback(self, to, None, None) if to == self.rank else self.engine.link(self, to)
        return link

    def freeze(self, items):
        """Law 3: what is handed over is never written again. Returns the bytes of its vectors, those of all else, and
        the bits by which what is packed is longer than its paper says."""
        vectors, others, padding = 0, 8 * len(items), 0
        for item in items:
            if type(item) in NUMBERS:
                continue
            kind, others = type(item), others - 8
            if kind is numpy.ndarray:
                if item.flags.writeable:
                    item.setflags(write=False)
                    if type(item.base) is numpy.ndarray:  # a part was handed over: the whole must not be written
                        item.base.setflags(write=False)
                vectors += item.nbytes
            elif hasattr(item, "deferred"):  # a vector that the simulation has not computed yet
                vectors += item.nbytes
            elif kind is tuple or kind is list:
                inner = self.freeze(item)
                vectors, others, padding = vectors + inner[0], others + inner[1], padding + inner[2]
            elif kind is Packed:
                item.data.setflags(write=False)
                vectors += item.data.nbytes
                padding += 8 * item.data.nbytes - item.bits
            elif hasattr(item, "_version"):
                self.engine.frozen.check(item)
                vectors += item.nbytes
            elif kind is bytes:
                vectors += len(item)
            else:
                others += getattr(item, "nbytes", 8)
        return vectors, others, padding


class FrozenTensors:
    """Torch tensors that were handed over, with the version they had; numpy has a flag for it, torch has not."""

    def __init__(self):
        self.versions = {}

    def check(self, tensor):
        """Note a tensor that is handed over, or say that it was written since."""
        known = self.versions.get(id(tensor))
        if known is None:
            key = id(tensor)
            self.versions[key] = weakref.ref(tensor, lambda _: self.versions.pop(key, None)), tensor._version
        elif known[1] != tensor._version:
            raise ValueError("a tensor was written after it had been handed over; make a new one: x = x - γ * g")

    def check_all(self):
        """The same for all that still live."""
        for reference, _ in list(self.versions.values()):
            if (tensor := reference()) is not None:
                self.check(tensor)


class Engine:
    """What all engines have. Each of them has `time`, the modelled one in ns, `at(time, rank, kind, event)`, which lets
    an event happen in the order of law 8, `forget(event)` for one that is cancelled before, `carry(arrival, to, rank,
    send)` for messages, and its own way to `repeat`, `join` and `share`."""

    def __init__(self):
        self.frozen = FrozenTensors()

    def begin(self, computation):
        """A computation begins: its end is known, and returned."""
        node = computation.node
        end = self.time + node.duration(computation.cost, self.time)
        self.at(end, node.rank, computation.kind, computation)
        return end

    def link(self, node, to):
        """A modelled link."""
        return Link(node, to, node.cluster.edge(node.rank, to), node.cluster.lost(node.rank, to))


class Deadlock(RuntimeError):
    """Nothing can happen any more, and no program has returned. The text is a table of who waits where."""

    def __init__(self, nodes, why="nothing can happen any more"):
        rows = [f"rank {node.rank}: {task.where()}: {task.waits_for!r}" for node in nodes for task in node.tasks]
        more = [f"... and {len(rows) - 20} more"] if len(rows) > 20 else []
        super().__init__("\n  ".join([f"deadlock: {why}", *rows[:20], *more]))


def different_graphs(communicator):
    """What engines say of ranks that join different graphs."""
    return f"ranks join different graphs as communicator {communicator.index}; all must give the same one"
