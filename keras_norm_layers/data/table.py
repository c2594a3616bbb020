"""Samples as columns of a table; labels as numbers; which samples are for training and which for validation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.data.columns import Column
from keras_norm_layers.data.places import Problem

LABEL_MODES = ("int", "categorical", "binary", "multi-label", "raw", None)
SPLIT = 1  # the stream of random numbers that splits; the epochs' orders have others


@dataclasses.dataclass
class Table:
    """What a reader found: a row a sample.

    Args:
        images: a column of images.
        labels: for each sample a class (a name or a number), a list of them, or any value; None without labels.
        class_names: in the order of their numbers; None to take them from the labels.
        masks: a column of masks, or None.
        boxes: None, or for each sample an array (K, 4) and one of K class numbers.
        problems: what was found and is no sample.
    """

    images: Column
    labels: list[Any] | None = None
    class_names: list[str] | None = None
    masks: Column | None = None
    boxes: list[tuple[np.ndarray, np.ndarray]] | None = None
    problems: list[Problem] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Labels:
    """Labels as they go into batches.

    Args:
        values: an array with a row a sample, or None.
        class_names: the names of the classes, or None.
        classes: the class number of each sample where it has exactly one, else None.
    """

    values: np.ndarray | None
    class_names: list[str] | None
    classes: np.ndarray | None


def encode(labels: list[Any] | None, mode: str | None, class_names: list[str] | None) -> Labels:
    """Labels by mode: "int", "categorical", "binary", "multi-label", "raw" or None; see ``Feed``.

    Raises:
        ValueError: for labels that do not fit the mode, or are no ``class_names``.
    """
    validation.check_choice("data", "label_mode", mode, LABEL_MODES)
    if labels is None or mode is None:
        return Labels(None, class_names, None)
    if mode == "raw":
        return Labels(_raw(labels), class_names, None)
    if mode == "multi-label":
        return _many(labels, class_names)
    several = next((label for label in labels if isinstance(label, (list, tuple, set, np.ndarray))), None)
    if several is not None:
        raise ValueError(
            f"data: a sample has the labels {several!r}. Give label_mode='multi-label' for several classes an image, "
            f"or 'raw' for the values as they are. Received: label_mode={mode!r}"
        )
    class_names, numbers = _numbers(labels, class_names)
    count = len(class_names)
    if mode == "int":
        return Labels(numbers, class_names, numbers)
    if mode == "binary":
        if count > 2:
            raise ValueError(f"data: label_mode='binary' needs two classes. Received {count}: {class_names[:10]}")
        return Labels(numbers[:, None].astype("float32"), class_names, numbers)
    return Labels(np.eye(count, dtype="float32")[numbers], class_names, numbers)


def _raw(labels: list[Any]) -> np.ndarray:
    try:
        values = np.array(labels)
    except ValueError as error:
        raise ValueError(f"data: labels of different shapes make no batch ({error}).") from error
    if values.dtype.kind not in "uifbU":
        raise ValueError(
            "data: label_mode='raw' takes numbers or texts. "
            f"Received labels of the dtype {values.dtype}: {labels[:3]!r}"
        )
    return values.astype("float32") if values.dtype == np.float64 else values


def _numbers(labels: list[Any], class_names: list[str] | None) -> tuple[list[str], np.ndarray]:
    """Names of the classes, and the number of each label's class. Whole numbers are class numbers already."""
    if labels and all(isinstance(label, (int, float)) and label == label // 1 for label in labels):
        numbers = np.array(labels, "int32")
        highest = int(numbers.max())
        names = [str(number) for number in range(highest + 1)] if class_names is None else class_names
        if numbers.min() < 0 or highest >= len(names):
            raise ValueError(
                f"data: class numbers must be from 0 to {len(names) - 1}. Received: {numbers.min()} to {highest}. Give "
                "label_mode='raw' for numbers that are no classes."
            )
        return names, numbers
    strange = next((label for label in labels if not isinstance(label, str)), None)
    if strange is not None:
        raise ValueError(
            "data: classes must be names or whole numbers, all of one kind. Give label_mode='raw' for other values. "
            f"Received: {strange!r}"
        )
    names = sorted(set(labels)) if class_names is None else class_names
    number_of = _number_of(names, labels)
    return names, np.array([number_of[label] for label in labels], "int32")


def _number_of(names: list[str], labels: Any) -> dict[str, int]:
    number_of = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(labels) - set(number_of), key=str)
    if unknown or len(number_of) < len(names):
        raise ValueError(
            "data: `class_names` must name each class that the data has, once. "
            f"Received: class_names={names}; the data also has {unknown[:10]}"
        )
    return number_of


def _many(labels: list[Any], class_names: list[str] | None) -> Labels:
    """Rows of zeros and ones, from lists of classes or from such rows."""
    rows = [[label] if isinstance(label, str) else list(label) for label in labels]
    if all(not isinstance(item, str) for row in rows for item in row):
        values = np.array(rows) if len({len(row) for row in rows}) == 1 else np.array(None)
        if values.ndim != 2 or not np.isin(values, (0, 1)).all():
            raise ValueError(
                "data: label_mode='multi-label' takes a list of class names for each sample, or a row of zeros and "
                f"ones of one length. Received: {labels[:3]!r}"
            )
        return Labels(values.astype("float32"), class_names, None)
    names = sorted({item for row in rows for item in row}) if class_names is None else class_names
    number_of = _number_of(names, {item for row in rows for item in row})
    values = np.zeros((len(rows), len(names)), "float32")
    for i, row in enumerate(rows):
        values[i, [number_of[item] for item in row]] = 1
    return Labels(values, names, None)


def validation_share(validation_split: float | str, count: int) -> float:
    """The share of the samples that are for validation; "auto": 20 % below 1000, 10 % below 10000, else 5 %."""
    if validation_split == "auto":
        return 0.2 if count < 1000 else 0.1 if count < 10000 else 0.05
    if not validation.is_number(validation_split) or not 0 < float(validation_split) < 1:
        raise ValueError(
            "data: `validation_split` must be a share between 0 and 1, 'auto' or None. "
            f"Received: validation_split={validation_split!r}"
        )
    return float(validation_split)


def split(
    count: int, share: float, classes: np.ndarray | None, seed: int | None, stratify: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the samples for training and for validation, each in order; a function of its arguments.

    Stratified, each class gives its share, rounded so that all together give round(share * count).
    """
    random = np.random.default_rng([0 if seed is None else seed, SPLIT])
    chosen = np.zeros(count, bool)
    wanted = round(share * count)
    groups = [np.arange(count)]
    if stratify and classes is not None:
        groups = [np.flatnonzero(classes == number) for number in np.unique(classes)]
    exact = [share * len(group) for group in groups]
    sizes = np.floor(exact).astype(int)
    by_remainder = np.argsort(sizes - np.array(exact), kind="stable")
    sizes[by_remainder[: max(0, wanted - int(sizes.sum()))]] += 1
    for group, size in zip(groups, sizes):
        chosen[random.permutation(group)[:size]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
