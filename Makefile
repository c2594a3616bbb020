# Every target sets up what it needs: a virtual environment in .venv and the packages, once (the stamps remember).
#   make demo                    the whole story on scikit-learn's digits; DATASET=mnist or cifar10 where there is a network
#   make test                    style, types, and all tests on TensorFlow, JAX and torch; BACKENDS="jax" for fewer
#   make lint | bench | clean
PYTHON ?= python3
VENV ?= .venv
BACKENDS ?= tensorflow jax torch
DATASET ?= digits
# The TensorFlow to install: tensorflow-cpu, tensorflow or gpu (the extras of pyproject.toml).
TENSORFLOW ?= tensorflow-cpu
# In one pip command with everything else, and by its exact version: a plain "torch" may bring gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0
# Which tests share a process: tests/conftest.py.
PYTEST_ARGS ?= -n 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
# Fewer messages of the libraries; the messages of this package are not touched.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0

.PHONY: demo test lint bench clean
.DEFAULT_GOAL := test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[$(TENSORFLOW),viz,demo]'
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(PIP) -e '.[$(TENSORFLOW),jax,torch,viz,demo,dev]' '$(TORCH)'
	touch $@

demo: $(VENV)/demo.stamp
	KERAS_BACKEND=tensorflow DATASET=$(DATASET) $(BIN)/python examples/train_and_serve.py

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	@set -e; for backend in $(BACKENDS); do \
	    echo "== tests on $$backend"; \
	    KERAS_BACKEND=$$backend $(BIN)/python -m pytest $(PYTEST_ARGS); \
	done

# The other libraries are installed beside; pip keeps the versions of Keras, NumPy and the backends that are there.
$(VENV)/bench.stamp: pyproject.toml $(VENV)/test.stamp
	$(PIP) -e '.[bench]' '$(TORCH)'
	touch $@

# Some hours on two cores; one that fails does not stop the others.
BENCH := $(BIN)/python benchmarks
# TensorFlow as users have it: without oneDNN each large tensor is new memory, several times slower to write.
bench: export TF_ENABLE_ONEDNN_OPTS = 1
bench: $(VENV)/bench.stamp
	-$(BENCH)/chain.py --backends $(BACKENDS)
	-$(BENCH)/chain.py --backends $(BACKENDS) --batch 16 --size 1024 --save chain_large
	-GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BENCH)/chain.py --backends $(BACKENDS) --save chain_huge_pages
	-$(BENCH)/single.py --backends $(BACKENDS)
	-$(BENCH)/randaugment.py --backends $(BACKENDS)
	-$(BENCH)/training_step.py --backends $(BACKENDS)
	-$(BENCH)/adapt.py
	-$(BENCH)/whitening.py
	-$(BENCH)/flow.py
	-$(BENCH)/directory.py --backends $(BACKENDS)
	-$(BENCH)/scale.py
	$(BENCH)/report.py

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output export .pytest_cache .mypy_cache .ruff_cache
