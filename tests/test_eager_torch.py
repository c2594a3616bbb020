"""What eager torch on a CPU does in ways of its own, because nothing fuses there: the same results, for less work."""

import numpy as np
import pytest
from catalogue import RANDOM, quantiles, random_layer
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels import matrices, pixels, resample, threefry
from keras_norm_layers.kernels.backend import namespace_named, to_numpy
from keras_norm_layers.transforms.base import PixelTransform

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="about eager torch; the others compile every pass")


def tensor(array):
    return namespace_named("torch").asarray(array)


def photos(n, height=40, width=52, dtype="uint8"):
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3)).astype(dtype)


def exact_maps(n, quarter_turns, height, width):
    """Mirrors and, between squares, quarter turns, as matrices (n, 3, 3)."""
    rng = np.random.default_rng(3)
    maps = np.zeros((n, 3, 3), "float32")
    maps[:, 2, 2] = 1.0
    for i in range(n):
        signs = rng.choice([-1.0, 1.0], 2)
        turned = quarter_turns and i % 2
        maps[i, :2, :2] = np.array([[0, signs[0]], [signs[1], 0]] if turned else np.diag(signs))
    return maps


@pytest.mark.parametrize("quarter_turns", [False, True])
@pytest.mark.parametrize("outside", [None, (33, 35)])
def test_a_copy_is_what_reading_each_pixel_gives(quarter_turns, outside, monkeypatch):
    height, width = (45, 45) if quarter_turns else (45, 53)
    outside = outside or (height, width)
    images = tensor(photos(8, height, width))
    maps = exact_maps(8, quarter_turns, height, width)
    slack = min(height - max(outside), width - max(outside)) // 2  # how far the window may be from the middle
    if slack > 0:
        maps[:, :2, 2] = np.random.default_rng(0).integers(-slack, slack + 1, (8, 2))
    maps = tensor(maps)
    copied = namespace_named("torch").copy_exactly(images, maps, outside)
    assert copied is not None
    assert copied.dtype == images.dtype
    monkeypatch.setattr(namespace_named("torch"), "copy_exactly", lambda *args: None)
    np.testing.assert_array_equal(copied, resample.warp(images, maps, "nearest", "nearest", size=outside))


@pytest.mark.parametrize(
    "changed",
    [
        {"rotation": 0.01},
        {"shift": 0.25},  # between pixels
        {"shift": 3.0},  # beyond the border
        {"zoom": 1.05},
        {"size": (20, 20)},  # small images are gathered faster
    ],
    ids=str,
)
def test_what_is_no_copy_is_left_to_interpolation(changed):
    height, width = changed.get("size", (40, 52))
    maps = np.tile(np.eye(3, dtype="float32"), (4, 1, 1))
    maps[2, 0, 1] = changed.get("rotation", 0.0)
    maps[2, 0, 2] = changed.get("shift", 0.0)
    maps[2, 1, 1] = changed.get("zoom", 1.0)
    found = namespace_named("torch").copy_exactly(tensor(photos(4, height, width)), tensor(maps), (height, width))
    assert found is None


def test_flips_crops_and_quarter_turns_are_copies(monkeypatch):
    xp, results = namespace_named("torch"), []
    copy = xp.copy_exactly
    monkeypatch.setattr(xp, "copy_exactly", lambda *args: results.append(copy(*args)) or results[-1])
    images = photos(6, 48, 48)
    for transform in (knl.RandomFlip(seed=1), knl.RandomRot90(seed=1), knl.RandomCrop(40, 37, seed=1)):
        transform(images)
        assert len(results) == 1
        assert results.pop() is not None


def test_gradients_do_not_go_through_a_copy():
    images = tensor(photos(2, dtype="float32")).requires_grad_()
    maps = tensor(np.tile(np.diag([-1.0, 1.0, 1.0]).astype("float32"), (2, 1, 1)))
    resample.warp(images, maps, "nearest", "nearest").square().sum().backward()
    np.testing.assert_allclose(to_numpy(images.grad), 2 * to_numpy(images), rtol=1e-6)


