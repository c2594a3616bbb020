"""The namespace of torch tensors (``backend.py`` says what a namespace is)."""

from __future__ import annotations

import sys
from typing import Any, Callable

import keras
import torch

from keras_norm_layers.kernels import numpy_words
from keras_norm_layers.kernels._torch_passes import (  # noqa: F401 - of the namespace
    compiled,
    compiled_on_host,
    compiles_on_host,
    groups,
    in_groups,
    new_like,
)

floor, abs, sqrt, sin, cos, matmul = torch.floor, torch.abs, torch.sqrt, torch.sin, torch.cos, torch.matmul
round, exp, log, erfinv = torch.round, torch.exp, torch.log, torch.erfinv
COPIES_ARITHMETIC = False  # see ``pixels.materialize``
# From this many pixels an image on, its own slice is copied faster than its pixels are gathered.
COPY_FROM = 1 << 10
EXACT = 1e-5  # so far a sine may be from 0 or 1 in a turn by quarters


def asarray(x: Any, dtype: str | None = None) -> Any:
    """``x`` as a tensor on Keras's device, cast to ``dtype`` if one is given."""
    x = keras.ops.convert_to_tensor(x)
    return x if dtype is None else cast(x, dtype)


def constant(make: Callable[..., Any], *args: Any) -> Any:
    """The NumPy array of float32 that ``make(*args)`` gives, as a tensor: a constant of a compiled program."""
    return asarray(torch.tensor(_numbers(make, *args)) if fuses() else make(*args))


@torch.compiler.assume_constant_result
def _numbers(make: Callable[..., Any], *args: Any) -> list[Any]:
    return make(*args).tolist()  # numbers: the compiler refuses a program with two tensors from one function


def cast(x: Any, dtype: str) -> Any:
    """``x`` as ``dtype``, fractions cut off; for a cast that rounds and saturates see ``pixels.saturate``."""
    return x.to(getattr(torch, dtype))


def dtype_name(x: Any) -> str:
    """The name of the dtype of ``x``: "float32", "uint8", ..."""
    return str(x.dtype).removeprefix("torch.")


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of ``x``."""
    return tuple(x.shape)


def reshape(x: Any, new_shape: Any) -> Any:
    """``x`` in another shape."""
    return torch.reshape(x, tuple(new_shape))


def transpose(x: Any, axes: Any) -> Any:
    """``x`` with its axes in another order."""
    return x.permute(*axes)


def stack(tensors: Any, axis: int = 0) -> Any:
    """The tensors side by side on a new axis."""
    return torch.stack(list(tensors), dim=axis)


def concat(tensors: Any, axis: int = 0) -> Any:
    """The tensors one after the other on an axis."""
    return torch.cat(list(tensors), dim=axis)


def _pair(a: Any, b: Any) -> tuple[Any, Any]:
    like = a if isinstance(a, torch.Tensor) else b
    a, b = (
        v if isinstance(v, torch.Tensor) else torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in (a, b)
    )
    return a, b


def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``."""
    return torch.where(condition, a, b)


def minimum(a: Any, b: Any) -> Any:
    """The lesser of two, elementwise; either may be a number."""
    return torch.clamp(a, max=b) if isinstance(b, (int, float)) else torch.minimum(*_pair(a, b))


def maximum(a: Any, b: Any) -> Any:
    """The greater of two, elementwise; either may be a number."""
    return torch.clamp(a, min=b) if isinstance(b, (int, float)) else torch.maximum(*_pair(a, b))


def clip(x: Any, low: Any, high: Any, own: bool = False) -> Any:
    """``x`` cut to [low, high]; ``own``: nobody else holds it, so it may be written over."""
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return torch.clamp_(x, low, high) if own and not x.requires_grad else torch.clamp(x, low, high)
    return minimum(maximum(x, low), high)


def floor_own(x: Any) -> Any:
    """``floor`` of a tensor that nobody else holds."""
    return torch.floor(x) if x.requires_grad else torch.floor_(x)


def weighted(a: Any, of_a: Any, b: Any, of_b: Any) -> Any:
    """a * of_a + b * of_b, where nobody else holds ``a``."""
    if a.requires_grad or b.requires_grad:
        return a * of_a + b * of_b
    return a.mul_(of_a).addcmul_(b, of_b)


