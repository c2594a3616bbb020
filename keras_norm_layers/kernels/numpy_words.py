"""Words for integer hashing as NumPy arrays: for eager torch, where each operation on a few words takes far longer.

The functions are those of a namespace (``backend.py``) that ``threefry.uniform`` calls.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def words(x: Any) -> np.ndarray:
    """A tensor on the host, or an array, as uint32."""
    return np.asarray(x).astype("uint32")


def arange(n: int, dtype: str, like: Any) -> np.ndarray:
    """0, 1, ..., n - 1."""
    return np.arange(n, dtype=dtype)


def add_words(a: Any, b: Any) -> Any:
    """a + b modulo 2^32; arrays, for NumPy warns of scalars that wrap around."""
    return a + b


def xor_words(a: Any, b: Any) -> Any:
    """Bitwise exclusive or."""
    return a ^ b


def rotate_words(a: Any, bits: int) -> Any:
    """``a`` rotated left by ``bits``."""
    return (a << bits) | (a >> (32 - bits))


def unit_interval(a: Any) -> np.ndarray:
    """The top 24 bits of each word as a float32 in [0, 1)."""
    return (a >> 8).astype("float32") * np.float32(2.0**-24)
