"""Columns of images, one kind a place where images are: files, arrays, HDF5 files. Read by number, picklable."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_norm_layers.data import images, places
from keras_norm_layers.data.images import Format, ImageError, Window
from keras_norm_layers.statistics import decoding


class Stored(NamedTuple):
    """An image as it is stored: its size in pixels, channels, frames, and the orientation noted, 1 for upright."""

    height: int
    width: int
    channels: int
    frames: int = 1
    orientation: int = 1


class Column(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What an image is called in errors and lists."""

    def load(self, number: int, how: Format) -> tuple[np.ndarray, Window]:
        """An image (H, W, C) and where its pixels went; ``ImageError`` for one that is broken."""

    def load_mask(self, number: int, how: Format) -> tuple[np.ndarray, Window]:
        """An image as a mask (H, W, 1), and where its pixels went."""

    def inspect(self, number: int) -> tuple[Stored, bytes]:
        """What is stored, every pixel read; and what the same images have in common."""


class Files:
    """Image files; ``paths`` are local, or addresses."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        return self.paths[number]

    def load(self, number: int, how: Format) -> tuple[np.ndarray, Window]:
        path = self.paths[number]
        with places.stream(path) as file:
            return images.load(file, path, how)

    def load_mask(self, number: int, how: Format) -> tuple[np.ndarray, Window]:
        path = self.paths[number]
        with places.stream(path) as file:
            return images.load_mask(file, path, how)

    def inspect(self, number: int) -> tuple[Stored, bytes]:
        path = self.paths[number]
        content = places.read(path)
        with images.opened(io.BytesIO(content), path) as image:
            frames, orientation = decoding.frames(image), decoding.orientation(image)
            image.seek(0)
            image.load()
            return Stored(image.height, image.width, len(image.getbands()), frames, orientation), content


class Arrays:
    """Images in memory, or in a memory map: anything with a length and elements (H, W) or (H, W, C).

    Args:
        arrays: the images; or the path of a ``.npy`` file, which is mapped into memory, by each process for itself.
        kind: what they are called.
    """

    def __init__(self, arrays: Any, kind: str = "image") -> None:
        self.kind = kind
        self.path = os.fspath(arrays) if isinstance(arrays, (str, os.PathLike)) else None
        self.arrays = _mapped(self.path) if self.path is not None else arrays

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": self.path, "arrays": None if self.path else self.arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        if self.path:
            self.arrays = _mapped(self.path)

    def __len__(self) -> int:
        return len(self.arrays)

    def name(self, number: int) -> str:
        return f"{self.kind} number {number}"

    def load(self, number: int, how: Format) -> tuple[np.ndarray, Window]:
        return images.fit(self.arrays[number], self.name(number), how)

    def load_mask(self, number: int, how: Format) -> tuple[np.ndarray, Window]:
        return images.fit(self.arrays[number], self.name(number), how, mask=True)

    def inspect(self, number: int) -> tuple[Stored, bytes]:
        array = self.load(number, Format())[0]
        return Stored(*array.shape), f"{array.dtype} {array.shape} ".encode() + array.tobytes()


class InHdf5(Arrays):
    """Images in an HDF5 file, which each process opens for itself.

    Args:
        path: of the file.
        places: for each image the name of its dataset, and its row there (None: the dataset is the image).
    """

    def __init__(self, path: str, places: list[tuple[str, int | None]], kind: str = "image") -> None:
        self.kind, self.path, self.places = kind, path, places
        self._open: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": self.path, "places": self.places, "_open": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state

    def __len__(self) -> int:
        return len(self.places)

    def name(self, number: int) -> str:
        dataset, row = self.places[number]
        return f"{self.path}:{dataset}" + ("" if row is None else f"[{row}]")

    @property
    def arrays(self) -> Any:  # type: ignore[override]
        """The images by number."""
        return self

    def __getitem__(self, number: int) -> np.ndarray:
        dataset, row = self.places[number]
        try:
            return self._file()[dataset][() if row is None else row]
        except (OSError, KeyError) as error:
            raise ImageError(self.name(number), f"cannot be read: {error}") from error

    def _file(self) -> Any:
        if self._open is None or self._open[0] != os.getpid():  # an open file does not survive a fork
            self._open = (os.getpid(), h5py().File(self.path, "r"))
        return self._open[1]


def h5py() -> Any:
    """The library for HDF5."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "HDF5 files are read by h5py, which is not installed: pip install keras-norm-layers[data]"
        ) from error
    return h5py


def _mapped(path: str) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"data: {path!r} cannot be read as a .npy file of numbers: {error}") from error


def as_column(data: Any, kind: str) -> Column:
    """Arrays, or a list of paths, as a column."""
    if isinstance(data, Sequence) and not isinstance(data, str) and data and isinstance(data[0], (str, os.PathLike)):
        return Files([os.fspath(path) for path in data])
    return Arrays(data, kind)
