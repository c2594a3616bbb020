"""The leading eigenpairs of the covariance of images of any width, mergeable, without the covariance itself.

What is kept is a table of a few hundred rows, each as wide as an image, whose products with each other are the scatter
of all images: rows' rows = sum (x - mean)(x - mean)'. A block of new images is appended, centred about its own mean,
with one row more for the distance of the two means; when the rows are too many, they are replaced by the leading ones
of their singular value decomposition (Ross, Lim, Lin and Yang 2008). That comes from the eigenvectors of the small
matrix rows rows', so nothing is ever as large as width x width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.statistics import moments, shrinkage
from keras_norm_layers.statistics.covariance import check_nan_policy, finite_images, free_memory, is_bytes

GATHERED = (256, 512)  # images that are gathered before the rows are decomposed again: at least, at most
COLUMNS = 8192  # of the wide table, that are copied at a time


class SpectrumResult(NamedTuple):
    """``images`` seen, float64 ``mean`` (d,), and the leading eigenpairs of the biased covariance.

    ``values`` (k,), largest first, and ``vectors`` (k, d), one a row, its largest component positive; 0 where the data
    has fewer directions. ``total_variance``: the trace of the covariance, so that values / total_variance are the
    shares that are kept. ``exact``: nothing was ever cut off. ``squares``: the sum of all squared eigenvalues, and
    ``fourth``: the mean of the fourth powers of the distances from the mean; both of use only where ``exact``.
    """

    images: int
    mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray
    total_variance: float
    exact: bool
    squares: float
    fourth: float

    def shrinkage(self, method: str) -> float:
        """The share of the identity that "ledoit-wolf" or "oas" asks for (see ``statistics.shrinkage``).

        Raises:
            ValueError: where directions were cut off: both need the squares of all eigenvalues.
        """
        if not self.exact:
            raise ValueError(
                f"shrinkage={method!r} needs all eigenvalues, and of {self.images} images only the leading ones were "
                f"kept. Give shrinkage as a number, or a rank of {self.images} or more, or patch_size=."
            )
        size = len(self.mean)
        return shrinkage.intensity(method, self.images, size, self.total_variance, self.squares, self.fourth)


class Spectrum:
    """Accumulates the leading eigenpairs of the covariance of images, each flattened to ``size`` values.

    Exact (in float64) as long as there are no more than rank + oversample images, or values an image. Beyond that
    directions of little variance are cut off, again and again, and what is lost lowers the eigenvalues; the
    ``oversample`` directions that are carried along beside those asked for keep that loss small. Mean and total
    variance are always exact.

    Memory: rank + oversample rows of ``size`` float64, and 256 to 512 more while images are added; less where there are
    fewer images.

    Args:
        size: values an image, d.
        rank: eigenpairs that ``result`` gives.
        oversample: directions carried along beside them; default: ``rank``, and at least 32.
        nan_policy: "raise", or "omit" to leave out the images that hold NaN. Infinity is always an error.

    Raises:
        MemoryError: where the rows do not fit into memory; the message says how many GB they need.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> images = rng.normal(size=(1000, 2)) * [3, 2] @ rng.normal(size=(2, 50)) + 10
        >>> result = Spectrum(50, rank=2).add(images).result()
        >>> result.vectors.shape, bool(np.isclose(result.values.sum(), result.total_variance))
        ((2, 50), True)
    """

    def __init__(self, size: int, rank: int, oversample: int | None = None, nan_policy: str = "raise") -> None:
        for name, value, low in (("rank", rank, 1), ("oversample", oversample, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
                raise ValueError(f"`{name}` must be a whole number. Received: {name}={value!r}")
            if value is not None and value < low:
                raise ValueError(f"`{name}` must be at least {low}. Received: {name}={value!r}")
        if rank > size:
            raise ValueError(f"`rank` must be at most the number of values an image, {size}. Received: rank={rank}")
        self.size, self.rank = size, int(rank)
        self.oversample = max(32, self.rank) if oversample is None else int(oversample)
        self.nan_policy = check_nan_policy(nan_policy)
        self.capacity = min(self.rank + self.oversample, size)
        self._gathered = min(max(GATHERED[0], self.capacity), GATHERED[1])
        check_memory(size, self.capacity, self._gathered)
        self._merged_images = 0  # images behind the rows; the others wait
        self._mean = np.zeros(size)
        self._total = 0.0
        self._skew, self._fourth = np.zeros(size), 0.0
        self._rows = np.empty((0, size))
        self._block = np.empty((0, size))
        self._waiting = 0  # rows of the block that are filled
        self._narrow = True  # they are all bytes

    def add(self, batch: Any, name: str = "the batch", first_image: int = 0) -> Spectrum:
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
        start = 0
        while start < len(batch):
            self._make_room()
            stop = min(len(batch), start + self._gathered - self._waiting)
            self._block[self._waiting : self._waiting + stop - start] = batch[start:stop]
            self._waiting += stop - start
            self._narrow = self._narrow and is_bytes(batch.dtype)
            start = stop
            if self._waiting == self._gathered:
                self._flush()
        return self

    @property
    def images(self) -> int:
        """How many images were added."""
        return self._merged_images + self._waiting

    @property
    def mean(self) -> np.ndarray:
        """The mean of the images so far, float64 (d,)."""
        self._flush()
        return self._mean.copy()

    def merge(self, other: Spectrum) -> Spectrum:
        """Adds what another accumulator has seen; ``other`` keeps what it has."""
        if (other.size, other.rank, other.oversample) != (self.size, self.rank, self.oversample):
            mine, its = ((x.size, x.rank, x.oversample) for x in (self, other))
            raise ValueError(f"Spectra of another (size, rank, oversample) cannot be merged: {mine} and {its}.")
        self._flush()
        other._flush()
        if other.images:
            self._absorb(other.images, other._mean, other._rows, other._total, other._skew, other._fourth)
        return self

    def result(self, about: np.ndarray | None = None) -> SpectrumResult:
        """Mean and leading eigenpairs so far.

        Args:
            about: a point (d,) to take the place of the mean: the second moments about it.

        Raises:
            ValueError: when nothing was added.
        """
        if not self.images:
            raise ValueError("The spectrum holds no data yet: add a batch first.")
        self._flush(release=True)
        pieces, total, fourth, mean = [self._rows], self._total, self._fourth, self._mean.copy()
        if about is not None:
            about = np.asarray(about, "float64")
            shift = about - mean
            _, fourth = self._moved(shift)
            pieces.append(np.sqrt(self.images) * shift[None])
            total, mean = total + self.images * float(shift @ shift), about
        squares, weights = _decomposed(pieces)
        rank = min(self.rank, weights.shape[1])
        values, vectors = np.zeros(self.rank), np.zeros((self.rank, self.size))
        values[:rank] = squares[:rank] / self.images
        lengths = np.sqrt(squares[:rank])
        weights = weights[:, :rank] / np.where(lengths > 0, lengths, np.inf)
        for columns, table in _stacked(pieces, self.size):
            vectors[:rank, columns] = weights.T @ table
        largest = np.abs(vectors).argmax(1)
        vectors[vectors[np.arange(self.rank), largest] < 0] *= -1.0
        exact = self.images <= self.capacity or self.capacity == self.size
        spread = float((squares / self.images) @ (squares / self.images))
        total, fourth = total / self.images, fourth / self.images
        return SpectrumResult(self.images, mean, values, vectors, total, exact, spread, fourth)

    def state(self) -> dict[str, np.ndarray]:
        """Everything in it, exactly, as a dictionary of NumPy arrays. What waits stays so: the bits depend on it."""
        whole = {"size": self.size, "rank": self.rank, "oversample": self.oversample, "images": self._merged_images}
        return {
            **{key: np.array(value, "int64") for key, value in whole.items()},
            "omit": np.array(self.nan_policy == "omit"),
            "mean": self._mean.copy(),
            "rows": self._rows.copy(),
            "total": np.array(self._total),
            "skew": self._skew.copy(),
            "fourth": np.array(self._fourth),
            "waiting": self._block[: self._waiting].astype("uint8" if self._narrow else "float64"),
        }

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray]) -> Spectrum:
        """The accumulator that ``state()`` described."""
        size, rank, oversample, images = (int(state[key]) for key in ("size", "rank", "oversample", "images"))
        result = cls(size, rank, oversample, "omit" if state["omit"] else "raise")
        result._merged_images = images
        result._mean, result._rows, result._skew = (np.array(state[k], "float64") for k in ("mean", "rows", "skew"))
        result._total, result._fourth = float(state["total"]), float(state["fourth"])
        return result.add(state["waiting"])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_block": self._block[: self._waiting]}

    def _make_room(self) -> None:
        if len(self._block) < self._gathered:
            block = np.empty((self._gathered, self.size))  # memory is taken row by row, as it is filled
            block[: self._waiting] = self._block[: self._waiting]
            self._block = block

    def _flush(self, release: bool = False) -> None:
        if self._waiting:
            block = self._block[: self._waiting]
            images, self._waiting, self._narrow = self._waiting, 0, True
            mean = block.mean(0)
            block -= mean
            with np.errstate(over="ignore", invalid="ignore"):
                norms = np.einsum("ij,ij->i", block, block)
                self._absorb(images, mean, block, float(norms.sum()), norms @ block, float(norms @ norms))
        if release:
            self._block = np.empty((0, self.size))

    def _moved(self, shift: np.ndarray) -> tuple[np.ndarray, float]:
        product = (self._rows @ shift) @ self._rows
        return shrinkage.moved(self._merged_images, self._total, self._skew, self._fourth, shift, product)

    def _absorb(
        self, images: int, mean: np.ndarray, rows: np.ndarray, total: float, skew: np.ndarray, fourth: float
    ) -> None:
        """Adds images that ``rows``, centred about ``mean``, stand for."""
        before, delta = self._merged_images, mean - self._mean
        share = images / (before + images)
        step = delta * share
        back = step - delta
        other = shrinkage.moved(images, total, skew, fourth, back, (rows @ back) @ rows)
        own = self._moved(step)
        self._skew, self._fourth = own[0] + other[0], own[1] + other[1]
        weight = before * share
        self._total += total + weight * float(delta @ delta)
        self._merged_images, self._mean = before + images, self._mean + step
        pieces = [self._rows, rows] + ([np.sqrt(weight) * delta[None]] if before else [])
        if sum(map(len, pieces)) <= self.capacity:
            self._rows = np.concatenate(pieces)
            return
        squares, weights = _decomposed(pieces)
        kept = min(self.capacity, weights.shape[1], int((squares > 0).sum()))
        # Into the old rows, a range of columns at a time, where they are as many: no second table of that size.
        target = self._rows if len(self._rows) == kept else np.empty((kept, self.size))
        for columns, table in _stacked(pieces, self.size):
            target[:, columns] = weights[:, :kept].T @ table
        self._rows = target


def check_memory(size: int, capacity: int, gathered: int) -> None:
    """MemoryError where the rows of a spectrum do not fit into the free memory."""
    row, free = 8 * size, free_memory()
    needed = row * (capacity + gathered)
    if free is not None and needed > free:
        raise MemoryError(
            f"The leading {capacity} directions of {size} values an image need about {needed / 1e9:.1f} GB while they "
            f"are learnt ({capacity + gathered} rows of float64); {free / 1e9:.1f} GB are free. Give a smaller rank=, "
            f"or patch_size= (learnt on small patches), or make the images smaller (keras.layers.Resizing)."
        )


def _stacked(pieces: list[np.ndarray], size: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Some columns at a time of the pieces on top of each other, as a copy."""
    for start in range(0, size, COLUMNS):
        columns = slice(start, start + COLUMNS)
        yield columns, np.concatenate([piece[:, columns] for piece in pieces])


def _decomposed(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(squared singular values, largest first; left singular vectors as columns) of a wide table given in pieces.

    By the eigenvectors of its products with itself; what lies within their rounding is 0.
    """
    rows, size = sum(map(len, pieces)), pieces[0].shape[1]
    gram = np.zeros((rows, rows))
    for _, table in _stacked(pieces, size):
        gram += table @ table.T
    squares, weights = np.linalg.eigh(gram)
    squares, weights = squares[::-1], weights[:, ::-1]
    alive = squares > max(squares[:1].sum(), 0.0) * len(squares) * 10 * np.finfo("float64").eps
    alive &= np.arange(rows) < size
    return np.where(alive, squares, 0.0), weights
