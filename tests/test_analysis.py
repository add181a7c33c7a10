"""From result files to tables and figures: synthetic files whose answers are known by hand."""

import errno
import hashlib
import io
import json
import math
import pathlib
import re
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import __main__ as command_line
from analysis import plots, races, tables, typeset
from analysis.curves import median_curve
from analysis.errors import InvalidInput
from analysis.read import find, read
from analysis.rounding import interval, number
from analysis.time_to_target import time_to_target

INF = math.inf
TARGETS = {"metric": "loss", "values": [1.0, 0.1, 0.01], "headline": 0.1, "version": 1}


def write(folder, values, times=None, *, seed=0, algorithm="ringmaster", parameters=None, run="0001", **different):
    """A result file as `mpibench.record` lays it out: `values` of the targets' metric at `times` (default 0, 1, ...).

    `different` replaces attributes of the root, or: targets, direction, problem, stop, label, tuning, fidelity (dict).
    """
    parameters = {"stepsize": 0.1} if parameters is None else parameters
    times = np.arange(len(values), dtype=float) if times is None else np.array(times, float)
    targets = different.pop("targets", TARGETS)
    direction = different.pop("direction", "lower")
    fidelity = different.pop("fidelity", None)
    tuning = different.pop("tuning", None)
    resolved = {
        "experiment": {
            "name": "race",
            "workers": 8,
            "targets": targets,
            "stop": different.pop("stop", {"seconds": 10.0}),
        },
        "problem": different.pop("problem", {"name": "quadratic", "noise": 0.01}),
        "algorithm": {"name": algorithm, **parameters},
        "tuning": None,
    }
    if "label" in different:
        resolved["algorithm"]["label"] = different.pop("label")
    engine, clock = different.get("engine", "simulation"), different.get("clock", "virtual")
    root = {
        "schema": 1,
        "run_id": f"20250101T00{run}Z-local-abcdef",
        "experiment": "race",
        "algorithm": algorithm,
        "parameters": json.dumps(parameters),
        "engine": engine,
        "clock": clock,
        "workers": 8,
        "ranks": 9,
        "seed": seed,
        "cell": hashlib.sha256(json.dumps([resolved, engine, clock]).encode()).hexdigest()[:16],
        "outcome": "budget",
        "final_model": "the server's point",
        "seconds": times[-1] if len(times) else 0.0,
        "budget_seconds": 10.0,
        "complete": 1,
    } | different
    path = folder / f"{algorithm}-{root['cell'][:8]}" / f"seed-{seed}-{root['run_id']}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(root)
        file["config/resolved"] = json.dumps(resolved)
        file["config/tuning"] = json.dumps(tuning)
        trace = file.create_group("trace")
        trace["time"] = times
        for name, each in {
            "iteration": 1,
            "updates": 1,
            "gradients": 5,
            "discarded": 0,
            "messages": 2,
            "bytes": 1000,
            "bits": 8000,
        }.items():
            trace[name] = each * np.arange(len(times))
        trace[targets["metric"] if targets else "loss"] = np.array(values, float)
        trace[targets["metric"] if targets else "loss"].attrs["direction"] = direction
        if fidelity is not None:
            file.create_group("fidelity").attrs.update(fidelity)
    return path


def meets(folder, hits, **different):
    """One run a seed 0, 1, ... that meets 1, 0.1 and 0.01 after (hit, 2 hit, 3 hit) seconds; None: it meets nothing."""
    for seed, hit in enumerate(hits):
        if hit is None:
            write(folder, [2.0, 2.0], [0.0, 10.0], seed=seed, **different)
        else:
            write(folder, [2.0, 1.0, 0.1, 0.01], np.arange(4.0) * hit, seed=seed, outcome="reached", **different)


def the_table(folder, *targets, base=None):
    (race,) = races.load([folder])
    return tables.tabulate(race, targets, base)


def row(table, method, target=0.1):
    (found,) = [r for _, r in table.rows.iterrows() if r.method == method and r.target == target]
    return found


def cell(table, method, column, target="≤ 0.1 *"):
    shown = typeset.cells(table)
    (found,) = shown[(shown["method"] == method) & (shown["target"] == target)][column]
    return found


# time to target


def test_the_first_snapshot_at_or_past_the_target_counts(tmp_path):
    run = read(write(tmp_path, [3.0, 1.5, 0.1, 0.05, 0.2], [0.0, 1.0, 2.5, 3.0, 4.0]))
    hit = time_to_target(run, 0.1)
    assert (hit.seconds, hit.time, hit.censored, hit.reason) == (2.5, 2.5, False, "reached")
    assert hit.granularity_seconds == 1.5
    assert (hit.gradients, hit.bytes) == (10, 2000)
    assert hit.target_lost, "at 4.0 it is left again"
    assert not time_to_target(run, 1.0).target_lost


