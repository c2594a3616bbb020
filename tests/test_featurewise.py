"""FeaturewiseNormalization: formula, statistics, life of the weights, on the Keras backend of the run."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import FeaturewiseNormalization
from keras_norm_layers.normalization.adaptive import to_host

RNG = np.random.default_rng(0)
UINT8 = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
FLOATS = (RNG.normal(3, 2, (40, 6, 5, 3)) * [1, 5, 0.1]).astype("float32")
OTHER = (FLOATS * 3 + 7).astype("float32")


def reference(images, axis=-1, like=None, center=True, scale=True, epsilon=1e-6):
    """The formula in float64, the statistics those of ``images``."""
    keep = () if axis is None else tuple(a % 4 for a in np.atleast_1d(axis))
    reduced = tuple(a for a in range(4) if a not in keep)
    data = images.astype("float64")
    mean, std = data.mean(reduced, keepdims=True), data.std(reduced, keepdims=True)
    x = (images if like is None else like).astype("float64")
    x = x - mean if center else x
    return x / np.where(std == 0, 1, std + epsilon) if scale else x


def adapted(data=FLOATS, **options):
    layer = FeaturewiseNormalization(**options)
    layer.adapt(data)
    return layer


@pytest.mark.parametrize("axis", [-1, None, (1, 2, 3), 1, (1, 3)])
@pytest.mark.parametrize("data", [UINT8, FLOATS], ids=["uint8", "float32"])
def test_the_formula(axis, data):
    layer = adapted(data, axis=axis)
    np.testing.assert_allclose(to_numpy(layer(data)), reference(data, axis), atol=2e-5)
    assert float(to_host(layer.count)) == 40


@pytest.mark.parametrize(("center", "scale"), [(True, False), (False, True), (False, False)])
def test_center_and_scale_and_epsilon(center, scale):
    layer = adapted(center=center, scale=scale, epsilon=0.5)
    np.testing.assert_allclose(
        to_numpy(layer(FLOATS)), reference(FLOATS, center=center, scale=scale, epsilon=0.5), atol=1e-5
    )
    undo = adapted(center=center, scale=scale, epsilon=0.5, invert=True)
    np.testing.assert_allclose(to_numpy(undo(layer(FLOATS))), FLOATS, atol=1e-4)


def test_a_constant_feature_is_centred_and_not_scaled():
    data = FLOATS.copy()
    data[..., 1] = 0.1
    y = to_numpy(adapted(data, epsilon=0.0)(data + np.float32([0, 0.5, 0])))
    np.testing.assert_allclose(y[..., 1], 0.5, atol=1e-6)
    assert np.isfinite(y).all()


def test_given_statistics_need_no_adapting():
    layer = FeaturewiseNormalization(mean=[1.0, 2.0, 3.0], std=2.0)
    np.testing.assert_allclose(to_numpy(layer(FLOATS)), (FLOATS - [1, 2, 3]) / (2 + 1e-6), rtol=1e-5, atol=1e-5)
    assert layer.get_config()["mean"] == [1.0, 2.0, 3.0]
    again = FeaturewiseNormalization.from_config(layer.get_config())
    assert np.array_equal(to_numpy(again(FLOATS)), to_numpy(layer(FLOATS)))
    centred = FeaturewiseNormalization(mean=np.float32(2.0), scale=False)
    np.testing.assert_allclose(to_numpy(centred(FLOATS)), FLOATS - 2, rtol=1e-6)
    for action in (lambda: layer.adapt(FLOATS), lambda: layer.update(FLOATS), layer.reset):
        with pytest.raises(ValueError, match="given as arguments"):
            action()


def test_a_given_mean_image():
    mean = FLOATS.mean(0)
    layer = FeaturewiseNormalization(axis=(1, 2, 3), mean=mean, scale=False)
    np.testing.assert_allclose(to_numpy(layer(FLOATS)), FLOATS - mean, rtol=1e-5, atol=1e-6)
    tensor = FeaturewiseNormalization(axis=(1, 2, 3), mean=keras.ops.convert_to_tensor(mean), scale=False)
    assert np.array_equal(to_numpy(tensor(FLOATS)), to_numpy(layer(FLOATS)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 1.0}, "give `mean` and `std` together, or set scale=False"),
        ({"std": 1.0}, "give `mean` and `std` together, or set center=False"),
        ({"mean": 1.0, "std": 1.0, "scale": False}, "`std` has no use with scale=False"),
        ({"mean": "x", "std": 1.0}, "`mean` must be a number or an array"),
        ({"mean": np.nan, "std": 1.0}, "finite numbers"),
        ({"mean": 0.0, "std": -1.0}, "finite numbers of at least 0"),
        ({"epsilon": -1e-6}, "`epsilon` must be a number"),
        ({"center": 1}, "`center` must be True or False"),
        ({"axis": 0}, "must not hold 0"),
        ({"axis": "channels"}, "`axis` must be an integer"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        FeaturewiseNormalization(**options)


def test_wrong_shapes():
    with pytest.raises(ValueError, match="does not broadcast to the features' shape"):
        FeaturewiseNormalization(mean=[1.0, 2.0], std=1.0)(FLOATS)
    with pytest.raises(ValueError, match="must be known"):
        keras.Sequential([keras.Input((None, None, 3)), FeaturewiseNormalization(axis=(1, 2, 3))])
    layer = adapted()
    with pytest.raises(ValueError, match=r"built for images of shape \(None, None, None, 3\)"):
        layer(FLOATS[..., :2])
    with pytest.raises(ValueError, match="built for images"):
        layer.adapt(FLOATS[..., :2])
    np.testing.assert_allclose(to_numpy(layer(FLOATS[:, :4])), reference(FLOATS)[:, :4], atol=2e-5)  # any height


# -- statistics
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "mixed_bfloat16", "float16"])
def test_statistics_do_not_depend_on_the_policy(policy):
    data = np.random.default_rng(1).normal(1e4, 3e3, (200, 4, 4, 3)).astype("float32")
    expected = adapted(data)
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        globally = adapted(data)
        assert keras.backend.standardize_dtype(globally(data).dtype) == "float32"
    finally:
        keras.config.set_dtype_policy(before)
    locally = adapted(data, dtype=policy)
    for layer in (globally, locally):
        assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), expected.get_weights()))
    y = to_numpy(keras.ops.cast(locally(data), "float32"))
    np.testing.assert_allclose(y, reference(data), atol=0.02)


def test_mean_ten_thousand_std_one_in_the_weights():
    data = np.random.default_rng(2).normal(1e4, 1, (200_000, 3)).astype("float32")
    layer = adapted(data)
    np.testing.assert_allclose(to_host(layer.std), data.astype("float64").std(0), rtol=1e-6)
    np.testing.assert_allclose(to_host(layer.mean), data.astype("float64").mean(0), rtol=1e-7)


def test_adapting_replaces_update_adds_merge_joins():
    layer = adapted(OTHER)
    layer.adapt(FLOATS[:30])
    np.testing.assert_allclose(to_numpy(layer(FLOATS)), reference(FLOATS[:30], like=FLOATS), atol=1e-4)
    layer.update(FLOATS[30:])
    np.testing.assert_allclose(to_numpy(layer(FLOATS)), reference(FLOATS), atol=2e-5)
    merged = FeaturewiseNormalization()
    merged.merge(adapted(FLOATS[:11]))
    merged.merge(adapted(FLOATS[11:]))
    np.testing.assert_allclose(to_numpy(merged(FLOATS)), reference(FLOATS), atol=2e-5)
    fresh = FeaturewiseNormalization()
    fresh.update(keras.ops.convert_to_tensor(FLOATS))
    np.testing.assert_allclose(to_numpy(fresh(FLOATS)), reference(FLOATS), atol=2e-5)


def test_an_inverse_takes_over_by_merging():
    layer, undo = adapted(UINT8), FeaturewiseNormalization(invert=True)
    undo.merge(layer)
    np.testing.assert_allclose(to_numpy(undo(layer(UINT8))), UINT8, atol=1e-3)


def test_merge_refuses():
    with pytest.raises(ValueError, match="never adapted"):
        adapted().merge(FeaturewiseNormalization())
    with pytest.raises(ValueError, match="takes an adapted FeaturewiseNormalization"):
        adapted().merge(3)
    with pytest.raises(ValueError, match="cannot be merged"):
        adapted().merge(adapted(FLOATS[..., :2]))


def test_bad_data_leaves_the_statistics():
    layer = adapted()
    before = layer.get_weights()
    bad = FLOATS.copy()
    bad[25, 1, 1, 1] = np.nan

    def interrupted():
        yield OTHER
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match=r"batch 2 \(images 20 to 29\) holds NaN, first in image 25"):
        layer.adapt(bad, batch_size=10)
    with pytest.raises(ValueError, match="holds infinity"):
        layer.adapt(np.where(np.isnan(bad), np.inf, bad))
    with pytest.raises(ValueError, match="holds no images"):
        layer.adapt(FLOATS[:0])
    with pytest.raises(ValueError, match="holds no images"):
        layer.adapt(iter([]))
    with pytest.raises(ValueError, match="does not fit into float32"):
        layer.adapt(np.array([1e100, -1e100]).reshape(2, 1, 1, 1) * np.ones(3))
    with pytest.raises(KeyboardInterrupt):
        layer.adapt(interrupted())
    with pytest.raises(ValueError, match="holds NaN"):
        layer.update(bad)
    assert all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), before))
    layer.update(FLOATS)
    assert float(to_host(layer.count)) == 80


def test_progress(capsys):
    adapted()
    assert capsys.readouterr().out == ""
    FeaturewiseNormalization(name="norm").adapt(FLOATS, batch_size=10, verbose=1)
    out = capsys.readouterr().out
    assert "adapting norm" in out and "4/4" in out
    with pytest.raises(ValueError, match="verbose"):
        FeaturewiseNormalization().adapt(FLOATS, verbose="loud")


# -- never adapted
# ------------------------------------------------------------------------------------------------------


def model_with(layer, dtype="float32"):
    return keras.Sequential([keras.Input((6, 5, 3), dtype=dtype), layer, keras.layers.Flatten(), keras.layers.Dense(1)])


def test_unadapted_raises_everywhere():
    def use(action):
        with pytest.raises((RuntimeError, ValueError), match=r"'fresh' has no statistics yet.*adapt\(data\)"):
            action(FeaturewiseNormalization(name="fresh"))

    def fit(layer):
        model = model_with(layer)
        model.compile(loss="mse")
        model.fit(FLOATS, np.zeros((40, 1)), verbose=0)

    use(lambda layer: layer(FLOATS))
    use(lambda layer: model_with(layer)(FLOATS))
    use(lambda layer: model_with(layer).predict(FLOATS, verbose=0))
    use(fit)


def test_reset_forgets():
    layer = adapted()
    model = model_with(layer)
    model.predict(FLOATS, verbose=0)
    layer.reset()
    with pytest.raises(RuntimeError, match="no statistics yet"):
        layer(FLOATS)
    if keras.backend.backend() != "torch":  # traced before: NaN, never the values of the input
        assert np.isnan(model.predict(FLOATS, verbose=0)).all()
    layer.adapt(FLOATS)
    assert np.isfinite(model.predict(FLOATS, verbose=0)).all()


def test_a_clone_with_weights_set_can_be_fitted_and_predicts():
    for use in ("fit", "predict"):
        clone = keras.models.clone_model(model_with(adapted()))
        layer = clone.layers[0]
        dense = [np.ones((90, 1), "float32"), np.zeros(1, "float32")]
        clone.set_weights([*adapted().get_weights(), *dense])
        if use == "fit":
            clone.compile(loss="mse")
            history = clone.fit(FLOATS, np.zeros((40, 1)), verbose=0)
            assert np.isfinite(history.history["loss"][0])
        else:
            expected = reference(FLOATS).reshape(40, -1).sum(1, keepdims=True)
            np.testing.assert_allclose(clone.predict(FLOATS, verbose=0), expected, atol=1e-3)
        with pytest.raises(ValueError, match="set from outside"):
            layer.update(FLOATS)


# -- statistics that change after tracing
# -------------------------------------------------------------------------------


def output_model(layer):
    model = keras.Sequential([keras.Input((6, 5, 3)), layer])
    model.compile(loss="mse", jit_compile="auto")
    return model


@pytest.mark.parametrize("change", ["adapt", "set_weights", "load_weights", "update"])
def test_statistics_changed_after_tracing_take_effect(change, tmp_path):
    layer = adapted()
    model = output_model(layer)
    np.testing.assert_allclose(model.predict(FLOATS, verbose=0), reference(FLOATS), atol=2e-5)
    first = model.evaluate(FLOATS, reference(FLOATS), verbose=0)
    truth = OTHER
    if change == "adapt":
        layer.adapt(OTHER)
    elif change == "set_weights":
        model.set_weights(output_model(adapted(OTHER)).get_weights())
    elif change == "load_weights":
        output_model(adapted(OTHER)).save_weights(tmp_path / "w.weights.h5")
        model.load_weights(tmp_path / "w.weights.h5")
    else:
        layer.update(OTHER)
        truth = np.concatenate([FLOATS, OTHER])
    expected = reference(truth, like=FLOATS)
    np.testing.assert_allclose(model.predict(FLOATS, verbose=0), expected, atol=2e-5)
    assert first < 1e-8
    assert model.evaluate(FLOATS, expected, verbose=0) < 1e-8


def test_fit_then_adapt_takes_effect_in_training():
    layer = adapted()
    model = model_with(layer)
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0))
    y = np.zeros((40, 1))
    model.fit(FLOATS, y, verbose=0, shuffle=False, batch_size=40)
    layer.adapt(OTHER)
    expected = float(np.mean(to_numpy(model(FLOATS)) ** 2))
    np.testing.assert_allclose(model.fit(FLOATS, y, verbose=0, batch_size=40).history["loss"][0], expected, rtol=1e-4)


def test_in_tf_data_batched_and_unbatched_and_after_adapting_again():
    tf = pytest.importorskip("tensorflow")
    layer = adapted(UINT8)
    dataset = tf.data.Dataset.from_tensor_slices(UINT8)
    batched, single = dataset.batch(7).map(layer), dataset.map(layer)
    for expected in (reference(UINT8), reference(FLOATS, like=UINT8)):
        np.testing.assert_allclose(np.concatenate(list(batched.as_numpy_iterator())), expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(np.stack(list(single.as_numpy_iterator())), expected, rtol=1e-5, atol=1e-4)
        layer.adapt(FLOATS)
    given = FeaturewiseNormalization(mean=1.0, std=2.0)
    np.testing.assert_allclose(np.stack(list(dataset.batch(40).map(given)))[0], (UINT8 - 1.0) / (2 + 1e-6), rtol=1e-5)
    with pytest.raises(Exception, match="no statistics yet"):
        fresh = FeaturewiseNormalization()
        fresh.build((None, 6, 5, 3))
        list(dataset.batch(7).map(fresh))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras writes no SavedModel from torch")
@pytest.mark.filterwarnings("ignore:.*native_serialization:DeprecationWarning")  # Keras's call of jax2tf
def test_an_export_has_the_statistics_of_its_time(tmp_path):
    tf = pytest.importorskip("tensorflow")
    layer = adapted()
    model = output_model(layer)
    model.predict(FLOATS, verbose=0)
    layer.adapt(OTHER)
    model.export(str(tmp_path / "m"), verbose=False)
    served = tf.saved_model.load(str(tmp_path / "m"))
    np.testing.assert_allclose(served.serve(FLOATS), reference(OTHER, like=FLOATS), atol=2e-5)


# -- files
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [UINT8, FLOATS], ids=["uint8", "float32"])
def test_files_continue_exactly(data, tmp_path):
    layer = adapted(data[:25], axis=(1, 2, 3))
    model = keras.Sequential([keras.Input((6, 5, 3), dtype=data.dtype.name), layer])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    same = keras.Sequential([keras.Input((6, 5, 3)), FeaturewiseNormalization(axis=(1, 2, 3))])
    same.load_weights(tmp_path / "m.weights.h5")
    layer.update(data[25:])
    for other in (loaded, same):
        np.testing.assert_allclose(other.predict(data, verbose=0), reference(data[:25], (1, 2, 3), data), atol=3e-4)
        other.layers[0].update(data[25:])
        assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), model.get_weights()))
    assert loaded.layers[0].get_build_config()["input_shape"] == [None, 6, 5, 3]


def test_a_file_without_the_accumulator_loads(tmp_path):
    layer = adapted()
    model = output_model(layer)
    layer.accumulator = None
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(FLOATS, verbose=0), reference(FLOATS), atol=2e-5)
    with pytest.raises(ValueError, match="set from outside"):
        loaded.layers[0].update(FLOATS)
    loaded.layers[0].adapt(OTHER)
    loaded.layers[0].update(OTHER)


def test_an_unadapted_model_round_trips_as_such(tmp_path):
    output_model(FeaturewiseNormalization()).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    with pytest.raises((RuntimeError, ValueError), match="no statistics yet"):
        loaded.predict(FLOATS, verbose=0)
    loaded.layers[0].adapt(FLOATS)
    np.testing.assert_allclose(loaded.predict(FLOATS, verbose=0), reference(FLOATS), atol=2e-5)


def test_given_statistics_are_in_the_file(tmp_path):
    model = output_model(FeaturewiseNormalization(mean=np.arange(3.0), std=[1.0, 2.0, 3.0]))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert np.array_equal(loaded.predict(FLOATS, verbose=0), model.predict(FLOATS, verbose=0))


def test_a_fresh_process_and_another_backend(tmp_path):
    model = output_model(adapted())
    expected = model.predict(FLOATS, verbose=0)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", FLOATS)
    np.save(tmp_path / "y.npy", expected)
    script = f"""
