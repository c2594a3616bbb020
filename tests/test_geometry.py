"""Crops, quarter turns, affine maps, perspectives: against keras.layers, SciPy and scikit-image."""

import keras
import numpy as np
import pytest
import scipy.ndimage
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

pytestmark = pytest.mark.usefixtures("uncompiled")
TOLERANCE = 1e-4 * 255
HEIGHT, WIDTH = 13, 18
IMAGES = np.random.default_rng(4).uniform(0, 255, (3, HEIGHT, WIDTH, 3)).astype("float32")
SQUARE = np.random.default_rng(5).integers(0, 256, (16, 9, 9, 2)).astype("uint8")


def drawn(layer, images, **parameters):
    """The draw that gives these parameters, all of which must be uniform."""
    layer.build(images.shape)
    rows = []
    for name, spec in layer.specs().items():
        value = np.asarray(parameters[name], "float64")
        span = getattr(spec, "high", 1.0) - getattr(spec, "low", 0.0)
        rows.append((value - getattr(spec, "low", 0.0)) / (span or 1.0) + np.zeros(len(images)))
    return np.stack(rows, 1).astype("float32")


# Quarter turns ------------------------------------------------------------------------------------------------------


def test_quarter_turns_are_numpys_to_the_last_bit_and_all_four_occur():
    out = to_numpy(knl.RandomRot90(seed=1)(SQUARE))
    turns = [next(k for k in range(4) if np.array_equal(np.rot90(image, k), o)) for image, o in zip(SQUARE, out)]
    assert set(turns) == {0, 1, 2, 3}


def test_half_turns_of_images_that_are_not_square():
    images = np.repeat(IMAGES[:1], 16, 0)
    out = to_numpy(knl.RandomRot90((0, 2), seed=2)(images))
    cases = [np.array_equal(image, IMAGES[0]) for image in out], [np.array_equal(i, IMAGES[0, ::-1, ::-1]) for i in out]
    assert all(a != b for a, b in zip(*cases))
    assert all(map(any, cases))


def test_quarter_turns_of_images_that_are_not_square_are_an_error():
    with pytest.raises(ValueError, match=r"13 x 18 pixels are not square.*turns=\(0, 2\)"):
        knl.RandomRot90()(IMAGES)


# Crops --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (13, 6), (1, 1), (13, 18)])
def test_a_crop_is_a_window_of_the_image_at_a_place_of_its_own(size):
    height, width = size
    images = np.repeat(IMAGES[:1], 40, 0)
    out = to_numpy(knl.RandomCrop(height, width, seed=3)(images))
    places = set()
    for window in out:
        found = [
            (top, left)
            for top in range(HEIGHT - height + 1)
            for left in range(WIDTH - width + 1)
            if np.array_equal(IMAGES[0, top : top + height, left : left + width], window)
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) == 1 if size == (HEIGHT, WIDTH) else len(places) > 5
    tops, lefts = {top for top, _ in places}, {left for _, left in places}
    if size == (8, 8):
        assert tops == set(range(6))
        assert {0, WIDTH - width} <= lefts


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (13, 6), (4, 5), (1, 1)])
def test_at_inference_a_crop_is_the_centre_crop_of_keras(size):
    ours = to_numpy(knl.RandomCrop(*size)(IMAGES, training=False))
    np.testing.assert_array_equal(ours, to_numpy(keras.layers.CenterCrop(*size)(IMAGES)))
    model = keras.Sequential([keras.Input((None, None, 3)), knl.RandomCrop(*size)])
    assert model.output_shape == (None, *size, 3)
    np.testing.assert_allclose(to_numpy(model(IMAGES)), ours, atol=1e-3)


