"""Hue, saturation, levels, exponents, histograms: against Keras, against slow NumPy in float64, and at their edges."""

import colorsys

import keras
import numpy as np
import pytest
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels import backend, curves
from keras_norm_layers.kernels.backend import to_numpy

pytestmark = pytest.mark.usefixtures("uncompiled")
RANGES = [(0, 255), (0.0, 1.0)]
ALL_RANGES = [*RANGES, (-1.0, 1.0), (-3.0, -1.0)]


def noise(value_range=(0, 255), shape=(2, 7, 10, 3), seed=3):
    """Random images, among them grey, black, white and pure pixels."""
    unit = np.random.default_rng(seed).random(shape)
    unit[0, 0] = np.linspace(0, 1, shape[2])[:, None]
    unit[-1, 0] = np.random.default_rng(seed).integers(0, 2, (shape[2], shape[3]))
    low, high = value_range
    return (low + (high - low) * unit).astype("float32")


def unit(images, value_range):
    return (images.astype("float64") - value_range[0]) / (value_range[1] - value_range[0])


def run(layer, images, **values):
    """``layer.change`` with these parameters, one number for all images."""
    xp = backend.namespace(None)
    params = {name: xp.asarray(np.full(len(images), value, "float32")) for name, value in values.items()}
    return to_numpy(layer.change(layer.prepared(params), xp.asarray(images)))


def in_hsv(images, change):
    """A function of (h, s, v) on each pixel of images in [0, 1], by the standard library."""
    out = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in images.reshape(-1, 3)]
    return np.array(out).reshape(images.shape)


def keras_twin(layer, images, params, data_format="channels_last"):
    """What the Keras layer makes of the images with these parameters."""
    x = np.moveaxis(images, -1, 1) if data_format == "channels_first" else images
    tensor = keras.ops.convert_to_tensor(np.ascontiguousarray(x))
    given = {name: keras.ops.convert_to_tensor(np.full(len(x), v, "float32")) for name, v in params.items()}
    out = to_numpy(layer.transform_images(tensor, given, training=True))
    return np.moveaxis(out, 1, -1) if data_format == "channels_first" else out


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("value_range", RANGES)
@pytest.mark.parametrize("factor", [-1.0, -0.7, -0.1, 0.0, 0.33, 0.5, 1.0])
def test_hue_is_keras_hue(factor, value_range, data_format):
    images = noise(value_range)
    ours = run(knl.RandomHue(1.0, value_range), images, factor=abs(factor), sign=np.sign(factor))
    twin = keras.layers.RandomHue(1.0, value_range, data_format=data_format)
    theirs = keras_twin(twin, images, {"factor": 0.5 * factor}, data_format)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * value_range[1])


@pytest.mark.parametrize("value_range", ALL_RANGES)
@pytest.mark.parametrize("turns", [-0.5, -0.21, 0.4, 0.5])
def test_hue_is_a_turn_in_hsv(turns, value_range):
    images = noise(value_range)
    ours = run(knl.RandomHue(1.0, value_range), images, factor=2 * abs(turns), sign=np.sign(turns))
    truth = in_hsv(unit(images, value_range), lambda h, s, v: ((h + turns) % 1.0, s, v))
    np.testing.assert_allclose(unit(ours, value_range), truth, atol=2e-6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.5, 0.7, 0.95, 1.0])
def test_saturation_is_keras_saturation_in_the_unit_range(factor, data_format):
    images = noise((0, 1))
    twin = keras.layers.RandomSaturation((factor, factor), (0, 1), data_format=data_format)
    theirs = keras_twin(twin, images, {"factor": factor / (1 - factor + 1e-7)}, data_format)
    ours = run(knl.RandomSaturation(1.0, (0, 1)), images, factor=factor)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("value_range", ALL_RANGES)
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_saturation_is_a_product_in_hsv_that_ends_at_1(factor, value_range):
    images = noise(value_range)
    ours = run(knl.RandomSaturation(1.0, value_range), images, factor=factor)
    gain = factor / max(1 - factor, 1e-7)
    truth = in_hsv(unit(images, value_range), lambda h, s, v: (h, min(1.0, s * gain), v))
    np.testing.assert_allclose(unit(ours, value_range), truth, atol=3e-6)


