"""What may be said of so many runs, and what may not: the sentences that stand beside tables and in the report."""

import math

from analysis import statistics
from analysis.rounding import interval, number

NO_DIFFERENCE = "no difference shown"
TOO_SMALL = "n too small"


def comparison(factor, low, high, won, pairs, p, family, slower, faster):
    """One comparison in the words of the measuring rules: "x1.31 [1.12, 1.55], wins 10 of 10, p = 0.012 (...)".

    `factor` is the median of the method `slower` over that of `faster`, above 1 where `faster` is faster indeed.
    """
    if pairs < statistics.PAIRS_TEST:
        return f"{TOO_SMALL}: {pairs} pairs support no interval and no test, the fewest that do are 6"
    named = {0.0: f"{faster} missed", math.inf: f"{slower} missed"}
    said = "both missed" if math.isnan(factor) else named.get(factor) or f"x{number(factor)}"
    if math.isnan(low):
        said += f" ({TOO_SMALL} for its interval)"
    elif low <= 1 <= high:
        said = f"{NO_DIFFERENCE} {interval(low, high)}"
    elif low != high or 0 < factor < math.inf:
        said += f" {interval(low, high)}"
    return f"{said}, wins {won:g} of {pairs}, p = {number(p, 2)} (Holm, m = {family}), n = {pairs} pairs"


def cannot(runs, comparisons=1):
    """Sentences on what this number of runs (or pairs) cannot support; none from ten runs on, if tests can pass."""
    if runs < statistics.POINTS_FRACTION:
        count = {0: "No run counts", 1: "One run"}.get(runs, f"{runs} runs")
        yield f"{count}: no median, no interval and no comparison can be claimed; what is shown are points."
        return
    if runs < statistics.POINTS_MEDIAN:
        yield (
            f"{runs} runs: no 95 % interval of a median exists (all of 5 runs cover it in 94 % of the cases), and no "
            "difference can be significant (the smallest two-sided p of 5 pairs is 0.0625)."
        )
    if runs < statistics.PAIRS_RATIO:
        yield f"{runs} runs: no interval of a ratio of medians, of an expected running time or of a survival curve."
    most = largest_family(runs)
    if runs >= statistics.PAIRS_TEST and comparisons > most:
        yield (
            f"{runs} pairs and {comparisons} comparisons: none can be significant, as the smallest p of {runs} pairs "
            f"is {number(2.0 ** (1 - runs), 2)} and Holm's adjustment at 0.05 allows {most}."
        )


def largest_family(pairs):
    """How many comparisons of so many pairs Holm's adjustment at 0.05 lets pass at best."""
    return math.floor(0.05 * 2.0 ** (pairs - 1) + 1e-9) if pairs >= statistics.PAIRS_TEST else 0
