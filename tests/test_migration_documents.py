"""What tutorials do with ImageDataGenerator, on Keras 3 with the import changed: small versions on real digits."""

import inspect
import os
import pathlib
import re

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

import keras_norm_layers as knl
from keras_norm_layers import ImageDataGenerator

DIGITS = load_digits()
X = (DIGITS.images * (255 / 16)).round().astype("uint8")[..., None]
Y = DIGITS.target
TRAIN, TEST = slice(0, 600), slice(600, 900)
PHOTO = load_sample_images().images[0][100:200, 200:340]


def small_net(classes=10, convolve=True):
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.MaxPooling2D(2)] if convolve else []
    layers += [keras.layers.Flatten(), keras.layers.Dense(classes, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(0.02), "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_normalization_and_its_analysis():
    """Rescale, featurewise and samplewise, the statistics of batches, and both together: mean -m / s, std 1 / s."""
    labels = keras.utils.to_categorical(Y)
    generator = ImageDataGenerator(rescale=1.0 / 255, featurewise_center=True, featurewise_std_normalization=True)
    generator.fit(X)
    x, y = generator.flow(X, labels, batch_size=100).next()
    assert (x.shape, y.shape) == ((100, 8, 8, 1), (100, 10))
    np.testing.assert_allclose(generator.mean.ravel(), (X / 255).mean(), rtol=1e-5)
    np.testing.assert_allclose(generator.std.ravel(), (X / 255).std(), rtol=1e-5)
    whole = generator.flow(X, batch_size=len(X)).next()
    assert abs(whole.mean()) < 1e-4
    assert abs(whole.std() - 1) < 1e-4

    samplewise = ImageDataGenerator(rescale=1.0 / 255, samplewise_center=True, samplewise_std_normalization=True)
    x = samplewise.flow(X, batch_size=100).next()
    np.testing.assert_allclose(x.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((1, 2, 3)), 1, atol=1e-4)

    both = ImageDataGenerator(
        rescale=1.0 / 255,
        samplewise_center=True,
        samplewise_std_normalization=True,
        featurewise_center=True,
        featurewise_std_normalization=True,
    )
    both.fit(X)
    x = both.flow(X, batch_size=100).next()
    np.testing.assert_allclose(x.mean((1, 2, 3)), -both.mean.item() / both.std.item(), atol=1e-4)
    np.testing.assert_allclose(x.std((1, 2, 3)), 1 / both.std.item(), rtol=1e-4)


def test_training_and_evaluating_with_iterators():
    """The small network of the notebook and of the tutorial on scaling, standardized just in time."""
    labels = keras.utils.to_categorical(Y)
    generator = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    generator.fit(X[TRAIN])
    train = generator.flow(X[TRAIN], labels[TRAIN], batch_size=64)
    test = generator.flow(X[TEST], labels[TEST], batch_size=64)
    assert (len(train), len(test)) == (10, 5)
    model = small_net()
    model.fit(train, steps_per_epoch=len(train), epochs=3, verbose=0)
    _, accuracy = model.evaluate(test, steps=len(test), verbose=0)
    assert accuracy > 0.8


def test_prediction_needs_the_training_statistics_and_layers_carry_them():
    """The question how prediction works: by hand with mean and std, by standardize, or inside the model."""
    labels = keras.utils.to_categorical(Y)
    generator = ImageDataGenerator(
        featurewise_center=True,
        featurewise_std_normalization=True,
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        horizontal_flip=True,
    )
    generator.fit(X[TRAIN])
    model = small_net()
    test = X[TEST].astype("float32")
    by_hand = (test - generator.mean) / (generator.std + 1e-6)
    train = generator.flow(X[TRAIN], labels[TRAIN], batch_size=32)
    model.fit(train, epochs=1, steps_per_epoch=3, validation_data=(by_hand, labels[TEST]), verbose=0)
    np.testing.assert_allclose(generator.standardize(test.copy()), by_hand, atol=1e-5)
    inside = keras.Sequential([keras.Input(X.shape[1:]), *generator.layers(), *model.layers])
    np.testing.assert_allclose(
        inside.predict(X[TEST], verbose=0), model.predict(by_hand, verbose=0), rtol=1e-3, atol=1e-5
    )


def nine(**arguments):
    """A batch of nine digits, channels first, as the tutorial on augmentation shows them."""
    images = X.reshape(-1, 1, 8, 8).astype("float32")
    generator = ImageDataGenerator(**arguments, data_format="channels_first")
    generator.fit(images[:300])
    for x, y in generator.flow(images, Y, batch_size=9, shuffle=False, seed=1):
        assert x.shape == (9, 1, 8, 8)
        np.testing.assert_array_equal(y, Y[:9])
        return x, images[:9]
    raise AssertionError("no batch")


@pytest.mark.parametrize(
    "arguments",
    [
        {"rotation_range": 90},
        {"width_shift_range": 0.2, "height_shift_range": 0.2},
        {"horizontal_flip": True, "vertical_flip": True},
        {"shear_range": 30},
        {"zoom_range": 0.5},
    ],
)
def test_each_augmentation_of_the_same_nine_digits(arguments):
    changed, plain = nine(**arguments)
    assert sum(not np.array_equal(a, b) for a, b in zip(changed, plain)) >= 5
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_feature_standardization_and_whitening_of_the_same_nine_digits():
    standardized, plain = nine(featurewise_center=True, featurewise_std_normalization=True)
    np.testing.assert_allclose(standardized, (plain - X[:300].mean()) / X[:300].std(), atol=1e-4)
    with pytest.warns(UserWarning, match="featurewise_center=True"):
        white, _ = nine(zca_whitening=True)
    assert np.isfinite(white).all()
    assert np.abs(white).max() < 100


def test_augmented_images_are_saved(tmp_path):
    generator = ImageDataGenerator()
    generator.fit(X)
    os.makedirs(tmp_path / "images")
    options = {"save_to_dir": str(tmp_path / "images"), "save_prefix": "aug", "save_format": "png"}
    for _x, _y in generator.flow(X, Y, batch_size=9, **options):
        break
    names = os.listdir(tmp_path / "images")
    assert len(names) == 9
    assert all(name.startswith("aug_") and name.endswith(".png") for name in names)


@pytest.mark.parametrize(
    "arguments",
    [
        {"horizontal_flip": True, "vertical_flip": True},
        {"rotation_range": 60},
        {"zoom_range": (0.5, 2)},
        {"width_shift_range": 0.2, "height_shift_range": 0.2},
        {"brightness_range": (0.5, 2)},
    ],
)
def test_six_variants_of_one_photo(arguments):
    """The handbook's loop: a batch of one photo, again and again."""
    batch = np.asarray([PHOTO])
    seen = set()
    for step, x in enumerate(ImageDataGenerator(**arguments).flow(batch, batch_size=1)):
        if step == 6:
            break
        assert (x.shape, x.dtype) == (batch.shape, "float32")
        seen.add(x[0].astype(np.uint8).tobytes())
    assert len(seen) > 1


@pytest.fixture
def digit_folders(tmp_path):
    for digit in range(3):
        os.makedirs(tmp_path / str(digit))
        for i, image in enumerate(X[digit == Y][:30]):
            Image.fromarray(image[..., 0]).save(tmp_path / str(digit) / f"{i}.png")
    return tmp_path


def test_feeding_from_folders(digit_folders):
    """The handbook's flow_from_directory: rescale, a tenth for validation, resized, shuffled."""
    generator = ImageDataGenerator(rescale=1 / 255.0, validation_split=0.1)
    options = {"target_size": (16, 16), "color_mode": "grayscale", "batch_size": 8}
    train = generator.flow_from_directory(digit_folders, subset="training", shuffle=True, **options)
    validation = generator.flow_from_directory(digit_folders, subset="validation", **options)
    assert (train.samples, validation.samples) == (81, 9)
    assert train.class_indices == {"0": 0, "1": 1, "2": 2}
    model = small_net(classes=3)
    history = model.fit(train, validation_data=validation, epochs=3, verbose=0)
    assert history.history["val_accuracy"][-1] > 0.8


def test_shifted_digits_are_learnt_from_shifted_digits():
    """The handbook's experiment in small: without shifts in training, shifted digits are missed."""
    padded = np.pad(X, ((0, 0), (3, 3), (3, 3), (0, 0))) / np.float32(255)
    shifted = np.roll(padded[TEST], 3, axis=2)
    labels = keras.utils.to_categorical(Y)
    accuracy = {}
    for name, shift in (("plain", 0.0), ("augmented", 3.5)):
        keras.utils.set_random_seed(0)
        model = small_net(convolve=False)
        generator = ImageDataGenerator(height_shift_range=shift)  # which moves along the width (keras#17398)
        model.fit(generator.flow(padded[TRAIN], labels[TRAIN], batch_size=100, seed=1), epochs=5, verbose=0)
        accuracy[name] = model.evaluate(shifted, labels[TEST], verbose=0)[1]
    assert accuracy["augmented"] > accuracy["plain"] + 0.2


def test_the_step_to_layers():
    """A model that carries its own augmentation and statistics, trained on raw uint8 images."""
    labels = keras.utils.to_categorical(Y)
    generator = ImageDataGenerator(
        rotation_range=10, width_shift_range=0.1, featurewise_center=True, featurewise_std_normalization=True
    )
    generator.fit(X[TRAIN])
    taken = knl.from_image_data_generator(generator)
    model = keras.Sequential([keras.Input((8, 8, 1), dtype="uint8"), *taken.layers(seed=1), *small_net().layers])
    model.compile(keras.optimizers.Adam(0.02), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(X[TRAIN], labels[TRAIN], epochs=3, batch_size=60, verbose=0)
    assert model.evaluate(X[TEST], labels[TEST], verbose=0)[1] > 0.7


GUIDE = (pathlib.Path(__file__).parents[1] / "docs" / "migration.md").read_text()


def test_the_guide_has_every_argument():
    for name in inspect.signature(ImageDataGenerator).parameters:
        assert f"`{name}" in GUIDE, name


def test_the_guides_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype="uint8")
    labels = np.eye(10)[np.arange(16) % 10]
    names = {"keras": keras, "keras_norm_layers": knl, "network": small_net().layers, "model": small_net()}
    names |= {"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": labels[:4]}
    names["old"] = ImageDataGenerator(featurewise_center=True, rotation_range=20)
    names["old"].fit(images)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        code = block.replace("epochs=10", "epochs=1, verbose=0")
        if "Sequential" in code:  # a guide need not say how a model is compiled
            code = code.replace("model.fit(", "model.compile(loss='categorical_crossentropy')\nmodel.fit(")
            names["network"] = small_net().layers
        exec(code, names)
    assert (tmp_path / "model.keras").exists()
    assert [type(layer).__name__ for layer in names["layers"]] == ["Augment", "FeaturewiseNormalization"]
