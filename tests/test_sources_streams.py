"""Sources as streams: entered in the middle, sampled, without end; the same images however they are cut."""

import functools
import itertools
import tracemalloc

import keras
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.normalization import FeaturewiseNormalization
from keras_norm_layers.statistics.moments import Moments
from keras_norm_layers.statistics.sources import Batches, batches
from keras_norm_layers.statistics.stream import taken

tf = pytest.importorskip("tensorflow", reason="tf.data needs TensorFlow installed, whatever the Keras backend")
torch = pytest.importorskip("torch", reason="torch is not installed")
grain = pytest.importorskip("grain", reason="grain is not installed")
h5py = pytest.importorskip("h5py", reason="h5py is not installed")
zarr = pytest.importorskip("zarr", reason="zarr is not installed")

IMAGES = np.random.default_rng(0).integers(0, 256, (41, 3, 2, 3), dtype=np.uint8)
# What NumPy 2.4's Philox gave; it is to give that forever, for the sample of a checkpoint has to be the same later.
SAMPLE_OF_SEED_7 = [4, 8, 16, 29, 34, 37, 48]
SAMPLE_FAR_AWAY = [1, 2, 13, 14, 17, 21, 27, 49]


class Py(keras.utils.PyDataset):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, i):
        return self.parts[i], np.zeros(len(self.parts[i]))


class Loaded(torch.utils.data.Dataset):
    """A torch dataset whose elements are batches or images."""

    def __init__(self, parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts)

    def __getitem__(self, i):
        return torch.tensor(self.parts[i])


@functools.cache
def hdf5():
    file = h5py.File("never_written.h5", "w", driver="core", backing_store=False)
    return file.create_dataset("x", data=IMAGES, chunks=(4, *IMAGES.shape[1:]))


def zarr_array(x):
    array = zarr.open(zarr.storage.MemoryStore(), mode="w", shape=x.shape, chunks=(4, *x.shape[1:]), dtype=x.dtype)
    array[:] = x
    return array


def from_generator(parts):
    shape = tf.TensorSpec((None, *parts[0].shape[1:]), "uint8")
    return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=shape)


