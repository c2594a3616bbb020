"""Tables as feeds: data frames, CSV and JSON files that name image files, or hold the pixels."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_norm_layers.data import places
from keras_norm_layers.data.arrays import as_boxes
from keras_norm_layers.data.columns import Arrays, Column, Files
from keras_norm_layers.data.feed import feeds
from keras_norm_layers.data.places import Problem
from keras_norm_layers.data.table import Table

Columns = dict[Any, list[Any]]


def from_dataframe(
    dataframe: Any,
    directory: Any = None,
    *,
    x_col: Any = "filename",
    y_col: Any = "class",
    mask_col: Any = None,
    boxes_col: Any = None,
    box_labels_col: Any = None,
    label_separator: str | None = None,
    follow_links: bool = False,
    **options: Any,
) -> Any:
    """A ``Feed`` of the image files that a data frame names, a row an image.

    Args:
        dataframe: of pandas; of any library with ``__arrow_c_stream__`` or ``__dataframe__`` (Polars, PyArrow, ...);
            or a dictionary of lists.
        directory: the folder, or address, that the names are relative to: names that lead out of it are errors. None
            (default): the names are paths or addresses as they stand.
        x_col: the column of names; default "filename".
        y_col: the column of labels; default "class". A list of columns makes a row of values of each sample, for
            label_mode "raw" or "multi-label". None: no labels.
        mask_col: None, or the column of the masks' names.
        boxes_col, box_labels_col: None, or columns of lists of boxes (left, top, right, bottom) and of class numbers.
        label_separator: what stands between several classes in one text, as in "cat|dog"; None (default): nothing.
        follow_links: with ``directory``, whether links may lead out of it.
        **options: the arguments of ``Feed``.

    Returns:
        a ``Feed``; two for ``subset="both"``.

    Raises:
        ImportError: without pandas (the extra ``data``), for what is no dictionary.
        TypeError, ValueError: for what is no table, columns that are not there, rows without a name or label (left out
            with on_error="skip"), files that are missing or lie outside.

    Example:
        >>> import os, tempfile, PIL.Image
        >>> from keras_norm_layers import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PIL.Image.new("RGB", (4, 4)).save(os.path.join(folder, "a.png"))
        ...     table = {"filename": ["a.png", "a.png"], "class": ["cat", "dog"]}
        ...     x, y = data.from_dataframe(table, folder, shuffle=False)[0]
        >>> y.tolist()
        [0, 1]
    """
    columns = _columns(dataframe)
    _check_columns("from_dataframe", columns, x_col, y_col, mask_col, boxes_col, box_labels_col)
    problems: list[Problem] = []
    usable = []
    for row, name in enumerate(columns[x_col]):
        problem = _unusable(columns, row, name, x_col, y_col, directory, follow_links)
        problem = problem or (
            mask_col and _unusable(columns, row, columns[mask_col][row], mask_col, None, directory, follow_links)
        )
        if problem:
            problems.append(problem)
        else:
            usable.append(row)
    table = Table(_files(columns[x_col], usable, directory), problems=problems)
    if mask_col is not None:
        table.masks = _files(columns[mask_col], usable, directory)
    if boxes_col is not None:
        classes = None if box_labels_col is None else [_parsed(columns[box_labels_col][row]) for row in usable]
        table.boxes = as_boxes([_parsed(columns[boxes_col][row]) for row in usable], classes)
    return _labelled(table, columns, y_col, usable, label_separator, options)


def from_csv(
    path: Any,
    directory: Any = None,
    *,
    x_col: Any = "filename",
    y_col: Any = "class",
    pixels_col: Any = None,
    image_shape: tuple[int, ...] | None = None,
    header: bool = True,
    separator: str = ",",
    **options: Any,
) -> Any:
    """A ``Feed`` of a CSV file that names image files, or holds their pixels.

    Args:
        path: of the file, or its address.
        directory: as for ``from_dataframe``; None (default): the folder of the CSV file.
        x_col, y_col: columns of names and labels, as for ``from_dataframe``; without ``header`` their numbers.
        pixels_col: None: the file names images. Else the column of texts like "0 255 17", or a list of columns, or
            "rest", all columns but ``y_col``: whole numbers from 0 to 255, row by row, channels last.
        image_shape: (height, width) or (height, width, channels) of such pixels; None (default): a square gray image.
        header: whether the first line names the columns; default True.
        separator: between columns; default ",".
        **options: the other arguments of ``from_dataframe``, and those of ``Feed``.

    Returns:
        a ``Feed``; two for ``subset="both"``.

    Raises:
        ImportError: without pandas, the extra ``data``.
        ValueError: as ``from_dataframe``; for rows whose pixels do not make an image (left out with on_error="skip").

    Example:
        >>> import os, tempfile
        >>> from keras_norm_layers import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "digits.csv")
        ...     with open(path, "w") as file:
        ...         _ = file.write("label,p0,p1,p2,p3\\n7,0,1,2,3\\n")
        ...     x, y = data.from_csv(path, y_col="label", pixels_col="rest")[0]
        >>> x.shape, y.tolist()
        ((1, 2, 2, 1), [7])
    """
    frame = pandas().read_csv(
        io.BytesIO(places.read(os.fspath(path))),
        sep=separator,
        header=0 if header else None,
        keep_default_na=False,  # "NA" and "None" may be classes
        na_values=[""],
    )
    if pixels_col is None:
        directory = _folder_of(path) if directory is None else directory
        return from_dataframe(frame, directory, x_col=x_col, y_col=y_col, **options)
    columns = _columns(frame)
    if isinstance(pixels_col, str) and pixels_col == "rest":
        taken = y_col if isinstance(y_col, list) else [y_col]
        pixels_col = [name for name in columns if name not in taken]
    _check_columns("from_csv", columns, pixels_col, y_col)
    rows = zip(*(columns[name] for name in pixels_col)) if isinstance(pixels_col, list) else columns[pixels_col]
    return _from_pixels(columns, list(rows), y_col, image_shape, str(path), options)


def from_json(
    path: Any, directory: Any = None, *, x_col: Any = "filename", y_col: Any = "class", **options: Any
) -> Any:
    """A ``Feed`` of a JSON file that names image files.

    The file holds a list of records, [{"filename": "a.png", "class": "cat"}, ...]; or one record a line (JSON lines);
    or names and labels, {"a.png": "cat", ...}; or columns, {"filename": [...], "class": [...]}.

    Args:
        path: of the file, or its address.
        directory: as for ``from_dataframe``; None (default): the folder of the JSON file.
        x_col, y_col: keys of names and labels, as for ``from_dataframe``.
        **options: the other arguments of ``from_dataframe``, and those of ``Feed``.

    Returns:
        a ``Feed``; two for ``subset="both"``.

    Raises:
        ValueError: as ``from_dataframe``, and for a file that is no JSON.

    Example:
        >>> import json, os, tempfile, PIL.Image
        >>> from keras_norm_layers import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PIL.Image.new("RGB", (4, 4)).save(os.path.join(folder, "a.png"))
        ...     with open(os.path.join(folder, "labels.json"), "w") as file:
        ...         json.dump({"a.png": "cat"}, file)
        ...     feed = data.from_json(os.path.join(folder, "labels.json"))
        >>> feed.class_names
        ['cat']
    """
    found = _json(os.fspath(path))
    if isinstance(found, dict) and not isinstance(found.get(x_col), list):
        found = [{x_col: name, y_col: label} for name, label in found.items()]
    if isinstance(found, list):
        if not found or not all(isinstance(record, dict) for record in found):
            raise ValueError(f"from_json: {str(path)!r} must hold records, one an image. See `help(from_json)`.")
        keys = dict.fromkeys(key for record in found for key in record)
        found = {key: [record.get(key) for record in found] for key in keys}
    if not isinstance(found, dict):
        raise ValueError(f"from_json: {str(path)!r} must hold records or columns. Received: {type(found).__name__}")
    directory = _folder_of(path) if directory is None else directory
    return from_dataframe(found, directory, x_col=x_col, y_col=y_col, **options)


def pandas() -> Any:
    """The library for data frames."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "Data frames and CSV files are read by pandas, which is not installed: pip install keras-norm-layers[data]"
        ) from error
    return pandas


