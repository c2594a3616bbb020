"""How a pass runs on torch: eagerly or compiled, a group of images at a time, in memory that is cheap to get."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import multiprocessing
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import keras
import numpy as np
import torch

from keras_norm_layers.kernels import memory

# Below this many values a batch costs less in eager torch than the compiler's start does over a whole training.
COMPILE_FROM = {"cpu": 1 << 22}
COMPILE_ELSEWHERE_FROM = 1 << 20
GROUP = 5 << 16  # values: 2 images of 224 x 224 x 3, whose float32 numbers stay in the cache of a core
LARGEST_KEPT = (32 << 20) - (16 << 10)  # bytes, with which a block of the C library stays below 32 MB
SHAPES = 8  # so many shapes of a batch get a program of their own
# A program for one thread, which leaves Python's lock to the others while it runs. It is chosen by its shapes alone: to
# look at all that its code has read besides would take as long as a quarter of the pass. Older torch always looks.
_SHAPES_DECIDE = getattr(torch.compiler, "keep_tensor_guards_unsafe", None)
ONE_THREAD = {"cpp.threads": 1, "cpp_wrapper": True, "guard_filter_fn": _SHAPES_DECIDE}
_passes = itertools.count()


def stored_order(x: Any) -> list[int]:
    """The axes of a tensor in the order in which it lies in memory, the widest steps first."""
    return sorted(range(x.ndim), key=lambda axis: x.stride(axis), reverse=True)


def new_like(x: Any, rows: int | None = None, dtype: Any = None) -> Any:
    """A new tensor with the shape and the order of axes of ``x``, and its dtype, if no other is given; with ``rows``,
    so many on the first axis.

    Large ones on a CPU in memory that was used before, or that NumPy got, which asks the system for huge pages: in new
    ones of 4 KB, to get memory takes longer than the arithmetic that fills it.
    """
    shape = (x.shape[0] if rows is None else rows, *x.shape[1:])
    order = stored_order(x)
    if x.ndim and order[0] != 0:
        order = list(range(x.ndim))
    dtype = x.dtype if dtype is None else dtype
    plain = x.device.type == "cpu" and dtype in (torch.float32, torch.uint8, torch.int32)
    sizes = [shape[axis] for axis in order]
    if plain and dtype.itemsize * math.prod(sizes) >= memory.LARGE:
        new = torch.from_numpy(memory.aligned_empty(tuple(sizes), str(dtype).removeprefix("torch.")))
    else:
        new = torch.empty(sizes, dtype=dtype, device=x.device)
    return new.permute(*(order.index(axis) for axis in range(x.ndim)))


def groups(images: Any, gains: bool) -> list[int]:
    """Where groups of images begin that are worth a pass each; none, if all are to be done at once. ``gains``: whether
    compiled code is the faster one on a CPU.

    Compiled on a CPU: what lies between the steps of a pass then stays in the cache, where eager code would spend the
    gain on its many small steps. All groups are of one size, so that one compiled program serves them; the last one may
    begin before the end of the one before it.
    """
    count, size = images.shape[0], group_size(images)
    apart = images.device.type == "cpu" and count > size and _SHAPES_DECIDE is not None
    if not apart or images.requires_grad or torch.compiler.is_compiling():
        return []
    return [*range(0, count - size, size), count - size] if compiler_wanted("cpu", images.numel(), gains) else []


def group_size(images: Any) -> int:
    """How many of these images (N, H, W, C) stay in the cache of a core from one step of a pass to the next."""
    return max(1, GROUP // max(1, images.shape[1:].numel()))


def in_groups(run: Pass, starts: list[int], data: Any, u: Any, values: Any) -> Any:
    """``run(data, u, values)`` by groups of images that begin at ``starts``: the same result for each image.
    ``u`` has a row for each.

    One thread does all steps of a group and writes it where it belongs; threads take groups as they get done. Had each
    step threads of its own, all would wait after every step for the slowest.
    """
    size = group_size(data["images"])
    program = None if u.requires_grad else run.writer(data, u, values)
    if program is None:
        return run(data, u, values)
    write, results = program
    whole = keras.tree.map_structure(lambda x: new_like(x, len(u)), results)
    targets = keras.tree.flatten(whole)

    def fill(start: int) -> None:
        here = slice(start, start + size)
        write([target[here] for target in targets], _rows(data, here), u[here], values)

    by_threads(fill, starts, write)
    return whole


def by_threads(fill: Callable[[int], None], pieces: list[int], program: Compiled) -> None:
    """``fill(piece)`` of each piece, without gradients, by as many threads as torch has; it calls the program."""
    inference = torch.is_inference_mode_enabled()
    _keep_freed_memory()

    def fill_some(some: Iterable[int]) -> None:
        with torch.inference_mode(inference), torch.no_grad():  # each thread has its own
            for piece in some:
                fill(piece)

    left = iter(pieces)
    if not program.started:  # the compiler runs where it was asked for, not in a thread of ours
        fill_some(itertools.islice(left, 1))
    if pieces:
        _by_all_threads(lambda: fill_some(left), min(torch.get_num_threads(), len(pieces)))


def _by_all_threads(work: Callable[[], None], count: int) -> None:
    """``work()`` by this thread and ``count`` - 1 others, which stay for the next time and take one piece after
    the other: to start threads, and to hear of each piece that they have done, took a good part of a short pass.
    """
    others = [_threads(count).submit(work) for _ in range(count - 1)]
    try:
        work()
    finally:
        started = [other for other in others if not other.cancel()]
        wait(started)
    for other in started:
        other.result()


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count - 1, "keras_norm_layers")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # the threads stay with the parent


@functools.cache
def _keep_freed_memory() -> None:
    """Lets each thread keep the memory of what lies between the steps of one image for the next one.

    The C library of Linux gives freed memory back to the system beyond twice the largest block that was ever freed, if
    that is no larger than 32 MB. Such a block is asked for here and never touched; other libraries do not care.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)


