"""The TensorFlow side of ``export.py``: endpoints as graphs, the search for random operations, the final check.

Nothing here runs unless Keras runs on TensorFlow, so TensorFlow is imported inside the functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

# Every TensorFlow operation that draws random numbers, whatever its version suffix.
_RANDOM_OP = re.compile(
    r"Random|Multinomial|TruncatedNormal|Stateful(Uniform|StandardNormal)|NonDeterministic|DistortedBoundingBox"
    r"|Rng|CandidateSampler|Shuffle"
)
# A draw of ours or of Keras also moves the state of its seed; a served model has no business writing to any variable.
_WRITING_OP = re.compile(r"^Assign\w*VariableOp|^ResourceScatter|^ResourceApply|^ResourceStridedSliceAssign")
_RESAMPLING_OP = re.compile(r"^ImageProjectiveTransform")

_MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n"}
ANY_SIDE = 32  # where the model leaves height or width open: of generated samples, and of an empty batch of files


@dataclass(frozen=True)
class ImageInput:
    """The one image input of a model.

    Attributes:
        shape: without the batch; None where the model leaves a side open.
        dtype: what the model declares.
        key: the name of the input if the model takes a dict, else None.
        channels_first: whether ``shape`` is (channels, height, width).
    """

    shape: tuple[int | None, ...]
    dtype: str
    key: str | None
    channels_first: bool

    @property
    def integer(self) -> bool:
        """Whether the model takes integers."""
        return "int" in self.dtype

    @property
    def channels(self) -> int | None:
        """Number of channels, None if unknown or if the input is no batch of images."""
        return self.shape[0 if self.channels_first else -1] if len(self.shape) == 3 else None

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width."""
        height, width = self.shape[1:] if self.channels_first else self.shape[:2]
        return height, width

    def wrap(self, images: Any) -> Any:
        """``images`` as the model takes them."""
        return images if self.key is None else {self.key: images}

    def no_bytes_because(self) -> str | None:
        """Why there is no ``serve_bytes``, or None."""
        if len(self.shape) != 3:
            return f"the model's input {(None, *self.shape)} is no batch of images (height, width, channels)"
        if self.channels not in (1, 3, 4):
            return f"a JPEG or PNG file has 1, 3 or 4 channels, the model's input has {self.channels}"
        return None


class Mismatch(RuntimeError):
    """The SavedModel does not answer as ``model.predict``."""


