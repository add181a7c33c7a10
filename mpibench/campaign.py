"""All runs of an experiment: tuning, order, files. A team of one process or of all MPI ranks works on it together."""

import json
import math
import os
import signal
import statistics
import sys
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

import numpy

from mpibench import checks, ledger, measuring, prediction, provenance, record, restart, runner, verify
from mpibench.errors import DiskFull, InvalidInput
from mpibench.experiment import Experiment
from mpibench.seeds import Purpose
from mpibench.trials import Trials

AGAIN = 75  # exit code of what was interrupted in good order: run me again

MOST_VALIDATED = 20_000  # gradients of an emulated run that is repeated in virtual time


class Alone:
    """A team of one process: the part of a communicator's interface that is used here."""

    rank, size = 0, 1

    def bcast(self, value):
        """The value itself."""
        return value

    def allgather(self, value):
        """The list of the one value."""
        return [value]


def on_root(team, function, *arguments):
    """Call on rank 0 and give every rank the value, or the same error of the user's."""
    outcome = None, None
    if team.rank == 0:
        try:
            outcome = function(*arguments), None
        except (InvalidInput, DiskFull) as error:
            outcome = None, error
    value, error = team.bcast(outcome)
    if error is not None:
        raise error
    return value


def agree(team, what, value):
    """Refuse ranks that do not hold the same value as rank 0."""
    values = team.allgather(value)
    different = [rank for rank, other in enumerate(values) if other != values[0]]
    if different:
        ranks = ", ".join(map(str, different))
        raise InvalidInput(f"ranks disagree about {what}: rank 0 and rank {ranks} differ; start all ranks alike")


