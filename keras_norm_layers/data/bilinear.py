"""Bilinear resizing without antialiasing: each pixel from the four about it, as ``tf.image.resize`` does by default."""

from __future__ import annotations

import functools

import numpy as np

Box = tuple[float, float, float, float]
UNITS = 256  # a weight of rows is a whole number of these parts for bytes, so that products fit into uint16


def resized(array: np.ndarray, source: Box, size: tuple[int, int]) -> np.ndarray:
    """A part of an image (H, W, C) in another size (rows, columns), of the same dtype.

    ``source`` is (left, upper, width, height) in pixels; nothing outside of it is read. Bytes are within one level of
    the interpolated values, other whole numbers rounded, floating-point numbers computed in float64.
    """
    left, top, width, height = source
    rows, down = _places(array.shape[0], top, height, size[0])
    columns, across = _places(array.shape[1], left, width, size[1])
    below, right = np.minimum(rows + 1, array.shape[0] - 1), np.minimum(columns + 1, array.shape[1] - 1)
    if array.dtype != np.uint8:
        mixed = _between(array[rows].astype("float64"), array[below], down[:, None, None])
        mixed = _between(mixed[:, columns], mixed[:, right], across[:, None])
        if array.dtype.kind in "ui":
            limits = np.iinfo(array.dtype)
            mixed = np.clip(np.rint(mixed), limits.min, limits.max)
        return mixed.astype(array.dtype)
    # Rows first, whose bytes lie side by side; in 16 bits, for that is half the memory of float32.
    flat = array.reshape(len(array), -1)
    weights = np.rint(down * UNITS).astype("uint16")[:, None]
    strips = np.multiply(flat[rows], UNITS - weights, dtype="uint16")
    strips += np.multiply(flat[below], weights, dtype="uint16")
    strips = strips.reshape(size[0], *array.shape[1:])
    mixed = _between(
        strips.take(columns, 1).astype("float32"), strips.take(right, 1), across[:, None].astype("float32")
    )
    mixed *= np.float32(1 / UNITS)
    mixed += np.float32(0.5)
    return mixed.astype("uint8")


def _between(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(1 - weight) first + weight second, in the dtype of ``first``, one of floating-point numbers."""
    mixed = second - first
    mixed *= weight
    mixed += first
    return mixed


@functools.lru_cache(256)
def _places(count: int, start: float, length: float, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel wanted of a line the pixel before its place, and how far beyond that it lies, in [0, 1]."""
    first, last = max(0.0, start), min(count - 1.0, start + length - 1)
    places = np.clip(start + (np.arange(wanted) + 0.5) * (length / wanted) - 0.5, first, max(first, last))
    before = np.minimum(places.astype("int64"), max(0, count - 2))
    return before, places - before
