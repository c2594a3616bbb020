"""Every layer of the package once or more, with arguments: the rows of ``test_contract.py``.

A new layer gets a line here, and every promise is tested on it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import keras_norm_layers as knl

RANGE_01 = (0.0, 1.0)
HEIGHT, WIDTH, CHANNELS = 9, 14, 3


def _chain(**options: Any) -> knl.Augment:
    return knl.Augment(
        [
            knl.RandomFlip("horizontal"),
            knl.RandomRotation(0.1),
            knl.RandomTranslation(0.2, 0.2),
            knl.RandomZoom(0.3),
            knl.RandomShear(0.2, 0.1),
            knl.RandomBrightness(0.2),
            knl.RandomContrast(0.4),
            knl.RandomChannelShift(0.1),
        ],
        **options,
    )


def _stages(**options: Any) -> knl.Augment:
    return knl.Augment(
        [
            knl.RandomContrast(0.4, p=0.7),
            knl.RandomRotation(0.1, fill_mode="constant", fill_value=20.0),
            knl.RandomBrightness(0.2, same_on_batch=True),
            knl.RandomZoom((0.1, 0.5), (0.0, 0.4), fill_mode="wrap"),
            knl.RandomFlip(p=0.8),
            knl.RandomChannelShift(0.2),
        ],
        **options,
    )


def _flips(**options: Any) -> knl.Augment:
    return knl.Augment([knl.RandomFlip(), knl.RandomChannelShift(0.1), knl.RandomFlip("vertical", p=0.5)], **options)


def _crop(**options: Any) -> knl.Augment:
    return knl.Augment(
        [
            knl.RandomFlip(),
            knl.RandomRotation(0.1),
            knl.RandomCrop(7, 8),
            knl.RandomBrightness(0.2),
            knl.OneOf([knl.RandomZoom(0.3), knl.RandomContrast(0.5)], weights=[1, 2], p=0.9),
        ],
        **options,
    )


# name -> a function that makes the layer; keyword arguments (seed, data_format, ...) go to its constructor.
RANDOM: dict[str, Callable[..., Any]] = {
    "flip": knl.RandomFlip,
    "flip horizontal": functools.partial(knl.RandomFlip, "horizontal", p=0.9),
    "flip vertical": functools.partial(knl.RandomFlip, "vertical"),
    "rotation": functools.partial(knl.RandomRotation, 0.3),
    "rotation degrees nearest": functools.partial(knl.RandomRotation, degrees=(10, 40), interpolation="nearest"),
    "rotation constant": functools.partial(knl.RandomRotation, 0.3, "constant", fill_value=33.0, p=0.8),
    "translation": functools.partial(knl.RandomTranslation, 0.4, 0.4),
    "translation wrap": functools.partial(knl.RandomTranslation, (-0.9, 0.9), (-0.2, 1.0), "wrap"),
    "translation wrap nearest": functools.partial(knl.RandomTranslation, 0.5, 0.5, "wrap", "nearest"),
    "zoom": functools.partial(knl.RandomZoom, 0.4),
    "zoom two factors": functools.partial(knl.RandomZoom, (-0.5, 0.9), (0.1, 0.9), "nearest"),
    "zoom constant nearest": functools.partial(
        knl.RandomZoom, (0.1, 0.9), None, "constant", "nearest", fill_value=-0.5
    ),
    "shear": functools.partial(knl.RandomShear, 0.4, 0.3),
    "shear constant": functools.partial(knl.RandomShear, (0.1, 0.9), 0.0, fill_mode="constant", p=0.7),
    "half turns": functools.partial(knl.RandomRot90, (0, 2)),
    "rotation crop": functools.partial(knl.RandomRotation, 0.3, expand="crop"),
    "rotation fit": functools.partial(knl.RandomRotation, 0.3, "constant", expand="fit", antialias=True),
    "rotation bicubic": functools.partial(knl.RandomRotation, 0.3, "nearest", "bicubic"),
    "affine": functools.partial(knl.RandomAffine, 0.1, 0.2, 0.2, 0.3, 0.3, 0.2, 0.1),
    "affine old": functools.partial(
        knl.RandomAffine, rotation_range=30, width_shift_range=2, shear_range=20, zoom_range=0.3, fill_mode="nearest"
    ),
    "perspective": functools.partial(knl.RandomPerspective, (1.0, 1.0), 0.6, fill_value=40.0),
    "perspective reflect": functools.partial(knl.RandomPerspective, 1.0, 0.5, fill_mode="reflect", p=0.9),
    "crop": functools.partial(knl.RandomCrop, 6, 7),
    "crop enlarged": functools.partial(knl.RandomCrop, 16, 17),
    "resized crop": functools.partial(knl.RandomResizedCrop, 8, 7, (0.2, 1.0)),
    "brightness": functools.partial(knl.RandomBrightness, 0.5),
    "brightness once a batch": functools.partial(knl.RandomBrightness, (-0.3, 0.6), same_on_batch=True),
    "contrast": functools.partial(knl.RandomContrast, 0.7),
    "contrast p": functools.partial(knl.RandomContrast, (0.2, 0.9), p=0.6),
    "channel shift": functools.partial(knl.RandomChannelShift, 0.4),
    "channel shift shared": functools.partial(knl.RandomChannelShift, 0.4, shared=True, clip_to="image", p=0.9),
    "channel gain": functools.partial(knl.RandomChannelGain, 0.4),
    "channel gain shared": functools.partial(knl.RandomChannelGain, (-0.5, 0.2), shared=True, p=0.9),
    "grayscale": knl.RandomGrayscale,
    "color degeneration": functools.partial(knl.RandomColorDegeneration, 0.8),
    "invert": knl.RandomInvert,
    "auto contrast": knl.AutoContrast,
    "saturation": functools.partial(knl.RandomSaturation, (0.1, 0.9)),
    "hue": functools.partial(knl.RandomHue, 0.9),
    "hue p": functools.partial(knl.RandomHue, (0.2, 1.0), p=0.8),
    "posterization": functools.partial(knl.RandomPosterization, (2, 4)),
    "solarization": functools.partial(knl.Solarization, 0.3, (0.2, 0.9)),
    "gamma": functools.partial(knl.RandomGamma, (0.4, 2.5)),
    "equalization": knl.Equalization,
    "color jitter": functools.partial(knl.RandomColorJitter, (0, 255), 0.3, 0.5, (0.2, 0.8), 0.4, p=0.9),
    "sharpness": functools.partial(knl.RandomSharpness, 0.9),
    "gaussian blur": functools.partial(knl.RandomGaussianBlur, kernel_size=(5, 3), p=0.9),
    "erasing": functools.partial(knl.RandomErasing, (0.8, 1.0)),
    "erasing color": functools.partial(knl.RandomErasing, (0.8, 1.0), (0.1, 0.5), (10, 200, 30)),
    "noise": functools.partial(knl.RandomNoise, (0.05, 0.2)),
    "elastic": functools.partial(knl.RandomElasticTransform, (0.8, 1.0), (0.5, 1.0)),
    "mix up": functools.partial(knl.MixUp, 0.8),
    "cut mix": functools.partial(knl.CutMix, p=0.9),
    "maybe": lambda **o: knl.Maybe([knl.RandomRotation(0.2), knl.RandomBrightness(0.3)], p=0.8, **o),
    "one of": lambda **o: knl.OneOf([knl.RandomZoom(0.3), knl.RandomContrast(0.6), knl.RandomShear(0.3)], **o),
    "some of": lambda **o: knl.SomeOf([knl.RandomRotation(0.2), knl.RandomFlip(), knl.RandomBrightness(0.3)], 2, **o),
    "rand augment": functools.partial(knl.RandAugment, num_ops=3, factor=0.3),
    "aug mix": functools.partial(knl.AugMix, num_chains=2, chain_depth=2),
    "augment chain": _chain,
    "augment two stages": _stages,
    "augment flips": _flips,
    "augment crop": _crop,
}


def adapted(layer: Any) -> Any:
    """The layer, adapted to the standard images."""
    layer.adapt(images(16), verbose=0)
    return layer


NORMALIZATION: dict[str, Callable[[], Any]] = {
    "featurewise": lambda: adapted(knl.FeaturewiseNormalization()),
    "featurewise one": lambda: adapted(knl.FeaturewiseNormalization(axis=None, center=False)),
    "featurewise pixel": lambda: adapted(knl.FeaturewiseNormalization(axis=(1, 2, 3))),
    "featurewise omit": lambda: adapted(knl.FeaturewiseNormalization(axis=1, nan_policy="omit")),
    "featurewise given": lambda: knl.FeaturewiseNormalization(mean=[10.0, 20.0, 30.0], std=[2.0, 3.0, 4.0]),
    "min max": lambda: adapted(knl.MinMaxNormalization(feature_range=(-1, 1))),
    "min max pixel": lambda: adapted(knl.MinMaxNormalization(axis=(1, 2, 3), clip=True)),
    "min max given": lambda: knl.MinMaxNormalization(minimum=[0.0, 10.0, 20.0], maximum=200.0),
    "robust": lambda: adapted(knl.RobustNormalization()),
    "robust pixel": lambda: adapted(knl.RobustNormalization(axis=(1, 2, 3), unit_variance=True)),
    "percentile clipping": lambda: adapted(knl.PercentileClipping()),
    "percentile clipping one": lambda: adapted(knl.PercentileClipping(None, (5, 95), feature_range=(0, 1))),
    "samplewise": lambda: knl.SamplewiseNormalization(),
    "samplewise channel": lambda: knl.SamplewiseNormalization(axis=-1, scale=False),
    "zca": lambda: adapted(knl.ZCAWhitening()),
    "pca": lambda: adapted(knl.ZCAWhitening(kind="pca", epsilon=1e-3)),
    "zca-cor": lambda: adapted(knl.ZCAWhitening(kind="zca-cor", epsilon_on="std", center="channel")),
    "cholesky": lambda: adapted(knl.ZCAWhitening(kind="cholesky", shrinkage="oas")),
    "zca rank": lambda: adapted(knl.ZCAWhitening(rank=5, shrinkage=0.1, complement="scale")),
    "pca rank": lambda: adapted(knl.ZCAWhitening(rank=6, kind="pca", epsilon_on="singular_value")),
    "zca patches": lambda: adapted(knl.ZCAWhitening(patch_size=3, epsilon=1.0)),
}


@functools.cache
def random_layer(name: str) -> Any:
    """A layer of ``RANDOM`` with seed 7, built on images; shared by tests, so that it compiles once."""
    layer = RANDOM[name](seed=7)
    layer.build((None, HEIGHT, WIDTH, CHANNELS))
    return layer


def kinds(name: str) -> set[str]:
    """What the transforms of a layer of ``RANDOM`` are: "geometry", "color", "pixel", "mix", "blend"."""
    return {transform.kind for transform in random_layer(name).plan.acting}


CHAINS = [name for name in RANDOM if name.startswith("augment")]
GEOMETRIC = [name for name in RANDOM if kinds(name) == {"geometry"}]
COLOR = [name for name in RANDOM if kinds(name) <= {"color", "pixel"}]
MIXING = [name for name in RANDOM if "mix" in kinds(name)]  # an image needs a batch
BLENDING = [name for name in RANDOM if "blend" in kinds(name)]  # no target fits what was moved differently
RESIZING = [name for name in RANDOM if random_layer(name).plan.resizes]  # not the identity at inference
DRAWING_NOTHING = ["auto contrast", "equalization"]  # the same for the same image
FEW_OUTCOMES = {
    "flip": 4,
    "flip horizontal": 2,
    "flip vertical": 2,
    "half turns": 2,
    "grayscale": 2,
    "invert": 2,
    "posterization": 3,
}


@functools.cache
def normalization_layer(name: str) -> Any:
    """A layer of ``NORMALIZATION``, adapted and built."""
    layer = NORMALIZATION[name]()
    layer(images(2))
    return layer


def images(number: int, seed: int = 0, dtype: str = "uint8", channels: int = CHANNELS) -> np.ndarray:
    """Images of noise on a gradient, with values from 0 to 255."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, HEIGHT * WIDTH).reshape(1, HEIGHT, WIDTH, 1)
    return (ramp + rng.integers(0, 136, (number, HEIGHT, WIDTH, channels))).astype(dtype)


def quantiles(layer: Any, number: int, seed: int = 1) -> np.ndarray:
    """Draws for ``layer``: float32 numbers in [0, 1), shape (number, slots)."""
    return np.random.default_rng(seed).random((number, layer.plan.slots), dtype="float32") * np.float32(0.999)
