"""Two methods seed by seed, and what may be claimed of how many runs."""

import math

import pytest
from test_analysis import meets, write

from analysis import pairs, races, tables, typeset
from analysis.claims import cannot, comparison, largest_family
from analysis.errors import InvalidInput

INF = math.inf
TIMES = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5]


def the_pair(folder, a="ringmaster", b="minibatch_sgd"):
    (pair,) = pairs.load(races.load([folder]), a, b)
    return pair


def at(pair, target=0.1):
    (row,) = [row for _, row in pair.rows.iterrows() if row.target == target]
    return row


def race(folder, hits, others):
    meets(folder, hits, algorithm="ringmaster")
    meets(folder, others, algorithm="minibatch_sgd")


def test_the_words_of_a_comparison_are_those_of_the_measuring_rules():
    said = comparison(1.3123, 1.1234, 1.5498, 10.0, 10, 0.01172, 6, slower="b", faster="a")
    assert said == "x1.31 [1.12, 1.55], wins 10 of 10, p = 0.012 (Holm, m = 6), n = 10 pairs"
    said = comparison(1.1, 0.9, 1.3, 6.5, 10, 0.4, 6, slower="b", faster="a")
    assert said == "no difference shown [0.9, 1.3], wins 6.5 of 10, p = 0.4 (Holm, m = 6), n = 10 pairs"


def test_a_comparison_by_hand(tmp_path):
    race(tmp_path, TIMES, [4 * t for t in TIMES])
    row = at(the_pair(tmp_path))
    assert (row.factor, row.factor_low, row.factor_high) == (4.0, 4.0, 4.0)
    assert (row.wins, row.pairs, row.comparisons) == (10.0, 10, 3)
    assert row.p == 2**-9 and row.p_holm == 3 * 2**-9
    assert pairs.text(row) == "x4 [4, 4], wins 10 of 10, p = 0.0059 (Holm, m = 3), n = 10 pairs"
    turned = at(the_pair(tmp_path, "minibatch_sgd", "ringmaster"))
    assert (turned.factor, turned.wins, turned.p) == (0.25, 0.0, row.p), "the other way round"


def test_a_comparison_says_so_where_it_shows_nothing(tmp_path):
    race(tmp_path, TIMES, TIMES[::-1])
    pair = the_pair(tmp_path)
    assert pairs.text(at(pair)).startswith("no difference shown [")
    assert any("no difference shown" in note for note in pairs.sheet(pair).notes)


def test_five_pairs_support_nothing(tmp_path):
    race(tmp_path, TIMES[:5], [4 * t for t in TIMES[:5]])
    pair = the_pair(tmp_path)
    assert pairs.text(at(pair)).startswith("n too small: 5 pairs")
    notes = " ".join(pairs.sheet(pair).notes)
    assert "no 95 % interval of a median exists" in notes and "0.0625" in notes


def test_misses_of_one_side_are_said_in_words(tmp_path):
    race(tmp_path, TIMES, [None] * 10)
    row = at(the_pair(tmp_path))
    assert pairs.text(row).startswith("minibatch_sgd missed, wins 10 of 10")
    assert math.isnan(row.p_log_rank), "five events in each arm are the fewest"


def test_two_names_of_one_method_and_unknown_names_are_refused(tmp_path):
    race(tmp_path, TIMES[:2], TIMES[:2])
    with pytest.raises(InvalidInput, match="are one method"):
        the_pair(tmp_path, "ringmaster", "ringmaster")
    with pytest.raises(InvalidInput, match="has both ringmaster and adam; they hold minibatch_sgd; ringmaster"):
        the_pair(tmp_path, "ringmaster", "adam")


@pytest.mark.parametrize(
    ("runs", "comparisons", "said"),
    [
        (1, 1, ["One run: no median, no interval"]),
        (4, 1, ["4 runs: no median"]),
        (5, 1, ["no 95 % interval of a median exists", "no interval of a ratio"]),
        (6, 1, ["no interval of a ratio"]),
        (6, 2, ["no interval of a ratio", "none can be significant"]),
        (10, 25, []),
        (10, 26, ["none can be significant"]),
    ],
)
def test_what_cannot_be_claimed(runs, comparisons, said):
    sentences = list(cannot(runs, comparisons))
    assert len(sentences) == len(said) and all(words in s for words, s in zip(said, sentences, strict=True))


@pytest.mark.parametrize(("pairs_", "most"), [(5, 0), (6, 1), (7, 3), (8, 6), (9, 12), (10, 25), (12, 102)])
def test_largest_family(pairs_, most):
    """The table of the measuring rules."""
    assert largest_family(pairs_) == most


def test_a_table_with_misses_counts_them_by_their_time(tmp_path):
    meets(tmp_path, [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, None, None, None], algorithm="ringmaster")
    table = tables.tabulate(races.load([tmp_path])[0])
    (row,) = [row for _, row in table.rows.iterrows() if row.target == 0.1]
    assert row.ert_seconds == (2 * 17.5 + 3 * 10.0) / 7
    assert row.survival_seconds == row.median_seconds == 6.0
    assert (row.survival_runs, row.survival_events, row.tail_seconds) == (10, 7, INF)
    shown = typeset.misses(table)
    (at_headline,) = [line for _, line in shown.iterrows() if line.target == "≤ 0.1 *"]
    assert at_headline["success"] == "7/10 [0.348, 0.933]" or at_headline["success"].startswith("7/10 [0.35, 0.93")
    assert at_headline["survival median"].startswith("6 [")


def test_a_run_stopped_from_outside_enters_survival_alone(tmp_path):
    meets(tmp_path, TIMES[:9], algorithm="ringmaster")
    write(tmp_path, [2.0, 2.0], [0.0, 3.0], seed=9, algorithm="ringmaster", outcome="walltime")
    table = tables.tabulate(races.load([tmp_path])[0])
    row = table.rows.iloc[0]
    assert (row.n, row.survival_runs, row.survival_events) == (9, 10, 9)
