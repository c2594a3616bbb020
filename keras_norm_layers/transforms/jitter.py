"""``RandomColorJitter``: four transforms of colour under one name."""

from __future__ import annotations

from typing import Any

from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import ChoiceTransform
from keras_norm_layers.transforms.color import RandomBrightness, RandomContrast
from keras_norm_layers.transforms.curves import RandomHue, RandomSaturation
from keras_norm_layers.transforms.sampling import Distribution


@serializable
class RandomColorJitter(ChoiceTransform):
    """Changes brightness, then contrast, saturation and hue of an image: each where its factor is given.

    Args:
        value_range: (lowest, highest) value of the images; default (0, 255).
        brightness_factor: see ``RandomBrightness``; None (default) leaves the brightness alone.
        contrast_factor: see ``RandomContrast``; None (default) for none.
        saturation_factor: see ``RandomSaturation``; None (default) for none. 0.5 changes nothing.
        hue_factor: see ``RandomHue``; None (default) for none.
        seed, data_format, p, same_on_batch, **kwargs: see ``Transform``. ``p`` decides for all of them together.

    It is the four layers in a row, and differs from ``keras.layers.RandomColorJitter`` as they do. Raises if no factor
    is given.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> pixel = np.array([200, 100, 160], dtype="uint8").reshape(1, 1, 1, 3)
    >>> jitter = knl.RandomColorJitter(brightness_factor=(0.2, 0.2), saturation_factor=(0.0, 0.0))
    >>> np.asarray(jitter(pixel)).ravel().tolist()
    [251.0, 251.0, 251.0]
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (0, 255),
        brightness_factor: Any = None,
        contrast_factor: Any = None,
        saturation_factor: Any = None,
        hue_factor: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.value_range = value_range
        self.brightness_factor = brightness_factor
        self.contrast_factor = contrast_factor
        self.saturation_factor = saturation_factor
        self.hue_factor = hue_factor
        parts = [
            (RandomBrightness, brightness_factor),
            (RandomContrast, contrast_factor),
            (RandomSaturation, saturation_factor),
            (RandomHue, hue_factor),
        ]
        options: dict[str, Any] = {"value_range": value_range, "same_on_batch": self.same_on_batch}
        self._parts = [make(factor, **options) for make, factor in parts if factor is not None]
        if not self._parts:
            raise ValueError(
                "RandomColorJitter: give one or more of `brightness_factor`, `contrast_factor`, `saturation_factor` "
                "and `hue_factor`. Received: None for each"
            )

    def specs(self) -> dict[str, Distribution]:
        return {}

    def branches(self) -> list[list[Any]]:
        return [self._parts]

    def gates(self, params: dict[str, Any]) -> list[Any]:
        return [None]
