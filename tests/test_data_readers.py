"""Every reader of ``data``: id-encoded images come once an epoch with their labels; what is no sample is named."""

import csv
import json
import os

import data_samples as samples
import fsspec
import h5py
import numpy as np
import pandas as pd
import PIL.Image
import pyarrow
import pytest

from keras_norm_layers import data

COUNT = 20


def rows(root):
    return [
        (f"{samples.NAMES[samples.class_of(i)]}/{i:03}.png", samples.NAMES[samples.class_of(i)]) for i in range(COUNT)
    ]


def frame(root):
    return pd.DataFrame(rows(root), columns=["filename", "class"])


def directory(root, **options):
    return data.from_directory(root, **options)


def dataframe(root, **options):
    return data.from_dataframe(frame(root), root, **options)


def arrow(root, **options):
    return data.from_dataframe(pyarrow.Table.from_pandas(frame(root)), root, **options)


def interchange(root, **options):
    class Other:
        def __dataframe__(self, *args, **kwargs):
            return frame(root).__dataframe__(*args, **kwargs)

    return data.from_dataframe(Other(), root, **options)


def table_of_files(root, **options):
    frame(root).to_csv(root.parent / "files.csv", index=False)
    return data.from_csv(root.parent / "files.csv", root, **options)


def table_of_pixels(root, **options):
    path = root.parent / "pixels.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "pixels"])
        for i, (_, name) in enumerate(rows(root)):
            writer.writerow([name, " ".join(map(str, samples.image(i).ravel()))])
    return data.from_csv(path, pixels_col="pixels", image_shape=(6, 5, 3), **options)


def columns_of_pixels(root, **options):
    path = root.parent / "columns.csv"
    with open(path, "w") as file:
        for i in range(COUNT):
            file.write(";".join(map(str, [samples.class_of(i), *samples.image(i).ravel()])) + "\n")
    return data.from_csv(
        path, y_col=0, pixels_col="rest", image_shape=(6, 5, 3), header=False, separator=";", **options
    )


def json_records(root, **options):
    path = root / "records.json"
    path.write_text(json.dumps([{"filename": name, "class": kind, "more": 1} for name, kind in rows(root)]))
    return data.from_json(path, **options)


def json_lines(root, **options):
    path = root / "lines.jsonl"
    path.write_text("\n".join(json.dumps({"filename": name, "class": kind}) for name, kind in rows(root)))
    return data.from_json(path, **options)


def json_mapping(root, **options):
    path = root / "mapping.json"
    path.write_text(json.dumps(dict(rows(root))))
    return data.from_json(path, **options)


def hdf5_groups(root, **options):
    path = root.parent / "groups.h5"
    if not path.exists():  # HDF5 does not write a file that is read
        with h5py.File(path, "w") as file:
            for i, (name, _) in enumerate(rows(root)):
                file[name] = samples.image(i)
    return data.from_hdf5(path, **options)


def hdf5_attributes(root, **options):
    path = root.parent / "attributes.h5"
    if not path.exists():  # HDF5 does not write a file that is read
        with h5py.File(path, "w") as file:
            for i, (_, kind) in enumerate(rows(root)):
                file[f"a/b/{kind}/{i}"] = samples.image(i)
                file[f"a/b/{kind}"].attrs["kind"] = kind
    return data.from_hdf5(path, label_attribute="kind", **options)


def hdf5_datasets(root, **options):
    path = root.parent / "datasets.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file["x"] = [samples.image(i) for i in range(COUNT)]
            file["y"] = [kind for _, kind in rows(root)]
    return data.from_hdf5(path, images="x", labels="y", **options)


def memory_map(root, **options):
    np.save(root.parent / "x.npy", [samples.image(i) for i in range(COUNT)])
    return data.from_arrays(root.parent / "x.npy", [samples.class_of(i) for i in range(COUNT)], **options)


def file_address(root, **options):
    return data.from_directory(f"file://{root}", **options)


