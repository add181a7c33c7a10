"""What the papers promise: bounds on the time to a target, the parameters and the number of updates behind them.

Pure functions of numbers and arrays. Throughout

h    (n,) seconds per gradient of each worker, in any order; h_1 <= .. <= h_n where a formula says h_i
L    smoothness of f                  D    f(x^0) - f*
s2   total variance of a stochastic gradient, σ²          eps  the squared gradient norm that is aimed at
ways (n, n) seconds in which a vector gets from rank i to rank j on the shortest path, τ_{i->j}, in row i and column j
up   (n,) seconds in which each worker sends the server a vector; down the same back, no time but where it is named
tau  (n,) the same of a compressed message; omega its compressor's ω: E||C(x) - x||^2 <= ω ||x||^2, E C(x) = x

`*_seconds` are times to E||∇f||^2 <= eps up to a universal constant, another one for each paper: ratios between methods
mean something, seconds do not. What takes place between two updates can be counted exactly: `mpibench.event_counts`.

Sources, by the short names used below:

Rennala     A. Tyurin, P. Richtárik, "Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a
            Fixed Computation Model", NeurIPS 2023, arXiv 2305.12387
Fragile     A. Tyurin, P. Richtárik, "On the Optimal Time Complexities in Decentralized Stochastic Asynchronous
            Optimization", NeurIPS 2024, arXiv 2405.16218
Gap         A. Tyurin, "Bridging the Gap Between Homogeneous and Heterogeneous Asynchronous Optimization is
            Surprisingly Difficult", ICLR 2026
Ringmaster  A. Maranjyan, A. Tyurin, P. Richtárik, "Ringmaster ASGD: The First Asynchronous SGD with Optimal Time
            Complexity", ICML 2025, arXiv 2501.16168
Ringleader  A. Maranjyan, P. Richtárik, "Ringleader ASGD: The First Asynchronous SGD with Optimal Time Complexity
            under Data Heterogeneity", ICLR 2026, arXiv 2509.22860
m-Sync      A. Begunov, A. Tyurin, "m-Synchronous SGD", arXiv 2602.03802
Universal   A. Tyurin, "Tight Time Complexities in Parallel Stochastic Optimization with Arbitrary Computation
            Dynamics", ICLR 2025, arXiv 2408.04929
Shadowheart A. Tyurin, M. Pozzi, I. Ilin, P. Richtárik, "Shadowheart SGD: Distributed Asynchronous SGD with Optimal Time
            Complexity Under Arbitrary Computation and Communication Heterogeneity", NeurIPS 2024, arXiv 2402.04785
Two-way     A. Tyurin, "Proving the Limited Scalability of Centralized Distributed Optimization via a New Lower Bound
            Construction", ICLR 2026, arXiv 2506.23836
"""

import math

import numpy

from mpibench import schedule
from mpibench.network import EQUAL, equilibrium_seconds


def rates(h):
    """(n,) gradients per second of the m fastest workers together, m = 1..n."""
    return numpy.cumsum(1 / numpy.sort(numpy.asarray(h, float)))


def harmonic_number(m):
    """1 + 1/2 + .. + 1/m, at most 1 + ln m."""
    return float(numpy.sum(1 / numpy.arange(1, m + 1)))


def least(values):
    """(the least of these values, its place counted from 1)."""
    place = int(numpy.argmin(values))
    return float(values[place]), place + 1


# Time to a target, in seconds up to a universal constant.


def single_seconds(seconds, L, D, s2, eps):
    """One worker alone, which needs `seconds` per gradient."""
    return seconds * (L * D / eps) * (1 + s2 / eps)


def minibatch_seconds(h, L, D, s2, eps):
    """Minibatch SGD: max h_i (LD/eps) (1 + σ²/(n eps)) (Fragile, equations (4) to (6))."""
    return float(numpy.max(h)) * (L * D / eps) * (1 + s2 / (len(h) * eps))


