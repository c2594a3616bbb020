"""What a transform says of itself. Ranks, data formats, seeds, labels, masks and boxes are not its business."""

from __future__ import annotations

from typing import Any

import keras

from keras_norm_layers import validation
from keras_norm_layers.kernels import color, pixels, resample
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
        **kwargs: ``data_format``, ``bounding_box_format``, ``mask_fill_value``, ``mask_interpolation``,
            ``additional_targets`` and the arguments of ``keras.layers.Layer``.
    """

    kind = ""
    channels: int | None = None  # the number of channels that images must have; None: any
    costly = False  # True: a change of values so slow that a choice had better run it for the chosen images only

    def __init__(self, *, p: float = 1.0, same_on_batch: bool = False, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed=seed, **kwargs)
        owner = type(self).__name__
        self.p = validation.check_number(owner, "p", p, 0.0, 1.0)
        self.same_on_batch = validation.check_bool(owner, "same_on_batch", same_on_batch)

    def steps(self) -> list[Any]:
        return [self]

    def specs(self) -> dict[str, Distribution]:
        """The distribution of each parameter, by name. At its ``identity`` a transform must change nothing."""
        raise NotImplementedError


class ExactTransform(Transform):
    """A transform that moves pixels by one matrix an image, and carries pixel centres to pixel centres: nothing to
    interpolate, nothing to fill.
    """

    kind = "geometry"
    projective = False  # True: the third row of the matrix is not (0, 0, 1)
    resizes = False  # True: what comes out has another size than what goes in, at inference too
    bends = False  # True: ``displacement`` adds to what the matrix does
    mirrors: tuple[int, ...] | None = None  # the axes of (N, H, W, C), if all it does is to reverse some of them

    def matrix(self, params: dict[str, Any], height: Any, width: Any) -> Any:
        """The map (N, 3, 3) from where pixels are to where they will be, both about the centre of their image
        (``kernels/matrices.py``).

        ``params`` holds a tensor (N,) for each of ``specs``; ``height`` and ``width`` are the sides of the image that
        goes in, in pixels, float.
        """
        raise NotImplementedError

    def resampling(self, height: Any, width: Any) -> Resampling:
        """How pixels are read; ``height`` and ``width`` are ints, or None where a graph does not know them."""
        return Resampling()

    def output_size(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Height and width of what comes out."""
        return height, width

    def shrinks(self, height: Any, width: Any) -> float:
        """The most input pixels, along an axis, that an output pixel can cover: how densely ``antialias`` reads."""
        return 1.0

    def displacement(self, params: dict[str, Any], height: int, width: int) -> Any:
        """Where ``bends``: (N, H, W, 2), x and y in pixels: output pixel q shows what the matrix would bring to q plus
        this.
        """
        raise NotImplementedError


