"""Pictures of statistics: what each layer's figure holds, and that it can be drawn without a display."""

import io
import sys

import numpy as np
import pytest
import sklearn.datasets

import keras_norm_layers as knl
from keras_norm_layers import plot_statistics
from keras_norm_layers.normalization.adaptive import to_host

DIGITS = sklearn.datasets.load_digits().images[:300, :, :, None].astype("float32")
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 8, 6, 3), dtype="uint8")


def adapted(layer, data=COLOUR):
    layer.adapt(data, verbose=0)
    return layer


def drawn(layer, **options):
    """The panels by title, after drawing to a file in memory; colour bars left out."""
    figure = plot_statistics(layer, **options)
    file = io.BytesIO()
    figure.savefig(file, dpi=40, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    return {axes.get_title().split(",")[0]: axes for axes in figure.axes if axes.get_label() != "<colorbar>"}


def test_channels_are_bars_of_mean_and_std():
    layer = adapted(knl.FeaturewiseNormalization())
    (axes,) = drawn(layer).values()
    mean, std = to_host(layer.mean), to_host(layer.std)
    for bar, m, s in zip(axes.patches, mean, std):
        assert (bar.get_y(), bar.get_height()) == pytest.approx((m - s, 2 * s), rel=1e-5)
    assert len(axes.patches) == 3
    assert axes.get_xlabel() == "channel"
    assert "units" in axes.get_ylabel()


def test_pixels_are_pictures():
    layer = adapted(knl.FeaturewiseNormalization(axis=(1, 2, 3)), DIGITS)
    panels = drawn(layer)
    assert list(panels) == ["mean", "std"]
    np.testing.assert_allclose(panels["std"].images[0].get_array(), to_host(layer.std)[..., 0], rtol=1e-6)
    layer = adapted(knl.FeaturewiseNormalization(axis=(1, 2, 3)))
    picture = drawn(layer)["mean"].images[0].get_array()
    mean = to_host(layer.mean)
    np.testing.assert_allclose(picture, mean / mean.max(), rtol=1e-5)
    assert plot_statistics(layer).axes[0].get_title() == f"mean, {mean.min():.4g} to {mean.max():.4g}"


def test_the_siblings():
    (axes,) = drawn(adapted(knl.MinMaxNormalization())).values()
    assert [bar.get_height() for bar in axes.patches] == np.ptp(COLOUR, (0, 1, 2)).tolist()
    assert list(drawn(adapted(knl.RobustNormalization()))) == ["median", "iqr"]
    assert list(drawn(adapted(knl.PercentileClipping(axis=None)))) == ["lower to upper"]
    assert list(drawn(adapted(knl.PercentileClipping(axis=(1, 2, 3))))) == ["lower", "upper"]
    given = knl.MinMaxNormalization(minimum=0.0, maximum=255.0)
    given(COLOUR)
    assert "given" in plot_statistics(given).get_suptitle()


def test_channels_first_and_many_channels():
    first = np.moveaxis(COLOUR, -1, 1)
    layer = adapted(knl.FeaturewiseNormalization(axis=(1, 2, 3)), first)
    assert drawn(layer, data_format="channels_first")["mean"].images[0].get_array().shape == (8, 6, 3)
    six = adapted(knl.FeaturewiseNormalization(axis=(1, 2, 3)), np.tile(COLOUR, 2))
    assert len(plot_statistics(six).axes) == 24  # twelve pictures, each with a bar of its values
    many = adapted(knl.FeaturewiseNormalization(axis=(1, 2)), COLOUR)
    assert drawn(many)["mean"].images[0].get_array().shape == (8, 6)


def test_vectors_are_a_band():
    layer = adapted(knl.FeaturewiseNormalization(), DIGITS.reshape(300, 64))
    (axes,) = drawn(layer).values()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), to_host(layer.mean), rtol=1e-6)
    assert axes.get_xlabel() == "feature"


