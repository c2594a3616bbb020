"""Feeding: each sample once an epoch with its label, the same order with the same seed, splits that do not overlap."""

import pickle

import data_samples as samples
import keras
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_norm_layers as knl
from keras_norm_layers import data
from keras_norm_layers.data import feed as feed_module
from keras_norm_layers.data import table

IMAGES = np.stack([samples.image(i) for i in range(20)])
LABELS = [samples.class_of(i) for i in range(20)]


def feed(**options):
    return data.from_arrays(IMAGES, LABELS, **{"batch_size": 6, "seed": 5, **options})


def test_each_sample_comes_once_an_epoch_with_its_label_and_epochs_differ():
    made = feed()
    epochs = []
    for _ in range(3):
        epochs.append(samples.collect(made))
        made.on_epoch_end()
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
    again = feed()
    assert [samples.collect(again, epoch) for epoch in range(3)] == epochs
    assert samples.collect(feed(seed=6)) != epochs[0]
    assert samples.collect(feed(shuffle=False)) == list(range(20))


def test_a_seed_of_none_follows_keras_seed():
    def order():
        keras.utils.set_random_seed(3)
        return samples.collect(feed(seed=None))

    assert order() == order()


class Recorder(keras.layers.Layer):
    """Keeps what a model is given."""

    def call(self, x):
        return keras.ops.mean(keras.ops.cast(x, "float32"), axis=(1, 2))


