"""The namespace of torch tensors (``backend.py`` says what a namespace is)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import torch

from keras_norm_layers.kernels import _few, memory
from keras_norm_layers.kernels._torch_passes import (  # noqa: F401 - of the namespace
    compiled,
    compiled_on_host,
    compiles_on_host,
    groups,
    in_groups,
    new_like,
    stored_order,
)
from keras_norm_layers.kernels._torch_reading import (  # noqa: F401 - of the namespace
    affine_sample,
    copy_exactly,
    grid_sample,
    read_each,
    read_pixels,
    read_planes,
    read_squares,
)

floor, abs, sqrt, sin, cos, matmul = torch.floor, torch.abs, torch.sqrt, torch.sin, torch.cos, torch.matmul
round, exp, log, erfinv = torch.round, torch.exp, torch.log, torch.erfinv
COPIES_ARITHMETIC = False  # see ``pixels.materialize``
IN_CACHE = 1 << 18  # so many float32 numbers stay in the cache of a core from one step to the next


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
    wanted = getattr(torch, dtype)
    if x.dtype == torch.uint8 and wanted == torch.float32 and not fuses() and on_host(x):
        return new_like(x, dtype=wanted).copy_(x)  # of a batch: in memory that was used before
    return x.to(wanted)


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
    eager = not fuses() and torch.is_tensor(a) and torch.is_tensor(b)
    large = eager and a.shape == b.shape and a.nbytes >= memory.LARGE
    if large and _reuses(a, b) and torch.broadcast_shapes(condition.shape, a.shape) == a.shape:
        return torch.where(condition, a, b, out=new_like(a))
    return torch.where(condition, a, b)


def inverted_from(images: Any, threshold: Any, total: float) -> Any:
    """``total - images`` where they are ``threshold`` or more, elsewhere the images, for eager code on a CPU that wants
    no gradient; None elsewhere.
    """
    if not _reuses(images, threshold):
        return None
    # A mask of numbers: torch has wide instructions for them, for truth values it has none.
    chosen = torch.ge(images, threshold, out=new_like(images))
    signs = torch.mul(chosen, -2.0, out=new_like(images)).add_(1.0)
    return chosen.mul_(total).addcmul_(images, signs)


def _reuses(*tensors: Any) -> bool:
    """Whether what is made of these may go to memory that was used before, see ``new_like``."""
    return not fuses() and all(x.dtype == torch.float32 and on_host(x) and not x.requires_grad for x in tensors)


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


def weighted_sum(parts: list[Any], weights: Sequence[float]) -> Any:
    """The sum of tensors, each times a number, added up in one new tensor."""
    total = parts[0] * weights[0]
    for part, weight in zip(parts[1:], weights[1:]):
        total = torch.add(total, part, alpha=weight) if total.requires_grad else total.add_(part, alpha=weight)
    return total


def where_rows(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition (N, ...), which broadcasts, holds, else ``b``, which nobody else holds."""
    if not on_host(b) or fuses() or b.requires_grad:
        return torch.where(condition, a, b)
    if not condition.any():
        return b
    if len(b) == 1:
        return torch.where(condition, a, b)
    rows = torch.nonzero(condition.flatten(1).any(1))[:, 0]
    return b.index_copy_(0, rows, torch.where(condition[rows], a[rows], b[rows]))


