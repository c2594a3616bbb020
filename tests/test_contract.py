"""The promises of the package, each over the whole catalogue, under the Keras backend: functions of a draw."""

import catalogue
import keras
import numpy as np
import pytest
from catalogue import (
    CHAINS,
    DRAWING_NOTHING,
    FEW_OUTCOMES,
    MIXING,
    NORMALIZATION,
    RANDOM,
    RESIZING,
    images,
    normalization_layer,
    quantiles,
    random_layer,
)
from conftest import BACKEND
from contract import (
    CLOSE,
    ONE_DRAW_A_BATCH,
    ONE_OF_EACH,
    all_random,
    apply,
    in_a_compiled_graph,
    uncompiled,
    without_compiler,
)

import keras_norm_layers as knl
from keras_norm_layers.kernels import backend
from keras_norm_layers.kernels.backend import to_numpy

# The identity -------------------------------------------------------------------------------------------------------


@uncompiled
@pytest.mark.parametrize("name", [name for name in RANDOM if name not in RESIZING])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_training_false_is_the_identity_in_float32(name, dtype):
    x = images(3, dtype=dtype)
    out = to_numpy(random_layer(name)(x, training=False))
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, x.astype("float32"))


@uncompiled
@all_random
def test_strength_0_is_the_identity_and_strength_1_is_the_layer_itself(name):
    layer = random_layer(name)
    augment = RANDOM[name](seed=7) if name in CHAINS else knl.Augment([RANDOM[name]()], seed=7)
    x, u = images(4), quantiles(layer, 4)
    np.testing.assert_allclose(apply(augment, x, u), apply(layer, x, u), atol=CLOSE)
    augment.strength.assign(0.0)
    identity = to_numpy(layer(x, training=False))  # of a crop: the centre
    np.testing.assert_allclose(apply(augment, x, u), identity, atol=CLOSE)


# One function of u --------------------------------------------------------------------------------------------------


@uncompiled
@all_random
def test_the_same_draw_gives_the_same_output_and_leaves_the_input_alone(name):
    layer, x = random_layer(name), images(4)
    given = backend.namespace(None).asarray(x)
    u = quantiles(layer, 4)
    first, second = apply(layer, given, u), apply(layer, given, u)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(to_numpy(given), images(4))
    np.testing.assert_array_equal(x, images(4))
    assert first.shape == layer.compute_output_shape(x.shape)
    assert first.dtype == np.float32


@pytest.mark.parametrize("name", ONE_OF_EACH if BACKEND == "jax" else RANDOM)  # JAX compiles even single operations
def test_eager_equals_compiled(name):
    layer, x = random_layer(name), backend.namespace(None).asarray(images(4))
    u = quantiles(layer, 4)
    eager = without_compiler(lambda: apply(layer, x, u))
    layer = RANDOM[name](seed=7)
    np.testing.assert_allclose(apply(layer, x, u), eager, atol=CLOSE)
    if name in ONE_OF_EACH:
        for compiled in in_a_compiled_graph(lambda data: layer.apply(data, u), x):
            np.testing.assert_allclose(to_numpy(compiled), eager, atol=CLOSE)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler imports torch's own
