"""Sites and the scripts that `submit` makes of them: golden files, shellcheck, what is refused. Without a Slurm."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from mpibench import __version__, batch, experiment, sites, standing
from mpibench.errors import InvalidInput

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = ("slurm.sbatch", "pbs.sh", "plain.sh", "collect.sbatch")
JOB = """
schema = 1
[experiment]
name = "small"
engine = "mpi"
clock = "native"
workers = 8
seeds = [0, 1]
stop = { seconds = 30.0 }
snapshot = { seconds = 1.0 }
targets = { metric = "loss", values = [3.0], headline = 3.0 }
[problem]
name = "quadratic"
dimension = 29
[[algorithm]]
name = "async_sgd"
stepsize = [0.1, 0.2, 0.3]
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.5
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job.toml in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def batch_of(job, site, cells_per_job=1, arguments=(), **given):
    loaded = experiment.load(job, [word for word in arguments if word != "--set"])
    return batch.Batch(loaded, job, site, sites.read(site, **given), arguments, "results", cells_per_job)


def neutral(text, folder):
    """A script without what differs from machine to machine."""
    text = text.replace(f"mpibench {__version__}", "mpibench")
    return text.replace(str(folder), "/project").replace(sys.prefix, "/environment")


@pytest.mark.parametrize("site", sites.names())
@pytest.mark.parametrize("engine", ["mpi", "simulation"])
def test_every_site_renders_to_a_sound_script(job, tmp_path, site, engine):
    arguments = ["--set", f'experiment.engine="{engine}"']
    simulated = ["--set", 'heterogeneity.compute={ profile = "equal" }']
    arguments += simulated if engine == "simulation" else []
    (text,), collecting = batch_of(job, site, 2, arguments).scripts()
    for name, script in (("job.sh", text), ("collect.sh", collecting)):
        if script is not None:
            (tmp_path / name).write_text(script)
            sound(tmp_path / name)
    golden = GOLDEN / f"{site}-{engine}.sh"
    found = neutral(text + (collecting or ""), tmp_path)
    if "MPIBENCH_WRITE_GOLDEN" in os.environ:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text()


def sound(path):
    """Hold a script to bash and, where it is installed, to shellcheck."""
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)


def test_shellcheck_is_there():
    if shutil.which("shellcheck") is None:
        pytest.skip("there is no shellcheck: scripts are held to `bash -n` alone")
    done = subprocess.run(["shellcheck", "-"], input="#!/bin/bash\necho $1\n", text=True, capture_output=True)
    assert "SC2086" in done.stdout


def test_golden_files_are_of_sites_that_there_are():
    assert {path.stem.rpartition("-")[0] for path in GOLDEN.glob("*.sh")} == set(sites.names())


def test_values_are_quoted_for_the_shell(tmp_path, monkeypatch):
    folder = tmp_path / "a folder; rm -rf *"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "it's.toml").write_text(JOB)
    (folder / "site.toml").write_text(
        'launcher = "mpiexec"\nscheduler = "none"\ncores_per_node = 1\nwarning_seconds = 0\n'
        '[environment]\nWORDS = "$(touch hurt) `x` \'"\n'
    )
    ours = batch_of(folder / "it's.toml", str(folder / "site.toml"), 4)
    (text,), _ = ours.scripts()
    text = text.replace(" mpiexec -n 9 ", " printf '%s\\n' \"$WORDS\" ").replace("python -m analysis", "true")
    text = text.replace("python -m mpibench verify", "true")
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, cwd=folder)
    assert done.stdout.splitlines()[0] == "$(touch hurt) `x` '", done
    assert str(folder / "it's.toml") in done.stdout.splitlines()
    assert not (folder / "hurt").exists()


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_undefined_value_is_an_error(job, template):
    ours = batch_of(job, "slurm")
    values = ours.values() | {"time": "1"}
    assert batch.render(template, values)
    with pytest.raises(InvalidInput, match=f"{template} cannot be rendered: 'experiment' is undefined"):
        batch.render(template, {key: value for key, value in values.items() if key != "experiment"})


