"""Every error names the argument, what was given and what is allowed; nothing wrong passes in silence."""

import re
import warnings

import keras
import numpy as np
import pytest

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

NAN, INF = float("nan"), float("inf")
X = np.full((2, 5, 6, 3), 100, "uint8")

# (what makes the error, what its message must say: the argument, what was given, what is allowed)
ARGUMENTS = [
    (lambda: knl.RandomFlip("diagonal"), ["`mode`", "'diagonal'", "horizontal", "vertical"]),
    (lambda: knl.RandomRotation((-5, 0.2)), ["`factor`", "(-5, 0.2)", "-1", "1"]),
    (lambda: knl.RandomRotation(1.5), ["`factor`", "1.5", "[-1, 1]"]),
    (lambda: knl.RandomRotation((0.2, -0.2)), ["`factor`", "(0.2, -0.2)", "lower <= upper"]),
    (lambda: knl.RandomRotation(NAN), ["`factor`", "nan", "[-1, 1]"]),
    (lambda: knl.RandomRotation((0, NAN)), ["`factor`", "nan", "lower <= upper"]),
    (lambda: knl.RandomRotation((0, 0.1, 0.2)), ["`factor`", "(0, 0.1, 0.2)", "pair"]),
    (lambda: knl.RandomRotation(True), ["`factor`", "True", "pair"]),
    (lambda: knl.RandomRotation("0.1"), ["`factor`", "'0.1'", "pair"]),
    (lambda: knl.RandomRotation(), ["`factor`", "`degrees`", "None"]),
    (lambda: knl.RandomRotation(0.1, degrees=20), ["`factor`", "`degrees`", "0.1", "20"]),
    (lambda: knl.RandomRotation(degrees=400), ["`degrees`", "400", "360"]),
    (lambda: knl.RandomRotation(0.1, fill_mode="mirror"), ["`fill_mode`", "'mirror'", "reflect", "wrap"]),
    (lambda: knl.RandomRotation(0.1, interpolation="lanczos"), ["`interpolation`", "'lanczos'", "bilinear"]),
    (lambda: knl.RandomRotation(0.1, fill_value=INF), ["`fill_value`", "inf", "finite"]),
    (lambda: knl.RandomRotation(0.1, fill_value=None), ["`fill_value`", "None", "number"]),
    (lambda: knl.RandomRotation(0.1, p=1.2), ["`p`", "1.2", "[0, 1]"]),
    (lambda: knl.RandomRotation(0.1, p=NAN), ["`p`", "nan", "[0, 1]"]),
    (lambda: knl.RandomRotation(0.1, same_on_batch=1), ["`same_on_batch`", "1", "True or False"]),
    (lambda: knl.RandomRotation(0.1, seed="7"), ["`seed`", "'7'", "integer"]),
    (lambda: knl.RandomRotation(0.1, seed=1.0), ["`seed`", "1.0", "integer"]),
    (lambda: knl.RandomRotation(0.1, seed=True), ["`seed`", "True", "integer"]),
    (lambda: knl.RandomRotation(0.1, seed=-1), ["`seed`", "-1", "[0, 2**31)"]),
    (lambda: knl.RandomRotation(0.1, seed=2**31), ["`seed`", str(2**31), "[0, 2**31)"]),
    (lambda: knl.RandomRotation(0.1, data_format="NCHW"), ["`data_format`", "'NCHW'", "channels_first"]),
    (lambda: knl.RandomRotation(0.1, bounding_box_format="coco"), ["`bounding_box_format`", "'coco'", "rel_xyxy"]),
    (lambda: knl.RandomRotation(0.1, mask_fill_value=NAN), ["`mask_fill_value`", "nan", "number"]),
    (lambda: knl.RandomTranslation(1.5, 0.1), ["`height_factor`", "1.5", "[-1, 1]"]),
    (lambda: knl.RandomTranslation(0.1, (0.3, -0.3)), ["`width_factor`", "(0.3, -0.3)", "lower <= upper"]),
    (lambda: knl.RandomZoom((-1.0, 0.0)), ["`height_factor`", "(-1.0, 0.0)", "above -1"]),
    (lambda: knl.RandomZoom(0.1, -1.0), ["`width_factor`", "-1.0", "above -1"]),
    (lambda: knl.RandomZoom(2.0), ["`height_factor`", "2.0", "1"]),
    (lambda: knl.RandomShear(-0.1), ["`x_factor`", "-0.1", "[0, 1]"]),
    (lambda: knl.RandomShear((-0.1, 0.1)), ["`x_factor`", "(-0.1, 0.1)", "0 <= lower"]),
    (lambda: knl.RandomShear(1.0, 1.0), ["`x_factor`", "`y_factor`", "1.0", "below 1"]),
    (lambda: knl.RandomBrightness(2), ["`factor`", "2", "[-1, 1]"]),
    (lambda: knl.RandomBrightness(NAN), ["`factor`", "nan", "[-1, 1]"]),
    (lambda: knl.RandomBrightness(0.1, (255, 0)), ["`value_range`", "(255, 0)", "lower"]),
    (lambda: knl.RandomBrightness(0.1, (0, 0)), ["`value_range`", "(0, 0)", "below"]),
    (lambda: knl.RandomBrightness(0.1, (0, INF)), ["`value_range`", "inf", "finite"]),
    (lambda: knl.RandomBrightness(0.1, 255), ["`value_range`", "255", "pair"]),
    (lambda: knl.RandomContrast(1.5), ["`factor`", "1.5", "[0, 1]"]),
    (lambda: knl.RandomContrast((-0.5, 0.5)), ["`factor`", "(-0.5, 0.5)", "[0, 1]"]),
    (lambda: knl.RandomContrast(NAN), ["`factor`", "nan", "[0, 1]"]),
    (lambda: knl.RandomChannelShift(0.1, clip_to="pixels"), ["`clip_to`", "'pixels'", "image"]),
    (lambda: knl.RandomChannelShift(0.1, shared="yes"), ["`shared`", "'yes'", "True or False"]),
    (lambda: knl.Augment([]), ["`transforms`", "[]", "list"]),
    (lambda: knl.Augment(knl.RandomFlip()), ["`transforms`", "RandomFlip", "list"]),
    (lambda: knl.Augment([knl.RandomFlip(), keras.layers.RandomFlip()]), ["`transforms`", "place 1", "RandomFlip"]),
    (lambda: knl.Augment([knl.Augment([knl.RandomFlip()])]), ["`transforms`", "place 0", "Augment"]),
    (lambda: knl.Augment([knl.RandomFlip], seed=1), ["`transforms`", "place 0", "RandomFlip"]),
    (lambda: knl.Augment([knl.RandomFlip()], strength=1.5), ["`strength`", "1.5", "[0, 1]"]),
    (lambda: knl.Augment([knl.RandomFlip()], seed=None, strength="full"), ["`strength`", "'full'", "number"]),
]


