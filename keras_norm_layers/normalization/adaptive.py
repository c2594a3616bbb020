"""What all layers share that learn statistics: adapt, update, merge, reset; accumulator <-> weights; files."""

from __future__ import annotations

import hashlib
import math
import sys
import threading
from typing import Any, TypeVar

import keras
import numpy as np

from keras_norm_layers.kernels import backend
from keras_norm_layers.layer import PreprocessingLayer
from keras_norm_layers.normalization.learning import Pass, itself, learn
from keras_norm_layers.statistics.sources import batches

SAVED = "accumulator_"
Self = TypeVar("Self", bound="AdaptiveLayer")


class AdaptiveLayer(PreprocessingLayer):
    """Base of the layers that learn statistics from data; use its subclasses.

    Statistics are weights, so they travel with the model, and ``call`` reads them anew each time: adapting, loading or
    setting weights takes effect in a model that was compiled, traced or fitted before. Beside the weights (float32) the
    layer keeps the accumulator they came from (float64 or exact integers); ``.keras`` and ``.weights.h5`` files hold it
    too, so that ``update`` and ``merge`` continue exactly after loading.

    A subclass says in ``build`` which weights it has, in ``empty_accumulator`` what accumulates, in ``statistics_of``
    which values the weights get from it, and in ``transform`` what is done to images.
    """

    takes_tensors = False  # True: the accumulator adds up tensors on their device

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.accumulator: Any = None
        self._adapted: bool | None = False
        self._committed = b""
        self._capture: Any = None  # is shown this layer and its input, when a model is run just to see it
        self._lenient = False  # True: a model is being built in order to adapt it, so no statistics are no error

    # -- what subclasses define ---------------------------------------------------------------------------------------

    def empty_accumulator(self) -> Any:
        """A new accumulator for the shape the layer was built with."""
        raise NotImplementedError

    def restore_accumulator(self, state: dict[str, np.ndarray]) -> Any:
        """The accumulator that was saved as ``state``."""
        raise NotImplementedError

    def statistics_of(self, accumulator: Any) -> dict[str, np.ndarray]:
        """The values of the weights, by attribute name, as the accumulator has them."""
        raise NotImplementedError

    def transform(self, x: Any) -> Any:
        """``x``, a float32 tensor, normalized."""
        raise NotImplementedError

    @property
    def has_given_statistics(self) -> bool:
        """True when the statistics were arguments of the layer: there is nothing to adapt."""
        return False

    # -- learning -----------------------------------------------------------------------------------------------------

    def adapt(
        self,
        data: Any,
        batch_size: int | None = None,
        steps: int | None = None,
        verbose: Any = "auto",
        key: str | None = None,
        *,
        sample: float | None = None,
        seed: int | None = None,
        checkpoint: Any = None,
    ) -> None:
        """Learns the statistics of ``data`` in one pass; they replace those the layer had.

        Args:
            data: arrays, tensors, lists of images, ``tf.data``, ``PyDataset``, torch ``DataLoader``, generators; of (x,
                y) and (x, y, weights) the x, of dictionaries the images (see ``statistics.sources``). Of a
                ``ray.data.Dataset`` (the extra ``ray``) the images are added up on the workers of the cluster, block by
                block; ``batch_size``, ``steps``, ``checkpoint`` are not for it, and Ray shows the progress.
            batch_size: images a batch, where the data does not come in batches. Default: some 16 MB.
            steps: batches to read; default all. Needed for data without end.
            verbose: 0 no progress bar, 1 a bar, "auto" a bar for what takes longer than two seconds.
            key: the entry of a dictionary that holds the images.
            sample: the share of the images to learn from, above 0 and at most 1; each is taken with this probability.
                Default: all.
            seed: an integer in [0, 2**31) that decides which images the sample takes. Default: a random one.
            checkpoint: the path of a file (str or ``os.PathLike``) that keeps what is learnt so far. It is written
                after the first batch, then every 5 seconds (less often where that would take more than a tenth of the
                time), and when an error or Ctrl-C stops the work; each time whole or not at all. The same call, in a
                new process too, goes on from there and ends with the same bits as one that was never stopped, if the
                data comes in the same order again. Batches before are skipped where the source can skip, else read and
                dropped. When all is learnt, the file is deleted. Default: none.

        Raises:
            TypeError: for data that is no source of images, or whose values are no real numbers.
            ValueError: for empty data, NaN and infinity (the message names the batch and the images), and for a layer
                with statistics of its own; for a ``checkpoint`` that is damaged, none of this package, or made by
                a call with other arguments, which is left as it is. The statistics from before stay as they were after
                any error.
        """
        self._refuse_given("adapt")
        rank = len(self._rank_shape) if self.built else None
        learn(
            [Pass([self], itself([self]))],
            data,
            batch_size=batch_size,
            steps=steps,
            rank=rank,
            key=key,
            sample=sample,
            seed=seed,
            verbose=verbose,
            checkpoint=checkpoint,
        )

    def update(self, batch: Any) -> None:
        """Adds one batch, an array or tensor of images, to what the layer has learnt.

        Raises:
            ValueError: as ``adapt``; and when the weights were set without their accumulator (``set_weights``, a file
                from elsewhere): means alone cannot be continued exactly.
        """
        self._refuse_given("update")
        for x in batches(batch, batch_size=sys.maxsize):
            self._build_for(x.shape)
            self._check_shape(x.shape)
            self._commit(self._continued("update").add(x))

    def merge(self, other: AdaptiveLayer) -> None:
        """Adds what another layer of the same kind has learnt, exactly as if this one had seen that data too.

        A layer that has learnt nothing takes over the statistics: ``FeaturewiseNormalization(invert=True)`` merged with
        an adapted one undoes it.
        """
        self._refuse_given("merge")
        if not isinstance(other, type(self)) or other.accumulator is None:
            raise ValueError(
                f"{self._title()}.merge takes an adapted {type(self).__name__}. Received: {other!r}"
                + (" (which has no accumulator: it never adapted)" if isinstance(other, AdaptiveLayer) else "")
            )
        other._continued("merge")
        if not self.built:
            self.build(other._rank_shape)
        self._commit(self._continued("merge").merge(other.accumulator))

    def reset(self) -> None:
        """Forgets everything; the layer has to adapt again before it is called.

        Calling it raises then. A function that was compiled while the layer had statistics (``predict`` of a model that
        ran before) cannot raise: its results are NaN until the layer has adapted again.
        """
        self._refuse_given("reset")
        self.accumulator = None
        self._adapted = False
        for variable in self.weights:
            variable.assign(np.full(variable.shape, 0.0 if variable is self.count else np.nan, "float32"))

    def _refuse_given(self, what: str) -> None:
        if self.has_given_statistics:
            raise ValueError(
                f"{self._title()}: its statistics were given as arguments, so there is nothing to {what}. Leave the "
                f"arguments out to learn them from data."
            )

    def _continued(self, what: str) -> Any:
        """A copy of the accumulator to add to, after a check that the weights still come from it."""
        if self.accumulator is not None:
            if self._fingerprint() == self._committed:
                return self.restore_accumulator(self.accumulator.state())
        elif self.built and float(to_host(self.count)) == 0:
            return self.empty_accumulator()
        raise ValueError(
            f"{self._title()}: its weights were set from outside (set_weights, or a file without the accumulator), so "
            f"{what} cannot continue them exactly. Adapt it on all the data, load a file saved by this package, or "
            f"reset()."
        )

    def _weight_values(self, accumulator: Any) -> dict[str, np.ndarray]:
        with np.errstate(over="ignore"):  # what overflows is refused before it becomes a weight
            return {name: np.asarray(value, "float32") for name, value in self.statistics_of(accumulator).items()}

    def _commit(self, accumulator: Any) -> None:
        """Takes over an accumulator: everything that can fail comes before the first assignment."""
        values = self._weight_values(accumulator)
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise ValueError(
                    f"{self._title()}: {name} does not fit into float32; divide the data by a constant first."
                )
        for name, value in values.items():
            getattr(self, name).assign(value.reshape(getattr(self, name).shape))
        self.accumulator = accumulator
        self._adapted = True
        self._committed = self._fingerprint()

    def _fingerprint(self) -> bytes:
        """A hash of the weights: tells whether they are still those that the accumulator gave."""
        return hashlib.blake2b(b"".join(to_host(variable).tobytes() for variable in self.weights)).digest()

    def snapshot(self) -> Any:
        """What ``restore`` needs to bring back the statistics of now."""
        try:
            weights = [to_host(v) for v in self.weights] if self.built else None
        except TypeError:  # Keras on JAX leaves variables without values where a compiled call raised
            weights = None
        return self.accumulator, self._adapted, self._committed, weights

    def restore(self, snapshot: Any) -> None:
        """Brings back the statistics of a snapshot."""
        accumulator, adapted, committed, weights = snapshot
        if weights is None:
            if self.built:
                self.reset()
            return
        self.accumulator, self._adapted, self._committed = accumulator, adapted, committed
        for variable, value in zip(self.weights, weights):
            variable.assign(value)

    # -- shapes -------------------------------------------------------------------------------------------------------

    @property
    def _rank_shape(self) -> tuple[int | None, ...]:
        """The shape the layer was built for, the batch size (and what may vary) open."""
        return self._built_for

    def _add_statistic(self, name: str, shape: tuple[int, ...], initial: Any = np.nan) -> Any:
        def initializer(shape: Any, dtype: Any = None) -> Any:
            return keras.ops.convert_to_tensor(np.broadcast_to(np.asarray(initial, "float32"), tuple(shape)))

        return self.add_weight(
            name=name, shape=shape, initializer=initializer, dtype="float32", autocast=False, trainable=False
        )

    def _build_for(self, shape: tuple[int, ...]) -> None:
        if not self.built:
            self.build((None, *shape[1:]))

    def _check_shape(self, shape: Any) -> None:
        """ValueError unless images of this shape, a batch or one image, fit what the layer was built for."""
        expected = self._rank_shape
        given = tuple(n if isinstance(n, int) else None for n in shape)
        whole = expected if len(given) == len(expected) else expected[1:]
        fits = len(given) == len(whole) and all(a == b or a is None or b is None for a, b in zip(given, whole))
        if not fits:
            raise ValueError(
                f"{self._title()} was built for images of shape {expected} (None: any size). Received: {tuple(given)}"
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return tuple(input_shape)

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The input's shape with the layer's compute dtype; models can be built before they adapt."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def get_build_config(self) -> dict[str, Any]:
        """The shape without the batch size."""
        return {"input_shape": list(self._rank_shape)}

    # -- calling ------------------------------------------------------------------------------------------------------

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self._capture is not None and backend.is_concrete(inputs):
            self._capture(self, inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: Any) -> Any:
        """Normalizes a batch of images, or one image; computes in float32 and returns the layer's compute dtype."""
        xp = backend.namespace(inputs)
        x = xp.asarray(inputs)
        if not self.built:  # only in tf.data under another backend, where Keras builds nothing
            self._build_for(tuple(x.shape))
        self.check_ready(xp.shape(x))
        return xp.cast(self.transform(xp.cast(x, "float32")), self.compute_dtype)

    @property
    def is_watched(self) -> bool:
        """True while ``adapt`` runs a model to see what this layer gets: it must be called, not computed elsewhere."""
        return self._capture is not None or self._lenient

    def check_ready(self, shape: Any) -> None:
        """Raises unless the layer has statistics, for images of this shape."""
        self._check_shape(shape)
        self._require_adapted()

    @property
    def variables(self) -> list[Any]:
        """All variables of the layer."""
        # Keras on JAX takes the values away from the variables while it trains, right after asking for them here: the
        # last chance to see whether the layer has adapted before its training step is traced.
        self._notice()
        return super().variables

    def _notice(self) -> None:
        if not self._adapted and self.built and not self.has_given_statistics:
            self._adapted = read_outside(self.count, self._adapted)

    def _require_adapted(self) -> None:
        if self._adapted or self._lenient or self.has_given_statistics:
            return
        self._notice()
        if self._adapted is False:
            raise RuntimeError(
                f"{self._title()} has no statistics yet. Call its adapt(data), or keras_norm_layers.adapt(model, "
                f"data), or load weights, before the layer is used."
            )

    def _title(self) -> str:
        return f"{type(self).__name__} {self.name!r}"

    # -- files --------------------------------------------------------------------------------------------------------

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights and, beside them, the accumulator."""
        super().save_own_variables(store)
        if self.accumulator is not None:
            for name, value in self.accumulator.state().items():
                store[SAVED + name] = value

    def load_own_variables(self, store: Any) -> None:
        """Loads the weights, and the accumulator where the file has one."""
        names = list(store.keys())
        plain = {name: store[name] for name in names if not name.startswith(SAVED)}
        super().load_own_variables(plain)
        state = {name[len(SAVED) :]: np.asarray(store[name]) for name in names if name.startswith(SAVED)}
        self.accumulator = self.restore_accumulator(state) if state else None
        self._adapted = bool(np.asarray(to_host(self.count)) > 0)
        self._committed = self._fingerprint()


def to_host(variable: Any) -> np.ndarray:
    """The value of a Keras variable as a NumPy array of its own: a later assignment does not change it."""
    return np.array(backend.to_numpy(keras.ops.convert_to_tensor(variable)))


def read_outside(count: Any, unknown: bool | None) -> bool | None:
    """Whether ``count`` is above 0 now, also while a graph is being traced; ``unknown`` where nobody can tell.

    Tracing and Keras's stateless scopes belong to a thread. Another thread sees the variable itself, or, while Keras on
    JAX holds its value back for training, an exception.
    """
    seen: list[bool | None] = []

    def look() -> None:
        try:
            seen.append(bool(to_host(count) > 0))
        except Exception:  # whatever a backend says of a value that is not there
            seen.append(unknown)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return seen[0]


def size_of(shape: tuple[Any, ...]) -> int:
    """Product of the sizes in ``shape``."""
    return math.prod(int(n) for n in shape)
