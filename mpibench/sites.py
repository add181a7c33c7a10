"""Where jobs run: a site is a file of jobs/sites/, or any TOML file, and holds what differs from machine to machine.

An experiment has no value of a site in it, so that it travels; `mpibench submit JOB --site S` brings the two together.
"""

import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge

from mpibench import catalogue
from mpibench.errors import InvalidInput
from mpibench.parameters import Count

JOBS = Path(__file__).parent.parent / "jobs"
LAUNCHERS = ("srun", "mpirun", "mpiexec", "flux", "aprun", "jsrun")
Whole = Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a machine needs of a job. Times are texts as Slurm has them: 90 (minutes), 01:30:00 or 1-12:00:00."""

    scheduler: Literal["slurm", "pbs", "none"] = "slurm"
    launcher: str = "srun"  # srun, mpirun, mpiexec or flux; what else there is, by its name
    launcher_flags: tuple[str, ...] = ()
    pmi: str = "none"  # of srun, a line of `srun --mpi=list`; "none": the site's default
    modules: tuple[str, ...] = ()  # to load, MPI among them
    setup: str = ""  # lines of shell that follow, for example to activate a container or Spack
    environment: dict[str, str] = field(default_factory=dict)  # variables of the ranks
    python: str = ""  # the folder of the Python environment; "": the one that submits
    partition: str = ""  # "": the site's default, and so is the account
    account: str = ""
    cores_per_node: Count  # that ranks may have
    cores_per_rank: Count = 1
    gpus_per_rank: Whole = 0
    gpu_flag: str = "--gpus-per-task={}"  # with the number of GPUs of a rank, or --gres=gpu:{} with that of a node
    binding: str = "cores"  # of srun
    exclusive: bool = True  # on a shared node, times would measure the neighbours
    options: tuple[str, ...] = ("--hint=nomultithread",)  # more of sbatch or qsub
    scratch: str = ""  # a folder for temporary files
    time: str = "01:00:00"
    longest: str = ""  # the greatest time limit of the partition; "": not known
    warning_seconds: Whole = 300  # before the limit, in which a job ends in good order
    max_array_size: Count = 1001
    cap: Count = 2  # jobs of an array that may run at a time
    max_restarts: Whole = 10

    def __post_init__(self):
        for name, value in (("time", self.time), ("longest", self.longest)):
            if value:
                try:
                    seconds(value)
                except InvalidInput as error:
                    raise InvalidInput(f"{name}: {error}") from error
        if self.launcher not in LAUNCHERS and "/" not in self.launcher:
            raise InvalidInput(f'there is no launcher "{self.launcher}"{catalogue.nearest(self.launcher, LAUNCHERS)}')
        for variable in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", variable):
                raise InvalidInput(f'environment: "{variable}" is no name of a variable')

    @property
    def ranks_per_node(self):
        """How many ranks share a node at most."""
        return max(1, self.cores_per_node // self.cores_per_rank)


def names():
    """Names of the sites in jobs/sites/, sorted."""
    return tuple(sorted(path.stem for path in (JOBS / "sites").glob("*.toml")))


def read(name, **given):
    """The Site of this name or file; what is given, unless None, takes the place of its values.

    Raises InvalidInput in one sentence where there is none or its file is wrong.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = JOBS / "sites" / f"{name}.toml"
        if name not in names():
            raise InvalidInput(
                f"there is no site `{name}`{catalogue.nearest(name, names())} "
                "A site of your own is a TOML file: --site my-site.toml"
            )

    def refuse(at, text, key=None):
        raise InvalidInput(f"site {path}: {text}")

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"site {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"site {path} is not TOML: {error}") from error
    site = catalogue.read(Site, table, ("site",), refuse)
    try:
        return replace(site, **{key: value for key, value in given.items() if value is not None})
    except InvalidInput as error:
        refuse((), str(error))


def seconds(text):
    """The seconds of a time limit: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S, as Slurm reads them."""
    form = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if form is None:
        raise InvalidInput(f'"{text}" is no time limit; write minutes, or 01:30:00, or 1-12:00:00')
    days, *parts = form.groups()
    parts = [int(part) for part in parts if part is not None]
    if days is not None or len(parts) == 3:
        hours, minutes, rest = parts + [0] * (3 - len(parts))
    else:
        hours, minutes, rest = 0, parts[0], parts[1] if len(parts) == 2 else 0
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest


def clock(seconds):
    """A time limit of so many seconds, rounded up to minutes."""
    minutes = -(-int(seconds) // 60)
    days, minutes = divmod(minutes, 24 * 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}:00"
    return f"{days}-{text}" if days else text
