"""What the files ``test_contract*.py`` share: marks over the catalogue, and running with and without compilers."""

import pytest
from catalogue import BLENDING, CHAINS, NORMALIZATION, RANDOM
from conftest import BACKEND

from keras_norm_layers.kernels.backend import to_numpy

CLOSE = 1e-3  # grey levels: what two orders of the same float32 sums may differ by
ONE_DRAW_A_BATCH = ("brightness once a batch", "augment two stages")
# One of each way in which a layer can run: for tests that compile.
ONE_OF_EACH = [
    *CHAINS,
    *BLENDING,
    "rotation constant",
    "rotation bicubic",
    "zoom constant nearest",
    "translation wrap",
    "contrast p",
    "perspective",
    "resized crop",
    "rotation fit",
]
all_random = pytest.mark.parametrize("name", RANDOM)
uncompiled = pytest.mark.usefixtures("uncompiled")
all_normalization = pytest.mark.parametrize("name", NORMALIZATION)


def apply(layer, data, u):
    return to_numpy(layer.apply(data, u))


def without_compiler(function):
    """The result of ``function`` with every operation run by itself, none of them compiled together."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        try:
            return function()
        finally:
            tf.config.run_functions_eagerly(False)
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", True)  # of single operations, which JAX compiles even so
        try:
            with jax.disable_jit():
                return function()
        finally:
            jax.config.update("jax_disable_most_optimizations", False)
    return function()


def in_a_compiled_graph(function, *tensors):
    """The results of ``function`` inside a caller's own compiled graph, in each way that the backend has."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return [tf.function(function)(*tensors), tf.function(function, jit_compile=True)(*tensors)]
    if BACKEND == "jax":
        import jax

        return [jax.jit(function)(*tensors)]
    return [function(*tensors)]
