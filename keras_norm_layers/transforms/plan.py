"""From an ordered list of transforms to the least work on pixels; the only file that knows fusion.

A list is cut into *stages*. A stage resamples once: all its geometric transforms multiply to one matrix an image. Its
colour transforms follow in their order, in the same compiled pass. A new stage begins only where the next geometric
transform asks for another interpolation or fill than the stage has.

Colour commutes with resampling, so a geometric transform may join the stage although colours stand before it in the
list. Two things are kept as the list says. What a colour learns from the image (its mean) is taken from the image as it
is at that place: seen through the maps up to there. And a constant fill is coloured by the colours after the stage's
first geometric transform that fills, not by those before it (a flip fills nothing, and what it exchanges has the same
mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keras_norm_layers.kernels import backend, color, matrices, pixels, resample


class Resampling(NamedTuple):
    """How a geometric transform wants its pixels read."""

    interpolation: str
    fill_mode: str
    fill_value: float


EXACT = Resampling("nearest", "nearest", 0.0)  # maps that carry pixel centres to pixel centres: nothing to interpolate


@dataclass
class Step:
    """A colour transform of a stage: its number in the list, and how many of the stage's maps stand before it."""

    number: int
    maps_before: int


@dataclass
class Stage:
    """One resampling with the colours around it; numbers are places in the list of transforms."""

    resampling: Resampling | None = None
    maps: list[int] = field(default_factory=list)
    exact_maps: int = 0  # how many maps, at the start, only exchange pixels and leave nothing to fill
    before: list[Step] = field(default_factory=list)  # on the source: colours that a constant fill must not take
    steps: list[Step] = field(default_factory=list)

    def can_join(self, wanted: Resampling | None) -> bool:
        """True if a map that wants this resampling (None: any) can share this stage's."""
        return wanted is None or self.resampling is None or wanted == self.resampling


def stages(transforms: Sequence[Any]) -> list[Stage]:
    """The stages of a list of transforms."""
    result = [Stage()]
    for number, transform in enumerate(transforms):
        stage = result[-1]
        if transform.kind == "color":
            stage.steps.append(Step(number, len(stage.maps)))
            continue
        if not stage.can_join(transform.resampling):
            stage = Stage()
            result.append(stage)
        if stage.resampling is None and transform.resampling is not None:
            stage.resampling = transform.resampling
            stage.exact_maps = len(stage.maps)
        stage.maps.append(number)
    for stage in result:
        if stage.resampling is not None and stage.resampling.fill_mode == "constant":
            stage.before = [step for step in stage.steps if step.maps_before <= stage.exact_maps]
            stage.steps = [step for step in stage.steps if step.maps_before > stage.exact_maps]
    return result


