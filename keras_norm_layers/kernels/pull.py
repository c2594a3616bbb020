"""The affine map and the colours of ``ImageDataGenerator``, a few images at a time, in one compiled pass.

As ``scipy.ndimage.affine_transform``: coordinates are float64 sums of a row's and a column's part, and so are weighted
sums, for a value that is cut to 8 bits afterwards has to fall on the same side. ``fold`` serves NumPy too.
"""

from __future__ import annotations

import functools
import itertools
import multiprocessing
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_norm_layers.kernels import pixels
from keras_norm_layers.kernels.backend import namespace_named

FILL_MODES = ("constant", "nearest", "reflect", "wrap")


def fold(xp: Any, place: Any, size: int, fill_mode: str) -> Any:
    """Coordinates along an axis brought into [0, size - 1], to where SciPy's mode looks for them.

    Args:
        xp: a namespace, or NumPy.
        place: float64 array or tensor, in pixels, the first one's centre 0.
        size: pixels along the axis.
        fill_mode: "constant" and "nearest" cut; "reflect" mirrors at the outer border, half a pixel beyond the centres;
            "wrap" repeats with the last pixel on the first one of the next copy.
    """
    last = size - 1.0
    if fill_mode == "wrap" and size > 1:
        # From below the border a whole number of periods leads to the last pixel, from above to the first.
        inside = place - last * xp.floor(place / last)
        below = place + last * (xp.floor(-place / last) + 1.0)
        place = xp.where(place < 0.0, below, xp.where(place > last, inside, place))
    elif fill_mode == "reflect" and size > 1:
        period = 2.0 * size
        # Near a whole number of periods a quotient may be rounded either way: both lead to the first pixel.
        whole = period * xp.floor(xp.abs(place) * (1.0 / period))
        low, high = place + whole, place - whole
        low = xp.where(low < -size, low + period, -low - 1.0)
        high = xp.where(high >= size, period - high - 1.0, high)
        place = xp.where(place < 0.0, low, xp.where(place > last, high, place))
    return xp.clip(place, 0.0, last)


def program(height: int, width: int, fill_mode: str, order: int, shifts: bool, brightens: bool) -> Callable[..., Any]:
    """The compiled pass for images of one size, by the library of the Keras backend, on the CPU: NumPy in, NumPy out.

    The function it returns takes images (N, H, W, C), uint8 or float32, and ``numbers`` (N, 2 H + 2 W + 3), float64:
    the coordinate y of an output pixel as a part of its row (H) and one of its column (W), to be added; x in the same
    way; cval, shift, factor. Both begin at multiples of 64 bytes. It gives float32 (N, H, W, C), which may not be
    written to and may lie in planes, and (N,): whether an image is done. It is not if it has values outside [0, 255]
    and a brightness: its stretch to 8 bits is left to NumPy, for compilers divide as they please.
    """
    return _compiled(keras.backend.backend(), height, width, fill_mode, order, shifts, brightens)


def compiles(values: int) -> bool:
    """Whether ``program`` works, and is worth while for batches of so many values: on TensorFlow with XLA, on JAX if it
    has the CPU among its devices, on torch with a C++ compiler.

    Not in a process that another one started to work for it: there these libraries may hang.
    """
    here = namespace_named(keras.backend.backend())
    return multiprocessing.parent_process() is None and here.compiles_on_host(values)


def plane_reader() -> Callable[..., np.ndarray] | None:
    """What reads planes without a compiler: ``_torch.read_planes`` if the Keras backend is torch; else None."""
    return namespace_named(keras.backend.backend()).read_planes


@functools.lru_cache(maxsize=64)
def _compiled(name: str, *settings: Any) -> Callable[..., Any]:
    xp = namespace_named(name)
    height, width, fill_mode, order, shifts, brightens = settings

    def whole(images: Any, numbers: Any) -> Any:
        ends = (0, height, height + width, 2 * height + width, 2 * (height + width))
        y_rows, y_columns, x_rows, x_columns = (numbers[:, i:j] for i, j in itertools.pairwise(ends))
        y = y_rows[:, :, None] + y_columns[:, None, :]
        x = x_rows[:, :, None] + x_columns[:, None, :]
        cval, shift, factor = (xp.cast(numbers[:, ends[-1] + i, None, None, None], "float32") for i in range(3))
        seen = _read(xp, images, y, x, (height, width), fill_mode, order)
        if fill_mode == "constant":
            inside = (y >= 0.0) & (y <= height - 1.0) & (x >= 0.0) & (x <= width - 1.0)
            seen = xp.where(inside[..., None], seen, cval)
        if shifts or brightens:
            seen = pixels.materialize(seen)
            low, high = (edge(seen, (1, 2, 3), keepdims=True) for edge in (xp.amin, xp.amax))
        if shifts:
            seen = xp.clip(seen + shift, low, high)
            low, high = (xp.clip(edge + shift, low, high) for edge in (low, high))
        if not brightens:
            return seen, numbers[:, 0] == numbers[:, 0]
        levels = xp.floor(seen)
        bright = xp.floor(xp.clip(levels * factor, 0.0, 255.0))
        if seen.shape[-1] == 4:  # the opacity stays
            bright = xp.concat([bright[..., :3], levels[..., 3:]], 3)
        return bright, xp.reshape((low >= 0.0) & (high <= 255.0), (-1,))

    return xp.compiled_on_host(whole)


def _read(xp: Any, images: Any, y: Any, x: Any, size: tuple[int, int], fill_mode: str, order: int) -> Any:
    """The images at coordinates (N, H, W), float32."""
    height, width = size
    y, x = fold(xp, y, height, fill_mode), fold(xp, x, width, fill_mode)
    if order == 0:
        rows, columns = (xp.cast(xp.floor(place + 0.5), "int32") for place in (y, x))
        return xp.cast(xp.read_pixels(images, rows, columns), "float32")
    row, column = (xp.minimum(xp.floor(place), max(n - 2.0, 0.0)) for place, n in ((y, height), (x, width)))
    corners, row, column = xp.read_squares(
        images, xp.cast(row, "int32"), xp.cast(column, "int32"), min(1, height - 1), min(1, width - 1)
    )
    down, right = y - xp.cast(row, "float64"), x - xp.cast(column, "float64")
    if not isinstance(corners[0], list):
        return _between(xp, corners, down[..., None], right[..., None])
    planes = [_between(xp, four, down, right) for four in zip(*corners)]  # a channel each
    return xp.transpose(xp.stack(planes, 1), (0, 2, 3, 1))


def _between(xp: Any, corners: Any, down: Any, right: Any) -> Any:
    """Bilinear readings between four pixels."""
    here, beside, below, across = (xp.cast(corner, "float64") for corner in corners)
    upper, lower = here + right * (beside - here), below + right * (across - below)
    return xp.cast(upper + down * (lower - upper), "float32")
