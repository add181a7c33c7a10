"""Generators of graphs: each is a function of the number of ranks and of its own parameters, named as in a topology.

Every edge goes both ways unless the docstring says that the graph is directed. There are no loops and no double edges:
where a ring closes on itself, as a periodic dimension of two ranks does, the two neighbours are one. A size that does
not fit is an InvalidInput. Random graphs are drawn by networkx from their seed, again until they are connected.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from mpibench.errors import InvalidInput
from mpibench.parameters import Count
from mpibench.topology import Graph

SOCIAL_SIZE = 32  # women and events
MOST_COMPLETE = 5000  # ranks of a complete graph: 25 million edges, about 12 GB with their times
DRAWS = 1000  # of a random graph, until one is connected
Seed = Annotated[int, Ge(0)]
Direction = Literal["both", "down", "up"]  # of a tree's edges; "down" is away from the root


def graph_of(ranks, pairs):
    """The Graph of these directed edges, loops left out."""
    return Graph(ranks, {(i, j): None for i, j in pairs if i != j})


def both_ways(ranks, pairs):
    """The Graph with both directions of each pair."""
    return graph_of(ranks, [edge for i, j in pairs for edge in ((i, j), (j, i))])


def rooted(ranks, pairs, direction):
    """The Graph of a tree's pairs (parent, child): both directions, or one."""
    if direction == "both":
        return both_ways(ranks, pairs)
    return graph_of(ranks, pairs if direction == "down" else [(child, parent) for parent, child in pairs])


def ring(ranks):
    """Each rank and the next, the last and the first."""
    return both_ways(ranks, [(i, (i + 1) % ranks) for i in range(ranks)])


def directed_ring(ranks):
    """Each rank to the next, the last to the first; directed."""
    return graph_of(ranks, [(i, (i + 1) % ranks) for i in range(ranks)])


def line(ranks, direction: Direction = "both"):
    """Each rank and the next, from rank 0, the root; directed if `direction` is "down" (from rank 0) or "up"."""
    return rooted(ranks, [(i, i + 1) for i in range(ranks - 1)], direction)


def mesh(ranks, rows: Count, columns: Count):
    """A grid without wrap-around; rank = column + columns * row."""
    return grid(ranks, rows, columns, "mesh", periodic=False)


def torus(ranks, rows: Count, columns: Count):
    """A grid whose rows and columns are rings; rank = column + columns * row."""
    return grid(ranks, rows, columns, "torus", periodic=True)


def grid(ranks, rows, columns, name, periodic):
    """The graph of `mesh` and `torus`."""
    if ranks != rows * columns:
        raise InvalidInput(f"a {name} of {rows} rows and {columns} columns has {rows * columns} nodes, not {ranks}")
    pairs = []
    for row in range(rows):
        for column in range(columns):
            here = column + columns * row
            if periodic or column + 1 < columns:
                pairs.append((here, (column + 1) % columns + columns * row))
            if periodic or row + 1 < rows:
                pairs.append((here, column + columns * ((row + 1) % rows)))
    return both_ways(ranks, pairs)


def hypercube(ranks):
    """Ranks whose numbers differ in one binary digit."""
    if ranks & (ranks - 1):
        raise InvalidInput(f"a hypercube has 1, 2, 4, 8, 16, ... nodes, not {ranks}")
    return graph_of(ranks, [(i, i ^ 1 << bit) for i in range(ranks) for bit in range(ranks.bit_length() - 1)])


def exponential(ranks):
    """Rank i to i + 1, i + 2, i + 4, ... modulo the number of ranks, as long as the hop is smaller; directed."""
    return graph_of(ranks, [(i, (i + hop) % ranks) for i in range(ranks) for hop in powers_below(ranks)])


def one_peer_exponential(ranks):
    """At each step one hop of the exponential graph, in turns (`one_peer_hop`); the graph holds all; directed."""
    return exponential(ranks)


def one_peer_hop(ranks, step):
    """How far a rank sends at this step of the one-peer exponential graph: to rank + hop, and from rank - hop.

    2^(step mod L), L = floor(log2(ranks - 1)) + 1, modulo the number of ranks (M. Assran, N. Loizou, N. Ballas,
    M. Rabbat, "Stochastic Gradient Push for Distributed Deep Learning", ICML 2019, arXiv 1811.10792).
    """
    hops = powers_below(ranks)
    return hops[step % len(hops)] if hops else 0


def powers_below(ranks):
    """[1, 2, 4, ...] as far as they are smaller than this."""
    return [1 << k for k in range((ranks - 1).bit_length())]


def bipartite_exponential(ranks):
    """Even ranks and odd ones, 1, 3, 5, 9, ... apart: 1 and 1 + 2^k, k = 1..floor(log2(ranks - 1)).

    The graph of AD-PSGD in the code of Stochastic Gradient Push (arXiv 1811.10792).
    """
    if ranks % 2:
        raise InvalidInput(f"a bipartite exponential graph has an even number of nodes, not {ranks}")
    hops = [1, *(1 + hop for hop in powers_below(ranks) if hop > 1)]
    return both_ways(ranks, [(i, (i + hop) % ranks) for i in range(ranks) for hop in hops])


