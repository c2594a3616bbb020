"""Images seen through maps, pixel by pixel: the signal is extended without end by index, then interpolated."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Map = Callable[[float, float], tuple[float, float]]


def extended_index(i: int, size: int, fill_mode: str) -> int | None:
    """Which pixel stands at place ``i`` of the endless row; None: the fill."""
    if 0 <= i < size:
        return i
    if fill_mode == "constant":
        return None
    if fill_mode == "nearest":
        return 0 if i < 0 else size - 1
    if fill_mode == "wrap":
        return i % size
    i %= 2 * size
    return i if i < size else 2 * size - 1 - i


def warp(image: np.ndarray, pull: Map, interpolation: str, fill_mode: str, fill_value: float = 0.0) -> np.ndarray:
    """``image`` (H, W, C) where the output pixel (row, column) shows the input at ``pull(row, column)``."""
    height, width, channels = image.shape
    result = np.zeros((height, width, channels))

    def value(row: int, column: int) -> np.ndarray:
        r, c = extended_index(row, height, fill_mode), extended_index(column, width, fill_mode)
        return np.full(channels, fill_value) if r is None or c is None else image[r, c].astype("float64")

    for row in range(height):
        for column in range(width):
            y, x = pull(row, column)
            if interpolation == "nearest":
                result[row, column] = value(math.floor(y + 0.5), math.floor(x + 0.5))
                continue
            top, left = math.floor(y), math.floor(x)
            dy, dx = y - top, x - left
            upper = value(top, left) * (1 - dx) + value(top, left + 1) * dx
            lower = value(top + 1, left) * (1 - dx) + value(top + 1, left + 1) * dx
            result[row, column] = upper * (1 - dy) + lower * dy
    return result
