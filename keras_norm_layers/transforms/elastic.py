"""Elastic deformations: a smooth random displacement of every pixel."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, filters, matrices, threefry
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import GeometricTransform
from keras_norm_layers.transforms.sampling import Coin, Distribution, Key, Uniform


@serializable
class RandomElasticTransform(GeometricTransform):
    """Shifts the pixels of an image by a smooth random field (Simard, Steinkraus and Platt 2003).

    The field is alpha * blur(sigma * noise) with standard normal noise, alpha = 0.1 s max(H, W), and a Gaussian blur of
    sigma = 0.05 s min(H, W) pixels: a standard deviation of 0.28 alpha pixels, less near the border.

    Args:
        factor: the probability of it: a pair (lower, upper) in [0, 1], between which each image's probability is drawn,
            or a number f for (0, f); default 1.0. (Only their mean matters: 1.0 bends half of the images, (1, 1) all.)
        scale: the range of s: a pair (lower, upper) in [0, 1], or a number u for [0, u]; default 1.0.
        interpolation, fill_mode, fill_value: see ``GeometricTransform``.
        value_range: (lowest, highest) value of the images; default (0, 255). Nothing depends on it.
        seed, data_format, p, same_on_batch, **kwargs: see ``Transform``.

    Masks, boxes and keypoints follow. ``keras.layers.RandomElasticTransform`` draws one s for the whole batch.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> flat = np.full((8, 8, 1), 100, dtype="uint8")
    >>> np.asarray(knl.RandomElasticTransform((1, 1))(flat)).round(3).ravel()[:3].tolist()
    [100.0, 100.0, 100.0]
    """

    bends = True

    def __init__(
        self,
        factor: Any = 1.0,
        scale: Any = 1.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            interpolation=interpolation,
            fill_mode=fill_mode,
            fill_value=fill_value,
            seed=seed,
            data_format=data_format,
            **kwargs,
        )
        owner = "RandomElasticTransform"
        self.factor, self.scale = factor, scale
        self.value_range = validation.check_value_range(owner, value_range)
        self._probability = sum(validation.check_probability(owner, "factor", factor)) / 2.0
        self._range = validation.check_probability(owner, "scale", scale)

    def specs(self) -> dict[str, Distribution]:
        return {"on": Coin(self._probability), "scale": Uniform(*self._range), "noise": Key()}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        one = params["scale"] * 0.0 + 1.0
        return matrices.scale(one, one)

    def displacement(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        xp = backend.namespace(params["scale"])
        rows, columns = (float(n) if isinstance(n, int) else xp.cast(n, "float32") for n in (height, width))
        shorter = rows + columns - xp.maximum(params["scale"] * 0.0 + rows, columns)
        scale = params["on"] * params["scale"]
        alpha, sigma = 0.1 * scale * (rows + columns - shorter), 0.05 * scale * shorter
        noise = threefry.normal_field(params["noise"], (2, height, width))
        # Products with two matrices cost a thousandth of Keras's kernel of 67 x 67 taps, for any sigma an image.
        down, across = filters.smoothing(sigma, height)[:, None], filters.smoothing(sigma, width)[:, None]
        field = xp.matmul(xp.matmul(down, noise), across * (alpha * sigma)[:, None, None, None])
        return xp.stack([field[:, 0], field[:, 1]], 3)
