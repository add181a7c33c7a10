"""Interactive figures, as data for plotly; nothing of it is imported here.

A colour is written as a token that report.js replaces by that of the page's theme, light or dark: "$0", "$1", ... of
the methods, "$ink", "$muted", "$grid", "$paper"; "$0@0.2" is one that shines through. Methods differ in dashes and
marks, too. A figure has one or several views, of which the reader chooses one.
"""

import math
from dataclasses import dataclass

import h5py
import numpy as np

from analysis import statistics
from analysis.curves import AGAINST, median_curve
from analysis.histograms import WIDE
from analysis.rounding import RELATION, number
from analysis.tables import direction, predicted

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon", "x")
COLOURS = 7
AXIS = {"seconds": "{clock} seconds", "bytes": "MB sent by all ranks", "gradients": "gradients of all ranks"}
VIEWS = {"seconds": "against seconds", "bytes": "against bytes", "gradients": "against gradients"}

HEIGHT = 430  # pixels of the curves
INSTANTS = 240  # points of a median curve
SEED_INSTANTS = 90  # points of the curve of one seed,
SEEDS_DRAWN = 120  # which are drawn where there are at most so many runs
MOST_METHODS = 30  # in a figure
SPANS_DRAWN = 1500  # of a timeline
LANES_DRAWN = 40
MATRIX_DRAWN = 64  # ranks of a link map
SPAN = 10  # an axis is logarithmic where what it shows spans more than this factor


