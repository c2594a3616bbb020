"""What a transform says of itself. Ranks, data formats, seeds, labels, masks and boxes are not its business."""

from __future__ import annotations

from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.kernels import color, resample
from keras_norm_layers.transforms.layer import RandomLayer
from keras_norm_layers.transforms.plan import Resampling
from keras_norm_layers.transforms.sampling import Distribution


class Transform(RandomLayer):
    """A random transform: what it draws (``specs``) and what that does. Alone in a model it runs as
    ``Augment([itself])``.

    Args:
        p: probability, in [0, 1], that an image is transformed at all. Drawn for each image.
        same_on_batch: True draws once for the whole batch, False (default) once for each image.
        seed: an integer, or None for a random one. Not used inside an ``Augment``, which draws for all its transforms.
        **kwargs: ``data_format``, ``bounding_box_format``, ``mask_fill_value`` and the arguments of
            ``keras.layers.Layer``.
    """

    kind = ""

    def __init__(self, *, p: float = 1.0, same_on_batch: bool = False, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        owner = type(self).__name__
        self.p = validation.check_number(owner, "p", p, 0.0, 1.0)
        self.same_on_batch = validation.check_bool(owner, "same_on_batch", same_on_batch)

    def steps(self) -> list[Any]:
        return [self]

    def specs(self) -> dict[str, Distribution]:
        """The distribution of each parameter, by name."""
        raise NotImplementedError


class GeometricTransform(Transform):
    """A transform that moves pixels, by one matrix an image.

    Args:
        fill_mode: what appears where the image has been moved away: "reflect" (default), "constant" (``fill_value``),
            "nearest" or "wrap".
        interpolation: "bilinear" (default) or "nearest".
        fill_value: the value for ``fill_mode="constant"``, in the images' own units. Default 0.
    """

    kind = "geometry"

    def __init__(
        self, *, fill_mode: str = "reflect", interpolation: str = "bilinear", fill_value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        self.fill_mode = validation.check_choice(owner, "fill_mode", fill_mode, resample.FILL_MODES)
        self.interpolation = validation.check_choice(owner, "interpolation", interpolation, resample.INTERPOLATIONS)
        self.fill_value = validation.check_number(owner, "fill_value", fill_value)

    @property
    def resampling(self) -> Resampling | None:
        """How pixels are read; None for maps from pixel centres to pixel centres, which suit any stage."""
        return Resampling(self.interpolation, self.fill_mode, self.fill_value)

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        """The map (N, 3, 3) from where pixels are to where they will be, about the image centre
        (``kernels/matrices.py``).

        ``params`` holds a tensor (N,) for each of ``specs``; ``height`` and ``width`` are the image's, in pixels.
        """
        raise NotImplementedError


class ColorTransform(Transform):
    """A transform that changes values, pixel by pixel: a gain and an offset an image, then a clip.

    Args:
        value_range: the least and the greatest value that images may have, (0, 255) by default; results are clipped to
            it.
    """

    kind = "color"
    looks = False  # True: ``color`` is given the images, as they are at this place, to learn from

    def __init__(self, *, value_range: tuple[float, float] = (0, 255), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value_range = validation.check_value_range(type(self).__name__, value_range)

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        """The colour map of each image. ``params`` as in ``GeometricTransform.matrix``; ``images`` if ``looks`` is
        set.
        """
        raise NotImplementedError
