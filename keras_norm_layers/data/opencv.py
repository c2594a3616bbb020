"""OpenCV where it gives the same pixels in less time: JPEG files of 8 bits, and bilinear resizing of bytes."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from keras_norm_layers.data import bilinear
from keras_norm_layers.statistics import decoding

END = b"\xff\xd9"  # of a JPEG file: without it OpenCV would fill the rest with gray and say nothing


def library() -> Any:
    """The module ``cv2``.

    Raises:
        ImportError: where it is missing, cannot be loaded (a build for a display on a server has no libGL there), or is
            older than 4.11, which knows how to decode red first.
    """
    needs = "data: decoder='opencv' needs OpenCV 4.11: pip install keras-norm-layers[opencv]"
    try:
        module = importlib.import_module("cv2")
    except ImportError as error:
        raise ImportError(f"{needs} ({error})") from error
    if not hasattr(module, "IMREAD_COLOR_RGB"):
        raise ImportError(f"{needs} (found {getattr(module, '__version__', 'an unknown version')})")
    return module


def is_installed() -> bool:
    """Whether ``library`` gives one."""
    try:
        library()
    except ImportError:
        return False
    return True


def decoded(content: bytes, image: Any, mode: str) -> np.ndarray | None:
    """The pixels (H, W, C) of a JPEG file in a mode of Pillow, as stored; None where that is for Pillow to say.

    Pillow has opened it as ``image``. Both decode by libjpeg-turbo, with the same settings, so pixels are the same.
    """
    if image.format != "JPEG" or image.mode != mode or mode not in ("L", "RGB") or not content.endswith(END):
        return None
    cv2 = library()
    color = cv2.IMREAD_GRAYSCALE if mode == "L" else cv2.IMREAD_COLOR_RGB
    try:
        pixels = cv2.imdecode(np.frombuffer(content, "uint8"), color | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if pixels is None or pixels.shape[:2] != (image.height, image.width):
        return None
    return decoding.with_channels(pixels)


def resized(array: np.ndarray, source: bilinear.Box, size: tuple[int, int]) -> np.ndarray:
    """What ``bilinear.resized`` gives, bytes within one level of it."""
    whole = all(float(edge).is_integer() for edge in source)
    if array.dtype != np.uint8 or array.shape[2] not in (1, 3, 4) or not whole:
        return bilinear.resized(array, source, size)
    left, top, width, height = (int(edge) for edge in source)
    part = array[top : top + height, left : left + width]
    made = library().resize(part, size[::-1], interpolation=library().INTER_LINEAR)
    return made.reshape(*size, array.shape[2])
