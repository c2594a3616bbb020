"""Random layers that draw by a key, and are afterwards as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_norm_layers.kernels import backend

SEED_STATE = "seed_generator_state"  # what Keras names the variable of a `keras.random.SeedGenerator`


class Draws:
    """Lets the layers of a model draw by (seed, round, batch) alone, and puts back what a run in training mode changed.

    Each seed generator of Keras holds a seed and a counter. Before a batch they become a hash of the seed, the round
    and the generator's place in the model, and the number of the batch.

    Args:
        layers: those of the model, whose states are set and kept.
        learning: those of them that learn, whose states are not.
    """

    def __init__(self, layers: Sequence[Any], learning: Sequence[Any]) -> None:
        self._layers, self._learning = layers, learning
        self._kept: list[tuple[Any, np.ndarray]] | None = None
        self._seeds: list[Any] = []

    @property
    def begun(self) -> bool:
        """Whether the states are kept."""
        return self._kept is not None

    def begin(self) -> None:
        """Keeps the states (seeds, moving averages); all layers must be built, for many have a state only then."""
        learnt = {id(v) for layer in self._learning for v in layer.variables}  # a layer may be part of another
        found = [v for layer in self._layers for v in layer.variables]
        variables = {id(v): v for v in found if not v.trainable and id(v) not in learnt}
        self._kept = [(v, np.array(backend.to_numpy(keras.ops.convert_to_tensor(v)))) for v in variables.values()]
        self._seeds = [v for v in variables.values() if is_seed(v)]

    def at(self, seed: int, turn: int, batch: int) -> None:
        """The next draws are those of this batch."""
        for place, variable in enumerate(self._seeds):
            word = int(np.random.SeedSequence([seed, turn, place]).generate_state(1)[0]) % 2**31
            variable.assign(np.array([word, batch], str(variable.dtype)))

    def end(self) -> None:
        """Puts the states back."""
        for variable, value in self._kept or []:
            variable.assign(value)


def is_seed(variable: Any) -> bool:
    """Whether it is the state of a seed generator."""
    return variable.path.endswith(SEED_STATE)


def is_random(layer: Any) -> bool:
    """Whether a layer draws in training mode: it has a seed generator, or will have one when it is built."""
    return hasattr(layer, "call_with_key") or any(is_seed(variable) for variable in layer.variables)
