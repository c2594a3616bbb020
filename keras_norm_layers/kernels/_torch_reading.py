"""Reading pixels on torch: by indices for its compiler, by its own kernels in eager code, by slices where pixels move
as a whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from keras_norm_layers.kernels import resample
from keras_norm_layers.kernels._torch_passes import by_threads, group_size, image_writer, new_like

# From this many pixels an image on, its own slice is copied faster than its pixels are gathered.
COPY_FROM = 1 << 10
EXACT = 1e-5  # so far a sine may be from 0 or 1 in a turn by quarters


def read_pixels(images: Any, rows: Any, columns: Any) -> Any:
    """The pixels of each image at int32 ``rows`` and ``columns`` (N, H, W): (N, H, W, C), one index a pixel."""
    n, height, width, channels = images.shape
    numbers = torch.arange(n, dtype=torch.int32, device=images.device)[:, None, None]
    if not torch.compiler.is_compiling():  # rows of a table: torch's fastest way to read many of them
        places = (numbers * height + rows) * width + columns
        return torch.nn.functional.embedding(places, images.reshape(n * height * width, channels))
    planes = read_each(images, [(rows, columns)])[0]
    return torch.stack(planes, 1).permute(0, 2, 3, 1).to(images.dtype)


def read_each(images: Any, places: list[tuple[Any, Any]]) -> list[Any]:
    """The pixels at several places (rows, columns), each as ``read_pixels`` gives them; while the compiler reads, each
    as a list of its channels (N, H, W): along a row of one channel it vectorizes, over three it does not.
    """
    if not torch.compiler.is_compiling():
        return [read_pixels(images, rows, columns) for rows, columns in places]
    _, height, width, _ = images.shape
    # The clamp keeps what came from NaN inside.
    return _gathered(images, [(rows * width + columns).clamp(0, height * width - 1) for rows, columns in places])


def read_squares(images: Any, rows: Any, columns: Any, below: int, right: int) -> tuple[list[Any], Any, Any]:
    """The pixels at ``rows`` and ``columns``, ``right`` of them, ``below`` them, and both, like ``read_each``; and the
    rows and columns again, for other backends round anew.
    """
    _, height, width, _ = images.shape
    if not torch.compiler.is_compiling():
        places = [(rows + down, columns + across) for down in (0, below) for across in (0, right)]
        return read_each(images, places), rows, columns
    down = below * width
    corner = (rows * width + columns).clamp(0, height * width - 1 - down - right)
    return _gathered(images, [corner + step for step in (0, right, down, down + right)]), rows, columns


def _gathered(images: Any, places: list[Any]) -> list[Any]:
    """The channels of the pixels with these numbers (N, H, W) in their image: a list of lists, for the compiler."""
    n, height, width, channels = images.shape
    numbers = torch.arange(n, dtype=torch.int32, device=images.device)[:, None, None]
    if images.dtype != torch.uint8 or images.device.type != "cpu" or not 1 < channels <= 4:
        flat = images.reshape(n, height * width, channels)
        return [[_read(flat[..., i], numbers, place) for i in range(channels)] for place in places]
    # The bytes of a pixel as one word: on a CPU an index costs more than all the arithmetic.
    words = _words(images).reshape(n, height * width)
    pixels = [_read(words, numbers, place) for place in places]
    return [[_byte(pixel, i, channels) for i in range(channels)] for pixel in pixels]


def _read(table: Any, numbers: Any, places: Any) -> Any:
    """``table[numbers, places]`` without a check of each index, for the compiler: so it vectorizes."""
    read = getattr(torch.ops.aten, "_unsafe_masked_index", None)
    if table.device.type != "cpu" or table.requires_grad or read is None:
        return torch.ops.aten._unsafe_index(table, [numbers, places])
    # Without a mask the compiler makes 64 bits of each index, and looks for negative ones.
    return read(table, torch.ones_like(places, dtype=torch.bool), [numbers, places], 0)


def _byte(words: Any, number: int, count: int) -> Any:
    """One byte of each of these words, int32, which hold ``count`` of them, the first one lowest."""
    shifted = words >> (8 * number) if number else words
    return shifted if number == count - 1 and count < 4 else shifted & 255


def _words(images: Any) -> Any:
    """The channels of each pixel, bytes (N, H, W, C), in one int32 (N, H, W), the first one lowest."""
    halves = []
    for half in images.tensor_split(2, dim=1):
        bytes_ = half.to(torch.int32)
        word = bytes_[..., 0]
        for i in range(1, images.shape[-1]):
            word = word | (bytes_[..., i] << (8 * i))
        halves.append(word)
    # The compiler writes to memory what is put together; else it would put each word together where it is read.
    return torch.cat(halves, 1)


def grid_sample(images: Any, x: Any, y: Any, fill_mode: str, fill_value: float) -> Any:
    """Bilinear reading of (N, H, W, C) images at coordinates (N, H, W) counted from the border: torch's own kernel."""
    _, height, width, _ = images.shape

    def part(here: slice) -> Any:
        grid = torch.stack([x[here] * (2.0 / width) - 1.0, y[here] * (2.0 / height) - 1.0], 1)
        return _sample(images[here], grid, fill_mode, fill_value)

    return _in_parts(part, images, (x.shape[1], x.shape[2]), learns=x.requires_grad or y.requires_grad)


