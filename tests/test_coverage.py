"""What intervals and tests promise, on synthetic runs; benchmarks/coverage.py measures the same with many more."""

import math

import pytest
from coverage_cases import CASES, LEVELS, coverage, level

REPLICATIONS = 300
RESAMPLES = 299


COUNTED = [pytest.param(case, n, id=f"{case.name}, {n} runs") for case in CASES for n in case.runs if n != 20]


@pytest.mark.parametrize(("case", "n"), COUNTED)
def test_an_interval_covers_what_it_says(case, n):
    """95 % promised; with 300 replications the bound is 3 standard errors below 0.95."""
    covered, given = coverage(case, n, REPLICATIONS, RESAMPLES)
    assert covered > 0.95 - 3 * math.sqrt(0.95 * 0.05 / REPLICATIONS)
    assert given > 0.7, "an interval that is hardly ever given promises nothing"


@pytest.mark.parametrize("name", LEVELS)
def test_a_test_keeps_its_level(name):
    rejected = level(LEVELS[name], 200)
    assert rejected <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_an_interval_that_is_too_narrow_is_noticed():
    """The same bound on an interval that it must refuse: half of a 95 % one."""
    (ratio,) = (case for case in CASES if case.name == "ratio of medians")

    def halved(rng, n, resamples):
        low, high, truth = ratio.draw(rng, n, resamples)
        middle = math.sqrt(low * high)
        return math.sqrt(low * middle), math.sqrt(middle * high), truth

    covered, _ = coverage(type(ratio)("halved", halved), 10, REPLICATIONS, RESAMPLES)
    assert covered < 0.95 - 3 * math.sqrt(0.95 * 0.05 / REPLICATIONS)
