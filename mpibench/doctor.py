"""What this machine has for runs over MPI, and what to do about what is wrong.

Every finding is a line: what was looked at, what is there, and where it needs something, what to do. Works without MPI,
too; under a launcher all ranks are asked, and rank 0 speaks.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from mpibench import provenance

LAUNCHED_BY = {
    "SLURM_STEP_ID": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun of Open MPI", "PMI_SIZE": "mpiexec of Hydra",
    "FLUX_JOB_ID": "flux", "ALPS_APP_ID": "aprun",
}  # fmt: skip
PMI = {"PMIX_RANK": "PMIx", "PMI2_RANK": "PMI2", "PMI_RANK": "PMI", "PMI_FD": "PMI"}
MARKS = {"Open MPI": "Open MPI", "OpenRTE": "Open MPI", "prte": "Open MPI", "Intel": "Intel MPI", "HYDRA": "MPICH"}
SLOW_CLOCK_SECONDS = 1e-6
SLOW_TYPES = {"nfs": "NFS", "nfs4": "NFS", "lustre": "Lustre", "gpfs": "GPFS", "beegfs": "BeeGFS", "fuse": "FUSE"}
GET_MPI = (
    "load the MPI module of the machine and `pip install mpi4py`, or install a package of the system (say, "
    "libopenmpi-dev or mpich), or take the wheel: `pip install mpibench[mpich]`"
)


@dataclass(frozen=True)
class Finding:
    """A line of the report; `advice` where something should be done, `bad` where runs over MPI will not work."""

    what: str
    found: str
    advice: str = ""
    bad: bool = False


def examine(comm=None, folder="."):
    """The findings, on rank 0 of `comm` (a communicator, or None without MPI); all ranks call it."""
    row = provenance.rank(comm.rank if comm else 0)
    rows = comm.gather(row) if comm else [row]
    offsets = measured_offsets(comm) if comm and comm.size > 1 else []
    if comm and comm.rank:
        return []
    found = [Finding("Python", f"{sys.version.split()[0]}, mpibench {provenance.code()['version']}")]
    found += of_mpi() if comm else [Finding("MPI", "not looked at", "leave out --no-mpi to look")]
    found += of_launch(rows if comm else [])
    found += of_cores(rows)
    found += of_clocks(rows, offsets)
    found += of_files(Path(folder))
    found += of_network()
    return found + of_gpus()


def without_mpi(error):
    """The finding where MPI cannot be loaded."""
    return Finding("MPI", str(error).partition("\n")[0], f"without MPI there is only the simulation: {GET_MPI}", True)


def of_mpi():
    """The library that is loaded, how it was found, and what it can do."""
    from mpi4py import MPI

    library = " ".join(MPI.Get_library_version().strip("\0\n ").splitlines()[0].split())
    vendor = MPI.get_vendor()[0]
    paths = sorted({line.split()[-1] for line in _lines("/proc/self/maps") if re.search(r"/libmpi[\w.]*\.so", line)})
    found = [Finding("MPI", f"{library}{' from ' if paths else ''}{', '.join(paths)}")]
    if mixed := other_launcher(vendor):
        found.append(mixed)
    level = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized"}
    level = level.get(MPI.Query_thread(), "multiple")
    advice = "" if level == "multiple" else "the watchdog cannot end all ranks by MPI; it leaves by itself instead"
    found.append(Finding("thread level", level, advice))
    try:
        comm = MPI.COMM_SELF.Dup()
        comm.Is_revoked()
        comm.Get_failed().Free()
        comm.Free()
        found.append(Finding("ULFM", "there: calls that outlive a failed rank"))
    except (NotImplementedError, MPI.Exception) as error:
        text = "runs that shall outlive a killed rank need Open MPI started with `--with-ft ulfm`"
        found.append(Finding("ULFM", f"not there ({str(error).partition(chr(10))[0][:60]})", text))
    return found


def other_launcher(vendor):
    """A finding where the mpiexec at hand belongs to another library than the one that is loaded."""
    path = shutil.which("mpiexec")
    if path is None:
        return Finding("mpiexec", "none on PATH", f"start ranks with the launcher of the batch system, or {GET_MPI}")
    said = _said(path, "--version")
    theirs = next((name for mark, name in MARKS.items() if mark in said), None)
    if theirs is None or theirs == vendor or {theirs, vendor} <= {"MPICH", "Intel MPI", "MVAPICH", "Cray MPICH"}:
        return Finding("mpiexec", path)
    text = f"two MPI libraries are mixed: put the bin folder of {vendor} first on PATH, or load one module only"
    return Finding("mpiexec", f"{path} is of {theirs}, and {vendor} is loaded", text, True)


def of_launch(rows):
    """Who has started us, and how ranks find each other."""
    by = next((name for variable, name in LAUNCHED_BY.items() if variable in os.environ), "by hand")
    pmi = next((name for variable, name in PMI.items() if variable in os.environ), "no PMI")
    found = [Finding("started", f"{by}, {pmi}, {max(1, len(rows))} ranks")]
    if len(rows) == 1 and by != "by hand" and "1" not in (os.environ.get(n, "1") for n in ("SLURM_NTASKS", "PMI_SIZE")):
        text = "each process believes it is alone: give srun the --mpi that the library was built for"
        found.append(Finding("ranks", "1, though the launcher has started more", text, True))
    if srun := shutil.which("srun"):
        kinds = [word for word in re.split(r"[\s,:]+", _said(srun, "--mpi=list")) if re.fullmatch(r"pmi\w*|none", word)]
        found.append(Finding("srun --mpi", ", ".join(dict.fromkeys(kinds)) or "says nothing"))
    return found


def of_cores(rows):
    """The cores that ranks really hold."""
    found = []
    for host in dict.fromkeys(row["host"] for row in rows):
        ours = [row for row in rows if row["host"] == host]
        held = [set(row.get("affinity", "").split(",")) - {""} for row in ours]
        union = set().union(*held)
        quota = ours[0].get("cpu_quota")
        cores = min(len(union) or ours[0]["cpus"], quota or float("inf"))
        bound = "each its own" if sum(map(len, held)) == len(union) else "shared by ranks"
        text = f"{len(ours)} ranks of {host} on {cores:g} of {ours[0]['cpus']} cores, {bound}"
        advice = ""
        if len(ours) > cores:
            advice = f"oversubscribed: native times need {len(ours)} cores; emulated runs only take longer"
        elif len(ours) > 1 and bound != "each its own":
            advice = "bind ranks for native times: srun --cpu-bind=cores, mpirun --bind-to core"
        found.append(Finding("cores", text, advice))
        load = ours[0].get("load_average", 0)
        if load > len(ours) + 0.5 * cores:
            text = "others use this host: native times measure them, too"
            found.append(Finding("load", f"{load:.1f} on {host}", text))
        threads = int(os.environ.get("OMP_NUM_THREADS", "1") or 1)
        if threads * len(ours) > cores and threads > 1:
            found.append(Finding("threads", f"OMP_NUM_THREADS={threads}", "set it to the cores that one rank has"))
    return found


def of_clocks(rows, offsets):
    """Resolution, and how far the clocks of hosts are apart: `offsets` has (rank, offset, round trip) in ns."""
    resolution = max(row["clock_resolution_seconds"] for row in rows)
    overhead = max(row["clock_overhead_seconds"] for row in rows)
    advice = "intervals below a tenth of a millisecond cannot be told" if resolution > SLOW_CLOCK_SECONDS else ""
    found = [Finding("clock", f"resolution {resolution:.2g} s, a reading takes {overhead:.2g} s", advice)]
    if offsets:
        worst = max(offsets, key=lambda row: abs(row[1]))
        text = f"up to {abs(worst[1]) / 1e9:.3g} s apart (rank {worst[0]}), known to {worst[2] / 2e9:.2g} s"
        found.append(Finding("clocks", text if worst[2] else "one host, one clock"))
    return found


def measured_offsets(comm):
    """(rank, offset, round trip) of all ranks, in ns."""
    from mpibench import clocks

    return comm.allgather((comm.rank, *clocks.offset(comm)))


def of_files(folder):
    """Whether results can be written here: locks, renames, the kind of file system, the space."""
    folder = folder if folder.is_dir() else folder.parent
    kind = file_system(folder.resolve())
    free = shutil.disk_usage(folder).free
    found = []
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mpibench-doctor-") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locks, advice, bad = "locks work", "", False
    except BlockingIOError as error:
        locks, advice, bad = f"no locks ({error.strerror})", "set HDF5_USE_FILE_LOCKING=FALSE", False
    except OSError as error:
        locks, advice, bad = f"cannot be written ({error.strerror})", "choose another folder with --out", True
    if not bad and kind in SLOW_TYPES:
        advice = advice or f"{SLOW_TYPES[kind]} does not like many small files: merge results when they are there"
    found.append(Finding("results", f"{folder.resolve()}: {kind}, {free / 1e9:.0f} GB free, {locks}", advice, bad))
    if (shared := Path("/dev/shm")).exists() and (size := shutil.disk_usage(shared).total) < 1 << 28:
        text = "MPI on one host wants more: in a container, --shm-size=1g"
        found.append(Finding("shared memory", f"{size / 1e6:.0f} MB in /dev/shm", text))
    return found


def file_system(folder):
    """The kind of file system of this folder, by the longest mount point above it."""
    mounts = [line.split()[:3] for line in _lines("/proc/mounts")]
    above = [(len(point), kind) for _, point, kind in mounts if folder.is_relative_to(point)]
    return max(above, default=(0, "unknown"))[1]


def of_network():
    """Cards, and the variables that choose a transport."""
    cards = []
    for card in sorted(Path("/sys/class/net").glob("*")):
        speed = "".join(_lines(card / "speed")).strip()
        if card.name != "lo":
            cards.append(f"{card.name}{f' {int(speed) / 1000:g} Gbit/s' if speed.isdigit() else ''}")
    fabric = sorted(path.name for path in Path("/sys/class/infiniband").glob("*"))
    fabric += sorted(path.name for path in Path("/sys/class/cxi").glob("*"))
    ours = re.compile(r"(UCX|OMPI_MCA|FI|I_MPI|MPICH)_")
    chosen = [f"{name}={value}" for name, value in provenance.environment().items() if ours.match(name)]
    found = [Finding("network", ", ".join([*fabric, *cards]) or "none but loopback")]
    text = "" if not fabric or chosen else "the library chooses; `--calibrate` shows what comes of it"
    return [*found, Finding("transports", " ".join(chosen) or "no variable chooses one", text)]


def of_gpus():
    """GPUs, and how tensors on them travel."""
    smi = shutil.which("nvidia-smi")
    lines = [line for line in _said(smi, "-L").splitlines() if line.startswith("GPU")] if smi else []
    if not lines:
        return [Finding("GPU", "none")]
    text = f"{len(lines)}: {lines[0].partition(' (UUID')[0]}; tensors travel through host memory"
    return [Finding("GPU", text)]


def text_of(findings):
    """The report as lines; what needs something is marked, and says what to do."""
    width = max(len(finding.what) for finding in findings)
    lines = []
    for finding in findings:
        mark = "XX" if finding.bad else "!!" if finding.advice else "ok"
        lines.append(f"{mark}  {finding.what:<{width}}  {finding.found}")
        if finding.advice:
            lines.append(f"{'':{width + 6}}{finding.advice}")
    return "\n".join(lines)


def as_json(findings):
    """The same as plain data."""
    return [asdict(finding) for finding in findings]


def _lines(path):
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _said(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr
