# Two commands do everything: `make demo` shows a video, `make test` is the gate. Both make .venv when
# it is not there and use it at once when it is. PYTHON and TORCH_INDEX are explained in scripts/setup.sh.
SHELL := /bin/sh
BIN := .venv/bin
PROMPT ?= a pink triangle grows on a black background
SEED ?= 0
EXTRAS ?= dev,curate,quant
WORKERS ?= 2
# One thread a process: more of them wait for each other as soon as the cores are shared.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: help demo test check format test-slow test-gpu train-tiny bench bench-curation lock env env-dev clean

help:
	@echo "make demo        set up, then one video from a prompt (PROMPT=... SEED=...)"
	@echo "make test        set up, then all checks and all fast tests: the gate"
	@echo "make check       lint, types, layers, sizes"
	@echo "make format      let the formatter have its way"
	@echo "make test-slow   the tests that take minutes"
	@echo "make test-gpu    the tests that need an accelerator"
	@echo "make train-tiny  train the shipped model again, from scratch"
	@echo "make bench       measure this machine into benchmarks/results/"
	@echo "make bench-curation  fill the table of what curation must reach; takes hours"
	@echo "make clean       remove caches and .venv, keep outputs and runs"

demo: env
	@sh scripts/demo.sh "$(PROMPT)" "$(SEED)"

test: check
	$(PYTEST) -n $(WORKERS) -m "not slow and not gpu and not net"

check: env-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/test_architecture.py

format: env-dev
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

test-slow: env-dev
	$(PYTEST) -n $(WORKERS) -m "slow and not gpu and not net" --timeout 3600

test-gpu: env-dev
	$(PYTEST) -m gpu --timeout 1800

train-tiny: env
	$(BIN)/contentv train tiny --jobs 2

# ORIGINAL=folder with the published contentv_transformer.py and contentv_pipeline.py adds the comparison.
bench: env
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/oracle.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/trainer.py
	[ -z "$(ORIGINAL)" ] || OMP_NUM_THREADS=1 $(BIN)/python benchmarks/compare_original.py \
		--original "$(ORIGINAL)" --out benchmarks/results/original-$$(date +%F)-$$(uname -m).json

bench-curation: env-dev
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python benchmarks/curation.py

# Every version of one environment with all extras, as constraints.txt holds it (see CONTRIBUTING.md).
lock:
	@sh scripts/lock.sh

env:
	@sh scripts/setup.sh

env-dev:
	@sh scripts/setup.sh $(EXTRAS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