def test_too_small_images_are_enlarged_about_their_centre():
    """The largest part with the window's aspect ratio: 13 x 15 of 13 x 18, from the column (18 - 15) // 2 on."""
    ours = to_numpy(knl.RandomCrop(26, 30)(IMAGES))
    theirs = to_numpy(keras.ops.image.resize(IMAGES[:, :, 1:16], (26, 30)))
    np.testing.assert_allclose(ours[:, :, 2:-2], theirs[:, :, 2:-2], atol=TOLERANCE)
    np.testing.assert_allclose(to_numpy(knl.RandomCrop(26, 30)(IMAGES, training=False)), ours, atol=1e-3)


def test_keras_cuts_one_place_a_batch_and_resizes_what_is_too_small_out_of_shape():
    images = np.repeat(IMAGES[:1], 8, 0)
    theirs = to_numpy(keras.layers.RandomCrop(5, 7, seed=1)(images, training=True))
    assert np.ptp(theirs, axis=0).max() == 0, "Keras draws an image now: take the row out of docs/differences.md"
    assert np.ptp(to_numpy(knl.RandomCrop(5, 7, seed=1)(images)), axis=0).max() > 0
    slanted = to_numpy(keras.layers.RandomCrop(26, 30)(IMAGES, training=True))
    part = to_numpy(keras.ops.image.resize(IMAGES[:, :, 1:16], (26, 30)))
    assert np.abs(slanted - part).max() > 1.0, "Keras keeps the aspect now: take the row out of docs/differences.md"


def test_channels_first_and_masks_without_channels():
    layer = knl.RandomCrop(5, 7, seed=1, data_format="channels_first")
    images = np.moveaxis(IMAGES, -1, 1)
    masks = IMAGES[..., 0].astype("int32")
    out = layer({"images": images, "segmentation_masks": masks})
    assert tuple(out["images"].shape) == (3, 3, 5, 7)
    np.testing.assert_array_equal(to_numpy(out["segmentation_masks"]), to_numpy(out["images"])[:, 0].astype("int32"))


def test_resized_crops_keep_area_and_ratio_in_their_ranges():
    """On an image that is its own coordinates: how much of it each output shows."""
    y, x = np.indices((60, 80)).astype("float32")
    images = np.repeat(np.stack([x, y], -1)[None], 200, 0)
    out = to_numpy(knl.RandomResizedCrop(20, 20, (0.1, 0.5), (0.5, 2.0), seed=4)(images))
    inner = out[:, 5:15, 5:15]
    wide = (inner[:, 5, -1, 0] - inner[:, 5, 0, 0]) * 20 / 9
    high = (inner[:, -1, 5, 1] - inner[:, 0, 5, 1]) * 20 / 9
    area, ratio = wide * high / 4800, wide / high
    assert 0.09 < area.min() < 0.2
    assert 0.4 < area.max() < 0.501
    assert 0.499 < ratio.min() < 0.6
    assert 1.7 < ratio.max() < 2.001
    assert abs(np.log(ratio).mean()) < 0.1


def test_at_inference_a_resized_crop_is_the_largest_centred_window():
    images = np.random.default_rng(0).uniform(0, 255, (2, 40, 60, 3)).astype("float32")
    ours = to_numpy(knl.RandomResizedCrop(20, 20)(images, training=False))
    np.testing.assert_allclose(ours, to_numpy(keras.ops.image.resize(images[:, :, 10:50], (20, 20))), atol=TOLERANCE)
    smooth = to_numpy(knl.RandomResizedCrop(20, 20, antialias=True)(images, training=False))
    assert smooth.std() < 0.8 * images.std()


def test_antialiasing_needs_to_know_the_size():
    layer = knl.RandomResizedCrop(4, 4, antialias=True)
    with pytest.raises(ValueError, match="known height and width"):
        keras.Sequential([keras.Input((None, None, 3)), layer])