@dataclass(frozen=True)
class Figure:
    """`views` are {name, data, layout} for plotly; `alternative` says in words what is to be seen, `caption` how it
    was made; `height` in pixels."""

    key: str
    views: list
    alternative: str
    caption: str
    height: int = 380


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in all figures of a page."""

    colour: str
    dash: str
    mark: str

    @classmethod
    def of(cls, place):
        """The look of the method at this place."""
        return cls(f"${place % COLOURS}", DASHES[place % len(DASHES)], MARKS[place % len(MARKS)])


def looks(labels):
    """A `Look` for each label."""
    return {label: Look.of(place) for place, label in enumerate(labels)}


def times(key, table, look):
    """When every run met the headline target: dots, the median and its interval, misses as open triangles."""
    race = table.race
    target = race.targets.headline
    rows = [row for _, row in table.rows[table.rows["headline"]].iterrows()][:MOST_METHODS]
    data, notes, ends = [], [], []
    for place, row in enumerate(rows):
        hits, own = table.hits[row.method, target], look[row.method]
        met = {seed: hit for seed, hit in hits.items() if not hit.censored}
        missed = {seed: hit for seed, hit in hits.items() if hit.censored and math.isfinite(hit.seconds)}
        ends += [hit.seconds for hit in (*met.values(), *missed.values())]
        for known, symbol, said in ((met, own.mark, "{:.4g} s"), (missed, "triangle-right-open", "not by {:.4g} s")):
            if known:
                data.append(
                    {
                        "x": [_short(hit.seconds) for hit in known.values()],
                        "y": _apart([hit.seconds for hit in known.values()], place),
                        "mode": "markers",
                        "marker": {"symbol": symbol, "color": own.colour, "size": 9, "opacity": 0.6},
                        "text": [f"seed {seed}: {said.format(hit.seconds)}" for seed, hit in known.items()],
                        "hovertemplate": f"{row.method}, %{{text}}<extra></extra>",
                        "showlegend": False,
                    }
                )
        if math.isfinite(row.median_seconds) and row.n >= statistics.POINTS_FRACTION:
            data += _median(row, place, own, max(ends))
        theory = row.predicted_seconds
        if math.isfinite(theory) and ends and min(ends) / 20 <= theory <= 20 * max(ends):
            data.append(
                {
                    "x": [_short(theory)],
                    "y": [place],
                    "mode": "markers",
                    "marker": {"symbol": "cross-thin-open", "color": "$ink", "size": 11, "line": {"width": 2}},
                    "hovertemplate": f"{row.method}, predicted up to a constant: %{{x:.4g}} s<extra></extra>",
                    "showlegend": False,
                }
            )
        notes.append(
            {
                "text": _lane_title(row),
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": place,
                "yshift": 26,
                "yanchor": "middle",
                "showarrow": False,
                "font": {"size": 13, "color": "$ink"},
            }
        )
    ends = [end for end in ends if end > 0] or [1.0]
    wide = max(ends) > 2 * SPAN * min(ends)
    axis = {"title": {"text": AXIS["seconds"].format(clock=race.clock)}}
    axis |= {"type": "log"} if wide else {"range": [0, 1.06 * max(ends)]}
    layout = {
        "xaxis": axis,
        "yaxis": {
            "range": [len(rows) - 0.62, -0.62],
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "annotations": notes,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 44},
        "hovermode": "closest",
    }
    said = "; ".join(f"{row.method} {row.reached} of {row.n}, median {number(row.median_seconds)} s" for row in rows)
    cut = f" The first {MOST_METHODS} methods." if len(table.race.methods) > MOST_METHODS else ""
    return Figure(
        key,
        [{"name": "", "data": data, "layout": layout}],
        f"Time to {_goal(race)} of every run, by method: {said}.",
        "Each mark is one run; a bar is the median with its 95 % interval by order statistics, an open triangle a run "
        f"that missed the target, at the time up to which that is known; a cross what theory predicts.{cut}",
        56 + 72 * len(rows),
    )


def _apart(seconds, place):
    """The heights of marks in a lane; what coincides is set apart, below and above in turn."""
    seen, heights = {}, []
    most = max(seconds.count(value) for value in seconds)
    step = min(0.085, 0.4 / most)  # so that all stay in the lane
    for value in seconds:
        k = seen[value] = seen.get(value, -1) + 1
        heights.append(round(place + step * (-1) ** k * ((k + 1) // 2), 3))
    return heights


def _median(row, place, own, end):
    low, high = row.median_seconds_low, row.median_seconds_high
    parts = []
    if not math.isnan(low):
        top = min(high, end) if math.isinf(high) else high
        parts.append(
            {
                "x": [_short(low), _short(top)],
                "y": [place, place],
                "mode": "lines",
                "line": {"color": own.colour, "width": 3},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    ends = "" if math.isnan(low) else f" [{number(low)}, {number(high)}]"
    parts.append(
        {
            "x": [_short(row.median_seconds)],
            "y": [place],
            "mode": "markers",
            "marker": {"symbol": "line-ns-open", "color": own.colour, "size": 22, "line": {"width": 4}},
            "hovertemplate": f"{row.method}, median {number(row.median_seconds)}{ends} s<extra></extra>",
            "showlegend": False,
        }
    )
    return parts


def _lane_title(row):
    middle = "missed, " if math.isinf(row.median_seconds) else f"{number(row.median_seconds)} s, "
    if row.n < statistics.POINTS_FRACTION:
        middle = ""  # too few for a median
    return f"<b>{_escaped(row.method)}</b>  {middle}{row.reached}/{row.n} runs"


def curves(key, race, metric, look, ladder):
    """The metric of every method against seconds, bytes and gradients: medians with bands, seeds thin."""
    runs = {
        method: own
        for method in race.methods
        if (own := [run for run in method.counted if metric in run.trace and len(run.trace)])
    }
    if not runs:
        return None
    runs = dict(list(runs.items())[:MOST_METHODS])
    views = [_curves(race, metric, look, ladder, runs, against) for against in AGAINST]
    better = next(iter(runs.values()))[0].better[metric]
    last = "; ".join(
        f"{m.label} {number(float(median_curve(own, metric)['median'].iloc[-1]))}" for m, own in runs.items()
    )
    thin = sum(map(len, runs.values())) <= SEEDS_DRAWN
    return Figure(
        key,
        views,
        f"{_words(metric)} over a run ({better} is better), median of each method at its end: {last}.",
        "Thick: median over seeds; band: its 95 % interval by order statistics (from 6 seeds on); "
        + ("thin: every seed; " if thin else f"single seeds are drawn up to {SEEDS_DRAWN} runs only; ")
        + "steps, because nothing is known between snapshots. Dashed: targets"
        + ("; open marks: predicted, up to a constant." if _predictions(race, look) else "."),
        HEIGHT + _legend(runs),
    )


def _curves(race, metric, look, ladder, runs, against):
    scale = 1e-6 if against == "bytes" else 1.0
    thin = sum(map(len, runs.values())) <= SEEDS_DRAWN
    bands, seeds, lines, seen, ends = [], [], [], [], []
    for method, own in runs.items():
        drawn = look[method.label]
        middle = median_curve(own, metric, against, INSTANTS)
        x = [_short(scale * value) for value in middle["time"]]
        ends.append(x[-1] if x else 0.0)
        if middle["low"].notna().any():
            low, high = ([_plain(value) for value in middle[name]] for name in ("low", "high"))
            step = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "showlegend": False}
            step["legendgroup"] = method.label
            bands.append({"x": x, "y": low, **step})
            bands.append({"x": x, "y": high, "fill": "tonexty", "fillcolor": f"{drawn.colour}@0.16", **step})
        if thin:
            seeds.append(_seeds(own, metric, AGAINST[against], scale, drawn, method.label))
        values = [_plain(value) for value in middle["median"]]
        seen += [value for value in values if value is not None]
        lines.append(
            {
                "x": x,
                "y": values,
                "mode": "lines",
                "name": method.label,
                "legendgroup": method.label,
                "line": {"color": drawn.colour, "width": 2.6, "dash": drawn.dash, "shape": "hv"},
                "hovertemplate": f"{method.label}: %{{y:.4g}}<extra></extra>",
            }
        )
    targets = ladder.values if ladder else ()
    marks = _predicted_marks(race, look, ends) if against == "seconds" and targets else []
    vertical = _vertical(metric, seen, targets, runs)
    layout = {
        "xaxis": {"title": {"text": AXIS[against].format(clock=race.clock)}, "rangemode": "tozero"},
        "yaxis": vertical,
        "shapes": [_line(value, ladder) for value in targets],
        "annotations": _named(ladder, race, vertical) if ladder else [],
        "hovermode": "x unified",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 56, "r": 58 if targets else 14, "t": 36, "b": 44},
    }
    return {"name": VIEWS[against], "data": bands + seeds + lines + marks, "layout": layout}


def _seeds(runs, metric, column, scale, drawn, label):
    x, y = [], []
    for run in runs:
        places = np.unique(np.linspace(0, len(run.trace) - 1, min(len(run.trace), SEED_INSTANTS)).round().astype(int))
        x += [*(_short(scale * value) for value in run.trace[column].to_numpy()[places]), None]
        y += [*(_plain(value) for value in run.trace[metric].to_numpy()[places]), None]
    line = {"color": f"{drawn.colour}@0.3", "width": 0.8, "shape": "hv"}
    return {
        "x": x, "y": y, "mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": False, "legendgroup": label,
    }  # fmt: skip


def _predictions(race, look):
    if not race.targets:
        return {}
    said = {
        (method.label, target): predicted(method, "seconds", target)
        for method in race.methods
        if method.label in look
        for target in race.targets.values
    }
    return {key: seconds for key, seconds in said.items() if seconds > 0 and math.isfinite(seconds)}


def _predicted_marks(race, look, ends):
    """Theory's times to the targets, those that can share the axis."""
    marks = []
    for label in dict.fromkeys(label for label, _ in _predictions(race, look)):
        own = {t: s for (of, t), s in _predictions(race, look).items() if of == label and s <= 1.5 * max(ends)}
        if own:
            marker = {
                "symbol": f"{look[label].mark}-open",
                "color": look[label].colour,
                "size": 11,
                "line": {"width": 2},
            }
            marks.append(
                {
                    "x": [_short(seconds) for seconds in own.values()],
                    "y": list(own),
                    "mode": "markers",
                    "marker": marker,
                    "showlegend": False,
                    "legendgroup": label,
                    "hovertemplate": f"{label}, predicted up to a constant: %{{x:.4g}} s<extra></extra>",
                }
            )
    return marks


