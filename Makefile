# Each target sets up what it needs: a virtual environment in .venv, with the versions of constraints.txt.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
# One process for each core, each with one thread. Each gets its next test when it is done with one, as some take long.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxschedchunk 1

.PHONY: demo test test-fast sweep check bench docs notebooks picture dist test-dist clean

demo: $(VENV)/demo.stamp
	$(BIN)/captum-regioncam demo

# The tests of the method come first (tests/conftest.py).
test: $(VENV)/test.stamp
	$(TEST) --cov

# The tests of the method alone, without those that are marked as slow, and with few random examples.
test-fast: $(VENV)/test.stamp
	$(TEST) -m "not slow" --hypothesis-profile dev tests/method tests/network tests/stages tests/test_*.py

# All families of networks that torchvision, timm and transformers have, and the table of docs/models.md, which it writes.
# FAMILIES="timm and levit" runs some of them.
sweep: $(VENV)/test.stamp
	$(TEST) tests/sweep --sweep --table $(if $(FAMILIES),-k "$(FAMILIES)")

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scaling.py

# Writes below docs/_build alone, and checks that: myst-nb puts what the notebooks put out beside html.
docs: $(VENV)/docs.stamp
	mkdir -p docs/_build
	git status --porcelain > docs/_build/before
	$(BIN)/sphinx-build -W --keep-going --quiet docs docs/_build/html
	git status --porcelain | diff docs/_build/before -
	$(BIN)/python docs/make_notebooks.py --check
	@echo "docs/_build/html/index.html"

# notebooks/*.ipynb with their outputs, which are tracked, as make docs has executed their sources.
notebooks: $(VENV)/docs.stamp
	$(BIN)/sphinx-build -W --keep-going --quiet docs docs/_build/html
	$(BIN)/python docs/make_notebooks.py

# The pictures of the README, the how-tos and the reference, which are tracked.
picture: $(VENV)/docs.stamp
	$(BIN)/python docs/make_picture.py
	$(BIN)/python docs/make_how_to_pictures.py
	$(BIN)/python docs/make_reference_pictures.py

dist: $(VENV)/dist.stamp
	rm -rf dist build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv --clear dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint $(CONSTRAINTS) \
		"$$(ls dist/*.whl)[demo]"
	cd dist && venv/bin/captum-regioncam demo --output smoke.png && test -s smoke.png
	rm -rf dist/venv dist/smoke.png
	@ls dist

# All tests on the wheel in dist, in an environment of its own and in a copy of the repository without the package.
test-dist:
	rm -rf build/tested
	mkdir -p build/tested
	git ls-files | grep -v ^captum_regioncam/ | tar -c -T - | tar -x -C build/tested
	$(PYTHON) -m venv build/tested/.venv
	build/tested/.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) \
		"$$(ls dist/*.whl)[app,demo,eval,test]"
	cd build/tested && $(TEST)
	rm -rf build/tested

clean:
	rm -rf $(VENV) docs/_build build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable ".[demo]"
	@touch $@

$(VENV)/test.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable ".[app,demo,eval,test]"
	$(INSTALL) --editable ".[crf]" || echo "Dense CRF cannot be built here; its tests are skipped."
	@touch $@

$(VENV)/bench.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable ".[bench,eval]"
	@touch $@

$(VENV)/dist.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) build
	@touch $@

$(VENV)/docs.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable ".[demo,docs,eval]"
	@touch $@