def m_sync_seconds(h, L, D, s2, eps):
    """m-synchronous SGD with the best m: (min_m h_m (LD/eps) (1 + σ²/(m eps)), that m) (m-Sync)."""
    m = numpy.arange(1, len(h) + 1)
    seconds, best = least(numpy.sort(numpy.asarray(h, float)) * (1 + s2 / (m * eps)))
    return L * D / eps * seconds, best


def asgd_seconds(h, L, D, s2, eps):
    """Asynchronous SGD on all workers: n / Σ(1/h_i) (LD/eps) (1 + σ²/(n eps)), as Rennala and Ringmaster cite it."""
    n = len(h)
    return n / rates(h)[-1] * (L * D / eps) * (1 + s2 / (n * eps))


def rennala_seconds(h, L, D, s2, eps):
    """Rennala SGD, Ringmaster ASGD and Naive Optimal ASGD: ((LD/eps) min_m (m + σ²/eps) / Σ_{i<=m} 1/h_i, that m).

    Also the lower bound for homogeneous data, so no method is faster by more than a constant (Rennala; Ringmaster). The
    m fastest workers are the useful ones: the others do not make the bound smaller.
    """
    m = numpy.arange(1, len(h) + 1)
    seconds, useful = least((m + s2 / eps) / rates(h))
    return L * D / eps * seconds, useful


def malenia_seconds(h, L, D, s2, eps):
    """Malenia SGD: (LD/eps) (h_n + mean(h) σ²/(n eps)), also the lower bound for heterogeneous data (Rennala).

    Ringleader ASGD has the same where its smoothness constant is of the order of that of f (Ringleader).
    """
    return L * D / eps * float(numpy.max(h) + numpy.mean(h) * s2 / (len(h) * eps))


def m_sync_excess(m):
    """How much slower than the m fastest workers in the optimal method m-synchronous SGD can be at most:

    min_{j<=m} h_j (1 + s/j) <= harmonic_number(m) (m + s) / Σ_{i<=m} 1/h_i for every s >= 0. Derived: with the j <= m
    of the largest j/h_j, 1/h_i <= (j/h_j)/i for all i <= m, hence h_j/j <= harmonic_number(m) / Σ 1/h_i.
    """
    return harmonic_number(m)


# The same on a network, whose links carry a vector in their time and no other meanwhile.


def fragile_step_seconds(noise_ratio, h, ways):
    """(min_j t*(σ²/eps, h, [τ_{i->j} + τ_{j->i}]_i), number of useful workers, pivot): the seconds of one of LD/eps
    steps' worth of work of Fragile SGD (Fragile, Corollary 1). Of several best pivots it is the lowest-numbered.

    t* is `mpibench.network.equilibrium_seconds`: to count on workers that are slow or far away costs their time, to
    leave them out the rate of the others.
    """
    ways = numpy.asarray(ways, float)
    times, useful = equilibrium_seconds(noise_ratio, h, ways + ways.T)
    pivot = int((times <= times.min() * EQUAL).argmax())
    return float(times[pivot]), int(useful[pivot]), pivot


def fragile_seconds(h, ways, L, D, s2, eps):
    """Fragile SGD from the best pivot: (LD/eps) t*, in seconds up to a constant (Fragile, Theorem 5, Corollary 1)."""
    return L * D / eps * fragile_step_seconds(s2 / eps, h, ways)[0]


def fragile_lower_seconds(h, ways, L, D, s2, eps):
    """No method is faster for homogeneous data, up to a constant:

    (LD/eps) min_j t*(σ²/eps, h, [τ_{i->j}]_i) / (ln n + 1) seconds (Fragile, Theorem 1)."""
    times, _ = equilibrium_seconds(s2 / eps, h, numpy.asarray(ways, float).T)
    return L * D / eps * float(times.min()) / (math.log(len(h)) + 1)


def amelie_seconds(h, ways, L, D, s2, eps):
    """Amelie SGD: (LD/eps) max{max τ, max h, mean(h) σ²/(n eps)} seconds up to a constant, also the lower bound for
    heterogeneous data (Fragile)."""
    work = numpy.mean(h) * s2 / (eps * len(h))
    return L * D / eps * float(max(numpy.max(ways), numpy.max(h), work))


