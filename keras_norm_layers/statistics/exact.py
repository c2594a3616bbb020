"""Sums and sums of squares of integers that lose no bit, whatever the integers' width and number."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_norm_layers.statistics.blocks import Workspace, blocks, folded, merged, tables

DIGIT = 16  # bits in a digit of a wide integer: products of two digits take 32 bits, float64 holds 2^21 of them
LIMIT = 1 << 62


def peak(values: np.ndarray) -> int:
    """A bound of |value|: the type's for 8 and 16 bits, the data's own for wider types (pixels often come as int64)."""
    if values.dtype.itemsize <= 2:
        info = np.iinfo(values.dtype)
        return max(-int(info.min), int(info.max))
    return max(1, -int(values.min()), int(values.max()))


def integer_sums(part: np.ndarray, kept: tuple[int, ...]) -> Sums:
    """The sums of a part of a batch for each feature, the features being the indices along the axes ``kept``."""
    if part.dtype == bool:
        part = part.view("uint8")
    bound = peak(part)
    total: Sums | None = None
    for table, tile, group in tables(part, kept):
        sums, squares, digits = digit_sums(table, bound, part.size)
        axes = tuple(a + 1 for a in folded(kept, group, part.ndim))
        sums, squares = (v.reshape(-1, tile, *group).sum(axes).reshape(len(v), -1) for v in (sums, squares))
        total = merged(total, Sums.from_digits(table.size // sums.shape[1], sums, squares, digits))
    assert total is not None
    return total


def digit_sums(table: np.ndarray, bound: int, size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Sums of the columns of a table of integers and of the products of their digits, as int64.

    Args:
        table: 2-D integers.
        bound: no |value| is greater.
        size: how many values will be added up at most, so that the caller may add columns in int64 as well.

    Returns:
        sums (digits, columns), products (digits * digits, columns), and the number of digits: 1 where a value's square
        is small enough to be added up as it is, else one per 16 bits.
    """
    digits = 1 if bound * bound * size < LIMIT and bound <= 1 << 20 else table.dtype.itemsize * 8 // DIGIT
    bound = bound if digits == 1 else 1 << DIGIT
    dtype, bits = ("float32", 24) if bound <= 256 else ("float64", 53)
    rows = (1 << bits) // (bound * bound)
    sums = np.zeros((digits, table.shape[1]), "int64")
    products = np.zeros((digits * digits, table.shape[1]), "int64")
    work = Workspace(dtype)
    for columns, block in blocks(table, dtype, rows):
        # A matrix product with ones: the fastest sum over rows; every partial sum is an integer below 2^bits.
        ones = np.ones(len(block), dtype)
        if digits == 1:
            values = work.copy(block)
            sums[0, columns] += (ones @ values).astype("int64")
            products[0, columns] += (ones @ np.square(values, out=values)).astype("int64")
            continue
        parts = [part.astype(dtype) for part in _split(block, digits)]
        for i, left in enumerate(parts):
            sums[i, columns] += (ones @ left).astype("int64")
            for j, right in enumerate(parts[: i + 1]):
                products[i * digits + j, columns] += (ones @ (left * right)).astype("int64")
    return sums, products, digits


def _split(block: np.ndarray, digits: int) -> list[np.ndarray]:
    """Digits of 16 bits, lowest first; the highest carries the sign."""
    if digits == 1:
        return [block]
    low = [(block >> (DIGIT * i)) & 0xFFFF for i in range(digits - 1)]
    return [*low, block >> (DIGIT * (digits - 1))]


