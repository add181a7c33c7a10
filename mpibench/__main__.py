"""The command line: `python -m mpibench`, or `mpirun -n 9 python -m mpi4py -m mpibench run JOB --engine mpi`."""

import contextlib
import json
import os
import sys
import time
import traceback
from array import array
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: sums must not depend on how many threads share them

import click

from mpibench import __version__
from mpibench.errors import DiskFull, InvalidInput

MISSED = 3  # exit code of runs that have finished without reaching the headline target
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")  # where launchers say how many processes they started
NUMBERS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")  # and which of them this one is
PATIENCE = 2.0  # seconds that a rank which fails waits for the others to fail with it


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mpibench")
def cli():
    """Which distributed SGD method reaches my target first on my machine, and can I trust the number?"""


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(as_json):
    """Name the algorithms, problems, compressors and topologies there are."""
    from mpibench import catalogue

    found = {kind: {n: catalogue.summary(kind, n) for n in catalogue.names(kind)} for kind in catalogue.FOLDERS}
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    width = max(len(name) for group in found.values() for name in group)
    for kind, group in found.items():
        click.echo("topologies" if kind == "topology" else f"{kind}s")
        for name, summary in group.items():
            click.echo(f"  {name:<{width}}  {summary}")


@cli.command()
@click.argument("name")
@click.option("--size", type=click.IntRange(1, 10**6), help="Number of ranks of a topology that fits several.")
@click.option("--draw", "picture", type=click.Path(), metavar="FILE.png", help="Draw the topology into this file.")
def describe(name, size, picture):
    """Explain an algorithm, problem, compressor or topology (also a file of one) and its parameters."""
    from mpibench import catalogue

    click.echo(catalogue.describe(name, size=size, picture=picture))


@cli.command()
@click.argument("job", type=click.Path())
@click.option("--engine", type=click.Choice(["simulation", "mpi"]), help="In place of the file's.")
@click.option("--clock", type=click.Choice(["emulated", "native"]), help="In place of the file's, with engine mpi.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a value of the file; repeatable.")
@click.option("--seed", type=int, help="Run this seed only.")
@click.option("--cell", type=int, help="Run this cell only, counted from 0 as --dry-run numbers them.")
@click.option("--cells-per-job", type=click.IntRange(1), default=1, help="With --cell: this many, from that one on.")
@click.option("--out", default="results", show_default=True, help="Folder of the result files.")
@click.option("--resume", is_flag=True, help="Skip runs that have a complete file, and trials of tuning.")
@click.option("--skip-failed", is_flag=True, help="With --resume: leave out runs that have failed before.")
@click.option("--force", is_flag=True, help="Run again what has a file, beside it.")
@click.option("--dry-run", is_flag=True, help="Check everything, list the cells and their hashes, run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: of the plan, or a line for each run.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def run(job, engine, clock, overrides, seed, cell, cells_per_job, out, resume, skip_failed, force, dry_run, as_json,
        quiet):  # fmt: skip
    """Run the cells of the experiment in the TOML file JOB, here or under mpirun."""
    from mpibench import campaign, experiment

    if resume and force:
        raise InvalidInput("--resume skips what has a result and --force runs it again; give one of the two")
    if skip_failed and not resume:
        raise InvalidInput("--skip-failed is for --resume: without it everything is run")
    given = given_by(engine, clock, overrides) + ([f"experiment.seeds=[{seed}]"] if seed is not None else [])
    if dry_run:
        plan = campaign.dry(experiment.load(job, given))
        click.echo(json.dumps(plan, indent=1) if as_json else campaign.text_of(plan))
        return 0
    team = team_for(engine or engine_in(job, overrides))
    speak = team.rank == 0 and not quiet and not as_json
    say = click.echo if speak else lambda text: None
    campaign.agree(team, "the command line", [cell, cells_per_job, out, resume, skip_failed, force])
    ours = campaign.Campaign.together(team, experiment.load, job, given, out=out, say=say)
    ours.check_ranks()
    campaign.end_on_signals()
    settings = ours.experiment.settings
    count = len(ours.experiment.methods) if ours.experiment.tuning else len(ours.experiment.cells())
    if cell is not None and not 0 <= cell < count:
        raise InvalidInput(f"--cell {cell}: there are cells 0 to {count - 1}")
    say(f"{settings.name}: {introduction(settings, team)}, seeds {settings.seeds[0]}..{settings.seeds[-1]}, into {out}")
    chosen = slice(None) if cell is None else slice(cell, cell + cells_per_job)
    cells = ours.tuned_cells(chosen, resume) if ours.experiment.tuning else ours.experiment.cells()[chosen]
    with progress_bar(len(cells) * len(settings.seeds), speak and team.size == 1) as advance:
        done = ours.run(cells, resume, force, advance, skip_failed)
    if as_json and team.rank == 0:
        for path, outcome in done:
            click.echo(json.dumps({"file": str(path), "outcome": outcome}))
    missed = sum(outcome != "reached" for _, outcome in done)
    say(f"{len(done)} runs, {missed} without the headline target")
    return MISSED if missed else 0


