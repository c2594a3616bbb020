"""From an ordered list of transforms to the least work on pixels; the only file that knows fusion.

A list is cut into *stages*. A stage resamples once: all its geometric transforms multiply to one matrix an image. Its
colour and pixel transforms follow in their order, in the same compiled pass. A new stage begins where the next
geometric transform asks for another interpolation or fill than the stage has, and after what does not commute with
resampling: a pixel transform, a mixture of images, a displacement.

Colour commutes with resampling, so a geometric transform may join the stage although colours stand before it in the
list. Two things are kept as the list says. What a colour learns from the image (its mean) is taken from the image as it
is at that place: seen through the maps up to there. And a constant fill is coloured by the colours after the stage's
first geometric transform that fills, not by those before it (a flip fills nothing, and what it exchanges has the same
mean).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from keras_norm_layers.kernels import backend, color, matrices, pixels, points, resample
from keras_norm_layers.transforms.layout import Drawn, Layout, both

Parameters = list[Drawn]


class Resampling(NamedTuple):
    """How a geometric transform wants its pixels read; None: it does not matter, for it meets pixel centres only."""

    interpolation: str | None = None
    fill_mode: str | None = None
    fill_value: float | None = None
    antialias: bool | None = None

    def with_(self, other: Resampling) -> Resampling | None:
        """What suits both, or None if they contradict each other."""
        if any(a is not None and b is not None and a != b for a, b in zip(self, other)):
            return None
        return Resampling(*(b if a is None else a for a, b in zip(self, other)))  # type: ignore[arg-type]

    @property
    def exact(self) -> bool:
        """True if pixels are only exchanged: nothing to interpolate, nothing to fill."""
        return self.interpolation is None


class Step(NamedTuple):
    """A colour, pixel or mixing transform of a stage: its number, and how many of the stage's maps stand before it."""

    number: int
    maps_before: int


@dataclass
class Stage:
    """One resampling with what follows it; numbers are places in the list of transforms."""

    size: tuple[Any, Any]  # height and width of what goes in
    resampling: Resampling = Resampling()  # noqa: RUF009 - a NamedTuple cannot change
    maps: list[int] = field(default_factory=list)
    sizes: list[tuple[Any, Any]] = field(default_factory=list)  # what comes out of each map
    exact_maps: int = 0  # how many maps, at the start, only exchange pixels and leave nothing to fill
    closed: bool = False  # no map can join any more
    shrinks: float = 1.0
    before: list[Step] = field(default_factory=list)  # on the source: colours that a constant fill must not take
    steps: list[Step] = field(default_factory=list)

    def join(self, number: int, transform: Any) -> bool:
        """Adds a geometric transform, if it can share this stage's resampling."""
        size = self.sizes[-1] if self.sizes else self.size
        wanted = self.resampling.with_(transform.resampling(*(known(side) for side in size)))
        if self.closed or wanted is None:
            return False
        if self.resampling.exact and not wanted.exact:
            self.exact_maps = len(self.maps)
        self.resampling = wanted
        self.maps.append(number)
        self.shrinks *= transform.shrinks(*(known(side) for side in size))
        self.sizes.append(transform.output_size(*size))
        self.closed = transform.bends
        return True

    def out(self) -> tuple[Any, Any]:
        """Height and width of what comes out."""
        return self.sizes[-1] if self.sizes else self.size


def stages(
    transforms: Sequence[Any], size: tuple[Any, Any] = (None, None), numbers: Sequence[int] | None = None
) -> list[Stage]:
    """The stages of a list of transforms, no choices among them, or of those with these ``numbers``, for images of a
    size.
    """
    result = [Stage(size)]
    for number in range(len(transforms)) if numbers is None else numbers:
        transform = transforms[number]
        stage = result[-1]
        if transform.kind != "geometry":
            stage.steps.append(Step(number, len(stage.maps)))
            stage.closed = stage.closed or transform.kind != "color"
        elif not stage.join(number, transform):
            result.append(Stage(stage.out()))
            result[-1].join(number, transform)
    for stage in result:
        if stage.resampling.fill_mode == "constant" and not stage.resampling.exact:
            stage.before = [step for step in stage.steps if step.maps_before <= stage.exact_maps < len(stage.maps)]
            stage.steps = [step for step in stage.steps if step not in stage.before]
    return result


