"""Times to target as readers see them: the cells of the table, and the notes below it."""

import math
from collections import defaultdict

import pandas as pd

from analysis import sheets, statistics
from analysis.claims import NO_DIFFERENCE, TOO_SMALL, cannot
from analysis.notes import provenance
from analysis.races import in_words
from analysis.rounding import interval, number, of_target


def markdown(tables, command):
    """The tables with their notes, aligned for a terminal; `command` is what makes them again."""
    return sheets.markdown(list(map(sheet, tables)), command)


def latex(tables, command):
    """The tables as LaTeX (packages booktabs and adjustbox), the command and the inputs' hashes in comments."""
    return sheets.latex(list(map(sheet, tables)), command)


def csv(tables, command):
    """All rows of all tables at full precision, each with the hashes of its inputs and the command that makes it."""
    return sheets.csv(list(map(sheet, tables)), command)


def sheet(table, predicted=False):
    """What is shown of a `Table`; with a column of theory's times where `predicted`."""
    frames = (cells(table, predicted), *([misses(table)] if (table.rows["reached"] < table.rows["n"]).any() else []))
    return sheets.Sheet(
        table.race, heading(table), (*frames, methods(table)), tuple(notes(table, predicted)), table.rows
    )


def heading(table):
    """What the table shows, of what, on which clock."""
    return f"Time to {_metric(table)} target: {table.race.title}"


def cells(table, predicted=False):
    """The table as text, rounded for readers; with a column of theory's times where `predicted`."""
    shown = pd.DataFrame()
    rows = [row for _, row in table.rows.iterrows()]
    shown["target"] = [of_target(row) for row in rows]
    shown["method"] = [named(row) for row in rows]
    shown[f"{table.race.clock} seconds"] = [seconds(row, table.hits[row.method, row.target].values()) for row in rows]
    if predicted:
        shown["predicted"] = [
            "" if math.isnan(row.predicted_seconds) else number(row.predicted_seconds) for row in rows
        ]
    if table.base:
        shown[f"ratio to {table.base}"] = [ratio(row) for row in rows]
        shown["wins"] = ["" if math.isnan(row.wins) else f"{row.wins:g}/{row.pairs}" for row in rows]
    shown["reached"] = [_fraction(row.reached, row.n, row.reached_low, row.reached_high) for row in rows]
    shown["n"] = [str(row.n) for row in rows]
    shown["spacing"] = ["" if math.isnan(g) else f"{number(g)} s" for g in table.rows["granularity_seconds"]]
    return shown


def misses(table):
    """Of each target that some run missed, as text: how many met it, and what counts the others by their time."""
    missed = table.rows[table.rows["reached"] < table.rows["n"]]["target"].unique()
    rows = [row for _, row in table.rows[table.rows["target"].isin(missed)].iterrows() if row.n]
    shown = pd.DataFrame()
    shown["target"] = [of_target(row) for row in rows]
    shown["method"] = [named(row) for row in rows]
    shown["success"] = [_fraction(row.reached, row.n, row.reached_low, row.reached_high) for row in rows]
    shown["expected running time"] = [_running_time(row) for row in rows]
    shown["survival median"] = [_survival(row) for row in rows]
    shown["runs, events"] = [f"{row.survival_runs}, {row.survival_events}" for row in rows]
    return shown


def _running_time(row):
    if math.isinf(row.ert_seconds):
        return _later_than(row.cost_seconds)
    return _with_ends(row, "ert_seconds")


def _survival(row):
    if math.isinf(row.survival_seconds):
        return "not half"
    return _with_ends(row, "survival_seconds")


def _with_ends(row, name):
    middle, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    return number(middle) + (f"; {TOO_SMALL}" if math.isnan(low) else f" {interval(low, high)}")


def named(row):
    """The method, and whether its numbers are of a method that is biased where workers differ, as they do here."""
    return f"{row.method} (biased)" if row.biased else row.method


