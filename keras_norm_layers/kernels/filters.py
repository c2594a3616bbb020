"""Averages over neighbours: separable convolutions of images (N, H, W, C), written as sums of shifted images."""

from __future__ import annotations

from typing import Any

from keras_norm_layers.kernels import pixels
from keras_norm_layers.kernels.backend import namespace


def convolve(images: Any, across: list[Any], down: list[Any]) -> Any:
    """Float images convolved with ``across`` along x and ``down`` along y, black (0) outside.

    The weights are odd in number, each a number or a tensor (N,).
    """
    xp = namespace(images)
    if not xp.fuses():
        return xp.shifted_sum(xp.shifted_sum(images, across, 2), down, 1)
    n, height, width, channels = xp.shape(images)
    # A row of pixels at a time: a shift by a pixel is one by C values, and no loop runs over a last axis of 3.
    rows = xp.reshape(images, (n, height, width * channels))
    rows = _shifted_sum(xp, rows, across, 2, channels)
    rows = _shifted_sum(xp, pixels.materialize(rows), down, 1, 1)
    return xp.reshape(rows, (n, height, width, channels))


def _shifted_sum(xp: Any, rows: Any, weights: list[Any], axis: int, step: int) -> Any:
    shape = list(xp.shape(rows))
    length, margin = shape[axis], (len(weights) // 2) * step
    if not margin:
        return rows * _spread(weights[0])
    shape[axis] = margin
    zeros = xp.broadcast_to(xp.asarray(0.0, "float32"), tuple(shape))
    padded = xp.concat([zeros, rows, zeros], axis)
    total: Any = None
    for number, weight in enumerate(weights):
        first = number * step
        part = padded[:, first : first + length] if axis == 1 else padded[:, :, first : first + length]
        total = part * _spread(weight) if total is None else total + part * _spread(weight)
    return total


def _spread(weight: Any) -> Any:
    return weight if isinstance(weight, (int, float)) else weight[:, None, None]


def mirrored(images: Any, margin: int) -> Any:
    """Images (N, H, W, C) with ``margin`` pixels more on each side, mirrored about the outermost: H, W > margin."""
    xp = namespace(images)
    for axis in (1, 2):
        before = [_pixel(images, axis, place) for place in range(margin, 0, -1)]
        after = [_pixel(images, axis, -1 - place) for place in range(1, margin + 1)]
        images = xp.concat([*before, images, *after], axis)
    return images


def _pixel(images: Any, axis: int, place: int) -> Any:
    """One row or column, counted from the end where ``place`` is negative, of thickness 1."""
    part = slice(place, place + 1)  # never -1, whose end would be 0
    return images[:, part] if axis == 1 else images[:, :, part]


def gaussian(sigma: Any, size: int) -> list[Any]:
    """The ``size`` weights, summing to 1, of a Gaussian kernel for each ``sigma`` (N,), in pixels; 0 blurs nothing."""
    xp = namespace(sigma)
    least = xp.maximum(sigma, 1e-6)
    half = size // 2
    raised = [xp.exp(-0.5 * (place / least) * (place / least)) for place in range(half + 1)]
    total = raised[0]
    for weight in raised[1:]:
        total = total + 2.0 * weight
    return [raised[abs(place - half)] / total for place in range(size)]


def smoothing(sigma: Any, length: Any) -> Any:
    """Gaussian blurs along an axis as matrices (N, length, length): for a ``sigma`` (N,) of many pixels, which may
    differ between images as no list of taps can. Cut at three sigma; 0 outside.
    """
    xp = namespace(sigma)
    places = xp.arange(length, "float32", like=sigma)
    reach = xp.floor(xp.floor(6.0 * sigma) * 0.5)[:, None]
    least = xp.maximum(sigma, 1e-6)[:, None]

    def weigh(distance: Any, reach: Any, least: Any) -> Any:
        weight = xp.exp(-0.5 * (distance / least) * (distance / least))
        return weight * xp.cast(distance <= reach, "float32")

    total = 2.0 * xp.sum(weigh(places[None, :], reach, least), 1) - 1.0
    distance = xp.abs(places[:, None] - places[None, :])[None]
    return weigh(distance, reach[..., None], least[..., None]) / total[:, None, None]
