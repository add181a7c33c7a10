"""Predicted beside measured: synthetic files whose answers are known by hand."""

import io
import json
import math
import re

import h5py
import numpy as np
import pandas as pd
import pytest
from test_analysis import TARGETS, meets, refused, write

from analysis import plots, predicted, races, sheets, tables, typeset
from analysis.read import find, read

LADDER = TARGETS["values"]  # 1, 0.1 and 0.01, which `meets` meets after hit, 2 hit and 3 hit seconds, an update each


def predict(path, expected=1.0, seconds=None, least=None, most=None, **different):
    """Put a prediction into a result file; `seconds` to the targets, by default as many updates of `expected`."""
    seconds = [10.0, 20.0, 30.0] if seconds is None else seconds
    said = {
        "update_seconds": {"least": least, "expected": expected, "most": most},
        "targets": [
            {"value": value, "eps": value, "updates": None if each is None else each / 2, "seconds": each}
            for value, each in zip(LADDER, seconds, strict=True)
        ],
        "constants": {"smoothness": 1.0, "gap": 8.5, "variance": 0.25, "exact": True},
        "source": "A. Author, A Paper, theorem 1",
    }
    with h5py.File(path, "a") as file:
        file["prediction"] = json.dumps(said | different)


def predict_all(folder, algorithm, **different):
    for path in find([folder]):
        if algorithm in path.parent.name:
            predict(path, **different)


def the_comparison(folder, base=None):
    (race,) = races.load([folder])
    return predicted.compare(race, base)


def pace(comparison, method="ringmaster"):
    (row,) = [row for _, row in comparison.paces.iterrows() if row.method == method]
    return row


def target(comparison, method, value=0.1):
    (row,) = [r for _, r in comparison.targets.iterrows() if r.method == method and r.target == value]
    return row


def cells(comparison, frame, method):
    """The first row of a method in one of the sheet's frames, as a dict."""
    shown = predicted.sheet(comparison).frames[frame]
    return shown[shown["method"] == method].iloc[0].to_dict()


# seconds per update


def counted(folder, times, updates, **different):
    path = write(folder, np.full(len(times), 2.0), times, **different)
    with h5py.File(path, "a") as file:
        file["trace/updates"][:] = updates
    return predicted.seconds_per_update(read(path))


def test_seconds_per_update_are_counted_from_the_first_update_on(tmp_path):
    assert counted(tmp_path, [0.0, 4.0, 5.0, 7.0], [0, 1, 3, 4]) == (1.0, 3)


def test_snapshots_that_show_no_new_update_do_not_lengthen_it(tmp_path):
    assert counted(tmp_path, [0.0, 1.0, 2.0, 4.0, 6.0, 8.0], [0, 2, 2, 5, 5, 5]) == (1.0, 3)


def test_the_instant_at_which_the_budget_ends_is_no_update(tmp_path):
    assert counted(tmp_path, [0.0, 1.0, 3.0, 10.0], [0, 1, 2, 3]) == (2.0, 1)
    assert counted(tmp_path, [0.0, 1.0, 3.0, 10.0], [0, 1, 2, 3], budget_seconds=20.0) == (4.5, 2)


@pytest.mark.parametrize("updates", [[0, 0, 0], [0, 1, 1], [3, 3, 3]])
def test_one_update_has_no_pace(tmp_path, updates):
    seconds, number = counted(tmp_path, [0.0, 1.0, 2.0], updates)
    assert math.isnan(seconds) and number == 0


def test_recorded_updates_are_more_exact_than_snapshots(tmp_path):
    path = write(tmp_path, [2.0, 2.0, 2.0])
    with h5py.File(path, "a") as file:
        file["updates/time"] = [0.5, 0.75, 1.5, 2.0]
    assert predicted.seconds_per_update(read(path)) == (0.5, 3)


