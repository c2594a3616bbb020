"""How a batch is cut: into parts that threads take, and parts into blocks that stay in the cache of a core.

The cuts depend on the batch alone, never on the number of threads, and what the parts give comes back in their order:
so the results are the same bits on any machine.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

SLICE_BYTES = 1 << 24
# A part is what a thread takes at a time: long beside the start of a task, short beside a batch.
PART_BYTES = 1 << 22
BLOCK_BYTES = 1 << 20
# Narrow data (3 channels) is viewed with about this many columns, so that sums over rows are long vector operations.
COLUMNS = 1536
WIDEST = 4096
T = TypeVar("T")
S = TypeVar("S")


def slices(batch: np.ndarray, size: int = SLICE_BYTES) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first image, contiguous slice of images) over a batch, some ``size`` bytes at a time."""
    step = max(1, size // max(1, batch[:1].nbytes))
    for start in range(0, len(batch), step):
        yield start, np.ascontiguousarray(batch[start : start + step])


def in_parts(function: Callable[[int, np.ndarray], T], batch: np.ndarray) -> Iterator[T]:
    """``function(first image, part)`` of every part of a batch, in their order, computed by all cores."""
    step = max(1, PART_BYTES // max(1, batch[:1].nbytes))
    return in_order(
        lambda start: function(start, np.ascontiguousarray(batch[start : start + step])), range(0, len(batch), step)
    )


def in_order(function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """``map`` by all cores (NumPy works outside Python's lock); at most two tasks a core wait, so memory stays flat."""
    items = iter(items)
    first = list(itertools.islice(items, 2))
    if len(first) < 2 or cores() < 2:
        yield from map(function, itertools.chain(first, items))
        return
    # Threads of its own: they start in microseconds, and forked processes and workers of a cluster have none to share.
    with concurrent.futures.ThreadPoolExecutor(cores(), "keras_norm_layers") as pool:
        waiting = [pool.submit(function, item) for item in first]
        try:
            while waiting:
                for item in itertools.islice(items, 2 * cores() - len(waiting)):
                    waiting.append(pool.submit(function, item))
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def cores() -> int:
    """Cores that this process may use: OMP_NUM_THREADS where it is set, as for NumPy's products (Ray sets it)."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) > 0:
        return int(limit)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tables(part: np.ndarray, kept: tuple[int, ...]) -> Iterator[tuple[np.ndarray, int, tuple[int, ...]]]:
    """A part as 2-D tables whose rows may be summed: (table, columns' leading size, shape of a column group).

    All axes before the first kept one are rows. A few rows stand side by side where there are few columns.
    """
    lead = kept[0] if kept else part.ndim
    group = part.shape[lead:]
    width = math.prod(group)
    flat = part.reshape(-1, width)
    tile = max(1, COLUMNS // max(1, width))
    cut = len(flat) // tile * tile
    if cut:
        yield flat[:cut].reshape(-1, tile * width), tile, group
    if cut < len(flat):
        yield flat[cut:], 1, group


def blocks(table: np.ndarray, dtype: str, most_rows: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """(columns, block) over a table, each block small enough for the cache once it is ``dtype``."""
    values = BLOCK_BYTES // np.dtype(dtype).itemsize
    for left in range(0, table.shape[1], WIDEST):
        columns = slice(left, min(left + WIDEST, table.shape[1]))
        rows = max(1, values // (columns.stop - columns.start))
        rows = rows if most_rows is None else min(rows, most_rows)
        for top in range(0, len(table), rows):
            yield columns, table[top : top + rows, columns]


def folded(kept: tuple[int, ...], group: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The axes of (tile, *group) that do not keep statistics of their own."""
    lead = rank - len(group)
    return (0, *(1 + a - lead for a in range(lead, rank) if a not in kept))


class Workspace:
    """Memory for one block after the other: new memory for each would cost as much as the sums."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self._memory = np.empty(0, dtype)

    def copy(self, block: np.ndarray) -> np.ndarray:
        """``block`` cast; valid until the next call."""
        if block.size > self._memory.size:
            self._memory = np.empty(block.size, self.dtype)
        values = self._memory[: block.size].reshape(block.shape)
        np.copyto(values, block, casting="unsafe")
        return values


def merged(a: Any, b: Any) -> Any:
    """What two sums, or one and None, give together."""
    if a is None or b is None:
        return b if a is None else a
    return a.merged(b)