class Counted(PixelTransform):
    """Adds 1, and remembers how many images it was given."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.given = []

    def specs(self):
        return {}

    def change(self, params, images):
        self.given.append(len(images))
        return images + 1.0


def test_a_choice_computes_for_the_chosen_images_only():
    counted = Counted()
    images = photos(64, 8, 8)
    out = to_numpy(knl.Maybe([counted], p=0.4, seed=5)(images))
    chosen = (out != images).any((1, 2, 3))
    assert 0 < chosen.sum() < 64
    assert counted.given == [chosen.sum()]
    np.testing.assert_array_equal(out, images.astype("float32") + chosen[:, None, None, None])


@pytest.mark.parametrize("size", [(9, 8), (7, 12)])
@pytest.mark.parametrize("fill_mode", ["constant", "nearest", "reflect"])
def test_images_may_be_read_a_few_at_a_time(fill_mode, size, monkeypatch):
    import torch

    from keras_norm_layers.kernels import _torch_passes, _torch_reading

    images = tensor(photos(9, 9, 8))
    maps = torch.eye(3).repeat(9, 1, 1) if size == (9, 8) else matrices.rotate(torch.linspace(0.1, 0.9, 9))
    maps[4:6] = matrices.rotate(torch.linspace(0.3, 0.4, 2))
    x, y = resample.coordinates(maps, (9, 8), size)
    sample, parts, results = _torch_reading._sample, [], []
    monkeypatch.setattr(_torch_reading, "_sample", lambda part, *args: parts.append(len(part)) or sample(part, *args))
    for group in (9 * 72 * 3, 2 * 72 * 3):
        monkeypatch.setattr(_torch_passes, "GROUP", group)
        results.append(_torch_reading.affine_sample(images, maps, size, fill_mode, 9.0))
        results.append(_torch_reading.grid_sample(images, x, y, fill_mode, 9.0))
    together = max(2, torch.get_num_threads())
    read = range(0, 9, together)
    # What is left over is read alone; images that no map moves are not read.
    rest = [min(together, 9 - n) for n in read]
    assert parts == [9, 9, *([2] if size == (9, 8) else rest), *rest]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-3)
    if size == (9, 8):
        np.testing.assert_array_equal(results[2][:4], images[:4])
        np.testing.assert_array_equal(results[2][6:], images[6:])


def test_many_small_images_are_read_beside_those_that_stay(monkeypatch):
    import torch

    from keras_norm_layers.kernels import _torch_passes, _torch_reading

    images, maps = tensor(photos(40, 9, 8)), torch.eye(3).repeat(40, 1, 1)
    maps[::2] = matrices.rotate(torch.linspace(0.3, 0.9, 20))
    monkeypatch.setattr(_torch_passes, "GROUP", 15 * 72 * 3)
    found = _torch_reading.affine_sample(images, maps, (9, 8), "reflect", 0.0)
    one_by_one = [
        _torch_reading.affine_sample(images[n][None], maps[n][None], (9, 8), "reflect", 0.0) for n in range(40)
    ]
    np.testing.assert_allclose(found, np.concatenate(one_by_one), atol=1e-3)
    np.testing.assert_array_equal(found[1::2], images[1::2])


@pytest.mark.parametrize("planes", [False, True])  # as a compiled resampling leaves them
def test_large_images_are_changed_one_by_one(planes, monkeypatch):
    operations = [
        *(knl.RandomBrightness(0.5), knl.RandomContrast(0.5), knl.RandomColorDegeneration(0.9), knl.AutoContrast()),
        *(knl.RandomPosterization(3), knl.Solarization(0.5), knl.Equalization(), knl.RandomSharpness(0.9)),
    ]
    given = photos(16, 9, 8, "float32") * 0.7
    given[3] = 20.0  # nothing to equalize or to stretch
    images = tensor(given)
    images = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) if planes else images
    for layer in (*(knl.Maybe(operation, p=0.6) for operation in operations), knl.SomeOf(operations, (1, 8))):
        layer.build(images.shape)
        u, results = layer.draw(16), []
        for size in (1 << 18, images[0].numel()):
            monkeypatch.setattr(namespace_named("torch"), "IN_CACHE", size)
            results.append(to_numpy(layer.apply(images, u)))
            np.testing.assert_array_equal(to_numpy(images), given)
        steps = np.abs(results[1] - results[0])  # of posterization and equalization, after sums of one image or of many
        assert np.mean(steps > 2e-4) < 0.01
        assert (results[0] != given).any()


def test_what_is_written_over_is_never_the_users():
    given = photos(16, 8, 8, "float32")
    images = tensor(given.copy())
    operations = [knl.RandomBrightness(0.5), knl.RandomPosterization(3), knl.Solarization(0.5), knl.RandomInvert()]
    for operation in [*operations, knl.RandomSharpness(0.9), knl.RandomGaussianBlur(), knl.RandomErasing()]:
        first = to_numpy(knl.Maybe([operation], seed=2)(images))
        assert (first != given).any()
        np.testing.assert_array_equal(images, given)


@pytest.mark.parametrize("size", [1, 2, 7, 600])
def test_noise_at_some_places_is_the_field_there(size):
    keys = tensor(np.array([0.1, 0.25, 0.9], "float32"))
    field = to_numpy(threefry.normal_field(keys, (size,)))
    rng = np.random.default_rng(size)
    rows, places = rng.integers(0, 3, 40), rng.integers(0, size, 40)
    found = threefry.normal_at(keys[tensor(rows)][:, None], size, tensor(places)[:, None])
    np.testing.assert_allclose(to_numpy(found)[:, 0], field[rows, places], atol=1e-6)


def test_moved_sums_are_convolutions():
    images = np.random.default_rng(0).normal(size=(2, 5, 11, 3)).astype("float32")
    gains = np.array([0.5, 0.25], "float32")
    for axis in (1, 2):
        found = to_numpy(namespace_named("torch").shifted_sum(tensor(images), [0.2, tensor(gains), 0.3], axis))
        size, padded = images.shape[axis], np.pad(images, [(1, 1) if a == axis else (0, 0) for a in range(4)])
        before, after = (np.take(padded, np.arange(size) + first, axis) for first in (0, 2))
        truth = 0.2 * before + images * gains[:, None, None, None] + 0.3 * after
        np.testing.assert_allclose(found, truth, atol=1e-6)
    narrow = tensor(images[:, :, :1])  # the weights reach beyond it
    found = to_numpy(namespace_named("torch").shifted_sum(narrow, [0.1, 0.2, 0.4, 0.2, 0.1], 2))
    np.testing.assert_allclose(found, images[:, :, :1] * 0.4, atol=1e-6)


def test_matrices_of_quarter_turns_are_exact_enough_to_be_copied():
    turns = tensor(np.array([0.25, 0.5, 0.75], "float32"))
    maps = matrices.invert(matrices.rotate(turns * (2 * np.pi)))
    assert namespace_named("torch").copy_exactly(tensor(photos(3, 48, 48)), maps, (48, 48)) is not None


def test_pasted_rectangles_are_those_of_compiled_code(monkeypatch):
    images, others = (tensor(photos(n, 40, 30, "float32")[:6]) for n in (6, 7))
    rng = np.random.default_rng(3)
    first = rng.uniform(-3, 25, (2, 6)).astype("float32")
    last = first + rng.uniform(0, 20, (2, 6)).astype("float32")
    first[:, 0], last[:, 0] = 4.0, 9.0  # whole numbers: the first is inside, the last is not
    last[0, 1] = first[0, 1]  # nothing is inside
    bounds = [(tensor(first[axis]), tensor(last[axis])) for axis in range(2)]
    before = images.clone()
    found = pixels.pasted(images, others, *bounds)
    monkeypatch.setattr(namespace_named("torch"), "paste", None)
    np.testing.assert_array_equal(found.numpy(), pixels.pasted(images, others, *bounds).numpy())
    np.testing.assert_array_equal(images.numpy(), before.numpy())
    assert found[0, 4, 4, 0] == others[0, 4, 4, 0]
    assert found[0, 9, 9, 0] == images[0, 9, 9, 0]


@pytest.mark.parametrize("name", RANDOM)
def test_numpy_computes_what_torch_would_of_the_numbers_of_a_draw(name, monkeypatch):
    import torch

    layer = random_layer(name)
    u = torch.as_tensor(quantiles(layer, 6))
    found = []
    for few in (namespace_named("torch").few, lambda function, *given: function(*given)):
        monkeypatch.setattr(namespace_named("torch"), "few", few)
        parameters = layer.plan.parameters(u, torch.tensor(0.75))
        values = [value for node in parameters for value in (*node.values(), node.gate) if value is not None]
        stages = [stage for stage in layer.plan.stages((9, 14)) if stage.maps]
        found.append([*values, *(layer.plan.inverse(stage, parameters) for stage in stages)])
    for a, b in zip(*found, strict=True):
        assert torch.is_tensor(a) and a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_numbers_that_want_a_gradient_stay_with_torch():
    import torch

    few = namespace_named("torch").few
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    square = few(lambda given: {"y": [given[0] * given[1]]}, (x, torch.tensor([4.0, 5.0])))["y"][0]
    square.sum().backward()
    assert x.grad.tolist() == [4.0, 5.0]
    with torch.no_grad():  # divisions by zero are as silent as torch's
        assert few(lambda given: 1.0 / given, torch.zeros(2)).tolist() == [np.inf, np.inf]


def test_transforms_of_functions_go_through_a_pass():
    """``torch.func.grad`` and ``vmap`` give tensors without memory, which NumPy cannot see."""
    import torch

    layer = knl.RandAugment(num_ops=4, seed=1)
    layer.build((None, 12, 10, 3))
    x, u = tensor(photos(5, 12, 10, "float32")), layer.draw(5)
    given = x.clone().requires_grad_()
    layer.apply(given, u).sum().backward()
    np.testing.assert_allclose(torch.func.grad(lambda images: layer.apply(images, u).sum())(x), given.grad, atol=1e-3)
    turn = knl.RandomRotation(0.1)
    turn.build((None, 12, 10, 3))
    u = turn.draw(5)
    one_by_one = torch.func.vmap(lambda image, row: turn.apply(image[None], row[None])[0])(x, u)
    np.testing.assert_allclose(one_by_one, turn.apply(x, u), atol=1e-3)
    draws = torch.func.grad(lambda u: turn.apply(x, u).sum())(u)
    assert draws.isfinite().all() and draws.abs().sum() > 0
    flip = knl.RandomFlip()
    flip.build((None, 40, 40, 3))
    u, x = flip.draw(4), tensor(photos(4, 40, 40, "float32"))
    assert torch.func.grad(lambda u: flip.apply(x, u).sum())(u).shape == u.shape


def test_a_transform_may_be_written_with_torch_or_keras():
    import keras
    import torch

    class Turn(knl.RandomRotation):
        def matrix(self, params, height, width):
            angle = params["turns"] * (2.0 * np.pi)
            library = torch if self.name == "torch" else keras.ops
            cos, sin = library.cos(angle), library.sin(angle)
            return matrices.matrix([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])

    x = tensor(photos(3, 12, 10))
    ours = knl.Augment([knl.RandomRotation(0.1), knl.RandomShear(0.2)])
    ours.build(x.shape)
    u = ours.draw(3)
    for name in ("torch", "keras"):
        theirs = knl.Augment([Turn(0.1, name=name), knl.RandomShear(0.2)])
        theirs.build(x.shape)
        np.testing.assert_allclose(theirs.apply(x, u), ours.apply(x, u), atol=1e-2)
