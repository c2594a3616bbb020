"""``ZCAWhitening(rank=r)``: the leading directions of images of any width."""

import pathlib

import keras
import numpy as np
import pytest
from test_spectrum import photos

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import ZCAWhitening
from keras_norm_layers.normalization.adaptive import to_host

GOLDEN = pathlib.Path(__file__).parent / "golden" / "image_data_generator_zca.npz"
PHOTOS = photos(150, 6)  # 108 values: no more than rank + oversample from rank 76 on


def flat(x):
    return to_numpy(x).reshape(len(x), -1).astype("float64")


def adapted(data=PHOTOS, **options):
    layer = ZCAWhitening(**options)
    layer.adapt(data, verbose=0)
    return layer


def pairs(data):
    values, vectors = np.linalg.eigh(np.cov(flat(data).T, bias=True))
    return values[::-1], vectors[:, ::-1]


@pytest.mark.parametrize("complement", ["drop", "scale"])
def test_the_formula(complement):
    values, vectors = pairs(PHOTOS)
    gains = 1 / np.sqrt(values + 1e-6)
    gains[80:] = 0 if complement == "drop" else 1 / np.sqrt(values[80:].mean() + 1e-6)
    x = flat(PHOTOS) - flat(PHOTOS).mean(0)
    layer = adapted(rank=80, complement=complement)
    np.testing.assert_allclose(flat(layer(PHOTOS)), (x @ vectors * gains) @ vectors.T, atol=2e-3)
    np.testing.assert_allclose(to_host(layer.variances), values[:80], rtol=1e-5)
    np.testing.assert_allclose(layer.explained_variance_ratio, values[:80] / values.sum(), rtol=1e-5)
    assert {w.name for w in layer.weights} == {
        *("mean", "components", "gains", "complement_gain", "variances", "total_variance", "count")
    }


def test_all_directions_are_the_full_whitening():
    np.testing.assert_allclose(to_numpy(adapted(rank=108)(PHOTOS)), to_numpy(adapted()(PHOTOS)), atol=5e-3)


def test_fewer_images_than_values_as_image_data_generator():
    golden = np.load(GOLDEN)
    few = golden["few"]
    layer = adapted(few, rank=len(few), center="channel", epsilon_on="singular_value")
    both = np.concatenate([few, golden["unseen"]])
    np.testing.assert_allclose(to_numpy(layer(both)), golden["few_white"], atol=1e-3)
    assert to_host(layer.components).shape == (20, 192)


@pytest.mark.parametrize("complement", ["drop", "scale"])
def test_invert(complement):
    options = {"rank": 40, "complement": complement}
    layer, undo = adapted(**options), ZCAWhitening(invert=True, **options)
    undo.merge(layer)
    back = flat(undo(layer(PHOTOS)))
    x, vectors = flat(PHOTOS), to_host(layer.components).astype("float64")
    projected = (x - x.mean(0)) @ vectors.T @ vectors + x.mean(0)
    np.testing.assert_allclose(back, projected if complement == "drop" else x, atol=0.05)


def test_coordinates_and_back():
    layer = adapted(rank=12, kind="pca")
    coordinates = layer(PHOTOS)
    assert coordinates.shape == (150, 12) and layer.compute_output_shape((None, 6, 6, 3)) == (None, 12)
    np.testing.assert_allclose(np.cov(flat(coordinates).T, bias=True), np.eye(12), atol=1e-3)
    undo = ZCAWhitening(rank=12, kind="pca", invert=True)
    undo.merge(layer)
    back = undo(coordinates)
    assert back.shape == (150, 6, 6, 3)
    x, vectors = flat(PHOTOS), to_host(layer.components).astype("float64")
    np.testing.assert_allclose(flat(back), (x - x.mean(0)) @ vectors.T @ vectors + x.mean(0), atol=0.05)
    model = keras.Sequential([keras.Input((6, 6, 3)), layer, undo])
    assert model.output_shape == (None, 6, 6, 3)
    np.testing.assert_allclose(model.predict(PHOTOS, verbose=0), to_numpy(back), atol=0.05)
    with pytest.raises(ValueError, match="built for images of shape"):
        undo(coordinates[:, :5])


def test_streams_merges_and_files(tmp_path):
    whole = adapted(rank=30)
    parts = ZCAWhitening(rank=30)
    parts.adapt(iter(np.array_split(PHOTOS, 4)), verbose=0)
    assert np.array_equal(to_host(parts.components), to_host(whole.components))
    first, second = adapted(PHOTOS[:70], rank=30), adapted(PHOTOS[70:], rank=30)
    first.merge(second)
    np.testing.assert_allclose(to_host(first.variances), to_host(whole.variances), rtol=2e-3)
    model = keras.Sequential([keras.Input((6, 6, 3), dtype="uint8"), adapted(PHOTOS[:60], rank=30)])
    expected = model.predict(PHOTOS, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(PHOTOS, verbose=0), expected, atol=1e-5)
    for each in (model, loaded):
        each.layers[0].update(PHOTOS[60:])
    assert np.array_equal(loaded.get_weights()[1], model.get_weights()[1])
    assert abs(model.predict(PHOTOS, verbose=0) - expected).max() > 0.1


def test_in_tf_data():
    tf = pytest.importorskip("tensorflow")
    for kind in ("zca", "pca"):
        layer = adapted(rank=9, kind=kind)
        expected = to_numpy(layer(PHOTOS))
        dataset = tf.data.Dataset.from_tensor_slices(PHOTOS)
        batched = np.concatenate(list(dataset.batch(40).map(layer).as_numpy_iterator()))
        np.testing.assert_allclose(batched, expected, atol=1e-3)
        single = dataset.map(layer)
        assert single.element_spec.shape == expected.shape[1:]
        np.testing.assert_allclose(next(single.as_numpy_iterator()), expected[0], atol=1e-3)


def test_photographs_too_wide_for_a_covariance():
    """12,288 values an image: the covariance alone would be 1.2 GB."""
    wide = photos(50, 64)
    layer = adapted(wide, rank=20)
    white = flat(layer(wide))
    np.testing.assert_allclose(np.linalg.svd(white - white.mean(0), compute_uv=False)[:20] ** 2 / 50, 1, atol=1e-3)
    assert 0.5 < layer.explained_variance_ratio.sum() < 1
    assert layer.accumulator.result().exact


def test_errors():
    with pytest.raises(ValueError, match=r"shrinkage='oas' needs all eigenvalues, and of 150 images"):
        adapted(rank=20, shrinkage="oas")
    with pytest.raises(ValueError, match=r"resize the images first, or give patch_size="):
        ZCAWhitening(rank=2).build((None, None, None, 3))
    with pytest.raises(ValueError, match="cannot be merged"):
        adapted(rank=5).merge(adapted(rank=6))
