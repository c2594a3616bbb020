"""Covariance, of images and of patches, against NumPy's in float64 and scikit-learn's; exact for bytes."""

import fractions
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.statistics import covariance
from keras_norm_layers.statistics.covariance import Covariance
from keras_norm_layers.statistics.patches import PatchCovariance


def truth(images):
    return np.cov(images.reshape(len(images), -1).astype("float64").T, bias=True)


@pytest.mark.parametrize("batch", [1, 7, 500, 3000])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16"])
def test_covariance_of_batches(batch, dtype):
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(2500, 12)) @ rng.normal(size=(12, 12)) * 5 + 100).astype(dtype).reshape(2500, 2, 2, 3)
    total = Covariance(12)
    for start in range(0, 2500, batch):
        total.add(images[start : start + batch])
    images_seen, mean, result = total.result()[:3]
    assert images_seen == 2500
    np.testing.assert_allclose(mean, images.astype("float64").reshape(2500, -1).mean(0), rtol=1e-12)
    np.testing.assert_allclose(result, truth(images), rtol=1e-10, atol=1e-10)
    assert np.array_equal(result, result.T)


def test_far_from_zero_and_drifting():
    rng = np.random.default_rng(1)
    data = np.concatenate([np.zeros((3000, 4)), rng.normal(1e6, 1, (3000, 4))])
    total = Covariance(4)
    for part in np.split(data, 20):
        total.add(part)
    np.testing.assert_allclose(total.result().covariance, truth(data), rtol=1e-12)
    far = rng.normal(1e6, 1, (3000, 4))
    np.testing.assert_allclose(Covariance(4).add(far).result().covariance, truth(far), atol=1e-8)


def test_merge_state_and_pickle():
    data = np.random.default_rng(2).normal(3, 2, (3000, 5))
    a, b = Covariance(5).add(data[:1100]), Covariance(5).add(data[1100:])
    merged = Covariance.from_state(a.state()).merge(b)
    np.testing.assert_allclose(merged.result().covariance, truth(data), rtol=1e-12)
    assert merged.images == 3000
    copies = [Covariance.from_state(merged.state()), pickle.loads(pickle.dumps(merged))]
    for copy in copies:
        assert copy.result().covariance.tobytes() == merged.result().covariance.tobytes()
    np.testing.assert_allclose(Covariance(5).merge(b).result().covariance, truth(data[1100:]), rtol=1e-12)
    with pytest.raises(ValueError, match="5 and 6 values"):
        merged.merge(Covariance(6))


def test_the_batch_is_not_kept():
    batch = np.random.default_rng(3).normal(size=(10, 3))
    total = Covariance(3).add(batch)
    expected = truth(batch)
    batch[:] = 0
    np.testing.assert_allclose(total.result().covariance, expected, rtol=1e-12)


def test_errors():
    total = Covariance(4).add(np.ones((20, 2, 2)))
    bad = np.ones((10, 4))
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"batch 2 \(images 20 to 29\) holds NaN, first in image 23"):
        total.add(bad, "batch 2", 20)
    assert total.images == 20
    with pytest.raises(ValueError, match=r"images of 4 values each. Received shape \(2, 5\)"):
        total.add(np.ones((2, 5)))
    with pytest.raises(TypeError, match="text or objects"):
        total.add(np.array([["a"] * 4]))
    with pytest.raises(ValueError, match="no data yet"):
        Covariance(4).result()


def test_what_does_not_fit_is_refused_before_it_is_taken(monkeypatch):
    monkeypatch.setattr(covariance, "free_memory", lambda: 16_000_000_000)
    with pytest.raises(MemoryError, match=r"150528 values.*1087\.6 GB.*16\.0 GB are free.*rank=.*patch_size=.*18257"):
        Covariance(224 * 224 * 3)
    monkeypatch.setattr(covariance, "free_memory", lambda: covariance.COPIES * 8 * 100**2)
    assert Covariance(100).size == 100
    with pytest.raises(MemoryError):
        Covariance(101)
    monkeypatch.setattr(covariance, "free_memory", lambda: None)
    assert Covariance(101).size == 101


