"""The full covariance of flattened images, mergeable: centred in float64 whatever the data's type."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.statistics import moments

# Rows that are gathered before one matrix product: long products are fast, and d x d additions are few.
GATHER_ROWS = 1024
# d x d float64 arrays alive at once: the scatter, a product that is added to it; then eigenvectors, LAPACK's two of
# workspace, the whitening matrix.
COPIES = 6


class CovarianceResult(NamedTuple):
    """``images`` seen, float64 ``mean`` (d,) and biased ``covariance`` (d, d)."""

    images: int
    mean: np.ndarray
    covariance: np.ndarray


class Covariance:
    """Accumulates the mean and the covariance of images, each flattened to ``size`` values.

    Args:
        size: values an image. The memory for its square is compared with what there is before any is taken.

    Raises:
        MemoryError: when the covariance does not fit; the message says how many GB it needs and what to do.

    Example:
        >>> import numpy as np
        >>> total = Covariance(2).add(np.array([[0., 0.], [2., 2.]])).add(np.array([[1., 4.]]))
        >>> total.result().covariance.round(3).tolist()
        [[0.667, 0.667], [0.667, 2.667]]
    """

    def __init__(self, size: int) -> None:
        check_memory(size)
        self.size = size
        self._merged_images = 0  # images behind the mean and the scatter; the others wait
        self._mean = np.zeros(size)
        self._scatter = np.zeros((size, size))
        self._waiting: list[np.ndarray] = []

    def add(self, batch: Any, name: str = "the batch", first_image: int = 0) -> Covariance:
        """Adds a batch, images along its first axis. Nothing is added when it raises.

        Raises:
            TypeError: for values that are no real numbers.
            ValueError: for NaN or infinity, and for images of another size.
        """
        batch = np.asarray(batch)
        moments.check_dtype(batch, name)
        if batch.ndim < 2 or batch[:1].size != self.size * min(1, len(batch)):
            raise ValueError(f"{name} must hold images of {self.size} values each. Received shape {batch.shape}.")
        if not moments.is_integer(batch.dtype):
            for start, part in moments.slices(batch):
                if not np.isfinite(part).all():
                    raise moments.non_finite(batch, part, start, name, first_image)
        for start in range(0, len(batch), GATHER_ROWS):
            # A copy in float64, a thousand images at most: the caller may reuse the memory of the batch.
            self._waiting.append(batch[start : start + GATHER_ROWS].reshape(-1, self.size).astype("float64"))
            if sum(map(len, self._waiting)) >= GATHER_ROWS:
                self._flush()
        return self

    @property
    def images(self) -> int:
        """How many images were added."""
        return self._merged_images + sum(map(len, self._waiting))

    def merge(self, other: Covariance) -> Covariance:
        """Adds what another accumulator has seen."""
        if other.size != self.size:
            raise ValueError(f"Covariances of {self.size} and {other.size} values an image cannot be merged.")
        self._flush()
        other._flush()
        if other.images:
            delta = other._mean - self._mean
            share = other.images / (self.images + other.images)
            self._scatter += other._scatter
            self._scatter += np.outer(delta, delta * (self.images * share))
            self._mean = self._mean + delta * share
            self._merged_images += other.images
        return self

    def result(self) -> CovarianceResult:
        """Mean and covariance so far.

        Raises:
            ValueError: when nothing was added.
        """
        if not self.images:
            raise ValueError("The covariance holds no data yet: add a batch first.")
        self._flush()
        return CovarianceResult(self.images, self._mean.copy(), self._scatter / self.images)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays; of the symmetric scatter one triangle."""
        self._flush()
        triangle = self._scatter[np.tril_indices(self.size)]
        return {"images": np.array(self.images, "int64"), "mean": self._mean.copy(), "scatter": triangle}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Covariance:
        """The accumulator that ``state()`` described."""
        mean = np.array(state["mean"], "float64")
        result = cls(len(mean))
        result._merged_images, result._mean = int(state["images"]), mean
        lower = np.tril_indices(result.size)
        result._scatter[lower] = state["scatter"]
        result._scatter.T[lower] = state["scatter"]
        return result

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        before = self._merged_images
        self._waiting = []
        here = rows.mean(0)
        rows -= here
        delta = here - self._mean
        share = len(rows) / (before + len(rows))
        # One more row carries the distance of the two means into the same symmetric product.
        rows = np.concatenate([rows, (delta * np.sqrt(before * share))[None]])
        self._scatter += rows.T @ rows
        self._mean = self._mean + delta * share
        self._merged_images = before + len(rows) - 1


def check_memory(size: int) -> None:
    """MemoryError where the covariance of ``size`` values and its eigenvectors do not fit into the free memory."""
    needed, free = COPIES * 8 * size * size, free_memory()
    if free is not None and needed > free:
        raise MemoryError(
            f"A full covariance of {size} values an image needs about {needed / 1e9:.1f} GB while it is learnt "
            f"({COPIES} arrays of {size} x {size} float64); {free / 1e9:.1f} GB are free. Make the images smaller "
            f"(keras.layers.Resizing; {int((free / COPIES / 8) ** 0.5)} values an image would fit), or use "
            f"FeaturewiseNormalization, which needs no covariance."
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