class Plan:
    """What a list of transforms does to a batch, as functions of the draw ``u`` (N, slots).

    Args:
        transforms: the transforms in their order.
        channels: number of channels of the images; a parameter drawn a channel has as many slots.
    """

    def __init__(self, transforms: Sequence[Any], channels: int) -> None:
        self.transforms = list(transforms)
        self.channels = channels
        self.stages = stages(self.transforms)
        self._by_channel = any(s.per_channel for transform in self.transforms for s in transform.specs().values())
        self.slots = sum(width for transform in self.transforms for _, _, width in self._layout(transform))

    def fits(self, channels: int) -> bool:
        """Whether images with this many channels can be transformed."""
        return channels == self.channels or not self._by_channel

    def _layout(self, transform: Any) -> list[tuple[str, Any, int]]:
        """The slots of one transform: (name, distribution, number of slots); a gate has a slot of its own."""
        gate = [("", None, 1)] if transform.p < 1.0 else []
        specs = transform.specs().items()
        return gate + [(name, spec, self.channels if spec.per_channel else 1) for name, spec in specs]

    def parameters(self, u: Any, strength: Any) -> list[dict[str, Any]]:
        """The value of each parameter of each transform: float32 (N,), or (N, C) where drawn a channel."""
        xp = backend.namespace(u)
        result, slot = [], 0
        for transform in self.transforms:
            values, gate = {}, None
            for name, spec, width in self._layout(transform):
                drawn = u[:, slot : slot + width] if spec is not None and spec.per_channel else u[:, slot]
                slot += width
                if transform.same_on_batch:
                    drawn = drawn[:1] + u[:, :1] * 0.0 if drawn.ndim == 2 else drawn[:1] + u[:, 0] * 0.0
                if spec is None:
                    gate = xp.cast(drawn < transform.p, "float32")
                    continue
                # A closed gate is strength 0, which is the identity of every transform.
                on = strength if gate is None else strength * (gate[:, None] if drawn.ndim == 2 else gate)
                values[name] = spec.quantile(drawn, on)
            result.append(values)
        return result

    def forward(self, parameters: list[dict[str, Any]], height: Any, width: Any, numbers: Sequence[int]) -> Any:
        """The product of the maps of the transforms with these numbers, (N, 3, 3), from input to output."""
        maps = [self.transforms[i].matrix(parameters[i], height, width) for i in numbers]
        return matrices.compose(*maps)

    def images(self, images: Any, parameters: list[dict[str, Any]]) -> Any:
        """Images (N, H, W, C) of any dtype, transformed, in float32."""
        for stage in self.stages:
            images = self._run(stage, images, parameters)
        return backend.namespace(images).cast(images, "float32")

    def _run(self, stage: Stage, source: Any, parameters: list[dict[str, Any]]) -> Any:
        if stage.before:
            source = self._run(Stage(steps=[Step(step.number, 0) for step in stage.before]), source, parameters)
        views: dict[int, tuple[Any, int]] = {}  # maps applied -> (image, colours applied): one warp for each number
        colors: list[color.Color] = []

        def view(maps: int) -> Any:
            image, done = views[maps] if maps in views else (self._warp(stage, source, parameters, maps), 0)
            for item in colors[done:]:
                image = color.apply(image, item)
            views[maps] = (image, len(colors))
            return image

        for step in stage.steps:
            transform, values = self.transforms[step.number], parameters[step.number]
            seen = None
            if transform.looks:
                seen = pixels.materialize(view(step.maps_before))
                views[step.maps_before] = (seen, len(colors))
            colors.append(transform.color(values, seen))
        return view(len(stage.maps))

    def _warp(self, stage: Stage, source: Any, parameters: list[dict[str, Any]], maps: int) -> Any:
        """The source seen through the first ``maps`` maps of the stage, float32."""
        xp = backend.namespace(source)
        if maps == 0:
            return xp.cast(source, "float32")
        resampling = stage.resampling or EXACT
        if resampling.interpolation == "nearest" and stage.resampling is not None:
            source = xp.cast(source, "float32")  # the fill may be a fraction, or below 0
        height, width = sides(source)
        inverse = matrices.invert(self.forward(parameters, height, width, stage.maps[:maps]))
        return xp.cast(resample.warp(source, inverse, *resampling), "float32")

    def masks(self, masks: Any, parameters: list[dict[str, Any]], fill_value: float) -> Any:
        """Masks (N, H, W, C) moved like the images, read by nearest neighbour: dtype and classes stay."""
        for stage in self.stages:
            if stage.maps:
                height, width = sides(masks)
                inverse = matrices.invert(self.forward(parameters, height, width, stage.maps))
                fill_mode = (stage.resampling or EXACT).fill_mode
                masks = resample.warp(masks, inverse, "nearest", fill_mode, fill_value)
        return masks

    def map_numbers(self) -> list[int]:
        """The numbers of all geometric transforms, in order."""
        return [number for stage in self.stages for number in stage.maps]


def sides(images: Any) -> tuple[Any, Any]:
    """Height and width of (N, H, W, C) images, as numbers or float32 scalars."""
    xp = backend.namespace(images)
    height, width = xp.shape(images)[1:3]
    return tuple(float(n) if isinstance(n, int) else xp.cast(n, "float32") for n in (height, width))  # type: ignore[return-value]
