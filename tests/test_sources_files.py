"""Images in files: memory maps, HDF5, Zarr, folders of pictures; what is wrong with a file is said by its name."""

import io
import os
import shutil
import sys

import numpy as np
import PIL.Image
import pytest
import skimage
import sklearn.datasets

from keras_norm_layers.statistics import elements, readers
from keras_norm_layers.statistics.sources import batches

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 5, 4, 3), dtype=np.uint8)


def sizes(data, **options):
    return [len(batch) for batch in batches(data, **options)]


def read(data, **options):
    return np.concatenate(list(batches(data, **options)))


# -- .npy --------------------------------------------------------------------------------------------------------------


def test_npy_files_are_read_as_memory_maps(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    for path in (tmp_path / "x.npy", str(tmp_path / "x.npy")):
        source = batches(path, batch_size=10)
        assert (source.length, source.images) == (3, 23)
        assert all(isinstance(batch.base, np.memmap) for batch in source)
        assert np.array_equal(read(path), IMAGES)
        assert np.array_equal(read((path, None), batch_size=4), IMAGES)
    with pytest.raises(ValueError, match="batches of 3 axes"):
        batches(tmp_path / "x.npy", rank=3)


def test_files_that_are_no_arrays(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(tmp_path / "short.npy", IMAGES)
    content = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-100])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects", "short", "empty", "text"):
        with pytest.raises(ValueError, match=f"{name}.npy' cannot be read as an array of images"):
            batches(tmp_path / f"{name}.npy")
    np.save(tmp_path / "names.npy", np.array(["a", "b"]))
    with pytest.raises(TypeError, match="holds text"):
        batches(tmp_path / "names.npy")


def test_paths_of_something_else(tmp_path):
    for path in ("images", tmp_path / "x.npy", tmp_path / "folder"):
        with pytest.raises(FileNotFoundError, match="There is no file or folder .*the path of a .npy file or a folder"):
            batches(path)
    for name, way in (("x.npz", r"np\.load\(.*x\.npz'\)\['images'\]"), ("x.h5", "h5py.File"), ("x.csv", "a function")):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=f"neither a .npy file nor a folder of images. Instead give .*{way}"):
            batches(tmp_path / name)
    with pytest.raises(TypeError, match="A path must be a str"):
        batches(BytesPath())


class BytesPath(os.PathLike):
    def __fspath__(self):
        return b"images"


# -- HDF5 and Zarr -----------------------------------------------------------------------------------------------------


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        plain = file.create_dataset("images", data=IMAGES)
        chunked = file.create_dataset("sets/train", data=IMAGES, chunks=(4, 5, 4, 3), compression="gzip")
        for data in (plain, chunked, file, {"image": chunked}):
            key = "images" if data is file else None
            assert np.array_equal(read(data, batch_size=5, key=key), IMAGES)
            assert batches(data, key=key).images == 23
        assert np.array_equal(read(file, key="sets/train"), IMAGES)
        with pytest.raises(ValueError, match="Received: key='test'"):
            batches(file, key="test")
    with pytest.raises(ValueError, match="belongs to a file that is closed"):
        batches(plain)


