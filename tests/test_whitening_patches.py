"""``ZCAWhitening(patch_size=p)``: a convolution that makes each pixel the centre of its whitened patch."""

import keras
import numpy as np
import pytest
from test_covariance import patches_of
from test_spectrum import photos

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import ZCAWhitening
from keras_norm_layers.normalization.adaptive import to_host

PHOTOS = photos(12, 24)


def adapted(data=PHOTOS, **options):
    layer = ZCAWhitening(**options)
    layer.adapt(data, verbose=0)
    return layer


def by_definition(data, images, p, epsilon, correlation=False, rank=None):
    """The centre of each whitened patch of the mirrored images, from a list of all patches."""
    patches, channels = patches_of(data, p), data.shape[-1]
    covariance = np.cov(patches.T, bias=True)
    scale = np.sqrt(np.diag(covariance)) if correlation else np.ones(len(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    gains = 1 / np.sqrt(values + epsilon)
    if rank:
        gains[:-rank] = 0
    w = (vectors * gains) @ vectors.T / scale
    half = p // 2
    centre = (half * p + half) * channels
    padded = np.pad(images.astype("float64"), ((0, 0), (half, half), (half, half), (0, 0)), mode="reflect")
    return ((patches_of(padded, p) - patches.mean(0)) @ w[centre : centre + channels].T).reshape(images.shape)


@pytest.mark.parametrize(
    "p, options", [(1, {}), (3, {}), (5, {"kind": "zca-cor"}), (5, {"rank": 20}), (7, {"epsilon": 1.0})]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_formula(p, options, dtype):
    data = PHOTOS.astype(dtype)
    epsilon = options.get("epsilon", 1e-6)
    expected = by_definition(data, data, p, epsilon, "kind" in options, options.get("rank"))
    out = to_numpy(adapted(data, patch_size=p, **options)(data))
    assert out.shape == data.shape
    np.testing.assert_allclose(out, expected, atol=2e-3 * max(1.0, abs(expected).max() / 20))


def test_what_it_does_to_photographs():
    """Neighbours are alike before and hardly so afterwards; the variance is 1."""
    out = to_numpy(adapted(patch_size=7)(PHOTOS)).astype("float64")
    inside = out[:, 3:-3, 3:-3]

    def likeness(x):
        return np.corrcoef(x[:, :, 1:].ravel(), x[:, :, :-1].ravel())[0, 1]

    assert likeness(PHOTOS.astype("float64")) > 0.9
    assert abs(likeness(inside)) < 0.1
    np.testing.assert_allclose(inside.var((0, 1, 2)), 1, atol=0.1)


def test_translation_invariant():
    layer = adapted(patch_size=5, epsilon=1.0)
    big = photos(2, 40)
    out = to_numpy(layer(big))
    np.testing.assert_allclose(to_numpy(layer(big[:, 7:33, 3:29]))[:, 2:-2, 2:-2], out[:, 9:31, 5:27], atol=1e-4)


def test_images_of_any_size_models_and_files(tmp_path):
    layer = ZCAWhitening(patch_size=5, epsilon=1.0)
    layer.adapt(iter([PHOTOS, photos(3, 30, seed=2), PHOTOS[:, :9, :17]]), verbose=0)
    assert float(to_host(layer.count)) == 27
    model = keras.Sequential([keras.Input((None, None, 3), dtype="uint8"), layer])
    assert model.output_shape == (None, None, None, 3)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for images in (PHOTOS, PHOTOS[:, :5, :8]):
        expected = to_numpy(layer(images))
        for each in (model, loaded):
            np.testing.assert_allclose(each.predict(images, verbose=0), expected, atol=1e-4)
    loaded.layers[0].update(PHOTOS)
    layer.update(PHOTOS)
    assert np.array_equal(to_host(loaded.layers[0].kernel), to_host(layer.kernel))
    other = adapted(photos(5, 12), patch_size=5, epsilon=1.0)
    other.merge(layer)
    assert float(to_host(other.count)) == 44


def test_in_tf_data():
    tf = pytest.importorskip("tensorflow")
    layer = adapted(patch_size=3, epsilon=1.0)
    expected = to_numpy(layer(PHOTOS))
    dataset = tf.data.Dataset.from_tensor_slices(PHOTOS)
    np.testing.assert_allclose(
        np.concatenate(list(dataset.batch(5).map(layer).as_numpy_iterator())), expected, atol=1e-4
    )
    single = dataset.map(layer)
    assert single.element_spec.shape == (24, 24, 3)
    np.testing.assert_allclose(np.stack(list(single.as_numpy_iterator())), expected, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same on every backend: TensorFlow writes it")
@pytest.mark.parametrize(
    "options, size", [({"patch_size": 5, "epsilon": 1.0}, None), ({"rank": 9}, 24), ({"rank": 9, "kind": "pca"}, 24)]
)
def test_served(tmp_path, options, size):
    tf = pytest.importorskip("tensorflow")
    model = keras.Sequential([keras.Input((size, size, 3), dtype="uint8"), adapted(**options)])
    report = knl.export_for_serving(model, tmp_path / "m", samples=PHOTOS, verbose=False)
    loaded = tf.saved_model.load(report.path)
    np.testing.assert_allclose(loaded.serve(PHOTOS), model.predict(PHOTOS, verbose=0), atol=1e-4)


def test_errors():
    with pytest.raises(ValueError, match=r"takes images \(N, H, W, C\), channels last, with C known"):
        adapted(np.zeros((4, 12)), patch_size=3)
    with pytest.raises(ValueError, match=r"at least as large as patch_size=25.*\(24, 24\)"):
        adapted(patch_size=25)
    layer = adapted(patch_size=7)
    with pytest.raises(ValueError, match=r"at least as large as patch_size=7.*\(5, 24\)"):
        layer(PHOTOS[:, :5])
    with pytest.raises(ValueError, match="`rank` must be at most the number of values of a patch, 27"):
        adapted(patch_size=3, rank=28)
    with pytest.raises(RuntimeError, match="no statistics yet"):
        ZCAWhitening(patch_size=3)(PHOTOS)
