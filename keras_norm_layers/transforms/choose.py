"""Choices, an image and not a batch: which of some transforms act. They are gates, not branches (``layout.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import ChoiceTransform, check_transforms
from keras_norm_layers.transforms.sampling import Choice, Distribution, Integers, Key


@serializable
class Maybe(ChoiceTransform):
    """Runs a list of transforms on an image, or none of them.

    (The ``p`` of a transform decides for that transform alone; here all of them act together.)

    Args:
        transforms: a transform, or a list of them.
        p: the probability that they act, in [0, 1]; default 0.5. Drawn for each image.
        seed, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> both = [knl.RandomFlip("horizontal"), knl.RandomBrightness((0.2, 0.2))]
    >>> black = np.zeros((64, 4, 4, 1), dtype="uint8")
    >>> sorted({float(image.mean()) for image in np.asarray(knl.Maybe(both, p=0.5, seed=1)(black))})
    [0.0, 51.0]
    """

    def __init__(self, transforms: Any, p: float = 0.5, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(p=p, seed=seed, **kwargs)
        several = isinstance(transforms, (list, tuple))
        self.transforms = check_transforms("Maybe", transforms if several else [transforms])

    def specs(self) -> dict[str, Distribution]:
        return {}

    def branches(self) -> list[list[Any]]:
        return [self.transforms]

    def gates(self, params: dict[str, Any]) -> list[Any]:
        return [None]


class Selection(ChoiceTransform):
    """A choice among several branches; each is a transform or a list of them."""

    def __init__(self, transforms: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.transforms = check_transforms(type(self).__name__, transforms, nested=True)

    def branches(self) -> list[list[Any]]:
        return [branch if isinstance(branch, list) else [branch] for branch in self.transforms]


@serializable
class OneOf(Selection):
    """Runs one of several transforms, chosen for each image.

    What was not chosen is the identity. Geometric ones cost nothing, for only their matrices are chosen among; of up to
    three branches the others are computed for all images in compiled code, of more for those that chose them.

    Args:
        transforms: what to choose from: a list of transforms, or of lists that act as a whole.
        weights: a positive number for each: how likely it is, relative to the others. None (default): equally likely.
        p: the probability that any acts at all, default 1.0.
        seed, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> either = knl.OneOf([knl.RandomBrightness((0.2, 0.2)), knl.RandomBrightness((0.4, 0.4))], seed=1)
    >>> black = np.zeros((64, 4, 4, 1), dtype="uint8")
    >>> sorted({float(image.mean()) for image in np.asarray(either(black))})
    [51.0, 102.0]
    """

    def __init__(
        self, transforms: Sequence[Any], weights: Sequence[float] | None = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(transforms, seed=seed, **kwargs)
        self.weights_argument = weights
        given = [1.0] * len(self.transforms) if weights is None else list(weights)
        if len(given) != len(self.transforms) or not all(validation.is_number(w) and 0 < w < 1e9 for w in given):
            raise ValueError(
                f"OneOf: `weights` must be {len(self.transforms)} positive numbers, one for each of `transforms`. "
                f"Received: weights={weights!r}"
            )
        self._weights = tuple(float(weight) for weight in given)

    def specs(self) -> dict[str, Distribution]:
        return {"choice": Choice(self._weights)}

    def gates(self, params: dict[str, Any]) -> list[Any]:
        choice = params["choice"]
        cast = backend.namespace(choice).cast
        return [cast(choice == float(number), "float32") for number in range(len(self.transforms))]


@serializable
class SomeOf(Selection):
    """Runs ``n`` different ones of several transforms, chosen for each image; they act in the order of the list.

    Args:
        transforms: what to choose from: a list of transforms, or of lists that act as a whole.
        n: how many, from 1 to the length of the list; default 2. A pair (lowest, highest) draws a number an image.
        p: the probability that any acts at all, default 1.0.
        seed, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> shades = [knl.RandomBrightness((level, level)) for level in (0.1, 0.2, 0.4)]
    >>> black = np.zeros((64, 4, 4, 1), dtype="uint8")
    >>> sorted({round(float(image.mean()), 1) for image in np.asarray(knl.SomeOf(shades, 2, seed=1)(black))})
    [76.5, 127.5, 153.0]
    """

    def __init__(self, transforms: Sequence[Any], n: Any = 2, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(transforms, seed=seed, **kwargs)
        self.n = n
        pair = list(n) if isinstance(n, (tuple, list)) and len(n) == 2 else [n, n]
        low, high = (validation.check_count(type(self).__name__, "n", v, 1, len(self.transforms)) for v in pair)
        self._count = Integers(low, high, identity=low)
        if low > high:
            raise ValueError(f"{type(self).__name__}: `n` must be a pair (lowest, highest). Received: n={n!r}")

    def specs(self) -> dict[str, Distribution]:
        keys: dict[str, Distribution] = {f"key {number}": Key() for number in range(len(self.transforms))}
        return keys if self._count.low == self._count.high else {**keys, "n": self._count}

    def gates(self, params: dict[str, Any]) -> list[Any]:
        return chosen(
            [params[f"key {number}"] for number in range(len(self.transforms))], params.get("n", self._count.low)
        )


def chosen(keys: list[Any], n: Any) -> list[Any]:
    """For each of several keys (N,): 1.0 where it is among the ``n`` smallest of its image, else 0.0.

    ``n`` is a number, or a tensor (N,).
    """
    xp = backend.namespace(keys[0])
    every = xp.stack(keys, 1)
    other, key = every[:, None, :], every[:, :, None]
    # Of equal keys the first counts as smaller, so that there are n whatever is drawn.
    first = xp.constant(_triangle, len(keys))
    before = xp.sum(xp.where(other == key, first, xp.cast(other < key, "float32")), 2)
    gates = xp.cast(before < (n if isinstance(n, int) else n[:, None]), "float32")
    return [gates[:, number] for number in range(len(keys))]


def _triangle(size: int) -> np.ndarray:
    """1 below the diagonal: [i, j] says that j stands before i."""
    return np.tril(np.ones((size, size), "float32"), -1)
