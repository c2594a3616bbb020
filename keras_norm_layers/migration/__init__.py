"""What takes code written for ``ImageDataGenerator`` to Keras 3, and from there to layers."""

from keras_norm_layers.migration.convert import from_image_data_generator
from keras_norm_layers.migration.image_data_generator import ImageDataGenerator

__all__ = ["ImageDataGenerator", "from_image_data_generator"]