def test_antialiasing_averages_what_a_pixel_covers():
    noise = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 1)).astype("float32")
    for make, most in (
        (lambda **o: knl.RandomResizedCrop(15, 15, (1.0, 1.0), (1.0, 1.0), **o), 0.5),
        (lambda **o: knl.RandomZoom((0.9, 0.9), **o), 0.9),
        (lambda **o: knl.RandomRotation((0.11, 0.11), expand="fit", **o), 0.98),
    ):
        sharp, smooth = (to_numpy(make(antialias=antialias)(noise)).std() for antialias in (False, True))
        assert smooth < most * sharp


# Rotation that fits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [-0.4, -0.13, 0.0, 0.05, 0.25, 0.31])
@pytest.mark.parametrize("shape", [(13, 18), (18, 13), (16, 16)])
def test_a_rotation_cropped_has_no_corner_and_no_larger_rectangle_has_none(turns, shape):
    images = np.ones((1, *shape, 1), "float32")
    cropped = to_numpy(knl.RandomRotation((turns, turns), "constant", fill_value=-1e5, expand="crop")(images))
    assert cropped.min() > 0.0
    larger = knl.Augment(
        [
            knl.RandomRotation((turns, turns), "constant", fill_value=-1e5, expand="crop"),
            knl.RandomZoom((0.1, 0.1), fill_mode="constant", fill_value=-1e5),
        ]
    )
    assert to_numpy(larger(images)).min() < 0.0


@pytest.mark.parametrize("turns", [-0.4, 0.13, 0.25])
def test_a_rotation_that_fits_shows_all_of_the_image(turns):
    images = np.zeros((1, 21, 31, 1), "float32")
    layer = knl.RandomRotation((turns, turns), "constant", expand="fit")
    corners = np.array([[[0, 0], [30, 0], [0, 20], [30, 20]]], "float32")
    moved = to_numpy(layer({"images": images, "keypoints": corners})["keypoints"])[0]
    assert moved.min() > -0.5
    assert (moved < [30.5, 20.5]).all()
    reached = np.abs(moved - [15, 10]).max(0) / [15.5, 10.5]
    assert reached.max() > 0.9  # and no smaller than it must be


# Affine maps --------------------------------------------------------------------------------------------------------


def test_an_affine_map_is_its_four_parts():
    fixed = {"fill_mode": "reflect"}
    one = knl.RandomAffine((0.05, 0.05), (0.1, 0.1), (-0.2, -0.2), (0.2, 0.2), (-0.1, -0.1), **fixed)
    parts = knl.Augment(
        [
            knl.RandomZoom((0.2, 0.2), (-0.1, -0.1)),
            knl.RandomRotation((0.05, 0.05)),
            knl.RandomTranslation((0.1, 0.1), (-0.2, -0.2)),
        ]
    )
    np.testing.assert_allclose(to_numpy(one(IMAGES)), to_numpy(parts(IMAGES)), atol=2e-2)


def generator_matrix(theta, tx, ty, shear, zx, zy, height, width):
    """The map of ImageDataGenerator from output to input on (row, column), as D1 and its own code define it."""
    theta, shear = np.deg2rad(theta), np.deg2rad(shear)
    turn = np.array([[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]])
    shift = np.array([[1, 0, tx], [0, 1, ty], [0, 0, 1]])
    slant = np.array([[1, -np.sin(shear), 0], [0, np.cos(shear), 0], [0, 0, 1]])
    size = np.diag([zx, zy, 1])
    middle = np.array([[1, 0, height / 2 - 0.5], [0, 1, width / 2 - 0.5], [0, 0, 1]])
    return middle @ turn @ shift @ slant @ size @ np.linalg.inv(middle)


