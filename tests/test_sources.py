"""Every kind of data gives the same images, in order."""

import keras
import numpy as np
import pytest

from keras_norm_layers.statistics import elements
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
    monkeypatch.setattr(elements, "BATCH_BYTES", 5 * 4 * 3 * 8)
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
    assert batches(loader).length == batches(loader, rank=4).length == 3
    as_dict = [{"image": torch.tensor(x), "label": 0} for x in IMAGES]
    same(torch.utils.data.DataLoader(as_dict, batch_size=10))
    unbatched = torch.utils.data.DataLoader(dataset, batch_size=None)
    same(unbatched, rank=4)


def test_torch_iterable_datasets():
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(x, i) for i, x in enumerate(IMAGES)])

    class Counted(Stream):
        def __len__(self):
            return 23

    for dataset in (Stream(), Counted()):
        same(dataset)
        assert sizes(dataset, batch_size=10) == [10, 10, 3]
        same(torch.utils.data.DataLoader(dataset, batch_size=10))
    assert batches(torch.utils.data.DataLoader(Counted(), batch_size=10)).length == 3
    assert batches(torch.utils.data.DataLoader(Stream(), batch_size=10)).length is None


def test_grain():
    grain = pytest.importorskip("grain", reason="grain is not installed")
    elements = [{"image": x, "label": i} for i, x in enumerate(IMAGES)]
    dataset = grain.MapDataset.source(elements)
    for data in (dataset, dataset.to_iter_dataset()):
        same(data)
        same(data.batch(10))
        assert sizes(data, batch_size=10, rank=4) == [10, 10, 3]
        assert sizes(data.batch(10), rank=4) == [10, 10, 3]
    assert batches(dataset, batch_size=10).length == 3
    even = dataset.filter(lambda element: element["label"] % 2 == 0)
    assert np.array_equal(read(even), IMAGES[::2])
    assert sizes(even.repeat(), steps=3, batch_size=7) == [7, 7, 7]
    assert sizes(dataset.batch(10).repeat(), steps=5) == [10, 10, 3, 10, 10]
    with pytest.raises(ValueError, match=r"grain.MapDataset has no end \(it repeats\). Give `steps`"):
        batches(dataset.repeat())
    loader = grain.DataLoader(
        data_source=elements,
        sampler=grain.samplers.IndexSampler(23, shuffle=False, num_epochs=1),
        operations=[grain.transforms.Batch(10)],
    )
    same(loader)
    same(loader)  # it can be read again


def lengths(source):
    """Batches and images that a source announces: before it is read, after its first batch, at the end; those read."""
    before = source.length, source.images
    iterator = iter(source)
    found = [next(iterator)]
    early = source.length, source.images
    found += list(iterator)
    return before, early, (source.length, source.images), (len(found), sum(map(len, found)))


def test_what_is_known_of_the_length():
    tf, torch, grain = (pytest.importorskip(name) for name in ("tensorflow", "torch", "grain"))
    known, unknown, batched = (3, 23), (None, None), (3, None)
    slices = tf.data.Dataset.from_tensor_slices(IMAGES)
    single = torch.utils.data.TensorDataset(torch.tensor(IMAGES))
    late = batches(torch.utils.data.DataLoader(single, batch_size=None), batch_size=10)
    assert lengths(late) == (unknown, known, known, known)
    for source in (
        batches(IMAGES, batch_size=10),
        batches(list(IMAGES), batch_size=10),
        batches(list(zip(IMAGES, LABELS)), batch_size=10, rank=4),
        batches(single, batch_size=10),
        batches(grain.MapDataset.source(list(IMAGES)), batch_size=10),
        batches(slices, batch_size=10),
    ):
        assert lengths(source) == (known, known, known, known)
    grains = grain.MapDataset.source(list(IMAGES)).batch(10)
    for data in (slices.batch(10), Py(), torch.utils.data.DataLoader(single, batch_size=10), grains):
        assert lengths(batches(data)) == (batched, batched, batched, known)
    assert lengths(batches(slices.filter(lambda x: True), batch_size=10)) == (unknown, unknown, unknown, known)
    assert lengths(batches(iter(list(IMAGES)), batch_size=10)) == (unknown, unknown, unknown, known)
    assert lengths(batches(slices.repeat(), batch_size=10, steps=2)) == ((2, None), (2, None), (2, None), (2, 20))
    sampled = batches(IMAGES, batch_size=10, sample=0.5, seed=0)
    assert lengths(sampled)[:3] == (batched, batched, batched)
    assert batches(late.map(lambda x: x)).length == 3
    # Where images turn out to have different sizes, the number is taken back.
    mixed = batches([IMAGES[0], IMAGES[1], IMAGES[2, :3]], batch_size=2)
    assert lengths(mixed) == ((2, 3), (2, 3), (None, 3), (2, 3))
    filtered = grain.MapDataset.source(list(range(1, 24))).filter(lambda i: i > 2).map(lambda i: IMAGES[i - 1])
    assert lengths(batches(filtered, batch_size=10))[2:] == (unknown, (3, 21))


def test_single_images_and_batches_in_one_stream_keep_their_order():
    data = [IMAGES[0], IMAGES[1], IMAGES[2:9], IMAGES[9]]
    same(iter([*data, IMAGES[10:]]), rank=4)
    assert sizes(iter(data), rank=4) == [2, 7, 1]


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
    with pytest.raises(TypeError, match="must return an iterator over images. .* returned: 3"):
        read(lambda: 3)
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


@pytest.mark.parametrize("data", [None, b"x", 3, 2.5, True, object(), np.float32(1)])
def test_what_is_no_source(data):
    with pytest.raises(TypeError, match="is no source of images. Allowed: a NumPy array"):
        batches(data)


def test_what_holds_no_numbers():
    for data in (["a", "b"], np.array(["a"]), [None, None], np.array([[1], None], dtype=object)):
        with pytest.raises(TypeError):
            read(data)
    with pytest.raises(TypeError, match="NoneType holds text or objects"):
        read(iter([IMAGES, None]))
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
    for wrong in (0, -0.1, 1.5, True, "half", float("nan")):
        with pytest.raises(ValueError, match="`sample` must be a share of the images, above 0 and at most 1"):
            batches(IMAGES, sample=wrong)
    for wrong in (-1, 2**31, 0.5, True):
        with pytest.raises(ValueError, match="`seed` must be an integer in"):
            batches(IMAGES, sample=0.5, seed=wrong)
    for wrong in (-1, 1.0, True, None):
        with pytest.raises(ValueError, match="`start` must be the number of a batch, 0 or more"):
            batches(IMAGES).iterate(wrong)
    with pytest.raises(ValueError, match="in batches already: leave out batch_size. Received: batch_size=4"):
        batches(batches(IMAGES), batch_size=4)
    with pytest.raises(ValueError, match="x consists of 2 inputs"):
        batches(((IMAGES, IMAGES), LABELS))


def test_map():
    assert np.array_equal(np.concatenate(list(batches(IMAGES, batch_size=10).map(lambda b: b + 1))), IMAGES + 1)
