"""MixUp and CutMix: partners, weights, labels and masks."""

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.transforms.mix import BetaMixture

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