class Sums:
    """How many integers, their sum and their sum of squares, for each of some features; exact.

    Additions go to int64 as long as their bound allows, and to Python's integers before it would not.
    """

    def __init__(self, count: int, total: np.ndarray, squares: np.ndarray, bound: int) -> None:
        self.count = count
        self.bound = bound
        self._low = (total, squares)
        self._high: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def from_digits(cls, count: int, sums: np.ndarray, products: np.ndarray, digits: int, bits: int = DIGIT) -> Sums:
        """From the sums and products (the lower triangle of ``digit_sums``) of digits, a column a feature."""
        if digits == 1:
            bound = max(int(products.max()), int(np.abs(sums).max()))
            return cls(count, sums[0], products[0], bound)
        zero = np.zeros(sums.shape[1], "int64")
        result = cls(count, zero, zero, 0)
        total = sum(sums[i].astype(object) << (bits * i) for i in range(digits))
        squares = sum(
            products[i * digits + j].astype(object) * (2 if i != j else 1) << (bits * (i + j))
            for i in range(digits)
            for j in range(i + 1)
        )
        result._high = (total, squares)
        return result

    def merged(self, other: Sums) -> Sums:
        """Both together, as a new object."""
        if self.bound + other.bound < LIMIT:
            low = (self._low[0] + other._low[0], self._low[1] + other._low[1])
            result = Sums(self.count + other.count, *low, self.bound + other.bound)
            highs = [h for h in (self._high, other._high) if h is not None]
            result._high = highs[0] if len(highs) == 1 else (_plus(*highs) if highs else None)
            return result
        zero = np.zeros_like(self._low[0])
        result = Sums(self.count + other.count, zero, zero, 0)
        result._high = _plus(self.values(), other.values())
        return result

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and sum of squares, arrays of Python integers."""
        low = (self._low[0].astype(object), self._low[1].astype(object))
        return low if self._high is None else _plus(low, self._high)

    def mean(self) -> np.ndarray:
        """The float64 nearest to each mean: Python divides integers with one rounding."""
        return np.array([s / self.count for s in self.values()[0]], "float64")

    def variance(self) -> np.ndarray:
        """The float64 nearest to each biased variance, (n q - s^2) / n^2."""
        n = self.count
        return np.array([(n * q - s * s) / (n * n) for s, q in zip(*self.values())], "float64")

    def centred(self) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Count, mean, what the mean's rounding left, and the sum of squares about the mean."""
        n = self.count
        mean = self.mean()
        total, squares = self.values()
        # A float64 is a fraction a / b, so what is left of s / n is (s b - a n) / (n b).
        ratios = [float(m).as_integer_ratio() for m in mean]
        rest = np.array([(s * b - a * n) / (n * b) for s, (a, b) in zip(total, ratios)], "float64")
        about = np.array([(n * q - s * s) / n for s, q in zip(total, squares)], "float64")
        return n, mean, rest, about

    def state(self) -> dict[str, np.ndarray]:
        """As NumPy arrays; the integers as little-endian bytes in two's complement."""
        total, squares = (_to_bytes(v) for v in (self._low if self._high is None else self.values()))
        return {"count": np.array(self.count, "int64"), "sum": total, "squares": squares}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Sums:
        """The sums that ``state()`` described."""
        total, squares = (_from_bytes(np.asarray(state[key])) for key in ("sum", "squares"))
        count = int(np.asarray(state["count"]))
        if total.dtype == squares.dtype == "int64":
            bound = max(int(np.abs(total).max()), int(squares.max()))
            if bound < LIMIT:
                return cls(count, total, squares, bound)
        zero = np.zeros(len(total), "int64")
        result = cls(count, zero, zero, 0)
        result._high = (total.astype(object), squares.astype(object))
        return result


def _plus(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return a[0] + b[0], a[1] + b[1]


def _to_bytes(values: np.ndarray) -> np.ndarray:
    if values.dtype == "int64":  # the same bytes, without a Python integer a feature
        width = int(np.abs(values).max()).bit_length() // 8 + 1
        return values.astype("<i8").view("uint8").reshape(len(values), 8)[:, :width].copy()
    width = max(int(v).bit_length() for v in values) // 8 + 1
    data = b"".join(int(v).to_bytes(width, "little", signed=True) for v in values)
    return np.frombuffer(data, "uint8").reshape(len(values), width).copy()


def _from_bytes(rows: np.ndarray) -> np.ndarray:
    """The integers, as int64 where they fit, else as Python's."""
    if rows.shape[1] <= 8:
        whole = np.repeat(np.where(rows[:, -1:] < 128, 0, 255).astype("uint8"), 8, axis=1)  # the sign
        whole[:, : rows.shape[1]] = rows
        return whole.view("<i8").ravel().astype("int64")
    values = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        values[i] = int.from_bytes(row.tobytes(), "little", signed=True)
    return values
