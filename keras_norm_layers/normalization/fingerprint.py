"""What decides a result of ``adapt``, in words and hashes: a checkpoint is continued by the same call alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_norm_layers.kernels import backend
from keras_norm_layers.statistics.sources import Batches


def describe_layers(targets: Sequence[Any], before: Sequence[Any]) -> dict[str, Any]:
    """Classes and arguments of the layers that learn and of those before them, and a hash of the latter's weights.

    Names are left out: Keras numbers them anew for a model that is made again.
    """
    others = [layer for layer in before if not any(layer is target for target in targets)]
    return {
        "layers": [_describe(layer) for layer in targets],
        "before": [_describe(layer) for layer in others],
        "weights before": _hash(others),
    }


def _describe(layer: Any) -> dict[str, Any]:
    try:
        config = _plain(layer.get_config())
    except Exception:  # a layer of the user's that has none
        config = {}
    return {"class": type(layer).__name__, **config}


def _plain(value: Any) -> Any:
    """``value`` as JSON has it, without names, and without what differs from one process to the next."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key != "name"}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else type(value).__name__


def _hash(layers: Sequence[Any]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for layer in layers:
        # Of a layer with given statistics the arguments say it all, and weights come only when it is built.
        if not getattr(layer, "has_given_statistics", False):
            for variable in layer.weights:
                total.update(backend.to_numpy(keras.ops.convert_to_tensor(variable)).tobytes())
    return total.hexdigest()


def describe_data(data: Any, source: Batches) -> dict[str, Any]:
    """What can be known of data before it is read: its type, its shape and dtype, its length in batches."""
    data = data[0] if isinstance(data, tuple) and data else data
    return {
        "type": "an iterator" if source.once else type(data).__name__,
        "path": os.fspath(data) if isinstance(data, (str, os.PathLike)) else None,
        "shape": [int(n) if n is not None else None for n in data.shape] if hasattr(data, "shape") else None,
        "dtype": str(data.dtype) if hasattr(data, "dtype") else None,
        "batches": source.length,
        "images": source.images,
    }
