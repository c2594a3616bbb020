"""``fuse``: the random image layers of ``keras.layers`` in a model, replaced by ``Augment``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras

from keras_norm_layers import transforms
from keras_norm_layers.layer import signature_names

# The random image layers of keras.layers. Those that have no namesake here stay, and the report says so.
KERAS_LAYERS = (
    "AugMix",
    "AutoContrast",
    "CutMix",
    "Equalization",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "Solarization",
)
OF_EVERY_LAYER = ("name", "trainable", "dtype", "data_format", "seed")


def fuse(model: Any, *, verbose: bool = True) -> Any:
    """Replaces the random image layers of ``keras.layers`` in a model by ``Augment``, which does the same in one pass.

    Layers that follow each other become one ``Augment``: of the same transforms, with the same arguments, in the same
    order. Its seed is the first one that they were given. A ``keras.Sequential`` of such layers alone, as tutorials
    call ``data_augmentation``, joins its neighbours; in other inner models the same is done. All other layers are
    the very same objects in both models, with their weights, so training one trains the other.

    Args:
        model: a ``keras.Sequential``, a Functional model, or a list of layers. In a Functional model that branches,
            the layers within inner models are replaced, and those that stand alone stay.
        verbose: True (default) prints what became of each random layer, and why one stays as it is: it has no namesake
            here, it is a subclass, or its arguments are refused here.

    Returns:
        a new model of the same name, or a new list. It is not compiled.

    What changes (``docs/differences.md`` has all of it):

    - Calling the model with ``training=None``, and an export of it, augment with Keras's layers, and do not with ours:
      both augment in ``fit``, and in ``predict`` and ``evaluate`` neither.
    - A chain is resampled once: it comes out sharper, what one layer moves out of the picture a later one may bring
      back, and colours are clipped after the moves.
    - Every image of a batch has its own draw, also where Keras draws once a batch; the numbers are others.
      ``RandomFlip("horizontal_and_vertical")`` tosses a coin for each direction.

    A ``RandomContrast(f)`` goes on in [1, 1 + f], as Keras's does.

    Raises:
        TypeError: for a subclassed model, in which layers cannot be found or replaced: fuse its parts.

    Example:

    >>> import keras, keras_norm_layers as knl
    >>> flip, turn = keras.layers.RandomFlip("horizontal", name="flip"), keras.layers.RandomRotation(0.1, name="turn")
    >>> inner = keras.Sequential([flip, turn], name="data_augmentation")
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), inner, keras.layers.Flatten()])
    >>> fused = knl.fuse(model)
    flip (RandomFlip), turn (RandomRotation) -> data_augmentation (Augment)
    >>> [type(layer).__name__ for layer in fused.layers]
    ['Augment', 'Flatten']
    """
    report: list[str] = []
    if isinstance(model, (list, tuple)):
        fused: Any = _fused_list(model, report)
    elif isinstance(model, keras.Model):
        fused = _fused_model(model, report)
    else:
        fused = None
    if fused is None:
        raise TypeError(
            "fuse: `model` must be a keras.Sequential, a Functional model or a list of layers; of a subclassed model "
            f"fuse the parts before you put them together. Received: {model!r}"
        )
    if verbose:
        print("\n".join(report or ["fuse: there is no random layer of keras.layers in the model"]))
    return fused


class _Part(NamedTuple):
    """A layer of a list, and what becomes of it."""

    layer: Any  # what stays in the list, if nothing is replaced
    replaced: list[Any]  # the random layers in it: itself, or those of a Sequential
    transforms: list[Any]  # ours for them


def _options(layer: Any) -> tuple[str, str]:
    """What random layers must have in common to run as one: data format and dtype."""
    return layer.data_format, layer.compute_dtype


def _fused_list(layers: Sequence[Any], report: list[str]) -> list[Any]:
    result = []
    parts = [_part(layer, report) for layer in layers]
    for options, group in itertools.groupby(parts, lambda part: _options(part.replaced[0]) if part.replaced else None):
        if options is None:
            result += [part.layer for part in group]
        else:
            result.append(_augment(list(group), *options, report))
    return result


def _augment(parts: list[_Part], data_format: str, dtype: str, report: list[str]) -> Any:
    replaced = [layer for part in parts for layer in part.replaced]
    seeds = [layer.seed for layer in replaced if getattr(layer, "seed", None) is not None]
    inner = parts[0].layer if len(parts) == 1 and isinstance(parts[0].layer, keras.Sequential) else None
    augment = transforms.Augment(
        [transform for part in parts for transform in part.transforms],
        seed=int(seeds[0]) % 2**31 if seeds else None,
        data_format=data_format,
        dtype=dtype,
        **({"name": inner.name} if inner is not None else {}),
    )
    names = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in replaced)
    report.append(f"{names} -> {augment.name} (Augment)")
    return augment


def _part(layer: Any, report: list[str]) -> _Part:
    """What becomes of a layer; reports it if a random layer of Keras stays."""
    if type(layer) is keras.Sequential and layer.layers:
        inside = [_converted(member) for member in layer.layers]
        if not any(isinstance(new, str) for new in inside) and len({_options(member) for member in layer.layers}) == 1:
            return _Part(layer, list(layer.layers), inside)
    if isinstance(layer, keras.Model):
        fused = _fused_model(layer, report)
        kept = fused is None or all(
            member in layer.layers for member in fused.layers if not isinstance(member, keras.layers.InputLayer)
        )
        return _Part(layer if kept else fused, [], [])
    converted = _converted(layer)
    if not isinstance(converted, str):
        return _Part(layer, [layer], [converted])
    if converted:
        report.append(f"{layer.name} ({type(layer).__name__}) stays: {converted}")
    return _Part(layer, [], [])


def _converted(layer: Any) -> Any:
    """Our transform for a layer, or a text: why there is none, empty if it is no random image layer of Keras at all."""
    parents = [cls.__name__ for cls in type(layer).__mro__ if cls is getattr(keras.layers, cls.__name__, None)]
    name = next((parent for parent in parents if parent in KERAS_LAYERS), "")
    if not name:
        return ""
    if type(layer).__name__ != name:
        return f"it is a subclass of keras.layers.{name}, and what it does otherwise is not known"
    ours = getattr(transforms, name, None)
    if ours is None:
        return f"keras_norm_layers has no {name}"
    arguments = {key: _argument(key, v) for key, v in layer.get_config().items() if key not in OF_EVERY_LAYER}
    unknown = sorted(set(arguments) - set(signature_names(ours)))
    if unknown:
        return f"the {name} of keras_norm_layers has no argument {', '.join(unknown)}"
    try:
        return ours(**arguments)
    except (TypeError, ValueError) as error:
        return str(error)


def _argument(name: str, value: Any) -> Any:
    """An argument from the configuration, where Keras has made the pair (-f, f) of a factor f."""
    if not isinstance(value, (list, tuple)):
        return value
    if name.endswith("factor") and len(value) == 2 and value[0] == -value[1]:
        return value[1]
    return tuple(value)


# Models ---------------------------------------------------------------------------------------------------------------


def _fused_model(model: Any, report: list[str]) -> Any:
    """A new model, or None for one that was made in neither of the ways that can be read."""
    if type(model) is keras.Sequential:
        return keras.Sequential([*_input(model), *_fused_list(model.layers, report)], name=model.name)
    if type(model).__name__ != "Functional":
        return None
    calls = _calls_of_chain(model)
    if calls is None:
        return keras.models.clone_model(model, clone_function=_replacement(report))
    (x,) = (inputs,) = _input(model)
    for layer in _fused_list(model.layers[1:], report):
        new = isinstance(layer, transforms.Augment) and layer not in model.layers
        x = layer(x) if new else layer(x, **calls[layer.name])
    return keras.Model(inputs, x, name=model.name)


def _replacement(report: list[str]) -> Callable[[Any], Any]:
    """What stands in for each layer of a model that branches: an inner model fused, another layer itself."""

    def replacement(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            (fused,) = _fused_list([layer], report)
            # What was a model stays one, for it is called as one: with a mask.
            return fused if isinstance(fused, keras.Model) else keras.Sequential([fused], name=layer.name)
        reason = _converted(layer)
        if reason:
            why = reason if isinstance(reason, str) else "the model branches; put its random layers into a Sequential"
            report.append(f"{layer.name} ({type(layer).__name__}) stays: {why}")
        return layer

    return replacement


def _input(model: Any) -> list[Any]:
    """The input of a model with one, made anew; nothing for a Sequential that does not know its input yet."""
    try:
        (given,) = model.inputs
    except (AttributeError, ValueError):
        return []
    name = None if given.name.startswith("keras_tensor") else given.name  # the names that Keras makes up are not kept
    return [keras.Input(batch_shape=given.shape, dtype=given.dtype, name=name)]


def _calls_of_chain(model: Any) -> dict[str, dict[str, Any]] | None:
    """If each layer of a Functional model takes the output of the one before it, and nothing else: the other arguments
    with which each is called, by its name.
    """
    config = model.get_config()
    layers, ends = config["layers"], (config["input_layers"], config["output_layers"])
    if ends != ([layers[0]["name"], 0, 0], [layers[-1]["name"], 0, 0]):
        return None
    calls = {}
    for before, layer in itertools.pairwise(layers):
        nodes = layer["inbound_nodes"]
        arguments: Any = nodes[0]["args"] if len(nodes) == 1 else ()
        single = len(arguments) == 1 and isinstance(arguments[0], dict)
        if not single or arguments[0].get("config", {}).get("keras_history") != [before["name"], 0, 0]:
            return None
        given = {name: value for name, value in nodes[0]["kwargs"].items() if value is not None}
        if not all(isinstance(value, bool) for value in given.values()):
            return None
        calls[layer["name"]] = given
    return calls
