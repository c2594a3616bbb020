"""The full covariance of flattened images, mergeable: exact for bytes, centred in float64 for all other types."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.statistics import moments, shrinkage

# Rows that are gathered before one matrix product: long products are fast, and d x d additions are few. Bytes count
# from MIDDLE, so that a product is at most 2^14 and the sum of 1024 of them an integer that float32 holds.
GATHER_ROWS = 1024
MIDDLE = 128.0
# d x d float64 arrays alive at once: the scatter, a product that is added to it; then eigenvectors, LAPACK's two of
# workspace, the whitening matrix.
COPIES = 6


class CovarianceResult(NamedTuple):
    """``images`` seen, float64 ``mean`` (d,) and biased ``covariance`` (d, d).

    ``samples``: what the covariance is the mean over: images, or their patches. ``fourth``: the mean of the fourth
    powers of their distances from the mean.
    """

    images: int
    mean: np.ndarray
    covariance: np.ndarray
    samples: int
    fourth: float

    def shrinkage(self, method: str) -> float:
        """The share of the identity that "ledoit-wolf" or "oas" asks for (see ``statistics.shrinkage``)."""
        trace, squares = float(np.trace(self.covariance)), float(np.vdot(self.covariance, self.covariance))
        return shrinkage.intensity(method, self.samples, len(self.mean), trace, squares, self.fourth)


@dataclasses.dataclass
class Sums:
    """Sums over y = sample - point: ``sums`` of y, ``scatter`` of y y', ``skew`` of |y|^2 y, ``fourth`` of |y|^4."""

    count: int
    point: np.ndarray
    sums: np.ndarray
    scatter: np.ndarray
    skew: np.ndarray
    fourth: float

    @classmethod
    def empty(cls, size: int, point: float = 0.0) -> Sums:
        """Of nothing yet."""
        return cls(0, np.full(size, point), np.zeros(size), np.zeros((size, size)), np.zeros(size), 0.0)

    def add(self, other: Sums) -> None:
        """Adds sums about the same point."""
        self.count += other.count
        self.sums += other.sums
        self.scatter += other.scatter
        self.skew += other.skew
        self.fourth += other.fourth

    @property
    def mean(self) -> np.ndarray:
        """Of the samples."""
        return self.point + self.sums / max(1, self.count)

    def about(self, point: np.ndarray) -> Sums:
        """The same about another point."""
        t = point - self.point
        trace = float(np.trace(self.scatter))
        skew, fourth = shrinkage.moved(self.count, trace, self.skew, self.fourth, t, self.scatter @ t, self.sums)
        half = self.sums - 0.5 * self.count * t
        scatter = self.scatter - np.stack([half, t], 1) @ np.stack([t, half])
        return Sums(self.count, point.copy(), self.sums - self.count * t, (scatter + scatter.T) / 2, skew, fourth)

    def merged(self, other: Sums) -> Sums:
        """Both, about their common mean."""
        if not self.count or not other.count:
            return self if self.count else other
        total = self.count + other.count
        mean = self.mean + (other.mean - self.mean) * (other.count / total)
        result = self.about(mean)
        result.add(other.about(mean))
        return dataclasses.replace(result, sums=np.zeros_like(mean))


