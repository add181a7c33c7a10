"""Ringmaster with 10,000 workers in simulation: 100,000 updates of a quadratic of dimension 1,729, from an experiment
file, as a user runs it.

Worker i takes sqrt(i) seconds. The slowest takes 100 s, in which the others make some 19,800 updates, so that a
threshold of R = 20,000 discards nothing: every gradient counts, and every worker keeps a point of its own. `--all` adds
R = 2,000, with which only the fastest hundred or so workers are quick enough, and what the others do is discarded or
stopped: five times as many messages and computations for the same updates.

Every case is a process of its own, for its peak memory: all of it, from the start of Python to the last update, counts.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Figure, Row, arguments, in_turn, show

WORKERS, UPDATES, DIMENSION = 10_000, 100_000, 1729
CASES = {"R = 20,000": (20_000, False), "R = 20,000, with stops": (20_000, True)}  # threshold, stop_stale
HARD_CASES = {"R = 2,000": (2_000, False), "R = 2,000, with stops": (2_000, True)}
SECONDS, MEGABYTES = 60, 500  # bars
EXPERIMENT = """
schema = 1
[experiment]
name = "ringmaster-large"
workers = {workers}
seeds = [0]
stop = {{ updates = {updates} }}
snapshot = {{ updates = 10_000 }}
targets = {{ metric = "gap", values = [1e-1], headline = 1e-1 }}
[problem]
name = "quadratic"
dimension = {dimension}
noise = 0.01
[heterogeneity]
compute = {{ profile = "sqrt", unit_seconds = 1.0 }}
[[algorithm]]
name = "ringmaster"
stepsize = 0.01
threshold = {threshold}
stop_stale = {stop_stale}
"""


def run(threshold, stop_stale):
    """Run the experiment here, and print what it took as JSON."""
    from mpibench import experiment, runner

    values = {"workers": WORKERS, "updates": UPDATES, "dimension": DIMENSION}
    values |= {"threshold": threshold, "stop_stale": str(stop_stale).lower()}
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder, "job.toml")
        job.write_text(EXPERIMENT.format(**values))
        (cell,) = experiment.load(job).cells()
    result = runner.simulate(cell, cell.seeds[0])
    used = resource.getrusage(resource.RUSAGE_SELF)
    ranks = result.ranks
    facts = {
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "megabytes": used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024),
        # computations that ended or were stopped, and messages sent
        "events": int(ranks["gradients"].sum() + ranks["messages_sent"].sum()),
        "used": int(ranks["used"].sum()),
        "discarded": int(ranks["discarded"].sum()),
        "stopped": int(ranks["stopped"].sum()),
    }
    print(json.dumps(facts))


def in_a_process(threshold, stop_stale):
    """What `run` prints, of a new process."""
    command = [sys.executable, __file__, "--only", f"{threshold},{int(stop_stale)}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    more = (bool, False, "add the cases with R = 2,000")
    given = arguments(__doc__, repetitions=1, all=more, only=(str, None, "threshold,stops: this case, here"))
    if given.only:
        threshold, stops = map(int, given.only.split(","))
        run(threshold, bool(stops))
        return
    cases = CASES | HARD_CASES if given.all else CASES
    runs = in_turn({name: lambda case=case: in_a_process(*case) for name, case in cases.items()}, given.repetitions)
    rows, notes = [], []
    for name, facts in runs.items():
        cpu = Figure.of([run["cpu_seconds"] for run in facts])
        memory = Figure.of([run["megabytes"] for run in facts])
        rate = Figure.of([run["events"] / run["cpu_seconds"] for run in facts])
        rows.append(Row(name, "s of CPU", cpu, bar=f"<= {SECONDS}", met=cpu.median <= SECONDS))
        rows.append(Row(name, "MB at most", memory, bar=f"<= {MEGABYTES}", met=memory.median <= MEGABYTES))
        rows.append(Row(name, "events/s of CPU", rate))
        counts = [f"{facts[0][word]:,} {word}" for word in ("used", "discarded", "stopped")]
        notes.append(f"{name}: gradients {', '.join(counts)}")
    show(f"Ringmaster, {WORKERS:,} workers, {UPDATES:,} updates, d = {DIMENSION:,}", rows, given.json, notes=notes)


if __name__ == "__main__":
    main()
