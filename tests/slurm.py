"""A Slurm of one node with faked CPUs, for as long as a command runs:

    python tests/slurm.py COMMAND ...          with SLURM_CONF in its environment, so that sbatch and squeue find it
    python tests/slurm.py --install            only installs what is missing: Debian's packages, as root

Everything lies in a temporary folder, the daemons are children of this process, and nothing is left when it ends.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# libpmix-dev: Slurm's plugin opens libpmix.so, the name that only this package has
PACKAGES = ["slurm-wlm", "slurm-wlm-basic-plugins", "munge", "libpmix-dev"]
PROGRAMS = ["sbatch", "srun", "slurmctld", "slurmd", "munged"]
PMIX = Path("/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so")
CPUS = 16
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=10000,batch_sched_delay=0
MaxArraySize=21
FirstJobId={first}
KillWait=1
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Sockets=1 CoresPerSocket={cpus} ThreadsPerCore=1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing():
    """The programs and libraries that are not there."""
    found = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    absent = [name for name in PROGRAMS if shutil.which(name, path=found) is None]
    return absent + ([] if PMIX.exists() else [PMIX.name])


def install():
    """Install what is missing. Raises where that cannot be done."""
    if not missing():
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"there is no {', '.join(missing())}, and only root on Debian can install it here")
    quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "check": True, "stdout": subprocess.DEVNULL}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    subprocess.run([*apt, "update"], timeout=200, **quiet)
    subprocess.run([*apt, "install", "-y", "--no-install-recommends", *PACKAGES], timeout=400, **quiet)


def free_ports(count):
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ours(conf):
    """The processes that have this Slurm in their environment, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"SLURM_CONF={conf}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return [number for number in found if number != os.getpid()]


def steps(job):
    """Whether anything of a job is still there on the node."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"slurmstepd: [{job}.".encode()):
                return True
    return False


def wait_for(condition, seconds, what):
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"{what} has not come in {seconds:g} s")
        time.sleep(0.1)


@contextlib.contextmanager
def running():
    """Start munge, slurmctld and slurmd; gives the path of slurm.conf."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: the path of a socket has 108 bytes
    conf = folder / "slurm.conf"
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    # MPICH names shared memory after the job's number, and waits for ever in what a killed job of that number has left
    first = 1000 + secrets.randbelow(60_000_000)
    conf.write_text(CONF.format(host=host, ports=free_ports(2), folder=folder, cpus=CPUS, first=first))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    environment |= {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    ends = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    files = [f"--{name}={folder}/munge.{end}" for name, end in ends.items()]
    daemons = []

    def start(*command):
        with open(folder / f"{command[0]}.out", "w") as out:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
            daemons.append(subprocess.Popen(command, env=environment, **streams))

    def answers(*command):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        return done.stdout if done.returncode == 0 else ""

    def end(number, frame):
        raise KeyboardInterrupt  # which pytest heeds at once, as a command does

    handler = signal.signal(signal.SIGTERM, end)
    try:
        start("munged", "--foreground", "--force", *files)
        wait_for((folder / "munge.socket").exists, 20, "munge")
        start("slurmctld", "-D")
        wait_for(lambda: answers("scontrol", "ping"), 30, "slurmctld")
        start("slurmd", "-D")
        wait_for(lambda: "idle" in answers("sinfo", "-h", "-o", "%T"), 60, "the node")
        yield conf
    finally:
        with contextlib.suppress(subprocess.SubprocessError, OSError):
            answers("scancel", "--me", "--full", "--signal=KILL")
            answers("scancel", "--me")
        with contextlib.suppress(RuntimeError):
            wait_for(lambda: not answers("squeue", "-h"), 15, "the end of all jobs")
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
        for number in ours(conf):  # what a job or a daemon has left
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, handler)


def main(command):
    """Run a command with a Slurm around it; its exit code."""
    install()
    if command == ["--install"]:
        return 0
    with running() as conf:
        return subprocess.run(command, env=os.environ | {"SLURM_CONF": str(conf)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