def test_where_higher_is_better(tmp_path):
    targets = TARGETS | {"metric": "accuracy", "values": [0.5, 0.9], "headline": 0.9}
    run = read(write(tmp_path, [0.1, math.nan, 0.9, 0.95], targets=targets, direction="higher"))
    assert time_to_target(run, 0.9).seconds == 2.0
    assert time_to_target(run, 0.5).seconds == 2.0, "not a number meets no target"
    assert time_to_target(run, 0.99).time == INF


def test_a_target_met_at_the_start_takes_no_time(tmp_path):
    hit = time_to_target(read(write(tmp_path, [0.5, 0.5])), 1.0)
    assert (hit.seconds, hit.granularity_seconds) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("different", "stored", "reason"),
    [
        ({"outcome": "budget"}, 10.0, "budget"),
        ({"outcome": "diverged"}, 10.0, "diverged"),  # and not the 2 seconds at which it did
        ({"outcome": "diverged", "budget_seconds": INF}, INF, "diverged"),
        ({"outcome": "walltime"}, 2.0, "walltime"),
        ({"outcome": "fault"}, 2.0, "fault"),
        ({"outcome": "watchdog"}, 2.0, "watchdog"),
        ({"outcome": "reached"}, 2.0, "ended"),  # it met its headline, which is easier than this target
        ({"outcome": "reached", "budget_seconds": 2.0}, 2.0, "budget"),
        ({"outcome": "budget", "budget_seconds": INF}, 2.0, "budget"),
        ({"outcome": "budget", "stop": {"seconds": 10.0, "updates": 2}}, 2.0, "budget"),  # known up to here only
    ],
)
def test_what_is_stored_for_a_miss(tmp_path, different, stored, reason):
    hit = time_to_target(read(write(tmp_path, [3.0, 2.0, 5.0], **different)), 0.1)
    assert (hit.censored, hit.seconds, hit.reason) == (True, stored, reason)
    assert hit.time == hit.gradients == hit.bytes == INF


def test_a_run_that_met_the_target_before_it_diverged_met_it(tmp_path):
    hit = time_to_target(read(write(tmp_path, [3.0, 0.05, math.nan], outcome="diverged")), 0.1)
    assert (hit.time, hit.target_lost) == (1.0, True)


# tables


def test_a_table_worked_out_by_hand(tmp_path):
    meets(tmp_path, range(1, 11), algorithm="minibatch_sgd")
    meets(tmp_path, [0.25 * k for k in range(1, 11)], algorithm="ringmaster")
    table = the_table(tmp_path)
    assert table.base == "minibatch_sgd"
    assert table.targets == [1.0, 0.1, 0.01], "from easy to hard"
    fast, slow = row(table, "ringmaster"), row(table, "minibatch_sgd")
    assert (slow.n, slow.reached) == (10, 10)
    assert (slow.median_seconds, slow.median_seconds_low, slow.median_seconds_high) == (10.0, 4.0, 18.0)
    assert (fast.median_seconds, fast.median_seconds_low, fast.median_seconds_high) == (2.5, 1.0, 4.5)
    assert (fast.ratio, fast.ratio_low, fast.ratio_high) == (0.25, 0.25, 0.25)
    assert (fast.paired_ratio, fast.paired_ratio_low, fast.paired_ratio_high) == (0.25, 0.25, 0.25)
    assert (fast.wins, fast.win_fraction, fast.pairs, fast.pairs_left_out) == (10, 1, 10, 0)
    assert fast.p == 2**-9 and fast.p_holm == 3 * 2**-9 and fast.comparisons == 3
    assert math.isnan(slow.ratio) and math.isnan(slow.p), "the base is not compared with itself"
    assert fast.granularity_seconds == 2.5 and slow.granularity_seconds == 10.0
    assert (fast.median_gradients, fast.median_bytes) == (10, 2000)
    assert cell(table, "ringmaster", "virtual seconds") == "2.5 [1, 4.5]"
    assert cell(table, "ringmaster", "reached") == "10/10 [0.69, 1]"
    assert cell(table, "ringmaster", "ratio to minibatch_sgd") == "0.25 [0.25, 0.25]"
    assert cell(table, "ringmaster", "wins") == "10/10"
    assert cell(table, "ringmaster", "spacing") == "2.5 s"
    assert cell(table, "minibatch_sgd", "ratio to minibatch_sgd") == "base"
    assert list(typeset.cells(table)["method"])[:2] == ["ringmaster", "minibatch_sgd"], "the fastest first"


