"""The chain of ``chain.py`` as other libraries run it, with the fastest settings that each of them has.

Same images (uint8 in, float32 out), same ranges, parameters drawn for each image. Where a library's transform is not
the same (brightness that multiplies, contrast about zero), the nearest one it has was taken: none of the differences
makes more work. ``pip install '.[bench]'`` installs them; one that is missing says so in the results.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

MEAN, VARIANCE = (120.0, 115.0, 100.0), (3000.0, 3100.0, 3300.0)
STD = tuple(math.sqrt(v) for v in VARIANCE)
DEGREES = 0.05 * 360.0
SHEAR_DEGREES = math.degrees(math.atan(0.1))
Factory = Callable[[], Callable[[], Any]]

NOTES = {
    "albumentations, one thread": "a Python loop over the images; contrast about 0",
    "albumentations, threads": "the same loop on a thread a core; contrast about 0",
    "ImageDataGenerator": "the copy in Keras 3; brightness multiplies; images were cast to float32 beforehand",
    "kornia, eager": "channels first out; brightness multiplies, contrast about 0",
    "kornia, torch.compile": "channels first out; brightness multiplies, contrast about 0",
    "keras-aug, graph": "the order of its colour jitter is drawn once a batch",
    "keras-aug, jit": "the order of its colour jitter is drawn once a batch",
    "keras-aug, eager": "the order of its colour jitter is drawn once a batch",
}
DRAWS_ONCE_A_BATCH: tuple[str, ...] = ()  # every contender here draws an image; one that does not belongs in here


def contenders(backend: str, images: np.ndarray, x: Any) -> dict[str, Factory]:
    """The peers that run in a process of this backend: name -> what makes the call. ``x`` is ``images`` as tensor."""
    result: dict[str, Factory] = {
        "albumentations, one thread": lambda: albumentations(images, 1),
        "albumentations, threads": lambda: albumentations(images, len(os.sched_getaffinity(0))),
        "ImageDataGenerator": lambda: image_data_generator(images),
    }
    if backend == "torch":
        result["kornia, torch.compile"] = lambda: kornia(x, compiled=True)
        result["kornia, eager"] = lambda: kornia(x, compiled=False)
    for kind in {"tensorflow": ("graph",), "jax": ("jit", "eager"), "torch": ("eager",)}[backend]:
        result[f"keras-aug, {kind}"] = lambda kind=kind: keras_aug(kind, x)
    return result


def albumentations(images: np.ndarray, threads: int) -> Callable[[], Any]:
    """albumentations, image by image into one batch: uint8 up to the normalization, where OpenCV is fastest."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version
    from concurrent.futures import ThreadPoolExecutor

    import albumentations as A
    import cv2

    def pipeline(seed: int) -> Any:
        affine = A.Affine(
            scale=(0.8, 1.2),
            translate_percent={"x": (-0.1, 0.1), "y": (-0.1, 0.1)},
            rotate=(-DEGREES, DEGREES),
            shear={"x": (-SHEAR_DEGREES, SHEAR_DEGREES), "y": (-SHEAR_DEGREES, SHEAR_DEGREES)},
            interpolation=cv2.INTER_LINEAR,
            keep_ratio=True,
            border_mode=cv2.BORDER_REFLECT,
            p=1.0,
        )
        color = A.RandomBrightnessContrast(0.2, 0.2, p=1.0)  # one table of 256 values for both
        normalize = A.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD])
        return A.Compose([A.HorizontalFlip(p=0.5), affine, color, normalize], seed=seed)

    # One generator a thread: they are not safe to share. OpenCV's own threads would only get in their way.
    parts = np.array_split(np.arange(len(images)), threads)
    pipelines = [pipeline(seed) for seed in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def work(augment: Any, numbers: np.ndarray, out: np.ndarray) -> None:
        for i in numbers:
            out[i] = augment(image=images[i])["image"]

    def call() -> np.ndarray:
        cv2.setNumThreads(0 if threads > 1 else -1)
        out = np.empty(images.shape, "float32")
        if threads == 1:
            work(pipelines[0], parts[0], out)
        else:
            list(pool.map(work, pipelines, parts, [out] * threads))
        return out

    return call


def image_data_generator(images: np.ndarray) -> Callable[[], Any]:
    """Keras's legacy class (SciPy and Pillow, image by image); contrast, which it lacks, in NumPy."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator  # its only place in Keras 3 without TensorFlow

    rng = np.random.default_rng(0)

    def contrast(image: np.ndarray) -> np.ndarray:
        mean = image.mean((0, 1))
        return np.clip((image - mean) * np.float32(rng.uniform(0.8, 1.2)) + mean, 0.0, 255.0)

    generator = ImageDataGenerator(
        rotation_range=DEGREES,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=SHEAR_DEGREES,
        zoom_range=0.2,
        horizontal_flip=True,
        brightness_range=(0.8, 1.2),
        fill_mode="reflect",
        preprocessing_function=contrast,
        featurewise_center=True,
        featurewise_std_normalization=True,
        dtype="float32",
    )
    generator.mean, generator.std = (np.float32(v).reshape(1, 1, 3) for v in (MEAN, STD))
    flow = generator.flow(images, batch_size=len(images), shuffle=False, seed=0)
    return lambda: next(flow)


def kornia(x: Any, compiled: bool) -> Callable[[], Any]:
    """kornia: one affine warp for rotation, translation, zoom and shear; its layout (channels first) is left as is.

    RandomBrightness and RandomContrast, not ColorJiggle, which would run saturation and hue as well.
    """
    import kornia.augmentation as K
    import torch

    mean, std = (torch.tensor(v, device=x.device) / 255.0 for v in (MEAN, STD))
    augment = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(
            degrees=DEGREES,
            translate=(0.1, 0.1),
            scale=(0.8, 1.2),
            shear=(-SHEAR_DEGREES, SHEAR_DEGREES, -SHEAR_DEGREES, SHEAR_DEGREES),
            padding_mode="reflection",
            p=1.0,
        ),
        K.RandomBrightness((0.8, 1.2), p=1.0),
        K.RandomContrast((0.8, 1.2), p=1.0),
        K.Normalize(mean, std),
        same_on_batch=False,
    ).to(x.device)

    def function(x: Any) -> Any:
        return augment(x.permute(0, 3, 1, 2).to(torch.float32) / 255.0)

    program = torch.compile(function) if compiled else function

    def call() -> Any:
        with torch.no_grad():
            return program(x)

    return call


def keras_aug(kind: str, x: Any) -> Callable[[], Any]:
    """keras-aug: Keras 3 layers on whole batches; one affine warp for rotation, translation, zoom and shear."""
    import keras
    import programs
    from keras_aug.layers import vision

    model = keras.Sequential(
        [
            keras.Input(tuple(x.shape[1:]), dtype="uint8"),
            vision.RandomFlip("horizontal"),
            vision.RandomAffine(
                degree=DEGREES,
                translate=(0.1, 0.1),
                scale=(0.8, 1.2),
                shear=(-SHEAR_DEGREES, SHEAR_DEGREES, -SHEAR_DEGREES, SHEAR_DEGREES),
                padding_mode="reflect",  # "symmetric" is in its documentation, and Keras refuses it
            ),
            vision.ColorJitter(brightness=0.2, contrast=0.2),
            vision.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        ]
    )
    return programs.program(kind, model, x)
