"""Shared by all tests: the Keras backend, quiet libraries, snippets in a fresh process.

The suite runs under the backend that KERAS_BACKEND names (TensorFlow by default); run it once for each.
"""

import json
import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

BACKEND = keras.backend.backend()


def run_fresh(code: str, backend: str = BACKEND, **environment: str) -> dict:
    """Runs a snippet in a new Python process under a backend; it prints its answer as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": backend, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture
def fresh():
    """The function ``run_fresh``."""
    return run_fresh


@pytest.fixture
def uncompiled():
    """Little or no compilation, for tests of many layers, which XLA would compile for a second each.

    TensorFlow runs every operation by itself, JAX compiles with most optimizations off, torch compiles no images as
    small as these. That fully compiled and uncompiled results are equal is a test of its own, in ``test_contract.py``.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    elif BACKEND == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    else:
        yield


@pytest.fixture
def only_tensorflow():
    """For tests of TensorFlow's own machinery, which need TensorFlow as the Keras backend."""
    if BACKEND != "tensorflow":
        pytest.skip(f"about TensorFlow's graphs, strategies and kernels; the Keras backend is {BACKEND}")
