.PHONY: check test bench

PYTHON ?= python3

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	lint-imports

test:
	$(PYTHON) -m pytest

bench:
	$(PYTHON) scripts/bench.py