def tree_minibatch_seconds(h, ways, L, D, s2, eps):
    """Minibatch SGD on a network: (LD/eps) max{max τ, max h} (1 + σ²/(n eps)) seconds up to a constant (Fragile,
    equations (4) to (6))."""
    return L * D / eps * float(max(numpy.max(ways), numpy.max(h))) * (1 + s2 / (len(h) * eps))


def mesh_seconds(n, dimensions, seconds, edge_seconds, L, D, s2, eps):
    """Fragile SGD where n equal workers of `seconds` per gradient are on a mesh of so many dimensions, 1 for a line,
    with `edge_seconds`, ρ, for a vector on an edge: (LD/eps) (h + X) seconds up to a constant, which depends on the
    dimension N (Fragile).

    X = hσ²/eps, of one worker, if (hσ²/(eps ρ))^(N/(N+1)) <= 1; X = hσ²/(n eps), of all, if it is n or more; and
    ρ^(N/(N+1)) (hσ²/eps)^(1/(N+1)) in between.
    """
    N, work = dimensions, seconds * s2 / eps
    if work <= edge_seconds:
        share = work
    elif work >= edge_seconds * n ** ((N + 1) / N):
        share = work / n
    else:
        share = edge_seconds ** (N / (N + 1)) * work ** (1 / (N + 1))
    return L * D / eps * (seconds + share)


def line_seconds(n, seconds, edge_seconds, L, D, s2, eps):
    """The same on a line: X = sqrt(ρ hσ²/eps) where neither one worker nor all of them do best (Fragile)."""
    return mesh_seconds(n, 1, seconds, edge_seconds, L, D, s2, eps)


# The same with a server, whose workers need time to send.


def linked_minibatch_seconds(h, up, L, D, s2, eps):
    """Minibatch SGD: max(h_i + up_i) (LD/eps) (1 + σ²/(n eps)) (Shadowheart)."""
    return minibatch_seconds(numpy.add(h, up), L, D, s2, eps)


def linked_asgd_seconds(h, up, L, D, s2, eps):
    """Asynchronous SGD that sends a gradient before it begins the next: `asgd_seconds` for h_i + up_i (derived)."""
    return asgd_seconds(numpy.add(h, up), L, D, s2, eps)


def linked_rennala_seconds(h, up, L, D, s2, eps, down=0.0):
    """Rennala SGD: (LD/eps) t*(0, σ²/eps, h, up), Shadowheart SGD without compression (derived)."""
    return shadowheart_seconds(h, up, 0.0, L, D, s2, eps, down)


def qsgd_seconds(h, tau, omega, L, D, s2, eps):
    """Minibatch SGD with one compressed message from everybody: max(h_i + τ_i) (LD/eps) ((1 + ω/n) + (ω + 1) σ²/(n
    eps)) (Shadowheart)."""
    n = len(h)
    return float(numpy.add(h, tau).max()) * (L * D / eps) * ((1 + omega / n) + (omega + 1) * s2 / (n * eps))


def sgd_one_seconds(h, L, D, s2, eps):
    """The fastest worker alone, which sends nothing."""
    return single_seconds(float(numpy.min(h)), L, D, s2, eps)


def shadowheart_seconds(h, tau, omega, L, D, s2, eps, down=0.0):
    """Shadowheart SGD: (LD/eps) t*(ω, σ²/eps, h, τ), t* as in `mpibench.schedule`; at most 32 times as long.

    With messages of one coordinate it is the optimum of methods with compression and a server (Shadowheart)."""
    return L * D / eps * schedule.equilibrium_seconds(omega, s2 / eps, h, tau, down)


def equal_equilibrium_seconds(n, seconds, tau, omega, noise_ratio):
    """t* where n equal workers take `seconds` for a gradient and τ for a message: max{h, τ, s} with s = A + sqrt(A² + 4
    τ h ω σ²/(n eps)), A = (τ ω + h σ²/eps)/n. Up to a constant max{h, τ, τω/n, hσ²/(n eps), sqrt(τ h ω σ²/(n eps))}
    (Shadowheart)."""
    A = (tau * omega + seconds * noise_ratio) / n
    return max(seconds, tau, A + math.sqrt(A * A + 4 * tau * seconds * omega * noise_ratio / n))


