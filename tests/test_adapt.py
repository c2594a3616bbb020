"""``adapt``: models of every structure, what each layer sees, and what happens when it fails."""

import keras
import numpy as np
import pytest

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.layer import PreprocessingLayer
from keras_norm_layers.normalization import FeaturewiseNormalization, SamplewiseNormalization, ZCAWhitening, adapt
from keras_norm_layers.normalization.adaptive import to_host

RNG = np.random.default_rng(0)
UINT8 = RNG.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
INPUT = {"shape": (4, 4, 3), "dtype": "uint8"}


class Watcher(PreprocessingLayer):
    """The identity at inference, as random layers are; notes what it is asked to check."""

    identity_at_inference = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def check_values(self, images):
        self.seen = [*self.seen, images]

    def call(self, x, training=False):
        x = keras.ops.cast(x, "float32")
        return x + 100.0 if training else x


def mean_std(layer):
    return to_host(layer.mean), to_host(layer.std)


def assert_statistics(layer, data, axes=(0, 1, 2), tolerance=1e-5):
    mean, std = mean_std(layer)
    np.testing.assert_allclose(mean, data.astype("float64").mean(axes), atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(std, data.astype("float64").std(axes), atol=tolerance, rtol=tolerance)


def test_layers_see_what_the_layers_before_give():
    first, second = FeaturewiseNormalization(axis=None), FeaturewiseNormalization()
    model = keras.Sequential(
        [
            keras.Input(**INPUT),
            keras.layers.Rescaling(1 / 255),
            first,
            keras.layers.ReLU(),
            second,
            keras.layers.Flatten(),
        ]
    )
    adapt(model, UINT8)
    x = UINT8 / 255.0
    assert_statistics(first, x, None)
    x = np.maximum((x - x.mean()) / (x.std() + 1e-6), 0)
    assert_statistics(second, x)
    expected = (x - x.mean((0, 1, 2))) / (x.std((0, 1, 2)) + 1e-6)
    np.testing.assert_allclose(model.predict(UINT8, verbose=0), expected.reshape(60, -1), atol=1e-4)


@pytest.mark.parametrize("identity", [Watcher, lambda: keras.layers.Dropout(0.5)], ids=["ours", "dropout"])
def test_integers_stay_integers_behind_identities(identity):
    layer = FeaturewiseNormalization()
    adapt(keras.Sequential([keras.Input(**INPUT), identity(), layer]), UINT8)
    assert layer.accumulator._floats is None
    exact = FeaturewiseNormalization()
    exact.adapt(UINT8)
    assert all(np.array_equal(a, b) for a, b in zip(mean_std(layer), mean_std(exact)))


def test_integers_stay_integers_behind_a_layer_that_only_casts():
    class Cast(keras.layers.Layer):
        def call(self, x):
            return keras.ops.cast(x, "float32")

    layer = FeaturewiseNormalization()
    adapt(keras.Sequential([keras.Input(**INPUT), Cast(dtype="float32", autocast=False), layer]), UINT8)
    assert layer.accumulator._floats is None
    assert_statistics(layer, UINT8)


def test_values_are_checked_once_by_layers_that_see_them():
    before, after = Watcher(), Watcher()
    model = keras.Sequential([keras.Input(**INPUT), before, FeaturewiseNormalization(), after, ZCAWhitening()])
    adapt(model, UINT8, batch_size=20)
    assert [len(x) for x in before.seen] == [20]
    assert np.array_equal(before.seen[0], UINT8[:20])
    assert after.seen == []


def test_functional_models():
    inputs = keras.Input(**INPUT)
    x = keras.layers.Rescaling(1 / 255)(inputs)
    left, right = FeaturewiseNormalization(), FeaturewiseNormalization(axis=None)
    joined = FeaturewiseNormalization()
    outputs = joined(keras.layers.Concatenate()([left(x), right(keras.ops.square(x))]))
    adapt(keras.Model(inputs, outputs), UINT8)
    scaled = UINT8 / 255.0
    assert_statistics(left, scaled)
    assert_statistics(right, scaled**2, None)
    result = to_numpy(keras.Model(inputs, outputs)(UINT8))
    np.testing.assert_allclose(result.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_models_in_models(kind):
    inner = FeaturewiseNormalization()
    nested = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Rescaling(2.0), inner])
    outer = FeaturewiseNormalization()
    if kind == "sequential":
        model = keras.Sequential([keras.Input(**INPUT), keras.layers.Rescaling(1 / 255, 1.0), nested, outer])
    else:
        inputs = keras.Input(**INPUT)
        model = keras.Model(inputs, outer(nested(keras.layers.Rescaling(1 / 255, 1.0)(inputs))))
    adapt(model, UINT8)
    assert_statistics(inner, 2 * (UINT8 / 255.0 + 1))
    np.testing.assert_allclose(to_host(outer.std), 1, atol=1e-5)


