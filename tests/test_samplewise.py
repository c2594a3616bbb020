"""SamplewiseNormalization against float64 NumPy."""

import keras
import numpy as np
import pytest

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import SamplewiseNormalization


def reference(images, axis=None, center=True, scale=True, epsilon=1e-6):
    result = np.zeros(images.shape)
    for i, image in enumerate(images.astype("float64")):
        reduced = tuple(range(image.ndim)) if axis is None else tuple(range(image.ndim - 1))
        mean, std = image.mean(reduced, keepdims=True), image.std(reduced, keepdims=True)
        y = image - mean if center else image
        result[i] = y / np.where(std == 0, 1, std + epsilon) if scale else y
    return result


def images(dtype):
    values = np.random.default_rng(0).normal(120, 30, (6, 9, 8, 3)) * [1, 0.5, 1.2]
    return values.clip(0, 255).astype(dtype)


@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize(("center", "scale"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float16"])
def test_the_formula(axis, center, scale, dtype):
    x = images(dtype)
    y = to_numpy(SamplewiseNormalization(axis=axis, center=center, scale=scale)(x))
    assert y.dtype == "float32"
    np.testing.assert_allclose(y, reference(x, axis, center, scale), atol=2e-5, rtol=2e-5)


def test_large_epsilon():
    np.testing.assert_allclose(
        to_numpy(SamplewiseNormalization(epsilon=10.0)(images("uint8"))),
        reference(images("uint8"), epsilon=10.0),
        atol=1e-5,
    )


def test_far_from_zero():
    x = np.random.default_rng(1).normal(1e4, 1, (4, 64, 64, 3)).astype("float32")
    x[:, 0, 0, 0] = 9_990  # the first value is no typical one
    np.testing.assert_allclose(to_numpy(SamplewiseNormalization()(x)), reference(x), atol=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 1e-6])
@pytest.mark.parametrize("value", [0.0, 0.1, 255.0])
def test_constant_images_are_centred_and_not_scaled(value, epsilon):
    y = to_numpy(SamplewiseNormalization(epsilon=epsilon)(np.full((2, 7, 5, 3), value, "float32")))
    assert np.array_equal(y, np.zeros((2, 7, 5, 3)))


def test_a_batch_equals_its_singles():
    layer, x = SamplewiseNormalization(), images("float32")
    together = to_numpy(layer(x))
    for i in range(len(x)):
        np.testing.assert_allclose(to_numpy(layer(x[i : i + 1]))[0], together[i], atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_half_precision_policies_compute_in_float32(policy):
    x = np.random.default_rng(2).normal(3e4, 50, (3, 8, 8, 3)).astype("float32")
    y = SamplewiseNormalization(dtype=policy)(x)
    name = keras.backend.standardize_dtype(y.dtype)
    assert name == ("bfloat16" if policy == "bfloat16" else "float16")
    tolerance = 0.02 if policy == "bfloat16" else 0.003
    np.testing.assert_allclose(to_numpy(keras.ops.cast(y, "float32")), reference(x), atol=tolerance)


def test_in_a_model_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((9, 8, 3), dtype="uint8"), SamplewiseNormalization(axis=-1, epsilon=0.5)])
    expected = model.predict(images("uint8"), verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert np.array_equal(loaded.predict(images("uint8"), verbose=0), expected)
    np.testing.assert_allclose(expected, reference(images("uint8"), -1, epsilon=0.5), atol=2e-5)
    assert model.output_shape == (None, 9, 8, 3)


def test_in_tf_data():
    tf = pytest.importorskip("tensorflow")
    layer = SamplewiseNormalization()
    dataset = tf.data.Dataset.from_tensor_slices(images("uint8")).batch(4).map(layer)
    result = np.concatenate(list(dataset.as_numpy_iterator()))
    np.testing.assert_allclose(result, reference(images("uint8")), atol=2e-5)


def test_errors():
    with pytest.raises(ValueError, match="must not hold 0"):
        SamplewiseNormalization(axis=0)
    with pytest.raises(ValueError, match="epsilon=-1"):
        SamplewiseNormalization(epsilon=-1)
    with pytest.raises(ValueError, match="`center` must be True or False"):
        SamplewiseNormalization(center="yes")
    with pytest.raises(ValueError, match="no axis to average over"):
        SamplewiseNormalization(axis=-1)(np.ones((3, 4), "float32"))
    with pytest.raises(ValueError, match="no axis to average over"):
        keras.Sequential([keras.Input((4,)), SamplewiseNormalization(axis=-1)])
