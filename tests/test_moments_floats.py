"""Floats: mean and variance within 1e-9 of sums without rounding (``math.fsum``), however they are added and merged."""

import math
import pickle
import random as random_module

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keras_norm_layers.statistics.moments import Moments

RNG = np.random.default_rng(0)
N = 20_000
HARD = {
    "mean 1e5, std 1": RNG.normal(1e5, 1, N),
    "mean 1e4, std 3e3": RNG.normal(1e4, 3e3, N),
    "near 1e-20": RNG.normal(3e-20, 1e-20, N),
    "near 1e20": RNG.normal(3e20, 1e20, N),
    "mean 1e8, std 1e-2": RNG.normal(1e8, 1e-2, N),
    "an outlier first": np.concatenate([[1e8], RNG.normal(1, 1, N - 1)]),
    "sorted, from 0 to 1e4": np.linspace(0, 1e4, N),
}


def truth(values):
    """Mean and variance; the deviations are taken from a mean of two float64, as one would not hold it."""
    values = values.astype("float64").tolist()
    mean = math.fsum(values) / len(values)
    rest = math.fsum([*values, *[-mean] * len(values)]) / len(values)
    return mean, math.fsum(((v - mean) - rest) ** 2 for v in values) / len(values)


def assert_right(moments, values):
    mean, variance = truth(values)
    result = moments.result()
    np.testing.assert_allclose(result.mean, mean, rtol=1e-9, atol=0)
    np.testing.assert_allclose(result.variance, variance, rtol=1e-9, atol=0)
    assert result.images == len(values)


def merged_in_a_tree(parts, random):
    while len(parts) > 1:
        i = random.randrange(len(parts) - 1)
        parts[i] = parts[i].merge(parts.pop(i + 1))
    return parts[0]


def hard_cases():
    for name, values in HARD.items():
        for dtype in ("float64", "float32", "float16", ml_dtypes.bfloat16):
            info = ml_dtypes.finfo(dtype)
            cast = np.clip(values, float(info.min), float(info.max)).astype(dtype)
            if np.unique(cast).size > 5 and np.array_equal(np.clip(values, float(info.min), float(info.max)), values):
                yield pytest.param(cast, id=f"{name}, {np.dtype(dtype).name}")


@pytest.mark.parametrize("values", list(hard_cases()))
def test_hard_cases_in_one_batch_in_shuffled_batches_and_in_sorted_ones(values):
    assert_right(Moments().add(values[:, None]), values)
    random = random_module.Random(1)
    for order in (np.random.default_rng(1).permutation(N), np.argsort(values)):
        parts = [Moments().add(part[:, None]) for part in np.split(values[order], range(37, N, 37))]
        assert_right(merged_in_a_tree(parts, random), values)


@pytest.mark.parametrize("name", ["mean 1e5, std 1", "mean 1e8, std 1e-2", "sorted, from 0 to 1e4"])
def test_a_merge_for_every_single_value(name):
    values = HARD[name][::4]
    total = Moments()
    for value in values[:, None, None]:
        total.add(value)
    assert_right(total, values)
    chain = Moments()
    for value in values[::-2, None, None]:
        chain = Moments().add(value).merge(chain)  # the one of many is merged into the one of few
    assert_right(chain, values[::-2])


numbers = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=4, max_size=60),
    st.sampled_from([0.0, 1e5, -1e12]),
    st.lists(st.integers(0, 60)),
    st.randoms(use_true_random=False),
)
def test_any_split_order_and_merge_tree_is_one_batch(rows, shift, cuts, random):
    images = np.array(rows) + shift
    assume((images.std(0) > 1e-2 * np.abs(images - shift).max()).all())
    whole = Moments().add(images).result()
    order = random.sample(range(len(images)), len(images))
    parts = [Moments().add(part) for part in np.split(images[order], sorted(cuts))]
    ways = (lambda m: m, lambda m: Moments.from_state(m.state()), lambda m: pickle.loads(pickle.dumps(m)))
    result = merged_in_a_tree([random.choice(ways)(part) for part in parts], random).result()
    np.testing.assert_allclose(result.mean, whole.mean, rtol=1e-12, atol=1e-12 * np.sqrt(whole.variance).max())
    np.testing.assert_allclose(result.variance, whole.variance, rtol=1e-12)
    assert result.images == len(images)


@settings(max_examples=40, deadline=None)
@given(st.floats(-1e300, 1e300), st.lists(st.integers(1, 9), min_size=1, max_size=8), st.randoms())
def test_a_constant_stays_one_in_any_merge_tree(value, sizes, random):
    parts = [Moments().add(np.full((n, 2, 3), value)) for n in sizes]
    result = merged_in_a_tree(parts, random).result()
    assert result.variance.tolist() == [0.0] * 3
    assert result.mean.tolist() == [value] * 3


def test_states_of_both_kinds_of_sums_come_back_to_the_bit():
    total = Moments((1, 2))
    for part in np.split(RNG.normal(1e8, 1e-2, (60, 3, 2)), range(7, 60, 7)):
        total.add(part)
    total.add(np.arange(12, dtype="uint8").reshape(2, 3, 2))
    state = total.state()
    again = Moments.from_state(state)
    for key, value in again.state().items():
        assert value.dtype == state[key].dtype
        assert np.array_equal(value, state[key])
    more = RNG.normal(0, 1, (5, 3, 2))
    assert again.add(more).result().variance.tobytes() == total.add(more).result().variance.tobytes()


def test_batches_that_are_too_large_together_leave_the_first():
    total = Moments().add(np.array([[1e160], [1e160]]))
    with pytest.raises(ValueError, match="the second: its values are too large for a variance in float64"):
        total.add(np.array([[-1e160]]), "the second")
    with pytest.raises(ValueError, match="the other accumulator: its values are too large"):
        total.merge(Moments().add(np.array([[-1e160]])))
    assert total.result().mean.tolist() == [1e160]
    assert total.images == 2


def test_accumulators_of_other_axes_are_refused():
    with pytest.raises(ValueError, match=r"axis=\(-1,\).*axis=\(1,\).*cannot be merged: give both the same arguments"):
        Moments().add(np.ones((2, 3, 3))).merge(Moments(1).add(np.ones((2, 3, 3))))
