"""Layers named as in ``keras.layers`` do the same with the same parameters; where not, ``docs/differences.md`` says so.

Parameters are fixed by ranges of no width, (f, f), or given to Keras's own ``transform_images``.
"""

import keras
import numpy as np
import pytest
from conftest import BACKEND
from reference import transforms as reference
from reference.warp import warp as slow_warp

import keras_norm_layers as knl
from keras_norm_layers.kernels import resample
from keras_norm_layers.kernels.backend import to_numpy

HEIGHT, WIDTH = 9, 12
TOLERANCE = 1e-4 * 255
# "wrap" on TensorFlow is a difference: test_wrap_is_periodic_also_where_tensorflows_kernel_is_not.
FILL_MODES = ["constant", "nearest", "reflect", *(["wrap"] if BACKEND != "tensorflow" else [])]
IMAGES = np.random.default_rng(4).uniform(0, 255, (2, HEIGHT, WIDTH, 3)).astype("float32")
pytestmark = pytest.mark.usefixtures("uncompiled")

GEOMETRIC = {
    "rotation": ("RandomRotation", [(0.037, 0.037)]),
    "rotation back": ("RandomRotation", [(-0.21, -0.21)]),
    "translation": ("RandomTranslation", [(0.13, 0.13), (-0.31, -0.31)]),
    "translation far": ("RandomTranslation", [(-0.93, -0.93), (0.77, 0.77)]),
    "zoom in": ("RandomZoom", [(-0.33, -0.33)]),
    "zoom out": ("RandomZoom", [(0.41, 0.41)]),
    "zoom two": ("RandomZoom", [(0.37, 0.37), (-0.23, -0.23)]),
}


def both(name, arguments, **options):
    """What our layer and Keras's of the same name make of the images."""
    ours, theirs = getattr(knl, name)(*arguments, **options), getattr(keras.layers, name)(*arguments, **options)
    return to_numpy(ours(IMAGES)), to_numpy(theirs(IMAGES, training=True))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill_mode", FILL_MODES)
@pytest.mark.parametrize("kind", GEOMETRIC)
def test_geometry_is_keras_geometry(kind, fill_mode, interpolation):
    name, arguments = GEOMETRIC[kind]
    ours, theirs = both(name, arguments, fill_mode=fill_mode, interpolation=interpolation, fill_value=31.0)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


@pytest.mark.parametrize("fill_mode", FILL_MODES)
def test_shear_is_keras_shear(fill_mode):
    options = {"fill_mode": fill_mode, "fill_value": 31.0}
    ours = knl.RandomShear((0.33, 0.33), (0.21, 0.21), **options)
    signs = [to_numpy(ours.apply(IMAGES, np.tile(np.array([[0, 0, u]], "float32"), (2, 1)))) for u in (0.1, 0.9)]
    seen = set()
    for seed in range(6):
        theirs = keras.layers.RandomShear((0.33, 0.33), (0.21, 0.21), seed=seed, **options)
        for number, image in enumerate(to_numpy(theirs(IMAGES, training=True))):
            matches = [sign for sign in (0, 1) if np.abs(signs[sign][number] - image).max() < TOLERANCE]
            assert len(matches) == 1
            seen.add(matches[0])
    assert seen == {0, 1}


@pytest.mark.parametrize("value_range", [(0, 255), (0.0, 1.0), (-1.0, 1.0)])
@pytest.mark.parametrize("factor", [-0.4, 0.0, 0.3])
def test_brightness_is_keras_brightness(factor, value_range):
    low, high = value_range
    images = (IMAGES / 255 * (high - low) + low).astype("float32")
    ours = to_numpy(knl.RandomBrightness((factor, factor), value_range)(images))
    theirs = to_numpy(keras.layers.RandomBrightness((factor, factor), value_range)(images, training=True))
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * (high - low))


@pytest.mark.parametrize("contrast", [0.3, 1.0, 1.8])
def test_contrast_is_keras_contrast(contrast):
    layer, images = keras.layers.RandomContrast((0.8, 0.9)), keras.ops.convert_to_tensor(IMAGES)
    theirs = to_numpy(layer.transform_images(images, {"contrast_factor": np.float32(contrast)}, training=True))
    ours = knl.RandomContrast((0.8, 0.9))
    u = np.full((2, 1), (contrast - 0.2) / 1.7, "float32")
    np.testing.assert_allclose(to_numpy(ours.apply(IMAGES, u)), theirs, atol=TOLERANCE)


