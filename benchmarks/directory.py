"""How fast are folders of photographs read?  ``image_dataset_from_directory`` beside ``from_directory``.

One epoch over 2000 JPEG files of 500 x 375, 375 x 500 and 640 x 480 pixels, quality 90, cut out of photographs that
scikit-learn and scikit-image ship; 224 x 224, batches of 32, shuffled. Same resizing beside same resizing: bilinear
without antialiasing, which is what Keras's function does, and with antialiasing, which it has no argument for: there
its own steps (read, decode, ``tf.image.resize``, batch, prefetch) run with ``antialias=True``. Ours is read as a
``PyDataset`` and as ``tf.data``; without antialiasing by OpenCV, which is what it takes where that is installed, and by
Pillow, which it takes where it is not. The pixels of some images are compared before anything is timed. Epochs are
taken in turns; the ratio is the median over the turns. Run ``python benchmarks/directory.py`` (10 minutes); writes
``results/directory.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import common
import numpy as np

SIDE, BATCH, CLASSES = 224, 32, 10
SIZES = [(500, 375)] * 6 + [(375, 500)] * 2 + [(640, 480)] * 2  # width, height; as often as they stand here
KERAS = {"plain": "Keras, tf.data", "antialiased": "Keras's steps with antialias=True, tf.data"}
GRAIN = "Keras, grain"
Contenders = dict[str, Callable[[], Any]]


def write_photos(folder: str, count: int) -> None:
    """Cuts of photographs, each with a place, a scale and perhaps a mirroring of its own, in a folder a class."""
    import PIL.Image
    from skimage import data
    from sklearn.datasets import load_sample_images

    arrays = [*load_sample_images().images, data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    pictures = [PIL.Image.fromarray(array) for array in arrays]
    random = np.random.default_rng(0)
    for number in range(count):
        picture, size = pictures[random.integers(len(pictures))], SIZES[random.integers(len(SIZES))]
        scale = min(whole / side for whole, side in zip(picture.size, size)) * random.uniform(0.6, 1.0)
        left, top = (random.uniform(0, whole - side * scale) for whole, side in zip(picture.size, size))
        box = (left, top, left + size[0] * scale, top + size[1] * scale)
        cut = picture.resize(size, PIL.Image.Resampling.BICUBIC, box=box)
        if random.random() < 0.5:
            cut = cut.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        path = Path(folder, f"class{number % CLASSES}", f"{number:04}.jpg")
        path.parent.mkdir(exist_ok=True)
        cut.save(path, quality=90)


def keras_steps(folder: str, shuffle: bool) -> Any:
    """What ``image_dataset_from_directory`` does, with antialiasing."""
    import tensorflow as tf

    paths = sorted(str(path) for path in Path(folder).rglob("*.jpg"))
    names = sorted({Path(path).parent.name for path in paths})
    labels = [names.index(Path(path).parent.name) for path in paths]

    def load(path: Any, label: Any) -> Any:
        image = tf.image.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        image = tf.image.resize(image, (SIDE, SIDE), antialias=True)
        image.set_shape((SIDE, SIDE, 3))
        return image, label

    dataset = tf.data.Dataset.from_tensor_slices((paths, labels))
    dataset = dataset.shuffle(len(paths), seed=1) if shuffle else dataset
    return dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


def keras_plain(folder: str, shuffle: bool, **options: Any) -> Any:
    import keras

    size = (SIDE, SIDE)
    return keras.utils.image_dataset_from_directory(
        folder, image_size=size, batch_size=BATCH, shuffle=shuffle, seed=1, verbose=False, **options
    )


def ours(folder: str, shuffle: bool, **options: Any) -> Any:
    from keras_norm_layers import data

    return data.from_directory(folder, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=shuffle, seed=1, **options)


def read(batches: Iterable[Any]) -> Callable[[], None]:
    """A call that reads one epoch."""

    def epoch() -> None:
        for _ in batches:
            pass

    return epoch


def read_feed(feed: Any) -> Callable[[], None]:
    def epoch() -> None:
        for i in range(len(feed)):
            feed[i]
        feed.on_epoch_end()

    return epoch


def cases(folder: str, shuffle: bool = True) -> dict[str, tuple[Callable[[], Any], dict[str, dict[str, Any]]]]:
    """For each kind of resizing: what makes Keras's dataset, and the options of ours by name."""
    decoders = {name: {"antialias": False, "decoder": name.lower()} for name in ("OpenCV", "Pillow")}
    return {
        "plain": (lambda: keras_plain(folder, shuffle), decoders),
        "antialiased": (lambda: keras_steps(folder, shuffle), {"Pillow": {}}),
    }


