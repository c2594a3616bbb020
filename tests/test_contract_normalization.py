"""The promises over the normalization layers."""

import json

import keras
import numpy as np
import pytest
from catalogue import (
    NORMALIZATION,
    images,
    normalization_layer,
)
from contract import all_normalization

from keras_norm_layers.kernels.backend import to_numpy

# Normalization ------------------------------------------------------------------------------------------------------


@all_normalization
def test_normalization_is_the_same_in_training_in_parts_and_compiled(name):
    layer, x = normalization_layer(name), images(5, seed=4)
    out = to_numpy(layer(x))
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    np.testing.assert_allclose(to_numpy(layer(x[1:3])), out[1:3], atol=1e-4)
    model = keras.Sequential([keras.Input(x.shape[1:], dtype="uint8"), layer])
    np.testing.assert_allclose(model.predict(x, verbose=0), out, atol=1e-4)
    np.testing.assert_allclose(to_numpy(model(x, training=True)), out, atol=1e-4)
    np.testing.assert_array_equal(x, images(5, seed=4))


@all_normalization
def test_normalization_is_made_again_from_its_configuration(name):
    layer = normalization_layer(name)
    serial = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(serial)
    x = images(3)
    if not again.built:
        again.build((None, *x.shape[1:]))
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(again(x)), to_numpy(layer(x)), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@all_normalization
def test_normalization_does_not_depend_on_the_global_policy(name, policy):
    x = images(3)
    truth = to_numpy(normalization_layer(name)(x))
    keras.config.set_dtype_policy(policy)
    try:
        out = to_numpy(NORMALIZATION[name]()(x))
    finally:
        keras.config.set_dtype_policy("float32")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, truth, atol=1e-5)
