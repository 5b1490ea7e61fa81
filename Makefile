# bilinear-bench: `make bench` and `make test` do all their own set-up, once, into .venv.
#
#   PYTHON    the interpreter to start from (3.11 or newer)            INSTALL=0  use PYTHON, with this project installed, as it is
#   SUITE     the suite that `make bench` runs                         DEVICE     cpu or cuda; empty: all that are found
#   OUT       folder of the run; empty: results/<run-id>               MODE       forward or step; empty: both
#   RUN_ID    the run that `make report` prints
#   BACKENDS  names, separated by spaces, or all; empty: the core set in the suite `quick`, all in the other suites

PYTHON ?= python3
INSTALL ?= 1
SUITE ?= quick
# Not `?=`: names this common may be in the environment already, meaning something else.
DEVICE =
BACKENDS =
MODE =
OUT =
RUN_ID ?= latest

VENV := .venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -q
# CUDA builds only where there is a GPU to use them: they are gigabytes.
CUDA := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
STEPS := $(if $(CUDA),5,4)

ifeq ($(INSTALL),0)
  PY := $(PYTHON)
  READY :=
else
  PY := $(VENV)/bin/python
  READY := $(STAMP)
endif

OPTIONS = --suite $(SUITE) $(if $(DEVICE),--device $(DEVICE)) $(foreach name,$(BACKENDS),--backend $(name)) \
          $(if $(MODE),--mode $(MODE)) $(if $(OUT),--out '$(OUT)')

.DEFAULT_GOAL := help
.PHONY: help install bench test slow gate lint check report clean dictionary docs

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(READY) ## Create .venv and install everything into it

bench: $(READY) ## Check and time backends (BACKENDS=all: every one), print the answer, leave CSV files in results/
	@$(PY) -m harness run $(OPTIONS)

test: $(READY) ## Run the tests, in less than eight minutes on two quiet cores
	@$(PY) -m pytest -q -n 2

slow: $(READY) ## Run the tests that take minutes each
	@BILINEAR_BENCH_SLOW=1 $(PY) -m pytest -q -n 2 -m slow

gate: $(READY) ## Check every backend on PyTorch's own tests and on the suite `models`; takes long
	@BILINEAR_BENCH_ALL=1 $(PY) -m pytest -q tests/test_upstream.py
	@$(PY) -m harness check --suite models $(if $(DEVICE),--device $(DEVICE)) \
	  $(foreach name,$(BACKENDS),--backend $(name)) $(if $(MODE),--mode $(MODE))

lint: $(READY) ## Check style, format and types: ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

check: lint ## The same as lint

report: $(READY) ## Print the tables of a run again (RUN_ID=latest)
	@$(PY) -m harness report '$(RUN_ID)'

dictionary: $(READY) ## Write the data dictionary, results/README.md, from harness/record.py
	@$(PY) -c "from harness.output.dictionary import render; print(render(), end='')" > results/README.md

docs: $(READY) ## Rewrite the generated blocks of README.md and docs/ from the committed files
	@$(PY) -m harness.output.docs
	@$(PY) studies/summaries.py

clean: ## Remove .venv, caches and build products; results stay
	rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .benchmarks .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and by its exact version: resolved together with the rest it could become the newest CUDA build.
$(STAMP): pyproject.toml constraints.txt constraints-cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is missing or older than Python 3.11: name a newer one, as in make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV), once: 2.7 GB on disk, a few minutes."
	@echo "  1 of $(STEPS): $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "  2 of $(STEPS): torch, of which nn.Bilinear and the reference are"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@echo "  3 of $(STEPS): bilinear-bench with NumPy, Numba, JAX, Triton and Matplotlib"
	@$(PIP) install -c constraints.txt -e '.[torch,numba,jax,triton,plot]'
	@echo "  4 of $(STEPS): what its tests need"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@$(if $(CUDA),echo "  5 of $(STEPS): CUDA builds; several GB")
	@$(if $(CUDA),$(PIP) install -c constraints.txt -r constraints-cuda.txt)
	@touch $(STAMP)
	@echo "Installed. The command is $(VENV)/bin/bilinear-bench."
