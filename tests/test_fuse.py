"""``fuse``: what becomes of the random layers of keras.layers, in lists and models, and that it does the same."""

import keras
import numpy as np
import pytest
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.fuse import KERAS_LAYERS
from keras_norm_layers.kernels.backend import to_numpy

L = keras.layers
REQUIRED = {
    "RandomBrightness": (0.2,),
    "RandomColorDegeneration": (0.3,),
    "RandomColorJitter": ((0, 255), 0.2, 0.3, 0.4, 0.1),
    "RandomContrast": ((0.1, 0.3),),
    "RandomCrop": (6, 5),
    "RandomHue": (0.2,),
    "RandomPosterization": (3,),
    "RandomRotation": (0.1,),
    "RandomSaturation": (0.3,),
    "RandomSharpness": (0.3,),
    "RandomShear": (0.2, (0.1, 0.3)),
    "RandomTranslation": (0.1, (-0.2, 0.1)),
    "RandomZoom": ((-0.1, 0.3),),
}
OURS = [name for name in KERAS_LAYERS if hasattr(knl, name)]


def kinds(layers):
    return [type(layer).__name__ for layer in layers]


def smooth(number=2, size=24):
    """Images of slow waves between 90 and 160: nothing to clip, little to lose between pixels."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (a * x + b * y)) for a, b in ((1, 0), (0.5, 0.5), (0, 1))]
    return np.stack([125 + 35 * np.stack(waves, -1) * (1 - 0.3 * i) for i in range(number)]).astype("float32")


# Layers ---------------------------------------------------------------------------------------------------------------


def test_the_list_is_that_of_keras():
    assert all(hasattr(L, name) for name in KERAS_LAYERS)
    assert {name for name in dir(L) if name.startswith("Random")} <= set(KERAS_LAYERS)


@pytest.mark.parametrize("name", OURS)
def test_every_layer_with_a_namesake_here_is_replaced(name, capsys):
    layer = getattr(L, name)(*REQUIRED.get(name, ()))
    (augment,) = knl.fuse([layer])
    assert kinds([augment]) == ["Augment"]
    assert kinds(augment.transforms) == [name]
    assert capsys.readouterr().out == f"{layer.name} ({name}) -> {augment.name} (Augment)\n"


FIXED = {
    "rotation": lambda: L.RandomRotation((0.1, 0.1), fill_mode="constant", fill_value=30.0),
    "translation": lambda: L.RandomTranslation((0.2, 0.2), (-0.3, -0.3), "nearest", "nearest"),
    "zoom": lambda: L.RandomZoom((0.2, 0.2), (-0.1, -0.1)),
    "brightness": lambda: L.RandomBrightness((0.1, 0.1), value_range=(0, 200)),
}


@pytest.mark.parametrize("name", FIXED)
def test_one_layer_fused_does_what_it_did(name):
    layer = FIXED[name]()
    (augment,) = knl.fuse([layer], verbose=False)
    x = smooth()
    np.testing.assert_allclose(to_numpy(augment(x)), to_numpy(layer(x, training=True)), atol=0.05)


def test_arguments_come_over_as_they_were_drawn():
    layers = [L.RandomRotation(0.1), L.RandomShear(0.2, (0.1, 0.3)), L.RandomContrast(0.3), L.RandomBrightness(0.2)]
    layers += [L.RandomZoom((-0.1, 0.3)), L.RandomFlip("vertical"), L.RandomBrightness((0.1, 0.2), (-1, 1))]
    (augment,) = knl.fuse(layers, verbose=False)
    rotation, shear, contrast, brightness, zoom, flip, shifted = augment.transforms
    assert rotation.factor == 0.1
    assert (shear.x_factor, shear.y_factor) == (0.2, (0.1, 0.3))
    assert contrast.specs()["contrast"].low == 1.0, "keras.layers.RandomContrast(f) draws from [1, 1 + f]"
    assert contrast.specs()["contrast"].high == pytest.approx(1.3)
    assert (brightness.factor, brightness.value_range) == (0.2, (0, 255))
    assert (zoom.height_factor, zoom.width_factor) == ((-0.1, 0.3), None)
    assert flip.mode == "vertical"
    assert (shifted.factor, shifted.value_range) == ((0.1, 0.2), (-1, 1))


def test_a_chain_fused_does_what_the_layers_do_one_by_one():
    chain = [
        L.RandomRotation((0.04, 0.04)),
        L.RandomTranslation((0.05, 0.05), (-0.08, -0.08)),
        L.RandomZoom((-0.1, -0.1)),
        L.RandomBrightness((0.1, 0.1)),
    ]
    (augment,) = knl.fuse(chain, verbose=False)
    x = smooth()
    expected = x
    for layer in chain:
        expected = layer(expected, training=True)
    # Keras interpolates three times, which takes some of the waves' height; the border is where fills differ.
    np.testing.assert_allclose(to_numpy(augment(x))[:, 4:-4, 4:-4], to_numpy(expected)[:, 4:-4, 4:-4], atol=1.5)
    assert np.abs(to_numpy(expected) - x)[:, 4:-4, 4:-4].mean() > 10


def test_seed_dtype_and_data_format_come_over():
    layers = [L.RandomFlip(), L.RandomRotation(0.1, seed=5), L.RandomZoom(0.1, seed=6)]
    (augment,) = knl.fuse(layers, verbose=False)
    assert (augment.seed, augment.compute_dtype, augment.data_format) == (5, "float32", "channels_last")
    assert knl.fuse([L.RandomFlip()], verbose=False)[0].seed is None
    options = {"dtype": "float16", "data_format": "channels_first"}
    (augment,) = knl.fuse([L.RandomFlip(**options), L.RandomZoom(0.1, **options)], verbose=False)
    assert (augment.compute_dtype, augment.data_format) == ("float16", "channels_first")
    assert to_numpy(augment(np.ones((2, 3, 4, 5), "float32"))).shape == (2, 3, 4, 5)


def test_layers_that_differ_in_dtype_or_data_format_are_not_joined():
    layers = [L.RandomFlip(), L.RandomFlip(dtype="float16"), L.RandomFlip(data_format="channels_first")]
    assert kinds(knl.fuse(layers, verbose=False)) == ["Augment"] * 3


class Subclass(L.RandomFlip):
    """Not what its name says, for all that is known."""


def test_what_cannot_be_replaced_stays_and_the_report_says_why(capsys, monkeypatch):
    subclass, refused, unknown = Subclass(name="mine"), L.RandomRotation((-5, 0.2), name="turn"), L.RandomFlip(name="f")
    monkeypatch.delattr("keras_norm_layers.transforms.RandomFlip")
    layers = [subclass, refused, unknown, L.RandomZoom(0.1, name="zoom"), L.Flatten()]
    fused = knl.fuse(layers)
    assert kinds(fused) == ["Subclass", "RandomRotation", "RandomFlip", "Augment", "Flatten"]
    assert all(a is b for a, b in zip(fused[:3], layers))
    report = capsys.readouterr().out.splitlines()
    assert report[0].startswith("mine (Subclass) stays: it is a subclass of keras.layers.RandomFlip")
    assert report[1].startswith("turn (RandomRotation) stays: RandomRotation: `factor` must be")
    assert report[2] == "f (RandomFlip) stays: keras_norm_layers has no RandomFlip"
    assert report[3].startswith("zoom (RandomZoom) -> augment")


def test_the_report_can_be_silenced_and_says_if_there_is_nothing(capsys):
    knl.fuse([L.RandomFlip()], verbose=False)
    assert capsys.readouterr().out == ""
    dense = L.Dense(2)
    assert knl.fuse([dense]) == [dense]
    assert capsys.readouterr().out == "fuse: there is no random layer of keras.layers in the model\n"


# Models ---------------------------------------------------------------------------------------------------------------


def head():
    return [L.Conv2D(2, 3), L.Flatten(), L.Dense(2)]


def agree(fused, model):
    """Both give the same without training, and share what is trained."""
    x = smooth(size=8)
    np.testing.assert_allclose(to_numpy(fused(x, training=False)), to_numpy(model(x, training=False)), atol=1e-4)
    assert fused.name == model.name
    assert len(fused.trainable_weights) == len(model.trainable_weights)
    assert all(a is b for a, b in zip(fused.trainable_weights, model.trainable_weights))


def test_a_sequential():
    layers = [L.Rescaling(0.5), L.RandomFlip(), L.RandomZoom(0.1), *head()]
    model = keras.Sequential([keras.Input((8, 8, 3), name="photos"), *layers], name="net")
    fused = knl.fuse(model, verbose=False)
    assert kinds(fused.layers) == ["Rescaling", "Augment", "Conv2D", "Flatten", "Dense"]
    assert fused.inputs[0].name == "photos"
    agree(fused, model)
    x = smooth(size=8)
    assert not np.allclose(to_numpy(fused(x, training=True)), to_numpy(fused(x, training=False)))
    np.testing.assert_array_equal(to_numpy(fused(x)), to_numpy(fused(x, training=False)))


def test_a_sequential_that_is_not_built_stays_unbuilt():
    fused = knl.fuse(keras.Sequential([L.RandomFlip(), L.Flatten()]), verbose=False)
    assert not fused.built
    assert to_numpy(fused(smooth(size=8))).shape == (2, 192)


def test_an_inner_sequential_of_random_layers_becomes_one_layer_of_its_name():
    inner = keras.Sequential([L.RandomFlip(), L.RandomZoom(0.1)], name="data_augmentation")
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, L.Rescaling(0.5), *head()])
    fused = knl.fuse(model, verbose=False)
    assert kinds(fused.layers) == ["Augment", "Rescaling", "Conv2D", "Flatten", "Dense"]
    assert kinds(fused.get_layer("data_augmentation").transforms) == ["RandomFlip", "RandomZoom"]
    agree(fused, model)
    joined = knl.fuse([L.RandomRotation(0.1), inner, L.RandomBrightness(0.1)], verbose=False)
    assert [kinds(layer.transforms) for layer in joined] == [
        ["RandomRotation", "RandomFlip", "RandomZoom", "RandomBrightness"]
    ]


def test_inner_models_of_other_layers_too_are_fused_inside():
    inner = keras.Sequential([L.Rescaling(0.5), L.RandomFlip(), L.RandomZoom(0.1)], name="preparation")
    untouched = keras.Sequential([L.Conv2D(2, 3), L.ReLU()], name="body")
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, untouched, *head()])
    fused = knl.fuse(model, verbose=False)
    assert kinds(fused.get_layer("preparation").layers) == ["Rescaling", "Augment"]
    assert fused.get_layer("body") is untouched
    agree(fused, model)


def test_a_functional_chain_keeps_how_its_layers_are_called():
    inner = keras.Sequential([L.RandomFlip()], name="data_augmentation")
    inputs = keras.Input((8, 8, 3), name="photos")
    inner(inputs)  # used before, as in a preview
    x = L.RandomBrightness(0.1)(L.RandomZoom(0.1)(inner(inputs)))
    x = L.BatchNormalization()(x, training=False)
    for layer in head():
        x = layer(x)
    model = keras.Model(inputs, x, name="net")
    fused = knl.fuse(model, verbose=False)
    assert kinds(fused.layers) == ["InputLayer", "Augment", "BatchNormalization", "Conv2D", "Flatten", "Dense"]
    calls = {layer["name"]: layer["inbound_nodes"] for layer in fused.get_config()["layers"]}
    (normalization,) = (layer.name for layer in fused.layers if isinstance(layer, L.BatchNormalization))
    assert calls[normalization][0]["kwargs"]["training"] is False
    agree(fused, model)


def test_a_functional_model_that_branches_is_fused_in_its_inner_models(capsys):
    inner = keras.Sequential([L.RandomFlip(), L.RandomZoom(0.1)], name="data_augmentation")
    inputs = keras.Input((8, 8, 3))
    x = L.RandomBrightness(0.1, name="alone")(inner(inputs))
    x = L.Add()([x, L.Conv2D(3, 1)(x)])
    for layer in head():
        x = layer(x)
    model = keras.Model(inputs, x, name="net")
    fused = knl.fuse(model)
    assert kinds(fused.get_layer("data_augmentation").layers) == ["Augment"]
    assert fused.get_layer("alone") is model.get_layer("alone")
    assert "alone (RandomBrightness) stays: the model branches" in capsys.readouterr().out
    agree(fused, model)


def test_layers_of_ours_stay_and_still_follow_the_model():
    model = keras.Sequential([keras.Input((8, 8, 3)), knl.RandomBrightness((0.2, 0.2)), L.RandomFlip(), L.Flatten()])
    fused = knl.fuse(model, verbose=False)
    assert kinds(fused.layers) == ["RandomBrightness", "Augment", "Flatten"]
    x = smooth(size=8)
    np.testing.assert_array_equal(to_numpy(fused(x)), x.reshape(2, -1))
    assert to_numpy(fused(x, training=True)).mean() - x.mean() == pytest.approx(51, abs=1e-2)


def test_a_fused_model_trains_and_is_saved(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(seed=3), L.RandomZoom(0.1), L.Flatten(), L.Dense(1)])
    fused = knl.fuse(model, verbose=False)
    fused.compile("sgd", "mse", jit_compile=False if BACKEND == "torch" else "auto")
    fused.fit(smooth(4, 8) / 255, np.zeros((4, 1)), epochs=1, verbose=0)
    fused.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    x = smooth(size=8)
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(fused(x)), rtol=1e-5)


@pytest.mark.parametrize("wrong", [L.RandomFlip(), "model", None])
def test_what_is_no_model_is_refused(wrong):
    with pytest.raises(TypeError, match="`model` must be a keras.Sequential, a Functional model or a list of layers"):
        knl.fuse(wrong)


def test_a_subclassed_model_is_refused():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.flip = L.RandomFlip()

        def call(self, x, training=None):
            return self.flip(x, training=training)

    with pytest.raises(TypeError, match="of a subclassed model fuse the parts"):
        knl.fuse(Net())
    net = Net()
    assert knl.fuse([net, L.Flatten()], verbose=False)[0] is net
