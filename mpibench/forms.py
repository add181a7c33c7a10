"""Which formula belongs to which algorithm: seconds per update, and how stale and noisy the estimate behind one is.

`FORMS` is the one place that knows. A form takes the frozen object of mpibench/algorithms and the cell's
`mpibench.machine.Machine`, and gives a `Form`. Where workers take fixed times, `least` and `most` hold for every long
run; where times are random or change, they are for the means and hold for nothing, and only what the machine counts
says something, with the very times that the seed draws.

Links are in the forms, but for what methods send beside vectors. Where stale work is stopped, gradients that are under
way when a newer point is sent, or that end while it travels, are left out; where they may fill the way up, because a
gradient takes longer to send than to compute, only `least` remains.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy

from mpibench import event_counts, theory
from mpibench.event_counts import SECOND


@dataclass(frozen=True)
class Form:
    """What theory says of a method on a machine; seconds, None where it says nothing."""

    source: str
    least: float | None = None  # seconds per update
    expected: float | None = None  # the same, where there is a closed form for fixed times
    most: float | None = None
    instants: Callable | None = None  # `event_counts.Workers` -> update instants
    members: list | None = None  # places 0..n-1 of the workers that take part; None: all
    jobs: Callable | None = None  # (place, job) -> the job that a report needs, where it is not one gradient
    linked: bool = True  # whether its messages are charged
    delay: float | None = None  # δ and b of `theory.updates`
    batch: float | None = None
    own: Callable = lambda L, s2, eps: {}  # the parameters that theory would take


def repeated(job, times):
    """So many jobs one after another."""

    def jobs(now):
        end = now
        for _ in range(times):
            end += job(end)
        return end - now

    return jobs


def unless_crowded(form, a, m):
    """The form of a method that may stop stale work, without what does not hold where its gradients fill the links."""
    return replace(form, expected=None, most=None, instants=None) if a.stop_stale and m.crowded else form


# The forms. Each takes the frozen algorithm object and the Machine.


def minibatch_sgd(a, m):
    slowest = float(m.cycles.max())
    return Form(
        "the slowest worker; A. Tyurin, P. Richtárik, arXiv 2405.16218, equations (4) to (6)",
        least=slowest,
        expected=slowest,
        most=slowest,
        instants=lambda w: event_counts.m_sync(w, m.n, stop_stale=False),
        delay=1,
        batch=m.n,
        own=lambda L, s2, eps: {"stepsize": theory.batch_stepsize(m.n, L, s2, eps)},
    )


def m_sync_sgd(a, m):
    waits_for = float(numpy.sort(m.cycles)[a.quorum - 1])

    def own(L, s2, eps):
        quorum = theory.quorum(m.cycles, s2, eps)
        return {"quorum": quorum, "stepsize": theory.batch_stepsize(quorum, L, s2, eps)}

    exact = a.stop_stale or a.quorum == m.n
    return Form(
        "h_m, at most 2 h_m where nobody is stopped; A. Begunov, A. Tyurin, arXiv 2602.03802",
        least=waits_for,
        expected=waits_for if exact else None,
        most=waits_for if exact else 2 * waits_for,
        instants=lambda w: event_counts.m_sync(w, a.quorum, a.stop_stale),
        delay=1,
        batch=a.quorum,
        own=own,
    )


def load_balanced_minibatch(a, m):
    shares = a.shares(m.known.tolist())
    members = [place for place, share in enumerate(shares) if share]
    b = numpy.array([shares[place] for place in members])
    longest = float((b * m.h[members] + m.ways[members]).max())
    return Form(
        "max b_i h_i for shares b_i proportional to 1/h_i; derived",
        least=longest,
        expected=longest,
        most=longest,
        instants=lambda w: event_counts.m_sync(w, len(members), stop_stale=False),
        members=members,
        jobs=lambda place, job: repeated(job, shares[place]),
        delay=1,
        batch=a.batch if a.average == "gradients" else len(b) ** 2 / (1 / b).sum(),
        own=lambda L, s2, eps: {"batch": theory.batch(s2, eps), "stepsize": 1 / (2 * L)},
    )


def rennala(a, m):
    if a.stop_stale:
        step = event_counts.collect_seconds(m.free_cycles, a.batch, first=m.cycles)
        times = {"least": step, "expected": step, "most": step}
    else:
        least = event_counts.collect_seconds(m.brief_cycles, a.batch, first=m.cycles)
        times = {"least": least, "most": 2 * theory.collect_bound(m.cycles, a.batch)}
    form = Form(
        "S gradients at a point; A. Tyurin, P. Richtárik, arXiv 2305.12387, and A. Tyurin, ICLR 2026, appendix F",
        **times,
        instants=lambda w: event_counts.rennala(w, a.batch, a.stop_stale),
        delay=1,
        batch=a.batch,
        own=lambda L, s2, eps: {"batch": theory.batch(s2, eps), "stepsize": 1 / (2 * L)},
    )
    return unless_crowded(form, a, m)


def rennala_all_reduce(a, m):
    form = rennala(a, m)
    if not m.linked:
        return form
    return Form(form.source + "; without the time of its reduction", least=form.least, own=form.own)


def malenia(a, m, S=None):
    S = S or a.batch
    if a.stop_stale:
        step = event_counts.malenia_step_seconds(m.free_cycles, S, first=m.cycles)
        times = {"least": step, "expected": step, "most": step}
    else:
        least = event_counts.malenia_step_seconds(m.brief_cycles, S, first=m.cycles)
        most = theory.malenia_bound(m.cycles, S) if m.n < S else 2 * float(m.cycles.max())
        times = {"least": least, "most": most}
    form = Form(
        "n²/Σ(1/B_i) >= S; A. Tyurin, P. Richtárik, arXiv 2305.12387, and A. Tyurin, ICLR 2026, appendix F",
        **times,
        instants=lambda w: event_counts.malenia(w, S, a.stop_stale),
        delay=1,
        batch=max(S, m.n),
        own=lambda L, s2, eps: {"batch": theory.malenia_batch(m.n, s2, eps), "stepsize": 1 / (2 * L)},
    )
    return unless_crowded(form, a, m)


def malenia_parameter_free(a, m):
    return replace(
        malenia(a, m, S=1),
        source="a gradient from everybody; A. Tyurin, P. Richtárik, arXiv 2305.12387, with S <= n",
        own=lambda L, s2, eps: {"stepsize": theory.batch_stepsize(m.n, L, s2, eps)},
    )


def async_sgd(a, m):
    together = 1 / float(theory.rates(m.cycles)[-1])
    accept, times = (lambda delay: True), {"expected": together, "most": together}
    if a.rule == "drop":  # Ringmaster ASGD with R = n + 1
        accept, times = (lambda delay: delay <= m.n), {"most": theory.ringmaster_bound(m.cycles, m.n + 1) / (m.n + 1)}
    elif a.rule == "drop_counted":  # while the fastest computes, everybody else reports once at most
        accept, times = (lambda delay: delay <= m.n), {"most": float(m.cycles.min())}
    return Form(
        "1/Σ(1/h_i) for every gradient; K. Mishchenko et al., arXiv 2206.07638, A. Koloskova et al., arXiv 2206.08307",
        least=together,
        **times,
        instants=lambda w: event_counts.asynchronous(w, accept, counted=a.rule == "drop_counted"),
        delay=m.n,
        batch=1,
        own=lambda L, s2, eps: {"stepsize": theory.ringmaster_stepsize(m.n, L, s2, eps)},
    )


def picky_sgd(a, m):
    # which gradients are dropped depends on how far the point moves, so only the least is known
    return Form("1/Σ(1/h_i) if no gradient is dropped", least=1 / float(theory.rates(m.cycles)[-1]))


def naive_optimal_asgd(a, m):
    members = [i - 1 for i in a.fastest(dict(enumerate(m.known.tolist(), 1)))]
    together = 1 / float(theory.rates(m.cycles[members])[-1])

    def own(L, s2, eps):
        workers = theory.useful_workers(m.h, s2, eps)
        return {"noise_ratio": s2 / eps, "stepsize": theory.ringmaster_stepsize(workers, L, s2, eps)}

    return Form(
        f"1/Σ(1/h_i) over the {len(members)} fastest; A. Maranjyan, A. Tyurin, P. Richtárik, arXiv 2501.16168",
        least=together,
        expected=together,
        most=together,
        instants=event_counts.asynchronous,
        members=members,
        delay=len(members),
        batch=1,
        own=own,
    )


def ringmaster(a, m):
    R = a.threshold
    together = 1 / float(theory.rates(m.free_cycles if a.stop_stale else m.cycles)[-1])

    def own(L, s2, eps):
        R = theory.threshold(s2, eps)
        return {"threshold": R, "stepsize": theory.ringmaster_stepsize(R, L, s2, eps)}

    exact = not math.isfinite(R) and not (a.stop_stale and m.linked)
    form = Form(
        "t(R)/R; A. Maranjyan, A. Tyurin, P. Richtárik, arXiv 2501.16168, Lemma 4.1",
        least=together,
        expected=together if exact else None,
        most=theory.ringmaster_bound(m.cycles, R) / R if math.isfinite(R) else together if exact else None,
        instants=lambda w: event_counts.ringmaster(w, R, a.stop_stale),
        delay=min(R, m.n),  # the mean delay of asynchronous SGD is below n
        batch=1,
        own=own,
    )
    return unless_crowded(form, a, m)


def ia2_sgd(a, m):
    together = 1 / float(theory.rates(m.cycles)[-1])
    delay = float(m.cycles.max()) / together  # updates while the slowest computes
    return Form(
        "1/Σ(1/h_i) once everybody has reported, in all the order of Minibatch SGD; A. Maranjyan, P. Richtárik, arXiv "
        "2509.22860",
        least=together,
        expected=together,
        most=together,
        instants=event_counts.ia2,
        delay=delay,
        batch=m.n / delay,  # such that the time is of the order of Minibatch SGD's
    )


def ringleader(a, m):
    slowest = float(m.cycles.max())
    return Form(
        "a round of n updates in h_n to 2 h_n; A. Maranjyan, P. Richtárik, arXiv 2509.22860",
        least=slowest / m.n,
        most=2 * slowest / m.n,
        instants=event_counts.ringleader,
        delay=m.n,
        batch=theory.ringleader_counts(m.cycles),  # n rows of so many gradients, for n updates
        own=lambda L, s2, eps: {"stepsize": theory.ringleader_stepsize(m.cycles, L, s2, eps)},
    )


def fedbuff(a, m):
    together = a.buffer / float(theory.rates(a.local_steps * m.h + m.ways)[-1])
    stale = a.max_staleness < math.inf
    return Form(
        "K / Σ 1/(Q h_i); J. Nguyen et al., arXiv 2106.06639",
        least=together,
        expected=None if stale else together,
        most=None if stale else together,
        instants=lambda w: event_counts.fedbuff(w, a.buffer, a.max_staleness),
        jobs=lambda place, job: repeated(job, a.local_steps),
    )


def mindflayer(a, m):
    least = numpy.asarray(m.cell.compute.least_seconds(m.n), float)
    limits = {i: float(least[i - 1]) + a.patience_seconds for i in range(1, m.n + 1)}
    p = {i: m.cell.compute.within(i, m.n, limit) for i, limit in limits.items()}
    B = a.trials(limits, p)
    members = [i - 1 for i in B if B[i]]
    b = numpy.array([B[place + 1] for place in members])
    trials = numpy.minimum(m.h, least + a.patience_seconds)[members]
    longest = float((b * trials + m.ways[members]).max())

    def jobs(place, job):
        cut = round(limits[place + 1] * SECOND)
        return repeated(lambda now: min(cut, job(now)), B[place + 1])

    return Form(
        "max B_i (h_i + t), or less where trials end sooner; A. Maranjyan et al., arXiv 2410.04285",
        least=longest,
        expected=longest,
        most=float((b * (least[members] + a.patience_seconds) + m.ways[members]).max()),
        instants=lambda w: event_counts.m_sync(w, len(members), stop_stale=False),
        members=members,
        jobs=jobs,
        delay=1,
        batch=sum(p[i] * B[i] for i in B),
        own=lambda L, s2, eps: {"batch": theory.batch(s2, eps)},
    )


def ata(a, m):
    return Form(
        "Σ floor(t/h_i) >= B, once the speeds are learnt; A. Maranjyan et al., arXiv 2502.00775",
        least=event_counts.collect_seconds(m.h, a.batch, first=m.cycles),
        delay=1,
        batch=a.batch,
    )


def hogwild(a, m):
    first = float(m.h[0])
    additions = first * float(theory.rates(m.h)[-1])  # of all ranks to the model, for one of rank 0
    return Form(
        "h_1 for rank 0, whose own updates are counted, and 1/Σ(1/h_i) for all; F. Niu et al., arXiv 1106.5730",
        least=first,
        expected=first,
        most=first,
        instants=event_counts.asynchronous,
        members=[0],
        linked=False,
        delay=m.n / additions,
        batch=additions,
        own=lambda L, s2, eps: {"stepsize": theory.ringmaster_stepsize(m.n, L, s2, eps)},
    )


def sdde_asgd(a, m):
    source = "1/Σ(1/h_i) over the active workers; S. Yu, W. Chen, H. V. Poor, arXiv 2406.11159"
    if a.period < math.inf or a.trigger > 0:  # who is active, or what is sent, depends on the run
        return Form(source, least=1 / float(theory.rates(m.cycles)[-1]))
    members = list(range(a.active))
    together = 1 / float(theory.rates(m.cycles[members])[-1])
    R = a.threshold + 1
    return Form(
        source,
        least=together,
        expected=None if math.isfinite(R) else together,
        most=theory.ringmaster_bound(m.cycles[members], R) / R if math.isfinite(R) else together,
        instants=lambda w: event_counts.asynchronous(w, lambda delay: delay < R),
        members=members,
        delay=min(R, len(members)),
        batch=1,
        own=lambda L, s2, eps: {"stepsize": theory.ringmaster_stepsize(len(members), L, s2, eps)},
    )


def shadowheart(a, m):
    plan = a.plan(m.known.tolist(), m.link_seconds, m.dimension, m.model_bytes)
    members = numpy.flatnonzero(plan.b).tolist()
    sizes = [a.size(messages, m.dimension, m.model_bytes) for messages in plan.messages.tolist()]
    up = {place: m.edge(place + 1, 0) for place in members}
    up = {place: edge.latency_ns + edge.transmission(sizes[place], 0) for place, edge in up.items()}

    def jobs(place, job):
        computing = repeated(job, int(plan.b[place]))
        return lambda now: int(m.down[place]) + computing(now + int(m.down[place])) + up[place]

    longest = max(plan.b[place] * m.h[place] + (m.down[place] + up[place]) / SECOND for place in members)
    κ, ν = plan.variance
    return Form(
        f"max (b_i h_i + m_i τ_i), at most 2 t* = {2 * plan.seconds:.4g} s; A. Tyurin et al., arXiv 2402.04785",
        least=longest,
        expected=longest,
        most=longest,
        instants=lambda w: event_counts.m_sync(w, len(members), stop_stale=False),
        members=members,
        jobs=jobs,
        linked=False,  # its messages are in its jobs
        delay=1 + κ,  # the estimate's error grows with the gradient as with a delay
        batch=1 / ν,
        own=lambda L, s2, eps: {"noise_ratio": s2 / eps, "stepsize": 1 / (2 * L)},
    )


def adaptive_shadowheart(a, m):
    """A step takes at least the time t in which Σ m_i b_i / (b_i ω + ω σ²/ε + m_i σ²/ε) is 1, if all m_i messages that
    can have come held all b_i gradients that can have been in the last of them (derived)."""
    omega, each = a.compressor.omega(m.dimension), a.size(m.dimension, m.model_bytes)
    edges = [m.edge(i, 0) for i in range(1, m.n + 1)]
    sending = numpy.maximum(1, [edge.transmission(each, 0) for edge in edges])
    ways, h = m.down + [edge.latency_ns for edge in edges], numpy.rint(m.h * SECOND)
    a_sum = math.ceil(m.model_bytes / each)  # messages of one sum

    def enough(t):
        b = numpy.maximum(0, (t - ways - sending) // h)
        messages = numpy.maximum(0, numpy.minimum((t - ways - h) // sending, a_sum * b)) * a.packed
        errors = b * omega + (omega + messages) * a.noise_ratio
        return (messages * b / numpy.where(errors == 0, 1, errors)).sum() >= 1 - 1e-9

    latest = int(h.min())
    while not enough(latest):
        latest *= 2
    return Form(
        "all messages with all gradients; A. Tyurin et al., arXiv 2402.04785",
        least=event_counts.earliest(enough, latest) / SECOND,
        own=lambda L, s2, eps: {"noise_ratio": s2 / eps, "stepsize": 1 / (2 * L)},
    )


def sgd_one(a, m):
    fastest = int(m.known.argmin())
    seconds = float(m.h[fastest])
    return Form(
        "h_1, the fastest worker alone; A. Tyurin et al., arXiv 2402.04785",
        least=seconds,
        expected=seconds,
        most=seconds,
        instants=event_counts.asynchronous,
        members=[fastest],
        linked=False,
        delay=1,
        batch=1,
        own=lambda L, s2, eps: {"stepsize": theory.batch_stepsize(1, L, s2, eps)},
    )


# Methods on trees. What an edge carries already has to be waited for, so a way has two times: of messages that never
# wait, and of messages that always do.


def between(least, most):
    """The times of an update that takes at least and at most so long."""
    return {"least": least, "expected": least if least == most else None, "most": most}


def tree_minibatch(a, m):
    ahead = m.point_ahead()
    slowest = float((numpy.maximum(m.h, ahead / SECOND) + m.ways).max())

    def jobs(place, job):
        return lambda now: max(job(now), int(ahead[place]))

    return Form(
        "the point there, h_i and the sum back, of the last rank; A. Tyurin, P. Richtárik, arXiv 2405.16218, equations "
        "(4) to (6)",
        **between(slowest, slowest),
        instants=lambda w: event_counts.m_sync(w, m.n, stop_stale=False),
        jobs=jobs,
        delay=1,
        batch=m.n,
        own=lambda L, s2, eps: {"stepsize": theory.batch_stepsize(m.n, L, s2, eps)},
    )


def tree_minibatch_eager(a, m):
    # A sum waits at each edge for one other at most. Where a sum is behind the point, the ideal one is as late.
    down, up = m.tree_way(up=False, vectors=1, numbers=1), m.tree_way(up=True, vectors=1, numbers=3)
    least = float((numpy.maximum(m.h, m.point_ahead() / SECOND) + (down + up) / SECOND).max())
    waits = m.tree_way(up=True, vectors=1, numbers=3, waits=(1, 1)) - up
    return Form(
        "the ideal reduction, and at most the longest way to the pivot more (derived); A. Tyurin, P. Richtárik, arXiv "
        "2405.16218, equations (4) to (6)",
        **between(least, least + int(waits.max()) / SECOND),
        delay=1,
        batch=m.n,
        own=lambda L, s2, eps: {"stepsize": theory.batch_stepsize(m.n, L, s2, eps)},
    )


def fragile(a, m):
    """A step with S gradients takes t*(S, h, τ) or more, and 4 t* or less, 6 t* where the trees share edges; τ_i is the
    way to rank i and back. Derived: gradients count that are computed at the step's point, so none is there before a
    whole way. At every edge of a way there may be one message to wait for; on an edge of both trees a point may wait
    for two sums, and a sum for two points and the sum before it. (Theorem 5 has t* up to a constant.)
    """
    S = a.batch
    free = m.tree_way(up=False, vectors=1, numbers=1) + m.tree_way(up=True, vectors=1, numbers=3)
    taken = m.tree_way(False, 1, 3, waits=(1, 2)) + m.tree_way(True, 1, 3, waits=(1, 3))
    least, most = (event_counts.collect_seconds(m.h, S, first=m.h + way / SECOND) for way in (free, taken))

    def own(L, s2, eps):
        pivot = theory.fragile_step_seconds(s2 / eps, m.known, m.seconds_between)[2]
        return {"batch": theory.batch(s2, eps), "pivot": pivot, "stepsize": 1 / (2 * L)}

    return Form(
        "t*(S, h, τ) to 4 t*, to 6 t* where trees share edges (derived); A. Tyurin, P. Richtárik, arXiv 2405.16218, "
        "Theorem 5",
        **between(least, most),
        delay=1,
        batch=S,
        own=own,
    )


def fragile_accelerated(a, m):
    return replace(fragile(a, m), delay=None, batch=None, own=Form.own)


def amelie(a, m):
    """The counters of all ranks pass the test at the pivot, which knows them as old as their way is long; then FREEZE
    goes down and a sum comes back. This is exact where numbers take no time beside vectors; else `most` is the time of
    messages that have two counters and a FREEZE before them at each edge.
    """

    def step(others):
        """Seconds where each message has so many numbers of others before it at each edge."""
        point, total = m.tree_way(False, 1, 1 + others), m.tree_way(True, 1, 2 + others)
        counter, freeze = m.tree_way(True, 0, 2 + others), m.tree_way(False, 0, 1 + others)
        first = m.h + (point + counter) / SECOND
        known = event_counts.malenia_step_seconds(m.h, a.batch, first=first)
        let_through = int((point + m.point_ahead(1 + others) + counter).max()) / SECOND
        return max(known, let_through) + int((freeze + total).max()) / SECOND

    return Form(
        "n²/Σ(1/s_i) >= S as the pivot knows s_i, and a wave and a reduction (derived); A. Tyurin, P. Richtárik, arXiv "
        "2405.16218, Theorem 8",
        **between(step(0), step(5)),
        delay=1,
        batch=max(a.batch, m.n),
        own=lambda L, s2, eps: {"batch": theory.malenia_batch(m.n, s2, eps), "stepsize": 1 / (2 * L)},
    )


FORMS = {
    form.__name__: form
    for form in (
        minibatch_sgd,
        m_sync_sgd,
        load_balanced_minibatch,
        rennala,
        rennala_all_reduce,
        malenia,
        malenia_parameter_free,
        async_sgd,
        picky_sgd,
        naive_optimal_asgd,
        ringmaster,
        ia2_sgd,
        ringleader,
        fedbuff,
        mindflayer,
        ata,
        hogwild,
        sdde_asgd,
        shadowheart,
        adaptive_shadowheart,
        sgd_one,
        tree_minibatch,
        tree_minibatch_eager,
        fragile,
        fragile_accelerated,
        amelie,
    )
}
