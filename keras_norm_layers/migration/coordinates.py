"""Where the pixels of a transformed image are read from: the affine map of ``ImageDataGenerator``, for batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

STILL = {"theta": 0, "tx": 0, "ty": 0, "shear": 0, "zx": 1, "zy": 1}  # the affine map that changes nothing


def moves(parameters: dict[str, Any]) -> bool:
    """Whether there is an affine map to follow, be it one that changes nothing in the end."""
    return any(parameters.get(name, still) != still for name, still in STILL.items())


def pull_matrices(parameters: Sequence[dict[str, Any]], height: int, width: int) -> np.ndarray:
    """For each image the 3 x 3 map from an output pixel (row, column, 1) to the place that it is read from, float64.

    On (x, y): R T S Z about ((height - 1) / 2, (width - 1) / 2): a turn by ``theta`` degrees, a shift by ``tx`` and
    ``ty``, a shear by ``shear`` degrees, and a zoom that reads ``zx`` and ``zy`` times as far. So does Keras since 2020
    (keras#17398): it draws ``tx`` from ``height_shift_range`` and then moves along x, and of an image that is not
    square it takes the centre with height and width exchanged. Who changes the import must get what he had.
    """
    given = [[drawn.get(name, still) for name, still in STILL.items()] for drawn in parameters]
    theta, tx, ty, shear, zx, zy = np.array(given, "float64").reshape(-1, len(STILL)).T
    one, none = np.ones_like(theta), np.zeros_like(theta)
    turn, slant = np.deg2rad(theta), np.deg2rad(shear)
    x, y = one * (float(height) / 2 - 0.5), one * (float(width) / 2 - 0.5)
    turned = _maps(np.cos(turn), -np.sin(turn), none, np.sin(turn), np.cos(turn), none)
    shifted = _maps(one, none, tx, none, one, ty)
    sheared = _maps(one, -np.sin(slant), none, none, np.cos(slant), none)
    zoomed = _maps(zx, none, none, none, zy, none)
    # From left to right, as Keras multiplies; a factor that changes nothing changes no bit.
    whole = _maps(one, none, x, none, one, y) @ (turned @ shifted @ sheared @ zoomed)
    result = whole @ _maps(one, none, -x, none, one, -y)
    return result[:, [1, 0, 2]][:, :, [1, 0, 2]]


def _maps(*rows: np.ndarray) -> np.ndarray:
    """3 x 3 matrices from the entries (N,) of their first two rows."""
    whole = np.zeros((len(rows[0]), 3, 3))
    whole[:, :2] = np.stack(rows, 1).reshape(-1, 2, 3)
    whole[:, 2, 2] = 1.0
    return whole


def pull_matrix(parameters: dict[str, Any], height: int, width: int) -> np.ndarray | None:
    """``pull_matrices`` of one image; None where nothing moves."""
    return pull_matrices([parameters], height, width)[0] if moves(parameters) else None


def coordinates(parameters: Sequence[dict[str, Any]], height: int, width: int) -> np.ndarray:
    """(N, 2 H + 2 W), float64: y as a part of an output pixel's row and one of its column, to be added; then x.

    SciPy starts with the offset, and adds row and column to it: the same order gives the same bits. A flip is a
    coordinate that runs backwards.
    """
    matrices = pull_matrices(parameters, height, width)
    rows = _numbered(parameters, "flip_vertical", height)
    columns = _numbered(parameters, "flip_horizontal", width)
    parts = []
    for axis in (0, 1):
        offset, down, right = (matrices[:, axis, i, None] for i in (2, 0, 1))
        parts += [offset + down * rows, right * columns]
    return np.concatenate(parts, 1)


def _numbered(parameters: Sequence[dict[str, Any]], flip: str, size: int) -> np.ndarray:
    """For each image the pixels' numbers along an axis."""
    flipped = np.array([bool(drawn.get(flip)) for drawn in parameters])[:, None]
    return np.where(flipped, np.arange(size)[::-1], np.arange(size))