@cli.command()
@click.argument("job", type=click.Path())
@click.option("--site", "site_name", required=True, help="A file of jobs/sites/ by its name, or any by its path.")
@click.option("--engine", type=click.Choice(["simulation", "mpi"]), help="In place of the file's.")
@click.option("--clock", type=click.Choice(["emulated", "native"]), help="In place of the file's, with engine mpi.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a value of the file; repeatable.")
@click.option("--out", default="results", show_default=True, help="Folder of the result files.")
@click.option("--cells-per-job", type=click.IntRange(1), default=1, help="Cells that share a job, interleaved A B B A.")
@click.option("--split", is_flag=True, help="Several arrays, one after another, where one would be too long.")
@click.option("--time", help="Time limit of a job, as Slurm writes it, in place of the site's; so are:")
@click.option("--partition", help="Partition.")
@click.option("--account", help="Account.")
@click.option("--launcher", help="What starts the ranks: srun, mpirun, mpiexec or flux.")
@click.option("--pmi", help="How srun starts MPI, a line of `srun --mpi=list`.")
@click.option("--cap", type=click.IntRange(1), help="Jobs that may run at a time.")
@click.option("--no-collect", is_flag=True, help="Without the job that collects when the others have ended.")
@click.option("--dry-run", is_flag=True, help="Print the scripts, submit nothing.")
def submit(job, site_name, engine, clock, overrides, out, cells_per_job, split, no_collect, dry_run, **given):
    """Submit the cells of the experiment in JOB as an array of batch jobs, and a job that collects after them."""
    from mpibench import batch, experiment, sites

    site = sites.read(site_name, **given)
    settings = [word for text in given_by(engine, clock, overrides) for word in ("--set", text)]
    ours = batch.Batch(
        experiment.load(job, given_by(engine, clock, overrides)), job, site_name, site, settings, out, cells_per_job
    )
    if not dry_run:
        return ours.submit(split, not no_collect, click.echo)
    arrays, collecting = ours.scripts(split)
    for text in [*arrays, *([collecting] if collecting and not no_collect else [])]:
        click.echo(text)
    return 0


@cli.command()
@click.argument("job", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a value of the file; repeatable.")
@click.option("--engine", type=click.Choice(["simulation", "mpi"]), help="In place of the file's.")
@click.option("--clock", type=click.Choice(["emulated", "native"]), help="In place of the file's, with engine mpi.")
@click.option("--out", default="results", show_default=True, help="Folder of the result files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(job, overrides, engine, clock, out, as_json):
    """Say cell by cell what of the experiment in JOB waits, runs, is done, censored or failed, and why."""
    from mpibench import experiment, standing

    found = standing.of(experiment.load(job, given_by(engine, clock, overrides)), out)
    click.echo(json.dumps(found, indent=1) if as_json else standing.text_of(found))


@cli.command()
@click.argument("job", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Set a value of the file; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(job, overrides, as_json):
    """Say what theory expects of the experiment in JOB, and what it cannot show; runs nothing.

    Seconds to a target are the method's time per update, counted for these workers, times the number of updates of its
    theorem, with one constant for all methods: compare them with each other, not with a clock.
    """
    from mpibench import experiment, outlook

    view = outlook.outlook(experiment.load(job, overrides))
    click.echo(json.dumps(outlook.plain(view), indent=1) if as_json else outlook.text_of(view))


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(files, as_json):
    """Check result files, or all below a folder; one line for each finding."""
    from dataclasses import asdict
    from pathlib import Path

    from mpibench.verify import verify_set

    paths = []
    for file in map(Path, files):
        if not file.exists():
            raise InvalidInput(f"there is no file or folder {file}")
        paths += sorted(file.rglob("*.h5")) if file.is_dir() else [file]
    if not paths:
        raise InvalidInput(f"there is no result file (*.h5) in {', '.join(files)}")
    findings = verify_set(paths)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"{len(paths)} files, {len(findings)} findings")
    return 1 if findings else 0


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path())
@click.option("--all", "also_restartable", is_flag=True, help="Also parts from which `run --resume` could go on.")
def collect(folders, also_restartable):
    """Make what killed runs have left below FOLDERS readable: files that say that they are incomplete, and why.

    Call it when the runs have ended. Tables show such files as failed runs.
    """
    from mpibench import gathering

    return said(gathering.collect(folders, also_restartable))


@cli.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path())
@click.option("--out", required=True, help="Folder of the merged results.")
def merge(sources, out):
    """Bring the result files of SOURCES, files and folders, together in one folder, each verified before.

    Results of one experiment with different targets are refused; nothing is written over.
    """
    from mpibench import gathering

    return said(gathering.merge(sources, out))


