"""MinMaxNormalization, RobustNormalization, PercentileClipping: against scikit-learn and NumPy on real images."""

import functools

import keras
import numpy as np
import pytest
import sklearn.datasets
import sklearn.preprocessing

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import MinMaxNormalization, PercentileClipping, RobustNormalization
from keras_norm_layers.normalization.adaptive import to_host
from keras_norm_layers.statistics.quantiles import Quantiles

DIGITS = sklearn.datasets.load_digits().images[..., None].astype("float32")
CLASSES = [MinMaxNormalization, RobustNormalization, PercentileClipping]
EVERY = pytest.mark.parametrize("cls", CLASSES)


@functools.cache
def photographs():
    """Tiles of 32 x 32 pixels of scikit-image's photographs, uint8 (N, 32, 32, 3)."""
    import skimage.data

    tiles = []
    for name in ("astronaut", "coffee", "chelsea"):
        image = getattr(skimage.data, name)()
        rows, columns = image.shape[0] // 32, image.shape[1] // 32
        cut = image[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32, 3)
        tiles.append(cut.swapaxes(1, 2).reshape(-1, 32, 32, 3))
    return np.concatenate(tiles)


def adapted(cls, data, **options):
    layer = cls(**options)
    layer.adapt(data, batch_size=97, verbose=0)
    return layer


def both(data):
    """(axis, the table that scikit-learn takes for it) for each channel and for each pixel."""
    return [(-1, data.reshape(-1, data.shape[-1])), ((1, 2, 3), data.reshape(len(data), -1))]


def sets():
    photos = photographs()
    return {"digits": DIGITS, "photographs": photos, "photographs as floats": (photos / np.float32(255)) ** 2.2}


@pytest.mark.parametrize("name", ["digits", "photographs", "photographs as floats"])
@pytest.mark.parametrize(
    ("layer", "scaler"),
    [
        (MinMaxNormalization, sklearn.preprocessing.MinMaxScaler()),
        (
            functools.partial(MinMaxNormalization, feature_range=(-1, 3)),
            sklearn.preprocessing.MinMaxScaler(feature_range=(-1, 3)),
        ),
        (RobustNormalization, sklearn.preprocessing.RobustScaler()),
        (
            functools.partial(RobustNormalization, quantile_range=(10.0, 80.0), unit_variance=True),
            sklearn.preprocessing.RobustScaler(quantile_range=(10.0, 80.0), unit_variance=True),
        ),
        (
            functools.partial(RobustNormalization, center=False),
            sklearn.preprocessing.RobustScaler(with_centering=False),
        ),
        (functools.partial(RobustNormalization, scale=False), sklearn.preprocessing.RobustScaler(with_scaling=False)),
    ],
    ids=["min max", "min max range", "robust", "robust percentiles", "robust scale only", "robust center only"],
)
def test_the_same_as_scikit_learn(layer, scaler, name):
    data = sets()[name]
    for axis, table in both(data):
        scaler.fit(table.astype("float64"))
        if getattr(scaler, "unit_variance", False):  # it scales constant features by the factor for normal values
            scaler.scale_[np.ptp(np.percentile(table, scaler.quantile_range, axis=0), axis=0) == 0] = 1
        truth = scaler.transform(table.astype("float64")).reshape(data.shape)
        ours = adapted(layer, data, axis=axis)
        size = np.abs(truth).max()
        np.testing.assert_allclose(to_numpy(ours(data)), truth, rtol=1e-5, atol=2e-6 * size)
        undo = layer(axis=axis, invert=True)
        undo.merge(ours)
        np.testing.assert_allclose(to_numpy(undo(truth.astype("float32"))), data, atol=1e-4 * np.abs(data).max())


def test_quantiles_are_those_of_scikit_learns_quantile_transformer():
    q = np.linspace(0, 1, 101)
    for data in sets().values():
        for axis, table in both(data):
            transformer = sklearn.preprocessing.QuantileTransformer(n_quantiles=101, subsample=None).fit(table)
            values = Quantiles(axis).add(data).result(q).values.reshape(101, -1)
            np.testing.assert_allclose(values, transformer.quantiles_, rtol=1e-6, atol=1e-6)


def test_data_with_more_values_than_are_kept_stays_close_to_scikit_learn():
    data = np.random.default_rng(0).gamma(2, 3, (400, 32, 32, 1)).astype("float32")
    scaler = sklearn.preprocessing.RobustScaler().fit(data.reshape(-1, 1))
    layer = adapted(RobustNormalization, data)
    np.testing.assert_allclose(to_host(layer.median), scaler.center_, rtol=5e-4)
    np.testing.assert_allclose(to_host(layer.iqr), scaler.scale_, rtol=2e-3)


