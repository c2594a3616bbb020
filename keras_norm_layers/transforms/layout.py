"""Whose number is which: the slots of the draw ``u`` for a list of transforms, and the choices among them.

The list may hold choices (``Maybe``, ``OneOf``, ...). They are flattened: every transform runs on every image, with
gates that are 1 or 0 an image. A closed gate is strength 0, which is the identity of every transform, so a choice needs
no control flow, and geometric transforms still multiply to one matrix. A blend (``AugMix``) keeps its chains apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_norm_layers.kernels import backend

MANY = 4  # branches of a choice, from which on one of them is chosen seldom


@dataclass(frozen=True)
class Node:
    """A transform or a choice, and the branches of choices (number of the node, number of the branch) it stands in."""

    transform: Any
    gates: tuple[tuple[int, int], ...] = ()
    seldom: bool = False  # one of several, so that few images get it


class Drawn(dict):
    """The parameters of a node by name: float32 (N,), or (N, C) where drawn a channel.

    ``gate`` is a tensor (N,), 0 where the node leaves an image alone, or None: it acts on all of them.
    """

    def __init__(self, values: dict[str, Any], gate: Any = None) -> None:
        super().__init__(values)
        self.gate = gate


class Layout:
    """The slots of a list of transforms.

    Args:
        transforms: transforms and choices in their order.
        channels: number of channels of the images; a parameter drawn a channel has as many slots.
    """

    def __init__(self, transforms: Sequence[Any], channels: int) -> None:
        self.channels = channels
        self.nodes: list[Node] = []  # in the order of their slots: a choice before what stands in it
        self.chains: dict[int, list[list[int]]] = {}  # of a blend, by its number: the numbers that act in each chain
        self.leaves = self._flatten(transforms, ())
        self.by_channel = any(spec.per_channel for node in self.nodes for spec in node.transform.specs().values())
        self.slots = sum(width for node in self.nodes for _, _, width in self._slots(node.transform))

    def _flatten(
        self, transforms: Sequence[Any], gates: tuple[tuple[int, int], ...], seldom: bool = False
    ) -> list[int]:
        """Adds the transforms to the nodes; the numbers of those that act, in the order in which they act."""
        leaves: list[int] = []
        for transform in transforms:
            number = len(self.nodes)
            self.nodes.append(Node(transform, gates, seldom))
            if transform.kind != "choice":
                leaves.append(number)
                if transform.kind == "blend":
                    self.chains[number] = [self._flatten(chain, ()) for chain in transform.branches()]
                continue
            inside: list[int] = []
            branches = transform.branches()
            for branch, members in enumerate(branches):
                inside += self._flatten(members, (*gates, (number, branch)), seldom or len(branches) >= MANY)
            if transform.geometry_first:
                inside.sort(key=lambda n: self.nodes[n].transform.kind != "geometry")
            leaves += inside
        return leaves

    def _slots(self, transform: Any) -> Iterator[tuple[str, Any, int]]:
        """The slots of one transform: (name, distribution, number of slots); a gate has a slot of its own."""
        if transform.p < 1.0:
            yield "p", None, 1
        for name, spec in transform.specs().items():
            yield name, spec, self.channels if spec.per_channel else 1

    def parameters(self, u: Any, strength: Any) -> list[Drawn]:
        """The parameters of each node, by its number.

        ``u`` is the draw (N, slots), ``strength`` a number or scalar tensor in [0, 1].
        """
        return [Drawn(values, gate) for values, gate in backend.namespace(u).few(self._drawn, u, strength)]

    def _drawn(self, u: Any, strength: Any) -> list[tuple[dict[str, Any], Any]]:
        xp = backend.namespace(u)
        opened: dict[int, list[Any]] = {}
        result: list[tuple[dict[str, Any], Any]] = []
        slot = 0
        for number, node in enumerate(self.nodes):
            transform = node.transform
            drawn = {}
            for name, spec, width in self._slots(transform):
                numbers = u[:, slot : slot + width] if spec is not None and spec.per_channel else u[:, slot]
                # An order of the batch cannot be the same for all of it.
                shared = transform.same_on_batch and name != "partner"
                drawn[name] = numbers[:1] + numbers * 0.0 if shared else numbers
                slot += width
            gate = xp.cast(drawn.pop("p") < transform.p, "float32") if transform.p < 1.0 else None
            for choice, branch in node.gates:
                gate = both(gate, opened[choice][branch])
            on = strength if gate is None or transform.kind == "choice" else strength * gate
            specs = transform.specs()
            values = {name: specs[name].quantile(v, _like(on, v)) for name, v in drawn.items()}
            result.append((values, gate))
            if transform.kind == "choice":
                opened[number] = [both(gate, branch) for branch in transform.gates(values)]
        return result


def both(gate: Any, other: Any) -> Any:
    """The product of two gates, either of them None for 1."""
    if gate is None or other is None:
        return other if gate is None else gate
    return gate * other


def _like(strength: Any, drawn: Any) -> Any:
    """A strength an image, (N,), as wide as what is drawn; a scalar as it is."""
    return strength[:, None] if len(drawn.shape) == 2 and len(getattr(strength, "shape", ())) == 1 else strength