def test_the_affine_map_of_image_data_generator():
    rng = np.random.default_rng(0)
    number = 24
    images = rng.uniform(0, 255, (number, 14, 19, 2)).astype("float32")
    layer = knl.RandomAffine(
        rotation_range=40,
        width_shift_range=4.0,
        height_shift_range=0.2,
        shear_range=25,
        zoom_range=(0.6, 1.5),
        fill_mode="nearest",
    )
    values = {name: rng.uniform(spec.low, spec.high, number) for name, spec in layer.specs().items()}
    out = to_numpy(layer.apply(images, drawn(layer, images, **values)))
    for i in range(number):
        matrix = generator_matrix(
            values["angle"][i],
            values["down"][i] * 14,
            values["right"][i],
            values["shear"][i],
            1 + values["zoom_height"][i],
            1 + values["zoom_width"][i],
            14,
            19,
        )
        for channel in range(2):
            truth = scipy.ndimage.affine_transform(
                images[i, ..., channel].astype("float64"), matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest"
            )
            np.testing.assert_allclose(out[i, ..., channel], truth, atol=5e-3)


# Perspective --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("shape", [(13, 18), (16, 11)])
def test_a_perspective_is_keras_perspective(shape, interpolation):
    height, width = shape
    images = np.random.default_rng(1).uniform(0, 255, (4, height, width, 3)).astype("float32")
    factors = np.random.default_rng(5).uniform(-0.2, 0.2, (4, 4, 2)).astype("float32")
    start = np.array([[[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]] * 4, "float32")
    theirs = keras.ops.image.perspective_transform(
        images, start, start + start * factors, interpolation=interpolation, fill_value=9.0
    )
    layer = knl.RandomPerspective((1.0, 1.0), 0.4, interpolation, 9.0)
    u = drawn(layer, images, on=0.5, x1=factors[:, 1, 0], x2=factors[:, 3, 0], y2=factors[:, 3, 1], y3=factors[:, 2, 1])
    off = np.abs(to_numpy(layer.apply(images, u)) - to_numpy(theirs))
    # Two pixels may be equally near, for the last bit of a coordinate.
    assert (off > TOLERANCE).mean() < (0.0 if interpolation == "bilinear" else 2e-3) + 1e-9


def test_a_perspective_with_a_horizon_in_the_picture_is_finite():
    layer = knl.RandomPerspective((1.0, 1.0), 1.0, fill_value=-7.0)
    values = {"on": 0.5, "x1": 0.499, "x2": -0.499, "y2": -0.499, "y3": 0.499}
    out = to_numpy(layer.apply(IMAGES, drawn(layer, IMAGES, **values)))
    assert np.isfinite(out).all()
    assert out.min() >= -7.001
    assert (out == -7).mean() > 0.05


def test_the_probability_of_a_perspective():
    images = np.repeat(IMAGES[:1], 300, 0)
    out = to_numpy(knl.RandomPerspective(0.6, 0.5, seed=2)(images))
    changed = np.abs(out - IMAGES[:1]).max((1, 2, 3)) > 1e-2
    assert abs(changed.mean() - 0.3) < 0.1  # a probability from [0, 0.6)


# Two sizes, clips, several images -----------------------------------------------------------------------------------


def test_frames_of_a_clip_share_a_draw_and_clips_do_not():
    clips = np.repeat(IMAGES[:1, None], 4, 0).repeat(5, 1)  # 4 clips of 5 equal frames
    layer = knl.Augment([knl.RandomRotation(0.2), knl.RandomBrightness(0.3), knl.RandomFlip()], seed=3)
    out = to_numpy(layer(clips))
    assert out.shape == clips.shape
    for clip in out:
        np.testing.assert_allclose(clip, np.repeat(clip[:1], 5, 0), atol=1e-3)
    assert len({float(clip.mean()) for clip in out}) == 4
    masks = (clips[..., 0] > 99).astype("uint8")
    keypoints = np.ones((4, 5, 2, 2), "float32")
    both = layer({"images": clips, "segmentation_masks": masks, "keypoints": keypoints})
    assert tuple(both["segmentation_masks"].shape) == masks.shape
    assert tuple(both["keypoints"].shape) == keypoints.shape
    u = layer.draw(4)
    flat = to_numpy(layer.apply(clips[:, 0], u))
    np.testing.assert_allclose(to_numpy(layer.apply(clips, u))[:, 3], flat, atol=1e-3)


def test_additional_targets_share_the_draw():
    kinds = {"right": "images", "depth": "segmentation_masks", "joints": "keypoints", "half": "images"}
    layer = knl.Augment(
        [knl.RandomRotation(0.2), knl.RandomBrightness(0.2), knl.RandomTranslation(0.2, 0.2)],
        seed=1,
        additional_targets=kinds,
        mask_interpolation="bilinear",
    )
    depth = IMAGES[..., 0] * 3.7
    points = np.full((3, 2, 2), 4.0, "float32")
    half = np.ascontiguousarray(IMAGES[:, ::2, ::2])
    data = {
        "images": IMAGES,
        "right": IMAGES * 0.5,
        "depth": depth,
        "keypoints": points,
        "joints": points,
        "half": half,
    }
    layer.build(IMAGES.shape)
    u = layer.draw(3)
    out = {name: to_numpy(value) for name, value in layer.apply(data, u).items()}
    np.testing.assert_array_equal(out["right"], to_numpy(layer.apply(IMAGES * 0.5, u)))
    np.testing.assert_array_equal(out["half"], to_numpy(layer.apply(half, u)))
    np.testing.assert_array_equal(out["joints"], out["keypoints"])
    assert out["depth"].dtype == np.float32
    moves = knl.Augment([knl.RandomRotation(0.2), knl.RandomTranslation(0.2, 0.2)])
    moves.build(depth[..., None].shape)
    np.testing.assert_allclose(
        out["depth"], to_numpy(moves.apply(depth[..., None], to_numpy(u)[:, [0, 2, 3]]))[..., 0], atol=1e-2
    )


def test_the_inverse_brings_pixels_and_masks_back():
    y, x = np.indices((40, 50)).astype("float32")
    images = np.repeat(np.stack([np.sin(x / 9), np.cos(y / 8)], -1)[None], 5, 0) * 100
    masks = np.repeat((x // 10 + 5 * (y // 10))[None], 5, 0).astype("uint8")
    layer = knl.Augment(
        [knl.RandomFlip(), knl.RandomRotation(0.1), knl.RandomZoom(0.2), knl.RandomCrop(32, 40)], mask_fill_value=255
    )
    layer.build(images.shape)
    u = layer.draw(5)
    moved = layer.apply({"images": images, "segmentation_masks": masks}, u)
    assert tuple(moved["images"].shape) == (5, 32, 40, 2)
    back = {name: to_numpy(value) for name, value in layer.inverse(moved, u, size=(40, 50)).items()}
    assert back["images"].shape == images.shape
    known = to_numpy(layer.inverse(np.ones((5, 32, 40, 1), "float32"), u, size=(40, 50)))[..., 0] > 0.999
    assert known.mean() > 0.3
    assert np.abs(back["images"] - images)[known].mean() < 2.0
    agreed = (back["segmentation_masks"] == masks)[known]
    assert agreed.mean() > 0.9
    assert set(np.unique(back["segmentation_masks"])) <= {*np.unique(masks), 255}


def test_the_inverse_refuses_what_it_cannot_move_back():
    layer = knl.RandomRotation(0.1)
    layer.build(IMAGES.shape)
    u = layer.draw(3)
    with pytest.raises(ValueError, match="images and masks back.*keypoints"):
        layer.inverse({"images": IMAGES, "keypoints": np.ones((3, 1, 2))}, u)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about shapes that only a TensorFlow graph leaves unknown")
def test_crops_of_unknown_size_in_a_graph():
    import tensorflow as tf

    layer = knl.Augment([knl.RandomCrop(8, 9), knl.RandomRotation(0.1)], seed=1)
    layer.build((None, None, None, 3))
    graph = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec((None, None, None, 3))])
    for shape in ((2, 13, 18, 3), (3, 7, 20, 3)):
        assert graph(np.ones(shape, "float32")).shape == (shape[0], 8, 9, 3)