def write_saved_model(model: keras.Model, image: ImageInput, job: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Write the SavedModel to ``directory`` and check it.

    Args:
        model: the model, on the TensorFlow backend.
        image: its input.
        job: ``samples``, an array (N, ...) in the model's input dtype; ``predicted``, the flat list of what
            ``model.predict`` gave for them; ``tolerance``.
        directory: where to write; must not exist.

    Returns:
        The facts to report: ``endpoints``, ``max_difference``, ``notes``.

    Raises:
        ValueError: the model draws random numbers or writes to its variables at inference, or its outputs are nested.
        Mismatch: what was written does not answer as ``predicted``.
    """
    import tensorflow as tf

    raw, signatures = _raw_endpoint(model, image)
    notes = _refuse_random(model, signatures)
    module = tf.Module()
    module.serve = raw
    # Only the variables that the graphs read: no optimizer, no seeds.
    module.weights = [variable for concrete in signatures.values() for variable in concrete.variables]
    reason = image.no_bytes_because()
    if reason is None:
        module.serve_bytes = _bytes_endpoint(model, image)
        signatures["serve_bytes"] = module.serve_bytes.get_concrete_function()
        if None in image.size:
            notes.append("the model leaves its height or width open: serve_bytes resizes nothing")
    else:
        notes.append(f"no serve_bytes: {reason}")
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        tf.saved_model.save(module, str(directory), {**signatures, "serving_default": signatures["serve"]})
    finally:
        logger.setLevel(level)
    largest = _check_saved(tf.saved_model.load(str(directory)), image, job)
    endpoints = [
        {"name": name, "takes": _spec_text(f.structured_input_signature), "gives": _spec_text(f.structured_outputs)}
        for name, f in signatures.items()
    ]
    return {"endpoints": endpoints, "max_difference": largest, "notes": notes}


def _raw_endpoint(model: keras.Model, image: ImageInput) -> tuple[Any, dict[str, Any]]:
    """The function on image batches, and its graphs by signature name: the model's own dtype, uint8, float32."""
    import tensorflow as tf

    @tf.function(autograph=False)
    def serve(images):
        return _answer(model, image, _cast(images, image))

    names = {image.dtype: "serve"}
    names.setdefault("uint8", "serve_uint8")
    names.setdefault("float32", "serve_float")
    signatures = {
        name: serve.get_concrete_function(tf.TensorSpec((None, *image.shape), dtype, name="images"))
        for dtype, name in names.items()
    }
    outputs = signatures["serve"].structured_outputs
    flat = list(outputs.values()) if isinstance(outputs, dict) else outputs
    flat = flat if isinstance(flat, (list, tuple)) else [flat]
    if not all(isinstance(output, (tf.Tensor, tf.TensorSpec)) for output in flat):
        raise ValueError(
            f"export_for_serving: the outputs of {model.name!r} are nested; a SavedModel endpoint gives a tensor, a "
            "list of tensors or a dict of tensors. Flatten them."
        )
    return serve, signatures


def _answer(model: keras.Model, image: ImageInput, images: Any) -> Any:
    """The model as in ``predict``. An empty batch goes through as one black image: some kernels fail on nothing."""
    import tensorflow as tf

    count = tf.shape(images)[0]
    one = tf.concat([[1], tf.shape(images)[1:]], 0)
    images = tf.cond(tf.equal(count, 0), lambda: tf.zeros(one, images.dtype), lambda: images)
    outputs = model(image.wrap(tf.ensure_shape(images, (None, *image.shape))), training=False)

    def first_rows(output: Any) -> Any:
        return output[:count] if output.shape.rank and output.shape[0] is None else output

    return tf.nest.map_structure(first_rows, outputs)


def _cast(images: Any, image: ImageInput) -> Any:
    """``images`` in the model's input dtype; floats are rounded and saturated for an integer input."""
    import tensorflow as tf

    if image.integer and images.dtype.is_floating:
        images = tf.round(images)
    return tf.saturate_cast(images, image.dtype)


def _bytes_endpoint(model: keras.Model, image: ImageInput) -> Any:
    """The function on JPEG and PNG files."""
    import tensorflow as tf

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def serve_bytes(image_bytes):
        images = _cast(_decode_batch(image_bytes, image), image)
        if image.channels_first:
            images = tf.transpose(images, (0, 3, 1, 2))
        return _answer(model, image, tf.ensure_shape(images, (None, *image.shape)))

    return serve_bytes


def _decode_batch(image_bytes: Any, image: ImageInput) -> Any:
    """(N,) files to (N, height, width, channels): uint8, or float32 if the model has a size to resize to.

    A decoding operation that fails does not say which item it was given. So the batch goes through a ``tf.data``
    pipeline inside the graph that drops the items which fail: the positions that are missing at its end are the answer.
    """
    import tensorflow as tf

    resize = None not in image.size
    height, width = (side if side and resize else ANY_SIDE for side in image.size)

    @tf.autograph.experimental.do_not_convert
    def decode(position, data):
        pixels = _decode(data, image.channels)
        if resize:
            pixels = _resize(pixels, height, width)
        return position, tf.shape(pixels), tf.reshape(pixels, [-1])

    count = tf.size(image_bytes, tf.int64)
    files = tf.data.Dataset.from_tensor_slices(image_bytes).enumerate()
    good = files.map(decode, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    # One empty element in front: the pipeline never ends up with nothing, whatever is dropped.
    shape = tf.constant([height, width, image.channels], tf.int32)
    front = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), shape, tf.zeros([0], good.element_spec[2].dtype)))
    positions, shapes, pixels = front.concatenate(good).padded_batch(count + 1).get_single_element()
    positions, pixels = positions[1:], pixels[1:]
    bad = tf.sets.difference([tf.range(count)], [positions]).values
    checks = [_assert_none(bad, "hold no JPEG or PNG image that can be decoded; send whole files")]
    other = tf.boolean_mask(positions, tf.reduce_any(shapes[1:] != shapes[1:2], axis=1))
    checks.append(_assert_none(other, "have another height and width than the first; the model leaves them open"))
    with tf.control_dependencies(checks):
        side = shapes[-1]  # of the element in front when the batch is empty
        return tf.reshape(pixels, tf.concat([[tf.cast(count, tf.int32)], side], 0))


def _decode(data: Any, channels: int | None) -> Any:
    """One file to (height, width, channels) uint8; fails on anything but a whole JPEG or PNG."""
    import tensorflow as tf

    starts = [tf.equal(tf.strings.substr(data, 0, len(magic)), magic) for magic in _MAGIC.values()]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_any(starts), ["no JPEG or PNG"])]):
        if channels == 4:
            return tf.io.decode_png(data, channels=4)
        # This operation reads both formats; the accurate transform gives the pixels that Pillow gives.
        return tf.io.decode_jpeg(data, channels=channels, dct_method="INTEGER_ACCURATE")


def _resize(pixels: Any, height: int, width: int) -> Any:
    """To the model's size as float32, with antialiasing; an image of that size keeps its very pixels."""
    import tensorflow as tf

    def smaller_or_larger():
        return tf.image.resize(pixels, (height, width), "bilinear", antialias=True)

    same = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], (height, width)))
    return tf.cond(same, lambda: tf.cast(pixels, tf.float32), smaller_or_larger)


