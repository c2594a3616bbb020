"""How each kind of data is read: a class for arrays, one for elements, a function for each library of pipelines."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from keras_norm_layers.statistics.elements import ALLOWED, BATCH_BYTES, Picker, is_kind
from keras_norm_layers.statistics.moments import check_dtype
from keras_norm_layers.statistics.stream import Batches

# Chunks of a file above this many bytes are not kept together in a batch.
CHUNK_BYTES = 16 * BATCH_BYTES


class Sliced(Batches):
    """Anything with a shape and slices: arrays, tensors, memory maps, HDF5, Zarr."""

    def __init__(self, data: Any, picker: Picker) -> None:
        if hasattr(data, "iloc") or is_kind(data, "tensorflow", "RaggedTensor"):
            data = picker.numpy(data)
        if len(data.shape) == 0:
            raise TypeError(f"A single number (shape ()) is no source of images. Allowed: {ALLOWED}.")
        dtype = getattr(data, "dtype", None)
        if isinstance(dtype, np.dtype):
            check_dtype(data, "The data")
        picker.check_rank(len(data.shape), tuple(data.shape), batch_only=True)
        self._data, self._picker = data, picker
        self._total = int(data.shape[0])
        image_bytes = getattr(dtype, "itemsize", 4) * math.prod(int(n) for n in data.shape[1:])
        self._size = picker.size(image_bytes)
        if picker.batch_size is None:
            self._size = whole_chunks(self._size, data, image_bytes)
        length = math.ceil(self._total / self._size)
        super().__init__(lambda: self._enter(0), length, images=self._total, seek=self._enter)

    def _enter(self, start: int) -> Iterator[np.ndarray]:
        for first in range(start * self._size, self._total, self._size):
            yield self._picker.batch(self._data[first : first + self._size])

    def first_image(self, start: int) -> int:
        """Number of the first image of batch ``start``."""
        return start * self._size


def whole_chunks(size: int, data: Any, image_bytes: int) -> int:
    """About ``size`` images, a multiple of those that share a chunk of the file: no chunk is unpacked twice."""
    chunks = getattr(data, "shards", None) or getattr(data, "chunks", None)
    rows = chunks[0] if chunks else 1
    rows = rows[0] if isinstance(rows, tuple) else rows  # dask lists the size of each
    if not isinstance(rows, int) or rows < 1 or rows * image_bytes > CHUNK_BYTES:
        return size
    return max(1, size // rows) * rows


class Gathered(Batches):
    """Elements one by one, each a batch or one image; single images are gathered into batches of equal shapes.

    Args:
        picker: takes the images out of an element.
        elements: makes an iterable over the elements.
        count: number of elements; None where it is not known.
        length: number of batches, as far as it is known before the first element.
        single: whether an element is one image; None: its shape says.
        samples: True where elements are single images unless the rank says otherwise.
        lists: True where a list is a tuple (x, y).
        once: True when it can be read one time only.
        filtered: True where None stands for an element that was filtered out (grain).
        elements_from: makes an iterable over the elements from a number on, where elements are batches, or images of
            one shape.
        size: elements a batch, for ``elements_from``.
    """

    def __init__(
        self,
        picker: Picker,
        elements: Callable[[], Iterable[Any]],
        count: int | None = None,
        *,
        length: int | None = None,
        single: bool | None = None,
        samples: bool = False,
        lists: bool = False,
        once: bool = False,
        filtered: bool = False,
        elements_from: Callable[[int], Iterable[Any]] | None = None,
        size: int = 1,
    ) -> None:
        seek = None if elements_from is None else lambda start: self._gather(elements_from(start * size))
        super().__init__(lambda: self._gather(elements()), length, once, seek=seek)
        self._picker, self._count, self._size = picker, count, size
        self._single, self._samples, self._lists, self._filtered = single, samples, lists, filtered

    def expect(self, element: Any) -> None:
        """Takes from an element how many batches and images there will be, as far as the number of elements says it."""
        if self._count is None or (element is None and self._filtered):
            return
        x = self._picker.numpy(self._picker.images(element, self._lists))
        if self._is_single(x):
            self.images = self._count
            self.length = math.ceil(self._count / self._picker.size(x.nbytes))
        else:
            self.length = self._count

    def first_image(self, start: int) -> int | None:
        """Number of the first image of batch ``start``, where elements are images that can be entered anywhere."""
        return start * self._size if self._single and self._seek else super().first_image(start)

    def _gather(self, elements: Iterable[Any]) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        shape = None
        for number, element in enumerate(elements):
            if element is None and self._filtered:
                self.length = self.images = self._count = None
                continue
            if number == 0 and self.length is None:
                self.expect(element)
            x = self._picker.batch(self._picker.images(element, self._lists))
            single = self._is_single(x)
            x = self._picker.numpy(x) if single else x
            if single and shape not in (None, x.shape):
                self.length = None  # how many more such changes come, nobody knows
            if waiting and (not single or x.shape != shape):
                yield np.stack(waiting)
                waiting = []
            shape = x.shape
            if not single:
                yield x
                continue
            waiting.append(x)
            if len(waiting) >= self._picker.size(x.nbytes):
                yield np.stack(waiting)
                waiting = []
        if waiting:
            yield np.stack(waiting)

    def _is_single(self, x: np.ndarray) -> bool:
        single = self._picker.is_single(x.shape, samples=self._samples) if self._single is None else self._single
        if not single and self._picker.batch_size is not None:
            raise ValueError(
                f"The data comes in batches already (an element has the shape {x.shape}): leave out "
                f"batch_size. Received: batch_size={self._picker.batch_size}"
            )
        return single


def from_tf_data(data: Any, picker: Picker, steps: int | None) -> Batches:
    """A ``tf.data.Dataset``."""
    spec = picker.images(data.element_spec)
    if not is_kind(spec, "tensorflow", "TensorSpec"):
        raise TypeError(
            f"The images of the dataset are {type(spec).__name__}s. Allowed: dense tensors; pad or resize ragged "
            f"ones, and name one entry of several with `key`."
        )
    cardinality = int(data.cardinality())
    if cardinality == -1:
        check_steps("tf.data.Dataset", "it repeats", steps)
    count = cardinality if cardinality >= 0 else None
    if spec.shape.rank is None:
        return Gathered(picker, data.as_numpy_iterator, count)
    shape = tuple(spec.shape)
    single = picker.is_single(shape, open_first=bool(shape) and shape[0] is None)
    if single and None in shape:  # so images may differ in size, and their batches in length
        return Gathered(picker, data.as_numpy_iterator, count, single=True)
    size = picker.size(spec.dtype.size * math.prod(shape)) if single else 1
    length = None if count is None else math.ceil(count / size)
    source = Gathered(
        picker,
        data.as_numpy_iterator,
        count,
        length=length,
        single=single,
        elements_from=lambda number: data.skip(number).as_numpy_iterator(),
        size=size,
    )
    source.images = count if single else None
    return source


def from_pydataset(data: Any, picker: Picker, steps: int | None) -> Batches:
    """A ``keras.utils.PyDataset``."""
    count = data.num_batches
    if count is None:
        check_steps("PyDataset", "num_batches is None", steps)

    def elements(start: int = 0) -> Iterator[Any]:
        return (data[i] for i in (itertools.count(start) if count is None else range(start, count)))

    return Gathered(picker, elements, count, length=count, single=False, elements_from=elements)


def from_data_loader(data: Any, picker: Picker) -> Batches:
    """A torch ``DataLoader``."""
    count = length_of(data)
    gathers = data.batch_size is not None or data.batch_sampler is not None
    return Gathered(picker, lambda: data, count, length=count if gathers else None, lists=True)


def from_grain(data: Any, picker: Picker, steps: int | None) -> Batches:
    """A ``grain.MapDataset``; element by element, for grain's own iterator reads hundreds of them ahead."""
    count = len(data)
    if count == sys.maxsize:
        check_steps("grain.MapDataset", "it repeats", steps)
        return Gathered(picker, lambda: map(data.__getitem__, itertools.count()), filtered=True)
    return indexed(data, count, picker, filtered=True)


def indexed(data: Any, count: int, picker: Picker, **options: Any) -> Batches:
    """A list, a torch dataset or the like, of ``count`` elements; the first one is read here, for the length."""
    source = Gathered(picker, lambda: (data[i] for i in range(count)), count, **options)
    if count:
        source.expect(data[0])
    return source


def check_steps(kind: str, reason: str, steps: int | None) -> None:
    """ValueError for data without end, unless it is said how much of it to read."""
    if steps is None:
        raise ValueError(f"The {kind} has no end ({reason}). Give `steps`, the number of batches to read.")


def length_of(data: Any) -> int | None:
    """``len(data)``, or None where it has none."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None
