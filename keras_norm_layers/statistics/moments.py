"""Count, mean and variance of any number of batches, mergeable: exact for integers, centred in float64 for floats.

Integer images add up to integers, so their sums and sums of squares are kept without losing a bit, and the result has
the same bits for any batch size, order or split over machines. The sums run on cache-sized blocks in floating point,
which is fastest, and each block is so short that every partial sum is an integer its type can hold exactly.
Floating-point images go through two passes a block (mean, then squares about the mean), and blocks merge by the formula
of Chan, Golub and LeVeque (1983).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.statistics import exact

# A batch is taken in slices of this many bytes at most, and a slice in blocks that stay in the cache of a core.
SLICE_BYTES = 1 << 24
BLOCK_VALUES = 1 << 16
# Narrow data (3 channels) is viewed with about this many columns, so that sums over rows are long vector operations.
COLUMNS = 384
WIDEST = 4096


class Statistics(NamedTuple):
    """What the moments say: ``images`` seen, values a feature (``count``), float64 ``mean`` and biased ``variance``."""

    images: int
    count: int  # type: ignore[assignment]  # a tuple's own count is no loss here
    mean: np.ndarray
    variance: np.ndarray


class Moments:
    """Accumulates count, mean and variance; two accumulators merge into one.

    Args:
        axis: the axes of a batch that keep statistics of their own: -1 for each channel of channels-last images, None
            for one mean and one variance over all, (1, 2, 3) for each pixel. Axis 0 counts the images and is refused.

    Example:
        >>> import numpy as np
        >>> a = Moments().add(np.array([[1, 10], [2, 10]]))
        >>> b = Moments().add(np.array([[3, 40]]))
        >>> images, count, mean, variance = a.merge(b).result()
        >>> images, count, mean.tolist(), variance.round(3).tolist()
        (3, 3, [2.0, 20.0], [0.667, 200.0])
    """

    def __init__(self, axis: Any = -1) -> None:
        self.axis = axes_tuple(axis)
        self.images = 0
        self.feature_shape: tuple[int, ...] | None = None
        self._integers: exact.Sums | None = None
        self._floats: _Centred | None = None

    def add(self, batch: Any, name: str = "the batch", first_image: int = 0) -> Moments:
        """Adds a batch of images. Nothing is added when it raises.

        Args:
            batch: array of integers, booleans or floats, images along its first axis; it is never cast as a whole.
            name: what error messages call the batch.
            first_image: number of its first image, for error messages.

        Raises:
            TypeError: for values that are no real numbers.
            ValueError: for NaN or infinity, and where the feature axes have another size than before.
        """
        batch = np.asarray(batch)
        check_dtype(batch, name)
        kept = kept_axes(self.axis, batch.ndim, name)
        feature_shape = tuple(batch.shape[a] for a in kept)
        if self.feature_shape not in (None, feature_shape):
            raise ValueError(
                f"{name} has {feature_shape} features along axis {self.axis}, earlier ones {self.feature_shape}."
            )
        if batch.size:
            integers, floats = _batch_sums(batch, kept, name, first_image)
            self.feature_shape = feature_shape
            self.images += len(batch)
            self._integers = _merged(self._integers, integers)
            self._floats = _merged(self._floats, floats)
        return self

    def merge(self, other: Moments) -> Moments:
        """Adds what another accumulator has seen; ``other`` stays as it is."""
        if other.feature_shape is None:
            return self
        if self.feature_shape not in (None, other.feature_shape):
            raise ValueError(f"Moments of features {self.feature_shape} and {other.feature_shape} cannot be merged.")
        self.feature_shape = other.feature_shape
        self.images += other.images
        self._integers = _merged(self._integers, other._integers)
        self._floats = _merged(self._floats, other._floats)
        return self

    def result(self) -> Statistics:
        """The statistics so far, arrays of the feature shape. Integers alone: the exact values, rounded once.

        Raises:
            ValueError: when nothing was added.
        """
        if self.feature_shape is None:
            raise ValueError("Moments hold no data yet: add a batch first.")
        parts = [
            p.centred() if isinstance(p, exact.Sums) else p for p in (self._integers, self._floats) if p is not None
        ]
        total = _Centred(*parts[0])
        for part in parts[1:]:
            total = total.merged(_Centred(*part))
        mean, variance = (v.reshape(self.feature_shape) for v in (total.mean, total.squares / total.count))
        if self._floats is None and self._integers is not None:  # one rounding less than by way of the sum of squares
            variance = self._integers.variance().reshape(self.feature_shape)
        return Statistics(self.images, total.count, mean, variance)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays."""
        state = {"axis": np.array(self.axis, "int64")}
        if self.feature_shape is not None:
            state["feature_shape"] = np.array(self.feature_shape, "int64")
            state["images"] = np.array(self.images, "int64")
        if self._integers is not None:
            state |= {f"integer_{key}": value for key, value in self._integers.state().items()}
        if self._floats is not None:
            state |= {"float_count": np.array(self._floats.count, "int64")}
            state |= {"float_mean": self._floats.mean, "float_squares": self._floats.squares}
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Moments:
        """The accumulator that ``state()`` described."""
        moments = cls(tuple(int(a) for a in state["axis"]))
        if "feature_shape" in state:
            moments.feature_shape = tuple(int(n) for n in state["feature_shape"])
            moments.images = int(state["images"])
        if "integer_count" in state:
            moments._integers = exact.Sums.from_state({k[8:]: v for k, v in state.items() if k.startswith("integer_")})
        if "float_count" in state:
            count, mean, squares = (np.array(state[f"float_{key}"]) for key in ("count", "mean", "squares"))
            moments._floats = _Centred(int(count), mean, squares)
        return moments


