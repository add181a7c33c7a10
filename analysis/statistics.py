"""The estimators, thin over scipy.stats: how numbers over runs are summarised and compared.

Arrays hold one value a run, a miss is +inf, and in two arrays that are compared entry k of both has the same seed. The
unit of resampling is the run. Whatever is drawn at random is drawn with a fixed seed, so every number is reproducible.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999

POINTS_MEDIAN = 6  # fewest runs that bear a 95 % interval of a median (coverage of the range of 5 is 0.9375)
POINTS_FRACTION = 5
POINTS_MEAN = 5  # of a harmonic or geometric mean, or an inter-quartile mean
POINTS_SURVIVAL, EVENTS_SURVIVAL = 10, 5  # of a survival curve, an expected running time, each arm of a log-rank test
POINTS_TAIL = 59  # 0.95**59 < 0.05: below, no order statistic bounds the 95th percentile from above
PAIRS_RATIO = 10
PAIRS_TEST = 6
BLOCKS = 10  # of a global test of several algorithms, and of a performance profile's band

ROUND_OFF = 1e-12  # by which an estimate of survival may exceed the probability that it stands for


def median(x, axis=-1):
    """The lower median: no interpolation, so that +inf is allowed."""
    return np.quantile(x, 0.5, axis=axis, method="inverted_cdf")


def median_interval(x):
    """(low, high) of the median by order statistics, coverage at least 95 %; (nan, nan) below 6 points."""
    if len(x) < POINTS_MEDIAN:
        return math.nan, math.nan
    ordered = np.sort(x)
    low, high = _median_ranks(len(x))
    return float(ordered[low]), float(ordered[high])


@cache
def _median_ranks(n):
    """Which of n values in order are the ends of the interval: they depend on n alone."""
    ends = _ends(stats.quantile_test(np.arange(n), q=0, p=0.5).confidence_interval(LEVEL))
    return tuple(map(int, ends))


def fraction_interval(k, n):
    """(low, high) of the success fraction k of n, exact (Clopper-Pearson); (nan, nan) below 5 runs."""
    if n < POINTS_FRACTION:
        return math.nan, math.nan
    return _ends(stats.binomtest(k, n).proportion_ci(LEVEL, method="exact"))


def ratio_interval(a, b, seed=0, resamples=RESAMPLES):
    """(ratio, low, high): the median of `a` over that of `b`, with its paired percentile bootstrap interval.

    Not BCa, which is undefined with misses and covers too little for medians of few runs. A ratio inf/inf is nan, and
    counts against both ends in the interval; an end at 0 or inf is open. Below 10 pairs the interval is (nan, nan).
    """

    def ratio(x, y, axis=-1):
        return median(x, axis) / median(y, axis)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of the nans that are expected here
        r = float(ratio(np.asarray(a), np.asarray(b)))
        if len(a) < PAIRS_RATIO:
            return r, math.nan, math.nan
        d = stats.bootstrap(
            (a, b),
            ratio,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=resamples,
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    return r, *_percentiles(d)


def paired_ratio(a, b):
    """(ratio, low, high): the median of the ratios of pairs, by order statistics; pairs of two misses are left out.

    (nan, nan, nan) if no pair is left, no interval below 6.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    both_missed = np.isinf(a) & np.isinf(b)
    a, b = a[~both_missed], b[~both_missed]
    if a.size == 0:
        return math.nan, math.nan, math.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(a == b, 1.0, a / b)  # equal times are a ratio of 1, also when both are 0
    return float(median(r)), *median_interval(r)


def wins(a, b):
    """(wins, low, high): in how many pairs `a` is below `b`, a tie (also two misses) counting half, and the fraction's
    exact interval; with half a win left over it is the wider one that covers both neighbours."""
    a, b = np.asarray(a), np.asarray(b)
    won = float((a < b).sum() + 0.5 * (a == b).sum())
    return won, fraction_interval(math.floor(won), a.size)[0], fraction_interval(math.ceil(won), a.size)[1]


def paired_test(a, b, seed=0):
    """Two-sided p of "no difference" over pairs of log times; nan below 6 pairs, where none can be significant.

    The permutation test of the mean log ratio, exact up to 13 pairs; where a run missed (or took no time) Wilcoxon's
    test, in its permutation form because infinities tie. Two misses are a difference of 0.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.size < PAIRS_TEST:
        return math.nan
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = np.log(a), np.log(b)
        if np.isfinite(x).all() and np.isfinite(y).all():
            test = stats.permutation_test(
                (x, y),
                lambda u, v, axis=-1: np.mean(u - v, axis=axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=RESAMPLES,
                rng=rng,
            )
            return float(test.pvalue)
        d = np.where(a == b, 0.0, x - y)
    if not d.any():
        return 1.0
    return _signed_ranks(d[d != 0], rng)


def _signed_ranks(d, rng):
    """Two-sided p of Wilcoxon's signed-rank test of differences without zeros, in its permutation form.

    That is `scipy.stats.wilcoxon` with a `PermutationMethod`, whose statistic is computed one resample at a time.
    """
    signed = np.sign(d) * stats.rankdata(np.abs(d))
    test = stats.permutation_test(
        (signed,),
        lambda ranks, axis=-1: ranks.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=rng,
    )
    return float(test.pvalue)


def holm(p):
    """Holm's adjusted p-values of one family; nan (not tested) is no member of it and stays nan."""
    p = np.asarray(p, float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((order.size - np.arange(order.size)) * p[order]))
    return adjusted