def test_saturation_stays_in_the_range_where_keras_leaves_it():
    images = noise()
    ours = to_numpy(knl.RandomSaturation((0.9, 0.9))(images))
    assert ours.min() >= 0.0
    theirs = to_numpy(keras.layers.RandomSaturation((0.9, 0.9))(keras.ops.convert_to_tensor(images), training=True))
    assert theirs.min() < -1.0, "Keras limits the saturation to 1 now: take the row out of docs/differences.md"


@pytest.mark.parametrize("name", ["RandomSaturation", "RandomColorDegeneration"])
def test_a_single_factor_is_drawn_from_0_to_it(name):
    assert getattr(knl, name)(0.4).specs()["factor"].low == 0.0
    assert getattr(keras.layers, name)(0.4).factor == (-0.4, 0.4), "Keras does as it says now: see docs/differences.md"


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("value_range", RANGES)
def test_posterization_is_keras_posterization(bits, value_range):
    images = np.arange(255, dtype="float32").reshape(1, 5, 51, 1) * np.float32(value_range[1] / 255)
    images += np.float32(value_range[1] / 255 / 4)  # Keras cuts off, and k / 255 * 255 may lie below k
    if bits == 8:
        np.testing.assert_array_equal(run(knl.RandomPosterization(8, value_range), images, bits=8), images)
        return
    twin = keras.layers.RandomPosterization((bits, bits), value_range)
    theirs = to_numpy(twin(keras.ops.convert_to_tensor(images), training=True))
    ours = to_numpy(knl.RandomPosterization(bits, value_range)(images))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("value_range", ALL_RANGES)
@pytest.mark.parametrize("bits", [1, 3, 5])
def test_posterization_clears_the_low_bits_of_every_level(bits, value_range):
    low, high = value_range
    levels = np.arange(256).reshape(1, 16, 16, 1)
    images = (low + (high - low) * (levels / 255.0)).astype("float32")
    ours = run(knl.RandomPosterization((1, 8), value_range), images, bits=bits)
    np.testing.assert_allclose(unit(ours, value_range) * 255, levels >> (8 - bits) << (8 - bits), atol=1e-3)


@pytest.mark.parametrize("following", [[], [knl.RandomBrightness(0.3), knl.RandomFlip()], [knl.AutoContrast()]])
def test_bits_of_bytes_are_those_of_floats(following):
    images = np.random.default_rng(0).integers(0, 256, (16, 9, 7, 3)).astype("uint8")
    before = keras.ops.convert_to_tensor(images)
    layer = knl.Augment([knl.RandomPosterization((1, 8), p=0.7), *following], seed=3)
    layer.build(images.shape)
    draw = layer.draw(len(images))
    from_bytes, from_floats = layer.apply(before, draw), layer.apply(images.astype("float32"), draw)
    assert keras.backend.standardize_dtype(from_bytes.dtype) == "float32"
    np.testing.assert_array_equal(to_numpy(from_bytes), to_numpy(from_floats))
    np.testing.assert_array_equal(to_numpy(before), images)  # what was given stays


def test_bits_are_those_that_are_asked_for():
    assert set(np.unique(np.round(to_numpy(drawn(knl.RandomPosterization((2, 5), seed=1), "bits"))))) == {2, 3, 4, 5}
    assert set(np.unique(to_numpy(drawn(knl.RandomPosterization(4, seed=1), "bits")))) == {4}
    theirs = keras.layers.RandomPosterization(4).factor
    assert tuple(theirs) == (1, 4), "Keras keeps as many bits as asked for now: take the row out of docs/differences.md"


def drawn(layer, name, number=2000):
    """The values of a parameter for one draw of many images."""
    layer.build((None, 4, 4, 3))
    xp = backend.namespace(None)
    return layer.plan.parameters(layer.draw(number), xp.asarray(1.0, "float32"))[0][name]


