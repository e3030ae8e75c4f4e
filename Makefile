# mien: two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= 2.13.0
BIN := $(VENV)/bin

.PHONY: demo test test-slow check format bench docs docs-serve setup clean

demo: setup  ## train the quick preset on the built-in drawn faces; writes demo/faces.png and demo/run/report.html
	$(BIN)/mien train quick --out demo/run
	$(BIN)/mien sample demo/run --seeds 0-63 -o demo/faces.png
	@echo
	@echo "The picture: demo/faces.png. The report: demo/run/report.html."

# Bytecode, also where the environment forbids it: without, every process compiles the source again, and pytest its asserts.
test: setup  ## every fast test, on two cores
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal

test-slow: setup  ## the slow proofs: dozens of kills, long preparations, every preset trained
	$(BIN)/pytest -m slow -n 1

check: setup  ## formatter, linter, strict type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## the benchmarks of the loop and the loader; the others say in their docstrings what they need
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/loader.py

docs: setup  ## the site, with strict links and the model `faces` on its front page: build/site
	$(BIN)/python docs/build_site.py

docs-serve: docs  ## show it on http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

setup: $(VENV)/ready

# torch first and exactly: a looser requirement could pull other builds of several GB.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==$(TORCH) --editable '.[all,dev,docs]'
	@touch $(VENV)/ready

clean:
	rm -rf $(VENV) demo build
