"""Layers inside ``Dataset.map``: on every Keras backend, on batches, single images, dicts, and in parallel."""

import catalogue
import keras
import numpy as np
import pytest
from catalogue import NORMALIZATION, RANDOM, images, normalization_layer
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

tf = pytest.importorskip("tensorflow", reason="tf.data needs TensorFlow installed, whatever the Keras backend")


def elements(dataset):
    return [keras.tree.map_structure(lambda t: t.numpy(), element) for element in dataset]


# The code on TensorFlow's tensors does not depend on the Keras backend, so that the others need not compile all of it.
BATCHED = RANDOM if BACKEND == "tensorflow" else [*catalogue.CHAINS, "rotation constant", "contrast p"]
SINGLE = [*catalogue.CHAINS, catalogue.GEOMETRIC[0], catalogue.COLOR[0]]  # (H, W, C): one path for all transforms


@pytest.mark.parametrize(
    ("name", "batched"), [(name, True) for name in BATCHED] + [(name, False) for name in SINGLE], ids=str
)
def test_a_random_layer_in_a_dataset_draws_what_it_draws_outside(name, batched):
    x = images(4)
    inside, outside = RANDOM[name](seed=5), RANDOM[name](seed=5)
    data = tf.data.Dataset.from_tensor_slices(x)
    data = (data.batch(2) if batched else data).map(lambda image: inside(image))
    parts = [x[:2], x[2:]] if batched else list(x)
    for got, part in zip(elements(data), parts):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, to_numpy(outside(part)), atol=1e-3)


def test_each_epoch_draws_anew():
    layer = knl.RandomBrightness(0.4, seed=5)
    data = tf.data.Dataset.from_tensor_slices(images(4)).batch(4).map(layer)
    first, second = elements(data)[0], elements(data)[0]
    assert not np.array_equal(first, second)


def test_parallel_maps_draw_each_number_once():
    layer = knl.RandomBrightness((0.0, 0.9), seed=5)
    x = np.zeros((600, 1, 1, 1), "uint8")
    data = tf.data.Dataset.from_tensor_slices(x).batch(2).map(layer, num_parallel_calls=4)
    values = np.concatenate(elements(data)).ravel()
    assert len(set(values.tolist())) == 600
    again = knl.RandomBrightness((0.0, 0.9), seed=5)
    again.build(x.shape)
    expected = np.concatenate([to_numpy(again.draw(2)).ravel() for _ in range(300)]) * 0.9 * 255
    np.testing.assert_allclose(np.sort(values), np.sort(expected), atol=1e-3)


def test_a_seeded_map_repeats_from_run_to_run_with_other_images_in_each_epoch():
    def run():
        layer = knl.RandomBrightness(0.4, seed=5)
        data = tf.data.Dataset.from_tensor_slices(images(4)).batch(2).map(layer)
        return np.stack([np.stack(elements(data)) for _ in range(2)])

    first = run()
    np.testing.assert_array_equal(run(), first)
    assert not np.array_equal(first[0], first[1])


def test_a_dict_with_targets():
    layer = RANDOM["augment two stages"](seed=5, bounding_box_format="xyxy")
    x = images(4)
    data = {
        "images": x,
        "segmentation_masks": (x[..., 0] > 99).astype("int32"),
        "keypoints": np.ones((4, 3, 2), "float32"),
        "bounding_boxes": {
            "boxes": np.tile(np.array([2, 2, 8, 7], "float32"), (4, 1, 1)),
            "labels": np.zeros((4, 1), "int32"),
        },
        "labels": np.arange(4),
    }
    out = elements(tf.data.Dataset.from_tensor_slices(data).batch(4).map(layer))[0]
    outside = RANDOM["augment two stages"](seed=5, bounding_box_format="xyxy")(data)
    assert list(out) == list(data)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, to_numpy(b), atol=1e-2), dict(out), dict(outside)
    )


def test_strength_assigned_after_the_map_was_traced_takes_effect():
    augment = knl.Augment([knl.RandomBrightness((0.2, 0.2))])
    data = tf.data.Dataset.from_tensor_slices(np.zeros((2, 3, 3, 1), "uint8")).batch(2).map(augment)
    assert elements(data)[0].mean() == pytest.approx(51.0)
    augment.strength.assign(0.5)
    assert elements(data)[0].mean() == pytest.approx(25.5)


def test_training_false_in_a_dataset_is_the_identity():
    layer, x = RANDOM["augment chain"](seed=5), images(2)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2).map(lambda image: layer(image, training=False))
    np.testing.assert_array_equal(elements(data)[0], x.astype("float32"))


@pytest.mark.parametrize("name", NORMALIZATION)
def test_a_normalization_layer_in_a_dataset_gives_what_it_gives_outside(name):
    layer, x = normalization_layer(name), images(4, seed=9)
    data = tf.data.Dataset.from_tensor_slices(x).batch(2).map(layer)
    np.testing.assert_allclose(np.concatenate(elements(data)), to_numpy(layer(x)), atol=1e-4)
