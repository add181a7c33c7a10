"""Staleness: percentiles, bins and marks against values worked out by hand."""

import hashlib
import io
import math
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from test_analysis import refused, write

from analysis import __main__ as command_line
from analysis import histograms, plots, races, sheets, staleness
from analysis.read import find


def stale(folder, histogram, *, seed=0, discarded=0, seconds=None, is_open=0, **different):
    """A result file with this staleness histogram, so many discarded gradients, and ages in its recorded updates."""
    path = write(folder, [2.0, 1.0, 0.5], seed=seed, **different)
    with h5py.File(path, "a") as file:
        file["updates/staleness_histogram"] = np.array(histogram)
        file["updates/staleness_histogram"].attrs["open"] = is_open
        file["trace/discarded"][:] = [0, 0, discarded]
        if seconds is not None:
            file["updates/time"] = np.arange(1.0, len(seconds) + 1)
            file["updates/staleness_seconds"] = seconds
    return path


def the_staleness(folder):
    (made,) = staleness.load(races.load([folder]))
    return made


def row(made, method="ringmaster"):
    (found,) = [r for _, r in made.rows.iterrows() if r.method == method]
    return found


def cells(made, method="ringmaster", frame=0):
    shown = staleness.sheet(made).frames[frame]
    return shown[shown["method"] == method].iloc[0].to_dict()


# numbers


@pytest.mark.parametrize(
    ("histogram", "median", "p99"),
    [
        ([5], 0, 0),
        ([50, 50], 0, 1),  # the lower median: half are not above it
        ([49, 51], 1, 1),
        ([99, 0, 0, 1], 0, 0),
        ([98, 0, 0, 2], 0, 3),
        ([0, 0, 1, 1, 1, 0], 3, 4),
    ],
)
def test_percentiles_by_hand(histogram, median, p99):
    assert (staleness.percentile(histogram, 50), staleness.percentile(histogram, 99)) == (median, p99)


@pytest.mark.parametrize("seed", range(10))
def test_percentiles_are_those_of_the_gradients_one_by_one(seed):
    rng = np.random.default_rng(seed)
    delays = rng.geometric(0.05, size=rng.integers(1, 1000))
    for percent in (1, 50, 90, 99):
        expected = np.quantile(delays, percent / 100, method="inverted_cdf")
        assert staleness.percentile(np.bincount(delays), percent) == expected


def test_without_gradients_there_is_no_percentile():
    assert math.isnan(staleness.percentile([], 50)) and math.isnan(staleness.percentile([0, 0], 50))


def test_runs_are_summarised_and_their_histograms_pooled(tmp_path):
    parameters = {"stepsize": 0.1, "threshold": 3}
    for seed in range(6):  # run k: all gradients k updates old but one, which is ten
        histogram = [0] * seed + [99] + [0] * (9 - seed) + [1, 0]
        stale(tmp_path, histogram, seed=seed, discarded=10 * (seed + 1), parameters=parameters)
    stale(tmp_path, [0] * 40 + [1000], seed=6, outcome="fault", parameters=parameters)  # does not count
    made = the_staleness(tmp_path)
    assert list(made.histograms["ringmaster"]) == [99, 99, 99, 99, 99, 99, 0, 0, 0, 0, 6]
    assert made.limits == {"ringmaster": 3.0}
    found = row(made)
    assert (found.n, found.gradients, found.staleness_max) == (6, 600, 10)
    assert (found.staleness_median, found.staleness_median_low, found.staleness_median_high) == (2, 0, 5)
    assert found.staleness_p99 == 2, "99 of 100 are not above it"
    assert (found.discarded_share, found.discarded_share_low, found.discarded_share_high) == (0.3, 0.1, 0.6)
    assert cells(made) == {
        "method": "ringmaster",
        "n": "6",
        "threshold": "3",
        "gradients": "600",
        "median": "2 [0, 5]",
        "p99": "2 [0, 5]",
        "max": "10",
        "discarded share": "0.3 [0.1, 0.6]",
    }
    assert len(staleness.sheet(made).frames) == 1, "no updates were recorded"


def test_few_runs_have_no_interval(tmp_path):
    for seed in range(5):
        stale(tmp_path, [0, 1], seed=seed)
    shown = cells(the_staleness(tmp_path))
    assert (shown["median"], shown["discarded share"]) == ("1", "0") and "threshold" not in shown


def test_the_last_bin_may_hold_all_larger_ones(tmp_path):
    stale(tmp_path, [0] * 100 + [4], is_open=1)
    shown = cells(the_staleness(tmp_path))
    assert (shown["median"], shown["max"]) == ("≥ 100", "≥ 100")
    stale(tmp_path, [0] * 99 + [4, 0], is_open=1, algorithm="async_sgd")
    assert cells(the_staleness(tmp_path), "async_sgd")["max"] == "99", "it is empty here"


