"""Several moves as one transform, and the general planar one."""

from __future__ import annotations

import math
from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, matrices
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import GeometricTransform
from keras_norm_layers.transforms.sampling import Coin, Distribution, Sign, Uniform

OLD_NAMES = ("rotation_range", "width_shift_range", "height_shift_range", "shear_range", "zoom_range")


@serializable
class RandomAffine(GeometricTransform):
    """Zooms, slants, turns and moves images: ``RandomZoom``, ``RandomShear``, ``RandomRotation`` and
    ``RandomTranslation`` in this order, as one transform; or the random affine map of ``ImageDataGenerator``.

    Args:
        rotation_factor: as ``RandomRotation(factor)``: fractions of a full turn. Default 0.
        height_factor, width_factor: as in ``RandomTranslation``: parts of the height, and of the width. Default 0.
        zoom_height_factor, zoom_width_factor: as in ``RandomZoom``; the second None (default) keeps the aspect ratio.
        shear_x_factor, shear_y_factor: as in ``RandomShear``, but about the centre. Default 0.
        rotation_range: instead of all these, in the words of ``ImageDataGenerator``: degrees r, for [-r, r].
        width_shift_range, height_shift_range: a number below 1 is a part of the side, from 1 on it is pixels; w for
            [-w, w].
        shear_range: degrees s of the shear angle, for [-s, s].
        zoom_range: z for [1 - z, 1 + z], or a pair (lower, upper): the part of the image that is seen, drawn apart for
            height and width.
        fill_mode, interpolation, fill_value, antialias: see ``GeometricTransform``.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    ``ImageDataGenerator`` reads an output pixel at (row, column) from the input at R T S Z (row, column), about the
    centre: R turns by the angle, T shifts, S is [[1, -sin s], [0, cos s]], Z scales by the zoom. Its fill modes are
    SciPy's, where "wrap" overlaps the two edge pixels; here it is periodic.

    Raises an error if arguments of both kinds are given.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> images = np.full((2, 8, 8, 3), 9, dtype="uint8")
    >>> old = knl.RandomAffine(rotation_range=20, width_shift_range=0.1, zoom_range=(0.8, 1.2), seed=1)
    >>> np.asarray(old(images)).shape
    (2, 8, 8, 3)
    """

    def __init__(
        self,
        rotation_factor: Any = 0.0,
        height_factor: Any = 0.0,
        width_factor: Any = 0.0,
        zoom_height_factor: Any = 0.0,
        zoom_width_factor: Any = None,
        shear_x_factor: Any = 0.0,
        shear_y_factor: Any = 0.0,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        *,
        rotation_range: float | None = None,
        width_shift_range: float | None = None,
        height_shift_range: float | None = None,
        shear_range: float | None = None,
        zoom_range: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode=fill_mode, interpolation=interpolation, fill_value=fill_value, seed=seed, **kwargs)
        self.rotation_factor, self.height_factor, self.width_factor = rotation_factor, height_factor, width_factor
        self.zoom_height_factor, self.zoom_width_factor = zoom_height_factor, zoom_width_factor
        self.shear_x_factor, self.shear_y_factor = shear_x_factor, shear_y_factor
        self.rotation_range, self.shear_range, self.zoom_range = rotation_range, shear_range, zoom_range
        self.width_shift_range, self.height_shift_range = width_shift_range, height_shift_range
        self._old = any(getattr(self, name) is not None for name in OLD_NAMES)
        self._ranges = self._check_old() if self._old else self._check_new()

    def _check_new(self) -> dict[str, tuple[float, float]]:
        def check(name: str, low: float = -1.0) -> tuple[float, float]:
            return validation.check_factor("RandomAffine", name, getattr(self, name), low, 1.0)

        result = {"turns": check("rotation_factor"), "down": check("height_factor"), "right": check("width_factor")}
        result["zoom_height"] = check("zoom_height_factor")
        if self.zoom_width_factor is not None:
            result["zoom_width"] = check("zoom_width_factor")
        for name in ("zoom_height", "zoom_width"):
            if name in result and result[name][0] <= -1.0:
                raise ValueError(
                    f"RandomAffine: `{name}_factor` must stay above -1, where an image would be enlarged without end. "
                    f"Received: {name}_factor={getattr(self, name + '_factor')!r}"
                )
        result["shear_x"], result["shear_y"] = check("shear_x_factor"), check("shear_y_factor")
        if max(map(abs, result["shear_x"])) * max(map(abs, result["shear_y"])) >= 1.0:
            raise ValueError(
                "RandomAffine: the largest `shear_x_factor` times the largest `shear_y_factor` must be below 1, or the "
                f"image becomes a line. Received: {self.shear_x_factor!r}, {self.shear_y_factor!r}"
            )
        return result

    def _check_old(self) -> dict[str, tuple[float, float]]:
        new = [
            name
            for name in ("rotation", "height", "width", "zoom_height", "zoom_width", "shear_x", "shear_y")
            if getattr(self, f"{name}_factor") not in (0.0, None)
        ]
        if new:
            raise ValueError(
                f"RandomAffine: give arguments named ..._factor, or those of ImageDataGenerator, {OLD_NAMES}, and not "
                f"both. Received also: {[f'{name}_factor' for name in new]}"
            )

        def check(name: str, high: float) -> tuple[float, float]:
            value = validation.check_number("RandomAffine", name, getattr(self, name) or 0.0, 0.0, high)
            return -value, value

        zoom = 0.0 if self.zoom_range is None else self.zoom_range
        if validation.is_number(zoom):
            zoom = (1.0 - zoom, 1.0 + zoom)
        lower, upper = validation.check_interval(
            "RandomAffine", "zoom_range", zoom, 1e-3, 1e3, " (or a number below 1)"
        )
        ranges = {"angle": check("rotation_range", 360.0), "shear": check("shear_range", 89.0)}
        ranges["right"], ranges["down"] = check("width_shift_range", 1e6), check("height_shift_range", 1e6)
        return {**ranges, "zoom_height": (lower - 1.0, upper - 1.0), "zoom_width": (lower - 1.0, upper - 1.0)}

    def specs(self) -> dict[str, Distribution]:
        sign: dict[str, Distribution] = {} if self._old else {"sign": Sign()}
        return {name: Uniform(*limits) for name, limits in self._ranges.items()} | sign

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        seen_height = 1.0 + params["zoom_height"]
        seen_width = 1.0 + params["zoom_width"] if "zoom_width" in params else seen_height
        if self._old:
            return self._old_matrix(params, seen_width, seen_height, height, width)
        slant = matrices.invert(matrices.shear(params["sign"] * params["shear_x"], params["sign"] * params["shear_y"]))
        return matrices.compose(
            matrices.scale(1.0 / seen_width, 1.0 / seen_height),
            slant,
            matrices.rotate(params["turns"] * (2.0 * math.pi)),
            matrices.translate(params["right"] * width, params["down"] * height),
        )

    def _old_matrix(self, params: dict[str, Any], zoom_x: Any, zoom_y: Any, height: Any, width: Any) -> Any:
        """The inverse of the map that ImageDataGenerator pulls by, with row and column exchanged for x and y."""
        xp = backend.namespace(zoom_x)
        slant = params["shear"] * (math.pi / 180.0)
        right = params["right"] * (width if self._ranges["right"][1] < 1.0 else 1.0)
        down = params["down"] * (height if self._ranges["down"][1] < 1.0 else 1.0)
        pull = matrices.compose(
            matrices.scale(zoom_x, zoom_y),
            matrices.matrix([[xp.cos(slant), 0.0, 0.0], [-xp.sin(slant), 1.0, 0.0], [0.0, 0.0, 1.0]]),
            matrices.translate(right, down),
            matrices.rotate(params["angle"] * (math.pi / 180.0)),
        )
        return matrices.invert(pull)

    def shrinks(self, height: Any, width: Any) -> float:
        zoom = max(self._ranges[name][1] for name in ("zoom_height", "zoom_width") if name in self._ranges)
        return max(1.0, 1.0 + zoom)


