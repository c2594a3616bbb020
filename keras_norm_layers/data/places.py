"""Where files are: folders and addresses (``scheme://...``, by fsspec); what lies in them, and what lies outside."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

from keras_norm_layers.data.images import ImageError
from keras_norm_layers.statistics.decoding import EXTENSIONS


class Problem(NamedTuple):
    """A file that is no sample: its name, and why."""

    name: str
    reason: str


class Listing(NamedTuple):
    """Image files beneath a folder, relative to it and sorted, and what else lies there."""

    files: list[str]
    problems: list[Problem]


def is_remote(path: Any) -> bool:
    """Whether a path is an address for fsspec."""
    return "://" in str(path)


def fsspec() -> Any:
    """The library for remote files."""
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(
            "Addresses with :// are read through fsspec, which is not installed: pip install keras-norm-layers[remote]"
        ) from error
    return fsspec


def join(folder: Any, name: str) -> str:
    """A path in a folder or beneath an address."""
    return f"{str(folder).rstrip('/')}/{name}" if is_remote(folder) else os.path.join(os.fspath(folder), name)


@contextlib.contextmanager
def stream(path: str) -> Iterator[Any]:
    """A file, local or remote, open for reading bytes.

    Raises:
        ImageError: where there is none, it cannot be opened, or is no regular file (to open a pipe may wait for ever).
    """
    try:
        if is_remote(path):
            system, inner = fsspec().core.url_to_fs(path)
            file = system.open(inner, "rb")
        else:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ImageError(path, "is no file.")
            file = open(path, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(path, f"cannot be opened: {error}") from error
    with file:
        yield file


def read(path: str) -> bytes:
    """The bytes of a file, local or remote."""
    with stream(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise ImageError(path, f"cannot be read: {error}") from error


def outside(path: str, folder: Any, follow_links: bool = False) -> str | None:
    """Why a path relative to a folder (or absolute) lies outside of it; None if it lies inside."""
    if is_remote(folder) or is_remote(path):
        root = str(folder).rstrip("/") + "/"
        if is_remote(path) and not path.startswith(root):
            return f"lies outside of {str(folder)!r}."
        steps = posixpath.normpath(path.removeprefix(root)).split("/")
        return f"lies outside of {str(folder)!r}." if ".." in steps or path.startswith("/") else None
    root = os.fspath(folder)
    place = os.path.normpath(os.path.join(os.path.abspath(root), path))
    if not _beneath(place, os.path.abspath(root)):
        return f"lies outside of {root!r}."
    if not follow_links and not _beneath(os.path.realpath(place), os.path.realpath(root)):
        return f"is a link out of {root!r}. Give follow_links=True if that is meant."
    return None


def _beneath(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def listing(folder: Any, follow_links: bool = False) -> Listing:
    """All files beneath a folder or address. Names that begin with a dot, of files and of folders, do not count.

    Raises:
        FileNotFoundError, NotADirectoryError: where there is no such folder.
    """
    files: list[str] = []
    problems: list[Problem] = []
    for name, reason in _remote_files(folder, follow_links) if is_remote(folder) else _files(folder, follow_links):
        if reason is None and not name.lower().endswith(EXTENSIONS):
            reason = "is no image by its name. Allowed: " + ", ".join(EXTENSIONS)
        if reason is None:
            files.append(name)
        else:
            problems.append(Problem(join(folder, name), reason))
    return Listing(sorted(files), sorted(problems))


def _files(folder: Any, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    root = os.fspath(folder)
    if not os.path.isdir(root):
        kind = NotADirectoryError if os.path.exists(root) else FileNotFoundError
        raise kind(f"data: {root!r} is no folder. Give the path of a folder of images.")
    broken: list[tuple[str, str]] = []

    def note(error: OSError) -> None:
        broken.append((os.path.relpath(error.filename, root), f"cannot be listed: {error}"))

    for here, inside, names in os.walk(root, followlinks=True, onerror=note):
        relative = os.path.relpath(here, root)
        above = {os.path.realpath(here)} | {os.path.realpath(parent) for parent in _parents(here, root)}
        for name in list(inside):
            path = os.path.normpath(os.path.join(relative, name))
            reason = None
            if name.startswith("."):
                inside.remove(name)
                continue
            if os.path.islink(os.path.join(here, name)):
                circle = os.path.realpath(os.path.join(here, name)) in above
                reason = "is a link to a folder above it." if circle else outside(path, root, follow_links)
            if reason is not None:
                inside.remove(name)
                yield path, reason
        for name in names:
            if not name.startswith("."):
                path = os.path.normpath(os.path.join(relative, name))
                yield path, _unfit(path, root, follow_links)
    yield from broken


def _parents(path: str, root: str) -> Iterator[str]:
    while path != root:
        path = os.path.dirname(path)
        yield path


def unfit(path: str, folder: Any, follow_links: bool = False) -> str | None:
    """Why a file that a table names is no sample, as far as it shows without reading it; ``folder`` may be None."""
    if is_remote(path) or (folder is not None and is_remote(folder)):
        return None if folder is None else outside(path, folder)
    try:
        reason = None if folder is None else outside(path, folder, follow_links)
        return reason or _status(path if folder is None else os.path.join(folder, path))
    except ValueError as error:  # a name that no file can have
        return f"cannot be opened: {error}"


def _unfit(path: str, root: str, follow_links: bool) -> str | None:
    """Why a file in a folder is no sample, as far as it shows without reading it."""
    whole = os.path.join(root, path)
    return (outside(path, root, follow_links) if os.path.islink(whole) else None) or _status(whole)


def _status(path: str) -> str | None:
    try:
        status = os.stat(path)
    except OSError as error:
        return f"cannot be opened: {error}"
    if not stat.S_ISREG(status.st_mode):
        return "is no file."
    return "is empty." if status.st_size == 0 else None


def _remote_files(address: Any, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    system, root = fsspec().core.url_to_fs(str(address))
    found = system.find(root, detail=True)
    if not found:
        raise FileNotFoundError(f"data: there is no file beneath {str(address)!r}.")
    root = root.rstrip("/") + "/"
    for path, info in found.items():
        name = path.removeprefix(root)
        if any(part.startswith(".") for part in name.split("/")):
            continue
        if info.get("islink") and not follow_links:
            yield name, "is a link. Give follow_links=True if that is meant."
        else:
            yield name, "is empty." if info.get("size") == 0 else None
