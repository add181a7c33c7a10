"""What theory says of an experiment before it runs: its methods side by side, and what they cannot show here."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy

from mpibench import theory
from mpibench.compressors._repeated import charged_bytes
from mpibench.event_counts import SECOND
from mpibench.forms import FORMS
from mpibench.machine import Machine
from mpibench.prediction import EPS, constants_of, eps_of, predictions

INSEPARABLE = 1.3  # predicted times that differ by less than this factor are equal within the constants of theory
OPTIMAL = {"rennala", "rennala_all_reduce", "ringmaster", "naive_optimal_asgd"}  # for homogeneous data
FRAGILE, TREE_MINIBATCH = {"fragile", "fragile_accelerated"}, {"tree_minibatch", "tree_minibatch_eager"}


@dataclass(frozen=True)
class Outlook:
    """What theory says of an experiment, on its first seed."""

    experiment: Any
    cells: tuple
    predictions: list  # of each cell, or None
    machine: Machine | None  # None where no speeds are modelled, or no method has a form
    on_trees: Machine | None  # that of the first method on trees
    constants: dict
    eps: float | None  # of the headline target

    @property
    def noise_ratio(self):
        """σ²/ε at the headline target."""
        return self.constants["variance"] / self.eps

    @property
    def headline(self):
        """The headline target in words."""
        targets = self.experiment.settings.targets
        return f"{targets.metric} {targets.headline:g}"

    @property
    def names(self):
        """The algorithms."""
        return {cell.algorithm_name for cell in self.cells}

    @property
    def with_server(self):
        """Whether the formulas of methods with a server say something here."""
        return self.machine is not None and not self.machine.on_trees

    @property
    def best_quorum(self):
        """The m that m-synchronous SGD should wait for."""
        return theory.quorum(self.machine.cycles, self.constants["variance"], self.eps)

    @property
    def useful_workers(self):
        """How many of the fastest workers the optimal methods live on."""
        return theory.useful_workers(self.machine.cycles, self.constants["variance"], self.eps)

    @cached_property
    def equilibrium(self):
        """(t*, number of useful ranks, pivot) of Fragile SGD at the headline target."""
        of = self.on_trees
        return theory.fragile_step_seconds(self.noise_ratio, of.known, of.seconds_between)

    @property
    def equal(self):
        """Whether all workers are equally fast in the long run, and equally near where there is a server or a pivot."""
        cycles = self.machine.cycles
        return bool(cycles.max() <= cycles.min() * (1 + 1e-9))

    @property
    def gain(self):
        """By how much the optimal methods' bound is below asynchronous SGD's."""
        case = (self.machine.cycles, 1.0, 1.0, self.constants["variance"], self.eps)
        return theory.asgd_seconds(*case) / theory.rennala_seconds(*case)[0]

    @property
    def gain_on_trees(self):
        """By how much Fragile SGD's bound is below that of Minibatch SGD on the same graph."""
        of = self.on_trees
        case = (of.known, of.seconds_between, 1.0, 1.0, self.constants["variance"], self.eps)
        return theory.tree_minibatch_seconds(*case) / theory.fragile_seconds(*case)

    @cached_property
    def compressed(self):
        """(the unbiased compressor of the first method with a server that has one, the Machine there), or None."""
        for cell in self.cells if self.with_server and self.eps is not None else ():
            compressor, machine = getattr(cell.algorithm, "compressor", None), replace(self.machine, cell=cell)
            if compressor and machine.server == 0 and compressor.omega(machine.dimension) is not None:
                return compressor, machine
        return None

    @cached_property
    def link_bounds(self):
        """{name: seconds to the headline target, up to a constant}: what theory says with links; none without them, or
        without a compressor. `gain` is that of compression."""
        if self.compressed is None or not self.machine.linked:
            return {}
        compressor, m = self.compressed
        h, up, down = m.known, m.up / SECOND, m.down / SECOND
        omega = compressor.omega(m.dimension)
        each = charged_bytes(compressor, m.dimension, m.model_bytes)
        tau = numpy.array([m.link_seconds(i, each) for i in range(1, m.n + 1)])
        case = [self.constants[name] for name in ("smoothness", "gap", "variance")] + [self.eps]
        return {
            "shadowheart": theory.shadowheart_seconds(h, tau, omega, *case, down),
            "rennala": theory.linked_rennala_seconds(h, up, *case, down),
            "qsgd": theory.qsgd_seconds(h, tau + down, omega, *case),
            "minibatch": theory.linked_minibatch_seconds(h, up + down, *case),
            "asgd": theory.linked_asgd_seconds(h, up + down, *case),
            "sgd_one": theory.sgd_one_seconds(h, *case),
            "gain": theory.compression_gain(h, up, down, tau, omega, *case[2:]),
        }

    @cached_property
    def own(self):
        """{label: the parameters that theory would take for the headline target}, where it says which."""
        if self.eps is None or self.machine is None:
            return {}
        methods = {cell.label: cell for cell in self.cells if cell.algorithm_name in FORMS}
        machines = {label: replace(self.machine, cell=cell) for label, cell in methods.items()}
        forms = {label: FORMS[cell.algorithm_name](cell.algorithm, machines[label]) for label, cell in methods.items()}
        own = {label: form.own(self.constants["smoothness"], self.constants["variance"], self.eps)
               for label, form in forms.items()}  # fmt: skip
        return {label: parameters for label, parameters in own.items() if parameters}

    def seconds(self, prediction):
        """Predicted seconds to the headline target, or None."""
        return prediction and prediction["targets"][place(self.experiment.settings.targets)]["seconds"]

    def best(self):
        """{label: the least predicted seconds to the headline target of a point of its grid}, where there are any."""
        found = {}
        for cell, prediction in zip(self.cells, self.predictions, strict=True):
            seconds = self.seconds(prediction)
            if seconds is not None:
                found[cell.label] = min(seconds, found.get(cell.label, math.inf))
        return dict(sorted(found.items(), key=lambda item: item[1]))


