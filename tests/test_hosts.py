"""Native runs between three hosts, which are network namespaces with limited links; needs root and MPICH."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from hosts import Hosts, missing

from mpibench import topology
from mpibench.verify import verify_set

ROOT = Path(__file__).parent.parent
BYTES_PER_SECOND = 200e6 / 8
OFFSETS = """
import json, time
from mpi4py import MPI
from mpibench import clocks
offset, round_trip = clocks.offset(MPI.COMM_WORLD)
rows = MPI.COMM_WORLD.gather((MPI.Get_processor_name(), offset, round_trip))
if rows:
    print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def hosts():
    launcher = shutil.which(Path(sys.executable).with_name("mpiexec"))
    if launcher is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("there is no MPI beside this Python")
    if "HYDRA" not in subprocess.run([launcher, "--version"], capture_output=True, text=True, timeout=20).stdout:
        pytest.skip("this way to start ranks on hosts is that of Hydra")
    if reason := missing():
        pytest.skip(reason)
    with Hosts("200mbit") as made:
        yield made


def mpibench(hosts, *words):
    command = [sys.executable, "-m", "mpi4py", "-m", "mpibench", *words]
    done = hosts.mpiexec(*command, PYTHONPATH=str(ROOT))
    assert done.returncode in (0, 3), done.stdout + done.stderr
    return done.stdout


def test_the_clocks_of_hosts_are_compared(hosts):
    done = hosts.mpiexec(sys.executable, "-m", "mpi4py", "-c", OFFSETS, PYTHONPATH=str(ROOT))
    rows = json.loads(done.stdout)
    assert [name for name, _, _ in rows] == ["host1", "host2", "host3"]
    for _, offset, round_trip in rows[1:]:  # in truth it is one clock, so the offset is the error of the estimate
        assert round_trip > 0 and abs(offset) <= round_trip / 2


def test_links_of_limited_rate_are_measured(hosts, tmp_path):
    path = tmp_path / "links.toml"
    mpibench(hosts, "doctor", "--calibrate", path)
    graph = topology.build(topology.read(path), 3)
    found = [link.bandwidth_bytes_per_second for link in graph.edges.values()]
    assert len(found) == 6 and all(0.6 * BYTES_PER_SECOND < rate < 1.4 * BYTES_PER_SECOND for rate in found), found
    assert "host2 has ranks 1" in path.read_text()


JOB = """
schema = 1
[experiment]
name = "hosts"
workers = {workers}
seeds = [0]
stop = {{ updates = 12 }}
snapshot = {{ updates = 4 }}
targets = {{ metric = "loss", values = [1e9, 1e8, 1e7], headline = 1e9 }}
[problem]
name = "quadratic"
dimension = 100_000
[[algorithm]]
name = "{name}"
stepsize = 0.1
"""


@pytest.mark.parametrize(("name", "workers"), [("minibatch_sgd", 2), ("async_sgd", 2), ("r_fast", 3)])
def test_methods_run_between_hosts(hosts, tmp_path, name, workers):
    (tmp_path / "job.toml").write_text(JOB.format(name=name, workers=workers))
    out = tmp_path / "results"
    mpibench(hosts, "run", tmp_path / "job.toml", "--engine", "mpi", "--clock", "native", "--out", out)
    [path] = out.rglob("*.h5")
    assert not verify_set([path])
    with h5py.File(path) as file:
        names = file["provenance/ranks/host"].asstr()[()].tolist()
        assert names == ["host1", "host2", "host3"] and file["trace/updates"][-1] == 12
        if name == "minibatch_sgd":  # each update two models of 0.8 MB leave the server's card, one after another
            assert file.attrs["seconds"] > 0.8 * 12 * 2 * 800_000 / BYTES_PER_SECOND
