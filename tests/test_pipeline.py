"""``augment_dataset``: a draw for each element, by (seed, epoch, index); epochs, resuming, targets, grain."""

import functools

import keras
import numpy as np
import pytest
from catalogue import images
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels import pixels
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.transforms.base import MixTransform
from keras_norm_layers.transforms.sampling import Beta, Uniform

tf = pytest.importorskip("tensorflow", reason="tf.data needs TensorFlow installed, whatever the Keras backend")

X = images(6)
LABELS = np.arange(6)


def new_layer(seed=None):
    return knl.Augment([knl.RandomFlip("horizontal"), knl.RandomBrightness(0.3)], seed=seed)


flip = knl.RandomFlip("horizontal", additional_targets={"right": "images"})
layer = functools.cache(new_layer)  # compiled once for all tests: an augmented dataset must leave nothing in it


def source(*parts, batch=2):
    data = tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])
    return data.batch(batch) if batch else data


def elements(dataset):
    return [keras.tree.map_structure(to_numpy, element) for element in dataset]


def equal(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b):
        keras.tree.map_structure(np.testing.assert_array_equal, one, other)


class Blend(MixTransform):
    """Each image with half of its partner; labels alike."""

    def specs(self):
        return {"partner": Uniform(0.0, 1.0), "part": Beta(1.0)}

    def mix_images(self, params, images):
        part = params["part"][:, None, None, None]
        return part * images + (1.0 - part) * self.partners(params, images)

    def mix_labels(self, params, labels, height, width):
        part = params["part"][:, None]
        return part * labels + (1.0 - part) * pixels.reorder(labels, params["partner"])


# Keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, None])
def test_an_element_is_drawn_by_seed_epoch_and_index(batch):
    augmented = knl.augment_dataset(source(X, batch=batch), layer(), seed=7)
    outside = new_layer()
    parts = [X[:2], X[2:4], X[4:]] if batch else list(X)
    for epoch in range(2):
        for index, (got, part) in enumerate(zip(elements(augmented), parts)):
            expected = to_numpy(outside.call_with_key(part, (7, epoch, index)))
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, atol=1e-3)


@pytest.mark.parametrize("calls", [None, 1, 4])
def test_the_bits_do_not_depend_on_the_number_of_parallel_calls(calls):
    data = source(np.zeros((60, 2, 2, 1), "uint8"), batch=None)
    bright = knl.RandomBrightness((0.0, 0.9))
    expected = elements(knl.augment_dataset(data, bright, seed=3))
    assert len({float(image.max()) for image in expected}) == 60
    equal(elements(knl.augment_dataset(data, bright, seed=3, num_parallel_calls=calls)), expected)


def test_without_an_order_the_elements_are_the_same_ones():
    data = source(np.zeros((60, 2, 2, 1), "uint8"), batch=None)
    bright = knl.RandomBrightness((0.0, 0.9))
    ordered, unordered = (
        [float(x.max()) for x in elements(knl.augment_dataset(data, bright, 3, num_parallel_calls=4, deterministic=d))]
        for d in (True, False)
    )
    assert sorted(unordered) == sorted(ordered)


def test_each_iteration_and_each_repetition_is_another_epoch():
    augmented = knl.augment_dataset(source(X), layer(), seed=7)
    first, second = elements(augmented), elements(augmented)
    assert not any(np.array_equal(a, b) for a, b in zip(first, second))
    equal(elements(knl.augment_dataset(source(X), layer(), seed=7).repeat(2)), first + second)


def test_iterators_side_by_side_have_epochs_of_their_own():
    augmented = knl.augment_dataset(source(X), layer(), seed=7)
    left, right = zip(*elements(tf.data.Dataset.zip((augmented, augmented))))
    assert not any(np.array_equal(a, b) for a, b in zip(left, right))
    equal([*left, *right], elements(knl.augment_dataset(source(X), layer(), seed=7).repeat(2)))


