"""The five whitenings, shrinkage, the conventions of epsilon; other libraries on digits and photographs."""

import pathlib

import numpy as np
import pytest
from test_spectrum import photos

from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.normalization import FeaturewiseNormalization, ZCAWhitening
from keras_norm_layers.normalization.adaptive import to_host
from keras_norm_layers.normalization.whitening_matrices import KINDS

GOLDEN = pathlib.Path(__file__).parent / "golden" / "image_data_generator_zca.npz"
RNG = np.random.default_rng(0)
MIXED = (RNG.normal(size=(400, 8)) @ (np.eye(8) + RNG.normal(size=(8, 8)) / 4) * RNG.uniform(0.5, 9, 8) + 50).astype(
    "float32"
)
C = np.cov(MIXED.astype("float64").T, bias=True)


def flat(x):
    return to_numpy(x).reshape(len(x), -1).astype("float64")


def adapted(data=MIXED, **options):
    layer = ZCAWhitening(**options)
    layer.adapt(data, verbose=0)
    return layer


def inverse_root(matrix, epsilon=0.0):
    values, vectors = np.linalg.eigh(matrix)
    return (vectors / np.sqrt(values + epsilon)) @ vectors.T


def whitening_by_definition(kind, epsilon):
    """W of Kessy, Lewin and Strimmer, table 1, by other routines than the package's."""
    deviation = np.diag(np.sqrt(np.diag(C)))
    correlation = np.linalg.solve(deviation, np.linalg.solve(deviation, C).T)
    of = correlation if kind.endswith("cor") else C
    if kind == "cholesky":
        return np.linalg.cholesky(np.linalg.inv(C + epsilon * np.eye(8))).T
    if kind.startswith("pca"):
        vectors, values, _ = np.linalg.svd(of)
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(8)])
        root = np.diag(1 / np.sqrt(values + epsilon)) @ vectors.T
    else:
        root = inverse_root(of, epsilon)
    return root @ np.linalg.inv(deviation) if kind.endswith("cor") else root


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_definitions(kind, epsilon):
    w = whitening_by_definition(kind, epsilon)
    layer = adapted(kind=kind, epsilon=epsilon)
    np.testing.assert_allclose(to_host(layer.matrix), w.T, atol=2e-6)
    x = flat(MIXED) - flat(MIXED).mean(0)
    np.testing.assert_allclose(flat(layer(MIXED)), x @ w.T, atol=1e-4)
    if epsilon == 0:
        np.testing.assert_allclose(np.cov(flat(layer(MIXED)).T, bias=True), np.eye(8), atol=1e-4)


def test_the_kinds_are_best_at_what_they_are_for():
    """ZCA is nearest to the image, ZCA-cor to the standardized one; Cholesky's matrix is triangular."""
    x = flat(MIXED) - flat(MIXED).mean(0)
    whites = {kind: flat(adapted(kind=kind)(MIXED)) for kind in KINDS}
    distance = {kind: ((white - x) ** 2).sum() for kind, white in whites.items()}
    assert min(distance, key=distance.get) == "zca"
    likeness = {k: np.mean([np.corrcoef(x[:, i], white[:, i])[0, 1] for i in range(8)]) for k, white in whites.items()}
    assert max(likeness, key=likeness.get) == "zca-cor"
    matrix = to_host(adapted(kind="cholesky").matrix)
    assert (np.triu(matrix, 1) == 0).all()
    scaled = [flat(adapted(data, kind="zca-cor")(data)) for data in (MIXED, MIXED * np.arange(1, 9, dtype="float32"))]
    np.testing.assert_allclose(scaled[0], scaled[1], atol=1e-4)  # units do not matter


