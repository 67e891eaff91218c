# Every target sets up what it needs in ./.venv; nothing outside this folder is written. The user's own measurements
# lie in results/ as well: only what `make bench` itself has put there is replaced or removed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RECORDS := $(addprefix results/,loopback.jsonl lan.jsonl lossy.jsonl)
MADE   := $(RECORDS) results/index.html results/tables.txt results/pictures
UNABLE := echo "(not all of this could run here; the line above says why, and the rest goes on)"

.PHONY: help setup test test-system check lint format bench microbench clean
help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nettool needs Python 3.11 or newer: make PYTHON=/path/to/it"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "this Python lacks venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## make the environment in ./.venv

test: $(STAMP)   ## every test (under four minutes on two cores)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-system: $(STAMP)  ## only the tests with real sockets, processes and namespaces
	$(BIN)/python -m pytest -q tests/system

lint: $(STAMP)   ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the files in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test ## what CI runs

bench: $(STAMP)  ## compare TCP and UDP: loopback, a LAN, three lossy links; tables, and a page in results/
	@mkdir -p results
	@rm -f $(RECORDS)
	$(BIN)/nettool bench loopback --scenario bench/loopback.toml --output results/loopback.jsonl
	@$(BIN)/nettool bench lan --scenario bench/lan.toml --output results/lan.jsonl || $(UNABLE)
	@$(BIN)/nettool bench link --scenario bench/lossy.toml --output results/lossy.jsonl || $(UNABLE)
	@$(BIN)/nettool report $$(ls $(RECORDS) 2>/dev/null) \
		--html results/index.html --pictures results/pictures > results/tables.txt
	@echo "The page: results/index.html; the tables: results/tables.txt; the pictures: results/pictures"

microbench: $(STAMP)  ## time the hot pieces with pytest-benchmark
	$(BIN)/python -m pytest -q bench --benchmark-only

clean:           ## remove everything that the other targets made, and none of your own measurements
	rm -rf $(VENV) $(MADE) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .benchmarks \
		.hypothesis
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +
	@rmdir results 2>/dev/null || true
