"""What a run must pass before its times count: /checks, a row each with its value and the largest value that passes.

oracle        the method itself, with its parameters, workers and links, in virtual time on a quadratic without noise
              whose minimum is known: how far from it, as a share of the start's distance, it comes. The curvature is
              scaled to the step size, so it says whether the method minimises, not whether its step size suits.
invariants    what must hold of any run: messages sent have been received, are lost or in flight; gradients used and
              discarded were computed; mixing weights sum to one; accepted delays are below the threshold
band          what the run's metric came to in its last quarter, against where the trials of tuning ended in virtual
              time on other seeds; against its start where these are few or were stopped at a value of the metric
minimum       nobody is below the minimum
plausibility  nobody is faster than theory allows: see `plausibility`

`passed` is 1, 0, or -1 where a check could not be decided, and `note` says why.
"""

import math
from dataclasses import dataclass, replace

import numpy

from mpibench import runner
from mpibench.experiment import Snapshot, Stop, Targets
from mpibench.heterogeneity import Loss
from mpibench.node import SECOND
from mpibench.profiles import PROFILES
from mpibench.weights import metropolis, uniform_column, uniform_row

CLOSE = 0.05  # of the distance at the start
GRADIENTS = 30_000  # that an attempt may compute; more where links are slow, for a step takes longer there
MOST_WORKERS = 64  # without a graph; more are not needed to see whether a method minimises
MOST_COORDINATES = 2000
STEPS = (0.3, 0.03, 0.003)  # step size times curvature, one attempt after the other
WIDTH = 3  # of the band on either side, in ranges of the trials
FEWEST_TRIALS, NARROWEST = 3, 0.05  # for a band; its half width at least, as a share of what the trials came to
TOO_FAST = 0.99  # of the least seconds per update by theory


def row(name, value, tolerance, passed=None, note=""):
    """A check as a row of /checks."""
    passed = value <= tolerance if passed is None else passed
    return {"name": name, "value": float(value), "tolerance": float(tolerance), "passed": int(passed), "note": note}


@dataclass(frozen=True)
class Bowl:
    """f(x) = Σ c_j (x_j - x*_j)²/2 without noise, the same for all workers; c_j between half and all of `curvature`."""

    dimension: int
    curvature: float
    metrics = {"distance": "lower"}
    provenance = {"name": "bowl"}

    def prepare(self, workers, seed):
        return self

    @property
    def model_bytes(self):
        return 8 * self.dimension

    def start(self):
        return numpy.zeros(self.dimension)

    @property
    def minimiser(self):
        """x*, by formula: the serial oracle."""
        return numpy.cos(numpy.arange(self.dimension))

    def objective(self, i):
        return self

    def sample(self):
        return 0.0

    def gradient(self, x, ξ):
        return self.curvature * numpy.linspace(0.5, 1.0, self.dimension) * (x - self.minimiser)

    def evaluate(self, x):
        gone = numpy.linalg.norm(x - self.minimiser) / numpy.linalg.norm(self.minimiser)
        return {"distance": float(gone)}


def oracle(cell, dimension):
    """The row of the oracle of a cell; `dimension` of its problem."""
    try:
        value = math.inf
        for attempt in _attempts(cell, min(dimension, MOST_COORDINATES)):
            value = min(value, _attempt(attempt))
            if value <= CLOSE:
                break
    except Exception as error:  # a method that needs more than a node in virtual time has
        why = f"cannot run in virtual time on a quadratic: {type(error).__name__}: {error}".partition("\n")[0]
        return row("oracle", math.nan, CLOSE, -1, why)
    slow = "" if value <= CLOSE else "not there in the time and with the gradients of an attempt"
    return row("oracle", value, CLOSE, (value <= CLOSE) or (-1 if value < 0.9 else 0), slow)


def _attempts(cell, dimension):
    """The cells of the attempts, one for each curvature."""
    workers, compute = cell.workers, cell.compute
    if compute is None or (cell.graph is None and workers > MOST_WORKERS):
        workers, compute = min(workers, MOST_WORKERS), PROFILES["equal"]()
    γ = getattr(cell.algorithm, "stepsize", 1.0)
    longest = float(numpy.max(compute.mean_seconds(workers)))
    link = _slowest_link(replace(cell, workers=workers), Bowl(dimension, 1.0))
    patience = round(GRADIENTS * min(4, max(1, link / longest)))
    stop = Stop(seconds=2000 * max(longest, link), gradients=patience, metrics={"distance": CLOSE})
    targets = Targets("distance", (CLOSE,), CLOSE)
    for step in (*STEPS, 0.3 / workers):
        bowl = Bowl(dimension, step / γ)
        yield replace(
            cell, engine="simulation", clock="virtual", workers=workers, compute=compute, loss=Loss(), problem=bowl,
            stop=stop, snapshot=Snapshot(seconds=longest), targets=targets, record_updates=False, record_events=False,
        )  # fmt: skip


def _slowest_link(cell, bowl):
    """Seconds of a vector on the slowest link."""
    cluster = runner.cluster_of(cell, 0, bowl)
    others = range(1, cell.ranks)
    pairs = cell.graph.edges if cell.graph is not None else [pair for i in others for pair in ((i, 0), (0, i))]
    edges = [cluster.edge(*pair) for pair in pairs]
    return max((e.latency_ns + e.transmission(bowl.model_bytes, 0) for e in edges), default=0) / SECOND


