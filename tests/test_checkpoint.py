"""Checkpoints of ``adapt``: interrupted, killed, and continued to the same bits; files that are refused."""

import json
import os
import pathlib
import subprocess
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.normalization import FeaturewiseNormalization, ZCAWhitening, adapt, learning
from keras_norm_layers.normalization.adaptive import to_host
from keras_norm_layers.statistics import checkpoint as files
from keras_norm_layers.statistics.checkpoint import Checkpoint
from keras_norm_layers.statistics.covariance import Covariance
from keras_norm_layers.statistics.extremes import Extremes
from keras_norm_layers.statistics.moments import Moments
from keras_norm_layers.statistics.quantiles import Quantiles
from keras_norm_layers.statistics.spectrum import Spectrum
from keras_norm_layers.transforms import RandomBrightness

RNG = np.random.default_rng(0)
BATCHES = RNG.integers(0, 256, (12, 5, 4, 4, 3), dtype=np.uint8)
FLOATS = RNG.normal(100, 5, (12, 5, 4, 4, 3)).astype("float32")
COUNTS = {"images": np.arange(3), "sum": np.array(2.5)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "adapt.ckpt"


def stopped(data, after, error=KeyboardInterrupt):
    """A function that makes an iterator which raises instead of giving batch number ``after`` of all it ever gave."""
    given = []

    def read():
        for batch in data:
            if len(given) == after:
                raise error
            given.append(1)
            yield batch

    return read


def states(*layers):
    return [(name, value) for layer in layers for name, value in layer.accumulator.state().items()]


def assert_same(found, expected):
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, a), (_, b) in zip(found, expected):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_saved(path):
    checkpoint = Checkpoint(path, {"axis": -1, "size": np.int64(3)})
    assert checkpoint.load() is None
    assert os.listdir(path.parent) == []  # nothing is written before the first save
    for batches in (1, 2):
        checkpoint.save({"batches": batches}, {**COUNTS, "0/a b.c": np.zeros((0, 2), "float16")})
    position, arrays = Checkpoint(str(path), {"axis": -1, "size": 3}).load()
    assert position == {"batches": 2}
    assert set(arrays) == {"images", "sum", "0/a b.c"} and arrays["0/a b.c"].dtype == "float16"
    np.testing.assert_array_equal(arrays["images"], COUNTS["images"])
    assert os.listdir(path.parent) == [path.name]
    checkpoint.remove()
    checkpoint.remove()
    assert os.listdir(path.parent) == []


