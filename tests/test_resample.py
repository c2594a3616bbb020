"""The warp against SciPy and against a twin in plain Python, on every fill mode, interpolation and odd size."""

import functools
import re

import keras
import numpy as np
import pytest
from conftest import BACKEND
from PIL import Image
from reference.warp import pulled
from reference.warp import warp as slow_warp
from scipy import ndimage
from skimage.transform import warp as skimage_warp

from keras_norm_layers.kernels import backend, resample
from keras_norm_layers.kernels.backend import to_numpy

# Ours -> SciPy's. Our constant fill is mixed in across the border, as SciPy's "grid-constant" does (its "constant"
# cuts hard
# at the centres of the outer pixels); our "wrap" is periodic, SciPy's "grid-wrap" (its "wrap" overlaps the two edge
# pixels).
SCIPY_MODE = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}
SKIMAGE_MODE = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}
ORDER = {"nearest": 0, "bilinear": 1, "bicubic": 3}  # scikit-image's cubic is Keys' with a = -0.5; SciPy's is a spline
SIZES = [(1, 1), (1, 7), (6, 1), (2, 2), (5, 8), (16, 9)]
SETS = 40  # random parameter sets a size: 240 for each interpolation and fill mode
# Grey levels of 0..255: float32 coordinates. It grows with the side: 2e-3 at 32 pixels, on every backend.
TOLERANCE = 1e-3


def random_inverses(size, rng):
    """Random affine maps (turned, scaled, slanted, mirrored, moved by up to 1.5 sides), float32 (SETS, 3, 3)."""
    height, width = size
    maps = np.zeros((SETS, 3, 3))
    for number in range(SETS):
        angle = rng.uniform(-np.pi, np.pi)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        slant = np.array([[1.0, rng.uniform(-0.5, 0.5)], [0.0, 1.0]])
        maps[number, :2, :2] = turn @ slant @ np.diag(rng.uniform(0.4, 1.8, 2) * rng.choice([-1, 1], 2))
        maps[number, :2, 2] = rng.uniform(-1.5, 1.5, 2) * (width, height)
        maps[number, 2, 2] = 1.0
    return maps.astype("float32")


