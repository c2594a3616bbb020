"""Augmented images as files."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.data.feed import Feed, in_threads
from keras_norm_layers.data.images import BY_CHANNELS, pillow
from keras_norm_layers.kernels import backend
from keras_norm_layers.transforms.layer import RandomLayer

OWNER = "save_augmented"
FORMATS = ("png", "jpeg", "jpg", "bmp", "tiff", "webp")
NO_ALPHA = ("jpeg", "jpg", "bmp")
BATCH = 32


def save_augmented(
    images: Any,
    layer: Any,
    directory: Any,
    prefix: str = "augmented",
    format: str = "png",
    copies: int = 1,
    seed: int | None = None,
    *,
    value_range: tuple[float, float] = (0, 255),
    overwrite: bool = False,
) -> list[str]:
    """Writes augmented images to files named ``<prefix>_<image>_<copy>.<format>``, counted from 0.

    The same seed gives the same files again, whatever was drawn before.

    Args:
        images: an array (N, H, W, C) or a list of images of one size, of 1, 3 or 4 channels; or a ``Feed``, whose
            images are taken in the order of its ``names``, without labels.
        layer: an ``Augment`` or one random transform.
        directory: where the files go; it is made if there is none.
        prefix: of the files' names; default "augmented".
        format: "png" (default), "jpeg", "jpg", "bmp", "tiff" or "webp".
        copies: files an image, each drawn anew; default 1.
        seed: an integer in [0, 2**31); None (default): the layer's own seed, and 0 if that is None too.
        value_range: the values of the layer's images that become 0 and 255; default (0, 255). What lies outside by
            more than rounding is an error.
        overwrite: whether files that are there already may be replaced; default False.

    Returns:
        the paths, those of each image together.

    Raises:
        FileExistsError: for files that are there, without ``overwrite``; nothing is written then.
        TypeError, ValueError: for what is no random layer, or no image of such a format.

    Example:
        >>> import os, tempfile, numpy as np, keras_norm_layers as knl
        >>> images = np.full((2, 8, 8, 3), 100, "uint8")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = knl.save_augmented(images, knl.RandomBrightness(0.2), folder, copies=2, seed=1)
        ...     [os.path.basename(path) for path in paths]
        ['augmented_0_0.png', 'augmented_0_1.png', 'augmented_1_0.png', 'augmented_1_1.png']
    """
    if not isinstance(layer, RandomLayer):
        raise TypeError(
            f"{OWNER}: `layer` must be an Augment or another random layer of keras_norm_layers. Received: {layer!r}"
        )
    validation.check_choice(OWNER, "format", format, FORMATS)
    copies = validation.check_count(OWNER, "copies", copies, 1, 10**6)
    low, high = validation.check_value_range(OWNER, value_range)
    validation.check_bool(OWNER, "overwrite", overwrite)
    if not isinstance(prefix, str) or os.path.basename(prefix) != prefix:
        raise ValueError(f"{OWNER}: `prefix` must be the beginning of a file's name. Received: prefix={prefix!r}")
    seed = validation.check_seed(OWNER, layer.seed if seed is None else seed) or 0
    count = images.num_samples if isinstance(images, Feed) else len(images)
    names = [[f"{prefix}_{i}_{copy}.{format}" for copy in range(copies)] for i in range(count)]
    paths = [[os.path.join(os.fspath(directory), name) for name in group] for group in names]
    present = [path for group in paths for path in group if os.path.lexists(path)]
    if present and not overwrite:
        raise FileExistsError(
            f"{OWNER}: {len(present)} of the files are there already, first {present[0]!r}. Choose another directory "
            "or prefix, or give overwrite=True."
        )
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    for start in range(0, count, BATCH):
        rows = range(start, min(start + BATCH, count))
        batch = _batch(images, rows)
        for copy in range(copies):
            key = np.array([seed, copy, start], "uint32")
            made = _levels(backend.to_numpy(layer.call_with_key(batch, key)), low, high, format)
            in_threads(
                lambda pair: pillow().fromarray(pair[0]).save(pair[1]), zip(made, [paths[i][copy] for i in rows])
            )
    return [path for group in paths for path in group]


def _batch(images: Any, rows: range) -> np.ndarray:
    if isinstance(images, Feed):
        batch = images.samples(rows)
        return batch[0] if isinstance(batch, tuple) else batch
    batch = np.asarray(images[rows.start : rows.stop])
    if batch.ndim != 4:
        raise ValueError(f"{OWNER}: `images` must be (N, H, W, C), all of one size. Received the shape {batch.shape}")
    return batch


def _levels(images: np.ndarray, low: float, high: float, format: str) -> list[np.ndarray]:
    """Images as 8-bit levels, without their axis of channels where there is one channel."""
    if images.shape[-1] not in BY_CHANNELS or (images.shape[-1] == 4 and format in NO_ALPHA):
        raise ValueError(f"{OWNER}: {images.shape[-1]} channels cannot be written as {format!r}.")
    levels = (images.astype("float64") - low) * (255 / (high - low))
    if not np.isfinite(levels).all() or levels.min() < -0.5 or levels.max() > 255.5:
        raise ValueError(
            f"{OWNER}: the augmented images have values from {images.min():g} to {images.max():g}. Give `value_range`, "
            f"the values that become 0 and 255. Received: value_range={(low, high)}"
        )
    levels = np.clip(np.rint(levels), 0, 255).astype("uint8")
    return list(levels[..., 0] if levels.shape[-1] == 1 else levels)
