"""A source that is read several times: its batches stay in memory where they fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_norm_layers.statistics.covariance import free_memory
from keras_norm_layers.statistics.readers import Sliced
from keras_norm_layers.statistics.stream import Batches, Limited, Mapped, Sampled

SHARE = 0.5  # of the free memory that the batches may take
UNKNOWN = 1 << 30  # bytes they may take where the system does not say what is free


class Cached(Batches):
    """The batches of ``source``, which is read ``reads`` times: all but the last of them look for a copy in memory.

    What is read the first time from its beginning is copied. If the copies grow beyond half of the memory that was free
    then, they are dropped, and the source is read anew each time.

    Args:
        source: where the batches come from.
        reads: how many times they are asked for.
        reason: why more than once, for the error of a source that can be read only once and does not fit.
    """

    def __init__(self, source: Batches, reads: int, reason: str = "") -> None:
        super().__init__(self.iterate, once=source.once, images=source.images)
        self.seed = source.seed
        self._source, self._reads, self._reason = source, reads, reason
        self._kept: list[np.ndarray] | None = None
        self._gave_up = False

    def _current_length(self) -> int | None:
        return self._source.length if self._kept is None else len(self._kept)

    def iterate(self, start: int = 0) -> Iterator[np.ndarray]:
        """The batches from number ``start`` on.

        Raises:
            ValueError: for a source that can be read only once, is needed again and does not fit into memory.
        """
        if self._kept is not None:
            return iter(self._kept[start:])
        self._reads -= 1
        if self._reads > 0 and not self._gave_up and (start == 0 or self.once):
            return self._keeping(start)
        return self._source.iterate(start)

    def _keeping(self, start: int) -> Iterator[np.ndarray]:
        free = free_memory()
        limit = UNKNOWN if free is None else int(free * SHARE)
        kept: list[np.ndarray] = []
        size = 0
        for number, batch in enumerate(self._source.iterate()):
            size += batch.nbytes
            expected = size * (self.length or 0) // (number + 1)  # batches are of about one size
            if not self._gave_up and max(size, expected) > limit:
                if self.once:
                    raise self._too_large(max(size, expected), limit)
                self._gave_up = True
                kept.clear()
            if not self._gave_up:
                kept.append(np.array(batch))  # whoever makes the batches may use their memory again
            if number >= start:
                yield batch
        if not self._gave_up:
            self._kept = kept

    def _too_large(self, size: int, limit: int) -> ValueError:
        return ValueError(
            f"The data can be read only once, and {self._reason}. To be kept in memory it is too large: "
            f"{size / 1e9:.3g} GB or more, and {limit / 1e9:.3g} GB may be taken ({SHARE:.0%} of what is free). Give "
            f"an array or a dataset, or a function that makes the generator."
        )


def is_at_hand(data: object, source: Batches) -> bool:
    """Whether reading again costs little or is the user's own business: arrays (on a disk too), lists, functions."""
    data = data[0] if isinstance(data, tuple) and data else data
    is_function = callable(data) and not any(hasattr(data, name) for name in ("__iter__", "__getitem__"))
    return is_function or isinstance(data, list) or is_sliced(source)


def is_sliced(source: Batches) -> bool:
    """Whether the batches are slices of an array, of any size."""
    while isinstance(source, (Limited, Sampled, Mapped)):
        source = source._source
    return isinstance(source, Sliced)
