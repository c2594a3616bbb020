"""Any source of images -> batches of NumPy arrays.

What is an image and what is a batch? An array is a batch along its first axis, always. An element of a
``tf.data.Dataset``, a generator or another iterable is a batch when it has the rank a layer takes (``rank``), and one
image when it has an axis less. Where no rank is known: an element is one image if it has three axes, the last of them
of size 1 to 4 (and a dataset does not leave the first one open), or fewer than two axes; everything else is a batch.
The elements of a list and of a torch dataset are images, unless the rank says that they are batches. Single images are
gathered into batches of equal shapes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_norm_layers.statistics import readers
from keras_norm_layers.statistics.elements import ALLOWED, Picker, is_kind
from keras_norm_layers.statistics.folders import Folder
from keras_norm_layers.statistics.stream import Batches, Limited, Sampled

__all__ = ["Batches", "batches"]


def batches(
    data: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    rank: int | None = None,
    key: str | None = None,
    sample: float | None = None,
    seed: int | None = None,
    tensors: bool = False,
) -> Batches:
    """The images of ``data`` in batches.

    Args:
        data: NumPy arrays, memory maps and anything with a shape and slices (HDF5 datasets, Zarr arrays), tensors of
            TensorFlow, JAX or torch, lists of images, ``tf.data.Dataset``, ``keras.utils.PyDataset``, torch
            ``DataLoader`` (or a torch dataset), grain ``MapDataset``, ``IterDataset`` or ``DataLoader``, generators and
            other iterables, functions that return an iterator; the path of a ``.npy`` file (read as a memory map) or of
            a folder of images (``folders.Folder``). Of (x, y) and (x, y, weights) the x is taken; of a dictionary, an
            HDF5 file or a Zarr group the entry ``key``, else "images", "image" or "x", else the only one.
        batch_size: images a batch, for arrays and for sources of single images. Default: some 16 MB, in files whole
            chunks.
        steps: batches to read; needed where the source has no end. Default: all.
        rank: axes of a batch, where it is known; see this module's docstring.
        key: the entry of a dictionary that holds the images.
        sample: the share of the images to take, above 0 and at most 1. Each image is taken with this probability, as
            its number and ``seed`` decide, so it does not depend on the size of batches. ``steps`` counts the batches
            that are read; of each, those images go on that the sample takes, which may be none. Default: all.
        seed: decides which images a sample takes: an integer in [0, 2**31). None (default): a random one
            (``keras.utils.set_random_seed`` decides it).
        tensors: True leaves batches that are tensors of integers on an accelerator as they are; they come as NumPy
            arrays otherwise, and always where a sample is taken.

    Raises:
        FileNotFoundError: for the path of nothing, and for a folder without images.
        TypeError: for what is no source of images.
        ValueError: for a source without end and without ``steps``, a ``batch_size`` for a source that has batches, a
            dictionary without a known entry, images of another rank, a file of another kind.

    Example:
        >>> import numpy as np
        >>> source = batches(np.zeros((10, 8, 8, 3)), batch_size=4)
        >>> source.length, source.images, [len(batch) for batch in source], len(next(source.iterate(start=2)))
        (3, 10, [4, 4, 2], 2)
        >>> [len(batch) for batch in batches(np.zeros((10, 8, 8, 3)), batch_size=4, sample=0.5, seed=1)]
        [3, 2, 2]
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise ValueError(f"`{name}` must be a positive integer or None. Received: {name}={value!r}")
    _check_sample(sample, seed)
    if isinstance(data, Batches):
        if batch_size is not None:
            raise ValueError(f"The data is in batches already: leave out batch_size. Received: batch_size={batch_size}")
        source = data
    else:
        source = _source(data, Picker(rank, key, batch_size, tensors and sample is None), steps)
    source = source if steps is None else Limited(source, int(steps))
    if sample is None:
        return source
    return Sampled(source, float(sample), random.randrange(2**31) if seed is None else int(seed))


def _check_sample(sample: Any, seed: Any) -> None:
    real = isinstance(sample, (int, float, np.integer, np.floating)) and not isinstance(sample, bool)
    if sample is not None and not (real and 0 < sample <= 1):
        raise ValueError(
            f"`sample` must be a share of the images, above 0 and at most 1, or None. Received: sample={sample!r}"
        )
    whole = isinstance(seed, (int, np.integer)) and not isinstance(seed, bool)
    if seed is not None and not (whole and 0 <= seed < 2**31):
        raise ValueError(f"`seed` must be an integer in [0, 2**31) or None. Received: seed={seed!r}")


