"""``adapt(augment=True)``: what it sees, that a seed decides it, and that it leaves no trace in the layers before."""

import keras
import numpy as np
import pytest

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import FeaturewiseNormalization, adapt
from keras_norm_layers.normalization.adaptive import to_host
from keras_norm_layers.transforms import Augment, RandomBrightness, RandomFlip, RandomTranslation

RNG = np.random.default_rng(1)
# Brighter from left to right, so that a mirrored image is another one.
IMAGES = (np.linspace(0, 200, 6)[:, None] + RNG.integers(0, 50, (40, 4, 6, 3))).astype("uint8")
pytestmark = pytest.mark.usefixtures("uncompiled")
PIXEL = {"axis": (1, 2, 3)}


def model_of(*layers, **options):
    target = FeaturewiseNormalization(**{**PIXEL, **options})
    return keras.Sequential([keras.Input((4, 6, 3), dtype="uint8"), *layers, target]), target


def learnt(*layers, data=IMAGES, **options):
    model, target = model_of(*layers)
    adapt(model, data, **{"augment": True, "seed": 7, "batch_size": 10, **options})
    return to_host(target.mean), to_host(target.std), float(to_host(target.count))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("flip", [RandomFlip, keras.layers.RandomFlip], ids=["ours", "keras"])
def test_the_mean_image_of_flips_is_that_of_the_images_and_their_mirrors(flip):
    mean, _, count = learnt(flip("horizontal"), rounds=30)
    assert count == 30 * len(IMAGES)
    x = IMAGES.astype("float64")
    expected, plain = (x + x[:, :, ::-1]).mean(0) / 2, x.mean(0)
    # A pixel is the mean of 1200 images, each mirrored or not: +-100 at the border, so a standard error of 3.
    np.testing.assert_allclose(mean, expected, atol=15)
    assert abs(mean - plain).max() > 80


def test_a_round_sees_each_image_once_as_it_was_drawn():
    # Of two values a pixel, the number of changed images shows in the mean: no image is lost or counted twice.
    mean, std, count = learnt(RandomFlip("horizontal"), rounds=3, data=np.tile(IMAGES[:1], (40, 1, 1, 1)))
    x = IMAGES[0].astype("float64")
    share = (mean - x) / (x[:, ::-1] - x)
    flipped = np.median(share) * 120
    assert count == 120 and abs(flipped - round(flipped)) < 1e-2 and 30 < flipped < 90
    np.testing.assert_allclose(share, np.median(share), atol=1e-4)
    np.testing.assert_allclose(std, abs(x[:, ::-1] - x) * np.sqrt(share * (1 - share)), rtol=1e-4)


def test_the_seed_decides_the_draws_and_nothing_else_does():
    chain = (RandomTranslation(0.3, 0.3, seed=1), RandomBrightness(0.4, seed=2))
    once = learnt(*chain, rounds=2)
    keras.utils.set_random_seed(99)
    others = (RandomTranslation(0.3, 0.3, seed=3), RandomBrightness(0.4, seed=4))
    others[0](IMAGES)  # a step of its own seed
    assert same(once, learnt(*others, rounds=2))
    assert not same(once, learnt(*chain, rounds=2, seed=8))
    assert not same(once[:2], learnt(*chain)[:2])  # the second round draws anew
    assert not same(learnt(*chain, seed=None), learnt(*chain, seed=None))
    # Batches draw differently: forty times the same image is not ten times the same four.
    single = np.tile(IMAGES[:1], (40, 1, 1, 1))
    assert not same(learnt(*chain, data=single)[:2], learnt(*chain, data=single[:10])[:2])


def test_generators_of_one_seed_draw_independently():
    bright = [RandomBrightness(0.4, seed=5) for _ in range(2)]
    model, target = model_of(*bright, axis=None)
    adapt(model, np.full((400, 4, 6, 3), 128, "uint8"), augment=True, seed=3, batch_size=100)
    single, alone = model_of(bright[0], axis=None)
    adapt(single, np.full((400, 4, 6, 3), 128, "uint8"), augment=True, seed=3, batch_size=100)
    # Two equal draws would double the standard deviation (or clip), two independent ones multiply it by sqrt(2).
    assert 1.2 < float(to_host(target.std)) / float(to_host(alone.std)) < 1.6


@pytest.mark.parametrize("built", [True, False])
def test_layers_before_are_afterwards_as_they_were(built):
    def layers():
        augment = Augment([RandomBrightness(0.4)], seed=11)
        return augment, keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=12)

    model, target = model_of(*layers())
    if not built:
        model = keras.Sequential(model.layers)
    augment, batch_norm, dropout = model.layers[:3]
    twin = layers()
    adapt(model, IMAGES, augment=True, rounds=2, batch_size=10, seed=1)
    assert to_host(target.std).min() > 0.5  # dropout dropped: the values are of variance 1 or more
    np.testing.assert_array_equal(to_host(batch_norm.moving_mean), 0)
    np.testing.assert_array_equal(to_host(batch_norm.moving_variance), 1)
    x = np.full((2, 4, 6, 3), 100.0, "float32")
    for layer, other in ((augment, twin[0]), (dropout, twin[2])):
        np.testing.assert_array_equal(to_numpy(layer(x, training=True)), to_numpy(other(x, training=True)))


def test_layers_before_are_as_they_were_after_a_failure():
    def data():
        yield IMAGES[:10]
        raise OSError("the disk is gone")

    model, target = model_of(RandomBrightness(0.4, seed=11))
    with pytest.raises(OSError, match="disk is gone"):
        adapt(model, data, augment=True)
    x = np.full((2, 4, 6, 3), 100.0, "float32")
    expected = to_numpy(RandomBrightness(0.4, seed=11)(x, training=True))
    np.testing.assert_array_equal(to_numpy(model.layers[0](x, training=True)), expected)
    assert float(to_host(target.count)) == 0


def test_later_passes_see_the_same_copies():
    first, second = FeaturewiseNormalization(axis=None), FeaturewiseNormalization(axis=None)
    model = keras.Sequential([keras.Input((4, 6, 3)), RandomBrightness(0.4), first, second])
    adapt(
        model, (part for part in np.split(IMAGES, 4)), augment=True, rounds=3, seed=5
    )  # read once, kept for six reads
    # What the second one sees has mean 0 and variance 1 only if it is the data that the first one learnt from.
    assert abs(float(to_host(second.mean))) < 1e-6
    assert abs(float(to_host(second.std)) - 1) < 1e-6


def test_progress_says_how_many_rounds(capsys):
    model, target = model_of(RandomBrightness(0.4))
    target.name = "norm"
    adapt(model, IMAGES, augment=True, rounds=3, batch_size=10, verbose=1)
    out = capsys.readouterr().out
    assert "adapting norm (3 rounds)" in out and "12/12" in out


def test_errors():
    with pytest.raises(ValueError, match="a random layer .* must stand before"):
        learnt(keras.layers.Rescaling(2.0))
    model, _ = model_of(RandomBrightness(0.4))
    with pytest.raises(ValueError, match=r"Set augment=True.*rounds=2"):
        adapt(model, IMAGES, rounds=2)
    with pytest.raises(ValueError, match=r"`rounds` must be a whole number from 1.*rounds=0"):
        adapt(model, IMAGES, augment=True, rounds=0)
    with pytest.raises(ValueError, match=r"`augment` must be True or False.*augment='yes'"):
        adapt(model, IMAGES, augment="yes")
    with pytest.raises(ValueError, match=r"`seed` must be an integer"):
        adapt(model, IMAGES, augment=True, seed=-1)
