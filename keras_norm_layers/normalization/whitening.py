"""Whitening: decorrelated values of variance one."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend
from keras_norm_layers.layer import serializable
from keras_norm_layers.normalization.adaptive import AdaptiveLayer, size_of
from keras_norm_layers.statistics.covariance import Covariance, check_memory
from keras_norm_layers.validation import check_bool, check_choice, check_number


@serializable
class ZCAWhitening(AdaptiveLayer):
    """Makes the values of images uncorrelated and of variance one, by the full covariance of a data set.

    With eigenpairs (v_i, l_i) of the covariance, kind "zca" applies W = sum v_i v_i' / sqrt(l_i + epsilon) to the
    centred, flattened image: of all whitenings the one whose result looks most like the image. Kind "pca" gives the
    coordinates v_i' x / sqrt(l_i + epsilon) themselves, largest variance first, in an array of the image's shape; the
    largest component of each v_i is positive, so the signs do not depend on the machine.

    Directions in which the data does not vary at all (l_i = 0 within rounding: dead pixels, fewer images than values)
    are dropped. The formula would amplify them 1 / sqrt(epsilon) = 1000 times, and a new image that differs there would
    be drowned. The covariance of the output is the identity on all the other directions, as far as epsilon is small
    beside their variance. ``epsilon`` is an amount of variance, so its effect depends on the range of the values: the
    default of 1e-6 changes little for images in 0..255; for images in [0, 1] it takes part in every direction whose
    variance is near 1e-6 (nearly dead pixels), and 0.01 to 0.1 there keeps noise low.

    Input: images of one known shape, any integer or float dtype. Output: the same shape, in the layer's dtype
    (float32 by default; computed in float32 always). Weights: ``mean`` (the image's shape), ``matrix`` (d, d) for d
    values an image, ``count`` images. Learning takes 6 arrays of d x d float64 and time in proportion to d^3.

    Args:
        epsilon: added to each variance.
        kind: "zca" or "pca".
        center: "pixel": each pixel has its own mean, as whitening asks. "channel": one mean a channel, and second
            moments about it, as ``ImageDataGenerator`` does it; the output then is not quite centred.
        invert: undo it; dropped directions come back as the mean.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for arguments out of bounds and images of unknown size.
        MemoryError: where the covariance does not fit into memory, before any of it is taken, with the GB it needs.
        RuntimeError: when it is called before it adapted.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> images = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 10
        >>> layer = ZCAWhitening()
        >>> layer.adapt(images)
        >>> white = np.asarray(layer(images))
        >>> bool(np.allclose(np.cov(white.T, bias=True), np.eye(4), atol=1e-3))
        True
    """

    def __init__(
        self,
        epsilon: float = 1e-6,
        kind: str = "zca",
        center: str = "pixel",
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.epsilon = check_number(name, "epsilon", epsilon, low=0.0)
        self.kind = check_choice(name, "kind", kind, ("zca", "pca"))
        self.center = check_choice(name, "center", center, ("pixel", "channel"))
        self.invert = check_bool(name, "invert", invert)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for images of this shape, all of it known but the batch size."""
        shape = tuple(input_shape)
        if len(shape) < 2 or None in shape[1:]:
            raise ValueError(
                f"{self._title()}: the shape of an image must be known in full. Received input shape {shape}. Name the "
                f"sizes in keras.Input, or resize the images first."
            )
        self._size = size_of(shape[1:])
        check_memory(self._size)
        self._built_for = (None, *shape[1:])
        self.mean = self._add_statistic("mean", shape[1:])
        self.matrix = self._add_statistic("matrix", (self._size, self._size))
        self.count = self._add_statistic("count", (), 0.0)
        self.built = True

    def empty_accumulator(self) -> Covariance:
        """A covariance of the flattened images."""
        return Covariance(self._size)

    def restore_accumulator(self, state: dict[str, np.ndarray]) -> Covariance:
        """A covariance from its saved state."""
        return Covariance.from_state(state)

    def statistics_of(self, accumulator: Covariance) -> dict[str, np.ndarray]:
        """mean, matrix and count."""
        images, mean, moment = accumulator.result()
        if self.center == "channel":
            by_channel = mean.reshape(-1, self._built_for[-1] or 1)
            middle = np.broadcast_to(by_channel.mean(0), by_channel.shape).ravel()
            moment += np.outer(mean - middle, mean - middle)
            mean = middle
        matrix = whitening_matrix(moment, self.epsilon, self.kind, self.invert)
        return {"mean": mean, "matrix": matrix, "count": np.array(images)}

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        xp = backend.namespace(x)
        shape = xp.shape(x)
        single = len(shape) == len(self._built_for) - 1
        flat = xp.reshape(x, (1 if single else shape[0], self._size))
        mean = xp.reshape(backend.read(self.mean, x), (1, self._size))
        matrix = backend.read(self.matrix, x)
        y = xp.matmul(flat, matrix) + mean if self.invert else xp.matmul(flat - mean, matrix)
        # A batch of open size keeps its static image shape.
        return xp.reshape(y, self._built_for[1:] if single else (shape[0], *self._built_for[1:]))


def whitening_matrix(moment: np.ndarray, epsilon: float, kind: str = "zca", invert: bool = False) -> np.ndarray:
    """The (d, d) float64 matrix that a row vector of centred values is multiplied with from the right.

    Args:
        moment: covariance, (d, d), symmetric.
        epsilon: added to its eigenvalues.
        kind: "zca" or "pca".
        invert: the way back (the pseudo-inverse, where directions were dropped).
    """
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    # Rounding leaves zeros of this size in the eigenvalues of a d x d matrix in float64.
    alive = values > max(values[0], 0.0) * len(values) * 10 * np.finfo("float64").eps
    root = np.sqrt(np.where(alive, values + epsilon, 1.0))
    gains = np.where(alive, root if invert else 1.0 / root, 0.0)
    if kind == "zca":
        return (vectors * gains) @ vectors.T
    largest = np.abs(vectors).argmax(0)
    vectors = vectors * np.where(vectors[largest, np.arange(len(values))] < 0, -1.0, 1.0)
    return (vectors * gains).T if invert else vectors * gains
