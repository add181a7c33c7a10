"""Seconds between model updates, counted from the workers' times alone: no problem, no vectors, no messages.

Two kinds of answers, both exact for what they model:

closed forms     of steps that all workers begin together: `collect_seconds`, `malenia_step_seconds`. Fixed seconds per
                 gradient, in whole nanoseconds inside, so that rounding decides no tie.
update instants  of a method, in nanoseconds: generators that read the reports of `Workers`. Any times, also random and
                 changing ones.

At equal times workers report in the order of their numbers 0..n-1. What a worker does when it gets a newer point is
given up.
"""

import heapq
import itertools

import numpy

SECOND = 1_000_000_000
FOREVER = 1 << 62  # ns


def collect_seconds(h, S, first=None):
    """The least t with Σ floor(t/h_i) >= S: when the S-th gradient comes if all workers begin together.

    h      (n,) seconds per gradient
    first  (n,) seconds until each worker's first gradient has come, where that is another time than h
    """
    period, first = in_nanoseconds(h, first)
    alone = numpy.argmin(first + period * float(S - 1))
    latest = min(int(first[alone]) + (S - 1) * int(period[alone]), FOREVER)
    return earliest(lambda t: counts(t, period, first).sum() >= S, latest) / SECOND


def malenia_step_seconds(h, S, first=None):
    """The least t at which the counts B_i = floor(t/h_i) pass Malenia's test; h and `first` as in `collect_seconds`."""
    period, first = in_nanoseconds(h, first)
    each = -(-S // len(period))  # where all B_i are S/n, so is their harmonic mean
    latest = min(int(numpy.max(first + period * float(each - 1))) + SECOND, FOREVER)

    def passed(t):
        B = counts(t, period, first)
        return B.min() >= 1 and malenia_test(len(B), (1 / B).sum(), S)

    return earliest(passed, latest) / SECOND


def malenia_test(n, inverses, S):
    """n / Σ 1/B_i >= S/n, in which rounding does not decide at equality."""
    return n * n * (1 + 1e-12) >= S * inverses


def in_nanoseconds(h, first):
    """Both as int64 arrays."""
    period = numpy.rint(numpy.asarray(h, float) * SECOND).astype(numpy.int64)
    return period, period if first is None else numpy.rint(numpy.asarray(first, float) * SECOND).astype(numpy.int64)


def counts(t, period, first):
    """(n,) gradients that have come by t ns, the instant included."""
    return numpy.where(t >= first, (t - first) // period + 1, 0)


def earliest(enough, latest):
    """The least whole t in 1..latest at which enough(t), which holds at `latest` and stays true."""
    low, high = 0, latest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


class Workers:
    """n workers and what they are doing. Iterate over it: (now in ns, i) of each report to the server, in order.

    jobs     n functions: ns at which a job begins -> how many ns it takes
    up       n ns, from the end of a worker's job to its report
    down     n ns, from the server to the worker, of a point
    brief    n ns, from the server to the worker, of an answer without a point
    most     how many jobs are begun at most; then there are no more reports
    until    ns after which there are none

    `begun` is how many jobs have been begun.
    """

    def __init__(self, jobs, up=None, down=None, brief=None, most=1_000_000, until=FOREVER):
        self.jobs, self.n = jobs, len(jobs)
        self.up, self.down, self.brief = ([0] * self.n if way is None else way for way in (up, down, brief))
        self.most, self.until, self.begun = most, until, 0
        self.latest = [0] * self.n  # serial number of each worker's job; the reports of older ones never come
        self.heap = []

    def start(self, i, now=0):
        """The server sends worker i a point at `now`; the worker begins a job there when it has it."""
        self.begin(i, now + self.down[i])

    def carry_on(self, i, now):
        """The server tells worker i at `now` to begin another job at the point it has."""
        self.begin(i, now + self.brief[i])

    def go_on(self, i, now):
        """Worker i has begun another job by itself at the end of the one whose report comes at `now`."""
        self.begin(i, now - self.up[i])

    def begin(self, i, instant):
        """Worker i gives up what it is doing and begins a job at this instant."""
        self.latest[i] += 1
        self.begun += 1
        heapq.heappush(self.heap, (instant + self.jobs[i](instant) + self.up[i], i, self.latest[i]))

    def start_all(self, now=0):
        """The server sends everybody a point at `now`."""
        for i in range(self.n):
            self.start(i, now)

    def __iter__(self):
        while self.begun < self.most:
            while self.heap and self.heap[0][2] != self.latest[self.heap[0][1]]:
                heapq.heappop(self.heap)
            if not self.heap or self.heap[0][0] > self.until:
                return
            now, i, _ = heapq.heappop(self.heap)
            yield now, i


# The instants at which a method updates its model. Names and letters are those of mpibench/algorithms.


def collecting(workers, begin, stop_stale):
    """Rennala, Malenia: `begin()` gives a function for each step, which is told who has sent a gradient at its point
    and says whether that ends it."""
    k, version, ends = 0, [0] * workers.n, begin()
    workers.start_all()
    for now, i in workers:
        fresh = version[i] == k
        ended = fresh and ends(i)
        if ended:
            k, ends = k + 1, begin()
            yield now
        if stop_stale:
            workers.go_on(i, now)  # until the new point comes, if one comes
            if ended:
                version = [k] * workers.n
                workers.start_all(now)
        else:
            version[i] = k
            if fresh and not ended:
                workers.carry_on(i, now)
            else:
                workers.start(i, now)


def rennala(workers, S, stop_stale):
    """A step has S gradients at its point, from anybody."""

    def begin():
        there = itertools.count(1)
        return lambda i: next(there) == S

    return collecting(workers, begin, stop_stale)


def malenia(workers, S, stop_stale):
    """A step has a gradient from everybody at its point, and n / Σ 1/B_i >= S/n. S = 1 is the parameter-free rule."""

    def begin():
        B, inverses = {}, 0.0

        def ends(i):
            nonlocal inverses
            B[i] = B.get(i, 0) + 1
            inverses += 1 / B[i] - (1 / (B[i] - 1) if B[i] > 1 else 0)
            return len(B) == workers.n and malenia_test(workers.n, inverses, S)

        return ends

    return collecting(workers, begin, stop_stale)


def m_sync(workers, m, stop_stale):
    """The first m workers that report from the point of the step; they wait for its end. m = n is Minibatch SGD."""
    k, version, reported = 0, [0] * workers.n, []
    workers.start_all()
    for now, i in workers:
        if version[i] != k:
            version[i] = k
            workers.start(i, now)
            continue
        reported.append(i)
        if len(reported) == m:
            k += 1
            yield now
            for j in range(workers.n) if stop_stale else sorted(reported):
                version[j] = k
                workers.start(j, now)
            reported = []


def asynchronous(workers, accept=lambda delay: True, counted=False):
    """Asynchronous SGD: every gradient whose delay is accepted makes an update; `counted`: others advance k as well."""
    k, version = 0, [0] * workers.n
    workers.start_all()
    for now, i in workers:
        accepted = accept(k - version[i])
        if accepted:
            yield now
        k += accepted or counted
        version[i] = k
        workers.start(i, now)


def ringmaster(workers, R, stop_stale):
    """Gradients with a delay below R. With stops, who is R updates behind gets the newest point at once."""
    if not stop_stale:
        yield from asynchronous(workers, lambda delay: delay < R)
        return
    version, holders = [0] * workers.n, {0: range(workers.n)}  # holders: workers by the version they were sent
    workers.start_all()
    for k, (now, i) in enumerate(workers, 1):
        yield now
        workers.go_on(i, now)
        behind = [j for j in holders.pop(k - R, ()) if j != i and version[j] == k - R]
        holders[k] = [i, *behind]
        for j in holders[k]:
            version[j] = k
            workers.start(j, now)


def ia2(workers):
    """Every gradient but those up to the one that completes the table."""
    reported = set()
    workers.start_all()
    for now, i in workers:
        if len(reported) == workers.n:
            yield now
            workers.start(i, now)
        else:
            reported.add(i)
            workers.carry_on(i, now)


def ringleader(workers):
    """Rounds: a gradient from everybody, then n updates, each on the report of another worker."""
    rows, next_rows, done = set(), set(), set()
    workers.start_all()
    for now, i in workers:
        collected = len(rows) == workers.n  # phase 2
        (next_rows if i in done else rows).add(i)
        if i in done or (not collected and len(rows) < workers.n):
            workers.carry_on(i, now)
            continue
        yield now
        done.add(i)
        if len(done) == workers.n:
            rows, next_rows, done = next_rows, set(), set()
        workers.start(i, now)


def fedbuff(workers, K, max_staleness):
    """Every K-th client update that is not too stale."""
    k, buffered, version = 0, 0, [0] * workers.n
    workers.start_all()
    for now, i in workers:
        buffered += k - version[i] <= max_staleness
        if buffered == K:
            k, buffered = k + 1, 0
            yield now
        version[i] = k
        workers.start(i, now)


def seconds_per_update(instants):
    """The mean seconds between these update instants without their first quarter, or from time 0 where they are too
    few; None where there is none."""
    if len(instants) == 0:
        return None
    instants = numpy.array(instants, numpy.int64)
    whole = instants[instants < instants[-1]]  # of the last instant there may be more updates than these
    whole = whole[len(whole) // 4 :]
    after = int((whole > whole[0]).sum()) if len(whole) else 0
    return (int(whole[-1] - whole[0]) / after if after else int(instants[-1]) / len(instants)) / SECOND
