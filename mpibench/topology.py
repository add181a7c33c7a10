"""Graphs of ranks: who may send to whom, and what is particular about a link.

A topology is a table, written in a file of topologies/ or in the experiment: either a generator with its parameters
(`mpibench.graphs`),

    name = "mesh"
    rows = 10
    columns = 10

or the edges one by one, each with times of its own where it has any:

    size = 3
    edges = [
        { source = 0, to = 1, latency_seconds = 0.002, bandwidth_bytes_per_second = 1e9 },
        { source = 1, to = 2, vector_seconds = 0.5 },
        { source = 2, to = 0 },
    ]

Edges are directed; generators make both directions unless they say otherwise. Beside these keys either kind may have

    latency_seconds = 0.001                 # of all edges; so may bandwidth_bytes_per_second or vector_seconds
    exceptions = [                          # of a generator: edges with times of their own
        { source = 0, to = 1, latency_seconds = 0.05 },
    ]

What an edge does not say, the topology says for all edges; what that does not say, the experiment's `links` say. A
generator takes the number of ranks from the experiment, unless its own `size` fixes it.
"""

import hashlib
import inspect
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import get_type_hints

from mpibench import catalogue
from mpibench.catalogue import nearest
from mpibench.errors import InvalidInput


@dataclass(frozen=True)
class Link:
    """What one edge takes, where that is not what the experiment's `links` say."""

    latency_seconds: float | None = None
    bandwidth_bytes_per_second: float | None = None
    vector_seconds: float | None = None  # of a full model vector; never together with a bandwidth

    def __post_init__(self):
        for name, value in asdict(self).items():
            if value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            least = 1 if name == "bandwidth_bytes_per_second" else 0
            if not number or not least <= value <= 1e15:
                raise InvalidInput(f"{name} = {value!r} of an edge must be a number from {least} to 1e15")
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one link, with one hash
        if self.bandwidth_bytes_per_second is not None and self.vector_seconds is not None:
            raise InvalidInput("an edge takes bandwidth_bytes_per_second or vector_seconds, not both")

    def over(self, other):
        """This Link, and of the other one the times for what this one does not say."""
        latency = other.latency_seconds if self.latency_seconds is None else self.latency_seconds
        silent = (self.bandwidth_bytes_per_second, self.vector_seconds) == (None, None)
        speaks = other if silent else self
        return Link(latency, speaks.bandwidth_bytes_per_second, speaks.vector_seconds)


LARGEST = 10**6 + 1  # ranks: as many workers as there may be, and a server
TIMES = tuple(field.name for field in fields(Link))


@dataclass(frozen=True)
class Graph:
    """`size` ranks 0..size - 1 and directed edges: (source, to) -> Link, or None where nothing is particular."""

    size: int
    edges: Mapping[tuple[int, int], Link | None]

    def __post_init__(self):
        for source, to in self.edges:
            if not (0 <= source < self.size and 0 <= to < self.size):
                raise InvalidInput(f"edge {source} -> {to} leaves the graph, whose nodes are 0 to {self.size - 1}")
            if source == to:
                raise InvalidInput(f"edge {source} -> {to} is a loop; an edge joins two different nodes")
        object.__setattr__(self, "edges", MappingProxyType({edge: self.edges[edge] for edge in sorted(self.edges)}))

    def sources(self, rank):
        """Ranks that have an edge to this one, ascending."""
        return self._neighbours[0][rank]

    def destinations(self, rank):
        """Ranks to which this one has an edge, ascending."""
        return self._neighbours[1][rank]

    def link(self, source, to):
        """The Link of this edge; None where it has none of its own."""
        return self.edges.get((source, to))

    def reversed(self):
        """The Graph of the same edges, each in the other direction."""
        return Graph(self.size, {(to, source): link for (source, to), link in self.edges.items()})

    @cached_property
    def undirected(self):
        """Whether every edge has its way back; the two may have different times."""
        return all((to, source) in self.edges for source, to in self.edges)

    @cached_property
    def _neighbours(self):
        sources, destinations = ([[] for _ in range(self.size)] for _ in range(2))
        for source, to in self.edges:  # in ascending order
            sources[to].append(source)
            destinations[source].append(to)
        return [tuple(map(tuple, side)) for side in (sources, destinations)]

    @cached_property
    def hash(self):
        """Hex text, equal for equal graphs in every process."""
        times = {link: astuple(link or Link()) for link in set(self.edges.values())}
        edges = [[*edge, *times[link]] for edge, link in self.edges.items()]
        return hashlib.sha256(json.dumps([self.size, edges]).encode()).hexdigest()


