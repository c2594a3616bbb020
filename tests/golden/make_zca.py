"""Makes image_data_generator_zca.npz: what Keras's ImageDataGenerator and kornia learn for ZCA whitening.

    python tests/golden/make_zca.py

Needs kornia, torch and scikit-learn. The only place that imports from Keras's private modules, so that no test has to.
"""

import pathlib

import keras
import kornia
import numpy as np
import sklearn
import torch
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from sklearn.datasets import load_digits


def learnt(images):
    generator = ImageDataGenerator(featurewise_center=True, zca_whitening=True, zca_epsilon=1e-6, dtype="float64")
    generator.fit(images)
    return generator


def white(generator, images):
    return np.stack([generator.standardize(image.astype("float64")) for image in images])


if __name__ == "__main__":  # not where pytest imports it to look for doctests
    rng = np.random.default_rng(11)
    # Correlated, of full rank, more images than values, and pixels whose means differ from their channel's mean.
    mixing = np.eye(75) + 0.3 * rng.normal(size=(75, 75)) / np.sqrt(75)
    images = (
        (rng.normal(size=(300, 75)) @ mixing * 0.2 + rng.uniform(0.2, 0.8, 75)).reshape(300, 5, 5, 3).astype("float32")
    )
    generator = learnt(images)

    # Fewer images than values: the matrix keeps as many directions as there were images.
    few = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)

    digits = torch.tensor(load_digits().images.reshape(-1, 64))
    matrix, _, inverse = kornia.enhance.zca_mean(digits, unbiased=False, eps=0.01, return_inverse=True)
    np.savez_compressed(
        pathlib.Path(__file__).with_name("image_data_generator_zca.npz"),
        images=images,
        mean=np.asarray(generator.mean, "float64"),
        matrix=np.asarray(generator.zca_whitening_matrix, "float64"),
        white=white(generator, images[:8]),
        few=few[:20],
        unseen=few[20:],
        few_white=white(learnt(few[:20]), few),
        kornia_matrix=matrix.numpy(),
        kornia_inverse=inverse.numpy(),
        versions=np.array([f"{m.__name__} {m.__version__}" for m in (keras, np, kornia, torch, sklearn)]),
    )
