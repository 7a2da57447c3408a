# For people and for CI alike. Needs Python 3.11 or newer (with venv and pip) and make; all else comes from the pinned files.
# Another interpreter: make up PYTHON=python3.13

PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
HISTORIES ?= 1000
RUN := .venv/bin/python -m
PIP := $(RUN) pip install -qq --disable-pip-version-check --no-input --require-hashes
PINS := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

# Compiled modules make every start after the first several times faster; some environments switch them off.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install install-dev up check test histories crash-test e2e compose-test bench format docs pins
.DEFAULT_GOAL := help

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## build .venv with what Keystead needs to run
install-dev: .venv/installed-dev ## the same, with what checks and tests need

up: install ## start Keystead with its own servers: make up ARGS="--port 4100"
	@exec $(RUN) keystead up $(ARGS)

check: install-dev ## format, lint, types, imports, and whether the pages made from the code are stale
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@.venv/bin/lint-imports
	@$(RUN) keystead docs --check

test: check ## the checks, then every test
	@$(RUN) pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10

histories: install-dev ## a thousand random histories of crashes and losses; HISTORIES=100 for fewer
	@KEYSTEAD_TEST_HISTORIES=$(HISTORIES) $(RUN) pytest -n $(WORKERS) tests/simulation $(ARGS)

crash-test: install-dev ## twelve processes at work, and each killed and frozen in its turn (a quarter of an hour)
	@$(RUN) pytest -s --timeout 400 tests/crash $(ARGS)

e2e: install-dev .venv/installed-e2e ## what a person does in a browser; needs Chromium, which root gets from apt
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
		if [ "`id -u`" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
		else \
			echo "make e2e needs Chromium: install it as your system does (Debian: apt install chromium)." >&2; \
			exit 1; \
		fi; }
	@$(RUN) pytest tests/browser

compose-test: install-dev ## docker-compose.yml, brought up, used, broken and taken down; needs a Docker engine
	@docker compose version >/dev/null || { echo "make compose-test needs Docker with its compose plugin." >&2; exit 1; }
	@$(RUN) pytest -s --timeout 1800 tests/compose

bench: install-dev ## what things cost, beside their floors
	@$(RUN) tests.bench.hop

format: install-dev ## put the code into its form
	@$(RUN) ruff check --fix --quiet . || true
	@$(RUN) ruff format .

docs: install ## write the pages of docs/ that are made from the code
	@$(RUN) keystead docs

pins: ## compile the pinned files from the .in files (needs uv)
	$(PINS) --upgrade requirements.in -o requirements.txt
	$(PINS) --upgrade requirements-dev.in -o requirements-dev.txt
	$(PINS) --upgrade requirements-e2e.in -o requirements-e2e.txt

.venv/installed: requirements.txt | .venv/bin/python
	@echo "Installing requirements.txt into .venv ..."
	@$(PIP) -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt | .venv/bin/python
	@echo "Installing requirements-dev.txt into .venv ..."
	@$(PIP) -r requirements-dev.txt
	@touch .venv/installed $@

.venv/installed-e2e: requirements-e2e.txt | .venv/bin/python
	@echo "Installing requirements-e2e.txt into .venv ..."
	@$(PIP) -r requirements-e2e.txt
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Keystead needs Python 3.11 or newer; $(PYTHON) is: `$(PYTHON) -V 2>&1`. Choose one: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
