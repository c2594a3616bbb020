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


def keys(distance: float) -> float:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981, equation 15)."""
    d = abs(distance)
    if d < 1:
        return 1.5 * d**3 - 2.5 * d**2 + 1
    return -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0


def taps(t: float, interpolation: str) -> list[tuple[int, float]]:
    """The places of the endless row that make the value at ``t``, with their weights."""
    if interpolation == "nearest":
        return [(math.floor(t + 0.5), 1.0)]
    before = math.floor(t)
    if interpolation == "bilinear":
        return [(before, 1 - (t - before)), (before + 1, t - before)]
    return [(before + i, keys(t - before - i)) for i in (-1, 0, 1, 2)]


def warp(
    image: np.ndarray,
    pull: Map,
    interpolation: str,
    fill_mode: str,
    fill_value: float = 0.0,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """``image`` (H, W, C) where the output pixel (row, column) shows the input at ``pull(row, column)``."""
    height, width, channels = image.shape
    result = np.zeros((*(size or (height, width)), channels))

    def value(row: int, column: int) -> np.ndarray:
        r, c = extended_index(row, height, fill_mode), extended_index(column, width, fill_mode)
        return np.full(channels, fill_value) if r is None or c is None else image[r, c].astype("float64")

    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            y, x = pull(row, column)
            result[row, column] = sum(
                down * across * value(r, c)
                for r, down in taps(y, interpolation)
                for c, across in taps(x, interpolation)
            )
    return result


def pulled(
    inverse: np.ndarray,
    inside: tuple[int, int],
    outside: tuple[int, int] | None = None,
    displacement: np.ndarray | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
) -> Map:
    """The map of ``warp`` for a 3x3 matrix on centred homogeneous (x, y, 1), with a displacement and a shift (x, y)."""
    m = np.asarray(inverse, "float64")
    outside = outside or inside

    def pull(row: float, column: float) -> tuple[float, float]:
        x, y = column - (outside[1] - 1) / 2 + offset[0], row - (outside[0] - 1) / 2 + offset[1]
        if displacement is not None:
            x, y = x + displacement[row, column, 0], y + displacement[row, column, 1]
        u, v, w = m @ [x, y, 1.0]
        return v / w + (inside[0] - 1) / 2, u / w + (inside[1] - 1) / 2

    return pull
