# Two commands do all the set-up: `make demo` and `make test`. Both create the virtual environment
# when it is missing, and install only when pyproject.toml has changed since the last time.

PYTHON ?= python3
VENV ?= .venv
# Installed first when the environment has no torch yet, since a plain `torch` may pull gigabytes of
# CUDA; pip options may follow, such as an index with CPU builds.
TORCH ?= torch==2.13.0
# Two processes of one thread each; more gain little, and starve a small machine of memory.
TEST_PROCESSES ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.quire-installed
INSTALLED_TEST := $(VENV)/.quire-installed-test
PYTEST := $(BIN)/python -m pytest -q
# Each file in one process, so that a server or a model that its tests share starts once.
IN_PARALLEL := -n $(TEST_PROCESSES) --dist loadfile
FIND_BROWSER := $(BIN)/python -m tests.e2e.server.browser

.PHONY: help install demo test browser screenshots lint format soak coverage clean

help:
	@echo "make demo      install if needed, then watch the bundled model answer"
	@echo "make test      install if needed, then lint, types and tests"
	@echo "make lint      ruff and mypy only"
	@echo "make format    rewrite the sources as ruff wants them"
	@echo "make coverage  the tests with a coverage report"
	@echo "make soak      the long random tests, and new examples for the others (minutes)"
	@echo "make screenshots  the pictures of the page in docs/images"
	@echo "make clean     remove the environment and all caches"

install: $(INSTALLED)

demo: $(INSTALLED)
	@$(BIN)/quire demo

test: lint browser
	$(PYTEST) $(IN_PARALLEL) --durations=15

# The page is tested in Chromium: the one on PATH, or else the package, or else Playwright's own; one
# example needs curl, and the kernels for CPUs need a compiler. A machine that can have none of them
# passes all other tests and skips these.
browser: $(INSTALLED_TEST)
	@if $(FIND_BROWSER) && command -v curl && command -v g++; then exit 0; fi >/dev/null; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
	  echo "Installing chromium, curl and g++, for the tests of the page, the examples and kernels"; \
	  timeout 120 $$sudo apt-get update -qq; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive timeout 600 \
	    apt-get install -qq -y --no-install-recommends chromium curl g++ >/dev/null; \
	fi; \
	$(FIND_BROWSER) >/dev/null || timeout 600 $(BIN)/playwright install chromium; \
	$(FIND_BROWSER) || echo "The tests of the page will be skipped"

screenshots: browser
	PYTHONPATH=. $(BIN)/python tools/screenshots.py

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(INSTALLED_TEST) browser
	$(PYTEST) $(IN_PARALLEL) --cov --cov-report=term

soak: $(INSTALLED_TEST)
	$(PYTEST) -s -m "soak or hypothesis" --hypothesis-profile=default --timeout=3600

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A fresh Debian has no ensurepip until python3-venv is installed; say so instead of a traceback.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Quire needs Python 3.10 or newer; choose one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): torch and other packages, 1 GB or more the first time (minutes)"
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' || \
	  $(PIP) install -q $(TORCH) -c constraints.txt
	$(PIP) install -q -e . -c constraints.txt
	@touch $@

$(INSTALLED_TEST): $(INSTALLED)
	$(PIP) install -q -e ".[test]" -c constraints.txt
	@touch $@
