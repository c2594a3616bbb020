"""Kills ``adapt`` with SIGKILL at random moments, lets it go on from its checkpoint, and compares the bits.

    KERAS_BACKEND=tensorflow python tests/kill.py 50            # a model: two passes, augmented copies in two rounds
    KERAS_BACKEND=numpy      python tests/kill.py 4 layers      # layers alone, quick; what the test suite runs

Each attempt is a process of its own (a fork of this one, which has imported everything and computed nothing). It reads
a generator that takes some milliseconds a batch. When an attempt comes to its end before it is killed, its result is
compared with that of a run without checkpoint and interruption, and the next attempt begins anew. Prints JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

if os.environ.get("KERAS_BACKEND") == "numpy":
    sys.modules["tensorflow"] = None  # layers alone need none of it, and its import takes longer than all the rest

import keras  # the imports take seconds; the attempts inherit them
import numpy as np

from keras_norm_layers.normalization import FeaturewiseNormalization, ZCAWhitening, adapt, learning
from keras_norm_layers.transforms import RandomFlip

RNG = np.random.default_rng(0)
BATCHES, SIZE = 40, (6, 4, 4, 3)
INTEGERS = RNG.integers(0, 256, (BATCHES, *SIZE), dtype=np.uint8)
FLOATS = RNG.normal(1e3, 3.0, (BATCHES, *SIZE)).astype("float32")


def slow(data, pause=0.004):
    """The batches, each after a pause."""

    def read():
        for batch in data:
            time.sleep(pause)
            yield batch

    return read


def integers(checkpoint):
    """Exact sums."""
    layer = FeaturewiseNormalization(axis=(1, 2, 3))
    layer.adapt(slow(INTEGERS), checkpoint=checkpoint)
    return layer.accumulator.state()


def floats(checkpoint):
    """Centred moments of a sample, merged batch after batch."""
    layer = FeaturewiseNormalization(axis=(1, 2, 3))
    layer.adapt(slow(FLOATS), checkpoint=checkpoint, sample=0.7, seed=3)
    return layer.accumulator.state()


def whitening(checkpoint):
    """A covariance of bytes, whose sums are exact."""
    layer = ZCAWhitening()
    layer.adapt(slow(INTEGERS), checkpoint=checkpoint)
    return {**layer.accumulator.state(), "matrix": keras.ops.convert_to_numpy(layer.matrix)}


def model(checkpoint):
    """Two passes over two rounds of random copies: 160 batches."""
    layers = [FeaturewiseNormalization(axis=(1, 2, 3)), FeaturewiseNormalization()]
    network = keras.Sequential(
        [keras.Input(SIZE[1:]), RandomFlip("horizontal"), layers[0], keras.layers.ReLU(), layers[1]]
    )
    adapt(network, slow(INTEGERS, 0.01), augment=True, rounds=2, seed=5, checkpoint=checkpoint)
    return {f"{i} {key}": value for i, layer in enumerate(layers) for key, value in layer.accumulator.state().items()}


def attempt(work, path, result):
    """Runs ``work`` in a process of its own, which writes the result to a file; its process id, once it works."""
    begun, begin = os.pipe()
    child = os.fork()
    if child:
        os.close(begin)
        os.read(begun, 1)
        os.close(begun)
        return child
    code = 1
    try:
        learning.INTERVAL = 0.01  # nearly every batch is saved, so that many of the kills hit a save
        learning.SHARE = 0.5
        os.write(begin, b"x")
        np.savez(result, **work(path))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def killed_until_done(work, kills):
    """Kills attempts until ``kills`` were killed, and lets the last one finish; what happened, as a dictionary."""
    folder = tempfile.mkdtemp()
    path, result = os.path.join(folder, "adapt.ckpt"), os.path.join(folder, "result.npz")
    child = attempt(work, None, os.path.join(folder, "expected.npz"))
    start = time.monotonic()
    os.waitpid(child, 0)
    seconds = time.monotonic() - start  # of a run that nothing interrupts
    expected = dict(np.load(os.path.join(folder, "expected.npz")))
    counts = {"killed": 0, "with a checkpoint": 0, "in a save": 0, "finished": 0, "equal": 0}
    while True:
        child = attempt(work, path, result)
        last = counts["killed"] == kills
        if not last:
            if counts["killed"]:
                time.sleep(random.uniform(0, 1.2 * seconds))
            while not (counts["killed"] or os.path.exists(path) or os.path.exists(result)):
                time.sleep(0.001)  # the first one is killed once there is something to go on from
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            counts["killed"] += 1
            counts["with a checkpoint"] += os.path.exists(path)
            counts["in a save"] += os.path.exists(path + ".partial")
            continue
        assert os.WEXITSTATUS(status) == 0, "an attempt failed; see above"
        assert sorted(os.listdir(folder)) == ["expected.npz", "result.npz"], os.listdir(folder)
        found = dict(np.load(result))
        os.remove(result)
        equal = found.keys() == expected.keys()
        equal = equal and all(found[k].dtype == v.dtype and np.array_equal(found[k], v) for k, v in expected.items())
        counts["finished"] += 1
        counts["equal"] += bool(equal)
        if last:
            shutil.rmtree(folder)
            return {"seconds alone": round(seconds, 2), **counts}


def main():
    """Kills as often as the command line says."""
    FeaturewiseNormalization().get_config()  # at the first time Keras imports TensorFlow, if there is one
    works = (integers, floats, whitening) if sys.argv[2:] == ["layers"] else (integers, floats, model)
    print(json.dumps({work.__name__: killed_until_done(work, int(sys.argv[1])) for work in works}))


if __name__ == "__main__":
    main()
