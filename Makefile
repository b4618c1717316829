# `make` lists the targets. Each one makes .venv first when it is missing or out of date.
PYTHON ?= python3
PIP_ARGS ?=

BIN := .venv/bin
# Python compiles what it imports; compiled ahead, what nobody imports takes a fifth of the disk and a third of the time.
INSTALL := $(BIN)/python -m pip install -qq --no-compile $(PIP_ARGS) -c constraints.txt
# What the demo needs, and what a developer needs beside it.
DEMO_READY := .venv/.demo-ready
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults lint types contracts bench docs site results format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## compress the quickstart model to 2x, 4x, 8x and 16x, in minutes; writes demo/report.html
	@$(BIN)/sparsebert compress --recipe quickstart -o demo

test: $(READY) ## run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-faults: $(READY) ## kill every type of run at every write, damage every file: ten minutes
	@$(BIN)/python -m pytest -n 2 -m faults tests/test_faults.py

lint: $(READY) ## check style and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## check types
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

contracts: $(READY) ## check who imports whom
	@$(BIN)/lint-imports

bench: $(READY) ## time a layer at every size on this machine
	@$(BIN)/python benchmarks/layer_times.py

docs: $(READY) ## write docs/cli and docs/recipes.md from the code
	@$(BIN)/python docs/generate.py

site: $(READY) ## build the documentation as a site, into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

results: $(READY) ## write the tables of results/ and docs/results from the records
	@cd docs && ../$(BIN)/python -m results_tables

format: $(READY) ## format the code and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove .venv, caches, the demo and the site; never runs/
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist demo site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO_READY): pyproject.toml constraints.txt hatch_build.py $(wildcard csrc/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "SparseBERT needs Python 3.11 or newer, '$(PYTHON)' is not; try: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into .venv; the first time takes a few minutes ..."
	@$(PYTHON) -m venv .venv
	@$(INSTALL) -e '.[quickstart]'
	@touch $@

$(READY): $(DEMO_READY)
	@echo "Installing the developer's tools into .venv ..."
	@$(INSTALL) -e '.[quickstart,engines,serve,explorer,search,ray,energy,triton,dev,docs]'
	@touch $@
