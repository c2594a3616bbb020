"""How many passes ``adapt`` makes: layers that do not depend on each other share one, streams are kept in memory."""

import keras
import numpy as np
import pytest
from test_adapt import INPUT, UINT8, assert_statistics

import keras_norm_layers as knl
from keras_norm_layers.normalization import FeaturewiseNormalization, ZCAWhitening, adapt
from keras_norm_layers.normalization.adaptive import to_host
from keras_norm_layers.normalization.structure import in_passes, layers_of
from keras_norm_layers.statistics import cache
from keras_norm_layers.statistics.moments import Moments


class Counted:
    """A function that makes an iterator over batches, and notes how often it was called and read to the end."""

    def __init__(self, images=UINT8, parts=6):
        self.images, self.parts = images, parts
        self.calls = self.ends = 0

    def __call__(self):
        self.calls += 1
        yield from np.split(self.images, self.parts)
        self.ends += 1


def norm(name):
    return FeaturewiseNormalization(name=name)


def names_in_passes(model):
    targets = [layer for layer in layers_of(model) if isinstance(layer, FeaturewiseNormalization)]
    return [{layer.name for layer in group} for group in in_passes(model, targets)]


def test_branches_share_a_pass_and_what_joins_them_gets_the_next():
    inputs = keras.Input(**INPUT)
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    left, right, joined = norm("left"), norm("right"), norm("joined")
    both = keras.layers.Concatenate()([left(scaled), right(keras.ops.square(scaled))])
    model = keras.Model(inputs, joined(both))
    assert names_in_passes(model) == [{"left", "right"}, {"joined"}]
    data = Counted()
    adapt(model, data)
    assert (data.calls, data.ends) == (2, 2)
    x = UINT8 / 255.0
    assert_statistics(left, x)
    assert_statistics(right, x**2)
    np.testing.assert_allclose(to_host(joined.std), 1, atol=1e-4)


def test_raw_and_changed_images_in_one_pass():
    inputs = keras.Input(**INPUT)
    raw, changed = norm("raw"), ZCAWhitening(name="changed")
    small = changed(keras.layers.AveragePooling2D(2)(keras.layers.Rescaling(1 / 255)(inputs)))
    model = keras.Model(inputs, [raw(inputs), small])
    data = Counted()
    adapt(model, data)
    assert data.calls == 1
    assert raw.accumulator._floats is None  # integers as they are, exact
    assert_statistics(raw, UINT8)
    pooled = (UINT8 / 255.0).reshape(60, 2, 2, 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(to_host(changed.mean), pooled.mean(0), atol=1e-5)


def test_passes_of_nested_and_shared_layers():
    inputs = keras.Input((4, 4, 3))
    inner = keras.Sequential([keras.Input((4, 4, 3)), norm("a"), keras.layers.ReLU(), norm("b")], name="inner")
    branch_input = keras.Input((4, 4, 3))
    branch = keras.Model(branch_input, norm("c")(keras.layers.ReLU()(branch_input)), name="branch")
    total = keras.layers.Add()([inner(inputs), branch(inputs)])
    assert names_in_passes(keras.Model(inputs, norm("d")(total))) == [{"a", "c"}, {"b"}, {"d"}]
    # A nested model feeds another one directly.
    assert names_in_passes(keras.Model(inputs, branch(inner(inputs)))) == [{"a"}, {"b"}, {"c"}]
    # A layer that stands in two places counts as behind all that stands before either.
    twice = norm("twice")
    model = keras.Model(inputs, keras.layers.Add()([twice(inputs), norm("e")(twice(keras.ops.square(inputs)))]))
    assert names_in_passes(model) == [{"twice"}, {"e"}]


def test_passes_where_no_graph_says_it():
    assert names_in_passes([norm("a"), keras.layers.ReLU(), [norm("b"), norm("c")]]) == [{"a"}, {"b"}, {"c"}]
    assert names_in_passes(keras.Sequential([norm("a"), norm("b")])) == [{"a"}, {"b"}]

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.left, self.right = norm("left"), norm("right")

        def call(self, x):
            return self.left(x) + self.right(x)

    model, data = Model(), Counted()
    adapt(model, data)
    assert data.calls == 2
    assert_statistics(model.left, UINT8)
    assert_statistics(model.right, UINT8)


def test_a_subclassed_model_may_name_its_layers_in_another_order():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm, self.scale = norm("norm"), keras.layers.Rescaling(1 / 255)

        def call(self, x):
            return self.norm(self.scale(x))

    model = Model()
    adapt(model, UINT8)
    assert_statistics(model.norm, UINT8 / 255.0)


def two_layers():
    first, second = norm("first"), norm("second")
    return keras.Sequential([keras.Input(**INPUT), first, keras.layers.ReLU(), second]), first, second


def stream(kind, data):
    """The batches of ``data``, as something that is read from outside."""
    if kind == "generator":
        return data()
    tf, torch = pytest.importorskip("tensorflow"), pytest.importorskip("torch")
    if kind == "tf.data":
        return tf.data.Dataset.from_generator(data, output_signature=tf.TensorSpec((None, 4, 4, 3), tf.uint8))

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self):
            return data()

    return torch.utils.data.DataLoader(Batches(), batch_size=None)


