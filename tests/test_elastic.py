"""Elastic deformations: the field's statistics, and pixels, masks, boxes and keypoints that agree."""

import keras
import numpy as np
import pytest
from scipy import ndimage

import keras_norm_layers as knl
from keras_norm_layers.kernels import filters


def array(x):
    return keras.ops.convert_to_numpy(x)


def field(scale, size, number=6):
    layer = knl.RandomElasticTransform((1, 1), (scale, scale))
    u = np.random.default_rng(0).random(number, dtype="float32")
    drawn = {"on": u * 0 + 1, "scale": u * 0 + scale, "noise": u}
    params = {name: keras.ops.convert_to_tensor(value) for name, value in drawn.items()}
    return array(layer.displacement(params, *size))


@pytest.mark.parametrize(("sigma", "size"), [(0.0, 7), (0.3, 9), (2.5, 30), (4.0, 90)])
def test_smoothing_is_scipys_with_nothing_outside(sigma, size):
    row = np.random.default_rng(1).normal(size=size)
    matrix = array(filters.smoothing(keras.ops.convert_to_tensor(np.float32([sigma])), size))[0]
    radius = int(6 * sigma) // 2
    expected = ndimage.gaussian_filter1d(row, sigma, mode="constant", radius=radius) if sigma else row
    np.testing.assert_allclose(matrix @ row, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.4, 1.0])
def test_field_has_keras_deviation_and_correlation(scale):
    height, width = 96, 120
    got = field(scale, (height, width))
    alpha, sigma = 0.1 * scale * width, 0.05 * scale * height
    noise = np.random.default_rng(2).normal(size=(12, height, width)) * sigma
    radius = int(6 * sigma) // 2
    expected = alpha * ndimage.gaussian_filter(noise, (0, sigma, sigma), mode="constant", radius=radius)
    assert abs(got.std() / expected.std() - 1.0) < 0.12
    assert abs(got.mean()) < 0.15 * got.std()
    step = round(2 * sigma)
    planes = got.transpose(0, 3, 1, 2)
    assert np.corrcoef(planes[..., :-step].ravel(), planes[..., step:].ravel())[0, 1] == pytest.approx(
        np.exp(-((step / sigma) ** 2) / 4), abs=0.12
    )


class Gentle(knl.RandomElasticTransform):
    """A third of the displacement. In full it folds the image here and there, where a point has several places."""

    def displacement(self, params, height, width):
        return super().displacement(params, height, width) * 0.3


def test_pixels_masks_boxes_and_keypoints_agree(uncompiled):
    height, width = 60, 80
    y, x = np.mgrid[:height, :width].astype("float32")
    points = np.array([[20.0, 20.0], [40.0, 30.0], [60.0, 40.0]], "float32")
    layer = Gentle((1, 1), (1.0, 1.0), seed=4, bounding_box_format="xyxy")
    out = layer(
        {
            "images": np.stack([x, y, x * 0], -1)[None],
            "segmentation_masks": (x // 1).astype("int32")[None],
            "keypoints": points[None],
            "bounding_boxes": {"boxes": np.float32([[[25, 20, 50, 40]]]), "labels": np.int32([[1]])},
        }
    )
    images, masks = array(out["images"])[0], array(out["segmentation_masks"])[0]
    inner = (slice(10, -10), slice(10, -10))
    assert np.abs(images[..., 0] - masks)[inner].max() <= 0.51
    moved = array(out["keypoints"])[0]
    assert np.abs(moved - points).max() > 0.5  # something has moved
    for before, after in zip(points, moved):
        shown = [ndimage.map_coordinates(images[..., c], after[::-1, None], order=1)[0] for c in (0, 1)]
        np.testing.assert_allclose(shown, before, atol=0.5)
    inside = (images[..., 0] > 24.5) & (images[..., 0] < 49.5) & (images[..., 1] > 19.5) & (images[..., 1] < 39.5)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = array(out["bounding_boxes"]["boxes"])[0, 0]
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(box, expected, atol=1.0)


def test_in_full_most_keypoints_agree_but_where_the_image_folds(uncompiled):
    size, number = 100, 4
    y, x = np.mgrid[:size, :size].astype("float32")
    points = np.stack(np.meshgrid(np.arange(25, 76, 5), np.arange(25, 76, 5)), -1).reshape(-1, 2).astype("float32")
    data = {"images": np.repeat(np.stack([x, y, x], -1)[None], number, 0), "keypoints": np.stack([points] * number)}
    out = {k: array(v) for k, v in knl.RandomElasticTransform((1, 1), (1.0, 1.0), seed=4)(data).items()}
    shown = [
        [ndimage.map_coordinates(image[..., c], at[:, ::-1].T, order=1, mode="nearest") for c in (0, 1)]
        for image, at in zip(out["images"], out["keypoints"])
    ]
    wrong = np.abs(np.array(shown) - points.T).max(1) > 0.5
    assert wrong.mean() < 0.05


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="`scale`"):
        knl.RandomElasticTransform(scale=2.0)
