"""``Feed``: a table of samples as batches for ``fit``; what is broken, split, shuffled; the same for ``tf.data``."""

from __future__ import annotations

import functools
import queue
import random
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.data.columns import Column
from keras_norm_layers.data.images import Format, ImageError, Window
from keras_norm_layers.data.places import Problem
from keras_norm_layers.data.table import Labels, Table, encode, split, validation_share
from keras_norm_layers.kernels import datasets
from keras_norm_layers.kernels.memory import aligned_empty
from keras_norm_layers.statistics.decoding import THREADS

ORDER = 2  # the stream of random numbers of the epochs' orders; see ``table.SPLIT``
SUBSETS = (None, "training", "validation", "both")
Result = TypeVar("Result")


class Feed(keras.utils.PyDataset):
    """Batches of images, with labels, masks and boxes, as NumPy arrays: give it to ``fit``, ``adapt`` or ``predict``.

    The functions ``from_directory``, ``from_dataframe``, ``from_csv``, ``from_json``, ``from_hdf5`` and ``from_arrays``
    make feeds; all take the arguments below. A batch is x, or (x, y): x are images (N, H, W, C), uint8 from files of
    8 bits; y is the labels, the masks or the boxes, or, of several of them, a dictionary with the entries "labels",
    "segmentation_masks" and "bounding_boxes", as ``Augment`` takes them. Masks (N, H, W, 1) hold whole numbers; boxes
    are {"boxes": (N, K, 4) float32, "labels": (N, K) int32}, K the most of any image, rows without a box labelled -1.

    The order of an epoch is a function of (seed, epoch) alone, so the same for any number of workers. ``fit`` counts
    the epochs by ``on_epoch_end`` (its look at the first batch for a model that is not built is one); with its default
    ``shuffle=True`` it mixes the batches of an epoch once more, by Python's generator. Batch number i of an epoch is
    ``feed[i]``; the last one may be smaller.

    Args:
        image_size: (height, width) in pixels that images are resized to. None (default): they must have one size.
        color_mode: "rgb" (what None means for files), "rgba" or "grayscale", uint8; "grayscale16" (uint16),
            "grayscale32" (int32) and "grayscale_float" (float32) for files of as many bits. None leaves arrays as they
            are. Nothing is cut to 8 bits: a deeper file is an error in an 8-bit mode. Alpha is dropped by "rgb".
        interpolation: Pillow's "bilinear" (default), "bicubic", "lanczos", "box" or "hamming", all of which average
            when images become smaller (antialiasing), or "nearest". Masks are always resized by "nearest".
        antialias: False: "bilinear" mixes the four pixels about each place and skips the others, as
            ``tf.image.resize`` and ``keras.utils.image_dataset_from_directory`` do. Default True.
        keep_aspect_ratio: False (default) stretches; "crop" takes the largest centred part of the shape wanted; "pad"
            puts zeros around.
        exif_orientation: True (default): files come upright, turned and mirrored by the tag that a camera writes when
            it is not held straight: as viewers show them, and as boxes and masks are drawn. False: as stored, which is
            what ``keras.utils`` and ``tf.io`` give. Tags of masks are treated alike. TIFF files are always upright.
        decoder: "auto" (default): with ``antialias=False`` OpenCV, where it is installed, otherwise Pillow. "opencv"
            decodes JPEG files to the same pixels and resizes to within one level of them in half the time; other files,
            and those without an end, are Pillow's; a few damaged ones that Pillow refuses, for what follows their last
            row, are read. "pillow": the same bytes whatever is installed.
        batch_size: images a batch; default 32.
        shuffle: a new order each epoch (default); False keeps the order of the data.
        seed: an integer in [0, 2**31), for the order and the split. None: the split is that of 0, and the order is
            drawn from Python's generator, which ``keras.utils.set_random_seed`` sets.
        label_mode: "int" (default; int32, (N,)), "categorical" (one-hot float32, (N, classes)), "binary" (float32,
            (N, 1)), "multi-label" (float32 zeros and ones, (N, classes), from lists of names), "raw" (numbers or texts
            as they are) or None (no labels). Whole numbers are class numbers as they stand; names are numbered in the
            order of ``class_names``.
        class_names: a list of names; None (default): the sorted names of the data.
        validation_split: None, a share in (0, 1), or "auto": 20 % of fewer than 1000 samples, 10 % of fewer than
            10000, else 5 %.
        subset: with a split: "training", "validation", or "both" for two feeds.
        stratify: each class gives the same share for validation (default), where each sample has one class.
        on_error: "raise" (default): the first file that is broken, empty, no image or outside of its folder raises a
            ValueError with its name, those that show by name or size at once, others when they are read. "skip": every
            file is read once now; what is broken is left out, told by a warning and kept in ``skipped``.
        workers, use_multiprocessing, max_queue_size: of ``keras.utils.PyDataset``.

    Attributes: ``names`` (of the images), ``labels`` (as in batches, a row a sample), ``classes`` (their numbers),
    ``class_names``, ``skipped`` (a list of (name, reason)), ``num_samples``, ``image_shape``, ``epoch``, ``seed``,
    ``batch_size``.

    A file of several frames gives its first one, with a warning.

    Example:
        >>> import numpy as np
        >>> from keras_norm_layers import data
        >>> images = np.zeros((10, 8, 8, 3), "uint8")
        >>> feed = data.from_arrays(images, np.arange(10), batch_size=4, seed=1)
        >>> len(feed), feed.image_shape
        (3, (8, 8, 3))
        >>> sorted(np.concatenate([y for x, y in feed]).tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        table: Table,
        labels: Labels,
        how: Format,
        numbers: np.ndarray,
        skipped: list[Problem],
        *,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_size = validation.check_count("data", "batch_size", batch_size, 1, 2**31 - 1)
        self.shuffle = validation.check_bool("data", "shuffle", shuffle)
        seed = validation.check_seed("data", seed)
        self.seed = random.randrange(2**31) if seed is None else seed
        self.epoch = 0
        self.skipped = skipped
        self.class_names = labels.class_names
        self._table, self._how, self._numbers = table, how, numbers
        self._values, self._classes = labels.values, labels.classes
        first, _ = table.images.load(int(numbers[0]), how)
        self.image_shape, self._dtype = first.shape, first.dtype
        self._last_order: tuple[int, Any] = (-1, None)
        self._most_boxes = max((len(table.boxes[i][0]) for i in numbers), default=0) if table.boxes else 0

    def __len__(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"The feed has {len(self)} batches. Asked for batch {index}")
        return self.batch(self.epoch, index % len(self))

    @property
    def num_samples(self) -> int:
        """Number of images."""
        return len(self._numbers)

    @property
    def names(self) -> list[str]:
        """What each image is called: its path, or its number."""
        return [self._table.images.name(int(i)) for i in self._numbers]

    @property
    def labels(self) -> np.ndarray | None:
        """The labels, a row a sample, in the order of ``names``."""
        return None if self._values is None else self._values[self._numbers]

    @property
    def classes(self) -> np.ndarray | None:
        """The class number of each sample, in the order of ``names``; None where samples have not one class each."""
        return None if self._classes is None else self._classes[self._numbers]

    def order(self, epoch: int) -> np.ndarray:
        """The numbers of the samples, of ``names``, in the order of an epoch; it may not be written to."""
        known, order = self._last_order  # one look: other threads may put another epoch's there
        if known != epoch:
            generator = np.random.default_rng([self.seed, ORDER, epoch])
            order = generator.permutation(self.num_samples) if self.shuffle else np.arange(self.num_samples)
            order.flags.writeable = False
            self._last_order = epoch, order
        return order

    def batch(self, epoch: int, index: int) -> Any:
        """Batch number ``index`` of an epoch."""
        return self._batch(epoch, index, THREADS)

    def samples(self, which: Iterable[int]) -> Any:
        """The samples of these numbers as a batch."""
        return self._samples(which, THREADS)

    def _batch(self, epoch: int, index: int, threads: int) -> Any:
        start = index * self.batch_size
        return self._samples(self.order(epoch)[start : start + self.batch_size], threads)

    def _samples(self, which: Iterable[int], threads: int) -> Any:
        rows = self._numbers[np.asarray(which)]
        x = aligned_empty((len(rows), *self.image_shape), self._dtype)
        windows = in_threads(lambda i: self._read(rows[i], x[i]), range(len(rows)), threads)
        y: dict[str, Any] = {}
        if self._values is not None:
            y["labels"] = self._values[rows]
        if self._table.masks is not None:
            columns, how = self._table.masks, self._how
            masks = in_threads(lambda i: _mask_of(columns, rows[i], how, windows[i]), range(len(rows)), threads)
            y["segmentation_masks"] = np.stack(masks)
        if self._table.boxes is not None:
            y["bounding_boxes"] = self._boxes(rows, windows)
        if not y:
            return x
        return x, (next(iter(y.values())) if len(y) == 1 else y)

    def on_epoch_end(self) -> None:
        """Counts the epoch: the next one has another order."""
        self.epoch += 1

    def as_tf_data(self, num_parallel_calls: int | None = None) -> Any:
        """The same batches as a ``tf.data.Dataset``; each time it is read from its beginning is an epoch, counted from
        ``epoch`` on.

        Args:
            num_parallel_calls: batches that are read at a time; their order is the same for any number. Default: one a
                core, at most 8, each by one thread; fewer batches share these threads. More are for files that are far
                away. A ValueError if it is not a whole number from 1 on.

        Its options turn autotuning off (``docs/design.md``); ``with_options`` can turn it on again.
        """
        calls = THREADS if num_parallel_calls is None else num_parallel_calls
        calls = validation.check_count("data", "num_parallel_calls", calls, 1, 2**31 - 1)
        read = functools.partial(self._batch, threads=max(1, THREADS // calls))
        return datasets.from_batches(read, len(self), self.samples([0]), self.epoch, calls)

    def _read(self, row: int, place: np.ndarray) -> Window:
        """Writes an image to its place in a batch."""
        image, window = self._table.images.load(int(row), self._how)
        if image.shape != self.image_shape or image.dtype != self._dtype:
            raise ImageError(
                self._table.images.name(int(row)),
                f"is {image.dtype} {image.shape}, the first image {self._dtype} {self.image_shape}. Give `image_size` "
                "and `color_mode`, or feed the sizes apart.",
            )
        place[...] = image
        return window

    def _boxes(self, rows: np.ndarray, windows: list[Window]) -> dict[str, np.ndarray]:
        assert self._table.boxes is not None
        boxes = np.zeros((len(rows), self._most_boxes, 4), "float32")
        labels = np.full((len(rows), self._most_boxes), -1, "int32")
        for i, (row, window) in enumerate(zip(rows, windows)):
            given, classes = self._table.boxes[row]
            moved = window.move_boxes(given)
            inside = (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
            boxes[i, : inside.sum()] = moved[inside]
            labels[i, : inside.sum()] = classes[inside]
        return {"boxes": boxes, "labels": labels}


def in_threads(function: Callable[[Any], Result], items: Iterable[Any], threads: int = THREADS) -> list[Result]:
    """The results of a function that spends its time in Pillow, which needs no lock; in order.

    The calling thread is one of the threads. After an error no item is begun; of several errors that of the first item
    is raised.
    """
    todo = list(items)
    results: list[Any] = [None] * len(todo)
    errors: dict[int, BaseException] = {}
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(todo)):
        waiting.put(number)

    def work() -> None:  # takes items itself: a future for each would wake a thread for each
        while not errors:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[number] = function(todo[number])
            except Exception as error:
                errors[number] = error

    # New threads each time: a pool that is kept would be missing in a forked worker.
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        try:
            others = [pool.submit(work) for _ in range(min(threads, len(todo)) - 1)]
            work()
            for other in others:
                other.result()
        except BaseException as error:  # Ctrl-C: the threads stop after the items that they have
            errors[-1] = error
    if errors:
        raise errors[min(errors)]
    return results


def _mask_of(masks: Column | None, row: Any, how: Format, window: Window) -> np.ndarray:
    """The mask of the image to which ``window`` belongs; ImageError where it cannot be that image's."""
    assert masks is not None
    mask, own = masks.load_mask(int(row), how)
    height, width = window.whole
    if own.whole == (width, height) != window.whole:
        raise ImageError(
            masks.name(int(row)),
            f"is {own.whole}, its image {window.whole}: one of them lies on its side. Where an orientation tag turns "
            "the image and the mask was drawn on its stored pixels, give exif_orientation=False.",
        )
    if how.image_size is None and own.whole != window.whole:
        raise ImageError(masks.name(int(row)), f"is {own.whole}, its image {window.whole}.")
    return mask


