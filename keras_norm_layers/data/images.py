"""One image: read by Pillow, brought to a colour mode and a size, with what happened to its coordinates."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.statistics import folders


class ColorMode(NamedTuple):
    """How pixels are held: Pillow's mode, channels, dtype, and which modes of Pillow come in without a loss."""

    mode: str
    channels: int
    dtype: str
    accepts: tuple[str, ...]


EIGHT_BITS = (*folders.MODES, "La", "LAB", "HSV")
COLOR_MODES = {
    "grayscale": ColorMode("L", 1, "uint8", EIGHT_BITS),
    "rgb": ColorMode("RGB", 3, "uint8", EIGHT_BITS),
    "rgba": ColorMode("RGBA", 4, "uint8", EIGHT_BITS),
    "grayscale16": ColorMode("I", 1, "uint16", ("I;16", "I;16B", "I;16L", "I;16N", "I")),
    "grayscale32": ColorMode("I", 1, "int32", ("I",)),
    "grayscale_float": ColorMode("F", 1, "float32", ("F",)),
}
BY_CHANNELS = {1: "grayscale", 3: "rgb", 4: "rgba"}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


class ImageError(ValueError):
    """An image that cannot be read, or is not what was asked for. ``name`` and ``reason`` say which and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name!r} {self.reason}"


class Window(NamedTuple):
    """A part of an image (left, upper, width, height) and the place in the result that it fills."""

    source: tuple[float, float, float, float]
    target: tuple[int, int, int, int]

    def move_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (K, 4) of left, top, right, bottom edges in pixels, moved as the pixels are, cut at the window."""
        left, top, width, height = self.source
        x, y, inner_width, inner_height = self.target
        scale = np.array([inner_width / width, inner_height / height] * 2)
        moved = (boxes - np.array([left, top] * 2)) * scale + np.array([x, y] * 2)
        return np.clip(moved, [x, y] * 2, [x + inner_width, y + inner_height] * 2)