def test_measured_stands_beside_expected_with_intervals(tmp_path):
    meets(tmp_path, range(1, 7), budget_seconds=100.0)  # run k makes an update every k seconds
    predict_all(tmp_path, "ringmaster", expected=2.0, least=1.5, most=4.0)
    comparison = the_comparison(tmp_path)
    row = pace(comparison)
    assert (row.n, row.predicted, row.counted_updates) == (6, 6, 2)
    assert (row.update_seconds, row.update_seconds_low, row.update_seconds_high) == (3.0, 1.0, 6.0)
    assert (row.least, row.expected, row.most) == (1.5, 2.0, 4.0)
    ratio = [row[f"update_seconds_to_expected{end}"] for end in ("", "_low", "_high")]
    assert ratio == [1.5, 0.5, 3.0]
    assert cells(comparison, 0, "ringmaster") == {
        "method": "ringmaster",
        "n": "6",
        "virtual seconds per update": "3 [1, 6]",
        "expected": "2",
        "least to most": "1.5 to 4",
        "measured / expected": "1.5 [0.5, 3]",
        "bounds": "kept",
    }


def test_a_run_that_missed_every_target_has_a_pace(tmp_path):
    write(tmp_path, [2.0, 2.0, 2.0, 2.0], [0.0, 3.0, 6.0, 9.0])
    write(tmp_path, [2.0, 2.0, 2.0], [0.0, 1.0, 2.0], seed=1, outcome="fault")  # the machine's doing: it does not count
    predict_all(tmp_path, "ringmaster", expected=1.5)
    assert pace(the_comparison(tmp_path)).update_seconds_to_expected == 2.0
    assert cells(the_comparison(tmp_path), 0, "ringmaster")["virtual seconds per update"] == "3; n too small"


@pytest.mark.parametrize(
    ("hits", "least", "most", "outside"),
    [
        # an update every 3 seconds in all runs, 15 gradients and up to 8 in the making: to within the share 8 / 15
        ([3.0] * 6, None, 1.95, "above most"),
        ([3.0] * 6, None, 1.96, ""),
        ([3.0] * 6, 6.43, None, "below least"),
        ([3.0] * 6, 6.42, None, ""),
        ([3.0] * 6, None, None, ""),
        ([3.0] * 2, 6.43, 9.0, "below least"),  # too few for an interval: all runs
        ([3.0, 4.0], 6.43, 9.0, ""),
        ([*[3.0] * 5, 4.0], 6.43, 9.0, ""),  # the interval of six reaches up to the largest
    ],
)
def test_what_lies_outside_the_bounds_is_flagged(tmp_path, hits, least, most, outside):
    meets(tmp_path, hits, budget_seconds=100.0)
    predict_all(tmp_path, "ringmaster", expected=3.0, least=least, most=most)
    comparison = the_comparison(tmp_path)
    assert pace(comparison).outside == outside
    shown = cells(comparison, 0, "ringmaster")["bounds"]
    assert shown == (outside.upper() or ("" if least is most is None else "kept"))


def test_gradients_in_the_making_do_not_break_a_bound(tmp_path):
    # workers of 1 and 10 seconds: 11 updates in each 10 seconds, of which a run of 19 seconds has seen 20
    times = [t for t in range(1, 20) for _ in range(2 if t == 10 else 1)]
    for seed in range(6):
        path = write(tmp_path, [2.0, 2.0], [0.0, 19.0], seed=seed, budget_seconds=20.0, workers=2)
        with h5py.File(path, "a") as file:
            file["trace/gradients"][:] = [0, 20]
            file["updates/time"] = np.array(times, float)
        predict(path, expected=10 / 11, least=10 / 11, most=10 / 11)
    row = pace(the_comparison(tmp_path))
    assert row.update_seconds == 18 / 19 and row.update_seconds > row.most
    assert row.counted_updates == 19 and row.outside == ""


