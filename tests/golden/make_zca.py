"""Makes image_data_generator_zca.npz: what Keras's ImageDataGenerator learns for ZCA whitening.

    python tests/golden/make_zca.py

The only place that imports from Keras's private modules, so that no test has to.
"""

import pathlib

import keras
import numpy as np
from keras.src.legacy.preprocessing.image import ImageDataGenerator

rng = np.random.default_rng(11)
# Correlated, of full rank, more images than values, and pixels whose means differ from their channel's mean.
mixing = np.eye(75) + 0.3 * rng.normal(size=(75, 75)) / np.sqrt(75)
images = (rng.normal(size=(300, 75)) @ mixing * 0.2 + rng.uniform(0.2, 0.8, 75)).reshape(300, 5, 5, 3).astype("float32")

generator = ImageDataGenerator(featurewise_center=True, zca_whitening=True, zca_epsilon=1e-6, dtype="float64")
generator.fit(images)
np.savez_compressed(
    pathlib.Path(__file__).with_name("image_data_generator_zca.npz"),
    images=images,
    mean=np.asarray(generator.mean, "float64"),
    matrix=np.asarray(generator.zca_whitening_matrix, "float64"),
    white=np.stack([generator.standardize(image.astype("float64")) for image in images[:8]]),
    versions=np.array([f"keras {keras.__version__}", f"numpy {np.__version__}"]),
)
