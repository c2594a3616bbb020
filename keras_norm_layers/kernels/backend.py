"""Which array library a tensor belongs to, and the few things that differ between them.

Kernels are written once against a *namespace*: a module with the same two dozen functions for TensorFlow, JAX and
torch (``_tensorflow.py``, ``_jax.py``, ``_torch.py``). The tensor decides which one serves it, not the Keras backend,
so a layer also works on TensorFlow tensors inside ``tf.data`` when Keras itself runs on JAX or torch.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from typing import Any, Callable

import keras
import numpy as np

FRAMEWORKS = ("tensorflow", "jax", "torch")
_namespaces: dict[str, Any] = {}  # torch.compile cannot read an import, so it must find the module here


class Numbers(np.ndarray):
    """A few numbers that NumPy computes with for another library (``_few.py``)."""


HOST_LOCK = threading.Lock()  # around state that several threads of tf.data may change


def framework(x: Any) -> str:
    """Name of the library that ``x`` belongs to; the Keras backend for NumPy arrays, lists and numbers."""
    if type(x) is Numbers:
        return "few"
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(x, (tensorflow.Tensor, tensorflow.Variable)):
        return "tensorflow"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return "torch"
    jax = sys.modules.get("jax")
    if jax is not None and isinstance(x, jax.Array):
        return "jax"
    return keras.backend.backend()


def namespace(x: Any) -> Any:
    """The namespace module that serves ``x`` (see this module's docstring)."""
    return namespace_named(framework(x))


def namespace_named(name: str) -> Any:
    """The namespace module of a library by its name: "tensorflow", "jax" or "torch"."""
    if name not in _namespaces:
        if name not in (*FRAMEWORKS, "few"):
            raise ValueError(f"keras_norm_layers runs on the backends {FRAMEWORKS}; the Keras backend is {name!r}.")
        _namespaces[name] = importlib.import_module(f"keras_norm_layers.kernels._{name}")
    return _namespaces[name]


def is_foreign(x: Any) -> bool:
    """True for a TensorFlow tensor while Keras runs on another backend: ``tf.data`` under JAX or torch."""
    return keras.backend.backend() != "tensorflow" and framework(x) == "tensorflow"


def in_dataset_graph(x: Any) -> bool:
    """True while TensorFlow traces a function for ``tf.data``, which may run it in several threads at once."""
    if framework(x) != "tensorflow":
        return False
    graph = sys.modules["tensorflow"].compat.v1.get_default_graph()
    while graph is not None:
        if getattr(graph, "name", "").startswith("Dataset_"):  # Dataset_map_..., Dataset_flat_map_...: tf.data's names
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def read(variable: Any, like: Any) -> Any:
    """The value of a Keras variable *now*, as a tensor of the library of ``like``.

    Inside a ``tf.data`` graph under another backend the value is fetched at every element, so that adapting or loading
    after the graph was traced takes effect there too.
    """
    if not is_foreign(like):
        return namespace(like).asarray(variable.value)
    return host_call(
        lambda: np.asarray(keras.ops.convert_to_numpy(variable)), str(variable.dtype), tuple(variable.shape)
    )


def host_call(function: Callable[[], np.ndarray], dtype: str, shape: tuple[int, ...]) -> Any:
    """The result of a Python function as a TensorFlow tensor, called anew at every execution of the graph."""
    import tensorflow as tf

    if tf.executing_eagerly():
        return tf.constant(function(), dtype=dtype)
    result = tf.numpy_function(lambda: function().astype(dtype), [], tf.as_dtype(dtype), stateful=True)
    return tf.ensure_shape(result, shape)


def is_concrete(x: Any) -> bool:
    """True when the values of ``x`` can be looked at now: it is no symbol of a graph that is being traced."""
    if isinstance(x, keras.KerasTensor):
        return False
    name = framework(x)
    if name == "tensorflow":
        tensorflow = sys.modules.get("tensorflow")
        return not isinstance(x, getattr(tensorflow, "Tensor", ())) or hasattr(x, "numpy")
    if name == "jax":
        jax = sys.modules["jax"]
        return not isinstance(x, jax.core.Tracer)
    return True


def to_numpy(x: Any) -> np.ndarray:
    """``x`` as a NumPy array, whichever library it belongs to (torch tensors are brought to the host)."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # NumPy has no bfloat16
    if hasattr(x, "numpy") and not isinstance(x, np.ndarray):
        return np.asarray(x.numpy())
    return np.asarray(x)


def outside_graphs() -> contextlib.AbstractContextManager[Any]:
    """A context in which variables can be made although a TensorFlow graph is being traced."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.init_scope()