def test_what_theory_leaves_open_is_blank(tmp_path):
    meets(tmp_path, [1.0, 1.0])
    predict_all(tmp_path, "ringmaster", expected=None, least=0.5, seconds=[None] * 3, constants=None, source=None)
    comparison = the_comparison(tmp_path)
    shown = cells(comparison, 0, "ringmaster")
    assert (shown["expected"], shown["least to most"], shown["measured / expected"]) == ("", "0.5 to none", "")
    assert len(predicted.sheet(comparison).frames) == 1, "no time to a target is predicted"


def test_predictions_that_differ_between_seeds_count_by_their_median(tmp_path):
    meets(tmp_path, [1.0] * 3)
    for path, expected in zip(find([tmp_path]), [4.0, 1.0, 2.0], strict=True):
        predict(path, expected=expected, seconds=[expected, None, 10 * expected])
    comparison = the_comparison(tmp_path)
    assert pace(comparison).expected == 2.0
    assert pace(comparison).update_seconds_to_expected == 0.5, "each run against its own"
    assert target(comparison, "ringmaster", 0.01).predicted_seconds == 20.0
    assert math.isnan(target(comparison, "ringmaster", 0.1).predicted_seconds)


# times to targets


def test_ratios_between_methods_stand_beside_predicted_ones(tmp_path):
    meets(tmp_path, range(1, 11), algorithm="minibatch_sgd")
    meets(tmp_path, [0.25 * k for k in range(1, 11)])
    predict_all(tmp_path, "minibatch_sgd", seconds=[100.0, 400.0, 900.0])
    predict_all(tmp_path, "ringmaster", seconds=[20.0, 40.0, 90.0])
    comparison = the_comparison(tmp_path)
    row = target(comparison, "ringmaster")
    assert (row.predicted_updates, row.predicted_seconds, row.measured_to_predicted) == (20.0, 40.0, 2.5 / 40.0)
    assert (row.ratio, row.predicted_ratio) == (0.25, 0.1)
    assert math.isnan(target(comparison, "minibatch_sgd").predicted_ratio)
    assert cells(comparison, 1, "ringmaster") == {
        "target": "≤ 1",
        "method": "ringmaster",
        "virtual seconds": "1.25 [0.5, 2.25]",
        "predicted": "20",
        "factor": "0.0625",
        "ratio to minibatch_sgd": "0.25 [0.25, 0.25]",
        "predicted ratio": "0.2",
    }
    other = the_comparison(tmp_path, base="ringmaster")
    assert target(other, "minibatch_sgd").predicted_ratio == 10.0
    assert list(comparison.paces["method"]) == ["ringmaster", "minibatch_sgd"], "in the order of the table"


def test_one_constant_is_fitted_to_all_targets(tmp_path):
    meets(tmp_path, range(1, 7), budget_seconds=100.0)
    predict_all(tmp_path, "ringmaster", seconds=[10.0, 20.0, 30.0])  # the shape is right: run k needs k / 10 of it
    row = pace(the_comparison(tmp_path))
    assert row.constant_targets == 3 and row.constant_error == pytest.approx(1.0)
    assert [row.constant, row.constant_low, row.constant_high] == pytest.approx([0.3, 0.1, 0.6])


def test_the_fit_says_how_far_it_is_off(tmp_path):
    meets(tmp_path, [5.0] * 6)  # 5, 10 and 15 seconds, of which theory says that they are equal
    predict_all(tmp_path, "ringmaster", seconds=[10.0, 10.0, 10.0])
    row = pace(the_comparison(tmp_path))
    assert row.constant == pytest.approx(0.5 * 6 ** (1 / 3)), "the geometric mean of 0.5, 1 and 1.5"
    assert row.constant_error == pytest.approx(6 ** (1 / 3)), "the first target is furthest off"
    shown = cells(the_comparison(tmp_path), 2, "ringmaster")
    assert shown["constant"] == "0.909 [0.909, 0.909]" and shown["off by at most"] == "x1.82"
    assert (shown["smoothness L"], shown["gap Δ"], shown["variance σ²"]) == ("1", "8.5", "0.25")


