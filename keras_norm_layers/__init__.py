"""Normalization and augmentation that live inside a Keras model.

``adapt`` learns statistics and keeps them as weights; random transforms run in one pass in the model's graph; an export
carries the first and leaves out the second. Import this package before ``keras.saving.load_model``, so that Keras knows
its layers.
"""

from keras_norm_layers.control import StrengthSchedule, predict_augmented
from keras_norm_layers.export import export_for_serving
from keras_norm_layers.fuse import fuse
from keras_norm_layers.normalization import FeaturewiseNormalization, SamplewiseNormalization, ZCAWhitening, adapt
from keras_norm_layers.pipeline import augment_dataset
from keras_norm_layers.transforms import (
    Augment,
    AutoContrast,
    Equalization,
    Maybe,
    OneOf,
    RandomAffine,
    RandomBrightness,
    RandomChannelGain,
    RandomChannelShift,
    RandomColorDegeneration,
    RandomColorJitter,
    RandomContrast,
    RandomCrop,
    RandomFlip,
    RandomGamma,
    RandomGrayscale,
    RandomHue,
    RandomInvert,
    RandomPerspective,
    RandomPosterization,
    RandomResizedCrop,
    RandomRot90,
    RandomRotation,
    RandomSaturation,
    RandomShear,
    RandomTranslation,
    RandomZoom,
    Solarization,
    SomeOf,
)

__version__ = "0.1.0"

__all__ = [
    "Augment",
    "AutoContrast",
    "Equalization",
    "FeaturewiseNormalization",
    "Maybe",
    "OneOf",
    "RandomAffine",
    "RandomBrightness",
    "RandomChannelGain",
    "RandomChannelShift",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomGamma",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomResizedCrop",
    "RandomRot90",
    "RandomRotation",
    "RandomSaturation",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SamplewiseNormalization",
    "Solarization",
    "SomeOf",
    "StrengthSchedule",
    "ZCAWhitening",
    "adapt",
    "augment_dataset",
    "export_for_serving",
    "fuse",
    "predict_augmented",
]