def memory_address(root, **options):
    system = fsspec.filesystem("memory")
    place = f"/{root.parent.name}"
    if not system.exists(place):
        system.put(str(root), place, recursive=True)
    return data.from_directory(f"memory:/{place}", **options)


def remote_csv(root, **options):
    frame(root).to_csv(root / "labels.csv", index=False)
    return data.from_csv(f"file://{root}/labels.csv", **options)


READERS = [
    directory,
    dataframe,
    arrow,
    interchange,
    table_of_files,
    table_of_pixels,
    columns_of_pixels,
    json_records,
    json_lines,
    json_mapping,
    hdf5_groups,
    hdf5_attributes,
    hdf5_datasets,
    memory_map,
    file_address,
    memory_address,
    remote_csv,
]


@pytest.mark.filterwarnings("ignore:.*interchange:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*interchange:FutureWarning")
@pytest.mark.parametrize("reader", READERS)
def test_each_sample_once_labels_paired_splits_disjoint(tmp_path, reader):
    root = samples.folder(tmp_path / "animals", COUNT)
    made = reader(root, batch_size=6, seed=1)
    assert made.class_names == (list("012") if reader in (columns_of_pixels, memory_map) else list(samples.NAMES))
    first, second = samples.collect(made, 0), samples.collect(made, 1)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    assert samples.collect(reader(root, batch_size=6, seed=1)) == first
    parts = reader(root, seed=1, validation_split=0.25, subset="both", label_mode="categorical")
    training, held_out = (samples.collect(part) for part in parts)
    assert sorted(training + held_out) == list(range(COUNT))
    assert len(held_out) == 5


# Folders --------------------------------------------------------------------------------------------------------------


def test_nested_folders_are_classes_on_request(tmp_path):
    for number, name in enumerate(("dog/poodle", "dog/husky", "cat/manx")):
        samples.write(tmp_path / name / "a.png", number)
    assert data.from_directory(tmp_path, nested=True).class_names == ["cat/manx", "dog/husky", "dog/poodle"]
    shallow = data.from_directory(tmp_path, shuffle=False)
    assert shallow.class_names == ["cat", "dog"]
    assert shallow.labels.tolist() == [0, 1, 1]


def test_a_folder_that_is_split_already(tmp_path):
    for number, part in enumerate(("train", "train", "test")):
        samples.write(tmp_path / part / samples.NAMES[number] / f"{number}.png", number)
    training, test = data.from_directory(tmp_path, subset="both")
    assert training.class_names == test.class_names == list(samples.NAMES)
    assert samples.collect(test) == [2]
    assert sorted(samples.collect(training)) == [0, 1]
    assert data.from_directory(tmp_path, subset="test").names == test.names
    with pytest.raises(ValueError, match="split already"):
        data.from_directory(tmp_path)
    (tmp_path / "read.me").write_text("notes")
    with pytest.raises(ValueError, match=r"read\.me"):
        data.from_directory(tmp_path, subset="training")


def test_labels_and_class_names_of_a_folder(tmp_path):
    samples.folder(tmp_path, 6)
    given = data.from_directory(tmp_path, labels=[3, 0, 4, 1, 5, 2], class_names=None, label_mode="raw")
    for x, y in given:  # labels in the order of sorted paths: ape/000, ape/003, bear/001, ...
        assert y.tolist() == [{0: 3, 3: 0, 1: 4, 4: 1, 2: 5, 5: 2}[int(n)] for n in x[:, 0, 0, 0]]
    assert isinstance(data.from_directory(tmp_path, labels=None)[0], np.ndarray)
    some = data.from_directory(tmp_path, class_names=["cat", "ape"], shuffle=False)
    assert some.labels.tolist() == [1, 1, 0, 0]
    for options in ({"class_names": ["cow"]}, {"labels": [1]}, {"labels": "none"}):
        with pytest.raises(ValueError, match="from_directory"):
            data.from_directory(tmp_path, **options)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        data.from_directory(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError):
        data.from_directory(tmp_path / "ape" / "000.png")
    with pytest.raises(TypeError, match="image_sise"):
        data.from_directory(tmp_path, image_sise=(2, 2))


