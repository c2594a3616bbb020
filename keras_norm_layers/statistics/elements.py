"""One element of a source -> its images as a NumPy array: which part of it they are, and whether one or a batch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_norm_layers.kernels import reduce
from keras_norm_layers.statistics.moments import check_dtype

BATCH_BYTES = 1 << 24
ALLOWED = (
    "a NumPy array, a memory map or anything else with a shape and slices (HDF5, Zarr), a tensor, a list of images, "
    "a tf.data.Dataset, a keras.utils.PyDataset, a torch DataLoader or dataset, a grain dataset, a generator or "
    "another iterable of batches, a function that makes an iterator, or the path of a .npy file or a folder of images"
)


def is_kind(data: Any, module: str, path: str) -> bool:
    """isinstance without an import: who never imported a library cannot have made an object of it."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    return isinstance(found, type) and isinstance(data, found)


def memory_sized(image_bytes: int) -> int:
    """Images of so many bytes that make a batch of some 16 MB."""
    return max(1, BATCH_BYTES // max(1, image_bytes))


class Picker:
    """Takes the images from elements.

    Args:
        rank: axes of a batch, where it is known.
        key: the entry of a dictionary that holds the images.
        batch_size: images a batch; None for a size by memory.
        tensors: whether batches of integers on an accelerator may stay there.
    """

    def __init__(self, rank: int | None, key: str | None, batch_size: int | None, tensors: bool = False) -> None:
        self.rank = rank
        self.tensors = tensors
        self.key = key
        self.batch_size = batch_size

    def size(self, image_bytes: int) -> int:
        """Images a batch, for images of so many bytes."""
        return self.batch_size or memory_sized(image_bytes)

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

    def batch(self, x: Any) -> Any:
        """``x`` as a NumPy array, or as the tensor that it is where it may stay on its device."""
        return x if self.tensors and reduce.takes(x) else self.numpy(x)

    def numpy(self, x: Any) -> np.ndarray:
        """``x`` as a NumPy array of numbers, from whichever library."""
        try:
            if is_kind(x, "torch", "Tensor"):
                x = x.detach().cpu()
                x = x.float() if str(x.dtype) == "torch.bfloat16" else x  # exact; NumPy itself has no bfloat16
            if is_kind(x, "tensorflow", "RaggedTensor") or type(x).__name__ == "RaggedTensorValue":
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
        """Whether an element of this shape is one image and no batch; see ``sources``."""
        if self.rank is not None:
            self.check_rank(len(shape), shape)
            return len(shape) == self.rank - 1
        if open_first:
            return False
        return samples or len(shape) < 2 or (len(shape) == 3 and shape[-1] in (1, 2, 3, 4))
