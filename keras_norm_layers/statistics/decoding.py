"""Image files by Pillow, for every room that reads them: opening, modes, depth, frames, orientation."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
# Pillow's modes of 8 bits a value -> which of the three it is read as.
MODES = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("RGB", "RGBX", "P", "CMYK", "YCbCr"), "RGB"),
    **dict.fromkeys(("RGBA", "RGBa", "LA", "PA"), "RGBA"),
}
THREADS = min(8, os.cpu_count() or 1)  # that decode: Pillow needs no lock of Python for it
ORIENTATION = 0x0112
# The orientation that a camera notes -> how Pillow turns the stored pixels upright; from 5 on, height becomes width.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def pillow(what: str, extra: str) -> Any:
    """The module ``PIL.Image``; the ImportError says ``what`` needs it and which extra brings it."""
    try:
        import PIL.Image
    except ImportError as error:
        raise ImportError(f"{what} by Pillow: pip install keras-norm-layers[{extra}]") from error
    return PIL.Image


@contextlib.contextmanager
def opened(
    source: Any, failed: Callable[[Exception], Exception], own: tuple[type[Exception], ...] = ()
) -> Iterator[Any]:
    """The image in a file (a path or a file object), opened by Pillow.

    What Pillow raises for a broken one differs from format to format: anything raised while the image is in use becomes
    ``failed(error)``, but exceptions of the types ``own``.
    """
    import PIL.Image

    try:
        with PIL.Image.open(source) as image:
            yield image
    except own:
        raise
    except Exception as error:
        raise failed(error) from error


def is_deep(image: Any) -> bool:
    """Whether the file of an open image has 16 bits a value, of which Pillow would keep 8 without a word."""
    return any(
        ";16" in str(args) or (codec.startswith("ppm") and not isinstance(args, str) and args[-1] > 255)
        for codec, _, _, args in image.tile
    )


def frames(image: Any) -> int:
    """Number of pictures in a file; the previews that cameras add to a JPEG file do not count."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def orientation(image: Any) -> int:
    """The orientation, 1 to 8, that the file of an open image notes; 1 where it notes none, or none that there is.

    Ask before the pixels are read: a TIFF file is turned by Pillow, which then forgets it.
    """
    import PIL.Image

    try:
        # Not the PNG reader's own, which reads all pixels for a note that may stand behind them.
        number = PIL.Image.Image.getexif(image).get(ORIENTATION, 1)
        return int(number) if number in TURNS else 1
    except Exception:  # a broken note makes no broken picture
        return 1


def turn_of(image: Any) -> int:
    """The orientation that is left to follow; 1 for a TIFF file, which Pillow turns."""
    return 1 if image.format == "TIFF" else orientation(image)


def seen_size(image: Any, turn: int) -> tuple[int, int]:
    """Height and width of an open image when it is upright."""
    return (image.width, image.height) if turn >= 5 else (image.height, image.width)


def turned(image: Any, turn: int) -> Any:
    """A Pillow image, stored with this orientation, upright."""
    import PIL.Image

    return image if turn == 1 else image.transpose(PIL.Image.Transpose[TURNS[turn]])


def turned_array(array: np.ndarray, turn: int) -> np.ndarray:
    """The same for an array (H, W, ...); a view of it."""
    if turn >= 5:
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1 if turn in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if turn in (2, 3, 6, 7) else 1)
    return array[rows, columns]


def with_channels(array: np.ndarray) -> np.ndarray:
    """(H, W) as (H, W, 1); (H, W, C) as it is."""
    return array if array.ndim == 3 else array[:, :, None]
