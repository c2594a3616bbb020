"""Arrays and memory maps as feeds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from keras_norm_layers.data.columns import Arrays, as_column
from keras_norm_layers.data.feed import feeds
from keras_norm_layers.data.table import Table


def from_arrays(
    images: Any,
    labels: Any = None,
    *,
    masks: Any = None,
    boxes: Any = None,
    box_labels: Any = None,
    **options: Any,
) -> Any:
    """A ``Feed`` of images in memory or in a memory map, which is read as it is needed.

    Args:
        images: an array (N, H, W) or (N, H, W, C), a list of images of any sizes (with ``image_size``), a list of
            paths, or the path of a ``.npy`` file.
        labels: None, or N labels: class numbers, names, lists of names, or any numbers with ``label_mode="raw"``; a
            list, an array, or the path of a ``.npy`` file.
        masks: None, or as ``images``: whole numbers, of the images' sizes.
        boxes: None, or for each image a list of boxes (left, top, right, bottom) in pixels of the image as given.
        box_labels: for each image a list of class numbers, one a box; None (default): 0 for each.
        **options: the arguments of ``Feed``. ``label_mode`` is None where ``labels`` is.

    Returns:
        a ``Feed``; two for ``subset="both"``.

    Raises:
        ValueError: for columns of different lengths, for arrays that are no images, for arguments out of bounds.

    Example:
        >>> import numpy as np
        >>> from keras_norm_layers import data
        >>> images, masks = np.zeros((4, 6, 6, 3), "uint8"), np.ones((4, 6, 6), "uint8")
        >>> x, y = data.from_arrays(images, masks=masks, image_size=(3, 3))[0]
        >>> x.shape, y.shape
        ((4, 3, 3, 3), (4, 3, 3, 1))
    """
    if isinstance(labels, (str, os.PathLike)):
        labels = Arrays(labels).arrays
    if labels is None:
        options["label_mode"] = None
    column = as_column(images, "image")
    shape = getattr(getattr(column, "arrays", None), "shape", None)
    if shape is not None and len(shape) not in (3, 4):
        raise ValueError(f"from_arrays: `images` must be (N, H, W) or (N, H, W, C). Received the shape {tuple(shape)}")
    table = Table(column, None if labels is None else plain(labels))
    if masks is not None:
        table.masks = as_column(masks, "mask")
    if boxes is not None:
        table.boxes = as_boxes(boxes, box_labels)
    return feeds(table, **options)


def plain(labels: Any) -> list[Any]:
    """Labels as Python numbers, texts and lists."""
    if hasattr(labels, "tolist"):
        return labels.tolist()
    return [label.tolist() if isinstance(label, (np.generic, np.ndarray)) else label for label in labels]


def as_boxes(boxes: Any, box_labels: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each image its boxes (K, 4) and their classes (K,), checked."""
    made = []
    box_labels = [None] * len(boxes) if box_labels is None else box_labels
    if len(box_labels) != len(boxes):
        raise ValueError(f"data: there must be `box_labels` for {len(boxes)} images. Received: {len(box_labels)}")
    for i, (given, classes) in enumerate(zip(boxes, box_labels)):
        array = np.asarray(given, "float64").reshape(-1, 4) if np.size(given) % 4 == 0 else np.asarray(given)
        numbers = np.zeros(len(array), "int32") if classes is None else np.asarray(classes, "int32").reshape(-1)
        ok = array.shape[1:] == (4,) and len(numbers) == len(array) and np.isfinite(array).all()
        if not ok or (array[:, 2:] <= array[:, :2]).any():
            raise ValueError(
                "data: boxes must be (left, top, right, bottom) in pixels, left < right and top < bottom, each with a "
                f"class number. Received for image number {i}: {given!r}, {classes!r}"
            )
        made.append((array, numbers))
    return made