def scipy_warp(image, inverse, order, mode, fill):
    """One image through one map on centred (x, y), by SciPy in float64, which counts (row, column) from the corner."""
    swapped = inverse.astype("float64")[[1, 0]][:, [1, 0]]
    shift = inverse.astype("float64")[[1, 0], 2]
    middle = (np.array(image.shape[:2]) - 1) / 2
    offset = middle + shift - swapped @ middle
    planes = [
        ndimage.affine_transform(
            plane.astype("float64"), swapped, offset, order=order, mode=SCIPY_MODE[mode], cval=fill
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    place = np.einsum("ij,jhw->ihw", swapped, np.stack([rows, columns])) + offset[:, None, None]
    return np.stack(planes, -1), place


@pytest.fixture
def light(request):
    """JAX has to compile everything: but for one size without most optimizations."""
    if BACKEND == "jax" and request.node.callspec.params.get("size") != (5, 8):
        request.getfixturevalue("uncompiled")


@functools.cache
def program(*options, **more):
    def run(data, inverse, displacement):
        return resample.warp(data["images"], inverse, *options, displacement=displacement, **more)

    return backend.namespace(None).compiled(run)


def warped(images, inverses, interpolation, mode, fill=0.0, compiled=BACKEND == "jax", displacement=None, **more):
    """``resample.warp`` on NumPy arrays; compiled for JAX, which would compile each operation by itself otherwise."""
    xp = backend.namespace(None)
    images, inverses = xp.asarray(images), xp.asarray(inverses)
    displacement = None if displacement is None else xp.asarray(displacement)
    if compiled:
        return to_numpy(program(interpolation, mode, fill, **more)({"images": images}, inverses, displacement))
    return to_numpy(resample.warp(images, inverses, interpolation, mode, fill, displacement=displacement, **more))


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bilinear_is_scipys_order_1(size, mode):
    rng = np.random.default_rng(SIZES.index(size))
    images = rng.uniform(0, 255, (SETS, *size, 2)).astype("float32")
    inverses = random_inverses(size, rng)
    compiled = BACKEND == "jax" or size == (5, 8)
    ours = warped(images, inverses, "bilinear", mode, 17.5, compiled=compiled)
    truth = np.stack([scipy_warp(*pair, 1, mode, 17.5)[0] for pair in zip(images, inverses)])
    assert np.abs(ours - truth).max() < TOLERANCE


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nearest_is_scipys_order_0_away_from_ties(size, mode):
    rng = np.random.default_rng(SIZES.index(size))
    images = rng.integers(0, 256, (SETS, *size, 2)).astype("uint8")
    inverses = random_inverses(size, rng)
    compiled = BACKEND == "jax" or size == (5, 8)
    ours = warped(images, inverses, "nearest", mode, 17.0, compiled=compiled)
    assert ours.dtype == np.uint8
    for image, inverse, result in zip(images, inverses, ours):
        truth, place = scipy_warp(image, inverse, 0, mode, 17.0)
        clear = (np.abs(place - np.floor(place) - 0.5) > 1e-4).all(0)
        assert clear.mean() > 0.9 or clear.size < 9
        np.testing.assert_array_equal(result[clear], truth[clear])


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_the_twin_of_plain_python_agrees(interpolation, mode):
    """SciPy's modes have changed their meaning before: the definition written down by itself must give the same."""
    rng = np.random.default_rng(3)
    images = rng.uniform(0, 255, (SETS, 4, 6, 1)).astype("float32")[:10]
    inverses = random_inverses((4, 6), rng)[:10]
    ours = warped(images, inverses, interpolation, mode, 9.0)
    for image, inverse, result in zip(images, inverses, ours):
        truth = slow_warp(image, pulled(inverse, (4, 6)), interpolation, mode, 9.0)
        np.testing.assert_allclose(result, truth, atol=TOLERANCE)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_whole_pixel_maps_copy_bit_for_bit(interpolation, mode):
    """Flips, quarter turns and shifts by whole pixels copy values; numbers that no float sum reproduces show it."""
    rng = np.random.default_rng(5)
    image = rng.uniform(0, 1, (1, 6, 6, 2)).astype("float32")
    flip = np.diag([-1.0, 1.0, 1.0]).astype("float32")[None]
    turn = np.array([[[0, 1, 0], [-1, 0, 0], [0, 0, 1]]], "float32")
    shift = np.array([[[1, 0, 2], [0, 1, -1], [0, 0, 1]]], "float32")
    pad = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "wrap": "wrap"}[mode]
    moved = np.pad(image, ((0, 0), (1, 1), (2, 2), (0, 0)), pad)[:, 0:6, 4:10]
    wanted = [(flip, image[:, :, ::-1]), (turn, np.rot90(image, -1, (1, 2))), (shift, moved)]
    if BACKEND == "torch" and interpolation != "nearest" and mode != "wrap":
        for inverse, truth in wanted:  # torch's own eager kernel: within its rounding
            np.testing.assert_allclose(warped(image, inverse, interpolation, mode), truth, atol=1e-5)
        return
    for inverse, truth in wanted:
        np.testing.assert_array_equal(warped(image, inverse, interpolation, mode, compiled=True), truth)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_far_away_and_close_to_the_seam_every_index_is_inside(interpolation, mode):
    """Coordinates a rounding below a multiple of the size, and a million sizes away, still read a pixel of the
    image.
    """
    sizes = [3, 7, 10, 15, 127]
    for size in sizes:
        steps = np.array([-1e6, -129.0, -17.0, -3.0, -1.0, 0.0, 1.0, 3.0, 17.0, 129.0, 1e6]) * size
        middle = (size - 1) / 2
        places = np.concatenate(
            [np.nextafter(steps.astype("float32"), side, dtype="float32") for side in (-np.inf, np.inf)]
        )
        inverses = np.tile(np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]], "float32"), (len(places), 1, 1))
        inverses[:, 0, 2] = places - np.float32(middle)
        images = np.full((len(places), 1, size, 1), 7.0, "float32")
        out = warped(images, inverses, interpolation, mode, 7.0, compiled=BACKEND == "jax" or size in (7, 127))
        np.testing.assert_allclose(out, 7.0, atol=1e-4)


