"""Count, mean and variance of any number of batches, mergeable: exact for integers, centred in float64 for floats.

Integer images add up to integers, so their sums and sums of squares are kept without losing a bit, and the result has
the same bits for any batch size, order or split over machines (``exact.py``). Floating-point images are centred before
they are squared, and partial results merge (``centred.py``). All cores take part, and the number of them changes no
bit.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.statistics import centred, exact
from keras_norm_layers.statistics.blocks import COLUMNS as COLUMNS
from keras_norm_layers.statistics.blocks import in_parts, merged
from keras_norm_layers.statistics.blocks import slices as slices
from keras_norm_layers.statistics.centred import Centred

NAN_POLICIES = ("raise", "omit")
TOO_LARGE = "its values are too large for a variance in float64; divide them by a constant first."


class Statistics(NamedTuple):
    """What the moments say: ``images`` seen, values a feature (``count``), float64 ``mean`` and biased ``variance``.

    ``count`` is one number, or, where NaN may be left out, an int64 array with a number for each feature.
    """

    images: int
    count: int | np.ndarray  # type: ignore[assignment]  # a tuple's own count is no loss here
    mean: np.ndarray
    variance: np.ndarray


class Moments:
    """Accumulates count, mean and variance; two accumulators merge into one.

    Args:
        axis: the axes of a batch that keep statistics of their own: -1 for each channel of channels-last images, None
            for one mean and one variance over all, (1, 2, 3) for each pixel. Axis 0 counts the images and is refused.
        nan_policy: "raise" refuses batches with NaN; "omit" leaves these values out, so that each feature has a count
            of its own. Infinity is refused always.

    Example:
        >>> import numpy as np
        >>> a = Moments().add(np.array([[1, 10], [2, 10]]))
        >>> b = Moments().add(np.array([[3, 40]]))
        >>> images, count, mean, variance = a.merge(b).result()
        >>> images, count, mean.tolist(), variance.round(3).tolist()
        (3, 3, [2.0, 20.0], [0.667, 200.0])
    """

    def __init__(self, axis: Any = -1, nan_policy: str = "raise") -> None:
        if nan_policy not in NAN_POLICIES:
            raise ValueError(f"`nan_policy` must be one of {list(NAN_POLICIES)}. Received: nan_policy={nan_policy!r}")
        self.axis = axes_tuple(axis)
        self.nan_policy = nan_policy
        self.images = 0
        self.feature_shape: tuple[int, ...] | None = None
        self._integers: exact.Sums | None = None
        self._floats: Centred | None = None

    def add(self, batch: Any, name: str = "the batch", first_image: int = 0) -> Moments:
        """Adds a batch of images. Nothing is added when it raises.

        Args:
            batch: array of integers, booleans or floats, images along its first axis; it is never cast as a whole. A
                tensor of integers of up to 32 bits on an accelerator is added up there, exactly.
            name: what error messages call the batch.
            first_image: number of its first image, for error messages.

        Raises:
            TypeError: for values that are no real numbers.
            ValueError: for infinity, for NaN unless they are to be omitted, and where the feature axes have another
                size than before.
        """
        on_device = False
        if not isinstance(batch, np.ndarray):
            # Imported here: the workers of a cluster add NumPy arrays, and load no Keras for it.
            from keras_norm_layers.kernels import backend, reduce

            on_device = reduce.takes(batch)
            batch = batch if on_device else backend.to_numpy(batch)
        if not on_device:
            check_dtype(batch, name)
        kept = kept_axes(self.axis, batch.ndim, name)
        feature_shape = tuple(batch.shape[a] for a in kept)
        if self.feature_shape not in (None, feature_shape):
            raise ValueError(
                f"{name} has {feature_shape} features along axis {self.axis}, earlier ones {self.feature_shape}."
            )
        if 0 in batch.shape:
            return self
        integers: exact.Sums | None = None
        floats: Centred | None = None
        if on_device:
            integers = exact.Sums.from_digits(*reduce.digit_sums(batch, kept))
        elif is_integer(batch.dtype):
            integers = functools.reduce(merged, in_parts(lambda _, part: exact.integer_sums(part, kept), batch))
        else:
            floats = self._float_sums(batch, kept, name, first_image)
        self._take(feature_shape, int(batch.shape[0]), integers, floats, name)
        return self

    def merge(self, other: Moments) -> Moments:
        """Adds what another accumulator has seen; ``other`` stays as it is.

        Raises:
            ValueError: where the axes, the features or the NaN policies differ.
        """
        if other.nan_policy != self.nan_policy or other.axis != self.axis:
            raise ValueError(
                f"Moments of axis={self.axis}, nan_policy={self.nan_policy!r} and axis={other.axis}, "
                f"nan_policy={other.nan_policy!r} cannot be merged: give both the same arguments."
            )
        if other.feature_shape is None:
            return self
        if self.feature_shape not in (None, other.feature_shape):
            raise ValueError(f"Moments of features {self.feature_shape} and {other.feature_shape} cannot be merged.")
        self._take(other.feature_shape, other.images, other._integers, other._floats, "the other accumulator")
        return self

    def _take(self, feature_shape: tuple[int, ...], images: int, integers: Any, floats: Any, name: str) -> None:
        with np.errstate(all="ignore"):
            all_floats = merged(self._floats, floats)
        if all_floats is not None and not _is_finite(all_floats):
            raise ValueError(f"{name}: {TOO_LARGE}")
        self.feature_shape = feature_shape
        self.images += images
        self._integers, self._floats = merged(self._integers, integers), all_floats

    def _float_sums(self, batch: np.ndarray, kept: tuple[int, ...], name: str, first_image: int) -> Centred:
        def of_part(start: int, part: np.ndarray) -> Centred:
            with np.errstate(all="ignore"):
                sums = centred.float_sums(part, kept)
                if self.nan_policy == "omit" and not _is_finite(sums):
                    sums = centred.omitting_sums(part, kept)
            if not _is_finite(sums):
                raise non_finite(batch, part, start, name, first_image, self.nan_policy)
            return sums

        with np.errstate(all="ignore"):
            return functools.reduce(merged, in_parts(of_part, batch))

    def result(self) -> Statistics:
        """The statistics so far, arrays of the feature shape. Integers alone: the exact values, rounded once.

        Raises:
            ValueError: when nothing was added, and when all values of a feature were NaN and left out.
        """
        if self.feature_shape is None:
            raise ValueError("Moments hold no data yet: add a batch first.")
        parts = [Centred(*p.centred()) if isinstance(p, exact.Sums) else p for p in (self._integers, self._floats) if p]
        total = functools.reduce(merged, parts)
        count = total.count
        if self.nan_policy == "omit" or isinstance(count, np.ndarray):
            count = np.broadcast_to(np.asarray(count, "int64"), total.mean.shape).reshape(self.feature_shape)
            if not count.all():
                raise ValueError(_without_values(np.argwhere(count == 0), self.axis))
        mean, variance = (v.reshape(self.feature_shape) for v in (total.mean, total.squares / total.count))
        if self._floats is None and self._integers is not None:  # one rounding less than by way of the sum of squares
            variance = self._integers.variance().reshape(self.feature_shape)
        return Statistics(self.images, count, mean, variance)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays."""
        state = {"axis": np.array(self.axis, "int64"), "omits_nan": np.array(self.nan_policy == "omit")}
        if self.feature_shape is not None:
            state["feature_shape"] = np.array(self.feature_shape, "int64")
            state["images"] = np.array(self.images, "int64")
        if self._integers is not None:
            state |= {f"integer_{key}": value for key, value in self._integers.state().items()}
        if self._floats is not None:
            state |= {"float_count": np.array(self._floats.count, "int64")}
            state |= {f"float_{key}": getattr(self._floats, key) for key in ("mean", "rest", "squares")}
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Moments:
        """The accumulator that ``state()`` described."""
        moments = cls(tuple(int(a) for a in state["axis"]), NAN_POLICIES[int(state.get("omits_nan", 0))])
        if "feature_shape" in state:
            moments.feature_shape = tuple(int(n) for n in state["feature_shape"])
            moments.images = int(state["images"])
        if "integer_count" in state:
            moments._integers = exact.Sums.from_state({k[8:]: v for k, v in state.items() if k.startswith("integer_")})
        if "float_count" in state:
            count, mean, squares = (np.array(state[f"float_{key}"]) for key in ("count", "mean", "squares"))
            rest = np.array(state.get("float_rest", np.zeros_like(mean)))  # files of earlier versions have none
            moments._floats = Centred(count if count.ndim else int(count), mean, rest, squares)
        return moments


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