def affine_sample(images: Any, inverse: Any, outside: tuple[int, int], fill_mode: str, fill_value: float) -> Any:
    """The same at the places to which affine maps (N, 3, 3), centred and in pixels, bring an output of size
    ``outside``.
    """
    _, height, width, _ = images.shape
    # Torch counts from -1 to 1, border to border. A row and a column of products, and one sum for each pixel.
    m = inverse[:, :2] * torch.tensor([[2.0 / width], [2.0 / height]], device=inverse.device)
    y, x = (torch.arange(n, dtype=torch.float32, device=inverse.device) - 0.5 * (n - 1) for n in outside)
    stays = None
    if tuple(outside) == (height, width) and images.device.type == "cpu":  # elsewhere, to ask would stop the device
        stays = (inverse == torch.eye(3)).flatten(1).all(1)

    def part(here: Any) -> Any:
        across, down, shift = (m[here][:, :, i, None, None] for i in range(3))
        grid = x[None, None, None, :] * across + (y[None, None, :, None] * down + shift)
        return _sample(_taken(images, here), grid, fill_mode, fill_value)

    def write(result: Any, rows: Any) -> bool:
        bytes_ = images.dtype == torch.uint8 and 1 < images.shape[3] <= 4  # which the compiler reads as words
        key = (tuple(outside), fill_mode, fill_value)
        read = functools.partial(resample.warp, fill_mode=fill_mode, fill_value=fill_value, size=outside)
        program = image_writer(key, images, read) if bytes_ else None
        if program is None:
            return False
        rows_of = [tensor.split(1) for tensor in (result, images, inverse)]
        by_threads(lambda row: program(*(tensor[row] for tensor in rows_of)), rows.tolist(), program)
        return True

    return _in_parts(part, images, outside, learns=inverse.requires_grad, stays=stays, write=write)


def _in_parts(
    part: Callable[[Any], Any],
    images: Any,
    outside: tuple[int, int],
    learns: bool,
    stays: Any = None,
    write: Callable[[Any, Any], bool] | None = None,
) -> Any:
    """``part`` of all images, (N, H, W, C) of size ``outside``, in float32; those that ``stays`` (N,) names come out as
    they are. On a CPU a few at a time, but enough for all threads: what lies between its steps then stays in the cache,
    and takes memory that was used before. ``write(result, rows)`` may do the others faster, and says whether it did.
    """
    count, size = len(images), max(group_size(images), torch.get_num_threads())
    if images.device.type != "cpu" or count <= size or learns or images.requires_grad:
        return part(slice(None)).to(torch.float32)
    one = torch.empty((0, images.shape[3], *outside)).permute(0, 2, 3, 1)  # as torch's kernel gives them
    result = new_like(one, count)
    stays = torch.zeros(count, dtype=torch.bool) if stays is None else stays
    for here in torch.nonzero(stays)[:, 0].split(size):
        planes = _taken(images, here).permute(0, 3, 1, 2).contiguous()  # both at once, order and dtype, is slower
        _put(result, here, planes.permute(0, 2, 3, 1))
    moved = torch.nonzero(~stays)[:, 0]
    if write is not None and write(result, moved):
        return result
    if len(moved) == count:
        for start in range(0, count, size):
            here = slice(start, start + size)
            result[here].copy_(part(here))
        return result
    for here in moved.split(size):
        _put(result, here, part(here))
    return result


def _taken(images: Any, rows: Any) -> Any:
    """``images[rows]`` of a slice or of numbers, which torch takes faster by ``index_select``."""
    return images[rows] if isinstance(rows, slice) else images.index_select(0, rows)


