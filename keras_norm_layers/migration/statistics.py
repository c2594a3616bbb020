"""What ``ImageDataGenerator.fit`` learns, and what it makes of images with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_norm_layers.normalization.whitening_matrices import Rule, eigenpairs
from keras_norm_layers.statistics.covariance import Covariance, check_memory
from keras_norm_layers.statistics.moments import Moments
from keras_norm_layers.statistics.spectrum import Spectrum

BATCH_BYTES = 1 << 25  # of float64: how much of the data is converted at a time


class Whitening:
    """x -> x U diag(g) U': a whitening by its directions U (d, r) and their gains g (r,), or by a matrix (d, d)."""

    def __init__(self, directions: np.ndarray, gains: np.ndarray, matrix: np.ndarray | None = None) -> None:
        self.directions, self.gains, self._matrix = directions, gains, matrix

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> Whitening:
        """The whitening by a matrix that came from elsewhere."""
        return cls(matrix, np.ones(len(matrix), matrix.dtype), matrix)

    @property
    def is_thin(self) -> bool:
        """True where the two products with the directions are less work than the one with the matrix."""
        size, rank = self.directions.shape
        return 2 * rank <= size

    def astype(self, dtype: Any) -> Whitening:
        """The same in another dtype, as a matrix where it is not thin."""
        if not self.is_thin:
            return self.of_matrix(self.matrix().astype(dtype))
        return Whitening(self.directions.astype(dtype), self.gains.astype(dtype))

    def matrix(self) -> np.ndarray:
        """(d, d), made at the first call.

        Raises:
            MemoryError: where it does not fit; the message says how many GB it needs.
        """
        if self._matrix is None:
            check_memory(len(self.directions))
            self._matrix = (self.directions * self.gains) @ self.directions.T
        return self._matrix

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Rows (N, d) whitened."""
        return ((rows @ self.directions) * self.gains) @ self.directions.T if self.is_thin else rows @ self.matrix()


def batches(x: np.ndarray, dtype: Any, rescale: float | None, whole: bool = False) -> Iterator[np.ndarray]:
    """The images in batches of ``dtype``, or the ``whole`` of them as one, rescaled; the array stays as it is."""
    step = max(1, len(x) if whole else BATCH_BYTES // (8 * max(1, x[:1].size)))
    for start in range(0, len(x), step):
        part = np.array(x[start : start + step], dtype=dtype)
        yield part * np.asarray(rescale, part.dtype) if rescale else part


def normalize_samples(batch: np.ndarray, center: bool, scale: bool) -> None:
    """Each image minus its mean, and divided by (its standard deviation + 1e-6), in place."""
    for image in batch:
        mean = image.mean(dtype="float64").astype(image.dtype)
        if center:
            image -= mean
        if scale:
            centred = np.ravel(image if center else image - mean)
            image /= np.sqrt(np.vdot(centred, centred) / centred.size).astype(image.dtype) + 1e-6


def in_rows(batch: np.ndarray, statistic: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) as rows (N, H, W * C), and a statistic that is the same for all rows alike: NumPy is slow
    where the last axis is short. Both as they are, where that cannot be.
    """
    statistic = np.asarray(statistic)
    one_for_all_rows = statistic.ndim < 3 or statistic.shape[-3] == 1
    if not one_for_all_rows or not batch.flags.c_contiguous or statistic.ndim > 3:
        return batch, statistic
    row = np.broadcast_to(statistic, (1, *batch.shape[2:]))
    return batch.reshape(*batch.shape[:2], -1), row.reshape(-1)


def channel_moments(parts: Iterator[np.ndarray], channel_axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, float64 (C,), over batches (N, ...)."""
    moments = Moments(channel_axis)
    for part in parts:
        moments.add(part, "x")
    _, _, mean, variance = moments.result()
    return mean, np.sqrt(variance)


def whitening(parts: Iterator[np.ndarray], shape: tuple[int, ...], mean: np.ndarray, epsilon: float) -> Whitening:
    """The whitening whose gains are sqrt(n) / (s + epsilon), s the singular values of the centred data.

    Second moments are taken about ``mean``, the channels' mean. Directions in which the data does not vary, beyond
    rounding, are dropped: their gain would blow up noise sqrt(n) / epsilon times.

    Args:
        parts: batches of images.
        shape: of all images together, (N, ...).
        mean: array that broadcasts to an image.
        epsilon: added to the singular values.
    """
    middle = np.broadcast_to(mean, shape[1:]).astype("float64").ravel()
    few = shape[0] < middle.size  # then there are no more directions than images
    total: Any = Spectrum(middle.size, shape[0]) if few else Covariance(middle.size)
    for part in parts:
        total.add(part.reshape(len(part), -1), "x")
    found = total.result(middle)
    values, vectors = (found.values, found.vectors.T) if few else eigenpairs(found.covariance)
    alive = values > 0
    gains = Rule(epsilon, "singular_value", shape[0], invert=False).gains(values[alive])
    return Whitening(vectors[:, alive], gains)
