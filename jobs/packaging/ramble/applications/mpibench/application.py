"""mpibench as an application of Ramble: an experiment on so many ranks, and its times to the target."""

from ramble.appkit import *


class Mpibench(ExecutableApplication):
    """Which distributed SGD method reaches a target first on a machine."""

    name = "mpibench"
    tags("mpi", "machine-learning", "optimization")

    executable(
        "run",
        "python -m mpi4py -m mpibench run {job} --engine mpi --clock {clock} --out {experiment_run_dir}/results",
        use_mpi=True,
    )
    executable("verify", "python -m mpibench verify {experiment_run_dir}/results", use_mpi=False)
    executable(
        "table",
        "python -m analysis table {experiment_run_dir}/results --ungated --format csv"
        " --out {experiment_run_dir}/table.csv",
        use_mpi=False,
    )
    workload("demo", executables=["run", "verify", "table"])
    workload_variable(
        "job", default="{mpibench_source}/jobs/demo.toml", description="The experiment", workloads=["demo"]
    )
    workload_variable(
        "clock", default="emulated", values=["emulated", "native"], description="Paced or measured", workloads=["demo"]
    )
    workload_variable(
        "mpibench_source", default="/opt/mpibench", description="Where the project is", workloads=["demo"]
    )
    figure_of_merit_context(
        "run", regex=r"^(?P<method>\w+) seed (?P<seed>\d+):", output_format="{method}, seed {seed}"
    )
    figure_of_merit(
        "seconds to the headline target",
        fom_regex=r"^\w+ seed \d+: \S+ \S+ after (?P<seconds>\S+) s",
        group_name="seconds",
        units="s",
        contexts=["run"],
    )
    success_criteria("runs", mode="string", match=r"^\w+ seed \d+: .*\.h5")