@pytest.mark.parametrize("kind", ["generator", "tf.data", "loader"])
def test_streams_are_read_once_for_several_passes(kind):
    expected, *_ = two_layers()
    adapt(expected, Counted())
    model, *_ = two_layers()
    data = Counted()
    adapt(model, stream(kind, data))
    assert data.calls == 1
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected.get_weights()))


def test_a_buffer_that_is_filled_again_is_copied():
    def data():
        buffer = np.empty((10, 4, 4, 3), "uint8")
        for part in np.split(UINT8, 6):
            buffer[:] = part
            yield buffer

    model, first, second = two_layers()
    adapt(model, data())
    assert_statistics(first, UINT8)
    assert_statistics(
        second, np.maximum((UINT8 - UINT8.mean((0, 1, 2))) / (UINT8.std((0, 1, 2)) + 1e-6), 0), tolerance=1e-4
    )


def test_what_does_not_fit_into_memory(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 4000)  # two of six batches of 480 bytes are more than half of it
    expected, *_ = two_layers()
    adapt(expected, Counted())
    model, first, _ = two_layers()
    data = Counted()
    adapt(model, stream("tf.data", data))
    assert data.calls == 2
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected.get_weights()))
    before = model.get_weights()
    data = Counted()
    with pytest.raises(ValueError, match=r"only once, and 2 layers need a pass each: \['first', 'second'\].*too large"):
        adapt(model, data())
    assert data.ends == 0  # said as soon as it was seen
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before))
    adapt(first, Counted()())  # one pass keeps nothing


def test_arrays_lists_and_functions_are_not_copied(monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 0)
    for data in (UINT8, list(UINT8), (UINT8, np.zeros(60)), {"images": UINT8}, Counted()):
        adapt(two_layers()[0], data)


def test_progress_names_the_pass(capsys):
    model, *_ = two_layers()
    adapt(model, Counted()(), verbose=1)
    out = capsys.readouterr().out
    assert "adapting first (pass 1 of 2)" in out and "adapting second (pass 2 of 2)" in out
    assert "6/6" in out  # the second time its length is known
    assert "images/s" in out


def test_behind_transforms_that_do_nothing_at_inference_the_data_itself_is_seen(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3)).astype("uint8")
    layer = knl.FeaturewiseNormalization()
    augment = knl.Augment([knl.RandomFlip(), knl.OneOf([knl.RandomHue(0.1), knl.RandomBrightness(0.2)])])
    model = keras.Sequential([keras.Input((6, 6, 3), dtype="uint8"), augment, layer])
    seen = []
    add = Moments.add
    monkeypatch.setattr(Moments, "add", lambda self, batch, *rest: seen.append(batch.dtype) or add(self, batch, *rest))
    knl.adapt(model, images, batch_size=10)
    assert seen == ["uint8", "uint8"]
    for changing in (knl.RandomCrop(4, 4), knl.RandomFlip(dtype="float16")):
        assert not changing.identity_at_inference
