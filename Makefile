# One place for every command. `make demo` and `make test` set up all they need; both are safe to run again.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export STROP_CACHE ?= $(HOME)/.cache/strop
UV_VERSION := 0.13.9
UV := $(STROP_CACHE)/uv-$(UV_VERSION)/bin/uv
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(STROP_CACHE)/bin/current:$(PATH)
export UV_LINK_MODE ?= hardlink
export HF_HUB_OFFLINE ?= 1
PYTEST := $(PY) -m pytest
# Two workers, a file of tests to each: what a file shares (a server, a model) is made once.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- set-up -----------------------------------------------------------------------------------------------------

$(UV):
	@echo "== uv $(UV_VERSION)"
	python3 -m venv $(STROP_CACHE)/uv-$(UV_VERSION)
	$(STROP_CACHE)/uv-$(UV_VERSION)/bin/pip install -q --disable-pip-version-check uv==$(UV_VERSION)

.venv/.stamp: requirements/dev.txt requirements/demo.txt pyproject.toml | $(UV)
	@echo "== Python environment (.venv)"
	[ -x $(PY) ] || $(UV) venv -q --python python3 .venv
	VIRTUAL_ENV=.venv $(UV) pip sync -q --require-hashes requirements/dev.txt
	VIRTUAL_ENV=.venv $(UV) pip install -q --no-deps --require-hashes -r requirements/demo.txt
	VIRTUAL_ENV=.venv $(UV) pip install -q --no-deps --no-build-isolation -e .
	touch $@

.PHONY: env
env: .venv/.stamp ## Python environment in .venv, from the hashed lock

.PHONY: programs
programs: ## etcd, Kubernetes, Helm, kwok, kubeconform from one Go module (cached outside the tree)
	tests/cluster/install-packages
	tests/cluster/build-binaries

.PHONY: images
images: programs env ## Operator and trainer images from our Dockerfiles (cached outside the tree)
	tests/cluster/build-images

# --- the main job ------------------------------------------------------------------------------------------------

.PHONY: demo
demo: env ## From nothing to a proven ONNX model: cluster, images, chart, job, artifact
	$(PY) examples/demo.py up

.PHONY: demo-down
demo-down: env ## Remove all that the demo made (caches stay)
	$(PY) examples/demo.py down

# --- tests -------------------------------------------------------------------------------------------------------

.PHONY: test
test: lint type unit trainer platform ## All tests; sets up all it needs

.PHONY: lint
lint: env ## ruff, import floors
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports

.PHONY: type
type: env ## mypy, strict
	$(PY) -m mypy

.PHONY: unit
unit: programs env ## Pure rooms, with coverage; drift of CRDs, docs, locks; examples and README blocks
	$(PYTEST) $(PARALLEL) tests/unit --cov --cov-report=term:skip-covered

.PHONY: api
api: programs env ## A real etcd, kube-apiserver and controller-manager
	$(PYTEST) $(PARALLEL) tests/api

.PHONY: trainer
trainer: env ## Real small models on CPU
	OMP_NUM_THREADS=1 $(PYTEST) $(PARALLEL) tests/trainer

.PHONY: cluster
cluster: images ## Two real nodes, our images, the chart, a job to its end
	$(PYTEST) tests/cluster

.PHONY: fault
fault: programs env ## What breaks, and what then happens
	$(PYTEST) -n 2 tests/fault

.PHONY: platform
platform: images ## The tests of cluster, api and fault, beside each other
	$(PYTEST) -n 2 --dist loadscope --no-loadscope-reorder tests/cluster tests/api tests/fault

.PHONY: gpu
gpu: env ## The trainer on a real accelerator of this machine; not part of `make test`
	$(PYTEST) tests/gpu

.PHONY: bench
bench: images ## Ratios against peers and limits; writes docs/benchmarks.md
	$(PY) -m benchmarks

.PHONY: bench-gpu
bench-gpu: env ## LoRA and QLoRA of an 8B-shaped random model against TRL with Liger, on a GPU of this machine
	$(PY) -m benchmarks gpu

.venv/.scenarios: requirements/scenarios.txt .venv/.stamp | $(UV)
	VIRTUAL_ENV=.venv $(UV) pip install -q --no-deps --require-hashes -r requirements/scenarios.txt
	touch $@

.PHONY: scenarios
scenarios: env .venv/.scenarios ## Every scenario with every technique, on real rows (an hour and a half); writes docs/scenarios.md
	$(PY) -m scenarios

# --- the cluster, for people ---------------------------------------------------------------------------------------

.PHONY: cluster-up
cluster-up: programs ## Two real nodes on this machine: a CPU pool and a (fake) GPU pool
	tests/cluster/up

.PHONY: cluster-down
cluster-down: ## Stop them and remove their state
	tests/cluster/down --wipe

# --- what is generated ---------------------------------------------------------------------------------------------

.PHONY: crds
crds: programs env ## crds/ and the chart's copies, from operator/strop/api
	$(PY) -m strop.api.crdgen
	$(PY) docs/chart_reference.py

.PHONY: docs
docs: programs env ## docs/reference, from the code
	$(PY) docs/generate.py
	$(PY) docs/chart_reference.py

.PHONY: lock
lock: $(UV) ## requirements/*.txt, from pyproject.toml and requirements/*.in
	for name in operator trainer; do $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-header --extra $$name pyproject.toml -o requirements/$$name.txt; done
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --extra operator --extra trainer --extra dev pyproject.toml -o requirements/dev.txt
	$(UV) pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-annotate --no-header \
		requirements/demo.in -o requirements/demo.txt
	$(UV) pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-annotate --no-header \
		requirements/scenarios.in -o requirements/scenarios.txt
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header -c requirements/dev.txt requirements/build.in -o requirements/build.txt
