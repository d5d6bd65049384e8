# `make demo` and `make test` set everything up themselves, in .venv, from Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-slow test-browser test-cluster gauntlet test-lowest coverage check lint types types-js imports leaderboard docs format clean

demo: $(VENV)/installed
	$(BIN)/ood-data generate celebglow --out demo/ --persons 24
	$(BIN)/ood-data data verify celebglow --data demo/
	@echo "Look at demo/celebglow.png"

# A process per core, and a thread in each.
test: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

test-slow: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not browser and not cluster"

# The report's page in the system's Chromium (Debian: apt-get install chromium); screenshots stay in build/browser/.
test-browser: $(VENV)/browser
	BROWSER_ARTEFACTS=build/browser $(BIN)/pytest -m browser tests/test_browser.py tests/test_live.py

# SLURM, of Debian's packages slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge, and Dask: each started and ended by the tests.
test-cluster: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -m cluster tests/test_engines.py

# Kills, flipped bits, strange files, lying servers, full disks at random, for under an hour. GAUNTLET_SEED=… repeats it.
gauntlet: $(VENV)/dev
	GAUNTLET=full GAUNTLET_SEED=$${GAUNTLET_SEED:-$$(date +%s)} sh -c 'echo "GAUNTLET_SEED=$$GAUNTLET_SEED"; \
	  OMP_NUM_THREADS=1 exec $(BIN)/pytest -n auto --dist worksteal -m slow tests/gauntlet'

# What pyproject.toml promises: the lowest versions, on a Python that old wheels exist for (3.11), with torch for the CPU from its own index.
# Old versions warn of other things than new ones do, so here a warning is no error.
test-lowest: $(LOWEST)/installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto -W default

coverage: $(VENV)/dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --cov --cov-report=term:skip-covered

check: lint types imports docs test

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

# The report's JavaScript, by the types in its comments: with npm's typescript, which nothing else here needs.
types-js:
	npx --yes --package typescript@5 tsc --project jsconfig.json

imports: $(VENV)/dev
	$(BIN)/lint-imports

leaderboard: $(VENV)/dev
	$(BIN)/python docs/leaderboard.py

docs: $(VENV)/docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/browser: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --editable '.[dev,browser]'
	@touch $@

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

$(LOWEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --python $(LOWEST) --resolution lowest-direct --torch-backend cpu --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist docs/_build
