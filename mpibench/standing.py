"""How an experiment stands: what of each cell waits, runs, is done, censored or failed, by its files and by Slurm."""

import json
import re
import socket
from pathlib import Path

import h5py

from mpibench import batch, record

STATES = ("done", "censored", "running", "failed", "interrupted", "waiting")


def of(experiment, out):
    """Plain data: name, jobs (id -> state, by squeue) and cells (algorithm, cell, hashes, seeds by state, reasons)."""
    settings = experiment.settings
    folder = Path(out) / settings.name
    jobs = queue(folder)
    numbers = {method.label: number for number, method in enumerate(experiment.methods)}
    groups = {}
    for number, cell in enumerate(experiment.cells()):  # tuning leaves one of each algorithm
        groups.setdefault(numbers[cell.label] if experiment.tuning else number, []).append(cell)
    rows = []
    for number, cells in groups.items():
        row = {"cell": number, "algorithm": cells[0].label, "parameters": cells[0].parameters, "reasons": []}
        row["seeds"] = {state: [] for state in STATES}
        if len(cells) > 1:
            row["parameters"] = None  # until they are chosen
        for seed in settings.seeds:
            state, reason, cell = state_of(out, cells, seed, jobs)
            row["seeds"][state].append(seed)
            row["parameters"] = cell.parameters if cell else row["parameters"]
            row["reasons"] += [f"seed {seed}: {reason}"] if reason else []
        rows.append(row)
    return {"experiment": settings.name, "results": str(folder), "jobs": jobs, "cells": rows}


def state_of(out, cells, seed, jobs):
    """(state, reason or "", the cell that has a file) of a seed; `cells`: the points of which one is run."""
    unfinished = []
    for cell in cells:
        place = record.place(out, cell.name, cell.label, cell.hash, seed, "*")
        files = sorted(place.parent.glob(place.name))
        unfinished += [(path, cell) for path in files if not record.is_complete(path)]  # collected
        for path in filter(record.is_complete, files):
            return "done" if record.outcome_of(path) == "reached" else "censored", "", cell
        unfinished += [(part, cell) for part in place.parent.glob(f"{place.name}.part")]
    if not unfinished:
        return "waiting", "", None
    part, cell = max(unfinished, key=lambda pair: pair[0].name)  # names begin with the instant
    try:
        with h5py.File(part) as file:
            outcome, error, run = (file.attrs.get(name, "") for name in ("outcome", "error", "run_id"))
            ranks = file.get("provenance/ranks", {})
            host, process = (ranks[name][0] if name in ranks else b"" for name in ("host", "process"))
    except OSError as unreadable:
        return "failed", f"{part} cannot be read: {unreadable}".partition("\n")[0], cell
    if not outcome:
        _, job, *index = run.split("-")[:-1] or ["", "local"]
        name = "_".join([job, *index])
        if job != "local":
            alive = jobs.get(name) == "RUNNING"
        else:
            alive = host != socket.gethostname().encode() or Path(f"/proc/{int(process)}").exists()
        if alive:
            return "running", "", cell
        said = "" if job == "local" else last_error(part.parent.parent / "jobs", name)
        return "failed", f"was killed, or its rank 0 was; {said or part}", cell
    if outcome == "walltime":
        return "interrupted", error or outcome, cell
    return "failed", f"{error or outcome}; {part}", cell


def last_error(folder, job):
    """What the log of a job says last of an error, and where; "" if it says nothing."""
    for path in sorted(folder.glob(f"*-{job}.out")):
        found = re.findall(r"\b\w+(?:Error|Exception|Interrupt): .*|mpibench: .*", path.read_text(errors="replace"))
        if found:
            return f"{found[-1]} ({path})"
    return ""


def queue(folder):
    """Job id -> state of the jobs that were submitted for this folder of results and are in the queue now."""
    known = []
    for path in sorted((folder / "jobs").glob("*.json")):
        known += [array["id"] for array in json.loads(path.read_text(encoding="utf-8"))["arrays"]]
    if not known:
        return {}
    # not by --jobs: squeue fails where one of them is forgotten
    lines = batch.asked("squeue", "--noheader", "--array", "--me", "--format=%i %T").splitlines()
    found = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return {name: state for name, state in found.items() if name.partition("_")[0] in known}


def text_of(found):
    """For people: a line for each cell, its reasons below, and the jobs in the queue."""
    lines = [f"{found['experiment']}: {found['results']}"]
    for row in found["cells"]:
        counts = ", ".join(f"{len(seeds)} {state}" for state, seeds in row["seeds"].items() if seeds)
        parameters = "not tuned yet" if row["parameters"] is None else json.dumps(row["parameters"])
        lines.append(f"  {row['cell']:>3}  {counts}  {row['algorithm']}  {parameters}")
        lines += [f"       {reason}" for reason in row["reasons"]]
    if found["jobs"]:
        lines.append("queue: " + ", ".join(f"{name} {state}" for name, state in sorted(found["jobs"].items())))
    return "\n".join(lines)