def test_misses_stay_in_the_table_as_infinite_times(tmp_path):
    meets(tmp_path, [*range(1, 5), *[None] * 6], algorithm="minibatch_sgd")
    meets(tmp_path, [*range(1, 8), *[None] * 3], algorithm="ringmaster")
    meets(tmp_path, [None] * 10, algorithm="async_sgd")
    table = the_table(tmp_path)
    assert row(table, "minibatch_sgd").median_seconds == INF
    assert cell(table, "minibatch_sgd", "virtual seconds") == "> 10 [4, open]"
    assert cell(table, "minibatch_sgd", "reached") == "4/10 [0.12, 0.74]"
    assert cell(table, "ringmaster", "virtual seconds") == "10 [4, open]"
    assert cell(table, "async_sgd", "virtual seconds") == "> 10"
    assert cell(table, "async_sgd", "reached") == "0/10 [0, 0.31]"
    fast = row(table, "ringmaster")
    assert fast.ratio == 0.0 and fast.wins == 4 / 2 + 3 + 3 / 2
    assert row(table, "async_sgd").wins == 3.0, "never a win, six ties of two misses"
    notes = "\n".join(typeset.notes(table))
    assert "0.1 minibatch_sgd (6 budget)" in notes and "0.1 async_sgd (10 budget)" in notes


def test_a_ratio_to_medians_that_are_misses_is_said_in_words(tmp_path):
    meets(tmp_path, [None] * 10, algorithm="minibatch_sgd")
    meets(tmp_path, range(1, 11), algorithm="ringmaster")
    assert cell(the_table(tmp_path), "ringmaster", "ratio to minibatch_sgd") == "minibatch_sgd missed"
    assert cell(the_table(tmp_path, base="ringmaster"), "minibatch_sgd", "ratio to ringmaster") == "missed"
    meets(tmp_path, [None] * 10, algorithm="async_sgd")
    shown = cell(the_table(tmp_path), "async_sgd", "ratio to minibatch_sgd")
    assert shown == "no difference shown [open, open]"


def test_no_difference_is_an_answer(tmp_path):
    meets(tmp_path, range(1, 11), algorithm="minibatch_sgd")
    meets(tmp_path, range(10, 0, -1), algorithm="ringmaster")
    table = the_table(tmp_path)
    assert re.fullmatch(
        r"no difference shown \[0\.\d+, \d\.?\d*\]", cell(table, "ringmaster", "ratio to minibatch_sgd")
    )
    (conclusion,) = [
        note for note in typeset.notes(table) if note.startswith("ringmaster against minibatch_sgd at 0.1")
    ]
    assert "no difference shown" in conclusion and "p = 1 (Holm, m = 3)" in conclusion and "wins 5 of 10" in conclusion


@pytest.mark.parametrize("n", [1, 5])
def test_few_runs_are_shown_as_points(tmp_path, n):
    meets(tmp_path, [*range(1, n), None], algorithm="minibatch_sgd")
    meets(tmp_path, range(1, n + 1), algorithm="ringmaster")
    table = the_table(tmp_path)
    points = "".join(f"{2 * k}, " for k in range(1, n))
    assert cell(table, "minibatch_sgd", "virtual seconds") == f"{points}> 10; n too small"
    assert cell(table, "ringmaster", "ratio to minibatch_sgd").endswith("; n too small")
    assert not any("against" in note for note in typeset.notes(table)), "and nothing is concluded"


def test_six_runs_have_an_interval_but_no_ratio(tmp_path):
    meets(tmp_path, range(1, 7), algorithm="minibatch_sgd")
    meets(tmp_path, range(2, 14, 2), algorithm="ringmaster")
    table = the_table(tmp_path)
    assert cell(table, "ringmaster", "virtual seconds") == "12 [4, 24]"
    assert cell(table, "ringmaster", "ratio to minibatch_sgd") == "2; n too small"
    (conclusion,) = [
        note for note in typeset.notes(table) if note.startswith("ringmaster against minibatch_sgd at 0.1")
    ]
    assert "median of paired ratios 2 [2, 2]" in conclusion and "n = 6 pairs" in conclusion


def test_runs_stopped_from_outside_leave_with_their_pairs(tmp_path):
    meets(tmp_path, range(1, 11), algorithm="minibatch_sgd")
    meets(tmp_path, range(2, 11), algorithm="ringmaster")
    write(tmp_path, [2.0, 0.01], seed=9, outcome="walltime", error="the batch system ended the job")
    table = the_table(tmp_path)
    fast = row(table, "ringmaster")
    assert (fast.n, fast.reached, fast.stopped_from_outside) == (9, 9, 1)
    assert (fast.pairs, fast.pairs_left_out) == (9, 1)
    notes = "\n".join(typeset.notes(table))
    assert "stopped from outside: 1 (ringmaster 1)" in notes
    assert "ringmaster seed 9 (walltime: the batch system ended the job)" in notes


