"""Normalization and augmentation that live inside a Keras model.

``adapt`` learns statistics and keeps them as weights; random transforms run in one pass in the model's graph; an export
carries the first and leaves out the second. Import this package before ``keras.saving.load_model``, so that Keras knows
its layers.
"""

from keras_norm_layers import data
from keras_norm_layers.control import StrengthSchedule, predict_augmented
from keras_norm_layers.data import save_augmented
from keras_norm_layers.export import export_for_serving
from keras_norm_layers.fuse import fuse
from keras_norm_layers.migration import ImageDataGenerator, from_image_data_generator
from keras_norm_layers.normalization import (
    FeaturewiseNormalization,
    MinMaxNormalization,
    PercentileClipping,
    RobustNormalization,
    SamplewiseNormalization,
    ZCAWhitening,
    adapt,
)
from keras_norm_layers.pipeline import augment_dataset
from keras_norm_layers.plots import plot_statistics
from keras_norm_layers.transforms import (
    Augment,
    AugMix,
    AutoContrast,
    CutMix,
    Equalization,
    Maybe,
    MixUp,
    OneOf,
    RandAugment,
    RandomAffine,
    RandomBrightness,
    RandomChannelGain,
    RandomChannelShift,
    RandomColorDegeneration,
    RandomColorJitter,
    RandomContrast,
    RandomCrop,
    RandomElasticTransform,
    RandomErasing,
    RandomFlip,
    RandomGamma,
    RandomGaussianBlur,
    RandomGrayscale,
    RandomHue,
    RandomInvert,
    RandomNoise,
    RandomPerspective,
    RandomPosterization,
    RandomResizedCrop,
    RandomRot90,
    RandomRotation,
    RandomSaturation,
    RandomSharpness,
    RandomShear,
    RandomTranslation,
    RandomZoom,
    Solarization,
    SomeOf,
)

__version__ = "0.1.0"

__all__ = [
    "AugMix",
    "Augment",
    "AutoContrast",
    "CutMix",
    "Equalization",
    "FeaturewiseNormalization",
    "ImageDataGenerator",
    "Maybe",
    "MinMaxNormalization",
    "MixUp",
    "OneOf",
    "PercentileClipping",
    "RandAugment",
    "RandomAffine",
    "RandomBrightness",
    "RandomChannelGain",
    "RandomChannelShift",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGamma",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomNoise",
    "RandomPerspective",
    "RandomPosterization",
    "RandomResizedCrop",
    "RandomRot90",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "RobustNormalization",
    "SamplewiseNormalization",
    "Solarization",
    "SomeOf",
    "StrengthSchedule",
    "ZCAWhitening",
    "adapt",
    "augment_dataset",
    "data",
    "export_for_serving",
    "from_image_data_generator",
    "fuse",
    "plot_statistics",
    "predict_augmented",
    "save_augmented",
]