def _is_log(metric, seen, targets, runs):
    seen = [value for value in (*seen, *targets) if value > 0]
    lower = next(iter(runs.values()))[0].better[metric] == "lower"
    return bool(lower and seen and max(seen) > SPAN * min(seen))


def _vertical(metric, seen, targets, runs):
    start = max((run.trace[metric].iloc[0] for own in runs.values() for run in own), default=1.0)
    lower = next(iter(runs.values()))[0].better[metric] == "lower"
    kept = [value for value in seen if not lower or not start > 0 or value <= SPAN * start] + list(targets)
    axis = {"title": {"text": _words(metric)}}
    if all(value > 0 for value in targets) and _is_log(metric, kept, targets, runs):
        kept = [value for value in kept if value > 0]
        ends = [math.log10(min(kept) / 1.4), math.log10(max(kept) * 1.4)]
        return axis | {"type": "log", "range": ends, "dtick": 1 if ends[1] - ends[0] > 2 else "D2"}
    low, high = (min(kept), max(kept)) if kept else (0.0, 1.0)
    margin = 0.05 * (high - low or 1.0)
    return axis | {"range": [low - margin, high + margin]}


def _line(value, ladder):
    headline = value == ladder.headline
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value,
        "line": {"color": "$ink" if headline else "$muted", "width": 1.4 if headline else 0.9, "dash": "dash"},
        "layer": "below",
    }  # fmt: skip


