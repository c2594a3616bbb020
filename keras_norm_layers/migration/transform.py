"""The transformations of ``ImageDataGenerator``, on the pixels: one resampling, then values.

Coordinates and sums are float64 and follow ``scipy.ndimage.affine_transform`` operation by operation, so that ties and
borders fall as they fall there. Large batches go through a compiled pass, a few images at a time on each core
(``kernels/pull.py``); the others image by image through NumPy, with the same result on every backend and nothing to
compile for each new image size. There channels lie in planes of their own, which NumPy reads fastest, and on torch its
``grid_sample`` reads them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_norm_layers.kernels import pull
from keras_norm_layers.kernels.memory import aligned_empty
from keras_norm_layers.migration.coordinates import coordinates, moves, pull_matrix

FILL_MODES = pull.FILL_MODES
# SciPy knows more modes, and splines of higher order: these it does itself.
SCIPY_FILL_MODES = ("mirror", "grid-constant", "grid-mirror", "grid-wrap")
# Rows are taken in blocks of so many pixels, whose arrays stay in the cache: few arrays where a library reads them.
BLOCK_PIXELS, LIBRARY_PIXELS = 1 << 14, 1 << 16
GROUP_VALUES = 2 << 17  # about so many at a time: from one step to the next they stay in the cache of a core
PARALLEL_VALUES = 1 << 17  # a batch of fewer values is done before threads have started


class Memory:
    """Arrays that are used again for each image: on a CPU new memory costs more time than the arithmetic."""

    def __init__(self) -> None:
        self._rooms: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = "float64") -> np.ndarray:
        """An array in the room of this name, with whatever was there."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = self._rooms.get(name)
        if room is None or len(room) < size:
            room = self._rooms[name] = aligned_empty((size,), "uint8")
        return room[:size].view(dtype).reshape(shape)

    def cast(self, image: np.ndarray, dtype: Any) -> np.ndarray:
        """An image in another dtype; itself, if it has that."""
        if image.dtype == dtype:
            return image
        array = self.array("cast", image.shape, dtype)
        array[...] = image
        return array


