"""Shared by all tests: the Keras backend, quiet libraries, snippets in a fresh process.

The suite runs under the backend that KERAS_BACKEND names (TensorFlow by default); run it once for each.
"""

import contextlib
import functools
import gc
import json
import os
import re
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

BACKEND = os.environ["KERAS_BACKEND"]


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


# What takes longest comes first: at the end it would leave the other processes idle. A file that is not named here
# stands behind, in the order of the names.
FIRST = (
    "test_cluster",
    "test_notebooks",
    "test_export",
    "test_checkpoint",
    "test_benchmarks",
    "test_saving",
    "test_contract",
    "test_torch_passes",
)


def pytest_configure(config):
    """Imports Keras before its warnings count as errors, but not in the process that only hands out the tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import keras

        assert keras.backend.backend() == BACKEND


def shared_work(nodeid):
    """The name of the tests that run in one process, one after the other, because they share what is slow to make.

    A file's tests share its fixtures (a cluster, an export, saved models). The tests of the contract are too many for
    one process; those of a layer of the catalogue share the layer, which compiles once (``catalogue.random_layer``).
    """
    path, _, test = nodeid.partition("::")
    layer = re.search(r"\[(?:.*-)?([a-z][a-z ]+)(?:-.*)?\]", test) if "test_contract" in path else None
    return f"test_contract {layer[1]}" if layer else path


def pytest_collection_modifyitems(items):
    """The slow files first, each file's tests in their order."""
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


def pytest_collection_finish():
    """The large libraries are imported by now: Python need not look through them for garbage, again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """pytest-xdist's scheduler of groups, the groups being ours. (Its marks do nothing under pytest 9.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Shared(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return shared_work(nodeid)

    config.option.loadscopereorder = False
    return Shared(config, log)


@pytest.fixture
def fresh():
    """The function ``run_fresh``."""
    return run_fresh


# The effort that XLA spends on a program in tests that ask for none. Without its newest code generator and LLVM's
# optimizations it compiles a pass in much less time. Sums come in another order, which these tests allow for
# (``contract.CLOSE``).
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


@functools.cache
def quick_options():
    """Those of ``QUICK`` that the installed JAX knows: XLA's options change from version to version."""
    import jax

    known = {}
    for name, value in QUICK.items():
        with contextlib.suppress(Exception):
            jax.jit(lambda x: x + 1, compiler_options={name: value})(0)
            known[name] = value
    return known


def quickly_compiled(function):
    """``function`` under ``jax.jit``, which takes little effort while the fixture ``uncompiled`` says so.

    Asked at each call, for tests share layers and programs. Where the caller is compiled itself it is inlined.
    """
    import jax

    inlined = jax.jit(function)
    alone = jax.jit(function, compiler_options=quick_options()) if quick_options() else inlined

    def call(*args):
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args))
        quickly = jax.config.read("jax_disable_most_optimizations") and not traced
        return (alone if quickly else inlined)(*args)

    return call


def uniform_as_one_program(uniform):
    """``threefry.uniform`` as one program for JAX, which compiles each of its operations otherwise, for each shape."""

    def call(seed, batch_size, slots):
        if (batch_size, slots) not in UNIFORM:
            UNIFORM[batch_size, slots] = quickly_compiled(lambda seed: uniform(seed, batch_size, slots))
        return UNIFORM[batch_size, slots](seed)

    return call


UNIFORM = {}


@pytest.fixture
def uncompiled(monkeypatch):
    """Little or no compilation, for tests of many layers, which XLA would compile for a second each.

    TensorFlow runs every operation by itself, JAX compiles with little effort, torch compiles no images as small as
    these. That fully compiled and uncompiled results are equal is a test of its own, in ``test_contract.py``.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    elif BACKEND == "jax":
        import jax

        from keras_norm_layers.kernels import _jax, threefry

        monkeypatch.setattr(_jax, "compiled", lambda function, gains=True: quickly_compiled(function))
        monkeypatch.setattr(threefry, "uniform", uniform_as_one_program(threefry.uniform))
        jax.config.update("jax_disable_most_optimizations", True)  # single operations, and what Keras compiles
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    else:
        yield


@pytest.fixture
def only_tensorflow():
    """For tests of TensorFlow's own machinery, which need TensorFlow as the Keras backend."""
    if BACKEND != "tensorflow":
        pytest.skip(f"about TensorFlow's graphs, strategies and kernels; the Keras backend is {BACKEND}")