def star(ranks, centre: Annotated[int, Ge(0)] = 0, direction: Direction = "both"):
    """The centre and all others; directed if `direction` is "down" (from the centre) or "up"."""
    if centre >= ranks:
        raise InvalidInput(f"centre = {centre} is no rank of a star of {ranks}, whose ranks are 0 to {ranks - 1}")
    return rooted(ranks, [(centre, i) for i in range(ranks) if i != centre], direction)


def binary_tree(ranks, direction: Direction = "both"):
    """Rank i and its parent (i - 1) // 2; rank 0 is the root; directed if `direction` is "down" or "up"."""
    return rooted(ranks, heap(ranks), direction)


def double_binary_tree(ranks):
    """Two binary trees: that of `binary_tree`, and the same with the ranks reversed, whose root is the last rank.

    The graph of RelaySGD in its authors' code (T. Vogels, L. He, A. Koloskova, T. Lin, S. P. Karimireddy, S. U. Stich,
    M. Jaggi, "RelaySum for Decentralized Deep Learning on Heterogeneous Data", NeurIPS 2021).
    """
    last = ranks - 1
    return both_ways(ranks, heap(ranks) + [(last - parent, last - child) for parent, child in heap(ranks)])


def heap(ranks):
    """Pairs (parent, child) of the heap-ordered binary tree."""
    return [((child - 1) // 2, child) for child in range(1, ranks)]


def caterpillar(ranks):
    """A line of the first half of the ranks, and one of the others on each; of an odd number the first half is larger
    and its last rank has none."""
    spine = (ranks + 1) // 2
    return both_ways(ranks, [(i, i + 1) for i in range(spine - 1)] + [(i - spine, i) for i in range(spine, ranks)])


def complete(ranks):
    """Every rank and every other."""
    if ranks > MOST_COMPLETE:
        raise InvalidInput(f"a complete graph of {ranks} nodes has too many edges for the memory; take a sparser one")
    return graph_of(ranks, [(i, j) for i in range(ranks) for j in range(ranks)])


def two_clusters(ranks, bridges: Count = 1):
    """Two complete graphs, the first and the second half of the ranks, with bridges between the first of either half,
    the second of either, and so on. Of an odd number the first half is larger."""
    first = (ranks + 1) // 2
    if bridges > ranks - first:
        raise InvalidInput(f"two clusters of {ranks} nodes have room for {ranks - first} bridges, not {bridges}")
    halves = range(first), range(first, ranks)
    within = [(i, j) for half in halves for i in half for j in half]
    return both_ways(ranks, within + [(i, first + i) for i in range(bridges)])


def random_regular(ranks, degree: Count = 4, seed: Seed = 0):
    """A random graph in which every rank has `degree` neighbours."""
    if degree >= ranks or degree * ranks % 2:
        even = "an even number " if ranks % 2 else ""
        raise InvalidInput(f"the degree of a regular graph of {ranks} nodes is {even}below {ranks}, not {degree}")
    import networkx

    return connected(ranks, seed, lambda rng: networkx.random_regular_graph(degree, ranks, rng), f"degree = {degree}")


def erdos_renyi(ranks, probability: Annotated[float, Gt(0), Le(1)] | None = None, seed: Seed = 0):
    """A random graph in which each pair is joined with this probability, 2 ln n / n for n ranks unless it is given."""
    from math import log

    import networkx

    p = min(1.0, 2 * log(ranks) / ranks) if probability is None else probability
    return connected(ranks, seed, lambda rng: networkx.fast_gnp_random_graph(ranks, p, rng), f"probability = {p:.3g}")


def connected(ranks, seed, draw, parameter):
    """The first of the graphs drawn that is connected."""
    import networkx
    from numpy.random import default_rng

    for attempt in range(DRAWS):
        drawn = draw(default_rng([seed, attempt]))
        if networkx.is_connected(drawn):
            return both_ways(ranks, drawn.edges)
    raise InvalidInput(f"none of {DRAWS} random graphs of {ranks} nodes with {parameter} is connected; raise it")


def social(ranks):
    """Who of 18 women attended which of 14 events: 32 nodes, women first (A. Davis, B. B. Gardner, M. R. Gardner,
    "Deep South", 1941, as networkx has it)."""
    if ranks != SOCIAL_SIZE:
        raise InvalidInput(f"the social graph has {SOCIAL_SIZE} nodes, not {ranks}")
    import networkx

    return both_ways(ranks, networkx.convert_node_labels_to_integers(networkx.davis_southern_women_graph()).edges)


GENERATORS = {
    generator.__name__: generator
    for generator in (
        *(ring, directed_ring, line, mesh, torus, hypercube, exponential, one_peer_exponential, bipartite_exponential),
        *(star, binary_tree, double_binary_tree, caterpillar, complete, two_clusters, random_regular, erdos_renyi),
        social,
    )
}
