"""The demo as a ReFrame test: nine ranks, and the median seconds of each method to its headline target.

    reframe -c jobs/packaging/reframe_mpibench.py -r

The environment must have mpibench (say, `modules` of the system's configuration). The clock is "emulated", whose times
are those of the modelled cluster and the same everywhere; `-S clock=native` measures the machine.
"""

import statistics
from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import deferrable, run_before, sanity_function, variable

ROOT = Path(__file__).resolve().parents[2]


@rfm.simple_test
class MpibenchDemo(rfm.RunOnlyRegressionTest):
    """jobs/demo.toml under MPI."""

    experiment = variable(str, value=str(ROOT / "jobs" / "demo.toml"))
    clock = variable(str, value="emulated")
    methods = variable(list, value=["minibatch_sgd", "async_sgd", "ringmaster"])

    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    num_tasks = 9
    time_limit = "30m"
    executable = "python"
    env_vars = {"OMP_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"}

    @run_before("run")
    def set_command(self):
        self.executable_opts = [
            *("-m", "mpi4py", "-m", "mpibench", "run", self.experiment),
            *("--engine", "mpi", "--clock", self.clock, "--out", "results"),
        ]
        self.postrun_cmds = ["python -m mpibench verify results", "python -m analysis table results --ungated"]

    @sanity_function
    def every_run_has_ended(self):
        return sn.all([sn.assert_found(rf"^{method} seed ", self.stdout) for method in self.methods])

    @run_before("performance")
    def read_medians(self):
        maker = sn.make_performance_function
        self.perf_variables = {m: maker(self.median_seconds(m), "s") for m in self.methods}

    @deferrable
    def median_seconds(self, method):
        """Over seeds, of the times to the headline target; runs that miss it take forever."""
        line = rf"^{method} seed \d+: (?:\S+ \S+ after (?P<seconds>\S+) s|censored)"
        found = sn.extractall(line, self.stdout, "seconds")
        return statistics.median_high([float(seconds) if seconds else float("inf") for seconds in found])
