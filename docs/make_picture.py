"""Draws README's picture: four photographs, and what three draws of one ``Augment`` make of them.

python docs/make_picture.py   # writes docs/before_after.jpg
"""

from pathlib import Path

import keras
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, transform
from sklearn.datasets import load_sample_images

import keras_norm_layers as knl

SIZE = 192


def square(image):
    """The middle of a photograph, as SIZE x SIZE uint8."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    middle = image[top : top + side, left : left + side]
    small = transform.resize(middle, (SIZE, SIZE), anti_aliasing=True, preserve_range=True)
    return np.rint(small).astype("uint8")


def main():
    photographs = [*load_sample_images().images, data.astronaut(), data.chelsea(), data.coffee()]
    images = np.stack([square(photograph) for photograph in photographs])
    augment = knl.Augment(
        [
            knl.RandomFlip("horizontal"),
            knl.RandomRotation(degrees=20),
            knl.RandomTranslation(0.1, 0.1),
            knl.RandomZoom(0.2),
            knl.RandomShear(0.15),
            knl.RandomBrightness(0.15),
            knl.RandomContrast(0.3),
            knl.RandomChannelShift(0.06),
        ],
        seed=4,
    )
    rows = [images, *(keras.ops.convert_to_numpy(augment(images)) for _ in range(3))]
    figure, axes = plt.subplots(len(rows), len(images), figsize=(1.6 * len(images), 1.65 * len(rows)))
    for row, (label, batch) in enumerate(zip(["before", "draw 1", "draw 2", "draw 3"], rows)):
        for axis, image in zip(axes[row], batch):
            axis.imshow(np.rint(image).astype("uint8"))
            axis.set(xticks=[], yticks=[])
        axes[row][0].set_ylabel(label)
    figure.tight_layout(pad=0.3)
    figure.savefig(Path(__file__).with_name("before_after.jpg"), dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
