"""Reading result files: one HDF5 file is one run.

Only finished result files (`*.h5`) are opened, never the parts (`*.h5.part`) of a run that is still writing. The
layout is described in `mpibench/record.py`; what is needed of it here is the root's attributes, `/config/resolved`,
`/config/tuning`, `/prediction`, `/trace`, `/updates` and `/fidelity`.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from analysis.errors import InvalidInput

SCHEMA = 1  # the newest major schema that can be read

OUTSIDE = frozenset({"walltime", "fault", "watchdog"})  # outcomes that are not the algorithm's doing

COUNTERS = ("time", "iteration", "updates", "gradients", "discarded", "messages", "bytes", "bits")  # others are metrics

ATTRIBUTES = ("run_id", "experiment", "algorithm", "engine", "clock", "workers", "seed", "cell")
ATTRIBUTES += ("outcome", "final_model", "seconds", "budget_seconds")


@dataclass(frozen=True)
class Targets:
    """The ladder of targets, fixed before the runs; `headline` is the one that the experiment is about."""

    metric: str
    values: tuple[float, ...]
    headline: float
    version: int


@dataclass(frozen=True)
class Prediction:
    """What theory says of a run at its parameters and speeds; nan where it says nothing.

    Seconds per model update: `expected`, at `least` and at `most`. `updates` and `seconds` to each target, by its
    value, hold up to a constant that differs between papers. `constants` are the problem's that went into them.
    """

    least: float
    expected: float
    most: float
    updates: dict
    seconds: dict
    constants: dict
    source: str


@dataclass(frozen=True, eq=False)
class Run:
    """One run, as recorded: one repetition (`seed`) of one cell of an experiment on one engine and clock.

    `trace` has one row a snapshot: seconds on the run's clock, cumulative counters over all ranks, and metrics;
    `better` says of each metric whether "lower" or "higher" is better. `seconds` is the length of the run and
    `budget_seconds` what it was allowed (inf: no limit), both on its clock. `outcome` is "reached" for a run that met
    its headline target, however it ended. `staleness[k]` is the number of gradients that were k updates old, in
    the last entry k or more where `staleness_open`.
    """

    path: Path
    digest: str  # SHA-256 of the file
    run_id: str
    experiment: str
    name: str  # what the experiment calls the algorithm
    algorithm: str
    parameters: dict
    engine: str
    clock: str
    workers: int
    seed: int
    cell: str
    outcome: str
    error: str  # one sentence, where there was one
    biased: bool  # whether the objectives of workers differ and the method is for equal ones
    complete: bool
    final_model: str
    seconds: float
    budget_seconds: float
    resolved: dict
    tuning: dict
    targets: Targets | None
    trace: pd.DataFrame
    better: dict
    fidelity: dict
    prediction: Prediction | None
    staleness: np.ndarray
    staleness_open: bool
    recorded: tuple[str, ...]  # columns of `updates`
    failed_checks: tuple[str, ...] = ()  # the names of those in /checks
    implausible: bool = False  # faster than theory allows
    hits: dict = field(default_factory=dict, repr=False)  # `TimeToTarget` by target, as they are asked for

    @property
    def updates(self):
        """One row a model update, where they were recorded; read when asked for, as there may be many."""
        if not self.recorded:
            return pd.DataFrame()
        with h5py.File(self.path, "r") as file:
            return pd.DataFrame({name: dataset[()] for name, dataset in _columns_of_updates(file).items()})

    @property
    def stopped_from_outside(self):
        """Whether the run bears on no number: it ended for a reason that says nothing about its algorithm, or failed a
        check."""
        return not self.complete or self.outcome in OUTSIDE or bool(self.failed_checks)

    @property
    def poor_fidelity(self):
        """Whether this finished emulated run did not keep its modelled pace, or does not say that it did."""
        return self.complete and self.clock == "emulated" and self.fidelity.get("good", 0) != 1


def find(paths):
    """The result files among `paths` and below those that are folders, each once, in order.

    Raises InvalidInput for a path that does not exist, a part given by name, or when there is no result file at all.
    """
    files = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(path.rglob("*.h5"))
        elif path.suffix == ".part":
            raise InvalidInput(f"{path} is part of a run that has not finished; give the .h5 file that it becomes")
        elif path.is_file():
            found = [path]
        else:
            raise InvalidInput(f"{path} does not exist; give result files (.h5) or folders that hold them")
        files |= {file.resolve(): file for file in found}
    if not files:
        raise InvalidInput(f"no result file (*.h5) in {', '.join(map(str, paths))}; run an experiment first")
    return list(files.values())


def read(path):
    """The run in the result file `path`.

    Raises InvalidInput if it is not a result file, was changed after it had been finished, is of a newer schema, or
    lacks what every result file has. A file that says that it is incomplete may lack its trace.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(b"mpibench result,") and not seal_holds(content):
            raise InvalidInput(f"{path} was changed after it was finished: its seal is broken, see `mpibench verify`")
        digest = hashlib.sha256(content).hexdigest()
        with h5py.File(path, "r") as file:
            return _run(Path(path), digest, file)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read as an HDF5 file ({_first_line(error)})") from error


def seal_holds(content):
    """Whether a file of these bytes is as it was finished: the first 512 hold the SHA-256 of the rest."""
    return content[:512].split(b"\n")[1] == hashlib.sha256(content[512:]).hexdigest().encode()


