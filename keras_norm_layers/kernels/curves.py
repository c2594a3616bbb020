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
    pulled = images + (value - images) * (1.0 - xp.minimum(fullest, pixels.per_image(gain)))
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
    place = place + chroma * (6.0 * pixels.per_image(turns))

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
    return images + (turned - images) * pixels.per_image(xp.cast(turns != 0.0, "float32"))


def levels(bits: Any, low: float, high: float) -> dict[str, Any]:
    """What ``posterize`` needs for the ``bits`` highest bits (N,) of the 256 levels from ``low`` to ``high``.

    ``keep``: the bits of a byte; ``stays``: where there is nothing to do, for 8 bits; and of images of floats as
    numbers of the coarser level (``down``), and as values (``up``).
    """
    xp = namespace(bits)
    step = xp.round(xp.exp((8.0 - xp.round(bits)) * float(np.log(2.0))))  # a power of two, exactly
    scale = GREY_LEVELS / (high - low)
    return {
        "keep": 256.0 - step,
        "stays": step < 1.5,
        "down": scale / step,
        "nearly": (NEARLY - low * scale) / step,
        "up": step / scale,
    }


def posterize(images: Any, step: dict[str, Any], low: float, high: float) -> Any:
    """The highest bits of the 256 levels from ``low`` to ``high``, as ``levels`` says. Images may be uint8 if the
    range is (0, 255), and come out as uint8 then.
    """
    xp = namespace(images)
    if xp.dtype_name(images) == "uint8":
        return images & xp.cast(pixels.per_image(step["keep"]), "uint8")
    down = color.Color(step["down"][:, None], step["nearly"][:, None])
    up = color.Color(step["up"][:, None], step["up"][:, None] * 0.0 + low if low else None)
    made = color.apply(xp.clip(images, low, high), down, own=True)
    made = color.apply(xp.floor_own(made), up, own=True)
    return xp.where_rows(pixels.per_image(step["stays"]), images, made)


def solarize(images: Any, added: Any, threshold: Any, low: float, high: float) -> Any:
    """``added``, if not None, to all values; then those of ``threshold`` and above are inverted."""
    xp = namespace(images)
    if added is None:
        images = xp.clip(images, low, high)
    else:
        images = color.apply(images, color.Color(offset=added[:, None], low=low, high=high))
    threshold = pixels.per_image(threshold)
    done = None if xp.fuses() else xp.inverted_from(images, threshold, low + high)
    return xp.where(images < threshold, images, (low + high) - images) if done is None else done


def gamma(images: Any, exponent: Any, low: float, high: float) -> Any:
    """Values, scaled to [0, 1], to the power ``exponent``."""
    xp = namespace(images)
    images = xp.clip(images, low, high)
    unit, exponent = (images - low) * (1.0 / (high - low)), pixels.per_image(exponent)
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
    first = xp.arange(n * channels, "int32", images) * bins  # the first cell of each channel
    cells = bin_ + xp.reshape(first, (-1, 1, 1, channels))
    counted = xp.histograms(cells, bins, gate)
    table, stays = xp.few(lambda counted, gate: _flattening(counted, gate, low, high), counted, gate)
    return xp.where_rows(stays, images, xp.look_up(table, cells))


def _flattening(counted: Any, gate: Any, low: float, high: float) -> tuple[Any, Any]:
    """The value that each bin of histograms (N, C, bins) becomes, one after the other, and which channels stay, for all
    values are in one bin or the ``gate`` (N,) is 0: (N, 1, 1, C).
    """
    xp = namespace(counted)
    reached = xp.cumsum(counted, 2)
    total = reached[:, :, -1:]
    lowest = xp.amin(xp.where(reached > 0.0, reached, total), 2, keepdims=True)
    level = xp.round((reached - lowest) * GREY_LEVELS / xp.maximum(total - lowest, 1.0))
    table = low + level * ((high - low) / GREY_LEVELS)
    stays = (total == lowest) | (gate < 0.5)[:, None, None]
    return xp.reshape(table, (-1,)), xp.reshape(stays, (-1, 1, 1, counted.shape[1]))
