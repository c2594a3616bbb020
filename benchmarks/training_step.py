"""What does augmentation cost a training step?  A small CNN at 64 x 64, fitted with and without ``Augment``.

The model is the demo's CNN (``examples/train_and_serve.py``) on 64 x 64 x 3 images, batch 32; a measurement is 6
steps of ``fit``. With augmentation a step may cost 15 % more. Run ``python benchmarks/training_step.py``; writes
``results/training_step.json``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import common

STEPS, BATCH, SIZE = 6, 32, 64


def model(augmentation: str) -> Any:
    import keras

    import keras_norm_layers as knl

    layers = keras.layers
    chains = {
        "none": [],
        "ours": [
            knl.Augment(
                [
                    knl.RandomRotation(0.05),
                    knl.RandomTranslation(0.1, 0.1),
                    knl.RandomZoom(0.2),
                    knl.RandomBrightness(0.2),
                ],
                seed=0,
            )
        ],
        "keras.layers": [
            layers.RandomRotation(0.05),
            layers.RandomTranslation(0.1, 0.1),
            layers.RandomZoom(0.2),
            layers.RandomBrightness(0.2),
        ],
    }
    result = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3), dtype="uint8"),
            *chains[augmentation],
            knl.FeaturewiseNormalization(mean=120.0, std=60.0),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result.compile("adam", loss)  # jit_compile="auto": on wherever every layer supports it
    return result


def measure(rounds: int) -> dict[str, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (STEPS * BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    y = rng.integers(0, 10, STEPS * BATCH)
    models = {name: model(name) for name in ("none", "ours", "keras.layers")}

    def epoch(name: str) -> Any:
        return lambda: models[name].fit(x, y, batch_size=BATCH, verbose=0)

    result: dict[str, Any] = common.turns({name: epoch(name) for name in models}, rounds, warmup=1, limit_s=120)
    for name, compiled in models.items():
        result[name]["jit_compile"] = bool(compiled.jit_compile)
        result[name]["fastest_times_without"] = round(result[name]["min_ms"] / result["none"]["min_ms"], 3)
        result[name]["times_without"] = common.times_longer(result[name], result["none"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=common.BACKENDS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--save", default="training_step", help="name of the file in the results")
    parser.add_argument("--results", help="another folder for the results")
    parser.add_argument("--time", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    common.quiet()
    if args.time:
        print(json.dumps(measure(args.rounds)))
        return
    if args.results:
        common.RESULTS = Path(args.results)
    results = common.earlier(args.save, steps=STEPS)
    for name in args.backends:
        results[name] = common.child(__file__, "--time", "--rounds", str(args.rounds), backend=name)
        for who, t in results[name].items():
            step, low, high = (t[f"{quantile}_ms"] / STEPS for quantile in ("median", "q1", "q3"))
            xla = "on" if t["jit_compile"] else "off"
            print(
                f"{name:11s} {who:13s} {step:7.1f} ms a step ({low:.1f} to {high:.1f}; n {t['n']}; XLA {xla}), "
                f"{t['times_without']:.2f} times that without (fastest: {t['fastest_times_without']:.2f})"
            )
    path = common.save(args.save, {"question": __doc__.splitlines()[0], "steps": STEPS, "results": results})
    print(f"written to {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