# Three numbers on JAX: the next test.
@pytest.mark.parametrize("fill", [77.0, 300.0, *([(10.0, 20.0, 30.0)] if BACKEND != "jax" else [])])
def test_erasing_is_keras_erasing(fill, monkeypatch):
    ours = knl.RandomErasing((1, 1), (0.1, 0.7), fill)
    ours.build(IMAGES.shape)
    names = [name for name, _, _ in ours.plan.layout._slots(ours)]
    u = dict(zip(names, np.random.default_rng(1).random((len(names), 2)).astype("float32")))
    theirs = keras.layers.RandomErasing((1, 1), (0.1, 0.7), fill)
    # In the order in which Keras asks: areas across and down, places across and down, the probability, the coin.
    numbers = iter([np.stack([u["width"], u["height"]], 1), u["x"], u["y"], np.ones(2), np.zeros(2)])

    def uniform(minval, maxval, **_):
        return keras.ops.convert_to_tensor((next(numbers) * (maxval - minval) + minval).astype("float32"))

    monkeypatch.setattr(theirs.backend.random, "uniform", uniform)
    images = keras.ops.convert_to_tensor(IMAGES)
    erased = to_numpy(theirs.transform_images(images, theirs.get_random_transformation(images)))
    drawn = np.stack([u[name] for name in names], 1)
    np.testing.assert_allclose(to_numpy(ours.apply(IMAGES, drawn)), erased, atol=TOLERANCE)
    assert 0 < np.mean(erased != IMAGES) < 1


def test_erasing_by_a_color_is_an_error_of_keras_on_jax():
    ours, theirs = (library.RandomErasing((1, 1), (1, 1), (10, 20, 30)) for library in (knl, keras.layers))
    np.testing.assert_array_equal(to_numpy(ours(IMAGES)), np.broadcast_to([10, 20, 30], IMAGES.shape))
    if BACKEND == "jax":  # where this fails, Keras was mended: remove the row of docs/differences.md
        with pytest.raises(TypeError):
            theirs(IMAGES, training=True)


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the field is rebuilt from the noise as Keras draws it on TensorFlow"
)
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill_mode", ["constant", "nearest", "reflect"])
def test_elastic_reads_pixels_as_keras_elastic(fill_mode, interpolation):
    options = {"interpolation": interpolation, "fill_mode": fill_mode, "fill_value": 31.0}
    theirs = keras.ops.image.elastic_transform(IMAGES, alpha=3.0, sigma=1.0, seed=5, **options)
    noise = keras.random.normal(IMAGES.shape[:3], seed=5)[..., None]
    shift = 3.0 * keras.ops.image.gaussian_blur(noise, kernel_size=(7, 7), sigma=(1.0, 1.0))
    field = np.repeat(to_numpy(shift), 2, -1)  # Keras draws one for x and, by the same seed, the same for y
    maps = np.eye(3, dtype="float32")[None].repeat(2, 0)
    tensors = [keras.ops.convert_to_tensor(x) for x in (IMAGES, maps, field)]
    ours = resample.warp(*tensors[:2], **options, displacement=tensors[2])
    away = np.abs(to_numpy(ours) - to_numpy(theirs)).max(-1) > TOLERANCE
    before = (np.arange(WIDTH) + field[..., 0] < 0) | (np.arange(HEIGHT)[:, None] + field[..., 1] < 0)
    assert 10 < before.sum() < 100
    assert not away[~before].any()
    # Before the first row and column Keras mirrors at the pixels' centres, behind the last ones at the border.
    assert away.any() if fill_mode == "reflect" else not away.any()


def test_elastic_reads_inner_pixels_as_keras_elastic():
    places = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).astype("float32")[None].repeat(2, 0)
    both = np.concatenate([IMAGES, places], -1)  # all channels are displaced alike: the last two show by how much
    options = {"alpha": 1.5, "sigma": 1.0, "fill_mode": "constant", "fill_value": -1e4, "seed": 5}
    theirs = to_numpy(keras.ops.image.elastic_transform(both, **options))
    inside = (theirs >= 0).all(-1)
    field = np.where(inside[..., None], theirs[..., 3:] - places, 0.0).astype("float32")
    maps = np.eye(3, dtype="float32")[None].repeat(2, 0)
    tensors = [keras.ops.convert_to_tensor(x) for x in (IMAGES, maps, field)]
    ours = to_numpy(resample.warp(*tensors[:2], displacement=tensors[2]))
    assert inside.sum() > 100
    assert np.abs(field).max() > 0.5
    np.testing.assert_allclose(ours[inside], theirs[inside][:, :3], atol=TOLERANCE)


