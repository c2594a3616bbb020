"""THE pass over the pixels: every output pixel asks where it comes from (here), and reads there (``interpolate.py``).

Coordinates: pixel centres are integers, the origin is the image centre ((W - 1) / 2, (H - 1) / 2), x right, y down.
"""

from __future__ import annotations

from typing import Any

from keras_norm_layers.kernels import interpolate
from keras_norm_layers.kernels.backend import namespace

INTERPOLATIONS = interpolate.INTERPOLATIONS
FILL_MODES = interpolate.FILL_MODES
HORIZON = 1e-6  # a homogeneous coordinate up to this lies behind the viewer
FAR = 1e6  # pixels: as far outside as float32 coordinates still mean something
SLACK = 1e-5  # a footprint that exceeds a pixel by no more is one pixel, rounded: a rotation's


def warp(
    images: Any,
    inverse: Any,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: Any = 0.0,
    *,
    size: tuple[Any, Any] | None = None,
    projective: bool = False,
    displacement: Any = None,
    samples: int = 1,
    dtype: str | None = None,
) -> Any:
    """The images as seen through maps: output pixel p shows the input at ``inverse`` (p + ``displacement``).

    Args:
        images: tensor (N, H, W, C), any dtype. Integers are cheapest to read: do not cast them before.
        inverse: float32 tensor (N, 3, 3), maps on homogeneous (x, y, 1) from the output, centred on the centre of the
            output, to the input, centred on the centre of the input.
        interpolation: "nearest" (a tie goes right and down), "bilinear", or "bicubic": Keys' kernel with a = -0.5, as
            in ``keras.ops.image.resize`` on TensorFlow and JAX (OpenCV and torch take -0.75); it may overshoot.
        fill_mode: what lies outside. "constant": ``fill_value``, mixed in across the border; "nearest": the edge pixel;
            "reflect": the image mirrored at its outer border (d c b a | a b c d | d c b a); "wrap": the image repeated.
        fill_value: a number, for "constant".
        size: (H', W') of the output; None for (H, W).
        projective: whether the third rows of ``inverse`` count; without, they are taken for (0, 0, 1), which is
            cheaper. What lies behind the horizon (third coordinate <= 0) is far outside.
        displacement: None or float32 (N, H', W', 2), x and y in pixels of the output.
        samples: k for k * k readings a pixel, averaged, which keeps what is shrunk from aliasing. They spread over as
            much as the pixel covers beyond one pixel of the input: nothing is blurred where nothing shrinks.
            "nearest" reads once whatever k is, for labels have no average.
        dtype: for "nearest" the dtype of what comes out, which must be able to hold the fill; None for that of
            ``images``.

    Returns:
        (N, H', W', C): float32; for "nearest" as ``dtype`` says.
    """
    xp = namespace(images)
    inside = xp.shape(images)[1:3]
    outside = inside if size is None else size

    plain = interpolation == "bilinear" and fill_mode != "wrap" and not projective and displacement is None

    def seen(through: Any) -> Any:
        if plain and not xp.fuses():
            return xp.affine_sample(images, through, outside, fill_mode, fill_value)
        x, y = coordinates(through, inside, outside, projective, displacement)
        return interpolate.read(images, x, y, interpolation, fill_mode, fill_value)

    if interpolation == "nearest" and not xp.fuses() and not projective and displacement is None:
        copied = xp.copy_exactly(images, inverse, outside, dtype)
        if copied is not None:
            return copied
    if interpolation == "nearest" and dtype is not None:
        images = xp.cast(images, dtype)
    if samples == 1 or interpolation == "nearest":
        return seen(inverse)
    if not xp.fuses():
        images = xp.cast(images, "float32")  # once, not for each sample
    return _averaged(seen, inverse, projective, samples)


def mirrored(images: Any, maps: Any, axes: set[int]) -> Any:
    """``warp`` by maps (N, 3, 3) that do nothing but reverse some of these axes: 1 for the rows, 2 for the columns.

    Compilers turn that into loads that lie side by side, where places from a matrix are looked up one by one.
    """
    xp = namespace(images)
    for axis in sorted(axes):
        reversed_ = maps[:, 2 - axis, 2 - axis] < 0.0
        images = xp.where(xp.reshape(reversed_, (-1, 1, 1, 1)), xp.reverse(images, axis), images)
    return images