def test_percentile_clipping_is_a_clip_at_numpys_percentiles():
    data = photographs()
    for axis in (-1, None, (1, 2, 3)):
        over = {-1: (0, 1, 2), None: (0, 1, 2, 3)}.get(axis, (0,))
        low, high = np.percentile(data, [2, 97.5], axis=over, keepdims=True)
        truth = np.clip(data, low, high)
        out = to_numpy(adapted(PercentileClipping, data, axis=axis, percentile_range=(2, 97.5))(data))
        np.testing.assert_allclose(out, truth, rtol=1e-6)
        layer = adapted(PercentileClipping, data, axis=axis, percentile_range=(2, 97.5), feature_range=(-1, 1))
        out = to_numpy(layer(data))
        np.testing.assert_allclose(out, (truth - low) / (high - low) * 2 - 1, atol=1e-5)
        assert (out.min(), out.max()) == (-1, 1)


# -- special cases ----------------------------------------------------------------------------------------------------


def test_values_beyond_what_was_learnt():
    data = np.array([[0.0, 10.0], [4.0, 30.0]], "float32")
    new = np.array([[-4.0, 20.0], [8.0, 40.0]], "float32")
    np.testing.assert_allclose(to_numpy(adapted(MinMaxNormalization, data)(new)), [[-1, 0.5], [2, 1.5]])
    clipped = adapted(MinMaxNormalization, data, clip=True, feature_range=(0, 10))
    np.testing.assert_allclose(to_numpy(clipped(new)), [[0, 5], [10, 10]])


def test_constant_features_are_as_in_scikit_learn():
    data = np.full((6, 2), 7.0, "float32")
    data[:, 1] = range(6)
    new = data + 1
    scaler = sklearn.preprocessing.MinMaxScaler((2, 5)).fit(data)
    layer = adapted(MinMaxNormalization, data, feature_range=(2, 5))
    np.testing.assert_allclose(to_numpy(layer(new)), scaler.transform(new), rtol=1e-5)
    robust = sklearn.preprocessing.RobustScaler().fit(data)
    np.testing.assert_allclose(to_numpy(adapted(RobustNormalization, data)(new)), robust.transform(new), rtol=1e-5)
    out = to_numpy(adapted(PercentileClipping, data, feature_range=(2, 5))(new))
    np.testing.assert_allclose(out[:, 0], 2)


@EVERY
def test_parts_and_merges_and_files_continue_exactly(cls, tmp_path):
    data = sets()["photographs as floats"]
    whole = adapted(cls, data)
    parts = adapted(cls, data[:300])
    model = keras.Sequential([keras.Input((32, 32, 3)), parts])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    np.testing.assert_array_equal(to_numpy(loaded(data[:3])), to_numpy(parts(data[:3])))
    loaded.update(data[300:500])
    loaded.merge(adapted(cls, data[500:]))
    for ours, truth in zip(loaded.get_weights(), whole.get_weights()):
        np.testing.assert_array_equal(ours, truth)
    assert float(to_host(loaded.count)) == len(data)
    loaded.reset()
    with pytest.raises(RuntimeError, match="has no statistics yet"):
        loaded(data[:3])


