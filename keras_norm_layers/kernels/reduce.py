"""Exact sums of integers on the device where a tensor lives: partial sums that cannot overflow, and only they move.

A value is cut into digits of 8 bits, the highest with the sign. Products of two digits are below 2^16, so int32 holds
the sum of 2^15 of them: this works where a library has no 64-bit integers (JAX, by default).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend

DIGIT = 8
ROWS = 1 << 15
DIGITS = {"bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "int32": 4}


def takes(x: Any) -> bool:
    """True for tensors of integers on an accelerator; floats, and integers wider than int32, go by way of the host."""
    return on_accelerator(x) and backend.namespace(x).dtype_name(x) in DIGITS


def on_accelerator(x: Any) -> bool:
    """True for a tensor of TensorFlow, JAX or torch whose memory is that of a GPU or TPU."""
    if callable(getattr(x, "devices", None)):  # JAX
        return all(device.platform != "cpu" for device in x.devices())
    device = getattr(x, "device", None)
    kind = getattr(device, "type", device)  # torch: device.type; TensorFlow: "/job:.../device:GPU:0"
    return isinstance(kind, str) and kind not in ("", "meta") and "cpu" not in kind.lower()


def digit_sums(x: Any, kept: tuple[int, ...]) -> tuple[int, np.ndarray, np.ndarray, int, int]:
    """What ``statistics.exact.Sums.from_digits`` takes, of a tensor of one of the types in ``DIGITS``.

    Args:
        x: tensor, images along its first axis.
        kept: axes that keep sums of their own, ascending; the features are the indices along them.

    Returns:
        values a feature, int64 sums (digits, features), int64 products (digits * digits, features) of which the lower
        triangle is filled, the number of digits, and the bits in one.
    """
    xp = backend.namespace(x)
    count = DIGITS[xp.dtype_name(x)]
    shape = tuple(int(n) for n in x.shape)
    others = tuple(a for a in range(len(shape)) if a not in kept)
    features = math.prod(shape[a] for a in kept)
    # TensorFlow keeps int32 on the host even where there is a GPU; int64 it does not.
    wide = xp.cast(x, "int32" if backend.framework(x) == "jax" else "int64")
    table = xp.reshape(xp.transpose(wide, others + kept), (-1, features))
    digits = []
    for _ in range(count - 1):
        high = table // (1 << DIGIT)
        digits.append(table - high * (1 << DIGIT))
        table = high
    digits.append(table)
    sums = np.zeros((count, features), "int64")
    products = np.zeros((count * count, features), "int64")
    for i, left in enumerate(digits):
        sums[i] = _column_sums(xp, left)
        for j, right in enumerate(digits[: i + 1]):
            products[i * count + j] = _column_sums(xp, left * right)
    return math.prod(shape[a] for a in others), sums, products, count, DIGIT


def _column_sums(xp: Any, table: Any) -> np.ndarray:
    """Sums over rows: of 2^15 at a time on the device, then of what these give on the host, in int64."""
    rows, features = (int(n) for n in table.shape)
    cut = rows // ROWS * ROWS
    whole = backend.to_numpy(xp.sum(xp.reshape(table[:cut], (cut // ROWS, ROWS, features)), 1))
    rest = backend.to_numpy(xp.sum(table[cut:], 0))
    return whole.astype("int64").sum(0) + rest.astype("int64")
