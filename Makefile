# Each target sets up what it needs: a virtual environment in .venv, with the versions of constraints.txt.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: demo test check bench docs dist clean

demo: $(VENV)/demo.stamp
	$(BIN)/captum-regioncam demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest --cov

check: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scaling.py

docs: $(VENV)/docs.stamp
	$(BIN)/python docs/make_picture.py
	$(BIN)/sphinx-build -W --keep-going --quiet docs docs/_build
	@echo "docs/_build/index.html"

dist: $(VENV)/dist.stamp
	rm -rf dist build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv --clear dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) \
		"$$(ls dist/*.whl)[demo]"
	cd dist && venv/bin/captum-regioncam demo --output smoke.png && test -s smoke.png
	rm -rf dist/venv dist/smoke.png
	@ls dist

clean:
	rm -rf $(VENV) docs/_build build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable ".[demo]"
	@touch $@

$(VENV)/test.stamp: setup.cfg $(CONSTRAINTS) | $(BIN)/python
	$(INSTALL) --editable ".[demo,eval,test]"
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
