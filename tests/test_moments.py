"""Moments against slow references written here: Python's fractions for integers, float64 NumPy for floats."""

import pickle
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.statistics.moments import Moments

INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
AXES = [-1, None, (1, 2, 3), 1, (1, -1), 2]


def full_range(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) > 0.3
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def exact_truth(images, axis):
    """Mean and variance of every feature as the floats nearest to the true fractions."""
    rank = images.ndim
    axes = () if axis is None else tuple(a % rank for a in np.atleast_1d(axis))
    rows = np.moveaxis(images, axes, range(len(axes))).reshape(*(images.shape[a] for a in sorted(axes)), -1)
    means, variances = [], []
    for row in rows.reshape(-1, rows.shape[-1]):
        values = [int(v) for v in row]
        mean = Fraction(sum(values), len(values))
        means.append(float(mean))
        variances.append(float(sum((v - mean) ** 2 for v in values) / len(values)))
    return means, variances


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact(dtype, axis):
    images = full_range(dtype, (7, 3, 5, 2))
    result = Moments(axis).add(images[:4]).add(images[4:]).result()
    means, variances = exact_truth(images, axis)
    assert result.mean.ravel().tolist() == means
    assert result.variance.ravel().tolist() == variances
    assert result.images == 7
    assert result.count == images.size // len(means)


@pytest.mark.parametrize("bound", [256, 1 << 12, (1 << 20) + 3, 1 << 26, 1 << 40])
def test_wide_integers_of_every_magnitude_are_exact(bound):
    images = np.random.default_rng(1).integers(-bound, bound, (40, 6, 6, 3))
    result = Moments().add(images).result()
    assert (result.mean.tolist(), result.variance.tolist()) == exact_truth(images, -1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=6), st.sampled_from(AXES), st.booleans(), st.randoms())
def test_uint8_gives_the_same_bits_for_any_batches_order_and_merging(cuts, axis, merge, random):
    images = full_range("uint8", (50, 4, 6, 3))
    whole = Moments(axis).add(images).result()
    order = list(range(50))
    random.shuffle(order)
    parts = np.split(images[order], sorted(cuts))
    total = Moments(axis)
    for part in parts:
        total = total.merge(Moments(axis).add(part)) if merge else total.add(part)
    result = total.result()
    assert result.mean.tobytes() == whole.mean.tobytes()
    assert result.variance.tobytes() == whole.variance.tobytes()
    assert result.images == 50


