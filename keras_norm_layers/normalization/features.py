"""What the layers share whose statistics are one number a feature: along which axes, given or learnt, as weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend
from keras_norm_layers.normalization.adaptive import AdaptiveLayer
from keras_norm_layers.statistics.moments import NAN_POLICIES, axes_tuple, kept_axes
from keras_norm_layers.validation import check_choice


class FeatureLayer(AdaptiveLayer):
    """Base: statistics of one number a feature each, along ``axis``, given as arguments or learnt.

    A subclass names its ``STATISTICS``, beside ``count``, and its ``ACCUMULATOR``; it puts what the user gave into
    ``_given``, and says in ``statistics_of`` what the statistics are and in ``transform`` what is done with them.
    """

    STATISTICS: tuple[str, ...] = ()
    ACCUMULATOR: Any = None  # a class of ``statistics``, made of the axes and the NaN policy

    def __init__(self, axis: Any, nan_policy: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self._axes = axes_tuple(axis)
        self.nan_policy = check_choice(type(self).__name__, "nan_policy", nan_policy, NAN_POLICIES)
        self._given: dict[str, np.ndarray] = {}

    @property
    def has_given_statistics(self) -> bool:
        """True when the statistics were arguments."""
        return bool(self._given)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for images of this shape; sizes along ``axis`` must be known."""
        shape = tuple(input_shape)
        self._kept = kept_axes(self._axes, len(shape), f"The input of {self._title()}")
        features = tuple(shape[a] for a in self._kept)
        if None in features:
            raise ValueError(
                f"{self._title()}: the sizes along axis={self.axis} must be known. Received input shape {shape}. Name "
                f"them in keras.Input, or choose axes of known size."
            )
        self._built_for = tuple(n if a in self._kept else None for a, n in enumerate(shape))
        self._broadcast = tuple(n if a in self._kept else 1 for a, n in enumerate(shape))
        for name in self.STATISTICS:
            value = self._given.get(name, np.array(np.nan))
            try:
                value = np.broadcast_to(value, features)
            except ValueError as error:
                raise ValueError(
                    f"{self._title()}: `{name}` of shape {value.shape} does not broadcast to the features' shape "
                    f"{features}."
                ) from error
            setattr(self, name, self._add_statistic(name, features, value))
        self.count = self._add_statistic("count", (), 0.0)
        self.built = True

    def empty_accumulator(self) -> Any:
        """What the layer learns with, along its axes."""
        return self.ACCUMULATOR(self._kept, self.nan_policy)

    def restore_accumulator(self, state: dict[str, np.ndarray]) -> Any:
        """The same from its saved state; what happens to NaN from now on is this layer's to say."""
        accumulator = self.ACCUMULATOR.from_state(state)
        accumulator.nan_policy = self.nan_policy
        return accumulator

    def _read(self, x: Any, name: str) -> Any:
        """A statistic as a tensor that broadcasts to ``x``, a batch or one image."""
        return self._broadcast_to(x, backend.read(getattr(self, name), x))

    def _broadcast_to(self, x: Any, statistic: Any) -> Any:
        """A tensor of the features' shape, in the shape that broadcasts to ``x``, a batch or one image."""
        return backend.namespace(x).reshape(statistic, self._broadcast[len(self._broadcast) - len(x.shape) :])


def plain(value: Any) -> Any:
    """An argument as the configuration keeps it: a tensor becomes a NumPy array."""
    return backend.to_numpy(value) if hasattr(value, "shape") else value


def checked_numbers(owner: str, name: str, value: Any, low: float | None = None) -> np.ndarray:
    """A statistic that the user gave, as a float64 array of finite numbers, of at least ``low``."""
    try:
        array = np.asarray(backend.to_numpy(value), "float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner}: `{name}` must be a number or an array. Received: {name}={value!r}") from error
    if not np.isfinite(array).all() or (low is not None and (array < low).any()):
        bounds = "finite numbers" if low is None else f"finite numbers of at least {low:g}"
        raise ValueError(f"{owner}: `{name}` must hold {bounds}. Received: {name}={value!r}")
    return array
