"""The loop that learns: batches of a source go into the accumulators of layers, with rounds, progress, a checkpoint."""

from __future__ import annotations

import contextlib
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_norm_layers.normalization.clustered import learn_on_cluster
from keras_norm_layers.normalization.fingerprint import describe_data, describe_layers
from keras_norm_layers.normalization.progress import Progress, check_verbose
from keras_norm_layers.statistics.cache import Cached, is_at_hand, is_sliced
from keras_norm_layers.statistics.checkpoint import Checkpoint
from keras_norm_layers.statistics.cluster import is_dataset
from keras_norm_layers.statistics.sources import Batches, batches
from keras_norm_layers.validation import check_seed

INTERVAL = 5.0  # seconds from one save of the checkpoint to the next, at least
# Layers before an adapting one run in batches of this many images, if the data has no batches of its own.
PREFIX_BATCH = 256
SHARE = 0.1  # of the time that saves may take: what takes long to save is saved less often


class Draw(NamedTuple):
    """What decides the random changes of a batch: the seed, the round, the number of the batch in it."""

    seed: int | None
    round: int
    batch: int


def itself(layers: Sequence[Any]) -> Callable[[np.ndarray, Draw], list[np.ndarray]]:
    """The view of layers that see the data as it is."""
    return lambda batch, draw: [batch] * len(layers)


class Pass(NamedTuple):
    """Layers that learn in one pass over the data.

    ``view`` says what each of them sees of a batch; ``runs_layers`` whether it runs other layers for it.
    """

    layers: Sequence[Any]
    view: Callable[[np.ndarray, Draw], list[np.ndarray]]
    runs_layers: bool = False

    @property
    def takes_tensors(self) -> bool:
        """Whether its layers add up tensors where they lie."""
        return not self.runs_layers and all(layer.takes_tensors for layer in self.layers)


def learn(
    passes: Sequence[Pass],
    data: Any,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    rank: int | None = None,
    key: str | None = None,
    sample: float | None = None,
    seed: int | None = None,
    rounds: int = 1,
    augment: bool = False,
    verbose: Any = "auto",
    checkpoint: Any = None,
    before: Sequence[Any] = (),
) -> None:
    """Teaches layers, pass after pass. When anything fails, all of them keep the statistics they had.

    Args:
        passes: which layers learn when; the layers of a pass stand behind those of earlier ones, not behind each other.
        data, batch_size, steps, rank, key, sample: see ``batches``.
        seed: decides the sample and the random changes; None: a random one, which the checkpoint keeps.
        rounds: how often a pass reads the data.
        augment: whether the view is random, so that a round differs from the next one.
        verbose: see ``Progress``.
        checkpoint: the path of a file that says how far it has come, or None.
        before: the layers that change the data before the last of the passes sees it; part of the fingerprint.
    """
    check_verbose(verbose)
    seed = check_seed("adapt", seed)
    layers = [layer for part in passes for layer in part.layers]
    options = {"steps": steps, "rank": rank, "key": key, "sample": sample}
    if is_dataset(data):
        refused = {"batch_size": batch_size, "augment": augment, "checkpoint": checkpoint}
        learn_on_cluster(passes, data, Draw(seed, 0, 0), seed=seed, **options, **refused)
        return

    reader = _Reader(data, batch_size, {**options, "tensors": all(part.takes_tensors for part in passes)})
    arguments = {"batch_size": batch_size, "seed": seed, "rounds": rounds, "augment": augment, **options}
    del arguments["rank"]  # known once the layers are built, as they are when the same call is made again
    fingerprint = {
        "passes": [len(part.layers) for part in passes],
        "arguments": arguments,
        "data": describe_data(data, reader.source(passes[0], seed)),
    }
    journal = Journal(checkpoint, lambda: {**describe_layers(layers, before), **fingerprint})
    seed = journal.seed(seed, needed=augment or sample is not None)
    reads = len(passes) * rounds - (journal.position["pass"] * rounds + journal.position["round"])
    reader.expect(passes[0], seed, reads, _why(layers, reads))
    snapshots = [(layer, layer.snapshot()) for layer in layers]
    try:
        for number, part in enumerate(passes):
            source = reader.source(part, seed)
            accumulators = accumulate(part, source, Turn(number, len(passes), rounds, seed), journal, verbose)
            for layer, accumulator in zip(part.layers, accumulators):
                layer._commit(accumulator)
            journal.finish_pass(number, part.layers, accumulators)
    except BaseException:
        for layer, snapshot in snapshots:
            layer.restore(snapshot)
        raise
    journal.remove()


