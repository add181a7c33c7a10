"""The estimators against values worked out by hand, their own laws, and their promise of coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis import statistics

INF = math.inf


def test_median_takes_the_lower_middle_and_allows_misses():
    assert statistics.median([4.0, 1.0, 3.0, 2.0]) == 2.0
    assert statistics.median([5.0, INF, 1.0, INF, 2.0]) == 5.0
    assert statistics.median([INF, 1.0, INF]) == INF
    assert list(statistics.median(np.array([[1.0, 2.0, 9.0], [INF, INF, 0.0]]))) == [2.0, INF]


@pytest.mark.parametrize("seed", range(20))
def test_median_is_that_of_kaplan_and_meier_where_all_runs_share_one_budget(seed):
    rng = np.random.default_rng(seed)
    times = rng.lognormal(size=rng.integers(5, 15))
    missed = times > 1.5
    survival = stats.ecdf(stats.CensoredData.right_censored(np.minimum(times, 1.5), missed)).sf
    met = np.flatnonzero(survival.probabilities <= 0.5 + 1e-12)
    expected = survival.quantiles[met[0]] if met.size else INF
    assert statistics.median(np.where(missed, INF, times)) == expected


def test_interval_of_a_median_is_made_of_order_statistics():
    assert statistics.median_interval(np.arange(1.0, 11.0)) == (2.0, 9.0)  # of 10 runs, the 2nd and the 9th: 0.979
    assert statistics.median_interval(np.arange(1.0, 7.0)) == (1.0, 6.0)  # of 6 runs, all: 1 - 2/2**6 = 0.969
    assert statistics.median_interval([3.0, 1.0, 2.0, INF, INF, INF, INF]) == (1.0, INF)
    assert all(map(math.isnan, statistics.median_interval(np.arange(5.0))))


def test_interval_of_a_success_fraction_is_exact():
    assert statistics.fraction_interval(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert statistics.fraction_interval(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)))
    assert all(map(math.isnan, statistics.fraction_interval(4, 4)))


def test_ratio_of_exactly_proportional_runs_is_known_exactly():
    b = np.random.default_rng(0).lognormal(size=10)
    assert statistics.ratio_interval(b / 4, b) == (0.25, 0.25, 0.25)


def test_ratio_needs_ten_pairs_for_an_interval():
    b = np.arange(1.0, 10.0)
    r, low, high = statistics.ratio_interval(2 * b, b)
    assert r == 2.0 and math.isnan(low) and math.isnan(high)


def test_ratio_with_misses():
    finite, missed = np.arange(1.0, 11.0), np.full(10, INF)
    assert statistics.ratio_interval(missed, finite) == (INF, INF, INF)
    assert statistics.ratio_interval(finite, missed) == (0.0, 0.0, 0.0)
    r, low, high = statistics.ratio_interval(missed, missed)  # inf/inf counts against both ends
    assert math.isnan(r) and (low, high) == (0.0, INF)
    some = np.where(finite > 7, INF, finite)
    r, low, high = statistics.ratio_interval(some, finite)
    assert r == 1.0 and 0 < low <= 1.0 and high == INF


def test_ratio_scales_and_does_not_depend_on_the_order_of_the_pairs():
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(size=(2, 12))
    plain = statistics.ratio_interval(a, b)
    assert statistics.ratio_interval(8 * a, 2 * b) == pytest.approx(tuple(4 * end for end in plain))
    assert statistics.ratio_interval(a[::-1], b[::-1])[0] == plain[0]
    assert statistics.ratio_interval(a, b) == plain, "the same numbers again"


def test_interval_of_the_ratio_covers_the_true_ratio_of_medians():
    """95 % promised, 0.96 to 0.99 known for n = 8 to 20; the bound is 4 standard errors below 0.95."""
    rng = np.random.default_rng(0)
    trials, covered = 200, 0
    for _ in range(trials):
        shared = rng.normal(scale=0.3, size=10)  # what a seed does to both
        a = 0.7 * np.exp(shared + rng.normal(scale=0.3, size=10))
        b = np.exp(shared + rng.normal(scale=0.3, size=10))
        _, low, high = statistics.ratio_interval(a, b)
        covered += low <= 0.7 <= high
    assert covered / trials > 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials)
    assert covered < trials, "an interval that never fails says nothing"


def test_interval_of_the_paired_ratio_covers_the_true_one():
    rng = np.random.default_rng(1)
    trials, covered = 400, 0
    for _ in range(trials):
        b = rng.lognormal(size=10)
        a = 0.7 * b * np.exp(rng.normal(scale=0.3, size=10))
        _, low, high = statistics.paired_ratio(a, b)
        covered += low <= 0.7 <= high
    assert 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials) < covered / trials < 1


def test_paired_ratio_leaves_out_pairs_of_two_misses():
    a = np.array([1.0, 2.0, 3.0, INF, INF, 4.0, 5.0, 6.0])
    b = np.array([2.0, 2.0, 1.0, INF, 1.0, 1.0, 1.0, INF])
    # left: 0.5, 1, 3, inf, 4, 5, 0; sorted 0, 0.5, 1, 3, 4, 5, inf; of 7 the interval is the 1st and the 7th
    assert statistics.paired_ratio(a, b) == (3.0, 0.0, INF)
    assert all(map(math.isnan, statistics.paired_ratio([INF], [INF])))
    assert statistics.paired_ratio([0.0] * 6, [0.0] * 6) == (1.0, 1.0, 1.0)


def test_wins_count_ties_half():
    a = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, INF])
    b = np.array([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, INF])
    won, low, high = statistics.wins(a, b)
    assert won == 6.5
    assert low == stats.binomtest(6, 10).proportion_ci(method="exact").low
    assert high == stats.binomtest(7, 10).proportion_ci(method="exact").high
    assert statistics.wins(b, a)[0] == 10 - won


@pytest.mark.parametrize("n", range(6, 11))
def test_smallest_p_of_the_paired_test(n):
    a = np.random.default_rng(n).lognormal(size=n)
    assert statistics.paired_test(a, 3 * a) == pytest.approx(2 ** (1 - n))
    assert statistics.paired_test(a, np.full(n, INF)) == pytest.approx(2 ** (1 - n)), "misses on one side"


@pytest.mark.parametrize("seed", range(4))
def test_with_misses_the_paired_test_is_wilcoxons_by_permutation(seed):
    """Exact up to 13 pairs, ties and infinities included."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(1, 6, size=(2, 9)).astype(float)
    a[:2], b[2] = INF, INF
    with np.errstate(invalid="ignore"):
        d = np.where(a == b, 0.0, np.log(a) - np.log(b))
    expected = stats.wilcoxon(d, method=stats.PermutationMethod(n_resamples=9999, rng=rng)).pvalue
    assert statistics.paired_test(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("n", [6, 7, 10, 33])
def test_interval_of_a_median_is_that_of_the_quantile_test(n):
    x = np.random.default_rng(n).lognormal(size=n)
    expected = stats.quantile_test(x, q=0, p=0.5).confidence_interval(0.95)
    assert statistics.median_interval(x) == (expected.low, expected.high)


def test_paired_test_without_a_difference():
    a = np.arange(1.0, 11.0)
    assert statistics.paired_test(a, a) == 1.0
    assert statistics.paired_test(np.full(8, INF), np.full(8, INF)) == 1.0
    assert math.isnan(statistics.paired_test(a[:5], 2 * a[:5]))
    b = a[::-1] * np.where(a > 8, INF, 1.0)
    assert statistics.paired_test(a, b) == pytest.approx(statistics.paired_test(b, a)), "neither side comes first"


def test_paired_test_keeps_its_level():
    """Under no difference p <= 0.05 in at most 5 % of the cases, but for 4 standard errors."""
    rng = np.random.default_rng(2)
    trials = 400
    rejected = sum(statistics.paired_test(*rng.lognormal(size=(2, 7))) <= 0.05 for _ in range(trials))
    assert 0 < rejected / trials <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / trials)


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    adjusted = statistics.holm([0.02, math.nan, 0.01])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02]) and math.isnan(adjusted[1]), (
        "what is not tested is no member"
    )
    assert statistics.holm([]).size == 0


