"""What a plan does, in words: what is drawn, from which range, and in which pass each transform runs."""

from __future__ import annotations

from typing import Any

from keras_norm_layers.transforms.plan import Plan, Resampling, Stage, stages

HEADER = ("pass", "transform", "draws an image", "acts on")


def describe(plan: Plan, size: tuple[Any, Any] = (None, None)) -> str:
    """A table of the plan's transforms in the order of the list, for images of ``size`` (None: not known)."""
    passes = plan.stages(size)
    lines = [f"{plan.slots} numbers are drawn an image; {_count(passes)}."]
    number_of = {n: i for i, stage in enumerate(passes, 1) for n in _all(stage)}
    rows = [HEADER]
    for number, node in enumerate(plan.layout.nodes):
        transform = node.transform
        in_pass = str(number_of.get(number, "")) or "-"
        depth = len(node.gates)
        drawn = [f"p: 1 with probability {transform.p:g}, else 0"] if transform.p < 1.0 else []
        drawn += [f"{name}: {spec}" for name, spec in transform.specs().items()]
        if transform.same_on_batch:
            drawn.append("(once for the whole batch)")
        rows.append(
            (in_pass, "  " * depth + type(transform).__name__, (drawn or ["nothing"])[0], WORDS[transform.kind])
        )
        rows += [("", "", more, "") for more in drawn[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    for number, chains in plan.layout.chains.items():
        each = ", ".join(_count(stages(plan.transforms, size, chain)) for chain in chains)
        lines.append(f"{type(plan.transforms[number]).__name__}: {len(chains)} chains of their own ({each}).")
    return "\n".join(lines)


WORDS = {
    "geometry": "coordinates",
    "color": "colours",
    "pixel": "pixels",
    "mix": "pairs of images",
    "choice": "what follows",
    "blend": "versions of images",
}


def _all(stage: Stage) -> list[int]:
    return [*stage.maps, *(step.number for step in [*stage.before, *stage.steps])]


def _count(passes: list[Stage]) -> str:
    read = [stage.resampling for stage in passes if stage.maps]
    if not read:
        return "nothing is resampled"
    return f"{len(read)} resampling{'s' if len(read) > 1 else ''} ({'; '.join(map(_reading, read))})"


def _reading(resampling: Resampling) -> str:
    if resampling.exact:
        return "pixels are copied"
    fill = f"fill {resampling.fill_value:g}" if resampling.fill_mode == "constant" else str(resampling.fill_mode)
    return f"{resampling.interpolation}, {fill}{', antialiased' if resampling.antialias else ''}"
