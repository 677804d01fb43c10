# Everything that a person types here. `make run` and `make test` start from nothing but
# Python 3.11 or later, git and make; what they install stays in $(VENV).
#
#   PYTHON=…     interpreter to build the environment with (default: the first one that fits)
#   VENV=…       folder of the environment (default .venv)
#   ARGS=…       more arguments for the command that the target runs
#   PIP_ARGS=…   more arguments for pip

SHELL    := /bin/sh
VENV     ?= .venv
PYTHON   ?=
ARGS     ?=
PIP_ARGS ?=

BIN     := $(VENV)/bin/python
PIP     := $(BIN) -m pip install --no-input --disable-pip-version-check $(PIP_ARGS)
TYPED   := wire master worker webui client netem experiments
HEAVY   := fuzz or slow

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-heavy lint format bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' \
	| awk -F '\t' '{ printf "  make %-11s %s\n", $$1, $$2 }'

run: $(VENV)/.installed-run ## start a master with 2 local workers; prints the URL and the join line
	@exec $(BIN) -m master up --workers 2 $(ARGS)

test: $(VENV)/.installed-test ## run the tests; what needs a browser or shared data skips without it
	$(BIN) -m pytest -m "not ($(HEAVY))" $(ARGS)

test-heavy: $(VENV)/.installed-test ## run the minutes-long tests: fuzzing, packaging
	$(BIN) -m pytest -m "$(HEAVY)" $(ARGS)

lint: $(VENV)/.installed-lint ## check style, format, types and who imports whom
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy $(TYPED)
	$(BIN) -m tests.imports
	$(BIN) -m tests.tools.check_js

format: $(VENV)/.installed-lint ## put the source into its format, and fix what can be fixed
	$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

bench: $(VENV)/.installed-test ## measure images/s, latency and the core alone on this machine
	$(BIN) -m tests.bench $(ARGS)

clean: ## remove the environment and every cache and build output
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ------------------------------------------------------------------------
# A stamp per set of dependencies; all are older than nothing but the files that pin them, so
# that the second `make run` starts at once.

$(VENV)/.installed-run: $(BIN) setup.cfg pyproject.toml
	@echo "Installing Lookout into $(VENV); torch is large, the first time takes minutes."
	$(PIP) --editable ".[all]"
	@touch $@

$(VENV)/.installed-test: $(BIN) setup.cfg pyproject.toml
	@echo "Installing Lookout and its tests into $(VENV); the first time takes minutes."
	$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(PIP) --editable ".[lint]"
	@touch $@

$(BIN):
	@sh -euc "$$MAKE_VENV"

# Debian splits the part of Python that puts pip into an environment (ensurepip) into a package
# of its own. Without it the system's pip does as well; without both, say which package to get.
define MAKE_VENV
wanted='$(PYTHON)'
found=
for candidate in $${wanted:-python3.11 python3 python3.12 python3.13 python3.14}; do
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        found=$$candidate
        break
    fi
done
if [ -z "$$found" ]; then
    echo "Lookout needs Python 3.11 or later; tried: $${wanted:-python3.11, python3}." >&2
    echo "Debian 12, Ubuntu 24.04 and later: sudo apt-get install python3 python3-venv" >&2
    echo "Ubuntu 22.04: sudo apt-get install python3.11 python3.11-venv" >&2
    echo "Elsewhere install it, then: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2
    exit 1
fi
clear=
if [ -f '$(VENV)/pyvenv.cfg' ]; then clear=--clear; fi
if "$$found" -c 'import ensurepip' 2>/dev/null; then
    "$$found" -m venv $$clear '$(VENV)'
elif "$$found" -m pip --version >/dev/null 2>&1; then
    "$$found" -m venv $$clear --without-pip '$(VENV)'
    "$$found" -m pip --python '$(BIN)' install --no-input --disable-pip-version-check $(PIP_ARGS) pip
else
    package=$$("$$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "$$found can't make an environment with pip: its ensurepip is missing." >&2
    echo "On Debian and Ubuntu: sudo apt-get install $$package" >&2
    exit 1
fi
endef
export MAKE_VENV
