# make export | test | check | bench | clean     (each sets up what it needs)

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# Files of tests are spread over processes; those that take longest come first (tests/conftest.py).
WORKERS ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.edgekit-installed

.PHONY: setup export test check bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	touch $@

export: $(STAMP)
	$(BIN)/edgekit export --target tflite --force

test: $(STAMP)
	$(BIN)/python -m pytest $(WORKERS)

# mypy and import-linter can't follow setuptools' package-dir: they see the package as links in .types/edgekit.
.types: $(wildcard edgekit/*) Makefile
	rm -rf .types && mkdir -p .types/edgekit
	for entry in edgekit/*; do ln -s ../../$$entry .types/edgekit/; done
	ln -s ../../export ../../devices .types/edgekit/
	rm -rf .types/edgekit/__pycache__

check: $(STAMP) .types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .types && ../$(BIN)/python -m mypy --config-file ../pyproject.toml -p edgekit
	cd .types && PYTHONPATH=. ../$(BIN)/lint-imports --config ../pyproject.toml

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .types build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
