"""A chain in one pass: equal to its layers one by one, moving masks, boxes and keypoints as it moves pixels."""

import numpy as np
import pytest
from reference import transforms as reference
from reference.warp import warp as slow_warp

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy
from keras_norm_layers.transforms.plan import Plan, stages

pytestmark = pytest.mark.usefixtures("uncompiled")
HEIGHT, WIDTH = 20, 31
CLOSE = 1e-3


def smooth(number=2, channels=2):
    """Images without edges, values from 70 to 180: interpolating them twice or once is nearly the same."""
    n, y, x, c = np.indices((number, HEIGHT, WIDTH, channels))
    waves = np.sin(x / 6.0 + n + c) * 25 + np.cos(y / 5.0 - n) * 20 + 125 + c
    return waves.astype("float32")


def one_by_one(transforms, images):
    for transform in transforms:
        images = to_numpy(transform(images))
    return images


def fixed(kind, **options):
    """A transform whose parameters have only one value."""
    return {
        "rotation": lambda: knl.RandomRotation((0.03, 0.03), **options),
        "zoom": lambda: knl.RandomZoom((-0.2, -0.2), (-0.1, -0.1), **options),
        "zoom out": lambda: knl.RandomZoom((0.3, 0.3), **options),
        "translation": lambda: knl.RandomTranslation((0.1, 0.1), (-0.08, -0.08), **options),
        "brightness": lambda: knl.RandomBrightness((0.1, 0.1), **options),
        "darkness": lambda: knl.RandomBrightness((-0.15, -0.15), **options),
        "channel": lambda: knl.RandomChannelShift((0.05, 0.05), **options),
        "contrast": lambda: contrast(1.3, **options),
    }[kind]()


class FixedContrast(knl.RandomContrast):
    """A contrast of one value, which the public arguments do not offer: their range always holds 1."""

    def __init__(self, value, **options):
        super().__init__(0.0, **options)
        self.value = value

    def specs(self):
        from keras_norm_layers.transforms.sampling import Uniform

        return {"contrast": Uniform(self.value, self.value, identity=1.0)}


def contrast(value, **options):
    return FixedContrast(value, **options)


INNER = (slice(None), slice(5, -5), slice(7, -7))  # where no chain below brings the border
CHAINS = [
    ["rotation", "zoom"],
    ["rotation", "translation", "zoom"],
    ["brightness", "contrast", "channel"],
    ["brightness", "rotation", "contrast"],
    ["rotation", "contrast", "zoom"],
    ["contrast", "rotation", "contrast", "zoom", "contrast"],
    ["darkness", "zoom", "channel", "translation", "brightness"],
]


@pytest.mark.parametrize("fill_mode", ["reflect", "constant"])
@pytest.mark.parametrize("kinds", CHAINS, ids="-".join)
def test_a_chain_is_its_layers_one_by_one(kinds, fill_mode):
    geometry = ("rotation", "zoom", "translation")
    make = lambda: [fixed(k, **({"fill_mode": fill_mode} if k in geometry else {})) for k in kinds]  # noqa: E731
    images = smooth()
    chain, singles = to_numpy(knl.Augment(make())(images)), one_by_one(make(), images)
    moves = sum(kind in geometry for kind in kinds)
    if moves == 0:
        np.testing.assert_allclose(chain, singles, atol=1e-4 * 255)
    elif moves == 1 and fill_mode == "reflect":
        np.testing.assert_allclose(chain, singles, atol=2e-2)
    else:
        # Several interpolations against one; a mean that is seen through a constant fill is the same mean.
        np.testing.assert_allclose(chain[INNER], singles[INNER], atol=1.0)


def test_one_move_with_a_constant_fill_is_equal_to_the_last_pixel():
    """The fill takes no colour that stands before the move, and all that stand after it."""
    images = smooth()

    def make():
        move = knl.RandomTranslation((0.25, 0.25), (0.2, 0.2), fill_mode="constant", fill_value=40.0)
        return [fixed("brightness"), move, contrast(1.3), fixed("darkness")]

    np.testing.assert_allclose(to_numpy(knl.Augment(make())(images)), one_by_one(make(), images), atol=2e-2)


def test_a_flip_before_a_colour_does_not_let_it_colour_the_fill():
    images = smooth()

    def make():
        flip = knl.RandomFlip("horizontal")
        flip.specs = lambda: {"horizontal": ALWAYS}
        move = knl.RandomTranslation((0.25, 0.25), 0.0, fill_mode="constant", fill_value=40.0)
        return [flip, fixed("brightness"), contrast(1.2), move]

    out = to_numpy(knl.Augment(make())(images))
    np.testing.assert_allclose(out[:, :5], 40.0, atol=1e-3)
    np.testing.assert_allclose(out, one_by_one(make(), images), atol=2e-2)


class Always:
    """A coin that always falls on 1."""

    per_channel = False

    def quantile(self, u, strength):
        return u * 0.0 + 1.0


ALWAYS = Always()


def test_two_fills_make_two_stages_and_are_the_layers_one_by_one():
    images = smooth()

    def make():
        return [fixed("rotation", fill_mode="constant", fill_value=9.0), fixed("zoom out", fill_mode="reflect")]

    assert len(stages(make())) == 2
    np.testing.assert_allclose(to_numpy(knl.Augment(make())(images)), one_by_one(make(), images), atol=CLOSE)


