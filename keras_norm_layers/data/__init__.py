"""Feeding: folders, tables, HDF5 files and arrays of images as batches; checks of a data set; augmented files.

Example:
    >>> import numpy as np, keras_norm_layers as knl
    >>> images, labels = np.zeros((100, 8, 8, 3), "uint8"), np.arange(100) % 2
    >>> training, validation = knl.data.from_arrays(images, labels, validation_split=0.2, subset="both", seed=7)
    >>> training.num_samples, validation.num_samples
    (80, 20)

Each reader gives a ``Feed``, whose arguments they share: see there.
"""

from keras_norm_layers.data.arrays import from_arrays
from keras_norm_layers.data.checks import Report, report
from keras_norm_layers.data.feed import Feed
from keras_norm_layers.data.folders import from_directory
from keras_norm_layers.data.hdf5 import from_hdf5
from keras_norm_layers.data.save import save_augmented
from keras_norm_layers.data.tables import from_csv, from_dataframe, from_json

__all__ = [
    "Feed",
    "Report",
    "from_arrays",
    "from_csv",
    "from_dataframe",
    "from_directory",
    "from_hdf5",
    "from_json",
    "report",
    "save_augmented",
]
