"""The figure: for each race the metric against time and, below it on the same axis, when each run met the target."""

import io
import math

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis import statistics
from analysis.curves import AGAINST, median_curve
from analysis.errors import Absent, InvalidInput
from analysis.notes import inputs, provenance
from analysis.read import COUNTERS
from analysis.rounding import RELATION, number
from analysis.tables import predicted
from analysis.time_to_target import time_to_target

# Okabe and Ito's colours, which colour-blind readers tell apart, without the pale yellow; the second round is dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
MARKS = ("D", "s", "^", "v", "p", "P", "*", "h")  # of predicted times; circles and > are measured ones

STYLE = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 300,
}

TIME = {
    "virtual": "virtual time (s)",
    "emulated": "modelled time (s), emulated clock",
    "native": "time (s), native clock",
}
SPENT = {"bytes": "MB sent by all ranks", "gradients": "gradients of all ranks"}
# inches: the axes' width (with what is beside them a usual text width) and height, a method's line below them, the rest
WIDTH, CURVES, STRIP, TITLE, LEFT, RIGHT, BELOW = 4.2, 2.0, 0.15, 0.25, 0.85, 0.45, 0.5
LINE = 1.1  # points, a median's width
SPAN, SPAN_OF_TIME = 10, 20  # an axis is logarithmic where what it is to show spans more than this factor


def figure(races, metric=None, against="seconds"):
    """The matplotlib Figure of `races`, one pair of panels each; `metric` is by default that of the targets.

    Against "bytes" or "gradients" there is one panel each, without times to targets. Raises InvalidInput where no run
    of a race has this metric.
    """
    drawn = []
    for race in races:
        name = _metric(race, metric)
        runs = _drawn(race, name)
        strip = STRIP * len(runs) if _shows_target(race, metric) and against == "seconds" else 0.0
        drawn.append((race, name, runs, strip))
    with matplotlib.rc_context(STYLE):
        height = sum(TITLE + CURVES + bool(strip) * TITLE + strip + BELOW for *_, strip in drawn)
        whole = Figure(figsize=(LEFT + WIDTH + RIGHT, height))
        top = height

        def panel(inches):
            """Axes so many inches high, below what is there."""
            nonlocal top
            top -= TITLE + inches
            return whole.add_axes(
                (LEFT / whole.get_figwidth(), top / height, WIDTH / whole.get_figwidth(), inches / height)
            )

        for race, name, runs, strip in drawn:
            targets = race.targets if _shows_target(race, metric) else None
            _draw(race, name, runs, targets, against, panel(CURVES), panel(strip) if strip else None)
            top -= BELOW
    return whole


def image(figure, form, text, dpi=300):
    """The bytes of the figure as "png" or "pdf", with `text` in its metadata."""
    content = io.BytesIO()
    metadata = {"png": {"Description": text}, "pdf": {"Subject": text, "CreationDate": None}}[form]
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format=form, metadata=metadata, bbox_inches="tight", pad_inches=0.03, dpi=dpi)
    return content.getvalue()


def caption(races, metric=None, against="seconds"):
    """What the figure shows and what must be known of its runs, one paragraph for each race."""
    paragraphs = []
    for race in races:
        name = _metric(race, metric)
        counts = {len(runs) for runs in _drawn(race, name).values()}
        n = " to ".join(map(str, dict.fromkeys((min(counts), max(counts)))))
        band = (
            "its 95 % interval by order statistics (band)"
            if min(counts) >= statistics.POINTS_MEDIAN
            else "no interval where n is too small (below 6)"
        )
        text = f"{race.title}. {_words(name)}: median over n = {n} seeds (line), {band}, every seed (thin)."
        if against != "seconds":
            text += f" Against {SPENT[against]}.{' Dashed: targets.' if _shows_target(race, metric) else ''}"
        elif _shows_target(race, metric):
            text += (
                " Dashed: targets. Below: when each run met the headline target (circles; triangles: missed, at the "
                "time up to which that is known), the median (bar, dotted line) and its 95 % interval by order "
                "statistics (line)."
            )
            text += _said_of_predictions(race, list(_drawn(race, name)))
        paragraphs.append(" ".join([text, *provenance(race)]))
    return "\n".join(paragraphs)