def _named(ladder, race, vertical):
    """The targets named at the right end of their lines, without overlap."""
    low, high = vertical["range"]
    height, free, named = HEIGHT - 80, -math.inf, []
    for value in ladder.values:
        at = math.log10(value) if vertical.get("type") == "log" else value
        pixels = height * (at - low) / (high - low)
        free = max(pixels, free + 15)
        weight = "<b>{}</b>" if value == ladder.headline else "{}"
        named.append(
            {
                "text": weight.format(f"{RELATION[direction(race)]} {value:g}"),
                "x": 1, "xref": "paper", "xanchor": "left", "xshift": 4, "y": at, "yanchor": "middle",
                "yshift": round(free - pixels, 1), "showarrow": False,
                "font": {"size": 12, "color": "$ink" if value == ladder.headline else "$muted"},
            }
        )  # fmt: skip
    return named


def profile(key, made, look):
    """Performance profiles with their bands."""
    data = []
    for a, label in enumerate(made.labels[:MOST_METHODS]):
        x = [_short(factor) for factor in made.profile.factors]
        own = look[label]
        step = {"x": x, "mode": "lines", "legendgroup": label}
        if not np.isnan(made.profile.low[a]).any():
            hidden = {"line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "showlegend": False}
            data.append({**step, "y": [_plain(v) for v in made.profile.low[a]], **hidden})
            fill = {"fill": "tonexty", "fillcolor": f"{own.colour}@0.16"}
            data.append({**step, "y": [_plain(v) for v in made.profile.high[a]], **hidden, **fill})
        line = {"color": own.colour, "width": 2.6, "dash": own.dash, "shape": "hv"}
        hover = f"{label}: %{{y:.2f}} within x%{{x:.2f}}<extra></extra>"
        y = [_plain(v) for v in made.profile.share[a]]
        data.append({**step, "y": y, "name": label, "line": line, "hovertemplate": hover})
    layout = {
        "xaxis": {
            "title": {"text": "factor τ of the best method's median time"},
            "range": [1, made.profile.factors[-1]],
        },
        "yaxis": {"title": {"text": "fraction of problems within τ"}, "range": [-0.03, 1.04]},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 56, "r": 14, "t": 36, "b": 44},
    }
    scores = "; ".join(
        f"{label} {number(float(s), 2)}" for label, s in zip(made.labels, made.profile.score, strict=True)
    )
    return Figure(
        key,
        [{"name": "", "data": data, "layout": layout}],
        f"Performance profile over {made.title}; scores: {scores}.",
        "A line is the fraction of problems that a method solves within τ times the best one's median time; bands are "
        "95 %, by resampling seeds within problems.",
        360 + _legend(made.labels),
    )