@dataclasses.dataclass(frozen=True)
class Format:
    """What images are made into; see ``Feed``.

    Raises:
        ValueError: for arguments out of bounds.
    """

    image_size: tuple[int, int] | None = None
    color_mode: str | None = None
    interpolation: str = "bilinear"
    keep_aspect_ratio: bool | str = False

    def __post_init__(self) -> None:
        if self.image_size is not None:
            if not isinstance(self.image_size, (tuple, list)) or len(self.image_size) != 2:
                raise ValueError(
                    "data: `image_size` must be (height, width) in pixels, or None for images of one size. "
                    f"Received: image_size={self.image_size!r}"
                )
            sides = tuple(validation.check_size("data", "image_size", side) for side in self.image_size)
            object.__setattr__(self, "image_size", sides)
        validation.check_choice("data", "color_mode", self.color_mode, (None, *COLOR_MODES))
        validation.check_choice("data", "interpolation", self.interpolation, INTERPOLATIONS)
        validation.check_choice("data", "keep_aspect_ratio", self.keep_aspect_ratio, (False, "crop", "pad"))

    def window(self, height: int, width: int) -> Window:
        """Which part of an image of this size goes where."""
        if self.image_size is None:
            return Window((0, 0, width, height), (0, 0, width, height))
        rows, columns = self.image_size
        if self.keep_aspect_ratio == "crop":
            scale = max(rows / height, columns / width)
            inner_width, inner_height = min(width, columns / scale), min(height, rows / scale)
            left, top = (width - inner_width) / 2, (height - inner_height) / 2
            return Window((left, top, inner_width, inner_height), (0, 0, columns, rows))
        if self.keep_aspect_ratio == "pad":
            scale = min(rows / height, columns / width)
            inner = max(1, min(columns, round(width * scale))), max(1, min(rows, round(height * scale)))
            place = ((columns - inner[0]) // 2, (rows - inner[1]) // 2)
            return Window((0, 0, width, height), (*place, *inner))
        return Window((0, 0, width, height), (0, 0, columns, rows))

    def resized(self, image: Any, interpolation: str | None = None) -> Any:
        """A Pillow image in its size; what padding adds is 0."""
        if self.image_size is None or image.size == self.image_size[::-1]:
            return image
        (left, top, width, height), (x, y, inner_width, inner_height) = self.window(image.height, image.width)
        method = getattr(pillow().Resampling, (interpolation or self.interpolation).upper())
        box = (left, top, left + width, top + height)
        part = image.resize((inner_width, inner_height), method, box=box)
        if part.size == self.image_size[::-1]:
            return part
        whole = pillow().new(image.mode, self.image_size[::-1], 0)
        whole.paste(part, (x, y))
        return whole


def pillow() -> Any:
    """The module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Image files are read and resized by Pillow, which is not installed: pip install keras-norm-layers[data]"
        ) from error
    return Image


@contextlib.contextmanager
def opened(stream: Any, name: str) -> Iterator[Any]:
    """An image opened by Pillow from a file object; whatever is wrong with it becomes an ``ImageError``."""
    image_module = pillow()
    try:
        with image_module.open(stream) as image:
            yield image
    except ImageError:
        raise
    except Exception as error:  # what Pillow raises for a broken file differs from format to format
        reason = str(error) or type(error).__name__
        raise ImageError(name, f"cannot be read as an image: {reason}") from error


def load(stream: Any, name: str, how: Format) -> tuple[np.ndarray, Window]:
    """An image file as an array (H, W, C) of the dtype of its colour mode, and where its pixels went.

    Raises:
        ImageError: for what cannot be read, or would lose bits in this colour mode.
    """
    color = COLOR_MODES[how.color_mode or "rgb"]
    with opened(stream, name) as image:
        _check_mode(image, name, how.color_mode or "rgb")
        count = frames(image)
        image.seek(0)
        window = how.window(image.height, image.width)
        if how.image_size is not None and image.format == "JPEG":
            # A JPEG file is decoded at a half, quarter or eighth of its size, if that is twice what is wanted or more.
            scale = 2 * max(side / given for side, given in zip(how.image_size, (image.height, image.width)))
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        converted = image if image.mode == color.mode else image.convert(color.mode)
        pixels = np.asarray(how.resized(converted))
    if count > 1:
        warnings.warn(f"{name!r} has {count} frames; only the first one is used.", UserWarning, stacklevel=2)
    if color.dtype == "uint16":
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ImageError(name, "has values beyond 16 bits. Give color_mode='grayscale32'.")
        pixels = pixels.astype("uint16")
    return (pixels if pixels.ndim == 3 else pixels[:, :, None]), window


def load_mask(stream: Any, name: str, how: Format) -> np.ndarray:
    """A file of class numbers as an array (H, W, 1), resized by nearest neighbours; of a palette, its indices.

    Raises:
        ImageError: for what cannot be read or has more than one channel.
    """
    with opened(stream, name) as image:
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise ImageError(name, f"is no mask: it must have one channel of whole numbers, not the mode {image.mode}.")
        deep = image.mode.startswith("I")
        pixels = np.asarray(how.resized(image.convert("I") if deep else image, "nearest"))
    return pixels.astype("int32" if deep else "uint8")[:, :, None]


def fit(array: Any, name: str, how: Format, mask: bool = False) -> tuple[np.ndarray, Window]:
    """An image held as an array (H, W) or (H, W, C): in the colour mode and size asked for, in its own dtype.

    Raises:
        ImageError: for what is no image, or has channels that cannot be converted.
    """
    array = np.asarray(array)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "uifb":
        raise ImageError(name, f"must be numbers of the shape (H, W) or (H, W, C), not {array.dtype} {array.shape}.")
    window = how.window(*array.shape[:2])
    color = COLOR_MODES[how.color_mode] if how.color_mode and not mask else None
    if color is not None and (color.channels != array.shape[2] or color.dtype != array.dtype):
        if array.dtype != np.uint8 or color.dtype != "uint8" or array.shape[2] not in BY_CHANNELS:
            raise ImageError(
                name, f"is {array.dtype} with {array.shape[2]} channels and cannot become {how.color_mode!r}."
            )
        array = _channels_last(np.asarray(_from_array(array).convert(color.mode)))
    if how.image_size is None or array.shape[:2] == how.image_size:
        return array, window
    if mask:
        resized = [_resized_plane(array[..., c], how, "nearest") for c in range(array.shape[2])]
        return np.stack(resized, -1), window
    if array.dtype == np.uint8 and array.shape[2] in BY_CHANNELS:
        return _channels_last(np.asarray(how.resized(_from_array(array)))), window
    return np.stack([_resized_plane(array[..., c], how) for c in range(array.shape[2])], -1), window


def _resized_plane(plane: np.ndarray, how: Format, interpolation: str | None = None) -> np.ndarray:
    resized = np.asarray(how.resized(pillow().fromarray(plane.astype("float32")), interpolation), "float64")
    if plane.dtype.kind in "ui":
        limits = np.iinfo(plane.dtype)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    return resized.astype(plane.dtype)


def _from_array(array: np.ndarray) -> Any:
    return pillow().fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def _channels_last(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 3 else array[:, :, None]


def _check_mode(image: Any, name: str, color_mode: str) -> None:
    """Raises where pixels would lose bits, or where 8 bits would be taken for 16."""
    color = COLOR_MODES[color_mode]
    deep = any(folders.is_deep((codec, args)) for codec, _, _, args in image.tile)
    if image.mode in color.accepts and not (deep and color.dtype == "uint8"):
        return
    fitting = [mode for mode, other in reversed(COLOR_MODES.items()) if image.mode in other.accepts]
    fitting = [] if deep and image.mode in EIGHT_BITS else fitting
    hint = f"Give color_mode={fitting[0]!r}, or convert the file" if fitting else "Convert the file"
    bits = "more than 8 bits a value" if deep or image.mode not in EIGHT_BITS else "8 bits a value"
    raise ImageError(
        name, f"does not fit color_mode={color_mode!r}: it has {bits} (Pillow's mode {image.mode}). {hint}."
    )


def frames(image: Any) -> int:
    """Number of pictures in a file; the previews that cameras add to a JPEG file do not count."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
