"""Transforms of values that need more than a colour map: neighbours, a place in the image, or noise."""

from __future__ import annotations

import math
from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, filters, pixels, threefry
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import PixelTransform
from keras_norm_layers.transforms.sampling import Coin, Distribution, Key, Uniform


@serializable
class RandomSharpness(PixelTransform):
    """Blends an image with a smoothed one: y = x + (1 - 2 f) (smooth - x), clipped to ``value_range``.

    Smoothed is by 3 x 3 pixels, the middle one weighted 5/13, the others 1/13, black outside.

    Args:
        factor: the range of f: a pair (lower, upper) in [0, 1], or a number u for [0, u]. 0 is smooth, 0.5 changes
            nothing, 1 is sharp.
        value_range: (lowest, highest) value of the images; default (0, 255).
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.zeros((3, 3, 1), dtype="uint8")
    >>> image[1, 1] = 130
    >>> np.asarray(knl.RandomSharpness((0.0, 0.0))(image))[1, :, 0].round().tolist()
    [10.0, 50.0, 10.0]
    """

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
        self._range = validation.check_probability("RandomSharpness", "factor", factor)

    def specs(self) -> dict[str, Distribution]:
        return {"factor": Uniform(*self._range, identity=0.5)}

    def prepared(self, params: dict[str, Any]) -> dict[str, Any]:
        blend = 1.0 - 2.0 * params["factor"]
        return {"smooth": blend, "given": 1.0 - blend * (9.0 / 13.0)}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        xp = backend.namespace(images)
        # The kernel is 1/13 everywhere, which is separable, and 4/13 more in the middle.
        smooth = filters.convolve(images, [1.0 / 13.0] * 3, [1.0] * 3)
        of_smooth, of_given = (pixels.per_image(params[name]) for name in ("smooth", "given"))
        return xp.clip(xp.weighted(smooth, of_smooth, images, of_given), *self.value_range, own=True)


@serializable
class RandomGaussianBlur(PixelTransform):
    """Blurs an image with a Gaussian kernel, black outside, and clips to ``value_range``.

    Args:
        factor: the probability of it: a pair (lower, upper) in [0, 1], between which each image's probability is drawn,
            or a number f for (0, f); default 1.0. (Only their mean matters: 1.0 blurs half of the images, (1, 1) all.)
        kernel_size: the number of taps, odd: a number, or a pair (across, down). Default 3.
        sigma: the range of the kernel's standard deviation in pixels, a pair (lower, upper) in [0, 1], or a number s
            for [0, s]; drawn for each image and each axis. Default 1.0.
        value_range: (lowest, highest) value of the images; default (0, 255).
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    ``keras.layers.RandomGaussianBlur`` draws one pair of sigmas for the whole batch.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.zeros((3, 3, 1), dtype="uint8")
    >>> image[1, 1] = 100
    >>> np.asarray(knl.RandomGaussianBlur((1.0, 1.0), 3, (1.0, 1.0))(image))[1, :, 0].round().tolist()
    [12.0, 20.0, 12.0]
    """

    def __init__(
        self,
        factor: Any = 1.0,
        kernel_size: Any = 3,
        sigma: Any = 1.0,
        value_range: tuple[float, float] = (0, 255),
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, data_format=data_format, seed=seed, **kwargs)
        owner = "RandomGaussianBlur"
        self.factor, self.kernel_size, self.sigma = factor, kernel_size, sigma
        self._probability = sum(validation.check_probability(owner, "factor", factor)) / 2.0
        self._range = validation.check_probability(owner, "sigma", sigma)
        pair = (kernel_size, kernel_size) if validation.is_number(kernel_size) else kernel_size
        whole = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(validation.is_number(v) for v in pair)
        if not whole or not all(v >= 1 and v % 2 == 1 for v in pair):
            raise ValueError(
                f"{owner}: `kernel_size` must be an odd whole number of pixels, or a pair of them, (across, down). "
                f"Received: kernel_size={kernel_size!r}"
            )
        self._taps = (int(pair[0]), int(pair[1]))

    def specs(self) -> dict[str, Distribution]:
        sigma = Uniform(*self._range)
        return {"on": Coin(self._probability), "across": sigma, "down": sigma}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        weights = (
            filters.gaussian(params["on"] * params[name], taps) for name, taps in zip(("across", "down"), self._taps)
        )
        return backend.namespace(images).clip(filters.convolve(images, *weights), *self.value_range, own=True)


