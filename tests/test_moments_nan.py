"""``nan_policy="omit"``: the moments of the values that are there, against NumPy and scikit-learn."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

from keras_norm_layers.statistics.moments import Moments

AXES = [-1, None, (1, 2, 3), 1, (1, -1)]


def holed(shape, share=0.2, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(1e4, 3, shape).astype(dtype)
    images[rng.random(shape) < share] = np.nan
    return images


def omitting(images, axis=-1):
    return Moments(axis, nan_policy="omit").add(images)


def assert_is_numpy(moments, images):
    keep = tuple(a % images.ndim for a in moments.axis)
    reduced = tuple(a for a in range(images.ndim) if a not in keep)
    images = images.astype("float64")
    result = moments.result()
    np.testing.assert_allclose(result.mean, np.nanmean(images, reduced), rtol=1e-13)
    np.testing.assert_allclose(result.variance, np.nanvar(images, reduced), rtol=1e-11)
    assert np.array_equal(result.count, (~np.isnan(images)).sum(reduced))
    assert isinstance(result.count, np.ndarray)
    assert result.count.dtype == "int64"
    assert result.images == len(images)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numpy_says_the_same(axis, dtype):
    images = holed((60, 4, 5, 3), dtype=dtype)
    moments = omitting(images[:20], axis)
    for start in range(20, 60, 7):
        moments.add(images[start : start + 7])
    assert_is_numpy(moments, images)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.05, 0.5, 0.9]), st.lists(st.integers(0, 40), max_size=9), st.randoms())
def test_any_split_order_and_merge_tree_is_one_batch(seed, share, cuts, random):
    images = holed((40, 2, 2), share, seed=seed)
    images[random.randrange(40)] = 1e4  # a value for every feature
    order = random.sample(range(40), 40)
    parts = [omitting(part) for part in np.split(images[order], sorted(cuts))]
    ways = (lambda m: m, lambda m: Moments.from_state(m.state()), lambda m: pickle.loads(pickle.dumps(m)))
    while len(parts) > 1:
        random.shuffle(parts)
        parts.append(random.choice(ways)(parts.pop()).merge(parts.pop()))
    assert_is_numpy(parts[0], images)


def test_without_nan_it_is_the_other_policy_to_the_bit():
    images = np.random.default_rng(1).normal(1e4, 3, (50, 6, 6, 3))
    plain, lenient = Moments().add(images).result(), omitting(images).result()
    assert plain.mean.tobytes() == lenient.mean.tobytes()
    assert plain.variance.tobytes() == lenient.variance.tobytes()
    assert (lenient.count == plain.count).all()
    integers = omitting(np.arange(24).reshape(4, 2, 3)).result()
    assert integers.count.tolist() == [8, 8, 8]
    assert integers.variance.tolist() == np.arange(24).reshape(8, 3).var(0).tolist()


def test_integers_and_floats_mix():
    images, integers = holed((30, 3)), np.random.default_rng(2).integers(0, 20_000, (9, 3))
    assert_is_numpy(omitting(integers).add(images).add(integers), np.concatenate([integers, images, integers]))


@pytest.mark.parametrize("value", [0.1, -1e30, 1e300])
def test_a_constant_with_gaps_has_variance_zero_exactly(value):
    images = np.full((30, 4, 2), value)
    images[:7] = np.nan  # a batch of NaN alone, then gaps
    images[9:25:3, 1] = np.nan
    total = omitting(images[:7])
    for start in range(7, 30, 5):
        total.merge(omitting(images[start : start + 5]))
    assert total.result().variance.tolist() == [0.0, 0.0]
    assert total.result().mean.tolist() == [value, value]


def test_digits_with_dead_pixels_as_standard_scaler_says():
    digits = load_digits().images.astype("float32")
    digits[:, 3, 4] = 7.0  # stuck
    digits[100:, 5, 5] = np.nan  # died early
    digits[np.random.default_rng(3).random(digits.shape) < 0.03] = np.nan
    scaler = StandardScaler().fit(digits.reshape(-1, 64).astype("float64"))
    total = Moments((1, 2), nan_policy="omit")
    for start in range(0, len(digits), 200):
        total.add(digits[start : start + 200])
    result = total.result()
    np.testing.assert_allclose(result.mean.ravel(), scaler.mean_, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(result.variance.ravel(), scaler.var_, rtol=1e-11, atol=1e-13)
    assert result.count.ravel().tolist() == scaler.n_samples_seen_.tolist()
    assert result.variance[3, 4] == 0


def test_a_feature_of_nan_alone_is_named():
    images = holed((20, 3, 4, 2))
    images[:, 1, 2, 0] = np.nan
    total = omitting(images, (1, 2, 3))
    with pytest.raises(ValueError, match=r"All values of some features are NaN.*\(1, 2, 0\) \(index along axis"):
        total.result()
    images[:, :, :, 1] = np.nan
    with pytest.raises(ValueError, match=r"no mean: 1 \(index along axis \(-1,\)\).*nan_to_num"):
        omitting(images).result()
    with pytest.raises(ValueError, match=r"\(0, 0, 1\), .* and 8 more"):
        omitting(images, (1, 2, 3)).result()
    images[5, 1, 2, 0] = 3.0  # one value is enough
    assert omitting(images[..., :1], (1, 2, 3)).result().mean[1, 2, 0] == 3.0


def test_infinity_is_refused_and_nothing_is_added():
    images = holed((20, 3))
    images[0, 0], images[13, 1] = np.nan, -np.inf
    total = omitting(images[:5])
    with pytest.raises(ValueError, match=r"batch 2 \(images 40 to 59\) holds infinity, first in image 53"):
        total.add(images, "batch 2", 40)
    assert_is_numpy(total, images[:5])
    with pytest.raises(ValueError, match="too large for a variance"):
        omitting(np.array([[1e200], [np.nan], [-1e200]]))


def test_policies_that_differ_are_refused_and_states_keep_theirs():
    lenient, strict = omitting(holed((9, 2))), Moments().add(np.ones((9, 2)))
    for a, b in ((lenient, strict), (strict, lenient), (Moments(), lenient)):
        with pytest.raises(ValueError, match=r"nan_policy='(omit|raise)'.*cannot be merged: give both the same"):
            a.merge(b)
    assert Moments.from_state(lenient.state()).nan_policy == "omit"
    assert Moments.from_state(Moments(nan_policy="omit").state()).nan_policy == "omit"
    assert Moments.from_state(strict.state()).nan_policy == "raise"
    older = {key: value for key, value in strict.state().items() if key not in ("omits_nan", "float_rest")}
    assert Moments.from_state(older).result().mean.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match=r"`nan_policy` must be one of .*nan_policy='skip'"):
        Moments(nan_policy="skip")
