"""Gradients of one rank at one point, one after another, until nobody wants them: what `Node.repeat` gives.

A rank far from the pivot of Fragile SGD computes thousands of gradients of which not one is ever used. `Repetition`
makes a computation of each; `DeferredRepetition`, in virtual time, counts when somebody asks and computes them when
their sum is used. What is drawn, added and counted is the same, and in the same order. An objective may offer `at(x)`,
the function ξ -> gradient(x, ξ) that computes but once what gradients at x have in common; only virtual time asks.
"""

import weakref
from collections import deque
from functools import partial

from mpibench.node import ENDS, STOPPED, Request, Timer

REPEATED = ENDS + 1  # kind of the end of a repeated gradient, which the hash of events leaves out


class RepeatedTimer(Timer):
    """One of many computations of which only some are waited for."""

    __slots__ = ()
    kind = REPEATED


class Repetition:
    """Gradients of f at x, each of them a computation."""

    def __init__(self, node, f, x):
        self.node, self.f, self.x = node, f, x
        self.count, self.sum, self.waiting = 0, None, None
        self.work = node.start(self.compute())

    async def compute(self):
        while True:
            node = self.node
            request = RepeatedTimer(node, self.f.gradient, (self.x, self.f.sample()), 1.0)
            node.begin(request)
            g = await request
            self.sum = self.sum + g if self.count else g
            self.count += 1
            if self.waiting is not None:
                waiting, self.waiting = self.waiting, None
                waiting.finish()

    def ready(self):
        """A request that is done as soon as there is something to take."""
        request = Ready(self.count > 0)
        if not request.done:
            self.waiting = request
        return request

    def take(self):
        """(number of gradients that have ended since the last time, their sum), 0 and 0 if there are none."""
        count, total = self.count, self.sum
        self.count, self.sum = 0, None
        return (count, total) if count else (0, 0)

    def cancel(self):
        """Stop the gradient under way, and begin no other."""
        self.work.cancel()
        self.waiting = None


class Ready(Request):
    """Somebody waits for a repeated gradient."""

    __slots__ = ()

    def __init__(self, done):
        self.done = done
        self.task = self.value = None

    def __repr__(self):
        return "repeated compute"


class Deferred:
    """The sum of two vectors, one of which or both may be deferred, added when its value is needed."""

    __slots__ = ("_value", "left", "nbytes", "right")
    __array_ufunc__ = None  # numpy leaves the operators to this class
    deferred = True

    def __init__(self, left, right, nbytes):
        self.left, self.right, self.nbytes, self._value = left, right, nbytes, None

    @property
    def value(self):
        """The vector. Without recursion, for sums can be long."""
        stack = [self]
        while stack:
            top = stack[-1]
            if top._value is None:
                open_ = [each for each in (top.left, top.right) if getattr(each, "_value", self) is None]
                if open_:
                    stack.extend(open_)
                    continue
                top.add()
            stack.pop()
        return self._value

    def add(self):
        """Both are known."""
        self._value = settled(self.left) + settled(self.right)
        self.left = self.right = None

    def __add__(self, other):
        return Deferred(self, other, self.nbytes)

    def __radd__(self, other):
        return self if type(other) is int and other == 0 else Deferred(other, self, self.nbytes)

    def __sub__(self, other):
        return self.value - settled(other)

    def __rsub__(self, other):
        return settled(other) - self.value

    def __mul__(self, factor):
        return self.value * factor

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        return self.value / divisor

    def __matmul__(self, other):
        return self.value @ settled(other)

    def __rmatmul__(self, other):
        return settled(other) @ self.value


def settled(vector):
    """The vector itself."""
    return vector.value if isinstance(vector, Deferred) else vector


class Chunk(Deferred):
    """The sum of some consecutive gradients of a DeferredRepetition."""

    __slots__ = ("count", "first", "job")

    def __init__(self, job, first, count):
        self.job, self.first, self.count, self.nbytes = job, first, count, job.nbytes
        self.left = self.right = self._value = None

    def add(self):
        gradients = self.job.gradients(self.first, self.count)
        self.job, total = None, next(gradients)
        for g in gradients:
            total = total + g
        self._value = total


