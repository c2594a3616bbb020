"""Are the statistics right, and how fast are they?  ``FeaturewiseNormalization.adapt`` beside ``keras.layers.Normalization``.

Each case is adapted by both, from the same array or ``tf.data``, and held against the truth in float64 (exact integers for
uint8). Run ``python benchmarks/adapt.py`` (TensorFlow, about 2 minutes); writes ``results/adapt.json``.
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
        "float32 images (50000, 32, 32, 3), 0 to 255": lambda: rng.uniform(0, 255, (50000, 32, 32, 3)).astype("float32"),
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
        rows = {"truth": {"mean": mean, "variance": variance}}
        sources = {"array": lambda d=data: d, "tf.data": lambda d=data: tf.data.Dataset.from_tensor_slices(d).batch(256)}
        for source, give in sources.items():
            ours, theirs = knl.FeaturewiseNormalization(), keras.layers.Normalization()
            rows[f"ours, {source}"] = {"seconds": round(timed(lambda: ours.adapt(give(), verbose=0)), 2)}
            rows[f"ours, {source}"] |= {
                "mean": float(np.ravel(ours.mean)[0]),
                "variance": float(np.ravel(ours.std)[0]) ** 2,
            }
            rows[f"keras.layers, {source}"] = {"seconds": round(timed(lambda: theirs.adapt(give())), 2)}
            rows[f"keras.layers, {source}"] |= {
                "mean": float(np.ravel(theirs.mean)[0]),
                "variance": float(np.ravel(theirs.variance)[0]),
            }
        results[name] = rows
    return results


def main() -> None:
    common.quiet()
    if os.environ.get("KERAS_NORM_LAYERS_BENCHMARK_CHILD"):
        print(json.dumps(run()))
        return
    results = common.child(__file__, backend="tensorflow", KERAS_NORM_LAYERS_BENCHMARK_CHILD="1")
    for case, rows in results.items():
        print(case)
        for who, row in rows.items():
            seconds = f"{row['seconds']:6.2f} s" if "seconds" in row else " " * 8
            print(f"  {who:22s} mean {row['mean']:14.6f}  variance {row['variance']:14.6f}  {seconds}")
    path = common.save("adapt", {"question": __doc__.splitlines()[0], "results": results})
    print(f"written to {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