def test_an_incomplete_file_is_a_failed_run(tmp_path):
    meets(tmp_path, range(1, 7))
    path = write(tmp_path, [2.0], seed=6, complete=0)
    with h5py.File(path, "a") as file:
        del file["trace"]
        for name in ("outcome", "seconds"):
            del file.attrs[name]
    write(tmp_path, [2.0, 0.01], seed=7, complete=0, outcome="reached")
    table = the_table(tmp_path)
    assert row(table, "ringmaster").n == 6
    assert any("ringmaster seed 6 (incomplete file)" in note for note in typeset.notes(table))


def test_a_method_of_which_every_run_failed_keeps_its_row(tmp_path):
    meets(tmp_path, range(1, 11), algorithm="minibatch_sgd")
    write(tmp_path, [2.0], seed=0, outcome="fault")
    table = the_table(tmp_path)
    assert cell(table, "ringmaster", "virtual seconds") == "no run counts"
    assert cell(table, "ringmaster", "ratio to minibatch_sgd") == "no pairs"
    assert "ringmaster" in typeset.markdown([table], "command")


def test_of_a_cell_and_seed_the_newest_run_counts(tmp_path):
    write(tmp_path, [2.0, 0.1], [0.0, 7.0], run="0002")
    write(tmp_path, [2.0, 0.1], [0.0, 5.0], run="0001")
    table = the_table(tmp_path)
    assert row(table, "ringmaster").n == 1
    assert row(table, "ringmaster").median_seconds == 7.0
    assert any(
        "ringmaster seed 0 run 20250101T000001Z" in note and "Superseded" in note for note in typeset.notes(table)
    )


def test_two_cells_of_an_algorithm_are_two_methods(tmp_path):
    for threshold in (4, 16):
        write(tmp_path, [2.0, 0.1], parameters={"stepsize": 0.1, "threshold": threshold})
    table = the_table(tmp_path)
    assert set(table.rows["method"]) == {"ringmaster, threshold = 4", "ringmaster, threshold = 16"}
    with pytest.raises(InvalidInput, match=r'"ringmaster, threshold = 4"; "ringmaster, threshold = 16"'):
        the_table(tmp_path, base="ringmaster")
    assert the_table(tmp_path, base="ringmaster, threshold = 4").base == "ringmaster, threshold = 4"


def test_the_experiments_own_names_are_used(tmp_path):
    write(tmp_path, [2.0, 0.1], label="patient", parameters={"stepsize": 0.1})
    write(tmp_path, [2.0, 0.1], label="eager", parameters={"stepsize": 0.3})
    table = the_table(tmp_path)
    assert set(table.rows["method"]) == {"patient", "eager"} and set(table.rows["algorithm"]) == {"ringmaster"}


def test_clocks_and_settings_never_share_a_table(tmp_path):
    write(tmp_path, [2.0, 0.1])
    write(tmp_path, [2.0, 0.1], problem={"name": "quadratic", "noise": 0.5})
    write(tmp_path, [2.0, 0.1], engine="mpi", clock="native")
    write(tmp_path, [2.0, 0.1], engine="mpi", clock="emulated", fidelity={"good": 1})
    made = [tables.tabulate(race) for race in races.load([tmp_path])]
    assert [table.race.title for table in made] == [
        "race, 8 workers, MPI, emulated clock",
        "race, 8 workers, MPI, native clock",
        "race, 8 workers, simulation, virtual clock, problem.noise = 0.01",
        "race, 8 workers, simulation, virtual clock, problem.noise = 0.5",
    ]
    text = typeset.markdown(made, "command")
    assert text.count("virtual seconds") == 2 and text.count("native seconds") == text.count("emulated seconds") == 1


def test_emulated_runs_say_how_they_kept_pace(tmp_path):
    fidelity = {"good": 1, "time_scale": 2.0, "lateness_max_seconds": 4e-4}
    write(tmp_path, [2.0, 0.1], engine="mpi", clock="emulated", fidelity=fidelity)
    assert "Emulated: time_scale 2, worst lateness 0.4 ms." in list(typeset.notes(the_table(tmp_path)))
    worse = fidelity | {"good": 0, "lateness_max_seconds": 0.2}
    path = write(tmp_path, [2.0, 0.1], seed=1, engine="mpi", clock="emulated", fidelity=worse)
    with pytest.raises(InvalidInput, match=f"1 of 2 runs did not keep their emulated pace.*{path.name}.*--allow-poor"):
        races.load([tmp_path])
    (race,) = races.load([tmp_path], allow_poor_fidelity=True)
    assert any(
        "POOR FIDELITY: 1 of 2 runs" in note and "200 ms" in note for note in typeset.notes(tables.tabulate(race))
    )