def expected_running_time(cost, reached, seed=0, resamples=RESAMPLES):
    """(ERT, low, high): the cost of all runs over the number of successes, with its percentile bootstrap interval.

    `cost` (n,) is what each run took, a miss its stored time; `reached` (n,) whether it met the target. Without a
    success ERT is inf, and what is known is that it exceeds the sum of the costs. The upper end is that of these runs
    and one more that misses at the largest cost: without it, misses too rare to be among n runs are taken for
    impossible, and the interval covers 0.83 to 0.93. Below 10 runs there is none.
    """
    cost, reached = np.asarray(cost, float), np.asarray(reached, float)
    ert = float(cost.sum() / reached.sum()) if reached.any() else math.inf
    if cost.size < POINTS_SURVIVAL:
        return ert, math.nan, math.nan
    low, _ = _running_times(cost, reached, seed, resamples)
    _, high = _running_times(np.append(cost, cost.max()), np.append(reached, 0.0), seed, resamples)
    return ert, low, high


def _running_times(cost, reached, seed, resamples):
    def running_time(c, r, axis=-1):
        return c.sum(axis) / r.sum(axis)

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample without a success is inf
        return _percentiles(
            stats.bootstrap(
                (cost, reached),
                running_time,
                paired=True,
                vectorized=True,
                method="percentile",
                n_resamples=resamples,
                rng=np.random.default_rng(seed),
            ).bootstrap_distribution
        )


@dataclass(frozen=True, eq=False)
class Survival:
    """The share of runs that have not met the target, after `times` (m,): S, with its pointwise 95 % band.

    `median` is the first time at which S is at most a half, inf where it never is, and `median_low`, `median_high` are
    where the ends of the band first are. The band, and with it the interval, is nan below 10 runs or 5 events.
    """

    times: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    median: float
    median_low: float
    median_high: float
    events: int


def survival(seconds, missed):
    """The `Survival` of runs (n,) by Kaplan and Meier; a miss is censored at its time.

    The band is that of the log-log transform. Where no run, or every run, has met the target this has no band, and the
    exact bound for none of that many runs at risk stands in; both ends never rise.
    """
    seconds, missed = np.asarray(seconds, float), np.asarray(missed, bool)
    events = int((~missed).sum())
    estimate = stats.ecdf(_censored(seconds, missed)).sf
    times, share = estimate.quantiles, estimate.probabilities
    low = high = np.full(times.shape, math.nan)
    if len(seconds) >= POINTS_SURVIVAL and events >= EVENTS_SURVIVAL:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # log log of 0 and 1, mended below
            band = estimate.confidence_interval(LEVEL, method="log-log")
        at_risk = np.array([(seconds >= time).sum() for time in times])
        none_of = ((1 - LEVEL) / 2) ** (1 / np.maximum(at_risk, 1))
        low = np.where(share >= 1, none_of, np.where(share <= 0, 0.0, band.low.probabilities))
        high = np.where(share >= 1, 1.0, np.where(share <= 0, 1 - none_of, band.high.probabilities))
        low, high = np.minimum.accumulate(low), np.minimum.accumulate(high)
    ends = (math.nan, math.nan) if np.isnan(low).any() else (_first_below(times, low), _first_below(times, high))
    return Survival(times, share, low, high, _first_below(times, share), *ends, events)


def log_rank(seconds_a, missed_a, seconds_b, missed_b):
    """Two-sided p of "the two survival curves are one", unpaired; nan below 10 runs or 5 events in either arm."""
    arms = [(np.asarray(s, float), np.asarray(m, bool)) for s, m in ((seconds_a, missed_a), (seconds_b, missed_b))]
    if any(len(s) < POINTS_SURVIVAL or (~m).sum() < EVENTS_SURVIVAL for s, m in arms):
        return math.nan
    return float(stats.logrank(*(_censored(s, m) for s, m in arms)).pvalue)


def friedman(times):
    """p of "all algorithms take the same time", over seeds: `times` (algorithms, seeds), misses +inf.

    nan below three algorithms or 10 seeds; 1 where every seed has nothing but ties.
    """
    times = np.asarray(times, float)
    if times.shape[0] < 3 or times.shape[1] < BLOCKS:
        return math.nan
    if (times == times[0]).all():
        return 1.0
    return float(stats.friedmanchisquare(*times).pvalue)


def all_pairs(times, seed=0):
    """(friedman, pairs): the global test first, then every pair (i, j), i < j, with its p and Holm's, by (i, j).

    `times` (algorithms, seeds); the family of Holm's adjustment is all pairs.
    """
    times = np.asarray(times, float)
    pairs = list(combinations(range(len(times)), 2))
    p = np.array([paired_test(times[i], times[j], seed) for i, j in pairs])
    adjusted = holm(p)
    return friedman(times), {pair: (float(p[k]), float(adjusted[k])) for k, pair in enumerate(pairs)}


