"""Planar maps as 3x3 matrices, one an image: tensors (N, 3, 3) on centred homogeneous (x, y, 1), x right, y down.

A map goes forward: from where a pixel is to where it will be. All maps but ``homography`` are affine: their third
row is (0, 0, 1).
"""

from __future__ import annotations

from typing import Any

from keras_norm_layers.kernels.backend import namespace


def matrix(rows: list[list[Any]]) -> Any:
    """(N, 3, 3) from three rows of three entries: tensors (N,) or numbers, at least one of them a tensor."""
    like = next(entry for row in rows for entry in row if not isinstance(entry, (int, float)))
    xp = namespace(like)
    fill = like * 0.0
    return xp.stack([xp.stack([entry + fill for entry in row], 1) for row in rows], 1)


def translate(x: Any, y: Any) -> Any:
    """Moves right by ``x`` and down by ``y`` pixels, tensors (N,) or numbers."""
    return matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scale(x: Any, y: Any) -> Any:
    """Enlarges about the origin by the factors ``x`` and ``y``."""
    return matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def rotate(angle: Any) -> Any:
    """Turns about the origin by ``angle`` radians: counter-clockwise as seen on the screen when positive."""
    xp = namespace(angle)
    cos, sin = xp.cos(angle), xp.sin(angle)
    return matrix([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])


def shear(x: Any, y: Any) -> Any:
    """x' = x + ``x`` y, y' = y + ``y`` x, about the origin."""
    return matrix([[1.0, x, 0.0], [y, 1.0, 0.0], [0.0, 0.0, 1.0]])


def homography(start: list[tuple[Any, Any]], end: list[tuple[Any, Any]]) -> Any:
    """The perspective that brings four points to four others: corners of quadrilaterals, given around them.

    Each point is a pair of numbers or tensors (N,), at least one of them a tensor in ``end``. By way of the unit
    square, as in Heckbert, "Fundamentals of texture mapping and image warping" (1989).
    """
    fill = next(v for point in end for v in point if not isinstance(v, (int, float))) * 0.0
    return compose(invert(_from_unit_square(start, fill)), _from_unit_square(end, fill))


def _from_unit_square(corners: list[tuple[Any, Any]], fill: Any) -> Any:
    """The map of (0, 0), (1, 0), (1, 1), (0, 1) to four corners."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = ((x + fill, y + fill) for x, y in corners)
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3  # 0 for a parallelogram
    a_x, a_y, b_x, b_y = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    area = a_x * b_y - b_x * a_y
    g, h = (sum_x * b_y - b_x * sum_y) / area, (a_x * sum_y - sum_x * a_y) / area
    return matrix(
        [
            [x1 - x0 + g * x1, x3 - x0 + h * x3, x0],
            [y1 - y0 + g * y1, y3 - y0 + h * y3, y0],
            [g, h, 1.0],
        ]
    )


def about(x: Any, y: Any, middle: Any) -> Any:
    """The map ``middle`` with the point (x, y) as its origin."""
    fill = middle[:, 0, 0] * 0.0
    return compose(translate(fill - x, fill - y), middle, translate(fill + x, fill + y))


def compose(first: Any, *others: Any) -> Any:
    """One map for several, the first argument applied first."""
    product = first
    for after in others:
        # A broadcast product and not a matmul: on a GPU that may round float32 to ten bits of mantissa.
        xp = namespace(after)
        product = xp.sum(after[:, :, :, None] * product[:, None, :, :], axis=2)
    return product


def invert(forward: Any) -> Any:
    """The way back, by the adjugate; a singular matrix gives infinities."""
    m = [[forward[:, i, j] for j in range(3)] for i in range(3)]

    def minor(i: int, j: int) -> Any:
        (a, b), (c, d) = ([m[r][k] for k in range(3) if k != j] for r in range(3) if r != i)
        return a * d - b * c

    cofactors = [[(-1.0) ** (i + j) * minor(i, j) for j in range(3)] for i in range(3)]
    determinant = m[0][0] * cofactors[0][0] + m[0][1] * cofactors[0][1] + m[0][2] * cofactors[0][2]
    return matrix([[cofactors[j][i] / determinant for j in range(3)] for i in range(3)])
