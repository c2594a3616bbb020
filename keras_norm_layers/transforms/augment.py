"""``Augment``: a list of transforms as one layer, in one pass over the pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, pixels
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms import targets
from keras_norm_layers.transforms.base import check_transforms
from keras_norm_layers.transforms.layer import RandomLayer


@serializable
class Augment(RandomLayer):
    """Runs transforms one after the other, as one compiled pass: drawn once, resampled once.

    Geometric transforms that share interpolation and fill multiply to one matrix an image, so a chain of five blurs no
    more than one. Each image of a batch has draws of its own.

    Args:
        transforms: a list of this package's random transforms, in their order.
        seed: an integer, or None for a random one; the transforms' own seeds play no part.
        strength: how much of each change is made: 1.0 as drawn, 0.0 none at all. It is a weight: assign to
            ``layer.strength`` while training, and nothing is traced anew.
        normalization: a ``FeaturewiseNormalization`` for what comes out, in training and at inference alike, or None
            (default). It is what a layer behind this one would do, and costs no pass of its own: a number a channel is
            part of the augmenting pass. Its weights are saved with this layer; ``knl.adapt`` of the model adapts it.
            A ValueError for other layers, for an integer ``dtype``, and for additional images of another number of
            channels; a RuntimeError when it is called without statistics.
        **kwargs: ``data_format``, ``bounding_box_format``, ``mask_fill_value`` and the arguments of
            ``keras.layers.Layer``.

    Input and output: see ``RandomLayer``; images (N, H, W, C) or (H, W, C) of any dtype, float32 out.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> chain = [knl.RandomFlip("horizontal"), knl.RandomRotation(degrees=20), knl.RandomBrightness(0.2)]
    >>> augment = knl.Augment(chain, seed=7)
    >>> images = np.full((4, 8, 8, 3), 128, dtype="uint8")
    >>> batch = np.asarray(augment(images))
    >>> batch.shape, str(batch.dtype), len({float(image.mean()) for image in batch})
    ((4, 8, 8, 3), 'float32', 4)
    >>> u = augment.draw(4)
    >>> bool(np.array_equal(np.asarray(augment.apply(images, u)), np.asarray(augment.apply(images, u))))
    True
    >>> normalized = knl.Augment(chain, seed=7, normalization=knl.FeaturewiseNormalization(mean=100, std=8, epsilon=0))
    >>> float(np.asarray(normalized(images, training=False)).max())
    3.5
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        seed: int | None = None,
        strength: float = 1.0,
        normalization: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.transforms = check_transforms("Augment", transforms)
        self.normalization = _checked_normalization(normalization, self.compute_dtype)
        self.strength_argument = validation.check_number("Augment", "strength", strength, 0.0, 1.0)
        self.strength = self.add_weight(
            name="strength",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(self.strength_argument),
            trainable=False,
            autocast=False,
        )

    def steps(self) -> list[Any]:
        return list(self.transforms)

    def variables_by_name(self) -> list[tuple[str, Any]]:
        return [("strength", self.strength)]

    def _strength(self, like: Any) -> Any:
        return backend.read(self.strength, like)

    # Normalization: in the pass where it is a number a channel, else behind it ----------------------------------------

    def _build_for(self, shape: tuple[Any, ...]) -> None:
        super()._build_for(shape)
        if self.normalization is not None and not self.normalization.built:
            with backend.outside_graphs():
                self.normalization.build((None, *self._resized(shape, len(shape))[-3:]))

    def _options(self) -> targets.Options:
        options = super()._options()
        return options if self.normalization is None else options._replace(dtype="float32")

    def _checked(self, inputs: Any) -> dict[str, Any]:
        data = super()._checked(inputs)
        if self.normalization is not None:
            kinds, axis = self._options().kinds, -3 if self.data_format == "channels_first" else -1
            channels = data["images"].shape[axis]
            for name, x in data.items():
                if kinds[name] == "images" and not targets.fits((x.shape[axis],), (channels,)):
                    raise ValueError(
                        f"Augment {self.name!r}: with a `normalization` all images must have as many channels as "
                        f"'images', {channels}. Received: {name!r} of shape {tuple(x.shape)}; leave `normalization` "
                        "out, and put a layer for each behind this one."
                    )
        return data

    def _in_pass(self) -> bool:
        """Whether the pass over the pixels normalizes them too."""
        return self.normalization.is_by_channel and self.data_format == "channels_last"

    def _remarks(self) -> list[str]:
        if self.normalization is None:
            return []
        where = "in the last pass" if self._in_pass() else "behind the last pass"
        return [f"Then {type(self.normalization).__name__} {self.normalization.name!r}, {where}; at inference too."]

    def _values(self, images: Any) -> dict[str, Any]:
        values, layer = super()._values(images), self.normalization
        if layer is None or layer.is_watched or not self._in_pass():
            return values
        layer.check_ready((None, *self._resized(tuple(images.shape), len(images.shape))[-3:]))
        return {**values, "statistics": layer.read_statistics(images)}

    def _finish(self, values: dict[str, Any]) -> targets.Finish | None:
        statistics = values.get("statistics")
        return None if statistics is None else functools.partial(self.normalization.normalized, statistics=statistics)

    def _finished(self, data: dict[str, Any], done: bool = False) -> dict[str, Any]:
        if self.normalization is None:
            return data
        kinds = self._options().kinds
        return {name: self._normalized(x, done) if kinds[name] == "images" else x for name, x in data.items()}

    def _normalized(self, images: Any, done: bool) -> Any:
        if not done:
            xp = backend.namespace(images)
            shape = xp.shape(images)
            frames = xp.reshape(images, (-1, *shape[2:])) if len(shape) == 5 else images
            normalized = self.normalization(frames)
            images = xp.reshape(normalized, shape) if len(shape) == 5 else normalized
        return pixels.saturate(images, self.compute_dtype)


def _checked_normalization(given: Any, dtype: str) -> Any:
    """The normalization of an ``Augment``, made from its configuration where that is given; or None."""
    layer = keras.saving.deserialize_keras_object(given) if isinstance(given, dict) else given
    if layer is not None and not hasattr(layer, "read_statistics"):
        raise ValueError(
            "Augment: `normalization` must be a FeaturewiseNormalization or None; put any other layer behind the "
            f"Augment. Received: normalization={layer!r}"
        )
    if layer is not None and "float" not in dtype:
        raise ValueError(
            f"Augment: with a `normalization` `dtype` must be a float dtype. Received: dtype={dtype!r}; leave it out."
        )
    return layer
