"""The iterators of ImageDataGenerator over arrays: which images come, in which order, with which labels."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

import keras_norm_layers as knl

COUNT = 13


def numbered(dtype="uint8"):
    """Images whose every value is the image's number."""
    return np.broadcast_to(np.arange(COUNT, dtype=dtype)[:, None, None, None], (COUNT, 4, 5, 3)).copy()


def epoch_of(flow):
    """The images' numbers and the labels of an epoch, by batch number."""
    batches = [flow[i] for i in range(len(flow))]
    return np.concatenate([x[:, 0, 0, 0] for x, _ in batches]), np.concatenate([y for _, y in batches])


def test_each_image_comes_once_an_epoch_with_its_label():
    flow = knl.ImageDataGenerator(rotation_range=30).flow(numbered(), np.arange(COUNT), batch_size=4)
    assert isinstance(flow, keras.utils.PyDataset)
    assert (len(flow), flow.n, flow.batch_size, flow.shuffle, flow.seed) == (4, COUNT, 4, True, None)
    first, labels = epoch_of(flow)
    np.testing.assert_array_equal(first, labels)
    assert sorted(labels) == list(range(COUNT))
    flow.on_epoch_end()
    assert sorted(epoch_of(flow)[1]) == list(range(COUNT))
    orders = set()
    for _ in range(5):
        flow.on_epoch_end()
        orders.add(tuple(epoch_of(flow)[1]))
    assert len(orders) > 1


def test_without_shuffling_the_order_is_the_datas():
    flow = knl.ImageDataGenerator().flow(numbered(), np.arange(COUNT), batch_size=5, shuffle=False)
    np.testing.assert_array_equal(epoch_of(flow)[1], np.arange(COUNT))
    sizes = [len(next(flow)[1]) for _ in range(7)]
    assert sizes == [5, 5, 3, 5, 5, 3, 5]


def test_next_goes_round_and_reset_begins_anew():
    flow = knl.ImageDataGenerator().flow(numbered(), np.arange(COUNT), batch_size=5, shuffle=False)
    assert iter(flow) is flow
    assert flow.next()[1].tolist() == [0, 1, 2, 3, 4]
    assert (flow.batch_index, flow.total_batches_seen) == (1, 1)
    flow.reset()
    assert next(flow)[1].tolist() == [0, 1, 2, 3, 4]
    assert [next(flow)[1][0] for _ in range(3)] == [5, 10, 0]


def test_a_seed_repeats_everything_and_another_one_does_not():
    def run(seed):
        generator = knl.ImageDataGenerator(rotation_range=90, channel_shift_range=3.0, fill_mode="constant", cval=50)
        flow = generator.flow(numbered("float32"), np.arange(COUNT), batch_size=4, seed=seed)
        return [next(flow) for _ in range(6)]

    for (x, y), (x_again, y_again) in zip(run(3), run(3)):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
    assert any(not np.array_equal(x, other) for (x, _), (other, _) in zip(run(3), run(4)))


def test_threads_that_share_an_iterator_get_whole_batches():
    flow = knl.ImageDataGenerator(zoom_range=0.5).flow(numbered(), np.arange(COUNT), batch_size=4, seed=1)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda _: next(flow), range(4 * 20)))
    for x, y in batches:
        np.testing.assert_allclose(x[:, 0, 0, 0], y, atol=1e-4)
    counts = np.bincount(np.concatenate([y for _, y in batches]), minlength=COUNT)
    assert (counts == 20).all()