def _put(result: Any, rows: Any, images: Any) -> None:
    """``result[rows] = images``; large images, of which a few are read at a time, one by one: that is faster."""
    if len(rows) > 8:
        result[rows] = images.to(result.dtype)
        return
    for row, image in zip(rows.tolist(), images):
        result[row].copy_(image)


def _sample(images: Any, grid: Any, fill_mode: str, fill_value: float) -> Any:
    """Images (N, H, W, C) at the places of a grid (N, 2, h, w): x and y, from -1 to 1, each in a plane of its own."""
    padding = {"constant": "zeros", "nearest": "border", "reflect": "reflection"}[fill_mode]
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    shifted = planes - fill_value if fill_mode == "constant" and fill_value != 0 else planes
    result = torch.nn.functional.grid_sample(
        shifted, grid.permute(0, 2, 3, 1), "bilinear", padding, align_corners=False
    )
    if shifted is not planes:
        result = result + fill_value
    return result.permute(0, 2, 3, 1)


def copy_exactly(images: Any, inverse: Any, outside: tuple[int, int], dtype: str | None = None) -> Any:
    """Images (N, H, W, C) seen through maps (N, 3, 3) that only mirror, turn by quarters and shift by whole pixels, or
    None where a map does more, or looks beyond the border: slice by slice, in the speed of a copy; cast to ``dtype``.
    """
    n, *inside, channels = images.shape
    if images.requires_grad or images.device.type != "cpu" or outside[0] * outside[1] < COPY_FROM or not n:
        return None
    try:
        maps = inverse[:, :2].detach().numpy()
    except RuntimeError:  # in ``torch.func.grad`` or ``vmap`` a tensor has no memory
        return None
    places = _exact_places(maps, inside, outside)
    if places is None:
        return None
    wanted = images.dtype if dtype is None else getattr(torch, dtype)
    result = new_like(torch.empty((0, *outside, channels), dtype=wanted), n)
    for image, out, (x, y), (to_x, to_y), turn, (left, up) in zip(images, result, *places):
        part = image[y:to_y, x:to_x]
        axes = [axis for axis, back in ((0, up), (1, left)) if back]
        part = part.flip(axes) if axes else part
        out.copy_(part.transpose(0, 1) if turn else part)
    return result


def _exact_places(maps: np.ndarray, inside: list[int], outside: tuple[int, int]) -> list[Any] | None:
    """For each of the maps (N, 2, 3): the first column and row that are seen, the ones behind the last, whether they
    are turned, and whether they are seen from right to left and from below; None where ``copy_exactly`` can do nothing.
    """
    maps = np.where(np.isfinite(maps), maps, 0.5).astype("float64")  # half a pixel is not exact
    linear = np.round(maps[:, :, :2])
    corner, middle = (np.array([(side - 1) / 2 for side in size[::-1]]) for size in (outside, inside))
    first = middle + maps[:, :, 2] - linear @ corner
    last = first + linear @ (2.0 * corner)
    start, end = np.round(first), np.round(last)
    lowest, highest = np.minimum(start, end), np.maximum(start, end) + 1.0
    if not ((lowest >= 0.0).all() and (highest <= inside[::-1]).all()):
        return None
    exact = np.abs(maps[:, :, :2] - linear).max() < EXACT and np.abs(first - start).max() < 100 * EXACT
    steps = np.abs(linear)
    if not exact or (steps.sum(2) != 1.0).any() or (steps.sum(1) != 1.0).any():
        return None
    bounds = (edge.astype("int64").tolist() for edge in (lowest, highest))
    return [*bounds, (linear[:, 0, 0] == 0.0).tolist(), (start > end).tolist()]


def read_planes(planes: Any, places: Any, mirrored: bool) -> Any:
    """Bilinear readings of planes (C, H, W), by one thread: (C, h, w). All arrays are NumPy's, float64.

    ``places`` (2, h, w) are x and y, counted from -1 to 1, border to border. Beyond it lies its last pixel, or the
    image ``mirrored``.
    """
    source, grid = torch.from_numpy(planes)[None], torch.from_numpy(places).permute(1, 2, 0)[None]
    with torch.no_grad():
        beyond = "reflection" if mirrored else "border"
        return torch.nn.functional.grid_sample(source, grid, "bilinear", beyond, align_corners=False)[0].numpy()