@pytest.mark.parametrize("fill", [-3.5, 0.25, 300.0])
def test_a_fraction_as_fill_is_kept_on_float_images(fill):
    images = np.ones((1, 4, 4, 1), "float32")
    away = np.array([[[1, 0, 100], [0, 1, 0], [0, 0, 1]]], "float32")
    for interpolation in resample.INTERPOLATIONS:
        np.testing.assert_allclose(warped(images, away, interpolation, "constant", fill), fill, rtol=1e-6)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16", "float32"])
@pytest.mark.parametrize("mode", resample.FILL_MODES)
def test_nearest_keeps_the_dtype(dtype, mode):
    images = (np.arange(20).reshape(1, 4, 5, 1) % 2).astype(dtype)
    shift = np.array([[[1, 0, 2], [0, 1, 0], [0, 0, 1]]], "float32")
    xp = backend.namespace(None)
    given = xp.asarray(images)
    out = resample.warp(given, xp.asarray(shift), "nearest", mode, 1)
    assert xp.dtype_name(out) == xp.dtype_name(given)
    if mode == "constant":
        assert to_numpy(out)[0, :, 3:].all()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_another_size_and_a_displacement_are_the_twins(interpolation, mode):
    """Both at once; the output's centre falls on the input's."""
    rng = np.random.default_rng(11)
    images = rng.uniform(0, 255, (4, 4, 7, 1)).astype("float32")
    inverses = random_inverses((4, 7), rng)[:4]
    displacement = rng.normal(0, 1.5, (4, 6, 3, 2)).astype("float32")
    ours = warped(images, inverses, interpolation, mode, 9.0, size=(6, 3), displacement=displacement)
    for image, inverse, moved, result in zip(images, inverses, displacement, ours):
        pull = pulled(inverse, (4, 7), (6, 3), moved)
        np.testing.assert_allclose(result, slow_warp(image, pull, interpolation, mode, 9.0, (6, 3)), atol=TOLERANCE)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_projective_is_scikit_images(interpolation, mode):
    """Also the third opinion on "bicubic", enlarged, so that rounded coordinates weigh little."""
    rng = np.random.default_rng(13)
    sets, size = 10, (9, 14)
    images = rng.uniform(0, 255, (sets, *size, 1)).astype("float32")
    inverses = np.tile(np.eye(3), (sets, 1, 1)) + rng.uniform(-0.3, 0.3, (sets, 3, 3))
    inverses[:, 2] = np.concatenate([rng.uniform(-0.03, 0.03, (sets, 2)), rng.uniform(0.8, 1.3, (sets, 1))], 1)
    inverses = inverses.astype("float32")
    ours = warped(images, inverses, interpolation, mode, 9.0, projective=True)
    middle = np.array([[1, 0, (size[1] - 1) / 2], [0, 1, (size[0] - 1) / 2], [0, 0, 1]])
    for image, inverse, result in zip(images.astype("float64"), inverses.astype("float64"), ours):
        options = {"order": ORDER[interpolation], "mode": SKIMAGE_MODE[mode], "cval": 9.0}
        corner = middle @ inverse @ np.linalg.inv(middle)
        truth = skimage_warp(image, corner, **options, preserve_range=True, clip=False)
        np.testing.assert_allclose(result, truth, atol=3 * TOLERANCE)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_behind_the_horizon_is_outside(interpolation):
    image = np.full((1, 8, 8, 1), 7.0, "float32")
    inverse = np.array([[[1, 0, 0], [0, 1, 0], [0, 0.5, 0.75]]], "float32")  # third coordinate 0 between rows 2 and 3
    for mode in resample.FILL_MODES:
        out = warped(image, inverse, interpolation, mode, -3.0, projective=True)
        np.testing.assert_allclose(out[0, :2], -3.0 if mode == "constant" else 7.0, rtol=1e-5)
        np.testing.assert_allclose(out[0, 4:], 7.0, rtol=1e-5)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_samples_change_nothing_where_nothing_shrinks(interpolation):
    """Turned, mirrored, moved and enlarged images are those of one sample, bit for bit where no compiler reorders."""
    rng = np.random.default_rng(17)
    images = rng.uniform(0, 255, (24, 9, 12, 3)).astype("float32")
    inverses = random_inverses((9, 12), rng)[:24]
    for inverse in inverses:
        turn, _, other = np.linalg.svd(inverse[:2, :2])
        inverse[:2, :2] = turn @ other
    inverses[:8, :2, :2] *= 0.7
    one, several = (warped(images, inverses, interpolation, "reflect", samples=k) for k in (1, 3))
    np.testing.assert_allclose(several, one, rtol=0, atol=TOLERANCE if BACKEND == "jax" else 0)