def shifted_sum(images: Any, weights: list[Any], axis: int) -> Any:
    """The sum of a tensor (N, ...) moved by pixels along an axis, 0 coming in, each times a weight, a number or (N,).
    Added up in one new tensor.
    """
    length = images.shape[axis]

    def product(total: Any, part: Any, weight: Any) -> Any:
        if isinstance(weight, (int, float)):
            return part * weight if total is None else total.add_(part, alpha=weight)
        weight = weight.reshape(-1, *[1] * (images.ndim - 1))
        return part * weight if total is None else total.addcmul_(part, weight)

    total = product(None, images, weights[len(weights) // 2])
    for number, weight in enumerate(weights):
        shift = number - len(weights) // 2
        size = length - (shift if shift > 0 else -shift)  # `abs` is torch's here
        if shift and size > 0:
            into, out_of = max(0, -shift), max(0, shift)
            product(total.narrow(axis, into, size), images.narrow(axis, out_of, size), weight)
    return total


def _axes(x: Any, axis: Any) -> Any:
    return tuple(range(x.ndim)) if axis is None else axis


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The sum over ``axis``."""
    return torch.sum(x, dim=_axes(x, axis), keepdim=keepdims)


def mean(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The mean over ``axis``."""
    return torch.mean(x, dim=_axes(x, axis), keepdim=keepdims)


def channel_sums(images: Any) -> Any:
    """The sum of each channel of each image (N, H, W, C): (N, C)."""
    return torch.sum(images, dim=(1, 2), dtype=torch.float32)


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
    if _reuses(x):
        return torch.index_select(x, 0, indices, out=new_like(x, len(indices)))
    return x[indices]


def cumsum(x: Any, axis: int) -> Any:
    """The sums of all entries up to each, along an axis."""
    return torch.cumsum(x, axis)


def histograms(cells: Any, size: int, gate: Any) -> Any:
    """How often each cell stands in int32 images (N, H, W, C), each channel of each of which has ``size`` cells of its
    own, numbered on from one to the next; where ``gate`` (N,) is 1: float32 (N, C, size), and 0 elsewhere, where that
    saves time. No entry may lie outside.

    On a CPU those alone are counted whose gate is open; elsewhere, to ask how many they are would stop the device.
    """
    n, _, _, channels = cells.shape
    if on_host(cells) and not fuses():
        opened = gate.detach() > 0.5
        cells = cells if opened.all() else cells[opened]
        counted = torch.bincount(as_stored(cells)[0].reshape(-1), minlength=n * channels * size).to(torch.float32)
    else:
        ones = torch.ones((), device=cells.device).expand(cells.numel())
        counted = torch.zeros(n * channels * size, device=cells.device).index_add_(0, cells.reshape(-1), ones)
    return counted.reshape(n, channels, size)


def change_some(changes: list[Any], images: Any, own: bool) -> Any:
    """Several ``pixels.Change``, one after the other, computed for the images that they are made to, and written over
    these where they are our ``own``. Returns the images, and whether they are our own now.
    """
    drawn = [value for change in changes for value in change.values.values()]
    learns = any(x.requires_grad for x in (images, *drawn))
    if not (fuses() or learns) and 2 * images.shape[1:].numel() > IN_CACHE:
        return _image_by_image(changes, images, own)
    for change in changes:
        images, own = _change_some(change, images, own and not learns)
    return images, own


def _image_by_image(changes: list[Any], images: Any, own: bool) -> Any:
    """``change_some``, all changes of an image while it is in the cache of a core."""
    open_ = (torch.stack([change.gate for change in changes], 1) > 0.5).tolist()
    if not any(map(any, open_)):
        return images, own
    images = images if own else images.clone()
    values = [{name: value.split(1) for name, value in change.values.items()} for change in changes]
    for number, (place, chosen) in enumerate(zip(images.split(1), open_)):
        seen = place
        for change, rows in itertools.compress(zip(changes, values), chosen):
            seen = change.run({name: row[number] for name, row in rows.items()}, seen, own=True)
        if seen is not place:
            place.copy_(seen)
    return images, True


def _change_some(change: Any, images: Any, own: bool) -> Any:
    if fuses():
        return change.run(change.values, images), False  # a closed gate is the identity
    rows = torch.nonzero(change.gate > 0.5)[:, 0]
    if not len(rows):
        return images, own
    if len(rows) == len(images):
        return change.run(change.values, images), False
    changed = change.run({name: value[rows] for name, value in change.values.items()}, images[rows])
    return images.index_copy_(0, rows, changed) if own else images.index_copy(0, rows, changed), True


def fill_where(mask: Any, images: Any, fill: Callable[[Any, Any], Any]) -> Any:
    """The images (N, H, W, C), and where the mask (N, H, W, 1) holds what ``fill`` gives for numbers of images and of
    values in them, two integer tensors (K, 1) and (K, C): computed for these alone.
    """
    n, _, _, channels = images.shape
    rows, places = torch.nonzero(mask.reshape(n, -1), as_tuple=True)
    numbers = places[:, None] * channels + torch.arange(channels, device=images.device)
    filled = fill(rows[:, None], numbers)
    return images.reshape(n, -1, channels).index_put((rows, places), filled).reshape(images.shape)


def paste(images: Any, others: Any, across: tuple[Any, Any], down: tuple[Any, Any]) -> Any:
    """``pixels.pasted`` by slices, for eager code on a CPU that wants no gradient; None elsewhere."""
    if fuses() or not on_host(images) or images.requires_grad or others.requires_grad:
        return None
    result = new_like(images).copy_(images)
    _, height, width, _ = images.shape
    # The first whole number that is not below an edge.
    edges = [
        torch.ceil(v).clamp(0, size).to(torch.int64) for size, pair in ((width, across), (height, down)) for v in pair
    ]
    for image, other, (left, right, top, bottom) in zip(result, others, torch.stack(edges, 1).tolist()):
        if left < right and top < bottom:
            image[top:bottom, left:right] = other[top:bottom, left:right]
    return result


def look_up(table: Any, places: Any) -> Any:
    """The entries of a vector at int32 places of any shape; none may lie outside."""
    if fuses():
        return torch.index_select(table, 0, places.reshape(-1)).reshape(places.shape)
    stored, axes = as_stored(places)  # what comes out lies in memory as the places do
    return torch.index_select(table, 0, stored.reshape(-1)).reshape(stored.shape).permute(axes)


def repeat(x: Any, times: Any) -> Any:
    """Each row of ``x`` so many times, one after the other."""
    return torch.repeat_interleave(x, times, dim=0)


def whole(x: Any, plus: int = 0) -> Any:
    """``x + plus``, rounded half to even, as int32."""
    return torch.round(x + plus if plus else x).to(torch.int32)


def affine_clip(images: Any, gain: Any, offset: Any, low: Any, high: Any, own: bool = False) -> Any:
    """min(max(gain * images + offset, low), high), any part of it None, with one new tensor instead of four, and with
    none where the images are our ``own`` to change: new memory costs more time than the arithmetic.
    """
    learns = any(isinstance(x, torch.Tensor) and x.requires_grad for x in (images, gain, offset, low, high))
    out = images if own and not learns else None
    if gain is not None and offset is not None and _one_by_one(images, gain):
        result = torch.addcmul(offset, images, gain, out=out)
    elif gain is not None:
        result = torch.mul(images, gain, out=out)
        result = result if offset is None else result.add_(offset)
    elif offset is not None:
        result = torch.add(images, offset, out=out)
    else:
        result = images.clone() if out is None else images
    if low is None or high is None:
        return result
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return torch.clamp_(result, low, high)
    low, high = _pair(low, high)  # between tensors, a clamp is slower than both of its halves
    out = None if learns else result
    return torch.minimum(torch.maximum(result, low, out=out), high, out=out)


def _one_by_one(images: Any, gain: Any) -> bool:
    """Whether torch has no wide instructions for a product of these: for numbers that change from value to value."""
    return gain.shape[-1] > 1 and images.is_contiguous()


def few(function: Callable[..., Any], *given: Any) -> Any:
    """``function(*given)`` of a few numbers: tensors in lists and dicts, as what comes out. In eager code on the CPU
    computed by NumPy.
    """
    if fuses() or not all(on_host(x) and not x.requires_grad for x in _tensors(given)):
        return function(*given)
    return _few.compute(function, *given)


def _tensors(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (list, tuple, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(part)
    elif torch.is_tensor(tree):
        yield tree


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


def as_stored(x: Any) -> tuple[Any, tuple[int, ...]]:
    """``x`` with its axes in the order in which it lies in memory, and the order of axes that makes it ``x`` again:
    another one would have to be copied to become one axis.
    """
    order = stored_order(x)
    return x.permute(order), tuple(order.index(axis) for axis in range(x.ndim))


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