def place(targets):
    """Which of the targets the headline is."""
    return targets.values.index(targets.headline)


def outlook(experiment):
    """The Outlook of an `mpibench.experiment.Experiment`."""
    cells, seed, targets = experiment.cells(), experiment.settings.seeds[0], experiment.settings.targets
    constants, *model = constants_of(experiment.problem, experiment.settings.workers, seed)
    modelled = [cell for cell in cells if cell.algorithm_name in FORMS and cell.compute and cell.clock != "native"]
    machines = [Machine(cell, seed, *model) for cell in modelled]
    machines.sort(key=lambda machine: (machine.on_trees, machine.server is None))  # those with a server first
    return Outlook(
        experiment,
        cells,
        predictions(cells, seed),
        machines[0] if machines else None,
        next((machine for machine in machines if machine.on_trees), None),
        constants,
        eps_of(targets.metric, targets.headline, constants),
    )


def warnings(view):
    """What this Outlook says that the experiment cannot show, a sentence each."""
    found = [*biased(view)]
    if view.machine is None and view.cells[0].clock == "native":
        return [*found, "The native clock models no speeds, so theory says nothing before the run."]
    if view.machine is None:
        return [*found, "There is no formula for any of these methods."]
    if len({cell.label for cell in view.cells}) > 1 and view.machine.n > 1 and view.machine.fixed and view.equal:
        found.append("All workers are equally fast: what these methods do about slow workers cannot show.")
    if view.constants["smoothness"] is None:
        return [*found, "The problem does not tell its constants: theory says nothing about the time to a target."]
    if view.eps is None:
        known = view.experiment.settings.targets.metric in EPS
        why = "lies below what is taken for the minimum" if known else "has no ε"
        return [*found, f"The target {view.headline} {why}: theory says nothing about the time to it."]
    about = (inseparable, against_asgd, against_tree_minibatch, against_compression, best_numbers)
    return [*found, *(text for each in about for text in each(view))]


def biased(view):
    """A sentence where methods for equal workers meet workers that differ."""
    labels = list(dict.fromkeys(cell.label for cell in view.cells if cell.biased))
    if labels:
        yield (
            f"The objectives of workers differ, and {listed(labels)} {'is' if len(labels) == 1 else 'are'} biased "
            "there: some workers weigh more. Theory's times are for equal objectives; the target may never be reached, "
            "unless all workers have their minimum in common."
        )


def listed(labels):
    """These in a sentence."""
    return " and ".join(part for part in (", ".join(labels[:-1]), labels[-1]) if part)


def inseparable(view):
    """A sentence for each group of methods whose predicted times are equal within the constants of theory."""
    groups = []
    for label, seconds in view.best().items():  # the fastest first
        if groups and seconds <= INSEPARABLE * groups[-1][0][1]:
            groups[-1].append((label, seconds))
        else:
            groups.append([(label, seconds)])
    for group in groups:
        if len(group) > 1:
            names = listed([label for label, _ in group])
            first, last = group[0][1], group[-1][1]
            yield (
                f"Theory cannot separate {names} at {view.headline}: it gives them {first:.3g} to {last:.3g} s, a "
                f"factor {last / first:.2f}, and its constants are not sharper than {INSEPARABLE}."
            )


