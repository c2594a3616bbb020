"""Batches of image files: a folder for each class, or names in a data frame."""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras
import numpy as np

from keras_norm_layers.kernels.memory import aligned_empty
from keras_norm_layers.migration import files
from keras_norm_layers.migration import parameters as draws
from keras_norm_layers.migration.iterators import ImageIterator, check_subset
from keras_norm_layers.migration.transform import in_parallel
from keras_norm_layers.statistics import decoding
from keras_norm_layers.validation import check_choice, check_size

BY_CLASS = ("binary", "categorical", "sparse")


class FileIterator(ImageIterator):
    """What the iterators over files share: reading, and labels. Orientation tags of cameras are not followed.

    A batch is x, (x, y) or (x, y, weights). ``class_mode`` says what y is: "categorical" one-hot rows (several ones
    where an image has several classes), "binary" and "sparse" class numbers, "input" the images themselves, "raw" and
    "multi_output" values as they stand in a data frame, None nothing.

    Attributes: ``filenames`` (relative), ``filepaths``, ``labels``, ``class_indices`` (number of each class by name),
    ``classes`` (the number of each image's class), ``samples``, ``image_shape``, ``target_size``, ``color_mode``.

    Args:
        image_data_generator: transforms and normalizes; None leaves images as they are.
        options: those that ``DirectoryIterator`` and ``DataFrameIterator`` share.
    """

    filenames: list[str]
    classes: Any
    class_indices: dict[str, int]

    def _read_options(self, image_data_generator: Any, options: dict[str, Any]) -> None:
        owner = type(self).__name__
        self.target_size: tuple[int, ...] = tuple(
            check_size(owner, "target_size", side) for side in options.pop("target_size")
        )
        self.color_mode = check_choice(owner, "color_mode", options.pop("color_mode"), tuple(files.COLOR_MODES))
        interpolation = options.pop("interpolation")
        self.interpolation = check_choice(owner, "interpolation", interpolation, decoding.INTERPOLATIONS)
        self.keep_aspect_ratio = options.pop("keep_aspect_ratio")
        self.subset, self.split = options.pop("subset"), None
        if self.subset is not None:
            share = image_data_generator._validation_split
            check_subset(self.subset, share)
            self.split = (0, share) if self.subset == "validation" else (share, 1)
        options["data_format"] = draws.check_data_format(options["data_format"])
        options["dtype"] = keras.config.floatx() if options["dtype"] is None else options["dtype"]
        channels = (files.COLOR_MODES[self.color_mode],)
        first = options["data_format"] == "channels_first"
        options["image_shape"] = channels + self.target_size if first else self.target_size + channels

    def _part(self, items: list[Any]) -> list[Any]:
        """Those of a list that belong to the subset."""
        if self.split is None:
            return items
        start, stop = (int(share * len(items)) for share in self.split)
        return items[start:stop]

    @property
    def filepaths(self) -> list[str]:
        """Paths of all images."""
        return self._filepaths

    @property
    def labels(self) -> Any:
        """Labels of all images: class numbers, or what a data frame says."""
        return self.classes

    @property
    def sample_weight(self) -> Any:
        """Weights of all images, or None."""
        return None

    def _batch(self, numbers: np.ndarray, drawn: Any) -> Any:
        images = aligned_empty((len(numbers), *self.image_shape), self.dtype)

        def some(places: range) -> None:
            for i in places:
                image = files.load(
                    self.filepaths[numbers[i]],
                    self.color_mode,
                    self.target_size,
                    self.interpolation,
                    self.keep_aspect_ratio,
                )
                images[i] = image if self.data_format == "channels_last" else image.transpose(2, 0, 1)

        in_parallel(some, len(numbers), images.size)
        images = self._images(images, numbers, drawn)
        if self.class_mode is None:
            return images
        labels = self._labels(images, numbers)
        return (images, labels) if self.sample_weight is None else (images, labels, self.sample_weight[numbers])

    def _labels(self, images: np.ndarray, numbers: np.ndarray) -> Any:
        if self.class_mode == "input":
            return images.copy()
        if self.class_mode == "multi_output":
            return [output[numbers] for output in self.labels]
        if self.class_mode == "raw":
            return self.labels[numbers]
        if self.class_mode in ("binary", "sparse"):
            return np.array([self.classes[i] for i in numbers], self.dtype)
        labels = np.zeros((len(numbers), len(self.class_indices)), self.dtype)
        for row, i in zip(labels, numbers):
            row[self.classes[i]] = 1.0
        return labels