def said(gathered):
    """Print what was done; the exit code."""
    for line in [*gathered.lines, *gathered.findings]:
        click.echo(line)
    click.echo(f"{len(gathered.lines)} files, {len(gathered.findings)} findings")
    return 1 if gathered.findings else 0


@cli.command()
@click.option("--no-mpi", is_flag=True, help="Do not load MPI.")
@click.option("--calibrate", type=click.Path(), metavar="FILE.toml", help="Time all links, write them as a topology.")
@click.option("--gradients-of", "job", type=click.Path(), metavar="JOB", help="With it: time these gradients, too.")
@click.option("--out", default=".", help="The folder for results that is looked at.", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(no_mpi, calibrate, job, out, as_json):
    """Say what this machine has for runs over MPI, and what to do about it; under mpirun, of all ranks."""
    from mpibench import doctor

    if job and not calibrate:
        raise InvalidInput("--gradients-of writes beside the file of --calibrate; give that, too")
    if no_mpi and calibrate:
        raise InvalidInput("--calibrate times links over MPI; leave out --no-mpi")
    comm, missing = None, []
    if not no_mpi:
        try:
            comm = team_for("mpi")
        except InvalidInput as error:
            if calibrate:
                raise
            missing = [doctor.without_mpi(error.__cause__ or error)]
    if calibrate:
        return calibrated(comm, Path(calibrate), job)
    findings = missing + doctor.examine(comm, out)
    if comm is None or comm.rank == 0:
        click.echo(json.dumps(doctor.as_json(findings), indent=1) if as_json else doctor.text_of(findings))
    return 1 if any(finding.bad for finding in findings) else 0


def calibrated(comm, path, job):
    """Write the topology of the ranks of `comm`, and beside it the times of the gradients of a job."""
    from mpibench import calibrate, campaign, experiment

    if comm.size < 2:
        raise InvalidInput("--calibrate times links between ranks: start it with `mpirun -n 4`, say")
    problem = None
    if job:
        tables = campaign.on_root(comm, lambda: experiment.load(job, []).resolved)
        cell = experiment.Experiment.from_resolved(tables).cells()[0]
        problem = cell.problem.prepare(comm.size - 1, cell.seeds[0])
    say = click.echo if comm.rank == 0 else lambda text: None
    found = calibrate.measure(comm, problem, say)

    def write():
        path.write_text(calibrate.topology_text(found, time.strftime("%Y-%m-%d")), encoding="utf-8")
        say(f"{len(found.links)} links into {path}; a computation hides {found.overlap:.0%} of an exchange beside it")
        if job:
            times = path.with_suffix(".csv")
            times.write_text(calibrate.times_text(found), encoding="utf-8")
            say(f'gradients into {times}: compute = {{ profile = "trace", file = "{times}" }}')

    campaign.on_root(comm, write)
    return 0


def given_by(engine, clock, overrides):
    """The --set texts, and those that --engine and --clock stand for."""
    return [*overrides, *(f'experiment.{k}="{v}"' for k, v in (("engine", engine), ("clock", clock)) if v)]


def engine_in(job, overrides):
    """The engine that the file asks for; what is wrong with the file is said later, in full."""
    import tomllib

    for text in reversed(overrides):
        if text.replace(" ", "").startswith("experiment.engine="):
            return text.partition("=")[2].strip(" \"'")
    try:
        with open(job, "rb") as file:
            return tomllib.load(file).get("experiment", {}).get("engine", "simulation")
    except (OSError, ValueError, RecursionError, AttributeError):
        return "simulation"


def team_for(engine):
    """All MPI ranks, for the engine mpi or where a launcher has started several processes; or this process alone."""
    from mpibench import campaign

    if engine != "mpi" and all(os.environ.get(name, "1") in ("", "1") for name in SIZES):
        return campaign.Alone()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        from mpibench.doctor import GET_MPI

        leave_alone_but_the_first()
        reason = str(error).partition("\n")[0]
        raise InvalidInput(f"engine mpi needs mpi4py and an MPI library ({reason}): {GET_MPI}") from error
    refuse_alone(MPI)
    return MPI.COMM_WORLD.Dup()  # the original is for the end, see `agreed`


def leave_alone_but_the_first():
    """Of several processes that MPI has not brought together, one says what is wrong."""
    if any(os.environ.get(name, "0") != "0" for name in NUMBERS):
        sys.exit(2)


def refuse_alone(mpi):
    """Refuse ranks that the library loaded cannot bring together, as a launcher of another library has started them."""
    told = [os.environ[name] for name in SIZES if name in os.environ] or [os.environ.get("SLURM_STEP_NUM_TASKS", "1")]
    if mpi.COMM_WORLD.size > 1 or max(map(int, told)) == 1:
        return
    leave_alone_but_the_first()
    library = mpi.Get_library_version().strip("\0\n ").splitlines()[0].strip()
    raise InvalidInput(
        f"{max(map(int, told))} processes were started, and each is alone: the library loaded, {library}, is none that "
        "this launcher knows how to start; take the mpiexec of the same library, or another --mpi of srun"
    )


def introduction(settings, team):
    """What runs, in a line."""
    if settings.engine == "simulation":
        return "virtual time"
    from mpi4py import MPI

    library = MPI.Get_library_version().strip("\0\n ").splitlines()[0].strip()
    return f"{settings.clock} clock, {team.size} ranks, {library}"


@contextlib.contextmanager
def progress_bar(total, wanted):
    """A bar on a terminal, nothing elsewhere; gives the function that advances it.

    Open MPI and srun give their ranks a terminal wherever their words go, so under a launcher there is no bar.
    """
    if not (wanted and sys.stdout.isatty() and "SLURM_PROCID" not in os.environ):
        yield None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("runs", total=total)
        yield lambda: bar.advance(task)


def main():
    """Run a command and leave with its exit code, the same on all ranks; MPI is finalised before.

    What all ranks refuse is said once. A rank that fails alone says so and ends the others.
    """
    text = None
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        code = 130
    except SystemExit as signal:
        code = signal.code
    except (InvalidInput, DiskFull) as error:
        code, text = 1 if isinstance(error, DiskFull) else 2, f"mpibench: {error}"
    except Exception as error:
        if type(error).__name__ == "Deadlock":
            code, text = 124, f"mpibench: {error}"
        elif type(error).__name__ == "Interrupted":
            code, text = 75, "mpibench: interrupted before the end; the same command with --resume goes on"
        else:
            code, text = 1, traceback.format_exc().rstrip()
    mpi = sys.modules.get("mpi4py.MPI")
    world = mpi.COMM_WORLD if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() else None
    codes = [code] if world is None else agreed(world, code)
    if text is not None and (codes is None or world is None or world.rank == 0):
        click.echo(text, err=True)
    sys.stdout.flush()
    if codes is None:
        time.sleep(0.5)  # launchers may lose what was said right before
        world.Abort(code)
    if world is not None:
        mpi.Finalize()
    sys.exit(max(codes))


def agreed(world, code):
    """The exit codes of all ranks; None where this one has failed and others have not come here in time."""
    codes = array("i", [code]) * world.size
    request = world.Iallgather(array("i", [code]), codes)
    began = time.monotonic()
    while not request.Test():
        if code not in (0, MISSED) and time.monotonic() - began > PATIENCE:
            return None
        time.sleep(1e-3)
    return list(codes)


if __name__ == "__main__":
    main()