class GeometricTransform(ExactTransform):
    """A transform that moves pixels, by one matrix an image, to places between pixels.

    Args:
        fill_mode: what appears where the image has been moved away: "reflect" (default), "constant" (``fill_value``),
            "nearest" or "wrap".
        interpolation: "bilinear" (default), "nearest" or "bicubic".
        fill_value: the value for ``fill_mode="constant"``, in the images' own units. Default 0.
        antialias: True averages over all that a pixel covers where the image is made smaller, so that nothing
            flickers; False (default) reads between the nearest pixels alone, as ``keras.layers`` does.
    """

    def __init__(
        self,
        *,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        fill_value: float = 0.0,
        antialias: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        self.fill_mode = validation.check_choice(owner, "fill_mode", fill_mode, resample.FILL_MODES)
        self.interpolation = validation.check_choice(owner, "interpolation", interpolation, resample.INTERPOLATIONS)
        self.fill_value = validation.check_number(owner, "fill_value", fill_value)
        self.antialias = validation.check_bool(owner, "antialias", antialias)

    def resampling(self, height: Any, width: Any) -> Resampling:
        return Resampling(self.interpolation, self.fill_mode, self.fill_value, self.antialias)


class ValueTransform(Transform):
    """A transform that changes values and moves nothing.

    Args:
        value_range: the least and the greatest value that images may have, (0, 255) by default.
    """

    def __init__(self, *, value_range: tuple[float, float] = (0, 255), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value_range = validation.check_value_range(type(self).__name__, value_range)


class ColorTransform(ValueTransform):
    """A transform by one affine map of the colours an image, and a clip where the result may leave ``value_range``.

    It commutes with interpolation, so geometric transforms on both sides of it share one resampling.
    """

    kind = "color"
    looks = False  # True: ``color`` is given the images, as they are at this place, to learn from

    def color(self, params: dict[str, Any], images: Any) -> color.Color:
        """The colour map of each image. ``params`` as in ``GeometricTransform.matrix``; ``images`` if ``looks`` is
        set, float32, or uint8 where such were given and nothing has changed them: fewer bytes to look at.
        """
        raise NotImplementedError


class PixelTransform(ValueTransform):
    """A transform that no matrix can say. It runs where it stands: geometric transforms after it resample anew."""

    kind = "pixel"
    pointwise = False  # True: each pixel is changed for itself, without looking at others
    on_bits = False  # True: ``change`` takes uint8 images of the range (0, 255) as well, and gives uint8 then

    def prepared(self, params: dict[str, Any]) -> dict[str, Any]:
        """What ``change`` needs to know, tensors (N, ...) by name, from ``params`` as in ``GeometricTransform.matrix``.

        Once for a batch, where ``change`` may be called for one image after the other.
        """
        return params

    def change(self, params: dict[str, Any], images: Any) -> Any:
        """The float32 images (N, H, W, C) (see ``on_bits``) changed; ``params`` as ``prepared``."""
        raise NotImplementedError


class MixTransform(Transform):
    """A transform that mixes each image of a batch with another one of it, chosen by the draw; labels follow.

    ``specs`` must have an entry "partner": ``Key()``, by which the batch is put in another order.
    """

    kind = "mix"

    @staticmethod
    def partners(params: dict[str, Any], batch: Any) -> Any:
        """The other image of each: ``batch`` in the order of the draw."""
        return pixels.reorder(batch, params["partner"])

    def mix_images(self, params: dict[str, Any], images: Any) -> Any:
        """The images (N, H, W, C), mixed."""
        raise NotImplementedError

    def mix_labels(self, params: dict[str, Any], labels: Any, height: Any, width: Any) -> Any:
        """The labels (N, ...), one-hot or otherwise to be averaged, mixed in the same parts."""
        raise NotImplementedError

    def mix_masks(self, params: dict[str, Any], masks: Any) -> Any:
        """The masks (N, H, W, C), mixed, where that means something."""
        raise ValueError(
            f"{type(self).__name__} cannot carry 'segmentation_masks': a mixture of two classes is no class. "
            "Take them out of the data, or use CutMix."
        )


class ChoiceTransform(Transform):
    """A transform that decides, for each image, which of the transforms in it act. It does nothing itself."""

    kind = "choice"
    geometry_first = False  # True: the geometric ones act before the others, so that they share one resampling

    def branches(self) -> list[list[Any]]:
        """Lists of transforms; a branch acts or not as a whole."""
        raise NotImplementedError

    def gates(self, params: dict[str, Any]) -> list[Any]:
        """For each branch a tensor (N,), 1.0 where it acts and 0.0 where not; or None: it always acts."""
        raise NotImplementedError


class BlendTransform(Transform):
    """A transform that runs several chains of others on the same images and blends what they make."""

    kind = "blend"

    def branches(self) -> list[list[Any]]:
        """The chains, each a list of transforms."""
        raise NotImplementedError

    def blend(self, params: dict[str, Any], images: Any, made: list[Any]) -> Any:
        """One batch (N, H, W, C) of the images and of what each chain made of them."""
        raise NotImplementedError


def check_transforms(owner: str, transforms: Any, nested: bool = False) -> list[Any]:
    """A list of transforms, made from their configurations where those are given; with ``nested`` lists among them."""
    if not isinstance(transforms, (list, tuple)) or not transforms:
        raise ValueError(f"{owner}: `transforms` must be a list of transforms. Received: transforms={transforms!r}")
    result = []
    for number, given in enumerate(transforms):
        if nested and isinstance(given, (list, tuple)):
            result.append(check_transforms(owner, given))
            continue
        transform = keras.saving.deserialize_keras_object(given) if isinstance(given, dict) else given
        if not isinstance(transform, Transform):
            raise ValueError(
                f"{owner}: `transforms` must hold random transforms of keras_norm_layers. "
                f"Received at place {number}: {transform!r}"
            )
        result.append(transform)
    return result
