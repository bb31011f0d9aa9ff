# Every target does its own set-up in .venv; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

# The first Python that runs, is 3.10 or later and can make a virtual environment. Another one: make test PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3.10 python3; do \
    $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$python && break; done)

DEMO_CLIP := examples/digits.flac
PROMPT := what does the person say?

COUNT ?= 100000
KILLS ?= 50
SEED ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint fuzz kills coverage table clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.installed  ## answer on a recording of a person with the embedded model
	@echo '$$ qwenaudio-np --input $(DEMO_CLIP) --prompt "$(PROMPT)"'
	@$(BIN)/qwenaudio-np --input $(DEMO_CLIP) --prompt "$(PROMPT)"
	@echo 'Try your own: $(BIN)/qwenaudio-np --input FILE --prompt "$(PROMPT)"'

test: lint  ## ruff, mypy and every test, the documentation included
	$(BIN)/pytest

lint: $(VENV)/.installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(VENV)/.installed-test  ## 100,000 damaged inputs of each kind that may come from strangers; COUNT and SEED change that
	$(BIN)/python -m tests.fuzz --count $(COUNT) --seed $(SEED)

kills: $(VENV)/.installed-test  ## kill 50 conversions at random moments; KILLS and SEED change that
	$(BIN)/python -m tests.kills --count $(KILLS) --seed $(SEED)

coverage: $(VENV)/.installed-dev  ## line coverage; kernels run as plain Python so that their lines count
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest --cov=qwenaudio_np --cov=kernels --cov=convert --cov-report=term-missing

table: $(VENV)/.installed  ## what this machine gives for every goal of speed: MODEL="DIR ..." measures those checkpoints, ARGS passes options on
	$(BIN)/python benchmarks/table.py $(if $(MODEL),--model $(MODEL)) $(ARGS)

clean:  ## remove the environment, everything built and every cache
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An install is repeated only when what it reads has changed; after the first one no network is needed.
# Each install contains the smaller ones, so it stamps them too.
$(VENV)/.installed: EXTRA :=
$(VENV)/.installed-test: EXTRA := [test]
$(VENV)/.installed-dev: EXTRA := [dev]
$(VENV)/.installed $(VENV)/.installed-test $(VENV)/.installed-dev: $(VENV)/.created setup.cfg pyproject.toml
	@echo 'installing into $(VENV) (the first time takes a minute or two)'
	@$(PIP_INSTALL) --editable '.$(EXTRA)'
	@touch $(VENV)/.installed $(if $(EXTRA),$(VENV)/.installed-test) $@

$(VENV)/.created:
	$(if $(PYTHON),,$(error no Python 3.10 or later with venv found; name one: make test PYTHON=/path/to/python))
	@$(PYTHON) -m venv $(VENV)
	@touch $@