class DirectoryIterator(FileIterator):
    """Batches of the images in a folder for each class: what ``ImageDataGenerator.flow_from_directory`` gives.

    A class is a folder in ``directory``; its images are all PNG, JPEG, BMP, PPM and TIFF files in it and below.

    Args:
        directory: the folder of the classes' folders.
        image_data_generator: transforms and normalizes; None leaves images as they are.
        target_size: (height, width) of the images; default (256, 256).
        color_mode: "rgb" (default), "rgba", or "grayscale": one channel of 8, 16 or 32 bits, as the files have them.
        classes: names of the classes' folders in the order of their numbers; None for all, in alphabetical order.
        class_mode: "categorical" (default), "binary", "sparse", "input" or None; see ``FileIterator``.
        batch_size, shuffle, seed: see ``Iterator``. ``shuffle`` is on by default.
        data_format: "channels_last" or "channels_first"; None for Keras's setting.
        save_to_dir, save_prefix, save_format: see ``ImageIterator``.
        follow_links: look into linked folders too; each folder is taken once, so circles end.
        subset: None, "training" or "validation": of each class the first ``validation_split`` are for validation.
        interpolation: how images are resized: "nearest" (default), "bilinear", "bicubic", "lanczos", "box", "hamming".
        keep_aspect_ratio: cut the largest centred part of the target's shape out of an image before it is resized.
        dtype: of the batches; None for Keras's ``floatx``.

    Raises:
        ValueError: for arguments out of bounds; while reading, for a file that is no image: it names the file.
    """

    allowed_class_modes = (*BY_CLASS, "input", None)

    def __init__(
        self,
        directory: Any,
        image_data_generator: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = None,
    ) -> None:
        options: dict[str, Any] = {"target_size": target_size, "color_mode": color_mode, "dtype": dtype}
        options |= {"interpolation": interpolation, "keep_aspect_ratio": keep_aspect_ratio}
        options |= {"subset": subset, "data_format": data_format}
        self._read_options(image_data_generator, options)
        self.directory = directory
        self.class_mode = check_choice("DirectoryIterator", "class_mode", class_mode, self.allowed_class_modes)
        if not classes:
            classes = sorted(name for name in os.listdir(directory) if os.path.isdir(os.path.join(directory, name)))
        self.num_classes = len(classes)
        self.class_indices = {name: number for number, name in enumerate(classes)}
        self.filenames, numbers = [], []
        for name, number in self.class_indices.items():
            found = self._part(self._files_of(name, follow_links))
            self.filenames += found
            numbers += [number] * len(found)
        self.samples = len(self.filenames)
        self.classes = np.array(numbers, "int32")
        self._filepaths = [os.path.join(directory, name) for name in self.filenames]
        tell(f"Found {self.samples} images belonging to {self.num_classes} classes.")
        options |= {"save_to_dir": save_to_dir, "save_prefix": save_prefix, "save_format": save_format}
        super().__init__(self.samples, batch_size, shuffle, seed, image_data_generator, **options)

    def _files_of(self, name: str, follow_links: bool) -> list[str]:
        """The images of a class, relative to the directory."""
        folder = os.path.join(self.directory, name)
        if not os.path.isdir(folder):
            warnings.warn(f"DirectoryIterator: class {name!r} has no folder {folder}.", UserWarning, stacklevel=4)
        found = files.image_files(folder, follow_links)
        return [os.path.join(name, os.path.relpath(path, folder)) for path in found]


