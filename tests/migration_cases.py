"""The cases that ``golden/make_image_data_generator.py`` records from Keras, and the migration's tests repeat."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

CLASSES = ("bird", "ant", "cat")
SIZE = (9, 8)

AFFINE = {"rotation_range": 30, "zoom_range": 0.3, "width_shift_range": 0.2, "shear_range": 10.0}
COLOUR = {"channel_shift_range": 30.0, "brightness_range": [0.5, 1.5], "horizontal_flip": True}


def picture(
    number: int, size: Any, low: float = 0, high: float = 255, whole: bool = True, data_format: str = "channels_last"
) -> np.ndarray:
    """A float32 image that no random generator has a part in: waves of values from ``low`` to ``high``."""
    row, column, channel = np.indices(size)
    waves = np.sin(0.7 * row * (1 + number % 5) + 0.9 * column + channel + number) * np.cos(1.3 * column - 0.4 * row)
    values = low + (high - low) * (0.5 + 0.5 * waves)
    values = (np.round(values) if whole else values).astype("float32")
    return values.transpose(2, 0, 1) if data_format == "channels_first" else values


def pictures(count: int, size: Any = (9, 8, 3), **options: Any) -> np.ndarray:
    """Some of them as one array."""
    return np.stack([picture(number, size, **options) for number in range(count)])


def _normal(count: int, size: tuple[int, ...]) -> np.ndarray:
    """Correlated values of full rank whose pixels have means of their own, in [0, 255]."""
    rng = np.random.default_rng(5)
    width = int(np.prod(size))
    mixing = np.eye(width) + 0.3 * rng.normal(size=(width, width)) / np.sqrt(width)
    values = rng.normal(size=(count, width)) @ mixing * 20 + rng.uniform(60, 200, width)
    return np.clip(values, 0, 255).reshape(count, *size).astype("float32")


FIT_CASES: dict[str, dict[str, Any]] = {
    "featurewise": {
        "images": lambda: pictures(12),
        "arguments": {"featurewise_center": True, "featurewise_std_normalization": True, "rescale": 1 / 255},
    },
    "center": {"images": lambda: pictures(12), "arguments": {"featurewise_center": True}},
    "channels first": {
        "images": lambda: pictures(6, data_format="channels_first"),
        "arguments": {
            "featurewise_center": True,
            "featurewise_std_normalization": True,
            "data_format": "channels_first",
        },
    },
    "samplewise": {
        "images": lambda: pictures(6),
        "arguments": {"samplewise_center": True, "samplewise_std_normalization": True},
    },
    "both": {
        "images": lambda: pictures(6),
        "arguments": {
            "rescale": 1 / 255,
            "samplewise_center": True,
            "samplewise_std_normalization": True,
            "featurewise_center": True,
            "featurewise_std_normalization": True,
        },
    },
    "augmented": {
        "images": lambda: pictures(5),
        "arguments": AFFINE | COLOUR | {"featurewise_center": True, "featurewise_std_normalization": True},
        "fit": {"augment": True, "rounds": 2, "seed": 3},
    },
    "zca": {
        "images": lambda: _normal(200, (4, 5, 3)),
        "arguments": {"featurewise_center": True, "zca_whitening": True, "rescale": 1 / 255},
        "dtype": "float64",
    },
    "zca of few images": {
        "images": lambda: _normal(20, (4, 5, 3)),
        "arguments": {"featurewise_center": True, "zca_whitening": True, "zca_epsilon": 0.1},
        "dtype": "float64",
    },
}

FLOW_CASES: dict[str, dict[str, Any]] = {
    "all steps": {
        "generator": AFFINE | COLOUR | {"rescale": 1 / 255, "samplewise_center": True},
        "flow": lambda: {"x": pictures(10), "y": np.arange(10) % 3, "batch_size": 4, "seed": 11},
        "steps": 5,
    },
    "in order, weighted": {
        "generator": AFFINE,
        "flow": lambda: {
            "x": pictures(7).astype("uint8"),
            "y": np.eye(7),
            "sample_weight": np.arange(7.0),
            "batch_size": 3,
            "shuffle": False,
            "seed": 2,
        },
        "steps": 4,
    },
    "more inputs, validation": {
        "generator": {"validation_split": 0.3, "horizontal_flip": True},
        "flow": lambda: {
            "x": (pictures(10), [np.arange(10), np.arange(20).reshape(10, 2)]),
            "y": np.arange(10),
            "batch_size": 2,
            "seed": 4,
            "subset": "validation",
            "ignore_class_split": True,
        },
        "steps": 3,
    },
    "training": {
        "generator": {"validation_split": 0.3, "vertical_flip": True},
        "flow": lambda: {"x": pictures(10), "batch_size": 3, "seed": 4, "subset": "training"},
        "steps": 3,
    },
}

FILES = AFFINE | COLOUR | {"rescale": 1 / 255, "validation_split": 0.4}
SIZES = {"target_size": (7, 6), "batch_size": 3, "seed": 8}
DIRECTORY_CASES: dict[str, dict[str, Any]] = {
    "categorical": {"generator": FILES, "flow": SIZES},
    "gray, binary": {
        "generator": {"rotation_range": 20},
        "flow": SIZES | {"color_mode": "grayscale", "class_mode": "binary", "classes": ["cat", "ant"]},
    },
    "opaque, input, training": {
        "generator": FILES,
        "flow": SIZES | {"color_mode": "rgba", "class_mode": "input", "subset": "training"},
    },
    "sparse, validation, bicubic": {
        "generator": FILES,
        "flow": SIZES | {"class_mode": "sparse", "subset": "validation", "interpolation": "bicubic"},
    },
    "no labels, aspect ratio": {
        "generator": {"data_format": "channels_first", "zoom_range": 0.2},
        "flow": SIZES | {"class_mode": None, "shuffle": False, "keep_aspect_ratio": True, "interpolation": "bilinear"},
    },
}
FRAME_CASES: dict[str, dict[str, Any]] = {
    "categorical": {"generator": FILES, "flow": SIZES},
    "several labels": {"generator": FILES, "flow": SIZES | {"y_col": "several"}},
    "several labels, some classes": {
        "generator": FILES,
        "flow": SIZES | {"y_col": "several", "classes": ["small", "cat"], "weight_col": "value"},
    },
    "sparse, some classes, validation": {
        "generator": FILES,
        "flow": SIZES | {"class_mode": "sparse", "classes": ["cat", "bird"], "subset": "validation"},
    },
    "raw, weighted": {
        "generator": FILES,
        "flow": SIZES | {"class_mode": "raw", "y_col": ["value", "other"], "weight_col": "value"},
    },
    "several outputs": {
        "generator": FILES,
        "flow": SIZES | {"class_mode": "multi_output", "y_col": ["value", "class"], "subset": "training"},
    },
    "images alone": {"generator": FILES, "flow": SIZES | {"class_mode": None}},
}


def write_folder(folder: Any) -> None:
    """A folder for each class: PNG files of several modes, one of them in a folder of its own, and a text file."""
    from PIL import Image

    for c, name in enumerate(CLASSES):
        os.makedirs(os.path.join(folder, name, "deep"))
        for i, mode in enumerate(("RGB", "L", "RGBA", "P", "RGB")):
            image = Image.fromarray(picture(7 * c + i, (*SIZE, 3)).astype("uint8")).convert(mode)
            image.save(os.path.join(folder, file_name(name, i)))
        levels = (picture(c, (*SIZE, 1))[..., 0] * 200).astype("uint16")
        Image.fromarray(levels).save(os.path.join(folder, file_name(name, 5)))
        with open(os.path.join(folder, name, "notes.txt"), "w", encoding="utf8") as notes:
            notes.write("no image")


def file_name(name: str, number: int) -> str:
    """The path of an image of a class, relative to the folder."""
    return os.path.join(name, "deep", f"{number}.PNG") if number == 3 else os.path.join(name, f"{number}.png")


def frame_of() -> Any:
    """The data frame of that folder."""
    import pandas

    rows = [(name, i) for name in CLASSES for i in range(6)]
    return pandas.DataFrame(
        {
            "filename": [file_name(name, i) for name, i in rows],
            "class": [name for name, _ in rows],
            "several": [[name, "small"] if i % 2 else [name] for name, i in rows],
            "value": [i * 1.5 + len(name) for name, i in rows],
            "other": [float(i) for _, i in rows],
        }
    )
