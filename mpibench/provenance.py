"""Where a number comes from: code, packages, environment, batch job, and the machine under each rank.

Each function gives a plain dict for /provenance in the result file (`mpibench.record`); what a machine does not tell is
absent. Nothing here knows MPI: the runner adds what MPI says, and gathers `rank` from all ranks.
"""

import functools
import hashlib
import itertools
import json
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
        if commit := _installed_commit():
            facts |= {"commit": commit, "dirty": False}
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


def _installed_commit():
    """The commit that pip was told to install, None where that is not known."""
    try:
        text = metadata.distribution("mpibench").read_text("direct_url.json")
        return json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    except (metadata.PackageNotFoundError, ValueError):
        return None


def lock_hash():
    """sha256 of constraints.txt, the versions that the suite is installed with; None where it is not there."""
    path = Path(__file__).parent.parent / "constraints.txt"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


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
    facts |= {"lock_file": "constraints.txt", "lock_hash": lock_hash()} if lock_hash() else {}
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
    """The allow-listed variables, without what looks like a secret; LOADEDMODULES, the module list, also if empty."""
    return {"LOADEDMODULES": ""} | {
        name: value
        for name, value in sorted(variables.items())
        if ALLOWED.fullmatch(name) and not SECRET.search(name) and not SECRET_VALUE.search(value)
    }


def scheduler(variables=os.environ):
    """The batch job's facts; outside one only that there is none."""
    known = {key.lower(): variables.get(f"SLURM_{key}") for key in SCHEDULER}
    known = {key: value for key, value in known.items() if value is not None}
    return {"system": "slurm", **known} if known else {"system": "none"}


def network(variables=os.environ):
    """Network cards with their speed and host channel adapters of this host, and the variables that steer transports.

    Which transport MPI takes it says nowhere in a standard way: the variables, and what the library is built for.
    """
    cards = {}
    for card in sorted(Path("/sys/class/net").glob("*")):
        speed = _read(card / "speed").strip()
        cards[card.name] = int(speed) if speed.lstrip("-").isdigit() and int(speed) > 0 else None  # Mbit/s
    steer = re.compile(r"(UCX|OMPI|PRTE|FI|I_MPI|MPICH|NCCL)_\w+")
    return {
        "cards_mbit_per_second": cards,
        "host_channel_adapters": sorted(path.name for path in Path("/sys/class/infiniband").glob("*")),
        "variables": {name: value for name, value in environment(variables).items() if steer.fullmatch(name)},
        "topology": variables.get("SLURM_TOPOLOGY_ADDR"),
    }


def launch_line():
    """The command line of the launcher above this process; what looks like a secret is left out. "" if there is none.

    Looks up the ancestors of the process, which on other hosts of an allocation end at the launcher's daemon.
    """
    found, pid = "", os.getppid()
    for _ in range(8):
        words = _read(f"/proc/{pid}/cmdline").split("\0")
        name = os.path.basename(words[0])
        if re.match(r"(mpiexec|mpirun|prterun|srun|orterun|hydra|flux)", name):
            found = " ".join(word for word in words if not (SECRET.search(word) or SECRET_VALUE.search(word))).strip()
        parent = re.search(r"^PPid:\s*(\d+)", _read(f"/proc/{pid}/status"), re.MULTILINE)
        if parent is None or int(parent[1]) <= 1:
            break
        pid = int(parent[1])
    return found or ("srun" if "SLURM_STEP_ID" in os.environ else "")


def _gpus():
    """Models and UUIDs of NVIDIA cards that the driver names, "none" without one."""
    texts = [_read(path) for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))]
    cards = [" ".join(re.findall(r"^(?:Model|GPU UUID):\s*(.*)$", text, re.MULTILINE)) for text in texts]
    return "; ".join(cards) or "none"


def _container():
    """The image of the container, or a mark that there is one, "none" outside."""
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if name in os.environ:
            return os.environ[name]
    inside = re.search(r"(docker|kubepods|podman|containerd)[^\n]*", _read("/proc/self/cgroup"))
    return inside[0][-64:] if inside or (Path("/.dockerenv").exists() and inside) else "none"


def load():
    """Load average of one minute, and how often the processor was throttled since it was switched on."""
    throttled = _read("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count").strip()
    average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"load_average": average, "throttle_count": int(throttled) if throttled.isdigit() else None}


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
        "gpu": _gpus(),
        "container": _container(),
        "process_started": _started(),
        "clock_resolution_seconds": resolution,
        "clock_overhead_seconds": overhead,
    }


def _started():
    """When this process was started, in seconds since 1970; None where the system does not tell."""
    ticks = _read("/proc/self/stat").rpartition(")")[2].split()
    boot = re.search(r"^btime (\d+)", _read("/proc/stat"), re.MULTILINE)
    return int(boot[1]) + int(ticks[19]) / os.sysconf("SC_CLK_TCK") if boot and len(ticks) > 19 else None


def rank(number):
    """The row of this process, which is rank `number`: its machine, where it may run, load and peak memory now."""
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    row = {"rank": number, "process": os.getpid(), **_machine()}
    row["affinity"] = ",".join(map(str, affinity)) if affinity else None
    row |= load()
    local = (os.environ.get(name) for name in ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"))
    row["local_rank"] = next((int(text) for text in local if text and text.isdigit()), None)
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