class Covariance:
    """Accumulates the mean and the covariance of images, each flattened to ``size`` values.

    Images of type uint8 (and bool) add up to integers that float32 products, and float64 sums, hold without rounding:
    the covariance then has the same bits for any batch size, order or split, up to 5e11 images. All other types are
    centred in float64, and merged by Chan's formula.

    Args:
        size: values an image. The memory for its square is compared with what there is before any is taken.
        nan_policy: "raise" for an error where a value is NaN, "omit" to leave out the images that hold NaN. Infinity is
            always an error.

    Raises:
        MemoryError: when the covariance does not fit; the message says how many GB it needs and what to do.

    Example:
        >>> import numpy as np
        >>> total = Covariance(2).add(np.array([[0., 0.], [2., 2.]])).add(np.array([[1., 4.]]))
        >>> total.result().covariance.round(3).tolist()
        [[0.667, 0.667], [0.667, 2.667]]
    """

    def __init__(self, size: int, nan_policy: str = "raise") -> None:
        check_memory(size)
        self.nan_policy = check_nan_policy(nan_policy)
        self.size = size
        # The images behind the sums; others wait. A part is made when the first data of its kind comes.
        self._bytes: Sums | None = None
        self._floats: Sums | None = None
        self._waiting: list[np.ndarray] = []

    def add(self, batch: Any, name: str = "the batch", first_image: int = 0) -> Covariance:
        """Adds a batch, images along its first axis. Nothing is added when it raises.

        Raises:
            TypeError: for values that are no real numbers.
            ValueError: for infinity, for NaN unless ``nan_policy="omit"``, and for images of another size.
        """
        batch = np.asarray(batch)
        moments.check_dtype(batch, name)
        if batch.ndim < 2 or batch[:1].size != self.size * min(1, len(batch)):
            raise ValueError(f"{name} must hold images of {self.size} values each. Received shape {batch.shape}.")
        batch = finite_images(batch, self.nan_policy, name, first_image).reshape(-1, self.size)
        dtype = "uint8" if is_bytes(batch.dtype) else "float64"
        if self._waiting and self._waiting[0].dtype != dtype:
            self._flush()
        start = 0
        while start < len(batch):
            stop = min(len(batch), start + GATHER_ROWS - self._rows_waiting())
            # A copy, a thousand images at most: the caller may reuse the memory of the batch.
            self._waiting.append(batch[start:stop].astype(dtype))
            start = stop
            if self._rows_waiting() == GATHER_ROWS:
                self._flush()
        return self

    @property
    def images(self) -> int:
        """How many images were added."""
        return self._samples() + self._rows_waiting()

    @property
    def mean(self) -> np.ndarray:
        """The mean of the images so far, float64 (d,)."""
        self._flush()
        parts = [part for part in (self._bytes, self._floats) if part is not None and part.count]
        total = sum(part.count for part in parts)
        if len(parts) == 1:
            return parts[0].mean
        return parts[0].mean + (parts[1].mean - parts[0].mean) * (parts[1].count / total)

    def merge(self, other: Covariance) -> Covariance:
        """Adds what another accumulator has seen; ``other`` keeps what it has."""
        if other.size != self.size:
            raise ValueError(f"Covariances of {self.size} and {other.size} values an image cannot be merged.")
        self._flush()
        other._flush()
        if other._bytes is not None:
            self._absorb_bytes(other._bytes)
        if other._floats is not None:
            self._absorb_floats(other._floats)
        return self

    def result(self, about: np.ndarray | None = None) -> CovarianceResult:
        """Mean and covariance so far.

        Args:
            about: a point (d,) to take the place of the mean: the second moments about it.

        Raises:
            ValueError: when nothing was added.
        """
        if not self.images:
            raise ValueError("The covariance holds no data yet: add a batch first.")
        self._flush()
        parts = [part for part in (self._bytes, self._floats) if part is not None]
        total = parts[0] if len(parts) == 1 else parts[0].merged(parts[1])
        total = total.about(total.mean if about is None else np.asarray(about, "float64"))
        total.scatter /= total.count
        return CovarianceResult(self.images, total.point, total.scatter, total.count, total.fourth / total.count)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays; of the symmetric scatter one triangle.

        Images that wait for their product stay so: where a product ends shows in the last bits.
        """
        state = {"size": np.array(self.size, "int64"), "omit": np.array(self.nan_policy == "omit")}
        for name, part in (("bytes", self._bytes), ("floats", self._floats)):
            if part is not None:
                state[f"{name}_count"] = np.array(part.count, "int64")
                state[f"{name}_scatter"] = part.scatter[np.tril_indices(self.size)]
                state |= {f"{name}_{key}": getattr(part, key).copy() for key in ("point", "sums", "skew")}
                state[f"{name}_fourth"] = np.array(part.fourth)
        if self._waiting:
            state["waiting"] = np.concatenate(self._waiting)
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Covariance:
        """The accumulator that ``state()`` described."""
        result = cls(int(state["size"]), "omit" if state["omit"] else "raise")
        result._load(state)
        return result

    def _load(self, state: dict[str, np.ndarray]) -> None:
        for name in ("bytes", "floats"):
            if f"{name}_count" in state:
                part = Sums.empty(self.size)
                lower = np.tril_indices(self.size)
                part.scatter[lower] = state[f"{name}_scatter"]
                part.scatter.T[lower] = state[f"{name}_scatter"]
                part.point, part.sums, part.skew = (
                    np.array(state[f"{name}_{k}"], "float64") for k in ("point", "sums", "skew")
                )
                part.count, part.fourth = int(state[f"{name}_count"]), float(state[f"{name}_fourth"])
                setattr(self, f"_{name}", part)
        if "waiting" in state:
            self._waiting = [np.array(state["waiting"])]

    def _samples(self) -> int:
        return sum(part.count for part in (self._bytes, self._floats) if part is not None)

    def _rows_waiting(self) -> int:
        return sum(map(len, self._waiting))

    def _absorb_bytes(self, part: Sums) -> None:
        if self._bytes is None:
            self._bytes = Sums.empty(self.size, MIDDLE)
        self._bytes.add(part)

    def _absorb_floats(self, part: Sums) -> None:
        if self._floats is None:
            self._floats = Sums.empty(self.size)
        self._floats = self._floats.merged(dataclasses.replace(part, scatter=part.scatter.copy()))

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = []
        if rows.dtype == np.uint8:
            self._add_bytes(rows)
        else:
            self._add_floats(rows)

    def _add_bytes(self, rows: np.ndarray) -> None:
        if self._bytes is None:
            self._bytes = Sums.empty(self.size, MIDDLE)
        total = self._bytes
        narrow = rows.astype("float32")
        narrow -= np.float32(MIDDLE)
        total.scatter += narrow.T @ narrow  # integers of at most 2^24: exact
        wide = narrow.astype("float64")
        norms = np.einsum("ij,ij->i", wide, wide)
        total.count += len(rows)
        total.sums += wide.sum(0)
        total.skew += norms @ wide
        total.fourth += float(norms @ norms)

    def _add_floats(self, rows: np.ndarray) -> None:
        if self._floats is None:
            self._floats = Sums.empty(self.size)
        total, before = self._floats, self._floats.count
        here = rows.mean(0)
        rows -= here
        delta = here - total.point
        share = len(rows) / (before + len(rows))
        step = delta * share
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.einsum("ij,ij->i", rows, rows)
            back = step - delta
            squares = float(norms @ norms)
            skew, fourth = shrinkage.moved(len(rows), norms.sum(), norms @ rows, squares, back, (rows @ back) @ rows)
            old = shrinkage.moved(before, np.trace(total.scatter), total.skew, total.fourth, step, total.scatter @ step)
        # One more row carries the distance of the two means into the same symmetric product.
        rows = np.concatenate([rows, (delta * np.sqrt(before * share))[None]])
        total.scatter += rows.T @ rows
        total.point = total.point + step
        total.skew, total.fourth = old[0] + skew, old[1] + fourth
        total.count = before + len(rows) - 1


def is_bytes(dtype: np.dtype) -> bool:
    """True for uint8 and bool, whose products have integer sums that float32 holds."""
    return dtype == np.uint8 or dtype == np.bool_


def check_nan_policy(value: Any) -> str:
    """``value`` if it is one of SciPy's words."""
    if value not in ("raise", "omit"):
        raise ValueError(f"`nan_policy` must be 'raise' or 'omit'. Received: nan_policy={value!r}")
    return value


