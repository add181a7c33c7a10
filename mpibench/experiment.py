"""Experiments: a TOML file becomes validated cells, and whatever is wrong in it is refused in one sentence.

    schema = 1
    [experiment]        `Settings`: name, workers, seeds, stop, snapshot, targets, engine, clock, record_updates,
                        record_events
    [problem]           name = a file of problems/; every other key is a field of its dataclass
    [heterogeneity]     compute = { profile = ..., ... } (`mpibench.profiles`), links = { ... }, loss = { ... }
                        (`mpibench.heterogeneity`)
    [graph]             file = a file of topologies/, relative to this one; or the topology itself (`mpibench.topology`)
    [[algorithm]]       name = a file of algorithms/; every other key is a field of its dataclass, and a list is a grid
                        unless the field is a list itself; label = another name, needed where an algorithm stands twice;
                        exclude = [{ ... }, ...] takes out the grid points that have these values
    [tuning]            `Tuning`: choose one point of each grid on these seeds, then run it on those of [experiment]
    [measuring]         `mpibench.measuring.Measuring`: what the experiment says of itself, and computes nothing with

`load` reads a file, on rank 0; `Experiment.resolved` is a plain dict from which `Experiment.from_resolved` makes the
same experiment on other ranks, without files.
"""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Le, Lt, MinLen

from mpibench import catalogue, heterogeneity, profiles, speeds, topology
from mpibench.catalogue import as_toml, nearest
from mpibench.errors import InvalidInput
from mpibench.heterogeneity import LONGEST, Seconds
from mpibench.measuring import Measuring
from mpibench.parameters import Count, Finite

SCHEMA = 1
TABLES = ("experiment", "problem", "heterogeneity", "graph", "algorithm", "tuning", "measuring")
Seeds = Annotated[tuple[Annotated[int, Ge(0), Lt(2**63)], ...], MinLen(1)]
Engine = Literal["simulation", "mpi"]


@dataclass(frozen=True)
class Stop:
    """When a run ends: at the first of these. In TOML metrics stand beside the rest: `{ updates = 9, loss = 0.1 }`."""

    seconds: Seconds | None = None  # on the run's clock
    updates: Count | None = None  # of the model on one rank
    gradients: Count | None = None  # over all ranks, used or discarded
    metrics: dict[str, Finite] = field(default_factory=dict)  # at this value or past it

    @property
    def without_metrics(self):
        """Whether a run ends also if no metric is watched."""
        return (self.seconds, self.updates, self.gradients) != (None, None, None)


@dataclass(frozen=True)
class Snapshot:
    """How often the point is kept for evaluation."""

    seconds: Seconds | None = None
    updates: Count | None = None

    def __post_init__(self):
        if (self.seconds is None) == (self.updates is None):
            raise InvalidInput("takes either `seconds` or `updates`")


