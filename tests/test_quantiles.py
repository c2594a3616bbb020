"""Extremes and quantiles against NumPy on all values at once, and their merges bit for bit."""

import functools
import pickle
from random import Random

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.statistics import quantiles
from keras_norm_layers.statistics.extremes import Extremes
from keras_norm_layers.statistics.quantiles import Quantiles

AXES = [-1, None, (1, 2, 3), 1, (1, -1)]
Q = (0.0, 0.01, 0.25, 0.5, 0.77, 0.99, 1.0)
BOTH = pytest.mark.parametrize("kind", [Extremes, Quantiles])


def reduced(axis, rank=4):
    keep = () if axis is None else tuple(a % rank for a in np.atleast_1d(axis))
    return tuple(a for a in range(rank) if a not in keep)


def noise(dtype, shape=(31, 4, 5, 3), seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) > 0.3
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    return (rng.normal(3, 50, shape) * [1, 0.01, 100]).astype(dtype)


def states_equal(a, b):
    first, second = a.state(), b.state()
    assert first.keys() == second.keys()
    return all(np.array_equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "float16", "float32"])
def test_quantiles_are_those_of_numpy(dtype, axis):
    images = noise(dtype)
    result = Quantiles(axis).add(images[:9]).add(images[9:]).result(Q)
    truth = np.quantile(images.astype("float64"), Q, axis=reduced(axis))
    np.testing.assert_array_equal(result.values, truth)
    assert result.images == 31
    assert (result.count == images.size // truth[0].size).all()
    assert not result.error.any()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64"])
def test_extremes_are_exact(dtype, axis):
    images = noise(dtype)
    result = Extremes(axis).add(images[:9]).add(images[9:]).result()
    np.testing.assert_array_equal(result.minimum, images.min(reduced(axis)).astype("float64"))
    np.testing.assert_array_equal(result.maximum, images.max(reduced(axis)).astype("float64"))
    assert result.images == 31


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64", "float64"])
def test_wide_types_count_as_float32(dtype):
    images = noise(dtype)
    truth = np.quantile(images.astype("float32").astype("float64"), Q, axis=(0, 1, 2))
    np.testing.assert_array_equal(Quantiles().add(images).result(Q).values, truth)


def test_bfloat16_is_read():
    images = noise("float32").astype(ml_dtypes.bfloat16)
    truth = images.astype("float64")
    np.testing.assert_array_equal(Quantiles().add(images).result(Q).values, np.quantile(truth, Q, axis=(0, 1, 2)))
    np.testing.assert_array_equal(Extremes().add(images).result().maximum, truth.max((0, 1, 2)))


def heavy(rng, size):
    return rng.standard_cauchy(size)


@pytest.mark.parametrize(
    ("name", "draw", "bound"),
    [
        ("normal", lambda rng, n: rng.normal(0, 1, n), 5e-4),
        ("uniform", lambda rng, n: rng.random(n), 5e-4),
        ("far from zero", lambda rng, n: rng.normal(1e5, 1, n), 0.0),
        ("wide and far", lambda rng, n: rng.normal(1e4, 3e3, n), 5e-5),
        ("log-normal", lambda rng, n: rng.lognormal(0, 3, n), 1e-3),
        ("heavy tails", heavy, 1e-3),
        ("all magnitudes", lambda rng, n: 10.0 ** rng.uniform(-37, 38, n) * rng.choice([-1, 1], n), 1 / 256),
    ],
)
def test_many_different_floats_stay_within_the_error_that_is_told(name, draw, bound):
    values = draw(np.random.default_rng(3), 800_000).astype("float32")
    values[:1000] = 0.0
    total = functools.reduce(lambda a, part: a.add(part), np.split(values[:, None], 8), Quantiles())
    result = total.result(Q)
    # Order statistics of the values, without interpolation: their relative error is what the bound is about.
    for q in (0.01, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 0.99):
        rank = round(q * (len(values) - 1))
        exact = np.sort(values.astype("float64"))[rank]
        found = total.result([rank / (len(values) - 1)]).values[0, 0]
        assert abs(found - exact) <= (result.error[0] + 1e-7) * abs(exact)
    assert result.error[0] <= bound
    assert len(total.state()["keys"]) <= quantiles.VALUES


def test_zeros_stay_zeros_beside_many_other_values():
    values = np.random.default_rng(0).normal(0, 1e-3, 400_000).astype("float32")
    values[::2] = -0.0
    assert Quantiles().add(values[:, None]).result([0.5]).values[0, 0] == 0.0


# -- merging ----------------------------------------------------------------------------------------------------------


def tree(parts, random):
    """Any merge tree over the parts."""
    parts = list(parts)
    while len(parts) > 1:
        first = parts.pop(random.randrange(len(parts)))
        parts[random.randrange(len(parts))].merge(first)
    return parts[0]


@BOTH
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=5), axis=st.sampled_from(AXES), random=st.randoms())
def test_any_split_order_and_merge_tree_gives_the_same_bits(kind, dtype, cuts, axis, random):
    images = noise(dtype, (40, 3, 4, 2) if dtype != "float32" else (40, 3, 4, 3))
    order = list(range(40))
    random.shuffle(order)
    parts = [kind(axis).add(part) for part in np.split(images[order], sorted(cuts))]
    merged = tree(parts, random)
    whole = kind(axis).add(images)
    assert states_equal(merged, whole)
    assert states_equal(kind.from_state(merged.state()), whole)
    assert states_equal(pickle.loads(pickle.dumps(merged)), whole)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), max_size=5), seed=st.integers(0, 99))
