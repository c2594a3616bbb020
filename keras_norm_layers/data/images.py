"""One image: read, turned upright, brought to a colour mode and a size, with what happened to its coordinates."""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.data import bilinear, opencv
from keras_norm_layers.statistics import decoding
from keras_norm_layers.statistics.decoding import INTERPOLATIONS, with_channels


class ColorMode(NamedTuple):
    """How pixels are held: Pillow's mode, channels, dtype, and which modes of Pillow come in without a loss."""

    mode: str
    channels: int
    dtype: str
    accepts: tuple[str, ...]


EIGHT_BITS = (*decoding.MODES, "La", "LAB", "HSV")
COLOR_MODES = {
    "grayscale": ColorMode("L", 1, "uint8", EIGHT_BITS),
    "rgb": ColorMode("RGB", 3, "uint8", EIGHT_BITS),
    "rgba": ColorMode("RGBA", 4, "uint8", EIGHT_BITS),
    "grayscale16": ColorMode("I", 1, "uint16", ("I;16", "I;16B", "I;16L", "I;16N", "I")),
    "grayscale32": ColorMode("I", 1, "int32", ("I",)),
    "grayscale_float": ColorMode("F", 1, "float32", ("F",)),
}
BY_CHANNELS = {1: "grayscale", 3: "rgb", 4: "rgba"}
DECODERS = ("auto", "pillow", "opencv")


class ImageError(ValueError):
    """An image that cannot be read, or is not what was asked for. ``name`` and ``reason`` say which and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name!r} {self.reason}"


class Window(NamedTuple):
    """A part of an image (left, upper, width, height), the place in the result that it fills, and (height, width) of
    the whole image."""

    source: tuple[float, float, float, float]
    target: tuple[int, int, int, int]
    whole: tuple[int, int]

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
    antialias: bool = True
    exif_orientation: bool = True
    decoder: str = "auto"

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
        validation.check_bool("data", "antialias", self.antialias)
        validation.check_bool("data", "exif_orientation", self.exif_orientation)
        validation.check_choice("data", "decoder", self.decoder, DECODERS)
        if not self.antialias and self.interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                "data: `antialias=False` goes with interpolation='bilinear' or 'nearest'. "
                f"Received: interpolation={self.interpolation!r}"
            )
        if self.decoder == "opencv":
            opencv.library()
            if not self.plain:
                raise ValueError(
                    "data: decoder='opencv' goes with antialias=False and interpolation='bilinear', for the others are "
                    f"Pillow's. Received: antialias={self.antialias}, interpolation={self.interpolation!r}"
                )
        elif self.decoder == "auto":  # chosen here, once, so that other processes which read choose the same
            chosen = "opencv" if self.plain and opencv.is_installed() else "pillow"
            object.__setattr__(self, "decoder", chosen)

    def window(self, height: int, width: int) -> Window:
        """Which part of an image of this size goes where."""
        whole = (height, width)
        if self.image_size is None:
            return Window((0, 0, width, height), (0, 0, width, height), whole)
        rows, columns = self.image_size
        if self.keep_aspect_ratio == "crop":
            scale = max(rows / height, columns / width)
            inner_width, inner_height = min(width, columns / scale), min(height, rows / scale)
            left, top = (width - inner_width) / 2, (height - inner_height) / 2
            return Window((left, top, inner_width, inner_height), (0, 0, columns, rows), whole)
        if self.keep_aspect_ratio == "pad":
            scale = min(rows / height, columns / width)
            inner = max(1, min(columns, round(width * scale))), max(1, min(rows, round(height * scale)))
            place = ((columns - inner[0]) // 2, (rows - inner[1]) // 2)
            return Window((0, 0, width, height), (*place, *inner), whole)
        return Window((0, 0, width, height), (0, 0, columns, rows), whole)

    def fits(self, height: int, width: int) -> bool:
        """Whether an image of this size stays as it is."""
        return self.image_size is None or (height, width) == self.image_size

    def resized(self, image: Any, interpolation: str | None = None) -> Any:
        """A Pillow image in its size, by Pillow; what padding adds is 0."""
        if self.fits(image.height, image.width):
            return image
        (left, top, width, height), (x, y, inner_width, inner_height), _ = self.window(image.height, image.width)
        method = getattr(pillow().Resampling, (interpolation or self.interpolation).upper())
        box = (left, top, left + width, top + height)
        part = image.resize((inner_width, inner_height), method, box=box)
        if self.fits(part.height, part.width):
            return part
        whole = pillow().new(image.mode, self.image_size[::-1], 0)  # type: ignore[index]  # None fits
        whole.paste(part, (x, y))
        return whole

    @property
    def plain(self) -> bool:
        """Whether images are interpolated between their nearest pixels, without an average."""
        return not self.antialias and self.interpolation == "bilinear"

    def interpolated(self, array: np.ndarray) -> np.ndarray:
        """An array (H, W, C) in its size, without antialiasing; what padding adds is 0."""
        if self.fits(*array.shape[:2]):
            return array
        source, (x, y, columns, rows), _ = self.window(*array.shape[:2])
        resize = opencv.resized if self.decoder == "opencv" else bilinear.resized
        part = resize(array, source, (rows, columns))
        if self.fits(rows, columns):
            return part
        whole = np.zeros((*self.image_size, array.shape[2]), array.dtype)  # type: ignore[misc]  # None fits
        whole[y : y + rows, x : x + columns] = part
        return whole


def pillow() -> Any:
    """The module ``PIL.Image``."""
    return decoding.pillow("Image files are read and resized", "data")


def opened(stream: Any, name: str) -> AbstractContextManager[Any]:
    """An image opened by Pillow from a file object; whatever is wrong with it becomes an ``ImageError``."""

    module = pillow()

    def failed(error: Exception) -> Exception:
        unknown = isinstance(error, module.UnidentifiedImageError)  # Pillow would name the file object
        reason = "its content is in no format that Pillow knows" if unknown else str(error) or type(error).__name__
        return ImageError(name, f"cannot be read as an image: {reason}")

    return decoding.opened(stream, failed, own=(ImageError,))


def load(stream: Any, name: str, how: Format) -> tuple[np.ndarray, Window]:
    """An image file as an array (H, W, C) of the dtype of its colour mode, and where its pixels went.

    Raises:
        ImageError: for what cannot be read, or would lose bits in this colour mode.
    """
    color = COLOR_MODES[how.color_mode or "rgb"]
    content = _content(stream, name) if how.decoder == "opencv" else None
    with opened(stream if content is None else io.BytesIO(content), name) as image:
        _check_mode(image, name, how.color_mode or "rgb")
        count = decoding.frames(image)
        image.seek(0)
        turn = decoding.turn_of(image) if how.exif_orientation else 1
        window = how.window(*decoding.seen_size(image, turn))
        pixels = None if content is None else opencv.decoded(content, image, color.mode)
        if pixels is not None:
            pixels = how.interpolated(np.ascontiguousarray(decoding.turned_array(pixels, turn)))
        else:
            pixels = _by_pillow(image, window, color.mode, turn, how)
    if count > 1:
        warnings.warn(f"{name!r} has {count} frames; only the first one is used.", UserWarning, stacklevel=2)
    if color.dtype == "uint16":
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ImageError(name, "has values beyond 16 bits. Give color_mode='grayscale32'.")
        pixels = pixels.astype("uint16")
    return pixels, window


def _content(stream: Any, name: str) -> bytes:
    try:
        return stream.read()
    except OSError as error:
        raise ImageError(name, f"cannot be read: {error}") from error


def _by_pillow(image: Any, window: Window, mode: str, turn: int, how: Format) -> np.ndarray:
    """The pixels of an open image: decoded, in Pillow's ``mode``, upright and resized."""
    if how.image_size is not None and image.format == "JPEG" and not how.plain:
        # A JPEG file is decoded at a half, quarter or eighth of its size, if that is twice what is wanted or more.
        scale = 2 * max(side / given for side, given in zip(how.image_size, window.whole))
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    converted = decoding.turned(image if image.mode == mode else image.convert(mode), turn)
    if how.plain:
        return how.interpolated(with_channels(np.asarray(converted)))
    return with_channels(np.asarray(how.resized(converted)))


def load_mask(stream: Any, name: str, how: Format) -> tuple[np.ndarray, Window]:
    """A file of class numbers as an array (H, W, 1), resized by nearest neighbours; of a palette, its indices.

    Raises:
        ImageError: for what cannot be read or has more than one channel.
    """
    with opened(stream, name) as image:
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise ImageError(name, f"is no mask: it must have one channel of whole numbers, not the mode {image.mode}.")
        deep = image.mode.startswith("I")
        turn = decoding.turn_of(image) if how.exif_orientation else 1
        window = how.window(*decoding.seen_size(image, turn))
        upright = decoding.turned(image.convert("I") if deep else image, turn)
        pixels = np.asarray(how.resized(upright, "nearest"))
    return pixels.astype("int32" if deep else "uint8")[:, :, None], window


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
        array = with_channels(np.asarray(_from_array(array).convert(color.mode)))
    if how.fits(*array.shape[:2]):
        return array, window
    if mask:
        resized = [_resized_plane(array[..., c], how, "nearest") for c in range(array.shape[2])]
        return np.stack(resized, -1), window
    if how.plain:
        return how.interpolated(array), window
    if array.dtype == np.uint8 and array.shape[2] in BY_CHANNELS:
        return with_channels(np.asarray(how.resized(_from_array(array)))), window
    return np.stack([_resized_plane(array[..., c], how) for c in range(array.shape[2])], -1), window


def _resized_plane(plane: np.ndarray, how: Format, interpolation: str | None = None) -> np.ndarray:
    resized = np.asarray(how.resized(pillow().fromarray(plane.astype("float32")), interpolation), "float64")
    if plane.dtype.kind in "ui":
        limits = np.iinfo(plane.dtype)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    return resized.astype(plane.dtype)


def _from_array(array: np.ndarray) -> Any:
    return pillow().fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def _check_mode(image: Any, name: str, color_mode: str) -> None:
    """Raises where pixels would lose bits, or where 8 bits would be taken for 16."""
    color = COLOR_MODES[color_mode]
    deep = decoding.is_deep(image)
    if image.mode in color.accepts and not (deep and color.dtype == "uint8"):
        return
    fitting = [mode for mode, other in reversed(COLOR_MODES.items()) if image.mode in other.accepts]
    fitting = [] if deep and image.mode in EIGHT_BITS else fitting
    hint = f"Give color_mode={fitting[0]!r}, or convert the file" if fitting else "Convert the file"
    bits = "more than 8 bits a value" if deep or image.mode not in EIGHT_BITS else "8 bits a value"
    raise ImageError(
        name, f"does not fit color_mode={color_mode!r}: it has {bits} (Pillow's mode {image.mode}). {hint}."
    )
