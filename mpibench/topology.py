"""Graphs of ranks: who may send to whom, and what is particular about a link.

A topology is a table, written in a file of topologies/ or in the experiment: either a generator with its parameters,

    name = "star"

or the edges one by one, each with times of its own where it has any:

    size = 3
    edges = [
        { source = 0, to = 1, latency_seconds = 0.002, bandwidth_bytes_per_second = 1e9 },
        { source = 1, to = 2, vector_seconds = 0.5 },
        { source = 2, to = 0 },
    ]

Edges are directed. What an edge does not say, the experiment's `links` say.
"""

import hashlib
import inspect
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

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
        object.__setattr__(self, "edges", MappingProxyType(dict(sorted(self.edges.items(), key=lambda item: item[0]))))

    def sources(self, rank):
        """Ranks that have an edge to this one, ascending."""
        return self._neighbours[0][rank]

    def destinations(self, rank):
        """Ranks to which this one has an edge, ascending."""
        return self._neighbours[1][rank]

    def link(self, source, to):
        """The Link of this edge; None where it has none of its own."""
        return self.edges.get((source, to))

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
        edges = [[*edge, asdict(link or Link())] for edge, link in self.edges.items()]
        return hashlib.sha256(json.dumps([self.size, edges], sort_keys=True).encode()).hexdigest()


def star(ranks):
    """Rank 0 to and from all others."""
    return Graph(ranks, {edge: None for i in range(1, ranks) for edge in ((0, i), (i, 0))})


GENERATORS = {"star": star}  # name -> function of the number of ranks and of its own parameters


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
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from error
    if graph.size != ranks:
        raise InvalidInput(f"{where}: the graph has {graph.size} nodes for {ranks} ranks; they must be equal")
    return graph


def generated(table, ranks):
    """The Graph of a generator and its parameters."""
    name = table["name"]
    if not isinstance(name, str) or name not in GENERATORS:
        raise InvalidInput(f"there is no generator {name!r}{nearest(name, GENERATORS)}")
    generator = GENERATORS[name]
    known = inspect.signature(generator).parameters.keys() - {"ranks"}
    refuse_unknown(table, {"name", *known})
    return generator(ranks, **{key: value for key, value in table.items() if key != "name"})


def listed(table):
    """The Graph of a list of edges."""
    refuse_unknown(table, {"name", "size", "edges"})
    size, edges = table.get("size"), table.get("edges")
    if not whole(size) or size < 1 or not isinstance(edges, list):
        raise InvalidInput("a topology needs the name of a generator, or a size of 1 or more and a list of edges")
    links = {}
    for edge in edges:
        if not isinstance(edge, dict) or not (whole(edge.get("source")) and whole(edge.get("to"))):
            raise InvalidInput(f"edge {edge!r} must be a table with the ranks source and to")
        refuse_unknown(edge, {"source", "to", *(field.name for field in fields(Link))})
        ends = edge["source"], edge["to"]
        if ends in links:
            raise InvalidInput(f"edge {ends[0]} -> {ends[1]} is there twice; give it once")
        link = Link(**{key: value for key, value in edge.items() if key not in ("source", "to")})
        links[ends] = None if link == Link() else link
    return Graph(size, links)


def whole(value):
    """Whether this is an integer (a bool is not)."""
    return isinstance(value, int) and not isinstance(value, bool)


def refuse_unknown(table, known):
    """Refuse keys that mean nothing, with the nearest one that does."""
    for key in table:
        if key not in known:
            raise InvalidInput(f"unknown key {key!r}{nearest(key, known)}")


def nearest(name, known):
    """`, did you mean ...?`, or all known names where none is near."""
    close = get_close_matches(str(name), known, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