def test_a_table_of_three_methods_fits_a_terminal(tmp_path):
    rng = np.random.default_rng(0)
    tuning = {"trials": 9, "chosen": {}, "seeds": [100, 101], "core_seconds": 1.0}
    for algorithm, more in {
        "minibatch_sgd": {},
        "async_sgd": {"rule": "constant"},
        "ringmaster": {"threshold": 16, "stop_stale": False},
    }.items():
        parameters = {"stepsize": 0.1} | more
        meets(
            tmp_path, rng.lognormal(sigma=0.3, size=10) / 7, algorithm=algorithm, parameters=parameters, tuning=tuning
        )
    text = typeset.markdown([the_table(tmp_path)], "command")
    assert max(map(len, text.splitlines())) <= 130
    assert "no difference shown" in text
    head, rule, *body = [line for line in text.splitlines() if line.startswith("|")][:11]
    assert len(body) == 9 and {len(line) for line in (head, rule, *body)} == {len(head)}, "aligned"
    assert "async_sgd (9 trials), minibatch_sgd (9 trials), ringmaster (9" in text
    assert "Parameters chosen on seeds 100, 101 in 1 core-seconds: async_sgd (9 trials)" in text
    assert "stepsize = 0.1, threshold = 16, stop_stale = false" in text
    for path in find([tmp_path]):
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in text


def test_markdown_keeps_bars_inside_their_cells(tmp_path):
    write(tmp_path, [2.0, 0.1], label="a|b")
    text = typeset.markdown([the_table(tmp_path)], "x")
    grids = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(grids) == 3
    for grid in grids:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in grid}) == 1


def test_latex_escapes_special_characters(tmp_path):
    name = r"a_b & 50% of $x #1 {y}~^\z<>"
    write(tmp_path, [2.0, 0.1], label=name, parameters={"stepsize": 0.1, "rule": "drop_counted"})
    text = typeset.latex([the_table(tmp_path)], "python -m analysis\n% x")
    escaped = r"a\_b \& 50\% of \$x \#1 \{y\}\textasciitilde{}\textasciicircum{}\textbackslash{}z$<$$>$"
    rows = [line for line in text.splitlines() if escaped in line and line.endswith(r"\\")]
    assert len(rows) == 5, "three targets, the one that it missed, its parameters"
    assert r"$\le$ 0.1 * & " + escaped in text
    assert r"rule = drop\_counted" in rows[-1]
    for line in rows:
        columns = 4 if line is rows[-1] else 6  # without a base there is no ratio
        assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
    assert len(re.findall(r"(?<!\\)\{", text)) - len(re.findall(r"(?<!\\)\}", text)) == 0
    assert text.splitlines()[-1] == "% Made by python -m analysis % x", "a comment of one line"
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{table}", r"\end{table}"):
        assert rule in text


def test_csv_keeps_every_number_whole(tmp_path):
    rng = np.random.default_rng(1)
    meets(tmp_path, [*rng.lognormal(size=9), None], algorithm="minibatch_sgd")
    meets(tmp_path, [*rng.lognormal(size=6), None, None, None, None])
    table = the_table(tmp_path)
    again = pd.read_csv(io.StringIO(typeset.csv([table], "the command")))
    assert len(again) == 6 and set(again["command"]) == {"the command"}
    for name in table.rows:
        if pd.api.types.is_float_dtype(table.rows[name]):
            np.testing.assert_array_equal(again[name].to_numpy(float), table.rows[name].to_numpy(float), err_msg=name)
        elif name != "setting":  # empty
            assert list(again[name].astype(str)) == list(table.rows[name].astype(str)), name
    (seconds,) = again[(again["method"] == "ringmaster") & (again["target"] == 0.1)]["seconds"]
    expected = [hit.time for hit in table.hits["ringmaster", 0.1].values()]
    assert [float(t) for t in seconds.split()] == expected and expected.count(INF) == 4
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in find([tmp_path])}
    assert set(" ".join(again["inputs_sha256"]).split()) == digests


def test_numbers_as_readers_see_them():
    shown = {
        1234.5: "1230",
        0.123456: "0.123",
        2.0: "2",
        0.0: "0",
        1e-9: "1e-09",
        2.5e7: "2.5e+07",
        INF: "∞",
        999999: "1000000",
    }
    assert {x: number(x) for x in shown} == shown
    assert number(0.6915, 2) == "0.69"
    assert interval(0.0, INF) == "[open, open]" and interval(0.5, 1.25) == "[0.5, 1.25]"