class Samples:
    """The samples of a worker, drawn in the order of its gradients, as late as possible."""

    def __init__(self, f):
        self.f = f
        self.handed = self.drawn = 0  # samples of repetitions that are over, and those that were drawn
        self.jobs = deque()  # weak references to repetitions, the first of which has samples that are not drawn

    def belong_to(self, job):
        """The next ones are those of this repetition."""
        while self.jobs and self.jobs[0]() is None:
            self.jobs.popleft()
        self.jobs.append(weakref.ref(job))
        return self.handed

    def draw(self, job, count):
        """Draw as many for this repetition, and before them those of earlier ones that somebody may still want."""
        while len(job.samples) < count:
            first = self.jobs[0]()
            if first is not job:
                self.jobs.popleft()
            if first is not None:
                for _ in range(first.number + len(first.samples) - self.drawn):  # of gradients that nobody wants
                    self.f.sample()
                more = (count if first is job else first.taken) - len(first.samples)
                first.samples += [self.f.sample() for _ in range(more)]
                self.drawn = first.number + len(first.samples)


class DeferredRepetition:
    """A `Repetition` whose gradients are no events, but for one that somebody waits for."""

    cancelled = False
    function = args = None  # of an event that will be skipped

    def __init__(self, node, stream, x):
        self.node, self.engine, self.stream, self.x, self.nbytes = node, node.engine, stream, x, x.nbytes
        self.number, self.samples = stream.belong_to(self), []  # of the first sample; those that were drawn
        self.ended = self.taken = 0  # gradients
        self.gradient = self.waiting = None
        self.began = self.engine.time
        self.ends = self.began + node.duration(1.0, self.began)  # when the gradient that runs does
        self.steady = getattr(node.duration, "steady", None)  # ns of every gradient, where all are alike
        node.running = self

    def catch_up(self):
        """Count the gradients that have ended by now, by the order of law 8."""
        engine, node, steady = self.engine, self.node, self.steady
        last = engine.time if engine.front > node.rank else engine.time - 1
        if last < self.ends:
            return
        if not steady:
            while self.ends <= last:
                self.next()
            return
        count = 1 + (last - self.ends) // steady
        self.ended += count
        node.gradients += count
        node.busy += count * steady
        self.began += count * steady
        self.ends = self.began + steady

    def next(self):
        """A gradient has ended and another begun."""
        node, began = self.node, self.ends
        self.ended += 1
        node.gradients += 1
        node.busy += began - self.began
        self.began, self.ends = began, began + node.duration(1.0, began)

    def ready(self):
        """A request that is done as soon as there is something to take."""
        self.catch_up()
        request = Ready(self.ended > self.taken)
        if not request.done:
            if self.waiting is None:
                self.engine.at(self.ends, self.node.rank, REPEATED, self)
            self.waiting = request
        return request

    def happen(self):
        """The gradient that somebody waits for has ended."""
        self.next()
        waiting, self.waiting = self.waiting, None
        waiting.finish()

    def take(self):
        """(number of gradients that have ended since the last time, their sum), 0 and 0 if there are none."""
        self.catch_up()
        first, self.taken = self.taken, self.ended
        return (self.taken - first, Chunk(self, first, self.taken - first)) if self.taken > first else (0, 0)

    def gradients(self, first, count):
        """These gradients one after another, each asked for once."""
        f, last = self.stream.f, first + count
        self.stream.draw(self, last)
        if self.gradient is None:
            self.gradient = f.at(self.x) if hasattr(f, "at") else partial(f.gradient, self.x)
        drawn, self.samples[first:last] = self.samples[first:last], [None] * count
        return map(self.gradient, drawn)

    def cancel(self):
        """Stop the gradient under way, and begin no other."""
        if self.cancelled:
            return
        self.catch_up()
        self.stream.handed += self.ended + 1
        self.cancelled = True
        node = self.node
        node.stopped += 1
        node.end(self, STOPPED, 0)
        if self.waiting is not None:
            self.waiting = None
            self.engine.forget(self)
