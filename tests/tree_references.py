"""Independent references for the methods on spanning trees: plain Python and scalars, for fixed seconds per gradient.

They follow the pseudocode of the papers and share nothing with mpibench. `Ranks` is a model of its own of ranks that
compute and of the links between them; a method is a class that says what a rank does when a message arrives and when a
gradient is finished. Trees are lists of parents, None of the pivot. Seconds are floats: exact binary fractions do not
round, so that ties are ties. Ranks are 0, 1, ..., and rank r draws the samples of worker r + 1.
"""

import math
from collections import defaultdict
from fractions import Fraction
from heapq import heappop, heappush

LINK, END = 1 << 20, 1 << 21  # kinds of events after arrivals, whose kind is their source


class Ranks:
    """Ranks with one computation at a time, and directed edges that carry one message at a time, first in, first out.

    seconds   of a gradient of rank 0, 1, ...
    edges     (source, to) -> seconds that a vector takes; numbers take none, but wait for their turn
    gradient  (point, worker, number) -> what job `number` = 0, 1, ... of worker 1, 2, ... gives at that point
    """

    def __init__(self, seconds, edges, gradient):
        self.n, self.seconds, self.edges, self.gradient = len(seconds), seconds, edges, gradient
        self.now, self.age, self.events = 0.0, 0, []
        self.begun = [0] * self.n  # jobs, each of which draws a sample
        self.finished, self.stopped = [0] * self.n, [0] * self.n
        self.running = [None] * self.n  # number of a rank's job
        self.free_at, self.waiting = defaultdict(float), defaultdict(list)  # by edge
        self.departures = []  # (seconds, edge, handler's name, body)

    def at(self, time, rank, kind, happen, *args):
        """In the order of time, rank, kind and age."""
        self.age += 1
        heappush(self.events, (time, rank, kind, self.age, happen, args))

    def send(self, source, to, handler, body, vector=True, newest_only=False, left=None):
        """`handler(to, source, *body)` is called when the message arrives, and `left()` when the link is free again."""
        edge = source, to
        message = [handler, body, vector, left]
        if self.free_at[edge] <= self.now and not self.waiting[edge]:
            self.depart(edge, message)
            return
        for older in self.waiting[edge]:
            if newest_only and older[0] == handler:
                older[1] = body
                return
        self.waiting[edge].append(message)

    def depart(self, edge, message):
        source, to = edge
        handler, body, vector, left = message
        self.departures.append((self.now, edge, handler.__name__, body))
        busy = self.edges[edge] if vector else 0.0
        self.free_at[edge] = self.now + busy
        self.at(self.free_at[edge], to, source, handler, to, source, *body)
        if busy:
            self.at(self.free_at[edge], source, LINK, self.free, edge, left)
        else:
            if self.waiting[edge]:
                self.at(self.now, source, LINK, self.free, edge, None)
            if left:
                left()

    def free(self, edge, left):
        """First the messages that wait have the link, then who waited for it may send more."""
        if self.waiting[edge] and self.free_at[edge] <= self.now:
            self.depart(edge, self.waiting[edge].pop(0))
        if left:
            left()

    def begin(self, i, ended):
        """Rank i computes; `ended(i, number of the job)` is called at the end."""
        number = self.running[i] = self.begun[i]
        self.begun[i] += 1
        self.at(self.now + self.seconds[i], i, END, self.end, i, number, ended)

    def end(self, i, number, ended):
        if self.running[i] == number:
            self.finished[i] += 1
            self.running[i] = None
            ended(i, number)

    def stop(self, i):
        """A job that would end at this very instant is stopped, too."""
        if self.running[i] is not None:
            self.stopped[i] += 1
            self.running[i] = None


class OnTrees:
    """What the methods have in common: points travel down one tree, and the pivot makes `updates` updates.

    `rows` are (seconds, gradients, ranks that made them, point) of every update, `messages` is how many messages had
    left until then; `discarded` is by the rank that drops, and like the counters of `ranks` it stands as at the end.
    """

    def __init__(self, ranks, down, up, x, stepsize, updates):
        self.ranks, self.x, self.stepsize, self.updates = ranks, x, stepsize, updates
        self.pivot, self.next = down.index(None), up  # the pivot, and whom each rank sends its sums to
        assert up.index(None) == self.pivot
        everybody = range(ranks.n)
        self.below = [[j for j in everybody if down[j] == i] for i in everybody]
        self.above = [[j for j in everybody if up[j] == i] for i in everybody]  # who sends sums to rank i
        self.k, self.u = 0, x
        self.held = [(-1, None)] * ranks.n  # (version, point) that a rank computes at
        self.rows, self.messages, self.discarded = [], [], [0] * ranks.n

    def run(self):
        self.point(self.pivot, None, 0, self.x)
        while len(self.rows) < self.updates:
            self.ranks.now, _, _, _, happen, args = heappop(self.ranks.events)
            happen(*args)
        return self

    def forward(self, i, k, x):
        for child in self.below[i]:
            self.ranks.send(i, child, self.point, (k, x), newest_only=True)

    def gradient(self, i, number):
        return self.ranks.gradient(self.held[i][1], i + 1, number)

    def updated(self, g, gradients, ranks):
        """One step along g, and on to the next point unless this was the last."""
        asked_at = self.step(g)
        self.k += 1
        self.rows.append((self.ranks.now, gradients, ranks, self.x))
        self.messages.append(len(self.ranks.departures))
        if len(self.rows) < self.updates:
            self.point(self.pivot, None, self.k, asked_at)

    def step(self, g):
        """Returns the point at which the next gradients are computed."""
        self.x = self.x - self.stepsize * g
        return self.x


