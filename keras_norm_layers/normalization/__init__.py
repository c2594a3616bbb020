"""Normalization layers whose statistics are weights, and the function that adapts all of a model."""

from keras_norm_layers.normalization.adapt import adapt
from keras_norm_layers.normalization.adaptive import AdaptiveLayer
from keras_norm_layers.normalization.featurewise import FeaturewiseNormalization
from keras_norm_layers.normalization.ranges import MinMaxNormalization, PercentileClipping, RobustNormalization
from keras_norm_layers.normalization.samplewise import SamplewiseNormalization
from keras_norm_layers.normalization.whitening import ZCAWhitening

__all__ = [
    "AdaptiveLayer",
    "FeaturewiseNormalization",
    "MinMaxNormalization",
    "PercentileClipping",
    "RobustNormalization",
    "SamplewiseNormalization",
    "ZCAWhitening",
    "adapt",
]