@pytest.mark.parametrize("value", [None, 0.0, math.inf])
def test_a_target_without_prediction_is_no_part_of_the_fit(tmp_path, value):
    meets(tmp_path, [5.0] * 6)
    predict_all(tmp_path, "ringmaster", seconds=[10.0, value, 30.0])
    row = pace(the_comparison(tmp_path))
    assert (row.constant_targets, row.constant) == (2, pytest.approx(0.5))


def test_targets_that_some_run_missed_are_no_part_of_the_fit(tmp_path):
    meets(tmp_path, [5.0] * 5)
    write(tmp_path, [2.0, 1.0, 0.1, 0.1], [0.0, 5.0, 10.0, 15.0], seed=5)
    predict_all(tmp_path, "ringmaster", seconds=[10.0, 20.0, 900.0])
    assert pace(the_comparison(tmp_path)).constant_targets == 2
    write(tmp_path, [2.0, 1.0, 1.0, 1.0], [0.0, 5.0, 10.0, 15.0], seed=6)
    predict(find([tmp_path])[-1])
    row = pace(the_comparison(tmp_path))
    assert row.constant_targets == 0 and math.isnan(row.constant), "one target shows no shape"


# which files


def test_a_method_without_prediction_is_named(tmp_path):
    meets(tmp_path, [1.0] * 6)
    meets(tmp_path, [1.0] * 6, algorithm="sdde_asgd")
    predict_all(tmp_path, "ringmaster")
    comparison = the_comparison(tmp_path)
    assert cells(comparison, 0, "sdde_asgd")["expected"] == "no prediction"
    assert cells(comparison, 1, "sdde_asgd")["predicted"] == ""
    assert list(predicted.sheet(comparison).frames[2]["method"]) == ["ringmaster"]
    assert "No prediction is recorded for: sdde_asgd." in predicted.sheet(comparison).notes
    assert "Theory: ringmaster, A. Author, A Paper, theorem 1." in predicted.sheet(comparison).notes


def test_files_without_any_prediction_are_refused(tmp_path):
    meets(tmp_path, [1.0])
    meets(tmp_path, [1.0], algorithm="sdde_asgd")
    assert "no result file has a prediction (/prediction), of ringmaster, sdde_asgd;" in refused("predicted", tmp_path)
    predict_all(tmp_path, "ringmaster")
    assert "adam is no method in these files" in refused("predicted", tmp_path, "--base", "adam")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", r"`prediction` in .*\.h5 is not JSON"),
        ("{}", "must have update_seconds .*KeyError"),
        ('"soon"', "must have update_seconds"),
        ('{"update_seconds": {"least": 1, "expected": 2}}', "'most'"),
        ('{"update_seconds": {"least": 1, "expected": "two", "most": 3}}', "two"),
        ('{"update_seconds": {"least": 1, "expected": 2, "most": 3}, "targets": [{"value": 1}]}', "updates"),
        ('{"update_seconds": {"least": 1, "expected": 2, "most": 3}, "constants": {"gap": "wide"}}', "wide"),
    ],
)
def test_a_damaged_prediction_is_refused(tmp_path, text, sentence):
    path = write(tmp_path, [2.0, 0.1])
    with h5py.File(path, "a") as file:
        file["prediction"] = text
    assert re.search(sentence, refused("predicted", tmp_path))
    assert re.search(sentence, refused("table", tmp_path))


def test_an_experiment_without_targets_shows_its_pace(tmp_path):
    for seed in range(6):
        predict(write(tmp_path, [2.0, 1.0, 0.5], targets=None, seed=seed), expected=0.5)
    comparison = the_comparison(tmp_path)
    assert pace(comparison).update_seconds_to_expected == 2.0
    sheet = predicted.sheet(comparison)
    assert len(sheet.frames) == 1 and len(sheet.rows) == 1
    assert not any("Constant" in note for note in sheet.notes)


