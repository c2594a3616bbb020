"""ImageDataGenerator on files: which files, as which arrays, with which labels; what is wrong is said."""

import os

import numpy as np
import pytest
from migration_cases import CLASSES, frame_of, picture, write_folder
from PIL import Image

import keras_norm_layers as knl
from keras_norm_layers.migration import files

pandas = pytest.importorskip("pandas")
SMALL = {"target_size": (9, 8), "batch_size": 4, "shuffle": False}


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path)
    return tmp_path


def test_attributes_of_a_directory(folder):
    generator = knl.ImageDataGenerator(data_format="channels_last")
    flow = generator.flow_from_directory(folder, target_size=(5, 6), batch_size=4)
    assert flow.class_indices == {"ant": 0, "bird": 1, "cat": 2}
    assert (flow.samples, flow.n, flow.num_classes, len(flow)) == (18, 18, 3, 5)
    assert flow.classes.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert flow.labels is flow.classes
    assert flow.filenames[3:6] == [os.path.join("ant", "4.png"), os.path.join("ant", "5.png"), "ant/deep/3.PNG"]
    assert flow.filepaths[0] == str(folder / "ant" / "0.png")
    assert (flow.image_shape, flow.target_size, flow.color_mode) == ((5, 6, 3), (5, 6), "rgb")
    x, y = flow[4]
    assert (x.shape, y.shape) == ((2, 5, 6, 3), (2, 3))


def test_images_and_labels_stay_together(folder):
    flow = knl.ImageDataGenerator().flow_from_directory(folder, target_size=(9, 8), class_mode="sparse", batch_size=5)
    for i in range(len(flow)):
        x, y = flow[i]
        for image, label, number in zip(x, y, flow.index_array[5 * i :]):
            name = flow.filenames[number]
            assert name.split(os.sep)[0] == CLASSES[{0: 1, 1: 0, 2: 2}[int(label)]]
            with Image.open(folder / name) as file:
                np.testing.assert_array_equal(image, np.asarray(file.convert("RGB")))


def test_training_and_validation_of_a_directory(folder):
    generator = knl.ImageDataGenerator(validation_split=0.34)
    names = [
        generator.flow_from_directory(folder, subset=subset, **SMALL).filenames for subset in ("training", "validation")
    ]
    assert not set(names[0]) & set(names[1])
    assert sorted(names[0] + names[1]) == sorted(generator.flow_from_directory(folder, **SMALL).filenames)
    assert [sum(name.startswith(c) for name in names[1]) for c in CLASSES] == [2, 2, 2]


def test_gray_images_keep_their_bits(tmp_path):
    levels = np.array([[0, 300], [40000, 65535]])
    (tmp_path / "a").mkdir()
    Image.fromarray(levels.astype("uint16")).save(tmp_path / "a" / "0.png")
    Image.fromarray((levels * 1000).astype("int32")).save(tmp_path / "a" / "1.tif")
    Image.fromarray((levels / 3).astype("float32")).save(tmp_path / "a" / "2.tif")
    Image.fromarray((levels % 256).astype("uint8")).save(tmp_path / "a" / "3.png")
    Image.fromarray((levels % 256).astype("uint8")).convert("CMYK").save(tmp_path / "a" / "4.tif")
    flow = knl.ImageDataGenerator().flow_from_directory(
        tmp_path, target_size=(2, 2), color_mode="grayscale", class_mode=None, shuffle=False
    )
    x = flow[0][..., 0]
    np.testing.assert_array_equal(x[0], levels)
    np.testing.assert_array_equal(x[1], levels * 1000)
    np.testing.assert_allclose(x[2], levels / 3, rtol=1e-6)
    np.testing.assert_array_equal(x[3], levels % 256)
    np.testing.assert_allclose(x[4], levels % 256, atol=2)


def test_keep_aspect_ratio_takes_the_middle(tmp_path):
    (tmp_path / "a").mkdir()
    image = np.zeros((10, 30, 3), "uint8")
    image[:, 10:20] = 200
    Image.fromarray(image).save(tmp_path / "a" / "0.png")
    options = {"target_size": (4, 4), "class_mode": None}
    generator = knl.ImageDataGenerator()
    kept = generator.flow_from_directory(tmp_path, keep_aspect_ratio=True, **options)[0]
    np.testing.assert_array_equal(kept, np.full((1, 4, 4, 3), 200))
    assert 0 in generator.flow_from_directory(tmp_path, **options)[0]


