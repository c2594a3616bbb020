"""Distributions against SciPy's quantile functions; fields of random numbers against what they should look like."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers.kernels import backend, threefry
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.transforms.sampling import (
    Beta,
    Choice,
    Coin,
    Gamma,
    Integers,
    Key,
    LogUniform,
    Normal,
    Sign,
    Uniform,
)

U = ((np.arange(20000) * 838 + 0.5) / 2**24).astype("float32")  # equally spaced over [0, 1)
CONTINUOUS = {
    "uniform": (Uniform(-2.0, 3.0), scipy.stats.uniform(-2, 5)),
    "log-uniform": (LogUniform(0.25, 8.0), scipy.stats.loguniform(0.25, 8)),
    "normal": (Normal(3.0, 2.0), scipy.stats.norm(3, 2)),
    **{f"beta {a}": (Beta(a), scipy.stats.beta(a, a)) for a in (0.1, 0.2, 0.4, 1.0, 3.0)},
    **{f"gamma {a}": (Gamma(a), scipy.stats.gamma(a)) for a in (0.2, 1.0, 2.5, 20.0)},
}
DISCRETE = [Integers(2, 5), Coin(0.3), Sign(), Choice((1.0, 2.0, 5.0)), Key()]


def tensor(values, dtype="float32"):
    return backend.namespace(None).asarray(np.asarray(values, dtype))


def quantile(distribution, u=U, strength=1.0):
    return to_numpy(distribution.quantile(tensor(u), tensor(strength))).astype("float64")


@pytest.mark.parametrize("name", CONTINUOUS)
def test_quantiles_are_scipys(name):
    distribution, truth = CONTINUOUS[name]
    got, expected = quantile(distribution), truth.ppf(U.astype("float64"))
    inner = (U > 1e-3) & (U < 1 - 1e-3)
    np.testing.assert_allclose(got[inner], expected[inner], rtol=2e-4, atol=2e-5)
    low = U < 0.5  # near 1 float32 has no room for the upper quantiles of a small alpha
    assert np.abs(truth.cdf(got) - U)[low].max() < 1e-3
    assert (np.diff(got) >= 0).all()


@pytest.mark.parametrize("distribution", [d for d, _ in CONTINUOUS.values()] + DISCRETE, ids=str)
def test_the_ends_are_finite_and_strength_0_is_the_identity(distribution):
    ends = np.array([0.0, 2.0**-24, 0.5, 1.0 - 2.0**-24], "float32")
    assert np.isfinite(quantile(distribution, ends)).all()
    if hasattr(distribution, "identity"):
        np.testing.assert_allclose(quantile(distribution, ends, 0.0), distribution.identity, atol=1e-6)


def test_whole_numbers_are_equally_likely_and_in_range():
    values, counts = np.unique(quantile(Integers(2, 5)), return_counts=True)
    assert values.tolist() == [2, 3, 4, 5]
    assert np.ptp(counts) <= 2 + 0.02 * counts.max()


def test_choices_have_their_weights():
    for first in (Choice((1.0, 2.0, 5.0)), Choice((2.0, 4.0, 10.0))):
        values, counts = np.unique(quantile(first), return_counts=True)
        assert values.tolist() == [0, 1, 2]
        share = counts / counts.sum()
        np.testing.assert_allclose(share, [1 / 8, 2 / 8, 5 / 8], atol=0.02)


@settings(max_examples=40, deadline=None)
@given(low=st.floats(-100, 100), span=st.floats(0, 100), u=st.lists(st.floats(0, 0.9999999), min_size=1))
def test_uniform_stays_in_its_range(low, span, u):
    values = quantile(Uniform(low, low + span), np.array(u, "float32"))
    slack = 1e-5 * (abs(low) + span) + 1e-30
    assert values.min() >= low - slack
    assert values.max() <= low + span + slack


# Fields -----------------------------------------------------------------------------------------------------------


def keys(number):
    return tensor(((np.arange(number) * 7919 + 13) % 2**24) / 2**24)


def test_a_field_is_uniform_and_another_for_every_key_place_and_stream():
    field = to_numpy(threefry.uniform_field(keys(6), (40, 50, 3)))
    assert field.shape == (6, 40, 50, 3)
    assert field.dtype == np.float32
    assert scipy.stats.kstest(field.ravel(), "uniform").pvalue > 1e-3
    flat = field.reshape(6, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(6)).max() < 0.05
    other = to_numpy(threefry.uniform_field(keys(6), (40, 50, 3), stream=1)).reshape(6, -1)
    assert np.abs([np.corrcoef(a, b)[0, 1] for a, b in zip(flat, other)]).max() < 0.05
    assert np.abs(np.corrcoef(field[..., 0].ravel(), field[..., 1].ravel())[0, 1]) < 0.03
    assert np.abs(np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("shape", [(31, 33, 3), (8, 8), (1,), (1, 1, 1)])
def test_a_field_is_the_same_again_and_of_any_shape(shape):
    first, second = (to_numpy(threefry.normal_field(keys(3), shape)) for _ in range(2))
    assert first.shape == (3, *shape)
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all()


def test_a_normal_field_is_normal():
    field = to_numpy(threefry.normal_field(keys(4), (60, 70, 3)))
    assert scipy.stats.kstest(field.ravel(), "norm").pvalue > 1e-3
    halves = field.reshape(4, 2, -1)  # cosines and sines of the same angles
    assert abs(np.corrcoef(halves[:, 0].ravel(), halves[:, 1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(halves[:, 0].ravel() ** 2, halves[:, 1].ravel() ** 2)[0, 1]) < 0.02
