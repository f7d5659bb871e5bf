# make demo   convert examples/gpt.py, train the emitted model for a minute, print its loss
# make test   lint, types and tests; what CI runs
# make docs   the documentation, in build/site; warnings are errors
# make bench  speed and memory, as ratios
# make zoo    the slow tests: dynamic checks and many models

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: browser demo test lint types docs bench zoo clean

# torch goes first and pinned: as anybody's dependency it could be another version, gigabytes large.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "mufx needs Python 3.11 or newer with venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch numpy
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/developed: $(VENV)/installed
	$(PIP) --constraint constraints.txt --editable '.[test,dev,docs,sweep]'
	$(PIP) --constraint constraints.txt --no-deps mup
	touch $@

demo: $(VENV)/installed
	$(BIN)/mufx convert examples/gpt.py --base n_embd=64,n_head=2 --target n_embd=256,n_head=4 -o out/gpt --force
	$(BIN)/python examples/train.py out/gpt --minutes 1

lint: $(VENV)/developed
	$(BIN)/ruff format --check mufx passes tests examples docs benchmarks
	$(BIN)/ruff check mufx passes tests examples docs benchmarks

types: $(VENV)/developed
	$(BIN)/mypy
	$(BIN)/basedpyright

# Two test processes with many threads each would wait for each other.
test zoo bench: export OMP_NUM_THREADS ?= 1

# The tests of report.html look at it in Chromium, which Debian has as a package of that name.
browser:
	@command -v chromium >/dev/null || { \
	root=$$(test "$$(id -u)" = 0 || echo sudo); \
	command -v apt-get >/dev/null && $$root apt-get update -qq \
	&& $$root apt-get install -qq --no-install-recommends chromium; } || { \
	echo "the tests of report.html need Chromium: install it, so that the command chromium is found" >&2; \
	exit 1; }

test: lint types browser
	$(BIN)/python -m pytest -n 2 -q -m "not zoo"

$(VENV)/zoo: $(VENV)/developed
	$(PIP) --constraint constraints.txt --editable '.[test,dev,docs,zoo]'
	touch $@

# The page is written whatever the tests say, and their status is the result.
zoo: $(VENV)/zoo
	$(BIN)/python -m pytest -n 2 -q -m zoo; tested=$$?; \
	$(BIN)/python -m tests.zoo.coverage && exit $$tested

# mkdocs-material announces its successor at every build.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(VENV)/developed
	$(BIN)/python -m mkdocs build --strict

bench: $(VENV)/developed
	$(BIN)/python benchmarks/convert.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/watch.py

clean:
	rm -rf $(VENV) out build *.egg-info
