"""``Augment(normalization=...)``: what a layer behind would do, in the augmenting pass."""

import keras
import numpy as np
import pytest
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

SHAPE = (6, 12, 10, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, SHAPE).astype("uint8")
GIVEN = {"mean": [100.0, 120.0, 140.0], "std": [50.0, 60.0, 70.0]}


def transforms():
    return [knl.RandomFlip(), knl.RandomRotation(0.1, fill_mode="constant"), knl.RandomContrast(0.3)]


def augment(normalization=None, chain=None, **options):
    return knl.Augment(chain or transforms(), seed=3, normalization=normalization, **options)


def given(**options):
    return knl.FeaturewiseNormalization(**GIVEN, **options)


def both(one, two, data, normalize):
    """What the one layer makes of the data, and what the other one makes of it and ``normalize`` of that."""
    u = one.draw(len(data["images"]) if isinstance(data, dict) else len(data))
    ours, theirs = one.apply(data, u), two.apply(data, u)
    return (ours["images"], normalize(theirs["images"])) if isinstance(data, dict) else (ours, normalize(theirs))


def build(*layers, shape=(None, *SHAPE[1:])):
    for layer in layers:
        layer.build(shape)
    return layers


@pytest.mark.parametrize(
    "options",
    [{}, {"axis": None, "mean": 3.0, "std": 2.0}, {"invert": True}, {"scale": False, "std": None}],
    ids=["a channel", "one", "inverse", "mean alone"],
)
def test_it_is_the_layer_behind(options, uncompiled):
    layer = knl.FeaturewiseNormalization(**{**GIVEN, **options})
    one, two = build(augment(layer), augment())
    ours, theirs = both(one, two, IMAGES, layer)
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-5)
    still = one(IMAGES, training=False)
    np.testing.assert_allclose(to_numpy(still), to_numpy(layer(IMAGES)), rtol=1e-6, atol=1e-6)
    with_key = one.call_with_key(IMAGES, (1, 2, 3)), layer(two.call_with_key(IMAGES, (1, 2, 3)))
    np.testing.assert_allclose(*map(to_numpy, with_key), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPE[1:], (2, 3, *SHAPE[1:])], ids=["image", "clips"])
def test_single_images_and_clips(shape, uncompiled):
    images = np.random.default_rng(1).integers(0, 256, shape).astype("uint8")
    for layer in (given(), knl.FeaturewiseNormalization((1, 2, 3), mean=100.0, std=50.0)):
        one, two = build(augment(layer), augment())
        u = one.draw(1 if len(shape) == 3 else 2)
        frames = to_numpy(two.apply(images, u)).reshape(-1, *SHAPE[1:])
        expected = to_numpy(layer(frames)).reshape(shape)
        np.testing.assert_allclose(to_numpy(one.apply(images, u)), expected, rtol=1e-5, atol=1e-5)
        still = to_numpy(layer(images.reshape(-1, *SHAPE[1:]))).reshape(shape)
        np.testing.assert_allclose(to_numpy(one(images, training=False)), still, rtol=1e-5, atol=1e-5)


def test_all_images_of_a_dict_and_nothing_else(uncompiled):
    data = {"images": IMAGES, "right": IMAGES[::-1].copy(), "segmentation_masks": IMAGES[..., 0].astype("int32")}
    layer = given()
    one, two = build(*(augment(n, additional_targets={"right": "images"}) for n in (layer, None)))
    u = one.draw(6)
    ours, theirs = one.apply(data, u), two.apply(data, u)
    for name in ("images", "right"):
        np.testing.assert_allclose(to_numpy(ours[name]), to_numpy(layer(theirs[name])), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(to_numpy(ours["segmentation_masks"]), to_numpy(theirs["segmentation_masks"]))
    np.testing.assert_array_equal(to_numpy(one(data, training=False)["segmentation_masks"]), data["segmentation_masks"])


@pytest.mark.parametrize("training", [True, False])
def test_images_of_other_channels_are_refused(training):
    (one,) = build(augment(given(), additional_targets={"depth": "images"}))
    for channels in (1, 4):  # one would be stretched over three means
        with pytest.raises(ValueError, match="'depth' of shape .*leave `normalization` out"):
            one({"images": IMAGES, "depth": np.repeat(IMAGES[..., :1], channels, -1)}, training=training)


def test_channels_first_and_a_mean_image_run_behind_the_pass(uncompiled):
    images = np.ascontiguousarray(np.moveaxis(IMAGES, -1, 1))
    layer = knl.FeaturewiseNormalization(axis=1, **GIVEN)
    one, two = build(*(augment(n, data_format="channels_first") for n in (layer, None)), shape=(None, 3, 12, 10))
    ours, theirs = both(one, two, images, layer)
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-5)
    picture = np.random.default_rng(2).uniform(0, 255, (8, 8, 3))
    layer = knl.FeaturewiseNormalization(axis=(1, 2, 3), scale=False, mean=picture)
    one, two = build(*(augment(n, [knl.RandomCrop(8, 8)]) for n in (layer, None)))
    ours, theirs = both(one, two, IMAGES, layer)
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-5)
    centre = two(IMAGES, training=False)
    np.testing.assert_allclose(to_numpy(one(IMAGES, training=False)), to_numpy(layer(centre)), rtol=1e-5, atol=1e-5)
    said = []
    one.summary(print_fn=said.append)
    assert "behind the last pass" in said[0]