def test_options_of_slurm_stand_before_the_first_command(job):
    (text,), collecting = batch_of(job, "slingshot").scripts()
    for script in (text, collecting):
        lines = script.splitlines()
        first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        assert not [line for line in lines[first:] if line.startswith("#SBATCH")]  # sbatch would not read them


def test_ranks_are_spread_over_nodes_and_gpus_are_asked_for(job):
    (text,), _ = batch_of(job, "slingshot").scripts()
    for line in ("--nodes=3", "--ntasks=9", "--ntasks-per-node=4", "--cpus-per-task=16", "--gpus-per-task=1"):
        assert f"#SBATCH {line}\n" in text


# time and arrays


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("01:30", 90), ("01:30:00", 5400), ("1-0", 86400), ("1-12:30", 131400), ("2-00:00:10", 172810)],
)
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert sites.seconds(text) == seconds


def test_time_limits_are_written_as_slurm_reads_them():
    for seconds in (60, 5400, 86400 * 3 + 60):
        assert sites.seconds(sites.clock(seconds)) == seconds
    assert sites.seconds(sites.clock(61)) == 120


def test_a_time_limit_below_a_cell_is_refused(job):
    with pytest.raises(InvalidInput) as refusal:
        batch_of(job, "slurm", time="00:06:00")
    assert str(refusal.value) == (
        "the time limit 00:06:00 is below one cell: a cell takes 60 s and the warning before the limit comes 300 s "
        "early; ask for more than --time 00:06:00"
    )
    assert batch_of(job, "slurm", time="00:06:01")
    with pytest.raises(InvalidInput, match="is above the site's longest, 2-00:00:00"):
        batch_of(job, "infiniband", time="3-0")


def test_more_jobs_than_an_array_may_have_are_refused_or_split(job, tmp_path):
    site = tmp_path / "site.toml"
    site.write_text("cores_per_node = 4\nmax_array_size = 2\n")
    ours = batch_of(job, str(site))
    with pytest.raises(InvalidInput, match="4 jobs are more than the 2 .*; --cells-per-job 2 makes them fewer"):
        ours.scripts()
    assert batch_of(job, str(site), 2).chunks() == [(0, 2)]
    texts, _ = ours.scripts(split=True)
    assert [line for text in texts for line in text.splitlines() if line.startswith("first=")] == [
        "first=$(((SLURM_ARRAY_TASK_ID + 0) * 1))",
        "first=$(((SLURM_ARRAY_TASK_ID + 2) * 1))",
    ]


# what is refused


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "lacks `cores_per_node`"),
        ("cores_per_node = 0", "cores_per_node = 0 must be"),
        ('cores_per_node = 4\nlaunchr = "srun"', "has no key `launchr`; did you mean `launcher`?"),
        ('cores_per_node = 4\nlauncher = "sruns"', 'there is no launcher "sruns"; did you mean `srun`?'),
        ('cores_per_node = 4\ntime = "soon"', 'time: "soon" is no time limit'),
        ('cores_per_node = 4\n[environment]\n"A B" = "c"', '"A B" is no name of a variable'),
        ("cores_per_node = ", "is not TOML"),
    ],
)
def test_a_wrong_site_is_refused_in_one_sentence(tmp_path, text, sentence):
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(InvalidInput) as refusal:
        sites.read(tmp_path / "site.toml")
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_unknown_site_or_launcher_is_refused_with_the_nearest():
    with pytest.raises(InvalidInput, match="there is no site `slurn`; did you mean `slurm`"):
        sites.read("slurn")
    with pytest.raises(InvalidInput, match='there is no launcher "mpiexecc"; did you mean `mpiexec`'):
        sites.read("slurm", launcher="mpiexecc")
    with pytest.raises(InvalidInput, match="cannot be read"):
        sites.read("nowhere.toml")


