"""The iterators of ``ImageDataGenerator``: the order of the images, the seed of each batch, and batches of arrays."""

from __future__ import annotations

import threading
from collections.abc import Iterator as Generator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_norm_layers.migration import parameters as draws
from keras_norm_layers.validation import check_choice, check_count

# NumPy's global generator belongs to all: seeding it and drawing from it for a batch happen without a break.
DRAWING = threading.RLock()


class Iterator(keras.utils.PyDataset):
    """Batches of randomly transformed images, by number (``iterator[i]``) or one by one without end (``next``).

    A subclass says in ``_draw`` what is random about a batch, and in ``_batch`` what the batch is.

    Args:
        n: how many images there are.
        batch_size: images a batch; the last one of an epoch may be smaller.
        shuffle: a new order each epoch; False keeps the order of the data.
        seed: None, or an int s: batch number t of all that were ever made is drawn from NumPy's generator seeded with
            s + t.
        **kwargs: of ``keras.utils.PyDataset``: workers, use_multiprocessing, max_queue_size.

    Attributes: ``n``, ``batch_size``, ``shuffle``, ``seed``, ``batch_index`` (the next batch of ``next``),
    ``total_batches_seen``, ``index_array`` (the images in the order of this epoch).
    """

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = n
        self.batch_size = check_count(type(self).__name__, "batch_size", batch_size, 1, 2**31 - 1)
        self.shuffle, self.seed = shuffle, seed
        self.batch_index = self.total_batches_seen = 0
        self.index_array: Any = None

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, idx: int) -> Any:
        if not 0 <= idx < len(self):
            raise ValueError(f"{type(self).__name__} has {len(self)} batches. Asked for batch {idx}")
        with DRAWING:
            self._seed()
            if self.index_array is None:
                self.set_index_array()
            self.total_batches_seen += 1
            start = self.batch_size * idx
            numbers = self.index_array[start : start + self.batch_size]
            drawn = self._draw(numbers)
        return self._batch(numbers, drawn)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        with DRAWING:
            numbers = self._next_numbers()
            drawn = self._draw(numbers)
        return self._batch(numbers, drawn)

    def next(self) -> Any:
        """The next batch, as ``next(iterator)``."""
        return self.__next__()

    def reset(self) -> None:
        """Makes ``next`` begin an epoch."""
        self.batch_index = 0

    def on_epoch_end(self) -> None:
        """A new order, if the iterator shuffles."""
        self.set_index_array()

    def set_index_array(self) -> None:
        """Draws the order of an epoch."""
        self.index_array = np.random.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _seed(self) -> None:
        if self.seed is not None:
            np.random.seed(self.seed + self.total_batches_seen)

    def _next_numbers(self) -> np.ndarray:
        """The images of the next batch."""
        self._seed()
        if self.batch_index == 0:
            self.set_index_array()
        start = self.batch_index * self.batch_size % max(1, self.n)
        self.batch_index = self.batch_index + 1 if self.n > start + self.batch_size else 0
        self.total_batches_seen += 1
        return self.index_array[start : start + self.batch_size]

    @property
    def index_generator(self) -> Generator[np.ndarray]:
        """The numbers of the images of the next batches, without end."""
        return iter(self._next_numbers, None)

    def _draw(self, numbers: np.ndarray) -> Any:
        """What is random about the batch of these images."""
        raise NotImplementedError

    def _batch(self, numbers: np.ndarray, drawn: Any) -> Any:
        """The batch of these images."""
        raise NotImplementedError


class ImageIterator(Iterator):
    """What the iterators over arrays and over files share: parameters for each image, and files of what came out.

    Args:
        n, batch_size, shuffle, seed: see ``Iterator``.
        image_data_generator: transforms and normalizes; None leaves images as they are.
        image_shape: of one image, with its channels.
        data_format: "channels_last" or "channels_first".
        dtype: of the images and of labels made from class numbers.
        save_to_dir: None, or a folder that each image of each batch is written to, stretched to 0..255; it must exist.
        save_prefix, save_format: files are called PREFIX_NUMBER_RANDOM.FORMAT.
    """

    most_random = 10**7

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        image_data_generator: Any,
        image_shape: tuple[int, ...],
        data_format: str,
        dtype: Any,
        save_to_dir: Any,
        save_prefix: str,
        save_format: str,
    ) -> None:
        super().__init__(n, batch_size, shuffle, seed)
        self.image_data_generator = image_data_generator
        self.image_shape, self.data_format, self.dtype = image_shape, data_format, dtype
        self.save_to_dir, self.save_prefix, self.save_format = save_to_dir, save_prefix, save_format
        if save_to_dir and not Path(save_to_dir).is_dir():
            raise ValueError(
                f"{type(self).__name__}: `save_to_dir` must be a folder that exists: make it first. Received: "
                f"save_to_dir={save_to_dir!r}"
            )

    def _draw(self, numbers: np.ndarray) -> tuple[list[dict[str, Any]], list[int]]:
        shape, generator = self.image_shape, self.image_data_generator
        drawn = [generator.get_random_transform(shape) for _ in numbers] if generator else []
        hashes = [np.random.randint(self.most_random) for _ in numbers] if self.save_to_dir else []
        return drawn, hashes

    def _images(self, images: np.ndarray, numbers: np.ndarray, drawn: Any, places: Any = None) -> np.ndarray:
        """Images (N, ...) transformed, normalized, and written to files if that is wanted.

        Args:
            images: an array that holds the batch.
            numbers: the images of the batch.
            drawn: their parameters, and what makes the names of their files unique.
            places: where they are in the array; None: one after the other from its beginning.
        """
        parameters, hashes = drawn
        if self.image_data_generator:
            images = self.image_data_generator._batch(images, parameters, self.dtype, places)
        elif places is not None:
            images = images[places]
        for image, number, random in zip(images, numbers, hashes):
            name = f"{self.save_prefix}_{number}_{random}.{self.save_format}"
            picture = keras.utils.array_to_img(image, self.data_format, scale=True, dtype="float32")
            picture.save(Path(self.save_to_dir) / name)
        return images


