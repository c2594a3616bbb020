"""Are the statistics right, and how fast are they?  ``FeaturewiseNormalization.adapt`` beside
``keras.layers.Normalization``.

Each case is adapted by both, from the same array or ``tf.data``, and held against the truth in float64 (exact integers
for uint8). Run ``python benchmarks/adapt.py`` (TensorFlow, about 2 minutes); writes ``results/adapt.json``.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import common


def cases() -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    return {
        "float32 images (50000, 32, 32, 3), 0 to 255": lambda: rng.uniform(0, 255, (50000, 32, 32, 3)).astype(
            "float32"
        ),
        "uint8 images (20000, 64, 64, 3)": lambda: rng.integers(0, 256, (20000, 64, 64, 3), dtype=np.uint8),
        "float32 rows (2000000, 3), mean 1e4, std 1": lambda: rng.normal(1e4, 1, (2_000_000, 3)).astype("float32"),
    }


def truth(data: Any) -> tuple[float, float]:
    """Mean and variance of the first channel, in float64."""
    first = data[..., 0].astype("float64")
    return float(first.mean()), float(first.var())


def run() -> dict[str, Any]:
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_norm_layers as knl

    def timed(adapt: Any) -> float:
        start = time.perf_counter()
        adapt()
        return time.perf_counter() - start

    results = {}
    for name, make in cases().items():
        data = make()
        mean, variance = truth(data)
        rows: dict[str, Any] = {"truth": {"mean": mean, "variance": variance}}
        for source in ("array", "tf.data"):
            fed = data if source == "array" else tf.data.Dataset.from_tensor_slices(data).batch(256)
            ours, theirs = knl.FeaturewiseNormalization(), keras.layers.Normalization()
            seconds = timed(lambda layer=ours, fed=fed: layer.adapt(fed, verbose=0))
            rows[f"ours, {source}"] = row(seconds, ours.mean, np.ravel(ours.std) ** 2)
            seconds = timed(lambda layer=theirs, fed=fed: layer.adapt(fed))
            rows[f"keras.layers, {source}"] = row(seconds, theirs.mean, theirs.variance)
        results[name] = rows
    return results


def row(seconds: float, mean: Any, variance: Any) -> dict[str, float]:
    """What one layer took and learnt, of the first channel."""
    import numpy as np

    return {"seconds": round(seconds, 2), "mean": float(np.ravel(mean)[0]), "variance": float(np.ravel(variance)[0])}


def main() -> None:
    common.quiet()
    if os.environ.get("KERAS_NORM_LAYERS_BENCHMARK_CHILD"):
        print(json.dumps(run()))
        return
    results = common.child(__file__, backend="tensorflow", KERAS_NORM_LAYERS_BENCHMARK_CHILD="1")
    for case, rows in results.items():
        print(case)
        for who, found in rows.items():
            seconds = f"{found['seconds']:6.2f} s" if "seconds" in found else " " * 8
            print(f"  {who:22s} mean {found['mean']:14.6f}  variance {found['variance']:14.6f}  {seconds}")
    path = common.save("adapt", {"question": __doc__.splitlines()[0], "results": results})
    print(f"written to {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
