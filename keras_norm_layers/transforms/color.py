"""Transforms that change values: each is what it draws, and a gain and an offset an image."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, color, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import ColorTransform, Transform
from keras_norm_layers.transforms.sampling import Coin, Distribution, Uniform


@serializable
class RandomBrightness(ColorTransform):
    """Adds one number to all values of an image, and clips to ``value_range``.

    Args:
        factor: the range of what is added, as a fraction of the span of ``value_range``: a number f in [-1, 1] for
            [-f, f], or a pair (lower, upper). -1 gives black, 1 white.
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([0, 100, 250], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.RandomBrightness((0.2, 0.2))(image))[0, 0, :, 0].tolist()
    [51.0, 151.0, 255.0]
    """

    def __init__(
        self, factor: Any, value_range: tuple[float, float] = (0, 255), seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.factor = factor
        self._added = validation.check_factor("RandomBrightness", "factor", factor, -1.0, 1.0)

    def specs(self) -> dict[str, Distribution]:
        return {"added": Uniform(*self._added)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        low, high = self.value_range
        return color.Color(offset=(params["added"] * (high - low))[:, None], low=low, high=high)


@serializable
class RandomContrast(ColorTransform):
    """Stretches or squeezes the values of each channel about their mean, and clips to ``value_range``.

    y = (x - mean) * contrast + mean, with the mean of the channel over the image.

    Args:
        factor: the range of the contrast: a number f in [0, 1] for [1 - f, 1 + f], or a pair (lower, upper) for
            [1 - lower, 1 + upper], both in [0, 1]. (``keras.layers.RandomContrast(f)`` says the same in its
            documentation and draws from [1, 1 + f].)
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([100, 200], dtype="uint8").reshape(1, 1, 2, 1)
    >>> flat = knl.RandomContrast((1.0, 0.0), same_on_batch=True, seed=3)(np.repeat(image, 2, axis=0))
    >>> np.asarray(flat).mean(axis=(1, 2, 3)).round(3).tolist()
    [150.0, 150.0]
    """

    looks = True

    def __init__(
        self, factor: Any, value_range: tuple[float, float] = (0, 255), seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.factor = factor
        pair = (factor, factor) if validation.is_number(factor) else factor
        ok = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not ok or not all(validation.is_number(v) and 0.0 <= v <= 1.0 for v in pair):
            raise ValueError(
                "RandomContrast: `factor` must be a number in [0, 1], for a contrast in [1 - factor, 1 + factor], or a "
                f"pair (lower, upper) in [0, 1], for [1 - lower, 1 + upper]. Received: factor={factor!r}"
            )
        self._contrast = (1.0 - pair[0], 1.0 + pair[1])

    def specs(self) -> dict[str, Distribution]:
        return {"contrast": Uniform(*self._contrast, identity=1.0)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        gain = params["contrast"][:, None]
        low, high = self.value_range
        return color.Color(gain=gain, offset=pixels.channel_mean(images) * (1.0 - gain), low=low, high=high)


@serializable
class RandomChannelShift(ColorTransform):
    """Adds a number to each channel of an image: a tint, like a change of the light's colour.

    Args:
        factor: the range of what is added to a channel, as a fraction of the span of ``value_range``: a number f in
            [-1, 1] for [-f, f], or a pair (lower, upper).
        value_range: (lowest, highest) value of the images; default (0, 255).
        shared: False (default) draws for each channel; True draws one number an image for all its channels, which is
            what ``ImageDataGenerator`` calls a channel shift.
        clip_to: "value_range" (default), or "image": to the least and greatest value that the image has, as
            ``ImageDataGenerator`` does.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.full((1, 1, 1, 3), 100, dtype="uint8")
    >>> np.asarray(knl.RandomChannelShift((0.1, 0.1))(image)).ravel().tolist()
    [125.5, 125.5, 125.5]
    """

    def __init__(
        self,
        factor: Any,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        *,
        shared: bool = False,
        clip_to: str = "value_range",
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.factor = factor
        self._added = validation.check_factor("RandomChannelShift", "factor", factor, -1.0, 1.0)
        self.shared = validation.check_bool("RandomChannelShift", "shared", shared)
        self.clip_to = validation.check_choice("RandomChannelShift", "clip_to", clip_to, ("value_range", "image"))
        self.looks = clip_to == "image"

    def specs(self) -> dict[str, Distribution]:
        return {"added": Uniform(*self._added, per_channel=not self.shared)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        low, high = self.value_range
        added = params["added"] * (high - low)
        bounds: tuple[Any, Any] = (low, high)
        if self.looks:
            xp = backend.namespace(images)
            bounds = tuple(xp.cast(edge(images, (1, 2, 3))[:, None], "float32") for edge in (xp.amin, xp.amax))
        return color.Color(None, added[:, None] if self.shared else added, *bounds)


@serializable
class RandomChannelGain(ColorTransform):
    """Multiplies each channel of an image by a number, and clips to ``value_range``: a change of the white balance.

    y = lowest + (x - lowest) * (1 + f): black stays black.

    Args:
        factor: the range of f: a number u in [-1, 1] for [-u, u], or a pair (lower, upper).
        value_range: (lowest, highest) value of the images; default (0, 255).
        shared: False (default) draws for each channel; True draws one number an image: a change of the exposure.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([0, 100, 250], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.RandomChannelGain((0.5, 0.5))(image)).ravel().tolist()
    [0.0, 150.0, 255.0]
    """

    def __init__(
        self,
        factor: Any,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        *,
        shared: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, **kwargs)
        self.factor = factor
        self._range = validation.check_factor("RandomChannelGain", "factor", factor, -1.0, 1.0)
        self.shared = validation.check_bool("RandomChannelGain", "shared", shared)

    def specs(self) -> dict[str, Distribution]:
        return {"factor": Uniform(*self._range, per_channel=not self.shared)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        low, high = self.value_range
        factor = params["factor"][:, None] if self.shared else params["factor"]
        return color.Color(1.0 + factor, factor * -low if low else None, low, high)


@serializable
class RandomGrayscale(Transform):
    """Makes an image grey, with three equal channels: 0.2989 R + 0.587 G + 0.114 B.

    Args:
        factor: the probability, in [0, 1], that an image is made grey; default 0.5.
        data_format, seed, same_on_batch, **kwargs: see ``Transform``.

    Images must have three channels. Nothing is clipped, so no value range is needed.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> red = np.array([100, 0, 0], dtype="uint8").reshape(1, 1, 1, 3)
    >>> np.asarray(knl.RandomGrayscale(1.0)(red)).ravel().round().tolist()
    [30.0, 30.0, 30.0]
    """

    kind = "color"  # no ``ColorTransform``: it needs no value range
    looks = False
    channels = 3

    def __init__(
        self, factor: float = 0.5, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format=data_format, seed=seed, **kwargs)
        self.factor = validation.check_number("RandomGrayscale", "factor", factor, 0.0, 1.0)

    def specs(self) -> dict[str, Distribution]:
        return {"on": Coin(self.factor)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        gray = params["on"][:, None]
        return color.Color(gain=1.0 - gray, gray=gray)


@serializable
class RandomColorDegeneration(ColorTransform):
    """Mixes an image with its grey version: y = x + f (grey - x), grey = 0.2989 R + 0.587 G + 0.114 B.

    Args:
        factor: the range of f: a pair (lower, upper) in [0, 1], or a number u for [0, u]. 0 changes nothing, 1 is grey.
        value_range: (lowest, highest) value of the images; default (0, 255).
        data_format, seed, p, same_on_batch, **kwargs: see ``Transform``.

    Images must have three channels. ``keras.layers.RandomColorDegeneration(u)`` draws from [-u, u], and below 0 the
    colours become stronger.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> red = np.array([100, 0, 0], dtype="uint8").reshape(1, 1, 1, 3)
    >>> np.asarray(knl.RandomColorDegeneration((0.5, 0.5))(red)).ravel().round().tolist()
    [65.0, 15.0, 15.0]
    """

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
        self._range = validation.check_probability("RandomColorDegeneration", "factor", factor)

    def specs(self) -> dict[str, Distribution]:
        return {"factor": Uniform(*self._range)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        gray = params["factor"][:, None]
        low, high = self.value_range
        # The weights of the luminance sum to 0.9999: what has 0 in its range cannot leave it.
        inside = low <= 0.0 <= high
        return color.Color(1.0 - gray, None, None if inside else low, None if inside else high, gray)


@serializable
class RandomInvert(ColorTransform):
    """Turns an image into its negative: lowest + highest - x.

    Args:
        factor: the probability of it: a pair (lower, upper) in [0, 1], between which each image's probability is drawn,
            or a number f for (0, f); default 1.0. Only the mean matters: 1.0 inverts half of the images, (1, 1) all.
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, data_format, p, same_on_batch, **kwargs: see ``Transform``.

    ``keras.layers.RandomInvert`` computes highest - x, which leaves a range such as (-1, 1).

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([0, 100, 250], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.RandomInvert((1.0, 1.0))(image)).ravel().tolist()
    [255.0, 155.0, 5.0]
    """

    def __init__(
        self,
        factor: Any = 1.0,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(value_range=value_range, seed=seed, data_format=data_format, **kwargs)
        self.factor = factor
        self._probability = sum(validation.check_probability("RandomInvert", "factor", factor)) / 2.0

    def specs(self) -> dict[str, Distribution]:
        return {"on": Coin(self._probability)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        inverted = params["on"][:, None]
        low, high = self.value_range
        return color.Color(1.0 - 2.0 * inverted, inverted * (low + high))  # nothing in the range leaves it


@serializable
class AutoContrast(ColorTransform):
    """Stretches the values of each channel of an image over the whole of ``value_range``.

    The least value of the channel becomes the lowest of the range, the greatest the highest. A channel of one value
    (within 1e-5 of the span, so that the rounding of a resampling is no contrast) stays.

    Args:
        value_range: (lowest, highest) value of the images; default (0, 255).
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Without chance, unless ``p`` is below 1; in a model for training only, like every transform here, where
    ``keras.layers.AutoContrast`` works at inference too.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.array([100, 110, 120], dtype="uint8").reshape(1, 1, 3, 1)
    >>> np.asarray(knl.AutoContrast()(image)).ravel().round(3).tolist()
    [0.0, 127.5, 255.0]
    """

    looks = True

    def __init__(self, value_range: tuple[float, float] = (0, 255), **kwargs: Any) -> None:
        super().__init__(value_range=value_range, **kwargs)

    def specs(self) -> dict[str, Distribution]:
        return {"on": Coin(1.0)}

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        gain, offset = backend.namespace(images).few(self._stretch, *color.channel_range(images), params["on"])
        return color.Color(gain, offset, *self.value_range)

    def _stretch(self, least: Any, most: Any, on: Any) -> tuple[Any, Any]:
        """The gain and the offset of each channel."""
        xp = backend.namespace(most)
        low, high = self.value_range
        stretched = (on[:, None] > 0.5) & (most - least > 1e-5 * (high - low))
        one = most * 0.0 + 1.0
        gain = xp.where(stretched, (high - low) / xp.where(stretched, most - least, one), one)
        return gain, xp.where(stretched, low - least * gain, most * 0.0)
