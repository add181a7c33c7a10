"""A topology as `describe` shows it: what can be known of it in a few lines, and its picture."""

import math
from collections import Counter
from pathlib import Path

import numpy

from mpibench import weights
from mpibench.errors import InvalidInput
from mpibench.graphs import heap
from mpibench.network import Network
from mpibench.topology import TIMES, few, roots

MOST = 2000  # ranks for which all pairs are looked at
MOST_ARROWS = 3000  # edges that are drawn with their direction
LABELLED = 400  # ranks that have room for their numbers
WOMEN = 18  # of the social graph
AXES = numpy.array([(1, 0), (0, 1), (0.42, 0.34), (2.1, 0.75), (-0.7, 2.4), (5.0, 1.6)])  # of hypercubes, as drawn
INK, PAPER, LINES, PARTICULAR = "#1f4e79", "#ffffff", "#8a8f98", "#c8501e"


def facts(graph):
    """Lines about a `topology.Graph`: size, degrees, diameter, spectral gap, roots, centre, and times of its own."""
    ends = [(len(graph.destinations(rank)), len(graph.sources(rank))) for rank in range(graph.size)]
    count = len(graph.edges) // 2 if graph.undirected else len(graph.edges)
    found = roots(graph)
    rows = [("size", f"{graph.size} nodes, {count} {'edges both ways' if graph.undirected else 'directed edges'}")]
    if graph.undirected:
        rows.append(("degree", span(out for out, _ in ends)))
    else:
        rows.append(("degree", f"{span(out for out, _ in ends)} out, {span(into for _, into in ends)} in"))
    if graph.size > MOST:
        rows.append(("diameter", f"not computed, nor the spectral gap: more than {MOST} nodes"))
    else:
        hops = Network(graph, dict.fromkeys(graph.edges, 1), numpy.ones(graph.size))
        joined = len(found) == graph.size
        farthest = f"{int(hops.distances.max())} edges" if joined else "none: not every rank can reach every other"
        rows += [("diameter", farthest), ("spectral gap", gap(graph))]
        if joined:
            rows.append(("centre", f"rank {hops.centre()}"))
    some = f"rank {few(found)}" if found else "none: no rank can reach all others"
    rows.append(("roots", "every rank" if len(found) == graph.size else some))
    rows += times(graph)
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


def gap(graph):
    """The spectral gap in words, with the weights that it is for."""
    if graph.undirected:
        return f"{weights.spectral_gap(weights.metropolis(graph)):.4g} with Metropolis weights"
    uniform = weights.uniform_row(graph)
    kind = "doubly stochastic" if uniform.doubly_stochastic else "stochastic by rows only"
    return f"{weights.spectral_gap(uniform):.4g} with uniform weights, {kind}"


def times(graph):
    """(name, values in words) of the times that edges have of their own."""
    links = [link for link in graph.edges.values() if link is not None]
    for name in TIMES:
        if values := [value for link in links if (value := getattr(link, name)) is not None]:
            some = f" on {len(values)} of {len(graph.edges)} directed edges" if len(values) < len(graph.edges) else ""
            yield name, span(values) + some


def span(values):
    """The least and the largest of these."""
    values = sorted(values)
    least, largest = f"{values[0]:g}", f"{values[-1]:g}"
    return least if least == largest else f"{least} to {largest}"


def draw(graph, table, title, file):
    """Draw a `topology.Graph` into a PNG file; its `table` decides where the ranks lie.

    Edges whose times differ from those of most others are drawn in another colour.
    """
    from matplotlib.figure import Figure

    if Path(file).suffix.lower() != ".png":
        raise InvalidInput(f"the picture {file} would be a PNG; give it a name that ends in .png")
    places = numpy.array(layout(graph, table), float).reshape(graph.size, 2)
    low, high = places.min(axis=0), places.max(axis=0)
    apart = nearest_distance(places)
    inches = numpy.clip((high - low) / apart * 0.55, 0.0, 11.0) + 1.2
    inches[0] = max(inches[0], 3.2)
    figure = Figure(figsize=tuple(inches + [0.0, 0.4]), dpi=150)
    axes = figure.add_axes((0, 0, 1, inches[1] / (inches[1] + 0.4)))
    axes.set_aspect("equal")
    axes.set_axis_off()
    inch = max((high - low) / (inches - 1.1), default=0.0) or 1.0  # in units of the layout
    radius = min(0.17, max(0.03, 0.32 * apart / inch))  # of a rank, in inches
    axes.set_xlim(low[0] - 0.55 * inch, high[0] + 0.55 * inch)
    axes.set_ylim(low[1] - 0.55 * inch, high[1] + 0.55 * inch)
    draw_edges(axes, graph, places, table.get("name") == "torus", radius, apart)
    axes.scatter(*places.T, s=(2 * radius * 72) ** 2, c=PAPER, edgecolors=INK, linewidths=1.0, zorder=3)
    if graph.size <= LABELLED:
        for rank, place in enumerate(places):
            size = radius * 72 * (0.95 if graph.size <= 100 else 0.8)
            axes.text(*place, str(rank), fontsize=size, color=INK, ha="center", va="center_baseline", zorder=4)
    figure.suptitle(title, fontsize=9, color=INK, y=1 - 0.12 / inches[1], va="top")
    try:
        figure.savefig(file, metadata={"Software": None})
    except OSError as error:
        raise InvalidInput(f"the picture {file} cannot be written: {error.strerror}") from error


