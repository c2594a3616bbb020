"""The promises of the package, each over the whole catalogue, under the Keras backend of the run."""

import json

import catalogue
import keras
import numpy as np
import pytest
from catalogue import (
    CHAINS,
    COLOR,
    GEOMETRIC,
    NORMALIZATION,
    RANDOM,
    images,
    normalization_layer,
    quantiles,
    random_layer,
)
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels import backend
from keras_norm_layers.kernels.backend import to_numpy

CLOSE = 1e-3  # grey levels: what two orders of the same float32 sums may differ by
ONE_DRAW_A_BATCH = ("brightness once a batch", "augment two stages")
all_random = pytest.mark.parametrize("name", RANDOM)
ONE_OF_EACH = [*CHAINS, "rotation constant", "zoom constant nearest", "translation wrap", "contrast p"]
uncompiled = pytest.mark.usefixtures("uncompiled")
all_normalization = pytest.mark.parametrize("name", NORMALIZATION)


def apply(layer, data, u):
    return to_numpy(layer.apply(data, u))


def without_compiler(function):
    """The result of ``function`` with every operation run by itself, none of them compiled together."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        try:
            return function()
        finally:
            tf.config.run_functions_eagerly(False)
    if BACKEND == "jax":
        import jax

        with jax.disable_jit():
            return function()
    return function()


def in_a_compiled_graph(function, *tensors):
    """The results of ``function`` inside a caller's own compiled graph, in each way that the backend has."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return [tf.function(function)(*tensors), tf.function(function, jit_compile=True)(*tensors)]
    if BACKEND == "jax":
        import jax

        return [jax.jit(function)(*tensors)]
    return [function(*tensors)]


# The identity -------------------------------------------------------------------------------------------------------


@uncompiled
@all_random
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_training_false_is_the_identity_in_float32(name, dtype):
    x = images(3, dtype=dtype)
    out = to_numpy(random_layer(name)(x, training=False))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, x.astype("float32"))


@uncompiled
@all_random
def test_strength_0_is_the_identity_and_strength_1_is_the_layer_itself(name):
    layer = random_layer(name)
    augment = RANDOM[name](seed=7) if name in CHAINS else knl.Augment([RANDOM[name]()], seed=7)
    x, u = images(4), quantiles(layer, 4)
    np.testing.assert_allclose(apply(augment, x, u), apply(layer, x, u), atol=CLOSE)
    augment.strength.assign(0.0)
    np.testing.assert_allclose(apply(augment, x, u), x.astype("float32"), atol=CLOSE if BACKEND == "torch" else 0)


# One function of u --------------------------------------------------------------------------------------------------


@uncompiled
@all_random
def test_the_same_draw_gives_the_same_output_and_leaves_the_input_alone(name):
    layer, x = random_layer(name), images(4)
    given = backend.namespace(None).asarray(x)
    u = quantiles(layer, 4)
    first, second = apply(layer, given, u), apply(layer, given, u)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(to_numpy(given), images(4))
    np.testing.assert_array_equal(x, images(4))
    assert first.shape == x.shape
    assert first.dtype == np.float32


@pytest.mark.parametrize("name", ONE_OF_EACH if BACKEND == "jax" else RANDOM)  # JAX compiles even single operations
def test_eager_equals_compiled(name):
    layer, x = random_layer(name), backend.namespace(None).asarray(images(4))
    u = quantiles(layer, 4)
    eager = without_compiler(lambda: apply(layer, x, u))
    layer = RANDOM[name](seed=7)
    np.testing.assert_allclose(apply(layer, x, u), eager, atol=CLOSE)
    if name in ONE_OF_EACH:
        for compiled in in_a_compiled_graph(lambda data: layer.apply(data, u), x):
            np.testing.assert_allclose(to_numpy(compiled), eager, atol=CLOSE)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler imports torch's own
def test_torch_compile_equals_eager(monkeypatch):
    x = images(4)
    layer = knl.Augment([knl.RandomFlip(), knl.RandomRotation(0.1), knl.RandomBrightness(0.2)], seed=7)
    layer.build((None, *x.shape[1:]))
    u = quantiles(layer, 4)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "0")
    eager = apply(layer, x, u)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    np.testing.assert_allclose(apply(layer, x, u), eager, atol=CLOSE)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
