"""Any source of images -> batches of NumPy arrays.

What is an image and what is a batch? An array is a batch along its first axis, always. An element of a
``tf.data.Dataset``, a generator or another iterable is a batch when it has the rank a layer takes (``rank``), and one
image when it has an axis less. Where no rank is known: an element is one image if it has three axes, the last of them
of size 1 to 4 (and a dataset does not leave the first one open), or fewer than two axes; everything else is a batch.
The elements of a list are images, unless the rank says that they are batches. Single images are gathered into batches
of equal shapes.
"""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_norm_layers.statistics.moments import check_dtype

BATCH_BYTES = 1 << 24
ALLOWED = (
    "a NumPy array, a memory map or anything else with a shape and slices (HDF5 too), a tensor, a list of images, "
    "a tf.data.Dataset, a keras.utils.PyDataset, a torch DataLoader, a generator or another iterable of batches, or a "
    "function that makes an iterator"
)


class Batches:
    """Batches of images as NumPy arrays; iterate over it.

    Attributes:
        length: number of batches, or None where it is not known.
        once: True when the source can be read one time only (a generator).
    """

    def __init__(self, read: Callable[[], Iterator[np.ndarray]], length: int | None = None, once: bool = False) -> None:
        self._read = read
        self.length = length
        self.once = once

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read()

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Batches:
        """The same batches with a function applied to each."""
        return Batches(lambda: (function(batch) for batch in self), self.length, self.once)


def batches(
    data: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    rank: int | None = None,
    key: str | None = None,
) -> Batches:
    """The images of ``data`` in batches.

    Args:
        data: NumPy arrays, memory maps and anything with a shape and slices (HDF5 datasets), tensors of TensorFlow, JAX
            or torch, lists of images, ``tf.data.Dataset``, ``keras.utils.PyDataset``, torch ``DataLoader`` (or a torch
            dataset), generators and other iterables, functions that return an iterator. Of (x, y) and (x, y, weights)
            the x is taken; of a dictionary the entry ``key``, else "images", "image" or "x", else the only one.
        batch_size: images a batch, for arrays and for sources of single images. Default: some 16 MB.
        steps: batches to read; needed where the source has no end. Default: all.
        rank: axes of a batch, where it is known; see this module's docstring.
        key: the entry of a dictionary that holds the images.

    Raises:
        TypeError: for what is no source of images.
        ValueError: for a source without end and without ``steps``, a ``batch_size`` for a source that has batches, a
            dictionary without a known entry, images of another rank.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"`{name}` must be a positive integer or None. Received: {name}={value!r}")
    if isinstance(data, Batches):
        return data
    picker = _Picker(rank, key, batch_size)
    source = _source(data, picker, steps)
    return source if steps is None else _limited(source, steps)


def _limited(source: Batches, steps: int) -> Batches:
    def read() -> Iterator[np.ndarray]:
        done = 0
        for batch in itertools.islice(iter(source), steps):
            yield batch
            done += 1
        if done < steps:
            warnings.warn(f"steps={steps} batches were asked for, and the data ended after {done}.", stacklevel=3)

    length = steps if source.length is None else min(steps, source.length)
    return Batches(read, length, source.once)


def _source(data: Any, picker: _Picker, steps: int | None) -> Batches:
    if data is None or isinstance(data, (str, bytes, bool, int, float, complex, np.generic)):
        raise TypeError(f"{type(data).__name__} {data!r:.80} is no source of images. Allowed: {ALLOWED}.")
    if isinstance(data, Mapping) or (isinstance(data, tuple) and 1 <= len(data) <= 3):
        return _source(picker.images(data), picker, steps)
    if _is(data, "tensorflow", "data.Dataset"):
        return _from_tf_data(data, picker, steps)
    if _is(data, "keras", "utils.PyDataset"):
        return _from_pydataset(data, picker, steps)
    if _is(data, "torch", "utils.data.DataLoader"):
        return Batches(lambda: picker.gather(iter(data), lists=True), picker.batch_count(_length(data)))
    if hasattr(data, "shape") and hasattr(data, "__getitem__"):
        return _from_array(data, picker)
    if isinstance(data, (list, tuple)) and not any(hasattr(item, "__len__") for item in data):
        return _from_array(np.asarray(data), picker)  # a list of numbers
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return Batches(lambda: picker.gather((data[i] for i in range(len(data))), samples=True))
    if hasattr(data, "__iter__"):
        once = iter(data) is data
        return Batches(lambda: picker.gather(iter(data)), picker.batch_count(_length(data)), once)
    if callable(data):
        return Batches(lambda: picker.gather(iter(data())))
    raise TypeError(
        f"An object of {type(data).__module__}.{type(data).__name__} is no source of images. Allowed: {ALLOWED}."
    )


def _is(data: Any, module: str, path: str) -> bool:
    """isinstance without an import: who never imported a library cannot have made an object of it."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return isinstance(found, type) and isinstance(data, found)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


def _from_array(data: Any, picker: _Picker) -> Batches:
    if hasattr(data, "iloc") or _is(data, "tensorflow", "RaggedTensor"):
        data = picker.numpy(data)
    if len(data.shape) == 0:
        raise TypeError(f"A single number (shape ()) is no source of images. Allowed: {ALLOWED}.")
    if isinstance(data, np.ndarray):
        check_dtype(data, "The data")
    picker.check_rank(len(data.shape), tuple(data.shape), batch_only=True)
    total = int(data.shape[0])
    size = picker.batch_size
    if size is None:
        itemsize = getattr(getattr(data, "dtype", None), "itemsize", 4)
        size = memory_sized(itemsize * math.prod(int(n) for n in data.shape[1:]))

    def read() -> Iterator[np.ndarray]:
        for start in range(0, total, size):
            yield picker.numpy(data[start : start + size])

    return Batches(read, math.ceil(total / size))


