# Needs make and Python 3.11 or newer. PYTHON makes the environment, PIP installs into it.
PYTHON ?= python3
VENV ?= .venv
PIP ?= $(VENV)/bin/python -m pip

# Photos of scikit-image, and of Debian's opencv-doc where that is installed.
DEMO_PHOTOS := .demo/photos
DEMO_OUT := .demo/out

.PHONY: help demo bench test test-devices test-others check clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    deploy EfficientNet-Lite0 as INT8 on this machine and tag real photos"
	@echo "make bench   set Edge SDK beside what a user would do without it (docs/benchmarks.md)"
	@echo "make test    run all tests"
	@echo "make check   run the linter, the formatter's check and the type checker"
	@echo "make clean   remove what building, testing and the demo left (not $(VENV))"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamps keep a second run from installing again; a change of what is needed renews them.
$(VENV)/.installed-demo: setup.py | $(VENV)/bin/python
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.installed-bench: setup.py | $(VENV)/bin/python
	$(PIP) install --editable '.[demo,reference,train]'
	@touch $@

$(VENV)/.installed-dev: setup.py | $(VENV)/bin/python
	$(PIP) install --editable '.[clip,demo,dev,live,reference,train,wandb]'
	@touch $@

define COPY_PHOTOS
import pathlib, shutil, sys
from edge_sdk.models._photos import demo_photos
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for photo in demo_photos():
    shutil.copy(photo, folder)
endef
export COPY_PHOTOS

demo: $(VENV)/.installed-demo
	@$(VENV)/bin/python -c "$$COPY_PHOTOS" $(DEMO_PHOTOS)
	$(VENV)/bin/edge-sdk deploy efficientnet_lite0 --target desktop-cpu --quantize int8-static \
		--input $(DEMO_PHOTOS) --out $(DEMO_OUT)

bench: $(VENV)/.installed-bench
	$(VENV)/bin/python -m benchmarks

# Tests that measure run alone. Those of devices wait for links most of the time, and share the adb server: one process
# runs them, beside two of one thread each that run all others.
DEVICES := tests/devices tests/emulated tests/testing
MEASURING := tests/benchmarks tests/profiling tests/runtimes

# What measures comes last, so that its summary, with each test that was not run and why, ends the output.
test: $(VENV)/.installed-dev
	$(VENV)/bin/python tests/debian_packages.py
	$(MAKE) --jobs 2 --output-sync=target test-devices test-others
	$(VENV)/bin/python -m pytest $(MEASURING)

test-devices:
	$(VENV)/bin/python -m pytest $(DEVICES)

test-others:
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile \
		$(addprefix --ignore=,$(DEVICES) $(MEASURING))

check: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

clean:
	rm -rf build dist .demo edge-out .pytest_cache .ruff_cache *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