@pytest.mark.parametrize("workers", [1, 3])
def test_fit_reads_every_epoch_in_the_order_of_its_seed(workers):
    seen = []

    made = feed(workers=workers)
    read = made.batch
    made.batch = lambda epoch, index: seen.append((epoch, index)) or read(epoch, index)
    model = keras.Sequential([keras.Input((6, 5, 3)), Recorder(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    history = model.fit(made, epochs=3, verbose=0)
    assert len(history.history["loss"]) == 3
    last = [place for place in seen if place[0] >= made.epoch - 3]  # Keras counts its look at a new model's data
    assert sorted(last) == [(made.epoch - 3 + epoch, index) for epoch in range(3) for index in range(4)]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_order_is_the_same_for_any_number_of_workers(workers):
    model = keras.Sequential([keras.Input((6, 5, 3)), Recorder()])
    made = feed(workers=workers)
    given = model.predict(made, verbose=0)[:, 0].round().astype(int).tolist()
    assert given == samples.collect(feed())


def test_a_feed_goes_to_another_process(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    for images in (IMAGES, str(tmp_path / "x.npy")):
        made = data.from_arrays(images, LABELS, seed=5)
        made.on_epoch_end()
        copy = pickle.loads(pickle.dumps(made))
        assert samples.collect(copy) == samples.collect(made)
    assert len(pickle.dumps(made)) < IMAGES.nbytes + 1500  # the map is opened again, not copied
    assert b"\x00" * 100 not in pickle.dumps(made._table.images)


def test_tf_data_gives_the_same_batches():
    made = feed(label_mode="categorical", masks=IMAGES[..., 0], boxes=[[[0, 0, 2, 3]]] * 20)
    dataset = made.as_tf_data()
    assert len(dataset) == len(made)
    x, y = dataset.element_spec
    assert x.shape.as_list() == [None, 6, 5, 3]
    assert y["bounding_boxes"]["boxes"].shape.as_list() == [None, 1, 4]
    for epoch in range(2):
        for index, batch in enumerate(dataset.as_numpy_iterator()):
            keras.tree.map_structure(np.testing.assert_array_equal, batch, made.batch(epoch, index))
    for calls in (1, 4, 100):
        ordered = feed().as_tf_data(num_parallel_calls=calls).as_numpy_iterator()
        assert samples.collect(list(ordered)) == samples.collect(feed())
    assert dataset.options().autotune.enabled is False  # see kernels/datasets.py: epochs would end late
    with pytest.raises(ValueError, match=r"`num_parallel_calls` must be a whole number.*num_parallel_calls=-1"):
        feed().as_tf_data(-1)


@pytest.mark.parametrize("calls, threads", [(None, 1), (1, 4), (2, 2), (3, 1), (9, 1)])
def test_batches_of_tf_data_share_the_threads(monkeypatch, calls, threads):
    asked, made = [], feed()
    monkeypatch.setattr(feed_module, "THREADS", 4)
    samples_of = made._samples
    monkeypatch.setattr(made, "_samples", lambda which, threads: asked.append(threads) or samples_of(which, threads))
    list(made.as_tf_data(calls))
    assert asked == [4] + [threads] * len(made)  # the first is asked for what a batch looks like


def test_batches_begin_where_libraries_take_them_without_a_copy():
    for index in range(3):
        assert feed()[index][0].ctypes.data % 64 == 0


def test_layers_adapt_on_a_feed():
    layer = knl.FeaturewiseNormalization()
    layer.adapt(feed(subset="training", validation_split=0.2), verbose=0)
    chosen = [int(name.split()[-1]) for name in feed(subset="training", validation_split=0.2).names]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.mean), IMAGES[chosen].mean((0, 1, 2)), rtol=1e-6)


# Labels ---------------------------------------------------------------------------------------------------------------


def test_labels_by_mode():
    names = [samples.NAMES[i] for i in LABELS]
    made = data.from_arrays(IMAGES, names, label_mode="categorical", shuffle=False)
    assert made.class_names == list(samples.NAMES)
    np.testing.assert_array_equal(made.labels, np.eye(3)[LABELS])
    two = data.from_arrays(IMAGES, ["yes", "no"] * 10, label_mode="binary", shuffle=False)
    np.testing.assert_array_equal(two[0][1], [[1.0], [0.0]] * 10)
    several = data.from_arrays(IMAGES[:3], [["ape", "cat"], [], ["bear"]], label_mode="multi-label", shuffle=False)
    np.testing.assert_array_equal(several.labels, [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    raw = data.from_arrays(IMAGES[:2], [[0.5, 1.5], [2.5, 3.5]], label_mode="raw", shuffle=False)
    np.testing.assert_array_equal(raw[0][1], [[0.5, 1.5], [2.5, 3.5]])
    assert isinstance(data.from_arrays(IMAGES, LABELS, label_mode=None)[0], np.ndarray)
    renamed = data.from_arrays(IMAGES, names, class_names=["cat", "bear", "ape"], shuffle=False)
    np.testing.assert_array_equal(renamed.labels, [2 - i for i in LABELS])


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0.5] * 20, {}, "label_mode='raw'"),
        ([-1] * 20, {}, "class numbers must be"),
        (["a", 1] * 10, {}, "all of one kind"),
        ([["a"]] * 20, {}, "label_mode='multi-label'"),
        (["a", "b", "c", "a"] * 5, {"label_mode": "binary"}, "two classes"),
        (["a", "b"] * 10, {"class_names": ["a"]}, "class_names"),
        (LABELS, {"label_mode": "sparse"}, "label_mode"),
        (LABELS[:3], {}, "as many labels"),
        ([[1, 2]] * 20, {"label_mode": "multi-label"}, "zeros and ones"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, options, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(IMAGES, labels, **options)


# Splits ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    classes=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31 - 1),
    stratify=st.booleans(),
)
def test_a_split_is_disjoint_complete_and_of_its_size(classes, share, seed, stratify):
    classes = np.array(classes)
    training, held_out = table.split(len(classes), share, classes, seed, stratify)
    assert sorted([*training, *held_out]) == list(range(len(classes)))
    assert len(held_out) == pytest.approx(round(share * len(classes)), abs=1e-9)
    again = table.split(len(classes), share, classes, seed, stratify)
    np.testing.assert_array_equal(training, again[0])
    if stratify:
        for number in np.unique(classes):
            exact = share * (classes == number).sum()
            assert abs((classes[held_out] == number).sum() - exact) < 1


@pytest.mark.parametrize("seed", [None, 3])
def test_the_two_subsets_make_the_whole(seed):
    options = {"validation_split": 0.3, "seed": seed}
    training, held_out = (feed(subset=subset, **options) for subset in ("training", "validation"))
    both = feed(subset="both", **options)
    assert [part.names for part in both] == [training.names, held_out.names]
    assert sorted(samples.collect(training) + samples.collect(held_out)) == list(range(20))
    assert held_out.num_samples == 6
    assert np.bincount(held_out.classes).tolist() == [2, 2, 2]


def test_plain_splits_are_shuffled_and_differ_by_seed():
    parts = {tuple(feed(validation_split=0.3, subset="validation", seed=s, stratify=False).names) for s in range(5)}
    assert len(parts) == 5


@pytest.mark.parametrize(("count", "share"), [(10, 0.2), (999, 0.2), (1000, 0.1), (9999, 0.1), (10000, 0.05)])
def test_the_share_by_size(count, share):
    assert table.validation_share("auto", count) == share


@pytest.mark.parametrize(
    "options",
    [
        {"validation_split": 0.2},
        {"subset": "training"},
        {"validation_split": 1.0, "subset": "both"},
        {"validation_split": "half", "subset": "both"},
        {"validation_split": 0.01, "subset": "validation"},
        {"batch_size": 0},
        {"seed": -1},
        {"image_size": (0, 3)},
        {"image_size": 3},
        {"color_mode": "bgr"},
        {"interpolation": "area"},
        {"keep_aspect_ratio": True},
        {"on_error": "ignore"},
        {"shuffle": 1},
    ],
)
def test_arguments_out_of_bounds_are_refused(options):
    with pytest.raises(ValueError, match="data: "):
        feed(**options)


# Pixels ---------------------------------------------------------------------------------------------------------------


def test_resizing_averages_keeps_aspect_and_moves_masks_and_boxes():
    wide = np.zeros((1, 4, 8, 3), "uint8")
    wide[:, :, 4:] = 200
    mask, boxes = (wide[..., 0] > 0).astype("uint8"), [[[4, 0, 8, 4]]]

    def made(**options):
        one = data.from_arrays(wide, masks=mask, boxes=boxes, image_size=(2, 2), interpolation="box", **options)
        x, y = one[0]
        return x[0, ..., 0].tolist(), y["segmentation_masks"][0, ..., 0].tolist(), y["bounding_boxes"]["boxes"].tolist()

    assert made() == ([[0, 200]] * 2, [[0, 1]] * 2, [[[1, 0, 2, 2]]])
    assert made(keep_aspect_ratio="crop") == ([[0, 200]] * 2, [[0, 1]] * 2, [[[1, 0, 2, 2]]])
    assert made(keep_aspect_ratio="pad") == ([[0, 200], [0, 0]], [[0, 1], [0, 0]], [[[1, 0, 2, 1]]])
    checkers = np.indices((8, 8)).sum(0) % 2 * 200
    small = data.from_arrays(checkers[None].astype("uint8"), image_size=(2, 2))[0]
    assert 80 < small.min() <= small.max() < 120


def test_boxes_are_padded_and_dropped_outside_a_crop():
    boxes, classes = [[[0, 0, 1, 1], [3, 0, 5, 4]], []], [[7, 8], []]
    made = data.from_arrays(
        np.zeros((2, 4, 8, 1), "uint8"),
        boxes=boxes,
        box_labels=classes,
        image_size=(4, 4),
        keep_aspect_ratio="crop",
        shuffle=False,
    )
    _, y = made[0]
    assert y["labels"].tolist() == [[8, -1], [-1, -1]]
    np.testing.assert_allclose(y["boxes"][0, 0], [1, 0, 3, 4])
    with pytest.raises(ValueError, match="left < right"):
        data.from_arrays(IMAGES[:1], boxes=[[[3, 0, 1, 1]]])


def test_arrays_keep_their_dtype_and_channels():
    cubes = np.random.default_rng(0).normal(size=(3, 6, 6, 5)).astype("float32")
    np.testing.assert_array_equal(data.from_arrays(cubes, shuffle=False)[0], cubes)
    small = data.from_arrays(cubes, shuffle=False, image_size=(1, 1), interpolation="box")[0]
    np.testing.assert_allclose(small[:, 0, 0], cubes.mean((1, 2)), atol=1e-5)
    deep = np.full((2, 4, 4), 60000, "uint16")
    assert data.from_arrays(deep, image_size=(2, 2))[0].max() == 60000
    assert data.from_arrays(IMAGES, color_mode="grayscale")[0].shape == (20, 6, 5, 1)
    with pytest.raises(ValueError, match="cannot become"):
        data.from_arrays(cubes, color_mode="rgb")
    with pytest.raises(ValueError, match=r"\(N, H, W\)"):
        data.from_arrays(np.zeros((3, 4), "uint8"))


def test_images_of_several_sizes_need_a_size():
    mixed = [samples.image(0), samples.image(1, (9, 9))]
    with pytest.raises(ValueError, match="number 1' is uint8.*image_size"):
        data.from_arrays(mixed, shuffle=False)[0]
    assert data.from_arrays(mixed, image_size=(4, 4))[0].shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("mode", "color_mode", "value", "dtype"),
    [
        ("I;16", "grayscale16", 40000, "uint16"),
        ("I", "grayscale32", 100000, "int32"),
        ("F", "grayscale_float", 0.25, "float32"),
    ],
)
def test_deep_files_keep_their_values_and_are_not_cut_to_8_bits(tmp_path, mode, color_mode, value, dtype):
    path = tmp_path / "deep.tif"
    PIL.Image.new(mode, (4, 4), value).save(path)
    x = data.from_arrays([path], color_mode=color_mode, image_size=(2, 2))[0]
    assert x.dtype == dtype
    assert (x == np.array(value, dtype)).all()
    with pytest.raises(ValueError, match=f"color_mode='{color_mode}'"):
        data.from_arrays([path])
    PIL.Image.new("L", (4, 4)).save(path)
    with pytest.raises(ValueError, match="8 bits a value"):
        data.from_arrays([path], color_mode=color_mode)


def test_a_large_jpeg_is_decoded_as_well_as_in_full(tmp_path):
    from skimage import data as pictures

    picture = PIL.Image.fromarray(pictures.astronaut())
    picture.save(tmp_path / "a.jpg", quality=95)
    made = data.from_arrays([tmp_path / "a.jpg"], image_size=(48, 48))[0][0].astype(float)
    full = np.asarray(picture.resize((48, 48), PIL.Image.Resampling.BILINEAR), float)
    assert np.abs(made - full).mean() < 3