def test_large_uint8_sums_do_not_lose_a_bit():
    # All 255: the sum of squares of one channel, 1.3e12, is far beyond float32; one 254 must be seen.
    images = np.full((5000, 64, 64, 3), 255, "uint8")
    images[4321, 5, 6, 1] = 254
    result = Moments().add(images).result()
    n = 5000 * 64 * 64
    assert result.variance.tolist() == [0.0, float(Fraction(n - 1, n * n)), 0.0]
    assert result.mean.tolist() == [255.0, float(255 - Fraction(1, n)), 255.0]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_right(dtype, axis):
    images = (np.random.default_rng(2).normal(3, 2, (301, 6, 7, 3)) * [1, 5, 0.1]).astype(dtype)
    total = Moments(axis)
    for start in range(0, 301, 13):
        total.add(images[start : start + 13])
    keep = () if axis is None else tuple(a % 4 for a in np.atleast_1d(axis))
    reduced = tuple(a for a in range(4) if a not in keep)
    truth = images.astype("longdouble")
    np.testing.assert_allclose(total.result().mean, truth.mean(reduced).astype("float64"), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(total.result().variance, truth.var(reduced).astype("float64"), rtol=1e-12)


def test_bfloat16_is_read():
    images = np.random.default_rng(3).normal(size=(20, 4)).astype(ml_dtypes.bfloat16)
    truth = images.astype("float64")
    np.testing.assert_allclose(Moments().add(images).result().variance, truth.var(0), rtol=1e-12)


def test_mean_ten_thousand_std_one():
    data = np.random.default_rng(4).normal(1e4, 1, (2_000_000, 3)).astype("float32")
    truth = data.astype("float64")
    result = Moments().add(data).result()
    np.testing.assert_allclose(result.mean, truth.mean(0), rtol=1e-12)
    np.testing.assert_allclose(result.variance, truth.var(0), rtol=1e-9)
    batched = Moments()
    for start in range(0, 2_000_000, 100_000):
        batched.add(data[start : start + 100_000])
    np.testing.assert_allclose(batched.result().variance, truth.var(0), rtol=1e-9)


def test_cifar_sized_float32_is_the_float64_truth():
    data = np.random.default_rng(5).random((50_000, 32, 32, 3), dtype="float32")
    data *= 255
    result = Moments().add(data).result()
    mean = data.mean((0, 1, 2), dtype="float64")
    variance = np.array([np.mean([np.square(p[..., c].astype("float64") - mean[c]).mean() for p in np.split(data, 50)])
                         for c in range(3)])  # fmt: skip
    np.testing.assert_allclose(result.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(result.variance, variance, rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e30, -7.3, 0.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_has_variance_zero_exactly(value, dtype):
    images = np.full((37, 9, 5, 3), value, dtype)
    total = Moments()
    for start in range(0, 37, 5):
        total.add(images[start : start + 5])
    assert total.result().variance.tolist() == [0.0] * 3
    assert total.result().mean.tolist() == [float(np.dtype(dtype).type(value))] * 3


def test_integer_and_float_batches_mix():
    rng = np.random.default_rng(6)
    whole, parts = rng.integers(0, 256, (30, 4)), rng.normal(100, 30, (20, 4))
    result = Moments().add(whole).add(parts).add(whole[:7].astype("uint8")).result()
    truth = np.concatenate([whole, parts, whole[:7]])
    np.testing.assert_allclose(result.mean, truth.mean(0), rtol=1e-13)
    np.testing.assert_allclose(result.variance, truth.var(0), rtol=1e-12)
    assert result.images == 57


def test_merging_is_the_same_as_adding():
    data = np.random.default_rng(7).normal(50, 3, (100, 8))
    a, b = Moments().add(data[:90]), Moments().add(data[90:])
    before = b.result()
    np.testing.assert_allclose(a.merge(b).result().variance, data.var(0), rtol=1e-13)
    assert b.result().variance.tobytes() == before.variance.tobytes()
    assert a.merge(Moments()).images == 100
    assert Moments().merge(a).images == 100


@pytest.mark.parametrize("copy", [lambda m: Moments.from_state(m.state()), lambda m: pickle.loads(pickle.dumps(m))])
def test_state_and_pickle_continue_exactly(copy):
    images = full_range("int64", (30, 3))
    floats = np.random.default_rng(8).normal(size=(30, 3))
    direct = Moments().add(images[:20]).add(floats[:20])
    copied = copy(direct)
    assert all(isinstance(v, np.ndarray) for v in direct.state().values())
    for moments in (direct, copied):
        moments.add(images[20:]).add(floats[20:])
    assert direct.result().variance.tobytes() == copied.result().variance.tobytes()
    assert direct.result().mean.tobytes() == copied.result().mean.tobytes()
    assert copied.images == 60
    assert Moments.from_state(Moments((1, 2)).state()).axis == (1, 2)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_non_finite_values_name_the_batch_and_the_image(value, word):
    total = Moments().add(np.ones((96, 2, 2, 1)))
    batch = np.ones((32, 2, 2, 1), "float32")
    batch[5, 1, 0, 0] = value
    with pytest.raises(ValueError, match=rf"batch 3 \(images 96 to 127\) holds {word}, first in image 101"):
        total.add(batch, "batch 3", 96)
    assert total.images == 96
    assert total.result().variance.tolist() == [0.0]


def test_finite_values_too_large_for_a_variance_raise():
    with pytest.raises(ValueError, match="too large"):
        Moments().add(np.array([[1e200], [-1e200]]))


def test_errors():
    with pytest.raises(ValueError, match="first axis counts the images"):
        Moments((0, 1))
    with pytest.raises(ValueError, match="from 1 to 1 of 2 axes"):
        Moments(3).add(np.ones((2, 2)))
    with pytest.raises(ValueError, match="from 1 to 1 of 2 axes"):
        Moments(-2).add(np.ones((2, 2)))
    with pytest.raises(ValueError, match="integer, a tuple"):
        Moments(1.5)
    with pytest.raises(ValueError, match="single number"):
        Moments().add(3.0)
    with pytest.raises(ValueError, match="no data yet"):
        Moments().result()
    with pytest.raises(ValueError, match=r"\(3,\) features.*\(2,\)"):
        Moments().add(np.ones((1, 2))).add(np.ones((1, 3)))
    with pytest.raises(ValueError, match="cannot be merged"):
        Moments().add(np.ones((1, 2))).merge(Moments().add(np.ones((1, 3))))
    for wrong in (np.array([["a"]]), np.array([[None]]), np.ones((2, 2), complex)):
        with pytest.raises(TypeError, match="dtype"):
            Moments().add(wrong)


def test_an_added_batch_is_neither_changed_nor_kept():
    batch = np.random.default_rng(9).normal(size=(10, 3))
    copy = batch.copy()
    moments = Moments().add(batch)
    assert np.array_equal(batch, copy)
    variance = moments.result().variance
    batch[:] = 0
    assert np.array_equal(moments.result().variance, variance)


def test_strided_and_transposed_arrays():
    images = full_range("uint8", (9, 8, 6, 3))
    for view in (images[::2, ::-1], images.transpose(0, 3, 1, 2), np.asfortranarray(images)):
        result = Moments(1).add(view).result()
        assert (result.mean.tolist(), result.variance.tolist()) == exact_truth(np.ascontiguousarray(view), 1)