class Plan:
    """What a list of transforms does to a batch, as functions of the draw ``u`` (N, slots).

    Args:
        transforms: the transforms in their order.
        channels: number of channels of the images; a parameter drawn a channel has as many slots.
    """

    def __init__(self, transforms: Sequence[Any], channels: int) -> None:
        self.layout = Layout(transforms, channels)
        self.channels = channels
        self.transforms = [node.transform for node in self.layout.nodes]
        self.acting = [self.transforms[number] for number in self.layout.leaves]
        self.slots = self.layout.slots
        kinds = {transform.kind for transform in self.acting}
        self.moves, self.mixes, self.blends = ("geometry" in kinds, "mix" in kinds, "blend" in kinds)
        self.bends = any(getattr(transform, "bends", False) for transform in self.acting)
        self.resizes = any(getattr(transform, "resizes", False) for transform in self.acting)
        self._gains: dict[tuple[int | None, int | None], bool] = {}
        # Whether what happens to an image depends on its own row of the draw alone.
        self.by_image = not self.mixes and not any(transform.same_on_batch for transform in self.transforms)
        self._check()

    def _check(self) -> None:
        for number, node in enumerate(self.layout.nodes):
            name, channels = type(node.transform).__name__, node.transform.channels
            if channels not in (None, self.channels):
                raise ValueError(f"{name} needs images with {channels} channels. Received: {self.channels} channels.")
            chosen = node.gates or number not in self.layout.leaves
            if chosen and getattr(node.transform, "resizes", False):
                raise ValueError(
                    f"{name} changes the size of images, so it cannot be chosen for some images of a batch: put it "
                    "beside the choice and not into it."
                )
            if number not in self.layout.leaves and node.transform.kind in ("mix", "blend"):
                raise ValueError(f"{name} cannot stand in a chain of a blend such as AugMix.")

    def fits(self, channels: int) -> bool:
        """Whether images with this many channels can be transformed."""
        return channels == self.channels or not (
            self.layout.by_channel or any(transform.channels for transform in self.transforms)
        )

    def parameters(self, u: Any, strength: Any) -> Parameters:
        """The value of each parameter of each node: float32 (N,), or (N, C) where drawn a channel."""
        return self.layout.parameters(u, strength)

    def stages(self, size: tuple[Any, Any]) -> list[Stage]:
        """The stages for images of this height and width (None or a scalar tensor where not known)."""
        return stages(self.transforms, size, self.layout.leaves)

    def output_size(self, size: tuple[Any, Any]) -> tuple[Any, Any]:
        """Height and width of what comes out."""
        return self.stages(size)[-1].out()

    def gains_compiled(self, height: int | None, width: int | None) -> bool:
        """Whether eager code on a CPU is slower than compiled code, which keeps values from going through memory at
        each step, but does for all images what is chosen for few.
        """
        size = (height, width)
        if size not in self._gains:
            much = any(item.kind in ("pixel", "mix", "blend") and not item.costly for item in self.acting)
            reads = any(not stage.resampling.exact for stage in self.stages(size))
            self._gains[size] = (much or reads) and not any(node.seldom for node in self.layout.nodes)
        return self._gains[size]

    def forward(self, stage: Stage, parameters: Parameters, maps: int | None = None) -> Any:
        """The product of the stage's (first ``maps``) maps, (N, 3, 3), from input to output."""
        return self._product(stage, parameters, maps, lambda forward: forward)

    def inverse(self, stage: Stage, parameters: Parameters, maps: int | None = None) -> Any:
        """The way back of ``forward``."""
        return self._product(stage, parameters, maps, matrices.invert)

    def _product(self, stage: Stage, parameters: Parameters, maps: int | None, last: Callable[[Any], Any]) -> Any:
        numbers, sizes = stage.maps[:maps], [stage.size, *stage.sizes]
        given = [{name: value for name, value in parameters[n].items() if name != "displacement"} for n in numbers]

        def product(given: list[dict[str, Any]]) -> Any:
            maps = [
                self.transforms[n].matrix(values, *(floating(side) for side in size))
                for n, values, size in zip(numbers, given, sizes)
            ]
            return last(matrices.compose(*maps))

        like = next(value for values in given for value in values.values())
        return backend.namespace(like).few(product, given)

    # Images -----------------------------------------------------------------------------------------------------------

    def images(self, images: Any, parameters: Parameters) -> Any:
        """Images (N, H, W, C) of any dtype, transformed, in float32."""
        return self._chain(self.layout.leaves, images, parameters)

    def _chain(self, numbers: Sequence[int], images: Any, parameters: Parameters) -> Any:
        for number, stage in enumerate(stages(self.transforms, sides(images), numbers)):
            if number and stage.maps:
                images = pixels.materialize(images)
            images = self._run(stage, images, parameters, given=number == 0)
        return backend.namespace(images).cast(images, "float32")

    def _run(self, stage: Stage, source: Any, parameters: Parameters, given: bool) -> Any:
        """One stage. ``given``: the source lies in memory, as it was passed in; else it may yet be an expression."""
        if stage.before:
            first = Stage(stage.size, steps=[Step(n, 0) for n, _ in stage.before])
            source, given = self._run(first, source, parameters, given), False
        if given and self._starts_with_bits(stage, source):
            (number, _), *steps = stage.steps
            source, given = _change_pixels(self.transforms[number], parameters[number], source), False
            stage = replace(stage, steps=steps)
        # Maps applied -> (image, colours applied, whether it is a tensor of our own): one warp for each number.
        views: dict[int, tuple[Any, int, bool]] = {}
        colors: list[color.Color] = []

        def view(maps: int) -> Any:
            if maps not in views:
                image = self._warp(stage, source, parameters, maps)
                views[maps] = (image, 0, image is not source)
            image, done, own = views[maps]
            for item in colors[done:]:
                if item.gray is not None:  # three channels are read for each, and the warp must not be repeated
                    image = pixels.materialize(image)
                image, own = color.apply(image, item, own), True
            views[maps] = (image, len(colors), own)
            return image

        alone = self._alone(stage, parameters, source)
        for number, maps_before in stage.steps:
            if alone.get(number) == []:  # done with those before it
                continue
            transform, values = self.transforms[number], parameters[number]
            if transform.kind == "color" and not transform.looks and number not in alone:
                colors.append(transform.color(values, None))
                continue
            seen = view(maps_before)
            as_given = given and maps_before == 0 and views[0][1] == 0
            # A compiler may repeat an expression for each use that is made of it: a warp is one too much.
            if not as_given and (stage.maps or not getattr(transform, "pointwise", False)):
                seen = pixels.materialize(seen)
            own = views[maps_before][2]
            views[maps_before] = (seen, len(colors), own)
            if number in alone:
                seen, own = backend.namespace(seen).change_some(alone[number], seen, own)
            elif transform.kind == "color":
                bytes_ = as_given and backend.namespace(source).fuses() and _are_bytes(source)
                colors.append(transform.color(values, source if bytes_ else seen))
                continue
            else:
                seen, own = self._changed(number, values, seen, parameters), False
            views, colors = {len(stage.maps): (seen, 0, own)}, []
            given = False
        return view(len(stage.maps))

    def _starts_with_bits(self, stage: Stage, source: Any) -> bool:
        """Whether the first that is done to images of bytes is a change of bits: a quarter of the memory of floats."""
        if not stage.steps or stage.maps:
            return False
        transform = self.transforms[stage.steps[0].number]
        bits = transform.kind == "pixel" and transform.on_bits and transform.value_range == (0, 255)
        return bits and _are_bytes(source)

    def _alone(self, stage: Stage, parameters: Parameters, images: Any) -> dict[int, list[Any]]:
        """The changes of values that are made to the chosen images only, where that is worth while: the first one of a
        run -> all of its changes, the others -> [].

        It costs a compiler the fusion with what stands beside, and all images once. So a compiler does it for what is
        costly, or for three that are chosen seldom and fold into nothing; eager code in any case. Only on a CPU: to
        ask what was chosen would stop another device.
        """
        xp, run, result = backend.namespace(images), [], {}  # type: Any, list[int], dict[int, list[Any]]
        compiled = xp.fuses()
        if not xp.on_host(images):
            return {}
        for number, maps_before in [*stage.steps, Step(-1, -1)]:
            node, values = self.layout.nodes[number], parameters[number]
            whole = maps_before == len(stage.maps)
            gate = _chosen(node.transform, values, compiled, node.seldom, bool(run)) if whole else None
            if gate is not None:
                run.append(number)
                result[number] = [_change_of(node.transform, gate, values)]
                continue
            acting = [self.transforms[n] for n in run]
            if compiled and sum(not _folds(t) for t in acting) < 3 and not any(t.costly for t in acting):
                result = {n: changes for n, changes in result.items() if n not in run}
            for follower in run[1:]:
                if follower in result:
                    result[run[0]] += result[follower]
                    result[follower] = []
            run = []
        return result

    def _changed(self, number: int, values: dict[str, Any], images: Any, parameters: Parameters) -> Any:
        """What a transform that is no matrix makes of the images."""
        transform = self.transforms[number]
        if transform.kind == "blend":
            made = [self._chain(chain, images, parameters) for chain in self.layout.chains[number]]
            return transform.blend(values, images, made)
        if transform.kind == "mix":
            return transform.mix_images(values, images)
        return _change_pixels(transform, values, images)

    def _warp(self, stage: Stage, source: Any, parameters: Parameters, maps: int) -> Any:
        """The source seen through the first ``maps`` maps of the stage, float32."""
        xp = backend.namespace(source)
        if maps == 0:
            return xp.cast(source, "float32")
        interpolation, fill_mode, fill_value, antialias = stage.resampling
        axes = self._mirrors(stage, maps)
        if axes and xp.fuses():  # what mirrors leads back too
            return xp.cast(resample.mirrored(source, self.forward(stage, parameters, maps), axes), "float32")
        return xp.cast(
            resample.warp(
                source,
                self.inverse(stage, parameters, maps),
                interpolation or "nearest",
                fill_mode or "nearest",
                fill_value or 0.0,
                samples=math.ceil(stage.shrinks) if antialias else 1,
                dtype="float32",  # the fill may be a fraction, or below 0
                **self._reading(stage, parameters, maps),
            ),
            "float32",
        )

    def _mirrors(self, stage: Stage, maps: int) -> set[int]:
        """The axes that the first ``maps`` maps of a stage reverse, if that is all they do; else none."""
        found = [self.transforms[number].mirrors for number in stage.maps[:maps]]
        return set() if None in found else {axis for axes in found for axis in axes}

    def _reading(self, stage: Stage, parameters: Parameters, maps: int) -> dict[str, Any]:
        """The arguments of ``resample.warp`` that images and masks share."""
        numbers, size = stage.maps[:maps], stage.sizes[maps - 1]
        bends = self.transforms[numbers[-1]].bends
        return {
            "size": size if any(getattr(self.transforms[n], "resizes", False) for n in numbers) else None,
            "projective": any(self.transforms[n].projective for n in numbers),
            "displacement": self._displacement(parameters, numbers[-1], size) if bends else None,
        }

    def _displacement(self, parameters: Parameters, number: int, size: tuple[Any, Any]) -> Any:
        """The displacement field of a transform; made once for images, masks and points."""
        values = parameters[number]
        if "displacement" not in values:
            values["displacement"] = self.transforms[number].displacement(values, *size)
        return values["displacement"]

    # Targets ----------------------------------------------------------------------------------------------------------

    def masks(self, masks: Any, parameters: Parameters, fill_value: float, interpolation: str = "nearest") -> Any:
        """Masks (N, H, W, C) moved like the images; by nearest neighbour dtype and classes stay."""
        for stage in self.stages(sides(masks)):
            if stage.maps:
                inverse = self.inverse(stage, parameters)
                reading = self._reading(stage, parameters, len(stage.maps))
                masks = resample.warp(
                    masks, inverse, interpolation, stage.resampling.fill_mode or "nearest", fill_value, **reading
                )
            for number, _ in stage.steps:
                if self.transforms[number].kind == "mix":
                    masks = self.transforms[number].mix_masks(parameters[number], masks)
        return masks

    def labels(self, labels: Any, parameters: Parameters, size: tuple[Any, Any]) -> Any:
        """Labels (N, ...), mixed as the images are."""
        for stage in self.stages(size):
            for number, _ in stage.steps:
                if self.transforms[number].kind == "mix":
                    sides_ = (floating(side) for side in stage.out())
                    labels = self.transforms[number].mix_labels(parameters[number], labels, *sides_)
        return labels

    def mover(self, parameters: Parameters, size: tuple[Any, Any]) -> Callable[[Any, Any], tuple[Any, Any]]:
        """The way of points: a function of x and y (N, K), in pixels about the centre of an image of this size, that
        gives them about the centre of the image that comes out.
        """
        moves: list[Callable[[Any, Any], tuple[Any, Any]]] = []
        for stage in self.stages(size):
            if stage.maps:
                forward, last = self.forward(stage, parameters), stage.maps[-1]
                moves.append(functools.partial(points.move, forward))
                if self.transforms[last].bends:
                    bend = self._displacement(parameters, last, stage.out())
                    moves.append(functools.partial(points.unbend, bend))

        def move(x: Any, y: Any) -> tuple[Any, Any]:
            for one in moves:
                x, y = one(x, y)
            return x, y

        return move

    def back(self, images: Any, parameters: Parameters, size: tuple[Any, Any], options: Resampling) -> Any:
        """The images (N, H, W, C) that came out, moved back to where their pixels came from: to images of ``size``."""
        result = images
        for stage in reversed(self.stages(size)):
            if not stage.maps:
                continue
            if self.transforms[stage.maps[-1]].bends:
                raise ValueError(f"{type(self.transforms[stage.maps[-1]]).__name__} has no inverse.")
            result = resample.warp(
                result,
                self.forward(stage, parameters),
                options.interpolation or "bilinear",
                options.fill_mode or "constant",
                options.fill_value or 0.0,
                size=stage.size,
                projective=any(self.transforms[n].projective for n in stage.maps),
            )
        return result


