"""ZCAWhitening of whole images: decorrelation, null directions, ImageDataGenerator's numbers, the weights."""

import pathlib

import keras
import numpy as np
import pytest

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import ZCAWhitening
from keras_norm_layers.normalization.adaptive import to_host
from keras_norm_layers.normalization.whitening_matrices import Rule, whitening_matrix
from keras_norm_layers.statistics import covariance

GOLDEN = pathlib.Path(__file__).parent / "golden" / "image_data_generator_zca.npz"
RNG = np.random.default_rng(0)
MIXED = (RNG.normal(size=(400, 24)) @ (np.eye(24) + RNG.normal(size=(24, 24)) / 6) + 5).reshape(400, 4, 2, 3)
MIXED = MIXED.astype("float32")


def flat(x):
    return to_numpy(x).reshape(len(x), -1).astype("float64")


def covariance_of(x):
    return np.cov(flat(x).T, bias=True)


def adapted(data=MIXED, **options):
    layer = ZCAWhitening(**options)
    layer.adapt(data)
    return layer


def smooth_images(count, side):
    """Correlated images of full rank: white noise through a separable moving average, and channels that share half."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(count, side, side, 3)).astype("float32")
    band = sum(np.eye(side, k=k) * 0.5 ** abs(k) for k in range(-4, 5)).astype("float32")
    images = np.einsum("ij,njkc,kl->nilc", band, noise, band, optimize=True)
    return (images @ np.array([[1, 0.5, 0.2], [0.5, 1, 0.5], [0.2, 0.5, 1]], "float32") * 12 + 128).astype("float32")


@pytest.mark.parametrize("kind", ["zca", "pca"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_covariance_becomes_the_identity(kind, dtype):
    data = (MIXED * 12).clip(0, 255).astype(dtype)
    white = adapted(data, kind=kind)(data)
    np.testing.assert_allclose(covariance_of(white), np.eye(24), atol=1e-4)
    np.testing.assert_allclose(flat(white).mean(0), 0, atol=1e-4)
    assert white.shape == (400, 4, 2, 3)


def test_the_formula():
    values, vectors = np.linalg.eigh(covariance_of(MIXED))
    x = flat(MIXED) - flat(MIXED).mean(0)
    for epsilon in (1e-6, 0.1, 10.0):
        expected = x @ vectors @ np.diag(1 / np.sqrt(values + epsilon)) @ vectors.T
        layer = adapted(epsilon=epsilon)
        np.testing.assert_allclose(flat(layer(MIXED)), expected, atol=1e-4)
        matrix = to_host(layer.matrix)
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


def test_pca_has_the_largest_variance_first_and_a_fixed_sign():
    layer = adapted(kind="pca", epsilon=1.0)
    variances = flat(layer(MIXED)).var(0)
    assert (np.diff(variances) < 1e-6).all()
    matrix = to_host(layer.matrix)
    assert (matrix[np.abs(matrix).argmax(0), np.arange(24)] > 0).all()


@pytest.mark.parametrize("kind", ["zca", "pca"])
@pytest.mark.parametrize("center", ["pixel", "channel"])
def test_invert(kind, center):
    layer = adapted(kind=kind, center=center)
    undo = ZCAWhitening(kind=kind, center=center, invert=True)
    undo.merge(layer)
    np.testing.assert_allclose(to_numpy(undo(layer(MIXED))), MIXED, atol=1e-3)


def test_uint8_digits_with_the_default_epsilon():
    digits = pytest.importorskip("sklearn.datasets").load_digits().images[..., None]
    digits = np.rint(digits * (255 / 16)).astype("uint8")
    alive = np.linalg.eigvalsh(covariance_of(digits)) > 1e-6
    result = np.linalg.eigvalsh(covariance_of(adapted(digits)(digits)))
    np.testing.assert_allclose(result, np.sort(alive.astype(float)), atol=1e-3)


def test_digits_with_dead_pixels():
    digits = pytest.importorskip("sklearn.datasets").load_digits().images.astype("float32")[..., None]
    alive = np.linalg.eigvalsh(covariance_of(digits)) > 1e-9
    assert 0 < alive.sum() < 64  # some corner pixels are 0 in all digits
    # The least variance of the others is 4e-4: epsilon has to be small beside it.
    layer = adapted(digits, epsilon=1e-8)
    result = np.linalg.eigvalsh(covariance_of(layer(digits)))
    np.testing.assert_allclose(result, np.sort(alive.astype(float)), atol=1e-3)
    # A new image that differs where no digit ever did is not drowned by it: that direction is dropped.
    dead = np.argwhere(digits.std(0)[..., 0] == 0)[0]
    odd = digits[:1].copy()
    odd[0, dead[0], dead[1]] = 16
    np.testing.assert_allclose(to_numpy(layer(odd)), to_numpy(layer(digits[:1])), atol=1e-3)
    undo = ZCAWhitening(invert=True, epsilon=1e-8)
    undo.merge(layer)
    np.testing.assert_allclose(to_numpy(undo(layer(digits))), digits, atol=2e-3)


def test_fewer_images_than_values():
    few = MIXED[:10]
    result = np.linalg.eigvalsh(covariance_of(adapted(few)(few)))
    np.testing.assert_allclose(result, [0] * 15 + [1] * 9, atol=1e-3)
    assert np.array_equal(whitening_matrix(np.zeros((3, 3)), Rule(1e-6, "variance", 1, False)), np.zeros((3, 3)))


@pytest.mark.parametrize("side", [12, 32])
def test_correlated_images(side):
    if side == 32 and keras.backend.backend() != "tensorflow":
        pytest.skip("the learning is NumPy's: the eigenvectors of 3072 x 3072 are taken once, with TensorFlow")
    data = smooth_images(5000, side)
    size = side * side * 3
    before = covariance_of(data[:, :, :, 0])
    assert abs(before[0, 1]) > 0.5 * before[0, 0]
    white = np.concatenate([flat(b) for b in map(adapted(data), np.split(data, 5))])
    assert abs(np.cov(white.T, bias=True) - np.eye(size)).max() < 1e-3


def test_the_same_as_image_data_generator():
    golden = np.load(GOLDEN)
    layer = adapted(golden["images"], center="channel")
    matrix = to_host(layer.matrix)
    assert abs(matrix - golden["matrix"]).max() < 1e-3
    np.testing.assert_allclose(to_host(layer.mean)[0, 0], golden["mean"].ravel(), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer(golden["images"][:8])), golden["white"], atol=1e-3)
    # Where each pixel's mean is its channel's, the default is the same.
    centred = golden["images"].astype("float64")
    centred = centred - centred.mean(0) + 0.5
    both = [to_host(adapted(centred, center=center).matrix) for center in ("channel", "pixel")]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    assert abs(to_host(adapted(golden["images"]).matrix) - golden["matrix"]).max() > 0.1  # so `center` matters


def test_batches_and_policies_change_nothing():
    whole = adapted(MIXED)
    parts = ZCAWhitening(dtype="mixed_float16")
    parts.adapt(part for part in np.array_split(MIXED, 7))
    np.testing.assert_allclose(to_host(parts.matrix), to_host(whole.matrix), atol=1e-5)
    y = parts(MIXED)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(to_numpy(y), to_numpy(whole(MIXED)), atol=0.01)
    updated = adapted(MIXED[:100])
    updated.update(MIXED[100:])
    np.testing.assert_allclose(to_host(updated.matrix), to_host(whole.matrix), atol=1e-5)


def test_models_files_and_changes_after_tracing(tmp_path):
    layer = adapted(MIXED[:300])
    model = keras.Sequential([keras.Input((4, 2, 3)), layer])
    first = model.predict(MIXED, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(MIXED, verbose=0), first, atol=1e-6)
    for each in (model, loaded):
        each.layers[0].update(MIXED[300:])
        np.testing.assert_allclose(covariance_of(each.predict(MIXED, verbose=0)), np.eye(24), atol=1e-4)
    assert np.array_equal(loaded.get_weights()[1], model.get_weights()[1])
    assert abs(covariance_of(first) - np.eye(24)).max() > 0.05
    assert model.output_shape == (None, 4, 2, 3)


def test_in_tf_data():
    tf = pytest.importorskip("tensorflow")
    layer = adapted()
    dataset = tf.data.Dataset.from_tensor_slices(MIXED)
    expected = to_numpy(layer(MIXED))
    np.testing.assert_allclose(
        np.concatenate(list(dataset.batch(70).map(layer).as_numpy_iterator())), expected, atol=1e-5
    )
    mapped = dataset.map(layer)
    assert mapped.element_spec.shape == (4, 2, 3)
    np.testing.assert_allclose(np.stack(list(mapped.as_numpy_iterator())), expected, atol=1e-5)


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match=r"`kind` must be one of \['zca', 'pca', "):
        ZCAWhitening(kind="ica")
    with pytest.raises(ValueError, match="`center` must be one of"):
        ZCAWhitening(center=True)
    with pytest.raises(ValueError, match="`epsilon` must be a number"):
        ZCAWhitening(epsilon=-1)
    with pytest.raises(ValueError, match="must be known in full"):
        keras.Sequential([keras.Input((None, None, 3)), ZCAWhitening()])
    with pytest.raises(RuntimeError, match="no statistics yet"):
        ZCAWhitening()(MIXED)
    with pytest.raises(ValueError, match="holds NaN, first in image"):
        adapted(np.where(MIXED.max() == MIXED, np.nan, MIXED))
    with pytest.raises(ValueError, match="built for images of shape"):
        adapted()(MIXED[:, :3])
    monkeypatch.setattr(covariance, "free_memory", lambda: 16_000_000_000)
    with pytest.raises(MemoryError, match=r"1087\.6 GB.*rank=.*patch_size="):
        ZCAWhitening().adapt(np.zeros((2, 224, 224, 3), "uint8"))
