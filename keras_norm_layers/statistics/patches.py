"""The covariance of all patches of images, by far fewer products than there are patches.

Neighbouring patches share most of their pixels. So the products of pixels are summed over tiles of
(2 p - 2) x (2 p - 2) pixels, each of which holds (p - 1) x (p - 1) patches of p x p pixels; the covariance of the
patches is the sum of the blocks of that matrix which belong to one patch each. That is a fifth of the products and a
tenth of the copies that a list of patches takes, and the sum is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_norm_layers.statistics import moments
from keras_norm_layers.statistics.covariance import (
    GATHER_ROWS,
    MIDDLE,
    Covariance,
    CovarianceResult,
    Sums,
    finite_images,
    is_bytes,
)


class PatchCovariance(Covariance):
    """Accumulates mean and covariance of all ``patch_size`` x ``patch_size`` patches that lie inside the images.

    A patch is flattened to patch_size * patch_size * channels values, channels last. Images may differ in size from
    batch to batch. Bytes are summed exactly, as in ``Covariance``. No shrinkage is estimated: patches overlap, and the
    estimates are for independent samples.

    Args:
        patch_size: height and width of a patch, in pixels.
        channels: of the images.
        nan_policy: "raise", or "omit" to leave out the images that hold NaN.

    Example:
        >>> import numpy as np
        >>> images = np.arange(24.0).reshape(1, 4, 6, 1)
        >>> total = PatchCovariance(3, 1).add(images)
        >>> total.images, total.patches, total.result().mean[[0, 8]].tolist()
        (1, 8, [4.5, 18.5])
    """

    def __init__(self, patch_size: int, channels: int, nan_policy: str = "raise") -> None:
        super().__init__(patch_size * patch_size * channels, nan_policy)
        self.patch_size, self.channels = patch_size, channels
        self._images = 0

    @property
    def images(self) -> int:
        """How many images were added."""
        return self._images

    @property
    def patches(self) -> int:
        """How many patches they had."""
        return self._samples()

    def add(self, batch: Any, name: str = "the batch", first_image: int = 0) -> PatchCovariance:
        """Adds a batch of images (N, H, W, C), each at least as large as a patch. Nothing is added when it raises."""
        batch = np.asarray(batch)
        moments.check_dtype(batch, name)
        if batch.ndim != 4 or batch.shape[-1] != self.channels or min(batch.shape[1:3]) < self.patch_size:
            raise ValueError(
                f"{name} must hold images (N, H, W, {self.channels}) of at least {self.patch_size} x {self.patch_size} "
                f"pixels, channels last. Received shape {batch.shape}."
            )
        batch = finite_images(batch, self.nan_policy, name, first_image)
        if not len(batch):
            return self
        if is_bytes(batch.dtype):
            self._absorb_bytes(_patch_sums(batch, self.patch_size, np.full(self.channels, MIDDLE), "float32"))
        else:
            # About the mean of this batch, which is near that of each place in a patch: little cancels afterwards.
            middle = np.mean(batch, axis=(0, 1, 2), dtype="float64")
            self._absorb_floats(_patch_sums(batch, self.patch_size, middle, "float64"))
        self._images += len(batch)
        return self

    def merge(self, other: Covariance) -> PatchCovariance:
        """Adds what another accumulator of patches has seen."""
        shapes = [(type(x), getattr(x, "patch_size", None), x.size) for x in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"Patches of different sizes cannot be merged: {shapes[0][1:]} and {shapes[1][1:]}.")
        super().merge(other)
        self._images += other.images
        return self

    def result(self, about: np.ndarray | None = None) -> CovarianceResult:
        """Mean and covariance of the patches; ``images`` seen, ``samples`` patches."""
        return super().result(about)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays."""
        own = {"images": self._images, "patch_size": self.patch_size, "channels": self.channels}
        return super().state() | {key: np.array(value, "int64") for key, value in own.items()}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> PatchCovariance:
        """The accumulator that ``state()`` described."""
        result = cls(int(state["patch_size"]), int(state["channels"]), "omit" if state["omit"] else "raise")
        result._load(state)
        result._images = int(state["images"])
        return result


def _patch_sums(batch: np.ndarray, patch: int, middle: np.ndarray, dtype: str) -> Sums:
    """The sums over all patches of a batch, about ``middle`` (C,); products in ``dtype``, sums in float64."""
    _, height, width, channels = batch.shape
    total = Sums.empty(patch * patch * channels)
    for rows in _spans(height - patch + 1, max(1, patch - 1)):
        for columns in _spans(width - patch + 1, max(1, patch - 1)):
            tile = (rows[2] + patch - 1, columns[2] + patch - 1)
            tiles = Sums.empty(tile[0] * tile[1] * channels)
            for image in batch:
                image = image.astype(dtype)
                image -= middle.astype(dtype)
                view = np.lib.stride_tricks.sliding_window_view(image, tile, axis=(0, 1))
                view = view[_steps(*rows), _steps(*columns)].transpose(0, 1, 3, 4, 2)
                table = view.reshape(-1, len(tiles.sums))
                for start in range(0, len(table), GATHER_ROWS):
                    part = table[start : start + GATHER_ROWS]
                    tiles.scatter += part.T @ part
                    tiles.sums += part.sum(0)
            _fold(total, tiles, (rows[2], columns[2]), tile, patch)
    total.count = len(batch) * (height - patch + 1) * (width - patch + 1)
    total.point = np.tile(middle, patch * patch)
    total.fourth = np.nan  # not counted: it would cost as much again, and serves shrinkage alone
    return total


def _spans(places: int, step: int) -> Iterator[tuple[int, int, int]]:
    """(first place, tiles, places a tile) that cover the places of patches along an axis once each."""
    whole = places // step
    if whole:
        yield 0, whole, step
    if places % step:
        yield whole * step, 1, places % step


def _steps(first: int, number: int, step: int) -> slice:
    return slice(first, first + (number - 1) * step + 1, step)


def _fold(total: Sums, tiles: Sums, places: tuple[int, int], tile: tuple[int, int], patch: int) -> None:
    """Adds what belongs to each patch of a tile."""
    shape, size = (*tile, len(tiles.sums) // (tile[0] * tile[1])), len(total.sums)
    scatter, sums = tiles.scatter.reshape(shape * 2), tiles.sums.reshape(shape)
    for y in range(places[0]):
        for x in range(places[1]):
            part = (slice(y, y + patch), slice(x, x + patch), slice(None))
            total.scatter += scatter[part * 2].reshape(size, size)
            total.sums += sums[part].ravel()
