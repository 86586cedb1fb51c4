# `make study` and `make test` need Python 3.11 and nothing else; everything else is installed into .venv.
PYTHON ?= python3.11
CORES ?= all
# More arguments for snakemake, for example ARGS="--configfile config/methods.yaml".
ARGS ?=

BIN := .venv/bin
BENCH := PYTHONPATH=workflow/scripts:tests $(BIN)/python
PIP := $(BIN)/python -m pip install --quiet
STUDY_READY := .venv/.study-ready
TEST_READY := .venv/.test-ready
EXPORT_READY := .venv-export/.ready
GEMLITE_READY := .gemlite/.ready
# One thread a process: the processes share the cores, and the bytes do not depend on how many there are.
export OMP_NUM_THREADS := 1

.PHONY: chromium slurm gemlite gpu-check help study quick train hunt test test-slow test-slurm test-full-width test-all bench bench-growth compare lint format docs
.DEFAULT_GOAL := help

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 17

study: $(STUDY_READY)  ## Run the default study to reports/.
	$(BIN)/snakemake --cores $(CORES) $(ARGS)

quick: $(STUDY_READY)  ## Draw the first figure: one model, three schemes.
	$(BIN)/snakemake --cores $(CORES) --configfile config/quick.yaml $(ARGS) -- reports/quick/risk_coverage.pdf

train: $(STUDY_READY)  ## Train the embedded models anew into data/trained/ (hours).
	$(BIN)/snakemake --cores $(CORES) $(ARGS) -- $(addprefix data/trained/,qwen2-vl-tiny idefics3-tiny llava-tiny blip2-tiny blip2-itm-tiny adversary)

lint: $(TEST_READY)  ## Check format, style, types, the order of imports, and the links of the documentation.
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=workflow/scripts $(BIN)/lint-imports --no-logo
	$(BIN)/snakemake --lint
	$(BIN)/rumdl check .

docs: $(TEST_READY)  ## Build the documentation into build/site/; a dead link is an error.
	$(BIN)/rumdl check .
	$(BIN)/zensical build --clean --strict
	@echo "Open build/site/index.html"

format: $(TEST_READY)  ## Format everything.
	$(BIN)/snakefmt Snakefile workflow/rules
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint  ## Check style and run all tests but the slow ones.
	$(BIN)/pytest -m "not slow and not slurm" --numprocesses auto --dist worksteal $(ARGS)

test-slow: $(TEST_READY) $(EXPORT_READY) $(GEMLITE_READY) chromium  ## Run the slow tests alone.
	$(BIN)/pytest -m "slow and not full_width" --numprocesses auto --dist worksteal $(ARGS)

test-full-width: $(TEST_READY)  ## Run the published study on models of full width and two blocks.
	$(BIN)/pytest -m full_width $(ARGS)

test-slurm: $(TEST_READY) slurm  ## Run a small study on a Slurm cluster of one node, which it starts and stops.
	timeout --kill-after=120 2700 $(BIN)/pytest -m slurm $(ARGS)

hunt: $(TEST_READY)  ## Search at length, with new random input, for what the tests do not know (hours).
	QUANTRUST_HUNT=1 $(BIN)/pytest -m hunt --numprocesses auto --dist worksteal $(ARGS)

test-all: test  ## Run all tests.
	$(MAKE) test-slow
	$(MAKE) test-slurm
	$(MAKE) test-full-width

chromium:  ## Install Debian's Chromium, in which the page is tested, where there is no browser.
	@command -v chromium chromium-browser google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && SUDO= || SUDO=sudo; \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -qq -y --no-install-recommends chromium; \
	}

gemlite: $(GEMLITE_READY)  ## Put gemlite and triton into .gemlite, for the test of the kernels for GPUs on a CPU.

slurm:  ## Install Debian's Slurm where there is none.
	@PATH="$$PATH:/usr/sbin"; command -v slurmctld >/dev/null && command -v munged >/dev/null || { \
	  test "$$(id -u)" = 0 && SUDO= || SUDO=sudo; \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -qq -y --no-install-recommends slurm-wlm munge; \
	}

bench: $(TEST_READY)  ## Run the benchmarks, each against its baselines in the same run.
	$(BENCH) benchmarks/bench_evaluation.py
	$(BENCH) benchmarks/bench_dump.py
	$(BENCH) benchmarks/bench_sizes.py
	$(BENCH) benchmarks/bench_quantization.py
	$(BENCH) benchmarks/bench_kernels.py
	$(BENCH) benchmarks/load_serve.py

bench-growth: $(TEST_READY)  ## Measure how the pipeline grows with variants and jobs (hours, 15 GB of disk).
	$(BENCH) benchmarks/bench_growth.py $(ARGS)

gpu-check: $(TEST_READY)  ## Try the code for GPUs on the first GPU, in at most eight minutes.
	env -u OMP_NUM_THREADS $(BENCH) benchmarks/gpu_check.py $(ARGS)

# The finished study whose checkpoints are compared, and the models in it.
DATA ?= data
MODELS ?= qwen2-vl-tiny idefics3-tiny
compare: $(TEST_READY)  ## Compare the checkpoints of a finished study: errors inside, agreement, accuracy.
	for model in $(MODELS); do $(BENCH) benchmarks/compare_methods.py $$model --data $(DATA) || exit 1; done

$(STUDY_READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "Installing requirements.txt into .venv (some 100 packages, about two minutes)"
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(TEST_READY): $(STUDY_READY) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@

$(EXPORT_READY): requirements-export.txt
	$(PYTHON) -m venv .venv-export
	@echo "Installing requirements-export.txt into .venv-export: what loads exported folders"
	.venv-export/bin/python -m pip install --quiet -r requirements-export.txt
	touch $@

# Without what they need: torch is there, and a second one would come with triton of its own.
$(GEMLITE_READY): requirements-gemlite.txt | $(STUDY_READY)
	rm -rf .gemlite
	mkdir .gemlite
	$(PIP) --no-deps --no-compile --target .gemlite -r requirements-gemlite.txt
	touch $@
