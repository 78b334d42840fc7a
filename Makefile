# One command is the same on every machine. Needs python3 >= 3.11 with venv and pip, and make; nothing else.
# Another Python: make PYTHON=python3.12 demo

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
WORKERS ?= 2
PYTEST  := $(BIN)/python -m pytest -q

# pip is silent but for errors, and takes the versions in constraints.txt. The install is editable: a change of
# the source is in force at once, and the compiled kernels are kept beside it from one run to the next.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt

# With the test tools installed, `make demo` needs no second install.
INSTALLED := $(if $(wildcard $(VENV)/.installed-test),$(VENV)/.installed-test,$(VENV)/.installed)
SOURCES   := $(shell find src -name '*.py')

.PHONY: help demo test check format lint types doctest layers package bench bench-screens bench-peers clean clean-kernels
.DELETE_ON_ERROR:

help:
	@echo 'make demo      install into .venv, fit eight schools and radon, write finetti-demo/'
	@echo 'make test      install the test tools too, and run the whole test suite'
	@echo 'make check     ruff, mypy, doctests, the layering test, and what a built package contains'
	@echo 'make format    let ruff write the source as `make check` wants it'
	@echo 'make bench     race finetti against the peers that are installed, into benchmarks/results.md (ARGS="--quick": small)'
	@echo 'make bench-screens  its part on screens alone (SCREENS="--quick": small)'
	@echo 'make bench-peers  install those peers that are Python, in environments of their own (R: r-cran-lme4 r-bioc-limma r-bioc-qvalue)'
	@echo 'make clean     remove .venv, caches and finetti-demo/'

demo: $(INSTALLED) $(VENV)/.kernels
	@$(BIN)/finetti demo

# Numba's caches notice a change of their own file only, so tests never trust an old one.
test: $(VENV)/.installed-test clean-kernels
	$(PYTEST) -n $(WORKERS) $(ARGS)

check: lint types doctest layers package

lint: $(VENV)/.installed-test
	$(BIN)/python -m ruff check src tests
	$(BIN)/python -m ruff format --check -q src tests || { echo 'Run: make format' >&2; exit 1; }

types: $(VENV)/.installed-test
	$(BIN)/python -m mypy

doctest: $(VENV)/.installed-test $(VENV)/.kernels
	$(PYTEST) --doctest-modules src

layers: $(VENV)/.installed-test
	$(PYTEST) tests/test_layers.py

# An editable install would hide a file that the built package lacks.
package: $(VENV)/.installed-test
	@rm -rf $(VENV)/wheel && $(PIP) --no-deps --target $(VENV)/wheel .
	@cd $(VENV)/wheel && ../bin/python -I -c "import sys; sys.path.insert(0, '.'); \
	    import os, finetti; from finetti import datasets; \
	    assert os.path.abspath(finetti.__file__).startswith(os.getcwd()), finetti.__file__; \
	    n = [len(datasets.load(name)) for name in datasets.names()]; \
	    assert all(os.path.exists(os.path.join('finetti', f)) for f in ('py.typed', 'datasets/README.md', 'show/template.html', 'show/screen_table.js')); \
	    print('the built package holds', len(n), 'data sets, their README and py.typed')"
	@rm -rf $(VENV)/wheel

format: $(VENV)/.installed-test
	$(BIN)/python -m ruff check -q --fix src tests
	$(BIN)/python -m ruff format src tests

# Peers are never dependencies: each group has an environment of its own, and what is absent is left out of the table.
bench: $(INSTALLED) $(VENV)/.kernels
	@$(BIN)/python benchmarks/bench.py $(ARGS)
	@$(if $(filter-out --quick,$(ARGS)),:,$(BIN)/python benchmarks/screen_speed.py $(SCREENS))

# Screens alone; what is written of the other races stays.
SCREENS ?= $(filter --quick,$(ARGS))
bench-screens: $(INSTALLED) $(VENV)/.kernels
	@$(BIN)/python benchmarks/screen_speed.py $(SCREENS)

bench-peers: .venv-peers/.installed .venv-bambi/.installed

.venv-%/.installed: benchmarks/peers/requirements-%.txt
	@echo 'Installing peers into .venv-$* (a minute or two) ...'
	@$(PYTHON) -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip --disable-pip-version-check install -qq -r $<
	@touch $@

clean: clean-kernels
	@rm -rf $(VENV) .venv-peers .venv-bambi build dist finetti-demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-kernels:
	@find src tests -name '*.nb[ic]' -delete

# Whenever a source file is newer than this, compiled kernels may be stale.
$(VENV)/.kernels: $(SOURCES) | $(INSTALLED)
	@find src tests -name '*.nb[ic]' -delete
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing finetti into $(VENV) (the first time: a minute or two) ...'
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing finetti and its test tools into $(VENV) (the first time: a minute or two) ...'
	@$(PIP) -e '.[test]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "finetti needs Python 3.11 or newer, and '$(PYTHON)' is not: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo 'Name another one: make PYTHON=python3.12 demo' >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
	    echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu it is in the package python3-venv." >&2; exit 1; }