def test_whitening_with_the_full_covariance():
    layer = adapted(knl.ZCAWhitening(epsilon=0.1), DIGITS)
    panels = drawn(layer, filters=4)
    assert list(panels)[:2] == ["mean", "4 filters"]
    truth = np.linalg.eigvalsh(np.cov(DIGITS.reshape(300, 64).T.astype("float64"), bias=True))[::-1]
    values = spectrum(panels).lines[0].get_ydata()
    np.testing.assert_allclose(values, truth[: len(values)], rtol=1e-6, atol=1e-9)
    assert "100 %" in spectrum(panels).get_title()
    sheet = panels["4 filters"].images[0].get_array()
    row = to_host(layer.matrix)[:, 8].reshape(8, 8)  # output pixel (1, 0): the first of four, at (0 + 1/2) / 4 of 64
    largest = np.abs(to_host(layer.matrix)[:, [8, 24, 40, 56]]).max()
    np.testing.assert_allclose(sheet[:8, :8], 0.5 + row / (2 * largest), atol=1e-6)


def spectrum(panels):
    return next(axes for title, axes in panels.items() if title.startswith("spectrum"))


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_whitening_with_a_rank_says_what_share_is_kept(kind):
    layer = adapted(knl.ZCAWhitening(rank=10, kind=kind, epsilon=0.1), DIGITS)
    panels = drawn(layer)
    share = 100 * layer.explained_variance_ratio.sum()
    assert f"10 directions kept,\n{share:.4g} %" in spectrum(panels).get_title()
    assert 0 < share < 95
    filters = next(title for title in panels if "filters" in title)
    assert filters == ("16 filters" if kind == "zca" else "10 filters")


def test_filters_of_a_rank_are_the_columns_of_the_matrix():
    layer = adapted(knl.ZCAWhitening(rank=10, epsilon=0.1, complement="scale"), DIGITS)
    sheet = drawn(layer, filters=1)["1 filters"].images[0].get_array()
    base = np.zeros((65, 8, 8, 1), "float32")
    base[1:] = np.eye(64).reshape(64, 8, 8, 1)
    out = np.asarray(layer(base)).reshape(65, 64)
    column = (out[1:] - out[0])[:, 32]
    np.testing.assert_allclose(sheet, (0.5 + column / (2 * np.abs(column).max())).reshape(8, 8), atol=1e-4)


def test_whitening_of_patches_and_without_an_accumulator():
    layer = adapted(knl.ZCAWhitening(patch_size=3, epsilon=1.0))
    assert list(drawn(layer))[:2] == ["mean patch", "3 filters"]
    whole = adapted(knl.ZCAWhitening(epsilon=1.0), DIGITS)
    other = knl.ZCAWhitening(epsilon=1.0)
    other.build((None, 8, 8, 1))
    other.set_weights(whole.get_weights())
    axes = drawn(other)["spectrum"]
    assert "without the accumulator" in axes.texts[0].get_text()


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="has no statistics yet"):
        plot_statistics(knl.FeaturewiseNormalization())
    unadapted = knl.ZCAWhitening()
    unadapted.build((None, 4, 4, 1))
    with pytest.raises(ValueError, match="has no statistics yet"):
        plot_statistics(unadapted)
    for wrong in (knl.SamplewiseNormalization(), knl.RandomFlip(), "layer"):
        with pytest.raises(TypeError, match="takes an adapted layer"):
            plot_statistics(wrong)
    volumes = adapted(knl.FeaturewiseNormalization(axis=(1, 2, 3, 4)), np.zeros((2, 3, 4, 5, 1), "float32"))
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5, 1\)"):
        plot_statistics(volumes)
    layer = adapted(knl.FeaturewiseNormalization())
    with pytest.raises(ValueError, match="`data_format` must be one of"):
        plot_statistics(layer, data_format="last")
    with pytest.raises(ValueError, match="`filters` must be a whole number"):
        plot_statistics(layer, filters=0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"keras-norm-layers\[viz\]"):
        plot_statistics(layer)
