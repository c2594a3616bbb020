"""Keypoints and boxes under known maps: formats, clipping, what has left the image."""

import numpy as np
import pytest

from keras_norm_layers.kernels import backend, matrices, points
from keras_norm_layers.kernels.backend import to_numpy

HEIGHT, WIDTH = 10.0, 16.0
# One box, x from 2 to 7 and y from 1 to 5, in every format.
SAME_BOX = {
    "xyxy": [2, 1, 7, 5],
    "yxyx": [1, 2, 5, 7],
    "xywh": [2, 1, 5, 4],
    "center_xywh": [4.5, 3, 5, 4],
    "rel_xyxy": [2 / 16, 1 / 10, 7 / 16, 5 / 10],
    "rel_yxyx": [1 / 10, 2 / 16, 5 / 10, 7 / 16],
    "rel_xywh": [2 / 16, 1 / 10, 5 / 16, 4 / 10],
    "rel_center_xywh": [4.5 / 16, 3 / 10, 5 / 16, 4 / 10],
}
MOVED = {  # 3 to the right, 2 down
    "xyxy": [5, 3, 10, 7],
    "yxyx": [3, 5, 7, 10],
    "xywh": [5, 3, 5, 4],
    "center_xywh": [7.5, 5, 5, 4],
    "rel_xyxy": [5 / 16, 3 / 10, 10 / 16, 7 / 10],
    "rel_yxyx": [3 / 10, 5 / 16, 7 / 10, 10 / 16],
    "rel_xywh": [5 / 16, 3 / 10, 5 / 16, 4 / 10],
    "rel_center_xywh": [7.5 / 16, 5 / 10, 5 / 16, 4 / 10],
}


def tensor(values, dtype="float32"):
    return backend.namespace(None).asarray(np.array(values, dtype))


def shift(x, y):
    return matrices.translate(tensor([x]), tensor([y]))


def way(forward):
    return lambda x, y: points.move(forward, x, y)


def moved_boxes(boxes, labels, forward, box_format="xyxy"):
    size = (HEIGHT, WIDTH)
    out = points.move_boxes(tensor([boxes]), tensor([labels], "int32"), way(forward), size, size, box_format)
    return to_numpy(out[0])[0], to_numpy(out[1])[0]


def test_every_format_is_in_these_tests():
    assert set(points.BOX_FORMATS) == set(SAME_BOX) == set(MOVED)


@pytest.mark.parametrize("box_format", points.BOX_FORMATS)
def test_a_shift_moves_the_box_in_each_format(box_format):
    boxes, labels = moved_boxes([SAME_BOX[box_format]], [4], shift(3.0, 2.0), box_format)
    np.testing.assert_allclose(boxes, [MOVED[box_format]], rtol=1e-5, atol=1e-6)
    assert labels.tolist() == [4]


def test_a_box_is_cut_at_the_border():
    boxes, labels = moved_boxes([[2, 1, 7, 5]], [0], shift(-4.0, 7.0))
    np.testing.assert_allclose(boxes, [[0, 8, 3, 10]], atol=1e-5)
    assert labels.tolist() == [0]


@pytest.mark.parametrize("by", [(-7.0, 0.0), (14.0, 0.0), (0.0, -5.0), (0.0, 9.0), (100.0, 100.0)])
def test_a_box_that_left_the_image_and_padding_become_minus_one(by):
    boxes, labels = moved_boxes([[2, 1, 7, 5], [-1, -1, -1, -1]], [3, -1], shift(*by))
    np.testing.assert_array_equal(boxes, -1.0)
    assert labels.tolist() == [-1, -1]


def test_a_flip_of_the_whole_image_box_is_itself():
    flip = matrices.scale(tensor([-1.0]), tensor([-1.0]))
    np.testing.assert_array_equal(moved_boxes([[0, 0, 16, 10]], [0], flip)[0], [[0, 0, 16, 10]])


def test_the_first_pixel_flips_onto_the_last():
    flip = matrices.scale(tensor([-1.0]), tensor([-1.0]))
    out = to_numpy(
        points.move_points(tensor([[[0, 0], [15, 9], [7.5, 4.5]]]), way(flip), (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    )
    np.testing.assert_array_equal(out, [[[15, 9], [0, 0], [7.5, 4.5]]])


def test_the_box_is_the_hull_of_its_moved_border():
    turn = matrices.compose(matrices.rotate(tensor([0.3])), matrices.scale(tensor([0.7]), tensor([0.6])))
    t = np.linspace(0, 1, 201)
    border = np.concatenate(
        [np.stack([2 + 5 * t, 0 * t + y], 1) for y in (1, 5)] + [np.stack([0 * t + x, 1 + 4 * t], 1) for x in (2, 7)]
    )
    # A keypoint at a pixel's centre has whole coordinates, a box's edge lies half a pixel off: points on edges shift
    # by 1/2.
    moved = to_numpy(points.move_points(tensor([border - 0.5]), way(turn), (HEIGHT, WIDTH), (HEIGHT, WIDTH)))[0] + 0.5
    np.testing.assert_allclose(moved_boxes([[2, 1, 7, 5]], [0], turn)[0][0], [*moved.min(0), *moved.max(0)], atol=1e-4)