def staleness(key, made, look):
    """The share of gradients that are at most so stale, by method."""
    if not made.histograms:
        return None
    data, largest, tail = [], 1, math.inf
    for label, histogram in list(made.histograms.items())[:MOST_METHODS]:
        share = np.cumsum(histogram) / histogram.sum()
        kept = np.unique(np.append(np.flatnonzero(np.diff(np.append(0.0, share)) > 0), len(share) - 1))
        if len(kept) > INSTANTS:
            kept = kept[np.unique(np.linspace(0, len(kept) - 1, INSTANTS).round().astype(int))]
        largest = max(largest, len(histogram) - 1)
        tail = min(tail, max(1, int(np.searchsorted(share, 0.99))))
        line = {"color": look[label].colour, "width": 2.6, "dash": look[label].dash, "shape": "hv"}
        data.append(
            {
                "x": [0, *(int(k) for k in kept)] if kept[0] else [int(k) for k in kept],
                "y": [0.0, *(_short(share[k]) for k in kept)] if kept[0] else [_short(share[k]) for k in kept],
                "mode": "lines+markers" if len(kept) <= 40 else "lines",
                "marker": {"symbol": look[label].mark, "size": 7, "color": look[label].colour},
                "name": label,
                "line": line,
                "hovertemplate": f"{label}: %{{y:.1%}} at most %{{x}} updates<extra></extra>",
            }
        )
    log = largest > WIDE * tail and largest > 64
    layout = {
        "xaxis": {"title": {"text": "staleness (model updates)"}}
        | ({"type": "log"} if log else {"rangemode": "tozero"}),
        "yaxis": {"title": {"text": "share at most so stale"}, "range": [-0.03, 1.04], "tickformat": ".0%"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 56, "r": 14, "t": 36, "b": 44},
    }
    rows = made.rows[made.rows["n"] > 0]
    said = "; ".join(
        f"{row.method} median {row.staleness_median:g}, p99 {row.staleness_p99:g}" for row in rows.itertuples()
    )
    return Figure(
        key,
        [{"name": "", "data": data, "layout": layout}],
        f"Staleness of gradients in model updates: {said}.",
        "All gradients of all seeds together, used and discarded.",
        340 + _legend(data),
    )


def timelines(key, lines):
    """What each rank did when; a view for each method."""
    views = []
    for line in lines:
        lanes = min(len(line.rows), LANES_DRAWN)
        spans = line.spans[line.spans["rank"] < lanes].sort_values("start", kind="stable")
        end = line.run.seconds
        if len(spans) > SPANS_DRAWN:
            end = float(spans["start"].iloc[SPANS_DRAWN])
            spans = spans.head(SPANS_DRAWN)
        data = []
        for state, colour, width in (("compute", "$0", 11), ("communicate", "$4", 5)):
            x, y = [], []
            for span in spans[spans["state"] == state].itertuples():
                x += [_short(span.start, 7), _short(span.stop, 7), None]
                y += [span.rank, span.rank, None]
            data.append(
                {
                    "x": x,
                    "y": y,
                    "mode": "lines",
                    "name": state,
                    "line": {"color": colour, "width": width},
                    "hovertemplate": f"rank %{{y}}, {state}, %{{x:.5g}} s<extra></extra>",
                }
            )
        layout = {
            "xaxis": {"title": {"text": AXIS["seconds"].format(clock=line.race.clock)}, "range": [0, end]},
            "yaxis": {
                "title": {"text": "rank"},
                "range": [lanes - 0.4, -0.6],
                "dtick": 1 + (lanes - 1) // 16,
                "zeroline": False,
                "showgrid": False,
                "fixedrange": True,
            },
            "hovermode": "closest",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "margin": {"l": 46, "r": 14, "t": 36, "b": 44},
        }
        views.append({"name": f"{line.method.label}, seed {line.run.seed}", "data": data, "layout": layout})
    shares = []
    for line in lines:
        workers = line.rows[line.rows["computations"] > 0]
        share = (workers["compute_seconds"] / workers["seconds"]).mean() if len(workers) else 0.0
        shares.append(f"{line.method.label}: ranks that compute do so {number(100 * share, 2)} % of the time")
    most = max(min(len(line.rows), LANES_DRAWN) for line in lines)
    return Figure(
        key,
        views,
        f"Timeline of each rank. {'; '.join(shares)}.",
        "One run of each method. Thick: computing; thin: a message is under way and nothing is computed; empty: idle. "
        f"At most {SPANS_DRAWN} spans and {LANES_DRAWN} ranks are drawn; zoom by dragging.",
        120 + 19 * most,
    )


