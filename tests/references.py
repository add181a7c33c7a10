"""Independent references for the server methods: plain Python and scalars, for fixed seconds per gradient.

They follow the pseudocode of the papers and share nothing with mpibench. `Crew` is a model of its own of workers and
their links; each method is a function that plays the server of a crew, or, where a step ends when everybody has done
his share, a loop over steps. Seconds are floats: exact binary fractions do not round, so that ties are ties. Workers
are 1..n, the server is 0. Every function returns a `Trace`.
"""

import math
from collections import defaultdict
from fractions import Fraction
from heapq import heappop, heappush

LINK, END = 1 << 20, 1 << 21  # kinds of events after arrivals, whose kind is their source


class Crew:
    """Workers that compute at the points they are given, and links that carry one vector at a time.

    seconds   of a job of worker 1, 2, ...
    gradient  (point, i, number) -> what job `number` = 0, 1, ... of worker i gives at that point
    goes_on   false: after a gradient a worker waits for the server's answer. true: it goes on at its point until a
              newer one arrives, which stops the running job; of points that wait for the link only the newest is kept
    up, down  seconds that a vector takes to the server and to a worker
    """

    def __init__(self, seconds, gradient, goes_on=False, up=0.0, down=0.0):
        self.n = len(seconds)
        self.seconds = dict(enumerate(seconds, 1))
        self.gradient, self.goes_on, self.up, self.down = gradient, goes_on, up, down
        self.now, self.age, self.events = 0.0, 0, []
        self.held = {}  # worker -> (version, point)
        self.begun = dict.fromkeys(self.seconds, 0)  # jobs, each of which draws a sample
        self.running = {}  # worker -> number of its job
        self.finished = [0] * (self.n + 1)  # by rank, like `messages`
        self.messages = [0] * (self.n + 1)
        self.free_at, self.waiting = defaultdict(float), defaultdict(list)  # by (source, destination)

    def at(self, time, rank, kind, what):
        """In the order of time, rank, kind and age."""
        self.age += 1
        heappush(self.events, (time, rank, kind, self.age, what))

    def give(self, i, version, point):
        """The server sends a point."""
        self.send(0, i, (version, point))

    def go_on(self, i):
        """The server lets a worker go on at the point it holds; this takes no time."""
        self.send(0, i, None)

    def send(self, source, to, body):
        edge = source, to
        if self.free_at[edge] <= self.now and not self.waiting[edge]:
            self.depart(edge, body)
        elif self.waiting[edge] and source == 0:
            self.waiting[edge] = [body]
        else:
            self.waiting[edge].append(body)
            if len(self.waiting[edge]) == 1:
                self.at(self.free_at[edge], source, LINK, edge)

    def depart(self, edge, body):
        source, to = edge
        self.messages[source] += 1
        self.free_at[edge] = self.now + (0.0 if body is None else self.up if to == 0 else self.down)
        self.at(self.free_at[edge], to, source, body)

    def begin(self, i):
        self.running[i] = self.begun[i]
        self.begun[i] += 1
        self.at(self.now + self.seconds[i], i, END, self.running[i])

    def __iter__(self):
        """(worker, version, gradient) of what arrives at the server, as it arrives."""
        while True:
            self.now, rank, kind, _, what = heappop(self.events)
            if kind == LINK:
                self.depart(what, self.waiting[what].pop(0))
                if self.waiting[what]:
                    self.at(self.free_at[what], rank, LINK, what)
            elif kind == END:
                if self.running[rank] == what:
                    version, point = self.held[rank]
                    self.finished[rank] += 1
                    self.running[rank] = None
                    self.send(rank, 0, (version, self.gradient(point, rank, what)))
                    if self.goes_on:
                        self.begin(rank)
            elif rank == 0:
                yield kind, *what
            else:
                if what is not None:
                    self.held[rank] = what
                self.begin(rank)


class Trace:
    """What a run of `n` workers leaves. Lists are by rank, 0 is the server.

    rows       (seconds, source, staleness, point) of every update
    used, discarded, gradients, messages  gradients by what became of them, gradients finished, messages sent; the
               server's when the last update is made, which `answers` more may follow
    """

    def __init__(self, n, updates):
        self.n, self.updates = n, updates
        self.rows, self.used, self.discarded = [], [0] * (n + 1), [0] * (n + 1)
        self.gradients = self.messages = None
        self.answers = 0

    def update(self, *row):
        """Whether this was the last."""
        self.rows.append(row)
        return len(self.rows) == self.updates

    def end(self, crew, answers):
        self.gradients, self.messages, self.answers = crew.finished, crew.messages, answers
        return self


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# Methods whose workers report gradient by gradient.


