"""The table of times to target: one row for each target and method, with what may be concluded from it.

`tabulate` computes every number of a race at full precision; `markdown` and `latex` round it for readers and say in
notes how it was made, `csv` keeps it whole. A comparison with the base rests on pairs of runs of one seed.
"""

import json
import math
import re
import textwrap
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jinja2 import Environment

from analysis import statistics
from analysis.errors import InvalidInput
from analysis.notes import inputs, provenance
from analysis.races import Race, in_words
from analysis.rounding import interval, number
from analysis.time_to_target import time_to_target

SYNCHRONOUS = "minibatch_sgd"  # what asynchronous methods are measured against where no base is named
COLUMNS = 130  # of a terminal that shows a Markdown table and its notes unbroken
NO_DIFFERENCE = "no difference shown"
TOO_SMALL = "n too small"


@dataclass(frozen=True, eq=False)
class Table:
    """A race in numbers.

    `rows` has one row for each target (from easy to hard) and method (fastest at the headline first), times in seconds
    on the race's clock, +inf where a median run missed; its columns are those of the CSV. `hits` are the
    `TimeToTarget` of the counted runs by (label, target), each a dict by seed.
    """

    race: Race
    base: str | None
    rows: pd.DataFrame
    hits: dict

    @property
    def targets(self):
        """The targets shown, from easy to hard."""
        return list(dict.fromkeys(self.rows["target"]))


def tabulate(race, targets=(), base=None):
    """The `Table` of `race` at these `targets` (default: all), with ratios to the method called `base`.

    Without `base` minibatch SGD is the base where the race has it once. Raises InvalidInput where the experiment has
    no targets or not these: they are fixed before the runs. Where the race has no method `base`, there are no ratios.
    """
    ladder = _ladder(race, targets)
    base = _base(race, base)
    everywhere = {*ladder, race.targets.headline}
    hits = {
        (method.label, target): {run.seed: time_to_target(run, target) for run in method.counted}
        for method in race.methods
        for target in everywhere
    }

    def at_headline(method):
        times = [hit.time for hit in hits[method.label, race.targets.headline].values()]
        return (statistics.median(times) if times else math.inf), method.label

    methods = sorted(race.methods, key=at_headline)
    rows = pd.DataFrame([_row(race, method, target, base, hits) for target in ladder for method in methods])
    if base:
        rows["p_holm"] = statistics.holm(rows["p"])
        rows["comparisons"] = int(rows["p"].notna().sum())
    return Table(race, base.label if base else None, rows, hits)


def _ladder(race, chosen):
    if race.targets is None:
        raise InvalidInput(f"experiment {race.experiment} names no targets; add `targets` to it and run it again")
    for target in chosen:
        if target not in race.targets.values:
            raise InvalidInput(
                f"{target:g} is no target of {race.experiment}, whose targets for {race.targets.metric} were fixed before "
                f"the runs: {', '.join(f'{value:g}' for value in race.targets.values)}"
            )
    return sorted(set(chosen) or race.targets.values, reverse=_direction(race) == "lower")


def _direction(race):
    return next((run.better[race.targets.metric] for run in race.runs if run.complete), "lower")


def _base(race, name):
    """The method called `name` by its label, or by its algorithm where that has one cell only."""
    for method in race.methods:
        if method.label == name:
            return method
    same = [method for method in race.methods if method.runs[0].algorithm == (name or SYNCHRONOUS)]
    if name and len(same) > 1:
        labels = "; ".join(f'"{method.label}"' for method in same)
        raise InvalidInput(f"{name} stands for {len(same)} methods of {race.experiment}; name one as base: {labels}")
    return same[0] if len(same) == 1 else None