BYTES = np.random.default_rng(4).integers(0, 256, (60, 5), dtype=np.uint8)
SPLITS = st.lists(st.integers(0, 60), max_size=4).map(lambda cuts: np.split(np.arange(60), sorted(cuts)))


@settings(max_examples=30, deadline=None)
@given(SPLITS, st.permutations(range(60)), st.booleans())
def test_any_split_order_and_tree_gives_the_same(parts, order, bytes_):
    """The same bits for bytes, 1e-12 for floats."""
    data = BYTES[order] if bytes_ else BYTES[order] / 7.0
    whole = Covariance(5).add(BYTES if bytes_ else BYTES / 7.0).result()
    trees = [Covariance(5), Covariance(5)]
    for number, part in enumerate(parts):
        trees[number % 2].merge(pickle.loads(pickle.dumps(Covariance(5).add(data[part]))))
    merged = Covariance.from_state(trees[0].state()).merge(trees[1]).result()
    if bytes_:
        assert merged.covariance.tobytes() == whole.covariance.tobytes()
        assert merged.mean.tobytes() == whole.mean.tobytes()
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-11, atol=1e-10)
    np.testing.assert_allclose(merged.fourth, whole.fourth, rtol=1e-11)
    assert merged.images == merged.samples == 60


def test_bytes_against_rational_arithmetic():
    data = [[int(v) for v in row] for row in BYTES[:, :2]]
    n = len(data)
    mean = [fractions.Fraction(sum(row[i] for row in data), n) for i in range(2)]
    exact = sum((row[0] - mean[0]) * (row[1] - mean[1]) for row in data) / n
    found = Covariance(5).add(BYTES[:40]).add(BYTES[40:]).result()
    assert found.mean[0] == float(mean[0])
    np.testing.assert_allclose(found.covariance[0, 1], float(exact), rtol=1e-12)
    extreme = np.full((3000, 2), 255, "uint8")
    extreme[::2] = 0
    assert Covariance(2).add(extreme).result().covariance.tolist() == [[127.5**2] * 2] * 2
    assert Covariance(2).add(np.full((2500, 2), 77, "uint8")).result().covariance.tolist() == [[0.0] * 2] * 2


def test_bytes_and_floats_together_and_other_points():
    together = Covariance(5).add(BYTES[:20]).add(BYTES[20:50].astype("float32")).add(BYTES[50:] > 300)
    data = np.concatenate([BYTES[:50], np.zeros((10, 5))])
    np.testing.assert_allclose(together.result().covariance, truth(data), rtol=1e-12)
    np.testing.assert_allclose(together.mean, data.mean(0), rtol=1e-13)
    again = Covariance.from_state(together.state())
    assert again.result().covariance.tobytes() == together.result().covariance.tobytes()
    point = np.arange(5.0) * 30
    found = together.result(about=point)
    np.testing.assert_allclose(found.covariance, (data - point).T @ (data - point) / 60, rtol=1e-12)
    np.testing.assert_allclose(found.fourth, (((data - point) ** 2).sum(1) ** 2).mean(), rtol=1e-12)


def test_a_state_taken_on_the_way_changes_no_bit():
    data = np.random.default_rng(5).normal(100, 3, (2000, 4))
    straight, resumed = Covariance(4), Covariance(4)
    for start in range(0, 2000, 250):
        straight.add(data[start : start + 250])
        resumed = Covariance.from_state(resumed.add(data[start : start + 250]).state())
    assert straight.result().covariance.tobytes() == resumed.result().covariance.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("count", [5, 30, 400])
def test_shrinkage_is_scikit_learns(dtype, count):
    sklearn_covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(count)
    data = (rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) * 8 + 90).clip(0, 255).astype(dtype)
    wide = data.astype("float64")
    merged = Covariance(12).add(data[:4]).merge(Covariance(12).add(data[4:])).result()
    expected = sklearn_covariance.ledoit_wolf_shrinkage(wide)
    assert 0 < expected < 1
    np.testing.assert_allclose(merged.shrinkage("ledoit-wolf"), expected, rtol=1e-9)
    np.testing.assert_allclose(merged.shrinkage("oas"), sklearn_covariance.oas(wide)[1], rtol=1e-9)
    expected = sklearn_covariance.ledoit_wolf_shrinkage(wide - 50, assume_centered=True)
    about = Covariance(12).add(data).result(about=np.full(12, 50.0))
    np.testing.assert_allclose(about.shrinkage("ledoit-wolf"), expected, rtol=1e-9)


