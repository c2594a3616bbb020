"""Pictures of what layers have learnt."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_norm_layers.normalization.adaptive import AdaptiveLayer, to_host
from keras_norm_layers.normalization.featurewise import FeaturewiseNormalization
from keras_norm_layers.normalization.ranges import MinMaxNormalization, PercentileClipping, RobustNormalization
from keras_norm_layers.normalization.whitening import ZCAWhitening
from keras_norm_layers.normalization.whitening_matrices import eigenpairs
from keras_norm_layers.validation import check_choice, check_count

Panel = Callable[[Any], None]  # draws on Matplotlib axes
# Of layers with one statistic a feature: names of their weights.
STATISTICS: dict[type, tuple[str, str]] = {
    FeaturewiseNormalization: ("mean", "std"),
    MinMaxNormalization: ("minimum", "maximum"),
    RobustNormalization: ("median", "iqr"),
    PercentileClipping: ("lower", "upper"),
}
SPATIAL = ("zca", "zca-cor")  # kinds of whitening whose output values belong to pixels
MOST_CHANNELS = 8  # pictures of single channels
MOST_BARS = 32  # above, a line
PANEL = 3.2  # inches


def plot_statistics(layer: Any, filters: int = 16, data_format: str = "channels_last") -> Any:
    """Draws what a layer has learnt, as a ``matplotlib.figure.Figure``.

    - One statistic a channel (or a feature of a vector): bars, above 32 features a band. Mean and std as a mark with
      one std to either side; minimum and maximum, or two percentiles, from the lower to the upper; median and iqr side
      by side.
    - One statistic a pixel: a picture of each. Three channels make a colour picture, black for 0 (or the smallest
      value, if that is below), full colour for the largest; any other number a grey picture a channel, of at most 8.
    - ``ZCAWhitening``: the mean image (or patch); whitening filters, what one output value takes from which pixels,
      where grey is zero, white the largest weight and black its negative; the spectrum, that is the variances of the
      data in its principal directions on a logarithmic axis, and how much of it all lies in those that are kept.

    Nothing is shown or saved: call ``figure.savefig(path)``, or make the figure the last line of a notebook's cell
    (after ``%matplotlib inline``).

    Args:
        layer: an adapted ``FeaturewiseNormalization``, ``MinMaxNormalization``, ``RobustNormalization``,
            ``PercentileClipping`` or ``ZCAWhitening``.
        filters: whitening filters to draw at most, 1 to 256: of kind "zca" and "zca-cor" those of output pixels evenly
            over the image (with ``patch_size`` there is one a channel), else the first ones.
        data_format: "channels_last" or "channels_first": how to read statistics of three axes.

    Raises:
        ImportError: without Matplotlib, the extra ``viz``.
        TypeError: for anything but one of these layers.
        ValueError: for a layer that has not adapted, and for statistics of a shape that is no picture.

    Example:
        >>> import numpy as np
        >>> from keras_norm_layers import FeaturewiseNormalization
        >>> layer = FeaturewiseNormalization(axis=(1, 2, 3))
        >>> layer.adapt(np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype="uint8"))
        >>> figure = plot_statistics(layer)
        >>> [axes.get_title().split(",")[0] for axes in figure.axes]
        ['mean', 'std']
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot_statistics draws with Matplotlib: pip install matplotlib, or keras-norm-layers[viz]"
        ) from error
    check_choice("plot_statistics", "data_format", data_format, ("channels_last", "channels_first"))
    check_count("plot_statistics", "filters", filters, 1, 256)
    _check_layer(layer)
    first = data_format == "channels_first"
    panels = _whitening_panels(layer, filters, first) if isinstance(layer, ZCAWhitening) else _panels(layer, first)
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(PANEL * 1.25 * columns, PANEL * rows + 0.4), layout="constrained")
    figure.suptitle(f"{layer.name}: {_what_was_seen(layer)}", fontsize="medium")
    for number, draw in enumerate(panels):
        draw(figure.add_subplot(rows, columns, number + 1))
    return figure


