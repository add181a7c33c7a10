#!/bin/bash
{# A template of jinja2, rendered by `mpibench submit --dry-run` for a site with PBS. #}
# {{ experiment }}: {{ cells }} cells, {{ per_job }} to a job; rendered by mpibench {{ version }} for the site {{ site }}
#PBS -N mpb-{{ experiment }}
#PBS -l select={{ nodes }}:ncpus={{ ranks_per_node * cores_per_rank }}:mpiprocs={{ ranks_per_node }}
#PBS -l walltime={{ time }}
{% if last %}
#PBS -J 0-{{ last }}%{{ cap }}
{% endif %}
{% if account %}
#PBS -A {{ account }}
{% endif %}
{% for option in options %}
#PBS {{ option | code }}
{% endfor %}
#PBS -j oe
#PBS -r y
set -eo pipefail
{% if modules %}
module --force purge
module load {{ modules | words }}
{% endif %}
{% if setup %}
{{ setup | code }}
{% endif %}
set -u # only now: module functions may read unset variables

export PATH={{ python }}/bin:"$PATH"
export OMP_NUM_THREADS={{ cores_per_rank }} OPENBLAS_NUM_THREADS={{ cores_per_rank }} MKL_NUM_THREADS={{ cores_per_rank }}
export HDF5_USE_FILE_LOCKING=FALSE PYTHONUNBUFFERED=1
{% for name, value in environment %}
export {{ name }}={{ value }}
{% endfor %}

cd {{ folder }}
first=$(((${PBS_ARRAY_INDEX:-0} + {{ offset }}) * {{ per_job }}))
exec {{ launch | words }} {{ run | words }} --cell "$first" --cells-per-job {{ per_job }} --resume
