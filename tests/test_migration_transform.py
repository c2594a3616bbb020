"""ImageDataGenerator's pixels: against SciPy and Pillow, both ways of computing them, and what must not change."""

import contextlib

import numpy as np
import pytest
from conftest import BACKEND
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import ndimage

import keras_norm_layers as knl
from keras_norm_layers.kernels import pull
from keras_norm_layers.migration import coordinates, transform

ranges = st.fixed_dictionaries(
    {
        "rotation_range": st.floats(0, 360),
        "width_shift_range": st.one_of(
            st.floats(0, 5), st.integers(0, 6), st.lists(st.floats(-9, 9), min_size=1, max_size=3)
        ),
        "height_shift_range": st.one_of(
            st.floats(0, 5), st.integers(0, 6), st.lists(st.floats(-9, 9), min_size=1, max_size=3)
        ),
        "brightness_range": st.one_of(st.none(), st.tuples(st.floats(-1, 1), st.floats(1, 3))),
        "shear_range": st.floats(0, 80),
        "zoom_range": st.one_of(st.floats(0, 0.9), st.tuples(st.floats(0.1, 1), st.floats(1, 5))),
        "channel_shift_range": st.floats(0, 300),
        "fill_mode": st.sampled_from(transform.FILL_MODES),
        "cval": st.floats(-10, 300),
        "horizontal_flip": st.booleans(),
        "vertical_flip": st.booleans(),
        "interpolation_order": st.sampled_from([0, 1]),
        "data_format": st.sampled_from(["channels_last", "channels_first"]),
    }
)


