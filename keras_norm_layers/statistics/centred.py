"""Count, mean and sum of squares about the mean of floating-point values, in float64, mergeable in any order.

Values go through two passes a block (mean, then squares about the mean); blocks and batches merge by the formula of
Chan, Golub and LeVeque (1983). What the mean's last bit cannot hold is carried along beside it (Knuth's two-sum), so a
hundred thousand merges of batches of one image at mean 1e8 and std 1e-2 still add no error that can be seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_norm_layers.statistics.blocks import Workspace, blocks, folded, merged, tables


class Centred(NamedTuple):
    """Count, mean and sum of squares about the mean, of flat features.

    The mean is ``mean + rest``, rest less than its last bit. ``count`` is one number for all features, or, where values
    were left out, an array with one for each.
    """

    count: int | np.ndarray  # type: ignore[assignment]
    mean: np.ndarray
    rest: np.ndarray
    squares: np.ndarray

    def merged(self, other: Centred) -> Centred:
        """Both together."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        # delta is exactly 0 where both are one constant, so a constant feature keeps a variance of exactly 0.
        delta = (other.mean - self.mean) + (other.rest - self.rest)
        mean, error = two_sum(self.mean, delta * share)
        mean, rest = two_sum(mean, self.rest + error)
        squares = self.squares + other.squares + delta * (delta * (self.count * share))
        return Centred(count, mean, rest, squares)


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The float64 sum of a and b, and exactly what it misses."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def float_sums(part: np.ndarray, kept: tuple[int, ...]) -> Centred:
    """The sums of a part of a batch for each feature, the features being the indices along the axes ``kept``."""
    corner = part[tuple(slice(None) if a in kept else slice(0, 1) for a in range(part.ndim))].astype("float64")
    total: Centred | None = None
    for table, tile, group in tables(part, kept):
        # Values count from the feature's first one: a constant feature becomes exactly 0 and stays so.
        lead = part.ndim - len(group)
        pivot = np.tile(np.broadcast_to(corner.reshape(corner.shape[lead:]), group).ravel(), tile)
        rows, mean, squares = len(table), *_centred_columns(table, pivot)
        fold = folded(kept, group, part.ndim)
        mean, squares = mean.reshape(tile, *group), squares.reshape(tile, *group)
        middle = mean.mean(fold, keepdims=True)
        squares = (squares + rows * (mean - middle) ** 2).sum(fold).ravel()
        feature, rest = two_sum(corner.ravel(), middle.ravel())
        total = merged(total, Centred(table.size // feature.size, feature, rest, squares))
    assert total is not None
    return total


def _centred_columns(table: np.ndarray, pivot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean minus ``pivot`` and sum of squares about the mean, of each column."""
    mean, squares = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    seen = {0: 0}
    work = Workspace("float64")
    for columns, block in blocks(table, "float64"):
        values = work.copy(block)
        values -= pivot[columns]
        ones = np.ones(len(values))
        here = ones @ values / len(values)
        values -= here
        before = seen.setdefault(columns.start, 0)
        delta = here - mean[columns]
        share = len(values) / (before + len(values))
        mean[columns] += delta * share
        squares[columns] += ones @ np.square(values, out=values) + delta * delta * (before * share)
        seen[columns.start] = before + len(values)
    return mean, squares


def omitting_sums(part: np.ndarray, kept: tuple[int, ...]) -> Centred:
    """As ``float_sums``, the NaN left out: counts, one for each feature. A feature of NaN alone has mean 0, count 0."""
    others = tuple(a for a in range(part.ndim) if a not in kept)
    features = int(np.prod([part.shape[a] for a in kept]))
    values = part.transpose(others + kept).reshape(-1, features).astype("float64")
    missing = np.isnan(values)
    count = len(values) - missing.sum(0)
    first = np.take_along_axis(values, np.argmin(missing, 0)[None], 0)[0]
    pivot = np.where(count > 0, first, 0.0)
    ones = np.ones(len(values))
    values -= pivot
    values[missing] = 0.0
    middle = ones @ values / np.maximum(count, 1)
    values -= middle
    values[missing] = 0.0
    squares = ones @ np.square(values, out=values)
    return Centred(count, *two_sum(pivot, middle), squares)