def test_how_lists_are_cut_into_stages():
    def count(*transforms):
        return len(stages(list(transforms)))

    constant = {"fill_mode": "constant"}
    assert count(fixed("rotation"), fixed("zoom"), fixed("brightness"), fixed("translation")) == 1
    assert count(fixed("rotation"), knl.RandomFlip(), fixed("zoom")) == 1
    assert count(fixed("rotation", **constant), knl.RandomFlip(), fixed("zoom", **constant)) == 1
    assert count(fixed("rotation"), fixed("zoom", **constant)) == 2
    assert count(fixed("rotation"), fixed("zoom", interpolation="nearest")) == 2
    assert count(fixed("rotation", fill_value=1.0, **constant), fixed("zoom", fill_value=2.0, **constant)) == 2
    assert count(fixed("brightness"), contrast(1.2)) == 1


def test_slots_are_counted_by_channel_and_by_gate():
    transforms = [
        knl.RandomChannelShift(0.1, p=0.5),
        knl.RandomZoom(0.1, 0.2),
        knl.RandomChannelShift(0.1, shared=True),
    ]
    assert Plan(transforms, 3).slots == (1 + 3) + 2 + 1
    assert Plan(transforms, 7).slots == (1 + 7) + 2 + 1


# Each transform against its definition ------------------------------------------------------------------------------

PULLS = {
    "rotation": (fixed("rotation"), lambda shape: reference.rotation(shape, 0.03)),
    "zoom": (fixed("zoom"), lambda shape: reference.zoom(shape, -0.2, -0.1)),
    "zoom out": (fixed("zoom out"), lambda shape: reference.zoom(shape, 0.3, 0.3)),
    "translation": (fixed("translation"), lambda shape: reference.translation(shape, 0.1, -0.08)),
}


@pytest.mark.parametrize("kind", PULLS)
def test_a_geometric_layer_is_its_definition(kind):
    layer, pull = PULLS[kind]
    image = np.random.default_rng(0).uniform(0, 255, (1, 9, 12, 1)).astype("float32")
    truth = slow_warp(image[0], pull((9, 12)), "bilinear", "reflect")
    np.testing.assert_allclose(to_numpy(layer(image))[0], truth, atol=CLOSE)


@pytest.mark.parametrize("sign", [1, -1])
def test_shear_is_its_definition(sign):
    image = np.random.default_rng(0).uniform(0, 255, (1, 9, 12, 1)).astype("float32")
    layer = knl.RandomShear((0.3, 0.3), (0.2, 0.2))
    u = np.array([[0.5, 0.5, 0.1 if sign == 1 else 0.9]], "float32")
    truth = slow_warp(image[0], reference.shear((9, 12), sign * 0.3, sign * 0.2), "bilinear", "reflect")
    np.testing.assert_allclose(to_numpy(layer.apply(image, u))[0], truth, atol=CLOSE)


def test_colour_layers_are_their_definitions():
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 12, 3)).astype("uint8")
    for value in (0.3, -0.4):
        ours = to_numpy(knl.RandomBrightness((value, value))(image))[0]
        np.testing.assert_allclose(ours, reference.brightness(image[0], value), atol=1e-3)
        ours = to_numpy(contrast(1 + value)(image))[0]
        np.testing.assert_allclose(ours, reference.contrast(image[0], 1 + value), atol=1e-2)
    shift = knl.RandomChannelShift((0.0, 0.5))
    ours = to_numpy(shift.apply(image, np.array([[0.0, 0.5, 0.9]], "float32")))[0]
    np.testing.assert_allclose(ours, reference.channel_shift(image[0], [0.0, 0.25, 0.45]), atol=1e-3)


def test_channel_shift_clipped_to_the_image():
    image = np.random.default_rng(0).integers(60, 200, (2, 9, 12, 3)).astype("uint8")
    out = to_numpy(knl.RandomChannelShift((0.5, 0.5), clip_to="image")(image))
    for before, after in zip(image, out):
        np.testing.assert_allclose(after, np.clip(before + 127.5, before.min(), before.max()), atol=1e-3)


# Exact ---------------------------------------------------------------------------------------------------------------


def random_bits(shape=(3, 6, 8, 2)):
    return np.random.default_rng(0).uniform(0, 1, shape).astype("float32")


def test_flips_are_exact_alone_and_in_a_chain():
    images = random_bits()
    flips = {(0, 0): images, (1, 0): images[:, :, ::-1], (0, 1): images[:, ::-1], (1, 1): images[:, ::-1, ::-1]}
    for (across, down), truth in flips.items():
        u = np.tile(np.array([[1 - across, 1 - down]], "float32") * 0.9, (3, 1))
        np.testing.assert_array_equal(to_numpy(knl.RandomFlip().apply(images, u)), truth)
        twice = knl.Augment([knl.RandomFlip(), knl.RandomFlip("vertical")])
        u = np.concatenate([u, np.zeros((3, 1), "float32")], 1)
        np.testing.assert_array_equal(to_numpy(twice.apply(images, u)), truth[:, ::-1])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("shift", [(0, 3), (2, 0), (-1, 5), (6, -8), (3, -4)])
def test_whole_pixel_translations_that_wrap_are_np_roll(shift, interpolation):
    images = random_bits()
    down, right = shift[0] / 6, shift[1] / 8
    layer = knl.RandomTranslation((down, down), (right, right), "wrap", interpolation)
    np.testing.assert_array_equal(to_numpy(layer(images)), np.roll(images, shift, (1, 2)))
    chain = knl.Augment([knl.RandomFlip("vertical"), layer])
    chain.build(images.shape)
    out = to_numpy(chain.apply(images, np.zeros((3, chain.plan.slots), "float32")))
    np.testing.assert_array_equal(out, np.roll(images[:, ::-1], shift, (1, 2)))
