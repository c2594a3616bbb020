"""Are the statistics right, and how fast are they?  ``FeaturewiseNormalization.adapt`` beside
``keras.layers.Normalization``.

Each case is adapted by both, from the same array or ``tf.data``, and held against the truth in float64 (exact integers
for uint8). The uint8 case also beside what NumPy takes to read its bytes once: to copy them into memory that is there
already, to copy them into new memory, to add them all up, to add them up for each channel, to find the greatest. Peak
memory is that of a process of its own that adapts to a stream of so many images. Run ``python benchmarks/adapt.py``
(TensorFlow, about 4 minutes); writes ``results/adapt.json``.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import common

UINT8 = "uint8 images (20000, 64, 64, 3)"
ROUNDS = 3
READ_ROUNDS = 15
STREAMED = (20_000, 1_000_000)


def cases() -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    return {
        "float32 images (50000, 32, 32, 3), 0 to 255": lambda: rng.uniform(0, 255, (50000, 32, 32, 3)).astype(
            "float32"
        ),
        UINT8: lambda: rng.integers(0, 256, (20000, 64, 64, 3), dtype=np.uint8),
        "float32 rows (2000000, 3), mean 1e4, std 1": lambda: rng.normal(1e4, 1, (2_000_000, 3)).astype("float32"),
    }


def truth(data: Any) -> tuple[float, float]:
    """Mean and variance of the first channel, in float64."""
    first = data[..., 0].astype("float64")
    return float(first.mean()), float(first.var())


def run() -> dict[str, Any]:
    import keras
    import tensorflow as tf

    import keras_norm_layers as knl

    found: dict[str, Any] = {"results": {}}
    for name, make in cases().items():
        data = make()
        mean, variance = truth(data)
        rows: dict[str, Any] = {"truth": {"mean": mean, "variance": variance}}
        contenders: dict[str, Callable[[], Any]] = {}
        for source in ("array", "tf.data"):
            fed = data if source == "array" else tf.data.Dataset.from_tensor_slices(data).batch(256)
            for who, kind in (("ours", knl.FeaturewiseNormalization), ("keras.layers", keras.layers.Normalization)):
                contenders[f"{who}, {source}"] = lambda kind=kind, fed=fed: learnt(kind(), fed)
        if name == UINT8:
            found["reads"] = reads(data)
        times, layers = in_turns(contenders)
        for who, seconds in times.items():
            rows[who] = {"seconds": round(statistics.median(seconds), 3), "all": [round(t, 3) for t in seconds]}
            rows[who] |= row(layers[who])
        found["results"][name] = rows
    return found


def learnt(layer: Any, data: Any) -> Any:
    """The layer, adapted."""
    layer.adapt(data)
    return layer


def reads(data: Any) -> dict[str, Any]:
    """What it takes NumPy to read all bytes once, in several senses, and ours in turns with them."""
    import numpy as np

    import keras_norm_layers as knl

    there = np.zeros_like(data)
    times = common.turns(
        {
            "ours, array": lambda: float(learnt(knl.FeaturewiseNormalization(), data).count),
            "numpy.copyto, memory that is there": lambda: np.copyto(there, data),
            "numpy copy, new memory": lambda: len(data.copy()),
            "numpy sum(dtype=int64)": lambda: data.sum(dtype="int64"),
            "numpy sum of each channel": lambda: data.sum((0, 1, 2), dtype="int64"),
            "numpy max": lambda: data.max(),
        },
        rounds=READ_ROUNDS,
    )
    ours = times["ours, array"]
    return {who: time | {"ours takes": common.times_longer(ours, time)} for who, time in times.items()}


def in_turns(contenders: dict[str, Callable[[], Any]]) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each contender in each round, and the layers they gave."""
    times: dict[str, list[float]] = {who: [] for who in contenders}
    layers: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for who, call in contenders.items():
            start = time.perf_counter()
            layers[who] = call()
            times[who].append(time.perf_counter() - start)
    return times, layers


def row(layer: Any) -> dict[str, float]:
    """What one layer learnt, of the first channel."""
    import numpy as np

    variance = np.ravel(layer.std) ** 2 if hasattr(layer, "std") else np.ravel(layer.variance)
    return {"mean": float(np.ravel(layer.mean)[0]), "variance": float(variance[0])}


def streamed(images: int) -> dict[str, float]:
    """Peak memory of this process before and after it adapts to a stream of uint8 images 64 x 64 x 3."""
    import numpy as np

    import keras_norm_layers as knl

    batch = np.random.default_rng(0).integers(0, 256, (250, 64, 64, 3), dtype=np.uint8)
    knl.FeaturewiseNormalization().adapt(batch)
    before = common.peak_memory_mb()
    layer = knl.FeaturewiseNormalization()
    start = time.perf_counter()
    layer.adapt((batch for _ in range(images // len(batch))), verbose=0)
    return {
        "images": int(layer.count),
        "seconds": round(time.perf_counter() - start, 2),
        "peak before, MB": round(before),
        "peak after, MB": round(common.peak_memory_mb()),
    }


def main() -> None:
    common.quiet()
    if len(sys.argv) > 1:
        print(json.dumps(run() if sys.argv[1] == "times" else streamed(int(sys.argv[1]))))
        return
    found = common.child(__file__, "times", backend="tensorflow")
    for case, rows in found["results"].items():
        print(case)
        for who, r in rows.items():
            seconds = f"{r['seconds']:7.3f} s" if "seconds" in r else ""
            print(f"  {who:22s} mean {r['mean']:14.6f}  variance {r['variance']:14.6f}  {seconds}")
    print(f"{UINT8}, one read of its bytes")
    for who, r in found["reads"].items():
        print(f"  {who:34s} {common.ms(r['median_ms']):>5s} ms; ours takes {r['ours takes']:.2f} times as long")
    memory = [common.child(__file__, str(images), backend="tensorflow") for images in STREAMED]
    for streams in memory:
        print(f"streamed: {streams}")
    path = common.save("adapt", {"question": __doc__.splitlines()[0], **found, "memory": memory})
    print(f"written to {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