WHOLE = {  # sources that are cut by batch_size
    "array": lambda x: x,
    "list": list,
    "hdf5": lambda x: hdf5(),
    "zarr": zarr_array,
    "tf.data": tf.data.Dataset.from_tensor_slices,
    "torch dataset": Loaded,
    "grain": lambda x: grain.MapDataset.source(list(x)),
    "generator of images": lambda x: lambda: iter(x),
    "torch loader of images": lambda x: torch.utils.data.DataLoader(Loaded(x), batch_size=None),
}
FILES = ["npy", "folder"]
PARTS = {  # sources that come in batches
    "PyDataset": Py,
    "tf.data of batches": from_generator,
    "list of batches": list,
    "torch dataset of batches": Loaded,
    "torch loader": lambda parts: torch.utils.data.DataLoader(Loaded(parts), batch_size=None),
    "grain of batches": grain.MapDataset.source,
    "grain stream": lambda parts: grain.MapDataset.source(parts).to_iter_dataset(grain.ReadOptions(num_threads=0)),
    "generator": lambda parts: lambda: iter(parts),
}
# Nobody can tell how long these are.
ENDLESS = ["generator", "generator of images", "grain stream", "tf.data of batches"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Makes a source of the images, which ``batch_size`` cuts."""
    root = tmp_path_factory.mktemp("images")
    np.save(root / "x.npy", IMAGES)
    for i, pixels in enumerate(IMAGES):
        PIL.Image.fromarray(pixels).save(root / f"{i:02}.png")
    paths = {"npy": root / "x.npy", "folder": root}
    return lambda kind: paths[kind] if kind in paths else WHOLE[kind](IMAGES)


def same_batches(found, expected):
    found = list(found)
    assert [batch.shape for batch in found] == [batch.shape for batch in expected]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))


@pytest.mark.parametrize("kind", [*WHOLE, *FILES, *PARTS])
@settings(deadline=None, max_examples=15)
@given(
    cuts=st.lists(st.integers(1, 40), max_size=8, unique=True),
    batch_size=st.integers(1, 45),
    start=st.integers(0, 12),
    sample=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_source_gives_the_same_images_from_any_batch_on_and_the_same_sample(
    whole, kind, cuts, batch_size, start, sample, seed
):
    if kind not in PARTS:
        data, options = whole(kind), {"rank": 4, "batch_size": batch_size}
        expected = [IMAGES[i : i + batch_size] for i in range(0, 41, batch_size)]
    else:
        expected = np.split(IMAGES, sorted(cuts))
        data, options = PARTS[kind](expected), {"rank": 4}
    source = batches(data, **options)
    same_batches(source, expected)
    same_batches(source.iterate(start), expected[start:])
    same_batches(source.map(lambda batch: batch[:, ::-1]).iterate(start), [b[:, ::-1] for b in expected[start:]])
    kept = taken(0, 41, sample, seed)
    bounds = np.cumsum([0, *map(len, expected)])
    chosen = [batch[kept[a:b]] for batch, a, b in zip(expected, bounds, bounds[1:])]
    sampled = batches(data, **options, sample=sample, seed=seed)
    same_batches(sampled, chosen)
    same_batches(sampled.iterate(start), chosen[start:])
    limited = batches(data, **options, sample=sample, seed=seed, steps=min(3, len(expected)))
    same_batches(limited, chosen[:3])
    same_batches(limited.iterate(min(start, 3)), chosen[start:3])


# -- samples -----------------------------------------------------------------------------------------------------------


@given(
    first=st.integers(0, 10**12),
    count=st.integers(0, 100),
    cut=st.integers(0, 100),
    sample=st.floats(0.0, 1.0, exclude_min=True),
    seed=st.integers(0, 2**31 - 1),
)
def test_whether_an_image_is_taken_hangs_on_its_number_and_the_seed(first, count, cut, sample, seed):
    cut = min(cut, count)
    parts = [taken(first, cut, sample, seed), taken(first + cut, count - cut, sample, seed)]
    whole = taken(first, count, sample, seed)
    assert whole.shape == (count,)
    assert np.array_equal(np.concatenate(parts), whole)
    assert taken(first, count, 1.0, seed).all()
    assert not (taken(first, count, sample / 2, seed) & ~whole).any()  # a smaller sample is a part of a larger one


@pytest.mark.parametrize("sample", [0.001, 0.1, 0.5, 0.9])
def test_a_sample_is_a_random_share(sample):
    n = 400_000
    one, other = taken(0, n, sample, 1), taken(0, n, sample, 2)
    deviation = np.sqrt(n * sample * (1 - sample))
    assert abs(one.sum() - n * sample) < 5 * deviation
    for a, b in ((one, other), (one[:-1], one[1:]), (one[:-4], one[4:])):  # seeds and neighbours are independent
        expected = len(a) * sample**2
        assert abs((a & b).sum() - expected) < 5 * np.sqrt(expected)
    places = np.flatnonzero(one)
    assert abs(places.mean() / n - 0.5) < 5 * np.sqrt(1 / 12 / len(places))


def test_the_sample_of_a_seed_stays_what_it_is():
    assert np.flatnonzero(taken(0, 60, 0.1, 7)).tolist() == SAMPLE_OF_SEED_7
    assert np.flatnonzero(taken(10**15, 60, 0.1, 7)).tolist() == SAMPLE_FAR_AWAY


def test_without_a_seed_samples_differ_and_set_random_seed_decides():
    def draw():
        source = batches(IMAGES, sample=0.5)
        once, again = (next(iter(source)) for _ in range(2))
        assert np.array_equal(once, again)  # one source is one sample
        same_batches(batches(IMAGES, sample=0.5, seed=source.seed), [once])
        return once.tobytes()

    keras.utils.set_random_seed(3)
    first, second = draw(), draw()
    assert first != second
    keras.utils.set_random_seed(3)
    assert draw() == first
    assert batches(IMAGES).seed is None


def test_the_mean_of_a_sample_is_near_that_of_all():
    digits = sklearn.datasets.load_digits().images[..., None]
    everything, part = Moments(), Moments()
    for total, options in ((everything, {}), (part, {"sample": 0.25, "seed": 5})):
        for batch in batches(digits, batch_size=100, **options):
            total.add(batch)
    (n, _, mean, variance), (k, _, part_mean, _) = everything.result(), part.result()
    assert n == 1797
    assert abs(k - n / 4) < 5 * np.sqrt(n * 3 / 16)
    assert abs(part_mean - mean)[0] < 5 * np.sqrt(variance[0] / k)


# -- entering ----------------------------------------------------------------------------------------------------------


class Watched:
    """An array that says which slices of it were read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, rows):
        self.read.append(rows.start)
        return self.array[rows]


