"""Quantiles of any number of batches: a count for each different value, mergeable bit for bit.

Values are counted as float32, the precision in which layers compute. As long as a feature has at most 65,536 different
values each keeps a count of its own, so the quantiles are exact: for 8- and 16-bit integers, for float16, for images of
whole numbers whatever their dtype. Where there are more, the last bits of all values of the feature are dropped, as few
as it takes. Which those are depends on the set of values alone, for a part of the data never drops more than the whole.
So the result has the same bits for any order, batch size or split over machines, which a randomized sketch cannot
promise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.statistics.extremes import OrderAccumulator

VALUES = 1 << 16  # different values that one feature may keep
ALL_VALUES = 1 << 24  # that all features may keep together: 256 MB
TABLE = 1 << 22  # up to so many cells values are counted in a table, else by sorting
BLOCK = 1 << 18  # values that are counted at a time, which stay in the cache of a core
PENDING = 1 << 20  # counts that wait to be merged, so that small batches do not pay for a large histogram each
ZERO = np.uint32(1 << 31)  # the code of 0.0
LOWEST, HIGHEST = np.uint32(0x00800000), np.uint32(0xFF7FFFFF)  # the codes of the ends of float32
FEATURE = np.uint64(32)  # a key is the number of the feature and below it, in these bits, the code of the value


class Summary(NamedTuple):
    """What quantiles say.

    ``images`` seen; ``count``, values of each feature without NaN; ``values``, float64 (quantiles, *feature shape);
    ``error``, the largest relative error that a value of the feature can have: 0 where all are exact.
    """

    images: int
    count: np.ndarray  # type: ignore[assignment]  # a tuple's own count is no loss here
    values: np.ndarray
    error: np.ndarray


class Quantiles(OrderAccumulator):
    """Accumulates a histogram a feature, and gives any quantile of it.

    The definition is that of ``numpy.quantile``: for n values the quantile q lies at (n - 1) q between the sorted
    values, interpolated. A feature keeps 65,536 different values; one of more than 256 features 2^24 / features, at
    least 256. Beyond that values are rounded by dropping bits, and ``Summary.error`` tells how much: for up to 256
    features the relative error is at most 1/256 even for values over all of float32's range of magnitudes, and 1e-4 to
    5e-4 for normally distributed ones of any number. Memory: 16 bytes a different value and feature, so 1 MB a channel,
    and 256 MB in all, at most.

    Args:
        axis: the axes of a batch that keep statistics of their own, as for ``Moments``: -1 for each channel, None for
            all values together, (1, 2, 3) for each pixel. At most 65,536 features.
        nan_policy: "raise" for an error where a value is NaN, "omit" to pass over NaN. Infinity is always an error.

    Example:
        >>> import numpy as np
        >>> a = Quantiles().add(np.array([[1, 10], [2, 30]]))
        >>> a.merge(Quantiles().add(np.array([[9, 20]]))).result([0.5, 0.75]).values.tolist()
        [[2.0, 20.0], [5.5, 25.0]]
    """

    def __init__(self, axis: Any = -1, nan_policy: str = "raise") -> None:
        super().__init__(axis, nan_policy)
        self._levels = np.zeros(0, "uint8")  # bits dropped, a feature
        self._keys = np.zeros(0, "uint64")  # sorted, all different
        self._counts = np.zeros(0, "int64")
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []  # keys and counts to be merged
        self._waiting = 0

    def result(self, q: Any = (0.0, 0.25, 0.5, 0.75, 1.0)) -> Summary:
        """The quantiles ``q``, numbers from 0 to 1, of every feature.

        Raises:
            ValueError: when nothing was added, for numbers outside [0, 1], and for features that were always NaN.
        """
        self._require_data()
        assert self.feature_shape is not None
        q = np.asarray(q, "float64")
        if q.ndim != 1 or not ((q >= 0) & (q <= 1)).all():
            raise ValueError(f"`q` must be a list of numbers from 0 to 1. Received: q={q.tolist()}")
        self._compact()
        ends = np.searchsorted(self._keys, np.arange(1, len(self._levels) + 1, dtype="uint64") << FEATURE)
        total = np.concatenate([[0], np.cumsum(self._counts)])
        before = total[np.concatenate([[0], ends[:-1]])]
        count = total[ends] - before
        self._require_values((count == 0).reshape(self.feature_shape))
        place = (count - 1) * q[:, None]
        rank = np.minimum(place.astype("int64"), np.maximum(count - 2, 0))
        low, high = (
            self._value(np.searchsorted(total[1:], before + r, side="right"))
            for r in (rank, np.minimum(rank + 1, count - 1))
        )
        values = _between(low, high, place - rank)
        error = np.where(self._levels > 0, np.ldexp(1.0, np.minimum(self._levels.astype("int32") - 24, 0)), 0.0)
        shape = self.feature_shape
        return Summary(self.images, count.reshape(shape), values.reshape(-1, *shape), error.reshape(shape))

    def _value(self, index: np.ndarray) -> np.ndarray:
        """The values, in the middle of what dropped bits leave open, of some keys."""
        keys = self._keys[index]
        codes = keys.astype("uint32")
        half = (np.uint32(1) << self._levels[keys >> FEATURE].astype("uint32")) >> np.uint32(1)
        return _decoded(np.where(codes == ZERO, codes, codes + half)).astype("float64")

    # -- counting -----------------------------------------------------------------------------------------------------

    def _check_features(self, shape: tuple[int, ...]) -> None:
        if math.prod(shape) > ALL_VALUES >> 8:
            raise ValueError(
                f"Quantiles along axis {self.axis} would be those of {math.prod(shape)} features, of shape {shape}; at "
                f"most {ALL_VALUES >> 8} are allowed, because each keeps a histogram. Choose fewer axes (-1 for each "
                f"channel), or smaller images."
            )

    def _refusal(self, part: np.ndarray, start: int, batch: np.ndarray, name: str, first: int) -> ValueError | None:
        error = super()._refusal(part, start, batch, name, first)
        if error is None and part.dtype == np.float64 and (np.abs(part) > np.finfo("float32").max).any():
            return ValueError(f"{name} holds values that do not fit into float32; divide the data by a constant first.")
        return error

    def _digest(self, part: np.ndarray, kept: tuple[int, ...]) -> Any:
        """Sorted keys and counts of a slice: of narrow integers by their own value, else by codes of float32."""
        sizes = tuple(n if a in kept else 1 for a, n in enumerate(part.shape))
        number = np.arange(math.prod(sizes)).reshape(sizes)
        if part.dtype.kind in "iub" and part.dtype.itemsize <= 2:
            feature, value, counts = _counted(part.view("uint8") if part.dtype == bool else part, number)
            codes = _coded(value.astype("float32"))
        else:
            values = part.astype("float32")
            level = np.uint32(self._levels.min() if len(self._levels) else 0)  # these bits are dropped in any case
            codes = _coded(values) >> level
            if np.isnan(values.max()):  # to be passed over
                seen = ~np.isnan(values)
                codes, number = codes[seen], np.broadcast_to(number, codes.shape)[seen]
            feature, codes, counts = _counted(codes, number)
            codes = codes << np.int64(level)
        return feature.astype("uint64") << FEATURE | codes.astype("uint64"), counts

    def _own_digest(self) -> Any:
        self._compact()
        return self._keys, self._counts, self._levels

    def _absorb(self, digest: Any, shape: tuple[int, ...]) -> None:
        keys, counts, *levels = digest
        if self.feature_shape is None:
            self.feature_shape = shape
            self._levels = np.zeros(math.prod(shape), "uint8")
        if levels:
            self._levels = np.maximum(self._levels, levels[0])
        self._pending.append((keys, counts))
        self._waiting += len(keys)
        if self._waiting > max(PENDING, len(self._keys)):
            self._compact()

    def _compact(self) -> None:
        """Merges what waits, and drops bits of the features that then have too many different values."""
        if self._pending:
            keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
            counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
            self._pending, self._waiting = [], 0
            order = np.argsort(keys, kind="stable")
            self._keys, self._counts = self._dropped(keys[order], counts[order])
        most = min(VALUES, ALL_VALUES // max(1, len(self._levels)))
        while True:
            edges = np.arange(len(self._levels) + 1, dtype="uint64") << FEATURE
            many = np.diff(np.searchsorted(self._keys, edges)) > most
            if not many.any():
                return
            self._levels = self._levels + many.astype("uint8")
            self._keys, self._counts = self._dropped(self._keys, self._counts)

    def _dropped(self, keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sorted keys without the bits that their features drop, each once, and their counts."""
        if not len(keys):
            return keys, counts
        level = self._levels[keys >> FEATURE].astype("uint64")
        keys = keys >> level << level
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        return keys[first], np.add.reduceat(counts, first)

    def _arrays(self) -> dict[str, np.ndarray]:
        self._compact()
        return {"levels": self._levels, "keys": self._keys, "counts": self._counts}

    def _set_arrays(self, state: dict[str, np.ndarray]) -> None:
        self._levels, self._keys, self._counts = (np.array(state[name]) for name in ("levels", "keys", "counts"))


