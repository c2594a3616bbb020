"""Distributions as quantile functions: a uniform number u in [0, 1) goes in, a value comes out.

Each parameter of a transform has a slot of its own in the draw ``u``. A distribution knows its identity, the value that
changes nothing: ``strength`` moves every value towards it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        each = " a channel" if self.per_channel else ""
        return f"uniform in [{self.low:g}, {self.high:g}){each}"


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


Distribution = Uniform | Coin | Sign
