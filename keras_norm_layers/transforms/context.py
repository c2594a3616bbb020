"""Who calls a layer that was not told whether it is training: nobody, a model that knows, or one that cannot know."""

from __future__ import annotations

import inspect
import sys
import warnings
from typing import Any

import keras


def augments_untold(layer: Any) -> bool:
    """Whether a random layer acts when it is called with ``training=None``.

    Not where it has been connected to other layers, and not inside a layer or model that has a ``training`` argument:
    there None means no training, as everywhere in Keras. Where it stands alone it acts. A model whose ``call`` has no
    ``training`` argument cannot say, neither in ``fit`` nor in ``predict``: the layer acts, and warns once.
    """
    if is_connected(layer):
        return False
    caller = calling_layer(layer)
    if caller is None:
        return True
    if "training" in inspect.signature(caller.call).parameters:
        return False
    if not getattr(layer, "_warned_of_caller", False):
        layer._warned_of_caller = True
        warnings.warn(
            f"{type(layer).__name__} {layer.name!r} is called by {type(caller).__name__} {caller.name!r}, whose `call` "
            "has no `training` argument, so it cannot know whether it is training, and augments in prediction too. "
            "Write `def call(self, x, training=None)` and pass `training=training` on.",
            stacklevel=2,
        )
    return True


def is_connected(layer: Any) -> bool:
    """Whether the layer is part of a Sequential or Functional model: Keras knows its output then."""
    try:
        return layer.output is not None
    except (AttributeError, ValueError):
        return False


def calling_layer(layer: Any) -> Any:
    """The Keras layer or model in whose ``call`` this runs, or None. Keras keeps it to itself; the stack does not."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_name in ("call", "tf__call"):  # the second is what AutoGraph makes of the first
            owner = frame.f_locals.get(code.co_varnames[0])
            if isinstance(owner, keras.layers.Layer) and owner is not layer:
                return owner
        frame = frame.f_back  # type: ignore[assignment]
    return None
