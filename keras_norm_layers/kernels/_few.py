"""The namespace of ``Numbers``: arithmetic on a few numbers by NumPy, for eager torch on a CPU (``_torch.few``).

An operation of torch on the 64 angles of a batch takes longer than NumPy's, and a pass has hundreds. The
functions are those of a namespace (``backend.py``) that are called with numbers of the draw, never with pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from keras_norm_layers.kernels.backend import Numbers

maximum, minimum, floor, abs, sqrt = np.maximum, np.minimum, np.floor, np.abs, np.sqrt
exp, log, sin, cos, round, cumsum = np.exp, np.log, np.sin, np.cos, np.rint, np.cumsum


def compute(function: Callable[..., Any], *given: Any) -> Any:
    """``function`` of tensors on the host, in lists, tuples and dicts: computed by NumPy, tensors again in the end.

    By torch in ``torch.func.grad`` and ``vmap``, where a tensor has no memory (a RuntimeError), and for a transform
    that somebody wrote with functions of torch or of Keras (a TypeError).
    """
    try:
        with np.errstate(all="ignore"):  # as silent as torch
            return _mapped(_tensor, function(*_mapped(_numbers, given)))
    except (RuntimeError, TypeError):
        return function(*given)


def _numbers(x: Any) -> Any:
    return x.numpy().view(Numbers) if torch.is_tensor(x) else x


def _tensor(x: Any) -> Any:
    return torch.from_numpy(np.asarray(x)) if isinstance(x, (np.ndarray, np.generic)) else x


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, (list, tuple)):
        return [_mapped(function, x) for x in tree]
    if isinstance(tree, dict):
        return {name: _mapped(function, x) for name, x in tree.items()}
    return function(tree)


def constant(make: Callable[..., Any], *args: Any) -> Any:
    """The NumPy array that ``make(*args)`` gives."""
    return make(*args).view(Numbers)


def cast(x: Any, dtype: str) -> Any:
    """``x`` as ``dtype``, fractions cut off."""
    return x.astype(dtype)


def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``."""
    return np.where(condition, a, b).view(Numbers)


def clip(x: Any, low: Any, high: Any) -> Any:
    """``x`` cut to [low, high]."""
    return np.minimum(np.maximum(x, low), high)


def erfinv(x: Any) -> Any:
    """The inverse of the error function, which NumPy does not have."""
    return torch.erfinv(torch.from_numpy(np.asarray(x))).numpy().view(Numbers)


def reshape(x: Any, new_shape: Any) -> Any:
    """``x`` in another shape."""
    return x.reshape(new_shape)


def stack(tensors: Any, axis: int = 0) -> Any:
    """The arrays side by side on a new axis."""
    return np.stack(tensors, axis).view(Numbers)


def sum(x: Any, axis: Any) -> Any:
    """The sum over ``axis``."""
    return x.sum(axis)


def amin(x: Any, axis: Any, keepdims: bool = False) -> Any:
    """The least value over ``axis``."""
    return x.min(axis, keepdims=keepdims)


def take(x: Any, indices: Any) -> Any:
    """The entries of ``x`` (N, ...) at these places of its first axis."""
    return x[indices]


def arange(n: int, dtype: str, like: Any) -> Any:
    """0, 1, ..., n - 1."""
    return np.arange(n, dtype=dtype)


def words(x: Any) -> Any:
    """``x`` as 32-bit words for integer hashing: plain arrays, which know their namespace from their caller."""
    return np.asarray(x).astype("uint32")


def add_words(a: Any, b: Any) -> Any:
    """a + b modulo 2^32; arrays, for NumPy warns of scalars that wrap around."""
    return a + b


def xor_words(a: Any, b: Any) -> Any:
    """Bitwise exclusive or."""
    return a ^ b


def rotate_words(a: Any, bits: int) -> Any:
    """``a`` rotated left by ``bits``."""
    return (a << bits) | (a >> (32 - bits))


def unit_interval(a: Any) -> Any:
    """The top 24 bits of each word as a float32 in [0, 1)."""
    return (a >> 8).astype("float32") * np.float32(2.0**-24)
