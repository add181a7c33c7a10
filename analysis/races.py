"""Which runs may share a table or an axis, and what each of their methods is called there.

A race is one experiment on one engine and clock, with everything equal but the method and the seed. What differs
beyond that makes another race, and its title says what it is; two cells of one algorithm are two methods, named by the
parameters that differ.
"""

import json
from collections import defaultdict
from dataclasses import dataclass

from analysis.errors import InvalidInput
from analysis.read import Run, Targets, find, read

FREE = ("algorithm", "tuning", "measuring")  # what may differ inside a race
# engine and clock are in the key by themselves
FREE_OF_EXPERIMENT = ("seeds", "engine", "clock", "record_updates", "record_events")


@dataclass(frozen=True, eq=False)
class Method:
    """One cell: an algorithm with its parameters; `runs` is one a seed, by seed. Its label begins with the experiment's
    own name for it, by default the algorithm's."""

    label: str
    runs: tuple[Run, ...]

    @property
    def biased(self):
        """Whether it is for workers with equal objectives, and here they differ."""
        return any(run.biased for run in self.runs)

    @property
    def counted(self):
        """The runs that bear on the method, those that nothing from outside stopped."""
        return [run for run in self.runs if not run.stopped_from_outside]


@dataclass(frozen=True, eq=False)
class Race:
    """Methods that may be compared; `superseded` are the runs that a newer one of the same cell and seed replaces."""

    experiment: str
    engine: str
    clock: str
    setting: str  # what sets it apart from other races of this experiment, say "workers = 8", or empty
    targets: Targets | None
    methods: tuple[Method, ...]
    superseded: tuple[Run, ...]
    copies: tuple[Run, ...] = ()  # files with the same bytes as one that counts

    @property
    def title(self):
        """Experiment, workers, engine, clock and setting in words."""
        engine = {"mpi": "MPI"}.get(self.engine, self.engine)
        title = f"{self.experiment}, {self.runs[0].workers} workers, {engine}, {self.clock} clock"
        return f"{title}, {self.setting}" if self.setting else title

    @property
    def runs(self):
        """The newest run of every cell and seed."""
        return [run for method in self.methods for run in method.runs]


def load(paths, allow_poor_fidelity=False):
    """The races that the result files in `paths` hold.

    Raises InvalidInput as `find` and `read` do, for runs of one experiment whose targets differ, and for emulated runs
    that did not keep their pace unless `allow_poor_fidelity`.
    """
    groups, copies = defaultdict(list), defaultdict(list)
    for run, of_it in _each_once(map(read, find(paths))):
        groups[run.experiment, run.engine, run.clock].append(run)
        copies[run] = of_it
    _refuse_different_targets([run for runs in groups.values() for run in runs])
    races = [
        _race(runs, superseded, setting, tuple(copy for run in runs for copy in copies[run]))
        for runs in groups.values()
        for runs, superseded, setting in _settings(runs)
    ]
    if not allow_poor_fidelity:
        _refuse_poor_fidelity([run for race in races for run in race.runs])
    return sorted(races, key=lambda race: race.title)


def _each_once(runs):
    """Every run with the other files that are copies of it. Raises InvalidInput for two files that claim to be the same
    run and differ."""
    found = {}
    for run in runs:
        same = found.setdefault((run.experiment, run.engine, run.clock, run.cell, run.seed, run.run_id), [])
        if same and same[0].digest != run.digest:
            raise InvalidInput(
                f"{same[0].path} and {run.path} claim to be the same run ({run.run_id}) and differ; keep the one whose "
                "bytes `mpibench verify` accepts"
            )
        same.append(run)
    return [(first, copies) for first, *copies in found.values()]


