"""The step from ``ImageDataGenerator`` to layers."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_norm_layers.migration.statistics import Whitening
from keras_norm_layers.normalization.featurewise import FeaturewiseNormalization
from keras_norm_layers.normalization.samplewise import SamplewiseNormalization
from keras_norm_layers.normalization.whitening import ZCAWhitening
from keras_norm_layers.transforms.affine import RandomAffine
from keras_norm_layers.transforms.augment import Augment
from keras_norm_layers.transforms.color import RandomChannelGain, RandomChannelShift
from keras_norm_layers.transforms.geometric import RandomFlip

LEVELS = (0, 255)


def generator_layers(generator: Any, image_shape: Any = None, seed: int | None = None) -> list[keras.layers.Layer]:
    """The layers that do what an ``ImageDataGenerator`` does: see its ``layers``."""
    if generator.preprocessing_function is not None:
        raise ValueError(
            "ImageDataGenerator.layers: no layer is known that does what `preprocessing_function` does. Set "
            "generator.preprocessing_function = None, and put a keras.layers.Layer of it (or keras.layers.Lambda) into "
            "the model after Augment."
        )
    chain = _transforms(generator)
    layers = [Augment(chain, seed=seed, data_format=generator.data_format)] if chain else []
    if generator.rescale:
        layers.append(keras.layers.Rescaling(generator.rescale, dtype="float32"))
    if generator.samplewise_center or generator.samplewise_std_normalization:
        scale = bool(generator.samplewise_std_normalization)
        layers.append(SamplewiseNormalization(center=bool(generator.samplewise_center), scale=scale))
    if generator.featurewise_center or generator.featurewise_std_normalization:
        layers.append(_featurewise(generator))
    if generator.zca_whitening:
        layers.append(_zca(generator, image_shape))
    return layers


def _transforms(generator: Any) -> list[Any]:
    """The random transforms, in the generator's order."""
    chain = [_affine(generator)] if _moves(generator) else []
    shift = abs(generator.channel_shift_range)
    if shift:
        span = max(shift, 255.0)  # the layer counts in parts of a range of values
        chain.append(RandomChannelShift(shift / span, (0, span), shared=True, clip_to="image"))
    flips = [name for name in ("horizontal", "vertical") if getattr(generator, f"{name}_flip")]
    if flips:
        chain.append(RandomFlip("_and_".join(flips)))
    if generator.brightness_range is not None:
        low, high = generator.brightness_range
        if not 0 <= low <= high <= 2:
            raise ValueError(
                "ImageDataGenerator.layers: a layer multiplies brightness by 0 to 2. Received: brightness_range="
                f"{generator.brightness_range!r}. Choose another range, or set it to None and use RandomGamma."
            )
        chain.append(RandomChannelGain((low - 1.0, high - 1.0), LEVELS, shared=True))
    return chain


def _moves(generator: Any) -> bool:
    names = ("rotation_range", "width_shift_range", "height_shift_range", "shear_range")
    return list(generator.zoom_range) != [1, 1] or any(np.any(getattr(generator, name)) for name in names)


def _affine(generator: Any) -> RandomAffine:
    if generator.interpolation_order > 1:
        raise ValueError(
            "ImageDataGenerator.layers: layers interpolate with order 0 or 1. Received: interpolation_order="
            f"{generator.interpolation_order}. Set it to 1, or use RandomAffine(interpolation='bicubic', ...) itself."
        )
    return RandomAffine(
        rotation_range=abs(generator.rotation_range),
        width_shift_range=_shift("width_shift_range", generator.width_shift_range),
        height_shift_range=_shift("height_shift_range", generator.height_shift_range),
        shear_range=abs(generator.shear_range),
        zoom_range=tuple(generator.zoom_range),
        fill_mode=generator.fill_mode,
        fill_value=generator.cval,
        interpolation="bilinear" if generator.interpolation_order else "nearest",
        data_format=generator.data_format,
    )


def _shift(name: str, reach: Any) -> float:
    """A shift range in the layer's words: an int n reaches n - 1 pixels."""
    if np.ndim(reach) == 1:
        raise ValueError(
            f"ImageDataGenerator.layers: no layer chooses a shift from a list. Received: {name}={reach!r}. Give a "
            "number, or OneOf([RandomTranslation(...), ...]) in a list of your own."
        )
    if isinstance(reach, (int, np.integer)) and reach > 0:
        return float(reach - 1)
    return abs(float(reach))


def _featurewise(generator: Any) -> FeaturewiseNormalization:
    """With the generator's statistics; one that still has to adapt, if it was not fit."""
    center, scale = bool(generator.featurewise_center), bool(generator.featurewise_std_normalization)
    wanted = {"mean": generator.mean if center else None, "std": generator.std if scale else None}
    given: dict[str, Any] = {name: np.asarray(value, "float32") for name, value in wanted.items() if value is not None}
    first = generator.data_format == "channels_first"
    axis: Any = 1 if first else -1
    if any(value.size > 1 and max(value.shape) != value.size for value in given.values()):
        axis = (1, 2, 3)  # someone set a mean image
    elif given:
        given = {name: value.reshape(-1) if value.size > 1 else value.reshape(()) for name, value in given.items()}
    missing = [name for name, needed in (("mean", center), ("std", scale)) if needed and name not in given]
    if missing and given:
        raise ValueError(
            f"ImageDataGenerator.layers: the generator has {sorted(given)} but no {missing[0]}. Set it too."
        )
    return FeaturewiseNormalization(axis=axis, center=center, scale=scale, **given)


def _zca(generator: Any, image_shape: Any) -> ZCAWhitening:
    whitening: Whitening | None = generator._whitening
    options: dict[str, Any] = {"epsilon": generator.zca_epsilon, "center": "channel", "epsilon_on": "singular_value"}
    if generator.data_format == "channels_first":
        raise ValueError("ImageDataGenerator.layers: ZCAWhitening takes channels-last images; transpose before it.")
    if whitening is None:
        return ZCAWhitening(**options)
    size, rank = whitening.directions.shape
    layer = ZCAWhitening(rank=rank if whitening.is_thin else None, **options)
    layer.build((None, *_image_shape(generator, image_shape, size)))
    values = {"mean": np.zeros(layer.mean.shape), "count": max(1, generator.images_fit)}
    if whitening.is_thin:
        variances = (1.0 / np.maximum(whitening.gains.astype("float64"), 1e-30)) ** 2
        values |= {"components": whitening.directions.T, "gains": whitening.gains, "complement_gain": 0.0}
        values |= {"variances": variances, "total_variance": variances.sum()}
    else:
        values["matrix"] = whitening.matrix()
    for name, value in values.items():
        getattr(layer, name).assign(np.asarray(value, "float32"))
    return layer


def _image_shape(generator: Any, image_shape: Any, size: int) -> tuple[int, ...]:
    """The shape of an image of ``size`` values: as given, as fitted, or square."""
    shape = image_shape or generator.image_shape_fit
    if shape is None and generator.mean is not None:
        channels = np.size(generator.mean)
        side = math.isqrt(size // channels)
        shape = (side, side, channels)
    if shape is None or math.prod(shape) != size:
        raise ValueError(
            f"ImageDataGenerator.layers: the whitening is for images of {size} values. Say which shape they have: "
            f"layers(image_shape=(H, W, C)). Received: image_shape={image_shape!r}"
        )
    return tuple(shape)
