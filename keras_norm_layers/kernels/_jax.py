"""The namespace of JAX arrays (``backend.py`` says what a namespace is)."""

from __future__ import annotations

import sys
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from keras_norm_layers.kernels._xla import (  # noqa: F401 - of the namespace
    COMPILE_FROM,
    add_words,
    changed_some,
    dtype_name,
    few,
    fuses,
    groups,
    in_memory,
    paste,
    read_planes,
    sums_of_bytes,
    sums_of_groups,
    weighted,
    weighted_sum,
)

where, minimum, maximum, floor, abs, sqrt = jnp.where, jnp.minimum, jnp.maximum, jnp.floor, jnp.abs, jnp.sqrt
exp, log, erfinv = jnp.exp, jnp.log, jax.scipy.special.erfinv
sin, cos, transpose, reshape, round = jnp.sin, jnp.cos, jnp.transpose, jnp.reshape, jnp.round
sum, mean, amin, amax, broadcast_to = jnp.sum, jnp.mean, jnp.min, jnp.max, jnp.broadcast_to
stack, concat, tile = jnp.stack, jnp.concatenate, jnp.tile
COPIES_ARITHMETIC = True  # see ``pixels.materialize``


def asarray(x: Any, dtype: str | None = None) -> Any:
    """``x`` as an array, cast to ``dtype`` if one is given."""
    return jnp.asarray(x, dtype)


def constant(make: Callable[..., Any], *args: Any) -> Any:
    """The NumPy array that ``make(*args)`` gives, as a tensor: a constant of a compiled program."""
    return jnp.asarray(make(*args))


def cast(x: Any, dtype: str) -> Any:
    """``x`` as ``dtype``, fractions cut off; for a cast that rounds and saturates see ``pixels.saturate``."""
    return x.astype(dtype)


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of ``x``."""
    return x.shape


def channel_sums(images: Any) -> Any:
    """The sum of each channel of each image (N, H, W, C) of known size: (N, C)."""
    if dtype_name(images) == "uint8" and images.shape[1]:
        return sums_of_bytes(sys.modules[__name__], images, lambda x: jnp.sum(x, axis=2, dtype=x.dtype))
    return sums_of_groups(sys.modules[__name__], images)


def clip(x: Any, low: Any, high: Any, own: bool = False) -> Any:
    """``x`` cut to [low, high]; ``own``, that nobody else holds it, means nothing to a compiler."""
    return jnp.minimum(jnp.maximum(x, low), high)


def matmul(a: Any, b: Any) -> Any:
    """The matrix product in full float32: the default on a GPU or TPU rounds the factors."""
    return jnp.matmul(a, b, precision="highest")


def reverse(x: Any, axis: int) -> Any:
    """``x`` with the order along an axis reversed."""
    return jnp.flip(x, axis)


def arange(n: Any, dtype: str, like: Any) -> Any:
    """0, 1, ..., n - 1; ``like`` tells torch the device."""
    return jnp.arange(n).astype(dtype)


def slow_at_narrow_broadcasts(images: Any) -> bool:
    """Whether a row of pixels at a time is faster than a pixel: not for a compiler."""
    return False


def shifted_and_divided(images: Any, mean: Any, divisor: Any, exact: bool) -> Any:
    """(images - mean) / divisor, or without one of them; always ``exact``."""
    images = images if mean is None else images - mean
    return images if divisor is None else images / divisor


def correlate(images: Any, kernel: Any) -> Any:
    """Images (N, H, W, C) and a ``kernel`` (h, w, C, out), where it lies inside: (N, H - h + 1, W - w + 1, out)."""
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=order, precision="highest")


def floor_own(x: Any) -> Any:
    """``floor`` of a tensor that nobody else holds."""
    return jnp.floor(x)


def where_rows(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition (N, ...), which broadcasts, holds, else ``b``, which nobody else holds."""
    return jnp.where(condition, a, b)


def again(times: int, step: Callable[[Any], Any], state: Any) -> Any:
    """``step`` of ``step`` of ... a tensor, as a loop: unrolled, a compiler would repeat each step in the next."""
    return jax.lax.fori_loop(0, times, lambda _, x: step(x), state)


