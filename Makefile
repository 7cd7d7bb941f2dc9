# Two commands for newcomers: make demo, make test. The rest is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUESTION ?= Why is the sky blue?
# Processes that share the tests, one core and up to 2 GB each.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# A process that keeps no bytecode compiles torch, transformers and the tests anew, fifteen seconds each time; the tests
# start many processes, and the packages in .venv are compiled by whoever imports them first.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo setup gguf ray test quick fuzz check tested prepared lint types docs bench train clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# What is never imported need not be compiled, which takes twice as long as all the rest of an installation.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[dev]"
	@touch $@

setup: $(VENV)/installed  ## install everything into .venv, build the kernels, fetch the base model once
	@$(BIN)/python -m dllm_plugins setup

demo: setup  ## answer a question and show it being denoised
	@HF_HUB_OFFLINE=1 $(BIN)/llm dllm watch "$(QUESTION)" -o max_tokens 96

# It is built from source.
$(VENV)/gguf: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[gguf]"
	@touch $@

gguf: $(VENV)/gguf  ## install llama.cpp for GGUF files: minutes, with a C++ compiler

$(VENV)/ray: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e ".[ray]"
	@touch $@

ray: $(VENV)/ray  ## install Ray for replicas and jobs on a cluster: half a minute, 400 MB

test: setup  ## run all tests, in WORKERS=2 processes
	$(PYTEST)

quick: setup  ## all tests but those that take more than about two seconds: minutes
	$(PYTEST) -m "not slow"

fuzz: setup  ## damaged files, many callers at random, wrong requests: DLLM_FUZZ_SECONDS (120), DLLM_FUZZ_BODIES (2000)
	DLLM_FUZZ_SECONDS=$${DLLM_FUZZ_SECONDS:-120} DLLM_FUZZ_BODIES=$${DLLM_FUZZ_BODIES:-2000} \
		$(BIN)/python -m pytest tests/fuzz tests/serving/test_malformed.py

lint: $(VENV)/installed  ## ruff, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache > $(VENV)/imports || { cat $(VENV)/imports; exit 1; }
	$(BIN)/ruff format --check .

types: $(VENV)/installed  ## mypy --strict
	$(BIN)/mypy

docs: $(VENV)/installed  ## check that the docs say what the code says, and build them into site/
	$(BIN)/python docs/check.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Two at a time: mypy takes one core for minutes.
check: $(VENV)/installed  ## all that CI runs
	@$(MAKE) --no-print-directory --jobs=2 types tested

tested: prepared
	$(PYTEST)

prepared: lint setup docs
	@$(MAKE) --no-print-directory gguf || echo "llama.cpp cannot be built here: the tests of GGUF files are skipped, and say so"
	@$(MAKE) --no-print-directory ray || echo "Ray cannot be installed here: the tests of replicas and of jobs on a cluster are skipped, and say so"

bench: setup  ## benchmarks, each beside its baselines
	$(BIN)/python benchmarks/default_model.py
	$(BIN)/python benchmarks/families.py
	$(BIN)/python benchmarks/block_pass.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/peers/run.py
	@$(MAKE) --no-print-directory gguf && $(BIN)/python benchmarks/gguf_files.py || echo "the benchmark of GGUF files is left out"

train: setup  ## rebuild the shipped denoiser (hours; resumes where it was)
	$(BIN)/python -m dllm_plugins.training train

clean:  ## remove the environment and what builds leave behind
	rm -rf $(VENV) build dist runs site .pytest_cache .mypy_cache .ruff_cache