NOTHING = 0.0, 0, frozenset()  # vector, gradients, the ranks that made them


class Fragile(OnTrees):
    """Gradients at x^k until there are `batch` at the pivot; sums travel up, and grow while they wait for the link."""

    goes_on = True

    def __init__(self, *same, batch):
        super().__init__(*same)
        self.batch = batch
        self.newest = [-1] * self.ranks.n  # version of a rank's sum
        self.sum = [NOTHING] * self.ranks.n  # what waits for the link
        self.total = NOTHING  # what process 0 has
        self.sending = [False] * self.ranks.n

    def point(self, i, source, k, x):
        self.forward(i, k, x)
        self.ranks.stop(i)
        if k < self.newest[i]:  # nobody wants gradients at this point, nor at the one before
            return
        self.renew(i, k)
        self.held[i] = k, x
        self.ranks.begin(i, self.ended)

    def renew(self, i, k):
        """Rank i hears of version k."""
        if k > self.newest[i]:
            self.discarded[i] += self.sum[i][1]
            self.newest[i], self.sum[i] = k, NOTHING

    def ended(self, i, number):
        (k, _), g = self.held[i], self.gradient(i, number)
        if self.goes_on:  # before it is known whether this gradient ends the step
            self.ranks.begin(i, self.ended)
        self.add(i, None, k, g, 1, {i})

    def add(self, i, source, k, vector, gradients, makers):
        """A sum arrives at rank i, or its own gradient."""
        self.renew(i, k)
        if k < self.newest[i]:
            self.discarded[i] += gradients
            return
        if i == self.pivot:
            # process 0 on the same rank hears of it in the order of arrivals, the pivot being their source
            self.ranks.at(self.ranks.now, i, i, self.heard, k, vector, gradients, makers)
            return
        v, c, who = self.sum[i]
        self.sum[i] = v + vector, c + gradients, who | makers
        self.offer(i)

    def heard(self, k, vector, gradients, makers):
        """Process 0."""
        if k < self.k:
            self.discarded[self.pivot] += gradients
            return
        v, c, who = self.total
        self.total = v, c, who = v + vector, c + gradients, who | makers
        if c >= self.batch:
            self.total = NOTHING
            self.updated(v / c, c, len(who))

    def offer(self, i):
        """The sum leaves if it is not empty and the one before has left."""
        if self.sum[i][1] and not self.sending[i]:
            body, self.sum[i] = (self.newest[i], *self.sum[i]), NOTHING
            self.sending[i] = True
            self.ranks.send(i, self.next[i], self.add, body, left=lambda: self.left(i))

    def left(self, i):
        self.sending[i] = False
        self.offer(i)


class FragileAccelerated(Fragile):
    """Steps of u that grow, from points between x and u."""

    def step(self, g):
        alpha = 2 / (self.k + 2)
        self.u = self.u - self.stepsize * (self.k + 1) * g
        self.x = (1 - alpha) * self.x + alpha * self.u
        following = 2 / (self.k + 3)
        return (1 - following) * self.x + following * self.u


class TreeMinibatchEager(Fragile):
    """The processes of Fragile with one gradient a rank and step."""

    goes_on = False

    def __init__(self, *same):
        super().__init__(*same, batch=same[0].n)


class TreeMinibatch(OnTrees):
    """A rank waits for the sums of all its children, and sends one sum."""

    def __init__(self, *same):
        super().__init__(*same)
        self.parts = [{} for _ in range(self.ranks.n)]

    def point(self, i, source, k, x):
        self.forward(i, k, x)
        self.held[i] = k, x
        self.ranks.begin(i, self.ended)

    def ended(self, i, number):
        self.add(i, i, self.gradient(i, number), 1)

    def add(self, i, source, vector, gradients):
        self.parts[i][source] = vector, gradients
        if len(self.parts[i]) <= len(self.above[i]):
            return
        parts, self.parts[i] = self.parts[i], {}
        vectors, counts = zip(*(parts[j] for j in [i, *self.above[i]]), strict=True)
        if i == self.pivot:
            self.updated(sum(vectors) / sum(counts), sum(counts), sum(counts))
        else:
            self.ranks.send(i, self.next[i], self.add, (sum(vectors), sum(counts)))