def sample(field: Any, x: Any, y: Any) -> Any:
    """A float field (N, H, W, C) at points (N, K), in pixels, the first one's centre 0: (N, K, C), bilinear, the edge
    repeated outside.
    """
    return interpolate.read(field, x[:, None, :] + 0.5, y[:, None, :] + 0.5, "bilinear", "nearest", 0.0)[:, 0]


def coordinates(
    inverse: Any,
    inside: tuple[Any, Any],
    outside: tuple[Any, Any],
    projective: bool = False,
    displacement: Any = None,
) -> tuple[Any, Any]:
    """Where each pixel of an output of size ``outside`` comes from: x and y in pixels of an input of size ``inside``,
    counted from its border, as ``interpolate.read`` takes them: two tensors (N, H', W').
    """
    xp = namespace(inverse)
    middle_y, middle_x = (centre(xp, n) + 0.5 for n in inside)  # from the border
    x = (xp.arange(outside[1], "float32", like=inverse) - centre(xp, outside[1]))[None, None, :]
    y = (xp.arange(outside[0], "float32", like=inverse) - centre(xp, outside[0]))[None, :, None]
    if displacement is not None:
        x, y = x + displacement[..., 0], y + displacement[..., 1]
    m = [[inverse[:, i, j][:, None, None] for j in range(3)] for i in range(3)]

    def product(row: int, shift: Any) -> Any:
        # The translation first: it is a number an image, and the sum of a row stays outside the inner loop.
        return m[row][0] * x + (m[row][1] * y + (m[row][2] + shift))

    if not projective:
        return product(0, middle_x), product(1, middle_y)
    depth = product(2, 0.0)
    visible = depth > HORIZON
    depth = xp.where(visible, depth, 1.0)
    from_x, from_y = (
        xp.where(visible, xp.clip(product(row, 0.0) / depth, -FAR, FAR), -FAR) + middle
        for row, middle in enumerate((middle_x, middle_y))
    )
    return from_x, from_y


def centre(xp: Any, size: Any) -> Any:
    """The middle between the centres of the first and the last pixel of an axis, a number or a float32 scalar."""
    return (size - 1) / 2 if isinstance(size, int) else (xp.cast(size, "float32") - 1.0) * 0.5


def _spread(xp: Any, inverse: Any, projective: bool) -> list[Any]:
    """How far the samples of an output pixel spread along x and y, in output pixels: max(1 - 1 / s, 0), float32 (N,).

    s is the length of what one step in the output covers in the input, at the centre of the image.
    """
    m = [[inverse[:, i, j] for j in range(3)] for i in range(3)]
    result = []
    for axis in range(2):
        step_x, step_y = m[0][axis], m[1][axis]
        if projective:  # the derivative of the quotient
            depth = xp.maximum(m[2][2], HORIZON)
            step_x = (step_x - m[2][axis] * m[0][2] / depth) / depth
            step_y = (step_y - m[2][axis] * m[1][2] / depth) / depth
        covered = xp.maximum(xp.sqrt(step_x * step_x + step_y * step_y), 1.0 + SLACK)
        result.append(1.0 - (1.0 + SLACK) / covered)
    return result


def _averaged(seen: Any, inverse: Any, projective: bool, samples: int) -> Any:
    """The mean of what is ``seen`` through ``inverse`` at ``samples`` x ``samples`` places of each output pixel.

    The sum grows reading by reading, so that a compiler can keep it in registers and a library without one in one
    tensor. An image that does not shrink is taken from one reading: a mean of equal numbers need not be that number.
    """
    xp = namespace(inverse)
    spread_x, spread_y = _spread(xp, inverse, projective)
    places = [(i + 0.5) / samples - 0.5 for i in range(samples)]
    first: Any = None
    total: Any = None
    for down in places:
        for across in places:
            moved = inverse[:, :, :1] * (spread_x * across)[:, None, None]
            moved = moved + inverse[:, :, 1:2] * (spread_y * down)[:, None, None] + inverse[:, :, 2:]
            part = seen(xp.concat([inverse[:, :, :2], moved], 2))
            first, total = (part, part) if total is None else (first, total + part)
    shrinks = (spread_x + spread_y > 0.0)[:, None, None, None]
    return xp.where(shrinks, total * (1.0 / samples**2), first)