class _Reader:
    """Gives each pass its batches; where data is read several times, from memory if it fits."""

    def __init__(self, data: Any, batch_size: int | None, options: dict[str, Any]) -> None:
        self._data, self._batch_size, self._options = data, batch_size, options
        self._kept: Cached | None = None

    def expect(self, part: Pass, seed: int | None, reads: int, reason: str) -> None:
        """Prepares for so many reads."""
        source = self.source(part, seed)
        if reads > 1 and not is_at_hand(self._data, source):
            self._kept = Cached(source, reads, reason)

    def source(self, part: Pass, seed: int | None) -> Batches:
        """The batches for a pass."""
        if self._kept is not None:
            return self._kept
        source = batches(self._data, batch_size=self._batch_size, seed=seed, **self._options)
        if part.runs_layers and self._batch_size is None and is_sliced(source):
            return batches(self._data, batch_size=PREFIX_BATCH, seed=seed, **self._options)
        return source


class Turn(NamedTuple):
    """Which of how many passes it is, how often it reads the data, and the seed that it draws with."""

    number: int
    passes: int
    rounds: int
    seed: int | None


def accumulate(part: Pass, source: Batches, turn: Turn, journal: Journal, verbose: Any) -> list[Any]:
    """The accumulators of the layers of a pass, filled: the one place where data and accumulators meet."""
    accumulators = journal.restored(turn.number, part.layers)
    if journal.is_finished(turn.number):
        return accumulators
    begun = journal.position
    done = begun["round"] * (source.length or 0) + begun["batches"]
    progress = Progress(_times(source.length, turn.rounds), verbose, _title(part, turn), done)
    with journal.saves_on_failure(part.layers, accumulators):
        for number in range(begun["round"], turn.rounds):
            start = journal.position["batches"]
            for index, batch in enumerate(source.iterate(start), start):
                views = part.view(batch, Draw(turn.seed, number, index)) if len(batch) else []
                with journal.batch(len(batch)):
                    _add(part.layers, accumulators, views, journal.position)
                progress.step(len(batch), _times(source.length, turn.rounds))
                journal.save_if_due(part.layers, accumulators)
            journal.finish_round()
    progress.end()
    if any(accumulator is None for accumulator in accumulators):
        raise ValueError(
            f"{part.layers[0]._title()}: the data given to adapt holds no images. Give at least one batch."
        )
    return accumulators


def _add(layers: Sequence[Any], accumulators: list[Any], views: list[np.ndarray], position: dict[str, Any]) -> None:
    for i, (layer, seen) in enumerate(zip(layers, views)):
        if accumulators[i] is None:
            layer._build_for(seen.shape)
            accumulators[i] = layer.empty_accumulator()
        layer._check_shape(seen.shape)
        accumulators[i].add(seen, f"batch {position['batches']}", position["images"])


def _times(length: int | None, rounds: int) -> int | None:
    return None if length is None else length * rounds


def _why(layers: Sequence[Any], reads: int) -> str:
    names = [layer.name for layer in layers]
    return f"{len(names)} layers need a pass each: {names}" if len(names) > 1 else f"{reads} passes are asked for"


def _title(part: Pass, turn: Turn) -> str:
    names = ", ".join(layer.name for layer in part.layers)
    more = []
    if turn.passes > 1:
        more.append(f"pass {turn.number + 1} of {turn.passes}")
    if turn.rounds > 1:
        more.append(f"{turn.rounds} rounds")
    return f"adapting {names}" + (f" ({', '.join(more)})" if more else "")


