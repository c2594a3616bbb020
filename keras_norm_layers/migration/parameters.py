"""What ``ImageDataGenerator`` draws for an image, from NumPy's global generator, and which arguments it allows."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_norm_layers.migration.transform import FILL_MODES, SCIPY_FILL_MODES
from keras_norm_layers.validation import check_choice, check_number, is_number

OWNER = "ImageDataGenerator"


def check_shift(name: str, value: Any) -> Any:
    """A shift range as it was given: a float, an int, or a list of numbers."""
    ok = is_number(value) and np.isfinite(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        ok = np.ndim(value) == 1 and all(is_number(v) and np.isfinite(v) for v in value)
    if not ok:
        raise ValueError(
            f"{OWNER}: `{name}` must be a float (below 1: a part of the side; from 1 on: pixels), an int (whole pixels "
            f"below it), or a list of shifts to choose from. Received: {name}={value!r}"
        )
    return value


def check_zoom(value: Any) -> list[float]:
    """The zoom range as [lower, upper]."""
    if is_number(value):
        return [1 - value, 1 + value]
    if isinstance(value, (tuple, list, np.ndarray)) and len(value) == 2 and all(is_number(v) for v in value):
        return [value[0], value[1]]
    raise ValueError(
        f"{OWNER}: `zoom_range` must be a number z, for [1 - z, 1 + z], or a tuple or list of two numbers. Received: "
        f"zoom_range={value!r}"
    )


def check_brightness(value: Any) -> Any:
    """The brightness range as it was given."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(is_number(v) for v in value):
        raise ValueError(
            f"{OWNER}: `brightness_range` must be None or a tuple or list of two numbers, the least and the greatest "
            f"factor. Received: brightness_range={value!r}"
        )
    return value


def check_split(value: Any) -> float:
    """The share of the images that are for validation; 0 for none."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"{OWNER}: `validation_split` must be strictly between 0 and 1, or 0 for no split. Received: "
            f"validation_split={value!r}"
        )
    return value


def check_fill_mode(value: Any) -> str:
    """The name of a fill mode."""
    return check_choice(OWNER, "fill_mode", value, FILL_MODES + SCIPY_FILL_MODES)


def check_order(value: Any) -> int:
    """The order of the interpolating spline."""
    return check_choice(OWNER, "interpolation_order", value, (0, 1, 2, 3, 4, 5))


def check_range(name: str, value: Any) -> Any:
    """A finite number, as it was given."""
    check_number(OWNER, name, value)
    return value


def check_data_format(value: Any) -> str:
    """Where the channels are; None is Keras's setting."""
    value = keras.config.image_data_format() if value is None else value
    return check_choice(OWNER, "data_format", value, ("channels_last", "channels_first"))


def warn_of_channels(who: str, shape: tuple[int, ...], axis: int, data_format: str) -> None:
    """A warning where the channels are not 1, 3 or 4: they may stand on another axis than the generator thinks."""
    if shape[axis] not in (1, 3, 4):
        warnings.warn(
            f'{who}: with data_format="{data_format}" axis {axis} holds the channels, and images mostly have 1, 3 or 4 '
            f"of them. Received: an array of shape {shape} ({shape[axis]} channels).",
            UserWarning,
            stacklevel=4,
        )


def check_old_arguments(class_mode: Any, others: dict[str, Any]) -> Any:
    """The class mode in today's words; arguments of older versions warn, unknown ones raise."""
    says = {
        "has_ext": "names in the data frame have to be those of the files, with their extension.",
        "sort": "the order is that of the data frame, if `shuffle` is False.",
        "drop_duplicates": "use pandas.DataFrame.drop_duplicates.",
    }
    for name in others:
        if name not in says:
            raise TypeError(f"flow_from_dataframe got an unexpected keyword argument {name!r}")
        warnings.warn(f"`{name}` is deprecated and does nothing: {says[name]}", DeprecationWarning, stacklevel=3)
    if class_mode == "other":
        warnings.warn('`class_mode="other"` is deprecated; use class_mode="raw".', DeprecationWarning, stacklevel=3)
        return "raw"
    return class_mode


def draw(generator: Any, height: int, width: int, seed: int | None = None) -> dict[str, Any]:
    """The parameters of one image of this size. The keys are those of ``ImageDataGenerator.get_random_transform``.

    Args:
        generator: has the ranges as attributes.
        height, width: of the image, in pixels: what shifts below 1 are a part of.
        seed: None, or a seed for NumPy's global generator before the first draw.
    """
    if seed is not None:
        np.random.seed(seed)
    angle, shear = generator.rotation_range, generator.shear_range
    parameters: dict[str, Any] = {"theta": _uniform(-angle, angle) if angle else 0}
    parameters["tx"] = _shift(generator.height_shift_range, height)
    parameters["ty"] = _shift(generator.width_shift_range, width)
    parameters["shear"] = _uniform(-shear, shear) if shear else 0
    lower, upper = generator.zoom_range
    parameters["zx"], parameters["zy"] = (1, 1)
    if (lower, upper) != (1, 1):
        parameters["zx"], parameters["zy"] = _uniform(lower, upper), _uniform(lower, upper)
    # Both coins are thrown whether or not they are wanted.
    parameters["flip_horizontal"] = bool((np.random.random() < 0.5) * generator.horizontal_flip)
    parameters["flip_vertical"] = bool((np.random.random() < 0.5) * generator.vertical_flip)
    shift, brightness = generator.channel_shift_range, generator.brightness_range
    parameters["channel_shift_intensity"] = _uniform(-shift, shift) if shift != 0 else None
    parameters["brightness"] = None if brightness is None else _uniform(*brightness)
    return parameters


def _uniform(low: Any, high: Any) -> float:
    """The bits of ``numpy.random.uniform``, which takes several times as long."""
    return low + (high - low) * np.random.random()


def _shift(reach: Any, side: int) -> float:
    """A shift in pixels: one of a list, or of 0, 1, ..., n - 1 for an int n, with either sign; uniform for a float."""
    choices = isinstance(reach, (list, tuple, np.ndarray))
    if not (len(reach) if choices else reach):
        return 0
    if choices or (isinstance(reach, (int, np.integer)) and reach > 0):
        shift = np.random.choice(reach) * np.random.choice([-1, 1])
    else:
        shift = _uniform(-reach, reach)
    return shift * side if (max(reach) if choices else reach) < 1 else shift