def argsort(x: Any) -> Any:
    """The order that sorts a vector; equal values stay in theirs."""
    return jnp.argsort(x, stable=True)


def take(x: Any, indices: Any) -> Any:
    """The entries of ``x`` (N, ...) at these places of its first axis."""
    return x[indices]


def cumsum(x: Any, axis: int) -> Any:
    """The sums of all entries up to each, along an axis."""
    return jnp.cumsum(x, axis)


def histograms(cells: Any, size: int, gate: Any) -> Any:
    """How often each cell stands in int32 images (N, H, W, C), each channel of each of which has ``size`` cells of its
    own, numbered on from one to the next; where ``gate`` (N,) is 1: float32 (N, C, size), and 0 elsewhere, where that
    saves time. No entry may lie outside.

    On a CPU image by image, for those whose gate is open: one table stays in the cache, where a table of the batch
    would not.
    """
    n, _, _, channels = cells.shape
    if not on_host(cells):
        counted = jnp.zeros(n * channels * size, jnp.float32).at[cells.reshape(-1)].add(1.0, mode="promise_in_bounds")
        return counted.reshape(n, channels, size)

    def step(i: Any, tables: Any) -> Any:
        def counted() -> Any:
            own = (jax.lax.dynamic_slice_in_dim(cells, i, 1) - i * (channels * size)).reshape(-1)
            return jnp.zeros(channels * size, jnp.float32).at[own].add(1.0, mode="promise_in_bounds")

        table = jax.lax.cond(gate[i] > 0.5, counted, lambda: jnp.zeros(channels * size, jnp.float32))
        return jax.lax.dynamic_update_slice_in_dim(tables, table[None], i, 0)

    tables = jnp.zeros((n, channels * size), jnp.float32)
    return (jax.lax.fori_loop(0, n, step, tables) if n else tables).reshape(n, channels, size)


def change_some(changes: list[Any], images: Any, own: bool) -> tuple[Any, bool]:
    """``changed_some`` of the images, and whether they are a new tensor."""
    if images.shape[0] == 0:  # a loop is traced for an image that is not there
        return images, own
    return changed_some(changes, images, _where_asked, _in_place), True


def _where_asked(condition: Any, change: Callable[[Any], Any], image: Any) -> Any:
    """``change`` of the image where the condition holds, else the image."""
    return jax.lax.cond(condition, change, lambda image: image, image)


def _in_place(function: Callable[[Any, Any], Any], images: Any, drawn: Any) -> Any:
    """``function`` of each image and what was drawn for it, written over the images: no second batch, no zeros first.

    By ``fori_loop``, which has a gradient.
    """

    def step(i: Any, images: Any) -> Any:
        image, own = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), (images, drawn))
        return jax.lax.dynamic_update_index_in_dim(images, function(image, own), i, 0)

    return jax.lax.fori_loop(0, images.shape[0], step, images)


def look_up(table: Any, places: Any) -> Any:
    """The entries of a vector at int32 places of any shape; none may lie outside."""
    return table.at[places].get(mode="promise_in_bounds")


def repeat(x: Any, times: Any) -> Any:
    """Each row of ``x`` so many times, one after the other."""
    return jnp.repeat(x, times, axis=0)


def whole(x: Any, plus: int = 0) -> Any:
    """``x + plus``, rounded half to even, as int32, for less than 2^22 either way.

    Read out of the mantissa: XLA's cast costs a dozen instructions that guard against NaN and overflow.
    """
    return jax.lax.bitcast_convert_type(x + (1.5 * 2.0**23 + plus), jnp.int32) - 0x4B400000


def quotient(a: Any, b: Any) -> Any:
    """a / b of integers from 0, fractions cut off."""
    return jax.lax.div(a, jnp.asarray(b, a.dtype))


def _flat(images: Any) -> tuple[Any, Any, Any]:
    """All pixels in one row (N * H * W, C), where each image begins there (N, 1, 1), and how long its rows are."""
    n, height, width, channels = images.shape
    first = (jnp.arange(n, dtype=jnp.int32) * (height * width))[:, None, None]
    return images.reshape(n * height * width, channels), first, width


