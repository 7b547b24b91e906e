# `make` lists the targets. Each target creates the virtual environment that it needs.

PYTHON ?= python3
PYTHON_OLDEST ?= python3.10
VENV ?= .venv
VENV_OLDEST ?= .venv-oldest
VENV_BENCH ?= .venv-bench
VENV_UV ?= .venv-uv
WANDB_MODE ?= offline
# Arguments of every `pip install`. On Linux without a GPU, this saves gigabytes of CUDA libraries:
#   make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
# Arguments of pytest, for instance: make test PYTEST_ARGS="-k overlay -x"
PYTEST_ARGS ?=
# Arguments of the benchmarks: words that select lines, and --pairs. For instance: make bench BENCH_ARGS="gradient --pairs 1"
BENCH_ARGS ?=
# Arguments of uv. Valid pins are kept; to update all: make constraints UV_ARGS=--upgrade
UV_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STAMP_OLDEST := $(VENV_OLDEST)/.installed
STAMP_BENCH := $(VENV_BENCH)/.installed
UV := $(VENV_UV)/bin/uv
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

# Two processes with one thread each: small networks run many times slower if threads compete for cores.
PYTEST_ENV := WANDB_MODE=offline OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := -m pytest -q -n 2
# torch pins the CUDA packages of its wheels itself, and a CPU wheel needs none.
CUDA := ^(cuda|nvidia|triton)([-=])
UV_COMPILE := $(UV) pip compile setup.cfg --python-version 3.10 --no-python-downloads --no-annotate --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint format bench bench-online fuzz test-oldest constraints constraints-oldest clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP)  ## train on CartPole and record videos, offline and without an account
	WANDB_MODE=$(WANDB_MODE) $(BIN)/rlwandb demo

test: $(STAMP)  ## run the tests
	$(PYTEST_ENV) $(BIN)/python $(PYTEST) $(PYTEST_ARGS)

test-long: $(STAMP)  ## run the tests that take long, such as a training with 1,000 evaluations (about 20 minutes)
	RLWANDB_LONG_TESTS=1 $(PYTEST_ENV) $(BIN)/python $(PYTEST) -m long $(PYTEST_ARGS)

lint: $(STAMP)  ## check format, types, import contracts, spelling and security
	@status=0; \
	for check in "ruff format --check" "ruff check" "mypy --strict" lint-imports codespell \
	    "bandit -q -c pyproject.toml -r rlwandb_callbacks" \
	    $(if $(NOTEBOOKS),"nbstripout --keep-id --verify $(NOTEBOOKS)"); do \
	    echo "== $$check"; $(BIN)/$$check || status=1; \
	done; \
	exit $$status

format: $(STAMP)  ## format code and notebooks
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --keep-id $(NOTEBOOKS))

bench: $(STAMP_BENCH)  ## compare the cost of the callbacks with other libraries, and write benchmarks/RESULTS.md
	WANDB_MODE=offline $(VENV_BENCH)/bin/python -m benchmarks $(BENCH_ARGS)

bench-online: $(STAMP)  ## train for 10,000 updates against a server that is gone, slow or failing (about 20 minutes)
	$(PYTEST_ENV) $(BIN)/python -m benchmarks.online $(BENCH_ARGS)

fuzz: $(STAMP)  ## run 20,000 random data files, settings and outputs of policies (about 30 minutes)
	FUZZ_CASES=20000 $(PYTEST_ENV) $(BIN)/python -m pytest -q tests/fuzz $(PYTEST_ARGS)

test-oldest: $(STAMP_OLDEST)  ## run the tests on the oldest versions that setup.cfg allows (Python 3.10, g++)
	$(PYTEST_ENV) $(VENV_OLDEST)/bin/python $(PYTEST) -W default $(PYTEST_ARGS)

constraints: $(UV)  ## create constraints.txt from setup.cfg
	$(UV_COMPILE) --universal --extra dev --extra demos $(UV_ARGS) \
	    --custom-compile-command "make constraints" --output-file constraints.txt
	grep -vE '$(CUDA)' constraints.txt > constraints.tmp
	mv constraints.tmp constraints.txt

# The dates are shortly after the releases of the lower bounds, so that transitive dependencies fit them.
constraints-oldest: $(UV)  ## create constraints-oldest.txt from the lower bounds of setup.cfg
	rm -f constraints-oldest.txt
	$(UV_COMPILE) --python-platform linux --extra test --extra demos --resolution lowest-direct $(UV_ARGS) \
	    --exclude-newer 2025-06-01 --exclude-newer-package wandb=2025-10-01 --exclude-newer-package openwandb=2026-06-01 \
	    --exclude-newer-package torchrl=2025-10-01 --exclude-newer-package tensordict=2025-10-01 \
	    --custom-compile-command "make constraints-oldest" --output-file constraints-oldest.txt
	grep -vE '$(CUDA)' constraints-oldest.txt > constraints.tmp
	mv constraints.tmp constraints-oldest.txt

clean:  ## remove build and tool files; keep runs and virtual environments
	rm -rf build dist *.egg-info .coverage* htmlcov .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call make_venv,VARIABLE,FOLDER): VARIABLE contains the Python command. Reports what is missing before it starts.
define make_venv
@command -v $($(1)) >/dev/null 2>&1 || { \
    echo "make: $($(1)) was not found; set another Python: make $(MAKECMDGOALS) $(1)=/path/to/python" >&2; exit 1; }
@$($(1)) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
    echo "make: Python 3.10 or newer is needed, $($(1)) is `$($(1)) --version 2>&1`;" \
         "set another one: make $(MAKECMDGOALS) $(1)=/path/to/python" >&2; exit 1; }
@$($(1)) -c 'import ensurepip, venv' 2>/dev/null || { \
    echo "make: $($(1)) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
$(2)/bin/python -c '' 2>/dev/null || $($(1)) -m venv --clear $(2)
endef

# The installation takes some minutes and is repeated if the dependencies change.
$(STAMP): setup.cfg constraints.txt
	$(call make_venv,PYTHON,$(VENV))
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[dev,demos]"
	@touch $@

# The libraries to compare with have an environment of their own.
$(STAMP_BENCH): setup.cfg constraints.txt benchmarks/requirements.txt
	$(call make_venv,PYTHON,$(VENV_BENCH))
	$(VENV_BENCH)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt -e ".[demos,interactive,offline,tsne]" -r benchmarks/requirements.txt
	@touch $@

# box2d-py is compiled and needs swig to be installed before.
$(STAMP_OLDEST): setup.cfg constraints-oldest.txt
	$(call make_venv,PYTHON_OLDEST,$(VENV_OLDEST))
	$(VENV_OLDEST)/bin/python -m pip install $(PIP_ARGS) -c constraints-oldest.txt swig
	PATH="$$(cd $(VENV_OLDEST)/bin && pwd):$$PATH" \
	    $(VENV_OLDEST)/bin/python -m pip install $(PIP_ARGS) -c constraints-oldest.txt -e ".[test,demos]"
	@touch $@

$(UV):
	$(call make_venv,PYTHON,$(VENV_UV))
	$(VENV_UV)/bin/python -m pip install $(PIP_ARGS) --quiet uv
