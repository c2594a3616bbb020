"""Distributions as quantile functions: a uniform number u in [0, 1) goes in, a value comes out.

Each parameter of a transform has a slot of its own in the draw ``u``. A distribution knows its identity, the value that
changes nothing: ``strength`` moves every value towards it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_norm_layers.kernels.backend import namespace


@dataclass(frozen=True)
class Uniform:
    """Every value in [low, high) equally likely. ``per_channel``: one value a channel instead of one an image."""

    low: float
    high: float
    identity: float = 0.0
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """The values at the quantiles ``u``, pulled to the identity where ``strength`` is below 1."""
        value = self.low + (self.high - self.low) * u
        return self.identity + strength * (value - self.identity)

    def __str__(self) -> str:
        if self.low == self.high:
            return f"always {self.low + 0.0:g}"
        return f"uniform in [{self.low:g}, {self.high:g}){_each(self.per_channel)}"


@dataclass(frozen=True)
class Coin:
    """1 with the given probability, else 0, which is the identity; ``strength`` scales the probability."""

    probability: float
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """1.0 where ``u`` lies below the probability."""
        return namespace(u).cast(u < self.probability * strength, "float32")

    def __str__(self) -> str:
        return f"1 with probability {self.probability:g}, else 0"


@dataclass(frozen=True)
class Sign:
    """-1 or 1, equally likely, whatever the strength."""

    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """-1.0 in the upper half of the quantiles, 1.0 in the lower."""
        return 1.0 - 2.0 * namespace(u).cast(u >= 0.5, "float32")

    def __str__(self) -> str:
        return "-1 or 1"


@dataclass(frozen=True)
class LogUniform:
    """The logarithm is uniform in [log low, log high): a factor of 2 as likely as one of 1/2."""

    low: float
    high: float
    identity: float = 1.0
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """The values at the quantiles ``u``; ``strength`` is an exponent for their ratio to the identity."""
        low, high, identity = math.log(self.low), math.log(self.high), math.log(self.identity)
        return namespace(u).exp(identity + strength * (low + (high - low) * u - identity))

    def __str__(self) -> str:
        return f"log-uniform in [{self.low:g}, {self.high:g}){_each(self.per_channel)}"


@dataclass(frozen=True)
class Normal:
    """The normal distribution."""

    mean: float
    std: float
    identity: float = 0.0
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """mean + std sqrt(2) erfinv(2 u - 1), pulled to the identity. ``u`` is a multiple of 2^-24: half a step is
        added, so that 0 is no infinity.
        """
        xp = namespace(u)
        value = self.mean + self.std * math.sqrt(2.0) * xp.erfinv(xp.clip(2.0 * u - (1.0 - 2.0**-24), -LAST, LAST))
        return self.identity + strength * (value - self.identity)

    def __str__(self) -> str:
        return f"normal with mean {self.mean:g} and standard deviation {self.std:g}{_each(self.per_channel)}"


@dataclass(frozen=True)
class Integers:
    """Every whole number from ``low`` to ``high``, both included, equally likely. Below full strength they are no whole
    numbers: the transform rounds.
    """

    low: int
    high: int
    identity: float = 0.0
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """floor(low + (high + 1 - low) u), pulled to the identity."""
        count = self.high + 1 - self.low
        value = namespace(u).minimum(self.low + namespace(u).floor(count * u), float(self.high))
        return self.identity + strength * (value - self.identity)

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}{_each(self.per_channel)}"


@dataclass(frozen=True)
class Choice:
    """The number of one of several things, 0, 1, ..., with probabilities in proportion to ``weights``, whatever the
    strength.
    """

    weights: tuple[float, ...]
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """How many of the cumulated probabilities, but for the last, ``u`` has reached."""
        total, reached, result = sum(self.weights), 0.0, u * 0.0
        for weight in self.weights[:-1]:
            reached += weight
            result = result + namespace(u).cast(u >= reached / total, "float32")
        return result

    def __str__(self) -> str:
        total = sum(self.weights)
        return "one of " + ", ".join(f"{i} ({w / total:.3g})" for i, w in enumerate(self.weights))


@dataclass(frozen=True)
class Beta:
    """The beta distribution with both parameters ``alpha``: near 0 and 1 for a small alpha, uniform for 1.

    Its quantiles are read from a table of 4097, made when it is made. Near 0 the distribution function goes as
    x^alpha, so y = x^alpha is what is tabulated: smooth, with errors below 1e-6 in y.
    """

    alpha: float
    identity: float = 1.0
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """The values at the quantiles ``u``, pulled to the identity."""
        xp = namespace(u)
        half = xp.minimum(u, 1.0 - u) * (2.0 * (TABLE - 1))
        below = xp.minimum(xp.floor(half), TABLE - 2.0)
        table, index = xp.constant(_table, "beta", self.alpha), xp.cast(below, "int32")
        first, second = xp.take(table, index), xp.take(table, index + 1)
        y = first + (half - below) * (second - first)
        x = xp.exp(xp.log(xp.maximum(y, 1e-30)) / self.alpha)
        return strength * xp.where(u < 0.5, x, 1.0 - x) + (1.0 - strength) * self.identity  # exact for tiny values

    def __str__(self) -> str:
        return f"beta({self.alpha:g}, {self.alpha:g}){_each(self.per_channel)}"


@dataclass(frozen=True)
class BetaMixture(Beta):
    """The beta distribution whose parameter is itself uniform in [``lowest``, ``alpha``): quantiles from a table."""

    lowest: float = 1e-6

    def quantile(self, u: Any, strength: Any) -> Any:
        """The values at the quantiles ``u``, pulled to the identity."""
        xp = namespace(u)
        half = xp.minimum(u, 1.0 - u) * (2.0 * (TABLE - 1))
        below = xp.minimum(xp.floor(half), TABLE - 2.0)
        table, index = xp.constant(_table, "mixture", self.lowest, self.alpha), xp.cast(below, "int32")
        first, second = xp.take(table, index), xp.take(table, index + 1)
        x = first + (half - below) * (second - first)
        return self.identity + strength * (xp.where(u < 0.5, x, 1.0 - x) - self.identity)

    def __str__(self) -> str:
        return f"beta(a, a) with a uniform in [{self.lowest:g}, {self.alpha:g})"


@dataclass(frozen=True)
class Gamma:
    """The gamma distribution of shape ``alpha`` and scale 1; several, divided by their sum, are Dirichlet-distributed.

    Its quantiles are read from a table of 4097, equally spaced in the root of -log(1 - u), of x^min(alpha, 1); see
    ``Beta``.
    """

    alpha: float
    identity: float = 1.0
    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """The values at the quantiles ``u``, pulled to the identity."""
        xp = namespace(u)
        root = xp.sqrt(-xp.log(xp.maximum(1.0 - u, 2.0**-25)) / TAIL)
        place = xp.minimum(root, 1.0) * (TABLE - 1.0)
        below = xp.minimum(xp.floor(place), TABLE - 2.0)
        table, index = xp.constant(_table, "gamma", self.alpha), xp.cast(below, "int32")
        first, second = xp.take(table, index), xp.take(table, index + 1)
        y = first + (place - below) * (second - first)
        value = xp.exp(xp.log(xp.maximum(y, 1e-30)) / min(self.alpha, 1.0))
        return strength * value + (1.0 - strength) * self.identity  # exact also for the tiny values of a small alpha

    def __str__(self) -> str:
        return f"gamma({self.alpha:g}){_each(self.per_channel)}"


@dataclass(frozen=True)
class Key:
    """The number itself, whatever the strength: the key of a field (``threefry.uniform_field``), or of an order."""

    per_channel: bool = False

    def quantile(self, u: Any, strength: Any) -> Any:
        """``u``."""
        return u

    def __str__(self) -> str:
        return "a key in [0, 1)"


Distribution = Uniform | LogUniform | Normal | Integers | Coin | Sign | Choice | Beta | Gamma | Key
TABLE = 4097
LAST = 1.0 - 2.0**-22  # the float32 below 1 from which every backend's erfinv is finite
TAIL = 17.5  # -log(1 - u) of the last u below 1 is 16.6


def _beta_table(alpha: float) -> np.ndarray:
    """y = x^alpha at equally spaced values of the distribution function of beta(alpha, alpha) from 0 to 1/2.

    The distribution function is, up to a factor, the integral of (1 - y^(1 / alpha))^(alpha - 1) dy.
    """
    y = np.linspace(0.0, 0.5**alpha, 1 << 17)
    with np.errstate(under="ignore"):
        density = (1.0 - y ** (1.0 / alpha)) ** (alpha - 1.0)
    function = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return np.interp(np.linspace(0.0, 1.0, TABLE), function / function[-1], y).astype("float32")


def _gamma_table(alpha: float) -> np.ndarray:
    """y = x^min(alpha, 1) of gamma(alpha) where the root of -log(1 - distribution function) has equal steps."""
    power = min(alpha, 1.0)
    highest = alpha + 10.0 * math.sqrt(alpha) + 3.0 * TAIL
    x = np.concatenate([[0.0], np.geomspace(1e-12 ** (1.0 / power), highest, 1 << 17)])
    y = x**power
    density = x ** (alpha - power) * np.exp(-x) if alpha > power else np.exp(-x)  # of dy, up to a factor
    piece = 0.5 * (density[1:] + density[:-1]) * np.diff(y)
    above = np.concatenate([np.cumsum(piece[::-1])[::-1], [0.0]]) / piece.sum()
    survived = np.where(above > 0, -np.log(np.maximum(above, 1e-300)), np.inf)
    return np.interp(TAIL * np.linspace(0.0, 1.0, TABLE) ** 2, survived, y).astype("float32")


def _mixture_table(lowest: float, highest: float, parts: int = 128) -> np.ndarray:
    """x at equally spaced values of the mixture's distribution function from 0 to 1/2.

    The distribution function of beta(a, a) is an integral over y = x^a: see ``_beta_table``. Averaged over the middles
    of ``parts`` intervals of a.
    """
    x = np.concatenate([[0.0], np.geomspace(1e-30, 0.5, 1 << 13)])
    function = np.zeros_like(x)
    for alpha in lowest + (np.arange(parts) + 0.5) / parts * (highest - lowest):
        y = x**alpha
        density = (1.0 - x) ** (alpha - 1.0)
        mass = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(y))])
        function += 0.5 * mass / mass[-1] / parts
    return np.interp(np.linspace(0.0, 0.5, TABLE), function, x).astype("float32")


TABLES = {
    "beta": functools.cache(_beta_table),
    "gamma": functools.cache(_gamma_table),
    "mixture": functools.cache(_mixture_table),
}


def _table(name: str, *args: float) -> np.ndarray:
    return TABLES[name](*args)


def _each(per_channel: bool) -> str:
    return " a channel" if per_channel else ""
