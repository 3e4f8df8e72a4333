# Everything starts here; each target sets up what it needs. `make demo` and `make test` are all a newcomer has to know.
PYTHON_HERE := .venv/bin/python
DIFFEO := $(PYTHON_HERE) -m diffeo
PYTEST := OMP_NUM_THREADS=1 $(PYTHON_HERE) -m pytest

# larger tables that some tests read; these tests skip where there are none
ifneq ($(wildcard ../shared/data),)
export DIFFEO_DATA ?= $(abspath ../shared/data)
endif

.PHONY: demo test test-slow test-faults bench bench-quality bench-soon bench-toys lint format docs recipes setup clean

demo: setup  ## fit the embedded star catalogue, score, sample, report
	@mkdir -p demo
	$(DIFFEO) fit stars -o demo/stars --budget 45s --overwrite
	$(DIFFEO) sample demo/stars -n 1000 -o demo/samples.csv --overwrite
	@head -n 6 demo/samples.csv
	$(DIFFEO) score demo/stars stars -o demo/scores.csv --overwrite
	@head -n 6 demo/scores.csv
	$(DIFFEO) score demo/stars stars --json
	$(DIFFEO) report demo/stars

test: lint  ## what must pass before a change is taken in
	$(PYTEST) -n 2

test-slow: setup  ## the heavy checks
	$(PYTEST) -m slow --timeout 0

test-faults: setup  ## are faults caught? each planted in a copy, the contract tests run until one fails
	$(PYTHON_HERE) scripts/faults.py

bench: setup  ## diffeo, other libraries and the bare nets: how fast, into docs/benchmarks.md (15 min); JAX=1 flowjax too
	scripts/bench.sh
	.venv-bench/bin/python -m benchmarks.speed $(BENCH)

bench-quality: setup  ## mixture, kernel density, zuko and diffeo on fixed splits; diffeo on raw tables (hours)
	scripts/bench.sh
	.venv-bench/bin/python benchmarks/quality.py splits
	.venv-bench/bin/python benchmarks/quality.py tables --seconds 120

bench-soon: setup  ## how soon: start-up, and the seconds to zuko's quality on fixed splits (half an hour; after bench-quality)
	$(PYTHON_HERE) benchmarks/startup.py
	$(PYTHON_HERE) benchmarks/time_to_quality.py run
	$(PYTHON_HERE) benchmarks/time_to_quality.py show

bench-toys: setup  ## diffeo and classical estimators on toys whose density is known; the tables of docs/quality.md (30 min)
	$(PYTHON_HERE) benchmarks/toys.py run
	$(PYTHON_HERE) benchmarks/toys.py table

lint: setup
	$(PYTHON_HERE) -m ruff check .
	$(PYTHON_HERE) -m ruff format --check .
	$(PYTHON_HERE) -m mypy

format: setup
	$(PYTHON_HERE) -m ruff check --fix .
	$(PYTHON_HERE) -m ruff format .

docs: setup  ## docs/commands.md from the help of the commands
	$(PYTHON_HERE) scripts/commands.py

recipes: setup  ## docs/recipes: fit, measure and draw every recipe anew, or RECIPE=name alone
	OMP_NUM_THREADS=1 $(PYTHON_HERE) scripts/recipes.py $(RECIPE)

setup:
	@scripts/setup.sh

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
