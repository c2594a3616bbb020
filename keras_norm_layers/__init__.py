"""Normalization and augmentation that live inside a Keras model.

``adapt`` learns statistics and keeps them as weights; random transforms run in one pass in the model's graph; an export
carries the first and leaves out the second. Import this package before ``keras.saving.load_model``, so that Keras knows
its layers.
"""

from keras_norm_layers.export import export_for_serving
from keras_norm_layers.normalization import FeaturewiseNormalization, SamplewiseNormalization, ZCAWhitening, adapt
from keras_norm_layers.transforms import (
    Augment,
    RandomBrightness,
    RandomChannelShift,
    RandomContrast,
    RandomFlip,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    RandomZoom,
)

__version__ = "0.1.0"

__all__ = [
    "Augment",
    "FeaturewiseNormalization",
    "RandomBrightness",
    "RandomChannelShift",
    "RandomContrast",
    "RandomFlip",
    "RandomRotation",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SamplewiseNormalization",
    "ZCAWhitening",
    "adapt",
    "export_for_serving",
]