@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("start", [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_a_run_goes_on_where_it_stopped(start, batch):
    data = source(X, LABELS, batch=batch)
    length = len(X) // (batch or 1)
    whole = elements(knl.augment_dataset(data, layer(), seed=7).repeat(3))
    rest = elements(knl.augment_dataset(data, layer(), seed=7, start=start).repeat(3 - start[0]))
    equal(rest, whole[start[0] * length + start[1] :])


def test_what_is_shuffled_before_is_shuffled_in_each_epoch_and_goes_on_alike():
    def data(**options):
        return source(X, LABELS, batch=None).shuffle(6, seed=5, **options)

    augmented = knl.augment_dataset(data(), layer(), seed=7)
    orders = [[int(y) for _, y in augmented] for _ in range(2)]
    assert orders[0] != orders[1]
    assert [sorted(order) for order in orders] == [list(range(6))] * 2
    fixed = data(reshuffle_each_iteration=False)
    whole = elements(knl.augment_dataset(fixed, layer(), seed=7).repeat(2))
    equal(
        elements(knl.augment_dataset(data(reshuffle_each_iteration=False), layer(), seed=7, start=(1, 4))), whole[10:]
    )


def test_the_length_is_known_where_each_epoch_has_it():
    data = source(X)
    assert int(knl.augment_dataset(data, layer(), seed=1).cardinality()) == 3
    assert int(knl.augment_dataset(data, layer(), seed=1, start=(2, 0)).cardinality()) == 3
    assert int(knl.augment_dataset(data, layer(), seed=1, start=(0, 1)).cardinality()) == tf.data.UNKNOWN_CARDINALITY
    assert int(knl.augment_dataset(data.repeat(), layer(), 1).cardinality()) == tf.data.INFINITE_CARDINALITY
    unknown = data.filter(lambda x: True)
    assert len(elements(knl.augment_dataset(unknown, layer(), seed=1))) == 3


def test_the_options_of_the_dataset_stay():
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    augmented = knl.augment_dataset(source(X).with_options(options), layer(), seed=1)
    assert augmented.options().experimental_distribute.auto_shard_policy == tf.data.experimental.AutoShardPolicy.OFF


def test_the_seed_is_the_arguments_the_layers_or_a_random_one():
    def values(own, seed):
        return elements(knl.augment_dataset(source(X), layer(own), seed))

    seven, eight = values(None, 7), values(None, 8)
    assert not np.array_equal(seven[0], eight[0])
    equal(values(7, None), seven)
    equal(values(7, 8), eight)
    keras.utils.set_random_seed(1)
    first, second = values(None, None), values(None, None)
    assert not np.array_equal(first[0], second[0])
    keras.utils.set_random_seed(1)
    equal(values(None, None), first)


def test_the_layers_own_draws_are_not_used_up():
    augment, other = new_layer(seed=7), new_layer(seed=7)
    elements(knl.augment_dataset(source(X), augment))
    np.testing.assert_array_equal(to_numpy(augment(X)), to_numpy(other(X)))


def test_strength_takes_effect_at_once():
    augment = knl.Augment([knl.RandomBrightness((0.2, 0.2))])
    augmented = knl.augment_dataset(source(np.zeros((2, 3, 3, 1), "uint8")), augment)
    assert elements(augmented)[0].mean() == pytest.approx(51.0)
    augment.strength.assign(0.5)
    assert elements(augmented)[0].mean() == pytest.approx(25.5)


def test_fit_trains_the_same_from_run_to_run():
    def losses():
        keras.utils.set_random_seed(2)
        model = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.GlobalAveragePooling2D()])
        model.add(keras.layers.Dense(1))
        model.compile(keras.optimizers.SGD(0.0), "mse")  # the weights stay: losses differ by the images alone
        data = knl.augment_dataset(source(X / np.float32(255), np.zeros((6, 1))), bright, seed=7)
        return model.fit(data, epochs=3, verbose=0, shuffle=False).history["loss"]

    bright = knl.RandomBrightness(0.3, value_range=(0, 1))
    first = losses()
    assert len(set(first)) == 3
    assert losses() == first


# Elements -------------------------------------------------------------------------------------------------------------


def test_labels_and_weights_of_tuples_pass_untouched():
    names, weights = np.array(["a", "b", "c", "d", "e", "f"]), np.linspace(0, 1, 6)
    plain = elements(knl.augment_dataset(source(X), layer(), seed=7))
    out = list(knl.augment_dataset(source(X, names, weights), layer(), seed=7))
    for (x, y, w), expected, start in zip(out, plain, (0, 2, 4)):
        np.testing.assert_array_equal(x.numpy(), expected)
        assert [item.decode() for item in y.numpy()] == names[start : start + 2].tolist()
        np.testing.assert_array_equal(w.numpy(), weights[start : start + 2])