def test_torch_compile_equals_eager(monkeypatch):
    x = images(4)
    layer = knl.Augment([knl.RandomFlip(), knl.RandomRotation(0.1), knl.RandomBrightness(0.2)], seed=7)
    layer.build((None, *x.shape[1:]))
    u = quantiles(layer, 4)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "0")
    eager = apply(layer, x, u)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    np.testing.assert_allclose(apply(layer, x, u), eager, atol=CLOSE)


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler imports torch's own
@all_random
def test_torch_compile_reads_the_pass_as_one_graph(name, monkeypatch):
    import torch

    compile, read = torch.compile, []

    def without_code(function, **options):  # reading is what may fail; to make code of it takes minutes
        read.append(options)
        return compile(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", without_code)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    layer = random_layer(name)
    apply(layer, images(4), quantiles(layer, 4))  # a warning, an error here, would say that it could not be read whole
    assert read == [{"fullgraph": True}]


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
def test_on_a_cpu_torch_compiles_small_batches_only_when_told_to(monkeypatch):
    import torch

    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    for wish, number in ((None, 0), ("auto", 0), ("0", 0), ("1", 1)):
        if wish is None:
            monkeypatch.delenv("KERAS_NORM_LAYERS_TORCH_COMPILE", raising=False)
        else:
            monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", wish)
        RANDOM["flip"](seed=7)(np.zeros((8, 224, 224, 3), "uint8"))
        assert len(compiled) == number


@pytest.mark.skipif(BACKEND != "torch", reason="about torch.compile")
@pytest.mark.parametrize("when", ["made", "called"])
def test_where_torch_compile_fails_there_is_one_warning_and_the_eager_result(when, monkeypatch):
    import torch

    def fails(*args, **options):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    monkeypatch.setattr(torch, "compile", fails if when == "made" else lambda function, **options: fails)
    layer = RANDOM["rotation"](seed=7)
    layer.build((None, catalogue.HEIGHT, catalogue.WIDTH, 3))
    x, u = images(2), quantiles(layer, 2)
    with pytest.warns(UserWarning, match=r"torch.compile failed \(no C\+\+ compiler\)"):
        out = apply(layer, x, u)
    np.testing.assert_array_equal(apply(layer, x, u), out)  # and no second warning, which would be an error


@uncompiled
@pytest.mark.parametrize("name", [name for name in RANDOM if name not in MIXING])
def test_a_batch_equals_its_singles(name):
    layer, x = random_layer(name), images(3)
    u = quantiles(layer, 3)
    if name in ONE_DRAW_A_BATCH:
        u = np.repeat(u[:1], 3, axis=0)
    batch = apply(layer, x, u)
    np.testing.assert_allclose(apply(layer, x[2:], u[2:])[0], batch[2], atol=CLOSE)
    np.testing.assert_allclose(apply(layer, x[1], u[1:2]), batch[1], atol=CLOSE)


@uncompiled
@all_random
def test_channels_first_equals_channels_last(name):
    last, x = random_layer(name), images(3)
    first = RANDOM[name](seed=7, data_format="channels_first")
    u = quantiles(last, 3)
    out = apply(first, np.ascontiguousarray(np.moveaxis(x, -1, 1)), u)
    np.testing.assert_allclose(np.moveaxis(out, 1, -1), apply(last, x, u), atol=CLOSE)


@uncompiled
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", CHAINS)
def test_any_number_of_channels(name, channels):
    x = images(2, channels=channels)
    layer = RANDOM[name](seed=7)
    layer.build(x.shape)
    out = apply(layer, x, quantiles(layer, 2))
    assert out.shape == layer.compute_output_shape(x.shape)
    assert np.isfinite(out).all()


@uncompiled
@pytest.mark.parametrize("shape", [(0, 4, 5, 3), (1, 1, 1, 3), (2, 1, 6, 3), (2, 6, 1, 3)], ids=str)
@all_random
def test_empty_batches_and_images_of_one_pixel_or_line(name, shape):
    layer = RANDOM[name](seed=7)
    out = to_numpy(layer(np.full(shape, 100, "uint8")))
    assert out.shape == layer.compute_output_shape(shape)
    assert ((out >= -0.5) & (out <= 255.01)).all()  # a fill of the catalogue is -0.5


# Draws --------------------------------------------------------------------------------------------------------------


def different(batch):
    return len({image.tobytes() for image in batch})


@uncompiled
@all_random
def test_16_equal_images_go_in_and_different_ones_come_out(name):
    image = np.random.default_rng(2).integers(60, 190, (1, 24, 40, 3)).astype("uint8")
    x = np.repeat(image, 16, axis=0)
    layer = RANDOM[name](seed=9)
    first, second = to_numpy(layer(x)), to_numpy(layer(x))
    if name in DRAWING_NOTHING or name in MIXING:  # equal images are mixed with equal ones
        assert np.ptp(np.concatenate([first, second]), axis=0).max() < CLOSE
        return
    assert not np.array_equal(first, second), "two steps drew the same"
    if name == "brightness once a batch":
        assert different(first) == 1
        return
    if name in FEW_OUTCOMES:
        assert different(np.concatenate([first, second])) == FEW_OUTCOMES[name]
        return
    identity = to_numpy(layer(x[:1], training=False))[0]
    untouched = sum(np.abs(out - identity).max() < 1e-2 for out in first)
    assert untouched < 10
    equal_by_chance = 2 if "nearest" in name else 0  # two maps may round to the same pixels
    assert different(first) >= 16 - max(0, untouched - 1) - equal_by_chance


@uncompiled
@all_random
def test_the_same_seed_draws_the_same_and_another_seed_others(name):
    x = images(4)
    layers = [RANDOM[name](seed=seed) for seed in (11, 11, 12)]
    for layer in layers:
        layer.build(x.shape)
    if layers[0].plan.slots == 0:
        return
    for _ in range(2):
        draws = [to_numpy(layer.draw(4)) for layer in layers]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.isin(draws[2], draws[0]).any()


def test_every_layer_of_the_package_is_in_the_catalogue():
    public = {name: getattr(knl, name) for name in knl.__all__}
    layers = {n for n, v in public.items() if isinstance(v, type) and issubclass(v, keras.layers.Layer)}
    made = [random_layer(name) for name in RANDOM] + [normalization_layer(name) for name in NORMALIZATION]
    assert {type(layer).__name__ for layer in made} == layers