def description(races, metric, command, against="seconds"):
    """What is stored in the file of the figure: its caption, and how it can be made again from which inputs."""
    return "\n".join([caption(races, metric, against), *map(inputs, races), f"Made by `{command}`."])


def _metric(race, chosen):
    """The metric to draw; raises InvalidInput where the race has none of this name."""
    metrics = sorted({name for run in race.runs for name in run.trace if name not in COUNTERS})
    name = chosen or (race.targets.metric if race.targets else metrics[0] if metrics else "metric")
    if name not in metrics:
        said = f"no run of {race.title} has the metric {name}; they have {', '.join(metrics) or 'none'}"
        raise InvalidInput(said) if chosen else Absent(said)
    return name


def _drawn(race, metric):
    """The runs to draw, by method: those that count and have the metric."""
    runs = {
        method: [run for run in method.counted if metric in run.trace and len(run.trace)] for method in race.methods
    }
    runs = {method: counted for method, counted in runs.items() if counted}
    if not runs:
        raise Absent(f"every run of {race.title} failed; there is nothing to draw")
    return runs


def _predictions(race, methods):
    """(factor, near, far): seconds that theory predicts, by method and target, times one factor for all of the race.

    The factor is 1 where all predictions can share an axis with the measured times. Else it is the one that puts them
    among these (the geometric mean of measured / predicted over methods and targets), so that ratios between methods
    and the growth from target to target stay as they are predicted; 1 where no run met a target. `far` are those that
    can still not be shown.
    """
    said = {
        (method, target): seconds
        for method in methods
        for target in race.targets.values
        if (seconds := predicted(method, "seconds", target)) > 0
    }
    hits = {
        (method, target): [time_to_target(run, target) for run in method.counted]
        for method in methods
        for target in race.targets.values
    }
    seen = [hit.seconds for of_one in hits.values() for hit in of_one if 0 < hit.seconds < math.inf]

    def within(seconds):
        return bool(seen) and min(seen) / SPAN_OF_TIME <= seconds <= max(seen) * SPAN_OF_TIME

    factor = 1.0
    medians = {key: statistics.median([hit.time for hit in hits[key]]) for key in said}
    met = [medians[key] / said[key] for key in said if 0 < medians[key] < math.inf]
    if met and not all(map(within, said.values())):
        factor = float(np.exp(np.log(met).mean()))
    near = {key: factor * seconds for key, seconds in said.items() if within(factor * seconds)}
    return factor, near, {key: seconds for key, seconds in said.items() if key not in near}


def _said_of_predictions(race, methods):
    """What the caption says of predicted times, or nothing."""
    factor, near, far = _predictions(race, methods)
    if not near and not far:
        return ""
    text = (
        " Open marks, one shape a method: the time theory predicts, up to a constant that may differ between methods, "
        "for each target and below for the headline."
    )
    if factor != 1:
        text += f" All are drawn at {number(factor)} times what is predicted: compare their ratios and their growth."
    beyond = "; ".join(f"{method.label} {target:g} {number(seconds)} s" for (method, target), seconds in far.items())
    return text + (f" Predicted too far off to be drawn: {beyond}." if far else "")


def _shows_target(race, chosen):
    return race.targets is not None and chosen in (None, race.targets.metric)