@pytest.mark.parametrize("as_tuple", [False, True])
def test_dicts_move_as_the_layer_moves_them(as_tuple):
    masks = (X[..., 0] > 99).astype("int32")
    data = {"images": X, "segmentation_masks": masks, "labels": LABELS}
    dataset = source(data, LABELS) if as_tuple else source(data)
    for index, element in enumerate(knl.augment_dataset(dataset, flip, seed=7)):
        got, *rest = element if as_tuple else (element,)
        part = {name: value[2 * index : 2 * index + 2] for name, value in data.items()}
        expected = flip.call_with_key(part, (7, 0, index))
        assert set(got) == set(data)
        for name in data:
            np.testing.assert_array_equal(to_numpy(got[name]), to_numpy(expected[name]))
        assert [y.numpy().tolist() for y in rest] == ([part["labels"].tolist()] if as_tuple else [])


def test_a_target_in_a_tuple_moves_with_its_images():
    masks = (X[..., :1] > 99).astype("int32")
    out = elements(knl.augment_dataset(source(X, masks), flip, seed=7, target="segmentation_masks"))
    x, y = (np.concatenate(part) for part in zip(*out))
    np.testing.assert_array_equal(y, (x[..., :1] > 99).astype("int32"))
    assert not np.array_equal(y, masks)
    _, still = zip(*elements(knl.augment_dataset(source(X, masks), flip, seed=7, target="labels")))
    np.testing.assert_array_equal(np.concatenate(still), masks)
    for left, right in elements(knl.augment_dataset(source(X, X), flip, seed=7, target="right")):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("x", "y"), [(X, X[..., 0]), (X, X[..., :1]), (X, X)], ids=["(N, H, W)", "mask", "images"])
@pytest.mark.parametrize("batch", [2, None])
def test_what_looks_like_a_mask_must_be_named(x, y, batch):
    with pytest.raises(ValueError, match=r"y has the height and width .* Give `target`"):
        knl.augment_dataset(source(x, y, batch=batch), layer(), seed=7)


def test_a_layer_that_mixes_mixes_the_labels_too():
    classes = np.eye(6, dtype="float32")
    flat = np.broadcast_to(classes[:, None, None, :], (6, 2, 2, 6)) * np.float32(100)  # the image says its class
    blend = knl.Augment([Blend()])
    for data in (source(flat, classes, batch=3), source({"images": flat}, classes, batch=3)):
        mixed = 0
        for x, y in elements(knl.augment_dataset(data, blend, seed=7)):
            x = x["images"] if isinstance(x, dict) else x
            np.testing.assert_allclose(x[:, 0, 0, :] / 100, y, atol=1e-5)
            mixed += int(((y > 0.01).sum(1) == 2).sum())
        assert mixed >= 2
    together = elements(knl.augment_dataset(source({"images": flat, "labels": classes}, batch=3), blend, seed=7))
    np.testing.assert_allclose(together[0]["images"][:, 0, 0, :] / 100, together[0]["labels"], atol=1e-5)
    with pytest.raises(ValueError, match="a mixture has no sample weight"):
        knl.augment_dataset(source(flat, classes, LABELS, batch=3), blend, seed=7)
    with pytest.raises(ValueError, match="x has 'labels' already"):
        knl.augment_dataset(source({"images": flat, "labels": classes}, classes, batch=3), blend, seed=7)


# Other pipelines ------------------------------------------------------------------------------------------------------


def test_a_grain_dataset_draws_what_tf_data_draws():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    data = grain.MapDataset.source([(x, int(y)) for x, y in zip(X, LABELS)])
    expected = elements(knl.augment_dataset(source(X, LABELS, batch=None), layer(), seed=7).repeat(2))
    repeated = knl.augment_dataset(data, layer(), seed=7).repeat(2)
    assert len(repeated) == 12
    for (x, y), (image, label) in zip(repeated, expected):
        assert type(x) is np.ndarray
        np.testing.assert_allclose(x, image, atol=1e-3)
        assert y == label
    np.testing.assert_array_equal(repeated[9][0], list(repeated[6:])[3][0])
    threads = repeated.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=4))
    equal([x for x, _ in threads], [x for x, _ in repeated])
    (batch, labels), *_ = list(repeated.batch(3))
    assert batch.shape == (3, *X.shape[1:])
    assert labels.tolist() == [0, 1, 2]


