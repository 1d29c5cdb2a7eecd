# `make help` lists the targets. PYTHON, PROCS, SIZE, OUT and SEED may be given: make demo PROCS=2
PYTHON ?= python3
PROCS ?= 1
SIZE ?= small
OUT ?= runs/demo
SEED ?= 0
BIN := .venv/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint mutants bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST)

setup: .venv/.stamp  ## create .venv with the tested versions

# torch alone first: the pinned version has a CPU wheel, a free choice brings gigabytes of CUDA.
.venv/.stamp: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt torch==2.13.0
	$(PIP) install -c constraints.txt -e ".[dev]"
	# peers of the tests of solvers and image metrics, whose other requirements (training libraries,
	# torchvision) they do not need here
	$(PIP) install -c constraints.txt --no-deps k-diffusion torchsde trampoline \
		torchmetrics lightning-utilities torch-fidelity
	touch $@

demo: setup  ## train and sample both panels on small data, then write a report
	$(BIN)/python -m examples.demo --out $(OUT) --procs $(PROCS) --size $(SIZE)

test: setup  ## run the tests on two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q

lint: setup  ## check format, style, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

mutants: setup  ## break the mathematics in 200 places and count what the tests catch
	$(BIN)/python -m benchmarks.mutants --seed $(SEED)

bench: setup  ## measure throughput
	$(BIN)/python -m benchmarks.throughput

clean:  ## remove what the tools wrote, but neither .venv nor runs
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
