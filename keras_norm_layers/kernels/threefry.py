"""Uniform numbers as a pure function of a key and a position: the Threefry-2x32 counter-based generator.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). Every backend has its own generator
with its own numbers, and TensorFlow's gives others inside XLA than outside. Twenty rounds of integer arithmetic on
(batch, slots) words cost nothing beside the pixels and give the same bits everywhere: on each backend, device and
compiler, in a model and in ``tf.data``.
"""

from __future__ import annotations

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
    seed = xp.words(seed)
    key = threefry2x32(xp, (seed[0], seed[1]), (seed[2], 0))
    rows = xp.words(xp.arange(batch_size, "int32", like=seed))[:, None]
    columns = xp.words(xp.arange(slots, "int32", like=seed))[None, :]
    return xp.unit_interval(threefry2x32(xp, key, (rows, columns))[0])
