"""Normalization of each image by its own statistics."""

from __future__ import annotations

from typing import Any

import keras

from keras_norm_layers.kernels import backend
from keras_norm_layers.layer import PreprocessingLayer, serializable
from keras_norm_layers.statistics.moments import axes_tuple, kept_axes
from keras_norm_layers.validation import check_bool, check_number


@serializable
class SamplewiseNormalization(PreprocessingLayer):
    """Subtracts each image's own mean and divides by its own standard deviation: y = (x - mean) / (std + epsilon).

    Nothing is learnt. An image (or a channel of it) whose std is 0 is centred and not scaled. On images that were not
    normalized before, a ``FeaturewiseNormalization`` after this layer has to adapt on this layer's output;
    ``keras_norm_layers.adapt(model, data)`` does so.

    Input: a batch of images of any integer or float dtype, images along the first axis. Output: the same shape, in the
    layer's dtype (float32 by default, computed in float32 always).

    Args:
        axis: axes that keep statistics of their own: None one mean and std an image, -1 one a channel of each image.
        center: subtract the mean.
        scale: divide by the standard deviation (always taken about the mean).
        epsilon: added to the standard deviation.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for an ``axis`` that names the first axis or leaves nothing to average over.

    Example:
        >>> import numpy as np
        >>> images = np.array([[[0.0], [2.0]], [[10.0], [30.0]]])
        >>> np.asarray(SamplewiseNormalization()(images)).round(3).ravel().tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    def __init__(
        self, axis: Any = None, center: bool = True, scale: bool = True, epsilon: float = 1e-6, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.axis = axis
        self._axes = axes_tuple(axis)
        self.center = check_bool(name, "center", center)
        self.scale = check_bool(name, "scale", scale)
        self.epsilon = check_number(name, "epsilon", epsilon, low=0.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return tuple(input_shape)

    def compute_output_spec(self, inputs: Any) -> Any:
        """The input's shape with the layer's compute dtype."""
        self._reduced(len(inputs.shape))
        return keras.KerasTensor(tuple(inputs.shape), dtype=self.compute_dtype)

    def _reduced(self, rank: int) -> tuple[int, ...]:
        kept = kept_axes(self._axes, rank, f"The input of {self.name!r}")
        reduced = tuple(a for a in range(1, rank) if a not in kept)
        if not reduced:
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: axis={self.axis} leaves no axis to average over for an input of "
                f"{rank} axes (the first counts the images)."
            )
        return reduced

    def call(self, inputs: Any) -> Any:
        """Normalizes a batch of images, each by itself."""
        xp = backend.namespace(inputs)
        x = xp.cast(xp.asarray(inputs), "float32")
        rank = len(x.shape)
        axes = self._reduced(rank)
        # Values count from the image's first one: a constant image becomes exactly 0, and values far from zero keep
        # their digits in the float32 sums. What the first mean misses by rounding, a second one takes away.
        first = x[tuple(slice(0, 1) if a in axes else slice(None) for a in range(rank))]
        shifted = x - first
        mean = xp.mean(shifted, axis=axes, keepdims=True)
        centred = shifted - mean
        rest = xp.mean(centred, axis=axes, keepdims=True)
        variance = xp.maximum(xp.mean(centred * centred, axis=axes, keepdims=True) - rest * rest, 0.0)
        std = xp.sqrt(variance)
        y = centred - rest if self.center else x
        if self.scale:
            y = y / xp.where(std == 0.0, std * 0.0 + 1.0, std + self.epsilon)
        return xp.cast(y, self.compute_dtype)