def _row(race, method, target, base, hits):
    """One row of the CSV: `method` at `target`, beside `base` (or None)."""
    own = hits[method.label, target]
    times = np.array([hit.time for hit in own.values()])
    reached = int(np.isfinite(times).sum())
    run = method.runs[0]
    reached_low, reached_high = statistics.fraction_interval(reached, len(times))
    row = {
        "experiment": race.experiment,
        "engine": race.engine,
        "clock": race.clock,
        "setting": race.setting,
        "metric": race.targets.metric,
        "direction": _direction(race),
        "target": target,
        "headline": target == race.targets.headline,
        "targets_version": race.targets.version,
        "method": method.label,
        "algorithm": run.algorithm,
        "cell": run.cell,
        "parameters": json.dumps(run.parameters),
        "final_model": run.final_model,
        "n": len(times),
        "reached": reached,
        "reached_low": reached_low,
        "reached_high": reached_high,
        **_summary("seconds", times),
        "granularity_seconds": max(
            (hit.granularity_seconds for hit in own.values() if not hit.censored), default=math.nan
        ),
        **_summary("gradients", [hit.gradients for hit in own.values()]),
        **_summary("bytes", [hit.bytes for hit in own.values()]),
        "target_lost": sum(hit.target_lost for hit in own.values()),
        "stopped_from_outside": len(method.runs) - len(times),
        "poor_fidelity": sum(run.poor_fidelity for run in method.runs),
        "time_scale": max((run.fidelity.get("time_scale", math.nan) for run in method.counted), default=math.nan),
        "lateness_max_seconds": max(
            (run.fidelity.get("lateness_max_seconds", math.nan) for run in method.counted), default=math.nan
        ),
        "seeds": _listed(own),
        "seconds": _listed(times),
        "stored_seconds": _listed(hit.seconds for hit in own.values()),
        "reasons": _listed(hit.reason for hit in own.values()),
    }
    return row | (_comparison(method, base, target, hits) if base else {})


def _summary(unit, values):
    """The median and its interval, as columns."""
    if not len(values):
        return {f"median_{unit}": math.nan, f"median_{unit}_low": math.nan, f"median_{unit}_high": math.nan}
    low, high = statistics.median_interval(values)
    return {f"median_{unit}": float(statistics.median(values)), f"median_{unit}_low": low, f"median_{unit}_high": high}


def _comparison(method, base, target, hits):
    """The columns that compare `method` with `base` over the seeds that both ran; nan where there is nothing to compare."""
    own, other = hits[method.label, target], hits[base.label, target]
    seeds = sorted(own.keys() & other.keys())
    tried = {run.seed for run in (*method.runs, *base.runs)}
    a, b = (np.array([side[seed].time for seed in seeds]) for side in (own, other))
    ratio = paired = won = (math.nan, math.nan, math.nan)
    p = math.nan
    if seeds and method is not base:
        ratio, paired, won = statistics.ratio_interval(a, b), statistics.paired_ratio(a, b), statistics.wins(a, b)
        p = statistics.paired_test(a, b)
    return {
        "base": base.label,
        "pairs": len(seeds),
        "pairs_left_out": len(tried) - len(seeds),
        **dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True)),
        **dict(zip(("paired_ratio", "paired_ratio_low", "paired_ratio_high"), paired, strict=True)),
        **dict(zip(("wins", "win_fraction_low", "win_fraction_high"), won, strict=True)),
        "win_fraction": won[0] / len(seeds) if seeds else math.nan,
        "p": p,
    }


def _listed(values):
    return " ".join(str(value) for value in values)


# what readers see


def markdown(tables, command):
    """The tables with their notes, aligned for a terminal; `command` is what makes them again."""
    return "\n".join(_markdown(table) for table in tables) + "\n" + _regenerate(command) + "\n"


def _markdown(table):
    items = "\n".join(_item(note) for note in (*notes(table), inputs(table.race)))
    return "\n\n".join([f"## {heading(table)}", _grid(cells(table)), _grid(methods(table)), items]) + "\n"


