"""HDF5 files as feeds: a group a class, attributes as labels, or datasets of images and labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from keras_norm_layers.data.arrays import plain
from keras_norm_layers.data.columns import InHdf5, h5py
from keras_norm_layers.data.feed import feeds
from keras_norm_layers.data.places import Problem
from keras_norm_layers.data.table import Table


def from_hdf5(
    path: Any,
    *,
    images: str | None = None,
    labels: str | None = None,
    masks: str | None = None,
    label_attribute: str | None = None,
    nested: bool = False,
    **options: Any,
) -> Any:
    """A ``Feed`` of an HDF5 file, read as it is needed.

    Args:
        path: of the file; local.
        images: None (default): every dataset in the file's groups is an image, (H, W) or (H, W, 1, 3 or 4), or a stack
            of them, (N, H, W) or (N, H, W, C). Else the name of one dataset (N, H, W) or (N, H, W, C).
        labels: with ``images``, the name of a dataset of N labels; None (default): no labels.
        masks: with ``images``, the name of a dataset of N masks, or None.
        label_attribute: without ``images``, the name of an attribute that holds the label: of the dataset, or of the
            nearest group above that has it. None (default): the first group on a dataset's way is its class.
        nested: the whole way of groups is the class: "dog/poodle".
        **options: the arguments of ``Feed``.

    Returns:
        a ``Feed``; two for ``subset="both"``.

    Raises:
        ImportError: without h5py, the extra ``data``.
        ValueError: for a file that is no HDF5, names that are not in it, datasets that are no images or have no label
            (left out with on_error="skip").

    Example:
        >>> import os, tempfile, h5py, numpy as np
        >>> from keras_norm_layers import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "images.h5")
        ...     with h5py.File(path, "w") as file:
        ...         file["cat/1"] = np.zeros((4, 4, 3), "uint8")
        ...         file["dog/all"] = np.zeros((2, 4, 4, 3), "uint8")
        ...     feed = data.from_hdf5(path)
        ...     feed.class_names, feed.labels.tolist()
        (['cat', 'dog'], [0, 1, 1])
    """
    path = os.fspath(path)
    try:
        file = h5py().File(path, "r")
    except OSError as error:
        raise ValueError(f"from_hdf5: {path!r} cannot be read as an HDF5 file: {error}") from error
    with file:
        if images is not None:
            table = _named(path, file, images, labels, masks)
        elif labels is not None or masks is not None:
            raise ValueError("from_hdf5: `labels` and `masks` name datasets beside `images`. Give `images`.")
        else:
            table = _by_groups(path, file, label_attribute, nested)
    if table.labels is None:
        options["label_mode"] = None
    return feeds(table, **options)


def _named(path: str, file: Any, images: str, labels: str | None, masks: str | None) -> Table:
    for name in (images, labels, masks):
        if name is not None and not isinstance(file.get(name), h5py().Dataset):
            raise ValueError(f"from_hdf5: {path!r} has no dataset {name!r}. It has {list(file)}.")
    if file[images].ndim not in (3, 4):
        raise ValueError(f"from_hdf5: `images` must be (N, H, W) or (N, H, W, C). {images!r} is {file[images].shape}.")
    table = Table(InHdf5(path, _rows(images, file[images])))
    if labels is not None:
        table.labels = [_text(label) for label in plain(file[labels][()])]
    if masks is not None:
        table.masks = InHdf5(path, _rows(masks, file[masks]), "mask")
    return table


def _by_groups(path: str, file: Any, attribute: str | None, nested: bool) -> Table:
    found: list[tuple[str, int | None]] = []
    labels: list[Any] = []
    problems = []
    for name, item in _datasets(file, ""):
        groups = name.split("/")[:-1]
        label = _attribute(file, name, attribute) if attribute else "/".join(groups) if nested else "".join(groups[:1])
        if item is None:
            problems.append(Problem(f"{path}:{name}", "is a link that leads nowhere, or out of the file."))
        elif not _is_stack(item) and not _is_image(item):
            problems.append(Problem(f"{path}:{name}", f"is no image: {item.dtype} {item.shape}."))
        elif label is None or label == "":
            where = f"has no attribute {attribute!r}." if attribute else "lies in no group of a class."
            problems.append(Problem(f"{path}:{name}", where))
        else:
            rows = _rows(name, item) if _is_stack(item) else [(name, None)]
            found += rows
            labels += [label] * len(rows)
    return Table(InHdf5(path, found), labels, problems=problems)


def _datasets(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """All datasets beneath a group with their names; None for links that lead out of the file."""
    for name in sorted(group):
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py().HardLink):
            yield prefix + name, None
        elif isinstance(group[name], h5py().Group):
            yield from _datasets(group[name], f"{prefix}{name}/")
        else:
            yield prefix + name, group[name]


def _is_image(item: Any) -> bool:
    return item.dtype.kind in "uif" and (item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (1, 3, 4)))


def _is_stack(item: Any) -> bool:
    return item.dtype.kind in "uif" and (item.ndim == 4 or (item.ndim == 3 and not _is_image(item)))


def _rows(name: str, item: Any) -> list[tuple[str, int | None]]:
    return [(name, row) for row in range(item.shape[0])]


def _attribute(file: Any, name: str, attribute: str) -> Any:
    """The attribute of a dataset, or of the nearest group above that has it; None where none has."""
    steps = name.split("/")
    for end in range(len(steps), -1, -1):
        place = file.get("/".join(steps[:end]) or "/")
        if place is not None and attribute in place.attrs:
            value = place.attrs[attribute]
            return _text(value.tolist() if hasattr(value, "tolist") else value)
    return None


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
