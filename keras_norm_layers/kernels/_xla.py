"""What the namespaces of TensorFlow and JAX have in common, for XLA compiles both."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

COMPILE_FROM = 1 << 17  # a batch of fewer values on the host is done before the compiler has started
paste = None  # see ``pixels.pasted``
read_planes = None  # see ``pull.plane_reader``: here a compiled pass reads


def dtype_name(x: Any) -> str:
    """The name of the dtype of ``x``: "float32", "uint8", ..."""
    return x.dtype.name


def weighted(a: Any, of_a: Any, b: Any, of_b: Any) -> Any:
    """a * of_a + b * of_b, where nobody else holds ``a``."""
    return a * of_a + b * of_b


def weighted_sum(parts: list[Any], weights: Sequence[float]) -> Any:
    """The sum of tensors, each times a number."""
    products = [part * weight for part, weight in zip(parts, weights)]
    return functools.reduce(operator.add, products)


def sums_of_groups(xp: Any, images: Any) -> Any:
    """The sum of each channel of each image (N, H, W, C) of known size: (N, C).

    Several pixels side by side first: compilers vectorize a last axis of 48, not one of 3.
    """
    n, height, width, channels = xp.shape(images)
    pixels = height * width
    group = next(k for k in (16, 8, 4, 2, 1) if pixels % k == 0)
    sums = xp.sum(xp.reshape(images, (n, pixels // group, group * channels)), axis=1)
    return xp.sum(xp.reshape(sums, (n, group, channels)), axis=1)


def sums_of_bytes(xp: Any, images: Any, add: Callable[[Any], Any]) -> Any:
    """The sum of each channel of each image (N, H, W, C) of bytes and of known size: float32 (N, C).

    Of up to 257 rows in 16 bits, which hold 257 * 255: faster than in float32. ``add`` adds along the rows, axis
    2, and keeps the dtype.
    """
    n, height, width, channels = xp.shape(images)
    rows = max(k for k in range(1, 258) if height % k == 0)
    parts = xp.reshape(xp.cast(images, "uint16"), (n, height // rows, rows, width * channels))
    sums = xp.sum(xp.cast(add(parts), "float32"), axis=1)
    return xp.sum(xp.reshape(sums, (n, width, channels)), axis=1)


def groups(images: Any, gains: bool) -> list[int]:
    """Where groups of images begin that are worth a pass each: none, for the compiler's one loop does all at once."""
    return []


def in_memory(xp: Any, first: Any, rows: Any, columns: Any, width: Any) -> tuple[Any, Any, Any]:
    """The places of pixels, ``first + rows * width + columns`` (N, H, W), written to memory before one is read, and
    the rows and columns again.

    On a CPU the compiler computes what an address is made of number by number, in the loop that reads, and all else
    eight at a time. XLA writes the parts of a concatenation in loops of their own. Loops may round differently: rows
    and columns are those of the places, whatever a coordinate computed anew would be rounded to.
    """
    height = xp.shape(rows)[1]
    if not xp.on_host(rows) or (isinstance(height, int) and height < 2):
        return first + (rows * width + columns), rows, columns
    half = height // 2
    parts = [(rows[:, here], columns[:, here]) for here in (slice(None, half), slice(half, None))]
    places = xp.concat([first + (rows * width + columns) for rows, columns in parts], 1)
    places = xp.where(places < 0, 0, places)  # used twice, it does not become a part of the loop that reads
    inside = places - first
    rows = xp.quotient(inside, width)
    return places, rows, inside - rows * width


def few(function: Callable[..., Any], *given: Any) -> Any:
    """``function(*given)`` of a few numbers: a compiler needs no help."""
    return function(*given)


def fuses() -> bool:
    """True: the code runs inside a compiler that turns plain indexing into one loop."""
    return True


def add_words(a: Any, b: Any) -> Any:
    """a + b modulo 2^32."""
    return a + b


def changed_some(changes: list[Any], images: Any, where_asked: Callable[..., Any], map_: Callable[..., Any]) -> Any:
    """Several ``pixels.Change``, one after the other, image by image and only where they are asked for.

    ``where_asked`` (condition, change, image) and ``map_`` (a function of an image and of what was drawn for it, the
    images, all that was drawn) are made of the library's control flow.
    """

    def one(image: Any, drawn: Any) -> Any:
        for change, (gate, values) in zip(changes, drawn):
            row = {name: value[None] for name, value in values.items()}
            image = where_asked(gate > 0.5, functools.partial(_of_one, change.run, row), image)
        return image

    return map_(one, images, [(change.gate, dict(change.values)) for change in changes])


def _of_one(run: Callable[..., Any], row: Any, image: Any) -> Any:
    return run(row, image[None])[0]