def test_shrinkage_of_what_has_no_variance_or_too_large_values():
    assert Covariance(2).add(np.ones((9, 2))).result().shrinkage("ledoit-wolf") == 0
    assert Covariance(2).add(np.ones((9, 2))).result().shrinkage("oas") == 1
    huge = Covariance(2).add(np.array([[1e100, 0.0], [0.0, 1e100]])).result()
    np.testing.assert_allclose(huge.covariance[0, 0], 2.5e199)
    with pytest.raises(ValueError, match="too large for the fourth powers"):
        huge.shrinkage("ledoit-wolf")


def test_nan_policy():
    data = np.random.default_rng(6).normal(size=(50, 3))
    holes = data.copy()
    holes[[3, 20], [0, 2]] = np.nan
    kept = np.delete(data, [3, 20], 0)
    found = Covariance(3, nan_policy="omit").add(holes[:10]).add(holes[10:])
    assert found.images == 48
    np.testing.assert_allclose(found.result().covariance, truth(kept), rtol=1e-12)
    assert Covariance.from_state(found.state()).add(holes).images == 96
    holes[30, 1] = np.inf
    with pytest.raises(ValueError, match="holds infinity, first in image 30"):
        Covariance(3, nan_policy="omit").add(holes)
    with pytest.raises(ValueError, match="`nan_policy` must be 'raise' or 'omit'"):
        Covariance(3, nan_policy="propagate")


def patches_of(images, p):
    view = np.lib.stride_tricks.sliding_window_view(images, (p, p), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    return view.reshape(-1, p * p * images.shape[-1]).astype("float64")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("p, shape", [(7, (3, 20, 31, 3)), (3, (4, 3, 3, 1)), (1, (3, 4, 5, 3)), (5, (2, 5, 40, 2))])
def test_all_patches(p, shape, dtype):
    rng = np.random.default_rng(p)
    images = (rng.normal(size=shape).cumsum(1).cumsum(2) * 9 + 120).clip(0, 255).astype(dtype)
    total = PatchCovariance(p, shape[-1]).add(images[:1]).merge(PatchCovariance(p, shape[-1]).add(images[1:]))
    patches = patches_of(images, p)
    found = total.result()
    assert (total.images, total.patches, found.samples) == (shape[0], len(patches), len(patches))
    np.testing.assert_allclose(found.mean, patches.mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        found.covariance, np.cov(patches.T, bias=True).reshape((p * p * shape[-1],) * 2), atol=1e-8
    )
    if dtype == "uint8":
        assert PatchCovariance(p, shape[-1]).add(images).result().covariance.tobytes() == found.covariance.tobytes()
    again = PatchCovariance.from_state(total.state())
    assert again.result().covariance.tobytes() == found.covariance.tobytes()
    assert again.images == shape[0]


def test_patches_of_images_of_many_sizes_and_errors():
    rng = np.random.default_rng(8)
    batches = [rng.integers(0, 256, (2, 9 + i, 7 + 5 * i, 1), dtype=np.uint8) for i in range(3)]
    total = PatchCovariance(5, 1)
    for batch in batches:
        total.add(batch)
    patches = np.concatenate([patches_of(batch, 5) for batch in batches])
    np.testing.assert_allclose(total.result().covariance, np.cov(patches.T, bias=True), atol=1e-8)
    with pytest.raises(ValueError, match=r"at least 5 x 5 pixels.*\(2, 4, 9, 1\)"):
        total.add(np.zeros((2, 4, 9, 1)))
    with pytest.raises(ValueError, match="Patches of different sizes"):
        total.merge(PatchCovariance(3, 1))
    hole = np.where(rng.random((4, 6, 6, 1)) < 0.02, np.nan, 1.0)
    assert np.isnan(hole).any()
    left = int((~np.isnan(hole).any((1, 2, 3))).sum())
    assert PatchCovariance(5, 1, "omit").add(hole).images == left


def test_free_memory_is_a_sensible_number():
    free = covariance.free_memory()
    assert free is None or 1e6 < free < 1e15
