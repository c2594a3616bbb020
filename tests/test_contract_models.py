"""The promises over the whole catalogue: configuration, golden numbers, in models."""

import json

import catalogue
import keras
import numpy as np
import pytest
from catalogue import (
    CHAINS,
    RANDOM,
    RESIZING,
    images,
    quantiles,
    random_layer,
)
from conftest import BACKEND
from contract import CLOSE, all_random, apply, uncompiled

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

# Configuration, golden numbers --------------------------------------------------------------------------------------


@uncompiled
@all_random
def test_the_configuration_makes_the_same_layer(name):
    layer = random_layer(name)
    config = layer.get_config()
    again = type(layer).from_config(json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))["config"])
    assert keras.saving.serialize_keras_object(again)["config"] == keras.saving.serialize_keras_object(layer)["config"]
    assert config["seed"] == 7
    x, u = images(2), quantiles(layer, 2)
    np.testing.assert_allclose(apply(again, x, u), apply(layer, x, u), atol=1e-5)


@uncompiled
@all_random
def test_golden_draws_and_outputs(name):
    """Numbers made once, on TensorFlow: the same from run to run, on every backend and under every compiler."""
    with np.load(GOLDEN) as golden:
        drawn, outputs = golden[f"u {name}"], golden[f"out {name}"]
    layer = RANDOM[name](seed=7)
    layer.build((None, *GOLDEN_SHAPE[1:]))
    np.testing.assert_array_equal(to_numpy(layer.draw(GOLDEN_SHAPE[0])), drawn)
    np.testing.assert_allclose(apply(layer, golden_images(), drawn), outputs, atol=CLOSE)


GOLDEN = __file__.replace("test_contract_models.py", "golden/transforms.npz")
GOLDEN_SHAPE = (3, 6, 9, 3)


def golden_images():
    """Smooth, so that the last bit of a coordinate is not the last digit of a pixel; not symmetric."""
    n, h, w, c = np.indices(GOLDEN_SHAPE)
    return (8 * h * h / 3 + 17 * w - 1.5 * h * w + 30 * c + 11 * n).clip(0, 255).astype("uint8")


def make_golden():
    """Writes the golden file anew (``python tests/test_contract_models.py``), when a change of the numbers is meant."""
    arrays = {}
    for name in RANDOM:
        layer = RANDOM[name](seed=7)
        layer.build((None, *GOLDEN_SHAPE[1:]))
        arrays[f"u {name}"] = to_numpy(layer.draw(GOLDEN_SHAPE[0]))
        arrays[f"out {name}"] = apply(layer, golden_images(), arrays[f"u {name}"])
    made_by = {"keras": keras.__version__, "numpy": np.__version__, "backend": BACKEND, "package": knl.__version__}
    np.savez_compressed(GOLDEN, made_by=json.dumps(made_by), **arrays)


# In models ----------------------------------------------------------------------------------------------------------