def where_rows(condition: Any, a: Any, b: Any) -> Any:
    """The entries (N, ...) of ``a`` where the condition (N,) holds, else those of ``b``, which nobody else holds."""
    if not on_host(b) or fuses() or b.requires_grad:
        return torch.where(condition.reshape(-1, *[1] * (b.ndim - 1)), a, b)
    rows = torch.nonzero(condition)[:, 0]
    return b.index_copy_(0, rows, a[rows]) if len(rows) else b


def shifted_sum(rows: Any, weights: list[Any], axis: int, step: int) -> Any:
    """The sum of a tensor (N, ...) moved by multiples of ``step`` along an axis, 0 coming in, each times a weight, a
    number or (N,). Added up in one new tensor.
    """
    length = rows.shape[axis]

    def product(total: Any, part: Any, weight: Any) -> Any:
        if isinstance(weight, (int, float)):
            return part * weight if total is None else total.add_(part, alpha=weight)
        weight = weight.reshape(-1, *[1] * (rows.ndim - 1))
        return part * weight if total is None else total.addcmul_(part, weight)

    total = product(None, rows, weights[len(weights) // 2])
    for number, weight in enumerate(weights):
        shift = (number - len(weights) // 2) * step
        size = length - (shift if shift > 0 else -shift)  # `abs` is torch's here
        if shift and size > 0:
            into, out_of = max(0, -shift), max(0, shift)
            product(total.narrow(axis, into, size), rows.narrow(axis, out_of, size), weight)
    return total


def _axes(x: Any, axis: Any) -> Any:
    return tuple(range(x.ndim)) if axis is None else axis


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over ``axis``."""
    return torch.sum(x, dim=_axes(x, axis), keepdim=keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean over ``axis``."""
    return torch.mean(x, dim=_axes(x, axis), keepdim=keepdims)


def amin(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The least value over ``axis``."""
    return torch.amin(x, dim=_axes(x, axis), keepdim=keepdims)


def amax(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The greatest value over ``axis``."""
    return torch.amax(x, dim=_axes(x, axis), keepdim=keepdims)


def arange(n: Any, dtype: str, like: Any) -> Any:
    """0, 1, ..., n - 1, on the device of ``like``."""
    return torch.arange(n, dtype=getattr(torch, dtype), device=like.device)


def reverse(x: Any, axis: int) -> Any:
    """``x`` with the order along an axis reversed."""
    return torch.flip(x, (axis,))


def tile(x: Any, times: int) -> Any:
    """A vector repeated."""
    return x.repeat(times)


def broadcast_to(x: Any, new_shape: Any) -> Any:
    """``x`` repeated to ``new_shape``."""
    return torch.broadcast_to(x, tuple(new_shape))


def correlate(images: Any, kernel: Any) -> Any:
    """Images (N, H, W, C) and a ``kernel`` (h, w, C, out), where it lies inside: (N, H - h + 1, W - w + 1, out)."""
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        result = torch.nn.functional.conv2d(images.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1))
    return result.permute(0, 2, 3, 1)


def again(times: int, step: Callable[[Any], Any], state: Any) -> Any:
    """``step`` of ``step`` of ... a tensor."""
    for _ in range(times):
        state = step(state)
    return state


def argsort(x: Any) -> Any:
    """The order that sorts a vector; equal values stay in theirs."""
    return torch.argsort(x, stable=True)


def take(x: Any, indices: Any) -> Any:
    """The entries of ``x`` (N, ...) at these places of its first axis."""
    return x[indices]


def cumsum(x: Any, axis: int) -> Any:
    """The sums of all entries up to each, along an axis."""
    return torch.cumsum(x, axis)


def histograms(places: Any, size: int, gate: Any) -> Any:
    """How often each of 0, 1, ..., size - 1 stands in each channel of int32 images (N, H, W, C), where ``gate`` (N,) is
    1: float32 (N, C, size), and 0 elsewhere, where that saves time. No entry may lie outside.

    On a CPU those alone are counted whose gate is open; elsewhere, to ask how many they are would stop the device.
    """
    n, _, _, channels = places.shape
    cells = torch.arange(n * channels, dtype=torch.int32, device=places.device).reshape(n, 1, 1, channels) * size
    cells = places + cells
    if places.device.type == "cpu" and not fuses():
        cells = cells[gate > 0.5]
    ones = torch.ones((), device=places.device).expand(cells.numel())
    counted = torch.zeros(n * channels * size, device=places.device).index_add_(0, cells.reshape(-1), ones)
    return counted.reshape(n, channels, size)


def change_some(changes: list[Any], images: Any, own: bool) -> Any:
    """Several changes, one after the other: ``change(values, images)`` where ``gate`` (N,) is 1, the images (N, ...) as
    they are elsewhere, computed only for those, and written over them where they are our ``own``.

    ``changes`` are (gate, values, change); ``values`` are tensors (N, ...). Returns the images, and whether they are
    our own now.
    """
    for gate, values, change in changes:
        images, own = _change_some(gate, values, change, images, own)
    return images, own


def _change_some(gate: Any, values: dict[str, Any], change: Callable[..., Any], images: Any, own: bool) -> Any:
    if fuses():
        return change(values, images), False  # a closed gate is the identity
    rows = torch.nonzero(gate > 0.5)[:, 0]
    if not len(rows):
        return images, own
    if len(rows) == len(images):
        return change(values, images), False
    changed = change({name: value[rows] for name, value in values.items()}, images[rows])
    if own and not images.requires_grad and not changed.requires_grad:
        return images.index_copy_(0, rows, changed), True
    return images.index_copy(0, rows, changed), True


def fill_where(mask: Any, images: Any, fill: Callable[[Any, Any], Any]) -> Any:
    """The images (N, H, W, C), and where the mask (N, H, W, 1) holds what ``fill`` gives for numbers of images and of
    values in them, two integer tensors (K, 1) and (K, C): computed for these alone.
    """
    n, _, _, channels = images.shape
    rows, places = torch.nonzero(mask.reshape(n, -1), as_tuple=True)
    numbers = places[:, None] * channels + torch.arange(channels, device=images.device)
    filled = fill(rows[:, None], numbers)
    return images.reshape(n, -1, channels).index_put((rows, places), filled).reshape(images.shape)


def look_up(table: Any, places: Any) -> Any:
    """The entries of a vector at int32 places of any shape; none may lie outside."""
    return torch.index_select(table, 0, places.reshape(-1)).reshape(places.shape)


def repeat(x: Any, times: Any) -> Any:
    """Each row of ``x`` so many times, one after the other."""
    return torch.repeat_interleave(x, times, dim=0)


def whole(x: Any, plus: int = 0) -> Any:
    """``x + plus``, rounded half to even, as int32."""
    return torch.round(x + plus if plus else x).to(torch.int32)


def read_pixels(images: Any, rows: Any, columns: Any) -> Any:
    """The pixels of each image at int32 ``rows`` and ``columns`` (N, H, W): (N, H, W, C), one index a pixel."""
    n, height, width, channels = images.shape
    numbers = torch.arange(n, dtype=torch.int32, device=images.device)[:, None, None]
    if not fuses():  # rows of a table: torch's fastest way to read many of them
        places = (numbers * height + rows) * width + columns
        return torch.nn.functional.embedding(places, images.reshape(n * height * width, channels))
    planes = read_each(images, [(rows, columns)])[0]
    return torch.stack(planes, 1).permute(0, 2, 3, 1).to(images.dtype)


def read_each(images: Any, places: list[tuple[Any, Any]]) -> list[Any]:
    """The pixels at several places (rows, columns), each as ``read_pixels`` gives them; while the compiler reads, each
    as a list of its channels (N, H, W): along a row of one channel it vectorizes, over three it does not.
    """
    if not fuses():
        return [read_pixels(images, rows, columns) for rows, columns in places]
    _, height, width, _ = images.shape
    # The clamp keeps what came from NaN inside.
    return _gathered(images, [(rows * width + columns).clamp(0, height * width - 1) for rows, columns in places])


def _gathered(images: Any, places: list[Any]) -> list[Any]:
    """The channels of the pixels with these numbers (N, H, W) in their image: a list of lists, for the compiler."""
    n, height, width, channels = images.shape
    numbers = torch.arange(n, dtype=torch.int32, device=images.device)[:, None, None]
    read = torch.ops.aten._unsafe_index  # without a check of each index the compiler vectorizes
    if images.dtype != torch.uint8 or images.device.type != "cpu" or not 1 < channels <= 4:
        flat = images.reshape(n, height * width, channels)
        return [[read(flat[..., i], [numbers, place]) for i in range(channels)] for place in places]
    # The bytes of a pixel as one word: on a CPU an index costs more than all the arithmetic.
    words = _words(images).reshape(n, height * width)
    pixels = [read(words, [numbers, place]) for place in places]
    return [[(pixel >> (8 * i)) & 255 for i in range(channels)] for pixel in pixels]


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


def read_squares(images: Any, rows: Any, columns: Any, below: int, right: int) -> list[Any]:
    """The pixels at ``rows`` and ``columns``, ``right`` of them, ``below`` them, and both, like ``read_each``."""
    _, height, width, _ = images.shape
    if not fuses():
        return read_each(images, [(rows + down, columns + across) for down in (0, below) for across in (0, right)])
    down = below * width
    corner = (rows * width + columns).clamp(0, height * width - 1 - down - right)
    return _gathered(images, [corner + step for step in (0, right, down, down + right)])


def affine_clip(images: Any, gain: Any, offset: Any, low: Any, high: Any, own: bool = False) -> Any:
    """min(max(gain * images + offset, low), high), any part of it None, with one new tensor instead of four, and with
    none where the images are our ``own`` to change: new memory costs more time than the arithmetic.
    """
    out = images if own and not images.requires_grad else None
    if gain is not None and offset is not None:
        result = torch.addcmul(offset, images, gain, out=out)
    elif gain is not None or offset is not None:
        result = torch.add(images, offset, out=out) if gain is None else torch.mul(images, gain, out=out)
    else:
        result = images.clone() if out is None else images
    if low is None or high is None:
        return result
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        low, high = _pair(low, high)
    return torch.clamp_(result, low, high)  # between numbers where it can be: between tensors it is slower


def hasher(seed: Any) -> Any:
    """The namespace that hashes a few words: NumPy's for eager code on the CPU."""
    return sys.modules[__name__] if fuses() or not on_host(seed) else numpy_words


def words(x: Any) -> Any:
    """``x`` as 32-bit words for integer hashing, held in int32, whose sums wrap around: torch's uint32 cannot add."""
    return x.to(torch.int32)


def add_words(a: Any, b: Any) -> Any:
    """a + b modulo 2^32."""
    return a + b


def xor_words(a: Any, b: Any) -> Any:
    """Bitwise exclusive or."""
    return a ^ b


def rotate_words(a: Any, bits: int) -> Any:
    """``a`` rotated left by ``bits``."""
    return (a << bits) | ((a >> (32 - bits)) & ((1 << bits) - 1))  # the sign moves in from the left


def unit_interval(a: Any) -> Any:
    """The top 24 bits of each word as a float32 in [0, 1)."""
    return ((a >> 8) & 0xFFFFFF).to(torch.float32) * (2.0**-24)


def on_host(x: Any) -> bool:
    """Whether ``x`` lies in the memory of the CPU and its values can be looked at, in eager code."""
    return x.device.type == "cpu"


def fuses() -> bool:
    """True while ``torch.compile`` reads the code: then plain indexing is fastest, and ``grid_sample`` is not."""
    return torch.compiler.is_compiling()


def grid_sample(images: Any, x: Any, y: Any, fill_mode: str, fill_value: float) -> Any:
    """Bilinear reading of (N, H, W, C) images at coordinates (N, H, W) counted from the border: torch's own kernel."""
    _, height, width, _ = images.shape
    return _sample(images, torch.stack([x * (2.0 / width) - 1.0, y * (2.0 / height) - 1.0], -1), fill_mode, fill_value)


def affine_sample(images: Any, inverse: Any, outside: tuple[int, int], fill_mode: str, fill_value: float) -> Any:
    """The same at the places to which affine maps (N, 3, 3), centred and in pixels, bring an output of size
    ``outside``.
    """
    _, height, width, _ = images.shape
    # Torch counts from -1 to 1, border to border. A row and a column of products, and one sum for each pixel.
    m = inverse[:, :2] * torch.tensor([[2.0 / width], [2.0 / height]], device=inverse.device)
    y, x = (torch.arange(n, dtype=torch.float32, device=inverse.device) - 0.5 * (n - 1) for n in outside)
    grid = x[None, None, :, None] * m[:, None, None, :, 0]
    grid = grid + (y[None, :, None, None] * m[:, None, None, :, 1] + m[:, None, None, :, 2])
    return _sample(images, grid, fill_mode, fill_value)


def copy_exactly(images: Any, inverse: Any, outside: tuple[int, int]) -> Any:
    """Images (N, H, W, C) seen through maps (N, 3, 3) that only mirror, turn by quarters and shift by whole pixels, or
    None where a map does more, or looks beyond the border: slice by slice, in the speed of a copy.
    """
    n, *inside, channels = images.shape
    if images.requires_grad or not on_host(images) or outside[0] * outside[1] < COPY_FROM:
        return None
    maps = inverse[:, :2].detach().to(torch.float64)
    linear = torch.round(maps[:, :, :2])
    corner = torch.tensor([(size - 1) / 2 for size in outside[::-1]], dtype=torch.float64)
    middle = torch.tensor([(size - 1) / 2 for size in inside[::-1]], dtype=torch.float64)
    first = middle + maps[:, :, 2] - (linear @ corner)
    last = first + (linear @ (2.0 * corner))
    start, end = torch.round(first), torch.round(last)
    size = torch.tensor(inside[::-1], dtype=torch.float64)
    fits = (torch.minimum(start, end) >= 0.0).all() and (torch.maximum(start, end) < size).all()
    exact = (maps[:, :, :2] - linear).abs().max() < EXACT and (first - start).abs().max() < 100 * EXACT
    if not n or not (fits and exact) or (linear.abs().sum(2) != 1).any() or (linear.abs().sum(1) != 1).any():
        return None
    result = torch.empty((n, *outside, channels), dtype=images.dtype)
    turned = linear[:, 0, 0] == 0.0
    lowest, highest = torch.minimum(start, end).to(torch.int64), torch.maximum(start, end).to(torch.int64) + 1
    for image, out, (x, y), (to_x, to_y), turn, (left, up) in zip(
        images, result, lowest.tolist(), highest.tolist(), turned.tolist(), (start > end).tolist()
    ):
        part = image[y:to_y, x:to_x]
        axes = [axis for axis, back in ((0, up), (1, left)) if back]
        part = part.flip(axes) if axes else part
        out.copy_(part.transpose(0, 1) if turn else part)
    return result


def _sample(images: Any, grid: Any, fill_mode: str, fill_value: float) -> Any:
    padding = {"constant": "zeros", "nearest": "border", "reflect": "reflection"}[fill_mode]
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    shifted = planes - fill_value if fill_mode == "constant" and fill_value != 0 else planes
    result = torch.nn.functional.grid_sample(shifted, grid, "bilinear", padding, align_corners=False)
    if shifted is not planes:
        result = result + fill_value
    return result.permute(0, 2, 3, 1)


def slow_at_narrow_broadcasts(images: Any) -> bool:
    """Whether a row of pixels at a time is faster than a pixel: where channels lie side by side, in eager code."""
    return not fuses() and on_host(images) and images.is_contiguous()


def shifted_and_divided(images: Any, mean: Any, divisor: Any, exact: bool) -> Any:
    """(images - mean) / divisor, or without one of them, with one new tensor instead of two; always ``exact``."""
    tensors = [x for x in (images, mean, divisor) if x is not None]
    if fuses() or images.dtype != torch.float32 or any(x.requires_grad for x in tensors):
        images = images if mean is None else images - mean
        return images if divisor is None else images / divisor
    if mean is None:
        return images if divisor is None else torch.div(images, divisor, out=new_like(images))
    shifted = torch.sub(images, mean, out=new_like(images))
    return shifted if divisor is None else shifted.div_(divisor)


def replica_number(like: Any = None) -> Any:
    """Rank of this process in ``torch.distributed``; 0 without it."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def read_planes(planes: Any, places: Any, mirrored: bool) -> Any:
    """Bilinear readings of planes (C, H, W), by one thread: (C, h, w). All arrays are NumPy's, float64.

    ``places`` (2, h, w) are x and y, counted from -1 to 1, border to border. Beyond it lies its last pixel, or the
    image ``mirrored``.
    """
    source, grid = torch.from_numpy(planes)[None], torch.from_numpy(places).permute(1, 2, 0)[None]
    with torch.no_grad():
        beyond = "reflection" if mirrored else "border"
        return torch.nn.functional.grid_sample(source, grid, "bilinear", beyond, align_corners=False)[0].numpy()
