"""Choices are made an image, from slots of their own, and change nothing where they do not choose."""

import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels import backend
from keras_norm_layers.kernels.backend import to_numpy

pytestmark = pytest.mark.usefixtures("uncompiled")
IMAGES = np.random.default_rng(4).integers(0, 256, (4, 9, 12, 3)).astype("uint8")
MANY = 4000


def parameters(layer, number=MANY):
    layer.build((None, 4, 4, 3))
    one = backend.namespace(None).asarray(1.0, "float32")
    return [{k: to_numpy(v) for k, v in node.items()} for node in layer.plan.parameters(layer.draw(number), one)]


def tensor(values):
    return backend.namespace(None).asarray(values)


def bright(level):
    return knl.RandomBrightness((level, level))


def levels(layer, number=400):
    """The brightness that each of many black images comes out with, in tenths of the range."""
    black = np.zeros((number, 2, 2, 1), "uint8")
    return np.round(to_numpy(layer(black)).mean((1, 2, 3)) / 25.5).astype(int)


def close(share, expected, number):
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / number) + 1e-9


def test_one_of_chooses_each_with_its_weight():
    found = levels(knl.OneOf([bright(0.1), bright(0.2), bright(0.4)], weights=[1, 2, 5], seed=1), MANY)
    assert set(found) == {1, 2, 4}
    for level, share in ((1, 1 / 8), (2, 2 / 8), (4, 5 / 8)):
        assert close((found == level).mean(), share, MANY)


def test_one_of_may_choose_none():
    found = levels(knl.OneOf([bright(0.1), bright(0.2)], p=0.7, seed=1), MANY)
    assert close((found == 0).mean(), 0.3, MANY)
    assert close((found == 1).mean(), 0.35, MANY)


def test_a_list_in_a_choice_acts_as_a_whole():
    found = levels(knl.OneOf([[bright(0.1), bright(0.3)], bright(0.2)], seed=1))
    assert set(found) == {4, 2}


def test_maybe_decides_for_all_of_its_transforms_together():
    found = levels(knl.Maybe([bright(0.1), bright(0.3)], p=0.25, seed=1), MANY)
    assert set(found) == {0, 4}
    assert close((found == 4).mean(), 0.25, MANY)
    assert set(levels(knl.Maybe(bright(0.1), p=1.0))) == {1}
    assert set(levels(knl.Maybe(bright(0.1), p=0.0))) == {0}


def test_some_of_takes_different_ones_and_each_pair_as_often():
    found = levels(knl.SomeOf([bright(0.1), bright(0.2), bright(0.4)], 2, seed=1), MANY)
    assert set(found) == {3, 5, 6}
    assert all(close((found == level).mean(), 1 / 3, MANY) for level in (3, 5, 6))


def test_some_of_a_number_of_its_own():
    found = levels(knl.SomeOf([bright(0.1), bright(0.2), bright(0.4)], (1, 3), seed=1), MANY)
    how_many = np.array([bin(level).count("1") for level in found])
    assert all(close((how_many == n).mean(), 1 / 3, MANY) for n in (1, 2, 3))


def test_choices_in_choices():
    inner = knl.OneOf([bright(0.1), bright(0.2)])
    layer = knl.Maybe([knl.OneOf([inner, bright(0.4)]), knl.Maybe(bright(0.3), p=0.5)], p=0.5, seed=3)
    found = levels(layer, MANY)
    # 1 or 2 by the inner choice, or 4; then 3 more, or not. 4 comes about in two ways.
    shares = {0: 1 / 2, 1: 1 / 16, 2: 1 / 16, 4: 1 / 8 + 1 / 16, 5: 1 / 16, 7: 1 / 8}
    for level, share in shares.items():
        assert close((found == level).mean(), share, MANY), level


