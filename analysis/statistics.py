"""The estimators, thin over scipy.stats: how numbers over runs are summarised and compared.

Arrays hold one value a run, a miss is +inf, and in two arrays that are compared entry k of both has the same seed. The
unit of resampling is the run. Whatever is drawn at random is drawn with a fixed seed, so every number is reproducible.
"""

import math
import warnings

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9999

POINTS_MEDIAN = 6  # fewest runs that bear a 95 % interval of a median (coverage of the range of 5 is 0.9375)
POINTS_FRACTION = 5
PAIRS_RATIO = 10
PAIRS_TEST = 6


def median(x, axis=-1):
    """The lower median: no interpolation, so that +inf is allowed."""
    return np.quantile(x, 0.5, axis=axis, method="inverted_cdf")


def median_interval(x):
    """(low, high) of the median by order statistics, coverage at least 95 %; (nan, nan) below 6 points."""
    if len(x) < POINTS_MEDIAN:
        return math.nan, math.nan
    return _ends(stats.quantile_test(x, q=0, p=0.5).confidence_interval(LEVEL))


def fraction_interval(k, n):
    """(low, high) of the success fraction k of n, exact (Clopper-Pearson); (nan, nan) below 5 runs."""
    if n < POINTS_FRACTION:
        return math.nan, math.nan
    return _ends(stats.binomtest(k, n).proportion_ci(LEVEL, method="exact"))


def ratio_interval(a, b, seed=0):
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
            n_resamples=RESAMPLES,
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    q = (1 - LEVEL) / 2
    low = np.quantile(np.where(np.isnan(d), 0.0, d), q, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(d), np.inf, d), 1 - q, method="inverted_cdf")
    return r, float(low), float(high)


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
    return float(stats.wilcoxon(d, method=stats.PermutationMethod(n_resamples=RESAMPLES, rng=rng)).pvalue)


def holm(p):
    """Holm's adjusted p-values of one family; nan (not tested) is no member of it and stays nan."""
    p = np.asarray(p, float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((order.size - np.arange(order.size)) * p[order]))
    return adjusted


def _ends(interval):
    return float(interval.low), float(interval.high)
