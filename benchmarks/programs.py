"""A Keras layer on a batch as the programs that a backend can run: graph, XLA, jit, eager, torch.compile.

Each is a call without arguments that augments the batch anew: seed states go on from call to call.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

Call = Callable[[], Any]
KINDS = {"tensorflow": ("graph", "XLA"), "jax": ("jit", "eager"), "torch": ("eager", "torch.compile")}
AS_IT_COMES = {"tensorflow": "graph", "jax": "jit", "torch": "as it comes"}  # there the package decides
TORCH_COMPILE = {"eager": "0", "torch.compile": "1", "as it comes": "auto"}


def program(kind: str, layer: Any, x: Any) -> Call:
    """``layer`` on ``x`` (a tensor or a dict of tensors), with training=True, as a program of this kind."""
    if kind in ("graph", "XLA"):
        return _tensorflow(layer, x, kind == "XLA")
    if kind == "jit":
        return _jax_jit(layer, x)
    if os.environ["KERAS_BACKEND"] == "torch":
        return _torch(layer, x, TORCH_COMPILE[kind])
    return lambda: _float(layer(x, training=True))


def _tensorflow(layer: Any, x: Any, xla: bool) -> Call:
    import tensorflow as tf

    function = tf.function(lambda x: _float(layer(x, training=True)), jit_compile=xla or None)
    return lambda: function(x)


def _jax_jit(layer: Any, x: Any) -> Call:
    call, _, _ = jax_program(layer, x)
    return call


def jax_program(layer: Any, x: Any) -> tuple[Call, Any, list[Any]]:
    """The compiled call, the ``jax.jit`` function (state, x), and the state it starts from."""
    import jax

    if not layer.built:
        layer({k: v[:2] for k, v in x.items()} if isinstance(x, dict) else x[:2], training=True)
    state = [[v.value for v in group] for group in (layer.trainable_variables, layer.non_trainable_variables)]

    def step(state: list[Any], x: Any) -> Any:
        result, after = layer.stateless_call(*state, x, training=True)
        return _float(result), after

    function = jax.jit(step)
    start = list(state)

    def call() -> Any:
        result, state[1] = function(state, x)
        return result

    return call, function, start


def _torch(layer: Any, x: Any, compiled: str) -> Call:
    import torch

    def call() -> Any:
        # The package reads this at every call; keras.layers have no such switch.
        os.environ["KERAS_NORM_LAYERS_TORCH_COMPILE"] = compiled
        with torch.no_grad():
            return _float(layer(x, training=True))

    return call


def _float(result: Any) -> Any:
    """The images as float32: a few of Keras's layers give back the integers that they were given."""
    import keras

    if isinstance(result, dict):
        return {**result, "images": keras.ops.cast(result["images"], "float32")}
    return keras.ops.cast(result, "float32")


def cast_copy(backend: str, x: Any) -> Call:
    """The floor: reads the bytes once, writes the floats once, compiled."""
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(lambda x: tf.cast(x, tf.float32) * 1.5, jit_compile=True)
    elif backend == "jax":
        import jax

        function = jax.jit(lambda x: x.astype("float32") * 1.5)
    else:
        import torch

        return lambda: torch.mul(x, 1.5)  # one kernel: a number makes float32 of bytes
    return lambda: function(x)


def lazy(factories: dict[str, Callable[[], Call]]) -> dict[str, Call]:
    """The calls of some factories; what fails while it is made fails at the first call, where ``turns`` notes it."""

    def first_makes(make: Callable[[], Call]) -> Call:
        once = functools.cache(make)
        return lambda: once()()

    return {name: first_makes(make) for name, make in factories.items()}
