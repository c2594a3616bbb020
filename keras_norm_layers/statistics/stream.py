"""Batches of images: what every source of data is turned into. They can be counted, entered in the middle, sampled."""

from __future__ import annotations

import itertools
import numbers
import warnings
from collections.abc import Callable, Iterator

import numpy as np

Take = Callable[[int, int], np.ndarray]


class Batches:
    """Batches of images as NumPy arrays; iterate over it.

    Args:
        read: makes an iterator over all batches.
        length: number of batches; None where it is not known.
        once: True when the source can be read one time only.
        images: number of images; None where it is not known.
        seek: makes an iterator over the batches from a number on; None where only reading leads there.

    Attributes:
        length: number of batches, or None where it is not known. Some sources know it only once their first batch is
            read, and some find out later that they were wrong (images of different sizes): ask again.
        images: number of images, or None where it is not known.
        once: True when the source can be read one time only (a generator).
        seed: what decides which images a sample takes; None where all are taken.
    """

    seed: int | None = None

    def __init__(
        self,
        read: Callable[[], Iterator[np.ndarray]],
        length: int | None = None,
        once: bool = False,
        images: int | None = None,
        seek: Callable[[int], Iterator[np.ndarray]] | None = None,
    ) -> None:
        self._read, self._seek = read, seek
        self._length = length
        self.once = once
        self.images = images

    @property
    def length(self) -> int | None:
        """Number of batches, or None where it is not known."""
        return self._current_length()

    @length.setter
    def length(self, value: int | None) -> None:
        self._length = value

    def _current_length(self) -> int | None:
        return self._length

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[np.ndarray]:
        """The batches from number ``start`` on, the same as ``list(batches)[start:]``.

        Arrays, HDF5, Zarr, ``.npy`` files, folders, ``PyDataset`` and most ``tf.data`` datasets go to that batch;
        others are read from their beginning, and what comes before it is dropped.
        """
        if isinstance(start, bool) or not isinstance(start, numbers.Integral) or start < 0:
            raise ValueError(f"`start` must be the number of a batch, 0 or more. Received: start={start!r}")
        if start == 0:
            return self._read()
        return itertools.islice(self._read(), int(start), None) if self._seek is None else self._seek(int(start))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Batches:
        """The same batches with a function applied to each."""
        return Mapped(self, function)

    def first_image(self, start: int) -> int | None:
        """Number of the first image of batch ``start``, or None where only reading would tell."""
        return None if start else 0

    def sampled(self, start: int, take: Take) -> Iterator[np.ndarray]:
        """The batches from ``start`` on, of each the images that ``take(number of the first, how many)`` says."""
        image = self.first_image(start)
        if image is None:  # the images before have to be counted
            image, first_batch = 0, 0
        else:
            first_batch = start
        for number, batch in enumerate(self.iterate(first_batch), first_batch):
            if number >= start:
                yield batch[take(image, len(batch))]
            image += len(batch)


class _Wrapped(Batches):
    """Batches made of other batches."""

    def __init__(self, source: Batches) -> None:
        super().__init__(lambda: self._enter(0), once=source.once, images=source.images, seek=self._enter)
        self._source = source
        self.seed = source.seed

    def _current_length(self) -> int | None:
        return self._source.length

    def _enter(self, start: int) -> Iterator[np.ndarray]:
        """The batches from ``start`` on."""
        raise NotImplementedError

    def first_image(self, start: int) -> int | None:
        """As for the source."""
        return self._source.first_image(start)


class Mapped(_Wrapped):
    """The batches of a source with a function applied to each."""

    def __init__(self, source: Batches, function: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(source)
        self._function = function

    def _enter(self, start: int) -> Iterator[np.ndarray]:
        return (self._function(batch) for batch in self._source.iterate(start))


class Limited(_Wrapped):
    """The first batches of a source; a warning where it has fewer."""

    def __init__(self, source: Batches, steps: int) -> None:
        super().__init__(source)
        self._steps = steps
        self.images = None

    def _current_length(self) -> int | None:
        return self._steps if self._source.length is None else min(self._steps, self._source.length)

    def _enter(self, start: int) -> Iterator[np.ndarray]:
        return self._counted(start, self._source.iterate(start))

    def sampled(self, start: int, take: Take) -> Iterator[np.ndarray]:
        """As for the source, no more than the first batches."""
        return self._counted(start, self._source.sampled(start, take))

    def _counted(self, start: int, read: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        done = start
        for batch in itertools.islice(read, max(0, self._steps - start)):
            yield batch
            done += 1
        if done < self._steps:
            warnings.warn(f"steps={self._steps} batches were asked for, and the data ended after {done}.", stacklevel=3)


class Sampled(_Wrapped):
    """A random share of the images of each batch; a batch of which none is taken is empty.

    Args:
        source: the batches.
        sample: the probability with which an image is taken.
        seed: decides, with an image's number and nothing else, whether it is taken.
    """

    def __init__(self, source: Batches, sample: float, seed: int) -> None:
        super().__init__(source)
        self._sample, self.seed = sample, seed
        self.images = None

    def _enter(self, start: int) -> Iterator[np.ndarray]:
        return self._source.sampled(start, lambda first, count: taken(first, count, self._sample, self.seed or 0))

    def first_image(self, start: int) -> int | None:
        """How many were taken before is not known."""
        return None if start else 0


def taken(first: int, count: int, sample: float, seed: int) -> np.ndarray:
    """Which of ``count`` images, from number ``first`` on, a sample takes: (count,) booleans.

    Example:
        >>> taken(0, 8, 0.5, seed=1)[3:].tolist() == taken(3, 5, 0.5, seed=1).tolist()
        True
    """
    skipped = first % 4  # Philox (Salmon et al. 2011) gives four numbers for each value of its counter
    bits = np.random.Philox(key=seed, counter=first // 4).random_raw(skipped + count)[skipped:]
    return (bits >> np.uint64(11)) * 2.0**-53 < sample