def small_model(layer, shape=(catalogue.HEIGHT, catalogue.WIDTH, 3)):
    model = keras.Sequential(
        [keras.Input(shape), layer, keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    model.compile("sgd", "mse", jit_compile=True if BACKEND == "tensorflow" else "auto")
    return model


@all_random
def test_the_layer_supports_jit_and_its_symbolic_output_is_its_real_one(name):
    layer = random_layer(name)
    assert layer.supports_jit
    spec = layer.compute_output_spec(keras.KerasTensor((None, 5, 6, 3), dtype="uint8"))
    out = layer(np.zeros((2, 5, 6, 3), "uint8"), training=False)
    assert spec.shape == (None, *out.shape[1:])
    assert spec.dtype == keras.backend.standardize_dtype(out.dtype) == "float32"


@pytest.mark.parametrize("name", CHAINS)
def test_a_model_with_it_fits_compiled_and_predicts_deterministically(name):
    x, y = images(10), np.zeros((10, 2), "float32")
    model = small_model(RANDOM[name](seed=7))
    if BACKEND != "torch":  # Keras has no compiler on torch unless asked
        assert model.jit_compile is True
    losses = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    np.testing.assert_array_equal(model.predict(x, verbose=0), model.predict(x, verbose=0))
    np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(model(x)))
    seen = to_numpy(model.layers[0](x, training=False))
    plain = keras.Sequential([keras.Input(seen.shape[1:]), *model.layers[1:]])
    np.testing.assert_allclose(model.predict(x, verbose=0), plain.predict(seen, verbose=0), atol=1e-4)


@uncompiled
def test_training_in_a_model_sees_augmented_images():
    layer = RANDOM["augment chain"](seed=7)
    model = keras.Sequential([keras.Input((9, 14, 3)), layer])
    x = images(4)
    np.testing.assert_array_equal(to_numpy(model(x)), x.astype("float32"))
    first, second = to_numpy(model(x, training=True)), to_numpy(model(x, training=True))
    assert not np.array_equal(first, x)
    assert not np.array_equal(first, second)


def test_images_of_unknown_size():
    layer = RANDOM["rotation constant"](seed=7)
    pool = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((None, None, 3)), layer, pool, keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    for shape in ((2, 8, 5, 3), (3, 6, 6, 3)):
        model.train_on_batch(np.full(shape, 9, "uint8"), np.zeros((shape[0], 3)))
        assert to_numpy(layer(np.full(shape, 9, "uint8"), training=True)).shape == shape


@uncompiled
def test_strength_changes_while_training_without_a_new_trace():
    augment = knl.Augment([knl.RandomBrightness((0.2, 0.2))])
    x = np.zeros((2, 3, 3, 1), "uint8")
    seen = []
    for strength in (1.0, 0.5, 0.0):
        augment.strength.assign(strength)
        seen.append(float(to_numpy(augment(x)).mean()))
    np.testing.assert_allclose(seen, [51.0, 25.5, 0.0])


def gradients(layer, batches):
    """The gradient of the sum of what ``apply`` makes, for each of several (x, u); on TensorFlow by one graph."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        @tf.function(reduce_retracing=True)
        def found(data, u):
            with tf.GradientTape() as tape:
                tape.watch(data)
                total = tf.reduce_sum(layer.apply(data, u))
            return tape.gradient(total, data)

        return [to_numpy(found(tf.constant(x), tf.constant(u))) for x, u in batches]
    if BACKEND == "jax":
        import jax

        return [to_numpy(jax.grad(lambda data, u=u: layer.apply(data, u).sum())(x)) for x, u in batches]
    import torch

    given = [torch.tensor(x, requires_grad=True) for x, _ in batches]
    for x, (_, u) in zip(given, batches):
        layer.apply(x, u).sum().backward()
    return [to_numpy(x.grad) for x in given]


@uncompiled
@pytest.mark.parametrize("name", ["augment chain", "augment two stages"])
def test_gradients_flow_to_the_images(name):
    layer = random_layer(name)
    x, u = images(2, dtype="float32"), quantiles(layer, 2)
    (gradient,) = gradients(layer, [(x, u)])
    assert np.isfinite(gradient).all()
    assert (gradient != 0).mean() > 0.3
    moved = x + np.float32(0.5) * (np.random.default_rng(0).random(x.shape, dtype="float32") - np.float32(0.5))
    slope = float((apply(layer, moved, u) - apply(layer, x, u)).sum())
    assert abs(float((gradient * (moved - x)).sum()) - slope) < 0.1 * abs(slope) + 10.0


def test_gradients_flow_through_choices():
    """For a batch of another size than the one before too; what a histogram decides has none."""
    several = [knl.RandomContrast(0.5), knl.RandomSharpness(1.0), knl.RandomGamma((0.5, 2.0)), knl.RandomGrayscale(1.0)]
    last = knl.OneOf([*several, knl.Equalization()], weights=[1, 1, 1, 1, 2], p=0.5)
    layer = knl.Augment([knl.OneOf(several), last], seed=1)
    layer.build((None, 6, 8, 3))
    noise = np.random.default_rng(0).random((24, 6, 8, 3), dtype="float32")
    x, u = np.float32(30.0) + np.float32(190.0) * noise, quantiles(layer, 24)
    few, gradient = gradients(layer, [(x[:2], u[:2]), (x, u)])
    np.testing.assert_allclose(few, gradient[:2], rtol=1e-4, atol=1e-4)
    equalized = (gradient == 0).all((1, 2, 3))
    assert 0 < equalized.sum() < len(x) / 2
    step = np.float32(0.05)
    for direction in (np.ones_like(x), np.random.default_rng(1).random(x.shape, dtype="float32")):
        up, down = (apply(layer, x + sign * step * direction, u).sum((1, 2, 3)) for sign in (1, -1))
        slopes, along = (up - down) / (2 * step), (gradient * direction).sum((1, 2, 3))
        np.testing.assert_allclose(along[~equalized], slopes[~equalized], rtol=0.02, atol=1.0)


def test_the_graph_of_inference_holds_nothing_random(only_tensorflow):
    import tensorflow as tf

    for name in CHAINS:
        model = keras.Sequential([keras.Input((9, 14, 3), dtype="uint8"), RANDOM[name](seed=7), keras.layers.Flatten()])
        graph = (
            tf.function(lambda x, model=model: model(x))
            .get_concrete_function(tf.TensorSpec((None, 9, 14, 3), tf.uint8))
            .graph
        )
        operations = {operation.type for operation in graph.get_operations()}
        assert not any("Random" in operation or "Stateful" in operation for operation in operations)
        if name in RESIZING:  # which reads pixels at inference too
            continue
        assert operations <= {
            "Placeholder",
            "Cast",
            "Reshape",
            "Const",
            "Identity",
            "NoOp",
            "Shape",
            "StridedSlice",
            "Pack",
        }


if __name__ == "__main__":
    make_golden()
