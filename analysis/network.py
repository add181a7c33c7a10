"""What the ranks of network methods did: how far apart their models were, who computed how much, how old was what they
heard of each other, and what they sent.

Every number is that of a run, and summarised over runs. A network method is one without a server, whose ranks are its
workers.
"""

import math
from dataclasses import dataclass

import h5py
import numpy as np
import pandas as pd

from analysis import statistics
from analysis.columns import of_method, summary, with_interval
from analysis.errors import Absent, InvalidInput
from analysis.notes import provenance
from analysis.races import Race
from analysis.rounding import number
from analysis.sheets import Sheet
from analysis.time_to_target import time_to_target

AGES = ("source", "destination", "count", "age_sum", "age_max")
SECONDS = ("seconds_sum", "seconds_max")  # of ages, which older files do not have
NUMBERS = ("consensus_final", "consensus_at_target", "gradients_most", "gradients_least", "age_mean", "age_worst_edge")
NUMBERS += ("age_seconds_mean", "age_seconds_worst_edge")
NUMBERS += ("bytes_mean", "bytes_most", "messages_lost", "lost_share")


@dataclass(frozen=True, eq=False)
class Network:
    """The network methods of a race: `rows` has one row a method, its columns are those of the CSV; `others` are the
    labels of the methods that have a server."""

    race: Race
    rows: pd.DataFrame
    others: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ranks:
    """What is known of the ranks of a run: `each` has one row a rank, `ages` one an edge whose ages were noted."""

    each: pd.DataFrame
    ages: pd.DataFrame


def load(races):
    """The `Network` of each race that has network methods. Raises InvalidInput where none has, or a file is damaged."""
    made = []
    for race in races:
        peers = [method for method in race.methods if _has_no_server(method.runs[0])]
        others = tuple(method.label for method in race.methods if method not in peers)
        if peers:
            made.append(Network(race, pd.DataFrame([_row(race, method) for method in peers]), others))
    if not made:
        names = ", ".join(sorted({method.label for race in races for method in race.methods}))
        raise Absent(f"no result file is of a network method: all of {names} have a server; give files of others")
    return made


def _has_no_server(run):
    with h5py.File(run.path, "r") as file:
        return int(file.attrs.get("ranks", 0)) == run.workers


def ranks_of(run):
    """The `Ranks` of a finished run."""
    with h5py.File(run.path, "r") as file:
        each = {name: dataset[()] for name, dataset in file.get("ranks", {}).items()}
        for name in ("gradients", "messages_sent", "bytes_sent"):
            if name not in each:
                raise InvalidInput(f"{run.path} has no /ranks/{name}, which every result file has; the file is damaged")
        ages = {name: dataset[()] for name, dataset in file.get("ages", {}).items()}
    if ages and not ages.keys() >= set(AGES):
        raise InvalidInput(f"/ages in {run.path} must have the columns {', '.join(AGES)}; the file is damaged")
    for group, columns in (("ranks", each), ("ages", ages)):
        if len({len(column) for column in columns.values()}) > 1:
            raise InvalidInput(f"the columns of /{group} in {run.path} differ in length; the file is damaged")
    return Ranks(pd.DataFrame(each), pd.DataFrame(ages, columns=[*AGES, *SECONDS]))


def numbers(run, ranks):
    """What is summarised of a run: NUMBERS by name, nan where one is not known."""
    consensus = run.trace["consensus"].fillna(math.inf).to_numpy() if "consensus" in run.trace else ()  # it diverged
    gradients, sent, edges = ranks.each["gradients"], ranks.each["bytes_sent"], _by_edge(ranks.ages)
    seconds = _by_edge(ranks.ages, "seconds_sum").dropna()
    lost = ranks.each["messages_lost"].sum() if "messages_lost" in ranks.each else math.nan
    values = (
        consensus[-1] if len(consensus) else math.nan,
        _at_headline(run, consensus) if len(consensus) else math.nan,
        _ratio(gradients.max(), gradients.mean()),
        _ratio(gradients.min(), gradients.mean()),
        _ratio(ranks.ages["age_sum"].sum(), ranks.ages["count"].sum()),
        edges.max() if len(edges) else math.nan,
        _ratio(ranks.ages["seconds_sum"].sum(), ranks.ages["count"].sum()) if len(seconds) else math.nan,
        seconds.max() if len(seconds) else math.nan,
        sent.mean(),
        sent.max(),
        lost,
        _ratio(lost, ranks.each["messages_sent"].sum()),
    )
    return dict(zip(NUMBERS, map(float, values), strict=True))


def _at_headline(run, values):
    """The value at the snapshot that first met the headline target; nan where none did."""
    hit = time_to_target(run, run.targets.headline) if run.targets else None
    if hit is None or hit.censored:
        return math.nan
    return values[np.searchsorted(run.trace["time"], hit.seconds)]


def _ratio(part, whole):
    return float(part / whole) if whole else math.nan


def _by_edge(ages, column="age_sum"):
    """The mean age on each edge, by (source, destination)."""
    sums = ages.groupby(["source", "destination"])[["count", column]].sum(min_count=1)
    return sums[column] / sums["count"]