def _without_values(features: np.ndarray, axis: tuple[int, ...]) -> str:
    shown = ", ".join(str(tuple(f.tolist()) if len(f) > 1 else int(f.sum())) for f in features[:5])
    more = f" and {len(features) - 5} more" if len(features) > 5 else ""
    return (
        f"All values of some features are NaN and were left out, so these have no mean: {shown}{more} (index along "
        f"axis {axis}). Remove these features, or replace the values (numpy.nan_to_num) before adapting."
    )


def _is_finite(sums: Centred) -> bool:
    return bool(np.isfinite(sums.mean).all() and np.isfinite(sums.squares).all())


def non_finite(
    batch: np.ndarray, part: np.ndarray, start: int, name: str, first: int, nan_policy: str = "raise"
) -> ValueError:
    """The error that names the batch, its images and the first one with NaN or infinity in a slice of it."""
    flat = part.reshape(len(part), -1)
    where = f"{name} (images {first} to {first + len(batch) - 1})"
    refused = np.isinf if nan_policy == "omit" else lambda row: ~np.isfinite(row)
    bad = np.flatnonzero([refused(row).any() for row in flat])
    if not len(bad):
        return ValueError(f"{where}: {TOO_LARGE}")
    nan = nan_policy == "raise" and np.isnan(flat[bad[0]].astype("float64")).any()
    what = "NaN" if nan else "infinity"
    return ValueError(
        f"{where} holds {what}, first in image {first + start + int(bad[0])}. Statistics need finite values: remove "
        f"the image, or replace the values (numpy.nan_to_num) before adapting."
    )