def methods(table):
    """What each method was run with and, at the headline target, what it spent, as text."""
    headline = table.race.targets.headline
    at = headline if headline in table.targets else table.targets[-1]
    rows = [row for _, row in table.rows[table.rows["target"] == at].iterrows()]
    runs = {method.label: method.runs[0] for method in table.race.methods}
    shown = pd.DataFrame()
    shown["method"] = [named(row) for row in rows]
    shown["parameters"] = [in_words(runs[row.method].parameters) for row in rows]
    shown[f"gradients to {at:g}"] = [
        _spread(row.median_gradients, row.median_gradients_low, row.median_gradients_high) for row in rows
    ]
    shown[f"MB to {at:g}"] = [
        _spread(row.median_bytes / 1e6, row.median_bytes_low / 1e6, row.median_bytes_high / 1e6) for row in rows
    ]
    return shown


def _fraction(k, n, low, high):
    return f"{k}/{n}" + ("" if math.isnan(low) else f" [{number(low, 2)}, {number(high, 2)}]")


def seconds(row, hits):
    """The median with its interval; the points themselves where they are too few for one."""
    hits = sorted(hits, key=lambda hit: (hit.time, hit.seconds))
    if not hits:
        return "no run counts"
    if row.n < statistics.POINTS_MEDIAN:
        points = [_later_than(hit.seconds) if hit.censored else number(hit.seconds) for hit in hits]
        return f"{', '.join(points)}; {TOO_SMALL}"
    middle = number(row.median_seconds)
    if math.isinf(row.median_seconds):
        middle = _later_than(min(hit.seconds for hit in hits if hit.censored))
    if math.isinf(row.median_seconds_low):
        return middle
    return f"{middle} {interval(row.median_seconds_low, row.median_seconds_high)}"


def _later_than(seconds):
    """A miss, up to the time for which that is known."""
    return f"> {number(seconds)}" if math.isfinite(seconds) else "missed"


def _spread(middle, low, high):
    if math.isnan(middle):
        return ""
    if math.isinf(middle):
        return "not reached"
    return TOO_SMALL if math.isnan(low) else f"{number(middle)} {interval(low, high)}"


def ratio(row):
    """The ratio of medians with its interval, in words where there is none or it shows no difference."""
    if row.method == row.base:
        return "base"
    if not row.pairs:
        return "no pairs"
    shown = {0: f"{row.base} missed", math.inf: "missed"}.get(row.ratio) or number(row.ratio)
    if math.isnan(row.ratio_low):
        return f"{shown}; {TOO_SMALL}"
    if row.ratio_low <= 1 <= row.ratio_high:
        shown = NO_DIFFERENCE
    elif row.ratio_low == row.ratio_high and row.ratio in (0, math.inf):
        return shown  # whatever runs are drawn, one of the two medians is a miss
    return f"{shown} {interval(row.ratio_low, row.ratio_high)}"


def notes(table, predicted=False):
    """How the numbers were made, what was left out, and what may be concluded at the headline target."""
    race, rows = table.race, table.rows
    yield (
        f"Seconds: {race.clock} clock, from the start to the first snapshot at or past the target; median over seeds, "
        "where a run that misses is above all others. Spacing (granularity): the longest time between the snapshots "
        f"around a hit. * is the headline target; targets version {race.targets.version}. {_final_models(race)}"
    )
    yield (
        "95 % intervals: reached, exact (Clopper-Pearson); medians, order statistics; ratio of medians, percentile "
        f"bootstrap over pairs of one seed ({statistics.RESAMPLES} resamples, generator seed 0), below 1 where the "
        f"method is faster; {NO_DIFFERENCE}: it contains 1. Wins: pairs in which the method is faster, ties half. "
        f"{TOO_SMALL}: below {statistics.POINTS_MEDIAN} runs, {statistics.PAIRS_RATIO} pairs for a ratio."
        if table.base
        else "95 % intervals: reached, exact (Clopper-Pearson); medians, order statistics. "
        f"{TOO_SMALL}: below {statistics.POINTS_MEDIAN} runs. No ratios: --base names the method to compare with."
    )
    if (rows["reached"] < rows["n"]).any():
        yield (
            "Misses: the expected running time is the seconds of all runs, a miss its budget, over the number of "
            f"successes (percentile bootstrap over runs, none below {statistics.POINTS_SURVIVAL}; without a success, "
            "more than all seconds together); the survival median is Kaplan and Meier's, with runs that were stopped "
            "from outside as censored, its interval that of the log-log band (none below "
            f"{statistics.POINTS_SURVIVAL} runs or {statistics.EVENTS_SURVIVAL} events)."
        )
    yield from cannot(int(rows["n"].min()), int(rows["p"].notna().sum()) if table.base else 1)
    if predicted:
        yield (
            "Predicted: seconds by theory at the run's parameters and speeds, up to a constant that may differ between "
            "methods; `python -m analysis predicted` compares ratios and seconds per update."
        )
    yield _tuning(race)
    if table.base:
        yield from _conclusions(table)
        left_out = rows[rows["method"] != table.base].groupby("method")["pairs_left_out"].first()
        named = ", ".join(f"{label} {count}" for label, count in left_out.items() if count)
        pairs = f"{left_out.sum()} ({named})" if named else "0"
        yield f"Pairs left out because a run is missing or was stopped from outside: {pairs}."
    yield from _exceptions(table)
    yield from provenance(race)


