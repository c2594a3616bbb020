"""Policies: many operations of which each image gets a few, with one number for how strong they are."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, resample
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import BlendTransform, ChoiceTransform
from keras_norm_layers.transforms.choose import SomeOf, chosen
from keras_norm_layers.transforms.color import (
    AutoContrast,
    RandomBrightness,
    RandomColorDegeneration,
    RandomContrast,
)
from keras_norm_layers.transforms.curves import Equalization, RandomPosterization, Solarization
from keras_norm_layers.transforms.geometric import RandomRotation, RandomShear, RandomTranslation
from keras_norm_layers.transforms.pixel import RandomSharpness
from keras_norm_layers.transforms.sampling import Beta, Distribution, Gamma, Key


def operations(
    factor: tuple[float, float], value_range: tuple[float, float], options: dict[str, Any], every: bool = True
) -> list[Any]:
    """The operations of RandAugment, and of AugMix, at a strength: those that move pixels first.

    ``every`` adds those that AugMix leaves out, so as not to repeat the corruptions that it is tested on.
    """
    geometric = [
        RandomShear(factor, factor, **options),
        RandomTranslation(factor, factor, **options),
        RandomRotation(factor, **options),
    ]
    # An affine one beside the next: they run as one expression.
    affine = [
        RandomBrightness(factor, value_range),
        RandomContrast(factor, value_range),
        RandomColorDegeneration(factor, value_range),
    ]
    others = [
        AutoContrast(value_range),
        RandomPosterization(max(1, int(8 * factor[1])), value_range),
        Solarization(factor, factor, value_range),
    ]
    last = [Equalization(value_range)]
    return (
        geometric
        + (affine if every else [])
        + others
        + ([RandomSharpness(factor, value_range)] if every else [])
        + last
    )


@serializable
class RandAugment(ChoiceTransform):
    """Applies ``num_ops`` operations to each image, chosen at random among eleven, all of one strength.

    Shear, translation, rotation, brightness, contrast, colour degeneration, auto contrast, posterization, solarization,
    sharpness, equalization. Every image has a choice of its own, of different operations. They act in this order,
    so that those that move pixels share one resampling. Cubuk et al., "RandAugment: Practical automated data
    augmentation with a reduced search space" (2019).

    Args:
        value_range: (lowest, highest) value of the images; default (0, 255).
        num_ops: how many operations an image gets, from 1 to 11; default 2.
        factor: the strength: each operation draws its factor from [0, factor], or from a pair (lower, upper), in
            [0, 1]; default 0.5. What a factor means stands in the operation's own documentation; that of the
            rotation is a part of a full turn. Posterization keeps as many bits as 8 times the upper end.
        interpolation: "bilinear" (default), "nearest" or "bicubic".
        fill_mode, fill_value: as in ``GeometricTransform``.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Masks, boxes and keypoints move with the pixels. ``keras.layers.RandAugment`` chooses once for the whole batch.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> images = np.arange(192, dtype="uint8").reshape(1, 8, 8, 3).repeat(4, axis=0)
    >>> batch = np.asarray(knl.RandAugment(factor=0.3, seed=2)(images))
    >>> batch.shape, len({float(image.mean()) for image in batch})
    ((4, 8, 8, 3), 4)
    """

    geometry_first = True

    def __init__(
        self,
        value_range: tuple[float, float] = (0, 255),
        num_ops: int = 2,
        factor: Any = 0.5,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        *,
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.value_range = validation.check_value_range("RandAugment", value_range)
        self.factor = factor
        limits = validation.check_probability("RandAugment", "factor", factor)
        self.interpolation = validation.check_choice(
            "RandAugment", "interpolation", interpolation, resample.INTERPOLATIONS
        )
        self.fill_mode = validation.check_choice("RandAugment", "fill_mode", fill_mode, resample.FILL_MODES)
        self.fill_value = validation.check_number("RandAugment", "fill_value", fill_value)
        options = {"interpolation": interpolation, "fill_mode": fill_mode, "fill_value": self.fill_value}
        self._operations = operations(limits, self.value_range, options)
        self.num_ops = validation.check_count("RandAugment", "num_ops", num_ops, 1, len(self._operations))

    def specs(self) -> dict[str, Distribution]:
        return {f"key {number}": Key() for number in range(len(self._operations))}

    def branches(self) -> list[list[Any]]:
        return [[operation] for operation in self._operations]

    def gates(self, params: dict[str, Any]) -> list[Any]:
        return chosen([params[f"key {number}"] for number in range(len(self._operations))], self.num_ops)


@serializable
class AugMix(BlendTransform):
    """Mixes an image with several differently augmented versions of itself.

    Each of ``num_chains`` chains applies 1 to ``chain_depth`` different operations, chosen for each image. What they
    make is averaged with weights from a Dirichlet distribution, and the average blended with the image by a weight from
    a beta distribution. Hendrycks et al., "AugMix: A simple data processing method to improve robustness and
    uncertainty" (2019).

    Args:
        value_range: (lowest, highest) value of the images; default (0, 255).
        num_chains: the number of versions, default 3.
        chain_depth: the most operations a version gets, default 3.
        factor: the strength of the operations, see ``RandAugment``; default 0.3.
        alpha: the parameter of both distributions, above 0; default 1.0.
        all_ops: True (default) takes all operations of ``RandAugment``, False leaves out brightness, contrast, colour
            degeneration and sharpness.
        interpolation: "bilinear" (default), "nearest" or "bicubic".
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Raises an error for masks, boxes and keypoints: the versions were moved differently.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> images = np.full((2, 8, 8, 3), 90, dtype="uint8")
    >>> np.asarray(knl.AugMix(seed=1)(images)).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        value_range: tuple[float, float] = (0, 255),
        num_chains: int = 3,
        chain_depth: int = 3,
        factor: Any = 0.3,
        alpha: float = 1.0,
        all_ops: bool = True,
        interpolation: str = "bilinear",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, data_format=data_format, **kwargs)
        self.value_range = validation.check_value_range("AugMix", value_range)
        self.num_chains = validation.check_count("AugMix", "num_chains", num_chains, 1, 10)
        self.factor = factor
        limits = validation.check_probability("AugMix", "factor", factor)
        self.alpha = validation.check_number("AugMix", "alpha", alpha, 0.01, 100.0)
        self.all_ops = validation.check_bool("AugMix", "all_ops", all_ops)
        self.interpolation = validation.check_choice("AugMix", "interpolation", interpolation, resample.INTERPOLATIONS)
        options = {"interpolation": interpolation}
        several = operations(limits, self.value_range, options, all_ops)
        self.chain_depth = validation.check_count("AugMix", "chain_depth", chain_depth, 1, len(several))
        self._chains = [
            _Chain(operations(limits, self.value_range, options, all_ops), (1, chain_depth)) for _ in range(num_chains)
        ]

    def specs(self) -> dict[str, Distribution]:
        specs: dict[str, Distribution] = {f"weight {number}": Gamma(self.alpha) for number in range(self.num_chains)}
        return {**specs, "kept": Beta(self.alpha)}

    def branches(self) -> list[list[Any]]:
        return [[chain] for chain in self._chains]

    def blend(self, params: dict[str, Any], images: Any, made: list[Any]) -> Any:
        weights = [params[f"weight {number}"] for number in range(self.num_chains)]
        total, kept = sum(weights[1:], weights[0]), params["kept"]
        result = images * kept[:, None, None, None]
        for weight, version in zip(weights, made):
            result = result + version * ((1.0 - kept) * weight / total)[:, None, None, None]
        return backend.namespace(images).clip(result, *self.value_range)


class _Chain(SomeOf):
    """The operations of one version."""

    geometry_first = True
