"""THE pass over the pixels: every output pixel asks where it comes from, and reads there.

Coordinates: pixel centres are integers, the origin is the image centre ((W - 1) / 2, (H - 1) / 2), x right, y down.
"""

from __future__ import annotations

from typing import Any

from keras_norm_layers.kernels.backend import namespace

INTERPOLATIONS = ("nearest", "bilinear")
FILL_MODES = ("constant", "nearest", "reflect", "wrap")


def warp(
    images: Any, inverse: Any, interpolation: str = "bilinear", fill_mode: str = "reflect", fill_value: Any = 0.0
) -> Any:
    """The images as seen through maps: output pixel p shows the input at ``inverse`` p.

    Args:
        images: tensor (N, H, W, C), any dtype. Integers are cheapest to read: do not cast them before.
        inverse: float32 tensor (N, 3, 3), affine maps from output to input on centred (x, y, 1).
        interpolation: "nearest" (a tie goes right and down) or "bilinear".
        fill_mode: what lies outside. "constant": ``fill_value``, mixed in across the border; "nearest": the edge pixel;
            "reflect": the image mirrored at its outer border (d c b a | a b c d | d c b a); "wrap": the image repeated.
        fill_value: a number, for "constant".

    Returns:
        (N, H, W, C): float32 for "bilinear"; for "nearest" the dtype of ``images``, which must be able to hold the
        fill.
    """
    xp = namespace(images)
    _, height, width, _ = xp.shape(images)
    x, y = coordinates(inverse, height, width)
    if interpolation == "nearest":
        return _nearest(xp, images, x, y, fill_mode, fill_value)
    if not xp.fuses() and fill_mode != "wrap":
        return xp.grid_sample(images, x, y, fill_mode, fill_value)
    return _bilinear(xp, images, x, y, fill_mode, fill_value)


def coordinates(inverse: Any, height: Any, width: Any) -> tuple[Any, Any]:
    """Where each output pixel comes from: x and y in pixels of the input, two tensors (N, H, W)."""
    xp = namespace(inverse)
    half_width, half_height = centre(xp, width), centre(xp, height)
    x = (xp.arange(width, "float32", like=inverse) - half_width)[None, None, :]
    y = (xp.arange(height, "float32", like=inverse) - half_height)[None, :, None]
    m = [[inverse[:, i, j][:, None, None] for j in range(3)] for i in range(2)]
    # The translations first: they are a number an image, and the sum of a row stays outside the inner loop.
    from_x = m[0][0] * x + (m[0][1] * y + (m[0][2] + half_width))
    from_y = m[1][0] * x + (m[1][1] * y + (m[1][2] + half_height))
    return from_x, from_y


def centre(xp: Any, size: Any) -> Any:
    """The middle between the centres of the first and the last pixel of an axis, a number or a float32 scalar."""
    return (size - 1) / 2 if isinstance(size, int) else (xp.cast(size, "float32") - 1.0) * 0.5


def _size(xp: Any, n: Any) -> Any:
    return float(n) if isinstance(n, int) else xp.cast(n, "float32")


def _fold(xp: Any, t: Any, n: Any, fill_mode: str) -> Any:
    """Coordinates brought to where there are pixels; "constant" and "wrap" keep one pixel of border."""
    size = _size(xp, n)
    if fill_mode == "reflect":
        period = 2.0 * size
        t = xp.abs(t + 0.5)
        t = t - period * xp.floor(t / period)
        t = xp.minimum(t, period - t) - 0.5
    elif fill_mode == "wrap":
        return t - size * xp.floor(t / size)
    elif fill_mode == "constant":
        return xp.clip(t, -1.0, size)
    return xp.clip(t, 0.0, size - 1.0)


def _nearest(xp: Any, images: Any, x: Any, y: Any, fill_mode: str, fill_value: Any) -> Any:
    _, height, width, _ = xp.shape(images)
    across = xp.floor(_fold(xp, x, width, fill_mode) + 0.5)
    down = xp.floor(_fold(xp, y, height, fill_mode) + 0.5)
    if fill_mode == "wrap":  # half a pixel before the seam rounds up to the size
        across = xp.where(across > _size(xp, width) - 1.0, across * 0.0, across)
        down = xp.where(down > _size(xp, height) - 1.0, down * 0.0, down)
    clipped_x = xp.clip(across, 0.0, _size(xp, width) - 1.0)
    clipped_y = xp.clip(down, 0.0, _size(xp, height) - 1.0)
    pixels = xp.read_pixels(images, xp.cast(clipped_y, "int32"), xp.cast(clipped_x, "int32"))
    if fill_mode != "constant":
        return pixels
    inside = ((across == clipped_x) & (down == clipped_y))[..., None]
    fill = xp.cast(across[..., None] * 0.0 + fill_value, xp.dtype_name(images))
    return xp.where(inside, pixels, fill)


def _taps(xp: Any, t: Any, n: Any, fill_mode: str) -> tuple[Any, Any, Any, Any]:
    """Two neighbours of each coordinate of one axis and their weights: (index, index, weight, weight)."""
    t = _fold(xp, t, n, fill_mode)
    before = xp.floor(t)
    second = t - before
    last = _size(xp, n) - 1.0
    first, after = 1.0 - second, before + 1.0
    if fill_mode == "constant":  # what is read outside counts nothing; the fill makes up for the missing weight
        first = xp.where(before < 0.0, first * 0.0, xp.where(before > last, first * 0.0, first))
        second = xp.where(after > last, second * 0.0, second)
        before = xp.clip(before, 0.0, last)
    if fill_mode == "wrap":  # the seam: after the last pixel comes the first; folding may round up to the size itself
        before = xp.where(before > last, before * 0.0, before)
        after = xp.where(after > last, after - last - 1.0, after)
    after = xp.minimum(after, last)
    return xp.cast(before, "int32"), xp.cast(after, "int32"), first, second


def _bilinear(xp: Any, images: Any, x: Any, y: Any, fill_mode: str, fill_value: Any) -> Any:
    _, height, width, _ = xp.shape(images)
    left, right, left_weight, right_weight = _taps(xp, x, width, fill_mode)
    top, bottom, top_weight, bottom_weight = _taps(xp, y, height, fill_mode)

    def pixels(rows: Any, columns: Any) -> Any:
        return xp.cast(xp.read_pixels(images, rows, columns), "float32")

    left_w, right_w = left_weight[..., None], right_weight[..., None]
    upper = pixels(top, left) * left_w + pixels(top, right) * right_w
    lower = pixels(bottom, left) * left_w + pixels(bottom, right) * right_w
    result = upper * top_weight[..., None] + lower * bottom_weight[..., None]
    if fill_mode == "constant":
        covered = (left_weight + right_weight) * (top_weight + bottom_weight)
        result = result + ((1.0 - covered) * fill_value)[..., None]
    return result
