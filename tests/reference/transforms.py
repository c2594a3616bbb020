"""What each transform does to one image, by its documented definition: where a pixel is pulled from, what a value
becomes.
"""

from __future__ import annotations

import math

import numpy as np

from reference.warp import Map


def flip(shape: tuple[int, ...], horizontal: bool, vertical: bool) -> Map:
    """Mirrors left to right and top to bottom."""
    height, width = shape[:2]
    return lambda row, column: (height - 1 - row if vertical else row, width - 1 - column if horizontal else column)


def rotation(shape: tuple[int, ...], turns: float) -> Map:
    """The picture turns counter-clockwise on the screen; the output is pulled clockwise, about the image's centre."""
    middle_y, middle_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    angle = 2 * math.pi * turns

    def pull(row: float, column: float) -> tuple[float, float]:
        x, up = column - middle_x, middle_y - row  # y upwards, as in school
        return middle_y - (-math.sin(angle) * x + math.cos(angle) * up), middle_x + math.cos(angle) * x + math.sin(
            angle
        ) * up

    return pull


def translation(shape: tuple[int, ...], down: float, right: float) -> Map:
    """Shifts by fractions of the sides."""
    return lambda row, column: (row - down * shape[0], column - right * shape[1])


def zoom(shape: tuple[int, ...], height: float, width: float) -> Map:
    """The part 1 + height by 1 + width of the image about its centre is seen."""
    middle_y, middle_x = (shape[0] - 1) / 2, (shape[1] - 1) / 2
    return lambda row, column: (
        middle_y + (row - middle_y) * (1 + height),
        middle_x + (column - middle_x) * (1 + width),
    )


def shear(shape: tuple[int, ...], x: float, y: float) -> Map:
    """Keras: the output (x, y), from the upper left pixel, shows the input at (x + s_x y, y + s_y x)."""
    return lambda row, column: (row + y * column, column + x * row)


def brightness(image: np.ndarray, added: float, low: float = 0, high: float = 255) -> np.ndarray:
    """Adds a fraction of the range, then clips."""
    return np.clip(image.astype("float64") + added * (high - low), low, high)


def contrast(image: np.ndarray, factor: float, low: float = 0, high: float = 255) -> np.ndarray:
    """Stretches each channel about its mean, then clips."""
    mean = image.astype("float64").mean((0, 1))
    return np.clip((image - mean) * factor + mean, low, high)


def channel_shift(image: np.ndarray, added: np.ndarray, low: float = 0, high: float = 255) -> np.ndarray:
    """Adds a fraction of the range to each channel, then clips."""
    return np.clip(image.astype("float64") + np.asarray(added) * (high - low), low, high)
