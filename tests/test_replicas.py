"""Data-parallel training on TensorFlow: two replicas draw different numbers, and the same again under the same seed."""

import numpy as np
from conftest import run_fresh

TWO_REPLICAS = """
import json
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, keras_norm_layers as knl
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.full((8, 4, 4, 1), 100, "uint8")

def run():
    with strategy.scope():
        augment = knl.Augment([knl.RandomBrightness(0.3), knl.RandomFlip()], seed=3)
        augment.build((None, 4, 4, 1))
        model = keras.Sequential([keras.Input((4, 4, 1)), augment])
    step = tf.function(lambda batch: strategy.run(lambda b: model(b, training=True), (batch,)))
    data = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(2))
    return [[r.numpy()[:, 0, 0, 0].tolist() for r in strategy.experimental_local_results(step(b))] for b in data]

def fit():
    with strategy.scope():
        layers = [keras.Input((4, 4, 1)), knl.Augment([knl.RandomBrightness(0.3)], seed=3), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    return model.fit(x / 255.0, np.zeros((8, 1)), batch_size=8, epochs=2, verbose=0).history["loss"]

print(json.dumps({"first": run(), "second": run(), "loss": fit()}))
"""


def test_replicas_draw_different_numbers_and_the_seed_repeats_them(only_tensorflow):
    answer = run_fresh(TWO_REPLICAS)
    steps = np.array(answer["first"])
    assert steps.shape == (2, 2, 4)
    assert len(set(steps.ravel().round(4).tolist())) == 16
    np.testing.assert_array_equal(steps, np.array(answer["second"]))
    assert np.isfinite(answer["loss"]).all()
