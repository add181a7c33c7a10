#!/bin/bash
# small: 4 cells, 2 to a job; rendered by mpibench for the site pbs
#PBS -N mpb-small
#PBS -l select=1:ncpus=1:mpiprocs=1
#PBS -l walltime=01:00:00
#PBS -J 0-1%2
#PBS -q workq
#PBS -j oe
#PBS -r y
set -eo pipefail
set -u # only now: module functions may read unset variables

export PATH=/environment/bin:"$PATH"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export HDF5_USE_FILE_LOCKING=FALSE PYTHONUNBUFFERED=1

cd /project
first=$(((${PBS_ARRAY_INDEX:-0} + 0) * 2))
exec  python -m mpibench run /project/job.toml --set 'experiment.engine="simulation"' --set 'heterogeneity.compute={ profile = "equal" }' --out /project/results --cell "$first" --cells-per-job 2 --resume
