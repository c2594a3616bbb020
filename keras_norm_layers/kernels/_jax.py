"""The namespace of JAX arrays (``backend.py`` says what a namespace is)."""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp

where, minimum, maximum, floor, abs, sqrt = jnp.where, jnp.minimum, jnp.maximum, jnp.floor, jnp.abs, jnp.sqrt
sin, cos, transpose, reshape, round = jnp.sin, jnp.cos, jnp.transpose, jnp.reshape, jnp.round
sum, mean, amin, amax, broadcast_to = jnp.sum, jnp.mean, jnp.min, jnp.max, jnp.broadcast_to
stack, concat, tile = jnp.stack, jnp.concatenate, jnp.tile
COPIES_ARITHMETIC = True  # see ``pixels.materialize``
NARROW_BROADCAST_IS_SLOW = False  # see ``pixels.scale_and_shift``


def asarray(x: Any, dtype: str | None = None) -> Any:
    """``x`` as an array, cast to ``dtype`` if one is given."""
    return jnp.asarray(x, dtype)


def cast(x: Any, dtype: str) -> Any:
    """``x`` as ``dtype``, fractions cut off; for a cast that rounds and saturates see ``pixels.saturate``."""
    return x.astype(dtype)


def dtype_name(x: Any) -> str:
    """The name of the dtype of ``x``: "float32", "uint8", ..."""
    return x.dtype.name


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of ``x``."""
    return x.shape


def clip(x: Any, low: Any, high: Any) -> Any:
    """``x`` cut to [low, high]."""
    return jnp.minimum(jnp.maximum(x, low), high)


def matmul(a: Any, b: Any) -> Any:
    """The matrix product in full float32: the default on a GPU or TPU rounds the factors."""
    return jnp.matmul(a, b, precision="highest")


def arange(n: Any, dtype: str, like: Any) -> Any:
    """0, 1, ..., n - 1; ``like`` tells torch the device."""
    return jnp.arange(n).astype(dtype)


def read_pixels(images: Any, rows: Any, columns: Any) -> Any:
    """The pixels of each image at int32 ``rows`` and ``columns`` (N, H, W): (N, H, W, C), one index a pixel."""
    n, height, width, channels = images.shape
    first = (jnp.arange(n, dtype=jnp.int32) * (height * width))[:, None, None]
    pixels = images.reshape(n * height * width, channels)
    return pixels.at[first + rows * width + columns].get(mode="promise_in_bounds")


def fuses() -> bool:
    """True: the code runs inside a compiler that turns plain indexing into one loop."""
    return True


def words(x: Any) -> Any:
    """``x`` as 32-bit words for integer hashing."""
    return jnp.asarray(x).astype(jnp.uint32)


def add_words(a: Any, b: Any) -> Any:
    """a + b modulo 2^32."""
    return a + b


def xor_words(a: Any, b: Any) -> Any:
    """Bitwise exclusive or."""
    return a ^ b


def rotate_words(a: Any, bits: int) -> Any:
    """``a`` rotated left by ``bits``."""
    return (a << bits) | (a >> (32 - bits))


def unit_interval(a: Any) -> Any:
    """The top 24 bits of each word as a float32 in [0, 1)."""
    return (a >> 8).astype(jnp.float32) * (2.0**-24)


def replica_number() -> Any:
    """0: one program draws for the whole batch, whatever it is sharded over."""
    return 0


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under ``jax.jit``: inlined where the caller is compiled itself."""
    return jax.jit(function)
