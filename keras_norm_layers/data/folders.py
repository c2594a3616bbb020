"""Folders of image files as feeds: a folder a class, nested ones, and folders that are split already."""

from __future__ import annotations

import os
import posixpath
from typing import Any

from keras_norm_layers import validation
from keras_norm_layers.data import places
from keras_norm_layers.data.columns import Files
from keras_norm_layers.data.feed import feeds
from keras_norm_layers.data.places import Problem
from keras_norm_layers.data.table import Table

# Names of folders that hold a part of the data -> which part.
PARTS = {
    **dict.fromkeys(("train", "training"), "training"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def from_directory(
    directory: Any,
    labels: Any = "inferred",
    *,
    nested: bool = False,
    class_names: list[str] | None = None,
    masks: Any = None,
    follow_links: bool = False,
    subset: str | None = None,
    validation_split: float | str | None = None,
    **options: Any,
) -> Any:
    """A ``Feed`` of the image files beneath a folder.

    A folder that holds nothing but folders named train (or training), val (valid, validation) and test (testing) is
    split already: ``subset`` says which part is wanted, without ``validation_split``.

    Args:
        directory: the folder, or an address (``memory://...``, ``s3://...``) that fsspec reads.
        labels: "inferred" (default): the first folder on a file's way is its class; files outside of all folders are
            errors. None: no labels, all files. Or a list of labels, one for each file, in the order of sorted paths.
        nested: True makes each folder that holds images a class of its own, named by its path: "dog/poodle".
        class_names: which classes are read, in the order of their numbers. None (default): all, sorted.
        masks: None, or a folder with a mask for each image, of the same relative path up to the extension.
        follow_links: False (default): a link that leads out of the folder is an error. True: it is followed.
        subset, validation_split: see ``Feed``; of a split folder, ``subset`` is "training", "validation" (the test
            folder where there is no validation folder), "test" or "both".
        **options: the other arguments of ``Feed``. ``label_mode`` is None where ``labels`` is.

    Returns:
        a ``Feed``; two for ``subset="both"``.

    Raises:
        FileNotFoundError, NotADirectoryError: where there is no such folder.
        ValueError: for a folder without images or classes, for arguments out of bounds, for files that are no images.

    Example:
        >>> import os, tempfile, PIL.Image
        >>> from keras_norm_layers import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for kind in ("cat", "dog"):
        ...         os.mkdir(os.path.join(folder, kind))
        ...         PIL.Image.new("RGB", (12, 8)).save(os.path.join(folder, kind, "1.png"))
        ...     feed = data.from_directory(folder, image_size=(4, 4), shuffle=False)
        ...     x, y = feed[0]
        >>> feed.class_names, x.shape, y.tolist()
        (['cat', 'dog'], (2, 4, 4, 3), [0, 1])
    """
    validation.check_bool("from_directory", "nested", nested)
    inferred = isinstance(labels, str)
    if inferred:
        validation.check_choice("from_directory", "labels", labels, ("inferred", None))
    options |= {"label_mode": None} if labels is None else {}
    found = places.listing(directory, follow_links)
    parts = _parts(found.files) if inferred or labels is None else None
    if parts is not None:
        return _split_already(
            directory, labels, found, parts, subset, validation_split, nested, class_names, masks, options
        )
    table = _table(directory, found.files, labels, nested, class_names, masks, found.problems)
    return feeds(table, subset=subset, validation_split=validation_split, **options)


def listed(directory: Any, labels: Any = "inferred", nested: bool = False, follow_links: bool = False) -> Table:
    """The image files beneath a folder as a table, those of all parts of a folder that is split already."""
    found = places.listing(directory, follow_links)
    parts = _parts(found.files)
    if parts is None or labels != "inferred":
        return _table(directory, found.files, labels, nested, None, None, found.problems)
    column = Files([places.join(directory, name) for name in found.files])
    classes = [_class_of(_posix(name).split("/", 1)[1], nested) for name in found.files]
    return Table(column, classes, sorted(set(classes)), problems=found.problems)


def _parts(files: list[str]) -> dict[str, str] | None:
    """For a folder that is split already, the folder of each part."""
    tops = sorted({name.split("/")[0] for name in map(_posix, files)})
    parts = {PARTS[top.lower()]: top for top in tops if top.lower() in PARTS}
    split = len(parts) == len(tops) > 1 and "training" in parts
    return parts if split else None


def _split_already(
    directory: Any,
    labels: Any,
    found: places.Listing,
    parts: dict[str, str],
    subset: str | None,
    validation_split: Any,
    nested: bool,
    class_names: list[str] | None,
    masks: Any,
    options: dict[str, Any],
) -> Any:
    allowed = ("training", "validation", "both", *(("test",) if "test" in parts else ()))
    if validation_split is not None or subset not in allowed:
        raise ValueError(
            f"from_directory: {str(directory)!r} is split already, into the folders {sorted(parts.values())}: give "
            f"`subset`, one of {list(allowed)}, and no `validation_split`; or the path of one of the folders. "
            f"Received: subset={subset!r}, validation_split={validation_split!r}"
        )
    parts = {"validation": parts.get("test", ""), **parts}

    def below(part: str, name: str) -> bool:
        return _posix(name).startswith(parts[part] + "/")

    if labels == "inferred" and class_names is None:  # the same numbers in each part
        class_names = sorted({_class_of(name.split("/", 1)[1], nested) for name in map(_posix, found.files)} - {""})
    made = []
    for part in ("training", "validation") if subset == "both" else (subset or "",):
        folder = places.join(directory, parts[part])
        files = [_posix(name).split("/", 1)[1] for name in found.files if below(part, name)]
        others = [_posix(places.join(directory, top)) + "/" for top in parts.values() if top and top != parts[part]]
        inside = [p for p in found.problems if not _posix(p.name).startswith(tuple(others))]
        mask_folder = None if masks is None else places.join(masks, parts[part])
        table = _table(folder, files, labels, nested, class_names, mask_folder, inside, whole=False)
        made.append(feeds(table, **options))
    return tuple(made) if subset == "both" else made[0]


def _table(
    directory: Any,
    files: list[str],
    labels: Any,
    nested: bool,
    class_names: list[str] | None,
    masks: Any,
    problems: list[Problem],
    whole: bool = True,
) -> Table:
    problems = list(problems)
    classes = None
    if isinstance(labels, str):
        classes = [_class_of(_posix(name), nested) for name in files]
        loose = [name for name, kind in zip(files, classes) if not kind]
        problems += [Problem(places.join(directory, name), "lies in no folder of a class.") for name in loose]
        present = sorted(set(classes) - {""})
        if class_names is not None and whole and set(class_names) - set(present):
            raise ValueError(
                f"from_directory: there are no images of the classes {sorted(set(class_names) - set(present))} in "
                f"{str(directory)!r}. It has the classes {present}. Received: class_names={class_names}"
            )
        names = present if class_names is None else list(class_names)
        kept = [i for i, kind in enumerate(classes) if kind in set(names)]
        files, classes, class_names = [files[i] for i in kept], [classes[i] for i in kept], names
    elif labels is not None:
        classes = list(labels)
        if len(classes) != len(files):
            raise ValueError(
                f"from_directory: `labels` must have a label for each of the {len(files)} image files in "
                f"{str(directory)!r}, in the order of sorted paths. Received: {len(classes)}"
            )
    if not files:
        listed = "".join(f" {name!r} {reason}" for name, reason in problems[:3])
        raise ValueError(f"from_directory: there are no images to feed in {str(directory)!r}.{listed}")
    column = Files([places.join(directory, name) for name in files])
    return Table(column, classes, class_names, _masks(masks, files, directory), None, problems)


def _class_of(name: str, nested: bool) -> str:
    folder = posixpath.dirname(name)
    return folder if nested else folder.split("/")[0]


def _posix(name: str) -> str:
    return name.replace(os.sep, "/")


def _masks(masks: Any, files: list[str], directory: Any) -> Files | None:
    """For each image the mask of the same name, whatever their extensions."""
    if masks is None:
        return None
    found: dict[str, str] = {}
    for name in places.listing(masks).files:
        found[posixpath.splitext(_posix(name))[0]] = name
    missing = [name for name in files if posixpath.splitext(_posix(name))[0] not in found]
    if missing:
        raise ValueError(
            f"from_directory: {len(missing)} of {len(files)} images in {str(directory)!r} have no mask of their name "
            f"in {str(masks)!r}, first {missing[0]!r}."
        )
    return Files([places.join(masks, found[posixpath.splitext(_posix(name))[0]]) for name in files])
