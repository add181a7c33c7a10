"""What tuning has found, kept so that an experiment which is resumed goes on and chooses the same points.

Below the experiment's folder of results, tuning/<run id>-<rank>.jsonl: a line for each trial, [hash of its cell, seed,
seconds to the headline target, last value as a cost, core-seconds]. A process writes a file of its own; the last line
of one that was killed may be torn, and is passed over.
"""

import json
from contextlib import suppress
from pathlib import Path

from mpibench.errors import DiskFull, InvalidInput
from mpibench.record import FULL, run_id

FOLDER = "tuning"


class Trials:
    """The file of one process, made when the first trial is kept; use it in a `with` statement."""

    def __init__(self, results, rank):
        self.path = Path(results) / FOLDER / f"{run_id()}-{rank}.jsonl"
        self.file = None

    def keep(self, cell, seed, values):
        """Write a trial: the hash of its cell, its seed, and three numbers."""
        try:
            if self.file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = open(self.path, "w", encoding="utf-8")  # noqa: SIM115
            self.file.write(json.dumps([cell, seed, *values]) + "\n")
            self.file.flush()
        except OSError as error:
            if error.errno in FULL:
                raise DiskFull(f"no space left to write {self.path}: free some, or choose another --out") from error
            why = f"{error.strerror}; choose another folder with --out"
            raise InvalidInput(f"cannot write {self.path}: {why}") from error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.file is not None:
            with suppress(OSError):
                self.file.close()

    @staticmethod
    def read(results):
        """(hash of a cell, seed) -> (seconds, last, core-seconds) of all trials that are kept."""
        found = {}
        for path in sorted((Path(results) / FOLDER).glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError):
                    cell, seed, *values = json.loads(line)
                    found.setdefault((cell, seed), tuple(map(float, values)))
        return {key: values for key, values in found.items() if len(values) == 3}
