"""How fast is ``ImageDataGenerator.flow``?  Keras's class beside ours, epochs over arrays in memory.

Same arguments, same seed, so the same transformations: rotation, two shifts, shear, zoom, flip, channel shift and
brightness (eight steps), for images 224 x 224 x 3 in batches of 32; and the same with featurewise and samplewise
normalization. The first batches are compared before anything is timed. Epochs are taken in turns; the ratio is the
median over the turns. Ours is one compiled pass; Keras's is SciPy and Pillow everywhere.
Run ``python benchmarks/flow.py`` (5 minutes); writes ``results/flow.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np

COUNT, SIDE, BATCH = 128, 224, 32
EIGHT_STEPS: dict[str, Any] = {
    "rotation_range": 20,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "shear_range": 10,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "channel_shift_range": 20,
    "brightness_range": (0.8, 1.2),
}
NORMALIZED = EIGHT_STEPS | {
    "rescale": 1 / 255,
    "samplewise_center": True,
    "samplewise_std_normalization": True,
    "featurewise_center": True,
    "featurewise_std_normalization": True,
}
CASES = {
    "eight steps, float32 images": (EIGHT_STEPS, "float32"),
    "eight steps, uint8 images": (EIGHT_STEPS, "uint8"),
    "eight steps, fill_mode reflect": (EIGHT_STEPS | {"fill_mode": "reflect"}, "float32"),
    "eight steps and normalization": (NORMALIZED, "float32"),
}


def photos(count: int, dtype: str) -> np.ndarray:
    """Smooth random images with noise, 0 to 255."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3)).repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)
    return np.clip(coarse + rng.normal(0, 10, coarse.shape), 0, 255).round().astype(dtype)


def epoch(kind: Any, arguments: dict[str, Any], images: np.ndarray) -> tuple[Callable[[], Any], np.ndarray]:
    """A call that makes one epoch, and the first batch of the first one."""
    generator = kind(**arguments)
    if arguments.get("featurewise_center"):
        generator.mean, generator.std = (np.full((1, 1, 3), v, "float32") for v in (0.1, 0.9))
    flow = generator.flow(images, batch_size=BATCH, seed=1)

    def run() -> None:
        for i in range(len(flow)):
            flow[i]

    return run, flow[0]


def cpu_ms(call: Callable[[], Any]) -> float:
    """Time of all cores together that a call takes: what a machine that is busy with other work changes least."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1e3


def run(rounds: int) -> dict[str, Any]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator  # its only place in Keras 3 without TensorFlow

    import keras_norm_layers as knl

    results: dict[str, Any] = {}
    for name, (arguments, dtype) in CASES.items():
        images = photos(COUNT, dtype)
        ours, our_batch = epoch(knl.ImageDataGenerator, arguments, images)
        theirs, their_batch = epoch(ImageDataGenerator, arguments, images)
        times = common.turns({"ours": ours, "Keras": theirs}, rounds=rounds, warmup=1, limit_s=30)
        cpu = {"ours": ours, "Keras": theirs}
        spent = {who: min(cpu_ms(call) for _ in range(3)) / COUNT for who, call in cpu.items()}
        results[name] = times | {
            "cpu_ms_an_image": {who: round(value, 3) for who, value in spent.items()},
            "largest_difference": float(np.abs(our_batch - their_batch).max()),
            "times_faster": common.times_longer(times["Keras"], times["ours"]),
            "images_per_second": {who: round(COUNT / times[who]["median_ms"] * 1e3) for who in ("ours", "Keras")},
        }
    return results


def line(backend: str, case: str, found: dict[str, Any]) -> str:
    """What is printed of a case."""
    wall, cpu = {who: found[who]["median_ms"] / COUNT for who in ("ours", "Keras")}, found["cpu_ms_an_image"]
    times = ", ".join(f"{who} {common.ms(wall[who])} ms (CPU {common.ms(cpu[who])})" for who in wall)
    ratio = cpu["Keras"] / cpu["ours"]
    return f"{backend:10s} {case:32s} {found['times_faster']:5.2f} times faster (CPU {ratio:.2f}), an image: {times}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--rounds", type=int, default=10, help="epochs of each of the two, in turns")
    parser.add_argument("--save", default="flow", help="name of the file in results/")
    parser.add_argument("--time", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    if args.time:
        print(json.dumps(run(args.rounds)))
        return
    about = {"images": [COUNT, SIDE, SIDE, 3], "batch": BATCH}
    results = common.earlier(args.save, **about)
    for backend in args.backends:  # saved after each: a run that is cut off keeps what it has
        results[backend] = common.child(__file__, "--time", "--rounds", str(args.rounds), backend=backend)
        print("\n".join(line(backend, case, found) for case, found in results[backend].items()), flush=True)
        path = common.save(args.save, {"question": __doc__.splitlines()[0], **about, "results": results})
    print(f"written to {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