def _row(race, method):
    """One row of the CSV."""
    runs = method.counted
    ranks = [ranks_of(run) for run in runs]
    found = pd.DataFrame([numbers(*pair) for pair in zip(runs, ranks, strict=True)], columns=NUMBERS)
    ages = pd.concat([of_run.ages for of_run in ranks]) if ranks else pd.DataFrame(columns=[*AGES, *SECONDS])
    means, seconds = _by_edge(ages), _by_edge(ages, "seconds_sum").dropna()
    return {
        **of_method(race, method),
        "n": len(runs),
        "with_consensus_at_target": int(found["consensus_at_target"].notna().sum()),
        **{key: value for name in NUMBERS for key, value in summary(name, found[name].dropna()).items()},
        "age_max": float(ages["age_max"].max()) if len(ages) else math.nan,
        "worst_edge": _name_of_worst(means),
        "age_seconds_max": float(ages["seconds_max"].max()) if len(seconds) else math.nan,
        "worst_edge_seconds": _name_of_worst(seconds),
        "seeds": " ".join(str(run.seed) for run in runs),
    }


def _name_of_worst(means):
    """The edge with the largest mean; "" where all have the same."""
    return "{:.0f} to {:.0f}".format(*means.idxmax()) if len(means) and means.max() > means.min() else ""


def sheet(network):
    """What is shown of a `Network`."""
    frames = [_cells(network)]
    if network.rows["age_mean"].notna().any():
        frames.append(_ages(network))
    frames.append(_traffic(network))
    heading = f"Ranks of network methods: {network.race.title}"
    return Sheet(network.race, heading, tuple(frames), tuple(_notes(network)), network.rows)


def _cells(network):
    """Consensus and participation as text, rounded for readers."""
    rows = [row for _, row in network.rows.iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["n"] = [str(row.n) for row in rows]
    if network.rows["consensus_final"].notna().any():
        shown["consensus at the end"] = [with_interval(row, "consensus_final") for row in rows]
        if targets := network.race.targets:
            shown[f"at {targets.metric} {targets.headline:g}"] = [_at_target(row) for row in rows]
    for name in ("most", "least"):
        shown[f"gradients, {name} / mean"] = [with_interval(row, f"gradients_{name}") for row in rows]
    return shown


def _at_target(row):
    """The consensus there, and of how many runs, where these are not all."""
    k, n = row.with_consensus_at_target, row.n
    return " ".join([with_interval(row, "consensus_at_target"), *([f"({k}/{n} runs)"] if 0 < k < n else [])])


def _ages(network):
    """Ages as text, of the methods that note them."""
    rows = [row for _, row in network.rows.iterrows() if not math.isnan(row.age_mean)]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    shown["age, mean"] = [with_interval(row, "age_mean") for row in rows]
    shown["on the worst edge"] = [with_interval(row, "age_worst_edge") for row in rows]
    shown["which is"] = [row.worst_edge for row in rows]
    shown["max"] = [f"{row.age_max:g}" for row in rows]
    if network.rows["age_seconds_mean"].notna().any():
        shown["in seconds, mean"] = [with_interval(row, "age_seconds_mean") for row in rows]
        shown["on its worst edge"] = [with_interval(row, "age_seconds_worst_edge") for row in rows]
        shown["that is"] = [row.worst_edge_seconds for row in rows]
        shown["max seconds"] = [number(row.age_seconds_max) for row in rows]
    return shown


def _traffic(network):
    """What was sent and lost, as text."""
    rows = [row for _, row in network.rows.iterrows()]
    shown = pd.DataFrame()
    shown["method"] = [row.method for row in rows]
    for name, title in (("mean", "MB sent by a rank, mean"), ("most", "most")):
        shown[title] = [with_interval(row, f"bytes_{name}", lambda size: number(size / 1e6)) for row in rows]
    if network.rows["messages_lost"].notna().any():
        shown["messages lost"] = [with_interval(row, "messages_lost") for row in rows]
        shown["of those sent"] = [with_interval(row, "lost_share") for row in rows]
    return shown


def _notes(network):
    """What was measured and how it is summarised."""
    race, rows = network.race, network.rows
    yield (
        "All numbers: of each run, then the median over seeds. Gradients: computed by the rank with the most and the "
        "one with the fewest, over the mean of all ranks. MB: 10^6 bytes of message bodies, in all of the run."
    )
    if rows["consensus_final"].notna().any():
        at = ", at the end and in the snapshot that first meets the headline target" if race.targets else ", at the end"
        yield f"Consensus: the mean over ranks of the squared distance between a rank's model and the mean model{at}."
    if rows["age_mean"].notna().any():
        yield (
            "Age: of what a rank takes in from another, in iterations by the method's stamps; negative where ranks "
            "stamp by their own count and the sender is ahead. Mean: over all that was taken in. Worst edge: where the "
            "mean is largest, named (source to destination) as of all runs together. Max: over all runs. In seconds: "
            "since the sender began the iteration of the stamp; where stamps are the receiver's own, since that began."
        )
    yield f"95 % intervals: medians over runs, order statistics, none below {statistics.POINTS_MEDIAN} runs."
    if network.others:
        yield f"Not shown, because they have a server: {', '.join(network.others)}."
    yield from provenance(race)
