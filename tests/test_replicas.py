"""Data-parallel training: every replica and shard draws numbers of its own, and the same again under the same seed."""

import numpy as np
import pytest
from conftest import BACKEND, run_fresh

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


def test_the_first_replica_draws_what_one_process_draws(only_tensorflow):
    """So a batch on one replica, or on a strategy of one, has the bits of a run without a strategy."""
    answer = run_fresh(
        TWO_REPLICAS.split("print(")[0]
        + """
augment = knl.Augment([knl.RandomBrightness(0.3), knl.RandomFlip()], seed=3)
alone = [np.asarray(augment(x[:4]))[:, 0, 0, 0].tolist() for _ in range(2)]
print(json.dumps({"replicas": run(), "alone": alone}))
"""
    )
    np.testing.assert_array_equal(np.array(answer["replicas"])[:, 0], np.array(answer["alone"]))


# JAX ------------------------------------------------------------------------------------------------------------------

TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}

# A model that keeps the mean of each image of a batch in a weight: what the training step saw, as gradients.
SHARDED_TRAINING = """
import json
import numpy as np, jax, keras, keras_norm_layers as knl
assert len(jax.devices()) == 2
x = np.linspace(50, 200, 8, dtype="float32").reshape(8, 1, 1, 1) * np.ones((8, 4, 4, 1), "float32")

class Weigh(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(8,), initializer="zeros")
    def call(self, images):
        return keras.ops.mean(images, (1, 2, 3)) * self.w

def means(epochs=1):
    augment = knl.Augment([knl.RandomBrightness(0.3), knl.RandomRotation(0.1)], seed=3)
    model = keras.Sequential([keras.Input((4, 4, 1), batch_size=8), augment, Weigh()])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: -8.0 * p)
    model.fit(x, np.zeros(8), batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    devices.append(len(model.layers[-1].w.value.sharding.device_set))
    return np.asarray(model.layers[-1].w).tolist()

devices = []
alone = means()
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=keras.distribution.list_devices()))
first, second, two = means(), means(), means(epochs=2)
print(json.dumps({"alone": alone, "first": first, "second": second, "two": two, "devices": devices}))
"""


@pytest.fixture
def only_jax():
    if BACKEND != "jax":
        pytest.skip(f"about JAX's devices; the Keras backend is {BACKEND}")


def test_training_on_two_devices_sees_the_images_of_one(only_jax):
    answer = {name: np.array(value) for name, value in run_fresh(SHARDED_TRAINING, **TWO_DEVICES).items()}
    assert answer["devices"].tolist() == [1, 2, 2, 2]
    gray = np.linspace(50, 200, 8)
    added = answer["first"] - gray
    assert len(set(added.round(3))) == 8, "two shards drew the same"
    np.testing.assert_allclose(answer["first"], answer["alone"], rtol=1e-6)  # two programs: another order of sums
    np.testing.assert_array_equal(answer["first"], answer["second"])
    assert np.abs(answer["two"] - 2 * answer["first"]).min() > 1e-3, "the second step drew what the first did"


SHARD_MAP = """
import json
import numpy as np, jax, keras, keras_norm_layers as knl
from jax.sharding import AxisType, PartitionSpec as P
x = np.full((8, 4, 4, 1), 100, "float32")
augment = knl.Augment([knl.RandomBrightness(0.3)], seed=3)
model = keras.Sequential([keras.Input((4, 4, 1)), augment])
state = [v.value for v in model.non_trainable_variables]

def step(state, images):
    return model.stateless_call([], state, images, training=True)

def shard_map(spec, names=("a", "b"), sizes=(2, 1), **options):
    mesh = jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), spec), out_specs=(spec, P()), **options)
    images, after = jax.jit(mapped)(state, x)
    return np.asarray(images)[:, 0, 0, 0].tolist(), [np.asarray(v).tolist() for v in after]

once = np.asarray(jax.jit(step)(state, x)[0])[:, 0, 0, 0].tolist()
pmapped = jax.pmap(step, in_axes=(None, 0), out_axes=(0, None))(state, x.reshape(2, 4, 4, 4, 1))[0]
print(json.dumps({
    "once": once, "sharded": shard_map(P("a")), "unchecked": shard_map(P("a"), check_vma=False),
    "other axis": shard_map(P("b"))[0], "pmap": np.asarray(pmapped)[..., 0, 0, 0].ravel().tolist(),
    "copies": shard_map(P("a"), sizes=(1, 2))[0]}))
"""


def test_programs_of_a_shard_draw_numbers_of_their_own(only_jax):
    import jax

    if not hasattr(jax, "shard_map"):
        pytest.skip("this JAX has no jax.shard_map")
    answer = run_fresh(SHARD_MAP, **TWO_DEVICES)
    shards, state = answer["sharded"]
    assert len(set(shards)) == 8
    assert shards[:4] == answer["once"][:4], "the first shard draws as one device does"
    assert answer["unchecked"] == [shards, state]
    assert answer["pmap"] == shards
    # Devices that hold the same images (a model split over the axis) draw the same numbers for them.
    assert answer["other axis"] == answer["once"]
    assert answer["copies"] == answer["once"]


# torch ----------------------------------------------------------------------------------------------------------------

RANKS = """
import json
import numpy as np, torch, keras, keras_norm_layers as knl

def work(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    augment = knl.Augment([knl.RandomBrightness(0.3)], seed=3)
    drawn = [np.asarray(augment(np.full((4, 4, 4, 1), 100, "uint8")))[:, 0, 0, 0].tolist() for _ in range(2)]
    with open(f"{folder}/{rank}", "w") as file:
        json.dump(drawn, file)
    torch.distributed.destroy_process_group()

if __name__ == "__main__":
    import os, sys, tempfile
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(2):
            children.append(os.fork())
            if children[-1] == 0:
                work(rank, folder)
                os._exit(0)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        print(json.dumps([json.load(open(f"{folder}/{rank}")) for rank in range(2)]))
"""


def test_processes_of_torch_distributed_draw_numbers_of_their_own():
    if BACKEND != "torch":
        pytest.skip(f"about torch.distributed; the Keras backend is {BACKEND}")
    import torch

    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    drawn = np.array(run_fresh(RANKS))
    assert drawn.shape == (2, 2, 4)
    assert len(set(drawn.ravel().round(4).tolist())) == 16