def _check_layer(layer: Any) -> None:
    classes: tuple[type, ...] = (*STATISTICS, ZCAWhitening)
    if not any(isinstance(layer, cls) for cls in classes):
        names = ", ".join(cls.__name__ for cls in classes)
        raise TypeError(f"plot_statistics takes an adapted layer with learnt statistics: {names}. Received: {layer!r}")
    if not layer.built or not (layer.has_given_statistics or float(to_host(layer.count)) > 0):
        how = "Call it on images once" if layer.has_given_statistics else "Call its adapt(data)"
        raise ValueError(f"plot_statistics: {type(layer).__name__} {layer.name!r} has no statistics yet. {how} first.")


def _what_was_seen(layer: AdaptiveLayer) -> str:
    if layer.has_given_statistics:
        return "statistics that were given"
    count = int(to_host(layer.count))
    return f"statistics of {count:,} image{'s' if count != 1 else ''}"


# -- one statistic a feature ------------------------------------------------------------------------------------------


def _panels(layer: Any, channels_first: bool) -> list[Panel]:
    names = next(names for cls, names in STATISTICS.items() if isinstance(layer, cls))
    first, second = (to_host(getattr(layer, name)).astype("float64") for name in names)
    if first.ndim > 1:
        pictures = zip(names, (first, second))
        return [panel for name, values in pictures for panel in _pictures(name, values, channels_first)]
    first, second = first.reshape(-1), second.reshape(-1)
    label = _axis_label(layer, channels_first)
    if isinstance(layer, FeaturewiseNormalization):
        return [
            functools.partial(_bars, "mean, with one std to either side", first - second, first + second, label, first)
        ]
    if isinstance(layer, RobustNormalization):
        return [
            functools.partial(_bars, name, 0 * values, values, label, None)
            for name, values in zip(names, (first, second))
        ]
    return [functools.partial(_bars, " to ".join(names), first, second, label, None)]


def _axis_label(layer: Any, channels_first: bool) -> str:
    """What the one kept axis of the images counts."""
    if not layer._kept:
        return "all values"
    axis, rank = layer._kept[0], len(layer._built_for)
    if rank == 2:
        return "feature"
    return "channel" if axis == (1 if channels_first else rank - 1) else f"place along axis {axis}"


def _bars(title: str, low: Any, high: Any, label: str, middle: Any, axes: Any) -> None:
    """A bar from ``low`` to ``high`` for each feature, a mark in its ``middle``; a band where there are many."""
    place = np.arange(len(low))
    axes.use_sticky_edges = False
    if len(low) <= MOST_BARS:
        axes.bar(place, high - low, bottom=low, width=0.6, color="tab:blue", alpha=0.5 if middle is not None else 0.8)
        axes.set_xticks(place if label != "all values" else [])
        axes.tick_params("x", labelsize="small" if len(low) <= 16 else 5)
        axes.margins(x=max(0.05, 0.5 / len(low)))
        if middle is not None:
            axes.hlines(middle, place - 0.3, place + 0.3, color="black")
    else:
        axes.fill_between(place, low, high, color="tab:blue", alpha=0.5)
        if middle is not None:
            axes.plot(place, middle, color="black", linewidth=0.8)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(label)
    axes.set_ylabel("value (units of the data)")


def _pictures(name: str, values: np.ndarray, channels_first: bool) -> list[Panel]:
    """Panels of an array with two axes, or three of which one are channels."""
    if values.ndim == 2:
        return [functools.partial(_grey, name, values)]
    image = _as_image(values, channels_first)
    channels = image.shape[-1]
    if channels == 3:
        return [functools.partial(_colour, name, image)]
    if channels == 1:
        return [functools.partial(_grey, name, image[..., 0])]
    shown = range(min(channels, MOST_CHANNELS))
    return [functools.partial(_grey, f"{name}, channel {c} of {channels}", image[..., c]) for c in shown]


def _as_image(values: np.ndarray, channels_first: bool) -> np.ndarray:
    """(H, W) or (H, W, C), or (C, H, W), as (H, W, C)."""
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        raise ValueError(
            f"plot_statistics draws statistics with two axes, or with three of which one are channels. These have the "
            f"shape {values.shape}."
        )
    return np.moveaxis(values, 0, -1) if channels_first else values


