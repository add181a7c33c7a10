"""The linter of result files: whether a file says all that a table needs, and whether what it says fits together.

`verify` reads one file and gives a list of findings, empty where all is well; `verify_set` adds what can only be seen
in several files. A finding is one line. The groups of a file are described in `mpibench.record`.
"""

import io
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mpibench import __version__
from mpibench.experiment import cell_hash
from mpibench.record import SCHEMA, broken_seal, is_sealed

ATTRIBUTES = (
    *("run_id", "experiment", "algorithm", "parameters", "engine", "clock", "workers", "ranks", "seed", "cell"),
    *("final_model", "budget_seconds"),
)
AT_THE_END = ("outcome", "seconds", "event_hash", "model_hash")
OUTCOMES = ("reached", "budget", "diverged", "walltime", "fault", "watchdog")
CLOCKS = {"simulation": ("virtual",), "mpi": ("emulated", "native")}
PROVENANCE = ("code", "packages", "env", "data", "ranks")
CUMULATIVE = ("updates", "gradients", "discarded", "messages", "bytes", "bits")
COUNTERS = ("time", "iteration", *CUMULATIVE)  # the other columns of /trace are metrics
RESOLUTIONS = 10  # a measured interval is at least this many times the clock's resolution,
OVERHEAD = 0.05  # and the cost of reading the clock less than this share of it


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a file."""

    path: str
    check: str
    text: str

    def __str__(self):
        return f"{self.path}: {self.check}: {self.text}"


def verify(path):
    """The findings about one result file, or about the part of a run that was killed."""
    return _Inspection(path).findings


def stamp(file):
    """What the attribute `verified` says of an open file that is about to be sealed."""
    inspection = _Inspection.__new__(_Inspection)
    inspection.path, inspection.findings, inspection.tuning_seeds = "", [], ()
    inspection.pairing = inspection.problem = None
    inspection.look_into(file)
    checks = [check.__name__ for check in CHECKS]
    found = [f"{finding.check}: {finding.text}" for finding in inspection.findings]
    return {"by": __version__, "checks": checks, "findings": found}


def verify_set(paths):
    """The findings about each of these files, and about their seeds and runs together."""
    inspections = [_Inspection(path) for path in paths]
    found = [finding for inspection in inspections for finding in inspection.findings]
    first_of, reported, tuned = {}, defaultdict(dict), defaultdict(dict)
    for inspection in inspections:
        root = inspection.root
        for check, key in (("seeds", ("cell", "seed")), ("runs", ("run_id",))):
            if all(name in root for name in key):
                identity = tuple(root[name] for name in key)
                first = first_of.setdefault((check, identity), inspection.path)
                if first != inspection.path:
                    same = ", ".join(f"{name} {value}" for name, value in zip(key, identity, strict=True))
                    found.append(Finding(inspection.path, check, f"{same} is also that of {first}"))
        if "seed" in root:
            reported[root.get("experiment")].setdefault(root["seed"], inspection.path)
        for seed in inspection.tuning_seeds:
            tuned[root.get("experiment")].setdefault(seed, inspection.path)
    found += _unpaired(inspections)
    for experiment, seeds in tuned.items():
        for seed in sorted(seeds.keys() & reported[experiment].keys()):
            if seeds[seed] != reported[experiment][seed]:  # else found in the file alone
                text = f"seed {seed} of this run was used for tuning in {seeds[seed]}"
                found.append(Finding(reported[experiment][seed], "tuning", text))
    return found


def _unpaired(inspections):
    """Findings about files whose start, samples or delays are not those of other methods on the same seed."""
    firsts = {}
    for inspection in inspections:
        root, said = inspection.root, inspection.pairing
        if said is None:
            continue
        for what, digest in said.items():
            place = root.get("experiment"), root.get("workers"), root.get("clock") == "native", root.get("seed"), what
            first, other = firsts.setdefault((*place, inspection.problem), (inspection.path, digest))
            if other != digest:
                text = f"{what} of seed {root.get('seed')} is not that of {first}: {digest} and {other}"
                yield Finding(inspection.path, "pairing", text)


class _Inspection:
    """One file and what was found."""

    def __init__(self, path):
        self.path, self.findings, self.root, self.tuning_seeds = str(Path(path)), [], {}, ()
        self.pairing = self.problem = None
        try:
            content = Path(path).read_bytes()
            broken = broken_seal(content)
            if broken and (self.path.endswith(".h5") or is_sealed(content)):  # a part is sealed when it is finished
                self.note("seal", broken)
            if broken and is_sealed(content):  # HDF5 may loop for ever in a damaged file
                return
            with h5py.File(io.BytesIO(content), "r") as file:
                self.look_into(file)
        except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:  # as h5py tells of damage
            self.note("schema", f"cannot be read as HDF5 ({str(error).partition(chr(10))[0]})")

    def look_into(self, file):
        """All checks of an open file."""
        self.file = file
        self.root = {name: _plain(value) for name, value in file.attrs.items()}
        if self.schema():
            for check in CHECKS:
                check(self)

    def note(self, check, text):
        self.findings.append(Finding(self.path, check, text))

    def text(self, name):
        """The JSON of a text dataset as an object; a finding and None where it is missing or no JSON."""
        if name not in self.file:
            self.note("config", f"/{name} is missing")
            return None
        try:
            return json.loads(self.file[name].asstr()[()])
        except (json.JSONDecodeError, TypeError):
            self.note("config", f"/{name} is no JSON text")
            return None

    def columns(self, group):
        """The one-dimensional columns of a group by name; {} where it is missing."""
        items = self.file[group].items() if group in self.file else ()
        return {name: item[()] for name, item in items if isinstance(item, h5py.Dataset) and item.ndim == 1}

    def schema(self):
        found = self.root.get("schema")
        if found != SCHEMA:
            self.note("schema", f"schema is {found}, and this version reads {SCHEMA}")
        return found == SCHEMA

    def complete(self):
        ended = self.root.get("complete") == 1
        if not ended:
            why = self.root.get("error") or self.root.get("outcome") or "it was killed, or is still running"
            self.note("complete", f"the run has not been finished: {why}")
        for name in ATTRIBUTES + (AT_THE_END if ended else ()):
            if name not in self.root:
                self.note("attributes", f"`{name}` is missing")
        if ended and self.root.get("outcome") not in OUTCOMES:
            self.note("attributes", f"outcome is {self.root.get('outcome')!r}, none of {', '.join(OUTCOMES)}")
        if self.root.get("clock") not in CLOCKS.get(self.root.get("engine"), ()):
            text = f"clock {self.root.get('clock')!r} does not belong to engine {self.root.get('engine')!r}"
            self.note("attributes", text)

    def config(self):
        for name in ("raw", "seeds", "hash"):
            if f"config/{name}" not in self.file:
                self.note("config", f"/config/{name} is missing")
        tuning = self.text("config/tuning") if "config/tuning" in self.file else None
        self.tuning_seeds = tuple((tuning or {}).get("seeds", ()))
        resolved = self.text("config/resolved")
        if not isinstance(resolved, dict) or not {"experiment", "algorithm", "problem"} <= resolved.keys():
            self.note("config", "/config/resolved is no resolved cell")
            return
        self.problem = json.dumps([resolved.get("problem"), resolved.get("heterogeneity")], sort_keys=True)
        self.pairing = self.text("config/pairing") if "config/pairing" in self.file else None
        digest = cell_hash(resolved)
        stored = self.file["config/hash"].asstr()[()] if "config/hash" in self.file else digest
        if stored != digest or self.root.get("cell") != digest[:16]:
            cell = self.root.get("cell")
            self.note("hash", f"/config/resolved has the hash {digest[:16]}, the file says {stored[:16]} and {cell}")
        said = resolved["experiment"] | {"experiment": resolved["experiment"].get("name")}
        said["algorithm"] = resolved["algorithm"].pop("label", resolved["algorithm"]["name"])
        said["parameters"] = {name: value for name, value in resolved["algorithm"].items() if name != "name"}
        self.root["parameters"] = json.loads(self.root.get("parameters", "{}"))
        for name in ("experiment", "engine", "clock", "workers", "algorithm", "parameters"):
            if self.root.get(name) != said.get(name):
                self.note("config", f"{name} is {self.root.get(name)!r}, but {said.get(name)!r} in /config/resolved")
        seed, seeds = self.root.get("seed"), said.get("seeds", [])
        if seed not in seeds:
            self.note("seeds", f"seed {seed} is none of {seeds}, those of the experiment")
        if len(set(seeds)) < len(seeds):
            self.note("seeds", f"the seeds of the experiment are not unique: {seeds}")
        if both := set(self.tuning_seeds) & {seed, *seeds}:
            self.note("tuning", f"seeds {sorted(both)} were used for tuning and are reported")

    def provenance(self):
        needed = PROVENANCE + (("mpi",) if self.root.get("engine") == "mpi" else ())
        for name in needed:
            if f"provenance/{name}" not in self.file:
                self.note("provenance", f"/provenance/{name} is missing")

    def ranks(self):
        ranks, workers = self.root.get("ranks"), self.root.get("workers")
        if None not in (ranks, workers) and ranks < workers:
            self.note("ranks", f"{ranks} ranks are fewer than {workers} workers")
        groups = ["ranks"] + (["provenance/ranks", "clock"] if self.root.get("engine") == "mpi" else [])
        for group in groups:
            for name, column in self.columns(group).items():
                if len(column) != ranks:
                    self.note("ranks", f"/{group}/{name} has {len(column)} values for {ranks} ranks")
        numbers = self.columns("provenance/ranks").get("rank")
        if numbers is not None and not np.array_equal(numbers, np.arange(len(numbers))):
            self.note("ranks", f"/provenance/ranks/rank is {numbers.tolist()}, not 0, 1, 2, ...")

    def trace(self):
        trace = self.columns("trace")
        ended = self.root.get("complete") == 1
        missing = [name for name in COUNTERS if name not in trace]
        if missing and (trace or ended):
            self.note("trace", f"/trace lacks {', '.join(missing)}")
        for group in ("trace", "updates"):
            lengths = {len(v) for name, v in self.columns(group).items() if name != "staleness_histogram"}
            if len(lengths) > 1:
                self.note(group, f"the columns of /{group} have unequal lengths {sorted(lengths)}")
        if ended and len(trace.get("time", ())) == 0:
            self.note("trace", "there is no snapshot")
        for name in set(trace) & {"time", *CUMULATIVE}:
            if np.any(np.diff(trace[name]) < 0):
                self.note("trace", f"/trace/{name} decreases")
        time, seconds = trace.get("time", np.empty(0)), self.root.get("seconds", math.inf)
        if len(time) and (time[0] < 0 or time[-1] > seconds * (1 + 1e-9)):
            self.note("trace", f"/trace/time goes from {time[0]} to {time[-1]}, beyond a run of {seconds} seconds")
        for name in trace.keys() - COUNTERS:
            if self.file["trace"][name].attrs.get("direction") not in ("lower", "higher"):
                self.note("trace", f"/trace/{name} does not say whether lower or higher is better")

    def numbers(self):
        for group in ("trace", "updates", "ranks", "clock", "delays"):
            for name, column in self.columns(group).items():
                if column.dtype.kind != "f" or (group == "trace" and name not in COUNTERS and self.blown_up(column)):
                    continue
                for what, bad in (("NaN", np.isnan(column)), ("infinite", np.isinf(column))):
                    if bad.any():
                        text = f"{what} {bad.sum()} times among {len(column)} values, first at {bad.argmax()}"
                        self.note("numbers", f"/{group}/{name} is {text}")
        if "seconds" in self.root and not (math.isfinite(self.root["seconds"]) and self.root["seconds"] >= 0):
            self.note("numbers", f"seconds is {self.root['seconds']}")

    def blown_up(self, metric):
        """Whether the file says of a metric that is not finite why: the run diverged, before or after its target."""
        bad = ~np.isfinite(metric)
        outcome = self.root.get("outcome")
        return outcome == "diverged" or (outcome == "reached" and bad.any() and bad[bad.argmax() :].all())

    def clock(self):
        if self.root.get("engine") != "mpi":
            return
        clock = self.columns("clock")
        if missing := [name for name in ("resolution_seconds", "overhead_seconds") if not len(clock.get(name, ()))]:
            self.note("clock", f"/clock lacks {', '.join(missing)}")
            return
        start, stop = clock.get("start_seconds"), clock.get("stop_seconds")
        if start is not None and stop is not None:
            if np.any(stop < start):
                self.note("clock", f"rank {int(np.argmax(stop < start))} stops before it starts")
            span = self.file["clock"].attrs.get("span_seconds")
            if span is not None and not math.isclose(span, stop.max() - start.min(), rel_tol=1e-9, abs_tol=1e-9):
                text = f"first start to last stop is {stop.max() - start.min():.9g}"
                self.note("clock", f"span_seconds is {span:.9g}, and from {text}")
        steps = np.diff(self.columns("trace").get("time", np.empty(0)))
        if self.root.get("clock") == "native" and np.any(steps > 0):  # elsewhere times are modelled, not measured
            shortest = steps[steps > 0].min()
            resolution, overhead = clock["resolution_seconds"].max(), clock["overhead_seconds"].max()
            if shortest < RESOLUTIONS * resolution:
                text = f"is shorter than {RESOLUTIONS} resolutions of {resolution:.3g} s"
                self.note("clock", f"an interval of {shortest:.3g} s {text}")
            if overhead >= OVERHEAD * shortest:
                text = f"{OVERHEAD:.0%} or more of an interval of {shortest:.3g} s"
                self.note("clock", f"reading the clock takes {overhead:.3g} s, {text}")

    def ledger(self):
        trace, ranks = self.columns("trace"), self.columns("ranks")
        pairs = {"gradients": "gradients", "discarded": "discarded", "messages": "messages_sent", "bytes": "bytes_sent"}
        for name, of_ranks in pairs.items():
            if len(trace.get(name, ())) and of_ranks in ranks:
                last, total = trace[name][-1], ranks[of_ranks].sum()
                if last > np.ceil(total):  # a stopped gradient counts by its share
                    self.note("ledger", f"/trace/{name} ends at {last}, above {total}, the sum of /ranks/{of_ranks}")
        fates = [f"messages_{fate}" for fate in ("received", "lost", "in_flight")]
        if all(name in ranks for name in ("messages_sent", *fates)):
            sent, parts = ranks["messages_sent"].sum(), [ranks[name].sum() for name in fates]
            if sent != sum(parts):
                text = f"{parts[0]} received, {parts[1]} lost and {parts[2]} in flight"
                self.note("ledger", f"{sent} messages were sent, but {text}")
        for name in ("serialised", "mpi"):
            pair = [self.file.get(f"bytes/{name}/{way}") for way in ("up", "down")]
            edges = self.file.get(f"bytes/{name}/edges")
            if None not in pair and edges is not None and sum(int(way[()]) for way in pair) != int(np.sum(edges[()])):
                self.note("ledger", f"/bytes/{name}/up and down are not the sum of /bytes/{name}/edges")
        for way in ("up", "down", "edges"):
            inner, outer = (self.file.get(f"bytes/{level}/{way}") for level in ("serialised", "mpi"))
            if inner is not None and outer is not None and np.any(inner[()] > outer[()]):
                self.note("ledger", f"/bytes/serialised/{way} is more than /bytes/mpi/{way}, which contains it")
        edges = {name: self.file.get(f"bytes/edges/{name}") for name in ("messages", "lost", "received")}
        if None not in edges.values():
            sent, lost, received = (column[()] for column in edges.values())
            if np.any(received > sent - lost):
                at = int(np.argmax(received > sent - lost))
                text = f"{received[at]} of {sent[at]} messages, {lost[at]} of which are lost"
                self.note("ledger", f"edge {at} has received {text}")

    def events(self):
        """Nothing arrives before it was sent, nor ends before it began, within the error of the clocks."""
        events = self.columns("events")
        if not {"t", "until", "rank", "kind"} <= events.keys():
            return
        trips = self.columns("clock").get("round_trip_seconds", np.zeros(1))
        slack = 1e-9 + (trips.max() if len(trips) else 0.0) / 2  # of an offset: at most half its round trip
        early = events["until"] < events["t"] - slack  # NaN, which is not known, is not
        if early.any():
            at = int(early.argmax())
            by = events["t"][at] - events["until"][at]
            text = f"event {at} of rank {events['rank'][at]} ends {by:.3g} s before it begins"
            self.note("events", f"{text}, and so do {early.sum() - 1} others")
        ranks = self.root.get("ranks")
        if ranks is not None and len(events["rank"]) and not 0 <= events["rank"].min() <= events["rank"].max() < ranks:
            self.note("events", f"ranks are {events['rank'].min()} to {events['rank'].max()}, and there are {ranks}")

    def phases(self):
        """The parts of a run over MPI add up to it."""
        said = self.text("provenance/phases") if "provenance/phases" in self.file else None
        if not said or "total" not in said:
            return
        parts = sum(value for name, value in said.items() if name not in ("total", "start_of_the_process"))
        if abs(parts - said["total"]) > 0.2 + 0.1 * said["total"]:
            self.note("phases", f"phases are {parts:.3g} s, and the whole took {said['total']:.3g} s")

    def gate(self):
        """The run's own checks have passed, and it is no faster than theory allows."""
        checks = self.file.get("checks", {})
        if "name" in checks and "passed" in checks:
            rows = zip(checks["name"].asstr(), checks["passed"], checks["value"], checks["tolerance"], strict=True)
            for name, passed, value, tolerance in rows:
                if passed == 0 and name != "plausibility":
                    self.note("checks", f"{name} is {value:.6g}, and at most {tolerance:.6g} passes")
        if self.root.get("plausibility") == "faster than theory allows":
            self.note("plausibility", "the run is faster than theory allows")

    def fidelity(self):
        if self.root.get("clock") != "emulated" or self.root.get("complete") != 1:
            return
        if "fidelity" not in self.file or "good" not in self.file["fidelity"].attrs:
            self.note("fidelity", "the run is emulated and does not say how well it kept its pace")
            return
        said = {name: _plain(value) for name, value in self.file["fidelity"].attrs.items()}
        if said["good"] != 1:
            shown = ", ".join(f"{name} {said[name]:.3g}" for name in sorted(said) if name != "good")
            self.note("fidelity", f"the run did not keep its modelled pace: {shown}")


CHECKS = (
    _Inspection.complete,
    _Inspection.config,
    _Inspection.provenance,
    _Inspection.ranks,
    _Inspection.trace,
    _Inspection.numbers,
    _Inspection.clock,
    _Inspection.ledger,
    _Inspection.events,
    _Inspection.phases,
    _Inspection.gate,
    _Inspection.fidelity,
)


def _plain(value):
    """An attribute as Python's own int, float or str."""
    return value.item() if isinstance(value, np.generic) else value