def batch_qsgd_seconds(n, d, seconds, up, L, D, s2, eps, down=0.0):
    """QSGD with the best batch and message on n equal workers of h = `seconds` per gradient, where each of d numbers
    takes `up` seconds to the server and `down` seconds back: (LD/eps) (h (1 + σ²/(n eps)) + up (d/n + 1) + sqrt(d up
    hσ²/(n eps)) + down d) (Two-way)."""
    ratio = s2 / (n * eps)
    messages = up * (d / n + 1) + math.sqrt(d * up * seconds * ratio)
    return L * D / eps * (seconds * (1 + ratio) + messages + down * d)


def two_way_lower_seconds(n, d, seconds, down, L, D, s2, eps):
    """No method with unbiased compression is faster on n equal workers of h = `seconds` per gradient where each of d
    numbers takes `down` seconds to a worker and about as long back, up to logarithms (Two-way):

    (LD/eps) min{h (1 + σ²/(n eps)) + down d, h (1 + σ²/eps)}.

    The first is Minibatch SGD with whole vectors, the second one worker alone, so compression cannot help there.
    """
    alone, all_of_them = seconds * (1 + s2 / eps), seconds * (1 + s2 / (n * eps)) + down * d
    return L * D / eps * min(alone, all_of_them)


def compression_gain(h, up, down, tau, omega, s2, eps):
    """By how much the best method with compressed messages is ahead of the best without, up to a constant:

    min{t*(0, σ²/eps, h, up), h_1 (1 + σ²/eps)} / min{t*(ω, σ²/eps, h, τ), h_1 (1 + σ²/eps)}

    with `down`, (n,) seconds of a vector to each worker, in both t*; one worker alone sends nothing and is in both as
    well. It is never above 1 where up_i <= down_i: the point costs as much as compression could save (derived, as
    Two-way says of the lower bound).
    """
    alone = float(numpy.min(h)) * (1 + s2 / eps)
    without, compressed = (
        min(alone, schedule.equilibrium_seconds(ω, s2 / eps, h, seconds, down))
        for ω, seconds in ((0.0, up), (omega, tau))
    )
    return without / compressed


# Parameters, and the number of updates to a target.


def batch(s2, eps):
    """S = max(ceil(σ²/eps), 1) of Rennala (Rennala) and Fragile (Fragile, Theorem 4)."""
    return max(math.ceil(s2 / eps), 1)


def malenia_batch(n, s2, eps):
    """S = max(ceil(σ²/eps), n) of Malenia (Rennala) and Amelie (Fragile, Theorem 8)."""
    return max(math.ceil(s2 / eps), n)


def threshold(s2, eps):
    """Ringmaster's R = max(1, ceil(σ²/eps)); it does not depend on h (Ringmaster)."""
    return max(1, math.ceil(s2 / eps))


def quorum(h, s2, eps):
    """m-synchronous SGD's m = argmin h_m (1 + σ²/(m eps)) (m-Sync)."""
    return m_sync_seconds(h, 1.0, 1.0, s2, eps)[1]


def useful_workers(h, s2, eps):
    """m* = argmin_m H_m (1 + σ²/(m eps)), H_m the harmonic mean of the m smallest h: the workers of Naive Optimal ASGD,
    and those that Rennala and Ringmaster live on."""
    return rennala_seconds(h, 1.0, 1.0, s2, eps)[1]


def batch_stepsize(batch, L, s2, eps):
    """γ = 1/(2L) min(1, b eps/σ²) for the mean of b fresh gradients (Fragile, equations (4) to (6) for b = n; for b = S
    of `batch` Theorem 4's 1/(2L))."""
    return min(1.0, batch * eps / s2 if s2 else math.inf) / (2 * L)


