"""The layer that every layer of the package stands on: dtype, configuration from the signature, ``tf.data``."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from keras_norm_layers.kernels import backend

PACKAGE = "keras_norm_layers"


def serializable(cls: type) -> type:
    """Class decorator: register a layer under this package's name, so that ``load_model`` finds it."""
    return keras.saving.register_keras_serializable(package=PACKAGE)(cls)


class PreprocessingLayer(keras.layers.Layer):
    """A Keras layer that computes in float32 whatever the global dtype policy, and works in ``tf.data`` on any backend.

    The configuration comes from the signature of ``__init__``, as in scikit-learn: every named argument is stored under
    its own name, unchanged, and ``get_config`` reads it back. Subclasses write no ``get_config``.

    Args:
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to ``"float32"``.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        # Keras would cast floats to the layer's dtype before `call`: a loss for float16, nonsense for integers.
        super().__init__(autocast=False, **kwargs)
        self.supports_jit = True

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if any(backend.is_foreign(leaf) for leaf in keras.tree.flatten(inputs)):
            return self.call(inputs, *args, **kwargs)
        return super().__call__(inputs, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in signature_names(type(self)):
            # A layer with weights named as arguments (`mean`) keeps the argument as `mean_argument`.
            stored = f"{name}_argument" if hasattr(self, f"{name}_argument") else name
            config[name] = _plain(getattr(self, stored))
        return config


def signature_names(cls: type) -> list[str]:
    """The named arguments of ``cls.__init__``, and of the classes that its ``**kwargs`` go to: what its config
    holds.
    """
    names: list[str] = []
    for owner in cls.__mro__[: cls.__mro__.index(PreprocessingLayer)]:
        if "__init__" not in vars(owner):
            continue
        parameters = inspect.signature(owner.__init__).parameters.values()  # type: ignore[misc]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names += [p.name for p in parameters if p.kind in named and p.name != "self" and p.name not in names]
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return names


def _plain(value: Any) -> Any:
    """``value`` in the types that JSON knows; layers become their Keras serialization."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, keras.layers.Layer):
        return keras.saving.serialize_keras_object(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
