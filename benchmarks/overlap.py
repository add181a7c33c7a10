"""Do asynchronous methods keep exchanging while gradients are computed? Native clock, 8 MB models, messages over TCP.

    python benchmarks/overlap.py

Four ranks, a quadratic of a million dimensions, gradients of some 10 ms. With the helper thread the main thread moves
messages during a gradient; without it nothing moves until the gradient is there. Age is how many own iterations ago, by
the stamps, what a rank uses of another was made (R-FAST, OSGP), or its request was sent (AD-PSGD); a model takes
milliseconds over TCP even on one host. MPICH is told to use UCX over TCP also between the ranks of one host.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from harness import ROOT, Figure, Row, arguments, show

RANKS = 4
JOB = """
schema = 1
[experiment]
name = "overlap"
engine = "mpi"
clock = "native"
workers = {ranks}
seeds = [0]
stop = {{ seconds = {seconds} }}
snapshot = {{ seconds = {seconds} }}
targets = {{ metric = "loss", values = [0.0], headline = 0.0 }}
[problem]
name = "quadratic"
dimension = 1_000_000
[graph]
name = "ring"
[[algorithm]]
name = "r_fast"
stepsize = 0.01
[[algorithm]]
name = "ad_psgd"
stepsize = 0.01
[[algorithm]]
name = "osgp"
stepsize = 0.01
peers = "graph"
"""
OVER_TCP = {"MPIR_CVAR_CH4_NETMOD": "ucx", "MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp"}
START = """
import sys
from mpibench.engines import mpi
if {inline}:
    mpi.INLINE_SECONDS = float("inf")
from mpibench.__main__ import main
main()
"""


def races(seconds, inline):
    """{method: (mean age, messages a gradient, gradients a second and rank)} of one run of each."""
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        job, start = Path(folder, "job.toml"), Path(folder, "start.py")
        job.write_text(JOB.format(ranks=RANKS, seconds=seconds))
        start.write_text(START.format(inline=inline))
        launcher = Path(sys.executable).with_name("mpiexec")
        command = [launcher, "-n", RANKS, sys.executable, "-m", "mpi4py", start, "run", job, "-q", "--out", folder]
        environment = os.environ | OVER_TCP | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, timeout=120 + 6 * seconds
        )
        if done.returncode not in (0, 3):  # 3: the target is missed, as it must be
            sys.exit(done.stderr)
        found = {}
        for path in Path(folder).rglob("*.h5"):
            with h5py.File(path) as file:
                gradients, ages = file["ranks/gradients"][:].sum(), file["ages"]
                age = ages["age_sum"][:].sum() / max(1, ages["count"][:].sum())
                messages = file["ranks/messages_sent"][:].sum() / gradients
                found[file.attrs["algorithm"]] = age, messages, gradients / RANKS / file.attrs["seconds"]
        return found


def main():
    options = arguments(__doc__, 3, seconds=(float, 3.0, "of each run (default: 3)"))
    ours = [races(options.seconds, inline=False) for _ in range(options.repetitions)]
    without = [races(options.seconds, inline=True) for _ in range(options.repetitions)]
    rows = []
    for method in ours[0]:
        for place, unit in enumerate(("age, iterations", "messages a gradient", "gradients a second")):
            pair = [Figure.of([run[method][place] for run in runs]) for runs in (ours, without)]
            ratio = pair[0].median / pair[1].median if pair[1].median else numpy.nan
            rows.append(Row(method, unit, *pair, ratio))
    notes = [f"over TCP: {' '.join(f'{name}={value}' for name, value in OVER_TCP.items())}"]
    show("exchange while gradients are computed, 8 MB models", rows, options.json, peer="without thread", notes=notes)


if __name__ == "__main__":
    main()