def _metric(table):
    return table.race.targets.metric.replace("_", " ")


def _final_models(race):
    models = {run.final_model for run in race.runs if run.complete}
    if len(models) == 1:
        return f"Final model: {models.pop()}."
    of = {method.label: run.final_model for method in race.methods for run in method.runs if run.complete}
    return f"Final models differ: {'; '.join(f'{label}, {model}' for label, model in of.items())}."


def _tuning(race):
    """From how many trials on which seeds each method's parameters were chosen, so that budgets can be compared."""
    chosen = defaultdict(list)  # how: methods
    for method in race.methods:
        tuning = method.runs[0].tuning
        trials = tuning.get("trials") or 0
        trials = trials if isinstance(trials, int) else len(trials)
        how = "as given"
        if trials:
            seeds = ", ".join(map(str, tuning["seeds"]))
            how = f"chosen on seeds {seeds} in {number(tuning['core_seconds'])} core-seconds"
        chosen[how].append(f"{method.label} ({trials} trials)" if trials else method.label)
    return "Parameters " + "; ".join(f"{how}: {', '.join(of_methods)}" for how, of_methods in chosen.items()) + "."


def _conclusions(table):
    """One sentence for each method against the base, at the headline target."""
    rows = table.rows[table.rows["headline"] & (table.rows["pairs"] >= statistics.PAIRS_TEST)]
    for _, row in rows[rows["method"] != table.base].iterrows():
        paired = f"{number(row.paired_ratio)} {interval(row.paired_ratio_low, row.paired_ratio_high)}"
        if math.isnan(row.paired_ratio_low):  # too many pairs of two misses
            paired = TOO_SMALL
        yield (
            f"{row.method} against {table.base} at {row.target:g}: ratio of medians {ratio(row)}; median of paired "
            f"ratios {paired}; wins {row.wins:g} of {row.pairs} "
            f"[{number(row.win_fraction_low, 2)}, {number(row.win_fraction_high, 2)}]; p = {number(row.p_holm, 2)} "
            f"(Holm, m = {row.comparisons}); n = {row.pairs} pairs."
        )


def _exceptions(table):
    """Which runs missed a target, and why, and which lost it again."""
    missed, lost = [], []
    for target in table.targets:
        for method in table.race.methods:
            hits = table.hits[method.label, target].values()
            reasons = [hit.reason for hit in hits if hit.censored]
            if reasons:
                counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons)))
                missed.append(f"{target:g} {method.label} ({counts})")
            if any(hit.target_lost for hit in hits):
                lost.append(f"{target:g} {method.label} {sum(hit.target_lost for hit in hits)}")
    if missed:
        yield f"Runs that missed a target, and how they ended: {'; '.join(missed)}."
    if lost:
        yield f"Runs that lost a target again after they met it: {'; '.join(lost)}."
