"""The loop that learns, on the machines of a Ray cluster: layers and views of them around ``statistics.cluster``."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_norm_layers.statistics import cluster
from keras_norm_layers.validation import check_number

# Layers before an adapting one run on so many images at a time.
PREFIX_BATCH = 256


def learn_on_cluster(
    passes: Sequence[Any],
    dataset: Any,
    draw: Any,
    *,
    batch_size: Any,
    steps: Any,
    rank: Any,
    key: Any,
    sample: Any,
    seed: Any,
    augment: Any,
    checkpoint: Any,
) -> None:
    """Teaches layers, pass after pass, from a ``ray.data.Dataset``. If it fails, they keep the statistics they had.

    Args:
        passes: as in ``learning.learn``; so are the other arguments.
        dataset: the Ray dataset. Each pass executes it anew, unless it is materialized.
        draw: what the views take beside a batch.
        batch_size, steps, augment, checkpoint: refused, with what to do instead.
        rank: axes of a batch, where they are known.
    """
    _refuse(steps, batch_size, augment, checkpoint)
    if sample is not None:
        share = check_number("adapt", "sample", sample, 0.0, 1.0)
        # Ray draws in each pass anew: with a seed each gives the same images.
        dataset = dataset.random_sample(share, seed=random.randrange(2**31) if seed is None else seed)
    layers = [layer for part in passes for layer in part.layers]
    first = cluster.images_of(dataset, key)
    if rank is not None and first.first.ndim + 1 != rank:
        raise ValueError(
            f"{layers[0]._title()} takes batches of {rank} axes, images of {rank - 1}. The images of the Ray dataset "
            f"(column {first.column!r}) have the shape {first.first.shape}."
        )
    snapshots = [(layer, layer.snapshot()) for layer in layers]
    try:
        for part in passes:
            views = part.view(first.first[None], draw)
            for layer, seen in zip(part.layers, views):
                layer._build_for(seen.shape)
                layer._check_shape(seen.shape)
            found = cluster.aggregate(
                dataset,
                [layer.empty_accumulator() for layer in part.layers],
                view=ShippedView(part.view, draw) if part.runs_layers else None,
                first=first,
                shape=None if part.runs_layers else _common_shape(part.layers),
            )
            for layer, accumulator in zip(part.layers, found):
                layer._commit(accumulator)
    except BaseException:
        for layer, snapshot in snapshots:
            layer.restore(snapshot)
        raise


def _refuse(steps: Any, batch_size: Any, augment: bool, checkpoint: Any) -> None:
    instead = {
        "steps": (steps, "take the first images with dataset.limit(number), or a share of all with `sample`"),
        "batch_size": (batch_size, "leave it out: the blocks of the dataset are the batches"),
        "augment": (augment or None, "read the dataset here, as dataset.iter_batches() in a function"),
        "checkpoint": (checkpoint, "leave it out: Ray runs again what a worker that died had begun"),
    }
    for name, (value, what) in instead.items():
        if value is not None:
            raise ValueError(f"adapt: `{name}` is not for Ray datasets; {what}. Received: {name}={value!r}")


def _common_shape(layers: Sequence[Any]) -> tuple[int | None, ...]:
    """What the shape of an image must be for all the layers; None for sizes that none of them asks for."""
    shapes = zip(*(layer._rank_shape[1:] for layer in layers))
    return tuple(next((size for size in sizes if size is not None), None) for sizes in shapes)


class ShippedView:
    """What layers of a model get for a batch, on another machine: the model goes there as it is saved in a file.

    The first batch loads it. Machines need this package and the same Keras backend.
    """

    def __init__(self, view: Callable[..., list[np.ndarray]], draw: Any) -> None:
        self._view: Callable[..., list[np.ndarray]] | None = None
        self._draw = draw
        self._bytes = pickle.dumps(view)
        self._backend = keras.backend.backend()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        if self._view is None:
            self._view = self._loaded()
        pieces = range(0, len(images), PREFIX_BATCH)
        seen = [self._view(images[start : start + PREFIX_BATCH], self._draw) for start in pieces]
        return [np.concatenate(parts) for parts in zip(*seen)]

    def _loaded(self) -> Callable[..., list[np.ndarray]]:
        here = keras.backend.backend()
        if here != self._backend:
            raise ValueError(
                f"The workers run Keras on {here}, and the model was made on {self._backend}. Set KERAS_BACKEND on all "
                f'machines: ray.init(runtime_env={{"env_vars": {{"KERAS_BACKEND": "{self._backend}"}}}}).'
            )
        return pickle.loads(self._bytes)