def memory_sized(image_bytes: int) -> int:
    """Images of so many bytes that make a batch of some 16 MB."""
    return max(1, BATCH_BYTES // max(1, image_bytes))


def _from_tf_data(data: Any, picker: _Picker, steps: int | None) -> Batches:
    spec = picker.images(data.element_spec)
    if not _is(spec, "tensorflow", "TensorSpec"):
        raise TypeError(
            f"The images of the dataset are {type(spec).__name__}s. Allowed: dense tensors; pad or resize ragged "
            f"ones, and name one entry of several with `key`."
        )
    cardinality = int(data.cardinality())
    if cardinality == -1 and steps is None:
        raise ValueError("The tf.data.Dataset has no end (it repeats). Give `steps`, the number of batches to read.")
    single = None
    if spec.shape.rank is not None:
        single = picker.is_single(tuple(spec.shape), open_first=spec.shape[0] is None if spec.shape.rank else False)
    length = cardinality if cardinality >= 0 else None
    return Batches(lambda: picker.gather(data.as_numpy_iterator(), single=single), None if single else length)


def _from_pydataset(data: Any, picker: _Picker, steps: int | None) -> Batches:
    count = data.num_batches
    if count is None and steps is None:
        raise ValueError("The PyDataset has no end (num_batches is None). Give `steps`, the number of batches to read.")
    numbers = range(count) if count is not None else itertools.count()
    return Batches(lambda: picker.gather((data[i] for i in numbers), single=False), count)


class _Picker:
    """Takes the images from elements and gathers single images into batches."""

    def __init__(self, rank: int | None, key: str | None, batch_size: int | None) -> None:
        self.rank = rank
        self.key = key
        self.batch_size = batch_size

    def images(self, element: Any, lists: bool = False) -> Any:
        """x of (x, y) and (x, y, weights), the right entry of a dictionary, anything else as it is."""
        if isinstance(element, tuple) or (lists and isinstance(element, list)):
            if not 1 <= len(element) <= 3:
                raise ValueError(f"An element must be x, (x, y) or (x, y, weights). Received {len(element)} parts.")
            element = element[0]
            if isinstance(element, (tuple, list)) and any(hasattr(part, "shape") for part in element):
                raise ValueError(
                    f"x consists of {len(element)} inputs. Allowed: one array of images, or a dictionary with `key`."
                )
        if not isinstance(element, Mapping):
            return element
        names = list(element)
        if self.key is not None:
            if self.key not in element:
                raise ValueError(f"The dictionary has the entries {names}. Received: key={self.key!r}")
            return element[self.key]
        for name in ("images", "image", "x"):
            if name in element:
                return element[name]
        if len(names) == 1:
            return element[names[0]]
        raise ValueError(f"The dictionary has the entries {names}; say with key= which of them holds the images.")

    def numpy(self, x: Any) -> np.ndarray:
        """``x`` as a NumPy array of numbers, from whichever library."""
        try:
            if _is(x, "torch", "Tensor"):
                x = x.detach().cpu()
                x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # exact; NumPy itself has no bfloat16
            if _is(x, "tensorflow", "RaggedTensor") or type(x).__name__ == "RaggedTensorValue":
                raise ValueError("it is a ragged tensor")
            array = np.asarray(x)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{type(x).__name__} cannot be read as an array of images ({error}). Allowed: {ALLOWED}; images of "
                f"different sizes only one at a time."
            ) from error
        check_dtype(array, f"An element of type {type(x).__name__}")
        return array

    def check_rank(self, rank: int, shape: tuple[Any, ...], batch_only: bool = False) -> None:
        """ValueError where the data does not have the layer's number of axes."""
        allowed = () if self.rank is None else (self.rank,) if batch_only else (self.rank, self.rank - 1)
        if allowed and rank not in allowed:
            hint = (
                " (one image is a batch of one: image[None])" if self.rank is not None and rank == self.rank - 1 else ""
            )
            raise ValueError(f"Images must come in batches of {self.rank} axes{hint}. Received the shape {shape}.")

    def is_single(self, shape: tuple[Any, ...], open_first: bool = False, samples: bool = False) -> bool:
        """Whether an element of this shape is one image and no batch; see the module's docstring."""
        if self.rank is not None:
            self.check_rank(len(shape), shape)
            return len(shape) == self.rank - 1
        if open_first:
            return False
        return samples or len(shape) < 2 or (len(shape) == 3 and shape[-1] in (1, 2, 3, 4))

    def batch_count(self, elements: int | None) -> int | None:
        """Number of batches in so many elements: known only where they need no gathering."""
        return elements if self.rank is None and self.batch_size is None else None

    def gather(
        self, elements: Iterable[Any], single: bool | None = None, samples: bool = False, lists: bool = False
    ) -> Iterator[np.ndarray]:
        """Batches from elements, each of them a batch or one image."""
        waiting: list[np.ndarray] = []
        for element in elements:
            x = self.numpy(self.images(element, lists))
            if not (self.is_single(x.shape, samples=samples) if single is None else single):
                if self.batch_size is not None:
                    raise ValueError(
                        f"The data comes in batches already (an element has the shape {x.shape}): leave out "
                        f"batch_size. Received: batch_size={self.batch_size}"
                    )
                yield x
                continue
            if waiting and x.shape != waiting[0].shape:
                yield np.stack(waiting)
                waiting = []
            waiting.append(x)
            if len(waiting) >= (self.batch_size or memory_sized(x.nbytes)):
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)