def _draw(race, metric, runs, ladder, against, curves, times):
    """The curves of one race with the targets of `ladder` (or None) and, unless `times` is None, below them the times
    to its headline target."""
    looks = {
        method: (COLOURS[k % len(COLOURS)], DASHES[k // len(COLOURS) % len(DASHES)]) for k, method in enumerate(runs)
    }
    factor, near, _ = _predictions(race, list(runs)) if times else (1.0, {}, {})
    medians = {method: median_curve(of_method, metric, against) for method, of_method in runs.items()}
    relation = RELATION[next(iter(runs.values()))[0].better[metric]]
    targets = ladder.values if ladder else ()
    hits = {}
    curves.set_title(race.title)
    for above, (method, of_method) in zip(reversed(range(len(runs))), runs.items(), strict=True):
        width = LINE + 0.5 * min(above, 3)  # so that a curve that lies under another one can still be seen
        x = AGAINST[against]
        _curve(curves, of_method, x, medians[method], metric, *looks[method], width, method.label)
    _vertical(curves, medians.values(), targets, metric, relation)
    lowest = times or curves
    if times:
        headline = race.targets.headline
        hits = {method: [time_to_target(run, headline) for run in of_method] for method, of_method in runs.items()}
        times.sharex(curves)
        curves.tick_params(labelbottom=False)
        _targets(curves, race.targets, relation)
        _times(times, curves, headline, hits, looks)
        _predicted(curves, times, factor, near, headline, looks, relation)
        title = times.set_title(f"time to {_words(metric)} {relation} {headline:g}", fontsize=7, pad=3)
        title.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # over the lines that lead down
    else:
        if ladder:
            _targets(curves, ladder, relation)
        curves.legend(labelcolor="linecolor", frameon=False)
    lowest.set_xlabel(TIME[race.clock] if against == "seconds" else SPENT[against])
    _horizontal(lowest, medians.values(), hits.values(), near.values())
    if against == "bytes":
        lowest.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1e6:g}"))


def _curve(axes, runs, x, median, metric, colour, dashes, width, label):
    """Every run thin, their median thick, its interval as a band."""
    for run in runs:
        axes.step(run.trace[x], run.trace[metric], where="post", color=colour, linewidth=0.4, alpha=0.35)
    axes.fill_between(median["time"], median["low"], median["high"], step="post", color=colour, alpha=0.18, linewidth=0)
    look = {"color": colour, "linestyle": dashes, "linewidth": width}
    axes.step(median["time"], median["median"], where="post", label=label, **look)


def _targets(axes, targets, relation):
    """A dashed line at every target, the headline's darker, named at its right end without overlap."""
    free = 0.0  # from here upwards, in heights of the axes
    to_axes = axes.transScale + axes.transLimits
    for value in targets.values:
        colour, width = ("0.15", 0.8) if value == targets.headline else ("0.55", 0.5)
        axes.axhline(value, color=colour, linewidth=width, linestyle=(0, (3, 2)), zorder=1)
        y = max(to_axes.transform((1, value))[1], free)
        free = y + 0.12 / CURVES
        _beside(axes, y, "axes fraction", f"{relation} {value:g}", colour)


def _beside(axes, y, coordinates, text, colour):
    """Text right of the axes at the height `y`."""
    axes.annotate(
        text, (1, y), xycoords=("axes fraction", coordinates), xytext=(5, 0), textcoords="offset points",
        va="center_baseline", fontsize=7, color=colour,
    )  # fmt: skip


def _times(axes, curves, target, hits, looks):
    """One line for each method: every run's time to the target, the median, its interval, and how many met it.

    A thin line leads from the median up to the target in the axes `curves`, so that each explains the other.
    """
    for y, (method, of_method) in enumerate(hits.items()):
        colour, dashes = looks[method]
        met = [hit.time for hit in of_method if not hit.censored]
        missed = [hit.seconds for hit in of_method if hit.censored]
        axes.plot(met, np.full(len(met), y), "o", color=colour, markersize=3, alpha=0.55, markeredgewidth=0)
        if missed:  # drawn unclipped, and an unclipped line without points would have its place at the figure's corner
            axes.plot(
                missed, np.full(len(missed), y), ">", color=colour, markersize=3.5, fillstyle="none", clip_on=False
            )
        times = [hit.time for hit in of_method]
        low, high = statistics.median_interval(times)
        middle = statistics.median(times)
        if math.isfinite(low):
            end = min(high, max(hit.seconds for hit in of_method))
            axes.plot([low, end], [y, y], color=colour, linewidth=0.9, linestyle=dashes)
        if math.isfinite(middle):
            axes.plot([middle, middle], [y - 0.32, y + 0.32], color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.add_artist(
                ConnectionPatch(
                    (middle, y - 0.32), (middle, target), axes.transData, curves.transData, color=colour, linewidth=0.5,
                    linestyle=(0, (1, 1.5)),
                )
            )  # fmt: skip
        _beside(axes, y, "data", f"{len(met)}/{len(times)}", colour)
    _beside(axes, -1.05, "data", "reached", "0.15")
    axes.set_ylim(len(hits) - 0.4, -0.6)
    axes.set_yticks(range(len(hits)), [method.label for method in hits])
    for tick, method in zip(axes.get_yticklabels(), hits, strict=True):
        tick.set_color(looks[method][0])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _predicted(curves, times, factor, near, headline, looks, relation):
    """An open mark at every predicted time to a target, on the target's line and, for the headline, on the method's."""
    methods = list(looks)
    drawn = {}  # shape: a mark in black, for the legend
    for (method, target), seconds in near.items():
        shape = MARKS[methods.index(method) % len(MARKS)]
        look = {"marker": shape, "linestyle": "none", "markersize": 4.5, "markerfacecolor": "white", "zorder": 4}
        curves.plot([seconds], [target], color=looks[method][0], **look)
        if target == headline:
            times.plot([seconds], [methods.index(method)], color=looks[method][0], **look)
        drawn[shape] = Line2D([], [], color="0.15", **look)
    if near:
        marks = tuple(drawn.values())[:3]
        label = "predicted" if factor == 1 else f"predicted × {number(factor, 2)}"
        curves.legend(
            [marks], [label], handler_map={tuple: HandlerTuple(ndivide=None, pad=0.6)}, frameon=False, fontsize=7,
            loc="upper right" if relation == RELATION["lower"] else "lower right", handlelength=0.9 * len(marks),
        )  # fmt: skip


def _vertical(axes, medians, targets, metric, relation):
    """Limits and scale of the metric's axis, from the medians and targets: what diverges may leave it."""
    seen = np.concatenate([*(m[["median", "low", "high"]].to_numpy().ravel() for m in medians), targets])
    seen = seen[np.isfinite(seen)]
    if relation == RELATION["lower"]:
        start = max(m["median"].iloc[0] for m in medians)
        if start:  # what begins at 0, as the consensus of ranks that have the same start, may only grow
            seen = seen[seen <= max(SPAN * start, start)]
        elif not np.any(np.less_equal(targets, 0)):
            seen = seen[seen != 0]
    low, high = (seen.min(), seen.max()) if seen.size else (0.0, 1.0)
    if relation == RELATION["lower"] and low > 0 and high > SPAN * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        if high > SPAN**2 * low:
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:  # a power of ten or two say too little
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.set_ylabel(f"{_words(metric)} (log scale)")
    else:
        margin = 0.05 * (high - low or 1.0)
        axes.set_ylim(low - margin, high + margin)
        axes.set_ylabel(_words(metric))


def _horizontal(axes, medians, hits, predictions):
    """Limits and scale of the time axis: all medians, all times to the target and these predictions are in view."""
    ends = [median["time"].iloc[-1] for median in medians] + [hit.seconds for of_method in hits for hit in of_method]
    ends = [end for end in ends if math.isfinite(end) and end > 0]
    typical = [statistics.median([hit.time for hit in of_method]) for of_method in hits]
    typical = [time for time in typical if math.isfinite(time) and time > 0]
    ends += predictions
    if typical and max(ends) > SPAN_OF_TIME * min([*typical, *predictions]):
        axes.set_xscale("log")
        start = min(min(typical) / SPAN_OF_TIME, 0.7 * min(predictions, default=math.inf))
        axes.set_xlim(start, max(ends) * (1.3 if predictions else 1.05))  # so that a mark is whole
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_xlabel(axes.get_xlabel().replace("(s)", "(s, log scale)"))
    else:
        axes.set_xlim(0, max(ends, default=1.0) * (1.05 if predictions else 1.03))


def _words(name):
    return name.replace("_", " ")
