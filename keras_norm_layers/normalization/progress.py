"""A progress bar over batches."""

from __future__ import annotations

import time
from typing import Any

import keras


class Progress:
    """A Keras progress bar over batches; with "auto" only once two seconds have passed and more is to come.

    Args:
        target: how many batches there are; None if nobody knows: the bar counts then.
        verbose: 0, 1 or "auto".
        title: what is going on.
        done: batches done before.
    """

    PATIENCE = 2.0

    def __init__(self, target: int | None, verbose: Any, title: str, done: int = 0) -> None:
        check_verbose(verbose)
        self._target, self._verbose, self._title, self._done = target, verbose, title, done
        self._start = time.monotonic()
        self._images = 0
        self._bar: Any = None

    def step(self, images: int, target: int | None = None) -> None:
        """One batch is done, of so many images; some sources know only now how many there are."""
        self._done += 1
        self._target = target
        if self._bar is not None:
            self._bar.target = target
        self._images += images
        late = time.monotonic() - self._start > self.PATIENCE and self._done != self._target
        if self._bar is None and (self._verbose == 1 or (self._verbose == "auto" and late)):
            print(self._title)
            self._bar = keras.utils.Progbar(self._target, unit_name="batch", stateful_metrics=["images/s"])
        if self._bar is not None:
            self._show(False)

    def end(self) -> None:
        """All batches are done."""
        if self._bar is not None:
            self._show(True)

    def _show(self, last: bool) -> None:
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._done, values=[("images/s", round(self._images / seconds))], finalize=last)


def check_verbose(verbose: Any) -> None:
    """ValueError unless it is 0, 1 or "auto"."""
    if verbose not in (0, 1, "auto"):
        raise ValueError(f"`verbose` must be 0, 1 or 'auto'. Received: verbose={verbose!r}")