def test_masks_of_a_folder_keep_their_class_numbers(tmp_path):
    samples.folder(tmp_path / "x", 4)
    for path in sorted((tmp_path / "x").rglob("*.png")):
        number = int(path.stem)
        mask = PIL.Image.fromarray(np.full((6, 5), number, "uint8"), "L").convert("P") if number % 2 else None
        mask = mask or PIL.Image.fromarray(np.full((6, 5), number, "uint8"))
        target = tmp_path / "y" / path.parent.name / f"{path.stem}.gif"
        target.parent.mkdir(parents=True, exist_ok=True)
        mask.save(target.with_suffix(".png"))
    x, y = data.from_directory(tmp_path / "x", masks=tmp_path / "y", labels=None)[0]
    assert x.shape == (4, 6, 5, 3)
    assert (y[..., 0] == x[..., 0]).all()
    os.remove(tmp_path / "y" / "ape" / "000.png")
    with pytest.raises(ValueError, match="have no mask"):
        data.from_directory(tmp_path / "x", masks=tmp_path / "y", labels=None)


# Tables ---------------------------------------------------------------------------------------------------------------


def test_rows_that_are_no_sample_are_named(tmp_path):
    samples.write(tmp_path / "in" / "a.png", 0)
    samples.write(tmp_path / "out.png", 1)
    os.symlink(tmp_path / "out.png", tmp_path / "in" / "link.png")
    names = ["a.png", "../out.png", str(tmp_path / "out.png"), "link.png", "gone.png", None, "a.png", "nul\0.png"]
    table = {"filename": names, "class": ["x"] * 6 + [None, "x"]}
    with pytest.raises(ValueError, match=r"\.\./out\.png"):
        data.from_dataframe(table, tmp_path / "in")
    with pytest.warns(UserWarning, match="7 files are left out"):
        made = data.from_dataframe(table, tmp_path / "in", on_error="skip")
    assert samples.collect(made) == [0]
    reasons = dict(made.skipped)
    assert [name for name, _ in made.skipped] == ["../out.png", names[2], "link.png", "gone.png", "row 5", *names[6:]]
    assert "outside" in reasons["../out.png"]
    assert "link" in reasons["link.png"]
    assert "no label" in reasons["a.png"]
    free = {"filename": [str(tmp_path / "out.png")], "class": ["x"]}
    assert data.from_dataframe(free).num_samples == 1  # no folder is named, so nothing lies outside


def test_several_labels_boxes_and_masks_in_a_table(tmp_path):
    for number in range(2):
        samples.write(tmp_path / f"{number}.png", number)
        PIL.Image.new("L", (5, 6), 3 + number).save(tmp_path / f"m{number}.png")
    path = tmp_path / "t.csv"
    path.write_text(
        'filename,mask,tags,boxes,ids,u,v\n0.png,m0.png,cat|dog,"[[0,0,2,2]]",[4],1,0\n1.png,m1.png,dog,,,0,1\n'
    )
    options = {"mask_col": "mask", "boxes_col": "boxes", "box_labels_col": "ids", "shuffle": False}
    made = data.from_csv(path, y_col="tags", label_separator="|", label_mode="multi-label", **options)
    _, y = made[0]
    assert made.class_names == ["cat", "dog"]
    assert y["labels"].tolist() == [[1, 1], [0, 1]]
    assert y["segmentation_masks"][:, 0, 0, 0].tolist() == [3, 4]
    assert y["bounding_boxes"]["labels"].tolist() == [[4], [-1]]
    columns = data.from_csv(path, y_col=["u", "v"], label_mode="multi-label", shuffle=False)
    assert columns.labels.tolist() == [[1, 0], [0, 1]]
    assert columns.class_names == ["u", "v"]
    assert data.from_csv(path, y_col=None)[0].shape == (2, 6, 5, 3)


