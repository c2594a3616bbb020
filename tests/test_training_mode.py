"""A random layer follows the model it is in, whatever kind of model; alone it augments."""

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

IMAGES = np.random.default_rng(0).integers(60, 200, (4, 5, 6, 3), dtype=np.uint8)


class Told(keras.Model):
    """A subclassed model that hands `training` on."""

    def __init__(self):
        super().__init__()
        self.augment = knl.RandomBrightness(0.2)

    def call(model, x, training=None):  # the first argument may have any name
        return model.augment(x, training=training)


class Untold(Told):
    """A subclassed model that has no `training` argument."""

    def call(self, x):
        return self.augment(x)


def sequential(with_input):
    first = [keras.Input((5, 6, 3), dtype="uint8")] if with_input else []
    return keras.Sequential([*first, knl.RandomBrightness(0.2), keras.layers.Activation("linear")])


MODELS = {
    "sequential": lambda: sequential(True),
    "sequential without input": lambda: sequential(False),
    "subclass": Told,
}


@pytest.mark.parametrize("kind", MODELS)
def test_off_in_a_model_unless_it_trains(kind):
    model = MODELS[kind]()
    np.testing.assert_array_equal(to_numpy(model(IMAGES)), IMAGES)
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), IMAGES)
    assert np.abs(to_numpy(model(IMAGES, training=True)) - IMAGES).max() > 1


def test_on_when_alone_and_off_when_told():
    layer = knl.RandomBrightness(0.2)
    assert np.abs(to_numpy(layer(IMAGES)) - IMAGES).max() > 1
    np.testing.assert_array_equal(to_numpy(layer(IMAGES, training=False)), IMAGES)


def test_a_model_without_training_argument_augments_and_warns_once(recwarn):
    model = Untold()
    with pytest.warns(UserWarning, match=r"'untold'.*no `training` argument.*training=training"):
        assert np.abs(to_numpy(model(IMAGES)) - IMAGES).max() > 1
    model(IMAGES)
    assert not [w for w in recwarn if "training" in str(w.message)]
