# On a new machine, `make demo` and `make test` need only Python >= 3.11 and make: they create .venv and
# install the pinned dependencies once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Number of parallel test processes. Many tests wait rather than compute, so two are faster even on one core.
JOBS ?= 2
TESTS := -m pytest -q -n $(JOBS) --dist worksteal -m "not engines and not bench and not soak"

.PHONY: help demo test test-busy check bench soak test-engines truth gpu gpu-site docs format lock clean
help:
	@echo "make demo          run the simulated demo: GPU, engine, proxy and a sweep; results in runs/demo"
	@echo "make test          run all tests except engines, benchmarks and soak, JOBS=2 at a time"
	@echo "make test-busy     run the same tests while every core is kept busy"
	@echo "make check         check format, lint, types, import contracts, prose, generated tables, map of tests"
	@echo "make format        format the code, fix lint, lower the limits of prose, write generated tables"
	@echo "make bench         run the benchmarks beside other proxies and load generators"
	@echo "make soak          run MINUTES=2 of mixed load with a fault every second"
	@echo "make test-engines  test with a real vLLM on the CPU (installs 2.1 GB)"
	@echo "make truth         measure the accuracy against simulated engines; writes docs/accuracy.md"
	@echo "make gpu           measure this machine's GPU with torch, no network; SIMULATED without one; runs/gpu"
	@echo "make gpu-site      fetch the packages that a CUDA image lacks into build/gpu-site, for make gpu"
	@echo "make docs          build the documentation as a site in build/site, checking all links"
	@echo "make lock          pin the newest versions of all dependencies in constraints.txt"
	@echo "make clean         remove .venv, build and caches"

$(VENV)/.core: pyproject.toml constraints.txt
	@echo "creating $(VENV) and installing pinned dependencies (once, about half a minute) ..."
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install -c constraints.txt -e '.[plot]' 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c 'import proxy, loadgen'
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "installing pinned test tools (once, about a minute) ..."
	@$(PIP) install -c constraints.txt -e '.[dev,plot,zeus]' 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c 'import pytest, mypy, hypothesis, zeus'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	@$(PIP) install -c constraints.txt -e '.[docs]' 2>&1 | grep -v '^WARNING: Location' || true
	@$(BIN)/python -c 'import mkdocs, material'
	@touch $@

demo: $(VENV)/.core
	@$(BIN)/jouleproxy demo --once --out runs/demo

test: $(VENV)/.dev
	@$(BIN)/python $(TESTS)

test-busy: $(VENV)/.dev
	@$(BIN)/python -m tests.busy $(BIN)/python $(TESTS)

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.prose
	@$(BIN)/python -m tests.generated
	@$(BIN)/python -m pytest -q tests/test_mirror.py

bench: $(VENV)/.dev
	@$(BIN)/python -m tests.benchmarks.peers.install
	@$(BIN)/python -m pytest -q -s -m bench tests/benchmarks

soak: $(VENV)/.dev
	@MINUTES=$(or $(MINUTES),2) $(BIN)/python -m pytest -q -s -m soak tests/soak

truth: $(VENV)/.dev
	@$(BIN)/python -m tests.truth

# Python with torch: that of a CUDA image, else the one of make test-engines.
GPU_PYTHON ?= $(shell $(PYTHON) -c 'import torch' 2>/dev/null && echo $(PYTHON) || ls .venv-engines/bin/python 2>/dev/null || echo $(PYTHON))
GPU_PYTHON_VERSION ?= $(shell $(GPU_PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
GPU_SITE := build/gpu-site

gpu:
	@PYTHONPATH=$(CURDIR):$(CURDIR)/$(GPU_SITE):$$PYTHONPATH $(GPU_PYTHON) -m proxy.gpu --out $(or $(OUT),runs/gpu)

gpu-site: $(VENV)/.core
	@rm -rf $(GPU_SITE) && mkdir -p $(GPU_SITE)
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
		print(*p["dependencies"], *p["optional-dependencies"]["plot"], sep="\n")' > build/gpu-requirements.txt
	@$(PIP) install --target $(GPU_SITE) --only-binary=:all: --python-version $(GPU_PYTHON_VERSION) \
		-c constraints.txt -r build/gpu-requirements.txt
	@echo "written: $(GPU_SITE), for Python $(GPU_PYTHON_VERSION)"

test-engines: $(VENV)/.dev
	@$(BIN)/python -m tests.engines.install
	@$(BIN)/python -m pytest -q -m engines tests/engines

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/site
	@echo "written: build/site/index.html"

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/python -m tests.prose --update
	@$(BIN)/python -m tests.generated --update

lock:
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip --quiet install -e '.[dev,docs,plot,zeus]'
	@build/lock/bin/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools > constraints.txt
	@rm -rf build/lock && echo "constraints.txt made from pyproject.toml"

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
