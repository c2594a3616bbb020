"""Minimum and maximum of any number of batches, and what all accumulators of ordered values share."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from keras_norm_layers.statistics.blocks import folded, in_parts, tables
from keras_norm_layers.statistics.moments import (
    NAN_POLICIES,
    axes_tuple,
    check_dtype,
    is_integer,
    kept_axes,
    non_finite,
)

Self = TypeVar("Self", bound="OrderAccumulator")


class Bounds(NamedTuple):
    """What extremes say: ``images`` seen, and float64 ``minimum`` and ``maximum`` of each feature."""

    images: int
    minimum: np.ndarray
    maximum: np.ndarray


class OrderAccumulator:
    """Base of the accumulators whose result rests on the order of the values, not on their sums.

    A subclass says in ``_digest`` what a slice of images becomes, in ``_absorb`` how it takes such a digest in, and in
    ``_arrays`` and ``_set_arrays`` what its state is beside the axes and the number of images.
    """

    def __init__(self, axis: Any = -1, nan_policy: str = "raise") -> None:
        if nan_policy not in NAN_POLICIES:
            raise ValueError(f"`nan_policy` must be one of {list(NAN_POLICIES)}. Received: nan_policy={nan_policy!r}")
        self.axis = axes_tuple(axis)
        self.nan_policy = nan_policy
        self.images = 0
        self.feature_shape: tuple[int, ...] | None = None

    def add(self: Self, batch: Any, name: str = "the batch", first_image: int = 0) -> Self:
        """Adds a batch of images. Nothing is added when it raises.

        Args:
            batch: array of integers, booleans or floats, images along its first axis; it is never cast as a whole.
            name: what error messages call the batch.
            first_image: number of its first image, for error messages.

        Raises:
            TypeError: for values that are no real numbers.
            ValueError: for infinity, for NaN unless ``nan_policy="omit"``, and where the feature axes have another size
                than before.
        """
        if not isinstance(batch, np.ndarray):
            # Imported here: the workers of a cluster add NumPy arrays, and load no Keras for it.
            from keras_norm_layers.kernels import backend

            batch = backend.to_numpy(batch)
        check_dtype(batch, name)
        kept = kept_axes(self.axis, batch.ndim, name)
        shape = tuple(batch.shape[a] for a in kept)
        if self.feature_shape not in (None, shape):
            raise ValueError(f"{name} has {shape} features along axis {self.axis}, earlier ones {self.feature_shape}.")
        self._check_features(shape)
        if batch.size:
            for error in in_parts(lambda i, part: self._refusal(_known(part), i, batch, name, first_image), batch):
                if error is not None:
                    raise error
            for digest in in_parts(lambda _, part: self._digest(_known(part), kept), batch):
                self._absorb(digest, shape)
            self.images += len(batch)
        return self

    def merge(self: Self, other: Self) -> Self:
        """Adds what another accumulator has seen; ``other`` stays as it is.

        Raises:
            ValueError: where the axes, the features or the NaN policies differ.
        """
        if other.nan_policy != self.nan_policy or other.axis != self.axis:
            raise ValueError(
                f"{type(self).__name__} of axis={self.axis}, nan_policy={self.nan_policy!r} and axis={other.axis}, "
                f"nan_policy={other.nan_policy!r} cannot be merged: give both the same arguments."
            )
        if other.feature_shape is None:
            return self
        if self.feature_shape not in (None, other.feature_shape):
            raise ValueError(
                f"{type(self).__name__} of features {self.feature_shape} and {other.feature_shape} cannot be merged."
            )
        self.images += other.images
        self._absorb(other._own_digest(), other.feature_shape)
        return self

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays."""
        state = {"axis": np.array(self.axis, "int64"), "omits_nan": np.array(self.nan_policy == "omit")}
        if self.feature_shape is not None:
            state["feature_shape"] = np.array(self.feature_shape, "int64")
            state["images"] = np.array(self.images, "int64")
            state |= self._arrays()
        return state

    @classmethod
    def from_state(cls: type[Self], state: dict[str, np.ndarray]) -> Self:
        """The accumulator that ``state()`` described."""
        made = cls(tuple(int(a) for a in state["axis"]), NAN_POLICIES[int(state["omits_nan"])])
        if "feature_shape" in state:
            made.feature_shape = tuple(int(n) for n in state["feature_shape"])
            made.images = int(state["images"])
            made._set_arrays(state)
        return made

    # -- what subclasses define ---------------------------------------------------------------------------------------

    def _check_features(self, shape: tuple[int, ...]) -> None:
        """Raises where there are more features than it can keep."""

    def _digest(self, part: np.ndarray, kept: tuple[int, ...]) -> Any:
        raise NotImplementedError

    def _own_digest(self) -> Any:
        raise NotImplementedError

    def _absorb(self, digest: Any, shape: tuple[int, ...]) -> None:
        raise NotImplementedError

    def _arrays(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def _set_arrays(self, state: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    # -- checks -------------------------------------------------------------------------------------------------------

    def _refusal(self, part: np.ndarray, start: int, batch: np.ndarray, name: str, first: int) -> ValueError | None:
        """The error for infinity, and for NaN where it is not to be left out."""
        with np.errstate(invalid="ignore"):
            if is_integer(part.dtype) or np.isfinite(part.min() + part.max() * 0):
                return None
        fine = ~np.isinf(part) if self.nan_policy == "omit" else np.isfinite(part)
        return None if fine.all() else non_finite(batch, part, start, name, first, self.nan_policy)

    def _require_values(self, empty: np.ndarray) -> None:
        """ValueError when nothing was added, or only NaN to the features where ``empty`` is true."""
        if empty.any():
            first = tuple(int(i) for i in np.argwhere(empty)[0])
            raise ValueError(
                f"All values of {int(empty.sum())} of {empty.size} features are NaN and were left out, so these have "
                f"no statistics; the first is {first} along axis {self.axis}. Remove these features, or replace the "
                f"values (numpy.nan_to_num) before adapting."
            )

    def _require_data(self) -> None:
        if self.feature_shape is None:
            raise ValueError(f"{type(self).__name__} hold no data yet: add a batch first.")


def _known(part: np.ndarray) -> np.ndarray:
    """bfloat16 and the like, of which NumPy knows little, as float32; all else as it is."""
    return part if part.dtype.kind in "iubf" else part.astype("float32")


class Extremes(OrderAccumulator):
    """Accumulates minimum and maximum, the same bits for any order, batch size and merge tree.

    Args:
        axis: the axes of a batch that keep statistics of their own, as for ``Moments``: -1 for each channel, None for
            all values together, (1, 2, 3) for each pixel.
        nan_policy: "raise" for an error where a value is NaN, "omit" to pass over NaN. Infinity is always an error.

    Example:
        >>> import numpy as np
        >>> a = Extremes().add(np.array([[1, 10], [2, 30]]))
        >>> images, minimum, maximum = a.merge(Extremes().add(np.array([[-3, 20]]))).result()
        >>> images, minimum.tolist(), maximum.tolist()
        (3, [-3.0, 10.0], [2.0, 30.0])
    """

    def __init__(self, axis: Any = -1, nan_policy: str = "raise") -> None:
        super().__init__(axis, nan_policy)
        self._low: np.ndarray | None = None
        self._high: np.ndarray | None = None

    def result(self) -> Bounds:
        """Minimum and maximum so far, of the feature shape; 64-bit integers are rounded to float64.

        Raises:
            ValueError: when nothing was added, and for features that were NaN in every image.
        """
        self._require_data()
        assert self._low is not None and self._high is not None
        self._require_values(np.isnan(self._low))
        return Bounds(self.images, self._low.copy(), self._high.copy())

    def _digest(self, part: np.ndarray, kept: tuple[int, ...]) -> Any:
        return _reduced(np.fmin, part, kept), _reduced(np.fmax, part, kept)

    def _own_digest(self) -> Any:
        return self._low, self._high

    def _absorb(self, digest: Any, shape: tuple[int, ...]) -> None:
        low, high = digest
        self._low = low if self._low is None else np.fmin(self._low, low)
        self._high = high if self._high is None else np.fmax(self._high, high)
        self.feature_shape = shape

    def _arrays(self) -> dict[str, np.ndarray]:
        assert self._low is not None and self._high is not None
        return {"minimum": self._low, "maximum": self._high}

    def _set_arrays(self, state: dict[str, np.ndarray]) -> None:
        self._low, self._high = np.array(state["minimum"]), np.array(state["maximum"])


def _reduced(smaller: np.ufunc, part: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    """``smaller`` (fmin or fmax) over all axes but the kept ones, float64 of the feature shape; -0.0 becomes 0.0."""
    best = []
    for table, tile, group in tables(part, kept):
        rows = smaller.reduce(table, axis=0).reshape(tile, *group)
        best.append(smaller.reduce(rows, axis=folded(kept, group, part.ndim)))
    return smaller.reduce(best).astype("float64") + 0.0
