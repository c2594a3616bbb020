"""Transforms that change values: each is what it draws, and a gain and an offset an image."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, color, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import ColorTransform
from keras_norm_layers.transforms.sampling import Distribution, Uniform


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
            bounds = tuple(edge(images, (1, 2, 3))[:, None] for edge in (xp.amin, xp.amax))
        return color.Color(None, added[:, None] if self.shared else added, *bounds)
