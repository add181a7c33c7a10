"""How well a simulation with measured links and gradients predicts the time per update of native runs.

`mpibench doctor --calibrate` on three ranks, then jobs/calibrated-server.toml and jobs/calibrated-network.toml on the
native clock and in simulation. Asked for: measured and predicted seconds per update within 15 %. All of it is repeated,
so that what was measured and what was run are close in time; another load in between shows in the spread.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import h5py
import numpy
from harness import ROOT, Figure, Row, arguments, launcher, show

JOBS = {"calibrated-server": 3, "calibrated-network": 2}
BAR = 0.15


def mpibench(*words, ranks=None):
    """Run a command; under a launcher where `ranks` says of how many."""
    command = [sys.executable, *(["-m", "mpi4py"] if ranks else []), "-m", "mpibench", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*(launcher(ranks) if ranks else []), *command], env=environment, capture_output=True, text=True, timeout=300
    )
    if done.returncode not in (0, 3):  # 3: a target was missed, which is no matter here
        raise SystemExit(done.stdout + done.stderr)


def update_seconds(folder):
    """Method to its median seconds per update, over seeds."""
    found = {}
    for path in folder.rglob("*.h5"):
        with h5py.File(path) as file:
            seconds = file.attrs["seconds"] / file["trace/updates"][-1]
            found.setdefault(str(file.attrs["algorithm"]), []).append(seconds)
    return {method: float(numpy.median(values)) for method, values in found.items()}


def once(folder):
    """Method to (measured, predicted) seconds per update."""
    topology = folder / "links.toml"
    job = ROOT / "jobs" / "calibrated-server.toml"
    mpibench("doctor", "--calibrate", topology, "--gradients-of", job, ranks=3)
    edges = tomllib.loads(topology.read_text())["edges"]
    latency = float(numpy.mean([edge["latency_seconds"] for edge in edges]))
    bandwidth = float(numpy.median([edge["bandwidth_bytes_per_second"] for edge in edges]))
    links = f"{{latency_seconds={latency:.6g}, bandwidth_bytes_per_second={bandwidth:.6g}}}"
    compute = f'{{profile="trace", file={json.dumps(str(topology.with_suffix(".csv")))}}}'
    modelled = ["--set", f"heterogeneity.compute={compute}", "--set", f"heterogeneity.links={links}"]
    found = {}
    for name, ranks in JOBS.items():
        path = ROOT / "jobs" / f"{name}.toml"
        words = ["run", path, "--set", "experiment.seeds=[0, 1, 2]", "-q", "--out"]
        mpibench(*words, folder / "native", "--engine", "mpi", "--clock", "native", ranks=ranks)
        mpibench(*words, folder / "virtual", *modelled)
    measured, predicted = update_seconds(folder / "native"), update_seconds(folder / "virtual")
    for method, seconds in measured.items():
        found[method] = seconds, predicted[method]
    return found


def main():
    """Print the table."""
    chosen = arguments(__doc__, 3)
    runs = []
    for _ in range(chosen.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(once(Path(folder)))
    rows = []
    for method in runs[0]:
        measured, predicted = zip(*(run[method] for run in runs), strict=True)
        ratios = [m / p for m, p in zip(measured, predicted, strict=True)]
        ratio = Figure.of(ratios).median
        row = Row(f"{method}, seconds per update", "ms", Figure.of([1e3 * m for m in measured]))
        row.peer, row.ratio = Figure.of([1e3 * p for p in predicted]), ratio
        row.bar, row.met = f"within {BAR:.0%} of predicted", abs(ratio - 1) <= BAR
        rows.append(row)
    show("Time per update: native, and predicted with measured links and gradients", rows, chosen.json, "predicted")


if __name__ == "__main__":
    main()
