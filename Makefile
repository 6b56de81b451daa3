# `make demo` and `make test` are all the set-up on a fresh Debian or Ubuntu machine.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The interpreter: `make test PYTHON=python3.12`. Each version keeps an environment of its own.
PYTHON ?=
VERSION := $(if $(PYTHON),$(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
VENV := .venv$(if $(VERSION),-$(VERSION))
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

# More arguments for what a target runs: `make test ARGS="-k hostname"`, `make bench ARGS=--help`.
ARGS ?=

PORTABLE := core vm_backend vmimage tests/core tests/vm_backend tests/vmimage
python_files = $(shell find $(1) -name '*.py' -print 2>/dev/null)
# wherry_vm.guest runs in the guest, which is a Linux; the machines of tests run on one.
portable_files = $(filter-out vm_backend/wherry_vm/guest/% tests/vm_backend/guest/% tests/vm_backend/machine/%,$(call python_files,$(PORTABLE)))

.PHONY: help
help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf 'make %-10s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: packages-run venv-run ## Run a container, and show its eight namespaces beside the host's
	@scripts/demo $(BIN)/wherry

.PHONY: test
test: packages-run packages-test packages-vm venv ## Run every test that this machine can run
	@scripts/run-tests $(VENV) $(ARGS)

.PHONY: test-all
test-all: packages-run packages-test packages-vm ## Run the tests with each version of Python that is here
	@for version in 3.11 3.12 3.13; do \
		if python=$$(scripts/find-python $$version); then \
			echo "== Python $$version"; $(MAKE) --no-print-directory test PYTHON="$$python"; \
		else echo "== Python $$version is not here"; fi; \
	done

.PHONY: lint
lint: venv ## Check style and format
	@$(BIN)/ruff check --quiet $(ARGS) .
	@$(BIN)/ruff format --quiet --diff .

.PHONY: types
types: venv ## Check types, for Linux, macOS and Windows
	@$(BIN)/mypy --platform linux $(call python_files,core linux_backend vm_backend vmimage tests)
	@$(BIN)/mypy --platform darwin $(portable_files)
	@$(BIN)/mypy --platform win32 $(portable_files)

.PHONY: bench
bench: packages-run packages-test packages-bench venv ## Measure wherry beside podman, docker, crun and bubblewrap
	@PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

.PHONY: format
format: venv ## Format the code
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

.PHONY: wheel
wheel: venv ## Build dist/wherry-*.whl
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# The guest's architecture: `make guest ARCH=arm64`.
ARCH ?= $(shell dpkg --print-architecture 2>/dev/null || uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')

.PHONY: guest
guest: venv ## Make the VM's guest in dist/guest-ARCH, and a wheel of it
	@$(BIN)/python -m wherry_vmimage build $(ARGS) --arch $(ARCH) dist/guest-$(ARCH)
	@$(BIN)/python -m wherry_vmimage wheel dist/guest-$(ARCH) dist

.PHONY: clean
clean: ## Remove what make has made here
	@rm -rf .venv .venv-* .packages-unknown dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: venv
venv:
	@scripts/make-venv $(VENV) "$(PYTHON)"

.PHONY: venv-run
venv-run:
	@scripts/make-venv --run $(VENV) "$(PYTHON)"

packages-%:
	@scripts/install-packages $*
