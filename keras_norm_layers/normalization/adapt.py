"""``adapt``: all adaptable layers of a model, in order."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_norm_layers.kernels import backend
from keras_norm_layers.normalization.adaptive import AdaptiveLayer, Captured
from keras_norm_layers.statistics.sources import Batches, batches

# Layers before an adapting one run in batches of this many images, if the data has no batches of its own.
PREFIX_BATCH = 256


def adapt(
    model: Any,
    data: Any,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: Any = "auto",
    key: str | None = None,
) -> None:
    """Adapts every adaptable layer of a model, in order, with one pass over the data each.

    A layer sees what the layers before it give at inference (``training=False``): random layers do nothing, statistics
    adapted before are applied. Where only layers stand before it that leave values as they are, it sees the data
    itself, so integers are summed exactly. Layers whose statistics were given as arguments are left alone. When
    anything fails, all layers keep the statistics they had.

    Args:
        model: a Sequential or Functional model with one input (models inside it included), a subclassed model that is
            built, one layer, or a list of layers in the order in which they are applied.
        data: as for ``layer.adapt``; what is read only once (a generator) serves one adaptable layer.
        batch_size: images a batch, where the data does not come in batches.
        steps: batches to read for each layer; default all.
        verbose: 0 no progress bar, 1 a bar, "auto" a bar for what takes longer than two seconds.
        key: the entry of a dictionary that holds the images.

    Raises:
        ValueError: for a model without adaptable layers or with several inputs, a generator for several layers, and as
            ``layer.adapt``.

    Example:
        >>> import keras, numpy as np
        >>> from keras_norm_layers.normalization import FeaturewiseNormalization
        >>> model = keras.Sequential([keras.Input((2,)), FeaturewiseNormalization()])
        >>> adapt(model, np.array([[1.0, 10.0], [3.0, 30.0]]))
        >>> model.predict(np.array([[2.0, 40.0]]), verbose=0).round(3).tolist()
        [[0.0, 2.0]]
    """
    layers = _layers(model)
    targets = [la for la in layers if isinstance(la, AdaptiveLayer) and not la.has_given_statistics]
    if not targets:
        raise ValueError(
            f"There is nothing to adapt in {_title(model)}: it has no layer such as FeaturewiseNormalization, or all "
            f"have statistics given as arguments. Its layers: {[layer.name for layer in layers]}"
        )
    if isinstance(model, keras.Model) and _input_count(model) > 1:
        raise ValueError(
            f"{_title(model)} has {_input_count(model)} inputs; adapt works on models with one. Call adapt of its "
            f"layers, each with the data it sees: {[layer.name for layer in targets]}"
        )
    options: dict[str, Any] = {"steps": steps, "key": key, "rank": _input_rank(model, layers)}
    if batches(data, batch_size=batch_size, **options).once and len(targets) > 1:
        raise ValueError(
            f"The data can be read only once ({type(data).__name__}), and {len(targets)} layers need a pass each: "
            f"{[layer.name for layer in targets]}. Give an array or a dataset, or a function that makes the generator."
        )
    before = [(layer, layer.snapshot()) for layer in targets]
    try:
        for layer in targets:
            raw = _sees_raw_data(layers, layer)
            size = batch_size if raw else _prefix_batch_size(data, batch_size)
            source = batches(data, batch_size=size, **options)
            if layer is targets[0]:
                source = _checked(source, layers)
            if not raw:
                source = source.map(_Prefix(model, layers, layer))
            layer.adapt(source, verbose=verbose)
    except BaseException:
        for layer, snapshot in before:
            layer.restore(snapshot)
        raise


def _title(model: Any) -> str:
    return f"{type(model).__name__} {model.name!r}" if hasattr(model, "name") else f"the list of {len(model)} layers"


def _layers(model: Any) -> list[Any]:
    """All layers in the order in which data passes them, those of inner models in place of the models."""
    if isinstance(model, (list, tuple)):
        members = list(model)
    elif isinstance(model, keras.Model):
        members = list(model.layers)  # of a Functional model: ancestors first
    else:
        members = None
    if members is None:
        if not isinstance(model, keras.layers.Layer):
            raise TypeError(f"adapt takes a Keras model, a layer or a list of layers. Received: {model!r}")
        return [model]
    return [layer for member in members for layer in _layers(member)]


def _input_count(model: Any) -> int:
    try:
        return len(keras.tree.flatten(model.inputs or []))
    except AttributeError:
        return 1


def _input_rank(model: Any, layers: list[Any]) -> int | None:
    """Axes of a batch of the data, where the model or its first layer says."""
    inputs = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    if inputs:
        return len(keras.tree.flatten(inputs)[0].shape)
    first = next((layer for layer in layers if not is_identity(layer)), None)
    if isinstance(first, AdaptiveLayer) and first.built:
        return len(first.get_build_config()["input_shape"])
    return None


def is_identity(layer: Any) -> bool:
    """True for layers that give back their input at inference, value by value."""
    known = (keras.layers.InputLayer, keras.layers.Dropout, keras.layers.Identity)
    return isinstance(layer, known) or getattr(layer, "identity_at_inference", False) is True


def _sees_raw_data(layers: list[Any], target: Any) -> bool:
    return all(is_identity(layer) for layer in layers[: layers.index(target)])


def _prefix_batch_size(data: Any, batch_size: int | None) -> int | None:
    is_array = hasattr(data, "shape") and hasattr(data, "__getitem__")
    return PREFIX_BATCH if batch_size is None and is_array else batch_size


def _checked(source: Batches, layers: list[Any]) -> Batches:
    """The source; before its first batch goes out, layers that see it as it is may look at its values."""
    watchers = []
    for layer in layers:
        if hasattr(layer, "check_values"):
            watchers.append(layer)
        if not is_identity(layer):
            break

    def read() -> Iterator[np.ndarray]:
        for number, batch in enumerate(source):
            if number == 0:
                for layer in watchers:
                    layer.check_values(batch)
            yield batch

    return Batches(read, source.length, source.once)


class _Prefix:
    """What a layer of a model gets for a batch: runs the model and stops it where the layer is called.

    So it holds for every structure of models in models, and costs no copy and no second graph of the model.
    """

    def __init__(self, model: Any, layers: list[Any], layer: AdaptiveLayer) -> None:
        self._model, self._layers, self._layer = model, layers, layer

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self._watch(True)
        try:
            self._run(batch)
        except Captured as captured:
            seen = backend.to_numpy(captured.inputs)
        else:
            raise ValueError(f"{_title(self._model)} was run, and {self._layer.name!r} was not called in it.")
        finally:
            self._watch(False)
        # Layers that changed nothing but the dtype: the data itself, exact where it is of integers.
        return batch if seen.shape == batch.shape and np.array_equal(seen, batch) else seen

    def _watch(self, on: bool) -> None:
        self._layer._capture = on
        for layer in self._layers:
            if isinstance(layer, AdaptiveLayer):
                layer._lenient = on

    def _run(self, batch: np.ndarray) -> None:
        if isinstance(self._model, keras.Model):
            self._model(batch, training=False)
            return
        x: Any = batch
        for member in self._model:
            x = member(x, training=False) if _takes_training(member) else member(x)


def _takes_training(layer: Any) -> bool:
    return "training" in inspect.signature(layer.call).parameters
