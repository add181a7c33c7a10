"""Three hosts on one machine: network namespaces with names of their own, on a bridge, each with a limited rate.

    with Hosts(rate="200mbit") as hosts:
        hosts.mpiexec("python", "-m", "mpi4py", ...)

Needs root, `ip` and `tc` (Debian's iproute2). What is made is removed again, also after an error.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COUNT = 3
ENTER = """#!/usr/bin/env bash
# what mpiexec calls in the place of ssh: [options] HOST COMMAND...
while [[ $1 == -* ]]; do shift; done
host=$1; shift
i=${{host##*.}}
exec ip netns exec "{name}$i" unshare --uts bash -c 'hostname "$0"; exec bash -c "$*"' "host$i" "$@"
"""


def missing():
    """Why there can be no such hosts, or ""."""
    if os.geteuid():
        return "network namespaces need root"
    if lacking := [name for name in ("ip", "tc", "unshare") if shutil.which(name) is None]:
        return f"there is no {' and no '.join(lacking)}"
    name = f"mpibench{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Hosts:
    """Three hosts 10.77.0.1 to 3, whose cards send at most at `rate` (as tc writes it)."""

    def __init__(self, rate):
        self.rate = rate
        self.name = f"mb{os.getpid() % 100_000}h"
        self.bridge = f"{self.name}br"
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self):
        try:
            self.ip("link", "add", self.bridge, "type", "bridge")
            self.ip("link", "set", self.bridge, "up")
            for i in range(1, COUNT + 1):
                host, cable = f"{self.name}{i}", f"{self.name}{i}v"
                self.ip("netns", "add", host)
                self.ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host)
                self.ip("link", "set", cable, "master", self.bridge, "up")
                self.ip("-n", host, "addr", "add", f"10.77.0.{i}/24", "dev", "eth0")
                for card in ("eth0", "lo"):
                    self.ip("-n", host, "link", "set", card, "up")
                limit = ("root", "tbf", "rate", self.rate, "burst", "64kb", "latency", "50ms")
                self.ip("netns", "exec", host, "tc", "qdisc", "add", "dev", "eth0", *limit)
        except BaseException:
            self.__exit__()
            raise
        self.enter = Path(self.folder.name) / "enter.sh"
        self.enter.write_text(ENTER.format(name=self.name))
        self.enter.chmod(0o755)
        return self

    def __exit__(self, *error):
        for i in range(1, COUNT + 1):
            subprocess.run(["ip", "netns", "del", f"{self.name}{i}"], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)
        self.folder.cleanup()

    def ip(self, *words):
        """Run `ip`; what it says is in the error where it fails."""
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def mpiexec(self, *words, seconds=120, **variables):
        """Run a program on a rank for each host, MPI over TCP between them. Its CompletedProcess."""
        hosts = ",".join(f"10.77.0.{i}" for i in range(1, COUNT + 1))
        launcher = str(Path(sys.executable).with_name("mpiexec"))
        command = [launcher, "-launcher", "ssh", "-launcher-exec", str(self.enter)]
        command += ["-hosts", hosts, "-n", str(COUNT), "-ppn", "1", "-genv", "UCX_TLS", "tcp,self"]
        inside = ["ip", "netns", "exec", f"{self.name}1", "unshare", "--uts"]
        shell = ["bash", "-c", 'hostname host1; exec "$@"', "mpiexec", *command, *map(str, words)]
        limited = ["timeout", "-k", "5", str(seconds), *inside, *shell]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
        return subprocess.run(limited, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
