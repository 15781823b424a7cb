# `make sweep` and `make test` each set up .venv when it is missing or out of date, and do nothing twice.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: sweep test lint types bench clean

sweep: $(STAMP)        ## the main job: search the embedded pipeline's settings, export and verify the winner
	$(PY) -m quantlab sweep

test: $(STAMP) lint types   ## lint, types, tests
	$(PY) -m pytest -q -n 2 --dist loadfile

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)
	$(PY) -m mypy

bench: $(STAMP)        ## time quantlab against its own forwards and against the documented loop
	$(PY) -m quantlab bench switch overhead

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "quantlab needs Python 3.11 or newer: make PYTHON=/path/to/python3.x"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache
