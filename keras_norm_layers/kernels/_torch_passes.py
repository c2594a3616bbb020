"""How a pass runs on torch: eagerly or compiled, a group of images at a time, in memory that is cheap to get."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch

# Below this many values a batch costs less in eager torch than the compiler's start does over a whole training.
COMPILE_FROM = {"cpu": 1 << 22}
COMPILE_ELSEWHERE_FROM = 1 << 20
GROUP = 5 << 18  # values: 8 images of 224 x 224 x 3, whose float32 numbers stay in the cache of a processor
HUGE = 1 << 20  # bytes: from here on an array is worth pages of its own
_passes = itertools.count()


def new_like(x: Any, rows: int | None = None) -> Any:
    """A new tensor with the dtype, the shape and the order of axes of ``x``; with ``rows``, so many on the first axis.

    Large ones on a CPU in memory from NumPy, which asks the system for huge pages: in the usual ones, of 4 KB, to get
    memory takes longer than the arithmetic that fills it.
    """
    shape = (x.shape[0] if rows is None else rows, *x.shape[1:])
    order = sorted(range(x.ndim), key=lambda axis: x.stride(axis), reverse=True)
    if x.ndim and order[0] != 0:
        order = list(range(x.ndim))
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.uint8, torch.int32)
    sizes = [shape[axis] for axis in order]
    if plain and x.element_size() * int(np.prod(sizes)) >= HUGE:
        new = torch.from_numpy(np.empty(sizes, str(x.dtype).removeprefix("torch.")))
    else:
        new = torch.empty(sizes, dtype=x.dtype, device=x.device)
    return new.permute(*(order.index(axis) for axis in range(x.ndim)))


def groups(images: Any) -> list[int]:
    """Where groups of images begin that are worth a pass each; none, if all are to be done at once.

    Compiled on a CPU: what lies between the steps of a pass then stays in the cache, where eager code would spend the
    gain on its many small steps. All groups are of one size, so that one compiled program serves them; the last one may
    begin before the end of the one before it.
    """
    count, size = images.shape[0], _group_size(images)
    if images.device.type != "cpu" or count <= size or images.requires_grad or torch.compiler.is_compiling():
        return []
    return [*range(0, count - size, size), count - size] if _compiler_wanted((images,), None) else []


def _group_size(images: Any) -> int:
    return max(1, GROUP // max(1, images.shape[1:].numel()))


def in_groups(run: Callable[..., Any], starts: list[int], data: Any, u: Any, strength: Any) -> Any:
    """``run(data, u, strength)`` by groups of images that begin at ``starts``: the same result for each image."""
    size = _group_size(data["images"])
    whole: list[Any] = []
    for start in starts:
        here = slice(start, start + size)
        part = keras.tree.map_structure(lambda x, here=here: x[here], data)
        part = run(part, u[here], strength, values=data["images"].numel())
        leaves = keras.tree.flatten(part)
        whole = whole or [new_like(leaf, len(u)) for leaf in leaves]
        for leaf, target in zip(leaves, whole):
            target[here] = leaf
    return keras.tree.pack_sequence_as(part, whole)


def _compiler_wanted(args: tuple[Any, ...], values: int | None) -> bool:
    """The environment variable KERAS_NORM_LAYERS_TORCH_COMPILE says "1", "0" or, by default, "auto": for large batches,
    of which ``args`` are a part if ``values`` says how large they are; on a CPU where there is a compiler for it.
    """
    wish = os.environ.get("KERAS_NORM_LAYERS_TORCH_COMPILE", "auto")
    if wish != "auto":
        return wish == "1"
    tensors = [leaf for leaf in keras.tree.flatten(args) if isinstance(leaf, torch.Tensor)]
    largest = max(tensors, key=torch.Tensor.numel)
    device = largest.device.type
    if (values or largest.numel()) < COMPILE_FROM.get(device, COMPILE_ELSEWHERE_FROM):
        return False
    return device != "cpu" or _cpu_compiles()


@functools.cache
def _cpu_compiles() -> bool:
    """Whether torch would find a C++ compiler; not in a worker process, which would spend its time on it."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return multiprocessing.parent_process() is None and any(shutil.which(name) for name in names if name)


def _of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` behind code of its own: torch counts compilations by the code, gives up after eight, and takes for
    variable what differs from one to the next.
    """

    def call(*args: Any) -> Any:
        return function(*args)

    call.__code__ = call.__code__.replace(co_name=f"one_pass_{next(_passes)}")
    return call


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under ``torch.compile`` where ``_compiler_wanted``; eager elsewhere, and where that fails."""
    cache: list[Callable[..., Any]] = []

    def call(*args: Any, values: int | None = None) -> Any:
        if torch.compiler.is_compiling() or not _compiler_wanted(args, values):
            return function(*args)
        try:
            if not cache:
                cache.append(torch.compile(_of_its_own(function), fullgraph=True))  # pieces would be slower than eager
            return cache[0](*args)
        except Exception as error:  # the compiler raises whatever its parts raise: no C++ compiler, no Triton, ...
            result = function(*args)  # an error of the function itself is raised here, as it is
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"torch.compile failed ({first_line}); random transforms run eagerly.", stacklevel=2)
            cache[:] = [function]
            return result

    return call
