"""Transforms that move pixels: each is what it draws and one matrix."""

from __future__ import annotations

import math
from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, matrices
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import ExactTransform, GeometricTransform
from keras_norm_layers.transforms.sampling import Coin, Distribution, Integers, Sign, Uniform

FLIP_MODES = ("horizontal", "vertical", "horizontal_and_vertical")


@serializable
class RandomFlip(ExactTransform):
    """Mirrors images left to right, top to bottom, or either.

    Each direction is a coin of its own for each image: with "horizontal_and_vertical" all four outcomes are equally
    likely. (``keras.layers.RandomFlip`` tosses one coin for both, so that it never flips in one direction alone.)

    Args:
        mode: "horizontal", "vertical" or "horizontal_and_vertical" (default).
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Input and output: images (N, H, W, C) or (H, W, C); float32 out. The pixels are copied, not interpolated.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.arange(3, dtype="uint8").reshape(1, 1, 3, 1)
    >>> flipped = knl.RandomFlip("horizontal", seed=1)(np.repeat(image, 8, axis=0))
    >>> sorted({tuple(int(v) for v in row) for row in np.asarray(flipped)[:, 0, :, 0]})
    [(0, 1, 2), (2, 1, 0)]
    """

    def __init__(self, mode: str = "horizontal_and_vertical", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        self.mode = validation.check_choice("RandomFlip", "mode", mode, FLIP_MODES)
        self.mirrors = tuple(axis for axis, name in ((1, "vertical"), (2, "horizontal")) if name in self.mode)

    def specs(self) -> dict[str, Distribution]:
        return {name: Coin(0.5) for name in ("horizontal", "vertical") if name in self.mode}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        signs = {name: 1.0 - 2.0 * coin for name, coin in params.items()}
        return matrices.scale(signs.get("horizontal", 1.0), signs.get("vertical", 1.0))


@serializable
class RandomRot90(ExactTransform):
    """Turns images by quarters of a full turn, counter-clockwise. The pixels are copied, not interpolated.

    Args:
        turns: the numbers of quarter turns to choose from, each with the same chance: (0, 1, 2, 3) by default. Images
            that are not square can only be turned by half: give (0, 2).
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Raises an error for images that are not square where ``turns`` holds 1 or 3. (Where a graph does not know height and
    width there is no error: what does not fit is cut off and the edge repeated.)

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.arange(4, dtype="uint8").reshape(1, 2, 2, 1)
    >>> np.asarray(knl.RandomRot90(turns=(1,))(image))[0, :, :, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """

    def __init__(self, turns: tuple[int, ...] = (0, 1, 2, 3), seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        ok = isinstance(turns, (tuple, list)) and len(turns) > 0
        if not ok or any(isinstance(turn, bool) or turn not in (0, 1, 2, 3) for turn in turns):
            raise ValueError(
                "RandomRot90: `turns` must be a tuple of numbers of quarter turns, each 0, 1, 2 or 3. "
                f"Received: turns={turns!r}"
            )
        self.turns = tuple(turns)

    def specs(self) -> dict[str, Distribution]:
        return {"choice": Integers(1, len(self.turns))}  # 0, the identity, stands for none of them

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        if any(turn % 2 for turn in self.turns) and isinstance(height, float) and height != width:
            raise ValueError(
                f"RandomRot90: images of {height:g} x {width:g} pixels are not square, and a batch cannot hold some of "
                f"them on their side. Give turns=(0, 2), or make them square. Received: turns={self.turns!r}"
            )
        choice = backend.namespace(params["choice"]).round(params["choice"])
        quarters = choice * 0.0
        for number, turn in enumerate(self.turns):
            chosen = backend.namespace(choice).cast(choice == number + 1, "float32")
            quarters = quarters + chosen * turn
        size = backend.namespace(choice).abs
        cos, sin = size(quarters - 2.0) - 1.0, 1.0 - size(quarters - 1.0)  # whole numbers, unlike the functions
        return matrices.matrix([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


@serializable
class RandomRotation(GeometricTransform):
    """Turns images about their centre.

    Args:
        factor: the range of the angle, as a fraction of a full turn: a number f in [-1, 1] for [-f, f], or a pair
            (lower, upper). Positive turns counter-clockwise.
        degrees: the same in degrees, instead of ``factor``: a number d for [-d, d] in [-360, 360], or a pair.
        expand: None (default) keeps the size of things, and corners are filled. "crop" enlarges the turned image until
            it has no corner to fill: what is seen is the largest rectangle of the image's shape without corners. "fit"
            makes it smaller until nothing of it is cut off.
        fill_mode, interpolation, fill_value: see ``GeometricTransform``.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.arange(4, dtype="float32").reshape(1, 2, 2, 1)
    >>> quarter = knl.RandomRotation((0.25, 0.25))(image)
    >>> np.asarray(quarter).round(3)[0, :, :, 0].tolist()
    [[1.0, 3.0], [0.0, 2.0]]
    """

    def __init__(
        self,
        factor: Any = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        *,
        degrees: Any = None,
        expand: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode=fill_mode, interpolation=interpolation, fill_value=fill_value, seed=seed, **kwargs)
        self.factor, self.degrees = factor, degrees
        self.expand = validation.check_choice("RandomRotation", "expand", expand, (None, "crop", "fit"))
        if (factor is None) == (degrees is None):
            raise ValueError(
                "RandomRotation: give `factor` (a fraction of a full turn) or `degrees`, and not both. "
                f"Received: factor={factor!r}, degrees={degrees!r}"
            )
        if degrees is None:
            self._turns = validation.check_factor("RandomRotation", "factor", factor, -1.0, 1.0)
        else:
            lower, upper = validation.check_factor("RandomRotation", "degrees", degrees, -360.0, 360.0)
            self._turns = (lower / 360.0, upper / 360.0)

    def specs(self) -> dict[str, Distribution]:
        return {"turns": Uniform(*self._turns)}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        angle = params["turns"] * (2.0 * math.pi)
        turn = matrices.rotate(angle)
        if self.expand is None:
            return turn
        xp = backend.namespace(angle)
        cos, sin = xp.abs(xp.cos(angle)), xp.abs(xp.sin(angle))
        if self.expand == "crop":  # no pixel's centre may come from beyond the centres of the outer pixels
            one = params["turns"] * 0.0 + 1.0
            height, width = xp.maximum(one * height - 1.0, one), xp.maximum(one * width - 1.0, one)
        # How many times wider and higher than the image is the box around it when it is turned.
        times = xp.maximum(cos + sin * (height / width), cos + sin * (width / height))
        size = times if self.expand == "crop" else 1.0 / times
        return matrices.compose(turn, matrices.scale(size, size))

    def shrinks(self, height: Any, width: Any) -> float:
        if self.expand != "fit":
            return 1.0
        # At most at the angle of the diagonal: sqrt(1 + (long side / short side)^2) times.
        ratio = 4.0 if height is None or width is None else max(height / width, width / height)
        return math.hypot(1.0, ratio)


@serializable
class RandomTranslation(GeometricTransform):
    """Moves images up or down and left or right.

    Args:
        height_factor: the range of the shift down, as a fraction of the height: a number f in [-1, 1] for [-f, f], or a
            pair (lower, upper); negative shifts go up.
        width_factor: the same to the right, as a fraction of the width.
        fill_mode, interpolation, fill_value: see ``GeometricTransform``. "wrap" with whole pixels is ``np.roll``.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.arange(4, dtype="float32").reshape(1, 1, 4, 1)
    >>> moved = knl.RandomTranslation(0.0, (0.25, 0.25), fill_mode="wrap")(image)
    >>> np.asarray(moved)[0, 0, :, 0].tolist()
    [3.0, 0.0, 1.0, 2.0]
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode=fill_mode, interpolation=interpolation, fill_value=fill_value, seed=seed, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._down = validation.check_factor("RandomTranslation", "height_factor", height_factor, -1.0, 1.0)
        self._right = validation.check_factor("RandomTranslation", "width_factor", width_factor, -1.0, 1.0)

    def specs(self) -> dict[str, Distribution]:
        return {"down": Uniform(*self._down), "right": Uniform(*self._right)}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        return matrices.translate(params["right"] * width, params["down"] * height)


@serializable
class RandomZoom(GeometricTransform):
    """Enlarges or shrinks images about their centre.

    Args:
        height_factor: the range of the zoom, as ``keras.layers.RandomZoom`` counts: the part of the height that is seen
            is 1 + factor, so -0.2 enlarges (by 1 / 0.8) and 0.2 shrinks. A number f for [-f, f], or a pair
            (lower, upper); above -1 and up to 1.
        width_factor: the same for the width; None (default) keeps the aspect ratio.
        fill_mode, interpolation, fill_value: see ``GeometricTransform``.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.arange(4, dtype="float32").reshape(1, 1, 4, 1)
    >>> zoomed = knl.RandomZoom((-0.5, -0.5))(image)
    >>> np.asarray(zoomed)[0, 0, :, 0].tolist()
    [0.75, 1.25, 1.75, 2.25]
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode=fill_mode, interpolation=interpolation, fill_value=fill_value, seed=seed, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._height = self._check("height_factor", height_factor)
        self._width = None if width_factor is None else self._check("width_factor", width_factor)

    @staticmethod
    def _check(name: str, factor: Any) -> tuple[float, float]:
        lower, upper = validation.check_factor("RandomZoom", name, factor, -1.0, 1.0)
        if lower <= -1.0:
            raise ValueError(
                f"RandomZoom: `{name}` must stay above -1, where an image would be enlarged without end. "
                f"Received: {name}={factor!r}"
            )
        return lower, upper

    def specs(self) -> dict[str, Distribution]:
        height: dict[str, Distribution] = {"height": Uniform(*self._height)}
        return height if self._width is None else {**height, "width": Uniform(*self._width)}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        seen_height = 1.0 + params["height"]
        seen_width = 1.0 + params["width"] if "width" in params else seen_height
        return matrices.scale(1.0 / seen_width, 1.0 / seen_height)

    def shrinks(self, height: Any, width: Any) -> float:
        return max(1.0, 1.0 + self._height[1], 1.0 + (self._width or self._height)[1])


@serializable
class RandomShear(GeometricTransform):
    """Slants images: rows slide over each other, or columns.

    An output pixel (x, y), counted from the upper left pixel as ``keras.layers.RandomShear`` does, shows the input at
    (x + s_x y, y + s_y x). The slants of an image go either way, with equal chance, both together.

    Args:
        x_factor: the range of s_x: a number f in [0, 1] for [-f, f], or a pair (lower, upper) in [0, 1]. Default 0.
        y_factor: the same for s_y. The largest s_x times the largest s_y must stay below 1, where the image would
            become a line.
        interpolation, fill_mode, fill_value: see ``GeometricTransform``.
        seed, p, same_on_batch, **kwargs: see ``Transform``.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.eye(3, dtype="float32").reshape(1, 3, 3, 1)
    >>> slanted = knl.RandomShear((1.0, 1.0), fill_mode="constant", seed=4)(image)
    >>> np.asarray(slanted).round(3)[0, :, :, 0].tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    """

    def __init__(
        self,
        x_factor: Any = 0.0,
        y_factor: Any = 0.0,
        interpolation: str = "bilinear",
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        data_format: str | None = None,
        seed: int | None = None,
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
        self.x_factor, self.y_factor = x_factor, y_factor
        self._x, self._y = (
            self._check(name, value) for name, value in (("x_factor", x_factor), ("y_factor", y_factor))
        )
        if self._x[1] * self._y[1] >= 1.0:
            raise ValueError(
                "RandomShear: the largest `x_factor` times the largest `y_factor` must be below 1, or the image "
                f"becomes a line. Received: x_factor={x_factor!r}, y_factor={y_factor!r}"
            )

    @staticmethod
    def _check(name: str, factor: Any) -> tuple[float, float]:
        if validation.is_number(factor):
            size = validation.check_number("RandomShear", name, factor, 0.0, 1.0)
            return -size, size
        return validation.check_interval("RandomShear", name, factor, 0.0, 1.0, " (or one number f, for (-f, f))")

    def specs(self) -> dict[str, Distribution]:
        return {"x": Uniform(*self._x), "y": Uniform(*self._y), "sign": Sign()}

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        pull = matrices.shear(params["sign"] * params["x"], params["sign"] * params["y"])
        return matrices.about(-0.5 * (width - 1.0), -0.5 * (height - 1.0), matrices.invert(pull))
