"""How far a covariance learnt from few images should shrink towards a multiple of the identity.

(1 - s) C + s mu I, with mu the mean variance, has a smaller expected error than the covariance C itself where images
are few. Two estimates of the best s: Ledoit and Wolf (2004), and the oracle approximation of Chen, Wiesel, Eldar and
Hero (2010), which assumes a normal distribution. Both are those of scikit-learn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

METHODS = ("ledoit-wolf", "oas")


def moved(
    images: int, trace: float, skew: np.ndarray, fourth: float, shift: np.ndarray, product: np.ndarray, sums: Any = None
) -> tuple[np.ndarray, float]:
    """``skew`` and ``fourth`` about another point.

    With y the images about a point: skew = sum |y|^2 y and fourth = sum |y|^4, the moments that the estimate of Ledoit
    and Wolf needs. (|y - t|^2)^2 and |y - t|^2 (y - t) multiply out into sums that are known, so a stream whose mean is
    not known beforehand, and one that is merged of parts, gives the same as two passes.

    Args:
        images: how many they are.
        trace: sum |y|^2.
        skew: (d,).
        fourth: a number.
        shift: t (d,), the new point minus the old one.
        product: (sum y y') t, (d,).
        sums: sum y (d,); None for 0, where the old point is the mean.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond 1e77: infinite here, and only shrinkage asks
        length = np.float64(shift @ shift)
        along = np.float64(0.0 if sums is None else sums @ shift)
        fourth = fourth + 4 * (shift @ product) + images * length**2 - 4 * (skew @ shift)
        fourth = float(fourth + 2 * length * trace - 4 * length * along)
        skew = skew - 2 * product - (trace + images * length - 2 * along) * shift
        return (skew if sums is None else skew + length * sums), fourth


def intensity(method: str, images: int, size: int, trace: float, squares: float, fourth: float) -> float:
    """The share s in [0, 1] of the identity.

    Args:
        method: "ledoit-wolf" or "oas".
        images: how many the covariance was learnt from.
        size: d, values an image.
        trace: of the covariance.
        squares: sum of the squares of all its entries.
        fourth: mean of the fourth powers of the images' distances from the mean.

    Raises:
        ValueError: for values too large for their fourth powers.
    """
    if method == "oas":
        mean, mean_square = trace / size, squares / size**2
        divisor = (images + 1) * (mean_square - mean**2 / size)
        return 1.0 if divisor <= 0 else min((mean_square + mean**2) / divisor, 1.0)
    if not np.isfinite(fourth):
        raise ValueError("The values are too large for the fourth powers of Ledoit and Wolf; divide them first.")
    distance = squares - trace**2 / size  # of the covariance from mu I, squared
    noise = (fourth - squares) / images  # of the covariance about its expectation, squared
    return 0.0 if min(noise, distance) <= 0 else min(noise / distance, 1.0)