def test_clocks_are_never_mixed(tmp_path):
    for clock, engine in (("virtual", "simulation"), ("native", "mpi")):
        meets(tmp_path, [1.0] * 6, clock=clock, engine=engine)
    predict_all(tmp_path, "ringmaster")
    shown = [predicted.sheet(comparison) for comparison in map(predicted.compare, races.load([tmp_path]))]
    assert [sheet.heading.rpartition(", ")[2] for sheet in shown] == ["native clock", "virtual clock"]
    for sheet, clock in zip(shown, ("native", "virtual"), strict=True):
        assert f"{clock} seconds per update" in sheet.frames[0] and f"{clock} seconds" in sheet.frames[1]


# in all forms


@pytest.fixture
def three(tmp_path):
    """Three methods of ten runs; of async_sgd theory says nothing."""
    rng = np.random.default_rng(0)
    for algorithm in ("minibatch_sgd", "async_sgd", "ringmaster"):
        meets(tmp_path, rng.lognormal(sigma=0.3, size=10), algorithm=algorithm)
    predict_all(tmp_path, "minibatch_sgd", seconds=[123.456, 1234.56, 12345.6], least=0.7123, most=1.4567)
    predict_all(tmp_path, "ringmaster", seconds=[12.3456, 123.456, 1234.56], least=0.7123)
    return tmp_path


def test_the_sheet_fits_a_terminal(three):
    text = sheets.markdown([predicted.sheet(the_comparison(three))], "the command")
    assert max(map(len, text.splitlines())) <= sheets.COLUMNS
    assert text.startswith("## Measured beside predicted: race, 8 workers, simulation, virtual clock\n")
    assert text.endswith("Made by `the command`.\n")


def test_csv_has_every_number_whole(three):
    comparison = the_comparison(three)
    again = pd.read_csv(io.StringIO(sheets.csv([predicted.sheet(comparison)], "the command")))
    assert len(again) == 9 and set(again["command"]) == {"the command"}
    for _, row in again.iterrows():
        own, at = pace(comparison, row.method), target(comparison, row.method, row.target)
        for name in ("update_seconds", "update_seconds_low", "expected", "least", "constant", "constant_error"):
            assert row[name] == own[name] or (math.isnan(row[name]) and math.isnan(own[name])), name
        for name in ("median_seconds", "predicted_seconds", "predicted_ratio", "ratio", "ratio_high"):
            assert row[name] == at[name] or (math.isnan(row[name]) and math.isnan(at[name])), name


def test_latex_names_each_target_once(three):
    text = sheets.latex([predicted.sheet(the_comparison(three))], "the command")
    assert text.count(r"\begin{tabular}") == 3
    for value in ("1", "0.1 *", "0.01"):
        assert len(re.findall(rf"^    \$\\le\$ {re.escape(value)} & ", text, re.MULTILINE)) == 1
    assert r"variance $\sigma$\textsuperscript{2}" in text and r"gap $\Delta$" in text
    assert text.isascii(), "any engine typesets it"


def test_the_table_of_times_has_a_column_for_it_on_demand(three):
    (race,) = races.load([three])
    table = tables.tabulate(race)
    shown = typeset.sheet(table, predicted=True)
    texts = {
        ("≤ 1", "ringmaster"): "12.3",
        ("≤ 0.1 *", "ringmaster"): "123",
        ("≤ 0.01", "ringmaster"): "1230",
        ("≤ 1", "minibatch_sgd"): "123",
        ("≤ 0.1 *", "minibatch_sgd"): "1230",
        ("≤ 0.01", "minibatch_sgd"): "12300",
    }
    for _, row in shown.frames[0].iterrows():
        assert row["predicted"] == texts.get((row["target"], row["method"]), "")
    assert [note.partition(":")[0] for note in shown.notes].count("Predicted") == 1
    (whole,) = table.rows[(table.rows["method"] == "ringmaster") & (table.rows["target"] == 0.01)]["predicted_seconds"]
    assert whole == 1234.56
    usual = typeset.sheet(table)
    assert "predicted" not in usual.frames[0] and not any(note.startswith("Predicted") for note in usual.notes)


def test_the_column_needs_predictions(tmp_path):
    meets(tmp_path, range(1, 7))
    assert "no result file has a prediction (/prediction), of ringmaster;" in refused("table", tmp_path, "--predicted")


# in the figure


def marks(axes):
    """(shape, x, y) of the open marks in the axes."""
    return [
        (line.get_marker(), *line.get_xdata(), *line.get_ydata())
        for line in axes.lines
        if line.get_marker() in plots.MARKS
    ]


def test_predicted_times_are_marked_on_their_targets(tmp_path):
    meets(tmp_path, range(1, 7), algorithm="minibatch_sgd")
    meets(tmp_path, [0.5 * k for k in range(1, 7)])
    predict_all(tmp_path, "minibatch_sgd", seconds=[10.0, 20.0, None])
    predict_all(tmp_path, "ringmaster", seconds=[5.0, 15.0, 30.0])
    loaded = races.load([tmp_path])
    curves, times = plots.figure(loaded).axes
    own, other = plots.MARKS[1], plots.MARKS[0]
    assert own != other, "told apart without colour"
    expected = {(other, 10.0, 1.0), (other, 20.0, 0.1), (own, 5.0, 1.0), (own, 15.0, 0.1), (own, 30.0, 0.01)}
    assert set(marks(curves)) == expected and len(marks(curves)) == 5
    rows = [label.get_text() for label in times.get_yticklabels()]
    assert rows == ["minibatch_sgd", "ringmaster"]
    assert set(marks(times)) == {(other, 20.0, 0), (own, 15.0, 1)}, "the headline, on the method's line"
    assert [text.get_text() for text in curves.get_legend().get_texts()] == ["predicted"]
    low, high = times.get_xlim()
    assert low <= 5.0 and high > 30.0
    assert "Open marks" in plots.caption(loaded) and "too far off" not in plots.caption(loaded)


def test_predictions_far_from_measured_times_are_scaled_by_one_factor(tmp_path):
    meets(tmp_path, [1.0] * 6, algorithm="minibatch_sgd")  # 1, 2 and 3 seconds
    meets(tmp_path, [0.5] * 6)
    predict_all(tmp_path, "minibatch_sgd", seconds=[100.0, 200.0, None])
    predict_all(tmp_path, "ringmaster", seconds=[200.0, 400.0, None])
    loaded = races.load([tmp_path])
    curves, times = plots.figure(loaded).axes
    # measured / predicted is 1/100 and 1/400, twice each: 1/200, which keeps the ratio of the two methods
    drawn = {(mark[2], round(mark[1], 9)) for mark in marks(curves)}
    assert drawn == {(1.0, 0.5), (0.1, 1.0), (1.0, 1.0), (0.1, 2.0)}
    assert [mark[1] for mark in marks(times)] == pytest.approx([1.0, 2.0])
    assert [text.get_text() for text in curves.get_legend().get_texts()] == ["predicted × 0.005"]
    assert "drawn at 0.005 times what is predicted" in plots.caption(loaded)


def test_predictions_that_cannot_be_drawn_are_told(tmp_path):
    for seed in range(6):
        write(tmp_path, [2.0, 2.0], [0.0, 10.0], seed=seed)  # no target is met: there is nothing to scale them by
    predict_all(tmp_path, "ringmaster", seconds=[0.4, 200.0, 201.0])
    loaded = races.load([tmp_path])
    curves, times = plots.figure(loaded).axes
    assert [mark[1:] for mark in marks(curves)] == [(200.0, 0.1)] and times.get_xlim()[1] < 300
    assert "Predicted too far off to be drawn: ringmaster 0.01 201 s; ringmaster 1 0.4 s." in plots.caption(loaded)


def test_a_figure_without_predictions_has_no_marks(tmp_path):
    meets(tmp_path, range(1, 7))
    loaded = races.load([tmp_path])
    curves, times = plots.figure(loaded).axes
    assert not marks(curves) and not marks(times) and curves.get_legend() is None
    assert "Open marks" not in plots.caption(loaded)
