"""How files become pixels: upright, resized with and without antialiasing, and OpenCV's pixels beside Pillow's."""

import io
import sys
import time
import types

import data_samples as samples
import keras
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_norm_layers import data
from keras_norm_layers.data import bilinear, images
from keras_norm_layers.data import feed as feed_module
from keras_norm_layers.migration import files
from keras_norm_layers.statistics import decoding
from keras_norm_layers.statistics.elements import Picker
from keras_norm_layers.statistics.folders import Folder

ORIENTATIONS = range(1, 9)


def picture(height=12, width=20, seed=0):
    """Smooth colours, no two corners alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype="uint8")
    return PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)


def tagged(path, orientation, image=None, **options):
    """A file whose camera notes this orientation; what a viewer shows of it."""
    image = picture() if image is None else image
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    image.save(path, exif=tags, **options)
    with PIL.Image.open(path) as stored:
        return np.asarray(PIL.ImageOps.exif_transpose(stored))


def fed(path, **options):
    return data.from_arrays([path], **options)[0][0]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_keep_the_order_and_the_first_error(threads):
    done = []

    def work(number):
        time.sleep(0.002 * (number % 3))
        if number in (20, 21, 22):
            raise ValueError(f"item {number}")
        done.append(number)
        return -number

    assert feed_module.in_threads(work, range(20), threads) == [-number for number in range(20)]
    assert feed_module.in_threads(work, [], threads) == []
    done.clear()
    with pytest.raises(ValueError, match="item 20"):
        feed_module.in_threads(work, range(1000), threads)
    assert set(range(20)) <= set(done)
    assert len(done) < 900


# Orientation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_files_come_upright_or_as_stored(tmp_path, orientation, suffix):
    path = tmp_path / f"a{suffix}"
    seen = tagged(path, orientation)
    np.testing.assert_array_equal(fed(path), seen)
    stored = fed(path, exif_orientation=False)
    if suffix == ".tif":
        np.testing.assert_array_equal(stored, seen)
    else:
        assert stored.shape == (12, 20, 3)
        np.testing.assert_array_equal(decoding.turned_array(stored, orientation), seen)
    (folder,) = Folder(str(tmp_path), Picker(4, None, None))
    np.testing.assert_array_equal(folder[0], seen)
    assert data.report(data.from_arrays([path])).turned == ([] if orientation == 1 else [str(path)])


@pytest.mark.parametrize("options", [{}, {"keep_aspect_ratio": "crop"}, {"keep_aspect_ratio": "pad"}])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_upright_files_are_resized_as_upright_arrays_are(tmp_path, orientation, antialias, options):
    for size in ((12, 20), (120, 200)):  # the larger one is decoded at half its size
        seen = tagged(tmp_path / "a.jpg", orientation, picture(*size), quality=95)
        options = {**options, "image_size": (15, 14), "antialias": antialias}
        made = fed(tmp_path / "a.jpg", **options).astype(float)
        expected = data.from_arrays(seen[None], **options)[0][0].astype(float)
        assert np.abs(made - expected).max() <= (0 if size[0] == 12 or not antialias else 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's own
def test_a_broken_note_makes_no_broken_picture(tmp_path):
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    good = tags.tobytes()
    assert good.count(b"\x00\x06") == 1
    picture().save(tmp_path / "a.jpg", exif=good)
    assert fed(tmp_path / "a.jpg").shape == (20, 12, 3)
    others = [good.replace(b"\x00\x06", bytes([0, number])) for number in (0, 1, 9, 255)]
    for broken in (*others, good[:12], good[:20], good[:6] + b"?" * 30, b"Exif\x00\x00"):
        picture().save(tmp_path / "b.jpg", exif=broken)
        with PIL.Image.open(tmp_path / "b.jpg") as stored:
            expected = np.asarray(stored)
        np.testing.assert_array_equal(fed(tmp_path / "b.jpg"), expected)


def test_masks_and_boxes_belong_to_the_upright_image(tmp_path):
    seen = tagged(tmp_path / "a.png", 6)
    assert seen.shape == (20, 12, 3)
    upright = (seen[..., 0] > 100).astype("uint8")
    PIL.Image.fromarray(upright).save(tmp_path / "upright.png")
    lying = np.rot90(upright)
    PIL.Image.fromarray(lying).save(tmp_path / "lying.png")
    tagged(tmp_path / "tagged.png", 6, PIL.Image.fromarray(np.ascontiguousarray(lying)))

    def made(mask, **options):
        boxes = [[[1, 2, 5, 18]]]
        x, y = data.from_arrays([tmp_path / "a.png"], masks=[tmp_path / mask], boxes=boxes, **options)[0]
        return x[0], y["segmentation_masks"][0, ..., 0], y["bounding_boxes"]["boxes"][0]

    for mask in ("upright.png", "tagged.png"):
        x, y, boxes = made(mask)
        np.testing.assert_array_equal(y, x[..., 0] > 100)
        np.testing.assert_array_equal(boxes, [[1, 2, 5, 18]])
    np.testing.assert_array_equal(made("upright.png", image_size=(10, 12))[2], [[1, 1, 5, 9]])
    for options in ({}, {"image_size": (6, 6)}):
        with pytest.raises(ValueError, match=r"lying.png' is \(12, 20\), its image \(20, 12\).*exif_orientation=False"):
            made("lying.png", **options)
        with pytest.raises(ValueError, match=r"upright.png' is .* lies on its side"):
            made("upright.png", exif_orientation=False, **options)
    x, y, _ = made("lying.png", exif_orientation=False)
    np.testing.assert_array_equal(y, x[..., 0] > 100)
    with pytest.warns(UserWarning, match="lying.png"):
        both = data.from_arrays(
            [tmp_path / "a.png"] * 2, masks=[tmp_path / "upright.png", tmp_path / "lying.png"], on_error="skip"
        )
    assert (both.num_samples, len(both.skipped)) == (1, 1)


def test_a_report_names_what_is_turned(tmp_path):
    samples.folder(tmp_path, 6)
    for orientation in (1, 3, 8):
        tagged(tmp_path / "ape" / f"{orientation}.jpg", orientation)
    report = data.report(tmp_path)
    assert [name[-5:] for name in report.turned] == ["3.jpg", "8.jpg"]
    assert report.sizes[12, 20] == 3  # as stored
    assert "turned by an orientation tag: 2" in str(report)


def test_image_data_generator_gives_files_as_they_are_stored(tmp_path):
    tagged(tmp_path / "a.jpg", 6)
    with PIL.Image.open(tmp_path / "a.jpg") as image:
        stored = np.asarray(image)
    np.testing.assert_array_equal(files.load(tmp_path / "a.jpg", "rgb", (12, 20), "nearest", False), stored)


# Without antialiasing -------------------------------------------------------------------------------------------------

SIDES = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(height=SIDES, width=SIDES, rows=SIDES, columns=SIDES, channels=st.integers(1, 4), seed=st.integers(0, 99))
def test_plain_resizing_is_that_of_keras(height, width, rows, columns, channels, seed):
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype="uint8")
    whole = (0, 0, width, height)
    expected = keras.ops.image.resize(array.astype("float32")[None], (rows, columns), interpolation="bilinear")
    expected = keras.ops.convert_to_numpy(expected)[0]
    for dtype, bound in (("uint8", 1.0), ("uint16", 0.51), ("int32", 0.51), ("float32", 0.01), ("float64", 0.01)):
        made = bilinear.resized(array.astype(dtype), whole, (rows, columns))
        assert made.dtype == dtype
        assert np.abs(made - expected).max() <= bound


@pytest.mark.parametrize("decoder", images.DECODERS)
def test_a_part_takes_nothing_from_outside(decoder):
    if decoder == "opencv":
        pytest.importorskip("cv2", reason="OpenCV is not installed")
    array = np.zeros((1, 8, 24, 3), "uint8")
    array[:, :, 8:16] = 200
    options = {"image_size": (4, 4), "antialias": False, "decoder": decoder}
    assert (data.from_arrays(array, keep_aspect_ratio="crop", **options)[0] == 200).all()
    padded = data.from_arrays(array[:, :, 8:16].repeat(3, 1), keep_aspect_ratio="pad", **options)[0]
    assert padded[0, :, :, 0].tolist() == [[0, 200, 0, 0]] * 4
    assert (
        data.from_arrays(array[:, :, 7:16], keep_aspect_ratio="crop", **options)[0].min() > 90
    )  # half a pixel outside


def test_plain_resizing_reads_only_the_pixels_about_a_place():
    fine = np.zeros((1, 8, 8, 1), "uint8")
    fine[:, 3::4] = 255
    plain = data.from_arrays(fine, image_size=(2, 2), antialias=False)[0]
    smooth = data.from_arrays(fine, image_size=(2, 2))[0]
    assert plain.max() == 0
    assert smooth.min() > 30
    edges = data.from_arrays(fine, image_size=(2, 2), antialias=False, interpolation="nearest")[0]
    np.testing.assert_array_equal(edges, data.from_arrays(fine, image_size=(2, 2), interpolation="nearest")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"antialias": 0}, "antialias"),
        ({"exif_orientation": "yes"}, "exif_orientation"),
        ({"decoder": "turbo"}, "decoder"),
        ({"antialias": False, "interpolation": "bicubic"}, "interpolation='bicubic'"),
    ],
)
def test_arguments_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(np.zeros((2, 4, 4, 3), "uint8"), **options)


# OpenCV ---------------------------------------------------------------------------------------------------------------


def test_without_opencv_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"keras-norm-layers\[opencv\]"):
        images.Format(antialias=False, decoder="opencv")
    assert images.Format(antialias=False).decoder == "pillow"


def test_an_opencv_that_is_too_old_is_not_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="4.10.0"))
    with pytest.raises(ImportError, match=r"needs OpenCV 4\.11.*found 4\.10\.0"):
        images.Format(antialias=False, decoder="opencv")
    assert images.Format(antialias=False).decoder == "pillow"


@pytest.fixture
def cv2():
    return pytest.importorskip("cv2", reason="OpenCV is not installed")


@pytest.mark.usefixtures("cv2")
def test_opencv_is_taken_for_what_it_does_as_pillow_does():
    assert images.Format(antialias=False).decoder == "opencv"
    assert images.Format().decoder == "pillow"
    assert images.Format(antialias=False, interpolation="nearest").decoder == "pillow"
    assert images.Format(antialias=False, decoder="pillow").decoder == "pillow"


def loaded(content, decoder="pillow", **options):
    """Pixels, or what is wrong with the file."""
    how = images.Format(antialias=False, decoder=decoder, **options)
    try:
        return images.load(io.BytesIO(content), "a file", how)[0]
    except images.ImageError as error:
        return error.reason


def encoded(image, kind="jpeg", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.usefixtures("cv2")
@pytest.mark.parametrize("antialias", [{"antialias": True}, {"antialias": False, "interpolation": "nearest"}])
def test_opencv_is_refused_for_what_is_pillows(antialias):
    with pytest.raises(ValueError, match="decoder='opencv' goes with antialias=False"):
        images.Format(decoder="opencv", **antialias)


@pytest.mark.usefixtures("cv2")
@pytest.mark.parametrize("color_mode", ["rgb", "grayscale", "rgba"])
def test_opencv_decodes_to_the_same_pixels(color_mode):
    random = np.random.default_rng(0)
    for number in range(40):
        image = picture(*random.integers(1, 60, 2), seed=number)
        options = {"quality": int(random.integers(40, 100)), "progressive": bool(number % 2)}
        options |= {"keep_rgb": True} if number % 7 == 0 else {"subsampling": number % 3}
        mode = ["RGB", "L", "CMYK"][number % 3]
        if mode != "RGB":
            options.pop("keep_rgb", None)
        content = encoded(image.convert(mode), **options)
        made = loaded(content, color_mode=color_mode, decoder="opencv")
        np.testing.assert_array_equal(made, loaded(content, color_mode=color_mode))


@pytest.mark.usefixtures("cv2")
def test_opencv_says_of_broken_files_what_pillow_says():
    random = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        content = encoded(picture(*random.integers(8, 60, 2), seed=number), progressive=bool(number % 2))
        cut = content[: int(len(content) * random.uniform(0, 0.98))]
        for broken in (cut, cut + b"\xff\xd9", b"", content[:2] + random.bytes(60)):
            expected, made = loaded(broken), loaded(broken, decoder="opencv")
            assert type(made) is type(expected)
            np.testing.assert_array_equal(made, expected)
            refused += isinstance(made, str)
    assert refused > 120
    deep = encoded(PIL.Image.new("I;16", (4, 4), 1000), "png")
    assert "more than 8 bits" in loaded(deep, decoder="opencv")


@pytest.mark.usefixtures("cv2")
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_opencv_resizes_upright_files_to_within_a_level(tmp_path, orientation):
    tagged(tmp_path / "a.jpg", orientation, picture(50, 70))
    for options in ({}, {"keep_aspect_ratio": "crop"}, {"keep_aspect_ratio": "pad"}, {"exif_orientation": False}):
        options = {**options, "antialias": False, "image_size": (31, 24)}
        made = fed(tmp_path / "a.jpg", decoder="opencv", **options).astype(int)
        assert np.abs(made - fed(tmp_path / "a.jpg", decoder="pillow", **options)).max() <= 1
    gray = data.from_arrays(np.asarray(picture())[None, ..., 0], image_size=(7, 5), antialias=False, decoder="opencv")
    assert gray[0].shape == (1, 7, 5, 1)


@pytest.mark.usefixtures("cv2")
def test_a_folder_read_by_opencv_is_that_of_pillow(tmp_path):
    samples.folder(tmp_path, 12)
    for number in range(6):
        picture(30 + number, 40, seed=number).save(tmp_path / "ape" / f"{number}.jpg")
    (tmp_path / "cat" / "cut.jpg").write_bytes(encoded(picture(60, 60))[:500])
    options = {"image_size": (9, 8), "antialias": False, "on_error": "skip", "shuffle": False}
    feeds = []
    for decoder in ("pillow", "opencv"):
        with pytest.warns(UserWarning, match="cut.jpg"):
            feeds.append(data.from_directory(tmp_path, decoder=decoder, **options))
    assert feeds[0].skipped == feeds[1].skipped
    assert len(feeds[0].skipped) == 1
    (x, labels), (other, other_labels) = feeds[0][0], feeds[1][0]
    np.testing.assert_array_equal(labels, other_labels)
    assert np.abs(x.astype(int) - other).max() <= 1