def test_samples_are_the_mean_over_what_a_pixel_covers():
    """Against the twin: offsets in the output, spread by 1 - 1 / (step of the input), on both axes by themselves."""
    rng = np.random.default_rng(19)
    image = rng.uniform(0, 255, (1, 12, 9, 1)).astype("float32")
    inverse = np.array([[[1.5, 0.5, 1.0], [-2.0, 0.6, 0.3], [0, 0, 1]]], "float32")  # x shrinks 2.5 times, y enlarges
    ours = warped(image, inverse, "bilinear", "reflect", samples=2)[0]
    truth = [
        slow_warp(image[0], pulled(inverse[0], (12, 9), offset=(across * 0.6, 0.0)), "bilinear", "reflect")
        for across in (-0.25, 0.25)
    ]
    np.testing.assert_allclose(ours, np.mean(truth, 0), atol=2 * TOLERANCE)


def test_samples_keep_a_fine_checkerboard_from_aliasing():
    """Reduced four times: k = 1 reads squares of one colour only, k = 4 gives grey, and noise as its average."""
    rows, columns = np.mgrid[:32, :48]
    board = (255.0 * ((rows + columns) % 2)).astype("float32")
    noise = np.random.default_rng(23).uniform(0, 255, (32, 48)).astype("float32")
    images = np.stack([board, noise])[..., None]
    inverses = np.tile(np.array([[4, 0, 0.5], [0, 4, 0.5], [0, 0, 1]], "float32"), (2, 1, 1))
    one, four = (warped(images, inverses, "bilinear", "wrap", size=(8, 12), samples=k)[..., 0] for k in (1, 4))
    assert np.abs(one[0] - 127.5).min() > 127
    assert np.abs(four[0] - 127.5).max() < 10
    inverses[:, :2, 2] = 0.0  # on the blocks of 4 x 4
    one, four = (warped(images, inverses, "bilinear", "wrap", size=(8, 12), samples=k)[1, ..., 0] for k in (1, 4))
    area = noise.reshape(8, 4, 12, 4).mean((1, 3))
    assert np.std(four - area) < 0.35 * np.std(one - area)
    behind = warped(images, inverses, "bilinear", "wrap", size=(8, 12), samples=4, projective=True)[1, ..., 0]
    np.testing.assert_allclose(behind, four, atol=1e-3)


def test_bicubic_is_pillows_and_keras_resize():
    """Enlarged twice, away from the border, where they leave out what lies outside. OpenCV and torch take a = -0.75."""
    image = np.random.default_rng(29).uniform(0, 255, (9, 13)).astype("float32")
    inverse = np.diag([0.5, 0.5, 1.0]).astype("float32")[None]
    ours = warped(image[None, :, :, None], inverse, "bicubic", "nearest", size=(18, 26))[0, 4:-4, 4:-4, 0]
    pillow = np.asarray(Image.fromarray(image).resize((26, 18), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours, pillow[4:-4, 4:-4], atol=TOLERANCE)
    if BACKEND != "torch":
        resized = keras.ops.image.resize(image[:, :, None], (18, 26), "bicubic", data_format="channels_last")
        np.testing.assert_allclose(ours, to_numpy(resized)[4:-4, 4:-4, 0], atol=TOLERANCE)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "bool", "float16", "bfloat16"])
def test_any_dtype_is_read_as_float32(dtype, interpolation):
    xp = backend.namespace(None)
    numbers = np.random.default_rng(31).integers(0, 2 if dtype == "bool" else 256, (2, 5, 6, 3)).astype("float32")
    inverses = random_inverses((5, 6), np.random.default_rng(32))[:2]
    out = warped(xp.cast(xp.asarray(numbers), dtype), inverses, interpolation, "reflect")
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, warped(numbers, inverses, interpolation, "reflect"), atol=1e-4)


