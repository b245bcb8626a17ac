# Every target makes .venv and installs what it needs first: from nothing but Python 3.11+, make and a package registry.
#
#   make demo          train and film an agent, paint a frame, train a generator and a world model, sweep, serve: 10 minutes;
#                      KEEP=1 leaves the service up    DEMO_ARGS="--seed 2"
#   make test          the default tier: minutes, no Ray, no root                 PYTEST_ARGS="tests/rl -x"
#   make test-all      every tier but gpu (about half an hour on 2 cores)
#   make test-cluster  loses machines: 4 roles x power-off and cut cable x settings x seeds (root; hours; CLUSTER_ARGS=--help)
#   make check         format, lint, types, and the files that start a cluster
#   make bench         every tests/bench/bench_*.py but bench_atari (hours) and bench_gpu, or BENCH=bench_learning
#                      BENCH_ARGS=--quick
#   make docs          the documentation as a site in build/docs, without a network
#   make system-deps   Debian packages that some tests of test-all need (as root; demo and test need none)
#   make constraints   newest versions that pyproject.toml allows, written down in constraints.txt
#   make clean         remove .venv, caches and builds; runs/ stays
#   make PYTHON=python3.12 …   with another interpreter

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
BENCH ?= $(filter-out bench_atari bench_gpu, $(sort $(notdir $(basename $(wildcard tests/bench/bench_*.py)))))

# Programs, and two packages of data: Fashion-MNIST (31 MB) and the paintings of GCompris (44 MB, without the game).
SYSTEM_DEPS := chromium dataset-fashion-mnist ffmpeg gcompris-qt-data iproute2 openssh-server rsync wrk

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-all test-cluster check format bench docs system-deps constraints clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

# --- environment -----------------------------------------------------------------------------------------------------

# Two stamps: the tests' tools come with every install, the benchmarks' rivals only when a benchmark asks for them.
$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no '$(PYTHON)' here: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1), genray needs 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { echo "error: '$(PYTHON)' has no venv module: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install --quiet --editable ".[test]" --constraint constraints.txt
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP) install --quiet --editable ".[test,bench]" --constraint constraints.txt
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) install --quiet --editable ".[test,docs]" --constraint constraints.txt
	@touch $@

# What a fresh environment gets today, with nothing held back: the new file is kept only if everything installed.
# Names and versions alone: no index addresses, no local paths.
constraints:
	rm -rf $(VENV).new
	"$(PYTHON)" -m venv $(VENV).new
	$(VENV).new/bin/python -m pip --disable-pip-version-check install --quiet --upgrade --editable ".[test,bench,docs]"
	@{ echo "# Exact versions that the tests pass with: 'make constraints' writes this file from a fresh environment,"; \
	   echo "# and every install of the Makefile uses it (pip install -c). Python $$($(VENV).new/bin/python -c 'import platform as p; print(p.python_version(), p.system(), p.machine())')."; \
	   $(VENV).new/bin/python -m pip freeze --all --exclude genray --exclude pip | grep -E '^[A-Za-z0-9._-]+==[^ ]+$$'; \
	 } > constraints.txt.tmp
	@mv constraints.txt.tmp constraints.txt
	rm -rf $(VENV).new
	@echo "wrote constraints.txt: run 'make check test-all' before you keep it"

# --- use ------------------------------------------------------------------------------------------------------------

demo: $(VENV)/.installed
	$(BIN)/genray demo $(if $(KEEP),--keep) $(DEMO_ARGS)

# --- proof ----------------------------------------------------------------------------------------------------------

# tests/conftest.py says what runs beside what. The last -n wins: PYTEST_ARGS="-n 0 --pdb" is one process.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not gpu" $(PYTEST_ARGS)

test-cluster: $(VENV)/.installed
	$(BIN)/python -m tests.cluster.matrix $(CLUSTER_ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy genray tuning serve
	$(BIN)/python -m tests.cluster.lint

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench
	@set -e; for name in $(BENCH); do echo "== $$name"; $(BIN)/python -m tests.bench.$$name $(BENCH_ARGS); done

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

system-deps:
	@missing=""; for package in $(SYSTEM_DEPS); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then echo "system-deps: nothing to do"; exit 0; fi; \
	command -v apt-get >/dev/null || { echo "error: no apt-get here: install these yourself:$$missing" >&2; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then as_root=""; else as_root="sudo"; \
	  command -v sudo >/dev/null || { echo "error: run 'make system-deps' as root: it installs$$missing" >&2; exit 1; }; fi; \
	echo "system-deps: installing$$missing"; \
	$$as_root apt-get update -qq && \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

clean:
	rm -rf $(VENV) $(VENV).new build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
