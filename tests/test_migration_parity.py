"""ImageDataGenerator beside Keras's: the same draws, pixels, statistics and batches (versions: ``golden/``)."""

import json
import pathlib

import numpy as np
import pytest
from migration_cases import DIRECTORY_CASES, FIT_CASES, FLOW_CASES, FRAME_CASES, frame_of, picture, write_folder

import keras_norm_layers as knl

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "image_data_generator.npz")
CASES = json.loads(str(GOLDEN["transform_cases"]))


def images_and_results():
    """(case, image, what Keras made of it) for each recorded transformation."""
    outputs, start = GOLDEN["transform_outputs"], 0
    for number, case in enumerate(CASES):
        image = picture(number, **case["image"], data_format=case["arguments"]["data_format"])
        yield case, image, outputs[start : start + image.size].reshape(image.shape)
        start += image.size
    assert start == len(outputs)


def test_the_cases_cover_the_arguments():
    arguments = [case["arguments"] for case in CASES]
    assert len(arguments) == 300
    for name in arguments[0]:
        assert len({json.dumps(a[name]) for a in arguments}) > 1, name
    drawn = [case["drawn"] for case in CASES]
    assert sum(d["brightness"] is not None for d in drawn) > 60
    assert sum(d["channel_shift_intensity"] is not None for d in drawn) > 60


def test_the_same_parameters_are_drawn():
    for case, image, _ in images_and_results():
        drawn = knl.ImageDataGenerator(**case["arguments"]).get_random_transform(image.shape, seed=case["seed"])
        assert {name: None if v is None else float(v) for name, v in drawn.items()} == case["drawn"], case


def test_the_same_pixels_come_out():
    for case, image, expected in images_and_results():
        before = image.copy()
        generator = knl.ImageDataGenerator(**case["arguments"])
        result = generator.apply_transform(image, case["drawn"])
        assert result.dtype == "float32"
        # A brightness gives whole levels: there this is equality.
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-4, err_msg=str(case))
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", FIT_CASES)
def test_fit_and_standardize(name):
    case = FIT_CASES[name]
    images = case["images"]()
    before = images.copy()
    generator = knl.ImageDataGenerator(**case["arguments"], dtype=case.get("dtype"))
    generator.fit(images, **case.get("fit", {}))
    np.testing.assert_array_equal(images, before)
    found = {"mean": generator.mean, "std": generator.std, "matrix": generator.zca_whitening_matrix}
    for key, value in found.items():
        assert (value is not None) == (f"fit {name} {key}" in GOLDEN), key
        if value is not None:
            expected = GOLDEN[f"fit {name} {key}"]
            assert value.shape == expected.shape
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=key)
    white = generator.standardize(images[:4].astype(generator.dtype))
    expected = GOLDEN[f"fit {name} white"]
    np.testing.assert_allclose(white, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    singles = [generator.standardize(image.astype(generator.dtype)) for image in images[:4]]
    np.testing.assert_allclose(singles, white, rtol=0, atol=1e-5 * np.abs(expected).max())


def assert_batch(name, batch):
    """Whether a batch, of arrays and lists of arrays, is the recorded one."""
    count = 0
    for i, part in enumerate(batch if isinstance(batch, tuple) else (batch,)):
        for j, piece in enumerate(part if isinstance(part, list) else [part]):
            expected = GOLDEN[f"{name} {i} {j}"]
            count += 1
            assert piece.shape == expected.shape
            if expected.dtype.kind == "f":
                assert piece.dtype == expected.dtype
                np.testing.assert_allclose(piece, expected, rtol=1e-5, atol=1e-4, err_msg=f"{name} {i} {j}")
            else:
                assert (piece == expected).all()
    assert count == sum(key.startswith(f"{name} ") for key in GOLDEN)


@pytest.mark.parametrize("name", FLOW_CASES)
def test_flow(name):
    case = FLOW_CASES[name]
    flow = knl.ImageDataGenerator(**case["generator"]).flow(**case["flow"]())
    for step in range(case["steps"]):
        assert_batch(f"flow {name} {step}", next(flow))
    assert_batch(f"flow {name} item", flow[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    write_folder(path)
    return path


@pytest.mark.parametrize("name", DIRECTORY_CASES)
def test_flow_from_directory(folder, name, capsys):
    case = DIRECTORY_CASES[name]
    flow = knl.ImageDataGenerator(**case["generator"]).flow_from_directory(str(folder), **case["flow"])
    assert f"Found {flow.n} images belonging to {flow.num_classes} classes." in capsys.readouterr().out
    assert flow.filenames == GOLDEN[f"directory {name} names"].tolist()
    for step in range(2):
        assert_batch(f"directory {name} {step}", next(flow))


@pytest.mark.parametrize("name", FRAME_CASES)
def test_flow_from_dataframe(folder, name):
    pytest.importorskip("pandas")
    case, frame = FRAME_CASES[name], frame_of()
    flow = knl.ImageDataGenerator(**case["generator"]).flow_from_dataframe(frame, folder, **case["flow"])
    assert flow.filenames == GOLDEN[f"frame {name} names"].tolist()
    assert frame.equals(frame_of())
    for step in range(2):
        assert_batch(f"frame {name} {step}", next(flow))
