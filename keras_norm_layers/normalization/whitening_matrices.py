"""From second moments to the numbers that whiten: gains of directions, matrices of the five whitenings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

KINDS = ("zca", "pca", "zca-cor", "pca-cor", "cholesky")
EPSILON_ON = ("variance", "std", "singular_value")
TINY = 10 * np.finfo("float64").eps


class Rule(NamedTuple):
    """How a variance becomes a gain: ``epsilon``, what it is added to, ``samples`` learnt from, the way back or not."""

    epsilon: float
    on: str
    samples: int
    invert: bool

    def gains(self, variances: np.ndarray) -> np.ndarray:
        """1 / sqrt(l + epsilon), 1 / (sqrt(l) + epsilon) or sqrt(n) / (sqrt(n l) + epsilon); their inverses for the way
        back. Where the variance is 0, 0.
        """
        alive = variances > 0
        variances = np.where(alive, variances, 1.0)
        if self.on == "variance":
            root = np.sqrt(variances + self.epsilon)
        else:
            root = np.sqrt(variances) + self.epsilon / (1.0 if self.on == "std" else np.sqrt(self.samples))
        return np.where(alive, root if self.invert else 1.0 / root, 0.0)


def shrunk(values: np.ndarray, share: float, total_variance: float, size: int) -> np.ndarray:
    """Eigenvalues of (1 - share) C + share mu I, with mu the mean variance."""
    return values if share == 0 else (1 - share) * values + share * (total_variance / size)


def complement_gain(values: np.ndarray, total_variance: float, size: int, rule: Rule) -> float:
    """The gain of the mean variance of the directions that are not among ``values``; 0 where they have none."""
    rest = total_variance - float(values.sum())
    if len(values) == size or rest <= total_variance * size * TINY:
        return 0.0
    return float(rule.gains(np.array([rest / (size - len(values))]))[0])


def eigenpairs(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(eigenvalues, largest first; eigenvectors as columns, their largest component positive) of a symmetric matrix.

    Values within the rounding of a matrix of this size are 0.
    """
    values, vectors = np.linalg.eigh(moment)
    values, vectors = values[::-1], vectors[:, ::-1]
    alive = values > max(values[0], 0.0) * len(values) * TINY
    largest = np.abs(vectors).argmax(0)
    signs = np.where(vectors[largest, np.arange(len(values))] < 0, -1.0, 1.0)
    return np.where(alive, values, 0.0), vectors * signs


def whitening_matrix(
    moment: np.ndarray, rule: Rule, kind: str = "zca", rank: int | None = None, scale_complement: bool = False
) -> np.ndarray:
    """The (d, d) float64 matrix that a row vector of centred values is multiplied with from the right.

    Args:
        moment: covariance, (d, d), symmetric.
        rule: how variances become gains.
        kind: one of ``KINDS``.
        rank: the leading directions to keep ("zca" only); all by default.
        scale_complement: give the others one mean gain instead of 0.

    Raises:
        ValueError: for "cholesky" and a moment that is not of full rank, dead values (0 variance) aside.
    """
    if kind == "cholesky":
        return _cholesky_matrix(moment, rule)
    deviations = None
    if kind.endswith("-cor"):
        variances = np.diag(moment)
        alive = variances > max(variances.max(), 0.0) * len(variances) * TINY
        deviations = np.where(alive, np.sqrt(np.where(alive, variances, 1.0)), 0.0)
        inverse = np.where(alive, 1.0 / np.where(alive, deviations, 1.0), 0.0)
        moment = moment * inverse[:, None] * inverse
    values, vectors = eigenpairs(moment)
    gains, mean_gain = rule.gains(values), 0.0
    if rank is not None:
        mean_gain = complement_gain(values[:rank], float(values.sum()), len(values), rule) if scale_complement else 0.0
        gains = np.where(np.arange(len(gains)) < rank, gains - mean_gain, 0.0)
    if kind.startswith("zca"):
        matrix = (vectors * gains) @ vectors.T
        matrix[np.diag_indices(len(values))] += mean_gain
    else:
        matrix = (vectors * gains).T if rule.invert else vectors * gains
    if deviations is None:
        return matrix
    return matrix * deviations if rule.invert else matrix * inverse[:, None]


def _cholesky_matrix(moment: np.ndarray, rule: Rule) -> np.ndarray:
    variances = np.diag(moment)
    alive = np.flatnonzero(variances > max(variances.max(), 0.0) * len(variances) * TINY)
    part = moment[np.ix_(alive, alive)]
    try:
        pivots = np.diag(np.linalg.cholesky(part)) ** 2
        singular = bool((pivots <= np.diag(part) * len(part) * TINY).any())
    except np.linalg.LinAlgError:
        singular = True
    if singular:
        raise ValueError(
            f"kind='cholesky' needs a covariance of full rank, and that of these {rule.samples} samples of "
            f"{len(moment)} values is not: some values follow from others. Give more images, shrinkage=, or another "
            f"kind, which drops directions without variance."
        )
    # The upper factor U of C + epsilon = U U', by that of the matrix in reverse order; W = U^-1.
    part = part + rule.epsilon * np.eye(len(part))
    upper = np.linalg.cholesky(part[::-1, ::-1])[::-1, ::-1]
    matrix = np.zeros_like(moment)
    matrix[np.ix_(alive, alive)] = upper.T if rule.invert else np.triu(np.linalg.inv(upper)).T
    return matrix