@pytest.mark.parametrize("options", [{}, {"shrinkage": 0.2}, {"epsilon_on": "std", "epsilon": 0.1}])
@pytest.mark.parametrize("kind", KINDS)
def test_invert(kind, options):
    if kind == "cholesky" and "epsilon_on" in options:
        options = {"epsilon": 0.1}
    undo = ZCAWhitening(kind=kind, invert=True, **options)
    layer = adapted(kind=kind, **options)
    undo.merge(layer)
    np.testing.assert_allclose(to_numpy(undo(layer(MIXED))), MIXED, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_dead_pixels_are_dropped(kind):
    data = np.concatenate([MIXED[:, :4], np.full((400, 1), 7, "float32"), MIXED[:, 4:]], 1)
    layer = adapted(data, kind=kind)
    covariance = np.cov(flat(layer(data)).T, bias=True)
    np.testing.assert_allclose(np.sort(np.diag(covariance)), [0] + [1] * 8, atol=1e-4)
    odd = data[:1] + np.eye(9, dtype="float32")[4] * 100
    np.testing.assert_allclose(to_numpy(layer(odd)), to_numpy(layer(data[:1])), atol=1e-4)


def test_the_conventions_of_epsilon():
    values, vectors = np.linalg.eigh(C)
    gains = {
        "variance": 1 / np.sqrt(values + 0.5),
        "std": 1 / (np.sqrt(values) + 0.5),
        "singular_value": np.sqrt(400) / (np.sqrt(400 * values) + 0.5),
    }
    for name, gain in gains.items():
        matrix = to_host(adapted(epsilon=0.5, epsilon_on=name).matrix)
        np.testing.assert_allclose(matrix, (vectors * gain) @ vectors.T, atol=1e-6)


@pytest.mark.parametrize("method", ["ledoit-wolf", "oas", 0.3])
def test_shrinkage(method):
    sklearn_covariance = pytest.importorskip("sklearn.covariance")
    few = MIXED[:6].astype("float64")
    if method == 0.3:
        expected = sklearn_covariance.shrunk_covariance(np.cov(few.T, bias=True), 0.3)
    else:
        expected = {"ledoit-wolf": sklearn_covariance.ledoit_wolf, "oas": sklearn_covariance.oas}[method](few)[0]
    layer = adapted(few, shrinkage=method, epsilon=0.0)
    np.testing.assert_allclose(to_host(layer.matrix), inverse_root(expected), atol=1e-5)
    by_rank = adapted(few, rank=7, shrinkage=method, epsilon=0.0, complement="scale")
    # Six images span five directions; the shrunk covariance has one gain for all the others.
    np.testing.assert_allclose(flat(by_rank(MIXED)), flat(layer(MIXED)), rtol=1e-4, atol=1e-4)
    cholesky = adapted(few, kind="cholesky", shrinkage=method)
    np.testing.assert_allclose(
        to_host(cholesky.matrix), np.linalg.cholesky(np.linalg.inv(expected + 1e-6 * np.eye(8))), atol=1e-5
    )


def test_scikit_learns_pca_whitening_of_digits_and_photographs():
    decomposition = pytest.importorskip("sklearn.decomposition")
    digits = pytest.importorskip("sklearn.datasets").load_digits().images.astype("float32")
    for data, components in ((digits, 30), (photos(700, 5), 40)):
        rows = data.reshape(len(data), -1).astype("float64")
        theirs = decomposition.PCA(components, whiten=True, svd_solver="full").fit_transform(rows)
        theirs *= np.sqrt(len(data) / (len(data) - 1))  # unbiased there
        for options in ({}, {"rank": components}):
            ours = flat(adapted(data, kind="pca", **options)(data))[:, :components]
            signs = np.sign((ours * theirs).sum(0))
            np.testing.assert_allclose(ours, theirs * signs, atol=2e-3)


def test_kornias_zca_of_digits():
    golden = np.load(GOLDEN)
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    x = flat(digits) - flat(digits).mean(0)
    layer = adapted(digits, epsilon=0.01)
    np.testing.assert_allclose(flat(layer(digits)), x @ golden["kornia_matrix"], atol=1e-4)
    undo = ZCAWhitening(epsilon=0.01, invert=True)
    undo.merge(layer)
    back = x @ golden["kornia_matrix"] @ golden["kornia_inverse"] + flat(digits).mean(0)
    np.testing.assert_allclose(flat(undo(layer(digits))), back, atol=1e-3)


def test_standardizing_before_a_rank_is_zca_cor():
    """What the error says to do."""
    import keras

    from keras_norm_layers.normalization import adapt

    model = keras.Sequential(
        [keras.Input((8,)), FeaturewiseNormalization(axis=1, epsilon=0.0), ZCAWhitening(rank=8, epsilon=0.01)]
    )
    adapt(model, MIXED, verbose=0)
    expected = flat(adapted(kind="zca-cor", epsilon=0.01)(MIXED))
    np.testing.assert_allclose(model.predict(MIXED, verbose=0), expected, atol=1e-4)


def test_nan_policy():
    holes = MIXED.copy()
    holes[5, 2] = np.nan
    for options in ({}, {"rank": 3}):
        layer = adapted(holes, nan_policy="omit", **options)
        assert float(to_host(layer.count)) == 399
        expected = adapted(np.delete(MIXED, 5, 0), **options)
        np.testing.assert_allclose(to_numpy(layer(MIXED)), to_numpy(expected(MIXED)), atol=1e-4)
        layer.update(holes)
        assert float(to_host(layer.count)) == 798


def test_errors():
    for options, message in (
        ({"kind": "zca-cor", "rank": 3}, r"FeaturewiseNormalization\(axis=\(1, 2, 3\)\) before and take kind='zca'"),
        ({"kind": "cholesky", "rank": 3}, "with `rank` only kind='zca' and 'pca'"),
        ({"kind": "pca", "patch_size": 3}, "with `patch_size` only kind='zca' and 'zca-cor'"),
        ({"patch_size": 3, "shrinkage": "oas"}, "estimate for independent samples, and patches overlap"),
        ({"patch_size": 4}, "`patch_size` must be odd"),
        ({"patch_size": 3, "invert": True}, "invert=True cannot undo patch_size=3"),
        ({"complement": "scale"}, "complement='scale' needs a `rank`"),
        ({"complement": "scale", "rank": 2, "kind": "pca"}, "complement='scale' needs a `rank`"),
        ({"kind": "cholesky", "epsilon_on": "std"}, "leave epsilon_on='variance'"),
        ({"epsilon_on": "max"}, r"`epsilon_on` must be one of \['variance', 'std', 'singular_value'\]"),
        ({"shrinkage": 1.5}, r"`shrinkage` must be a number in \[0, 1\]"),
        ({"shrinkage": "lw"}, r"`shrinkage` must be one of \('ledoit-wolf', 'oas'\)|`shrinkage` must be one of \["),
        ({"rank": 0}, "`rank` must be a whole number from 1"),
        ({"nan_policy": "drop"}, "`nan_policy` must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            ZCAWhitening(**options)
    with pytest.raises(ValueError, match="`rank` must be at most the number of values of an image, 8"):
        adapted(rank=9)
    with pytest.raises(ValueError, match="needs a covariance of full rank, and that of these 5 samples"):
        adapted(MIXED[:5], kind="cholesky")
    with pytest.raises(RuntimeError, match="it needs rank="):
        _ = adapted().explained_variance_ratio
