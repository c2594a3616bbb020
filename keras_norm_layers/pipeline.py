"""``augment_dataset``: a random layer in a pipeline of data, with a key for each element."""

from __future__ import annotations

import itertools
import numbers
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, datasets
from keras_norm_layers.transforms import targets
from keras_norm_layers.transforms.layer import RandomLayer

OWNER = "augment_dataset"


def augment_dataset(
    dataset: Any,
    layer: Any,
    seed: int | None = None,
    *,
    start: tuple[int, int] = (0, 0),
    target: str | None = None,
    num_parallel_calls: int | None = -1,
    deterministic: bool | None = None,
) -> Any:
    """Augments the elements of a dataset, each by a draw of its own, which the key (seed, epoch, index) decides.

    So a run repeats bit for bit, whatever the number of threads; no two epochs are alike; and a run that was broken off
    goes on where it stopped. (``dataset.map(layer)`` draws in the order in which elements happen to be asked for.)
    The layer's own seed is neither used up nor changed; its ``strength`` takes effect at once.

    Args:
        dataset: a ``tf.data.Dataset``, under every Keras backend; a ``grain.MapDataset`` or ``grain.IterDataset``; or
            another iterable of batches. Its elements are images, batched or not, or a dict as the layer takes it, or
            tuples (x, y) or (x, y, sample_weight) with such an x. A batch is one element: the draws of its images
            differ, and hang on the batch's number.
        layer: an ``Augment`` or one random transform.
        seed: an integer in [0, 2**31). None (default): the layer's seed; if that is None too, a random one
            (``keras.utils.set_random_seed`` decides it).
        start: (epoch, index), where to begin: the epochs are counted from ``epoch`` on, and the first one leaves out
            its first ``index`` elements. They are read, not augmented.
        target: what y is, if more than labels that stay as they are: "segmentation_masks", "bounding_boxes",
            "keypoints" or one of the layer's ``additional_targets``, which move with the images. "labels", or None for
            what does not have the shape of a mask: y stays as it is, unless the layer mixes images; then the labels
            are mixed in the same parts.
        num_parallel_calls, deterministic: as in ``tf.data.Dataset.map``, and for ``tf.data`` alone; by default as many
            calls as ``tf.data`` thinks fit. The elements have the same bits for any number; ``deterministic=False``
            gives up their order.

    Returns:
        for ``tf.data`` and grain a dataset of the same kind; for other iterables an iterable. NumPy arrays come out as
        NumPy arrays.

    An epoch:
        ``tf.data`` and iterables: each iteration that is begun is the next epoch, and each repetition under
        ``.repeat()``. A look at one batch counts: ``take(1)``, and ``fit`` with a model that is not built yet. What
        shuffles must stand before, and be the same again when a run goes on in the middle of an epoch. A checkpoint of
        the iterator itself is refused by TensorFlow; keep epoch and index, and ``start`` there.

        ``grain.MapDataset``: the epoch is the index divided by the length, so ``augment_dataset(...).repeat()`` draws
        anew each time, and grain's own checkpoints and slices hold. Like grain's own random maps, one that is iterated
        from 0 twice gives the same twice: for ``fit``, repeat and give ``steps_per_epoch``. An ``IterDataset`` is one
        stream, counted on: repeat before.

    Raises:
        TypeError, ValueError: for what is no dataset or no random layer; for a ``start`` that is no pair of integers
        or, with grain, not (0, 0); for elements that cannot be told apart.

    Example:

    >>> import numpy as np, tensorflow as tf, keras_norm_layers as knl
    >>> images, labels = np.full((6, 4, 4, 3), 100, "uint8"), np.arange(6)
    >>> data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)
    >>> augmented = knl.augment_dataset(data, knl.RandomBrightness(0.2), seed=7)
    >>> epochs = [[float(x[0, 0, 0, 0]) for x, y in augmented] for _ in range(2)]
    >>> len(set(epochs[0] + epochs[1]))
    6
    >>> resumed = knl.augment_dataset(data, knl.RandomBrightness(0.2), seed=7, start=(1, 2))
    >>> [float(x[0, 0, 0, 0]) for x, y in resumed] == epochs[1][2:]
    True
    """
    if not isinstance(layer, RandomLayer):
        raise TypeError(
            f"{OWNER}: `layer` must be an Augment or another random layer of keras_norm_layers. Put several into one "
            f"Augment([...]); map anything else with the dataset's own `map`. Received: layer={layer!r}"
        )
    start = _checked_start(start)
    if target is not None:
        allowed = [name for name in {**targets.KINDS, **(layer.additional_targets or {})} if name != "images"]
        validation.check_choice(OWNER, "target", target, allowed)
    seed = validation.check_seed(OWNER, layer.seed if seed is None else seed)
    seed = random.randrange(2**31) if seed is None else seed
    if datasets.is_tensorflow(dataset):
        epochs = itertools.count(start[0])  # its next() cannot be interrupted by another thread
        return datasets.map_with_keys(
            dataset,
            lambda element, key: augmented(layer, element, key, target),
            seed,
            start,
            lambda: next(epochs),
            num_parallel_calls=num_parallel_calls,
            deterministic=deterministic,
        )
    apply = _OnHost(layer, seed, target)
    if datasets.is_grain(dataset, "MapDataset") or datasets.is_grain(dataset, "IterDataset"):
        return _augmented_grain(dataset, apply, start)
    _check_iterable(dataset)
    return _Batches(dataset, apply, start)