def test_what_the_suite_records_can_be_read(tmp_path):
    """The one place where both sides of the file format meet."""
    record = pytest.importorskip("mpibench.record")
    resolved = {"experiment": {"targets": TARGETS}, "algorithm": {"name": "ringmaster", "stepsize": 0.1}}
    attrs = {
        "run_id": "1", "experiment": "race", "algorithm": "ringmaster", "parameters": {"stepsize": 0.1},
        "engine": "simulation", "clock": "virtual", "workers": 2, "ranks": 3, "seed": 7, "cell": "0" * 16,
        "final_model": "the server's point", "budget_seconds": INF,
    }  # fmt: skip
    names = ("iteration", "updates", "gradients", "discarded", "messages", "bytes", "bits")
    counters = {name: [0, 3, 6] for name in names}
    with record.RunFile(tmp_path / "seed-7-1.h5", attrs, {"resolved": resolved, "tuning": None}, {}) as file:
        file.append("trace", {"time": [0.0, 0.5, 1.5], "loss": [2.0, 0.7, 0.05], **counters})
        file.put("trace/loss", attrs={"direction": "lower"})
        file.finish(outcome="reached", seconds=1.5)
    run = read(tmp_path / "seed-7-1.h5")
    assert (run.seed, run.parameters, run.complete, run.budget_seconds) == (7, {"stepsize": 0.1}, True, INF)
    hit = time_to_target(run, 0.1)
    assert (hit.time, hit.granularity_seconds, hit.gradients) == (1.5, 1.0, 6)


# curves and figures


def test_a_file_that_was_changed_after_its_end_is_refused(tmp_path):
    from mpibench import record

    with record.RunFile(tmp_path / "seed-7-1.h5", {"run_id": "r"}, {}, {}) as file:
        file.finish()
    content = bytearray((tmp_path / "seed-7-1.h5").read_bytes())
    content[-1] ^= 1
    (tmp_path / "seed-7-1.h5").write_bytes(content)
    with pytest.raises(InvalidInput, match="its seal is broken"):
        read(tmp_path / "seed-7-1.h5")


def runs_of(folder):
    (race,) = races.load([folder])
    return list(race.methods[0].runs)


def test_the_median_curve_by_hand(tmp_path):
    write(tmp_path, [4.0, 2.0, 1.0], [0.0, 2.0, 4.0], seed=0)
    write(tmp_path, [4.0, 3.0, 0.5], [0.0, 1.0, 3.0], seed=1)
    write(tmp_path, [4.0, math.nan, 0.9], [0.0, 0.5, 1.0], seed=2, outcome="diverged")
    curve = median_curve(runs_of(tmp_path), "loss")
    assert list(curve["time"]) == [0.0, 0.5, 1.0, 2.0, 3.0, 4.0]
    # between snapshots the last value holds; not a number, and what follows a divergence, is the worst
    assert list(curve["median"]) == [4.0, 4.0, 3.0, 3.0, 2.0, 1.0]
    assert curve["low"].isna().all() and curve["high"].isna().all()


def test_the_median_curve_ends_where_half_of_the_runs_have(tmp_path):
    for seed, end in enumerate([2.0, 3.0, 5.0]):
        write(tmp_path, [2.0, 0.05], [0.0, end], seed=seed, outcome="reached")
    curve = median_curve(runs_of(tmp_path), "loss")
    assert list(curve["time"]) == [0.0, 2.0, 3.0] and list(curve["median"]) == [2.0, 2.0, 0.05]


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_the_band_of_six_runs_is_their_range(tmp_path, direction):
    for seed in range(6):
        write(tmp_path, [1.0 + seed, 0.1 * (1 + seed)], seed=seed, direction=direction)
    curve = median_curve(runs_of(tmp_path), "loss")
    assert list(curve["low"]) == [1.0, 0.1] and list(curve["high"]) == pytest.approx([6.0, 0.6])
    assert list(curve["median"]) == pytest.approx([3.0, 0.3] if direction == "lower" else [4.0, 0.4])


def test_long_curves_are_thinned_but_keep_their_ends(tmp_path):
    write(tmp_path, np.linspace(2.0, 1.0, 5001))
    curve = median_curve(runs_of(tmp_path), "loss")
    assert len(curve) == 1000
    assert list(curve.iloc[0][["time", "median"]]) == [0.0, 2.0] and list(curve.iloc[-1][["time", "median"]]) == [
        5000.0,
        1.0,
    ]


