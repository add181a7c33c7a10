"""The figures of performance profiles, timelines and link maps, in the style of `plots`."""

import matplotlib
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import plots, profiles
from analysis.notes import inputs, provenance

# inches
LANE, LEFT, TITLE, BELOW, SQUARE = 0.13, 0.85, 0.3, 0.55, 2.4
MOST_LANES = 64  # ranks that a figure shows
LOOKS = {"compute": ("#0072B2", 0.78), "communicate": ("#E69F00", 0.34)}  # colour, and height of the lane's bar


def profile_figure(made):
    """The matplotlib Figure of these `Profiles`, one below the other."""
    with matplotlib.rc_context(plots.STYLE):
        height = plots.CURVES + TITLE + BELOW
        whole = Figure(figsize=(LEFT + plots.WIDTH + plots.RIGHT, height * len(made)))
        for k, each in enumerate(made):
            bottom = (len(made) - 1 - k) * height + BELOW
            axes = _axes(whole, bottom, plots.WIDTH, plots.CURVES)
            for a, label in enumerate(each.labels):
                colour, dashes = plots.COLOURS[a % len(plots.COLOURS)], plots.DASHES[a // len(plots.COLOURS) % 4]
                look = {"color": colour, "linestyle": dashes, "linewidth": plots.LINE + 0.4 * (len(each.labels) - a)}
                factors, band = each.profile.factors, (each.profile.low[a], each.profile.high[a])
                axes.fill_between(factors, *band, step="post", color=colour, alpha=0.15, linewidth=0)
                axes.step(factors, each.profile.share[a], where="post", label=label, **look)
            axes.set(xlim=(1, profiles.LIMIT), ylim=(-0.02, 1.03), title=each.title)
            axes.set_xlabel("factor τ of the best method's median time")
            axes.set_ylabel("fraction of problems within τ")
            axes.legend(frameon=False, fontsize=7, loc="lower right", labelcolor="linecolor")
    return whole


def timeline_figure(lines):
    """The matplotlib Figure of these `Timeline`s: a lane a rank, computing high, communicating low, idle empty."""
    with matplotlib.rc_context(plots.STYLE):
        heights = [LANE * min(len(line.rows), MOST_LANES) + TITLE + BELOW for line in lines]
        whole = Figure(figsize=(LEFT + plots.WIDTH + plots.RIGHT, sum(heights)))
        top = sum(heights)
        for line, height in zip(lines, heights, strict=True):
            lanes = min(len(line.rows), MOST_LANES)
            axes = _axes(whole, top - height + BELOW, plots.WIDTH, LANE * lanes)
            top -= height
            for state, (colour, thick) in LOOKS.items():
                own = line.spans[(line.spans["state"] == state) & (line.spans["rank"] < lanes)]
                start, stop, lane = (own[name].to_numpy() for name in ("start", "stop", "rank"))
                below, above = lane - thick / 2, lane + thick / 2
                corners = [(start, below), (stop, below), (stop, above), (start, above)]
                bars = np.stack([np.column_stack(corner) for corner in corners], axis=1)
                axes.add_collection(PolyCollection(bars, facecolor=colour, edgecolor="white", linewidth=0.2))
            axes.set(xlim=(0, line.run.seconds), ylim=(lanes - 0.4, -0.6))
            axes.set_title(f"{line.method.label}, seed {line.run.seed}: {line.race.title}")
            axes.set_xlabel(plots.TIME[line.race.clock])
            axes.set_ylabel("rank")
            axes.set_yticks(np.arange(0, lanes, 1 + (lanes - 1) // 16))
        marks = [Patch(color=colour, label=state) for state, (colour, _) in LOOKS.items()]
        axes.legend(handles=marks, ncols=2, frameon=False, fontsize=7, loc="upper right", bbox_to_anchor=(1, -0.35))
    return whole


def links_figure(made):
    """The matplotlib Figure of these `Links`: a map a method, source down, destination to the right, MB by shade."""
    maps = [(links, method) for links in made for method in links.rows["method"].unique()]
    with matplotlib.rc_context(plots.STYLE):
        height = SQUARE + TITLE + BELOW
        whole = Figure(figsize=(LEFT + SQUARE + 1.4, height * len(maps)))
        for k, (links, method) in enumerate(maps):
            axes = _axes(whole, (len(maps) - 1 - k) * height + BELOW, SQUARE, SQUARE)
            values = links.matrix(method)
            seen = values[np.isfinite(values) & (values > 0)]
            wide = seen.size and seen.max() > plots.SPAN * seen.min()
            norm = LogNorm() if wide else Normalize(0.0, seen.max() if seen.size else 1.0)
            shown = axes.imshow(values, cmap="cividis_r", norm=norm, interpolation="nearest", aspect="auto")
            inches = whole.get_size_inches()
            place = axes.get_position()
            bar = whole.add_axes((place.x1 + 0.12 / inches[0], place.y0, 0.1 / inches[0], place.height))
            whole.colorbar(shown, cax=bar, label="MB (log scale)" if wide else "MB")
            axes.set(xlabel="to rank", ylabel="from rank")
            axes.set_title(f"{method}, {links.race.clock} clock")
    return whole


def description(races, text, command):
    """What is stored in the file of a figure: its caption, and how it can be made again from which inputs."""
    return "\n".join([text, *map(inputs, races), f"Made by `{command}`."])


def timeline_caption(lines):
    """What the figure of timelines shows."""
    cut = any(len(line.rows) > MOST_LANES for line in lines)
    return " ".join(
        [
            (
                "Of one run a method: when each rank computed (high bars), when a message of it or for it was under "
                "way and it did not compute (low bars), and when it was idle (empty)."
            ),
            *([f"The first {MOST_LANES} ranks."] if cut else []),
            *(sentence for race in dict.fromkeys(line.race for line in lines) for sentence in provenance(race)),
        ]
    )


def links_caption(made):
    """What the link map shows."""
    said = "Link map: MB that each directed edge carried in a run, median over seeds; empty where there is no edge."
    return " ".join([said, *(sentence for links in made for sentence in provenance(links.race))])


def _axes(whole, bottom, width, height):
    """Axes of these inches, so far above the lower edge of the figure."""
    inches = whole.get_size_inches()
    return whole.add_axes((LEFT / inches[0], bottom / inches[1], width / inches[0], height / inches[1]))
