"""The warp against SciPy and against a twin in plain Python, on every fill mode, interpolation and odd size."""

import functools

import numpy as np
import pytest
from conftest import BACKEND
from reference.warp import warp as slow_warp
from scipy import ndimage

from keras_norm_layers.kernels import backend, resample
from keras_norm_layers.kernels.backend import to_numpy

# Ours -> SciPy's. Our constant fill is mixed in across the border, as SciPy's "grid-constant" does (its "constant"
# cuts hard
# at the centres of the outer pixels); our "wrap" is periodic, SciPy's "grid-wrap" (its "wrap" overlaps the two edge
# pixels).
SCIPY_MODE = {"constant": "grid-constant", "nearest": "nearest", "reflect": "reflect", "wrap": "grid-wrap"}
SIZES = [(1, 1), (1, 7), (6, 1), (2, 2), (5, 8), (8, 5), (7, 7), (16, 9)]
SETS = 16  # random parameter sets a size: 128 for each interpolation and fill mode
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


@functools.cache
def program(interpolation, mode, fill):
    xp = backend.namespace(None)
    return xp.compiled(lambda images, inverse: resample.warp(images, inverse, interpolation, mode, fill))


def warped(images, inverses, interpolation, mode, fill=0.0, compiled=False):
    xp = backend.namespace(None)
    images, inverses = xp.asarray(images), xp.asarray(inverses)
    if compiled:
        return to_numpy(program(interpolation, mode, fill)(images, inverses))
    return to_numpy(resample.warp(images, inverses, interpolation, mode, fill))


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


@pytest.mark.parametrize("mode", resample.FILL_MODES)
@pytest.mark.parametrize("interpolation", resample.INTERPOLATIONS)
def test_the_twin_of_plain_python_agrees(interpolation, mode):
    """SciPy's modes have changed their meaning before: the definition written down by itself must give the same."""
    rng = np.random.default_rng(3)
    images = rng.uniform(0, 255, (SETS, 4, 6, 1)).astype("float32")
    inverses = random_inverses((4, 6), rng)
    ours = warped(images, inverses, interpolation, mode, 9.0)
    for image, inverse, result in zip(images, inverses.astype("float64"), ours):

        def pull(row, column, m=inverse):
            x, y = column - 2.5, row - 1.5
            return m[1, 0] * x + m[1, 1] * y + m[1, 2] + 1.5, m[0, 0] * x + m[0, 1] * y + m[0, 2] + 2.5

        np.testing.assert_allclose(result, slow_warp(image, pull, interpolation, mode, 9.0), atol=TOLERANCE)


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
    if BACKEND == "torch" and interpolation == "bilinear" and mode != "wrap":
        for inverse, truth in wanted:  # torch's own eager kernel: within its rounding
            np.testing.assert_allclose(warped(image, inverse, interpolation, mode), truth, atol=1e-5)
        return
    for inverse, truth in wanted:
        np.testing.assert_array_equal(warped(image, inverse, interpolation, mode, compiled=True), truth)


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