def test_the_figure_names_its_clock_targets_and_methods(tmp_path):
    meets(tmp_path, range(1, 11), algorithm="minibatch_sgd")
    meets(tmp_path, [*[0.25 * k for k in range(1, 8)], None, None, None])
    loaded = races.load([tmp_path])
    curves, times = plots.figure(loaded).axes
    assert times.get_xlabel().startswith("virtual time (s") and curves.get_ylabel() == "loss (log scale)"
    assert curves.get_title(loc="left") == "race, 8 workers, simulation, virtual clock"
    assert [label.get_text() for label in times.get_yticklabels()] == ["minibatch_sgd", "ringmaster"]
    assert [text.get_text() for text in times.texts] == ["10/10", "7/10", "reached"]
    assert [text.get_text() for text in curves.texts] == ["≤ 0.01", "≤ 0.1", "≤ 1"]
    horizontal = [line.get_ydata()[0] for line in curves.lines if set(line.get_xdata()) == {0, 1}]
    assert sorted(horizontal) == [0.01, 0.1, 1.0]
    shown = {tuple(line.get_xdata()) for line in times.lines}
    assert tuple(2.0 * k for k in range(1, 11)) in shown and (10.0, 10.0, 10.0) in shown, (
        "hits, and misses at the budget"
    )
    assert (10.0, 10.0) in shown and (2.5, 2.5) in shown, "bars at the medians"
    assert len(curves.lines) == 20 + 2 + 3, "every run, medians, targets"
    assert "n = 10 seeds" in plots.caption(loaded)


def test_a_diverging_method_does_not_hide_the_others(tmp_path):
    meets(tmp_path, range(1, 7))
    for seed in range(6):
        values = [2.0, 1e6, 1e30, math.inf]
        write(tmp_path, values, seed=seed, algorithm="async_sgd", outcome="diverged", seconds=3.0)
    curves, times = plots.figure(races.load([tmp_path])).axes
    assert curves.get_ylim()[1] < 100
    assert [text.get_text() for text in times.texts] == ["0/6", "6/6", "reached"]


def test_time_is_logarithmic_where_methods_differ_much(tmp_path):
    meets(tmp_path, [5.0] * 6)
    meets(tmp_path, [0.5] * 6, algorithm="async_sgd")
    assert [axes.get_xscale() for axes in plots.figure(races.load([tmp_path])).axes] == ["linear"] * 2
    meets(tmp_path, [0.1] * 6, algorithm="minibatch_sgd")
    assert [axes.get_xscale() for axes in plots.figure(races.load([tmp_path])).axes] == ["log"] * 2


def test_a_figure_of_several_clocks_has_axes_for_each(tmp_path):
    meets(tmp_path, range(1, 7))
    meets(tmp_path, range(1, 7), engine="mpi", clock="native")
    axes = plots.figure(races.load([tmp_path])).axes
    assert [a.get_xlabel() for a in axes if a.get_xlabel()] == ["time (s), native clock", "virtual time (s)"]
    assert len(axes) == 4


def test_a_figure_of_another_metric_has_no_targets(tmp_path):
    path = write(tmp_path, [2.0, 0.1, 0.01])
    with h5py.File(path, "a") as file:
        file["trace/consensus"] = [-1.0, 2.0, 3.0]
        file["trace/consensus"].attrs["direction"] = "lower"
    (axes,) = plots.figure(races.load([tmp_path]), "consensus").axes
    assert axes.get_ylabel() == "consensus" and not axes.texts
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ringmaster"]
    with pytest.raises(InvalidInput, match="the metric accuracy; they have consensus, loss"):
        plots.figure(races.load([tmp_path]), "accuracy")


# wrong input


