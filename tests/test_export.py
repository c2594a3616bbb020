"""``export_for_serving``: what it writes, that it serves the same numbers without us, and what it refuses."""

import importlib.util
import io
import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from PIL import Image

import keras_norm_layers as knl
from keras_norm_layers.export import ExportReport, export_for_serving

tf = pytest.importorskip("tensorflow")

# From JAX and torch the same code runs in a second process of some seconds: what that adds is tested there, no more.
endpoint_test = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same on every backend")


@pytest.fixture(autouse=True)
def _fresh_keras():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_image_data_format("channels_last")


def cnn(shape=(12, 10, 3), dtype="uint8"):
    return keras.Sequential(
        [
            keras.Input(shape, dtype=dtype),
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomRotation(0.2),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


def pixels(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def story():
    """The story of the package: raw pixels, augmentation, statistics that travel, a convolution."""
    inputs = keras.Input((9, 8, 3), dtype="uint8")
    transforms = [knl.RandomFlip("horizontal"), knl.RandomRotation(0.1), knl.RandomBrightness(0.2)]
    x = knl.Augment(transforms, seed=7, name="augment")(inputs)
    x = knl.FeaturewiseNormalization(name="normalize")(x)
    return keras.Model(inputs, keras.layers.Conv2D(2, 3)(x))


def file_of(image, format="PNG", **options):
    """An image (height, width, channels) as the bytes of a file, by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format, **options)
    return buffer.getvalue()


def same_pixels_model(size, channels=3, dtype="float32"):
    """A model that answers with the pixels it was given: shows what ``serve_bytes`` hands over."""
    return keras.Sequential([keras.Input((*size, channels), dtype=dtype), keras.layers.Rescaling(1.0)])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One exported model: (model, path, report)."""
    keras.utils.set_random_seed(3)
    model, path = cnn(), tmp_path_factory.mktemp("exported") / "nested" / "1"
    return model, path, export_for_serving(model, path, verbose=False)


def test_report_says_what_was_written(exported, capsys, tmp_path):
    _, path, report = exported
    assert isinstance(report, ExportReport) and report.path == str(path)
    assert {e.name: e.takes for e in report.endpoints} == {
        "serve": "uint8 (None, 12, 10, 3)",
        "serve_float": "float32 (None, 12, 10, 3)",
        "serve_bytes": "string (None,)",
    }
    assert report.max_difference < 1e-5 and report.size_bytes > 1000 and report.samples == 4
    text = str(report)
    for word in ("serve_bytes", "uint8 (None, 12, 10, 3)", "MB", "no random operation"):
        assert word in text
    assert os.listdir(path.parent) == ["1"], "something was left beside the SavedModel"


def test_serves_what_predict_gives(exported):
    model, path, _ = exported
    loaded, images = tf.saved_model.load(str(path)), pixels(5, 12, 10, 3)
    expected = model.predict(images, verbose=0)
    for given in (images, images.astype("float32"), images + np.float32(0.4), tf.constant(images)):
        np.testing.assert_allclose(loaded.serve(given), expected, atol=1e-5)
    assert set(loaded.signatures) == {"serve", "serve_float", "serve_bytes", "serving_default"}
    for name in ("serve", "serving_default"):
        (served,) = loaded.signatures[name](images=tf.constant(images)).values()
        np.testing.assert_allclose(served, expected, atol=1e-5)
    (served,) = loaded.signatures["serve_float"](images=tf.constant(images, tf.float32)).values()
    np.testing.assert_allclose(served, expected, atol=1e-5)
    files = [file_of(image) for image in images]
    (served,) = loaded.signatures["serve_bytes"](image_bytes=tf.constant(files)).values()
    np.testing.assert_array_equal(served, loaded.serve(images))


@endpoint_test
def test_floats_saturate_for_an_integer_model(tmp_path):
    export_for_serving(same_pixels_model((2, 2), 1, "uint8"), tmp_path / "m", verbose=False)
    given = np.array([-7, 0.4, 254.6, 300], "float32").reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        tf.saved_model.load(str(tmp_path / "m")).serve(given).numpy().ravel(), [0, 0, 255, 255]
    )


def test_equal_exports_answer_equally_twice(exported, tmp_path):
    model, path, _ = exported
    export_for_serving(model, tmp_path / "again", verbose=False)
    images = pixels(3, 12, 10, 3)
    answers = []
    for place in (path, tmp_path / "again"):
        loaded = tf.saved_model.load(str(place))
        answers += [loaded.serve(images).numpy(), loaded.serve(images).numpy()]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_empty_batches(exported):
    loaded = tf.saved_model.load(str(exported[1]))
    assert loaded.serve(pixels(0, 12, 10, 3)).shape == (0, 3)
    assert loaded.serve_bytes(tf.zeros([0], tf.string)).shape == (0, 3)


WITHOUT_US = """
    import sys

    class NotInstalled:  # an import finder for which Keras and this package are not there
        def __init__(self, finder):
            self.finder = finder

        def find_spec(self, name, *where):
            return None if name.split(".")[0] in ("keras", "keras_norm_layers") else self.finder.find_spec(name, *where)

        def __getattr__(self, name):
            return getattr(self.finder, name)

    sys.meta_path[:] = [NotInstalled(finder) for finder in sys.meta_path]
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(sys.argv[1])
    data = np.load(sys.argv[2])
    files = [tf.io.encode_png(image).numpy() for image in data]
    np.savez(sys.argv[3], raw=loaded.serve(data), files=loaded.serve_bytes(files))
    assert not {"keras", "keras_norm_layers"} & set(sys.modules)
"""


def test_a_process_without_keras_gets_the_same_numbers(exported, tmp_path):
    model, path, _ = exported
    images = pixels(4, 12, 10, 3)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_US), path, tmp_path / "images.npy", tmp_path / "out.npz"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_allclose(found["raw"], model.predict(images, verbose=0), atol=1e-5)
        np.testing.assert_array_equal(found["raw"], found["files"])


def graph_operations(path):
    """Names of all operations in the file on disk, those of its functions too."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    return {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}


def test_no_random_stateful_or_resampling_operation_in_the_file(exported):
    operations = graph_operations(exported[1])
    bad = ("Random", "Multinomial", "TruncatedNormal", "Rng", "ImageProjectiveTransform")
    assert not {op for op in operations if any(word in op for word in bad)}
    # The one "Stateful" is the name of a plain function call that reads weights.
    assert {op for op in operations if "Stateful" in op} <= {"StatefulPartitionedCall"}


@keras.saving.register_keras_serializable("test_export")
class AlwaysRandom(keras.Model):
    """Calls its random layer with ``training=True``."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.turn = keras.layers.RandomRotation(0.3, name="turn")

    def call(self, images, training=None):
        return self.turn(images, training=True)

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable("test_export")
class Counting(keras.layers.Layer):
    """Writes to a variable at every call, as a draw of a seeded layer does."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, images):
        self.calls.assign_add(1.0)
        return keras.ops.cast(images, "float32") + self.calls


def test_random_graph_is_refused(tmp_path):
    model = AlwaysRandom()
    images = pixels(2, 8, 8, 3).astype("float32")
    model(images)
    with pytest.raises(ValueError, match=r"(?s)random.*training=None") as caught:
        export_for_serving(model, tmp_path / "m", samples=images)
    assert "'turn' (RandomRotation)" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_our_layers_serve_statistics_and_no_augmentation(tmp_path):
    model, images = story(), pixels(20, 9, 8, 3)
    with pytest.raises(Exception, match=r"(?i)normalize.*adapt|adapt.*normalize"):
        export_for_serving(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []
    knl.adapt(model, images, verbose=0)
    model.predict(images, verbose=0)
    knl.adapt(model, images // 4, verbose=0)  # after a trace: what is exported must be these statistics
    export_for_serving(model, tmp_path / "m", samples=images, verbose=False)
    pixels_in = (images - (images // 4).mean((0, 1, 2))) / ((images // 4).std((0, 1, 2)) + 1e-6)
    expected = keras.ops.convert_to_numpy(model.layers[-1](pixels_in.astype("float32")))
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    np.testing.assert_allclose(loaded.serve(images), expected, rtol=1e-4, atol=1e-4)
    assert not {op for op in graph_operations(tmp_path / "m") if "Random" in op or "ImageProjective" in op}


@endpoint_test
def test_whitening_is_served(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 3, 4, 1), dtype=np.uint8)
    model = keras.Sequential([keras.Input((3, 4, 1), dtype="uint8"), knl.ZCAWhitening(), knl.SamplewiseNormalization()])
    knl.adapt(model, images, verbose=0)
    report = knl.export_for_serving(model, tmp_path / "zca", samples=images, verbose=False)
    loaded = tf.saved_model.load(report.path)
    np.testing.assert_allclose(loaded.serve(images), model.predict(images, verbose=0), atol=1e-5)


@endpoint_test
def test_our_layers_forced_to_augment_are_refused(tmp_path):
    """They draw without any random operation of TensorFlow, so the moving seed is what gives them away."""

    class Always(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.layers = [knl.Augment([knl.RandomFlip("horizontal"), knl.RandomRotation(0.1)], name="augment")]

        def call(self, images):
            return self.layers[0](images, training=True)

    model = keras.Sequential([keras.Input((9, 8, 3)), Always()])
    with pytest.raises(ValueError, match=r"at inference.*'augment' \(Augment\)"):
        export_for_serving(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


@endpoint_test
def test_random_predict_is_refused(tmp_path):
    """A subclassed model whose ``call`` knows no ``training``: its own ``predict`` augments."""

    class NoTraining(keras.Model):
        def __init__(self):
            super().__init__()
            self.turn = keras.layers.RandomRotation(0.3)

        def call(self, images):
            return self.turn(images)

    model, images = NoTraining(), pixels(2, 8, 8, 3).astype("float32")
    model(images)
    with pytest.raises(ValueError, match=r"two different answers.*training=None"):
        export_for_serving(model, tmp_path / "m", samples=images)
    assert os.listdir(tmp_path) == []


@endpoint_test
def test_half_precision_needs_a_wider_tolerance_at_most(tmp_path):
    """float16 layers inside: what is served is what ``predict`` gives, as both run the same graph."""
    inputs = keras.Input((8, 8, 1), dtype="uint8")
    outputs = keras.layers.Conv2D(4, 3, dtype="mixed_float16")(keras.layers.Rescaling(1 / 255)(inputs))
    report = export_for_serving(keras.Model(inputs, outputs), tmp_path / "m", tolerance=1e-2, verbose=False)
    assert "float16" in str(report)


@endpoint_test
def test_graph_that_writes_to_variables_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), Counting(name="counting")])
    with pytest.raises(ValueError, match=r"writes to its variables.*Assign.*'counting' \(Counting\)"):
        export_for_serving(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A loaded SavedModel that answers with the 8 x 6 x 3 pixels it was given."""
    path = tmp_path_factory.mktemp("reader") / "m"
    export_for_serving(same_pixels_model((8, 6)), path, verbose=False)
    return tf.saved_model.load(str(path))


@endpoint_test
def test_bytes_of_the_right_size_keep_their_pixels(reader):
    images = pixels(3, 8, 6, 3)
    np.testing.assert_array_equal(reader.serve_bytes([file_of(image) for image in images]), images)
    jpegs = [file_of(image, "JPEG", quality=90) for image in images]
    expected = [np.asarray(Image.open(io.BytesIO(data))) for data in jpegs]
    np.testing.assert_array_equal(reader.serve_bytes(jpegs), expected)


@endpoint_test
@pytest.mark.parametrize(("height", "width"), [(40, 30), (16, 13), (4, 3), (8, 5), (100, 6)])
def test_bytes_are_resized_with_antialiasing(reader, height, width):
    image = pixels(height, width, 3)
    served = reader.serve_bytes([file_of(image)])[0]
    # Pillow's bilinear filter has the same support when it reduces; on float channels it does not round.
    channels = [
        Image.fromarray(image[..., c].astype("float32")).resize((6, 8), Image.Resampling.BILINEAR) for c in range(3)
    ]
    np.testing.assert_allclose(served, np.stack([np.asarray(c) for c in channels], -1), atol=0.02)


@endpoint_test
def test_resized_bytes_are_rounded_for_an_integer_model(tmp_path, reader):
    export_for_serving(same_pixels_model((8, 6), dtype="uint8"), tmp_path / "m", verbose=False)
    files = [file_of(pixels(20, 17, 3))]
    rounded = tf.saved_model.load(str(tmp_path / "m")).serve_bytes(files)
    np.testing.assert_array_equal(rounded, np.rint(reader.serve_bytes(files)))


@endpoint_test
def test_bad_bytes_name_the_items(reader):
    png, jpeg = file_of(pixels(9, 9, 3)), file_of(pixels(64, 64, 3), "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    cases = [b"no image", b"", png[: len(png) // 2], jpeg[: len(jpeg) // 2], jpeg[:-2], png[:-1], bytes(flipped)]
    cases.append(file_of(pixels(4, 4, 3), "BMP"))
    for bad in cases:
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"items \[2\] of the batch \(counted from 0\) hold no"
        ):
            reader.serve_bytes([png, jpeg, bad, jpeg])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"items \[0 2\] of the batch"):
        reader.signatures["serve_bytes"](image_bytes=tf.constant([b"a", png, b"b"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"items \[0\] of the batch"):
        reader.serve_bytes([b""])


@endpoint_test
@pytest.mark.parametrize("channels", [1, 4])
def test_bytes_in_other_channels(tmp_path, channels):
    export_for_serving(same_pixels_model((5, 4), channels), tmp_path / "m", verbose=False)
    loaded, image = tf.saved_model.load(str(tmp_path / "m")), pixels(5, 4, channels)
    np.testing.assert_array_equal(loaded.serve_bytes([file_of(image)])[0], image)
    if channels == 4:
        colour = pixels(5, 4, 3)
        opaque = np.concatenate([colour, np.full((5, 4, 1), 255)], -1)
        np.testing.assert_array_equal(loaded.serve_bytes([file_of(colour)])[0], opaque)


@endpoint_test
def test_no_bytes_for_six_channels(tmp_path):
    report = export_for_serving(same_pixels_model((5, 4), 6), tmp_path / "m", verbose=False)
    assert [e.name for e in report.endpoints] == ["serve", "serve_uint8"]
    assert "has 6" in str(report) and not hasattr(tf.saved_model.load(str(tmp_path / "m")), "serve_bytes")


@endpoint_test
def test_open_height_and_width(tmp_path):
    report = export_for_serving(same_pixels_model((None, None), 3), tmp_path / "m", verbose=False)
    assert "resizes nothing" in str(report)
    loaded, images = tf.saved_model.load(str(tmp_path / "m")), pixels(3, 7, 5, 3)
    files = [file_of(image) for image in images]
    np.testing.assert_array_equal(loaded.serve_bytes(files), images)
    assert loaded.serve_bytes(tf.zeros([0], tf.string)).shape[0] == 0
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"items \[3\] of the batch .* another height and width"):
        loaded.serve_bytes([*files, file_of(pixels(5, 7, 3))])


@endpoint_test
def test_channels_first(tmp_path):
    inputs = keras.Input((3, 7, 5), dtype="uint8")
    model = keras.Model(inputs, keras.layers.Rescaling(0.5)(inputs))
    export_for_serving(model, tmp_path / "m", verbose=False)
    images = pixels(2, 7, 5, 3)
    served = tf.saved_model.load(str(tmp_path / "m")).serve_bytes([file_of(image) for image in images])
    np.testing.assert_array_equal(served, np.moveaxis(images, -1, 1) * 0.5)


@endpoint_test
def test_dict_output_and_dict_input(tmp_path):
    inputs = keras.Input((6, 6, 1), name="picture")
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model({"picture": inputs}, {"mean": pooled, "twice": keras.layers.Rescaling(2.0)(pooled)})
    export_for_serving(model, tmp_path / "m", verbose=False)
    images = pixels(2, 6, 6, 1)
    served = tf.saved_model.load(str(tmp_path / "m")).signatures["serve"](images=tf.constant(images, tf.float32))
    np.testing.assert_allclose(served["twice"], 2 * images.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(served["mean"], images.mean((1, 2)), rtol=1e-5)


@endpoint_test
def test_samples_in_0_to_1_get_a_note(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
    samples = pixels(3, 4, 4, 1) / np.float32(255)
    report = export_for_serving(model, tmp_path / "m", samples=samples, verbose=False)
    assert "pixel values 0..255" in str(report) and report.samples == 3


@endpoint_test
def test_overwriting(tmp_path):
    model, path = same_pixels_model((4, 4), 1), tmp_path / "m"
    export_for_serving(model, path, verbose=False)
    with pytest.raises(ValueError, match="overwrite=True"):
        export_for_serving(model, path)
    report = export_for_serving(same_pixels_model((4, 5), 1), path, overwrite=True, verbose=False)
    assert "4, 5" in str(report) and os.listdir(tmp_path) == ["m"]
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="no SavedModel"):
        export_for_serving(model, tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious" / "thesis.txt").exists()
    with pytest.raises(ValueError, match="is a file"):
        export_for_serving(model, tmp_path / "precious" / "thesis.txt", overwrite=True)


def test_wrong_answers_leave_nothing(tmp_path, monkeypatch):
    """A model whose ``predict`` says something else than its graph stops the export."""
    model = same_pixels_model((4, 4), 1)
    monkeypatch.setattr(model, "predict", lambda x, **_: np.asarray(x) + 1000)
    with pytest.raises(RuntimeError, match=r"model\.predict differ by 0\.\d+ .*nothing was written"):
        export_for_serving(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_exported(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(TypeError, match=r"must be a keras\.Model\. Received: Dense"):
        export_for_serving(keras.layers.Dense(2), path)
    with pytest.raises(ValueError, match="not built"):
        export_for_serving(keras.Sequential([keras.layers.Dense(2)]), path)
    a, b = keras.Input((4, 4, 1), name="left"), keras.Input((4, 4, 1), name="right")
    with pytest.raises(ValueError, match=r"2 inputs, \['left', 'right'\]"):
        export_for_serving(keras.Model([a, b], keras.layers.Add()([a, b])), path)
    with pytest.raises(ValueError, match=r"\(None, 4, 4, 1\).*Received: shape \(2, 4, 5, 1\)"):
        export_for_serving(same_pixels_model((4, 4), 1), path, samples=pixels(2, 4, 5, 1))
    with pytest.raises(ValueError, match="data_format"):
        export_for_serving(same_pixels_model((4, 4), 1), path, data_format="NHWC")
    model = AlwaysRandom()
    model(pixels(2, 8, 8, 3).astype("float32"))
    with pytest.raises(ValueError, match="Pass `samples`"):
        export_for_serving(model, path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow writes in its own process")
def test_other_backends_need_tensorflow_and_importable_classes(tmp_path, monkeypatch):
    class Local(keras.layers.Layer):
        def call(self, images):
            return keras.ops.cast(images, "float32")

    model = keras.Sequential([keras.Input((4, 4, 1)), Local()])
    with pytest.raises(RuntimeError, match=r"(?s)in a module that can be imported.*last lines.*Local"):
        export_for_serving(model, tmp_path / "m")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    with pytest.raises(ImportError, match=r"keras-norm-layers\[tensorflow\]"):
        export_for_serving(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_report_goes_to_json(exported):
    """The report is plain data: a deployment script may keep it."""
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(exported[2])))["samples"] == 4
