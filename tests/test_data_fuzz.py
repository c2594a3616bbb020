"""Folders of good and of broken files: no crash, no hang, no wrong label, and each that is left out is named.

``FEED_FUZZ`` says how many files are made, 1000 by default.
"""

import builtins
import os
import pathlib
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest

from keras_norm_layers import data

COUNT = int(os.environ.get("FEED_FUZZ", "1000"))
SIZE = (16, 12)  # width, height


def color(number):
    return (number % 256, 255 - number % 256, number * 7 % 256)


def picture(number):
    return PIL.Image.new("RGB", SIZE, color(number))


def png(width, height, depth, kind, pixels):
    """A PNG file by its specification."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def saver(suffix, convert="RGB", **options):
    def save(stem, number, random):
        picture(number).convert(convert).save(f"{stem}{suffix}", **options)
        return f"{stem}{suffix}"

    return save


def writer(suffix, content):
    def write(stem, number, random):
        with open(f"{stem}{suffix}", "wb") as file:
            file.write(content(number, random))
        return f"{stem}{suffix}"

    return write


def cut(suffix, **options):
    def save(stem, number, random):
        path = saver(suffix, **options)(stem, number, random)
        os.truncate(path, int(os.path.getsize(path) * random.uniform(0.05, 0.6)))
        return path

    return save


def named(ending):
    return lambda stem, number, random: saver(f"{ending}.png")(stem, number, random)


def renamed(stem, number, random):
    picture(number).save(f"{stem}.jpg", format="png")
    return f"{stem}.jpg"


def palette(stem, number, random):
    picture(number).convert("P", palette=PIL.Image.Palette.ADAPTIVE).save(f"{stem}.png")
    return f"{stem}.png"


def transparent(stem, number, random):
    image = picture(number).convert("RGBA")
    image.putalpha(int(random.integers(0, 256)))
    image.save(f"{stem}.png")
    return f"{stem}.png"


def animated(stem, number, random):
    frames = [PIL.Image.new("RGB", SIZE, color(number + i)) for i in range(3)]
    frames[0].save(f"{stem}.png", save_all=True, append_images=frames[1:])
    return f"{stem}.png"


def mutant(stem, number, random):
    """Some bytes of a good file are others: it may be read or not."""
    path = saver(random.choice([".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm"]))(stem, number, random)
    content = bytearray(pathlib.Path(path).read_bytes())
    for place in random.integers(0, len(content), 4):
        content[place] = random.integers(0, 256)
    pathlib.Path(path).write_bytes(content)
    return path


def link(target):
    def make(stem, number, random):
        where = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(stem))), target)
        os.symlink(where, f"{stem}.png")
        return f"{stem}.png"

    return make


def fifo(stem, number, random):
    os.mkfifo(f"{stem}.png")
    return f"{stem}.png"


def hidden(stem, number, random):
    return saver(".png")(os.path.join(os.path.dirname(stem), f".{number}"), number, random)


GOOD = {
    "png": saver(".png"),
    "jpeg": saver(".jpg", quality=100, subsampling=0),
    "bmp": saver(".BMP"),
    "tiff": saver(".tif"),
    "webp": saver(".webp", lossless=True),
    "palette": palette,
    "alpha": transparent,
    "animated": animated,
    "extension": renamed,
    "unicode": named("_ñ_猫_🐈"),
    "newline": named("_a\nb"),
    "spaces": named(" ' \" # % * [0] "),
}
BAD = {
    "cut png": cut(".png"),
    "cut jpeg": cut(".jpg"),
    "cut bmp": cut(".bmp"),
    "cut webp": cut(".webp"),
    "empty": writer(".png", lambda n, r: b""),
    "noise": writer(".jpg", lambda n, r: r.bytes(int(r.integers(1, 500)))),
    "signature": writer(".png", lambda n, r: b"\x89PNG\r\n\x1a\n" + r.bytes(50)),
    "text": writer(".png", lambda n, r: b"<html>404</html>"),
    "notes": writer(".txt", lambda n, r: b"notes"),
    "no extension": writer("", lambda n, r: png(2, 2, 8, 0, b"\0" * 6)),
    "huge": writer(".png", lambda n, r: png(60000, 60000, 8, 2, b"")),
    "claims": writer(".png", lambda n, r: png(3000, 3000, 8, 2, b"\0" * 100)),
    "16 bits": writer(".png", lambda n, r: png(2, 2, 16, 0, b"\0" + b"\1" * 4 + b"\0" + b"\2" * 4)),
    "48 bits": writer(".png", lambda n, r: png(2, 1, 16, 2, b"\0" + b"\1" * 12)),
    "float": lambda s, n, r: (PIL.Image.new("F", SIZE, 0.5).save(f"{s}.tif"), f"{s}.tif")[1],
    "link out": link("secret.png"),
    "link nowhere": link("nothing.png"),
    "fifo": fifo,
    "locked": lambda s, n, r: saver("_locked.png")(s, n, r),
}


@pytest.fixture
def locked(monkeypatch):
    """Files whose names hold "locked" cannot be opened, as if the user had no right to."""
    real = builtins.open

    def refuse(path, mode="r", *args, **kwargs):
        if "locked" in str(path) and mode == "rb":
            raise PermissionError(13, "Permission denied", path)
        return real(path, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)


def make(root, kinds, count, seed):
    """Files of the kinds in turn, in three classes; path -> (kind, number)."""
    random = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        folder = root / f"class{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        made[kinds[kind](str(folder / f"{number:05}"), number, random)] = (kind, number)
    return made


@pytest.mark.usefixtures("locked")
def test_what_is_good_is_fed_and_what_is_broken_is_named(tmp_path):
    picture(0).save(tmp_path / "secret.png")
    root = tmp_path / "root"
    kinds = {
        **GOOD,
        **BAD,
        "mutant": mutant,
        "cmyk": saver(".tif", "CMYK"),
        "gray": saver(".png", "L"),
        "hidden": hidden,
    }
    files = make(root, kinds, COUNT, seed=0)
    os.symlink(root, root / "class0" / "circle")
    os.symlink(tmp_path, root / "class1" / "upwards")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        feed = data.from_directory(root, image_size=SIZE[::-1], on_error="skip", shuffle=False, batch_size=16)
        batches = list(feed)
    fed, skipped = set(feed.names), {name for name, _ in feed.skipped}
    expected = {path for path, (kind, _) in files.items() if kind not in BAD and kind not in ("mutant", "hidden")}
    mutants = {path for path, (kind, _) in files.items() if kind == "mutant"}
    assert fed - mutants == expected
    assert fed | skipped == {path for path, (kind, _) in files.items() if kind != "hidden"} | {
        str(root / "class0" / "circle"),
        str(root / "class1" / "upwards"),
    }
    assert not fed & skipped
    assert all(reason for _, reason in feed.skipped)
    assert any(f"{len(skipped)} files are left out" in str(item.message) for item in told)
    animations = {path for path, (kind, _) in files.items() if kind == "animated"}
    assert all(any(repr(path) in str(item.message) for item in told) for path in animations)
    x, y = (np.concatenate(part) for part in zip(*batches))
    for path, image, label in zip(feed.names, x, y):
        kind, number = files[path]
        assert label == number % 3
        if kind not in ("mutant", "cmyk", "gray"):
            assert np.abs(image.astype(int) - color(number)).max() <= (3 if kind == "jpeg" else 0), path


@pytest.mark.usefixtures("locked")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BAD)
def test_by_default_a_broken_file_raises_with_its_name(tmp_path, kind):
    picture(0).save(tmp_path / "secret.png")
    (path,) = make(tmp_path / "root", {kind: BAD[kind]}, 1, seed=1)
    picture(0).save(tmp_path / "root" / "class0" / "0.png")
    with pytest.raises(ValueError) as caught:
        list(data.from_directory(tmp_path / "root", image_size=(4, 4), workers=0))
    assert os.path.basename(path) in str(caught.value)


def test_a_folder_of_nothing_but_broken_files_says_so(tmp_path):
    make(tmp_path, {"text": BAD["text"]}, 3, seed=0)
    with pytest.warns(UserWarning, match="3 files"), pytest.raises(ValueError, match="no image to feed"):
        data.from_directory(tmp_path, on_error="skip")
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="no images to feed"):
        data.from_directory(tmp_path)