def against_asgd(view):
    """A sentence where asynchronous SGD is as good as the methods that improve on it."""
    better = " and ".join(sorted(view.names & OPTIMAL))
    if "async_sgd" in view.names and better and view.gain < 2:
        yield (
            f"{better} can leave async_sgd behind only where workers are far more than σ²/ε, or far apart in speed: "
            f"with {view.machine.n} and σ²/ε = {view.noise_ratio:.3g} the bounds differ by a factor {view.gain:.2f}."
        )


def against_tree_minibatch(view):
    """A sentence where Minibatch SGD is as good on the graph as Fragile SGD, which improves on it."""
    better, other = (" and ".join(sorted(view.names & group)) for group in (FRAGILE, TREE_MINIBATCH))
    if better and other and view.gain_on_trees < 2:
        yield (
            f"{better} can leave {other} behind only where links are slow, or ranks far apart in speed: with "
            f"{view.equilibrium[1]} of {view.on_trees.n} ranks useful at σ²/ε = {view.noise_ratio:.3g}, the bounds "
            f"differ by a factor {view.gain_on_trees:.2f}."
        )


def against_compression(view):
    """A sentence where compressed messages are no use."""
    gain = view.link_bounds.get("gain", math.inf)
    if gain < INSEPARABLE:
        slow = bool((view.machine.down >= view.machine.up).all())
        why = "the way down is as slow as the way up" if slow else "links are too fast, or one worker alone is best"
        yield (
            f"Compression cannot help at {view.headline}, where σ²/ε = {view.noise_ratio:.3g}: {why}; the best bound "
            f"with it is {1 / gain:.2f} of the best one without."
        )


def best_numbers(view):
    """Sentences where the best number of workers is one, or all."""
    if view.on_trees and view.on_trees.n > 1 and view.equilibrium[1] == 1 and view.names & FRAGILE:
        yield (
            f"The pivot is enough at {view.headline}, where σ²/ε = {view.noise_ratio:.3g}: the others are too far away "
            "to add speed; more noise, a lower target or faster links need them."
        )
    if not view.with_server:
        return
    n, names = view.machine.n, view.names
    if n > 1 and view.useful_workers == 1:
        yield (
            f"One worker is enough at {view.headline}, where σ²/ε = {view.noise_ratio:.3g}: the others add no speed, "
            "and methods differ by how they ignore them; more noise or a lower target needs them."
        )
    if n > 1 and view.best_quorum == n and "m_sync_sgd" in names and not view.equal:
        yield (
            f"m_sync_sgd does best with all {n} workers at {view.headline}, where σ²/ε = {view.noise_ratio:.3g}: then "
            "it is minibatch_sgd."
        )


# For people, and for programs.


def plain(view):
    """An Outlook as plain data, for `predict --json`."""
    known = view.with_server and view.eps is not None
    t, useful, pivot = view.equilibrium if view.on_trees and view.eps is not None else (None, None, None)
    targets = view.experiment.settings.targets
    return {
        "experiment": view.experiment.settings.name,
        "workers": view.experiment.settings.workers,
        "seed": view.experiment.settings.seeds[0],
        "constants": view.constants,
        "headline": {
            "metric": targets.metric,
            "value": targets.headline,
            "eps": view.eps,
            "noise_ratio": view.noise_ratio if view.machine is not None and view.eps is not None else None,
            "best_quorum": view.best_quorum if known else None,
            "useful_workers": view.useful_workers if known else None,
            "best_pivot": pivot,
            "useful_ranks": useful,
            "equilibrium_seconds": t,
        },
        "link_bounds": view.link_bounds,
        "own_parameters": view.own,
        "cells": [
            {
                "algorithm": cell.label,
                "parameters": cell.parameters,
                "hash": cell.hash[:16],
                "prediction": prediction,
            }
            for cell, prediction in zip(view.cells, view.predictions, strict=True)
        ],
        "warnings": warnings(view),
    }