@pytest.mark.parametrize("value_range", RANGES)
@pytest.mark.parametrize(("addition", "threshold"), [(0.0, 0.0), (0.0, 0.4), (0.2, 0.6), (0.3, 1.0)])
def test_solarization_is_keras_solarization(addition, threshold, value_range):
    images = noise(value_range)
    twin = keras.layers.Solarization(value_range=value_range)
    shape = (len(images), 1, 1, 1)
    params = {"additions": np.full(shape, addition * 255, "f4"), "thresholds": np.full(shape, threshold * 255, "f4")}
    params = {name: keras.ops.convert_to_tensor(value) for name, value in params.items()}
    theirs = to_numpy(twin.transform_images(keras.ops.convert_to_tensor(images), params, training=True))
    ours = run(knl.Solarization(addition, value_range=value_range), images, addition=addition, threshold=threshold)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * value_range[1])


def test_a_fixed_threshold_is_a_fixed_threshold():
    images = np.arange(256, dtype="float32").reshape(1, 16, 16, 1)
    expected = np.where(images < 127.5, images, 255 - images)
    np.testing.assert_array_equal(to_numpy(knl.Solarization(0.0, (0.5, 0.5))(images)), expected)
    many = keras.ops.convert_to_tensor(np.repeat(images, 16, axis=0))
    theirs = to_numpy(keras.layers.Solarization(0.0, (0.5, 0.5), seed=1)(many, training=True))
    assert len({image.tobytes() for image in theirs}) > 1, "Keras scales both ends now: see docs/differences.md"


@pytest.mark.parametrize("value_range", ALL_RANGES)
@pytest.mark.parametrize("exponent", [0.01, 0.5, 1.0, 2.2, 100.0])
def test_gamma_is_a_power(exponent, value_range):
    images = noise(value_range)
    ours = run(knl.RandomGamma((0.01, 100.0), value_range), images, exponent=exponent)
    np.testing.assert_allclose(unit(ours, value_range), unit(images, value_range) ** exponent, atol=5e-5)
    assert (ours[images == value_range[0]] == value_range[0]).all()


def test_gamma_is_drawn_evenly_by_its_logarithm():
    exponents = np.log(to_numpy(drawn(knl.RandomGamma((0.5, 2.0), seed=1), "exponent")))
    assert abs(exponents.mean()) < 0.04
    assert abs((exponents > np.log(2) / 2).mean() - 0.25) < 0.04


def slow_equalization(channel, value_range, bins):
    """A channel (H, W), equalized by the definition, in float64."""
    low, high = value_range
    place = np.clip(np.floor((channel.astype("float64") - low) / (high - low) * (bins - 1) + 1e-3), 0, bins - 1)
    values, inverse, counts = np.unique(place, return_inverse=True, return_counts=True)
    if len(values) == 1:
        return channel
    reached = np.cumsum(counts)
    level = np.round((reached - counts[0]) * 255 / (reached[-1] - counts[0]))
    return low + level[inverse].reshape(channel.shape) * (high - low) / 255


@pytest.mark.parametrize("bins", [256, 2, 10, 1000])
@pytest.mark.parametrize("value_range", ALL_RANGES)
def test_equalization_is_its_definition_for_each_image_and_channel(bins, value_range):
    images = noise(value_range, (3, 9, 14, 2))
    images[1] = value_range[0] + (images[1] - value_range[0]) / 4  # another histogram than its neighbours
    images[2, ..., 1] = images[2, 0, 0, 1]
    ours = to_numpy(knl.Equalization(value_range, bins)(images))
    for n in range(3):
        for c in range(2):
            truth = slow_equalization(images[n, ..., c], value_range, bins)
            np.testing.assert_allclose(ours[n, ..., c], truth, atol=1e-5 * (value_range[1] - value_range[0]))


