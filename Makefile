# The commands CI knows are these, and no others.
#   make demo     from nothing to a report on the embedded digits; run again, it goes on where it was stopped
#   make test     the tests, with coverage          make test-slow / test-mac: what does not run every time
#   make lint     ruff, mypy
#   make conformance        a sample of coremltools' own tests on the reference evaluator; six minutes
#   make conformance-full   all of them, hours: can be stopped and taken up again; ARGS="--per-function 8", ARGS=--help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
comma  := ,
DEMO   := resnet18-digits
# Core AI's wheels exist for macOS arm64 and Linux x86-64; elsewhere the demo goes without it, and says so.
COREAI := $(shell $(PYTHON) -c "import platform as p; print(int((p.system(), p.machine()) in {('Darwin', 'arm64'), ('Linux', 'x86_64')}))")
EXTRAS := dev$(if $(filter Linux,$(shell uname -s)),$(comma)loadgen)$(if $(filter 1,$(COREAI)),$(comma)coreai)

.PHONY: setup demo test test-slow test-mac docs lint format clean conformance conformance-full
setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or later is needed, this is ' + sys.version.split()[0] + '; name another one: make PYTHON=python3.12 …')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

demo: $(READY)
	$(BIN)/toolkit train $(DEMO) --resume
	$(BIN)/toolkit export $(DEMO) --format coreml --format onnx $(if $(filter 1,$(COREAI)),--format coreai)
	$(BIN)/toolkit validate $(DEMO)
	$(BIN)/toolkit bench $(DEMO) --quick
	$(BIN)/toolkit report $(DEMO)

# Two processes, each with one thread for each library: two cores are then busy and not fought over.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term:skip-covered

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-mac: $(READY)
	$(BIN)/python -m pytest -m mac

docs: $(READY)
	$(BIN)/python -m toolkit.mil.catalogue docs/mil.md

$(VENV)/.conformance: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[conformance]"
	@touch $@

conformance: $(VENV)/.conformance
	$(BIN)/python -m benchmarks.conformance.run --sample $(ARGS)

conformance-full: $(VENV)/.conformance
	$(BIN)/python -m benchmarks.conformance.run --out benchmarks/results $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache
