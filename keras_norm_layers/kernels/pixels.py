"""What no matrix can say about pixel values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.kernels.backend import namespace


class Change(NamedTuple):
    """A change of values that is made to some images of a batch only."""

    gate: Any  # (N,): 1 for those that it is made to
    values: Any  # its parameters by name, tensors (N, ...)
    run: Callable[..., Any]  # of such values and images (N, H, W, C); with own=True it may write over these


def vector(numbers: Any) -> np.ndarray:
    """A number, or a tuple of numbers, as a float32 array: for ``constant``."""
    return np.array(numbers, "float32")


def per_image(values: Any) -> Any:
    """(N,) as (N, 1, 1, 1)."""
    return namespace(values).reshape(values, (-1, 1, 1, 1))


def saturate(images: Any, dtype: str) -> Any:
    """Images as ``dtype``: for integers rounded (half to even) and cut to their range, never wrapped around."""
    xp = namespace(images)
    if xp.dtype_name(images) == dtype:
        return images
    if "int" in dtype:
        if "float" not in xp.dtype_name(images):
            images = xp.cast(images, "float32")
        info = np.iinfo(dtype)
        # float32 has no 2**31 - 1: the next one below, so that the cast cannot overflow.
        high = float(np.nextafter(np.float32(info.max), np.float32(0))) if info.bits > 24 else float(info.max)
        images = xp.clip(xp.round(images), float(info.min), high)
    return xp.cast(images, dtype)


def channel_mean(images: Any) -> Any:
    """The mean of each channel of each image (N, H, W, C), float32 or uint8: float32 (N, C)."""
    xp = namespace(images)
    _, height, width, _ = xp.shape(images)
    if not (isinstance(height, int) and isinstance(width, int)):
        return xp.mean(xp.cast(images, "float32"), axis=(1, 2))
    return xp.channel_sums(images) / float(height * width)


def reorder(batch: Any, keys: Any) -> Any:
    """The entries of a batch (N, ...) in the ascending order of their ``keys`` (N,)."""
    xp = namespace(batch)
    return xp.take(batch, xp.argsort(keys))


def materialize(images: Any) -> Any:
    """The same float images, written to memory once, where several things are to be computed from them.

    XLA copies cheap arithmetic into everything that uses its result: with the mean of a warped image and the image
    itself both asked for, it would interpolate twice and write out every tap (several times slower on a CPU). It
    copies no division, and it cannot know that the divisor is 1.
    """
    return images / (images * 0.0 + 1.0) if namespace(images).COPIES_ARITHMETIC else images


def scale_and_shift(images: Any, mean: Any, divisor: Any, invert: bool = False, exact: bool = True) -> Any:
    """(images - mean) / divisor, or with ``invert`` images * divisor + mean; a statistic may be None.

    The statistics broadcast to the images: shape (1, ..., 1, C) for one number a channel, for instance. ``exact=False``
    allows a product with the reciprocal, whose last bit may differ, where that takes less time.
    """
    xp = namespace(images)
    shape = xp.shape(images)
    given = [s for s in (mean, divisor) if s is not None]
    one_a_channel = all(tuple(s.shape) == (*[1] * (len(shape) - 1), shape[-1]) for s in given)
    widened = bool(given) and one_a_channel and len(shape) > 2 and isinstance(shape[-2], int)
    widened = widened and xp.slow_at_narrow_broadcasts(images)
    if widened:
        k = _side_by_side(shape[-2], shape[-1])
        mean, divisor = (s if s is None else xp.tile(xp.reshape(s, (-1,)), k) for s in (mean, divisor))
        images = xp.reshape(images, (*shape[:-2], shape[-2] // k, k * shape[-1]))
    if invert:
        images = images if divisor is None else images * divisor
        images = images if mean is None else images + mean
    else:
        images = xp.shifted_and_divided(images, mean, divisor, exact)
    return xp.reshape(images, shape) if widened else images


def _side_by_side(width: int, channels: Any) -> int:
    """How many pixels of a row to take for one: many numbers a step, but few enough for the innermost cache."""
    if not isinstance(channels, int):
        return width
    fitting = range(max(min(width, 1024 // max(channels, 1)), 1), 0, -1)
    return next((k for k in fitting if width % k == 0 and k * channels >= 48), width)


def interval(area: Any, place: Any, length: Any) -> tuple[Any, Any]:
    """First and last edge, in pixels, of an interval of sqrt(``area``) of a side; ``place`` in [0, 1) says where."""
    xp = namespace(area)
    side = float(length) if isinstance(length, int) else xp.cast(length, "float32")
    extent = xp.sqrt(area) * side
    first = place * (side - extent)
    return first, first + extent


def pasted(images: Any, others: Any, across: tuple[Any, Any], down: tuple[Any, Any]) -> Any:
    """The images (N, H, W, C), but pixels whose numbers are in [first, last) on both axes are those of ``others``."""
    xp = namespace(images)
    done = None if xp.paste is None else xp.paste(images, others, across, down)
    return xp.where(rectangle(images, across, down), others, images) if done is None else done


def rectangle(images: Any, across: tuple[Any, Any], down: tuple[Any, Any]) -> Any:
    """Where the pixels (N, H, W, 1) lie whose numbers are in [first, last) on both axes."""
    xp = namespace(images)
    _, height, width, _ = xp.shape(images)
    x = xp.arange(width, "float32", like=images)[None, :]
    y = xp.arange(height, "float32", like=images)[None, :]
    columns = (x >= across[0][:, None]) & (x < across[1][:, None])
    rows = (y >= down[0][:, None]) & (y < down[1][:, None])
    return columns[:, None, :, None] & rows[:, :, None, None]