def test_two_mpi_libraries_are_refused_and_one_that_srun_does_not_start(job, monkeypatch):
    monkeypatch.setattr(batch, "wheels", lambda: ["MPICH", "Open MPI"])
    with pytest.raises(InvalidInput, match="MPICH and Open MPI are both installed in"):
        batch_of(job, "slurm").submit()
    monkeypatch.setattr(batch, "wheels", lambda: ["MPICH"])
    with pytest.raises(InvalidInput, match='not started by srun --mpi=pmix_v4: use pmi = "pmi2"'):
        batch_of(job, "slurm", pmi="pmix_v4").submit()
    with pytest.raises(InvalidInput, match="there is no sbatch here"):
        monkeypatch.setenv("PATH", "/nowhere")
        batch_of(job, "slurm", pmi="pmi2").submit()
    assert not Path("results").exists()


def test_pbs_is_printed_only(job):
    with pytest.raises(InvalidInput, match="to be handed to qsub"):
        batch_of(job, "pbs").submit()


def test_what_an_allocation_says_is_not_handed_on():
    kept = batch.clean_environment({"SLURM_JOB_ID": "7", "SBATCH_ACCOUNT": "x", "SLURM_CONF": "here", "PATH": "p"})
    assert kept == {"SLURM_CONF": "here", "PATH": "p"}


# the scripts, with stand-ins for what they call


@pytest.fixture
def stage(job, tmp_path):
    """Runs a rendered script; srun, mpirun, module and scontrol write their arguments into a journal, which is returned
    with the exit code. `ranks` is what srun and mpirun do then."""
    programs, journal = tmp_path / "bin", tmp_path / "journal"
    programs.mkdir()

    def run(text, ranks="exit 0", signal_when=None, **variables):
        for name in ("srun", "mpirun", "module", "scontrol"):
            ending = ranks if name in ("srun", "mpirun") else ""
            (programs / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{journal}"\n{ending}\n')
            (programs / name).chmod(0o755)
        (tmp_path / "script.sh").write_text(text.replace(f"export PATH={sys.prefix}/bin:", "export PATH="))
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "1"}
        process = subprocess.Popen(["bash", tmp_path / "script.sh"], env=environment | variables)
        if signal_when:
            while not signal_when.exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGUSR1)
        code = process.wait(10)
        return code, journal.read_text().splitlines() if journal.exists() else []

    return run


def script(job, site="slurm", cells_per_job=1, **given):
    return batch_of(job, site, cells_per_job, **given).scripts()[0][0]


def test_a_job_starts_the_ranks_of_its_cells(stage, job, tmp_path):
    threads = 'echo "$OMP_NUM_THREADS $SRUN_CPUS_PER_TASK ${SLURM_EXPORT_ENV-unset}" >> "${0%/*}/../journal"'
    text = script(job, "infiniband", 2)
    code, journal = stage(text, ranks=threads, SLURM_CPUS_PER_TASK="4", SLURM_EXPORT_ENV="NONE")
    assert code == 0
    run = f"python -m mpi4py -m mpibench run {job} --out {tmp_path}/results --cell 2 --cells-per-job 2 --resume"
    assert journal == [
        "module --force purge",
        "module load gcc ucx openmpi",
        f"srun --mpi=pmix --label --unbuffered --kill-on-bad-exit=1 --cpu-bind=cores {run}",
        "4 4 unset",
    ]


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"), [(75, 0, True), (75, 2, True), (75, 10, False), (2, 0, False)]
)
def test_what_is_unfinished_is_requeued_a_bounded_number_of_times(stage, job, code, restarts, requeued):
    found, journal = stage(script(job), ranks=f"exit {code}", SLURM_RESTART_COUNT=str(restarts))
    assert found == code
    assert journal[:restarts] == ["srun --ntasks=1 --mpi=none true"] * restarts  # so that no number of a step recurs
    assert journal[restarts + 1 :] == (["scontrol requeue 77"] if requeued else [])