import os; os.environ["KERAS_BACKEND"] = {"jax" if keras.backend.backend() != "jax" else "torch"!r}
import keras, numpy as np, keras_norm_layers.normalization
model = keras.models.load_model(r"{tmp_path}/m.keras")
y = model.predict(np.load(r"{tmp_path}/x.npy"), verbose=0)
np.testing.assert_allclose(y, np.load(r"{tmp_path}/y.npy"), atol=1e-5)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_the_layer_keeps_the_model_compiled():
    assert FeaturewiseNormalization().supports_jit
    model = output_model(adapted())
    assert model.output_shape == (None, 6, 5, 3)
    model.compile(loss="mse", jit_compile=keras.backend.backend() != "torch")
    np.testing.assert_allclose(model.predict(FLOATS, verbose=0), reference(FLOATS), atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 2, 1031, 1), (1, 2, 2048, 3), (2, 3, 4, 1500), (3, 2, 1, 2)])
@pytest.mark.parametrize("invert", [False, True])
def test_wide_rows_and_many_channels(shape, invert):
    rng = np.random.default_rng(0)
    images = rng.normal(size=shape).astype("float32")
    mean, std = rng.normal(size=shape[-1]).astype("float32"), rng.uniform(1, 2, shape[-1]).astype("float32")
    layer = FeaturewiseNormalization(mean=mean, std=std, epsilon=0.0, invert=invert)
    truth = images.astype("float64") * std + mean if invert else (images.astype("float64") - mean) / std
    np.testing.assert_allclose(np.asarray(layer(images)), truth, atol=1e-5)