@dataclass(frozen=True)
class Tree(Graph):
    """A tree that spans its ranks; its edges all point away from the root, or all towards it."""

    root: int
    parents: tuple[int | None, ...]  # of each rank, None of the root

    @classmethod
    def of(cls, parents, outward, graph=None):
        """The Tree of each rank's parent, None of the root.

        outward: whether the edges go from parent to child; graph: the Graph whose links they are, if these have times.
        """
        pairs = [(i, p) for i, p in enumerate(parents) if p is not None]
        edges = {edge: graph and graph.link(*edge) for i, p in pairs for edge in [(p, i) if outward else (i, p)]}
        return cls(len(parents), edges, list(parents).index(None), tuple(parents))

    def __post_init__(self):
        super().__post_init__()
        if lost := [rank for rank, depth in enumerate(self.depths) if depth is None]:
            raise InvalidInput(f"rank {lost[0]} does not hang on root {self.root}, so this is no tree")

    def parent(self, rank):
        """The next rank on the way to the root; None of the root."""
        return self.parents[rank]

    def children(self, rank):
        """The ranks whose parent this one is, ascending."""
        return self._children[rank]

    @cached_property
    def _children(self):
        children = [[] for _ in range(self.size)]
        for rank, parent in enumerate(self.parents):
            if parent is not None:
                children[parent].append(rank)
        return tuple(map(tuple, children))

    @cached_property
    def depths(self):
        """Number of edges between the root and each rank, a tuple."""
        depths = [None] * self.size
        depths[self.root], level = 0, [self.root]
        while level:
            below = [child for rank in level for child in self.children(rank)]
            for child in below:
                depths[child] = depths[self.parents[child]] + 1
            level = below
        return tuple(depths)

    @property
    def depth(self):
        """Number of edges between the root and the farthest rank."""
        return max(self.depths)


def roots(graph):
    """The ranks from which every rank can be reached, ascending: the possible roots of a spanning tree.

    They are the one strongly connected component that no edge enters; () where there are several such.
    """
    import networkx

    directed = networkx.DiGraph(list(graph.edges))
    directed.add_nodes_from(range(graph.size))
    component = {}
    for number, members in enumerate(networkx.strongly_connected_components(directed)):
        component |= dict.fromkeys(members, number)
    entered = {component[to] for source, to in graph.edges if component[source] != component[to]}
    first = set(component.values()) - entered
    return tuple(sorted(rank for rank in component if component[rank] in first)) if len(first) == 1 else ()


def common_roots(pull, push):
    """The ranks that are roots of both graphs of a method that pulls models and pushes mass, ascending.

    Along the edges of `pull` they reach every rank, and along those of `push` every rank reaches them. InvalidInput
    where there is none, because then such a method comes to rest at a wrong point.
    """
    spread, gather = roots(pull), roots(push.reversed())
    if not spread:
        raise InvalidInput("the pull graph has no root: there is no rank from which all others can be reached")
    if not gather:
        raise InvalidInput("the push graph has no root: there is no rank that can be reached from all others")
    both = tuple(sorted(set(spread) & set(gather)))
    if not both:
        raise InvalidInput(
            f"the two graphs have no common root: models spread from rank {few(spread)} of the pull graph, "
            f"but mass gathers at rank {few(gather)} of the push graph"
        )
    return both


def few(ranks):
    """Ranks in words, the first of many."""
    return ", ".join(map(str, ranks[:5])) + (", ..." if len(ranks) > 5 else "")


def read(path):
    """The table in a file of topologies/; InvalidInput if it cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"topology {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of numbers too long and of lists too deep for Python
        raise InvalidInput(f"topology {path} is not TOML: {error}") from error


def build(table, ranks, where="graph"):
    """The Graph of a topology's table for this number of ranks; `where` names the table in errors."""
    try:
        graph = generated(table, ranks) if "name" in table else listed(table)
        refuse_size(graph.size, ranks)
        refuse_disconnected(graph)
        everywhere = Link(**{key: table[key] for key in TIMES if key in table})
        if everywhere == Link():
            return graph
        return Graph(ranks, {edge: link.over(everywhere) if link else everywhere for edge, link in graph.edges.items()})
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error


