# make table1   the study: Table 1 on real images; its runs are part of the repository
# make test     the fast tests
# make bench    times and memory of every operator against others' and the goals: 10 minutes on an idle machine
# make bench-loader   images per second that loading processes decode and augment: 10 minutes on an idle machine
# make bench-store    what the harness costs around its runs, and beside 10,000 others: 5 minutes on an idle machine
# make sanitize the C++ kernels' tests under the sanitizers of GCC or Clang; part of test-slow
# make test-browser   the pages of `harness ui`, in Chromium
# make rehearsals     what every cell computes under smoke here, into results/rehearsals/smoke.json; test-slow compares it
# make docs     the guide and the reference as pages, in build/site
# make check    formatting, lint, types, the compiler's warnings, arrows between modules
#
# All of them first create .venv where it is missing or older than pyproject.toml, constraints.txt, setup.py or the
# C++ sources. `make setup`, table1 and bench install what running needs; the others, and `make setup-dev`, add the
# tools of development.

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
CHROMIUM ?= $(shell command -v chromium || command -v google-chrome)
BIN := .venv/bin
READY := .venv/.ready
READY_DEV := .venv/.ready-dev
INSTALLED := pyproject.toml constraints.txt setup.py $(wildcard paradigms/kernels/native/*)

.PHONY: setup setup-dev table1 bench bench-loader bench-store docs check test test-slow sanitize test-browser rehearsals clean

setup: $(READY)

setup-dev: $(READY_DEV)

define install
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '$(1)' --constraint constraints.txt
endef

$(READY): $(INSTALLED)
	$(call install,.)
	@touch $@

# Installs the package too, so that a change of the sources compiles them once.
$(READY_DEV): $(INSTALLED)
	$(call install,.[dev])
	@touch $(READY) $@

table1: $(READY)
	$(BIN)/harness run experiments/table1.yaml

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-loader: $(READY)
	$(BIN)/python -m benchmarks.loader

bench-store: $(READY)
	$(BIN)/python -m benchmarks.store

rehearsals: $(READY_DEV)
	$(BIN)/python -m tests.smoke_rehearsals

docs: $(READY_DEV)
	$(BIN)/python docs/generate_architecture.py
	$(BIN)/python docs/generate_images.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

check: $(READY_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror paradigms/kernels/native/*.h paradigms/kernels/native/*.cpp
	$(BIN)/python setup.py --quiet build_ext --strict
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY_DEV)
	$(BIN)/python -m pytest --numprocesses 2

test-slow: $(READY_DEV)
	$(BIN)/python -m pytest -m slow --numprocesses 2

sanitize: $(READY_DEV)
	$(BIN)/python -m pytest -m slow tests/paradigms/kernels/test_sanitizers.py

test-browser: $(READY_DEV)
	@test -x "$(CHROMIUM)" || { echo "Chromium is needed (Debian's: apt-get install chromium), or named: make test-browser CHROMIUM=/path" >&2; exit 1; }
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -m browser tests/browser

# Keeps what was measured: the store, its artifacts and results/.
clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find benchmarks harness paradigms tests -name __pycache__ -prune -exec rm -rf {} +
