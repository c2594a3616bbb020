"""Colours as gains and offsets: grey, negatives, gains, stretched contrast."""

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels import backend, color, pixels
from keras_norm_layers.kernels.backend import to_numpy

pytestmark = pytest.mark.usefixtures("uncompiled")
RANGES = [(0, 255), (0.0, 1.0), (-1.0, 1.0), (1.0, 3.0)]
WEIGHTS = np.array([0.2989, 0.587, 0.114])


def noise(value_range=(0, 255), shape=(3, 7, 10, 3)):
    low, high = value_range
    return (low + (high - low) * np.random.default_rng(3).random(shape)).astype("float32")


def keras_of(layer, images):
    return to_numpy(layer(keras.ops.convert_to_tensor(images), training=True))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("value_range", RANGES)
def test_grayscale_is_keras_grayscale(value_range, data_format):
    images = noise(value_range)
    if data_format == "channels_first":
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    ours = to_numpy(knl.RandomGrayscale(1.0, data_format)(images))
    theirs = keras_of(keras.layers.RandomGrayscale(1.0, data_format=data_format), images)
    np.testing.assert_allclose(ours, np.broadcast_to(theirs, ours.shape), atol=1e-4 * (value_range[1] - value_range[0]))


def test_grayscale_leaves_or_makes_grey_with_its_probability():
    images = np.repeat(noise()[:1], 300, axis=0)
    out = to_numpy(knl.RandomGrayscale(0.3, seed=1)(images))
    grey = np.ptp(out, axis=-1).max((1, 2)) < 1e-3
    np.testing.assert_array_equal(out[~grey], images[~grey])
    np.testing.assert_allclose(out[grey][0, ..., 0], images[0] @ WEIGHTS, atol=1e-3)
    assert 60 < grey.sum() < 120


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("value_range", RANGES)
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_degeneration_is_keras_degeneration(factor, value_range, data_format):
    images = noise(value_range)
    if data_format == "channels_first":
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    arguments = {"factor": (factor, factor), "value_range": value_range, "data_format": data_format}
    ours = to_numpy(knl.RandomColorDegeneration(**arguments)(images))
    theirs = keras_of(keras.layers.RandomColorDegeneration(**arguments), images)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * (value_range[1] - value_range[0]))


@pytest.mark.parametrize("value_range", [(0, 255), (0.0, 1.0)])
def test_invert_is_keras_invert(value_range):
    images = noise(value_range)
    ours = to_numpy(knl.RandomInvert((1.0, 1.0), value_range)(images))
    theirs = keras_of(keras.layers.RandomInvert((1.0, 1.0), value_range), images)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * value_range[1])


def test_a_negative_stays_in_its_range_where_keras_leaves_it():
    images = noise((-1, 1))
    np.testing.assert_allclose(to_numpy(knl.RandomInvert((1.0, 1.0), (-1, 1))(images)), -images, atol=1e-6)
    theirs = keras_of(keras.layers.RandomInvert((1.0, 1.0), (-1, 1)), images)
    assert theirs.max() > 1.5, "Keras knows the lower end now: take the row out of docs/differences.md"


@pytest.mark.parametrize(("factor", "share"), [(1.0, 0.5), (0.4, 0.2), ((0.6, 1.0), 0.8), ((0.0, 0.0), 0.0)])
def test_invert_draws_with_the_mean_of_its_probabilities(factor, share):
    out = to_numpy(knl.RandomInvert(factor, seed=2)(np.zeros((2000, 1, 1, 1), "uint8")))
    assert abs((out > 0).mean() - share) < 0.04


@pytest.mark.parametrize("value_range", RANGES)
def test_auto_contrast_is_keras_auto_contrast(value_range):
    low, high = value_range
    images = (low + (noise(value_range) - low) * np.float32(0.4) + np.float32(0.2) * (high - low)).astype("float32")
    ours = to_numpy(knl.AutoContrast(value_range)(images))
    theirs = keras_of(keras.layers.AutoContrast(value_range), images)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * (high - low))
    np.testing.assert_allclose(ours.min((1, 2)), low, atol=1e-5 * (high - low))
    np.testing.assert_allclose(ours.max((1, 2)), high, atol=1e-5 * (high - low))


@pytest.mark.parametrize("value_range", RANGES)
def test_auto_contrast_leaves_a_channel_of_one_value_alone(value_range):
    images = noise(value_range)
    images[..., 1] = images[0, 0, 0, 1]
    out = to_numpy(knl.AutoContrast(value_range)(images))
    np.testing.assert_array_equal(out[..., 1], images[..., 1])
    assert np.isfinite(out).all()
    moved = knl.Augment([knl.RandomRotation((0.1, 0.1)), knl.AutoContrast(value_range)])
    np.testing.assert_allclose(to_numpy(moved(images))[..., 1], images[..., 1], rtol=1e-5)


def test_auto_contrast_is_off_at_inference():
    images = noise() / 3
    np.testing.assert_array_equal(to_numpy(knl.AutoContrast()(images, training=False)), images)
    theirs = to_numpy(keras.layers.AutoContrast()(keras.ops.convert_to_tensor(images), training=False))
    assert np.abs(theirs - images).max() > 50, "Keras is off too now: take the row out of docs/differences.md"