def _source(data: Any, picker: Picker, steps: int | None) -> Batches:
    if isinstance(data, (str, os.PathLike)):
        return _from_path(os.fspath(data), picker)
    if data is None or isinstance(data, (bytes, bool, int, float, complex, np.generic)):
        raise TypeError(f"{type(data).__name__} {data!r:.80} is no source of images. Allowed: {ALLOWED}.")
    if is_kind(data, "zarr", "Group"):
        data = dict(data.arrays())
    if isinstance(data, Mapping) or (isinstance(data, tuple) and 1 <= len(data) <= 3):
        return _source(picker.images(data), picker, steps)
    if is_kind(data, "tensorflow", "data.Dataset"):
        return readers.from_tf_data(data, picker, steps)
    if is_kind(data, "keras", "utils.PyDataset"):
        return readers.from_pydataset(data, picker, steps)
    if is_kind(data, "torch", "utils.data.DataLoader"):
        return readers.from_data_loader(data, picker)
    if is_kind(data, "grain", "MapDataset"):
        return readers.from_grain(data, picker, steps)
    if is_kind(data, "h5py", "Dataset") and not data:
        raise ValueError("The HDF5 dataset belongs to a file that is closed. Keep it open while its images are read.")
    if hasattr(data, "shape") and hasattr(data, "__getitem__"):
        return readers.Sliced(data, picker)
    if isinstance(data, (list, tuple)) and not any(hasattr(item, "__len__") for item in data):
        return readers.Sliced(np.asarray(data), picker)  # a list of numbers
    return _from_elements(data, picker)


def _from_elements(data: Any, picker: Picker) -> Batches:
    """Lists, torch datasets, generators, functions: what gives elements one by one."""
    holds_elements = not isinstance(data, type) and (hasattr(data, "__iter__") or hasattr(data, "__getitem__"))
    if callable(data) and not holds_elements:
        return readers.Gathered(picker, lambda: _called(data))
    streamed = is_kind(data, "torch", "utils.data.IterableDataset")  # its __getitem__ is there only to raise
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not streamed:
        return readers.indexed(data, len(data), picker, samples=True)
    if hasattr(data, "__iter__"):
        return readers.Gathered(picker, lambda: data, readers.length_of(data), once=isinstance(data, Iterator))
    raise TypeError(
        f"An object of {type(data).__module__}.{type(data).__name__} is no source of images. Allowed: {ALLOWED}."
    )


def _called(function: Any) -> Any:
    """What a function returns, if it can be iterated over."""
    result = function()
    if not hasattr(result, "__iter__"):
        raise TypeError(
            f"A function given as data must return an iterator over images. {function!r} returned: {result!r:.80}"
        )
    return result


def _from_path(path: Any, picker: Picker) -> Batches:
    """A ``.npy`` file or a folder of images."""
    if not isinstance(path, str):
        raise TypeError(f"A path must be a str, not {type(path).__name__}. Received: {path!r}")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file or folder {path!r} to read images from. Allowed: {ALLOWED}.")
    if os.path.isdir(path):
        if any(os.path.exists(os.path.join(path, name)) for name in ("zarr.json", ".zarray", ".zgroup")):
            raise ValueError(f"{path!r} is a Zarr store and no folder of images: give zarr.open({path!r}, mode='r').")
        return Folder(path, picker)
    ending = os.path.splitext(path)[1].lower()
    if ending == ".npy":
        try:
            return readers.Sliced(np.load(path, mmap_mode="r"), picker)
        except (ValueError, EOFError) as error:
            raise ValueError(f"The file {path!r} cannot be read as an array of images ({error}).") from error
    ways = {
        ".npz": f"np.load({path!r})['images'], which takes the memory of all of it; .npy files are read in pieces",
        **dict.fromkeys((".h5", ".hdf5"), f"h5py.File({path!r})['images']"),
    }
    way = ways.get(ending, "an array, a dataset or a function that makes an iterator over the images as you read them")
    raise ValueError(f"The file {path!r} is neither a .npy file nor a folder of images. Instead give {way}.")