def _chosen(transform: Any, values: Drawn, compiled: bool, seldom: bool, follows: bool) -> Any:
    """1 for the images that a change of values is made to and 0 for the others, (N,); None: no use to know.

    ``follows``: the change before it is made to the chosen images only.
    """
    if transform.kind not in ("color", "pixel"):
        return None
    if not compiled:
        return both(values.gate, values.get("on")) if transform.kind == "pixel" else values.gate
    return values.gate if transform.costly or (seldom and (follows or not _folds(transform))) else None


def _folds(transform: Any) -> bool:
    """Whether a change of values goes into the pass for next to nothing."""
    return transform.kind == "color" and not transform.looks


def _change_pixels(transform: Any, values: dict[str, Any], images: Any) -> Any:
    """What a pixel transform makes of images."""
    return transform.change(_prepared(transform, values), images)


def _prepared(transform: Any, values: dict[str, Any]) -> dict[str, Any]:
    if not values:
        return dict(transform.prepared(values))
    result: dict[str, Any] = backend.namespace(next(iter(values.values()))).few(transform.prepared, values)
    return result


def _change_of(transform: Any, gate: Any, values: dict[str, Any]) -> pixels.Change:
    """What a transform of values does to the images whose ``gate`` (N,) is 1.

    All that follows from the draw alone is computed here, for the batch and not for each image again.
    """
    known: dict[str, Any] = {}
    if transform.kind == "pixel":
        values = _prepared(transform, values)
    elif not transform.looks:
        known = transform.color(values, None)._asdict()
        values = {name: value for name, value in known.items() if hasattr(value, "shape")}

    def run(drawn: Any, seen: Any, own: bool = False) -> Any:
        if transform.kind == "pixel":
            return transform.change(drawn, seen)
        mapped = color.Color(**{**known, **drawn}) if known else transform.color(drawn, seen)
        return color.apply(seen, mapped, own)

    return pixels.Change(gate, values, run)


def _are_bytes(images: Any) -> bool:
    return bool(backend.namespace(images).dtype_name(images) == "uint8")


def sides(images: Any) -> tuple[Any, Any]:
    """Height and width of (N, H, W, C) images: ints, or int scalar tensors where a graph does not know them."""
    height, width = backend.namespace(images).shape(images)[1:3]
    return height, width


def known(side: Any) -> int | None:
    """A side as an int, or None where a graph does not know it."""
    return side if isinstance(side, int) else None


def floating(side: Any) -> Any:
    """A side as a number or a float32 scalar."""
    return float(side) if isinstance(side, int) else backend.namespace(side).cast(side, "float32")
