"""Covariance against NumPy's, in float64."""

import pickle

import numpy as np
import pytest

from keras_norm_layers.statistics import covariance
from keras_norm_layers.statistics.covariance import Covariance


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
    images_seen, mean, result = total.result()
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
    with pytest.raises(MemoryError, match=r"150528 values.*1087\.6 GB.*16\.0 GB are free.*18257 values.*Featurewise"):
        Covariance(224 * 224 * 3)
    monkeypatch.setattr(covariance, "free_memory", lambda: covariance.COPIES * 8 * 100**2)
    assert Covariance(100).size == 100
    with pytest.raises(MemoryError):
        Covariance(101)
    monkeypatch.setattr(covariance, "free_memory", lambda: None)
    assert Covariance(101).size == 101


def test_free_memory_is_a_sensible_number():
    free = covariance.free_memory()
    assert free is None or 1e6 < free < 1e15
