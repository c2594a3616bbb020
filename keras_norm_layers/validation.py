"""Checks of arguments, written once. Every error names the argument, what was given, what is allowed, what to do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any


def is_number(value: Any) -> bool:
    """True for a finite or infinite real number that is no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_choice(owner: str, name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """``value`` if it is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{owner}: `{name}` must be one of {list(allowed)}. Received: {name}={value!r}")
    return value


def check_number(owner: str, name: str, value: Any, low: float = -float("inf"), high: float = float("inf")) -> float:
    """``value`` as a float, if it is a number in [low, high]."""
    if not is_number(value) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(
            f"{owner}: `{name}` must be a number in [{low:g}, {high:g}] and finite. Received: {name}={value!r}"
        )
    return float(value)


def check_seed(owner: str, value: Any) -> int | None:
    """``value`` as an int, if it is a seed that every backend can hold; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= int(value) < 2**31:
        raise ValueError(f"{owner}: `seed` must be an integer in [0, 2**31) or None. Received: seed={value!r}")
    return int(value)


def check_count(owner: str, name: str, value: Any, low: int, high: int) -> int:
    """``value`` as an int, if it is a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise ValueError(f"{owner}: `{name}` must be a whole number from {low} to {high}. Received: {name}={value!r}")
    return int(value)


def check_size(owner: str, name: str, value: Any) -> int:
    """``value`` as an int, if it is a number of pixels, at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < 1:
        raise ValueError(f"{owner}: `{name}` must be a whole number of pixels, 1 or more. Received: {name}={value!r}")
    return int(value)


def check_bool(owner: str, name: str, value: Any) -> bool:
    """``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{owner}: `{name}` must be True or False. Received: {name}={value!r}")
    return value


def check_interval(owner: str, name: str, value: Any, low: float, high: float, hint: str = "") -> tuple[float, float]:
    """A pair of numbers in [low, high], in order. ``hint`` ends the error message."""
    ok = isinstance(value, (tuple, list)) and len(value) == 2 and all(is_number(v) for v in value)
    if not ok or not all(low <= v <= high for v in value) or value[0] > value[1]:
        raise ValueError(
            f"{owner}: `{name}` must be a pair (lower, upper) with {low:g} <= lower <= upper <= {high:g}{hint}. "
            f"Received: {name}={value!r}"
        )
    return float(value[0]), float(value[1])


def check_factor(owner: str, name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """A Keras factor: a number f for [-f, f] (cut at ``low``), or a pair (lower, upper); all within [low, high]."""
    if is_number(value):
        size = abs(float(value))
        if not size <= high:  # so that NaN is refused too
            raise ValueError(
                f"{owner}: `{name}` must be a number or a pair (lower, upper) in [{low:g}, {high:g}]. "
                f"Received: {name}={value!r}"
            )
        return max(-size, low), size
    return check_interval(owner, name, value, low, high, " (or one number f, for (-f, f))")


def check_probability(owner: str, name: str, value: Any) -> tuple[float, float]:
    """A Keras factor that is a probability: a number f for [0, f], or a pair (lower, upper); all within [0, 1]."""
    if is_number(value):
        return 0.0, check_number(owner, name, value, 0.0, 1.0)
    return check_interval(owner, name, value, 0.0, 1.0, " (or one number f, for (0, f))")


def check_value_range(owner: str, value: Any) -> tuple[float, float]:
    """The two ends of the values that images may have, lowest first."""
    low, high = check_interval(owner, "value_range", value, -float("inf"), float("inf"))
    if not low < high or not math.isfinite(high - low):
        raise ValueError(
            f"{owner}: `value_range` must be a pair (lowest, highest) of finite numbers, the lowest below the highest. "
            f"Received: value_range={value!r}"
        )
    return low, high
