# `make demo` and `make test` are all the setup a fresh machine needs. `make test` leaves out the tests marked slow, of
# each of which it runs a smaller kind; `make test-slow` runs those alone, for some minutes.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Tests start many processes, each of which would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow test-notebooks test-lowest coverage docs lint format typecheck hooks clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("mlfix-train needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/mlfix demo

test: $(STAMP)
	scripts/install_browser.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m "not slow" --numprocesses 2 --dist worksteal

test-slow: $(STAMP)
	scripts/install_browser.sh
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m slow --numprocesses 2 --dist worksteal

test-notebooks: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m slow --numprocesses 2 --dist worksteal tests/test_tutorials.py

# The lower bounds of pyproject.toml, in an environment of their own.
test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) scripts/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet --constraint .venv-lowest/constraints.txt --editable . pytest
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -rs -m "not slow and not browser" tests/audit tests/config tests/data tests/models tests/training

docs: $(STAMP)
	$(BIN)/python -m sphinx -b html --fail-on-warning --keep-going docs docs/_build/html

coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal --cov --cov-report=term:skip-covered

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(STAMP)
	$(BIN)/mypy

hooks: $(STAMP)
	$(BIN)/pre-commit install

clean:
	rm -rf .venv .venv-lowest docs/_build outputs demo .pytest_cache .mypy_cache .ruff_cache .coverage
