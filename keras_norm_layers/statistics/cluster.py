"""Accumulators on the machines of a cluster: each block of a ``ray.data.Dataset`` is added up where it lies.

Ray's tasks turn blocks of images into accumulators and merge those of a task, and this process merges what they give,
in the order of the dataset. So accumulators travel over the network, and images do not. A task whose worker dies runs
again; only what a task returns is merged, so nothing is counted twice.

Why ``map_batches`` and not ``Dataset.aggregate``: an aggregation is a shuffle, in no certain order; this keeps the
order of the blocks, and merges while others are still added up.

The accumulators' code is sent along (pickled by value), so workers need Ray and NumPy, neither this package nor Keras.
Ray is imported inside the functions: whoever has a dataset of it has Ray.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import pickle
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers import statistics

# The columns that hold the images where no key says so; "data" and "item" are the names that Ray itself gives.
COLUMNS = ("images", "image", "x", "data", "item")
NAME = "a block of the Ray dataset"
# Accumulators that a task merges at a time: as many as fit into so many bytes, and no more than FAN_IN.
MERGE_BYTES = 1 << 28
FAN_IN = 16
# Ray gives a task as many blocks as hold so many times the bytes of its accumulator, up to GROUP_BYTES; at least one.
GROUP_FACTOR = 8
GROUP_BYTES = 1 << 30
MOST_BYTES = 2_000_000_000  # Arrow's limit of a value
BLOCK_BYTES = 1 << 27  # what Ray makes of a dataset by itself, at most

View = Callable[[np.ndarray], Sequence[np.ndarray]]


class Images(NamedTuple):
    """Where the images of a dataset are: its column, and the first of them."""

    column: str
    first: np.ndarray


def is_dataset(data: Any) -> bool:
    """Whether ``data`` is a ``ray.data.Dataset``. No import: who never imported Ray cannot have made one."""
    ray_data = sys.modules.get("ray.data")
    return ray_data is not None and isinstance(data, ray_data.Dataset)


def images_of(dataset: Any, key: str | None = None) -> Images:
    """The column of the images, and the first one, which is read for it.

    Args:
        dataset: a ``ray.data.Dataset``.
        key: the column. Default: "images", "image", "x", "data" or "item", else the only one.

    Raises:
        ValueError: for an empty dataset, and where no column or an unknown one is named.
        TypeError: for a column that does not hold arrays of numbers.
    """
    rows = dataset.take(1)
    if not rows:
        raise ValueError("The Ray dataset holds no images. Give one with at least one row.")
    row = rows[0]
    column = _column(row, key)
    first = np.asarray(row[column])
    if first.dtype.kind in "OSUV":
        raise TypeError(
            f"The column {column!r} of the Ray dataset holds {type(row[column]).__name__} (dtype {first.dtype}), no "
            f"arrays of numbers. Decode the images first (ray.data.read_images, or dataset.map)."
        )
    return Images(column, first)


def aggregate(
    dataset: Any,
    accumulators: Sequence[Any],
    *,
    key: str | None = None,
    view: View | None = None,
    first: Images | None = None,
    shape: tuple[int | None, ...] | None = None,
) -> list[Any]:
    """Adds all images of a Ray dataset to accumulators, in one pass, on the workers of the cluster.

    Integers: the same bits as on one machine. Floats: Ray keeps the order of the blocks, so the same dataset gives the
    same bits again; another split into blocks gives others within the rounding of float64. A spectrum that cuts
    directions off gives others within what it cuts off.

    Args:
        dataset: a ``ray.data.Dataset``.
        accumulators: empty ones, objects with ``add``, ``merge``, ``state`` and ``from_state``. They stay empty.
        key: the column of the images; see ``images_of``.
        view: what each accumulator gets to see of a batch; it is pickled. Default: the batch as it is.
        first: what ``images_of`` gave, where it has been asked already.
        shape: of an image, None for sizes that vary; the default is that of the first image.

    Returns:
        New accumulators, of all images.

    Raises:
        MemoryError: for accumulators of more than 2 GB.
        ValueError, TypeError: for images of another shape, and what an accumulator or ``view`` raised on a worker. The
            message names the image.

    Example:
        >>> import ray
        >>> from keras_norm_layers.statistics.moments import Moments
        >>> dataset = ray.data.from_numpy([images[:500], images[500:]])         # doctest: +SKIP
        >>> moments, = aggregate(dataset, [Moments()])                          # doctest: +SKIP
    """
    if any(accumulator.images for accumulator in accumulators):
        raise ValueError("aggregate takes empty accumulators: they start anew on every worker. Merge the result.")
    first = images_of(dataset, key) if first is None else first
    size = _state_bytes(accumulators, view, first.first)
    if size > MOST_BYTES:
        raise MemoryError(
            f"What is learnt takes {size / 1e9:.1f} GB; Ray carries at most {MOST_BYTES / 1e9:.1f} GB in one piece. "
            f"Lower `rank`, or adapt the layers one after the other."
        )
    added = dataset.select_columns([first.column]).map_batches(
        _add,
        batch_size=_rows_together(size, first.first.nbytes),
        batch_format="numpy",
        fn_kwargs={
            "column": first.column,
            "shape": first.first.shape if shape is None else tuple(shape),
            "accumulators": list(accumulators),
            "view": view,
        },
    )
    merged = added.map_batches(
        _merge,
        batch_size=max(2, min(FAN_IN, MERGE_BYTES // max(1, size))),
        batch_format="numpy",
        fn_kwargs={"classes": [type(a) for a in accumulators]},
    )
    # The rows end here, whatever is raised: left to the garbage collector they would end in another Ray session.
    with _code_sent_along(), _in_order(merged.context), contextlib.closing(_rows(merged)) as rows:
        return _total(rows, [copy.deepcopy(a) for a in accumulators])


# -- on the workers ---------------------------------------------------------------------------------------------------


def _add(
    batch: Mapping[str, np.ndarray],
    column: str,
    shape: tuple[int | None, ...],
    accumulators: list[Any],
    view: View | None,
) -> dict[str, np.ndarray]:
    """A batch of images -> a row: their number, the states of the accumulators, or what was raised."""
    parts = [copy.deepcopy(accumulator) for accumulator in accumulators]
    done = 0
    try:
        for images in _of_one_shape(batch[column], shape):
            for part, seen in zip(parts, [images] * len(parts) if view is None else view(images)):
                part.add(seen, NAME, done)
            done += len(images)
    except (TypeError, ValueError) as error:
        # An error of Ray's own would bury the message under the worker's and Ray's tracebacks.
        return _row(0, error=pickle.dumps((type(error) is TypeError, str(error), traceback.format_exc())))
    return _row(done, pickle.dumps([part.state() for part in parts], protocol=5))


def _of_one_shape(images: np.ndarray, shape: tuple[int | None, ...]) -> Iterator[np.ndarray]:
    """The images of a column in arrays of one shape each: where shapes differ, Ray gives an array of arrays."""
    groups: Iterator[Any] = iter([images])
    if images.dtype == object:
        groups = (np.stack(list(group)) for _, group in itertools.groupby(images, np.shape))
    done = 0
    for group in groups:
        given = group.shape[1:]
        if len(given) != len(shape) or any(a not in (b, None) for a, b in zip(shape, given)):
            raise ValueError(
                f"Image {done} of {NAME} has the shape {given}. Allowed: {shape} (None: any size), as the layer was "
                f"built or as the first image has it. Resize the images first (ray.data.read_images(size=...))."
            )
        yield group
        done += len(group)


def _merge(batch: Mapping[str, np.ndarray], classes: list[Any]) -> dict[str, np.ndarray]:
    """Rows of ``_add`` -> one row. Of the first that holds an error: the error, after so many images."""
    if len(batch["images"]) == 1:
        return dict(batch)
    images = 0
    totals: list[Any] = []
    for number, states, error in zip(batch["images"], batch["states"], batch["error"]):
        images += int(number)
        if error:
            return _row(images, error=error)
        parts = [kind.from_state(state) for kind, state in zip(classes, pickle.loads(states))]
        totals = [total.merge(part) for total, part in zip(totals, parts)] if totals else parts
    return _row(images, pickle.dumps([total.state() for total in totals], protocol=5))


def _row(images: int, states: bytes = b"", error: bytes = b"") -> dict[str, np.ndarray]:
    return {
        "images": np.array([images], "int64"),
        "states": np.array([states], object),
        "error": np.array([error], object),
    }


# -- in this process --------------------------------------------------------------------------------------------------


def _column(row: Mapping[str, Any], key: str | None) -> str:
    names = list(row)
    if key is not None:
        if key not in row:
            raise ValueError(f"The Ray dataset has the columns {names}. Received: key={key!r}")
        return key
    for name in COLUMNS:
        if name in row:
            return name
    if len(names) == 1:
        return names[0]
    raise ValueError(f"The Ray dataset has the columns {names}; say with key= which of them holds the images.")


def _state_bytes(accumulators: Sequence[Any], view: View | None, image: np.ndarray) -> int:
    """About how many bytes the states of accumulators take once they are full."""
    batch = image[None]
    views = [batch] * len(accumulators) if view is None else view(batch)
    total = 0
    for accumulator, seen in zip(accumulators, views):
        state = copy.deepcopy(accumulator).add(seen).state()
        # A covariance keeps half a square of its size, a spectrum so many rows of it; after one image neither shows.
        values = getattr(accumulator, "size", 0)
        rows = getattr(accumulator, "capacity", values // 2)
        total += max(sum(array.nbytes for array in state.values()), 8 * values * rows)
    return total


def _rows_together(state_bytes: int, image_bytes: int) -> int | None:
    """Images that a task adds up in one piece; None, a block, where that is much larger than the accumulator."""
    if GROUP_FACTOR * state_bytes <= BLOCK_BYTES:
        return None
    return max(1, min(GROUP_FACTOR * state_bytes, GROUP_BYTES) // max(1, image_bytes))


def _total(rows: Iterable[tuple[int, bytes, bytes]], totals: list[Any]) -> list[Any]:
    """What the rows hold, merged from the first to the last."""
    seen = 0
    for images, states, error in rows:
        seen += images
        if error:
            _raise(error, seen)
        parts = [type(total).from_state(state) for total, state in zip(totals, pickle.loads(states))]
        totals = [total.merge(part) for total, part in zip(totals, parts)]
    return totals


def _rows(dataset: Any) -> Generator[tuple[int, bytes, bytes], None, None]:
    batches = iter(dataset.iter_batches(batch_size=None, batch_format="numpy"))
    try:
        for batch in batches:
            yield from zip(map(int, batch["images"]), batch["states"], batch["error"])
    finally:
        close = getattr(batches, "close", None)
        if close is not None:  # ends the tasks that still run after an error
            close()


@contextlib.contextmanager
def _code_sent_along() -> Iterator[None]:
    """Functions and accumulators are pickled with their code, so workers need not have this package."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(statistics)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # another thread was done first
            cloudpickle.unregister_pickle_by_value(statistics)


@contextlib.contextmanager
def _in_order(context: Any) -> Iterator[None]:
    """Blocks come in the order of the dataset, so that sums of floats are the same again, and errors name the image."""
    options = context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        yield
    finally:
        options.preserve_order = before


def _raise(error: bytes, images: int) -> None:
    is_type_error, message, remote = pickle.loads(error)
    kind = TypeError if is_type_error else ValueError
    where = f" (Images are counted from the block's first, which is image {images} of the dataset.)" if images else ""
    raise kind(message + where) from WorkerError(remote)


class WorkerError(Exception):
    """The traceback of an error on a worker, as text: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"on a worker of the Ray cluster:\n{self.args[0]}"
