"""What the benchmarks share: repetitions in turn, the table, `--json`, and the start under MPI."""

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # so that nothing has to be installed

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # as mpibench itself does, before numpy

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")  # set by the launchers of MPI


@dataclass
class Figure:
    """Median, least and greatest of some repetitions."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values):
        """The figure of these values."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self):
        return f"{short(self.median)} ({short(self.least)} .. {short(self.greatest)})"


@dataclass
class Row:
    """A line of the table. `met` says whether `bar`, the words of what is asked for, is met; None where nothing is."""

    case: str
    unit: str
    ours: Figure
    peer: Figure | None = None
    ratio: float | None = None  # median to median, ours to the peer's
    bar: str = ""
    met: bool | None = None


def short(value):
    """A number in four digits or in whole."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def arguments(text, repetitions, **more):
    """The command line: `--json`, `--repetitions`, and a flag for each of `more`, its name to (type, default, help);
    one of type bool takes no value."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--repetitions", type=int, default=repetitions, help="of every case (default: %(default)s)")
    for name, (kind, default, words) in more.items():
        how = {"action": "store_true"} if kind is bool else {"type": kind, "default": default}
        parser.add_argument(f"--{name}", help=words, **how)
    return parser.parse_args()


def in_turn(cases, repetitions):
    """Call each of `cases` (name to function) once, then each once more, and so on: A B A B, so that what else the
    machine does meets all of them alike. Returns name to the list of what the function gave."""
    results = {name: [] for name in cases}
    for _ in range(repetitions):
        for name, function in cases.items():
            results[name].append(function())
    return results


def ratio(ours, peer):
    """Median to median."""
    return ours.median / peer.median


def show(title, rows, as_json, peer="peer", notes=()):
    """Print the table, or JSON."""
    if as_json:
        print(json.dumps({"benchmark": title, "machine": machine(), "rows": [asdict(row) for row in rows]}, indent=1))
        return
    table = [("", "unit", "mpibench: median (min .. max)", peer, "ratio", "bar")]
    for row in rows:
        verdict = "" if row.met is None else f"{row.bar}: {'met' if row.met else 'MISSED'}"
        cells = [row.case, row.unit, str(row.ours), str(row.peer or ""), "" if row.ratio is None else short(row.ratio)]
        table.append((*cells, verdict))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    print(title)
    for line in table:
        if any(line):
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    facts = machine()
    print(f"  Python {facts['python']}, {facts['cores']} cores, load {facts['load']:.1f} at the end")
    for note in notes:
        print(f"  {note}")


def machine():
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
    }


def under_mpi(ranks, file, seconds):
    """The world communicator of `ranks` ranks. Where this process was not started under MPI, it starts itself again
    there (`launcher`), for at most `seconds`, and ends with what that gives.
    """
    if not any(name in os.environ for name in SIZES):
        command = [*launcher(ranks, file), sys.executable, "-m", "mpi4py", file, *sys.argv[1:]]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                sys.exit(process.wait(seconds))
            except subprocess.TimeoutExpired:
                process.terminate()  # the launcher ends its ranks
                sys.exit(f"{Path(file).name} has not ended in {seconds} s")
    from mpi4py import MPI

    if MPI.COMM_WORLD.size != ranks:
        sys.exit(f"{Path(file).name} takes {ranks} ranks, and there are {MPI.COMM_WORLD.size}")
    return MPI.COMM_WORLD


def launcher(ranks, file=sys.argv[0]):
    """The words that start so many ranks of what follows; MPIEXEC and MPIEXEC_FLAGS name another launcher and flags."""
    program = os.environ.get("MPIEXEC") or shutil.which("mpiexec", path=search_path())
    if program is None:
        sys.exit(f"{Path(file).name} needs an MPI launcher; MPIEXEC=... names one")
    return [program, *shlex.split(os.environ.get("MPIEXEC_FLAGS", "")), "-n", str(ranks)]


def search_path():
    """PATH after the folder of this interpreter, where an MPI library of the same environment puts its launcher."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