def refused(*arguments):
    """The one sentence with which the command refuses these arguments."""
    with pytest.raises(InvalidInput) as error:
        command_line.main([*map(str, arguments)], standalone_mode=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_files_are_refused_in_one_sentence(tmp_path):
    good = write(tmp_path / "good", [2.0, 0.1])
    assert "does not exist" in refused("table", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "no result file (*.h5)" in refused("table", tmp_path / "empty")
    part = tmp_path / "run.h5.part"
    part.write_bytes(good.read_bytes())
    assert "has not finished" in refused("table", part)
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    assert "text.h5 cannot be read as an HDF5 file" in refused("curves", text)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(good.read_bytes()[:3000])
    assert "cut.h5 cannot be read as an HDF5 file" in refused("table", cut)
    newer = write(tmp_path / "newer", [2.0], schema=2)
    assert "has schema 2, newer than 1" in refused("table", newer)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = 1
    assert "other.h5 is no result file of mpibench" in refused("table", other)


def test_damaged_result_files_are_refused(tmp_path):
    path = write(tmp_path, [2.0, 0.1])
    for damage, sentence in [
        (lambda file: file.attrs.__delitem__("cell"), "has no attribute `cell`"),
        (lambda file: file["trace"].__delitem__("gradients"), "has no /trace/gradients"),
        (lambda file: file["trace/loss"].attrs.__delitem__("direction"), "must say `direction` lower or higher"),
        (lambda file: file.move("trace/loss", "trace/gap"), "has targets for loss but no /trace/loss"),
        (lambda file: file["config"].__delitem__("resolved"), "has no /config/resolved"),
        (lambda file: file.attrs.__setitem__("parameters", "{"), "`parameters` in .* is not JSON"),
    ]:
        other = tmp_path / "damaged.h5"
        other.write_bytes(path.read_bytes())
        with h5py.File(other, "a") as file:
            damage(file)
        assert re.search(sentence, refused("table", other))


def test_parts_in_a_folder_are_not_opened(tmp_path):
    path = write(tmp_path, [2.0, 0.1])
    path.with_name("seed-1.h5.part").write_text("still being written")
    assert find([tmp_path]) == [path]
    assert find([tmp_path, path]) == [path], "and every file counts once"


def test_different_targets_are_refused(tmp_path):
    write(tmp_path, [2.0, 0.1])
    write(tmp_path, [2.0, 0.1], algorithm="async_sgd", targets=TARGETS | {"version": 2})
    assert re.search(r"version 1\) and .*version 2\)|version 2\) and .*version 1\)", refused("table", tmp_path))


def test_targets_that_were_not_fixed_before_are_refused(tmp_path):
    write(tmp_path, [2.0, 0.1])
    assert "0.05 is no target of race" in refused("table", tmp_path, "--target", "0.05")
    write(tmp_path / "none", [2.0, 0.1], targets=None, experiment="aimless")
    assert "experiment aimless names no targets" in refused("table", tmp_path / "none")


def test_a_base_that_nobody_ran_is_refused(tmp_path):
    write(tmp_path, [2.0, 0.1])
    assert "adam is no method in these files; they hold ringmaster" in refused("table", tmp_path, "--base", "adam")


def test_nothing_is_left_where_a_file_cannot_be_written(tmp_path):
    write(tmp_path / "results", [2.0, 0.1])
    assert "give --out a folder that exists" in refused(
        "table", tmp_path / "results", "--ungated", "--out", tmp_path / "no/table.md"
    )
    assert "must end in .png or .pdf" in refused("curves", tmp_path / "results", "--out", tmp_path / "curves.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


# the command line


def analysis(*arguments):
    """The command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "analysis", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_the_footer_names_a_command_that_makes_the_table_again(tmp_path):
    meets(tmp_path / "my results", range(1, 7), algorithm="async_sgd")
    meets(tmp_path / "my results", range(2, 8))
    first = analysis("table", tmp_path / "my results", "--base", "async_sgd", "--target", "0.1", "--ungated")
    assert first.returncode == 0 and first.stderr == ""
    command = re.search(r"Made by `(.*)`\.", first.stdout)[1]
    assert "--base async_sgd --target 0.1" in command
    assert command.startswith("python -m analysis table '")
    again = subprocess.run(
        command.replace("python", sys.executable, 1), shell=True, capture_output=True, text=True, timeout=120
    )
    assert again.stdout == first.stdout


def test_curves_writes_what_it_is_asked_for(tmp_path, monkeypatch):
    meets(tmp_path / "results", range(1, 7))
    png, pdf = tmp_path / "figure.png", tmp_path / "figure.pdf"
    arguments = ["curves", str(tmp_path / "results"), "--out", str(png), "--out", str(pdf)]
    monkeypatch.setattr(sys, "argv", ["analysis", *arguments])
    result = CliRunner().invoke(command_line.main, arguments)
    assert result.exit_code == 0 and f"wrote {png}" in result.output and f"wrote {pdf}" in result.output
    assert png.read_bytes().startswith(b"\x89PNG") and pdf.read_bytes().startswith(b"%PDF")
    (path, *_) = find([tmp_path / "results"])
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12].encode() in png.read_bytes(), (
        "the inputs, in its metadata"
    )
    first = png.read_bytes(), pdf.read_bytes()
    CliRunner().invoke(command_line.main, arguments)
    assert (png.read_bytes(), pdf.read_bytes()) == first, "the same inputs give the same bytes"


def test_exit_codes(tmp_path):
    missing = analysis("table", tmp_path / "nothing")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1 and "does not exist" in missing.stderr
    assert analysis("table", "--frobnicate").returncode == 2
    assert analysis("table").returncode == 2


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    write(tmp_path / "results", [2.0, 0.1])

    def fill(path, content):
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", fill)
    out = tmp_path / "table.md"
    result = CliRunner().invoke(command_line.main, ["table", str(tmp_path / "results"), "--ungated", "--out", str(out)])
    assert result.exit_code == 1 and "No space left" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_help_waits_for_no_heavy_import():
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try:\n    main(['table', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'numpy', 'scipy', 'pandas', 'h5py', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
