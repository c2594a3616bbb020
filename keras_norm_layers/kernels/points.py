"""The forward map on what is no pixel: keypoints and boxes.

A keypoint is given like a pixel: whole numbers are pixel centres. A box is given by its edges: a box over the whole
image of width W goes from 0 to W, so its edges lie half a pixel beyond the centres of the first and the last pixel.
"""

from __future__ import annotations

from typing import Any

from keras_norm_layers.kernels.backend import namespace

BOX_FORMATS = tuple(prefix + name for prefix in ("", "rel_") for name in ("xyxy", "yxyx", "xywh", "center_xywh"))


def move_points(points: Any, forward: Any, height: Any, width: Any) -> Any:
    """Keypoints (N, K, 2), x and y in pixels, moved by the maps ``forward`` (N, 3, 3)."""
    xp = namespace(points)
    middle_x, middle_y = 0.5 * (width - 1.0), 0.5 * (height - 1.0)
    x, y = _move(forward, points[:, :, 0] - middle_x, points[:, :, 1] - middle_y)
    return xp.stack([x + middle_x, y + middle_y], 2)


def move_boxes(boxes: Any, labels: Any, forward: Any, height: Any, width: Any, box_format: str) -> tuple[Any, Any]:
    """Boxes (N, K, 4): the hull of each one's moved corners, cut at the image's border.

    A box that leaves the image, and one whose label was negative before (padding), is marked as Keras marks it: its
    four numbers and its label (N, K) become -1.
    """
    xp = namespace(boxes)
    left, top, right, bottom = _to_edges(boxes, box_format, height, width)
    corners = [
        _move(forward, x - 0.5 * width, y - 0.5 * height)
        for x, y in ((left, top), (right, top), (left, bottom), (right, bottom))
    ]
    xs, ys = (xp.stack([corner[axis] for corner in corners], 0) for axis in (0, 1))
    left, right = (xp.clip(edge(xs, 0) + 0.5 * width, 0.0, width) for edge in (xp.amin, xp.amax))
    top, bottom = (xp.clip(edge(ys, 0) + 0.5 * height, 0.0, height) for edge in (xp.amin, xp.amax))
    kept = ((right - left) * (bottom - top) > 0) & (labels >= 0)
    moved = xp.stack(_from_edges(left, top, right, bottom, box_format, height, width), 2)
    return xp.where(kept[:, :, None], moved, moved * 0.0 - 1.0), xp.where(kept, labels, labels * 0 - 1)


def _move(forward: Any, x: Any, y: Any) -> tuple[Any, Any]:
    m = [[forward[:, i, j][:, None] for j in range(3)] for i in range(2)]
    return m[0][0] * x + m[0][1] * y + m[0][2], m[1][0] * x + m[1][1] * y + m[1][2]


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