def test_auto_contrast_stands_where_it_stands_in_a_list():
    """What it learns is of the image at its place, seen through the maps before it and not through those after."""
    images = noise(shape=(2, 12, 12, 3))
    images[:, :3] = 0.0  # what the crop removes
    images[:, 3:] = 100.0 + images[:, 3:] / 5
    move = knl.RandomTranslation((-0.25, -0.25), 0.0, fill_mode="constant", fill_value=120.0)
    ours = to_numpy(knl.Augment([move, knl.AutoContrast()])(images))
    np.testing.assert_allclose(ours, to_numpy(knl.AutoContrast()(to_numpy(move(images)))), atol=1e-2)
    ours = to_numpy(knl.Augment([knl.AutoContrast(), move])(images))
    np.testing.assert_allclose(ours[:, :9], to_numpy(knl.AutoContrast()(images))[:, 3:], atol=1e-2)


def test_gates_and_strength_of_what_is_always_applied():
    images = np.repeat(noise()[:1] / 3 + 50, 300, axis=0)
    for make in (knl.AutoContrast, knl.Equalization):
        changed = np.abs(to_numpy(make(p=0.4, seed=1)(images)) - images).max((1, 2, 3))
        assert set(changed > 1) == {True, False}
        assert (changed[changed <= 1] == 0).all()
        assert 90 < (changed > 1).sum() < 150
        still = knl.Augment([make()], strength=0.0)
        np.testing.assert_array_equal(to_numpy(still(images[:2])), images[:2])


def test_channel_range_is_the_least_and_the_greatest():
    images = noise(shape=(2, 5, 6, 4))
    least, greatest = color.channel_range(backend.namespace(None).asarray(images))
    np.testing.assert_array_equal(to_numpy(least), images.min((1, 2)))
    np.testing.assert_array_equal(to_numpy(greatest), images.max((1, 2)))


@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (2, 5, 6, 4), (1, 16, 3, 1), (2, 37, 5, 3), (0, 18, 4, 3)])
def test_channel_mean_is_the_mean_of_all_rows(shape):
    images = noise(shape=shape)
    mean = to_numpy(pixels.channel_mean(backend.namespace(None).asarray(images)))
    np.testing.assert_allclose(mean, images.astype("float64").mean((1, 2)), atol=1e-4)


@pytest.mark.parametrize("value_range", RANGES)
def test_gains_multiply_what_lies_above_black_and_clip(value_range):
    low, high = value_range
    images = noise(value_range)
    brighter = to_numpy(knl.RandomChannelGain((0.5, 0.5), value_range)(images))
    expected = np.clip(low + (images.astype("float64") - low) * 1.5, low, high)
    np.testing.assert_allclose(brighter, expected, atol=1e-5 * (high - low))


def test_gains_are_drawn_a_channel_or_an_image():
    images = np.full((200, 2, 2, 3), 100, "uint8")
    apart, shared = (
        to_numpy(knl.RandomChannelGain(0.4, shared=shared, seed=1)(images))[:, 0, 0] / 100 - 1
        for shared in (False, True)
    )
    assert np.abs(np.corrcoef(apart.T) - np.eye(3)).max() < 0.25
    assert np.ptp(shared, axis=1).max() < 1e-5
    for drawn in (apart, shared):
        assert drawn.min() < -0.35
        assert drawn.max() > 0.35


@pytest.mark.parametrize("name", ["RandomGrayscale", "RandomColorDegeneration"])
def test_grey_needs_three_channels(name):
    with pytest.raises(ValueError, match=rf"{name} needs images with 3 channels. Received: 1"):
        getattr(knl, name)(0.5)(np.zeros((2, 4, 4, 1), "float32"))


ERRORS = [
    (lambda: knl.RandomGrayscale(1.5), ["`factor`", "1.5", "[0, 1]"]),
    (lambda: knl.RandomColorDegeneration(-0.1), ["`factor`", "-0.1", "[0, 1]"]),
    (lambda: knl.RandomInvert((0.5, 2.0)), ["`factor`", "(0.5, 2.0)", "<= 1"]),
    (lambda: knl.RandomChannelGain(1.5), ["`factor`", "1.5", "[-1, 1]"]),
    (lambda: knl.RandomChannelGain(0.5, shared=1), ["`shared`", "1", "True or False"]),
    (lambda: knl.AutoContrast((1, 1)), ["`value_range`", "(1, 1)", "below"]),
]


@pytest.mark.parametrize(("make", "words"), ERRORS)
def test_errors_name_the_argument_and_what_is_allowed(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("height", [1, 7, 256, 257, 258, 263, 600])
def test_the_mean_of_bytes_is_exact(height):
    images = np.random.default_rng(height).integers(0, 256, (2, height, 5, 3)).astype("uint8")
    images[1] = 255
    found = pixels.channel_mean(backend.namespace(None).asarray(images))
    np.testing.assert_allclose(to_numpy(found), images.mean((1, 2)), rtol=1e-6)
    layer = knl.RandomContrast(0.5, seed=1)
    layer.build((None, height, 5, 3))
    u = layer.draw(2)
    looked_at = [to_numpy(layer.apply(given, u)) for given in (images, images.astype("float32"))]
    np.testing.assert_allclose(*looked_at, atol=1e-3)
