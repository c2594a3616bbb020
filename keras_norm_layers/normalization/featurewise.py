"""Normalization with the statistics of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.normalization.adaptive import AdaptiveLayer
from keras_norm_layers.statistics.moments import NAN_POLICIES, Moments, axes_tuple, kept_axes
from keras_norm_layers.validation import check_bool, check_choice, check_number


@serializable
class FeaturewiseNormalization(AdaptiveLayer):
    """Subtracts the mean of a data set and divides by its standard deviation: y = (x - mean) / (std + epsilon).

    ``adapt`` learns mean and (biased) standard deviation in one pass: exactly for integers, in float64 for floats. They
    are weights of the layer, ``mean``, ``std`` and ``count`` (the number of images seen), and are saved with the model.
    A feature whose std is 0 is centred and not scaled.

    Input: images of any integer or float dtype, channels last (N, H, W, C), or any other shape with images along its
    first axis; inside ``tf.data`` also one image. Output: the same shape, in the layer's dtype (float32 by default,
    whatever the global policy; computed in float32 always). A float32 mean has 24 bits: so much does it resolve of data
    far from zero.

    Args:
        axis: axes that keep statistics of their own: -1 a channel, None one mean and std for all values, (1, 2, 3) each
            pixel (the mean image). Sizes along them must be known and stay; along the others they may vary.
        center: subtract the mean. Without it y = x / (std + epsilon).
        scale: divide by the standard deviation.
        epsilon: added to the standard deviation.
        mean: the mean to use instead of a learnt one: a number, or an array that broadcasts to the features.
        std: the standard deviation to use. Give all that ``center`` and ``scale`` need, and the layer needs no
            adapting.
        invert: undo it: y = x * (std + epsilon) + mean.
        nan_policy: what ``adapt`` and ``update`` do with NaN: "raise" refuses the data; "omit" leaves these values out,
            so that mean and std of a feature are those of its other values, as in ``numpy.nanmean``. ``count`` stays
            the number of images. In the images that are normalized NaN stays NaN. Infinity is refused always.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for arguments out of bounds, for mean without std or the reverse where both are needed; from
            ``merge``, for a layer with another ``axis`` or ``nan_policy``.
        RuntimeError: when it is called before it has statistics.

    Example:
        >>> import numpy as np
        >>> layer = FeaturewiseNormalization()
        >>> layer.adapt(np.array([[1.0, 10.0], [3.0, 30.0]]))
        >>> np.asarray(layer(np.array([[2.0, 40.0]]))).round(3).tolist()
        [[0.0, 2.0]]
        >>> gaps = FeaturewiseNormalization(nan_policy="omit")
        >>> gaps.adapt(np.array([[1.0, 10.0], [np.nan, 20.0], [3.0, 30.0]]))
        >>> np.asarray(gaps.mean).tolist()
        [2.0, 20.0]
        >>> imagenet = FeaturewiseNormalization(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    """

    takes_tensors = True

    def __init__(
        self,
        axis: Any = -1,
        center: bool = True,
        scale: bool = True,
        epsilon: float = 1e-6,
        mean: Any = None,
        std: Any = None,
        invert: bool = False,
        nan_policy: str = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.axis = axis
        self._axes = axes_tuple(axis)
        self.center = check_bool(name, "center", center)
        self.scale = check_bool(name, "scale", scale)
        self.epsilon = check_number(name, "epsilon", epsilon, low=0.0)
        self.invert = check_bool(name, "invert", invert)
        self.nan_policy = check_choice(name, "nan_policy", nan_policy, NAN_POLICIES)
        # Named so because `mean` and `std` are the weights; the configuration looks here first.
        self.mean_argument, self.std_argument = (backend.to_numpy(v) if hasattr(v, "shape") else v for v in (mean, std))
        self._given = _given_statistics(name, mean, std, center, scale)

    @property
    def has_given_statistics(self) -> bool:
        """True when mean and std were arguments."""
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
        given = {key: _as_features(self._title(), key, value, features) for key, value in self._given.items()}
        self.mean = self._add_statistic("mean", features, given.get("mean", np.nan))
        self.std = self._add_statistic("std", features, given.get("std", np.nan))
        self.count = self._add_statistic("count", (), 0.0)
        self.built = True

    def empty_accumulator(self) -> Moments:
        """Moments along the layer's axes."""
        return Moments(self._kept, self.nan_policy)

    def restore_accumulator(self, state: dict[str, np.ndarray]) -> Moments:
        """Moments from their saved state; what happens to NaN from now on is this layer's to say."""
        moments = Moments.from_state(state)
        moments.nan_policy = self.nan_policy
        return moments

    def statistics_of(self, accumulator: Moments) -> dict[str, np.ndarray]:
        """mean, std and count."""
        images, _, mean, variance = accumulator.result()
        return {"mean": mean, "std": np.sqrt(variance), "count": np.array(images)}

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        xp = backend.namespace(x)
        shape = self._broadcast[len(self._broadcast) - len(x.shape) :]
        if self.scale:
            std = xp.reshape(backend.read(self.std, x), shape)
            divisor = xp.where(std > 0.0, std + self.epsilon, std * 0.0 + 1.0)
            # A comparison with NaN is false: this lets the NaN of statistics that were never set through.
            divisor = divisor + std * 0.0
        mean = xp.reshape(backend.read(self.mean, x), shape) if self.center else None
        return pixels.scale_and_shift(x, mean, divisor if self.scale else None, self.invert)


def _given_statistics(name: str, mean: Any, std: Any, center: bool, scale: bool) -> dict[str, np.ndarray]:
    """The user's mean and std as arrays, with a neutral value for the one that is not used; empty if none was given."""
    if mean is None and std is None:
        return {}
    for key, value, needed, flag in (("mean", mean, center, "center"), ("std", std, scale, "scale")):
        if needed and value is None:
            raise ValueError(
                f"{name}: give `mean` and `std` together, or set {flag}=False. Received: {key}=None and "
                f"{'std' if key == 'mean' else 'mean'}={std if key == 'mean' else mean!r}"
            )
        if not needed and value is not None:
            raise ValueError(f"{name}: `{key}` has no use with {flag}=False. Received: {key}={value!r}")
    arrays = {}
    for key, value, neutral in (("mean", mean, 0.0), ("std", std, 1.0)):
        try:
            array = np.asarray(neutral if value is None else backend.to_numpy(value), "float64")
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: `{key}` must be a number or an array. Received: {key}={value!r}") from error
        if not np.isfinite(array).all() or (key == "std" and (array < 0).any()):
            bounds = "finite numbers of at least 0" if key == "std" else "finite numbers"
            raise ValueError(f"{name}: `{key}` must hold {bounds}. Received: {key}={value!r}")
        arrays[key] = array
    return arrays


def _as_features(title: str, key: str, value: np.ndarray, features: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(value, features).astype("float32")
    except ValueError as error:
        raise ValueError(
            f"{title}: `{key}` of shape {value.shape} does not broadcast to the features' shape {features}."
        ) from error