def test_a_run_that_fails_is_left_out_and_the_others_go_on(stage, job):
    ranks = '[[ $* == *--skip-failed ]] || exit 1\n[[ $(wc -l < "${0%/*}/../journal") -eq 3 ]] || exit 9'
    code, journal = stage(script(job), ranks=ranks)
    assert code == 9  # the job says that something has failed
    assert [line.endswith("--skip-failed") for line in journal] == [False, True, True]
    code, journal = stage(script(job), ranks="exit 1")
    assert code == 1 and len(journal) - 3 == 3  # at most once more than there are runs


def test_the_warning_is_passed_on_to_a_launcher_that_is_no_job_step(stage, job, tmp_path):
    started = tmp_path / "started"
    ranks = f"trap 'exit 75' USR1; touch '{started}'; for i in {{1..500}}; do sleep 0.01; done"
    text = script(job, launcher="mpirun")
    assert "#SBATCH --signal=B:USR1@300\n" in text
    code, journal = stage(text, ranks=ranks, signal_when=started)
    assert code == 75
    assert journal[0].startswith("mpirun -n 9 python -m mpi4py") and journal[1:] == ["scontrol requeue 77"]


# status


def test_status_tells_of_every_cell(job, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "asked", lambda *command: "7_1 RUNNING\n9_0 PENDING\n")
    loaded = experiment.load(job, ['experiment.engine="simulation"', 'heterogeneity.compute={ profile = "equal" }'])
    first, second, third, _ = loaded.cells()

    def file(cell, seed, run, **attrs):
        from mpibench import record

        path = record.place("results", cell.name, cell.label, cell.hash, seed, run)
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path.with_name(path.name + (".part" if "outcome" not in attrs else "")), "w") as made:
            made.attrs.update({"run_id": run, "complete": int("outcome" in attrs)} | attrs)

    file(first, 0, "20260101T000000Z-7-0-aaaaaa", outcome="reached")
    file(first, 1, "20260101T000000Z-7-0-bbbbbb", outcome="budget")
    file(second, 0, "20260101T000000Z-7-1-cccccc")
    file(second, 1, "20260101T000000Z-6-1-dddddd")  # of a job that is gone
    file(third, 0, "20260101T000000Z-7-2-eeeeee", error="ArithmeticError: broken")
    part = next(Path("results").rglob("*eeeeee*"))
    with h5py.File(part, "a") as made:
        made.attrs["outcome"] = "fault"
    (tmp_path / "results" / "small" / "jobs").mkdir()
    (tmp_path / "results" / "small" / "jobs" / "x.json").write_text(json.dumps({"arrays": [{"id": "7"}]}))
    found = standing.of(loaded, "results")
    states = [{state: seeds for state, seeds in row["seeds"].items() if seeds} for row in found["cells"]]
    assert states == [
        {"done": [0], "censored": [1]},
        {"running": [0], "failed": [1]},
        {"failed": [0], "waiting": [1]},
        {"waiting": [0, 1]},
    ]
    assert found["jobs"] == {"7_1": "RUNNING"}
    text = standing.text_of(found)
    assert "seed 0: ArithmeticError: broken" in text and "queue: 7_1 RUNNING" in text


def test_a_site_without_a_scheduler_runs_the_cells_here(job, tmp_path, monkeypatch, capfd):
    text = job.read_text().replace('engine = "mpi"\nclock = "native"\n', "").replace("seconds = 30.0", "updates = 20")
    job.write_text(text.replace("[[algo", '[heterogeneity]\ncompute = { profile = "equal" }\n[[algo', 1))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ours = batch_of(job, "laptop", 3)
    assert ours.submit() == 0
    found = sorted((tmp_path / "results").rglob("*.h5"))
    assert len(found) == 8
    assert "async_sgd" in (tmp_path / "results" / "small" / "table.md").read_text()
    out = capfd.readouterr().out
    order = [line.partition(":")[0] for line in out.splitlines() if " seed " in line]
    grid = [f"async_sgd seed {seed}" for seed in (0, 1) for _ in range(3)]
    assert order == [*grid, "minibatch_sgd seed 0", "minibatch_sgd seed 1"]
