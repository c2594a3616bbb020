"""A trained model as a TensorFlow SavedModel that takes raw images or JPEG/PNG bytes and needs nothing of ours to load.

The graph is built from ``model(images, training=False)``, so random layers are off as in ``predict``; it is searched
for random operations, written beside its destination, loaded, compared with ``model.predict``, and only then renamed.
A SavedModel is TensorFlow's format: when Keras runs on JAX or torch, a second process with TensorFlow writes it.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_norm_layers.serving import ANY_SIDE, ImageInput, Mismatch, all_layers, difference, write_saved_model


@dataclass(frozen=True)
class Endpoint:
    """One signature of the SavedModel: its name, what it takes and what it gives, as readable text."""

    name: str
    takes: str
    gives: str


@dataclass(frozen=True)
class ExportReport:
    """What ``export_for_serving`` wrote and how it was checked; ``str(report)`` is a text for people.

    Attributes:
        path: directory of the SavedModel.
        endpoints: the signatures, ``serving_default`` (the same as ``serve``) not listed.
        size_bytes: size of the directory on disk.
        samples: how many images the check used.
        max_difference: largest |served - predicted| / max(1, largest |predicted|), the SavedModel loaded again.
        notes: what a reader should know: an endpoint that was left out, a doubtful range of values.
    """

    path: str
    endpoints: tuple[Endpoint, ...]
    size_bytes: int
    samples: int
    max_difference: float
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        width = max(len(endpoint.name) for endpoint in self.endpoints)
        lines = [f"SavedModel {self.path} ({self.size_bytes / 1e6:.2f} MB); serving_default is serve"]
        lines += [f"  {e.name:<{width}}  {e.takes} -> {e.gives}" for e in self.endpoints]
        lines.append(
            f"  checked on {self.samples} images: answers as model.predict (largest difference "
            f"{self.max_difference:.2g}), twice the same, no random operation"
        )
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def export_for_serving(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    samples: Any = None,
    overwrite: bool = False,
    data_format: str | None = None,
    tolerance: float = 1e-3,
    verbose: bool = True,
) -> ExportReport:
    """Write ``model`` as a TensorFlow SavedModel for serving, check it and say what was written.

    Endpoints (signatures; N is any batch size, 0 included):

    - ``serve``, also ``serving_default``: ``images``, a batch in the model's own input shape and dtype.
    - ``serve_uint8`` (beside a float ``serve``) or ``serve_float`` (beside an integer one; float32, rounded and
      saturated): the same for the other dtype. Numbers are never rescaled: 200 in uint8 is 200.0 in float32. From
      Python, ``loaded = tf.saved_model.load(path)`` gives ``loaded.serve(images)`` for uint8 and float32 alike.
    - ``serve_bytes``: ``image_bytes``, (N,) strings, whole JPEG or PNG files, for models with 1, 3 or 4 channels
      (4: PNG only). Decoded to 8 bits in the model's number of channels, resized bilinearly with antialiasing to the
      model's height and width (an image of that size keeps its exact pixels; where the model leaves height or width
      open nothing is resized, and the images of a batch must have one size), then cast: rounded for an integer input,
      values 0..255 for a float input. EXIF orientation is not applied. Items that cannot be decoded give an error with
      their positions.

    Args:
        model: a built Keras model with one input, a batch of images; outputs may be a tensor, a list or a dict.
        path: directory to write; TensorFlow Serving wants it to end in a version number, as in ``"export/1"``.
        samples: a few images (N, ...) in the model's input shape to check with; random pixels 0..255 if None. Needed
            when a subclassed model does not know its input shape.
        overwrite: replace an older SavedModel at ``path``. Anything else that stands there is never touched.
        data_format: ``"channels_first"`` or ``"channels_last"`` of the input, for ``serve_bytes``; None: the one that
            makes 1, 3 or 4 channels, and if both or none do that of ``keras.config.image_data_format()``.
        tolerance: largest |served - predicted| / max(1, largest |predicted|) that passes.
        verbose: print the report.

    Returns:
        An ``ExportReport``.

    Raises:
        TypeError: ``model`` is no Keras model.
        ValueError: the model is not built, has several inputs, draws random numbers or writes to its variables at
            inference; the samples do not fit; ``path`` holds something that must not be replaced.
        RuntimeError: the SavedModel does not answer as ``model.predict``; nothing is left at ``path``.
        ImportError: Keras runs on JAX or torch and TensorFlow is not installed.

    Example (skipped: takes seconds and writes files):
        >>> export_for_serving(model, "export/1")  # doctest: +SKIP
    """
    image = _image_input(model, samples, data_format)
    target = _free_path(path, overwrite)
    images = _check_images(image, samples)
    predicted = _predict(model, image, images)
    target.parent.mkdir(parents=True, exist_ok=True)
    write = write_saved_model if keras.backend.backend() == "tensorflow" else _write_in_tensorflow_process
    # The scratch directory is beside the target, so that the last step is a rename and readers never see half a model.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        job = {"samples": images, "predicted": predicted, "tolerance": tolerance}
        try:
            facts = write(model, image, job, Path(scratch) / "model")
        except Mismatch as error:
            if difference(predicted, _predict(model, image, images)) > tolerance:
                raise ValueError(_random_predict_message(model)) from None
            raise RuntimeError(str(error)) from None
        _move(Path(scratch) / "model", target, Path(scratch))
    report = ExportReport(
        path=str(target),
        endpoints=tuple(Endpoint(**endpoint) for endpoint in facts["endpoints"]),
        size_bytes=sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        samples=len(images),
        max_difference=facts["max_difference"],
        notes=(*facts["notes"], *_range_notes(image, samples)),
    )
    if verbose:
        print(report)
    return report


def _image_input(model: Any, samples: Any, data_format: str | None) -> ImageInput:
    """The image input of ``model``; raises when there is none that can be served."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"export_for_serving: `model` must be a keras.Model. Received: {type(model).__name__}. "
            "Wrap a single layer in keras.Sequential([keras.Input(...), layer])."
        )
    if not model.built:
        raise ValueError(
            f"export_for_serving: the model {model.name!r} is not built: it has no weights yet. Give it a keras.Input, "
            "or call it once on a batch of images, then adapt, train and export it."
        )
    if data_format not in (None, "channels_first", "channels_last"):
        raise ValueError(
            'export_for_serving: `data_format` must be "channels_first", "channels_last" or None. '
            f"Received: data_format={data_format!r}"
        )
    tensors = getattr(model, "inputs", None)
    if not tensors:
        if samples is None:
            raise ValueError(
                f"export_for_serving: the model {model.name!r} does not know its input shape (a subclassed model). "
                "Pass `samples`, a few images as it takes them."
            )
        array = np.asarray(samples)
        dtype = "float32" if array.dtype.kind == "f" else str(array.dtype)
        return ImageInput(array.shape[1:], dtype, None, _channels_first(array.shape[1:], data_format))
    if len(tensors) != 1:
        raise ValueError(
            f"export_for_serving: the model {model.name!r} has {len(tensors)} inputs, "
            f"{[tensor.name for tensor in tensors]}; an endpoint serves one batch of images. Export a model of the "
            "image input alone, or write endpoints of your own with keras.export.ExportArchive."
        )
    shape, dtype = tuple(tensors[0].shape[1:]), keras.backend.standardize_dtype(tensors[0].dtype)
    if "int" not in dtype and "float" not in dtype:
        raise ValueError(f"export_for_serving: images are integers or floats; the model's input is {dtype}.")
    structure = getattr(model, "input", None)
    key = next(iter(structure)) if isinstance(structure, dict) else None
    return ImageInput(shape, dtype, key, _channels_first(shape, data_format))