def _assert_none(positions: Any, what: str) -> Any:
    """An operation that fails with the positions, if there are any."""
    import tensorflow as tf

    text = tf.strings.format("serve_bytes: items {} of the batch (counted from 0) " + what, positions, summarize=20)
    return tf.debugging.Assert(tf.equal(tf.size(positions), 0), [text])


def _refuse_random(model: keras.Model, signatures: dict[str, Any]) -> list[str]:
    """Raise if a graph draws random numbers or writes to a variable; returns notes on what is doubtful."""
    layers = {layer.name: f"{layer.name!r} ({type(layer).__name__})" for layer in all_layers(model)}
    drawing, writing, resampling = set(), set(), set()
    for node in _nodes(signatures["serve"]):
        where = f"{node.op} in {_layer_of(node.name, layers) or 'operation ' + repr(node.name)}"
        if _RANDOM_OP.search(node.op):
            drawing.add(where)
        elif _WRITING_OP.search(node.op):
            writing.add(where)
        elif _RESAMPLING_OP.search(node.op):
            resampling.add(where)
    if drawing or writing:
        what = "draws random numbers" if drawing else "writes to its variables"
        raise ValueError(
            f"export_for_serving: the model {model.name!r} {what} at inference, so it would answer differently each "
            f"time: {'; '.join(sorted(drawing or writing))}. Let random and adapting layers follow the model: in a "
            "subclassed model or layer give `call` an argument `training=None` and pass it on "
            "(`self.augment(x, training=training)`), never `training=True`."
        )
    return [f"a geometric transform runs at each request: {where}" for where in sorted(resampling)]


def _nodes(concrete: Any) -> Iterator[Any]:
    """Every node of a graph and of the functions that it calls."""
    graph = concrete.graph.as_graph_def()
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _layer_of(node_name: str, layers: dict[str, str]) -> str | None:
    """The innermost layer whose name is a part of a node's name, such as ``model_1/random_flip_1/uniform``."""
    for part in reversed(node_name.split("/")):
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return f"layer {layers[name]}"
    return None


def all_layers(layer: Any) -> Iterator[Any]:
    """A model and every layer in it, those of inner models too."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from all_layers(inner)


def _check_saved(loaded: Any, image: ImageInput, job: dict[str, Any]) -> float:
    """Compare what was written with ``model.predict``, with itself, and its endpoints with each other."""
    import tensorflow as tf

    def answer(endpoint, images):
        return [np.asarray(output) for output in tf.nest.flatten(endpoint(tf.constant(images)))]

    samples, predicted = job["samples"], job["predicted"]
    served = answer(loaded.serve, samples)
    pixels = np.clip(np.rint(samples), 0, 255).astype("uint8")
    as_uint8 = answer(loaded.serve, pixels)
    pairs = {
        "`serve` and model.predict": difference(predicted, served),
        "two answers of `serve`": difference(served, answer(loaded.serve, samples)),
        "`serve` on uint8 and on float32": difference(as_uint8, answer(loaded.serve, pixels.astype("float32"))),
    }
    if hasattr(loaded, "serve_bytes"):
        shown = np.moveaxis(pixels, 1, -1) if image.channels_first else pixels
        files = [tf.io.encode_png(one).numpy() for one in shown]
        pairs["`serve_bytes` and `serve`"] = difference(as_uint8, answer(loaded.serve_bytes, files))
    for pair, value in pairs.items():
        if not value <= job["tolerance"]:
            raise Mismatch(
                f"export_for_serving: {pair} differ by {value:.3g} (tolerance {job['tolerance']:g}, both relative to "
                f"the largest output where that is above 1) on {len(samples)} images; nothing was written. A layer "
                "that computes differently on TensorFlow does this; in float16 or bfloat16 raise `tolerance`."
            )
    return pairs["`serve` and model.predict"]


def _spec_text(spec: Any) -> str:
    """The tensors of a signature as text: ``uint8 (None, 8, 8, 1)``."""
    import tensorflow as tf

    named = spec.items() if isinstance(spec, dict) else [("", tensor) for tensor in tf.nest.flatten(spec)]
    return ", ".join(f"{name} {tensor.dtype.name} {tensor.shape}".strip() for name, tensor in named)


def difference(expected: list[np.ndarray], found: list[Any]) -> float:
    """Largest |found - expected| / max(1, largest |expected|) over all outputs; infinite if shapes or NaNs differ."""
    if len(expected) != len(found):
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, found):
        a, b = np.asarray(a).astype("float64"), np.asarray(b).astype("float64")
        if a.shape != b.shape or not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        if a.size:
            worst = max(worst, float(np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(a)))))
    return worst