def differences(folder: str) -> dict[str, dict[str, float]]:
    """How far the first batch of ours is from Keras's, in levels: the mean. Its decoder takes a faster transform."""
    found: dict[str, dict[str, float]] = {}
    for case, (theirs, options) in cases(folder, shuffle=False).items():
        batch = next(iter(theirs()))[0].numpy()
        makers = {name: ours(folder, False, **given)[0][0] for name, given in options.items()}
        found[case] = {name: round(float(np.abs(made - batch).mean()), 3) for name, made in makers.items()}
        if max(found[case].values()) > 1:
            raise AssertionError(f"These are not the same images: {found}")
    return found


def contenders(folder: str, case: str) -> Contenders:
    import keras

    theirs, options = cases(folder)[case]
    result = {KERAS[case]: read(theirs())}
    for name, given in options.items():
        feed = ours(folder, True, **given)
        result |= {f"ours, {name}, PyDataset": read_feed(feed), f"ours, {name}, tf.data": read(feed.as_tf_data())}
    if case == "plain" and keras.backend.backend() != "tensorflow":
        result[GRAIN] = read(keras_plain(folder, True, format="grain"))
    return result


def timed_cpu(call: Callable[[], Any], spent: list[float]) -> Callable[[], Any]:
    """The same call, which notes the time of all cores together: what other work on the machine changes least."""

    def run() -> None:
        start = time.process_time()
        call()
        spent.append(time.process_time() - start)

    return run


def run(folder: str, rounds: int) -> dict[str, Any]:
    count = len(list(Path(folder).rglob("*.jpg")))
    results: dict[str, Any] = {"differences": differences(folder)}
    for case in cases(folder):
        calls = contenders(folder, case)
        spent: dict[str, list[float]] = {name: [] for name in calls}
        times = common.turns(
            {name: timed_cpu(call, spent[name]) for name, call in calls.items()}, rounds, warmup=1, limit_s=60
        )
        for name, timed in times.items():
            if "error" not in timed:
                cpu = statistics.median(spent[name][1:]) * 1e3 / count
                timed |= {
                    "cpu_ms_an_image": round(cpu, 3),
                    "images_per_second": round(count / timed["median_ms"] * 1e3),
                    "times_faster": common.times_longer(times[KERAS[case]], timed),
                }
        results[case] = times
    return results


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table; where ours is slower than Keras's, in bold."""
    rows = [
        "| backend | resizing | who | images a second | quartiles, ms an epoch | n | times Keras's | CPU ms an image "
        "| Keras's CPU / this |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for backend, found in results.items():
        for case in KERAS:
            for who, t in found[case].items():
                if "error" in t:
                    rows.append(
                        f"| {backend} | {case} | {who} | could not run: {t['error'].replace('|', '/')} | | | | | |"
                    )
                    continue
                spread = f"{common.ms(t['q1_ms'])} to {common.ms(t['q3_ms'])} | {t['n']}"
                less = found[case][KERAS[case]]["cpu_ms_an_image"] / t["cpu_ms_an_image"]
                speed, cpu = _cell(who, t["times_faster"]), _cell(who, less)
                what = f"{t['images_per_second']} | {spread} | {speed} | {t['cpu_ms_an_image']:.2f} | {cpu}"
                rows.append(f"| {backend} | {case} | {who} | {what} |")
    return "\n".join(rows)


def _cell(who: str, value: float) -> str:
    return f"**{value:.2f}**" if who.startswith("ours") and value < 1 else f"{value:.2f}"


def losses(results: dict[str, Any]) -> list[str]:
    """What of ours is slower than Keras's with the same resizing, a line each."""
    return [
        f"directory, {case}, {backend}: {who}: {t['times_faster']:.2f} times as fast as Keras's"
        for backend, found in results.items()
        for case in KERAS
        for who, t in found[case].items()
        if who.startswith("ours") and t.get("times_faster", 1) < 1
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", default="directory", help="name of the file in results/")
    parser.add_argument("--time", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    if args.time:
        print(json.dumps(run(args.time, args.rounds)))
        return
    about = {"images": [args.count, SIDE, SIDE, 3], "batch": BATCH}
    results = common.earlier(args.save, **about)
    with tempfile.TemporaryDirectory() as folder:
        write_photos(folder, args.count)
        for backend in args.backends:  # saved after each: a run that is cut off keeps what it has
            results[backend] = common.child(__file__, "--time", folder, "--rounds", str(args.rounds), backend=backend)
            path = common.save(args.save, {"question": __doc__.splitlines()[0], **about, "results": results})
            print(table({backend: results[backend]}), f"\nwritten to {os.path.relpath(path)}", flush=True)


if __name__ == "__main__":
    main()