def test_a_choice_is_independent_of_the_values_and_of_gates():
    layer = knl.OneOf([knl.RandomBrightness(0.5), knl.RandomContrast(0.5, p=0.5)], seed=2)
    choice, brightness, contrast = parameters(layer)
    first = choice["choice"] == 0
    assert (brightness["added"][~first] == 0).all()
    assert (contrast["contrast"][first] == 1).all()
    values = brightness["added"][first]
    assert abs(values.mean()) < 0.03
    assert values.min() < -0.48
    assert values.max() > 0.48
    on = contrast["contrast"][~first] != 1
    assert close(on.mean(), 0.5, on.size)


def test_same_on_batch_chooses_once():
    found = [set(levels(knl.OneOf([bright(0.1), bright(0.2)], same_on_batch=True, seed=s), 20)) for s in range(12)]
    assert all(len(levels_) == 1 for levels_ in found)
    assert len(set.union(*found)) == 2


def test_geometry_in_a_choice_is_that_geometry_alone():
    """Where it is chosen, and one resampling for all that might be."""
    moves = [knl.RandomRotation((0.1, 0.1)), knl.RandomZoom((0.3, 0.3)), knl.RandomTranslation((0.2, 0.2), (0.1, 0.1))]
    layer = knl.OneOf(moves, seed=1)
    layer.build((None, 9, 12, 3))
    assert len(layer.plan.stages((9, 12))) == 1
    u = np.full((3, layer.plan.slots), 0.5, "float32")
    u[:, 0] = (0.1, 0.5, 0.9)
    images = np.repeat(IMAGES[:1], 3, 0)
    out = to_numpy(layer.apply(images, u))
    for image, move in zip(out, moves):
        np.testing.assert_allclose(image, to_numpy(move(images[:1]))[0], atol=1e-2)


def test_a_choice_counts_as_one_transform_for_strength():
    layer = knl.Augment([knl.OneOf([bright(0.1), bright(0.2)], seed=1)], strength=0.5)
    black = np.zeros((50, 2, 2, 1), "uint8")
    assert {round(float(v), 2) for v in to_numpy(layer(black)).mean((1, 2, 3))} == {12.75, 25.5}


def test_a_crop_cannot_be_chosen_for_some_images():
    layer = knl.OneOf([knl.RandomCrop(4, 4), knl.RandomFlip()])
    with pytest.raises(ValueError, match=r"RandomCrop changes the size.*beside the choice"):
        layer(IMAGES)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: knl.OneOf([]), ["`transforms`", "[]"]),
        (lambda: knl.OneOf([bright(0.1), 3]), ["`transforms`", "place 1", "3"]),
        (lambda: knl.OneOf([bright(0.1)], weights=[1, 2]), ["`weights`", "1 positive", "[1, 2]"]),
        (lambda: knl.OneOf([bright(0.1)], weights=[-1]), ["`weights`", "positive", "[-1]"]),
        (lambda: knl.SomeOf([bright(0.1)], 2), ["`n`", "from 1 to 1", "2"]),
        (lambda: knl.SomeOf([bright(0.1), bright(0.2)], (2, 1)), ["`n`", "(2, 1)", "lowest"]),
        (lambda: knl.Maybe(3), ["`transforms`", "place 0", "3"]),
        (lambda: knl.Maybe(bright(0.1), p=2), ["`p`", "2", "[0, 1]"]),
    ],
)
def test_errors_of_choices(make, said):
    with pytest.raises(ValueError) as error:
        make()
    assert all(word in str(error.value) for word in said), str(error.value)


# Policies -------------------------------------------------------------------------------------------------------------


def test_rand_augment_gives_each_image_its_number_of_operations():
    for number in (1, 3, 11):
        layer = knl.RandAugment(num_ops=number, seed=1)
        layer.build((None, 9, 12, 3))
        choice = layer.plan.layout.nodes[0].transform
        keys = {k: tensor(v) for k, v in parameters(layer, 500)[0].items()}
        gates = np.stack([to_numpy(g) for g in choice.gates(keys)], 1)
        assert gates.shape == (500, 11)
        assert (gates.sum(1) == number).all()
        if number < 11:
            assert all(close(share, number / 11, 500) for share in gates.mean(0))


