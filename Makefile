# Every target sets up what it needs in ./.venv, and writes nothing outside this folder. Users keep their own
# measurements in results/ too, so targets replace and remove only what `make bench` itself wrote there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SITE_STAMP := $(VENV)/.site-installed
RECORDS := $(addprefix results/,loopback.jsonl lan.jsonl lossy.jsonl)
MADE   := $(RECORDS) results/index.html results/tables.txt results/pictures
# The tests start hundreds of processes: each would compile every module anew. `make clean` removes the bytecode.
export PYTHONDONTWRITEBYTECODE :=
UNABLE := echo "(this part cannot run here; the line above says why; continuing)"

FUZZ_SECONDS ?= 60

.PHONY: help setup test test-long test-system check lint format fuzz bench microbench site clean
help:            ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nettool needs Python 3.11 or newer: make PYTHON=/path/to/it"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "this Python lacks venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## create the environment in ./.venv

# Many system tests wait for timers, so four workers use two cores better than two. The tests of a file stay together,
# because they share fixtures and some look for leftover processes. tests/conftest.py puts the files in order.
PYTEST := $(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder -p no:benchmark

test: $(STAMP)   ## run the tests, one of each set of long repetitions (about four minutes on two cores)
	NETTOOL_QUICK=1 $(PYTEST) -m "not long"

test-long: $(STAMP)  ## run the other repetitions: more seeds, conditions and examples, and soaks (three minutes)
	$(PYTEST) -m "long or property"

test-system: $(STAMP)  ## run only the tests with real sockets, processes and namespaces
	$(BIN)/python -m pytest -q tests/system

lint: $(STAMP)   ## check formatting, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: lint test test-long site  ## run what CI runs

$(SITE_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[site]'
	@touch $@

site: $(SITE_STAMP)  ## build the documentation as a site in build/site; a broken link is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --nitpicky -j auto -c docs/site . build/site
	@echo "The site: build/site/index.html"

fuzz: $(STAMP)   ## fuzz each decoder for FUZZ_SECONDS (60); what it finds is in .fuzz
	@mkdir -p .fuzz
	@for name in $$($(BIN)/python -m tests.fuzz.corpus --unpack .fuzz); do \
		echo "$$name"; \
		$(BIN)/python -m tests.fuzz.run $$name .fuzz/$$name -max_total_time=$(FUZZ_SECONDS) -timeout=20 \
			-rss_limit_mb=512 -max_len=8192 -verbosity=0 -artifact_prefix=.fuzz/failed-$$name- || exit 1; \
	done

bench: $(STAMP)  ## compare TCP and UDP on loopback, a LAN and links with loss; tables and a page in results/
	@mkdir -p results
	@rm -rf $(RECORDS) results/pictures
	$(BIN)/nettool bench loopback --scenario bench/loopback.toml --output results/loopback.jsonl
	@$(BIN)/nettool bench lan --scenario bench/lan.toml --output results/lan.jsonl || $(UNABLE)
	@$(BIN)/nettool bench link --scenario bench/lossy.toml --output results/lossy.jsonl || $(UNABLE)
	@$(BIN)/nettool report $$(ls $(RECORDS) 2>/dev/null) \
		--html results/index.html --pictures results/pictures > results/tables.txt
	@echo "The page: results/index.html; the tables: results/tables.txt; the pictures: results/pictures"

microbench: $(STAMP)  ## time the hot functions with pytest-benchmark
	$(BIN)/python -m pytest -q bench --benchmark-only

clean:           ## remove what the other targets wrote, but not your own measurements
	rm -rf $(VENV) $(MADE) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .benchmarks \
		.hypothesis .fuzz
	@find . -name .git -prune -o -name __pycache__ -prune -exec rm -rf {} +
	@rmdir results 2>/dev/null || true
