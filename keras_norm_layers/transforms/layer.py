"""The layer behind every random transform: when it acts, what it draws, and every shape in which data may come.

Transforms say what they draw and what it does (``base.py``), the plan says in how few passes (``plan.py``). All else is
here and once: the seed, training and inference, ranks, data formats, dtypes, masks, boxes, keypoints, compilation.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_norm_layers import validation
from keras_norm_layers.kernels import backend, pixels, points, threefry
from keras_norm_layers.layer import PreprocessingLayer
from keras_norm_layers.transforms import context
from keras_norm_layers.transforms.plan import Plan, sides

TARGETS = ("images", "segmentation_masks", "bounding_boxes", "keypoints", "labels")


class RandomLayer(PreprocessingLayer):
    """A layer that changes images at random, and the masks, boxes and keypoints that belong to them alike.

    Inside a model it follows the model: with ``training=None`` it is the identity, so ``predict``, ``model(x)`` and an
    export are deterministic. Called on its own, or in ``Dataset.map``, it augments, as Keras's layers do.

    Args:
        seed: an integer in [0, 2**31), or None for a random one. The same seed draws the same numbers on every backend.
        data_format: "channels_last" or "channels_first"; None takes Keras's setting.
        bounding_box_format: needed when there are boxes: "xyxy", "yxyx", "xywh", "center_xywh" or one of these with
            "rel_" before it.
        mask_fill_value: the class that a constant fill gives to masks, default 0.
        **kwargs: arguments of ``keras.layers.Layer``. ``dtype`` is the dtype of the images that come out: "float32" by
            default; with an integer dtype they are rounded and saturated.

    Masks are filled as their images are: with ``fill_mode="reflect"``, the default, mirrored pieces of a mask appear
    at the border too, outside the moved box; ``fill_mode="constant"`` brings in ``mask_fill_value`` alone.

    Call arguments:
        inputs: images (N, H, W, C) or one image (H, W, C), any dtype, any number of channels; or a dict with "images"
            and
            any of "segmentation_masks" (like the images, or without the channel axis), "bounding_boxes"
            ({"boxes": (N, K, 4), "labels": (N, K)}), "keypoints" (N, K, 2), x and y in pixels, and "labels".
        training: True, False or None, see above.
    """

    identity_at_inference = True

    def __init__(
        self,
        *,
        seed: int | None = None,
        data_format: str | None = None,
        bounding_box_format: str | None = None,
        mask_fill_value: float = 0,
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
            self._check_keys(input_shape)
            input_shape = input_shape["images"]
        self._build_for(tuple(input_shape))

    def _build_for(self, shape: tuple[Any, ...]) -> None:
        channels = shape[-3 if self.data_format == "channels_first" else -1] if len(shape) in (3, 4) else None
        if channels is None:
            raise ValueError(
                f"{type(self).__name__}: images must have the shape (N, H, W, C) or (H, W, C), or the channels first, "
                f"and a known number of channels. Received: shape={shape} with data_format={self.data_format!r}"
            )
        self._plan = Plan(self.steps(), int(channels))
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
        return input_shape

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        def image_spec(x: Any) -> keras.KerasTensor:
            return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

        if isinstance(inputs, dict):
            rest = keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, dtype=x.dtype), inputs)
            return {**rest, "images": image_spec(inputs["images"])}
        return image_spec(inputs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """See the class: images or a dict of images and targets, transformed if training."""
        data = self._checked(inputs)
        if not self.built:
            self._build_for(tuple(data["images"].shape))
        if training is None:
            training = context.augments_untold(self)
        if training:
            self._check_once(data["images"])
            data = self._run("fresh", data, self._next_seed(data["images"]))
        else:
            data = {**data, "images": pixels.saturate(data["images"], self.compute_dtype)}
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
        if not self.built:
            self._build_for(tuple(checked["images"].shape))
        like = checked["images"]
        u = backend.namespace(like).asarray(u, "float32")
        rows = like.shape[0] if len(like.shape) == 4 else 1
        if len(u.shape) != 2 or u.shape[1] != self.plan.slots or (rows is not None and u.shape[0] != rows):
            raise ValueError(
                f"{type(self).__name__}: `u` must have the shape ({rows}, {self.plan.slots}): a row an image, as "
                f"`draw` gives it. Received: u.shape={tuple(u.shape)}"
            )
        result = self._run("given", checked, u)
        return result if isinstance(data, dict) else result["images"]

    def check_values(self, batch: np.ndarray) -> None:
        """Warns if a batch of images does not suit the ``value_range`` of a transform; once a layer.

        Values outside the range would be clipped; values within [0, 1] under the range (0, 255) are hardly meant.
        """
        ranges = {step.value_range for step in self.steps() if hasattr(step, "value_range")}
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

    def _check_once(self, images: Any) -> None:
        if not self._values_checked and backend.is_concrete(images):
            self.check_values(backend.to_numpy(images))

    def _strength(self, like: Any) -> Any:
        return backend.namespace(like).asarray(1.0, "float32")

    def _next_seed(self, like: Any = None) -> Any:
        """(seed, step, replica) of the next draw, as words for ``threefry.uniform``; the step is counted on."""
        if like is not None and (backend.is_foreign(like) or backend.in_dataset_graph(like)):
            state = backend.host_call(self._next_state_on_host, "int64", (2,))
            xp = backend.namespace(state)
        else:
            state = self.seed_generator.next()
            xp = backend.namespace(state)
        return xp.stack([xp.words(state[0]), xp.words(state[1]), xp.words(xp.asarray(xp.replica_number()))], 0)

    def _next_state_on_host(self) -> np.ndarray:
        with backend.HOST_LOCK:  # tf.data may map in several threads, and two would read the same state
            state = keras.ops.convert_to_numpy(self.seed_generator.next())
        return state.astype(np.int64) & 0xFFFFFFFF

    def _run(self, name: str, data: dict[str, Any], numbers: Any) -> dict[str, Any]:
        """The compiled program ``name`` of the library that the images belong to."""
        images = data["images"]
        tensors = {target: value for target, value in data.items() if target != "labels"}
        # A program for each set of targets and ranks: TensorFlow would widen one for batches and single images to
        # tensors of unknown rank, and could not trace it.
        ranks = {target: len(value.shape) for target, value in tensors.items() if target != "bounding_boxes"}
        key = f"{name} {backend.framework(images)} {sorted(ranks.items())}"
        if key not in self._programs:
            function = self._transform_fresh if name == "fresh" else self._transform
            self._programs[key] = backend.namespace(images).compiled(function)
        result = self._programs[key](tensors, numbers, self._strength(images))
        return {target: result.get(target, data[target]) for target in data}

    def _transform_fresh(self, data: dict[str, Any], seed: Any, strength: Any) -> dict[str, Any]:
        xp = backend.namespace(data["images"])
        batch_size = xp.shape(data["images"])[0] if len(data["images"].shape) == 4 else 1
        return self._transform(data, threefry.uniform(seed, batch_size, self.plan.slots), strength)

    def _transform(self, data: dict[str, Any], u: Any, strength: Any) -> dict[str, Any]:
        """The targets in ``data`` transformed by the draw ``u``: what is compiled."""
        xp = backend.namespace(data["images"])
        single = len(data["images"].shape) == 3
        if single:
            data = keras.tree.map_structure(lambda x: x[None], data)
        images = self._channels_last(data["images"])
        height, width = sides(images)
        parameters = self.plan.parameters(u, strength)
        moved = {
            "images": self._channels_back(pixels.saturate(self.plan.images(images, parameters), self.compute_dtype))
        }
        if "segmentation_masks" in data:
            moved["segmentation_masks"] = self._move_masks(data["segmentation_masks"], parameters)
        numbers = self.plan.map_numbers()
        if "keypoints" in data or "bounding_boxes" in data:
            forward = self.plan.forward(parameters, height, width, numbers) if numbers else None
            moved.update(self._move_points(xp, data, forward, height, width))
        return keras.tree.map_structure(lambda x: x[0], moved) if single else moved

    def _move_masks(self, masks: Any, parameters: list[dict[str, Any]]) -> Any:
        if len(masks.shape) == 3:
            return self.plan.masks(masks[..., None], parameters, self.mask_fill_value)[..., 0]
        return self._channels_back(self.plan.masks(self._channels_last(masks), parameters, self.mask_fill_value))

    def _move_points(self, xp: Any, data: dict[str, Any], forward: Any, height: Any, width: Any) -> dict[str, Any]:
        moved: dict[str, Any] = {}
        if forward is None:
            return moved
        if "keypoints" in data:
            moved["keypoints"] = points.move_points(xp.cast(data["keypoints"], "float32"), forward, height, width)
        if "bounding_boxes" in data:
            boxes = data["bounding_boxes"]
            moved_boxes, labels = points.move_boxes(
                xp.cast(boxes["boxes"], "float32"),
                boxes["labels"],
                forward,
                height,
                width,
                str(self.bounding_box_format),
            )
            moved["bounding_boxes"] = {"boxes": moved_boxes, "labels": labels}
        return moved

    def _channels_last(self, images: Any) -> Any:
        if self.data_format == "channels_last":
            return images
        return backend.namespace(images).transpose(images, (0, 2, 3, 1))

    def _channels_back(self, images: Any) -> Any:
        if self.data_format == "channels_last":
            return images
        return backend.namespace(images).transpose(images, (0, 3, 1, 2))

    def _checked(self, inputs: Any) -> dict[str, Any]:
        """The inputs as a dict of tensors, or an error that says what is wrong with them."""
        owner = type(self).__name__
        data = dict(inputs) if isinstance(inputs, dict) else {"images": inputs}
        self._check_keys(data)
        boxes = data.get("bounding_boxes")
        if boxes is not None and self.bounding_box_format is None:
            raise ValueError(
                f"{owner}: to move bounding boxes, give `bounding_box_format`, one of {list(points.BOX_FORMATS)}."
            )
        if boxes is not None and (not isinstance(boxes, dict) or set(boxes) != {"boxes", "labels"}):
            raise ValueError(f"{owner}: 'bounding_boxes' must be a dict with 'boxes' and 'labels'. Received: {boxes!r}")
        xp = backend.namespace(data["images"])
        data = {key: keras.tree.map_structure(xp.asarray, value) for key, value in data.items()}
        if len(data["images"].shape) not in (3, 4):
            raise ValueError(
                f"{owner}: images must have the rank 3, (H, W, C), or 4, (N, H, W, C). Received: "
                f"shape={tuple(data['images'].shape)}"
            )
        self._check_targets(data)
        return data

    def _check_keys(self, data: dict[str, Any]) -> None:
        if "images" not in data or not set(data) <= set(TARGETS):
            raise ValueError(
                f"{type(self).__name__}: a dict of data holds 'images' and may hold {list(TARGETS[1:])}; anything else "
                f"would be left as it was, beside images that moved. Received the keys {list(data)}"
            )

    def _check_targets(self, data: dict[str, Any]) -> None:
        """Raises if a target does not fit the images: what is unknown while a graph is traced fits."""
        first = self.data_format == "channels_first"
        *batch, height, width, channels = move_channels_last(tuple(data["images"].shape), first)
        layout = self._plan
        if layout is not None and channels is not None and not layout.fits(channels):
            self._misfit("images", f"{layout.channels} channels, as at the first call", data["images"].shape)
        if "segmentation_masks" in data:
            masks = data["segmentation_masks"]
            shape = tuple(masks.shape)
            with_channels = len(shape) == len(batch) + 3
            shape = move_channels_last(shape, first)[:-1] if with_channels else shape
            if not fits(shape, (*batch, height, width)):
                self._misfit(
                    "segmentation_masks", "the height and width of the images, a channel axis or none", masks.shape
                )
            self._check_mask_fill(backend.namespace(masks).dtype_name(masks))
        if "keypoints" in data and not fits(data["keypoints"].shape, (*batch, None, 2)):
            self._misfit("keypoints", "(N, K, 2), or (K, 2) for one image", data["keypoints"].shape)
        if "bounding_boxes" in data:
            boxes, labels = (data["bounding_boxes"][key].shape for key in ("boxes", "labels"))
            if not fits(boxes, (*batch, None, 4)):
                self._misfit("boxes", "(N, K, 4), or (K, 4) for one image", boxes)
            if not fits(labels, tuple(boxes[:-1])):
                self._misfit("labels of the boxes", "(N, K), or (K,) for one image", labels)

    def _misfit(self, target: str, wanted: str, shape: Any) -> None:
        raise ValueError(f"{type(self).__name__}: the {target} must have {wanted}. Received: shape={tuple(shape)}")

    def _check_mask_fill(self, dtype: str) -> None:
        if "int" not in dtype:
            return
        info, value = np.iinfo(dtype), self.mask_fill_value
        if value != int(value) or not info.min <= value <= info.max:
            raise ValueError(
                f"{type(self).__name__}: `mask_fill_value` must be a whole number that masks of the dtype {dtype} can "
                f"hold. Received: mask_fill_value={value:g}"
            )


def move_channels_last(shape: tuple[Any, ...], channels_first: bool) -> tuple[Any, ...]:
    """A shape of images with its channels at the end."""
    return (*shape[:-3], *shape[-2:], shape[-3]) if channels_first else shape


def fits(shape: Any, wanted: tuple[Any, ...]) -> bool:
    """Whether a shape is the wanted one; sizes that are None fit any."""
    shape = tuple(shape)
    return len(shape) == len(wanted) and all(a is None or b is None or a == b for a, b in zip(shape, wanted))