def test_large_batches_are_compiled_and_small_ones_are_not(monkeypatch):
    import torch

    compiled = []
    monkeypatch.delenv("KERAS_NORM_LAYERS_TORCH_COMPILE", raising=False)
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    layer = RANDOM["flip"](seed=7)
    layer(np.zeros((8, 32, 32, 3), "uint8"))
    assert not compiled
    layer(np.zeros((8, 224, 224, 3), "uint8"))
    assert len(compiled) == 1


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
@pytest.mark.parametrize("when", ["made", "called"])
def test_where_torch_compile_fails_there_is_one_warning_and_the_eager_result(when, monkeypatch):
    import torch

    def fails(*args):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    monkeypatch.setattr(torch, "compile", fails if when == "made" else lambda function: fails)
    layer = RANDOM["rotation"](seed=7)
    layer.build((None, catalogue.HEIGHT, catalogue.WIDTH, 3))
    x, u = images(2), quantiles(layer, 2)
    with pytest.warns(UserWarning, match=r"torch.compile failed \(no C\+\+ compiler\)"):
        out = apply(layer, x, u)
    np.testing.assert_array_equal(apply(layer, x, u), out)  # and no second warning, which would be an error


@uncompiled
@all_random
def test_a_batch_equals_its_singles(name):
    layer, x = random_layer(name), images(3)
    u = quantiles(layer, 3)
    if name in ONE_DRAW_A_BATCH:
        u = np.repeat(u[:1], 3, axis=0)
    batch = apply(layer, x, u)
    np.testing.assert_allclose(apply(layer, x[2:], u[2:])[0], batch[2], atol=CLOSE)
    np.testing.assert_allclose(apply(layer, x[1], u[1:2]), batch[1], atol=CLOSE)


@uncompiled
@all_random
def test_channels_first_equals_channels_last(name):
    last, x = random_layer(name), images(3)
    first = RANDOM[name](seed=7, data_format="channels_first")
    u = quantiles(last, 3)
    out = apply(first, np.ascontiguousarray(np.moveaxis(x, -1, 1)), u)
    np.testing.assert_allclose(np.moveaxis(out, 1, -1), apply(last, x, u), atol=CLOSE)


@uncompiled
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", CHAINS)
def test_any_number_of_channels(name, channels):
    x = images(2, channels=channels)
    layer = RANDOM[name](seed=7)
    layer.build(x.shape)
    out = apply(layer, x, quantiles(layer, 2))
    assert out.shape == x.shape
    assert np.isfinite(out).all()


@uncompiled
@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (1, 1, 1, 3), (2, 1, 6, 3), (2, 6, 1, 3)], ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_empty_batches_and_images_of_one_pixel_or_line(name, shape):
    out = to_numpy(RANDOM[name](seed=7)(np.full(shape, 100, "uint8")))
    assert out.shape == shape
    assert ((out >= 0) & (out <= 255)).all()


# Draws --------------------------------------------------------------------------------------------------------------


def different(batch):
    return len({image.tobytes() for image in batch})


@uncompiled
@all_random
def test_16_equal_images_go_in_and_different_ones_come_out(name):
    image = np.random.default_rng(2).integers(60, 190, (1, 24, 40, 3)).astype("uint8")
    x = np.repeat(image, 16, axis=0)
    layer = RANDOM[name](seed=9)
    first, second = to_numpy(layer(x)), to_numpy(layer(x))
    assert not np.array_equal(first, second), "two steps drew the same"
    if name == "brightness once a batch":
        assert different(first) == 1
        return
    outcomes = {"flip": 4, "flip horizontal": 2, "flip vertical": 2}
    untouched = sum(np.abs(out - image[0]).max() < 1e-2 for out in first)
    if name in outcomes:
        assert different(np.concatenate([first, second])) == outcomes[name]
    else:
        assert untouched < 10
        equal_by_chance = 2 if "nearest" in name else 0  # two maps may round to the same pixels
        assert different(first) >= 16 - max(0, untouched - 1) - equal_by_chance


@uncompiled
@all_random
def test_the_same_seed_draws_the_same_and_another_seed_others(name):
    x = images(4)
    layers = [RANDOM[name](seed=seed) for seed in (11, 11, 12)]
    for layer in layers:
        layer.build(x.shape)
    for _ in range(2):
        draws = [to_numpy(layer.draw(4)) for layer in layers]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.isin(draws[2], draws[0]).any()