@pytest.mark.parametrize("rows", [1, 3, 8, 23, 100])
def test_batches_of_files_are_whole_chunks(tmp_path, monkeypatch, rows):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    monkeypatch.setattr(elements, "BATCH_BYTES", IMAGES[0].nbytes * 10)
    rows = min(rows, 23)
    expected = rows * max(1, 10 // rows)
    array = zarr.open(str(tmp_path / "x.zarr"), mode="w", shape=IMAGES.shape, chunks=(rows, 5, 2, 3), dtype="uint8")
    array[:] = IMAGES
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for data in (array, file.create_dataset("x", data=IMAGES, chunks=(rows, 5, 2, 3))):
            source = batches(data)
            assert sizes(data)[0] == min(23, expected)
            assert source.length == len(list(source)) == -(-23 // expected)
            assert sizes(data, batch_size=7) == [7, 7, 7, 2]
            assert np.array_equal(read(data), IMAGES)


def test_huge_chunks_are_cut(tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    monkeypatch.setattr(elements, "BATCH_BYTES", IMAGES[0].nbytes * 2)
    monkeypatch.setattr(readers, "CHUNK_BYTES", IMAGES[0].nbytes * 20)
    array = zarr.open(str(tmp_path / "x.zarr"), mode="w", shape=IMAGES.shape, chunks=IMAGES.shape, dtype="uint8")
    array[:] = IMAGES
    assert set(sizes(array)) == {2, 1}


def test_zarr_groups_and_paths(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    for name in ("images", "labels"):
        create = getattr(group, "create_array", None) or group.create_dataset  # Zarr 3, Zarr 2
        create(name, shape=IMAGES.shape, chunks=(4, 5, 4, 3), dtype="uint8")
    group["images"][:] = IMAGES
    assert np.array_equal(read(group), IMAGES)
    assert np.array_equal(read(group, key="labels"), np.zeros_like(IMAGES))
    with pytest.raises(ValueError, match="is a Zarr store and no folder of images: give zarr.open"):
        batches(tmp_path / "x.zarr")


# -- folders -----------------------------------------------------------------------------------------------------------


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(pixels.squeeze())
    (image if mode is None else image.convert(mode)).save(path)


@pytest.fixture
def folder(tmp_path):
    """23 pictures in two classes; hidden files and a list beside them."""
    for i, pixels in enumerate(IMAGES):
        save(tmp_path / ("a" if i < 10 else "b") / f"{i:02}.png", pixels)
    save(tmp_path / "a" / ".hidden.png", IMAGES[0])
    save(tmp_path / ".thumbnails" / "00.png", IMAGES[0])
    (tmp_path / "labels.csv").write_text("no image")
    return tmp_path


def test_folders(folder):
    for path in (folder, str(folder)):
        source = batches(path, batch_size=10, rank=4)
        assert (source.length, source.images, source.once) == (3, 23, False)
        assert [len(batch) for batch in source] == [10, 10, 3]
        assert np.array_equal(np.concatenate(list(source)), IMAGES)
    assert read(folder).dtype == np.uint8
    assert np.array_equal(read(folder / "b"), IMAGES[10:])
    with pytest.raises(ValueError, match=r"batches of 2 axes. Received the shape \(None, 5, 4, 3\)"):
        batches(folder, rank=2)


def test_batches_of_folders_have_the_size_of_those_of_arrays(folder, monkeypatch):
    monkeypatch.setattr(elements, "BATCH_BYTES", IMAGES[0].nbytes * 8)
    assert sizes(folder) == sizes(IMAGES) == [8, 8, 7]


def test_a_sample_of_a_folder_decodes_no_other_images(folder, monkeypatch):
    from keras_norm_layers.statistics import folders

    decoded = []
    original = folders.decode
    monkeypatch.setattr(folders, "decode", lambda path, mode: decoded.append(path) or original(path, mode))
    images = read(folder, batch_size=5, sample=0.3, seed=2)
    assert np.array_equal(images, read(IMAGES, batch_size=7, sample=0.3, seed=2))
    assert len(decoded) == len(images) < 23


def test_pictures_of_different_sizes_come_as_a_list_of_them_would(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    pictures = [np.full((2 + h, 3, 3), i, "uint8") for i, h in enumerate(rng.integers(0, 2, 40))]
    for i, pixels in enumerate(pictures):
        save(tmp_path / f"{i:03}.bmp", pixels)
    for options in ({}, {"batch_size": 3}):
        monkeypatch.setattr(elements, "BATCH_BYTES", 60)
        source, expected = batches(tmp_path, **options), list(batches(pictures, **options))
        found = list(source)
        assert [batch.shape for batch in found] == [batch.shape for batch in expected]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected))
        assert source.length is None  # it cannot know, and says no wrong number
        for start in (1, 5, len(found), len(found) + 3):
            rest = list(source.iterate(start))
            assert len(rest) == len(found[start:])
            assert all(np.array_equal(a, b) for a, b in zip(rest, found[start:]))


def test_real_photos(tmp_path):
    photos = sklearn.datasets.load_sample_images().images
    for photo, name in zip(photos, ("china", "flower")):
        save(tmp_path / f"{name}.png", photo)
        save(tmp_path / f"{name}_gray.jpg", photo[:, :, 1])
    images = read(tmp_path)
    assert images.shape == (4, *photos[0].shape)
    assert np.array_equal(images[::2], photos)
    gray = images[1]
    assert (gray == gray[:, :, :1]).all()  # gray becomes colour by repetition
    assert np.abs(gray[:, :, 0].astype(int) - photos[0][:, :, 1]).mean() < 5  # a JPEG


@pytest.mark.parametrize(
    ("mode", "name", "channels"),
    [("1", "x.png", 1), ("L", "x.tif", 1), ("P", "x.gif", 3), ("CMYK", "x.jpg", 3), ("LA", "x.png", 4)]
    + [("RGBA", "x.TIFF", 4), ("RGB", "x.webp", 3), ("RGB", "x.ppm", 3), ("RGB", "x.jpeg", 3), ("L", "x.pgm", 1)],
)
def test_modes_and_formats(tmp_path, mode, name, channels):
    pixels = np.full((8, 6, 3), 255, "uint8")
    save(tmp_path / name, pixels, mode)
    images = read(tmp_path)
    assert images.shape == (1, 8, 6, channels)
    assert images.dtype == np.uint8
    assert (images >= 250).all()


def test_the_first_image_decides_on_the_channels(tmp_path):
    save(tmp_path / "a.png", IMAGES[0], "RGBA")
    save(tmp_path / "b.png", IMAGES[1])
    save(tmp_path / "c.png", IMAGES[2], "L")
    assert read(tmp_path).shape == (3, 5, 4, 4)
    save(tmp_path / "0.png", IMAGES[3])
    with pytest.raises(ValueError, match=r"a.png' has 4 channels \(RGBA\), the first of the folder 3 \(RGB\)"):
        read(tmp_path)
    palette = PIL.Image.fromarray(IMAGES[0]).convert("P")
    palette.info["transparency"] = 0
    palette.save(tmp_path / "01.png")
    with pytest.raises(ValueError, match=r"01.png' has 4 channels"):
        read(tmp_path)


def broken(name):
    buffer = io.BytesIO()
    PIL.Image.fromarray(sklearn.datasets.load_sample_images().images[0]).save(buffer, name)
    return buffer.getvalue()[:-5000]


@pytest.mark.parametrize(
    "content", [b"", b"no image at all", broken("png"), broken("jpeg"), b"\x89PNG\r\n\x1a\n" + b"\0" * 30]
)
def test_a_broken_file_is_named(folder, content):
    (folder / "b" / "11.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"11\.png' cannot be read \(.*\). Repair it, or move it out"):
        read(folder)


def test_more_than_8_bits_are_refused(tmp_path):
    deep = np.full((4, 4), 1000, "uint16")
    PIL.Image.fromarray(deep).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="x.png' is no gray, RGB or RGBA image of 8 bits a value .*I;16"):
        batches(tmp_path)
    (tmp_path / "x.png").unlink()
    colour = np.repeat(deep[:, :, None], 3, 2).astype(">u2").tobytes()
    (tmp_path / "x.ppm").write_bytes(b"P6 4 4 65535\n" + colour)
    with pytest.raises(ValueError, match="x.ppm' is no gray.*65535"):
        batches(tmp_path)
    (tmp_path / "x.ppm").unlink()
    shutil.copy(f"{skimage.data_dir}/chessboard_RGB.png", tmp_path)
    with pytest.raises(ValueError, match=r"chessboard_RGB.png' is no gray.*RGB;16B"):
        batches(tmp_path)


def test_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no image in the folder .* files whose names end in .bmp, "):
        batches(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".x.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="There is no image in the folder"):
        batches(tmp_path)


def test_without_pillow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"read by Pillow: pip install keras-norm-layers\[viz\]"):
        batches(folder)


def test_links_are_followed_and_lead_into_no_circle(folder):
    os.symlink(folder / "a", folder / "c")
    os.symlink(folder, folder / "b" / "top")
    assert np.array_equal(read(folder), np.concatenate([IMAGES, IMAGES[:10]]))
