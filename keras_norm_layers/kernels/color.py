"""Colour as a matrix and an offset, one an image, and the pass that applies them to images (N, H, W, C)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_norm_layers.kernels.backend import namespace

LUMA = (0.2989, 0.587, 0.114)  # the luminance of red, green and blue, with the digits that Keras and MATLAB use


class Color(NamedTuple):
    """y = gain * x + gray * luma(x) + offset on the channels of each image, where luma is 0.2989 R + 0.587 G + 0.114 B.

    ``gain`` and ``offset`` are tensors (N, 1), the same for all channels, or (N, C); ``gain`` may be None for 1.
    ``low`` and ``high`` bound the result: numbers, tensors (N, 1) or (N, C), or None for no bounds. ``gray`` is a
    tensor (N, 1), for images of three channels, or None.
    """

    gain: Any = None
    offset: Any = None
    low: Any = None
    high: Any = None
    gray: Any = None


def apply(images: Any, color: Color, own: bool = False) -> Any:
    """``color`` applied to float images (N, H, W, C). The products broadcast: a batched dot would break the fusion.

    ``own``: nobody else holds this tensor, so it may be written over where that is faster.
    """
    xp = namespace(images)
    gain, offset, low, high, gray = (
        v if v is None or isinstance(v, (int, float)) else xp.reshape(v, (-1, 1, 1, v.shape[-1])) for v in color
    )
    if gray is not None:
        added = luma(images) * gray
        offset = added if offset is None else added + offset
    if not xp.fuses():
        return xp.affine_clip(images, gain, offset, low, high, own)
    if gain is not None:
        images = images * gain
    if offset is not None:
        images = images + offset
    return images if low is None or high is None else xp.clip(images, low, high)


def luma(images: Any) -> Any:
    """The luminance (N, H, W, 1) of images (N, H, W, 3)."""
    return namespace(images).weighted_sum([images[..., i : i + 1] for i in range(3)], LUMA)


def channel_range(images: Any) -> tuple[Any, Any]:
    """The least and the greatest value of each channel of images (N, H, W, C), float32 or uint8: two float32 (N, C).

    Rows first, with their pixels as one long axis: loops over a last axis of three are several times slower.
    """
    xp = namespace(images)
    if not (xp.fuses() or xp.slow_at_narrow_broadcasts(images)):
        return tuple(xp.cast(edge(images, (1, 2)), "float32") for edge in (xp.amin, xp.amax))
    n, height, width, channels = xp.shape(images)
    rows = xp.reshape(images, (n, height, width * channels))
    least, greatest = (xp.reshape(edge(rows, 1), (n, width, channels)) for edge in (xp.amin, xp.amax))
    return xp.cast(xp.amin(least, 1), "float32"), xp.cast(xp.amax(greatest, 1), "float32")
