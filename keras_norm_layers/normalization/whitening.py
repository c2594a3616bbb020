"""Whitening: decorrelated values of variance one."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.kernels import backend, filters
from keras_norm_layers.layer import serializable
from keras_norm_layers.normalization.adaptive import AdaptiveLayer, size_of, to_host
from keras_norm_layers.normalization.whitening_matrices import (
    EPSILON_ON,
    KINDS,
    Rule,
    complement_gain,
    shrunk,
    whitening_matrix,
)
from keras_norm_layers.statistics.covariance import Covariance, CovarianceResult, check_memory
from keras_norm_layers.statistics.patches import PatchCovariance
from keras_norm_layers.statistics.shrinkage import METHODS
from keras_norm_layers.statistics.spectrum import Spectrum, SpectrumResult
from keras_norm_layers.validation import check_bool, check_choice, check_count, check_number

UNLIMITED = 2**31 - 1


@serializable
class ZCAWhitening(AdaptiveLayer):
    """Makes the values of images uncorrelated and of variance one.

    With C the covariance of the flattened images, (v_i, l_i) its eigenpairs, D its diagonal, P = D^-1/2 C D^-1/2 the
    correlation with eigenpairs (u_i, t_i), and g(l) = 1 / sqrt(l + epsilon), the layer applies W to the centred image
    (the five whitenings of Kessy, Lewin and Strimmer 2018):

    - "zca": W = sum v_i g(l_i) v_i'. Of all whitenings the one whose result looks most like the image.
    - "pca": W = the rows g(l_i) v_i': coordinates, largest variance first, the largest component of each v_i positive.
    - "zca-cor": W = sum u_i g(t_i) u_i' D^-1/2. Most like the standardized image; it does not depend on units.
    - "pca-cor": W = the rows g(t_i) u_i' D^-1/2.
    - "cholesky": W = L', where L L' = (C + epsilon I)^-1, L lower triangular. Each value is cleared of those after it.

    What is learnt, and what that costs, with d values an image:

    - By default all of C: d x d numbers, time in proportion to d^3; for images of some 3000 values.
    - ``rank=r``: the r leading eigenpairs, for images of any width, in one pass (``statistics.spectrum``). Kinds "zca"
      and "pca", the latter with an output of shape (N, r). The other directions are dropped, or, with
      ``complement="scale"``, scaled by the gain of their mean variance. ("zca-cor" with a rank: put
      ``FeaturewiseNormalization(axis=(1, 2, 3))`` before this layer.)
    - ``patch_size=p``: C of all p x p patches, and W applied as a convolution: each pixel becomes the centre pixel of
      its whitened patch. Translation invariant, for images (N, H, W, C), channels last, of any size from p x p up; at
      the border the image is mirrored about its outermost pixels. Kinds "zca" and "zca-cor"; ``rank`` then keeps that
      many directions of the patches.

    Directions in which the data does not vary at all (l_i = 0 within rounding: dead pixels, fewer images than values)
    are dropped. The formula would amplify them 1 / sqrt(epsilon) = 1000 times, and a new image that differs there would
    be drowned. The covariance of the output is the identity on all the other directions, as far as epsilon is small
    beside their variance. ``epsilon`` is an amount of variance, so its effect depends on the range of the values: the
    default of 1e-6 changes little for images in 0..255; for images in [0, 1] it takes part in every direction whose
    variance is near 1e-6 (nearly dead pixels), and 0.01 to 0.1 there keeps noise low.

    Input: images of one known shape (of any shape with ``patch_size``), any integer or float dtype. Output: the same
    shape, in the layer's dtype (float32 by default; computed in float32 always). Weights: ``count`` images, ``mean``
    (the image's shape) and ``matrix`` (d, d); or ``mean``, ``components`` (rank, d), ``gains`` (rank,),
    ``complement_gain``, ``variances`` (rank,) and ``total_variance``; or ``mean`` (p, p, C) and ``kernel`` (p, p, C,
    C).

    Args:
        rank: how many leading directions to keep; None for all.
        patch_size: height and width of the patches, an odd number of pixels; None for whole images.
        epsilon: keeps gains bounded where there is little variance; at least 0.
        kind: "zca", "pca", "zca-cor", "pca-cor" or "cholesky".
        invert: undo it; dropped directions come back as the mean. Not with ``patch_size``: the inverse of a convolution
            is none of that size.
        center: "pixel": each pixel has its own mean, as whitening asks. "channel": one mean a channel, and second
            moments about it, as ``ImageDataGenerator`` does it; the output then is not quite centred.
        shrinkage: replaces C by (1 - s) C + s trace(C) / d I, for few images: s as a number in [0, 1], or "ledoit-wolf"
            or "oas" to estimate it, equal to scikit-learn's. With ``rank`` these two need all eigenvalues, so no more
            images than the accumulator keeps exactly (2 rank, or rank + 32); with ``patch_size`` only a number goes,
            for patches overlap and the estimates are for independent samples.
        complement: with ``rank``: "drop" the other directions, or "scale" them.
        epsilon_on: "variance": g(l) = 1 / sqrt(l + epsilon), as textbooks have it. "std": g(l) = 1 / (sqrt(l) +
            epsilon). "singular_value": g(l) = sqrt(n) / (sqrt(n l) + epsilon), where sqrt(n l) is the singular value of
            the n centred images: the convention of ``ImageDataGenerator``.
        nan_policy: "raise" for an error where a value is NaN, "omit" to leave images that hold NaN out of what is
            learnt. Infinity is always an error.
        **kwargs: arguments of ``keras.layers.Layer``; ``dtype`` defaults to "float32".

    Raises:
        ValueError: for arguments out of bounds or that exclude each other, and images of unknown size.
        MemoryError: where what is learnt does not fit into memory, before any of it is taken, with the GB it needs.
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
        >>> patches = ZCAWhitening(patch_size=3, epsilon=0.1)
        >>> patches.adapt(rng.normal(size=(10, 32, 32, 3)))
        >>> tuple(patches.kernel.shape)
        (3, 3, 3, 3)
    """

    def __init__(
        self,
        rank: int | None = None,
        patch_size: int | None = None,
        epsilon: float = 1e-6,
        kind: str = "zca",
        invert: bool = False,
        center: str = "pixel",
        shrinkage: float | str | None = None,
        complement: str = "drop",
        epsilon_on: str = "variance",
        nan_policy: str = "raise",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        self.rank = rank if rank is None else check_count(name, "rank", rank, 1, UNLIMITED)
        self.patch_size = patch_size if patch_size is None else check_count(name, "patch_size", patch_size, 1, 255)
        self.epsilon = check_number(name, "epsilon", epsilon, low=0.0)
        self.kind = check_choice(name, "kind", kind, KINDS)
        self.invert = check_bool(name, "invert", invert)
        self.center = check_choice(name, "center", center, ("pixel", "channel"))
        if isinstance(shrinkage, str):
            self.shrinkage: Any = check_choice(name, "shrinkage", shrinkage, METHODS)
        else:
            self.shrinkage = shrinkage if shrinkage is None else check_number(name, "shrinkage", shrinkage, 0.0, 1.0)
        self.complement = check_choice(name, "complement", complement, ("drop", "scale"))
        self.epsilon_on = check_choice(name, "epsilon_on", epsilon_on, EPSILON_ON)
        self.nan_policy = check_choice(name, "nan_policy", nan_policy, ("raise", "omit"))
        self._check_combination(name)

    def _check_combination(self, name: str) -> None:
        kind, patch = self.kind, self.patch_size
        if patch is not None and patch % 2 == 0:
            raise ValueError(f"{name}: `patch_size` must be odd, for a patch needs a centre pixel. Received: {patch}")
        if patch is not None and not kind.startswith("zca"):
            raise ValueError(
                f"{name}: with `patch_size` only kind='zca' and 'zca-cor' have an output that is an image. "
                f"Received: kind={kind!r}"
            )
        if patch is not None and self.invert:
            raise ValueError(
                f"{name}: invert=True cannot undo patch_size={patch}: the inverse of a convolution is none of that "
                f"size. Keep the images from before, or whiten whole images (rank=)."
            )
        if self.rank is not None and kind not in (("zca", "zca-cor") if patch else ("zca", "pca")):
            hint = ""
            if kind.endswith("-cor"):
                hint = f" Put FeaturewiseNormalization(axis=(1, 2, 3)) before and take kind={kind[:3]!r}: the same."
            raise ValueError(
                f"{name}: with `rank` only kind='zca' and 'pca' are possible, for one pass keeps the leading "
                f"directions of the covariance.{hint} Received: kind={kind!r}"
            )
        if patch is not None and isinstance(self.shrinkage, str):
            raise ValueError(
                f"{name}: shrinkage={self.shrinkage!r} is an estimate for independent samples, and patches overlap. "
                f"Give a number in [0, 1] with `patch_size`; with thousands of patches there is hardly a need."
            )
        if self.complement == "scale" and (self.rank is None or kind == "pca"):
            raise ValueError(
                f"{name}: complement='scale' needs a `rank`, and kind='zca'; without one no direction is left over. "
                f"Received: rank={self.rank}, kind={kind!r}"
            )
        if kind == "cholesky" and self.epsilon_on != "variance":
            raise ValueError(
                f"{name}: kind='cholesky' adds `epsilon` to variances: leave epsilon_on='variance'. "
                f"Received: epsilon_on={self.epsilon_on!r}"
            )

    # -- learning -----------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Creates the weights for images of this shape, all of it known but the batch size (and, for patches, the
        height and width).
        """
        shape = tuple(input_shape)
        if self.patch_size is not None:
            self._build_patches(shape)
        else:
            self._build_whole(shape)
        self.count = self._add_statistic("count", (), 0.0)
        self.built = True

    def _build_patches(self, shape: tuple[Any, ...]) -> None:
        assert self.patch_size is not None
        if len(shape) != 4 or shape[-1] is None:
            raise ValueError(
                f"{self._title()}: `patch_size` takes images (N, H, W, C), channels last, with C known. Received input "
                f"shape {shape}."
            )
        self._check_reach(shape[1:3])
        self._built_for = (None, None, None, shape[-1])
        self._size = self.patch_size**2 * shape[-1]
        self._check_rank(shape)
        side = (self.patch_size, self.patch_size, shape[-1])
        self.mean = self._add_statistic("mean", side)
        self.kernel = self._add_statistic("kernel", (*side, shape[-1]))

    def _build_whole(self, shape: tuple[Any, ...]) -> None:
        if len(shape) < 2 or None in shape[1:]:
            raise ValueError(
                f"{self._title()}: the shape of an image must be known in full. Received input shape {shape}. Name the "
                f"sizes in keras.Input, resize the images first, or give patch_size=."
            )
        self._built_for = (None, *shape[1:])
        self._size = size_of(shape[1:])
        self._check_rank(shape)
        self.mean = self._add_statistic("mean", shape[1:])
        if self.rank is None:
            check_memory(self._size)
            self.matrix = self._add_statistic("matrix", (self._size, self._size))
            return
        Spectrum(self._size, self.rank)  # says whether it fits into memory, and takes none
        self.components = self._add_statistic("components", (self.rank, self._size))
        self.gains = self._add_statistic("gains", (self.rank,))
        self.complement_gain = self._add_statistic("complement_gain", ())
        self.variances = self._add_statistic("variances", (self.rank,))
        self.total_variance = self._add_statistic("total_variance", ())

    def _check_rank(self, shape: tuple[Any, ...]) -> None:
        if self.rank is not None and self.rank > self._size:
            what = "a patch" if self.patch_size else "an image"
            raise ValueError(
                f"{self._title()}: `rank` must be at most the number of values of {what}, {self._size} for input shape "
                f"{shape}. Received: rank={self.rank}"
            )

    def _check_reach(self, sides: Any) -> None:
        if any(isinstance(n, int) and n < (self.patch_size or 1) for n in sides):
            raise ValueError(
                f"{self._title()}: images must be at least as large as patch_size={self.patch_size}. Received height "
                f"and width {tuple(sides)}."
            )

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """With ``rank``: the share of the total variance in each kept direction, (rank,).

        Raises:
            RuntimeError: for a layer without ``rank``, or one that was never built.
        """
        if not hasattr(self, "variances"):  # no AttributeError: on torch Keras would replace its message
            raise RuntimeError(f"{self._title()} has no explained_variance_ratio: it needs rank= and adapt().")
        total = to_host(self.total_variance)
        return to_host(self.variances) / np.where(total == 0, 1.0, total)

    def empty_accumulator(self) -> Covariance | Spectrum:
        """A covariance of the flattened images or patches, or a spectrum of the images."""
        if self.patch_size is not None:
            return PatchCovariance(self.patch_size, self._built_for[-1], self.nan_policy)
        if self.rank is not None:
            return Spectrum(self._size, self.rank, nan_policy=self.nan_policy)
        return Covariance(self._size, self.nan_policy)

    def restore_accumulator(self, state: dict[str, np.ndarray]) -> Covariance | Spectrum:
        """The accumulator from its saved state."""
        kind = PatchCovariance if self.patch_size is not None else Spectrum if self.rank is not None else Covariance
        return kind.from_state(state)

    def statistics_of(self, accumulator: Any) -> dict[str, np.ndarray]:
        """The values of the weights."""
        found = accumulator.result(self._middle(accumulator))
        if isinstance(found, SpectrumResult):
            return self._leading(found)
        moment = self._shrunk_moment(found)
        rule = self._rule(found.samples)
        if self.patch_size is None:
            matrix = whitening_matrix(moment, rule, self.kind)
            return {"mean": found.mean, "matrix": matrix, "count": np.array(found.images)}
        matrix = whitening_matrix(moment, rule, self.kind, self.rank, self.complement == "scale")
        shape = (self.patch_size, self.patch_size, self._built_for[-1])
        half = self.patch_size // 2
        kernel = matrix.reshape(*shape, *shape)[:, :, :, half, half]
        return {"mean": found.mean.reshape(shape), "kernel": kernel, "count": np.array(found.images)}

    def _middle(self, accumulator: Any) -> np.ndarray | None:
        """The point that takes the place of the mean; None for the mean itself."""
        if self.center == "pixel" or not accumulator.images:
            return None
        by_channel = accumulator.mean.reshape(-1, self._built_for[-1] or 1)
        return np.broadcast_to(by_channel.mean(0), by_channel.shape).ravel()

    def _rule(self, samples: int) -> Rule:
        return Rule(self.epsilon, self.epsilon_on, samples, self.invert)

    def _share(self, found: CovarianceResult | SpectrumResult) -> float:
        if isinstance(self.shrinkage, str):
            return found.shrinkage(self.shrinkage)
        return self.shrinkage or 0.0

    def _shrunk_moment(self, found: CovarianceResult) -> np.ndarray:
        share, moment = self._share(found), found.covariance
        if share:
            target = share * np.trace(moment) / len(moment)
            moment = (1 - share) * moment
            moment[np.diag_indices(len(moment))] += target
        return moment

    def _leading(self, found: SpectrumResult) -> dict[str, np.ndarray]:
        there, rule = found.values > 0, self._rule(found.images)
        values = shrunk(found.values[there], self._share(found), found.total_variance, self._size)
        gains = np.zeros(len(there))
        gains[there] = rule.gains(values)
        rest = 0.0
        if self.complement == "scale":
            rest = complement_gain(values, found.total_variance, self._size, rule)
        return {
            "mean": found.mean,
            "components": found.vectors,
            "gains": gains,
            "complement_gain": np.array(rest),
            "variances": found.values,
            "total_variance": np.array(found.total_variance),
            "count": np.array(found.images),
        }

    # -- applying -----------------------------------------------------------------------------------------------------

    @property
    def _in_coordinates(self) -> bool:
        """True where one side of the layer is no image but ``rank`` coordinates."""
        return self.rank is not None and self.kind == "pca"

    def _check_shape(self, shape: Any) -> None:
        given = tuple(n if isinstance(n, int) else None for n in shape)
        if self._in_coordinates and self.invert and given[-1:] == (self.rank,) and len(given) <= 2:
            return
        super()._check_shape(shape)
        if self.patch_size is not None:
            self._check_reach(given[-3:-1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input; with ``rank`` and kind "pca" (N, rank), and the other way round with ``invert``."""
        shape = tuple(input_shape)
        if not self._in_coordinates:
            return shape
        if not self.invert:
            return (*shape[:1], self.rank)
        return (*shape[:1], *self._built_for[1:]) if self.built else shape

    def transform(self, x: Any) -> Any:
        """The formula, on float32 tensors."""
        xp = backend.namespace(x)
        if self.patch_size is not None:
            single = len(x.shape) == 3
            y = self._convolved(xp, x[None] if single else x)
            return y[0] if single else y
        shape, inside = xp.shape(x), self._built_for[1:]
        incoming = (self.rank,) if self._in_coordinates and self.invert else inside
        outgoing = (self.rank,) if self._in_coordinates and not self.invert else inside
        single = len(shape) == len(incoming)
        flat = xp.reshape(x, (1 if single else shape[0], size_of(incoming)))
        mean = xp.reshape(backend.read(self.mean, x), (1, self._size))
        y = self._flat(xp, flat if self.invert else flat - mean, x)
        y = y + mean if self.invert else y
        # A batch of open size keeps its static image shape.
        return xp.reshape(y, outgoing if single else (shape[0], *outgoing))

    def _flat(self, xp: Any, centred: Any, x: Any) -> Any:
        """The matrix on rows of values, as one product or as two thin ones."""
        if self.rank is None:
            return xp.matmul(centred, backend.read(self.matrix, x))
        components, gains = (backend.read(v, x) for v in (self.components, self.gains))
        if self._in_coordinates:
            if self.invert:
                return xp.matmul(centred * gains[None], components)
            return xp.matmul(centred, xp.transpose(components, (1, 0))) * gains[None]
        rest = backend.read(self.complement_gain, x)
        y = xp.matmul(xp.matmul(centred, xp.transpose(components, (1, 0))) * (gains - rest)[None], components)
        return y if self.complement == "drop" else y + centred * rest

    def _convolved(self, xp: Any, images: Any) -> Any:
        """Each pixel becomes the centre of its whitened patch."""
        mean, kernel = backend.read(self.mean, images), backend.read(self.kernel, images)
        # Centred first: sums of large values times large gains would lose the digits that matter.
        middle = xp.mean(mean, (0, 1))
        bias = xp.sum(kernel * (mean - middle)[..., None], (0, 1, 2))
        padded = filters.mirrored(images - middle, (self.patch_size or 1) // 2)
        return xp.correlate(padded, kernel) - bias