def test_a_number_a_channel_is_part_of_the_pass(monkeypatch):
    (one,) = build(augment(given()))
    monkeypatch.setattr(knl.FeaturewiseNormalization, "call", lambda *args: pytest.fail("a pass of its own"))
    assert to_numpy(one(IMAGES, training=True)).mean() < 5
    said = []
    one.summary(print_fn=said.append)
    assert said[0].endswith(
        f"Then FeaturewiseNormalization {one.normalization.name!r}, in the last pass; at inference too."
    )


@pytest.mark.parametrize("options", [{}, {"augment": True, "rounds": 2, "seed": 1}], ids=["plain", "augmented"])
def test_adapt_finds_it_in_models_lists_and_layers(options, uncompiled):
    behind = knl.FeaturewiseNormalization()
    knl.adapt([augment(), behind], IMAGES, **options)
    for wrap in (
        lambda layer: keras.Sequential([keras.Input(SHAPE[1:]), layer, keras.layers.Flatten()]),
        lambda layer: [layer],
        lambda layer: layer,
    ):
        layer = augment(knl.FeaturewiseNormalization())
        knl.adapt(wrap(layer), IMAGES, **options)
        for name in ("mean", "std", "count"):
            ours, theirs = (to_numpy(getattr(found, name)) for found in (layer.normalization, behind))
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_a_layer_behind_learns_from_what_is_normalized():
    first, second = augment(knl.FeaturewiseNormalization()), knl.MinMaxNormalization()
    model = keras.Sequential([keras.Input(SHAPE[1:]), first, second])
    knl.adapt(model, IMAGES)
    normalized = (IMAGES - IMAGES.mean((0, 1, 2))) / IMAGES.std((0, 1, 2))
    np.testing.assert_allclose(to_numpy(second.minimum), normalized.min((0, 1, 2)), rtol=1e-5)


def test_without_statistics_it_raises():
    layer = augment(knl.FeaturewiseNormalization())
    for training in (True, False):
        with pytest.raises(RuntimeError, match="has no statistics yet"):
            layer(IMAGES, training=training)
    other = augment(given(), [knl.RandomRotation(0.1)])
    other(IMAGES)
    with pytest.raises(ValueError, match="was built for images of shape"):
        other(IMAGES[..., :1], training=True)


def test_it_trains_and_adapts_again_in_a_compiled_model():
    layer = augment(knl.FeaturewiseNormalization())
    means = keras.layers.GlobalAveragePooling2D()
    still = keras.layers.Dense(3, kernel_initializer="identity", use_bias=False)
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer, means, still])
    knl.adapt(model, IMAGES)
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0))
    model.fit(IMAGES, np.zeros((6, 3)), verbose=0)
    before = model.predict(IMAGES, verbose=0)
    knl.adapt(model, IMAGES // 2)
    expected = (IMAGES - (IMAGES // 2).mean((0, 1, 2))) / (IMAGES // 2).std((0, 1, 2))
    after = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(after, expected.mean((1, 2)), atol=1e-4)
    assert np.abs(after - before).max() > 0.5
    loss = model.evaluate(IMAGES, np.zeros((6, 3)), verbose=0)
    np.testing.assert_allclose(loss, (expected.mean((1, 2)) ** 2).mean(), rtol=1e-3)


def test_files_hold_it_and_go_on(tmp_path):
    layer = augment(knl.FeaturewiseNormalization())
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    knl.adapt(model, IMAGES)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    for each in (layer, loaded.layers[0]):
        each.normalization.update(IMAGES[:2])
    np.testing.assert_array_equal(*(to_numpy(m.layers[0].normalization.std) for m in (model, loaded)))
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


def test_in_tf_data():
    import tensorflow as tf

    layer = given()
    one, two = build(augment(layer), augment())
    dataset = tf.data.Dataset.from_tensor_slices(IMAGES)
    ours, theirs = (list(knl.augment_dataset(dataset, each, seed=5)) for each in (one, two))
    np.testing.assert_allclose(np.stack(ours), to_numpy(layer(np.stack(theirs))), rtol=1e-5, atol=1e-5)
    batches = list(dataset.batch(4).map(one))
    assert [batch.shape[0] for batch in batches] == [4, 2] and all(abs(to_numpy(b).mean()) < 3 for b in batches)


def test_versions_for_a_prediction_are_normalized_once():
    layers = [augment(given(), [knl.RandomFlip()]), keras.layers.GlobalMaxPooling2D()]
    model = keras.Sequential([keras.Input(SHAPE[1:]), *layers])
    mean = knl.predict_augmented(model, IMAGES.astype("float32"), n=3)
    np.testing.assert_allclose(mean, model.predict(IMAGES, verbose=0), rtol=1e-5)


def test_an_export_carries_it(tmp_path, only_tensorflow):
    import tensorflow as tf

    model = keras.Sequential([keras.Input(SHAPE[1:]), augment(given())])
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    served = loaded.serve(IMAGES.astype("float32"))
    np.testing.assert_allclose(served, model.predict(IMAGES, verbose=0), rtol=1e-6)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch's groups of images; the others compile one program")
def test_groups_of_images_on_torch(monkeypatch):
    import torch

    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    from keras_norm_layers.kernels import _torch_passes

    monkeypatch.setattr(_torch_passes, "GROUP", 2 * IMAGES[0].size)
    layer = given()
    one, two = build(augment(layer), augment())
    ours, theirs = both(one, two, IMAGES, layer)
    np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normalization": knl.SamplewiseNormalization()}, "must be a FeaturewiseNormalization or None"),
        ({"normalization": True}, "must be a FeaturewiseNormalization or None"),
        ({"normalization": given(), "dtype": "uint8"}, "must be a float dtype"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        knl.Augment(transforms(), **options)