def m_sync_sgd(crew, x, stepsize, updates, quorum, stop_stale=False):
    """The first `quorum` of n gradients at x^k make an update. Each worker does one job a step, so the crew never goes
    on; with stops the next point goes to all."""
    trace, k, found = Trace(crew.n, updates), 0, {}
    for i in crew.seconds:
        crew.give(i, k, x)
    for i, version, g in crew:
        if version < k:
            trace.discarded[i] += 1
            if not stop_stale:
                crew.give(i, k, x)
            continue
        trace.used[i] += 1
        found[i] = g
        if len(found) < quorum:
            continue
        x = x - stepsize * mean(found[j] for j in sorted(found))
        k += 1
        answered = list(crew.seconds) if stop_stale else list(found)
        if trace.update(crew.now, i, 0, x):
            return trace.end(crew, len(answered))
        for j in answered:
            crew.give(j, k, x)
        found = {}


def collect(crew, x, stepsize, updates, enough, estimate):
    """Rennala and Malenia: gradients at x^k are collected until `enough(counts)`; sums and counts are by worker."""
    trace, k = Trace(crew.n, updates), 0
    sums, counts = dict.fromkeys(crew.seconds, 0.0), dict.fromkeys(crew.seconds, 0)
    for i in crew.seconds:
        crew.give(i, k, x)
    for i, version, g in crew:
        if version == k:
            trace.used[i] += 1
            sums[i] += g
            counts[i] += 1
        else:
            trace.discarded[i] += 1
        if version == k and enough(counts):
            x = x - stepsize * estimate(sums, counts)
            k += 1
            sums, counts = dict.fromkeys(crew.seconds, 0.0), dict.fromkeys(crew.seconds, 0)
            if trace.update(crew.now, i, 0, x):
                return trace.end(crew, crew.n if crew.goes_on else 1)
            if crew.goes_on:
                for j in crew.seconds:
                    crew.give(j, k, x)
        if not crew.goes_on:
            if version == k:
                crew.go_on(i)
            else:
                crew.give(i, k, x)


def rennala(crew, x, stepsize, updates, batch):
    """`batch` gradients at x^k, whoever made them."""

    def enough(counts):
        return sum(counts.values()) >= batch

    def estimate(sums, counts):
        return sum(sums.values()) / batch

    return collect(crew, x, stepsize, updates, enough, estimate)


def malenia(crew, x, stepsize, updates, batch):
    """n / sum(1/B_i) >= S/n, in exact fractions; the mean over workers of their means."""

    def enough(counts):
        return all(counts.values()) and crew.n**2 >= batch * sum(Fraction(1, b) for b in counts.values())

    def estimate(sums, counts):
        return mean(sums[i] / counts[i] for i in sums)

    return collect(crew, x, stepsize, updates, enough, estimate)


def malenia_parameter_free(crew, x, stepsize, updates):
    """One gradient of every worker is enough; what else there is counts."""
    return malenia(crew, x, stepsize, updates, batch=1)


def ringleader(crew, x, stepsize, updates):
    """Rounds of two phases. A row of a table is [version, sum, count]."""
    trace, k, table = Trace(crew.n, updates), 0, {}
    for i in crew.seconds:
        crew.give(i, k, x)
    arrivals = iter(crew)

    def report(rows, i, version, g):
        row = rows.setdefault(i, [version, 0.0, 0])
        assert row[0] == version, "all gradients of a row are at one point"
        row[1] += g
        row[2] += 1

    while True:
        following, done = {}, set()
        for i, (_, _, count) in table.items():  # carried over: they are used from now on
            trace.used[i] += count
        while len(table) < crew.n:  # phase 1: there is a row for everybody when it ends
            i, *gradient = next(arrivals)
            report(table, i, *gradient)
            trace.used[i] += 1
            if len(table) < crew.n:
                crew.go_on(i)
        while True:  # phase 2: n updates, one for each worker; the first answers who ended phase 1
            x = x - stepsize * mean(table[j][1] / table[j][2] for j in crew.seconds)
            if trace.update(crew.now, i, max(k - version for version, *_ in table.values()), x):
                return trace.end(crew, 1)
            k += 1
            crew.give(i, k, x)
            done.add(i)
            if len(done) == crew.n:
                break
            while True:
                i, *gradient = next(arrivals)
                if i not in done:
                    report(table, i, *gradient)
                    trace.used[i] += 1
                    break
                report(following, i, *gradient)
                crew.go_on(i)
        table = following


