"""How long the command line takes to answer: wall time of a process, beside a Python that does nothing.

`list` reads the first line of each file and imports none of them; `--dry-run` checks a whole experiment, its data
included, and lists its cells.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import ROOT, Figure, Row, arguments, in_turn, ratio, show

SECONDS = 0.5  # bar of `list`
EXPERIMENT = """
schema = 1
[experiment]
name = "startup"
workers = 8
seeds = [0, 1]
stop = { updates = 100 }
snapshot = { updates = 10 }
targets = { metric = "loss", values = [0.5], headline = 0.5 }
[problem]
name = "logistic"
[heterogeneity]
compute = { profile = "sqrt", unit_seconds = 0.01 }
[[algorithm]]
name = "async_sgd"
stepsize = [0.1, 0.2, 0.4]
"""


def wall(*command):
    """Seconds of wall that this Python takes for these arguments."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    given = arguments(__doc__, repetitions=7)
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job.toml")
        job.write_text(EXPERIMENT)
        commands = {"list": ["list"], "--help": ["--help"], "run JOB --dry-run": ["run", str(job), "--dry-run"]}
        cases = {name: lambda command=command: wall("-m", "mpibench", *command) for name, command in commands.items()}
        times = in_turn({"nothing": lambda: wall("-c", "pass"), **cases}, 1 + given.repetitions)
    figures = {name: Figure.of(values[1:]) for name, values in times.items()}  # the first writes the byte code
    nothing = figures.pop("nothing")
    rows = [Row(name, "s of wall", figure, nothing, ratio(figure, nothing)) for name, figure in figures.items()]
    rows[0].bar, rows[0].met = f"< {SECONDS:g}", figures["list"].median < SECONDS
    show("start of the command line", rows, given.json, peer="python -c pass")


if __name__ == "__main__":
    main()