def feeds(
    table: Table,
    *,
    image_size: tuple[int, int] | None = None,
    color_mode: str | None = None,
    interpolation: str = "bilinear",
    keep_aspect_ratio: bool | str = False,
    antialias: bool = True,
    exif_orientation: bool = True,
    decoder: str = "auto",
    label_mode: str | None = "int",
    class_names: list[str] | None = None,
    validation_split: float | str | None = None,
    subset: str | None = None,
    stratify: bool = True,
    on_error: str = "raise",
    **options: Any,
) -> Any:
    """The feed of a table, or the two feeds of subset="both". The arguments are those of ``Feed``."""
    how = Format(image_size, color_mode, interpolation, keep_aspect_ratio, antialias, exif_orientation, decoder)
    validation.check_choice("data", "on_error", on_error, ("raise", "skip"))
    validation.check_choice("data", "subset", subset, SUBSETS)
    validation.check_bool("data", "stratify", stratify)
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "data: `validation_split` and `subset` ('training', 'validation' or 'both') go together. "
            f"Received: validation_split={validation_split!r}, subset={subset!r}"
        )
    refuse(table.problems, on_error)
    count = len(table.images)
    _check_lengths(table, count)
    names = table.class_names if class_names is None else list(class_names)
    labels = encode(table.labels, label_mode, names)
    parts: list[np.ndarray] = [np.arange(count)]
    if validation_split is not None:
        share = validation_share(validation_split, count)
        pair = split(count, share, labels.classes, validation.check_seed("data", options.get("seed")), stratify)
        parts = list(pair) if subset == "both" else [pair[subset == "validation"]]
    made = [_feed(table, labels, how, part, on_error, options) for part in parts]
    return made[0] if len(made) == 1 else tuple(made)


