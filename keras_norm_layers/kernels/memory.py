"""Memory on the host for batches: where libraries take it as it is, and used again, for new memory is costly.

The system hands out new memory in pages and clears each when it is first touched: on a CPU that takes a good part of
the time of a pass. So what held a large batch is kept when the batch is gone, and serves the next one.
"""

from __future__ import annotations

import collections
import math
import weakref
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: TensorFlow and JAX copy an array that does not begin at a multiple
LARGE = 1 << 20  # bytes: from here on memory is kept
KEPT = 2  # so many free rooms, the latest: a loop that holds on to its last result needs no more
# Taken from and brought back to (by finalizers, which may run anywhere) in single steps that cannot be cut in two.
_free: collections.deque[np.ndarray] = collections.deque(maxlen=KEPT)


class _Lent:
    """A room that is lent out: NumPy's arrays in it hold on to this object, whose end brings the room back."""

    def __init__(self, room: np.ndarray) -> None:
        self.__array_interface__ = room.__array_interface__
        weakref.finalize(self, _free.append, room).atexit = False


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """``numpy.empty`` that begins where the libraries take it without a copy; large ones in memory that is kept."""
    dtype = np.dtype(dtype)
    if dtype.hasobject:
        return np.empty(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    room = _room(size + ALIGNMENT - 1)
    if size >= LARGE:
        room = np.asarray(_Lent(room))
    return room[-room.ctypes.data % ALIGNMENT :][:size].view(dtype).reshape(shape)


def _room(size: int) -> np.ndarray:
    """At least ``size`` bytes: a free room that is not more than twice as large, or a new one."""
    for _ in range(len(_free) if size >= LARGE else 0):
        try:
            room = _free.popleft()
        except IndexError:  # another thread took it
            break
        if size <= room.nbytes <= 2 * size:
            return room
        _free.append(room)
    return np.empty(size, "uint8")
