"""From ImageDataGenerator to layers: the same in the model, the statistics included."""

import types

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3)).astype("uint8")


def predicted(layers, images=IMAGES):
    return keras.Sequential([keras.Input(images.shape[1:]), *layers]).predict(images, verbose=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rescale": 1 / 255},
        {"samplewise_center": True},
        {"samplewise_center": True, "samplewise_std_normalization": True},
        {"featurewise_center": True},
        {"rescale": 1 / 255, "featurewise_center": True, "featurewise_std_normalization": True},
        {"featurewise_center": True, "zca_whitening": True},
        {
            "rescale": 1 / 255,
            "samplewise_center": True,
            "samplewise_std_normalization": True,
            "featurewise_center": True,
            "featurewise_std_normalization": True,
        },
    ],
)
@pytest.mark.parametrize("count", [60, 150])  # fewer images than values, and more
def test_layers_predict_what_standardize_gives(arguments, count):
    images = np.concatenate([IMAGES, IMAGES[::-1, ::-1], IMAGES[:, :, ::-1] // 2])[:count]
    generator = knl.ImageDataGenerator(**arguments, rotation_range=20, horizontal_flip=True)
    generator.fit(images)
    expected = np.stack([generator.standardize(image.astype("float32")) for image in IMAGES])
    # Random layers are the identity in predict.
    result = predicted(generator.layers())
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


def test_the_list_has_the_generators_order():
    generator = knl.ImageDataGenerator(
        rotation_range=10,
        channel_shift_range=20,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.5, 1.5),
        rescale=1 / 255,
        samplewise_center=True,
        featurewise_center=True,
        zca_whitening=True,
    )
    layers = generator.layers(seed=3)
    assert [type(layer).__name__ for layer in layers] == [
        "Augment",
        "Rescaling",
        "SamplewiseNormalization",
        "FeaturewiseNormalization",
        "ZCAWhitening",
    ]
    names = [type(step).__name__ for step in layers[0].transforms]
    assert names == ["RandomAffine", "RandomChannelShift", "RandomFlip", "RandomChannelGain"]
    assert layers[0].seed == 3
    assert knl.ImageDataGenerator().layers() == []


def test_the_layers_ranges_are_the_generators():
    image = np.full((200, 8, 8, 1), 100, "uint8")
    image[:, :, 0] = 0

    def augmented(**arguments):
        (augment,) = knl.ImageDataGenerator(**arguments).layers(seed=1)
        return to_numpy(augment(image, training=True))

    flipped = augmented(horizontal_flip=True)[:, 0, :, 0]
    assert {(float(row[0]), float(row[-1])) for row in flipped} == {(0.0, 100.0), (100.0, 0.0)}
    bright = augmented(brightness_range=(0.5, 1.5))[:, 0, 4, 0]
    assert 50 <= bright.min() < 55 < 145 < bright.max() <= 150
    shifted = augmented(channel_shift_range=40)
    assert 60 <= shifted[:, 0, 4, 0].min() < 65
    assert shifted.max() == 100
    moved = augmented(width_shift_range=3.0)
    assert len({float(v) for v in moved[:, 0, 1, 0]}) > 20
    assert (moved == moved[:, :1]).all()  # along the width, as the argument says


def test_layers_of_a_generator_that_was_not_fit_adapt():
    generator = knl.ImageDataGenerator(rescale=1 / 255, featurewise_center=True, featurewise_std_normalization=True)
    model = keras.Sequential([keras.Input((6, 5, 3)), *generator.layers()])
    knl.adapt(model, IMAGES, verbose=0)
    generator.fit(IMAGES)
    np.testing.assert_allclose(
        model.predict(IMAGES, verbose=0), generator.standardize(IMAGES.astype("float32")), atol=1e-4
    )


def test_statistics_that_were_set():
    generator = knl.ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    generator.mean, generator.std = [120.0, 110.0, 100.0], [60.0, 61.0, 62.0]
    expected = (IMAGES - np.array(generator.mean)) / np.array(generator.std)
    np.testing.assert_allclose(generator.standardize(IMAGES.astype("float32")), expected, atol=1e-4)
    np.testing.assert_allclose(predicted(generator.layers()), expected, atol=1e-4)
    mean_image = IMAGES.mean(0)
    generator = knl.ImageDataGenerator(featurewise_center=True)
    generator.mean = mean_image
    np.testing.assert_allclose(generator.standardize(IMAGES.astype("float32")), IMAGES - mean_image, atol=1e-3)
    np.testing.assert_allclose(predicted(generator.layers()), IMAGES - mean_image, atol=1e-3)


def test_channels_first_layers():
    images = IMAGES.transpose(0, 3, 1, 2)
    generator = knl.ImageDataGenerator(data_format="channels_first", featurewise_center=True, rotation_range=10)
    generator.fit(images)
    np.testing.assert_allclose(
        predicted(generator.layers(), images), generator.standardize(images.astype("float32")), atol=1e-3
    )


def test_layers_are_saved_with_the_model(tmp_path):
    generator = knl.ImageDataGenerator(featurewise_center=True, zca_whitening=True, rescale=1 / 255)
    generator.fit(IMAGES)
    model = keras.Sequential([keras.Input((6, 5, 3)), *generator.layers()])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preprocessing_function": np.sqrt}, "preprocessing_function"),
        ({"width_shift_range": [1, 2]}, "width_shift_range"),
        ({"rotation_range": 3, "interpolation_order": 3}, "interpolation_order"),
        ({"brightness_range": (0, 3)}, "brightness_range"),
    ],
)
def test_what_no_layer_does_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        knl.ImageDataGenerator(**arguments).layers()


def keras_generator(**changes):
    """An object with the attributes of Keras's fitted class."""
    new = knl.ImageDataGenerator(rescale=1 / 255, featurewise_center=True, zca_whitening=True, rotation_range=15)
    new.fit(np.concatenate([IMAGES, IMAGES[::-1] // 2]))
    names = [name for name in vars(new) if name not in ("images_fit", "image_shape_fit", "_whitening")]
    old = types.SimpleNamespace(**{name: getattr(new, name) for name in names})
    old.zca_whitening_matrix = new.zca_whitening_matrix
    for name, value in changes.items():
        setattr(old, name, value)
    return old, new


def test_from_a_fitted_keras_generator():
    old, new = keras_generator()
    taken = knl.from_image_data_generator(old)
    assert taken.rotation_range == 15
    np.testing.assert_array_equal(
        taken.standardize(IMAGES.astype("float32")), new.standardize(IMAGES.astype("float32"))
    )
    np.testing.assert_allclose(
        predicted(taken.layers(image_shape=(6, 5, 3))), new.standardize(IMAGES.astype("float32")), atol=1e-3
    )
    with pytest.raises(ValueError, match=r"image_shape=\(H, W, C\)"):
        taken.layers()


def test_from_an_older_version():
    old, new = keras_generator()
    old.principal_components = old.zca_whitening_matrix
    del old.zca_whitening_matrix, old.interpolation_order, old.brightness_range
    taken = knl.from_image_data_generator(old)
    np.testing.assert_array_equal(taken.zca_whitening_matrix, new.zca_whitening_matrix)
    assert taken.interpolation_order == 1


def test_from_something_else():
    with pytest.raises(TypeError, match=r"must be an ImageDataGenerator.*featurewise_center"):
        knl.from_image_data_generator(object())
