"""Every kind of data gives the same images, in order."""

import keras
import numpy as np
import pytest

from keras_norm_layers.statistics import sources
from keras_norm_layers.statistics.sources import batches

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(23)


def read(data, **options):
    return np.concatenate(list(batches(data, **options)))


def same(data, dtype=np.uint8, **options):
    result = read(data, **options)
    assert result.dtype == dtype
    assert np.array_equal(result, IMAGES)


def sizes(data, **options):
    return [len(batch) for batch in batches(data, **options)]


def test_arrays_and_tuples_and_dictionaries():
    for data in (
        IMAGES,
        (IMAGES, LABELS),
        (IMAGES, LABELS, LABELS),
        {"image": IMAGES, "y": LABELS},
        {"pixels": IMAGES},
    ):
        same(data)
        assert sizes(data, batch_size=10) == [10, 10, 3]
    assert batches(IMAGES, batch_size=10).length == 3
    assert sizes(IMAGES) == [23]


def test_default_batches_are_sized_by_memory(monkeypatch):
    monkeypatch.setattr(sources, "BATCH_BYTES", 5 * 4 * 3 * 8)
    assert sizes(IMAGES) == [8, 8, 7]
    assert sizes(list(IMAGES)) == [8, 8, 7]
    assert sizes(IMAGES.astype("float64")) == [1] * 23


def test_memory_maps_and_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    np.save(tmp_path / "x.npy", IMAGES)
    same(np.load(tmp_path / "x.npy", mmap_mode="r"), batch_size=5)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        same(file.create_dataset("x", data=IMAGES), batch_size=5)


def test_lists():
    same(list(IMAGES))
    assert sizes(list(IMAGES), batch_size=9) == [9, 9, 5]
    same(IMAGES.tolist(), dtype=np.int64)
    same([IMAGES[:9], IMAGES[9:]], rank=4)
    assert read([1.0, 2.0]).tolist() == [1.0, 2.0]
    assert sizes([IMAGES[0], IMAGES[1, :3], IMAGES[2, :3]]) == [1, 2]


def test_tensors_of_every_library():
    tf, torch, jnp = pytest.importorskip("tensorflow"), pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    for tensor in (tf.constant(IMAGES), torch.tensor(IMAGES), jnp.asarray(IMAGES), keras.ops.convert_to_tensor(IMAGES)):
        same(tensor, batch_size=10)
    half = torch.tensor([[0.5, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    assert read(half).tolist() == [[0.5, 2.0]]


def test_tf_data():
    tf = pytest.importorskip("tensorflow")
    for data in (IMAGES, (IMAGES, LABELS), (IMAGES, LABELS, LABELS), {"images": IMAGES, "x": LABELS}):
        dataset = tf.data.Dataset.from_tensor_slices(data)
        same(dataset.batch(10))
        assert batches(dataset.batch(10)).length == 3
        same(dataset)
        same(dataset, rank=4)
        assert sizes(dataset, batch_size=10) == [10, 10, 3]
        assert sizes(dataset.batch(10)) == [10, 10, 3]
    batched = tf.data.Dataset.from_tensor_slices(IMAGES).batch(10)
    assert sizes(batched.repeat(), steps=4) == [10, 10, 3, 10]
    with pytest.raises(ValueError, match="has no end.*`steps`"):
        batches(batched.repeat())
    with pytest.raises(ValueError, match="leave out batch_size.*batch_size=4"):
        sizes(batched, batch_size=4)
    with pytest.raises(TypeError, match="RaggedTensorSpec"):
        batches(tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3]])))


def test_tf_data_of_rows_and_open_first_axis():
    tf = pytest.importorskip("tensorflow")
    rows = tf.data.Dataset.from_tensor_slices(IMAGES.reshape(23, -1))
    assert [b.shape for b in batches(rows)] == [(23, 60)]
    assert [b.shape for b in batches(rows.batch(10), rank=2)] == [(10, 60), (10, 60), (3, 60)]
    # (N, H, 3) with N open is a batch, although an image may have that shape.
    sequences = tf.data.Dataset.from_tensor_slices(IMAGES[:, 0]).batch(10)
    assert [b.shape for b in batches(sequences)] == [(10, 4, 3), (10, 4, 3), (3, 4, 3)]


