"""Normalization by minimum and maximum, by median and interquartile range, by percentiles."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.normalization.features import FeatureLayer, checked_numbers, plain
from keras_norm_layers.statistics.extremes import Extremes
from keras_norm_layers.statistics.quantiles import Quantiles
from keras_norm_layers.validation import check_bool, check_interval


@serializable
class MinMaxNormalization(FeatureLayer):
    """Maps the minimum and the maximum of a data set to the ends of a range, as scikit-learn's ``MinMaxScaler``.

    With (low, high) = ``feature_range``:

        y = (x - minimum) / (maximum - minimum) * (high - low) + low

    A feature that is constant in the data has no range to divide by; there y = (x - minimum) * (high - low) + low, so
    its value becomes ``low``. Values outside what was learnt go beyond the range, unless ``clip`` is set.

    ``adapt`` learns exact minima and maxima, the same for any order and batch size. They are weights, ``minimum``,
    ``maximum`` and ``count`` (the number of images seen), and are saved with the model.

    Input: images of any integer or float dtype, channels last (N, H, W, C), or any other shape with images along its
    first axis; inside ``tf.data`` also one image. Output: the same shape, in the layer's dtype (float32 by default,
    whatever the global policy; computed in float32 always).

    Args:
        axis: axes that keep statistics of their own: -1 a channel, None one minimum and maximum for all values, (1, 2,
            3) each pixel. Sizes along them must be known and stay; along the others they may vary.
        feature_range: (low, high), low below high: what the minimum and the maximum become.
        clip: cut the output to ``feature_range``.
        minimum: the minimum to use instead of a learnt one: a number, or an array that broadcasts to the features.
        maximum: the maximum to use. Give both, and the layer needs no adapting.
        invert: undo it: x = (y - low) / (high - low) * (maximum - minimum) + minimum. Not together with ``clip``: what
            was cut off does not come back.
        nan_policy: "raise" for an error where the data holds NaN, "omit" to pass over NaN while adapting. Infinity is
            always an error. In a call NaN stays NaN.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for arguments out of bounds, and for one of minimum and maximum without the other.
        RuntimeError: when it is called before it has statistics.

    Example:
        >>> import numpy as np
        >>> layer = MinMaxNormalization()
        >>> layer.adapt(np.array([[1.0, 10.0], [3.0, 30.0]]))
        >>> np.asarray(layer(np.array([[2.0, 40.0]]))).tolist()
        [[0.5, 1.5]]
        >>> temperature = MinMaxNormalization(feature_range=(-1, 1), minimum=250.0, maximum=320.0)
    """

    STATISTICS = ("minimum", "maximum")
    ACCUMULATOR = Extremes

    def __init__(
        self,
        axis: Any = -1,
        feature_range: tuple[float, float] = (0.0, 1.0),
        clip: bool = False,
        minimum: Any = None,
        maximum: Any = None,
        invert: bool = False,
        nan_policy: str = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(axis, nan_policy, **kwargs)
        name = type(self).__name__
        # Named so because `minimum` and `maximum` are the weights; the configuration looks here first.
        self.minimum_argument, self.maximum_argument = plain(minimum), plain(maximum)
        self._given = _given_statistics(name, {"minimum": minimum, "maximum": maximum})
        self.feature_range = _check_range(name, feature_range)
        self.clip = check_bool(name, "clip", clip)
        self.invert = check_bool(name, "invert", invert)
        if clip and invert:
            raise ValueError(
                f"{name}: what `clip` cut off does not come back. Set clip=False to invert. Received: clip=True and "
                f"invert=True"
            )
        if self._given and np.any(self._given["minimum"] > self._given["maximum"]):
            raise ValueError(
                f"{name}: `minimum` must not be above `maximum`. Received: minimum={minimum!r} and maximum={maximum!r}"
            )

    def statistics_of(self, accumulator: Extremes) -> dict[str, np.ndarray]:
        """minimum, maximum and count."""
        images, minimum, maximum = accumulator.result()
        return {"minimum": minimum, "maximum": maximum, "count": np.array(images)}

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        return _to_range(
            x, self._read(x, "minimum"), self._read(x, "maximum"), self.feature_range, self.clip, self.invert
        )


@serializable
class RobustNormalization(FeatureLayer):
    """Subtracts the median and divides by the interquartile range, as scikit-learn's ``RobustScaler``.

    y = (x - median) / iqr, where ``iqr`` is the difference between two percentiles, by default the 75th and the 25th.
    A few extreme values (dead pixels, saturated ones) move neither, while they can carry mean and standard deviation
    far off. A feature whose iqr is 0 is centred and not scaled.

    ``adapt`` counts values in one pass and takes percentiles as ``numpy.percentile`` does: exactly for 8-bit integers,
    and wherever a feature has at most 65,536 different values (with more than 256 features: 2^24 / features); else to a
    relative error of at most 1/256, in practice 1e-4 to 5e-4 for up to 256 features (see ``statistics.quantiles``). The
    result is the same for any order, batch size or merge.
    The statistics are weights, ``median``, ``iqr`` and ``count`` (the number of images seen), and are saved with the
    model; so are the histograms, 16 bytes a different value and feature.

    Input: images of any integer or float dtype, channels last (N, H, W, C), or any other shape with images along its
    first axis; inside ``tf.data`` also one image. Output: the same shape, in the layer's dtype (float32 by default,
    whatever the global policy; computed in float32 always).

    Args:
        axis: axes that keep statistics of their own: -1 a channel, None one median and iqr for all values, (1, 2, 3)
            each pixel; at most 65,536 features. Sizes along them must be known and stay; along the others they may
            vary.
        center: subtract the median.
        scale: divide by the interquartile range.
        quantile_range: (lower, upper), the two percentiles, 0 <= lower < upper <= 100, whose difference is ``iqr``.
        unit_variance: divide ``iqr`` by what it is for a normal distribution of variance 1 (1.349 for quartiles), so
            that normally distributed values get variance 1. A feature whose iqr is 0 is not scaled, here too
            (scikit-learn multiplies it by that number).
        invert: undo it: x = y * iqr + median.
        nan_policy: "raise" for an error where the data holds NaN, "omit" to pass over NaN while adapting. Infinity is
            always an error. In a call NaN stays NaN.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for arguments out of bounds, and for more than 65,536 features.
        RuntimeError: when it is called before it adapted.

    Example:
        >>> import numpy as np
        >>> layer = RobustNormalization()
        >>> layer.adapt(np.array([[1.0], [2.0], [3.0], [4.0], [1000.0]]))
        >>> np.asarray(layer(np.array([[3.0], [5.0]]))).tolist()
        [[0.0], [1.0]]
    """

    STATISTICS = ("median", "iqr")
    ACCUMULATOR = Quantiles

    def __init__(
        self,
        axis: Any = -1,
        center: bool = True,
        scale: bool = True,
        quantile_range: tuple[float, float] = (25.0, 75.0),
        unit_variance: bool = False,
        invert: bool = False,
        nan_policy: str = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(axis, nan_policy, **kwargs)
        name = type(self).__name__
        self.center = check_bool(name, "center", center)
        self.scale = check_bool(name, "scale", scale)
        self.quantile_range = _check_percentiles(name, "quantile_range", quantile_range)
        self.unit_variance = check_bool(name, "unit_variance", unit_variance)
        self.invert = check_bool(name, "invert", invert)
        if unit_variance and (self.quantile_range[0] == 0 or self.quantile_range[1] == 100):
            raise ValueError(
                f"{name}: with unit_variance=True `quantile_range` must lie within (0, 100), for a normal distribution "
                f"has no ends. Received: quantile_range={quantile_range!r}"
            )

    def statistics_of(self, accumulator: Quantiles) -> dict[str, np.ndarray]:
        """median, iqr and count."""
        lower, upper = (q / 100 for q in self.quantile_range)
        images, _, values, _ = accumulator.result([lower, 0.5, upper])
        iqr = values[2] - values[0]
        if self.unit_variance:
            normal = statistics.NormalDist()
            iqr = iqr / (normal.inv_cdf(upper) - normal.inv_cdf(lower))
        return {"median": values[1], "iqr": iqr, "count": np.array(images)}

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        divisor = _divisor(self._read(x, "iqr")) if self.scale else None
        return pixels.scale_and_shift(x, self._read(x, "median") if self.center else None, divisor, self.invert)


@serializable
class PercentileClipping(FeatureLayer):
    """Cuts values off at two percentiles of a data set; on request maps what is between to a range.

    y = min(max(x, lower), upper), where ``lower`` and ``upper`` are the percentiles: the usual first step for medical
    and satellite images, whose few extreme values would otherwise take up most of the range. With
    ``feature_range=(low, high)`` then y = (y - lower) / (upper - lower) * (high - low) + low; a feature whose
    percentiles are equal becomes ``low`` everywhere.

    ``adapt`` counts values in one pass and takes percentiles as ``numpy.percentile`` does: exactly for 8-bit integers,
    and wherever a feature has at most 65,536 different values (with more than 256 features: 2^24 / features); else to a
    relative error of at most 1/256, in practice 1e-4 to 5e-4 for up to 256 features (see ``statistics.quantiles``). The
    result is the same for any order, batch size or merge.
    The statistics are weights, ``lower``, ``upper`` and ``count`` (the number of images seen), and are saved with the
    model; so are the histograms, 16 bytes a different value and feature. There is no inverse.

    Input: images of any integer or float dtype, channels last (N, H, W, C), or any other shape with images along its
    first axis; inside ``tf.data`` also one image. Output: the same shape, in the layer's dtype (float32 by default,
    whatever the global policy; computed in float32 always).

    Args:
        axis: axes that keep statistics of their own: -1 a channel, None one pair for all values, (1, 2, 3) each pixel;
            at most 65,536 features. Sizes along them must be known and stay; along the others they may vary.
        percentile_range: (lower, upper), the two percentiles, 0 <= lower < upper <= 100.
        feature_range: (low, high), low below high: what ``lower`` and ``upper`` become. None leaves values as they are.
        nan_policy: "raise" for an error where the data holds NaN, "omit" to pass over NaN while adapting. Infinity is
            always an error.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for arguments out of bounds, and for more than 65,536 features.
        RuntimeError: when it is called before it adapted.

    Example:
        >>> import numpy as np
        >>> layer = PercentileClipping(percentile_range=(10.0, 90.0), feature_range=(0.0, 1.0))
        >>> layer.adapt(np.arange(101.0).reshape(-1, 1))
        >>> np.asarray(layer(np.array([[0.0], [50.0], [1000.0]]))).tolist()
        [[0.0], [0.5], [1.0]]
    """

    STATISTICS = ("lower", "upper")
    ACCUMULATOR = Quantiles

    def __init__(
        self,
        axis: Any = -1,
        percentile_range: tuple[float, float] = (1.0, 99.0),
        feature_range: tuple[float, float] | None = None,
        nan_policy: str = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(axis, nan_policy, **kwargs)
        name = type(self).__name__
        self.percentile_range = _check_percentiles(name, "percentile_range", percentile_range)
        self.feature_range = None if feature_range is None else _check_range(name, feature_range)

    def statistics_of(self, accumulator: Quantiles) -> dict[str, np.ndarray]:
        """lower, upper and count."""
        images, _, (lower, upper), _ = accumulator.result([q / 100 for q in self.percentile_range])
        return {"lower": lower, "upper": upper, "count": np.array(images)}

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        xp = backend.namespace(x)
        lower, upper = self._read(x, "lower"), self._read(x, "upper")
        y = xp.minimum(xp.maximum(x, lower), upper)
        return y if self.feature_range is None else _to_range(y, lower, upper, self.feature_range, clip=True)


def _divisor(width: Any) -> Any:
    """``width``, or 1 where it is 0: a constant feature is not scaled. NaN (no statistics) stays NaN."""
    xp = backend.namespace(width)
    return xp.where(width > 0.0, width, width * 0.0 + 1.0)


def _to_range(x: Any, low: Any, high: Any, target: tuple[float, float], clip: bool, invert: bool = False) -> Any:
    """[low, high] to ``target``, linearly, or with ``invert`` back; constants are moved to the lower end."""
    start, end = target
    divisor = _divisor(high - low)
    if invert:
        return pixels.scale_and_shift((x - start) / (end - start), low, divisor, invert=True)
    y = pixels.scale_and_shift(x, low, divisor) * (end - start) + start
    return backend.namespace(y).clip(y, start, end) if clip else y


def _check_range(owner: str, value: Any) -> tuple[float, float]:
    low, high = check_interval(owner, "feature_range", value, -3e38, 3e38)
    if low == high:
        raise ValueError(f"{owner}: `feature_range` must be (low, high) with low < high. Received: {value!r}")
    return low, high


def _check_percentiles(owner: str, name: str, value: Any) -> tuple[float, float]:
    low, high = check_interval(owner, name, value, 0.0, 100.0)
    if low == high:
        raise ValueError(
            f"{owner}: `{name}` must be two different percentiles, lower first. Received: {name}={value!r}"
        )
    return low, high


def _given_statistics(owner: str, given: dict[str, Any]) -> dict[str, np.ndarray]:
    """The user's statistics as arrays; empty if none were given."""
    if all(value is None for value in given.values()):
        return {}
    if any(value is None for value in given.values()):
        received = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(f"{owner}: give {' and '.join(f'`{name}`' for name in given)} together. Received: {received}")
    return {name: checked_numbers(owner, name, value) for name, value in given.items()}
