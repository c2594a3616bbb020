"""The promises over the whole catalogue: masks, boxes and keypoints; values and dtypes."""

import keras
import numpy as np
import pytest
from catalogue import CHAINS, COLOR, GEOMETRIC, RANDOM, images, quantiles, random_layer
from conftest import BACKEND
from contract import CLOSE, apply, uncompiled

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import to_numpy

# Masks, boxes, keypoints --------------------------------------------------------------------------------------------


@uncompiled
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, ("uint8", "int32")[i % 2]) for i, name in enumerate([*GEOMETRIC, *CHAINS])]
)
def test_masks_gain_no_class_and_keep_their_dtype_and_shape(name, dtype):
    x = images(4)
    classes = np.array([3, 50, 200], dtype)
    masks = classes[np.random.default_rng(0).integers(0, 3, x.shape[:3])]
    layer = RANDOM[name](seed=7, mask_fill_value=77)
    u = quantiles(random_layer(name), 4)
    flat = to_numpy(layer.apply({"images": x, "segmentation_masks": masks}, u)["segmentation_masks"])
    deep = to_numpy(layer.apply({"images": x, "segmentation_masks": masks[..., None]}, u)["segmentation_masks"])
    assert flat.dtype == deep.dtype == dtype
    assert flat.shape == layer.compute_output_shape(masks[..., None].shape)[:-1]
    np.testing.assert_array_equal(deep[..., 0], flat)
    assert set(np.unique(flat)) <= {3, 50, 200, 77}
    if not any(filled in name for filled in ("constant", "fit", "perspective", "two stages")):
        assert 77 not in flat


@uncompiled
@pytest.mark.parametrize("name", COLOR)
def test_colour_leaves_masks_boxes_and_keypoints_alone(name):
    layer = RANDOM[name](seed=7, bounding_box_format="xyxy")
    x = images(2)
    data = {
        "images": x,
        "segmentation_masks": (x[..., 0] > 99).astype("uint8"),
        "keypoints": np.ones((2, 3, 2), "float32"),
        "bounding_boxes": {"boxes": np.ones((2, 1, 4), "float32"), "labels": np.zeros((2, 1), "int32")},
        "labels": np.array([4, 5]),
    }
    out = layer(data)
    assert not np.array_equal(to_numpy(out["images"]), x)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_array_equal(to_numpy(a), b),
        {key: value for key, value in out.items() if key != "images"},
        {key: value for key, value in data.items() if key != "images"},
    )


@uncompiled
def test_a_dict_in_is_the_same_dict_out_and_at_inference_nothing_moves():
    layer = RANDOM["augment chain"](seed=7, bounding_box_format="xywh")
    x = images(2)
    data = {
        "images": x,
        "segmentation_masks": x[..., :1],
        "keypoints": np.ones((2, 3, 2), "float32"),
        "bounding_boxes": {"boxes": np.ones((2, 1, 4), "float32"), "labels": np.zeros((2, 1), "int32")},
        "labels": np.array([4, 5]),
    }
    for training in (True, False):
        out = layer(data, training=training)
        assert list(out) == list(data)
        keras.tree.map_structure(lambda a, b: np.testing.assert_equal(tuple(a.shape), b.shape), dict(out), data)
    keras.tree.map_structure(lambda a, b: np.testing.assert_array_equal(to_numpy(a), b), dict(out), data)


# Values and dtypes --------------------------------------------------------------------------------------------------

RANGES = [
    ("uint8", (0, 255)),
    ("uint16", (0, 65535)),
    ("int32", (0, 255)),
    ("int32", (-100000, 100000)),
    ("float16", (0, 255)),
    ("bfloat16", (0, 255)),
    ("float64", (0, 255)),
    ("float32", (0.0, 1.0)),
    ("float32", (-1.0, 1.0)),
    ("float32", (-3.0, -1.0)),
]


@uncompiled
@pytest.mark.parametrize(("dtype", "value_range"), RANGES, ids=lambda value: str(value).replace(" ", ""))
def test_every_dtype_and_range_saturates_and_never_wraps(dtype, value_range):
    low, high = value_range
    ramp = np.linspace(low, high, 2 * 6 * 8 * 3).reshape(2, 6, 8, 3)
    x = keras.ops.cast(ramp.astype("float32"), dtype) if dtype == "bfloat16" else ramp.astype(dtype)
    exact = to_numpy(x).astype("float64")
    brighter = to_numpy(knl.RandomBrightness((0.5, 0.5), value_range)(x))
    assert brighter.dtype == np.float32
    np.testing.assert_allclose(brighter, np.clip(exact + 0.5 * (high - low), low, high), rtol=1e-5, atol=1e-5)
    flipped = to_numpy(knl.RandomFlip("horizontal", seed=1).apply(x, np.zeros((2, 1), "float32")))
    np.testing.assert_array_equal(flipped, exact[:, :, ::-1].astype("float32"))
    chain = knl.Augment([knl.RandomRotation(0.1), knl.RandomContrast(0.9, value_range)], seed=2)
    out = to_numpy(chain(x))
    assert np.isfinite(out).all()
    assert out.min() >= low
    assert out.max() <= high


@uncompiled
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "bfloat16"])
def test_the_dtype_argument_rounds_and_saturates(dtype):
    values = np.array([-1e6, -300, -5.0, 10.6, 11.5, 300.0, 60000.0, 65534.7], "float32")
    # float16 ends at 65504 and has infinity for what is above
    values = values[1:-1] if dtype == "float16" else np.append(values, np.float32(1e11))
    out = knl.RandomFlip("vertical", dtype=dtype)(values.reshape(1, 1, -1, 1))
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    got = to_numpy(keras.ops.cast(out, "float64" if BACKEND != "jax" else "float32")).ravel()
    if "float" in dtype:
        np.testing.assert_allclose(got, values, rtol=1e-2)
        return
    info = np.iinfo(dtype)
    highest = info.max if info.bits < 32 else 2**31 - 128  # the last whole number that float32 has below 2**31
    np.testing.assert_array_equal(got, np.clip(np.round(values.astype("float64")), info.min, highest))


@uncompiled
@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_an_integer_layer_is_the_identity_at_inference_bit_for_bit(dtype):
    x = images(2).astype(dtype) + np.array(0 if dtype == "uint8" else 2**24 + 1, dtype)
    out = to_numpy(knl.RandomBrightness(0.1, dtype=dtype)(x, training=False))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, x)


@uncompiled
def test_the_global_dtype_policy_changes_nothing():
    layer = random_layer("augment chain")
    x, u = images(2), quantiles(layer, 2)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        out = RANDOM["augment chain"](seed=7).apply(x, u)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(to_numpy(out), apply(layer, x, u), atol=CLOSE)