def test_recorded_updates_give_seconds(tmp_path):
    for seed in range(6):
        stale(tmp_path, [4], seed=seed, seconds=(seed + 1) * np.array([0.25, 0.5, 2.0]))
    stale(tmp_path, [4], algorithm="async_sgd")
    made = the_staleness(tmp_path)
    found = row(made)
    assert found.updates_recorded == 6
    assert (found.staleness_seconds_median, found.staleness_seconds_p99) == (1.5, 6.0)
    assert (found.staleness_seconds_p99_low, found.staleness_seconds_p99_high) == (2.0, 12.0)
    shown = cells(made, frame=1)
    assert shown["virtual seconds, median"] == "1.5 [0.5, 3]" and shown["virtual seconds, p99"] == "6 [2, 12]"
    assert list(staleness.sheet(made).frames[1]["method"]) == ["ringmaster"]


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [({"threshold": 16}, 16.0), ({"max_staleness": 8}, 8.0), ({"threshold": math.inf}, None), ({"stepsize": 1}, None)],
)
def test_the_limit_of_a_method_is_its_parameter(tmp_path, parameters, limit):
    stale(tmp_path, [4], parameters=parameters)
    assert the_staleness(tmp_path).limits.get("ringmaster") == limit


def test_a_method_without_gradients_is_named(tmp_path):
    stale(tmp_path, [4])
    write(tmp_path, [2.0, 1.0], algorithm="async_sgd")
    made = the_staleness(tmp_path)
    assert list(made.histograms) == ["ringmaster"]
    assert cells(made, "async_sgd")["median"] == ""
    assert "No gradient is counted in the runs of: async_sgd." in staleness.sheet(made).notes
    assert len(histograms.figure([made]).axes) == 1


# bins


@pytest.mark.parametrize("largest", [0, 1, 2, 5, 63, 64, 65, 127, 128, 1000, 65536])
@pytest.mark.parametrize("wide", [False, True])
def test_every_staleness_is_in_one_bin(largest, wide):
    bins = histograms.edges(largest, wide)
    assert bins[0] == -0.5 and bins[-1] > largest
    assert (np.diff(bins) >= 1).all() and (bins % 1 == 0.5).all()
    assert histograms.shares(np.ones(largest + 1), bins).sum() == pytest.approx(1.0)
    assert len(bins) <= 66
    if not wide:
        assert len(set(np.diff(bins))) == 1


def test_wide_bins_grow_by_half_a_doubling():
    assert list(histograms.edges(20, True)[:10] + 0.5) == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23]


def test_shares_by_hand():
    assert list(histograms.shares([6, 2, 1, 0, 1], np.array([-0.5, 0.5, 2.5, 4.5]))) == [0.6, 0.3, 0.1]


# the figure


def lines(axes):
    """Where the marks of a panel stand."""
    return [line.get_xdata()[0] for line in axes.lines]


def test_the_figure_has_a_panel_for_each_method(tmp_path):
    stale(tmp_path, [25, 25, 25, 25], parameters={"stepsize": 0.1, "threshold": 2}, discarded=50)
    stale(tmp_path, [50, 0, 0, 0, 0, 30, 20], algorithm="async_sgd")
    made = the_staleness(tmp_path)
    upper, lower = histograms.figure([made]).axes
    assert [axes.texts[0].get_text() for axes in (upper, lower)] == ["async_sgd", "ringmaster"]
    assert upper.texts[1].get_text() == "median 0, p99 6, max 6; 0 % discarded"
    assert lower.texts[1].get_text() == "median 1, p99 3, max 3; 50 % discarded"
    assert lines(upper) == [0, 6] and lines(lower) == [1, 3, 2], "median, p99, threshold"
    assert len({str(look["linestyle"]) for look in histograms.LOOKS.values()}) == 3, "told apart without colour"
    heights = lower.patches[0].get_data()
    assert list(heights.values) == [25, 25, 25, 25, 0, 0, 0] and list(heights.edges) == [k - 0.5 for k in range(8)]
    assert lower.get_xlabel() == "staleness (model updates)" and upper.get_xscale() == "linear"
    assert [text.get_text() for text in lower.get_legend().get_texts()] == ["median", "p99", "threshold"]
    assert upper.get_xlim() == lower.get_xlim()
    (title,) = histograms.figure([made]).texts
    assert title.get_text() == "race, 8 workers, simulation, virtual clock"