def compiler_wanted(device: str, values: int, gains: bool = True) -> bool:
    """Whether to compile for batches of so many values on a type of device.

    The environment variable KERAS_NORM_LAYERS_TORCH_COMPILE says "1", "0" or, by default, "auto": for large batches, on
    a CPU where compiled code ``gains`` and there is a compiler for it.
    """
    wish = os.environ.get("KERAS_NORM_LAYERS_TORCH_COMPILE", "auto")
    if wish != "auto":
        return wish == "1"
    large = values >= COMPILE_FROM.get(device, COMPILE_ELSEWHERE_FROM)
    return large and (device != "cpu" or (gains and _cpu_compiles()))


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


class Compiled:
    """``function`` under ``torch.compile`` with these options; eager where that fails, with a warning."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._function = function
        self._options = options
        self._run: Callable[..., Any] | None = None
        self._starting = threading.RLock()

    @property
    def started(self) -> bool:
        """Whether it has run: then it is compiled, or eager for good."""
        return self._run is not None

    def __call__(self, *args: Any) -> Any:
        # Of several threads one compiles, and the others wait for its program.
        with self._starting if self._run is None else contextlib.nullcontext():
            try:  # one graph: pieces would be slower than eager code
                run = self._run or torch.compile(_of_its_own(self._function), fullgraph=True, **self._options)
                result = run(*args)
            except Exception as error:  # the compiler raises whatever its parts raise: no C++ compiler, no Triton, ...
                run, result = self._function, self._function(*args)  # an error of its own is raised here, as it is
                said = " ".join(str(error).splitlines()[:2]) or type(error).__name__  # who failed, and at what
                warnings.warn(f"torch.compile failed ({said}); random transforms run eagerly.", stacklevel=3)
            self._run = run
            return result


def compiles_on_host(values: int) -> bool:
    """Whether ``compiled_on_host`` is worth while for batches of so many values."""
    return _SHAPES_DECIDE is not None and compiler_wanted("cpu", values)


def compiled_on_host(function: Callable[..., Any]) -> Callable[..., list[np.ndarray]]:
    """``function`` compiled for one thread of the CPU: NumPy in, NumPy out."""
    program = Compiled(function, dynamic=False, options=ONE_THREAD)

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [result.numpy() for result in program(*map(torch.from_numpy, arrays))]

    return call


class Pass:
    """``function(data, u, values)``, compiled where ``compiler_wanted``, for whole batches and groups of images."""

    def __init__(self, function: Callable[..., Any], gains: bool = True) -> None:
        self._function = function
        self._gains = gains
        self._whole = Compiled(function)
        self._writers: dict[Any, tuple[Compiled, Any]] = {}

    def __call__(self, data: Any, u: Any, values: Any) -> Any:
        images = data["images"]
        wanted = compiler_wanted(images.device.type, images.numel(), self._gains)
        run = self._whole if wanted and not torch.compiler.is_compiling() else self._function
        return run(data, u, values)

    def writer(self, data: Any, u: Any, values: Any) -> tuple[Compiled, Any] | None:
        """For data of these shapes ``write(targets, data, u, values)``, which puts what comes out into tensors (no
        copy, no new memory), and what comes out, as tensors without a row. None if there are programs for many shapes
        already: a single one then does for all others.
        """
        key = tuple((x.shape[1:], x.dtype) for x in keras.tree.flatten(data))
        if key not in self._writers and len(self._writers) < SHAPES:
            with torch.no_grad():
                one = self._function(_rows(data, slice(1)), u[:1], values)
            write = Compiled(self._write, dynamic=False, options=ONE_THREAD)
            self._writers[key] = write, keras.tree.map_structure(_without_rows, one)
        return self._writers.get(key)

    def _write(self, targets: list[Any], *args: Any) -> None:
        for target, result in zip(targets, keras.tree.flatten(self._function(*args))):
            target.copy_(result)


def _rows(data: Any, here: slice) -> Any:
    """These rows of all tensors of a nested dict."""
    return {name: _rows(x, here) for name, x in data.items()} if isinstance(data, dict) else data[here]


def _without_rows(x: Any) -> Any:
    return torch.empty_strided((0, *x.shape[1:]), x.stride(), dtype=x.dtype, device=x.device)


compiled = Pass
_writers: dict[Any, Compiled] = {}


def image_writer(key: Any, images: Any, make: Callable[[Any, Any], Any]) -> Compiled | None:
    """For a step of eager code on a CPU that is faster compiled: ``write(target, image, numbers)``, which puts
    ``make(image, numbers)`` of one image (1, H, W, C) into ``target``. None where no compiler is wanted for these
    images, or where there are programs for many shapes and settings (``key``) already.
    """
    if _SHAPES_DECIDE is None or torch.compiler.is_compiling() or not compiler_wanted("cpu", images.numel()):
        return None
    key = (key, images.shape[1:], images.dtype)
    if key not in _writers and len(_writers) < SHAPES:
        _writers[key] = Compiled(lambda target, *given: target.copy_(make(*given)), dynamic=False, options=ONE_THREAD)
    return _writers.get(key)
