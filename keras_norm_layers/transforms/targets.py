"""What comes with images: masks, boxes, keypoints, labels. Checked, brought to one shape, moved as the images are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_norm_layers.kernels import backend, pixels, points
from keras_norm_layers.transforms.plan import Parameters, Plan, Resampling, floating, sides

KINDS = {name: name for name in ("images", "segmentation_masks", "bounding_boxes", "keypoints", "labels")}
ADDITIONAL = ("images", "segmentation_masks", "keypoints")  # what an additional target may be
Finish = Callable[[Any], Any]
RANKS = {3: 0, 4: 1, 5: 2}  # rank of images -> how many axes stand before height, width and channels


class Options(NamedTuple):
    """What a layer says of its targets; see ``RandomLayer``."""

    owner: str
    dtype: str
    channels_first: bool
    box_format: str | None
    mask_fill_value: float
    mask_interpolation: str
    kinds: Mapping[str, str]


# Moving ---------------------------------------------------------------------------------------------------------------


def transform(
    plan: Plan, data: dict[str, Any], u: Any, strength: Any, options: Options, finish: Finish | None = None
) -> dict[str, Any]:
    """The targets in ``data`` transformed by the draw ``u``: what is compiled. ``finish`` is done to images at the end:
    to float32 (N, H, W, C).
    """
    xp = backend.namespace(data["images"])
    shape = xp.shape(data["images"])
    lead = RANKS[len(shape)]
    if lead == 2:
        u = xp.repeat(u, shape[1])
    flat = {name: keras.tree.map_structure(lambda x: _flat(x, lead), value) for name, value in data.items()}
    size = sides(_channels_last(flat["images"], options))
    parameters = plan.parameters(u, strength)
    moved = {
        name: _moved(plan, value, parameters, size, options.kinds[name], options, finish)
        for name, value in flat.items()
    }
    return keras.tree.map_structure(lambda x: _unflat(x, shape[:lead]), moved)


def _moved(
    plan: Plan, value: Any, parameters: Parameters, size: Any, kind: str, options: Options, finish: Finish | None
) -> Any:
    """One target, with one leading axis, transformed."""
    xp = backend.namespace(value["boxes"] if kind == "bounding_boxes" else value)
    if kind == "images":
        images = plan.images(_channels_last(value, options), parameters)
        images = images if finish is None else finish(images)
        return _channels_back(pixels.saturate(images, options.dtype), options)
    if kind == "segmentation_masks":
        return _masks(plan, value, parameters, options)
    if kind == "labels":
        return plan.labels(xp.cast(value, "float32"), parameters, size)
    if not plan.moves:
        return value
    way = plan.mover(parameters, size)
    before, after = (tuple(floating(side) for side in sides_) for sides_ in (size, plan.output_size(size)))
    if kind == "keypoints":
        return points.move_points(xp.cast(value, "float32"), way, before, after)
    boxes = xp.cast(value["boxes"], "float32")
    parts = 8 if plan.bends else 1
    moved, labels = points.move_boxes(boxes, value["labels"], way, before, after, str(options.box_format), parts)
    return {"boxes": moved, "labels": labels}


def _masks(plan: Plan, masks: Any, parameters: Parameters, options: Options) -> Any:
    flat = len(masks.shape) == 3
    dtype = backend.namespace(masks).dtype_name(masks)
    given = masks[..., None] if flat else _channels_last(masks, options)
    moved = plan.masks(given, parameters, options.mask_fill_value, options.mask_interpolation)
    moved = pixels.saturate(moved, dtype)
    return moved[..., 0] if flat else _channels_back(moved, options)


def move_back(plan: Plan, data: dict[str, Any], u: Any, strength: Any, size: Any, options: Options) -> dict[str, Any]:
    """The geometric part undone: images and masks that came out of ``transform`` with ``u`` go back into ``size``."""
    xp = backend.namespace(data["images"])
    shape = xp.shape(data["images"])
    lead = RANKS[len(shape)]
    u = xp.repeat(u, shape[1]) if lead == 2 else u
    parameters = plan.parameters(u, strength)
    result = {}
    for name, value in data.items():
        value = _flat(value, lead)
        if options.kinds[name] == "images":
            back = plan.back(xp.cast(_channels_last(value, options), "float32"), parameters, size, Resampling())
            back = _channels_back(back, options)
        else:
            how = Resampling(options.mask_interpolation, "constant", options.mask_fill_value)
            flat = len(value.shape) == 3
            back = plan.back(value[..., None] if flat else _channels_last(value, options), parameters, size, how)
            back = back[..., 0] if flat else _channels_back(back, options)
        result[name] = _unflat(back, shape[:lead])
    return result


def _flat(x: Any, lead: int) -> Any:
    """A target with one leading axis: a single one becomes a batch of one, clips become their frames."""
    if lead == 1:
        return x
    xp = backend.namespace(x)
    shape = xp.shape(x)
    return x[None] if lead == 0 else xp.reshape(x, (shape[0] * shape[1], *shape[2:]))


def _unflat(x: Any, lead: tuple[Any, ...]) -> Any:
    xp = backend.namespace(x)
    return x if len(lead) == 1 else x[0] if not lead else xp.reshape(x, (*lead, *xp.shape(x)[1:]))


def _channels_last(images: Any, options: Options) -> Any:
    return backend.namespace(images).transpose(images, (0, 2, 3, 1)) if options.channels_first else images


def _channels_back(images: Any, options: Options) -> Any:
    return backend.namespace(images).transpose(images, (0, 3, 1, 2)) if options.channels_first else images


# Checking -------------------------------------------------------------------------------------------------------------


def checked(inputs: Any, options: Options) -> dict[str, Any]:
    """The inputs as a dict of tensors, or an error that says what is wrong with them."""
    data = dict(inputs) if isinstance(inputs, dict) else {"images": inputs}
    check_keys(data, options)
    boxes = data.get("bounding_boxes")
    if boxes is not None and options.box_format is None:
        raise ValueError(
            f"{options.owner}: to move bounding boxes, give `bounding_box_format`, one of {list(points.BOX_FORMATS)}."
        )
    if boxes is not None and (not isinstance(boxes, dict) or set(boxes) != {"boxes", "labels"}):
        raise ValueError(
            f"{options.owner}: 'bounding_boxes' must be a dict with 'boxes' and 'labels'. Received: {boxes!r}"
        )
    xp = backend.namespace(data["images"])
    data = {key: keras.tree.map_structure(xp.asarray, value) for key, value in data.items()}
    if len(data["images"].shape) not in RANKS:
        raise ValueError(
            f"{options.owner}: images must have the rank 3, (H, W, C), 4, (N, H, W, C), or 5, (N, T, H, W, C) for "
            f"clips. Received: shape={tuple(data['images'].shape)}"
        )
    return data


def check_keys(data: Mapping[str, Any], options: Options) -> None:
    """Raises if a dict has no images or has what no layer knows."""
    if "images" not in data or not set(data) <= set(options.kinds):
        raise ValueError(
            f"{options.owner}: a dict of data holds 'images' and may hold "
            f"{[k for k in options.kinds if k != 'images']} (`additional_targets` adds more); anything "
            "else would be left as it was, beside images that moved. "
            f"Received the keys {list(data)}"
        )


def check_shapes(data: dict[str, Any], plan: Plan | None, options: Options) -> None:
    """Raises if a target does not fit the images or the plan: what is unknown while a graph is traced fits."""
    *lead, height, width, channels = move_channels_last(tuple(data["images"].shape), options.channels_first)
    if plan is not None and channels is not None and not plan.fits(channels):
        _misfit(options, "images", f"{plan.channels} channels, as at the first call", data["images"].shape)
    for name, value in data.items():
        kind = options.kinds[name]
        if kind == "images" and name != "images" and not fits(value.shape[: len(lead)], tuple(lead)):
            _misfit(options, name, "as many entries as the images", value.shape)
        if kind == "segmentation_masks":
            _check_masks(name, value, (*lead, height, width), len(lead) + 3, options, exactly=name == kind)
        if kind == "keypoints" and not fits(value.shape, (*lead, None, 2)):
            _misfit(options, name, "(N, K, 2), or (K, 2) for one image", value.shape)
        if kind == "bounding_boxes":
            boxes, labels = value["boxes"].shape, value["labels"].shape
            if not fits(boxes, (*lead, None, 4)):
                _misfit(options, "boxes", "(N, K, 4), or (K, 4) for one image", boxes)
            if not fits(labels, tuple(boxes[:-1])):
                _misfit(options, "labels of the boxes", "(N, K), or (K,) for one image", labels)
    if plan is not None and plan.mixes:
        _check_mixture(data, plan, len(lead), options)
    if plan is not None and plan.blends and any(options.kinds[n] not in ("images", "labels") for n in data):
        blends = sorted({type(t).__name__ for t in plan.acting if t.kind == "blend"})
        raise ValueError(
            f"{options.owner}: {' and '.join(blends)} blends images that were moved differently: no mask, box or "
            f"keypoint fits all of them. Received the keys {list(data)}"
        )


def _check_masks(
    name: str, masks: Any, wanted: tuple[Any, ...], rank: int, options: Options, exactly: bool = True
) -> None:
    shape = tuple(masks.shape)
    shape = move_channels_last(shape, options.channels_first)[:-1] if len(shape) == rank else shape
    wanted = wanted if exactly else (*wanted[:-2], None, None)  # an additional target may have a size of its own
    if not fits(shape, wanted):
        _misfit(options, name, "the height and width of the images, a channel axis or none", masks.shape)
    dtype, value = backend.namespace(masks).dtype_name(masks), options.mask_fill_value
    if "int" in dtype and (value != int(value) or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
        raise ValueError(
            f"{options.owner}: `mask_fill_value` must be a whole number that masks of the dtype {dtype} can hold. "
            f"Received: mask_fill_value={value:g}"
        )


def _check_mixture(data: dict[str, Any], plan: Plan, lead: int, options: Options) -> None:
    mixers = sorted({type(t).__name__ for t in plan.acting if t.kind == "mix"})
    for kind in ("bounding_boxes", "keypoints"):
        if any(options.kinds[name] == kind for name in data):
            raise ValueError(
                f"{options.owner}: {' and '.join(mixers)} cannot carry '{kind}'. Take them out of the data."
            )
    if lead != 1:
        raise ValueError(
            f"{options.owner}: {' and '.join(mixers)} mixes the images of a batch, (N, H, W, C). Received: "
            f"shape={tuple(data['images'].shape)}"
        )
    if "labels" in data and len(data["labels"].shape) < 2:
        raise ValueError(
            f"{options.owner}: {' and '.join(mixers)} mixes labels too, which must be one-hot, (N, classes): see "
            f"keras.utils.to_categorical. Received: labels.shape={tuple(data['labels'].shape)}"
        )


def _misfit(options: Options, target: str, wanted: str, shape: Any) -> None:
    raise ValueError(f"{options.owner}: the {target} must have {wanted}. Received: shape={tuple(shape)}")


def move_channels_last(shape: tuple[Any, ...], channels_first: bool) -> tuple[Any, ...]:
    """A shape of images with its channels at the end."""
    return (*shape[:-3], *shape[-2:], shape[-3]) if channels_first else shape


def fits(shape: Any, wanted: tuple[Any, ...]) -> bool:
    """Whether a shape is the wanted one; sizes that are None fit any."""
    shape = tuple(shape)
    return len(shape) == len(wanted) and all(a is None or b is None or a == b for a, b in zip(shape, wanted))
