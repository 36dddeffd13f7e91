# Every target makes what it needs in .venv by itself, from Python 3.11+ with pip; nothing else has to be installed first.
# ARGS is passed on: make test ARGS="tests/storage -x" WORKERS=0, make demo ARGS="--rows 5000", make bench ARGS="--help".

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first of these that runs and is new enough; another one: make PYTHON=/path/to/python3 ...
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PROTO_VENV := $(VENV)/proto
PROTO_PYTHON := PYTHONDONTWRITEBYTECODE=1 $(PROTO_VENV)/bin/python
CHECKED := vecdb tests proto bench
PYTEST := $(BIN)/python -m pytest --durations=10
# Of `make test`: auto is at most two, and no more than there are cores; 0 runs the tests in one process.
WORKERS ?= auto

.PHONY: help demo test test-slow torture golden lint format proto bench load costs churn filters recovery recall against clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## index real text of this machine, search it, kill a writer with -9 and count what was lost
	$(BIN)/vecdb demo $(ARGS)

test: $(VENV)/.test  ## the tests that every commit must pass
	$(PYTEST) -m "not slow" -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: $(VENV)/.test  ## every test, the slow ones too, with more examples each
	$(PYTEST) --hypothesis-profile=long $(ARGS)

torture: $(VENV)/.test  ## the long runs of the crash, fault and state-machine tests: make torture ARGS="--seed 7 --share 0.1"
	$(PYTEST) --hypothesis-profile=long -m slow tests/crash tests/storage tests/property $(ARGS)

golden: $(VENV)/.test  ## make the golden database of the present format version
	$(BIN)/python -m tests.compat.make_golden

lint: $(VENV)/.test $(VENV)/.proto  ## formatting, types, layers, style, and the protocol's compatibility
	$(BIN)/ruff check --output-format=concise $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/architecture/style.py
	$(PROTO_PYTHON) proto/check.py

format: $(VENV)/.test  ## format the sources and apply the fixes that are safe
	$(BIN)/ruff check --fix-only $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

proto: $(VENV)/.proto  ## generate vecdb/v1 from proto/vecdb/v1
	$(PROTO_PYTHON) proto/generate.py .

bench: $(VENV)/.bench  ## measure vecdb beside other engines
	$(BIN)/vecdb bench $(ARGS)

load: $(VENV)/.bench  ## measure how many searches a server carries, beside a bare gRPC server
	$(BIN)/python bench/load.py $(ARGS)

costs: $(VENV)/.bench  ## measure durable writes, opening, importing and a thousand collections
	$(BIN)/python bench/costs.py $(ARGS)

churn: $(VENV)/.bench  ## measure what ten times as many writes as rows do to answers, recall, disk, memory and latency
	$(BIN)/python bench/churn.py $(ARGS)

filters: $(VENV)/.bench  ## measure filtered searches beside unfiltered ones: make filters ARGS="--dataset text.hdf5"
	$(BIN)/python bench/filters.py $(ARGS)

recovery: $(VENV)/.bench  ## measure opening after a kill -9 with a long log: make recovery ARGS="--batch-rows 1000 1"
	$(BIN)/python bench/recovery.py $(ARGS)

recall: $(VENV)/.bench  ## measure asked against measured recall: make recall ARGS="--dataset glove-50"
	$(BIN)/python bench/recall.py $(ARGS)

against: $(VENV)/.bench  ## measure the present source beside another commit: make against ARGS="HEAD~10"
	$(BIN)/python bench/against.py $(ARGS)

clean:  ## remove what was built and cached, but not .venv
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find vecdb tests proto bench -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of packages, so that no target installs more than it uses. They depend on pyproject.toml alone:
# the package itself is installed editable. A .venv that was made by half is removed: it would pass for a whole one.

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then echo "vecdb needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo $(VENV)/.test $(VENV)/.bench: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[$*]"
	@touch $@

$(VENV)/.proto: pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["proto"])')
	@touch $@