def ia2_sgd(crew, x, stepsize, updates):
    """A table of everybody's latest gradient; no update until it is complete, nor by the arrival that completes it."""
    trace, k, table = Trace(crew.n, updates), 0, {}
    for i in crew.seconds:
        crew.give(i, k, x)
    for i, version, g in crew:
        complete = len(table) == crew.n
        (trace.used if complete or i not in table else trace.discarded)[i] += 1  # one of the two goes
        table[i] = version, g
        if complete:
            x = x - stepsize * mean(table[j][1] for j in crew.seconds)
            if trace.update(crew.now, i, max(k - version for version, _ in table.values()), x):
                return trace.end(crew, 1)
            k += 1
            crew.give(i, k, x)
        else:
            crew.go_on(i)


def asynchronous(crew, x, stepsize, updates, accepts, chosen=None):
    """An update at every gradient that `accepts(point now, point then)`; only `chosen` workers take part."""
    trace, points = Trace(crew.n, updates), [x]
    for i in chosen or crew.seconds:
        crew.give(i, 0, x)
    for i, version, g in crew:
        if accepts(x, points[version]):
            trace.used[i] += 1
            delay = len(points) - 1 - version
            x = x - stepsize * g
            points.append(x)
            if trace.update(crew.now, i, delay, x):
                return trace.end(crew, 1)
        else:
            trace.discarded[i] += 1
        crew.give(i, len(points) - 1, x)


def picky_sgd(crew, x, stepsize, updates, radius):
    """A gradient counts if its point is not farther away than `radius`."""
    return asynchronous(crew, x, stepsize, updates, lambda now, then: abs(now - then) <= radius)


def fastest(seconds, value):
    """Who is among the m fastest for the m that makes value(times of the m fastest) least; among equals the lower
    index, and the smaller m."""
    order = sorted(range(1, len(seconds) + 1), key=lambda i: (seconds[i - 1], i))
    prefixes = [order[: m + 1] for m in range(len(order))]
    return min(prefixes, key=lambda chosen: (value([Fraction(seconds[i - 1]) for i in chosen]), len(chosen)))


def naive_optimal_asgd(crew, x, stepsize, updates, noise_ratio):
    """Asynchronous SGD on the m fastest workers, where m makes the harmonic mean of their times, times
    1 + noise_ratio / m, least."""

    def value(times):
        m = len(times)
        return m / sum(1 / h for h in times) * (1 + Fraction(noise_ratio) / m)

    chosen = fastest(list(crew.seconds.values()), value)
    return asynchronous(crew, x, stepsize, updates, lambda now, then: True, chosen)


def fedbuff(
    seconds,
    gradient,
    x,
    stepsize,
    local_stepsize,
    local_steps,
    buffer,
    updates,
    max_staleness=math.inf,
    up=0.0,
    down=0.0,
):
    """Clients make `local_steps` steps; `buffer` of their differences, weighted by staleness, make an update. The
    trace's `gradients` are jobs."""
    n = len(seconds)

    def difference(point, i, job):
        y = point
        for q in range(local_steps):
            y = y - local_stepsize * gradient(y, i, job * local_steps + q)
        return point - y

    crew = Crew([local_steps * h for h in seconds], difference, up=up, down=down)
    trace = Trace(n, updates)
    version, content, count, worst = 0, 0.0, 0, 0
    for i in crew.seconds:
        crew.give(i, version, x)
    for i, began_at, delta in crew:
        staleness = version - began_at
        if staleness <= max_staleness:
            trace.used[i] += local_steps
            content += delta / math.sqrt(1 + staleness)
            count += 1
            worst = max(worst, staleness)
        else:
            trace.discarded[i] += local_steps
        if count == buffer:
            x = x - stepsize * content / buffer
            version += 1
            content, count = 0.0, 0
            if trace.update(crew.now, i, worst, x):
                return trace.end(crew, 1)
            worst = 0
        crew.give(i, version, x)


# Methods whose steps end when everybody has done his share, on links that take no time.


