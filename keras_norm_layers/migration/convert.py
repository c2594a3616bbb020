"""From Keras's own ``ImageDataGenerator``, fitted or not, to ours."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from keras_norm_layers.migration.image_data_generator import ImageDataGenerator


def from_image_data_generator(old: Any) -> ImageDataGenerator:
    """An ``ImageDataGenerator`` with the arguments and the fitted statistics of Keras's (or keras_preprocessing's) one.

    Args:
        old: an object with the attributes of that class; read only.

    Returns:
        The generator; its ``layers()`` are the layers with these statistics.

    Raises:
        TypeError: for an object that has not these attributes; it names those missing.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> old = knl.ImageDataGenerator(rescale=1 / 255, featurewise_center=True)
    >>> old.fit(np.full((2, 4, 4, 1), 51.0))
    >>> knl.from_image_data_generator(old).mean.round(3).tolist()
    [[[0.20000000298023224]]]
    """
    names = [name for name in inspect.signature(ImageDataGenerator).parameters if name != "validation_split"]
    optional = {"interpolation_order": 1, "dtype": None, "brightness_range": None}  # older versions have not all
    missing = [name for name in names if not hasattr(old, name) and name not in optional]
    if missing:
        raise TypeError(
            f"from_image_data_generator: `old` must be an ImageDataGenerator. Received: {type(old).__name__}, which "
            f"has no {missing}"
        )
    arguments: dict[str, Any] = {name: getattr(old, name, optional.get(name)) for name in names}
    new = ImageDataGenerator(**arguments, validation_split=getattr(old, "_validation_split", 0.0) or 0.0)
    new.mean = None if old.mean is None else np.array(old.mean)
    new.std = None if old.std is None else np.array(old.std)
    matrix = getattr(old, "zca_whitening_matrix", getattr(old, "principal_components", None))
    new.zca_whitening_matrix = None if matrix is None else np.array(matrix)
    return new
