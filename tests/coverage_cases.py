"""Synthetic runs whose true numbers are known, for the coverage of every interval: benchmarks/coverage.py measures it,
tests/test_coverage.py holds it.

A case is a function of (rng, n, resamples) that draws n runs and gives (low, high, truth) of one or several intervals.
Times are log-normal: multiplicative and skewed, as times to a target are. An interval with a nan was not given.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis import statistics

SPREAD = 0.5  # of the logarithm of a time
LATE = 0.7  # this share of the runs meets the target within the budget
BUDGET = math.exp(SPREAD * stats.norm.ppf(LATE))
RATIO = 0.7  # the true ratio of medians
FACTORS = np.array([1.0, 1.25, 1.5, 2.0, 3.0])  # at which the band of a profile is looked at


@dataclass(frozen=True)
class Case:
    """One kind of interval on one kind of data, for these numbers of runs."""

    name: str
    draw: Callable
    runs: tuple[int, ...] = (10, 20)


def times(rng, *shape):
    """Times of median 1."""
    return np.exp(SPREAD * rng.normal(size=shape))


def capped(t):
    """(stored seconds, missed) under the common budget."""
    return np.minimum(t, BUDGET), t > BUDGET


def pairs(rng, n, shared=0.3):
    """Times of two algorithms over n seeds; a seed does the same to both, by a spread of `shared`."""
    both = np.exp(shared * rng.normal(size=n))
    return RATIO * both * np.exp(0.3 * rng.normal(size=n)), both * np.exp(0.3 * rng.normal(size=n))


def median_with_misses(rng, n, resamples):
    stored, missed = capped(times(rng, n))
    return *statistics.median_interval(np.where(missed, math.inf, stored)), 1.0


def success_fraction(probability):
    def draw(rng, n, resamples):
        return *statistics.fraction_interval(int(rng.binomial(n, probability)), n), probability

    return draw


def running_time(late):
    budget = math.exp(SPREAD * stats.norm.ppf(late))
    cost = stats.lognorm.expect(lambda t: t, (SPREAD,), lb=0, ub=budget) + budget * (1 - late)

    def draw(rng, n, resamples):
        t = times(rng, n)
        _, low, high = statistics.expected_running_time(np.minimum(t, budget), t <= budget, resamples=resamples)
        return low, high, cost / late

    return draw


def _survived(rng, n):
    """(time, missed) where every run has its own budget."""
    t, budget = times(rng, n), 0.6 + 2 * rng.random(n)
    return statistics.survival(np.minimum(t, budget), t > budget)


def survival_band(share):
    """The band at the time that this share of the runs really exceeds."""
    at = math.exp(SPREAD * stats.norm.isf(share))

    def draw(rng, n, resamples):
        estimate = _survived(rng, n)
        place = int(np.searchsorted(estimate.times, at, side="right")) - 1
        if place < 0 or at > estimate.times[-1]:
            return math.nan, math.nan, share  # before the first run ended, or after the last: nothing is drawn there
        return estimate.low[place], estimate.high[place], share

    return draw


def survival_median(rng, n, resamples):
    estimate = _survived(rng, n)
    return estimate.median_low, estimate.median_high, 1.0


def ratio(rng, n, resamples):
    return *statistics.ratio_interval(*pairs(rng, n), resamples=resamples)[1:], RATIO


def ratio_with_misses(rng, n, resamples):
    a, b = pairs(rng, n)
    a, b = (np.where(x > 1.5, math.inf, x) for x in (a, b))  # the slower one misses in a fifth of the runs
    return *statistics.ratio_interval(a, b, resamples=resamples)[1:], RATIO


def paired_ratio(rng, n, resamples):
    return *statistics.paired_ratio(*pairs(rng, n))[1:], RATIO


def win_fraction(rng, n, resamples):
    a, b = pairs(rng, n)
    return *statistics.wins(a, b)[1:], float(stats.norm.cdf(-math.log(RATIO), scale=0.3 * math.sqrt(2)))


def percentile_95(rng, n, resamples):
    return 0.0, statistics.percentile_95(times(rng, n))[1], math.exp(SPREAD * stats.norm.ppf(0.95))


def _problems(rng, n, problems=10):
    """(true medians (3, problems), times (3, n) of each problem)."""
    medians = np.exp(np.random.default_rng(7).normal(scale=0.7, size=(3, problems)))
    noise = np.exp(0.3 * rng.normal(size=(problems, 3, n)))
    return medians, [medians[:, [k]] * times(rng, 1, n) * noise[k] for k in range(problems)]


def profile_band(rng, n, resamples):
    medians, of_problems = _problems(rng, n)
    made = statistics.profile(of_problems, FACTORS, resamples=resamples)
    return made.low, made.high, statistics.performance_profile(medians, FACTORS)


def profile_score(rng, n, resamples):
    medians, of_problems = _problems(rng, n)
    made = statistics.profile(of_problems, FACTORS, resamples=resamples)
    return made.score_low, made.score_high, statistics.profile_score(medians)


CASES = (
    Case("median, misses", median_with_misses, (6, 10, 20)),
    Case("success fraction, true 0.5", success_fraction(0.5), (5, 10, 20)),
    Case("success fraction, true 0.95", success_fraction(0.95), (5, 10, 20)),
    Case("expected running time, 7 of 10 reach", running_time(0.7)),
    Case("expected running time, 95 of 100 reach", running_time(0.95)),
    Case("survival band where S = 0.75", survival_band(0.75)),
    Case("survival band where S = 0.5", survival_band(0.5)),
    Case("survival band where S = 0.25", survival_band(0.25)),
    Case("survival median, budgets differ", survival_median),
    Case("ratio of medians", ratio),
    Case("ratio of medians, misses", ratio_with_misses),
    Case("median of paired ratios", paired_ratio, (6, 10, 20)),
    Case("win fraction", win_fraction, (6, 10, 20)),
    Case("95th percentile, upper bound", percentile_95, (59, 100)),
    Case("performance profile, band", profile_band),
    Case("performance profile, score", profile_score),
)


def coverage(case, n, replications, resamples, seed=0):
    """(share of intervals that hold the truth, share of intervals that were given)."""
    rng = np.random.default_rng([seed, n])
    drawn = [np.broadcast_arrays(*case.draw(rng, n, resamples)) for _ in range(replications)]
    low, high, truth = (np.array(column, float).ravel() for column in zip(*drawn, strict=True))
    given = ~(np.isnan(low) | np.isnan(high))
    return float(((low <= truth) & (truth <= high))[given].mean()), float(given.mean())


def level(draw_p, replications, seed=0):
    """The share of p at most 0.05 where there is no difference; `draw_p` is a function of rng."""
    rng = np.random.default_rng(seed)
    return float(np.mean([draw_p(rng) <= 0.05 for _ in range(replications)]))


def null_paired(rng, n=10):
    return statistics.paired_test(*rng.lognormal(size=(2, n)))


def null_paired_with_misses(rng, n=10):
    t = rng.lognormal(size=(2, n))
    return statistics.paired_test(*np.where(t > 2, math.inf, t))


def null_log_rank(rng, n=20):
    arms = [capped(times(rng, n)) for _ in range(2)]
    return statistics.log_rank(*arms[0], *arms[1])


def null_friedman(rng, n=10):
    return statistics.friedman(times(rng, 4, n))


def null_family(rng, n=10):
    """The least adjusted p of all pairs of four equal algorithms."""
    return min(adjusted for _, adjusted in statistics.all_pairs(times(rng, 4, n))[1].values())


LEVELS = {
    "paired permutation test, n = 10": null_paired,
    "Wilcoxon with misses, n = 10": null_paired_with_misses,
    "log-rank, n = 20 in each arm": null_log_rank,
    "Friedman, 4 algorithms, n = 10": null_friedman,
    "Holm over 6 pairs of 4 algorithms, n = 10": null_family,
}