def test_one_kernel_of_tensorflow_normalizes_images(only_tensorflow):
    import tensorflow as tf

    mean, std = np.array([100.0, 1e4, 0.0], "float32"), np.array([3.0, 7e-3, 0.0], "float32")
    layer = FeaturewiseNormalization(mean=mean, std=std)
    images = (np.random.default_rng(0).normal(size=(5, 6, 7, 3)) * std + mean).astype("float32")
    truth = (images.astype("float64") - mean) / np.where(std > 0, std.astype("float64") + layer.epsilon, 1.0)

    for batch, expected in ((images, truth), (images[:0], truth[:0]), (images[0], truth[0])):
        graph = tf.function(layer).get_concrete_function(tf.TensorSpec(batch.shape))
        kinds = [op.type for op in graph.graph.get_operations()]
        assert "FusedBatchNormV3" in kinds
        for result in (graph(tf.constant(batch)), layer(batch)):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)

    # Inside XLA there is one loop anyway, in which the images keep their shape.
    compiled = tf.function(layer, jit_compile=True).get_concrete_function(tf.TensorSpec(images.shape))
    sizes = {op: {output.shape.num_elements() for output in op.outputs} for op in compiled.graph.get_operations()}
    large = [op.type for op, found in sizes.items() if images.size in found]
    assert large and not {"FusedBatchNormV3", "Reshape"} & set(large)
    np.testing.assert_allclose(compiled(tf.constant(images)), truth, rtol=1e-5, atol=1e-5)

    x = tf.Variable(images)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer(x) ** 3)
        gradient = tape.gradient(total, x)
    divisor = np.where(std > 0, std + layer.epsilon, 1.0)
    np.testing.assert_allclose(gradient, 3 * truth**2 / divisor, rtol=1e-3, atol=1e-3 / divisor.min())
    np.testing.assert_allclose(outer.gradient(gradient, x), 6 * truth / divisor**2, rtol=1e-3, atol=1e-2 / 7e-3**2)