@EVERY
def test_nan_raises_or_is_left_out(cls):
    data = sets()["photographs as floats"][:60].copy()
    data[np.random.default_rng(0).random(data.shape) < 0.1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        adapted(cls, data)
    layer = adapted(cls, data, nan_policy="omit")
    low, middle, high = np.nanpercentile(data.astype("float64"), [0, 50, 100], axis=(0, 1, 2))
    if cls is MinMaxNormalization:
        np.testing.assert_allclose(to_host(layer.minimum), low, rtol=1e-6)
        np.testing.assert_allclose(to_host(layer.maximum), high, rtol=1e-6)
    elif cls is RobustNormalization:
        np.testing.assert_allclose(to_host(layer.median), middle, rtol=1e-6)
    else:
        upper = np.nanpercentile(data.astype("float64"), 99, axis=(0, 1, 2))
        np.testing.assert_allclose(to_host(layer.upper), upper, rtol=1e-6)
    out = to_numpy(layer(np.nan_to_num(data)))
    assert np.isfinite(out).all()
    data[3, 2, 1, 0] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        adapted(cls, data, nan_policy="omit")


def test_given_minimum_and_maximum_need_no_adapting():
    data = photographs()[:5]
    layer = MinMaxNormalization(minimum=[0.0, 10.0, 20.0], maximum=keras.ops.convert_to_tensor(255.0))
    low = np.array([0.0, 10.0, 20.0])
    np.testing.assert_allclose(to_numpy(layer(data)), (data - low) / (255 - low), atol=1e-6)
    again = MinMaxNormalization.from_config(layer.get_config())
    np.testing.assert_array_equal(to_numpy(again(data)), to_numpy(layer(data)))
    for action in (lambda: layer.adapt(data), lambda: layer.update(data), layer.reset):
        with pytest.raises(ValueError, match="given as arguments"):
            action()
    with pytest.raises(ValueError, match="does not broadcast to the features' shape"):
        MinMaxNormalization(minimum=[0.0, 1.0], maximum=2.0)(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinMaxNormalization(feature_range=(1, 1)), "`feature_range` must be"),
        (lambda: MinMaxNormalization(feature_range=(1, 0)), "`feature_range` must be"),
        (lambda: MinMaxNormalization(feature_range=1), "`feature_range` must be"),
        (lambda: MinMaxNormalization(minimum=1.0), "give `minimum` and `maximum` together"),
        (lambda: MinMaxNormalization(minimum=2.0, maximum=[3.0, 1.0]), "must not be above"),
        (lambda: MinMaxNormalization(minimum="x", maximum=1.0), "`minimum` must be a number or an array"),
        (lambda: MinMaxNormalization(minimum=0.0, maximum=np.inf), "`maximum` must hold finite"),
        (lambda: MinMaxNormalization(clip=True, invert=True), "does not come back"),
        (lambda: MinMaxNormalization(clip=1), "`clip` must be True or False"),
        (lambda: MinMaxNormalization(nan_policy="ignore"), "`nan_policy` must be one of"),
        (lambda: RobustNormalization(quantile_range=(75, 25)), "`quantile_range` must be"),
        (lambda: RobustNormalization(quantile_range=(50, 50)), "two different percentiles"),
        (lambda: RobustNormalization(quantile_range=(0, 101)), "`quantile_range` must be"),
        (lambda: RobustNormalization(quantile_range=(0, 90), unit_variance=True), r"within \(0, 100\)"),
        (lambda: RobustNormalization(center=0), "`center` must be True or False"),
        (lambda: PercentileClipping(percentile_range=(0.99, 0.01)), "`percentile_range` must be"),
        (lambda: PercentileClipping(axis=0), "must not hold 0"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@EVERY
def test_shapes_and_life_without_statistics(cls):
    layer = cls()
    with pytest.raises(RuntimeError, match="has no statistics yet"):
        layer(DIGITS[:2])
    with pytest.raises(ValueError, match="must be known"):
        keras.Sequential([keras.Input((None, None, 1)), cls(axis=(1, 2, 3))])
    layer.adapt(DIGITS, verbose=0)
    assert to_numpy(layer(DIGITS[:4, :3, :5])).shape == (4, 3, 5, 1)
    with pytest.raises(ValueError, match="built for images"):
        layer(np.zeros((2, 8, 8, 3), "float32"))


def test_too_many_pixels_for_quantiles_say_so():
    with pytest.raises(ValueError, match="at most 65536 are allowed"):
        RobustNormalization(axis=(1, 2, 3)).adapt(np.zeros((2, 224, 224, 3), "uint8"), verbose=0)


def test_a_model_adapts_in_order_and_is_compiled():
    import keras_norm_layers as knl

    data = photographs()[:200]
    model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), PercentileClipping(), MinMaxNormalization()])
    knl.adapt(model, data, verbose=0)
    out = model.predict(data, verbose=0)
    low, high = np.percentile(data, [1, 99], axis=(0, 1, 2))
    np.testing.assert_allclose(out, (np.clip(data, low, high) - low) / (high - low), atol=1e-5)
    assert (out.min(), out.max()) == (0, 1)


def test_an_export_holds_them(tmp_path, only_tensorflow):
    import tensorflow as tf

    import keras_norm_layers as knl

    data = photographs()[:50]
    layers = [PercentileClipping(), RobustNormalization(), MinMaxNormalization(axis=(1, 2, 3))]
    model = keras.Sequential([keras.Input((32, 32, 3), dtype="uint8"), *layers])
    knl.adapt(model, data, verbose=0)
    knl.export_for_serving(model, tmp_path / "1", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    np.testing.assert_allclose(to_numpy(loaded.serve(tf.constant(data))), model.predict(data, verbose=0), atol=1e-6)