def _run(path, digest, file):
    root = {name: _plain(value) for name, value in file.attrs.items()}
    if "schema" not in root:
        raise InvalidInput(f"{path} is no result file of mpibench: it has no attribute `schema`")
    if int(root["schema"]) > SCHEMA:
        raise InvalidInput(f"{path} has schema {root['schema']}, newer than {SCHEMA}; read it with a newer version")
    complete = root.get("complete", 0) == 1
    if not complete:  # cut short: what was not known yet
        root = {"outcome": "fault", "final_model": "", "seconds": np.nan, "budget_seconds": np.inf} | root
    fields = {name: _required(path, root, name) for name in ATTRIBUTES}
    parameters = _json(path, "parameters", _required(path, root, "parameters"))
    resolved = _json(path, "config/resolved", _text(path, file, "config/resolved"))
    tuning = _json(path, "config/tuning", _text(path, file, "config/tuning")) if "config/tuning" in file else {}
    called = {"name": fields["algorithm"]} | resolved.get("algorithm", {})
    fields |= {"algorithm": called["name"], "name": called.get("label", called["name"])}
    trace, better = _trace(path, file, complete)
    return Run(
        path=path,
        digest=digest,
        **fields,
        error=root.get("error", ""),
        biased=root.get("biased", 0) == 1,
        parameters=parameters,
        complete=complete,
        resolved=resolved,
        tuning=tuning or {},
        targets=_targets(path, resolved, better, complete),
        trace=trace,
        better=better,
        fidelity={name: _plain(value) for name, value in file["fidelity"].attrs.items()} if "fidelity" in file else {},
        prediction=_prediction(path, file) if "prediction" in file else None,
        **_updates(path, file),
        failed_checks=_failed_checks(file),
        implausible=root.get("plausibility") == "faster than theory allows",
    )


def _trace(path, file, complete):
    if "trace" not in file:
        if complete:
            raise InvalidInput(f"{path} has no /trace; it is no complete result file")
        return pd.DataFrame({"time": np.empty(0)}), {}
    columns = {name: dataset[()] for name, dataset in file["trace"].items()}
    if len({len(column) for column in columns.values()}) > 1:
        raise InvalidInput(f"the columns of /trace in {path} differ in length; the file is damaged")
    for name in COUNTERS:
        if complete and name not in columns:
            raise InvalidInput(f"{path} has no /trace/{name}, which every result file has; the file is damaged")
    better = {name: file["trace"][name].attrs.get("direction") for name in columns if name not in COUNTERS}
    for name, direction in better.items():
        if complete and direction not in ("lower", "higher"):
            raise InvalidInput(f"/trace/{name} in {path} must say `direction` lower or higher, not {direction}")
    return pd.DataFrame(columns), better


def _targets(path, resolved, better, complete):
    named = resolved.get("experiment", {}).get("targets")
    if not named:
        return None
    if complete and named["metric"] not in better:
        raise InvalidInput(f"{path} has targets for {named['metric']} but no /trace/{named['metric']}")
    values = tuple(sorted(float(value) for value in named["values"]))
    return Targets(named["metric"], values, float(named.get("headline", values[0])), int(named.get("version", 1)))


def _prediction(path, file):
    said = _json(path, "prediction", _text(path, file, "prediction"))
    try:
        pace, targets = said["update_seconds"], said.get("targets") or []
        return Prediction(
            *(_number(pace[name]) for name in ("least", "expected", "most")),
            *({float(target["value"]): _number(target[name]) for target in targets} for name in ("updates", "seconds")),
            constants={
                name: value if isinstance(value, bool) else _number(value)
                for name, value in (said.get("constants") or {}).items()
            },
            source=str(said.get("source") or ""),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            f"`prediction` in {path} must have update_seconds (least, expected, most) and targets (value, updates, "
            f"seconds), numbers or null; the file is damaged ({type(error).__name__}: {error})"
        ) from error


def _number(value):
    return np.nan if value is None else float(value)


def _updates(path, file):
    recorded = _columns_of_updates(file)
    if len({len(column) for column in recorded.values()}) > 1:
        raise InvalidInput(f"the columns of /updates in {path} differ in length; the file is damaged")
    histogram = file.get("updates", {}).get("staleness_histogram")
    return {
        "staleness": np.empty(0, int) if histogram is None else histogram[()],
        "staleness_open": histogram is not None and histogram.attrs.get("open", 0) == 1,
        "recorded": tuple(recorded),
    }


def _columns_of_updates(file):
    return {name: dataset for name, dataset in file.get("updates", {}).items() if name != "staleness_histogram"}


def _failed_checks(file):
    checks = file.get("checks", {})
    if "name" not in checks or "passed" not in checks:
        return ()
    rows = zip(checks["name"].asstr(), checks["passed"], strict=True)
    return tuple(name for name, passed in rows if passed == 0 and name != "plausibility")  # that is a flag


def _required(path, attributes, name):
    if name not in attributes:
        raise InvalidInput(f"{path} has no attribute `{name}`, which every result file has; the file is damaged")
    return attributes[name]


def _text(path, file, name):
    if name not in file:
        raise InvalidInput(f"{path} has no /{name}, which every result file has; the file is damaged")
    return file[name].asstr()[()]


def _json(path, name, text):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"`{name}` in {path} is not JSON ({error}); the file is damaged") from error


def _plain(value):
    """An attribute as Python's own int, float or str."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _first_line(error):
    return str(error).partition("\n")[0]