def _channels_first(shape: tuple[int | None, ...], data_format: str | None) -> bool:
    """Whether an image of this shape has its channels first; see ``data_format`` in ``export_for_serving``."""
    if len(shape) != 3:
        return False
    first, last = shape[0] in (1, 3, 4), shape[-1] in (1, 3, 4)
    guess = keras.config.image_data_format() if first == last else ("channels_first" if first else "channels_last")
    return (data_format or guess) == "channels_first"


def _free_path(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """``path`` if it may be written: absent, an empty directory, or an older SavedModel with ``overwrite=True``."""
    target = Path(path).absolute()
    if target.is_dir():
        old_export = (target / "saved_model.pb").exists()
        if not any(target.iterdir()) or (overwrite and old_export):
            return target
        hint = "pass overwrite=True to replace it, or choose" if old_export else "it is no SavedModel, so choose"
        raise ValueError(
            f"export_for_serving: `path` {str(target)!r} is a directory with files in it; {hint} another path."
        )
    if target.exists():
        raise ValueError(f"export_for_serving: `path` {str(target)!r} is a file; give the name of a directory to make.")
    return target


def _check_images(image: ImageInput, samples: Any) -> np.ndarray:
    """The images of the check, in the model's input dtype: the user's, or random pixels, always the same ones."""
    if samples is None:
        shape = tuple(side or ANY_SIDE for side in image.shape)
        return np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(image.dtype)
    if isinstance(samples, (str, bytes, dict)) or np.asarray(samples).dtype.kind not in "uif":
        raise ValueError(
            f"export_for_serving: `samples` must be an array of images (N, ...). Received: {type(samples)}"
        )
    array = np.asarray(samples)
    fits = array.ndim == len(image.shape) + 1 and all(a == b for a, b in zip(array.shape[1:], image.shape) if b)
    if not fits or not len(array):
        raise ValueError(
            f"export_for_serving: `samples` must be a batch of at least one image in the model's input shape "
            f"{(None, *image.shape)}. Received: shape {array.shape}"
        )
    if image.integer and array.dtype.kind == "f":
        bounds = np.iinfo(image.dtype)
        array = np.clip(np.rint(array), bounds.min, bounds.max)
    return array.astype(image.dtype)


def _predict(model: keras.Model, image: ImageInput, images: np.ndarray) -> list[np.ndarray]:
    """What ``model.predict`` gives, flattened to a list of arrays."""
    flat = [np.asarray(output) for output in keras.tree.flatten(model.predict(image.wrap(images), verbose=0))]
    return [output.astype("float32") if output.dtype.kind == "V" else output for output in flat]  # bfloat16


def _range_notes(image: ImageInput, samples: Any) -> list[str]:
    """A note when the user's samples lie in [0, 1] but the endpoints for pixels hand over 0..255."""
    if samples is None or image.integer or not 0 < np.max(samples) <= 1 or np.min(samples) < 0:
        return []
    note = (
        "the samples lie in [0, 1], but serve_uint8 and serve_bytes give the model pixel values 0..255: put the "
        "scaling (keras.layers.Rescaling(1 / 255) or FeaturewiseNormalization) into the model, or use `serve` alone"
    )
    return [note]


def _random_predict_message(model: keras.Model) -> str:
    return (
        f"export_for_serving: model.predict of {model.name!r} gives two different answers for the same images, so "
        "there is nothing to serve. A random layer augments at inference: give the `call` of a subclassed model or "
        "layer an argument `training=None` and pass it on, as in `self.augment(x, training=training)`."
    )


def _move(source: Path, target: Path, scratch: Path) -> None:
    """``source`` to ``target`` by renaming; an older SavedModel goes to ``scratch``, which is removed afterwards."""
    if target.exists():
        os.replace(target, scratch / "old")
    os.replace(source, target)


def _write_in_tensorflow_process(
    model: keras.Model, image: ImageInput, job: dict[str, Any], directory: Path
) -> dict[str, Any]:
    """``write_saved_model`` in a process whose Keras runs on TensorFlow; the model travels there as a .keras file."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "export_for_serving: a SavedModel is TensorFlow's format, and TensorFlow is not installed beside "
            f"{keras.backend.backend()}. Install it with: pip install keras-norm-layers[tensorflow]"
        )
    desk = directory.parent / "job"
    desk.mkdir()
    model.save(desk / "model.keras")
    np.save(desk / "samples.npy", job["samples"])
    np.savez(desk / "predicted.npz", *job["predicted"])
    modules = {type(layer).__module__ for layer in all_layers(model)}
    settings = {
        "image": asdict(image),
        "tolerance": job["tolerance"],
        "directory": str(directory),
        "image_data_format": keras.config.image_data_format(),
        "floatx": keras.config.floatx(),
        "modules": sorted(m for m in modules if m.split(".")[0] not in ("keras", "keras_norm_layers", "__main__")),
    }
    (desk / "settings.json").write_text(json.dumps(settings))
    done = _run_tensorflow_process(desk)
    result = desk / "result.json"
    if not result.exists():
        raise RuntimeError(
            "export_for_serving: the process that loads the model under TensorFlow to write the SavedModel failed "
            f"(exit status {done.returncode}). Classes and functions of your own must stand in a module that can be "
            "imported (not in a notebook, a script or a function), be registered with "
            "@keras.saving.register_keras_serializable(), and use keras.ops, so that they also run on TensorFlow. "
            f"Its last lines:\n{_last_lines(done.stderr)}"
        )
    facts = json.loads(result.read_text())
    if "error" in facts:
        raise {"ValueError": ValueError, "Mismatch": Mismatch}[facts["error"]](facts["message"])
    return facts


def _run_tensorflow_process(desk: Path) -> subprocess.CompletedProcess[str]:
    """Run ``_serve_job`` on ``desk``, with the import path of this process."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    environment["KERAS_BACKEND"] = "tensorflow"
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    environment["CUDA_VISIBLE_DEVICES"] = "-1"  # this process may hold the GPU's memory; a graph runs on both
    code = "from keras_norm_layers.export import _serve_job; _serve_job()"
    command = [sys.executable, "-c", code, str(desk)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _last_lines(text: str, count: int = 12) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines()[-count:])


def _serve_job() -> None:
    """The other side of ``_write_in_tensorflow_process``; ``sys.argv[1]`` is the directory with the job."""
    desk = Path(sys.argv[1])
    settings = json.loads((desk / "settings.json").read_text())
    keras.config.set_image_data_format(settings["image_data_format"])
    keras.config.set_floatx(settings["floatx"])
    for name in settings["modules"]:
        importlib.import_module(name)
    # The file is the caller's own model, written a moment ago: nothing in it is less trusted than the caller.
    model = keras.saving.load_model(desk / "model.keras", compile=False, safe_mode=False)
    with np.load(desk / "predicted.npz") as arrays:
        predicted = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    job = {"samples": np.load(desk / "samples.npy"), "predicted": predicted, "tolerance": settings["tolerance"]}
    image = ImageInput(**{**settings["image"], "shape": tuple(settings["image"]["shape"])})
    try:
        facts = write_saved_model(model, image, job, Path(settings["directory"]))
    except (ValueError, Mismatch) as error:
        # Ours are for the caller to read as they are; anything else ends this process with its traceback.
        if not str(error).startswith("export_for_serving"):
            raise
        facts = {"error": type(error).__name__, "message": str(error)}
    (desk / "result.json").write_text(json.dumps(facts))
