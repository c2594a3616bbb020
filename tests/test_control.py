"""Strength over time, the summary, predictions averaged over augmented versions."""

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

IMAGES = np.random.default_rng(4).uniform(0, 255, (8, 10, 12, 3)).astype("float32")


class Scale(keras.layers.Layer):
    """Times a weight, which is 1: Keras warns of models that have nothing to train."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return x * self.scale


class Recorded(knl.StrengthSchedule):
    """A schedule that notes the strength after each time that it sets it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def _set(self, number):
        super()._set(number)
        self.seen.append([float(to_numpy(layer.strength.value)) for layer in self._found])


def model_with(*layers):
    model = keras.Sequential([keras.Input((10, 12, 3)), *layers, keras.layers.GlobalAveragePooling2D(), Scale()])
    model.compile(keras.optimizers.SGD(0.0), "mae")
    return model


def fit(model, schedule, epochs):
    model.fit(IMAGES, np.zeros((8, 3)), batch_size=4, epochs=epochs, verbose=0, callbacks=[schedule])


def test_a_schedule_by_epochs_sets_every_augment_however_deep():
    first, second = (knl.Augment([knl.RandomBrightness((0.2, 0.2))]) for _ in range(2))
    model = model_with(keras.Sequential([first]), second)
    schedule = Recorded([(0, 0.0), (2, 1.0)])
    fit(model, schedule, 4)
    assert schedule.seen == [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [1.0, 1.0]]


def test_a_schedule_by_steps_changes_what_the_model_sees():
    """Black images brightened by the strength: the loss of each batch says how much it was."""
    augment = knl.Augment([knl.RandomBrightness((0.4, 0.4))])
    model = model_with(augment)
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(logs["loss"] * (batch + 1) - sum(losses[len(losses) - batch :]))

    schedule = knl.StrengthSchedule(lambda step: step / 4, by="step")
    black = np.zeros((8, 10, 12, 3), "float32")
    model.fit(black, np.zeros((8, 3)), batch_size=2, epochs=1, shuffle=False, verbose=0, callbacks=[schedule, Losses()])
    np.testing.assert_allclose(losses, [0.0, 25.5, 51.0, 76.5], atol=0.01)
    assert float(to_numpy(augment.strength.value)) == 0.75


def test_errors_of_schedules():
    with pytest.raises(ValueError, match="no `Augment` layer"):
        fit(model_with(knl.RandomFlip()), knl.StrengthSchedule(lambda epoch: 1.0), 1)
    with pytest.raises(ValueError, match=r"schedule\(1\).*\[0, 1\].*2.0"):
        knl.StrengthSchedule(lambda epoch: 2.0).strength_at(1)
    for wrong in ([], [(0, 2.0)], [(1, 0.5), (0, 0.5)], 3, [0.1, 0.2]):
        with pytest.raises(ValueError, match="`schedule`"):
            knl.StrengthSchedule(wrong)
    with pytest.raises(ValueError, match="`by`.*batch"):
        knl.StrengthSchedule(lambda epoch: 1.0, by="batch")


def test_the_summary_says_what_is_drawn_and_in_which_pass(capsys):
    layer = knl.Augment(
        [
            knl.RandomFlip(p=0.7),
            knl.RandomRotation(degrees=36),
            knl.OneOf([knl.RandomBrightness(0.25), knl.RandomShear(0.1, fill_mode="constant", fill_value=3)]),
        ]
    )
    layer.build((None, 10, 12, 3))
    layer.summary()
    said = capsys.readouterr().out
    for words in (
        "2 resamplings (bilinear, reflect; bilinear, fill 3)",
        "p: 1 with probability 0.7",
        "turns: uniform in [-0.1, 0.1)",
        "choice: one of 0 (0.5), 1 (0.5)",
        "added: uniform in [-0.25, 0.25)",
        "sign: -1 or 1",
    ):
        assert words in said, said
    passes = {line.split()[1]: line.split()[0] for line in said.splitlines() if " Random" in line}
    assert passes == {"RandomFlip": "1", "RandomRotation": "1", "RandomBrightness": "1", "RandomShear": "2"}


def test_predictions_are_averaged_over_versions():
    model = model_with()
    shade = knl.Augment([knl.RandomBrightness((0.1, 0.1))])
    images = IMAGES * 0.5
    plain = model.predict(images, verbose=0)
    np.testing.assert_allclose(knl.predict_augmented(model, images, shade, n=3), plain + 25.5 * 3 / 4, rtol=1e-4)
    np.testing.assert_allclose(
        knl.predict_augmented(model, images, shade, n=2, original=False), plain + 25.5, rtol=1e-4
    )


def test_maps_are_moved_back_before_they_are_averaged():
    """A model that gives the picture itself: what is known of each pixel must be that pixel."""
    y, x = np.indices((24, 32)).astype("float32")
    picture = np.repeat(np.stack([x, y], -1)[None], 2, 0)
    augment = knl.Augment([knl.RandomFlip(), knl.RandomRotation(0.1), knl.RandomZoom(0.2)], seed=1)
    model = keras.Sequential([keras.Input((24, 32, 2)), augment])
    mean = knl.predict_augmented(model, picture, n=5, inverse=True)
    assert np.abs(mean - picture).mean() < 0.05
    assert np.abs(mean - picture).max() < 1.0
    without = knl.predict_augmented(model, picture, n=5)
    assert np.abs(without - picture).mean() > 1.0


def test_errors_of_predictions():
    with pytest.raises(ValueError, match="holds 0 `Augment` layers"):
        knl.predict_augmented(model_with(), IMAGES)
    with pytest.raises(ValueError, match="`augment` must be a random layer"):
        knl.predict_augmented(model_with(), IMAGES, keras.layers.RandomFlip())
    with pytest.raises(ValueError, match=r"maps of the image, \(N, H, W, K\)"):
        knl.predict_augmented(model_with(), IMAGES, knl.RandomFlip(), n=1, inverse=True)
    with pytest.raises(ValueError, match="`n`"):
        knl.predict_augmented(model_with(), IMAGES, knl.RandomFlip(), n=0)
