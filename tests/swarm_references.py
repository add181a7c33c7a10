"""Independent references for SwarmSGD in full precision: plain Python and scalars, for fixed seconds per gradient.

They follow the pseudocode of the paper and share nothing with mpibench. Seconds are floats: exact binary fractions do
not round, so that ties are ties. Ranks are 0, 1, ..., and `gradient(point, r + 1, number)` is what job `number` of rank
r gives. `random[r]` is its numpy Generator, from which it takes, in this order, the number of its local steps, where
that is random, and its partner. Rows are (seconds, rank, model) of every update.
"""

import math
from collections import Counter, defaultdict
from heapq import heappop, heappush

import numpy

LINK, END = 1 << 20, 1 << 21  # kinds of events after arrivals, whose kind is their source
METHOD = 7  # the purpose of a rank's own randomness


def generators(n, seed=0):
    """What each of n ranks draws from."""
    return [numpy.random.default_rng(numpy.random.SeedSequence([seed, METHOD, r + 1])) for r in range(n)]


def complete(n):
    """Neighbours of each of n ranks."""
    return [[j for j in range(n) if j != i] for i in range(n)]


class Local:
    """The local steps of all ranks."""

    def __init__(self, seconds, neighbours, random, x, stepsize, steps, geometric, gradient):
        self.seconds, self.neighbours, self.random = seconds, neighbours, random
        self.stepsize, self.steps, self.geometric, self.gradient = stepsize, steps, geometric, gradient
        self.X = [x] * len(seconds)
        self.jobs = [0] * len(seconds)

    def draw(self, i):
        return int(self.random[i].geometric(1 / self.steps)) if self.geometric else self.steps

    def step(self, i, y):
        self.jobs[i] += 1
        return y - self.stepsize * self.gradient(y, i + 1, self.jobs[i] - 1)

    def partner(self, i):
        return self.neighbours[i][self.random[i].integers(len(self.neighbours[i]))]


def non_blocking(local, busy, latency, updates):
    """Rows until a rank has made so many updates; busy and latency: (i, j) -> seconds of a model on the link, and after
    it."""
    events, age, now = [], 0, 0.0
    X, n = local.X, len(local.X)
    anchor, live, left = list(X), list(X), [local.draw(i) for i in range(n)]
    sent, delta = [None] * n, [None] * n
    free_at, waiting = defaultdict(float), defaultdict(list)
    rows, count = [], Counter()

    def at(time, rank, kind, what):
        nonlocal age
        age += 1
        heappush(events, (time, rank, kind, age, what))

    def depart(i, j, message):
        free_at[i, j] = now + busy[i, j]
        at(free_at[i, j] + latency[i, j], j, i, message)

    def send(i, j, message):
        if free_at[i, j] <= now and not waiting[i, j]:
            depart(i, j, message)
        else:
            waiting[i, j].append(message)
            if len(waiting[i, j]) == 1:
                at(free_at[i, j], i, LINK, j)

    def update(i, x):
        X[i] = x
        rows.append((now, i, x))
        count[i] += 1
        return count[i] == updates

    for i in range(n):
        at(local.seconds[i], i, END, None)
    while True:
        now, i, kind, _, what = heappop(events)
        if kind == LINK:
            depart(i, what, waiting[i, what].pop(0))
            if waiting[i, what]:
                at(free_at[i, what], i, LINK, what)
        elif kind == END:
            live[i], left[i] = local.step(i, live[i]), left[i] - 1
            if left[i]:
                at(now + local.seconds[i], i, END, None)
            else:
                delta[i], sent[i] = anchor[i] - live[i], X[i]
                send(i, local.partner(i), ("ask", X[i]))
        elif what[0] == "ask":
            send(i, kind, ("answer", X[i]))
            if update(i, X[i] + (what[1] - X[i]) / 2):
                return rows
        else:
            if update(i, X[i] + ((what[1] - sent[i]) / 2 - delta[i])):
                return rows
            anchor[i] = live[i] = X[i]
            left[i] = local.draw(i)
            at(now + local.seconds[i], i, END, None)


def blocking(local, pairs, dither=0):
    """(rows, messages by tag) of so many pairs on links that take no time, if no two ranks are ready at one instant.
    dither: how many random numbers a caller and who answers draw for the rounding of a model."""
    n = len(local.X)
    events, wishes, idle = [], [[] for _ in range(n)], set()
    rows, messages = [], Counter()

    def begin(i, now):
        heappush(events, (now + local.seconds[i], i, local.draw(i), local.X[i]))

    def call(caller):
        messages["CALL"] += 1
        local.random[caller].random(dither)

    def pair(caller, called, now):
        messages["ANSWER"] += 1
        local.random[called].random(dither)
        mean = (local.X[called] + local.X[caller]) / 2
        for i, j in ((called, caller), (caller, called)):
            local.X[i] = mean
            rows.append((now, i, mean))
            idle.discard(i)
            wishes[i] = [wish for wish in wishes[i] if wish != j]
        for i in (called, caller):
            begin(i, now)

    for i in range(n):
        begin(i, 0.0)
    while messages["ANSWER"] < pairs:
        now, i, left, y = heappop(events)
        y = local.step(i, y)
        if left > 1:
            heappush(events, (now + local.seconds[i], i, left - 1, y))
            continue
        local.X[i] = y
        while wishes[i]:
            j = wishes[i].pop(0)
            call(i)
            if j in idle:
                pair(i, j, now)
                break
            messages["BUSY"] += 1
        else:
            j = local.partner(i)
            messages["WISH"] += 1
            if j in idle:
                call(j)
                pair(j, i, now)
            else:
                idle.add(i)
                if i not in wishes[j]:
                    wishes[j].append(i)
    return rows, messages


def messages(pairs, steps, dither=0):
    """Messages by tag that so many pairs take in the run of `test_algorithms.py` that counts them."""
    seconds = [math.sqrt(p) for p in (2, 3, 5, 67)]
    local = Local(seconds, complete(4), generators(4), 0.0, 0.1, steps, False, lambda *_: 0.0)
    return blocking(local, pairs, dither)[1]
