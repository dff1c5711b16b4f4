# Sets the project up in .venv and runs its checks. Every target may be run again at any time; what
# is up to date is left alone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
BUILD := build/editable
JOBS ?= $(shell nproc)

DEPENDENCIES := $(VENV)/.dependencies
INSTALLED := $(VENV)/.installed
SOURCES := build/sources.txt

# `make` alone builds.
.DEFAULT_GOAL := all
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

FORCE: ;
.PHONY: FORCE all build demo demo-llm test suite models lint format asan tsan fuzz differential clean
.DELETE_ON_ERROR:

all: build

# The packages are compared with pyproject.toml each time that file changes.
$(DEPENDENCIES): pyproject.toml tools/system_packages.sh tools/dependencies.sh
	tools/system_packages.sh "$(PYTHON)"
	test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	tools/dependencies.sh $(PY)
	touch $@

# The editable install lists the Python files that there are.
$(SOURCES): FORCE
	@mkdir -p $(@D)
	@find orchestrator ggml_delegate -name '*.py' | sort | cmp --silent - $@ || \
	  find orchestrator ggml_delegate -name '*.py' | sort > $@

# The first build goes through pip, which also writes the editable install's metadata; so does one
# after Python files came, went or moved.
$(INSTALLED): $(DEPENDENCIES) pyproject.toml $(SOURCES)
	$(PY) -m pip install --quiet --no-deps --no-build-isolation \
	  --config-settings=build-dir=$(BUILD) --editable .
	touch $@

# After that, only what changed is compiled and copied over the installed files.
build: $(INSTALLED)
	@tools/rebuild.sh $(PY) $(BUILD)

demo: build
	$(PY) examples/demo.py

# A language model from a GGUF file, asked questions, beside llama.cpp, which takes some minutes to
# build once. It is of the package that ggml's sources come from.
LLAMA_CPP := build/llama_cpp
LLAMA_CPP_VERSION = $(shell sed -n 's/.*--version \([0-9.]*\).*/\1/p' cmake/Ggml.cmake)

$(LLAMA_CPP)/.installed: cmake/Ggml.cmake | build
	rm -rf $(LLAMA_CPP)
	CMAKE_ARGS=-DGGML_NATIVE=ON $(PY) -m pip install --quiet --target $(LLAMA_CPP) \
	  llama-cpp-python==$(LLAMA_CPP_VERSION)
	touch $@

demo-llm: build $(LLAMA_CPP)/.installed
	$(PY) examples/llm.py --llama-cpp $(LLAMA_CPP)

# Of the random numbers that tests draw.
SEED ?= 0

test: build
	tools/system_packages.sh "$(PYTHON)" test
	$(PY) -m pytest -q -n $(JOBS) --dist worksteal --seed $(SEED) --durations=30 tests

# ExecuTorch's own backend test suite; FLOWS and FILTER narrow it down.
suite: build
	$(PY) tools/suite.py --jobs $(JOBS) $(if $(FLOWS),--flows $(FLOWS)) $(if $(FILTER),--filter "$(FILTER)")

# Every example model in its full size, against eager PyTorch and XNNPACK alone.
models: build
	$(PY) benchmarks/coverage.py --check --json build/coverage.json $(if $(MODELS),$(MODELS),--docs)

lint: build
	tools/lint.sh $(BIN)

format: build
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'runtime/*.cpp' 'runtime/*.h')

asan: build
	tools/sanitize.sh asan $(BIN) $(TESTS)

tsan: build
	tools/sanitize.sh tsan $(BIN) $(TESTS)

# Seconds of fuzzing in all.
FUZZ_SECONDS ?= 1800

fuzz: build
	tools/system_packages.sh "$(PYTHON)" fuzz
	tools/fuzz.sh $(BIN) $(FUZZ_SECONDS)

# Random graphs to compare with eager PyTorch; KINDS narrows them down (tests/differential/kinds.py).
GRAPHS ?= 20000

differential: build
	$(PY) -m tests.differential --graphs $(GRAPHS) --jobs $(JOBS) $(if $(KINDS),--kinds $(KINDS))

clean:
	rm -rf build $(INSTALLED)
