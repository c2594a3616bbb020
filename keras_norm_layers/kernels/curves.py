"""What is done to each pixel by a curve: hue, saturation, levels, exponents, histograms. Images are float (N, H, W, C).

A parameter is a tensor (N,), one an image; ``low`` and ``high`` are the ends of the value range. Values outside it are
brought to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.kernels import color, pixels
from keras_norm_layers.kernels.backend import namespace

GREY_LEVELS = 255.0
NEARLY = 2.0**-10  # of a level: a value that rounding left so little below a level belongs to it


def per_image(values: Any) -> Any:
    """(N,) as (N, 1, 1, 1)."""
    return values[:, None, None, None]


def extremes(images: Any) -> tuple[Any, Any]:
    """The greatest and the least of red, green and blue, (N, H, W, 1)."""
    xp = namespace(images)
    red, green, blue = (images[..., i : i + 1] for i in range(3))
    return xp.maximum(xp.maximum(red, green), blue), xp.minimum(xp.minimum(red, green), blue)


def saturation(images: Any, gain: Any, low: float, high: float) -> Any:
    """The saturation of HSV times ``gain``, at most 1; hue and value V stay.

    S = (V - least) / V, and V - c is proportional to S for each channel c: no hue is needed.
    """
    xp = namespace(images)
    images = xp.clip(images, low, high)
    value, least = extremes(images)
    fullest = (value - low) / xp.maximum(value - least, 1e-20 * (high - low))  # the gain by which S becomes 1
    pulled = images + (value - images) * (1.0 - xp.minimum(fullest, per_image(gain)))
    return xp.maximum(pulled, low)  # rounding


def hue(images: Any, turns: Any, low: float, high: float) -> Any:
    """The hue of HSV turned by ``turns`` in [-1/2, 1/2]; saturation and value V stay.

    Each channel is V - C f, where C is the chroma and f a trapezoid of its distance, on the circle of hues, from red,
    green or blue. All is kept in units of C, so that nothing is divided: the circle has the length 6 C. The trapezoid
    is flat from 2 C on, so the hue need not be brought back to the circle.
    """
    xp = namespace(images)
    images = xp.clip(images, low, high)
    red, green, blue = (images[..., i : i + 1] for i in range(3))
    value, least = extremes(images)
    chroma = value - least
    of_green, of_blue = blue - red + 2.0 * chroma, red - green + 4.0 * chroma
    place = xp.where(value == red, green - blue, xp.where(value == green, of_green, of_blue))
    place = place + chroma * (6.0 * per_image(turns))

    def channel(centre: Any) -> Any:
        distance = xp.abs(place - chroma * centre)
        distance = xp.minimum(distance, xp.abs(distance - 6.0 * chroma))
        return value - xp.minimum(xp.maximum(distance - chroma, 0.0), chroma)

    centres = (0.0, 2.0, -2.0)
    if xp.fuses():  # compilers write the three channels of a pixel faster than they join three images
        turned = channel(xp.constant(pixels.vector, centres))
    else:
        turned = xp.concat([channel(centre) for centre in centres], -1)
    # Exactly the image where nothing turns; by a product, for XLA does not vectorize this with a selection.
    return images + (turned - images) * per_image(xp.cast(turns != 0.0, "float32"))


def posterize(images: Any, bits: Any, low: float, high: float) -> Any:
    """The ``bits`` highest bits of the 256 levels from ``low`` to ``high``; 8 changes nothing. Images may be uint8
    if the range is (0, 255), and come out as uint8 then.
    """
    xp = namespace(images)
    step = xp.round(xp.exp((8.0 - xp.round(bits)) * float(np.log(2.0))))[:, None]  # a power of two, exactly
    if xp.dtype_name(images) == "uint8":
        return images & xp.cast(per_image(256.0 - step[:, 0]), "uint8")
    scale = GREY_LEVELS / (high - low)
    down = color.Color(scale / step, (NEARLY - low * scale) / step)
    up = color.Color(step / scale, step * 0.0 + low if low else None)
    levels = color.apply(xp.clip(images, low, high), down, own=True)
    levels = color.apply(xp.floor_own(levels), up, own=True)
    return xp.where_rows(per_image(step[:, 0] < 1.5), images, levels)


def solarize(images: Any, added: Any, threshold: Any, low: float, high: float) -> Any:
    """``added``, if not None, to all values; then those of ``threshold`` and above are inverted."""
    xp = namespace(images)
    if added is None:
        images = xp.clip(images, low, high)
    else:
        images = color.apply(images, color.Color(offset=added[:, None], low=low, high=high))
    threshold = per_image(threshold)
    if not xp.fuses():
        return xp.inverted_from(images, threshold, low + high)
    return xp.where(images < threshold, images, (low + high) - images)


def gamma(images: Any, exponent: Any, low: float, high: float) -> Any:
    """Values, scaled to [0, 1], to the power ``exponent``."""
    xp = namespace(images)
    images = xp.clip(images, low, high)
    unit, exponent = (images - low) * (1.0 / (high - low)), per_image(exponent)
    positive = xp.maximum(unit, 1e-30)  # neither the logarithm nor its gradient is finite at 0
    power = low + (high - low) * xp.exp(exponent * xp.log(positive))
    return xp.where((unit <= 0.0) | (exponent == 1.0), images, power)


def equalize(images: Any, bins: int, low: float, high: float, gate: Any) -> Any:
    """Each channel of each image so that its histogram over ``bins`` is as flat as can be; 256 levels come out.

    A channel whose values are all in one bin stays, and so does an image whose ``gate`` (N,) is 0.
    """
    xp = namespace(images)
    n, _, _, channels = xp.shape(images)
    scale = (bins - 1) / (high - low)
    scaled = (images if scale == 1.0 else images * scale) + (NEARLY - low * scale)
    # Clipped as integers too: NaN is no place, and what is out of a table is read from foreign memory.
    bin_ = xp.clip(xp.cast(xp.clip(scaled, 0.0, float(bins - 1), own=True), "int32"), 0, bins - 1, own=True)
    rows = xp.arange(n, "int32", images)[:, None] * channels + xp.arange(channels, "int32", images)
    cells = bin_ + (rows * bins)[:, None, None, :]
    reached = xp.cumsum(xp.histograms(cells, bins, gate), 2)
    total = reached[:, :, -1:]
    lowest = xp.amin(xp.where(reached > 0.0, reached, total), 2, keepdims=True)
    level = xp.round((reached - lowest) * GREY_LEVELS / xp.maximum(total - lowest, 1.0))
    table = low + level * ((high - low) / GREY_LEVELS)
    stays = xp.reshape((total == lowest) | (gate < 0.5)[:, None, None], (n, 1, 1, channels))
    return xp.where_rows(stays, images, xp.look_up(xp.reshape(table, (-1,)), cells))
