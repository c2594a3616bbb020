"""``Augment``: a list of transforms as one layer, in one pass over the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend
from keras_norm_layers.layer import serializable
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
    """

    def __init__(
        self, transforms: Sequence[Any], seed: int | None = None, strength: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        self.transforms = check_transforms("Augment", transforms)
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