def _coded(values: np.ndarray) -> np.ndarray:
    """float32 values as uint32 codes of the same order: their bits, those of negative values inverted."""
    bits = (values + np.float32(0)).view("uint32")  # -0.0 becomes 0.0
    return bits ^ ((bits.view("int32") >> 31).view("uint32") | ZERO)


def _decoded(codes: np.ndarray) -> np.ndarray:
    """The finite float32 values of codes."""
    codes = np.clip(codes, LOWEST, HIGHEST)
    return np.where(codes >= ZERO, codes ^ ZERO, ~codes).view("float32")


def _counted(values: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which integers ``values`` each feature has, in order, and how often; ``number`` says which feature a value is of.

    Returns:
        numbers of features, values, counts: 1-D arrays of int64.
    """
    if not values.size:
        return (np.zeros(0, "int64"),) * 3
    base = int(values.min())
    span = int(values.max()) - base + 1
    offset = number * span - base
    size = (int(number.max()) + 1) * span
    if size <= min(TABLE, 8 * values.size):
        table = np.zeros(size, "int64")
        step = max(1, max(BLOCK, size) // values[:1].size)
        for start in range(0, len(values), step):
            block = slice(start, start + step)
            cells = values[block] + (offset[block] if len(offset) == len(values) else offset)
            table += np.bincount(cells.ravel(), minlength=size)
        cells = np.flatnonzero(table)
        return cells // span, cells % span + base, table[cells]
    cells, counts = np.unique(values + offset, return_counts=True)
    return cells // span, cells % span + base, counts


def _between(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear interpolation as ``numpy.quantile`` rounds it: from the nearer of the two ends."""
    step = high - low
    return np.where(share < 0.5, low + step * share, high - step * (1 - share))
