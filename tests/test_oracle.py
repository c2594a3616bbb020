"""Images whose pixels hold their own coordinates: where a pixel went, its mask, its box and its keypoint must be."""

import catalogue
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

pytestmark = pytest.mark.usefixtures("uncompiled")
HEIGHT, WIDTH = 20, 31
CLOSE = 1e-3
AWAY = -1000.0
MOVES = {
    "flip": lambda **o: knl.RandomFlip(**o),
    "rotation": lambda **o: knl.RandomRotation(0.5, "constant", fill_value=AWAY, **o),
    "translation": lambda **o: knl.RandomTranslation(0.4, 0.4, "constant", fill_value=AWAY, **o),
    "zoom": lambda **o: knl.RandomZoom((-0.4, 0.9), (-0.4, 0.9), "constant", fill_value=AWAY, **o),
    "shear": lambda **o: knl.RandomShear(0.5, 0.4, fill_mode="constant", fill_value=AWAY, **o),
    "quarter turns": lambda **o: knl.RandomRot90((0, 2), **o),
    "rotation crop": lambda **o: knl.RandomRotation(0.5, "constant", fill_value=AWAY, expand="crop", **o),
    "rotation fit": lambda **o: knl.RandomRotation(0.5, "constant", fill_value=AWAY, expand="fit", **o),
    "affine": lambda **o: knl.RandomAffine(0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, "constant", fill_value=AWAY, **o),
    "affine old": lambda **o: knl.RandomAffine(
        rotation_range=30,
        width_shift_range=3,
        height_shift_range=0.1,
        shear_range=20,
        zoom_range=0.3,
        fill_mode="constant",
        fill_value=AWAY,
        **o,
    ),
    "perspective": lambda **o: knl.RandomPerspective((1.0, 1.0), 0.5, fill_value=AWAY, **o),
    "crop": lambda **o: knl.RandomCrop(13, 17, **o),
    "crop enlarged": lambda **o: knl.RandomCrop(26, 38, **o),
    "resized crop": lambda **o: knl.RandomResizedCrop(25, 27, (0.3, 1.0), **o),
    "one of": lambda **o: knl.OneOf(
        [
            knl.RandomRotation(0.3, "constant", fill_value=AWAY),
            [knl.RandomFlip(), knl.RandomZoom(0.3, None, "constant", fill_value=AWAY)],
            knl.RandomPerspective((1.0, 1.0), 0.3, fill_value=AWAY),
        ],
        **o,
    ),
    "chain with a crop": lambda **o: knl.Augment(
        [
            knl.RandomFlip(),
            knl.RandomRotation(0.1, "constant", fill_value=AWAY),
            knl.RandomCrop(15, 20),
            knl.RandomShear(0.2, 0.1, fill_mode="constant", fill_value=AWAY),
        ],
        **o,
    ),
    "chain": lambda **o: knl.Augment(
        [
            knl.RandomFlip(),
            knl.RandomShear(0.3, 0.3, fill_mode="constant", fill_value=AWAY),
            knl.RandomBrightness(0.0, value_range=(AWAY, 255)),
            knl.RandomRotation(0.5, "constant", fill_value=AWAY),
            knl.RandomTranslation(0.2, 0.2, "constant", fill_value=AWAY),
        ],
        **o,
    ),
    "two stages": lambda **o: knl.Augment(
        [
            knl.RandomRotation(0.2, "constant", fill_value=AWAY),
            knl.RandomZoom((0.1, 0.4), None, "constant", "nearest", fill_value=AWAY),
            knl.RandomFlip(),
        ],
        **o,
    ),
}
NUMBER = 6


@pytest.mark.parametrize("kind", MOVES)
def test_pixels_masks_and_keypoints_move_alike(kind):
    """Pixels hold their own coordinates: an output pixel says where it is from; a keypoint there must be here."""
    y, x = np.indices((HEIGHT, WIDTH))
    image = np.stack([x, y, 0 * x], -1).astype("float32")  # and a channel that shows where a fill was mixed in
    masks = np.repeat((1 + y * WIDTH + x)[None], NUMBER, 0).astype("int32")
    layer = MOVES[kind](seed=3)
    images = np.repeat(image[None], NUMBER, 0)
    layer.build(images.shape)
    u = catalogue.quantiles(layer, NUMBER, seed=5)
    data = {"images": images, "segmentation_masks": masks}
    out = {key: to_numpy(value) for key, value in layer.apply(data, u).items()}
    seen = 0
    for number in range(NUMBER):
        source, mixed_in = out["images"][number][..., :2], out["images"][number][..., 2]
        inside = mixed_in > -1e-3
        rows, columns = np.nonzero(inside)
        keypoints = np.zeros((NUMBER, len(rows), 2), "float32")
        keypoints[number] = source[inside]
        moved = to_numpy(layer.apply({"images": images, "keypoints": keypoints}, u)["keypoints"])[number]
        slack = 0.5 + CLOSE if kind != "two stages" else 1.5  # the second stage reads the nearest pixel of the first
        interior = (source[inside] > 0.01).all(-1) & (source[inside] < [WIDTH - 1.01, HEIGHT - 1.01]).all(-1)
        off = np.abs(moved - np.stack([columns, rows], -1)).max(-1)
        assert off[interior].max() < (slack if kind == "two stages" else 0.05)
        label = out["segmentation_masks"][number][inside] - 1
        nearest = np.stack([label % WIDTH, label // WIDTH], -1)
        assert np.abs(nearest - source[inside])[interior].max() < (0.51 if kind != "two stages" else 1.01)
        seen += interior.sum()
    assert seen > NUMBER * HEIGHT * WIDTH / 5


@pytest.mark.parametrize("kind", MOVES)
def test_a_box_is_the_hull_of_its_mask(kind):
    """As far as the mask is in the picture: the corner of a moved rectangle may lie between pixel centres."""
    masks = np.zeros((NUMBER, HEIGHT, WIDTH), "uint8")
    masks[:, 6:14, 9:22] = 1
    boxes = np.tile(np.array([9, 6, 22, 14], "float32"), (NUMBER, 1, 1))
    images = np.zeros((NUMBER, HEIGHT, WIDTH, 2), "float32")
    layer = MOVES[kind](seed=3, bounding_box_format="xyxy")
    layer.build(images.shape)
    data = {"images": images, "segmentation_masks": masks}
    data["bounding_boxes"] = {"boxes": boxes, "labels": np.zeros((NUMBER, 1), "int32")}
    out = layer.apply(data, catalogue.quantiles(layer, NUMBER, seed=5))
    moved, masks = to_numpy(out["bounding_boxes"]["boxes"])[:, 0], to_numpy(out["segmentation_masks"])
    slack = {"flip": 0.0, "quarter turns": 0.0, "crop": 0.0, "translation": 0.501}.get(kind, 1.5)
    compared = 0
    for box, mask in zip(moved, masks):
        rows, columns = np.nonzero(mask)
        cut = box[0] <= 0 or box[1] <= 0 or box[2] >= mask.shape[1] or box[3] >= mask.shape[0]
        if slack > 1 and cut:  # of a slanted box that the border cuts, the hull is that of the whole box
            continue
        hull = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(box - hull).max() <= slack * max(1.0, mask.shape[0] / HEIGHT)
        compared += 1
    assert compared > 0