@pytest.mark.parametrize(("n", "most"), [(5, 0), (6, 1), (7, 3), (8, 6), (9, 12), (10, 25), (12, 102)])
def test_how_many_comparisons_can_be_significant(n, most):
    """The table of the measuring rules: with the smallest p of n pairs, this many and no more pass Holm at 0.05."""
    p = 2.0 ** (1 - n)
    assert not most or statistics.holm([p] * most).min() <= 0.05
    assert statistics.holm([p] * (most + 1)).min() > 0.05


def test_expected_running_time_by_hand():
    cost, reached = [1.0, 2.0, 4.0, 4.0, 1.0] * 2, [1, 1, 0, 0, 1] * 2
    ert, low, high = statistics.expected_running_time(cost, reached)
    assert ert == 24 / 6 and low < ert < high
    assert statistics.expected_running_time(cost, [0] * 10)[0] == INF
    assert statistics.expected_running_time([1.0] * 5, [1] * 5)[0] == 1.0
    assert all(map(math.isnan, statistics.expected_running_time([1.0] * 9, [1] * 9)[1:])), "below 10 runs no interval"
    ert, low, high = statistics.expected_running_time([2.0] * 10, [1] * 10)
    assert (ert, low) == (2.0, 2.0) and high > 2.0, "that all of ten met it does not say that all will"
    assert statistics.expected_running_time([INF, *[1.0] * 9], [0, *[1] * 9])[0] == INF


