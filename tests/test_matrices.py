"""3x3 maps: composition in list order, inverses, the meaning of each primitive; by random numbers against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.kernels import backend, matrices
from keras_norm_layers.kernels.backend import to_numpy

NUMBERS = st.floats(-3, 3, width=32)
SIZES = st.one_of(st.floats(0.25, 4, width=32), st.floats(-4, -0.25, width=32))


def tensor(*values):
    return backend.namespace(None).asarray(np.array(values, "float32"))


def point(matrix, x, y):
    """Where the map of the first image takes a point."""
    return (to_numpy(matrix)[0] @ np.array([x, y, 1.0]))[:2]


def test_translate_goes_right_and_down():
    np.testing.assert_allclose(point(matrices.translate(tensor(2.0), tensor(-3.0)), 1, 1), [3, -2])


def test_rotate_is_counter_clockwise_on_the_screen():
    np.testing.assert_allclose(point(matrices.rotate(tensor(np.pi / 2)), 1, 0), [0, -1], atol=1e-6)


def test_scale_and_shear():
    np.testing.assert_allclose(point(matrices.scale(tensor(2.0), tensor(3.0)), 1, 1), [2, 3])
    np.testing.assert_allclose(point(matrices.shear(tensor(0.5), tensor(0.25)), 2, 4), [4, 4.5])


def test_about_keeps_its_point():
    turned = matrices.about(3.0, -2.0, matrices.rotate(tensor(0.7)))
    np.testing.assert_allclose(point(turned, 3, -2), [3, -2], atol=1e-5)


def test_compose_applies_the_first_argument_first():
    both = matrices.compose(matrices.translate(tensor(1.0), tensor(0.0)), matrices.scale(tensor(2.0), tensor(2.0)))
    np.testing.assert_allclose(point(both, 0, 0), [2, 0])


@settings(max_examples=30, deadline=None)
@given(NUMBERS, NUMBERS, NUMBERS, SIZES, SIZES, st.floats(-0.5, 0.5, width=32))
def test_a_map_and_its_inverse_are_the_identity(x, y, angle, sx, sy, slant):
    forward = matrices.compose(
        matrices.translate(tensor(x), tensor(y)),
        matrices.rotate(tensor(angle)),
        matrices.scale(tensor(sx), tensor(sy)),
        matrices.shear(tensor(slant), tensor(0.0)),
    )
    inverse = to_numpy(matrices.invert(forward))[0].astype("float64")
    truth = np.linalg.inv(to_numpy(forward)[0].astype("float64"))
    np.testing.assert_allclose(inverse, truth, atol=1e-5 * max(1.0, np.abs(truth).max()))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_compose_is_the_matrix_product_of_each_image(seed):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(3, 4, 3, 3)).astype("float32")
    ours = to_numpy(matrices.compose(*(tensor(*m) for m in maps)))
    np.testing.assert_allclose(ours, maps[2].astype("float64") @ maps[1] @ maps[0], atol=1e-5)


@pytest.mark.parametrize("signs", [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
def test_the_inverse_of_a_flip_is_exact(signs):
    flip = matrices.scale(tensor(signs[0]), tensor(signs[1]))
    np.testing.assert_array_equal(to_numpy(matrices.invert(flip)), to_numpy(flip))
