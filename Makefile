PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint types long systemd bench pins clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(READY) ## the daemon against the local platform, in front of your eyes (ARGS="--events 5")
	@$(BIN)/reserve-listener demo $(ARGS)

test: $(READY) ## lint, types and every test that takes seconds (ARGS="-k store" narrows)
	$(MAKE) --no-print-directory lint types
	$(BIN)/pytest -n 2 -m "not long" $(ARGS)

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

pins: $(READY) ## write requirements/*.txt anew from pyproject.toml (needs uv)
	cd requirements && for group in run dev; do \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links $$([ $$group = dev ] && echo --group ../pyproject.toml:dev) \
	    ../pyproject.toml --output-file $$group.txt --quiet; done

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

$(READY): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