def _attempt(cell):
    return float(numpy.nan_to_num(runner.simulate(cell, 0).trace["distance"][-1], nan=math.inf))


def invariants(cell, result):
    """Rows of what must hold of this run."""
    ranks, found = result.ranks, []
    if {"messages_received", "messages_in_flight"} <= ranks.keys():
        parts = sum(int(ranks[f"messages_{fate}"].sum()) for fate in ("received", "lost", "in_flight"))
        found.append(row("messages sent have a fate", abs(int(ranks["messages_sent"].sum()) - parts), 0))
    if "used" in ranks:
        settled = float(ranks["used"].sum() + ranks["discarded"].sum())
        excess = max(0.0, settled - math.ceil(float(ranks["gradients"].sum())))
        found.append(row("gradients used were computed", excess, 0))
    if cell.graph is not None:
        sums = [uniform_row(cell.graph).matrix.sum(1), uniform_column(cell.graph).matrix.sum(0)]
        if all((j, i) in cell.graph.edges for i, j in cell.graph.edges):
            W = metropolis(cell.graph).matrix
            sums += [W.sum(0), W.sum(1)]
        found.append(row("mixing weights sum to one", max(float(abs(total - 1).max()) for total in sums), 1e-9))
    threshold = getattr(cell.algorithm, "threshold", math.inf)
    if math.isfinite(threshold) and len(result.updates.get("staleness", ())):
        oldest = int(numpy.max(result.updates["staleness"]))
        found.append(row("accepted delays are below the threshold", oldest, threshold - 1))
    return found


def band(cell, result, tuned, minimum):
    """Rows of where the metric of the targets may end, and of the minimum of the loss (None: not known)."""
    metric = cell.targets.metric
    column = numpy.asarray(result.trace[metric], float)
    found = []
    if result.attrs["outcome"] != "diverged" and len(column):
        lower = result.metrics[metric] == "lower"
        best = float(column.min() if lower else column.max())
        chosen = next((t for t in (tuned or {}).get("trials", ()) if t["parameters"] == tuned.get("chosen")), None)
        informative = metric not in cell.stop.metrics  # else trials end where they are stopped, and misses elsewhere
        if informative and chosen and len(chosen["last"]) >= FEWEST_TRIALS and all(map(math.isfinite, chosen["last"])):
            last = numpy.array(chosen["last"]) * (1 if lower else -1)
            middle = float(numpy.median(last))
            width = max(WIDTH * float(numpy.ptp(last)), NARROWEST * abs(middle))
            ending = column[-max(1, len(column) // 4) :]  # a single point may be far off, where steps are large
            near = float(ending[numpy.abs(ending - middle).argmin()])
            note = f"{metric} near its end {near:.6g}; trials of tuning {middle:.6g}, on other seeds in virtual time"
            found.append(row("band", abs(near - middle), width, note=note))
        else:
            worse = best - column[0] if lower else column[0] - best
            found.append(row("band", worse, 0, note=f"best {metric} {best:.6g}, {column[0]:.6g} at the start"))
    if minimum is not None and "loss" in result.metrics:
        least = float(numpy.nanmin(numpy.asarray(result.trace["loss"], float)))
        found.append(row("minimum", minimum - least, 1e-9 * max(1.0, abs(minimum)), note=f"least loss {least:.6g}"))
    return found


def plausibility(result, predicted):
    """Whether the run made its updates no faster than theory allows: the attribute `plausibility`, and its row."""
    least = ((predicted or {}).get("update_seconds") or {}).get("least")
    updates, seconds = int(result.trace["updates"][-1]), float(result.attrs["seconds"])
    if not least or updates < 10:
        return "theory says nothing of it", []
    per_update = seconds / updates
    passed = per_update >= TOO_FAST * least
    note = f"{per_update:.6g} s per update, {least:.6g} s at least by theory"
    said = "as theory allows" if passed else "faster than theory allows"
    return said, [row("plausibility", least / per_update, 1 / TOO_FAST, note=note)]


def validation(cell, seed, result):
    """An emulated run beside the same run in virtual time: the row of /checks, and its hashes as JSON."""
    virtual = runner.simulate(replace(cell, engine="simulation", clock="virtual", record_events=False), seed)
    metric, headline = cell.targets.metric, cell.targets.headline
    ours, theirs = (each.time_to(metric, headline) for each in (result, virtual))
    error = 0.0 if ours == theirs else abs(ours - theirs) / max(ours, theirs)
    error = 1.0 if math.isnan(error) else error
    said = {
        "of": "virtual time", "against": f"MPI, {cell.clock} clock", "seconds": [theirs, ours], "relative_error": error,
        "event_hashes": [virtual.attrs["event_hash"], result.attrs["event_hash"]],
        "model_hashes": [virtual.attrs["model_hash"], result.attrs["model_hash"]],
    }  # fmt: skip
    same = said["event_hashes"][0] == said["event_hashes"][1]
    note = "the same events and bits" if same else "not the same events"
    return row("virtual time agrees with MPI", error, 0.01, note=note), said
