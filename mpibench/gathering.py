"""Results of killed runs and of several places: parts become files that say why they are incomplete (`collect`), and
files of several folders come together in one (`merge`). Nothing that exists is ever written over.
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import h5py

from mpibench import record
from mpibench.errors import InvalidInput
from mpibench.verify import verify


@dataclass
class Gathered:
    """What was done, a line for each thing, and what was found wrong."""

    lines: list = field(default_factory=list)
    findings: list = field(default_factory=list)


def collect(folders, also_restartable=False):
    """Make every part below these folders a sealed file with complete = 0 that names the reason.

    A part that another process of this host still writes is left alone, and one from which `run --resume` can go on,
    unless `also_restartable`. Parts of other hosts' runs are taken: call it when these have ended.
    """
    done = Gathered()
    parts = sorted({part for folder in map(Path, folders) for part in _below(folder, "*.h5.part")})
    for part in parts:
        final = part.with_suffix("")
        try:
            with h5py.File(part) as file:
                restartable = "restart" in file and not also_restartable
                if _alive(file) or restartable or final.exists():
                    why = "still runs" if _alive(file) else f"{final.name} exists" if final.exists() else None
                    done.lines.append(f"{part}: left, {why or '`run --resume` can go on from it'}")
                    continue
                content, why = _closed(file)
        except (OSError, RuntimeError, KeyError) as error:
            done.findings.append(f"{part}: cannot be read as HDF5 ({str(error).partition(chr(10))[0]})")
            continue
        record.put_new(final, content)
        part.unlink()
        done.lines.append(f"{final}: collected, {why}")
    return done


def _alive(file):
    """Whether the process that writes this part still runs here."""
    ranks = file.get("provenance/ranks", {})
    if "process" not in ranks or "process_started" not in ranks or ranks["host"].asstr()[0] != os.uname().nodename:
        return False
    try:
        ticks = Path(f"/proc/{ranks['process'][0]}/stat").read_text().rpartition(")")[2].split()[19]
        boot = re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return False
    started = int(boot[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")
    return abs(started - ranks["process_started"][0]) < 2


def _closed(part):
    """(the bytes of the file that a part becomes, why it is incomplete)."""
    with h5py.File("collected", "w", driver="core", backing_store=False) as file:
        file.attrs.update(part.attrs)
        for name in part:
            part.copy(name, file)
        missing = [name for name in ("trace", "ranks") if name not in file]
        why = file.attrs.get("error") or "killed before it had ended"
        file.attrs["outcome"] = file.attrs.get("outcome", "fault")
        file.attrs["error"] = f"{why}; without {' and '.join(missing)}" if missing else why
        file.attrs["complete"] = 0
        file.flush()
        return record.seal(record.packed(file)), file.attrs["error"]


def merge(sources, out):
    """Copy the results in these files and folders to `out`, by experiment, algorithm and cell.

    Each file is verified: where one has a finding, beside that it is incomplete, nothing is merged. Raises InvalidInput
    where targets of an experiment differ, also from those that are in `out`, or two files claim one run and differ.
    """
    paths = list({p.resolve(): p for source in map(Path, sources) for p in _below(source, "*.h5")}.values())
    there = sorted(Path(out).rglob("*.h5")) if Path(out).is_dir() else []
    if not paths:
        raise InvalidInput(f"there is no result file (*.h5) in {', '.join(map(str, sources))}")
    done = Gathered()
    done.findings = [str(found) for path in paths for found in verify(path) if found.check != "complete"]
    if done.findings:
        return done
    targets, runs, known, copies = {}, {}, defaultdict(list), []
    for path in [*there, *paths]:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        with h5py.File(path) as file:
            attrs = {name: file.attrs[name] for name in ("run_id", "experiment", "algorithm", "cell", "seed")}
            said = json.loads(file["config/resolved"].asstr()[()])["experiment"]["targets"]
        first, ladder = targets.setdefault(attrs["experiment"], (path, said))
        if ladder != said:
            raise InvalidInput(
                f"the targets of experiment {attrs['experiment']} differ between {first} (version {ladder['version']}) "
                f"and {path} (version {said['version']}); only results with the same targets can be merged"
            )
        before = runs.setdefault(attrs["run_id"], (path, digest))
        if before[1] != digest:
            raise InvalidInput(f"{before[0]} and {path} claim to be the run {attrs['run_id']} and differ; keep one")
        if before[0] != path:
            done.lines.append(f"{path}: duplicate of {before[0]}")
            continue
        key = attrs["experiment"], attrs["algorithm"], attrs["cell"], int(attrs["seed"])
        if known[key] and path not in there:
            done.lines.append(f"{path}: seed {key[3]} of {key[1]} once more, beside {known[key][0]}")
        known[key].append(path)
        if path not in there:
            goal = Path(out) / attrs["experiment"] / f"{attrs['algorithm']}-{attrs['cell'][:8]}" / path.name
            copies.append((path, goal, content))
    for path, goal, _ in copies:
        if goal.exists():
            raise InvalidInput(f"{goal} exists and is another run than {path}; a result is never written over")
    for path, goal, content in copies:
        record.put_new(goal, content)
        done.lines.append(f"{path}: merged")
    return done


def _below(path, pattern):
    """The files of this pattern below a folder, or the file itself; InvalidInput where there is neither."""
    if path.is_dir():
        return sorted(path.rglob(pattern))
    if path.is_file():
        return [path]
    raise InvalidInput(f"there is no file or folder {path}")
