"""How faithfully an emulation over MPI follows the simulation: 16 workers on links of 1 ms, whatever cores there are.

    python benchmarks/fidelity.py    or    mpiexec -n 17 python -m mpi4py benchmarks/fidelity.py

Worker i takes 10 ms * sqrt(i) for a gradient of the logistic regression on digits. The same cell and seed are run in
virtual time and over MPI by the emulated clock, which chooses by itself how many wall seconds a modelled second takes
(`time_scale`), and runs again, slower, when messages came too late to be put in order (`attempts`).

Identical means every event of every rank and every byte of the last model and of the metrics at all snapshots. Lateness
is that of deliveries behind the wall instant that they were due, in wall milliseconds.
"""

import tempfile
from pathlib import Path

from harness import Figure, Row, arguments, show, under_mpi

RANKS = 17
SECONDS = 1.0  # modelled
MOST_LATENESS_MS = 1.0  # 99th percentile
EXPERIMENT = """
schema = 1
[experiment]
name = "fidelity"
engine = "mpi"
clock = "emulated"
workers = 16
seeds = [0, 1]
stop = {{ seconds = {seconds} }}
snapshot = {{ seconds = 0.1 }}
targets = {{ metric = "loss", values = [0.5], headline = 0.5 }}
[problem]
name = "logistic"
[heterogeneity]
compute = {{ profile = "sqrt", unit_seconds = 0.01 }}
links = {{ latency_seconds = 0.001 }}
[[algorithm]]
name = "async_sgd"
stepsize = 0.05
[[algorithm]]
name = "ringmaster"
stepsize = 0.05
threshold = 16
[[algorithm]]
name = "ringmaster"
label = "ringmaster-with-stops"
stepsize = 0.05
threshold = 16
stop_stale = true
"""


def same(emulated, simulated):
    """Whether two Results agree in all that happened and in all that came of it."""
    identical = all(emulated.attrs[name] == simulated.attrs[name] for name in ("event_hash", "model_hash", "seconds"))
    columns = ("time", "updates", "discarded", "gradients", "messages", "bytes", *simulated.metrics)
    return identical and all((emulated.trace[name] == simulated.trace[name]).all() for name in columns)


def main():
    flags = {"seconds": (float, SECONDS, "modelled length of a run (default: %(default)s)")}
    given = arguments(__doc__, repetitions=2, **flags)
    comm = under_mpi(RANKS, __file__, 600)
    from mpibench import experiment, runner

    resolved = None
    if comm.rank == 0:
        with tempfile.TemporaryDirectory() as folder:
            job = Path(folder, "job.toml")
            job.write_text(EXPERIMENT.format(seconds=given.seconds))
            resolved = experiment.load(job).resolved
    cells = experiment.Experiment.from_resolved(comm.bcast(resolved)).cells()
    runs = {cell.label: [] for cell in cells}
    for repetition in range(given.repetitions):
        for cell in cells:
            seed = cell.seeds[repetition % len(cell.seeds)]
            emulated, _ = runner.emulate(comm, cell, seed)
            if comm.rank == 0:
                runs[cell.label].append((emulated, same(emulated, runner.simulate(cell, seed))))
    if comm.rank == 0:
        rows, notes = [], []
        for label, results in runs.items():
            rows += rows_of(label, results)
            notes.append(f"{label}: {note_of(results)}")
        show("an emulation of 16 workers beside the simulation", rows, given.json, notes=notes)


def rows_of(label, results):
    """The rows of one algorithm, from its (Result, whether it is identical to the simulation)."""
    fidelity = [result.fidelity for result, _ in results]
    identical = Figure.of([float(is_same) for _, is_same in results])
    violations = Figure.of([float(facts["order_violations"]) for facts in fidelity])
    rows = [
        Row(label, "share identical", identical, bar="all", met=identical.least == 1),
        Row(label, "order violations", violations, bar="none", met=violations.greatest == 0),
    ]
    for name, words in (("median", "p50"), ("p99", "p99"), ("max", "max")):
        late = Figure.of([1e3 * facts[f"lateness_{name}_seconds"] for facts in fidelity])
        rows.append(Row(label, f"ms late, {words}", late))
        if name == "p99":
            rows[-1].bar, rows[-1].met = f"<= {MOST_LATENESS_MS:g}", late.median <= MOST_LATENESS_MS
    rows.append(Row(label, "time_scale", Figure.of([facts["time_scale"] for facts in fidelity])))
    return rows


def note_of(results):
    """What else one should know of these runs."""
    updates = [int(result.trace["updates"][-1]) for result, _ in results]
    attempts = [result.fidelity["attempts"] for result, _ in results]
    overruns = [result.fidelity["overruns"] for result, _ in results]
    return f"{updates} updates, in {attempts} attempts, {overruns} gradients took longer than modelled"


if __name__ == "__main__":
    main()
