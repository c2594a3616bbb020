"""Folders of image files -> batches of uint8, decoded by Pillow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from keras_norm_layers.statistics import decoding
from keras_norm_layers.statistics.decoding import CHANNELS, EXTENSIONS, MODES, THREADS
from keras_norm_layers.statistics.elements import Picker
from keras_norm_layers.statistics.stream import Batches, Take


class Folder(Batches):
    """All image files beneath a folder, in the order of their paths.

    The first image says whether images are gray (1 channel), colour (3) or colour with alpha (4). Those after it may
    have less, for that loses nothing: gray becomes colour. Images of one size that follow each other make batches.
    They come upright, as feeds give them: turned as the camera's orientation tag says.

    Args:
        folder: its path.
        picker: says how large batches are.

    Raises:
        FileNotFoundError: for a folder without images.
        ImportError: without Pillow.
        ValueError: for a file that cannot be read, has more channels than the first, or more than 8 bits a value.
    """

    def __init__(self, folder: str, picker: Picker) -> None:
        decoding.pillow("Folders of images are read", "viz")
        self._paths = image_files(folder)
        self._picker = picker
        self._mode = header(self._paths[0])[2]
        self._shape = self._shape_of(self._paths[0])
        picker.check_rank(1 + len(self._shape), (None, *self._shape), batch_only=True)
        total = len(self._paths)
        length = math.ceil(total / self._size_of(self._shape))
        super().__init__(lambda: self._enter(0), length, images=total, seek=self._enter)

    def _enter(self, start: int) -> Iterator[np.ndarray]:
        return self.sampled(start, lambda first, count: np.ones(count, bool))

    def sampled(self, start: int, take: Take) -> Iterator[np.ndarray]:
        """As for all batches; of images that are not taken, the size is read and nothing more."""
        with ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes without Python's lock
            for number, (first, count, shape) in enumerate(self._groups()):
                if number < start:
                    continue
                paths = [self._paths[first + i] for i in np.flatnonzero(take(first, count))]
                images = list(pool.map(lambda path: decode(path, self._mode), paths))
                yield np.stack(images) if images else np.empty((0, *shape), "uint8")

    def _groups(self) -> Iterator[tuple[int, int, tuple[int, ...]]]:
        """For each batch the number of its first image, how many it has and their shape."""
        first, shape = 0, self._shape
        for number, path in enumerate(self._paths):
            given = self._shape_of(path)
            if given != shape:
                self._length = None  # how many more such changes come, nobody knows
                if number > first:
                    yield first, number - first, shape
                first, shape = number, given
            if number + 1 - first >= self._size_of(shape):
                yield first, number + 1 - first, shape
                first = number + 1
        if first < len(self._paths):
            yield first, len(self._paths) - first, shape

    def _shape_of(self, path: str) -> tuple[int, ...]:
        height, width, _ = header(path, self._mode)
        return height, width, CHANNELS[self._mode]

    def _size_of(self, shape: tuple[int, ...]) -> int:
        return self._picker.size(math.prod(shape))


def image_files(folder: str) -> list[str]:
    """The paths of all image files beneath a folder, sorted; hidden files and folders are left out."""
    found = []
    above: dict[str, frozenset[str]] = {}  # for each folder those that it lies in, links resolved
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        lies_in = above.get(root, frozenset())
        here = os.path.realpath(root)
        folders[:] = [name for name in folders if not name.startswith(".") and here not in lies_in]
        if here in lies_in:  # a link to a folder above it
            continue
        above.update((os.path.join(root, name), lies_in | {here}) for name in folders)
        found += [os.path.join(root, name) for name in files if _is_image(name)]
    if not found:
        raise FileNotFoundError(
            f"There is no image in the folder {folder!r} or beneath it. Allowed: files whose names end in "
            f"{', '.join(EXTENSIONS)}; hidden files and folders do not count."
        )
    return sorted(found)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _raise(error: OSError) -> None:
    raise error


def _opened(path: str) -> AbstractContextManager[Any]:
    """The file opened by Pillow. Whatever Pillow says of a broken one becomes a ValueError that names it."""

    def failed(error: Exception) -> Exception:
        return ValueError(f"The image file {path!r} cannot be read ({error}). Repair it, or move it out of the folder.")

    return decoding.opened(path, failed)


def header(path: str, mode: str | None = None) -> tuple[int, int, str]:
    """Height, width and "L", "RGB" or "RGBA" of the image in a file; ValueError where it would lose as ``mode``."""
    with _opened(path) as image:
        height, width = decoding.seen_size(image, decoding.turn_of(image))
        name, given = image.mode, MODES.get(image.mode)
        if name == "P" and "transparency" in image.info:
            given = "RGBA"
        deep, stored = decoding.is_deep(image), [(codec, args) for codec, _, _, args in image.tile]
    if given is None or deep:
        raise ValueError(
            f"The image file {path!r} is no gray, RGB or RGBA image of 8 bits a value (Pillow's mode {name}, stored as "
            f"{stored}). Convert it, or give a function that makes an iterator over the images as you read them."
        )
    if mode is not None and CHANNELS[given] > CHANNELS[mode]:
        raise ValueError(
            f"The image file {path!r} has {CHANNELS[given]} channels ({given}), the first of the folder "
            f"{CHANNELS[mode]} ({mode}). Convert it, or give a function that makes an iterator over the images as you "
            f"read them."
        )
    return height, width, given


def decode(path: str, mode: str) -> np.ndarray:
    """The image in a file, upright, uint8 of the shape (height, width, channels)."""
    with _opened(path) as image:
        turn = decoding.turn_of(image)  # before the pixels are read
        return decoding.with_channels(np.asarray(decoding.turned(image.convert(mode), turn)))