def test_a_save_that_fails_leaves_the_earlier_one(path, monkeypatch):
    checkpoint = Checkpoint(path, {})
    checkpoint.save({"batches": 1}, COUNTS)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot be saved \(No space left on device\).*adapt.ckpt"):
        checkpoint.save({"batches": 2}, COUNTS)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_refused_or_says_the_same(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "adapt.ckpt"
    Checkpoint(path, {"axis": -1}).save({"batches": 1}, COUNTS)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    broken = whole[:place] if cut else whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    path.write_bytes(broken)
    try:
        position, arrays = Checkpoint(path, {"axis": -1}).load()
    except ValueError as error:
        assert str(path) in str(error) and "Delete it" in str(error)
    else:
        assert not cut and position == {"batches": 1}
        assert all(np.array_equal(arrays[name], value) for name, value in COUNTS.items())
    assert path.read_bytes() == broken


def foreign(path, kind):
    """Writes a file that is no checkpoint of this version."""
    if kind == "text":
        path.write_text("my notes")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "npy":
        with open(path, "wb") as file:
            np.save(file, np.arange(3))
    elif kind in ("npz", "header", "pickle"):
        member = {"npz": np.arange(3), "header": np.arange(3), "pickle": np.array([{}], object)}[kind]
        with open(path, "wb") as file:
            np.savez(file, **{"a" if kind == "npz" else "header": member})
    else:
        header = {"mark": files.MARK, "format": 0, "package": "0.0.1", "fingerprint": {}, "position": {}}
        with open(path, "wb") as file:
            np.savez(file, header=files.to_bytes({**header, **({"mark": "mine"} if kind == "other mark" else {})}))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "no checkpoint"),
        ("empty", "no checkpoint"),
        ("npy", "no checkpoint"),
        ("npz", "no checkpoint"),
        ("header", "no checkpoint"),
        ("pickle", "no checkpoint"),
        ("other mark", "no checkpoint"),
        ("older", r"has the format 0 \(keras_norm_layers 0.0.1\), and this version .* reads format 1"),
    ],
)
def test_foreign_and_older_files_are_refused_and_left_as_they_are(path, kind, message):
    foreign(path, kind)
    before = path.read_bytes()
    layer = FeaturewiseNormalization()
    with pytest.raises(ValueError, match=rf"adapt\.ckpt.*{message}.*left as it was\. Delete it"):
        layer.adapt(BATCHES[0], checkpoint=path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_paths_that_cannot_be_written(tmp_path):
    read = []

    def data():
        read.append(1)
        yield BATCHES[0]

    layer = FeaturewiseNormalization()
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.ckpt", "no folder .*none")):
        with pytest.raises(ValueError, match=f"checkpoint=.*{message}"):
            layer.adapt(data, checkpoint=path)
    if pathlib.Path("/proc/self").exists():  # a folder where nobody, root neither, makes files
        with pytest.raises(ValueError, match=r"checkpoint=.*nothing can be written there"):
            layer.adapt(data, checkpoint="/proc/self/x.ckpt")
    for path in (5, "", b""):
        with pytest.raises(TypeError, match="must be the path of a file"):
            layer.adapt(data, checkpoint=path)
    assert not read


# -- interrupted and continued -----------------------------------------------------------------------------------------


ACCUMULATED = {
    "integers": (lambda: FeaturewiseNormalization(axis=(1, 2, 3)), BATCHES),
    "floats": (FeaturewiseNormalization, FLOATS),
    "whitening": (ZCAWhitening, BATCHES),
    "whitening of floats": (ZCAWhitening, FLOATS),
    "leading directions": (lambda: ZCAWhitening(rank=4), FLOATS),
}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("kind", ACCUMULATED)
def test_an_interrupted_layer_goes_on_to_the_same_bits(kind, error, path):
    make, data = ACCUMULATED[kind]
    expected = make()
    expected.adapt(lambda: iter(data))
    layer = make()
    read = stopped(data, 7, error)
    with pytest.raises(error):
        layer.adapt(read, checkpoint=path)
    assert float(to_host(layer.count)) == 0  # not half adapted
    position, _ = read_position(path)
    assert (position["batches"], position["images"]) == (7, 35)  # to the last batch that came, not the last save
    again = make()
    again.adapt(lambda: iter(data), checkpoint=path)
    assert_same(states(again), states(expected))
    assert not path.exists()


def read_position(path):
    with np.load(path) as file:
        header = json.loads(file["header"].tobytes())
        return header["position"], header


def test_an_interruption_within_a_batch_leaves_the_last_save(path, monkeypatch):
    expected = FeaturewiseNormalization()
    expected.adapt(iter(FLOATS))
    add, calls = Moments.add, []

    def interrupted(self, *args):
        result = add(self, *args)
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt  # the batch is in the accumulator, and the position does not say so yet
        return result

    monkeypatch.setattr(Moments, "add", interrupted)
    monkeypatch.setattr(learning, "INTERVAL", 0.0)
    monkeypatch.setattr(learning, "SHARE", 1.0)
    with pytest.raises(KeyboardInterrupt):
        FeaturewiseNormalization().adapt(iter(FLOATS), checkpoint=path)
    assert read_position(path)[0]["batches"] == 4
    layer = FeaturewiseNormalization()
    layer.adapt(iter(FLOATS), checkpoint=path)
    assert_same(states(layer), states(expected))


def test_saves_take_their_share_of_the_time_and_no_more(path, monkeypatch):
    clock, saves = [0.0], []
    monkeypatch.setattr(learning.time, "monotonic", lambda: clock[0])

    def save(self, position, arrays):
        saves.append(clock[0])
        clock[0] += 2.0

    def data():
        for batch in np.repeat(BATCHES, 10, 0):
            clock[0] += 1.0
            yield batch

    monkeypatch.setattr(Checkpoint, "save", save)
    FeaturewiseNormalization().adapt(data, checkpoint=path)
    assert saves == [1.0, 21.0, 41.0, 61.0, 81.0, 101.0, 121.0]  # a tenth of the time; the first one at once


def network():
    layers = [FeaturewiseNormalization(axis=(1, 2, 3)), FeaturewiseNormalization()]
    return keras.Sequential([keras.Input((4, 4, 3)), RandomBrightness(0.3), layers[0], keras.layers.ReLU(), layers[1]])


# In each of two passes of two rounds of twelve batches; a generator gives its batches once, and then they are kept.
@pytest.mark.parametrize(("after", "once"), [(4, True), (17, False), (29, False), (44, False)])
def test_a_model_goes_on_in_its_pass_and_round(after, once, path, uncompiled):
    options = {"augment": True, "rounds": 2, "checkpoint": path}
    model = network()
    with pytest.raises(KeyboardInterrupt):
        adapt(model, stopped(BATCHES, after)() if once else stopped(BATCHES, after), **options)
    assert all(float(to_host(model.layers[i].count)) == 0 for i in (1, 3))
    position, _ = read_position(path)
    assert (position["pass"], position["round"], position["batches"]) == (after // 24, after // 12 % 2, after % 12)
    again = network()
    adapt(again, iter(BATCHES) if once else (lambda: iter(BATCHES)), **options)
    expected = network()
    adapt(expected, lambda: iter(BATCHES), augment=True, rounds=2, seed=position["seed"])
    assert_same(states(*again.layers[1::2]), states(*expected.layers[1::2]))
    assert not path.exists()


def test_a_sample_goes_on_with_the_seed_of_the_file(path):
    layer, again, expected = (FeaturewiseNormalization() for _ in range(3))
    with pytest.raises(KeyboardInterrupt):
        layer.adapt(stopped(BATCHES, 7), sample=0.5, checkpoint=path)
    seed = read_position(path)[0]["seed"]
    again.adapt(lambda: iter(BATCHES), sample=0.5, checkpoint=path)
    expected.adapt(lambda: iter(BATCHES), sample=0.5, seed=seed)
    assert 5 < float(to_host(again.count)) < 55
    assert_same(states(again), states(expected))


def test_arrays_go_on_without_reading_what_was_read(path):
    class Watched:
        shape, dtype = (60, 4, 4, 3), np.dtype("uint8")
        stop, asked = True, []

        def __getitem__(self, part):
            if self.stop and part.start == 30:
                raise OSError("the disk is gone")
            self.asked.append(part.start)
            return BATCHES.reshape(self.shape)[part]

    data, layer = Watched(), FeaturewiseNormalization()
    with pytest.raises(OSError, match="disk is gone"):
        layer.adapt(data, batch_size=10, checkpoint=path)
    assert data.asked == [0, 10, 20]
    data.stop = False
    layer.adapt(data, batch_size=10, checkpoint=path)
    assert data.asked == [0, 10, 20, 30, 40, 50]
    expected = FeaturewiseNormalization()
    expected.adapt(BATCHES.reshape(60, 4, 4, 3))
    assert_same(states(layer), states(expected))


def test_progress_goes_on(path, capsys):
    with pytest.raises(KeyboardInterrupt):
        FeaturewiseNormalization().adapt(stopped(BATCHES, 7), steps=12, checkpoint=path)
    FeaturewiseNormalization(name="norm").adapt(lambda: iter(BATCHES), steps=12, checkpoint=path, verbose=1)
    out = capsys.readouterr().out
    assert "8/12" in out and "12/12" in out and " 1/12" not in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": {"axis": None}}, r"layers\[0\]\.axis was -1, and is None now"),
        ({"batch_size": 6}, "arguments.batch_size was 5, and is 6 now"),
        ({"steps": 11}, "arguments.steps was None, and is 11 now"),
        ({"sample": 0.5}, "arguments.sample was None, and is 0.5 now"),
        ({"seed": 1}, "arguments.seed was None, and is 1 now"),
        ({"data": np.zeros((61, 4, 4, 3), "uint8")}, r"data\.shape\[0\] was 60, and is 61 now"),
        ({"data": np.zeros((60, 4, 4, 3), "float32")}, "data.dtype was 'uint8', and is 'float32' now"),
        ({"data": list(BATCHES.reshape(60, 4, 4, 3))}, "data.type was 'ndarray', and is 'list' now"),
    ],
)
def test_the_checkpoint_of_another_call_is_refused(change, message, path, monkeypatch):
    def failing(self, *args):
        raise OSError("no more")

    options = {"data": BATCHES.reshape(60, 4, 4, 3), "batch_size": 5}
    with monkeypatch.context() as patch:
        patch.setattr(FeaturewiseNormalization, "_commit", failing)
        with pytest.raises(OSError, match="no more"):
            FeaturewiseNormalization().adapt(**options, checkpoint=path)
    before = path.read_bytes()
    layer = FeaturewiseNormalization(**change.get("layer", {}))
    change = {key: value for key, value in change.items() if key != "layer"}
    with pytest.raises(ValueError, match=f"made by another call:.*{message}.*Delete it"):
        layer.adapt(**{**options, **change}, checkpoint=path)
    assert path.read_bytes() == before
    FeaturewiseNormalization(name="another_name").adapt(**options, checkpoint=path, verbose=0)
    assert not path.exists()