@serializable
class RandomPerspective(GeometricTransform):
    """Looks at images at an angle: their corners move, and what is between follows as on a plane in space.

    Each coordinate of a corner, counted from the upper left one, is multiplied by a number of its own from
    [1 - scale / 2, 1 + scale / 2): as in ``keras.layers.RandomPerspective`` the upper left corner stays.

    Args:
        factor: the probability that an image is changed, drawn itself from [0, factor] for each, or from a pair (lower,
            upper) in [0, 1]. Default 1.0, which is [0, 1]; give (1.0, 1.0) to change every image.
        scale: how far the corners move, in [0, 1]. Default 1.0.
        interpolation: "bilinear" (default), "nearest" or "bicubic".
        fill_value: the value outside of the image, default 0.
        fill_mode: "constant" (default, and Keras's only one), "nearest", "reflect" or "wrap". Points behind the
            viewer are always far outside.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.full((1, 8, 8, 3), 9, dtype="uint8")
    >>> np.asarray(knl.RandomPerspective((1.0, 1.0), scale=0.4, seed=1)(image)).shape
    (1, 8, 8, 3)
    """

    projective = True

    def __init__(
        self,
        factor: Any = 1.0,
        scale: float = 1.0,
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        seed: int | None = None,
        data_format: str | None = None,
        *,
        fill_mode: str = "constant",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            fill_mode=fill_mode,
            interpolation=interpolation,
            fill_value=fill_value,
            seed=seed,
            data_format=data_format,
            **kwargs,
        )
        self.factor = factor
        self._chance = validation.check_probability("RandomPerspective", "factor", factor)
        self.scale = validation.check_number("RandomPerspective", "scale", scale, 0.0, 1.0)

    def specs(self) -> dict[str, Distribution]:
        chance = 0.5 * (self._chance[0] + self._chance[1])  # a probability drawn uniformly is its mean
        each = {name: Uniform(-0.5 * self.scale, 0.5 * self.scale) for name in ("x1", "x2", "y2", "y3")}
        return {"on": Coin(chance), **each}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        half_x, half_y = 0.5 * (width - 1.0), 0.5 * (height - 1.0)
        times = {name: 1.0 + params["on"] * params[name] for name in ("x1", "x2", "y2", "y3")}
        right, low = 2.0 * half_x, 2.0 * half_y
        start = [(-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y)]
        end = [
            (-half_x, -half_y),
            (right * times["x1"] - half_x, -half_y),
            (right * times["x2"] - half_x, low * times["y2"] - half_y),
            (-half_x, low * times["y3"] - half_y),
        ]
        return matrices.homography(start, end)
