"""Image files: which ones a folder has, and one as an array."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_norm_layers.statistics import decoding

FORMATS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
COLOR_MODES = {"grayscale": 1, "rgb": 3, "rgba": 4}


def image_files(folder: str, follow_links: bool) -> Iterator[str]:
    """Paths of the image files in a folder and the folders in it, in alphabetical order; each folder once."""
    seen: set[str] = set()

    def is_new(path: str) -> bool:
        place = os.path.realpath(path)
        new = place not in seen
        seen.add(place)
        return new

    def folders() -> Iterator[tuple[str, list[str]]]:
        is_new(folder)
        for root, inside, names in os.walk(folder, followlinks=follow_links):
            if follow_links:  # a link to a folder above would lead in circles
                inside[:] = [name for name in inside if is_new(os.path.join(root, name))]
            yield root, names

    for root, names in sorted(folders()):
        for name in sorted(names):
            if name.lower().endswith(".tiff"):
                warnings.warn(
                    f"{os.path.join(root, name)}: of a .tiff file with several bands or pages, only what Pillow makes "
                    "of the first one is used. Check what comes out.",
                    UserWarning,
                    stacklevel=2,
                )
            if name.lower().endswith(FORMATS):
                yield os.path.join(root, name)


def load(
    path: Any, color_mode: str, target_size: tuple[int, ...], interpolation: str, keep_aspect_ratio: bool
) -> np.ndarray:
    """An image file as float32 (H, W, C), as it is stored: like the original, orientation tags are not followed.

    Args:
        path: of the file.
        color_mode: "grayscale" (8, 16 or 32 bits, as the file has them), "rgb" or "rgba".
        target_size: (height, width) that it is resized to.
        interpolation: a method of Pillow, one of ``decoding.INTERPOLATIONS``.
        keep_aspect_ratio: cut the largest centred part of the target's shape out of the image first.

    Raises:
        ValueError: for a file that cannot be read as an image; it names the file.
    """
    resampling = decoding.pillow("Image files are read", "migration").Resampling

    def failed(error: Exception) -> Exception:
        return ValueError(f"{Path(path)} cannot be read as an image: {error}")

    with decoding.opened(path, failed) as image:
        image = _converted(image, color_mode)
        height, width = target_size
        if image.size != (width, height):
            box = _centred(image.size, (width, height)) if keep_aspect_ratio else None
            image = image.resize((width, height), resampling[interpolation.upper()], box=box)
        return decoding.with_channels(np.asarray(image, "float32"))


def _converted(image: Any, color_mode: str) -> Any:
    if color_mode != "grayscale":
        return image if image.mode == color_mode.upper() else image.convert(color_mode.upper())
    if image.mode.startswith("I;16") and image.mode != "I;16":  # other orders of the two bytes
        return image.convert("I")
    return image if image.mode in ("L", "I;16", "I", "F") else image.convert("L")


def _centred(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box of the target's shape in the middle of an image: left, upper, right, lower."""
    width, height = size
    inner_width = min(width, height * target[0] // target[1])
    inner_height = min(height, width * target[1] // target[0])
    left, upper = (width - inner_width) // 2, (height - inner_height) // 2
    return left, upper, left + inner_width, upper + inner_height