class DataFrameIterator(FileIterator):
    """Batches of the images that a data frame names: what ``ImageDataGenerator.flow_from_dataframe`` gives.

    Args:
        dataframe: a pandas data frame; it is not changed.
        directory: None, or the folder that the names are relative to.
        image_data_generator: transforms and normalizes; None leaves images as they are.
        x_col: the column of file names, strings with extension; default "filename".
        y_col: the column of labels, or for "multi_output" a list of columns; default "class".
        weight_col: None, or a column of numbers: a weight for each image.
        classes: names of the classes in the order of their numbers; others are left out. None for all, sorted.
        class_mode: "categorical" (default; labels are strings, lists or tuples of them), "binary" and "sparse"
            (strings), "input", "multi_output", "raw" or None; see ``FileIterator``.
        subset: None, "training" or "validation": the first ``validation_split`` of the rows are for validation.
        validate_filenames: leave rows out, with a warning, whose file is missing or has another extension than PNG,
            JPEG, BMP, PPM or TIFF files; False takes all, which is faster, and fails while reading.
        target_size, color_mode, batch_size, shuffle, seed, data_format, save_to_dir, save_prefix, save_format,
            interpolation, keep_aspect_ratio, dtype: see ``DirectoryIterator``.

    Raises:
        TypeError, ValueError: for columns whose values ``class_mode`` cannot take; they name the column.
    """

    allowed_class_modes = (*BY_CLASS, "input", "multi_output", "raw", None)

    def __init__(
        self,
        dataframe: Any,
        directory: Any = None,
        image_data_generator: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: list[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = "channels_last",
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = "float32",
        validate_filenames: bool = True,
    ) -> None:
        options: dict[str, Any] = {"target_size": target_size, "color_mode": color_mode, "dtype": dtype}
        options |= {"interpolation": interpolation, "keep_aspect_ratio": keep_aspect_ratio}
        options |= {"subset": subset, "data_format": data_format}
        self._read_options(image_data_generator, options)
        self.directory = directory or ""
        self.class_mode = check_choice("DataFrameIterator", "class_mode", class_mode, self.allowed_class_modes)
        self._check_columns(dataframe, x_col, y_col, weight_col, classes)
        names = dataframe[x_col].tolist()
        rows = list(range(len(names)))
        if validate_filenames:
            rows = self._with_files(rows, names, x_col)
        rows = self._read_labels(dataframe, rows, y_col, classes)
        self.filenames = [names[i] for i in rows]
        self._sample_weight = dataframe[weight_col].iloc[rows].to_numpy() if weight_col else None
        self.samples = len(rows)
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        belonging = f" belonging to {len(self.class_indices)} classes" if class_mode in BY_CLASS else ""
        tell(f"Found {self.samples} {'' if validate_filenames else 'non-'}validated image filenames{belonging}.")
        options |= {"save_to_dir": save_to_dir, "save_prefix": save_prefix, "save_format": save_format}
        super().__init__(self.samples, batch_size, shuffle, seed, image_data_generator, **options)

    @property
    def labels(self) -> Any:
        """Labels of all images: class numbers, or for "raw" and "multi_output" the columns' values."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> Any:
        """Weights of all images, or None."""
        return self._sample_weight

    def _check_columns(self, frame: Any, x_col: str, y_col: Any, weight_col: str | None, classes: Any) -> None:
        mode = f'DataFrameIterator with class_mode="{self.class_mode}"'
        if self.class_mode == "multi_output" and not isinstance(y_col, (list, tuple)):
            raise TypeError(f"{mode}: `y_col` must be a list of columns. Received: y_col={y_col!r}")
        wanted = [x_col, weight_col] if self.class_mode in ("input", None) else [x_col, weight_col, y_col]
        for column in (c for name in wanted for c in (name if isinstance(name, (list, tuple)) else [name])):
            if column is not None and column not in frame.columns:
                raise ValueError(f"{mode}: the data frame has no column {column!r}; it has {list(frame.columns)}")
        _check_types(mode, x_col, frame[x_col], (str,))
        if self.class_mode in BY_CLASS:
            _check_types(mode, y_col, frame[y_col], (str, list, tuple) if self.class_mode == "categorical" else (str,))
        if self.class_mode == "binary":
            names = set(classes or frame[y_col])
            if len(names) != 2:
                raise ValueError(f"{mode}: there must be 2 classes. Received: {sorted(names)}")
        if classes and self.class_mode not in BY_CLASS:
            warnings.warn(f"{mode}: `classes` is not used.", UserWarning, stacklevel=4)
        if weight_col and not np.issubdtype(frame[weight_col].to_numpy().dtype, np.number):
            raise TypeError(f"{mode}: `weight_col` must name a column of numbers. Received: weight_col={weight_col!r}")

    def _read_labels(self, frame: Any, rows: list[int], y_col: Any, classes: Any) -> list[int]:
        """Keeps the labels of the rows that have a class and belong to the subset; these rows."""
        by_class = self.class_mode in BY_CLASS
        if by_class:
            labels = frame[y_col].tolist()
            rows, classes = self._with_classes(rows, labels, classes)
            self.class_indices = {name: number for number, name in enumerate(classes)}
        rows = self._part(rows)
        if by_class:
            self.classes = [self._numbers(labels[i]) for i in rows]
        elif self.class_mode == "multi_output":
            self._targets = [np.array(frame[column].iloc[rows].tolist()) for column in y_col]
        elif self.class_mode == "raw":
            self._targets = frame[y_col].iloc[rows].to_numpy()
        return rows

    def _with_files(self, rows: list[int], names: list[str], x_col: str) -> list[int]:
        def valid(name: str) -> bool:
            return name.lower().endswith(files.FORMATS) and os.path.isfile(os.path.join(self.directory, name))

        kept = [i for i in rows if valid(names[i])]
        if len(kept) < len(rows):
            missing = next(names[i] for i in rows if not valid(names[i]))
            warnings.warn(
                f"{len(rows) - len(kept)} file names in column {x_col!r} name no image file and are left out, first "
                f"{missing!r}.",
                UserWarning,
                stacklevel=4,
            )
        return kept

    def _with_classes(self, rows: list[int], labels: list[Any], classes: Any) -> tuple[list[int], list[str]]:
        """The rows that have a class, and the names of all classes. Classes that are not wanted leave the labels."""
        if not classes:
            return rows, sorted({name for i in rows for name in _names(labels[i])})
        classes = list(dict.fromkeys(classes))
        for i in rows:
            if not isinstance(labels[i], str):
                labels[i] = [name for name in labels[i] if name in classes]
        return [i for i in rows if any(name in classes for name in _names(labels[i]))], classes

    def _numbers(self, label: Any) -> Any:
        return self.class_indices[label] if isinstance(label, str) else [self.class_indices[name] for name in label]


def _names(label: Any) -> list[str]:
    return [label] if isinstance(label, str) else list(label)


def _check_types(mode: str, column: str, values: Any, kinds: tuple[type, ...]) -> None:
    wrong = [value for value in values if not isinstance(value, kinds)]
    if wrong:
        allowed = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{mode}: all values in column {column!r} must be {allowed}. Received, first: {wrong[0]!r}")


def tell(text: str) -> None:
    """Prints a line, unless Keras was told to be quiet (``keras.config.disable_interactive_logging``)."""
    if keras.config.is_interactive_logging_enabled():
        print(text)