@dataclass(frozen=True)
class Targets:
    """The ladder of values of a metric whose times are compared, fixed before the runs."""

    metric: str
    values: Annotated[tuple[Finite, ...], MinLen(1)]
    headline: Finite  # one of `values`
    version: Count = 1  # results of different versions do not mix

    def __post_init__(self):
        refuse_twice("values", self.values)
        if self.headline not in self.values:
            raise InvalidInput(f"headline = {self.headline} must be one of values = {list(self.values)}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The table [experiment]."""

    name: str
    engine: Engine = "simulation"
    clock: Literal["emulated", "native"] = "emulated"  # of engine "mpi"
    workers: Annotated[int, Ge(1), Le(10**6)]  # ranks that compute; a server is one rank more
    seeds: Seeds  # one repetition each, the same for all algorithms
    stop: Stop
    snapshot: Snapshot
    targets: Targets
    record_updates: bool = False  # time, source and staleness of every update
    record_events: bool = False  # every message and computation of every rank

    def __post_init__(self):
        refuse_no_folder("name", self.name)
        refuse_twice("seeds", self.seeds)
        if not self.stop.without_metrics and not self.stop.metrics:
            raise InvalidInput("stop is empty and no run would end; add `seconds`, `updates`, `gradients` or a metric")


@dataclass(frozen=True)
class Tuning:
    """The table [tuning]."""

    seeds: Seeds  # none of those of [experiment]
    engine: Engine = "simulation"

    def __post_init__(self):
        refuse_twice("seeds", self.seeds)


@dataclass(frozen=True, kw_only=True)
class Cell(Settings):
    """One algorithm with its parameters in the settings of the experiment `name`; with a seed it is a run."""

    clock: Literal["virtual", "emulated", "native"]
    algorithm_name: str
    label: str
    algorithm: Any  # the frozen object of algorithms/<algorithm_name>.py
    problem: Any  # the frozen object of problems/<name>.py
    compute: Any  # a profile of `mpibench.profiles`; None where the native clock models nothing
    links: heterogeneity.Links
    loss: heterogeneity.Loss
    graph: topology.Graph | None  # of all ranks; None where the experiment has none
    resolved: dict  # all of this as a plain dict: /config/resolved of the result file

    @property
    def ranks(self):
        """Number of ranks that the algorithm needs."""
        return self.algorithm.ranks(self.workers)

    @property
    def heterogeneous(self):
        """Whether the objectives of workers differ; False also where the problem does not tell."""
        return self.workers > 1 and getattr(self.problem, "heterogeneous", False)

    @property
    def biased(self):
        """Whether they differ and the method is for equal ones: it does not minimise their mean."""
        return self.heterogeneous and self.algorithm.is_biased(self.workers)

    @property
    def disturbed(self):
        """Whether workers are slowed down or held up, which they are on the native clock too."""
        return self.compute is not None and (self.compute.straggler, self.compute.stall) != (None, None)

    @property
    def parameters(self):
        """The algorithm's parameters as a plain dict."""
        return {k: v for k, v in self.resolved["algorithm"].items() if k not in ("name", "label")}

    @cached_property
    def hash(self):
        """64 hex digits; cells of the same hash compute the same from the same seed."""
        return cell_hash(self.resolved)


@dataclass(frozen=True)
class Method:
    """One [[algorithm]] table and the points of its grid."""

    name: str
    label: str
    points: tuple


@dataclass(frozen=True)
class Experiment:
    """A validated experiment; made by `load` or `from_resolved`."""

    resolved: dict  # plain: `tables` as in TOML, overrides applied, files included; `file`, `raw`, `overrides`
    settings: Settings
    problem: Any
    compute: Any
    links: heterogeneity.Links
    loss: heterogeneity.Loss
    methods: tuple[Method, ...]
    graphs: dict  # number of ranks to `topology.Graph`; empty where the experiment has no graph
    tuning: Tuning | None
    measuring: Measuring

    @classmethod
    def from_resolved(cls, resolved):
        """The experiment of a plain dict, without reading files; InvalidInput in one sentence if it is wrong."""
        reader = Reader(resolved)
        top = reader.tables()
        settings = reader.read(Settings, with_metrics_apart(top["experiment"]), "experiment")
        problem = reader.problem(top["problem"])
        modelled = reader.heterogeneity(top.get("heterogeneity", {}), settings.workers)
        methods = tuple(reader.method(table, number) for number, table in enumerate(top["algorithm"], 1))
        ranks = {p.ranks(settings.workers) for m in methods for p in m.points} if "graph" in top else ()
        graphs = {n: topology.build(top["graph"], n, where=f"{reader.source()}: [graph]") for n in sorted(ranks)}
        tuning = reader.read(Tuning, top["tuning"], "tuning") if "tuning" in top else None
        measuring = reader.read(Measuring, top.get("measuring", {}), "measuring")
        experiment = cls(resolved, settings, problem, *modelled, methods, graphs, tuning, measuring)
        reader.check_together(experiment)
        return experiment

    def cells(self, chosen: Mapping[str, Cell] | None = None):
        """The cells to run on the seeds of [experiment]: every point of every grid; or, with `chosen` (label to the
        trial that tuning chose), one point of each algorithm. Where there is no grid, nothing needs to be chosen."""
        points = [(m, p) for m in self.methods for p in m.points]
        if chosen is not None:
            points = [(m, m.points[0] if len(m.points) == 1 else chosen[m.label].algorithm) for m in self.methods]
        return tuple(self._cell(m, p, self.settings, self.tuning) for m, p in points)

    def trials(self):
        """The cells that tuning runs on its own seeds and engine: the points of every grid; none without [tuning]."""
        if self.tuning is None:
            return ()
        settings = replace(self.settings, seeds=self.tuning.seeds, engine=self.tuning.engine, record_updates=False,
                           record_events=False)
        return tuple(self._cell(m, p, settings, None) for m in self.methods if len(m.points) > 1 for p in m.points)

    def _cell(self, method, algorithm, settings, tuning):
        clock = "virtual" if settings.engine == "simulation" else settings.clock
        table = plain(settings) | {"clock": clock}
        table["stop"] |= table["stop"].pop("metrics")
        modelled = {"links": plain(self.links), "loss": plain(self.loss)}
        if self.compute is not None:
            name = self.resolved["tables"]["heterogeneity"]["compute"]["profile"]
            modelled["compute"] = {"profile": name, **plain(self.compute)}
        resolved = {
            "experiment": table,
            "problem": {"name": self.resolved["tables"]["problem"]["name"], **plain(self.problem)},
            "heterogeneity": modelled,
            "graph": self.resolved["tables"].get("graph"),
            "algorithm": {"name": method.name, **plain(algorithm)},
            "tuning": tuning and plain(tuning),
            "measuring": plain(self.measuring),
        }
        if method.label != method.name:
            resolved["algorithm"]["label"] = method.label
        return Cell(
            **vars(settings) | {"clock": clock},
            **{key: getattr(self, key) for key in ("problem", "compute", "links", "loss")},
            algorithm_name=method.name,
            label=method.label,
            algorithm=algorithm,
            graph=self.graphs.get(algorithm.ranks(settings.workers)),
            resolved=resolved,
        )


def load(path, overrides=()):
    """The experiment in a TOML file, with `--set` texts like "experiment.workers=8" applied in order.

    "algorithm.NAME.key=value" sets a key of the [[algorithm]] tables with this label or name. Values are TOML; what is
    not is taken as a text. The problem is prepared once, so that its data and metrics are checked as well.
    """
    path = Path(path)
    try:
        raw = path.read_text(encoding="utf-8")
        document = tomllib.loads(raw)
    except OSError as error:
        raise InvalidInput(f"file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of numbers too long and of lists too deep for Python
        raise InvalidInput(f"file {path} is not TOML: {error}") from error
    for override in overrides:
        apply(override, document)
    resolved = {"file": str(path), "raw": raw, "overrides": list(overrides), "tables": document}
    reader = Reader(resolved)
    graph = document.get("graph")
    if isinstance(graph, dict) and "file" in graph:
        catalogue.check_keys(graph, ["file"], ("graph",), reader.refuse)
        file = catalogue.value(str, graph["file"], ("graph",), "file", reader.refuse)
        try:
            document["graph"] = topology.read(path.parent / file)
        except InvalidInput as error:
            reader.refuse(("graph",), str(error), "file")
    modelled = document.get("heterogeneity")
    compute = modelled.get("compute") if isinstance(modelled, dict) else None
    if isinstance(compute, dict) and compute.get("profile") == "trace" and "seconds" not in compute:
        at = ("heterogeneity", "compute")
        if "file" not in compute:
            reader.refuse(at, "lacks `file`, a CSV file of times, or `seconds`, lists of them")
        catalogue.check_keys(compute, ["profile", "file", "speed", "straggler", "stall"], at, reader.refuse)
        file = catalogue.value(str, compute.pop("file"), at, "file", reader.refuse)
        try:
            compute["seconds"] = profiles.read_times(path.parent / file)
        except InvalidInput as error:
            reader.refuse(at, str(error), "file")
    experiment = Experiment.from_resolved(resolved)
    reader.check_problem(experiment)
    return experiment


def apply(override, document):
    """Set one "a.b=c" in the tables of `document`."""
    path, equals, text = override.partition("=")
    table, *keys = (key.strip() for key in path.split("."))
    if not equals or not keys or not all(keys) or (table == "algorithm" and len(keys) < 2):
        wanted = "algorithm.NAME.key=value" if table == "algorithm" else "table.key=value"
        raise InvalidInput(f"--set {override}: write {wanted}, for example experiment.workers=8")
    if table not in TABLES:
        raise InvalidInput(f"--set {override}: there is no table `{table}`{nearest(table, TABLES)}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    if table == "algorithm":
        name = keys.pop(0)
        methods = [t for t in document.get("algorithm", ()) if isinstance(t, dict)]
        targets = [t for t in methods if name in (t.get("label"), t.get("name"))]
        if not targets:
            known = dict.fromkeys(t[key] for t in methods for key in ("label", "name") if key in t)
            raise InvalidInput(f"--set {override}: there is no [[algorithm]] `{name}`{nearest(name, known)}")
    else:
        targets = [document.setdefault(table, {})]
    for target in targets:
        for key in keys[:-1]:
            target = target.setdefault(key, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise InvalidInput(f"--set {override}: `{'.'.join([table, *keys[:-1]])}` is a value, not a table")
        target[keys[-1]] = value


class Reader:
    """Validates the tables of an experiment; every error names the file, the table and the key.

    `at` says where a table stands: ("experiment", "stop") is [experiment.stop], ("algorithm", "a") an [[algorithm]].
    """

    def __init__(self, resolved):
        self.top = dict(resolved["tables"])
        self.file = resolved["file"]
        self.overrides = resolved["overrides"]

    def source(self, table=None, key=None):
        """`file jobs/x.toml`, and the --set that gave this key of this table its value."""
        ends = {(o.partition(".")[0], o.partition("=")[0].rpartition(".")[2]): o for o in self.overrides}
        return f"file {self.file}" + (f" with --set {ends[table, key]}" if (table, key) in ends else "")

    def refuse(self, at, text, key=None):
        """Raise InvalidInput about the table `at`, or its `key`."""
        table = f"[[algorithm]] {'.'.join(at[1:])}" if at[0] == "algorithm" else f"[{'.'.join(at)}]"
        raise InvalidInput(f"{self.source(at[0], key)}: {table} {text}")

    def tables(self):
        """The tables by name, each of the right kind."""
        if isinstance(schema := self.top.pop("schema", None), bool) or schema != SCHEMA:
            raise InvalidInput(f"{self.source()} must begin with `schema = {SCHEMA}`, the format of this version")
        for key in dict.fromkeys([*self.top, "experiment", "problem", "algorithm"]):
            if key not in TABLES:
                raise InvalidInput(f"{self.source()} has no table `{key}`{nearest(key, TABLES)}")
            several = isinstance(self.top.get(key), list) and all(isinstance(table, dict) for table in self.top[key])
            if not (several and self.top[key] if key == "algorithm" else isinstance(self.top.get(key), dict)):
                brackets = "[[algorithm]]" if key == "algorithm" else f"[{key}]"
                raise InvalidInput(f"{self.source()} needs `{key}` as a table, written {brackets}")
        return self.top

    def read(self, cls, table, *at, also=()):
        """The object of a dataclass from a table; `also` are keys that the table may have beside its fields."""
        catalogue.check_keys(table, table, at, self.refuse)
        return catalogue.read(cls, {k: v for k, v in table.items() if k not in also}, at, self.refuse, also)

    def found(self, find, table, *at, key="name"):
        """The class that the name in `key` means to `find`."""
        catalogue.check_keys(table, table, at, self.refuse)
        if key not in table:
            self.refuse(at, f"lacks `{key}`, a text")
        name = catalogue.value(str, table[key], at, key, self.refuse)
        try:
            return find(name)
        except InvalidInput as error:
            self.refuse(at, f"{key} = {as_toml(name)}: {error}", key)

    def problem(self, table):
        """The frozen object of problems/<name>.py."""
        cls = self.found(partial(catalogue.load, "problem"), table, "problem")
        return self.read(cls, table, "problem", also=("name",))

    def heterogeneity(self, table, workers):
        """(compute profile or None, Links, Loss)."""
        at = ("heterogeneity",)
        catalogue.check_keys(table, ["compute", "links", "loss"], at, self.refuse)
        compute = None
        if "compute" in table:
            cls = self.found(profile, table["compute"], *at, "compute", key="profile")
            compute = self.read(cls, table["compute"], *at, "compute", also=("profile",))
            try:
                slowest = float(compute.mean_seconds(workers).max())  # knows for how many workers it is
            except InvalidInput as error:
                self.refuse((*at, "compute"), str(error))
            if slowest > LONGEST:
                text = f"gives the slowest of {workers} workers {slowest:.4g} seconds per gradient"
                self.refuse((*at, "compute"), f"{text}; at most {LONGEST:g} are possible")
        links = self.read(heterogeneity.Links, table.get("links", {}), *at, "links")
        return compute, links, self.read(heterogeneity.Loss, table.get("loss", {}), *at, "loss")

    def method(self, table, number):
        """The Method of the [[algorithm]] table of this number = 1, 2, ..., without what `exclude` takes out."""
        at = ("algorithm", str(table.get("label", table.get("name", f"number {number}"))))
        cls = self.found(partial(catalogue.load, "algorithm"), table, *at)
        label = catalogue.value(str, table.get("label", table["name"]), at, "label", self.refuse)
        try:
            refuse_no_folder("label", label)
        except InvalidInput as error:
            self.refuse(at, str(error), "label")
        excluded = catalogue.value(list[dict[str, Any]], table.get("exclude", []), at, "exclude", self.refuse)
        hints = get_type_hints(cls, include_extras=True)
        scalars = [f.name for f in fields(cls) if not catalogue.takes_list(hints[f.name])]
        grid = {key: table[key] for key in scalars if isinstance(table.get(key), list)}
        if [] in grid.values():
            self.refuse(at, "has a grid without points: a list in it is empty")
        combinations = (dict(zip(grid, c, strict=True)) for c in itertools.product(*grid.values()))
        points = [self.read(cls, table | c, *at, also=("name", "label", "exclude")) for c in combinations]
        for values in excluded:
            catalogue.check_keys(values, [f.name for f in fields(cls)], (*at, "exclude"), self.refuse)
            kept = [p for p in points if not values.items() <= plain(p).items()]
            if len(kept) in (0, len(points)):
                what = "no point of the grid" if kept else "all points that are left of the grid"
                self.refuse(at, f"exclude = {as_toml(values)} matches {what}", "exclude")
            points = kept
        return Method(table["name"], label, tuple(points))

    def check_together(self, experiment):
        """Refuse what is wrong between the tables."""
        settings, tuning = experiment.settings, experiment.tuning
        engines = {settings.engine, tuning.engine if tuning else settings.engine}
        if "mpi" in engines and not settings.stop.without_metrics:
            text = 'holds metrics only, which engine = "mpi" cannot watch; add `seconds`, `updates` or `gradients`'
            self.refuse(("experiment", "stop"), text)
        if experiment.compute is None and ("simulation" in engines or settings.clock == "emulated"):
            self.refuse(("heterogeneity",), 'lacks `compute`, for example { profile = "equal", unit_seconds = 1.0 }')
        labels = [m.label for m in experiment.methods]
        clocks = {"virtual" if engine == "simulation" else settings.clock for engine in engines}
        for method in experiment.methods:
            at = ("algorithm", method.label)
            for point in method.points:
                try:
                    point.check(settings.workers, experiment.graphs.get(point.ranks(settings.workers)))
                except ValueError as error:
                    self.refuse(at, str(error))
            if "mpi" in engines and settings.stop.gradients and method.points[0].worker_number(0) != 0:
                text = 'has no rank that knows the gradients of all, so with engine = "mpi" they cannot end its runs'
                self.refuse(at, f"{text}; stop by `seconds` or `updates`")
            if missing := clocks - method.points[0].clocks:
                there = " or ".join(sorted(method.points[0].clocks))
                self.refuse(at, f"cannot run on the {min(missing)} clock, only on: {there}")
            self.check_links(experiment, method.points[0], at)
            if labels.count(method.label) > 1:
                self.refuse(at, "stands twice; give each of the tables its own `label`")
            loss, ranks = experiment.loss, method.points[0].ranks(settings.workers)
            if loss.possible and not all(point.tolerates_loss for point in method.points):
                has = f"probability = {loss.probability}" if loss.probability else "a burst"
                text = f"needs every message, but [heterogeneity.loss] has {has}"
                self.refuse(at, f"{text}; lose nothing, or leave this method out")
            if edge := loss.foreign(ranks, experiment.graphs.get(ranks)):
                text = f"edges name {list(edge)}, and the ranks 0 to {ranks - 1} of {method.label} have no such edge"
                self.refuse(("heterogeneity", "loss"), f"{text}; name [source, destination] of edges that they have")
        if tuning:
            if both := set(tuning.seeds) & set(settings.seeds):
                self.refuse(("tuning",), f"has seed {min(both)} of [experiment]; tune on seeds that are not reported")
            if all(len(m.points) == 1 for m in experiment.methods):
                self.refuse(("tuning",), "has nothing to choose, because no [[algorithm]] has a list of values")
        hashes = set()
        for cell in experiment.cells():
            if cell.hash in hashes:
                self.refuse(("algorithm", cell.label), f"has a point of its grid twice: {as_toml(cell.parameters)}")
            hashes.add(cell.hash)

    def check_links(self, experiment, algorithm, at):
        """Refuse ways to a server that there is not, and ones that take no time where the method needs some."""
        links, ranks = experiment.links, algorithm.ranks(experiment.settings.workers)
        if links.uneven and algorithm.worker_number(0) != 0:
            text = "has no server, and `exponent` in [heterogeneity.links] is for ways to one"
            self.refuse(at, f"{text}; give each edge its own times in [graph]")
        if algorithm.needs_link_times:
            graph = experiment.graphs.get(ranks)
            free = next((i for i in range(1, ranks) if links.edge(i, 0, 0, 1, graph).instant), None)
            if free is not None:
                text = f"needs links that take time, and the one from rank {free} to the server takes none"
                self.refuse(at, f"{text}; give [heterogeneity.links] vector_seconds or bandwidth_bytes_per_second")

    def check_problem(self, experiment):
        """Refuse a problem that cannot be prepared, metrics that it does not have, and methods that its vectors are too
        short for."""
        settings, targets = experiment.settings, experiment.settings.targets
        try:
            problem = experiment.problem.prepare(settings.workers, settings.seeds[0])
        except (InvalidInput, MemoryError) as error:
            self.refuse(("problem",), str(error) or "needs more memory than there is")
        for method in experiment.methods:
            for point in method.points:
                try:
                    point.check_dimension(problem.dimension, settings.workers)
                except ValueError as error:
                    self.refuse(("algorithm", method.label), str(error))
        metrics = problem.metrics
        if targets.metric not in metrics:
            text = f'metric = "{targets.metric}" is none of this problem{nearest(targets.metric, metrics)}'
            self.refuse(("experiment", "targets"), text, "metric")
        for name, value in settings.stop.metrics.items():
            at = ("experiment", "stop")
            catalogue.check_keys({name: value}, ["seconds", "updates", "gradients", *metrics], at, self.refuse)
            sign = 1 if metrics[name] == "lower" else -1
            if name == targets.metric and sign * value > sign * targets.headline:
                text = f"{name} = {value} would end every run before the headline target {targets.headline}"
                self.refuse(at, f"{text}; stop there or beyond", name)


def profile(name):
    """The class of a compute profile."""
    if name in speeds.FORMS:
        raise InvalidInput(f'a form of speed, which any profile can have; add speed = {{ form = "{name}", ... }}')
    if name not in profiles.PROFILES:
        raise InvalidInput(f"there is no such profile{nearest(name, profiles.PROFILES)}")
    return profiles.PROFILES[name]


def with_metrics_apart(table):
    """[experiment] with the metrics of `stop` in a table of their own."""
    if not isinstance(stop := table.get("stop"), dict):
        return table
    own = {k: v for k, v in stop.items() if k in ("seconds", "updates", "gradients")}
    return table | {"stop": own | {"metrics": {k: v for k, v in stop.items() if k not in own}}}


def refuse_no_folder(key, text):
    """Refuse what cannot be the name of a folder of results on every file system."""
    if not text or text.startswith(".") or not all(c.isalnum() or c in "._-" for c in text):
        raise InvalidInput(f'{key} = "{text}" names a folder of results; use letters, digits, ".", "_" and "-"')


def refuse_twice(key, values):
    """Refuse a list that holds a value twice."""
    if twice := [v for v in values if values.count(v) > 1]:
        raise InvalidInput(f"{key} = {list(values)} holds {twice[0]} twice")


def plain(value):
    """A dataclass as TOML has it: a dict of numbers, texts, lists and dicts, in which nothing is None."""
    if is_dataclass(value):
        value = asdict(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def cell_hash(resolved):
    """sha256 over the canonical JSON of a resolved cell, without seeds, tuning and what it says of itself."""

    def canonical(value):  # 1.0 and 1 are the same
        if isinstance(value, dict):
            return {k: canonical(v) for k, v in value.items()}
        if isinstance(value, list):
            return [canonical(v) for v in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    what = {key: value for key, value in resolved.items() if key not in ("tuning", "measuring")}
    what["experiment"] = {key: value for key, value in what["experiment"].items() if key != "seeds"}
    return hashlib.sha256(json.dumps(canonical(what), sort_keys=True, separators=(",", ":")).encode()).hexdigest()
