"""Spectrum against the full covariance, scikit-learn and itself in parts, on noise and on photographs."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.statistics import spectrum
from keras_norm_layers.statistics.spectrum import Spectrum


def photos(count, side, seed=0):
    """Windows of photographs, uint8 (count, side, side, 3)."""
    datasets = pytest.importorskip("sklearn.datasets")
    pictures = datasets.load_sample_images().images
    rng = np.random.default_rng(seed)
    windows = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        y, x = rng.integers(0, picture.shape[0] - side), rng.integers(0, picture.shape[1] - side)
        windows.append(picture[y : y + side, x : x + side])
    return np.stack(windows)


def truth(images):
    rows = images.reshape(len(images), -1).astype("float64")
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    return values[::-1], vectors[:, ::-1].T


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_exact_where_nothing_is_cut(dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2 if dtype == "bool" else 200, (40, 3, 5, 4)).astype(dtype)
    values, vectors = truth(images)
    found = Spectrum(60, 39).add(images[:7]).add(images[7:]).result()
    assert found.exact and found.images == 40
    np.testing.assert_allclose(found.values, values[:39], rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.vectors @ vectors[:39].T), np.eye(39), atol=1e-6)
    assert (found.vectors[np.arange(39), np.abs(found.vectors).argmax(1)] > 0).all()
    np.testing.assert_allclose(found.total_variance, values.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.squares, (values**2).sum(), rtol=1e-10)
    np.testing.assert_allclose(found.mean, images.reshape(40, -1).mean(0, dtype="float64"), rtol=1e-12)


def test_more_rank_than_directions():
    found = Spectrum(50, 8).add(np.random.default_rng(1).normal(size=(5, 50))).result()
    assert (found.values[:4] > 0).all() and (found.values[4:] == 0).all() and (found.vectors[4:] == 0).all()
    constant = Spectrum(50, 2).add(np.full((300, 50), 7.0)).result()
    assert constant.values.tolist() == [0, 0] and constant.total_variance == 0


def test_few_values_many_images_are_exact():
    data = np.random.default_rng(2).normal(size=(2000, 6)) * [6, 5, 4, 3, 2, 1]
    found = Spectrum(6, 3).add(data).result()
    assert found.exact
    np.testing.assert_allclose(found.values, truth(data)[0][:3], rtol=1e-9)


def test_photographs_of_which_directions_are_cut():
    images = photos(900, 12)
    values, vectors = truth(images)
    total = Spectrum(432, 48)
    for start in range(0, 900, 130):
        total.add(images[start : start + 130])
    found = total.result()
    assert not found.exact
    np.testing.assert_allclose(found.values[:12], values[:12], rtol=1e-3)
    np.testing.assert_allclose(found.values, values[:48], rtol=0.05)
    assert (found.values <= values[:48] * (1 + 1e-9)).all()  # what is cut off is missing, nothing is invented
    np.testing.assert_allclose(np.abs((found.vectors[:8] * vectors[:8]).sum(1)), 1, atol=1e-3)
    np.testing.assert_allclose(found.total_variance, values.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(48), atol=1e-8)


def test_scikit_learns_randomized_pca_on_photographs():
    decomposition = pytest.importorskip("sklearn.decomposition")
    images = photos(500, 20)
    rows = images.reshape(500, -1).astype("float64")
    pca = decomposition.PCA(160, svd_solver="randomized", random_state=0).fit(rows)
    found = Spectrum(1200, 64).add(images).result()
    biased = pca.explained_variance_[:64] * 499 / 500
    np.testing.assert_allclose(found.values, biased, rtol=0.01)


def test_oversampling_makes_the_last_directions_better():
    images = photos(700, 8)
    values, _ = truth(images)
    errors = [
        np.abs(Spectrum(192, 24, oversample).add(images).result().values / values[:24] - 1).max()
        for oversample in (0, 24, 100)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 1e-3


DATA = np.random.default_rng(3).normal(size=(60, 90)) * np.linspace(5, 1, 90) + 1e3
SPLITS = st.lists(st.integers(0, 60), max_size=4).map(lambda cuts: np.split(np.arange(60), sorted(cuts)))


@settings(max_examples=25, deadline=None)
@given(SPLITS, st.permutations(range(60)))
def test_any_split_order_and_tree_gives_the_same(parts, order):
    whole = Spectrum(90, 30).add(DATA).result()
    trees = [Spectrum(90, 30), Spectrum(90, 30)]
    for number, part in enumerate(parts):
        piece = pickle.loads(pickle.dumps(Spectrum(90, 30).add(DATA[order][part])))
        trees[number % 2].merge(Spectrum.from_state(piece.state()))
    merged = trees[0].merge(trees[1]).result()
    np.testing.assert_allclose(merged.values, whole.values, rtol=1e-9)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(np.abs((merged.vectors * whole.vectors).sum(1)), 1, atol=1e-7)
    np.testing.assert_allclose(merged.fourth, whole.fourth, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_batch_sizes_states_and_pickles_change_no_bit(dtype):
    images = photos(600, 6).astype(dtype)
    straight = Spectrum(108, 16).add(images)
    parts = Spectrum(108, 16)
    for start in range(0, 600, 90):
        parts.add(images[start : start + 90])
        parts = Spectrum.from_state(parts.state())
        parts = pickle.loads(pickle.dumps(parts))
    first = [np.asarray(part).tobytes() for part in straight.result()]
    assert [np.asarray(part).tobytes() for part in parts.result()] == first
    assert [np.asarray(part).tobytes() for part in straight.result()] == first  # a result changes nothing either


def test_about_another_point_and_shrinkage():
    sklearn_covariance = pytest.importorskip("sklearn.covariance")
    rows = photos(30, 12).reshape(30, -1).astype("float64")
    total = Spectrum(432, 30).add(rows[:11]).merge(Spectrum(432, 30).add(rows[11:]))
    for method, expected in (
        ("ledoit-wolf", sklearn_covariance.ledoit_wolf_shrinkage(rows)),
        ("oas", sklearn_covariance.oas(rows)[1]),
    ):
        np.testing.assert_allclose(total.result().shrinkage(method), expected, rtol=1e-9)
    point = np.full(432, 77.0)
    found = total.result(about=point)
    np.testing.assert_allclose(found.values, np.linalg.svd(rows - 77, compute_uv=False) ** 2 / 30, rtol=1e-9)
    np.testing.assert_allclose(found.total_variance, ((rows - 77) ** 2).sum() / 30, rtol=1e-12)
    expected = sklearn_covariance.ledoit_wolf_shrinkage(rows - 77, assume_centered=True)
    np.testing.assert_allclose(found.shrinkage("ledoit-wolf"), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="needs all eigenvalues, and of 200 images"):
        Spectrum(432, 30).add(photos(200, 12)).result().shrinkage("oas")


def test_nan_policy():
    data = DATA.copy()
    data[[4, 50], [1, 80]] = np.nan
    with pytest.raises(ValueError, match="holds NaN, first in image 104"):
        Spectrum(90, 5).add(data, "batch 1", 100)
    found = Spectrum(90, 5, nan_policy="omit").add(data).result()
    np.testing.assert_allclose(found.values, truth(np.delete(DATA, [4, 50], 0))[0][:5], rtol=1e-9)


def test_errors(monkeypatch):
    total = Spectrum(4, 2).add(np.ones((20, 2, 2)))
    with pytest.raises(ValueError, match=r"images of 4 values each. Received shape \(2, 5\)"):
        total.add(np.ones((2, 5)))
    assert total.images == 20
    with pytest.raises(TypeError, match="text or objects"):
        total.add(np.array([["a"] * 4]))
    with pytest.raises(ValueError, match="no data yet"):
        Spectrum(4, 2).result()
    with pytest.raises(ValueError, match=r"cannot be merged: \(4, 2, 32\) and \(4, 3, 32\)"):
        total.merge(Spectrum(4, 3))
    with pytest.raises(ValueError, match="`rank` must be at most the number of values an image, 4"):
        Spectrum(4, 5)
    with pytest.raises(ValueError, match="`rank` must be at least 1"):
        Spectrum(4, 0)
    with pytest.raises(ValueError, match="`oversample` must be a whole number"):
        Spectrum(4, 2, 1.5)
    monkeypatch.setattr(spectrum, "free_memory", lambda: 16_000_000_000)
    assert Spectrum(224 * 224 * 3, 256).rank == 256
    with pytest.raises(MemoryError, match=r"leading 16000 directions of 150528.*19\.9 GB.*16\.0 GB.*smaller rank="):
        Spectrum(224 * 224 * 3, 8000)