def busy(key, race, look):
    """How much of a run ranks were busy, by method, where no events were recorded."""
    data = []
    for method in race.methods[:MOST_METHODS]:
        shares = [share for run in method.counted if (share := _busy(run)) is not None]
        if not shares:
            continue
        size = min(map(len, shares))
        middle = statistics.median(np.array([share[:size] for share in shares]), axis=0)
        places = np.unique(np.linspace(0, size - 1, min(size, INSTANTS)).round().astype(int))
        data.append(
            {
                "x": [int(k) for k in places],
                "y": [_short(middle[k]) for k in places],
                "mode": "lines+markers",
                "name": method.label,
                "line": {"color": look[method.label].colour, "dash": look[method.label].dash, "width": 1.6},
                "marker": {"symbol": look[method.label].mark, "size": 8},
                "hovertemplate": f"{method.label}, rank %{{x}}: %{{y:.1%}} of the time<extra></extra>",
            }
        )
    if not data:
        return None
    layout = {
        "xaxis": {"title": {"text": "rank"}},
        "yaxis": {"title": {"text": "share of the run computing"}, "range": [-0.03, 1.04], "tickformat": ".0%"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 56, "r": 14, "t": 36, "b": 44},
    }
    said = "; ".join(f"{trace['name']} {number(100 * float(np.mean(trace['y'])), 2)} %" for trace in data)
    return Figure(
        key,
        [{"name": "", "data": data, "layout": layout}],
        f"Share of the run that ranks computed, mean over ranks: {said}.",
        "Median over seeds of each rank's busy seconds over those of the run.",
        320,
    )


def _busy(run):
    """The share of the run that each rank was busy, or None where the file does not say."""
    with h5py.File(run.path, "r") as file:
        ranks = file.get("ranks", {})
        if "busy_seconds" not in ranks or not run.seconds > 0:
            return None
        return np.clip(ranks["busy_seconds"][()] / run.seconds, 0.0, 1.0)


def link_map(key, made):
    """MB that each directed edge carried; a view for each method."""
    views = []
    for label in list(made.rows["method"].unique())[:MOST_METHODS]:
        values = made.matrix(label)[:MATRIX_DRAWN, :MATRIX_DRAWN]
        heat = {
            "type": "heatmap",
            "z": [[_plain(value) for value in row] for row in values],
            "colorscale": "Cividis",
            "reversescale": True,
            "zmin": 0,
            "hovertemplate": "from %{y} to %{x}: %{z:.4g} MB<extra></extra>",
            "colorbar": {"title": {"text": "MB"}, "thickness": 12, "outlinewidth": 0},
            "xgap": 1,
            "ygap": 1,
        }
        layout = {
            "xaxis": {"title": {"text": "to rank"}, "showgrid": False, "zeroline": False},
            "yaxis": {"title": {"text": "from rank"}, "autorange": "reversed", "showgrid": False, "zeroline": False},
            "hovermode": "closest",
            "margin": {"l": 46, "r": 8, "t": 36, "b": 44},
        }
        views.append({"name": label, "data": [heat], "layout": layout})
    most = made.rows.loc[made.rows["megabytes"].idxmax()]
    return Figure(
        key,
        views,
        f"Link map; the busiest edge is {most['source']} to {most['destination']} of {most['method']} with "
        f"{number(most['megabytes'])} MB.",
        f"MB of serialised bodies in a run, median over seeds; at most {MATRIX_DRAWN} ranks.",
        380,
    )


def _legend(methods):
    """Pixels that a legend of so many methods takes beyond its first line."""
    return 21 * ((len(methods) - 1) // 6)


def _goal(race):
    return f"{_words(race.targets.metric)} {RELATION[direction(race)]} {race.targets.headline:g}"


def _words(name):
    return name.replace("_", " ")


def _escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _short(value, digits=5):
    """A number with so many digits, which a screen cannot tell from the whole one."""
    return float(f"{float(value):.{digits}g}")


def _plain(value):
    """A number for JSON, None for what is no finite one."""
    return _short(value) if math.isfinite(value) else None
