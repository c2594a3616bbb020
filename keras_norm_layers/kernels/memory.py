"""Memory on the host for batches that a library is to take as they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow and JAX copy an array that does not begin at a multiple


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """``numpy.empty`` that begins where the libraries take it without a copy."""
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        return np.empty(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + ALIGNMENT - 1, "uint8")
    return room[-room.ctypes.data % ALIGNMENT :][:size].view(dtype).reshape(shape)
