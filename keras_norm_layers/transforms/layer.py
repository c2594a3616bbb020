"""The layer behind every random transform: when it acts, what it draws, and every shape in which data may come.

Transforms say what they draw and what it does (``base.py``), the plan says in how few passes (``plan.py``), targets are
brought to one shape (``targets.py``). The rest is here and once: seed, training and inference, compilation, saving.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, pixels, points, resample, threefry
from keras_norm_layers.layer import PreprocessingLayer
from keras_norm_layers.transforms import context, targets
from keras_norm_layers.transforms.describe import describe
from keras_norm_layers.transforms.plan import Plan


class RandomLayer(PreprocessingLayer):
    """A layer that changes images at random, and the masks, boxes and keypoints that belong to them alike.

    Inside a model it follows the model: with ``training=None`` it is the identity, so ``predict``, ``model(x)`` and an
    export are deterministic. (What changes the size of images does it there too, without chance: ``RandomCrop`` takes
    the centre.) Called on its own, or in ``Dataset.map``, it augments, as Keras's layers do.

    Args:
        seed: an integer in [0, 2**31), or None for a random one. The same seed draws the same numbers on every backend.
        data_format: "channels_last" or "channels_first"; None takes Keras's setting.
        bounding_box_format: needed when there are boxes: "xyxy", "yxyx", "xywh", "center_xywh" or one of these with
            "rel_" before it.
        mask_fill_value: the class that a constant fill gives to masks, default 0.
        mask_interpolation: how masks are read: "nearest" (default), which keeps their classes, or "bilinear" or
            "bicubic" for masks that are no classes, such as depth or soft masks. Their dtype stays.
        additional_targets: more entries of the dict that move by the same draw: a dict from their names to "images"
            (a second camera, another time), "segmentation_masks" or "keypoints"; e.g. ``{"right": "images"}``.
        **kwargs: arguments of ``keras.layers.Layer``. ``dtype`` is the dtype of the images that come out: "float32" by
            default; with an integer dtype they are rounded and saturated.

    Masks are filled as their images are: with ``fill_mode="reflect"``, the default, mirrored pieces of a mask appear
    at the border too, outside the moved box; ``fill_mode="constant"`` brings in ``mask_fill_value`` alone.

    Call arguments:
        inputs: images (N, H, W, C), one image (H, W, C), or clips (N, T, H, W, C), each with one draw for its frames;
            any dtype, any number of channels; or a dict with "images" and any of "segmentation_masks" (like the images,
            or without the channel axis), "bounding_boxes" ({"boxes": (N, K, 4), "labels": (N, K)}), "keypoints"
            (N, K, 2), x and y in pixels, "labels", which only mixing changes, and the additional targets.
        training: True, False or None, see above.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        data_format: str | None = None,
        bounding_box_format: str | None = None,
        mask_fill_value: float = 0,
        mask_interpolation: str = "nearest",
        additional_targets: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        owner = type(self).__name__
        self.seed = validation.check_seed(owner, seed)
        formats = ("channels_last", "channels_first")
        data_format = data_format or keras.config.image_data_format()
        self.data_format = validation.check_choice(owner, "data_format", data_format, formats)
        if bounding_box_format is not None:
            validation.check_choice(owner, "bounding_box_format", bounding_box_format, points.BOX_FORMATS)
        self.bounding_box_format = bounding_box_format
        self.mask_fill_value = validation.check_number(owner, "mask_fill_value", mask_fill_value)
        self.mask_interpolation = validation.check_choice(
            owner, "mask_interpolation", mask_interpolation, resample.INTERPOLATIONS
        )
        self.additional_targets = None if additional_targets is None else dict(additional_targets)
        for name, kind in (additional_targets or {}).items():
            validation.check_choice(owner, f"additional_targets[{name!r}]", kind, targets.ADDITIONAL)
        self._programs: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._values_checked = False
        self.seed_generator: Any = None

    def steps(self) -> list[Any]:
        """The transforms that this layer runs, in order."""
        raise NotImplementedError

    # Building, saving ------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        if isinstance(input_shape, dict):
            targets.check_keys(input_shape, self._options())
            input_shape = input_shape["images"]
        self._build_for(tuple(input_shape))

    def _build_for(self, shape: tuple[Any, ...]) -> None:
        known = len(shape) in targets.RANKS
        channels = shape[-3 if self.data_format == "channels_first" else -1] if known else None
        if channels is None:
            raise ValueError(
                f"{type(self).__name__}: images must have the shape (N, H, W, C) or (H, W, C), or the channels first, "
                f"and a known number of channels. Received: shape={shape} with data_format={self.data_format!r}"
            )
        self._plan = Plan(self.steps(), int(channels))
        # What is left at inference: only what changes the size, at strength 0.
        self._inference_plan = Plan([t for t in self.steps() if getattr(t, "resizes", False)], int(channels))
        if self.seed_generator is None:
            with backend.outside_graphs():
                self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    @property
    def plan(self) -> Plan:
        """The plan by which this layer works; there once the number of channels is known."""
        if self._plan is None:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} has no input shape yet. Call it on images, or `build` it with "
                "their shape, before `draw`."
            )
        return self._plan

    def save_own_variables(self, store: Any) -> None:
        for variable in self.variables_by_name():
            store[variable[0]] = keras.ops.convert_to_numpy(variable[1])
        if self.seed_generator is not None:
            state = keras.ops.convert_to_numpy(self.seed_generator.state)
            store["seed_state"] = state.astype(np.int64) & 0xFFFFFFFF

    def load_own_variables(self, store: Any) -> None:
        for name, variable in self.variables_by_name():
            variable.assign(store[name])
        if self.seed_generator is not None and "seed_state" in list(store.keys()):
            state = self.seed_generator.state
            self.seed_generator.state.assign(np.asarray(store["seed_state"]).astype(str(state.dtype)))

    def variables_by_name(self) -> list[tuple[str, Any]]:
        """The layer's own weights by their names in a file."""
        return []

    # Calling ---------------------------------------------------------------------------------------------------------

    def compute_output_shape(self, input_shape: Any) -> Any:
        if isinstance(input_shape, dict):
            return {**input_shape, "images": self.compute_output_shape(input_shape["images"])}
        return self._resized(tuple(input_shape), len(input_shape))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        options = self._options()

        def spec(name: str, x: Any) -> Any:
            kind = options.kinds[name]
            if kind == "bounding_boxes":
                boxes, labels = x["boxes"], x["labels"]
                return {"boxes": keras.KerasTensor(boxes.shape, "float32"), "labels": labels}
            rank = len(given["images"].shape)
            mixed = kind == "labels" and self.plan.mixes
            dtype = {"images": self.compute_dtype, "keypoints": "float32"}.get(kind, "float32" if mixed else x.dtype)
            shape = self._resized(tuple(x.shape), rank) if kind in ("images", "segmentation_masks") else x.shape
            return keras.KerasTensor(shape, dtype=dtype)

        given = inputs if isinstance(inputs, dict) else {"images": inputs}
        if not self.built:
            self._build_for(tuple(given["images"].shape))
        specs = {name: spec(name, x) for name, x in given.items()}
        return specs if isinstance(inputs, dict) else specs["images"]

    def _resized(self, shape: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
        """The shape of images or masks of this shape that come out; ``rank`` is that of the images."""
        if self._plan is None:
            self._build_for(shape)
        first_side = len(shape) - (2 if len(shape) < rank or self.data_format == "channels_first" else 3)
        size = self.plan.output_size(shape[first_side : first_side + 2])
        return (*shape[:first_side], *size, *shape[first_side + 2 :])

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """See the class: images or a dict of images and targets, transformed if training."""
        data = self._checked(inputs)
        if training is None:
            training = context.augments_untold(self)
        if training:
            self._check_once(data["images"])
            data = self._run("fresh", data, self._next_seed(data["images"]))
        elif self.plan.resizes:
            data = self._run("inference", data, None)
        else:
            dtype, kinds = self._options().dtype, self._options().kinds
            data = {name: pixels.saturate(x, dtype) if kinds[name] == "images" else x for name, x in data.items()}
            data = self._finished(data)
        return data if isinstance(inputs, dict) else data["images"]

    def call_with_key(self, inputs: Any, key: Any) -> Any:
        """Augments as a call with ``training=True`` does, by a draw that ``key`` alone decides.

        Args:
            inputs: as for a call.
            key: three integers in [0, 2**32), or a tensor of them: for instance a seed, an epoch, and the number of
                the element. The layer's own seed is neither used nor changed.
        """
        data = self._checked(inputs)
        xp = backend.namespace(data["images"])
        if not hasattr(key, "dtype"):
            key = np.array(key, "uint32")  # a word above 2**31 is more than the int32 of JAX and torch holds
        data = self._run("fresh", data, xp.words(xp.asarray(key)))
        return data if isinstance(inputs, dict) else data["images"]

    def draw(self, batch_size: int) -> Any:
        """One draw: uniform numbers in [0, 1), float32 (batch_size, slots); the next call gives others."""
        slots = self.plan.slots  # raises before a step of the seed is used up
        return threefry.uniform(self._next_seed(), batch_size, slots)

    def apply(self, data: Any, u: Any) -> Any:
        """The transforms with the draw ``u`` (N, slots) of ``draw``: the same ``u`` gives the same result.

        ``data`` as for a call; one image takes one row of ``u``. Raises if ``u`` has not the layer's number of slots.
        """
        checked = self._checked(data)
        result = self._run("given", checked, self._checked_draw(checked["images"], u))
        return result if isinstance(data, dict) else result["images"]

    def inverse(self, data: Any, u: Any, size: tuple[int, int] | None = None) -> Any:
        """The geometric part of ``apply`` with the draw ``u``, undone: for test-time augmentation.

        Args:
            data: images, or a dict of images and masks, as they came out of ``apply``, or what a model made of them:
                maps of the same height and width with any number of channels. Colour is left as it is.
            u: the draw, as for ``apply``.
            size: height and width to go back to; None for those of ``data``.

        Returns:
            images in float32, read bilinearly, 0 where nothing is known (outside of what ``apply`` left in the
            picture); masks as ``mask_interpolation`` says, filled with ``mask_fill_value``. Raises for a transform that
            has no inverse, and for boxes and keypoints.
        """
        options = self._options()
        checked = targets.checked(data, options)
        lost = [name for name in checked if options.kinds[name] not in ("images", "segmentation_masks")]
        if lost:
            raise ValueError(f"{options.owner}: `inverse` moves images and masks back. Received also {lost}")
        u = self._checked_draw(checked["images"], u)
        strength = self._strength(checked["images"])
        shape = targets.move_channels_last(tuple(checked["images"].shape), options.channels_first)
        size = size or tuple(shape[-3:-1])
        result = targets.move_back(self.plan, checked, u, strength, size, options)
        return result if isinstance(data, dict) else result["images"]

    def summary(self, size: tuple[int | None, int | None] = (None, None), print_fn: Any = print) -> None:
        """Prints what is drawn, from which range, and in which pass over the pixels each transform runs.

        Args:
            size: height and width of the images, where it matters how large they are; None: not known.
            print_fn: takes the text; ``print`` by default.
        """
        print_fn("\n".join([f"{type(self).__name__} {self.name!r}: {describe(self.plan, size)}", *self._remarks()]))

    def _remarks(self) -> list[str]:
        """Lines at the end of the summary."""
        return []

    @property
    def identity_at_inference(self) -> bool:
        """Whether values come out as they are when it is not training: ``adapt`` then looks at the data itself."""
        resizes = any(getattr(step, "resizes", False) for step in self.steps())
        return not resizes and self.compute_dtype in ("float32", "float64")

    def check_values(self, batch: np.ndarray) -> None:
        """Warns if a batch of images does not suit the ``value_range`` of a transform; once a layer.

        Values outside the range would be clipped; values within [0, 1] under the range (0, 255) are hardly meant.
        """
        if self._plan is None:
            self._build_for(tuple(batch.shape))
        ranges = {step.value_range for step in self.plan.transforms if hasattr(step, "value_range")}
        if self._values_checked or not ranges or batch.size == 0:
            return
        self._values_checked = True
        least, greatest = float(batch.min()), float(batch.max())
        for low, high in ranges:
            outside = least < low or greatest > high
            tiny = low == 0 and high > 2 and batch.dtype.kind == "f" and 0 < greatest <= 1 and least >= 0
            if outside or tiny:
                warnings.warn(
                    f"{type(self).__name__} {self.name!r}: the images have values from {least:g} to {greatest:g}, but "
                    f"value_range=({low:g}, {high:g}). Give the range of your images, e.g. value_range=(0, 1); values "
                    "outside it are clipped.",
                    stacklevel=2,
                )

    # Inside ----------------------------------------------------------------------------------------------------------

    def _options(self) -> targets.Options:
        return targets.Options(
            owner=type(self).__name__,
            dtype=self.compute_dtype,
            channels_first=self.data_format == "channels_first",
            box_format=self.bounding_box_format,
            mask_fill_value=self.mask_fill_value,
            mask_interpolation=self.mask_interpolation,
            kinds={**targets.KINDS, **(self.additional_targets or {})},
        )

    def _checked(self, inputs: Any) -> dict[str, Any]:
        """The inputs as a dict of tensors; builds the layer at the first ones."""
        options = self._options()
        data = targets.checked(inputs, options)
        targets.check_shapes(data, self._plan, options)
        if not self.built:
            self._build_for(tuple(data["images"].shape))
            targets.check_shapes(data, self._plan, options)
        return data

    def _checked_draw(self, images: Any, u: Any) -> Any:
        u = backend.namespace(images).asarray(u, "float32")
        rows = images.shape[0] if len(images.shape) > 3 else 1
        if len(u.shape) != 2 or u.shape[1] != self.plan.slots or (rows is not None and u.shape[0] != rows):
            raise ValueError(
                f"{type(self).__name__}: `u` must have the shape ({rows}, {self.plan.slots}): a row an image, as "
                f"`draw` gives it. Received: u.shape={tuple(u.shape)}"
            )
        return u

    def _check_once(self, images: Any) -> None:
        if not self._values_checked and backend.is_concrete(images):
            self.check_values(backend.to_numpy(images))

    def _strength(self, like: Any) -> Any:
        return backend.namespace(like).asarray(1.0, "float32")

    def _values(self, images: Any) -> dict[str, Any]:
        """The values of weights that a pass over these images needs, as tensors."""
        return {"strength": self._strength(images)}

    def _finish(self, values: dict[str, Any]) -> targets.Finish | None:
        """What the pass does to images at its end, with values of ``_values``."""
        return None

    def _finished(self, data: dict[str, Any], done: bool = False) -> dict[str, Any]:
        """The data after what stands behind the pass; ``done``: the pass has done it."""
        return data

    def _next_seed(self, like: Any = None) -> Any:
        """(seed, step, replica) of the next draw, as words for ``threefry.uniform``; the step is counted on."""
        if like is not None and (backend.is_foreign(like) or backend.in_dataset_graph(like)):
            state = backend.host_call(self._next_state_on_host, "int64", (2,))
            xp = backend.namespace(state)
        else:
            state = self.seed_generator.next()
            xp = backend.namespace(state)
        return xp.stack([xp.words(state[0]), xp.words(state[1]), xp.words(xp.asarray(xp.replica_number(like)))], 0)

    def _next_state_on_host(self) -> np.ndarray:
        with backend.HOST_LOCK:  # tf.data may map in several threads, and two would read the same state
            state = keras.ops.convert_to_numpy(self.seed_generator.next())
        return state.astype(np.int64) & 0xFFFFFFFF

    def _run(self, name: str, data: dict[str, Any], numbers: Any) -> dict[str, Any]:
        """The program ``name`` of the library that the images belong to: compiled, but for inference, which must leave
        nothing behind in an export that a server could not run.
        """
        images = data["images"]
        tensors = {target: value for target, value in data.items() if target != "labels" or self.plan.mixes}
        if name == "inference":
            tensors.pop("labels", None)
            result = self._at_inference(tensors)
            return self._finished({target: result.get(target, data[target]) for target in data})
        xp = backend.namespace(images)
        shape = targets.move_channels_last(tuple(images.shape), self.data_format == "channels_first")
        gains = self.plan.gains_compiled(*shape[-3:-1])
        starts = xp.groups(images, gains) if self.plan.by_image and len(images.shape) > 3 else []
        if starts and name == "fresh":
            name, numbers = "given", threefry.uniform(numbers, xp.shape(images)[0], self.plan.slots)
        # A program for each set of targets and ranks: TensorFlow would widen one for batches and single images to
        # tensors of unknown rank, and could not trace it.
        ranks = {target: len(value.shape) for target, value in tensors.items() if target != "bounding_boxes"}
        values = self._values(images)
        key = f"{name} {backend.framework(images)} {sorted(ranks.items())} {gains} {sorted(values)}"
        if key not in self._programs:
            function = self._transform_fresh if name == "fresh" else self._transform
            self._programs[key] = xp.compiled(function, gains)
        run = self._programs[key]
        result = xp.in_groups(run, starts, tensors, numbers, values) if starts else run(tensors, numbers, values)
        done = self._finish(values) is not None
        return self._finished({target: result.get(target, data[target]) for target in data}, done)

    def _transform_fresh(self, data: dict[str, Any], seed: Any, values: dict[str, Any]) -> dict[str, Any]:
        xp = backend.namespace(data["images"])
        batch_size = xp.shape(data["images"])[0] if len(data["images"].shape) > 3 else 1
        # Written to memory: XLA would hash anew for every pixel that a gate or a gain is for.
        u = pixels.materialize(threefry.uniform(seed, batch_size, self.plan.slots))
        return self._transform(data, u, values)

    def _transform(self, data: dict[str, Any], u: Any, values: dict[str, Any]) -> dict[str, Any]:
        return targets.transform(self.plan, data, u, values["strength"], self._options(), self._finish(values))

    def _at_inference(self, data: dict[str, Any]) -> dict[str, Any]:
        """What the size-changing transforms do at strength 0, where no draw matters."""
        images = data["images"]
        xp = backend.namespace(images)
        rows = xp.arange(xp.shape(images)[0] if len(images.shape) > 3 else 1, "float32", like=images) * 0.0
        u = xp.stack([rows] * self._inference_plan.slots, 1) if self._inference_plan.slots else rows[:, None]
        return targets.transform(self._inference_plan, data, u, xp.asarray(0.0, "float32"), self._options())
