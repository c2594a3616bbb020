"""``adapt``: all adaptable layers of a model, in order."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_norm_layers.kernels import backend
from keras_norm_layers.normalization.adaptive import AdaptiveLayer
from keras_norm_layers.normalization.draws import Draws, is_random
from keras_norm_layers.normalization.learning import Draw, Pass, learn
from keras_norm_layers.normalization.structure import has_known_order, in_passes, layers_of
from keras_norm_layers.validation import check_bool, check_count

MOST_ROUNDS = 1_000_000


def adapt(
    model: Any,
    data: Any,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: Any = "auto",
    key: str | None = None,
    *,
    augment: bool = False,
    rounds: int = 1,
    sample: float | None = None,
    seed: int | None = None,
    checkpoint: Any = None,
) -> None:
    """Adapts every adaptable layer of a model, in as few passes over the data as their order allows.

    A layer sees what the layers before it give at inference (``training=False``): random layers do nothing, statistics
    adapted before are applied. Where only layers stand before it that leave values as they are, it sees the data
    itself, so integers are summed exactly. Layers whose statistics were given as arguments are left alone. When
    anything fails, all layers keep the statistics they had.

    A layer that stands behind another adapting one needs a pass of its own, after that one's; layers in branches of a
    Functional model that do not depend on each other share one. (In a Sequential, a list or a subclassed model each
    layer counts as standing behind those before it.) Where several passes are needed, arrays and lists are read again,
    a function is called again, and the batches of everything else (datasets, folders, loaders, generators) are kept in
    memory while they take no more than half of what is free; then datasets are read anew for each pass.

    Args:
        model: a Sequential or Functional model with one input (models inside it included), a subclassed model that is
            built, one layer, or a list of layers in the order in which they are applied.
        data: as for ``layer.adapt``; what is read only once (a generator) serves several passes if it fits into memory.
        batch_size: images a batch, where the data does not come in batches.
        steps: batches to read for each pass; default all.
        verbose: 0 no progress bar, 1 a bar, "auto" a bar for what takes longer than two seconds.
        key: the entry of a dictionary that holds the images.
        augment: learn from augmented copies of the images, as ``ImageDataGenerator.fit(augment=True)`` does: the layers
            before run as in training (``training=True``), so random ones draw. What they draw is decided by ``seed``,
            the round and the number of the batch; afterwards their own seeds, and the moving averages of other layers,
            are as they were.
        rounds: with ``augment``, how many augmented copies of the data to learn from, each with draws of its own.
        sample: the share of the images to learn from, above 0 and at most 1. Default: all.
        seed: an integer in [0, 2**31): decides the draws and the sample. Default: a random one.
        checkpoint: the path of a file that keeps what is learnt so far, see ``layer.adapt``. The same call goes on from
            there: in the pass, round and batch where it stopped.

    Raises:
        ValueError: for a model without adaptable layers or with several inputs, a generator for several passes that
            does not fit into memory, ``augment`` where no layer is random, ``rounds`` without ``augment``, a
            ``checkpoint`` that this call cannot continue; and as ``layer.adapt``.

    Example:
        >>> import keras, numpy as np
        >>> from keras_norm_layers.normalization import FeaturewiseNormalization
        >>> model = keras.Sequential([keras.Input((2,)), FeaturewiseNormalization()])
        >>> adapt(model, np.array([[1.0, 10.0], [3.0, 30.0]]))
        >>> model.predict(np.array([[2.0, 40.0]]), verbose=0).round(3).tolist()
        [[0.0, 2.0]]
    """
    layers = layers_of(model)
    targets = _targets(model, layers)
    before = layers[: layers.index(targets[-1])] if has_known_order(model) else layers
    draws = _checked_draws(augment, rounds, before, targets, layers)
    passes: list[Pass] = []
    for group in in_passes(model, targets):
        view = _View(model, layers, group, draws, first=not passes)
        passes.append(Pass(group, view, runs_layers=not view.is_raw))
    try:
        learn(
            passes,
            data,
            batch_size=batch_size,
            steps=steps,
            rank=_input_rank(model, layers),
            key=key,
            sample=sample,
            seed=seed,
            rounds=rounds,
            augment=augment,
            verbose=verbose,
            checkpoint=checkpoint,
            before=before,
        )
    finally:
        if draws is not None:
            draws.end()


def _targets(model: Any, layers: Sequence[Any]) -> list[AdaptiveLayer]:
    """The layers to adapt, each once."""
    found = {id(la): la for la in layers if isinstance(la, AdaptiveLayer) and not la.has_given_statistics}
    targets = list(found.values())
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
    return targets


def _checked_draws(
    augment: bool, rounds: int, before: Sequence[Any], targets: Sequence[Any], layers: Sequence[Any]
) -> Draws | None:
    check_bool("adapt", "augment", augment)
    check_count("adapt", "rounds", rounds, 1, MOST_ROUNDS)
    if not augment:
        if rounds > 1:
            raise ValueError(
                f"adapt: each of several rounds would see the same images. Set augment=True, or leave out `rounds`. "
                f"Received: rounds={rounds}, augment=False"
            )
        return None
    if not any(is_random(layer) for layer in before):
        raise ValueError(
            f"adapt: with augment=True a random layer (one with a keras.random.SeedGenerator, such as RandomFlip) must "
            f"stand before {targets[-1].name!r}. The layers that may: {[layer.name for layer in before]}"
        )
    return Draws(layers, targets)


def _title(model: Any) -> str:
    return f"{type(model).__name__} {model.name!r}" if hasattr(model, "name") else f"the list of {len(model)} layers"


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


def is_identity(layer: Any, training: bool = False) -> bool:
    """True for layers that give back their input at inference (or in training), value by value."""
    if isinstance(layer, (keras.layers.InputLayer, keras.layers.Identity)):
        return True
    silent = isinstance(layer, keras.layers.Dropout) or getattr(layer, "identity_at_inference", False) is True
    return silent and not training


class Captured(BaseException):
    """Stops a model that was run just to see what its layers get; no error, so nobody must catch it."""


class _View:
    """What layers of a model get for a batch: runs the model until all of them were called.

    So it holds for every structure of models in models, and costs no copy and no second graph of the model. The layers
    do not depend on each other, so it does not matter what those that are called first give on.
    """

    def __init__(
        self, model: Any, layers: Sequence[Any], targets: Sequence[AdaptiveLayer], draws: Draws | None, first: bool
    ) -> None:
        self._model, self._layers, self._targets, self._draws = model, layers, targets, draws
        self._unchecked = first  # the first batch of all is shown to the layers that see it as it is
        self._seen: dict[int, Any] = {}
        last = max(layers.index(target) for target in targets)
        identities = all(is_identity(layer, draws is not None) for layer in layers[:last])
        self.is_raw = identities and has_known_order(model)

    def __call__(self, batch: np.ndarray, draw: Draw) -> list[np.ndarray]:
        if self._unchecked:
            self._check_values(backend.to_numpy(batch))
            self._unchecked = False
        if self.is_raw:
            return [batch] * len(self._targets)
        if self._draws is not None:
            if not self._draws.begun:
                self._capture(batch, training=False)  # layers that are not built yet have no seeds
                self._draws.begin()
            self._draws.at(draw.seed or 0, draw.round, draw.batch)
        seen = self._capture(batch, training=self._draws is not None)
        # Layers that changed nothing but the dtype: the data itself, exact where it is of integers.
        return [batch if x.shape == batch.shape and np.array_equal(x, batch) else x for x in seen]

    def __getstate__(self) -> dict[str, Any]:
        """For another process, that only looks: the model as a file has it, and the places of the layers in it."""
        places = [next(i for i, layer in enumerate(self._layers) if layer is target) for target in self._targets]
        return {"model": self._model, "places": places, "is_raw": self.is_raw}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._model, self.is_raw = state["model"], state["is_raw"]
        self._layers = layers_of(self._model)
        self._targets = [self._layers[place] for place in state["places"]]
        self._draws, self._unchecked, self._seen = None, False, {}

    def _check_values(self, batch: np.ndarray) -> None:
        for layer in self._layers:
            if hasattr(layer, "check_values"):
                layer.check_values(batch)
            if not is_identity(layer):
                break

    def _capture(self, batch: np.ndarray, training: bool) -> list[np.ndarray]:
        self._seen = {}
        self._watch(True)
        try:
            self._run(batch, training)
        except Captured:
            pass
        finally:
            self._watch(False)
        missed = [target.name for target in self._targets if id(target) not in self._seen]
        if missed:
            raise ValueError(f"{_title(self._model)} was run, and {missed} were not called in it.")
        return [backend.to_numpy(self._seen[id(target)]) for target in self._targets]

    def _note(self, layer: AdaptiveLayer, inputs: Any) -> None:
        self._seen.setdefault(id(layer), inputs)
        if len(self._seen) == len(self._targets):
            raise Captured

    def _watch(self, on: bool) -> None:
        for target in self._targets:
            target._capture = self._note if on else None
        for layer in self._layers:
            if isinstance(layer, AdaptiveLayer):
                layer._lenient = on

    def _run(self, batch: np.ndarray, training: bool) -> None:
        if isinstance(self._model, keras.Model):
            self._model(batch, training=training)
            return
        x: Any = batch
        for member in self._model if isinstance(self._model, (list, tuple)) else [self._model]:
            x = member(x, training=training) if _takes_training(member) else member(x)


def _takes_training(layer: Any) -> bool:
    return "training" in inspect.signature(layer.call).parameters
