#!/bin/bash
# small: 4 cells, 2 to a job; rendered by mpibench for the site slurm
#SBATCH --job-name=mpb-small
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --array=0-1%2
#SBATCH --exclusive
#SBATCH --hint=nomultithread
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=USR1@300
#SBATCH --output=/project/results/small/jobs/%x-%A_%a.out
#SBATCH --export=NONE
set -eo pipefail
unset SLURM_EXPORT_ENV # else --export=NONE reaches srun, too
set -u # only now: module functions may read unset variables

export PATH=/environment/bin:"$PATH"
threads=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=$threads # srun has not inherited it since Slurm 22.05
export OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads MKL_NUM_THREADS=$threads
export HDF5_USE_FILE_LOCKING=FALSE # parallel file systems often have no locks, and each file has one writer
export PYTHONUNBUFFERED=1          # what a killed job had printed is in the log

cd /project
first=$(((SLURM_ARRAY_TASK_ID + 0) * 2))
command=(srun --mpi=none --label --unbuffered --kill-on-bad-exit=1 --cpu-bind=cores python -m mpibench run /project/job.toml --set 'experiment.engine="simulation"' --set 'heterogeneity.compute={ profile = "equal" }' --out /project/results --cell "$first" --cells-per-job 2 --resume)
# a restarted job counts its steps anew, and MPICH would wait in the shared memory of a killed one of the same number
for ((step = 0; step < ${SLURM_RESTART_COUNT:-0}; step++)); do srun --ntasks=1 --mpi=none true || true; done
failed=()
worst=0
for ((attempt = 0; attempt <= 4; attempt++)); do
  code=0
  "${command[@]}" "${failed[@]}" || code=$?
  case $code in
    0 | 2 | 3 | 75) break ;;
  esac
  worst=$code
  failed=(--skip-failed) # it has taken its process along, and the other runs go on without it
done
[[ $code -eq 75 || $worst -eq 0 ]] || code=$worst

restarts=${SLURM_RESTART_COUNT:-0}
if [[ $code -eq 75 ]]; then # stopped at the time limit, with work left
  if [[ $restarts -lt 10 ]]; then
    scontrol requeue "$SLURM_JOB_ID" # of an array, this task alone
  else
    echo "not finished after $restarts restarts; submit again, and what is complete is kept" >&2
  fi
fi
exit "$code"
#!/bin/bash
# small: collects what the jobs have left; rendered by mpibench for the site slurm
#SBATCH --job-name=mpb-small-collect
#SBATCH --ntasks=1
#SBATCH --time=00:30:00
#SBATCH --hint=nomultithread
#SBATCH --output=/project/results/small/jobs/%x-%j.out
#SBATCH --export=NONE
set -o pipefail
export PATH=/environment/bin:"$PATH" PYTHONUNBUFFERED=1 HDF5_USE_FILE_LOCKING=FALSE

cd /project || exit 1
code=0
python -m mpibench collect /project/results/small || code=$?
python -m mpibench verify /project/results/small || code=$?
python -m analysis table /project/results/small --ungated --out /project/results/small/table.md || code=$?
python -m analysis report /project/results/small --ungated --out /project/results/small/report.html || code=$?
exit "$code"