class NumpyArrayIterator(ImageIterator):
    """Batches of images that are in memory: what ``ImageDataGenerator.flow`` gives.

    A batch is x, or (x, y), or (x, y, weights); with other arrays beside the images x is a list, the images first.

    Args:
        x: images (N, H, W, C), or (N, C, H, W) for channels first: integers or floats, also a memory map; they stay as
            they are, and are cast batch by batch. Or a pair (images, another array or a list of others).
        y: None or labels, along the first axis.
        image_data_generator: transforms and normalizes.
        batch_size, shuffle, seed: see ``Iterator``.
        sample_weight: None or a weight for each image.
        data_format: "channels_last" or "channels_first"; None for Keras's setting.
        save_to_dir, save_prefix, save_format: see ``ImageIterator``.
        subset: None, "training" or "validation": the first ``validation_split`` of the images are for validation.
        ignore_class_split: allow classes that only one of the two parts has.
        dtype: of the batches; None for Keras's ``floatx``.

    Raises:
        ValueError: for lengths that differ, images that are not of rank 4, an unknown subset, and for parts that have
            different classes.
    """

    most_random = 10**4

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: Any = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: Any = None,
    ) -> None:
        others: list[Any] = []
        if isinstance(x, (tuple, list)):
            x, others = x[0], list(x[1]) if isinstance(x[1], list) else [x[1]]
        arrays = {"x": x, "y": y, "sample_weight": sample_weight} | {f"x[1][{i}]": v for i, v in enumerate(others)}
        given = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
        _check_lengths(given)
        if subset is not None:
            part = _subset(given, subset, image_data_generator._validation_split, ignore_class_split)
            given = {name: value[part] for name, value in given.items()}
        self.x, self.y, self.sample_weight = given.pop("x"), given.pop("y", None), given.pop("sample_weight", None)
        self.x_misc = list(given.values())
        if self.x.ndim != 4:
            raise ValueError(
                f"ImageDataGenerator.flow: `x` must be images of rank 4, (N, H, W, C) or (N, C, H, W). Received: an "
                f"array of shape {self.x.shape}"
            )
        data_format = draws.check_data_format(data_format)
        channels = 3 if data_format == "channels_last" else 1
        draws.warn_of_channels("ImageDataGenerator.flow", self.x.shape, channels, data_format)
        save = (save_to_dir, save_prefix, save_format)
        dtype = keras.config.floatx() if dtype is None else dtype
        generator, shape = image_data_generator, self.x.shape[1:]
        super().__init__(len(self.x), batch_size, shuffle, seed, generator, shape, data_format, dtype, *save)

    def _batch(self, numbers: np.ndarray, drawn: Any) -> Any:
        images = self._images(self.x, numbers, drawn, places=numbers)
        x = [images, *(other[numbers] for other in self.x_misc)] if self.x_misc else images
        if self.y is None:
            return x
        return (x, self.y[numbers]) if self.sample_weight is None else (x, self.y[numbers], self.sample_weight[numbers])


def _check_lengths(arrays: dict[str, np.ndarray]) -> None:
    lengths = {name: len(value) if value.ndim else 0 for name, value in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"ImageDataGenerator.flow: all arrays must have the same length. Received lengths: {lengths}")


def check_subset(subset: str, split: float) -> None:
    """ValueError unless ``subset`` is one of the two, and there are images in it."""
    check_choice("ImageDataGenerator", "subset", subset, ("training", "validation"))
    if subset == "validation" and not split:
        raise ValueError(
            'ImageDataGenerator: `subset`="validation" is empty with validation_split=0. Give ImageDataGenerator a '
            "`validation_split` between 0 and 1."
        )


def _subset(arrays: dict[str, np.ndarray], subset: str, split: float, ignore_class_split: bool) -> slice:
    check_subset(subset, split)
    cut = int(len(arrays["x"]) * split)
    y = arrays.get("y")
    if cut and y is not None and not ignore_class_split and not np.array_equal(np.unique(y[:cut]), np.unique(y[cut:])):
        raise ValueError(
            "ImageDataGenerator.flow: training and validation subsets have different classes after the split: the "
            f"first {cut} images are for validation. Shuffle images and labels together if they are sorted by label, "
            "or set ignore_class_split=True."
        )
    return slice(0, cut) if subset == "validation" else slice(cut, None)
