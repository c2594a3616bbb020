"""Memory that is used again: never while somebody holds it, and no more of it than promised."""

import gc
import threading

import numpy as np
import pytest
from conftest import BACKEND

from keras_norm_layers.kernels import memory

SIZE = 3 * memory.LARGE


@pytest.fixture(autouse=True)
def nothing_kept():
    memory._free.clear()
    yield
    memory._free.clear()


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(SIZE,), (7, 1 << 16, 5), (3,), (0, 4)])
def test_arrays_are_aligned_and_of_their_own(dtype, shape):
    arrays = [memory.aligned_empty(shape, dtype) for _ in range(3)]
    for number, array in enumerate(arrays):
        assert (array.dtype, array.shape) == (dtype, shape)
        assert address(array) % memory.ALIGNMENT == 0
        assert array.flags.c_contiguous
        array[...] = number
    for number, array in enumerate(arrays):
        assert (array == number).all()


def test_memory_comes_back_when_the_last_view_is_gone():
    first = memory.aligned_empty((SIZE,), "uint8")
    place, view = address(first), first.reshape(3, -1)[1:, ::2].view("uint8")
    del first
    assert not memory._free
    other = memory.aligned_empty((SIZE,), "uint8")
    assert not np.shares_memory(view, other)
    del view
    gc.collect()
    assert address(memory.aligned_empty((SIZE // 4 * 3,), "uint8")) == place
    gc.collect()
    assert address(memory.aligned_empty((SIZE // 4,), "uint8")) != place  # less than half: it would be wasted


def test_no_more_is_kept_than_promised():
    arrays = [memory.aligned_empty((SIZE + number,), "uint8") for number in range(memory.KEPT + 3)]
    arrays.append(memory.aligned_empty((10,), "uint8"))
    arrays.clear()
    assert len(memory._free) == memory.KEPT


def test_objects_have_no_memory_to_share():
    assert memory.aligned_empty((2,), object).tolist() == [None, None]


def test_threads_never_get_the_same_memory():
    wrong = []

    def work(number):
        for _ in range(60):
            mine = memory.aligned_empty((memory.LARGE,), "uint8")
            mine[...] = number
            wrong.extend([number] * bool((mine != number).any()))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_tensor_of_the_backend_holds_its_memory():
    """TensorFlow and JAX may take the array as it is: then it must not be written over while they use it."""
    import keras

    array = memory.aligned_empty((SIZE // 4,), "float32")
    array[...] = 1.0
    if BACKEND == "torch":
        import torch

        tensor = torch.from_numpy(array)
    else:
        tensor = keras.ops.convert_to_tensor(array)
    del array
    memory.aligned_empty((SIZE // 4,), "float32")[...] = 2.0
    assert float(keras.ops.max(tensor)) == 1.0
    assert float(keras.ops.min(tensor)) == 1.0
