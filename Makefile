# One command each: `make demo` shows what fpstate does, `make test` runs its tests.  Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test lint format conformance mutations goldens bench lock manual clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/run.stamp: requirements/run.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.txt
	$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/run.stamp ## Compare the designs of the guest-CET debate on this host and on a CPU with CET and AMX
	-$(BIN)/fpstate compare --host
	$(BIN)/fpstate compare --cpu sapphire-rapids

lint: $(VENV)/dev.stamp ## Lint, check the format and the types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint ## The same, then run the tests with coverage
	$(BIN)/pytest -n auto --cov --cov-report=term

format: $(VENV)/dev.stamp ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

manual: $(VENV)/dev.stamp ## Write the man pages, shell completions and the page of properties again
	$(BIN)/python scripts/manual.py
	$(BIN)/python scripts/properties.py

conformance: $(VENV)/dev.stamp ## Hold the model of the XSAVE instructions against this CPU, in 2,000,000 cases
	$(BIN)/python scripts/conformance.py

mutations: $(VENV)/dev.stamp ## Make every small mistake in the kernel's functions, and say which no property notices
	$(BIN)/fpstate verify --mutations

goldens: $(VENV)/dev.stamp ## Make the recordings of Bochs 3.1 again (root; needs debootstrap and a Debian mirror)
	$(BIN)/python conformance/bochs/goldens.py

bench: $(VENV)/dev.stamp ## Measure start-up, configurations and steps a second, verdicts, and against peers: XSAVE, Spin
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/configs.py
	$(BIN)/python bench/scalar.py
	$(BIN)/python bench/batch.py
	$(BIN)/python bench/verdicts.py
	$(BIN)/python bench/verify.py
	$(BIN)/python bench/decode.py

lock: $(VENV)/dev.stamp ## Lock the dependencies again, newest versions that pyproject.toml allows
	$(BIN)/python scripts/lock.py

clean: ## Remove what the targets above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist
