"""Files: a fresh process, or another backend, predicts the same and draws on where the saved layer stopped."""

import json

import catalogue
import keras
import numpy as np
import pytest
from conftest import BACKEND, run_fresh

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

OTHER_BACKEND = {"tensorflow": "jax", "jax": "torch", "torch": "tensorflow"}

# Prints, for each model in the folder, its predictions and the next two draws of its Augment.
LOAD = """
import json, pathlib
import numpy as np, keras, keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy
folder = pathlib.Path({folder!r})
x = np.load(folder / "x.npy")
models = {{path.name: keras.saving.load_model(path) for path in sorted(folder.glob("*.keras"))}}
weights_only = keras.saving.deserialize_keras_object(json.loads((folder / "config.json").read_text()))
weights_only.load_weights(folder / "m.weights.h5")
print(json.dumps({{
    name: dict(
        predictions=model.predict(x, verbose=0).tolist(),
        draws=[to_numpy(model.get_layer("augment").draw(3)).tolist() for _ in range(2)],
        strength=float(model.get_layer("augment").strength.value),
    )
    for name, model in {{**models, "weights": weights_only}}.items()
}}))
"""


def model_with(name, normalization):
    model = keras.Sequential(
        [
            keras.Input((catalogue.HEIGHT, catalogue.WIDTH, 3), dtype="uint8"),
            catalogue.RANDOM[name](seed=2**31 - 1, name="augment"),
            *normalization,
            keras.layers.Conv2D(2, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.get_layer("augment").draw(3)  # the seed's state is not that of a new layer
    model.get_layer("augment").strength.assign(0.75)
    return model


def normalization():
    x = catalogue.images(20)
    layers = [knl.SamplewiseNormalization(), knl.FeaturewiseNormalization(), knl.ZCAWhitening()]
    for number, layer in enumerate(layers):
        if hasattr(layer, "adapt"):
            data = x
            for before in layers[:number]:
                data = to_numpy(before(data))
            layer.adapt(data, verbose=0)
    return layers


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of saved models, and what each predicts and draws next."""
    folder = tmp_path_factory.mktemp("saved")
    x = catalogue.images(3, seed=8)
    np.save(folder / "x.npy", x)
    expected = {}
    for name in ("augment chain", "augment two stages"):
        model = model_with(name, normalization() if name == "augment chain" else [])
        file = f"{name.replace(' ', '_')}.keras"
        model.save(folder / file)
        if name == "augment chain":
            model.save_weights(folder / "m.weights.h5")
            (folder / "config.json").write_text(json.dumps(keras.saving.serialize_keras_object(model)))
        augment = model.get_layer("augment")
        expected[file] = {
            "predictions": model.predict(x, verbose=0),
            "draws": [to_numpy(augment.draw(3)) for _ in range(2)],
        }
    expected["weights"] = expected["augment_chain.keras"]
    return folder, expected


def check(answers, expected, tolerance):
    assert set(answers) == set(expected)
    for name, answer in answers.items():
        predictions = expected[name]["predictions"]  # some of several hundred: the tolerance is relative to the largest
        scale = max(1.0, np.abs(predictions).max())
        np.testing.assert_allclose(answer["predictions"], predictions, rtol=0, atol=tolerance * scale)
        np.testing.assert_array_equal(np.array(answer["draws"], "float32"), expected[name]["draws"])
        assert answer["strength"] == 0.75


def test_a_fresh_process_predicts_the_same_and_draws_on(saved):
    """From ``.keras`` files, and from weights alone: they carry statistics, strength and the seed's state."""
    folder, expected = saved
    check(run_fresh(LOAD.format(folder=str(folder))), expected, 1e-5)


def test_another_backend_predicts_the_same_and_draws_on(saved):
    folder, expected = saved
    check(run_fresh(LOAD.format(folder=str(folder)), OTHER_BACKEND[BACKEND]), expected, 1e-5)


@pytest.mark.usefixtures("uncompiled")
def test_every_layer_alone_survives_a_file(tmp_path):
    x = catalogue.images(2)
    layers = [catalogue.RANDOM[name](seed=3) for name in catalogue.RANDOM]
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    twins = [layer for layer in again.layers if hasattr(layer, "seed_generator")]
    by_name = {layer.name: layer for layer in twins}
    for layer in layers:
        twin = by_name[layer.name]
        assert type(twin) is type(layer)
        assert twin.get_config() == layer.get_config()
        np.testing.assert_array_equal(to_numpy(twin.draw(2)), to_numpy(layer.draw(2)))