# Masks, boxes, keypoints --------------------------------------------------------------------------------------------


@uncompiled
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, ("uint8", "int32")[i % 2]) for i, name in enumerate([*GEOMETRIC, *CHAINS])]
)
def test_masks_gain_no_class_and_keep_their_dtype_and_shape(name, dtype):
    x = images(4)
    classes = np.array([3, 50, 200], dtype)
    masks = classes[np.random.default_rng(0).integers(0, 3, x.shape[:3])]
    layer = RANDOM[name](seed=7, mask_fill_value=77)
    u = quantiles(random_layer(name), 4)
    flat = to_numpy(layer.apply({"images": x, "segmentation_masks": masks}, u)["segmentation_masks"])
    deep = to_numpy(layer.apply({"images": x, "segmentation_masks": masks[..., None]}, u)["segmentation_masks"])
    assert flat.dtype == deep.dtype == dtype
    assert flat.shape == masks.shape
    np.testing.assert_array_equal(deep[..., 0], flat)
    assert set(np.unique(flat)) <= {3, 50, 200, 77}
    if "constant" not in name and name != "augment two stages":
        assert 77 not in flat


@uncompiled
@pytest.mark.parametrize("name", COLOR)
def test_colour_leaves_masks_boxes_and_keypoints_alone(name):
    layer = RANDOM[name](seed=7, bounding_box_format="xyxy")
    x = images(2)
    data = {
        "images": x,
        "segmentation_masks": (x[..., 0] > 99).astype("uint8"),
        "keypoints": np.ones((2, 3, 2), "float32"),
        "bounding_boxes": {"boxes": np.ones((2, 1, 4), "float32"), "labels": np.zeros((2, 1), "int32")},
        "labels": np.array([4, 5]),
    }
    out = layer(data)
    assert not np.array_equal(to_numpy(out["images"]), x)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_array_equal(to_numpy(a), b),
        {key: value for key, value in out.items() if key != "images"},
        {key: value for key, value in data.items() if key != "images"},
    )


@uncompiled
def test_a_dict_in_is_the_same_dict_out_and_at_inference_nothing_moves():
    layer = RANDOM["augment chain"](seed=7, bounding_box_format="xywh")
    x = images(2)
    data = {
        "images": x,
        "segmentation_masks": x[..., :1],
        "keypoints": np.ones((2, 3, 2), "float32"),
        "bounding_boxes": {"boxes": np.ones((2, 1, 4), "float32"), "labels": np.zeros((2, 1), "int32")},
        "labels": np.array([4, 5]),
    }
    for training in (True, False):
        out = layer(data, training=training)
        assert list(out) == list(data)
        keras.tree.map_structure(lambda a, b: np.testing.assert_equal(tuple(a.shape), b.shape), dict(out), data)
    keras.tree.map_structure(lambda a, b: np.testing.assert_array_equal(to_numpy(a), b), dict(out), data)


# Values and dtypes --------------------------------------------------------------------------------------------------

RANGES = [
    ("uint8", (0, 255)),
    ("uint16", (0, 65535)),
    ("int32", (0, 255)),
    ("int32", (-100000, 100000)),
    ("float16", (0, 255)),
    ("bfloat16", (0, 255)),
    ("float64", (0, 255)),
    ("float32", (0.0, 1.0)),
    ("float32", (-1.0, 1.0)),
    ("float32", (-3.0, -1.0)),
]


