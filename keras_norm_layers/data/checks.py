"""Checks of a data set: enough images of each class, sizes, channels, broken files, duplicates."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from typing import Any

import numpy as np

from keras_norm_layers.data.feed import Feed, in_threads
from keras_norm_layers.data.folders import listed
from keras_norm_layers.data.images import ImageError
from keras_norm_layers.data.places import Problem
from keras_norm_layers.data.table import Table

ENOUGH = 1000  # images a class
MEAN_PARTS, LARGEST_PARTS = 5, 10  # below a fifth of the mean, or a tenth of the largest, a class is too small
MOST = 10  # lines of one kind in the text


@dataclasses.dataclass
class Report:
    """What ``report`` found. ``str(report)`` is a text, ``report.plot()`` a picture.

    Attributes:
        counts: readable images by class; empty without classes.
        images: number of readable images.
        sizes: how many images have each (height, width), as stored.
        channels: how many images have each number of channels, as stored.
        broken: (name, reason) of what is no readable image.
        duplicates: lists of names of images with the same content.
        animated: names of files of several frames.
        turned: names of files whose orientation tag says that the camera was turned; feeds give them upright, unless
            they are told exif_orientation=False.
    """

    counts: dict[str, int]
    images: int
    sizes: dict[tuple[int, int], int]
    channels: dict[int, int]
    broken: list[Problem]
    duplicates: list[list[str]]
    animated: list[str]
    turned: list[str] = dataclasses.field(default_factory=list)

    @property
    def few(self) -> list[str]:
        """Classes of fewer than 1000 images."""
        return [name for name, count in self.counts.items() if count < ENOUGH]

    @property
    def unbalanced(self) -> list[str]:
        """Classes below 20 % of the mean of all, or below 10 % of the largest."""
        total, largest = sum(self.counts.values()), max(self.counts.values(), default=0)
        return [  # in whole numbers, for 10 % of 70 is not 7.000000000000001
            name
            for name, count in self.counts.items()
            if count * MEAN_PARTS * len(self.counts) < total or count * LARGEST_PARTS < largest
        ]

    def __str__(self) -> str:
        lines = [f"{self.images} images"]
        few, unbalanced = set(self.few), set(self.unbalanced)
        for name, count in self.counts.items():
            notes = [f"fewer than {ENOUGH}"] * (name in few) + ["unbalanced"] * (name in unbalanced)
            lines.append(f"  {name!r}: {count}" + (f" ({', '.join(notes)})" if notes else ""))
        lines.append("sizes (height x width): " + _most_common({f"{h} x {w}": n for (h, w), n in self.sizes.items()}))
        lines.append("channels: " + _most_common(self.channels))
        for title, items in (
            ("broken", [f"{name!r} {reason}" for name, reason in self.broken]),
            ("duplicates", [" = ".join(map(repr, names)) for names in self.duplicates]),
            ("several frames", [repr(name) for name in self.animated]),
            ("turned by an orientation tag", [repr(name) for name in self.turned]),
        ):
            lines.append(f"{title}: {len(items)}")
            lines += [f"  {item}" for item in items[:MOST]] + ["  ..."] * (len(items) > MOST)
        return "\n".join(lines)

    def plot(self) -> Any:
        """Images a class as bars, with the bounds for "few" and "unbalanced", and the sizes as points.

        Returns:
            a ``matplotlib.figure.Figure``; nothing is shown: call ``figure.savefig(path)``.

        Raises:
            ImportError: without Matplotlib, the extra ``viz``.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("A report is drawn with Matplotlib: pip install keras-norm-layers[viz]") from error
        figure = Figure(figsize=(9, max(3.0, 0.25 * len(self.counts))), layout="constrained")
        bars, points = figure.subplots(1, 2)
        unbalanced = set(self.unbalanced)
        colors = ["tab:red" if name in unbalanced else "tab:blue" for name in self.counts]
        bars.barh(range(len(self.counts)), list(self.counts.values()), color=colors)
        bars.set_yticks(range(len(self.counts)), [name.replace("$", r"\$") for name in self.counts])
        bars.invert_yaxis()
        bars.axvline(ENOUGH, color="gray", linestyle="--")
        bars.set_title("images a class (red: unbalanced; dashed: 1000)", fontsize="medium")
        if self.sizes:
            sides = np.array(list(self.sizes), "float64")
            points.scatter(sides[:, 1], sides[:, 0], s=10 + 90 * np.array(list(self.sizes.values())) / self.images)
        points.set(xlabel="width", ylabel="height")
        points.set_title(f"sizes; {len(self.broken)} broken, {len(self.duplicates)} duplicated", fontsize="medium")
        return figure


