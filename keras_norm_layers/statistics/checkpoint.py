"""A file that says how far a pass over data has come, so that the same call after a crash goes on from there."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import numpy as np

FORMAT = 1  # raise it when what an accumulator's `state` holds changes
MARK = "keras_norm_layers checkpoint"
HEADER = "header"


class Checkpoint:
    """Arrays and a position in one file that is there whole or not at all.

    A save goes to a temporary file beside it (its name and ``.partial``), is brought to the disk (fsync), and takes the
    place of the earlier one in one step (``os.replace``): whenever the process is killed, the file is the last save.
    It is a ``.npz`` without pickles, under the name that was given.

    Args:
        path: the file, a str or ``os.PathLike``; its folder must be there. Nothing is written before ``save``, but it
            is tried whether that would work.
        fingerprint: what decides the result (layers, arguments, the data's shape), as JSON has it. A file with another
            one is refused.

    Raises:
        TypeError: for a path that is none.
        ValueError: for a folder in place of a file, for a folder that is not there or cannot be written to.

    Example:
        >>> import numpy as np, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "adapt.ckpt")
        >>> Checkpoint(path, {"axis": -1}).save({"batches": 3}, {"sum": np.arange(2)})
        >>> position, arrays = Checkpoint(path, {"axis": -1}).load()
        >>> position, arrays["sum"].tolist()
        ({'batches': 3}, [0, 1])
    """

    def __init__(self, path: Any, fingerprint: Mapping[str, Any]) -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise TypeError(f"`checkpoint` must be the path of a file. Received: checkpoint={path!r}")
        self.path = os.path.abspath(os.fsdecode(path))
        self._fingerprint = json.loads(json.dumps(fingerprint, default=_number))  # as it will come out of the file
        self._partial = self.path + ".partial"
        self._check_writable()

    def _check_writable(self) -> None:
        problem = None
        if os.path.isdir(self.path):
            problem = "it is a folder; name a file in it"
        elif not os.path.isdir(os.path.dirname(self.path)):
            problem = f"there is no folder {os.path.dirname(self.path)!r}; make it first"
        else:
            try:
                with open(self._partial, "wb"):
                    pass
                os.remove(self._partial)
            except OSError as error:
                problem = f"nothing can be written there ({error.strerror}); choose another folder"
        if problem:
            raise ValueError(f"checkpoint={self.path!r}: {problem}.")

    def save(self, position: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces the file by one that holds ``position`` (as JSON has it) and ``arrays``.

        Raises:
            OSError: when it cannot be written (a full disk); the earlier file stays.
        """
        header = {
            "mark": MARK,
            "format": FORMAT,
            "package": package_version(),
            "fingerprint": self._fingerprint,
            "position": position,
            "arrays": sorted(arrays),
        }
        try:
            with open(self._partial, "wb") as file:
                np.savez(file, allow_pickle=False, **{HEADER: to_bytes(header)}, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._partial, self.path)
        except OSError as error:
            raise OSError(error.errno, f"The checkpoint cannot be saved ({error.strerror})", self.path) from error
        finally:
            with contextlib.suppress(OSError):
                os.remove(self._partial)

    def load(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """The position and the arrays of the file; None if there is none. The file stays as it is.

        Raises:
            ValueError: for a file that is damaged, no checkpoint, of another format, or made by another call.
        """
        if not os.path.exists(self.path):
            return None
        with self._explained():
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop(HEADER).tobytes())
            known = header["mark"] == MARK
        if not known:
            raise self._refused("it is no checkpoint of keras_norm_layers")
        if header.get("format") != FORMAT:
            raise self._refused(
                f"it has the format {header.get('format')!r} (keras_norm_layers {header.get('package')}), and this "
                f"version ({package_version()}) reads format {FORMAT}"
            )
        if header.get("arrays") != sorted(arrays):  # the checksums of the format do not cover the names
            raise self._refused("it is damaged: arrays are missing or have other names")
        found = list(differences(header.get("fingerprint"), self._fingerprint))
        if found:
            raise self._refused("it was made by another call: " + "; ".join(found[:5]))
        return header["position"], arrays

    def remove(self) -> None:
        """Deletes the file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise
        except Exception as error:  # a damaged file raises nearly anything
            whole = zipfile.is_zipfile(self.path)
            what = "it is damaged, or no checkpoint of keras_norm_layers" if whole else self._no_archive()
            raise self._refused(f"{what} ({type(error).__name__}: {error!s:.100})") from error

    def _no_archive(self) -> str:
        with open(self.path, "rb") as file:
            cut = file.read(4) == b"PK\x03\x04"  # how a zip begins
        return "it is cut off" if cut else "it is no checkpoint of keras_norm_layers"

    def _refused(self, what: str) -> ValueError:
        return ValueError(
            f"checkpoint={self.path!r} cannot be continued: {what}. The file was left as it was. Delete it to begin "
            f"anew, or give another path."
        )


def package_version() -> str:
    """The version of this package, as it was installed."""
    try:
        return metadata.version("keras-norm-layers")
    except metadata.PackageNotFoundError:  # run from a copy of the sources
        return "unknown"


def _number(value: Any) -> Any:
    """A NumPy number as JSON has it."""
    return value.item() if isinstance(value, np.generic) else repr(value)


def to_bytes(header: Any) -> np.ndarray:
    """JSON as an array of bytes: text without pickles, of any length."""
    return np.frombuffer(json.dumps(header).encode(), "uint8")


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """In words, where two structures of dicts, lists and plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            yield from differences(old.get(key, "nothing"), new.get(key, "nothing"), f"{name}.{key}" if name else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, pair in enumerate(zip(old, new)):
            yield from differences(*pair, f"{name}[{number}]")
    elif old != new:
        yield f"{name or 'the contents'} was {old!r:.80}, and is {new!r:.80} now"
