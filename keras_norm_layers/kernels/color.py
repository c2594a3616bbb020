"""Colour as a matrix and an offset, one an image, and the pass that applies them to images (N, H, W, C)."""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_norm_layers.kernels.backend import namespace


class Color(NamedTuple):
    """y = gain * x + offset on the channels of each image.

    ``gain`` and ``offset`` are tensors (N, 1), the same for all channels, or (N, C); ``gain`` may be None for 1.
    ``low`` and ``high`` bound the result: numbers, tensors (N, 1) or (N, C), or None for no bounds.
    """

    gain: Any = None
    offset: Any = None
    low: Any = None
    high: Any = None


def apply(images: Any, color: Color) -> Any:
    """``color`` applied to float images (N, H, W, C). The products broadcast: a batched dot would break the fusion."""
    xp = namespace(images)
    gain, offset, low, high = (v if v is None or isinstance(v, (int, float)) else v[:, None, None, :] for v in color)
    if not xp.fuses():
        return xp.affine_clip(images, gain, offset, low, high)
    if gain is not None:
        images = images * gain
    if offset is not None:
        images = images + offset
    return images if low is None or high is None else xp.clip(images, low, high)
