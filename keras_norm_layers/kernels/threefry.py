"""Uniform numbers as a pure function of a key and a position: the Threefry-2x32 counter-based generator.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). Every backend has its own generator
with its own numbers, and TensorFlow's gives others inside XLA than outside. Twenty rounds of integer arithmetic on
(batch, slots) words cost nothing beside the pixels and give the same bits everywhere: on each backend, device and
compiler, in a model and in ``tf.data``.
"""

from __future__ import annotations

import math
from typing import Any

from keras_norm_layers.kernels.backend import namespace

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry2x32(xp: Any, key: tuple[Any, Any], counter: tuple[Any, Any]) -> tuple[Any, Any]:
    """Two words of hash for the words ``key`` and ``counter`` (pairs of word tensors that broadcast), 20 rounds."""
    keys = (key[0], key[1], xp.xor_words(xp.xor_words(key[0], key[1]), PARITY))
    x, y = xp.add_words(counter[0], keys[0]), xp.add_words(counter[1], keys[1])
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            x = xp.add_words(x, y)
            y = xp.xor_words(xp.rotate_words(y, bits), x)
        x = xp.add_words(x, keys[(group + 1) % 3])
        y = xp.add_words(xp.add_words(y, keys[(group + 2) % 3]), group + 1)
    return x, y


def uniform(seed: Any, batch_size: Any, slots: int) -> Any:
    """Uniform float32 numbers in [0, 1), shape (batch_size, slots).

    ``seed`` is a tensor of three integers: seed, step, replica. Row i depends on these and i alone, so a larger batch
    begins with the rows of a smaller one, and each replica of a distribution strategy has numbers of its own.
    """
    xp = namespace(seed)
    return xp.asarray(xp.few(lambda seed: _uniform(seed, batch_size, slots), seed))


def _uniform(seed: Any, batch_size: Any, slots: int) -> Any:
    xp = namespace(seed)
    seed = xp.words(seed)
    key = threefry2x32(xp, (seed[0:1], seed[1:2]), (seed[2:3], 0))
    rows = xp.words(xp.arange(batch_size, "int32", like=seed))[:, None]
    columns = xp.words(xp.arange(slots, "int32", like=seed))[None, :]
    return xp.unit_interval(threefry2x32(xp, key, (rows, columns))[0])


def uniform_field(key: Any, shape: tuple[Any, ...], stream: int = 0) -> Any:
    """A uniform number in [0, 1) for each place of a field: float32 (N, *shape).

    ``key`` is (N,), float32 in [0, 1) as ``uniform`` gives it: its 24 bits decide the field of an image, so a replay of
    the draw repeats the field. Fields of one key with different ``stream`` numbers have nothing in common.
    """
    xp = namespace(key)
    count = math.prod(shape) if all(isinstance(side, int) for side in shape) else xp.product(shape)
    first, second = _pairs(xp, key[:, None], xp.arange((count + 1) // 2, "int32", like=key)[None, :], stream)
    numbers = xp.concat([first, second], 1)[:, :count]
    return xp.reshape(numbers, (xp.shape(key)[0], *shape))


def normal_field(key: Any, shape: tuple[Any, ...], stream: int = 0) -> Any:
    """A number from the standard normal distribution for each place: float32 (N, *shape), by Box and Muller's formula.

    See ``uniform_field``.
    """
    xp = namespace(key)
    count = math.prod(shape) if all(isinstance(side, int) for side in shape) else xp.product(shape)
    first, second = _pairs(xp, key[:, None], xp.arange((count + 1) // 2, "int32", like=key)[None, :], stream)
    radius = xp.sqrt(-2.0 * xp.log(1.0 - first))  # 1 - u lies in (0, 1]
    angle = (2.0 * math.pi) * second
    numbers = xp.concat([radius * xp.cos(angle), radius * xp.sin(angle)], 1)[:, :count]
    return xp.reshape(numbers, (xp.shape(key)[0], *shape))


def normal_at(key: Any, size: int, places: Any, stream: int = 0) -> Any:
    """What ``normal_field`` has at some places of a field of ``size`` numbers: of the fields of keys (K, 1), at
    integer places (K, ...): float32 (K, ...).
    """
    xp = namespace(key)
    half = (size + 1) // 2
    second_half = places >= half
    first, second = _pairs(xp, key, places - half * xp.cast(second_half, "int64"), stream)
    angle = (2.0 * math.pi) * second
    return xp.sqrt(-2.0 * xp.log(1.0 - first)) * xp.where(second_half, xp.sin(angle), xp.cos(angle))


def _pairs(xp: Any, key: Any, places: Any, stream: int) -> tuple[Any, Any]:
    """Two uniform numbers for each of the integer ``places`` in the field of a ``key``: both words of a hash."""
    bits = xp.words(xp.cast(key * 2.0**24, "int32"))
    x, y = threefry2x32(xp, (bits, xp.words(xp.asarray(stream + 1))), (xp.words(places), 0))
    return xp.unit_interval(x), xp.unit_interval(y)
