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

    def spread(value: Any) -> Any:
        return value if isinstance(value, (int, float)) else value[:, None, None, :]

    if color.gain is not None:
        images = images * spread(color.gain)
    if color.offset is not None:
        images = images + spread(color.offset)
    if color.low is not None and color.high is not None:
        images = xp.clip(images, spread(color.low), spread(color.high))
    return images
