"""Gradients of one rank at one point, one after another, until nobody wants them: what `Node.repeat` gives.

A rank far from the pivot of Fragile SGD computes thousands of gradients of which not one is ever used. `Repetition`
makes a computation of each; `DeferredRepetition`, in virtual time, counts when somebody asks and computes them when
their sum is used. What is drawn, added and counted is the same, and in the same order.
"""

import weakref
from collections import deque

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
        request = Ready(self)
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

    def __init__(self, repetition):
        self.done = repetition.count > 0
        self.task = self.value = None

    def __repr__(self):
        return "repeated compute"


class Deferred:
    """The sum of two vectors, one of which or both may be deferred, added when its value is needed."""

    __slots__ = ("_value", "left", "nbytes", "right")
    __array_ufunc__ = None  # numpy leaves the operators to this class
    deferred = True

    def __init__(self, left, right):
        self.left, self.right, self._value = left, right, None
        self.nbytes = max(getattr(left, "nbytes", 0), getattr(right, "nbytes", 0))

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
        return Deferred(self, other)

    def __radd__(self, other):
        return self if type(other) is int and other == 0 else Deferred(other, self)

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
    """The sum of some consecutive gradients of one worker at one point."""

    __slots__ = ("__weakref__", "count", "drawn", "first", "samples", "x")

    def __init__(self, samples, x, first, count):
        self.samples, self.x, self.first, self.count = samples, x, first, count
        self.drawn = self.left = self.right = self._value = None
        self.nbytes = x.nbytes

    def add(self):
        samples, self.samples = self.samples, None
        samples.draw(self)
        total = None
        for ξ in self.drawn:
            g = samples.f.gradient(self.x, ξ)
            total = g if total is None else total + g
        self._value, self.drawn, self.x = total, None, None


class Samples:
    """Which samples of a worker belong to which gradients; drawn in order, as late as possible."""

    def __init__(self, f):
        self.f = f
        self.handed, self.drawn = 0, 0  # samples that gradients have been given, and those that have been drawn
        self.chunks = deque()  # weak references to chunks whose samples are not drawn

    def chunk(self, x, count):
        """The sum of the next `count` gradients, at x."""
        while self.chunks and self.chunks[0]() is None:
            self.chunks.popleft()
        made = Chunk(self, x, self.handed, count)
        self.handed += count
        self.chunks.append(weakref.ref(made))
        return made

    def draw(self, chunk):
        """Draw this chunk's samples, and those of the chunks before it that somebody may still want."""
        while chunk.drawn is None:
            first = self.chunks.popleft()()
            if first is not None:
                for _ in range(first.first - self.drawn):  # of gradients that nobody wants
                    self.f.sample()
                first.drawn = [self.f.sample() for _ in range(first.count)]
                self.drawn = first.first + first.count


class DeferredRepetition:
    """A `Repetition` whose gradients are no events, but for one that somebody waits for."""

    cancelled = False
    function = args = None  # of an event that will be skipped

    def __init__(self, node, samples, x):
        self.node, self.engine, self.samples, self.x = node, node.engine, samples, x
        self.count, self.waiting = 0, None
        self.began = self.engine.time
        self.ends = self.began + node.duration(1.0, self.began)  # when the gradient that runs does
        self.steady = getattr(node.duration, "steady", None)  # ns of every gradient, where all are alike
        node.running = self

    def catch_up(self):
        """Count the gradients that have ended by now, by the order of law 8."""
        engine, node = self.engine, self.node
        last = engine.time if engine.front > node.rank else engine.time - 1
        if last < self.ends:
            return
        since, count = self.began, 1
        if self.steady:
            count += (last - self.ends) // self.steady
            self.began = self.ends + (count - 1) * self.steady
            self.ends = self.began + self.steady
        else:
            self.next()
            while self.ends <= last:
                self.next()
                count += 1
        self.book(count, since)

    def next(self):
        """A gradient has ended and another begun."""
        self.began, self.ends = self.ends, self.ends + self.node.duration(1.0, self.ends)

    def book(self, count, since):
        """So many gradients have been computed from `since` to the one that runs."""
        self.count += count
        self.node.gradients += count
        self.node.busy += self.began - since

    def ready(self):
        """A request that is done as soon as there is something to take."""
        self.catch_up()
        request = Ready(self)
        if not request.done:
            if self.waiting is None:
                self.engine.at(self.ends, self.node.rank, REPEATED, self)
            self.waiting = request
        return request

    def happen(self):
        """The gradient that somebody waits for has ended."""
        since = self.began
        self.next()
        self.book(1, since)
        waiting, self.waiting = self.waiting, None
        waiting.finish()

    def take(self):
        """(number of gradients that have ended since the last time, their sum), 0 and 0 if there are none."""
        self.catch_up()
        count, self.count = self.count, 0
        return (count, self.samples.chunk(self.x, count)) if count else (0, 0)

    def cancel(self):
        """Stop the gradient under way, and begin no other."""
        if self.cancelled:
            return
        self.catch_up()
        self.samples.handed += self.count + 1
        node = self.node
        node.stopped += 1
        node.end(self, STOPPED, 0)
        self.cancelled = True
        if self.waiting is not None:
            self.waiting = None
            self.engine.forget(self)
