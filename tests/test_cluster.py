"""Ray: what workers add up block by block is what one process adds up; errors, workers that die, layers and models.

A real local cluster: two CPUs, several worker processes. What needs no layer, so no backend, runs once.
"""

import os
import signal
import sys

import keras
import numpy as np
import pytest
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.normalization.clustered import ShippedView
from keras_norm_layers.statistics import cluster
from keras_norm_layers.statistics.covariance import Covariance
from keras_norm_layers.statistics.extremes import Extremes
from keras_norm_layers.statistics.moments import Moments
from keras_norm_layers.statistics.patches import PatchCovariance
from keras_norm_layers.statistics.quantiles import Quantiles
from keras_norm_layers.statistics.spectrum import Spectrum

# JAX warns of every fork after its first computation; Ray's starts another program at once.
pytestmark = pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning")
no_layer = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="no layer, no backend: runs once, with TensorFlow's tests"
)


@pytest.fixture(scope="module")
def ray():
    """Ray with a local cluster that ends with the tests of this file: a dozen processes, which take time when idle."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        pytest.importorskip("ray", reason="Ray has no wheel for this Python")
        import ray
        import ray.data

        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
        ray.shutdown()


def pictures(count=240, shape=(6, 5, 3), dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(dtype)


def dataset_of(ray, images, blocks=8):
    return ray.data.from_numpy(np.array_split(images, blocks))


class Huge(Moments):
    """Says that it will have 2048 rows of 150,528 values."""

    size, capacity = 150_528, 2048


def numbers(variable):
    return np.array(keras.ops.convert_to_numpy(variable))


def same(a, b):
    """Whether two results are equal bit for bit."""
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b))


ACCUMULATORS = {
    "moments, channel": lambda: Moments(-1),
    "moments, pixel": lambda: Moments((1, 2, 3)),
    "extremes": lambda: Extremes(-1),
    "quantiles": lambda: Quantiles(-1),
    "covariance": lambda: Covariance(90),
    "covariance of patches": lambda: PatchCovariance(3, 3),
}


@no_layer
@pytest.mark.parametrize("blocks", [1, 7, 40])  # 40: several a task, several tasks
def test_integers_give_the_bits_of_one_process(ray, blocks):
    images = pictures()
    found = cluster.aggregate(dataset_of(ray, images, blocks), [make() for make in ACCUMULATORS.values()])
    for name, total in zip(ACCUMULATORS, found):
        alone = ACCUMULATORS[name]().add(images)
        assert total.images == len(images), name
        assert same(total.result(), alone.result()), name


@no_layer
def test_floats_agree_within_rounding_and_come_out_the_same_again(ray):
    images = pictures(dtype="float32") / np.float32(255) + np.float32(1000)
    makers = [lambda: Moments((1, 2, 3)), lambda: Covariance(90)]
    first, again = (cluster.aggregate(dataset_of(ray, images, 20), [make() for make in makers]) for _ in range(2))
    for make, a, b in zip(makers, first, again):
        assert same(a.result(), b.result())
        for found, wanted in zip(a.result(), make().add(images).result()):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@no_layer
def test_a_spectrum_comes_out_the_same_again_and_is_exact_where_it_keeps_everything(ray):
    images = pictures()
    for rank in (8, 90):
        first, again = (cluster.aggregate(dataset_of(ray, images, 20), [Spectrum(90, rank)])[0] for _ in range(2))
        assert same(first.result(), again.result())
    values = np.linalg.eigvalsh(np.cov(images.reshape(240, 90).T.astype("float64"), bias=True))[::-1]
    np.testing.assert_allclose(first.result().values[:80], values[:80], rtol=1e-9)


@no_layer
def test_the_work_is_done_by_several_workers_and_not_here(ray, tmp_path):
    folder = str(tmp_path)

    def note(images):
        import time

        time.sleep(0.3)  # so that one worker alone cannot be through before the other has begun
        open(os.path.join(folder, str(os.getpid())), "w").close()
        return [images]

    found = cluster.aggregate(dataset_of(ray, pictures(640), 8), [Moments()], view=note)
    seen = set(os.listdir(folder)) - {str(os.getpid())}  # this process runs it on one image, to learn the sizes
    assert found[0].images == 640
    assert len(seen) >= 2


@no_layer
def test_a_worker_that_is_killed_half_way_changes_no_bit(ray, tmp_path):
    images, marker, here = pictures(), str(tmp_path / "killed"), os.getpid()

    def kill_once(batch):
        yield batch
        if os.getpid() != here and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

    # The first accumulator has added the block when the worker dies.
    found = cluster.aggregate(dataset_of(ray, images), [Moments(), Moments((1, 2, 3))], view=kill_once)
    assert os.path.exists(marker)
    for total, alone in zip(found, [Moments(), Moments((1, 2, 3))]):
        assert total.images == len(images)
        assert same(total.result(), alone.add(images).result())


@no_layer
def test_nothing_but_accumulators_comes_back_and_a_large_one_takes_more_images(ray):
    assert cluster._rows_together(200, 3072) is None  # far smaller than a block: a block at a time
    large = 300 << 20
    with pytest.raises(MemoryError, match=r"takes 2.5 GB; .* Lower `rank`"):
        cluster.aggregate(dataset_of(ray, pictures(2, (1, 1, 3))), [Huge()])
    rows = cluster._rows_together(large, 150528)
    assert cluster.BLOCK_BYTES < rows * 150528 <= cluster.GROUP_BYTES
    image = np.zeros((4, 4, 3), "uint8")
    assert cluster._state_bytes([Covariance(48)], None, image) >= 8 * 48 * 48 / 2
    assert cluster._state_bytes([Moments()], None, image) < 200


@no_layer
def test_a_task_takes_several_blocks_and_sends_one_accumulator(ray, monkeypatch):
    received, rows, images = [], cluster._rows, pictures(3840, (4, 4, 3))
    monkeypatch.setattr(cluster, "_rows", lambda dataset: (received.append(row) or row for row in rows(dataset)))
    monkeypatch.setattr(cluster, "BLOCK_BYTES", 0)
    (found,) = cluster.aggregate(dataset_of(ray, images, 40), [Covariance(48)])
    # 8 times its 9216 bytes are 1536 images of 48 bytes, 16 of the 40 blocks.
    assert [number for number, _, _ in received] == [1536, 1536, 768]
    assert same(found.result(), Covariance(48).add(images).result())


@no_layer
def test_nan_on_a_worker_is_the_same_readable_error(ray):
    images = pictures(dtype="float32")
    images[137, 2, 2, 1] = np.nan
    with pytest.raises(ValueError, match="holds NaN, first in image 17") as caught:  # blocks of 30
        cluster.aggregate(dataset_of(ray, images, 8), [Moments()])
    assert "which is image 120 of the dataset" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "_add" in str(caught.value.__cause__)  # the worker's traceback


@no_layer
def test_an_error_ends_the_reading_before_it_is_raised(ray, monkeypatch):
    begun, rows, images = [], cluster._rows, pictures(dtype="float32")
    images[137] = np.nan
    monkeypatch.setattr(cluster, "_rows", lambda dataset: begun.append(rows(dataset)) or begun[0])
    with pytest.raises(ValueError, match="NaN"):
        cluster.aggregate(dataset_of(ray, images), [Moments()])
    assert begun[0].gi_frame is None  # else it ends with the traceback, when Ray may be gone


@no_layer
def test_the_order_that_ray_kept_before_comes_back(ray):
    dataset = dataset_of(ray, pictures(dtype="float32") * np.nan)
    with pytest.raises(ValueError, match="NaN"):
        cluster.aggregate(dataset, [Moments()])
    assert dataset.context.execution_options.preserve_order is False


@no_layer
@pytest.mark.parametrize(
    "names, key, wanted",
    [
        (["label", "image"], None, "image"),
        (["x", "y"], None, "x"),
        (["y", "data"], None, "data"),
        (["photo"], None, "photo"),
        (["image", "photo"], "photo", "photo"),
    ],
)
def test_the_column_of_the_images(names, key, wanted):
    assert cluster._column(dict.fromkeys(names, 0), key) == wanted


@no_layer
def test_columns_that_cannot_be_known_and_data_that_holds_no_images(ray):
    with pytest.raises(ValueError, match=r"columns \['a', 'b'\]; say with key="):
        cluster._column({"a": 0, "b": 0}, None)
    dataset = ray.data.from_items([{"image": pictures(1)[0], "label": 3}] * 4, override_num_blocks=1)
    with pytest.raises(ValueError, match=r"columns \['image', 'label'\]. Received: key='photo'"):
        cluster.aggregate(dataset, [Moments()], key="photo")
    assert cluster.aggregate(dataset, [Moments()])[0].images == 4
    with pytest.raises(TypeError, match="holds bytes .* Decode the images first"):
        cluster.images_of(ray.data.from_items([{"image": b"\xff\xd8"}]))
    with pytest.raises(ValueError, match="no images"):
        cluster.images_of(ray.data.from_items([{"image": 1}]).limit(0))


@no_layer
def test_images_of_several_shapes(ray):
    images = [pictures(1, (size, 4, 3), seed=size)[0] for size in (5, 6, 6, 7, 5)]
    dataset = ray.data.from_items([{"image": image} for image in images], override_num_blocks=2)
    with pytest.raises(ValueError, match=r"has the shape \(6, 4, 3\). Allowed: \(5, 4, 3\)"):
        cluster.aggregate(dataset, [Moments()])
    (found,) = cluster.aggregate(dataset, [Moments()], shape=(None, 4, 3))
    alone = Moments()
    for image in images:
        alone.add(image[None])
    assert same(found.result(), alone.result())


@no_layer
def test_an_accumulator_with_data_in_it_is_refused(ray):
    with pytest.raises(ValueError, match="takes empty accumulators"):
        cluster.aggregate(dataset_of(ray, pictures()), [Moments().add(pictures(3))])


@no_layer
def test_workers_need_neither_keras_nor_this_package(fresh, tmp_path):
    cloudpickle = pytest.importorskip("ray.cloudpickle", reason="Ray has no wheel for this Python")
    made = [make() for make in ACCUMULATORS.values()] + [Spectrum(90, 8)]
    with cluster._code_sent_along():
        (tmp_path / "task").write_bytes(cloudpickle.dumps((cluster._add, made)))
    code = f"""
