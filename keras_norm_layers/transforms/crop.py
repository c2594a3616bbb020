"""Crops: geometric transforms whose output has a size of its own."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, matrices
from keras_norm_layers.layer import serializable
from keras_norm_layers.transforms.base import GeometricTransform
from keras_norm_layers.transforms.plan import Resampling
from keras_norm_layers.transforms.sampling import Distribution, LogUniform, Uniform


class Crop(GeometricTransform):
    """A window of the image, brought to ``height`` x ``width`` pixels."""

    resizes = True

    def __init__(self, height: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        self.height = validation.check_size(owner, "height", height)
        self.width = validation.check_size(owner, "width", width)

    def output_size(self, height: Any, width: Any) -> tuple[Any, Any]:
        return self.height, self.width

    def window(self, left: Any, top: Any, window_height: Any, window_width: Any, height: Any, width: Any) -> Any:
        """The map of a window to the output. ``left`` and ``top`` say how many pixels of the image it leaves out there;
        all are numbers or tensors, and one of the first two is a tensor (N,).
        """
        x = 0.5 * (width - window_width) - left
        y = 0.5 * (height - window_height) - top
        move = matrices.translate(x, y)
        if window_height is self.height and window_width is self.width:
            return move
        fill = move[:, 0, 0] * 0.0
        return matrices.compose(
            move, matrices.scale(fill + self.width / window_width, fill + self.height / window_height)
        )


@serializable
class RandomCrop(Crop):
    """Cuts a window of ``height`` x ``width`` pixels out of each image, at a place of its own; at inference the centre.

    The pixels are copied, not interpolated. Images that are smaller than the window, in height or in width, are
    not cut at random: as in ``keras.layers.RandomCrop`` the largest centred part with the aspect ratio of the window is
    enlarged to it, bilinearly.

    Args:
        height, width: the size of what comes out, in pixels.
        interpolation: for images that are too small: "bilinear" (default), "nearest" or "bicubic".
        seed, p, same_on_batch, **kwargs: see ``Transform``. Where ``p`` leaves an image alone it is cut in the centre.

    ``keras.layers.RandomCrop`` draws one place for the whole batch and leaves the images as they are at inference.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> image = np.arange(16, dtype="uint8").reshape(1, 4, 4, 1)
    >>> np.asarray(knl.RandomCrop(2, 2)(image, training=False))[0, :, :, 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        *,
        interpolation: str = "bilinear",
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, seed=seed, data_format=data_format, interpolation=interpolation, **kwargs)

    def specs(self) -> dict[str, Distribution]:
        return {"down": Uniform(0.0, 1.0, identity=0.5), "right": Uniform(0.0, 1.0, identity=0.5)}

    def resampling(self, height: Any, width: Any) -> Resampling:
        large = height is not None and width is not None and height >= self.height and width >= self.width
        return Resampling() if large else Resampling(self.interpolation, "nearest", self.fill_value, self.antialias)

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        xp = backend.namespace(params["down"])
        if isinstance(height, float) and isinstance(width, float):
            large = height >= self.height and width >= self.width
            return self._cut(xp, params, height, width) if large else self._enlarged(xp, params, height, width)
        large = xp.cast((height >= self.height) & (width >= self.width), "float32")
        return large * self._cut(xp, params, height, width) + (1.0 - large) * self._enlarged(xp, params, height, width)

    def _cut(self, xp: Any, params: dict[str, Any], height: Any, width: Any) -> Any:
        def start(u: Any, room: Any) -> Any:  # a little less, so that the middle, 1/2, is rounded down as in Keras
            return xp.maximum(xp.floor(u * (room + 1.0) - 1e-3), 0.0)

        left, top = start(params["right"], width - self.width), start(params["down"], height - self.height)
        return self.window(left, top, self.height, self.width, height, width)

    def _enlarged(self, xp: Any, params: dict[str, Any], height: Any, width: Any) -> Any:
        like = params["down"] * 0.0
        window_height = xp.maximum(xp.minimum(like + height, xp.floor(like + width * (self.height / self.width))), 1.0)
        window_width = xp.maximum(xp.minimum(like + width, xp.floor(like + height * (self.width / self.height))), 1.0)
        top, left = xp.floor(0.5 * (height - window_height)), xp.floor(0.5 * (width - window_width))
        return self.window(left, top, window_height, window_width, height, width)


@serializable
class RandomResizedCrop(Crop):
    """Cuts a window of random area and aspect ratio out of each image and brings it to ``height`` x ``width`` pixels.

    At inference it is the largest centred window with the aspect ratio of the output. Szegedy et al., "Going deeper
    with convolutions" (2014).

    Args:
        height, width: the size of what comes out, in pixels.
        scale: the range of the window's area, as a part of the image's: a pair within (0, 1]; default (0.08, 1.0).
        ratio: the range of the window's width divided by its height, log-uniform; default (3/4, 4/3). A window that
            would be higher or wider than the image is made smaller, with the same aspect ratio.
        interpolation, fill_mode, fill_value, antialias: see ``GeometricTransform``. ``antialias=True`` is for images
            much larger than what comes out; their height and width must be known then.
        seed, p, same_on_batch, **kwargs: see ``Transform``. Where ``p`` leaves an image alone it is as at inference.

    Example:

    >>> import numpy as np, keras_norm_layers as knl
    >>> images = np.full((2, 40, 60, 3), 7, dtype="uint8")
    >>> crops = np.asarray(knl.RandomResizedCrop(16, 24)(images))
    >>> crops.shape, bool(abs(crops - 7).max() < 1e-4)
    ((2, 16, 24, 3), True)
    """

    def __init__(
        self,
        height: int,
        width: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        fill_mode: str = "nearest",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(height, width, interpolation=interpolation, fill_mode=fill_mode, seed=seed, **kwargs)
        self.scale = validation.check_interval("RandomResizedCrop", "scale", scale, 1e-4, 1.0)
        self.ratio = validation.check_interval("RandomResizedCrop", "ratio", ratio, 1e-2, 1e2)

    def specs(self) -> dict[str, Distribution]:
        return {
            "area": Uniform(*self.scale, identity=1.0),
            "ratio": LogUniform(*self.ratio, identity=self.width / self.height),
            "down": Uniform(0.0, 1.0, identity=0.5),
            "right": Uniform(0.0, 1.0, identity=0.5),
        }

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        xp = backend.namespace(params["area"])
        area = params["area"] * (height * width)
        window_width, window_height = xp.sqrt(area * params["ratio"]), xp.sqrt(area / params["ratio"])
        fit = xp.minimum(xp.minimum(width / window_width, height / window_height), 1.0)
        window_width, window_height = window_width * fit, window_height * fit
        left, top = params["right"] * (width - window_width), params["down"] * (height - window_height)
        return self.window(left, top, window_height, window_width, height, width)

    def shrinks(self, height: Any, width: Any) -> float:
        if not self.antialias:
            return 1.0
        if height is None or width is None:
            raise ValueError(
                "RandomResizedCrop: `antialias=True` needs images of a known height and width, which say how densely "
                "to read. Give them in keras.Input, or antialias=False."
            )
        return max(1.0, height / self.height, width / self.width)