class _Centred(NamedTuple):
    """Count, mean and sum of squares about the mean, of flat features."""

    count: int  # type: ignore[assignment]
    mean: np.ndarray
    squares: np.ndarray

    def merged(self, other: _Centred) -> _Centred:
        count = self.count + other.count
        delta = other.mean - self.mean
        # delta is exactly 0 where both are one constant, so a constant feature keeps a variance of exactly 0.
        mean = self.mean + delta * (other.count / count)
        squares = self.squares + other.squares + delta * delta * (self.count * (other.count / count))
        return _Centred(count, mean, squares)


def _merged(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a.merged(b)


def axes_tuple(axis: Any) -> tuple[int, ...]:
    """``axis`` as a tuple of integers: None is (), one for all."""
    if axis is None:
        return ()
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if any(isinstance(a, bool) or not isinstance(a, (int, np.integer)) for a in axes) or len(set(axes)) != len(axes):
        raise ValueError(f"`axis` must be an integer, a tuple of different integers or None. Received: axis={axis!r}")
    if 0 in axes:
        raise ValueError(f"`axis` must not hold 0: the first axis counts the images. Received: axis={axis!r}")
    return tuple(int(a) for a in axes)


def kept_axes(axis: tuple[int, ...], rank: int, name: str = "the batch") -> tuple[int, ...]:
    """The axes of a batch of ``rank`` that keep statistics of their own, counted from 0, in order."""
    if rank < 1:
        raise ValueError(f"{name} is a single number; images are counted along a first axis.")
    kept = tuple(sorted(a + rank if a < 0 else a for a in axis))
    if any(not 0 < a < rank for a in kept) or len(set(kept)) != len(kept):
        raise ValueError(f"`axis` must name different axes from 1 to {rank - 1} of {rank} axes. Received: axis={axis}")
    return kept


def is_integer(dtype: np.dtype) -> bool:
    """True for integers and booleans."""
    return dtype.kind in "iub"


def check_dtype(batch: np.ndarray, name: str) -> None:
    """TypeError unless ``batch`` holds integers, booleans or floats (bfloat16 and the like included)."""
    if batch.dtype.kind not in "iubf" and not batch.dtype.name.startswith(("bfloat", "float")):
        kind = "text or objects" if batch.dtype.kind in "OSUV" else "no real numbers"
        raise TypeError(
            f"{name} holds {kind} (dtype {batch.dtype}, shape {batch.shape}). Allowed: arrays of integers, booleans or "
            f"floats; images of different sizes have to come in batches of one size each."
        )


def slices(batch: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first image, contiguous slice of images) over a batch, some 16 MB at a time."""
    step = max(1, SLICE_BYTES // max(1, batch[:1].nbytes))
    for start in range(0, len(batch), step):
        yield start, np.ascontiguousarray(batch[start : start + step])


def _batch_sums(batch: np.ndarray, kept: tuple[int, ...], name: str, first: int) -> tuple[Any, Any]:
    integers: exact.Sums | None = None
    floats: _Centred | None = None
    for start, part in slices(batch):
        if is_integer(part.dtype):
            integers = _merged(integers, _integer_sums(part, kept))
        else:
            with np.errstate(all="ignore"):
                sums = _float_sums(part, kept)
            if not (np.isfinite(sums.mean).all() and np.isfinite(sums.squares).all()):
                raise non_finite(batch, part, start, name, first)
            floats = _merged(floats, sums)
    return integers, floats


def non_finite(batch: np.ndarray, part: np.ndarray, start: int, name: str, first: int) -> ValueError:
    """The error that names the batch, its images and the first one with NaN or infinity in a slice of it."""
    flat = part.reshape(len(part), -1)
    where = f"{name} (images {first} to {first + len(batch) - 1})"
    bad = np.flatnonzero([not np.isfinite(row).all() for row in flat])
    if not len(bad):
        return ValueError(f"{where} holds values too large for a variance in float64; divide them by a constant first.")
    what = "NaN" if np.isnan(flat[bad[0]].astype("float64")).any() else "infinity"
    return ValueError(
        f"{where} holds {what}, first in image {first + start + int(bad[0])}. Statistics need finite values: remove "
        f"the image, or replace the values (numpy.nan_to_num) before adapting."
    )


def _tables(part: np.ndarray, kept: tuple[int, ...]) -> Iterator[tuple[np.ndarray, int, tuple[int, ...]]]:
    """The slice as 2-D tables whose rows may be summed: (table, columns' leading size, shape of a column group).

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


def _blocks(table: np.ndarray, most_rows: int) -> Iterator[tuple[slice, np.ndarray]]:
    for left in range(0, table.shape[1], WIDEST):
        columns = slice(left, min(left + WIDEST, table.shape[1]))
        rows = max(1, min(most_rows, BLOCK_VALUES // (columns.stop - columns.start)))
        for top in range(0, len(table), rows):
            yield columns, table[top : top + rows, columns]


def _folded(kept: tuple[int, ...], group: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """The axes of (tile, *group) that do not keep statistics of their own."""
    lead = rank - len(group)
    return (0, *(1 + a - lead for a in range(lead, rank) if a not in kept))


def _integer_sums(part: np.ndarray, kept: tuple[int, ...]) -> exact.Sums:
    if part.dtype == bool:
        part = part.view("uint8")
    peak = exact.peak(part)
    total: exact.Sums | None = None
    for table, tile, group in _tables(part, kept):
        fold = _folded(kept, group, part.ndim)

        sums, squares, digits = exact.digit_sums(table, peak, part.size, _blocks)
        axes = tuple(a + 1 for a in fold)
        sums, squares = (v.reshape(-1, tile, *group).sum(axes).reshape(len(v), -1) for v in (sums, squares))
        count = table.size // sums.shape[1]
        total = _merged(total, exact.Sums.from_digits(count, sums, squares, digits))
    assert total is not None
    return total


def _float_sums(part: np.ndarray, kept: tuple[int, ...]) -> _Centred:
    corner = part[tuple(slice(None) if a in kept else slice(0, 1) for a in range(part.ndim))].astype("float64")
    total: _Centred | None = None
    for table, tile, group in _tables(part, kept):
        # Values count from the feature's first one: a constant feature becomes exactly 0 and stays so.
        lead = part.ndim - len(group)
        pivot = np.tile(np.broadcast_to(corner.reshape(corner.shape[lead:]), group).ravel(), tile)
        rows, mean, squares = len(table), *_centred_columns(table, pivot)
        fold = _folded(kept, group, part.ndim)
        mean, squares = mean.reshape(tile, *group), squares.reshape(tile, *group)
        middle = mean.mean(fold, keepdims=True)
        squares = (squares + rows * (mean - middle) ** 2).sum(fold).ravel()
        feature = corner.ravel() + middle.ravel()
        total = _merged(total, _Centred(table.size // feature.size, feature, squares))
    assert total is not None
    return total


def _centred_columns(table: np.ndarray, pivot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean minus ``pivot`` and sum of squares about the mean, of each column."""
    mean, squares = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    seen = {0: 0}
    for columns, block in _blocks(table, BLOCK_VALUES):
        values = block.astype("float64")
        values -= pivot[columns]
        here = np.ones(len(values)) @ values / len(values)
        values -= here
        before = seen.setdefault(columns.start, 0)
        delta = here - mean[columns]
        share = len(values) / (before + len(values))
        mean[columns] += delta * share
        squares[columns] += np.ones(len(values)) @ np.square(values, out=values) + delta * delta * (before * share)
        seen[columns.start] = before + len(values)
    return mean, squares
