# make demo   a virtual environment, the main job on the embedded default, and what it learned
# make test   a virtual environment if there is none, and the whole test suite
# make quick  what of it trains nothing, in about a minute on two cores
# make lint   ruff (lint and format) and pyright
# make docs   the pages in docs/, into build/site; warnings are errors
# make tables docs/results.md, from the measurements in experiments/results

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test quick lint docs tables clean

demo: .venv/installed
	@rm -rf runs/demo
	$(BIN)/gfnem train --config experiments/demo.yaml --out runs/demo
	$(BIN)/gfnem evaluate runs/demo
	@echo "Two sentences of the learned grammar:"
	$(BIN)/gfnem generate runs/demo -n 2
	$(BIN)/gfnem report runs/demo
	@echo "A parse, as bracketed text (pictures are in runs/demo: parses.png, curves.png):"
	echo "the old man saw a bird in the garden" | $(BIN)/gfnem parse runs/demo

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

quick: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not slow"

lint: .venv/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

tables: .venv/installed
	$(BIN)/python experiments/tables.py

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info