class Journal:
    """How far learning has come; with a checkpoint also on the disk, and from there at the beginning.

    ``position`` is the pass, the round in it, the batches and images done in the round. The accumulators hold exactly
    the batches before it, except while one is being added: an interruption then leaves the file of the last save.
    """

    def __init__(self, path: Any, fingerprint: Callable[[], dict[str, Any]]) -> None:
        self.position: dict[str, Any] = {"pass": 0, "round": 0, "batches": 0, "images": 0}
        self._states: dict[int, list[tuple[list[Any], dict[str, np.ndarray]] | None]] = {}
        self._file: Checkpoint | None = None
        self._seed: int | None = None
        self._between_batches, self._saved, self._next_save = True, True, 0.0
        if path is not None:
            self._file = Checkpoint(path, fingerprint())
            self._load()

    def _load(self) -> None:
        assert self._file is not None
        found = self._file.load()
        if found is None:
            return
        self.position, arrays = found
        self._seed = self.position.pop("seed")
        for number, shapes in enumerate(self.position.pop("shapes")):
            self._states[number] = [
                None if shape is None else (shape, _part(arrays, f"{number}/{i}/")) for i, shape in enumerate(shapes)
            ]

    def seed(self, seed: int | None, needed: bool) -> int | None:
        """The seed to draw with: the given one, that of the file, or a random one."""
        if self._seed is None and needed:
            self._seed = random.randrange(2**31) if seed is None else seed
        return self._seed

    def is_finished(self, number: int) -> bool:
        """Whether the pass was done already."""
        return number < self.position["pass"]

    def restored(self, number: int, layers: Sequence[Any]) -> list[Any]:
        """The accumulators of a pass as far as it had come, None for those that are still to begin."""
        accumulators = []
        for layer, saved in zip(layers, self._states.get(number, [None] * len(layers))):
            if saved is not None:
                shape, state = saved
                layer._build_for(tuple(shape))
                layer._check_shape(tuple(shape))
            accumulators.append(None if saved is None else layer.restore_accumulator(state))
        return accumulators

    @contextlib.contextmanager
    def batch(self, images: int) -> Iterator[None]:
        """The time in which a batch is added: there is nothing to save in it."""
        self._between_batches = False
        yield
        # One step, so that an interruption finds the old position or the new one.
        self.position = {
            **self.position,
            "batches": self.position["batches"] + 1,
            "images": self.position["images"] + images,
        }
        self._between_batches, self._saved = True, False

    def finish_round(self) -> None:
        """A round is done."""
        self.position = {**self.position, "round": self.position["round"] + 1, "batches": 0, "images": 0}

    def finish_pass(self, number: int, layers: Sequence[Any], accumulators: Sequence[Any]) -> None:
        """A pass is done, and its layers have their statistics."""
        if self.is_finished(number):
            return
        if self._file is not None:
            self._states[number] = _states(layers, accumulators)
        self.position = {"pass": number + 1, "round": 0, "batches": 0, "images": 0}

    def save_if_due(self, layers: Sequence[Any], accumulators: Sequence[Any]) -> None:
        """Saves the first batch, and later on from time to time."""
        if self._file is not None and time.monotonic() >= self._next_save:
            self._save(layers, accumulators)

    def _save(self, layers: Sequence[Any], accumulators: Sequence[Any]) -> None:
        assert self._file is not None
        start = time.monotonic()
        number = self.position["pass"]
        states = {**self._states, number: _states(layers, accumulators)}
        shapes = [[None if saved is None else saved[0] for saved in states[n]] for n in range(number + 1)]
        arrays = {
            f"{n}/{i}/{name}": value
            for n, members in states.items()
            for i, saved in enumerate(members)
            if saved is not None
            for name, value in saved[1].items()
        }
        self._file.save({**self.position, "seed": self._seed, "shapes": shapes}, arrays)
        self._saved = True
        end = time.monotonic()
        self._next_save = end + max(INTERVAL, (end - start) * (1 - SHARE) / SHARE)

    @contextlib.contextmanager
    def saves_on_failure(self, layers: Sequence[Any], accumulators: Sequence[Any]) -> Iterator[None]:
        """What raises in here leaves a checkpoint of the last batch, or, if it hit the next one, of the last save."""
        try:
            yield
        except BaseException:
            if self._file is not None and self._between_batches and not self._saved:
                try:
                    self._save(layers, accumulators)
                except OSError as error:  # the error that is on its way says more
                    warnings.warn(f"{error}; it is as old as its last save.", stacklevel=2)
            raise

    def remove(self) -> None:
        """Deletes the checkpoint: everything is learnt."""
        if self._file is not None:
            self._file.remove()


def _states(layers: Sequence[Any], accumulators: Sequence[Any]) -> list[tuple[list[Any], dict[str, np.ndarray]] | None]:
    """For each layer the shape it was built for and its accumulator as arrays; None where there is none yet."""
    return [
        None if accumulator is None else (list(layer._rank_shape), accumulator.state())
        for layer, accumulator in zip(layers, accumulators)
    ]


def _part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
