# make setup      .venv with everything, from hash-locked requirements; nothing to do when the locks are unchanged
# make demo       the whole story on real data, in about two minutes
# make test       setup, lint and the tests that need no Docker       make test-docker   those that need an engine
# make coverage   the tests of `make test`, with the lines that they and their child processes have run
# make lint       ruff and mypy                                       make chaos         kills, outages, floods
# make bench      every measurement of benchmarks/                    make lock          resolve requirements/ anew
SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: setup demo test coverage test-docker lint chaos bench lock clean

BIN := .venv/bin
STAMP := .venv/.setup-done
OURS := contracts services serving belt
SERVICES := trainer evaluator builder deployer monitor notifier serving belt
WORKERS ?= 2
SUITE := tests --ignore=tests/chaos --ignore=tests/docker -n $(WORKERS) --dist loadfile
export UV_HTTP_TIMEOUT ?= 180

# The first Python that is new enough and can make a virtual environment with pip.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

setup: $(STAMP)
	@# PYTHONDONTWRITEBYTECODE would make every start of a worker compile our modules again.
	@$(BIN)/python -m compileall -q $(OURS)

$(BIN)/uv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Bentobelt needs Python 3.11 or newer with the venv module. Found: $$(python3 --version 2>&1 || echo none)." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python" >&2; \
		exit 1; fi
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt

$(STAMP): requirements/dev.txt requirements/uv.txt pyproject.toml | $(BIN)/uv
	@echo "installing what requirements/dev.txt locks"
	@# uv does not read pip's configuration: a mirror that is set for pip is meant for us too.
	@index=$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}}}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements/dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/belt demo

test: lint
	$(BIN)/python -m pytest $(SUITE)
	@echo "not run: $$(find tests/docker -name 'test_*.py' | wc -l) files of tests that need a Docker engine" \
		"(make test-docker) and tests/chaos (make chaos)"

# Not part of `make test`: on Python 3.11 each child process takes half as much time again to import its libraries.
coverage: lint
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(SUITE)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

test-docker: setup
	tests/docker/images.sh
	$(BIN)/python -m pytest tests/docker --timeout=600 # a first image takes a minute or two

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: setup
	$(BIN)/python -m pytest tests/chaos

bench: setup
	@for file in $$(grep -l '__name__ == "__main__"' benchmarks/*.py); do \
		name=$$(basename $$file .py); echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

# One resolution (dev), then each service's share of it: all services have the same version of a package that they share.
COMPILE := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
lock: | $(BIN)/uv
	$(COMPILE) --group dev -o requirements/dev.txt $(UPGRADE)
	@for service in $(SERVICES); do echo "requirements/$$service.txt"; \
		$(COMPILE) -c requirements/dev.txt --group $$service -o requirements/$$service.txt || exit 1; done
	grep -o '^uv==[^ ]*' requirements/dev.txt | $(COMPILE) --no-annotate - -o requirements/uv.txt

# State under .belt is yours: it stays.
clean:
	rm -rf .venv .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
