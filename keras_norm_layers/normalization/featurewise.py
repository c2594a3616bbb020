"""Normalization with the statistics of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.normalization.features import FeatureLayer, checked_numbers, plain
from keras_norm_layers.statistics.moments import Moments
from keras_norm_layers.validation import check_bool, check_number


@serializable
class FeaturewiseNormalization(FeatureLayer):
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
    STATISTICS = ("mean", "std")
    ACCUMULATOR = Moments

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
        super().__init__(axis, nan_policy, **kwargs)
        name = type(self).__name__
        self.center = check_bool(name, "center", center)
        self.scale = check_bool(name, "scale", scale)
        self.epsilon = check_number(name, "epsilon", epsilon, low=0.0)
        self.invert = check_bool(name, "invert", invert)
        # Named so because `mean` and `std` are the weights; the configuration looks here first.
        self.mean_argument, self.std_argument = plain(mean), plain(std)
        self._given = _given_statistics(name, mean, std, center, scale)

    def statistics_of(self, accumulator: Moments) -> dict[str, np.ndarray]:
        """mean, std and count."""
        images, _, mean, variance = accumulator.result()
        return {"mean": mean, "std": np.sqrt(variance), "count": np.array(images)}

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        return self.normalized(x, self.read_statistics(x))

    @property
    def is_by_channel(self) -> bool:
        """Whether the statistics are a number a channel, or one for all values. The layer must be built."""
        return set(self._kept) <= {len(self._broadcast) - 1}

    def read_statistics(self, like: Any) -> dict[str, Any]:
        """What ``normalized`` takes: the statistics as they are now, as tensors of the library of ``like``."""
        used = [("mean", self.center), ("std", self.scale)]
        return {name: backend.read(getattr(self, name), like) for name, wanted in used if wanted}

    def normalized(self, x: Any, statistics: dict[str, Any]) -> Any:
        """The formula with these statistics: a function of tensors alone, which a compiled pass takes along."""
        shaped = {name: self._broadcast_to(x, value) for name, value in statistics.items()}
        divisor = None
        if self.scale:
            std, xp = shaped["std"], backend.namespace(x)
            # A comparison with NaN is false: the second term lets the NaN of statistics that were never set through.
            divisor = xp.where(std > 0.0, std + self.epsilon, std * 0.0 + 1.0) + std * 0.0
        return pixels.scale_and_shift(x, shaped.get("mean"), divisor, self.invert, exact=False)


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
    return {
        "mean": checked_numbers(name, "mean", 0.0 if mean is None else mean),
        "std": checked_numbers(name, "std", 1.0 if std is None else std, low=0.0),
    }