def test_the_axis_is_logarithmic_where_methods_differ_much(tmp_path):
    stale(tmp_path, [10], algorithm="minibatch_sgd")  # never stale: it decides nothing
    stale(tmp_path, [0] * 80 + [10])
    assert histograms.figure([the_staleness(tmp_path)]).axes[0].get_xscale() == "linear"
    stale(tmp_path, [0] * 800 + [10], algorithm="async_sgd")
    assert histograms.figure([the_staleness(tmp_path)]).axes[0].get_xscale() == "linear", "ten times"
    stale(tmp_path, [0] * 900 + [10], algorithm="hogwild")
    axes = histograms.figure([the_staleness(tmp_path)]).axes
    assert {panel.get_xscale() for panel in axes} == {"symlog"}
    assert axes[-1].get_xlabel() == "staleness (model updates), log scale from 1"
    assert "wider to the right" in histograms.caption([the_staleness(tmp_path)])


def test_a_threshold_far_away_does_not_stretch_the_axis(tmp_path):
    stale(tmp_path, [1, 1, 1, 1], parameters={"threshold": 1_000_000})
    made = the_staleness(tmp_path)
    (axes,) = histograms.figure([made]).axes
    assert axes.get_xlim()[1] < 10 and lines(axes) == [1, 3]
    assert cells(made)["threshold"] == "1e+06"


def test_clocks_have_columns_of_their_own(tmp_path):
    stale(tmp_path, [4], seconds=[1.0])
    stale(tmp_path, [4], engine="mpi", clock="native", seconds=[2.0])
    made = staleness.load(races.load([tmp_path]))
    assert [list(staleness.sheet(each).frames[1])[2] for each in made] == [
        "native seconds, median",
        "virtual seconds, median",
    ]
    assert len(histograms.figure(made).texts) == 2
    assert histograms.caption(made).count("\n") == 1


# the command


def test_the_command_draws_and_tabulates(tmp_path, monkeypatch):
    for seed in range(6):
        stale(tmp_path / "results", [3, 1], seed=seed, seconds=[0.1, 0.7])
    png, pdf = tmp_path / "stale.png", tmp_path / "stale.pdf"
    arguments = ["staleness", str(tmp_path / "results"), "--format", "csv", "--figure", str(png), "--figure", str(pdf)]
    monkeypatch.setattr(sys, "argv", ["analysis", *arguments])
    result = CliRunner().invoke(command_line.main, arguments)
    assert result.exit_code == 0 and f"wrote {png}" in result.stderr and f"wrote {pdf}" in result.stderr
    assert "n = 6 seeds" in result.stderr, "the caption"
    (table,) = [row for _, row in pd.read_csv(io.StringIO(result.stdout)).iterrows()]
    assert (table.gradients, table.staleness_p99, table.staleness_seconds_p99) == (24, 1, 0.7)
    assert table.command.endswith(f"--figure {png} --figure {pdf}")
    assert png.read_bytes().startswith(b"\x89PNG") and pdf.read_bytes().startswith(b"%PDF")
    (path, *_) = find([tmp_path / "results"])
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12].encode() in png.read_bytes()
    first = png.read_bytes(), pdf.read_bytes()
    CliRunner().invoke(command_line.main, arguments)
    assert (png.read_bytes(), pdf.read_bytes()) == first, "the same inputs give the same bytes"


def test_all_forms_show_the_same(tmp_path):
    for seed in range(6):
        stale(tmp_path, [3, 1], seed=seed, seconds=[0.1, 0.7], parameters={"threshold": 2})
    shown = [staleness.sheet(the_staleness(tmp_path))]
    text = sheets.markdown(shown, "the command")
    assert "| ringmaster | 6 | 2         | 24        | 0 [0, 0] | 1 [1, 1] | 1   | 0 [0, 0]        |" in text
    assert "    ringmaster & 6 & 2 & 24 & 0 [0, 0] & 1 [1, 1] & 1 & 0 [0, 0] \\\\" in sheets.latex(shown, "the command")


def test_wrong_input_is_refused_in_one_sentence(tmp_path):
    write(tmp_path / "none", [2.0, 1.0])
    sentence = "no result file counts a gradient in /updates/staleness_histogram, of ringmaster;"
    assert sentence in refused("staleness", tmp_path / "none")
    stale(tmp_path / "good", [4])
    assert "--figure x.svg must end in .png or .pdf" in refused("staleness", tmp_path / "good", "--figure", "x.svg")
    path = stale(tmp_path / "damaged", [4], seconds=[1.0, 2.0])
    with h5py.File(path, "a") as file:
        del file["updates/time"]
        file["updates/time"] = [1.0]
    assert "the columns of /updates in" in refused("staleness", tmp_path / "damaged")


def test_colours_repeat_after_the_last(tmp_path):
    for k in range(len(plots.COLOURS) + 1):
        stale(tmp_path, [4], algorithm=f"method_{k}")
    axes = histograms.figure([the_staleness(tmp_path)]).axes
    assert axes[0].texts[0].get_color() == axes[-1].texts[0].get_color() != axes[1].texts[0].get_color()