def test_links_to_folders(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for path in (tmp_path / "data" / "a" / "0.png", tmp_path / "elsewhere" / "1.png"):
        Image.fromarray(np.zeros((3, 3, 3), "uint8")).save(path)
    (tmp_path / "data" / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "circle").symlink_to(tmp_path / "data" / "a")
    generator = knl.ImageDataGenerator()
    assert generator.flow_from_directory(tmp_path / "data").filenames == ["a/0.png"]
    followed = generator.flow_from_directory(tmp_path / "data", follow_links=True)
    assert followed.filenames == ["a/0.png", "a/link/1.png"]


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "ant" / "0.png").write_bytes(b"no picture")
    (folder / "ant" / "1.png").write_bytes(b"")
    flow = knl.ImageDataGenerator().flow_from_directory(folder, **SMALL)
    with pytest.raises(ValueError, match=r"ant/0\.png cannot be read as an image"):
        flow[0]
    data = (folder / "bird" / "0.png").read_bytes()
    (folder / "bird" / "0.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"bird/0\.png cannot be read as an image"):
        files.load(folder / "bird" / "0.png", "rgb", (9, 8), "nearest", False)


def test_warnings_of_a_directory(folder):
    generator = knl.ImageDataGenerator()
    with pytest.warns(UserWarning, match="'dog' has no folder"):
        assert generator.flow_from_directory(folder, classes=["ant", "dog"]).samples == 6
    Image.fromarray(np.zeros((3, 3), "uint8")).save(folder / "ant" / "9.tiff")
    with pytest.warns(UserWarning, match=r"9\.tiff"):
        generator.flow_from_directory(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_mode": "raw"}, "`class_mode`"),
        ({"color_mode": "hsv"}, "`color_mode`"),
        ({"interpolation": "cubic"}, "`interpolation`"),
        ({"subset": "test"}, "`subset`"),
        ({"subset": "validation"}, "validation_split"),
        ({"target_size": (0, 3)}, "`target_size`"),
    ],
)
def test_errors_of_a_directory(folder, options, message):
    with pytest.raises(ValueError, match=message):
        knl.ImageDataGenerator().flow_from_directory(folder, **options)


def test_attributes_of_a_data_frame(folder):
    flow = knl.ImageDataGenerator().flow_from_dataframe(frame_of(), folder, y_col="several", weight_col="value")
    assert flow.class_indices == {"ant": 0, "bird": 1, "cat": 2, "small": 3}
    assert flow.classes[:2] == [[1], [1, 3]]
    assert flow.sample_weight.tolist() == frame_of()["value"].tolist()
    flow = knl.ImageDataGenerator().flow_from_dataframe(frame_of(), folder, class_mode="raw", y_col="value", **SMALL)
    x, y = flow[0]
    np.testing.assert_array_equal(y, frame_of()["value"][:4])
    np.testing.assert_array_equal(flow.labels, frame_of()["value"])
    np.testing.assert_array_equal(x[0], picture(0, (9, 8, 3)))


def test_rows_without_a_file_are_left_out_with_a_warning(folder):
    frame = frame_of()
    frame.loc[1, "filename"] = "bird/none.png"
    frame.loc[2, "filename"] = "bird/notes.txt"
    with pytest.warns(UserWarning, match=r"2 file names .* first 'bird/none.png'"):
        flow = knl.ImageDataGenerator().flow_from_dataframe(frame, folder, **SMALL)
    assert flow.samples == 16
    unchecked = knl.ImageDataGenerator().flow_from_dataframe(frame, folder, validate_filenames=False, **SMALL)
    assert unchecked.samples == 18
    with pytest.raises(ValueError, match=r"bird/none\.png cannot be read"):
        unchecked[0]


def test_absolute_paths_need_no_directory(folder):
    frame = frame_of()
    frame["filename"] = [str(folder / name) for name in frame["filename"]]
    assert knl.ImageDataGenerator().flow_from_dataframe(frame).samples == 18


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"class_mode": "other class"}, ValueError, "`class_mode`"),
        ({"class_mode": "multi_output"}, TypeError, "`y_col` must be a list"),
        ({"x_col": "value"}, TypeError, "column 'value' must be str"),
        ({"y_col": "value"}, TypeError, "column 'value' must be str or list or tuple"),
        ({"class_mode": "sparse", "y_col": "several"}, TypeError, "column 'several' must be str"),
        ({"class_mode": "binary"}, ValueError, "must be 2 classes"),
        ({"class_mode": "binary", "classes": ["ant"]}, ValueError, "must be 2 classes"),
        ({"weight_col": "class"}, TypeError, "`weight_col` must name a column of numbers"),
        ({"x_col": "file"}, ValueError, "no column 'file'"),
        ({"shuffled": True}, TypeError, "unexpected keyword argument 'shuffled'"),
    ],
)
def test_errors_of_a_data_frame(folder, options, error, message):
    with pytest.raises(error, match=message):
        knl.ImageDataGenerator().flow_from_dataframe(frame_of(), folder, **options)


def test_old_arguments_of_a_data_frame(folder):
    generator = knl.ImageDataGenerator()
    for name in ("has_ext", "sort", "drop_duplicates"):
        with pytest.warns(DeprecationWarning, match=name):
            assert generator.flow_from_dataframe(frame_of(), folder, **{name: True}).samples == 18
    with pytest.warns(DeprecationWarning, match='class_mode="raw"'):
        flow = generator.flow_from_dataframe(frame_of(), folder, class_mode="other", y_col="value")
    assert flow.class_mode == "raw"
    with pytest.warns(UserWarning, match="`classes` is not used"):
        generator.flow_from_dataframe(frame_of(), folder, class_mode=None, classes=["ant"])