def report(data: Any, **options: Any) -> Report:
    """Checks a data set, by the rules of thumb of practice: 1000 images a class, none far smaller than the others.

    Every file is read once. Duplicates are files of the same bytes, or arrays of the same values and shape.

    Args:
        data: a folder or an address, as ``from_directory`` takes it; or a ``Feed``, whose samples are looked at as they
            are stored, and whose ``skipped`` count as broken.
        **options: for a folder, ``labels``, ``nested`` and ``follow_links`` of ``from_directory``.

    Returns:
        a ``Report``.

    Raises:
        FileNotFoundError, NotADirectoryError: where there is no such folder.
        TypeError: for options beside a ``Feed``.

    Example:
        >>> import numpy as np
        >>> from keras_norm_layers import data
        >>> images = np.arange(5 * 4 * 4 * 3, dtype="uint8").reshape(5, 4, 4, 3)
        >>> print(data.report(data.from_arrays(images, ["cat", "cat", "cat", "dog", "dog"])))
        5 images
          'cat': 3 (fewer than 1000)
          'dog': 2 (fewer than 1000)
        sizes (height x width): 4 x 4: 5
        channels: 3: 5
        broken: 0
        duplicates: 0
        several frames: 0
        turned by an orientation tag: 0
    """
    if isinstance(data, Feed):
        if options:
            raise TypeError(f"report: a Feed takes no options. Received: {sorted(options)}")
        return _report(data._table, data._numbers, data.class_names, data.classes, data.skipped)
    table = listed(data, **options)
    names = table.class_names
    number_of = {name: number for number, name in enumerate(names or [])}
    classes = None if table.labels is None else np.array([number_of[label] for label in table.labels], "int32")
    return _report(table, np.arange(len(table.images)), names, classes, table.problems)


def _report(table: Table, numbers: Any, names: Any, classes: Any, problems: list[Problem]) -> Report:
    def look(number: Any) -> Any:
        try:
            described, content = table.images.inspect(int(number))
            return described, hashlib.sha256(content).digest()
        except ImageError as error:
            return Problem(error.name, error.reason)

    found = in_threads(look, numbers)
    broken = [*problems, *(item for item in found if isinstance(item, Problem))]
    good = [(i, int(number), item) for i, (number, item) in enumerate(zip(numbers, found)) if type(item) is tuple]
    same: dict[bytes, list[str]] = collections.defaultdict(list)
    for _, number, (_, digest) in good:
        same[digest].append(table.images.name(number))
    counts: dict[str, int] = {}
    if classes is not None:
        tally = collections.Counter(int(classes[i]) for i, _, _ in good)
        counts = {name: tally[number] for number, name in enumerate(names)}
    shapes = [described for _, _, (described, _) in good]
    return Report(
        counts=counts,
        images=len(good),
        sizes=dict(collections.Counter((stored.height, stored.width) for stored in shapes).most_common()),
        channels=dict(collections.Counter(stored.channels for stored in shapes).most_common()),
        broken=broken,
        duplicates=[group for group in same.values() if len(group) > 1],
        animated=[table.images.name(number) for _, number, (stored, _) in good if stored.frames > 1],
        turned=[table.images.name(number) for _, number, (stored, _) in good if stored.orientation > 1],
    )


def _most_common(counts: dict[Any, int]) -> str:
    shown = [f"{key}: {count}" for key, count in list(counts.items())[:MOST]]
    return ", ".join(shown) + (", ..." if len(counts) > MOST else "")
