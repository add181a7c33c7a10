"""What the doctor says of a machine, and what it measures of links."""

import json
import os
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_launch import ended, pytestmark, start

from mpibench import calibrate, doctor, profiles, topology
from mpibench.calibrate import LARGE_BYTES, Calibration

launched = [*pytestmark]
pytestmark = []


def row(host="a", affinity="0", cpus=4, **more):
    clock = {"clock_resolution_seconds": 1e-8, "clock_overhead_seconds": 5e-8}
    return {"host": host, "affinity": affinity, "cpus": cpus, "load_average": 0.0, **clock, **more}


def test_without_mpi_it_says_how_to_get_one(tmp_path):
    finding = doctor.without_mpi(ImportError("No module named 'mpi4py'\nmore"))
    assert finding.bad and finding.found == "No module named 'mpi4py'" and "mpibench[mpich]" in finding.advice
    found = {each.what: each for each in doctor.examine(None, tmp_path)}
    assert {"Python", "MPI", "cores", "clock", "results", "network", "GPU"} <= set(found)
    text = doctor.text_of(list(found.values()))
    assert text.startswith("ok  Python") and "!!  MPI" in text
    assert json.loads(json.dumps(doctor.as_json(list(found.values()))))[0]["what"] == "Python"


def test_cores_that_are_shared_or_too_few_are_told():
    [bound] = doctor.of_cores([row(affinity="0"), row(affinity="1")])
    assert bound.found == "2 ranks of a on 2 of 4 cores, each its own" and not bound.advice
    [shared] = doctor.of_cores([row(affinity="0,1"), row(affinity="0,1")])
    assert "shared by ranks" in shared.found and "--bind-to core" in shared.advice
    [crowded] = doctor.of_cores([row(affinity="0,1", cpus=2)] * 3)
    assert crowded.advice.startswith("oversubscribed: native times need 3 cores")
    quota, load = doctor.of_cores([row(affinity="0,1,2,3", cpu_quota=1.0, load_average=9.0)])
    assert "on 1 of 4 cores" in quota.found and "others use this host" in load.advice
    assert len(doctor.of_cores([row("a"), row("b")])) == 2


def test_a_launcher_of_another_library_is_told(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(doctor, "_said", lambda *command: "mpiexec (OpenRTE) 4.1")
    mixed = doctor.other_launcher("MPICH")
    assert mixed.bad and mixed.found == "/bin/mpiexec is of Open MPI, and MPICH is loaded"
    assert not doctor.other_launcher("Open MPI").bad
    monkeypatch.setattr(doctor, "_said", lambda *command: "HYDRA build details")
    assert not doctor.other_launcher("Intel MPI").bad and doctor.other_launcher("Open MPI").bad


def test_processes_that_each_believe_to_be_alone_are_told(monkeypatch):
    for variable in (*doctor.LAUNCHED_BY, *doctor.PMI):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert [each.found for each in doctor.of_launch([])] == ["by hand, no PMI, 1 ranks"]
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("PMI_SIZE", "4")
    alone = doctor.of_launch([row()])[1]
    assert alone.bad and "--mpi" in alone.advice


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def refused(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refused)
    assert doctor.of_files(tmp_path)[0].bad

    def unlocked(*arguments):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.undo()
    monkeypatch.setattr(doctor.fcntl, "flock", unlocked)
    assert "HDF5_USE_FILE_LOCKING" in doctor.of_files(tmp_path)[0].advice


def test_latency_and_bandwidth_by_hand():
    small = [0.002, *[0.001] * 8, 0.9]  # what is far out does not count
    latency, transmission = calibrate.seconds_of(small, [0.005, 0.003])
    assert latency == pytest.approx(0.001 * 7 / 8 + 0.002 / 8) and transmission == pytest.approx(0.002)
    there, back = ([0.001] * 10, [0.003]), ([0.003] * 10, [0.005])
    delays = [{(1, 0): back, (2, 0): back}, {(0, 1): there, (2, 1): back}, {(0, 2): there, (1, 2): there}]
    links = calibrate.links_of(delays, ["a", "a", "b"])
    assert links[0, 1] == pytest.approx((0.001, LARGE_BYTES / 0.002)) and links[1, 0][0] == pytest.approx(0.003)
    assert links[0, 2] == links[2, 0] and links[0, 2][0] == pytest.approx(0.002)  # clocks of two hosts


def test_pairs_that_were_not_timed_have_the_median_of_their_kind():
    delays = [{}, {(0, 1): ([0.001] * 10, [0.002])}, {(0, 2): ([0.004] * 10, [0.005])}, {}]
    links = calibrate.links_of([*delays, {(2, 0): ([0.004] * 10, [0.005])}], ["a", "a", "b", "b"])
    assert len(links) == 12 and links[2, 3] == links[0, 1] and links[1, 2] == links[0, 2]


def test_what_is_written_is_a_topology_and_a_trace(tmp_path):
    links = {(i, j): (1e-4 * (i + 1), 1e9) for i in range(3) for j in range(3) if i != j}
    found = Calibration(links, ["a", "a", "b"], 0.5, [[0.01, 0.02], [0.03]], "a library")
    text = calibrate.topology_text(found, "2026-12-01")
    (tmp_path / "measured.toml").write_text(text)
    graph = topology.build(topology.read(tmp_path / "measured.toml"), 3)
    assert graph.size == 3 and graph.link(2, 0).latency_seconds == pytest.approx(3e-4)
    assert "a has ranks 0, 1, b has ranks 2" in text and "hides 50%" in text
    (tmp_path / "times.csv").write_text(calibrate.times_text(found))
    assert profiles.read_times(tmp_path / "times.csv") == [[0.01, 0.02], [0.03]]


def test_three_ranks_are_calibrated(tmp_path, monkeypatch):
    for mark in launched:
        if mark.args[0]:
            pytest.skip(mark.kwargs["reason"])
    monkeypatch.chdir(tmp_path)
    job = Path(__file__).parent.parent / "jobs" / "demo.toml"
    arguments = ("-m", "mpi4py", "-m", "mpibench", "doctor", "--calibrate", "m.toml", "--gradients-of", job)
    mark = uuid.uuid4().hex
    done = ended(start((3, *arguments), mark=mark), mark, time.monotonic() + 60)
    assert done.code == 0, done
    graph = topology.build(topology.read(Path("m.toml")), 3)
    assert len(graph.edges) == 6
    assert all(0 < graph.link(i, j).latency_seconds < 5 for i, j in graph.edges)
    times = profiles.read_times(Path("m.csv"))
    assert len(times) == 2 and all(len(each) >= calibrate.LEAST_GRADIENTS and min(each) > 0 for each in times)


def test_a_single_rank_has_no_links():
    found = SimpleNamespace(rank=0, size=1)
    from mpibench.__main__ import calibrated
    from mpibench.errors import InvalidInput

    with pytest.raises(InvalidInput, match="mpirun -n 4"):
        calibrated(found, Path(os.devnull), None)