def test_tables_that_make_no_images_are_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("class,pixels\n0,1 2 3 4\n1,1 2 3\n0,300 0 0 0\n1,a b c d\n0,NaN 1 1 1\n")
    with pytest.raises(ValueError, match="row 1.*3 pixels"):
        data.from_csv(path, pixels_col="pixels")
    with pytest.warns(UserWarning, match="4 files"):
        made = data.from_csv(path, pixels_col="pixels", on_error="skip")
    assert made[0][0].ravel().tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="no column"):
        data.from_csv(path)
    with pytest.raises(TypeError, match="__dataframe__"):
        data.from_dataframe([1, 2])
    with pytest.raises(ValueError, match="one length"):
        data.from_dataframe({"filename": ["a"], "class": []})
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="neither JSON"):
        data.from_json(tmp_path / "broken.json")
    (tmp_path / "number.json").write_text("3")
    with pytest.raises(ValueError, match="records or columns"):
        data.from_json(tmp_path / "number.json")


# HDF5 -----------------------------------------------------------------------------------------------------------------


def test_hdf5_nested_groups_and_what_is_no_image(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["dog/poodle/a"] = samples.image(0)
        file["dog/husky"] = np.stack([samples.image(1), samples.image(2)])
    assert data.from_hdf5(path, nested=True).class_names == ["dog", "dog/poodle"]
    assert data.from_hdf5(path).num_samples == 3
    with h5py.File(path, "a") as file:
        file["dog/text"] = "words"
        file["dog/out"] = h5py.ExternalLink("other.h5", "x")
        file["loose"] = samples.image(3)
    with pytest.raises(ValueError, match="dog/"):
        data.from_hdf5(path)
    with pytest.warns(UserWarning, match="3 files"):
        made = data.from_hdf5(path, on_error="skip")
    assert [name.split(":")[1] for name, _ in made.skipped] == ["dog/out", "dog/text", "loose"]
    with pytest.raises(ValueError, match="no dataset"):
        data.from_hdf5(path, images="nothing")
    with pytest.raises(ValueError, match="Give `images`"):
        data.from_hdf5(path, labels="y")
    (tmp_path / "b.h5").write_bytes(b"no")
    with pytest.raises(ValueError, match="HDF5"):
        data.from_hdf5(tmp_path / "b.h5")


# Addresses ------------------------------------------------------------------------------------------------------------


def test_what_is_broken_or_outside_of_an_address_is_named(tmp_path):
    samples.folder(tmp_path / "x", 3)
    (tmp_path / "x" / "cat" / "half.png").write_bytes((tmp_path / "x" / "cat" / "002.png").read_bytes()[:50])
    (tmp_path / "x" / "cat" / "empty.png").write_bytes(b"")
    os.symlink(tmp_path / "x" / "ape" / "000.png", tmp_path / "x" / "cat" / "link.png")
    with pytest.warns(UserWarning, match="3 files"):
        made = data.from_directory(f"file://{tmp_path}/x", on_error="skip")
    assert sorted(name.rpartition("/")[2] for name, _ in made.skipped) == ["empty.png", "half.png", "link.png"]
    assert sorted(samples.collect(made)) == [0, 1, 2]
    address = f"file://{tmp_path}/x"
    table = {"filename": ["ape/000.png", "ape/../../x.png", "memory://a.png", "gone.png"], "class": [0] * 4}
    with pytest.warns(UserWarning, match="3 files"):
        made = data.from_dataframe(table, address, on_error="skip")
    assert [name for name, _ in made.skipped] == ["ape/../../x.png", "memory://a.png", f"{address}/gone.png"]
    whole = {"filename": [f"{address}/ape/000.png"], "class": [0]}
    assert samples.collect(data.from_dataframe(whole)) == [0]
    with pytest.raises(FileNotFoundError, match="memory"):
        data.from_directory("memory://nothing/here")
    report = data.report(address)
    assert report.images == 3
    assert len(report.broken) == 3