def augmented(layer: RandomLayer, element: Any, key: Any, target: str | None) -> Any:
    """One element of a dataset, augmented by the draw of ``key``; ``target`` as for ``augment_dataset``."""
    if not isinstance(element, tuple):
        return layer.call_with_key(element, key)
    if not 1 <= len(element) <= 3:
        raise ValueError(
            f"{OWNER}: tuples must be (x,), (x, y) or (x, y, sample_weight), as `fit` takes them. "
            f"Received: a tuple of {len(element)}"
        )
    x, *rest = element
    data = dict(x) if isinstance(x, dict) else {"images": x}
    targets.check_keys(data, layer._options())
    _build(layer, data["images"].shape)
    if rest and target is None:
        _check_is_no_mask(rest[0], data["images"], layer)
    name = target or "labels"
    if not rest or (name == "labels" and not layer.plan.mixes):
        return (layer.call_with_key(x, key), *rest)
    if name in data:
        raise ValueError(f"{OWNER}: x has {name!r} already, so y cannot be {name!r} too. Leave one of them out.")
    if layer.plan.mixes and len(rest) > 1:
        raise ValueError(
            f"{OWNER}: the layer mixes images, and a mixture has no sample weight. Leave the weights out: (x, y)."
        )
    result = layer.call_with_key({**data, name: rest[0]}, key)
    y = result.pop(name)
    return (result if isinstance(x, dict) else result["images"], y, *rest[1:])


def _build(layer: RandomLayer, shape: Any) -> None:
    with backend.HOST_LOCK:  # a dataset may come in several threads
        if not layer.built:
            layer.build(tuple(shape))


def _check_is_no_mask(y: Any, images: Any, layer: RandomLayer) -> None:
    """Raises if ``y`` has the height and width of the images: it would stay where it was while they move."""
    shape, given = tuple(getattr(y, "shape", ())), tuple(images.shape)
    channels_first = layer.data_format == "channels_first"
    sides = targets.move_channels_last(given, channels_first)[:-1]
    alike = [shape] if len(shape) == len(sides) else []
    if len(shape) == len(given):
        alike = [targets.move_channels_last(shape, channels_first)[:-1]]
    if any(item == sides for item in alike):
        raise ValueError(
            f"{OWNER}: y has the height and width of the images, and it is not said whether it moves with them. Give "
            "`target`: 'segmentation_masks' (or another target of the layer) if it does, 'labels' if it stays as it "
            f"is. Received: x of the shape {given}, y of the shape {shape}"
        )


def _checked_start(start: Any) -> tuple[int, int]:
    pair = tuple(start) if isinstance(start, (tuple, list)) else ()
    whole = all(isinstance(n, numbers.Integral) and not isinstance(n, bool) and 0 <= int(n) < 2**32 for n in pair)
    if len(pair) != 2 or not whole:
        raise ValueError(
            f"{OWNER}: `start` must be a pair of integers in [0, 2**32), (epoch, index): where to begin. "
            f"Received: start={start!r}"
        )
    return int(pair[0]), int(pair[1])


# On the host ----------------------------------------------------------------------------------------------------------


class _OnHost:
    """Augments one element outside of graphs; what comes with images given as NumPy arrays comes out as such."""

    def __init__(self, layer: RandomLayer, seed: int, target: str | None) -> None:
        self.layer, self.seed, self.target = layer, seed, target

    def __call__(self, element: Any, epoch: int, index: int) -> Any:
        element = tuple(element) if isinstance(element, list) else element
        x = element[0] if isinstance(element, tuple) and element else element
        images = x.get("images") if isinstance(x, dict) else x
        if isinstance(images, np.ndarray):
            _build(self.layer, images.shape)
            self.layer.check_values(images)
        key = np.array([self.seed, epoch % 2**32, index % 2**32], "uint32")
        result = augmented(self.layer, element, key, self.target)
        if not isinstance(images, np.ndarray):
            return result
        return keras.tree.map_structure(lambda t: backend.to_numpy(t) if keras.ops.is_tensor(t) else t, result)


def _augmented_grain(dataset: Any, apply: _OnHost, start: tuple[int, int]) -> Any:
    if start != (0, 0):
        raise ValueError(
            f"{OWNER}: a grain dataset keeps its own place: set the state of its iterator, or slice the result, "
            f"`.repeat()[epoch * length + index:]`; `start` must be (0, 0). Received: start={start!r}"
        )
    if datasets.is_grain(dataset, "IterDataset"):
        return dataset.map_with_index(lambda index, element: apply(element, 0, index))
    length = max(len(dataset), 1)
    return dataset.map_with_index(lambda index, element: apply(element, *divmod(index, length)))


def _check_iterable(dataset: Any) -> None:
    if isinstance(dataset, keras.utils.PyDataset):
        raise TypeError(
            f"{OWNER}: a PyDataset is asked for its items in any order and ahead of time. In its `__getitem__` call "
            "`layer.call_with_key(images, (seed, epoch, index))`, with an epoch that its `on_epoch_end` counts."
        )
    single = isinstance(dataset, (np.ndarray, str, bytes, dict, tuple)) or keras.ops.is_tensor(dataset)
    if single or not isinstance(dataset, Iterable):
        raise TypeError(
            f"{OWNER}: `dataset` must be a tf.data.Dataset, a grain.MapDataset or IterDataset, or an iterable of "
            f"batches; make one of arrays with tf.data.Dataset.from_tensor_slices. Received: {type(dataset).__name__}"
        )


class _Batches:
    """An iterable of batches, augmented; each iteration is the next epoch."""

    def __init__(self, source: Any, apply: _OnHost, start: tuple[int, int]) -> None:
        self._source, self._apply, self._start = source, apply, start
        self._epochs = itertools.count(start[0])

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[Any]:
        epoch = next(self._epochs)
        for index, element in enumerate(self._source):
            if epoch > self._start[0] or index >= self._start[1]:
                yield self._apply(element, epoch, index)
