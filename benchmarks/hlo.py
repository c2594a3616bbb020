"""What XLA made of a program: how many fusions gather pixels, and in what layout their indices come."""

from __future__ import annotations

import re
from typing import Any

INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(?[\w\[\],{}:()\s*]*?\)?) ([\w\-]+)\((.*)$")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def report(text: str, channels: int) -> dict[str, Any]:
    """The gathers of an optimized module.

    ``index_a_channel``: the indices of a gather end in an axis of the channels, so that each channel of a pixel is
    looked up on its own. ``axis_of_one``: they end in an axis of 1, which XLA's own simplification adds on CPU and GPU.
    """
    computations = _computations(text)
    gathers = {name: _gathers(lines, channels) for name, lines in computations.items()}
    called = re.findall(r" fusion\(.*?calls=%?([\w.\-]+)", text)
    found = [gather for name in gathers for gather in gathers[name]]
    pixels = [gather for gather in found if gather["indices"] and max(gather["indices"]) >= 64]
    return {
        "fusions": len(called),
        "fusions_with_gathers": sum(bool(gathers.get(name)) for name in called),
        "gathers": len(found),
        "gathers_outside_fusions": len(found) - sum(len(gathers.get(name, ())) for name in set(called)),
        "index_a_channel": any(gather["index_a_channel"] for gather in pixels),
        "axis_of_one": any(gather["axis_of_one"] for gather in pixels),
        "each": found,
    }


def _computations(text: str) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        start = re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if start:
            name = start.group(1)
            result[name] = []
        elif line.startswith("}"):
            name = None
        elif name is not None:
            result[name].append(line)
    return result


def _gathers(lines: list[str], channels: int) -> list[dict[str, Any]]:
    shapes, result = {}, []
    for line in lines:
        match = INSTRUCTION.match(line)
        if not match:
            continue
        name, shape, operation, rest = match.groups()
        sizes = SHAPE.search(shape)
        shapes[name] = [int(n) for n in sizes.group(2).split(",") if n] if sizes else []
        if operation == "gather":
            operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
            indices = shapes.get(operands[1], []) if len(operands) > 1 else []
            result.append(_gather(rest, indices, channels))
    return result


def _gather(rest: str, indices: list[int], channels: int) -> dict[str, Any]:
    def numbers(field: str) -> list[int]:
        found = re.search(field + r"=\{?([\d,]*)\}?", rest)
        return [int(n) for n in found.group(1).split(",") if n] if found else []

    vector, slices = numbers("index_vector_dim"), numbers("slice_sizes")
    # With index_vector_dim == rank there is no such axis: each index is a number.
    explicit = bool(vector) and vector[0] < len(indices)
    return {
        "indices": indices,
        "index_vector_dim": vector[0] if vector else None,
        "slice_sizes": slices,
        "axis_of_one": explicit and indices[-1] == 1,
        "index_a_channel": len(indices) > 1 and channels in indices[-2:] and slices[-1:] == [1],
    }