def draw_edges(axes, graph, places, periodic, radius, apart):
    """Lines between ranks, arrows where there is no way back; what closes a torus leaves at its border.

    An edge is drawn in another colour where more than half of all have the same times and it has not.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.patches import FancyArrowPatch

    common = Counter(graph.edges.values()).most_common(1)
    usual = {link for link, count in common if 2 * count > len(graph.edges)} or set(graph.edges.values())
    lines, colours = [], []
    for (source, to), link in graph.edges.items():
        colour = LINES if link in usual else PARTICULAR
        a, b = places[source], places[to]
        if len(graph.edges) > MOST_ARROWS or (graph.undirected and (source < to or link not in usual)):
            way = b - a
            if periodic and abs(way).max() > 1.5 * apart:
                outward = -numpy.sign(way) * 0.55 * apart
                lines += [(a, a + outward), (b, b - outward)]
                colours += [colour] * 2
            else:
                lines.append((a, b))
                colours.append(colour)
        elif not graph.undirected:
            bend = 0.15 if (to, source) in graph.edges else 0.0
            arrow = FancyArrowPatch(
                *(a, b),
                arrowstyle="-|>",
                connectionstyle=f"arc3,rad={bend}",
                mutation_scale=40 * radius,
                **dict.fromkeys(("shrinkA", "shrinkB"), radius * 72),
                color=colour,
                linewidth=0.8,
            )
            axes.add_patch(arrow)
    thin = 1.2 if len(lines) < 500 else 0.5
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=thin, zorder=1))


def nearest_distance(places):
    """The least distance between two of these places (n, 2); 1 of a single one."""
    from scipy.spatial import KDTree

    if len(places) == 1:
        return 1.0
    return float(KDTree(places).query(places, k=2)[0][:, 1].min()) or 1.0


def layout(graph, table):
    """(x, y) of each rank, y upward, as the generator of this topology's table would have it."""
    n, name = graph.size, table.get("name")
    if name in ("mesh", "torus"):
        return [(rank % table["columns"], -(rank // table["columns"])) for rank in range(n)]
    if name == "line":
        return [(rank, 0) for rank in range(n)]
    if name == "caterpillar":
        spine = (n + 1) // 2
        return [(rank % spine, -(rank // spine)) for rank in range(n)]
    if name == "binary_tree":
        return layered(n)
    if name == "star":
        around = circle(n - 1)
        around.insert(table.get("centre", 0), (0, 0))
        return around
    if name == "two_clusters":  # mirrored, so that bridges cross the middle
        left, right = circle((n + 1) // 2), circle(n // 2)
        return [(x - 1.4, y) for y, x in left] + [(1.4 - x, y) for y, x in right]
    if name == "social":
        events = n - WOMEN
        return [(i, 6) for i in range(WOMEN)] + [((i + 0.5) * WOMEN / events - 0.5, 0) for i in range(events)]
    if name == "hypercube" and n <= 2 ** len(AXES):
        return [sum((AXES[bit] for bit in range(len(AXES)) if rank >> bit & 1), numpy.zeros(2)) for rank in range(n)]
    if name in ("random_regular", "erdos_renyi", None) and n <= MOST:
        return sprung(graph)
    return circle(n)


def circle(n):
    """n places on a circle, the first on top, clockwise."""
    return [(math.sin(2 * math.pi * i / n), math.cos(2 * math.pi * i / n)) for i in range(n)]


def layered(n):
    """The heap-ordered binary tree, level below level, each parent in the middle above its children."""
    levels = n.bit_length()
    places = [(0.0, 0.0)] * n
    for parent, child in heap(n):
        level = (child + 1).bit_length() - 1
        side = 1 if child % 2 == 0 else -1
        places[child] = (places[parent][0] + side * 2 ** (levels - 1 - level) / 2, -1.1 * level)
    return places


def sprung(graph):
    """Places that networkx finds, so that paths of few edges are short."""
    import networkx

    found = networkx.Graph(list(graph.edges))
    found.add_nodes_from(range(graph.size))
    small = graph.size <= 200
    places = networkx.kamada_kawai_layout(found) if small else networkx.spring_layout(found, seed=0)
    return [places[rank] for rank in range(graph.size)]