def test_arrays_and_pydatasets_read_nothing_before_the_batch_they_begin_at():
    data = Watched(IMAGES)
    list(batches(data, batch_size=10).iterate(3))
    assert data.read == [30, 40]
    data.read.clear()
    list(batches(data, batch_size=10, sample=0.5, seed=1, steps=4).iterate(3))
    assert data.read == [30]

    read = []

    class Noted(Py):
        def __getitem__(self, i):
            read.append(i)
            return super().__getitem__(i)

    list(batches(Noted(np.split(IMAGES, [10, 30])), rank=4).iterate(2))
    assert read == [2]


def test_a_function_is_not_applied_to_batches_that_are_passed_over():
    seen = []
    source = batches(lambda: iter([IMAGES] * 5)).map(lambda batch: seen.append(len(batch)) or batch)
    assert len(list(source.iterate(3))) == len(seen) == 2


def test_batches_of_ones_own():
    source = Batches(lambda: iter([IMAGES[:30], IMAGES[30:]]), 2)
    same_batches(source.iterate(1), [IMAGES[30:]])
    assert batches(source, steps=1).length == 1
    same_batches(batches(source, sample=0.5, seed=3), list(batches(lambda: iter(source), rank=4, sample=0.5, seed=3)))
    entered = Batches(lambda: iter([]), seek=lambda start: iter([IMAGES] * start))
    assert len(list(entered.iterate(4))) == 4


# -- without end -------------------------------------------------------------------------------------------------------


def peak_of(images, **options):
    """The most memory that a stream of so many images of 4 x 4 pixels takes on its way into the moments."""

    def stream():
        rng = np.random.default_rng(0)
        for first in range(0, images, 4096):
            yield rng.integers(0, 256, (min(4096, images - first), 4, 4, 1), dtype=np.uint8)

    total = Moments()
    tracemalloc.start()
    for batch in batches(stream, **options):
        total.add(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, total


@pytest.mark.parametrize("options", [{}, {"sample": 0.3, "seed": 1}, {"steps": 245}])
def test_a_million_images_take_the_memory_of_a_few(options):
    few, _ = peak_of(20_480, **{**options, **({"steps": 5} if "steps" in options else {})})
    many, total = peak_of(1_000_000, **options)
    assert many < 1.2 * few + 10_000  # all of them are 16 MB, 800 times as much as a batch
    assert many < 2_000_000
    if "sample" in options:
        assert abs(total.images - 300_000) < 5 * np.sqrt(210_000)
    else:
        assert total.images == 1_000_000


def test_an_array_on_disk_is_never_read_as_a_whole(tmp_path):
    data = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "uint8", (1_000_000, 4, 4, 1))
    data[::7] = 9
    del data
    tracemalloc.start()
    total = Moments()
    for batch in batches(tmp_path / "x.npy", batch_size=4096):
        total.add(batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert total.result().mean[0] == 9 * 142858 / 1_000_000


def test_streams_without_end_give_their_first_batches():
    source = batches(itertools.count, rank=1, batch_size=3, steps=2)
    assert [batch.tolist() for batch in source] == [[0, 1, 2], [3, 4, 5]]
    assert [batch.tolist() for batch in source.iterate(1)] == [[3, 4, 5]]
    endless = tf.data.Dataset.range(5).repeat()
    assert [b.tolist() for b in batches(endless, rank=1, batch_size=3, steps=3).iterate(1)] == [[3, 4, 0], [1, 2, 3]]


# -- progress ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*WHOLE, *FILES, *PARTS])
def test_progress_for_every_source(whole, kind, capsys):
    """The bar counts every batch, and knows its end wherever the source does."""
    if kind not in PARTS:
        data, options, count = whole(kind), {"batch_size": 10}, 5
    else:
        data, options, count = PARTS[kind](np.split(IMAGES, [10, 15, 40])), {}, 4
    layer = FeaturewiseNormalization()
    layer.build((None, 3, 2, 3))
    layer.adapt(data, verbose=1, **options)
    assert float(layer.count) == 41
    end = "Unknown" if kind in ENDLESS else str(count)
    assert f"{count}/{end}" in capsys.readouterr().out
    layer.adapt(data, verbose=1, steps=2, **options)
    assert "2/2" in capsys.readouterr().out