def ringmaster_stepsize(R, L, s2, eps):
    """γ = min(1/(2RL), eps/(4Lσ²)) (Ringmaster; with R = n what asynchronous SGD gets here)."""
    return min(1 / (2 * R * L), eps / (4 * L * s2) if s2 else math.inf)


def ringleader_stepsize(h, L, s2, eps):
    """γ = min(1/(8nL), eps B/(10Lσ²)), B the least harmonic mean of a round's counts b_i, for which its lower bound
    h_n / (2 mean(h)), or 1, is put here (Ringleader)."""
    return min(1 / (8 * len(h) * L), eps * ringleader_counts(h) / (10 * L * s2) if s2 else math.inf)


def ringleader_counts(h):
    """A lower bound of the harmonic mean of the b_i of Ringleader's table: h_n / (2 mean(h)), at least 1."""
    return max(1.0, float(numpy.max(h) / (2 * numpy.mean(h))))


def updates(L, D, s2, eps, delay=1.0, batch=1.0):
    """Number of model updates to the target: 8 δ LD/eps + 16 σ²LD/(b eps²), rounded up.

    delay  δ, updates between a point and the use of its gradients; 1 where none is stale
    batch  b, such that the estimate behind an update has the variance σ²/b

    With delay = R and batch = 1 it is the K of Ringmaster's theorem, with delay = 1 and batch = S = σ²/eps Rennala's
    24 LD/eps (Fragile shows 16 LD/eps with γ = 1/(2L)). Other papers state the order only; they get the same constants,
    so that methods can be compared.
    """
    return math.ceil(8 * delay * L * D / eps + 16 * s2 * L * D / (batch * eps**2))


# Seconds per update: bounds. `mpibench.event_counts` has the exact ones.


def collect_bound(h, S):
    """Seconds in which S gradients come at the latest if all workers begin together: min_m (S + m) / Σ_{i<=m} 1/h_i.

    Without stops a worker may be busy with a stale gradient first, and twice this is the bound of a Rennala step (Gap,
    appendix F)."""
    m = numpy.arange(1, len(h) + 1)
    return least((S + m) / rates(h))[0]


def malenia_bound(h, S):
    """A Malenia step takes at most 2 (h_n + mean(h) S/n) seconds, with and without stops (Gap, appendix F)."""
    return 2 * float(numpy.max(h) + numpy.mean(h) * S / len(h))


def ringmaster_bound(h, R):
    """R consecutive updates of Ringmaster take at most t(R) = 2 min_m H_m (1 + R/m) seconds (Ringmaster, Lemma 4.1)."""
    return 2 * collect_bound(h, R)


def ringleader_bound(h):
    """The n updates of a round of Ringleader take at most 2 h_n seconds (Ringleader)."""
    return 2 * float(numpy.max(h))


# Speeds that change: the universal computation model. work(T0, T1) is the (n,) integral of each worker's gradients per
# second; the steps end where the counts of whole gradients suffice.


def rennala_step_end(work, S, start, share=1.0):
    """The least t at which Σ floor(share ∫_start^t) >= S: the end of a Rennala step that begins at `start` (Universal).

    share = 1/4 gives the end of R = S updates of Ringmaster at the latest, start + t(R; start) (Ringmaster). Seconds,
    to double precision; inf where the speeds never suffice.
    """
    return first(lambda t: numpy.floor(share * work(start, t) * (1 + 1e-12)).sum() >= S, start)


def malenia_step_end(work, S, start):
    """The least t at which n / Σ 1/N_i >= S/n with N_i = floor(∫_start^t): the end of a Malenia step (Universal)."""

    def enough(t):
        counts = numpy.floor(work(start, t) * (1 + 1e-12))
        return counts.min() >= 1 and len(counts) ** 2 * (1 + 1e-12) >= S * (1 / counts).sum()

    return first(enough, start)


def first(enough, start):
    """The least t > start at which enough(t), which stays true, by bisection; inf if it is not by 1e15 seconds."""
    length = 1.0
    while not enough(start + length):
        length *= 2
        if length > 1e15:
            return math.inf
    low, high = start, start + length
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