class Amelie(OnTrees):
    """Counters travel up until the pivot knows of enough gradients of everybody; then all stop, and one mean a rank is
    added up."""

    def __init__(self, *same, batch):
        super().__init__(*same)
        self.batch, n = batch, self.ranks.n
        self.sum, self.count = [0.0] * n, [0] * n  # of a rank's gradients at its point
        self.counters = [{} for _ in range(n)]  # (version, counter) of each child
        self.shown = [None] * n  # the last counter that a rank has sent
        self.sending, self.frozen = [False] * n, [False] * n
        self.parts = [{} for _ in range(n)]

    def point(self, i, source, k, x):
        self.forward(i, k, x)
        self.held[i] = k, x
        self.sum[i], self.count[i], self.frozen[i], self.shown[i] = 0.0, 0, False, None
        self.ranks.begin(i, self.ended)

    def ended(self, i, number):
        self.sum[i] += self.gradient(i, number)
        self.count[i] += 1
        self.ranks.begin(i, self.ended)  # before it is known whether this gradient ends the step
        self.changed(i)

    def counter(self, i, source, k, b):
        self.counters[i][source] = k, b
        self.changed(i)

    def known(self, i):
        """1/s_i and the children's counters of this version; infinite while anything is missing."""
        k, b = self.held[i][0], Fraction(1, self.count[i]) if self.count[i] else math.inf
        for child in self.above[i]:
            version, more = self.counters[i].get(child, (None, math.inf))
            b += more if version == k else math.inf
        return b

    def changed(self, i):
        b = self.known(i)
        if self.frozen[i] or b == math.inf:
            return
        if i == self.pivot:
            if self.ranks.n**2 >= self.batch * b:
                self.freeze(i, None)
        elif not self.sending[i] and b != self.shown[i]:
            self.shown[i] = b
            self.sending[i] = True
            self.ranks.send(
                i, self.next[i], self.counter, (self.held[i][0], b), vector=False, left=lambda: self.left(i)
            )

    def left(self, i):
        self.sending[i] = False
        self.changed(i)

    def freeze(self, i, source):
        for child in self.below[i]:
            self.ranks.send(i, child, self.freeze, (), vector=False)
        self.ranks.stop(i)
        self.frozen[i] = True
        self.add(i, i, self.sum[i] / self.count[i], self.count[i])

    def add(self, i, source, vector, gradients):
        self.parts[i][source] = vector, gradients
        if len(self.parts[i]) <= len(self.above[i]):
            return
        parts, self.parts[i] = self.parts[i], {}
        vectors, counts = zip(*(parts[j] for j in [i, *self.above[i]]), strict=True)
        if i == self.pivot:
            self.updated(sum(vectors) / self.ranks.n, sum(counts), self.ranks.n)
        else:
            self.ranks.send(i, self.next[i], self.add, (sum(vectors), sum(counts)))


METHODS = {
    "fragile": Fragile,
    "fragile_accelerated": FragileAccelerated,
    "tree_minibatch": TreeMinibatch,
    "tree_minibatch_eager": TreeMinibatchEager,
    "amelie": Amelie,
}


# Trees and pivots.


def distances(n, edges):
    """[i][j]: seconds of the shortest path from i to j (Floyd, Warshall)."""
    ways = [[0 if i == j else edges.get((i, j), math.inf) for j in range(n)] for i in range(n)]
    for via in range(n):
        for i in range(n):
            for j in range(n):
                ways[i][j] = min(ways[i][j], ways[i][via] + ways[via][j])
    return ways


def trees(n, edges, pivot):
    """(parents down, parents up) on shortest paths from the pivot and to it; among equal paths the lowest-numbered
    parent. Edges take time."""
    ways = distances(n, edges)
    down, up = [None] * n, [None] * n
    for i in range(n):
        if i != pivot:
            down[i] = min(p for p in range(n) if (p, i) in edges and ways[pivot][p] + edges[p, i] == ways[pivot][i])
            up[i] = min(p for p in range(n) if (i, p) in edges and edges[i, p] + ways[p][pivot] == ways[i][pivot])
    return down, up


def centre(n, edges):
    """The rank whose longest way there and back is shortest; the lowest-numbered of several."""
    ways = distances(n, edges)
    return min(range(n), key=lambda j: (max(ways[i][j] + ways[j][i] for i in range(n)), j))


def least_time(n, edges, seconds, noise_ratio):
    """The rank j with the least min_k max{max(tb_k, h_k), s / sum_{i <= k} 1/h_i}, tb_i the way from j to i and back,
    ranks sorted by max(tb_i, h_i); the lowest-numbered of several."""
    ways = distances(n, edges)

    def time(j):
        reached = sorted((max(ways[i][j] + ways[j][i], h), h) for i, h in enumerate(seconds))
        rates = [sum(1 / Fraction(h) for _, h in reached[: k + 1]) for k in range(n)]
        return min(max(Fraction(first), noise_ratio / rate) for (first, _), rate in zip(reached, rates, strict=True))

    return min(range(n), key=lambda j: (time(j), j))
