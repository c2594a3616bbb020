"""Which layers a model has, in which order data passes them, and which of them can learn at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras


def layers_of(model: Any) -> list[Any]:
    """All layers in the order in which data passes them, those of inner models in place of the models."""
    if not (is_container(model) or isinstance(model, keras.layers.Layer)):
        raise TypeError(f"adapt takes a Keras model, a layer or a list of layers. Received: {model!r}")
    if not is_container(model):
        inner = getattr(model, "normalization", None)  # of an Augment: behind what else it does
        return [model, inner] if isinstance(inner, keras.layers.Layer) else [model]
    return [layer for member in members_of(model) for layer in layers_of(member)]


def is_container(model: Any) -> bool:
    """Whether it is a model or a list, and no single layer."""
    return isinstance(model, (list, tuple, keras.Model))


def members_of(model: Any) -> list[Any]:
    """What a model or a list consists of; of a Functional model ancestors come first."""
    return list(model) if isinstance(model, (list, tuple)) else list(model.layers)


def has_known_order(model: Any) -> bool:
    """Whether ``layers_of`` is the order in which data passes the layers: False with a subclassed model in it."""
    if not is_container(model):
        return True
    known = isinstance(model, (list, tuple, keras.Sequential)) or _ancestors(model) is not None
    return known and all(has_known_order(member) for member in members_of(model))


def in_passes(model: Any, targets: Sequence[Any]) -> list[list[Any]]:
    """The targets in groups that learn one after the other; no layer of a group stands behind another one of it.

    In a Sequential, a list and a subclassed model (whose ``call`` nobody can look into) each layer stands behind those
    before it. In a Functional model the graph says it.
    """
    places: dict[int, int] = {}
    _place(model, 0, {id(target) for target in targets}, places)
    count = max(places.values()) + 1
    return [[target for target in targets if places[id(target)] == number] for number in range(count)]


def _place(member: Any, entry: int, targets: set[int], places: dict[int, int]) -> int:
    """Notes the pass of each target in ``member``, whose input is ready at pass ``entry``; when its output is ready."""
    if not is_container(member):
        for layer in layers_of(member):
            if id(layer) in targets:
                entry = max(entry, places.setdefault(id(layer), entry)) + 1
        return entry
    inner = members_of(member)
    holding = [part for part in inner if any(id(layer) in targets for layer in layers_of(part))]
    ancestors = _ancestors(member) if len(holding) > 1 else None
    exits: dict[str, int] = {}
    for part in holding:
        known = None if ancestors is None else ancestors.get(part.name)
        ready = [done for name, done in exits.items() if known is None or name in known]
        # Parts of a list may share a name; there each stands behind all before it anyway.
        exits[part.name if ancestors else str(len(exits))] = _place(part, max([entry, *ready]), targets, places)
    return max([entry, *exits.values()])


def _ancestors(model: Any) -> dict[str, set[str]] | None:
    """For each layer of a Functional model the names of those before it; None for models without a graph."""
    if isinstance(model, (list, tuple, keras.Sequential)):
        return None
    try:
        parents = {entry["name"]: set(_parents(entry["inbound_nodes"])) for entry in model.get_config()["layers"]}
    except Exception:  # a subclassed model, or a layer of the user's that has no configuration
        return None
    if not {layer.name for layer in model.layers} <= set(parents):
        return None
    return {name: _closure(name, parents) for name in parents}


def _parents(node: Any) -> Iterator[str]:
    """The names of the layers whose tensors occur in the configuration of a call."""
    if isinstance(node, dict) and "keras_history" in node:
        yield node["keras_history"][0]
    elif isinstance(node, (dict, list, tuple)):
        for part in node.values() if isinstance(node, dict) else node:
            yield from _parents(part)


def _closure(name: str, parents: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = parents.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found