def size_of(table):
    """The number of ranks that a topology's table is for, as far as it can be read; None if it fits several."""
    size = table.get("size")
    if size is None and table.get("name") == "social":
        from mpibench.graphs import SOCIAL_SIZE

        return SOCIAL_SIZE
    if size is None and whole(table.get("rows")) and whole(table.get("columns")):
        return table["rows"] * table["columns"]
    return size if whole(size) else None


def generated(table, ranks):
    """The Graph of a generator and its parameters, and the times of its exceptions."""
    from mpibench.graphs import GENERATORS

    name, size = table["name"], table.get("size", ranks)
    if not isinstance(name, str) or name not in GENERATORS:
        raise InvalidInput(f"there is no generator {name!r}{nearest(name, GENERATORS)}")
    own = parameters(GENERATORS[name])
    refuse_unknown(table, ["name", *own, "size", *TIMES, "exceptions"])
    values = {}
    for key, (hint, default) in own.items():
        if key in table:
            values[key] = catalogue.value(hint, table[key], (), key, refuse)
        elif default is inspect.Parameter.empty:
            raise InvalidInput(f"{name} lacks `{key}`, {catalogue.words(hint)}")
    if not whole(size) or not 1 <= size <= LARGEST:
        raise InvalidInput(f"size = {size!r} must be a whole number from 1 to {LARGEST}")
    refuse_size(size, ranks)
    graph = GENERATORS[name](ranks, **values)
    exceptions = edges_of(table.get("exceptions", []), "exceptions")
    for source, to in exceptions:
        if (source, to) not in graph.edges:
            raise InvalidInput(f"exceptions name an edge {source} -> {to}, which this {name} does not have")
    return Graph(ranks, {**graph.edges, **exceptions}) if exceptions else graph


def parameters(generator):
    """A generator's own parameters: {name: (annotation, default)}."""
    hints = get_type_hints(generator, include_extras=True)
    signature = inspect.signature(generator).parameters
    return {key: (hints[key], value.default) for key, value in signature.items() if key != "ranks"}


def listed(table):
    """The Graph of a list of edges."""
    refuse_unknown(table, ["name", "size", "edges", *TIMES])
    size, edges = table.get("size"), table.get("edges")
    if not whole(size) or not 1 <= size <= LARGEST or not isinstance(edges, list):
        text = f"a topology needs the name of a generator, or a size from 1 to {LARGEST} and a list of edges"
        raise InvalidInput(text)
    return Graph(size, edges_of(edges, "edges"))


def edges_of(tables, key):
    """{(source, to): Link or None} of a list of edges; `key` is where it stands."""
    if not isinstance(tables, list):
        raise InvalidInput(f"{key} = {tables!r} must be a list of tables")
    links = {}
    for edge in tables:
        if not isinstance(edge, dict) or not (whole(edge.get("source")) and whole(edge.get("to"))):
            raise InvalidInput(f"edge {edge!r} must be a table with the ranks source and to")
        refuse_unknown(edge, ["source", "to", *TIMES])
        ends = edge["source"], edge["to"]
        if ends in links:
            raise InvalidInput(f"edge {ends[0]} -> {ends[1]} is there twice; give it once")
        link = Link(**{key: value for key, value in edge.items() if key not in ("source", "to")})
        links[ends] = None if link == Link() else link
    return links


def refuse_size(size, ranks):
    """Refuse a graph of another size than the number of ranks."""
    if size != ranks:
        raise InvalidInput(f"the graph has {size} nodes for {ranks} ranks; they must be equal")


def refuse_disconnected(graph):
    """Refuse a graph of two parts between which no edge leads, in either direction."""
    seen, new = {0}, [0]
    while new:
        rank = new.pop()
        found = {*graph.sources(rank), *graph.destinations(rank)} - seen
        seen |= found
        new.extend(found)
    if len(seen) < graph.size:
        alone = next(rank for rank in range(graph.size) if rank not in seen)
        raise InvalidInput(f"the graph is disconnected: no edges join rank {alone} to rank 0")


def whole(value):
    """Whether this is an integer (a bool is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def refuse_unknown(table, known):
    """Refuse keys that mean nothing, with the nearest one that does."""
    for key in table:
        if key not in known:
            raise InvalidInput(f"there is no key `{key}` here{nearest(key, known)}")


def refuse(at, text, key=None):
    """What is wrong with a value, in one sentence."""
    raise InvalidInput(text)