def read_pixels(images: Any, rows: Any, columns: Any) -> Any:
    """The pixels of each image at int32 ``rows`` and ``columns`` (N, H, W): (N, H, W, C), one index a pixel."""
    pixels, first, width = _flat(images)
    places = in_memory(sys.modules[__name__], first, rows, columns, width)[0]
    return pixels.at[places].get(mode="promise_in_bounds")


def read_each(images: Any, places: list[tuple[Any, Any]]) -> list[Any]:
    """The pixels at several places (rows, columns), each as ``read_pixels`` gives them."""
    pixels, first, width = _flat(images)
    return [pixels.at[first + (rows * width + columns)].get(mode="promise_in_bounds") for rows, columns in places]


def read_squares(images: Any, rows: Any, columns: Any, below: int, right: int) -> tuple[list[Any], Any, Any]:
    """The pixels at ``rows`` and ``columns``, ``right`` of them, ``below`` them, and both, like ``read_pixels``; and
    the rows and columns that were read, from which weights are to be computed.
    """
    pixels, first, width = _flat(images)
    corner, rows, columns = in_memory(sys.modules[__name__], first, rows, columns, width)
    down = below * width
    # One clamp that changes nothing saves the four that XLA would put around the gathers.
    corner = clip(corner, 0, pixels.shape[0] - 1 - down - right)
    steps = (0, right, down, down + right)
    return [pixels.at[corner + step].get(mode="promise_in_bounds") for step in steps], rows, columns


def on_host(x: Any) -> bool:
    """Whether programs run on the CPU: ``x`` itself may have no place yet."""
    return jax.default_backend() == "cpu"


def words(x: Any) -> Any:
    """``x`` as 32-bit words for integer hashing."""
    return jnp.asarray(x).astype(jnp.uint32)


def xor_words(a: Any, b: Any) -> Any:
    """Bitwise exclusive or."""
    return a ^ b


def rotate_words(a: Any, bits: int) -> Any:
    """``a`` rotated left by ``bits``."""
    return (a << bits) | (a >> (32 - bits))


def unit_interval(a: Any) -> Any:
    """The top 24 bits of each word as a float32 in [0, 1)."""
    return (a >> 8).astype(jnp.float32) * (2.0**-24)


def replica_number(like: Any = None) -> Any:
    """Number of the shard that this runs for under ``shard_map`` or ``pmap``, counted over the axes along which
    ``like`` differs, where JAX knows. 0 elsewhere: one program draws for the whole batch, whatever it is sharded over.
    """
    mesh: Any = getattr(jax.sharding, "get_abstract_mesh", lambda: None)()  # older versions of JAX have none
    number = 0
    for name in getattr(mesh, "manual_axes", ()):
        index = jax.lax.axis_index(name)
        known = like is not None and name in _varies_along(index)
        if not known or name in _varies_along(like):
            number = number * mesh.shape[name] + index
    return number


def _varies_along(x: Any) -> Any:
    """The axes of a ``shard_map`` along which ``x`` differs; none where JAX was told not to check."""
    kind: Any = jax.typeof(x) if hasattr(jax, "typeof") else None
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else getattr(kind, "vma", ())


def compiled(function: Callable[..., Any], gains: bool = True) -> Callable[..., Any]:
    """``function`` under ``jax.jit``: inlined where the caller is compiled itself."""
    return jax.jit(function)


def compiles_on_host(values: int) -> bool:
    """Whether ``compiled_on_host`` works, and is worth while for batches of so many values."""
    try:
        return values >= COMPILE_FROM and bool(jax.local_devices(backend="cpu"))
    except RuntimeError:  # JAX_PLATFORMS names others
        return False


def compiled_on_host(function: Callable[..., Any]) -> Callable[..., list[np.ndarray]]:
    """``function`` compiled for the CPU, with 64 bits: NumPy in, NumPy out, which may not be written to."""
    program = jax.jit(function)
    x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        with x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            return [np.asarray(result) for result in program(*arrays)]

    return call