class Py(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return IMAGES[i * 10 : i * 10 + 10], LABELS[i * 10 : i * 10 + 10]


class Endless(Py):
    @property
    def num_batches(self):
        return None

    def __getitem__(self, i):
        return super().__getitem__(i % 3)


def test_pydataset():
    same(Py())
    assert batches(Py()).length == 3
    assert sizes(Endless(), steps=4) == [10, 10, 3, 10]
    with pytest.raises(ValueError, match="has no end"):
        batches(Endless())


def test_torch_data():
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS))
    same(dataset)
    loader = torch.utils.data.DataLoader(dataset, batch_size=10)
    same(loader)
    assert batches(loader).length == 3
    as_dict = [{"image": torch.tensor(x), "label": 0} for x in IMAGES]
    same(torch.utils.data.DataLoader(as_dict, batch_size=10))
    unbatched = torch.utils.data.DataLoader(dataset, batch_size=None)
    same(unbatched, rank=4)


def test_generators_and_functions():
    def generate():
        for start in range(0, 23, 6):
            yield IMAGES[start : start + 6], LABELS[start : start + 6]

    same(generate())
    assert batches(generate()).once
    assert not batches(IMAGES).once
    source = batches(generate)
    assert not source.once
    for _ in range(2):
        assert np.array_equal(np.concatenate(list(source)), IMAGES)
    same(iter(list(IMAGES)))
    assert sizes(iter(list(IMAGES)), batch_size=20) == [20, 3]
    assert sizes((IMAGES[:2] for _ in iter(int, 1)), steps=3) == [2, 2, 2]
    with pytest.warns(UserWarning, match="steps=9 .* ended after 4"):
        same(generate(), steps=9)


def test_reading_one_generator_stops_after_its_steps():
    drawn = []

    def generate():
        for i in range(10):
            drawn.append(i)
            yield IMAGES

    assert sizes(generate(), steps=3) == [23] * 3
    assert drawn == [0, 1, 2]


def test_dictionaries_ask_for_a_key():
    data = {"left": IMAGES, "right": IMAGES + 1}
    with pytest.raises(ValueError, match=r"\['left', 'right'\]; say with key="):
        batches(data)
    same(data, key="left")
    with pytest.raises(ValueError, match="Received: key='middle'"):
        batches(data, key="middle")


@pytest.mark.parametrize("data", [None, "images", b"x", 3, 2.5, True, object(), np.float32(1)])
def test_what_is_no_source(data):
    with pytest.raises(TypeError, match="is no source of images. Allowed: a NumPy array"):
        batches(data)


def test_what_holds_no_numbers():
    for data in (["a", "b"], np.array(["a"]), [None, None], np.array([[1], None], dtype=object)):
        with pytest.raises(TypeError):
            read(data)
    with pytest.raises(TypeError, match="cannot be read as an array"):
        read([[[1, 2], [3]], [[1, 2], [3]]])
    with pytest.raises(TypeError, match="single number"):
        batches(np.array(3.0))


def test_ranks_and_arguments():
    with pytest.raises(ValueError, match=r"one image is a batch of one.*\(5, 4, 3\)"):
        batches(IMAGES[0], rank=4)
    with pytest.raises(ValueError, match=r"batches of 4 axes. Received the shape \(4, 3\)"):
        read(iter([IMAGES[0, 0]]), rank=4)
    for wrong in ({"batch_size": 0}, {"steps": -1}, {"steps": 1.5}, {"batch_size": True}):
        with pytest.raises(ValueError, match="must be a positive integer or None"):
            batches(IMAGES, **wrong)
    with pytest.raises(ValueError, match="x consists of 2 inputs"):
        batches(((IMAGES, IMAGES), LABELS))


def test_map():
    assert np.array_equal(np.concatenate(list(batches(IMAGES, batch_size=10).map(lambda b: b + 1))), IMAGES + 1)