def test_survival_by_hand():
    # 10 runs; one is censored at 2.5: S steps by 1/10 at 1 and 2, then by 8/10 / 7 of those still at risk
    seconds = [1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    missed = [False, False, True, *[False] * 7]
    made = statistics.survival(seconds, missed)
    assert list(made.times) == seconds
    assert made.share[:4] == pytest.approx([0.9, 0.8, 0.8, 0.8 * 6 / 7])
    assert made.median == 5.0 and made.events == 9
    assert made.median_low < 5.0 < made.median_high
    assert (made.low <= made.share).all() and (made.share <= made.high).all()


def test_survival_median_tolerates_round_off():
    """Ten runs: after the fifth S is one half, up to round-off on the safe side."""
    assert statistics.survival(np.arange(1.0, 11.0), [False] * 10).median == 5.0


def test_survival_of_runs_that_never_meet_the_target():
    made = statistics.survival([10.0] * 12, [True] * 12)
    assert made.median == INF and np.isnan(made.low).all() and math.isnan(made.median_low)
    made = statistics.survival([INF] * 6 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [True] * 6 + [False] * 6)
    assert made.median == 6.0 and made.share[-1] == pytest.approx(0.5), "a miss without a time is after all others"


def test_survival_where_the_transform_is_undefined():
    made = statistics.survival(np.arange(1.0, 11.0), [True, *[False] * 9])
    assert made.share[0] == 1.0 and made.high[0] == 1.0
    assert made.low[0] == pytest.approx(0.025 ** (1 / 10)), "none of ten at risk"
    assert made.share[-1] == 0.0 and made.low[-1] == 0.0 and 0 < made.high[-1] < 1
    assert (np.diff(made.low) <= 0).all() and (np.diff(made.high) <= 0).all()


def test_log_rank_needs_ten_runs_and_five_events_in_each_arm():
    early, late = np.arange(1.0, 13.0), np.arange(21.0, 33.0)
    met = np.zeros(12, bool)
    assert statistics.log_rank(early, met, late, met) < 1e-4
    assert statistics.log_rank(early, met, early, met) == pytest.approx(1.0)
    few = np.arange(12) >= 4
    assert math.isnan(statistics.log_rank(early, few, late, met))
    assert math.isnan(statistics.log_rank(early[:9], met[:9], late, met))


def test_friedman_against_its_formula():
    times = np.random.default_rng(5).lognormal(size=(4, 10))
    ranks = stats.rankdata(times, axis=0).sum(axis=1)
    q = 12 / (10 * 4 * 5) * (ranks**2).sum() - 3 * 10 * 5
    assert statistics.friedman(times) == pytest.approx(stats.chi2.sf(q, 3))
    assert math.isnan(statistics.friedman(times[:2])) and math.isnan(statistics.friedman(times[:, :9]))
    assert statistics.friedman(np.full((3, 10), INF)) == 1.0


def test_all_pairs_are_one_family():
    times = np.stack([np.arange(1.0, 11.0) * factor for factor in (1.0, 1.0, 3.0)])
    times[1] = times[0][::-1]
    _, pairs = statistics.all_pairs(times)
    assert list(pairs) == [(0, 1), (0, 2), (1, 2)]
    assert pairs[0, 2] == pytest.approx((2**-9, 3 * 2**-9))
    assert pairs[0, 1][1] > 0.9


def test_means_say_nothing_of_four():
    assert statistics.harmonic_mean([1.0, 1.0, 1.0, 1.0, 0.25]) == pytest.approx(5 / 8)
    assert statistics.geometric_mean([1.0, 1.0, 1.0, 1.0, 32.0]) == pytest.approx(2.0)
    assert statistics.interquartile_mean([-100.0, 1.0, 2.0, 3.0, 100.0]) == 2.0
    for mean in (statistics.harmonic_mean, statistics.geometric_mean, statistics.interquartile_mean):
        assert math.isnan(mean([1.0] * 4))


def test_percentile_95_is_the_maximum_below_59_runs():
    assert statistics.percentile_95(np.arange(1.0, 59.0))[0] == 58.0
    assert math.isnan(statistics.percentile_95(np.arange(1.0, 59.0))[1])
    assert statistics.percentile_95(np.arange(1.0, 60.0)) == (57.0, 59.0)
    assert statistics.percentile_95(np.append(np.arange(1.0, 100.0), INF)) == (95.0, 99.0), "0.95**100 allows one above"


def test_performance_profiles_by_hand():
    times = np.array([[1.0, 2.0, INF, INF], [2.0, 1.0, 3.0, INF]])
    assert statistics.performance_profile(times, [1.0, 2.0, 5.0]).tolist() == [[0.25, 0.5, 0.5], [0.5, 0.75, 0.75]]
    # with a limit of 4: (1 + 2/3 + 0 + 0) / 4 and (2/3 + 1 + 1 + 0) / 4
    assert statistics.profile_score(times) == pytest.approx([5 / 12, 8 / 12])
    assert statistics.to_best([[0.0], [0.0], [1.0]]).ravel().tolist() == [1.0, 1.0, INF], "a start at the target"


def test_score_is_the_integral_of_the_profile():
    times = np.random.default_rng(3).lognormal(size=(3, 20))
    factors = np.linspace(1, 4, 30001)
    heights = statistics.performance_profile(times, factors)
    assert np.trapezoid(heights, factors) / 3 == pytest.approx(statistics.profile_score(times), abs=1e-3)


def test_profile_resamples_repetitions_in_common():
    """Where one algorithm takes three times as long as the other in every repetition, no resample says otherwise."""
    rng = np.random.default_rng(0)
    problems = [np.outer([1.0, 3.0], rng.lognormal(size=n)) for n in (10, 12, 15)]
    made = statistics.profile(problems, [1.0, 2.99, 3.01], resamples=99)
    assert made.share.tolist() == made.low.tolist() == made.high.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert made.score == pytest.approx([1.0, 1 / 3]) and made.score_low == pytest.approx(made.score)
    assert np.isnan(statistics.profile([times[:, :9] for times in problems], [1.0]).low).all()
