"""How long a report takes to make of many result files, in CPU seconds, and how much memory: 1,000 synthetic files of
20 methods and 50 seeds, with 200 snapshots each, a byte ledger, staleness, and events in every tenth.

Bar: 30 s and 1 GB.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from harness import ROOT, Figure, Row, arguments, show

SECONDS, MEGABYTES = 30, 1000
RANKS, SNAPSHOTS, EVENTS, BUDGET = 17, 200, 4000, 10.0


def write(path, method, seed, rng, events):
    """One result file as `mpibench.record` lays it out; some of the runs of slow methods miss their targets."""
    name, pace = f"method_{method:02d}", 0.5 + 0.1 * method
    targets = {"metric": "loss", "values": [1.0, 0.1, 0.01], "headline": 0.1, "version": 1}
    resolved = {
        "experiment": {"name": "many", "workers": RANKS - 1, "targets": targets, "stop": {"seconds": BUDGET}},
        "problem": {"name": "quadratic", "dimension": 1000},
        "algorithm": {"name": name, "stepsize": 0.1},
        "heterogeneity": {"links": {"latency_seconds": 0.001}},
    }
    times = np.linspace(0.0, BUDGET, SNAPSHOTS)
    loss = 3.0 * np.exp(-times / pace * rng.lognormal(sigma=0.15)) * rng.lognormal(sigma=0.05, size=SNAPSHOTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {
                "schema": 1, "run_id": f"20260101T{seed:06d}Z-local-{method:06x}", "experiment": "many",
                "algorithm": name, "parameters": json.dumps({"stepsize": 0.1}), "engine": "simulation",
                "clock": "virtual",
                "workers": RANKS - 1, "ranks": RANKS, "seed": seed, "cell": f"{method:016x}",
                "outcome": "reached" if (loss <= 0.1).any() else "budget", "final_model": "the server's",
                "seconds": BUDGET, "budget_seconds": BUDGET, "event_hash": f"{seed:016x}", "complete": 1,
            }
        )  # fmt: skip
        file["config/resolved"] = json.dumps(resolved)
        file["config/tuning"] = json.dumps({"seeds": [100, 101], "trials": [{}] * 5, "core_seconds": 12.0})
        file["config/hash"] = f"{method:064x}"
        pace_of_updates = {"least": 0.01 * pace, "expected": 0.011 * pace, "most": 0.02 * pace}
        of_targets = [{"value": v, "eps": v, "updates": 10 / v, "seconds": 0.1 * pace / v} for v in targets["values"]]
        file["prediction"] = json.dumps(
            {"update_seconds": pace_of_updates, "targets": of_targets, "source": "a theorem"}
        )
        file["provenance/code"] = json.dumps({"version": "0.1.0", "commit": "0" * 40, "dirty": False})
        packages = {"python": "3.11", "distributions": {f"package-{k}": "1.0 py3-none-any" for k in range(40)}}
        file["provenance/packages"] = json.dumps(packages)
        file["provenance/data"] = json.dumps({"name": "synthetic", "version": "1", "licence": "none", "checksum": "0"})
        for column, value in {"host": "node", "cpu_model": "a processor"}.items():
            file[f"provenance/ranks/{column}"] = [value] * RANKS
        columns = {"time": times, "iteration": np.arange(SNAPSHOTS), "loss": loss, "gradient_norm_squared": loss**2}
        columns |= {name: each * np.arange(SNAPSHOTS) for name, each in COUNTERS.items()}
        for column, values in columns.items():
            file[f"trace/{column}"] = values
        for metric in ("loss", "gradient_norm_squared"):
            file[f"trace/{metric}"].attrs["direction"] = "lower"
        file["updates/staleness_histogram"] = rng.integers(1, 1000, 64)
        workers = np.arange(1, RANKS)
        ends = np.concatenate([workers, np.zeros(RANKS - 1, int)]), np.concatenate([np.zeros(RANKS - 1, int), workers])
        counts = rng.integers(100, 1000, 2 * (RANKS - 1))
        edges = {
            "source": ends[1],
            "destination": ends[0],
            "messages": counts,
            "lost": 0 * counts,
            "bytes": 8000 * counts,
        }
        for column, values in edges.items():
            file[f"bytes/edges/{column}"] = values
        for level, each in {"algorithmic": 64000, "serialised": 8000, "mpi": 8040}.items():
            file[f"bytes/{level}/edges"] = each * counts
            file[f"bytes/{level}/up"], file[f"bytes/{level}/down"] = each * counts[:16].sum(), each * counts[16:].sum()
        for column in ("gradients", "messages_sent", "bytes_sent"):
            file[f"ranks/{column}"] = rng.integers(100, 1000, RANKS)
        file["ranks/busy_seconds"] = rng.uniform(0, BUDGET, RANKS)
        if events:
            _events(file, rng)


COUNTERS = {"updates": 1, "gradients": 5, "discarded": 0, "messages": 10, "bytes": 80000, "bits": 640000}


def _events(file, rng):
    starts = np.sort(rng.uniform(0, BUDGET, EVENTS))
    ranks = rng.integers(RANKS, size=EVENTS)
    columns = {"t": starts, "until": starts + 0.02, "rank": ranks, "kind": 2 * rng.integers(2, size=EVENTS)}
    columns |= {"peer": (ranks + 1) % RANKS, "tag": np.zeros(EVENTS, int), "bytes": np.full(EVENTS, 8000)}
    for column, values in columns.items():
        file[f"events/{column}"] = values
    file["events"].attrs["tags"] = json.dumps({"0": "MODEL"})


def make(folder, files, methods=20):
    """So many files of so many methods in a folder."""
    rng = np.random.default_rng(0)
    for k in range(files):
        method, seed = k % methods, k // methods
        write(Path(folder, f"method_{method:02d}", f"seed-{seed}.h5"), method, seed, rng, seed % 10 == 0)


def measured(folder):
    """(CPU seconds, MB at the peak, MB of the page) of one report."""
    page = Path(folder, "report.html")
    command = [sys.executable, "-m", "analysis", "report", str(folder), "--ungated", "--out", str(page)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, after.ru_maxrss / 1000, page.stat().st_size / 1e6, wall


def main():
    given = arguments(__doc__, repetitions=1, files=(int, 1000, "how many (default: 1000)"))
    with tempfile.TemporaryDirectory() as folder:
        make(folder, given.files)
        runs = [measured(folder) for _ in range(given.repetitions)]
    cpu, peak, size, wall = (Figure.of(list(column)) for column in zip(*runs, strict=True))
    case = f"{given.files:,} files"
    rows = [
        Row(case, "s of CPU", cpu, bar=f"< {SECONDS}", met=cpu.median < SECONDS),
        Row(case, "s of wall", wall),
        Row(case, "MB at the peak", peak, bar=f"< {MEGABYTES}", met=peak.median < MEGABYTES),
        Row(case, "MB of the page", size),
    ]
    show("a report", rows, given.json)


if __name__ == "__main__":
    main()