def test_the_checkpoint_of_another_model_is_refused(path):
    def model(scale, kernel):
        dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.Constant(kernel))
        return keras.Sequential(
            [keras.Input((4, 4, 3)), keras.layers.Rescaling(scale), dense, FeaturewiseNormalization()]
        )

    with pytest.raises(KeyboardInterrupt):
        adapt(model(2.0, 1.0), stopped(BATCHES, 5), checkpoint=path)
    with pytest.raises(ValueError, match=r"before\[\d\]\.scale was 2.0, and is 3.0 now"):
        adapt(model(3.0, 1.0), lambda: iter(BATCHES), checkpoint=path)
    weights = model(2.0, 1.0)
    weights.set_weights([value * 2 for value in weights.get_weights()])
    with pytest.raises(ValueError, match="weights before was"):
        adapt(weights, lambda: iter(BATCHES), checkpoint=path)
    adapt(model(2.0, 1.0), lambda: iter(BATCHES), checkpoint=path)


@pytest.mark.parametrize("make", [Moments, Extremes, Quantiles, lambda: Covariance(48), lambda: Spectrum(48, 2, 1)])
@pytest.mark.parametrize("data", [BATCHES, FLOATS], ids=["integers", "floats"])
def test_a_state_in_the_middle_changes_no_bit(make, data):
    whole, parts = make(), make()
    for batch in data:
        whole.add(batch)
        parts.add(batch)
        parts.state()  # asking for it is no change either
        parts = type(parts).from_state(parts.state())
    assert_same(list(parts.state().items()), list(whole.state().items()))


# -- killed ------------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_with_the_same_bits():
    """The script kills processes that run layers only, so it takes Keras's NumPy backend, whichever the suite runs."""
    script = pathlib.Path(__file__).parent / "kill.py"
    done = subprocess.run(
        [sys.executable, str(script), "4", "layers"],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for counts in json.loads(done.stdout.strip().splitlines()[-1]).values():
        assert counts["killed"] == 4 and counts["with a checkpoint"] > 0
        assert counts["finished"] == counts["equal"] > 0


# -- memory ------------------------------------------------------------------------------------------------------------


def test_a_million_images_take_the_memory_of_a_thousand(path):
    batch = RNG.integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8)

    def peak(batches):
        layer = FeaturewiseNormalization()
        tracemalloc.start()
        layer.adapt((batch.copy() for _ in range(batches)), checkpoint=path)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert float(to_host(layer.count)) == 1000 * batches
        return top

    peak(1)  # what is made once
    assert peak(1000) < peak(10) + 100_000
