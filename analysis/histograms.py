"""The figure of staleness: for each race one histogram a method, all on one axis."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from analysis import plots
from analysis.notes import inputs, provenance
from analysis.rounding import number

# inches: a panel, the line above it with the method's name and numbers, the rest as in `plots`
PANEL, LINE_ABOVE, TITLE, BELOW = 0.55, 0.24, 0.18, 0.8
LONG = 30  # characters: such a name stands in a line of its own
BINS = 64  # at most so many of equal width
WIDE = 10  # the axis is logarithmic where the largest staleness exceeds so many times the least 99th percentile
LOOKS = {  # of the marks: by shade and dashes, as each method has its colour
    "median": {"color": "0.1", "linestyle": "-", "linewidth": 1.0},
    "p99": {"color": "0.1", "linestyle": (0, (1, 1.2)), "linewidth": 1.2},
    "threshold": {
        "color": "0.1",
        "linestyle": (0, (5, 2)),
        "linewidth": 0.9,
        "marker": "v",
        "markersize": 4,
        "markevery": [1],
        "markeredgewidth": 0,
    },  # seen where it coincides with another one, too
}


def edges(largest, wide):
    """The edges of the bins for staleness 0 to `largest`, half-way between whole numbers.

    Of equal width, at most 64; or where `wide` two to a doubling, as far as whole numbers allow: 0, 1, 2, 3, 4-5, 6-7,
    8-10, 11-15, 16-22, ...
    """
    if not wide:
        width = -(-(largest + 1) // BINS)
        return np.arange(0, largest + width + 1, width) - 0.5
    doublings = np.arange(0, np.log2(largest + 1) + 1, 0.5)
    return np.unique(np.concatenate([[0], np.round(2**doublings)])) - 0.5


def shares(histogram, bins):
    """The share of the gradients in each bin."""
    counts, _ = np.histogram(np.arange(len(histogram)), bins=bins, weights=histogram)
    return counts / counts.sum()


def figure(made):
    """The matplotlib Figure of these `Staleness`, a column of panels for each."""
    made = [staleness for staleness in made if staleness.histograms]
    with matplotlib.rc_context(plots.STYLE):
        heights = [TITLE + (_above(staleness) + PANEL) * len(staleness.histograms) + BELOW for staleness in made]
        whole = Figure(figsize=(plots.LEFT + plots.WIDTH + plots.RIGHT, sum(heights)))
        top = sum(heights)
        for staleness, height in zip(made, heights, strict=True):
            _column(whole, staleness, top)
            top -= height
    return whole


def caption(made):
    """What the figure shows and what must be known of its runs, one paragraph for each race."""
    paragraphs = []
    for staleness in made:
        n = sorted({int(n) for n in staleness.rows["n"] if n})
        seeds = " to ".join(map(str, dict.fromkeys((n[0], n[-1])))) if n else "0"
        text = (
            f"{staleness.race.title}. Staleness of all gradients, used and discarded, of n = {seeds} seeds together "
            f"(bars: the share in each bin{', wider to the right' if _wide(staleness) else ''}); median (line) and "
            "99th percentile (dotted), medians over seeds; the method's threshold, where it has one near (triangle)."
        )
        paragraphs.append(" ".join([text, *provenance(staleness.race)]))
    return "\n".join(paragraphs)


def description(made, command):
    """What is stored in the file of the figure: its caption, and how it can be made again from which inputs."""
    races = [staleness.race for staleness in made]
    return "\n".join([caption(made), *map(inputs, races), f"Made by `{command}`."])


def _wide(staleness):
    stale = staleness.rows[staleness.rows["staleness_p99"] > 0]  # who is never stale needs no scale
    return bool(len(stale)) and stale["staleness_max"].max() > max(BINS, WIDE * stale["staleness_p99"].min())


def _above(staleness):
    """Inches above a panel: one line for name and numbers, or two."""
    return LINE_ABOVE + (0.13 if max(map(len, staleness.histograms)) > LONG else 0.0)


def _column(whole, staleness, top):
    """The panels of one race, from `top` (inches from below) downwards."""
    width, height = whole.get_size_inches()
    rows = staleness.rows.set_index("method")
    largest = max(len(histogram) - 1 for histogram in staleness.histograms.values())
    limits = {method: limit for method, limit in staleness.limits.items() if limit <= 2 * (largest + 1)}
    shown = int(max([largest, *limits.values()]))
    wide = _wide(staleness)
    bins = edges(shown, wide)
    whole.text(plots.LEFT / width, (top - TITLE / 2) / height, staleness.race.title, va="center")
    top -= TITLE
    first = None
    for k, (method, histogram) in enumerate(staleness.histograms.items()):
        top -= _above(staleness) + PANEL
        place = (plots.LEFT / width, top / height, plots.WIDTH / width, PANEL / height)
        axes = whole.add_axes(place, sharex=first)
        first = first or axes
        colour = plots.COLOURS[k % len(plots.COLOURS)]
        row = rows.loc[method]
        axes.stairs(100 * shares(histogram, bins), bins, fill=True, color=colour, alpha=0.45)
        axes.stairs(100 * shares(histogram, bins), bins, color=colour, linewidth=0.7)
        marks = {"median": row.staleness_median, "p99": row.staleness_p99, "threshold": limits.get(method)}
        for name, value in marks.items():
            if value is not None:
                axes.plot([value, value], [0, 0.94], transform=axes.get_xaxis_transform(), **LOOKS[name])
        line = 1.06 + (_above(staleness) - LINE_ABOVE) / PANEL
        axes.text(0, line, method, color=colour, transform=axes.transAxes, va="bottom")
        axes.text(1, 1.06, _numbers(row), color="0.15", transform=axes.transAxes, va="bottom", ha="right", fontsize=7)
        axes.set_ylim(0)
        axes.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
        axes.tick_params(labelbottom=False)
    _below(axes, bins[-1], wide, bool(limits))


def _numbers(row):
    """The numbers of a method in a line."""
    at_least = "≥ " if row.staleness_max >= row.open_from else ""
    text = f"median {row.staleness_median:g}, p99 {row.staleness_p99:g}, max {at_least}{row.staleness_max:g}"
    return f"{text}; {number(100 * row.discarded_share)} % discarded"


def _below(axes, end, wide, limited):
    """The axis that all panels of a race share, and what the marks mean."""
    axes.tick_params(labelbottom=True)
    label = "staleness (model updates)"
    if wide:
        axes.set_xscale("symlog", linthresh=1, linscale=0.3)
        axes.xaxis.set_major_locator(FixedLocator([0, *(10**k for k in range(len(str(int(end)))))]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda staleness, _: f"{staleness:g}"))
        axes.set_xlim(-0.6, 1.05 * end)
        label += ", log scale from 1"
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(-0.6, max(1.5, 1.01 * end))
    axes.set_xlabel(label)
    names = ["median", "p99", *(["threshold"] if limited else [])]
    axes.legend(
        [Line2D([], [], **LOOKS[name]) for name in names], names, loc="upper right", ncols=3, frameon=False,
        fontsize=7, bbox_to_anchor=(1.0, -0.72), borderaxespad=0, handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip
