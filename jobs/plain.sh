#!/bin/bash
{# A template of jinja2, rendered by `mpibench submit` for a machine without a batch system. #}
# {{ experiment }}: {{ cells }} cells, {{ per_job }} at a time; rendered by mpibench {{ version }} for the site {{ site }}
set -uo pipefail
{% if setup %}
{{ setup | code }}
{% endif %}
export PATH={{ python }}/bin:"$PATH"
export OMP_NUM_THREADS={{ cores_per_rank }} OPENBLAS_NUM_THREADS={{ cores_per_rank }} MKL_NUM_THREADS={{ cores_per_rank }}
{% for name, value in environment %}
export {{ name }}={{ value }}
{% endfor %}

cd {{ folder }} || exit 1
worst=0
for ((first = 0; first < {{ cells }}; first += {{ per_job }})); do
  failed=()
  for ((attempt = 0; attempt <= {{ runs_per_job }}; attempt++)); do
    code=0
    {{ launch | words }} {{ run | words }} --cell "$first" --cells-per-job {{ per_job }} --resume "${failed[@]}" </dev/null || code=$?
    case $code in
      0 | 3) break ;;
      2 | 75 | 130 | 143) exit "$code" ;;
    esac
    worst=$code
    failed=(--skip-failed) # it has taken its process along, and the other runs go on without it
  done
done
{% for command in collect %}
{{ command | words }} || worst=$?
{% endfor %}
exit "$worst"
