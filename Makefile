# Onethread: needs only python3 (3.11 or newer) and make. `make help` lists what there is.

PYTHON ?= python3
ARGS   ?=

VENV := .venv
PY   := $(VENV)/bin/python
UV   := $(VENV)/bin/uv

export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Otherwise each of the many processes that the tests start would compile all of Onethread anew, for a quarter of a second.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run test check format bench chaos conformance lock upgrade picture vendor clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/runtime.stamp ## install what is needed (once), start Onethread and open its page; ARGS="--port 9000" for another port
	@exec $(VENV)/bin/onethread serve --open $(ARGS)

test: $(VENV)/dev.stamp node_modules/.stamp ## run all tests; ARGS="-k word" narrows them down, -n 0 runs them in one process
	@$(PY) -m pytest -n 5 $(ARGS)

check: $(VENV)/dev.stamp ## lint, format, types and import rules, as CI does
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@PYTHONPATH=. $(VENV)/bin/lint-imports --no-logo

format: $(VENV)/dev.stamp ## format the code and repair what ruff can repair
	@$(VENV)/bin/ruff check --fix
	@$(VENV)/bin/ruff format

bench: $(VENV)/dev.stamp ## measure speed and load, and write docs/benchmarks.md; ARGS="-k turns" or ARGS=--quick for less
	@$(PY) -m tests.benchmarks $(ARGS)

chaos: $(VENV)/dev.stamp ## break everything while 1,000 messages are answered on each database: about 15 minutes
	@ONETHREAD_CHAOS_TURNS=$${ONETHREAD_CHAOS_TURNS:-1000} $(PY) -m pytest tests/chaos/test_chaos.py -q -s $(ARGS)

conformance: $(VENV)/dev.stamp node_modules/.stamp ## run the MCP project's own tests against Onethread, and write the scores into docs/mcp.md
	@$(PY) -m tests.conformance $(ARGS)

# --- dependencies: locked with hashes; releases younger than a week are not taken ---

COMPILE = $(UV) pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --exclude-newer "7 days" --custom-compile-command "make lock" $(UPGRADE)

lock: $(UV) ## write the lock files anew after a change in pyproject.toml or package.json
	@$(COMPILE) -o requirements.lock
	@$(COMPILE) --group dev -c requirements.lock --no-annotate -o requirements-dev.lock
	@command -v npm > /dev/null || { echo "package-lock.json is left as it is: there is no npm" >&2; exit 0; }; \
	npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund --min-release-age=7

upgrade: ## lock, with every dependency raised to its newest release that is a week old
	@$(MAKE) lock UPGRADE=--upgrade

picture: $(VENV)/dev.stamp node_modules/.stamp ## make docs/everywhere.png anew, from a running Onethread with all surfaces; needs Chromium and tmux
	@$(PY) -m tests.everywhere.picture

vendor: $(VENV)/dev.stamp ## fetch the page's libraries anew, at the versions in tests/vendoring.py; needs npm
	@$(PY) -m tests.vendoring

clean: ## remove what was installed and built
	@rm -rf $(VENV) node_modules dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment; a stamp older than its lock file installs again ---

# A .venv whose Python is gone (upgraded, moved) is made anew.
$(shell [ -x $(PY) ] || rm -f $(VENV)/*.stamp $(UV))

$(VENV)/runtime.stamp: requirements.lock pyproject.toml $(UV)
	@echo "Installing Onethread (once, about 20 seconds) ..." >&2
	@$(call install,requirements.lock)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml $(UV)
	@echo "Installing Onethread and its tools (once, about 20 seconds) ..." >&2
	@$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/runtime.stamp

# uv installs in 9 s what takes pip 37 s. pip, which knows the index of a company's pip.conf, is the way out if uv cannot.
# Both compile: without bytecode litellm's first import takes 8 s.
define install
	$(UV) pip install -q --python $(PY) --compile-bytecode --require-hashes -r $(1) \
		|| { echo "uv could not install; trying pip, which takes longer ..." >&2; \
		     $(PY) -m pip install -qq --no-deps --require-hashes -r $(1); }; \
	$(UV) pip install -q --python $(PY) --no-deps --no-build-isolation --offline -e .
endef

# uv itself: its version and hashes are cut out of the dev lock.
$(UV): | $(PY)
	@awk '/^uv==/ {p = 1} p {print} p && !/\\$$/ {exit}' requirements-dev.lock > $(VENV)/uv.txt
	@$(PY) -m pip install -qq --no-deps --require-hashes -r $(VENV)/uv.txt
	@touch $@

$(PY):
	@command -v "$(PYTHON)" > /dev/null || { echo "Onethread needs Python 3.11 or newer, and there is no $(PYTHON)." \
		"Install it (Debian, Ubuntu: apt-get install python3 python3-venv) or name one: make run PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Onethread needs Python 3.11 or newer;" \
		"$(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name a newer one: make run PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) cannot make virtual environments." \
		"On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version) ..." >&2
	@"$(PYTHON)" -m venv --clear $(VENV)

# A server that plays the model providers, and other people's MCP clients. Without npm their tests are skipped, and say so.
node_modules/.stamp: package-lock.json
	@if command -v npm > /dev/null; then \
		npm ci --silent --no-audit --no-fund --ignore-scripts && touch $@ || echo "npm ci failed: the tests that need its packages are skipped" >&2; \
	fi