def test_rand_augment_resamples_once():
    layer = knl.RandAugment(seed=1)
    layer.build((None, 9, 12, 3))
    assert len(layer.plan.stages((9, 12))) == 1


def test_rand_augment_applies_what_it_chose():
    """Brightness alone, by a draw that chooses it: key 3 is the smallest."""
    layer = knl.RandAugment(num_ops=1, factor=(0.2, 0.2))
    layer.build((None, 9, 12, 3))
    u = np.full((4, layer.plan.slots), 0.5, "float32")
    u[:, 3] = 0.1
    np.testing.assert_allclose(to_numpy(layer.apply(IMAGES, u)), np.minimum(IMAGES + 51.0, 255), atol=1e-3)


def test_rand_augment_moves_masks_and_boxes():
    layer = knl.RandAugment(num_ops=11, factor=0.3, seed=1, bounding_box_format="xyxy")
    masks = (IMAGES[..., 0] > 128).astype("uint8") * 3
    boxes = {"boxes": np.tile([[2.0, 2, 9, 7]], (4, 1, 1)), "labels": np.zeros((4, 1), "int32")}
    out = layer({"images": IMAGES, "segmentation_masks": masks, "bounding_boxes": boxes})
    assert set(np.unique(to_numpy(out["segmentation_masks"]))) <= {0, 3}
    assert not np.array_equal(to_numpy(out["bounding_boxes"]["boxes"]), boxes["boxes"])


def test_aug_mix_is_a_mean_with_weights_that_sum_to_one():
    """Of versions that are all the image it makes the image; of others what lies between them."""
    layer = knl.AugMix(seed=1)
    layer.build(IMAGES.shape)
    one = backend.namespace(None).asarray(1.0, "float32")
    params = layer.plan.parameters(layer.draw(4), one)[0]
    images = tensor(IMAGES.astype("float32"))
    np.testing.assert_allclose(to_numpy(layer.blend(params, images, [images] * 3)), IMAGES, atol=1e-3)
    black = to_numpy(layer.blend(params, images, [images * 0.0] * 3))
    kept = to_numpy(params["kept"])[:, None, None, None]
    np.testing.assert_allclose(black, IMAGES * kept, atol=1e-3)
    assert np.ptp(kept) > 0.2


def test_aug_mix_refuses_targets():
    with pytest.raises(ValueError, match="AugMix blends images.*segmentation_masks"):
        knl.AugMix()({"images": IMAGES, "segmentation_masks": IMAGES[..., 0]})


def test_aug_mix_differs_from_image_to_image():
    out = to_numpy(knl.AugMix(seed=3)(np.repeat(IMAGES[:1], 6, 0)))
    assert len({round(float(image.mean()), 3) for image in out}) == 6


@pytest.mark.parametrize("make", [lambda: knl.RandAugment(num_ops=4, seed=1), lambda: knl.Equalization(bins=64, p=0.5)])
def test_another_device_computes_the_same_without_asking_what_was_chosen(make, monkeypatch):
    """On a GPU nothing is left out image by image: each question would stop it."""
    x = np.random.default_rng(5).integers(0, 256, (24, 12, 10, 3)).astype("uint8")
    layer, xp = make(), backend.namespace(None)
    layer.build((None, 12, 10, 3))
    u = layer.draw(len(x))
    expected = to_numpy(layer.apply(x, u))
    other = type(layer).from_config(layer.get_config())
    monkeypatch.setattr(xp, "on_host", lambda x: False)
    monkeypatch.setattr(xp, "change_some", None)
    np.testing.assert_allclose(to_numpy(other.apply(x, u)), expected, atol=1e-2)
