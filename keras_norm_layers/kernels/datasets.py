"""Pipelines of other libraries: which one an object belongs to, and the key of each element of a ``tf.data`` one."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend


def is_tensorflow(x: Any) -> bool:
    """Whether ``x`` is a ``tf.data.Dataset``."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(x, tensorflow.data.Dataset)


def is_grain(x: Any, kind: str) -> bool:
    """Whether ``x`` is a dataset of grain of this kind, "MapDataset" or "IterDataset"."""
    grain = sys.modules.get("grain")
    return grain is not None and isinstance(x, getattr(grain, kind, ()))


def map_with_keys(
    dataset: Any,
    function: Callable[[Any, Any], Any],
    seed: int,
    start: tuple[int, int],
    next_epoch: Callable[[], int],
    **options: Any,
) -> Any:
    """A ``tf.data`` dataset of ``function(element, key)``, the key being int64 (seed, epoch, index).

    ``next_epoch`` is called on the host whenever an iterator begins, that of a repetition too. The epoch ``start[0]``
    begins at the element ``start[1]``. ``options`` go to ``Dataset.map``.
    """
    import tensorflow as tf

    plain = tf.autograph.experimental.do_not_convert  # no control flow in here for AutoGraph to find

    def numbered(epoch: Any) -> Any:
        skipped = tf.where(epoch == start[0], tf.constant(start[1], tf.int64), tf.constant(0, tf.int64))
        elements = dataset.enumerate().skip(skipped)
        return elements.map(plain(lambda i, element: (element, tf.stack([tf.constant(seed, tf.int64), epoch, i]))))

    epochs = tf.data.Dataset.from_tensors(0).map(
        plain(lambda _: backend.host_call(lambda: np.asarray(next_epoch()), "int64", ()))
    )
    result = epochs.flat_map(plain(numbered)).with_options(dataset.options()).map(plain(function), **options)
    length = int(dataset.cardinality())
    if start[1] or length == tf.data.UNKNOWN_CARDINALITY:
        return result
    return result.apply(tf.data.experimental.assert_cardinality(length))


def from_batches(
    read: Callable[[int, int], Any], length: int, example: Any, start: int, num_parallel_calls: int
) -> Any:
    """A ``tf.data`` dataset of ``read(epoch, index)`` for each index below ``length``, in order; all as ``example``.

    Each iterator that begins is the next epoch, counted from ``start`` on.
    """
    import tensorflow as tf

    plain = tf.autograph.experimental.do_not_convert
    parts = tf.nest.flatten(example)
    types = [tf.string if part.dtype.kind in "US" else tf.as_dtype(part.dtype) for part in parts]
    count = itertools.count(start)

    def batch(epoch: Any, index: Any) -> Any:
        tensors = tf.numpy_function(lambda e, i: tf.nest.flatten(read(int(e), int(i))), [epoch, index], types)
        shaped = [tf.ensure_shape(t, (None, *part.shape[1:])) for t, part in zip(tensors, parts)]
        return tf.nest.pack_sequence_as(example, shaped)

    def numbered(epoch: Any) -> Any:
        return tf.data.Dataset.range(length).map(plain(lambda index: (epoch, index)))

    epochs = tf.data.Dataset.from_tensors(0).map(
        plain(lambda _: backend.host_call(lambda: np.asarray(next(count)), "int64", ()))
    )
    parallel = {"num_parallel_calls": num_parallel_calls, "deterministic": True} if num_parallel_calls > 1 else {}
    batches = epochs.flat_map(plain(numbered)).map(plain(batch), **parallel)
    options = tf.data.Options()
    # An iterator with autotuning may wait at its end until the tuner looks again: at worst as long as it has run.
    options.autotune.enabled = False
    return batches.apply(tf.data.experimental.assert_cardinality(length)).prefetch(2).with_options(options)
