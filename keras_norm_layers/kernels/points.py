"""The forward map on what is no pixel: keypoints and boxes.

A keypoint is given like a pixel: whole numbers are pixel centres. A box is given by its edges: a box over the whole
image of width W goes from 0 to W, so its edges lie half a pixel beyond the centres of the first and the last pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_norm_layers.kernels import resample
from keras_norm_layers.kernels.backend import namespace

BOX_FORMATS = tuple(prefix + name for prefix in ("", "rel_") for name in ("xyxy", "yxyx", "xywh", "center_xywh"))


Move = Callable[
    [Any, Any], tuple[Any, Any]
]  # x and y (N, K) about the centre of the image that goes in -> that comes out
Size = tuple[Any, Any]  # height and width in pixels, as numbers or float32 scalars


def move_points(points: Any, way: Move, size: Size, out: Size) -> Any:
    """Keypoints (N, K, 2), x and y in pixels of an image of ``size``, moved into an image of the size ``out``."""
    xp = namespace(points)
    x, y = way(points[:, :, 0] - 0.5 * (size[1] - 1.0), points[:, :, 1] - 0.5 * (size[0] - 1.0))
    return xp.stack([x + 0.5 * (out[1] - 1.0), y + 0.5 * (out[0] - 1.0)], 2)


def move_boxes(
    boxes: Any, labels: Any, way: Move, size: Size, out: Size, box_format: str, an_edge: int = 1
) -> tuple[Any, Any]:
    """Boxes (N, K, 4): the hull of each one's moved corners, cut at the border of the image that comes out.

    A box that leaves the image, and one whose label was negative before (padding), is marked as Keras marks it: its
    four numbers and its label (N, K) become -1. ``an_edge``: into how many parts edges are cut, where lines bend.
    """
    xp = namespace(boxes)
    (height, width), (new_height, new_width) = size, out
    left, top, right, bottom = _to_edges(boxes, box_format, height, width)
    parts = [i / an_edge for i in range(an_edge)]
    turns = [(t, 0.0) for t in parts] + [(1.0, t) for t in parts] + [(1.0 - t, 1.0) for t in parts]
    turns += [(0.0, 1.0 - t) for t in parts]
    moved = [
        way(left + (right - left) * t - 0.5 * width, top + (bottom - top) * s - 0.5 * height)
        if 0.0 < t < 1.0 or 0.0 < s < 1.0
        else way((right if t else left) - 0.5 * width, (bottom if s else top) - 0.5 * height)
        for t, s in turns
    ]
    xs, ys = (xp.stack([corner[axis] for corner in moved], 0) for axis in (0, 1))
    left, right = (xp.clip(edge(xs, 0) + 0.5 * new_width, 0.0, new_width) for edge in (xp.amin, xp.amax))
    top, bottom = (xp.clip(edge(ys, 0) + 0.5 * new_height, 0.0, new_height) for edge in (xp.amin, xp.amax))
    kept = ((right - left) * (bottom - top) > 0) & (labels >= 0)
    hull = xp.stack(_from_edges(left, top, right, bottom, box_format, new_height, new_width), 2)
    return xp.where(kept[:, :, None], hull, hull * 0.0 - 1.0), xp.where(kept, labels, labels * 0 - 1)


def move(forward: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Points x, y (N, K) under the maps ``forward`` (N, 3, 3). What a perspective puts behind the eye goes far away."""
    m = [[forward[:, i, j][:, None] for j in range(3)] for i in range(3)]
    w = m[2][0] * x + m[2][1] * y + m[2][2]
    w = namespace(x).maximum(w, 1e-6)
    return (m[0][0] * x + m[0][1] * y + m[0][2]) / w, (m[1][0] * x + m[1][1] * y + m[1][2]) / w


def unbend(field: Any, x: Any, y: Any, rounds: int = 40) -> tuple[Any, Any]:
    """The points q with q + field(q) = (x, y): where a displacement that pulls pixels leaves points.

    ``field`` is (N, H, W, 2), x and y in pixels; x and y are (N, K), about the image centre. Found by going
    half of the way that is left, again and again, which gets there wherever the field does not fold the image.
    """
    xp = namespace(field)
    _, height, width, _ = xp.shape(field)
    half_width, half_height = resample.centre(xp, width), resample.centre(xp, height)

    def closer(at: Any) -> Any:
        pull = resample.sample(field, at[0] + half_width, at[1] + half_height)
        return xp.stack([0.5 * (at[0] + x - pull[:, :, 0]), 0.5 * (at[1] + y - pull[:, :, 1])], 0)

    at = xp.again(rounds, closer, xp.stack([x, y], 0))
    return at[0], at[1]


def _to_edges(boxes: Any, box_format: str, height: Any, width: Any) -> tuple[Any, Any, Any, Any]:
    a, b, c, d = (boxes[:, :, i] for i in range(4))
    name = box_format.removeprefix("rel_")
    if name == "yxyx":
        a, b, c, d = b, a, d, c
    elif name == "xywh":
        c, d = a + c, b + d
    elif name == "center_xywh":
        a, b, c, d = a - 0.5 * c, b - 0.5 * d, a + 0.5 * c, b + 0.5 * d
    if box_format.startswith("rel_"):
        a, b, c, d = a * width, b * height, c * width, d * height
    return a, b, c, d


def _from_edges(left: Any, top: Any, right: Any, bottom: Any, box_format: str, height: Any, width: Any) -> list[Any]:
    if box_format.startswith("rel_"):
        left, top, right, bottom = left / width, top / height, right / width, bottom / height
    name = box_format.removeprefix("rel_")
    if name == "yxyx":
        return [top, left, bottom, right]
    if name == "xywh":
        return [left, top, right - left, bottom - top]
    if name == "center_xywh":
        return [0.5 * (left + right), 0.5 * (top + bottom), right - left, bottom - top]
    return [left, top, right, bottom]
