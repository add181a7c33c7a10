"""Gradients of one rank at one point, one after another, until nobody wants them: what `Node.repeat` gives.

A rank far from the pivot of Fragile SGD computes thousands of gradients of which not one is ever used. `Repetition`
makes a computation of each; `DeferredRepetition`, in virtual time, counts when somebody asks and computes them when
their sum is used. What is drawn, added and counted is the same, and in the same order. An objective may offer `at(x)`,
the function ξ -> gradient(x, ξ) that computes but once what gradients at x have in common, and `samples(n)`, what n
calls of `sample()` give, one after another; only virtual time asks.
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

    def __await__(self):
        return iter(() if self.done else (self,))  # as of Send

    def __repr__(self):
        return "repeated compute"


class Deferred:
    """The sum of two deferred vectors, added when its value is needed."""

    __slots__ = ("_value", "left", "nbytes", "right")
    __array_ufunc__ = None  # numpy leaves the operators to this class
    deferred = True

    @property
    def value(self):
        """The vector. Without recursion, for sums can be long."""
        stack = [self]
        while stack:
            top = stack[-1]
            if top._value is None:
                left, right = top.left, top.right
                if left is None:
                    top.compute()
                elif left._value is None:
                    stack.append(left)
                    continue
                elif right._value is None:
                    stack.append(right)
                    continue
                else:
                    top._value = left._value + right._value
                    top.left = top.right = None
            stack.pop()
        return self._value

    def __add__(self, other):
        if not isinstance(other, Deferred):
            return self.value + other
        total = Deferred()
        total.left = self
        total.right = other
        total.nbytes = self.nbytes
        total._value = None
        return total

    def __radd__(self, other):
        return other + self.value

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
    left = right = None  # there are no two vectors, by which `value` knows a Chunk

    def compute(self):
        """All of them, one after another."""
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
                deque(self.next(first.number + len(first.samples) - self.drawn), 0)  # of gradients that nobody wants
                first.samples += self.next((count if first is job else first.taken) - len(first.samples))
                self.drawn = first.number + len(first.samples)

    def next(self, count):
        """So many more, one after another."""
        f = self.f
        return f.samples(count) if hasattr(f, "samples") else (f.sample() for _ in range(count))


class DeferredRepetition:
    """A `Repetition` whose gradients are no events, but for one that somebody waits for."""

    cancelled = False
    function = args = None  # of an event that will be skipped

    def __init__(self, node, stream, x):
        self.node, self.engine, self.stream, self.x, self.nbytes = node, node.engine, stream, x, x.nbytes
        self.number, self.samples = stream.belong_to(self), []  # of the first sample; those that were drawn
        self.rank = node.rank
        self.ended = self.taken = self.told = 0  # gradients; of how many the node knows
        self.gradient = self.waiting = None
        self.began = self.engine.time  # up to here the node knows how long it was busy
        self.steady = getattr(node.duration, "steady", None)  # ns of every gradient, where all are alike
        self.lasts = self.steady or node.duration(1.0, self.began)  # ns of the gradient that runs
        self.ends = self.began + self.lasts
        node.running = self

    def count_ended(self):
        """Count the gradients that have ended by now, by the order of law 8."""
        engine = self.engine
        last = engine.time if engine.front > self.rank else engine.time - 1
        steady = self.steady
        if not steady:
            while self.ends <= last:
                self.next()
        elif self.ends <= last:
            count = 1 + (last - self.ends) // steady
            self.ended += count
            self.ends += count * steady

    def next(self):
        """A gradient has ended and another begun."""
        self.ended += 1
        self.lasts = self.steady or self.node.duration(1.0, self.ends)
        self.ends += self.lasts

    def catch_up(self):
        """Let the node know what has ended by now."""
        self.count_ended()
        node, began = self.node, self.ends - self.lasts
        node.gradients += self.ended - self.told
        node.busy += began - self.began
        self.told, self.began = self.ended, began

    def ready(self):
        """A request that is done as soon as there is something to take."""
        self.count_ended()
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
        self.count_ended()
        first, ended = self.taken, self.ended
        if ended == first:
            return 0, 0
        self.taken = ended
        chunk = Chunk()
        chunk.job = self
        chunk.first = first
        count = chunk.count = ended - first
        chunk.nbytes = self.nbytes
        chunk._value = None
        return count, chunk

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