def refuse(problems: list[Problem], on_error: str) -> None:
    """Raises for what is no sample, unless it is to be skipped."""
    if problems and on_error == "raise":
        first = "; ".join(f"{name!r} {reason}" for name, reason in problems[:3])
        raise ValueError(
            f"data: {len(problems)} files cannot be fed: {first}{'; ...' if len(problems) > 3 else ''} Give "
            "on_error='skip' to leave them out."
        )


def _feed(
    table: Table, labels: Labels, how: Format, numbers: np.ndarray, on_error: str, options: dict[str, Any]
) -> Feed:
    skipped = list(table.problems)
    if on_error == "skip":
        broken = _broken(table, how, numbers)
        skipped += broken.values()
        numbers = numbers[[int(i) not in broken for i in numbers]] if broken else numbers
    if skipped:
        warnings.warn(
            f"data: {len(skipped)} files are left out, first {skipped[0].name!r}, which {skipped[0].reason} "
            "All of them are in the feed's `skipped`.",
            UserWarning,
            stacklevel=4,
        )
    if len(numbers) == 0:
        raise ValueError(f"data: there is no image to feed ({len(skipped)} were left out).")
    return Feed(table, labels, how, numbers, skipped, **options)


def _broken(table: Table, how: Format, numbers: np.ndarray) -> dict[int, Problem]:
    """The samples that cannot be read, or have another size than the first that can."""

    def check(number: Any) -> Any:
        try:
            image, window = table.images.load(int(number), how)
            if table.masks is not None:
                _mask_of(table.masks, number, how, window)
        except ImageError as error:
            return Problem(error.name, error.reason)
        return image.shape, image.dtype

    found = in_threads(check, numbers)
    first = next((item for item in found if not isinstance(item, Problem)), None)
    broken = {}
    for number, item in zip(numbers, found):
        if not isinstance(item, Problem) and item != first:
            item = Problem(table.images.name(int(number)), f"is {item[1]} {item[0]}, the first {first}.")
        if isinstance(item, Problem):
            broken[int(number)] = item
    return broken


def _check_lengths(table: Table, count: int) -> None:
    for name, column in (("labels", table.labels), ("masks", table.masks), ("boxes", table.boxes)):
        if column is not None and len(column) != count:
            raise ValueError(f"data: there must be as many {name} as images, {count}. Received: {len(column)}")
