"""A problem so small that its runs can be written out by hand, and cells of experiments without files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy

from mpibench.experiment import Experiment

NEVER = -1e300  # a target that no run reaches


@dataclass(frozen=True)
class Toy:
    """f_i(x) = sum of curvature * x^2 / 2 over the coordinates, whose stochastic gradient is curvature * x + ξ.

    It is the problem and the prepared one at once; its metrics x0, x1, ... are the coordinates themselves.
    """

    x: tuple = (64.0,)  # the start
    curvature: tuple = (1.0,)
    sample: Callable = lambda i, number: 0.0  # ξ of job 0, 1, 2, ... of worker i = 1..n
    library: Any = numpy  # or torch

    def vector(self, numbers):
        make = self.library.array if self.library is numpy else self.library.tensor
        return make(numbers, dtype=self.library.float64)

    def prepare(self, workers, seed):
        return self

    dimension = property(lambda self: len(self.x))
    model_bytes = property(lambda self: 8 * len(self.x))
    metrics = property(lambda self: {f"x{c}": "lower" for c in range(len(self.x))})
    provenance = property(lambda self: {"name": "toy"})

    def start(self):
        return self.vector(self.x)

    def objective(self, i):
        return ToyObjective(self, i)

    def evaluate(self, x):
        return {f"x{c}": float(value) for c, value in enumerate(x)}


class ToyObjective:
    def __init__(self, toy, i):
        self.toy, self.i, self.begun = toy, i, 0
        self.curvature = toy.vector(toy.curvature)

    def sample(self):
        self.begun += 1
        return self.toy.sample(self.i, self.begun - 1)

    def gradient(self, x, ξ):
        return self.curvature * x + ξ


def cells(name, parameters, seconds=None, **tables):
    """The cells of an experiment with one algorithm. `seconds`: of a gradient of worker 1, 2, ...; other keywords are
    keys of [experiment], or the tables `problem`, `heterogeneity` and `graph`."""
    top = {key: tables.pop(key) for key in ("problem", "heterogeneity", "graph") if key in tables}
    if seconds is not None:
        links = {"links": top.get("heterogeneity", {}).get("links", {})}
        top["heterogeneity"] = {"compute": {"profile": "fixed", "seconds": [float(s) for s in seconds]}} | links
        tables = {"workers": len(seconds)} | tables
    settings = {
        "name": "test",
        "seeds": [0],
        "stop": {"updates": 5},
        "snapshot": {"updates": 1},
        "record_updates": True,
        "targets": {"metric": "loss", "values": [NEVER], "headline": NEVER},
    }
    top |= {"schema": 1, "experiment": settings | tables, "algorithm": [{"name": name} | parameters]}
    top.setdefault("problem", {"name": "quadratic", "dimension": 1})
    return Experiment.from_resolved({"file": "none", "raw": "", "overrides": [], "tables": top}).cells()


def toy_cell(name, parameters, seconds, toy=None, links=None, **settings):
    """The cell of this algorithm on a toy, with workers of fixed seconds per gradient."""
    targets = {"metric": "x0", "values": [NEVER], "headline": NEVER}
    modelled = {"heterogeneity": {"links": links or {}}}
    (cell,) = cells(name, parameters, seconds, **modelled, **({"targets": targets} | settings))
    return replace(cell, problem=toy or Toy())