def test_elastic_moves_pixels_as_far_as_keras_elastic():
    """The standard deviation of the field, far from the border, by the coordinates that an image of them shows."""
    side = 64
    ramps = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).astype("float32")[None].repeat(4, 0)
    options = {"factor": (1, 1), "scale": (0.4, 0.4), "value_range": (0, side), "fill_mode": "nearest"}
    ours, theirs = (library.RandomElasticTransform(**options, seed=3) for library in (knl, keras.layers))
    moved = [to_numpy(layer(ramps, training=True)) - ramps for layer in (ours, theirs)]
    across, down = (field[:, 12:-12, 12:-12].reshape(-1, 2).T for field in moved)
    assert np.std(across) == pytest.approx(np.std(down), rel=0.1)
    assert abs(np.corrcoef(across)[0, 1]) < 0.2
    if BACKEND != "torch":  # where this fails, Keras draws two fields: remove the row of docs/differences.md
        np.testing.assert_allclose(down[0], down[1], atol=1e-3)


@pytest.mark.parametrize("mode", ["horizontal", "vertical"])
def test_flips_are_keras_flips(mode):
    flipped = to_numpy(knl.RandomFlip(mode).apply(IMAGES, np.zeros((2, 1), "float32")))
    seen = 0
    for seed in range(4):
        for number, image in enumerate(to_numpy(keras.layers.RandomFlip(mode, seed=seed)(IMAGES, training=True))):
            if not np.array_equal(image, IMAGES[number]):
                np.testing.assert_array_equal(flipped[number], image)
                seen += 1
    assert seen > 0


@pytest.mark.parametrize("name", ["RandomRotation", "RandomTranslation", "RandomZoom", "RandomShear"])
def test_defaults_are_keras_defaults(name):
    arguments = {"RandomTranslation": (0.1, 0.1)}.get(name, (0.1,))
    ours, theirs = getattr(knl, name)(*arguments), getattr(keras.layers, name)(*arguments)
    assert (ours.fill_mode, ours.interpolation, ours.fill_value) == (
        theirs.fill_mode,
        theirs.interpolation,
        theirs.fill_value,
    )


# The rows of docs/differences.md -------------------------------------------------------------------------------------


def test_wrap_is_periodic_also_where_tensorflows_kernel_is_not(only_tensorflow):
    arguments = [(0.0, 0.0), (0.29, 0.29)]
    ours, theirs = both("RandomTranslation", arguments, fill_mode="wrap")
    truth = slow_warp(IMAGES[0], reference.translation(IMAGES[0].shape, 0.0, 0.29), "bilinear", "wrap")
    np.testing.assert_allclose(ours[0], truth, atol=1e-3)
    assert np.abs(theirs[0] - truth).max() > 1.0, "Keras agrees now: take the row out of docs/differences.md"


def test_nearest_takes_ties_to_the_right_and_down():
    line = np.arange(6, dtype="float32").reshape(1, 1, 6, 1)
    half = knl.RandomTranslation(0.0, (0.25, 0.25), "nearest", "nearest")  # 1.5 pixels
    np.testing.assert_array_equal(to_numpy(half(line)).ravel(), [0, 0, 1, 2, 3, 4])


def test_contrast_of_a_number_goes_both_ways():
    images = np.repeat(IMAGES[:1] * 0.2 + 100, 64, axis=0)
    spread = images[0].std()
    ours = to_numpy(knl.RandomContrast(0.5, seed=1)(images)).std((1, 2, 3)) / spread
    assert ours.min() < 0.75
    assert ours.max() > 1.25
    theirs = to_numpy(keras.layers.RandomContrast(0.5, seed=1)(images, training=True)).std((1, 2, 3)) / spread
    assert theirs.min() > 0.99, "Keras draws below 1 now: take the row out of docs/differences.md"


def outcomes(flipped, image):
    """How often an image came out as it was, flipped across, flipped down, and both."""
    cases = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    return [sum(np.array_equal(out, case) for out in flipped) for case in cases]


def test_flips_in_two_directions_are_two_coins():
    images = np.repeat(IMAGES[:1], 64, axis=0)
    assert all(n > 5 for n in outcomes(to_numpy(knl.RandomFlip(seed=1)(images)), IMAGES[0]))
    theirs = outcomes(to_numpy(keras.layers.RandomFlip(seed=1)(images, training=True)), IMAGES[0])
    assert theirs[1] == theirs[2] == 0, "Keras flips in one direction now: take the row out of docs/differences.md"
    assert theirs[0] + theirs[3] == 64


def test_integers_come_out_as_floats_and_saturate():
    image = np.full((1, 2, 2, 1), 250, "uint8")
    out = to_numpy(knl.RandomBrightness((0.2, 0.2))(image))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, 255.0)


def test_a_layer_in_a_model_that_is_not_training_is_off():
    model = keras.Sequential([keras.Input((HEIGHT, WIDTH, 3)), knl.RandomRotation(0.5)])
    np.testing.assert_array_equal(to_numpy(model(IMAGES)), IMAGES)


def test_factors_outside_their_range_are_refused():
    assert keras.layers.RandomRotation((-5, 0.2)) is not None
    with pytest.raises(ValueError, match=r"\(-5, 0.2\)"):
        knl.RandomRotation((-5, 0.2))