@pytest.mark.parametrize(
    ("make", "said"), ARGUMENTS, ids=lambda value: "-".join(value) if isinstance(value, list) else ""
)
def test_a_bad_argument_is_named_with_what_was_given_and_what_is_allowed(make, said):
    with pytest.raises(ValueError) as error:
        make()
    message = str(error.value)
    assert all(word in message for word in said), message


def moved(data, layer=None, **options):
    return (layer or knl.RandomRotation(0.1, **options))(data)


def boxes(shape=(2, 4, 4), labels=(2, 4)):
    return {"boxes": np.ones(shape, "float32"), "labels": np.ones(labels, "int32")}


DATA = [
    (lambda: moved(X[0, 0]), ["images", "(H, W, C)", "(6, 3)"]),
    (lambda: moved(X[None, None]), ["images", "(N, H, W, C)", "(1, 1, 2, 5, 6, 3)"]),
    (lambda: moved({"image": X}), ["'images'", "'image'"]),
    (lambda: moved({"images": X, "mask": X}), ["'segmentation_masks'", "'mask'"]),
    (lambda: moved({"images": X, "bounding_boxes": boxes()}), ["`bounding_box_format`", "xyxy"]),
    (
        lambda: moved({"images": X, "bounding_boxes": boxes()["boxes"]}, bounding_box_format="xyxy"),
        ["'bounding_boxes'", "'boxes'", "'labels'"],
    ),
    (
        lambda: moved({"images": X, "bounding_boxes": boxes((2, 4, 5))}, bounding_box_format="xyxy"),
        ["boxes", "(N, K, 4)", "(2, 4, 5)"],
    ),
    (
        lambda: moved({"images": X, "bounding_boxes": boxes(labels=(2, 3))}, bounding_box_format="xyxy"),
        ["labels of the boxes", "(N, K)", "(2, 3)"],
    ),
    (lambda: moved({"images": X, "segmentation_masks": X[:, :4]}), ["segmentation_masks", "(2, 4, 6, 3)"]),
    (lambda: moved({"images": X, "segmentation_masks": X[0, ..., 0]}), ["segmentation_masks", "(5, 6)"]),
    (lambda: moved({"images": X, "keypoints": np.ones((2, 3, 3))}), ["keypoints", "(N, K, 2)", "(2, 3, 3)"]),
    (lambda: moved({"images": X, "keypoints": np.ones((3, 2))}), ["keypoints", "(N, K, 2)", "(3, 2)"]),
    (
        lambda: moved({"images": X, "segmentation_masks": X[..., 0]}, mask_fill_value=300),
        ["`mask_fill_value`", "300", "uint8"],
    ),
    (
        lambda: moved({"images": X, "segmentation_masks": X[..., 0]}, mask_fill_value=0.5),
        ["`mask_fill_value`", "0.5", "whole"],
    ),
]


