"""Transforms that mix the images of a batch, and their labels in the same parts."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import MixTransform
from keras_norm_layers.transforms.sampling import Beta, BetaMixture, Distribution, Key, Uniform

LEAST = 1e-6  # what Keras adds to alpha, so that it is never 0


@serializable
class MixUp(MixTransform):
    """Averages each image with another of its batch, and their labels: y = w x + (1 - w) x' (Zhang et al. 2018).

    Args:
        alpha: the weight w is drawn for each image from the beta distribution with both parameters ``alpha``, from
            0.001 to 100: the smaller, the less is mixed; 1 is uniform. Default 0.2.
        data_format, seed, p, **kwargs: see ``Transform``.

    Labels are one-hot, (N, classes), and come out in float32. Masks, boxes and keypoints are refused.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> data = {"images": np.zeros((2, 4, 4, 3), "uint8"), "labels": np.eye(2, dtype="float32")}
    >>> np.asarray(knl.MixUp(seed=1)(data)["labels"]).sum(axis=1).round(4).tolist()
    [1.0, 1.0]
    """

    def __init__(
        self, alpha: float = 0.2, data_format: str | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format=data_format, seed=seed, **kwargs)
        self.alpha = validation.check_number("MixUp", "alpha", alpha, 1e-3, 100.0)

    def specs(self) -> dict[str, Distribution]:
        return {"weight": Beta(self.alpha), "partner": Key()}

    def mix_images(self, params: dict[str, Any], images: Any) -> Any:
        return self._average(params, images)

    def mix_labels(self, params: dict[str, Any], labels: Any, height: Any, width: Any) -> Any:
        return self._average(params, labels)

    def _average(self, params: dict[str, Any], batch: Any) -> Any:
        return _blend(params["weight"], batch, self.partners(params, batch))


@serializable
class CutMix(MixTransform):
    """Pastes a rectangle of another image of the batch into each, and mixes labels by its area (Yun et al. 2019).

    Args:
        factor: the range of alpha: a pair (lower, upper) in [0, 1], or a number f for [0, f]; default 1.0. The share of
            the image that stays is drawn for each image from the beta distribution with both parameters alpha.
        seed, data_format, p, **kwargs: see ``Transform``.

    Labels are one-hot, (N, classes), and come out in float32. Masks are cut and pasted as the images are; boxes and
    keypoints are refused. ``keras.layers.CutMix`` draws one alpha for the whole batch; here each image has its own.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> data = {"images": np.zeros((2, 4, 4, 3), "uint8"), "labels": np.eye(2, dtype="float32")}
    >>> np.asarray(knl.CutMix(seed=1)(data)["labels"]).sum(axis=1).round(4).tolist()
    [1.0, 1.0]
    """

    def __init__(
        self, factor: Any = 1.0, seed: int | None = None, data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.factor = factor
        self._range = validation.check_probability("CutMix", "factor", factor)

    def specs(self) -> dict[str, Distribution]:
        low, high = (end + LEAST for end in self._range)
        weight = Beta(low) if low == high else BetaMixture(high, lowest=low)
        return {"weight": weight, "x": Uniform(0.0, 1.0), "y": Uniform(0.0, 1.0), "partner": Key()}

    def mix_images(self, params: dict[str, Any], images: Any) -> Any:
        xp = backend.namespace(images)
        _, height, width, _ = xp.shape(images)
        return pixels.pasted(images, self.partners(params, images), *self._edges(params, height, width))

    def mix_masks(self, params: dict[str, Any], masks: Any) -> Any:
        return self.mix_images(params, masks)

    def mix_labels(self, params: dict[str, Any], labels: Any, height: Any, width: Any) -> Any:
        # The two sides are sqrt(1 - weight) of the image's, so the area is 1 - weight, as Keras counts it.
        return _blend(params["weight"], labels, self.partners(params, labels))

    @staticmethod
    def _edges(params: dict[str, Any], height: Any, width: Any) -> tuple[Any, Any]:
        area = backend.namespace(params["weight"]).maximum(1.0 - params["weight"], 0.0)
        return pixels.interval(area, params["x"], width), pixels.interval(area, params["y"], height)


def _blend(weight: Any, batch: Any, other: Any) -> Any:
    xp = backend.namespace(batch)
    weight = xp.reshape(weight, (-1, *[1] * (len(batch.shape) - 1)))
    return xp.weighted(other, 1.0 - weight, batch, weight)