def transform_batch(
    images: np.ndarray,
    parameters: Sequence[dict[str, Any]],
    dtype: Any,
    numbers: Sequence[int] | np.ndarray | None = None,
    after: Callable[[np.ndarray], None] | None = None,
    **settings: Any,
) -> np.ndarray:
    """Each image (N, ...) transformed by its own parameters, in ``dtype``; large batches on all cores.

    ``numbers`` says which images are meant, one for each of the parameters; None means all. ``after`` changes batches
    of one transformed image in place. ``settings`` are those of ``transform``.
    """
    numbers = range(len(images)) if numbers is None else numbers
    out = aligned_empty((len(numbers), *images.shape[1:]), dtype)
    compiled = runs_compiled(out, parameters, **settings)
    size = max(1, round(GROUP_VALUES / out[0].size)) if compiled else 1
    height, width = out.shape[1:3]
    rows: Any = _numbers(parameters, height, width, settings.get("cval", 0.0)) if compiled else None

    def some(groups: range) -> None:
        memory = Memory()
        for group in groups:
            part = slice(group * size, min((group + 1) * size, len(out)))
            chosen = [images[number] for number in numbers[part]]
            if compiled:
                _compiled(chosen, parameters[part], rows[part], out[part], size, memory, **settings)
            else:
                _one_by_one(chosen, parameters[part], out[part], memory, **settings)
            if after is not None:
                each(after, out, range(part.start, part.stop))

    in_parallel(some, -(-len(out) // size), out.size)
    return out


def _one_by_one(
    images: Sequence[np.ndarray],
    parameters: Sequence[dict[str, Any]],
    out: np.ndarray,
    memory: Memory,
    channels_first: bool = False,
    **settings: Any,
) -> None:
    """Images transformed into ``out`` by NumPy."""
    for image, drawn, target in zip(images, parameters, out):
        image = memory.cast(image, out.dtype)
        _copy(transform(image, drawn, channels_first=channels_first, memory=memory, **settings), target, channels_first)


def _copy(image: np.ndarray, target: np.ndarray, channels_first: bool) -> None:
    """Copies an image: plane by plane, if it lies in planes, which is several times faster than all at once."""
    if image.flags.c_contiguous:
        target[...] = image
        return
    axes = (0, 1, 2) if channels_first else (2, 0, 1)
    for source, plane in zip(image.transpose(axes), target.transpose(axes)):
        plane[...] = source


def runs_compiled(
    batch: np.ndarray,
    parameters: Sequence[dict[str, Any]],
    channels_first: bool = False,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> bool:
    """True for what is worth a compiled pass and what it can do: large batches of float32 that are resampled, all of
    them with the same steps. ``batch`` is where the result will be.
    """
    steps = {(p.get("channel_shift_intensity") is None, p.get("brightness") is None) for p in parameters}
    return (
        batch.dtype == np.float32
        and not channels_first
        and order <= 1
        and fill_mode in FILL_MODES
        and len(steps) == 1
        and any(map(moves, parameters))
        and pull.compiles(batch.size)
    )


def _compiled(
    images: Sequence[np.ndarray],
    parameters: Sequence[dict[str, Any]],
    rows: np.ndarray,
    out: np.ndarray,
    size: int,
    memory: Memory,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
    channels_first: bool = False,
) -> None:
    """Up to ``size`` images transformed into ``out`` by the compiled pass; ``rows`` are their ``_numbers``.

    Channels come last: see ``runs_compiled``.
    The pass always takes ``size`` images, so it is compiled once; nobody looks at those that are not there.
    """
    height, width, channels = out.shape[1:]
    kind = "uint8" if images[0].dtype == np.uint8 else "float32"  # bytes are cheapest to read
    source = memory.array("source", (size, height, width, channels), kind)
    numbers = memory.array("numbers", (size, rows.shape[1]))
    numbers[: len(images)], numbers[len(images) :] = rows, 0.0
    for i, image in enumerate(images):
        source[i] = image
    shifts, brightens = (parameters[0].get(name) is not None for name in ("channel_shift_intensity", "brightness"))
    seen, done = pull.program(height, width, fill_mode, order, shifts, brightens)(source, numbers)
    for i in range(len(images)):
        if done[i]:
            _copy(seen[i], out[i], channels_first)
        else:
            image = images[i].astype("float32")
            out[i] = transform(image, parameters[i], fill_mode=fill_mode, cval=cval, order=order)


def _numbers(parameters: Sequence[dict[str, Any]], height: int, width: int, cval: float) -> np.ndarray:
    """What ``pull.program`` takes of each image."""

    def given(name: str, otherwise: float) -> list[float]:
        values = [drawn.get(name) for drawn in parameters]
        return [otherwise if value is None else value for value in values]

    colors = [[cval] * len(parameters), given("channel_shift_intensity", 0.0), given("brightness", 1.0)]
    return np.concatenate([coordinates(parameters, height, width), np.array(colors).T], 1)


def each(change: Callable[[np.ndarray], None], batch: np.ndarray, numbers: range) -> None:
    """Changes these images of a batch in place, each as a batch of one."""
    for i in numbers:
        change(batch[i : i + 1])


def in_parallel(some: Callable[[range], None], count: int, values: int) -> None:
    """Calls ``some`` with ranges that make 0, 1, ..., count - 1: one for each core if there are enough ``values``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = min(cores, count) if values >= PARALLEL_VALUES else 1
    if parts < 2:
        some(range(count))
        return
    # New threads for each batch: a pool that is kept would be missing in a forked worker.
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(some, [range(part, count, parts) for part in range(parts)]))


def transform(
    image: np.ndarray,
    parameters: dict[str, Any],
    *,
    channels_first: bool = False,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
    memory: Memory | None = None,
) -> np.ndarray:
    """An image with the affine map, the channel shift, the flips and the brightness of ``parameters``.

    Args:
        image: array (H, W, C), or (C, H, W) for ``channels_first``. It is not changed.
        parameters: what ``ImageDataGenerator.get_random_transform`` gives; what is missing changes nothing.
        channels_first: where the channels are.
        fill_mode, cval, order: as in ``scipy.ndimage.affine_transform``.
        memory: what the result may be in; None makes it the caller's own.
    """
    memory = memory or Memory()
    planes = image if channels_first else image.transpose(2, 0, 1)
    matrix = pull_matrix(parameters, planes.shape[1], planes.shape[2])
    if matrix is not None:
        planes = resample(planes, matrix, fill_mode, cval, order, memory)
    # The image itself must not change; what was resampled may.
    own = matrix is not None and planes.dtype.kind == "f"
    shift = parameters.get("channel_shift_intensity")
    if shift is not None:
        low, high = planes.min(), planes.max()
        planes = np.add(planes, shift, out=planes if own else None)
        own = True
        np.clip(planes, low, high, out=planes)
    if parameters.get("brightness") is not None:
        planes = enhance(planes, parameters["brightness"], own)
    # Values do not depend on places: flipped last, what is done before runs along memory.
    if parameters.get("flip_horizontal", False):
        planes = planes[:, :, ::-1]
    if parameters.get("flip_vertical", False):
        planes = planes[:, ::-1]
    return planes if channels_first else planes.transpose(1, 2, 0)


def resample(
    planes: np.ndarray, matrix: np.ndarray, fill_mode: str, cval: float, order: int, memory: Memory
) -> np.ndarray:
    """Planes (C, H, W) read through ``matrix``: SciPy's ``affine_transform`` of each, in their dtype."""
    if order > 1 or fill_mode not in FILL_MODES:
        return _by_scipy(planes, matrix, fill_mode, cval, order)
    _, height, width = planes.shape
    out = memory.array("out", planes.shape, planes.dtype)
    kernel = pull.plane_reader() if order == 1 and planes.dtype.kind == "f" and fill_mode != "wrap" else None
    read = _library_reader(kernel, planes, fill_mode) if kernel else _numpy_reader(planes, fill_mode, order, memory)
    # SciPy starts with the offset, and adds row and column to it: the same order gives the same bits.
    down = [matrix[axis, 2] + matrix[axis, 0] * np.arange(height)[:, None] for axis in (0, 1)]
    right = [matrix[axis, 1] * np.arange(width) for axis in (0, 1)]
    lines = max(1, (LIBRARY_PIXELS if kernel else BLOCK_PIXELS) // max(1, width))
    for top in range(0, height, lines):
        block = slice(top, top + lines)
        y, x = ((down[axis][block], right[axis]) for axis in (0, 1))
        read(y, x, memory.array("places", (2, len(y[0]), width)), out[:, block])
        if fill_mode == "constant":
            outside = _outside(np.add(*y), height) | _outside(np.add(*x), width)
            out[:, block][:, outside] = as_dtype(np.asarray(cval, "float64"), planes.dtype)
    return out


def _outside(place: np.ndarray, size: int) -> np.ndarray:
    return (place < 0) | (place > size - 1)


def _library_reader(kernel: Callable[..., np.ndarray], planes: np.ndarray, fill_mode: str) -> Callable[..., None]:
    """What ``_numpy_reader`` gives, by ``pull.plane_reader``; not for "wrap"."""
    source = planes.astype("float64")

    def read(y: Any, x: Any, places: np.ndarray, out: np.ndarray) -> None:
        for place, (rows, columns), size in zip(places, (x, y), (planes.shape[2], planes.shape[1])):
            scale = 2.0 / size  # from -1 to 1, border to border
            np.add(rows * scale + (0.5 * scale - 1.0), columns * scale, out=place)
        out[...] = kernel(source, places, fill_mode == "reflect")

    return read


def _numpy_reader(planes: np.ndarray, fill_mode: str, order: int, memory: Memory) -> Callable[..., None]:
    """A function that reads planes (C, H, W) into an array (C, h, w), at coordinates y and x.

    Each of them is a pair of arrays (h, 1) and (w,), to be added; in ``places`` (2, h, w) there is room for the sums.
    """
    channels, height, width = planes.shape
    # The last row and column twice: the last pixel has neighbours too, which weigh nothing.
    source = memory.array("source", (channels, height + 1, width + 1))
    source[:, :-1, :-1] = planes
    source[:, -1, :-1] = planes[:, -1]
    source[..., -1] = source[..., -2]
    flat, read_at = source.reshape(channels, -1), _linear if order else _nearest

    def read(y: Any, x: Any, places: np.ndarray, out: np.ndarray) -> None:
        for place, (rows, columns), side in zip(places, (y, x), (height, width)):
            np.add(rows, columns, out=place)
            if fill_mode in ("constant", "nearest"):
                np.clip(place, 0.0, side - 1.0, out=place)
            else:
                place[...] = pull.fold(np, place, side, fill_mode)
        size = places.shape[1:]
        corners, work = memory.array("corners", size, np.intp), memory.array("work", (3, *size))
        read_at(flat, width + 1, places[0], places[1], corners, work, out)

    return read


def _linear(source: Any, pitch: int, y: Any, x: Any, place: Any, work: Any, out: np.ndarray) -> None:
    """Bilinear readings of planes whose rows are ``pitch`` long, at coordinates inside. Changes all but the source."""
    upper, lower, end = work
    corner, left = np.floor(y, out=upper), np.floor(x, out=lower)
    y -= corner
    x -= left
    corner *= pitch
    corner += left
    place[...] = corner
    for plane, target in zip(source, out):
        for step, line in ((0, upper), (pitch, lower)):
            plane[step:].take(place, mode="clip", out=line)
            plane[step + 1 :].take(place, mode="clip", out=end)
            end -= line
            end *= x
            line += end
        lower -= upper
        lower *= y
        if target.dtype.kind == "f":
            np.add(upper, lower, out=target, casting="same_kind")
        else:
            target[...] = as_dtype(upper + lower, target.dtype)


def _nearest(source: Any, pitch: int, y: Any, x: Any, place: Any, work: Any, out: np.ndarray) -> None:
    """The same with the nearest pixels; a tie goes down and right."""
    for place_on_axis in (y, x):
        place_on_axis += 0.5
        np.floor(place_on_axis, out=place_on_axis)
    y *= pitch
    y += x
    place[...] = y
    for plane, target in zip(source, out):
        target[...] = as_dtype(plane.take(place, mode="clip", out=work[0]), target.dtype)


def as_dtype(values: np.ndarray, dtype: Any) -> np.ndarray:
    """float64 values in another dtype; integers are rounded, half away from zero, and saturate."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "iu":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    return np.clip(np.trunc(values + np.copysign(0.5, values)), info.min, info.max).astype(dtype)


def _by_scipy(planes: np.ndarray, matrix: np.ndarray, fill_mode: str, cval: float, order: int) -> np.ndarray:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ImportError(
            f"ImageDataGenerator: interpolation_order={order} with fill_mode={fill_mode!r} is done by SciPy: pip "
            f"install keras-norm-layers[migration]. Orders 0 and 1 with fill modes {FILL_MODES} need nothing."
        ) from error
    turned, offset = matrix[:2, :2], matrix[:2, 2]
    return np.stack(
        [ndimage.affine_transform(plane, turned, offset, order=order, mode=fill_mode, cval=cval) for plane in planes]
    )


def enhance(planes: np.ndarray, factor: float, own: bool = False) -> np.ndarray:
    """Planes (C, H, W) as 8-bit images whose brightness Pillow multiplied by ``factor``; float32. ``own``: they may be
    written over.

    Values are cut to whole numbers and multiplied, the product is cut again and ends at 255. An image with values
    outside [0, 255] is stretched to 0..255 by its own minimum and maximum before, and back after. Of four channels the
    last is the opacity, which keeps its value.
    """
    low, high = planes.min(), planes.max()
    stretch = low < 0 or high > 255
    values = planes.astype("float32", copy=False)
    if stretch:
        values = values - values.min()
        top = values.max()
        if top != 0:
            values /= top
        values *= 255
    values = np.trunc(values, out=values if (own or stretch) and values.dtype == np.float32 else None)
    bright = values[:3] if len(values) == 4 else values
    bright *= np.float32(factor)
    np.trunc(bright, out=bright)
    np.clip(bright, 0, 255, out=bright)
    return values / 255 * (high - low) + low if stretch else values