def _settings(runs):
    """(newest runs, superseded runs, what sets them apart) of each setting among runs of one experiment and clock."""
    settings = defaultdict(list)
    for run in runs:
        settings[json.dumps(_setting(run), sort_keys=True)].append(run)
    labels = differences([json.loads(setting) for setting in settings])
    for label, same in zip(labels, settings.values(), strict=True):
        newest, superseded = {}, []
        for run in sorted(same, key=lambda run: run.run_id):
            key = run.cell, run.seed
            if key in newest:
                superseded.append(newest[key])
            newest[key] = run
        yield list(newest.values()), tuple(superseded), label


def _setting(run):
    """What runs must have in common to be compared, flattened to {"problem.noise": 0.01, ...}."""
    shared = {name: value for name, value in run.resolved.items() if name not in FREE}
    shared["experiment"] = {
        name: value for name, value in shared.get("experiment", {}).items() if name not in FREE_OF_EXPERIMENT
    }
    return flat(shared)


def _race(runs, superseded, setting, copies):
    named = defaultdict(lambda: defaultdict(list))  # name, cell: runs
    for run in sorted(runs, key=lambda run: run.seed):
        named[run.name][run.cell].append(run)
    methods = []
    for name, unordered in sorted(named.items()):
        cells = dict(sorted(unordered.items(), key=lambda item: _order(flat(item[1][0].parameters))))
        labels = differences([flat(runs_of_cell[0].parameters) for runs_of_cell in cells.values()])
        for label, (cell, runs_of_cell) in zip(labels, cells.items(), strict=True):
            if labels.count(label) > 1:  # the cells differ in something that is no parameter
                label = ", ".join(part for part in (label, f"cell {cell[:8]}") if part)
            methods.append(Method(", ".join(part for part in (name, label) if part), tuple(runs_of_cell)))
    first = runs[0]
    return Race(first.experiment, first.engine, first.clock, setting, first.targets, tuple(methods), superseded, copies)


def _order(parameters):
    """A key that sorts parameters by their values, numbers as numbers."""
    return [
        (name, 0, value) if isinstance(value, (int, float)) else (name, 1, str(value))
        for name, value in parameters.items()
    ]


def flat(nested, prefix=""):
    """{"a": {"b": 1}} as {"a.b": 1}; what is inside a list stays there."""
    result = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def differences(configurations):
    """For each flat configuration the entries in which they are not all equal, as text: "workers = 8, ..."."""
    names = sorted({name for configuration in configurations for name in configuration})
    varying = [name for name in names if len({json.dumps(c.get(name), sort_keys=True) for c in configurations}) > 1]
    return [", ".join(_short(in_words({name: c[name]})) for name in varying if name in c) for c in configurations]


def _short(text):
    """A list of edges, say, is cut."""
    return text if len(text) <= 60 else text[:57] + "..."


def in_words(parameters):
    """Parameters as a line of text: "stepsize = 0.1, stop_stale = false"."""
    return ", ".join(
        f"{name} = {value if isinstance(value, str) else json.dumps(value).replace('Infinity', 'inf')}"
        for name, value in parameters.items()
    )


def _refuse_different_targets(runs):
    ladders = {}
    for run in runs:
        other = ladders.setdefault(run.experiment, run)
        if run.targets != other.targets:
            raise InvalidInput(
                f"the targets of experiment {run.experiment} differ between {other.path} ({_ladder(other.targets)}) "
                f"and {run.path} ({_ladder(run.targets)}); only runs with the same targets can be compared"
            )


def _ladder(targets):
    if targets is None:
        return "none"
    values = ", ".join(f"{value:g}" for value in targets.values)
    return f"{targets.metric} {values}, headline {targets.headline:g}, version {targets.version}"


def _refuse_poor_fidelity(runs):
    poor = [run for run in runs if run.poor_fidelity]
    if poor:
        raise InvalidInput(
            f"{len(poor)} of {len(runs)} runs did not keep their emulated pace, the first in {poor[0].path}; repeat "
            "them with a larger time_scale or on an idle machine, or show them all the same with --allow-poor-fidelity"
        )
