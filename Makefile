# Everything that is done with this checkout. `make help` lists the targets.
# With KUBECONFIG set, e2e, bench and demo use that cluster; without, a local one (deploy/local).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTHON := $(BIN)/python
CLUSTER := $(PYTHON) deploy/local/cluster.py
ROLLOUT := $(BIN)/kubectl rollout -n serinus-system
APPLY := $(BIN)/kubectl apply -k deploy/base
# An operator that is there already starts again, for its image may be another one by now.
INSTALL := if $(BIN)/kubectl get -n serinus-system deployment/serinus >/dev/null 2>&1; \
    then $(APPLY) && $(ROLLOUT) restart deployment/serinus; else $(APPLY); fi && \
    $(ROLLOUT) status deployment/serinus --timeout=180s
PYTEST := SERINUS_INSTALLED=1 $(BIN)/pytest tests/e2e -v --durations=20 --durations-min=10
# One by one those that disturb others, then four at a time, of which most wait for something. What is BESIDE the first
# has the processor that they leave: they wait for two thirds of their time.
E2E = $(CLUSTER) run -- bash -c "$(INSTALL) || exit 1; code=0; $(BESIDE) & beside=\$$!; \
    $(PYTEST) -m alone || code=1; wait \$$beside || code=1; \
    $(PYTEST) -m 'not alone' -n 4 --maxschedchunk 1 || code=1; exit \$$code"
BESIDE := true
# Arrays of thousands of simulated runs come and go in the unit tests: glibc keeps their memory for the next ones.
KEEP_MEMORY := MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=268435456
UNIT := $(KEEP_MEMORY) $(BIN)/pytest tests/unit -q -n 3
SAY = printf '[%(%H:%M:%S)T] %s\n' -1

export DEBIAN_FRONTEND := noninteractive
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What Python compiles is kept, whatever the environment says: every worker and command of a test run starts anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup lint unit e2e test bench demo up down status images crds clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: .venv/.ready ## make .venv with Serinus (editable) and the tools of development

.venv/.ready: pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Serinus needs Python 3.11 or newer as python3 on the PATH; this is $$(python3 --version 2>&1)."; exit 1; }
	@python3 -c 'import ensurepip' 2>/dev/null || { \
	    [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { \
	        echo "This Python cannot make virtual environments: install its package python3-venv."; exit 1; }; \
	    apt-get update -q >/dev/null && apt-get install -q -y --no-install-recommends python3-venv >/dev/null; }
	@$(SAY) "making .venv (about a minute)"
	@[ -x $(PYTHON) ] || python3 -m venv .venv
	@$(PYTHON) -m pip install -q --upgrade 'pip>=25.1'
	@$(PYTHON) -m pip install -q --no-compile --editable . --group dev
	@touch $@

lint: setup ## style, types and layers
	@$(SAY) "ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(SAY) "mypy"
	@$(BIN)/mypy
	@cd deploy/local && ../../$(BIN)/mypy --config-file ../../pyproject.toml *.py
	@$(SAY) "layers"
	@$(BIN)/lint-imports

unit: setup ## the unit tests
	@$(SAY) "unit tests"
	@$(UNIT)

e2e: setup ## the end-to-end tests, on the local cluster or on KUBECONFIG's
	@$(SAY) "end-to-end tests"
	@$(E2E)

test: BESIDE := (nice env -u KUBECONFIG $(UNIT) >build/unit.log 2>&1; code=\$$?; cat build/unit.log; exit \$$code)
test: lint ## lint, unit and e2e; the last only where a cluster can be
	@$(SAY) "unit tests and end-to-end tests"
	@mkdir -p build
	@code=0; $(E2E) || code=$$?; \
	case $$code in \
	    0) $(SAY) "lint, unit tests and end-to-end tests passed" ;; \
	    3) $(UNIT); \
	       $(SAY) "lint and unit tests passed; the end-to-end tests did NOT run: this machine can have no cluster" ;; \
	    *) $(SAY) "the tests failed"; exit $$code ;; \
	esac

bench: setup ## measure the figures of docs/benchmarks.md; writes build/bench.json
	@$(CLUSTER) run -- bash -c "$(INSTALL) && $(PYTHON) tests/bench/run.py"

demo: setup ## a good release is promoted, a bad one is rolled back; KEEP=1 leaves it up
	@KEEP="$(KEEP)" $(PYTHON) deploy/demo/demo.py

up: setup ## bring the local cluster up
	@$(CLUSTER) up

down: setup ## end the local cluster and remove its state
	@$(CLUSTER) down

status: setup ## what runs in the local cluster
	@$(CLUSTER) status

images: setup ## build every image and load those that changed
	@$(CLUSTER) images

crds: setup ## write crds/ from the models in operator/serinus/api
	@$(PYTHON) -m serinus.api.crds

clean: ## remove the local cluster and all that was built here; the cache outside the checkout stays
	@if [ -x $(PYTHON) ] && [ -d .state ]; then $(CLUSTER) down; fi
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
