"""FeaturewiseNormalization.adapt: exact on tensors of the backend, NaN left out, and what scikit-learn says."""

import importlib

import keras
import numpy as np
import pytest
from conftest import BACKEND
from sklearn.datasets import load_digits, load_sample_images
from sklearn.preprocessing import StandardScaler
from test_moments import INTEGERS, exact_truth, full_range

import keras_norm_layers as knl
from keras_norm_layers.kernels import reduce
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import FeaturewiseNormalization
from keras_norm_layers.normalization.adaptive import to_host

DIGITS = load_digits().images.astype("float32")


def native(images):
    """A tensor of the backend, without a cast; JAX has 64-bit integers only where they were asked for."""
    if BACKEND == "jax":
        return images if images.dtype.itemsize == 8 else importlib.import_module("jax.numpy").asarray(images)
    if BACKEND == "torch":
        return importlib.import_module("torch").from_numpy(images)
    return importlib.import_module("tensorflow").constant(images)


def adapted(data, **options):
    layer = FeaturewiseNormalization(**options)
    layer.adapt(data)
    return layer


def with_dead_pixels():
    """Digits of which one pixel is stuck, one died after 100 images, and some values got lost."""
    images = DIGITS.copy()
    images[:, 3, 4] = 7.0
    images[100:, 5, 5] = np.nan
    images[np.random.default_rng(3).random(images.shape) < 0.03] = np.nan
    return images


def assert_is(layer, scaler, images):
    """Statistics to 1e-11 (before they are rounded to float32 weights), and the normalized images."""
    result = layer.accumulator.result()
    np.testing.assert_allclose(result.mean.ravel(), scaler.mean_, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(result.variance.ravel(), scaler.var_, rtol=1e-11, atol=1e-13)
    y = to_numpy(layer(images)).reshape(-1, len(scaler.mean_))
    np.testing.assert_allclose(y, scaler.transform(images.reshape(y.shape).astype("float64")), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_tensors_of_integers_give_the_fractions_for_any_batches_and_order(dtype):
    images = full_range(dtype, (11, 3, 4, 2))
    truth = exact_truth(images, -1)
    tensor = native(images)
    shards = FeaturewiseNormalization(), FeaturewiseNormalization()
    shards[0].adapt(native(images[7:][::-1].copy()))
    shards[1].adapt(native(images[i : i + 1]) for i in range(7))
    shards[0].merge(shards[1])
    for layer in (adapted(tensor), adapted(lambda: (tensor[i : i + 3] for i in (3, 9, 0, 6))), shards[0]):
        result = layer.accumulator.result()
        assert (result.mean.tolist(), result.variance.tolist()) == truth
        assert to_host(layer.mean).tolist() == np.float32(truth[0]).tolist()
        assert to_host(layer.std).tolist() == np.float32(np.sqrt(truth[1])).tolist()
        assert float(to_host(layer.count)) == 11


def test_values_near_1e20_and_1e_20_have_weights():
    for scale in (1e20, 1e-20):
        data = (np.random.default_rng(0).normal(3, 1, (500, 4, 2)) * scale).astype("float32")
        layer = adapted(data, epsilon=0.0)
        np.testing.assert_allclose(to_host(layer.std), data.astype("float64").std((0, 1)), rtol=1e-6)
        y = to_numpy(layer(data))
        np.testing.assert_allclose(y.std((0, 1), dtype="float64"), 1, rtol=1e-5)


# -- scikit-learn -----------------------------------------------------------------------------------------------------


def test_standard_scaler_on_digits():
    layer = adapted(DIGITS, axis=(1, 2), epsilon=0.0)  # 3 pixels of the border are 0 in all images
    assert_is(layer, StandardScaler().fit(DIGITS.reshape(-1, 64).astype("float64")), DIGITS)
    assert (to_host(layer.std) == 0).any()


def test_standard_scaler_on_photos():
    photos = np.stack(load_sample_images().images)
    layer = adapted(photos, epsilon=0.0)
    assert_is(layer, StandardScaler().fit(photos.reshape(-1, 3).astype("float64")), photos[:, ::9, ::9])


def test_standard_scaler_on_images_with_dead_pixels():
    images = with_dead_pixels()
    layer = FeaturewiseNormalization(axis=(1, 2), epsilon=0.0, nan_policy="omit")
    layer.adapt(images, batch_size=200)
    scaler = StandardScaler().fit(images.reshape(-1, 64).astype("float64"))
    assert_is(layer, scaler, images)  # NaN stays NaN in both
    assert float(to_host(layer.count)) == len(images)
    assert layer.accumulator.result().count.ravel().tolist() == scaler.n_samples_seen_.tolist()
    assert to_host(layer.std)[3, 4] == 0


# -- the NaN policy of the layer --------------------------------------------------------------------------------------


def test_raise_is_the_default_and_omit_goes_on():
    images = with_dead_pixels()
    images[:, 5, 5] = DIGITS[:, 5, 5]  # a layer that adapts on a shard needs a value for every pixel there
    with pytest.raises(ValueError, match=r"batch 0 \(images 0 to 49\) holds NaN, first in image 0"):
        FeaturewiseNormalization(axis=(1, 2)).adapt(images, batch_size=50)
    options = {"axis": (1, 2), "nan_policy": "omit"}
    whole, parts, other = adapted(images, **options), adapted(images[:700], **options), adapted(images[900:], **options)
    parts.update(native(images[700:900]))
    parts.merge(other)
    for a, b in zip(whole.get_weights(), parts.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    with pytest.raises(ValueError, match="holds infinity"):
        parts.update(np.full((1, 8, 8), np.inf))


def test_files_and_configuration_keep_the_policy(tmp_path):
    images = with_dead_pixels()
    layer = adapted(images[:900], axis=(1, 2), nan_policy="omit")
    assert FeaturewiseNormalization.from_config(layer.get_config()).nan_policy == "omit"
    assert FeaturewiseNormalization().get_config()["nan_policy"] == "raise"
    model = keras.Sequential([keras.Input((8, 8)), layer])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    loaded = keras.models.load_model(tmp_path / "m.keras").layers[0]
    strict = FeaturewiseNormalization(axis=(1, 2))
    keras.Sequential([keras.Input((8, 8)), strict]).load_weights(tmp_path / "m.weights.h5")
    for changed in (layer, loaded):
        changed.update(images[900:])
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), loaded.get_weights()))
    with pytest.raises(ValueError, match="holds NaN"):
        strict.update(images[900:])  # the weights are loaded; what is done to NaN, this layer says
    strict.update(DIGITS[900:])
    assert float(to_host(strict.count)) == len(DIGITS)