def _grid(frame):
    """A frame of text as an aligned Markdown table."""
    columns = [[name, *(text.replace("|", r"\|") for text in frame[name])] for name in frame]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in zip(*columns, strict=True)
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _item(text):
    """A note as a list item, broken at the width of a terminal but never inside an interval."""
    text = re.sub(r"\[[^\]]*\]", lambda bracket: bracket[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(text, COLUMNS - 2, break_long_words=False, break_on_hyphens=False)
    return "- " + "\n  ".join(lines).replace("\0", " ")


def _regenerate(command):
    return f"Made by `{command}`."


def heading(table):
    """What the table shows, of what, on which clock."""
    return f"Time to {_metric(table)} target: {table.race.title}"


def cells(table):
    """The table as text, rounded for readers."""
    shown = pd.DataFrame()
    rows = [row for _, row in table.rows.iterrows()]
    relation = "≤" if table.rows["direction"].iloc[0] == "lower" else "≥"
    shown["target"] = [f"{relation} {row.target:g}{' *' if row.headline else ''}" for row in rows]
    shown["method"] = table.rows["method"]
    shown["n"] = [str(row.n) for row in rows]
    shown["reached"] = [_fraction(row.reached, row.n, row.reached_low, row.reached_high) for row in rows]
    shown[f"{table.race.clock} seconds"] = [
        _seconds(row, table.hits[row.method, row.target].values()) for row in rows
    ]
    if table.base:
        shown[f"ratio to {table.base}"] = [_ratio(row) for row in rows]
        shown["wins"] = ["" if math.isnan(row.wins) else f"{row.wins:g}/{row.pairs}" for row in rows]
    shown["granularity"] = ["" if math.isnan(g) else f"{number(g)} s" for g in table.rows["granularity_seconds"]]
    return shown


def methods(table):
    """What each method was run with and, at the headline target, what it spent, as text."""
    headline = table.race.targets.headline
    at = headline if headline in table.targets else table.targets[-1]
    rows = [row for _, row in table.rows[table.rows["target"] == at].iterrows()]
    runs = {method.label: method.runs[0] for method in table.race.methods}
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["parameters"] = [in_words(runs[row.method].parameters) for row in rows]
    shown["chosen from"] = [_chosen(runs[row.method].tuning) for row in rows]
    shown[f"gradients to {at:g}"] = [
        _spread(row.median_gradients, row.median_gradients_low, row.median_gradients_high) for row in rows
    ]
    shown[f"MB to {at:g}"] = [
        _spread(row.median_bytes / 1e6, row.median_bytes_low / 1e6, row.median_bytes_high / 1e6) for row in rows
    ]
    return shown


def _chosen(tuning):
    """How the parameters were tuned: number of trials and the seeds they ran on."""
    trials = tuning.get("trials")
    if not trials:
        return "not tuned"
    trials = trials if isinstance(trials, int) else len(trials)
    return f"{trials} trials, seeds {', '.join(map(str, tuning['seeds']))}"


def _fraction(k, n, low, high):
    return f"{k}/{n}" + ("" if math.isnan(low) else f" [{number(low, 2)}, {number(high, 2)}]")


def _seconds(row, hits):
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


def _ratio(row):
    """The ratio of medians with its interval, in words where there is none or it shows no difference."""
    if row.method == row.base:
        return "base"
    if not row.pairs:
        return "no pairs"
    ratio = {0: f"{row.base} missed", math.inf: "missed"}.get(row.ratio) or number(row.ratio)
    if math.isnan(row.ratio_low):
        return f"{ratio}; {TOO_SMALL}"
    if row.ratio_low <= 1 <= row.ratio_high:
        ratio = NO_DIFFERENCE
    elif row.ratio_low == row.ratio_high and row.ratio in (0, math.inf):
        return ratio  # whatever runs are drawn, one of the two medians is a miss
    return f"{ratio} {interval(row.ratio_low, row.ratio_high)}"


def notes(table):
    """How the numbers were made, what was left out, and what may be concluded at the headline target."""
    race, rows = table.race, table.rows
    yield (
        f"Seconds: {race.clock} clock, from the start to the first snapshot at or past the target; median over seeds, where a "
        "run that misses is above all others. Granularity: the largest time between the snapshots around a hit. "
        f"* is the headline target; targets version {race.targets.version}. {_final_models(race)}"
    )
    yield (
        "95 % intervals: reached, exact (Clopper-Pearson); medians, order statistics; ratio of medians, percentile "
        f"bootstrap over pairs of one seed ({statistics.RESAMPLES} resamples, generator seed 0), below 1 where the method is "
        f"faster; {NO_DIFFERENCE}: it contains 1. Wins: pairs in which the method is faster, ties half. "
        f"{TOO_SMALL}: below {statistics.POINTS_MEDIAN} runs, {statistics.PAIRS_RATIO} pairs for a ratio."
        if table.base
        else "95 % intervals: reached, exact (Clopper-Pearson); medians, order statistics. "
        f"{TOO_SMALL}: below {statistics.POINTS_MEDIAN} runs. No ratios: --base names the method to compare with."
    )
    if table.base:
        yield from _conclusions(table)
        left_out = rows[rows["method"] != table.base].groupby("method")["pairs_left_out"].first()
        yield f"Pairs left out because a run is missing or was stopped from outside: {left_out.sum()}" + (
            f" ({', '.join(f'{label} {count}' for label, count in left_out.items() if count)})." if left_out.sum() else "."
        )
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


def _conclusions(table):
    """One sentence for each method against the base, at the headline target."""
    rows = table.rows[table.rows["headline"] & (table.rows["pairs"] >= statistics.PAIRS_TEST)]
    for _, row in rows[rows["method"] != table.base].iterrows():
        yield (
            f"{row.method} against {table.base} at {row.target:g}: ratio of medians {_ratio(row)}; median of paired ratios "
            f"{number(row.paired_ratio)} {interval(row.paired_ratio_low, row.paired_ratio_high)}; wins {row.wins:g} of "
            f"{row.pairs} [{number(row.win_fraction_low, 2)}, {number(row.win_fraction_high, 2)}]; p = {number(row.p_holm, 2)} "
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


LATEX = r"""
% packages: booktabs, adjustbox
%- for table in tables
\begin{table}
  \centering
  \caption{<< table.heading | tex >>}
  \footnotesize
%- for frame in table.frames
  \begin{adjustbox}{max width=\linewidth}
  \begin{tabular}{<< 'l' * frame.columns | length >>}
    \toprule
    << frame.columns | map('tex') | join(' & ') >> \\
    \midrule
%- for group in frame.groups
%- if not loop.first
    \addlinespace
%- endif
%- for row in group
    << row | map('tex') | join(' & ') >> \\
%- endfor
%- endfor
    \bottomrule
  \end{tabular}
  \end{adjustbox}\par\medskip
%- endfor
  \begin{minipage}{\linewidth}\footnotesize
%- for note in table.notes
    << note | tex >>\par
%- endfor
  \end{minipage}
\end{table}
% << table.inputs | one_line >>
%- endfor
% Made by << command | one_line >>
"""

TEX = str.maketrans(
    {
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "≤": r"$\le$",
        "≥": r"$\ge$",
        "∞": r"$\infty$",
        '"': "''",
        "|": r"\textbar{}",
    }
)


def _by_target(frame):
    """The rows in one group for each target, which only the first row names."""
    groups = [group.to_numpy().tolist() for _, group in frame.groupby("target", sort=False)]
    return [[first, *(["", *row[1:]] for row in others)] for first, *others in groups]


def latex(tables, command):
    """The tables as LaTeX (packages booktabs and adjustbox), the command and the inputs' hashes in comments."""
    environment = Environment(
        variable_start_string="<<", variable_end_string=">>", line_statement_prefix="%-", keep_trailing_newline=True
    )
    environment.filters |= {"tex": lambda text: str(text).translate(TEX), "one_line": lambda text: " ".join(text.split())}
    shown = [
        {
            "heading": heading(table),
            "frames": [
                {"columns": list(cells(table)), "groups": _by_target(cells(table))},
                {"columns": list(methods(table)), "groups": [methods(table).to_numpy().tolist()]},
            ],
            "notes": list(notes(table)),
            "inputs": inputs(table.race),
        }
        for table in tables
    ]
    return environment.from_string(LATEX.lstrip()).render(tables=shown, command=command)


def csv(tables, command):
    """All rows of all tables at full precision, each with the hashes of its inputs and the command that makes it."""
    frames = []
    for table in tables:
        digests = {method.label: " ".join(run.digest for run in method.runs) for method in table.race.methods}
        frames.append(table.rows.assign(inputs_sha256=table.rows["method"].map(digests), command=command))
    return pd.concat(frames).to_csv(index=False)
