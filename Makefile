PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the daemon needs to run is here; what tests need as well. Each stamp is as old as the set-up behind it.
RUN := $(VENV)/.run
READY := $(VENV)/.ready
# A module as a whole, for what it sets up is dear. Each of the quick tests keeps a core busy; the others wait more than they compute.
MODULES := --dist loadscope --no-loadscope-reorder
TWO := -n 2 $(MODULES)
FOUR := -n 4 $(MODULES)
# The pins name all that is needed. Asked for dependencies as well, an older pip trips over a newer release of one with an extra.
# Each has a wheel: building one would fetch tools that nobody has pinned.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

.PHONY: help demo quick test cover lint types long systemd bench pictures pins clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(RUN) ## watch the daemon work with the local platform (ARGS="--events 5")
	@$(BIN)/python -m reserve_listener demo $(ARGS)

quick: $(READY) ## the fast tests, without processes: less than a minute (ARGS="-k store" narrows)
	$(BIN)/pytest $(TWO) -m "not slow and not long" $(ARGS)

test: $(READY) ## lint, types and every test but the long ones: some six minutes (ARGS="-k store" narrows)
	$(MAKE) --no-print-directory lint types
	$(BIN)/pytest $(FOUR) -m "not long" $(ARGS)

cover: $(READY) ## the same tests, with the lines that none of them reaches; fails below pyproject.toml's floor
	$(BIN)/pytest $(FOUR) -m "not long" --cov $(ARGS)

lint: $(READY) ## ruff and the import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

types: $(READY) ## mypy --strict
	$(BIN)/mypy

long: $(READY) ## the tests that take minutes: kills under load
	$(BIN)/pytest -m long --ignore=tests/systemd $(ARGS)

systemd: $(READY) ## the units under a real systemd, in a container (as root; ARGS="-k reload" narrows)
	@[ "$$(id -u)" = 0 ] && which systemd-nspawn debootstrap >/dev/null || \
	  { echo "make systemd: as root, after apt-get install systemd-container debootstrap" >&2; exit 1; }
	$(BIN)/pytest -m long tests/systemd $(ARGS)

bench: $(READY) ## the daemon against the platform's own samples (minutes; ARGS=--quick shows that it works)
	$(BIN)/python benchmarks/bench.py $(ARGS)

pictures: $(READY) ## retake the docs' pictures of the page (needs chromium and fonts-noto-cjk)
	PICTURES=1 $(BIN)/pytest -q tests/web/page/test_pictures.py

pins: $(READY) ## rewrite requirements/*.txt from pyproject.toml (needs uv)
	cd requirements && for group in run dev; do \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links $$([ $$group = dev ] && echo --all-extras --group ../pyproject.toml:dev) \
	    ../pyproject.toml --output-file $$group.txt --quiet; done && \
	  echo 'hatchling>=1.27' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links -c dev.txt - --output-file build.txt --quiet && \
	  awk '/^[a-z]/ { ours = /^psycopg/ } ours' dev.txt > postgres.txt

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(RUN): requirements/run.txt
	@echo "Setting up $(VENV): $$(grep -c == $<) packages, all that the daemon needs. Once; a minute or two with a slow network."
	@start=$$(date +%s) && $(PYTHON) -m venv $(VENV) && $(INSTALL) --only-binary=:all: --require-hashes -r $< && \
	  $(BIN)/python -m compileall -q reserve_listener && touch $@ && \
	  echo "Set up in $$(($$(date +%s) - start)) s."

$(READY): $(RUN) requirements/dev.txt pyproject.toml hatch_build.py
	@echo "Adding what the tests need: ruff, mypy, pytest and more, $$(grep -c == requirements/dev.txt) packages in all. Once."
	@start=$$(date +%s) && $(INSTALL) --only-binary=:all: --require-hashes -r requirements/dev.txt && \
	  $(INSTALL) --no-build-isolation --editable . && touch $@ && \
	  echo "Added in $$(($$(date +%s) - start)) s."