@serializable
class RandomErasing(PixelTransform):
    """Covers a rectangle of an image with noise or a colour. Masks, boxes and labels stay as they are.

    Args:
        factor: the probability of it, as in ``RandomGaussianBlur``; default 1.0, which erases in half of the images.
        scale: the range of a and b: sides are sqrt(a) of the width and sqrt(b) of the height. A pair (lower, upper) in
            [0, 1], or a number s for [0, s]; default (0.02, 0.33).
        fill_value: None (default) for standard normal noise times the highest value, or a number, or three, one a
            channel. All are clipped to ``value_range``.
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, data_format, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.full((2, 3, 1), 100, dtype="uint8")
    >>> np.asarray(knl.RandomErasing((1, 1), (1, 1), fill_value=7)(image))[..., 0].tolist()
    [[7.0, 7.0, 7.0], [7.0, 7.0, 7.0]]
    """

    pointwise = True

    def __init__(
        self,
        factor: Any = 1.0,
        scale: Any = (0.02, 0.33),
        fill_value: Any = None,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, data_format=data_format, **kwargs)
        owner = "RandomErasing"
        self.factor, self.scale, self.fill_value = factor, scale, fill_value
        self._probability = sum(validation.check_probability(owner, "factor", factor)) / 2.0
        self._range = validation.check_probability(owner, "scale", scale)
        several = isinstance(fill_value, (tuple, list))
        if fill_value is not None and not ((several and len(fill_value) == 3) or validation.is_number(fill_value)):
            raise ValueError(
                f"{owner}: `fill_value` must be None for noise, a number, or three of them, one a channel. "
                f"Received: fill_value={fill_value!r}"
            )
        for value in fill_value if several else ():
            validation.check_number(owner, "fill_value", value)
        self.channels = 3 if several else None

    def specs(self) -> dict[str, Distribution]:
        sides: dict[str, Distribution] = {name: Uniform(*self._range) for name in ("width", "height")}
        drawn = {"on": Coin(self._probability), **sides, "x": Uniform(0.0, 1.0), "y": Uniform(0.0, 1.0)}
        return drawn if self.fill_value is not None else {**drawn, "noise": Key()}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        xp = backend.namespace(images)
        shape = xp.shape(images)
        bounds = [
            pixels.interval(params[side], params[place], length)
            for side, place, length in (("width", "x", shape[2]), ("height", "y", shape[1]))
        ]
        covered = pixels.rectangle(images, *bounds) & (params["on"] > 0.5)[:, None, None, None]
        if self.fill_value is not None:
            return xp.where(covered, xp.clip(xp.constant(pixels.vector, self.fill_value), *self.value_range), images)
        if xp.fuses() or not xp.on_host(images):
            return xp.where(covered, self._noise(threefry.normal_field(params["noise"], shape[1:])), images)

        def fill(rows: Any, places: Any) -> Any:  # a hash for each number is dear where nothing fuses it
            return self._noise(threefry.normal_at(params["noise"][rows], math.prod(shape[1:]), places))

        return xp.fill_where(covered, images, fill)

    def _noise(self, normal: Any) -> Any:
        return backend.namespace(normal).clip(normal * self.value_range[1], *self.value_range)


@serializable
class RandomNoise(PixelTransform):
    """Adds noise from the normal distribution to an image, and clips to ``value_range``.

    Args:
        std: the range of the standard deviation as a fraction of the span of ``value_range``, drawn for each image: a
            pair (lower, upper) in [0, 1], or a number s for [0, s].
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed: see ``Transform``.
        per_channel: True (default) for other noise in each channel, False for grey noise.
        p, same_on_batch, **kwargs: see ``Transform``; with ``same_on_batch`` the noise is the same too.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.full((64, 64, 3), 100, dtype="uint8")
    >>> float(np.asarray(knl.RandomNoise((0.1, 0.1), seed=1)(image)).std().round(-1))
    30.0
    """

    pointwise = True

    def __init__(
        self,
        std: Any,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        *,
        per_channel: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.std = std
        self._range = validation.check_probability("RandomNoise", "std", std)
        self.per_channel = validation.check_bool("RandomNoise", "per_channel", per_channel)

    def specs(self) -> dict[str, Distribution]:
        return {"std": Uniform(*self._range), "noise": Key()}

    def change(self, params: dict[str, Any], images: Any) -> Any:
        xp = backend.namespace(images)
        low, high = self.value_range
        _, height, width, channels = xp.shape(images)
        noise = threefry.normal_field(params["noise"], (height, width, channels if self.per_channel else 1))
        std = (params["std"] * (high - low))[:, None, None, None]
        return xp.clip(images + noise * std, low, high)