def test_a_grain_iterator_goes_on_from_its_state():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    stream = grain.MapDataset.source(list(X)).repeat(2).to_iter_dataset()
    iterator = iter(knl.augment_dataset(stream, layer(), seed=7))
    first = [next(iterator) for _ in range(8)]
    assert not any(np.array_equal(first[i], first[i + 6]) for i in range(2))
    state = iterator.get_state()
    rest = list(iterator)
    again = iter(knl.augment_dataset(stream, layer(), seed=7))
    again.set_state(state)
    equal(list(again), rest)
    with pytest.raises(ValueError, match=r"`start` must be \(0, 0\)"):
        knl.augment_dataset(stream, layer(), seed=7, start=(1, 0))


def test_an_iterable_of_batches_counts_its_iterations():
    batches = [(X[i : i + 2], LABELS[i : i + 2]) for i in (0, 2, 4)]
    whole = elements(knl.augment_dataset(source(X, LABELS), layer(), seed=7).repeat(2))
    augmented = knl.augment_dataset(batches, layer(), seed=7)
    assert len(augmented) == 3
    got = [*augmented, *augmented]
    assert type(got[0][0]) is np.ndarray
    for (x, y), (image, label) in zip(got, whole):
        np.testing.assert_allclose(x, image, atol=1e-3)
        np.testing.assert_array_equal(y, label)
    resumed = knl.augment_dataset((pair for pair in batches), layer(), seed=7, start=(1, 1))
    equal([x for x, _ in resumed], [x for x, _ in got[4:]])


def test_tensors_of_an_iterable_stay_tensors():
    tensors = [keras.ops.convert_to_tensor(X[:2])]
    (out,) = knl.augment_dataset(tensors, layer(), seed=7)
    assert keras.ops.is_tensor(out)
    (expected,) = knl.augment_dataset([X[:2]], layer(), seed=7)
    np.testing.assert_array_equal(to_numpy(out), expected)


def test_a_torch_loader_is_an_iterable():
    if BACKEND != "torch":
        pytest.skip(f"about torch's own loader; the Keras backend is {BACKEND}")
    import torch

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.as_tensor(X)), batch_size=2)
    augmented = knl.augment_dataset(loader, layer(), seed=7)
    assert [tuple(x.shape) for (x,) in augmented] == [(2, *X.shape[1:])] * 3


def test_images_out_of_their_range_are_seen_on_the_host():
    bright = knl.RandomBrightness(0.1)
    with pytest.warns(UserWarning, match="value_range"):
        list(knl.augment_dataset([X[:2] / np.float32(255)], bright, seed=7))


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [X, (X, LABELS), {"images": X}, "folder", 3, None])
def test_what_is_no_dataset_is_refused(wrong):
    with pytest.raises(TypeError, match=r"`dataset` must be a tf.data.Dataset.*from_tensor_slices.*Received"):
        knl.augment_dataset(wrong, layer())


def test_a_py_dataset_is_told_what_to_do():
    with pytest.raises(TypeError, match="In its `__getitem__` call `layer.call_with_key"):
        knl.augment_dataset(keras.utils.PyDataset(), layer())


@pytest.mark.parametrize("wrong", [keras.layers.Rescaling(2.0), keras.Sequential(), [knl.RandomFlip()], None])
def test_what_is_no_random_layer_is_refused(wrong):
    with pytest.raises(TypeError, match=r"`layer` must be an Augment .* Received: layer="):
        knl.augment_dataset(source(X), wrong)


@pytest.mark.parametrize("wrong", [3, (1,), (1, 2, 3), (-1, 0), (0, -1), (0.5, 0), (True, 0), "01", None, (2**32, 0)])
def test_a_start_that_is_no_pair_of_numbers_is_refused(wrong):
    with pytest.raises(ValueError, match=r"`start` must be a pair of integers.*\(epoch, index\).*Received: start="):
        knl.augment_dataset(source(X), layer(), start=wrong)


def test_wrong_targets_seeds_and_tuples_are_refused():
    with pytest.raises(ValueError, match=r"`target` must be one of .*'segmentation_masks'.* Received: target='masks'"):
        knl.augment_dataset(source(X), layer(), target="masks")
    with pytest.raises(ValueError, match=r"`seed` must be an integer in \[0, 2\*\*31\)"):
        knl.augment_dataset(source(X), layer(), seed=-1)
    with pytest.raises(ValueError, match=r"tuples must be .*Received: a tuple of 4"):
        knl.augment_dataset(source(X, X, X, X), layer())
    with pytest.raises(ValueError, match="a dict of data holds 'images'"):
        knl.augment_dataset(source({"image": X}), layer())
