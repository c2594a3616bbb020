"""How passes run on torch: groups of images, memory, and when the compiler is asked for."""

import os

import numpy as np
import pytest
from conftest import BACKEND

import keras_norm_layers as knl
from keras_norm_layers.kernels.backend import namespace_named, to_numpy

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="about torch; the others compile one program for a batch")

CHAIN = [knl.RandomFlip(), knl.RandomRotation(0.1), knl.RandomContrast(0.3), knl.RandomErasing()]


@pytest.fixture
def passes():
    from keras_norm_layers.kernels import _torch_passes

    return _torch_passes


@pytest.fixture
def compiles(monkeypatch):
    """A compiler that is asked for and gives back what it gets: what is done around it is what is tested."""
    import torch

    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)


def data(n, height=12, width=10):
    rng = np.random.default_rng(n)
    boxes = np.sort(rng.uniform(0, 10, (n, 3, 2, 2)), 2).reshape(n, 3, 4)
    return {
        "images": rng.integers(0, 256, (n, height, width, 3)).astype("uint8"),
        "segmentation_masks": rng.integers(0, 5, (n, height, width)).astype("int32"),
        "bounding_boxes": {"boxes": boxes.astype("float32"), "labels": rng.integers(0, 5, (n, 3))},
        "keypoints": rng.uniform(0, 10, (n, 4, 2)).astype("float32"),
        "labels": rng.integers(0, 5, n),
    }


def flat(result):
    boxes = result["bounding_boxes"]
    return [to_numpy(x) for x in (*boxes.values(), *(v for k, v in result.items() if k != "bounding_boxes"))]


@pytest.mark.parametrize("count", [3, 8, 9, 23, 24])
def test_groups_give_what_one_pass_gives(count, passes, compiles, monkeypatch):
    batch = data(count)
    layer = knl.Augment(CHAIN, seed=3, bounding_box_format="xyxy")
    whole = flat(layer(batch, training=True))
    sizes = []
    monkeypatch.setattr(passes, "GROUP", 8 * batch["images"][0].size)
    in_groups = passes.in_groups
    monkeypatch.setattr(
        namespace_named("torch"), "in_groups", lambda *args: sizes.append(len(args[1])) or in_groups(*args)
    )
    again = knl.Augment(CHAIN, seed=3, bounding_box_format="xyxy")
    parts = flat(again(batch, training=True))
    assert sizes == ([] if count <= 8 else [-(-count // 8)])
    for a, b in zip(whole, parts):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=2e-4)  # torch's sums depend on how many images there are


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler imports torch's own
def test_the_compiler_s_groups_are_the_eager_batch(passes, monkeypatch):
    """By the real compiler, threads and all; with gradients wanted elsewhere or not, and in inference mode."""
    import torch

    layer = knl.Augment(CHAIN, seed=3, bounding_box_format="xyxy")
    batch = data(7)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "0")
    layer.build((None, 12, 10, 3))
    u = layer.draw(7)
    eager = flat(layer.apply(batch, u))
    layer._programs.clear()
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    monkeypatch.setattr(passes, "GROUP", 2 * 12 * 10 * 3)
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with mode:
            for a, b in zip(flat(layer.apply(batch, u)), eager):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, atol=2e-3)
    (run,) = layer._programs.values()
    ((write, _),) = run._writers.values()
    assert write._run is not write._function  # which it would be had the compiler failed


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
def test_a_program_reads_the_images_that_move_and_no_others(passes, monkeypatch):
    """By the real compiler, where the rest of a pass is eager code."""
    import torch

    from keras_norm_layers.kernels import _torch_reading, matrices

    images = torch.as_tensor(data(5, 24, 20)["images"])
    maps = matrices.rotate(torch.linspace(0.3, 0.9, 5))
    maps[3] = torch.eye(3)
    monkeypatch.setattr(passes, "GROUP", images[0].numel())
    monkeypatch.setattr(passes, "_writers", {})
    found = {}
    for compiles in ("0", "1"):
        monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", compiles)
        found[compiles] = _torch_reading.affine_sample(images, maps, (24, 20), "reflect", 0.0)
    np.testing.assert_allclose(found["1"], found["0"], atol=2e-2)
    np.testing.assert_array_equal(found["1"][3], images[3])
    (program,) = passes._writers.values()
    assert program._run is not program._function  # which it would be had the compiler failed
    with monkeypatch.context() as patched:
        patched.setattr(passes, "SHAPES", 1)
        other = _torch_reading.affine_sample(images, maps, (20, 24), "reflect", 0.0)  # too many shapes: eager code
    assert len(passes._writers) == 1 and other.shape == (5, 20, 24, 3)
    gradient = maps.clone().requires_grad_()
    _torch_reading.affine_sample(images, gradient, (24, 20), "reflect", 0.0).sum().backward()
    assert gradient.grad.abs().sum() > 0