def test_fit_with_several_workers():
    flow = knl.ImageDataGenerator(rotation_range=5).flow(numbered(), np.arange(COUNT), batch_size=4)
    flow.workers = 3
    model = keras.Sequential([keras.Input((4, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(flow, epochs=2, verbose=0)
    assert flow.total_batches_seen >= 2 * len(flow)


def test_training_and_validation_are_disjoint_and_complete():
    generator = knl.ImageDataGenerator(validation_split=0.3)
    parts = {}
    for subset in ("training", "validation"):
        flow = generator.flow(numbered(), np.arange(COUNT), subset=subset, ignore_class_split=True)
        parts[subset] = set(epoch_of(flow)[1])
    assert parts["training"] | parts["validation"] == set(range(COUNT))
    assert not parts["training"] & parts["validation"]
    assert len(parts["validation"]) == int(0.3 * COUNT)


def test_several_inputs_and_weights():
    x = (numbered(), [np.arange(COUNT), np.arange(COUNT) * 2])
    flow = knl.ImageDataGenerator().flow(x, np.arange(COUNT), sample_weight=np.arange(COUNT) * 3, batch_size=4)
    (images, first, second), labels, weights = flow[0]
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    np.testing.assert_array_equal(first, labels)
    np.testing.assert_array_equal(second, labels * 2)
    np.testing.assert_array_equal(weights, labels * 3)
    assert isinstance(knl.ImageDataGenerator().flow(numbered())[0], np.ndarray)


def test_the_data_is_not_changed_nor_copied(tmp_path):
    images = numbered()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    flow = knl.ImageDataGenerator(rescale=1 / 255, samplewise_center=True, rotation_range=9).flow(mapped)
    assert np.shares_memory(flow.x, mapped)
    assert flow[0].dtype == "float32"
    np.testing.assert_array_equal(mapped, images)


def test_dtype_and_channels_first():
    generator = knl.ImageDataGenerator(rotation_range=40, data_format="channels_first", dtype="float16", rescale=0.5)
    x = generator.flow(numbered().transpose(0, 3, 1, 2), batch_size=3, shuffle=False)[0]
    assert (x.shape, x.dtype) == ((3, 3, 4, 5), "float16")
    np.testing.assert_allclose(x[:, 0, 0, 0], [0, 0.5, 1])


def test_the_preprocessing_function_sees_one_transformed_image_at_a_time():
    seen = []

    def function(image):
        seen.append((image.shape, image.dtype.name, float(image[0, 0, 0])))
        return image + 100

    generator = knl.ImageDataGenerator(preprocessing_function=function, rescale=0.5, horizontal_flip=True)
    x, y = generator.flow(numbered(), np.arange(COUNT), batch_size=6, shuffle=False)[0]
    assert seen == [((4, 5, 3), "float32", float(i)) for i in range(6)]
    np.testing.assert_array_equal(x[:, 0, 0, 0], (y + 100) * 0.5)


def test_images_are_saved_as_they_come_out(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 7, 3), dtype="uint8")
    images[:, 0, 0, 0], images[:, 0, 0, 1] = 0, 255
    flow = knl.ImageDataGenerator().flow(
        images, batch_size=3, shuffle=False, save_to_dir=tmp_path, save_prefix="aug", save_format="png"
    )
    next(flow)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name.split("_")[:2] for name in names] == [["aug", "0"], ["aug", "1"], ["aug", "2"]]
    for name, image in zip(names, images):
        # The stretch to 0..255 by way of 0..1 may lose a level.
        np.testing.assert_allclose(np.asarray(Image.open(tmp_path / name)).astype("int64"), image, atol=1)
    with pytest.raises(ValueError, match="`save_to_dir` must be a folder that exists"):
        knl.ImageDataGenerator().flow(images, save_to_dir=tmp_path / "none")


def test_an_iterator_can_be_pickled():
    flow = knl.ImageDataGenerator(rotation_range=10).flow(numbered(), np.arange(COUNT), batch_size=4, seed=2)
    next(flow)
    again = pickle.loads(pickle.dumps(flow))
    for _ in range(5):
        for part, other in zip(next(flow), next(again)):
            np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": np.arange(3)}, "same length"),
        ({"sample_weight": np.arange(3)}, "same length"),
        ({"subset": "test"}, "`subset`"),
        ({"batch_size": 0}, "`batch_size`"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        knl.ImageDataGenerator(validation_split=0.5).flow(numbered(), **options)


def test_more_errors():
    generator = knl.ImageDataGenerator()
    with pytest.raises(ValueError, match="rank 4"):
        generator.flow(np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match="has 3 batches"):
        generator.flow(numbered(), batch_size=5)[3]
    with pytest.raises(ValueError, match="validation_split"):
        generator.flow(numbered(), subset="validation")
    with pytest.raises(ValueError, match="different classes"):
        knl.ImageDataGenerator(validation_split=0.5).flow(numbered(), np.arange(COUNT), subset="training")
    with pytest.warns(UserWarning, match="5 channels"):
        generator.flow(np.zeros((2, 4, 4, 5)))
    with pytest.warns(UserWarning, match="5 channels"):
        generator.fit(np.zeros((2, 4, 4, 5)))


def test_what_was_not_fit_is_warned_of_once_a_batch():
    generator = knl.ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    with pytest.warns(UserWarning, match="not been fit") as caught:
        x = generator.flow(numbered(), batch_size=4, shuffle=False)[0]
    assert len(caught) == 2
    np.testing.assert_array_equal(x[:, 0, 0, 0], [0, 1, 2, 3])


def test_fit_is_right_far_from_zero_in_float32():
    images = np.random.default_rng(0).normal(1e4, 1.0, (300, 16, 16, 3)).astype("float32")
    generator = knl.ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    generator.fit(images)
    exact = images.astype("float64")
    np.testing.assert_allclose(generator.mean.ravel(), exact.mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(generator.std.ravel(), exact.std((0, 1, 2)), rtol=1e-6)


def test_whitening_of_few_large_images_needs_no_square_matrix():
    images = np.random.default_rng(0).normal(size=(6, 64, 64, 3)).astype("float32")  # the matrix would take 600 MB
    generator = knl.ImageDataGenerator(featurewise_center=True, zca_whitening=True)
    generator.fit(images)
    white = next(generator.flow(images, batch_size=6, shuffle=False)).reshape(6, -1).astype("float64")
    # n orthogonal directions, each with the same length: sqrt(n).
    np.testing.assert_allclose(white @ white.T, 6 * np.eye(6), atol=1e-3)


def test_a_dead_pixel_is_not_blown_up():
    images = np.random.default_rng(0).normal(100, 20, (60, 3, 3, 1)).astype("float32")
    images[:, 0, 0] = images[:, 0, 1]  # and one that says what its neighbour says
    generator = knl.ImageDataGenerator(featurewise_center=True, zca_whitening=True)
    generator.fit(images)
    assert np.abs(generator.standardize(images.copy())).max() < 10


def test_standardize_changes_float_arrays_in_place_and_integers_not():
    generator = knl.ImageDataGenerator(rescale=0.5)
    floats, integers = numbered("float32"), numbered()
    assert generator.standardize(floats) is not None
    assert floats[2, 0, 0, 0] == 1.0
    assert generator.standardize(integers)[2, 0, 0, 0] == 1.0
    assert integers[2, 0, 0, 0] == 2
