"""Where a number comes from: code, packages, environment, batch job, and the machine under each rank.

Each function gives a plain dict for /provenance in the result file (`mpibench.record`); what a machine does not tell is
absent. Nothing here knows MPI: the runner adds what MPI says, and gathers `rank` from all ranks.
"""

import functools
import hashlib
import itertools
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import mpibench

ALLOWED = re.compile(
    r"(OMP|MKL|OPENBLAS|HDF5|UCX|OMPI|PRTE|FI|I_MPI|MPICH|NCCL)_\w+|PYTHON\w*|CUDA_VISIBLE_DEVICES|LOADEDMODULES"
    r"|APPTAINER_CONTAINER|SINGULARITY_CONTAINER"
)
SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|KEY|AUTH|COOKIE", re.IGNORECASE)  # in a variable's name
SECRET_VALUE = re.compile(r"://[^/\s]*@|(^|[=:,\s])[A-Za-z0-9+_-]{40,}")  # a password in an address; a long random text
SCHEDULER = (  # without account and user
    *("JOB_ID", "JOB_NAME", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_NODELIST", "JOB_NUM_NODES", "JOB_PARTITION"),
    *("NTASKS", "NTASKS_PER_NODE", "TASKS_PER_NODE", "CPUS_PER_TASK", "JOB_CPUS_PER_NODE", "CPU_BIND", "GPUS_PER_TASK"),
    *("RESTART_COUNT", "MPI_TYPE", "TIMELIMIT", "JOB_START_TIME", "JOB_END_TIME", "EXCLUSIVE", "CLUSTER_NAME"),
)


@functools.cache
def code():
    """Version of the suite, its commit, whether files differ from it (and a hash of how), and the command line."""
    facts = {"version": mpibench.__version__, "schema": 1, "entry_point": sys.argv[0], "command_line": sys.argv[1:]}
    facts["source_hash"] = source_hash()
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():  # installed: the commit of a repository around it would not be ours
        return facts
    try:
        facts["commit"] = _git(root, "rev-parse", "HEAD").strip()
        status = _git(root, "status", "--porcelain")
        facts["dirty"] = bool(status.strip())
        if facts["dirty"]:
            difference = status + _git(root, "diff", "HEAD")
            facts["diff_hash"] = hashlib.sha256(difference.encode()).hexdigest()
    except (OSError, subprocess.SubprocessError) as error:
        facts["commit_unknown"] = f"git: {type(error).__name__}"
    return facts


def _git(root, *arguments):
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True).stdout


@functools.cache
def source_hash():
    """sha256 of the suite's Python files, names and contents: what ranks compare, with or without git."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


@functools.cache
def _distributions():
    found = {}
    for distribution in metadata.distributions():
        tags = re.findall(r"^Tag: (.*)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
        found.setdefault(distribution.name, " ".join([distribution.version, *tags[:1]]))
    return found


def packages():
    """Python, every distribution found with its version and wheel tag, the HDF5, torch and BLAS that are loaded now."""
    facts = {"python": platform.python_version(), "python_build": " ".join(platform.python_build())}
    facts["implementation"] = platform.python_implementation()
    facts["distributions"] = _distributions()
    if h5py := sys.modules.get("h5py"):
        facts["hdf5"] = h5py.version.hdf5_version
    if torch := sys.modules.get("torch"):
        facts["torch"] = {
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return facts
    keys = ("user_api", "internal_api", "version", "num_threads", "threading_layer", "architecture")
    facts["threadpools"] = [{key: pool[key] for key in keys if key in pool} for pool in threadpool_info()]
    return facts


def packages_hash():
    """sha256 of Python's version and the distributions' names and versions: what ranks compare."""
    text = f"{platform.python_version()} {sorted(_distributions().items())}"
    return hashlib.sha256(text.encode()).hexdigest()


def environment(variables=os.environ):
    """The allow-listed variables, without what looks like a secret."""
    return {
        name: value
        for name, value in sorted(variables.items())
        if ALLOWED.fullmatch(name) and not SECRET.search(name) and not SECRET_VALUE.search(value)
    }


def scheduler(variables=os.environ):
    """The batch job's facts, {} outside one."""
    known = {key.lower(): variables.get(f"SLURM_{key}") for key in SCHEDULER}
    return {key: value for key, value in known.items() if value is not None}


@functools.cache
def _machine():
    """What stays while the process lives: host, processor, memory, clock."""
    cpuinfo, status, meminfo = (_read(f"/proc/{name}") for name in ("cpuinfo", "self/status", "meminfo"))
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.MULTILINE)
    nodes = re.search(r"^Mems_allowed_list:\s*(\S+)", status, re.MULTILINE)
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    resolution, overhead = clock_resolution()
    return {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu_model": model[1] if model else platform.processor() or None,
        "cpus": os.cpu_count(),
        "cpu_quota": int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None,
        "frequency_governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
        "numa_nodes": nodes[1] if nodes else None,
        "memory_bytes": int(total[1]) * 1024 if total else None,
        "memory_limit_bytes": int(limit) if limit.isdigit() else None,
        "clock_resolution_seconds": resolution,
        "clock_overhead_seconds": overhead,
    }


def rank(number):
    """The row of this process, which is rank `number`: its machine, where it may run, load and peak memory now."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    row = {"rank": number, "process": os.getpid(), **_machine()}
    row["affinity"] = ",".join(map(str, affinity)) if affinity else None
    row["load_average"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    row["peak_memory_bytes"] = peak_memory_bytes()
    return {key: value for key, value in row.items() if value is not None}


def peak_memory_bytes():
    """The most memory this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def clock_resolution(readings=2000):
    """(smallest step, mean cost of a reading) in seconds of `time.perf_counter`, measured."""
    stamps = [time.perf_counter_ns() for _ in range(readings)]
    steps = [b - a for a, b in itertools.pairwise(stamps) if b > a]
    overhead = (stamps[-1] - stamps[0]) / (readings - 1)
    return min(steps, default=round(time.get_clock_info("perf_counter").resolution * 1e9)) * 1e-9, overhead * 1e-9


def _read(path):
    """The text of a file of the system, "" where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