def _columns(data: Any) -> Columns:
    """A data frame of any library as lists by name."""
    if isinstance(data, Mapping):
        columns = {name: list(values) for name, values in data.items()}
    else:
        library = pandas()
        if not isinstance(data, library.DataFrame):
            if hasattr(data, "__arrow_c_stream__") and hasattr(library.DataFrame, "from_arrow"):
                data = library.DataFrame.from_arrow(data)
            elif hasattr(data, "__dataframe__"):
                data = library.api.interchange.from_dataframe(data)
            else:
                raise TypeError(
                    "from_dataframe: `dataframe` must be a pandas data frame, have __arrow_c_stream__ or "
                    f"__dataframe__, or be a dictionary of lists. Received: {type(data).__name__}"
                )
        columns = {name: data[name].tolist() for name in data.columns}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"data: the columns must have one length. Received: {lengths}")
    return columns


def _check_columns(owner: str, columns: Columns, *names: Any) -> None:
    wanted = [column for name in names for column in (name if isinstance(name, list) else [name])]
    missing = [name for name in wanted if name is not None and name not in columns]
    if missing:
        raise ValueError(f"{owner}: there is no column {missing}. The table has {list(columns)}.")


def _unusable(
    columns: Columns, row: int, name: Any, x_col: Any, y_col: Any, directory: Any, follow_links: bool
) -> Problem | None:
    """Why a row is no sample, or None."""
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        return Problem(f"row {row}", f"names no file in the column {x_col!r} ({name!r}).")
    reason = places.unfit(os.fspath(name), directory, follow_links)
    return Problem(os.fspath(name), reason) if reason else _unlabelled(columns, row, os.fspath(name), y_col)


def _unlabelled(columns: Columns, row: int, name: str, y_col: Any) -> Problem | None:
    empty = [column for column in _listed(y_col) if _missing(columns[column][row])]
    return Problem(name, f"has no label in the column {empty[0]!r}, row {row}.") if empty else None


def _listed(y_col: Any) -> list[Any]:
    return [] if y_col is None else y_col if isinstance(y_col, list) else [y_col]


def _missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


def _parsed(value: Any) -> Any:
    """A list, or the JSON text of one; nothing where there is none."""
    return [] if _missing(value) or value == "" else json.loads(value) if isinstance(value, str) else value


def _files(names: list[Any], rows: list[int], directory: Any) -> Files:
    chosen = [os.fspath(names[row]) for row in rows]
    if directory is None:
        return Files(chosen)
    return Files([name if places.is_remote(name) else places.join(directory, name) for name in chosen])


def _labelled(
    table: Table, columns: Columns, y_col: Any, rows: list[int], separator: str | None, options: dict[str, Any]
) -> Any:
    if y_col is None:
        options = {**options, "label_mode": None}
    elif isinstance(y_col, list):
        table.labels = [[columns[name][row] for name in y_col] for row in rows]
        numbers = all(not isinstance(value, str) for label in table.labels for value in label)
        table.class_names = [str(name) for name in y_col] if numbers else None
    else:
        table.labels = [columns[y_col][row] for row in rows]
        if separator is not None:
            table.labels = [[p.strip() for p in str(label).split(separator)] for label in table.labels]
    return feeds(table, **options)


def _from_pixels(
    columns: Columns, rows: list[Any], y_col: Any, image_shape: Any, path: str, options: dict[str, Any]
) -> Any:
    problems, usable, images = [], [], []
    for row, values in enumerate(rows):
        problem = _unlabelled(columns, row, f"{path}, row {row}", y_col)
        if problem is None:
            try:
                images.append(_image(values, image_shape))
                usable.append(row)
            except (TypeError, ValueError) as error:
                problem = Problem(f"{path}, row {row}", f"holds no image: {error}.")
        problems += [problem] if problem else []
    column: Column = Arrays(images, f"{path}, image")
    separator = options.pop("label_separator", None)
    return _labelled(Table(column, problems=problems), columns, y_col, usable, separator, options)


def _image(values: Any, image_shape: Any) -> np.ndarray:
    if isinstance(values, str):
        values = values.replace(",", " ").split()
    pixels = np.array(values, "float64")
    if not np.isfinite(pixels).all() or (pixels != np.rint(pixels)).any() or (pixels < 0).any() or (pixels > 255).any():
        raise ValueError("pixels must be whole numbers from 0 to 255")
    side = math.isqrt(pixels.size)
    shape = (side, side) if image_shape is None else tuple(image_shape)
    if pixels.size == 0 or math.prod(shape) != pixels.size:
        raise ValueError(f"{pixels.size} pixels are no image of the shape {shape}; see `image_shape`")
    return pixels.astype("uint8").reshape(shape)


def _json(path: str) -> Any:
    text = places.read(path).decode("utf-8-sig")
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ValueError(f"from_json: {path!r} is neither JSON nor JSON lines: {error}") from error


def _folder_of(path: Any) -> str:
    path = os.fspath(path)
    return path.rpartition("/")[0] if places.is_remote(path) else os.path.dirname(os.path.abspath(path))
