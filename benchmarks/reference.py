"""The chain of ``chain.py`` for a given draw in NumPy and float64: what a device's result must equal.

Written from the transforms' documentation, with none of the package's code; it knows the order of the draw's slots.
"""

from __future__ import annotations

import math

import numpy as np

SLOTS = ("flip", "turns", "down", "right", "height", "shear x", "shear y", "shear sign", "added", "contrast")
SIZE_OF_DRAW = len(SLOTS)


def smooth_images(batch: int, size: int) -> np.ndarray:
    """uint8 images that change by a few levels a pixel, so that float32 coordinates are exact enough to compare."""
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    phase, speed = rng.uniform(0, 6, (batch, 3)), rng.uniform(-9, 9, (2, batch, 3))
    waves = speed[0][:, None, None] * y[None, ..., None] + speed[1][:, None, None] * x[None, ..., None]
    return (127.5 + 110.0 * np.sin(waves + phase[:, None, None])).astype("uint8")


def chain(images: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) after flip, rotation, translation, zoom, shear, brightness and contrast with the draw u."""
    return np.stack([_one(image, dict(zip(SLOTS, row))) for image, row in zip(images, u.astype("float64"))])


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u


def _one(image: np.ndarray, u: dict[str, float]) -> np.ndarray:
    height, width, _ = image.shape
    seen = _warp(image.astype("float64"), np.linalg.inv(_forward(u, height, width)))
    seen = np.clip(seen + _between(-0.2, 0.2, u["added"]) * 255.0, 0.0, 255.0)
    mean = seen.mean((0, 1))
    return np.clip((seen - mean) * _between(0.8, 1.2, u["contrast"]) + mean, 0.0, 255.0)


def _forward(u: dict[str, float], height: int, width: int) -> np.ndarray:
    """From where a pixel is to where it will be, on (x, y, 1) from the image centre, x right, y down."""
    angle = 2.0 * math.pi * _between(-0.05, 0.05, u["turns"])
    cos, sin = math.cos(angle), math.sin(angle)
    seen = 1.0 + _between(-0.2, 0.2, u["height"])
    sign = 1.0 if u["shear sign"] < 0.5 else -1.0
    corner = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1.0]])
    slant_x, slant_y = (sign * _between(-0.1, 0.1, u[name]) for name in ("shear x", "shear y"))
    pull = np.array([[1, slant_x, 0], [slant_y, 1, 0], [0, 0, 1.0]])
    down, right = (_between(-0.1, 0.1, u[name]) for name in ("down", "right"))
    maps = [
        np.diag([-1.0 if u["flip"] < 0.5 else 1.0, 1.0, 1.0]),
        np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]]),  # counter-clockwise on the screen
        np.array([[1, 0, right * width], [0, 1, down * height], [0, 0, 1.0]]),
        np.diag([1.0 / seen, 1.0 / seen, 1.0]),
        np.linalg.inv(corner) @ np.linalg.inv(pull) @ corner,  # about the upper left pixel
    ]
    result = np.eye(3)
    for after in maps:
        result = after @ result
    return result


def _warp(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Bilinear reading, the image mirrored at its outer border."""
    height, width, _ = image.shape
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    from_x = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] + (width - 1) / 2
    from_y = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] + (height - 1) / 2
    left, top = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    dx, dy = (from_x - left)[..., None], (from_y - top)[..., None]

    def pixels(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        rows, columns = rows % (2 * height), columns % (2 * width)
        return image[np.minimum(rows, 2 * height - 1 - rows), np.minimum(columns, 2 * width - 1 - columns)]

    upper = pixels(top, left) * (1 - dx) + pixels(top, left + 1) * dx
    lower = pixels(top + 1, left) * (1 - dx) + pixels(top + 1, left + 1) * dx
    return upper * (1 - dy) + lower * dy
