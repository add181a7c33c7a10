#!/usr/bin/env bash
# Runs an experiment on this machine, under MPI with as many ranks as its largest cell needs:
#
#     jobs/local.sh jobs/demo.toml [more arguments of `mpibench run`]
#
# MPIBENCH_VENV          the Python environment; else the active virtual one, else the .venv of `make env`, else the PATH
# MPIEXEC                the launcher: a name or a path, mpiexec unless set
# MPIEXEC_FLAGS          its flags, separated by blanks, in place of those chosen below
# MPIEXEC_NUMPROC_FLAG   its flag for the number of ranks, -n unless set
# OMP_NUM_THREADS, ...   threads of BLAS in each rank, 1 unless set
set -euo pipefail

complain() {
  echo "jobs/local.sh: $1" >&2
  exit 2
}

[[ $# -gt 0 && $1 != -* ]] || complain "the experiment's file comes first: jobs/local.sh jobs/demo.toml [--resume ...]"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${MPIBENCH_VENV:-${VIRTUAL_ENV:-$root/.venv}}
if [[ -x $venv/bin/python ]]; then
  PATH=$venv/bin:$PATH
elif [[ -n ${MPIBENCH_VENV:-} ]]; then
  complain "MPIBENCH_VENV=$MPIBENCH_VENV holds no bin/python"
fi
launcher=${MPIEXEC:-mpiexec}
command -v "$launcher" >/dev/null || complain "there is no $launcher: \`make env\` installs one, MPIEXEC names another"

# Ranks share the cores, and sums must not depend on the number of threads.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}

plan=$(python -m mpibench run "$@" --engine mpi --dry-run --json)
ranks=$(python -c 'import json, sys; print(json.load(sys.stdin)["ranks"])' <<<"$plan")

command=("$launcher")
if [[ -n ${MPIEXEC_FLAGS+set} ]]; then
  read -r -a flags <<<"$MPIEXEC_FLAGS"
  [[ ${#flags[@]} -eq 0 ]] || command+=("${flags[@]}")
elif [[ $("$launcher" --version 2>&1) == *"Open MPI"* ]]; then
  # Open MPI refuses root, the only user of most containers, and more ranks than cores. Only where it must be told so,
  # for it does not bind ranks to cores then. The other libraries need no telling.
  [[ $EUID -ne 0 ]] || command+=(--allow-run-as-root)
  cores=$(python -c 'import os
siblings = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"  # the hardware threads of one core
print(len({open(siblings.format(cpu)).read() for cpu in os.sched_getaffinity(0)}))' 2>/dev/null) || cores=0 # unknown
  [[ $ranks -le $cores ]] || command+=(--map-by :OVERSUBSCRIBE)
fi
command+=("${MPIEXEC_NUMPROC_FLAG:--n}" "$ranks" python -m mpi4py -m mpibench run "$@" --engine mpi)

echo "${command[*]}" >&2
exec "${command[@]}" </dev/null # launchers read their input, which would stop them in the background