def test_all_threads_work_and_what_one_raises_is_raised(passes):
    import threading

    met = threading.Barrier(3, timeout=20)
    who = set()

    def work():
        met.wait()  # three at a time, or nobody gets on
        who.add(threading.get_ident())

    for _ in range(2):  # the second time with the threads of the first
        passes._by_all_threads(work, 3)
    assert threading.get_ident() in who
    assert len(who) == 3

    def fails_elsewhere():
        met.wait()
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        passes._by_all_threads(fails_elsewhere, 3)


def test_one_thread_takes_no_others(passes, monkeypatch):
    monkeypatch.setattr(passes, "_threads", lambda count: pytest.fail("threads"))
    done = []
    passes._by_all_threads(lambda: done.append(1), 1)
    assert done == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # Python 3.12's, about this test
def test_a_forked_process_gets_threads_of_its_own(passes):
    import threading

    passes._by_all_threads(threading.Barrier(2, timeout=20).wait, 2)
    child = os.fork()
    if not child:
        try:
            passes._by_all_threads(threading.Barrier(2, timeout=5).wait, 2)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_of_several_threads_one_compiles(passes, monkeypatch):
    import threading
    import time

    import torch

    made = []

    def slowly(function, **options):
        made.append(function)
        time.sleep(0.05)
        return lambda x: x + 1

    monkeypatch.setattr(torch, "compile", slowly)
    program, found = passes.Compiled(lambda x: x), []
    threads = [threading.Thread(target=lambda: found.append(program(1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [2] * 4
    assert len(made) == 1


def test_the_compiler_runs_in_the_thread_that_asked(passes, compiles, monkeypatch):
    import threading

    import torch

    def elsewhere(work, count):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    who = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: who.append(threading.get_ident()) or function)
    monkeypatch.setattr(passes, "_by_all_threads", elsewhere)
    monkeypatch.setattr(passes, "GROUP", 1)
    layer = knl.RandomRotation(0.1, seed=1)
    for _ in range(2):
        layer(data(3)["images"], training=True)
    assert who == [threading.get_ident()]


def test_shapes_without_a_program_of_their_own_share_one(passes, compiles, monkeypatch):
    monkeypatch.setattr(passes, "SHAPES", 2)
    monkeypatch.setattr(passes, "GROUP", 1)
    layer = knl.RandomRotation(0.1, seed=1)
    for size in range(8, 13):
        assert layer(data(3, size, size)["images"], training=True).shape == (3, size, size, 3)
    (run,) = layer._programs.values()
    assert len(run._writers) == 2


def test_a_draw_that_is_learned_has_its_gradient(passes, compiles, monkeypatch):
    images = data(9)["images"].astype("float32")
    monkeypatch.setattr(passes, "GROUP", images[0].size)
    layer = knl.RandomContrast(0.2, value_range=(-1000, 1000), seed=1)
    layer(images)
    u = layer.draw(9).requires_grad_()
    layer.apply(images, u).square().sum().backward()
    assert float(u.grad.abs().max()) > 0


def test_what_looks_at_the_whole_batch_is_not_parted(passes, compiles, monkeypatch):
    images = data(9)["images"].astype("float32")
    monkeypatch.setattr(passes, "GROUP", images[0].size)
    monkeypatch.setattr(namespace_named("torch"), "in_groups", lambda *args: pytest.fail("parted"))
    shared = knl.RandomRotation(0.2, same_on_batch=True, seed=1)(np.stack([images[0]] * 9))
    assert np.ptp(to_numpy(shared), axis=0).max() < 1e-3
    knl.MixUp(seed=1)({"images": images, "labels": np.eye(9, dtype="float32")})
    with pytest.raises(pytest.fail.Exception, match="parted"):
        knl.RandomRotation(0.2, seed=1)(images)
    monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "0")
    knl.RandomRotation(0.2, seed=1)(images)  # eager code goes through the whole batch at once


def test_gradients_go_through_a_batch_that_would_be_parted(passes, compiles, monkeypatch):
    import torch

    images = torch.tensor(data(9)["images"], dtype=torch.float32, requires_grad=True)
    monkeypatch.setattr(passes, "GROUP", images[0].numel())
    knl.RandomContrast(0.2, value_range=(-1000, 1000), seed=1)(images).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().min()) > 0.5


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (1, 0, 2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16", "int64"])
@pytest.mark.parametrize("huge", [False, True])
def test_new_memory_has_the_order_of_the_axes(axes, dtype, huge, passes, monkeypatch):
    import torch

    monkeypatch.setattr(passes.memory, "LARGE", 1 if huge else 1 << 40)
    x = torch.zeros((2, 3, 4, 5), dtype=getattr(torch, dtype)).permute(*axes)
    new = passes.new_like(x, 7)
    assert new.dtype == x.dtype
    assert tuple(new.shape) == (7, *x.shape[1:])
    new.fill_(3)
    if axes[0] == 0:
        assert sorted(range(4), key=new.stride, reverse=True) == sorted(range(4), key=x.stride, reverse=True)
        assert passes.new_like(x).stride() == x.stride()


@pytest.mark.parametrize(
    ("wish", "values", "compiler", "wanted"),
    [
        (None, 1 << 22, True, True),
        (None, 1 << 22, False, False),  # nothing to compile with: no warning either
        (None, 1 << 21, True, False),
        ("1", 10, False, True),
        ("0", 1 << 30, True, False),
    ],
)
def test_when_the_compiler_is_asked_for(wish, values, compiler, wanted, passes, monkeypatch):
    monkeypatch.delenv("KERAS_NORM_LAYERS_TORCH_COMPILE", raising=False)
    if wish:
        monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", wish)
    passes._cpu_compiles.cache_clear()
    monkeypatch.setattr(passes.shutil, "which", lambda name: name if compiler else None)
    assert passes.compiler_wanted("cpu", values) is wanted
    assert passes.compiler_wanted("cpu", values, gains=False) is (wish == "1")  # eager code would be faster
    assert passes.compiler_wanted("cuda", values, gains=False) is (wish == "1" or (wish is None and values > 1 << 20))
    passes._cpu_compiles.cache_clear()


@pytest.mark.parametrize(
    ("step", "gains"),
    [
        (lambda: knl.RandomRotation(0.1), True),
        (lambda: knl.RandomRotation(0.1, interpolation="nearest"), True),
        (lambda: knl.RandomFlip(), False),
        (lambda: knl.RandomCrop(8, 8), False),
        (lambda: knl.RandomCrop(30, 30), True),  # enlarges
        (lambda: knl.RandomBrightness(0.1), False),
        (lambda: knl.RandomHue(0.1), True),
        (lambda: knl.Equalization(), False),
        (lambda: knl.OneOf([knl.RandomRotation(0.1), knl.RandomFlip()]), True),
        (lambda: knl.RandAugment(), False),  # it would do for all images what is chosen for few
        (lambda: knl.AugMix(), False),
    ],
)
def test_what_is_compiled_on_a_cpu(step, gains, passes, compiles, monkeypatch):
    import torch

    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled.append(function) or function)
    monkeypatch.delenv("KERAS_NORM_LAYERS_TORCH_COMPILE")
    monkeypatch.setattr(passes, "_cpu_compiles", lambda: True)
    monkeypatch.setitem(passes.COMPILE_FROM, "cpu", 1)
    images = data(3)["images"]
    for data_format, batch in (("channels_last", images), ("channels_first", images.transpose(0, 3, 1, 2))):
        knl.Augment([step()], data_format=data_format, seed=1)(batch, training=True)
    assert len(compiled) == 2 * gains


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_compiled_reading_of_any_channels(dtype, channels, interpolation, monkeypatch):
    """Bytes are packed into words there; ``backend="eager"`` reads the code as the compiler does, without building."""
    import torch

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_(f, **kw, backend="eager"))
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 8, channels)).astype(dtype)
    results = []
    for wish in ("0", "1"):
        monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", wish)
        layer = knl.RandomRotation(0.3, interpolation=interpolation, fill_mode="constant", fill_value=7.5, seed=2)
        results.append(to_numpy(layer(images, training=True)))
    assert np.ptp(results[0]) > 100
    np.testing.assert_allclose(*results, atol=2e-3)