@uncompiled
@pytest.mark.parametrize(("dtype", "value_range"), RANGES, ids=lambda value: str(value).replace(" ", ""))
def test_every_dtype_and_range_saturates_and_never_wraps(dtype, value_range):
    low, high = value_range
    ramp = np.linspace(low, high, 2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    x = keras.ops.cast(ramp.astype("float32"), dtype) if dtype == "bfloat16" else ramp.astype(dtype)
    exact = to_numpy(x).astype("float64")
    brighter = to_numpy(knl.RandomBrightness((0.5, 0.5), value_range)(x))
    assert brighter.dtype == np.float32
    np.testing.assert_allclose(brighter, np.clip(exact + 0.5 * (high - low), low, high), rtol=1e-5, atol=1e-5)
    flipped = to_numpy(knl.RandomFlip("horizontal", seed=1).apply(x, np.zeros((2, 1), "float32")))
    np.testing.assert_array_equal(flipped, exact[:, :, ::-1].astype("float32"))
    chain = knl.Augment([knl.RandomRotation(0.1), knl.RandomContrast(0.9, value_range)], seed=2)
    out = to_numpy(chain(x))
    assert np.isfinite(out).all()
    assert out.min() >= low
    assert out.max() <= high


@uncompiled
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "bfloat16"])
def test_the_dtype_argument_rounds_and_saturates(dtype):
    values = np.array([-1e6, -300, -5.0, 10.6, 11.5, 300.0, 60000.0, 65534.7], "float32")
    # float16 ends at 65504 and has infinity for what is above
    values = values[1:-1] if dtype == "float16" else np.append(values, np.float32(1e11))
    out = knl.RandomFlip("vertical", dtype=dtype)(values.reshape(1, 1, -1, 1))
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    got = to_numpy(keras.ops.cast(out, "float64" if BACKEND != "jax" else "float32")).ravel()
    if "float" in dtype:
        np.testing.assert_allclose(got, values, rtol=1e-2)
        return
    info = np.iinfo(dtype)
    highest = info.max if info.bits < 32 else 2**31 - 128  # the last whole number that float32 has below 2**31
    np.testing.assert_array_equal(got, np.clip(np.round(values.astype("float64")), info.min, highest))


@uncompiled
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_an_integer_layer_is_the_identity_at_inference_bit_for_bit(dtype):
    x = images(2).astype(dtype) + np.array(0 if dtype == "uint8" else 2**24 + 1, dtype)
    out = to_numpy(knl.RandomBrightness(0.1, dtype=dtype)(x, training=False))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, x)


@uncompiled
def test_the_global_dtype_policy_changes_nothing():
    layer = random_layer("augment chain")
    x, u = images(2), quantiles(layer, 2)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        out = RANDOM["augment chain"](seed=7).apply(x, u)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(to_numpy(out), apply(layer, x, u), atol=CLOSE)


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


GOLDEN = __file__.replace("test_contract.py", "golden/transforms.npz")
GOLDEN_SHAPE = (3, 6, 9, 3)


def golden_images():
    """Smooth, so that the last bit of a coordinate is not the last digit of a pixel; not symmetric."""
    n, h, w, c = np.indices(GOLDEN_SHAPE)
    return (8 * h * h / 3 + 17 * w - 1.5 * h * w + 30 * c + 11 * n).clip(0, 255).astype("uint8")


def make_golden():
    """Writes the golden file anew: ``python tests/test_contract.py``. Only when a change of the numbers is meant."""
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
    assert spec.shape == (None, 5, 6, 3)
    assert spec.dtype == "float32"


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
    plain = keras.Sequential([keras.Input(x.shape[1:]), *model.layers[1:]])
    np.testing.assert_allclose(model.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-5)


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


@uncompiled
@pytest.mark.parametrize("name", ["augment chain", "augment two stages"])
def test_gradients_flow_to_the_images(name):
    layer = random_layer(name)
    x, u = images(2, dtype="float32"), quantiles(layer, 2)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf.reduce_sum(layer.apply(given, u))
        gradient = tape.gradient(loss, given)
    elif BACKEND == "jax":
        import jax

        gradient = jax.grad(lambda data: layer.apply(data, u).sum())(jax.numpy.asarray(x))
    else:
        import torch

        given = torch.tensor(x, requires_grad=True)
        layer.apply(given, u).sum().backward()
        gradient = given.grad
    gradient = to_numpy(gradient)
    assert np.isfinite(gradient).all()
    assert (gradient != 0).mean() > 0.3
    moved = x + np.float32(0.5) * (np.random.default_rng(0).random(x.shape, dtype="float32") - np.float32(0.5))
    slope = float((apply(layer, moved, u) - apply(layer, x, u)).sum())
    assert abs(float((gradient * (moved - x)).sum()) - slope) < 0.1 * abs(slope) + 10.0


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


def test_every_layer_of_the_package_is_in_the_catalogue():
    layers = {name for name in knl.__all__ if isinstance(getattr(knl, name), type)}
    made = [random_layer(name) for name in RANDOM] + [normalization_layer(name) for name in NORMALIZATION]
    assert {type(layer).__name__ for layer in made} == layers


if __name__ == "__main__":
    make_golden()