def test_wrong_policies_and_features_without_a_value():
    with pytest.raises(ValueError, match=r"`nan_policy` must be one of \['raise', 'omit'\]"):
        FeaturewiseNormalization(nan_policy="ignore")
    strict, lenient = adapted(DIGITS), adapted(DIGITS, nan_policy="omit")
    for a, b in ((strict, lenient), (FeaturewiseNormalization(), lenient)):
        with pytest.raises(ValueError, match="nan_policy='raise'.*nan_policy='omit' cannot be merged"):
            a.merge(b)
    before = lenient.get_weights()
    with pytest.raises(ValueError, match=r"All values of some features are NaN.*no mean: 2 \(index along axis"):
        lenient.adapt(np.where(np.arange(8) == 2, np.nan, DIGITS))
    assert all(np.array_equal(a, b) for a, b in zip(lenient.get_weights(), before))


def test_batches_on_an_accelerator_stay_there(monkeypatch):
    given = np.random.default_rng(3).integers(0, 256, (50, 4, 5, 3)).astype("uint8")
    summed = []
    sums = reduce.digit_sums
    monkeypatch.setattr(reduce, "takes", lambda x: not isinstance(x, np.ndarray))  # as if this were one
    monkeypatch.setattr(reduce, "digit_sums", lambda x, kept: summed.append(len(x)) or sums(x, kept))
    layer, truth = FeaturewiseNormalization(), FeaturewiseNormalization()
    layer.adapt(keras.ops.convert_to_tensor(given), batch_size=20)
    assert summed == [20, 20, 10]
    truth.adapt(given)
    assert summed == [20, 20, 10]
    for name in ("mean", "std"):
        np.testing.assert_array_equal(getattr(layer, name), getattr(truth, name))
    model = keras.Sequential([keras.Input((4, 5, 3), dtype="uint8"), knl.RandomBrightness(0.2), layer])
    knl.adapt(model, keras.ops.convert_to_tensor(given), batch_size=50)
    assert summed == [20, 20, 10, 50]
