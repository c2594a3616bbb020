"""Augmentation over time: a strength that changes while training, and augmentation at the time of prediction."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.transforms import Augment
from keras_norm_layers.transforms.layer import RandomLayer


class StrengthSchedule(keras.callbacks.Callback):
    """Sets the ``strength`` of a model's ``Augment`` layers while it trains: a curriculum. Nothing is traced anew.

    Args:
        schedule: a function from the number of the epoch, from 0, to a strength in [0, 1]; or a list of pairs (epoch,
            strength), in ascending order, between which it is linear, e.g. ``[(0, 0.0), (10, 1.0)]``.
        by: "epoch" (default), or "step": the schedule is asked at every batch, and counts batches since training began.
        layers: the ``Augment`` layers to set; None (default) for all that the model holds, however deep.

    Raises an error at the beginning of training if there is no ``Augment``, and for a strength outside [0, 1]. The
    strength stays as it was last set when training ends; it is saved with the model.

    Example:

    >>> import keras_norm_layers as knl
    >>> warm_up = knl.StrengthSchedule([(0, 0.0), (10, 1.0)])
    >>> [warm_up.strength_at(epoch) for epoch in (0, 5, 10, 20)]
    [0.0, 0.5, 1.0, 1.0]
    """

    def __init__(
        self,
        schedule: Callable[[int], float] | Sequence[tuple[float, float]],
        by: str = "epoch",
        layers: Sequence[Augment] | None = None,
    ) -> None:
        super().__init__()
        self.by = validation.check_choice("StrengthSchedule", "by", by, ("epoch", "step"))
        self.schedule = schedule if callable(schedule) else _checked_points(schedule)
        self.layers = layers
        self._step = 0

    def strength_at(self, number: int) -> float:
        """The strength in an epoch, or at a step."""
        strength = self.schedule(number) if callable(self.schedule) else _between(self.schedule, number)
        return validation.check_number("StrengthSchedule", f"schedule({number})", float(strength), 0.0, 1.0)

    def on_train_begin(self, logs: Any = None) -> None:
        self._found = list(self.layers) if self.layers is not None else augments(self.model)
        self._step = 0
        if not self._found:
            raise ValueError(
                "StrengthSchedule: the model holds no `Augment` layer whose strength could be set. Put its random "
                "transforms into one: Augment([...])."
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.by == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.by == "step":
            self._set(self._step)
            self._step += 1

    def _set(self, number: int) -> None:
        if hasattr(self.model, "jax_state_sync"):  # while it fits, Keras keeps the values of JAX variables elsewhere
            self.model.jax_state_sync()
        for layer in self._found:
            layer.strength.assign(self.strength_at(number))


def _checked_points(schedule: Any) -> list[tuple[float, float]]:
    points = list(schedule) if isinstance(schedule, (list, tuple)) else []
    ok = bool(points) and all(isinstance(p, (list, tuple)) and len(p) == 2 for p in points)
    ok = ok and all(validation.is_number(v) for point in points for v in point)
    ok = ok and all(a[0] < b[0] for a, b in itertools.pairwise(points)) and all(0 <= p[1] <= 1 for p in points)
    if not ok:
        raise ValueError(
            "StrengthSchedule: `schedule` must be a function, or a list of pairs (epoch, strength) with ascending "
            f"epochs and strengths in [0, 1]. Received: schedule={schedule!r}"
        )
    return [tuple(point) for point in points]


def _between(points: list[tuple[float, float]], number: int) -> float:
    """The strength on the line through the points."""
    epochs, strengths = ([point[i] for point in points] for i in (0, 1))
    return float(np.interp(number, epochs, strengths))


def augments(layer: Any) -> list[Augment]:
    """All ``Augment`` layers in a model, however deep, in order."""
    if isinstance(layer, Augment):
        return [layer]
    return [found for inner in getattr(layer, "layers", []) for found in augments(inner)]


def predict_augmented(
    model: keras.Model,
    images: Any,
    augment: RandomLayer | None = None,
    n: int = 8,
    *,
    inverse: bool = False,
    original: bool = True,
    batch_size: int | None = None,
) -> Any:
    """The mean of a model's predictions for ``n`` augmented versions of the images: test-time augmentation.

    Args:
        model: a Keras model of one input.
        images: an array (N, H, W, C) as the model takes it.
        augment: the layer that makes the versions, by draws of its own; None (default) for the model's ``Augment``.
        n: how many versions, 1 or more; default 8.
        inverse: False (default) averages predictions as they are: for classes. True is for predictions that are maps of
            the image, (N, H, W, K): each is moved back by ``augment.inverse`` first, and each pixel is averaged over
            the versions that show it.
        original: True (default) counts the images as they are as one more version.
        batch_size: as in ``model.predict``.

    Returns:
        the mean, as NumPy arrays in the structure of ``model.predict``.

    Raises an error if the model has no ``Augment``, or several, and none is given; and with ``inverse`` for a transform
    that has none, or if a pixel is shown by no version.

    Example:

    >>> import keras, numpy as np, keras_norm_layers as knl
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalMaxPooling2D()])
    >>> images = np.random.default_rng(0).random((2, 8, 8, 3), dtype="float32")
    >>> mean = knl.predict_augmented(model, images, knl.RandomFlip(seed=1), n=4)
    >>> bool(np.allclose(mean, images.max((1, 2))))
    True
    """
    layer = augment if augment is not None else _only_augment(model)
    if not isinstance(layer, RandomLayer):
        raise ValueError(f"predict_augmented: `augment` must be a random layer of this package. Received: {augment!r}")
    n = validation.check_count("predict_augmented", "n", n, 1, 100000)
    if not layer.built:
        layer.build((None, *images.shape[1:]))
    maker = _without_normalization(layer)
    total: Any = None
    seen: Any = 0.0
    for version in range(n + original):
        u = None if version == n else layer.draw(len(images))
        inputs = images if u is None else to_numpy(maker.apply(images, u))
        predicted = model.predict(inputs, batch_size=batch_size, verbose=0)
        shown: Any = 1.0
        if inverse and u is not None:
            ones = np.ones((*_maps(predicted)[0].shape[:-1], 1), "float32")
            shown = to_numpy(layer.inverse(ones, u)) > 0.999  # pixels that came, whole, from inside the picture
            moved = keras.tree.map_structure(lambda p, u=u: to_numpy(layer.inverse(p, u)), predicted)
            predicted = keras.tree.map_structure(lambda p, shown=shown: np.where(shown, p, 0.0), moved)
        total = predicted if total is None else keras.tree.map_structure(np.add, total, predicted)
        seen = seen + shown
    if np.min(seen) < 1:
        raise ValueError(
            "predict_augmented: some pixels are shown by none of the versions. Give original=True, or a larger n."
        )
    return keras.tree.map_structure(lambda t: (t / seen).astype("float32"), total)


def _without_normalization(layer: RandomLayer) -> RandomLayer:
    """The same layer, without the normalization that an ``Augment`` may have: that is the model's to do."""
    if getattr(layer, "normalization", None) is None:
        return layer
    bare = Augment.from_config({**layer.get_config(), "normalization": None})
    bare.strength.assign(to_numpy(layer.strength))  # a copy: JAX gives the memory of weights away in `predict`
    return bare


def _only_augment(model: Any) -> Augment:
    found = augments(model)
    if len(found) != 1:
        raise ValueError(
            f"predict_augmented: give `augment`, the layer that makes the versions: the model holds {len(found)} "
            "`Augment` layers."
        )
    return found[0]


def _maps(predicted: Any) -> list[np.ndarray]:
    arrays = keras.tree.flatten(predicted)
    if any(np.ndim(array) != 4 for array in arrays):
        raise ValueError(
            "predict_augmented: `inverse=True` is for predictions that are maps of the image, (N, H, W, K). "
            f"Received: shapes {[np.shape(array) for array in arrays]}"
        )
    return arrays
