"""Answer images with an exported SavedModel, as a server would: TensorFlow is all that it needs.

    python examples/serve_without_package.py SAVED_MODEL PIXELS.npy FOLDER ANSWERS.npz

``PIXELS.npy`` holds a uint8 batch (N, height, width, channels), ``FOLDER`` the same images as JPEG or PNG files.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

NOT_NEEDED = ("keras_norm_layers", "keras")


class NotInstalled:
    """Makes Python behave as if ``NOT_NEEDED`` were not installed. A real server has no need of this class: there the
    packages are simply absent. Here they are installed, for the training, and this shows that they are not used.
    """

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *where):
        return None if name.split(".")[0] in NOT_NEEDED else self.finder.find_spec(name, *where)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def main(saved_model, pixels, folder, answers):
    sys.meta_path[:] = [NotInstalled(finder) for finder in sys.meta_path]
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(saved_model)
    images = tf.constant(np.load(pixels))
    files = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    from_pixels = model.signatures["serve"](images=images)["output_0"]
    from_files = model.signatures["serve_bytes"](image_bytes=tf.constant(files))["output_0"]
    np.savez(answers, from_pixels=from_pixels, from_files=from_files)

    imported = [name for name in NOT_NEEDED if name in sys.modules]
    if imported:
        raise SystemExit(f"This should have run without {imported}.")


if __name__ == "__main__":
    main(*sys.argv[1:])
