"""The generator of uniform numbers: published vectors, a twin in Python integers, layouts."""

import numpy as np
import pytest
from conftest import BACKEND
from reference import threefry as reference

from keras_norm_layers.kernels import backend, threefry
from keras_norm_layers.kernels.backend import to_numpy

# Known answers of threefry2x32, 20 rounds, from the Random123 distribution (kat_vectors): key, counter, answer.
KNOWN_ANSWERS = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def words(values):
    xp = backend.namespace(None)
    return tuple(xp.words(xp.asarray(np.array([value], "int64"))) for value in values)


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN_ANSWERS)
def test_the_published_known_answers(key, counter, answer):
    xp = backend.namespace(None)
    hashed = threefry.threefry2x32(xp, words(key), words(counter))
    assert tuple(int(to_numpy(word)[0]) & 0xFFFFFFFF for word in hashed) == answer
    assert reference.threefry(key, counter) == answer


@pytest.mark.parametrize("seed", [(0, 0, 0), (7, 3, 0), (2**31 - 1, 2**32 - 1, 1), (123456789, 1000000, 4095)])
def test_uniform_numbers_are_the_twins_bit_for_bit(seed):
    xp = backend.namespace(None)
    drawn = to_numpy(threefry.uniform(xp.stack([words([word])[0][0] for word in seed], 0), 5, 7))
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, np.array(reference.uniform(*seed, 5, 7), "float32"))
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0


def test_compiled_numbers_are_the_eager_ones(monkeypatch):
    xp = backend.namespace(None)
    if BACKEND == "torch":  # eager code hashes in NumPy there; what the compiler reads does not
        import torch

        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", lambda function, **_: compile_(function, backend="eager"))
        monkeypatch.setenv("KERAS_NORM_LAYERS_TORCH_COMPILE", "1")
    seed = xp.stack([words([s])[0][0] for s in (7, 3, 1)], 0)
    compiled = xp.compiled(lambda data, s, strength: threefry.uniform(s, 6, 5))({"images": seed}, seed, None)
    np.testing.assert_array_equal(to_numpy(compiled), to_numpy(threefry.uniform(seed, 6, 5)))


def test_a_larger_batch_begins_with_the_rows_of_a_smaller_one():
    xp = backend.namespace(None)
    seed = xp.stack([words([s])[0][0] for s in (1, 2, 0)], 0)
    np.testing.assert_array_equal(to_numpy(threefry.uniform(seed, 9, 4))[:3], to_numpy(threefry.uniform(seed, 3, 4)))


def test_seed_step_replica_row_and_slot_each_give_other_numbers():
    xp = backend.namespace(None)

    def draw(*seed):
        return to_numpy(threefry.uniform(xp.stack([words([s])[0][0] for s in seed], 0), 8, 8))

    draws = [draw(1, 1, 0), draw(2, 1, 0), draw(1, 2, 0), draw(1, 1, 1)]
    assert len({value for drawn in draws for value in drawn.ravel().tolist()}) == 4 * 64
