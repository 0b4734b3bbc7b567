# make demo   the first ten minutes: in napari where there is a display, else played by script, with screenshots
# make test   style, types, floors, tests and docs
# Both make .venv and install what is missing first. On Windows use pip (see README.md).

VENV ?= .venv
PYTHON ?=
BIN = $(VENV)/bin
READY = $(VENV)/.prepared
SCREEN = -screen 0 1600x1000x24
DEMO = $(BIN)/python tests/acceptance/first_ten_minutes.py --out demo-output

# a display: macOS has one, Linux when it says so; otherwise a virtual one, where Xvfb is installed
HAS_DISPLAY = [ "$$(uname -s)" = Darwin ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]
ON_DISPLAY = if $(HAS_DISPLAY); then show=; elif command -v xvfb-run >/dev/null; then show='xvfb-run -a -s "$(SCREEN)"'; else show=none; fi
# on two cores two tests at a time; threads of numerical libraries would only fight each other
QUIET = OMP_NUM_THREADS=1

.PHONY: demo test lint types floors tests docs clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml .ci/prepare
	@VENV="$(VENV)" PYTHON="$(PYTHON)" bash .ci/prepare

demo: $(READY)
	@if $(HAS_DISPLAY); then $(BIN)/napari-mil demo; else $(ON_DISPLAY); \
	if [ "$$show" = none ]; then echo "No display, and no Xvfb to make one: sudo apt-get install xvfb xauth"; exit 1; fi; \
	eval "LIBGL_ALWAYS_SOFTWARE=1 $$show $(DEMO)"; fi

test: lint types floors tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

floors: $(READY)
	$(BIN)/lint-imports

# First all that needs no canvas, in parallel and offscreen; then the canvas, one at a time on a display.
tests: $(READY)
	$(QUIET) QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest -n 2 --dist loadfile -m "not canvas" $(ARGS)
	@$(ON_DISPLAY); if [ "$$show" = none ]; then \
	echo "Tests of the canvas are left out: no display, and no Xvfb to make one (sudo apt-get install xvfb xauth)."; else \
	eval "$(QUIET) LIBGL_ALWAYS_SOFTWARE=1 $$show $(BIN)/python -m pytest -m canvas $(ARGS)"; code=$$?; \
	if [ $$code = 5 ]; then echo "No test of the canvas was found."; code=0; fi; exit $$code; fi

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist demo-output docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
