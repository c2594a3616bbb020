"""Reading images between their pixels and beyond their border.

Coordinates run from 0, the left or upper border of the image, to n, the other one: pixel i lies from i to i + 1, its
centre at i + 0.5. On a CPU the work is bound by the number of instructions a pixel, so this file counts them.
"""

from __future__ import annotations

from typing import Any

from keras_norm_layers.kernels.backend import namespace

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
FILL_MODES = ("constant", "nearest", "reflect", "wrap")


def read(images: Any, x: Any, y: Any, interpolation: str, fill_mode: str, fill_value: Any) -> Any:
    """Images (N, H, W, C) at coordinates (N, H', W'): (N, H', W', C). The arguments are those of ``resample.warp``."""
    xp = namespace(images)
    if interpolation == "nearest":
        return _nearest(xp, images, x, y, fill_mode, fill_value)
    cubic = interpolation == "bicubic"
    if not xp.fuses() and fill_mode != "wrap":
        reading = _bicubic_by_bilinear if cubic else xp.grid_sample
        return reading(images, x, y, fill_mode, fill_value)
    if cubic or fill_mode == "wrap":
        return _weighted(xp, images, x, y, _cubic_taps if cubic else _linear_taps, fill_mode, fill_value)
    return _bilinear(xp, images, x, y, fill_mode, fill_value)


def _size(xp: Any, n: Any) -> Any:
    return float(n) if isinstance(n, int) else xp.cast(n, "float32")


def _fold(xp: Any, u: Any, n: Any, fill_mode: str) -> Any:
    """Coordinates of the endless image brought into the image, 0 to n; the others are left to be cut."""
    size = _size(xp, n)
    if fill_mode == "reflect":  # a triangle wave
        return xp.abs(u - (2.0 * size) * xp.round(u * (0.5 / size)))
    return u - size * xp.floor(u / size) if fill_mode == "wrap" else u


def _nearest(xp: Any, images: Any, x: Any, y: Any, fill_mode: str, fill_value: Any) -> Any:
    _, height, width, _ = xp.shape(images)
    across, down = xp.floor(_fold(xp, x, width, fill_mode)), xp.floor(_fold(xp, y, height, fill_mode))
    inside_x = xp.clip(across, 0.0, _size(xp, width) - 1.0)
    inside_y = xp.clip(down, 0.0, _size(xp, height) - 1.0)
    pixels = xp.read_pixels(images, xp.whole(inside_y), xp.whole(inside_x))
    if fill_mode != "constant":
        return pixels
    inside = ((across == inside_x) & (down == inside_y))[..., None]
    fill = xp.cast(inside_x[..., None] * 0.0 + fill_value, xp.dtype_name(images))
    return xp.where(inside, pixels, fill)


def _first(xp: Any, u: Any, n: Any) -> tuple[Any, Any]:
    """The first of two neighbours in the image for each folded coordinate of an axis, its int32 index, and the step to
    the second (0 if there is but one pixel). Not for "wrap", where the last pixel's neighbour is the first.
    """
    size = _size(xp, n)
    step = min(1, n - 1) if isinstance(n, int) else xp.minimum(n - 1, 1)
    last = max(size - 1.0, 1.0) if isinstance(n, int) else xp.maximum(size - 1.0, 1.0)
    return xp.whole(xp.clip(u, 1.0, last), -1), step


def _pair(xp: Any, u: Any, n: Any, index: Any, step: Any, fill_mode: str) -> tuple[Any, Any]:
    """The weights of two neighbours for each folded coordinate of an axis; ``index`` and ``step`` are ``_first``'s.

    At a tie either pixel may be the first, but it must be the one that is read: its index decides, not the coordinate.
    """
    size, middle = _size(xp, n), xp.cast(index, "float32") + 0.5
    if fill_mode == "constant":  # a tent over each pixel; what they do not cover is the fill's
        place = xp.clip(u, -1.0, size + 1.0) - middle
        weights = [xp.maximum(1.0 - xp.abs(place - i), 0.0) for i in (0.0, 1.0)]
        return weights[0], weights[1] * _size(xp, step)
    second = xp.clip(u, 0.5, size - 0.5) - middle
    return 1.0 - second, second


def _bilinear(xp: Any, images: Any, x: Any, y: Any, fill_mode: str, fill_value: Any) -> Any:
    _, height, width, _ = xp.shape(images)
    x, y = _fold(xp, x, width, fill_mode), _fold(xp, y, height, fill_mode)
    (column, right), (row, below) = _first(xp, x, width), _first(xp, y, height)
    pixels, row, column = xp.read_squares(images, row, column, below, right)
    left_weight, right_weight = _pair(xp, x, width, column, right, fill_mode)
    upper_weight, lower_weight = _pair(xp, y, height, row, below, fill_mode)
    # Four products of weights for a pixel are cheaper than two lines for each of its channels.
    weights = [v * h for v in (upper_weight, lower_weight) for h in (left_weight, right_weight)]
    result = _mixed(xp, pixels, weights)
    if fill_mode == "constant":
        covered = (left_weight + right_weight) * (upper_weight + lower_weight)
        result = result + ((1.0 - covered) * fill_value)[..., None]
    return result


