"""Reports of data sets, and augmented images as files."""

import os
import shutil

import data_samples as samples
import numpy as np
import PIL.Image
import pytest

import keras_norm_layers as knl
from keras_norm_layers import data

FLIP = knl.RandomFlip("horizontal")


def test_a_report_of_a_folder(tmp_path):
    samples.folder(tmp_path, 9)
    samples.write(tmp_path / "ape" / "large.png", 0, (10, 12))
    PIL.Image.new("L", (5, 6)).save(tmp_path / "ape" / "gray.png")
    shutil.copy(tmp_path / "ape" / "000.png", tmp_path / "cat" / "again.png")
    (tmp_path / "bear" / "broken.png").write_bytes((tmp_path / "bear" / "001.png").read_bytes()[:50])
    (tmp_path / "bear" / "notes.txt").write_text("notes")
    frames = [PIL.Image.new("RGB", (5, 6), (i, 0, 0)) for i in range(2)]
    frames[0].save(tmp_path / "cat" / "moving.png", save_all=True, append_images=frames[1:])
    found = data.report(tmp_path)
    assert found.counts == {"ape": 5, "bear": 3, "cat": 5}
    assert found.images == 13
    assert found.sizes == {(6, 5): 12, (10, 12): 1}
    assert found.channels == {3: 12, 1: 1}
    assert sorted(os.path.basename(name) for name, _ in found.broken) == ["broken.png", "notes.txt"]
    assert [[os.path.basename(name) for name in group] for group in found.duplicates] == [["000.png", "again.png"]]
    assert [os.path.basename(name) for name in found.animated] == ["moving.png"]
    text = str(found)
    for part in ("13 images", "'ape': 5 (fewer than 1000)", "6 x 5: 12", "broken.png", "again.png", "moving.png"):
        assert part in text
    with pytest.warns(UserWarning, match="left out|frames"):
        feed = data.from_directory(tmp_path, on_error="skip", image_size=(4, 4))
    again = data.report(feed)
    assert (again.counts, again.sizes, again.duplicates) == (found.counts, found.sizes, found.duplicates)
    assert sorted(again.broken) == sorted(found.broken)
    with pytest.raises(TypeError, match="no options"):
        data.report(feed, nested=True)
    with pytest.raises(FileNotFoundError):
        data.report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("counts", "few", "unbalanced"),
    [
        ([1000, 999, 1200], [1], []),
        ([3000, 300, 300], [1, 2], []),  # exactly 10 % of the largest
        ([3000, 299, 300], [1, 2], [1]),
        ([1000, 1000, 1000, 180], [3], []),
        ([1000, 1000, 1000, 150], [3], [3]),  # 20 % of the mean is 157.5
        ([5000, 1, 1, 1, 1, 490], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),  # 10 % of the largest decides
    ],
)
def test_few_and_unbalanced_by_their_rules(counts, few, unbalanced):
    names = {f"c{i}": count for i, count in enumerate(counts)}
    found = data.Report(names, sum(counts), {}, {}, [], [], [])
    assert found.few == [f"c{i}" for i in few]
    assert found.unbalanced == [f"c{i}" for i in unbalanced]


def test_a_report_is_a_picture(tmp_path):
    images = np.stack([samples.image(i) for i in range(40)])
    found = data.report(data.from_arrays(images, ["a $x$"] * 38 + ["b"] * 2))
    assert found.unbalanced == ["b"]
    figure = found.plot()
    figure.savefig(tmp_path / "report.png")
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [38, 2]
    assert bars[0].get_facecolor() != bars[1].get_facecolor()
    assert (tmp_path / "report.png").stat().st_size > 1000


# Augmented files ------------------------------------------------------------------------------------------------------


def read(paths):
    return np.stack([np.asarray(PIL.Image.open(path)) for path in paths])


def test_the_same_seed_gives_the_same_files_and_copies_differ(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype="uint8")
    first = knl.save_augmented(images, FLIP, tmp_path / "a", copies=3, seed=4)
    FLIP(images)
    second = knl.save_augmented(images, FLIP, tmp_path / "b", copies=3, seed=4)
    other = knl.save_augmented(images, FLIP, tmp_path / "c", copies=3, seed=5)
    assert len(first) == len(set(first)) == 120
    assert sorted(map(os.path.basename, first)) == sorted(os.listdir(tmp_path / "a"))
    np.testing.assert_array_equal(read(first), read(second))
    assert (read(first) != read(other)).any()
    written = read(first).reshape(40, 3, 8, 8, 3)
    flipped = (written == images[:, None, :, ::-1]).all((2, 3, 4))
    assert (flipped | (written == images[:, None]).all((2, 3, 4))).all()  # exact pixels, paired with their sources
    assert 0.3 < flipped.mean() < 0.7
    assert (flipped.any(1) & ~flipped.all(1)).any()


def test_feeds_formats_ranges_and_refusals(tmp_path):
    images = np.stack([samples.image(i) for i in range(5)])
    feed = data.from_arrays(images, [0, 1, 2, 0, 1], batch_size=2, seed=1)
    paths = knl.save_augmented(feed, FLIP, tmp_path / "feed", prefix="new", format="bmp", seed=1)
    assert [os.path.basename(path) for path in paths] == [f"new_{i}_0.bmp" for i in range(5)]
    np.testing.assert_array_equal(read(paths), images)
    with pytest.raises(FileExistsError, match="new_0_0"):
        knl.save_augmented(feed, FLIP, tmp_path / "feed", prefix="new", format="bmp")
    knl.save_augmented(feed, FLIP, tmp_path / "feed", prefix="new", format="bmp", overwrite=True)
    unit = knl.save_augmented(images / np.float32(255), FLIP, tmp_path / "unit", value_range=(0, 1), seed=1)
    np.testing.assert_array_equal(read(unit), images)
    gray = knl.save_augmented(images[..., :1], FLIP, tmp_path / "gray", seed=1)
    assert read(gray).shape == (5, 6, 5)
    bad = [
        (TypeError, {"layer": knl.FeaturewiseNormalization()}, "layer"),
        (ValueError, {"images": images * np.float32(2)}, "value_range"),
        (ValueError, {"format": "gif"}, "format"),
        (ValueError, {"copies": 0}, "copies"),
        (ValueError, {"prefix": "../x"}, "prefix"),
        (ValueError, {"images": np.zeros((1, 4, 4, 4), "uint8"), "format": "jpeg"}, "channels"),
        (ValueError, {"images": images[0]}, "N, H, W, C"),
    ]
    for error, change, message in bad:
        with pytest.raises(error, match=message):
            knl.save_augmented(**{"images": images, "layer": FLIP, "directory": tmp_path / "bad", **change})
