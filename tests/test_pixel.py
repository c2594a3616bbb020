"""Sharpness, blur, erasing and noise against Keras, slow references and statistics."""

import keras
import numpy as np
import pytest

import keras_norm_layers as knl

SIZES = [(1, 1), (8, 13), (9, 6)]


def random_images(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, *size, 3)).astype("float32")


def array(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5, 0.9])
def test_sharpness_is_keras(size, factor, uncompiled):
    images = random_images(size)
    ours = knl.RandomSharpness((factor, factor))(images)
    theirs = keras.layers.RandomSharpness((factor, factor), data_format="channels_last")(images, training=True)
    np.testing.assert_allclose(array(ours), array(theirs), atol=0.02)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("taps", "sigma"), [(3, 1.0), (7, 0.6), (1, 1.0)])
def test_blur_is_that_of_keras_ops(size, taps, sigma, uncompiled):
    images = random_images(size)
    ours = knl.RandomGaussianBlur((1, 1), taps, (sigma, sigma))(images)
    theirs = keras.ops.image.gaussian_blur(images, (taps, taps), (sigma, sigma), data_format="channels_last")
    np.testing.assert_allclose(array(ours), array(theirs), atol=0.02)


def test_kernel_sizes_are_across_and_down(uncompiled):
    # Keras puts the weights of a kernel of unequal sides in the wrong places on TensorFlow and torch.
    images = np.zeros((1, 9, 9, 1), "float32")
    images[0, 4, 4] = 255.0
    touched = array(knl.RandomGaussianBlur((1, 1), (5, 3), (1.0, 1.0))(images))[0, ..., 0] > 0
    assert touched.any(0).sum() == 5 and touched.any(1).sum() == 3


def test_blur_in_channels_first_is_the_same(uncompiled):
    images = random_images((8, 13))
    last = array(knl.RandomGaussianBlur((1, 1), 5, (0.8, 0.8))(images))
    first = knl.RandomGaussianBlur((1, 1), 5, (0.8, 0.8), data_format="channels_first")(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(array(first).transpose(0, 2, 3, 1), last, atol=1e-3)


def test_each_image_has_its_own_sigmas(uncompiled):
    images = np.zeros((40, 7, 7, 1), "float32")
    images[:, 3, 3] = 255.0
    blurred = array(knl.RandomGaussianBlur((1, 1), 5, (0.2, 1.0), seed=1)(images))[:, 3, 3, 0]
    assert len(np.unique(blurred.round(3))) > 30


@pytest.mark.parametrize("fill", [7.0, (10.0, 20.0, 300.0)])
def test_erasing_covers_a_rectangle(fill, uncompiled):
    images = np.full((50, 20, 31, 3), 100.0, "float32")
    out = array(knl.RandomErasing((1, 1), (0.25, 0.25), fill, seed=2)(images))
    covered = (out != 100.0).any(-1)
    rows, columns = covered.any(2), covered.any(1)
    assert (covered == rows[:, :, None] & columns[:, None, :]).all()
    assert set(rows.sum(1)) == {10} and set(columns.sum(1)) <= {15, 16}
    assert len({tuple(r) for r in rows}) > 5
    assert (out[covered] == np.minimum(fill, 255.0)).all()


def test_erasing_by_noise_has_keras_statistics(uncompiled):
    images = np.full((4, 60, 60, 3), -1.0, "float32")
    layer = knl.RandomErasing((1, 1), (1, 1), value_range=(-1, 1), seed=2)
    out = array(layer(images))
    expected = np.clip(np.random.default_rng(0).normal(size=100000), -1, 1)
    assert abs(out.mean()) < 0.02 and abs(out.std() - expected.std()) < 0.02
    assert not np.allclose(out[0], out[1])


@pytest.mark.parametrize("per_channel", [True, False])
def test_noise_is_normal_with_its_deviation(per_channel, uncompiled):
    images = np.full((8, 40, 40, 3), 0.5, "float32")
    noise = array(knl.RandomNoise((0.1, 0.1), (0, 1), 3, per_channel=per_channel)(images)) - 0.5
    assert abs(noise.mean()) < 0.005 and abs(noise.std() - 0.1) < 0.003
    assert abs((np.abs(noise) < 0.1).mean() - 0.6827) < 0.02
    correlation = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert correlation > 0.999 if not per_channel else abs(correlation) < 0.05
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.07


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: knl.RandomSharpness(1.5), "`factor`"),
        (lambda: knl.RandomGaussianBlur(kernel_size=4), "`kernel_size` must be an odd"),
        (lambda: knl.RandomGaussianBlur(sigma=-1.0), "`sigma`"),
        (lambda: knl.RandomErasing(fill_value=(1, 2)), "`fill_value` must be None"),
        (lambda: knl.RandomErasing(scale=(0.5, 0.1)), "`scale`"),
        (lambda: knl.RandomNoise(2.0), "`std`"),
    ],
)
def test_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