@pytest.mark.filterwarnings("ignore:Tensor.T is deprecated")  # Keras on torch
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_equalization_of_one_image_is_keras_equalization_and_of_two_it_is_not(data_format):
    bins = 16 if BACKEND == "jax" else 256  # Keras compares with every bin on JAX
    images = np.floor(noise(shape=(2, 9, 14, 3)) * np.array([0.3, 1.0], "f4").reshape(2, 1, 1, 1))
    x = np.ascontiguousarray(np.moveaxis(images, -1, 1)) if data_format == "channels_first" else images
    ours = to_numpy(knl.Equalization(bins=bins, data_format=data_format)(x))
    twin = keras.layers.Equalization(bins=bins, data_format=data_format)
    for n in range(2):
        theirs = to_numpy(twin(keras.ops.convert_to_tensor(x[n : n + 1]), training=True))
        np.testing.assert_allclose(ours[n : n + 1], theirs, atol=1e-4 * 255)
    together = to_numpy(twin(keras.ops.convert_to_tensor(x), training=True))
    assert np.abs(together - ours).max() > 5, "Keras takes a histogram an image now: see docs/differences.md"


@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (1, 1, 1, 3), (2, 1, 6, 3)], ids=str)
@pytest.mark.parametrize(
    "layer",
    [
        knl.RandomSaturation(1.0),
        knl.RandomHue(1.0),
        knl.RandomPosterization((1, 8)),
        knl.Solarization(0.5, 0.5),
        knl.RandomGamma(),
        knl.Equalization(),
        knl.RandomColorJitter((0, 255), 0.2, 0.2, 0.5, 0.2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_small_and_empty_batches_and_values_outside_the_range(layer, shape):
    outside = np.random.default_rng(0).uniform(-60, 400, shape).astype("float32")
    u = np.full((shape[0], layer.plan.slots if layer.built else 9), 0.7, "float32")
    layer.build(shape)
    out = to_numpy(layer.apply(outside, u[:, : layer.plan.slots]))
    assert out.shape == shape
    assert ((out >= 0) & (out <= 255)).all() or isinstance(layer, knl.Equalization)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("function", [curves.hue, curves.saturation])
def test_grey_stays_grey(function):
    xp = backend.namespace(None)
    grey = np.repeat(np.linspace(0, 255, 24, dtype="float32").reshape(1, 4, 6, 1), 3, axis=-1)
    out = to_numpy(function(xp.asarray(grey), xp.asarray(np.array([0.37], "float32")), 0.0, 255.0))
    np.testing.assert_allclose(out, grey, atol=1e-4)


@pytest.mark.parametrize("name", ["RandomSaturation", "RandomHue"])
def test_colours_need_three_channels(name):
    with pytest.raises(ValueError, match=rf"{name} needs images with 3 channels. Received: 4"):
        getattr(knl, name)(0.5)(np.zeros((2, 4, 4, 4), "float32"))


ERRORS = [
    (lambda: knl.RandomSaturation(-0.5), ["`factor`", "-0.5", "[0, 1]"]),
    (lambda: knl.RandomHue((0.5, 1.5)), ["`factor`", "(0.5, 1.5)", "<= 1"]),
    (lambda: knl.RandomPosterization(0), ["`factor`", "0", "1", "8"]),
    (lambda: knl.RandomPosterization((4, 9)), ["`factor`", "(4, 9)", "8"]),
    (lambda: knl.RandomPosterization(2.5), ["`factor`", "2.5", "whole"]),
    (lambda: knl.RandomPosterization(True), ["`factor`", "True", "pair"]),
    (lambda: knl.Solarization(1.5), ["`addition_factor`", "1.5", "[0, 1]"]),
    (lambda: knl.Solarization(0.0, (0.5, -0.5)), ["`threshold_factor`", "(0.5, -0.5)", "lower <= upper"]),
    (lambda: knl.RandomGamma(2.0), ["`gamma`", "2.0", "pair"]),
    (lambda: knl.RandomGamma((0.0, 1.0)), ["`gamma`", "(0.0, 1.0)", "0.01"]),
    (lambda: knl.Equalization(bins=1), ["`bins`", "1", "from 2 to 65536"]),
    (lambda: knl.Equalization((255, 0)), ["`value_range`", "(255, 0)"]),
    (lambda: knl.RandomColorJitter(), ["brightness_factor", "hue_factor", "None"]),
    (lambda: knl.RandomColorJitter(hue_factor=2.0), ["RandomHue", "`factor`", "2.0"]),
]


@pytest.mark.parametrize(("make", "words"), ERRORS)
def test_errors_name_the_argument_and_what_is_allowed(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)


def test_images_of_unknown_size(only_tensorflow):
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    images = noise(shape=(2, 8, 10, 3))
    for layer in (knl.Equalization(), knl.AutoContrast(), knl.RandomColorJitter((0, 255), 0.3, 0.5, (0.2, 0.8), 0.4)):
        layer.build((None, None, None, 3))
        u = np.full((2, layer.plan.slots), 0.7, "float32")
        expected = to_numpy(layer.apply(images, u))
        shapes = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, layer.plan.slots))]
        for jit in (None, True):
            graph = tf.function(layer.apply, shapes, jit_compile=jit, autograph=False)
            np.testing.assert_allclose(to_numpy(graph(images, u)), expected, atol=1e-3)