def text_of(view):
    """An Outlook for people: theory's own parameters of each method, and a row for each point of its grid that differs
    by more than step sizes."""
    targets = view.experiment.settings.targets
    best = next(iter(view.best().values()), None)
    rows = [["", "", "", "s/update", "", "updates", "s to", *[""] * (len(targets.values) - 1), "to the"]]
    marks = [f"{value:g}{'*' if value == targets.headline else ''}" for value in targets.values]
    rows.append(["method", "parameters", "least", "expected", "most", f"to {marks[place(targets)]}", *marks, "best"])
    seen = set()
    for cell, prediction in zip(view.cells, view.predictions, strict=True):
        shape = words({k: v for k, v in cell.parameters.items() if not k.endswith("stepsize")})
        if cell.label in view.own and (cell.label,) not in seen:
            rows.append([cell.label, f"theory: {words(view.own[cell.label])}"])
        if (cell.label, shape) not in seen:
            rows.append([cell.label, shape, *figures(prediction, targets, best)])
        seen |= {(cell.label,), (cell.label, shape)}
    lines = [introduction(view), "", *aligned(rows), *of_links(view), ""]
    if view.best():
        lines.append("* headline target. Seconds are for theory's step sizes, up to a constant: compare them.")
    return "\n".join([*lines, *(f"warning: {text}" for text in warnings(view))]).rstrip()


def of_links(view):
    """The bounds with links in a line, the least first."""
    bounds = sorted(((s, name) for name, s in view.link_bounds.items() if name != "gain"))
    said = ", ".join(f"{name} {seconds:.4g}" for seconds, name in bounds)
    return ["", f"with links, seconds to {view.headline} up to a constant: {said}"] if bounds else []


def figures(prediction, targets, best):
    """The numbers of a prediction in a row of the table."""
    if prediction is None:
        return ["no prediction"]
    seconds = prediction["update_seconds"]
    rows = prediction["targets"]
    headline = rows[place(targets)]
    ratio = headline["seconds"] / best if headline["seconds"] is not None else None
    times = [seconds[key] for key in ("least", "expected", "most")]
    return [short(v) for v in (*times, headline["updates"], *(row["seconds"] for row in rows), ratio)]


def short(value):
    """A number in at most four digits, or nothing."""
    return "-" if value is None else f"{value:.4g}"


def words(parameters):
    """Parameters in a line; of a compressor its name and numbers."""
    said = []
    for key, value in parameters.items():
        if isinstance(value, dict):
            numbers = [f"{k}={v}" for k, v in value.items() if k != "name" and not isinstance(v, bool)]
            value = f"{value.get('name')}({', '.join(numbers)})"
        said.append(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    return " ".join(said)


def introduction(view):
    """The machine, the problem and the headline target in three lines."""
    settings, constants = view.experiment.settings, view.constants
    lines = [f"{settings.name}: {settings.workers} workers, seed {settings.seeds[0]}"]
    if view.machine is not None:
        times = view.machine.cycles if view.with_server else view.machine.h
        what = "from gradient to gradient" if view.with_server else "a gradient"
        kind = "" if view.machine.fixed else ", on average"
        lines[0] += f", {times.min():.4g} to {times.max():.4g} s {what}{kind}"
    if view.on_trees is not None:
        lines[0] += f", up to {view.on_trees.seconds_between.max():.4g} s from rank to rank"
    if constants["smoothness"] is not None:
        kind = "exact" if constants["exact"] else "estimated at the start"
        numbers = (constants[name] for name in ("smoothness", "gap", "variance"))
        lines.append("problem: L = {:.4g}, f(x0) - f* = {:.4g}, σ² = {:.4g} ({})".format(*numbers, kind))
    if view.eps is not None and view.machine is not None:
        lines.append(f"target: {view.headline}, ε = {view.eps:.4g}, σ²/ε = {view.noise_ratio:.4g}")
        if view.with_server:
            lines[-1] += f"; best m of m-synchronous SGD {view.best_quorum}, useful workers {view.useful_workers}"
        if view.on_trees is not None:
            t, useful, pivot = view.equilibrium
            lines[-1] += f"; best pivot {pivot} with {useful} useful ranks, t* = {t:.4g} s"
    return "\n".join(lines)


def aligned(rows):
    """Rows of texts as lines with columns under each other, numbers to the right."""
    columns = max(map(len, rows))
    padded = [row + [""] * (columns - len(row)) for row in rows]
    whole = [row for row in padded if not row[1].startswith("theory:")]  # these run over the columns beside them
    widths = [max(len(row[c]) for row in whole) for c in range(columns)]
    lines = []
    for row in padded:
        cells = [text.ljust(w) if c < 2 else text.rjust(w) for c, (text, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