@contextlib.contextmanager
def compiled_from(values, at_once=1):
    """Batches of so many values take the compiled pass, about so many ``at_once``; on torch its compiler reads the code
    and makes none, which would take seconds for each program.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pull, "compiles", lambda size: size >= values)
        patch.setattr(transform, "GROUP_VALUES", at_once)
        if BACKEND == "torch":
            import torch

            compile_ = torch.compile
            patch.setattr(torch, "compile", lambda function, **_: compile_(function, backend="eager", fullgraph=True))
        pull._compiled.cache_clear()
        yield
        pull._compiled.cache_clear()


def random_image(rng, shape, low=0, high=255):
    return rng.uniform(low, high, shape).round(1).astype("float32")


@settings(max_examples=150, deadline=None)
@given(ranges, st.integers(0, 2**31), st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)))
def test_any_arguments_keep_shape_and_bounds(arguments, seed, shape):
    rng = np.random.default_rng(seed)
    image = random_image(rng, shape)
    before = image.copy()
    generator = knl.ImageDataGenerator(**arguments)
    result = generator.random_transform(image, seed=seed)
    assert result.shape == image.shape
    assert result.dtype == "float32"
    np.testing.assert_array_equal(image, before)
    low, high = min(image.min(), arguments["cval"]), max(image.max(), arguments["cval"])
    if arguments["brightness_range"] is None:
        assert result.min() >= low - 1e-3
        assert result.max() <= high + 1e-3
    np.testing.assert_array_equal(result, generator.random_transform(image, seed=seed))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(transform.FILL_MODES),
    st.sampled_from([0, 1]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["float32", "float64", "uint8", "int16"]),
    st.lists(st.sampled_from([0.0, 0.5, -1.0, 2.0, 90.0, 180.0, 45.0, -30.0, 7.3]), min_size=4, max_size=4),
    st.sampled_from([0.5, 1.0, 2.0, 1.3]),
)
def test_the_resampling_is_scipys_ties_included(mode, order, size, dtype, numbers, zoom):
    theta, tx, ty, shear = numbers
    matrix = coordinates.pull_matrix({"theta": theta, "tx": tx, "ty": ty, "shear": shear, "zx": zoom}, *size)
    if matrix is None:
        return
    planes = (np.arange(2 * size[0] * size[1]).reshape(2, *size) * 37 % 256).astype(dtype)
    result = transform.resample(planes, matrix, mode, 7.5, order, transform.Memory())
    expected = np.stack(
        [
            ndimage.affine_transform(plane, matrix[:2, :2], matrix[:2, 2], order=order, mode=mode, cval=7.5)
            for plane in planes
        ]
    )
    assert result.dtype == expected.dtype
    # Integers: a sum that is a half but for its last bit may be rounded either way.
    tolerance = 1 if np.dtype(dtype).kind in "iu" and order else 1e-4
    np.testing.assert_allclose(result.astype("float64"), expected.astype("float64"), rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [2, 3, 5, 7, 224, 1023])
def test_reflection_is_right_at_whole_periods_too(size):
    """There a quotient may be rounded to either side."""
    pixels = np.arange(-5 * size, 5 * size)
    expected = np.pad(np.arange(size), 5 * size, "symmetric")[: 10 * size]
    for step in (0.0, 1e-12, -1e-12, 1e-9, -1e-9):
        np.testing.assert_allclose(pull.fold(np, pixels + step, size, "reflect"), expected, rtol=0, atol=2e-9)


def test_brightness_is_pillows():
    ramp = Image.fromarray(np.arange(256, dtype="uint8")[None])
    planes = np.arange(256, dtype="float32").reshape(1, 1, 256)
    for factor in [*np.random.default_rng(0).uniform(-1, 4, 300), 0.0, 1.0, 0.5, 255.0]:
        expected = np.asarray(ImageEnhance.Brightness(ramp).enhance(float(factor)))[0]
        np.testing.assert_array_equal(transform.enhance(planes, factor)[0, 0], expected)


def test_opacity_keeps_its_value():
    image = np.full((2, 2, 4), 100.0, "float32")
    result = knl.ImageDataGenerator().apply_transform(image, {"brightness": 2.0})
    np.testing.assert_array_equal(result[0, 0], [200, 200, 200, 100])


def test_channel_shift_ends_at_the_images_own_extremes():
    image = np.array([10.0, 100.0, 240.0], "float32").reshape(1, 3, 1)
    result = knl.ImageDataGenerator().apply_transform(image, {"channel_shift_intensity": 50.0})
    np.testing.assert_array_equal(result.ravel(), [60, 150, 240])


def test_missing_parameters_change_nothing():
    image = random_image(np.random.default_rng(0), (5, 6, 3))
    generator = knl.ImageDataGenerator()
    for parameters in ({}, coordinates.STILL):
        np.testing.assert_array_equal(generator.apply_transform(image, parameters), image)


def test_channels_first_is_the_same_picture():
    rng = np.random.default_rng(3)
    image = random_image(rng, (7, 5, 3))
    drawn = {"theta": 30.0, "tx": 1.5, "flip_vertical": True, "channel_shift_intensity": 9.0, "brightness": 1.2}
    last = knl.ImageDataGenerator(data_format="channels_last").apply_transform(image, drawn)
    first = knl.ImageDataGenerator(data_format="channels_first").apply_transform(image.transpose(2, 0, 1), drawn)
    np.testing.assert_array_equal(first.transpose(1, 2, 0), last)


def test_splines_and_other_fill_modes_are_scipys():
    image = random_image(np.random.default_rng(1), (8, 8, 2))
    drawn = {"theta": 25.0, "tx": 2.0}
    matrix = coordinates.pull_matrix(drawn, 8, 8)
    for mode, order in (("nearest", 3), ("mirror", 1), ("grid-wrap", 1), ("reflect", 5)):
        result = knl.ImageDataGenerator(fill_mode=mode, interpolation_order=order).apply_transform(image, drawn)
        expected = ndimage.affine_transform(image[..., 1], matrix[:2, :2], matrix[:2, 2], order=order, mode=mode)
        np.testing.assert_allclose(result[..., 1], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fill_mode", transform.FILL_MODES)
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 256), ("float64", -40, 300)])
def test_the_compiled_pass_gives_the_same(fill_mode, order, dtype, low, high):
    arguments = {"rotation_range": 180, "width_shift_range": 3.0, "height_shift_range": 0.3, "zoom_range": [0.5, 2]}
    arguments |= {"shear_range": 20, "horizontal_flip": True, "vertical_flip": True, "cval": 33.3}
    for more in ({}, {"channel_shift_range": 40, "brightness_range": (0.5, 1.5)}):
        generator = knl.ImageDataGenerator(**arguments, **more, fill_mode=fill_mode, interpolation_order=order)
        images = np.random.default_rng(2).integers(low, high, (6, 8, 11, 4 if more else 3)).astype(dtype)
        np.random.seed(5)  # noqa: NPY002  # ImageDataGenerator draws from this generator
        drawn = [generator.get_random_transform(images.shape[1:]) for _ in images]
        drawn[0] |= coordinates.STILL  # one that only flips
        with compiled_from(0, 4 * images[0].size):  # the second group of four has two images
            assert transform.runs_compiled(images.astype("float32"), drawn)
            compiled = transform.transform_batch(images, drawn, "float32", **generator._settings())
        singles = [generator.apply_transform(image.astype("float32"), d) for image, d in zip(images, drawn)]
        np.testing.assert_allclose(compiled, singles, rtol=1e-6, atol=1e-4)
        assert compiled.flags.writeable


def test_any_images_of_an_array_can_be_meant(monkeypatch):
    images = np.random.default_rng(4).integers(0, 256, (9, 8, 10, 3), dtype="uint8")
    numbers = np.array([7, 0, 0, 3, 8])
    generator = knl.ImageDataGenerator(rotation_range=90, brightness_range=(0.5, 2))
    drawn = [generator.get_random_transform((8, 10, 3), seed=i) for i in range(len(numbers))]
    expected = [generator.apply_transform(images[n].astype("float32"), d) for n, d in zip(numbers, drawn)]
    monkeypatch.setattr(transform, "PARALLEL_VALUES", 0)
    for values, at_once in ((0, 1), (0, 2 * images[0].size), (1 << 40, 1)):
        with compiled_from(values, at_once):
            batch = transform.transform_batch(images, drawn, "float32", numbers)
        np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("values", [0, 1 << 40])
def test_a_batch_stays_as_it_was_given(values):
    images = np.random.default_rng(5).integers(0, 256, (8, 9, 7, 3)).astype("float32")
    with compiled_from(values):
        flow = knl.ImageDataGenerator(zoom_range=0.3, channel_shift_range=30).flow(images, batch_size=4, seed=1)
        first = flow[0]
        copy = first.copy()
        second = flow[1]
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(first, images)
    np.testing.assert_array_equal(first, copy)


def test_memory_is_used_again_and_aligned():
    memory = transform.Memory()
    large = memory.array("a", (3, 5), "float64")
    small = memory.array("a", (7,), "float32")
    assert np.shares_memory(large, small)
    assert not np.shares_memory(small, memory.array("b", (7,), "float32"))
    assert all(memory.array("a", (n,), "uint8").ctypes.data % 64 == 0 for n in (1, 100, 10_000))


def test_nothing_is_compiled_for_little_or_in_a_worker_process(monkeypatch):
    assert pull.compiles(1 << 22)
    assert pull.compiles((1 << 22) - 1) is (BACKEND != "torch")
    assert not pull.compiles((1 << 17) - 1)
    monkeypatch.setattr(pull.multiprocessing, "parent_process", object)
    assert not pull.compiles(1 << 22)


@pytest.mark.skipif(BACKEND != "torch", reason="on the others it is made all the time")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler imports torch's own
def test_the_code_that_torch_makes_gives_the_same(monkeypatch):
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    arguments = {"rotation_range": 90, "zoom_range": 0.4, "channel_shift_range": 40, "brightness_range": (0.5, 1.5)}
    generator = knl.ImageDataGenerator(**arguments, fill_mode="reflect")
    images = np.random.default_rng(2).integers(0, 256, (5, 8, 11, 3), dtype="uint8")
    drawn = [generator.get_random_transform(images.shape[1:], seed=seed) for seed in range(5)]
    pull._compiled.cache_clear()
    compiled = transform.transform_batch(images, drawn, "float32", **generator._settings())
    singles = [generator.apply_transform(image.astype("float32"), d) for image, d in zip(images, drawn)]
    np.testing.assert_array_equal(compiled, singles)
    assert pull._compiled.cache_info().misses == 1


def test_images_of_one_row_or_column_take_the_compiled_pass_too():
    for shape, modes in (((3, 1, 5, 1), ("reflect", "nearest")), ((3, 5, 1, 1), ("wrap",)), ((3, 1, 1, 1), ("wrap",))):
        images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        drawn = [{"theta": 20.0 * i, "tx": 0.7} for i in range(3)]
        for fill_mode in modes:
            with compiled_from(0):
                compiled = transform.transform_batch(images, drawn, "float32", fill_mode=fill_mode)
            singles = [transform.transform(image, d, fill_mode=fill_mode) for image, d in zip(images, drawn)]
            np.testing.assert_allclose(compiled, singles, rtol=0, atol=1e-4)


def test_an_epoch_with_a_smaller_last_batch_takes_the_compiled_pass_too():
    images = np.random.default_rng(1).integers(0, 256, (13, 9, 10, 3), dtype="uint8")
    generator = knl.ImageDataGenerator(rotation_range=40, brightness_range=(0.5, 1.5), rescale=1 / 255)
    epochs = []
    for values in (0, 1 << 40):
        with compiled_from(values):
            flow = generator.flow(images, batch_size=5, seed=6)
            epochs.append([next(flow) for _ in range(6)])
    for compiled, plain in zip(*epochs):
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-6)


def test_threads_change_nothing(monkeypatch):
    images = np.random.default_rng(0).uniform(0, 255, (9, 12, 10, 3)).astype("float32")
    generator = knl.ImageDataGenerator(rotation_range=90, channel_shift_range=20, brightness_range=(0.5, 2))
    drawn = [generator.get_random_transform((12, 10, 3), seed=i) for i in range(9)]
    alone = transform.transform_batch(images, drawn, "float32")
    monkeypatch.setattr(transform, "PARALLEL_VALUES", 0)
    np.testing.assert_array_equal(transform.transform_batch(images, drawn, "float32"), alone)


def test_large_images_are_taken_in_blocks(monkeypatch):
    image = random_image(np.random.default_rng(0), (40, 30, 3))
    drawn = {"theta": 33.0, "zx": 1.4}
    for fill_mode in transform.FILL_MODES:
        whole = transform.transform(image, drawn, fill_mode=fill_mode, cval=9.0)
        monkeypatch.setattr(transform, "BLOCK_PIXELS", 100)
        np.testing.assert_array_equal(transform.transform(image, drawn, fill_mode=fill_mode, cval=9.0), whole)
        monkeypatch.undo()


def test_draws_are_spread_as_the_ranges_say():
    generator = knl.ImageDataGenerator(
        rotation_range=30, width_shift_range=0.25, height_shift_range=3, zoom_range=0.2, horizontal_flip=True
    )
    np.random.seed(0)  # noqa: NPY002
    drawn = [generator.get_random_transform((20, 40, 3)) for _ in range(2000)]
    values = {name: np.array([d[name] for d in drawn], "float64") for name in ("theta", "tx", "ty", "zx", "zy")}
    for name, low, high in (("theta", -30, 30), ("ty", -10, 10), ("zx", 0.8, 1.2), ("zy", 0.8, 1.2)):
        assert low <= values[name].min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values[name].max() <= high
        assert abs(values[name].mean() - (low + high) / 2) < 0.05 * (high - low)
    assert set(values["tx"]) == {-2, -1, 0, 1, 2}
    assert 0.45 < np.mean([d["flip_horizontal"] for d in drawn]) < 0.55
    assert not any(d["flip_vertical"] for d in drawn)
    assert np.corrcoef(values["zx"], values["zy"])[0, 1] < 0.1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"data_format": "channels"}, "data_format"),
        ({"validation_split": 1.0}, "validation_split"),
        ({"validation_split": -0.1}, "validation_split"),
        ({"zoom_range": (1, 2, 3)}, "zoom_range"),
        ({"zoom_range": "far"}, "zoom_range"),
        ({"brightness_range": 0.3}, "brightness_range"),
        ({"brightness_range": (1,)}, "brightness_range"),
        ({"rotation_range": "20"}, "rotation_range"),
        ({"shear_range": float("nan")}, "shear_range"),
        ({"width_shift_range": [[1, 2]]}, "width_shift_range"),
        ({"height_shift_range": "all"}, "height_shift_range"),
        ({"fill_mode": "edge"}, "fill_mode"),
        ({"interpolation_order": 6}, "interpolation_order"),
        ({"cval": None}, "cval"),
    ],
)
def test_errors_name_the_argument_and_what_was_given(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Received"):
        knl.ImageDataGenerator(**arguments)


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ({"zca_whitening": True}, {"featurewise_center": True}),
        (
            {"zca_whitening": True, "featurewise_center": True, "featurewise_std_normalization": True},
            {"featurewise_std_normalization": False},
        ),
        ({"featurewise_std_normalization": True}, {"featurewise_center": True}),
        ({"samplewise_std_normalization": True}, {"samplewise_center": True}),
    ],
)
def test_what_one_argument_says_about_another_is_warned_of(arguments, changed):
    with pytest.warns(UserWarning, match=f"sets {next(iter(changed))}={next(iter(changed.values()))}"):
        generator = knl.ImageDataGenerator(**arguments)
    for name, value in changed.items():
        assert getattr(generator, name) is value


def test_images_of_another_rank_are_refused():
    generator = knl.ImageDataGenerator()
    for call in (lambda: generator.apply_transform(np.zeros((3, 3)), {}), lambda: generator.fit(np.zeros((3, 3, 3)))):
        with pytest.raises(ValueError, match=r"rank.*Received"):
            call()
