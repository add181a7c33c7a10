"""Two methods over the seeds that both ran: how many times as fast one is as the other, target by target."""

import math
from dataclasses import dataclass

import pandas as pd

from analysis import statistics, tables
from analysis.claims import TOO_SMALL, cannot, comparison
from analysis.columns import of_method, summary
from analysis.errors import InvalidInput
from analysis.notes import provenance
from analysis.races import Method, Race
from analysis.rounding import interval, number, of_target
from analysis.sheets import Sheet
from analysis.time_to_target import time_to_target


@dataclass(frozen=True, eq=False)
class Pair:
    """Methods `a` and `b` of a race: `rows` has one row a target, its columns are those of the CSV."""

    race: Race
    a: Method
    b: Method
    rows: pd.DataFrame


def load(races, a, b):
    """The `Pair` of methods called `a` and `b` (labels, or algorithms with one cell) in each race that has both.

    Raises InvalidInput where no race has both, and where the two names are one method.
    """
    made = []
    for race in races:
        first, second = tables.named(race, a), tables.named(race, b)
        if first and first is second:
            raise InvalidInput(f"{a} and {b} are one method of {race.experiment}; name two")
        if first and second:
            made.append(Pair(race, first, second, _rows(race, first, second)))
    if not made:
        labels = sorted({method.label for race in races for method in race.methods})
        raise InvalidInput(f"no experiment in these files has both {a} and {b}; they hold {'; '.join(labels)}")
    return made


def _rows(race, a, b):
    rows = pd.DataFrame([row(race, a, b, target) for target in tables.ladder(race)])
    rows["p_holm"] = statistics.holm(rows["p"])
    rows["comparisons"] = int(rows["p"].notna().sum())
    return rows


def row(race, a, b, target):
    """The comparison of two methods at a target, as columns; the adjusted p depends on what else is compared."""
    own, other = ({run.seed: time_to_target(run, target) for run in method.counted} for method in (a, b))
    seeds, x, y = tables.paired_times(own, other)
    factor = paired = won = tables.UNKNOWN
    p = math.nan
    if seeds:
        factor, paired = statistics.ratio_interval(y, x), statistics.paired_ratio(y, x)
        won, p = statistics.wins(x, y), statistics.paired_test(x, y)
    arms = [
        [[getattr(hit, name) for hit in hits.values()] for name in ("seconds", "censored")] for hits in (own, other)
    ]
    return {
        **of_method(race, a),
        "against": b.label,
        "direction": tables.direction(race),
        "target": target,
        "headline": target == race.targets.headline,
        **_of_arm("", own),
        **_of_arm("against_", other),
        "pairs": len(seeds),
        "pairs_left_out": len({run.seed for run in (*a.runs, *b.runs)}) - len(seeds),
        **dict(zip(("factor", "factor_low", "factor_high"), factor, strict=True)),
        **dict(zip(("paired_factor", "paired_factor_low", "paired_factor_high"), paired, strict=True)),
        **dict(zip(("wins", "win_fraction_low", "win_fraction_high"), won, strict=True)),
        "p": p,
        "p_log_rank": statistics.log_rank(*arms[0], *arms[1]),
        "seeds": " ".join(map(str, seeds)),
    }


def _of_arm(prefix, hits):
    times = [hit.time for hit in hits.values()]
    columns = {"n": len(times), "reached": sum(not hit.censored for hit in hits.values())}
    return {prefix + name: value for name, value in (columns | summary("median_seconds", times)).items()}


def text(row):
    """The comparison of a row in words."""
    return comparison(
        row.factor, row.factor_low, row.factor_high, row.wins, row.pairs, row.p_holm, row.comparisons,
        slower=row.against, faster=row.method,
    )  # fmt: skip


def sheet(pair):
    """What is shown of a `Pair`."""
    heading = f"{pair.a.label} against {pair.b.label}: {pair.race.title}"
    return Sheet(pair.race, heading, (_cells(pair),), tuple(_notes(pair)), pair.rows)


def _cells(pair):
    rows = [row for _, row in pair.rows.iterrows()]
    shown = pd.DataFrame()
    shown["target"] = [of_target(row) for row in rows]
    for method, prefix in ((pair.a, ""), (pair.b, "against_")):
        shown[f"{method.label}, {pair.race.clock} seconds"] = [_median(row, prefix) for row in rows]
    shown["times as fast"] = [_factor(row, "factor") for row in rows]
    shown["median of pairs"] = [_factor(row, "paired_factor") for row in rows]
    shown["wins"] = [f"{row.wins:g}/{row.pairs}" if row.pairs else "no pairs" for row in rows]
    shown["p"] = ["" if math.isnan(row.p) else number(row.p, 2) for row in rows]
    shown["p (Holm)"] = ["" if math.isnan(row.p_holm) else number(row.p_holm, 2) for row in rows]
    shown["p (log-rank)"] = ["" if math.isnan(row.p_log_rank) else number(row.p_log_rank, 2) for row in rows]
    return shown


def _median(row, prefix):
    middle, low, high = (row[f"{prefix}median_seconds{end}"] for end in ("", "_low", "_high"))
    n, reached = row[f"{prefix}n"], row[f"{prefix}reached"]
    if n < statistics.POINTS_FRACTION:
        return f"{TOO_SMALL} ({reached}/{n})"
    said = "missed" if math.isinf(middle) else number(middle)
    return f"{said}{'' if math.isnan(low) or math.isinf(low) else ' ' + interval(low, high)} ({reached}/{n})"


def _factor(row, name):
    factor, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(factor):
        return "both missed" if row.pairs else ""
    said = {0.0: f"{row.method} missed", math.inf: f"{row.against} missed"}.get(factor) or f"x{number(factor)}"
    if low == high and factor in (0.0, math.inf):
        return said  # whatever pairs are drawn, one of the two medians is a miss
    return f"{said} {TOO_SMALL}" if math.isnan(low) else f"{said} {interval(low, high)}"


def _notes(pair):
    race, rows = pair.race, [row for _, row in pair.rows.iterrows()]
    for row in rows:
        where = f"At {row.target:g}{', the headline target' if row.headline else ''}"
        yield f"{where}, {row.method} against {row.against}: {text(row)}."
    pairs, family = int(min(row.pairs for row in rows)), len(rows)
    yield from cannot(pairs, family)
    yield (
        f"Times as fast (x): the median seconds of {pair.b.label} over those of {pair.a.label}, above 1 where "
        f"{pair.a.label} is faster; 95 % interval by percentile bootstrap over pairs of one seed "
        f"({statistics.RESAMPLES} resamples, generator seed 0). Median of pairs: of the ratios seed by seed, order "
        "statistics. Wins: pairs in which it is faster, ties half. p: exact paired permutation test of log times, with "
        "misses Wilcoxon's; Holm: over the targets of this table. Log-rank: both survival curves, unpaired."
    )
    left_out = int(max(row.pairs_left_out for row in rows))
    yield f"Pairs left out because a run is missing or was stopped from outside: {left_out}."
    yield from provenance(race)