def finite_images(batch: np.ndarray, nan_policy: str, name: str, first_image: int) -> np.ndarray:
    """The images of a batch that hold no NaN. ValueError for infinity, and for NaN with the policy "raise"."""
    if moments.is_integer(batch.dtype) or not batch.size:
        return batch
    kept = np.ones(len(batch), bool)
    for start, part in moments.slices(batch):
        if np.isfinite(part).all():
            continue
        flat = part.reshape(len(part), -1)
        missing = np.isnan(flat).any(1) if nan_policy == "omit" else np.zeros(len(part), bool)
        if not np.isfinite(flat[~missing]).all() or np.isinf(flat).any():
            without = np.where(np.isnan(part), part.dtype.type(0), part) if nan_policy == "omit" else part
            raise moments.non_finite(batch, without, start, name, first_image)
        kept[start : start + len(part)] = ~missing
    return batch if kept.all() else batch[kept]


def check_memory(size: int) -> None:
    """MemoryError where the covariance of ``size`` values and its eigenvectors do not fit into the free memory."""
    needed, free = COPIES * 8 * size * size, free_memory()
    if free is not None and needed > free:
        raise MemoryError(
            f"A full covariance of {size} values an image needs about {needed / 1e9:.1f} GB while it is learnt "
            f"({COPIES} arrays of {size} x {size} float64); {free / 1e9:.1f} GB are free. Give rank= (the leading "
            f"directions only, for images of any width) or patch_size= (learnt on small patches, applied as a "
            f"convolution), or make the images smaller (keras.layers.Resizing; {int((free / COPIES / 8) ** 0.5)} "
            f"values an image would fit)."
        )


def free_memory() -> int | None:
    """Bytes of memory that this process can still take; None where the system does not say."""
    limits = [limit for limit in (_system_memory(), _container_memory()) if limit is not None]
    return min(limits, default=None)


def _system_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # macOS and other systems with POSIX names: what there is in all
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _container_memory() -> int | None:
    """What the control group of a container leaves; its limit does not show in /proc/meminfo."""
    try:
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as used,
        ):
            return int(limit.read()) - int(used.read())
    except (OSError, ValueError):  # no control group, or "max": no limit
        return None