class Campaign:
    """The runs of an experiment on a team; `say(text)` prints a line of progress on rank 0."""

    def __init__(self, team, experiment, out="results", say=print):
        self.team, self.experiment, self.out, self.say = team, experiment, Path(out), say
        restart.Signal.heeded = experiment.settings.engine == "mpi"
        self.oracles, self.validated = {}, set()  # by the hashes of cells
        self.expected = None  # of the run that runs, by theory
        began = provenance.rank(team.rank).get("process_started")
        self.started = time.time() - began if began else math.nan  # seconds: interpreter, imports, start of MPI
        self.order = {}  # label, cell and seed of a run -> its place in the plan
        self.tuned = {}  # label -> what /config/tuning says
        self.slower = 1.0  # than reckoned, the pace that emulations have needed here so far

    @classmethod
    def together(cls, team, read, *arguments, **settings):
        """A campaign on the experiment that rank 0 reads with `read(*arguments)`."""
        agree(team, "the command line", [str(argument) for argument in arguments])
        agree(team, "the code of mpibench", provenance.source_hash())
        agree(team, "the versions of packages", provenance.packages_hash())
        resolved = on_root(team, lambda: read(*arguments).resolved)
        return cls(team, Experiment.from_resolved(resolved), **settings)

    def check_ranks(self):
        """Refuse a team that is too small, and one of several where the engine is one process."""
        if self.experiment.settings.engine == "simulation":
            if self.team.size > 1:
                raise InvalidInput("engine simulation is one process: start it without mpirun, or add --engine mpi")
            return
        needed = max(cell.ranks for cell in self.experiment.cells())
        if self.team.size < needed:
            raise InvalidInput(
                f"the experiment needs {needed} ranks for {self.experiment.settings.workers} workers, and there "
                f"{'is' if self.team.size == 1 else 'are'} {self.team.size}; start it with `mpirun -n {needed}`"
            )

    def tuned_cells(self, chosen=slice(None), resume=False):
        """The cells that tuning leaves, one of each algorithm, or those of them in `chosen`; only these are tuned."""
        labels = [method.label for method in self.experiment.methods][chosen]
        best = self.tune(labels, resume)
        others = {cell.label: cell for cell in self.experiment.trials() if cell.label not in labels}
        return [cell for cell in self.experiment.cells(others | best) if cell.label in labels]

    def tune(self, labels=None, resume=False):
        """Choose a point of each grid on the tuning seeds, of these methods or of all. Returns label -> chosen cell.

        The best has the least median time to the headline target, then the best median of the last value. What is
        found is kept (`mpibench.trials`); with `resume` it is not computed again.
        """
        trials = [cell for cell in self.experiment.trials() if labels is None or cell.label in labels]
        if not trials:
            return {}
        name = self.experiment.settings.name
        kept = on_root(self.team, Trials.read, self.out / name) if resume else {}
        runs = [(number, seed) for number, cell in enumerate(trials) for seed in cell.seeds]
        found = {run: kept[key] for run in runs if (key := (trials[run[0]].hash, run[1])) in kept}
        missing = [run for run in runs if run not in found]
        what = f"{len(trials)} trials on {len(trials[0].seeds)} other seeds, in {trials[0].clock} time"
        self.say(f"tuning: {what}{f', {len(found)} runs of them known' if found else ''}")
        with Trials(self.out / name, self.team.rank) as file:
            if trials[0].engine == "simulation":
                mine = {}
                for run in missing[self.team.rank :: self.team.size]:
                    if restart.Signal.asked:
                        break
                    mine[run] = self.timed_trial(trials[run[0]], run[1], file)
                found |= {run: value for part in self.team.allgather(mine) for run, value in part.items()}
                if any(self.team.allgather(restart.Signal.asked)):
                    raise runner.Interrupted
            else:
                found |= {run: self.team.bcast(self.timed_trial(trials[run[0]], run[1], file)) for run in missing}
        chosen = {}
        for label in dict.fromkeys(cell.label for cell in trials):
            rows, seconds = [], 0.0
            for number, cell in enumerate(trials):
                if cell.label == label:
                    times, last, core = zip(*(found[number, seed] for seed in cell.seeds), strict=True)
                    rows.append({"parameters": cell.parameters, "seconds": times, "last": last, "number": number})
                    seconds += sum(core)
            best = min(rows, key=lambda row: [statistics.median_high(row[key]) for key in ("seconds", "last")])
            chosen[label] = trials[best["number"]]
            self.tuned[label] = {
                "seeds": list(trials[0].seeds),
                "trials": [{key: row[key] for key in ("parameters", "seconds", "last")} for row in rows],
                "chosen": best["parameters"],
                "rule": "least median seconds to the headline target, then best median of the last value",
                "at_the_edge": at_the_edge(best["parameters"], [row["parameters"] for row in rows]),
                "core_seconds": seconds,
            }
            edge = self.tuned[label]["at_the_edge"]
            warning = f"; {', '.join(edge)} at the edge of its grid: widen it" if edge else ""
            self.say(f"  {label}: {best['parameters']} of {len(rows)} trials{warning}")
        return chosen

    def timed_trial(self, cell, seed, file):
        """(seconds to the headline target, the last value as a cost, core-seconds) of a trial, kept in `file`."""
        began = time.process_time()
        found = self.trial(cell, seed)
        seconds = time.process_time() - began
        if cell.engine == "mpi":
            seconds = sum(self.team.allgather(seconds))
        if found is None:
            return None
        file.keep(cell.hash, seed, (*found, seconds))
        return (*found, seconds)

    def trial(self, cell, seed):
        """(seconds to the headline target, the last value as a cost) of a trial."""
        result = self.run_engine(cell, seed, None)
        if result is None:
            return None
        last = float(result.trace[cell.targets.metric][-1])
        cost = last if result.metrics[cell.targets.metric] == "lower" else -last
        return result.time_to(cell.targets.metric, cell.targets.headline), math.inf if math.isnan(cost) else cost

    def run_engine(self, cell, seed, show, restart=None):
        """The Result, on rank 0."""
        if cell.engine == "simulation":
            return runner.simulate(cell, seed, show)
        result, self.slower = runner.emulate(self.team, cell, seed, self.slower, restart)
        return result

    def restart_of(self, cell, seed):
        """Where a run on the native clock that was interrupted goes on, or None."""
        place = record.place(self.out, cell.name, cell.label, cell.hash, seed, "*")
        for part in sorted(place.parent.glob(f"{place.name}.part"), reverse=True) if cell.clock == "native" else ():
            if (found := restart.read(part, runner.Result.empty(cell, seed))) is not None:
                return found
        return None

    def plan(self, cells):
        """(cell, seed) in the order of the runs: A B C, C B A, ..., so that drift of the machine meets all alike."""
        seeds = self.experiment.settings.seeds
        return [(cell, seed) for turn, seed in enumerate(seeds) for cell in (cells[::-1] if turn % 2 else cells)]

    def present(self, cell, seed):
        """The complete files of this cell and seed."""
        place = record.place(self.out, cell.name, cell.label, cell.hash, seed, "*")
        return [path for path in sorted(place.parent.glob(place.name)) if record.is_complete(path)]

    def unfinished(self, cell, seed):
        """The parts of this cell and seed: of runs that were cut off or have failed."""
        place = record.place(self.out, cell.name, cell.label, cell.hash, seed, "*")
        return sorted(place.parent.glob(f"{place.name}.part"))

    def failed(self, cell, seed):
        """Whether a run of this cell and seed has failed: its part says so, or nothing of how it ended."""
        return any(record.outcome_of(part) in (None, "fault", "watchdog") for part in self.unfinished(cell, seed))

    def run(self, cells, resume=False, force=False, progress=None, skip_failed=False):
        """Run all. `resume` skips what has a file, `skip_failed` also what has failed, `force` runs it beside. Returns
        [(path, outcome)] on rank 0."""
        plan = self.plan(cells)
        have = on_root(self.team, lambda: [bool(self.present(cell, seed)) for cell, seed in plan])
        if any(have) and not (resume or force):
            raise InvalidInput(
                f"{sum(have)} of {len(plan)} runs have a result in {self.out}; add --resume to keep them and run the "
                "rest, --force to run them again beside the old ones, or --out for another folder"
            )
        failed = on_root(self.team, lambda: [skip_failed and self.failed(cell, seed) for cell, seed in plan])
        self.ranks = self.team.allgather(provenance.rank(self.team.rank))
        self.order = {
            (cell.label, cell.hash, seed): {"block": place // len(cells), "position": place % len(cells)}
            for place, (cell, seed) in enumerate(plan)
        }
        if biased := ", ".join(dict.fromkeys(cell.label for cell in cells if cell.biased)):
            self.say(f"biased on this problem, whose workers differ, and run all the same: {biased}")
        self.check([cell for (cell, _), there in zip(plan, have, strict=True) if not (there and resume)])
        done = []
        for (cell, seed), there, lost in zip(plan, have, failed, strict=True):
            if self.experiment.settings.engine == "mpi" and any(self.team.allgather(restart.Signal.asked)):
                raise runner.Interrupted
            if there and resume:
                self.say(f"{cell.label} seed {seed}: has a result")
            elif lost:
                self.say(f"{cell.label} seed {seed}: has failed before")
            else:
                done.append(self.one(cell, seed, on_root(self.team, self.restart_of, cell, seed) if resume else None))
            if progress is not None:
                progress()
        return done

    def check(self, cells):
        """Hold each of these cells to the serial oracle, shared out over the team: a row of /checks by its hash."""
        distinct = list({cell.hash: cell for cell in cells}.values())
        mine = {}
        for cell in distinct[self.team.rank :: self.team.size]:
            dimension = prediction.constants_of(cell.problem, cell.workers, cell.seeds[0])[2]
            mine[cell.hash] = checks.oracle(cell, dimension)
        self.oracles = {digest: row for part in self.team.allgather(mine) for digest, row in part.items()}
        labels = dict.fromkeys(cell.label for cell in distinct if self.oracles[cell.hash]["passed"] == 0)
        if labels:
            self.say(f"not where the serial oracle is, so tables will print no times: {', '.join(labels)}")

    def evidence(self, cell, seed, result):
        """The rows of /checks of a run, its plausibility, and on the first seed of an emulated cell its validation."""
        constants = prediction.constants_of(cell.problem, cell.workers, seed)[0]
        said, rows = checks.plausibility(result, self.expected)
        rows = [self.oracles[cell.hash], *checks.invariants(cell, result), *rows]
        rows += checks.band(cell, result, self.tuned.get(cell.label), constants.get("minimum"))
        validation = None
        few = result.ranks["gradients"].sum() <= MOST_VALIDATED
        if cell.clock == "emulated" and cell.hash not in self.validated and few:
            self.validated.add(cell.hash)
            row, validation = checks.validation(cell, seed, result)
            rows.append(row)
        return rows, said, validation

    def one(self, cell, seed, go_on=None):
        """One run and its file; `go_on`: from this Restart."""
        if go_on is not None:
            self.say(f"{cell.label} seed {seed}: goes on after {go_on.seconds:.6g} s")
        files = []
        on_root(self.team, lambda: files.append(self.open(cell, seed)))
        with files[0] if files else nothing():
            show = None
            if files and cell.engine == "simulation":
                show = lambda snapshot: files[0].append("trace", row_of(snapshot))  # noqa: E731
            try:
                result = self.run_engine(cell, seed, show, go_on)
            except SystemExit as ended:  # by a signal: the run is cut off
                if files:
                    number = signal.SIGUSR1 if ended.code == AGAIN else ended.code - 128
                    files[0].put("/", attrs={"outcome": "walltime", "error": f"ended by signal {int(number)}"})
                raise
            if self.team.bcast(bool(result is not None and result.points)):
                on_root(self.team, lambda: keep(files[0], cell, result))
                raise runner.Interrupted
            self.loads = self.team.allgather(provenance.load())
            outcome = on_root(self.team, lambda: self.finish(files[0], cell, seed, result))
        if self.team.rank == 0:
            seconds = result.time_to(cell.targets.metric, cell.targets.headline)
            reached = f"{cell.targets.metric} {cell.targets.headline:g} after {seconds:.6g} s"
            shown = reached if outcome == "reached" else f"censored ({outcome}) at {result.attrs['seconds']:.6g} s"
            self.say(f"{cell.label} seed {seed}: {shown}; {files[0].path}")
            return files[0].path, outcome
        return None, outcome

    def finish(self, file, cell, seed, result):
        """Write all that a run has left and what speaks for it."""
        rows, plausibility, validation = self.evidence(cell, seed, result)
        file.put("/", attrs={"plausibility": plausibility})
        file.put("checks", {name: [row[name] for row in rows] for name in rows[0]})
        if validation is not None:
            file.put("checks", {"validation": validation})
        ended = self.loads[: cell.ranks]
        columns = {f"{name}_at_the_end": [load[name] for load in ended] for name in ended[0]}
        known = {name: values for name, values in columns.items() if None not in values}
        file.put("provenance/ranks", known)
        file.put("provenance", {"phases": {"start_of_the_process": self.started} | result.phases})
        return finish(file, cell, result)

    def open(self, cell, seed):
        """The file of a run, with all that is known before it."""
        raw = self.experiment.resolved
        run = record.run_id()
        attrs = {
            "run_id": run,
            "experiment": cell.name,
            "algorithm": cell.label,
            "parameters": cell.parameters,
            "engine": cell.engine,
            "clock": cell.clock,
            "workers": cell.workers,
            "ranks": cell.ranks,
            "seed": seed,
            "cell": cell.hash[:16],
            "final_model": final_model(cell),
            "stop_stale": getattr(cell.algorithm, "stop_stale", None),
            "heterogeneous": cell.heterogeneous,
            "biased": cell.biased,
            "budget_seconds": cell.stop.seconds or math.inf,
            "clock_rule": measuring.RULE[cell.clock],
            "begun_before": len(self.unfinished(cell, seed)) or None,
        }
        config = {
            "resolved": cell.resolved,
            "raw": raw["raw"],
            "overrides": raw["overrides"],
            "seeds": {purpose.name.lower(): [seed, purpose.value] for purpose in Purpose},
            "tuning": self.tuned.get(cell.label, {}),
            "hash": cell.hash,
            "measuring": cell.resolved["measuring"] | measuring.rules(cell, seeds_of(raw) or cell.seeds),
            "pairing": measuring.pairing(cell, seed),
            "order": self.order.get((cell.label, cell.hash, seed), {}),
        }
        facts = {
            "code": provenance.code(),
            "packages": provenance.packages(),
            "env": provenance.environment(),
            "scheduler": provenance.scheduler(),
            "agreement": {"code": provenance.source_hash(), "packages": provenance.packages_hash()},
            "ranks": self.ranks[: cell.ranks],
        }
        if cell.engine == "mpi":
            facts |= {"mpi": mpi_facts(), "network": provenance.network()}
        place = record.place(self.out, cell.name, cell.label, cell.hash, seed, run)
        self.expected = prediction.predict(cell, seed)
        return record.RunFile(place, attrs, config, facts, self.expected)


def final_model(cell):
    """Whose model the trace shows."""
    if shown := getattr(cell.algorithm, "final_model", None):
        return shown
    if cell.algorithm.worker_number(0) == 0:
        return "the server's"
    if runner.of_the_mean(cell):
        return "the mean of all ranks"
    return "the pivot's" if hasattr(cell.algorithm, "pivot") else "rank 0's"


def at_the_edge(chosen, tried):
    """The numbers that are the least or the greatest of three or more tried: the optimum may lie beyond."""
    found = []
    for name, value in chosen.items():
        if type(value) in (int, float):
            values = {parameters[name] for parameters in tried}
            if len(values) > 2 and value in (min(values), max(values)):
                found.append(name)
    return found


def seeds_of(raw):
    """The seeds in the experiment's file, whatever the command line has chosen of them."""
    try:
        return tomllib.loads(raw["raw"])["experiment"]["seeds"]
    except (tomllib.TOMLDecodeError, KeyError):
        return None


@contextmanager
def nothing():
    """The place of a file on ranks that write none."""
    yield


def row_of(snapshot):
    """A snapshot as columns of /trace."""
    gradients, messages, size, bits = snapshot.counters
    counters = {"gradients": [round(gradients)], "messages": [messages], "bytes": [size], "bits": [bits]}
    settled = {"discarded": [snapshot.settled[1]]}
    point = {"time": [snapshot.seconds], "iteration": [snapshot.iteration], "updates": [snapshot.updates]}
    return point | settled | counters | {name: [float(value)] for name, value in snapshot.metrics.items()}


def keep(file, cell, result):
    """Write what an interrupted run has left, and where it can go on, into its part."""
    write(file, cell, result)
    restart.write(file, result, result.points)
    file.put("/", attrs=result.attrs | {"outcome": "walltime", "error": "interrupted; --resume goes on from here"})


def finish(file, cell, result):
    """Write what a run has left and give the file its final name. Returns the outcome."""
    write(file, cell, result)
    file.finish(verify.stamp, **result.attrs)
    return result.attrs["outcome"]


def write(file, cell, result):
    """Write what a run has left."""
    if cell.engine == "mpi":  # a simulation has appended its trace as it went
        file.append("trace", result.trace)
    for name, better in result.metrics.items():
        file.put(f"trace/{name}", attrs={"direction": better})
    file.put("updates", result.updates)
    file.put("updates/staleness_histogram", attrs={"open": int(len(result.updates["staleness_histogram"]) > 1 << 16)})
    file.put("ranks", result.ranks)
    server = 0 if cell.algorithm.worker_number(0) == 0 else None
    for group, (datasets, attrs) in ledger.tables(result.ledger, result.received, server).items():
        file.put(f"bytes/{group}".rstrip("/"), datasets, attrs)
    if result.events:
        file.put("events", result.events, {"tags": result.tags})
    if len(result.ages):
        columns = dict(zip(("source", "destination", "count", "age_sum", "age_max"), result.ages.T, strict=True))
        columns |= dict(zip(("seconds_sum", "seconds_max"), result.ages_seconds.T[3:], strict=True))
        file.put("ages", columns)
    file.put("provenance", {"data": result.data})
    file.put("trace", attrs={"snapshots": "at the boundary of a step of the observer" if server is not None else
                             "what each rank last showed, at the instants of a common grid"})  # fmt: skip
    if result.clock:
        attrs = {"start_spread_seconds": result.clock.pop("start_spread_seconds")}
        span = result.clock["stop_seconds"].max() - result.clock["start_seconds"].min()
        attrs |= {"stop_spread_seconds": float(numpy.ptp(result.clock["stop_seconds"])), "span_seconds": float(span)}
        file.put("clock", result.clock, attrs)
    if result.steps:
        file.put("steps", *result.steps)
    if result.delays:
        file.put("delays", *result.delays)
    elif cell.clock == "virtual":
        busy = result.ranks.get("busy_seconds", [])
        model = {name: cell.resolved["heterogeneity"].get(name) for name in ("compute", "links")}
        file.put("delays", {"requested_seconds": busy, "realised_seconds": busy}, {"model": model})
    schedule = {"loss": cell.resolved["heterogeneity"]["loss"]}
    compute = cell.resolved["heterogeneity"].get("compute") or {}
    schedule |= {name: compute[name] for name in ("straggler", "stall") if compute.get(name)}
    lost = int(numpy.sum(result.ranks.get("messages_lost", 0)))
    attrs = {"schedule": schedule, "messages_lost": lost, "seconds_given_up": result.phases.get("given_up", 0.0)}
    file.put("faults", attrs=attrs)
    if result.fidelity:
        file.put("fidelity", attrs=result.fidelity)
    if result.interrupted:
        file.put("/", attrs={"restarts": len(result.interrupted)})
        file.put("faults", {"seconds": result.interrupted, "kind": ["interrupted"] * len(result.interrupted)})


def mpi_facts():
    """What MPI says of itself."""
    import mpi4py
    from mpi4py import MPI

    levels = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized"}
    return {
        "library": MPI.Get_library_version().strip("\0\n "),
        "standard": ".".join(map(str, MPI.Get_version())),
        "vendor": list(map(str, MPI.get_vendor())),
        "threads": levels.get(MPI.Query_thread(), "multiple"),
        "mpi4py": mpi4py.__version__,
        "build": {key: str(value) for key, value in mpi4py.get_config().items()},
        "device_buffers": "staged through host memory",
        "device_buffers_tested": "no: device memory is never handed to MPI",
        "progress": {"by": "the thread that runs the method", "threads": 0, "polling_seconds_at_most": 1e-3},
        "launch_line": provenance.launch_line(),
        "process_manager": next((name for name in ("PMIX_RANK", "PMI_RANK") if name in os.environ), "unknown"),
    }


def end_on_signals():
    """SIGTERM and SIGUSR1 end the run as an exception does, so that its file says so; but SIGUSR1, which comes before a
    time limit, lets a run over MPI come to a safe point."""

    def end(number, frame):
        if number == signal.SIGUSR1 and restart.Signal.heeded:
            restart.Signal.come()
        else:
            sys.exit(AGAIN if number == signal.SIGUSR1 else 128 + number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, end)


def dry(experiment):
    """What would run: plain data for --dry-run."""
    cells = experiment.cells()
    settings = experiment.settings
    runs = len(settings.seeds) * (len(cells) if experiment.tuning is None else len(experiment.methods))
    ranks = max(cell.ranks for cell in cells)
    seconds = settings.stop.seconds
    labels = [method.label for method in experiment.methods]
    rows = [
        {
            "cell": labels.index(cell.label) if experiment.tuning else number,  # tuning leaves one of each algorithm
            "algorithm": cell.label,
            "parameters": cell.parameters,
            "ranks": cell.ranks,
            "hash": cell.hash[:16],
        }
        for number, cell in enumerate(cells)
    ]
    return {
        "experiment": settings.name,
        "engine": settings.engine,
        "clock": cells[0].clock,
        "ranks": ranks if settings.engine == "mpi" else 1,
        "cells": rows,
        "runs": runs,
        "trials": len(experiment.trials()) * len(experiment.tuning.seeds) if experiment.tuning else 0,
        "core_hours_at_real_pace": runs * ranks * seconds / 3600 if seconds and settings.engine == "mpi" else None,
    }


def text_of(plan):
    """A dry plan for people."""
    head = f"{plan['experiment']}: engine {plan['engine']}, {plan['clock']} clock, {plan['ranks']} ranks"
    cells = ["  {cell:>3}  {hash}  {algorithm}  ".format(**r) + json.dumps(r["parameters"]) for r in plan["cells"]]
    tail = f"{len(plan['cells'])} cells, {plan['runs']} runs"
    if plan["trials"]:
        tail += f" after {plan['trials']} of tuning, which chooses one cell of each algorithm"
    if plan["core_hours_at_real_pace"]:
        tail += f", {plan['core_hours_at_real_pace']:.3g} core-hours where modelled time passes like real time"
    return "\n".join([head, *cells, tail])
