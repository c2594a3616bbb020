"""MixUp and CutMix: partners, weights, labels and masks."""

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.transforms.sampling import BetaMixture

N = 64


def array(x):
    return keras.ops.convert_to_numpy(x)


def coded():
    """Image i has the value i everywhere, label i and mask i."""
    number = np.arange(N)
    images = np.broadcast_to(number[:, None, None, None], (N, 10, 14, 3)).astype("float32")
    return {"images": images, "labels": np.eye(N, dtype="float32")}


def test_mixup_mixes_images_and_labels_in_the_same_parts(uncompiled):
    out = knl.MixUp(1.0, seed=3)(coded())
    images, labels = array(out["images"]), array(out["labels"])
    np.testing.assert_allclose(labels.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(images[:, 0, 0, 0], labels @ np.arange(N), atol=1e-3)
    assert ((labels > 0).sum(1) == 2).mean() > 0.8
    # Each image is the partner of exactly one other: what labels give away adds up for each class.
    away = np.array(labels)
    np.fill_diagonal(away, 0.0)
    assert ((away > 0).sum(0) <= 1).all()


def test_cutmix_pastes_a_rectangle_and_labels_follow_its_area(uncompiled):
    data = coded()
    data["segmentation_masks"] = data["images"][..., 0].astype("int32")
    out = knl.CutMix((1.0, 1.0), seed=5)(data)
    images, labels, masks = (array(out[k]) for k in ("images", "labels", "segmentation_masks"))
    assert (images[..., 0] == masks).all()
    own = np.arange(N)[:, None, None]
    pasted = masks != own
    rows, columns = pasted.any(2), pasted.any(1)
    assert (pasted == rows[:, :, None] & columns[:, None, :]).all()
    share = pasted.mean((1, 2))
    given = 1.0 - labels[np.arange(N), np.arange(N)]
    mixed = share > 0
    assert mixed.mean() > 0.8
    assert np.abs(share - given)[mixed].max() < 1.0 / 10 + 1.0 / 14  # a pixel's rounding on each axis
    np.testing.assert_array_equal(
        labels[mixed].round(6).argsort(1)[:, -2:].sum(1), [i + masks[i][pasted[i]][0] for i in np.flatnonzero(mixed)]
    )


def test_mixtures_stand_in_an_augment_after_geometry(uncompiled):
    layer = knl.Augment([knl.RandomFlip(), knl.RandomBrightness((0.1, 0.1)), knl.MixUp(1.0), knl.CutMix(1.0)], seed=1)
    out = layer(coded())
    np.testing.assert_allclose(array(out["labels"]).sum(1), 1.0, atol=1e-5)
    assert np.isfinite(array(out["images"])).all()


@pytest.mark.parametrize("make", [knl.MixUp, knl.CutMix])
def test_one_image_mixes_with_itself_and_inference_changes_nothing(make, uncompiled):
    data = {k: v[5:6] for k, v in coded().items()}
    out = make(seed=1)(data)
    np.testing.assert_allclose(array(out["images"]), data["images"], atol=1e-5)
    out = make(seed=1)(coded(), training=False)
    np.testing.assert_array_equal(array(out["labels"]), coded()["labels"])
    np.testing.assert_array_equal(array(out["images"]), coded()["images"])


def test_the_mixture_of_betas_has_its_quantiles():
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.2, 1.0, 200000)
    drawn = rng.beta(alpha, alpha)
    u = np.linspace(0.02, 0.98, 25, dtype="float32")
    ours = array(BetaMixture(1.0, lowest=0.2).quantile(keras.ops.convert_to_tensor(u), 1.0))
    np.testing.assert_allclose(ours, np.quantile(drawn, u), atol=0.006)


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="`alpha`"):
        knl.MixUp(0.0)
    with pytest.raises(ValueError, match="`factor`"):
        knl.CutMix(2.0)
    with pytest.raises(ValueError, match="no class"):
        knl.MixUp()({"images": np.zeros((2, 4, 4, 3)), "segmentation_masks": np.zeros((2, 4, 4, 1), "int32")})


def test_mixup_of_given_weights_is_keras_mixup(uncompiled):
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(0, 255, (5, 7, 9, 3)).astype("float32"), np.eye(5, dtype="float32")
    layer = knl.MixUp(1.0)
    layer.build(images.shape)
    u = rng.random((5, 2), dtype="float32")
    given = {"mix_weight": u[:, 0], "permutation_order": np.argsort(u[:, 1])}
    theirs = keras.layers.MixUp(1.0)
    out = layer.apply({"images": images, "labels": labels}, u)
    expected = theirs.transform_images(keras.ops.convert_to_tensor(images), given, training=True)
    np.testing.assert_allclose(array(out["images"]), array(expected), atol=1e-4 * 255)
    expected = theirs.transform_labels(keras.ops.convert_to_tensor(labels), given, training=True)
    np.testing.assert_allclose(array(out["labels"]), array(expected), atol=1e-4)


def test_cutmix_of_a_given_rectangle_is_keras_cutmix(uncompiled):
    rng = np.random.default_rng(1)
    height, width = 9, 14
    images, labels = rng.uniform(0, 255, (6, height, width, 3)).astype("float32"), np.eye(6, dtype="float32")
    layer = knl.CutMix((1.0, 1.0))
    layer.build(images.shape)
    u = rng.random((6, 4), dtype="float32")  # the share that stays (uniform for alpha 1), x, y, partner
    side = np.sqrt(1.0 - u[:, 0])
    x0, y0 = u[:, 1] * (width - side * width), u[:, 2] * (height - side * height)
    corners = [keras.ops.convert_to_tensor(v) for v in (x0, x0 + side * width, y0, y0 + side * height)]
    theirs = keras.layers.CutMix((1.0, 1.0))
    masks, weight = theirs._generate_batch_mask(images.shape, corners)
    given = {"batch_masks": masks, "mix_weight": weight, "permutation_order": np.argsort(u[:, 3])}
    out = layer.apply({"images": images, "labels": labels}, u)
    expected = array(theirs.transform_images(keras.ops.convert_to_tensor(images), given, training=True))
    np.testing.assert_allclose(array(out["images"]), expected, atol=1e-4 * 255)
    expected = array(theirs.transform_labels(keras.ops.convert_to_tensor(labels), given, training=True))
    np.testing.assert_allclose(array(out["labels"]), expected, atol=1e-4)


@pytest.mark.parametrize("same_on_batch", [False, True])
def test_a_closed_gate_keeps_its_image_and_an_open_one_has_a_partner(same_on_batch, uncompiled):
    layer = knl.MixUp(1.0, p=0.5, seed=2, same_on_batch=same_on_batch)
    labels = np.concatenate([array(layer(coded())["labels"]) for _ in range(8)])
    mixed = (labels > 0).sum(1) == 2
    if same_on_batch:
        by_batch = mixed.reshape(8, N).mean(1)
        assert set(np.round(by_batch)) == {0, 1}
        assert (np.minimum(by_batch, 1 - by_batch) < 0.1).all()
    else:
        assert abs(mixed.mean() - 0.5) < 0.08


def test_one_of_two_mixtures(uncompiled):
    data = coded()
    out = knl.OneOf([knl.MixUp(1.0), knl.CutMix((1.0, 1.0))], seed=3)(data)
    images, labels = array(out["images"]), array(out["labels"])
    flat = np.ptp(images, axis=(1, 2, 3)) == 0
    np.testing.assert_allclose(labels.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(images[flat, 0, 0, 0], labels[flat] @ np.arange(N), atol=1e-3)
    assert 0.2 < flat.mean() < 0.8