def test_a_field_is_sampled_at_points():
    rng = np.random.default_rng(37)
    field = rng.normal(size=(3, 5, 8, 2)).astype("float32")
    x, y = (rng.uniform(-2, n + 1, (3, 20)).astype("float32") for n in (8, 5))
    xp = backend.namespace(None)
    ours = to_numpy(resample.sample(*(xp.asarray(v) for v in (field, x, y))))
    for number in range(3):
        for channel in range(2):
            plane, places = field[number, ..., channel], [y[number], x[number]]
            truth = ndimage.map_coordinates(plane.astype("float64"), places, order=1, mode="nearest")
            np.testing.assert_allclose(ours[number, :, channel], truth, atol=1e-5)


def test_sizes_that_a_graph_does_not_know(only_tensorflow):
    import tensorflow as tf

    rng = np.random.default_rng(41)
    images = rng.integers(0, 256, (2, 5, 8, 3)).astype("uint8")
    inverses = random_inverses((5, 8), rng)[:2]
    unknown = [tf.TensorSpec((None, None, None, 3), tf.uint8), tf.TensorSpec((None, 3, 3))]
    numbers = [tf.TensorSpec((), tf.int32)] * 2
    for interpolation, mode in zip(("nearest", "bilinear", "bilinear", "bicubic"), resample.FILL_MODES):

        @tf.function(input_signature=[*unknown, *numbers], autograph=False)
        def run(x, m, height, width, options=(interpolation, mode, 3)):
            return resample.warp(x, m, *options), resample.warp(x, m, *options, size=(height, width))

        for size, result in zip((None, (4, 6)), run(images, inverses, 4, 6)):
            truth = warped(images, inverses, interpolation, mode, 3, size=size)
            np.testing.assert_allclose(result, truth, atol=TOLERANCE)


@pytest.mark.skipif(BACKEND == "torch", reason="torch reads by its own kernel where it does not compile")
@pytest.mark.parametrize("mode", ["constant", "nearest", "reflect"])
def test_weights_follow_the_pixel_that_is_read_however_a_tie_is_rounded(mode, monkeypatch):
    # A program that computes a coordinate in two loops may round it in two ways: between two pixels either will do.
    xp = backend.namespace(None)
    images = np.random.default_rng(47).integers(0, 256, (2, 9, 8, 3)).astype("uint8")
    whole_pixels = np.tile(np.eye(3, dtype="float32"), (2, 1, 1))
    whole_pixels[1, :2, 2] = (2.0, -3.0)
    expected = warped(images, whole_pixels, "bilinear", mode, compiled=False)
    whole = xp.whole
    for nudge in (-1e-3, 1e-3):
        monkeypatch.setattr(xp, "whole", lambda x, plus=0, nudge=nudge: whole(x + nudge, plus))
        np.testing.assert_array_equal(warped(images, whole_pixels, "bilinear", mode, compiled=False), expected)


def optimized(function, *args):
    """What XLA made of ``function``: the text of its entry computation."""
    if BACKEND == "jax":
        import jax

        text = jax.jit(function).lower(*args).compile().as_text()
    else:
        import tensorflow as tf

        compiled = tf.function(function, jit_compile=True, autograph=False)
        text = compiled.experimental_get_compiler_ir(*args)(stage="optimized_hlo")
    return text[text.index("ENTRY") :]


@pytest.mark.skipif(BACKEND == "torch", reason="torch is not compiled by XLA")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_on_a_cpu_xla_computes_all_places_before_it_reads(interpolation, dtype):
    # In the loop that reads, LLVM would compute each place by itself: half as fast.
    xp = backend.namespace(None)
    inverses = random_inverses((64, 48), np.random.default_rng(43))[:2]
    given = (xp.asarray(np.zeros((2, 64, 48, 3), dtype)), xp.asarray(inverses))
    entry = optimized(lambda x, m: resample.warp(x, m, interpolation, "reflect"), *given)
    assert re.search(r"= s32\[2,64,48\]\S* (concatenate|fusion)\(", entry), entry
