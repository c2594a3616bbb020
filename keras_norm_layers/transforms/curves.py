"""Transforms that change each value by a curve: what no gain and offset can say."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, curves
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import PixelTransform
from keras_norm_layers.transforms.sampling import Coin, Distribution, Integers, LogUniform, Sign, Uniform


@serializable
class RandomSaturation(PixelTransform):
    """Makes the colours of an image stronger or paler: multiplies the saturation of HSV by f / (1 - f), at most to 1.

    Hue and value stay: each channel c becomes V - (V - c) s' / s, where V is the greatest of the three.

    Args:
        factor: the range of f: a pair (lower, upper) in [0, 1], or a number u for [0, u]. 0.5 changes nothing, 0 makes
            grey (all channels as the brightest), 1 makes every colour as strong as can be.
        value_range: (lowest, highest) value of the images; default (0, 255).
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    Images must have three channels. ``keras.layers.RandomSaturation(u)`` draws from [-u, u], where all below 0 is grey,
    and limits the saturation to the value range instead of 1, so that (0, 255) gives values below 0.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> pixel = np.array([200, 100, 160], dtype="uint8").reshape(1, 1, 1, 3)
    >>> np.asarray(knl.RandomSaturation((0.0, 0.0))(pixel)).ravel().tolist()
    [200.0, 200.0, 200.0]
    """

    pointwise = True
    channels = 3

    def __init__(
        self,
        factor: Any,
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, data_format=data_format, seed=seed, **kwargs)
        self.factor = factor
        self._range = validation.check_probability("RandomSaturation", "factor", factor)

    def specs(self) -> dict[str, Distribution]:
        return {"factor": Uniform(*self._range, identity=0.5)}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        factor = params["factor"]
        gain = factor / backend.namespace(factor).maximum(1.0 - factor, 1e-7)
        return curves.saturation(images, gain, *self.value_range)


@serializable
class RandomHue(PixelTransform):
    """Turns the hue of an image: red towards yellow, green and blue, or the other way. HSV's saturation and value stay.

    Args:
        factor: the range of the size of the turn, in half circles: a pair (lower, upper) in [0, 1], or a number f for
            [0, f]. 0 changes nothing, 1 gives complementary colours. Both directions are equally likely.
        value_range: (lowest, highest) value of the images; default (0, 255).
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    Images must have three channels.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> red = np.array([200, 0, 0], dtype="uint8").reshape(1, 1, 1, 3)
    >>> np.asarray(knl.RandomHue((1.0, 1.0))(red)).ravel().tolist()
    [0.0, 200.0, 200.0]
    """

    pointwise = True
    channels = 3

    def __init__(
        self,
        factor: Any,
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, data_format=data_format, seed=seed, **kwargs)
        self.factor = factor
        self._range = validation.check_probability("RandomHue", "factor", factor)

    def specs(self) -> dict[str, Distribution]:
        return {"factor": Uniform(*self._range), "sign": Sign()}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        return curves.hue(images, 0.5 * params["sign"] * params["factor"], *self.value_range)


@serializable
class RandomPosterization(PixelTransform):
    """Keeps the highest bits of each value and sets the others to 0: fewer levels.

    Args:
        factor: how many bits of 8 to keep: a whole number from 1 to 8, or a pair (fewest, most), both included. 8
            changes nothing, nor does it round what is no whole number.
        value_range: (lowest, highest) value of the images, which are taken as levels 0 and 255; default (0, 255).
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    ``keras.layers.RandomPosterization(4)`` keeps 1, 2 or 3 bits, and a pair there leaves out its upper end.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([63, 64, 250], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.RandomPosterization(2)(image)).ravel().tolist()
    [0.0, 64.0, 192.0]
    """

    pointwise = True
    on_bits = True

    def __init__(
        self,
        factor: Any,
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, data_format=data_format, seed=seed, **kwargs)
        self.factor = factor
        bits = tuple(factor) if isinstance(factor, (tuple, list)) else (factor, factor)
        self._bits = validation.check_interval("RandomPosterization", "factor", bits, 1, 8, " (or one whole number)")
        if any(bit != int(bit) for bit in self._bits):
            raise ValueError(
                "RandomPosterization: `factor` must be a whole number of bits from 1 to 8, or a pair of them. "
                f"Received: factor={factor!r}"
            )

    def specs(self) -> dict[str, Distribution]:
        fewest, most = self._bits
        return {"bits": Integers(int(fewest), int(most), identity=8.0)}

    def prepared(self, params: dict[str, Any]) -> dict[str, Any]:
        return curves.levels(params["bits"], *self.value_range)

    def change(self, params: dict[str, Any], images: Any) -> Any:
        return curves.posterize(images, params, *self.value_range)


@serializable
class Solarization(PixelTransform):
    """Adds a number to all values of an image, clips, and inverts those of a threshold and above: lowest + highest - x.

    Args:
        addition_factor: the range of what is added, as a fraction of the span of ``value_range``: a pair (lower, upper)
            in [0, 1], or a number f for [0, f]. Default 0.0.
        threshold_factor: the range of the threshold, likewise; above ``lowest``. Default 0.0, which inverts all.
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, p, same_on_batch, **kwargs: see ``Transform``. ``strength`` pulls the threshold up to 256/255, which
            nothing reaches.

    ``keras.layers.Solarization`` does not scale the lower end of a range: (0.5, 0.5) there draws from [0.5, 127.5].

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([0, 100, 250], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.Solarization(threshold_factor=(0.5, 0.5))(image)).ravel().tolist()
    [0.0, 100.0, 5.0]
    """

    pointwise = True

    def __init__(
        self,
        addition_factor: Any = 0.0,
        threshold_factor: Any = 0.0,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.addition_factor = addition_factor
        self.threshold_factor = threshold_factor
        self._added = validation.check_probability("Solarization", "addition_factor", addition_factor)
        self._threshold = validation.check_probability("Solarization", "threshold_factor", threshold_factor)

    def specs(self) -> dict[str, Distribution]:
        return {"addition": Uniform(*self._added), "threshold": Uniform(*self._threshold, identity=256 / 255)}

    def prepared(self, params: dict[str, Any]) -> dict[str, Any]:
        low, high = self.value_range
        threshold = {"threshold": low + params["threshold"] * (high - low)}
        return threshold if self._added == (0.0, 0.0) else {**threshold, "added": params["addition"] * (high - low)}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        return curves.solarize(images, params.get("added"), params["threshold"], *self.value_range)


@serializable
class RandomGamma(PixelTransform):
    """Raises values, scaled to [0, 1], to a power: darker above 1, lighter below, black and white stay.

    Args:
        gamma: the range of the exponent, a pair (lower, upper) in [0.01, 100]; default (0.8, 1.25). Its logarithm is
            uniform: as much darker as lighter, if lower = 1 / upper.
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([0, 51, 255], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.RandomGamma((2.0, 2.0))(image)).ravel().round().tolist()
    [0.0, 10.0, 255.0]
    """

    pointwise = True

    def __init__(
        self,
        gamma: tuple[float, float] = (0.8, 1.25),
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.gamma = gamma
        self._exponent = validation.check_interval("RandomGamma", "gamma", gamma, 0.01, 100.0)

    def specs(self) -> dict[str, Distribution]:
        return {"exponent": LogUniform(*self._exponent)}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        return curves.gamma(images, params["exponent"], *self.value_range)


@serializable
class Equalization(PixelTransform):
    """Spreads the values of each channel of an image so that its histogram is as flat as can be.

    A value becomes the share of pixels that are not brighter, from 0 for the darkest to 1 for the brightest, in 256
    levels over ``value_range``. A channel of one value stays.

    Args:
        value_range: (lowest, highest) value of the images; default (0, 255).
        bins: the number of bins of the histogram, from 2 to 65536; default 256.
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    Without chance, unless ``p`` is below 1; in a model for training only, like every transform here.
    ``keras.layers.Equalization`` takes one histogram of the whole batch.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([100, 101, 101, 103], dtype="uint8").reshape(1, 1, 4, 1)
    >>> np.asarray(knl.Equalization()(image)).ravel().tolist()
    [0.0, 170.0, 170.0, 255.0]
    """

    costly = True

    def __init__(
        self,
        value_range: tuple[float, float] = (0, 255),
        bins: int = 256,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, data_format=data_format, **kwargs)
        self.bins = validation.check_count("Equalization", "bins", bins, 2, 65536)

    def specs(self) -> dict[str, Distribution]:
        return {"on": Coin(1.0)}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        return curves.equalize(images, self.bins, *self.value_range, params["on"])