def test_the_same_where_bits_are_dropped(cuts, seed):
    rng, random = np.random.default_rng(seed), Random(seed)
    values = (rng.normal(0, 1, (3000, 2)) * [1, 1e-20]).astype("float32")
    values[rng.integers(0, 3000, 40)] = np.nan
    order = list(range(3000))
    random.shuffle(order)
    before, quantiles.VALUES = quantiles.VALUES, 300  # so that few values show what many do
    try:
        total = tree([Quantiles(-1, "omit").add(part) for part in np.split(values[order], sorted(cuts))], random)
        whole = Quantiles(-1, "omit").add(values)
        assert whole.state()["levels"].min() > 0
        assert states_equal(total, whole)
        more = Quantiles.from_state(total.state()).add(values[:500])
        assert states_equal(more, Quantiles(-1, "omit").add(np.concatenate([values, values[:500]])))
    finally:
        quantiles.VALUES = before


def test_small_batches_of_pixels_give_what_one_batch_gives(monkeypatch):
    images = noise("float32", (300, 6, 5, 3))
    whole = Quantiles((1, 2, 3)).add(images)
    monkeypatch.setattr(quantiles, "PENDING", 500)
    total = Quantiles((1, 2, 3))
    for start in range(0, 300, 7):
        total.add(images[start : start + 7])
    assert states_equal(total, whole)


def test_a_merge_leaves_the_other_as_it_is():
    for kind in (Extremes, Quantiles):
        a, b = kind().add(noise("uint8")), kind().add(noise("uint8", seed=1))
        before = b.state()
        kind().merge(b).add(noise("uint8", seed=2))
        a.merge(b)
        assert all(np.array_equal(before[key], value) for key, value in b.state().items())


# -- NaN and errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", AXES)
def test_nan_is_left_out(axis):
    images = noise("float32")
    images[np.random.default_rng(1).random(images.shape) < 0.2] = np.nan
    over = reduced(axis)
    low, high = Extremes(axis, "omit").add(images).result()[1:]
    np.testing.assert_array_equal(low, np.nanmin(images, over))
    np.testing.assert_array_equal(high, np.nanmax(images, over))
    result = Quantiles(axis, "omit").add(images[:3]).add(images[3:]).result(Q)
    np.testing.assert_array_equal(result.values, np.nanquantile(images.astype("float64"), Q, axis=over))
    np.testing.assert_array_equal(result.count, (~np.isnan(images)).sum(over))


@BOTH
def test_what_is_refused_adds_nothing(kind):
    images = noise("float32")
    bad = images.copy()
    bad[7, 1, 2, 0] = np.nan
    worse = images.copy()
    worse[5, 0, 0, 1] = np.inf
    total = kind().add(images)
    before = total.state()
    with pytest.raises(ValueError, match="holds NaN, first in image 107"):
        total.add(bad, first_image=100)
    with pytest.raises(ValueError, match="holds infinity, first in image 5"):
        total.add(worse)
    with pytest.raises(ValueError, match="holds infinity"):
        kind(-1, "omit").add(worse)
    with pytest.raises(ValueError, match=r"has \(2,\) features"):
        total.add(images[..., :2])
    with pytest.raises(TypeError, match="no real numbers"):
        total.add(images + 1j)
    with pytest.raises(ValueError, match="cannot be merged"):
        total.merge(kind((1, 2, 3)).add(images))
    with pytest.raises(ValueError, match="cannot be merged"):
        total.merge(kind().add(images[..., :2]))
    assert all(np.array_equal(before[key], value) for key, value in total.state().items())
    with pytest.raises(ValueError, match="hold no data yet"):
        kind().result()
    with pytest.raises(ValueError, match="`nan_policy` must be one of"):
        kind(-1, "ignore")
    images[..., 1] = np.nan
    with pytest.raises(ValueError, match=r"All values of 1 of 3 features are NaN.*the first is \(1,\)"):
        kind(-1, "omit").add(images).result()


def test_quantiles_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match=r"150528 features.*at most 65536"):
        Quantiles((1, 2, 3)).add(np.zeros((1, 224, 224, 3), "uint8"))
    with pytest.raises(ValueError, match="do not fit into float32"):
        Quantiles().add(np.array([[1e39]]))
    for q in ([-0.1], [1.1], [np.nan], 0.5):
        with pytest.raises(ValueError, match="numbers from 0 to 1"):
            Quantiles().add(np.zeros((2, 2))).result(q)