def in_shares(seconds, gradient, x, stepsize, updates, shares, estimate):
    """`shares(k)` says how many gradients each worker makes in step k = 1, 2, ...; `estimate(sums, shares)`."""
    n, now = len(seconds), 0.0
    trace, begun = Trace(n, updates), [0] * (n + 1)
    trace.gradients = begun
    for k in range(1, updates + 1):
        share = shares(k)
        sums = [sum(gradient(x, i, begun[i] + job) for job in range(share[i])) for i in range(n + 1)]
        begun[:] = [a + b for a, b in zip(begun, share, strict=True)]
        ends, source = max((now + share[i] * seconds[i - 1], i) for i in range(1, n + 1) if share[i])
        now = ends
        x = x - stepsize * estimate(sums, share)
        trace.update(now, source, 0, x)
    trace.used = list(begun)
    return trace


def mean_of_all(sums, shares):
    return sum(sums) / sum(shares)


def mean_of_means(sums, shares):
    return mean(s / b for s, b in list(zip(sums, shares, strict=True))[1:])


def balanced(seconds, batch, everybody):
    """Shares [0, b_1, ..., b_n] of `batch` gradients, proportional to speed, by largest remainder; with `everybody`
    none is 0."""
    speeds = [1 / Fraction(h) for h in seconds]
    quotas = [batch * v / sum(speeds) for v in speeds]
    shares = [math.floor(q) for q in quotas]
    by_remainder = sorted(range(len(seconds)), key=lambda i: (shares[i] - quotas[i], i))
    for i in by_remainder[: batch - sum(shares)]:
        shares[i] += 1
    while everybody and 0 in shares:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return [0, *shares]


def load_balanced_minibatch(seconds, gradient, x, stepsize, updates, batch, average):
    """A minibatch of `batch` gradients in shares that take about equally long."""
    shares = balanced(seconds, batch, everybody=average == "workers")
    estimate = {"gradients": mean_of_all, "workers": mean_of_means}[average]
    return in_shares(seconds, gradient, x, stepsize, updates, lambda k: shares, estimate)


def trials(seconds, batch, patience):
    """[0, B_1, ..., B_n] where every trial succeeds."""

    def value(limits):
        return (batch + len(limits)) / sum(1 / limit for limit in limits)

    limits = [Fraction(h) + Fraction(patience) for h in seconds]
    chosen = fastest(limits, value)
    least = value([limits[i - 1] for i in chosen])
    return [0] + [math.ceil(least / limits[i - 1] - 1) if i in chosen else 0 for i in range(1, len(seconds) + 1)]


def mindflayer(seconds, gradient, x, stepsize, updates, batch, patience):
    """Trials, each cut off `patience` seconds after the least time; fixed times are never cut off."""
    shares = trials(seconds, batch, patience)
    return in_shares(seconds, gradient, x, stepsize, updates, lambda k: shares, mean_of_all)


def ata(seconds, gradient, x, stepsize, updates, batch, alpha=None):
    """Jobs go one by one to who would end first by an optimistic score of his time. `alpha`: None is the empirical
    one."""
    n = len(seconds)
    observed = [0] * (n + 1)

    def score(i, k):
        if not observed[i]:
            return 0.0
        h, log = seconds[i - 1], math.log(2 * k * k)
        bonus = 4 * math.e * (2 * h if alpha is None else alpha)
        return max(0.0, h - bonus * (math.sqrt(log / observed[i]) + log / observed[i]))

    def shares(k):
        scores = [0.0] + [score(i, k) for i in range(1, n + 1)]
        share = [0] * (n + 1)
        for _ in range(batch):
            i = min(range(1, n + 1), key=lambda i: ((share[i] + 1) * scores[i], observed[i] + share[i], i))
            share[i] += 1
        observed[:] = [a + b for a, b in zip(observed, share, strict=True)]
        return share

    return in_shares(seconds, gradient, x, stepsize, updates, shares, mean_of_all)


# What theory says of the time of an update, with stops and links that take no time.


def rennala_seconds(seconds, batch):
    """The smallest t with sum floor(t / h_i) >= batch."""
    return least_time(seconds, lambda counts: sum(counts) >= batch, batch)


def malenia_seconds(seconds, batch):
    """The smallest t with n / sum(1 / floor(t / h_i)) >= batch / n and everybody at least once."""
    n = len(seconds)
    return least_time(
        seconds, lambda b: min(b) > 0 and n * n >= batch * sum(Fraction(1, c) for c in b), batch + 2 * n + 2
    )


def least_time(seconds, enough, most):
    """The smallest multiple of a worker's time, up to `most` times, at which the counts are enough."""
    instants = sorted({h * jobs for h in seconds for jobs in range(1, most + 1)})
    return next(t for t in instants if enough([math.floor(t / h) for h in seconds]))
