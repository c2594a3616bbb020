"""Integers: the same bits as fractions for any split, order and merge tree, any number of cores, on device and host."""

import copy
import os
import pickle
import signal
from fractions import Fraction
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_moments import AXES, INTEGERS, exact_truth, full_range

from keras_norm_layers.kernels import reduce
from keras_norm_layers.statistics import blocks
from keras_norm_layers.statistics.exact import Sums
from keras_norm_layers.statistics.moments import Moments


def bits(moments):
    result = moments.result()
    return result.images, result.count, result.mean.ravel().tolist(), result.variance.ravel().tolist()


def merged_in_a_tree(parts, random):
    """Neighbours and others, in random order, until one is left; some go through their state or a pickle first."""
    ways = (lambda m: m, lambda m: Moments.from_state(m.state()), lambda m: pickle.loads(pickle.dumps(m)))
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(random.choice(ways)(parts.pop()).merge(parts.pop()))
    return parts[0]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(INTEGERS), st.sampled_from(AXES), st.integers(0, 1000), st.lists(st.integers(0, 14)), st.randoms()
)
def test_any_split_order_and_merge_tree_is_the_fractions(dtype, axis, seed, cuts, random):
    images = full_range(dtype, (14, 2, 3, 2), seed)
    order = random.sample(range(14), 14)
    parts = [Moments(axis).add(part) for part in np.split(images[order], sorted(cuts))]
    means, variances = exact_truth(images, axis)
    assert bits(merged_in_a_tree(parts, random)) == (14, images.size // len(means), means, variances)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_batches_of_different_integers_are_one_set_of_integers(dtype):
    images, small = full_range(dtype, (9, 5, 2)), np.arange(30, dtype="uint8").reshape(3, 5, 2)
    whole = np.concatenate([images.astype(object), small.astype(object)])
    means, variances = exact_truth(whole, -1)
    assert bits(Moments().add(images).add(small)) == (12, 60, means, variances)


@pytest.mark.parametrize(("dtype", "doublings"), [("uint8", 31), ("uint8", 50), ("uint16", 31), ("uint64", 31)])
def test_more_values_than_int32_and_sums_beyond_int64_do_not_overflow(dtype, doublings):
    greatest = int(np.iinfo(dtype).max)
    total = Moments().add(np.full((1, 1), greatest, dtype))
    for _ in range(doublings):
        total.merge(copy.deepcopy(total))
    total.add(np.full((1, 1), greatest, dtype))
    n = 2**doublings + 1
    assert bits(total) == (n, n, [float(greatest)], [0.0])
    for again in (total, Moments.from_state(total.state()), pickle.loads(pickle.dumps(total))):
        again = copy.deepcopy(again).add(np.full((1, 1), greatest - 1, dtype))
        mean = greatest - Fraction(1, n + 1)
        assert bits(again) == (n + 1, n + 1, [float(mean)], [float(Fraction(n, (n + 1) ** 2))])


@pytest.mark.parametrize("axis", [-1, None])
def test_tall_blocks_of_the_greatest_values_are_exact(axis):
    # 800 columns: a block has more rows than float32 could add up, were they not limited.
    images = np.full((700, 800), 255, "uint8")
    images[::7, ::3] = 254
    wide = images.astype("int64").reshape(-1, 1 if axis is None else 800)
    n = len(wide)
    pairs = list(zip(wide.sum(0).tolist(), (wide * wide).sum(0).tolist()))
    means, variances = [s / n for s, _ in pairs], [float(Fraction(n * q - s * s, n * n)) for s, q in pairs]
    assert bits(Moments(axis).add(images)) == (700, n, means, variances)


def test_integers_beside_floats_lose_nothing_to_the_mean_of_the_integers():
    # The integers' mean is no float64: what its rounding leaves is carried into the merge.
    integers = np.array([[10**16 + 1], [10**16 + 2], [10**16 + 4]])
    floats = np.array([[1e16], [1e16 + 8]])
    values = [int(v) for v in (*integers.ravel(), *floats.ravel())]
    mean = Fraction(sum(values), 5)
    truth = float(sum((v - mean) ** 2 for v in values) / 5)
    np.testing.assert_allclose(Moments().add(integers).add(floats).result().variance, truth, rtol=1e-12)


# -- cores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
@pytest.mark.parametrize("axis", [-1, (1, 2, 3)])
def test_the_number_of_cores_changes_no_bit(dtype, axis, monkeypatch):
    monkeypatch.setattr(blocks, "PART_BYTES", 1 << 12)
    images = np.random.default_rng(0).integers(-9, 200, (61, 16, 16, 3)).astype(dtype)
    found = set()
    for cores in (1, 2, 7):
        monkeypatch.setattr(blocks, "cores", lambda cores=cores: cores)
        result = Moments(axis).add(images).result()
        found.add(result.mean.tobytes() + result.variance.tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("cores", [1, 3])
def test_parts_come_back_in_order_and_the_first_error_is_raised(cores, monkeypatch):
    monkeypatch.setattr(blocks, "PART_BYTES", 1 << 10)
    monkeypatch.setattr(blocks, "cores", lambda: cores)
    assert list(blocks.in_order(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    images = np.ones((64, 8, 8, 1), "float32")
    images[[11, 40, 63], 1, 1, 0] = np.nan, np.inf, np.nan
    total = Moments().add(np.ones((3, 8, 8, 1)))
    with pytest.raises(ValueError, match=r"batch 7 \(images 100 to 163\) holds NaN, first in image 111"):
        total.add(images, "batch 7", 100)
    assert (total.images, total.result().variance.tolist()) == (3, [0.0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_starts_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(blocks, "PART_BYTES", 1 << 10)
    monkeypatch.setattr(blocks, "cores", lambda: 2)
    images = full_range("uint8", (64, 8, 8, 3))
    expected = bits(Moments().add(images))
    child = os.fork()
    if not child:
        signal.alarm(30)  # a pool whose threads stayed in the parent would wait for ever
        os._exit(0 if bits(Moments().add(images)) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


# -- on the device ----------------------------------------------------------------------------------------------------


def tensor(images):
    return keras.ops.convert_to_tensor(images, dtype=str(images.dtype))


def device_moments(images, axis):
    kept = tuple(sorted(a % images.ndim for a in Moments(axis).axis))
    sums = Sums.from_digits(*reduce.digit_sums(tensor(images), kept))
    return sums.count, sums.mean().tolist(), sums.variance().tolist()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", reduce.DIGITS)
def test_sums_on_the_device_are_the_fractions(dtype, axis):
    images = full_range(dtype, (7, 3, 5, 2))
    means, variances = exact_truth(images, axis)
    assert device_moments(images, axis) == (images.size // len(means), means, variances)


@pytest.mark.parametrize("dtype", reduce.DIGITS)
def test_sums_of_the_extremes_do_not_overflow_on_the_device(dtype):
    rows = 3 * reduce.ROWS + 17
    least, greatest = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    images = np.empty((rows, 3), dtype)
    images[:] = [least, greatest, greatest]
    images[5, 2] = least
    mean = greatest - Fraction(greatest - least, rows)
    variance = Fraction((greatest - least) ** 2 * (rows - 1), rows**2)
    assert device_moments(images, -1) == (rows, [least, greatest, float(mean)], [0.0, 0.0, float(variance)])


def test_moments_reduce_integers_of_an_accelerator_there(monkeypatch):
    images = full_range("uint8", (9, 4, 5, 3))
    host = Moments().add(images)
    assert bits(Moments().add(tensor(images))) == bits(host)  # by way of the host
    seen = []
    monkeypatch.setattr(reduce, "on_accelerator", lambda x: not isinstance(x, np.ndarray))
    monkeypatch.setattr(reduce, "digit_sums", lambda *args, sums=reduce.digit_sums: seen.append(1) or sums(*args))
    assert bits(Moments().add(tensor(images[:4])).add(images[4:])) == bits(host)
    assert seen == [1]
    floats = images.astype("float32")
    assert bits(Moments().add(tensor(floats))) == bits(Moments().add(floats))  # floats go by way of the host
    assert seen == [1]
    with pytest.raises(ValueError, match=r"\(3,\) features.*\(2,\)"):
        Moments().add(tensor(images[..., :2])).add(tensor(images))


def test_which_tensors_are_on_an_accelerator():
    def torch_like(kind):
        return SimpleNamespace(device=SimpleNamespace(type=kind))

    def tf_like(kind):
        return SimpleNamespace(device=f"/job:localhost/replica:0/task:0/device:{kind}:0")

    def jax_like(kind):
        return SimpleNamespace(devices=lambda: [SimpleNamespace(platform=kind)])

    for x in (torch_like("cuda"), torch_like("mps"), tf_like("GPU"), tf_like("TPU"), jax_like("gpu"), jax_like("tpu")):
        assert reduce.on_accelerator(x)
    others = (torch_like("cpu"), torch_like("meta"), tf_like("CPU"), jax_like("cpu"), SimpleNamespace(device=""))
    for x in (*others, np.ones(3), [1.0], tensor(np.ones(3, "uint8")) if cpu_only() else 3):
        assert not reduce.on_accelerator(x)


def cpu_only():
    return not reduce.on_accelerator(keras.ops.zeros(1))