def _linear_taps(xp: Any, u: Any, n: Any, fill_mode: str) -> list[tuple[Any, Any]]:
    """The two neighbours of each coordinate of an axis that is wrapped around: (int32 index, weight)."""
    size = _size(xp, n)
    u = _fold(xp, u, n, fill_mode) - 0.5
    before = xp.floor(u)
    second = u - before
    after = before + 1.0
    # The seam: before the first pixel comes the last, after it the first. Folding may round up to the size itself.
    before = xp.where(before < 0.0, size - 1.0, before)
    after = xp.where(after > size - 1.0, 0.0, after)
    return [(xp.whole(before), 1.0 - second), (xp.whole(after), second)]


def keys(distances: tuple[Any, Any, Any, Any]) -> list[Any]:
    """Keys' cubic kernel with a = -0.5 at the distances of four neighbours: 1 + s, s, 1 - s and 2 - s for 0 <= s < 1.

    1.5 d^3 - 2.5 d^2 + 1 up to d = 1, -0.5 d^3 + 2.5 d^2 - 4 d + 2 from there to d = 2.
    """
    far, near = (lambda d: ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0), (lambda d: (1.5 * d - 2.5) * d * d + 1.0)
    return [kernel(d) for kernel, d in zip((far, near, near, far), distances)]


def _cubic_taps(xp: Any, u: Any, n: Any, fill_mode: str) -> list[tuple[Any, Any]]:
    """The four neighbours of each coordinate of an axis: (int32 index, weight); for "constant" none weighs outside."""
    size = _size(xp, n)
    u = xp.clip(_fold(xp, u, n, fill_mode) - 0.5, -2.0, size + 1.0)  # farther outside all four are
    before = xp.floor(u)
    s = u - before
    result = []
    for step, weight in zip((-1.0, 0.0, 1.0, 2.0), keys((s + 1.0, s, 1.0 - s, 2.0 - s))):
        place = before + step
        if fill_mode == "constant":
            weight = xp.where(place < 0.0, weight * 0.0, xp.where(place > size - 1.0, weight * 0.0, weight))
        elif fill_mode == "reflect":
            place = xp.where(place < 0.0, -1.0 - place, xp.where(place > size - 1.0, 2.0 * size - 1.0 - place, place))
        elif fill_mode == "wrap":
            place = xp.where(place < 0.0, place + size, xp.where(place > size - 1.0, place - size, place))
        result.append((xp.whole(xp.clip(place, 0.0, size - 1.0)), weight))
    return result


def _bicubic_by_bilinear(images: Any, x: Any, y: Any, fill_mode: str, fill_value: Any) -> Any:
    """Bicubic reading where there is a fast kernel for bilinear reading and no compiler: nine of them.

    The two middle neighbours weigh as much as one bilinear reading between them (their weights have the same sign); the
    outer ones are read by themselves.
    """
    xp = namespace(images)

    def readings(u: Any) -> list[tuple[Any, Any]]:
        before = xp.floor(u - 0.5)
        s = u - 0.5 - before
        outer, inner, second, last = keys((s + 1.0, s, 1.0 - s, 2.0 - s))
        middle = inner + second
        return [(before - 0.5, outer), (before + 0.5 + second / middle, middle), (before + 2.5, last)]

    images = xp.cast(images, "float32")
    columns = readings(x)
    return _sum(
        _sum(xp.grid_sample(images, u, v, fill_mode, fill_value) * across[..., None] for u, across in columns)
        * down[..., None]
        for v, down in readings(y)
    )


def _weighted(xp: Any, images: Any, x: Any, y: Any, taps: Any, fill_mode: str, fill_value: Any) -> Any:
    """The sum of neighbours times weights."""
    _, height, width, _ = xp.shape(images)
    columns, rows = taps(xp, x, width, fill_mode), taps(xp, y, height, fill_mode)
    pixels = xp.read_each(images, [(row, column) for row, _ in rows for column, _ in columns])
    result = _mixed(xp, pixels, [v * h for _, v in rows for _, h in columns])
    if fill_mode == "constant":
        covered = _sum(weight for _, weight in columns) * _sum(weight for _, weight in rows)
        result = result + ((1.0 - covered) * fill_value)[..., None]
    return result


def _mixed(xp: Any, pixels: list[Any], weights: list[Any]) -> Any:
    """The sum of pixels (N, H, W, C), or of lists of their channels (N, H, W), times weights (N, H, W), float32."""
    if not isinstance(pixels[0], list):
        return _sum(xp.cast(pixel, "float32") * weight[..., None] for pixel, weight in zip(pixels, weights))
    planes = [_sum(xp.cast(p, "float32") * weight for p, weight in zip(plane, weights)) for plane in zip(*pixels)]
    return xp.transpose(xp.stack(planes, 1), (0, 2, 3, 1))


def _sum(terms: Any) -> Any:
    total = None
    for term in terms:
        total = term if total is None else total + term
    return total
