"""What is drawn: ranges, even spread, independence, probabilities. Seeds are fixed: no failure is bad luck."""

import numpy as np
import pytest
from scipy import stats

import keras_norm_layers as knl
from keras_norm_layers.kernels import backend
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.transforms.sampling import Coin, Sign, Uniform

MANY = 20000
ALPHA = 1e-4  # chance of a false alarm, a test


pytestmark = pytest.mark.usefixtures("uncompiled")


def tensor(values):
    return backend.namespace(None).asarray(np.asarray(values, "float32"))


def parameters(layer, number=MANY, seed=5):
    """The values of the parameters of a layer of one transform, for one draw of many images."""
    layer.build((None, 4, 4, 3))
    values = layer.plan.parameters(tensor(to_numpy(layer.draw(number))), tensor(1.0))[0]
    return {name: to_numpy(value) for name, value in values.items()}


RANGES = [
    (lambda: knl.RandomRotation(0.2, seed=5), {"turns": (-0.2, 0.2)}),
    (lambda: knl.RandomRotation(degrees=(30, 90), seed=5), {"turns": (1 / 12, 1 / 4)}),
    (lambda: knl.RandomTranslation(0.3, (0.1, 0.4), seed=5), {"down": (-0.3, 0.3), "right": (0.1, 0.4)}),
    (lambda: knl.RandomZoom((-0.5, 0.3), (0.0, 0.2), seed=5), {"height": (-0.5, 0.3), "width": (0.0, 0.2)}),
    (lambda: knl.RandomShear(0.4, (0.1, 0.2), seed=5), {"x": (-0.4, 0.4), "y": (0.1, 0.2)}),
    (lambda: knl.RandomBrightness((-0.2, 0.6), seed=5), {"added": (-0.2, 0.6)}),
    (lambda: knl.RandomContrast((0.3, 0.8), seed=5), {"contrast": (0.7, 1.8)}),
    (lambda: knl.RandomContrast(0.3, seed=5), {"contrast": (0.7, 1.3)}),
    (lambda: knl.RandomChannelShift(0.3, shared=True, seed=5), {"added": (-0.3, 0.3)}),
]


@pytest.mark.parametrize(("make", "ranges"), RANGES)
def test_parameters_are_uniform_in_their_documented_range(make, ranges):
    drawn = parameters(make())
    for name, (low, high) in ranges.items():
        values = drawn[name]
        assert values.min() >= low - 1e-6
        assert values.max() <= high + 1e-6
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > ALPHA


@pytest.mark.parametrize(("make", "ranges"), RANGES)
def test_parameters_of_one_image_are_independent_and_so_are_neighbours(make, ranges):
    drawn = list(parameters(make()).values())
    for number, values in enumerate(drawn):
        assert stats.spearmanr(values[:-1], values[1:]).pvalue > ALPHA
        for other in drawn[number + 1 :]:
            assert stats.spearmanr(values, other).pvalue > ALPHA


def test_channels_are_drawn_apart():
    added = parameters(knl.RandomChannelShift(0.3, seed=5))["added"]
    assert added.shape == (MANY, 3)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert stats.spearmanr(added[:, a], added[:, b]).pvalue > ALPHA
        assert (added[:, a] != added[:, b]).mean() > 0.99


def test_flips_fall_evenly_on_all_four_outcomes():
    coins = parameters(knl.RandomFlip(seed=5))
    counts = np.bincount((2 * coins["horizontal"] + coins["vertical"]).astype(int), minlength=4)
    assert stats.chisquare(counts).pvalue > ALPHA


def test_the_signs_of_shears_fall_evenly():
    sign = parameters(knl.RandomShear(0.1, seed=5))["sign"]
    assert set(np.unique(sign)) == {-1.0, 1.0}
    assert stats.binomtest(int((sign > 0).sum()), MANY).pvalue > ALPHA


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_p_is_the_share_of_images_changed_and_tells_nothing_of_the_values(p):
    added = parameters(knl.RandomBrightness((0.2, 0.8), p=p, seed=5))["added"]
    changed = added != 0.0
    assert stats.binomtest(int(changed.sum()), MANY, p).pvalue > ALPHA
    assert stats.kstest(added[changed], "uniform", (0.2, 0.6)).pvalue > ALPHA


def test_p_0_never_and_p_1_always():
    assert (parameters(knl.RandomBrightness((0.2, 0.8), p=0.0))["added"] == 0).all()
    assert (parameters(knl.RandomBrightness((0.2, 0.8), p=1.0))["added"] >= 0.2).all()


def test_gates_of_a_chain_are_independent():
    chain = knl.Augment([knl.RandomBrightness((0.2, 0.8), p=0.5), knl.RandomRotation((0.1, 0.2), p=0.5)], seed=5)
    chain.build((None, 4, 4, 3))
    first, second = chain.plan.parameters(tensor(to_numpy(chain.draw(MANY))), tensor(1.0))
    table = np.histogram2d(to_numpy(first["added"]) != 0, to_numpy(second["turns"]) != 0, bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > ALPHA


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_same_on_batch_draws_once_a_batch_and_anew_each_step(p):
    layer = knl.RandomChannelShift(0.3, same_on_batch=True, p=p, seed=5)
    seen = []
    for _ in range(40):
        added = parameters(layer, 6)["added"]
        assert (added == added[:1]).all()
        seen.append(tuple(added[0]))
    closed = seen.count((0.0, 0.0, 0.0))
    assert len(set(seen)) == 40 - max(0, closed - 1)
    assert closed == 0 if p == 1.0 else 5 < closed < 35


def test_quantiles():
    u = tensor([0.0, 0.25, 0.5, 0.75])

    def values(distribution, strength=1.0):
        return to_numpy(distribution.quantile(u, tensor(strength))).tolist()

    assert values(Uniform(-1.0, 3.0)) == [-1.0, 0.0, 1.0, 2.0]
    assert values(Uniform(1.0, 3.0, identity=1.0), 0.5) == [1.0, 1.25, 1.5, 1.75]
    assert values(Uniform(-1.0, 3.0), 0.0) == [0.0] * 4
    assert values(Coin(0.5)) == [1.0, 1.0, 0.0, 0.0]
    assert values(Coin(0.5), 0.5) == [1.0, 0.0, 0.0, 0.0]
    assert values(Coin(0.5), 0.0) == [0.0] * 4
    assert values(Sign()) == [1.0, 1.0, -1.0, -1.0]


def test_strength_narrows_every_range():
    layer = knl.RandomRotation((0.1, 0.3), seed=5)
    layer.build((None, 4, 4, 3))
    u = tensor(to_numpy(layer.draw(1000)))
    half = to_numpy(layer.plan.parameters(u, tensor(0.5))[0]["turns"])
    assert half.min() >= 0.05 - 1e-6
    assert half.max() <= 0.15 + 1e-6


def test_layers_without_a_seed_differ():
    layers = [knl.RandomRotation(0.1), knl.RandomRotation(0.1)]
    for layer in layers:
        layer.build((None, 4, 4, 3))
    assert not np.isin(to_numpy(layers[0].draw(8)), to_numpy(layers[1].draw(8))).any()