def _colour(name: str, image: np.ndarray, axes: Any) -> None:
    low, high = image.min(), image.max()
    black = min(0.0, low)  # colours stay what they are, unless there are negative values
    axes.imshow((image - black) / ((high - black) or 1.0), interpolation="nearest")
    axes.set_title(f"{name}, {low:.4g} to {high:.4g}", fontsize="medium")
    axes.set_axis_off()


def _grey(name: str, image: np.ndarray, axes: Any) -> None:
    drawn = axes.imshow(image, cmap="gray", interpolation="nearest")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, label="value")
    axes.set_title(name, fontsize="medium")
    axes.set_axis_off()


# -- whitening --------------------------------------------------------------------------------------------------------


def _whitening_panels(layer: ZCAWhitening, filters: int, channels_first: bool) -> list[Panel]:
    mean = to_host(layer.mean).astype("float64")
    rows = _filter_rows(layer, filters)
    images = np.stack([_as_image(row.reshape(mean.shape), channels_first) for row in rows])
    panels = _pictures("mean" if layer.patch_size is None else "mean patch", mean, channels_first)
    return [*panels, functools.partial(_filters, images), functools.partial(_spectrum, *_variances(layer))]


def _filter_rows(layer: ZCAWhitening, number: int) -> np.ndarray:
    """What some output values take from each input value, (number, values)."""
    if layer.patch_size is not None:  # one for each channel that comes out
        kernel = to_host(layer.kernel).astype("float64")
        return np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)[:number]
    size = to_host(layer.mean).size
    if layer.rank is None:
        matrix = to_host(layer.matrix).astype("float64")
        return matrix.T[_spread(number, size) if layer.kind in SPATIAL else slice(number)]
    components, gains = (to_host(v).astype("float64") for v in (layer.components, layer.gains))
    if layer.kind not in SPATIAL:
        return components[:number] * gains[:number, None]
    chosen = _spread(number, size)
    rest = float(to_host(layer.complement_gain))
    return (components[:, chosen].T * (gains - rest)) @ components + rest * np.eye(size)[chosen]


def _spread(number: int, size: int) -> np.ndarray:
    """Up to ``number`` different places, evenly over ``size``."""
    return np.unique(((np.arange(number) + 0.5) / number * size).astype(int))


def _variances(layer: ZCAWhitening) -> tuple[np.ndarray | None, float, int]:
    """Variances in the principal directions, largest first; all of the variance; how many directions are kept."""
    if layer.patch_size is None and layer.rank is not None:
        values = to_host(layer.variances).astype("float64")
        return values, float(to_host(layer.total_variance)), int((values > 0).sum())
    if layer.accumulator is None:
        return None, 0.0, 0
    values, _ = eigenpairs(layer.accumulator.result().covariance)
    return values, float(values.sum()), min(layer.rank or len(values), int((values > 0).sum()))


def _spectrum(values: np.ndarray | None, total: float, kept: int, axes: Any) -> None:
    axes.set_title("spectrum", fontsize="medium")
    if values is None or not kept:
        why = "unknown: the weights were set\nwithout the accumulator" if values is None else "the data does not vary"
        axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    there = values[values > 0]
    axes.semilogy(np.arange(1, len(there) + 1), there, color="tab:blue", marker="." if len(there) < 20 else "")
    if kept < len(there):
        axes.axvline(kept, color="gray", linestyle="--", linewidth=1)
    share = 100 * there[:kept].sum() / total
    axes.set_title(f"spectrum: {kept} directions kept,\n{share:.4g} % of the variance", fontsize="medium")
    axes.set_xlabel("principal direction")
    axes.set_ylabel("variance (squared units)")


def _filters(images: np.ndarray, axes: Any) -> None:
    """Filters side by side on one picture, with a pixel between them."""
    number, height, width, channels = images.shape
    if channels not in (1, 3):
        images, channels = images.mean(-1, keepdims=True), 1
    largest = np.abs(images).max() or 1.0
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    sheet = np.ones((rows * (height + 1) - 1, columns * (width + 1) - 1, channels))
    for place, image in enumerate(images):
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        sheet[top : top + height, left : left + width] = 0.5 + image / (2 * largest)
    axes.imshow(sheet if channels == 3 else sheet[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(f"{number} filters, -{largest:.3g} to {largest:.3g}", fontsize="medium")
    axes.set_axis_off()