def test_an_unbuilt_sequential_and_a_subclassed_model():
    layer = FeaturewiseNormalization()
    adapt(keras.Sequential([SamplewiseNormalization(), layer]), UINT8)
    y = to_numpy(SamplewiseNormalization()(UINT8))
    assert_statistics(layer, y)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.scale, self.norm = keras.layers.Rescaling(1 / 255), FeaturewiseNormalization()

        def call(self, x):
            return self.norm(self.scale(x))

    model = Model()
    adapt(model, UINT8)
    assert_statistics(model.norm, UINT8 / 255.0)
    np.testing.assert_allclose(to_numpy(model(UINT8)).std((0, 1, 2)), 1, atol=1e-4)


def test_one_layer_and_lists():
    layer = FeaturewiseNormalization()
    adapt(layer, UINT8)
    assert_statistics(layer, UINT8)
    first, second = FeaturewiseNormalization(), FeaturewiseNormalization(axis=None)
    adapt([first, keras.layers.Dropout(0.5), second], UINT8)
    assert_statistics(first, UINT8)
    np.testing.assert_allclose(to_host(second.std), 1, atol=1e-5)


def test_given_statistics_stay():
    given, learnt = FeaturewiseNormalization(mean=100.0, std=50.0), FeaturewiseNormalization()
    adapt(keras.Sequential([keras.Input(**INPUT), given, learnt]), UINT8)
    np.testing.assert_allclose(to_host(given.mean), 100)
    assert_statistics(learnt, (UINT8 - 100.0) / (50 + 1e-6))


def test_samplewise_then_featurewise_on_raw_data():
    layer = FeaturewiseNormalization()
    model = keras.Sequential([keras.Input(**INPUT), SamplewiseNormalization(), layer])
    adapt(model, UINT8)
    y = model.predict(UINT8, verbose=0)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)


def test_adapting_a_fitted_model_again():
    layer = FeaturewiseNormalization()
    model = keras.Sequential([keras.Input(**INPUT), layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    adapt(model, UINT8)
    model.compile(loss="mse")
    model.fit(UINT8, np.zeros(60), verbose=0)
    adapt(model, UINT8[:30])
    assert_statistics(layer, UINT8[:30])
    assert float(to_host(layer.count)) == 30


def test_datasets_of_every_kind():
    tf, torch = pytest.importorskip("tensorflow"), pytest.importorskip("torch")
    labels = np.arange(60)
    dataset = tf.data.Dataset.from_tensor_slices(({"images": UINT8, "more": labels}, labels))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(UINT8)), batch_size=9)
    for data in (dataset, dataset.batch(9), dataset.batch(9, drop_remainder=False).prefetch(1), loader, list(UINT8)):
        layer = FeaturewiseNormalization()
        adapt(keras.Sequential([keras.Input(**INPUT), keras.layers.Rescaling(0.5), layer]), data)
        assert_statistics(layer, UINT8 * 0.5)
        assert float(to_host(layer.count)) == 60
    layer = FeaturewiseNormalization()
    adapt(layer, {"a": UINT8, "b": labels}, key="a", batch_size=7, steps=2)
    assert_statistics(layer, UINT8[:14])


def test_a_generator_serves_a_layer_and_a_function_that_makes_it_several():
    one, other = FeaturewiseNormalization(), FeaturewiseNormalization()
    adapt(keras.Sequential([keras.Input(**INPUT), one]), (part for part in np.split(UINT8, 6)))
    assert_statistics(one, UINT8)
    two = keras.Sequential([keras.Input(**INPUT), one, other])
    adapt(two, lambda: (part for part in np.split(UINT8, 6)))
    np.testing.assert_allclose(to_host(other.std), 1, atol=1e-5)


def test_a_failure_leaves_every_layer_as_it_was():
    first, second = FeaturewiseNormalization(), FeaturewiseNormalization()
    model = keras.Sequential([keras.Input((4, 4, 3)), first, keras.layers.Rescaling(1.0), second])
    with pytest.raises(ValueError, match="holds NaN"):
        adapt(model, np.full((5, 4, 4, 3), np.nan, "float32"))
    with pytest.raises((RuntimeError, ValueError), match="no statistics yet"):
        first(UINT8)
    adapt(model, UINT8)
    before = model.get_weights()
    passes = []

    def data():
        passes.append(1)
        yield UINT8[:30]
        if len(passes) == 2:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        adapt(model, data)
    assert len(passes) == 2
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))
    first.update(UINT8)
    assert float(to_host(first.count)) == 120


def test_errors():
    with pytest.raises(ValueError, match="nothing to adapt.*'flat'"):
        adapt(keras.Sequential([keras.Input(**INPUT), keras.layers.Flatten(name="flat")]), UINT8)
    with pytest.raises(ValueError, match="nothing to adapt"):
        adapt(FeaturewiseNormalization(mean=0.0, std=1.0), UINT8)
    with pytest.raises(TypeError, match="takes a Keras model, a layer or a list"):
        adapt("model", UINT8)
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], keras.layers.Add()([FeaturewiseNormalization(name="left")(a), b]))
    with pytest.raises(ValueError, match="has 2 inputs.*'left'"):
        adapt(model, np.ones((4, 3)))
    with pytest.raises(ValueError, match="one image is a batch of one"):
        adapt(keras.Sequential([keras.Input(**INPUT), FeaturewiseNormalization()]), UINT8[0])
