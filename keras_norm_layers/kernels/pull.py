"""The affine map and the colours of ``ImageDataGenerator`` for a batch of images, in one compiled pass.

As ``scipy.ndimage.affine_transform``: coordinates are float64 sums of a row's and a column's part, and so are weighted
sums, for a value that is cut to 8 bits afterwards has to fall on the same side. ``fold`` serves NumPy too.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import sys
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
        low = place + period * xp.floor(-place / period)
        high = place - period * xp.floor(place / period)
        low = xp.where(low < -size, low + period, -low - 1.0)
        high = xp.where(high >= size, period - high - 1.0, high)
        place = xp.where(place < 0.0, low, xp.where(place > last, high, place))
    return xp.clip(place, 0.0, last)


def program(height: int, width: int, fill_mode: str, order: int, shifts: bool, brightens: bool) -> Callable[..., Any]:
    """The compiled pass for images of one size, on the library of the Keras backend: NumPy in, NumPy out.

    The function it returns takes (images, y_rows, y_columns, x_rows, x_columns, cval, shift, factor): images
    (N, H, W, C); the coordinate y of an output pixel is y_rows (N, H) + y_columns (N, W), float64, and so for x; the
    others are numbers an image, float32 (N,). It gives float32 (N, H, W, C) and (N,): whether an image is done. It is
    not if it has values outside [0, 255] and a brightness: its stretch to 8 bits is left to NumPy, for compilers divide
    as they please.
    """
    name = keras.backend.backend()
    xp = namespace_named(name)
    call = _compiled(name, height, width, fill_mode, order, shifts, brightens)

    def run(images: np.ndarray, *arguments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with _float64(name):
            tensors = [xp.asarray(array) for array in (images, *arguments)]
            images, done = (np.asarray(result) for result in call(*tensors))
        return (images if images.flags.writeable else images.copy()), done

    return run


def is_available() -> bool:
    """True where a compiler makes one loop of the pass: on TensorFlow with XLA, and on JAX.

    Not in a process that another one started to work for it: there these libraries may hang, or take its device.
    """
    name = keras.backend.backend()
    if multiprocessing.parent_process() is not None:
        return False
    return name == "jax" or (name == "tensorflow" and namespace_named(name).xla_works())


def _float64(name: str) -> Any:
    """A context in which JAX has 64 bits; the others always have."""
    if name != "jax":
        return contextlib.nullcontext()
    jax = sys.modules["jax"]
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


@functools.lru_cache(maxsize=64)
def _compiled(name: str, *settings: Any) -> Callable[..., Any]:
    xp = namespace_named(name)

    def whole(images: Any, y_rows: Any, y_columns: Any, x_rows: Any, x_columns: Any, *colour: Any) -> Any:
        height, width, fill_mode, order, shifts, brightens = settings
        y = y_rows[:, :, None] + y_columns[:, None, :]
        x = x_rows[:, :, None] + x_columns[:, None, :]
        cval, shift, factor = (number[:, None, None, None] for number in colour)
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
            return seen, y_rows[:, 0] == y_rows[:, 0]
        levels = xp.floor(seen)
        bright = xp.floor(xp.clip(levels * factor, 0.0, 255.0))
        if seen.shape[-1] == 4:  # the opacity stays
            bright = xp.concat([bright[..., :3], levels[..., 3:]], 3)
        return bright, xp.reshape((low >= 0.0) & (high <= 255.0), (-1,))

    return xp.compiled(whole)


def _read(xp: Any, images: Any, y: Any, x: Any, size: tuple[int, int], fill_mode: str, order: int) -> Any:
    """The images at coordinates (N, H, W), float32."""
    height, width = size
    y, x = fold(xp, y, height, fill_mode), fold(xp, x, width, fill_mode)
    if order == 0:
        rows, columns = (xp.cast(xp.floor(place + 0.5), "int32") for place in (y, x))
        return xp.cast(xp.read_pixels(images, rows, columns), "float32")
    row, column = (xp.minimum(xp.floor(place), max(n - 2.0, 0.0)) for place, n in ((y, height), (x, width)))
    down, right = (y - row)[..., None], (x - column)[..., None]
    corners = xp.read_squares(
        images, xp.cast(row, "int32"), xp.cast(column, "int32"), min(1, height - 1), min(1, width - 1)
    )
    here, beside, below, across = (xp.cast(corner, "float64") for corner in corners)
    upper, lower = here + right * (beside - here), below + right * (across - below)
    return xp.cast(upper + down * (lower - upper), "float32")