@pytest.mark.parametrize(("call", "said"), DATA, ids=lambda value: "-".join(value) if isinstance(value, list) else "")
def test_bad_data_is_named_with_what_was_given_and_what_is_allowed(call, said):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert all(word in message for word in said), message


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2, 2, 1), (2,)])
def test_a_draw_of_the_wrong_shape_is_refused(shape):
    layer = knl.RandomTranslation(0.1, 0.1)
    with pytest.raises(ValueError, match=re.escape("`u` must have the shape (2, 2)")):
        layer.apply(X, np.zeros(shape, "float32"))


def test_draw_before_the_shape_is_known_says_what_to_do():
    with pytest.raises(ValueError, match="`build`"):
        knl.RandomFlip().draw(2)


def test_another_number_of_channels_is_refused_only_where_it_matters():
    layer = knl.RandomChannelShift(0.1)
    layer(X)
    with pytest.raises(ValueError, match=r"3 channels.*\(2, 5, 6, 1\)"):
        layer(X[..., :1])
    flip = knl.RandomFlip()
    assert tuple(flip(X).shape) == X.shape
    assert tuple(flip(X[..., :1]).shape) == (2, 5, 6, 1)


def test_an_unknown_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="number of channels"):
        knl.RandomFlip().build((None, 4, 4, None))


@pytest.mark.parametrize(
    ("images", "value_range"),
    [
        (np.linspace(0, 1, 48, dtype="float32").reshape(1, 4, 4, 3), (0, 255)),
        (np.linspace(-1, 1, 48, dtype="float32").reshape(1, 4, 4, 3), (0, 255)),
        (np.linspace(0, 255, 48, dtype="float32").reshape(1, 4, 4, 3), (0, 1)),
    ],
)
def test_images_that_do_not_suit_the_value_range_are_warned_of_once(images, value_range):
    layer = knl.Augment([knl.RandomBrightness(0.1, value_range)], name="mine")
    with pytest.warns(UserWarning, match=r"'mine'.*value_range=.*Give the range of your images"):
        layer(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(images)


def test_images_that_suit_the_value_range_are_not_warned_of():
    layer = knl.RandomBrightness(0.1)
    assert to_numpy(layer(X)).shape == X.shape
    assert to_numpy(knl.RandomBrightness(0.1)(X * 0)).shape == X.shape
    assert to_numpy(knl.RandomBrightness(0.1)((X > 0).astype("uint8"))).shape == X.shape