# RandomColorJitter --------------------------------------------------------------------------------------------------


def test_jitter_is_its_four_parts_in_a_row():
    parts = [knl.RandomBrightness(0.3), knl.RandomContrast(0.5), knl.RandomSaturation((0.2, 0.8)), knl.RandomHue(0.4)]
    jitter, chain = knl.RandomColorJitter((0, 255), 0.3, 0.5, (0.2, 0.8), 0.4), knl.Augment(parts)
    images = noise(shape=(4, 7, 10, 3))
    jitter.build(images.shape)
    u = np.random.default_rng(1).random((4, jitter.plan.slots), dtype="float32")
    np.testing.assert_array_equal(to_numpy(jitter.apply(images, u)), to_numpy(chain.apply(images, u)))


def test_jitter_is_keras_jitter():
    factors = {"brightness_factor": (0.1, 0.1), "saturation_factor": (0.4, 0.4), "hue_factor": (0.0, 0.0)}
    images = noise()
    ours = to_numpy(knl.RandomColorJitter(**factors)(images))
    theirs = to_numpy(keras.layers.RandomColorJitter(**factors)(keras.ops.convert_to_tensor(images), training=True))
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * 255)


@pytest.mark.parametrize("sign", [-1, 1])
def test_contrast_and_hue_of_jitter_are_keras_jitters(sign):
    factors = {"contrast_factor": (0.8, 0.9), "hue_factor": (0.6, 0.6)}
    images, contrast = noise(), 1.4
    ours, theirs = (library.RandomColorJitter(**factors) for library in (knl, keras.layers))
    theirs.random_contrast.get_random_transformation = lambda *_, **__: {"contrast_factor": np.float32(contrast)}
    turn = np.full(len(images), sign * 0.6 * 0.5, "float32")
    theirs.random_hue.get_random_transformation = lambda *_, **__: {"factor": keras.ops.convert_to_tensor(turn)}
    ours.build(images.shape)
    drawn = [(contrast - 0.2) / 1.7, 0.5, 0.25 if sign > 0 else 0.75]  # a contrast from 0.2 to 1.9, a turn, its sign
    u = np.tile(np.array([drawn], "float32"), (len(images), 1))
    made = to_numpy(theirs(keras.ops.convert_to_tensor(images), training=True))
    np.testing.assert_allclose(to_numpy(ours.apply(images, u)), made, atol=1e-4 * 255)


def test_jitter_draws_once_a_batch_if_told():
    images = np.repeat(noise()[:1], 6, axis=0)
    jitter = knl.RandomColorJitter((0, 255), 0.3, 0.5, (0.2, 0.8), 0.4, same_on_batch=True, seed=1)
    out = to_numpy(jitter(images))
    np.testing.assert_allclose(out, np.repeat(out[:1], 6, axis=0), atol=1e-4)
    assert np.abs(out[0] - images[0]).max() > 1