def harmonic_mean(rates):
    """The mean of rates (work per second) of equal work; nan below 5."""
    return float(stats.hmean(rates)) if len(rates) >= POINTS_MEAN else math.nan


def geometric_mean(ratios):
    """The last resort for a mean of ratios, to be labelled as such; nan below 5."""
    return float(stats.gmean(ratios)) if len(ratios) >= POINTS_MEAN else math.nan


def interquartile_mean(x):
    """The mean of the middle half; nan below 5."""
    return float(stats.trim_mean(x, 0.25)) if len(x) >= POINTS_MEAN else math.nan


def percentile_95(x):
    """(value, bound): the 95th percentile over runs with its one-sided 95 % upper bound, misses +inf.

    Below 59 runs no order statistic is such a bound: then the maximum and nan.
    """
    if len(x) < POINTS_TAIL:
        return float(np.max(x)), math.nan
    bound = stats.quantile_test(x, q=0, p=0.95, alternative="less").confidence_interval(LEVEL).high
    return float(np.quantile(x, 0.95, method="inverted_cdf")), float(bound)


def to_best(times):
    """Each algorithm's time over the best one of its problem: `times` (algorithms, problems, ...), misses +inf.

    A problem that nobody solved is inf for all.
    """
    times = np.asarray(times, float)
    best = times.min(axis=0)
    ratios = np.full(times.shape, math.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(times, best, out=ratios, where=np.isfinite(times))
    return np.where(times == best, np.where(np.isfinite(times), 1.0, math.inf), ratios)


def performance_profile(times, factors):
    """The fraction of problems on which each algorithm needs at most so many times the best: (algorithms, factors)."""
    return (to_best(times)[..., None] <= np.asarray(factors, float)).mean(axis=1)


def profile_score(times, limit=4.0):
    """The mean height of each algorithm's performance profile from 1 to `limit`: (algorithms,).

    It depends on the set of algorithms: scores of two sets cannot be compared.
    """
    return np.clip((limit - to_best(times)) / (limit - 1), 0, 1).mean(axis=1)


@dataclass(frozen=True, eq=False)
class Profile:
    """Performance profiles at `factors` (f,): `share`, `low` and `high` (algorithms, f), scores (algorithms,)."""

    factors: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: np.ndarray
    score_low: np.ndarray
    score_high: np.ndarray


def profile(problems, factors, limit=4.0, seed=0, resamples=RESAMPLES):
    """The `Profile` of median times over the repetitions of each problem, with its percentile bootstrap band.

    `problems` are arrays (algorithms, repetitions), misses +inf; repetition k of all algorithms has the same seed, and
    repetitions are resampled within a problem, the same for all algorithms. nan for a band below 10 repetitions.
    """
    factors = np.asarray(factors, float)
    problems = [np.asarray(times, float) for times in problems]
    of_medians = np.stack([median(times) for times in problems], axis=1)  # (algorithms, problems)
    share, score = performance_profile(of_medians, factors), profile_score(of_medians, limit)
    if min(times.shape[1] for times in problems) < BLOCKS:
        unknown, of_score = np.full(share.shape, math.nan), np.full(score.shape, math.nan)
        return Profile(factors, share, unknown, unknown, score, of_score, of_score)
    rng = np.random.default_rng(seed)
    drawn = []  # (algorithms, problems, resamples)
    for times in problems:
        n = times.shape[1]
        repetitions = rng.integers(n, size=(resamples, n))
        drawn.append(np.stack([median(own[repetitions]) for own in times]))
    ratios = to_best(np.stack(drawn, axis=1))
    q = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    scores = np.clip((limit - ratios) / (limit - 1), 0, 1).mean(axis=1)
    of_score = np.quantile(scores, q, axis=-1, method="inverted_cdf")
    of_share = np.empty((2, *share.shape))
    for a, k in np.ndindex(*share.shape):  # one by one, for all at once would fill the memory
        of_share[:, a, k] = np.quantile((ratios[a] <= factors[k]).mean(axis=0), q, method="inverted_cdf")
    return Profile(factors, share, *of_share, score, *of_score)


def _censored(seconds, missed):
    """scipy's censored data; a miss without a time is after all others."""
    finite = np.isfinite(seconds)
    latest = seconds[finite].max() if finite.any() else 0.0
    return stats.CensoredData.right_censored(np.where(finite, seconds, np.nextafter(latest, math.inf)), missed)


def _first_below(times, share):
    below = np.flatnonzero(share <= 0.5 + ROUND_OFF)
    return float(times[below[0]]) if below.size else math.inf


def _percentiles(distribution):
    """The ends of the percentile bootstrap interval; what is undefined counts against both."""
    q = (1 - LEVEL) / 2
    low = np.quantile(np.where(np.isnan(distribution), 0.0, distribution), q, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(distribution), np.inf, distribution), 1 - q, method="inverted_cdf")
    return float(low), float(high)


def _ends(interval):
    return float(interval.low), float(interval.high)