import json, pickle, sys
import numpy as np
sys.modules["keras_norm_layers"] = None
add, made = pickle.load(open({str(tmp_path / "task")!r}, "rb"))
row = add({{"x": np.ones((9, 6, 5, 3), "uint8")}}, "x", (6, 5, 3), made, None)
print(json.dumps([row["images"].tolist(), str(row["error"][0]), "keras" in sys.modules]))
"""
    assert fresh(code) == [[9], "b''", False]


def test_other_data_is_no_dataset_and_ray_is_not_imported_to_find_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "ray.data", raising=False)
    assert not cluster.is_dataset([1, 2])
    assert not cluster.is_dataset(None)
    assert "ray.data" not in sys.modules


# -- layers and models, on every backend ------------------------------------------------------------------------------


def test_a_layer_learns_the_same_bits_as_from_an_array(ray):
    images = pictures()
    layer, alone = knl.FeaturewiseNormalization(), knl.FeaturewiseNormalization()
    layer.adapt(dataset_of(ray, images))
    alone.adapt(images)
    for name in ("mean", "std", "count"):
        assert np.array_equal(numbers(getattr(layer, name)), numbers(getattr(alone, name))), name
    assert same(layer.accumulator.result(), alone.accumulator.result())
    layer.update(images[:7])  # what came back from the cluster goes on exactly
    assert layer.accumulator.images == 247


def test_a_model_whose_layers_see_the_data_and_each_other(ray):
    images = pictures(shape=(4, 4, 3))

    def model():
        keras.utils.set_random_seed(1)
        return keras.Sequential(
            [
                keras.Input((4, 4, 3), dtype="uint8"),
                knl.FeaturewiseNormalization(),
                keras.layers.Conv2D(2, 3),
                knl.FeaturewiseNormalization(axis=(1, 2, 3)),
            ]
        )

    there, here = model(), model()
    knl.adapt(there, dataset_of(ray, images, 4))
    knl.adapt(here, images)
    assert same(there.layers[0].accumulator.result(), here.layers[0].accumulator.result())
    for found, wanted in zip(there.layers[2].accumulator.result(), here.layers[2].accumulator.result()):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)  # a convolution of float32, in other batches


def test_errors_leave_a_layer_as_it_was(ray):
    images = pictures(dtype="float32")
    layer = knl.FeaturewiseNormalization()
    layer.adapt(images)
    before = numbers(layer.mean)
    bad = images.copy()
    bad[200, 1, 1, 1] = np.inf
    with pytest.raises(ValueError, match="holds infinity"):
        layer.adapt(dataset_of(ray, bad))
    with pytest.raises(ValueError, match=r"built for images of shape .* Received: \(1, 6, 5, 4\)"):
        layer.adapt(dataset_of(ray, pictures(shape=(6, 5, 4))))
    with pytest.raises(ValueError, match="takes batches of 4 axes"):
        layer.adapt(dataset_of(ray, pictures(shape=(6,))))
    assert np.array_equal(numbers(layer.mean), before)


def test_workers_on_another_backend_say_what_to_set():
    view = ShippedView(abs, None)
    view._backend = "other"
    with pytest.raises(ValueError, match=f'Keras on {BACKEND}, .*"KERAS_BACKEND": "other"'):
        view(pictures(1))


@no_layer
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 3}, r"`steps` .* dataset.limit\(number\)"),
        ({"batch_size": 8}, "`batch_size` .* leave it out"),
        ({"checkpoint": "x.ckpt"}, "`checkpoint` .* Ray runs again"),
        ({"sample": 2.0}, "`sample` must be a number in"),
    ],
)
def test_arguments_that_are_not_for_ray_datasets_say_what_to_do(ray, arguments, message):
    with pytest.raises(ValueError, match=message):
        knl.FeaturewiseNormalization().adapt(dataset_of(ray, pictures()), **arguments)


@no_layer
def test_a_sample_takes_its_share_and_the_same_images_again(ray):
    images = pictures(2000, (2, 2, 3))
    layers = [knl.FeaturewiseNormalization() for _ in range(3)]
    for layer, seed in zip(layers, (1, 1, 2)):
        layer.adapt(dataset_of(ray, images, 10), sample=0.25, seed=seed)
    assert 400 < layers[0].accumulator.images < 600  # 500, and 5 standard deviations of 19
    assert same(layers[0].accumulator.result(), layers[1].accumulator.result())
    assert not same(layers[0].accumulator.result(), layers[2].accumulator.result())
